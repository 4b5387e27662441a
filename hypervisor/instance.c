/* SPDX-License-Identifier: MIT */
#include "hypervisor/instance.h"

#include <assert.h>
#include <string.h>
#include <sys/socket.h>

#include "base/unixsock.h"
#include "hypervisor/extent.h"
#include "hypervisor/port.h"

struct message {
    struct list link;
    size_t length_bytes;
    unsigned fd_count;
    int fds[HV_FDS_MAX];
    unsigned char bytes[sizeof(struct hv_reply)];
};

_Static_assert(sizeof(struct hv_event) <= sizeof(struct hv_reply), "a message holds either");

static bool number_in_use(const struct hypervisor *h, uint32_t number)
{
    for (uint32_t domid = 0; domid <= HV_DOMID_MAX; domid++) {
        if (!h->domains[domid])
            continue;
        struct instance *i;
        list_foreach (i, &h->domains[domid]->instances, link) {
            if (i->number == number)
                return true;
        }
        struct extent *x;
        list_foreach (x, &h->domains[domid]->extents, domain_link) {
            if (x->instance_number == number)
                return true;
        }
    }
    return false;
}

/* Numbers wrap after 2^32 connections; from then on each is looked up. */
static uint32_t number_next(struct hypervisor *h)
{
    do {
        if (++h->next_instance == 0) {
            h->next_instance = 1;
            h->instances_wrapped = true;
        }
    } while (h->instances_wrapped && number_in_use(h, h->next_instance));
    return h->next_instance;
}

int instance_new(struct domain *d, int fd, loop_fn *ready)
{
    uint32_t limit;
    int r = domain_may(d, HV_LIMIT_INSTANCES, 1, &limit);
    if (r == 0)
        r = domain_may(d, HV_LIMIT_DESCRIPTORS, 1, &limit);
    if (r < 0)
        return r;
    _cleanup_free_ struct instance *i = calloc(1, sizeof(*i));
    if (!i)
        return -ENOMEM;
    int sndbuf = INSTANCE_SNDBUF_BYTES;
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &sndbuf, sizeof(sndbuf));
    *i = (struct instance){.domain = d, .fd = fd, .number = number_next(d->h)};
    r = loop_add(&d->h->loop, &i->source, fd, EPOLLIN, ready);
    if (r < 0)
        return r;
    list_init(&i->doomed_link);
    list_init(&i->extents);
    list_init(&i->holds);
    list_init(&i->ports);
    list_init(&i->queue);
    list_append(&d->instances, &i->link);
    domain_use(d, HV_LIMIT_INSTANCES, 1);
    domain_use(d, HV_LIMIT_DESCRIPTORS, 1);
    take_ptr(i); /* the domain's list has it */
    return 0;
}

static void message_free(struct message *m)
{
    for (unsigned k = 0; k < m->fd_count; k++)
        close(m->fds[k]);
    list_remove(&m->link);
    free(m);
}

static void tell_gone(struct instance *who, struct instance *gone)
{
    if (who == gone || who->last_gone == gone->number)
        return;
    who->last_gone = gone->number;
    instance_event(who, HV_INSTANCE_GONE, gone->domain->domid, gone->number);
}

void instance_free(struct instance *i)
{
    struct domain *d = i->domain;
    loop_remove(&d->h->loop, &i->source);
    list_remove(&i->doomed_link);
    list_remove(&i->link);
    i->doomed = true;
    extent_tell_holders(i, tell_gone);
    port_tell_peers(i, tell_gone);
    port_release_all(i);
    extent_release_all(i);
    struct message *m, *tmp;
    list_foreach_safe (m, tmp, &i->queue, link)
        message_free(m);
    unixsock_close_served(&i->fd);
    free(i);
    domain_unuse(d, HV_LIMIT_INSTANCES, 1);
    domain_unuse(d, HV_LIMIT_DESCRIPTORS, 1);
    domain_settle(d);
}

void instance_doom(struct instance *i, const char *why)
{
    if (i->doomed)
        return;
    if (why)
        log_peer(&i->domain->limiter, "domain %u, instance %u: disconnected: %s", i->domain->domid, i->number, why);
    i->doomed = true;
    loop_remove(&i->domain->h->loop, &i->source);
    list_append(&i->domain->h->doomed, &i->doomed_link);
}

static int message_queue(struct instance *i, const void *data, size_t length_bytes, const int *fds, unsigned fd_count)
{
    if (i->queued >= INSTANCE_QUEUE_MAX)
        return -EOVERFLOW;
    struct message *m = calloc(1, sizeof(*m));
    if (!m)
        return -ENOMEM;
    m->length_bytes = length_bytes;
    m->fd_count = fd_count;
    memcpy(m->bytes, data, length_bytes);
    for (unsigned k = 0; k < fd_count; k++)
        m->fds[k] = fds[k];
    list_append(&i->queue, &m->link);
    if (i->queued++ == 0)
        loop_modify(&i->domain->h->loop, &i->source, EPOLLOUT);
    return 0;
}

void instance_send(struct instance *i, const void *data, size_t length_bytes, int *fds, unsigned fd_count)
{
    assert(length_bytes <= sizeof(struct hv_reply) && fd_count <= HV_FDS_MAX);
    int r = i->doomed ? -EPIPE : -EAGAIN;
    if (!i->doomed && i->queued == 0)
        r = unixsock_send(i->fd, data, length_bytes, fds, fd_count, MSG_DONTWAIT);
    if (r == 0)
        i->messages_sent++;
    if (r == -EAGAIN) {
        r = message_queue(i, data, length_bytes, fds, fd_count);
        if (r == 0)
            return; /* the queue has the descriptors */
    }
    for (unsigned k = 0; k < fd_count; k++)
        close(fds[k]);
    if (r < 0)
        instance_doom(i, r == -EPIPE || r == -ECONNRESET ? NULL
                         : r == -EOVERFLOW               ? "does not read its events"
                                                         : strerror(-r));
}

void instance_event(struct instance *i, uint32_t op, uint16_t domid, uint32_t value)
{
    struct hv_event event = {.op = op, .domid = domid, .value = value};
    instance_send(i, &event, sizeof(event), NULL, 0);
}

bool instance_flush(struct instance *i)
{
    struct message *m, *tmp;
    list_foreach_safe (m, tmp, &i->queue, link) {
        int r = unixsock_send(i->fd, m->bytes, m->length_bytes, m->fds, m->fd_count, MSG_DONTWAIT);
        if (r == -EAGAIN)
            return false;
        if (r < 0) {
            instance_doom(i, r == -EPIPE || r == -ECONNRESET ? NULL : strerror(-r));
            return false;
        }
        message_free(m);
        i->queued--;
        i->messages_sent++;
    }
    loop_modify(&i->domain->h->loop, &i->source, EPOLLIN);
    return true;
}
