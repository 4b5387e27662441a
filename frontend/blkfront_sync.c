/* SPDX-License-Identifier: MIT */
/* frontend/blkfront_sync.c: reads, writes and flushes that return when they are done, of any length; the pool's
 * buffers.
 *
 * A call is cut into requests of at most request_bytes_max, of which up to VBD_SYNC_DEPTH are in flight. The first
 * error wins; nothing is submitted after it, and what is in flight is waited for, as it uses the caller's memory. The
 * caller's own asynchronous requests go on meanwhile and queue for its next reap.
 */
#include "frontend/blkfront.h"

#include <assert.h>

#include "base/span.h"

/* Waits until one of the call's requests came back. */
static void sync_wait(struct dz_vbd *v, const struct vbd_sync *sync)
{
    unsigned before = sync->in_flight;
    dz_vbd_kick(v);
    while (sync->in_flight == before)
        vbd_progress(v, UINT64_MAX);
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
static int sync_submit(struct dz_vbd *v, struct vbd_sync *sync, const struct dz_io *piece)
{
    struct dz_io *io;
    while (!(io = sync_io(sync)))
        sync_wait(v, sync);
    for (;;) {
        *io = *piece;
        int r = vbd_submit(v, io, sync);
        if (r == 0)
            return 0;
        if (r != -EAGAIN || !vbd_in_flight(v)) {
            sync_io_put(sync, io);
            return r;
        }
        dz_vbd_kick(v);
        vbd_progress(v, UINT64_MAX);
    }
}

struct vbd_sync_queue {
    struct vbd_sync sync;
    struct dz_io io[VBD_SYNC_DEPTH];
};

static void sync_queue_init(struct vbd_sync_queue *q)
{
    q->sync = (struct vbd_sync){0};
    for (unsigned i = ARRAY_SIZE(q->io); i-- > 0;)
        sync_io_put(&q->sync, &q->io[i]);
}

/* Waits for all: the call's result. */
static int sync_end(struct dz_vbd *v, struct vbd_sync *sync, int submit_result)
{
    while (sync->in_flight)
        sync_wait(v, sync);
    if (submit_result < 0 && !sync->result)
        return submit_result; /* its sentence is set */
    if (v->life == VBD_FAILED && sync->result)
        return front_fail_err(sync->result, &v->why);
    return sync->result ? front_fail(sync->result, "the backend could not do the request") : 0;
}

/* `piece_bytes`: of one request; buffer NULL: none. */
static int sync_pieces(struct dz_vbd *v, enum dz_op op, unsigned char *buffer, uint64_t length_bytes, uint64_t offset,
                       uint32_t piece_bytes)
{
    struct vbd_sync_queue q;
    int r = 0;
    if (!span_fits(offset, length_bytes, v->info.size_bytes))
        return front_fail(-ERANGE, "the transfer reaches past the end of the disk");
    sync_queue_init(&q);
    for (uint64_t at = 0; at < length_bytes && r == 0 && !q.sync.result;) {
        uint32_t bytes = (uint32_t)MIN(length_bytes - at, piece_bytes);
        struct dz_io piece = {
            .op = op, .buffer = buffer ? buffer + at : NULL, .length_bytes = bytes, .offset_bytes = offset + at};
        r = sync_submit(v, &q.sync, &piece);
        at += bytes;
    }
    return sync_end(v, &q.sync, r);
}

static int sync_transfer(struct dz_vbd *v, enum dz_op op, unsigned char *buffer, size_t length_bytes, uint64_t offset)
{
    return sync_pieces(v, op, buffer, length_bytes, offset, v->info.request_bytes_max);
}

int dz_vbd_read(struct dz_vbd *v, void *buffer, size_t length_bytes, uint64_t offset_bytes)
{
    return sync_transfer(v, DZ_READ, buffer, length_bytes, offset_bytes);
}

int dz_vbd_write(struct dz_vbd *v, const void *buffer, size_t length_bytes, uint64_t offset_bytes)
{
    return sync_transfer(v, DZ_WRITE, (unsigned char *)(uintptr_t)buffer, length_bytes, offset_bytes);
}

int dz_vbd_flush(struct dz_vbd *v)
{
    struct vbd_sync_queue q;
    struct dz_io flush = {.op = DZ_FLUSH};
    sync_queue_init(&q);
    return sync_end(v, &q.sync, sync_submit(v, &q.sync, &flush));
}

int dz_vbd_discard(struct dz_vbd *v, uint64_t length_bytes, uint64_t offset_bytes)
{
    return sync_pieces(v, DZ_DISCARD, NULL, length_bytes, offset_bytes, VBD_DISCARD_BYTES);
}

/* ---- buffers ---- */

static uint32_t pages_of(size_t bytes)
{
    return (uint32_t)((bytes + PAGE_BYTES - 1) / PAGE_BYTES);
}

void *dz_buffer_alloc(struct dz_vbd *v, size_t bytes)
{
    if (!bytes || bytes > (size_t)v->pool->page_count * PAGE_BYTES)
        return NULL;
    if (v->pool->free_count < pages_of(bytes) + v->segments_max)
        return NULL;
    int64_t page = pool_take(v->pool, pages_of(bytes));
    return page < 0 ? NULL : pool_page(v->pool, (uint32_t)page);
}

void dz_buffer_free(struct dz_vbd *v, void *buffer, size_t bytes)
{
    if (!buffer)
        return;
    int64_t offset = pool_offset(v->pool, buffer, bytes);
    assert(offset >= 0 && offset % PAGE_BYTES == 0); /* the caller's bug: not from this disk's dz_buffer_alloc() */
    pool_put(v->pool, (uint32_t)(offset / PAGE_BYTES), pages_of(bytes));
}
