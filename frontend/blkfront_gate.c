/* SPDX-License-Identifier: MIT */
#include "frontend/blkfront_gate.h"

#include <assert.h>
#include <sched.h>
#include <time.h>

#include "base/membarrier.h"

#define GATE_YIELDS 64    /* before a waiter sleeps between its looks */
#define GATE_NAP_NS 20000 /* unmeasured: who is inside leaves within microseconds, unless it lost its processor */

/* No thread has either. */
struct gate_lease gate_closed, gate_shared;

bool gate_may_be_biased(void)
{
    return membarrier_register();
}

void gate_init(struct vbd_gate *g, pthread_mutex_t *control, bool biased)
{
    g->control = control;
    pthread_mutex_init(&g->lock, NULL);
    atomic_store(&g->leases[0].thread, gate_thread());
    g->used = 1;
    atomic_store(&g->lease, biased ? &g->leases[0] : &gate_shared);
}

void gate_deinit(struct vbd_gate *g)
{
    pthread_mutex_destroy(&g->lock);
}

static void gate_nap(unsigned *looks)
{
    if (++*looks < GATE_YIELDS)
        sched_yield();
    else
        nanosleep(&(struct timespec){.tv_nsec = GATE_NAP_NS}, NULL);
}

static void close_begin(struct vbd_gate *g)
{
    g->saved = atomic_load_explicit(&g->lease, memory_order_relaxed);
    assert(g->saved != &gate_closed);
    if (g->saved != &gate_shared)
        atomic_store(&g->lease, &gate_closed);
}

static void close_end(struct vbd_gate *g)
{
    unsigned looks = 0;
    if (g->saved == &gate_shared)
        pthread_mutex_lock(&g->lock);
    else
        while (atomic_load_explicit(&g->saved->busy, memory_order_acquire))
            gate_nap(&looks);
}

void gates_close(struct vbd_gate *const *gates, unsigned count)
{
    bool fence = false;
    for (unsigned i = 0; i < count; i++) {
        close_begin(gates[i]);
        fence |= gates[i]->saved != &gate_shared;
    }
    if (fence)
        membarrier_all();
    for (unsigned i = 0; i < count; i++)
        close_end(gates[i]);
}

static void open_as(struct vbd_gate *g, struct gate_lease *lease)
{
    if (g->saved == &gate_shared)
        pthread_mutex_unlock(&g->lock);
    else
        atomic_store_explicit(&g->lease, lease, memory_order_release);
}

void gates_open(struct vbd_gate *const *gates, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        open_as(gates[i], gates[i]->saved);
}

/* Gives the lease to this thread, or makes the gate shared. `control` is held. */
static void lease_take(struct vbd_gate *g, bool share)
{
    struct gate_lease *next = &gate_shared;
    gates_close(&g, 1);
    if (!share && !g->away && g->used < GATE_LEASES) {
        next = &g->leases[g->used++];
        atomic_store_explicit(&next->thread, gate_thread(), memory_order_relaxed);
    }
    open_as(g, next);
}

/* Tries the lease that is this thread's; false: it was closed meanwhile. */
static bool lease_enter(struct vbd_gate *g, struct gate_lease *mine)
{
    atomic_store(&mine->busy, 1);
    if (atomic_load(&g->lease) == mine) {
        g->inside = mine;
        return true;
    }
    atomic_store_explicit(&mine->busy, 0, memory_order_release);
    return false;
}

static void enter(struct vbd_gate *g, bool share)
{
    for (;;) {
        struct gate_lease *lease = atomic_load_explicit(&g->lease, memory_order_acquire);
        if (lease == &gate_shared) {
            pthread_mutex_lock(&g->lock);
            g->inside = NULL;
            return;
        }
        if (atomic_load_explicit(&lease->thread, memory_order_relaxed) == gate_thread()) {
            if (lease_enter(g, lease))
                return;
            continue;
        }
        pthread_mutex_lock(g->control); /* whoever closed it holds that */
        lease = atomic_load_explicit(&g->lease, memory_order_relaxed);
        if (lease != &gate_shared && atomic_load_explicit(&lease->thread, memory_order_relaxed) != gate_thread())
            lease_take(g, share);
        pthread_mutex_unlock(g->control);
    }
}

void gate_enter_slowly(struct vbd_gate *g)
{
    enter(g, false);
}

void gate_enter_shared(struct vbd_gate *g)
{
    enter(g, true);
}
