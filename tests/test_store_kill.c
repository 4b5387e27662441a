/* SPDX-License-Identifier: MIT */
/* A store with a journal is killed with SIGKILL at random moments, again and again, while clients work on it: each
 * change that was acknowledged is there afterwards, no transaction is there by half, and its clients go on.
 *
 * The store is a process of its own; who keeps the books of what was acknowledged is this one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include <ftw.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "store/client.h"
#include "store/journal.h"
#include "store/link.h"
#include "store/server.h"
#include "tests/storekit.h"

#define KILLS   120
#define WRITERS 3
#define KEYS    16

static char run_dir[64], socket_path[96], journal_path[96];
static pid_t store_pid;
static _Atomic bool stopping;

/* What one writer knows: it alone writes below /w<index>. */
struct writer {
    pthread_t thread;
    unsigned index;
    uint64_t asked[KEYS], acknowledged[KEYS]; /* the number last asked for, and answered */
    uint64_t tx_asked, tx_acknowledged;
    _Atomic uint64_t rounds;
    _Atomic(const char *) failure;
    int code;
};

static void serve(void)
{
    struct store_options o = {.journal = journal_path};
    struct store_server *s;
    struct err e = {""};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (store_server_new(run_dir, &o, &s, &e) < 0) {
        fprintf(stderr, "%s\n", e.text);
        _exit(1);
    }
    for (;;) {
        struct pollfd p = {.fd = store_server_fd(s), .events = POLLIN};
        poll(&p, 1, -1);
        if (store_server_step(s, 64) < 0)
            _exit(1);
    }
}

static void store_start(void)
{
    store_pid = fork();
    assert_true(store_pid >= 0);
    if (store_pid == 0)
        serve();
}

static void store_kill(void)
{
    int status;
    kill(store_pid, SIGKILL);
    assert_int_equal(waitpid(store_pid, &status, 0), store_pid);
    assert_true(WIFSIGNALED(status));
}

static struct store_client *client(void)
{
    struct store_client *c;
    struct err e = {""};
    while (access(socket_path, F_OK) < 0)
        poll(NULL, 0, 1);
    if (store_client_open(socket_path, &c, &e) < 0)
        fail_msg("%s", e.text);
    return c;
}

static int write_key(struct writer *w, struct store_client *c, unsigned key)
{
    char text[32];
    snprintf(text, sizeof(text), "%" PRIu64, ++w->asked[key]);
    int r = store_write(c, STORE_NO_TX, text, "/w%u/%u", w->index, key);
    if (r == 0)
        w->acknowledged[key] = w->asked[key];
    return r;
}

/* The same number in two places, and a directory made and removed by turns. -EAGAIN: it is over, or collided. */
static int write_pair(struct writer *w, struct store_client *c)
{
    char text[32];
    store_tx tx;
    int r = store_tx_start(c, &tx);
    if (r < 0)
        return r;
    snprintf(text, sizeof(text), "%" PRIu64, ++w->tx_asked);
    r = store_write(c, tx, text, "/w%u/pair/one", w->index);
    if (r == 0)
        r = store_write(c, tx, text, "/w%u/pair/two", w->index);
    if (r == 0)
        r = w->tx_asked % 2 ? store_write(c, tx, "", "/w%u/odd/and/deep", w->index)
                            : store_rm(c, tx, "/w%u/odd", w->index);
    int end = store_tx_end(c, tx, r != 0);
    r = r ? r : end;
    if (r == 0)
        w->tx_acknowledged = w->tx_asked;
    return r == -EAGAIN ? 0 : r;
}

static void *work(void *arg)
{
    struct writer *w = arg;
    struct store_client *c;
    struct err e;
    w->code = store_client_open(socket_path, &c, &e);
    w->failure = w->code ? "open" : NULL;
    while (!stopping && !w->failure) {
        if ((w->code = write_key(w, c, (unsigned)(w->rounds % KEYS))) < 0)
            w->failure = "write";
        else if ((w->code = write_pair(w, c)) < 0)
            w->failure = "pair";
        w->rounds++;
    }
    if (w->rounds > 0)
        store_client_close(c);
    return NULL;
}

/* The number at a path; 0: nothing is there. */
static uint64_t number_at(struct store_client *c, const char *path)
{
    _cleanup_free_ char *text = NULL;
    int r = store_read(c, STORE_NO_TX, &text, NULL, "%s", path);
    if (r == -ENOENT)
        return 0;
    assert_int_equal(r, 0);
    return strtoull(text, NULL, 10);
}

