/* SPDX-License-Identifier: MIT */
#include "store/conn.h"

#include <assert.h>
#include <string.h>

#include "base/clock.h"
#include "base/span.h"

struct store_conn *store_conn_new(struct store_transport *t, struct store_engine *g, unsigned domid)
{
    struct store_conn *c = malloc(sizeof(*c));
    if (!c) {
        t->ops->close(t, -ENOMEM);
        return NULL;
    }
    memset(c, 0, offsetof(struct store_conn, in_bytes));
    c->transport = t;
    c->readable = true;
    list_init(&c->link);
    list_init(&c->turn);
    if (store_session_init(&c->session, g, domid) == 0) {
        store_domain_charge(c->session.domain, sizeof(*c));
        return c;
    }
    t->ops->close(t, -ENOMEM);
    free(c);
    return NULL;
}

static void out_drop(struct store_conn *c)
{
    c->session.domain->unsent -= c->unsent;
    store_domain_credit(c->session.domain, c->out_room);
    free(c->out);
    c->out = NULL;
    c->unsent = 0;
    c->out_at = c->out_end = c->out_room = c->first_left = 0;
}

void store_conn_close(struct store_conn *c)
{
    assert(c->transport);
    list_remove(&c->turn);
    out_drop(c);
    store_domain_credit(c->session.domain, sizeof(*c));
    store_session_deinit(&c->session);
    c->transport->ops->close(c->transport, c->broken);
    c->transport = NULL;
}

void store_conn_free(struct store_conn *c)
{
    assert(!c->transport);
    list_remove(&c->link);
    free(c);
}

/* A guest's unread messages are counted over its connections; domain 0's programs do not answer for each other. */
bool store_conn_is_stalled(const struct store_conn *c)
{
    const struct store_session *s = &c->session;
    unsigned unsent = s->domain->domid == 0 ? c->unsent : s->domain->unsent;
    return unsent + s->event_count >= s->domain->quota.outstanding;
}

bool store_conn_is_braked(const struct store_conn *c)
{
    return c->session.engine->now_ns < store_session_braked_until_ns(&c->session);
}

uint32_t store_conn_interest(const struct store_conn *c)
{
    return EPOLLIN | EPOLLRDHUP | EPOLLET | (c->out && !c->transport->ops->signals_room ? EPOLLOUT : 0u);
}

void store_conn_notice(struct store_conn *c, uint32_t events)
{
    if (c->transport->ops->acknowledge)
        c->transport->ops->acknowledge(c->transport);
    if (events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP))
        c->hung_up = true;
    if (events & ~(uint32_t)EPOLLOUT)
        c->readable = true;
    if ((events & (EPOLLHUP | EPOLLERR)) && (store_conn_is_stalled(c) || store_conn_is_braked(c)))
        c->broken = -EPIPE; /* nobody is left to read what it would have to read first */
}

/* The length of the first message in c->in_bytes, as far as that can be told, else of a header. */
static size_t in_wanted(const struct store_conn *c, struct xsd_sockmsg *header)
{
    if (c->in_end - c->in_at < sizeof(*header))
        return sizeof(*header);
    memcpy(header, c->in_bytes + c->in_at, sizeof(*header));
    return sizeof(*header) + header->len;
}

bool store_conn_has_work(const struct store_conn *c)
{
    struct xsd_sockmsg header;
    return c->readable || c->in_end - c->in_at >= in_wanted(c, &header);
}

/* ---- out ---- */

/* The peer took `n` bytes of c->out. */
static void out_advance(struct store_conn *c, size_t n)
{
    while (n >= c->first_left) {
        n -= c->first_left;
        c->out_at += c->first_left;
        c->unsent--;
        c->session.domain->unsent--;
        if (c->out_at == c->out_end) {
            out_drop(c);
            return;
        }
        struct xsd_sockmsg header;
        memcpy(&header, c->out + c->out_at, sizeof(header));
        c->first_left = sizeof(header) + header.len;
    }
    c->out_at += n;
    c->first_left -= n;
}

/* What was kept goes first. */
static void out_send(struct store_conn *c)
{
    while (c->out && !c->broken) {
        const struct iovec rest = {c->out + c->out_at, c->out_end - c->out_at};
        ssize_t n = c->transport->ops->send(c->transport, &rest, 1);
        if (n == -EAGAIN)
            return;
        if (n < 0)
            c->broken = (int)n;
        else
            out_advance(c, (size_t)n);
    }
}

