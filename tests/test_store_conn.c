/* SPDX-License-Identifier: MIT */
/* One connection over a transport whose bytes come and go as a test wants them to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <stdio.h>

#include "store/conn.h"
#include "tests/storekit.h"

#define BYTES_MAX 200000

/* A peer in the same thread: what it has sent, and what it was sent. */
struct peer {
    struct store_transport transport;
    char sent[BYTES_MAX], got[BYTES_MAX];
    size_t sent_end, sent_at, got_end, read_at;
    size_t chunk;  /* bytes at a time, either way; 0: as many as there are */
    uint64_t luck; /* not 0: a random number of them, or none */
    size_t room;   /* what it will yet be sent, as it reads no more */
    bool ends;     /* behind what it has sent */
    bool closed;
};

static struct peer *peer_of(struct store_transport *t)
{
    return container_of(t, struct peer, transport);
}

static size_t peer_share(struct peer *p, size_t length)
{
    if (p->luck)
        return kit_random(&p->luck, (uint32_t)MIN(length, 700) + 1);
    return p->chunk ? MIN(p->chunk, length) : length;
}

static ssize_t peer_receive(struct store_transport *t, void *out, size_t room)
{
    struct peer *p = peer_of(t);
    size_t n = peer_share(p, MIN(p->sent_end - p->sent_at, room));
    if (n == 0)
        return p->ends && p->sent_at == p->sent_end ? 0 : -EAGAIN;
    memcpy(out, p->sent + p->sent_at, n);
    p->sent_at += n;
    return (ssize_t)n;
}

static ssize_t peer_send(struct store_transport *t, const struct iovec *iov, unsigned count)
{
    struct peer *p = peer_of(t);
    assert_int_equal(count, 1);
    size_t n = peer_share(p, MIN(iov->iov_len, p->room));
    if (n == 0)
        return -EAGAIN;
    assert_true(p->got_end + n <= BYTES_MAX);
    memcpy(p->got + p->got_end, iov->iov_base, n);
    p->got_end += n;
    p->room -= n;
    return (ssize_t)n;
}

static void peer_close(struct store_transport *t, int error)
{
    (void)error;
    peer_of(t)->closed = true;
}

static const struct store_transport_ops peer_ops = {
    .name = "peer", .receive = peer_receive, .send = peer_send, .close = peer_close};

struct world {
    struct store_engine g;
    struct store_outbox out;
    struct peer peer;
    struct store_conn *conn;
};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    assert_non_null(w);
    assert_int_equal(store_engine_init(&w->g, NULL, 1), 0);
    w->peer.transport = (struct store_transport){.ops = &peer_ops, .fd = -1};
    w->peer.room = SIZE_MAX;
    *state = w;
    return 0;
}

static struct store_conn *connect_as(struct world *w, unsigned domid)
{
    w->conn = store_conn_new(&w->peer.transport, &w->g, domid);
    assert_non_null(w->conn);
    return w->conn;
}

static int teardown(void **state)
{
    struct world *w = *state;
    store_conn_close(w->conn);
    assert_true(w->peer.closed);
    store_conn_free(w->conn);
    struct store_domain *domain;
    map_foreach (&w->g.domains.by_domid, i, domain) {
        assert_int_equal(domain->bytes, 0);
        assert_int_equal(domain->unsent, 0);
    }
    store_engine_deinit(&w->g);
    free(w);
    return 0;
}

static void peer_says(struct peer *p, uint32_t type, uint32_t id, const void *payload, size_t length)
{
    struct xsd_sockmsg header = {.type = type, .req_id = id, .len = (uint32_t)length};
    assert_true(p->sent_end + sizeof(header) + length <= BYTES_MAX);
    memcpy(p->sent + p->sent_end, &header, sizeof(header));
    memcpy(p->sent + p->sent_end + sizeof(header), payload, length);
    p->sent_end += sizeof(header) + length;
}

/* The header of the next message that the peer was sent whole; false: there is none. */
static bool peer_hears(struct peer *p, struct xsd_sockmsg *header)
{
    if (p->got_end - p->read_at < sizeof(*header))
        return false;
    memcpy(header, p->got + p->read_at, sizeof(*header));
    if (p->got_end - p->read_at < sizeof(*header) + header->len)
        return false;
    p->read_at += sizeof(*header) + header->len;
    return true;
}

static void expect_heard(struct peer *p, uint32_t type, uint32_t id)
{
    struct xsd_sockmsg header;
    assert_true(peer_hears(p, &header));
    assert_int_equal(header.type, type);
    assert_int_equal(header.req_id, id);
}

