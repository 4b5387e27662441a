/* SPDX-License-Identifier: MIT */
/* backend/blk/blkback.h: the block backend's control side: finds its devices in the store, and passes on what happens
 * to them.
 *
 * One watch on /local/domain/<us>/backend/vbd tells of devices that come and go; each device watches its frontend's
 * state. Events are only marks: all that wait are taken, then each marked device is looked at once, so a guest that
 * writes its state in a loop costs one look a round and queues up nothing here (XSA-349). Paths of events are parsed,
 * never used.
 *
 * Everything runs on the caller's loop, in one thread, with the store's answers as the only waits.
 */
#ifndef BLK_BLKBACK_H
#define BLK_BLKBACK_H

#include "backend/blk/blkdev.h"
#include "base/loop.h"

#define BLKBACK_EVENTS_MAX    256 /* of the store in one round; the rest comes in the next */
#define BLKBACK_TICK_MS       1000
#define BLKBACK_FAULTS_LOGGED 8  /* of the IOMMU, a tick at the most; the others are counted */
#define BLKBACK_LOCK_TICK_MS  10 /* between two tries of an image's lock */

struct blkback;

/* Takes the reactors, borrows loop and store. Serves what is there already: 0, or -errno with a sentence; then the
 * reactors are still the caller's. When the store or a reactor is lost the loop is told to quit, and blkback_result()
 * says why. */
int blkback_new(struct loop *loop, struct store_client *store, struct reactors *reactors, uint16_t domid,
                struct blkback **out, struct err *e);
/* Stops the reactors: drains, and leaves the devices' states for a successor. */
void blkback_free(struct blkback *b);
int blkback_result(const struct blkback *b, struct err *e);
/* NULL where there is none. */
const struct blkdev *blkback_device(const struct blkback *b, uint16_t front_domid, uint32_t devid);
/* The device with the least (front_domid, devid) above these two, or of all: NULL where there is none. */
const struct blkdev *blkback_device_after(const struct blkback *b, bool all, uint16_t front_domid, uint32_t devid);

#endif
