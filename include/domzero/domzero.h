/* SPDX-License-Identifier: MIT */
/* domzero/domzero.h: the guest library: a process becomes a guest, opens its virtual disks and does I/O on them.
 *
 *   struct dz_domain *dom;
 *   struct dz_vbd *disk;
 *   if (dz_domain_open(NULL, &dom) || dz_vbd_open(dom, "xvda", NULL, &disk)) die(dz_error());
 *   dz_vbd_read(disk, buffer, 4096, 0);
 *
 * Functions return 0 (or a count) or a negative errno; dz_error() then gives a sentence for a person, of this thread,
 * valid until the thread's next call. Where they fail, *out is as it was and nothing is held. Offsets and lengths are
 * bytes and must be multiples of the disk's sector size. Strings and options are copied.
 *
 * Errors of a disk as a whole, from any call that does I/O, for what is in flight and from then on: -ENODEV (detached),
 * -EIO (its backend misbehaved; dom0 ended), -EPROTO (its backend came back as less than it was). It can only be
 * closed then.
 *
 * Threads: all is for any thread at any time between open and close, but a queue (submit, kick, reap, wait, arm), which
 * is used by one thread at a time; different queues by different threads, without a lock between them. Closing is the
 * last thing that is done with a disk, or a domain: no thread is in a call on it then, which is asserted where it is
 * seen. Nothing here is for signal handlers; a thread is not cancelled while it is in a call. After a fork() the disk
 * is the parent's: the child may exec, or _exit(), and calls nothing of this, not even a close.
 *
 * Memory: any pointer can be read into and written from (its data is bounced through the disk's pool); memory from
 * dz_buffer_alloc() is granted to the backend and goes without a copy. Grants, rings and event channels are Xen's;
 * see docs/libdomzero.md.
 *
 * When the backend dies or is restarted, requests in flight wait, and are done again when it is back: calls pause,
 * they do not fail, but where a request timeout is set, by the program or by the toolstack: then they fail when it has
 * passed, and later ones work again when the backend is back. A write is durable after a dz_vbd_flush() that came after
 * it returned 0.
 */
#ifndef DOMZERO_DOMZERO_H
#define DOMZERO_DOMZERO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DZ_API __attribute__((visibility("default")))

struct dz_domain;
struct dz_vbd;
struct dz_queue;

/* The sentence about this thread's last failure. Never NULL. */
DZ_API const char *dz_error(void);

/* Becomes the domain whose directory is `domain_dir` (`<run>/dom/<domid>`); NULL: $DOMZERO_DOMAIN_DIR, which `domzero
 * exec` sets. -ENOENT, -EACCES (another user's domain), -ECONNREFUSED (no dom0 runs there). Give it to
 * dz_domain_close(). A process may have several. */
DZ_API int dz_domain_open(const char *domain_dir, struct dz_domain **out);
/* Its disks must be closed. NULL is fine. */
DZ_API void dz_domain_close(struct dz_domain *dom);
DZ_API unsigned dz_domain_id(const struct dz_domain *dom);

struct dz_vbd_options {
    uint32_t pool_bytes; /* shared memory for data; 0: 4 MiB */
    uint32_t spin_us; /* how long a wait polls before it sleeps, where that pays; 0: sleeps at once. UINT32_MAX: polls
                         for ever (benchmarks) */
    uint32_t timeout_ms;  /* how long open waits for the backend; 0: 10,000 */
    uint32_t queue_depth; /* requests in flight that are wanted; 0: 32. Rounded up to what a ring of 1, 2, 4, 8 or 16
                             pages takes, 32 to 512, as far as the backend offers it: dz_vbd_info says what it became */
    uint32_t queues; /* that are wanted, each with that depth; 0: 1. At most 16, and as many as the backend offers */
    uint32_t request_timeout_ms; /* 0: what the toolstack gave the disk (report-after), else none. A request that is not
                                    answered in that time (a quarter more, at the most, where somebody waits or reaps)
                                    comes back with -ETIMEDOUT if its memory is not the pool's; what a late write did is
                                    not known. The backend may use memory of the pool until it answers, so such a
                                    request is only counted, and comes back then */
    bool merge; /* reads or writes that continue the one submitted before become one with it until the next kick, up to
                   request_bytes_max: fewer, longer requests. They come back together, with one result */
    bool no_persistent;    /* does not let the backend keep the pool mapped from request to request */
    bool no_bus_addresses; /* where the backend is behind an IOMMU: has it map each request's pages by their grants, in
                              place of the pool once when the disk connects */
};

