/* SPDX-License-Identifier: MIT */
/* frontend/blkfront_sync.c: reads, writes and flushes that return when they are done, of any length, from any thread;
 * the pool's buffers.
 *
 * A call is cut into requests of at most request_bytes_max, of which up to VBD_SYNC_DEPTH are in flight. The first
 * error wins; nothing is submitted after it, and what is in flight is waited for, as it uses the caller's memory. The
 * caller's own asynchronous requests go on meanwhile and queue for its next reap.
 *
 * Threads are spread over the disk's queues, each always on the same one. Where two meet, or one meets the queue's
 * asynchronous user, the queue's gate becomes a shared one; a call is inside but while it sleeps.
 */
#include "frontend/blkfront.h"

#include <assert.h>

#include "base/span.h"

/* This thread's queue, inside its gate. */
static struct dz_queue *sync_enter(struct dz_vbd *v)
{
    static atomic_uint threads;
    static _Thread_local unsigned thread; /* from 1 on */
    if (!thread)
        thread = atomic_fetch_add(&threads, 1) + 1;
    struct dz_queue *q = v->queue[(thread - 1) % v->queue_count];
    gate_enter_shared(&q->gate);
    return q;
}

/* Waits until no more than that of the call's requests are in flight. */
static void sync_wait(struct dz_queue *q, struct vbd_sync *sync, unsigned until)
{
    sync->until = until;
    if (sync->in_flight > until)
        queue_kick(q);
    while (sync->in_flight > until)
        queue_progress(q, sync, UINT64_MAX);
}

static struct dz_io *sync_io(struct vbd_sync *sync)
{
    struct dz_io *io = sync->free;
    if (io)
        sync->free = (struct dz_io *)(uintptr_t)io->private_[0];
    return io;
}

static void sync_io_put(struct vbd_sync *sync, struct dz_io *io)
{
    io->private_[0] = (uintptr_t)sync->free;
    sync->free = io;
}

/* Submits `piece`; waits where the queue or the bounce pages are all in use. 0, or why it was not taken. */
static int sync_submit(struct dz_queue *q, struct vbd_sync *sync, const struct dz_io *piece)
{
    struct dz_io *io;
    while (!(io = sync_io(sync)))
        sync_wait(q, sync, sync->in_flight - 1);
    for (;;) {
        *io = *piece;
        int r = queue_submit(q, io, sync);
        if (r == 0)
            return 0;
        bool hope = queue_in_flight(q);
        uint32_t free_count = q->free_count;
        if (r == -EAGAIN) {
            queue_kick(q);
            queue_progress(q, NULL, UINT64_MAX);
        }
        if (r != -EAGAIN || (!hope && q->free_count == free_count)) {
            sync_io_put(sync, io);
            return r != -EAGAIN ? r : front_fail(-ETIMEDOUT, "requests that timed out hold all of the queue");
        }
    }
}

struct sync_call {
    struct vbd_sync sync;
    struct dz_io io[VBD_SYNC_DEPTH];
};

static void sync_call_init(struct sync_call *c)
{
    c->sync = (struct vbd_sync){0};
    for (unsigned i = ARRAY_SIZE(c->io); i-- > 0;)
        sync_io_put(&c->sync, &c->io[i]);
}

/* Waits for all: the call's result. Leaves the gate. */
static int sync_end(struct dz_queue *q, struct vbd_sync *sync, int submit_result)
{
    const struct dz_vbd *v = q->disk;
    sync_wait(q, sync, 0);
    int r = sync->result;
    if (submit_result < 0 && !r)
        r = submit_result; /* its sentence is set */
    else if (r)
        r = v->life == VBD_FAILED ? front_fail_err(r, &v->why) : front_fail(r, "the backend could not do the request");
    queue_hand_over(q);
    gate_leave(&q->gate);
    return r;
}

/* `piece_bytes` of sync_pieces() that the disk says. */
#define TRANSFER_PIECES 0u
#define ZEROES_PIECES   1u

static uint32_t piece_bytes_of(const struct dz_vbd_info *disk, uint32_t piece_bytes)
{
    switch (piece_bytes) {
    case TRANSFER_PIECES: return disk->request_bytes_max;
    case ZEROES_PIECES: return MAX(disk->write_zeroes_bytes_max, disk->sector_bytes);
    default: return piece_bytes;
    }
}

/* `piece_bytes`: of one request; buffer NULL: none. */
static int sync_pieces(struct dz_vbd *v, enum dz_op op, unsigned char *buffer, uint64_t length_bytes, uint64_t offset,
                       uint32_t piece_bytes)
{
    struct sync_call c;
    int r = 0;
    struct dz_queue *q = sync_enter(v);
    sync_call_init(&c);
    if (!span_fits(offset, length_bytes, v->info.size_bytes))
        r = front_fail(-ERANGE, "the transfer reaches past the end of the disk");
    for (uint64_t at = 0; at < length_bytes && r == 0 && !c.sync.result;) {
        uint32_t bytes = (uint32_t)MIN(length_bytes - at, piece_bytes_of(&v->info, piece_bytes));
        struct dz_io piece = {
            .op = op, .buffer = buffer ? buffer + at : NULL, .length_bytes = bytes, .offset_bytes = offset + at};
        r = sync_submit(q, &c.sync, &piece);
        at += bytes;
    }
    return sync_end(q, &c.sync, r);
}

