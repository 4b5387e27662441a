/* SPDX-License-Identifier: MIT */
#include "frontend/blkfront.h"

#include <assert.h>

#include "base/span.h"

/* ---- requests out ---- */

/* A well-formed request, or a reason of the caller's. */
static int io_check(const struct dz_vbd *v, const struct dz_io *io)
{
    const struct dz_vbd_info *disk = &v->info;
    if (io->op == DZ_FLUSH)
        return io->length_bytes ? front_fail(-EINVAL, "a flush has no data: its length must be 0") : 0;
    if (io->op != DZ_READ && io->op != DZ_WRITE && io->op != DZ_DISCARD)
        return front_fail(-EINVAL, "unknown operation: not DZ_READ, DZ_WRITE, DZ_FLUSH or DZ_DISCARD");
    if (io->op == DZ_DISCARD && !disk->discard)
        return front_fail(-EOPNOTSUPP, "the disk does not discard: it is read-only, or its backend cannot or may not");
    if (!io->buffer && io->op != DZ_DISCARD)
        return front_fail(-EINVAL, "the request has no buffer");
    if (io->length_bytes == 0 || (io->length_bytes > disk->request_bytes_max && io->op != DZ_DISCARD))
        return front_fail(-EINVAL, "a request moves at least a sector and at most request_bytes_max");
    if (io->length_bytes % disk->sector_bytes || io->offset_bytes % disk->sector_bytes)
        return front_fail(-EINVAL, "offset and length must be multiples of the disk's sector size");
    if (!span_fits(io->offset_bytes, io->length_bytes, disk->size_bytes))
        return front_fail(-ERANGE, "the request reaches past the end of the disk");
    if (io->op != DZ_READ && disk->readonly)
        return front_fail(-EROFS, "the disk is read-only");
    return 0;
}

/* Where the request's `count` segments go: into the slot, or into its page as an indirect request. */
static struct blkreq_segment *segments_begin(const struct dz_vbd *v, struct vbd_shadow *s, uint32_t count)
{
    struct blkreq *req = &s->request;
    req->segment_count = (uint16_t)count;
    if (count <= BLKREQ_SEGMENTS_MAX)
        return req->segment;
    uint32_t page = vbd_indirect_page(v, (uint32_t)(s - v->shadow));
    req->indirect_pages = (uint16_t)blkreq_indirect_pages(count);
    for (uint32_t i = 0; i < req->indirect_pages; i++)
        req->indirect_gref[i] = v->ring_pool->gref[page + i];
    return s->segment;
}

/* `bytes` of page `page` from byte `offset` on. */
static struct blkreq_segment segment_of(const struct dz_vbd *v, uint32_t page, uint32_t offset, uint32_t bytes)
{
    return (struct blkreq_segment){
        .gref = v->pool->gref[page],
        .first_sector = (uint8_t)(offset / SECTOR_BYTES),
        .last_sector = (uint8_t)((offset + bytes) / SECTOR_BYTES - 1),
    };
}

/* The caller's memory as segments where it is the pool's and fits the protocol; false: bounce. */
static bool segments_direct(const struct dz_vbd *v, const struct dz_io *io, struct vbd_shadow *s)
{
    int64_t at = pool_offset(v->pool, io->buffer, io->length_bytes);
    if (at < 0 || at % v->info.sector_bytes)
        return false;
    uint64_t pos = (uint64_t)at, end = pos + io->length_bytes;
    uint64_t pages = (end + PAGE_BYTES - 1) / PAGE_BYTES - pos / PAGE_BYTES;
    if (pages > v->segments_max)
        return false;
    struct blkreq_segment *to = segments_begin(v, s, (uint32_t)pages);
    while (pos < end) {
        uint32_t offset = pos % PAGE_BYTES, bytes = (uint32_t)MIN(end - pos, PAGE_BYTES - offset);
        *to++ = segment_of(v, (uint32_t)(pos / PAGE_BYTES), offset, bytes);
        pos += bytes;
    }
    return true;
}

static void bounce_put(struct dz_vbd *v, struct vbd_shadow *s)
{
    while (s->bounce_count)
        pool_put(v->pool, s->bounce[--s->bounce_count], 1);
}

/* Pages for `count` segments: adjacent ones where there are any, so that the backend can merge. */
static int bounce_take(struct dz_vbd *v, struct vbd_shadow *s, uint32_t count)
{
    int64_t run = pool_take(v->pool, count);
    for (uint32_t i = 0; i < count; i++) {
        int64_t page = run >= 0 ? run + i : pool_take(v->pool, 1);
        if (page < 0) {
            bounce_put(v, s);
            return front_fail(-EAGAIN, "no bounce page is free: reap first, or free buffers");
        }
        s->bounce[s->bounce_count++] = (uint16_t)page;
    }
    return 0;
}

