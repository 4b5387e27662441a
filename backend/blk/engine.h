/* SPDX-License-Identifier: MIT */
/* backend/blk/engine.h: the reactor: one thread that serves the rings of its queues, through one io_uring. A role has
 * one or several (reactors.h).
 *
 * One pass, and it is the only loop:
 *
 *   1. each active queue starts up to its budget of requests
 *   2. one system call submits all of it; completions finish requests
 *   3. each queue that has responses publishes them and notifies its guest at most once
 *   4. nothing happened in 1 and 2: spin for a while, or ask every guest for an event and sleep in the ring
 *
 * A guest's event channel, the mailbox and the platform's descriptor are awaited by the same ring, so the sleep of step
 * 4 is the one place where the thread waits, and submitting and waiting cost one call. An event makes its queue active:
 * it is polled, unarmed, until a pass finds nothing to do (NAPI).
 *
 * Polling. `interrupt` sleeps at once. `adaptive` spins first, for up to spin_us as long as that pays and else not at
 * all (base/spin.h), and only while no I/O is in flight. `poll` spins ENGINE_POLL_IDLE_NS, also while direct I/O is in
 * flight; for measuring, and for machines with processors to give away. Nothing spins while buffered I/O is in flight:
 * other threads do it, and they would wait for the processor that the spinner holds. Each ends in the sleep, never in a
 * yield, so two ends on one processor go on. A queue may ask for a mode of its own; a reactor waits as the keenest of
 * its queues wants it, as there is one place where it waits.
 *
 * The clock is read once a pass, when the kernel comes back from 2 (and after a sleep or a spin), and serves all that
 * the pass does. A request begins at the last reading before it was taken and ends at the first one after its I/O: its
 * latency is rounded up, by one pass at the most, and holds some of the time that it waited in the ring.
 *
 * The control thread owns a queue until engine_attach() and again from BLKQUEUE_DETACHED; in between it may only read
 * its stats. Nothing else is shared.
 */
#ifndef BLK_ENGINE_H
#define BLK_ENGINE_H

#include "backend/blk/blkqueue.h"

#define ENGINE_SPIN_US_DEFAULT \
    50 /* measured: 20 us give half of what spinning can; bench-poll meets its goals with 50 */
#define ENGINE_POLL_IDLE_NS (10 * CLOCK_NS_PER_MS)
/* A pass whose requests ended without the kernel (image_null.c) does not read the clock, which would be a tenth of what
 * it does; so many of them in a row do, lest the time that others find be old. */
#define ENGINE_QUICK_PASSES_MAX 16

struct engine_options {
    const char *platform_row;
    struct platform_where where;
    enum engine_poll poll;
    unsigned spin_us; /* the widest window of `adaptive` */
    /* Borrowed, outlives the engine; NULL: none. Its lock is held until the last I/O has ended. */
    struct journal *journal;
    int claim_fd;           /* likewise held; 0: none */
    struct gntmarks *marks; /* what the engines of a process share; borrowed; NULL: there is one */
};

/* From the names on the command line; NULL is the default for this machine. 0 or -EINVAL with a sentence. */
int engine_poll_parse(const char *name, unsigned spin_us, struct engine_options *out, struct err *e);

struct engine;

/* Starts the thread: 0, or -errno with a sentence when its platform connection or its ring cannot be had. */
int engine_new(const struct engine_options *options, struct engine **out, struct err *e);
/* Asks for the end, and does not wait. */
void engine_stop(struct engine *g);
/* Lets what is in flight end, answers it, gives everything back and joins the thread. Queues that are still attached
 * become the caller's to free. */
void engine_free(struct engine *g);

void engine_attach(struct engine *g, struct blkqueue *q);
void engine_detach(struct engine *g, struct blkqueue *q);
void engine_refresh(struct engine *g, struct blkqueue *q);
void engine_rest(struct engine *g, struct blkqueue *q);
/* Of an attached queue, answered by BLKQUEUE_HELD, or by what ends it. Then the control thread changes the image and
 * q->change (a copy of what is in force), and engine_resume() is answered by BLKQUEUE_RESUMED. */
void engine_hold(struct engine *g, struct blkqueue *q);
void engine_resume(struct engine *g, struct blkqueue *q);
/* What the storage failed in an attached queue (blkstop.h) is done again, or answered with its errors. */
void engine_retry(struct engine *g, struct blkqueue *q, bool give_up);
/* The throttle of an attached queue, or q->poll, has changed. */
void engine_tune(struct engine *g, struct blkqueue *q);

struct engine_event {
    struct blkqueue *queue; /* NULL: the engine itself: its platform connection is lost, nothing can be attached */
    uint32_t words; /* BLKQUEUE_ATTACHED, _HELD, _RESUMED, _FAULTED, _DETACHED: in this order, where more than one */
};
int engine_event_fd(const struct engine *g); /* readable: engine_event_next() has something */
bool engine_event_next(struct engine *g, struct engine_event *out);
/* What was wrong, after the event with no queue. */
const struct err *engine_error(const struct engine *g);

struct journal *engine_journal(const struct engine *g);

/* System calls made for submitting and waiting, and for how many sleeps; to be measured. */
struct engine_stats {
    uint64_t enters, sleeps, spins, spin_hits;
};
void engine_stats(const struct engine *g, struct engine_stats *out);

#endif
