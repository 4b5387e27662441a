/* SPDX-License-Identifier: MIT */
/* tests/bus_pair.h: a guest with two queues of one disk behind an IOMMU, which it uses by bus addresses. */
#ifndef TESTS_BUS_PAIR_H
#define TESTS_BUS_PAIR_H

#include "tests/bus_scene.h"
#include "tests/mqguest.h"

struct pair {
    struct blkworld world;
    char dir[256];
    uint16_t domid;
    struct keys_blk_config config;
    struct mqguest guest;
};

/* `config`: what is not of the pair's kind. */
static inline void pair_start(struct pair *p, unsigned reactors, const struct keys_blk_config *config)
{
    *p = (struct pair){.config = *config};
    struct blkworld *w = &p->world;
    blkworld_servers(w);
    blkworld_role_start_with(w, NULL, reactors);
    p->domid = blkworld_domain(w, "pair", p->dir, sizeof(p->dir));
    blkworld_image(w, "pair.img", DISK_BYTES, SEED, p->config.path, sizeof(p->config.path));
    strcpy(p->config.dma, "iommu");
    p->config.max_queues = 2;
    blkworld_attach(w, p->domid, BLKWORLD_DEVID, &p->config);
    mqguest_open(&p->guest, p->dir, BLKWORLD_DEVID);
    p->guest.g.bus = true;
    mqguest_connect(&p->guest, 2, 0);
}

static inline void pair_stop(struct pair *p)
{
    mqguest_disconnect(&p->guest);
    blkworld_wait_held(&p->world, p->domid, 0);
    mqguest_close(&p->guest);
    blkworld_stop(&p->world);
}

static inline void pair_grants_end(struct pair *p, unsigned first, unsigned end)
{
    bus_grants_end_of(&p->guest.g, p->guest.g.gref, first, end);
}

#endif
