/* SPDX-License-Identifier: MIT */
/* Event-channel ports of the hypervisor role: who may bind, what a death leaves, and what a hostile peer can do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "tests/hvkit.h"

static void test_bits_travel_both_ways_and_binding_sets_the_near_one(void **state)
{
    struct fixture *f = *state;
    uint16_t a = domain(f, "a");
    struct hvclient *guest = connect_to(f, a);
    struct hv_port p, q;
    int fds[2];
    assert_int_equal(hvclient_port_alloc(guest, 0, &p, fds, NULL), 0);
    struct evtchn near = channel_end(&p, fds);
    assert_int_equal(p.status, HV_PORT_UNBOUND);
    assert_false(evtchn_pending(&near));
    assert_int_equal(evtchn_notify(&near), 0); /* nobody there: kept */
    assert_int_equal(hvclient_port_bind(f->dom0, a, p.port, &q, fds, NULL), 0);
    struct evtchn far = channel_end(&q, fds);
    assert_int_equal(q.status, HV_PORT_INTERDOMAIN);
    assert_int_equal(q.remote_port, p.port);
    assert_int_equal(q.remote, a);
    assert_true(evtchn_consume(&far)); /* set once by binding, merged with the first notification */
    assert_false(evtchn_consume(&far));
    assert_false(evtchn_pending(&near));
    for (int i = 0; i < 100000; i++)
        assert_int_equal(evtchn_notify(&near), 0);
    assert_true(evtchn_consume(&far));
    assert_false(evtchn_consume(&far)); /* all merged */
    assert_int_equal(evtchn_notify(&far), 0);
    assert_int_equal(evtchn_wait(&near, 10000), 0);
    assert_int_equal(hvclient_port_bind(f->dom0, a, p.port, &q, fds, NULL), -EBUSY);
    evtchn_deinit(&near);
    evtchn_deinit(&far);
    hvclient_close(guest);
}

static uint64_t binds(struct fixture *f, uint64_t word)
{
    struct hvclient *c = connect_to(f, 0);
    struct hv_port p;
    int fds[2], r;
    do
        r = hvclient_port_bind(c, (uint16_t)(word >> 32), (uint32_t)word, &p, fds, NULL);
    while (r == -EAGAIN);
    if (r < 0)
        return 0;
    struct evtchn ch = channel_end(&p, fds);
    return evtchn_consume(&ch) && evtchn_notify(&ch) == 0;
}

static void test_a_port_is_bound_again_after_its_peer_was_killed(void **state)
{
    struct fixture *f = *state;
    uint16_t a = domain(f, "a");
    struct hvclient *guest = connect_to(f, a);
    struct hv_port p;
    int fds[2];
    assert_int_equal(hvclient_port_alloc(guest, 0, &p, fds, NULL), 0);
    struct evtchn near = channel_end(&p, fds);
    for (int round = 0; round < 3; round++) {
        struct guest backend = guest_start(f, binds, (uint64_t)a << 32 | p.port);
        assert_int_equal(backend.result, 1);
        assert_int_equal(evtchn_wait(&near, 10000), 0);
        assert_int_equal(hvclient_port_status(guest, p.port, &p, NULL), 0);
        assert_int_equal(p.status, HV_PORT_INTERDOMAIN);
        guest_kill(backend);
        assert_int_equal(next_event(guest).op, HV_INSTANCE_GONE);
        assert_int_equal(hvclient_port_status(guest, p.port, &p, NULL), 0);
        assert_int_equal(p.status, HV_PORT_UNBOUND);
        assert_int_equal(evtchn_notify(&near), 0);
        assert_no_event(guest);
    }
    evtchn_deinit(&near);
    hvclient_close(guest);
}

static void test_when_the_allocating_end_closes_the_other_one_is_unbound_and_bindable(void **state)
{
    struct fixture *f = *state;
    uint16_t a = domain(f, "a"), b = domain(f, "b");
    struct hvclient *ca = connect_to(f, a), *cb = connect_to(f, b);
    struct hv_port p, q, r;
    int fds[2];
    assert_int_equal(hvclient_port_alloc(ca, 0, &p, fds, NULL), 0);
    close(fds[0]), close(fds[1]);
    assert_int_equal(hvclient_port_bind(f->dom0, a, p.port, &q, fds, NULL), 0);
    struct evtchn near = channel_end(&q, fds);
    assert_true(evtchn_consume(&near));
    assert_int_equal(hvclient_port_close(ca, p.port, NULL), 0);
    assert_int_equal(hvclient_port_close(ca, p.port, NULL), -ENOENT);
    assert_int_equal(hvclient_port_status(f->dom0, q.port, &q, NULL), 0);
    assert_int_equal(q.status, HV_PORT_UNBOUND);
    assert_int_equal(hvclient_port_bind(cb, 0, q.port, &r, fds, NULL), -ENOENT); /* it was a's, it stays a's */
    assert_int_equal(hvclient_port_bind(ca, 0, q.port, &r, fds, NULL), 0);
    struct evtchn far = channel_end(&r, fds);
    assert_int_equal(evtchn_notify(&far), 0);
    assert_true(evtchn_consume(&near));
    evtchn_deinit(&far);
    evtchn_deinit(&near);
    assert_int_equal(hvclient_port_close(f->dom0, q.port, NULL), 0);
    hvclient_close(ca);
    hvclient_close(cb);
}

