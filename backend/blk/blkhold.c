/* SPDX-License-Identifier: MIT */
#include "backend/blk/blkhold.h"

#include "backend/blk/blkrequest.h"

/* Requests of the queue that have not ended, held ones included. */
static uint32_t hold_in_flight(const struct blkqueue *q)
{
    return q->small.count - q->small.free_count + q->large.count - q->large.free_count;
}

/* The control thread looks at stats.held and last_io_errno. */
static void hold_tell(struct blkqueue *q)
{
    blkcounter_set(&q->stats.held, q->hold.count);
    mailbox_post(q->reactor->to_control, &q->to_control, BLKQUEUE_HELD);
}

static void hold_append(struct blkhold *h, struct blk_request *r)
{
    r->next = NULL;
    if (h->first)
        h->last->next = r;
    else
        h->first = r;
    h->last = r;
    h->count++;
}

static struct blk_request *hold_take_all(struct blkhold *h)
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
}

bool blkhold_keep(struct blk_request *r)
{
    struct blkqueue *q = r->queue;
    struct blkhold *h = &q->hold;
    if (!q->config.stop_on_error || h->give_up || q->broken || r->sync_failed || r->error == EOPNOTSUPP)
        return false;
    if (h->abandon) {
        request_drop(r);
        return true;
    }
    hold_append(h, r);
    blkcounter_set(&q->stats.last_io_errno, (uint64_t)r->error);
    if (h->state == BLKHOLD_NONE) {
        h->state = BLKHOLD_PAUSED;
        hold_tell(q);
    }
    blkcounter_set(&q->stats.held, h->count);
    blkhold_progress(q);
    return true;
}

void blkhold_progress(struct blkqueue *q)
{
    struct blkhold *h = &q->hold;
    if (h->state != BLKHOLD_RETRYING || hold_in_flight(q) != h->count)
        return;
    h->state = h->count ? BLKHOLD_PAUSED : BLKHOLD_NONE;
    hold_tell(q);
}

void blkhold_resume(struct blkqueue *q)
{
    struct blkhold *h = &q->hold;
    if (h->state != BLKHOLD_PAUSED || q->state != BLKQUEUE_RUNNING)
        return;
    h->state = BLKHOLD_RETRYING;
    struct blk_request *r = hold_take_all(h);
    while (r) {
        struct blk_request *next = r->next;
        blkrequest_retry(r);
        r = next;
    }
}

void blkhold_give_up(struct blkqueue *q)
{
    struct blkhold *h = &q->hold;
    h->give_up = true;
    h->state = BLKHOLD_NONE;
    blkcounter_set(&q->stats.held, 0);
    struct blk_request *r = hold_take_all(h);
    while (r) {
        struct blk_request *next = r->next;
        blkrequest_fail(r);
        r = next;
    }
    if (q->reactor) /* never attached otherwise */
        blkqueue_activate(q);
}

void blkhold_abandon(struct blkqueue *q)
{
    struct blkhold *h = &q->hold;
    h->abandon = true;
    if (h->state == BLKHOLD_NONE)
        return;
    h->state = BLKHOLD_NONE;
    q->parked = false; /* it comes again, too */
    struct blk_request *r = hold_take_all(h);
    while (r) {
        struct blk_request *next = r->next;
        request_drop(r);
        r = next;
    }
}
