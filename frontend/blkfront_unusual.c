/* SPDX-License-Identifier: MIT */
/* frontend/blkfront_unusual.c: what is no read or write of one piece of memory in one request: flushes, discards,
 * write-zeroes, durable writes, vectors, and transfers that are longer than a request.
 *
 * A long one is submitted part by part, request_bytes_max each, as slots and bounce pages become free: what is left
 * waits in the backlog, and each time responses were taken its parts go first. It comes back once, when its last part
 * has; the first error ends it, and what had been submitted is waited for.
 *
 * A write that has to be durable is given to each backend as durable as that one needs it: a successor without such
 * writes, and with a cache, is not given it, nor the rest of a long one.
 *
 * A vector whose pieces all are the pool's and whole sectors goes without a copy, else all of it is bounced.
 */
#include "base/span.h"
#include "frontend/blkfront.h"
#include "frontend/iovec_at.h"

/* ---- without memory ---- */

static int span_check(const struct dz_vbd_info *disk, const struct dz_io *io, bool offered, uint64_t bytes_max)
{
    if (!offered)
        return front_fail(-EOPNOTSUPP, "the disk does not do that: it is read-only, or its backend cannot or may not");
    if (io->length_bytes == 0 || io->length_bytes > bytes_max)
        return front_fail(-EINVAL, "the request is of no sector, or of more than the disk takes at a time");
    if (io->length_bytes % disk->sector_bytes || io->offset_bytes % disk->sector_bytes)
        return front_fail(-EINVAL, "offset and length must be multiples of the disk's sector size");
    if (!span_fits(io->offset_bytes, io->length_bytes, disk->size_bytes))
        return front_fail(-ERANGE, "the request reaches past the end of the disk");
    return 0;
}

static int submit_bare(struct dz_queue *q, struct dz_io *io, struct vbd_sync *sync, uint8_t operation, uint8_t flag)
{
    struct vbd_shadow *s = queue_shadow_begin(q);
    if (!s)
        return front_fail(-EAGAIN, "queue_depth requests are in flight: reap first");
    s->operation = operation;
    s->span_flag = flag;
    s->sector = operation == BLKIF_OP_FLUSH_DISKCACHE ? 0 : io->offset_bytes / SECTOR_BYTES;
    s->length_bytes = io->length_bytes;
    io_owner_set(io, sync);
    queue_shadow_commit(q, s, io);
    return 0;
}

static int submit_flush(struct dz_queue *q, struct dz_io *io, struct vbd_sync *sync)
{
    if (io->length_bytes)
        return front_fail(-EINVAL, "a flush has no data: its length must be 0");
    if (q->disk->info.flush)
        return submit_bare(q, io, sync, BLKIF_OP_FLUSH_DISKCACHE, 0);
    io_owner_set(io, sync); /* no cache that could lose anything */
    vbd_count(&q->stats.requests, 1);
    io_finish(q, io, 0);
    return 0;
}

static int submit_span(struct dz_queue *q, struct dz_io *io, struct vbd_sync *sync, unsigned flags)
{
    const struct dz_vbd_info *disk = &q->disk->info;
    if (io->op == DZ_DISCARD) {
        int r = span_check(disk, io, disk->discard, UINT32_MAX);
        return r ? r : submit_bare(q, io, sync, BLKIF_OP_DISCARD, 0);
    }
    int r = span_check(disk, io, disk->write_zeroes_bytes_max, disk->write_zeroes_bytes_max);
    uint8_t flag = flags & DZ_MAY_UNMAP ? BLKREQ_ZEROES_MAY_UNMAP : 0;
    return r ? r : submit_bare(q, io, sync, BLKREQ_OP_WRITE_ZEROES, flag);
}

/* ---- parts ---- */

static struct vbd_split *io_split(const struct dz_io *io)
{
    return (struct vbd_split *)(uintptr_t)io->private_[0];
}

/* A write that has to be durable, and a backend with a cache that has no such writes (any more). */
static bool durable_lost(const struct dz_queue *q, const struct dz_io *io)
{
    return io->op & DZ_FUA && q->disk->info.flush && !q->disk->offer.fua;
}

/* Where both ends have them, or else a plain one is as durable, without a cache. */
static uint8_t write_operation(const struct dz_queue *q, const struct dz_io *io)
{
    return io->op & DZ_FUA && q->disk->offer.fua ? BLKREQ_OP_WRITE_FUA : BLKIF_OP_WRITE;
}

