/* SPDX-License-Identifier: MIT */
#include <assert.h>

#include "base/span.h"
#include "frontend/blkfront.h"

/* ---- requests out ---- */

/* What is wrong with a transfer, in the order in which one would look. */
static int transfer_wrong(const struct dz_vbd_info *disk, const struct dz_io *io, bool write)
{
    if (!io->buffer)
        return front_fail(-EINVAL, "the request has no buffer");
    if (io->length_bytes == 0)
        return front_fail(-EINVAL, "a request moves at least a sector");
    if (io->length_bytes % disk->sector_bytes || io->offset_bytes % disk->sector_bytes)
        return front_fail(-EINVAL, "offset and length must be multiples of the disk's sector size");
    if (!span_fits(io->offset_bytes, io->length_bytes, disk->size_bytes))
        return front_fail(-ERANGE, "the request reaches past the end of the disk");
    return write && disk->readonly ? front_fail(-EROFS, "the disk is read-only") : 0;
}

static inline bool transfer_ok(const struct dz_vbd_info *disk, const struct dz_io *io, bool write)
{
    uint64_t unaligned = (io->length_bytes | io->offset_bytes) & (disk->sector_bytes - 1);
    return io->buffer && io->length_bytes && !unaligned &&
           span_fits(io->offset_bytes, io->length_bytes, disk->size_bytes) && !(write && disk->readonly);
}

int transfer_check(const struct dz_vbd_info *disk, const struct dz_io *io, bool write)
{
    return transfer_ok(disk, io, write) ? 0 : transfer_wrong(disk, io, write);
}

/* `bytes` of page `page` from byte `offset` on. */
static inline uint64_t segment_of(const struct dz_vbd *v, uint32_t page, uint32_t offset, uint32_t bytes)
{
    return blkreq_native_segment(v->ref_of_page[page], offset / SECTOR_BYTES, (offset + bytes) / SECTOR_BYTES - 1);
}

bool segments_direct(const struct dz_queue *q, struct vbd_shadow *s, const void *address, uint32_t bytes)
{
    const struct dz_vbd *v = q->disk;
    int64_t at = pool_offset(v->pool, address, bytes);
    if (at < 0 || ((uint64_t)at | bytes) & (v->info.sector_bytes - 1))
        return false;
    uint32_t page = (uint32_t)((uint64_t)at / PAGE_BYTES), offset = (uint64_t)at % PAGE_BYTES;
    uint32_t pages = (offset + bytes + PAGE_BYTES - 1) / PAGE_BYTES;
    if (pages > v->segments_max - s->segment_count)
        return false;
    uint64_t *to = s->segment + s->segment_count;
    s->segment_count = (uint16_t)(s->segment_count + pages);
    for (uint32_t part; (part = MIN(bytes, PAGE_BYTES - offset)) < bytes; bytes -= part, offset = 0)
        *to++ = segment_of(v, page++, offset, part);
    *to = segment_of(v, page, offset, bytes);
    return true;
}

/* The same for the most usual case, a request that lies within a page: its one segment. */
static inline bool segment_direct(const struct dz_vbd *v, struct vbd_shadow *s, const void *address, uint32_t bytes)
{
    uint64_t at = (uint64_t)((uintptr_t)address - (uintptr_t)v->pool->extent.address);
    uint32_t offset = at % PAGE_BYTES;
    if (at >= (uint64_t)v->pool->page_count * PAGE_BYTES || bytes > PAGE_BYTES - offset ||
        offset & (v->info.sector_bytes - 1))
        return false;
    s->segment[0] = segment_of(v, (uint32_t)(at / PAGE_BYTES), offset, bytes);
    s->segment_count = 1;
    return true;
}

int segments_bounced(struct dz_queue *q, struct vbd_shadow *s, uint32_t bytes)
{
    uint32_t first = s->bounce_count, count = (bytes + PAGE_BYTES - 1) / PAGE_BYTES;
    int r = bounce_take(q, s, count);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < count; i++)
        s->segment[s->segment_count++] =
            segment_of(q->disk, s->bounce[first + i], 0, MIN(bytes - i * PAGE_BYTES, PAGE_BYTES));
    vbd_count(&q->stats.bytes_bounced, bytes);
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
    if (unlikely(blkreq_is_span(s->operation)))
        blkreq_native_put_span(slot, s->operation, s->span_flag, s->id, s->sector, s->length_bytes / SECTOR_BYTES);
    else if (likely(s->segment_count <= BLKREQ_SEGMENTS_MAX))
        blkreq_native_put(slot, s->operation, s->id, s->sector, s->segment, s->segment_count);
    else
        put_indirect(q, s, slot);
}

