/* SPDX-License-Identifier: MIT */
/* A peer passes a socket whose last close lingers for hours. Whoever reads, cuts or never accepts that peer goes on:
 * where it does not, the alarm ends the test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>

#include "base/burial.h"
#include "base/unixsock.h"

#define PATIENCE_S 60

struct rig {
    int listener, reader; /* of TCP: the reader never reads */
    char dir[32], path[64];
};

static int setup(void **state)
{
    static struct rig r;
    int small = 4096;
    r.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(r.listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    assert_int_equal(bind(r.listener, (struct sockaddr *)&any, sizeof(any)), 0);
    assert_int_equal(listen(r.listener, 8), 0);
    r.reader = -1;
    strcpy(r.dir, "/tmp/burial.XXXXXX");
    assert_non_null(mkdtemp(r.dir));
    snprintf(r.path, sizeof(r.path), "%s/sock", r.dir);
    alarm(PATIENCE_S);
    *state = &r;
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;
    alarm(0);
    fd_closep(&r->reader);
    fd_closep(&r->listener);
    unlink(r->path);
    return rmdir(r->dir);
}

/* A connection with unsent bytes, whose close waits for a reader. */
static int lingering_socket(struct rig *r)
{
    static const char bytes[65536];
    struct sockaddr_in a;
    socklen_t length = sizeof(a);
    struct linger on = {.l_onoff = 1, .l_linger = 10000};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(getsockname(r->listener, (struct sockaddr *)&a, &length), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    fd_closep(&r->reader);
    r->reader = accept(r->listener, NULL, NULL);
    assert_true(r->reader >= 0);
    while (send(fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
        ;
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &on, sizeof(on)), 0);
    return fd;
}

static void pass_lingering(struct rig *r, int fd)
{
    int passed = lingering_socket(r);
    assert_int_equal(unixsock_send(fd, "x", 1, &passed, 1, 0), 0);
    close(passed);
}

static unsigned fd_count(void)
{
    unsigned n = 0;
    DIR *dir = opendir("/proc/self/fd");
    assert_non_null(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

static void test_a_reader_is_not_stopped_by_what_was_passed(void **state)
{
    static const int types[] = {SOCK_SEQPACKET, SOCK_STREAM};
    for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
        int ends[2];
        char byte;
        assert_int_equal(socketpair(AF_UNIX, types[i] | SOCK_CLOEXEC, 0, ends), 0);
        pass_lingering(*state, ends[0]);
        unsigned before = fd_count();
        assert_int_equal(unixsock_recv_plain(ends[1], &byte, 1, 0), -EPERM);
        assert_int_equal(fd_count(), before);
        assert_int_equal(unixsock_send(ends[0], "y", 1, NULL, 0, 0), 0);
        assert_int_equal(unixsock_recv_plain(ends[1], &byte, 1, 0), 1);
        close(ends[0]);
        close(ends[1]);
    }
}

static void test_closing_is_not_stopped_by_what_was_never_read(void **state)
{
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    assert_int_equal(unixsock_send(ends[0], "", 0, NULL, 0, 0), 0); /* which is not the end */
    pass_lingering(*state, ends[0]);
    assert_int_equal(unixsock_send(ends[0], "", 0, NULL, 0, 0), 0);
    pass_lingering(*state, ends[0]);
    unsigned before = fd_count();
    unixsock_close_served(&ends[1]);
    assert_int_equal(ends[1], -1);
    assert_int_equal(fd_count(), before - 1);
    close(ends[0]);
}

static void test_a_listener_is_not_stopped_by_what_was_never_accepted(void **state)
{
    struct rig *r = *state;
    int listener = unixsock_listen(r->path, SOCK_STREAM, 0600, NULL), on = 1;
    assert_true(listener >= 0);
    setsockopt(listener, SOL_SOCKET, 83 /* SO_PASSRIGHTS */, &on, sizeof(on)); /* as before Linux 6.16 */
    int peer = unixsock_connect(r->path, SOCK_STREAM, NULL);
    pass_lingering(r, peer);
    unixsock_close_listener(&listener);
    assert_int_equal(listener, -1);
    close(peer);
}

static void test_what_is_accepted_refuses_descriptors_where_the_kernel_can(void **state)
{
    struct rig *r = *state;
    int listener = unixsock_listen(r->path, SOCK_STREAM, 0600, NULL), passed = 0;
    int peer = unixsock_connect(r->path, SOCK_STREAM, NULL);
    int served = unixsock_accept(listener, NULL, NULL);
    char byte;
    int sent = unixsock_send(peer, "x", 1, &passed, 1, 0);
    if (sent != -EPERM) {
        assert_int_equal(sent, 0);
        assert_int_equal(unixsock_recv_plain(served, &byte, 1, 0), -EPERM);
    }
    unixsock_close_served(&served);
    unixsock_close_listener(&listener);
    close(peer);
}

static void test_only_the_dead_are_buried(void **state)
{
    (void)state;
    int kept[2], dead[32];
    char byte;
    assert_int_equal(pipe(kept), 0);
    for (unsigned i = 0; i < ARRAY_SIZE(dead); i++)
        dead[i] = dup(kept[i % 2]);
    unsigned before = fd_count();
    fds_bury(dead, 0);
    fds_bury(dead, ARRAY_SIZE(dead));
    assert_int_equal(fd_count(), before - ARRAY_SIZE(dead));
    assert_int_equal(write(kept[1], "x", 1), 1);
    assert_int_equal(read(kept[0], &byte, 1), 1);
    close(kept[1]);
    assert_int_equal(read(kept[0], &byte, 1), 0); /* no copy of it lives on in the other thread */
    close(kept[0]);
}

#define RIG_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(test_a_reader_is_not_stopped_by_what_was_passed),
        RIG_TEST(test_closing_is_not_stopped_by_what_was_never_read),
        RIG_TEST(test_a_listener_is_not_stopped_by_what_was_never_accepted),
        RIG_TEST(test_what_is_accepted_refuses_descriptors_where_the_kernel_can),
        RIG_TEST(test_only_the_dead_are_buried),
    };
    return cmocka_run_group_tests_name("burial", tests, NULL, NULL);
}
