/* SPDX-License-Identifier: MIT */
#include "store/rings.h"

#include <string.h>

struct ring_seat {
    struct store_ring ring;
    struct loop_source source; /* of its event channel, while it is dead */
    struct list died;
    struct store_rings *rings;
    unsigned domid;
};

void store_rings_init(struct store_rings *rs, const struct store_ring_source *source, struct store_server *s,
                      struct loop *loop)
{
    *rs = (struct store_rings){.server = s, .loop = loop};
    if (source)
        rs->source = *source;
    list_init(&rs->died);
}

void store_rings_deinit(struct store_rings *rs)
{
    struct ring_seat *seat;
    while (rs->by_domid.count) {
        unsigned domid = 0;
        map_foreach (&rs->by_domid, i, seat)
            domid = seat->domid;
        store_rings_close(rs, domid);
    }
    map_deinit(&rs->by_domid);
}

bool store_rings_has(const struct store_rings *rs, unsigned domid)
{
    return map_get(&rs->by_domid, domid) != NULL;
}

/* In the middle of the end of its connection: what there is to do is done by store_rings_settle(). */
static void ring_died(struct store_ring *r)
{
    struct ring_seat *seat = container_of(r, struct ring_seat, ring);
    if (r->bad_index)
        log_peer(&seat->rings->limiter,
                 "store: domain %u wrote an index into its ring that cannot be: disconnected until it asks again",
                 seat->domid);
    list_remove(&seat->died);
    list_append(&seat->rings->died, &seat->died);
}

static int seat_connect(struct ring_seat *seat)
{
    loop_remove(seat->rings->loop, &seat->source);
    seat->source = (struct loop_source){0};
    return store_server_adopt(seat->rings->server, store_ring_connect(&seat->ring), seat->domid);
}

/* An event of a dead ring. */
static void seat_ready(struct loop_source *source, uint32_t events)
{
    (void)events;
    struct ring_seat *seat = container_of(source, struct ring_seat, source);
    seat->ring.link.consume(seat->ring.link.ctx);
    if (store_ring_asked(&seat->ring))
        seat_connect(seat);
}

/* A ring that died, and was perhaps asked for already. */
static void seat_settle(struct ring_seat *seat)
{
    if (store_ring_asked(&seat->ring) && seat_connect(seat) == 0)
        return;
    list_remove(&seat->died); /* connecting that failed put it there again */
    int r = loop_add(seat->rings->loop, &seat->source, seat->ring.link.fd, EPOLLIN, seat_ready);
    if (r < 0)
        log_error("store: the ring of domain %u is not listened to any more: %s", seat->domid, strerror(-r));
}

void store_rings_settle(struct store_rings *rs)
{
    while (!list_empty(&rs->died)) {
        struct ring_seat *seat = list_entry(rs->died.next, struct ring_seat, died);
        list_remove(&seat->died);
        seat_settle(seat);
    }
}

/* The seat of a ring that the source has, dead. */
static int seat_new(struct store_rings *rs, unsigned domid, uint64_t gfn, uint32_t port, struct ring_seat **out,
                    struct err *e)
{
    struct store_ring_link link;
    _cleanup_free_ struct ring_seat *seat = malloc(sizeof(*seat));
    if (!seat)
        return err_set(e, -ENOMEM, "no memory for its ring");
    int r = rs->source.open(rs->source.ctx, domid, gfn, port, &link, e);
    if (r < 0)
        return r;
    *seat = (struct ring_seat){.rings = rs, .domid = domid};
    list_init(&seat->died);
    store_ring_init(&seat->ring, &link);
    seat->ring.died = ring_died;
    r = map_put(&rs->by_domid, domid, seat);
    if (r < 0) {
        store_ring_deinit(&seat->ring);
        return err_set(e, r, "no memory for its ring");
    }
    *out = take_ptr(seat);
    return 0;
}

int store_rings_open(struct store_rings *rs, unsigned domid, uint64_t gfn, uint32_t port, bool lost, struct err *e)
{
    struct ring_seat *seat;
    store_rings_close(rs, domid);
    if (port == 0 || !rs->source.open)
        return 0;
    int r = seat_new(rs, domid, gfn, port, &seat, e);
    if (r < 0)
        return r;
    if (lost) {
        store_ring_lose(&seat->ring);
        list_append(&rs->died, &seat->died);
        return 0;
    }
    r = seat_connect(seat);
    if (r == 0)
        return 0;
    store_rings_close(rs, domid);
    return err_set(e, r, "no connection for its ring: %s", strerror(-r));
}

int store_rings_resume(struct store_rings *rs, unsigned domid, uint64_t gfn, uint32_t port,
                       struct store_transport **out, struct err *e)
{
    struct ring_seat *seat;
    if (!rs->source.open)
        return err_set(e, -ENOTSUP, "domain %u has a ring, and this store has no rings", domid);
    int r = seat_new(rs, domid, gfn, port, &seat, e);
    if (r == 0)
        *out = store_ring_resume(&seat->ring);
    return r;
}

void store_rings_close(struct store_rings *rs, unsigned domid)
{
    struct ring_seat *seat = map_remove(&rs->by_domid, domid);
    if (!seat)
        return;
    if (seat->ring.connected)
        store_server_end(rs->server, &seat->ring.transport);
    list_remove(&seat->died);
    loop_remove(rs->loop, &seat->source);
    store_ring_deinit(&seat->ring);
    free(seat);
}
