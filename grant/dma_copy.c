/* SPDX-License-Identifier: MIT */
/* grant/dma_copy.c: data goes through a bounce buffer that the guest cannot reach.
 *
 * A device has three arenas of slots, which are address space and nothing more until they are used: requests_max slots
 * of one page, which most requests take, requests_max of DMA_SEGMENTS_SMALL pages, and large_max of DMA_SEGMENTS_MAX. A
 * request takes a slot and its segments lie in it one behind the other, so its vector is always one run. What is
 * written out is copied in get, what was read is copied in put; both go through the grant at that moment and hold
 * nothing in between, so a grant that vanished meanwhile fails the request.
 *
 * The slot used last is used next, so those in use are the first ones. Registering puts memory behind all that is
 * registered, so the first two arenas are registered by pieces, each when a slot of it is first used: a small one, and
 * then so much that a device pays for at most eight times what it had in flight at once, PIECE_BYTES_MAX at a time.
 * Where the kernel refuses, plain vectors serve from then on. The third is not registered: beside the copy of a
 * megabyte the kernel's walk over its pages is small.
 *
 * An arena serves one device of one guest: what an earlier request left in a slot is that guest's own data.
 */
#include <assert.h>
#include <sys/mman.h>

#include "base/span.h"
#include "grant/dma.h"
#include "grant/gntmap_active.h"

#define PIECE_BYTES_FIRST (16u << 10) /* or one slot */
#define PIECE_BYTES_MAX   (2u << 20)  /* at the 1 us a page that registering takes (uring.h): half a millisecond */
#define PIECE_GROWTH      8

struct arena {
    unsigned char *address;
    size_t bytes, slot_bytes;
    uint32_t slots, free_count;
    uint32_t *free;  /* a stack: the slot that was used last is still in the cache */
    int32_t *buffer; /* by slot: the registered buffer that it lies in, or FRAME_DMA_* */
};

struct dma {
    struct gntmap *map;
    struct gntkeep *keep;
    const struct dma_host *host;
    struct arena page, small, large;
    bool refused; /* the kernel said no: it is not asked again */
    uint64_t bytes_copied, maps, registered_bytes, over_share;
};

static void arena_reset(struct arena *a)
{
    for (a->free_count = 0; a->free_count < a->slots; a->free_count++)
        a->free[a->free_count] = a->slots - 1 - a->free_count;
}

