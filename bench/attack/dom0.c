/* SPDX-License-Identifier: MIT */
#include "bench/attack/dom0.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define MISSES_LEFT 8 /* of BLKQUEUE_MISSES_MAX: an attempt makes fewer */

static struct dom0 *dom0_of(struct platform *p)
{
    return container_of(p, struct dom0, platform);
}

static int grant_frame_get(void *ctx, uint16_t domid, uint32_t index, struct gntmap_frame *out)
{
    struct machine *m = ctx;
    if (index || domid != DOMAIN_ATTACKER)
        return -ENOENT;
    *out = (struct gntmap_frame){.page = machine_page(m, FRAME_GRANTS), .instance = domid};
    return 0;
}

static void grant_frame_put(void *ctx, uint16_t domid, uint32_t index, void *page)
{
    (void)ctx, (void)domid, (void)index, (void)page;
}

static const struct gntmap_ops map_ops = {grant_frame_get, grant_frame_put};

static int op_gntmap_get(struct platform *p, uint16_t domid, struct gntmap **map, struct frametable **frames,
                         struct err *e)
{
    struct dom0 *d = dom0_of(p);
    int r = frametable_new(&machine_frame_ops, d->machine, domid, &d->frames);
    if (!r)
        r = gntmap_new(&map_ops, d->machine, 0, domid, d->frames, &d->map);
    if (r)
        return err_set(e, r, "out of memory");
    *map = d->map;
    *frames = d->frames;
    return 0;
}

static void op_gntmap_put(struct platform *p, uint16_t domid)
{
    struct dom0 *d = dom0_of(p);
    (void)domid;
    gntmap_free(take_ptr(d->map));
    frametable_free(take_ptr(d->frames));
}

static int op_bind(struct platform *p, uint16_t remote, uint32_t remote_port, struct evtchn *out, struct err *e)
{
    struct dom0 *d = dom0_of(p);
    int wait_fd, notify_fd, unheard_fd;
    (void)remote;
    if (evtchn_direction_open(&d->told_fd, &notify_fd))
        return err_set(e, -errno, "no descriptors");
    if (evtchn_direction_open(&wait_fd, &unheard_fd))
        return err_set(e, -errno, "no descriptors");
    close(unheard_fd); /* dom0 looks at the ring when it is told to take */
    evtchn_init(out, remote_port, wait_fd, notify_fd);
    return 0;
}

static void op_evtchn_close(struct platform *p, struct evtchn *ch)
{
    fd_closep(&dom0_of(p)->told_fd);
    evtchn_deinit(ch);
}

static const struct platform_ops machine_ops = {
    .name = "machine",
    .gntmap_get = op_gntmap_get,
    .gntmap_put = op_gntmap_put,
    .evtchn_bind_interdomain = op_bind,
    .evtchn_close = op_evtchn_close,
};

/* ---- the two devices' spaces ---- */

static int spaces_open(struct dom0 *d)
{
    const struct iommu_limits limits = {.pages_max = BLKBUS_PAGES_MAX, .tables_max = BLKBUS_TABLES_MAX};
    const enum iommu_flush_mode mode = d->rules.deferred ? IOMMU_DEFERRED : IOMMU_STRICT;
    uint32_t frames[DOM0_VICTIM_PAGES];
    uint64_t bus_page = 1;
    for (unsigned i = 0; i < DOM0_VICTIM_PAGES; i++)
        frames[i] = machine_pick(d->machine, DOMAIN_VICTIM, i);
    int r = iommu_space_new(d->unit, DOMAIN_ATTACKER, DOM0_DEVICE_ATTACKER, DOM0_BUS_BITS, mode, &limits, &d->space);
    if (!r)
        r = iommu_space_new(d->unit, DOMAIN_VICTIM, DOM0_DEVICE_VICTIM, DOM0_BUS_BITS, IOMMU_STRICT, &limits,
                            &d->victims);
    return r ? r : iommu_map(d->victims, &bus_page, frames, DOM0_VICTIM_PAGES, IOMMU_READ | IOMMU_WRITE);
}

static void nothing_done(struct iommu_unmap *u)
{
    (void)u;
}

static void spaces_close(struct dom0 *d)
{
    struct iommu_unmap unmap = {.done = nothing_done};
    if (d->victims)
        iommu_unmap(d->victims, 1, DOM0_VICTIM_PAGES, &unmap);
    iommu_space_free(take_ptr(d->victims));
    iommu_space_free(take_ptr(d->space));
}

/* ---- the queue ---- */