/* Keeps messages, all but their first `sent` bytes, which went. */
static void out_keep(struct store_conn *c, const char *bytes, size_t length, unsigned count, size_t sent)
{
    size_t kept = c->out_end - c->out_at;
    if (c->out_room < c->out_end + length) {
        char *out = malloc(kept + length);
        if (!out) {
            c->broken = -ENOMEM; /* a reply that never comes would hang the peer */
            return;
        }
        if (c->out)
            memcpy(out, c->out + c->out_at, kept);
        free(c->out);
        store_domain_credit(c->session.domain, c->out_room);
        store_domain_charge(c->session.domain, kept + length);
        c->out = out;
        c->out_at = 0;
        c->out_end = kept;
        c->out_room = kept + length;
    }
    if (kept == 0) {
        struct xsd_sockmsg header;
        memcpy(&header, bytes, sizeof(header));
        c->first_left = sizeof(header) + header.len;
    }
    assert(c->out);
    memcpy(c->out + c->out_end, bytes, length);
    c->out_end += length;
    c->unsent += count;
    c->session.domain->unsent += count;
    if (sent)
        out_advance(c, sent);
}

/* Empties the outbox: to the peer, and what it does not take into c->out. One that is broken by what it sent, or ended,
 * has the replies to what it sent before. */
static void outbox_send(struct store_conn *c, struct store_outbox *out)
{
    size_t sent = 0;
    ssize_t n = 0;
    while (!c->out && n >= 0 && sent < out->used) {
        const struct iovec rest = {out->bytes + sent, out->used - sent};
        n = c->transport->ops->send(c->transport, &rest, 1);
        sent += (size_t)MAX(n, 0);
    }
    if (n < 0 && n != -EAGAIN && !c->broken)
        c->broken = (int)n;
    if (sent < out->used && !c->broken)
        out_keep(c, out->bytes, out->used, out->count, sent);
    out->used = 0;
    out->count = 0;
}

static void outbox_add(struct store_outbox *out, const struct store_message *m)
{
    size_t length = sizeof(m->header) + m->header.len;
    assert(length <= sizeof(out->bytes) - out->used);
    memcpy(out->bytes + out->used, m, length);
    out->used += length;
    out->count++;
}

/* Events that wait at the session, while nothing else waits: there they merge. */
static void events_take(struct store_conn *c, struct store_outbox *out)
{
    while (c->session.event_count > 0 && !c->out && !c->broken) {
        if (STORE_OUTBOX_FULL(out)) {
            outbox_send(c, out);
            continue;
        }
        char *place = out->bytes + out->used;
        struct xsd_sockmsg header = {.type = XS_WATCH_EVENT};
        header.len = (uint32_t)store_watch_next(&c->session.engine->watches, &c->session, place + sizeof(header));
        memcpy(place, &header, sizeof(header));
        out->used += sizeof(header) + header.len;
        out->count++;
    }
}

/* A peer that sends no more may yet read what it has asked for; one that has its ring reset does not. */
static void end_check(struct store_conn *c)
{
    if (c->ended && !c->broken && (!c->out || c->transport->ops->signals_room) && !store_conn_has_work(c))
        c->broken = -EPIPE;
}

void store_conn_flush(struct store_conn *c, struct store_outbox *out)
{
    out_send(c);
    events_take(c, out);
    outbox_send(c, out);
    end_check(c);
}

/* ---- in ---- */

static void in_receive(struct store_conn *c)
{
    if (c->in_at > 0) {
        memmove(c->in_bytes, c->in_bytes + c->in_at, c->in_end - c->in_at);
        c->in_end -= c->in_at;
        c->in_at = 0;
    }
    size_t room = sizeof(c->in_bytes) - c->in_end;
    ssize_t n = c->transport->ops->receive(c->transport, c->in_bytes + c->in_end, room);
    if (n <= 0) {
        c->readable = false;
        c->ended |= n == 0;
        c->broken = n == -EAGAIN ? 0 : (int)n;
        return;
    }
    c->in_end += (size_t)n;
    if ((size_t)n < room && !c->transport->ops->signals_room)
        c->readable = c->hung_up; /* drained; of the next bytes we will be told, of the end we were */
}

