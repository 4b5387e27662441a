/* SPDX-License-Identifier: MIT */
/* grant/dma_iommu.c: through a software IOMMU (iommu.h): the guest's own pages, by bus address, checked at the time of
 * use.
 *
 * With setup->space the segments name bus pages of that space, which the guest has had mapped once (the device's
 * backend validated their grants then and holds them). get() asks the IOTLB for each, so the price of a page that is in
 * use is a look at private memory; put() ends the uses. A page that is not mapped, or not for that, fails the request
 * and is in the unit's fault log. Neither grant table nor frame table is looked at, but where the IOTLB has to learn.
 *
 * Without it the segments name grants, of a frontend that knows nothing of bus addresses. get() then maps each page
 * through its grant, as pin does, and the request's pages to bus pages in a row, uses them through the IOTLB, and put()
 * takes all that back: the textbook's map and unmap for each request. That is done in a space of this instance's own:
 * nobody else translates there, so an unmap has ended when it returns, and nothing is deferred. Anchors, pages that
 * nobody uses, keep the tables of the tree from coming and going.
 *
 * Extents are registered with the ring as those of `pin` are (dma_extent.h).
 */
#include <assert.h>

#include "base/span.h"
#include "grant/dma_extent.h"
#include "grant/iotlb_short.h"

#define IOTLB_ENTRIES     4096u /* 16 MiB: what a disk has in use, and 272 KiB of ours once all of it is */
#define IOTLB_ENTRIES_OWN 64u   /* nothing is used twice */

struct dma {
    struct dma_extents x;
    struct iommu *unit; /* our own, where the setup has none */
    struct iommu_space *space;
    struct iotlb *tlb;
    bool bus;         /* segments are bus pages */
    uint32_t anchors; /* mapped, in a space of our own */
    uint64_t faults[IOMMU_F_COUNT_];
    uint32_t frame[DMA_SEGMENTS_MAX]; /* of one get */
};

/* Where another thread's queue mapped the page, this one's frame table may have to ask for it: in vain where the owner
 * took it back meanwhile, and that counts as other lookups in vain do. */
static int frame_hold(void *ctx, uint32_t frame, bool write, unsigned char **address, void **handle)
{
    const struct dma *d = ctx;
    struct frame_extent *x = NULL;
    int r = frametable_pin(d->x.frames, frame, write, &x, address);
    d->x.map->misses += r && r != -EROFS && r != -EOVERFLOW && r != -ESTALE;
    *handle = x;
    return r;
}

static void frame_release(void *ctx, uint32_t frame, void *handle)
{
    const struct dma *d = ctx;
    frametable_unpin(d->x.frames, handle, frame);
}

static const struct iotlb_ops tlb_ops = {frame_hold, frame_release};

/* ---- a space of our own ---- */

struct ending {
    struct iommu_unmap unmap;
    bool ended;
};

static void pages_ended(struct iommu_unmap *u)
{
    container_of(u, struct ending, unmap)->ended = true;
}

/* Nothing of it is in use: it ends now. */
static void own_unmap(struct dma *d, uint64_t bus_page, uint32_t count)
{
    struct ending e = {.unmap.done = pages_ended};
    int r = d->tlb ? iotlb_unmap(d->tlb, bus_page, count, &e.unmap) : iommu_unmap(d->space, bus_page, count, &e.unmap);
    assert(r == 0 && e.ended);
}

static uint64_t anchor_page(uint32_t table)
{
    return (uint64_t)table * IOMMU_LARGE_PAGES + IOMMU_LARGE_PAGES - 1;
}

static uint32_t anchor_count(uint32_t uses)
{
    return 2 * uses / IOMMU_LARGE_PAGES + 1; /* twice, for what is lost between requests of all sizes */
}

