/* SPDX-License-Identifier: MIT */
#include "tests/grant_world.h"

#include <assert.h>
#include <string.h>
#include <sys/mman.h>

static unsigned char *map_fd(void *at, int fd, size_t length_bytes, int prot)
{
    void *p = mmap(at, length_bytes, prot, MAP_SHARED | (at ? MAP_FIXED : 0), fd, 0);
    assert(p != MAP_FAILED);
    return p;
}

static int memory_new(size_t length_bytes)
{
    int fd = memfd_create("grant-world", MFD_CLOEXEC);
    assert(fd >= 0);
    assert(ftruncate(fd, (off_t)length_bytes) == 0);
    return fd;
}

static unsigned char *host_map(struct grant_world *w, unsigned char *guest, int fd, size_t length_bytes, int prot)
{
    if (w->one_mapping)
        return guest;
    if (!w->place)
        return map_fd(NULL, fd, length_bytes, prot);
    unsigned char *at = map_fd(w->place, fd, length_bytes, prot);
    w->place += length_bytes;
    return at;
}

static void host_unmap(const struct grant_world *w, void *host, size_t length_bytes)
{
    if (!w->one_mapping)
        munmap(host, length_bytes);
}

static size_t extent_bytes(const struct world_extent *x)
{
    return (size_t)x->frame_count * PAGE_BYTES;
}

static struct world_extent *extent_of(struct grant_world *w, uint32_t gfn)
{
    for (unsigned i = 0; i < w->extent_count; i++) {
        struct world_extent *x = &w->extent[i];
        if (gfn >= x->base_gfn && gfn - x->base_gfn < x->frame_count && (!x->gone || x->host))
            return x;
    }
    return NULL;
}

static int op_extent_get(void *ctx, uint16_t domid, uint32_t gfn, struct frame_extent *out)
{
    struct grant_world *w = ctx;
    w->lookups++;
    if (w->on_extent_get)
        w->on_extent_get(w, gfn);
    if (w->refuse)
        return w->refuse;
    struct world_extent *x = extent_of(w, gfn);
    if (!x || domid != WORLD_GUEST)
        return -ENOENT;
    if (x->gone)
        return -EACCES;
    assert(!x->host); /* handed out once */
    x->host = host_map(w, x->guest, x->fd, extent_bytes(x), x->readonly ? PROT_READ : PROT_READ | PROT_WRITE);
    *out = (struct frame_extent){
        .id = x->id,
        .instance = x->instance,
        .owner = domid,
        .readonly = x->readonly,
        .base_gfn = x->base_gfn,
        .frame_count = x->frame_count,
        .address = x->host,
    };
    return 0;
}

static void op_extent_put(void *ctx, const struct frame_extent *extent)
{
    struct grant_world *w = ctx;
    struct world_extent *x = &w->extent[extent->id - 1];
    assert(x->host && x->host == extent->address);
    if (w->on_extent_put)
        w->on_extent_put(w, x->id);
    host_unmap(w, x->host, extent_bytes(x));
    x->host = NULL;
}

static int op_grant_frame_get(void *ctx, uint16_t domid, uint32_t index, struct gntmap_frame *out)
{
    struct grant_world *w = ctx;
    w->lookups++;
    if (w->refuse)
        return w->refuse;
    if (domid != WORLD_GUEST || index >= w->frame_count || w->frame[index].gone)
        return -ENOENT;
    struct world_frame *f = &w->frame[index];
    if (f->grantee != WORLD_HOST)
        return -EACCES;
    assert(!f->host);
    f->host = host_map(w, f->guest, f->fd, PAGE_BYTES, PROT_READ | PROT_WRITE);
    *out = (struct gntmap_frame){.page = f->host, .instance = f->instance, .left = w->left};
    return 0;
}

static void op_grant_frame_put(void *ctx, uint16_t domid, uint32_t index, void *page)
{
    struct grant_world *w = ctx;
    assert(domid == WORLD_GUEST && w->frame[index].host && w->frame[index].host == page);
    host_unmap(w, page, PAGE_BYTES);
    w->frame[index].host = NULL;
}

static int op_frame_new(void *ctx, uint16_t grantee, uint32_t *index, void **page, struct err *e)
{
    struct grant_world *w = ctx;
    if (w->refuse)
        return err_set(e, w->refuse, "the world refuses a grant-table frame");
    *index = gworld_frame_new(w, grantee);
    *page = w->frame[*index].guest;
    return 0;
}

const struct frametable_ops gworld_frametable_ops = {.extent_get = op_extent_get, .extent_put = op_extent_put};
const struct gntmap_ops gworld_gntmap_ops = {
    .grant_frame_get = op_grant_frame_get,
    .grant_frame_put = op_grant_frame_put,
};
const struct gnttab_ops gworld_gnttab_ops = {.frame_new = op_frame_new};

