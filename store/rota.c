/* SPDX-License-Identifier: MIT */
#include "store/rota.h"

#include <assert.h>

#include "base/clock.h"

static void conn_end(struct store_conn *c)
{
    struct store_rota *r = c->rota;
    loop_remove(r->loop, &c->source);
    store_conn_close(c);
    list_remove(&c->link);
    list_append(&r->closed, &c->link);
    r->connections--;
}

static void conn_log_end(struct store_conn *c)
{
    unsigned domid = c->session.domain->domid;
    if (c->broken == STORE_E_UNREAD_EVENTS)
        log_peer(&c->rota->limiter, "store: domain %u does not read its watch events: disconnected", domid);
    else if (c->broken == STORE_E_OVERSIZE)
        log_peer(&c->rota->limiter,
                 "store: domain %u sent a header with a payload of %u bytes, at most %u may be: disconnected", domid,
                 c->rota->outbox.in.header.len, XENSTORE_PAYLOAD_MAX);
}

static void timer_want(struct store_rota *r, uint64_t due_ns)
{
    if (r->timer_due_ns && r->timer_due_ns <= due_ns)
        return;
    uint64_t now_ns = r->engine->now_ns, wait_ns = due_ns > now_ns ? due_ns - now_ns : 0;
    if (loop_timer_set(&r->timer, wait_ns / CLOCK_NS_PER_MS + 1, 0) == 0)
        r->timer_due_ns = due_ns;
}

/* Into the queue where it belongs, unless it stands in one. Domain 0's stalled ones wait for nobody but their peer. */
static void conn_queue(struct store_conn *c)
{
    struct store_rota *r = c->rota;
    struct store_domain *domain = c->session.domain;
    if (!list_empty(&c->turn) || (!c->broken && !store_conn_has_work(c)))
        return;
    if (c->broken) {
        list_append(&r->ready, &c->turn);
    } else if (store_conn_is_stalled(c)) {
        if (domain->domid != 0)
            list_append(&domain->stalled, &c->turn);
    } else if (store_conn_is_braked(c)) {
        list_append(&r->braked, &c->turn);
        timer_want(r, domain->braked_until_ns);
    } else {
        list_append(&r->ready, &c->turn);
    }
}

/* All that stand in a queue are looked at once more. */
static void queue_again(struct list *queue)
{
    const struct list *last = queue->prev;
    for (bool more = !list_empty(queue); more;) {
        struct store_conn *c = list_entry(queue->next, struct store_conn, turn);
        more = &c->turn != last;
        list_remove(&c->turn);
        conn_queue(c);
    }
}

/* After anything that may have changed what a connection waits for. */
static void conn_settle(struct store_conn *c)
{
    struct store_rota *r = c->rota;
    struct store_domain *domain = c->session.domain;
    if (c->session.overflowed && !c->broken)
        c->broken = STORE_E_UNREAD_EVENTS;
    if (c->broken) {
        r->slow += c->broken == STORE_E_UNREAD_EVENTS;
        conn_log_end(c);
        domain->connections++; /* outlives its last connection until its others were looked at */
        conn_end(c);
        queue_again(&domain->stalled);
        domain->connections--;
        store_domain_put(&r->engine->domains, domain);
        return;
    }
    uint32_t interest = store_conn_interest(c);
    if (interest != c->armed && loop_modify(r->loop, &c->source, interest) == 0)
        c->armed = interest;
    conn_queue(c);
    if (!list_empty(&domain->stalled) && domain->unsent < domain->quota.outstanding)
        queue_again(&domain->stalled);
}

static void conn_ready(struct loop_source *source, uint32_t events)
{
    struct store_conn *c = container_of(source, struct store_conn, source);
    store_conn_notice(c, events);
    if (c->broken || c->out) /* it can go on though it stands elsewhere */
        list_remove(&c->turn);
    if (list_empty(&c->turn) && c->out)
        list_append(&c->rota->ready, &c->turn);
    conn_queue(c);
}

static void timer_ready(struct loop_source *source, uint32_t events)
{
    (void)events;
    struct store_rota *r = container_of(source, struct store_rota, timer);
    loop_timer_ack(source);
    r->timer_due_ns = 0;
    queue_again(&r->braked);
}

static unsigned conn_turn(struct store_conn *c)
{
    struct store_rota *r = c->rota;
    const struct store_domain *domain = c->session.domain;
    unsigned share = domain->domid == 0 ? 1 : domain->connections;
    unsigned served = store_conn_turn(c, &r->outbox, MAX(STORE_TURN_REQUESTS / share, 1));
    if (c->transport)
        conn_settle(c);
    return MAX(served, 1);
}

void store_rota_tell(struct store_rota *r)
{
    while (!list_empty(&r->engine->marked)) {
        struct store_session *session = list_entry(r->engine->marked.next, struct store_session, marked);
        struct store_conn *c = container_of(session, struct store_conn, session);
        list_remove(&session->marked);
        if (!session->overflowed)
            store_conn_flush(c, &r->outbox);
        conn_settle(c);
    }
}

unsigned store_rota_round(struct store_rota *r, unsigned budget)
{
    unsigned used = 0;
    list_append(&r->ready, &r->round_end);
    while (r->ready.next != &r->round_end && used < budget) {
        struct store_conn *c = list_entry(r->ready.next, struct store_conn, turn);
        list_remove(&c->turn);
        used += conn_turn(c);
    }
    list_remove(&r->round_end);
    store_rota_tell(r);
    return used;
}

int store_rota_take(struct store_rota *r, struct store_transport *t, unsigned domid, struct store_conn **out)
{
    int fd = t->fd;
    struct store_conn *c = store_conn_new(t, r->engine, domid);
    if (!c)
        return -ENOMEM;
    c->rota = r;
    c->armed = store_conn_interest(c);
    list_append(&r->open, &c->link);
    r->connections++;
    int error = loop_add(r->loop, &c->source, fd, c->armed, conn_ready);
    if (error) {
        c->broken = error;
        conn_end(c);
    } else if (out) {
        *out = c;
    }
    return error;
}

void store_rota_settle(struct store_rota *r)
{
    struct store_conn *c, *next;
    list_foreach_safe (c, next, &r->open, link)
        conn_settle(c);
    store_rota_tell(r);
}

void store_rota_end(struct store_rota *r, const struct store_transport *t)
{
    struct store_conn *c, *next;
    list_foreach_safe (c, next, &r->open, link) {
        if (c->transport != t)
            continue;
        c->broken = -ECANCELED;
        conn_settle(c);
    }
}

void store_rota_end_domain(struct store_rota *r, unsigned domid)
{
    struct store_conn *c, *next;
    list_foreach_safe (c, next, &r->open, link) {
        if (c->session.domain->domid == domid)
            conn_end(c);
    }
}

void store_rota_bury(struct store_rota *r)
{
    struct store_conn *c, *next;
    list_foreach_safe (c, next, &r->closed, link)
        store_conn_free(c);
}

int store_rota_init(struct store_rota *r, struct loop *l, struct store_engine *g)
{
    r->loop = l;
    r->engine = g;
    list_init(&r->open);
    list_init(&r->closed);
    list_init(&r->ready);
    list_init(&r->round_end);
    list_init(&r->braked);
    return loop_timer_add(l, &r->timer, 0, 0, timer_ready);
}

void store_rota_deinit(struct store_rota *r)
{
    struct store_conn *c, *next;
    list_foreach_safe (c, next, &r->open, link)
        conn_end(c);
    store_rota_bury(r);
    loop_timer_remove(r->loop, &r->timer);
}
