/* SPDX-License-Identifier: MIT */
/* grant/dma_extent.h: what the strategies that use the guest's own pages have in common: a vector that grows page by
 * page, and extents as registered buffers. For the rows only.
 *
 * An extent is registered with the ring as one buffer when it is first used, so the kernel takes its pages once and not
 * for each request. The registration is the extent's, noted in dma_index, and serves every device over the same frame
 * table, of whichever of these rows; it is undone before the extent goes, or with the last of these devices. A refusal
 * (RLIMIT_MEMLOCK, an extent mapped read-only) is noted there too and not asked for again: plain vectors do the same
 * work.
 */
#ifndef GRANT_DMA_EXTENT_H
#define GRANT_DMA_EXTENT_H

#include <assert.h>

#include "base/span.h"
#include "grant/dma.h"
#include "grant/gntmap_active.h"

/* The beginning of each such row's `struct dma`; of some the whole. */
struct dma_extents {
    struct gntmap *map;
    struct gntkeep *keep;
    struct frametable *frames;
    const struct dma_host *host;
    uint64_t maps, over_share;
};

void dma_extents_init(struct dma_extents *d, const struct dma_setup *setup);
void dma_extents_deinit(struct dma_extents *d);

/* setup, teardown and describe of rows with no books but these; others call the last for their part. */
int dma_extents_setup(const struct dma_setup *setup, struct dma **out, struct err *e);
void dma_extents_teardown(struct dma *row);
void dma_extents_describe(const struct dma *row, struct dma_stats *out);

/* Of one that has no registered buffer: asks for it. -1: plain vectors. */
int32_t dma_extent_register(struct dma_extents *d, struct frame_extent *x);

/* Its registered buffer, -1 where it has none. */
static inline int32_t dma_extent_buffer(struct dma_extents *d, struct frame_extent *x)
{
    return x->dma_index >= 0 ? x->dma_index : dma_extent_register(d, x);
}

/* One run more; neighbours in one buffer become one. */
static inline void dma_io_append(struct dma_io *io, unsigned char *address, uint32_t length_bytes, int32_t buffer_index)
{
    struct dma_vec *last = io->vec_count ? &io->vec[io->vec_count - 1] : NULL;
    if (last && last->address + last->length_bytes == address && last->buffer_index == buffer_index)
        last->length_bytes += length_bytes;
    else
        io->vec[io->vec_count++] = (struct dma_vec){address, length_bytes, buffer_index};
}

static inline void dma_grants_unmap(struct dma_extents *d, const struct dma_io *io, unsigned count)
{
    while (count-- > 0)
        active_unmap(d->map, io->segment[count].gref, io->to_guest);
}

/* get() by pages that stay mapped, each through its grant, until dma_grants_unmap(). `registered`: vectors name the
 * extents' registered buffers. */
static inline int dma_grants_get(struct dma_extents *d, const struct dma_segment *segments, unsigned count,
                                 bool to_guest, struct dma_io *io, bool registered)
{
    assert(count > 0 && count <= io->segments_max);
    io->to_guest = to_guest;
    io->vec_count = 0;
    dma_io_keep(io, segments, count);
    for (unsigned i = 0; i < count; i++) {
        const struct dma_segment *s = &segments[i];
        struct active_entry *a;
        assert(span_fits(s->offset_bytes, s->length_bytes, PAGE_BYTES));
        int r = active_map(d->map, d->keep, s->gref, to_guest, &a);
        if (r) {
            dma_grants_unmap(d, io, i);
            return r;
        }
        int32_t buffer = registered ? dma_extent_buffer(d, a->extent) : -1;
        dma_io_append(io, a->address + s->offset_bytes, s->length_bytes, buffer);
    }
    io->segment_count = count;
    d->maps += count;
    return 0;
}

#endif