static int sync_transfer(struct dz_vbd *v, enum dz_op op, unsigned char *buffer, size_t length_bytes, uint64_t offset)
{
    return sync_pieces(v, op, buffer, length_bytes, offset, TRANSFER_PIECES);
}

int dz_vbd_read(struct dz_vbd *v, void *buffer, size_t length_bytes, uint64_t offset_bytes)
{
    return sync_transfer(v, DZ_READ, buffer, length_bytes, offset_bytes);
}

int dz_vbd_write(struct dz_vbd *v, const void *buffer, size_t length_bytes, uint64_t offset_bytes)
{
    return sync_transfer(v, DZ_WRITE, (unsigned char *)(uintptr_t)buffer, length_bytes, offset_bytes);
}

/* FUA where the backend has it, else a write and a flush. */
int dz_vbd_write_durable(struct dz_vbd *v, const void *buffer, size_t length_bytes, uint64_t offset_bytes)
{
    struct dz_vbd_info info;
    dz_vbd_info(v, &info);
    enum dz_op op = info.fua ? (enum dz_op)(DZ_WRITE | DZ_FUA) : DZ_WRITE;
    int r = sync_transfer(v, op, (unsigned char *)(uintptr_t)buffer, length_bytes, offset_bytes);
    if (r == -EOPNOTSUPP && info.fua) { /* it came back without */
        info.fua = false;
        r = sync_transfer(v, DZ_WRITE, (unsigned char *)(uintptr_t)buffer, length_bytes, offset_bytes);
    }
    return r || info.fua ? r : dz_vbd_flush(v);
}

int dz_vbd_flush(struct dz_vbd *v)
{
    struct sync_call c;
    struct dz_io flush = {.op = DZ_FLUSH};
    struct dz_queue *q = sync_enter(v);
    sync_call_init(&c);
    return sync_end(q, &c.sync, sync_submit(q, &c.sync, &flush));
}

int dz_vbd_discard(struct dz_vbd *v, uint64_t length_bytes, uint64_t offset_bytes)
{
    return sync_pieces(v, DZ_DISCARD, NULL, length_bytes, offset_bytes, VBD_DISCARD_BYTES);
}

int dz_vbd_write_zeroes(struct dz_vbd *v, uint64_t length_bytes, uint64_t offset_bytes, bool may_unmap)
{
    enum dz_op op = may_unmap ? (enum dz_op)(DZ_WRITE_ZEROES | DZ_MAY_UNMAP) : DZ_WRITE_ZEROES;
    return sync_pieces(v, op, NULL, length_bytes, offset_bytes, ZEROES_PIECES);
}

static int sync_vector(struct dz_vbd *v, enum dz_op op, const struct iovec *iov, int count, uint64_t offset)
{
    uint64_t bytes = 0;
    for (int i = 0; i < count; i++)
        bytes = MIN(bytes + iov[i].iov_len, (uint64_t)UINT32_MAX + 1);
    if (bytes > UINT32_MAX)
        return front_fail(-EINVAL, "a vector is of less than 4 GiB");
    if (!bytes)
        return 0;
    struct sync_call c;
    struct dz_io io = {
        .op = op, .buffer = (struct iovec *)(uintptr_t)iov, .length_bytes = (uint32_t)bytes, .offset_bytes = offset};
    struct dz_queue *q = sync_enter(v);
    sync_call_init(&c);
    return sync_end(q, &c.sync, sync_submit(q, &c.sync, &io));
}

int dz_vbd_readv(struct dz_vbd *v, const struct iovec *iov, int count, uint64_t offset_bytes)
{
    return sync_vector(v, DZ_READV, iov, count, offset_bytes);
}

int dz_vbd_writev(struct dz_vbd *v, const struct iovec *iov, int count, uint64_t offset_bytes)
{
    return sync_vector(v, DZ_WRITEV, iov, count, offset_bytes);
}

/* ---- buffers ---- */

static uint32_t pages_of(size_t bytes)
{
    return (uint32_t)((bytes + PAGE_BYTES - 1) / PAGE_BYTES);
}

void *dz_buffer_alloc(struct dz_vbd *v, size_t bytes)
{
    if (!bytes || bytes > (size_t)v->shared.page_count * PAGE_BYTES)
        return NULL;
    pthread_mutex_lock(&v->pool_lock);
    int64_t page = pool_area_take(&v->shared, pages_of(bytes));
    pthread_mutex_unlock(&v->pool_lock);
    return page < 0 ? NULL : pool_page(v->pool, (uint32_t)page);
}

void dz_buffer_free(struct dz_vbd *v, void *buffer, size_t bytes)
{
    if (!buffer)
        return;
    int64_t offset = pool_offset(v->pool, buffer, bytes);
    assert(offset >= 0 && offset % PAGE_BYTES == 0); /* the caller's bug: not from this disk's dz_buffer_alloc() */
    pthread_mutex_lock(&v->pool_lock);
    pool_area_put(&v->shared, (uint32_t)(offset / PAGE_BYTES), pages_of(bytes));
    pthread_mutex_unlock(&v->pool_lock);
}
