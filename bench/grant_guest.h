/* SPDX-License-Identifier: MIT */
/* bench/grant_guest.h: a guest that is this process: one extent and one grant frame in ordinary memory, with a grant of
 * each page of it, from reference GUEST_GREF on. What measurements of grants alone stand on: no hypervisor role, no
 * rings, nobody else who writes. */
#ifndef BENCH_GRANT_GUEST_H
#define BENCH_GRANT_GUEST_H

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "grant/dma.h"

#define GUEST_PAGES 256u
#define GUEST_GREF  8u /* of the first page; those below are Xen's */
#define GUEST       3  /* its domain */

struct guest {
    unsigned char *memory;
    struct grant_entry_v1 *table;
};

static int guest_extent_get(void *ctx, uint16_t domid, uint32_t gfn, struct frame_extent *out)
{
    const struct guest *g = ctx;
    (void)gfn;
    *out = (struct frame_extent){.id = 1, .owner = domid, .frame_count = GUEST_PAGES, .address = g->memory};
    return 0;
}

static void guest_extent_put(void *ctx, const struct frame_extent *extent)
{
    (void)ctx, (void)extent;
}

static int guest_grant_frame_get(void *ctx, uint16_t domid, uint32_t index, struct gntmap_frame *out)
{
    const struct guest *g = ctx;
    (void)domid, (void)index;
    *out = (struct gntmap_frame){.page = g->table};
    return 0;
}

static void guest_grant_frame_put(void *ctx, uint16_t domid, uint32_t index, void *page)
{
    (void)ctx, (void)domid, (void)index, (void)page;
}

static const struct frametable_ops guest_frame_ops = {guest_extent_get, guest_extent_put};
static const struct gntmap_ops guest_map_ops = {guest_grant_frame_get, guest_grant_frame_put};

/* False: there is no memory for it. */
static inline bool guest_make(struct guest *g)
{
    void *p = mmap(NULL, (GUEST_PAGES + 1) * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return false;
    g->memory = p;
    g->table = (void *)(g->memory + GUEST_PAGES * PAGE_BYTES);
    for (uint32_t i = 0; i < GUEST_PAGES; i++)
        g->table[GUEST_GREF + i] = (struct grant_entry_v1){.flags = GTF_permit_access, .frame = i};
    return true;
}

#endif
