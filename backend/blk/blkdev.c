/* SPDX-License-Identifier: MIT */
#include "backend/blk/blkdev.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"

#define DEV_FMT    "vbd %u/%u"
#define DEV_ARG(d) (d)->xb.front_domid, (d)->xb.devid

/* ---- failing ---- */

static void device_switch(struct blkdev *d, xb_state to)
{
    struct err e;
    if (xb_transition_allowed(XB_BACK, d->xb.state, to) && xb_device_switch(&d->xb, STORE_NO_TX, to, &e))
        log_peer(&d->limiter, DEV_FMT ": %s", DEV_ARG(d), e.text);
}

static void device_image_close(struct blkdev *d)
{
    image_close(take_ptr(d->image));
    d->locked = false;
    d->flush_lost = false;
}

/* Nothing of the guest's is held. */
static void device_fail(struct blkdev *d, int code, const char *sentence)
{
    assert(!d->queues_held);
    d->failed = true;
    d->fault_code = 0;
    log_peer(&d->limiter, DEV_FMT ": closed: %s", DEV_ARG(d), sentence);
    xb_device_fatal(&d->xb, code, sentence);
    device_image_close(d);
    device_switch(d, XenbusStateClosed);
}

static void device_detach(struct blkdev *d)
{
    assert(d->phase == BLKDEV_ATTACHED);
    d->phase = BLKDEV_DETACHING;
    d->awaited = d->queues_held;
    for (unsigned i = 0; i < d->queue_count; i++)
        if (d->queue[i].queue)
            engine_detach(blkdev_queue_engine(d, i), d->queue[i].queue);
}

/* Fails now, or when the queues are detached. What was wrong first is what is said. */
void blkdev_fault(struct blkdev *d, int code, const char *sentence)
{
    if (!d->queues_held) {
        device_fail(d, code, sentence);
        return;
    }
    if (!d->fault_code)
        err_set(&d->fault, code, "%s", sentence);
    d->fault_code = d->fault_code ? d->fault_code : code;
    if (d->phase == BLKDEV_ATTACHED)
        device_detach(d);
}

/* ---- steps: true where our state has changed ---- */

/* By default as many as can run at the same time, as Linux does. */
static uint32_t queues_offered(const struct blkdev *d)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    if (d->image->realigns)
        return 1; /* blkalign.h: the claims are a queue's */
    if (d->config.max_queues)
        return d->config.max_queues;
    return processors < 1 ? 1 : MIN((uint32_t)processors, KEYS_BLK_QUEUES_MAX);
}

static bool device_durable_writes(const struct blkdev *d)
{
    /* A record knows flushes, and so does what stands beside stable data. */
    return !d->image->readonly && !d->image->format->record && !d->image->stable_data;
}

static uint32_t device_zeroes_max(const struct blkdev *d)
{
    return d->image->write_zeroes ? BLKDEV_ZEROES_SECTORS : 0;
}

/* What is offered now; a frontend that is connected may have been offered other. */
static uint32_t bus_bits_offered(const struct blkdev *d)
{
    return !strcmp(d->config.dma, dma_iommu.name) ? d->config.dma_bits : 0;
}

static int announce_body(struct xb_device *xb, store_tx tx, void *arg, struct err *e)
{
    struct blkdev *d = arg;
    d->bus_bits = bus_bits_offered(d);
    const struct keys_blk_features features = {.max_ring_order = BLKDEV_RING_ORDER,
                                               .max_queues = queues_offered(d),
                                               .max_indirect_segments = BLKREQ_INDIRECT_SEGMENTS_MAX,
                                               .persistent = !d->config.no_persistent,
                                               .fua = device_durable_writes(d),
                                               .bus_bits = d->bus_bits,
                                               .max_write_zeroes_sectors = device_zeroes_max(d)};
    int rc = xb_device_confirm_peer(xb, tx, e);
    if (!rc)
        rc = keys_blk_features_write(xb, tx, &features, e);
    if (!rc)
        rc = store_rm(xb->store, tx, "%s/error", xb->dir);
    if (!rc)
        rc = blkdev_warning_write(xb, tx, d, e);
    if (!rc)
        rc = store_rm(xb->store, tx, "%s/" KEYS_BLK_PAUSED, xb->dir);
    return rc ? rc : xb_device_switch(xb, tx, XenbusStateInitWait, e);
}

