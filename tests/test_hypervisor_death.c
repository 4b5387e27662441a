/* SPDX-License-Identifier: MIT */
/* What is left in the hypervisor role when processes, domains and the role itself die. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "tests/hvkit.h"

static uint64_t owner_of_everything(struct fixture *f, uint64_t domid)
{
    struct hvclient *c = connect_to(f, (unsigned)domid);
    struct hv_extent x;
    struct hv_port p;
    int fds[2];
    if (hvclient_extent_alloc(c, 0, 7, false, &x, fds, NULL) || hvclient_grant_frame_new(c, 0, &x, fds, NULL) ||
        hvclient_port_alloc(c, 0, &p, fds, NULL))
        return 0;
    return hvclient_instance(c);
}

static void test_kill_of_an_owner_frees_everything_and_tells_its_holder_once(void **state)
{
    struct fixture *f = *state;
    uint16_t a = domain(f, "a");
    struct hvclient *backend = connect_to(f, 0);
    unsigned fds_before = hvworld_fd_count(&f->w);
    struct guest g = guest_start(f, owner_of_everything, a);
    assert_true(g.result > 0);
    struct hv_extent x, frame;
    struct hv_port port;
    int fd, fds[2];
    assert_int_equal(hvclient_extent_map(backend, a, 1, &x, &fd, NULL), 0);
    close(fd);
    assert_int_equal(hvclient_grant_frame_map(backend, a, 0, &frame, &fd, NULL), 0);
    close(fd);
    assert_int_equal(frame.instance, g.result);
    assert_int_equal(hvclient_port_bind(backend, a, 1, &port, fds, NULL), 0);
    close(fds[0]), close(fds[1]);
    guest_kill(g);
    struct hv_event event = next_event(backend);
    assert_int_equal(event.op, HV_INSTANCE_GONE);
    assert_int_equal(event.domid, a);
    assert_int_equal(event.value, g.result);
    assert_int_equal(info(f, a).ports, 0);
    assert_int_equal(info(f, a).frames, 7); /* until the holder puts */
    assert_int_equal(info(f, a).grant_frames, 1);
    assert_int_equal(hvclient_extent_put(backend, a, x.id, NULL), 0);
    assert_int_equal(hvclient_grant_frame_put(backend, a, frame.id, NULL), 0);
    assert_int_equal(hvclient_port_close(backend, port.port, NULL), 0);
    assert_holds_nothing(f, a);
    assert_no_event(backend);
    assert_int_equal(hvworld_fd_count(&f->w), fds_before);
    hvclient_close(backend);
}

static uint64_t holder_of_frames(struct fixture *f, uint64_t owner)
{
    struct hvclient *c = connect_to(f, 0);
    struct hv_extent x;
    int fd;
    for (uint32_t index = 0; index < 3; index++)
        if (hvclient_grant_frame_map(c, (uint16_t)owner, index, &x, &fd, NULL))
            return 0;
    return hvclient_instance(c);
}

static uint64_t left_of(struct hvclient *c, uint16_t owner, uint32_t index)
{
    struct hv_extent x;
    int fd;
    assert_int_equal(hvclient_grant_frame_map(c, owner, index, &x, &fd, NULL), 0);
    close(fd);
    return x.left;
}

/* Its marks may stand in the frames that it had: the next process of its domain is told, and only while no other holds
 * them. Who put them back in order left none. */
static void test_frames_of_a_killed_holder_are_named_to_its_successor(void **state)
{
    struct fixture *f = *state;
    uint16_t a = domain(f, "a"), b = domain(f, "b");
    struct hvclient *owner = connect_to(f, a), *other = connect_to(f, b), *neighbour = connect_to(f, 0);
    struct hv_extent x;
    int fd;
    for (unsigned i = 0; i < 4; i++) { /* 0, 1, 2 for dom0, 3 for b */
        assert_int_equal(hvclient_grant_frame_new(owner, i == 3 ? b : 0, &x, &fd, NULL), 0);
        close(fd);
    }
    struct guest g = guest_start(f, holder_of_frames, a);
    assert_true(g.result > 0);
    assert_int_equal(left_of(neighbour, a, 2), 0); /* he lives */
    guest_kill(g);
    struct hvclient *next = connect_to(f, 0);
    while (!(left_of(next, a, 0) & 2)) /* until its end was heard of */
        assert_int_equal(hvclient_grant_frame_put(next, a, 0, NULL), 0);
    assert_int_equal(left_of(other, a, 3), 0);
    assert_int_equal(left_of(next, a, 1), 2); /* frame 2 is its neighbour's still */
    assert_int_equal(left_of(next, a, 1), 0); /* it was told */
    for (uint32_t index = 0; index < 2; index++)
        assert_int_equal(hvclient_grant_frame_put(next, a, index, NULL), 0);
    assert_int_equal(hvclient_grant_frame_put(neighbour, a, 2, NULL), 0);
    assert_int_equal(left_of(next, a, 2), 4);
    hvclient_close(next);
    hvclient_close(neighbour);
    hvclient_close(other);
    hvclient_close(owner);
}

