/* SPDX-License-Identifier: MIT */
/* backend/blk/blkqueue_attach.c: a queue's way into the reactor and out of it. Every step of the attach is undone by
 * one function that looks at what is held, so a failure halfway and an orderly end take the same path (XSA-484).
 */
#include <assert.h>
#include <string.h>

#include "backend/blk/blkqueue.h"

static int queue_grant_error(struct blkqueue *q, int code, uint32_t gref, struct err *e)
{
    const char *why = code > 0 ? grant_error_text(code) : strerror(-code);
    if (code > 0)
        blkcounter_add(&q->stats.bad_grants[code], 1);
    return err_set(e, code, "ring page: grant %u of domain %u cannot be mapped: %s", gref, q->config.front_domid, why);
}

static int queue_map_ring(struct blkqueue *q, struct err *e)
{
    unsigned failed = 0, n = q->config.ring_pages;
    int r = gntmap_map_many(q->map, q->config.ring_ref, n, true, q->page, &failed);
    if (r)
        return queue_grant_error(q, r, q->config.ring_ref[failed], e);
    q->pages_mapped = n;
    r = grant_window_open(&q->window, q->page, n, e);
    if (r)
        return err_prefix(e, r, "ring");
    q->instance = q->page[0].extent->instance;
    ring_back_init(&q->ring, q->window.address, q->window.bytes, q->config.protocol->slot_bytes, 0);
    assert(q->ring.ring.entries == q->request_count);
    uint32_t waiting;
    if (ring_back_pending(&q->ring, &waiting))
        return err_set(e, SRING_E_OVERRUN, "the ring is not a fresh one: its request index is beyond its %u entries",
                       q->request_count);
    return 0;
}

int blkqueue_dma_setup(struct blkqueue *q, const struct dma_strategy *dma, struct dma **out, struct err *e)
{
    const struct dma_setup setup = {.map = q->map,
                                    .keep = q->keep,
                                    .frames = q->frames,
                                    .host = &q->reactor->uring.host,
                                    .iommu = q->config.iommu,
                                    .device = q->config.devid,
                                    .space = q->config.space,
                                    .requests_max = q->small.count,
                                    .large_max = q->large.count};
    return dma->setup(&setup, out, e);
}

static int queue_acquire(struct blkqueue *q, struct err *e)
{
    struct reactor *r = q->reactor;
    const struct blkqueue_config *c = &q->config;
    int rc = platform_gntmap_get(r->platform, c->front_domid, &q->map, &q->frames, e);
    if (rc)
        return rc;
    gntmap_share(q->map, r->marks);
    rc = queue_map_ring(q, e);
    if (!rc && c->take_over)
        gntmap_take_over(q->map);
    q->misses_before = gntmap_misses(q->map);
    if (!rc)
        rc = platform_evtchn_bind_interdomain(r->platform, c->front_domid, c->port, &q->channel, e);
    if (rc)
        return rc;
    if (c->persistent && gntkeep_new(q->map, BLKQUEUE_KEEP_SLOT * q->request_count, &q->keep))
        return err_set(e, -ENOMEM, "out of memory for the grants that stay mapped");
    rc = blkqueue_dma_setup(q, c->dma, &q->dma, e);
    if (!rc)
        rc = blktell_route(q, c->dma, e);
    if (rc)
        return rc;
    q->file_index = uring_file_register(&r->uring, c->image->fd);
    return 0;
}

static bool queue_idle(const struct blkqueue *q)
{
    return blkpool_idle(&q->small) && blkpool_idle(&q->large) && !q->parked;
}

static void queue_give_back(struct blkqueue *q)
{
    struct reactor *r = q->reactor;
    assert(queue_idle(q) && !q->event_posted && !q->rate_posted && blkbus_idle(q->bus));
    uring_file_unregister(&r->uring, q->file_index);
    q->file_index = -1;
    if (q->dma)
        q->config.dma->teardown(take_ptr(q->dma));
    blktell_unroute(q);
    gntkeep_free(take_ptr(q->keep));
    if (q->channel.wait_fd >= 0)
        platform_evtchn_close(r->platform, &q->channel);
    grant_window_close(&q->window);
    while (q->pages_mapped > 0)
        gntmap_unmap(q->map, &q->page[--q->pages_mapped]);
    if (q->map)
        platform_gntmap_put(r->platform, q->config.front_domid);
    q->map = NULL;
    q->frames = NULL;
    q->state = BLKQUEUE_RELEASED;
}

