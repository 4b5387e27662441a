/* SPDX-License-Identifier: MIT */
#include "backend/blk/blkqueue.h"

#include <assert.h>

#include "backend/blk/blkrequest.h"

static uint32_t config_entries(const struct blkqueue_config *c)
{
    return ring_entries((size_t)c->ring_pages * PAGE_BYTES, c->protocol->slot_bytes);
}

/* A guest gets no more of a reactor by asking for more queues. */
static void budget_init(struct blkqueue *q)
{
    const uint32_t share = MAX(q->config.share, 1u);
    q->budget[false] = MAX(BLKQUEUE_BUDGET / share, BLKQUEUE_BUDGET_MIN);
    q->budget[true] = MAX(BLKQUEUE_BUDGET_POLLED / share, BLKQUEUE_BUDGET_MIN);
    q->sectors_max[false] = BLKQUEUE_BYTES / SECTOR_BYTES / share;
    q->sectors_max[true] = BLKQUEUE_BYTES_POLLED / SECTOR_BYTES / share;
}

int blkqueue_new(const struct blkqueue_config *config, struct blkqueue **out, struct err *e)
{
    assert(config->ring_pages > 0 && config->ring_pages <= BLKQUEUE_RING_PAGES_MAX);
    assert(config->protocol->slot_bytes <= BLKQUEUE_SLOT_BYTES_MAX);
    struct blkqueue *q = calloc(1, sizeof(*q));
    if (!q)
        return err_set(e, -ENOMEM, "out of memory");
    q->config = *config;
    q->sync_fd = q->companion_fd = -1;
    q->poll = (uint8_t)config->poll;
    budget_init(q);
    q->request_count = config_entries(config);
    assert(q->request_count > 0);
    uint32_t large = config->limits.indirect_segments_max > DMA_SEGMENTS_SMALL ? BLKQUEUE_LARGE_MAX : 0;
    if (blkpool_init(&q->small, q->request_count, DMA_SEGMENTS_SMALL) ||
        blkpool_init(&q->large, large, DMA_SEGMENTS_MAX)) {
        blkqueue_free(q);
        return err_set(e, -ENOMEM, "out of memory for %u requests", q->request_count);
    }
    if (config->space && blkbus_new(q, config->space, config->iommu_deferred, &q->bus)) {
        blkqueue_free(q);
        return err_set(e, -ENOMEM, "out of memory for bus addresses");
    }
    if (journal_claim(config->journal, config->front_domid, config->devid, config->index, &q->journal)) {
        blkqueue_free(q);
        return err_set(e, -ENOMEM, "out of memory");
    }
    assert(q->small.count + q->large.count <= JOURNAL_ROWS);
    q->small.rows = q->journal.area->row;
    q->large.rows = q->small.rows + q->small.count;
    if (config->image->realigns && blkalign_new(q, &q->align)) {
        blkqueue_free(q);
        return err_set(e, -ENOMEM, "out of memory for what the storage cannot do directly");
    }
    q->sync_fd = image_sync_open(config->image);
    q->companion_fd = config->image->format->companion_fd ? config->image->format->companion_fd(config->image) : -1;
    q->sqe_flags = config->image->punts ? IOSQE_ASYNC : 0;
    q->threaded = config->image->punts || !config->image->direct_io;
    q->recorded = config->image->format->record;
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
    blkalign_free(q->align);
    blkbus_free(q->bus);
    blkpool_deinit(&q->small);
    blkpool_deinit(&q->large);
    journal_release(q->config.journal, &q->journal);
    image_sync_close(q->config.image, q->sync_fd);
    free(q);
}

