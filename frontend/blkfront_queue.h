/* SPDX-License-Identifier: MIT */
/* frontend/blkfront_queue.h: one ring of a disk and its books; private to frontend/.
 *
 * A request that was submitted lives in a shadow slot until its response came: the caller's dz_io, a private copy of
 * the request, its bounce pages. The wire id is sequence * VBD_SLOTS_MAX + slot, so it is never used twice: a response
 * counts only where its slot is in use by exactly that id, was published, and the operation matches; a backend that
 * answers twice, late or with garbage is caught even where the slot has a new user. Then the disk fails: xenbus
 * Closing with the reason, everything in flight -EIO; nothing is read or written on the word of such a response.
 *
 * The shadow is also what a restarted backend is given again: the ring page is initialised anew, a new event channel
 * made, both published with the same grant references, and each request still in a slot put again in the order of its
 * submission. Where this backend names memory otherwise, by bus addresses in place of grants (blkfront_bus.c), the
 * segments are made anew. A request of more segments than fit a slot is an indirect one: each slot of the ring has a
 * granted page for them, which is written anew from the private copy whenever the request is put. Requests submitted
 * while the backend is away only fill slots. That is safe as the only trace of the dead backend are pages it may have
 * written for reads that are done again, and reading/writing bits in grant entries, which its successor's maps of the
 * same references take over and clear (pool.h). A request answered before the death was taken from the ring first.
 *
 * Finished requests queue in `done` (linked through dz_io.private_[0]) until the caller reaps; private_[1] is 0, or the
 * struct vbd_sync of a synchronous call, which gets its completions directly.
 *
 * Nothing here is touched from outside the gate (blkfront_gate.h), but the gate itself and the counters, which are
 * atomic and have one writer.
 */
#ifndef FRONTEND_BLKFRONT_QUEUE_H
#define FRONTEND_BLKFRONT_QUEUE_H

#include <assert.h>

#include "base/spin.h"
#include "domzero/domzero.h"
#include "frontend/blkfront_gate.h"
#include "frontend/pool.h"
#include "ring/blkreq_native.h"
#include "ring/evtchn.h"
#include "ring/ring.h"

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#define VBD_SLOTS_MAX 512u /* of a ring of 16 pages in the native ABI */

/* What epoll says is ready. */
enum vbd_source {
    VBD_SOURCE_CHANNEL,
    VBD_SOURCE_STORE,
    VBD_SOURCE_PLATFORM,
    VBD_SOURCE_BELL,
    VBD_SOURCE_TIMER,
    VBD_SOURCE_MAPPING, /* queue 0's channel, at the others */
    VBD_SOURCES
};

/* Whose a shadow is. */
enum vbd_shape {
    VBD_PLAIN,  /* one dz_io's, all of it */
    VBD_PART,   /* a part of a dz_io, whose private_[0] is its struct vbd_split */
    VBD_MERGED, /* several dz_ios', linked through private_[0] */
    VBD_ORPHAN, /* nobody's any more: its dz_io timed out. It holds the slot and the pages until it is answered */
};

struct vbd_shadow {
    _Alignas(64) struct dz_io *io; /* NULL: free */
    uint64_t id, sector;
    uint64_t *segment; /* segments_max words in the wire's form; private, as all here */
    uint16_t *bounce;  /* pages of the pool, up to segments_max */
    uint32_t length_bytes;
    uint32_t at_bytes;                    /* of a part: where it begins in its dz_io */
    uint16_t segment_count, bounce_count; /* bounce_count 0: the caller's memory is the pool's */
    uint16_t epoch;                       /* of the queue, when it was submitted */
    uint8_t operation, span_flag;
    uint8_t shape;
    bool late; /* it has timed out */
};

/* A dz_io that is longer than a request: so much of it was submitted. */
struct vbd_split {
    struct dz_io *io;       /* NULL: free */
    struct vbd_split *next; /* in the backlog, or free */
    uint32_t submitted_bytes, parts;
    int result; /* 0 or the first error, after which no part is submitted */
};

struct vbd_sync {
    unsigned in_flight;
    unsigned until;     /* waits until no more are */
    int result;         /* 0 or the first error */
    struct dz_io *free; /* linked through private_[0] */
};

/* A thread that waits while another sleeps on the descriptor. */
struct vbd_waiter {
    struct list link;
    const struct vbd_sync *sync; /* what it waits for; NULL: whatever comes back */
    pthread_cond_t woken;
};

/* As struct dz_vbd_stats, which sums them up. */
struct vbd_counters {
    uint64_t requests, bytes_read, bytes_written, errors, notifications_sent, notifications_received, bytes_bounced,
        replayed, merged, split, timeouts;
};