static void test_a_destroyed_domain_is_dying_until_nothing_is_held(void **state)
{
    struct fixture *f = *state;
    uint16_t a = domain(f, "a");
    struct hvclient *backend = connect_to(f, 0), *watcher = connect_to(f, 0);
    assert_int_equal(hvclient_domain_watch(watcher, NULL), 0);
    struct guest g = guest_start(f, owner_of_everything, a);
    struct hv_extent x;
    int fd;
    assert_int_equal(hvclient_extent_map(backend, a, 1, &x, &fd, NULL), 0);
    close(fd);
    assert_int_equal(hvclient_domain_destroy(f->dom0, a, NULL), 0);
    struct hv_event event = next_event(watcher);
    assert_int_equal(event.op, HV_DOMAIN_GONE);
    assert_int_equal(event.domid, a);
    assert_int_equal(next_event(backend).op, HV_INSTANCE_GONE);
    struct hv_domain d = info(f, a);
    assert_int_equal(d.dying, 1);
    assert_int_equal(d.instances, 0);
    assert_int_equal(d.frames, 7);
    assert_int_equal(d.grant_frames, 0);
    char path[128];
    assert_int_equal(access(hvworld_socket(&f->w, a, path), F_OK), -1);
    *strrchr(path, '/') = '\0';
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(hvclient_domain_destroy(f->dom0, a, NULL), -EALREADY);
    uint16_t b = domain(f, "a"); /* the name is free, the domid is not */
    assert_true(b > a);
    struct hvclient *other = connect_to(f, b);
    assert_int_equal(hvclient_extent_alloc(other, a, 1, false, &x, &fd, NULL), -ENOENT);
    hvclient_close(backend); /* the last holder dies */
    eventually(info(f, a).domid != a);
    assert_int_equal(info(f, a).domid, b);
    hvclient_close(other);
    hvclient_close(watcher);
    guest_kill(g);
}

static struct hypervisor *served; /* in the server's process */

static void go_to_the_last_domid(int signal_number)
{
    (void)signal_number;
    served->next_domid = HV_DOMID_MAX;
}

static void at_the_last_domid(struct hypervisor *h)
{
    served = h;
    signal(SIGUSR1, go_to_the_last_domid);
    go_to_the_last_domid(0);
}

/* XSA-322, XSA-417: what was shared with a dead domain is not its successor's of the same number. */
static void test_lesson_322_a_reused_domid_inherits_nothing(void **state)
{
    (void)state;
    struct fixture fixture, *f = &fixture;
    start_with(f, at_the_last_domid);
    uint16_t dead = domain(f, "dead"), a = domain(f, "a");
    assert_int_equal(dead, HV_DOMID_MAX);
    assert_int_equal(a, 1);
    struct hvclient *guest = connect_to(f, a);
    struct hv_extent x, frame, y;
    struct hv_port port, q;
    int fd, fds[2];
    assert_int_equal(hvclient_extent_alloc(guest, dead, 1, false, &x, &fd, NULL), 0);
    close(fd);
    assert_int_equal(hvclient_grant_frame_new(guest, dead, &frame, &fd, NULL), 0);
    close(fd);
    assert_int_equal(hvclient_port_alloc(guest, dead, &port, fds, NULL), 0);
    close(fds[0]), close(fds[1]);
    assert_int_equal(hvclient_domain_destroy(f->dom0, dead, NULL), 0);
    assert_int_equal(kill(f->w.pid, SIGUSR1), 0); /* instead of 32,750 domains in between */
    uint16_t heir = domain(f, "heir");
    assert_int_equal(heir, dead);
    struct hvclient *c = connect_to(f, heir);
    assert_int_equal(hvclient_extent_map(c, a, x.base_gfn, &y, &fd, NULL), -ENOENT);
    assert_int_equal(hvclient_grant_frame_map(c, a, frame.id, &y, &fd, NULL), -ENOENT);
    assert_int_equal(hvclient_port_bind(c, a, port.port, &q, fds, NULL), -ENOENT);
    hvclient_close(c);
    hvclient_close(guest);
    hvclient_close(f->dom0);
    hvworld_stop(&f->w);
}

