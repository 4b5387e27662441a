/* SPDX-License-Identifier: MIT */
#include "backend/blk/blkpool.h"

#include <assert.h>

#include "backend/blk/blkrequest.h"

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
    p->requests = calloc(count, sizeof(*p->requests));
    p->books = calloc(count, books_bytes(segments_max));
    p->free = calloc(count, sizeof(*p->free));
    if (!p->requests || !p->books || !p->free)
        return -ENOMEM;
    for (uint32_t i = 0; i < count; i++)
        p->free[p->free_count++] = count - 1 - i;
    return 0;
}

void blkpool_deinit(struct blkpool *p)
{
    free(p->requests);
    free(p->books);
    free(p->free);
}

/* Once for each request: what calloc() gave is not touched before it is used. */
static void request_bind(struct blkpool *p, struct blk_request *r, uint32_t index)
{
    unsigned char *books = p->books + index * books_bytes(p->segments_max);
    r->pool = p;
    r->row = &p->rows[index];
    r->iov = (void *)books;
    dma_io_init(&r->dma, books + iov_bytes(p->segments_max), p->segments_max);
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

void blkpool_put(struct blkpool *p, struct blk_request *r)
{
    assert(r->pool == p);
    p->free[p->free_count++] = (uint32_t)(r - p->requests);
}
