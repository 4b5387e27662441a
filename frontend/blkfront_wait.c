/* SPDX-License-Identifier: MIT */
/* frontend/blkfront_wait.c: spinning, sleeping, and when to look at the control path.
 *
 * A queue has four sources of news in one epoll set: its event channel, the disk's store connection (the backend's
 * state), the domain's platform connection, and a bell. Taking responses looks at none of them: the ring is memory. The
 * set is asked when a caller slept on its descriptor (dz_vbd_arm() was called), when a wait goes to sleep itself, and
 * each VBD_CONTROL_MS by a caller that polls and finds nothing, so that one who only ever spins hears of a backend's
 * death.
 *
 * A wait polls the ring first, for up to spin_us, as long as that pays (base/spin.h: where both ends share a processor
 * it does not), then asks for an event, looks again, and sleeps. A backend that sends events
 * without responses costs a wake-up each; after VBD_SPURIOUS in a row the channel is slept on blindly, a millisecond
 * at a time, until a response comes.
 *
 * Several threads that wait on one queue: one sleeps on the descriptor, the others behind it, each on a condition of
 * its own. Whoever takes responses wakes those whose requests they finished, and nobody else. The event that the
 * sleeper asked for still comes when another thread took the response that it was for; where another took the event
 * itself, it rings the bell, so that the sleeper asks again. Who leaves a queue in which threads wait and none sleeps
 * on the descriptor wakes one to do it, or sees to it that the caller's own sleep on the descriptor (`armed`) ends. The
 * control path wakes the sleeper, whatever it did, and all whose requests it ended.
 */
#include <assert.h>
#include <limits.h>
#include <sys/epoll.h>
#include <time.h>

#include "base/clock.h"
#include "frontend/blkfront.h"

#define SPIN_BATCH  32 /* looks at the ring between two looks at the clock; also those before the first */
#define IDLE_LOOKS  16 /* reaps in vain, to a look at the clock */
#define SHARED_LOOK 16 /* pauses outside the gate, to a look at a shared queue: others want to come in, too */

static void bell_ring(struct dz_queue *q)
{
    static const uint64_t one = 1;
    if (write(q->bell_fd, &one, sizeof(one)) < 0)
        return; /* it is ringing */
}

static bool is_served(const struct vbd_sync *sync)
{
    return !sync || sync->in_flight <= sync->until;
}

static void waiter_wake(struct vbd_waiter *w)
{
    list_remove(&w->link);
    pthread_cond_signal(&w->woken);
}

/* The queue's own thread may sleep on the descriptor, and has something to do. */
static bool has_to_rise(const struct dz_queue *q)
{
    return q->armed && (q->done || q->refused);
}

void queue_wake_served(struct dz_queue *q)
{
    struct vbd_waiter *w, *tmp;
    if ((q->sleeping && is_served(q->sleeper)) || has_to_rise(q))
        bell_ring(q);
    list_foreach_safe (w, tmp, &q->waiting, link)
        if (is_served(w->sync))
            waiter_wake(w);
}

void queue_wake_sleeper(struct dz_queue *q)
{
    if (q->sleeping || q->armed)
        bell_ring(q);
    queue_wake_served(q);
}

void queue_hand_over(struct dz_queue *q)
{
    if (likely(list_empty(&q->waiting) && !q->armed) || q->sleeping)
        return;
    if (!list_empty(&q->waiting))
        waiter_wake(list_entry(q->waiting.next, struct vbd_waiter, link));
    else if (has_to_rise(q) || ring_front_arm(&q->ring))
        bell_ring(q);
}

/* Takes responses, and what follows from them for others. May leave the gate for a moment. */
static inline void take(struct dz_queue *q)
{
    uint64_t mark = q->finished;
    if (likely(!ring_front_looks_busy(&q->ring)))
        return;
    queue_take_responses(q);
    if (unlikely(q->wrong || q->disk->life == VBD_MAPPING)) {
        gate_leave_for_now(&q->gate);
        if (q->wrong)
            vbd_fail_queue(q);
        else
            vbd_control(q->disk, true);
        gate_return(&q->gate);
    } else if (q->finished != mark && gate_is_shared(&q->gate)) {
        queue_wake_served(q);
    }
}