struct dz_vbd_info {
    uint64_t size_bytes;
    uint32_t sector_bytes, physical_sector_bytes;
    bool readonly, flush;               /* flush: dz_vbd_flush() reaches the backend */
    uint32_t queue_depth;               /* requests that can be in flight, in each queue */
    bool discard;                       /* dz_vbd_discard() is served */
    uint32_t discard_granularity_bytes; /* smaller parts of a discard may be left as they are */
    uint32_t request_bytes_max; /* longest that is one request to the backend: 1 MiB, or 44 KiB where that has no
                                   indirect requests; longer ones become several */
    uint32_t changes;           /* times that dom0 changed size, readonly or discard while the disk was open */
    uint32_t queues;
    uint32_t write_zeroes_bytes_max; /* longest DZ_WRITE_ZEROES; 0: not served */
    bool fua;                        /* DZ_FUA is served */
    bool bus_addresses; /* the backend is behind an IOMMU, and requests name memory by the addresses of that */
};

/* Opens disk `vdev` ("xvda", or its number) and waits until it is connected. `options` NULL: defaults. Give it to
 * dz_vbd_close(), before its domain is closed. -ENODEV (no such disk), -EBUSY (it is open, in this process or another
 * of this domain), -ETIMEDOUT, -ENOMEM, -EINVAL (no name of a disk), or the backend's reason. */
DZ_API int dz_vbd_open(struct dz_domain *dom, const char *vdev, const struct dz_vbd_options *options,
                       struct dz_vbd **out);
/* Waits for what is in flight, at most timeout_ms, and a second where the backend is gone; what is not answered then
 * gets -ECANCELED (as its dz_io.result: there is no reap any more). Closes as the protocol asks and gives all back,
 * its queues, descriptors and buffers, too; memory that the backend still has mapped is kept until it lets go. NULL is
 * fine. */
DZ_API void dz_vbd_close(struct dz_vbd *disk);
/* A disk can change while it is open: dom0 resizes it, or makes it read-only. dz_vbd_fd() becomes readable
 * then, and the next call that reaps or waits takes note: `changes` tells. Requests that the new disk has no room for,
 * or may not write, come back -EIO where they were on their way, and are refused from then on. */
DZ_API void dz_vbd_info(const struct dz_vbd *disk, struct dz_vbd_info *out);

/* ---- one at a time: any length (0 does nothing), any pointer, any thread; several go on at the same time. They return
 * when all of it is done: 0, or the first error, and then how much was done is not known. -EINVAL, -ERANGE, -EROFS: a
 * bad one; -EIO: the backend said no; -ETIMEDOUT ---- */
DZ_API int dz_vbd_read(struct dz_vbd *disk, void *buffer, size_t length_bytes, uint64_t offset_bytes);
DZ_API int dz_vbd_write(struct dz_vbd *disk, const void *buffer, size_t length_bytes, uint64_t offset_bytes);
/* `count` pieces of any length, together whole sectors and less than 4 GiB. */
DZ_API int dz_vbd_readv(struct dz_vbd *disk, const struct iovec *iov, int count, uint64_t offset_bytes);
DZ_API int dz_vbd_writev(struct dz_vbd *disk, const struct iovec *iov, int count, uint64_t offset_bytes);
/* A write that is durable when it returns 0: FUA where the backend has it, else followed by a flush. */
DZ_API int dz_vbd_write_durable(struct dz_vbd *disk, const void *buffer, size_t length_bytes, uint64_t offset_bytes);
/* What came back before, from whichever queue or call, is durable when it returns 0. */
DZ_API int dz_vbd_flush(struct dz_vbd *disk);
/* Gives the storage of that range back. What is read there afterwards is not defined by the protocol; domzero's own
 * backend reads zeroes. -EOPNOTSUPP where the disk does not discard. */
DZ_API int dz_vbd_discard(struct dz_vbd *disk, uint64_t length_bytes, uint64_t offset_bytes);
/* Makes that range read as zeroes; its storage may go where the caller allows it. -EOPNOTSUPP where the backend cannot.
 */
DZ_API int dz_vbd_write_zeroes(struct dz_vbd *disk, uint64_t length_bytes, uint64_t offset_bytes, bool may_unmap);

/* ---- buffers of the pool: page aligned, granted, no copy, for any queue, any thread ---- */
/* NULL: the pool has no such run of free pages. One page may be in several requests at a time; a backend of others that
 * keeps pages mapped may refuse that: no_persistent is for such. */
DZ_API void *dz_buffer_alloc(struct dz_vbd *disk, size_t bytes);
/* With the bytes that it was asked for, and in no request any more. What is not freed goes with the disk. NULL is fine.
 */
DZ_API void dz_buffer_free(struct dz_vbd *disk, void *buffer, size_t bytes);

