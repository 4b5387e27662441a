/* SPDX-License-Identifier: MIT */
/* grant/dma_pin_each.c: `pin`, but the kernel's share of it is taken for each request and not once for each extent: the
 * runs of a request's memory are registered with the ring in get and unregistered in put. To show why `pin` does it
 * once. In no build but `make bench-rows`, where uring.c lets registering take what time it takes. */
#ifdef DMA_BENCH_ROWS
#include "grant/dma_extent.h"

struct dma {
    struct dma_extents x;
    uint64_t registered_bytes;
    bool refused;
};

static int pin_each_setup(const struct dma_setup *setup, struct dma **out, struct err *e)
{
    struct dma *d = calloc(1, sizeof(*d));
    if (!d)
        return err_set(e, -ENOMEM, "no memory for the device's DMA strategy");
    d->x = (struct dma_extents){.map = setup->map, .keep = setup->keep, .host = setup->host};
    *out = d;
    return 0;
}

static void runs_register(struct dma *d, struct dma_io *io)
{
    const struct dma_host *host = d->x.host;
    for (unsigned i = 0; i < io->vec_count; i++) {
        struct dma_vec *v = &io->vec[i];
        int32_t index = host->buffer_register(host->ctx, d->x.map->granter, v->address, v->length_bytes);
        d->x.over_share += index == -EDQUOT;
        d->refused |= index < 0 && index != -EBUSY && index != -EDQUOT;
        d->registered_bytes += index < 0 ? 0 : v->length_bytes;
        v->buffer_index = MAX(index, -1);
    }
}

static void runs_unregister(struct dma *d, const struct dma_io *io)
{
    const struct dma_host *host = d->x.host;
    for (unsigned i = 0; i < io->vec_count; i++) {
        if (io->vec[i].buffer_index < 0)
            continue;
        host->buffer_unregister(host->ctx, io->vec[i].buffer_index);
        d->registered_bytes -= io->vec[i].length_bytes;
    }
}

static int pin_each_get(struct dma *d, const struct dma_segment *segments, unsigned count, bool to_guest,
                        struct dma_io *io)
{
    int r = dma_grants_get(&d->x, segments, count, to_guest, io, false);
    if (!r)
        runs_register(d, io);
    return r;
}

static int pin_each_put(struct dma *d, struct dma_io *io, bool ok)
{
    (void)ok;
    runs_unregister(d, io);
    dma_grants_unmap(&d->x, io, io->segment_count);
    io->segment_count = 0;
    return 0;
}

static void pin_each_teardown(struct dma *d)
{
    free(d);
}

static void pin_each_describe(const struct dma *d, struct dma_stats *out)
{
    *out = (struct dma_stats){.maps = d->x.maps,
                              .over_share = d->x.over_share,
                              .registered_bytes = d->registered_bytes,
                              .fixed_buffers = !d->refused};
}

const struct dma_strategy dma_pin_each = {
    .name = "pin-each",
    .summary = "as pin, but registered and unregistered with the ring for each request",
    .setup = pin_each_setup,
    .get = pin_each_get,
    .put = pin_each_put,
    .teardown = pin_each_teardown,
    .describe = pin_each_describe,
};
#endif
