/* SPDX-License-Identifier: MIT */
#include "backend/blk/blkspan.h"

#include <assert.h>

static void piece_submit(struct blk_piece *p);
static void request_sync(struct blk_request *r);

/* What a buffered file cannot do at once, and every sync, is done by threads of io_uring. */
void blkrequest_flight_begin(struct blkqueue *q, bool threaded)
{
    q->reactor->in_flight++;
    q->reactor->in_flight_threaded += threaded;
}

void blkrequest_flight_end(struct blkqueue *q, bool threaded)
{
    q->reactor->in_flight--;
    q->reactor->in_flight_threaded -= threaded;
}

static void request_free(struct blk_request *r)
{
    struct blkqueue *q = r->queue;
    blkpool_put(r->pool, r);
    blkqueue_unpark(q);
}

void blkrequest_end(struct blk_request *r)
{
    struct blkqueue *q = r->queue;
    int code = 0;
    if (r->claimed)
        blkalign_end(r); /* before it is held: it claims again when it is tried again */
    if (__builtin_expect(r->error, 0) && blkstop_keep(r))
        return;
    if (r->has_data)
        code = q->config.dma->put(q->dma, &r->dma, r->error == 0);
    if (code > 0)
        blkcounter_add(&q->stats.bad_grants[code], 1);
    if (code < 0 && !r->error)
        r->error = -code;
    if (r->error)
        blkstats_io_error(&q->stats, r->error);
    blklatency_add(&q->stats.latency[r->kind], q->reactor->now_ns - r->taken_ns);
    journal_end(r->row);
    int16_t status = r->error || code ? BLKIF_RSP_ERROR : BLKIF_RSP_OKAY;
    if (r->error == EOPNOTSUPP && r->operation_raw == BLKIF_OP_DISCARD)
        status = BLKIF_RSP_EOPNOTSUPP; /* the frontend sends no more of them */
    blkqueue_answer(q, r->id, r->operation_raw, status);
    request_free(r);
}

/* All pieces have ended. */
void blkrequest_data_end(struct blk_request *r)
{
    if (r->queue->recorded && r->write && !r->error)
        r->error = blkrecord_write(r);
    if (!r->sync_last || r->error) {
        blkrequest_end(r);
        return;
    }
    r->sync_last = false;
    request_sync(r);
}

static void piece_end(struct blk_piece *p, int error)
{
    struct blk_request *r = p->request;
    if (!r->error)
        r->error = error;
    if (--r->parts == 0)
        blkrequest_data_end(r);
}

/* Drops what the kernel has done from the front of the piece's vector. */
static void piece_advance(struct blk_piece *p, uint32_t done_bytes)
{
    struct iovec *iov = &p->request->iov[p->iov_first];
    p->offset_bytes += done_bytes;
    p->left_bytes -= done_bytes;
    while (done_bytes >= iov->iov_len) {
        done_bytes -= (uint32_t)iov->iov_len;
        p->iov_first++;
        p->iov_count--;
        iov++;
    }
    iov->iov_base = (char *)iov->iov_base + done_bytes;
    iov->iov_len -= done_bytes;
}

/* A durable write is finished by a thread of the kernel. */
static bool request_threaded(const struct blk_request *r)
{
    return r->queue->threaded || r->rw_flags;
}

static void piece_done(struct uring_op *op, int result, uint32_t cqe_flags)
{
    (void)cqe_flags;
    struct blk_piece *p = container_of(op, struct blk_piece, op);
    blkrequest_flight_end(p->request->queue, request_threaded(p->request));
    if (result == (int)p->left_bytes) {
        piece_end(p, 0);
        return;
    }
    bool again = (result == -EINTR || result == -EAGAIN) && p->retries++ < BLKQUEUE_RETRIES_MAX;
    if (result > 0 && result < (int)p->left_bytes) {
        piece_advance(p, (uint32_t)result);
        again = true;
    }
    if (again)
        piece_submit(p);
    else /* 0: the file ends here: it was made shorter behind our back */
        piece_end(p, result < 0 ? -result : EIO);
}

