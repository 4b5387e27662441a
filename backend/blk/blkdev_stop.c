/* SPDX-License-Identifier: MIT */
/* backend/blk/blkdev_stop.c: a disk whose storage failed and that is to stop then (blkstop.h): the operator is told by
 * domzero/paused, a line in the log and the numbers, and asks by the same key for another try. The queues of a disk
 * stop each by itself, and are tried again together; the key goes when none holds anything.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "backend/blk/blkdev.h"

#define DEV_FMT    "vbd %u/%u"
#define DEV_ARG(d) (d)->xb.front_domid, (d)->xb.devid

static bool anything_held(const struct blkdev *d)
{
    for (unsigned i = 0; i < d->queue_count; i++)
        if (d->queue[i].queue && blkcounter_get(&d->queue[i].queue->stats.held))
            return true;
    return false;
}

static int paused_body(struct xb_device *xb, store_tx tx, void *arg, struct err *e)
{
    int rc = xb_device_confirm_own(xb, tx, NULL, e);
    return rc ? rc : store_write(xb->store, tx, arg, "%s/" KEYS_BLK_PAUSED, xb->dir);
}

static void stop_tell(struct blkdev *d, int code)
{
    char text[160];
    snprintf(text, sizeof(text), "%s: requests are held; make it work again, then: domzero block-resume",
             strerror(code));
    log_warning(DEV_FMT ": paused: %s", DEV_ARG(d), text);
    d->stopped = true;
    if (!d->removed)
        xb_transaction(&d->xb, paused_body, text, NULL);
}

void blkdev_stop_queue_event(struct blkdev *d, const struct blkqueue *q)
{
    if (blkcounter_get(&q->stats.held)) {
        stop_tell(d, (int)blkcounter_get(&q->stats.last_io_errno));
        if (d->removed || d->xb.state == XenbusStateClosing) /* nobody asked to wait any more */
            blkdev_stop_give_up(d);
    } else if (d->stopped && !anything_held(d)) {
        d->stopped = false;
        log_info(DEV_FMT ": resumed", DEV_ARG(d));
        if (!d->removed)
            store_rm(d->xb.store, STORE_NO_TX, "%s/" KEYS_BLK_PAUSED, d->xb.dir);
    }
}

static void queues_retry(struct blkdev *d, bool give_up)
{
    if (!d->stopped || d->phase != BLKDEV_ATTACHED)
        return;
    for (unsigned i = 0; i < d->queue_count; i++)
        if (d->queue[i].queue)
            engine_retry(blkdev_queue_engine(d, i), d->queue[i].queue, give_up);
}

void blkdev_stop_event(struct blkdev *d)
{
    _cleanup_free_ char *text = NULL;
    if (d->stopped && !store_read(d->xb.store, STORE_NO_TX, &text, NULL, "%s/" KEYS_BLK_PAUSED, d->xb.dir) &&
        !strcmp(text, KEYS_BLK_RESUME))
        queues_retry(d, false);
}

void blkdev_stop_give_up(struct blkdev *d)
{
    queues_retry(d, true);
}
