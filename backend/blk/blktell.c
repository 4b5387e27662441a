/* SPDX-License-Identifier: MIT */
#include "backend/blk/blktell.h"

#include <time.h>

#include "backend/blk/blkqueue.h"
#include "base/ticker.h"

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
    (void)evtchn_notify(&q->channel);
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
    (void)evtchn_notify(&q->channel); /* a peer that cannot be told is one that is gone */
    if (__builtin_expect(ticker_now_ns(ticker) - begin_ns >= BLKTELL_SLOW_NS, 0))
        q->tell.watched_until_ns = clock_now_ns() + BLKTELL_WATCH_NS;
}
