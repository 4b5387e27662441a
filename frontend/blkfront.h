/* SPDX-License-Identifier: MIT */
/* frontend/blkfront.h: one virtual disk, seen from the guest; private to frontend/.
 *
 *   blkfront.c        what a disk is made of: open, close
 *   blkfront_memory.c how many rings it has, how large they and their requests are, and the memory for all
 *   blkfront_life.c   xenbus: connect, reconnect, detach (control path: store round trips)
 *   blkfront_close.c  the end of it
 *   blkfront_bus.c    its memory, mapped for a device behind an IOMMU
 *   blkfront_queue.h  one ring and its books · blkfront_gate.h who may touch them
 *   blkfront_io.c     requests out, responses in (data path: no allocation, no log, no system call but the
 *                     notification)
 *   blkfront_unusual.c, _merge.c, _late.c  what is not one plain transfer in one request; timeouts
 *   blkfront_bounce.c memory that is not the pool's
 *   blkfront_wait.c   spinning, sleeping, when to look at the control path
 *   blkfront_sync.c   read, write, flush of any length over the above, from any thread
 *
 * A disk is a control part (this struct) and 1 to 16 queues. A queue is touched by whoever has passed its gate: its
 * user's thread, or the control path, which holds `control` and has closed all gates. So what is in this struct is
 * written by the control path only, with the gates closed, and read by every user inside a gate without a lock.
 *
 * Whoever finds news of the store or the platform (each queue watches both) runs the control path: vbd_control(). Locks
 * are taken in this order: a disk's `control`, the gates, its `pool_lock`, its domain's lock.
 *
 * The disk's store client is its own, so watch events need no routing; the platform connection is the domain's.
 */
#ifndef FRONTEND_BLKFRONT_H
#define FRONTEND_BLKFRONT_H

#include <pthread.h>

#include "frontend/blkfront_queue.h"
#include "frontend/domain.h"
#include "xenbus/keys_blk.h"

#define VBD_DEPTH_DEFAULT 32u        /* default of dz_vbd_options.queue_depth */
#define VBD_SYNC_DEPTH    32u        /* requests that a synchronous call has in flight */
#define VBD_DISCARD_BYTES (1u << 30) /* of a discard that a synchronous call sends: a backend may do one at a time */

#define VBD_CONTROL_MS     10    /* a poller looks at the control path that often; unmeasured, it costs one poll() */
#define VBD_TIMEOUT_MS     10000 /* default of dz_vbd_options.timeout_ms */
#define VBD_DETACH_MS      1000  /* a backend that takes the disk away gets that long from response to response */
#define VBD_EPOCHS         4     /* of a request timeout: blkfront_late.c */
#define VBD_GONE_MS        1000  /* a close does not wait longer for a backend that is not there */
#define VBD_LOOK_MS        100   /* … and looks that often whether it is */
#define VBD_WATCH_TOKEN    "vbd"
#define VBD_POOL_BYTES     (4u << 20)
#define VBD_BUS_PIECES_MAX (POOL_PAGES_MAX / BLKREQ_BUS_PAGES_MAX)
#define VBD_SPURIOUS       64 /* events in a row without a response, after which the channel is not listened to … */
#define VBD_SPURIOUS_MS    1  /* … for that long (XSA-391) */

enum vbd_life {
    VBD_CONNECTING, /* being opened, or the backend is away: requests gather in the shadows */
    VBD_MAPPING,    /* connected, and our memory is not mapped yet: they gather on. blkfront_bus.c */
    VBD_CONNECTED,
    VBD_FAILED, /* no request is taken any more: `failed`, `why` */
};

/* Bus addresses: blkfront_bus.c. */
struct vbd_bus {
    unsigned bits;                        /* of one, in this connection; 0: there are none, segments name grants */
    uint32_t unanswered, answered;        /* pieces of the pool: how many; a bit for each */
    uint64_t wanted[VBD_BUS_PIECES_MAX];  /* … asked for in this connection, in bytes; 0: anywhere */
    uint64_t address[VBD_BUS_PIECES_MAX]; /* … where it is, or was; 0: nowhere yet */
    uint32_t *page;                       /* by page of the pool: its bus page */
    struct pool *lists;                   /* a page of the pool's references for each piece */
};

