/* SPDX-License-Identifier: MIT */
/* backend/blk/blkstats.h: what one queue counts. The reactor is the only writer, anybody may read at any time: relaxed
 * atomics, so a reader sees each counter whole and none in step with another. Counters never go back.
 */
#ifndef BLK_BLKSTATS_H
#define BLK_BLKSTATS_H

#include <stdatomic.h>

#include "grant/dma.h"
#include "ring/blkreq.h"

typedef _Atomic uint64_t blkcounter;

struct blkstats {
    blkcounter requests; /* taken from the ring, bad ones included */
    blkcounter reads, writes, flushes;
    blkcounter syncs; /* fdatasync()s for these flushes */
    blkcounter discards;
    blkcounter sectors_read, sectors_written, sectors_discarded; /* of 512 bytes, asked for */
    blkcounter errors;                                           /* answered with an error, of whatever kind */
    blkcounter bad_requests[BLKREQ_E_COUNT_];                    /* by code of ring/blkreq.h */
    blkcounter bad_grants[GRANT_E_COUNT_];                       /* by code of grant/gntmap.h */
    blkcounter io_errors;                                        /* the storage's, or ours */
    blkcounter last_io_errno;                                    /* positive */
    blkcounter batches;                                          /* times that responses were published */
    blkcounter notifications;                                    /* sent */
    blkcounter events;                                           /* received */
    blkcounter pauses;                                           /* of a peer that sent events without cause */
    blkcounter dma_copied_bytes, dma_maps, dma_registered_bytes, dma_plain; /* as of the last refresh */
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

/* One line of `name=number` words for people and tests, in a fixed order. */
void blkstats_print(const struct blkstats *s, char *out, size_t size);
/* The last kind of error a guest caused since `seen` (its own copies of counters, updated): a sentence, or NULL. */
struct blkstats_seen {
    uint64_t bad_requests[BLKREQ_E_COUNT_], bad_grants[GRANT_E_COUNT_], io_errors;
};
const char *blkstats_news(const struct blkstats *s, struct blkstats_seen *seen, uint64_t *count);

#endif
