/* SPDX-License-Identifier: MIT */
/* backend/blk/uring.h: one io_uring: operations with completions, tables of files and of buffers.
 *
 * An operation embeds a `struct uring_op`; its completion calls op->fn on the ring's thread. An op belongs to the
 * kernel from uring_sqe() until fn is called (a multishot one until a call without IORING_CQE_F_MORE). Nothing is
 * allocated after uring_init().
 *
 * The ring is set up for one thread that does everything, with completions run only when that thread asks
 * (SINGLE_ISSUER, DEFER_TASKRUN, TASKRUN_FLAG: whether there is something to run shows in shared memory, without a
 * system call). Older kernels get the same ring without these flags. Files and buffers sit in sparse tables of fixed
 * size, so devices come and go while others run; a full table or a refused registration (RLIMIT_MEMLOCK, a buffer that
 * is too long) is no failure of the device: plain descriptors and addresses do the same work, slower.
 */
#ifndef BLK_URING_H
#define BLK_URING_H

#include <liburing.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/idalloc.h"
#include "grant/dma.h"

/* Both rings are walked round and round, and what they take of the second cache the page cache's index does not have:
 * 512 and 4096 entries cost 5 % of a 4 KiB read. */
#define URING_ENTRIES    128  /* submission slots; a pass that prepares more submits more than once */
#define URING_CQ_ENTRIES 1024 /* completions that can wait; above it the kernel keeps a list: slower, nothing lost */
#define URING_FILES_MAX  512
/* Threads of the kernel for what blocks, made when all that there are wait. With the kernel's own number, four for each
 * processor, the flushes of some queues whose storage does not answer are as many, and everybody else's wait behind
 * them. This is more than most machines have queues on one reactor. */
#define URING_WORKERS_MAX 1024
#define URING_BUFFERS_MAX 4096 /* extents and bounce arenas of all guests; the kernel's own limit is 16,384 */
/* A guest may have one more while it has less than one part in so many of what is free: alone 455, more than it has
 * extents (256); of four that want all 341 each; and however many take what they can, there is some left for the next.
 */
#define URING_BUFFERS_SHARE 8
/* Registering takes up to 1 µs a page, and the page's making where it was never touched (16 MiB: measured 4 ms, 13 ms),
 * on the thread that serves all guests. So a longer buffer is refused, and so that one guest's many extents, or its
 * reconnecting all day, do not add up, registering has one part in URING_REGISTER_SHARE of the time, with some saved.
 */
#ifdef DMA_BENCH_ROWS
#define URING_BUFFER_BYTES_MAX (80u << 20) /* a pool larger than the caches is to differ from others by that alone */
#else
#define URING_BUFFER_BYTES_MAX (16u << 20)
#endif
#define URING_REGISTER_SHARE    16
#define URING_REGISTER_SAVED_NS (10 * CLOCK_NS_PER_MS)

struct uring_op;
typedef void uring_op_fn(struct uring_op *op, int result, uint32_t cqe_flags);

struct uring_op {
    uring_op_fn *fn;
};

/* What of an operation's owner is fetched into the cache before its completion is handled: its line, and so many bytes
 * in front of it (blkrequest.h). */
#define URING_FETCH_BYTES 128

struct uring {
    struct io_uring ring;
    struct idalloc files, buffers;
    uint16_t *buffers_of; /* by domid: how many buffers are its; a mapping of its own, real where it is used */
    uint16_t buffer_owner[URING_BUFFERS_MAX];
    bool deferred;              /* completions run only when asked for */
    uint32_t queued;            /* SQEs since the last submit */
    uint64_t enters;            /* system calls made for submitting and waiting */
    uint64_t registrations;     /* of buffers, that were made */
    struct dma_host host;       /* the buffer table, as the DMA strategies see it; ctx is this struct */
    int64_t register_credit_ns; /* time that registering may take now; below 0: it took more */
    uint64_t register_seen_ns;  /* when that was counted last */
};

/* On the thread that is to use it. 0, or -errno with a sentence. */
int uring_init(struct uring *u, struct err *e);
void uring_deinit(struct uring *u);

/* A submission slot for `op`, to be filled by io_uring_prep_*(), which leaves user_data alone; submits when all are
 * taken. */
struct io_uring_sqe *uring_sqe(struct uring *u, struct uring_op *op);
/* Asks the kernel to give `target` back; its fn is called with -ECANCELED, or with what was faster. */
void uring_cancel(struct uring *u, const struct uring_op *target);
/* A multishot wait for readability. */
void uring_poll(struct uring *u, struct uring_op *op, int fd);

/* Submits what is queued, and waits for a completion where `wait` says so. 0 or -errno. */
int uring_submit(struct uring *u, bool wait);
/* Calls fn for each completion that is there: their number. */
unsigned uring_reap(struct uring *u);
/* Is there something to reap, or something that a submit without SQEs would bring? Reads shared memory only. */
bool uring_ready(const struct uring *u);

/* The slot of a registered file, which the kernel holds open until the unregister; -1 where none could be had. */
int32_t uring_file_register(struct uring *u, int fd);
void uring_file_unregister(struct uring *u, int32_t index); /* -1 is fine */

#endif
