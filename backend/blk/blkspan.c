/* SPDX-License-Identifier: MIT */
#include "backend/blk/blkspan.h"

#include <assert.h>
#include <fcntl.h>

/* Ways of writing zeroes, as bits of blkqueue.span_refused. */
enum { WAY_PUNCH = 1, WAY_RANGE = 2, WAY_WRITE = 4 };

static const _Alignas(PAGE_BYTES) unsigned char zeroes[64 * 1024];

static void span_run(struct blkqueue *q);
static void span_go(struct blk_request *r);

static void span_end(struct blk_request *r, int error)
{
    r->queue->span_running = NULL;
    r->error = error;
    blkrequest_end(r);
}

static bool is_discard(const struct blk_request *r)
{
    return r->operation_raw == BLKIF_OP_DISCARD;
}

/* Can fallocate() name it on this storage? */
static bool span_fits_storage(const struct blk_request *r)
{
    const uint32_t align = r->queue->config.image->span_align_bytes;
    return r->span_first_bytes % align == 0 && r->span_end_bytes % align == 0;
}

static unsigned span_way(const struct blk_request *r)
{
    const struct blkqueue *q = r->queue;
    if (is_discard(r))
        return WAY_PUNCH;
    const unsigned refused = span_fits_storage(r) ? q->span_refused : WAY_PUNCH | WAY_RANGE;
    if ((r->flag & BLKREQ_ZEROES_MAY_UNMAP) && q->config.limits.discard && !(refused & WAY_PUNCH))
        return WAY_PUNCH;
    return refused & WAY_RANGE ? WAY_WRITE : WAY_RANGE;
}

static void span_done(struct uring_op *op, int result, uint32_t cqe_flags);
static void span_written(struct uring_op *op, int result, uint32_t cqe_flags);

static void span_write(struct blk_request *r)
{
    struct blkqueue *q = r->queue;
    const int fd = q->config.image->fd;
    uint64_t left_bytes = r->span_end_bytes - r->span_first_bytes;
    unsigned n = 0;
    for (; n < ARRAY_SIZE(q->span_iov) && left_bytes; n++) {
        size_t bytes = MIN(left_bytes, sizeof(zeroes));
        q->span_iov[n] = (struct iovec){(void *)zeroes, bytes}; /* only read from */
        left_bytes -= bytes;
    }
    q->span_op.fn = span_written;
    struct io_uring_sqe *sqe = uring_sqe(&q->reactor->uring, &q->span_op);
    io_uring_prep_writev(sqe, fd, q->span_iov, n, r->span_first_bytes);
    blkrequest_set_file(sqe, q, fd);
    blkrequest_flight_begin(q, true);
}

static void span_written(struct uring_op *op, int result, uint32_t cqe_flags)
{
    (void)cqe_flags;
    struct blkqueue *q = container_of(op, struct blkqueue, span_op);
    struct blk_request *r = q->span_running;
    blkrequest_flight_end(q, true);
    if (result > 0)
        r->span_first_bytes += (uint32_t)result;
    bool again = (result == -EINTR || result == -EAGAIN) && q->span_retries++ < BLKQUEUE_RETRIES_MAX;
    if ((result > 0 || again) && r->span_first_bytes < r->span_end_bytes) {
        span_write(r);
        return;
    }
    span_end(r, result > 0 ? 0 : result < 0 ? -result : EIO);
    span_run(q);
}

/* blkalign.h has written them. */
static void span_zeroed(struct blk_request *r)
{
    struct blkqueue *q = r->queue;
    span_end(r, r->error);
    span_run(q);
}

/* Nobody writes a block of it back meanwhile. */
static void span_go(struct blk_request *r)
{
    struct blkqueue *q = r->queue;
    const unsigned way = span_way(r);
    if (way == WAY_WRITE) {
        span_write(r);
        return;
    }
    q->span_op.fn = span_done;
    struct io_uring_sqe *sqe = uring_sqe(&q->reactor->uring, &q->span_op);
    io_uring_prep_fallocate(sqe, q->config.image->fd,
                            FALLOC_FL_KEEP_SIZE | (way == WAY_PUNCH ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE),
                            r->span_first_bytes, r->span_end_bytes - r->span_first_bytes);
    blkrequest_set_file(sqe, q, q->config.image->fd);
    blkrequest_flight_begin(q, true);
}

static void span_begin(struct blk_request *r)
{
    struct blkqueue *q = r->queue;
    if (!q->align)
        span_go(r);
    else if (span_way(r) == WAY_WRITE)
        blkalign_zero(r, r->span_first_bytes, r->span_end_bytes, span_zeroed);
    else if (!r->claimed)
        blkalign_claim(r, r->span_first_bytes, r->span_end_bytes, span_go);
    else
        span_go(r);
}

static void span_done(struct uring_op *op, int result, uint32_t cqe_flags)
{
    (void)cqe_flags;
    struct blkqueue *q = container_of(op, struct blkqueue, span_op);
    struct blk_request *r = q->span_running;
    blkrequest_flight_end(q, true);
    if (result == -EOPNOTSUPP && !is_discard(r)) {
        q->span_refused |= span_way(r);
        span_begin(r);
        return;
    }
    span_end(r, result < 0 ? -result : 0);
    span_run(q);
}

/* Finds its place in the file: false where it is done already, a discard of less than a block. */
static bool span_place(struct blk_request *r)
{
    const struct image *image = r->queue->config.image;
    struct image_extent extent[IMAGE_EXTENTS_MAX];
    int n = image->format->map(image, r->offset_bytes, r->length_bytes, true, extent);
    assert(n == 1 && extent[0].kind == IMAGE_DATA); /* or the image would offer neither */
    r->span_first_bytes = extent[0].offset_bytes;
    r->span_end_bytes = extent[0].offset_bytes + extent[0].length_bytes;
    r->queue->span_retries = 0;
    if (!is_discard(r))
        return true;
    const uint32_t align = image->span_align_bytes;
    r->span_first_bytes = (r->span_first_bytes + align - 1) / align * align;
    r->span_end_bytes -= r->span_end_bytes % align;
    return r->span_first_bytes < r->span_end_bytes;
}

/* Begins the oldest that waits, if none is under way. */
static void span_run(struct blkqueue *q)
{
    while (!q->span_running && q->span_waiting) {
        struct blk_request *r = q->span_running = q->span_waiting;
        q->span_waiting = r->next;
        if (span_place(r))
            span_begin(r);
        else
            span_end(r, 0);
    }
}

void blkspan_start(struct blk_request *r)
{
    struct blkqueue *q = r->queue;
    r->next = NULL;
    if (q->span_waiting)
        q->span_last->next = r;
    else
        q->span_waiting = r;
    q->span_last = r;
    span_run(q);
}