/* ---- sleeping ---- */

/* An event of the channel was taken; true where there were so many without cause that the next sleep is a blind one. */
static void channel_event(struct dz_queue *q)
{
    vbd_count(&q->stats.notifications_received, 1);
    q->spurious++; /* until queue_take_responses() finds one */
}

static void bell_event(struct dz_queue *q)
{
    uint64_t count;
    if (read(q->bell_fd, &count, sizeof(count)) < 0)
        return; /* somebody else heard it */
}

static void timer_event(struct dz_queue *q)
{
    uint64_t count;
    if (read(q->timer_fd, &count, sizeof(count)) < 0)
        return; /* set anew meanwhile */
}

/* True: the control path has news. */
static bool events_take(struct dz_queue *q, const struct epoll_event *event, int n)
{
    bool control = false;
    for (int i = 0; i < n; i++) {
        switch ((enum vbd_source)event[i].data.u32) {
        case VBD_SOURCE_CHANNEL: channel_event(q); break;
        case VBD_SOURCE_MAPPING:
            channel_event(q);
            control = true;
            break;
        case VBD_SOURCE_BELL: bell_event(q); break;
        case VBD_SOURCE_TIMER: timer_event(q); break;
        default: control = true;
        }
    }
    return control;
}

static int sleep_on_sources(const struct dz_queue *q, bool blindly, struct epoll_event *event, int timeout_ms)
{
    if (blindly && timeout_ms != 0)
        nanosleep(&(struct timespec){.tv_nsec = VBD_SPURIOUS_MS * (long)CLOCK_NS_PER_MS}, NULL);
    return epoll_wait(q->epoll_fd, event, VBD_SOURCES, timeout_ms);
}

bool queue_await_alone(struct dz_queue *q, int timeout_ms)
{
    struct epoll_event event[VBD_SOURCES];
    return events_take(q, event, sleep_on_sources(q, q->spurious > VBD_SPURIOUS, event, timeout_ms));
}

/* Another thread sleeps on the descriptor; only a shared queue has such. */
static void sleep_behind(struct dz_queue *q, const struct vbd_sync *sync, int timeout_ms)
{
    struct vbd_waiter w = {.sync = sync};
    pthread_condattr_t monotonic;
    assert(gate_is_shared(&q->gate));
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&w.woken, &monotonic);
    pthread_condattr_destroy(&monotonic);
    list_append(&q->waiting, &w.link);
    q->gate.away++;
    if (timeout_ms < 0) {
        pthread_cond_wait(&w.woken, &q->gate.lock);
    } else {
        uint64_t until = clock_now_ns() + (uint64_t)timeout_ms * CLOCK_NS_PER_MS;
        struct timespec t = {(time_t)(until / CLOCK_NS_PER_S), (long)(until % CLOCK_NS_PER_S)};
        pthread_cond_timedwait(&w.woken, &q->gate.lock, &t);
    }
    q->gate.inside = NULL;
    q->gate.away--;
    list_remove(&w.link);
    pthread_cond_destroy(&w.woken);
}

/* Events were taken that somebody else may sleep for, too. */
static void pass_on(struct dz_queue *q)
{
    if (q->sleeping || has_to_rise(q))
        bell_ring(q);
}

/* Outside the gate as long as it sleeps. */
static void sleep_and_handle(struct dz_queue *q, const struct vbd_sync *sync, int timeout_ms)
{
    struct epoll_event event[VBD_SOURCES];
    if (q->sleeping) {
        sleep_behind(q, sync, timeout_ms);
        return;
    }
    bool blindly = q->spurious > VBD_SPURIOUS;
    q->sleeping = true;
    q->sleeper = sync;
    gate_leave_for_now(&q->gate);
    int n = sleep_on_sources(q, blindly, event, timeout_ms);
    gate_return(&q->gate);
    q->sleeping = false;
    bool control = events_take(q, event, n);
    pass_on(q);
    if (!control)
        return;
    gate_leave_for_now(&q->gate);
    vbd_control(q->disk, true);
    gate_return(&q->gate);
}

