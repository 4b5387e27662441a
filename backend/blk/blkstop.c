/* SPDX-License-Identifier: MIT */
#include "backend/blk/blkstop.h"

#include "backend/blk/blkrequest.h"

/* Requests of the queue that have not ended, held ones included. */
static uint32_t stop_in_flight(const struct blkqueue *q)
{
    return q->small.count - q->small.free_count + q->large.count - q->large.free_count;
}

/* The control thread looks at stats.held and last_io_errno. */
static void stop_tell(struct blkqueue *q)
{
    blkcounter_set(&q->stats.held, q->stop.count);
    mailbox_post(q->reactor->to_control, &q->to_control, BLKQUEUE_STOPPED);
}

static void stop_append(struct blkstop *h, struct blk_request *r)
{
    r->next = NULL;
    if (h->first)
        h->last->next = r;
    else
        h->first = r;
    h->last = r;
    h->count++;
}

static struct blk_request *stop_take_all(struct blkstop *h)
{
    h->count = 0;
    return take_ptr(h->first);
}

/* Its row in the journal stays. */
static void request_drop(struct blk_request *r)
{
    struct blkqueue *q = r->queue;
    if (r->has_data)
        q->config.dma->put(q->dma, &r->dma, false);
    blkpool_put(r->pool, r);
    blkqueue_unpark(q); /* what waits for it ends, too, and the role with it */
}

bool blkstop_keep(struct blk_request *r)
{
    struct blkqueue *q = r->queue;
    struct blkstop *h = &q->stop;
    if (!q->config.stop_on_error || h->give_up || q->broken || r->sync_failed || r->error == EOPNOTSUPP ||
        r->error == EFAULT) /* the guest's memory has gone, which the storage does not bring back */
        return false;
    if (h->abandon) {
        request_drop(r);
        return true;
    }
    stop_append(h, r);
    blkcounter_set(&q->stats.last_io_errno, (uint64_t)r->error);
    if (h->state == BLKSTOP_NONE) {
        h->state = BLKSTOP_PAUSED;
        q->paused |= BLKQUEUE_PAUSE_STOP;
        stop_tell(q);
    }
    blkcounter_set(&q->stats.held, h->count);
    blkstop_over(q);
    return true;
}

static void stop_end(struct blkqueue *q)
{
    q->stop.state = BLKSTOP_NONE;
    q->paused &= (uint8_t)~BLKQUEUE_PAUSE_STOP;
}

bool blkstop_over(struct blkqueue *q)
{
    struct blkstop *h = &q->stop;
    if (h->state != BLKSTOP_RETRYING || stop_in_flight(q) != h->count)
        return false;
    if (h->count)
        h->state = BLKSTOP_PAUSED;
    else
        stop_end(q);
    stop_tell(q);
    return !h->count;
}

void blkstop_retry(struct blkqueue *q)
{
    struct blkstop *h = &q->stop;
    if (h->state != BLKSTOP_PAUSED || q->state != BLKQUEUE_RUNNING)
        return;
    h->state = BLKSTOP_RETRYING;
    struct blk_request *r = stop_take_all(h);
    while (r) {
        struct blk_request *next = r->next;
        blkrequest_retry(r);
        r = next;
    }
}

void blkstop_give_up(struct blkqueue *q)
{
    struct blkstop *h = &q->stop;
    bool stopped = h->state != BLKSTOP_NONE;
    h->give_up = true;
    stop_end(q);
    struct blk_request *r = stop_take_all(h);
    while (r) {
        struct blk_request *next = r->next;
        blkrequest_end(r);
        r = next;
    }
    if (!stopped)
        return;
    stop_tell(q);
    blkqueue_activate(q);
}

void blkstop_abandon(struct blkqueue *q)
{
    struct blkstop *h = &q->stop;
    h->abandon = true;
    if (h->state == BLKSTOP_NONE)
        return;
    stop_end(q);
    q->parked = false; /* it comes again, too */
    struct blk_request *r = stop_take_all(h);
    while (r) {
        struct blk_request *next = r->next;
        request_drop(r);
        r = next;
    }
}
