/* SPDX-License-Identifier: MIT */
/* backend/blk/image_sum.h: what the checksums of an image of format `sum` are.
 *
 * The disk is raw; beside it, in PATH.sum, stands a checksum (CRC-32, zlib's) of each of its blocks of 4096 bytes. What
 * is read is held against it: a block that is not what was written, because the storage changed it, lost its write or
 * put it elsewhere, is an error of that request and a line in the log that names it, and never data.
 *
 * PATH.sum is made when the disk is first opened for writing, and knows nothing then: a block is checked from its first
 * write on. After a head of 4096 bytes an entry for each block, numbers as this machine has them: the sum that is
 * settled, twice; or, while the block is being written, the one before and the one to come; 0 is "not known" (a sum of
 * 0 stands as 1).
 *
 * What is promised when a write is interrupted:
 *
 *   the role is killed   Nothing is reported: both sums of a block that was being written are good until it is written
 *                        again, and what of the block is there is one or the other
 *   the power is cut     What a flush covered that was answered, and was not written since, is there and is checked.
 *                        What was written after it may be reported: its data, its sum, or a part of either is there.
 *                        The log then says that this may be why, as the head names the boot in which it was opened.
 *                        Such a block is read again when it has been written as a whole
 *
 * In neither case is data given out that was not written there. The sums are synced before the data with each flush.
 */
#ifndef BLK_IMAGE_SUM_H
#define BLK_IMAGE_SUM_H

#include <stdint.h>

#define IMAGE_SUM_SUFFIX      ".sum"
#define IMAGE_SUM_MAGIC       0x006d7573317a6400ull
#define IMAGE_SUM_BLOCK_BYTES 4096u
#define IMAGE_SUM_HEAD_BYTES  4096u

struct image_sum_head {
    uint64_t magic;
    uint32_t block_bytes;
    uint32_t open; /* 1: somebody writes, or did and was ended */
    char boot[40]; /* in which that was so: /proc/sys/kernel/random/boot_id */
    uint32_t cuts; /* how often the machine went down meanwhile */
};

struct image_sum_entry {
    uint32_t was, is;
};

#endif
