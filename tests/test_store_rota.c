/* SPDX-License-Identifier: MIT */
/* Whose turn it is, over real sockets: a server that is stepped by hand, so that what is served when is certain. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "base/loop.h"
#include "base/unixsock.h"
#include "store/rota.h"
#include "tests/storekit.h"

/* What a step for one request more than a turn serves at the most: a turn that took too long for the clock ends early,
 * and the next one may be a whole one. */
#define SHARE_MAX (2 * STORE_TURN_REQUESTS)

struct hand {
    struct store_server *server;
    char dir[64];
};

static int setup(void **state)
{
    struct hand *h = malloc(sizeof(*h));
    assert_non_null(h);
    *h = (struct hand){.dir = "/tmp/domzero-rota-XXXXXX"};
    assert_non_null(mkdtemp(h->dir));
    assert_int_equal(store_server_new(h->dir, NULL, &h->server, NULL), 0);
    *state = h;
    return 0;
}

static int teardown(void **state)
{
    struct hand *h = *state;
    store_server_free(h->server);
    char command[128];
    snprintf(command, sizeof(command), "rm -r %s", h->dir);
    assert_int_equal(system(command), 0);
    free(h);
    return 0;
}

/* Steps until nothing is left to do; the number of requests served. */
static unsigned serve_all(struct hand *h)
{
    unsigned served = 0;
    struct pollfd polled = {.fd = store_server_fd(h->server), .events = POLLIN};
    while (poll(&polled, 1, 0) > 0) {
        int r = store_server_step(h->server, 64);
        assert_true(r >= 0);
        served += (unsigned)r;
    }
    return served;
}

static struct store_server_stats stats_of(const struct hand *h)
{
    struct store_server_stats stats;
    store_server_stats(h->server, &stats);
    return stats;
}

static int connect_to(struct hand *h, unsigned domid)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/dom/%u/xenstored.sock", h->dir, domid);
    if (domid == 0)
        snprintf(path, sizeof(path), "%s/xenstored/socket", h->dir);
    int fd = unixsock_connect(path, SOCK_STREAM, NULL);
    assert_true(fd >= 0);
    serve_all(h); /* accepts it */
    return fd;
}

static void ask(int fd, uint32_t type, const void *payload, size_t length)
{
    kit_send_request(fd, type, 0, payload, length);
}

/* Has a reply come? */
static bool answered(int fd)
{
    struct xsd_sockmsg header;
    return recv(fd, &header, sizeof(header), MSG_DONTWAIT | MSG_PEEK) == sizeof(header);
}

static struct kit_reply exchange(struct hand *h, int fd, uint32_t type, const void *payload, size_t length)
{
    struct kit_reply r;
    ask(fd, type, payload, length);
    serve_all(h);
    assert_true(kit_receive(fd, &r));
    return r;
}

static void introduce(struct hand *h, int dom0, unsigned domid)
{
    char payload[32];
    int n = snprintf(payload, sizeof(payload), "%u%c0%c0", domid, '\0', '\0');
    kit_expect_ok(exchange(h, dom0, XS_INTRODUCE, payload, (size_t)n + 1));
}

/* So many requests in one piece; fewer than the socket takes. */
static void pour(int fd, unsigned count)
{
    struct {
        struct xsd_sockmsg header;
        char payload[2];
    } __attribute__((packed)) request = {.header = {.type = XS_GET_DOMAIN_PATH, .len = 2}, .payload = "3"}, many[64];
    for (unsigned i = 0; i < ARRAY_SIZE(many); i++)
        many[i] = request;
    for (; count > 0; count -= MIN(count, ARRAY_SIZE(many)))
        kit_send(fd, many, sizeof(many[0]) * MIN(count, ARRAY_SIZE(many)));
}

static void test_lesson_206_a_stream_is_not_served_before_a_single_request(void **state)
{
    struct hand *h = *state;
    int dom0 = connect_to(h, 0);
    introduce(h, dom0, 3);
    int flooder = connect_to(h, 3), other = connect_to(h, 0);
    uint64_t before = stats_of(h).requests;
    pour(flooder, 640);
    ask(other, XS_GET_DOMAIN_PATH, "3", 2);
    assert_true(store_server_step(h->server, STORE_TURN_REQUESTS + 1) <= SHARE_MAX);
    assert_true(answered(other));
    assert_true(stats_of(h).requests - before <= SHARE_MAX);
    close(other);
    close(flooder);
    close(dom0);
}

