/* SPDX-License-Identifier: MIT */
/* The server over real sockets, with libxenstore at the other end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <poll.h>
#include <stdio.h>
#include <sys/stat.h>

#include "store/client.h"
#include "tests/storekit.h"

static void wait_readable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 30000), 1);
}

static void event_is(struct store_client *c, const char *path, const char *token)
{
    char **event;
    const char *got_path, *got_token;
    int r;
    while ((r = store_next_event(c, &event, &got_path, &got_token)) == -EAGAIN)
        wait_readable(store_client_fd(c));
    assert_int_equal(r, 0);
    assert_string_equal(got_path, path);
    assert_string_equal(got_token, token);
    free(event);
}

static void test_the_client_does_all_that_its_header_says(void **state)
{
    struct store_client *c = kit_client(*state, 0);
    char **names, *value;
    unsigned count;
    store_tx tx;
    assert_int_equal(store_write(c, STORE_NO_TX, "v", "/dir/%s", "a"), 0);
    assert_int_equal(store_printf(c, STORE_NO_TX, "/dir", "b", "%d", 7), 0);
    kit_expect_value(c, "/dir/a", "v");
    kit_expect_value(c, "/dir/b", "7");
    assert_int_equal(store_directory(c, STORE_NO_TX, &names, &count, "/dir"), 0);
    assert_int_equal(count, 2);
    assert_string_equal(names[0], "a");
    assert_string_equal(names[1], "b");
    assert_null(names[2]);
    free(names);
    assert_int_equal(store_tx_start(c, &tx), 0);
    assert_int_equal(store_rm(c, tx, "/dir"), 0);
    assert_int_equal(store_tx_end(c, tx, true), 0);
    kit_expect_value(c, "/dir/a", "v");
    assert_int_equal(store_rm(c, STORE_NO_TX, "/dir"), 0);
    assert_int_equal(store_rm(c, STORE_NO_TX, "/dir"), 0);
    assert_int_equal(store_rm(c, STORE_NO_TX, "/no/parent"), 0);
    assert_int_equal(store_read(c, STORE_NO_TX, &value, NULL, "/dir/a"), -ENOENT);
    assert_int_equal(store_directory(c, STORE_NO_TX, &names, NULL, "/dir"), -ENOENT);
    assert_int_equal(store_mkdir(c, STORE_NO_TX, "/illegal name"), -EINVAL);
    assert_int_equal(store_mkdir(c, STORE_NO_TX, "/%01100d", 1), -ENAMETOOLONG);
    store_client_close(c);
}

static void test_an_empty_directory_is_an_empty_array(void **state)
{
    struct store_client *c = kit_client(*state, 0);
    char **names;
    unsigned count = 9;
    assert_int_equal(store_mkdir(c, STORE_NO_TX, "/empty"), 0);
    assert_int_equal(store_directory(c, STORE_NO_TX, &names, &count, "/empty"), 0);
    assert_int_equal(count, 0);
    assert_null(names[0]);
    free(names);
    store_client_close(c);
}

static void test_a_directory_bigger_than_a_message_reaches_the_client(void **state)
{
    struct store_client *c = kit_client(*state, 0);
    char **names;
    unsigned count;
    for (unsigned i = 0; i < 800; i++)
        assert_int_equal(store_write(c, STORE_NO_TX, "", "/many/entry-%u", i), 0);
    assert_int_equal(store_directory(c, STORE_NO_TX, &names, &count, "/many"), 0);
    assert_int_equal(count, 800);
    assert_string_equal(names[799], "entry-799");
    free(names);
    store_client_close(c);
}

static void test_the_environment_is_left_as_it_was(void **state)
{
    setenv("XENSTORED_PATH", "/nowhere/at/all", 1);
    struct store_client *c = kit_client(*state, 0), *none;
    struct err e = {0};
    assert_string_equal(getenv("XENSTORED_PATH"), "/nowhere/at/all");
    assert_true(store_client_open(NULL, &none, &e) < 0);
    assert_non_null(strstr(e.text, "/nowhere/at/all"));
    unsetenv("XENSTORED_PATH");
    assert_true(store_client_open("/nowhere/else", &none, &e) < 0);
    assert_null(getenv("XENSTORED_PATH"));
    store_client_close(c);
}

static void test_a_conflict_is_eagain_and_a_retry_succeeds(void **state)
{
    struct store_client *a = kit_client(*state, 0), *b = kit_client(*state, 0);
    store_tx tx;
    char *value;
    assert_int_equal(store_write(a, STORE_NO_TX, "0", "/n"), 0);
    assert_int_equal(store_tx_start(a, &tx), 0);
    assert_int_equal(store_read(a, tx, &value, NULL, "/n"), 0);
    free(value);
    assert_int_equal(store_write(b, STORE_NO_TX, "1", "/n"), 0);
    assert_int_equal(store_write(a, tx, "2", "/n"), 0);
    assert_int_equal(store_tx_end(a, tx, false), -EAGAIN);
    kit_expect_value(a, "/n", "1");
    assert_int_equal(store_tx_start(a, &tx), 0);
    assert_int_equal(store_write(a, tx, "2", "/n"), 0);
    assert_int_equal(store_tx_end(a, tx, false), 0);
    kit_expect_value(b, "/n", "2");
    store_client_close(a);
    store_client_close(b);
}

static void test_watches_reach_other_connections(void **state)
{
    struct store_client *dom0 = kit_client(*state, 0);
    kit_guest_make(dom0, 3);
    struct store_client *guest = kit_client(*state, 3);
    assert_int_equal(store_watch(dom0, "back", "/local/domain/3/device"), 0);
    event_is(dom0, "/local/domain/3/device", "back");
    assert_int_equal(store_watch(guest, "front", "device"), 0);
    event_is(guest, "device", "front");
    assert_int_equal(store_write(guest, STORE_NO_TX, "1", "device/vbd/0/state"), 0);
    event_is(dom0, "/local/domain/3/device/vbd/0/state", "back");
    event_is(guest, "device/vbd/0/state", "front");
    assert_int_equal(store_unwatch(guest, "front", "device"), 0);
    assert_int_equal(store_unwatch(guest, "front", "device"), -ENOENT);
    store_client_close(guest);
    store_client_close(dom0);
}

static void test_introduce_makes_a_socket_and_release_takes_it(void **state)
{
    struct kit_server *k = *state;
    struct store_client *dom0 = kit_client(k, 0);
    struct stat st;
    char path[128];
    assert_int_equal(stat(k->socket, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    snprintf(path, sizeof(path), "%s/dom/5", k->dir);
    assert_int_equal(store_introduce(dom0, 5, 123, 456), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    strcat(path, "/xenstored.sock");
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(store_introduce(dom0, 5, 123, 456), 0);
    int fd = kit_connect(k, 5);
    struct kit_reply r = kit_exchange(fd, XS_GET_DOMAIN_PATH, 0, "5", 2);
    kit_expect_string(r, "/local/domain/5");
    assert_int_equal(store_release(dom0, 5), 0);
    assert_int_equal(stat(path, &st), -1);
    assert_false(kit_receive(fd, &r)); /* its connections end */
    close(fd);
    assert_int_equal(store_release(dom0, 5), -ENOENT);
    assert_int_equal(store_introduce(dom0, 5, 1, 1), 0); /* the number's next domain */
    fd = kit_connect(k, 5);
    assert_true(fd >= 0);
    close(fd);
    store_client_close(dom0);
}

