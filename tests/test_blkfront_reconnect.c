/* SPDX-License-Identifier: MIT */
/* The block frontend when its backend dies and is succeeded, or takes the disk away. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <sys/wait.h>

#include "tests/front_guest.h"

/* ---- the backend dies ---- */

static void test_requests_in_flight_are_replayed_in_order(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    struct dz_io io[DEPTH];
    static unsigned char data[DEPTH][8192];
    struct dz_vbd_stats stats;
    front_world_backend_start(w, BACK_HOLD, 5); /* five are answered, the rest is held until it dies */
    guest_open(w, &g);
    for (unsigned i = 0; i < DEPTH; i++) {
        fill(data[i], 8192, i);
        io[i] = (struct dz_io){DZ_WRITE, data[i], 8192, (uint64_t)(DEPTH - i) * 8192, NULL, 1, {0}};
        submit(&g, &io[i]);
    }
    dz_vbd_kick(g.disk);
    front_world_until(&w->back->held, DEPTH - 5);
    front_world_backend_kill(w);
    assert_int_equal(front_world_back_state(w), XenbusStateConnected); /* it had no time to say anything */
    front_world_backend_start(w, BACK_GOOD, 0);
    assert_int_equal(drain(&g), DEPTH);
    for (unsigned i = 0; i < DEPTH; i++) {
        assert_int_equal(io[i].result, 0);
        assert_memory_equal(w->back->data + io[i].offset_bytes, data[i], 8192);
    }
    assert_int_equal(w->back->seen, DEPTH - 5);
    for (unsigned i = 0; i < DEPTH - 5; i++)
        assert_int_equal(w->back->sectors_seen[i], io[i + 5].offset_bytes / 512);
    dz_vbd_stats(g.disk, &stats);
    assert_int_equal(stats.reconnects, 1);
    assert_int_equal(stats.replayed, DEPTH - 5);
    assert_int_equal(stats.errors, 0);
    guest_close(w, &g);
    assert_int_equal(holdings(w).extents, 0); /* the dead backend's bits went with its successor's unmaps */
}

static void test_calls_pause_while_the_backend_is_away(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    struct dz_io io[4];
    unsigned char data[4][512], in[512];
    front_world_backend_start(w, BACK_GOOD, 0);
    guest_open(w, &g);
    fill(w->back->data, 4096, 9);
    front_world_backend_kill(w);
    for (unsigned i = 0; i < 4; i++) { /* into the ring of the dead */
        io[i] = (struct dz_io){DZ_READ, data[i], 512, i * 512, NULL, 1, {0}};
        submit(&g, &io[i]);
    }
    struct dz_io *done[4];
    assert_int_equal(dz_vbd_wait(g.disk, done, 4, 20), 0);
    front_world_backend_start(w, BACK_GOOD, 0);
    assert_int_equal(dz_vbd_read(g.disk, in, 512, 4 * 512), 0); /* returns when there is one again */
    assert_memory_equal(in, w->back->data + 4 * 512, 512);
    assert_int_equal(drain(&g), 4);
    for (unsigned i = 0; i < 4; i++)
        assert_memory_equal(data[i], w->back->data + i * 512, 512);
    guest_close(w, &g);
}

static bool backend_died(struct front_world *w)
{
    if (waitpid(w->backend, NULL, WNOHANG) != w->backend)
        return false;
    w->backend = 0;
    return true;
}

