/* SPDX-License-Identifier: MIT */
/* backend/blk/blkqueue.h: the data path of one ring: requests in, I/O through io_uring, responses out.
 *
 *   take     copy requests out · decode · DMA get · map to the image · prepare SQEs         blkqueue_take()
 *   I/O      completions continue short transfers, and finish requests: DMA put · response written into the ring
 *   publish  one push and at most one notification for all responses of a pass              blkqueue_publish()
 *   arm      the ring is empty: ask for an event, look once more                            blkqueue_arm()
 *
 * Life: the control thread makes a queue, posts it to the reactor (engine.h), and gets it back, detached, to free it.
 * In between it belongs to the reactor; the control thread reads `stats` and nothing else. Everything a request needs
 * is allocated in blkqueue_new(): as many requests as the ring has entries, and the ring check of ring.h makes sure
 * that there are never more. Of requests with more segments than fit a slot there are only BLKQUEUE_LARGE_MAX: one that
 * finds none is parked, decoded, and nothing more is taken from this ring until one is free. So a guest with large
 * requests has at most 8 MiB of them under way, and its neighbours their turn.
 *
 * Where both ends agreed on bus addresses, segments name bus pages, and the guest maps and unmaps them (blkbus.h).
 *
 * An indirect request's segments lie in a page of the guest's: it is copied into the reactor's memory, once, and what
 * is checked and used is the copy.
 *
 * What the guest can do: a request that is wrong gets its error response, and is counted. A ring index that lies, or
 * more than BLKQUEUE_MISSES_MAX references that the hypervisor does not know (each costs dom0 a round trip), is a
 * fault, as is a channel that takes long to notify (blktell.h): the queue never touches the ring again, lets its I/O
 * end and tells the control thread. Events without cause cost one look at the ring each; a guest that keeps sending
 * them is listened to once a BLKQUEUE_PAUSE. Its process may vanish at any moment: memory that is mapped stays mapped
 * until the detach.
 *
 * Live changes. What a queue works by (limits, image, DMA strategy) changes only while it is held: it takes no more
 * from its ring, lets what it took end under the old rules, and tells the control thread, which changes image and
 * limits while the guest's requests wait in the ring, and has it go on. What was parked is judged again by the new
 * rules. A queue whose disk has a rate stops taking when that is used up, is not active meanwhile, and is woken by a
 * timer of the ring, so a throttled disk neither spins nor keeps the reactor awake.
 *
 * Order: requests run at the same time and in no order, as the protocol allows. A flush covers the writes that were
 * answered before it was taken, because these are with the kernel by then: fdatasync() does the rest. One of these runs
 * at a time for a queue; flushes that come meanwhile share the next, so a guest that floods flushes keeps one worker of
 * the kernel busy and not all. A flush with data syncs first and then writes. After a sync that failed all flushes fail
 * (image.h). Discards and write-zeroes are done one after the other, as flushes are (blkspan.h). A barrier is parked
 * until all requests before it have ended, then it syncs, writes, syncs again, and only after that is the next request
 * taken: nothing passes it in either direction.
 */
#ifndef BLK_BLKQUEUE_H
#define BLK_BLKQUEUE_H

#include "backend/blk/blkalign.h"
#include "backend/blk/blkbus.h"
#include "backend/blk/blkpool.h"
#include "backend/blk/blkstats.h"
#include "backend/blk/blkstop.h"
#include "backend/blk/blktell.h"
#include "backend/blk/image.h"
#include "backend/blk/journal.h"
#include "backend/blk/mailbox.h"
#include "backend/blk/throttle.h"
#include "backend/blk/uring.h"
#include "grant/dma.h"
#include "grant/window.h"
#include "platform/platform.h"
#include "ring/ring.h"

#define BLKQUEUE_RING_PAGES_MAX 16 /* of the protocol, in any places. What is offered: blkdev.h */
#define BLKQUEUE_BUDGET         64 /* requests a queue may start in one pass of all queues: unmeasured */
/* … where the guest polls for its responses: it works on the first while we work on the rest. Measured on two cores
 * with 32 and 128 in flight: 16, 24 and 32 serve the same; where the guest sleeps they serve less. */
#define BLKQUEUE_BUDGET_POLLED 16
/* … and no more once it has started so much: what the page cache has is copied in the submission, and nobody is
 * answered before that ends: 8 reads of 128 KiB take 100 us, after which the guest would be asleep. */
