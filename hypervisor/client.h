/* SPDX-License-Identifier: MIT */
/* hypervisor/client.h: the other end of the hypervisor role's socket.
 *
 * One connection, one instance, one thread. Each call is a blocking round trip. Events that arrive meanwhile are kept
 * in order for hvclient_event(); hvclient_fd() stays readable while any is kept, so a loop misses none. Their number
 * is bounded by what this process holds itself (instance.h); HVCLIENT_EVENTS_MAX stands behind that, and beyond it the
 * connection is given up, since a lost event would be memory that is never given back.
 *
 * The server is trusted, yet an answer that is not to the question ends the connection (-EPROTO).
 *
 * Results are 0 or -errno as proto.h has them, with a sentence; -EPIPE: the hypervisor role is gone. Descriptors that
 * are returned are the caller's.
 */
#ifndef HYPERVISOR_CLIENT_H
#define HYPERVISOR_CLIENT_H

#include "base/err.h"
#include "hypervisor/proto.h"

#define HVCLIENT_EVENTS_MAX 65536

struct hvclient;

/* Connects to the socket at `path` and greets. -EDQUOT, -EACCES: refused. */
int hvclient_open(const char *path, struct hvclient **out, struct err *e);
void hvclient_close(struct hvclient *c);
int hvclient_fd(const struct hvclient *c);
uint16_t hvclient_domid(const struct hvclient *c);
uint32_t hvclient_instance(const struct hvclient *c);
/* The next event without waiting: 1, 0 (none waits), -EPIPE. */
int hvclient_event(struct hvclient *c, struct hv_event *out);

int hvclient_domain_create(struct hvclient *c, const char *name, uint16_t *domid, struct err *e);
int hvclient_domain_destroy(struct hvclient *c, uint16_t domid, struct err *e);
/* The first domain whose domid is at least that; out->domid is HV_DOMID_NONE where there is none. */
int hvclient_domain_next(struct hvclient *c, uint16_t domid, struct hv_domain *out, struct err *e);
int hvclient_domain_watch(struct hvclient *c, struct err *e);

int hvclient_extent_alloc(struct hvclient *c, uint16_t grantee, uint32_t frame_count, bool readonly,
                          struct hv_extent *out, int *fd, struct err *e);
/* Once a read-only extent is mapped: adds the seals through `fd`, its descriptor, and has them seen. */
int hvclient_extent_seal(struct hvclient *c, uint32_t id, int fd, struct err *e);
int hvclient_extent_free(struct hvclient *c, uint32_t id, struct err *e);
int hvclient_extent_map(struct hvclient *c, uint16_t owner, uint32_t gfn, struct hv_extent *out, int *fd,
                        struct err *e);
int hvclient_extent_put(struct hvclient *c, uint16_t owner, uint32_t id, struct err *e);

/* out->id is the index in the domain's grant table. */
int hvclient_grant_frame_new(struct hvclient *c, uint16_t grantee, struct hv_extent *out, int *fd, struct err *e);
int hvclient_grant_frame_map(struct hvclient *c, uint16_t owner, uint32_t index, struct hv_extent *out, int *fd,
                             struct err *e);
int hvclient_grant_frame_put(struct hvclient *c, uint16_t owner, uint32_t index, struct err *e);

/* fds[0] to wait on, fds[1] to notify with. */
int hvclient_port_alloc(struct hvclient *c, uint16_t remote, struct hv_port *out, int fds[2], struct err *e);
int hvclient_port_bind(struct hvclient *c, uint16_t remote, uint32_t remote_port, struct hv_port *out, int fds[2],
                       struct err *e);
int hvclient_port_close(struct hvclient *c, uint32_t port, struct err *e);
int hvclient_port_status(struct hvclient *c, uint32_t port, struct hv_port *out, struct err *e);

#endif