static void test_a_guests_many_connections_are_served_no_more_than_one(void **state)
{
    struct hand *h = *state;
    int dom0 = connect_to(h, 0), flooders[8];
    introduce(h, dom0, 3);
    for (unsigned i = 0; i < ARRAY_SIZE(flooders); i++)
        flooders[i] = connect_to(h, 3);
    for (unsigned i = 0; i < ARRAY_SIZE(flooders); i++)
        pour(flooders[i], 64);
    ask(dom0, XS_GET_DOMAIN_PATH, "3", 2);
    uint64_t before = stats_of(h).requests;
    store_server_step(h->server, STORE_TURN_REQUESTS + 1);
    assert_true(answered(dom0));
    assert_true(stats_of(h).requests - before <= SHARE_MAX);
    for (unsigned i = 0; i < ARRAY_SIZE(flooders); i++)
        close(flooders[i]);
    close(dom0);
}

/* What was received ahead is known to us alone: the descriptor that a caller polls must tell of it. */
static void test_requests_that_are_left_over_are_told_of(void **state)
{
    struct hand *h = *state;
    int fd = connect_to(h, 0);
    struct kit_reply r;
    pour(fd, 40);
    assert_true(store_server_step(h->server, 1) < 40);
    struct pollfd polled = {.fd = store_server_fd(h->server), .events = POLLIN};
    assert_int_equal(poll(&polled, 1, 0), 1);
    serve_all(h);
    for (unsigned i = 0; i < 40; i++)
        assert_true(kit_receive(fd, &r));
    assert_int_equal(poll(&polled, 1, 0), 0); /* and is quiet then */
    close(fd);
}

/* Does not read: pours until nothing of it is served any more. */
static void stall(struct hand *h, int fd)
{
    for (;;) {
        uint64_t before = stats_of(h).requests;
        struct xsd_sockmsg header = {.type = XS_GET_DOMAIN_PATH, .len = 2};
        char request[sizeof(header) + 2] = {0};
        memcpy(request, &header, sizeof(header));
        memcpy(request + sizeof(header), "3", 2);
        while (send(fd, request, sizeof(request), MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)sizeof(request))
            continue;
        serve_all(h);
        if (stats_of(h).requests == before)
            return;
    }
}

static void test_lesson_326_a_guests_unread_replies_hold_up_all_its_connections_and_nobody_elses(void **state)
{
    struct hand *h = *state;
    int dom0 = connect_to(h, 0);
    introduce(h, dom0, 3);
    introduce(h, dom0, 4);
    int deaf = connect_to(h, 3), same = connect_to(h, 3), other = connect_to(h, 4);
    stall(h, deaf);
    ask(same, XS_GET_DOMAIN_PATH, "3", 2);
    ask(other, XS_GET_DOMAIN_PATH, "3", 2);
    ask(dom0, XS_GET_DOMAIN_PATH, "3", 2);
    serve_all(h);
    assert_false(answered(same));
    assert_true(answered(other));
    assert_true(answered(dom0));
    char replies[4096];
    while (!answered(same)) {
        assert_true(recv(deaf, replies, sizeof(replies), MSG_DONTWAIT) > 0);
        serve_all(h);
    }
    close(deaf);
    close(same);
    close(other);
    close(dom0);
}

static void test_a_deaf_connection_that_goes_lets_its_domain_go_on(void **state)
{
    struct hand *h = *state;
    int dom0 = connect_to(h, 0);
    introduce(h, dom0, 3);
    int deaf = connect_to(h, 3), same = connect_to(h, 3);
    stall(h, deaf);
    ask(same, XS_GET_DOMAIN_PATH, "3", 2);
    serve_all(h);
    assert_false(answered(same));
    close(deaf);
    serve_all(h);
    assert_true(answered(same));
    assert_int_equal(stats_of(h).connections, 2);
    close(same);
    close(dom0);
}