#define BLKQUEUE_BYTES          (512u << 10)
#define BLKQUEUE_BYTES_POLLED   (128u << 10)
#define BLKQUEUE_BUDGET_MIN     4  /* of a queue whose disk has so many on one reactor that they share its budget */
#define BLKQUEUE_AHEAD          2  /* slots that are fetched before their turn */
#define BLKQUEUE_MISSES_MAX     64 /* more unknown references than any honest driver has in its life */
#define BLKQUEUE_FALSE_ARMS_MAX 8  /* looks at a ring that says "work" and has none */
#define BLKQUEUE_SPURIOUS_MAX   16 /* events in a row without one request … */
#define BLKQUEUE_PAUSE_NS       1000000 /* … cost the guest this much latency */
#define BLKQUEUE_RETRIES_MAX    16      /* of an I/O that the kernel interrupts without any progress */
#define BLKQUEUE_SLOT_BYTES_MAX sizeof(union blkif_sring_entry)
#define BLKQUEUE_KEEP_SLOT      33 /* pages kept for each slot of the ring; as Linux's backend: 1056 for one page */
#define BLKQUEUE_LARGE_MAX      8  /* requests of more than a slot's segments: 8 MiB, more than keeps a disk busy */

struct blkdev;
struct blkqueue;
struct ticker;
struct blk_request;

/* What all queues of one reactor share. */
struct reactor {
    struct uring uring;
    struct platform *platform;
    struct gntmarks *marks; /* shared with the other reactors; NULL: there are none */
    struct mailbox *to_control, *to_reactor;
    pthread_t thread;
    struct list active;          /* queues to be looked at in each pass; the others wait for an event */
    struct list dirty;           /* queues with responses to publish */
    bool unmapped;               /* in this pass: an unmap of bus addresses has ended, maybe behind the publishing */
    uint32_t in_flight;          /* I/O operations of all queues */
    uint32_t in_flight_threaded; /* of these: those that another thread may have to do, io-wq's */
    unsigned draining;           /* queues on their way out */
    uint64_t now_ns;             /* the clock, as of this pass (engine.h) */
    struct ticker *ticker;       /* the engine's */
    /* An indirect request between its guest's pages and its start, within one call: the copy, and what was checked. */
    struct blkif_request_segment indirect[BLKREQ_INDIRECT_SEGMENTS_MAX];
    struct blkreq_segment segment[BLKREQ_INDIRECT_SEGMENTS_MAX];
    /* A map request likewise: the grants, and their frames. */
    uint32_t bus_gref[BLKREQ_BUS_PAGES_MAX], bus_frame[BLKREQ_BUS_PAGES_MAX];
};

/* How a reactor waits (engine.h), from the least keen on. */
enum engine_poll { ENGINE_DEFAULT, ENGINE_INTERRUPT, ENGINE_ADAPTIVE, ENGINE_POLL };

struct blkqueue_config {
    struct blkdev *owner;    /* the control thread's */
    struct journal *journal; /* borrowed until freed; NULL: what is in flight is not written down */
    uint16_t front_domid;
    uint32_t devid, index; /* the device, and which of its queues this is */
    unsigned ring_pages;
    uint32_t ring_ref[BLKQUEUE_RING_PAGES_MAX];
    uint32_t port; /* the guest's */
    const struct blk_protocol *protocol;
    const struct dma_strategy *dma;
    struct iommu *iommu;       /* the role's; borrowed; may be NULL */
    struct intremap *remap;    /* its interrupt table likewise */
    struct iommu_space *space; /* the device's, borrowed: segments are bus pages, and `dma` is iommu; NULL: grants */
    bool iommu_deferred;
    bool persistent;           /* both ends want grants to stay mapped */
    bool take_over;            /* of the domain's grants: no I/O of a predecessor is under way */
    const struct image *image; /* borrowed until detached */
    bool stop_on_error;        /* blkstop.h */
    struct throttle *throttle; /* the device's, borrowed; NULL: none */
    enum engine_poll poll;
    unsigned share; /* queues of the disk that its reactor has: a pass's budget is the disk's. 0: one */
    struct blkreq_limits limits;
};

/* What may change while a queue is held. */
struct blkqueue_change {
    struct blkreq_limits limits;
    const struct dma_strategy *dma;
};

/* Why nothing is taken from the ring. */
enum blkqueue_pause {
    BLKQUEUE_PAUSE_HOLD = 1 << 0, /* the control thread asked for it */
    BLKQUEUE_PAUSE_RATE = 1 << 1, /* its rate is used up: a timer runs */
    BLKQUEUE_PAUSE_STOP = 1 << 2, /* the storage failed (blkstop.h) */
};

