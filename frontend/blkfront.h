/* SPDX-License-Identifier: MIT */
/* frontend/blkfront.h: one virtual disk, seen from the guest; private to frontend/.
 *
 *   blkfront.c        what a disk is made of: open, close
 *   blkfront_memory.c how large its ring and its requests are, and the memory for both
 *   blkfront_life.c   xenbus: connect, reconnect, detach (control path: store round trips)
 *   blkfront_io.c     requests out, responses in (data path: no allocation, no log, no system call but the
 * notification) blkfront_wait.c   spinning, sleeping, when to look at the control path blkfront_sync.c   read, write,
 * flush of any length over the above
 *
 * A request that was submitted lives in a shadow slot until its response came: the caller's dz_io, a private copy of
 * the request, its bounce pages. The wire id is sequence * VBD_SLOTS_MAX + slot, so it is never used twice: a response
 * counts only where its slot is in use by exactly that id, was published, and the operation matches; a backend that
 * answers twice, late or with garbage is caught even where the slot has a new user. Then the disk fails: xenbus
 * Closing with the reason, everything in flight -EIO; nothing is read or written on the word of such a response.
 *
 * The shadow is also what a restarted backend is given again: the ring page is initialised anew, a new event channel
 * made, both published with the same grant references, and each request still in a slot put again in the order of its
 * submission. A request of more segments than fit a slot is an indirect one: each slot of the ring has a granted page
 * for them, which is written anew from the private copy whenever the request is put. Requests submitted while the
 * backend is away only fill slots. That is safe as the only trace of the dead backend are pages it may have written for
 * reads that are done again, and reading/writing bits in grant entries, which its successor's maps of the same
 * references take over and clear (pool.h). A request answered before the death was taken from the ring first.
 *
 * Finished requests queue in `done` (linked through dz_io.private_[0]) until the caller reaps; private_[1] is 0, or the
 * struct vbd_sync of a synchronous call, which gets its completions directly.
 *
 * The disk's store client is its own, so watch events need no routing; the platform connection is the domain's.
 */
#ifndef FRONTEND_BLKFRONT_H
#define FRONTEND_BLKFRONT_H

#include "frontend/domain.h"
#include "ring/blkreq.h"
#include "ring/ring.h"
#include "xenbus/keys_blk.h"

#define VBD_SLOTS_MAX     512u       /* of a ring of 16 pages in the native ABI */
#define VBD_DEPTH_DEFAULT 32u        /* default of dz_vbd_options.queue_depth */
#define VBD_SYNC_DEPTH    32u        /* requests that a synchronous call has in flight */
#define VBD_DISCARD_BYTES (1u << 30) /* of a discard that a synchronous call sends: a backend may do one at a time */

#define VBD_CONTROL_MS  10    /* a poller looks at the control path that often; unmeasured, it costs one poll() */
#define VBD_TIMEOUT_MS  10000 /* default of dz_vbd_options.timeout_ms */
#define VBD_DETACH_MS   1000  /* a backend that takes the disk away gets that long from response to response */
#define VBD_POOL_BYTES  (4u << 20)
#define VBD_SPURIOUS    64 /* events in a row without a response, after which the channel is not listened to … */
#define VBD_SPURIOUS_MS 1  /* … for that long (XSA-391) */

enum vbd_life {
    VBD_CONNECTING, /* being opened, or the backend is away: requests gather in the shadow */
    VBD_CONNECTED,
    VBD_FAILED, /* no request is taken any more: `failed`, `why` */
};

struct vbd_shadow {
    struct dz_io *io; /* NULL: free */
    struct blkreq request;
    struct blkreq_segment *segment; /* segments_max of them, of an indirect request; private, as all here */
    uint16_t *bounce;               /* pages of the pool, up to segments_max */
    uint32_t bounce_count;          /* 0: the caller's memory is the pool's */
};

struct vbd_sync {
    unsigned in_flight;
    int result;         /* 0 or the first error */
    struct dz_io *free; /* linked through private_[0] */
};

struct dz_vbd {
    struct dz_domain *dom;
    struct list in_domain;
    char name[16];

