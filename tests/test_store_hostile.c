/* SPDX-License-Identifier: MIT */
/* The server over real sockets, with peers that keep to no rule. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "store/client.h"
#include "tests/storekit.h"

static void test_a_guests_socket_cannot_act_as_domain_0(void **state)
{
    struct kit_server *k = *state;
    struct store_client *dom0 = kit_client(k, 0);
    kit_guest_make(dom0, 3);
    kit_guest_make(dom0, 4);
    assert_int_equal(store_write(dom0, STORE_NO_TX, "s", "/local/domain/4/secret"), 0);
    int fd = kit_connect(k, 3);
    kit_expect_error(kit_exchange(fd, XS_INTRODUCE, 0, "9\0001\0001", 6), "EACCES");
    kit_expect_error(kit_exchange(fd, XS_RELEASE, 0, "4", 2), "EACCES");
    kit_expect_error(kit_exchange(fd, XS_SET_TARGET, 0, "3\0004", 4), "EACCES");
    kit_expect_error(kit_exchange(fd, XS_READ, 0, "/local/domain/4/secret", 23), "EACCES");
    kit_expect_error(kit_exchange(fd, XS_SET_PERMS, 0, "/\0b3", 5), "EACCES");
    kit_expect_error(kit_exchange(fd, XS_WRITE, 0, "/tool/x\0v", 9), "EACCES");
    kit_expect_error(kit_exchange(fd, XS_DIRECTORY, 0, "/", 2), "EACCES");
    kit_expect_error(kit_exchange(fd, XS_CONTROL, 0, "log\0on", 7), "EACCES");
    close(fd);
    store_client_close(dom0);
}

static void test_two_guests_cannot_read_each_others_nodes(void **state)
{
    struct store_client *dom0 = kit_client(*state, 0);
    kit_guest_make(dom0, 3);
    kit_guest_make(dom0, 4);
    struct store_client *three = kit_client(*state, 3), *four = kit_client(*state, 4);
    char *value, **names;
    assert_int_equal(store_write(three, STORE_NO_TX, "mine", "data"), 0);
    kit_expect_value(three, "data", "mine");
    assert_int_equal(store_read(four, STORE_NO_TX, &value, NULL, "/local/domain/3/data"), -EACCES);
    assert_int_equal(store_directory(four, STORE_NO_TX, &names, NULL, "/local/domain/3"), -EACCES);
    assert_int_equal(store_write(four, STORE_NO_TX, "x", "/local/domain/3/data"), -EACCES);
    assert_int_equal(store_rm(four, STORE_NO_TX, "/local/domain/3/data"), -EACCES);
    assert_int_equal(store_set_owner_reader(three, STORE_NO_TX, 3, 4, "data"), 0);
    kit_expect_value(four, "/local/domain/3/data", "mine");
    store_client_close(four);
    store_client_close(three);
    store_client_close(dom0);
}

static void test_lesson_420_a_huge_length_ends_the_connection_at_its_header(void **state)
{
    struct kit_server *k = *state;
    static const uint32_t lengths[] = {XENSTORE_PAYLOAD_MAX + 1, 0x7fffffff, 0x80000000, 0xfffffff0, 0xffffffff};
    for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
        struct xsd_sockmsg header = {.type = (uint32_t)(i * 40), .len = lengths[i]};
        struct kit_reply r;
        int fd = kit_connect(k, 0);
        kit_send(fd, &header, sizeof(header)); /* nothing behind it: it must not be waited for */
        assert_false(kit_receive(fd, &r));
        close(fd);
    }
    int fd = kit_connect(k, 0);
    static char payload[XENSTORE_PAYLOAD_MAX] = "/big";
    kit_expect_ok(kit_exchange(fd, XS_WRITE, 0, payload, sizeof(payload)));
    struct kit_reply r = kit_exchange(fd, XS_READ, 0, "/big", 5);
    assert_int_equal(r.length, sizeof(payload) - 5);
    close(fd);
}

static void test_requests_may_arrive_a_byte_at_a_time_or_many_at_once(void **state)
{
    struct kit_server *k = *state;
    struct {
        struct xsd_sockmsg header;
        char payload[6];
    } __attribute__((packed)) request = {.header = {.type = XS_READ, .req_id = 9, .len = 6}, .payload = "/tool"},
                              many[50];
    int fd = kit_connect(k, 0);
    struct kit_reply r;
    for (size_t i = 0; i < sizeof(request); i++) {
        kit_send(fd, (char *)&request + i, 1);
        uint64_t served = kit_stats(k).requests; /* passes through the server's lock: it may run in between */
        assert_int_equal(served, kit_stats(k).requests);
    }
    assert_true(kit_receive(fd, &r));
    kit_expect_text(r, "");
    for (size_t i = 0; i < ARRAY_SIZE(many); i++)
        many[i] = request;
    kit_send(fd, many, sizeof(many));
    for (size_t i = 0; i < ARRAY_SIZE(many); i++)
        assert_true(kit_receive(fd, &r));
    assert_int_equal(kit_stats(k).requests, 1 + ARRAY_SIZE(many));
    close(fd);
}

