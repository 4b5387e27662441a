/* SPDX-License-Identifier: MIT */
#include "backend/blk/uring.h"

#include <assert.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>

/* Whether it is time to register again; *now_ns is the time. */
static bool register_may(struct uring *u, uint64_t *now_ns)
{
    *now_ns = clock_now_ns();
    int64_t earned_ns = (int64_t)((*now_ns - u->register_seen_ns) / URING_REGISTER_SHARE);
    u->register_credit_ns = MIN(u->register_credit_ns + earned_ns, (int64_t)URING_REGISTER_SAVED_NS);
    u->register_seen_ns = *now_ns;
#ifdef DMA_BENCH_ROWS
    return true; /* `pin-each` registers for each request */
#else
    return u->register_credit_ns > 0;
#endif
}

#define BUFFERS_OF_BYTES ((UINT16_MAX + 1u) * sizeof(uint16_t))

/* Whether the guest may have one more: whoever takes all that he can leaves some for who comes later. */
static bool buffers_may(const struct uring *u, uint16_t domid)
{
    return (uint32_t)u->buffers_of[domid] * URING_BUFFERS_SHARE < u->buffers.limit - u->buffers.used;
}

static int32_t buffer_register(void *ctx, uint16_t domid, void *address, size_t length_bytes)
{
    struct uring *u = ctx;
    uint64_t begin_ns;
    if (length_bytes > URING_BUFFER_BYTES_MAX)
        return -E2BIG;
    if (!buffers_may(u, domid))
        return -EDQUOT;
    if (!register_may(u, &begin_ns))
        return -EBUSY;
    int64_t index = idalloc_get(&u->buffers);
    if (index < 0)
        return (int32_t)index;
    struct iovec iov = {address, length_bytes};
    __u64 tag = 0;
    int r = io_uring_register_buffers_update_tag(&u->ring, (unsigned)index, &iov, &tag, 1);
    u->register_credit_ns -= (int64_t)(clock_now_ns() - begin_ns);
    if (r != 1) {
        idalloc_put(&u->buffers, (uint32_t)index);
        return r < 0 ? r : -EIO;
    }
    u->buffer_owner[index] = domid;
    u->buffers_of[domid]++;
    u->registrations++;
    return (int32_t)index;
}

static void buffer_unregister(void *ctx, int32_t index)
{
    struct uring *u = ctx;
    struct iovec none = {0};
    __u64 tag = 0;
    int r = io_uring_register_buffers_update_tag(&u->ring, (unsigned)index, &none, &tag, 1);
    assert(r == 1); /* an entry of ours, and emptying takes no resources */
    u->buffers_of[u->buffer_owner[index]]--;
    idalloc_put(&u->buffers, (uint32_t)index);
}

static int ring_setup(struct uring *u, struct err *e)
{
    static const unsigned tries[] = {
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
        IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
        0,
    };
    int r = -EINVAL;
    for (unsigned i = 0; i < ARRAY_SIZE(tries) && r == -EINVAL; i++) {
        struct io_uring_params p = {.flags = tries[i] | IORING_SETUP_CQSIZE, .cq_entries = URING_CQ_ENTRIES};
        r = io_uring_queue_init_params(URING_ENTRIES, &u->ring, &p);
        u->deferred = (tries[i] & IORING_SETUP_TASKRUN_FLAG) != 0;
    }
    if (r < 0)
        return err_set(e, r,
                       "io_uring cannot be set up: %s; the block role needs Linux 5.19 and io_uring allowed (sysctl "
                       "kernel.io_uring_disabled, seccomp, RLIMIT_MEMLOCK)",
                       strerror(-r));
    (void)io_uring_register_ring_fd(&u->ring);
    unsigned workers[2] = {URING_WORKERS_MAX, 0}; /* 0: as it is; RLIMIT_NPROC bounds both */
    (void)io_uring_register_iowq_max_workers(&u->ring, workers);
    return 0;
}

