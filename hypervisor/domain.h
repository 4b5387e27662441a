/* SPDX-License-Identifier: MIT */
/* hypervisor/domain.h: a domain: its socket, its directory, its account.
 *
 * The account counts what the domain makes the server hold, by enum hv_limit. domain_may() asks, domain_use() and
 * domain_unuse() book; an operation that books several things asks for all first, so none is undone. Domain 0 is
 * bound by the grant-frame limit only (a grant table has so many frames, whoever owns it).
 *
 * The server's descriptors are the one thing that all domains share. Each domain is guaranteed some
 * (DOMAIN_DESCRIPTORS_*), reserved when it is created, and what is left over is first come first served. So a domain
 * that takes all it can get never keeps another one from its guaranteed part, and where the next domain's part cannot
 * be reserved its creation fails, early and with a sentence.
 *
 * Domids increase and come again only after HV_DOMID_MAX others. By then nothing names the dead: when a domain is
 * destroyed every extent and port that named it is made nobody's (XSA-322).
 */
#ifndef HYPERVISOR_DOMAIN_H
#define HYPERVISOR_DOMAIN_H

#include "base/idalloc.h"
#include "base/map.h"
#include "hypervisor/world.h"

#define DOMAIN_DESCRIPTORS_GUARANTEED 32 /* socket, process, grant frame, 7 disks: two extents and a port each */
#define DOMAIN_DESCRIPTORS_DOM0       512
#define DOMAIN_PORTS_DOM0             16384 /* numbers; domain 0 runs out of descriptors first */

struct domain {
    struct hypervisor *h;
    uint16_t domid;
    bool dying;
    char name[HV_NAME_BYTES];
    struct loop_source source; /* of the listening socket */
    int listen_fd;
    struct list instances, extents;
    struct map ports;
    struct idalloc port_numbers, grant_indexes;
    uint32_t next_extent_id, next_gfn; /* only rise */
    uint32_t used[HV_LIMIT_END_], max[HV_LIMIT_END_];
    uint32_t descriptors_guaranteed;
    uint64_t refusals;
    struct log_limiter limiter;
};

/* `accepted` is called when its socket has connections. Domain 0 has no directory of its own. */
int domain_new(struct hypervisor *h, uint16_t domid, const char *name, loop_fn *accepted, struct domain **out,
               struct err *e);
/* A free domid and the domain of that name. -EEXIST: the name is taken. */
int domain_create(struct hypervisor *h, const char *name, loop_fn *accepted, struct domain **out, struct err *e);
/* Ends its instances, removes socket and directory, tells the watchers; freed once nobody holds its memory. */
void domain_destroy(struct domain *d);
/* Frees a destroyed domain that holds nothing any more; harmless otherwise. */
void domain_settle(struct domain *d);
/* For the end of the server. */
void domain_free(struct domain *d);

/* NULL where there is none; dying ones only where asked for. */
struct domain *domain_find(struct hypervisor *h, uint32_t domid, bool dying_too);
/* The first with at least that domid, or NULL. */
struct domain *domain_next(struct hypervisor *h, uint32_t domid);
void domain_describe(const struct domain *d, struct hv_domain *out);

/* 0, or -EDQUOT with *limit naming it. */
int domain_may(const struct domain *d, enum hv_limit what, uint32_t n, uint32_t *limit);
void domain_use(struct domain *d, enum hv_limit what, uint32_t n);
void domain_unuse(struct domain *d, enum hv_limit what, uint32_t n);

#endif