/* Until all that a predecessor started has ended. */
static bool device_predecessor_gone(struct blkdev *d)
{
    bool gone = journal_ready(reactors_journal(d->reactors));
    if (gone || !d->inherited) {
        d->inherited = false;
        return true;
    }
    uint64_t now_ns = clock_now_ns();
    if (now_ns >= d->lock_deadline_ns && !d->waits_long) {
        log_warning(DEV_FMT ": waits: the storage has not ended the I/O of the role before this one", DEV_ARG(d));
        d->waits_long = true;
    }
    if (d->waits_long)
        d->lock_deadline_ns = now_ns + BLKDEV_LOCK_WAIT_NS;
    return false;
}

int blkdev_image_open(const struct keys_blk_config *k, struct image **out, struct err *e)
{
    struct image_config c = {.path = k->path,
                             .offset_bytes = k->offset_bytes,
                             .size_bytes = k->size_bytes,
                             .readonly = k->readonly,
                             .direct_io = k->direct_io,
                             .sector_bytes = k->sector_bytes,
                             .physical_sector_bytes = k->physical_sector_bytes,
                             .align_bytes = k->host_alignment_bytes};
    return image_open(k->format, &c, out, e);
}

/* 0; -EAGAIN: later. */
static int device_image_open(struct blkdev *d, struct err *e)
{
    if (d->image)
        return 0;
    d->locked = !device_predecessor_gone(d);
    if (d->locked)
        return -EAGAIN;
    int rc = blkdev_image_open(&d->config, &d->image, e);
    d->locked = rc == -EBUSY && clock_now_ns() < d->lock_deadline_ns;
    return d->locked ? -EAGAIN : rc;
}

static bool step_announce(struct blkdev *d)
{
    struct err e;
    int rc = keys_blk_config_read(&d->xb, &d->config, &e);
    if (!rc && !d->config.online && d->xb.state == XenbusStateClosed)
        return false; /* the toolstack is about to remove it */
    if (!rc)
        rc = blkdev_live_config(d, &e);
    if (!rc)
        rc = device_image_open(d, &e);
    if (rc == -EAGAIN)
        return false;
    if (!rc)
        rc = xb_transaction(&d->xb, announce_body, d, &e);
    if (rc == -ESTALE)
        return true; /* the frontend moved: look again */
    if (rc)
        device_fail(d, rc, e.text);
    return !rc;
}

/* A predecessor's device is announced whatever the frontend shows, but in one transaction with what was seen of it. */
static bool step_take_over(struct blkdev *d)
{
    bool stepped = false;
    for (unsigned i = 0; i < BLKDEV_STEPS_MAX && !stepped && !d->failed && !d->locked; i++) {
        if (xb_device_read_peer(&d->xb))
            return false;
        stepped = step_announce(d) && d->xb.state == XenbusStateInitWait;
    }
    return stepped;
}

static bool device_discards(const struct blkdev *d)
{
    return d->config.discard && d->image->discard;
}

/* A barrier orders what one queue's reactor sees, and nothing on another: with several queues there is none. */
static bool device_barriers(uint32_t queue_count)
{
    return queue_count == 1;
}

/* An image of this domain is still locked: perhaps by a predecessor, whose I/O may be under way to the domain's pages.
 */
static bool domain_waits(const struct blkdev *d)
{
    const struct blkdev *o;
    list_foreach (o, d->siblings, link)
        if (o->locked && o->xb.front_domid == d->xb.front_domid)
            return true;
    return false;
}

void blkdev_limits_of_image(const struct blkdev *d, struct blkreq_limits *limits)
{
    limits->capacity_sectors = d->image->size_bytes / SECTOR_BYTES;
    limits->read_only = d->image->readonly;
    limits->discard = device_discards(d);
}

void blkdev_queue_config(struct blkdev *d, const struct keys_blk_front *front, unsigned queue,
                         struct blkqueue_config *out)
{
    *out = (struct blkqueue_config){
        .owner = d,
        .journal = reactors_journal(d->reactors),
        .index = queue,
        .front_domid = d->xb.front_domid,
        .devid = d->xb.devid,
        .ring_pages = front->ring_ref_count,
        .port = front->queue[queue].port,
        .protocol = blk_protocol_find(front->protocol[0] ? front->protocol : NULL),
        .dma = dma_strategy_find(d->config.dma),
        .iommu = d->iommu,
        .remap = d->remap,
        .space = d->space,
        .iommu_deferred = d->config.iommu_deferred,
        .take_over = queue == 0 && d->siblings && !domain_waits(d),
        .persistent = front->persistent && !d->config.no_persistent,
        .image = d->image,
        .stop_on_error = d->config.stop_on_error,
        .throttle = &d->throttle,
        .poll = blkdev_live_poll(d),
        .share = (front->queue_count + reactors_count(d->reactors) - 1) / reactors_count(d->reactors),
        .limits = {.sector_bytes = d->image->sector_bytes,
                   .flush = true,
                   .barrier = device_barriers(front->queue_count),
                   .fua = front->fua && device_durable_writes(d),
                   .bus_bits = d->space ? (uint8_t)d->bus_bits : 0,
                   .zeroes_sectors_max = front->write_zeroes ? device_zeroes_max(d) : 0,
                   .indirect_segments_max = BLKREQ_INDIRECT_SEGMENTS_MAX},
    };
    blkdev_limits_of_image(d, &out->limits);
    memcpy(out->ring_ref, front->queue[queue].ring_ref, sizeof(out->ring_ref));
}

