/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "grant/iommu_inner.h"
#include "tests/iommu_world.h"

unsigned char *iworld_address(uint32_t frame)
{
    return (unsigned char *)((uintptr_t)0x100000000000 + ((uintptr_t)frame << IOMMU_PAGE_SHIFT));
}

static int frame_hold(void *ctx, uint32_t frame, bool write, unsigned char **address, void **handle)
{
    struct iworld_holds *h = ctx;
    (void)write;
    if (h->refuse && frame == h->refuse)
        return -ESTALE;
    assert_true(frame < IWORLD_FRAMES);
    h->of[frame]++;
    h->held++;
    *address = iworld_address(frame);
    *handle = &h->of[frame];
    return 0;
}

static void frame_release(void *ctx, uint32_t frame, void *handle)
{
    struct iworld_holds *h = ctx;
    assert_ptr_equal(handle, &h->of[frame]);
    assert_true(h->of[frame] > 0);
    h->of[frame]--;
    h->held--;
}

const struct iotlb_ops iworld_ops = {frame_hold, frame_release};

struct iworld *iworld_open(const struct iworld_setup *setup)
{
    static const uint32_t entries[IWORLD_IOTLBS] = {4, 64, 256};
    struct iommu_limits limits = setup->limits;
    if (!limits.pages_max)
        limits = (struct iommu_limits){1u << 20, 1u << 16};
    struct iworld *w = calloc(1, sizeof(*w));
    assert_non_null(w);
    assert_int_equal(setup->fenced ? iommu_new_fenced(&w->unit) : iommu_new(&w->unit), 0);
    assert_int_equal(iommu_space_new(w->unit, IWORLD_DOMID, IWORLD_DEVICE, setup->bus_bits ? setup->bus_bits : 32,
                                     setup->mode, &limits, &w->space),
                     0);
    for (unsigned i = 0; i < setup->iotlbs; i++)
        assert_int_equal(iotlb_new(w->space, &iworld_ops, &w->holds[i], entries[i], IWORLD_USES, &w->tlb[i]), 0);
    return w;
}

void iworld_close(struct iworld *w)
{
    iommu_flush(w->space);
    for (unsigned i = 0; i < IWORLD_IOTLBS; i++) {
        iotlb_free(w->tlb[i]);
        assert_int_equal(w->holds[i].held, 0);
    }
    struct iommu_stats stats;
    iommu_space_stats(w->space, &stats);
    assert_int_equal(stats.pages, 0);
    assert_int_equal(stats.tables, 1);
    assert_int_equal(stats.large, 0);
    assert_int_equal(stats.maps, stats.unmaps);
    iommu_space_free(w->space);
    iommu_free(w->unit);
    free(w);
}

static void unmap_done(struct iommu_unmap *u)
{
    container_of(u, struct iworld_unmap, u)->ended++;
}

int iworld_try_unmap(struct iworld *w, uint64_t bus_page, uint32_t count, struct iworld_unmap *u)
{
    *u = (struct iworld_unmap){.u.done = unmap_done};
    return iommu_unmap(w->space, bus_page, count, &u->u);
}

void iworld_unmap(struct iworld *w, uint64_t bus_page, uint32_t count, struct iworld_unmap *u)
{
    assert_int_equal(iworld_try_unmap(w, bus_page, count, u), 0);
}

int iworld_map(struct iworld *w, uint64_t *bus_page, uint32_t frame, uint32_t count, unsigned access)
{
    uint32_t *frames = malloc(count * sizeof(*frames));
    assert_non_null(frames);
    for (uint32_t i = 0; i < count; i++)
        frames[i] = frame + i;
    int r = iommu_map(w->space, bus_page, frames, count, access);
    free(frames);
    return r;
}

int iworld_look(struct iworld *w, unsigned tlb, uint64_t bus_page, bool write, uint32_t frame)
{
    struct iotlb_entry *e;
    int r = iotlb_get(w->tlb[tlb], bus_page, write, &e);
    if (r)
        return r;
    assert_int_equal(e->frame, frame);
    assert_ptr_equal(e->address, iworld_address(frame));
    iotlb_put(w->tlb[tlb], e);
    return 0;
}
