/* SPDX-License-Identifier: MIT */
/* Limits, garbage and clients that do not read: what one guest can do to the hypervisor role and its neighbours. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "hypervisor/domain.h"
#include "tests/hvkit.h"

static void test_each_limit_is_refused_early_and_counted(void **state)
{
    struct fixture *f = *state;
    uint16_t a = domain(f, "a");
    struct hvclient *c = connect_to(f, a);
    const struct hypervisor_limits *l = &hypervisor_limits_default;
    struct hv_extent x;
    struct hv_port p;
    struct err e;
    int fds[2];
    assert_int_equal(hvclient_extent_alloc(c, 0, l->frames + 1, false, &x, fds, &e), -EDQUOT);
    assert_non_null(strstr(e.text, "limit of frames"));
    assert_int_equal(hvclient_extent_alloc(c, 0, UINT32_MAX, false, &x, fds, NULL), -EDQUOT);
    assert_int_equal(hvclient_extent_alloc(c, 0, 0, false, &x, fds, NULL), -EINVAL);
    assert_int_equal(hvclient_extent_alloc(c, 0, l->frames, false, &x, fds, NULL), 0);
    close(fds[0]);
    assert_int_equal(hvclient_extent_alloc(c, 0, 1, false, &x, fds, NULL), -EDQUOT);
    assert_int_equal(hvclient_extent_free(c, 1, NULL), 0);
    for (unsigned i = 0; i < l->extents; i++) {
        assert_int_equal(hvclient_extent_alloc(c, 0, 1, false, &x, fds, NULL), 0);
        close(fds[0]);
    }
    assert_int_equal(hvclient_extent_alloc(c, 0, 1, false, &x, fds, &e), -EDQUOT);
    assert_non_null(strstr(e.text, "limit of extents"));
    for (unsigned i = 0; i < l->grant_frames; i++) {
        assert_int_equal(hvclient_grant_frame_new(c, 0, &x, fds, NULL), 0);
        assert_int_equal(x.id, i);
        close(fds[0]);
    }
    assert_int_equal(hvclient_grant_frame_new(c, 0, &x, fds, &e), -EDQUOT);
    assert_non_null(strstr(e.text, "grant frames"));
    for (unsigned i = 0; i < l->ports; i++) {
        assert_int_equal(hvclient_port_alloc(c, 0, &p, fds, NULL), 0);
        close(fds[0]), close(fds[1]);
    }
    assert_int_equal(hvclient_port_alloc(c, 0, &p, fds, &e), -EDQUOT);
    assert_non_null(strstr(e.text, "ports"));
    assert_int_equal(info(f, a).refusals, 6);
    hvclient_close(c);
    eventually(info(f, a).instances == 0);
    assert_holds_nothing(f, a);
}

static void test_a_domain_has_so_many_processes_and_no_more(void **state)
{
    struct fixture *f = *state;
    uint16_t a = domain(f, "a");
    struct hvclient *c[17] = {0};
    char path[128];
    for (unsigned i = 0; i < 16; i++)
        c[i] = connect_to(f, a);
    struct err e;
    assert_int_equal(hvclient_open(hvworld_socket(&f->w, a, path), &c[16], &e), -EDQUOT);
    assert_int_equal(info(f, a).instances, 16);
    hvclient_close(c[3]);
    eventually(info(f, a).instances == 15);
    c[3] = connect_to(f, a);
    for (unsigned i = 0; i < 16; i++)
        hvclient_close(c[i]);
}

static void with_few_descriptors(struct hypervisor *h)
{
    h->descriptors_max = DOMAIN_DESCRIPTORS_DOM0 + 2 * DOMAIN_DESCRIPTORS_GUARANTEED + 20;
}

static void test_a_greedy_domain_leaves_its_neighbour_the_guaranteed_descriptors(void **state)
{
    (void)state;
    struct fixture fixture, *f = &fixture;
    start_with(f, with_few_descriptors);
    uint16_t a = domain(f, "a"), b = domain(f, "b"), none;
    assert_int_equal(hvclient_domain_create(f->dom0, "c", &none, NULL), -EMFILE);
    struct hvclient *greedy = connect_to(f, a), *modest = connect_to(f, b);
    struct hv_extent x;
    struct err e;
    int fd, r, taken = 0;
    while ((r = hvclient_extent_alloc(greedy, 0, 1, false, &x, &fd, &e)) == 0)
        close(fd), taken++;
    assert_int_equal(r, -EDQUOT);
    assert_non_null(strstr(e.text, "descriptors"));
    assert_int_equal(taken, DOMAIN_DESCRIPTORS_GUARANTEED + 20 - 2);
    for (int i = 0; i < DOMAIN_DESCRIPTORS_GUARANTEED - 2; i++) {
        assert_int_equal(hvclient_extent_alloc(modest, 0, 1, false, &x, &fd, NULL), 0);
        close(fd);
    }
    assert_int_equal(hvclient_extent_alloc(modest, 0, 1, false, &x, &fd, NULL), -EDQUOT);
    hvclient_close(greedy);
    hvclient_close(modest);
    assert_int_equal(hvclient_domain_destroy(f->dom0, a, NULL), 0);
    assert_int_equal(hvclient_domain_create(f->dom0, "c", &none, NULL), 0);
    hvclient_close(f->dom0);
    hvworld_stop(&f->w);
}

static void test_garbage_of_any_length_is_disconnected_and_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    uint16_t a = domain(f, "a");
    unsigned fds_before = hvworld_fd_count(&f->w);
    unsigned char bytes[300];
    memset(bytes, 0xa5, sizeof(bytes));
    for (size_t length = 0; length < sizeof(bytes); length += 3) {
        int fd = raw_connect(f, a, length % 2);
        assert_int_equal(unixsock_send(fd, bytes, length, NULL, 0, 0), 0);
        assert_is_cut_off(fd);
    }
    struct {
        struct hv_request_create r;
        size_t length;
    } bad[] = {
        {{.head = {.op = HV_HELLO, .value = HV_VERSION}}, 16}, /* twice */
        {{.head = {.op = HV_PORT_CLOSE, .value = 1, .domid = 1}}, 16},
        {{.head = {.op = HV_PORT_CLOSE, .value = 1, .flag = 1}}, 16},
        {{.head = {.op = HV_EXTENT_ALLOC, .value = 1, .flag = 2}}, 16},
        {{.head = {.op = HV_DOMAIN_WATCH, .value = 1}}, 16},
        {{.head = {.op = HV_EXTENT_MAP}}, 80},
        {{.head = {.op = HV_DOMAIN_CREATE}, .name = "x"}, 16},
        {{.head = {.op = HV_DOMAIN_CREATE}, .name = ""}, 80},
        {{.head = {.op = HV_DOMAIN_CREATE}, .name = "../x"}, 80},
        {{.head = {.op = HV_DOMAIN_CREATE}, .name = "x\0y"}, 80},
        {{.head = {.op = HV_OP_END_}}, 16},
        {{.head = {.op = UINT32_MAX}}, 16},
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        int fd = raw_connect(f, i < 6 ? a : 0, true);
        assert_int_equal(unixsock_send(fd, &bad[i].r, bad[i].length, NULL, 0, 0), 0);
        assert_is_cut_off(fd);
    }
    struct hv_request early = {.op = HV_PORT_ALLOC};
    int fd = raw_connect(f, a, false);
    assert_int_equal(unixsock_send(fd, &early, sizeof(early), NULL, 0, 0), 0);
    assert_is_cut_off(fd);
    assert_holds_nothing(f, a);
    eventually(hvworld_fd_count(&f->w) == fds_before);
}