/* Nobody writes now. */
static void books_check(struct store_client *c, const struct writer *w)
{
    char path[64];
    for (unsigned key = 0; key < KEYS; key++) {
        snprintf(path, sizeof(path), "/w%u/%u", w->index, key);
        uint64_t found = number_at(c, path);
        assert_true(found >= w->acknowledged[key] && found <= w->asked[key]);
    }
    snprintf(path, sizeof(path), "/w%u/pair/one", w->index);
    uint64_t one = number_at(c, path);
    snprintf(path, sizeof(path), "/w%u/pair/two", w->index);
    assert_int_equal(number_at(c, path), one);
    assert_true(one >= w->tx_acknowledged && one <= w->tx_asked);
    _cleanup_free_ char *deep = NULL;
    int r = store_read(c, STORE_NO_TX, &deep, NULL, "/w%u/odd/and/deep", w->index);
    assert_int_equal(r, one % 2 ? 0 : -ENOENT);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static int setup(void **state)
{
    (void)state;
    strcpy(run_dir, "/tmp/domzero-kill-XXXXXX");
    assert_non_null(mkdtemp(run_dir));
    snprintf(socket_path, sizeof(socket_path), "%s/xenstored/socket", run_dir);
    snprintf(journal_path, sizeof(journal_path), "%s/%s", run_dir, STORE_JOURNAL_FILE);
    store_start();
    return 0;
}

static int teardown(void **state)
{
    char bad[128];
    (void)state;
    store_kill();
    snprintf(bad, sizeof(bad), "%s.bad", journal_path);
    assert_int_not_equal(access(bad, F_OK), 0); /* a kill damages no journal */
    nftw(run_dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    return 0;
}

/* Each writer has been answered since: however slow the machine is, no request is killed every time. */
static void all_go_on(struct writer *writer)
{
    for (unsigned i = 0; i < WRITERS; i++) {
        uint64_t from = writer[i].rounds;
        while (writer[i].rounds < from + 2 && !writer[i].failure)
            poll(NULL, 0, 1);
    }
}

static void test_what_was_acknowledged_is_there_and_nothing_by_half(void **state)
{
    static struct writer writer[WRITERS];
    uint64_t seed = 3;
    (void)state;
    store_client_close(client()); /* it serves */
    stopping = false;
    for (unsigned i = 0; i < WRITERS; i++) {
        writer[i].index = i;
        assert_int_equal(pthread_create(&writer[i].thread, NULL, work, &writer[i]), 0);
    }
    const char *mode = getenv("DOMZERO_TEST_MODE");
    const unsigned kills = mode && !strcmp(mode, "valgrind") ? KILLS / 4 : KILLS;
    for (unsigned i = 0; i < kills; i++) {
        struct timespec pause = {.tv_nsec = kit_random(&seed, 3000000)};
        all_go_on(writer);
        nanosleep(&pause, NULL);
        store_kill();
        store_start();
    }
    stopping = true;
    for (unsigned i = 0; i < WRITERS; i++) {
        pthread_join(writer[i].thread, NULL);
        if (writer[i].failure)
            fail_msg("%s: %s", writer[i].failure, strerror(-writer[i].code));
        assert_true(writer[i].rounds > KEYS);
    }
    store_kill(); /* once more, with everything acknowledged */
    store_start();
    struct store_client *c = client();
    for (unsigned i = 0; i < WRITERS; i++)
        books_check(c, &writer[i]);
    store_client_close(c);
}

static bool event_comes(struct store_client *c, const char *want_path, const char *want_token)
{
    for (;;) {
        _cleanup_free_ char **event = NULL;
        const char *path, *token;
        int r = store_next_event(c, &event, &path, &token);
        if (r == -EAGAIN) {
            struct pollfd p = {.fd = store_client_fd(c), .events = POLLIN};
            assert_true(poll(&p, 1, 30000) == 1);
        } else if (r < 0) {
            return false;
        } else if (!strcmp(path, want_path) && !strcmp(token, want_token)) {
            return true;
        }
    }
}

static void test_watches_are_set_again_and_tell_to_look_again(void **state)
{
    struct store_client *watcher = client(), *other = client();
    (void)state;
    assert_int_equal(store_write(other, STORE_NO_TX, "1", "/seen/it"), 0);
    assert_int_equal(store_watch(watcher, "t", "/seen"), 0);
    assert_true(event_comes(watcher, "/seen", "t"));
    int fd = store_client_fd(watcher);
    for (unsigned i = 0; i < 5; i++) {
        store_kill();
        store_start();
        assert_true(event_comes(watcher, "/seen", "t"));
        assert_int_equal(store_client_fd(watcher), fd);
        assert_int_equal(store_write(other, STORE_NO_TX, "2", "/seen/it"), 0);
        assert_true(event_comes(watcher, "/seen/it", "t"));
    }
    assert_int_equal(store_unwatch(watcher, "t", "/seen"), 0);
    store_client_close(watcher);
    store_client_close(other);
}

/* That the store was down for long says nothing of the moment in which its socket is missed first. */
static void test_a_socket_that_is_missing_for_a_moment_is_waited_for(void **state)
{
    char aside[128];
    const char *path, *token;
    struct store_client *c = client();
    _cleanup_free_ char **event = NULL;
    (void)state;
    snprintf(aside, sizeof(aside), "%s.aside", socket_path);
    assert_int_equal(store_write(c, STORE_NO_TX, "x", "/before"), 0);
    store_kill();
    assert_int_equal(store_next_event(c, &event, &path, &token), -EAGAIN); /* sees it */
    poll(NULL, 0, LINK_GONE_MS + 1);
    assert_int_equal(store_next_event(c, &event, &path, &token), -EAGAIN);
    assert_int_equal(rename(socket_path, aside), 0);
    assert_int_equal(store_next_event(c, &event, &path, &token), -EAGAIN);
    assert_int_equal(rename(aside, socket_path), 0);
    store_start();
    kit_expect_value(c, "/before", "x");
    store_client_close(c);
}

static void test_an_open_transaction_is_over_and_nothing_of_it_is_there(void **state)
{
    struct store_client *c = client();
    _cleanup_free_ char *text = NULL;
    store_tx before, after;
    (void)state;
    assert_int_equal(store_tx_start(c, &before), 0);
    assert_int_equal(store_write(c, before, "x", "/tx/before"), 0);
    store_kill();
    store_start();
    assert_int_equal(store_write(c, STORE_NO_TX, "x", "/alone"), 0);
    assert_int_equal(store_tx_start(c, &after), 0); /* has the same number at the store */
    assert_int_equal(store_write(c, before, "x", "/tx/late"), -EAGAIN);
    assert_int_equal(store_read(c, before, &text, NULL, "/tx/before"), -EAGAIN);
    assert_int_equal(store_tx_end(c, before, false), -EAGAIN);
    assert_int_equal(store_write(c, after, "x", "/tx/after"), 0);
    assert_int_equal(store_tx_end(c, after, false), 0);
    assert_int_equal(store_read(c, STORE_NO_TX, &text, NULL, "/tx/before"), -ENOENT);
    assert_int_equal(store_read(c, STORE_NO_TX, &text, NULL, "/tx/after"), 0);
    store_client_close(c);
}

static void test_a_domain_keeps_its_socket_and_its_nodes(void **state)
{
    char path[128];
    struct store_client *dom0 = client(), *guest;
    struct err e = {""};
    (void)state;
    kit_guest_make(dom0, 7);
    snprintf(path, sizeof(path), "%s/dom/7/xenstored.sock", run_dir);
    assert_int_equal(store_client_open(path, &guest, &e), 0);
    assert_int_equal(store_write(guest, STORE_NO_TX, "x", "/local/domain/7/own"), 0);
    store_kill();
    store_start();
    kit_expect_value(guest, "own", "x");
    assert_int_equal(store_write(guest, STORE_NO_TX, "y", "/local/domain/7/own"), 0);
    assert_int_equal(store_write(guest, STORE_NO_TX, "y", "/not/its"), -EACCES);
    kit_expect_value(dom0, "/local/domain/7/own", "y");
    assert_int_equal(store_release(dom0, 7), 0);
    assert_int_equal(store_write(guest, STORE_NO_TX, "z", "/local/domain/7/own"), -EPIPE); /* nobody listens there */
    store_client_close(guest);
    store_client_close(dom0);
}

int main(void)
{
#define KILL_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        KILL_TEST(test_what_was_acknowledged_is_there_and_nothing_by_half),
        KILL_TEST(test_watches_are_set_again_and_tell_to_look_again),
        KILL_TEST(test_a_socket_that_is_missing_for_a_moment_is_waited_for),
        KILL_TEST(test_an_open_transaction_is_over_and_nothing_of_it_is_there),
        KILL_TEST(test_a_domain_keeps_its_socket_and_its_nodes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