/* XSA-331, XSA-332, XSA-441: nothing that a peer does to its own descriptors makes our notification wait. */
static void test_lesson_331_a_hostile_peer_cannot_make_a_notification_block(void **state)
{
    struct fixture *f = *state;
    uint16_t a = domain(f, "a");
    struct hvclient *guest = connect_to(f, a);
    struct hv_port p, q;
    int theirs[2], fds[2];
    assert_int_equal(hvclient_port_alloc(guest, 0, &p, theirs, NULL), 0);
    assert_int_equal(hvclient_port_bind(f->dom0, a, p.port, &q, fds, NULL), 0);
    struct evtchn ours = channel_end(&q, fds);
    /* it never reads, makes its own ends block, and fills its counter */
    for (int i = 0; i < 2; i++)
        assert_int_equal(fcntl(theirs[i], F_SETFL, 0), 0);
    const uint64_t full = UINT64_MAX - 1;
    assert_true(evtchn_consume(&ours)); /* binding's */
    assert_int_equal(write(theirs[1], &full, sizeof(full)), sizeof(full));
    assert_true(fcntl(ours.notify_fd, F_GETFL) & O_NONBLOCK);
    for (int i = 0; i < 10000; i++)
        assert_int_equal(evtchn_notify(&ours), 0);
    assert_true(evtchn_consume(&ours)); /* a storm is one event */
    assert_false(evtchn_consume(&ours));
    /* nor is the server in its reach: with that counter full the other end is bound again and again */
    for (int i = 0; i < 3; i++) {
        assert_int_equal(hvclient_port_close(f->dom0, ours.port, NULL), 0);
        evtchn_deinit(&ours);
        assert_int_equal(hvclient_port_bind(f->dom0, a, p.port, &q, fds, NULL), 0);
        ours = channel_end(&q, fds);
        assert_true(evtchn_consume(&ours));
    }
    /* it dies with all its ends: still no error */
    close(theirs[0]), close(theirs[1]);
    hvclient_close(guest);
    assert_int_equal(next_event(f->dom0).op, HV_INSTANCE_GONE);
    for (int i = 0; i < 10000; i++)
        assert_int_equal(evtchn_notify(&ours), 0);
    evtchn_deinit(&ours);
}

/* XSA-349: a peer that comes and goes cannot pile up events in front of one who does not read them. */
static void test_lesson_349_events_of_a_port_do_not_pile_up(void **state)
{
    struct fixture *f = *state;
    uint16_t a = domain(f, "a");
    struct hvclient *slow = connect_to(f, 0);
    struct hv_port p, q;
    int fds[2];
    assert_int_equal(hvclient_port_alloc(slow, a, &p, fds, NULL), 0);
    close(fds[0]), close(fds[1]);
    unsigned refused = 0, gone = 0;
    for (int i = 0; i < 3000; i++) {
        struct hvclient *guest = connect_to(f, a);
        int r = hvclient_port_bind(guest, 0, p.port, &q, fds, NULL);
        if (r == 0)
            close(fds[0]), close(fds[1]), gone++;
        else
            assert_int_equal(r, -EAGAIN), refused++;
        hvclient_close(guest);
        eventually(info(f, a).instances == 0);
    }
    assert_true(refused > 0 && gone > 0 && gone < 100);
    struct hv_event event;
    struct pollfd poll_slow = {.fd = hvclient_fd(slow), .events = POLLIN};
    unsigned told = 0;
    while (told < gone && poll(&poll_slow, 1, 10000) == 1 && hvclient_event(slow, &event) == 1)
        told++;
    assert_int_equal(told, gone); /* none was lost, and it is still connected */
    assert_int_equal(hvclient_port_status(slow, p.port, &p, NULL), 0);
    assert_int_equal(p.status, HV_PORT_UNBOUND);
    hvclient_close(slow);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_bits_travel_both_ways_and_binding_sets_the_near_one),
        WORLD_TEST(test_a_port_is_bound_again_after_its_peer_was_killed),
        WORLD_TEST(test_when_the_allocating_end_closes_the_other_one_is_unbound_and_bindable),
        WORLD_TEST(test_lesson_331_a_hostile_peer_cannot_make_a_notification_block),
        WORLD_TEST(test_lesson_349_events_of_a_port_do_not_pile_up),
    };
    return cmocka_run_group_tests_name("hypervisor: ports", tests, NULL, NULL);
}
