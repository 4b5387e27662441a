/* SPDX-License-Identifier: MIT */
#include "platform/platform.h"

#include <assert.h>
#include <string.h>

#include "platform/row.h"

static const struct platform_ops *const rows[] = {
#define PLATFORM(name) &platform_##name,
#include "platform/platform_list.h"
#undef PLATFORM
};

static const struct platform_ops *row_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        if (!name || strcmp(rows[i]->name, name) == 0)
            return rows[i];
    return NULL;
}

int platform_open(const char *row, const struct platform_where *where, const struct platform_listener *listener,
                  struct platform **out, struct err *e)
{
    const struct platform_ops *ops = row_find(row);
    if (!ops)
        return err_set(e, -EINVAL, "there is no platform named %s", row);
    int r = ops->open(where, out, e);
    if (r < 0)
        return r;
    (*out)->ops = ops;
    (*out)->listener = listener ? *listener : (struct platform_listener){0};
    return 0;
}

void platform_close(struct platform *p)
{
    if (p)
        p->ops->close(p);
}

int platform_fd(const struct platform *p)
{
    return p->ops->fd(p);
}

int platform_step(struct platform *p)
{
    return p->ops->step(p);
}

uint16_t platform_domid(const struct platform *p)
{
    return p->domid;
}

uint32_t platform_instance(const struct platform *p)
{
    return p->instance;
}

int platform_store_open(struct platform *p, struct store_client **out, struct err *e)
{
    return p->ops->store_open(p, out, e);
}

int platform_extent_alloc(struct platform *p, uint16_t grantee, uint32_t frame_count, bool readonly,
                          struct platform_extent *out, struct err *e)
{
    if (frame_count == 0)
        return err_set(e, -EINVAL, "an extent has at least one frame");
    return p->ops->extent_alloc(p, grantee, frame_count, readonly, out, e);
}

void platform_extent_free(struct platform *p, struct platform_extent *x)
{
    p->ops->extent_free(p, x);
    *x = (struct platform_extent){0};
}

struct gnttab *platform_gnttab(struct platform *p)
{
    return p->ops->gnttab(p);
}

int platform_evtchn_alloc_unbound(struct platform *p, uint16_t remote, struct evtchn *out, struct err *e)
{
    *out = EVTCHN_NONE;
    return p->ops->evtchn_alloc_unbound(p, remote, out, e);
}

int platform_evtchn_bind_interdomain(struct platform *p, uint16_t remote, uint32_t remote_port, struct evtchn *out,
                                     struct err *e)
{
    *out = EVTCHN_NONE;
    return p->ops->evtchn_bind_interdomain(p, remote, remote_port, out, e);
}

void platform_evtchn_close(struct platform *p, struct evtchn *ch)
{
    if (ch->wait_fd >= 0)
        p->ops->evtchn_close(p, ch);
}

int platform_evtchn_status(struct platform *p, uint32_t port, uint32_t *instance)
{
    uint32_t unused;
    return p->ops->evtchn_status(p, port, instance ? instance : &unused);
}

int platform_gntmap_get(struct platform *p, uint16_t domid, struct gntmap **map, struct frametable **frames,
                        struct err *e)
{
    return p->ops->gntmap_get(p, domid, map, frames, e);
}

void platform_gntmap_put(struct platform *p, uint16_t domid)
{
    p->ops->gntmap_put(p, domid);
}

int platform_domain_create(struct platform *p, const char *name, uint16_t *domid, char *domain_dir, size_t dir_size,
                           struct err *e)
{
    return p->ops->domain_create(p, name, domid, domain_dir, dir_size, e);
}

int platform_domain_destroy(struct platform *p, uint16_t domid, struct err *e)
{
    return p->ops->domain_destroy(p, domid, e);
}

int platform_domain_list(struct platform *p, void (*fn)(void *ctx, const struct platform_domain *d), void *ctx,
                         struct err *e)
{
    return p->ops->domain_list(p, fn, ctx, e);
}

int platform_watch_domains(struct platform *p)
{
    return p->ops->watch_domains(p);
}

void platform_tell_instance_gone(struct platform *p, uint16_t domid, uint32_t instance)
{
    if (p->listener.instance_gone)
        p->listener.instance_gone(p->listener.ctx, domid, instance);
}

void platform_tell_domain_gone(struct platform *p, uint16_t domid)
{
    if (p->listener.domain_gone)
        p->listener.domain_gone(p->listener.ctx, domid);
}
