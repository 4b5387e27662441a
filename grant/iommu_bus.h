/* SPDX-License-Identifier: MIT */
/* grant/iommu_bus.h: which bus pages of a window are taken.
 *
 * A treap of ranges in order of address, each node with the widest gap below it: taking, giving back and finding the
 * lowest room for n pages are logarithmic, whatever a guest has fragmented by addresses of its choice. Ranges are as
 * they were taken and are not merged; bus_cut() splits them beforehand, so that giving back never needs memory. Page 0
 * is outside every window. The caller serialises, and bounds how many ranges there are.
 */
#ifndef GRANT_IOMMU_BUS_H
#define GRANT_IOMMU_BUS_H

#include "base/err.h"

struct bus_range;

struct iommu_bus {
    struct bus_range *root, *unused; /* unused: a few are kept, so that a map need not allocate */
    uint32_t unused_count;
    uint64_t end;    /* of the window [1, end) */
    uint64_t random; /* priorities */
};

void bus_init(struct iommu_bus *b, uint64_t end);
void bus_deinit(struct iommu_bus *b); /* frees what is left */
/* The lowest free range of `count` pages whose first is a multiple of `align`, where one is found cheaply; 0: none. */
uint64_t bus_find(const struct iommu_bus *b, uint64_t count, uint64_t align);
bool bus_free(const struct iommu_bus *b, uint64_t first, uint64_t count); /* none of them is taken */
/* Of pages that are free and in the window: 0 or -ENOMEM. */
int bus_take(struct iommu_bus *b, uint64_t first, uint64_t count);
/* Makes [first, first + count), all of it taken, whole ranges: 0, or -ENOMEM and it may be given back no less. */
int bus_cut(struct iommu_bus *b, uint64_t first, uint64_t count);
void bus_give(struct iommu_bus *b, uint64_t first, uint64_t count); /* after bus_cut() of the same */

#endif
