/* SPDX-License-Identifier: MIT */
/* frontend/blkfront_memory.c: how many requests a disk has, how long they are, and what that takes.
 *
 * Both are chosen when the backend's offer is first seen: the smallest ring that takes the wanted requests, and as many
 * segments a request as both sides can. They stay for the life of the disk, since requests in flight were made for
 * them; a backend that comes back with a smaller offer is one that these requests cannot be given to.
 *
 * Shared: the ring, a page of segments for each slot where requests may be indirect, the pool. Private: a shadow for
 * each slot. A disk of 32 requests has 33 shared pages beside its pool and 90 KiB of books, one of 512 has 528 pages
 * and 1.4 MiB, most of it never touched where requests are short.
 */
#include <assert.h>

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

uint32_t vbd_indirect_page(const struct dz_vbd *v, uint32_t slot)
{
    return (1u << v->ring_order) + slot * slot_pages(v);
}

static int books_new(struct dz_vbd *v)
{
    v->shadow = calloc(v->slots, sizeof(*v->shadow));
    v->free_slot = calloc(v->slots, sizeof(*v->free_slot));
    v->segments = calloc((size_t)v->slots * v->segments_max, sizeof(*v->segments));
    v->bounces = calloc((size_t)v->slots * v->segments_max, sizeof(*v->bounces));
    if (!v->shadow || !v->free_slot || !v->segments || !v->bounces)
        return -ENOMEM;
    for (uint32_t i = 0; i < v->slots; i++) {
        v->shadow[i].segment = v->segments + (size_t)i * v->segments_max;
        v->shadow[i].bounce = v->bounces + (size_t)i * v->segments_max;
        v->free_slot[i] = (uint16_t)(v->slots - 1 - i);
    }
    v->free_count = v->slots;
    return 0;
}

static int pools_open(struct dz_vbd *v, struct err *e)
{
    struct platform *p = v->dom->platform;
    uint32_t pages = MIN(MAX(v->pool_bytes / PAGE_BYTES, 1), POOL_PAGES_MAX - v->segments_max) + v->segments_max;
    domain_retired_try(v->dom);
    int r = pool_open(p, v->device.back_domid, vbd_indirect_page(v, v->slots), &v->ring_pool, e);
    return r ? r : pool_open(p, v->device.back_domid, pages, &v->pool, e);
}

static int memory_open(struct dz_vbd *v, const struct keys_blk_features *offer, struct err *e)
{
    v->ring_order = order_choose(v->depth_wanted, MIN(offer->max_ring_order, (uint32_t)KEYS_BLK_RING_ORDER_MAX));
    v->segments_max = segments_choose(offer->max_indirect_segments);
    uint32_t slots = order_slots(v->ring_order);
    assert(slots && slots <= VBD_SLOTS_MAX);
    v->slots = slots;
    int r = books_new(v);
    if (r < 0) {
        v->slots = v->free_count = 0;
        return err_set(e, r, "no memory for a disk of %u requests", slots);
    }
    r = pools_open(v, e);
    return r < 0 ? err_prefix(e, r, "no shared memory") : 0;
}

int vbd_memory_fit(struct dz_vbd *v, const struct keys_blk_features *offer, struct err *e)
{
    if (!v->slots)
        return memory_open(v, offer, e);
    if (offer->max_ring_order < v->ring_order)
        return err_set(e, -EPROTO, "the backend came back with rings of order %u, and the disk's has order %u",
                       offer->max_ring_order, v->ring_order);
    if (segments_choose(offer->max_indirect_segments) < v->segments_max)
        return err_set(e, -EPROTO, "the backend came back with requests of %u segments, and the disk's have %u",
                       segments_choose(offer->max_indirect_segments), v->segments_max);
    return 0;
}

void vbd_memory_free(struct dz_vbd *v)
{
    domain_pool_retire(v->dom, v->pool);
    domain_pool_retire(v->dom, v->ring_pool);
    domain_retired_try(v->dom);
    free(v->shadow);
    free(v->free_slot);
    free(v->segments);
    free(v->bounces);
}

void vbd_ring_init(struct dz_vbd *v)
{
    ring_front_init(&v->ring, pool_page(v->ring_pool, 0), (size_t)PAGE_BYTES << v->ring_order,
                    blk_protocol_native.slot_bytes);
    assert(v->ring.ring.entries == v->slots);
}