static int tables_setup(struct uring *u, struct err *e)
{
    void *m = mmap(NULL, BUFFERS_OF_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    u->buffers_of = m == MAP_FAILED ? NULL : m;
    if (!u->buffers_of || idalloc_init(&u->files, URING_FILES_MAX) || idalloc_init(&u->buffers, URING_BUFFERS_MAX))
        return err_set(e, -ENOMEM, "out of memory");
    int r = io_uring_register_files_sparse(&u->ring, URING_FILES_MAX);
    if (!r)
        r = io_uring_register_buffers_sparse(&u->ring, URING_BUFFERS_MAX);
    if (r)
        return err_set(e, r, "io_uring refuses tables of files and buffers: %s; the block role needs Linux 5.19",
                       strerror(-r));
    return 0;
}

int uring_init(struct uring *u, struct err *e)
{
    *u = (struct uring){.host = {u, buffer_register, buffer_unregister}};
    int r = ring_setup(u, e);
    if (r)
        return r;
    r = tables_setup(u, e);
    if (r)
        uring_deinit(u);
    return r;
}

void uring_deinit(struct uring *u)
{
    assert(u->files.used == 0 && u->buffers.used == 0);
    io_uring_queue_exit(&u->ring);
    if (u->buffers_of)
        munmap(u->buffers_of, BUFFERS_OF_BYTES);
    idalloc_deinit(&u->files);
    idalloc_deinit(&u->buffers);
}

struct io_uring_sqe *uring_sqe(struct uring *u, struct uring_op *op)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
    while (!sqe) {
        int r = uring_submit(u, false);
        assert(r == 0 || r == -EAGAIN || r == -EBUSY);
        sqe = io_uring_get_sqe(&u->ring);
    }
    sqe->user_data = (uint64_t)(uintptr_t)op;
    u->queued++;
    return sqe;
}

static void nothing_done(struct uring_op *op, int result, uint32_t cqe_flags)
{
    (void)op, (void)result, (void)cqe_flags;
}

void uring_cancel(struct uring *u, const struct uring_op *target)
{
    static struct uring_op nothing = {nothing_done};
    struct io_uring_sqe *sqe = uring_sqe(u, &nothing);
    io_uring_prep_cancel64(sqe, (uint64_t)(uintptr_t)target, 0);
}

void uring_poll(struct uring *u, struct uring_op *op, int fd)
{
    struct io_uring_sqe *sqe = uring_sqe(u, op);
    io_uring_prep_poll_multishot(sqe, fd, POLLIN);
}

int uring_submit(struct uring *u, bool wait)
{
    int r = wait ? io_uring_submit_and_wait(&u->ring, 1) : io_uring_submit_and_get_events(&u->ring);
    u->enters++;
    u->queued = io_uring_sq_ready(&u->ring);
    return r < 0 && r != -EINTR ? r : 0;
}

/* The operation of the next completion: what a read of the page cache brought has driven it out of the first cache. An
 * entry that is none yet holds an old one's, or nothing; a prefetch of either does no harm. */
static inline void uring_prefetch_next(const struct uring *u, unsigned head)
{
    const struct io_uring_cq *cq = &u->ring.cq;
    const uint64_t op = cq->cqes[(head + 1) & cq->ring_mask].user_data; /* a number: of nothing no pointer is made */
    for (unsigned back = 0; back <= URING_FETCH_BYTES; back += 64)
        __builtin_prefetch((const void *)(uintptr_t)(op - back), 1);
}

unsigned uring_reap(struct uring *u)
{
    unsigned head, n = 0;
    struct io_uring_cqe *cqe;
    io_uring_for_each_cqe (&u->ring, head, cqe) {
        struct uring_op *op = (struct uring_op *)(uintptr_t)cqe->user_data;
        uring_prefetch_next(u, head);
        op->fn(op, cqe->res, cqe->flags);
        n++;
    }
    io_uring_cq_advance(&u->ring, n);
    return n;
}

bool uring_ready(const struct uring *u)
{
    if (io_uring_cq_ready(&u->ring))
        return true;
    unsigned flags = __atomic_load_n(u->ring.sq.kflags, __ATOMIC_RELAXED);
    return flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW);
}

int32_t uring_file_register(struct uring *u, int fd)
{
    int64_t index = idalloc_get(&u->files);
    if (index < 0)
        return -1;
    if (io_uring_register_files_update(&u->ring, (unsigned)index, &fd, 1) == 1)
        return (int32_t)index;
    idalloc_put(&u->files, (uint32_t)index);
    return -1;
}

void uring_file_unregister(struct uring *u, int32_t index)
{
    if (index < 0)
        return;
    int none = -1;
    int r = io_uring_register_files_update(&u->ring, (unsigned)index, &none, 1);
    assert(r == 1);
    idalloc_put(&u->files, (uint32_t)index);
}