const char *blkqueue_fault_text(enum blkqueue_fault fault)
{
    switch (fault) {
    case BLKQUEUE_F_OVERRUN: return "the frontend's ring index is further ahead than the ring has entries";
    case BLKQUEUE_F_MISSES: return "the frontend sent too many grant references that name nothing";
    case BLKQUEUE_F_GONE: return "the frontend's process is gone";
    case BLKQUEUE_F_SLOW: return "the frontend's event channel has so many waiters that to notify it takes too long";
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

void *blkqueue_answer(struct blkqueue *q, uint64_t id, uint8_t operation_raw, int16_t status)
{
    if (status != BLKIF_RSP_OKAY)
        blkcounter_add(&q->stats.errors, 1);
    if (q->broken)
        return NULL;
    void *slot = ring_back_slot(&q->ring);
    blkreq_encode_response(q->config.protocol, id, operation_raw, status, slot);
    if (list_empty(&q->dirty_link))
        list_append(&q->reactor->dirty, &q->dirty_link);
    return slot;
}

void blkqueue_refuse(struct blkqueue *q, const struct blkreq *req, int code)
{
    blkcounter_add(&q->stats.bad_requests[code], 1);
    blkqueue_answer(q, req->id, req->operation_raw,
                    code == BLKREQ_E_OPERATION ? BLKIF_RSP_EOPNOTSUPP : BLKIF_RSP_ERROR);
}

/* Copies the segments out of the guest's pages, once: 0, GRANT_E_* or -errno. */
static int indirect_fetch(struct blkqueue *q, const struct blkreq *req)
{
    unsigned char *to = (unsigned char *)q->reactor->indirect;
    size_t left = req->segment_count * sizeof(q->reactor->indirect[0]);
    for (unsigned i = 0; i < req->indirect_pages; i++) {
        uint32_t bytes = (uint32_t)MIN(left, (size_t)PAGE_BYTES);
        int code = gntmap_copy_keeping(q->map, q->keep, req->indirect_gref[i], 0, to, bytes, false);
        if (code)
            return code;
        to += bytes;
        left -= bytes;
    }
    return 0;
}

static void indirect_begin(struct blkqueue *q, struct blkreq *req)
{
    int code = indirect_fetch(q, req);
    if (code) {
        blkrequest_count_get(q, code);
        blkqueue_answer(q, req->id, req->operation_raw, BLKIF_RSP_ERROR);
        return;
    }
    code = blkreq_check_indirect(req, q->reactor->indirect, &q->config.limits, q->reactor->segment);
    if (code)
        blkqueue_refuse(q, req, code);
    else
        blkrequest_start(q, req, q->reactor->segment);
}

bool blkqueue_all_idle(const struct blkqueue *q)
{
    return blkpool_idle(&q->small) && blkpool_idle(&q->large);
}

static bool request_may_begin(const struct blkqueue *q, const struct blkreq *req)
{
    return blkrequest_is_barrier(req) ? blkqueue_all_idle(q) : !blkrequest_is_large(req) || q->large.free_count;
}

static void request_begin(struct blkqueue *q, struct blkreq *req)
{
    q->barrier = blkrequest_is_barrier(req);
    if (req->indirect_pages)
        indirect_begin(q, req);
    else if (__builtin_expect(blkreq_is_bus(req->operation), 0))
        blkbus_start(q, req);
    else
        blkrequest_start(q, req, req->segment);
}

/* Copies the next request out: what of it means something is decided by what was copied. */
static void slot_take(struct blkqueue *q, unsigned char *slot)
{
    ring_back_peek(&q->ring, slot, 0, BLKREQ_HEAD_BYTES);
    uint32_t used_bytes = blk_protocol_used_bytes(q->config.protocol, slot);
    if (used_bytes > BLKREQ_HEAD_BYTES)
        ring_back_peek(&q->ring, slot, BLKREQ_HEAD_BYTES, used_bytes);
    ring_back_consume(&q->ring);
}

/* The sectors that it moves, 0 where it was refused. */
static uint64_t request_take(struct blkqueue *q)
{
    unsigned char slot[BLKQUEUE_SLOT_BYTES_MAX];
    struct blkreq req;
    slot_take(q, slot);
    int code = blkreq_decode(q->config.protocol, slot, &q->config.limits, &req);
    if (code) {
        blkqueue_refuse(q, &req, code);
        return 0;
    }
    if (request_may_begin(q, &req)) {
        request_begin(q, &req);
    } else {
        q->waiting = req;
        q->parked = true;
    }
    return req.sector_count;
}

void blkqueue_unpark(struct blkqueue *q)
{
    const uint8_t hold = q->paused & (BLKQUEUE_PAUSE_HOLD | BLKQUEUE_PAUSE_STOP);
    if (!q->parked && !q->barrier && !hold)
        return;
    if (hold & BLKQUEUE_PAUSE_STOP && !blkstop_over(q))
        return;
    if (hold & BLKQUEUE_PAUSE_HOLD) {
        blkqueue_held_check(q);
        return;
    }
    if (q->barrier && !blkqueue_all_idle(q))
        return;
    q->barrier = false;
    if (q->parked && request_may_begin(q, &q->waiting)) {
        q->parked = false;
        request_begin(q, &q->waiting);
    }
    if (!q->parked)
        blkqueue_activate(q);
}

/* As many as its rate allows, into *n, and nothing of the budget is left. */
static uint32_t take_throttled(struct blkqueue *q, uint32_t budget, uint32_t *n)
{
    for (; *n < budget && !q->parked && !q->barrier && blkqueue_rate_begin(q); ++*n) {
        request_take(q);
        blkqueue_rate_charge(q);
    }
    return 0;
}

/* The first slots, to be read and then written: asked for as what they are to be used for, they come once. */
static inline void slots_fetch(const struct blkqueue *q, uint32_t waiting)
{
    for (uint32_t ahead = 0; ahead < BLKQUEUE_AHEAD && ahead < waiting; ahead++)
        ring_back_prefetch(&q->ring, ahead);
}

unsigned blkqueue_take(struct blkqueue *q)
{
    uint32_t waiting, n = 0;
    assert(q->state == BLKQUEUE_RUNNING);
    if (q->parked || q->barrier || q->paused) {
        list_remove(&q->active_link);
        return 0;
    }
    if (ring_back_pending(&q->ring, &waiting)) {
        blkqueue_break(q, BLKQUEUE_F_OVERRUN);
        return 0;
    }
    uint32_t budget = MIN(waiting, q->budget[q->peer_polls]);
    slots_fetch(q, waiting);
    if (q->throttled)
        budget = take_throttled(q, budget, &n);
    const uint64_t sectors_max = q->sectors_max[q->peer_polls];
    for (uint64_t sectors = 0; n < budget && sectors < sectors_max && !q->parked && !q->barrier; n++) {
        if (n + BLKQUEUE_AHEAD < waiting)
            ring_back_prefetch(&q->ring, BLKQUEUE_AHEAD);
        blkpool_prefetch(&q->small);
        sectors += request_take(q);
    }
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
    uint32_t waiting = 0;
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
    blktell(q);
}

bool blkqueue_arm(struct blkqueue *q)
{
    if (ring_back_arm(&q->ring) && ++q->false_arms <= BLKQUEUE_FALSE_ARMS_MAX)
        return true;
    q->false_arms = 0;
    list_remove(&q->active_link);
    if (q->config.dma->turn)
        q->config.dma->turn(q->dma);
    return false;
}
