/* SPDX-License-Identifier: MIT */
#include <assert.h>

#include "base/span.h"
#include "frontend/blkfront.h"

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* ---- requests out ---- */

/* What is wrong with a transfer, in the order in which one would look. */
static int transfer_wrong(const struct dz_vbd_info *disk, const struct dz_io *io)
{
    if (!io->buffer)
        return front_fail(-EINVAL, "the request has no buffer");
    if (io->length_bytes == 0 || io->length_bytes > disk->request_bytes_max)
        return front_fail(-EINVAL, "a request moves at least a sector and at most request_bytes_max");
    if (io->length_bytes % disk->sector_bytes || io->offset_bytes % disk->sector_bytes)
        return front_fail(-EINVAL, "offset and length must be multiples of the disk's sector size");
    if (!span_fits(io->offset_bytes, io->length_bytes, disk->size_bytes))
        return front_fail(-ERANGE, "the request reaches past the end of the disk");
    if (io->op != DZ_READ && disk->readonly)
        return front_fail(-EROFS, "the disk is read-only");
    return 0;
}

static int transfer_check(const struct dz_vbd_info *disk, const struct dz_io *io)
{
    uint64_t unaligned = (io->length_bytes | io->offset_bytes) & (disk->sector_bytes - 1);
    if (likely(io->buffer && io->length_bytes && io->length_bytes <= disk->request_bytes_max && !unaligned &&
               span_fits(io->offset_bytes, io->length_bytes, disk->size_bytes) &&
               (io->op == DZ_READ || !disk->readonly)))
        return 0;
    return transfer_wrong(disk, io);
}

static int discard_check(const struct dz_vbd_info *disk, const struct dz_io *io)
{
    if (!disk->discard)
        return front_fail(-EOPNOTSUPP, "the disk does not discard: it is read-only, or its backend cannot or may not");
    if (io->length_bytes == 0)
        return front_fail(-EINVAL, "a discard is of at least a sector");
    if (io->length_bytes % disk->sector_bytes || io->offset_bytes % disk->sector_bytes)
        return front_fail(-EINVAL, "offset and length must be multiples of the disk's sector size");
    if (!span_fits(io->offset_bytes, io->length_bytes, disk->size_bytes))
        return front_fail(-ERANGE, "the request reaches past the end of the disk");
    return 0;
}

/* A well-formed request, or a reason of the caller's. */
static int io_check(const struct dz_vbd *v, const struct dz_io *io)
{
    switch (io->op) {
    case DZ_READ:
    case DZ_WRITE: return transfer_check(&v->info, io);
    case DZ_DISCARD: return discard_check(&v->info, io);
    case DZ_FLUSH: return io->length_bytes ? front_fail(-EINVAL, "a flush has no data: its length must be 0") : 0;
    default: return front_fail(-EINVAL, "unknown operation: not DZ_READ, DZ_WRITE, DZ_FLUSH or DZ_DISCARD");
    }
}

/* `bytes` of page `page` from byte `offset` on. */
static inline uint64_t segment_of(const struct pool *pool, uint32_t page, uint32_t offset, uint32_t bytes)
{
    return blkreq_native_segment(pool->gref[page], offset / SECTOR_BYTES, (offset + bytes) / SECTOR_BYTES - 1);
}

/* The caller's memory as segments where it is the pool's and fits the protocol; false: bounce. */
static bool segments_direct(const struct dz_vbd *v, const struct dz_io *io, struct vbd_shadow *s)
{
    const struct pool *pool = v->pool;
    int64_t at = pool_offset(pool, io->buffer, io->length_bytes);
    if (at < 0 || (uint64_t)at & (v->info.sector_bytes - 1))
        return false;
    uint64_t pos = (uint64_t)at, end = pos + io->length_bytes;
    uint64_t pages = (end + PAGE_BYTES - 1) / PAGE_BYTES - pos / PAGE_BYTES;
    if (pages > v->segments_max)
        return false;
    uint64_t *to = s->segment;
    s->segment_count = (uint16_t)pages;
    while (pos < end) {
        uint32_t offset = pos % PAGE_BYTES, bytes = (uint32_t)MIN(end - pos, PAGE_BYTES - offset);
        *to++ = segment_of(pool, (uint32_t)(pos / PAGE_BYTES), offset, bytes);
        pos += bytes;
    }
    return true;
}

