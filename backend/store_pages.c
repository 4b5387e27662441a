/* SPDX-License-Identifier: MIT */
#include "backend/store_pages.h"

#include <assert.h>
#include <string.h>

#include "store/ring.h"

struct store_page {
    struct list link;
    struct store_pages *all;
    uint16_t domid;
    struct gntmap *map;
    struct gntmap_page page;
    struct evtchn channel;
};

void store_pages_init(struct store_pages *s, struct platform *p)
{
    *s = (struct store_pages){.platform = p};
    list_init(&s->all);
}

/* The page is the guest's: its channel is as good as gone where telling it fails. */
static void page_notify(void *ctx)
{
    evtchn_notify(&((struct store_page *)ctx)->channel);
}

static void page_consume(void *ctx)
{
    evtchn_consume(&((struct store_page *)ctx)->channel);
}

static void page_unmap(struct store_page *x)
{
    gntmap_unmap(x->map, &x->page);
    platform_gntmap_put(x->all->platform, x->domid);
}

static void page_release(void *ctx)
{
    struct store_page *x = ctx;
    platform_evtchn_close(x->all->platform, &x->channel);
    page_unmap(x);
    list_remove(&x->link);
    free(x);
}

/* What the peer's grant is refused for, as what the store answers the toolstack. */
static int grant_refused(const struct store_page *x, int code, struct err *e)
{
    if (code < 0)
        return err_set(e, code, "cannot map the store ring of domain %u: %s", x->domid, strerror(-code));
    return err_set(e, code == GRANT_E_BAD_REF || code == GRANT_E_TYPE ? -ENOENT : -EACCES,
                   "domain %u shares no page as its store ring, which is reference %u for domain 0, writable: %s",
                   x->domid, GNTTAB_RESERVED_XENSTORE, grant_error_text(code));
}

static int page_map(struct store_page *x, struct err *e)
{
    struct frametable *frames;
    int r = platform_gntmap_get(x->all->platform, x->domid, &x->map, &frames, e);
    if (r < 0)
        return r;
    r = gntmap_map_reserved(x->map, GNTTAB_RESERVED_XENSTORE, true, &x->page);
    if (r == 0)
        return 0;
    platform_gntmap_put(x->all->platform, x->domid);
    return grant_refused(x, r, e);
}

static int page_open(void *ctx, unsigned domid, uint64_t gfn, uint32_t port, struct store_ring_link *out, struct err *e)
{
    struct store_pages *s = ctx;
    _cleanup_free_ struct store_page *x = calloc(1, sizeof(*x));
    (void)gfn;
    if (!x)
        return err_set(e, -ENOMEM, "no memory for the store ring of domain %u", domid);
    assert(domid <= PLATFORM_DOMID_MAX);
    x->all = s;
    x->domid = (uint16_t)domid;
    int r = page_map(x, e);
    if (r < 0)
        return r;
    r = platform_evtchn_bind_interdomain(s->platform, x->domid, port, &x->channel, e);
    if (r < 0) {
        page_unmap(x);
        return err_prefix(e, r, "port %u of domain %u, for its store ring", port, domid);
    }
    list_append(&s->all, &x->link);
    *out = (struct store_ring_link){.page = (struct xenstore_domain_interface *)x->page.address,
                                    .fd = x->channel.wait_fd,
                                    .notify = page_notify,
                                    .consume = page_consume,
                                    .release = page_release,
                                    .ctx = x};
    take_ptr(x);
    return 0;
}

struct store_ring_source store_pages_source(struct store_pages *s)
{
    return (struct store_ring_source){.ctx = s, .open = page_open};
}

bool store_pages_lost(const struct store_pages *s, uint16_t domid, uint32_t instance)
{
    const struct store_page *x;
    uint32_t whose;
    list_foreach (x, &s->all, link) {
        if (x->domid == domid)
            return x->page.extent->instance == instance ||
                   platform_evtchn_status(s->platform, x->channel.port, &whose) != PLATFORM_PORT_INTERDOMAIN;
    }
    return false;
}
