/* SPDX-License-Identifier: MIT */
/* backend/blk/blkdev.h: one disk of one guest, as the control thread sees it: its xenbus device, its image, its queues.
 *
 * The state table (xenbus/state.h) says what to do; blkdev_react() does it, again and again until the table says wait,
 * a step has to wait for reactors (attach, detach) or for the image's lock. Each step may be interrupted there and
 * repeated: it looks at what is held and not at how it came to be called.
 *
 *   Initialising, Closed   nothing is held
 *   InitWait               the image is open and locked
 *   Connected              its queues are attached, each to a reactor
 *   Closing                nothing, or queues that are on their way out
 *
 * A device has as many queues as its frontend asked for, within what was offered. They come and go together: it is
 * connected when all are attached, a fault of one is the device's, and what one cannot have none has.
 *
 * A failure, ours or the guest's, closes this one device: `error` in its directory says why, state Closing and then
 * Closed, the image is released. What the frontend writes next starts it over. A guest whose process died leaves its
 * state behind; its device is closed the same way and waits for a new process to show Initialising.
 *
 * Takeover: a device that is found in InitWait or Connected when the role starts was served by a predecessor. It goes
 * to InitWait with its image open, and is connected when the frontend has published a new ring. The predecessor's last
 * writes may still be on their way to the image; its lock is held until they have landed, so the open is tried again
 * for BLKDEV_LOCK_WAIT_NS, while other devices go on.
 */
#ifndef BLK_BLKDEV_H
#define BLK_BLKDEV_H

#include "backend/blk/reactors.h"
#include "base/log.h"
#include "xenbus/keys_blk.h"

#define BLKDEV_LOCK_WAIT_NS (10 * CLOCK_NS_PER_S)
#define BLKDEV_RING_ORDER   4 /* offered: 512 requests */
/* Of one write-zeroes: 32 MiB, which a disk without a better way writes in a tenth of a second or two. */
#define BLKDEV_ZEROES_SECTORS 65536
#define BLKDEV_STEPS_MAX      16 /* state changes at a time; the longest way of the table is 4 → 5 → 6 → 2 */

enum blkdev_phase { BLKDEV_IDLE, BLKDEV_ATTACHING, BLKDEV_ATTACHED, BLKDEV_DETACHING };

struct blkdev_queue {
    struct blkqueue *queue; /* NULL: its attach failed, or it is detached */
    unsigned reactor;
    struct blkstats_seen seen;
    uint64_t stats_looked_at; /* requests and events at the last tick */
};

struct blkdev {
    struct list link; /* the owner's */
    struct reactors *reactors;
    struct xb_device xb;
    char token[32]; /* of the watch on the frontend's state */
    struct keys_blk_config config;
    struct image *image;
    struct blkdev_queue *queue; /* of this connection, queue_count; NULL where none is held */
    unsigned queue_count, queues_held;
    unsigned awaited; /* answers of reactors that this phase waits for */
    enum blkdev_phase phase;
    bool dirty;      /* the owner's: something happened, react */
    bool failed;     /* until the frontend's state is written again */
    bool removed;    /* its directory is gone: so is it, as soon as its queues are */
    bool locked;     /* waiting for somebody to let go of the image */
    bool flush_lost; /* image_sync_error(), and it was said */
    uint64_t lock_deadline_ns;
    int fault_code; /* 0: none; else the device fails with `fault` once its queues are detached */
    struct err fault;
    struct log_limiter limiter;
    struct stats_blk past; /* what queues counted that are gone */
    uint64_t since_ns;     /* when it was seen first */
    unsigned connects;
};

/* The device with these directories: NULL where there is none, or no memory. `inherited`: the role starts just now. */
struct blkdev *blkdev_new(struct store_client *store, struct reactors *reactors, uint16_t back_domid,
                          uint16_t front_domid, uint32_t devid, bool inherited);
/* Its queues are detached, or the reactors gone. Closes the image; leaves the store as it is. */
void blkdev_free(struct blkdev *d);
void blkdev_react(struct blkdev *d);
/* The frontend wrote its state. */
void blkdev_peer_event(struct blkdev *d);
/* Somebody wrote into our own directory, or took it away. */
void blkdev_own_event(struct blkdev *d);
void blkdev_queue_event(struct blkdev *d, struct blkqueue *q, uint32_t words);
/* Removed, and nothing is held any more: to be freed. */
bool blkdev_finished(const struct blkdev *d);
/* Tries the image again; -EAGAIN while it is still locked. */
void blkdev_retry(struct blkdev *d);
/* Once a second: news of errors into the log; has the DMA strategy's numbers brought up to date. */
void blkdev_tick(struct blkdev *d);

/* All numbers since the device was seen first, as the statistics socket gives them (blkdev_stats.c). */
void blkdev_stats(const struct blkdev *d, struct stats_blk_reply *out);
/* Of one queue, since it was connected: false where there is none of that number. */
bool blkdev_stats_queue(const struct blkdev *d, unsigned queue, struct stats_blk_reply *out);
/* Before a queue is freed: its numbers stay the device's. */
void blkdev_stats_keep(struct blkdev *d, const struct blkqueue *q);

#endif
