/* SPDX-License-Identifier: MIT */
/* ring/ring.h: Xen's shared ring of <xen/io/ring.h>, both ends. This is the one file that touches ring indices.
 *
 * The shared memory is four free-running u32 index words (req_prod, req_event, rsp_prod, rsp_event), padding up to byte
 * 64, then 2^n slots; a response is written over the slot of a request that was consumed. Offsets come from Xen's
 * header.
 *
 *   producer   fill slots · store-release prod · full fence · notify iff the peer's event word lies in (old, new]
 *   consumer   load-acquire prod · copy slots out · when empty: event = cons + 1 · full fence · look again
 *
 * Either fence missing, or the second look, and a wake-up gets lost: the store of one side and the load of the other
 * may pass each other (store buffering). tests/test_ring_holdoff.c walks all interleavings and shows it.
 *
 * The peer may write any of the shared bytes at any time. So: an index word is loaded once a call, its distance is
 * judged before use (more entries than the ring has: SRING_E_OVERRUN, the ring is to be abandoned for good), slots
 * are copied out and never pointed into, the private indices live outside shared memory, and a peer's event word
 * decides about nothing but a notification to that peer. A peer that flips its producer word can make arm() say "go on"
 * for ever while pending() finds nothing: whoever loops over the two gives up after a budget, as for any busy ring.
 *
 * Units: indices count entries, sizes are in bytes. Neither struct owns the memory. Not thread safe: one thread an end.
 */
#ifndef RING_RING_H
#define RING_RING_H

#include <assert.h>
#include <stdatomic.h>
#include <string.h>

#include "base/util.h"
#include "ring/xen_io.h"

enum {
    SRING_E_OVERRUN = 1, /* the peer's producer index is further ahead than the ring has entries */
};

#define SRING_HEADER_BYTES offsetof(struct blkif_sring, ring)
_Static_assert(SRING_HEADER_BYTES == 64, "ring.h: entries begin at 64");
_Static_assert(offsetof(struct blkif_sring, req_prod) == 0 && offsetof(struct blkif_sring, req_event) == 4 &&
                   offsetof(struct blkif_sring, rsp_prod) == 8 && offsetof(struct blkif_sring, rsp_event) == 12,
               "ring.h: index words");

struct ring {
    unsigned char *shared;
    uint32_t entries; /* a power of two */
    uint32_t slot_bytes;
};

struct ring_front {
    struct ring ring;
    uint32_t req_prod_pvt; /* requests written, published or not */
    uint32_t req_prod;     /* requests published; the shared word is the peer's to spoil */
    uint32_t rsp_cons;     /* responses taken */
};

struct ring_back {
    struct ring ring;
    uint32_t rsp_prod_pvt; /* responses written, published or not */
    uint32_t rsp_prod;     /* responses published */
    uint32_t req_cons;     /* requests taken */
};

static inline uint32_t ring_load(const struct ring *r, size_t offset)
{
    return atomic_load_explicit((_Atomic uint32_t *)(void *)(r->shared + offset), memory_order_acquire);
}

static inline void ring_store(const struct ring *r, size_t offset, uint32_t value)
{
    atomic_store_explicit((_Atomic uint32_t *)(void *)(r->shared + offset), value, memory_order_release);
}

#define ring_get(r, field)        ring_load(r, offsetof(struct blkif_sring, field))
#define ring_set(r, field, value) ring_store(r, offsetof(struct blkif_sring, field), value)

/* Entries of a ring of `bytes` bytes: the largest power of two that fits behind the header; 0 where none does. */
static inline uint32_t ring_entries(size_t bytes, uint32_t slot_bytes)
{
    if (bytes < SRING_HEADER_BYTES + slot_bytes)
        return 0;
    uint64_t fit = (bytes - SRING_HEADER_BYTES) / slot_bytes;
    return 1u << (63 - __builtin_clzll(fit));
}

static inline unsigned char *ring_slot(const struct ring *r, uint32_t index)
{
    return r->shared + SRING_HEADER_BYTES + (size_t)(index & (r->entries - 1)) * r->slot_bytes;
}

