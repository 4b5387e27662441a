/* SPDX-License-Identifier: MIT */
/* hypervisor/server.h: the hypervisor role's service: domains, extents, grant-table frames, event-channel ports.
 *
 * It is the one process that every domain trusts, and it is small: it makes memory and channels, hands descriptors to
 * those whom the rules allow, counts what each domain holds against named limits, and tells who holds something when
 * its owner is gone. It never maps an extent and never sees data.
 *
 * Sockets (SOCK_SEQPACKET, hypervisor/proto.h): `<run>/hypervisor.sock` is domain 0,
 * `<run>/dom/<domid>/hypervisor.sock` (0600 in a 0700 directory, made when the domain is created) is that domain. The
 * caller's domid is the socket it came through and nothing it says; a peer uid (SO_PEERCRED) other than the server's
 * own or root is refused.
 *
 * A connection is an *instance* of its domain (one process). Extents, grant frames and ports belong to the instance:
 * they go when it closes, and everyone who holds one of its extents or a port bound to it gets an event that names the
 * domid and the instance. An extent that is given back while a grantee still holds it stays charged to its owner until
 * the grantee has put it or died: releases are deferred, never forced.
 *
 * Library without loop or thread: poll hypervisor_fd(), call hypervisor_step().
 */
#ifndef HYPERVISOR_SERVER_H
#define HYPERVISOR_SERVER_H

#include "base/err.h"

/* What one domain may hold; running into one gives -EDQUOT and a counted refusal. */
struct hypervisor_limits {
    uint32_t instances;    /* 16: processes that are this domain at once */
    uint32_t extents;      /* 256 */
    uint32_t frames;       /* 65,536 (256 MiB) in extents */
    uint32_t grant_frames; /* 64: 32,768 grants */
    uint32_t ports;        /* 256 */
};

extern const struct hypervisor_limits hypervisor_limits_default;

struct hypervisor;

int hypervisor_new(const char *run_dir, struct hypervisor **out, struct err *e);
void hypervisor_free(struct hypervisor *h); /* closes everything, removes its sockets and dom/ directories */
int hypervisor_fd(const struct hypervisor *h);
/* Messages served, or -errno. Ends with the round of the ready connections in which the budget was used up. */
int hypervisor_step(struct hypervisor *h, unsigned budget);

#endif
