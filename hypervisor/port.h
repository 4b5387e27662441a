/* SPDX-License-Identifier: MIT */
/* hypervisor/port.h: event-channel ports and the channels between them.
 *
 * A channel joins two ends, each of one domain, fixed when its first port is allocated: only the remote domain that
 * was named then can ever take the other end, and only while it is free. Closing an end (or the death of its process)
 * makes the other one unbound: it keeps its descriptors, and another process of the same remote domain may bind.
 *
 * The end's bit is a pipe (ring/evtchn.h says why). The server keeps one description of each pipe, open for both
 * directions, so a pipe outlives the processes at its ends, and nobody ever meets EPIPE or a hang-up. What it hands
 * out is opened anew for each end: one to wait on, one to notify with.
 *
 * Each port is charged two descriptors: an unbound channel's two pipes, half of them too much for a bound one.
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
