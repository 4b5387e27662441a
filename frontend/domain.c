/* SPDX-License-Identifier: MIT */
#include "frontend/blkfront.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

/* Of this thread, as errno is: the one per-thread thing of the library. */
static _Thread_local struct err last_error_text;
static _Thread_local const char *last_error = "no error";

const char *dz_error(void)
{
    return last_error;
}

int front_fail(int code, const char *sentence)
{
    last_error = sentence;
    return code;
}

int front_fail_err(int code, const struct err *e)
{
    if (e->text[0])
        last_error_text = *e;
    else
        err_set(&last_error_text, code, "%s", strerror(-code));
    last_error = last_error_text.text;
    return code;
}

/* ---- what is said on the domain's connection ---- */

static void unlockp(pthread_mutex_t **lock)
{
    pthread_mutex_unlock(*lock);
}

/* Holds the domain's lock to the end of the function. */
#define DOMAIN_LOCKED(dom)                                      \
    _cleanup_(unlockp) pthread_mutex_t *locked_ = &(dom)->lock; \
    pthread_mutex_lock(locked_)

int domain_disk_add(struct dz_domain *dom, struct dz_vbd *v)
{
    DOMAIN_LOCKED(dom);
    const struct dz_vbd *other;
    list_foreach (other, &dom->disks, in_domain)
        if (other->device.devid == v->device.devid)
            return -EBUSY;
    list_append(&dom->disks, &v->in_domain);
    return 0;
}

void domain_disk_remove(struct dz_domain *dom, struct dz_vbd *v)
{
    DOMAIN_LOCKED(dom);
    list_remove(&v->in_domain);
}

int domain_step(struct dz_domain *dom)
{
    DOMAIN_LOCKED(dom);
    return platform_step(dom->platform);
}

int domain_store_open(struct dz_domain *dom, struct store_client **out, struct err *e)
{
    DOMAIN_LOCKED(dom);
    return platform_store_open(dom->platform, out, e);
}

int domain_channel_open(struct dz_domain *dom, uint16_t remote, struct evtchn *out, struct err *e)
{
    DOMAIN_LOCKED(dom);
    int r = platform_evtchn_alloc_unbound(dom->platform, remote, out, e);
    if (r < 0)
        *out = EVTCHN_NONE;
    return r;
}

void domain_channel_close(struct dz_domain *dom, struct evtchn *channel)
{
    DOMAIN_LOCKED(dom);
    platform_evtchn_close(dom->platform, channel);
    *channel = EVTCHN_NONE;
}

int domain_port_status(struct dz_domain *dom, uint32_t port, uint32_t *instance)
{
    DOMAIN_LOCKED(dom);
    return platform_evtchn_status(dom->platform, port, instance);
}

static void retired_try(struct dz_domain *dom)
{
    struct pool *pool, *tmp;
    list_foreach_safe (pool, tmp, &dom->retired, retired)
        pool_close(pool); /* success takes it out of the list */
}

int domain_pool_open(struct dz_domain *dom, uint16_t grantee, uint32_t page_count, struct pool **out, struct err *e)
{
    DOMAIN_LOCKED(dom);
    retired_try(dom);
    return pool_open(dom->platform, grantee, page_count, out, e);
}

void domain_pool_retire(struct dz_domain *dom, struct pool *pool)
{
    DOMAIN_LOCKED(dom);
    if (pool && pool_close(pool) < 0)
        list_append(&dom->retired, &pool->retired);
    retired_try(dom);
}

int dz_domain_open(const char *domain_dir, struct dz_domain **out)
{
    struct err e = {""};
    if (!domain_dir)
        domain_dir = getenv("DOMZERO_DOMAIN_DIR");
    if (!domain_dir || !*domain_dir)
        return front_fail(-ENOENT, "this process is no domain: DOMZERO_DOMAIN_DIR is not set; start it with "
                                   "`domzero exec DOMAIN PROGRAM`, or name the domain's directory");
    _cleanup_free_ struct dz_domain *dom = calloc(1, sizeof(*dom));
    if (!dom)
        return front_fail(-ENOMEM, "no memory for a domain");
    pthread_mutex_init(&dom->lock, NULL);
    list_init(&dom->disks);
    list_init(&dom->retired);
    struct platform_where where = {.domain_dir = domain_dir};
    int r = platform_open(NULL, &where, NULL, &dom->platform, &e);
    if (r < 0)
        return front_fail_err(r, &e);
    *out = take_ptr(dom);
    return 0;
}

void dz_domain_close(struct dz_domain *dom)
{
    if (!dom)
        return;
    assert(list_empty(&dom->disks)); /* the caller's bug: a disk is open */
    retired_try(dom);
    struct pool *pool, *tmp;
    list_foreach_safe (pool, tmp, &dom->retired, retired)
        pool_abandon(pool);
    platform_close(dom->platform);
    pthread_mutex_destroy(&dom->lock);
    free(dom);
}

unsigned dz_domain_id(const struct dz_domain *dom)
{
    return platform_domid(dom->platform);
}
