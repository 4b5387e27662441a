/* SPDX-License-Identifier: MIT */
/* backend/blk/blkdev_live.c: changes of a disk that runs, as the toolstack asks for them. See blkdev.h.
 *
 * A killed role leaves the request in the store, and its successor begins anew: each step that was done already is then
 * found to be so. What is in force is written together with the answer.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "backend/blk/blkdev.h"
#include "base/clock.h"

static bool change_refused(const struct blkdev *d)
{
    return d->change.why.text[0];
}

/* The first reason is the one that is told. */
static void change_refuse(struct blkdev *d, const struct err *why)
{
    if (!change_refused(d))
        d->change.why = *why;
}

/* ---- what a configuration may say ---- */

static int config_check(const struct keys_blk_config *k, struct err *e)
{
    struct engine_options options;
    if (!dma_strategy_find(k->dma))
        return err_set(e, -EINVAL, "'%s' is no DMA strategy; the default is %s", k->dma, DMA_DEFAULT);
    int r = k->poll[0] ? engine_poll_parse(k->poll, 0, &options, e) : 0;
    return r ? r : keys_blk_qos_check(&k->qos, e);
}

enum engine_poll blkdev_live_poll(const struct blkdev *d)
{
    struct engine_options o = {0};
    return d->config.poll[0] && !engine_poll_parse(d->config.poll, 0, &o, NULL) ? o.poll : ENGINE_DEFAULT;
}

static void rate_set(struct blkdev *d)
{
    if (!memcmp(&d->rated, &d->config.qos, sizeof(d->rated)))
        return; /* or a guest that connects anew would be rid of its debts */
    d->rated = d->config.qos;
    throttle_set(&d->throttle, &d->rated, clock_now_ns());
}

static void queues_tune(struct blkdev *d)
{
    for (unsigned i = 0; i < d->queue_count && d->phase == BLKDEV_ATTACHED; i++) {
        d->queue[i].queue->poll = (uint8_t)blkdev_live_poll(d);
        engine_tune(blkdev_queue_engine(d, i), d->queue[i].queue);
    }
}

int blkdev_live_config(struct blkdev *d, struct err *e)
{
    int r = config_check(&d->config, e);
    if (r)
        return err_prefix(e, r, "%s/domzero", d->xb.dir);
    rate_set(d);
    return 0;
}

/* A frontend that uses bus addresses, or may be about to, cannot be served by another strategy. */
static int bus_check(const struct blkdev *d, const struct keys_blk_config *wanted, struct err *e)
{
    if (!strcmp(wanted->dma, d->config.dma))
        return 0;
    if (d->space)
        return err_set(
            e, -EBUSY,
            "dma=%s: the frontend uses the bus addresses of the device's IOMMU; the strategy can change when "
            "it has closed the disk",
            wanted->dma);
    if (d->bus_bits && d->xb.state == XenbusStateInitWait)
        return err_set(e, -EBUSY, "dma=%s: a frontend that may use bus addresses is to connect; ask again when it has",
                       wanted->dma);
    return 0;
}

/* The configuration as it is asked for: 0, or a sentence. */
static int config_wanted(const struct blkdev *d, struct keys_blk_config *out, struct err *e)
{
    const struct keys_blk_set *set = &d->change.set;
    *out = d->config;
    out->qos = keys_blk_set_qos(set, &d->config.qos);
    if (set->has_readonly)
        out->readonly = set->readonly;
    if (set->size_bytes)
        out->size_bytes = set->size_bytes;
    if (set->dma[0])
        memcpy(out->dma, set->dma, sizeof(out->dma));
    if (set->has_poll)
        snprintf(out->poll, sizeof(out->poll), "%s", strcmp(set->poll, "default") ? set->poll : "");
    if (out->cdrom && !out->readonly)
        return err_set(e, -EINVAL, "a CD-ROM is read-only");
    int r = config_check(out, e);
    return r ? r : bus_check(d, out, e);
}

/* ---- rows that are served only where they are asked for by name ---- */

bool blkdev_unsafe(const struct blkdev *d)
{
    const struct dma_strategy *row = dma_strategy_find(d->config.dma);
    return row && row->unsafe;
}

#define WARNING_BYTES 256