/* Looks at the sources, and leaves the control path to a thread that is there already. */
static void look_and_handle(struct dz_queue *q)
{
    struct epoll_event event[VBD_SOURCES];
    int n = sleep_on_sources(q, false, event, 0);
    bool control = events_take(q, event, n);
    if (n > 0)
        pass_on(q);
    if (!control)
        return;
    gate_leave_for_now(&q->gate);
    vbd_control(q->disk, false);
    gate_return(&q->gate);
}

static void look_for_late(struct dz_queue *q, uint64_t now_ns)
{
    uint64_t mark = q->finished;
    late_look(q, now_ns);
    if (q->finished != mark && gate_is_shared(&q->gate))
        queue_wake_served(q);
}

/* What a poller that found nothing does now and then. */
static void control_due(struct dz_queue *q, uint64_t now_ns)
{
    if (q->disk->epoch_ns)
        look_for_late(q, now_ns);
    if (now_ns < q->control_at_ns)
        return;
    look_and_handle(q);
    q->control_at_ns = clock_now_ns() + VBD_CONTROL_MS * CLOCK_NS_PER_MS;
}

/* ---- waiting ---- */

static inline bool progressed(const struct dz_queue *q, uint64_t mark)
{
    return q->finished != mark || !queue_in_flight(q);
}

static void look_again(struct dz_queue *q)
{
    if (gate_is_shared(&q->gate)) {
        gate_leave(&q->gate);
        for (unsigned i = 0; i < SHARED_LOOK; i++)
            spin_relax();
        gate_enter(&q->gate);
    } else {
        spin_relax();
    }
    take(q);
}

/* Polls the ring until a request is finished, for so long or until the deadline: whether one was, in that time. The
 * first looks go without the clock, which costs as much as one of them. */
static bool look_for(struct dz_queue *q, uint64_t mark, uint64_t window_ns, uint64_t deadline_ns)
{
    uint64_t until_ns = 0;
    for (;;) {
        for (unsigned i = 0; i < SPIN_BATCH && !progressed(q, mark); i++)
            look_again(q);
        if (progressed(q, mark))
            return !until_ns || window_ns == UINT64_MAX || clock_now_ns() < until_ns;
        uint64_t now = clock_now_ns();
        if (!until_ns)
            until_ns = window_ns == UINT64_MAX ? deadline_ns : MIN(deadline_ns, now + window_ns);
        if (now >= until_ns)
            return false;
        control_due(q, now);
    }
}

/* True: the sleep that follows tells whether to spin the next time. */
static bool spin(struct dz_queue *q, uint64_t mark, uint64_t deadline_ns)
{
    if (q->disk->spin_us == UINT32_MAX) {
        look_for(q, mark, UINT64_MAX, deadline_ns);
        return false;
    }
    if (q->writes_in_flight) /* most need a thread of the backend's kernel, which would find this processor taken */
        return false;
    uint64_t window_ns = spin_window_ns(&q->spin);
    if (window_ns)
        spin_learn(&q->spin, look_for(q, mark, window_ns, deadline_ns));
    return !progressed(q, mark);
}

int vbd_ms_until(uint64_t deadline_ns)
{
    if (deadline_ns == UINT64_MAX)
        return -1;
    uint64_t now = clock_now_ns();
    uint64_t ms = now >= deadline_ns ? 0 : (deadline_ns - now + CLOCK_NS_PER_MS - 1) / CLOCK_NS_PER_MS;
    return (int)MIN(ms, INT_MAX);
}

uint64_t vbd_deadline_ns(int timeout_ms)
{
    return timeout_ms < 0 ? UINT64_MAX : clock_now_ns() + (uint64_t)timeout_ms * CLOCK_NS_PER_MS;
}

/* The deadline, or the end of the epoch of requests that may time out. */
static int sleep_ms(const struct dz_queue *q, uint64_t deadline_ns)
{
    int timeout_ms = vbd_ms_until(deadline_ns);
    if (q->disk->epoch_ns)
        timeout_ms = (int)MIN((unsigned)timeout_ms, (unsigned)vbd_ms_until(q->epoch_end_ns) + 1);
    return timeout_ms;
}

