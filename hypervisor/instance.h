/* SPDX-License-Identifier: MIT */
/* hypervisor/instance.h: one connection, which is one process of a domain, and what is on its way to it.
 *
 * Sending never waits. What the socket does not take is queued, and while something is queued no request of that
 * connection is read, so replies cannot pile up. Events can, and each kind is bounded by what the connection asked for
 * itself: one for each extent it holds, one for each port whose peer died (the port is not bound again until that
 * event has gone out, XSA-349), one for each domain that domain 0 destroys. INSTANCE_QUEUE_MAX stands behind that:
 * beyond it the connection is cut.
 *
 * The socket's send buffer is small on purpose: descriptors in unread replies count against a limit that all
 * processes of the user share (RLIMIT_NOFILE, in flight).
 */
#ifndef HYPERVISOR_INSTANCE_H
#define HYPERVISOR_INSTANCE_H

#include "hypervisor/domain.h"

#define INSTANCE_QUEUE_MAX    4096 /* messages */
#define INSTANCE_SNDBUF_BYTES 4096 /* about ten messages */

struct instance {
    struct domain *domain;
    struct loop_source source;
    int fd;
    uint32_t number; /* unique among all that live or have memory that is held */
    bool greeted, watching, doomed;
    uint32_t last_gone; /* the instance of whose end this one was told last */
    struct list link;   /* of domain->instances */
    struct list doomed_link;
    struct list extents, holds, ports;
    struct list queue;
    unsigned queued;
    uint64_t messages_sent; /* with the queued ones: the number of the next message */
};

/* Takes fd, if it succeeds. `ready` is called when the connection can be read or written. -EDQUOT: enough instances. */
int instance_new(struct domain *d, int fd, loop_fn *ready);
/* Gives back all it has and tells those who hold some of it. */
void instance_free(struct instance *i);
/* Free it soon. `why` NULL: it left. */
void instance_doom(struct instance *i, const char *why);
/* Sends or queues; takes the descriptors in either case. */
void instance_send(struct instance *i, const void *data, size_t length_bytes, int *fds, unsigned fd_count);
void instance_event(struct instance *i, uint32_t op, uint16_t domid, uint32_t value);
/* Sends what is queued; true where nothing is left. */
bool instance_flush(struct instance *i);
/* The number that the next message will have, and whether a message was handed to the kernel. */
static inline uint64_t instance_mark(const struct instance *i)
{
    return i->messages_sent + i->queued;
}
static inline bool instance_passed(const struct instance *i, uint64_t mark)
{
    return i->messages_sent >= mark;
}

#endif