static void expect_silence(struct peer *p)
{
    struct xsd_sockmsg header;
    assert_false(peer_hears(p, &header));
}

/* As the rota does, until nothing more happens. */
static void serve_all(struct world *w, unsigned budget)
{
    size_t before;
    uint64_t requests;
    unsigned idle = 0;
    while (idle < 50 && !w->conn->broken) {
        before = w->peer.got_end + w->peer.sent_at;
        requests = w->g.requests;
        store_conn_notice(w->conn, EPOLLIN);
        store_conn_turn(w->conn, &w->out, budget);
        assert_int_equal(w->out.used, 0);
        idle = before == w->peer.got_end + w->peer.sent_at && requests == w->g.requests ? idle + 1 : 0;
    }
}

/* Requests of all sizes, right and wrong. */
static void script(struct peer *p, uint64_t seed)
{
    static char payload[XENSTORE_PAYLOAD_MAX];
    static const uint32_t types[] = {XS_WRITE, XS_WRITE, XS_READ, XS_READ, XS_DIRECTORY, XS_RM, XS_GET_PERMS, 77};
    for (unsigned i = 0; i < 300; i++) {
        uint32_t type = types[kit_random(&seed, ARRAY_SIZE(types))];
        int n = snprintf(payload, sizeof(payload), "/a/%u", kit_random(&seed, 5));
        size_t length = (size_t)n + 1;
        if (type == XS_WRITE) {
            size_t value = kit_random(&seed, 10) == 0 ? XENSTORE_PAYLOAD_MAX - length : kit_random(&seed, 40);
            memset(payload + length, 'v', value);
            length += value;
        }
        if (kit_random(&seed, 20) == 0)
            length = kit_random(&seed, (uint32_t)length + 1);
        peer_says(p, type, i, payload, length);
    }
}

static void test_however_the_bytes_are_cut_the_answers_are_the_same(void **state)
{
    struct world *w = *state;
    static char expected[BYTES_MAX];
    size_t expected_bytes = 0;
    for (unsigned round = 0; round < 40; round++) {
        if (round > 0) {
            teardown((void **)&w);
            setup((void **)&w);
            *state = w;
        }
        w->peer.chunk = round % 8;
        w->peer.luck = round < 8 ? 0 : round;
        connect_as(w, 0);
        script(&w->peer, 42);
        serve_all(w, 1 + round % 16);
        assert_int_equal(w->conn->broken, 0);
        assert_int_equal(w->g.requests, 300);
        if (round == 0) {
            expected_bytes = w->peer.got_end;
            memcpy(expected, w->peer.got, expected_bytes);
        }
        assert_int_equal(w->peer.got_end, expected_bytes);
        assert_memory_equal(w->peer.got, expected, expected_bytes);
    }
}

static void test_an_event_goes_behind_its_own_reply_and_before_the_next(void **state)
{
    struct world *w = *state;
    connect_as(w, 0);
    peer_says(&w->peer, XS_WATCH, 1, "/a\0t", 5);
    peer_says(&w->peer, XS_WRITE, 2, "/a/b\0v", 6);
    peer_says(&w->peer, XS_READ, 3, "/a/b", 5);
    peer_says(&w->peer, XS_WRITE, 4, "/a/b\0v", 6);
    serve_all(w, 16);
    expect_heard(&w->peer, XS_WATCH, 1);
    expect_heard(&w->peer, XS_WATCH_EVENT, 0);
    expect_heard(&w->peer, XS_WRITE, 2);
    expect_heard(&w->peer, XS_WATCH_EVENT, 0);
    expect_heard(&w->peer, XS_READ, 3);
    expect_heard(&w->peer, XS_WRITE, 4);
    expect_heard(&w->peer, XS_WATCH_EVENT, 0);
    expect_silence(&w->peer);
}

static void test_a_peer_that_ends_behind_its_requests_has_their_replies(void **state)
{
    struct world *w = *state;
    connect_as(w, 0);
    for (unsigned i = 1; i <= 5; i++)
        peer_says(&w->peer, XS_READ, i, "/tool", 6);
    w->peer.ends = true;
    store_conn_notice(w->conn, EPOLLIN | EPOLLRDHUP);
    store_conn_turn(w->conn, &w->out, 16);
    assert_int_equal(w->conn->broken, -EPIPE);
    for (unsigned i = 1; i <= 5; i++)
        expect_heard(&w->peer, XS_READ, i);
    expect_silence(&w->peer);
}

