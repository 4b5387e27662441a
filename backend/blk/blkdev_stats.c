/* SPDX-License-Identifier: MIT */
/* backend/blk/blkdev_stats.c: a device's numbers: what its queues counted that are gone, and what the live one counts.
 */
#include <stdio.h>

#include "backend/blk/blkdev.h"
#include "base/clock.h"

void blkdev_stats_keep(struct blkdev *d, const struct blkqueue *q)
{
    struct stats_blk s;
    blkstats_read(&q->stats, &s);
    stats_blk_add(&d->past, &s);
    if (s.last_io_errno)
        d->past.last_io_errno = s.last_io_errno;
}

static void stats_live(const struct blkqueue *q, struct stats_blk *s)
{
    struct stats_blk live;
    blkstats_read(&q->stats, &live);
    stats_blk_add(s, &live);
    s->in_flight = live.requests > live.responses ? live.requests - live.responses : 0;
    s->held = live.held;
    s->pinned_bytes = live.pinned_bytes;
    s->dma_plain = live.dma_plain;
    if (live.last_io_errno)
        s->last_io_errno = live.last_io_errno;
}

void blkdev_stats(const struct blkdev *d, struct stats_blk_reply *out)
{
    *out = (struct stats_blk_reply){.magic = STATS_BLK_MAGIC,
                                    .length_bytes = sizeof(*out),
                                    .found = 1,
                                    .domid = d->xb.front_domid,
                                    .devid = d->xb.devid,
                                    .state = (uint32_t)d->xb.state,
                                    .since_ns = d->since_ns,
                                    .now_ns = clock_now_ns(),
                                    .stats = d->past};
    snprintf(out->dma, sizeof(out->dma), "%s", d->config.dma);
    snprintf(out->format, sizeof(out->format), "%s", d->config.format);
    if (d->queue)
        stats_live(d->queue, &out->stats);
    out->stats.connects = d->connects;
}
