/* SPDX-License-Identifier: MIT */
#include "store/domain.h"

int store_domains_init(struct store_domains *d, const struct store_quota *quota)
{
    *d = (struct store_domains){.quota = *quota};
    struct store_domain *dom0 = store_domain_get(d, 0);
    if (!dom0)
        return -ENOMEM;
    dom0->introduced = true;
    return 0;
}

void store_domains_deinit(struct store_domains *d)
{
    struct store_domain *domain;
    map_foreach (&d->by_domid, i, domain)
        free(domain);
    map_deinit(&d->by_domid);
}

struct store_domain *store_domain_find(const struct store_domains *d, unsigned domid)
{
    return map_get(&d->by_domid, domid);
}

struct store_domain *store_domain_get(struct store_domains *d, unsigned domid)
{
    struct store_domain *domain = store_domain_find(d, domid);
    if (domain)
        return domain;
    domain = malloc(sizeof(*domain));
    if (!domain)
        return NULL;
    *domain = (struct store_domain){.domid = domid, .target = domid, .quota = d->quota};
    list_init(&domain->stalled);
    if (map_put(&d->by_domid, domid, domain) < 0) {
        free(domain);
        return NULL;
    }
    return domain;
}

void store_domain_put(struct store_domains *d, struct store_domain *domain)
{
    if (domain->introduced || domain->stale || domain->watches || domain->transactions || domain->connections ||
        domain->bytes)
        return;
    map_remove(&d->by_domid, domain->domid);
    free(domain);
}

static uint32_t quota_bit(const struct store_quota_row *row)
{
    return 1u << (row - store_quota_rows);
}

void store_domain_quota_set(struct store_domain *domain, const struct store_quota_row *row, unsigned value)
{
    *store_quota_field(&domain->quota, row) = value;
    domain->quota_own |= quota_bit(row);
}

void store_domain_quota_reset(const struct store_domains *d, struct store_domain *domain)
{
    domain->quota = d->quota;
    domain->quota_own = 0;
}

void store_domains_quota_set(struct store_domains *d, const struct store_quota_row *row, unsigned value)
{
    struct store_domain *domain;
    *store_quota_field(&d->quota, row) = value;
    map_foreach (&d->by_domid, i, domain) {
        if (!(domain->quota_own & quota_bit(row)))
            *store_quota_field(&domain->quota, row) = value;
    }
}

void store_domain_brake(struct store_domain *domain, uint64_t now_ns)
{
    if (domain->domid == 0)
        return;
    bool first = !domain->brake_ns || now_ns - domain->collided_ns > STORE_BRAKE_FORGET_NS;
    domain->brake_ns = first ? STORE_BRAKE_FIRST_NS : MIN(domain->brake_ns * 2, STORE_BRAKE_MAX_NS);
    domain->collided_ns = now_ns;
    domain->braked_until_ns = now_ns + domain->brake_ns;
}
