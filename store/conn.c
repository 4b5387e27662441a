/* SPDX-License-Identifier: MIT */
#include "store/conn.h"

#include <assert.h>
#include <string.h>

struct store_conn_packet {
    struct list link;
    size_t length, sent;
    char bytes[];
};

struct store_conn *store_conn_new(struct store_transport *t, struct store_engine *g, unsigned domid)
{
    struct store_conn *c = malloc(sizeof(*c));
    if (!c) {
        t->ops->close(t, -ENOMEM);
        return NULL;
    }
    memset(c, 0, offsetof(struct store_conn, in));
    c->transport = t;
    list_init(&c->link);
    list_init(&c->unsent);
    if (store_session_init(&c->session, g, domid) == 0)
        return c;
    t->ops->close(t, -ENOMEM);
    free(c);
    return NULL;
}

void store_conn_close(struct store_conn *c)
{
    assert(c->transport);
    store_session_deinit(&c->session);
    struct store_conn_packet *packet, *next;
    list_foreach_safe (packet, next, &c->unsent, link)
        free(packet);
    list_init(&c->unsent);
    c->transport->ops->close(c->transport, c->broken);
    c->transport = NULL;
}

void store_conn_free(struct store_conn *c)
{
    assert(!c->transport);
    list_remove(&c->link);
    free(c);
}

bool store_conn_may_read(const struct store_conn *c)
{
    const struct store_engine *g = c->session.engine;
    return c->unsent_count + c->session.event_count < c->session.domain->quota.outstanding &&
           g->now_ns >= store_session_braked_until_ns(&c->session);
}

uint32_t store_conn_interest(const struct store_conn *c)
{
    bool room_is_news = c->unsent_count && c->transport->ops->signals_room;
    return (store_conn_may_read(c) || room_is_news ? EPOLLIN : 0u) | (c->unsent_count && !room_is_news ? EPOLLOUT : 0u);
}

static void packet_queue(struct store_conn *c, const struct store_message *m)
{
    size_t length = sizeof(m->header) + m->header.len;
    struct store_conn_packet *packet = malloc(sizeof(*packet) + length);
    if (!packet) {
        c->broken = -ENOMEM; /* a reply that never comes would hang the peer */
        return;
    }
    *packet = (struct store_conn_packet){.length = length};
    memcpy(packet->bytes, m, length);
    list_append(&c->unsent, &packet->link);
    c->unsent_count++;
}

/* One packet; false where the socket takes no more, or is broken. */
static bool packet_send(struct store_conn *c, struct store_conn_packet *packet)
{
    while (packet->sent < packet->length) {
        const struct iovec rest = {packet->bytes + packet->sent, packet->length - packet->sent};
        ssize_t n = c->transport->ops->send(c->transport, &rest, 1);
        if (n < 0) {
            c->broken = n == -EAGAIN ? 0 : (int)n;
            return false;
        }
        packet->sent += (size_t)n;
    }
    list_remove(&packet->link);
    free(packet);
    c->unsent_count--;
    return true;
}

void store_conn_flush(struct store_conn *c)
{
    struct store_message event;
    while (!c->broken) {
        if (!list_empty(&c->unsent)) {
            if (!packet_send(c, list_entry(c->unsent.next, struct store_conn_packet, link)))
                return;
            continue;
        }
        size_t length = store_watch_next(&c->session.engine->watches, &c->session, event.payload);
        if (length == 0)
            return;
        event.header = (struct xsd_sockmsg){.type = XS_WATCH_EVENT, .len = (uint32_t)length};
        packet_queue(c, &event);
    }
}

/* Reads until `c->have` is `target`. 1: it is, 0: not yet, or broken. */
static int fill(struct store_conn *c, size_t target)
{
    while (c->have < target) {
        ssize_t n = c->transport->ops->receive(c->transport, (char *)&c->in + c->have, target - c->have);
        if (n == -EAGAIN)
            return 0;
        if (n <= 0) {
            c->broken = n < 0 ? (int)n : -EPIPE;
            return 0;
        }
        c->have += (size_t)n;
    }
    return 1;
}

int store_conn_serve(struct store_conn *c)
{
    struct store_message reply;
    if (!fill(c, sizeof(c->in.header)))
        return 0;
    c->broken = store_wire_check(&c->in.header);
    if (c->broken || !fill(c, sizeof(c->in.header) + c->in.header.len))
        return 0;
    c->have = 0;
    store_ops_handle(&c->session, &c->in, &reply);
    packet_queue(c, &reply);
    return 1;
}
