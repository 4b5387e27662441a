/* SPDX-License-Identifier: MIT */
#include "grant/dma_extent.h"

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

int32_t dma_extent_register(struct dma_extents *d, struct frame_extent *x)
{
    if (x->dma_index == FRAME_DMA_NONE) {
        int32_t index = d->host->buffer_register(d->host->ctx, x->owner, x->address, extent_bytes(x));
        d->over_share += index == -EDQUOT;
        x->dma_index = index == -EBUSY || index == -EDQUOT ? FRAME_DMA_NONE : index < 0 ? FRAME_DMA_REFUSED : index;
    }
    return x->dma_index < 0 ? -1 : x->dma_index;
}

void dma_extents_init(struct dma_extents *d, const struct dma_setup *setup)
{
    *d = (struct dma_extents){.map = setup->map, .keep = setup->keep, .frames = setup->frames, .host = setup->host};
    frametable_on_release(d->frames, extent_unregister, (void *)d->host);
}

void dma_extents_deinit(struct dma_extents *d)
{
    frametable_off_release(d->frames, extent_unregister, (void *)d->host);
}

int dma_extents_setup(const struct dma_setup *setup, struct dma **out, struct err *e)
{
    struct dma_extents *d = calloc(1, sizeof(*d));
    if (!d)
        return err_set(e, -ENOMEM, "no memory for the device's DMA strategy");
    dma_extents_init(d, setup);
    *out = (struct dma *)d;
    return 0;
}

void dma_extents_teardown(struct dma *row)
{
    if (!row)
        return;
    dma_extents_deinit((struct dma_extents *)row);
    free(row);
}

void dma_extents_describe(const struct dma *row, struct dma_stats *out)
{
    const struct dma_extents *d = (const struct dma_extents *)row;
    *out = (struct dma_stats){.maps = d->maps, .over_share = d->over_share, .fixed_buffers = true};
    for (uint32_t i = 0; i < frametable_extents(d->frames); i++) {
        const struct frame_extent *x = frametable_extent(d->frames, i);
        if (x->dma_index >= 0)
            out->registered_bytes += extent_bytes(x);
        else if (x->dma_index == FRAME_DMA_REFUSED)
            out->fixed_buffers = false;
    }
}