/* Letters of a queue. */
enum blkqueue_word {
    BLKQUEUE_ATTACH = 1 << 0, /* to the reactor */
    BLKQUEUE_DETACH = 1 << 1,
    BLKQUEUE_REFRESH = 1 << 2,   /* write the DMA strategy's numbers into stats */
    BLKQUEUE_ATTACHED = 1 << 3,  /* to control: q->result and q->err say how it went */
    BLKQUEUE_FAULTED = 1 << 4,   /* q->fault says why; detach it */
    BLKQUEUE_DETACHED = 1 << 5,  /* all is given back: it is control's to free */
    BLKQUEUE_HOLD = 1 << 6,      /* to the reactor: take nothing more, say when nothing is under way */
    BLKQUEUE_RESUME = 1 << 7,    /* with q->change as it is to be from now on */
    BLKQUEUE_TUNE = 1 << 8,      /* the throttle or q->poll has changed */
    BLKQUEUE_HELD = 1 << 9,      /* to control: image and q->change are its to change */
    BLKQUEUE_RESUMED = 1 << 10,  /* q->result and q->err say whether the DMA strategy was had */
    BLKQUEUE_RETRY = 1 << 11,    /* to the reactor: do again what the storage failed */
    BLKQUEUE_GIVE_UP = 1 << 12,  /* … answer it with its errors, and what fails from now on */
    BLKQUEUE_STOPPED = 1 << 13,  /* to control: stats.held has changed, to or from 0, or was tried in vain */
    BLKQUEUE_UNMAPPED = 1 << 15, /* no letter of a queue but of an unmap: blkbus_letter() */
    BLKQUEUE_REST = 1 << 14,     /* to the reactor: give back the memory that an idle queue does not need */
};

enum blkqueue_state { BLKQUEUE_NEW, BLKQUEUE_RUNNING, BLKQUEUE_BROKEN, BLKQUEUE_DRAINING, BLKQUEUE_RELEASED };

struct blkqueue {
    struct blkqueue_config config;
    enum blkqueue_state state;
    bool broken; /* the ring is not to be touched any more, in whatever state */
    struct reactor *reactor;

    struct ring_back ring;
    uint32_t request_count; /* ring.entries */
    struct blkpool small, large;
    struct journal_queue journal;
    struct blkstop stop;
    bool parked;       /* taken from the ring, and has to wait: `waiting` */
    bool barrier;      /* one is under way: nothing else is */
    uint8_t paused;    /* enum blkqueue_pause */
    bool throttled;    /* there is a limit */
    bool threaded;     /* other threads do its transfers, or may have to */
    uint8_t sqe_flags; /* of its transfers */
    bool recorded;     /* the image writes down what is done to it */
    struct blkreq waiting;
    struct list active_link, dirty_link;
    struct list engine_link; /* the engine's: all queues that are attached */
    unsigned false_arms;
    uint32_t budget[2], sectors_max[2]; /* of a pass, by peer_polls */
    bool peer_polls;                    /* it did not ask to be told of the last responses */

    struct uring_op sync_op;
    int64_t sync_number;              /* of a recorded image: where the record of its begin is, or -errno */
    struct blk_request *sync_running; /* the flushes that the fdatasync() under way serves; a list by next */
    struct blk_request *sync_waiting; /* those that came after it began */

    int companion_fd;    /* synced before it (image.h); -1: there is none */
    bool sync_companion; /* that is being done */
    int sync_fd;         /* image_sync_open(): the control thread's, as opening and closing may wait for the storage */
    bool sync_borrowed;  /* while held: it is the image's own, which may get another */

    /* Discards and write-zeroes (blkspan.h). */
    struct uring_op span_op;
    struct blk_request *span_running;
    struct blk_request *span_waiting, *span_last; /* a queue by next; _last: valid where _waiting is not NULL */
    unsigned span_refused, span_retries;
    struct iovec span_iov[16]; /* 1 MiB of zeroes */

    struct blkbus *bus;     /* NULL: segments are grants */
    struct blkalign *align; /* NULL: whatever the guest may ask for the storage can do */

    struct dma *dma;
    struct gntmap *map;
    struct gntkeep *keep; /* NULL where grants do not stay mapped */
    struct frametable *frames;
    uint64_t misses_before;
    uint64_t enters_before, registrations_before; /* of the reactor's ring, when the queue came there */
    int32_t file_index;                           /* of image->fd; -1: not registered */
    uint32_t file_in_flight;

