/* SPDX-License-Identifier: MIT */
/* backend/blk/blkdev_stats.c: a device's numbers: what its queues counted that are gone, and what the live ones count.
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

/* The first queue of each reactor, for what all queues of a domain on one reactor have in common (reactors.h says in
 * which order they go there). */
static bool queue_is_first(const struct blkdev *d, unsigned queue)
{
    return queue < reactors_count(d->reactors);
}

static void stats_live(const struct blkdev *d, unsigned queue, struct stats_blk *s)
{
    struct stats_blk live;
    const struct blkqueue *q = d->queue[queue].queue;
    blkstats_read(&q->stats, &live);
    stats_blk_add(s, &live);
    s->queues++;
    s->held += live.held;
    s->in_flight += live.requests > live.responses ? live.requests - live.responses : 0;
    if (queue_is_first(d, queue) || !q->config.dma->registers_extents)
        s->pinned_bytes += live.pinned_bytes;
    s->persistent_pages += live.persistent_pages;
    s->iommu_pages += live.iommu_pages;
    s->dma_plain |= live.dma_plain;
    s->flush_lost |= live.flush_lost;
    if (live.last_io_errno)
        s->last_io_errno = live.last_io_errno;
}

static void reply_begin(const struct blkdev *d, struct stats_blk_reply *out)
{
    *out = (struct stats_blk_reply){.magic = STATS_BLK_MAGIC,
                                    .length_bytes = sizeof(*out),
                                    .found = 1,
                                    .domid = d->xb.front_domid,
                                    .devid = d->xb.devid,
                                    .state = (uint32_t)d->xb.state,
                                    .since_ns = d->since_ns,
                                    .now_ns = clock_now_ns()};
    snprintf(out->dma, sizeof(out->dma), "%s", d->config.dma);
    snprintf(out->format, sizeof(out->format), "%s", d->config.format);
}

/* Those of this device among the last ones of all. */
static void faults_read(const struct blkdev *d, struct stats_blk_reply *out)
{
    struct iommu_fault all[IOMMU_FAULTS_KEPT];
    uint64_t total;
    unsigned n = d->iommu ? iommu_faults(d->iommu, all, ARRAY_SIZE(all), &total) : 0, first = n;
    for (unsigned found = 0; first > 0 && found < STATS_BLK_BUS_FAULTS; first--)
        found += blkdev_is_fault(d, &all[first - 1]);
    for (unsigned i = first; i < n; i++) {
        struct stats_blk_bus_fault *f = &out->bus_fault[out->bus_fault_count];
        if (!blkdev_is_fault(d, &all[i]))
            continue;
        *f = (struct stats_blk_bus_fault){.at_ns = all[i].at_ns, .address = all[i].address, .write = all[i].write};
        snprintf(f->reason, sizeof(f->reason), "%s", iommu_fault_name(all[i].reason));
        out->bus_fault_count++;
    }
}

bool blkdev_is_fault(const struct blkdev *d, const struct iommu_fault *f)
{
    return f->domid == d->xb.front_domid && f->device == d->xb.devid;
}

void blkdev_stats(const struct blkdev *d, struct stats_blk_reply *out)
{
    reply_begin(d, out);
    out->stats = d->past;
    for (unsigned i = 0; i < d->queue_count; i++)
        if (d->queue[i].queue)
            stats_live(d, i, &out->stats);
    out->stats.connects = d->connects;
    faults_read(d, out);
    out->stats.dma_unsafe = blkdev_unsafe(d);
}

bool blkdev_stats_queue(const struct blkdev *d, unsigned queue, struct stats_blk_reply *out)
{
    if (queue >= d->queue_count || !d->queue[queue].queue)
        return false;
    reply_begin(d, out);
    out->queue = queue + 1;
    out->reactor = d->queue[queue].reactor;
    blkstats_read(&d->queue[queue].queue->stats, &out->stats);
    out->stats.in_flight = out->stats.requests > out->stats.responses ? out->stats.requests - out->stats.responses : 0;
    out->stats.queues = 1;
    out->stats.dma_unsafe = d->queue[queue].queue->config.dma->unsafe;
    return true;
}