struct dz_vbd {
    /* What the data path reads. */
    enum vbd_life life;
    int failed;
    uint32_t segments_max; /* of a request */
    uint32_t spin_us;
    bool merge;        /* option */
    uint64_t epoch_ns; /* a quarter of the request timeout, an option or a key; 0: there is none */
    struct dz_vbd_info info;
    struct pool *pool, *ring_pool; /* ring_pool: each queue's ring, then each of its slots' pages of segments */
    const uint32_t *ref_of_page;   /* what a segment says of a page of the pool: its grant, or its bus page */
    bool references_new;           /* … other than in the last connection */
    uint32_t queue_count;          /* 1 until the backend was seen */
    struct dz_queue *queue[KEYS_BLK_QUEUES_MAX];
    struct err why;

    struct dz_domain *dom;
    struct list in_domain;
    char name[16];
    pthread_mutex_t control;
    struct store_client *store;
    struct xb_device device;
    bool watched;
    bool world_gone;       /* store or hypervisor role: nothing more is said to either */
    bool ours;             /* our keys are in the directory: we published once */
    bool starting_over;    /* opening, and a dead predecessor's connection is not closed yet */
    bool opened;           /* was connected once */
    bool biased;           /* the gates' fast way: membarrier() is to be had */
    bool no_persistent;    /* option: the backend is not told that it may keep grants mapped */
    bool no_bus_addresses; /* option: nor is its offer of bus addresses taken */
    struct vbd_bus bus;
    uint64_t reconnects;
    uint64_t peerless_since_ns; /* closing: since when nobody is at the other end; 0: somebody is */

    /* Options. */
    uint32_t timeout_ms, pool_bytes, depth_wanted, queues_wanted;

    struct keys_blk_features offer; /* the backend's, of this connection */
    unsigned ring_order;
    uint32_t slots;            /* of each ring; 0 until the backend was seen */
    pthread_mutex_t pool_lock; /* of `shared` */
    struct pool_area shared;   /* the pool's pages for dz_buffer_alloc(), and for what queues bounce beyond their own */
};

/* ---- blkfront_life.c ---- */
int vbd_connect(struct dz_vbd *v, struct err *e); /* until connected, or timeout_ms: then -ETIMEDOUT */
/* Handles what the store and the platform have to say. Outside any gate. `patient`: waits for another thread that does;
 * else leaves it to that one. */
void vbd_control(struct dz_vbd *v, bool patient);
/* The queue's backend misbehaves, q->wrong says how: the disk fails. Outside any gate. */
void vbd_fail_queue(struct dz_queue *q);

/* For the control path: all in flight is finished with `code` and nothing is taken any more; v->why says why. */
void vbd_end(struct dz_vbd *v, int code);
/* Shows the state in our directory where that is there and the table allows it. */
void vbd_show(struct dz_vbd *v, xb_state to);
/* Takes all waiting events of the store: how many, or -errno. */
int vbd_store_drain(struct dz_vbd *v);
void vbd_channels_close(struct dz_vbd *v);

/* ---- blkfront_close.c ---- */
/* 5, 6, as far as the backend answers in that time; then what is still in flight is -ECANCELED. The memory goes after
 * it: given back, or kept as long as the backend holds it. */
void vbd_disconnect(struct dz_vbd *v, uint64_t deadline_ns);
/* Closing: the backend is not there, or does not talk to us any more. */
bool vbd_backend_gone(struct dz_vbd *v);

/* ---- blkfront_bus.c; control path ---- */
/* The offer is there, and about to be answered: are bus addresses used in this connection? v->bus.bits. */
int vbd_bus_agree(struct dz_vbd *v, struct err *e);
/* Connected: has the pool mapped, VBD_MAPPING until that is done. */
int vbd_bus_begin(struct dz_vbd *v, struct err *e);
/* Takes what was answered: 1: all is mapped, 0: not yet, or -errno. */
int vbd_bus_look(struct dz_vbd *v, struct err *e);
/* The users of other queues hear of queue 0's channel no more. */
void vbd_bus_unwatch(struct dz_vbd *v);
void vbd_bus_free(struct dz_vbd *v);

/* ---- blkfront_memory.c ---- */
/* The backend offers these: the first time sizes the disk and makes its memory; later it must offer no less. */
int vbd_memory_fit(struct dz_vbd *v, const struct keys_blk_features *offer, struct err *e);
void vbd_memory_free(struct dz_vbd *v);
/* The first page of the queue's ring in the ring pool. */
uint32_t vbd_ring_page(const struct dz_queue *q);
void vbd_ring_init(struct dz_queue *q); /* an empty ring, for a backend that has not seen it */
/* Counted over all queues. */
unsigned vbd_in_flight(const struct dz_vbd *v);

#endif
