/* SPDX-License-Identifier: MIT */
#include "grant/dma.h"

#include <stdalign.h>
#include <string.h>

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
