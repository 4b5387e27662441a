/* SPDX-License-Identifier: MIT */
#include "tests/ring_guest.h"

#include <string.h>

static uint32_t load(const uint32_t *word)
{
    return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

static void store(uint32_t *word, uint32_t value)
{
    __atomic_store_n(word, value, __ATOMIC_SEQ_CST);
}

static int give(struct ring_guest *g, struct err *e)
{
    int r = platform_extent_alloc(g->platform, 0, 1, false, &g->extent, e);
    if (r < 0)
        return r;
    g->page = (struct xenstore_domain_interface *)g->extent.address;
    store(&g->page->connection, XENSTORE_RECONNECT);
    r = gnttab_grant_reserved(platform_gnttab(g->platform), GNTTAB_RESERVED_XENSTORE, 0, g->extent.base_gfn, false, e);
    return r < 0 ? r : platform_evtchn_alloc_unbound(g->platform, 0, &g->channel, e);
}

int ring_guest_open(struct ring_guest *g, const char *domain_dir, struct err *e)
{
    const struct platform_where where = {.domain_dir = domain_dir};
    *g = (struct ring_guest){.channel = EVTCHN_NONE};
    int r = platform_open(NULL, &where, NULL, &g->platform, e);
    if (r < 0)
        return r;
    r = give(g, e);
    if (r < 0)
        ring_guest_close(g);
    return r;
}

void ring_guest_close(struct ring_guest *g)
{
    if (g->channel.wait_fd >= 0)
        platform_evtchn_close(g->platform, &g->channel);
    platform_close(g->platform);
}

int ring_guest_other_port(struct ring_guest *g, struct err *e)
{
    struct evtchn old = g->channel;
    int r = platform_evtchn_alloc_unbound(g->platform, 0, &g->channel, e);
    platform_evtchn_close(g->platform, &old);
    return r;
}

/* Something may have changed. */
static bool await(struct ring_guest *g)
{
    return evtchn_wait(&g->channel, RING_GUEST_PATIENCE_MS) == 0;
}

void ring_guest_ask(struct ring_guest *g)
{
    store(&g->page->connection, XENSTORE_RECONNECT);
    evtchn_notify(&g->channel);
}

bool ring_guest_connected(struct ring_guest *g)
{
    while (load(&g->page->connection) != XENSTORE_CONNECTED)
        if (!await(g))
            return false;
    return load(&g->page->error) == XENSTORE_ERROR_NONE;
}

uint32_t ring_guest_await_error(struct ring_guest *g)
{
    while (load(&g->page->error) == XENSTORE_ERROR_NONE)
        if (!await(g))
            return XENSTORE_ERROR_NONE;
    return load(&g->page->error);
}

bool ring_guest_write(struct ring_guest *g, const void *bytes, size_t length)
{
    const char *from = bytes;
    while (length) {
        uint32_t prod = load(&g->page->req_prod), room = XENSTORE_RING_SIZE - (prod - load(&g->page->req_cons));
        if (load(&g->page->error) != XENSTORE_ERROR_NONE)
            return false;
        if (room == 0) {
            if (!await(g))
                return false;
            continue;
        }
        uint32_t n = (uint32_t)MIN(length, MIN(room, XENSTORE_RING_SIZE - MASK_XENSTORE_IDX(prod)));
        memcpy(g->page->req + MASK_XENSTORE_IDX(prod), from, n);
        store(&g->page->req_prod, prod + n);
        evtchn_notify(&g->channel);
        from += n;
        length -= n;
    }
    return true;
}

static bool take(struct ring_guest *g, void *bytes, size_t length)
{
    char *to = bytes;
    while (length) {
        uint32_t cons = load(&g->page->rsp_cons), there = load(&g->page->rsp_prod) - cons;
        if (load(&g->page->error) != XENSTORE_ERROR_NONE)
            return false;
        if (there == 0) {
            if (!await(g))
                return false;
            continue;
        }
        uint32_t n = (uint32_t)MIN(length, MIN(there, XENSTORE_RING_SIZE - MASK_XENSTORE_IDX(cons)));
        memcpy(to, g->page->rsp + MASK_XENSTORE_IDX(cons), n);
        store(&g->page->rsp_cons, cons + n);
        if (load(&g->page->rsp_prod) - cons >= XENSTORE_RING_SIZE)
            evtchn_notify(&g->channel);
        to += n;
        length -= n;
    }
    return true;
}

static bool send_request(struct ring_guest *g, uint32_t type, uint32_t tx, const void *payload, size_t length)
{
    const struct xsd_sockmsg header = {.type = type, .req_id = 7, .tx_id = tx, .len = (uint32_t)length};
    return ring_guest_write(g, &header, sizeof(header)) && ring_guest_write(g, payload, length);
}

bool ring_guest_receive(struct ring_guest *g, struct store_message *out)
{
    return take(g, &out->header, sizeof(out->header)) && out->header.len <= sizeof(out->payload) &&
           take(g, out->payload, out->header.len);
}

bool ring_guest_exchange(struct ring_guest *g, uint32_t type, uint32_t tx, const void *payload, size_t length,
                         struct store_message *out)
{
    if (!send_request(g, type, tx, payload, length))
        return false;
    do
        if (!ring_guest_receive(g, out))
            return false;
    while (out->header.type == XS_WATCH_EVENT);
    return true;
}
