/* SPDX-License-Identifier: MIT */
/* tests/iommu_world.h: an IOMMU with one space and some IOTLBs, over frames that count who holds them.
 *
 * A frame's memory is an address that nobody touches (world_address()). Holds are counted for each IOTLB, as frame
 * tables are one thread's. iworld_close() unmaps nothing: it asserts that all was given back.
 */
#ifndef TESTS_IOMMU_WORLD_H
#define TESTS_IOMMU_WORLD_H

#include "grant/iommu.h"

#define IWORLD_FRAMES 65536u
#define IWORLD_IOTLBS 3u

struct iworld_holds {
    uint32_t of[IWORLD_FRAMES];
    uint64_t held;   /* now */
    uint32_t refuse; /* this frame cannot be held; 0: all can */
};

struct iworld {
    struct iommu *unit;
    struct iommu_space *space;
    struct iotlb *tlb[IWORLD_IOTLBS];
    struct iworld_holds holds[IWORLD_IOTLBS];
};

extern const struct iotlb_ops iworld_ops; /* ctx: a struct iworld_holds */

struct iworld_setup {
    unsigned bus_bits;          /* 0: 32 */
    enum iommu_flush_mode mode; /* 0: strict */
    bool fenced;                /* as without membarrier() */
    struct iommu_limits limits; /* 0: ample */
    unsigned iotlbs;            /* of 4, 64 and 256 entries, 64 uses each */
};
#define IWORLD_DOMID  3
#define IWORLD_DEVICE 51712
#define IWORLD_USES   64u

struct iworld *iworld_open(const struct iworld_setup *setup);
void iworld_close(struct iworld *w);
unsigned char *iworld_address(uint32_t frame);

/* An unmap that knows whether it has ended. */
struct iworld_unmap {
    struct iommu_unmap u;
    unsigned ended; /* how often */
};
/* Asserts what iommu_unmap() says. */
void iworld_unmap(struct iworld *w, uint64_t bus_page, uint32_t count, struct iworld_unmap *u);
int iworld_try_unmap(struct iworld *w, uint64_t bus_page, uint32_t count, struct iworld_unmap *u);
/* Frames in a row from `frame` on. */
int iworld_map(struct iworld *w, uint64_t *bus_page, uint32_t frame, uint32_t count, unsigned access);
/* 0 where the page translates to that frame for that access, else IOMMU_F_*; nothing stays in use. */
int iworld_look(struct iworld *w, unsigned tlb, uint64_t bus_page, bool write, uint32_t frame);

#endif
