/* SPDX-License-Identifier: MIT */
/* A server and the rings of its domains: a guest speaks through its page as it would by socket, what it does wrong ends
 * its own connection, and what INTRODUCE, RELEASE and the end of the server take they give back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "store/journal.h"
#include "tests/random.h"
#include "tests/ring_world.h"

static int setup(void **state)
{
    struct ring_world *w = malloc(sizeof(*w));
    ring_world_start(w);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    ring_world_stop(*state);
    free(*state);
    return 0;
}

/* A request whose payload is `commas` with a NUL for each ',', and one at its end unless it is a WRITE. */
static struct store_message ask(struct ring_guest *g, uint32_t type, uint32_t tx, const char *commas)
{
    struct store_message reply;
    char payload[256];
    size_t length = strlen(commas);
    for (size_t i = 0; i <= length; i++)
        payload[i] = commas[i] == ',' ? '\0' : commas[i];
    assert_true(ring_guest_exchange(g, type, tx, payload, length + (type != XS_WRITE), &reply));
    reply.payload[MIN(reply.header.len, sizeof(reply.payload) - 1)] = '\0';
    return reply;
}

static void expect(struct store_message reply, uint32_t type, const char *text)
{
    assert_string_equal(reply.payload, text);
    assert_int_equal(reply.header.type, type);
}

static void dom0_write(struct ring_world *w, const char *path, const char *value)
{
    char payload[256];
    size_t path_bytes = strlen(path) + 1, value_bytes = strlen(value);
    memcpy(payload, path, path_bytes);
    memcpy(payload + path_bytes, value, value_bytes);
    kit_expect_ok(kit_exchange(w->dom0, XS_WRITE, 0, payload, path_bytes + value_bytes));
}

static void expect_event(struct ring_guest *g, const char *path, const char *token)
{
    struct store_message m;
    assert_true(ring_guest_receive(g, &m));
    assert_int_equal(m.header.type, XS_WATCH_EVENT);
    assert_string_equal(m.payload, path);
    assert_string_equal(m.payload + strlen(path) + 1, token);
}

static bool is_introduced(struct ring_world *w, unsigned domid)
{
    char text[16];
    int n = snprintf(text, sizeof(text), "%u", domid);
    return kit_exchange(w->dom0, XS_IS_DOMAIN_INTRODUCED, 0, text, (size_t)n + 1).bytes[0] == 'T';
}

static void test_a_guest_speaks_through_its_page_as_its_domain(void **state)
{
    struct ring_world *w = *state;
    struct ring_guest *g = ring_world_guest(w, 5);
    assert_int_equal(g->page->server_features, STORE_RING_FEATURES);
    expect(ask(g, XS_WRITE, 0, "device/a,value"), XS_WRITE, "OK");
    expect(ask(g, XS_READ, 0, "/local/domain/5/device/a"), XS_READ, "value");
    kit_expect_text(kit_exchange(w->dom0, XS_READ, 0, "/local/domain/5/device/a", 25), "value");
    expect(ask(g, XS_WRITE, 0, "/tool/a,value"), XS_ERROR, "EACCES");
    expect(ask(g, XS_INTRODUCE, 0, "6,1,1"), XS_ERROR, "EACCES");
    struct store_message tx = ask(g, XS_TRANSACTION_START, 0, "");
    uint32_t id = (uint32_t)strtoul(tx.payload, NULL, 10);
    expect(ask(g, XS_WRITE, id, "device/a,other"), XS_WRITE, "OK");
    expect(ask(g, XS_READ, 0, "device/a"), XS_READ, "value");
    expect(ask(g, XS_TRANSACTION_END, id, "T"), XS_TRANSACTION_END, "OK");
    expect(ask(g, XS_READ, 0, "device/a"), XS_READ, "other");
}

static void test_events_of_others_changes_come_through_the_page(void **state)
{
    struct ring_world *w = *state;
    struct ring_guest *g = ring_world_guest(w, 5);
    expect(ask(g, XS_WATCH, 0, "data,token"), XS_WATCH, "OK");
    expect_event(g, "data", "token");
    for (unsigned i = 0; i < 300; i++) {
        char path[64], relative[32];
        snprintf(path, sizeof(path), "/local/domain/5/data/%u", i);
        snprintf(relative, sizeof(relative), "data/%u", i);
        dom0_write(w, path, "x");
        expect_event(g, relative, "token");
    }
}