/* Names the file by its registered slot where it has one; a thread begins it where the submission would wait. */
void blkrequest_set_file(struct io_uring_sqe *sqe, const struct blkqueue *q, int fd)
{
    sqe->flags |= q->sqe_flags;
    if (q->file_index >= 0 && fd == q->config.image->fd) {
        sqe->fd = q->file_index;
        sqe->flags |= IOSQE_FIXED_FILE;
    }
}

static void piece_submit(struct blk_piece *p)
{
    struct blk_request *r = p->request;
    struct blkqueue *q = r->queue;
    struct iovec *iov = &r->iov[p->iov_first];
    struct io_uring_sqe *sqe = uring_sqe(&q->reactor->uring, &p->op);
    unsigned length = (unsigned)iov->iov_len;
    if (p->iov_count > 1)
        (r->write ? io_uring_prep_writev : io_uring_prep_readv)(sqe, p->fd, iov, p->iov_count, p->offset_bytes);
    else if (p->buffer_index < 0 && r->write)
        io_uring_prep_write(sqe, p->fd, iov->iov_base, length, p->offset_bytes);
    else if (p->buffer_index < 0)
        io_uring_prep_read(sqe, p->fd, iov->iov_base, length, p->offset_bytes);
    else if (r->write)
        io_uring_prep_write_fixed(sqe, p->fd, iov->iov_base, length, p->offset_bytes, p->buffer_index);
    else
        io_uring_prep_read_fixed(sqe, p->fd, iov->iov_base, length, p->offset_bytes, p->buffer_index);
    sqe->rw_flags = r->rw_flags;
    blkrequest_set_file(sqe, q, p->fd);
    blkrequest_flight_begin(q, request_threaded(r));
}

/* Walks the DMA vector while pieces are cut from it. */
struct vec_cursor {
    unsigned vec;
    uint32_t used_bytes; /* of that vec */
    uint16_t iov_count;
};

/* Cuts the next `length_bytes` from the DMA vector into the request's iovecs. */
static void piece_cut(struct blk_piece *p, struct vec_cursor *at, uint64_t length_bytes)
{
    struct blk_request *r = p->request;
    p->left_bytes = (uint32_t)length_bytes;
    p->iov_first = at->iov_count;
    p->buffer_index = r->dma.vec[at->vec].buffer_index;
    while (length_bytes) {
        assert(at->vec < r->dma.vec_count && at->iov_count < r->dma.segments_max + IMAGE_EXTENTS_MAX);
        const struct dma_vec *v = &r->dma.vec[at->vec];
        uint32_t n = (uint32_t)MIN(length_bytes, v->length_bytes - at->used_bytes);
        r->iov[at->iov_count++] = (struct iovec){v->address + at->used_bytes, n};
        length_bytes -= n;
        at->used_bytes += n;
        if (at->used_bytes == v->length_bytes) {
            at->vec++;
            at->used_bytes = 0;
        }
    }
    p->iov_count = (uint16_t)(at->iov_count - p->iov_first);
}

/* 0, or an errno, a positive one. */
static int piece_zero(const struct blk_piece *p)
{
    const struct blk_request *r = p->request;
    int rc = 0;
    assert(!r->write); /* a format answers a write with places to write to */
    for (unsigned i = 0; i < p->iov_count && !rc; i++) {
        const struct iovec *iov = &r->iov[p->iov_first + i];
        rc = dma_reach(r->queue->config.dma, iov->iov_base, NULL, iov->iov_len, true);
    }
    return -rc;
}

void blkrequest_transfer(struct blk_request *r)
{
    struct image_extent extent[IMAGE_EXTENTS_MAX];
    const struct image *image = r->queue->config.image;
    int n = image->format->map(image, r->offset_bytes, r->length_bytes, r->write, extent);
    if (n < 0) {
        r->error = -n;
        blkrequest_end(r);
        return;
    }
    assert(n > 0 && n <= IMAGE_EXTENTS_MAX);
    if (extent[0].kind == IMAGE_NONE) {
        blkrequest_data_end(r);
        return;
    }
    struct vec_cursor at = {0};
    r->parts = (unsigned)n + 1; /* one for this function: a piece of zeroes ends at once */
    for (int i = 0; i < n; i++) {
        struct blk_piece *p = &r->piece[i];
        *p = (struct blk_piece){
            .op.fn = piece_done, .request = r, .fd = extent[i].fd, .offset_bytes = extent[i].offset_bytes};
        piece_cut(p, &at, extent[i].length_bytes);
        if (extent[i].kind == IMAGE_DATA) {
            piece_submit(p);
            continue;
        }
        piece_end(p, piece_zero(p));
    }
    assert(at.vec == r->dma.vec_count); /* the extents cover the request */
    piece_end(&r->piece[0], 0);
}

