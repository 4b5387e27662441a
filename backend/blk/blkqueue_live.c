/* SPDX-License-Identifier: MIT */
/* backend/blk/blkqueue_live.c: what changes while a queue runs: held and resumed under new rules, and its rate. See
 * blkqueue.h. The queues of a disk are held each by its own reactor, and resumed when all of them are. All of it off
 * the data path, but for blkqueue_rate_begin() and _charge(), which only disks with a rate come to.
 */
#include <assert.h>

#include "backend/blk/blkrequest.h"
#include "base/span.h"

/* ---- hold and resume ---- */

void blkqueue_held_check(struct blkqueue *q)
{
    if (q->state != BLKQUEUE_RUNNING || !blkqueue_all_idle(q))
        return;
    q->barrier = false;
    q->sync_borrowed = q->sync_fd == q->config.image->fd;
    q->change = (struct blkqueue_change){.limits = q->config.limits, .dma = q->config.dma};
    mailbox_post(q->reactor->to_control, &q->to_control, BLKQUEUE_HELD);
}

void blkqueue_hold(struct blkqueue *q)
{
    if (q->state != BLKQUEUE_RUNNING || q->paused & BLKQUEUE_PAUSE_HOLD)
        return;
    q->paused |= BLKQUEUE_PAUSE_HOLD;
    list_remove(&q->active_link);
    blkqueue_held_check(q);
}

/* The new one first: where it cannot be had there is still the old one. */
static int dma_switch(struct blkqueue *q, const struct dma_strategy *to, struct err *e)
{
    struct dma *dma = NULL;
    int r = blkqueue_dma_setup(q, to, &dma, e);
    if (r)
        return r;
    r = blktell_route(q, to, e);
    if (r) {
        to->teardown(dma);
        return r;
    }
    q->config.dma->teardown(q->dma);
    q->dma = dma;
    q->config.dma = to;
    return 0;
}

/* What was parked was judged by the old rules; an indirect request is only judged when it begins. */
static int parked_check(const struct blkqueue *q)
{
    const struct blkreq *req = &q->waiting;
    const struct blkreq_limits *limits = &q->config.limits;
    if (req->indirect_pages || !req->sector_count)
        return 0;
    if (limits->read_only && req->operation != BLKIF_OP_READ)
        return BLKREQ_E_READ_ONLY;
    return span_fits(req->sector, req->sector_count, limits->capacity_sectors) ? 0 : BLKREQ_E_RANGE;
}

static void parked_judge(struct blkqueue *q)
{
    int code = q->parked ? parked_check(q) : 0;
    if (!code)
        return;
    q->parked = false;
    blkqueue_refuse(q, &q->waiting, code);
}

void blkqueue_resume(struct blkqueue *q)
{
    if (q->sync_borrowed) /* also of a queue that broke: it is closed by comparing */
        q->sync_fd = q->config.image->fd;
    q->sync_borrowed = false;
    if (q->state != BLKQUEUE_RUNNING || !(q->paused & BLKQUEUE_PAUSE_HOLD))
        return; /* it broke meanwhile */
    assert(blkqueue_all_idle(q));
    q->config.limits = q->change.limits;
    q->result = q->change.dma == q->config.dma ? 0 : dma_switch(q, q->change.dma, &q->err);
    uring_file_unregister(&q->reactor->uring, q->file_index); /* the image may have a new descriptor */
    q->file_index = uring_file_register(&q->reactor->uring, q->config.image->fd);
    q->paused &= (uint8_t)~BLKQUEUE_PAUSE_HOLD;
    parked_judge(q);
    blkqueue_unpark(q);
    blkqueue_activate(q);
    mailbox_post(q->reactor->to_control, &q->to_control, BLKQUEUE_RESUMED);
}

/* ---- the rate ---- */

static void rate_over(struct uring_op *op, int result, uint32_t cqe_flags)
{
    (void)result, (void)cqe_flags;
    struct blkqueue *q = container_of(op, struct blkqueue, rate_op);
    q->rate_posted = false;
    q->paused &= (uint8_t)~BLKQUEUE_PAUSE_RATE;
    blkqueue_activate(q);
}

bool blkqueue_rate_begin(struct blkqueue *q)
{
    uint64_t wait_ns = 0;
    if (throttle_begin(q->config.throttle, q->reactor->now_ns, &wait_ns))
        return true;
    q->paused |= BLKQUEUE_PAUSE_RATE;
    list_remove(&q->active_link);
    q->rate_wait = (struct __kernel_timespec){.tv_sec = (int64_t)(wait_ns / CLOCK_NS_PER_S),
                                              .tv_nsec = (int64_t)(wait_ns % CLOCK_NS_PER_S)};
    q->rate_op.fn = rate_over;
    q->rate_posted = true;
    io_uring_prep_timeout(uring_sqe(&q->reactor->uring, &q->rate_op), &q->rate_wait, 0, 0);
    blkcounter_add(&q->stats.throttled, 1);
    return false;
}

/* Zeroes count: where the storage cannot make them they are written. */
static uint64_t rate_sectors(const struct blkqueue *q)
{
    return blkcounter_get(&q->stats.sectors_read) + blkcounter_get(&q->stats.sectors_written) +
           blkcounter_get(&q->stats.sectors_zeroed);
}

void blkqueue_rate_charge(struct blkqueue *q)
{
    uint64_t sectors = rate_sectors(q);
    throttle_charge(q->config.throttle, (sectors - q->sectors_charged) * SECTOR_BYTES);
    q->sectors_charged = sectors;
}

void blkqueue_rate_stop(struct blkqueue *q)
{
    if (q->rate_posted)
        uring_cancel(&q->reactor->uring, &q->rate_op);
}

void blkqueue_rate_changed(struct blkqueue *q)
{
    if (q->state != BLKQUEUE_RUNNING)
        return;
    q->throttled = q->config.throttle && throttle_limits(q->config.throttle);
    q->sectors_charged = rate_sectors(q);
    blkqueue_rate_stop(q);
}