static void test_descriptors_beside_requests_do_not_stay(void **state)
{
    struct fixture *f = *state;
    uint16_t a = domain(f, "a");
    int fd = raw_connect(f, a, true);
    unsigned fds_before = hvworld_fd_count(&f->w);
    int passed[] = {0, 1, 2, fd};
    struct hv_request r = {.op = HV_PORT_STATUS, .value = 1};
    struct hv_reply reply;
    for (int i = 0; i < 100; i++) {
        int sent = unixsock_send(fd, &r, sizeof(r), passed, 4, 0);
        if (sent == -EPERM) { /* this kernel does not even send them */
            assert_int_equal(unixsock_send(fd, &r, sizeof(r), NULL, 0, 0), 0);
        } else {
            assert_int_equal(sent, 0);
        }
        assert_int_equal(unixsock_recv(fd, &reply, sizeof(reply), NULL, NULL, 0), sizeof(reply));
        assert_int_equal(reply.result, 0);
    }
    assert_int_equal(hvworld_fd_count(&f->w), fds_before);
    close(fd);
}

static void test_lesson_216_replies_carry_no_stale_bytes(void **state)
{
    struct fixture *f = *state;
    int fd = raw_connect(f, domain(f, "a"), true);
    struct hv_request r = {.op = HV_EXTENT_FREE, .value = 77, .seq = 5};
    struct hv_reply reply, expected;
    memset(&expected, 0, sizeof(expected));
    expected.op = HV_EXTENT_FREE;
    expected.seq = 5;
    expected.result = -ENOENT;
    assert_int_equal(unixsock_send(fd, &r, sizeof(r), NULL, 0, 0), 0);
    assert_int_equal(unixsock_recv(fd, &reply, sizeof(reply), NULL, NULL, 0), sizeof(reply));
    assert_memory_equal(&reply, &expected, sizeof(reply));
    close(fd);
}

