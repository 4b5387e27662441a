/* SPDX-License-Identifier: MIT */
/* Event channels on real descriptors, made as ring/evtchn.h says: Xen's semantics of the bit, and a peer that plays
 * with its descriptors. A call that blocks here is killed by an alarm: that is a failed test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "ring/evtchn.h"
#include "tests/test_ring_channel.h"
#include "tests/trap_page.h"

enum { BLOCKED_S = 60 };

struct rig {
    struct evtchn ours, peer;
};

static int setup(void **state)
{
    static struct rig r;
    channel_open(&r.ours, &r.peer);
    alarm(BLOCKED_S);
    *state = &r;
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;
    alarm(0);
    channel_close(&r->ours, &r->peer);
    return 0;
}

static void test_notifications_merge_into_one_bit(void **state)
{
    struct rig *r = *state;
    assert_false(evtchn_pending(&r->peer));
    assert_false(evtchn_consume(&r->peer));
    for (unsigned i = 0; i < 10000; i++)
        assert_int_equal(evtchn_notify(&r->ours), 0);
    assert_true(evtchn_pending(&r->peer));
    assert_true(evtchn_pending(&r->peer)); /* looking leaves it */
    assert_true(evtchn_consume(&r->peer));
    assert_false(evtchn_pending(&r->peer));
    assert_false(evtchn_consume(&r->peer));
    assert_int_equal(evtchn_notify(&r->ours), 0); /* and it can be set again */
    assert_true(evtchn_consume(&r->peer));
}

static void test_the_two_directions_are_apart(void **state)
{
    struct rig *r = *state;
    evtchn_notify(&r->ours);
    assert_false(evtchn_pending(&r->ours));
    evtchn_notify(&r->peer);
    assert_true(evtchn_consume(&r->peer));
    assert_true(evtchn_consume(&r->ours));
}

static void on_alarm(int signal_number)
{
    (void)signal_number;
}

static void test_wait_clears_the_bit_times_out_or_is_interrupted(void **state)
{
    struct rig *r = *state;
    assert_int_equal(evtchn_wait(&r->peer, 0), -ETIMEDOUT);
    assert_int_equal(evtchn_wait(&r->peer, 1), -ETIMEDOUT);
    evtchn_notify(&r->ours);
    evtchn_notify(&r->ours);
    assert_int_equal(evtchn_wait(&r->peer, -1), 0);
    assert_int_equal(evtchn_wait(&r->peer, 0), -ETIMEDOUT);

    struct sigaction act = {.sa_handler = on_alarm}, old;
    struct itimerval often = {{0, 10000}, {0, 10000}}, never = {{0, 0}, {0, 0}};
    sigaction(SIGALRM, &act, &old);
    setitimer(ITIMER_REAL, &often, NULL);
    assert_int_equal(evtchn_wait(&r->peer, -1), -EINTR);
    setitimer(ITIMER_REAL, &never, NULL);
    sigaction(SIGALRM, &old, NULL);
}

static void test_a_peer_that_is_gone_is_no_error(void **state)
{
    struct rig *r = *state;
    evtchn_deinit(&r->peer);
    assert_int_equal(r->peer.wait_fd, -1);
    assert_int_equal(evtchn_notify(&r->ours), 0);
    assert_false(evtchn_pending(&r->ours));
    assert_false(evtchn_consume(&r->ours));
    assert_int_equal(evtchn_wait(&r->ours, 1), -ETIMEDOUT);
}

static void test_a_channel_that_was_never_bound_can_be_deinitialised(void **state)
{
    (void)state;
    struct evtchn none = EVTCHN_NONE;
    evtchn_deinit(&none);
    evtchn_deinit(&none);
    assert_int_equal(none.wait_fd, -1);
}

/* The peer's descriptors are files of its own: what it does to them ends with it. */
static void test_lesson_331_a_storm_is_one_event(void **state)
{
    struct rig *r = *state;
    const uint64_t full = UINT64_MAX - 1;
    assert_int_equal(write(r->peer.notify_fd, &full, sizeof(full)), sizeof(full));
    assert_int_equal(write(r->peer.notify_fd, &full, sizeof(full)), -1);
    assert_true(evtchn_consume(&r->ours));
    assert_false(evtchn_pending(&r->ours));
    uint64_t counter;
    assert_int_equal(read(r->peer.notify_fd, &counter, sizeof(counter)), sizeof(counter));
    evtchn_notify(&r->peer);
    assert_true(evtchn_consume(&r->ours));
}

static void test_flags_of_the_peer_are_its_own(void **state)
{
    struct rig *r = *state;
    assert_int_equal(fcntl(r->peer.wait_fd, F_SETFL, 0), 0);
    assert_int_equal(fcntl(r->peer.notify_fd, F_SETFL, 0), 0);
    assert_true(fcntl(r->ours.notify_fd, F_GETFL) & O_NONBLOCK);
    for (int i = 0; i < 100; i++)
        assert_int_equal(evtchn_notify(&r->ours), 0);
    assert_false(evtchn_consume(&r->ours));
    assert_true(evtchn_pending(&r->peer));
}

