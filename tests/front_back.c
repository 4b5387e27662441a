/* SPDX-License-Identifier: MIT */
/* tests/front_back.c: the backend that tests of the frontend talk to: see front_world.h. */
#include <assert.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>

#include "ring/blkreq.h"
#include "tests/front_world.h"

#define STORM_EVENTS 10000
#define BUS_PAGES    16384u

struct back_queue {
    struct gntmap_page ring_page[KEYS_BLK_RING_REFS_MAX];
    struct ring_back ring;
    struct evtchn channel;
};

struct held {
    struct back_queue *queue;
    struct blkreq request;
    struct blkreq_segment segment[BLKREQ_INDIRECT_SEGMENTS_MAX];
    struct gntmap_page page[BLKREQ_INDIRECT_SEGMENTS_MAX];
};

struct back {
    struct front_world *w;
    struct back_shared *shared;
    struct platform *platform;
    struct xb_device device;
    struct gntmap *map;
    struct back_queue queue[KEYS_BLK_QUEUES_MAX];
    unsigned queue_count, ring_pages;
    bool connected;
    struct held held[1024];
    unsigned held_count;
    uint64_t stale_id;
    bool have_stale;
    bool bus;
    unsigned bus_maps; /* in this connection */
    uint32_t bus_base; /* the first bus page that it gives out */
    uint32_t bus_next;
    uint32_t bus_gref[BUS_PAGES]; /* by bus page, from bus_base on; 0: nothing is mapped there */
};

