/* SPDX-License-Identifier: MIT */
/* frontend/pool.h: memory that is shared with one backend: an extent, each page of it granted once, for reading and
 * writing, when the pool opens. A disk has two: one for its rings, one for data.
 *
 * The pages of a pool are given out by areas, each a range of them with an owner of its own (a queue; all queues, under
 * a lock): in contiguous runs, lowest first, so that the backend sees few extents, merges neighbouring segments, and
 * keeps few pages mapped where it keeps them.
 *
 * The grants stay in force as long as the pool; they are not one request's, so the backend can read and write any page
 * of the pool at any time: nothing but I/O data lives there, and pages begin zeroed (XSA-403). The books are private.
 *
 * When a backend process dies, the reading and writing bits of what it had mapped stay set in the grant entries. They
 * do not hinder its successor, which maps the same references again for the replay and clears the bits with its own
 * unmap, or all of them at once when it connects; so a pool, references included, outlives its backend. Until then
 * they cannot be ended: see pool_close().
 *
 * Sizes are in pages. One thread an area; a pool's pages and references may be looked at by all.
 */
#ifndef FRONTEND_POOL_H
#define FRONTEND_POOL_H

#include "base/list.h"
#include "base/span.h"
#include "platform/platform.h"

#define POOL_PAGES_MAX 16384u /* 64 MiB: half of the grant table of a domain */

struct pool {
    struct platform *platform; /* borrowed */
    struct platform_extent extent;
    uint32_t page_count;
    uint32_t granted;    /* gref[0 … granted) are in force */
    uint32_t *gref;      /* by page */
    struct list retired; /* in its domain's list, when its disk is closed */
};

struct pool_area {
    uint32_t first, page_count, free_count;
    uint64_t *taken; /* a bit for each page; those behind the last are set */
};

/* Allocates and grants: 0, or -errno with a sentence and nothing held. */
int pool_open(struct platform *platform, uint16_t grantee, uint32_t page_count, struct pool **out, struct err *e);
/* Ends the grants and gives the memory back: 0, and the pool is gone; -EBUSY: the backend still has some of it mapped:
 * nothing is given back, what could be ended is ended, call again later. */
int pool_close(struct pool *p);
/* Frees the books only; the platform connection is about to close. */
void pool_abandon(struct pool *p);

/* All free. 0 or -ENOMEM. */
int pool_area_init(struct pool_area *a, uint32_t first, uint32_t page_count);
void pool_area_deinit(struct pool_area *a); /* of zeroes is fine */
/* The first of `count` adjacent free pages, as a page of the pool, or -ENOSPC. */
int64_t pool_area_take(struct pool_area *a, uint32_t count);
void pool_area_put(struct pool_area *a, uint32_t page, uint32_t count); /* asserts that they were taken */

static inline bool pool_area_has(const struct pool_area *a, uint32_t page)
{
    return page >= a->first && page - a->first < a->page_count;
}

static inline unsigned char *pool_page(const struct pool *p, uint32_t page)
{
    return p->extent.address + (size_t)page * PAGE_BYTES;
}

/* Does [address, address + bytes) lie in the pool? Its offset in bytes, or -1. */
static inline int64_t pool_offset(const struct pool *p, const void *address, size_t bytes)
{
    uintptr_t base = (uintptr_t)p->extent.address, at = (uintptr_t)address;
    if (at < base || !span_fits(at - base, bytes, (uint64_t)p->page_count * PAGE_BYTES))
        return -1;
    return (int64_t)(at - base);
}

#endif