static void test_a_peer_takes_events_from_itself_only(void **state)
{
    struct rig *r = *state;
    uint64_t counter;
    evtchn_notify(&r->peer);
    assert_int_equal(read(r->peer.notify_fd, &counter, sizeof(counter)), sizeof(counter)); /* takes back its own */
    assert_false(evtchn_consume(&r->ours));
    struct epoll_event any;
    assert_int_equal(epoll_ctl(r->peer.wait_fd, EPOLL_CTL_DEL, r->peer.notify_fd, &any), -1); /* not what it watches */
    evtchn_notify(&r->ours);
    assert_true(evtchn_pending(&r->peer));
}

struct stuck {
    int fd;
    void *page;
};

static void *stuck_consumer(void *arg)
{
    struct stuck *s = arg;
    epoll_wait(s->fd, s->page, 1, 0);
    return NULL;
}

static void *stuck_notifier(void *arg)
{
    struct stuck *s = arg;
    return write(s->fd, s->page, 8) == 8 ? arg : NULL;
}

/* The peer's thread hangs in the kernel, within a call on its end: `run` is that call. */
static void with_a_stuck_peer(struct rig *r, int fd, void *(*run)(void *))
{
    struct stuck s = {.fd = fd};
    int trap = trap_page(&s.page);
    if (trap < 0) {
        print_message("    userfaultfd is not allowed here\n");
        skip();
    }
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, run, &s), 0);
    struct pollfd faulted = {.fd = trap, .events = POLLIN};
    assert_int_equal(poll(&faulted, 1, -1), 1);
    for (int i = 0; i < 100; i++)
        assert_int_equal(evtchn_notify(&r->ours), 0);
    assert_false(evtchn_consume(&r->ours));
    trap_let_go(trap, s.page);
    pthread_join(thread, NULL);
    assert_true(evtchn_consume(&r->peer)); /* what was sent meanwhile is still there */
    close(trap);
    munmap(s.page, PAGE_BYTES);
}

static void test_a_peer_stuck_in_its_consume_blocks_nobody_else(void **state)
{
    struct rig *r = *state;
    evtchn_notify(&r->ours);
    with_a_stuck_peer(r, r->peer.wait_fd, stuck_consumer);
}

static void test_a_peer_stuck_in_its_notify_blocks_nobody_else(void **state)
{
    struct rig *r = *state;
    with_a_stuck_peer(r, r->peer.notify_fd, stuck_notifier);
}

/* Why an eventfd is never handed to both ends: they would share its flags with its counter. */
static void test_an_eventfd_would_share_its_flags_with_the_peer(void **state)
{
    (void)state;
    int ours = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    int peers = dup(ours); /* what passing it over a socket does */
    assert_true(ours >= 0 && peers >= 0);
    assert_int_equal(fcntl(peers, F_SETFL, 0), 0);
    assert_false(fcntl(ours, F_GETFL) & O_NONBLOCK); /* the peer took it away from us */
    uint64_t full = UINT64_MAX - 1;
    assert_int_equal(write(peers, &full, sizeof(full)), sizeof(full));
    struct pollfd p = {.fd = ours, .events = POLLOUT};
    assert_int_equal(poll(&p, 1, 0), 0); /* a write(2) would now block */
    close(ours);
    close(peers);
}

enum { TURNS = 2000 };

static int child_echoes(struct rig *r)
{
    for (int i = 0; i < TURNS; i++)
        if (evtchn_wait(&r->peer, BLOCKED_S * 1000) || evtchn_notify(&r->peer))
            return 1;
    return evtchn_pending(&r->peer) ? 2 : 0;
}

static void test_two_processes_play_ping_pong(void **state)
{
    struct rig *r = *state;
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child)
        _exit(child_echoes(r));
    for (int i = 0; i < TURNS; i++) {
        assert_int_equal(evtchn_notify(&r->ours), 0);
        assert_int_equal(evtchn_wait(&r->ours, BLOCKED_S * 1000), 0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_false(evtchn_pending(&r->ours));
}

#define EVTCHN_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        EVTCHN_TEST(test_notifications_merge_into_one_bit),
        EVTCHN_TEST(test_the_two_directions_are_apart),
        EVTCHN_TEST(test_wait_clears_the_bit_times_out_or_is_interrupted),
        EVTCHN_TEST(test_a_peer_that_is_gone_is_no_error),
        EVTCHN_TEST(test_a_channel_that_was_never_bound_can_be_deinitialised),
        EVTCHN_TEST(test_lesson_331_a_storm_is_one_event),
        EVTCHN_TEST(test_flags_of_the_peer_are_its_own),
        EVTCHN_TEST(test_a_peer_takes_events_from_itself_only),
        EVTCHN_TEST(test_a_peer_stuck_in_its_consume_blocks_nobody_else),
        EVTCHN_TEST(test_a_peer_stuck_in_its_notify_blocks_nobody_else),
        EVTCHN_TEST(test_an_eventfd_would_share_its_flags_with_the_peer),
        EVTCHN_TEST(test_two_processes_play_ping_pong),
    };
    return cmocka_run_group_tests_name("evtchn", tests, NULL, NULL);
}