/* One line, for the log and for the store. */
static const char *warning_text(const struct blkdev *d, char out[WARNING_BYTES])
{
    snprintf(out, WARNING_BYTES,
             "dma=%s is UNSAFE: it does not hold the guest's memory during I/O, so a guest can have other guests' "
             "memory read and overwritten; it is for demonstrations",
             d->config.dma);
    return out;
}

void blkdev_warn(const struct blkdev *d)
{
    char text[WARNING_BYTES];
    if (blkdev_unsafe(d))
        log_warning("vbd %u/%u: %s", d->xb.front_domid, d->xb.devid, warning_text(d, text));
}

int blkdev_warning_write(struct xb_device *xb, store_tx tx, const struct blkdev *d, struct err *e)
{
    char text[WARNING_BYTES];
    int r = blkdev_unsafe(d) ? store_write(xb->store, tx, warning_text(d, text), "%s/" KEYS_BLK_WARNING, xb->dir)
                             : store_rm(xb->store, tx, "%s/" KEYS_BLK_WARNING, xb->dir);
    return r < 0 ? err_set(e, r, "cannot write %s/" KEYS_BLK_WARNING ": %s", xb->dir, strerror(-r)) : 0;
}

/* ---- the answer ---- */

/* Somebody who did not wait for the answer may have asked for more: that is looked at next. */
static bool still_asked(const struct blkdev *d, store_tx tx)
{
    struct keys_blk_set now;
    (void)keys_blk_set_read(d->xb.store, tx, d->xb.dir, &now, NULL);
    return !memcmp(&now, &d->change.set, sizeof(now));
}

static int answer_body(struct xb_device *xb, store_tx tx, void *arg, struct err *e)
{
    const struct blkdev *d = arg;
    const struct blkdev_change *change = &d->change;
    xb_state shown;
    int r = xb_device_confirm_own(xb, tx, &shown, e);
    if (!r && change->tried)
        r = keys_blk_config_write_live(xb->store, tx, xb->dir, &d->config, e);
    if (!r && change->tried)
        r = blkdev_warning_write(xb, tx, d, e);
    if (!r && still_asked(d, tx))
        r = keys_blk_set_answer(xb->store, tx, xb->dir, change->set.id, change->why.text, e);
    if (!r && shown == xb->state && /* else the toolstack is closing it */
        change->tell && d->queues_held && xb_transition_allowed(XB_BACK, xb->state, XenbusStateConnected)) {
        r = blkdev_disk_write(xb, tx, d, e);
        r = r ? r : xb_device_switch(xb, tx, XenbusStateConnected, e);
    }
    return r;
}

static void change_end(struct blkdev *d)
{
    struct err e;
    d->change.phase = BLKDEV_STILL;
    if (change_refused(d))
        log_warning("vbd %u/%u: refused: %s", d->xb.front_domid, d->xb.devid, d->change.why.text);
    else
        log_info("vbd %u/%u: changed as asked for: %" PRIu64 " bytes%s, dma %s", d->xb.front_domid, d->xb.devid,
                 d->image ? d->image->size_bytes : d->config.size_bytes, d->config.readonly ? ", read-only" : "",
                 d->config.dma);
    if (d->change.set.dma[0] && !change_refused(d))
        blkdev_warn(d);
    if (xb_transaction(&d->xb, answer_body, d, &e))
        log_warning("vbd %u/%u: %s", d->xb.front_domid, d->xb.devid, e.text);
}

/* ---- doing it ---- */

static void change_size(struct blkdev *d, uint64_t size_bytes)
{
    struct err e;
    if (size_bytes == d->config.size_bytes)
        return;
    if (image_resize(d->image, size_bytes, &e)) {
        change_refuse(d, &e);
        return;
    }
    d->config.size_bytes = size_bytes;
    d->change.tell = true;
}

static void change_image(struct blkdev *d, const struct keys_blk_config *wanted)
{
    struct err e;
    int r = image_set_readonly(d->image, wanted->readonly, &e);
    if (r) {
        change_refuse(d, &e);
    } else if (d->config.readonly != wanted->readonly) {
        d->config.readonly = wanted->readonly;
        d->change.tell = true;
    }
    if (r == -ENOTRECOVERABLE)
        blkdev_fault(d, r, e.text); /* and the image may be closed by now */
    else
        change_size(d, wanted->size_bytes);
}

/* A disk that is closed has its image open for the moment of the change. */
static void change_closed_image(struct blkdev *d, const struct keys_blk_config *wanted)
{
    struct err e;
    if (blkdev_image_open(&d->config, &d->image, &e)) {
        change_refuse(d, &e);
        return;
    }
    change_image(d, wanted);
    image_close(take_ptr(d->image));
}