static int own_space(struct dma *d, const struct dma_setup *setup, uint32_t uses)
{
    const uint32_t anchors = anchor_count(uses), nobodys = 0;
    const struct iommu_limits limits = {.pages_max = uses + anchors, .tables_max = uses + 2 * anchors};
    int r = setup->iommu ? 0 : iommu_new(&d->unit);
    r = r ? r
          : iommu_space_new(setup->iommu ? setup->iommu : d->unit, setup->map->granter, setup->device,
                            IOMMU_BUS_BITS_32, IOMMU_STRICT, &limits, &d->space);
    for (; d->anchors < anchors && !r; d->anchors += !r) {
        uint64_t page = anchor_page(d->anchors);
        r = iommu_map(d->space, &page, &nobodys, 1, IOMMU_READ);
    }
    return r;
}

static void own_space_free(struct dma *d)
{
    while (d->anchors > 0)
        own_unmap(d, anchor_page(--d->anchors), 1);
    iotlb_free(take_ptr(d->tlb));
    iommu_space_free(d->space);
}

/* ---- setup ---- */

static void iommu_teardown(struct dma *d)
{
    if (!d)
        return;
    if (!d->bus && d->space)
        own_space_free(d);
    iotlb_free(d->tlb);
    iommu_free(d->unit);
    dma_extents_deinit(&d->x);
    free(d);
}

static int iommu_setup(const struct dma_setup *setup, struct dma **out, struct err *e)
{
    const uint32_t uses = setup->requests_max * DMA_SEGMENTS_SMALL + setup->large_max * DMA_SEGMENTS_MAX;
    struct dma *d = calloc(1, sizeof(*d));
    if (!d)
        return err_set(e, -ENOMEM, "no memory for the device's DMA strategy");
    dma_extents_init(&d->x, setup);
    d->bus = setup->space;
    d->space = setup->space;
    int r = d->bus ? 0 : own_space(d, setup, uses);
    if (!r)
        r = iotlb_new(d->space, &tlb_ops, d, d->bus ? IOTLB_ENTRIES : IOTLB_ENTRIES_OWN, uses, &d->tlb);
    if (r) {
        iommu_teardown(d);
        return err_set(e, r, "no memory for the device's IOTLB of %u pages in use; use a smaller ring", uses);
    }
    *out = d;
    return 0;
}

/* ---- get and put ---- */

/* The entry in use, in the place of where the segment lay in its page, which nobody asks for again. */
static inline void segment_note(struct dma_segment *s, uint32_t entry)
{
    s->offset_bytes = (uint16_t)entry;
    s->length_bytes = (uint16_t)(entry >> 16);
}

static inline uint32_t segment_noted(const struct dma_segment *s)
{
    return s->offset_bytes | (uint32_t)s->length_bytes << 16;
}

static void uses_end(struct dma *d, const struct dma_io *io, unsigned count)
{
    while (count-- > 0)
        iotlb_put_short(d->tlb, iotlb_at_short(d->tlb, segment_noted(&io->segment[count])));
}

static __attribute__((noinline)) int use_failed(struct dma *d, struct dma_io *io, unsigned at, int reason)
{
    uses_end(d, io, at);
    d->faults[reason]++;
    return reason == IOMMU_F_FRAME ? GRANT_E_REVOKED : GRANT_E_FAULT;
}

/* Segment i, already checked, by way of that bus page. */
static inline __attribute__((always_inline)) int segment_use(struct dma *d, struct dma_io *io, unsigned i,
                                                             struct dma_segment s, uint64_t bus_page)
{
    struct iotlb_entry *e;
    assert(span_fits(s.offset_bytes, s.length_bytes, PAGE_BYTES));
    int reason = iotlb_get_short(d->tlb, bus_page, io->to_guest, &e);
    if (__builtin_expect(reason, 0))
        return use_failed(d, io, i, reason);
    dma_io_append(io, e->address + s.offset_bytes, s.length_bytes, dma_extent_buffer(&d->x, e->handle));
    segment_note(&io->segment[i], iotlb_index_short(d->tlb, e));
    return 0;
}

