/* SPDX-License-Identifier: MIT */
#include "frontend/domain.h"

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

void domain_retired_try(struct dz_domain *dom)
{
    struct pool *pool, *tmp;
    list_foreach_safe (pool, tmp, &dom->retired, retired)
        pool_close(pool); /* success takes it out of the list */
}

void domain_pool_retire(struct dz_domain *dom, struct pool *pool)
{
    if (pool && pool_close(pool) < 0)
        list_append(&dom->retired, &pool->retired);
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
    domain_retired_try(dom);
    struct pool *pool, *tmp;
    list_foreach_safe (pool, tmp, &dom->retired, retired)
        pool_abandon(pool);
    platform_close(dom->platform);
    free(dom);
}

unsigned dz_domain_id(const struct dz_domain *dom)
{
    return platform_domid(dom->platform);
}