static void test_messages_longer_than_the_queues_go_through(void **state)
{
    struct ring_world *w = *state;
    struct ring_guest *g = ring_world_guest(w, 5);
    char payload[2000], value[1990];
    for (unsigned round = 0; round < 50; round++) {
        size_t length = 1800 + round;
        memcpy(payload, "data", 5);
        for (size_t i = 0; i < length; i++)
            payload[5 + i] = value[i] = (char)('a' + (i * 7 + round) % 26);
        struct store_message reply;
        assert_true(ring_guest_exchange(g, XS_WRITE, 0, payload, 5 + length, &reply));
        assert_int_equal(reply.header.type, XS_WRITE);
        assert_true(ring_guest_exchange(g, XS_READ, 0, "data", 5, &reply));
        assert_int_equal(reply.header.len, length);
        assert_memory_equal(reply.payload, value, length);
    }
}

static void test_requests_that_stand_in_the_queue_together_are_all_answered_in_order(void **state)
{
    struct ring_world *w = *state;
    struct ring_guest *g = ring_world_guest(w, 5);
    const unsigned count = 40; /* 20 bytes each: one piece, one event */
    char bytes[40 * 20];
    for (unsigned round = 0; round < 20; round++) {
        for (unsigned i = 0; i < count; i++) {
            const struct xsd_sockmsg header = {.type = XS_GET_DOMAIN_PATH, .req_id = round * count + i, .len = 4};
            memcpy(bytes + 20 * i, &header, sizeof(header));
            snprintf(bytes + 20 * i + 16, 4, "%03u", i);
        }
        assert_true(ring_guest_write(g, bytes, sizeof(bytes)));
        for (unsigned i = 0; i < count; i++) {
            struct store_message reply;
            assert_true(ring_guest_receive(g, &reply));
            assert_int_equal(reply.header.type, XS_GET_DOMAIN_PATH);
            assert_int_equal(reply.header.req_id, round * count + i);
        }
    }
}

static void test_a_guest_that_asks_anew_in_the_middle_of_a_message_starts_afresh(void **state)
{
    struct ring_world *w = *state;
    struct ring_guest *g = ring_world_guest(w, 5);
    const struct xsd_sockmsg half = {.type = XS_WRITE, .len = 4000};
    for (unsigned round = 0; round < 100; round++) {
        expect(ask(g, XS_WATCH, 0, "data,token"), XS_WATCH, "OK"); /* not EEXIST: the last one is gone */
        expect_event(g, "data", "token");
        ask(g, XS_TRANSACTION_START, 0, "");
        assert_true(ring_guest_write(g, &half, sizeof(half) - round % 16));
        if (round % 16 == 0)
            assert_true(ring_guest_write(g, "data", round % 5));
        ring_guest_ask(g);
        assert_true(ring_guest_connected(g));
        expect(ask(g, XS_WRITE, 0, "data,x"), XS_WRITE, "OK");
        struct store_server_stats stats = kit_stats(&w->kit);
        assert_int_equal(stats.watches, 0);
        assert_int_equal(stats.transactions, 0);
        assert_int_equal(stats.connections, 2);
    }
    dom0_write(w, "/local/domain/5/data", "y"); /* nobody watches: the next message is the reply */
    expect(ask(g, XS_READ, 0, "data"), XS_READ, "y");
}

