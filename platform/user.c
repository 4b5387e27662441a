/* SPDX-License-Identifier: MIT */
#include "platform/user.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define EVENTS_A_STEP 64 /* the rest stays for the next step: fd is still readable */
#define PATH_BYTES    256

void *user_mmap(int fd, uint32_t frame_count, bool readonly)
{
    int prot = PROT_READ | (readonly ? 0 : PROT_WRITE);
    void *p = mmap(NULL, (size_t)frame_count * PAGE_BYTES, prot, MAP_SHARED, fd, 0);
    fd_closep(&fd);
    return p == MAP_FAILED ? NULL : p;
}

static void user_close(struct platform *p)
{
    struct user *u = user_of(p);
    user_take_deinit(u);
    hvclient_close(u->hv);
    user_give_deinit(u);
    free(u->dir);
    free(u);
}

static int user_open(const struct platform_where *where, struct platform **out, struct err *e)
{
    assert(!where->run_dir != !where->domain_dir);
    const char *dir = where->run_dir ? where->run_dir : where->domain_dir;
    char path[PATH_BYTES];
    if (snprintf(path, sizeof(path), "%s/hypervisor.sock", dir) >= (int)sizeof(path))
        return err_set(e, -ENAMETOOLONG, "%s: this directory's name is too long", dir);
    struct user *u = calloc(1, sizeof(*u));
    if (!u)
        return err_set(e, -ENOMEM, "no memory for a platform");
    list_init(&u->pages);
    u->dir = strdup(dir);
    int r = u->dir ? user_give_init(u) : -ENOMEM;
    if (r < 0)
        err_set(e, r, "no memory for a platform");
    if (r == 0)
        r = hvclient_open(path, &u->hv, e);
    if (r < 0) {
        user_close(&u->base);
        return r == -ENOENT || r == -ECONNREFUSED ? err_prefix(e, r, "no domzerod serves there") : r;
    }
    u->base.domid = hvclient_domid(u->hv);
    u->base.instance = hvclient_instance(u->hv);
    *out = &u->base;
    return 0;
}

static int user_fd(const struct platform *p)
{
    return hvclient_fd(container_of(p, const struct user, base)->hv);
}

static void event_handle(struct user *u, const struct hv_event *event)
{
    switch (event->op) {
    case HV_INSTANCE_GONE:
        user_take_instance_gone(u, event->domid, event->value);
        platform_tell_instance_gone(&u->base, event->domid, event->value);
        break;
    case HV_EXTENT_REVOKED: user_take_extent_revoked(u, event->domid, event->value); break;
    case HV_DOMAIN_GONE: platform_tell_domain_gone(&u->base, event->domid); break;
    default: /* of a newer hypervisor role */ break;
    }
}

static int user_step(struct platform *p)
{
    struct user *u = user_of(p);
    for (int handled = 0; handled < EVENTS_A_STEP; handled++) {
        struct hv_event event;
        int r = hvclient_event(u->hv, &event);
        if (r <= 0)
            return r < 0 && handled == 0 ? r : handled;
        event_handle(u, &event);
    }
    return EVENTS_A_STEP;
}

static int user_store_open(struct platform *p, struct store_client **out, struct err *e)
{
    struct user *u = user_of(p);
    char path[PATH_BYTES];
    snprintf(path, sizeof(path), "%s/%s", u->dir, p->domid ? "xenstored.sock" : "xenstored/socket");
    const char *elsewhere = getenv("XENSTORED_PATH");
    bool there = access(path, F_OK) == 0 || p->domid == 0 || !elsewhere;
    return store_client_open(there ? path : elsewhere, out, e);
}

/* ---- event channels ---- */

static int user_evtchn_alloc_unbound(struct platform *p, uint16_t remote, struct evtchn *out, struct err *e)
{
    struct hv_port port;
    int fds[2], r = hvclient_port_alloc(user_of(p)->hv, remote, &port, fds, e);
    if (r == 0)
        evtchn_init(out, port.port, fds[0], fds[1]);
    return r;
}

