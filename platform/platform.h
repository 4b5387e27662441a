/* SPDX-License-Identifier: MIT */
/* platform/platform.h: the seam between domzero and the world it runs in.
 *
 * A row gives event channels, shared and granted memory, and the way to the store. `user` is the world of the
 * hypervisor role and needs no privilege. Rows: platform_list.h; one row is one file platform/<name>.c. Frontends and
 * backends know only this header, so they run in any row.
 *
 * A `struct platform` is one connection, an instance of one domain. One thread each (a reactor opens its own); no loop:
 * poll platform_fd(), call platform_step(). Calls are round trips to the hypervisor role: control path only, except
 * that gntmap and gnttab work on shared memory.
 *
 * Refusals are -errno: ENOENT (no such thing for us: not there, or shared with another domain; the user row does not
 * say which), EACCES (domain 0's request, or a thing of another process of our domain), EDQUOT (a limit, which the
 * sentence names), EBUSY (the port is bound), EAGAIN (the port's owner has yet to hear that its last peer is gone: try
 * again), EPIPE (the hypervisor is gone).
 */
#ifndef PLATFORM_PLATFORM_H
#define PLATFORM_PLATFORM_H

#include "base/err.h"
#include "grant/frametable.h"
#include "grant/gntmap.h"
#include "grant/gnttab.h"
#include "ring/evtchn.h"
#include "store/client.h"

#define PLATFORM_DOMID_MAX 0x7fefu /* below DOMID_FIRST_RESERVED of <xen/xen.h> */

struct platform;

struct platform_where {
    const char *run_dir;    /* dom0: the run directory; or NULL */
    const char *domain_dir; /* a domain: its dom/<domid> directory; exactly one of both is given */
};

/* What the world tells; each may be NULL. Called from platform_step(). */
struct platform_listener {
    void *ctx;
    /* A process of `domid` with which we share memory or a channel is gone: stop using both. The library's own
     * bookkeeping (revocation, deferred release) has been done. */
    void (*instance_gone)(void *ctx, uint16_t domid, uint32_t instance);
    /* A domain was destroyed; to those who asked for it by platform_watch_domains(). */
    void (*domain_gone)(void *ctx, uint16_t domid);
};

/* Memory that this domain shares with `grantee`. */
struct platform_extent {
    uint32_t id, base_gfn, frame_count;
    uint16_t grantee;
    bool readonly; /* for the grantee; we always write */
    unsigned char *address;
};

struct platform_domain {
    uint16_t domid;
    bool dying; /* destroyed, but somebody still holds its memory */
    char name[64];
    uint32_t instances, extents, frames, grant_frames, ports;
    uint32_t held_extents; /* extents that grantees hold now */
    uint64_t refusals;     /* requests refused for rights or limits */
};

struct platform_ops; /* a row; platform/row.h */

/* `row` NULL: "user". Opens the connection: 0, or -errno with a sentence. `listener` is copied. */
int platform_open(const char *row, const struct platform_where *where, const struct platform_listener *listener,
                  struct platform **out, struct err *e);
void platform_close(struct platform *p); /* gives all back */
int platform_fd(const struct platform *p);
int platform_step(struct platform *p); /* handles waiting events: their number, or -errno (-EPIPE: the world ended) */
uint16_t platform_domid(const struct platform *p);
uint32_t platform_instance(const struct platform *p);
/* A store connection for this domain. */
int platform_store_open(struct platform *p, struct store_client **out, struct err *e);

/* ---- the granting side ---- */
int platform_extent_alloc(struct platform *p, uint16_t grantee, uint32_t frame_count, bool readonly,
                          struct platform_extent *out, struct err *e);
void platform_extent_free(struct platform *p, struct platform_extent *x); /* deferred while the grantee holds it */
/* This instance's grant table; the platform owns it. */
struct gnttab *platform_gnttab(struct platform *p);

/* ---- event channels ---- */
int platform_evtchn_alloc_unbound(struct platform *p, uint16_t remote, struct evtchn *out, struct err *e);
int platform_evtchn_bind_interdomain(struct platform *p, uint16_t remote, uint32_t remote_port, struct evtchn *out,
                                     struct err *e);
void platform_evtchn_close(struct platform *p,
                           struct evtchn *ch); /* closes the descriptors; the peer's port becomes unbound */
enum platform_port_status { PLATFORM_PORT_CLOSED, PLATFORM_PORT_UNBOUND, PLATFORM_PORT_INTERDOMAIN };
/* A port of our own domain, any instance: its status, or -errno. *instance (may be NULL): whose it is. */
int platform_evtchn_status(struct platform *p, uint32_t port, uint32_t *instance);

/* ---- the mapping side ---- */
/* The map of `domid`'s grants, one for this connection, counted: each get has a put. The last put frees it, unmapped.
 */
int platform_gntmap_get(struct platform *p, uint16_t domid, struct gntmap **map, struct frametable **frames,
                        struct err *e);
void platform_gntmap_put(struct platform *p, uint16_t domid);

/* ---- domain administration: domain 0 only ---- */
int platform_domain_create(struct platform *p, const char *name, uint16_t *domid, char *domain_dir, size_t dir_size,
                           struct err *e);
int platform_domain_destroy(struct platform *p, uint16_t domid, struct err *e);
/* Calls fn for each domain, in order of domid. */
int platform_domain_list(struct platform *p, void (*fn)(void *ctx, const struct platform_domain *d), void *ctx,
                         struct err *e);
int platform_watch_domains(struct platform *p);

#endif
