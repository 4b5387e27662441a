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
}

/* Nothing of the guest's is held. */
static void device_fail(struct blkdev *d, int code, const char *sentence)
{
    assert(!d->queue);
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
    engine_detach(d->engine, d->queue);
}

/* Fails now, or when the queue is detached. */
static void device_fault(struct blkdev *d, int code, const char *sentence)
{
    if (!d->queue) {
        device_fail(d, code, sentence);
        return;
    }
    d->fault_code = code;
    err_set(&d->fault, code, "%s", sentence);
    if (d->phase == BLKDEV_ATTACHED)
        device_detach(d);
}

/* ---- steps: true where our state has changed ---- */

static int announce_body(struct xb_device *xb, store_tx tx, void *arg, struct err *e)
{
    const struct keys_blk_features features = {
        .max_ring_order = BLKDEV_RING_ORDER, .max_queues = 1, .max_indirect_segments = BLKREQ_INDIRECT_SEGMENTS_MAX};
    (void)arg;
    int rc = xb_device_confirm_peer(xb, tx, e);
    if (!rc)
        rc = keys_blk_features_write(xb, tx, &features, e);
    if (!rc)
        rc = store_rm(xb->store, tx, "%s/error", xb->dir);
    if (!rc)
        rc = store_rm(xb->store, tx, "%s/" KEYS_BLK_PAUSED, xb->dir);
    return rc ? rc : xb_device_switch(xb, tx, XenbusStateInitWait, e);
}