/* 0 or -ENOMEM; slots 0: no arena. `buffer`: FRAME_DMA_REFUSED for one that is not to be registered. */
static int arena_init(struct arena *a, unsigned slots, unsigned segments, int32_t buffer)
{
    a->slot_bytes = (size_t)segments * PAGE_BYTES;
    a->bytes = slots * a->slot_bytes;
    if (!slots)
        return 0;
    void *p = mmap(NULL, a->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return -ENOMEM;
    a->address = p;
    madvise(p, a->bytes, MADV_NOHUGEPAGE); /* one touched byte would bring 2 MiB of it in */
    a->free = malloc(slots * sizeof(*a->free));
    a->buffer = malloc(slots * sizeof(*a->buffer));
    if (!a->free || !a->buffer)
        return -ENOMEM;
    a->slots = slots;
    arena_reset(a);
    for (unsigned i = 0; i < slots; i++)
        a->buffer[i] = buffer;
    return 0;
}

static void arena_deinit(struct arena *a)
{
    assert(a->free_count == a->slots);
    if (a->address)
        munmap(a->address, a->bytes);
    free(a->free);
    free(a->buffer);
}

/* Where the piece ends that begins with slot `begin`. */
static uint32_t piece_end(const struct arena *a, uint32_t begin)
{
    uint32_t first = MAX(PIECE_BYTES_FIRST / (uint32_t)a->slot_bytes, 1u);
    uint32_t most = PIECE_BYTES_MAX / (uint32_t)a->slot_bytes;
    return MIN(begin ? begin + MIN(begin * (PIECE_GROWTH - 1), most) : first, a->slots);
}

static void arena_unregister(struct dma *d, struct arena *a)
{
    for (uint32_t begin = 0; begin < a->slots; begin = piece_end(a, begin)) {
        if (a->buffer[begin] < 0)
            continue;
        d->host->buffer_unregister(d->host->ctx, a->buffer[begin]);
        for (uint32_t i = begin; i < piece_end(a, begin); i++)
            a->buffer[i] = FRAME_DMA_NONE;
    }
}

static void copy_teardown(struct dma *d)
{
    if (!d)
        return;
    arena_unregister(d, &d->page);
    arena_unregister(d, &d->small);
    arena_deinit(&d->page);
    arena_deinit(&d->small);
    arena_deinit(&d->large);
    free(d);
}

/* Of a slot that lies in no registered buffer: asks for one, for its piece. -1: plain vectors. */
static __attribute__((noinline)) int32_t slot_register(struct dma *d, struct arena *a, uint32_t slot)
{
    uint32_t begin = 0, end = piece_end(a, 0);
    if (d->refused || a->buffer[slot] == FRAME_DMA_REFUSED)
        return -1;
    for (; slot >= end; end = piece_end(a, begin))
        begin = end;
    size_t bytes = (end - begin) * a->slot_bytes;
    int32_t index = d->host->buffer_register(d->host->ctx, d->map->granter, a->address + begin * a->slot_bytes, bytes);
    if (index < 0) {
        d->over_share += index == -EDQUOT;
        d->refused = index != -EBUSY && index != -EDQUOT;
        return -1;
    }
    for (uint32_t i = begin; i < end; i++)
        a->buffer[i] = index;
    d->registered_bytes += bytes;
    return index;
}

static inline int32_t slot_buffer(struct dma *d, struct arena *a, uint32_t slot)
{
    return a->buffer[slot] >= 0 ? a->buffer[slot] : slot_register(d, a, slot);
}

static int copy_setup(const struct dma_setup *setup, struct dma **out, struct err *e)
{
    struct dma *d = calloc(1, sizeof(*d));
    if (!d)
        return err_set(e, -ENOMEM, "no memory for the device's DMA strategy");
    d->map = setup->map;
    d->keep = setup->keep;
    d->host = setup->host;
    if (arena_init(&d->page, setup->requests_max, 1, FRAME_DMA_NONE) < 0 ||
        arena_init(&d->small, setup->requests_max, DMA_SEGMENTS_SMALL, FRAME_DMA_NONE) < 0 ||
        arena_init(&d->large, setup->large_max, DMA_SEGMENTS_MAX, FRAME_DMA_REFUSED) < 0) {
        size_t wanted_bytes = d->page.bytes + d->small.bytes + d->large.bytes;
        copy_teardown(d);
        return err_set(e, -ENOMEM, "no memory for a bounce buffer of %zu KiB for %u requests; use a smaller ring",
                       wanted_bytes / 1024, setup->requests_max);
    }
    *out = d;
    return 0;
}

static inline struct arena *io_arena(struct dma *d, const struct dma_io *io)
{
    if (io->segment_count == 1)
        return &d->page;
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
    dma_io_keep(io, segments, count);
    for (unsigned i = 0; i < count; i++) {
        assert(span_fits(segments[i].offset_bytes, segments[i].length_bytes, PAGE_BYTES));
        bytes += segments[i].length_bytes;
    }
    io->vec_count = 1;
    io->vec[0] = (struct dma_vec){.address = slot_address(arena, io->slot),
                                  .length_bytes = bytes,
                                  .buffer_index = slot_buffer(d, arena, io->slot)};
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

static void arena_rest(struct dma *d, struct arena *a)
{
    assert(a->free_count == a->slots);
    arena_unregister(d, a);
    if (!a->slots)
        return;
    madvise(a->address, a->bytes, MADV_DONTNEED);
    arena_reset(a);
}

static void copy_rest(struct dma *d)
{
    arena_rest(d, &d->page);
    arena_rest(d, &d->small);
    arena_rest(d, &d->large);
    d->registered_bytes = 0;
}

static void copy_describe(const struct dma *d, struct dma_stats *out)
{
    *out = (struct dma_stats){
        .bytes_copied = d->bytes_copied,
        .maps = d->maps,
        .registered_bytes = d->registered_bytes,
        .over_share = d->over_share,
        .fixed_buffers = !d->refused,
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
    .rest = copy_rest,
};
