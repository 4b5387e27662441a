/* SPDX-License-Identifier: MIT */
/* The store role goes on as another binary, in the real daemon: clients under load notice nothing, whatever they were
 * in the middle of; a binary that cannot go on changes nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/unixsock.h"
#include "tests/harness.h"
#include "tests/storekit.h"

#define CLIENTS 24
#define UPDATES 6

static int raw(const struct world *w, unsigned domid)
{
    char path[160];
    if (domid)
        snprintf(path, sizeof(path), "%s/dom/%u/xenstored.sock", w->run, domid);
    else
        snprintf(path, sizeof(path), "%s/xenstored/socket", w->run);
    int fd = unixsock_connect(path, SOCK_STREAM, NULL);
    assert_true(fd >= 0);
    return fd;
}

static void update(const struct world *w, const char *program)
{
    char exe[64], target[256] = "";
    pid_t pid = world_role(w, "store");
    kit_live_update(world_path(w, "run/xenstored/socket"), program);
    snprintf(exe, sizeof(exe), "/proc/%d/exe", (int)pid);
    assert_true(readlink(exe, target, sizeof(target) - 1) > 0);
    assert_string_equal(target, program);
    assert_int_equal(world_role(w, "store"), pid);
}

/* The program that the daemon was started from. */
static const char *same(void)
{
    static char path[PATH_MAX];
    assert_non_null(realpath(world_program("domzerod"), path));
    return path;
}

/* The same program under another name; static storage. */
static const char *copy_of(const struct world *w, const char *name)
{
    static char to[PATH_MAX];
    char out[256];
    snprintf(to, sizeof(to), "%s", world_path(w, name));
    assert_int_equal(world_shell(w, out, sizeof(out), "cp %s %s", world_program("domzerod"), to), 0);
    return to;
}

static int setup(void **state)
{
    struct world *w = malloc(sizeof(*w));
    assert_non_null(w);
    world_start(w, NULL);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    world_stop(*state);
    free(*state);
    return 0;
}

static void write_value(int fd, uint32_t tx, const char *path, const char *value)
{
    char payload[256];
    int n = snprintf(payload, sizeof(payload), "%s%c%s", path, '\0', value);
    kit_expect_string(kit_exchange(fd, XS_WRITE, tx, payload, (size_t)n), "OK");
}

static void introduce(const struct world *w, int fd, unsigned domid)
{
    char payload[64];
    (void)w;
    int n = snprintf(payload, sizeof(payload), "%u%c1%c0", domid, '\0', '\0');
    kit_expect_string(kit_exchange(fd, XS_INTRODUCE, 0, payload, (size_t)n + 1), "OK");
}

/* ---- in the middle of something ---- */

static void test_half_a_request_is_completed_by_its_second_half(void **state)
{
    struct world *w = *state;
    int fd = raw(w, 0);
    struct kit_reply r;
    struct xsd_sockmsg header = {.type = XS_GET_DOMAIN_PATH, .req_id = 9, .len = 2};
    kit_send(fd, &header, 7);
    update(w, same());
    kit_send(fd, (char *)&header + 7, sizeof(header) - 7 + 0);
    kit_send(fd, "4", 1);
    update(w, same());
    kit_send(fd, "", 1);
    assert_true(kit_receive(fd, &r));
    kit_expect_string(r, "/local/domain/4");
    close(fd);
}