/* Until all that a predecessor started has ended. */
static bool device_predecessor_gone(struct blkdev *d)
{
    bool gone = journal_ready(engine_journal(d->engine));
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

/* 0; -EAGAIN: later. */
static int device_image_open(struct blkdev *d, struct err *e)
{
    const struct keys_blk_config *k = &d->config;
    struct image_config c = {.path = k->path,
                             .offset_bytes = k->offset_bytes,
                             .size_bytes = k->size_bytes,
                             .readonly = k->readonly,
                             .direct_io = k->direct_io};
    if (d->image)
        return 0;
    d->locked = !device_predecessor_gone(d);
    if (d->locked)
        return -EAGAIN;
    int rc = image_open(k->format, &c, &d->image, e);
    d->locked = rc == -EBUSY && clock_now_ns() < d->lock_deadline_ns;
    return d->locked ? -EAGAIN : rc;
}

static bool step_announce(struct blkdev *d)
{
    struct err e;
    int rc = keys_blk_config_read(&d->xb, &d->config, &e);
    if (!rc && !d->config.online && d->xb.state == XenbusStateClosed)
        return false; /* the toolstack is about to remove it */
    if (!rc && !dma_strategy_find(d->config.dma))
        rc = err_set(&e, -EINVAL, "%s/domzero/dma: '%s' is no DMA strategy; the default is %s", d->xb.dir,
                     d->config.dma, DMA_DEFAULT);
    if (!rc)
        rc = device_image_open(d, &e);
    if (rc == -EAGAIN)
        return false;
    if (!rc)
        rc = xb_transaction(&d->xb, announce_body, NULL, &e);
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

static void queue_config(const struct blkdev *d, const struct keys_blk_front *front, struct blkqueue_config *out)
{
    const struct image *image = d->image;
    *out = (struct blkqueue_config){
        .journal = engine_journal(d->engine),
        .front_domid = d->xb.front_domid,
        .devid = d->xb.devid,
        .ring_pages = front->ring_ref_count,
        .port = front->port,
        .protocol = blk_protocol_find(front->protocol[0] ? front->protocol : NULL),
        .dma = dma_strategy_find(d->config.dma),
        .image = image,
        .stop_on_error = d->config.stop_on_error,
        .limits = {.capacity_sectors = image->size_bytes / SECTOR_BYTES,
                   .sector_bytes = image->sector_bytes,
                   .read_only = image->readonly,
                   .flush = true,
                   .barrier = true,
                   .discard = device_discards(d),
                   .indirect_segments_max = BLKREQ_INDIRECT_SEGMENTS_MAX},
    };
    memcpy(out->ring_ref, front->ring_ref, sizeof(out->ring_ref));
}

static bool step_connect(struct blkdev *d)
{
    struct err e;
    struct keys_blk_front front;
    struct blkqueue_config config;
    int rc = keys_blk_front_read(&d->xb, BLKDEV_RING_ORDER, &front, &e);
    if (!rc) {
        queue_config(d, &front, &config);
        config.owner = d;
        rc = config.protocol ? blkqueue_new(&config, &d->queue, &e)
                             : err_set(&e, -EINVAL, "%s/protocol: '%s' is not known", d->xb.peer_dir, front.protocol);
    }
    if (rc) {
        device_fail(d, rc, e.text);
        return false;
    }
    d->phase = BLKDEV_ATTACHING;
    engine_attach(d->engine, d->queue);
    return false;
}

/* Shows Closing once nothing is connected; with `all` goes on to Closed. */
static bool step_close(struct blkdev *d, bool all)
{
    xb_state before = d->xb.state;
    if (d->queue) {
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

void blkdev_react(struct blkdev *d)
{
    if (d->removed) {
        if (d->phase == BLKDEV_ATTACHED)
            device_detach(d);
        return;
    }
    for (unsigned i = 0; i < BLKDEV_STEPS_MAX && !device_busy(d); i++)
        if (xb_device_read_peer(&d->xb) || !device_step(d))
            return;
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
    if (d->paused && d->phase == BLKDEV_ATTACHED && (d->removed || d->xb.state == XenbusStateClosing))
        engine_resume(d->engine, d->queue, true); /* the frontend waits for their answers before it closes */
}

bool blkdev_finished(const struct blkdev *d)
{
    return d->removed && !d->queue;
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

static int connected_body(struct xb_device *xb, store_tx tx, void *arg, struct err *e)
{
    const struct blkdev *d = arg;
    const uint32_t granularity = d->image->discard_granularity_bytes;
    const struct keys_blk_disk disk = {
        .sectors = d->image->size_bytes / SECTOR_BYTES,
        .sector_bytes = d->image->sector_bytes,
        .physical_sector_bytes = d->image->physical_sector_bytes,
        .info = (d->config.cdrom ? KEYS_BLK_INFO_CDROM : 0) | (d->config.removable ? KEYS_BLK_INFO_REMOVABLE : 0) |
                (d->image->readonly ? KEYS_BLK_INFO_READONLY : 0),
        .flush_cache = true,
        .barrier = true,
        .discard = device_discards(d),
        .discard_granularity_bytes = granularity,
        .discard_alignment_bytes =
            granularity ? (uint32_t)((granularity - d->image->base_bytes % granularity) % granularity) : 0,
    };
    int rc = xb_device_confirm_peer(xb, tx, e); /* or the queue serves rings that were replaced meanwhile */
    if (!rc)
        rc = keys_blk_disk_write(xb, tx, &disk, e);
    return rc ? rc : xb_device_switch(xb, tx, XenbusStateConnected, e);
}

/* A guest may connect as often as it likes: only the first time is news. */
static void device_log_connected(struct blkdev *d)
{
    log_line(d->connects++ ? LOG_DEBUG : LOG_INFO,
             DEV_FMT ": connected to %s:%s, %" PRIu64 " bytes%s, dma %s, %s, %u requests", DEV_ARG(d), d->config.format,
             d->config.path, d->image->size_bytes, d->image->readonly ? ", read-only" : "", d->config.dma,
             d->queue->config.protocol->name, d->queue->request_count);
}

static void queue_attached(struct blkdev *d)
{
    struct blkqueue *q = d->queue;
    struct err e;
    if (q->result) {
        d->phase = BLKDEV_IDLE;
        d->queue = NULL;
        if (!d->removed)
            device_fail(d, q->result, q->err.text);
        blkdev_stats_keep(d, q);
        blkqueue_free(q);
        return;
    }
    d->phase = BLKDEV_ATTACHED;
    d->seen = (struct blkstats_seen){0};
    d->stats_looked_at = d->missing_seen = 0;
    if (d->removed)
        return;
    bool closing = !xb_transition_allowed(XB_BACK, d->xb.state, XenbusStateConnected); /* the toolstack was faster */
    int rc = closing ? -ESTALE : xb_transaction(&d->xb, connected_body, d, &e);
    if (rc == -ESTALE)
        device_detach(d); /* and when it is detached the table is asked again */
    else if (rc)
        device_fault(d, rc, e.text);
    else
        device_log_connected(d);
}

/* What is held has changed: the operator is told by a key, a line, and the numbers. */
static void queue_held(struct blkdev *d)
{
    const struct blkstats *s = &d->queue->stats;
    uint64_t held = blkcounter_get(&s->held);
    if (held) {
        char text[160];
        snprintf(text, sizeof(text), "%s: requests are held; make it work again, then: domzero block-resume",
                 strerror((int)blkcounter_get(&s->last_io_errno)));
        log_warning(DEV_FMT ": paused: %s", DEV_ARG(d), text);
        if (!d->removed)
            store_write(d->xb.store, STORE_NO_TX, text, "%s/" KEYS_BLK_PAUSED, d->xb.dir);
    } else if (d->paused) {
        log_info(DEV_FMT ": resumed", DEV_ARG(d));
        store_rm(d->xb.store, STORE_NO_TX, "%s/" KEYS_BLK_PAUSED, d->xb.dir);
    }
    d->paused = held > 0;
}

void blkdev_paused_event(struct blkdev *d)
{
    _cleanup_free_ char *text = NULL;
    if (!d->paused || d->phase != BLKDEV_ATTACHED ||
        store_read(d->xb.store, STORE_NO_TX, &text, NULL, "%s/" KEYS_BLK_PAUSED, d->xb.dir))
        return;
    if (!strcmp(text, KEYS_BLK_RESUME))
        engine_resume(d->engine, d->queue, false);
}

static void queue_detached(struct blkdev *d)
{
    blkdev_stats_keep(d, d->queue);
    blkqueue_free(take_ptr(d->queue));
    d->phase = BLKDEV_IDLE;
    if (d->fault_code && !d->removed)
        device_fail(d, d->fault_code, d->fault.text);
    d->fault_code = 0;
}

void blkdev_queue_event(struct blkdev *d, uint32_t words)
{
    if (words & BLKQUEUE_ATTACHED)
        queue_attached(d);
    if ((words & BLKQUEUE_FAULTED) && d->phase == BLKDEV_ATTACHED)
        device_fault(d, EPROTO, blkqueue_fault_text(d->queue->fault));
    if (words & (BLKQUEUE_HELD | BLKQUEUE_DETACHED))
        queue_held(d);
    if (words & BLKQUEUE_DETACHED)
        queue_detached(d);
    d->dirty = true;
}

void blkdev_tick(struct blkdev *d)
{
    uint64_t failed;
    if (d->phase != BLKDEV_ATTACHED || d->removed)
        return;
    const struct blkstats *s = &d->queue->stats;
    uint64_t now = blkcounter_get(&s->requests) + blkcounter_get(&s->events);
    if (now == d->stats_looked_at)
        return;
    d->stats_looked_at = now;
    const char *why = blkstats_news(s, &d->seen, &failed);
    if (why)
        log_peer(&d->limiter, DEV_FMT ": %" PRIu64 " requests failed, most of them: %s", DEV_ARG(d), failed, why);
    uint64_t missing = blkcounter_get(&s->not_replayed);
    if (missing != d->missing_seen)
        log_warning(DEV_FMT ": %" PRIu64 " requests that were in flight when the last role ended did not come again as "
                            "they were; where they were writes, what the disk holds there is the old or the new",
                    DEV_ARG(d), missing);
    d->missing_seen = missing;
    engine_refresh(d->engine, d->queue);
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

struct blkdev *blkdev_new(struct store_client *store, struct engine *engine, uint16_t back_domid, uint16_t front_domid,
                          uint32_t devid, bool inherited)
{
    struct err e;
    struct blkdev *d = calloc(1, sizeof(*d));
    if (!d)
        return NULL;
    d->engine = engine;
    d->since_ns = clock_now_ns();
    list_init(&d->link);
    xb_device_init(&d->xb, store, XB_BACK, "vbd", front_domid, back_domid, devid);
    snprintf(d->token, sizeof(d->token), "front/%u/%u", front_domid, devid);
    if (xb_device_load(&d->xb, &e) || xb_device_watch(&d->xb, d->token, &e)) {
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
    blkqueue_free(d->queue);
    image_close(d->image);
    free(d);
}