struct dz_queue {
    struct vbd_gate gate;

    struct dz_vbd *disk;
    struct ring_front ring;
    struct vbd_shadow *shadow;
    uint16_t *free_slot; /* slots of them, as of the shadows */
    uint32_t slots;      /* 0 until the backend was seen */
    uint32_t free_count;
    uint64_t sequence, published;   /* of the next submission; of the first that the backend was not told of */
    uint64_t finished;              /* requests that came back, ever */
    struct dz_io *done, *done_last; /* done_last: valid where done is not NULL */
    struct vbd_split *backlog, *backlog_last; /* with parts to submit; last: valid where backlog is not NULL */
    struct vbd_shadow *open;                  /* merging: not in the ring yet, as the next request may join it */
    struct dz_io *open_last;                  /* of its dz_ios */
    uint32_t orphans;                         /* slots without an owner */
    uint16_t epoch;                           /* a quarter of the request timeout each */
    uint64_t epoch_end_ns;                    /* not before: it ends when somebody looks */
    const char *wrong;                        /* what the backend did; the disk is about to fail */
    bool armed;                               /* the caller may have slept on the descriptor */
    bool refused;                             /* its last request got -EAGAIN */
    bool sleeping;                            /* a thread does, outside the gate … */
    const struct vbd_sync *sleeper;           /* … for that; NULL: whatever comes back */
    struct list waiting;                      /* struct vbd_waiter */
    unsigned spurious;                        /* events without a response, in a row */
    unsigned idle_looks;                      /* reaps that found nothing, since the clock was looked at */
    struct spin spin;
    uint32_t writes_in_flight; /* and whatever else is no read */
    uint64_t control_at_ns;    /* when a poller looks at the control path again */
    struct vbd_counters stats;

    uint32_t index;
    struct evtchn channel;
    int epoll_fd;                 /* channel, store, platform, bell */
    int bell_fd;                  /* rung where another thread finished what a sleeper waits for */
    int timer_fd;                 /* where requests time out: when to look, for who sleeps on the descriptor */
    struct pool_area bounce_area; /* the pool's pages for what is bounced here */
    uint64_t *segments;           /* what the shadows' pointers point into */
    uint16_t *bounces;
    struct vbd_split *splits, *free_split; /* slots of them */
};

/* One writer, any reader. */
static inline void vbd_count(uint64_t *counter, uint64_t n)
{
    __atomic_store_n(counter, __atomic_load_n(counter, __ATOMIC_RELAXED) + n, __ATOMIC_RELAXED);
}

static inline unsigned queue_in_flight(const struct dz_queue *q)
{
    return q->slots - q->free_count - q->orphans;
}

static inline struct dz_io *io_next(const struct dz_io *io)
{
    return (struct dz_io *)(uintptr_t)io->private_[0];
}

static inline struct vbd_sync *io_sync(const struct dz_io *io)
{
    return (struct vbd_sync *)(uintptr_t)io->private_[1];
}

static inline void io_owner_set(struct dz_io *io, struct vbd_sync *sync)
{
    io->private_[1] = (uintptr_t)sync;
    if (unlikely(sync))
        sync->in_flight++;
}

/* To who submitted it. */
static inline void io_finish(struct dz_queue *q, struct dz_io *io, int result)
{
    struct vbd_sync *sync = io_sync(io);
    io->result = result;
    q->finished++;
    if (unlikely(sync)) {
        sync->in_flight--;
        sync->result = sync->result ? sync->result : result;
        io->private_[0] = (uintptr_t)sync->free;
        sync->free = io;
        return;
    }
    io->private_[0] = 0;
    if (q->done)
        q->done_last->private_[0] = (uintptr_t)io;
    else
        q->done = io;
    q->done_last = io;
}

/* A free slot's shadow, to be filled and committed, or left as it is; NULL: there is none. */
static inline struct vbd_shadow *queue_shadow_begin(struct dz_queue *q)
{
    if (unlikely(!q->free_count))
        return NULL;
    uint32_t slot = q->free_slot[q->free_count - 1];
    struct vbd_shadow *s = &q->shadow[slot];
    assert(!s->io && !s->bounce_count);
    s->id = q->sequence * VBD_SLOTS_MAX + slot;
    s->segment_count = 0;
    s->epoch = q->epoch;
    s->shape = VBD_PLAIN;
    s->late = false;
    return s;
}

/* ---- blkfront_queue.c ---- */
/* Without books yet. 0 or -errno. */
int queue_new(struct dz_vbd *v, uint32_t index, struct dz_queue **out);
int queue_books_new(struct dz_queue *q, uint32_t slots, uint32_t segments_max);
void queue_free(struct dz_queue *q); /* NULL is fine */
int queue_source_add(struct dz_queue *q, enum vbd_source source, int fd);
void queue_source_remove(struct dz_queue *q, int fd);