/* XSA-350: processes of six domains that hold each other's things are killed in any order, under sanitizers. */
static void churn_step(struct hvclient *c, uint32_t *seed, uint16_t domains)
{
    struct hv_extent x;
    struct hv_port p;
    int fds[2] = {-1, -1}, n = 0;
    uint16_t other = (uint16_t)((random_next(seed) >> 16) % (domains + 1u));
    uint32_t key = (random_next(seed) >> 16) % 24;
    switch ((random_next(seed) >> 16) % 9) {
    case 0: n = hvclient_extent_alloc(c, other, 1 + key % 3, false, &x, fds, NULL) == 0 ? 1 : 0; break;
    case 1: n = hvclient_extent_map(c, other, key, &x, fds, NULL) == 0 ? 1 : 0; break;
    case 2: hvclient_extent_free(c, key, NULL); break;
    case 3: hvclient_extent_put(c, other, key, NULL); break;
    case 4: n = hvclient_port_alloc(c, other, &p, fds, NULL) == 0 ? 2 : 0; break;
    case 5: n = hvclient_port_bind(c, other, key, &p, fds, NULL) == 0 ? 2 : 0; break;
    case 6: hvclient_port_close(c, key, NULL); break;
    case 7: n = hvclient_grant_frame_new(c, other, &x, fds, NULL) == 0 ? 1 : 0; break;
    default: n = hvclient_grant_frame_map(c, other, key, &x, fds, NULL) == 0 ? 1 : 0;
    }
    for (int i = 0; i < n; i++)
        close(fds[i]);
}

static void test_lesson_350_churn_and_death_in_any_order_leave_nothing(void **state)
{
    struct fixture *f = *state;
    enum { DOMAINS = 6, CLIENTS = 12 };
    uint32_t seed = 20240607;
    struct hvclient *c[CLIENTS] = {0};
    for (int i = 0; i < DOMAINS; i++)
        domain(f, (char[]){'d', (char)('0' + i), 0});
    for (int step = 0; step < 8000; step++) {
        unsigned k = (random_next(&seed) >> 16) % CLIENTS;
        if (!c[k])
            c[k] = connect_to(f, 1 + k % DOMAINS);
        churn_step(c[k], &seed, DOMAINS);
        if ((random_next(&seed) >> 16) % 64 == 0) {
            hvclient_close(c[k]);
            c[k] = NULL;
        }
    }
    for (int i = 0; i < CLIENTS; i++)
        hvclient_close(c[i]);
    for (unsigned i = 1; i <= DOMAINS; i++) {
        eventually(info(f, (uint16_t)i).instances == 0);
        assert_holds_nothing(f, (uint16_t)i);
        assert_int_equal(hvclient_domain_destroy(f->dom0, (uint16_t)i, NULL), 0);
    }
    assert_int_equal(info(f, 1).domid, HV_DOMID_NONE);
    assert_int_equal(hvworld_fd_count(&f->w), f->idle_fds);
}

static void test_a_server_after_a_killed_one_does_not_reuse_its_domids(void **state)
{
    (void)state;
    struct fixture fixture, *f = &fixture;
    start_with(f, NULL);
    domain(f, "a");
    uint16_t b = domain(f, "b");
    assert_int_equal(kill(f->w.pid, SIGKILL), 0);
    assert_int_equal(waitpid(f->w.pid, NULL, 0), f->w.pid);
    struct err e;
    struct hv_domain d;
    assert_int_equal(hvclient_domain_next(f->dom0, 0, &d, &e), -EPIPE);
    hvclient_close(f->dom0);
    close(f->w.stop_fd);
    struct hypervisor *h; /* not served: only its start matters */
    assert_int_equal(hypervisor_new(f->w.run_dir, &h, &e), 0);
    assert_int_equal(h->next_domid, b + 1);
    hypervisor_free(h);
    assert_int_equal(rmdir(f->w.run_dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_kill_of_an_owner_frees_everything_and_tells_its_holder_once),
        WORLD_TEST(test_frames_of_a_killed_holder_are_named_to_its_successor),
        WORLD_TEST(test_a_destroyed_domain_is_dying_until_nothing_is_held),
        cmocka_unit_test(test_lesson_322_a_reused_domid_inherits_nothing),
        WORLD_TEST(test_lesson_350_churn_and_death_in_any_order_leave_nothing),
        cmocka_unit_test(test_a_server_after_a_killed_one_does_not_reuse_its_domids),
    };
    return cmocka_run_group_tests_name("hypervisor: death", tests, NULL, NULL);
}