static int segments_bounced(struct dz_queue *q, const struct dz_io *io, struct vbd_shadow *s)
{
    int r = bounce_take(q, s, (io->length_bytes + PAGE_BYTES - 1) / PAGE_BYTES);
    if (r < 0)
        return r;
    s->segment_count = s->bounce_count;
    for (uint32_t i = 0; i < s->bounce_count; i++)
        s->segment[i] = segment_of(q->disk->pool, s->bounce[i], 0, MIN(io->length_bytes - i * PAGE_BYTES, PAGE_BYTES));
    if (io->op == DZ_WRITE)
        bounce_copy(q, s, false);
    vbd_count(&q->stats.bytes_bounced, io->length_bytes);
    return 0;
}

static void put_indirect(struct dz_queue *q, const struct vbd_shadow *s, void *slot)
{
    const struct pool *pool = q->disk->ring_pool;
    uint32_t page = queue_indirect_page(q, (uint32_t)(s - q->shadow));
    memcpy(pool_page(pool, page), s->segment, s->segment_count * sizeof(*s->segment));
    blkreq_native_put_indirect(slot, s->operation, s->id, s->sector, pool->gref[page], s->segment_count);
}

static inline void put_request(struct dz_queue *q, const struct vbd_shadow *s)
{
    void *slot = ring_front_slot(&q->ring);
    if (unlikely(s->operation == BLKIF_OP_DISCARD))
        blkreq_native_put_discard(slot, s->id, s->sector, s->length_bytes / SECTOR_BYTES);
    else if (likely(s->segment_count <= BLKREQ_SEGMENTS_MAX))
        blkreq_native_put(slot, s->operation, s->id, s->sector, s->segment, s->segment_count);
    else
        put_indirect(q, s, slot);
}

static void io_owner_set(struct dz_io *io, struct vbd_sync *sync)
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

/* Fills a free slot with the request; -EAGAIN: no bounce page. */
static inline int shadow_fill(struct dz_queue *q, struct dz_io *io, uint16_t slot)
{
    static const uint8_t operation[] = {[DZ_READ] = BLKIF_OP_READ,
                                        [DZ_WRITE] = BLKIF_OP_WRITE,
                                        [DZ_FLUSH] = BLKIF_OP_FLUSH_DISKCACHE,
                                        [DZ_DISCARD] = BLKIF_OP_DISCARD};
    struct vbd_shadow *s = &q->shadow[slot];
    assert(!s->io && !s->bounce_count);
    s->io = io;
    s->id = q->sequence * VBD_SLOTS_MAX + slot;
    s->operation = operation[io->op];
    s->segment_count = 0;
    s->sector = io->op == DZ_FLUSH ? 0 : io->offset_bytes / SECTOR_BYTES;
    s->length_bytes = io->length_bytes;
    if (unlikely(io->op == DZ_FLUSH || io->op == DZ_DISCARD) || segments_direct(q->disk, io, s))
        return 0;
    int r = segments_bounced(q, io, s);
    if (r < 0)
        s->io = NULL;
    return r;
}

int queue_submit(struct dz_queue *q, struct dz_io *io, struct vbd_sync *sync)
{
    struct dz_vbd *v = q->disk;
    if (unlikely(v->life == VBD_FAILED))
        return front_fail_err(v->failed, &v->why);
    int r = io_check(v, io);
    if (unlikely(r < 0))
        return r;
    if (unlikely(io->op == DZ_FLUSH && !v->info.flush)) { /* no cache that could lose anything */
        io_owner_set(io, sync);
        vbd_count(&q->stats.requests, 1);
        io_finish(q, io, 0);
        return 0;
    }
    if (unlikely(!q->free_count))
        return front_fail(-EAGAIN, "queue_depth requests are in flight: reap first");
    uint16_t slot = q->free_slot[q->free_count - 1];
    r = shadow_fill(q, io, slot);
    if (unlikely(r < 0))
        return r;
    io_owner_set(io, sync);
    q->free_count--;
    q->sequence++;
    vbd_count(&q->stats.requests, 1);
    if (likely(v->life == VBD_CONNECTED))
        put_request(q, &q->shadow[slot]);
    return 0;
}