void queue_put_open(struct dz_queue *q)
{
    struct vbd_shadow *s = take_ptr(q->open);
    if (s && q->disk->life == VBD_CONNECTED) /* else the replay does it */
        put_request(q, s);
}

static inline void shadow_commit(struct dz_queue *q, struct vbd_shadow *s, struct dz_io *io)
{
    s->io = io;
    q->free_count--;
    q->writes_in_flight += s->operation != BLKIF_OP_READ;
    q->sequence++;
    vbd_count(&q->stats.requests, 1);
    if (unlikely(q->disk->merge))
        merge_open(q, s);
    else if (likely(q->disk->life == VBD_CONNECTED))
        put_request(q, s);
}

void queue_shadow_commit(struct dz_queue *q, struct vbd_shadow *s, struct dz_io *io)
{
    shadow_commit(q, s, io);
}

/* For memory that is not the pool's, or is more than a page. */
static int segments_make(struct dz_queue *q, struct vbd_shadow *s, const struct dz_io *io)
{
    if (segments_direct(q, s, io->buffer, io->length_bytes))
        return 0;
    int r = segments_bounced(q, s, io->length_bytes);
    if (r == 0 && io->op == DZ_WRITE)
        bounce_copy(q, s, io, 0, false);
    return r;
}

int queue_submit(struct dz_queue *q, struct dz_io *io, struct vbd_sync *sync)
{
    const struct dz_vbd *v = q->disk;
    if (unlikely(v->life == VBD_FAILED))
        return front_fail_err(v->failed, &v->why);
    if (unlikely((unsigned)io->op > DZ_WRITE || io->length_bytes > v->info.request_bytes_max))
        return queue_submit_unusual(q, io, sync);
    if (unlikely(!transfer_ok(&v->info, io, io->op == DZ_WRITE)))
        return transfer_wrong(&v->info, io, io->op == DZ_WRITE);
    if (unlikely(v->merge) && merge_append(q, io, sync))
        return 0;
    struct vbd_shadow *s = queue_shadow_begin(q);
    if (unlikely(!s))
        return front_fail(-EAGAIN, "queue_depth requests are in flight: reap first");
    s->operation = io->op == DZ_WRITE ? BLKIF_OP_WRITE : BLKIF_OP_READ;
    s->sector = io->offset_bytes / SECTOR_BYTES;
    s->length_bytes = io->length_bytes;
    int r = likely(segment_direct(v, s, io->buffer, io->length_bytes)) ? 0 : segments_make(q, s, io);
    if (unlikely(r < 0))
        return r;
    io_owner_set(io, sync);
    shadow_commit(q, s, io);
    return 0;
}

int queue_kick(struct dz_queue *q)
{
    const struct dz_vbd *v = q->disk;
    if (unlikely(v->life == VBD_FAILED))
        return front_fail_err(v->failed, &v->why);
    if (unlikely(q->open))
        queue_put_open(q);
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
    else if (s->operation == BLKIF_OP_WRITE || s->operation == BLKREQ_OP_WRITE_FUA)
        vbd_count(&q->stats.bytes_written, s->length_bytes);
    if (unlikely(s->bounce_count)) {
        if (!result && s->operation == BLKIF_OP_READ && s->shape != VBD_ORPHAN)
            bounce_copy_all(q, s);
        bounce_put(q, s, 0);
    }
    s->io = NULL;
    q->writes_in_flight -= s->operation != BLKIF_OP_READ;
    q->free_slot[q->free_count++] = (uint16_t)slot;
    if (unlikely(s->shape))
        queue_finish_unusual(q, s, io, result);
    else
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
    const enum vbd_life life = q->disk->life;
    if (unlikely(life == VBD_FAILED || q->wrong || (life == VBD_MAPPING && !q->index))) /* not for requests */
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
    if (unlikely(q->backlog))
        backlog_move_on(q);
}

void queue_abort(struct dz_queue *q, int code)
{
    q->open = NULL;
    for (uint32_t slot = 0; slot < q->slots; slot++)
        if (q->shadow[slot].io)
            shadow_finish(q, slot, code);
    backlog_abort(q, code);
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
    q->open = NULL;
    for (uint32_t slot = 0; slot < q->slots; slot++) { /* of late ones, who had them is gone */
        struct vbd_shadow *s = &q->shadow[slot];
        int r = !s->io ? 0 : s->late ? -ETIMEDOUT : queue_replay_fit(q, s);
        if (r < 0)
            shadow_finish(q, slot, r);
    }
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
    if (q->backlog)
        backlog_move_on(q);
}