static void test_replies_that_were_not_read_are_all_there_in_their_order(void **state)
{
    struct world *w = *state;
    enum { ASKED = 150, BYTES = 4000 }; /* more than sockets and server hold: the rest waits in the socket */
    int fd = raw(w, 0), asker = raw(w, 0);
    static char value[8 + BYTES];
    memset(value, 'v', sizeof(value));
    memcpy(value, "/long", 6);
    kit_expect_string(kit_exchange(asker, XS_WRITE, 0, value, 6 + BYTES), "OK");
    for (unsigned i = 0; i < ASKED; i++) {
        char request[22];
        memcpy(request, &(struct xsd_sockmsg){.type = XS_READ, .req_id = i, .len = 6}, 16);
        memcpy(request + 16, "/long", 6);
        kit_send(fd, request, sizeof(request));
        if (i == 90 || i == ASKED - 1)
            update(w, same());
    }
    for (unsigned i = 0; i < ASKED; i++) {
        struct store_message m;
        assert_int_equal(recv(fd, &m.header, sizeof(m.header), MSG_WAITALL), sizeof(m.header));
        assert_int_equal(m.header.req_id, i);
        assert_int_equal(m.header.type, XS_READ);
        assert_int_equal(m.header.len, BYTES);
        assert_int_equal(recv(fd, m.payload, BYTES, MSG_WAITALL), BYTES);
        assert_memory_equal(m.payload, value + 6, BYTES);
        if (i == 3 || i == 100)
            update(w, same());
    }
    close(fd);
    close(asker);
}

static void test_a_transaction_stays_open(void **state)
{
    struct world *w = *state;
    int fd = raw(w, 0);
    uint32_t tx = (uint32_t)strtoul(kit_exchange(fd, XS_TRANSACTION_START, 0, "", 1).bytes, NULL, 10);
    write_value(fd, tx, "/in/transaction", "yes");
    update(w, same());
    kit_expect_error(kit_exchange(fd, XS_READ, 0, "/in/transaction", 16), "ENOENT");
    kit_expect_text(kit_exchange(fd, XS_READ, tx, "/in/transaction", 16), "yes");
    kit_expect_string(kit_exchange(fd, XS_TRANSACTION_END, tx, "T", 2), "OK");
    kit_expect_text(kit_exchange(fd, XS_READ, 0, "/in/transaction", 16), "yes");
    close(fd);
}

static void test_a_guest_keeps_its_socket_and_stays_a_guest(void **state)
{
    struct world *w = *state;
    int dom0 = raw(w, 0);
    unsigned domid;
    world_image(w, "disk", 1 << 20, 1);
    domid = world_guest(w, "one", "disk", NULL);
    int guest = raw(w, domid);
    write_value(guest, 0, "data/x", "before");
    update(w, copy_of(w, "another"));
    int later = raw(w, domid);
    kit_expect_text(kit_exchange(later, XS_READ, 0, "data/x", 7), "before");
    kit_expect_text(kit_exchange(guest, XS_READ, 0, "data/x", 7), "before");
    kit_expect_error(kit_exchange(guest, XS_INTRODUCE, 0, "9\0001\0002", 6), "EACCES");
    kit_expect_error(kit_exchange(guest, XS_WRITE, 0, "/tool/x\0y", 9), "EACCES");
    close(guest);
    close(later);
    close(dom0);
}

static void test_a_domain_s_end_is_still_told_and_takes_everything(void **state)
{
    struct world *w = *state;
    char out[256];
    struct kit_reply r;
    world_image(w, "disk", 1 << 20, 1);
    unsigned domid = world_guest(w, "one", "disk", NULL);
    int dom0 = raw(w, 0), guest = raw(w, domid);
    kit_expect_string(kit_exchange(dom0, XS_WATCH, 0, "@releaseDomain\0t", 17), "OK");
    assert_true(kit_receive(dom0, &r)); /* the first event */
    update(w, same());
    assert_int_equal(world_domzero(w, out, sizeof(out), "destroy one"), 0);
    assert_true(kit_receive(dom0, &r));
    assert_int_equal(r.type, XS_WATCH_EVENT);
    assert_string_equal(r.bytes, "@releaseDomain");
    assert_false(kit_receive(guest, &r));
    close(guest);
    close(dom0);
}

/* ---- under load ---- */

