/* SPDX-License-Identifier: MIT */
/* grant/dma_copy.c: data goes through a bounce buffer that the guest cannot reach.
 *
 * A device has two arenas of slots, allocated in setup: requests_max slots of DMA_SEGMENTS_SMALL pages, registered with
 * the ring as one buffer (plain vectors where the kernel refuses), and large_max slots of DMA_SEGMENTS_MAX pages. The
 * second is address space that the kernel puts memory behind when a slot is first used, and is not registered, which
 * would put memory behind all of it at once: a device that never sees a large request does not pay for them, and beside
 * the copy of a megabyte the kernel's walk over its pages is small. A request takes a slot and its segments lie in it
 * one behind the other, so its vector is always one run. What is written out is copied in get, what was read is copied
 * in put; both go through the grant at that moment and hold nothing in between, so a grant that vanished meanwhile
 * fails the request.
 *
 * An arena serves one device of one guest: what an earlier request left in a slot is that guest's own data.
 */
#include <assert.h>
#include <sys/mman.h>

#include "base/span.h"
#include "grant/dma.h"
#include "grant/gntmap_active.h"

struct arena {
    unsigned char *address;
    size_t bytes, slot_bytes;
    uint32_t slots, free_count;
    uint32_t *free; /* a stack: the slot that was used last is still in the cache */
};

struct dma {
    struct gntmap *map;
    struct gntkeep *keep;
    const struct dma_host *host;
    struct arena small, large;
    int32_t buffer_index; /* of the small one; or FRAME_DMA_* */
    uint64_t bytes_copied, maps;
};

/* 0 or -ENOMEM; slots 0: no arena. */
static int arena_init(struct arena *a, unsigned slots, unsigned segments)
{
    a->slot_bytes = (size_t)segments * PAGE_BYTES;
    a->bytes = slots * a->slot_bytes;
    if (!slots)
        return 0;
    void *p = mmap(NULL, a->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return -ENOMEM;
    a->address = p;
    a->free = malloc(slots * sizeof(*a->free));
    if (!a->free)
        return -ENOMEM;
    while (a->slots < slots) {
        a->free[slots - 1 - a->slots] = a->slots;
        a->slots++;
    }
    a->free_count = slots;
    return 0;
}

static void arena_deinit(struct arena *a)
{
    assert(a->free_count == a->slots);
    if (a->address)
        munmap(a->address, a->bytes);
    free(a->free);
}

static void copy_teardown(struct dma *d)
{
    if (!d)
        return;
    if (d->buffer_index >= 0)
        d->host->buffer_unregister(d->host->ctx, d->buffer_index);
    arena_deinit(&d->small);
    arena_deinit(&d->large);
    free(d);
}

/* The small arena's registered buffer, -1 where it has none. */
static int32_t arena_buffer(struct dma *d)
{
    if (d->buffer_index == FRAME_DMA_NONE) {
        int32_t index = d->host->buffer_register(d->host->ctx, d->small.address, d->small.bytes);
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
    d->keep = setup->keep;
    d->host = setup->host;
    d->buffer_index = FRAME_DMA_NONE;
    if (arena_init(&d->small, setup->requests_max, DMA_SEGMENTS_SMALL) < 0 ||
        arena_init(&d->large, setup->large_max, DMA_SEGMENTS_MAX) < 0) {
        size_t wanted_bytes = d->small.bytes + d->large.bytes;
        copy_teardown(d);
        return err_set(e, -ENOMEM, "no memory for a bounce buffer of %zu KiB for %u requests; use a smaller ring",
                       wanted_bytes / 1024, setup->requests_max);
    }
    (void)arena_buffer(d);
    *out = d;
    return 0;
}

static struct arena *io_arena(struct dma *d, const struct dma_io *io)
{
    return io->segment_count > DMA_SEGMENTS_SMALL ? &d->large : &d->small;
}

static unsigned char *slot_address(const struct arena *a, uint32_t slot)
{
    return a->address + slot * a->slot_bytes;
}

/* All segments of the request between the guest and its slot, in the direction of the I/O. */
static int io_copy(struct dma *d, const struct dma_io *io)
{
    unsigned char *at = slot_address(io_arena(d, io), io->slot);
    bool to_guest = io->to_guest;
    for (unsigned i = 0; i < io->segment_count; i++) {
        const struct dma_segment s = io->segment[i];
        struct active_entry *a;
        int r = active_map(d->map, d->keep, s.gref, to_guest, &a);
        if (r)
            return r;
        if (to_guest)
            memcpy(a->address + s.offset_bytes, at, s.length_bytes);
        else
            memcpy(at, a->address + s.offset_bytes, s.length_bytes);
        active_unmap(d->map, s.gref, to_guest);
        at += s.length_bytes;
        d->bytes_copied += s.length_bytes;
        d->maps++;
    }
    return 0;
}

static void slot_put(struct dma *d, const struct dma_io *io)
{
    struct arena *a = io_arena(d, io);
    assert(a->free_count < a->slots);
    a->free[a->free_count++] = io->slot;
}

static int copy_get(struct dma *d, const struct dma_segment *segments, unsigned count, bool to_guest, struct dma_io *io)
{
    assert(count > 0 && count <= io->segments_max && count <= DMA_SEGMENTS_MAX);
    io->to_guest = to_guest;
    io->segment_count = count;
    struct arena *arena = io_arena(d, io);
    assert(arena->free_count > 0); /* requests_max and large_max bound what is outstanding */
    io->slot = arena->free[--arena->free_count];
    uint32_t bytes = 0;
    for (unsigned i = 0; i < count; i++) {
        const struct dma_segment s = io->segment[i] = segments[i];
        assert(span_fits(s.offset_bytes, s.length_bytes, PAGE_BYTES));
        bytes += s.length_bytes;
    }
    io->vec_count = 1;
    io->vec[0] = (struct dma_vec){.address = slot_address(arena, io->slot),
                                  .length_bytes = bytes,
                                  .buffer_index = arena == &d->small ? arena_buffer(d) : -1};
    int r = to_guest ? 0 : io_copy(d, io);
    if (r)
        slot_put(d, io);
    return r;
}

static int copy_put(struct dma *d, struct dma_io *io, bool ok)
{
    int r = io->to_guest && ok ? io_copy(d, io) : 0;
    slot_put(d, io);
    io->segment_count = 0;
    return r;
}

static void copy_describe(const struct dma *d, struct dma_stats *out)
{
    *out = (struct dma_stats){
        .bytes_copied = d->bytes_copied,
        .maps = d->maps,
        .registered_bytes = d->buffer_index >= 0 ? d->small.bytes : 0,
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