    struct gntmap_page page[BLKQUEUE_RING_PAGES_MAX];
    unsigned pages_mapped;
    struct grant_window window; /* over these pages: the ring */
    uint32_t instance;          /* the guest's process that the ring belongs to */

    struct evtchn channel;
    struct blktell tell;
    struct uring_op event_op, pause_op;
    bool event_posted; /* the poll of the channel or a pause is with the kernel */
    unsigned spurious; /* events since the last request */

    _Atomic uint8_t poll;          /* enum engine_poll: the control thread's to write, at any time */
    struct blkqueue_change change; /* the control thread's from HELD to RESUME */
    struct uring_op rate_op;
    struct __kernel_timespec rate_wait;
    bool rate_posted;         /* the timer is with the kernel */
    uint64_t sectors_charged; /* of those read, written and zeroed, so many are paid for */

    struct letter to_reactor, to_control;
    int result; /* of the attach or the resume */
    enum blkqueue_fault fault;
    struct err err;
    struct blkstats stats;
};

/* ---- control thread ---- */
int blkqueue_new(const struct blkqueue_config *config, struct blkqueue **out, struct err *e);
void blkqueue_free(struct blkqueue *q); /* never attached, or detached; NULL is fine */
const char *blkqueue_fault_text(enum blkqueue_fault fault);

/* ---- reactor: attaching (blkqueue_attach.c) ---- */
/* Maps the ring, binds the channel, sets up the DMA row: 0, or a negative errno or positive code of the guest's with a
 * sentence; then nothing is held. */
int blkqueue_attach(struct blkqueue *q, struct reactor *r, struct err *e);
int blkqueue_dma_setup(struct blkqueue *q, const struct dma_strategy *dma, struct dma **out, struct err *e);
/* No more requests are taken; what is in flight ends and is answered. */
void blkqueue_detach(struct blkqueue *q);
/* Draining and empty: may be released. */
bool blkqueue_drained(const struct blkqueue *q);
/* Gives all back and tells the control thread. */
void blkqueue_release(struct blkqueue *q);
/* The guest broke the protocol or is gone. */
void blkqueue_break(struct blkqueue *q, enum blkqueue_fault fault);
void blkqueue_refresh(struct blkqueue *q);
/* Gives the memory of its requests and of its DMA back to the kernel, where none is under way. */
void blkqueue_rest(struct blkqueue *q);

/* ---- reactor: live changes (blkqueue_live.c) ---- */
/* Nothing more is taken; when all that was taken has ended, BLKQUEUE_HELD is posted. Not where the queue is on its way
 * out: then the control thread hears of that. */
void blkqueue_hold(struct blkqueue *q);
/* A request has ended while the queue is held. */
void blkqueue_held_check(struct blkqueue *q);
/* Goes on, as q->change says; where its DMA strategy cannot be had, with the one there was. */
void blkqueue_resume(struct blkqueue *q);
/* Looks at the throttle anew. */
void blkqueue_rate_changed(struct blkqueue *q);
/* False: the rate is used up, and the queue sleeps until there is more. */
bool blkqueue_rate_begin(struct blkqueue *q);
/* Pays for what was taken since. */
void blkqueue_rate_charge(struct blkqueue *q);
/* The queue stops: no timer wakes it any more. */
void blkqueue_rate_stop(struct blkqueue *q);

/* ---- reactor: the data path (blkqueue.c, blkrequest.c) ---- */
/* Takes what its budget allows: the number of requests. */
unsigned blkqueue_take(struct blkqueue *q);
/* A request has ended: starts what is parked if that was what it waited for, also while the queue drains. */
void blkqueue_unpark(struct blkqueue *q);
/* Is there anything in the ring? Reads one word. */
bool blkqueue_waiting(const struct blkqueue *q);
void blkqueue_publish(struct blkqueue *q);
/* False: the queue is asleep until its event. True: something came meanwhile. */
bool blkqueue_arm(struct blkqueue *q);
/* Awaits the channel's events, and looks at the ring for what came before. */
void blkqueue_listen(struct blkqueue *q);
/* Looks at the ring in the next pass. */
void blkqueue_activate(struct blkqueue *q);
bool blkqueue_all_idle(const struct blkqueue *q);
/* Answers a request that may not be done: BLKREQ_E_*. */
void blkqueue_refuse(struct blkqueue *q, const struct blkreq *req, int code);

#endif
