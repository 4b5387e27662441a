/* SPDX-License-Identifier: MIT */
#include "backend/blk/blktell.h"

#include <assert.h>
#include <time.h>

#include "backend/blk/blkqueue.h"
#include "base/ticker.h"

/* ---- which way ---- */

void blktell_unroute(struct blkqueue *q)
{
    if (q->tell.routed)
        intremap_release(q->config.remap, q->tell.handle);
    q->tell.routed = false;
}

int blktell_route(struct blkqueue *q, const struct dma_strategy *dma, struct err *e)
{
    struct blktell *t = &q->tell;
    const struct blkqueue_config *c = &q->config;
    if (dma != &dma_iommu || !c->remap) {
        blktell_unroute(q);
        return 0;
    }
    if (t->routed)
        return 0;
    t->source = (struct intremap_source){.device = c->devid, .domid = c->front_domid};
    if (intremap_alloc(c->remap, &t->source, 1, &t->handle))
        return err_set(e, -ENOMEM, "no interrupt vector is free for another queue under dma=iommu");
    const struct intremap_target target = {
        .domid = c->front_domid, .port = c->port, .vector = c->index, .owner = &q->channel};
    int r = intremap_assign(c->remap, t->handle, 0, &target);
    assert(r == 0); /* it is new, and ours */
    t->routed = true;
    return 0;
}

static void tell_routed(struct blkqueue *q)
{
    struct intremap *remap = q->config.remap;
    const struct intremap_target *target = intremap_begin(remap, &q->tell.source, q->tell.handle, 0);
    if (!target)
        return;
    (void)evtchn_notify(target->owner);
    intremap_end(remap, target);
}

/* A peer that cannot be told is one that is gone. */
static inline void tell(struct blkqueue *q)
{
    if (__builtin_expect(q->tell.routed, 0))
        tell_routed(q);
    else
        (void)evtchn_notify(&q->channel);
}

/* ---- what it costs ---- */

static uint64_t thread_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * CLOCK_NS_PER_S + (uint64_t)t.tv_nsec;
}

static void slow_count(struct blkqueue *q, uint64_t now_ns)
{
    struct blktell *t = &q->tell;
    uint64_t forgiven = (now_ns - t->forgiven_ns) / BLKTELL_FORGIVE_NS;
    t->slow -= (unsigned)MIN(forgiven, (uint64_t)t->slow);
    t->forgiven_ns = t->slow ? t->forgiven_ns + forgiven * BLKTELL_FORGIVE_NS : now_ns;
    blkcounter_add(&q->stats.notifications_slow, 1);
    if (++t->slow >= BLKTELL_SLOW_MAX)
        blkqueue_break(q, BLKQUEUE_F_SLOW);
}

static __attribute__((noinline)) void tell_watched(struct blkqueue *q)
{
    struct blktell *t = &q->tell;
    uint64_t begin_ns = thread_now_ns();
    tell(q);
    uint64_t took_ns = thread_now_ns() - begin_ns, now_ns = clock_now_ns();
    if (took_ns >= BLKTELL_SLOW_NS) {
        t->watched_until_ns = now_ns + BLKTELL_WATCH_NS;
        slow_count(q, now_ns);
    } else if (now_ns > t->watched_until_ns) {
        t->watched_until_ns = 0;
    }
}

void blktell(struct blkqueue *q)
{
    if (__builtin_expect(q->tell.watched_until_ns != 0, 0)) {
        tell_watched(q);
        return;
    }
    struct ticker *ticker = q->reactor->ticker;
    uint64_t begin_ns = ticker_now_ns(ticker);
    tell(q);
    if (__builtin_expect(ticker_now_ns(ticker) - begin_ns >= BLKTELL_SLOW_NS, 0))
        q->tell.watched_until_ns = clock_now_ns() + BLKTELL_WATCH_NS;
}