static void bounce_copy(const struct dz_vbd *v, const struct vbd_shadow *s, bool to_caller)
{
    unsigned char *caller = s->io->buffer;
    uint32_t left = s->io->length_bytes;
    for (uint32_t i = 0; i < s->bounce_count; i++) {
        uint32_t bytes = MIN(left, PAGE_BYTES);
        unsigned char *page = pool_page(v->pool, s->bounce[i]);
        memcpy(to_caller ? caller : page, to_caller ? page : caller, bytes);
        caller += bytes;
        left -= bytes;
    }
}

static int segments_bounced(struct dz_vbd *v, const struct dz_io *io, struct vbd_shadow *s)
{
    int r = bounce_take(v, s, (io->length_bytes + PAGE_BYTES - 1) / PAGE_BYTES);
    if (r < 0)
        return r;
    struct blkreq_segment *to = segments_begin(v, s, s->bounce_count);
    for (uint32_t i = 0; i < s->bounce_count; i++)
        to[i] = segment_of(v, s->bounce[i], 0, MIN(io->length_bytes - i * PAGE_BYTES, PAGE_BYTES));
    if (io->op == DZ_WRITE)
        bounce_copy(v, s, false);
    v->stats.bytes_bounced += io->length_bytes;
    return 0;
}

static void ring_put_request(struct dz_vbd *v, const struct vbd_shadow *s)
{
    unsigned char slot[sizeof(union blkif_sring_entry)];
    if (s->request.indirect_pages) {
        uint32_t page = vbd_indirect_page(v, (uint32_t)(s - v->shadow));
        blkreq_fill_segments(s->segment, s->request.segment_count, (void *)pool_page(v->ring_pool, page));
    }
    blkreq_encode(&blk_protocol_native, &s->request, slot);
    ring_front_put(&v->ring, slot, blk_protocol_used_bytes(&blk_protocol_native, slot));
}

static struct dz_io *io_next(const struct dz_io *io)
{
    return (struct dz_io *)(uintptr_t)io->private_[0];
}

static void io_owner_set(struct dz_io *io, struct vbd_sync *sync)
{
    io->private_[1] = (uintptr_t)sync;
    if (sync)
        sync->in_flight++;
}

/* To who submitted it. */
static void io_finish(struct dz_vbd *v, struct dz_io *io, int result)
{
    struct vbd_sync *sync = (struct vbd_sync *)(uintptr_t)io->private_[1];
    io->result = result;
    v->finished++;
    if (sync) {
        sync->in_flight--;
        sync->result = sync->result ? sync->result : result;
        io->private_[0] = (uintptr_t)sync->free;
        sync->free = io;
        return;
    }
    io->private_[0] = 0;
    if (v->done)
        v->done_last->private_[0] = (uintptr_t)io;
    else
        v->done = io;
    v->done_last = io;
}

/* Fills a free slot with the request; -EAGAIN: no bounce page. */
static int shadow_fill(struct dz_vbd *v, struct dz_io *io, uint16_t slot)
{
    static const uint8_t operation[] = {[DZ_READ] = BLKIF_OP_READ,
                                        [DZ_WRITE] = BLKIF_OP_WRITE,
                                        [DZ_FLUSH] = BLKIF_OP_FLUSH_DISKCACHE,
                                        [DZ_DISCARD] = BLKIF_OP_DISCARD};
    struct vbd_shadow *s = &v->shadow[slot];
    assert(!s->io && !s->bounce_count);
    s->io = io;
    s->request.id = v->sequence * VBD_SLOTS_MAX + slot;
    s->request.operation = s->request.operation_raw = operation[io->op];
    s->request.segment_count = s->request.indirect_pages = 0;
    s->request.sector = io->op == DZ_FLUSH ? 0 : io->offset_bytes / SECTOR_BYTES;
    s->request.sector_count = io->length_bytes / SECTOR_BYTES;
    if (io->op == DZ_FLUSH || io->op == DZ_DISCARD || segments_direct(v, io, s))
        return 0;
    int r = segments_bounced(v, io, s);
    if (r < 0)
        s->io = NULL;
    return r;
}

int vbd_submit(struct dz_vbd *v, struct dz_io *io, struct vbd_sync *sync)
{
    if (v->life == VBD_FAILED)
        return front_fail_err(v->failed, &v->why);
    int r = io_check(v, io);
    if (r < 0)
        return r;
    if (io->op == DZ_FLUSH && !v->info.flush) { /* no cache that could lose anything */
        io_owner_set(io, sync);
        v->stats.requests++;
        io_finish(v, io, 0);
        return 0;
    }
    if (!v->free_count)
        return front_fail(-EAGAIN, "queue_depth requests are in flight: reap first");
    uint16_t slot = v->free_slot[v->free_count - 1];
    r = shadow_fill(v, io, slot);
    if (r < 0)
        return r;
    io_owner_set(io, sync);
    v->free_count--;
    v->sequence++;
    v->stats.requests++;
    if (v->life == VBD_CONNECTED)
        ring_put_request(v, &v->shadow[slot]);
    return 0;
}