static void test_torn_connections_leave_nothing(void **state)
{
    struct kit_server *k = *state;
    struct xsd_sockmsg header = {.type = XS_WRITE, .len = 100};
    struct store_client *dom0 = kit_client(k, 0);
    kit_guest_make(dom0, 3);
    for (size_t cut = 0; cut <= sizeof(header) + 50; cut += 11) {
        char bytes[sizeof(header) + 50] = {0};
        memcpy(bytes, &header, sizeof(header));
        int fd = kit_connect(k, 3);
        kit_expect_ok(kit_exchange(fd, XS_WATCH, 0, "x\0t", 4));
        assert_int_equal(kit_exchange(fd, XS_TRANSACTION_START, 0, "", 1).type, XS_TRANSACTION_START);
        if (cut)
            kit_send(fd, bytes, MIN(cut, sizeof(bytes)));
        close(fd);
    }
    struct store_server_stats stats;
    do
        stats = kit_stats(k); /* until the server has seen them all end */
    while (stats.connections > 1);
    assert_int_equal(stats.watches, 0);
    assert_int_equal(stats.transactions, 0);
    store_client_close(dom0);
}

/* Sends until the socket takes no more. The number of whole requests it took. */
static unsigned flood(int fd, const void *request, size_t length)
{
    unsigned sent = 0;
    while (send(fd, request, length, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)length)
        sent++;
    return sent;
}

static void test_lesson_326_a_peer_that_does_not_read_is_not_read_from(void **state)
{
    struct kit_server *k = *state;
    struct {
        struct xsd_sockmsg header;
        char payload[5];
    } __attribute__((packed)) request = {.header = {.type = XS_READ, .len = 5}, .payload = "/big"};
    static char big[XENSTORE_PAYLOAD_MAX] = "/big";
    int fd = kit_connect(k, 0), other = kit_connect(k, 0);
    kit_expect_ok(kit_exchange(other, XS_WRITE, 0, big, sizeof(big)));
    unsigned sent = 0, more;
    uint64_t served;
    do { /* until both sides stand still */
        served = kit_stats(k).requests;
        more = flood(fd, &request, sizeof(request));
        sent += more;
        for (unsigned i = 0; i < 50; i++) /* another's service goes on, and gives the server its turns */
            assert_int_equal(kit_exchange(other, XS_READ, 0, "/tool", 6).type, XS_READ);
        served = kit_stats(k).requests - served;
    } while (more > 0 || served > 50);
    assert_true(kit_stats(k).requests < sent); /* not all were read: what they ask for does not pile up */
    struct kit_reply r;
    assert_true(kit_receive(fd, &r)); /* it was kept waiting, not dropped */
    assert_int_equal(r.length, sizeof(big) - 5);
    close(fd);
    close(other);
}

static void test_lesson_326_a_guest_with_too_many_unread_events_is_disconnected(void **state)
{
    struct kit_server *k = *state;
    struct store_client *dom0 = kit_client(k, 0);
    kit_guest_make(dom0, 3);
    int fd = kit_connect(k, 3), small = 4096;
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
    static char watch[3000];
    strcpy(watch, "/open");
    memset(watch + 6, 't', sizeof(watch) - 7); /* long tokens fill the socket early */
    kit_expect_ok(kit_exchange(fd, XS_WATCH, 0, watch, sizeof(watch)));
    assert_int_equal(store_mkdir(dom0, STORE_NO_TX, "/open"), 0);
    assert_int_equal(store_set_owner_reader(dom0, STORE_NO_TX, 0, 3, "/open"), 0);
    unsigned i = 0;
    while (kit_stats(k).connections == 2) {
        assert_true(i < 100000);
        assert_int_equal(store_write(dom0, STORE_NO_TX, "", "/open/%u", i++), 0);
    }
    assert_true(i > STORE_EVENTS_MAX_GUEST);
    assert_int_equal(kit_stats(k).watches, 0);
    close(fd);
    store_client_close(dom0);
}

