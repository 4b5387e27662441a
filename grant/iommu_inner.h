/* SPDX-License-Identifier: MIT */
/* grant/iommu_inner.h: the inside of the IOMMU, for the files grant/iommu*.c and grant/iotlb* only.
 *
 * An unmap's life, all under the space's lock but for the barrier:
 *
 *   deferred ──flush──► waiting ──every IOTLB has answered──► lingering ──its last DMA is put──► done
 *            a sequence          (none of its entries in use: straight to done)
 *
 * The bus pages, what counts of them against the limit, and the tables that it emptied are given back at its end and
 * not before: so an address in force has one meaning, and nobody walks a table that was freed.
 */
#ifndef GRANT_IOMMU_INNER_H
#define GRANT_IOMMU_INNER_H

#include <pthread.h>
#include <stdatomic.h>

#include "grant/iommu.h"
#include "grant/iommu_bus.h"
#include "grant/iommu_table.h"

#define IOMMU_RECENT                                                                                 \
    256u /* invalidations that a space remembers, so that an IOTLB that was away need not forget all \
          */

struct iommu {
    bool fenced; /* no membarrier(): IOTLBs make the fences */
    atomic_uint spaces;
    atomic_uint space_last; /* the number given out last */
    pthread_mutex_t lock;   /* of the log: */
    struct iommu_fault log[IOMMU_FAULTS_KEPT];
    uint64_t total;
    _Atomic uint64_t counts[IOMMU_F_COUNT_];
};

/* As iommu_new(), but without membarrier(), as on a kernel that has none: for tests and measurements. */
int iommu_new_fenced(struct iommu **out);

struct iommu_recent {
    uint32_t bus_page, count;
};

struct iommu_space {
    /* Read by each translation; written by invalidations only. */
    _Alignas(64) _Atomic uint64_t sequence;
    struct iommu *unit;
    uint64_t pages_end; /* of the window: the first bus page beyond it */
    uint32_t id, device;
    uint16_t domid;
    bool deferred;
    atomic_bool detached;
    struct iommu_tree tree; /* walked without the lock */

    _Alignas(64) pthread_mutex_t lock; /* of all that follows, and of changes to the tree */
    struct iommu_limits limits;
    struct iommu_bus bus;
    struct list iotlbs;
    struct list gathered;  /* deferred unmaps */
    struct list waiting;   /* by sequence: some IOTLB has not answered yet */
    struct list lingering; /* all have; DMA is under way */
    uint32_t gathered_count;
    uint64_t answered; /* every IOTLB has answered what was up to here */
    uint64_t detached_at;
    struct iommu_recent recent[IOMMU_RECENT]; /* by sequence */
    uint32_t pages;                           /* mapped, or their unmap has not ended */
    struct iommu_stats stats;
};

struct iotlb {
    /* Its thread's, but for `uses`, which unmaps read. */
    _Atomic uint32_t uses; /* gets that have begun and not been put or failed */
    bool fenced;
    uint32_t set_mask;
    uint64_t seen; /* the invalidations up to here are done; written under the space's lock */
    struct iommu_space *space;
    uint32_t *tags; /* by set and way: the bus page, 0: none; those of the first `entries` entries */
    struct iotlb_entry *at;
    uint32_t victim; /* where to look first for an entry to replace */
    uint32_t entries, uses_max;
    uint32_t spare; /* the first unused of the entries beyond `entries`, linked by `next`; 0 there: the one behind it */
    uint32_t *crowded; /* by set: the first of those that are in use for its pages, linked both ways */
    const struct iotlb_ops *ops;
    void *ctx;
    struct iotlb_stats stats;
    /* the space's, under its lock */
    struct list link;
    uint64_t excused; /* it was seen idle after the invalidations up to here */
};

static inline void space_lock(struct iommu_space *s)
{
    pthread_mutex_lock(&s->lock);
}

static inline void space_unlock(struct iommu_space *s)
{
    pthread_mutex_unlock(&s->lock);
}

/* iommu_unmap() by the thread of `own`, which is to be turned afterwards; or NULL. */
int space_unmap(struct iommu_space *s, uint64_t bus_page, uint32_t count, struct iommu_unmap *u,
                const struct iotlb *own);
/* Moves what waits to its end as far as the IOTLBs have answered, and the ended to `ended`. The lock is held. */
void space_settle(struct iommu_space *s, struct list *ended);
/* One use of one stale entry is over. The lock is held. */
void space_unuse(struct iommu_space *s, struct iommu_unmap *u, struct list *ended);
/* Calls each done(). No lock is held. */
void space_tell(struct list *ended);

#endif