static bool step_connect(struct blkdev *d)
{
    struct err e;
    struct keys_blk_front front;
    if (blkdev_domain_attaches(d)) {
        d->dirty = true; /* looked at again with the reactors' next word */
        return false;
    }
    int rc = keys_blk_front_read(&d->xb, BLKDEV_RING_ORDER, queues_offered(d), &front, &e);
    if (!rc)
        rc = blkdev_space_make(d, &front, &e);
    if (!rc)
        rc = blkdev_queues_make(d, &front, &e);
    if (rc) {
        blkdev_space_drop(d);
        device_fail(d, rc, e.text);
        return false;
    }
    d->phase = BLKDEV_ATTACHING;
    blkdev_queues_attach(d, 0, 1);
    return false;
}

/* Shows Closing once nothing is connected; with `all` goes on to Closed. */
static bool step_close(struct blkdev *d, bool all)
{
    xb_state before = d->xb.state;
    if (d->queues_held) {
        device_detach(d);
        return false;
    }
    device_switch(d, XenbusStateClosing);
    if (all) {
        device_image_close(d);
        device_switch(d, XenbusStateClosed);
    }
    return d->xb.state != before;
}

static bool device_step(struct blkdev *d)
{
    switch (xb_device_reaction(&d->xb)) {
    case XB_ANNOUNCE:
    case XB_REINIT: return step_announce(d);
    case XB_CONNECT: return step_connect(d);
    case XB_CLOSE: return step_close(d, false);
    case XB_CLOSED:
    case XB_RESET: return step_close(d, true);
    case XB_RECONNECT:
    case XB_WAIT: break;
    }
    return false;
}

static bool device_busy(const struct blkdev *d)
{
    return d->failed || d->locked || d->phase == BLKDEV_ATTACHING || d->phase == BLKDEV_DETACHING;
}

static void device_steps(struct blkdev *d)
{
    for (unsigned i = 0; i < BLKDEV_STEPS_MAX && !device_busy(d); i++)
        if (xb_device_read_peer(&d->xb) || !device_step(d))
            return;
}

void blkdev_react(struct blkdev *d)
{
    if (!d->removed) {
        device_steps(d);
        blkdev_live_react(d);
    } else if (d->phase == BLKDEV_ATTACHED) {
        device_detach(d);
    }
}

/* ---- what happens to it ---- */

void blkdev_peer_event(struct blkdev *d)
{
    d->failed = false;
    d->dirty = true;
}

/* A toolstack that wants the device closed writes Closing into our state: the frontend sees it and closes. */
void blkdev_own_event(struct blkdev *d)
{
    _cleanup_free_ char *text = NULL;
    int rc = store_read(d->xb.store, STORE_NO_TX, &text, NULL, "%s/state", d->xb.dir);
    d->dirty = true;
    xb_state state = rc ? XenbusStateUnknown : xb_state_parse(text);
    /* Initialising is what a toolstack writes and we never do: the directory was made anew since we last looked. */
    if (rc == -ENOENT || (state == XenbusStateInitialising && d->xb.state != state))
        d->removed = true;
    else if (state == XenbusStateClosing && xb_transition_allowed(XB_BACK, d->xb.state, XenbusStateClosing))
        d->xb.state = XenbusStateClosing;
    if (d->removed || d->xb.state == XenbusStateClosing)
        blkdev_stop_give_up(d); /* the frontend waits for answers before it closes */
}

bool blkdev_finished(const struct blkdev *d)
{
    return d->removed && !d->queues_held;
}

void blkdev_retry(struct blkdev *d)
{
    if (!d->locked)
        return;
    d->locked = false;
    if (d->removed)
        return;
    bool closing = !xb_transition_allowed(XB_BACK, d->xb.state, XenbusStateInitWait); /* the toolstack gave it up */
    if (closing || step_take_over(d))
        blkdev_react(d);
}

