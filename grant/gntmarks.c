/* SPDX-License-Identifier: MIT */
#include "grant/gntmarks.h"

#include <assert.h>

#include "base/map.h"

struct gntmarks {
    pthread_mutex_t lock;
    struct map frames;
};

int gntmarks_new(struct gntmarks **out)
{
    struct gntmarks *g = calloc(1, sizeof(*g));
    if (!g)
        return -ENOMEM;
    pthread_mutex_init(&g->lock, NULL);
    *out = g;
    return 0;
}

void gntmarks_free(struct gntmarks *g)
{
    if (!g)
        return;
    assert(g->frames.count == 0);
    map_deinit(&g->frames);
    pthread_mutex_destroy(&g->lock);
    free(g);
}

static struct gntmarks_frame *frame_new(struct gntmarks *g, uint64_t key)
{
    struct gntmarks_frame *f = calloc(1, sizeof(*f));
    if (!f || map_put(&g->frames, key, f)) {
        free(f);
        return NULL;
    }
    f->key = key;
    pthread_mutex_init(&f->lock, NULL);
    return f;
}

struct gntmarks_frame *gntmarks_frame_get(struct gntmarks *g, uint16_t granter, uint32_t index, uint32_t instance)
{
    assert(index < 1u << 16);
    uint64_t key = (uint64_t)granter << 48 | (uint64_t)index << 32 | instance;
    pthread_mutex_lock(&g->lock);
    struct gntmarks_frame *f = map_get(&g->frames, key);
    if (!f)
        f = frame_new(g, key);
    if (f)
        f->users++;
    pthread_mutex_unlock(&g->lock);
    return f;
}

void gntmarks_frame_put(struct gntmarks *g, struct gntmarks_frame *f)
{
    pthread_mutex_lock(&g->lock);
    assert(f->users > 0);
    bool last = --f->users == 0;
    if (last)
        map_remove(&g->frames, f->key);
    pthread_mutex_unlock(&g->lock);
    if (!last)
        return;
    pthread_mutex_destroy(&f->lock);
    free(f);
}

void gntmarks_hold(struct gntmarks_frame *f, uint32_t slot, uint32_t marks)
{
    assert(f->reading[slot] < GNTMARKS_MAPS_MAX && f->writing[slot] < GNTMARKS_MAPS_MAX);
    f->reading[slot] += !!(marks & GTF_reading);
    f->writing[slot] += !!(marks & GTF_writing);
}

uint32_t gntmarks_drop(struct gntmarks_frame *f, uint32_t slot, uint32_t marks)
{
    assert(!(marks & GTF_reading) || f->reading[slot] > 0);
    assert(!(marks & GTF_writing) || f->writing[slot] > 0);
    f->reading[slot] -= !!(marks & GTF_reading);
    f->writing[slot] -= !!(marks & GTF_writing);
    return marks & ~gntmarks_held(f, slot);
}

uint32_t gntmarks_held(const struct gntmarks_frame *f, uint32_t slot)
{
    return (f->reading[slot] ? GTF_reading : 0) | (f->writing[slot] ? GTF_writing : 0);
}