static int queue_open(struct dom0 *d, struct err *e)
{
    const struct domain_call connect = {.op = DOMAIN_CONNECT};
    struct domain_reply reply;
    domain_call(&d->machine->attacker, &connect, &reply);
    if (reply.result)
        return err_set(e, reply.result, "the attacker cannot make a ring");
    d->indirect_gref = reply.indirect;
    d->list_gref = reply.list;
    int r = d->rules.bus ? spaces_open(d) : 0;
    if (r)
        return err_set(e, r, "the address spaces cannot be had: %s", strerror(-r));
    const struct blkqueue_config c = {
        .front_domid = DOMAIN_ATTACKER,
        .ring_pages = 1,
        .ring_ref = {reply.gref},
        .port = 1,
        .protocol = &blk_protocol_native,
        .dma = d->rules.dma,
        .iommu = d->unit,
        .space = d->space,
        .iommu_deferred = d->rules.deferred,
        .image = &d->gate.image,
        .limits = {.capacity_sectors = GATE_DISK_BYTES / SECTOR_BYTES,
                   .sector_bytes = SECTOR_BYTES,
                   .indirect_segments_max = BLKREQ_INDIRECT_SEGMENTS_MAX,
                   .bus_bits = d->rules.bus ? DOM0_BUS_BITS : 0},
    };
    r = blkqueue_new(&c, &d->queue, e);
    if (r)
        return r;
    r = blkqueue_attach(d->queue, &d->reactor, e);
    if (r)
        blkqueue_free(take_ptr(d->queue));
    return r;
}

static void letters_drop(struct dom0 *d)
{
    uint32_t bits;
    while (mailbox_take(&d->to_control, &bits))
        ;
}

static void queue_close(struct dom0 *d)
{
    if (!d->queue)
        return;
    blkqueue_detach(d->queue);
    while (blkbus_give_back(d->queue))
        ;
    while (!blkqueue_drained(d->queue)) {
        dom0_land(d, BYTE_DEVICE);
        uring_submit(&d->reactor.uring, true);
        uring_reap(&d->reactor.uring);
        dom0_publish(d);
        blkbus_give_back(d->queue);
    }
    blkqueue_release(d->queue);
    letters_drop(d);
    blkqueue_free(take_ptr(d->queue));
    spaces_close(d);
}

int dom0_open(struct dom0 *d, struct machine *m, const struct dom0_rules *rules, struct err *e)
{
    *d = (struct dom0){.platform = {.ops = &machine_ops}, .machine = m, .rules = *rules, .told_fd = -1};
    if (!d->rules.revoke)
        d->rules.revoke = frametable_revoke;
    if (!d->rules.take)
        d->rules.take = blkqueue_take;
    if (mailbox_init(&d->to_control) || mailbox_init(&d->to_reactor) || gate_open(&d->gate, d->rules.sealed) ||
        iommu_new(&d->unit))
        return err_set(e, -ENOMEM, "out of descriptors");
    int r = uring_init(&d->reactor.uring, e);
    if (r)
        return r;
    ticker_init(&d->ticker);
    d->reactor.platform = &d->platform;
    d->reactor.to_control = &d->to_control;
    d->reactor.to_reactor = &d->to_reactor;
    d->reactor.thread = pthread_self();
    d->reactor.ticker = &d->ticker;
    list_init(&d->reactor.active);
    list_init(&d->reactor.dirty);
    return queue_open(d, e);
}

void dom0_close(struct dom0 *d)
{
    queue_close(d);
    if (d->reactor.ticker)
        uring_deinit(&d->reactor.uring);
    gate_close(&d->gate);
    mailbox_deinit(&d->to_control);
    mailbox_deinit(&d->to_reactor);
    iommu_free(d->unit);
}

void dom0_refresh(struct dom0 *d)
{
    struct err e;
    const struct blkqueue *q = d->queue;
    if (q->state == BLKQUEUE_RUNNING && gntmap_misses(d->map) - q->misses_before + MISSES_LEFT < BLKQUEUE_MISSES_MAX)
        return;
    queue_close(d);
    if (queue_open(d, &e)) {
        fprintf(stderr, "attack: the queue cannot be had again: %s\n", e.text);
        abort();
    }
}

void dom0_take(struct dom0 *d)
{
    d->reactor.now_ns = ticker_now_ns(&d->ticker);
    if (d->queue->state == BLKQUEUE_RUNNING)
        d->rules.take(d->queue);
}

void dom0_submit(struct dom0 *d)
{
    uring_submit(&d->reactor.uring, false);
}

void dom0_land(struct dom0 *d, unsigned char byte)
{
    gate_release(&d->gate, byte);
}

void dom0_publish(struct dom0 *d)
{
    if (!list_empty(&d->queue->dirty_link))
        blkqueue_publish(d->queue);
}

void dom0_finish(struct dom0 *d)
{
    while (d->reactor.in_flight > 0) {
        uring_submit(&d->reactor.uring, true);
        uring_reap(&d->reactor.uring);
    }
    dom0_publish(d);
}

bool dom0_release(struct dom0 *d, uint32_t frame)
{
    return machine_release(d->machine, frame, d->frames, d->rules.revoke);
}
