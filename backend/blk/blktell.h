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
 * The reactor's thread only.
 */
#ifndef BLK_BLKTELL_H
#define BLK_BLKTELL_H

#include <stdbool.h>

#include "base/clock.h"

#define BLKTELL_SLOW_NS    CLOCK_NS_PER_MS
#define BLKTELL_SLOW_MAX   16
#define BLKTELL_WATCH_NS   CLOCK_NS_PER_S
#define BLKTELL_FORGIVE_NS CLOCK_NS_PER_S

struct blkqueue;

struct blktell {
    uint64_t watched_until_ns; /* 0: not watched */
    uint64_t forgiven_ns;      /* when one was forgiven last, or could have been */
    unsigned slow;             /* not forgiven */
};

/* Notifies the guest; may break the queue. */
void blktell(struct blkqueue *q);

#endif