int blkqueue_attach(struct blkqueue *q, struct reactor *r, struct err *e)
{
    assert(q->state == BLKQUEUE_NEW);
    q->reactor = r;
    int rc = queue_acquire(q, e);
    if (rc) {
        queue_give_back(q);
        return rc;
    }
    blkcounter_add(&q->stats.inherited, journal_connect(&q->journal, q->instance, q->request_count));
    q->state = BLKQUEUE_RUNNING;
    q->enters_before = r->uring.enters;
    q->registrations_before = r->uring.registrations;
    blkqueue_rate_changed(q);
    blkqueue_listen(q);
    return 0;
}

/* Stops taking requests and listening. */
static void queue_stop(struct blkqueue *q, enum blkqueue_state state)
{
    q->state = state;
    list_remove(&q->active_link);
    if (q->event_posted)
        uring_cancel(&q->reactor->uring, &q->event_op);
    blkqueue_rate_stop(q);
    blkbus_stop(q);
}

void blkqueue_break(struct blkqueue *q, enum blkqueue_fault fault)
{
    if (q->state != BLKQUEUE_RUNNING)
        return;
    q->fault = fault;
    blkcounter_add(&q->stats.faults[fault], 1);
    q->broken = true;
    q->parked = false; /* nobody is there to be answered */
    queue_stop(q, BLKQUEUE_BROKEN);
    mailbox_post(q->reactor->to_control, &q->to_control, BLKQUEUE_FAULTED);
}

void blkqueue_detach(struct blkqueue *q)
{
    if (q->state != BLKQUEUE_RUNNING && q->state != BLKQUEUE_BROKEN)
        return;
    if (q->state == BLKQUEUE_RUNNING)
        queue_stop(q, BLKQUEUE_DRAINING);
    q->state = BLKQUEUE_DRAINING;
    q->reactor->draining++;
    q->paused = 0;
    if (!q->stop.abandon)
        blkstop_give_up(q);
    blkqueue_unpark(q); /* what was parked before it was held */
}

bool blkqueue_drained(const struct blkqueue *q)
{
    return q->state == BLKQUEUE_DRAINING && queue_idle(q) && !q->event_posted && !q->rate_posted &&
           list_empty(&q->dirty_link) && blkbus_idle(q->bus);
}

void blkqueue_release(struct blkqueue *q)
{
    assert(blkqueue_drained(q));
    blkqueue_refresh(q);
    queue_give_back(q);
    q->reactor->draining--;
    mailbox_post(q->reactor->to_control, &q->to_control, BLKQUEUE_DETACHED);
}

/* What its guest has not used for a while goes back. */
static void keep_refresh(struct blkqueue *q)
{
    if (!q->keep)
        return;
    gntkeep_tick(q->keep, q->reactor->now_ns / CLOCK_NS_PER_S);
    struct gntkeep_stats s = gntkeep_stats(q->keep);
    blkcounter_set(&q->stats.persistent_hits, s.hits);
    blkcounter_set(&q->stats.persistent_evictions, s.evictions);
    blkcounter_set(&q->stats.persistent_expiries, s.expiries);
    blkcounter_set(&q->stats.persistent_pages, gntkeep_pages(q->keep));
}

void blkqueue_refresh(struct blkqueue *q)
{
    keep_refresh(q);
    struct dma_stats s;
    if (!q->dma)
        return;
    if (q->config.dma->turn)
        q->config.dma->turn(q->dma);
    q->config.dma->describe(q->dma, &s);
    blkcounter_set(&q->stats.reactor_calls, q->reactor->uring.enters - q->enters_before);
    blkcounter_set(&q->stats.registrations, q->reactor->uring.registrations - q->registrations_before);
    blkcounter_set(&q->stats.dma_maps, s.maps);
    blkcounter_set(&q->stats.dma_copied_bytes, s.bytes_copied);
    blkcounter_set(&q->stats.dma_over_share, s.over_share);
    blkcounter_set(&q->stats.pinned_bytes, s.registered_bytes);
    blkcounter_set(&q->stats.dma_plain, !s.fixed_buffers);
    blkbus_refresh(q, &s);
}

void blkqueue_rest(struct blkqueue *q)
{
    if (q->state != BLKQUEUE_RUNNING || !queue_idle(q))
        return;
    blkpool_rest(&q->small);
    blkpool_rest(&q->large);
    if (q->config.dma->rest)
        q->config.dma->rest(q->dma);
    blkqueue_refresh(q);
}
