/* SPDX-License-Identifier: MIT */
/* frontend/blkfront_bounce.c: memory that is not the pool's goes through pages that are: a queue's own, and where those
 * are all in use, what nobody took of the rest of the pool, which all queues share under a lock. */
#include <string.h>

#include "frontend/blkfront.h"
#include "frontend/iovec_at.h"

static int64_t page_take(struct dz_queue *q, uint32_t count)
{
    struct dz_vbd *v = q->disk;
    int64_t page = pool_area_take(&q->bounce_area, count);
    if (page >= 0)
        return page;
    pthread_mutex_lock(&v->pool_lock);
    page = pool_area_take(&v->shared, count);
    pthread_mutex_unlock(&v->pool_lock);
    return page;
}

static void page_put(struct dz_queue *q, uint32_t page)
{
    struct dz_vbd *v = q->disk;
    if (pool_area_has(&q->bounce_area, page)) {
        pool_area_put(&q->bounce_area, page, 1);
        return;
    }
    pthread_mutex_lock(&v->pool_lock);
    pool_area_put(&v->shared, page, 1);
    pthread_mutex_unlock(&v->pool_lock);
}

void bounce_put(struct dz_queue *q, struct vbd_shadow *s, uint32_t keep)
{
    while (s->bounce_count > keep)
        page_put(q, s->bounce[--s->bounce_count]);
}

/* Adjacent ones where there are any, so that the backend can merge. */
int bounce_take(struct dz_queue *q, struct vbd_shadow *s, uint32_t count)
{
    uint32_t before = s->bounce_count;
    int64_t run = page_take(q, count);
    for (uint32_t i = 0; i < count; i++) {
        int64_t page = run >= 0 ? run + i : page_take(q, 1);
        if (page < 0) {
            bounce_put(q, s, before);
            return front_fail(-EAGAIN, "no bounce page is free: reap first, or free buffers");
        }
        s->bounce[s->bounce_count++] = (uint16_t)page;
    }
    return 0;
}

/* Copies between a page and the caller's memory. */
static void copy_piece(unsigned char *page, unsigned char *caller, uint32_t bytes, bool to_caller)
{
    memcpy(to_caller ? caller : page, to_caller ? page : caller, bytes);
}

static void copy_vector(struct iovec_at *at, unsigned char *page, uint32_t bytes, bool to_caller)
{
    while (bytes) {
        size_t piece_bytes = bytes;
        unsigned char *piece = iovec_next(at, &piece_bytes);
        copy_piece(page, piece, (uint32_t)piece_bytes, to_caller);
        page += piece_bytes;
        bytes -= (uint32_t)piece_bytes;
    }
}

void bounce_copy(const struct dz_queue *q, const struct vbd_shadow *s, const struct dz_io *io, uint32_t first,
                 bool to_caller)
{
    bool part = s->shape == VBD_PART, vector = io_is_vector(io);
    uint32_t left = s->shape == VBD_MERGED ? io->length_bytes : s->length_bytes, skip = part ? s->at_bytes : 0;
    unsigned char *caller = vector ? NULL : (unsigned char *)io->buffer + skip;
    struct iovec_at at = {0};
    if (vector)
        at = iovec_at(io->buffer, skip);
    for (uint32_t i = first; left; i++) {
        uint32_t bytes = MIN(left, PAGE_BYTES);
        unsigned char *page = pool_page(q->disk->pool, s->bounce[i]);
        if (vector)
            copy_vector(&at, page, bytes, to_caller);
        else
            copy_piece(page, caller, bytes, to_caller), caller += bytes;
        left -= bytes;
    }
}

void bounce_copy_all(const struct dz_queue *q, const struct vbd_shadow *s)
{
    uint32_t first = 0;
    if (s->shape != VBD_MERGED) {
        bounce_copy(q, s, s->io, 0, true);
        return;
    }
    for (const struct dz_io *io = s->io; io; io = io_next(io)) {
        bounce_copy(q, s, io, first, true);
        first += (io->length_bytes + PAGE_BYTES - 1) / PAGE_BYTES;
    }
}
