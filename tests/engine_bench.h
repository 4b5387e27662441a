/* SPDX-License-Identifier: MIT */
/* tests/engine_bench.h: the reactor as a thread of the test, with one disk on a real file, and the guest of that disk
 * in the same process: its ring is connected without xenbus. */
#ifndef TESTS_ENGINE_BENCH_H
#define TESTS_ENGINE_BENCH_H

#include <fcntl.h>
#include <poll.h>

#include "backend/blk/engine.h"
#include "tests/blkworld.h"

#define DISK_BYTES   (1u << 20)
#define DISK_SECTORS (DISK_BYTES / SECTOR_BYTES)
#define SEED         7u

struct bench {
    struct blkworld world;
    char domain_dir[256], path[300];
    uint16_t domid;
    struct engine *engine;
    struct image *image;
    struct blkqueue *queue;
    struct blkguest guest;
};

static inline void engine_start(struct bench *b, const char *poll)
{
    struct engine_options o = {.where.run_dir = b->world.dir};
    struct err e = {0};
    if (engine_poll_parse(poll, 0, &o, &e) || engine_new(&o, &b->engine, &e))
        fail_msg("%s", e.text);
}

static inline void bench_start(struct bench *b, const char *poll)
{
    *b = (struct bench){0};
    blkworld_servers(&b->world);
    b->domid = blkworld_domain(&b->world, "guest", b->domain_dir, sizeof(b->domain_dir));
    blkworld_image(&b->world, "disk.img", DISK_BYTES, SEED, b->path, sizeof(b->path));
    blkguest_open(&b->guest, b->domain_dir, BLKWORLD_DEVID);
    engine_start(b, poll);
}

/* The guest's half of a connection, without xenbus: a ring and a channel. */
static inline void guest_ring(struct bench *b)
{
    struct blkguest *g = &b->guest;
    struct err e;
    g->protocol = &blk_protocol_native;
    ring_front_init(&g->ring, g->memory.address, PAGE_BYTES, g->protocol->slot_bytes);
    assert_int_equal(gnttab_grant(platform_gnttab(g->platform), 0, g->memory.base_gfn, false, &g->ring_gref[0], &e), 0);
    assert_int_equal(platform_evtchn_alloc_unbound(g->platform, 0, &g->channel, &e), 0);
}

static inline void config_default(struct bench *b, const char *dma, struct blkqueue_config *out)
{
    *out = (struct blkqueue_config){
        .front_domid = b->domid,
        .ring_pages = 1,
        .ring_ref = {b->guest.ring_gref[0]},
        .port = b->guest.channel.port,
        .protocol = b->guest.protocol,
        .dma = dma_strategy_find(dma),
        .image = b->image,
        .limits = {.capacity_sectors = DISK_SECTORS,
                   .sector_bytes = 512,
                   .flush = true,
                   .barrier = true,
                   .discard = true,
                   .indirect_segments_max = BLKREQ_INDIRECT_SEGMENTS_MAX},
    };
}

/* The words of the engine's next event about the queue. */
static inline uint32_t next_event(struct bench *b)
{
    struct pollfd p = {engine_event_fd(b->engine), POLLIN, 0};
    struct engine_event ev;
    assert_int_equal(poll(&p, 1, BLKWORLD_PATIENCE_MS), 1);
    assert_true(engine_event_next(b->engine, &ev));
    assert_ptr_equal(ev.queue, b->queue);
    return ev.words;
}

static inline int queue_attach(struct bench *b, const struct blkqueue_config *config)
{
    struct err e;
    assert_int_equal(blkqueue_new(config, &b->queue, &e), 0);
    engine_attach(b->engine, b->queue);
    assert_int_equal(next_event(b), BLKQUEUE_ATTACHED);
    return b->queue->result;
}

static inline void queue_detach(struct bench *b)
{
    engine_detach(b->engine, b->queue);
    while (!(next_event(b) & BLKQUEUE_DETACHED))
        ;
    blkqueue_free(b->queue);
}

static inline void image_default(struct bench *b)
{
    struct image_config c = {.path = b->path};
    assert_int_equal(image_open("raw", &c, &b->image, NULL), 0);
}

static inline void connect_default(struct bench *b, const char *dma)
{
    struct blkqueue_config c;
    image_default(b);
    guest_ring(b);
    config_default(b, dma, &c);
    if (queue_attach(b, &c))
        fail_msg("%s", b->queue->err.text);
}

/* The guest's grants are free at once when the backend has let go. */
static inline void guest_ring_end(struct bench *b)
{
    assert_int_equal(gnttab_end(platform_gnttab(b->guest.platform), b->guest.ring_gref[0]), 0);
    platform_evtchn_close(b->guest.platform, &b->guest.channel);
}

static inline void disconnect(struct bench *b)
{
    queue_detach(b);
    image_close(b->image);
    guest_ring_end(b);
}

static inline void bench_stop(struct bench *b)
{
    engine_free(b->engine);
    blkguest_close(&b->guest);
    blkworld_wait_held(&b->world, b->domid, 0);
    blkworld_stop(&b->world);
}

/* What lies in the file, read from outside. */
static inline void file_expect(struct bench *b, uint64_t sector, const void *wanted, size_t bytes)
{
    static unsigned char got[DMA_SEGMENTS_MAX * PAGE_BYTES];
    int fd = open(b->path, O_RDONLY);
    assert_int_equal(pread(fd, got, bytes, (off_t)(sector * SECTOR_BYTES)), bytes);
    assert_memory_equal(got, wanted, bytes);
    close(fd);
}

#endif