static int operation_fit(const struct dz_queue *q, struct vbd_shadow *s)
{
    uint64_t zeroes_bytes_max = (uint64_t)q->disk->offer.max_write_zeroes_sectors * SECTOR_BYTES;
    switch (s->operation) {
    case BLKREQ_OP_WRITE_ZEROES: return s->length_bytes > zeroes_bytes_max ? -EOPNOTSUPP : 0;
    case BLKIF_OP_WRITE:
    case BLKREQ_OP_WRITE_FUA: s->operation = write_operation(q, s->io); return durable_lost(q, s->io) ? -EOPNOTSUPP : 0;
    default: return 0;
    }
}

static uint8_t wire_operation(const struct dz_queue *q, const struct dz_io *io)
{
    unsigned op = (unsigned)io->op & ~(unsigned)DZ_FUA;
    if (op == DZ_READ || op == DZ_READV)
        return BLKIF_OP_READ;
    return write_operation(q, io);
}

static bool part_direct(const struct dz_queue *q, struct vbd_shadow *s, const struct dz_io *io)
{
    if (!io_is_vector(io))
        return segments_direct(q, s, (unsigned char *)io->buffer + s->at_bytes, s->length_bytes);
    struct iovec_at at = iovec_at(io->buffer, s->at_bytes);
    for (uint32_t left = s->length_bytes; left;) {
        size_t bytes = left;
        const void *piece = iovec_next(&at, &bytes);
        if (!segments_direct(q, s, piece, (uint32_t)bytes)) {
            s->segment_count = 0;
            return false;
        }
        left -= (uint32_t)bytes;
    }
    return true;
}

/* Its segments as this connection names them: bounce pages one by one, else from the caller's memory again. */
static int segments_renew(const struct dz_queue *q, struct vbd_shadow *s)
{
    const uint32_t *ref = q->disk->ref_of_page;
    bool ok = true;
    for (uint32_t i = 0; i < s->bounce_count; i++)
        s->segment[i] = (s->segment[i] >> 32 << 32) | ref[s->bounce[i]];
    if (s->bounce_count || !s->segment_count)
        return 0;
    s->segment_count = 0;
    if (s->shape == VBD_PART || io_is_vector(s->io))
        ok = part_direct(q, s, s->io);
    else if (s->shape == VBD_PLAIN)
        ok = segments_direct(q, s, s->io->buffer, s->length_bytes);
    else
        for (const struct dz_io *io = s->io; io && ok; io = io_next(io))
            ok = segments_direct(q, s, io->buffer, io->length_bytes);
    return ok ? 0 : -EINVAL; /* its owner changed it meanwhile */
}

int queue_replay_fit(const struct dz_queue *q, struct vbd_shadow *s)
{
    int r = operation_fit(q, s);
    return r == 0 && q->disk->references_new ? segments_renew(q, s) : r;
}

/* -EAGAIN: no slot or no bounce page. */
static int part_submit(struct dz_queue *q, struct dz_io *io, uint32_t at_bytes, uint32_t bytes, enum vbd_shape shape)
{
    struct vbd_shadow *s = queue_shadow_begin(q);
    if (!s)
        return front_fail(-EAGAIN, "queue_depth requests are in flight: reap first");
    s->operation = wire_operation(q, io);
    s->sector = (io->offset_bytes + at_bytes) / SECTOR_BYTES;
    s->length_bytes = bytes;
    s->at_bytes = at_bytes;
    s->shape = (uint8_t)shape;
    if (!part_direct(q, s, io)) {
        int r = segments_bounced(q, s, bytes);
        if (r < 0)
            return r;
        if (s->operation != BLKIF_OP_READ)
            bounce_copy(q, s, io, 0, false);
    }
    queue_shadow_commit(q, s, io);
    return 0;
}

static bool split_whole(const struct vbd_split *split)
{
    return split->result || split->submitted_bytes == split->io->length_bytes;
}

static int split_move_on(struct dz_queue *q, struct vbd_split *split)
{
    struct dz_io *io = split->io;
    int r = 0;
    if (durable_lost(q, io)) /* the backend is another one than when it began */
        split->result = split->result ? split->result : -EOPNOTSUPP;
    while (r == 0 && !split_whole(split)) {
        uint32_t bytes = MIN(io->length_bytes - split->submitted_bytes, q->disk->info.request_bytes_max);
        r = part_submit(q, io, split->submitted_bytes, bytes, VBD_PART);
        if (r == 0) {
            split->parts++;
            split->submitted_bytes += bytes;
        }
    }
    return r;
}

static void split_free(struct dz_queue *q, struct vbd_split *split)
{
    split->io = NULL;
    split->next = q->free_split;
    q->free_split = split;
}

