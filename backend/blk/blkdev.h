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
 * I/O may still be under way, its writes to the image, its reads to the guest's pages: it is waited for (journal.h) as
 * long as the storage takes, and the guest sees a pause. Then the image's lock, which somebody else may have taken
 * meanwhile, is tried for BLKDEV_LOCK_WAIT_NS. Devices that are new go on.
 *
 * A device whose strategy is `iommu` offers bus addresses. A frontend that takes them gets an address space for this
 * connection, which all its queues share; the strategy can then not be another before it is closed, nor while a
 * frontend may just be taking the offer.
 *
 * Live changes. What the toolstack asks for (xenbus/keys_blk_set.h) is done when the device is between two steps. What
 * needs a quiet queue has it held (blkqueue.h), is done here, and the queue resumed; where the frontend has to hear of
 * it (size, read-only) `sectors` and `info` are rewritten and then `state`, so that its watch fires. Where the queue
 * goes meanwhile it is done without one. A refusal is a sentence in the store and harms nothing.
 */
#ifndef BLK_BLKDEV_H
#define BLK_BLKDEV_H

#include "backend/blk/reactors.h"
#include "base/log.h"
#include "xenbus/keys_blk_set.h"

#define BLKDEV_LOCK_WAIT_NS (10 * CLOCK_NS_PER_S)
#define BLKDEV_REST_TICKS   10 /* a queue that did nothing for so long gives memory back; unmeasured */
#define BLKDEV_RING_ORDER   4  /* offered: 512 requests */
/* Of one write-zeroes: 32 MiB, which a disk without a better way writes in a tenth of a second or two. */
#define BLKDEV_ZEROES_SECTORS 65536
#define BLKDEV_STEPS_MAX      16 /* state changes at a time; the longest way of the table is 4 → 5 → 6 → 2 */

enum blkdev_phase { BLKDEV_IDLE, BLKDEV_ATTACHING, BLKDEV_ATTACHED, BLKDEV_DETACHING };

/* A change that the toolstack asked for, on its way (blkdev_live.c). */
enum blkdev_live { BLKDEV_STILL, BLKDEV_HOLDING, BLKDEV_RESUMING };
struct blkdev_change {
    bool asked; /* there may be one: look */
    enum blkdev_live phase;
    struct keys_blk_set set;
    unsigned awaited; /* answers of queues that this phase waits for */
    bool tried;       /* what is in force may have changed; else the configuration was perhaps not even read */
    bool tell;        /* the frontend has to hear of it */
    struct err why;   /* what of it was refused; "": nothing */
};

struct blkdev_queue {
    struct blkqueue *queue; /* NULL: its attach failed, or it is detached */
    unsigned reactor;
    struct blkstats_seen seen;
    uint64_t stats_looked_at; /* requests, responses and events at the last tick */
    unsigned still_ticks;     /* since these changed last */
    uint64_t missing_seen;    /* of not_replayed */
};

struct blkdev {
    struct list link;            /* the owner's */
    const struct list *siblings; /* the owner's list of all devices, borrowed; NULL: none */
    struct reactors *reactors;
    struct iommu *iommu;       /* the role's, borrowed … */
    struct intremap *remap;    /* … with its interrupt table */
    struct iommu_space *space; /* of this connection: its frontend uses bus addresses; NULL: grants */
    uint32_t bus_bits;         /* what was offered, 0: no bus addresses */
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
    bool locked;     /* waiting for somebody to let go of the image, or of the role's lock */
    bool inherited;  /* a predecessor served it; its I/O may be under way */
    bool waits_long; /* said so */
    bool flush_lost; /* image_sync_error(), and it was said */
    uint64_t lock_deadline_ns;
    bool stopped;   /* the storage failed, requests are held, and the operator was told so */
    int fault_code; /* 0: none; else the device fails with `fault` once its queues are detached */
    struct err fault;
    struct throttle throttle;
    struct keys_blk_qos rated; /* what the throttle is set to */
    struct blkdev_change change;
    struct log_limiter limiter;
    struct stats_blk past; /* what queues counted that are gone */
    uint64_t since_ns;     /* when it was seen first */
    unsigned connects;
};

/* The device with these directories: NULL where there is none, or no memory. `inherited`: the role starts just now. */
struct blkdev *blkdev_new(struct store_client *store, struct reactors *reactors, struct iommu *iommu,
                          uint16_t back_domid, uint16_t front_domid, uint32_t devid, bool inherited);
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