static void test_an_index_that_cannot_be_ends_the_ring_until_it_is_asked_for(void **state)
{
    struct ring_world *w = *state;
    struct ring_guest *g = ring_world_guest(w, 5);
    struct ring_guest *neighbour = ring_world_guest(w, 6);
    expect(ask(g, XS_WATCH, 0, "data,token"), XS_WATCH, "OK");
    for (unsigned round = 0; round < 20; round++) {
        uint32_t *word = round % 2 ? &g->page->rsp_cons : &g->page->req_prod;
        __atomic_store_n(word, g->page->rsp_prod + 5000, __ATOMIC_SEQ_CST);
        evtchn_notify(&g->channel);
        if (word == &g->page->rsp_cons)
            dom0_write(w, "/local/domain/5/data", "x"); /* an event is to be sent */
        assert_int_equal(ring_guest_await_error(g), XENSTORE_ERROR_RINGIDX);
        assert_true(is_introduced(w, 5));
        assert_int_equal(kit_stats(&w->kit).connections, 2);
        assert_int_equal(kit_stats(&w->kit).watches, 0);
        evtchn_notify(&g->channel); /* of nothing */
        expect(ask(neighbour, XS_GET_DOMAIN_PATH, 0, "1"), XS_GET_DOMAIN_PATH, "/local/domain/1");
        ring_guest_ask(g);
        assert_true(ring_guest_connected(g));
        expect(ask(g, XS_WATCH, 0, "data,token"), XS_WATCH, "OK");
        expect_event(g, "data", "token");
    }
}

static void test_lesson_420_a_length_beyond_the_payload_is_a_protocol_error(void **state)
{
    struct ring_world *w = *state;
    struct ring_guest *g = ring_world_guest(w, 5);
    static const uint32_t lengths[] = {XENSTORE_PAYLOAD_MAX + 1, 0x7fffffff, 0x80000000, 0xffffffff};
    for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
        const struct xsd_sockmsg header = {.type = XS_WRITE, .len = lengths[i]};
        assert_true(ring_guest_write(g, &header, sizeof(header)));
        assert_int_equal(ring_guest_await_error(g), XENSTORE_ERROR_PROTO);
        assert_true(is_introduced(w, 5));
        ring_guest_ask(g);
        assert_true(ring_guest_connected(g));
        expect(ask(g, XS_GET_DOMAIN_PATH, 0, "1"), XS_GET_DOMAIN_PATH, "/local/domain/1");
    }
}

static void test_a_guest_that_reads_late_gets_every_answer(void **state)
{
    struct ring_world *w = *state;
    struct ring_guest *g = ring_world_guest(w, 5);
    expect(ask(g, XS_WRITE, 0, "data,0123456789012345678901234567890123456789"), XS_WRITE, "OK");
    for (unsigned round = 0; round < 20; round++) {
        unsigned sent = 0;
        while (sent < 200) { /* until the store takes no more, as it waits for us */
            struct store_message request = {.header = {.type = XS_READ, .req_id = sent, .len = 5}};
            memcpy(request.payload, "data", 5);
            if (XENSTORE_RING_SIZE - (g->page->req_prod - __atomic_load_n(&g->page->req_cons, __ATOMIC_SEQ_CST)) < 21)
                break;
            assert_true(ring_guest_write(g, &request, 21));
            sent++;
        }
        for (unsigned i = 0; i < sent; i++) {
            struct store_message reply;
            assert_true(ring_guest_receive(g, &reply));
            assert_int_equal(reply.header.req_id, i);
            assert_int_equal(reply.header.len, 40);
        }
    }
}

static void test_lesson_349_a_guest_that_never_reads_its_events_is_cut_off_and_others_go_on(void **state)
{
    struct ring_world *w = *state;
    struct ring_guest *g = ring_world_guest(w, 5);
    struct ring_guest *neighbour = ring_world_guest(w, 6);
    expect(ask(g, XS_WATCH, 0, "data,token"), XS_WATCH, "OK");
    for (unsigned i = 0; i < 700 && __atomic_load_n(&g->page->error, __ATOMIC_SEQ_CST) == 0; i++) {
        char path[64];
        snprintf(path, sizeof(path), "/local/domain/5/data/%u", i);
        dom0_write(w, path, "x");
    }
    assert_int_equal(ring_guest_await_error(g), XENSTORE_ERROR_COMM);
    expect(ask(neighbour, XS_GET_DOMAIN_PATH, 0, "1"), XS_GET_DOMAIN_PATH, "/local/domain/1");
    ring_guest_ask(g);
    assert_true(ring_guest_connected(g));
    expect(ask(g, XS_READ, 0, "data/0"), XS_READ, "x");
}