void gworld_open(struct grant_world *w)
{
    memset(w, 0, sizeof(*w));
    w->instance = 1;
    assert(gnttab_new(&gworld_gnttab_ops, w, &w->table) == 0);
    assert(frametable_new(&gworld_frametable_ops, w, WORLD_GUEST, &w->frames) == 0);
    assert(gntmap_new(&gworld_gntmap_ops, w, WORLD_HOST, WORLD_GUEST, w->frames, &w->map) == 0);
}

void gworld_close(struct grant_world *w)
{
    gntmap_free(w->map);
    frametable_free(w->frames);
    gnttab_free(w->table);
    for (unsigned i = 0; i < w->extent_count; i++) {
        assert(!w->extent[i].host);
        munmap(w->extent[i].guest, extent_bytes(&w->extent[i]));
        close(w->extent[i].fd);
    }
    for (unsigned i = 0; i < w->frame_count; i++) {
        assert(!w->frame[i].host);
        if (w->frame[i].guest)
            munmap(w->frame[i].guest, PAGE_BYTES);
        close(w->frame[i].fd);
    }
}

struct world_extent *gworld_share(struct grant_world *w, uint32_t base_gfn, uint32_t frame_count, bool readonly)
{
    assert(w->extent_count < WORLD_EXTENTS_MAX);
    struct world_extent *x = &w->extent[w->extent_count++];
    *x = (struct world_extent){
        .id = w->extent_count,
        .instance = w->instance,
        .base_gfn = base_gfn,
        .frame_count = frame_count,
        .readonly = readonly,
    };
    x->fd = memory_new(extent_bytes(x));
    x->guest = map_fd(NULL, x->fd, extent_bytes(x), PROT_READ | PROT_WRITE);
    return x;
}

void gworld_instance_ends(struct grant_world *w, uint32_t instance)
{
    for (unsigned i = 0; i < w->extent_count; i++)
        w->extent[i].gone |= w->extent[i].instance == instance;
    for (unsigned i = 0; i < w->frame_count; i++)
        w->frame[i].gone |= w->frame[i].instance == instance;
}

uint32_t gworld_frame_new(struct grant_world *w, uint16_t grantee)
{
    uint32_t index = 0; /* as the hypervisor does: the index of a frame that is gone is given again */
    while (index < w->frame_count && (!w->frame[index].gone || w->frame[index].host))
        index++;
    assert(index < GNTTAB_FRAMES_MAX);
    struct world_frame *f = &w->frame[index];
    if (index < w->frame_count) {
        munmap(f->guest, PAGE_BYTES);
        close(f->fd);
    } else {
        w->frame_count++;
    }
    *f = (struct world_frame){.instance = w->instance, .grantee = grantee, .fd = memory_new(PAGE_BYTES)};
    f->guest = map_fd(NULL, f->fd, PAGE_BYTES, PROT_READ | PROT_WRITE);
    return index;
}

struct grant_entry_v1 *gworld_entry(struct grant_world *w, uint32_t gref)
{
    assert(gref / GRANT_PER_FRAME < w->frame_count);
    return (struct grant_entry_v1 *)w->frame[gref / GRANT_PER_FRAME].guest + gref % GRANT_PER_FRAME;
}

void gworld_write(struct grant_world *w, uint32_t gref, uint32_t flags, uint16_t domid, uint32_t gfn)
{
    struct grant_entry_v1 *entry = gworld_entry(w, gref);
    __atomic_store_n(&entry->frame, gfn, __ATOMIC_RELAXED);
    __atomic_store_n(grant_word(entry), grant_word_make(flags, domid), __ATOMIC_RELEASE);
}

uint16_t gworld_flags(struct grant_world *w, uint32_t gref)
{
    return (uint16_t)grant_word_load(gworld_entry(w, gref));
}

uint32_t gworld_grant(struct grant_world *w, uint32_t gfn, bool readonly)
{
    uint32_t gref = 0;
    int r = gnttab_grant(w->table, WORLD_HOST, gfn, readonly, &gref, NULL);
    assert(r == 0);
    return gref;
}

unsigned char *gworld_guest_page(struct grant_world *w, uint32_t gfn)
{
    struct world_extent *x = extent_of(w, gfn);
    return x ? x->guest + (size_t)(gfn - x->base_gfn) * PAGE_BYTES : NULL;
}

unsigned char *gworld_host_page(struct grant_world *w, uint32_t gfn)
{
    struct world_extent *x = extent_of(w, gfn);
    return x && x->host ? x->host + (size_t)(gfn - x->base_gfn) * PAGE_BYTES : NULL;
}

uint32_t gworld_random(uint64_t *state)
{
    *state += 0x9e3779b97f4a7c15ull;
    uint64_t z = *state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return (uint32_t)(z >> 32);
}
