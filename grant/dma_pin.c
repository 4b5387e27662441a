/* SPDX-License-Identifier: MIT */
/* grant/dma_pin.c: the guest's own pages are the I/O vector: zero copies.
 *
 * From get to put every page is mapped through its grant, so its active entry and its frame are pinned: the guest's end
 * of the grant is refused and its extent stays here, whatever else it does. What it can do is scribble over its own
 * data while the device reads it, as with any DMA. Extents are registered with the ring (dma_extent.h).
 */
#include <assert.h>

#include "base/span.h"
#include "grant/dma_extent.h"

struct dma {
    struct dma_extents x;
};

static int pin_setup(const struct dma_setup *setup, struct dma **out, struct err *e)
{
    struct dma *d = calloc(1, sizeof(*d));
    if (!d)
        return err_set(e, -ENOMEM, "no memory for the device's DMA strategy");
    dma_extents_init(&d->x, setup);
    *out = d;
    return 0;
}

static void pages_unmap(struct dma *d, const struct dma_io *io, unsigned count)
{
    while (count-- > 0)
        active_unmap(d->x.map, io->segment[count].gref, io->to_guest);
}

static int pin_get(struct dma *d, const struct dma_segment *segments, unsigned count, bool to_guest, struct dma_io *io)
{
    assert(count > 0 && count <= io->segments_max);
    io->to_guest = to_guest;
    io->vec_count = 0;
    dma_io_keep(io, segments, count);
    for (unsigned i = 0; i < count; i++) {
        const struct dma_segment *s = &segments[i];
        struct active_entry *a;
        assert(span_fits(s->offset_bytes, s->length_bytes, PAGE_BYTES));
        int r = active_map(d->x.map, d->x.keep, s->gref, to_guest, &a);
        if (r) {
            pages_unmap(d, io, i);
            return r;
        }
        dma_io_append(io, a->address + s->offset_bytes, s->length_bytes, dma_extent_buffer(&d->x, a->extent));
    }
    io->segment_count = count;
    d->x.maps += count;
    return 0;
}

/* The data is where it belongs already. */
static int pin_put(struct dma *d, struct dma_io *io, bool ok)
{
    (void)ok;
    pages_unmap(d, io, io->segment_count);
    io->segment_count = 0;
    return 0;
}

static void pin_teardown(struct dma *d)
{
    if (!d)
        return;
    dma_extents_deinit(&d->x);
    free(d);
}

static void pin_describe(const struct dma *d, struct dma_stats *out)
{
    dma_extents_describe(&d->x, out);
}

const struct dma_strategy dma_pin = {
    .name = "pin",
    .summary = "the guest's pages, pinned during the I/O and registered with the ring: zero copies",
    .registers_extents = true,
    .setup = pin_setup,
    .get = pin_get,
    .put = pin_put,
    .teardown = pin_teardown,
    .describe = pin_describe,
};
