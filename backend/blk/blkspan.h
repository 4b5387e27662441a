/* SPDX-License-Identifier: MIT */
/* backend/blk/blkspan.h: requests that name a span of sectors and carry no data: discards and write-zeroes.
 *
 * They are done one at a time for a queue, in the order in which they came, so a guest that floods them keeps one
 * worker of the kernel busy and not all.
 *
 * A discard punches a hole. It is a hint: where the storage can only discard in blocks, the parts of blocks at its ends
 * are left as they are. Storage that cannot after all answers EOPNOTSUPP.
 *
 * Write-zeroes is a promise, so there is a way for every storage; each that is refused is not tried again by the queue:
 *
 *   punch a hole        where the guest allows it and the disk discards
 *   FALLOC_ZERO_RANGE   the blocks stay allocated; a block device that cannot has the kernel write zeroes
 *   write zeroes        from memory of ours that nobody writes to
 *
 * Its length is bounded (blkdev.h), so the last way ends.
 */
#ifndef BLK_BLKSPAN_H
#define BLK_BLKSPAN_H

#include "backend/blk/blkrequest.h"

/* A BLKIF_OP_DISCARD or BLKREQ_OP_WRITE_ZEROES, decoded. */
void blkspan_start(struct blk_request *r);

#endif