#define must(call)                                                                                 \
    do {                                                                                           \
        struct err e = {""};                                                                       \
        int r_ = (call);                                                                           \
        if (r_ != 0) {                                                                             \
            fprintf(stderr, "backend: %s:%d: %s: %d %s\n", __FILE__, __LINE__, #call, r_, e.text); \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

static void announce(struct back *b)
{
    must(keys_blk_features_write(&b->device, STORE_NO_TX, &b->shared->features, &e));
    must(xb_device_switch(&b->device, STORE_NO_TX, XenbusStateInitWait, &e));
}

static void connect_queue(struct back *b, struct back_queue *q, const struct keys_blk_queue *keys)
{
    must(gntmap_map_many(b->map, keys->ring_ref, b->ring_pages, true, q->ring_page, NULL));
    for (unsigned i = 0; i < b->ring_pages; i++) /* our frontend's are */
        must(q->ring_page[i].address != q->ring_page[0].address + (size_t)i * PAGE_BYTES);
    must(platform_evtchn_bind_interdomain(b->platform, b->w->domid, keys->port, &q->channel, &e));
    ring_back_init(&q->ring, q->ring_page[0].address, (size_t)b->ring_pages * PAGE_BYTES,
                   blk_protocol_native.slot_bytes, 0);
}

static void connect_front(struct back *b)
{
    struct keys_blk_front keys;
    struct frametable *frames;
    const struct keys_blk_features *offer = &b->shared->features;
    must(keys_blk_front_read(&b->device, offer->max_ring_order, offer->max_queues, &keys, &e));
    must(platform_gntmap_get(b->platform, b->w->domid, &b->map, &frames, &e));
    b->ring_pages = keys.ring_ref_count;
    b->queue_count = keys.queue_count;
    for (unsigned i = 0; i < b->queue_count; i++)
        connect_queue(b, &b->queue[i], &keys.queue[i]);
    b->connected = true;
    b->shared->persistent = keys.persistent;
    b->shared->bus = b->bus = keys.bus_addresses && offer->bus_bits;
    b->bus_maps = 0;
    b->bus_next = 0;
    b->bus_base = offer->bus_bits > 32 ? 1u << 24 : 0x300;
    memset(b->bus_gref, 0, sizeof(b->bus_gref));
    must(keys_blk_disk_write(&b->device, STORE_NO_TX, &b->shared->disk, &e));
    must(xb_device_switch(&b->device, STORE_NO_TX, XenbusStateConnected, &e));
    b->shared->connected++;
}

static void notify(struct back_queue *q)
{
    if (ring_back_push(&q->ring))
        evtchn_notify(&q->channel);
}

static void respond(struct back_queue *q, uint64_t id, uint8_t operation, int16_t status)
{
    unsigned char slot[sizeof(union blkif_sring_entry)];
    blkreq_encode_response(&blk_protocol_native, id, operation, status, slot);
    memcpy(ring_slot(&q->ring.ring, q->ring.rsp_prod_pvt++), slot, blk_protocol_native.response_bytes);
}

static void move_data(struct back *b, const struct held *h)
{
    uint64_t at = h->request.sector * SECTOR_BYTES;
    if (blkreq_is_span(h->request.operation))
        memset(b->shared->data + at, 0, h->request.sector_count * SECTOR_BYTES);
    for (unsigned i = 0; i < h->request.segment_count; i++) {
        const struct blkreq_segment *s = &h->segment[i];
        unsigned char *page = h->page[i].address + s->first_sector * SECTOR_BYTES;
        size_t bytes = (s->last_sector - s->first_sector + 1u) * SECTOR_BYTES;
        if (h->request.operation == BLKIF_OP_READ)
            memcpy(page, b->shared->data + at, bytes);
        else
            memcpy(b->shared->data + at, page, bytes);
        at += bytes;
    }
}

static void unmap(struct back *b, struct held *h)
{
    for (unsigned i = 0; i < h->request.segment_count; i++)
        gntmap_unmap(b->map, &h->page[i]);
}

static void answer(struct back *b, struct held *h, int16_t status)
{
    if (status == BLKIF_RSP_OKAY)
        move_data(b, h);
    unmap(b, h);
    respond(h->queue, h->request.id, h->request.operation, status);
    b->shared->answered++;
}

static void storm(struct back *b, struct back_queue *q)
{
    for (unsigned i = 0; i < STORM_EVENTS; i++)
        evtchn_notify(&q->channel);
    b->shared->storms++;
}

/* The misbehaviour of the mode, for a request that was taken. False: it holds it. */
static bool misbehave(struct back *b, struct held *h)
{
    struct back_queue *q = h->queue;
    uint64_t id = h->request.id;
    uint8_t op = h->request.operation;
    switch ((enum back_mode)b->shared->mode) {
    case BACK_HOLD: return false;
    case BACK_DIE: raise(SIGKILL); break;
    case BACK_BAD_ID_NEXT: b->shared->mode = BACK_HOLD; /* fall through */
    case BACK_BAD_ID:
        unmap(b, h);
        respond(q, id + 7777, op, BLKIF_RSP_OKAY);
        return true;
    case BACK_STALE:
        unmap(b, h);
        if (b->have_stale)
            respond(q, b->stale_id, op, BLKIF_RSP_OKAY);
        else
            respond(q, id, op, BLKIF_RSP_OKAY);
        b->stale_id = id;
        b->have_stale = true;
        return true;
    case BACK_WRONG_OP:
        unmap(b, h);
        respond(q, id, op == BLKIF_OP_READ ? BLKIF_OP_WRITE : BLKIF_OP_READ, BLKIF_RSP_OKAY);
        return true;
    case BACK_GARBAGE_PROD:
        unmap(b, h);
        q->ring.rsp_prod_pvt += 1000;
        return true;
    case BACK_ERROR: answer(b, h, BLKIF_RSP_ERROR); return true;
    case BACK_EOPNOTSUPP: answer(b, h, BLKIF_RSP_EOPNOTSUPP); return true;
    case BACK_STORM: storm(b, q); break;
    default: break;
    }
    answer(b, h, BLKIF_RSP_OKAY);
    return true;
}

static void serve_one(struct back *b, struct held *h)
{
    if (b->shared->after) {
        b->shared->after--;
        answer(b, h, BLKIF_RSP_OKAY);
        return;
    }
    if (misbehave(b, h))
        return;
    assert(b->held_count < ARRAY_SIZE(b->held));
    b->held[b->held_count++] = *h;
    b->shared->held = b->held_count;
}

static void held_answer(struct back *b)
{
    if ((b->shared->mode == BACK_HOLD || b->shared->mode == BACK_BAD_ID_NEXT) && !b->shared->detach)
        return;
    if (b->shared->mode == BACK_DOUBLE && b->held_count) {
        struct held *h = &b->held[0];
        answer(b, h, BLKIF_RSP_OKAY);
        respond(h->queue, h->request.id, h->request.operation, BLKIF_RSP_OKAY);
        notify(h->queue);
        *h = b->held[--b->held_count];
        b->shared->mode = BACK_HOLD;
        return;
    }
    for (unsigned i = 0; i < b->held_count; i++)
        answer(b, &b->held[i], BLKIF_RSP_OKAY);
    for (unsigned i = 0; i < b->queue_count && b->held_count; i++)
        notify(&b->queue[i]);
    b->held_count = 0;
    b->shared->held = 0;
}

/* The segments of an indirect request are fetched and checked, those of a direct one copied. */
static int segments_take(struct back *b, const struct blkreq_limits *limits, struct held *h)
{
    static struct blkif_request_segment copy[BLKREQ_INDIRECT_SEGMENTS_MAX];
    struct blkreq *req = &h->request;
    if (!req->indirect_pages) {
        memcpy(h->segment, req->segment, sizeof(req->segment));
        return 0;
    }
    b->shared->indirect++;
    int r =
        gntmap_copy(b->map, req->indirect_gref[0], 0, copy, (uint32_t)(req->segment_count * sizeof(copy[0])), false);
    return r ? r : blkreq_check_indirect(req, copy, limits, h->segment);
}

/* ---- bus addresses ---- */

/* The grants behind the segments. */
static int segments_translate(struct back *b, struct held *h)
{
    for (unsigned i = 0; b->bus && i < h->request.segment_count; i++) {
        uint32_t at = h->segment[i].gref - b->bus_base;
        if (at >= BUS_PAGES || !b->bus_gref[at])
            return BLKREQ_E_SEGMENT;
        h->segment[i].gref = b->bus_gref[at];
    }
    return 0;
}

static void respond_map(struct back_queue *q, const struct blkreq *req, uint64_t address)
{
    blkreq_encode_bus_address(address, ring_slot(&q->ring.ring, q->ring.rsp_prod_pvt));
    respond(q, req->id, req->operation, BLKIF_RSP_OKAY);
}

/* Where the pages went, in bytes. */
static uint64_t map_pages(struct back *b, const struct blkreq *req)
{
    const bool elsewhere = b->shared->map_mode == BACK_MAP_ELSEWHERE;
    uint32_t count = (uint32_t)req->sector_count, at = b->bus_next + elsewhere;
    if (req->sector && !elsewhere)
        at = (uint32_t)(req->sector / PAGE_BYTES) - b->bus_base;
    else
        b->bus_next += count;
    assert(at <= BUS_PAGES && count <= BUS_PAGES - at);
    uint32_t list[PAGE_BYTES / sizeof(uint32_t)];
    must(gntmap_copy(b->map, req->indirect_gref[0], 0, list, sizeof(list), false));
    memcpy(b->bus_gref + at, list, count * sizeof(*list));
    for (uint32_t i = count; i < ARRAY_SIZE(list); i++)
        b->shared->list_rest |= list[i];
    b->shared->mapped_pages += count;
    return (uint64_t)(b->bus_base + at) * PAGE_BYTES;
}

static void map_misbehave(struct back *b, struct back_queue *q, struct blkreq req, uint64_t address)
{
    const uint64_t end = 1ull << b->shared->features.bus_bits;
    switch ((enum back_map_mode)b->shared->map_mode) {
    case BACK_MAP_REFUSED: respond(q, req.id, req.operation, BLKIF_RSP_ERROR); return;
    case BACK_MAP_NOTHING: address = 0; break;
    case BACK_MAP_MISALIGNED: address += 512; break;
    case BACK_MAP_BEYOND: address = end - (req.sector_count - 1) * PAGE_BYTES; break;
    case BACK_MAP_WRAPS: address = -(uint64_t)PAGE_BYTES; break;
    case BACK_MAP_OVERLAP: address = (uint64_t)(b->bus_base + 3) * PAGE_BYTES; break;
    case BACK_MAP_TWICE: req.id -= b->bus_maps - 1; break;
    case BACK_MAP_WRONG_OP: req.operation = BLKREQ_OP_BUS_UNMAP; break;
    case BACK_MAP_BAD_ID: req.id = 0; break;
    case BACK_MAP_RUNS_AHEAD: q->ring.rsp_prod_pvt += 1000; break;
    default: break;
    }
    respond_map(q, &req, address);
}

static void take_map(struct back *b, struct back_queue *q, const struct blkreq *req)
{
    unsigned n = b->bus_maps++;
    b->shared->maps++;
    while (b->shared->map_mode == BACK_MAP_HOLD)
        if (b->shared->mode == BACK_STORM)
            storm(b, q);
        else
            nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    uint64_t address = map_pages(b, req);
    if (n < ARRAY_SIZE(b->shared->wanted)) {
        b->shared->wanted[n] = req->sector;
        b->shared->mapped[n] = address;
    }
    map_misbehave(b, q, *req, address);
}

static void take_one(struct back *b, struct back_queue *q)
{
    unsigned char slot[sizeof(union blkif_sring_entry)];
    static struct held h;
    const struct keys_blk_disk *disk = &b->shared->disk;
    struct blkreq_limits limits = {.capacity_sectors = BACK_DISK_BYTES / SECTOR_BYTES,
                                   .sector_bytes = disk->sector_bytes,
                                   .flush = disk->flush_cache,
                                   .discard = disk->discard,
                                   .fua = b->shared->features.fua,
                                   .bus_bits = b->bus ? (uint8_t)b->shared->features.bus_bits : 0,
                                   .zeroes_sectors_max = b->shared->features.max_write_zeroes_sectors,
                                   .indirect_segments_max = (uint16_t)MIN(b->shared->features.max_indirect_segments,
                                                                          (uint32_t)BLKREQ_INDIRECT_SEGMENTS_MAX)};
    uint32_t gref[BLKREQ_INDIRECT_SEGMENTS_MAX];
    h.queue = q;
    ring_back_take(&q->ring, slot, blk_protocol_native.request_bytes);
    int r = blkreq_decode(&blk_protocol_native, slot, &limits, &h.request);
    if (r == 0 && h.request.operation == BLKREQ_OP_BUS_MAP) {
        take_map(b, q, &h.request);
        return;
    }
    b->shared->taken++;
    b->shared->taken_by[q - b->queue]++;
    r = r ? r : segments_take(b, &limits, &h);
    r = r ? r : segments_translate(b, &h);
    b->shared->durable += r == 0 && h.request.operation == BLKREQ_OP_WRITE_FUA;
    if (r == 0) {
        for (unsigned i = 0; i < h.request.segment_count; i++)
            gref[i] = h.segment[i].gref;
        r = gntmap_map_many(b->map, gref, h.request.segment_count, h.request.operation == BLKIF_OP_READ, h.page, NULL);
    }
    if (r) {
        respond(q, h.request.id, h.request.operation_raw, BLKIF_RSP_ERROR);
        return;
    }
    if (b->shared->seen < ARRAY_SIZE(b->shared->sectors_seen))
        b->shared->sectors_seen[b->shared->seen++] = h.request.sector;
    serve_one(b, &h);
}

static void serve_ring(struct back *b, struct back_queue *q)
{
    uint32_t count = 0;
    if (b->shared->mode == BACK_UNTOLD) {
        respond(q, 0, BLKIF_OP_READ, BLKIF_RSP_OKAY);
        notify(q);
        b->shared->mode = BACK_HOLD;
    }
    do {
        if (ring_back_pending(&q->ring, &count)) /* by its own doing */
            return;
        while (count--)
            take_one(b, q);
        held_answer(b);
        notify(q);
    } while (ring_back_arm(&q->ring));
}

static void serve_rings(struct back *b)
{
    for (unsigned i = 0; i < b->queue_count; i++)
        serve_ring(b, &b->queue[i]);
}

/* A millisecond, or until a guest's event; false: there was none. */
static bool await_event(struct back *b)
{
    struct pollfd fd[KEYS_BLK_QUEUES_MAX];
    for (unsigned i = 0; i < b->queue_count; i++)
        fd[i] = (struct pollfd){b->queue[i].channel.wait_fd, POLLIN, 0};
    if (poll(fd, b->queue_count, 1) <= 0)
        return false;
    for (unsigned i = 0; i < b->queue_count; i++)
        b->shared->notified += evtchn_consume(&b->queue[i].channel);
    return true;
}

static void release_queue(struct back *b, struct back_queue *q)
{
    platform_evtchn_close(b->platform, &q->channel);
    for (unsigned i = 0; i < b->ring_pages && b->shared->mode != BACK_NO_UNMAP; i++)
        gntmap_unmap(b->map, &q->ring_page[i]);
}

static void release(struct back *b)
{
    if (!b->connected)
        return;
    b->connected = false;
    for (unsigned i = 0; i < b->held_count; i++)
        unmap(b, &b->held[i]);
    b->held_count = 0;
    for (unsigned i = 0; i < b->queue_count; i++)
        release_queue(b, &b->queue[i]);
    if (b->shared->mode != BACK_NO_UNMAP)
        platform_gntmap_put(b->platform, b->w->domid);
}

static void go(struct back *b, xb_state to)
{
    if (xb_transition_allowed(XB_BACK, b->device.state, to))
        must(xb_device_switch(&b->device, STORE_NO_TX, to, &e));
}

static void xenbus_step(struct back *b)
{
    must(xb_device_read_peer(&b->device));
    switch (xb_device_reaction(&b->device)) {
    case XB_ANNOUNCE:
    case XB_REINIT: announce(b); break;
    case XB_CONNECT: connect_front(b); break;
    case XB_CLOSE: go(b, XenbusStateClosing); break;
    case XB_CLOSED:
    case XB_RESET:
        go(b, XenbusStateClosing);
        release(b);
        go(b, XenbusStateClosed);
        break;
    default: break;
    }
}

/* A restarted backend finds the state that its predecessor left. */
static void take_over(struct back *b)
{
    must(xb_device_load(&b->device, &e));
    if (b->device.state == XenbusStateConnected || b->device.state == XenbusStateInitWait)
        announce(b);
}

void front_back_run(struct front_world *w)
{
    static struct back b;
    struct store_client *store;
    b.w = w;
    b.shared = w->back;
    struct platform_where where = {.run_dir = w->run_dir};
    must(platform_open(NULL, &where, NULL, &b.platform, &e));
    must(platform_store_open(b.platform, &store, &e));
    xb_device_init(&b.device, store, XB_BACK, "vbd", w->domid, 0, FRONT_DEVID);
    take_over(&b);
    for (;;) {
        if (platform_step(b.platform) < 0)
            _exit(0);
        xenbus_step(&b);
        if (b.connected && b.device.state == XenbusStateConnected && b.shared->detach) {
            serve_rings(&b);
            go(&b, XenbusStateClosing);
        }
        for (unsigned i = 0; i < 20 && b.connected && b.device.state == XenbusStateConnected; i++) {
            serve_rings(&b);
            if (!await_event(&b))
                break; /* idle: a look at the store */
        }
        if (!b.connected)
            nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
    }
}
