/* SPDX-License-Identifier: MIT */
/* grant/dma_pin.c: the guest's own pages are the I/O vector: zero copies.
 *
 * From get to put every page is mapped through its grant, so its active entry and its frame are pinned: the guest's end
 * of the grant is refused and its extent stays here, whatever else it does. What it can do is scribble over its own
 * data while the device reads it, as with any DMA. Extents are registered with the ring (dma_extent.h).
 */
#include "grant/dma_extent.h"

struct dma {
    struct dma_extents x;
};

static int pin_get(struct dma *d, const struct dma_segment *segments, unsigned count, bool to_guest, struct dma_io *io)
{
    return dma_grants_get(&d->x, segments, count, to_guest, io, true);
}

/* The data is where it belongs already. */
static int pin_put(struct dma *d, struct dma_io *io, bool ok)
{
    (void)ok;
    dma_grants_unmap(&d->x, io, io->segment_count);
    io->segment_count = 0;
    return 0;
}

const struct dma_strategy dma_pin = {
    .name = "pin",
    .summary = "the guest's pages, pinned during the I/O and registered with the ring: zero copies",
    .registers_extents = true,
    .setup = dma_extents_setup,
    .get = pin_get,
    .put = pin_put,
    .teardown = dma_extents_teardown,
    .describe = dma_extents_describe,
};
