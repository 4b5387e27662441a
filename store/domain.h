/* SPDX-License-Identifier: MIT */
/* store/domain.h: what the store knows of a domain and what it holds on its behalf.
 *
 * A record exists while the domain is introduced or any count is above zero; domain 0's always. Everything a peer can
 * cause to exist is counted here against its domid: watches, transactions, connections, and the bytes of memory that
 * they, waiting events and buffered messages take; nodes and their bytes are counted by the tree.
 *
 * Its quotas are the common ones until one is set for it alone, and are so again when it is gone.
 *
 * The brake: each time a change by a domain makes another's transaction fail, that domain is not served for a
 * while, 1 ms the first time and twice as long each further time up to a second; ten seconds without a collision make
 * it the first time again. So a stream of writes cannot keep others from ever committing. Domain 0 is not braked.
 */
#ifndef STORE_DOMAIN_H
#define STORE_DOMAIN_H

#include <assert.h>

#include "base/list.h"
#include "base/map.h"
#include "store/perm.h"
#include "store/quota.h"

#define STORE_BRAKE_FIRST_NS  1000000ull     /* unmeasured */
#define STORE_BRAKE_MAX_NS    1000000000ull  /* a transaction of more than a second is not helped */
#define STORE_BRAKE_FORGET_NS 10000000000ull /* unmeasured */

struct store_domain {
    unsigned domid, target;
    unsigned watches, transactions, connections;
    unsigned unsent;     /* messages that its connections hold, as it has not read */
    struct list stalled; /* the edge's: connections that wait for it to read (store/rota.h) */
    struct store_quota quota;
    uint32_t quota_own; /* the rows of store_quota_rows that were set for this domain alone, a bit each */
    uint64_t gfn;       /* and port: as INTRODUCE gave them */
    uint32_t port;
    uint64_t bytes; /* of memory, but for its nodes: who takes them charges them here, and gives them back */
    bool introduced;
    bool stale;     /* it is gone but for lack of memory the tree still names it: must not be introduced */
    bool soft_told; /* that it holds more than its soft quota */
    uint64_t brake_ns, braked_until_ns, collided_ns;
};

struct store_domains {
    struct map by_domid;
    unsigned introduced;      /* not counting domain 0 */
    struct store_quota quota; /* of domains that have none of their own */
};

/* `quota` is complete. -ENOMEM. */
int store_domains_init(struct store_domains *d, const struct store_quota *quota);
void store_domains_deinit(struct store_domains *d);
struct store_domain *store_domain_find(const struct store_domains *d, unsigned domid); /* or NULL */
struct store_domain *store_domain_get(struct store_domains *d, unsigned domid);        /* makes it; NULL: no memory */
/* Frees the record where nothing is left to remember. */
void store_domain_put(struct store_domains *d, struct store_domain *domain);
/* From now on, for what is asked for next: what is held already stays. */
void store_domain_quota_set(struct store_domain *domain, const struct store_quota_row *row, unsigned value);
void store_domain_quota_reset(const struct store_domains *d, struct store_domain *domain); /* nothing is its own */
/* For all domains that were not given their own. */
void store_domains_quota_set(struct store_domains *d, const struct store_quota_row *row, unsigned value);
static inline void store_domain_charge(struct store_domain *domain, size_t bytes)
{
    domain->bytes += bytes;
}

static inline void store_domain_credit(struct store_domain *domain, size_t bytes)
{
    assert(domain->bytes >= bytes);
    domain->bytes -= bytes;
}

void store_domain_brake(struct store_domain *domain, uint64_t now_ns);

#endif
