/* SPDX-License-Identifier: MIT */
/* tests/blk_scene.h: two guests of one blk role, each with a disk of its own: one that is hostile, and its neighbour,
 * who must notice nothing. */
#ifndef TESTS_BLK_SCENE_H
#define TESTS_BLK_SCENE_H

#include <stdio.h>

#include "tests/blkworld.h"

#define DISK_BYTES   (1u << 20)
#define DISK_SECTORS (DISK_BYTES / SECTOR_BYTES)
#define SEED         5u

struct scene {
    struct blkworld world;
    char dir[256], neighbour_dir[256];
    uint16_t domid, neighbour_domid;
    struct keys_blk_config config, neighbour_config;
    struct blkguest guest, neighbour;
};

static inline void scene_start(struct scene *s, const char *dma)
{
    *s = (struct scene){0};
    struct blkworld *w = &s->world;
    blkworld_start(w, NULL);
    s->domid = blkworld_domain(w, "hostile", s->dir, sizeof(s->dir));
    s->neighbour_domid = blkworld_domain(w, "neighbour", s->neighbour_dir, sizeof(s->neighbour_dir));
    blkworld_image(w, "hostile.img", DISK_BYTES, SEED, s->config.path, sizeof(s->config.path));
    blkworld_image(w, "neighbour.img", DISK_BYTES, SEED, s->neighbour_config.path, sizeof(s->config.path));
    s->config.discard = true;
    snprintf(s->config.dma, sizeof(s->config.dma), "%s", dma);
    blkworld_attach(w, s->domid, BLKWORLD_DEVID, &s->config);
    blkworld_attach(w, s->neighbour_domid, BLKWORLD_DEVID, &s->neighbour_config);
    blkguest_open(&s->guest, s->dir, BLKWORLD_DEVID);
    blkguest_open(&s->neighbour, s->neighbour_dir, BLKWORLD_DEVID);
    blkguest_connect(&s->guest, NULL);
    blkguest_connect(&s->neighbour, NULL);
}

static inline void scene_check(struct scene *s)
{
    blkguest_check_served(&s->neighbour, SEED);
}

/* The hostile guest's device was closed under it: it takes note, and may start over. */
static inline void guest_start_over(struct scene *s)
{
    struct blkguest *g = &s->guest;
    blkworld_wait_back(&s->world, s->domid, BLKWORLD_DEVID, XenbusStateClosed);
    blkworld_wait_held(&s->world, s->domid, 0);
    blkguest_ring_end(g);
    blkguest_switch(g, XenbusStateClosing);
    blkguest_switch(g, XenbusStateClosed);
    blkguest_switch(g, XenbusStateInitialising);
    blkguest_connect(g, NULL);
    blkguest_check_served(g, SEED);
}

/* Everything is given back, by the guest's own end and by dom0's. */
static inline void scene_stop(struct scene *s)
{
    scene_check(s);
    blkguest_disconnect(&s->guest);
    blkguest_disconnect(&s->neighbour);
    blkworld_wait_held(&s->world, s->domid, 0);
    blkworld_wait_held(&s->world, s->neighbour_domid, 0);
    blkguest_close(&s->guest);
    blkguest_close(&s->neighbour);
    blkworld_stop(&s->world);
}

#endif
