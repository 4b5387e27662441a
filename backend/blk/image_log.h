/* SPDX-License-Identifier: MIT */
/* backend/blk/image_log.h: what the log of an image of format `log` holds.
 *
 * The disk is raw; beside it, in PATH.log, stands what was done to it and in which order, so that every state that a
 * cut of the power could have left can be made from a copy of the disk as it was before: for testing what a guest, its
 * file system or its database makes of one. (Linux has dm-log-writes for that.)
 *
 *   WRITE        that data is with the storage's cache; its answer was not sent before. `bytes` of data follow
 *   SYNC_BEGIN   a flush begins: it covers all WRITEs above
 *   SYNC_END     it has ended well; `number` is where in the log its SYNC_BEGIN stands. No flush was answered before
 *
 * So at any place in the log, what stands above the SYNC_BEGIN of the last SYNC_END above that place is on the disk
 * whatever happens; of the WRITEs between, in any order, each sector is there or not.
 *
 * Records lie one after the other, numbers as this machine has them. A role that opens the disk goes on at the end, and
 * takes away a record that a killed one left unfinished: its write was not answered. What it had not recorded and the
 * disk has nevertheless, it was about to answer.
 */
#ifndef BLK_IMAGE_LOG_H
#define BLK_IMAGE_LOG_H

#include <stdint.h>

#define IMAGE_LOG_MAGIC  0x676f6c7au
#define IMAGE_LOG_SUFFIX ".log"

struct image_log_record {
    uint32_t magic;
    uint32_t event;               /* enum image_event */
    uint64_t offset_bytes, bytes; /* on the disk, of a WRITE */
    uint64_t number;
};

#endif
