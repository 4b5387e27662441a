/* SPDX-License-Identifier: MIT */
/* Event channels over real pipes, made as ring/evtchn.h says: Xen's semantics of the bit, and a peer that plays with
 * its descriptors. A call that blocks here is killed by an alarm: that is a failed test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "ring/evtchn.h"
#include "tests/test_ring_channel.h"

enum { BLOCKED_S = 60 };

struct rig {
    struct channel channel;
    struct evtchn ours, peer;
};

static int setup(void **state)
{
    static struct rig r;
    channel_open(&r.channel, &r.ours, &r.peer);
    signal(SIGPIPE, SIG_IGN);
    alarm(BLOCKED_S);
    *state = &r;
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;
    alarm(0);
    channel_close(&r->channel, &r->ours, &r->peer);
    return 0;
}

static void fill(int fd)
{
    static const char page[PAGE_BYTES];
    while (write(fd, page, sizeof(page)) > 0 || write(fd, page, 1) > 0)
        ;
    assert_int_equal(errno, EAGAIN);
}

static void test_notifications_merge_into_one_bit(void **state)
{
    struct rig *r = *state;
    assert_false(evtchn_pending(&r->peer));
    assert_false(evtchn_consume(&r->peer));
    for (unsigned i = 0; i < 3 * PAGE_BYTES; i++) /* more than the pipe holds */
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

static void test_a_masked_event_is_delivered_at_unmask(void **state)
{
    struct rig *r = *state;
    evtchn_mask(&r->peer);
    assert_false(evtchn_unmask(&r->peer));
    evtchn_mask(&r->peer);
    evtchn_notify(&r->ours);
    assert_true(evtchn_pending(&r->peer)); /* pending, though not delivered */
    assert_true(evtchn_unmask(&r->peer));
    assert_true(evtchn_pending(&r->peer)); /* unmask tells of it, the handler clears it */
    assert_true(evtchn_consume(&r->peer));
    evtchn_mask(&r->peer);
    assert_false(evtchn_unmask(&r->peer));
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
    channel_close(&r->channel, &r->peer, &r->peer); /* the keeper's descriptors and both of the peer's */
    assert_int_equal(r->peer.wait_fd, -1);
    assert_int_equal(evtchn_notify(&r->ours), 0);
    assert_false(evtchn_pending(&r->ours));
    assert_false(evtchn_consume(&r->ours));
    assert_int_equal(evtchn_wait(&r->ours, -1), -EPIPE); /* nobody is left who could end the wait */
}

static void test_a_channel_that_was_never_bound_can_be_deinitialised(void **state)
{
    (void)state;
    struct evtchn none = EVTCHN_NONE;
    evtchn_deinit(&none);
    evtchn_deinit(&none);
    assert_int_equal(none.wait_fd, -1);
}

/* Lesson 331: an event storm costs its victim one consume. */
static void test_lesson_331_a_full_pipe_is_one_event(void **state)
{
    struct rig *r = *state;
    fill(r->peer.notify_fd);
    assert_true(evtchn_consume(&r->ours));
    assert_false(evtchn_pending(&r->ours));
    evtchn_notify(&r->peer);
    assert_true(evtchn_consume(&r->ours));
}

/* A peer may enlarge the pipe that it writes into, and turn it into one of packets, each of which takes a read of its
 * own. Then a storm is as many events as the pipe has slots, and each of them costs one bounded read. */
static void test_lesson_331_a_pipe_that_the_peer_enlarged_is_bounded_work(void **state)
{
    struct rig *r = *state;
    int bytes = fcntl(r->peer.notify_fd, F_SETPIPE_SZ, 64 * PAGE_BYTES);
    assert_int_equal(bytes, 64 * PAGE_BYTES);
    assert_int_equal(fcntl(r->peer.notify_fd, F_SETFL, O_NONBLOCK | O_DIRECT), 0);
    unsigned packets = 0, events = 0;
    while (write(r->peer.notify_fd, "", 1) == 1)
        packets++;
    while (evtchn_consume(&r->ours))
        events++;
    assert_true(events >= 1 && events <= packets && packets <= 64);
    assert_false(evtchn_pending(&r->ours));
}

static void test_a_peer_that_clears_o_nonblock_blocks_nobody_else(void **state)
{
    struct rig *r = *state;
    fill(r->ours.notify_fd); /* the peer does not read: its pipe is full */
    assert_int_equal(fcntl(r->peer.wait_fd, F_SETFL, 0), 0);
    assert_int_equal(fcntl(r->peer.notify_fd, F_SETFL, 0), 0);
    assert_true(fcntl(r->ours.notify_fd, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(r->ours.wait_fd, F_GETFL) & O_NONBLOCK);
    for (int i = 0; i < 100; i++)
        assert_int_equal(evtchn_notify(&r->ours), 0);
    assert_false(evtchn_consume(&r->ours)); /* nor does reading an empty pipe */
    assert_true(evtchn_pending(&r->peer));  /* the bit is set: that is what a full pipe means */
}

/* A peer could open the far side of its own pipe through /proc. It then hurts itself, not the channel's other bit. */
static void test_a_peer_takes_events_from_itself_only(void **state)
{
    struct rig *r = *state;
    int writer = channel_reopen(r->peer.wait_fd, O_WRONLY), reader = channel_reopen(r->peer.notify_fd, O_RDONLY);
    assert_true(writer >= 0 && reader >= 0);
    assert_int_equal(fcntl(writer, F_SETFL, 0), 0);
    assert_int_equal(fcntl(reader, F_SETFL, 0), 0);
    assert_int_equal(write(writer, "", 1), 1); /* an event of its own making */
    assert_true(evtchn_consume(&r->peer));
    evtchn_notify(&r->peer);
    char byte;
    assert_int_equal(read(reader, &byte, 1), 1); /* takes back the event that it sent */
    assert_false(evtchn_consume(&r->ours));
    evtchn_notify(&r->ours);
    assert_true(evtchn_pending(&r->peer));
    close(writer);
    close(reader);
}

/* Why not one eventfd for a direction: it cannot be opened anew, so both ends share its flags with its counter. */
static void test_an_eventfd_would_share_its_flags_with_the_peer(void **state)
{
    (void)state;
    int ours = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    int peers = dup(ours); /* what passing it over a socket does */
    assert_true(ours >= 0 && peers >= 0);
    assert_int_equal(channel_reopen(ours, O_RDWR), -1);
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
        EVTCHN_TEST(test_a_masked_event_is_delivered_at_unmask),
        EVTCHN_TEST(test_wait_clears_the_bit_times_out_or_is_interrupted),
        EVTCHN_TEST(test_a_peer_that_is_gone_is_no_error),
        EVTCHN_TEST(test_a_channel_that_was_never_bound_can_be_deinitialised),
        EVTCHN_TEST(test_lesson_331_a_full_pipe_is_one_event),
        EVTCHN_TEST(test_lesson_331_a_pipe_that_the_peer_enlarged_is_bounded_work),
        EVTCHN_TEST(test_a_peer_that_clears_o_nonblock_blocks_nobody_else),
        EVTCHN_TEST(test_a_peer_takes_events_from_itself_only),
        EVTCHN_TEST(test_an_eventfd_would_share_its_flags_with_the_peer),
        EVTCHN_TEST(test_two_processes_play_ping_pong),
    };
    return cmocka_run_group_tests_name("evtchn", tests, NULL, NULL);
}
