/* SPDX-License-Identifier: MIT */
/* tests/mutants/iommu_stale.c: grant/dma_iommu.c, compiled once more, over an IOTLB whose entries outlive their unmap:
 * what was once translated is translated the same way for ever. */
#define dma_iommu     mutant_iommu_stale
#define dma_iommu_tlb stale_tlb
#include "grant/dma_extent.h"
#include "grant/iotlb_short.h"
#include "tests/mutants/mutants.h"

#define KNOWN_MAX 4096u

/* By bus page, of whatever device: one at a time is attacked. */
static struct iotlb_entry known[KNOWN_MAX];

static bool is_known(const struct iotlb_entry *e)
{
    return e >= known && e < known + KNOWN_MAX;
}

static int stale_get(struct iotlb *t, uint64_t bus_page, bool write, struct iotlb_entry **out)
{
    struct iotlb_entry *k = &known[bus_page % KNOWN_MAX];
    int r = iotlb_get(t, bus_page, write, out);
    if (!r) {
        *k = **out;
        return 0;
    }
    if (k->bus_page != bus_page || !bus_page)
        return r;
    *out = k;
    return 0;
}

static uint32_t stale_index(const struct iotlb *t, const struct iotlb_entry *e)
{
    return is_known(e) ? (uint32_t)(e - known) | 1u << 31 : iotlb_index(t, e);
}

static struct iotlb_entry *stale_at(struct iotlb *t, uint32_t index)
{
    return index >> 31 ? &known[index & ~(1u << 31)] : iotlb_at(t, index);
}

static void stale_put(struct iotlb *t, struct iotlb_entry *e)
{
    if (!is_known(e))
        iotlb_put(t, e);
}

static void stale_free(struct iotlb *t)
{
    for (uint32_t i = 0; i < KNOWN_MAX; i++)
        known[i] = (struct iotlb_entry){0};
    iotlb_free(t);
}

#define iotlb_get_short         stale_get
#define iotlb_put_short         stale_put
#define iotlb_index_short       stale_index
#define iotlb_at_short          stale_at
#define iotlb_free              stale_free
#define dma_extent_buffer(x, e) (-1) /* the extent may be gone */
#include "grant/dma_iommu.c"
