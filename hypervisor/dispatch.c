/* SPDX-License-Identifier: MIT */
#include "hypervisor/dispatch.h"

#include <string.h>

#include "hypervisor/extent.h"
#include "hypervisor/port.h"

struct answer {
    struct hv_reply reply;
    int fds[HV_FDS_MAX];
    unsigned fd_count;
    loop_fn *accepted;
};

typedef int op_fn(struct instance *i, const struct hv_request_create *r, struct answer *a);

static int op_hello(struct instance *i, const struct hv_request_create *r, struct answer *a)
{
    if (r->head.value != HV_VERSION)
        return -EPROTONOSUPPORT;
    i->greeted = true;
    a->reply.body.hello = (struct hv_hello){.instance = i->number, .domid = i->domain->domid};
    return 0;
}

static int op_domain_create(struct instance *i, const struct hv_request_create *r, struct answer *a)
{
    struct domain *d;
    struct err e = {""};
    int result = domain_create(i->domain->h, r->name, a->accepted, &d, &e);
    if (result < 0)
        log_peer(&i->domain->limiter, "cannot create domain %s: %s", r->name, e.text);
    else
        a->reply.body.domid = d->domid;
    return result;
}

static int op_domain_destroy(struct instance *i, const struct hv_request_create *r, struct answer *a)
{
    (void)a;
    struct domain *d = domain_find(i->domain->h, r->head.domid, true);
    if (!d)
        return -ENOENT;
    if (d->domid == 0)
        return -EINVAL;
    if (d->dying)
        return -EALREADY;
    domain_destroy(d);
    return 0;
}

static int op_domain_next(struct instance *i, const struct hv_request_create *r, struct answer *a)
{
    struct domain *d = domain_next(i->domain->h, r->head.domid);
    a->reply.body.domain.domid = HV_DOMID_NONE;
    if (d)
        domain_describe(d, &a->reply.body.domain);
    return 0;
}

static int op_domain_watch(struct instance *i, const struct hv_request_create *r, struct answer *a)
{
    (void)r, (void)a;
    i->watching = true;
    return 0;
}

static int extent_answer(struct answer *a, int result, const struct extent *x, int fd)
{
    if (result < 0)
        return result;
    extent_describe(x, &a->reply.body.extent);
    a->fds[a->fd_count++] = fd;
    return 0;
}

static int op_extent_alloc(struct instance *i, const struct hv_request_create *r, struct answer *a)
{
    struct extent *x = NULL;
    int fd = -1,
        result = extent_alloc(i, EXTENT_DATA, r->head.domid, r->head.flag, r->head.value, &x, &fd, &a->reply.limit);
    return extent_answer(a, result, x, fd);
}

static int op_extent_seal(struct instance *i, const struct hv_request_create *r, struct answer *a)
{
    (void)a;
    return extent_seal(i, r->head.value);
}

static int op_extent_free(struct instance *i, const struct hv_request_create *r, struct answer *a)
{
    (void)a;
    return extent_free(i, r->head.value);
}

static int op_extent_map(struct instance *i, const struct hv_request_create *r, struct answer *a)
{
    struct extent *x = NULL;
    int fd = -1, result = extent_map(i, EXTENT_DATA, r->head.domid, r->head.value, &x, &fd);
    return extent_answer(a, result, x, fd);
}

static int op_extent_put(struct instance *i, const struct hv_request_create *r, struct answer *a)
{
    (void)a;
    return extent_put(i, EXTENT_DATA, r->head.domid, r->head.value);
}

static int op_grant_frame_new(struct instance *i, const struct hv_request_create *r, struct answer *a)
{
    struct extent *x = NULL;
    int fd = -1, result = extent_alloc(i, EXTENT_GRANT_FRAME, r->head.domid, false, 1, &x, &fd, &a->reply.limit);
    return extent_answer(a, result, x, fd);
}

static int op_grant_frame_map(struct instance *i, const struct hv_request_create *r, struct answer *a)
{
    struct extent *x = NULL;
    int fd = -1, result = extent_map(i, EXTENT_GRANT_FRAME, r->head.domid, r->head.value, &x, &fd);
    result = extent_answer(a, result, x, fd);
    if (!result)
        a->reply.body.extent.left = extent_left_take(i, x);
    return result;
}

static int op_grant_frame_put(struct instance *i, const struct hv_request_create *r, struct answer *a)
{
    (void)a;
    return extent_put(i, EXTENT_GRANT_FRAME, r->head.domid, r->head.value);
}

static int port_answer(struct answer *a, int result, const struct port *p)
{
    if (result < 0)
        return result;
    port_describe(p, &a->reply.body.port);
    a->fd_count = 2;
    return 0;
}

static int op_port_alloc(struct instance *i, const struct hv_request_create *r, struct answer *a)
{
    struct port *p = NULL;
    int result = port_alloc(i, r->head.domid, &p, a->fds, &a->reply.limit);
    return port_answer(a, result, p);
}

static int op_port_bind(struct instance *i, const struct hv_request_create *r, struct answer *a)
{
    struct port *p = NULL;
    int result = port_bind(i, r->head.domid, r->head.value, &p, a->fds, &a->reply.limit);
    return port_answer(a, result, p);
}

static int op_port_close(struct instance *i, const struct hv_request_create *r, struct answer *a)
{
    (void)a;
    return port_close(i, r->head.value);
}

static int op_port_status(struct instance *i, const struct hv_request_create *r, struct answer *a)
{
    return port_status(i->domain, r->head.value, &a->reply.body.port);
}

static const struct {
    op_fn *fn;
    bool dom0;
} handlers[HV_OP_END_] = {
    [HV_HELLO] = {op_hello, false},
    [HV_DOMAIN_CREATE] = {op_domain_create, true},
    [HV_DOMAIN_DESTROY] = {op_domain_destroy, true},
    [HV_DOMAIN_NEXT] = {op_domain_next, true},
    [HV_DOMAIN_WATCH] = {op_domain_watch, true},
    [HV_EXTENT_ALLOC] = {op_extent_alloc, false},
    [HV_EXTENT_SEAL] = {op_extent_seal, false},
    [HV_EXTENT_FREE] = {op_extent_free, false},
    [HV_EXTENT_MAP] = {op_extent_map, false},
    [HV_EXTENT_PUT] = {op_extent_put, false},
    [HV_GRANT_FRAME_NEW] = {op_grant_frame_new, false},
    [HV_GRANT_FRAME_MAP] = {op_grant_frame_map, false},
    [HV_GRANT_FRAME_PUT] = {op_grant_frame_put, false},
    [HV_PORT_ALLOC] = {op_port_alloc, false},
    [HV_PORT_BIND] = {op_port_bind, false},
    [HV_PORT_CLOSE] = {op_port_close, false},
    [HV_PORT_STATUS] = {op_port_status, false},
};

static int perform(struct instance *i, const struct hv_request_create *r, struct answer *a)
{
    if (handlers[r->head.op].dom0 && i->domain->domid != 0)
        return -EACCES;
    return handlers[r->head.op].fn(i, r, a);
}

void dispatch(struct instance *i, const struct hv_request_create *request, loop_fn *accepted)
{
    struct answer a = {.reply = {.op = request->head.op, .seq = request->head.seq}, .accepted = accepted};
    memset(&a.reply.body, 0, sizeof(a.reply.body)); /* all of it, whatever member a reply uses */
    int result = perform(i, request, &a);
    if (result == -EACCES || result == -EDQUOT || result == -ENOENT)
        i->domain->refusals++;
    a.reply.result = result;
    instance_send(i, &a.reply, sizeof(a.reply), a.fds, a.fd_count);
}
