/* SPDX-License-Identifier: MIT */
#include "frontend/pool.h"

#include <assert.h>
#include <string.h>

#define WORD_BITS 64u

void pool_abandon(struct pool *p)
{
    list_remove(&p->retired);
    free(p->gref);
    free(p);
}

static struct pool *pool_books_new(struct platform *platform, uint32_t page_count)
{
    struct pool *p = calloc(1, sizeof(*p));
    if (!p)
        return NULL;
    list_init(&p->retired);
    p->platform = platform;
    p->page_count = page_count;
    p->gref = calloc(page_count, sizeof(*p->gref));
    if (!p->gref) {
        pool_abandon(p);
        return NULL;
    }
    return p;
}

/* gref[0 … granted) stay those in force; from here on a reference's index no longer says its page. */
static void pool_grants_end(struct pool *p)
{
    uint32_t busy = 0;
    for (uint32_t i = 0; i < p->granted; i++)
        if (gnttab_end(platform_gnttab(p->platform), p->gref[i]) < 0)
            p->gref[busy++] = p->gref[i];
    p->granted = busy;
}

int pool_close(struct pool *p)
{
    pool_grants_end(p);
    if (p->granted)
        return -EBUSY;
    platform_extent_free(p->platform, &p->extent);
    pool_abandon(p);
    return 0;
}

int pool_open(struct platform *platform, uint16_t grantee, uint32_t page_count, struct pool **out, struct err *e)
{
    assert(page_count && page_count <= POOL_PAGES_MAX);
    struct pool *p = pool_books_new(platform, page_count);
    if (!p)
        return err_set(e, -ENOMEM, "no memory for the books of %u shared pages", page_count);
    int r = platform_extent_alloc(platform, grantee, page_count, false, &p->extent, e);
    if (r < 0) {
        pool_abandon(p);
        return r;
    }
    struct gnttab *table = platform_gnttab(platform);
    for (; p->granted < page_count; p->granted++) {
        r = gnttab_grant(table, grantee, p->extent.base_gfn + p->granted, false, &p->gref[p->granted], e);
        if (r < 0) {
            if (pool_close(p) < 0)
                pool_abandon(p); /* the backend maps what it was not told of: the memory goes with the connection */
            return r;
        }
    }
    *out = p;
    return 0;
}

/* ---- areas ---- */

static uint32_t area_words(uint32_t page_count)
{
    return (page_count + WORD_BITS - 1) / WORD_BITS;
}

int pool_area_init(struct pool_area *a, uint32_t first, uint32_t page_count)
{
    *a = (struct pool_area){.first = first, .page_count = page_count, .free_count = page_count};
    a->taken = calloc(area_words(page_count) + 1, sizeof(*a->taken));
    if (!a->taken)
        return -ENOMEM;
    if (page_count % WORD_BITS)
        a->taken[page_count / WORD_BITS] = ~0ull << page_count % WORD_BITS;
    return 0;
}

void pool_area_deinit(struct pool_area *a)
{
    free(a->taken);
    a->taken = NULL;
}

/* The first page from `from` on whose bit is `set`, or page_count; pages of the area, as in what follows. */
static uint32_t area_find(const struct pool_area *a, uint32_t from, bool set)
{
    while (from < a->page_count) {
        uint64_t word = a->taken[from / WORD_BITS];
        uint64_t ahead = (set ? word : ~word) >> from % WORD_BITS;
        if (ahead)
            return MIN(a->page_count, from + (uint32_t)__builtin_ctzll(ahead));
        from = (from / WORD_BITS + 1) * WORD_BITS;
    }
    return a->page_count;
}

static void area_mark(struct pool_area *a, uint32_t first, uint32_t count, bool taken)
{
    for (uint32_t i = first; i < first + count; i++) {
        uint64_t bit = 1ull << i % WORD_BITS;
        assert(!(a->taken[i / WORD_BITS] & bit) == taken);
        a->taken[i / WORD_BITS] ^= bit;
    }
}

int64_t pool_area_take(struct pool_area *a, uint32_t count)
{
    assert(count);
    if (count > a->free_count)
        return -ENOSPC;
    for (uint32_t first = area_find(a, 0, false); span_fits(first, count, a->page_count);) {
        uint32_t end = area_find(a, first, true);
        if (end - first >= count) {
            area_mark(a, first, count, true);
            a->free_count -= count;
            return a->first + first;
        }
        first = area_find(a, end, false);
    }
    return -ENOSPC;
}

void pool_area_put(struct pool_area *a, uint32_t page, uint32_t count)
{
    assert(page >= a->first && span_fits(page - a->first, count, a->page_count));
    area_mark(a, page - a->first, count, false);
    a->free_count += count;
}