static bool needs_image(const struct blkdev *d, const struct keys_blk_config *wanted)
{
    return wanted->readonly != d->config.readonly || wanted->size_bytes != d->config.size_bytes;
}

/* Nothing is under way on the image: no queue, or one that is held. */
static void change_do(struct blkdev *d, const struct keys_blk_config *wanted)
{
    d->change.tried = true;
    if (needs_image(d, wanted) && d->image)
        change_image(d, wanted);
    else if (needs_image(d, wanted))
        change_closed_image(d, wanted);
    memcpy(d->config.dma, wanted->dma, sizeof(d->config.dma));
    memcpy(d->config.poll, wanted->poll, sizeof(d->config.poll));
    d->config.qos = wanted->qos;
    rate_set(d);
    queues_tune(d);
}

static void change_held(struct blkdev *d)
{
    struct keys_blk_config wanted;
    struct err e;
    if (!config_wanted(d, &wanted, &e)) /* it was asked before */
        change_do(d, &wanted);
    if (d->phase != BLKDEV_ATTACHED)
        return;
    d->change.phase = BLKDEV_RESUMING;
    d->change.awaited = d->queue_count;
    for (unsigned i = 0; i < d->queue_count; i++) {
        struct blkqueue *q = d->queue[i].queue;
        blkdev_limits_of_image(d, &q->change.limits);
        q->change.dma = dma_strategy_find(d->config.dma);
        engine_resume(blkdev_queue_engine(d, i), q);
    }
}

/* A queue that cannot have the new strategy goes on with the old one, whatever the others have: each does the same
 * work. The next connection has one for all. */
static void queue_resumed(struct blkdev *d, const struct blkqueue *q)
{
    if (!q->result)
        return;
    change_refuse(d, &q->err);
    snprintf(d->config.dma, sizeof(d->config.dma), "%s", q->config.dma->name);
}

void blkdev_live_queue_event(struct blkdev *d, const struct blkqueue *q, uint32_t words)
{
    if (d->phase != BLKDEV_ATTACHED)
        return; /* on its way out: it is done without queues */
    if ((words & BLKQUEUE_HELD) && d->change.phase == BLKDEV_HOLDING && --d->change.awaited == 0)
        change_held(d);
    if (!(words & BLKQUEUE_RESUMED) || d->change.phase != BLKDEV_RESUMING)
        return;
    queue_resumed(d, q);
    if (--d->change.awaited == 0)
        change_end(d);
}

void blkdev_live_detached(struct blkdev *d)
{
    d->change.asked |= d->change.phase != BLKDEV_STILL;
    d->change.phase = BLKDEV_STILL;
}

void blkdev_live_event(struct blkdev *d)
{
    d->change.asked = d->dirty = true;
}

/* What is asked for: 0 and what the configuration would be; -ENOENT: nothing. */
static int change_read(struct blkdev *d, struct keys_blk_config *wanted, struct err *e)
{
    struct blkdev_change *change = &d->change;
    *change = (struct blkdev_change){0};
    int r = keys_blk_set_read(d->xb.store, STORE_NO_TX, d->xb.dir, &change->set, e);
    if (r == 0 && !d->image)
        r = keys_blk_config_read(&d->xb, &d->config, e);
    return r ? r : config_wanted(d, wanted, e);
}

void blkdev_live_react(struct blkdev *d)
{
    struct keys_blk_config wanted;
    struct err e;
    bool moving = d->phase == BLKDEV_ATTACHING || d->phase == BLKDEV_DETACHING;
    if (!d->change.asked || d->change.phase != BLKDEV_STILL || d->locked || moving)
        return;
    int r = change_read(d, &wanted, &e);
    if (r == -ENOENT)
        return;
    if (r) {
        change_refuse(d, &e);
        change_end(d);
    } else if (d->phase == BLKDEV_ATTACHED && (needs_image(d, &wanted) || strcmp(wanted.dma, d->config.dma))) {
        d->change.phase = BLKDEV_HOLDING;
        d->change.awaited = d->queue_count;
        for (unsigned i = 0; i < d->queue_count; i++)
            engine_hold(blkdev_queue_engine(d, i), d->queue[i].queue);
    } else {
        change_do(d, &wanted);
        change_end(d);
    }
}
