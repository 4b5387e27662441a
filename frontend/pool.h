/* SPDX-License-Identifier: MIT */
/* frontend/pool.h: memory that is shared with one backend: an extent, each page of it granted once, for reading and
 * writing, when the pool opens, and given out in contiguous runs, lowest first, so that the backend sees few extents
 * and merges neighbouring segments. A disk has two: one of a single page for the ring, one for data.
 *
 * The grants stay in force as long as the pool; they are not one request's, so the backend can read and write any page
 * of the pool at any time: nothing but I/O data lives there, and pages begin zeroed (XSA-403). The books are private.
 *
 * When a backend process dies, the reading and writing bits of what it had mapped stay set in the grant entries. They
 * do not hinder its successor, which maps the same references again for the replay and clears the bits with its own
 * unmap, or all of them at once when it connects; so a pool, references included, outlives its backend. Until then
 * they cannot be ended: see pool_close().
 *
 * Sizes are in pages. One thread a pool.
 */
#ifndef FRONTEND_POOL_H
#define FRONTEND_POOL_H

#include "base/list.h"
#include "platform/platform.h"

#define POOL_PAGES_MAX 16384u /* 64 MiB: half of the grant table of a domain */

struct pool {
    struct platform *platform; /* borrowed */
    struct platform_extent extent;
    uint32_t page_count, free_count;
    uint32_t granted;    /* gref[0 … granted) are in force */
    uint32_t *gref;      /* by page */
    uint64_t *taken;     /* a bit for each page; those behind the last are set */
    struct list retired; /* in its domain's list, when its disk is closed */
};

/* Allocates and grants: 0, or -errno with a sentence and nothing held. */
int pool_open(struct platform *platform, uint16_t grantee, uint32_t page_count, struct pool **out, struct err *e);
/* Ends the grants and gives the memory back: 0, and the pool is gone; -EBUSY: the backend still has some of it mapped:
 * nothing is given back, what could be ended is ended, call again later. */
int pool_close(struct pool *p);
/* Frees the books only; the platform connection is about to close. */
void pool_abandon(struct pool *p);

/* The first of `count` adjacent free pages, or -ENOSPC. */
int64_t pool_take(struct pool *p, uint32_t count);
void pool_put(struct pool *p, uint32_t first, uint32_t count); /* asserts that they were taken */

static inline unsigned char *pool_page(const struct pool *p, uint32_t page)
{
    return p->extent.address + (size_t)page * PAGE_BYTES;
}

/* Does [address, address + bytes) lie in the pool? Its offset in bytes, or -1. */
int64_t pool_offset(const struct pool *p, const void *address, size_t bytes);

#endif
