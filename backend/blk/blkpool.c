/* SPDX-License-Identifier: MIT */
#include "backend/blk/blkpool.h"

#include <assert.h>
#include <sys/mman.h>

#include "backend/blk/blkrequest.h"

#define ALIGNMENT 64 /* a cache line */

static size_t iov_bytes(unsigned segments_max)
{
    return (segments_max + IMAGE_EXTENTS_MAX) * sizeof(struct iovec);
}

static size_t books_bytes(unsigned segments_max)
{
    return iov_bytes(segments_max) + DMA_IO_BYTES(segments_max);
}

int blkpool_init(struct blkpool *p, uint32_t count, unsigned segments_max)
{
    *p = (struct blkpool){.count = count, .segments_max = segments_max};
    if (!count)
        return 0;
    p->iov_bytes = iov_bytes(segments_max);
    p->books_bytes = books_bytes(segments_max);
    size_t requests = (count * sizeof(*p->requests) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    p->bytes = requests + count * books_bytes(segments_max);
    void *m = mmap(NULL, p->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (m == MAP_FAILED)
        return -errno;
    madvise(m, p->bytes, MADV_NOHUGEPAGE); /* one touched byte of many disks' pools would bring 2 MiB of them in */
    p->requests = m;
    p->books = (unsigned char *)m + requests;
    p->free = calloc(count, sizeof(*p->free));
    if (!p->free)
        return -ENOMEM;
    for (uint32_t i = 0; i < count; i++)
        p->free[p->free_count++] = count - 1 - i;
    return 0;
}

void blkpool_deinit(struct blkpool *p)
{
    if (p->requests)
        munmap(p->requests, p->bytes);
    free(p->free);
}

/* Once for each request: what the kernel gave is not touched before it is used. */
static void request_bind(struct blkpool *p, struct blk_request *r, uint32_t index)
{
    unsigned char *books = p->books + index * p->books_bytes;
    r->pool = p;
    r->row = &p->rows[index];
    r->iov = (void *)books;
    dma_io_init(&r->dma, books + p->iov_bytes, p->segments_max);
}

struct blk_request *blkpool_get(struct blkpool *p)
{
    assert(p->free_count > 0);
    uint32_t index = p->free[--p->free_count];
    struct blk_request *r = &p->requests[index];
    if (!r->pool)
        request_bind(p, r, index);
    return r;
}

void blkpool_prefetch(const struct blkpool *p)
{
    if (p->free_count < 2)
        return;
    uint32_t index = p->free[p->free_count - 2];
    const unsigned char *r = (const unsigned char *)&p->requests[index], *books = p->books + index * p->books_bytes;
    for (unsigned line = 0; line <= URING_FETCH_BYTES; line += ALIGNMENT)
        __builtin_prefetch(r + line, 1);
    __builtin_prefetch(books, 1);
    __builtin_prefetch(books + p->iov_bytes, 1);
}

void blkpool_put(struct blkpool *p, struct blk_request *r)
{
    assert(r->pool == p);
    p->free[p->free_count++] = (uint32_t)(r - p->requests);
}
