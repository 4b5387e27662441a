/* SPDX-License-Identifier: MIT */
#include "frontend/pool.h"

#include <assert.h>
#include <string.h>

#include "base/span.h"

#define WORD_BITS 64u

static uint32_t pool_words(uint32_t page_count)
{
    return (page_count + WORD_BITS - 1) / WORD_BITS;
}

void pool_abandon(struct pool *p)
{
    list_remove(&p->retired);
    free(p->gref);
    free(p->taken);
    free(p);
}

static struct pool *pool_books_new(struct platform *platform, uint32_t page_count)
{
    struct pool *p = calloc(1, sizeof(*p));
    if (!p)
        return NULL;
    list_init(&p->retired);
    p->platform = platform;
    p->page_count = p->free_count = page_count;
    p->gref = calloc(page_count, sizeof(*p->gref));
    p->taken = calloc(pool_words(page_count), sizeof(*p->taken));
    if (!p->gref || !p->taken) {
        pool_abandon(p);
        return NULL;
    }
    if (page_count % WORD_BITS)
        p->taken[page_count / WORD_BITS] = ~0ull << page_count % WORD_BITS;
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

/* The first page from `from` on whose bit is `set`, or page_count. */
static uint32_t pool_find(const struct pool *p, uint32_t from, bool set)
{
    while (from < p->page_count) {
        uint64_t word = p->taken[from / WORD_BITS];
        uint64_t ahead = (set ? word : ~word) >> from % WORD_BITS;
        if (ahead)
            return MIN(p->page_count, from + (uint32_t)__builtin_ctzll(ahead));
        from = (from / WORD_BITS + 1) * WORD_BITS;
    }
    return p->page_count;
}

static void pool_mark(struct pool *p, uint32_t first, uint32_t count, bool taken)
{
    for (uint32_t i = first; i < first + count; i++) {
        uint64_t bit = 1ull << i % WORD_BITS;
        assert(!(p->taken[i / WORD_BITS] & bit) == taken);
        p->taken[i / WORD_BITS] ^= bit;
    }
}

int64_t pool_take(struct pool *p, uint32_t count)
{
    assert(count);
    for (uint32_t first = pool_find(p, 0, false); span_fits(first, count, p->page_count);) {
        uint32_t end = pool_find(p, first, true);
        if (end - first >= count) {
            pool_mark(p, first, count, true);
            p->free_count -= count;
            return first;
        }
        first = pool_find(p, end, false);
    }
    return -ENOSPC;
}

void pool_put(struct pool *p, uint32_t first, uint32_t count)
{
    assert(span_fits(first, count, p->page_count));
    pool_mark(p, first, count, false);
    p->free_count += count;
}

int64_t pool_offset(const struct pool *p, const void *address, size_t bytes)
{
    uintptr_t base = (uintptr_t)p->extent.address, at = (uintptr_t)address;
    if (at < base || !span_fits(at - base, bytes, (uint64_t)p->page_count * PAGE_BYTES))
        return -1;
    return (int64_t)(at - base);
}
