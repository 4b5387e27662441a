/* SPDX-License-Identifier: MIT */
/* grant/dma_copy.c: data goes through a bounce buffer that the guest cannot reach.
 *
 * The arena is requests_max slots of DMA_SEGMENTS_MAX pages, allocated in setup and registered with the ring as one
 * buffer (plain vectors where the kernel refuses). A request takes a slot and its segments lie in it one behind the
 * other, so its vector is always one run. What is written out is copied in get, what was read is copied in put; both go
 * through the grant at that moment and hold nothing in between, so a grant that vanished meanwhile fails the request.
 *
 * An arena serves one device of one guest: what an earlier request left in a slot is that guest's own data.
 */
#include <assert.h>
#include <sys/mman.h>

#include "base/idalloc.h"
#include "base/span.h"
#include "grant/dma.h"

#define SLOT_BYTES ((size_t)DMA_SEGMENTS_MAX * PAGE_BYTES)

struct dma {
    struct gntmap *map;
    const struct dma_host *host;
    unsigned char *arena;
    size_t arena_bytes;
    int32_t buffer_index; /* or FRAME_DMA_* */
    struct idalloc slots;
    uint64_t bytes_copied, maps;
};

static void copy_teardown(struct dma *d)
{
    if (!d)
        return;
    assert(d->slots.used == 0);
    if (d->buffer_index >= 0)
        d->host->buffer_unregister(d->host->ctx, d->buffer_index);
    if (d->arena)
        munmap(d->arena, d->arena_bytes);
    idalloc_deinit(&d->slots);
    free(d);
}

static unsigned char *arena_new(size_t length_bytes)
{
    void *p = mmap(NULL, length_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

/* Its registered buffer, -1 where it has none. */
static int32_t arena_buffer(struct dma *d)
{
    if (d->buffer_index == FRAME_DMA_NONE) {
        int32_t index = d->host->buffer_register(d->host->ctx, d->arena, d->arena_bytes);
        d->buffer_index = index == -EBUSY ? FRAME_DMA_NONE : index < 0 ? FRAME_DMA_REFUSED : index;
    }
    return MAX(d->buffer_index, -1);
}

static int copy_setup(const struct dma_setup *setup, struct dma **out, struct err *e)
{
    struct dma *d = calloc(1, sizeof(*d));
    if (!d)
        return err_set(e, -ENOMEM, "no memory for the device's DMA strategy");
    d->map = setup->map;
    d->host = setup->host;
    d->buffer_index = FRAME_DMA_NONE;
    d->arena_bytes = setup->requests_max * SLOT_BYTES;
    d->arena = arena_new(d->arena_bytes);
    if (!d->arena || idalloc_init(&d->slots, setup->requests_max) < 0) {
        size_t wanted_bytes = d->arena_bytes;
        copy_teardown(d);
        return err_set(e, -ENOMEM, "no memory for a bounce buffer of %zu KiB for %u requests; use a smaller ring",
                       wanted_bytes / 1024, setup->requests_max);
    }
    (void)arena_buffer(d);
    *out = d;
    return 0;
}

static unsigned char *slot_address(const struct dma *d, uint32_t slot)
{
    return d->arena + slot * SLOT_BYTES;
}

/* All segments of the request between the guest and its slot, in the direction of the I/O. */
static int io_copy(struct dma *d, const struct dma_io *io)
{
    unsigned char *at = slot_address(d, io->slot);
    for (unsigned i = 0; i < io->segment_count; i++) {
        const struct dma_segment *s = &io->segment[i];
        int r = gntmap_copy(d->map, s->gref, s->offset_bytes, at, s->length_bytes, io->to_guest);
        if (r)
            return r;
        at += s->length_bytes;
        d->bytes_copied += s->length_bytes;
        d->maps++;
    }
    return 0;
}

static int copy_get(struct dma *d, const struct dma_segment *segments, unsigned count, bool to_guest, struct dma_io *io)
{
    assert(count > 0 && count <= DMA_SEGMENTS_MAX);
    int64_t slot = idalloc_get(&d->slots);
    assert(slot >= 0); /* requests_max bounds what is outstanding */
    io->slot = (uint32_t)slot;
    io->to_guest = to_guest;
    io->segment_count = count;
    io->vec_count = 1;
    io->vec[0] = (struct dma_vec){.address = slot_address(d, io->slot), .buffer_index = arena_buffer(d)};
    for (unsigned i = 0; i < count; i++) {
        assert(span_fits(segments[i].offset_bytes, segments[i].length_bytes, PAGE_BYTES));
        io->segment[i] = segments[i];
        io->vec[0].length_bytes += segments[i].length_bytes;
    }
    int r = to_guest ? 0 : io_copy(d, io);
    if (r)
        idalloc_put(&d->slots, io->slot);
    return r;
}

static int copy_put(struct dma *d, struct dma_io *io, bool ok)
{
    int r = io->to_guest && ok ? io_copy(d, io) : 0;
    idalloc_put(&d->slots, io->slot);
    io->segment_count = 0;
    return r;
}

static void copy_describe(const struct dma *d, struct dma_stats *out)
{
    *out = (struct dma_stats){
        .bytes_copied = d->bytes_copied,
        .maps = d->maps,
        .registered_bytes = d->buffer_index >= 0 ? d->arena_bytes : 0,
        .fixed_buffers = d->buffer_index >= 0,
    };
}

const struct dma_strategy dma_copy = {
    .name = "copy",
    .summary = "through a bounce buffer that the guest cannot reach; nothing of the guest's is held during the I/O",
    .setup = copy_setup,
    .get = copy_get,
    .put = copy_put,
    .teardown = copy_teardown,
    .describe = copy_describe,
};
