/* SPDX-License-Identifier: MIT */
/* A listening socket takes the place of another one without a moment in which there is none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/unixsock.h"
#include "base/util.h"

#define REPLACED 300 /* times at the least, and until the other thread has looked as often */

static char dir[64], path[128];
static _Atomic bool stopping;
static _Atomic unsigned looks;

static int setup(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/domzero-sock-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/socket", dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    assert_int_equal(rmdir(dir), 0); /* nothing else is left there */
    return 0;
}

static void *look(void *missed)
{
    for (; !stopping; looks++)
        if (access(path, F_OK) < 0)
            ++*(unsigned *)missed;
    return NULL;
}

static void test_who_looks_while_it_is_replaced_always_finds_one(void **state)
{
    pthread_t thread;
    unsigned missed = 0;
    (void)state;
    int fd = unixsock_listen(path, SOCK_STREAM, 0600, NULL);
    assert_true(fd >= 0);
    stopping = false;
    assert_int_equal(pthread_create(&thread, NULL, look, &missed), 0);
    for (unsigned i = 0; i < REPLACED || looks < REPLACED; i++) {
        int next = unixsock_listen(path, SOCK_STREAM, 0600, NULL);
        assert_true(next >= 0);
        close(fd);
        fd = next;
    }
    stopping = true;
    pthread_join(thread, NULL);
    assert_int_equal(missed, 0);
    close(fd);
}

static void test_a_stale_socket_is_replaced_by_one_that_accepts_and_has_its_mode(void **state)
{
    struct stat st;
    (void)state;
    close(unixsock_listen(path, SOCK_STREAM, 0666, NULL));
    _cleanup_close_ int fd = unixsock_listen(path, SOCK_STREAM, 0600, NULL);
    _cleanup_close_ int to = unixsock_connect(path, SOCK_STREAM, NULL);
    assert_true(fd >= 0 && to >= 0);
    _cleanup_close_ int from = unixsock_accept(fd, NULL, NULL);
    assert_true(from >= 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

/* The longest path has no room for another name beside it. */
static void test_the_longest_path_is_replaced_as_well(void **state)
{
    (void)state;
    size_t had = strlen(path);
    memset(path + had, 'x', 107 - had);
    path[107] = '\0';
    for (unsigned i = 0; i < 2; i++) {
        _cleanup_close_ int fd = unixsock_listen(path, SOCK_STREAM, 0600, NULL);
        _cleanup_close_ int to = unixsock_connect(path, SOCK_STREAM, NULL);
        assert_true(fd >= 0 && to >= 0);
    }
}

int main(void)
{
#define SOCK_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        SOCK_TEST(test_who_looks_while_it_is_replaced_always_finds_one),
        SOCK_TEST(test_a_stale_socket_is_replaced_by_one_that_accepts_and_has_its_mode),
        SOCK_TEST(test_the_longest_path_is_replaced_as_well),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
