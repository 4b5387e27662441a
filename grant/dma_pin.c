/* SPDX-License-Identifier: MIT */
/* grant/dma_pin.c: the guest's own pages are the I/O vector: zero copies.
 *
 * From get to put every page is mapped through its grant, so its active entry and its frame are pinned: the guest's end
 * of the grant is refused and its extent stays here, whatever else it does. What it can do is scribble over its own
 * data while the device reads it, as with any DMA.
 *
 * An extent is registered with the ring as one buffer when it is first used, so the kernel takes its pages once and not
 * for each request. The registration is the extent's, noted in dma_index, and serves every device over the same frame
 * table; it is undone before the extent goes, or with the last of these devices. A refusal (RLIMIT_MEMLOCK, an extent
 * mapped read-only) is noted there too and not asked for again: plain vectors do the same work.
 */
#include <assert.h>

#include "base/span.h"
#include "grant/dma.h"
#include "grant/gntmap_active.h"

struct dma {
    struct gntmap *map;
    struct gntkeep *keep;
    struct frametable *frames;
    const struct dma_host *host;
    uint64_t maps, over_share;
};

static size_t extent_bytes(const struct frame_extent *x)
{
    return (size_t)x->frame_count * PAGE_BYTES;
}

/* The frame table's release listener: nothing of the extent is pinned. */
static void extent_unregister(void *ctx, struct frame_extent *x)
{
    const struct dma_host *host = ctx;
    if (x->dma_index >= 0)
        host->buffer_unregister(host->ctx, x->dma_index);
    x->dma_index = FRAME_DMA_NONE;
}

/* Where it has no registered buffer: asks for one. */
static __attribute__((noinline)) int32_t extent_register(struct dma *d, struct frame_extent *x)
{
    if (x->dma_index == FRAME_DMA_NONE) {
        int32_t index = d->host->buffer_register(d->host->ctx, x->owner, x->address, extent_bytes(x));
        d->over_share += index == -EDQUOT;
        x->dma_index = index == -EBUSY || index == -EDQUOT ? FRAME_DMA_NONE : index < 0 ? FRAME_DMA_REFUSED : index;
    }
    return x->dma_index < 0 ? -1 : x->dma_index;
}

/* Its registered buffer, -1 where it has none. */
static inline int32_t extent_buffer(struct dma *d, struct frame_extent *x)
{
    return x->dma_index >= 0 ? x->dma_index : extent_register(d, x);
}

static int pin_setup(const struct dma_setup *setup, struct dma **out, struct err *e)
{
    struct dma *d = calloc(1, sizeof(*d));
    if (!d)
        return err_set(e, -ENOMEM, "no memory for the device's DMA strategy");
    d->map = setup->map;
    d->keep = setup->keep;
    d->frames = setup->frames;
    d->host = setup->host;
    frametable_on_release(d->frames, extent_unregister, (void *)d->host);
    *out = d;
    return 0;
}

static void io_append(struct dma_io *io, unsigned char *address, uint32_t length_bytes, int32_t buffer_index)
{
    struct dma_vec *last = io->vec_count ? &io->vec[io->vec_count - 1] : NULL;
    if (last && last->address + last->length_bytes == address && last->buffer_index == buffer_index)
        last->length_bytes += length_bytes;
    else
        io->vec[io->vec_count++] = (struct dma_vec){address, length_bytes, buffer_index};
}

static void pages_unmap(struct dma *d, const struct dma_io *io, unsigned count)
{
    while (count-- > 0)
        active_unmap(d->map, io->segment[count].gref, io->to_guest);
}

static int pin_get(struct dma *d, const struct dma_segment *segments, unsigned count, bool to_guest, struct dma_io *io)
{
    assert(count > 0 && count <= io->segments_max);
    io->to_guest = to_guest;
    io->vec_count = 0;
    for (unsigned i = 0; i < count; i++) {
        const struct dma_segment s = io->segment[i] = segments[i];
        struct active_entry *a;
        assert(span_fits(s.offset_bytes, s.length_bytes, PAGE_BYTES));
        int r = active_map(d->map, d->keep, s.gref, to_guest, &a);
        if (r) {
            pages_unmap(d, io, i);
            return r;
        }
        io_append(io, a->address + s.offset_bytes, s.length_bytes, extent_buffer(d, a->extent));
    }
    io->segment_count = count;
    d->maps += count;
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
    frametable_off_release(d->frames, extent_unregister, (void *)d->host);
    free(d);
}

static void pin_describe(const struct dma *d, struct dma_stats *out)
{
    *out = (struct dma_stats){.maps = d->maps, .over_share = d->over_share, .fixed_buffers = true};
    for (uint32_t i = 0; i < frametable_extents(d->frames); i++) {
        const struct frame_extent *x = frametable_extent(d->frames, i);
        if (x->dma_index >= 0)
            out->registered_bytes += extent_bytes(x);
        else if (x->dma_index == FRAME_DMA_REFUSED)
            out->fixed_buffers = false;
    }
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