static void test_introducing_again_connects_another_port_and_gives_the_first_back(void **state)
{
    struct ring_world *w = *state;
    struct ring_guest *g = ring_world_guest(w, 5);
    expect(ask(g, XS_WATCH, 0, "data,token"), XS_WATCH, "OK");
    struct ring_offer *second = ring_world_offer(w, 5, 999);
    kit_expect_ok(ring_world_introduce(w, 5, 999));
    assert_int_equal(w->offer[0].released, 1);
    assert_int_equal(ring_guest_await_error(g), XENSTORE_ERROR_COMM);
    assert_true(ring_guest_connected(&second->guest));
    expect(ask(&second->guest, XS_WATCH, 0, "data,token"), XS_WATCH, "OK");
    kit_expect_ok(ring_world_introduce(w, 5, 999)); /* the same once more: from the beginning */
    assert_int_equal(second->released, 1);
    expect(ask(&second->guest, XS_WATCH, 0, "data,token"), XS_WATCH, "OK");
    kit_expect_error(ring_world_introduce(w, 5, 1000), "ENOENT"); /* no such port: no ring, and introduced still */
    assert_int_equal(second->released, 2);
    assert_true(is_introduced(w, 5));
    kit_expect_ok(ring_world_introduce(w, 5, w->offer[0].port));
    ring_guest_ask(g);
    assert_true(ring_guest_connected(g));
    expect(ask(g, XS_READ, 0, "data"), XS_ERROR, "ENOENT");
    kit_expect_ok(ring_world_introduce(w, 5, 0));
    assert_int_equal(w->offer[0].released, w->offer[0].opened);
}

static void test_a_domain_whose_ring_is_not_there_is_not_introduced(void **state)
{
    struct ring_world *w = *state;
    kit_expect_error(ring_world_introduce(w, 7, 3), "ENOENT");
    assert_false(is_introduced(w, 7));
    assert_true(kit_connect(&w->kit, 7) < 0);
    assert_int_equal(kit_stats(&w->kit).domains, 0);
    kit_expect_ok(ring_world_introduce(w, 7, 0));
    assert_true(is_introduced(w, 7));
}

static void test_the_socket_of_a_domain_serves_beside_its_ring(void **state)
{
    struct ring_world *w = *state;
    struct ring_guest *g = ring_world_guest(w, 5);
    int fd = kit_connect(&w->kit, 5);
    kit_expect_ok(kit_exchange(fd, XS_WATCH, 0, "data\0s", 7));
    expect(ask(g, XS_WATCH, 0, "data,r"), XS_WATCH, "OK");
    expect_event(g, "data", "r");
    __atomic_store_n(&g->page->req_prod, 99999, __ATOMIC_SEQ_CST);
    evtchn_notify(&g->channel);
    assert_int_equal(ring_guest_await_error(g), XENSTORE_ERROR_RINGIDX);
    assert_int_equal(kit_stats(&w->kit).watches, 1);
    kit_expect_string(kit_exchange(fd, XS_GET_DOMAIN_PATH, 0, "1", 2), "/local/domain/1");
    close(fd);
}

static void test_release_and_death_take_the_ring_away(void **state)
{
    struct ring_world *w = *state;
    ring_world_guest(w, 5);
    ring_world_guest(w, 6);
    struct ring_guest *dead = ring_world_guest(w, 7);
    __atomic_store_n(&dead->page->req_prod, 99999, __ATOMIC_SEQ_CST);
    evtchn_notify(&dead->channel);
    assert_int_equal(ring_guest_await_error(dead), XENSTORE_ERROR_RINGIDX);
    kit_expect_ok(kit_exchange(w->dom0, XS_RELEASE, 0, "5", 2));
    assert_int_equal(w->offer[0].released, 1);
    pthread_mutex_lock(&w->kit.lock);
    store_server_domain_gone(w->kit.server, 6);
    store_server_ring_gone(w->kit.server, 7);
    store_server_ring_gone(w->kit.server, 7);
    store_server_domain_gone(w->kit.server, 7);
    pthread_mutex_unlock(&w->kit.lock);
    assert_int_equal(w->offer[1].released, 1);
    assert_int_equal(w->offer[2].released, 1);
    assert_int_equal(kit_stats(&w->kit).connections, 1);
    assert_int_equal(kit_stats(&w->kit).domains, 0);
}

struct vandal {
    struct ring_guest *guest;
    bool stop;
};