bool queue_progress(struct dz_queue *q, const struct vbd_sync *sync, uint64_t deadline_ns)
{
    uint64_t mark = q->finished;
    take(q);
    const bool learn = q->disk->spin_us && !progressed(q, mark) && spin(q, mark, deadline_ns);
    const uint64_t since_ns = learn ? clock_now_ns() : 0;
    while (!progressed(q, mark)) {
        if (vbd_ms_until(deadline_ns) == 0)
            return false;
        if (!ring_front_arm(&q->ring))
            sleep_and_handle(q, sync, sleep_ms(q, deadline_ns));
        take(q);
        if (q->disk->epoch_ns)
            look_for_late(q, clock_now_ns());
    }
    if (learn)
        spin_slept(&q->spin, clock_now_ns() - since_ns);
    return true;
}

/* ---- the caller's ---- */

int dz_queue_fd(struct dz_queue *q)
{
    return q->epoll_fd;
}

bool dz_queue_arm(struct dz_queue *q)
{
    gate_enter(&q->gate);
    queue_kick(q);
    q->armed = true;
    if (q->disk->epoch_ns)
        late_arm(q);
    bool now = q->done || (q->disk->life != VBD_FAILED && ring_front_arm(&q->ring));
    gate_leave(&q->gate);
    return now;
}

int dz_queue_reap(struct dz_queue *q, struct dz_io **done, unsigned max)
{
    gate_enter(&q->gate);
    queue_kick(q);
    if (q->armed) {
        q->armed = false;
        look_and_handle(q);
        if (q->disk->epoch_ns)
            look_for_late(q, clock_now_ns());
    }
    take(q);
    if (!q->done && max && ++q->idle_looks >= IDLE_LOOKS) {
        q->idle_looks = 0;
        control_due(q, clock_now_ns());
    }
    unsigned n = queue_done_take(q, done, max);
    gate_leave(&q->gate);
    return (int)n;
}

/* Is anything in flight that was submitted to the queue, and not by a synchronous call of another thread? */
static bool owes_any(const struct dz_queue *q)
{
    bool any = false;
    if (!queue_in_flight(q) || !gate_is_shared(&q->gate))
        return queue_in_flight(q);
    for (uint32_t slot = 0; slot < q->slots && !any; slot++) {
        const struct vbd_shadow *s = &q->shadow[slot];
        const struct dz_io *io = s->shape == VBD_ORPHAN ? NULL : s->io;
        for (; io && !any; io = s->shape == VBD_MERGED ? io_next(io) : NULL)
            any = !io_sync(io);
    }
    for (const struct vbd_split *split = q->backlog; split && !any; split = split->next)
        any = !io_sync(split->io);
    return any;
}

int dz_queue_wait(struct dz_queue *q, struct dz_io **done, unsigned max, int timeout_ms)
{
    uint64_t deadline = timeout_ms < 0 ? UINT64_MAX : vbd_deadline_ns(timeout_ms);
    gate_enter(&q->gate);
    queue_kick(q);
    q->armed = false;
    if (max && !q->done && q->refused && !owes_any(q)) /* calls of others hold what it needs */
        queue_progress(q, NULL, deadline);
    while (max && !q->done && owes_any(q) && queue_progress(q, NULL, deadline))
        ;
    queue_hand_over(q);
    unsigned n = queue_done_take(q, done, max);
    gate_leave(&q->gate);
    return (int)n;
}

int dz_queue_submit(struct dz_queue *q, struct dz_io *io)
{
    gate_enter(&q->gate);
    int r = queue_submit(q, io, NULL);
    if (unlikely(r || q->refused))
        q->refused = r == -EAGAIN;
    gate_leave(&q->gate);
    return r;
}

int dz_queue_kick(struct dz_queue *q)
{
    gate_enter(&q->gate);
    int r = queue_kick(q);
    gate_leave(&q->gate);
    return r;
}