struct client {
    const struct world *world;
    pthread_t thread;
    unsigned number;
    atomic_bool *stop;
    uint64_t rounds, events;
    const char *wrong; /* NULL: all was well */
    struct kit_reply got;
};

/* One request; events that come before the reply are counted. False: the connection is gone or the reply is none. */
static bool ask(struct client *c, int fd, uint32_t type, uint32_t tx, const void *payload, size_t length)
{
    kit_send_request(fd, type, tx, payload, length);
    for (;;) {
        if (!kit_receive(fd, &c->got))
            return false;
        if (c->got.type != XS_WATCH_EVENT)
            return c->got.type == type;
        c->events++;
    }
}

static bool client_transaction(struct client *c, int fd, const char *path, const char *value)
{
    char payload[128];
    int n = snprintf(payload, sizeof(payload), "%s/tx%c%s", path, '\0', value);
    if (!ask(c, fd, XS_TRANSACTION_START, 0, "", 1))
        return false;
    uint32_t tx = (uint32_t)strtoul(c->got.bytes, NULL, 10);
    bool ok = ask(c, fd, XS_READ, tx, path, strlen(path) + 1) && strcmp(c->got.bytes, value) == 0 &&
              ask(c, fd, XS_WRITE, tx, payload, (size_t)n) && ask(c, fd, XS_TRANSACTION_END, tx, "T", 2);
    return ok;
}

/* Writes, reads back, runs a transaction; whoever watches below its own directory gets an event for each write. */
static const char *client_round(struct client *c, int fd, const char *path, uint64_t round)
{
    char value[32], payload[128];
    snprintf(value, sizeof(value), "%llu", (unsigned long long)round);
    int n = snprintf(payload, sizeof(payload), "%s%c%s", path, '\0', value);
    uint64_t before = c->events;
    if (!ask(c, fd, XS_WRITE, 0, payload, (size_t)n))
        return "a write";
    if (!ask(c, fd, XS_READ, 0, path, strlen(path) + 1) || strcmp(c->got.bytes, value) != 0)
        return "a read of what was written";
    if (c->events == before) /* an event goes before the reply to the next request */
        return "the event of a write";
    return client_transaction(c, fd, path, value) ? NULL : "a transaction";
}

static void *client_run(void *context)
{
    struct client *c = context;
    char path[64], payload[96];
    int fd = raw(c->world, 0);
    snprintf(path, sizeof(path), "/load/%u", c->number);
    int n = snprintf(payload, sizeof(payload), "%s%ctoken", path, '\0');
    if (!ask(c, fd, XS_WATCH, 0, payload, (size_t)n + 1))
        c->wrong = "a watch";
    while (!c->wrong && !atomic_load(c->stop)) {
        c->wrong = client_round(c, fd, path, c->rounds);
        c->rounds++;
    }
    close(fd);
    return NULL;
}

static void test_clients_under_load_notice_nothing(void **state)
{
    struct world *w = *state;
    static struct client clients[CLIENTS];
    const char *programs[] = {same(), copy_of(w, "another")};
    atomic_bool stop = false;
    uint64_t least = UINT64_MAX;
    for (unsigned i = 0; i < CLIENTS; i++) {
        clients[i] = (struct client){.world = w, .number = i, .stop = &stop};
        assert_int_equal(pthread_create(&clients[i].thread, NULL, client_run, &clients[i]), 0);
    }
    for (unsigned i = 0; i < UPDATES; i++) {
        poll(NULL, 0, 30);
        update(w, programs[(i + 1) % 2]);
    }
    atomic_store(&stop, true);
    for (unsigned i = 0; i < CLIENTS; i++) {
        assert_int_equal(pthread_join(clients[i].thread, NULL), 0);
        if (clients[i].wrong)
            fail_msg("client %u, round %llu: %s: %s", i, (unsigned long long)clients[i].rounds, clients[i].wrong,
                     clients[i].got.bytes);
        least = MIN(least, clients[i].rounds);
    }
    assert_true(least > 0);
}