static void request_transfer(struct blk_request *r)
{
    if (!r->queue->align || !blkalign_begin(r))
        blkrequest_transfer(r);
}

static void sync_done(struct uring_op *op, int result, uint32_t cqe_flags);

static void sync_submit(struct blkqueue *q, int fd)
{
    struct io_uring_sqe *sqe = uring_sqe(&q->reactor->uring, &q->sync_op);
    io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
    blkrequest_flight_begin(q, true);
}

/* One fdatasync() for all flushes that wait. */
static void sync_start(struct blkqueue *q)
{
    q->sync_running = take_ptr(q->sync_waiting);
    q->sync_op.fn = sync_done;
    q->sync_companion = q->companion_fd >= 0;
    if (q->recorded)
        blkrecord_sync_begin(q);
    sync_submit(q, q->sync_companion ? q->companion_fd : q->sync_fd);
    blkcounter_add(&q->stats.syncs, 1);
}

/* What the flushes that it served get: its own error, which stays the image's, or one that came before. */
static int sync_result(struct blkqueue *q, int result)
{
    const struct image *image = q->config.image;
    if (result == -EINTR || result == -EAGAIN || result == -ECANCELED) /* nothing was lost, it was not done */
        return -result;
    if (result < 0 && !image_sync_error(image))
        image_sync_fail(image, -result);
    const int error = image_sync_error(image);
    blkcounter_set(&q->stats.flush_lost, error != 0);
    return error;
}

static void sync_done(struct uring_op *op, int result, uint32_t cqe_flags)
{
    (void)cqe_flags;
    struct blkqueue *q = container_of(op, struct blkqueue, sync_op);
    blkrequest_flight_end(q, true);
    const bool image_next = q->sync_companion && result >= 0;
    q->sync_companion = false;
    if (image_next) {
        sync_submit(q, q->sync_fd);
        return;
    }
    struct blk_request *r = take_ptr(q->sync_running);
    if (q->recorded && result >= 0)
        result = blkrecord_sync_end(q);
    int error = sync_result(q, result);
    if (q->sync_waiting)
        sync_start(q);
    while (r) {
        struct blk_request *next = r->next;
        r->error = error;
        r->sync_failed = error != 0;
        if (r->data_next && !r->error) {
            r->data_next = false;
            request_transfer(r);
        } else {
            blkrequest_end(r);
        }
        r = next;
    }
}

static void request_sync(struct blk_request *r)
{
    struct blkqueue *q = r->queue;
    r->error = image_sync_error(q->config.image);
    if (r->error) {
        r->sync_failed = true;
        blkcounter_set(&q->stats.flush_lost, 1);
        blkrequest_end(r);
        return;
    }
    r->next = q->sync_waiting;
    q->sync_waiting = r;
    if (!q->sync_running)
        sync_start(q);
}

void blkrequest_count_get(struct blkqueue *q, int code)
{
    if (code > 0)
        blkcounter_add(&q->stats.bad_grants[code], 1);
    if (code < 0)
        blkstats_io_error(&q->stats, -code);
}

/* 0, or the request is to be refused: the reason is counted. */
static int request_get(struct blk_request *r, const struct blkreq *req, const struct blkreq_segment *from)
{
    struct blkqueue *q = r->queue;
    struct dma_segment *segment = r->dma.segment;
    for (unsigned i = 0; i < req->segment_count; i++) {
        const struct blkreq_segment *s = &from[i];
        segment[i] = (struct dma_segment){
            .gref = s->gref,
            .offset_bytes = (uint16_t)(s->first_sector * SECTOR_BYTES),
            .length_bytes = (uint16_t)((s->last_sector - s->first_sector + 1u) * SECTOR_BYTES),
        };
    }
    int code = q->config.dma->get(q->dma, segment, req->segment_count, !r->write, &r->dma);
    blkrequest_count_get(q, code);
    if (!code) {
        blkcounter_add(&q->stats.grants_mapped, req->segment_count);
        if (r->dma.vec_count < req->segment_count)
            blkcounter_add(&q->stats.merges, req->segment_count - r->dma.vec_count);
    }
    return code;
}