/* Copies a slot out of memory that the peer may be writing. The barrier keeps the compiler from reading it again. */
static inline void ring_copy_out(void *to, const void *slot, size_t bytes)
{
    memcpy(to, slot, bytes);
    __asm__ volatile("" : : "r"(to) : "memory");
}

/* Does the peer's event word lie in (old, new]: is it to be told? Whatever it says, the answer is only a yes or a no.
 */
static inline bool ring_must_notify(uint32_t new_prod, uint32_t old_prod, uint32_t peer_event)
{
    return (uint32_t)(new_prod - peer_event) < (uint32_t)(new_prod - old_prod);
}

/* ---- the frontend's end ---- */

/* Initialises the shared page too: the frontend owns it. */
static inline void ring_front_init(struct ring_front *f, void *shared, size_t bytes, uint32_t slot_bytes)
{
    *f = (struct ring_front){.ring = {shared, ring_entries(bytes, slot_bytes), slot_bytes}};
    assert(f->ring.entries);
    memset(shared, 0, bytes);
    ring_set(&f->ring, req_event, 1);
    ring_set(&f->ring, rsp_event, 1);
}

/* Requests that may still be put. */
static inline uint32_t ring_front_room(const struct ring_front *f)
{
    return f->ring.entries - (f->req_prod_pvt - f->rsp_cons);
}

/* Writes one request of `bytes` <= slot_bytes; there must be room. The slot behind it, which the backend wrote last, is
 * fetched for the next one meanwhile. */
static inline void ring_front_put(struct ring_front *f, const void *request, size_t bytes)
{
    assert(ring_front_room(f) && bytes <= f->ring.slot_bytes);
    memcpy(ring_slot(&f->ring, f->req_prod_pvt++), request, bytes);
    prefetch_write(ring_slot(&f->ring, f->req_prod_pvt));
}

/* As ring_front_put(), for who writes the request in place: its slot, of which the next push tells the backend. */
static inline void *ring_front_slot(struct ring_front *f)
{
    assert(ring_front_room(f));
    prefetch_write(ring_slot(&f->ring, f->req_prod_pvt + 1));
    return ring_slot(&f->ring, f->req_prod_pvt++);
}

/* How many requests were put and not published. */
static inline uint32_t ring_front_unpublished(const struct ring_front *f)
{
    return f->req_prod_pvt - f->req_prod;
}

/* Publishes what was put; true: the backend wants an event. */
static inline bool ring_front_push(struct ring_front *f)
{
    uint32_t old = f->req_prod;
    f->req_prod = f->req_prod_pvt;
    ring_set(&f->ring, req_prod, f->req_prod_pvt);
    atomic_thread_fence(memory_order_seq_cst);
    return ring_must_notify(f->req_prod_pvt, old, ring_get(&f->ring, req_event));
}

/* Is it worth while to ask ring_front_pending()? For who looks again and again. */
static inline bool ring_front_looks_busy(const struct ring_front *f)
{
    return ring_get(&f->ring, rsp_prod) != f->rsp_cons;
}

/* How many responses wait in *count: at most as many as published requests are outstanding, else SRING_E_OVERRUN. */
static inline int ring_front_pending(const struct ring_front *f, uint32_t *count)
{
    uint32_t n = ring_get(&f->ring, rsp_prod) - f->rsp_cons;
    if (n > f->req_prod - f->rsp_cons)
        return SRING_E_OVERRUN;
    *count = n;
    return 0;
}

/* Copies the next response out; ring_front_pending() said that there is one. */
static inline void ring_front_take(struct ring_front *f, void *response, size_t bytes)
{
    assert(bytes <= f->ring.slot_bytes);
    ring_copy_out(response, ring_slot(&f->ring, f->rsp_cons++), bytes);
}