    struct store_client *store;
    struct xb_device device;
    bool watched;
    bool world_gone;    /* store or hypervisor role: nothing more is said to either */
    bool ours;          /* our keys are in the directory: we published once */
    bool starting_over; /* opening, and a dead predecessor's connection is not closed yet */
    uint32_t timeout_ms;
    enum vbd_life life;
    bool opened; /* was connected once */
    int failed;
    struct err why;

    uint32_t pool_bytes, depth_wanted; /* options */
    unsigned ring_order;
    uint32_t slots;        /* of the ring; 0 until the backend was seen */
    uint32_t segments_max; /* of a request; also the pages beyond pool_bytes that dz_buffer_alloc() leaves, so that one
                              bounced request can always go on */
    struct pool *pool, *ring_pool; /* ring_pool: the ring's pages, then each slot's page of segments */
    struct evtchn channel;
    int epoll_fd; /* channel, store, platform */

    struct dz_vbd_info info;
    uint32_t spin_us;
    struct ring_front ring;
    uint64_t sequence, published; /* of the next submission; of the first that the backend was not told of */
    unsigned free_count;
    uint16_t *free_slot; /* slots of them, as of the shadows */
    struct vbd_shadow *shadow;
    struct blkreq_segment *segments; /* what the shadows' pointers point into */
    uint16_t *bounces;
    struct dz_io *done, *done_last; /* done_last: valid where done is not NULL */
    uint64_t finished;              /* requests that came back, ever */
    bool armed;                     /* the caller may have slept on the descriptor */
    unsigned spurious;              /* events without a response, in a row */
    uint64_t control_at_ns;         /* when a poller looks at the control path again */
    struct dz_vbd_stats stats;
};

/* What epoll says is ready. */
enum vbd_source { VBD_SOURCE_CHANNEL, VBD_SOURCE_STORE, VBD_SOURCE_PLATFORM };

static inline unsigned vbd_in_flight(const struct dz_vbd *v)
{
    return v->slots - v->free_count;
}

/* ---- blkfront_life.c ---- */
int vbd_connect(struct dz_vbd *v, struct err *e);            /* until connected, or timeout_ms: then -ETIMEDOUT */
void vbd_disconnect(struct dz_vbd *v, uint64_t deadline_ns); /* 5, 6, as far as the backend answers in that time */
void vbd_control(struct dz_vbd *v);                          /* handles what the store and the platform have to say */
void vbd_fail(struct dz_vbd *v, int code, const char *fmt, ...) PRINTF(3, 4);

/* ---- blkfront_memory.c ---- */
/* The backend offers these: the first time sizes the disk and makes its memory; later it must offer no less. */
int vbd_memory_fit(struct dz_vbd *v, const struct keys_blk_features *offer, struct err *e);
void vbd_memory_free(struct dz_vbd *v);
void vbd_ring_init(struct dz_vbd *v); /* an empty ring, for a backend that has not seen it */
/* The page of the ring pool with that slot's segments. */
uint32_t vbd_indirect_page(const struct dz_vbd *v, uint32_t slot);

/* ---- blkfront_io.c ---- */
int vbd_submit(struct dz_vbd *v, struct dz_io *io, struct vbd_sync *sync);
void vbd_take_responses(struct dz_vbd *v);
void vbd_replay(struct dz_vbd *v);          /* connected again: into a fresh ring */
void vbd_abort(struct dz_vbd *v, int code); /* everything in flight is finished with `code` */
unsigned vbd_done_take(struct dz_vbd *v, struct dz_io **done, unsigned max);

/* ---- blkfront_wait.c ---- */
int vbd_sources_init(struct dz_vbd *v);
int vbd_source_add(struct dz_vbd *v, enum vbd_source source, int fd);
void vbd_source_remove(struct dz_vbd *v, int fd);
/* Sleeps until a source is ready (timeout_ms 0: looks only). Takes the channel's event; true: the control path has
 * news, for vbd_control(). */
bool vbd_await(struct dz_vbd *v, int timeout_ms);
/* Waits until a request is finished or none is in flight; false: the deadline passed. */
bool vbd_progress(struct dz_vbd *v, uint64_t deadline_ns);
uint64_t vbd_deadline_ns(int timeout_ms); /* < 0: never */
int vbd_ms_until(uint64_t deadline_ns);   /* 0: passed, -1: never */

#endif
