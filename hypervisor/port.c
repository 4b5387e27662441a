/* SPDX-License-Identifier: MIT */
#include "hypervisor/port.h"

#include <assert.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>

#include "ring/evtchn.h"

#define PORT_DESCRIPTORS 2

struct channel {
    int notify_fd[2]; /* [side]: the eventfd that this end notifies through */
    uint16_t domid[2];
    struct port *end[2];
};

static void channel_free(struct channel *c)
{
    fd_closep(&c->notify_fd[0]);
    fd_closep(&c->notify_fd[1]);
    free(c);
}

static int channel_new(uint16_t domid, uint16_t remote, struct channel **out)
{
    struct channel *c = malloc(sizeof(*c));
    if (!c)
        return -ENOMEM;
    *c = (struct channel){.domid = {domid, remote}};
    for (int side = 0; side < 2; side++)
        c->notify_fd[side] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (c->notify_fd[0] < 0 || c->notify_fd[1] < 0) {
        int r = -errno;
        channel_free(c);
        return r;
    }
    *out = c;
    return 0;
}

static bool readable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, 0) > 0;
}

/* Sets the bit of a new receiver, unless the other end's earlier notifications have. */
static int bit_set(const struct hypervisor *h, const struct channel *c, unsigned side, int wait_fd)
{
    struct epoll_event once = {.events = EPOLLIN | EPOLLET};
    if (readable(c->notify_fd[!side]))
        return 0;
    return epoll_ctl(wait_fd, EPOLL_CTL_ADD, h->kick_fd, &once) < 0 ? -errno : 0;
}

/* What the process that takes an end gets; fds[0] to wait on, fds[1] to notify with. */
static int end_open(const struct hypervisor *h, const struct channel *c, unsigned side, bool pending, int fds[2])
{
    _cleanup_close_ int wait_fd = -1, notify_fd = fcntl(c->notify_fd[side], F_DUPFD_CLOEXEC, 0);
    int r = notify_fd < 0 ? -errno : evtchn_receiver_open(c->notify_fd[!side], &wait_fd);
    if (r == 0 && pending)
        r = bit_set(h, c, side, wait_fd);
    if (r < 0)
        return r;
    fds[0] = take_fd(&wait_fd);
    fds[1] = take_fd(&notify_fd);
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
    _cleanup_close_ int wait_fd = -1, notify_fd = -1;
    r = end_open(d->h, c, side, c->end[!side] != NULL, fds);
    if (r < 0)
        return r;
    wait_fd = fds[0], notify_fd = fds[1];
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
    int r = domain_may(i->domain, HV_LIMIT_PORTS, 1, limit); /* before files are made */
    if (r == 0)
        r = channel_new(i->domain->domid, remote, &c);
    if (r < 0)
        return r;
    assert(c);
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
    return end_take(i, theirs->channel, !theirs->side, out, fds, limit);
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