/* A whole request into `m`; false: none is here, or the connection is broken. */
static bool in_take(struct store_conn *c, struct store_message *m)
{
    for (;;) {
        size_t have = c->in_end - c->in_at, wanted = in_wanted(c, &m->header);
        if (have >= sizeof(m->header)) {
            c->broken = store_wire_check(&m->header);
            if (c->broken)
                return false;
            if (have >= wanted) {
                memcpy(m->payload, c->in_bytes + c->in_at + sizeof(m->header), m->header.len);
                c->in_at += wanted;
                return true;
            }
        }
        if (!c->readable)
            return false;
        in_receive(c);
        if (c->broken)
            return false;
    }
}

/* May one more request be served in this turn? The first one always; its time is not asked for. */
static bool turn_goes_on(const struct store_conn *c, unsigned served, unsigned budget, uint64_t *end_ns)
{
    if (served >= budget || c->broken || store_conn_is_stalled(c) || store_conn_is_braked(c))
        return false;
    if (served == 0 || !store_conn_has_work(c))
        return true;
    uint64_t now_ns = clock_now_ns();
    if (served == 1)
        *end_ns = now_ns + STORE_TURN_NS;
    return now_ns < *end_ns;
}

unsigned store_conn_turn(struct store_conn *c, struct store_outbox *out, unsigned budget)
{
    unsigned served = 0;
    uint64_t end_ns = 0;
    out_send(c);
    events_take(c, out);
    while (turn_goes_on(c, served, budget, &end_ns) && in_take(c, &out->in)) {
        store_ops_handle(&c->session, &out->in, &out->reply);
        if (!c->transport)
            return served; /* it ended itself */
        served++;
        outbox_add(out, &out->reply);
        events_take(c, out);
        if (STORE_OUTBOX_FULL(out))
            outbox_send(c, out);
    }
    outbox_send(c, out);
    if (c->transport->ops->turn_over)
        c->transport->ops->turn_over(c->transport);
    end_check(c);
    return served;
}

/* ---- from one program to the next ---- */

void store_conn_describe(const struct store_conn *c, struct store_stream_connection *r)
{
    r->in = c->in_bytes + c->in_at;
    r->in_bytes = c->in_end - c->in_at;
    r->out = c->out + c->out_at;
    r->out_bytes = c->out_end - c->out_at;
    r->partial_bytes = c->first_left;
}

/* How long the message at `at` is, the first perhaps only its rest; 0: it is none. */
static size_t resumed_message(const struct store_stream_connection *r, size_t at)
{
    struct xsd_sockmsg header;
    if (at == 0 && r->partial_bytes)
        return r->partial_bytes;
    if (!span_fits(at, sizeof(header), r->out_bytes))
        return 0;
    memcpy(&header, r->out + at, sizeof(header));
    return store_wire_check(&header) == 0 && span_fits(at, sizeof(header) + header.len, r->out_bytes)
               ? sizeof(header) + header.len
               : 0;
}

/* The number of messages in r->out, or -1 where it is not messages to its end. */
static int resumed_count(const struct store_stream_connection *r)
{
    int count = 0;
    size_t length;
    for (size_t at = 0; at < r->out_bytes; at += length, count++)
        if ((length = resumed_message(r, at)) == 0)
            return -1;
    return count;
}

bool store_conn_can_resume(const struct store_stream_connection *r)
{
    return r->in_bytes <= STORE_CONN_IN_BYTES && resumed_count(r) >= 0;
}

int store_conn_resume(struct store_conn *c, const struct store_stream_connection *r)
{
    assert(store_conn_can_resume(r) && !c->out);
    memcpy(c->in_bytes, r->in, r->in_bytes);
    c->in_end = r->in_bytes;
    if (r->out_bytes == 0)
        return 0;
    c->out = malloc(r->out_bytes);
    if (!c->out)
        return -ENOMEM;
    memcpy(c->out, r->out, r->out_bytes);
    c->out_end = c->out_room = r->out_bytes;
    store_domain_charge(c->session.domain, c->out_room);
    c->first_left = resumed_message(r, 0);
    c->unsent = (unsigned)resumed_count(r);
    c->session.domain->unsent += c->unsent;
    return 0;
}
