/* SPDX-License-Identifier: MIT */
#include "hypervisor/domain.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/unixsock.h"
#include "hypervisor/extent.h"
#include "hypervisor/port.h"

#define DOMAIN_PATH_BYTES 256 /* a unix socket's path is shorter still */

static void limits_set(struct domain *d)
{
    const struct hypervisor_limits *l = &d->h->limits;
    bool dom0 = d->domid == 0;
    d->max[HV_LIMIT_INSTANCES] = dom0 ? UINT32_MAX : l->instances;
    d->max[HV_LIMIT_EXTENTS] = dom0 ? UINT32_MAX : l->extents;
    d->max[HV_LIMIT_FRAMES] = dom0 ? UINT32_MAX : l->frames;
    d->max[HV_LIMIT_GRANT_FRAMES] = l->grant_frames;
    d->max[HV_LIMIT_PORTS] = dom0 ? DOMAIN_PORTS_DOM0 - 1 : l->ports;
    d->descriptors_guaranteed = dom0 ? DOMAIN_DESCRIPTORS_DOM0 : DOMAIN_DESCRIPTORS_GUARANTEED;
}

static int socket_path(const struct domain *d, char *out, const char *name)
{
    int n = d->domid ? snprintf(out, DOMAIN_PATH_BYTES, "%s/dom/%u/%s", d->h->run_dir, d->domid, name)
                     : snprintf(out, DOMAIN_PATH_BYTES, "%s/%s", d->h->run_dir, name);
    return n < DOMAIN_PATH_BYTES ? 0 : -ENAMETOOLONG;
}

static int socket_make(struct domain *d, loop_fn *accepted, struct err *e)
{
    char path[DOMAIN_PATH_BYTES];
    int r = socket_path(d, path, "");
    if (r < 0)
        return err_set(e, r, "run directory %s: its name is too long for a unix socket", d->h->run_dir);
    if (d->domid && mkdir(path, 0700) < 0 && errno != EEXIST)
        return err_set(e, -errno, "cannot make the directory %s: %s", path, strerror(errno));
    socket_path(d, path, "hypervisor.sock");
    d->listen_fd = unixsock_listen(path, SOCK_SEQPACKET, 0600, e);
    if (d->listen_fd < 0)
        return d->listen_fd;
    return loop_add(&d->h->loop, &d->source, d->listen_fd, EPOLLIN, accepted);
}

static void socket_remove(struct domain *d)
{
    static const char *const names[] = {"hypervisor.sock", "xenstored.sock"};
    char path[DOMAIN_PATH_BYTES];
    loop_remove(&d->h->loop, &d->source);
    unixsock_close_listener(&d->listen_fd);
    domain_unuse(d, HV_LIMIT_DESCRIPTORS, 1);
    for (unsigned i = 0; i < (d->domid ? 2 : 1); i++)
        if (socket_path(d, path, names[i]) == 0)
            unlink(path);
    if (d->domid && socket_path(d, path, "") == 0 && rmdir(path) < 0 && errno != ENOENT)
        log_warning("cannot remove %s of destroyed domain %u: %s", path, d->domid, strerror(errno));
}

static bool descriptors_reserve(struct domain *d)
{
    struct hypervisor *h = d->h;
    if (d->descriptors_guaranteed > h->descriptors_max - h->descriptors_committed)
        return false;
    h->descriptors_committed += d->descriptors_guaranteed;
    return true;
}

/* A dying domain keeps what is in use and no more. */
static void descriptors_unreserve(struct domain *d)
{
    uint32_t used = d->used[HV_LIMIT_DESCRIPTORS];
    d->h->descriptors_committed -= MAX(d->descriptors_guaranteed, used) - used;
    d->descriptors_guaranteed = 0;
}

int domain_new(struct hypervisor *h, uint16_t domid, const char *name, loop_fn *accepted, struct domain **out,
               struct err *e)
{
    assert(domid <= HV_DOMID_MAX && !h->domains[domid]);
    struct domain *d = calloc(1, sizeof(*d));
    if (!d)
        return err_set(e, -ENOMEM, "no memory for a domain");
    *d = (struct domain){.h = h, .domid = domid, .listen_fd = -1, .next_extent_id = 1, .next_gfn = 1};
    list_init(&d->instances);
    list_init(&d->extents);
    snprintf(d->name, sizeof(d->name), "%s", name);
    limits_set(d);
    if (!descriptors_reserve(d)) {
        free(d);
        return err_set(e, -EMFILE, "no file descriptors left for another domain: raise RLIMIT_NOFILE (now %u free)",
                       h->descriptors_max - h->descriptors_committed);
    }
    h->domains[domid] = d;
    domain_use(d, HV_LIMIT_DESCRIPTORS, 1); /* its listening socket */
    int r = idalloc_init(&d->port_numbers, d->max[HV_LIMIT_PORTS] + 1);
    if (r == 0)
        r = idalloc_take(&d->port_numbers, 0);
    if (r == 0)
        r = idalloc_init(&d->grant_indexes, d->max[HV_LIMIT_GRANT_FRAMES]);
    if (r == 0)
        r = socket_make(d, accepted, e);
    if (r < 0) {
        domain_free(d);
        return r;
    }
    *out = d;
    return 0;
}

