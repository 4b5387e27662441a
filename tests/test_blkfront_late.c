/* SPDX-License-Identifier: MIT */
/* The block frontend's requests that nobody answers in time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <poll.h>

#include "tests/front_guest.h"

#define MIB (1u << 20)

static struct dz_vbd_stats stats_of(struct guest *g)
{
    struct dz_vbd_stats s;
    dz_vbd_stats(g->disk, &s);
    return s;
}

static void test_a_late_request_comes_back_and_its_answer_touches_nothing(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    static unsigned char data[4][4096], untouched[4096];
    struct dz_io io[4], *done;
    front_world_backend_start(w, BACK_HOLD, 0);
    guest_open_with(w, &g, &(struct dz_vbd_options){.request_timeout_ms = 40, .spin_us = 5});
    fill(w->back->data, BACK_DISK_BYTES, 4);
    for (unsigned i = 0; i < 4; i++) {
        io[i] = (struct dz_io){i == 3 ? DZ_FLUSH : DZ_READ, data[i], i == 3 ? 0 : 4096, i * 4096, NULL, 1, {0}};
        submit(&g, &io[i]);
    }
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(dz_vbd_wait(g.disk, &done, 1, -1), 1);
    while (dz_vbd_reap(g.disk, &done, 1) == 0) { /* by the descriptor */
        struct pollfd p = {dz_vbd_fd(g.disk), POLLIN, 0};
        if (!dz_vbd_arm(g.disk))
            assert_true(poll(&p, 1, -1) == 1);
    }
    assert_int_equal(dz_vbd_wait(g.disk, &done, 1, -1), 1);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(io[i].result, -ETIMEDOUT);
    assert_int_equal(stats_of(&g).timeouts, 4);
    front_world_until(&w->back->held, 4);
    front_world_mode(w, BACK_GOOD, 0);
    front_world_until(&w->back->answered, 4);
    while (dz_vbd_read(g.disk, data[3], 4096, 0) == -ETIMEDOUT) /* a busy machine */
        ;
    assert_memory_equal(data[3], w->back->data, 4096);
    for (unsigned i = 0; i < 3; i++)
        assert_memory_equal(data[i], untouched, 4096);
    assert_int_equal(dz_vbd_reap(g.disk, &done, 1), 0); /* nothing comes twice */
    guest_close(w, &g);
    assert_int_equal(holdings(w).extents, 0);
}

static void test_a_late_request_from_the_pool_keeps_its_memory_until_it_is_answered(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    struct dz_io *done;
    front_world_backend_start(w, BACK_HOLD, 0);
    guest_open_with(w, &g, &(struct dz_vbd_options){.request_timeout_ms = 20});
    struct dz_io io = {DZ_READ, dz_buffer_alloc(g.disk, 4096), 4096, 0, NULL, 1, {0}};
    fill(w->back->data, 4096, 4);
    submit(&g, &io);
    while (!stats_of(&g).timeouts)
        assert_int_equal(dz_vbd_wait(g.disk, &done, 1, 5), 0);
    front_world_mode(w, BACK_GOOD, 0);
    assert_int_equal(dz_vbd_wait(g.disk, &done, 1, -1), 1);
    assert_int_equal(io.result, 0);
    assert_memory_equal(io.buffer, w->back->data, 4096);
    guest_close(w, &g);
}

static void test_what_is_late_is_not_given_to_a_successor(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    struct dz_io *done;
    static unsigned char data[4096];
    front_world_backend_start(w, BACK_HOLD, 0);
    guest_open_with(w, &g, &(struct dz_vbd_options){.request_timeout_ms = 20});
    unsigned char *p = dz_buffer_alloc(g.disk, 4096);
    struct dz_io pool = {DZ_WRITE, p, 4096, 0, NULL, 1, {0}}, bounced = {DZ_WRITE, data, 4096, 4096, NULL, 1, {0}};
    submit(&g, &pool);
    submit(&g, &bounced);
    dz_vbd_kick(g.disk);
    front_world_until(&w->back->held, 2);
    while (stats_of(&g).timeouts < 2)
        dz_vbd_wait(g.disk, &done, 1, 5);
    assert_int_equal(bounced.result, -ETIMEDOUT);
    assert_int_equal(pool.result, 1);
    front_world_backend_kill(w);
    w->back->taken = 0;
    front_world_backend_start(w, BACK_GOOD, 0);
    assert_int_equal(dz_vbd_wait(g.disk, &done, 1, -1), 1);
    assert_true(done == &pool && pool.result == -ETIMEDOUT);
    assert_int_equal(w->back->taken, 0);
    assert_int_equal(stats_of(&g).replayed, 0);
    guest_close(w, &g);
    assert_int_equal(holdings(w).extents, 0);
}

