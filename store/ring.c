/* SPDX-License-Identifier: MIT */
#include "store/ring.h"

#include <assert.h>
#include <string.h>

/* The words of the page are read and written as a whole, and in order with each other: an index is the only fence. */
static uint32_t word_load(const uint32_t *word)
{
    return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

static void word_store(uint32_t *word, uint32_t value)
{
    __atomic_store_n(word, value, __ATOMIC_SEQ_CST);
}

static struct store_ring *ring_of(struct store_transport *t)
{
    return container_of(t, struct store_ring, transport);
}

static void ring_notify(struct store_ring *r)
{
    r->owes = false;
    r->link.notify(r->link.ctx);
}

bool store_ring_asked(const struct store_ring *r)
{
    return word_load(&r->link.page->connection) != XENSTORE_CONNECTED;
}

/* How many of the 1024 bytes lie between the indexes; -EPROTO where no two indexes are that far apart. */
static int ring_distance(struct store_ring *r, uint32_t producer, uint32_t consumer)
{
    uint32_t distance = producer - consumer;
    if (distance <= XENSTORE_RING_SIZE)
        return (int)distance;
    r->bad_index = true;
    return -EPROTO;
}

/* Bytes out of a queue, which ends where it begins. */
static void queue_read(void *out, const char *queue, uint32_t from, size_t length)
{
    size_t at = MASK_XENSTORE_IDX(from), first = MIN(length, XENSTORE_RING_SIZE - at);
    memcpy(out, queue + at, first);
    memcpy((char *)out + first, queue, length - first);
}

static void queue_write(char *queue, uint32_t to, const char *bytes, size_t length)
{
    size_t at = MASK_XENSTORE_IDX(to), first = MIN(length, XENSTORE_RING_SIZE - at);
    memcpy(queue + at, bytes, first);
    memcpy(queue, bytes + first, length - first);
}

static ssize_t ring_receive(struct store_transport *t, void *out, size_t room)
{
    struct store_ring *r = ring_of(t);
    struct xenstore_domain_interface *page = r->link.page;
    if (store_ring_asked(r))
        return 0;
    int there = ring_distance(r, word_load(&page->req_prod), r->req_cons);
    if (there < 0)
        return there;
    size_t taken = MIN((size_t)there, room);
    if (taken == 0)
        return -EAGAIN;
    queue_read(out, page->req, r->req_cons, taken);
    uint32_t before = r->req_cons;
    r->req_cons += (uint32_t)taken;
    word_store(&page->req_cons, r->req_cons);
    r->owes = true;
    if (word_load(&page->req_prod) - before >= XENSTORE_RING_SIZE)
        ring_notify(r); /* it may wait for room in the middle of a message */
    return (ssize_t)taken;
}

/* What is left to be sent of a vector. */
struct gather {
    const struct iovec *iov;
    unsigned count;
    size_t done; /* of iov[0] */
};

/* Puts up to `room` bytes behind rsp_prod, without telling: how many. */
static size_t gather_put(struct gather *g, struct store_ring *r, size_t room)
{
    size_t put = 0;
    while (g->count && put < room) {
        size_t n = MIN(g->iov->iov_len - g->done, room - put);
        queue_write(r->link.page->rsp, r->rsp_prod + (uint32_t)put, (const char *)g->iov->iov_base + g->done, n);
        put += n;
        g->done += n;
        if (g->done < g->iov->iov_len)
            break;
        g->iov++;
        g->count--;
        g->done = 0;
    }
    return put;
}

static ssize_t ring_send(struct store_transport *t, const struct iovec *iov, unsigned count)
{
    struct store_ring *r = ring_of(t);
    struct xenstore_domain_interface *page = r->link.page;
    struct gather g = {.iov = iov, .count = count};
    ssize_t sent = 0;
    int used = 0;
    if (store_ring_asked(r))
        return -ECONNRESET;
    while (g.count) {
        used = ring_distance(r, r->rsp_prod, word_load(&page->rsp_cons));
        if (used < 0 || used == XENSTORE_RING_SIZE)
            break;
        size_t put = gather_put(&g, r, XENSTORE_RING_SIZE - (size_t)used);
        r->rsp_prod += (uint32_t)put;
        word_store(&page->rsp_prod, r->rsp_prod);
        sent += (ssize_t)put;
    }
    if (sent || r->owes)
        ring_notify(r);
    if (used < 0)
        return used;
    return sent || !g.count ? sent : -EAGAIN;
}

static void ring_acknowledge(struct store_transport *t)
{
    struct store_ring *r = ring_of(t);
    r->link.consume(r->link.ctx);
}

/* A guest may wait for room for the rest of a message, to which no answer comes before that. */
static void ring_turn_over(struct store_transport *t)
{
    struct store_ring *r = ring_of(t);
    if (r->owes)
        ring_notify(r);
}

static uint32_t ring_error_word(const struct store_ring *r, int error)
{
    if (r->bad_index)
        return XENSTORE_ERROR_RINGIDX;
    return error == STORE_E_OVERSIZE ? XENSTORE_ERROR_PROTO : XENSTORE_ERROR_COMM;
}

static void ring_close(struct store_transport *t, int error)
{
    struct store_ring *r = ring_of(t);
    assert(r->connected);
    r->connected = false;
    if (!store_ring_asked(r))
        word_store(&r->link.page->error, ring_error_word(r, error));
    ring_notify(r);
    if (r->died)
        r->died(r);
}

static const struct store_transport_ops ring_ops = {
    .name = "ring",
    .receive = ring_receive,
    .send = ring_send,
    .acknowledge = ring_acknowledge,
    .turn_over = ring_turn_over,
    .close = ring_close,
    .signals_room = true,
};

void store_ring_init(struct store_ring *r, const struct store_ring_link *link)
{
    *r = (struct store_ring){.transport = {.ops = &ring_ops, .fd = link->fd}, .link = *link};
}

void store_ring_deinit(struct store_ring *r)
{
    assert(!r->connected);
    r->link.release(r->link.ctx);
}

struct store_transport *store_ring_connect(struct store_ring *r)
{
    struct xenstore_domain_interface *page = r->link.page;
    assert(!r->connected);
    r->connected = true;
    r->bad_index = false;
    r->req_cons = r->rsp_prod = 0;
    word_store(&page->req_cons, 0);
    word_store(&page->req_prod, 0);
    word_store(&page->rsp_cons, 0);
    word_store(&page->rsp_prod, 0);
    word_store(&page->error, XENSTORE_ERROR_NONE);
    word_store(&page->server_features, STORE_RING_FEATURES);
    word_store(&page->connection, XENSTORE_CONNECTED); /* last: the guest waits for it */
    ring_notify(r);
    return &r->transport;
}

struct store_transport *store_ring_resume(struct store_ring *r)
{
    assert(!r->connected);
    r->connected = true;
    r->bad_index = false;
    r->req_cons = word_load(&r->link.page->req_cons);
    r->rsp_prod = word_load(&r->link.page->rsp_prod);
    ring_notify(r);
    return &r->transport;
}

void store_ring_lose(struct store_ring *r)
{
    assert(!r->connected);
    word_store(&r->link.page->server_features, STORE_RING_FEATURES);
    if (!store_ring_asked(r))
        word_store(&r->link.page->error, XENSTORE_ERROR_COMM);
    ring_notify(r);
}