int dz_vbd_submit(struct dz_vbd *v, struct dz_io *io)
{
    return vbd_submit(v, io, NULL);
}

int dz_vbd_kick(struct dz_vbd *v)
{
    if (v->life == VBD_FAILED)
        return front_fail_err(v->failed, &v->why);
    if (v->ring.req_prod_pvt == v->ring.req_prod)
        return 0;
    v->published = v->sequence;
    if (!ring_front_push(&v->ring))
        return 0;
    v->stats.notifications_sent++;
    return evtchn_notify(&v->channel);
}

/* ---- responses in ---- */

/* Gives slot and bounce pages back and the request to its owner. */
static void shadow_finish(struct dz_vbd *v, uint32_t slot, int result)
{
    struct vbd_shadow *s = &v->shadow[slot];
    struct dz_io *io = s->io;
    if (!result && io->op == DZ_READ) {
        if (s->bounce_count)
            bounce_copy(v, s, true);
        v->stats.bytes_read += io->length_bytes;
    } else if (!result && io->op == DZ_WRITE) {
        v->stats.bytes_written += io->length_bytes;
    }
    v->stats.errors += result != 0;
    bounce_put(v, s);
    s->io = NULL;
    v->free_slot[v->free_count++] = (uint16_t)slot;
    io_finish(v, io, result);
}

/* What is wrong with a response, or NULL: the one check of what the backend says was done. */
static const char *response_wrong(const struct dz_vbd *v, uint64_t id, uint8_t operation)
{
    uint64_t slot = id % VBD_SLOTS_MAX;
    const struct vbd_shadow *s = slot < v->slots ? &v->shadow[slot] : NULL;
    if (!s || !s->io || s->request.id != id)
        return "answered a request that is not in flight";
    if (id / VBD_SLOTS_MAX >= v->published)
        return "answered a request that it was not told of";
    if (s->request.operation != operation && !(s->request.indirect_pages && operation == BLKIF_OP_INDIRECT))
        return "answered with another operation than was asked";
    return NULL;
}

static int status_result(int16_t status)
{
    return status == BLKIF_RSP_OKAY ? 0 : status == BLKIF_RSP_EOPNOTSUPP ? -EOPNOTSUPP : -EIO;
}

void vbd_take_responses(struct dz_vbd *v)
{
    uint32_t count = 0;
    if (v->life == VBD_FAILED)
        return;
    if (ring_front_pending(&v->ring, &count)) {
        vbd_fail(v, -EIO, "the backend's response index runs ahead of the requests");
        return;
    }
    while (count--) {
        unsigned char slot[sizeof(union blkif_sring_entry)];
        uint64_t id;
        uint8_t operation;
        int16_t status;
        ring_front_take(&v->ring, slot, blk_protocol_native.response_bytes);
        blkreq_decode_response(slot, &id, &operation, &status);
        const char *wrong = response_wrong(v, id, operation);
        if (wrong) {
            vbd_fail(v, -EIO, "the backend %s", wrong);
            return;
        }
        v->spurious = 0;
        shadow_finish(v, (uint32_t)(id % VBD_SLOTS_MAX), status_result(status));
    }
}

void vbd_abort(struct dz_vbd *v, int code)
{
    for (uint32_t slot = 0; slot < v->slots; slot++)
        if (v->shadow[slot].io)
            shadow_finish(v, slot, code);
}

unsigned vbd_done_take(struct dz_vbd *v, struct dz_io **done, unsigned max)
{
    unsigned n = 0;
    while (n < max && v->done) {
        done[n] = v->done;
        v->done = io_next(done[n++]);
    }
    return n;
}

void vbd_replay(struct dz_vbd *v)
{
    uint16_t order[VBD_SLOTS_MAX];
    unsigned count = 0;
    for (uint32_t slot = 0; slot < v->slots; slot++) { /* insertion sort by submission */
        if (!v->shadow[slot].io)
            continue;
        unsigned at = count++;
        for (; at && v->shadow[order[at - 1]].request.id > v->shadow[slot].request.id; at--)
            order[at] = order[at - 1];
        order[at] = (uint16_t)slot;
    }
    for (unsigned i = 0; i < count; i++) {
        const struct vbd_shadow *s = &v->shadow[order[i]];
        v->stats.replayed += s->request.id / VBD_SLOTS_MAX < v->published;
        ring_put_request(v, s);
    }
    v->published = 0; /* of none the new backend has been told */
}
