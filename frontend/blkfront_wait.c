/* SPDX-License-Identifier: MIT */
/* frontend/blkfront_wait.c: spinning, sleeping, and when to look at the control path.
 *
 * A disk has three sources of news in one epoll set: its event channel, its store connection (the backend's state), and
 * the domain's platform connection. Taking responses looks at none of them: the ring is memory. The set is asked when a
 * caller slept on its descriptor (dz_vbd_arm() was called), when dz_vbd_wait() goes to sleep itself, and each
 * VBD_CONTROL_MS by a caller that polls and finds nothing, so that one who only ever spins hears of a backend's death.
 *
 * A wait polls the ring for spin_us first, then asks for an event, looks again, and sleeps. A backend that sends events
 * without responses costs a wake-up each; after VBD_SPURIOUS in a row the channel is slept on blindly, a millisecond
 * at a time, until a response comes.
 */
#include "frontend/blkfront.h"

#include <limits.h>
#include <sys/epoll.h>
#include <time.h>

#include "base/clock.h"

#define SPIN_BATCH 32 /* looks at the ring between two looks at the clock */

static inline void cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

int vbd_sources_init(struct dz_vbd *v)
{
    v->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    return v->epoll_fd < 0 ? -errno : 0;
}

int vbd_source_add(struct dz_vbd *v, enum vbd_source source, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = source};
    return epoll_ctl(v->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

void vbd_source_remove(struct dz_vbd *v, int fd)
{
    if (fd >= 0)
        epoll_ctl(v->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

/* An event of the channel was taken; true where there were so many without cause that the next sleep is a blind one. */
static void channel_event(struct dz_vbd *v)
{
    if (!evtchn_consume(&v->channel))
        return;
    v->stats.notifications_received++;
    v->spurious++; /* until vbd_take_responses() finds one */
}

static void sleep_blindly(int timeout_ms)
{
    if (timeout_ms != 0)
        nanosleep(&(struct timespec){.tv_nsec = VBD_SPURIOUS_MS * (long)CLOCK_NS_PER_MS}, NULL);
}

bool vbd_await(struct dz_vbd *v, int timeout_ms)
{
    struct epoll_event event[3];
    if (v->spurious > VBD_SPURIOUS)
        sleep_blindly(timeout_ms);
    int n = epoll_wait(v->epoll_fd, event, ARRAY_SIZE(event), timeout_ms);
    bool control = false;
    for (int i = 0; i < n; i++) {
        if (event[i].data.u32 == VBD_SOURCE_CHANNEL)
            channel_event(v);
        else
            control = true;
    }
    return control;
}

/* As vbd_await(), and handles what the control path has to say. */
static void sleep_and_handle(struct dz_vbd *v, int timeout_ms)
{
    if (vbd_await(v, timeout_ms))
        vbd_control(v);
}

int dz_vbd_fd(struct dz_vbd *v)
{
    return v->epoll_fd;
}

bool dz_vbd_arm(struct dz_vbd *v)
{
    dz_vbd_kick(v);
    v->armed = true;
    return v->done || (v->life != VBD_FAILED && ring_front_arm(&v->ring));
}

/* What a poller that found nothing does now and then. */
static void control_due(struct dz_vbd *v, uint64_t now_ns)
{
    if (now_ns < v->control_at_ns)
        return;
    sleep_and_handle(v, 0);
    v->control_at_ns = clock_now_ns() + VBD_CONTROL_MS * CLOCK_NS_PER_MS;
}

int dz_vbd_reap(struct dz_vbd *v, struct dz_io **done, unsigned max)
{
    dz_vbd_kick(v);
    if (v->armed) {
        v->armed = false;
        sleep_and_handle(v, 0);
    }
    vbd_take_responses(v);
    unsigned n = vbd_done_take(v, done, max);
    if (n || !max)
        return (int)n;
    control_due(v, clock_now_ns());
    return (int)vbd_done_take(v, done, max);
}

static bool progressed(const struct dz_vbd *v, uint64_t mark)
{
    return v->finished != mark || !vbd_in_flight(v);
}

static bool look(struct dz_vbd *v, uint64_t mark)
{
    for (unsigned i = 0; i < SPIN_BATCH && !progressed(v, mark); i++) {
        cpu_relax();
        vbd_take_responses(v);
    }
    return progressed(v, mark);
}

/* Polls the ring until a request is finished, for `spin_ns` or until the deadline. The first looks go without the
 * clock, which costs as much as one of them. */
static void spin(struct dz_vbd *v, uint64_t mark, uint64_t spin_ns, uint64_t deadline_ns)
{
    if (look(v, mark))
        return;
    uint64_t now = clock_now_ns();
    uint64_t until_ns = spin_ns == UINT64_MAX ? deadline_ns : MIN(now + spin_ns, deadline_ns);
    for (; now < until_ns && !look(v, mark); now = clock_now_ns())
        control_due(v, now);
}

int vbd_ms_until(uint64_t deadline_ns)
{
    if (deadline_ns == UINT64_MAX)
        return -1;
    uint64_t now = clock_now_ns();
    uint64_t ms = now >= deadline_ns ? 0 : (deadline_ns - now + CLOCK_NS_PER_MS - 1) / CLOCK_NS_PER_MS;
    return (int)MIN(ms, INT_MAX);
}

static uint64_t spin_ns(const struct dz_vbd *v)
{
    return v->spin_us == UINT32_MAX ? UINT64_MAX : v->spin_us * CLOCK_NS_PER_US;
}

bool vbd_progress(struct dz_vbd *v, uint64_t deadline_ns)
{
    uint64_t mark = v->finished;
    vbd_take_responses(v);
    if (v->spin_us && !progressed(v, mark))
        spin(v, mark, spin_ns(v), deadline_ns);
    while (!progressed(v, mark)) {
        if (!ring_front_arm(&v->ring)) {
            int timeout_ms = vbd_ms_until(deadline_ns);
            if (timeout_ms == 0)
                return false;
            sleep_and_handle(v, timeout_ms);
        }
        vbd_take_responses(v);
    }
    return true;
}

uint64_t vbd_deadline_ns(int timeout_ms)
{
    return timeout_ms < 0 ? UINT64_MAX : clock_now_ns() + (uint64_t)timeout_ms * CLOCK_NS_PER_MS;
}

int dz_vbd_wait(struct dz_vbd *v, struct dz_io **done, unsigned max, int timeout_ms)
{
    uint64_t deadline = vbd_deadline_ns(timeout_ms);
    dz_vbd_kick(v);
    while (max && !v->done && vbd_in_flight(v) && vbd_progress(v, deadline))
        ;
    return (int)vbd_done_take(v, done, max);
}