static void test_domain_0s_programs_do_not_hold_up_each_other(void **state)
{
    struct hand *h = *state;
    int deaf = connect_to(h, 0), other = connect_to(h, 0);
    stall(h, deaf);
    kit_expect_string(exchange(h, other, XS_GET_DOMAIN_PATH, "3", 2), "/local/domain/3");
    close(deaf);
    close(other);
}

static void test_one_change_is_told_to_hundreds(void **state)
{
    struct hand *h = *state;
    const struct rlimit files = {1024, 1024};
    struct rlimit was;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
    if (was.rlim_cur < files.rlim_cur && setrlimit(RLIMIT_NOFILE, &files) < 0) {
        print_message("skipped: fewer than 1024 descriptors\n");
        skip();
    }
    int fds[300];
    struct kit_reply r;
    for (unsigned i = 0; i < ARRAY_SIZE(fds); i++) {
        fds[i] = connect_to(h, 0);
        kit_expect_ok(exchange(h, fds[i], XS_WATCH, "/x\0t", 5));
        assert_true(kit_receive(fds[i], &r));
        assert_int_equal(r.type, XS_WATCH_EVENT);
    }
    ask(fds[7], XS_WRITE, "/x\0v", 4);
    ask(fds[7], XS_WRITE, "/x\0w", 4);
    serve_all(h);
    for (unsigned i = 0; i < ARRAY_SIZE(fds); i++) {
        for (unsigned own = 0; i == 7 && own < 3; own++) /* reply, event, reply, event */
            assert_true(kit_receive(fds[i], &r));
        assert_true(kit_receive(fds[i], &r));
        assert_int_equal(r.type, XS_WATCH_EVENT);
        assert_string_equal(r.bytes, "/x");
        assert_false(answered(fds[i])); /* the second change met an event that had not gone yet */
        close(fds[i]);
    }
}

struct stopper {
    struct loop_source source;
    struct hand *h;
};

static void stop(struct loop_source *source, uint32_t events)
{
    (void)events;
    loop_quit(store_server_loop(container_of(source, struct stopper, source)->h->server));
}

static void *run(void *argument)
{
    struct hand *h = argument;
    return (void *)(intptr_t)store_server_run(h->server);
}

static void test_a_loop_of_the_servers_own_serves_until_it_is_told_to_stop(void **state)
{
    struct hand *h = *state;
    int fd = connect_to(h, 0), stop_fd = eventfd(0, EFD_CLOEXEC);
    struct stopper s = {.h = h};
    pthread_t thread;
    void *result;
    assert_int_equal(loop_add(store_server_loop(h->server), &s.source, stop_fd, EPOLLIN, stop), 0);
    assert_int_equal(pthread_create(&thread, NULL, run, h), 0);
    for (unsigned i = 0; i < 2000; i++)
        kit_expect_string(kit_exchange(fd, XS_GET_DOMAIN_PATH, 0, "3", 2), "/local/domain/3");
    pour(fd, 200);
    struct kit_reply r;
    for (unsigned i = 0; i < 200; i++)
        assert_true(kit_receive(fd, &r));
    assert_int_equal(eventfd_write(stop_fd, 1), 0);
    assert_int_equal(pthread_join(thread, &result), 0);
    assert_null(result);
    loop_remove(store_server_loop(h->server), &s.source);
    close(stop_fd);
    close(fd);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_lesson_206_a_stream_is_not_served_before_a_single_request),
        T(test_a_guests_many_connections_are_served_no_more_than_one),
        T(test_requests_that_are_left_over_are_told_of),
        T(test_lesson_326_a_guests_unread_replies_hold_up_all_its_connections_and_nobody_elses),
        T(test_a_deaf_connection_that_goes_lets_its_domain_go_on),
        T(test_domain_0s_programs_do_not_hold_up_each_other),
        T(test_one_change_is_told_to_hundreds),
        T(test_a_loop_of_the_servers_own_serves_until_it_is_told_to_stop),
    };
    return cmocka_run_group_tests_name("store_rota", tests, NULL, NULL);
}
