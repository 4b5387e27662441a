/* SPDX-License-Identifier: MIT */
/* backend/blk/blkdev_queues.c: a device's queues: made together, spread over the reactors, sent there, freed one by
 * one. See blkdev.h.
 */
#include <assert.h>

#include "backend/blk/blkdev.h"

struct engine *blkdev_queue_engine(const struct blkdev *d, unsigned queue)
{
    return reactors_engine(d->reactors, d->queue[queue].reactor);
}

unsigned blkdev_queue_index(const struct blkdev *d, const struct blkqueue *q)
{
    unsigned i = 0;
    while (d->queue[i].queue != q)
        i++;
    return i;
}

bool blkdev_domain_attaches(const struct blkdev *d)
{
    const struct blkdev *o;
    list_foreach (o, d->siblings, link)
        if (o->phase == BLKDEV_ATTACHING && o->xb.front_domid == d->xb.front_domid)
            return true;
    return false;
}

void blkdev_queue_drop(struct blkdev *d, unsigned queue)
{
    assert(d->queue && d->queues_held > 0);
    struct blkqueue *q = take_ptr(d->queue[queue].queue);
    blkdev_stats_keep(d, q);
    blkqueue_free(q);
    reactors_discharge(d->reactors, d->queue[queue].reactor);
    if (--d->queues_held)
        return;
    free(take_ptr(d->queue));
    d->queue_count = 0;
    blkdev_space_drop(d);
}

int blkdev_space_make(struct blkdev *d, const struct keys_blk_front *front, struct err *e)
{
    const struct iommu_limits limits = {.pages_max = BLKBUS_PAGES_MAX, .tables_max = BLKBUS_TABLES_MAX};
    if (!front->bus_addresses || !d->bus_bits)
        return 0;
    int rc = iommu_space_new(d->iommu, d->xb.front_domid, d->xb.devid, d->bus_bits,
                             d->config.iommu_deferred ? IOMMU_DEFERRED : IOMMU_STRICT, &limits, &d->space);
    return rc ? err_set(e, rc, "out of memory for an address space") : 0;
}

void blkdev_space_drop(struct blkdev *d)
{
    iommu_space_free(take_ptr(d->space));
}

static int queue_make(struct blkdev *d, const struct keys_blk_front *front, unsigned queue, unsigned reactor,
                      struct err *e)
{
    struct blkqueue_config config;
    blkdev_queue_config(d, front, queue, &config);
    if (!config.protocol)
        return err_set(e, -EINVAL, "%s/protocol: '%s' is not known", d->xb.peer_dir, front->protocol);
    int rc = blkqueue_new(&config, &d->queue[queue].queue, e);
    if (rc)
        return rc;
    d->queue[queue].reactor = reactor;
    reactors_charge(d->reactors, reactor);
    d->queues_held++;
    return 0;
}

int blkdev_queues_make(struct blkdev *d, const struct keys_blk_front *front, struct err *e)
{
    unsigned first = reactors_least(d->reactors), made = 0;
    int rc = 0;
    d->queue = calloc(front->queue_count, sizeof(*d->queue));
    if (!d->queue)
        return err_set(e, -ENOMEM, "out of memory");
    for (; made < front->queue_count && !rc; made += !rc)
        rc = queue_make(d, front, made, (first + made) % reactors_count(d->reactors), e);
    if (!rc) {
        d->queue_count = front->queue_count;
        return 0;
    }
    if (!made)
        free(take_ptr(d->queue));
    while (made > 0)
        blkdev_queue_drop(d, --made);
    return rc;
}

void blkdev_queues_attach(struct blkdev *d, unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++, d->awaited++)
        engine_attach(blkdev_queue_engine(d, i), d->queue[i].queue);
}
