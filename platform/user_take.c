/* SPDX-License-Identifier: MIT */
/* platform/user_take.c: the mapping side: a frame table and a grant map for each domain that is mapped. */
#include "platform/user.h"
#include "platform/user_space.h"

#include <assert.h>
#include <sys/mman.h>

struct user_map { /* of one domain */
    struct user *u;
    uint16_t domid;
    unsigned gets;
    struct frametable *frames;
    struct gntmap *map;
};

static int extent_get(void *ctx, uint16_t domid, uint32_t gfn, struct frame_extent *out)
{
    struct user_map *m = ctx;
    struct hv_extent x;
    int fd, r = hvclient_extent_map(m->u->hv, domid, gfn, &x, &fd, NULL);
    if (r < 0)
        return r;
    /* Not populated: it is the owner's to put memory behind it, on the owner's account. */
    void *address = user_space_map(fd, x.frame_count, x.readonly);
    if (!address) {
        r = -errno;
        hvclient_extent_put(m->u->hv, domid, x.id, NULL);
        return r;
    }
    *out = (struct frame_extent){.id = x.id,
                                 .instance = x.instance,
                                 .owner = domid,
                                 .readonly = x.readonly,
                                 .base_gfn = x.base_gfn,
                                 .frame_count = x.frame_count,
                                 .address = address};
    return 0;
}

static void extent_put(void *ctx, const struct frame_extent *extent)
{
    struct user_map *m = ctx;
    user_space_unmap(extent->address, extent->frame_count);
    hvclient_extent_put(m->u->hv, extent->owner, extent->id, NULL);
}

static int grant_frame_get(void *ctx, uint16_t domid, uint32_t index, struct gntmap_frame *out)
{
    struct user_map *m = ctx;
    struct hv_extent frame;
    int fd, r = hvclient_grant_frame_map(m->u->hv, domid, index, &frame, &fd, NULL);
    if (r < 0)
        return r;
    void *address = user_mmap(fd, 1, false);
    if (!address) {
        r = -errno;
        hvclient_grant_frame_put(m->u->hv, domid, index, NULL);
        return r;
    }
    *out = (struct gntmap_frame){.page = address, .instance = frame.instance, .left = frame.left};
    return 0;
}

static void grant_frame_put(void *ctx, uint16_t domid, uint32_t index, void *page)
{
    struct user_map *m = ctx;
    munmap(page, PAGE_BYTES);
    hvclient_grant_frame_put(m->u->hv, domid, index, NULL);
}

static const struct frametable_ops frametable_ops_user = {.extent_get = extent_get, .extent_put = extent_put};
static const struct gntmap_ops gntmap_ops_user = {.grant_frame_get = grant_frame_get,
                                                  .grant_frame_put = grant_frame_put};

static void map_free(struct user_map *m)
{
    gntmap_free(m->map);
    frametable_free(m->frames);
    free(m);
}

static int map_new(struct user *u, uint16_t domid, struct user_map **out)
{
    struct user_map *m = calloc(1, sizeof(*m));
    if (!m)
        return -ENOMEM;
    *m = (struct user_map){.u = u, .domid = domid};
    int r = frametable_new(&frametable_ops_user, m, domid, &m->frames);
    if (r == 0)
        r = gntmap_new(&gntmap_ops_user, m, u->base.domid, domid, m->frames, &m->map);
    if (r == 0)
        r = map_put(&u->maps, domid, m);
    if (r < 0) {
        map_free(m);
        return r;
    }
    *out = m;
    return 0;
}

int user_gntmap_get(struct platform *p, uint16_t domid, struct gntmap **map, struct frametable **frames, struct err *e)
{
    struct user *u = user_of(p);
    struct user_map *m = map_get(&u->maps, domid);
    int r = m ? 0 : map_new(u, domid, &m);
    if (r < 0)
        return err_set(e, r, "no memory for a map of domain %u's grants", domid);
    m->gets++;
    *map = m->map;
    *frames = m->frames;
    return 0;
}

void user_gntmap_put(struct platform *p, uint16_t domid)
{
    struct user *u = user_of(p);
    struct user_map *m = map_get(&u->maps, domid);
    assert(m && m->gets > 0);
    if (--m->gets == 0) {
        map_remove(&u->maps, domid);
        map_free(m);
    }
}

void user_take_deinit(struct user *u)
{
    struct user_map *m;
    map_foreach (&u->maps, i, m)
        map_free(m);
    map_deinit(&u->maps);
}

void user_take_instance_gone(struct user *u, uint16_t domid, uint32_t instance)
{
    struct user_map *m = map_get(&u->maps, domid);
    if (m)
        gntmap_instance_gone(m->map, instance);
}

void user_take_extent_revoked(struct user *u, uint16_t domid, uint32_t extent_id)
{
    struct user_map *m = map_get(&u->maps, domid);
    if (m)
        frametable_revoke(m->frames, extent_id, 0);
}
