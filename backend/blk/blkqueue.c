/* SPDX-License-Identifier: MIT */
#include "backend/blk/blkqueue.h"

#include <assert.h>

#include "backend/blk/blkrequest.h"

static uint32_t config_entries(const struct blkqueue_config *c)
{
    return ring_entries((size_t)c->ring_pages * PAGE_BYTES, c->protocol->slot_bytes);
}

int blkqueue_new(const struct blkqueue_config *config, struct blkqueue **out, struct err *e)
{
    assert(config->ring_pages > 0 && config->ring_pages <= BLKQUEUE_RING_PAGES_MAX);
    assert(config->protocol->slot_bytes <= BLKQUEUE_SLOT_BYTES_MAX);
    struct blkqueue *q = calloc(1, sizeof(*q));
    if (!q)
        return err_set(e, -ENOMEM, "out of memory");
    q->config = *config;
    q->request_count = config_entries(config);
    assert(q->request_count > 0);
    q->requests = calloc(q->request_count, sizeof(*q->requests));
    q->free = calloc(q->request_count, sizeof(*q->free));
    if (!q->requests || !q->free) {
        blkqueue_free(q);
        return err_set(e, -ENOMEM, "out of memory for %u requests", q->request_count);
    }
    for (uint32_t i = 0; i < q->request_count; i++)
        q->free[q->free_count++] = q->request_count - 1 - i;
    q->channel = EVTCHN_NONE;
    q->file_index = -1;
    list_init(&q->active_link);
    list_init(&q->dirty_link);
    list_init(&q->engine_link);
    letter_init(&q->to_reactor);
    letter_init(&q->to_control);
    *out = q;
    return 0;
}

void blkqueue_free(struct blkqueue *q)
{
    if (!q)
        return;
    assert(q->state == BLKQUEUE_NEW || q->state == BLKQUEUE_RELEASED);
    free(q->requests);
    free(q->free);
    free(q);
}

const char *blkqueue_fault_text(enum blkqueue_fault fault)
{
    switch (fault) {
    case BLKQUEUE_F_OVERRUN: return "the frontend's ring index is further ahead than the ring has entries";
    case BLKQUEUE_F_MISSES: return "the frontend sent too many grant references that name nothing";
    case BLKQUEUE_F_GONE: return "the frontend's process is gone";
    case BLKQUEUE_F_NONE:
    case BLKQUEUE_F_COUNT_: break;
    }
    return "no fault";
}

static void event_done(struct uring_op *op, int result, uint32_t cqe_flags);

void blkqueue_activate(struct blkqueue *q)
{
    if (q->state == BLKQUEUE_RUNNING && list_empty(&q->active_link))
        list_append(&q->reactor->active, &q->active_link);
}

/* The channel is awaited by one multishot poll that is never armed again: each notification is one completion, and the
 * bit is never cleared, so an event costs no system call here. Only where the poll has ended it is cleared first. */
void blkqueue_listen(struct blkqueue *q)
{
    q->event_op.fn = event_done;
    q->event_posted = true;
    (void)evtchn_consume(&q->channel); /* what came before is seen by the look at the ring that follows a listen */
    uring_poll(&q->reactor->uring, &q->event_op, q->channel.wait_fd);
    blkqueue_activate(q);
}

static void pause_done(struct uring_op *op, int result, uint32_t cqe_flags)
{
    (void)result, (void)cqe_flags;
    struct blkqueue *q = container_of(op, struct blkqueue, pause_op);
    q->event_posted = false;
    q->spurious = BLKQUEUE_SPURIOUS_MAX - 1; /* one more and it is the next pause */
    if (q->state == BLKQUEUE_RUNNING)
        blkqueue_listen(q);
}

static void blkqueue_pause(struct blkqueue *q)
{
    static struct __kernel_timespec wait = {.tv_nsec = BLKQUEUE_PAUSE_NS};
    q->pause_op.fn = pause_done;
    q->event_posted = true;
    io_uring_prep_timeout(uring_sqe(&q->reactor->uring, &q->pause_op), &wait, 0, 0);
    blkcounter_add(&q->stats.pauses, 1);
}

