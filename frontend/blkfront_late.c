/* SPDX-License-Identifier: MIT */
/* frontend/blkfront_late.c: requests that are not answered in time.
 *
 * A backend may write into a read's pages, and read a write's, until it has answered or is gone; nothing that we could
 * do makes it stop sooner, as grants that are mapped cannot be taken back. So a request that timed out comes back at
 * once with -ETIMEDOUT only where the memory that the backend has is not the caller's: bounce pages, which stay out of
 * use together with the slot until the answer comes (nobody's any more, VBD_ORPHAN). One whose buffer is the pool's is
 * counted, and comes back when the backend has answered it, or has gone: a successor is not given what is late. What a
 * late write did to the disk is not known.
 *
 * Time is counted in epochs of a quarter of the timeout; a request notes the one it was submitted in, which costs no
 * look at the clock. It is late when more than four whole ones have ended since: after the timeout, and a quarter more
 * where somebody waits or reaps.
 */
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "frontend/blkfront.h"

static bool has_callers_memory(const struct vbd_shadow *s)
{
    return s->segment_count && !s->bounce_count;
}

static void shadow_late(struct dz_queue *q, struct vbd_shadow *s)
{
    static struct dz_io nobody;
    struct dz_io *io = s->io;
    vbd_count(&q->stats.timeouts, 1);
    s->late = true;
    if (has_callers_memory(s))
        return;
    vbd_count(&q->stats.errors, 1);
    s->io = &nobody;
    q->orphans++;
    if (s->shape == VBD_PLAIN)
        io_finish(q, io, -ETIMEDOUT);
    else
        queue_finish_unusual(q, s, io, -ETIMEDOUT);
    s->shape = VBD_ORPHAN;
}

void late_look(struct dz_queue *q, uint64_t now_ns)
{
    if (now_ns < q->epoch_end_ns)
        return;
    q->epoch_end_ns = now_ns + q->disk->epoch_ns;
    q->epoch++;
    for (uint32_t slot = 0; slot < q->slots; slot++) {
        struct vbd_shadow *s = &q->shadow[slot];
        if (s->io && !s->late && (uint16_t)(q->epoch - s->epoch) > VBD_EPOCHS)
            shadow_late(q, s);
    }
    if (q->backlog)
        backlog_move_on(q);
}

void late_arm(struct dz_queue *q)
{
    struct itimerspec t = {.it_value = {.tv_sec = (time_t)(q->disk->epoch_ns / CLOCK_NS_PER_S),
                                        .tv_nsec = (long)(q->disk->epoch_ns % CLOCK_NS_PER_S)}};
    if (queue_in_flight(q))
        timerfd_settime(q->timer_fd, 0, &t, NULL);
}
