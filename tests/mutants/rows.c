/* SPDX-License-Identifier: MIT */
/* tests/mutants/rows.c: DMA rows that hold nothing, and a frame table that waits for nobody. */
#include <assert.h>

#include "grant/dma_extent.h"
#include "grant/frametable_inner.h"
#include "tests/mutants/mutants.h"

static int nothing_put(struct dma *d, struct dma_io *io, bool ok)
{
    (void)d, (void)ok;
    io->segment_count = 0;
    return 0;
}

static int unpinned_get(struct dma *d, const struct dma_segment *segments, unsigned count, bool to_guest,
                        struct dma_io *io)
{
    int r = dma_pin.get(d, segments, count, to_guest, io);
    if (!r)
        dma_pin.put(d, io, true);
    return r;
}

const struct dma_strategy mutant_pin_unpinned = {
    .name = "pin without the pin",
    .summary = "a mutant",
    .registers_extents = true,
    .setup = dma_extents_setup,
    .get = unpinned_get,
    .put = nothing_put,
    .teardown = dma_extents_teardown,
    .describe = dma_extents_describe,
};

static int unwaited_get(struct dma *d, const struct dma_segment *segments, unsigned count, bool to_guest,
                        struct dma_io *io)
{
    int r = dma_iommu.get(d, segments, count, to_guest, io);
    if (!r)
        dma_iommu.put(d, io, true);
    return r;
}

static int iommu_setup(const struct dma_setup *setup, struct dma **out, struct err *e)
{
    return dma_iommu.setup(setup, out, e);
}

static void iommu_teardown(struct dma *d)
{
    dma_iommu.teardown(d);
}

static void iommu_describe(const struct dma *d, struct dma_stats *out)
{
    dma_iommu.describe(d, out);
}

static void iommu_turn(struct dma *d)
{
    dma_iommu.turn(d);
}

const struct dma_strategy mutant_iommu_unwaited = {
    .name = "iommu without the wait",
    .summary = "a mutant",
    .registers_extents = true,
    .setup = iommu_setup,
    .get = unwaited_get,
    .put = nothing_put,
    .teardown = iommu_teardown,
    .describe = iommu_describe,
    .turn = iommu_turn,
};

struct dma {
    struct gntmap *map;
};

static int uncopied_setup(const struct dma_setup *setup, struct dma **out, struct err *e)
{
    *out = calloc(1, sizeof(**out));
    if (!*out)
        return err_set(e, -ENOMEM, "out of memory");
    (*out)->map = setup->map;
    return 0;
}

static int uncopied_get(struct dma *d, const struct dma_segment *segments, unsigned count, bool to_guest,
                        struct dma_io *io)
{
    for (unsigned i = 0; i < count; i++) {
        struct active_entry *a;
        int r = active_map(d->map, NULL, segments[i].gref, to_guest, &a);
        if (r)
            return r;
        io->vec[i] = (struct dma_vec){a->address + segments[i].offset_bytes, segments[i].length_bytes, -1};
        active_unmap(d->map, segments[i].gref, to_guest);
    }
    io->vec_count = count;
    return 0;
}

static void uncopied_teardown(struct dma *d)
{
    free(d);
}

static void uncopied_describe(const struct dma *d, struct dma_stats *out)
{
    (void)d;
    *out = (struct dma_stats){0};
}

const struct dma_strategy mutant_copy_uncopied = {
    .name = "copy without the copy",
    .summary = "a mutant",
    .setup = uncopied_setup,
    .get = uncopied_get,
    .put = nothing_put,
    .teardown = uncopied_teardown,
    .describe = uncopied_describe,
};

void mutant_revoke_at_once(struct frametable *t, uint32_t extent_id, uint32_t instance)
{
    for (uint32_t i = 0; i < t->count; i++)
        if (t->extents[i]->id == extent_id)
            t->ops->extent_put(t->ctx, t->extents[i]);
    frametable_revoke(t, extent_id, instance); /* the books still want to be right */
}