static void event_done(struct uring_op *op, int result, uint32_t cqe_flags)
{
    struct blkqueue *q = container_of(op, struct blkqueue, event_op);
    q->event_posted = cqe_flags & IORING_CQE_F_MORE;
    if (q->state != BLKQUEUE_RUNNING)
        return;
    if (result > 0) {
        blkcounter_add(&q->stats.events, 1);
        blkqueue_activate(q);
        if (++q->spurious == BLKQUEUE_SPURIOUS_MAX && q->event_posted)
            uring_cancel(&q->reactor->uring, &q->event_op);
    }
    if (q->event_posted)
        return;
    if (q->spurious >= BLKQUEUE_SPURIOUS_MAX)
        blkqueue_pause(q);
    else if (result > 0 || result == -ECANCELED)
        blkqueue_listen(q);
}

void blkqueue_answer(struct blkqueue *q, uint64_t id, uint8_t operation_raw, int16_t status)
{
    if (status != BLKIF_RSP_OKAY)
        blkcounter_add(&q->stats.errors, 1);
    if (q->broken)
        return;
    unsigned char slot[BLKQUEUE_SLOT_BYTES_MAX];
    q->config.protocol->encode_response(id, operation_raw, status, slot);
    ring_back_put(&q->ring, slot, q->config.protocol->response_bytes);
    if (list_empty(&q->dirty_link))
        list_append(&q->reactor->dirty, &q->dirty_link);
}

static void request_take(struct blkqueue *q)
{
    unsigned char slot[BLKQUEUE_SLOT_BYTES_MAX];
    struct blkreq req;
    ring_back_take(&q->ring, slot, q->config.protocol->request_bytes);
    int code = q->config.protocol->decode(slot, &q->config.limits, &req);
    if (!code) {
        blkrequest_start(q, &req);
        return;
    }
    blkcounter_add(&q->stats.bad_requests[code], 1);
    blkqueue_answer(q, req.id, req.operation_raw, code == BLKREQ_E_OPERATION ? BLKIF_RSP_EOPNOTSUPP : BLKIF_RSP_ERROR);
}

unsigned blkqueue_take(struct blkqueue *q)
{
    uint32_t waiting;
    assert(q->state == BLKQUEUE_RUNNING);
    if (ring_back_pending(&q->ring, &waiting)) {
        blkqueue_break(q, BLKQUEUE_F_OVERRUN);
        return 0;
    }
    unsigned n = MIN(waiting, q->peer_polls ? BLKQUEUE_BUDGET_POLLED : BLKQUEUE_BUDGET);
    for (unsigned i = 0; i < n; i++)
        request_take(q);
    if (n) {
        blkcounter_add(&q->stats.requests, n);
        q->false_arms = 0;
        q->spurious = 0;
        if (gntmap_misses(q->map) - q->misses_before > BLKQUEUE_MISSES_MAX)
            blkqueue_break(q, BLKQUEUE_F_MISSES);
    }
    return n;
}

bool blkqueue_waiting(const struct blkqueue *q)
{
    uint32_t waiting;
    return ring_back_pending(&q->ring, &waiting) || waiting;
}

void blkqueue_publish(struct blkqueue *q)
{
    list_remove(&q->dirty_link);
    if (q->broken)
        return;
    uint32_t n = ring_back_unpublished(&q->ring);
    blkcounter_add(&q->stats.batches, 1);
    blkcounter_add(&q->stats.batch[stats_blk_batch(n)], 1);
    blkcounter_add(&q->stats.responses, n);
    q->peer_polls = !ring_back_push(&q->ring);
    blkcounter_add(q->peer_polls ? &q->stats.notifications_suppressed : &q->stats.notifications, 1);
    if (q->peer_polls)
        return;
    (void)evtchn_notify(&q->channel); /* a peer that cannot be told is one that is gone */
}

bool blkqueue_arm(struct blkqueue *q)
{
    if (ring_back_arm(&q->ring) && ++q->false_arms <= BLKQUEUE_FALSE_ARMS_MAX)
        return true;
    q->false_arms = 0;
    list_remove(&q->active_link);
    return false;
}