/* ---- inside the gate: blkfront_io.c ---- */
int queue_submit(struct dz_queue *q, struct dz_io *io, struct vbd_sync *sync);
int queue_kick(struct dz_queue *q);
void queue_take_responses(struct dz_queue *q);  /* until q->wrong says that it should not have */
void queue_replay(struct dz_queue *q);          /* connected again: into a fresh ring */
void queue_abort(struct dz_queue *q, int code); /* everything in flight is finished with `code` */
unsigned queue_done_take(struct dz_queue *q, struct dz_io **done, unsigned max);
/* The page of the ring pool with that slot's segments. */
uint32_t queue_indirect_page(const struct dz_queue *q, uint32_t slot);

/* A well-formed transfer, or a reason of the caller's; of any length. */
int transfer_check(const struct dz_vbd_info *disk, const struct dz_io *io, bool write);
/* Adds segments to a shadow: memory of the caller's that is the pool's and fits the protocol, else false and nothing …
 */
bool segments_direct(const struct dz_queue *q, struct vbd_shadow *s, const void *address, uint32_t bytes);
/* … or bounce pages, for a copy. -EAGAIN, and nothing. */
int segments_bounced(struct dz_queue *q, struct vbd_shadow *s, uint32_t bytes);
/* The shadow is a request from here on. */
void queue_shadow_commit(struct dz_queue *q, struct vbd_shadow *s, struct dz_io *io);
void queue_put_open(struct dz_queue *q); /* nothing joins it any more */

/* ---- inside the gate: blkfront_bounce.c ---- */
/* `count` more pages. -EAGAIN: there are not as many. */
int bounce_take(struct dz_queue *q, struct vbd_shadow *s, uint32_t count);
void bounce_put(struct dz_queue *q, struct vbd_shadow *s, uint32_t keep); /* all but the first `keep` */
/* Between the shadow's pages from page `first` on and its part of the dz_io's memory. */
void bounce_copy(const struct dz_queue *q, const struct vbd_shadow *s, const struct dz_io *io, uint32_t first,
                 bool to_caller);
void bounce_copy_all(const struct dz_queue *q, const struct vbd_shadow *s); /* to all that it belongs to */

/* ---- inside the gate: blkfront_unusual.c ---- */
/* Whatever is no read or write of one piece of memory in one request. */
int queue_submit_unusual(struct dz_queue *q, struct dz_io *io, struct vbd_sync *sync);
/* A shadow that is not VBD_PLAIN, and free already. */
void queue_finish_unusual(struct dz_queue *q, struct vbd_shadow *s, struct dz_io *io, int result);
/* 0, or why the backend that is there now is not given the request, which may become another operation. */
int queue_replay_fit(const struct dz_queue *q, struct vbd_shadow *s);
void backlog_move_on(struct dz_queue *q);
void backlog_abort(struct dz_queue *q, int code); /* no shadow is in use any more */

/* ---- inside the gate: blkfront_merge.c ---- */
/* Adds the request to the open one; false: it does not continue that. */
bool merge_append(struct dz_queue *q, struct dz_io *io, struct vbd_sync *sync);
void merge_open(struct dz_queue *q, struct vbd_shadow *s); /* a new one, which the next may continue */

/* ---- inside the gate: blkfront_late.c ---- */
void late_look(struct dz_queue *q, uint64_t now_ns); /* what has timed out by now; where timeouts are on */
/* Wakes a sleeper on the descriptor when it is time to look. */
void late_arm(struct dz_queue *q);

/* ---- blkfront_wait.c ---- */
/* Inside the gate, which it leaves while it sleeps: until a request is finished or none is in flight; false: the
 * deadline passed. Where others wait, too, it is woken when `sync` has what it waits for; NULL: for any. */
bool queue_progress(struct dz_queue *q, const struct vbd_sync *sync, uint64_t deadline_ns);
/* Inside the gate: wakes whoever sleeps for what was finished here … */
void queue_wake_served(struct dz_queue *q);
/* … and who sleeps on the descriptor in any case. */
void queue_wake_sleeper(struct dz_queue *q);
/* Inside the gate, at the end of a call that waited: who sleeps, or slept, on the descriptor from here on? */
void queue_hand_over(struct dz_queue *q);
/* Sleeps on the queue's sources, for the control path when nobody else uses the queue; true: the store or the platform
 * has news. */
bool queue_await_alone(struct dz_queue *q, int timeout_ms);
uint64_t vbd_deadline_ns(int timeout_ms); /* < 0: never */
int vbd_ms_until(uint64_t deadline_ns);   /* 0: passed, -1: never */

#endif