/* XSA-326: one who asks and never reads the answers costs a bounded amount and stops nobody. */
static void test_lesson_326_unread_replies_are_bounded(void **state)
{
    struct fixture *f = *state;
    uint16_t a = domain(f, "a"), b = domain(f, "b");
    int fd = raw_connect(f, a, true);
    struct hv_request r = {.op = HV_EXTENT_ALLOC, .value = 1};
    unsigned sent = 0;
    struct hvclient *other = connect_to(f, b);
    while (unixsock_send(fd, &r, sizeof(r), NULL, 0, MSG_DONTWAIT) == 0 && sent < 100000)
        sent++;
    for (int i = 0; i < 100; i++) {
        struct hv_port p;
        assert_int_equal(hvclient_port_status(other, 1, &p, NULL), 0);
    }
    assert_true(sent < 100000);
    assert_true(info(f, a).extents < 100); /* it is not served further than it reads */
    close(fd);
    eventually(info(f, a).instances == 0);
    assert_holds_nothing(f, a);
    hvclient_close(other);
}

/* XSA-233, XSA-325: one process that misbehaves is cut off, once, and is not its domain's end. */
static void test_lesson_325_a_cut_connection_is_not_the_end_of_its_domain(void **state)
{
    struct fixture *f = *state;
    uint16_t a = domain(f, "a");
    assert_int_equal(hvclient_domain_watch(f->dom0, NULL), 0);
    struct hvclient *good = connect_to(f, a);
    struct hv_port p;
    int fds[2];
    assert_int_equal(hvclient_port_alloc(good, 0, &p, fds, NULL), 0);
    close(fds[0]), close(fds[1]);
    int fd = raw_connect(f, a, true);
    assert_int_equal(unixsock_send(fd, "junk", 4, NULL, 0, 0), 0);
    assert_is_cut_off(fd);
    assert_int_equal(info(f, a).instances, 1);
    assert_int_equal(info(f, a).dying, 0);
    assert_no_event(f->dom0);
    assert_int_equal(hvclient_port_status(good, p.port, &p, NULL), 0);
    assert_int_equal(p.status, HV_PORT_UNBOUND);
    hvclient_close(good);
}

/* Well-formed nonsense: every operation with every kind of number. The server serves on, and nothing is left. */
static void test_random_requests_leave_nothing(void **state)
{
    struct fixture *f = *state;
    uint16_t a = domain(f, "a");
    uint32_t seed = 7;
    int fd = raw_connect(f, a, true);
    for (int i = 0; i < 20000; i++) {
        struct hv_request_create r = {.head = {
                                          .op = 1 + (random_next(&seed) >> 16) % HV_OP_END_,
                                          .seq = (uint32_t)i,
                                          .domid = (uint16_t)((random_next(&seed) >> 16) % 4),
                                          .flag = (random_next(&seed) >> 16) % 16 == 0,
                                          .value = (random_next(&seed) >> 16) % 8,
                                      }};
        if (i % 7 == 0)
            r.head.domid = 0;
        if (i % 11 == 0)
            r.head.value = random_next(&seed);
        struct hv_reply reply;
        int fds[UNIXSOCK_FDS_MAX];
        unsigned fd_count = UNIXSOCK_FDS_MAX;
        size_t length = i % 13 ? sizeof(r.head) : sizeof(r);
        assert_int_equal(unixsock_send(fd, &r, length, NULL, 0, 0), 0);
        ssize_t n = unixsock_recv(fd, &reply, sizeof(reply), fds, &fd_count, 0);
        if (n <= 0) {
            close(fd);
            fd = raw_connect(f, a, true);
            continue;
        }
        assert_int_equal(n, sizeof(reply));
        assert_int_equal(reply.seq, i);
        assert_true(reply.result <= 0 && reply.result > -4096);
        assert_true(fd_count == 0 || reply.result == 0);
        for (unsigned k = 0; k < fd_count; k++)
            close(fds[k]);
    }
    close(fd);
    eventually(info(f, a).instances == 0);
    assert_holds_nothing(f, a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_each_limit_is_refused_early_and_counted),
        WORLD_TEST(test_a_domain_has_so_many_processes_and_no_more),
        cmocka_unit_test(test_a_greedy_domain_leaves_its_neighbour_the_guaranteed_descriptors),
        WORLD_TEST(test_garbage_of_any_length_is_disconnected_and_leaves_nothing),
        WORLD_TEST(test_descriptors_beside_requests_do_not_stay),
        WORLD_TEST(test_lesson_216_replies_carry_no_stale_bytes),
        WORLD_TEST(test_lesson_326_unread_replies_are_bounded),
        WORLD_TEST(test_lesson_325_a_cut_connection_is_not_the_end_of_its_domain),
        WORLD_TEST(test_random_requests_leave_nothing),
    };
    return cmocka_run_group_tests_name("hypervisor: hostile", tests, NULL, NULL);
}