static void test_a_peer_that_ends_and_reads_slowly_has_them_too(void **state)
{
    struct world *w = *state;
    connect_as(w, 0);
    for (unsigned i = 1; i <= 100; i++)
        peer_says(&w->peer, XS_READ, i, "/tool", 6);
    w->peer.ends = true;
    w->peer.room = 0;
    store_conn_notice(w->conn, EPOLLIN | EPOLLRDHUP);
    for (unsigned turns = 0; !w->conn->broken; turns++) {
        assert_true(turns < 1000);
        w->peer.room = 7;
        store_conn_turn(w->conn, &w->out, 16);
    }
    assert_int_equal(w->conn->broken, -EPIPE);
    for (unsigned i = 1; i <= 100; i++)
        expect_heard(&w->peer, XS_READ, i);
    expect_silence(&w->peer);
}

static void test_what_stands_before_a_header_that_is_too_long_is_answered(void **state)
{
    struct world *w = *state;
    connect_as(w, 0);
    peer_says(&w->peer, XS_READ, 1, "/tool", 6);
    struct xsd_sockmsg huge = {.type = XS_READ, .len = 0x80000000};
    memcpy(w->peer.sent + w->peer.sent_end, &huge, sizeof(huge));
    w->peer.sent_end += sizeof(huge);
    peer_says(&w->peer, XS_READ, 3, "/tool", 6);
    store_conn_turn(w->conn, &w->out, 16);
    assert_int_equal(w->conn->broken, STORE_E_OVERSIZE);
    expect_heard(&w->peer, XS_READ, 1);
    expect_silence(&w->peer);
    assert_int_equal(w->g.requests, 1);
}

/* It costs its domain what is kept for it, and no more is served than the quota and a turn. */
static void test_what_is_not_read_is_bounded_charged_and_given_back(void **state)
{
    struct world *w = *state;
    connect_as(w, 3);
    const struct store_domain *domain = w->conn->session.domain;
    const unsigned outstanding = domain->quota.outstanding;
    uint64_t idle_bytes = domain->bytes;
    assert_true(idle_bytes >= sizeof(struct store_conn));
    for (unsigned i = 0; i < 200; i++)
        peer_says(&w->peer, XS_GET_DOMAIN_PATH, i, "3", 2);
    w->peer.room = 5; /* of the first reply */
    serve_all(w, 16);
    assert_true(store_conn_is_stalled(w->conn));
    assert_in_range(w->conn->unsent, outstanding, outstanding + 16);
    assert_int_equal(w->conn->unsent, domain->unsent);
    assert_int_equal(w->g.requests, w->conn->unsent);
    assert_true(domain->bytes >= idle_bytes + w->conn->unsent * sizeof(struct xsd_sockmsg));
    w->peer.room = SIZE_MAX;
    serve_all(w, 16);
    for (unsigned i = 0; i < 200; i++)
        expect_heard(&w->peer, XS_GET_DOMAIN_PATH, i);
    expect_silence(&w->peer);
    assert_int_equal(domain->unsent, 0);
    assert_int_equal(domain->bytes, idle_bytes);
}

static void test_events_merge_while_the_peer_does_not_read(void **state)
{
    struct world *w = *state;
    connect_as(w, 0);
    peer_says(&w->peer, XS_WATCH, 1, "/a\0t", 5);
    serve_all(w, 16);
    w->peer.room = 0;
    for (unsigned i = 0; i < 10; i++) /* the first reply and its event are on their way and kept: the rest merges */
        peer_says(&w->peer, XS_WRITE, 2, "/a\0v", 4);
    serve_all(w, 1);
    assert_int_equal(w->conn->session.event_count, 1);
    w->peer.room = SIZE_MAX;
    serve_all(w, 1);
    expect_heard(&w->peer, XS_WATCH, 1);
    expect_heard(&w->peer, XS_WATCH_EVENT, 0);
    expect_heard(&w->peer, XS_WRITE, 2);
    expect_heard(&w->peer, XS_WATCH_EVENT, 0);
    for (unsigned i = 1; i < 10; i++)
        expect_heard(&w->peer, XS_WRITE, 2);
    expect_heard(&w->peer, XS_WATCH_EVENT, 0);
    expect_silence(&w->peer);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_however_the_bytes_are_cut_the_answers_are_the_same),
        T(test_an_event_goes_behind_its_own_reply_and_before_the_next),
        T(test_a_peer_that_ends_behind_its_requests_has_their_replies),
        T(test_a_peer_that_ends_and_reads_slowly_has_them_too),
        T(test_what_stands_before_a_header_that_is_too_long_is_answered),
        T(test_what_is_not_read_is_bounded_charged_and_given_back),
        T(test_events_merge_while_the_peer_does_not_read),
    };
    return cmocka_run_group_tests_name("store_conn", tests, NULL, NULL);
}
