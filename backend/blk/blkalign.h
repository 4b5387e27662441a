/* SPDX-License-Identifier: MIT */
/* backend/blk/blkalign.h: requests that the storage cannot do as they are: 512 bytes of a disk whose storage moves
 * blocks of 4096, segments that O_DIRECT cannot reach, a disk that begins or ends within a block; and all requests of
 * images that need stable data (image.h). Only queues of images with `realigns` have one.
 *
 * What fits the storage goes to it directly, as on any disk. What does not goes through a slot of memory of our own:
 *
 *   read    the whole blocks are read into the slot, and the guest gets its part
 *   write   the blocks that the guest writes a part of are read into the slot, its data is laid over them, all is
 *           written back. Parts of blocks at the ends of the disk's region are not written back, for what lies beside
 *           them in the block is not this disk's: they go through the page cache (image.h: edge_fd).
 *   zeroes  are written in this way where neither the file system nor the device can do it (blkspan.c)
 *
 * Two writes that read and write back the same block would lose one of the two, so who reads and writes back claims its
 * blocks for itself (blkrange.h), and every other writer of the queue claims its range, too. Reads claim nothing: what
 * is written back beside the guest's data is what was there. The claims are a queue's, therefore a disk that needs them
 * has one queue. With stable data all claim, writers for themselves alone: what is read is what was sealed. Blocks that
 * are read for a write are looked at like any others, or a part written over a bad block would make it a good one.
 *
 * A slot is had before a range is claimed, and who holds a range never waits for a slot: so all come to their end. Who
 * finds no slot waits in line. There are BLKALIGN_SLOTS, used last used first, so that what a guest who asks for one
 * sector at a time costs is one slot's memory.
 */
#ifndef BLK_BLKALIGN_H
#define BLK_BLKALIGN_H

#include "backend/blk/blkrange.h"
#include "backend/blk/image.h"

#define BLKALIGN_SLOTS       8 /* unmeasured; these requests cost two or three of the others anyway */
#define BLKALIGN_CHUNK_BYTES (1u << 20)
#define BLKALIGN_SLOT_BYTES  (BLKALIGN_CHUNK_BYTES + 2 * IMAGE_ALIGN_MAX)

struct blkalign;
struct blkqueue;
struct blk_request;

/* 0 or -ENOMEM. `q` outlives it. */
int blkalign_new(struct blkqueue *q, struct blkalign **out);
void blkalign_free(struct blkalign *a); /* nothing is under way; NULL is fine */

/* A transfer is to begin. False: it is to be done directly, now. True: it is done here, or will be begun by
 * blkrequest_transfer() later. */
bool blkalign_begin(struct blk_request *r);
/* Claims [first, end) of the file for r and calls `granted`, now or later. */
void blkalign_claim(struct blk_request *r, uint64_t first_bytes, uint64_t end_bytes,
                    void (*granted)(struct blk_request *r));
/* Writes zeroes to [first, end) of the file, claimed or not, and calls `done` later, r->error being set. */
void blkalign_zero(struct blk_request *r, uint64_t first_bytes, uint64_t end_bytes,
                   void (*done)(struct blk_request *r));
/* Gives up what the request has claimed (r->claimed), and begins what waited for it. */
void blkalign_end(struct blk_request *r);

#endif