/* ---- live changes (blkdev_live.c) ---- */
/* Somebody wrote into domzero/set of our directory. */
void blkdev_live_event(struct blkdev *d);
/* Does what is asked for, as far as that can be done now. */
void blkdev_live_react(struct blkdev *d);
/* BLKQUEUE_HELD, BLKQUEUE_RESUMED. */
void blkdev_live_queue_event(struct blkdev *d, const struct blkqueue *q, uint32_t words);
/* The queues are gone: what was begun is begun again. */
void blkdev_live_detached(struct blkdev *d);
/* The configuration was read: its rates hold. 0, or -EINVAL with a sentence. */
int blkdev_live_config(struct blkdev *d, struct err *e);
/* Its strategy is one that gives guests into each other's hands (grant/dma.h). It was asked for by name, as no default
 * is such a one; who runs it is told in the log when a frontend connects and when it is switched to, by
 * KEYS_BLK_WARNING in its directory, and by a mark in all listings. */
bool blkdev_unsafe(const struct blkdev *d);
void blkdev_warn(const struct blkdev *d); /* in the log, where it is so */
int blkdev_warning_write(struct xb_device *xb, store_tx tx, const struct blkdev *d, struct err *e);
enum engine_poll blkdev_live_poll(const struct blkdev *d);

/* ---- storage that fails (blkdev_stop.c) ---- */
/* Somebody wrote into domzero/paused. */
void blkdev_stop_event(struct blkdev *d);
/* BLKQUEUE_STOPPED, or the end of a queue. */
void blkdev_stop_queue_event(struct blkdev *d, const struct blkqueue *q);
/* What is held is answered with its errors. */
void blkdev_stop_give_up(struct blkdev *d);

/* ---- its queues (blkdev_queues.c) ---- */
struct engine *blkdev_queue_engine(const struct blkdev *d, unsigned queue);
unsigned blkdev_queue_index(const struct blkdev *d, const struct blkqueue *q);
/* Makes all that the frontend offers, or none. */
int blkdev_queues_make(struct blkdev *d, const struct keys_blk_front *front, struct err *e);
/* Sends queues from … to - 1 to their reactors. The first queue goes alone, and so does the first of each disk of a
 * guest (blkdev_domain_attaches()): the reactor that it comes to may clear what a predecessor marked in the guest's
 * grant table, and another reactor's marks look no different. */
void blkdev_queues_attach(struct blkdev *d, unsigned from, unsigned to);
/* Another disk of this guest is on its way to a reactor. */
bool blkdev_domain_attaches(const struct blkdev *d);
/* One that no reactor has: its numbers are kept, and it is freed. */
void blkdev_queue_drop(struct blkdev *d, unsigned queue);

/* ---- blkdev.c, for the above ---- */
int blkdev_image_open(const struct keys_blk_config *k, struct image **out, struct err *e);
void blkdev_queue_config(struct blkdev *d, const struct keys_blk_front *front, unsigned queue,
                         struct blkqueue_config *out);
/* Between its queues and the guest's memory: 0, or -ENOMEM with a sentence. */
int blkdev_space_make(struct blkdev *d, const struct keys_blk_front *front, struct err *e);
void blkdev_space_drop(struct blkdev *d);
/* Those limits that the image sets and that change with it; what was agreed on with the frontend stays. */
void blkdev_limits_of_image(const struct blkdev *d, struct blkreq_limits *limits);
int blkdev_disk_write(struct xb_device *xb, store_tx tx, const struct blkdev *d, struct err *e);
void blkdev_fault(struct blkdev *d, int code, const char *sentence);

/* All numbers since the device was seen first, as the statistics socket gives them (blkdev_stats.c). */
void blkdev_stats(const struct blkdev *d, struct stats_blk_reply *out);
/* Of one queue, since it was connected: false where there is none of that number. */
bool blkdev_stats_queue(const struct blkdev *d, unsigned queue, struct stats_blk_reply *out);
/* The IOMMU refused it to this device. */
bool blkdev_is_fault(const struct blkdev *d, const struct iommu_fault *f);
/* Before a queue is freed: its numbers stay the device's. */
void blkdev_stats_keep(struct blkdev *d, const struct blkqueue *q);

#endif
