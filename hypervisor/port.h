/* SPDX-License-Identifier: MIT */
/* hypervisor/port.h: event-channel ports and the channels between them.
 *
 * A channel joins two ends, each of one domain, fixed when its first port is allocated: only the remote domain that
 * was named then can ever take the other end, and only while it is free. Closing an end (or the death of its process)
 * makes the other one unbound: it keeps its descriptors, and another process of the same remote domain may bind.
 *
 * Each end notifies through an eventfd and waits on an epoll instance that watches the other end's eventfd
 * (ring/evtchn.h says why). The server keeps the two eventfds, so the channel outlives the processes at its ends, and
 * makes an epoll instance anew for each process that takes an end. It never reads or writes an eventfd: a hostile end
 * shares its flags with the server and could make that wait. The bit that binding sets comes from one more eventfd,
 * always readable, of the server's own, which the new instance watches too: edge triggered, so it fires once.
 *
 * Processes that have the same end one after the other, all of one domain, share its eventfd; two ends never share a
 * file. Each port is charged two descriptors: an unbound channel's two eventfds, half of them too much for a bound one.
 */
#ifndef HYPERVISOR_PORT_H
#define HYPERVISOR_PORT_H

#include "hypervisor/instance.h"

struct channel;

struct port {
    uint32_t number; /* of its domain; 0 is none */
    unsigned side;   /* which end of the channel */
    struct channel *channel;
    struct instance *instance;
    struct list link;   /* of instance->ports */
    uint64_t gone_mark; /* the message that tells of the last peer's end */
};

/* fds[0] to wait on, fds[1] to notify with. */
int port_alloc(struct instance *i, uint16_t remote, struct port **out, int fds[2], uint32_t *limit);
int port_bind(struct instance *i, uint16_t remote, uint32_t remote_port, struct port **out, int fds[2],
              uint32_t *limit);
int port_close(struct instance *i, uint32_t number);
int port_status(const struct domain *d, uint32_t number, struct hv_port *out);
void port_describe(const struct port *p, struct hv_port *out);

/* An instance ends: the peers of its ports are told, then the ports go. */
void port_tell_peers(struct instance *i, void (*tell)(struct instance *peer, struct instance *gone));
void port_release_all(struct instance *i);
/* A domain ends: no channel names it any more. */
void port_forget_remote(struct hypervisor *h, uint16_t domid);

#endif
