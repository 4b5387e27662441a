/* SPDX-License-Identifier: MIT */
/* frontend/blkfront_merge.c: small requests that continue one another become one, where the caller asked for it.
 *
 * The last request that was submitted stays open, out of the ring, until a kick or a request that does not continue it:
 * the same operation, the next sector, memory of the same kind (the pool's or bounced), together not longer than a
 * request may be. Nobody waits longer for it: it would not have been published before the kick either. Requests in
 * flight have no order among each other, so that one of them carries several changes nothing but this: they fail
 * together, and come back together.
 *
 * It pays for runs of small sequential requests: 32 of 4 KiB cross the ring once, and are one I/O of the backend's.
 */
#include "frontend/blkfront.h"

void merge_open(struct dz_queue *q, struct vbd_shadow *s)
{
    queue_put_open(q);
    q->open = s;
    q->open_last = s->io;
}

static bool continues(const struct dz_queue *q, const struct vbd_shadow *s, const struct dz_io *io)
{
    return s->operation == (io->op == DZ_WRITE ? BLKIF_OP_WRITE : BLKIF_OP_READ) &&
           (s->shape == VBD_PLAIN || s->shape == VBD_MERGED) && (unsigned)q->open_last->op <= DZ_WRITE &&
           io->offset_bytes / SECTOR_BYTES == s->sector + s->length_bytes / SECTOR_BYTES &&
           io->length_bytes <= q->disk->info.request_bytes_max - s->length_bytes;
}

/* Segments for the request, of the kind that the shadow has. */
static bool take_in(struct dz_queue *q, struct vbd_shadow *s, const struct dz_io *io)
{
    uint32_t pages = (io->length_bytes + PAGE_BYTES - 1) / PAGE_BYTES, first = s->bounce_count;
    if (!first)
        return segments_direct(q, s, io->buffer, io->length_bytes);
    if (pool_offset(q->disk->pool, io->buffer, io->length_bytes) >= 0 ||
        pages > q->disk->segments_max - s->segment_count || segments_bounced(q, s, io->length_bytes) < 0)
        return false;
    s->shape = VBD_MERGED;
    if (io->op == DZ_WRITE)
        bounce_copy(q, s, io, first, false);
    return true;
}

bool merge_append(struct dz_queue *q, struct dz_io *io, struct vbd_sync *sync)
{
    struct vbd_shadow *s = q->open;
    if (!s || !continues(q, s, io) || !take_in(q, s, io))
        return false;
    if (s->io == q->open_last)
        s->io->private_[0] = 0;
    s->shape = VBD_MERGED;
    s->length_bytes += io->length_bytes;
    q->open_last->private_[0] = (uintptr_t)io;
    io->private_[0] = 0;
    q->open_last = io;
    io_owner_set(io, sync);
    vbd_count(&q->stats.merged, 1);
    return true;
}