static void split_end(struct dz_queue *q, struct vbd_split *split)
{
    struct dz_io *io = split->io;
    int result = split->result;
    split_free(q, split);
    io_finish(q, io, result);
}

static void backlog_add(struct dz_queue *q, struct vbd_split *split)
{
    split->next = NULL;
    if (q->backlog)
        q->backlog_last->next = split;
    else
        q->backlog = split;
    q->backlog_last = split;
}

void backlog_abort(struct dz_queue *q, int code)
{
    while (q->backlog) {
        struct vbd_split *split = q->backlog;
        q->backlog = split->next;
        split->result = split->result ? split->result : code;
        split_end(q, split);
    }
}

void backlog_move_on(struct dz_queue *q)
{
    while (q->backlog) {
        struct vbd_split *split = q->backlog;
        if (split_move_on(q, split) < 0)
            break;
        q->backlog = split->next;
        if (!split->parts) /* the last part of one that failed came back meanwhile */
            split_end(q, split);
    }
    if (q->backlog && !queue_in_flight(q)) /* nobody's requests hold all there is */
        backlog_abort(q, -ETIMEDOUT);
    if (q->disk->life == VBD_CONNECTED)
        queue_kick(q);
}

static bool in_backlog(const struct dz_queue *q, const struct vbd_split *split)
{
    const struct vbd_split *other = q->backlog;
    while (other && other != split)
        other = other->next;
    return other != NULL;
}

static void part_done(struct dz_queue *q, struct vbd_split *split, int result)
{
    split->parts--;
    split->result = split->result ? split->result : result;
    if (!split->parts && split_whole(split) && !in_backlog(q, split))
        split_end(q, split);
}

static int submit_long(struct dz_queue *q, struct dz_io *io, struct vbd_sync *sync)
{
    struct vbd_split *split = q->free_split;
    if (!split || !q->free_count)
        return front_fail(-EAGAIN, "queue_depth requests are in flight: reap first");
    q->free_split = split->next;
    *split = (struct vbd_split){.io = io};
    io->private_[0] = (uintptr_t)split;
    int r = split_move_on(q, split);
    if (r < 0 && !split->parts) { /* not even one */
        split_free(q, split);
        return r;
    }
    io_owner_set(io, sync);
    vbd_count(&q->stats.split, 1);
    if (!split_whole(split))
        backlog_add(q, split);
    return 0;
}

static int submit_transfer(struct dz_queue *q, struct dz_io *io, struct vbd_sync *sync)
{
    const struct dz_vbd_info *disk = &q->disk->info;
    unsigned op = (unsigned)io->op & ~(unsigned)DZ_FUA;
    bool write = op == DZ_WRITE || op == DZ_WRITEV;
    if (io->op & DZ_FUA && !write)
        return front_fail(-EINVAL, "DZ_FUA is for writes");
    if (durable_lost(q, io))
        return front_fail(-EOPNOTSUPP, "the backend has no durable writes: flush after the write");
    int r = transfer_check(disk, io, write);
    if (r < 0)
        return r;
    if (io->length_bytes > disk->request_bytes_max)
        return submit_long(q, io, sync);
    r = part_submit(q, io, 0, io->length_bytes, VBD_PLAIN);
    if (r == 0)
        io_owner_set(io, sync);
    return r;
}

/* ---- both ends of it ---- */

int queue_submit_unusual(struct dz_queue *q, struct dz_io *io, struct vbd_sync *sync)
{
    switch ((unsigned)io->op) {
    case DZ_FLUSH: return submit_flush(q, io, sync);
    case DZ_DISCARD:
    case DZ_WRITE_ZEROES: return submit_span(q, io, sync, 0);
    case DZ_WRITE_ZEROES | DZ_MAY_UNMAP: return submit_span(q, io, sync, DZ_MAY_UNMAP);
    default:
        if (((unsigned)io->op & ~(unsigned)DZ_FUA) <= DZ_WRITE || io_is_vector(io))
            return submit_transfer(q, io, sync);
        return front_fail(-EINVAL, "unknown operation: none of enum dz_op's");
    }
}

void queue_finish_unusual(struct dz_queue *q, struct vbd_shadow *s, struct dz_io *io, int result)
{
    switch ((enum vbd_shape)s->shape) {
    case VBD_PART: part_done(q, io_split(io), result); break;
    case VBD_MERGED:
        for (struct dz_io *next; io; io = next) {
            next = io_next(io);
            io_finish(q, io, result);
        }
        break;
    case VBD_ORPHAN: q->orphans--; break;
    case VBD_PLAIN: io_finish(q, io, result);
    }
}
