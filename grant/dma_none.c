/* SPDX-License-Identifier: MIT */
/* grant/dma_none.c: finds the frame and uses it: the price of native I/O, for measuring what protection costs. Nothing
 * is asked of the grant but which frame it names: not who it is for, nor what it permits, and nothing is held. A frame
 * is still only ever searched for among the guest's extents, so what is reached is the guest's, or, later, as with
 * `validate`. In no build but `make bench-rows`. */
#ifdef DMA_BENCH_ROWS
#include <assert.h>

#include "base/span.h"
#include "grant/dma_extent.h"
#include "grant/frametable_inner.h"

struct dma {
    struct dma_extents x;
};

/* The first use of a grant frame or of an extent brings it here, by the rules. */
static __attribute__((noinline)) int frame_find_slowly(struct dma *d, uint32_t gref, bool write,
                                                       struct frame_extent **x, unsigned char **address)
{
    struct active_entry *a;
    int r = active_map(d->x.map, NULL, gref, write, &a);
    if (r)
        return r;
    *x = a->extent;
    *address = a->address;
    active_unmap(d->x.map, gref, write);
    return 0;
}

static inline int frame_find(struct dma *d, uint32_t gref, bool write, struct frame_extent **x, unsigned char **address)
{
    if (gref >= GREFS_MAX)
        return GRANT_E_BAD_REF;
    const struct grant_entry_v1 *entries = d->x.map->frame[gref / GRANT_PER_FRAME].entries;
    struct frame_extent *last = d->x.frames->last;
    if (!entries || !last)
        return frame_find_slowly(d, gref, write, x, address);
    uint32_t gfn = __atomic_load_n(&entries[gref % GRANT_PER_FRAME].frame, __ATOMIC_RELAXED);
    if (!extent_holds(last, gfn) || last->revoked) {
        if (frametable_pin(d->x.frames, gfn, write, x, address)) /* a search, for extents that are known */
            return frame_find_slowly(d, gref, write, x, address);
        frametable_unpin(d->x.frames, *x, gfn);
        return 0;
    }
    *x = last;
    *address = last->address + (size_t)(gfn - last->base_gfn) * PAGE_BYTES;
    return 0;
}

static int none_get(struct dma *d, const struct dma_segment *segments, unsigned count, bool to_guest, struct dma_io *io)
{
    assert(count > 0 && count <= io->segments_max);
    io->to_guest = to_guest;
    io->vec_count = 0;
    for (unsigned i = 0; i < count; i++) {
        const struct dma_segment *s = &segments[i];
        struct frame_extent *x;
        unsigned char *address;
        assert(span_fits(s->offset_bytes, s->length_bytes, PAGE_BYTES));
        int r = frame_find(d, s->gref, to_guest, &x, &address);
        if (r)
            return r;
        dma_io_append(io, address + s->offset_bytes, s->length_bytes, dma_extent_buffer(&d->x, x));
    }
    io->segment_count = count;
    d->x.maps += count;
    return 0;
}

static int none_put(struct dma *d, struct dma_io *io, bool ok)
{
    (void)d, (void)ok;
    io->segment_count = 0;
    return 0;
}

const struct dma_strategy dma_none = {
    .name = "none",
    .summary = "the guest's pages, unchecked and not held: UNSAFE, what native I/O would cost",
    .unsafe = true,
    .registers_extents = true,
    .setup = dma_extents_setup,
    .get = none_get,
    .put = none_put,
    .teardown = dma_extents_teardown,
    .describe = dma_extents_describe,
};
#endif
