/* SPDX-License-Identifier: MIT */
#include "hypervisor/port.h"

#include <assert.h>
#include <fcntl.h>

#include "hypervisor/extent.h"

#define PORT_DESCRIPTORS 2

struct channel {
    int pipe[2]; /* [side]: that end's bit */
    uint16_t domid[2];
    struct port *end[2];
};

/* One description for both directions, of one page. */
static int pipe_make(void)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    _cleanup_close_ int in = ends[0], out = ends[1];
    if (fcntl(in, F_SETPIPE_SZ, PAGE_BYTES) < 0)
        return -errno;
    return extent_fd_reopen(in, O_RDWR);
}

static void channel_free(struct channel *c)
{
    if (!c)
        return;
    fd_closep(&c->pipe[0]);
    fd_closep(&c->pipe[1]);
    free(c);
}

static int channel_new(uint16_t domid, uint16_t remote, struct channel **out)
{
    struct channel *c = malloc(sizeof(*c));
    if (!c)
        return -ENOMEM;
    *c = (struct channel){.pipe = {pipe_make(), -1}, .domid = {domid, remote}};
    if (c->pipe[0] >= 0)
        c->pipe[1] = pipe_make();
    int r = c->pipe[0] < 0 ? c->pipe[0] : MIN(c->pipe[1], 0);
    if (r < 0) {
        channel_free(c);
        return r;
    }
    *out = c;
    return 0;
}

/* Takes the free end `side` of the channel for the instance. On failure nothing is changed. */
static int end_take(struct instance *i, struct channel *c, unsigned side, struct port **out, int fds[2],
                    uint32_t *limit)
{
    assert(!c->end[side]);
    struct domain *d = i->domain;
    int r = domain_may(d, HV_LIMIT_PORTS, 1, limit);
    if (r == 0)
        r = domain_may(d, HV_LIMIT_DESCRIPTORS, PORT_DESCRIPTORS, limit);
    if (r < 0)
        return r;
    _cleanup_close_ int wait_fd = extent_fd_reopen(c->pipe[side], O_RDONLY);
    _cleanup_close_ int notify_fd = extent_fd_reopen(c->pipe[!side], O_WRONLY);
    if (wait_fd < 0 || notify_fd < 0)
        return MIN(wait_fd, notify_fd);
    _cleanup_free_ struct port *p = malloc(sizeof(*p));
    if (!p)
        return -ENOMEM;
    int64_t number = idalloc_get(&d->port_numbers);
    if (number < 0)
        return (int)number;
    r = map_put(&d->ports, (uint64_t)number, p);
    if (r < 0) {
        idalloc_put(&d->port_numbers, (uint32_t)number);
        return r;
    }
    *p = (struct port){.number = (uint32_t)number, .side = side, .channel = c, .instance = i};
    c->end[side] = p;
    list_append(&i->ports, &p->link);
    domain_use(d, HV_LIMIT_PORTS, 1);
    domain_use(d, HV_LIMIT_DESCRIPTORS, PORT_DESCRIPTORS);
    fds[0] = take_fd(&wait_fd);
    fds[1] = take_fd(&notify_fd);
    *out = take_ptr(p);
    return 0;
}

int port_alloc(struct instance *i, uint16_t remote, struct port **out, int fds[2], uint32_t *limit)
{
    if (!domain_find(i->domain->h, remote, false))
        return -ENOENT;
    struct channel *c = NULL;
    int r = domain_may(i->domain, HV_LIMIT_PORTS, 1, limit); /* before pipes are made */
    if (r == 0)
        r = channel_new(i->domain->domid, remote, &c);
    if (r < 0)
        return r;
    r = end_take(i, c, 0, out, fds, limit);
    if (r < 0)
        channel_free(c);
    return r;
}

int port_bind(struct instance *i, uint16_t remote, uint32_t remote_port, struct port **out, int fds[2], uint32_t *limit)
{
    struct domain *d = domain_find(i->domain->h, remote, false);
    struct port *theirs = d ? map_get(&d->ports, remote_port) : NULL;
    if (!theirs || theirs->channel->domid[!theirs->side] != i->domain->domid)
        return -ENOENT;
    if (theirs->channel->end[!theirs->side])
        return -EBUSY;
    if (!instance_passed(theirs->instance, theirs->gone_mark))
        return -EAGAIN;
    struct channel *c = theirs->channel;
    int r = end_take(i, c, !theirs->side, out, fds, limit);
    if (r < 0)
        return r;
    ssize_t written = write(c->pipe[(*out)->side], "", 1); /* full is pending as well */
    (void)written;
    return 0;
}

static void port_free(struct port *p)
{
    struct domain *d = p->instance->domain;
    struct channel *c = p->channel;
    c->end[p->side] = NULL;
    if (!c->end[!p->side])
        channel_free(c);
    list_remove(&p->link);
    map_remove(&d->ports, p->number);
    idalloc_put(&d->port_numbers, p->number);
    domain_unuse(d, HV_LIMIT_PORTS, 1);
    domain_unuse(d, HV_LIMIT_DESCRIPTORS, PORT_DESCRIPTORS);
    free(p);
}

int port_close(struct instance *i, uint32_t number)
{
    struct port *p = map_get(&i->domain->ports, number);
    if (!p)
        return -ENOENT;
    if (p->instance != i)
        return -EACCES;
    port_free(p);
    return 0;
}

int port_status(const struct domain *d, uint32_t number, struct hv_port *out)
{
    struct port *p = map_get(&d->ports, number);
    if (!p) {
        *out = (struct hv_port){.port = number, .status = HV_PORT_CLOSED, .remote = HV_DOMID_NONE};
        return 0;
    }
    port_describe(p, out);
    return 0;
}

void port_describe(const struct port *p, struct hv_port *out)
{
    const struct port *peer = p->channel->end[!p->side];
    *out = (struct hv_port){
        .port = p->number,
        .status = peer ? HV_PORT_INTERDOMAIN : HV_PORT_UNBOUND,
        .instance = p->instance->number,
        .remote_port = peer ? peer->number : 0,
        .remote = p->channel->domid[!p->side],
    };
}

void port_tell_peers(struct instance *i, void (*tell)(struct instance *peer, struct instance *gone))
{
    struct port *p;
    list_foreach (p, &i->ports, link) {
        struct port *peer = p->channel->end[!p->side];
        if (!peer || peer->instance == i)
            continue;
        tell(peer->instance, i);
        peer->gone_mark = instance_mark(peer->instance);
    }
}

void port_release_all(struct instance *i)
{
    while (!list_empty(&i->ports))
        port_free(list_entry(i->ports.next, struct port, link));
}

void port_forget_remote(struct hypervisor *h, uint16_t domid)
{
    for (struct domain *d = domain_next(h, 0); d; d = domain_next(h, d->domid + 1u)) {
        struct port *p;
        map_foreach (&d->ports, k, p) {
            if (p->channel->domid[!p->side] == domid)
                p->channel->domid[!p->side] = HV_DOMID_NONE;
        }
    }
}