static void test_a_domain_that_died_loses_its_connections_and_counts(void **state)
{
    struct kit_server *k = *state;
    struct store_client *dom0 = kit_client(k, 0);
    kit_guest_make(dom0, 3);
    assert_int_equal(store_watch(dom0, "gone", "@releaseDomain"), 0);
    event_is(dom0, "@releaseDomain", "gone");
    int fd = kit_connect(k, 3);
    kit_expect_ok(kit_exchange(fd, XS_WATCH, 0, "x\0t", 4));
    assert_int_equal(kit_exchange(fd, XS_TRANSACTION_START, 0, "", 1).type, XS_TRANSACTION_START);
    assert_int_equal(kit_stats(k).transactions, 1);
    pthread_mutex_lock(&k->lock);
    store_server_domain_gone(k->server, 3);
    store_server_domain_gone(k->server, 3);
    store_server_domain_gone(k->server, 99);
    store_server_domain_gone(k->server, 0);
    pthread_mutex_unlock(&k->lock);
    event_is(dom0, "@releaseDomain", "gone");
    struct kit_reply r;
    while (kit_receive(fd, &r))
        assert_int_equal(r.type, XS_WATCH_EVENT);
    struct store_server_stats stats = kit_stats(k);
    assert_int_equal(stats.transactions, 0);
    assert_int_equal(stats.watches, 1);
    assert_int_equal(stats.domains, 0);
    assert_int_equal(stats.connections, 1);
    close(fd);
    store_client_close(dom0);
}

