/* SPDX-License-Identifier: MIT */
/* tests/bus_scene.h: the two guests of blk_scene.h; the disk of the hostile one is behind an IOMMU, and it uses bus
 * addresses. Its data pages are named by bus page once they are mapped. */
#ifndef TESTS_BUS_SCENE_H
#define TESTS_BUS_SCENE_H

#include <string.h>

#include "backend/blk/blkbus.h"
#include "tests/blk_scene.h"

#define BUS_BOTH (BLKREQ_BUS_READ | BLKREQ_BUS_WRITE)

struct bus_scene {
    struct scene s;
    uint32_t grant[BLKWORLD_PAGES]; /* of the data pages; s.guest.gref[] has the bus pages */
};

static inline void bus_scene_start(struct bus_scene *b, bool deferred, uint32_t bits)
{
    struct scene *s = &b->s;
    struct blkguest *g = &s->guest;
    scene_start(s, "iommu");
    blkguest_disconnect(g);
    blkworld_remove(&s->world, s->domid, BLKWORLD_DEVID);
    blkguest_close(g);
    s->config.iommu_deferred = deferred;
    s->config.dma_bits = bits;
    blkworld_attach(&s->world, s->domid, BLKWORLD_DEVID, &s->config);
    blkguest_open(g, s->dir, BLKWORLD_DEVID);
    g->bus = true;
    blkguest_connect(g, NULL);
    memcpy(b->grant, g->gref, sizeof(b->grant));
}

/* All data pages, in a row. */
static inline uint64_t bus_map_all(struct bus_scene *b, uint64_t address, uint8_t access)
{
    struct blkguest *g = &b->s.guest;
    assert_int_equal(blkguest_do_map(g, b->grant, BLKWORLD_PAGES, address, access), BLKIF_RSP_OKAY);
    address = g->bus_address;
    assert_true(address && address % PAGE_BYTES == 0);
    for (uint32_t i = 0; i < BLKWORLD_PAGES; i++)
        g->gref[i] = (uint32_t)(address / PAGE_BYTES) + i;
    return address;
}

static inline struct gnttab *bus_gnttab(struct bus_scene *b)
{
    return platform_gnttab(b->s.guest.platform);
}

/* Nobody holds these grants of data pages: the guest's own end of them succeeds, after as long as that takes, where it
 * is to come by itself; and they are given anew. */
static inline void bus_grants_end_of(struct blkguest *g, uint32_t *grant, unsigned first, unsigned end)
{
    struct gnttab *t = platform_gnttab(g->platform);
    struct err e;
    for (unsigned i = first; i < end; i++) {
        for (uint64_t until = blkworld_patience_end(); gnttab_end(t, grant[i]);)
            blkworld_nap(until, "a grant to be given back");
        assert_int_equal(gnttab_grant(t, 0, g->memory.base_gfn + BLKWORLD_DATA_PAGE + i, false, &grant[i], &e), 0);
    }
}

static inline void bus_grants_end(struct bus_scene *b)
{
    bus_grants_end_of(&b->s.guest, b->grant, 0, BLKWORLD_PAGES);
}

static inline uint64_t bus_stat(struct bus_scene *b, const char *name, uint64_t at_least)
{
    return blkworld_stat(&b->s.world, b->s.domid, BLKWORLD_DEVID, name, at_least);
}

static inline void bus_scene_stop(struct bus_scene *b)
{
    memcpy(b->s.guest.gref, b->grant, sizeof(b->grant));
    scene_stop(&b->s);
}

/* A read of the disk's first page into that bus page. */
static inline int16_t bus_read_into(struct blkguest *g, uint32_t bus_page)
{
    uint64_t id;
    struct blkreq req = {
        .id = ++g->next_id, .operation = BLKIF_OP_READ, .segment_count = 1, .segment = {{bus_page, 0, 7}}};
    blkguest_put_raw(g, &req);
    blkguest_kick(g);
    return blkguest_take(g, &id);
}

#endif