static void test_a_guest_has_a_bounded_number_of_connections(void **state)
{
    struct kit_server *k = *state;
    struct store_client *dom0 = kit_client(k, 0);
    struct kit_reply r;
    kit_guest_make(dom0, 3);
    int fds[17];
    for (unsigned i = 0; i < 16; i++) {
        fds[i] = kit_connect(k, 3);
        kit_exchange(fds[i], XS_GET_DOMAIN_PATH, 0, "3", 2);
    }
    fds[16] = kit_connect(k, 3);
    assert_false(kit_receive(fds[16], &r));
    for (unsigned i = 0; i < 17; i++)
        close(fds[i]);
    while (kit_stats(k).connections > 1)
        continue;
    fds[0] = kit_connect(k, 3);
    kit_expect_string(kit_exchange(fds[0], XS_GET_DOMAIN_PATH, 0, "3", 2), "/local/domain/3");
    close(fds[0]);
    store_client_close(dom0);
}

static void test_another_users_process_is_refused_even_where_the_file_mode_lets_it_in(void **state)
{
    struct kit_server *k = *state;
    if (geteuid() != 0) {
        print_message("skipped: only root can become somebody else\n");
        skip();
    }
    char directory[96];
    snprintf(directory, sizeof(directory), "%s/xenstored", k->dir);
    assert_int_equal(chmod(k->dir, 0755) | chmod(directory, 0755) | chmod(k->socket, 0666), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        char byte;
        int fd = setuid(65534) == 0 ? kit_connect(k, 0) : -1;
        _exit(fd >= 0 && recv(fd, &byte, 1, 0) == 0 ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(kit_stats(k).connections, 0);
}

/* Two guests: while one keeps making the other's transactions fail, its requests wait. It does get its turn again. */
static void test_lesson_206_a_braked_guest_is_served_again(void **state)
{
    struct kit_server *k = *state;
    struct store_client *dom0 = kit_client(k, 0);
    kit_guest_make(dom0, 3);
    kit_guest_make(dom0, 4);
    int fd = kit_connect(k, 0);
    kit_expect_ok(kit_exchange(fd, XS_MKDIR, 0, "/fought", 8));
    kit_expect_ok(kit_exchange(fd, XS_SET_PERMS, 0, "/fought\0b0", 11));
    close(fd);
    int victim = kit_connect(k, 3), flooder = kit_connect(k, 4);
    for (unsigned i = 0; i < 5; i++) {
        struct kit_reply r = kit_exchange(victim, XS_TRANSACTION_START, 0, "", 1);
        uint32_t tx = (uint32_t)strtoul(r.bytes, NULL, 10);
        kit_exchange(victim, XS_READ, tx, "/fought", 8);
        kit_expect_ok(kit_exchange(flooder, XS_WRITE, 0, "/fought\0x", 9));
        kit_expect_error(kit_exchange(victim, XS_TRANSACTION_END, tx, "T", 2), "EAGAIN");
    }
    kit_expect_ok(kit_exchange(flooder, XS_WRITE, 0, "/fought\0x", 9)); /* sooner or later */
    close(victim);
    close(flooder);
    store_client_close(dom0);
}

static void test_random_bytes_do_no_harm(void **state)
{
    struct kit_server *k = *state;
    struct store_client *dom0 = kit_client(k, 0);
    kit_guest_make(dom0, 3);
    uint64_t random = 7;
    for (unsigned round = 0; round < 200; round++) {
        unsigned char bytes[256];
        int fd = kit_connect(k, 3);
        for (size_t i = 0; i < sizeof(bytes); i++)
            bytes[i] = (unsigned char)kit_random(&random, 256);
        struct xsd_sockmsg header = {.type = kit_random(&random, 30), .len = kit_random(&random, 240)};
        memcpy(bytes, &header, sizeof(header)); /* the first header is sound, what follows is not */
        if (send(fd, bytes, sizeof(bytes), MSG_NOSIGNAL) < 0)
            assert_int_equal(errno, EPIPE);
        close(fd);
    }
    kit_expect_value(dom0, "/tool", "");
    store_client_close(dom0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, kit_server_new, kit_server_free)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_a_guests_socket_cannot_act_as_domain_0),
        T(test_two_guests_cannot_read_each_others_nodes),
        T(test_lesson_420_a_huge_length_ends_the_connection_at_its_header),
        T(test_requests_may_arrive_a_byte_at_a_time_or_many_at_once),
        T(test_torn_connections_leave_nothing),
        T(test_lesson_326_a_peer_that_does_not_read_is_not_read_from),
        T(test_lesson_326_a_guest_with_too_many_unread_events_is_disconnected),
        T(test_a_guest_has_a_bounded_number_of_connections),
        T(test_another_users_process_is_refused_even_where_the_file_mode_lets_it_in),
        T(test_lesson_206_a_braked_guest_is_served_again),
        T(test_random_bytes_do_no_harm),
    };
    return cmocka_run_group_tests_name("store_hostile", tests, NULL, NULL);
}
