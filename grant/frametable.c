/* SPDX-License-Identifier: MIT */
#include "grant/frametable_inner.h"

#include <assert.h>
#include <string.h>

#include "base/span.h"

#define GFN_END (1ull << 32) /* frame numbers are 32 bits in a version 1 grant entry */

int frametable_new(const struct frametable_ops *ops, void *ctx, uint16_t owner, struct frametable **out)
{
    struct frametable *t = calloc(1, sizeof(*t));
    if (!t)
        return -ENOMEM;
    t->ops = ops;
    t->ctx = ctx;
    t->owner = owner;
    *out = t;
    return 0;
}

/* How many extents begin at or below gfn: the one that may hold it is the last of them. */
static uint32_t table_position(const struct frametable *t, uint32_t gfn)
{
    uint32_t low = 0, high = t->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (t->extents[middle]->base_gfn <= gfn)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct frame_extent *table_find(struct frametable *t, uint32_t gfn)
{
    if (t->last && extent_holds(t->last, gfn))
        return t->last;
    uint32_t position = table_position(t, gfn);
    if (position == 0 || !extent_holds(t->extents[position - 1], gfn))
        return NULL;
    return t->last = t->extents[position - 1];
}

static int table_reserve(struct frametable *t)
{
    if (t->count < t->capacity)
        return 0;
    uint32_t capacity = t->capacity ? t->capacity * 2 : 8;
    struct frame_extent **bigger = reallocarray(t->extents, capacity, sizeof(*bigger));
    if (!bigger)
        return -ENOMEM;
    t->extents = bigger;
    t->capacity = capacity;
    return 0;
}

/* Whether what the hypervisor said can be true of an extent that holds gfn. */
static bool table_may_admit(const struct frametable *t, const struct frame_extent *x, uint32_t gfn)
{
    if (x->owner != t->owner || !x->address || !span_fits(x->base_gfn, x->frame_count, GFN_END) ||
        !extent_holds(x, gfn))
        return false;
    uint32_t position = table_position(t, x->base_gfn);
    if (position > 0 && extent_holds(t->extents[position - 1], x->base_gfn))
        return false;
    return position == t->count || !extent_holds(x, t->extents[position]->base_gfn);
}

/* Takes *x, which the hypervisor handed out, into the table. */
static int table_admit(struct frametable *t, struct frame_extent *x, uint32_t gfn)
{
    if (!table_may_admit(t, x, gfn))
        return -EPROTO;
    x->pins = calloc(x->frame_count, sizeof(*x->pins));
    if (!x->pins)
        return -ENOMEM;
    x->pinned = 0;
    x->revoked = false;
    x->dma_index = FRAME_DMA_NONE;
    uint32_t position = table_position(t, x->base_gfn);
    memmove(&t->extents[position + 1], &t->extents[position], (t->count - position) * sizeof(*t->extents));
    t->extents[position] = x;
    t->count++;
    return 0;
}

static int table_fetch(struct frametable *t, uint32_t gfn, struct frame_extent **out)
{
    _cleanup_free_ struct frame_extent *x = calloc(1, sizeof(*x));
    if (!x || table_reserve(t) < 0)
        return -ENOMEM;
    int r = t->ops->extent_get(t->ctx, t->owner, gfn, x);
    if (r < 0)
        return r;
    r = table_admit(t, x, gfn);
    if (r < 0) {
        t->ops->extent_put(t->ctx, x);
        return r;
    }
    *out = t->last = take_ptr(x);
    return 0;
}

static void table_release(struct frametable *t, struct frame_extent *x)
{
    assert(x->pinned == 0);
    uint32_t position = table_position(t, x->base_gfn) - 1;
    assert(t->extents[position] == x);
    if (t->release)
        t->release(t->release_ctx, x);
    memmove(&t->extents[position], &t->extents[position + 1], (t->count - position - 1) * sizeof(*t->extents));
    t->count--;
    if (t->last == x)
        t->last = NULL;
    t->ops->extent_put(t->ctx, x);
    free(x->pins);
    free(x);
}

void frametable_free(struct frametable *t)
{
    if (!t)
        return;
    assert(t->pinned == 0);
    while (t->count)
        table_release(t, t->extents[t->count - 1]);
    free(t->extents);
    free(t);
}

void frametable_on_release(struct frametable *t, frametable_release_fn *fn, void *ctx)
{
    assert(t->release_users == 0 || (t->release == fn && t->release_ctx == ctx));
    t->release = fn;
    t->release_ctx = ctx;
    t->release_users++;
}

void frametable_off_release(struct frametable *t, frametable_release_fn *fn, void *ctx)
{
    assert(t->release_users > 0 && t->release == fn && t->release_ctx == ctx);
    if (--t->release_users > 0)
        return;
    for (uint32_t i = 0; i < t->count; i++)
        fn(ctx, t->extents[i]);
    t->release = NULL;
}

int frametable_pin(struct frametable *t, uint32_t gfn, bool write, struct frame_extent **extent,
                   unsigned char **address)
{
    struct frame_extent *x = table_find(t, gfn);
    if (!x) {
        int r = table_fetch(t, gfn, &x);
        if (r < 0)
            return r;
    }
    if (x->revoked)
        return -ESTALE;
    if (write && x->readonly)
        return -EROFS;
    if (x->pinned == UINT32_MAX || t->pinned == UINT32_MAX)
        return -EOVERFLOW;
    *extent = x;
    *address = frametable_count(t, x, gfn - x->base_gfn);
    return 0;
}

void frametable_unpin(struct frametable *t, struct frame_extent *extent, uint32_t gfn)
{
    if (frametable_uncount(t, extent, gfn))
        table_release(t, extent);
}

void frametable_unpinned(struct frametable *t, struct frame_extent *extent)
{
    table_release(t, extent);
}

void frametable_revoke(struct frametable *t, uint32_t extent_id, uint32_t instance)
{
    for (uint32_t i = t->count; i-- > 0;) {
        struct frame_extent *x = t->extents[i];
        if (extent_id ? x->id != extent_id : x->instance != instance)
            continue;
        x->revoked = true;
        if (x->pinned == 0)
            table_release(t, x);
    }
}

uint32_t frametable_pinned(const struct frametable *t)
{
    return t->pinned;
}

uint32_t frametable_extents(const struct frametable *t)
{
    return t->count;
}

const struct frame_extent *frametable_extent(const struct frametable *t, uint32_t index)
{
    assert(index < t->count);
    return t->extents[index];
}
