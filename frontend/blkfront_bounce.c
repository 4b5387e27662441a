/* SPDX-License-Identifier: MIT */
/* frontend/blkfront_bounce.c: memory that is not the pool's goes through pages that are: a queue's own, and where those
 * are all in use, what nobody took of the rest of the pool, which all queues share under a lock. */
#include <string.h>

#include "frontend/blkfront.h"

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

void bounce_put(struct dz_queue *q, struct vbd_shadow *s)
{
    while (s->bounce_count)
        page_put(q, s->bounce[--s->bounce_count]);
}

/* Adjacent ones where there are any, so that the backend can merge. */
int bounce_take(struct dz_queue *q, struct vbd_shadow *s, uint32_t count)
{
    int64_t run = page_take(q, count);
    for (uint32_t i = 0; i < count; i++) {
        int64_t page = run >= 0 ? run + i : page_take(q, 1);
        if (page < 0) {
            bounce_put(q, s);
            return front_fail(-EAGAIN, "no bounce page is free: reap first, or free buffers");
        }
        s->bounce[s->bounce_count++] = (uint16_t)page;
    }
    return 0;
}

void bounce_copy(const struct dz_queue *q, const struct vbd_shadow *s, bool to_caller)
{
    unsigned char *caller = s->io->buffer;
    uint32_t left = s->length_bytes;
    for (uint32_t i = 0; i < s->bounce_count; i++) {
        uint32_t bytes = MIN(left, PAGE_BYTES);
        unsigned char *page = pool_page(q->disk->pool, s->bounce[i]);
        memcpy(to_caller ? caller : page, to_caller ? page : caller, bytes);
        caller += bytes;
        left -= bytes;
    }
}
