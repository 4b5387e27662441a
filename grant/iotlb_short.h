/* SPDX-License-Identifier: MIT */
/* grant/iotlb_short.h: the short way through an IOTLB, a hit and its put, without a call. For iotlb.c and dma_iommu.c;
 * who is not in this room uses iommu.h.
 *
 * The order that a hit relies on, and nothing else:
 *
 *     translation                       invalidation
 *     uses += 1                         entries = 0; sequence += n
 *     compiler's fence                  membarrier()
 *     sequence == seen?                 uses == 0?
 *
 * The barrier falls somewhere into the translating thread's instructions. What that stored before it is seen by the
 * invalidation; what it loads after it sees the new sequence. So if a `uses` of 0 is read, each translation that had
 * begun before the barrier has been put (that 0 is its put's, or a later one's, and carries all that was done with the
 * page), and any that begins after it finds the sequence changed and catches up before it looks at an entry: this IOTLB
 * needs no answer. If it is not 0, something is in use: there will be a put, which looks at the sequence as well, and
 * by the same argument the put that makes it 0 cannot miss what the invalidation did not see. So each unmap ends with
 * the last put at the latest, and no IOTLB need be woken.
 *
 * A miss reads the tree between its look at the sequence and its put: what it read may be cleared meanwhile, but then
 * the invalidation finds it inside, waits for its answer, and the answer finds the entry in use.
 *
 * Without membarrier() these two stores and loads are sequentially consistent ones, which gives the same.
 */
#ifndef GRANT_IOTLB_SHORT_H
#define GRANT_IOTLB_SHORT_H

#include <assert.h>

#include "grant/iommu_inner.h"

#define IOTLB_WAYS 4u

/* A page that the IOTLB does not know, or not for that; the get has begun. */
int iotlb_miss(struct iotlb *t, uint64_t bus_page, bool write, struct iotlb_entry **out);
/* The last use of an entry that is not remembered is over. */
void iotlb_retire(struct iotlb *t, struct iotlb_entry *e);
/* Does what the invalidations since `seen` ask, and answers them. */
void iotlb_catch_up(struct iotlb *t);

static inline uint32_t iotlb_uses_of(const struct iotlb *t)
{
    return atomic_load_explicit(&t->uses, memory_order_relaxed);
}

/* The load comes after it, once there is a barrier between, or at once. */
static inline void iotlb_uses_set(struct iotlb *t, uint32_t uses)
{
    if (__builtin_expect(t->fenced, 0))
        atomic_store(&t->uses, uses);
    else
        atomic_store_explicit(&t->uses, uses, memory_order_release);
    atomic_signal_fence(memory_order_seq_cst);
}

static inline bool iotlb_behind(const struct iotlb *t)
{
    return atomic_load(&t->space->sequence) != t->seen;
}

static inline uint32_t iotlb_set_of(const struct iotlb *t, uint64_t bus_page)
{
    return (uint32_t)(bus_page ^ bus_page >> 9) & t->set_mask;
}

static inline void iotlb_enter(struct iotlb *t)
{
    iotlb_uses_set(t, iotlb_uses_of(t) + 1);
    if (__builtin_expect(iotlb_behind(t), 0))
        iotlb_catch_up(t);
}

static inline void iotlb_leave(struct iotlb *t)
{
    iotlb_uses_set(t, iotlb_uses_of(t) - 1);
    if (__builtin_expect(iotlb_behind(t), 0))
        iotlb_catch_up(t);
}

static inline int iotlb_get_short(struct iotlb *t, uint64_t bus_page, bool write, struct iotlb_entry **out)
{
    iotlb_enter(t);
    uint32_t i = iotlb_set_of(t, bus_page) * IOTLB_WAYS;
    for (uint32_t end = i + IOTLB_WAYS; i < end; i++)
        if (t->tags[i] == bus_page) {
            struct iotlb_entry *e = &t->at[i];
            if (__builtin_expect(!(e->access & (write ? IOMMU_WRITE : IOMMU_READ)), 0))
                break; /* an empty one, for page 0, or not permitted */
            e->in_use++;
            t->stats.hits++;
            *out = e;
            return 0;
        }
    return iotlb_miss(t, bus_page, write, out);
}

static inline void iotlb_put_short(struct iotlb *t, struct iotlb_entry *e)
{
    assert(e->in_use);
    if (--e->in_use == 0 && __builtin_expect(e->stale, 0))
        iotlb_retire(t, e);
    iotlb_leave(t);
}

static inline uint32_t iotlb_index_short(const struct iotlb *t, const struct iotlb_entry *e)
{
    return (uint32_t)(e - t->at);
}

static inline struct iotlb_entry *iotlb_at_short(struct iotlb *t, uint32_t index)
{
    assert(index < t->entries + t->uses_max);
    return &t->at[index];
}

#endif