/* Asks for an event at the next response; true: one came meanwhile, go on instead of sleeping. */
static inline bool ring_front_arm(struct ring_front *f)
{
    ring_set(&f->ring, rsp_event, f->rsp_cons + 1);
    atomic_thread_fence(memory_order_seq_cst);
    return ring_get(&f->ring, rsp_prod) != f->rsp_cons;
}

/* ---- the backend's end ---- */

/* `start` is 0 for a new ring. Touches nothing shared. */
static inline void ring_back_init(struct ring_back *b, void *shared, size_t bytes, uint32_t slot_bytes, uint32_t start)
{
    *b = (struct ring_back){.ring = {shared, ring_entries(bytes, slot_bytes), slot_bytes},
                            .rsp_prod_pvt = start,
                            .rsp_prod = start,
                            .req_cons = start};
    assert(b->ring.entries);
}

/* How many requests wait in *count; never more than could be answered: a request that is not yet answered holds its
 * slot. */
static inline int ring_back_pending(const struct ring_back *b, uint32_t *count)
{
    uint32_t prod = ring_get(&b->ring, req_prod);
    if (prod - b->rsp_prod_pvt > b->ring.entries)
        return SRING_E_OVERRUN;
    uint32_t n = prod - b->req_cons;
    if (n > b->ring.entries) /* prod moved backwards: behind what was already taken */
        return SRING_E_OVERRUN;
    *count = n;
    return 0;
}

/* Copies the next request out and consumes it; ring_back_pending() said that there is one. */
static inline void ring_back_take(struct ring_back *b, void *request, size_t bytes)
{
    assert(bytes <= b->ring.slot_bytes);
    ring_copy_out(request, ring_slot(&b->ring, b->req_cons++), bytes);
}

/* The same in two steps: bytes `from` … `to` - 1 of it, without consuming it. What of the later step depends on bytes
 * of the earlier one is decided by the copy. */
static inline void ring_back_peek(const struct ring_back *b, unsigned char *request, size_t from, size_t to)
{
    assert(from <= to && to <= b->ring.slot_bytes);
    ring_copy_out(request + from, ring_slot(&b->ring, b->req_cons) + from, to - from);
}

static inline void ring_back_consume(struct ring_back *b)
{
    b->req_cons++;
}

/* Fetches the slot of a request that waits, `ahead` behind the next: to be read, and to be written by a response. */
static inline void ring_back_prefetch(const struct ring_back *b, uint32_t ahead)
{
    prefetch_write(ring_slot(&b->ring, b->req_cons + ahead));
}

/* The slot of the next response, to be written by the caller and not read; each request that was taken gets one at
 * most. */
static inline void *ring_back_slot(struct ring_back *b)
{
    assert(b->rsp_prod_pvt != b->req_cons);
    return ring_slot(&b->ring, b->rsp_prod_pvt++);
}

/* Writes one response. */
static inline void ring_back_put(struct ring_back *b, const void *response, size_t bytes)
{
    assert(bytes <= b->ring.slot_bytes);
    memcpy(ring_back_slot(b), response, bytes);
}

/* How many responses were put and not published. */
static inline uint32_t ring_back_unpublished(const struct ring_back *b)
{
    return b->rsp_prod_pvt - b->rsp_prod;
}

/* Publishes what was put; true: the frontend wants an event. */
static inline bool ring_back_push(struct ring_back *b)
{
    uint32_t old = b->rsp_prod;
    b->rsp_prod = b->rsp_prod_pvt;
    ring_set(&b->ring, rsp_prod, b->rsp_prod_pvt);
    atomic_thread_fence(memory_order_seq_cst);
    return ring_must_notify(b->rsp_prod_pvt, old, ring_get(&b->ring, rsp_event));
}

/* Asks for an event at the next request; true: one came meanwhile, go on instead of sleeping. */
static inline bool ring_back_arm(struct ring_back *b)
{
    ring_set(&b->ring, req_event, b->req_cons + 1);
    atomic_thread_fence(memory_order_seq_cst);
    return ring_get(&b->ring, req_prod) != b->req_cons;
}

#endif