static int user_evtchn_bind_interdomain(struct platform *p, uint16_t remote, uint32_t remote_port, struct evtchn *out,
                                        struct err *e)
{
    struct hv_port port;
    int fds[2], r = hvclient_port_bind(user_of(p)->hv, remote, remote_port, &port, fds, e);
    if (r == 0)
        evtchn_init(out, port.port, fds[0], fds[1]);
    return r;
}

static void user_evtchn_close(struct platform *p, struct evtchn *ch)
{
    hvclient_port_close(user_of(p)->hv, ch->port, NULL); /* where it fails the hypervisor role is gone, with the port */
    evtchn_deinit(ch);
}

static int user_evtchn_status(struct platform *p, uint32_t port, uint32_t *instance)
{
    struct hv_port status;
    int r = hvclient_port_status(user_of(p)->hv, port, &status, NULL);
    if (r < 0)
        return r;
    *instance = status.instance;
    _Static_assert((int)HV_PORT_CLOSED == (int)PLATFORM_PORT_CLOSED &&
                       (int)HV_PORT_UNBOUND == (int)PLATFORM_PORT_UNBOUND &&
                       (int)HV_PORT_INTERDOMAIN == (int)PLATFORM_PORT_INTERDOMAIN,
                   "one numbering");
    return (int)status.status;
}

/* ---- domains ---- */

static int user_domain_create(struct platform *p, const char *name, uint16_t *domid, char *domain_dir, size_t dir_size,
                              struct err *e)
{
    struct user *u = user_of(p);
    int r = hvclient_domain_create(u->hv, name, domid, e);
    if (r < 0)
        return r;
    if (snprintf(domain_dir, dir_size, "%s/dom/%u", u->dir, *domid) >= (int)dir_size) {
        hvclient_domain_destroy(u->hv, *domid, NULL);
        return err_set(e, -ENAMETOOLONG, "%s: this directory's name is too long", u->dir);
    }
    return 0;
}

static int user_domain_destroy(struct platform *p, uint16_t domid, struct err *e)
{
    return hvclient_domain_destroy(user_of(p)->hv, domid, e);
}

static int user_domain_list(struct platform *p, void (*fn)(void *ctx, const struct platform_domain *d), void *ctx,
                            struct err *e)
{
    for (uint32_t domid = 0; domid <= HV_DOMID_MAX; domid++) {
        struct hv_domain d;
        int r = hvclient_domain_next(user_of(p)->hv, (uint16_t)domid, &d, e);
        if (r < 0)
            return r;
        if (d.domid > HV_DOMID_MAX)
            return 0;
        struct platform_domain told = {
            .domid = d.domid,
            .dying = d.dying,
            .instances = d.instances,
            .extents = d.extents,
            .frames = d.frames,
            .grant_frames = d.grant_frames,
            .ports = d.ports,
            .held_extents = d.held_extents,
            .refusals = d.refusals,
        };
        memcpy(told.name, d.name, sizeof(told.name));
        fn(ctx, &told);
        domid = d.domid;
    }
    return 0;
}

static int user_watch_domains(struct platform *p)
{
    return hvclient_domain_watch(user_of(p)->hv, NULL);
}

static struct gnttab *user_gnttab(struct platform *p)
{
    return user_of(p)->table;
}

const struct platform_ops platform_user = {
    .name = "user",
    .open = user_open,
    .close = user_close,
    .fd = user_fd,
    .step = user_step,
    .store_open = user_store_open,
    .extent_alloc = user_extent_alloc,
    .extent_free = user_extent_free,
    .gnttab = user_gnttab,
    .evtchn_alloc_unbound = user_evtchn_alloc_unbound,
    .evtchn_bind_interdomain = user_evtchn_bind_interdomain,
    .evtchn_close = user_evtchn_close,
    .evtchn_status = user_evtchn_status,
    .gntmap_get = user_gntmap_get,
    .gntmap_put = user_gntmap_put,
    .domain_create = user_domain_create,
    .domain_destroy = user_domain_destroy,
    .domain_list = user_domain_list,
    .watch_domains = user_watch_domains,
};