int blkdev_disk_write(struct xb_device *xb, store_tx tx, const struct blkdev *d, struct err *e)
{
    const uint32_t granularity = d->image->discard_granularity_bytes;
    const struct keys_blk_disk disk = {
        .sectors = d->image->size_bytes / SECTOR_BYTES,
        .sector_bytes = d->image->sector_bytes,
        .physical_sector_bytes = d->image->physical_sector_bytes,
        .info = (d->config.cdrom ? KEYS_BLK_INFO_CDROM : 0) | (d->config.removable ? KEYS_BLK_INFO_REMOVABLE : 0) |
                (d->image->readonly ? KEYS_BLK_INFO_READONLY : 0),
        .flush_cache = true,
        .barrier = device_barriers(d->queue_count),
        .discard = device_discards(d),
        .discard_granularity_bytes = granularity,
        .discard_alignment_bytes =
            granularity ? (uint32_t)((granularity - d->image->base_bytes % granularity) % granularity) : 0,
    };
    return keys_blk_disk_write(xb, tx, &disk, e);
}

static int connected_body(struct xb_device *xb, store_tx tx, void *arg, struct err *e)
{
    int rc = xb_device_confirm_peer(xb, tx, e); /* or the queues serve rings that were replaced meanwhile */
    if (!rc)
        rc = blkdev_disk_write(xb, tx, arg, e);
    return rc ? rc : xb_device_switch(xb, tx, XenbusStateConnected, e);
}

/* A guest may connect as often as it likes: only the first time is news. */
static void device_log_connected(struct blkdev *d)
{
    if (!d->connects)
        blkdev_warn(d);
    log_line(d->connects++ ? LOG_DEBUG : LOG_INFO,
             DEV_FMT ": connected to %s:%s, %" PRIu64 " bytes%s, dma %s%s, %s, %u x %u requests", DEV_ARG(d),
             d->config.format, d->config.path, d->image->size_bytes, d->image->readonly ? ", read-only" : "",
             d->config.dma, d->space ? " by bus addresses" : "", d->queue[0].queue->config.protocol->name,
             d->queue_count, d->queue[0].queue->request_count);
}

static void device_show_connected(struct blkdev *d)
{
    struct err e;
    bool closing = !xb_transition_allowed(XB_BACK, d->xb.state, XenbusStateConnected); /* the toolstack was faster */
    int rc = closing ? -ESTALE : xb_transaction(&d->xb, connected_body, d, &e);
    if (rc == -ESTALE)
        device_detach(d); /* and when it is detached the table is asked again */
    else if (rc)
        blkdev_fault(d, rc, e.text);
    else
        device_log_connected(d);
}

/* No queue is held any more. */
static void device_idle(struct blkdev *d)
{
    d->phase = BLKDEV_IDLE;
    blkdev_live_detached(d);
    if (d->fault_code && !d->removed)
        device_fail(d, d->fault_code, d->fault.text);
    d->fault_code = 0;
}

/* The last answer to an attach is there. */
static void device_attached(struct blkdev *d)
{
    d->phase = BLKDEV_ATTACHED;
    if (!d->queues_held)
        device_idle(d);
    else if (d->fault_code)
        device_detach(d);
    else if (!d->removed)
        device_show_connected(d);
}

/* The others follow the first, if they may. */
static void first_attached(struct blkdev *d)
{
    unsigned count = d->queue_count;
    if (!d->fault_code && !d->removed)
        blkdev_queues_attach(d, 1, count);
    else
        for (unsigned i = 1; i < count; i++)
            blkdev_queue_drop(d, i);
}

static void queue_attached(struct blkdev *d, struct blkqueue *q)
{
    unsigned index = blkdev_queue_index(d, q);
    if (q->result) {
        blkdev_fault(d, q->result, q->err.text);
        blkdev_queue_drop(d, index);
    }
    d->awaited--;
    if (index == 0)
        first_attached(d);
    if (d->awaited == 0)
        device_attached(d);
}

static void queue_detached(struct blkdev *d, struct blkqueue *q)
{
    blkdev_queue_drop(d, blkdev_queue_index(d, q));
    if (--d->awaited == 0)
        device_idle(d);
}

