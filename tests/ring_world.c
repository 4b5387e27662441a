/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "tests/ring_world.h"

static void offer_notify(void *ctx)
{
    evtchn_notify(&((struct ring_offer *)ctx)->channel);
}

static void offer_consume(void *ctx)
{
    evtchn_consume(&((struct ring_offer *)ctx)->channel);
}

static void offer_release(void *ctx)
{
    ((struct ring_offer *)ctx)->released++;
}

static int offer_open(void *ctx, unsigned domid, uint64_t gfn, uint32_t port, struct store_ring_link *out,
                      struct err *e)
{
    struct ring_world *w = ctx;
    (void)gfn;
    for (unsigned i = 0; i < w->offers; i++) {
        struct ring_offer *o = &w->offer[i];
        if (o->domid != domid || o->port != port)
            continue;
        o->opened++;
        *out = (struct store_ring_link){.page = o->guest.page,
                                        .fd = o->channel.wait_fd,
                                        .notify = offer_notify,
                                        .consume = offer_consume,
                                        .release = offer_release,
                                        .ctx = o};
        return 0;
    }
    return err_set(e, -ENOENT, "domain %u offers no port %u", domid, port);
}

void ring_world_start(struct ring_world *w)
{
    ring_world_start_with(w, NULL);
}

void ring_world_start_with(struct ring_world *w, const char *journal)
{
    memset(w, 0, sizeof(*w));
    const struct store_ring_source source = {.ctx = w, .open = offer_open};
    kit_server_start(&w->kit, &(struct store_options){.rings = &source, .journal = journal});
    w->dom0 = kit_connect(&w->kit, 0);
}

void ring_world_stop(struct ring_world *w)
{
    close(w->dom0);
    kit_server_stop(&w->kit);
    for (unsigned i = 0; i < w->offers; i++) {
        struct ring_offer *o = &w->offer[i];
        assert_int_equal(o->opened, o->released);
        evtchn_deinit(&o->channel);
        evtchn_deinit(&o->guest.channel);
        free(o->guest.page);
    }
}

struct ring_offer *ring_world_offer(struct ring_world *w, unsigned domid, uint32_t port)
{
    assert_true(w->offers < RING_WORLD_MAX);
    struct ring_offer *o = &w->offer[w->offers++];
    int server_wait, server_notify, guest_wait, guest_notify;
    assert_int_equal(evtchn_direction_open(&server_wait, &guest_notify), 0);
    assert_int_equal(evtchn_direction_open(&guest_wait, &server_notify), 0);
    *o = (struct ring_offer){.domid = domid, .port = port};
    evtchn_init(&o->channel, port, server_wait, server_notify);
    evtchn_init(&o->guest.channel, port, guest_wait, guest_notify);
    o->guest.page = calloc(1, PAGE_BYTES);
    assert_non_null(o->guest.page);
    o->guest.page->connection = XENSTORE_RECONNECT;
    return o;
}

struct kit_reply ring_world_introduce(struct ring_world *w, unsigned domid, uint32_t port)
{
    char payload[64];
    int n = snprintf(payload, sizeof(payload), "%u%c1%c%u", domid, '\0', '\0', port);
    return kit_exchange(w->dom0, XS_INTRODUCE, 0, payload, (size_t)n + 1);
}

struct ring_guest *ring_world_guest(struct ring_world *w, unsigned domid)
{
    struct ring_offer *o = ring_world_offer(w, domid, 100 + domid);
    kit_expect_ok(ring_world_introduce(w, domid, o->port));
    assert_true(ring_guest_connected(&o->guest));
    char text[64];
    int n = snprintf(text, sizeof(text), "/local/domain/%u", domid);
    kit_expect_ok(kit_exchange(w->dom0, XS_MKDIR, 0, text, (size_t)n + 1));
    n = snprintf(text, sizeof(text), "/local/domain/%u%cn%u", domid, '\0', domid);
    kit_expect_ok(kit_exchange(w->dom0, XS_SET_PERMS, 0, text, (size_t)n + 1));
    return &o->guest;
}
