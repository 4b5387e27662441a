/* SPDX-License-Identifier: MIT */
/* backend/blk/blkpool.h: requests of one size, made when their queue is, so that the data path allocates nothing.
 *
 * A queue has two pools. The small one has a request for each slot of the ring, with books for the eleven segments that
 * fit a slot: about 2 KiB each. The large one is for indirect requests of more: their books are 18 KiB each, so there
 * are few, and a large request that finds none free waits (blkqueue.h). A disk so costs 200 KiB with a ring of one page
 * and 1.2 MiB with one of sixteen. What was never used is not in memory yet: a pool is a mapping of its own (calloc()
 * writes zeroes into all of it once its heap has grown), which the kernel brings in as it is touched, and the free
 * requests used last are used next. So an idle disk's pools cost nothing, and a disk's that has few requests in flight
 * little.
 */
#ifndef BLK_BLKPOOL_H
#define BLK_BLKPOOL_H

#include "base/util.h"

struct blk_request;
struct journal_row;

struct blkpool {
    struct blk_request *requests;
    unsigned char *books; /* of all of them: the arrays of the DMA, and the I/O vectors */
    uint32_t *free;       /* a stack of indices */
    uint32_t free_count, count;
    unsigned segments_max;         /* of a request */
    size_t books_bytes, iov_bytes; /* of a request's books, and of the I/O vectors in front of them */
    size_t bytes;                  /* of the mapping at `requests`, which has the books, too */
    struct journal_row *rows;      /* borrowed: one for each */
};

/* 0 or -ENOMEM; deinit is fine after a failure, too. count 0: an empty pool. */
int blkpool_init(struct blkpool *p, uint32_t count, unsigned segments_max);
void blkpool_deinit(struct blkpool *p);
struct blk_request *blkpool_get(struct blkpool *p); /* asserts that there is one */
void blkpool_prefetch(const struct blkpool *p);     /* the one behind the next, into the cache */
void blkpool_put(struct blkpool *p, struct blk_request *r);

static inline bool blkpool_idle(const struct blkpool *p)
{
    return p->free_count == p->count;
}

#endif