/* A fault comes first: one that is found while others still attach keeps the device from showing Connected. */
void blkdev_queue_event(struct blkdev *d, struct blkqueue *q, uint32_t words)
{
    if ((words & BLKQUEUE_FAULTED) && d->phase != BLKDEV_DETACHING)
        blkdev_fault(d, EPROTO, blkqueue_fault_text(q->fault));
    if (words & BLKQUEUE_ATTACHED)
        queue_attached(d, q);
    if (words & (BLKQUEUE_HELD | BLKQUEUE_RESUMED))
        blkdev_live_queue_event(d, q, words);
    if (words & (BLKQUEUE_STOPPED | BLKQUEUE_DETACHED))
        blkdev_stop_queue_event(d, q);
    if (words & BLKQUEUE_DETACHED)
        queue_detached(d, q);
    d->dirty = true;
}

static void queue_tick(struct blkdev *d, unsigned queue)
{
    uint64_t failed;
    struct blkdev_queue *dq = &d->queue[queue];
    const struct blkstats *s = &dq->queue->stats;
    uint64_t now = blkcounter_get(&s->requests) + blkcounter_get(&s->responses) + blkcounter_get(&s->events);
    dq->still_ticks = now == dq->stats_looked_at ? dq->still_ticks + 1 : 0;
    if (dq->still_ticks == BLKDEV_REST_TICKS)
        engine_rest(blkdev_queue_engine(d, queue), dq->queue);
    /* Unmaps of other pages may wait for a queue with a request that takes long; a refresh lets them end. */
    const bool waited_for = d->space && blkcounter_get(&s->requests) != blkcounter_get(&s->responses);
    if (now == dq->stats_looked_at && !blkcounter_get(&s->persistent_pages) && !waited_for)
        return;
    dq->stats_looked_at = now;
    const char *why = blkstats_news(s, &dq->seen, &failed);
    if (why)
        log_peer(&d->limiter, DEV_FMT ": %" PRIu64 " requests failed, most of them: %s", DEV_ARG(d), failed, why);
    uint64_t missing = blkcounter_get(&s->not_replayed);
    if (missing != dq->missing_seen)
        log_warning(DEV_FMT ": %" PRIu64 " requests that were in flight when the last role ended did not come again as "
                            "they were; where they were writes, what the disk holds there is the old or the new",
                    DEV_ARG(d), missing);
    dq->missing_seen = missing;
    engine_refresh(blkdev_queue_engine(d, queue), dq->queue);
}

void blkdev_tick(struct blkdev *d)
{
    if (d->phase != BLKDEV_ATTACHED || d->removed)
        return;
    for (unsigned i = 0; i < d->queue_count; i++)
        queue_tick(d, i);
    if (d->flush_lost || !image_sync_error(d->image))
        return;
    d->flush_lost = true;
    log_error(DEV_FMT ": a flush of %s failed (%s), so data that was written may be lost: every flush fails until the "
                      "frontend closes the disk",
              DEV_ARG(d), d->config.path, strerror(image_sync_error(d->image)));
}

/* ---- life ---- */

/* What a predecessor left. */
static void device_inherit(struct blkdev *d)
{
    if (d->xb.state == XenbusStateClosing)
        device_switch(d, XenbusStateClosed);
    else if (xb_transition_allowed(XB_BACK, d->xb.state, XenbusStateConnected)) /* InitWait, Connected */
        d->dirty = step_take_over(d);
}

struct blkdev *blkdev_new(struct store_client *store, struct reactors *reactors, struct iommu *iommu,
                          uint16_t back_domid, uint16_t front_domid, uint32_t devid, bool inherited)
{
    struct err e;
    struct blkdev *d = calloc(1, sizeof(*d));
    if (!d)
        return NULL;
    d->reactors = reactors;
    d->iommu = iommu;
    d->since_ns = clock_now_ns();
    d->change.asked = inherited; /* of a predecessor, which did not come to it */
    throttle_init(&d->throttle);
    list_init(&d->link);
    xb_device_init(&d->xb, store, XB_BACK, "vbd", front_domid, back_domid, devid);
    snprintf(d->token, sizeof(d->token), "front/%u/%u", front_domid, devid);
    if (xb_device_load(&d->xb, &e) || xb_device_watch(&d->xb, d->token, &e)) {
        throttle_deinit(&d->throttle);
        free(d);
        return NULL;
    }
    if (inherited) {
        d->lock_deadline_ns = clock_now_ns() + BLKDEV_LOCK_WAIT_NS;
        d->inherited = true;
        device_inherit(d);
    }
    return d;
}

void blkdev_free(struct blkdev *d)
{
    if (!d)
        return;
    xb_device_unwatch(&d->xb, d->token);
    for (unsigned i = 0; i < d->queue_count; i++)
        blkqueue_free(d->queue[i].queue);
    free(d->queue);
    blkdev_space_drop(d);
    image_close(d->image);
    throttle_deinit(&d->throttle);
    free(d);
}