static inline int bus_get(struct dma *d, const struct dma_segment *segments, unsigned count, struct dma_io *io)
{
    int r = 0;
    for (unsigned i = 0; i < count && !r; i++)
        r = segment_use(d, io, i, segments[i], segments[i].gref);
    return r;
}

/* Through their grants: their frames. */
static int grants_map(struct dma *d, struct dma_io *io, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        struct active_entry *a;
        int r = active_map(d->x.map, d->x.keep, io->segment[i].gref, io->to_guest, &a);
        if (r) {
            dma_grants_unmap(&d->x, io, i);
            return r;
        }
        d->frame[i] = a->extent->base_gfn + (uint32_t)((size_t)(a->address - a->extent->address) / PAGE_BYTES);
    }
    return 0;
}

static __attribute__((noinline)) int grants_get(struct dma *d, const struct dma_segment *segments, unsigned count,
                                                struct dma_io *io)
{
    uint64_t bus_page = IOMMU_ANY;
    for (unsigned i = 0; i < count; i++)
        io->segment[i] = segments[i];
    int r = grants_map(d, io, count);
    if (r)
        return r;
    r = iommu_map(d->space, &bus_page, d->frame, count, io->to_guest ? IOMMU_WRITE : IOMMU_READ);
    for (unsigned i = 0; i < count && !r; i++)
        r = segment_use(d, io, i, io->segment[i], bus_page + i);
    if (r && bus_page != IOMMU_ANY)
        own_unmap(d, bus_page, count);
    if (r)
        dma_grants_unmap(&d->x, io, count);
    io->slot = (uint32_t)bus_page;
    return r;
}

static int iommu_get(struct dma *d, const struct dma_segment *segments, unsigned count, bool to_guest,
                     struct dma_io *io)
{
    assert(count > 0 && count <= io->segments_max);
    io->to_guest = to_guest;
    io->vec_count = 0;
    int r = d->bus ? bus_get(d, segments, count, io) : grants_get(d, segments, count, io);
    if (r)
        return r;
    io->segment_count = count;
    d->x.maps += count;
    return 0;
}

/* The data is where it belongs already. */
static int iommu_put(struct dma *d, struct dma_io *io, bool ok)
{
    (void)ok;
    uses_end(d, io, io->segment_count);
    if (!d->bus) {
        own_unmap(d, io->slot, io->segment_count);
        dma_grants_unmap(&d->x, io, io->segment_count);
    }
    io->segment_count = 0;
    return 0;
}

/* ---- what else ---- */

static void iommu_describe(const struct dma *d, struct dma_stats *out)
{
    struct iotlb_stats tlb;
    struct iommu_stats own = {0};
    dma_extents_describe(d, out);
    iotlb_stats(d->tlb, &tlb);
    if (!d->bus)
        iommu_space_stats(d->space, &own);
    out->iotlb_hits = tlb.hits;
    out->iotlb_misses = tlb.misses;
    out->iommu_maps = own.maps - (d->bus ? 0 : d->anchors);
    out->iommu_unmaps = own.unmaps;
    memcpy(out->iommu_faults, d->faults, sizeof(out->iommu_faults));
}

static void iommu_rest(struct dma *d)
{
    iotlb_turn(d->tlb);
    iotlb_rest(d->tlb);
}

struct iotlb *dma_iommu_tlb(struct dma *d)
{
    return d->tlb;
}

static void iommu_turn(struct dma *d)
{
    iotlb_turn(d->tlb);
}

const struct dma_strategy dma_iommu = {
    .name = "iommu",
    .summary = "the guest's pages by bus address, through a software IOMMU that checks each use",
    .registers_extents = true,
    .setup = iommu_setup,
    .get = iommu_get,
    .put = iommu_put,
    .teardown = iommu_teardown,
    .describe = iommu_describe,
    .rest = iommu_rest,
    .turn = iommu_turn,
};