int queue_kick(struct dz_queue *q)
{
    struct dz_vbd *v = q->disk;
    if (unlikely(v->life == VBD_FAILED))
        return front_fail_err(v->failed, &v->why);
    if (!ring_front_unpublished(&q->ring))
        return 0;
    q->published = q->sequence;
    if (!ring_front_push(&q->ring))
        return 0;
    vbd_count(&q->stats.notifications_sent, 1);
    return evtchn_notify(&q->channel);
}

/* ---- responses in ---- */

/* Gives slot and bounce pages back and the request to its owner. */
static inline void shadow_finish(struct dz_queue *q, uint32_t slot, int result)
{
    struct vbd_shadow *s = &q->shadow[slot];
    struct dz_io *io = s->io;
    if (unlikely(result))
        vbd_count(&q->stats.errors, 1);
    else if (s->operation == BLKIF_OP_READ)
        vbd_count(&q->stats.bytes_read, s->length_bytes);
    else if (s->operation == BLKIF_OP_WRITE)
        vbd_count(&q->stats.bytes_written, s->length_bytes);
    if (s->bounce_count) {
        if (!result && s->operation == BLKIF_OP_READ)
            bounce_copy(q, s, true);
        bounce_put(q, s);
    }
    s->io = NULL;
    q->free_slot[q->free_count++] = (uint16_t)slot;
    io_finish(q, io, result);
}

/* What is wrong with a response, or NULL: the one check of what the backend says was done. */
static inline const char *response_wrong(const struct dz_queue *q, uint64_t id, uint8_t operation)
{
    uint64_t slot = id % VBD_SLOTS_MAX;
    const struct vbd_shadow *s = slot < q->slots ? &q->shadow[slot] : NULL;
    if (unlikely(!s || !s->io || s->id != id))
        return "answered a request that is not in flight";
    if (unlikely(id / VBD_SLOTS_MAX >= q->published))
        return "answered a request that it was not told of";
    if (unlikely(s->operation != operation) &&
        !(s->segment_count > BLKREQ_SEGMENTS_MAX && operation == BLKIF_OP_INDIRECT))
        return "answered with another operation than was asked";
    return NULL;
}

static inline int status_result(int16_t status)
{
    return likely(status == BLKIF_RSP_OKAY) ? 0 : status == BLKIF_RSP_EOPNOTSUPP ? -EOPNOTSUPP : -EIO;
}

void queue_take_responses(struct dz_queue *q)
{
    uint32_t count = 0;
    if (unlikely(q->disk->life == VBD_FAILED || q->wrong))
        return;
    if (unlikely(ring_front_pending(&q->ring, &count))) {
        q->wrong = "runs ahead of the requests with its response index";
        return;
    }
    if (!count)
        return;
    q->spurious = 0;
    while (count--) {
        struct blkif_response response;
        ring_front_take(&q->ring, &response, sizeof(response));
        q->wrong = response_wrong(q, response.id, response.operation);
        if (unlikely(q->wrong))
            return;
        shadow_finish(q, (uint32_t)(response.id % VBD_SLOTS_MAX), status_result(response.status));
    }
}

void queue_abort(struct dz_queue *q, int code)
{
    for (uint32_t slot = 0; slot < q->slots; slot++)
        if (q->shadow[slot].io)
            shadow_finish(q, slot, code);
}

unsigned queue_done_take(struct dz_queue *q, struct dz_io **done, unsigned max)
{
    unsigned n = 0;
    while (n < max && q->done) {
        done[n] = q->done;
        q->done = (struct dz_io *)(uintptr_t)done[n++]->private_[0];
    }
    return n;
}

void queue_replay(struct dz_queue *q)
{
    uint16_t order[VBD_SLOTS_MAX];
    unsigned count = 0;
    for (uint32_t slot = 0; slot < q->slots; slot++) { /* insertion sort by submission */
        if (!q->shadow[slot].io)
            continue;
        unsigned at = count++;
        for (; at && q->shadow[order[at - 1]].id > q->shadow[slot].id; at--)
            order[at] = order[at - 1];
        order[at] = (uint16_t)slot;
    }
    for (unsigned i = 0; i < count; i++) {
        const struct vbd_shadow *s = &q->shadow[order[i]];
        vbd_count(&q->stats.replayed, s->id / VBD_SLOTS_MAX < q->published);
        put_request(q, s);
    }
    q->published = 0; /* of none the new backend has been told */
}
