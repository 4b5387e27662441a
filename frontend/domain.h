/* SPDX-License-Identifier: MIT */
/* frontend/domain.h: what the guest library's files share about the domain that this process is, and how a call fails.
 *
 * A dz_domain is one platform connection (an instance of the domain). Its disks are in `disks`. A pool whose grants the
 * backend still holds when its disk closes is not torn down: it moves to `retired`, with its memory and what is left
 * of its grants, and is tried again at each later open and close (never give away a page that is still granted:
 * XSA-396). What is retired when the domain closes goes with the platform connection: then the hypervisor role keeps
 * the memory until its holders let go.
 *
 * A domain's disks may be used by several threads, and its platform connection by one at a time: what takes `lock` here
 * is all that is said on it. Nothing in this header is called with another lock to come.
 *
 * Failing: a public function returns front_fail(code, sentence) for a constant sentence (cheap: used on the data
 * path), or front_fail_err(code, &e) for a composed one. Both set what dz_error() says in this thread.
 */
#ifndef FRONTEND_DOMAIN_H
#define FRONTEND_DOMAIN_H

#include <pthread.h>

#include "base/list.h"
#include "domzero/domzero.h"
#include "frontend/pool.h"
#include "platform/platform.h"

struct dz_domain {
    struct platform *platform;
    pthread_mutex_t lock; /* of all here */
    struct list disks;    /* struct dz_vbd, in_domain */
    struct list retired;  /* struct pool, retired */
};

struct dz_vbd;
/* -EBUSY: that disk is there already. */
int domain_disk_add(struct dz_domain *dom, struct dz_vbd *v);
void domain_disk_remove(struct dz_domain *dom, struct dz_vbd *v); /* one that was not added is fine */

/* platform.h's, under the lock. */
int domain_step(struct dz_domain *dom);
int domain_store_open(struct dz_domain *dom, struct store_client **out, struct err *e);
int domain_channel_open(struct dz_domain *dom, uint16_t remote, struct evtchn *out, struct err *e);
void domain_channel_close(struct dz_domain *dom, struct evtchn *channel);
int domain_port_status(struct dz_domain *dom, uint32_t port, uint32_t *instance);
/* Tries the retired ones first. */
int domain_pool_open(struct dz_domain *dom, uint16_t grantee, uint32_t page_count, struct pool **out, struct err *e);
/* Takes the pool: gives it back, or keeps it until its grants can be ended. NULL is fine. */
void domain_pool_retire(struct dz_domain *dom, struct pool *pool);

int front_fail(int code, const char *sentence);    /* borrows the sentence for ever */
int front_fail_err(int code, const struct err *e); /* copies it; an empty one becomes the errno's text */

#endif