/* Every word, at any moment, and as many events as it can. */
static void *vandal_run(void *argument)
{
    struct vandal *v = argument;
    uint64_t seed = 11;
    while (!__atomic_load_n(&v->stop, __ATOMIC_SEQ_CST)) {
        uint32_t dice = random_next(&seed), value = random_next(&seed);
        uint32_t *word = &v->guest->page->req_cons + dice % 7;
        if (dice & 0x100)
            value = value % 2000;
        if (dice & 0x200)
            __atomic_fetch_add(word, value, __ATOMIC_SEQ_CST);
        else
            __atomic_store_n(word, dice & 0x400 ? value % 2 : value, __ATOMIC_SEQ_CST);
        evtchn_notify(&v->guest->channel);
    }
    return NULL;
}

static void test_a_guest_that_scribbles_over_its_words_costs_itself_only(void **state)
{
    struct ring_world *w = *state;
    struct vandal v = {.guest = ring_world_guest(w, 5)};
    struct ring_guest *neighbour = ring_world_guest(w, 6);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, vandal_run, &v), 0);
    for (unsigned i = 0; i < 300; i++) {
        expect(ask(neighbour, XS_WRITE, 0, "data,x"), XS_WRITE, "OK");
        expect(ask(neighbour, XS_READ, 0, "data"), XS_READ, "x");
    }
    assert_true(kit_stats(&w->kit).connections <= 3);
    __atomic_store_n(&v.stop, true, __ATOMIC_SEQ_CST);
    assert_int_equal(pthread_join(thread, NULL), 0);
    ring_guest_ask(v.guest);
    assert_true(ring_guest_connected(v.guest));
    expect(ask(v.guest, XS_GET_DOMAIN_PATH, 0, "1"), XS_GET_DOMAIN_PATH, "/local/domain/1");
}

#define RING_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* The ring was connected when the journal has no room for the introduction. */
static void test_a_refused_introduction_takes_its_ring_back(void **state)
{
    (void)state;
    struct rlimit limit, small = {0};
    struct ring_world w;
    char journal[] = "/tmp/domzero-rings-XXXXXX";
    assert_non_null(mkdtemp(journal));
    assert_int_equal(rmdir(journal), 0);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    small.rlim_max = limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    ring_world_start_with(&w, journal);
    struct ring_offer *o = ring_world_offer(&w, 5, 105);
    for (unsigned i = 1; i <= 3; i++) {
        kit_expect_error(ring_world_introduce(&w, 5, 105), "ENOSPC");
        assert_int_equal(o->opened, i);
        assert_int_equal(o->released, i);
        assert_false(is_introduced(&w, 5));
    }
    assert_int_equal(kit_stats(&w.kit).connections, 1);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    kit_expect_ok(ring_world_introduce(&w, 5, 105));
    assert_true(ring_guest_connected(&o->guest));
    ring_world_stop(&w);
    store_journal_remove(journal);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RING_TEST(test_a_guest_speaks_through_its_page_as_its_domain),
        RING_TEST(test_events_of_others_changes_come_through_the_page),
        RING_TEST(test_messages_longer_than_the_queues_go_through),
        RING_TEST(test_requests_that_stand_in_the_queue_together_are_all_answered_in_order),
        RING_TEST(test_a_guest_that_asks_anew_in_the_middle_of_a_message_starts_afresh),
        RING_TEST(test_an_index_that_cannot_be_ends_the_ring_until_it_is_asked_for),
        RING_TEST(test_lesson_420_a_length_beyond_the_payload_is_a_protocol_error),
        RING_TEST(test_a_guest_that_reads_late_gets_every_answer),
        RING_TEST(test_lesson_349_a_guest_that_never_reads_its_events_is_cut_off_and_others_go_on),
        RING_TEST(test_introducing_again_connects_another_port_and_gives_the_first_back),
        RING_TEST(test_a_domain_whose_ring_is_not_there_is_not_introduced),
        cmocka_unit_test(test_a_refused_introduction_takes_its_ring_back),
        RING_TEST(test_the_socket_of_a_domain_serves_beside_its_ring),
        RING_TEST(test_release_and_death_take_the_ring_away),
        RING_TEST(test_a_guest_that_scribbles_over_its_words_costs_itself_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
