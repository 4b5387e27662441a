/* SPDX-License-Identifier: MIT */
/* grant/frametable_inner.h: the inside of a frame table, so that gntmap.c pins and unpins a frame of the extent that
 * was hit last without a call. For these two files only. */
#ifndef GRANT_FRAMETABLE_INNER_H
#define GRANT_FRAMETABLE_INNER_H

#include <assert.h>

#include "grant/frametable.h"

struct frametable {
    const struct frametable_ops *ops;
    void *ctx;
    uint16_t owner;
    struct frame_extent **extents; /* by base_gfn; no two overlap */
    uint32_t count, capacity;
    struct frame_extent *last; /* hit last, or NULL */
    uint32_t pinned;
    frametable_release_fn *release;
    void *release_ctx;
    uint32_t release_users;
};

static inline bool extent_holds(const struct frame_extent *x, uint32_t gfn)
{
    return gfn >= x->base_gfn && gfn - x->base_gfn < x->frame_count;
}

/* One pin more of that frame of the extent: its address. */
static inline unsigned char *frametable_count(struct frametable *t, struct frame_extent *x, uint32_t frame)
{
    x->pins[frame]++; /* at most x->pinned: does not wrap */
    x->pinned++;
    t->pinned++;
    return x->address + (size_t)frame * PAGE_BYTES;
}

/* One less: true where the extent is to go. */
static inline bool frametable_uncount(struct frametable *t, struct frame_extent *x, uint32_t gfn)
{
    assert(extent_holds(x, gfn) && x->pins[gfn - x->base_gfn] > 0);
    x->pins[gfn - x->base_gfn]--;
    x->pinned--;
    t->pinned--;
    return x->pinned == 0 && x->revoked;
}

/* Gives an extent back that frametable_uncount() said so of. */
void frametable_unpinned(struct frametable *t, struct frame_extent *extent);

/* frametable_pin(), short where the extent is the one hit last and nothing speaks against it. */
static inline int frametable_pin_short(struct frametable *t, uint32_t gfn, bool write, struct frame_extent **extent,
                                       unsigned char **address)
{
    struct frame_extent *x = t->last;
    if (!x || !extent_holds(x, gfn) || x->revoked || (write && x->readonly) || x->pinned == UINT32_MAX ||
        t->pinned == UINT32_MAX)
        return frametable_pin(t, gfn, write, extent, address);
    *extent = x;
    *address = frametable_count(t, x, gfn - x->base_gfn);
    return 0;
}

static inline void frametable_unpin_short(struct frametable *t, struct frame_extent *extent, uint32_t gfn)
{
    if (frametable_uncount(t, extent, gfn))
        frametable_unpinned(t, extent);
}

#endif