/* Counts it: its kind. */
static enum stats_blk_op request_count(struct blkqueue *q, const struct blkreq *req)
{
    switch (req->operation) {
    case BLKIF_OP_READ:
        blkcounter_add(&q->stats.reads, 1);
        blkcounter_add(&q->stats.sectors_read, req->sector_count);
        return STATS_BLK_READ;
    case BLKIF_OP_FLUSH_DISKCACHE:
    case BLKIF_OP_WRITE_BARRIER:
        blkcounter_add(&q->stats.flushes, 1);
        blkcounter_add(&q->stats.sectors_written, req->sector_count);
        return STATS_BLK_FLUSH;
    case BLKIF_OP_DISCARD:
        blkcounter_add(&q->stats.discards, 1);
        blkcounter_add(&q->stats.sectors_discarded, req->sector_count);
        return STATS_BLK_DISCARD;
    case BLKREQ_OP_WRITE_ZEROES:
        blkcounter_add(&q->stats.write_zeroes, 1);
        blkcounter_add(&q->stats.sectors_zeroed, req->sector_count);
        return STATS_BLK_ZEROES;
    default:
        blkcounter_add(&q->stats.writes, 1);
        blkcounter_add(&q->stats.sectors_written, req->sector_count);
        return STATS_BLK_WRITE;
    }
}

/* Begins its I/O. */
static void request_run(struct blk_request *r)
{
    bool barrier = r->operation == BLKIF_OP_WRITE_BARRIER, flush = barrier || r->operation == BLKIF_OP_FLUSH_DISKCACHE;
    r->data_next = r->has_data && flush;
    r->sync_last = r->has_data && barrier;
    r->sync_failed = false;
    if (flush)
        request_sync(r);
    else if (blkreq_is_span(r->operation))
        blkspan_start(r);
    else
        request_transfer(r);
}

/* A predecessor had requests of this frontend in flight: is this one of them? */
static void request_compare(struct blkqueue *q, const struct blkreq *req)
{
    uint32_t missing;
    blkcounter_add(&q->stats.replayed, journal_compare(&q->journal, req, &missing));
    blkcounter_add(&q->stats.not_replayed, missing);
}

void blkrequest_start(struct blkqueue *q, const struct blkreq *req, const struct blkreq_segment *segment)
{
    /* A small one is free: ring_back_pending() bounds what is unanswered by the ring's entries. */
    struct blk_request *r = blkpool_get(blkrequest_is_large(req) ? &q->large : &q->small);
    r->kind = request_count(q, req);
    if (__builtin_expect(q->journal.comparing, 0))
        request_compare(q, req);
    r->taken_ns = q->reactor->now_ns;
    r->queue = q;
    r->id = req->id;
    r->operation = req->operation;
    r->operation_raw = req->operation_raw;
    r->flag = req->flag;
    r->write = req->operation != BLKIF_OP_READ;
    r->rw_flags = req->operation == BLKREQ_OP_WRITE_FUA ? RWF_DSYNC : 0;
    r->has_data = false;
    r->claimed = false;
    r->error = 0;
    r->offset_bytes = req->sector * SECTOR_BYTES;
    r->length_bytes = req->sector_count * SECTOR_BYTES;
    if (req->segment_count && request_get(r, req, segment)) {
        blkqueue_answer(q, r->id, r->operation_raw, BLKIF_RSP_ERROR);
        request_free(r);
        return;
    }
    journal_begin(&q->journal, r->row, req);
    r->has_data = req->segment_count > 0;
    request_run(r);
}

void blkrequest_retry(struct blk_request *r)
{
    r->error = 0;
    request_run(r);
}
