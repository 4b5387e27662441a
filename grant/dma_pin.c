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

struct dma {
    struct gntmap *map;
    struct frametable *frames;
    const struct dma_host *host;
    uint64_t maps;
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

/* Its registered buffer, -1 where it has none. */
static int32_t extent_buffer(const struct dma *d, struct frame_extent *x)
{
    if (x->dma_index == FRAME_DMA_NONE) {
        int32_t index = d->host->buffer_register(d->host->ctx, x->address, extent_bytes(x));
        x->dma_index = index == -EBUSY ? FRAME_DMA_NONE : index < 0 ? FRAME_DMA_REFUSED : index;
    }
    return x->dma_index < 0 ? -1 : x->dma_index;
}

static int pin_setup(const struct dma_setup *setup, struct dma **out, struct err *e)
{
    struct dma *d = calloc(1, sizeof(*d));
    if (!d)
        return err_set(e, -ENOMEM, "no memory for the device's DMA strategy");
    d->map = setup->map;
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

/* All or nothing. */
static int pages_map(struct gntmap *map, const struct dma_segment *segments, unsigned count, bool write,
                     struct gntmap_page *page)
{
    for (unsigned i = 0; i < count; i++) {
        int r = gntmap_map(map, segments[i].gref, write, &page[i]);
        if (!r)
            continue;
        while (i-- > 0)
            gntmap_unmap(map, &page[i]);
        return r;
    }
    return 0;
}

static int pin_get(struct dma *d, const struct dma_segment *segments, unsigned count, bool to_guest, struct dma_io *io)
{
    assert(count > 0 && count <= io->segments_max);
    int r = pages_map(d->map, segments, count, to_guest, io->page);
    if (r)
        return r;
    io->to_guest = to_guest;
    io->segment_count = count;
    io->vec_count = 0;
    for (unsigned i = 0; i < count; i++) {
        const struct dma_segment *s = &segments[i];
        assert(span_fits(s->offset_bytes, s->length_bytes, PAGE_BYTES));
        io_append(io, io->page[i].address + s->offset_bytes, s->length_bytes, extent_buffer(d, io->page[i].extent));
    }
    d->maps += count;
    return 0;
}

/* The data is where it belongs already. */
static int pin_put(struct dma *d, struct dma_io *io, bool ok)
{
    (void)ok;
    for (unsigned i = io->segment_count; i-- > 0;)
        gntmap_unmap(d->map, &io->page[i]);
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
    *out = (struct dma_stats){.maps = d->maps, .fixed_buffers = true};
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