static void test_a_server_that_cannot_bind_says_why(void **state)
{
    (void)state;
    struct store_server *s = NULL;
    struct err e = {0};
    assert_int_equal(store_server_new("/proc/nothing/here", NULL, &s, &e), -ENOENT);
    assert_non_null(strstr(e.text, "/proc/nothing/here"));
    assert_null(s);
    char longest[200];
    memset(longest, 'x', sizeof(longest));
    memcpy(longest, "/tmp/", 5);
    longest[150] = '\0';
    assert_int_equal(store_server_new(longest, NULL, &s, &e), -ENAMETOOLONG);
    char command[256];
    snprintf(command, sizeof(command), "rm -r %s", longest);
    assert_int_equal(system(command), 0);
}

static void test_a_client_learns_that_the_store_is_gone(void **state)
{
    (void)state;
    struct kit_server gone;
    kit_server_start(&gone, NULL);
    struct store_client *c = kit_client(&gone, 0);
    char **event;
    const char *path, *token;
    int r;
    assert_int_equal(store_watch(c, "t", "/x"), 0);
    event_is(c, "/x", "t");
    kit_server_stop(&gone);
    while ((r = store_next_event(c, &event, &path, &token)) == -EAGAIN)
        continue;
    assert_int_equal(r, -EPIPE);
    assert_int_equal(store_write(c, STORE_NO_TX, "v", "/x"), -EPIPE);
    store_client_close(c);
}

static void test_two_servers_live_in_one_process(void **state)
{
    struct kit_server other;
    kit_server_start(&other, NULL);
    struct store_client *a = kit_client(*state, 0), *b = kit_client(&other, 0);
    char *value;
    assert_int_equal(store_write(a, STORE_NO_TX, "a", "/x"), 0);
    assert_int_equal(store_read(b, STORE_NO_TX, &value, NULL, "/x"), -ENOENT);
    store_client_close(a);
    store_client_close(b);
    kit_server_stop(&other);
}

#define T(name) cmocka_unit_test_setup_teardown(name, kit_server_new, kit_server_free)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_the_client_does_all_that_its_header_says),
        T(test_an_empty_directory_is_an_empty_array),
        T(test_a_directory_bigger_than_a_message_reaches_the_client),
        T(test_the_environment_is_left_as_it_was),
        T(test_a_conflict_is_eagain_and_a_retry_succeeds),
        T(test_watches_reach_other_connections),
        T(test_introduce_makes_a_socket_and_release_takes_it),
        T(test_a_domain_that_died_loses_its_connections_and_counts),
        T(test_a_server_that_cannot_bind_says_why),
        T(test_a_client_learns_that_the_store_is_gone),
        T(test_two_servers_live_in_one_process),
    };
    return cmocka_run_group_tests_name("store_server", tests, NULL, NULL);
}
