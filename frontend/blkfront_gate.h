/* SPDX-License-Identifier: MIT */
/* frontend/blkfront_gate.h: who may touch a queue; private to frontend/.
 *
 * A queue has one user at a time, and now and then the control path, which needs all queues still (a reconnect gives
 * each a fresh ring). An uncontended lock costs 15 to 20 ns, as much as a request; so the gate is a lock that is
 * biased towards the thread that used it last, and then costs three plain memory accesses:
 *
 *   user     lease = gate's lease, and it is mine · lease busy = 1 · is it still the gate's lease? else busy = 0 and
 *            the slow way
 *   control  gate's lease = none · membarrier() · wait until lease busy = 0
 *
 * The fence that either side needs between its store and its load is a compiler's for the user; membarrier() makes it a
 * real one for all threads at the moment that the control path needs it. Acquire and release on `busy` and `lease`
 * order the rest.
 *
 * Another thread that comes (asynchronous calls may change their thread, synchronous ones come from everywhere) takes
 * the lease over in the control path's way. A lease is never used again, so a thread that wakes up between its two
 * looks writes to one that nobody watches. After GATE_LEASES such changes, and at once where a synchronous call meets
 * another thread's lease (both may be inside at a time), the gate is `shared`: a plain mutex from then on. It is that
 * from the beginning where the kernel has no membarrier(). A thread that leaves in the middle of a call, to sleep or
 * for the control path, is `away`: whoever comes meanwhile makes the gate shared, too, as what wakes sleepers is the
 * mutex's business.
 *
 * `control` is the disk's mutex. Whoever is inside a gate does not take it: leave first.
 */
#ifndef FRONTEND_BLKFRONT_GATE_H
#define FRONTEND_BLKFRONT_GATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#define GATE_LEASES 8

struct gate_lease {
    _Alignas(64) _Atomic(void *) thread;
    _Atomic int busy;
};

struct vbd_gate {
    _Atomic(struct gate_lease *) lease; /* of `leases`, or the constant gate_closed or gate_shared */
    struct gate_lease *inside;          /* of who is in; NULL: the mutex is held */
    pthread_mutex_t *control;
    pthread_mutex_t lock;     /* once shared */
    struct gate_lease *saved; /* while closed */
    unsigned used;            /* of the leases */
    unsigned away;            /* threads that left in the middle of a call */
    struct gate_lease leases[GATE_LEASES];
};

extern struct gate_lease gate_closed, gate_shared;

/* Is membarrier() to be had? To be asked once for each disk, before its gates are made. */
bool gate_may_be_biased(void);
/* The caller's thread has the lease, or it is shared. */
void gate_init(struct vbd_gate *g, pthread_mutex_t *control, bool biased);
void gate_deinit(struct vbd_gate *g);

void gate_enter_slowly(struct vbd_gate *g);
/* As gate_enter(), for a thread that may meet another one's lease in use: then the gate becomes shared. */
void gate_enter_shared(struct vbd_gate *g);
/* For who holds `control`: closes them all and waits until nobody is inside; and opens them. */
void gates_close(struct vbd_gate *const *gates, unsigned count);
void gates_open(struct vbd_gate *const *gates, unsigned count);

static inline void *gate_thread(void)
{
    return __builtin_thread_pointer();
}

static inline bool gate_is_shared(const struct vbd_gate *g)
{
    return atomic_load_explicit(&g->lease, memory_order_relaxed) == &gate_shared;
}

static inline void gate_enter(struct vbd_gate *g)
{
    struct gate_lease *mine = atomic_load_explicit(&g->lease, memory_order_acquire);
    if (__builtin_expect(atomic_load_explicit(&mine->thread, memory_order_relaxed) == gate_thread(), 1)) {
        atomic_store_explicit(&mine->busy, 1, memory_order_relaxed);
        atomic_signal_fence(memory_order_seq_cst);
        if (__builtin_expect(atomic_load_explicit(&g->lease, memory_order_acquire) == mine, 1)) {
            g->inside = mine;
            return;
        }
        atomic_store_explicit(&mine->busy, 0, memory_order_release);
    }
    gate_enter_slowly(g);
}

static inline void gate_leave(struct vbd_gate *g)
{
    struct gate_lease *mine = g->inside;
    if (__builtin_expect(mine != NULL, 1))
        atomic_store_explicit(&mine->busy, 0, memory_order_release);
    else
        pthread_mutex_unlock(&g->lock);
}

/* In the middle of a call. */
static inline void gate_leave_for_now(struct vbd_gate *g)
{
    g->away++;
    gate_leave(g);
}

static inline void gate_return(struct vbd_gate *g)
{
    gate_enter(g);
    g->away--;
}

#endif
