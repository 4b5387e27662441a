/* SPDX-License-Identifier: MIT */
/* backend/blk/blkstats.h: what one queue counts. The reactor is the only writer, anybody may read at any time: relaxed
 * atomics, so a reader sees each counter whole and none in step with another, and costs the writer a cache miss at the
 * most. Counters never go back.
 *
 * The numbers are the rows of xenbus/stats_blk_list.h, which says what each counts. Times are taken from the reactor's
 * clock, read once a pass (engine.h).
 */
#ifndef BLK_BLKSTATS_H
#define BLK_BLKSTATS_H

#include <errno.h>
#include <stdatomic.h>

#include "grant/gntmap.h"
#include "ring/blkreq.h"
#include "xenbus/stats_blk.h"

typedef _Atomic uint64_t blkcounter;

/* What closes a device. */
enum blkqueue_fault {
    BLKQUEUE_F_NONE,
    BLKQUEUE_F_OVERRUN, /* a ring index that cannot be */
    BLKQUEUE_F_MISSES,  /* too many unknown grant references */
    BLKQUEUE_F_GONE,    /* the guest's process is */
    BLKQUEUE_F_SLOW,    /* notifying it takes too long (blktell.h) */
    BLKQUEUE_F_COUNT_
};

struct blklatency {
    blkcounter sum_ns;
    blkcounter bucket[LOGHIST_BUCKETS];
};

struct blkstats {
#define COUNTER(name, help) blkcounter name;
#define GAUGE(name, help)   blkcounter name;
#include "xenbus/stats_blk_list.h"
#undef COUNTER
#undef GAUGE
    blkcounter batch[STATS_BLK_BATCHES];
    struct blklatency latency[STATS_BLK_OPS];
    blkcounter bad_requests[BLKREQ_E_COUNT_]; /* by code of ring/blkreq.h */
    blkcounter bad_grants[GRANT_E_COUNT_];    /* by code of grant/gntmap.h */
    blkcounter io_errors;                     /* the storage's, or ours */
    blkcounter io_full;                       /* of these: there was no room */
    blkcounter faults[BLKQUEUE_F_COUNT_];
};

static inline uint64_t blkcounter_get(const blkcounter *c)
{
    return atomic_load_explicit(c, memory_order_relaxed);
}

static inline void blkcounter_set(blkcounter *c, uint64_t v)
{
    atomic_store_explicit(c, v, memory_order_relaxed);
}

/* One writer: no locked instruction. */
static inline void blkcounter_add(blkcounter *c, uint64_t n)
{
    blkcounter_set(c, blkcounter_get(c) + n);
}

static inline void blklatency_add(struct blklatency *l, uint64_t ns)
{
    blkcounter_add(&l->sum_ns, ns);
    blkcounter_add(&l->bucket[loghist_bucket(ns)], 1);
}

/* Counts an errno of the storage's. */
static inline void blkstats_io_error(struct blkstats *s, int error)
{
    blkcounter_add(&s->io_errors, 1);
    if (error == ENOSPC || error == EDQUOT || error == EFBIG)
        blkcounter_add(&s->io_full, 1);
    blkcounter_set(&s->last_io_errno, (uint64_t)error);
}

/* All of it, errors with their names. Complete, but for in_flight and connects, which are the device's. */
void blkstats_read(const struct blkstats *s, struct stats_blk *out);
/* The last kind of error a guest caused since `seen` (its own copies of counters, updated): a sentence, or NULL. */
struct blkstats_seen {
    uint64_t bad_requests[BLKREQ_E_COUNT_], bad_grants[GRANT_E_COUNT_], io_errors;
};
const char *blkstats_news(const struct blkstats *s, struct blkstats_seen *seen, uint64_t *count);

#endif
