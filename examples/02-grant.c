/* SPDX-License-Identifier: MIT */
/* 02-grant: a guest grants a page to domain 0, domain 0 maps it, and the guest finds that it cannot take it back while
 * it is mapped. Both are this process: the guest through its domain's directory, domain 0 through the run directory
 * that lies above it.
 *
 *   export DOMZERO_RUN_DIR=/tmp/dz; build/domzerod; echo 'name = "bare"' > /tmp/bare.cfg
 *   build/domzero create /tmp/bare.cfg
 *   build/domzero exec bare -- build/examples/02-grant
 *
 * What to look at: a grant is one 8-byte entry in memory that both domains share. Mapping sets a bit in it, and ending
 * the grant is one compare-and-exchange that such a bit makes fail: never "is it mapped? no? then take it back".
 */
#include <assert.h>
#include <err.h>
#include <stdio.h>
#include <string.h>

#include "platform/platform.h"

static struct platform *world_open(const char *run_dir, const char *domain_dir)
{
    struct err e = {""};
    struct platform *p;
    struct platform_where where = {.run_dir = run_dir, .domain_dir = domain_dir};
    if (platform_open(NULL, &where, NULL, &p, &e) < 0)
        errx(1, "%s", e.text);
    return p;
}

/* `<run>/dom/<domid>` → `<run>`. What a real guest could not do: domain 0's socket is open to root and its owner. */
static char *run_dir_of(const char *domain_dir)
{
    char *run_dir = strdup(domain_dir);
    for (int i = 0; run_dir && i < 2; i++)
        *strrchr(run_dir, '/') = 0;
    return run_dir;
}

/* The guest's side: a page of shared memory, and a grant of it to domain 0. */
static uint32_t page_grant(struct platform *guest, struct platform_extent *x)
{
    struct err e = {""};
    uint32_t gref;
    if (platform_extent_alloc(guest, 0, 1, false, x, &e) < 0 ||
        gnttab_grant(platform_gnttab(guest), 0, x->base_gfn, false, &gref, &e) < 0)
        errx(1, "%s", e.text);
    printf("guest: frame %u is granted to domain 0 as reference %u\n", x->base_gfn, gref);
    return gref;
}

int main(void)
{
    const char *domain_dir = getenv("DOMZERO_DOMAIN_DIR");
    if (!domain_dir)
        errx(2, "start me by `domzero exec DOMAIN -- 02-grant`");
    char *run_dir = run_dir_of(domain_dir);
    struct platform *guest = world_open(NULL, domain_dir), *dom0 = world_open(run_dir, NULL);
    struct platform_extent x;
    uint32_t gref = page_grant(guest, &x);
    snprintf((char *)x.address, PAGE_BYTES, "hello from domain %u", platform_domid(guest));

    struct err e = {""};
    struct gntmap *map;
    struct frametable *frames;
    struct gntmap_page page;
    if (platform_gntmap_get(dom0, platform_domid(guest), &map, &frames, &e) < 0)
        errx(1, "%s", e.text);
    int r = gntmap_map(map, gref + 1, true, &page);
    printf("dom0:  reference %u cannot be mapped: %s\n", gref + 1, grant_error_text(r));
    r = gntmap_map(map, gref, true, &page);
    if (r)
        errx(1, "reference %u cannot be mapped: %s", gref, r > 0 ? grant_error_text(r) : strerror(-r));
    printf("dom0:  reads \"%s\" at another address of the same page\n", (char *)page.address);

    r = gnttab_end(platform_gnttab(guest), gref);
    printf("guest: ends the grant: %s\n", r ? strerror(-r) : "done");
    assert(r == -EBUSY);
    gntmap_unmap(map, &page);
    printf("dom0:  unmaps it\n");
    r = gnttab_end(platform_gnttab(guest), gref);
    printf("guest: ends the grant: %s\n", r ? strerror(-r) : "done");
    assert(r == 0);

    platform_gntmap_put(dom0, platform_domid(guest));
    platform_extent_free(guest, &x);
    platform_close(dom0);
    platform_close(guest);
    free(run_dir);
    return 0;
}
