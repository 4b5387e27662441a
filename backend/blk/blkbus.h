/* SPDX-License-Identifier: MIT */
/* backend/blk/blkbus.h: what a guest has mapped to bus addresses through one ring, and its map and unmap requests.
 *
 * A map request names a page of grant references. It is copied out once, each grant is mapped by all the rules of
 * gntmap.h and stays mapped, and the frames are entered into the device's address space (grant/iommu.h): from then on
 * the device's queues, all of them, translate. The response says the bus address. An unmap takes the entries away at
 * once and has ended when no DMA uses them any more; then the grants are unmapped, and the request is answered. Under
 * IOMMU_DEFERRED it is answered at once, and the grants stay mapped until the space is flushed, BLKBUS_FLUSH_MS later
 * at the most; so many unmaps at a time, then they are waited for.
 *
 * The books, which grant is behind which bus page, are the queue's: the grants are its reactor's to unmap. So an unmap
 * that comes through another ring finds nothing in that one's books and is refused. A book is a leaf for each 2 MiB of
 * bus addresses, made with the queue; nothing is allocated later.
 *
 * What a guest can make us hold is bounded by the limits of the device's space: BLKBUS_PAGES_MAX pages mapped, over all
 * queues, BLKBUS_TABLES_MAX tables of the tree. A map or unmap is of BLKREQ_BUS_PAGES_MAX pages at the most and done
 * in one go: measured, such a map takes 20 us, and 60 us where nothing of it is in the cache; an unmap likewise. What a
 * queue that goes has mapped is given back a leaf a pass. A guest that unmaps what its requests use waits for them; one
 * whose page of references changes while it is read gets one of the two.
 *
 * One thread, the queue's reactor's, but for blkbus_new() and _free(); the end of an unmap that another thread brought
 * about comes as a letter.
 */
#ifndef BLK_BLKBUS_H
#define BLK_BLKBUS_H

#include "backend/blk/mailbox.h"
#include "grant/iommu.h"
#include "ring/blkreq.h"

#define BLKBUS_PAGES_MAX    32768u /* of a device: as many as a grant table has references */
#define BLKBUS_TABLES_MAX   256u   /* of a device: 1 MiB; in a row that many pages need 64 */
#define BLKBUS_DEFERRED_MAX 256u   /* unmaps that were answered and have not ended, of a queue */
#define BLKBUS_FLUSH_MS     IOMMU_FLUSH_MS

struct blkbus;
struct blkqueue;
struct dma_stats;

/* 0 or -ENOMEM. The space is borrowed until the queue is detached. */
int blkbus_new(struct blkqueue *q, struct iommu_space *space, bool deferred, struct blkbus **out);
void blkbus_free(struct blkbus *b); /* nothing is mapped; NULL is fine */
/* Where blkreq_is_bus(): does it, and answers it now or when it has ended. */
void blkbus_start(struct blkqueue *q, const struct blkreq *req);
/* The letter of an unmap came: BLKQUEUE_UNMAPPED. */
void blkbus_letter(struct letter *l);
/* Of a queue whose requests have ended: unmaps a leaf of what is left. False: nothing to do, or it has to wait. */
bool blkbus_give_back(struct blkqueue *q);
/* Nothing is mapped, and nothing of its is with the kernel. NULL is idle. */
bool blkbus_idle(const struct blkbus *b);
/* The queue stops: no timer wakes it any more. */
void blkbus_stop(struct blkqueue *q);
/* Writes its numbers and those of the DMA strategy into the queue's, also where there is no bus. */
void blkbus_refresh(struct blkqueue *q, const struct dma_stats *s);

#endif
