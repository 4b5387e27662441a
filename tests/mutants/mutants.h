/* SPDX-License-Identifier: MIT */
/* tests/mutants/mutants.h: dom0 as it must not be: each takes one thing away that a strategy stands on, so that
 * tests/test_attack.c can see the attack bench notice. In no program but that test. */
#ifndef MUTANTS_MUTANTS_H
#define MUTANTS_MUTANTS_H

#include "backend/blk/blkqueue.h"
#include "grant/dma.h"

/* pin without the pin: get() gives the pages back that it mapped. */
extern const struct dma_strategy mutant_pin_unpinned;
/* copy without the copy: the vector is the guest's page. */
extern const struct dma_strategy mutant_copy_uncopied;
/* iommu without the wait: get() ends the uses of the IOTLB that it began, so that no unmap sees the DMA. */
extern const struct dma_strategy mutant_iommu_unwaited;
/* iommu without the invalidation: what the IOTLB once knew it goes on to know. */
extern const struct dma_strategy mutant_iommu_stale;
/* A frame table without the deferral: what is revoked goes at once, pinned or not. */
void mutant_revoke_at_once(struct frametable *t, uint32_t extent_id, uint32_t instance);
/* blkqueue_take(), without the copy-once: what was checked is read again, a request and a page of segments. */
unsigned mutant_take_twice(struct blkqueue *q);
/* Stable data that are not: the checksum is of a copy, and the page is written. */
extern bool mutant_writes_late;

#endif