/* ---- many at a time ---- */
enum dz_op {
    DZ_READ,
    DZ_WRITE,
    DZ_FLUSH,
    DZ_DISCARD,
    DZ_WRITE_ZEROES, /* afterwards the range reads as zeroes. -EOPNOTSUPP where write_zeroes_bytes_max is 0 */
    DZ_READV,        /* these two: `buffer` is an array of struct iovec, which is kept, too; as many of its entries */
    DZ_WRITEV,       /* are used as length_bytes takes, so it has at least as much */
    /* or'ed to an operation: */
    DZ_FUA = 0x100, /* a write that is durable when it comes back. -EOPNOTSUPP where the disk has a cache and no FUA */
    DZ_MAY_UNMAP = 0x200 /* a DZ_WRITE_ZEROES that may give the range's storage back */
};

/* One request. The caller owns it and keeps it and its buffer until it comes back from dz_vbd_reap(). */
struct dz_io {
    enum dz_op op;
    void *buffer;          /* of the pool, or any memory; ignored where there is no data */
    uint32_t length_bytes; /* 0 for a flush. More than request_bytes_max goes as several requests, one after another
                              where there is no room for all */
    uint64_t offset_bytes;
    void *user;           /* the caller's */
    int result;           /* set when it comes back: 0 or -errno (-EIO: the backend said no; -ETIMEDOUT; -EOPNOTSUPP: it
                             cannot, or its successor, which the request would have been given again, cannot) */
    uint64_t private_[2]; /* the library's */
};

/* Takes the request, without telling the backend yet. -EAGAIN: queue_depth are in flight, or no bounce buffer is free:
 * reap first. -EINVAL, -EROFS, -ERANGE, -EOPNOTSUPP: a bad request. Where it fails the request was not taken, and does
 * not come back. */
DZ_API int dz_vbd_submit(struct dz_vbd *disk, struct dz_io *io);
/* Publishes what was submitted; notifies the backend if it asked for it. dz_vbd_reap(), _wait() and _arm() do it too.
 * An error is the disk's: what was submitted comes back with it. */
DZ_API int dz_vbd_kick(struct dz_vbd *disk);
/* Takes up to `max` finished requests, without waiting, in the order in which they finished: their number. */
DZ_API int dz_vbd_reap(struct dz_vbd *disk, struct dz_io **done, unsigned max);
/* As reap, but waits until there is at least one (timeout_ms < 0: for ever). 0: none in that time, or none in flight;
 * where synchronous calls of other threads use the queue, too, and a submit just gave -EAGAIN, also when they made
 * room.
 */
DZ_API int dz_vbd_wait(struct dz_vbd *disk, struct dz_io **done, unsigned max, int timeout_ms);
/* A descriptor that is readable when dz_vbd_reap() should be called; the disk's, for poll() and epoll alone. Before
 * sleeping on it call dz_vbd_arm(): true means that something is there already. It may be readable with nothing there.
 */
DZ_API int dz_vbd_fd(struct dz_vbd *disk);
DZ_API bool dz_vbd_arm(struct dz_vbd *disk);

/* ---- several queues: those of above, for queue `index` of dz_vbd_info's `queues`; the ones above are those of queue
 * 0. A request is reaped from the queue that it was submitted to. Valid as long as the disk; NULL: no such queue ----
 */
DZ_API struct dz_queue *dz_vbd_queue(struct dz_vbd *disk, unsigned index);
DZ_API int dz_queue_submit(struct dz_queue *queue, struct dz_io *io);
DZ_API int dz_queue_kick(struct dz_queue *queue);
DZ_API int dz_queue_reap(struct dz_queue *queue, struct dz_io **done, unsigned max);
DZ_API int dz_queue_wait(struct dz_queue *queue, struct dz_io **done, unsigned max, int timeout_ms);
DZ_API int dz_queue_fd(struct dz_queue *queue);
DZ_API bool dz_queue_arm(struct dz_queue *queue);

/* Since the disk was opened. */
struct dz_vbd_stats {
    uint64_t requests, bytes_read, bytes_written, errors;
    uint64_t notifications_sent, notifications_received;
    uint64_t bytes_bounced;
    uint64_t reconnects, replayed; /* backend restarts survived, requests done again */
    uint64_t merged;               /* dz_ios that went in another's request */
    uint64_t split;                /* dz_ios that became several requests */
    uint64_t timeouts;
};
/* Of all queues, and of one; `reconnects` are the disk's. Any thread. */
DZ_API void dz_vbd_stats(const struct dz_vbd *disk, struct dz_vbd_stats *out);
DZ_API void dz_queue_stats(const struct dz_queue *queue, struct dz_vbd_stats *out);

#ifdef __cplusplus
}
#endif

#endif