static void test_a_ring_full_of_late_requests_says_so(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    static unsigned char data[3 * MIB];
    front_world_backend_start(w, BACK_HOLD, 0);
    guest_open_with(w, &g, &(struct dz_vbd_options){.request_timeout_ms = 20});
    struct dz_io io = {DZ_READ, data, sizeof(data), 0, NULL, 1, {0}}, *done; /* all slots, and a backlog */
    submit(&g, &io);
    assert_int_equal(dz_vbd_wait(g.disk, &done, 1, -1), 1);
    assert_int_equal(io.result, -ETIMEDOUT);
    assert_int_equal(dz_vbd_submit(g.disk, &io), -EAGAIN);
    assert_int_equal(dz_vbd_read(g.disk, data, 4096, 0), -ETIMEDOUT);
    front_world_until(&w->back->held, DEPTH);
    front_world_mode(w, BACK_GOOD, 0);
    while (dz_vbd_read(g.disk, data, 4096, 0) == -ETIMEDOUT)
        ;
    guest_close(w, &g);
}

/* Its first part is the pool's and is served; for the second there is no bounce page, and nothing in flight that would
 * give any back. */
static void test_a_long_request_ends_where_late_ones_hold_all_bounce_pages(void **state)
{
    enum { BYTES = 64 * 4096 }; /* of a request */
    struct front_world *w = *state;
    struct guest g;
    static unsigned char data[BYTES];
    struct dz_io late = {DZ_READ, data, BYTES, 0, NULL, 1, {0}}, *done;
    w->back->features.max_indirect_segments = 64;
    front_world_backend_start(w, BACK_HOLD, 0);
    guest_open_with(w, &g, &(struct dz_vbd_options){.request_timeout_ms = 20, .pool_bytes = BYTES});
    unsigned char *pool = dz_buffer_alloc(g.disk, BYTES);
    struct iovec iov[] = {{pool, BYTES}, {data, BYTES}};
    assert_non_null(pool);
    submit(&g, &late);
    assert_int_equal(dz_vbd_wait(g.disk, &done, 1, -1), 1);
    assert_int_equal(late.result, -ETIMEDOUT);
    front_world_until(&w->back->held, 1);
    front_world_mode(w, BACK_HOLD, 1); /* the next is served */
    assert_int_equal(dz_vbd_readv(g.disk, iov, 2, 0), -ETIMEDOUT);
    front_world_mode(w, BACK_HOLD, 1);
    late = (struct dz_io){DZ_READV, iov, 2 * BYTES, 0, NULL, 1, {0}};
    submit(&g, &late);
    assert_int_equal(dz_vbd_wait(g.disk, &done, 1, -1), 1);
    assert_true(done == &late && late.result == -ETIMEDOUT);
    front_world_mode(w, BACK_GOOD, 0);
    guest_close(w, &g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FRONT_TEST(test_a_late_request_comes_back_and_its_answer_touches_nothing),
        FRONT_TEST(test_a_late_request_from_the_pool_keeps_its_memory_until_it_is_answered),
        FRONT_TEST(test_what_is_late_is_not_given_to_a_successor),
        FRONT_TEST(test_a_ring_full_of_late_requests_says_so),
        FRONT_TEST(test_a_long_request_ends_where_late_ones_hold_all_bounce_pages),
    };
    return cmocka_run_group_tests_name("blkfront_late", tests, NULL, NULL);
}
