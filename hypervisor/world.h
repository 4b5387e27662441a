/* SPDX-License-Identifier: MIT */
/* hypervisor/world.h: the server's own state, the root of everything it keeps.
 *
 *   hypervisor ─ domain (by domid) ┬ instance (a connection) ┬ extents and grant frames that it gave
 *                                  │                         ├ holds on those of others
 *                                  │                         └ ports
 *                                  └ extents, also those whose instance is gone and which somebody still holds
 *
 * Who dies when: a domain is freed when it was destroyed and has neither instances nor extents; an instance when its
 * connection ends; an extent when it was given back and nobody holds it; a port with its instance or by request.
 *
 * Nothing is freed under somebody's feet: a connection that has to go while another one is served is doomed
 * (instance_doom()) and freed by hypervisor_step() between two messages.
 */
#ifndef HYPERVISOR_WORLD_H
#define HYPERVISOR_WORLD_H

#include "base/list.h"
#include "base/loop.h"
#include "base/log.h"
#include "hypervisor/proto.h"
#include "hypervisor/server.h"

struct domain;

struct hypervisor {
    struct loop loop;
    struct hypervisor_limits limits;
    char *run_dir;
    struct domain *domains[HV_DOMID_MAX + 1]; /* by domid */
    uint16_t next_domid;
    uint32_t next_instance;
    bool instances_wrapped;
    struct list doomed; /* instances to be freed between two messages */
    unsigned budget_left, served;
    int kick_fd;                    /* an eventfd that is always readable and never leaves: port.h */
    uint32_t descriptors_max;       /* RLIMIT_NOFILE less what the role itself needs */
    uint32_t descriptors_committed; /* sum over the domains of the greater of used and guaranteed */
};

#endif