/* ---- what cannot go on ---- */

static void script(const struct world *w, const char *name, const char *text)
{
    world_write(w, name, text);
    assert_int_equal(chmod(world_path(w, name), 0755), 0);
}

static void test_a_binary_that_cannot_go_on_changes_nothing(void **state)
{
    struct world *w = *state;
    static const struct {
        const char *text, *reason;
    } bad[] = {
        {"#!/bin/sh\nexit 0\n", "with status 0"},
        {"#!/bin/sh\necho 'this is no store' >&2\nexit 3\n", "with status 3: this is no store"},
        {"#!/bin/sh\nkill -SEGV $$\n", "by signal 11"},
        {"not a program", "cannot be executed"},
    };
    int fd = raw(w, 0), other = raw(w, 0);
    pid_t pid = world_role(w, "store");
    write_value(fd, 0, "/kept", "yes");
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        script(w, "bad", bad[i].text);
        kit_expect_string(kit_live_ask(fd, "-f", world_path(w, "bad")), "OK");
        struct kit_reply r = kit_live_start(fd);
        assert_int_equal(r.type, XS_CONTROL);
        if (!strstr(r.bytes, bad[i].reason))
            fail_msg("'%s' lacks '%s'", r.bytes, bad[i].reason);
        kit_expect_text(kit_exchange(other, XS_READ, 0, "/kept", 6), "yes");
    }
    assert_int_equal(world_role(w, "store"), pid);
    update(w, same());
    close(fd);
    close(other);
}

static void test_a_binary_that_never_answers_is_forgotten_and_the_store_serves(void **state)
{
    struct world *w = *state;
    int fd = raw(w, 0), other = raw(w, 0);
    script(w, "slow", "#!/bin/sh\nexec sleep 1000\n");
    kit_expect_string(kit_live_ask(fd, "-f", world_path(w, "slow")), "OK");
    for (unsigned i = 0; i < 5; i++) {
        kit_expect_string(kit_live_ask(fd, "-s", NULL), "BUSY");
        write_value(other, 0, "/meanwhile", "served");
    }
    kit_expect_string(kit_live_ask(fd, "-a", NULL), "OK");
    kit_expect_string(kit_live_ask(fd, "-s", NULL), "not in a live update that this connection began");
    update(w, same());
    kit_expect_text(kit_exchange(other, XS_READ, 0, "/meanwhile", 11), "served");
    close(fd);
    close(other);
}

static void test_what_is_no_request_for_an_update_is_refused(void **state)
{
    struct world *w = *state;
    int fd = raw(w, 0), other = raw(w, 0);
    kit_expect_error(kit_live_ask(fd, "-x", NULL), "EINVAL");
    kit_expect_error(kit_live_ask(fd, "-f", NULL), "EINVAL");
    kit_expect_error(kit_live_ask(fd, "-s", "-t"), "EINVAL");
    kit_expect_string(kit_live_ask(fd, "-s", NULL), "not in a live update that this connection began");
    assert_non_null(strstr(kit_live_ask(fd, "-f", "domzerod").bytes, "no absolute path"));
    assert_non_null(strstr(kit_live_ask(fd, "-f", "/does/not/exist").bytes, "cannot be executed"));
    kit_expect_string(kit_live_ask(fd, "-f", same()), "OK");
    kit_expect_string(kit_live_ask(other, "-s", NULL), "not in a live update that this connection began");
    kit_expect_string(kit_live_ask(fd, "-s", "-F"), "BUSY");
    kit_expect_string(kit_live_start(fd), "OK");
    close(fd);
    close(other);
}

/* Whoever knows a guest's socket only cannot have it execute anything. */
static void test_a_guest_may_not_ask(void **state)
{
    struct world *w = *state;
    int dom0 = raw(w, 0);
    introduce(w, dom0, 77);
    int guest = raw(w, 77);
    kit_expect_error(kit_live_ask(guest, "-f", "/bin/true"), "EACCES");
    close(guest);
    close(dom0);
}

