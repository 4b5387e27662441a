/* SPDX-License-Identifier: MIT */
/* backend/blk/blktell.h: telling a guest, and what that may cost.
 *
 * To notify is a write(2) that wakes all who wait on the guest's end of the channel, and a guest may have as many wait
 * there as it likes (200,000 polls: 27 ms measured), on the time of the thread that serves its neighbours. So each
 * notification is timed. One that took BLKTELL_SLOW_NS on the clock proves nothing: the thread may have been put off,
 * often by the very guest that it woke. From then on, for BLKTELL_WATCH_NS since the last such one, it is processor
 * time that is measured, at two system calls a notification. One that took BLKTELL_SLOW_NS of that is the guest's
 * doing, and counted; BLKTELL_SLOW_MAX of them, of which one is forgiven each BLKTELL_FORGIVE_NS, are a fault. A guest
 * that stays below that has one slow notification a second; one that was faulted has to connect anew, with new waiters.
 *
 * Under the `iommu` strategy the disk is a device behind the unit, and what it may raise is an entry of the unit's
 * interrupt table (grant/intremap.h): the queue has one vector, assigned to its channel, and tells the guest through
 * that. A vector that is not assigned tells nobody, and is a fault in the unit's log.
 *
 * The reactor's thread only.
 */
#ifndef BLK_BLKTELL_H
#define BLK_BLKTELL_H

#include <stdbool.h>

#include "base/clock.h"
#include "grant/intremap.h"

#define BLKTELL_SLOW_NS    CLOCK_NS_PER_MS
#define BLKTELL_SLOW_MAX   16
#define BLKTELL_WATCH_NS   CLOCK_NS_PER_S
#define BLKTELL_FORGIVE_NS CLOCK_NS_PER_S

struct blkqueue;
struct dma_strategy;

struct blktell {
    uint64_t watched_until_ns; /* 0: not watched */
    uint64_t forgiven_ns;      /* when one was forgiven last, or could have been */
    unsigned slow;             /* not forgiven */
    bool routed;               /* by the interrupt table, as … */
    struct intremap_source source;
    uint32_t handle; /* … its vector 0 */
};

/* As that strategy has it: by the interrupt table, where there is one, or straight. 0, -ENOMEM with a sentence: no
 * vector is free, and all is as it was. */
int blktell_route(struct blkqueue *q, const struct dma_strategy *dma, struct err *e);
void blktell_unroute(struct blkqueue *q); /* one that is not routed is fine */

/* Notifies the guest; may break the queue. */
void blktell(struct blkqueue *q);

#endif