static bool name_taken(const struct hypervisor *h, const char *name)
{
    for (uint32_t i = 0; i <= HV_DOMID_MAX; i++)
        if (h->domains[i] && !h->domains[i]->dying && strcmp(h->domains[i]->name, name) == 0)
            return true;
    return false;
}

int domain_create(struct hypervisor *h, const char *name, loop_fn *accepted, struct domain **out, struct err *e)
{
    if (name_taken(h, name))
        return err_set(e, -EEXIST, "there is a domain named %s already", name);
    for (uint32_t tries = 0; tries < HV_DOMID_MAX; tries++) {
        uint16_t domid = h->next_domid;
        h->next_domid = domid >= HV_DOMID_MAX ? 1 : (uint16_t)(domid + 1);
        if (!h->domains[domid])
            return domain_new(h, domid, name, accepted, out, e);
    }
    return err_set(e, -ENOSPC, "all %u domain ids are in use", HV_DOMID_MAX);
}

static void tell_watchers(struct hypervisor *h, uint16_t domid)
{
    struct instance *i;
    list_foreach (i, &h->domains[0]->instances, link) {
        if (i->watching)
            instance_event(i, HV_DOMAIN_GONE, domid, 0);
    }
}

void domain_destroy(struct domain *d)
{
    assert(d->domid && !d->dying);
    struct hypervisor *h = d->h;
    uint16_t domid = d->domid;
    socket_remove(d);
    while (!list_empty(&d->instances))
        instance_free(list_entry(d->instances.next, struct instance, link));
    extent_forget_grantee(h, domid);
    port_forget_remote(h, domid);
    d->dying = true;
    descriptors_unreserve(d);
    domain_settle(d);
    tell_watchers(h, domid);
}

void domain_settle(struct domain *d)
{
    if (!d->dying || !list_empty(&d->instances) || !list_empty(&d->extents))
        return;
    for (unsigned i = 0; i < HV_LIMIT_END_; i++)
        assert(d->used[i] == 0);
    domain_free(d);
}

void domain_free(struct domain *d)
{
    if (!d)
        return;
    if (!d->dying)
        socket_remove(d);
    struct hypervisor *h = d->h;
    h->descriptors_committed -= MAX(d->descriptors_guaranteed, d->used[HV_LIMIT_DESCRIPTORS]);
    h->domains[d->domid] = NULL;
    map_deinit(&d->ports);
    idalloc_deinit(&d->port_numbers);
    idalloc_deinit(&d->grant_indexes);
    free(d);
}

struct domain *domain_find(struct hypervisor *h, uint32_t domid, bool dying_too)
{
    struct domain *d = domid <= HV_DOMID_MAX ? h->domains[domid] : NULL;
    return d && (dying_too || !d->dying) ? d : NULL;
}

struct domain *domain_next(struct hypervisor *h, uint32_t domid)
{
    for (; domid <= HV_DOMID_MAX; domid++)
        if (h->domains[domid])
            return h->domains[domid];
    return NULL;
}

void domain_describe(const struct domain *d, struct hv_domain *out)
{
    *out = (struct hv_domain){
        .refusals = d->refusals,
        .instances = d->used[HV_LIMIT_INSTANCES],
        .extents = d->used[HV_LIMIT_EXTENTS],
        .frames = d->used[HV_LIMIT_FRAMES],
        .grant_frames = d->used[HV_LIMIT_GRANT_FRAMES],
        .ports = d->used[HV_LIMIT_PORTS],
        .held_extents = extent_held_count(d),
        .domid = d->domid,
        .dying = d->dying,
    };
    memcpy(out->name, d->name, sizeof(out->name));
}

/* ---- the account ---- */

/* How much more of the common pool the domain commits with n descriptors more. */
static uint32_t descriptors_beyond(const struct domain *d, uint32_t n)
{
    uint32_t used = d->used[HV_LIMIT_DESCRIPTORS], guaranteed = d->descriptors_guaranteed;
    return MAX(used + n, guaranteed) - MAX(used, guaranteed);
}

int domain_may(const struct domain *d, enum hv_limit what, uint32_t n, uint32_t *limit)
{
    bool may = what == HV_LIMIT_DESCRIPTORS
                   ? descriptors_beyond(d, n) <= d->h->descriptors_max - d->h->descriptors_committed
                   : d->used[what] <= d->max[what] && n <= d->max[what] - d->used[what];
    if (may)
        return 0;
    *limit = what;
    return -EDQUOT;
}

void domain_use(struct domain *d, enum hv_limit what, uint32_t n)
{
    if (what == HV_LIMIT_DESCRIPTORS)
        d->h->descriptors_committed += descriptors_beyond(d, n);
    d->used[what] += n;
}

void domain_unuse(struct domain *d, enum hv_limit what, uint32_t n)
{
    assert(d->used[what] >= n);
    d->used[what] -= n;
    if (what == HV_LIMIT_DESCRIPTORS)
        d->h->descriptors_committed -= descriptors_beyond(d, n);
}