static void test_arguments_are_handed_to_the_new_program(void **state)
{
    struct world *w = *state;
    char out[4096];
    int fd = raw(w, 0);
    kit_expect_string(kit_live_ask(fd, "-f", same()), "OK");
    kit_expect_string(kit_live_ask(fd, "-c", "--log-level debug"), "OK");
    kit_expect_string(kit_live_start(fd), "OK");
    kit_expect_string(kit_exchange(fd, XS_GET_DOMAIN_PATH, 0, "0", 2), "/local/domain/0");
    world_shell(w, out, sizeof(out), "tr '\\0' ' ' < /proc/%d/cmdline", (int)world_role(w, "store"));
    assert_non_null(strstr(out, "--log-level debug"));
    close(fd);
}

static void test_a_role_that_went_on_is_restarted_like_any_other(void **state)
{
    struct world *w = *state;
    int fd = raw(w, 0);
    write_value(fd, 0, "/kept", "yes");
    update(w, same());
    write_value(fd, 0, "/later", "too");
    kill(world_role(w, "store"), SIGKILL);
    struct kit_reply r;
    assert_false(kit_receive(fd, &r));
    close(fd);
    world_await(world_serves, w, "the store serves again");
    fd = raw(w, 0);
    kit_expect_text(kit_exchange(fd, XS_READ, 0, "/kept", 6), "yes");
    kit_expect_text(kit_exchange(fd, XS_READ, 0, "/later", 7), "too");
    close(fd);
}

static void test_the_tool_upgrades_the_store_and_a_restart_is_the_new_binary_s(void **state)
{
    struct world *w = *state;
    char out[1024], exe[64], target[256] = "";
    const char *another = copy_of(w, "another");
    struct kit_reply r;
    int fd = raw(w, 0);
    write_value(fd, 0, "/kept", "yes");
    if (world_domzero(w, out, sizeof(out), "upgrade --role store --binary %s", another) != 0)
        fail_msg("%s", out);
    kit_expect_text(kit_exchange(fd, XS_READ, 0, "/kept", 6), "yes");
    kill(world_role(w, "store"), SIGKILL);
    assert_false(kit_receive(fd, &r));
    world_await(world_serves, w, "the store serves again");
    do /* its pid may be told after it serves */
        snprintf(exe, sizeof(exe), "/proc/%d/exe", (int)world_role(w, "store"));
    while (readlink(exe, target, sizeof(target) - 1) <= 0);
    assert_string_equal(target, another);
    assert_int_equal(world_domzero(w, out, sizeof(out), "upgrade --role store --binary /bin/false"), 1);
    assert_non_null(strstr(out, "the store goes on"));
    close(fd);
}

#define WORLD_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_half_a_request_is_completed_by_its_second_half),
        WORLD_TEST(test_replies_that_were_not_read_are_all_there_in_their_order),
        WORLD_TEST(test_a_transaction_stays_open),
        WORLD_TEST(test_a_guest_keeps_its_socket_and_stays_a_guest),
        WORLD_TEST(test_a_domain_s_end_is_still_told_and_takes_everything),
        WORLD_TEST(test_clients_under_load_notice_nothing),
        WORLD_TEST(test_a_binary_that_cannot_go_on_changes_nothing),
        WORLD_TEST(test_a_binary_that_never_answers_is_forgotten_and_the_store_serves),
        WORLD_TEST(test_what_is_no_request_for_an_update_is_refused),
        WORLD_TEST(test_a_guest_may_not_ask),
        WORLD_TEST(test_arguments_are_handed_to_the_new_program),
        WORLD_TEST(test_the_tool_upgrades_the_store_and_a_restart_is_the_new_binary_s),
        WORLD_TEST(test_a_role_that_went_on_is_restarted_like_any_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
