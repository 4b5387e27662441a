/* SPDX-License-Identifier: MIT */
/* frontend/blkfront_memory.c: how many queues a disk has, how many requests each, how long they are, and what that
 * takes.
 *
 * All are chosen when the backend's offer is first seen: as many queues as were asked for, the smallest rings that take
 * the wanted requests, and as many segments a request as both sides can. They stay for the life of the disk, since
 * requests in flight were made for them; a backend that comes back with a smaller offer is one that these requests
 * cannot be given to.
 *
 * Shared: for each queue its ring, a page of segments for each slot where requests may be indirect, and enough pages to
 * bounce one request; the pool of all. Private: a shadow for each slot. A queue of 32 requests has 33 shared pages
 * beside the pool and 90 KiB of books, one of 512 has 528 pages and 1.4 MiB, most of it never touched where requests
 * are short.
 */
#include <assert.h>
#include <string.h>

#include "frontend/blkfront.h"

static uint32_t order_slots(unsigned order)
{
    return ring_entries((size_t)PAGE_BYTES << order, blk_protocol_native.slot_bytes);
}

static unsigned order_choose(uint32_t depth, unsigned order_max)
{
    unsigned order = 0;
    while (order < order_max && order_slots(order) < depth)
        order++;
    return order;
}

static uint32_t segments_choose(uint32_t offered)
{
    return MAX(MIN(offered, (uint32_t)BLKREQ_INDIRECT_SEGMENTS_MAX), (uint32_t)BLKREQ_SEGMENTS_MAX);
}

static uint32_t slot_pages(const struct dz_vbd *v)
{
    return v->segments_max > BLKREQ_SEGMENTS_MAX ? (uint32_t)blkreq_indirect_pages(v->segments_max) : 0;
}

static uint32_t queue_pages(const struct dz_vbd *v)
{
    return (1u << v->ring_order) + v->slots * slot_pages(v);
}

uint32_t vbd_ring_page(const struct dz_queue *q)
{
    return q->index * queue_pages(q->disk);
}

uint32_t queue_indirect_page(const struct dz_queue *q, uint32_t slot)
{
    return vbd_ring_page(q) + (1u << q->disk->ring_order) + slot * slot_pages(q->disk);
}

/* Each queue can always bounce one request of any length, and one of a page for each of its slots. */
static uint32_t queue_bounce_pages(const struct dz_vbd *v)
{
    return MAX(v->segments_max, v->slots);
}

static int queues_open(struct dz_vbd *v)
{
    int r = 0;
    for (uint32_t i = 1; r == 0 && i < v->queue_count; i++)
        r = queue_new(v, i, &v->queue[i]);
    for (uint32_t i = 0; r == 0 && i < v->queue_count; i++)
        r = queue_books_new(v->queue[i], v->slots, v->segments_max);
    return r;
}

static int areas_open(struct dz_vbd *v, uint32_t shared_pages)
{
    uint32_t each = queue_bounce_pages(v);
    int r = pool_area_init(&v->shared, 0, shared_pages);
    for (uint32_t i = 0; r == 0 && i < v->queue_count; i++)
        r = pool_area_init(&v->queue[i]->bounce_area, shared_pages + i * each, each);
    return r;
}

static int pools_open(struct dz_vbd *v, struct err *e)
{
    uint32_t bounces = v->queue_count * queue_bounce_pages(v);
    uint32_t shared = MIN(MAX(v->pool_bytes / PAGE_BYTES, 1), POOL_PAGES_MAX - bounces);
    int r = areas_open(v, shared);
    if (r < 0)
        return err_set(e, r, "no memory for the books of %u pages", shared + bounces);
    r = domain_pool_open(v->dom, v->device.back_domid, v->queue_count * queue_pages(v), &v->ring_pool, e);
    return r ? r : domain_pool_open(v->dom, v->device.back_domid, shared + bounces, &v->pool, e);
}

static int memory_open(struct dz_vbd *v, const struct keys_blk_features *offer, struct err *e)
{
    v->ring_order = order_choose(v->depth_wanted, MIN(offer->max_ring_order, (uint32_t)KEYS_BLK_RING_ORDER_MAX));
    v->segments_max = segments_choose(offer->max_indirect_segments);
    v->slots = order_slots(v->ring_order);
    assert(v->slots && v->slots <= VBD_SLOTS_MAX);
    v->queue_count = MIN(MIN(v->queues_wanted, offer->max_queues), (uint32_t)KEYS_BLK_QUEUES_MAX);
    int r = queues_open(v);
    if (r < 0)
        return err_set(e, r, "cannot make a disk of %u queues of %u requests: %s", v->queue_count, v->slots,
                       strerror(-r));
    r = pools_open(v, e);
    return r < 0 ? err_prefix(e, r, "no shared memory") : 0;
}

int vbd_memory_fit(struct dz_vbd *v, const struct keys_blk_features *offer, struct err *e)
{
    v->offer = *offer;
    if (!v->slots)
        return memory_open(v, offer, e);
    if (offer->max_ring_order < v->ring_order)
        return err_set(e, -EPROTO, "the backend came back with rings of order %u, and the disk's has order %u",
                       offer->max_ring_order, v->ring_order);
    if (segments_choose(offer->max_indirect_segments) < v->segments_max)
        return err_set(e, -EPROTO, "the backend came back with requests of %u segments, and the disk's have %u",
                       segments_choose(offer->max_indirect_segments), v->segments_max);
    if (offer->max_queues < v->queue_count)
        return err_set(e, -EPROTO, "the backend came back with %u queues, and the disk has %u", offer->max_queues,
                       v->queue_count);
    return 0;
}

void vbd_memory_free(struct dz_vbd *v)
{
    vbd_bus_free(v);
    domain_pool_retire(v->dom, v->pool);
    domain_pool_retire(v->dom, v->ring_pool);
    for (uint32_t i = 0; i < ARRAY_SIZE(v->queue); i++)
        queue_free(v->queue[i]);
    pool_area_deinit(&v->shared);
}

void vbd_ring_init(struct dz_queue *q)
{
    struct dz_vbd *v = q->disk;
    ring_front_init(&q->ring, pool_page(v->ring_pool, vbd_ring_page(q)), (size_t)PAGE_BYTES << v->ring_order,
                    blk_protocol_native.slot_bytes);
    assert(q->ring.ring.entries == q->slots);
}

unsigned vbd_in_flight(const struct dz_vbd *v)
{
    unsigned n = 0;
    for (uint32_t i = 0; i < v->queue_count; i++)
        n += queue_in_flight(v->queue[i]);
    return n;
}