static void test_backend_that_keeps_dying_loses_nothing(void **state)
{
    enum { COUNT = 300, LIVES = 5 };
    struct front_world *w = *state;
    struct guest g;
    static unsigned char out[COUNT * 4096], in[COUNT * 4096];
    static struct dz_io io[COUNT];
    struct dz_io *done[DEPTH];
    struct dz_vbd_stats stats;
    unsigned deaths = 0, submitted = 0, finished = 0;
    front_world_backend_start(w, BACK_DIE, 40);
    guest_open_with(w, &g, &(struct dz_vbd_options){.spin_us = 20});
    fill(out, sizeof(out), 77);
    while (finished < COUNT) {
        for (; submitted < COUNT && submitted - finished < DEPTH; submitted++) {
            io[submitted] = (struct dz_io){DZ_WRITE, out + submitted * 4096, 4096, submitted * 4096ull, NULL, 1, {0}};
            submit(&g, &io[submitted]);
        }
        int n = dz_vbd_wait(g.disk, done, DEPTH, 20);
        for (int i = 0; i < n; i++)
            assert_int_equal(done[i]->result, 0);
        finished += (unsigned)n;
        if (n == 0 && backend_died(w))
            front_world_backend_start(w, ++deaths < LIVES ? BACK_DIE : BACK_GOOD, 40);
    }
    assert_int_equal(deaths, LIVES);
    assert_int_equal(dz_vbd_read(g.disk, in, sizeof(in), 0), 0);
    assert_memory_equal(in, out, sizeof(in));
    dz_vbd_stats(g.disk, &stats);
    assert_int_equal(stats.reconnects, LIVES);
    assert_true(stats.replayed >= LIVES);
    guest_close(w, &g);
    assert_int_equal(holdings(w).extents, 0);
}

/* ---- the backend takes the disk away ---- */

static void test_detach_finishes_what_is_in_flight(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    guest_detached(w, &g);
    assert_non_null(strstr(dz_error(), "detached"));
    assert_int_equal(front_world_front_state(w), XenbusStateClosed);
    guest_close(w, &g);
    assert_int_equal(holdings(w).extents, 0);
}

static void test_forced_removal_fails_what_is_in_flight(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    struct dz_io io[4];
    unsigned char data[4][512];
    front_world_backend_start(w, BACK_HOLD, 0);
    guest_open(w, &g);
    for (unsigned i = 0; i < 4; i++) {
        io[i] = (struct dz_io){DZ_READ, data[i], 512, i * 512, NULL, 1, {0}};
        submit(&g, &io[i]);
    }
    dz_vbd_kick(g.disk);
    front_world_until(&w->back->held, 4);
    front_world_backend_kill(w);
    front_world_disk_remove(w);
    assert_int_equal(drain(&g), 4);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(io[i].result, -ENODEV);
    struct xb_device d = front_world_device(w);
    _cleanup_free_ char *text = NULL;
    guest_close(w, &g);
    assert_int_equal(store_read(w->store, STORE_NO_TX, &text, NULL, "%s/state", d.dir), -ENOENT); /* no stray node */
}

static void test_end_of_dom0_fails_what_is_in_flight(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    unsigned char data[512];
    front_world_backend_start(w, BACK_HOLD, 0);
    guest_open(w, &g);
    struct dz_io io = {DZ_READ, data, 512, 0, NULL, 1, {0}};
    submit(&g, &io);
    dz_vbd_kick(g.disk);
    front_world_until(&w->back->held, 1);
    front_world_backend_kill(w);
    front_world_servers_kill(w);
    assert_int_equal(drain(&g), 1);
    assert_int_equal(io.result, -EIO);
    assert_int_equal(dz_vbd_flush(g.disk), -EIO);
    assert_non_null(strstr(dz_error(), "gone"));
    dz_vbd_close(g.disk);
    dz_domain_close(g.dom);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FRONT_TEST(test_requests_in_flight_are_replayed_in_order),
        FRONT_TEST(test_calls_pause_while_the_backend_is_away),
        FRONT_TEST(test_backend_that_keeps_dying_loses_nothing),
        FRONT_TEST(test_detach_finishes_what_is_in_flight),
        FRONT_TEST(test_forced_removal_fails_what_is_in_flight),
        FRONT_TEST(test_end_of_dom0_fails_what_is_in_flight),
    };
    return cmocka_run_group_tests_name("blkfront_reconnect", tests, NULL, NULL);
}
