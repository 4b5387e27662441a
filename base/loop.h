/* SPDX-License-Identifier: MIT */
/* base/loop.h: the control plane's event loop: epoll, level triggered, one thread.
 *
 * A source is embedded in its owner, who keeps the descriptor; the loop borrows both until loop_remove(). A callback
 * may remove any source, its own included: the events of this round that belong to a removed source are skipped, which
 * is why the loop keeps the round's events in itself. A timer is a source over a timerfd that the loop owns. The data
 * plane has a loop of its own on io_uring (backend/blk/engine.h).
 */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

#include <sys/epoll.h>

#include "base/util.h"

#define LOOP_BATCH 32 /* events taken from the kernel at a time: unmeasured */

struct loop_source;
typedef void loop_fn(struct loop_source *source, uint32_t epoll_events);

struct loop_source {
    int fd;
    loop_fn *fn;
};

struct loop {
    int epoll_fd;
    bool quit;
    struct epoll_event round[LOOP_BATCH];
    int round_count;
};

int loop_init(struct loop *l); /* 0 or -errno */
void loop_deinit(struct loop *l);
/* `events` are EPOLLIN, EPOLLOUT …; EPOLLHUP and EPOLLERR are always reported. */
int loop_add(struct loop *l, struct loop_source *s, int fd, uint32_t events, loop_fn *fn);
int loop_modify(struct loop *l, struct loop_source *s, uint32_t events);
void loop_remove(struct loop *l, struct loop_source *s); /* harmless on a source that is in no loop and zeroed */
/* Waits at most timeout_ms (-1: for ever), dispatches one round: the number of events, or -errno. */
int loop_step(struct loop *l, int timeout_ms);
/* Steps until loop_quit(): 0 or -errno. */
int loop_run(struct loop *l);
void loop_quit(struct loop *l);

/* A timer: fires `fn` each interval_ms, first after first_ms (0: disarmed). */
int loop_timer_add(struct loop *l, struct loop_source *s, uint64_t first_ms, uint64_t interval_ms, loop_fn *fn);
int loop_timer_set(struct loop_source *s, uint64_t first_ms, uint64_t interval_ms);
void loop_timer_remove(struct loop *l, struct loop_source *s); /* closes the timerfd */
/* To be called by the timer's callback: clears the expiry, returns how many there were. */
uint64_t loop_timer_ack(struct loop_source *s);

#endif
