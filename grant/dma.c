/* SPDX-License-Identifier: MIT */
#include "grant/dma.h"

#include <stdalign.h>
#include <string.h>
#include <sys/uio.h>

const struct dma_strategy *const dma_strategies[] = {
#define DMA_STRATEGY(name) &dma_##name,
#include "grant/dma_list.h"
#undef DMA_STRATEGY
};

const unsigned dma_strategy_count = ARRAY_SIZE(dma_strategies);

const struct dma_strategy *dma_strategy_find(const char *name)
{
    for (unsigned i = 0; i < dma_strategy_count; i++)
        if (strcmp(dma_strategies[i]->name, name) == 0)
            return dma_strategies[i];
    return NULL;
}

_Static_assert(sizeof(struct dma_vec) % alignof(struct dma_segment) == 0,
               "dma_io_init() puts these arrays one behind the other");

void dma_io_init(struct dma_io *io, void *arrays, unsigned segments_max)
{
    *io = (struct dma_io){.segments_max = segments_max, .vec = arrays};
    io->segment = (void *)(io->vec + segments_max);
}

/* By the kernel, which answers where a load or a store of our own would be the end of the process. */
static int reach_lost(void *guest, void *local, size_t bytes, bool to_guest)
{
    struct iovec mine = {local, bytes}, theirs = {guest, bytes};
    ssize_t n = (to_guest ? process_vm_writev : process_vm_readv)(getpid(), &mine, 1, &theirs, 1, 0);
    return n == (ssize_t)bytes ? 0 : -EFAULT;
}

static int reach_lost_zero(unsigned char *guest, size_t bytes)
{
    static unsigned char zeroes[PAGE_BYTES];
    int r = 0;
    for (size_t done = 0; done < bytes && !r; done += PAGE_BYTES)
        r = reach_lost(guest + done, zeroes, MIN(bytes - done, sizeof(zeroes)), true);
    return r;
}

int dma_reach(const struct dma_strategy *row, void *guest, void *local, size_t bytes, bool to_guest)
{
    if (row->unsafe)
        return local ? reach_lost(guest, local, bytes, to_guest) : reach_lost_zero(guest, bytes);
    if (!local)
        memset(guest, 0, bytes);
    else if (to_guest)
        memcpy(guest, local, bytes);
    else
        memcpy(local, guest, bytes);
    return 0;
}
