/* SPDX-License-Identifier: MIT */
/* The block frontend against a backend that misbehaves. Lessons of published advisories that are about backends only
 * (155, 142, 216 …) are tested with the backend; here are those that a frontend has to have learned.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <time.h>

#include "tests/front_guest.h"

/* A backend in that mode makes the disk fail: everything in flight -EIO, later calls too, and the store says why. */
static void hostile(struct front_world *w, enum back_mode mode, const char *sentence)
{
    struct guest g;
    struct dz_io io[8];
    unsigned char data[8][4096];
    front_world_backend_start(w, mode == BACK_DOUBLE ? BACK_HOLD : mode, 0);
    guest_open(w, &g);
    memset(data, 0xa5, sizeof(data));
    for (unsigned i = 0; i < 8; i++) {
        io[i] = (struct dz_io){DZ_READ, data[i], 4096, i * 4096, NULL, 1, {0}};
        submit(&g, &io[i]);
    }
    if (mode == BACK_DOUBLE) {
        dz_vbd_kick(g.disk);
        front_world_until(&w->back->held, 8);
        front_world_mode(w, mode, 0);
    }
    assert_int_equal(drain(&g), 8);
    unsigned failed = 0;
    for (unsigned i = 0; i < 8; i++)
        failed += io[i].result == -EIO;
    assert_true(failed > 0);
    assert_int_equal(dz_vbd_submit(g.disk, &io[0]), -EIO);
    if (!strstr(dz_error(), sentence))
        fail_msg("%s", dz_error());
    struct xb_device d = front_world_device(w);
    _cleanup_free_ char *text = NULL;
    assert_int_equal(store_read(w->store, STORE_NO_TX, &text, NULL, "%s/error", d.dir), 0);
    assert_non_null(strstr(text, sentence));
    guest_close(w, &g);
}

static void test_lesson_39_garbage_response_index_fails_the_disk(void **state)
{
    hostile(*state, BACK_GARBAGE_PROD, "response index");
}

static void test_response_with_an_unknown_id_fails_the_disk(void **state)
{
    hostile(*state, BACK_BAD_ID, "not in flight");
}

static void test_response_that_comes_twice_fails_the_disk(void **state)
{
    hostile(*state, BACK_DOUBLE, "not in flight");
}

static void test_stale_response_to_a_slot_in_new_use_fails_the_disk(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    unsigned char data[512];
    front_world_backend_start(w, BACK_STALE, 0);
    guest_open(w, &g);
    assert_int_equal(dz_vbd_read(g.disk, data, 512, 0), 0);    /* slot 0 */
    assert_int_equal(dz_vbd_read(g.disk, data, 512, 0), -EIO); /* slot 0 again, answered with the first id */
    assert_non_null(strstr(dz_error(), "not in flight"));
    guest_close(w, &g);
}

static void test_response_to_another_operation_fails_the_disk(void **state)
{
    hostile(*state, BACK_WRONG_OP, "another operation");
}

static void test_response_before_a_request_fails_the_disk(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    struct dz_io *done;
    unsigned char data[512];
    front_world_backend_start(w, BACK_UNTOLD, 0);
    guest_open(w, &g);
    while (w->back->mode == BACK_UNTOLD)
        assert_int_equal(dz_vbd_reap(g.disk, &done, 1), 0);
    struct dz_io io = {DZ_READ, data, 512, 0, NULL, 0, {0}};
    int r = dz_vbd_submit(g.disk, &io); /* refused at once, or failed with the response that nobody asked for */
    if (r == 0) {
        assert_int_equal(dz_vbd_wait(g.disk, &done, 1, -1), 1);
        r = io.result;
    }
    assert_int_equal(r, -EIO);
    guest_close(w, &g);
}

static void test_lesson_391_event_storm_costs_bounded_wakeups(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    unsigned char data[512];
    struct dz_vbd_stats stats;
    front_world_backend_start(w, BACK_STORM, 0);
    guest_open(w, &g);
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(dz_vbd_read(g.disk, data, 512, 0), 0);
    dz_vbd_stats(g.disk, &stats);
    assert_true(stats.notifications_received < 20 * 10000 / 10); /* of 200,000 that were sent */
    guest_close(w, &g);
}

static void test_lesson_350_close_waits_for_requests_in_flight(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    struct dz_io io[DEPTH];
    static unsigned char data[DEPTH][4096];
    front_world_backend_start(w, BACK_GOOD, 0);
    guest_open(w, &g);
    fill(w->back->data, BACK_DISK_BYTES, 8);
    for (unsigned i = 0; i < DEPTH; i++) {
        io[i] = (struct dz_io){DZ_READ, data[i], 4096, i * 4096, NULL, 1, {0}};
        submit(&g, &io[i]);
    }
    guest_close(w, &g);
    for (unsigned i = 0; i < DEPTH; i++) {
        assert_int_equal(io[i].result, 0);
        assert_memory_equal(data[i], w->back->data + i * 4096, 4096);
    }
    assert_int_equal(holdings(w).extents, 0);
}

static void test_lesson_396_pages_still_mapped_are_not_given_back(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    front_world_backend_start(w, BACK_GOOD, 0);
    guest_open(w, &g);
    front_world_mode(w, BACK_NO_UNMAP, 0);
    assert_int_equal(holdings(w).extents, 2);
    dz_vbd_close(g.disk);
    assert_int_equal(holdings(w).extents, 1); /* the ring page, still granted; the pool is back */
    front_world_mode(w, BACK_GOOD, 0);
    assert_int_equal(dz_vbd_open(g.dom, "xvda", NULL, &g.disk), 0); /* never the page that is still mapped */
    assert_int_equal(holdings(w).extents, 3);
    guest_close(w, &g);
    front_world_backend_kill(w);
    while (holdings(w).extents) /* the last holder is gone */
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

static void test_lesson_403_shared_pages_begin_zeroed_and_hold_nothing_else(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    static const unsigned char zeroes[64 * 4096];
    front_world_backend_start(w, BACK_GOOD, 0);
    guest_open(w, &g);
    unsigned char *one = dz_buffer_alloc(g.disk, 100), *two = dz_buffer_alloc(g.disk, sizeof(zeroes));
    assert_int_equal((uintptr_t)one % 4096, 0);
    assert_true(two == one + 4096); /* a page is one buffer's */
    assert_memory_equal(one, zeroes, 4096);
    assert_memory_equal(two, zeroes, sizeof(zeroes));
    guest_close(w, &g);
}

static void test_lesson_405_backend_that_misbehaves_while_it_comes_back(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    struct dz_io io[8];
    unsigned char data[8][512];
    front_world_backend_start(w, BACK_HOLD, 0);
    guest_open(w, &g);
    for (unsigned i = 0; i < 8; i++) {
        io[i] = (struct dz_io){DZ_READ, data[i], 512, i * 512, NULL, 1, {0}};
        submit(&g, &io[i]);
    }
    dz_vbd_kick(g.disk);
    front_world_until(&w->back->held, 8);
    front_world_backend_kill(w);
    front_world_backend_start(w, BACK_BAD_ID, 3); /* answers three of the replayed and then with garbage */
    assert_int_equal(drain(&g), 8);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(io[i].result, i < 3 ? 0 : -EIO);
    guest_close(w, &g);
}

static void test_lesson_405_backend_that_dies_during_close_does_not_hold_it_up_for_ever(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    unsigned char data[512];
    front_world_backend_start(w, BACK_HOLD, 0);
    guest_open_with(w, &g, &(struct dz_vbd_options){.timeout_ms = 2000});
    struct dz_io io = {DZ_READ, data, 512, 0, NULL, 0, {0}};
    submit(&g, &io);
    dz_vbd_kick(g.disk);
    front_world_until(&w->back->held, 1);
    front_world_backend_kill(w);
    guest_close(w, &g); /* gives up after the disk's timeout */
    assert_int_equal(front_world_front_state(w), XenbusStateClosed);
    assert_int_equal(holdings(w).extents, 0);
}

static void test_lesson_465_disk_that_comes_back_with_other_sectors_fails(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    unsigned char data[512];
    front_world_backend_start(w, BACK_GOOD, 0);
    guest_open(w, &g);
    front_world_backend_kill(w);
    w->back->disk.sector_bytes = 4096;
    front_world_backend_start(w, BACK_GOOD, 0);
    assert_int_equal(dz_vbd_read(g.disk, data, 512, 0), -EPROTO);
    assert_non_null(strstr(dz_error(), "sector size"));
    guest_close(w, &g);
}

static void test_lesson_175_what_the_backend_says_about_the_disk_is_checked(void **state)
{
    struct front_world *w = *state;
    static const struct keys_blk_disk bad[] = {
        {.sectors = UINT64_MAX, .sector_bytes = 512, .physical_sector_bytes = 512},
        {.sectors = 1ull << 55, .sector_bytes = 512, .physical_sector_bytes = 512}, /* times 512 wraps */
        {.sectors = 8, .sector_bytes = 0, .physical_sector_bytes = 512},
        {.sectors = 8, .sector_bytes = 1000, .physical_sector_bytes = 4096},
        {.sectors = 8, .sector_bytes = 8192, .physical_sector_bytes = 8192},
        {.sectors = 7, .sector_bytes = 4096, .physical_sector_bytes = 4096},
        {.sectors = 8, .sector_bytes = 4096, .physical_sector_bytes = 512},
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct guest g;
        w->back->disk = bad[i];
        front_world_backend_start(w, BACK_GOOD, 0);
        assert_int_equal(dz_domain_open(w->domain_dir, &g.dom), 0);
        int r = dz_vbd_open(g.dom, "xvda", NULL, &g.disk);
        assert_true(r == -EINVAL || r == -ERANGE || r == -EPROTO);
        assert_true(strlen(dz_error()) > 20);
        dz_domain_close(g.dom);
        front_world_backend_kill(w);
    }
}

/* Rewritten under a disk that is open. */
static void disk_rewrite(struct front_world *w, const struct keys_blk_disk *disk)
{
    struct xb_device d = front_world_device(w);
    struct xb_device back;
    struct err e;
    xb_device_init(&back, w->store, XB_BACK, "vbd", d.front_domid, d.back_domid, d.devid);
    assert_int_equal(keys_blk_disk_write(&back, STORE_NO_TX, disk, &e), 0);
    assert_int_equal(store_printf(w->store, STORE_NO_TX, back.dir, "state", "4"), 0);
}

static void test_lesson_175_what_an_open_disk_becomes_is_checked_too(void **state)
{
    struct front_world *w = *state;
    static const struct keys_blk_disk bad[] = {
        {.sectors = UINT64_MAX, .sector_bytes = 512, .physical_sector_bytes = 512},
        {.sectors = 8, .sector_bytes = 4096, .physical_sector_bytes = 4096},
        {.sectors = 8, .sector_bytes = 0, .physical_sector_bytes = 512},
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct guest g;
        unsigned char data[512];
        front_world_backend_start(w, BACK_HOLD, 0);
        guest_open(w, &g);
        struct dz_io io = {DZ_READ, data, 512, 0, NULL, 0, {0}};
        struct dz_io *done;
        submit(&g, &io);
        dz_vbd_kick(g.disk);
        front_world_until(&w->back->held, 1);
        disk_rewrite(w, &bad[i]);
        assert_int_equal(dz_vbd_wait(g.disk, &done, 1, -1), 1);
        assert_true(io.result < 0);
        assert_true(dz_vbd_read(g.disk, data, 512, 0) < 0);
        assert_true(strlen(dz_error()) > 20);
        guest_close(w, &g);
        front_world_backend_kill(w);
    }
}

/* One look a change, at the most, and the requests go on. */
static void test_a_disk_that_changes_all_the_time_is_served(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    struct dz_vbd_info info;
    unsigned char data[512];
    struct keys_blk_disk disk = w->back->disk;
    front_world_backend_start(w, BACK_GOOD, 0);
    guest_open(w, &g);
    for (unsigned i = 0; i < 300; i++) {
        disk.sectors = BACK_DISK_BYTES / SECTOR_BYTES - i % 2 * 8;
        disk_rewrite(w, &disk);
        assert_int_equal(dz_vbd_read(g.disk, data, sizeof(data), i * 512), 0);
    }
    disk.sectors = 64;
    disk_rewrite(w, &disk);
    do {
        assert_int_equal(dz_vbd_read(g.disk, data, sizeof(data), 0), 0);
        dz_vbd_info(g.disk, &info);
    } while (info.size_bytes != 64 * SECTOR_BYTES);
    assert_in_range(info.changes, 1, 301);
    guest_close(w, &g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FRONT_TEST(test_lesson_39_garbage_response_index_fails_the_disk),
        FRONT_TEST(test_response_with_an_unknown_id_fails_the_disk),
        FRONT_TEST(test_response_that_comes_twice_fails_the_disk),
        FRONT_TEST(test_stale_response_to_a_slot_in_new_use_fails_the_disk),
        FRONT_TEST(test_response_to_another_operation_fails_the_disk),
        FRONT_TEST(test_response_before_a_request_fails_the_disk),
        FRONT_TEST(test_lesson_391_event_storm_costs_bounded_wakeups),
        FRONT_TEST(test_lesson_350_close_waits_for_requests_in_flight),
        FRONT_TEST(test_lesson_396_pages_still_mapped_are_not_given_back),
        FRONT_TEST(test_lesson_403_shared_pages_begin_zeroed_and_hold_nothing_else),
        FRONT_TEST(test_lesson_405_backend_that_misbehaves_while_it_comes_back),
        FRONT_TEST(test_lesson_405_backend_that_dies_during_close_does_not_hold_it_up_for_ever),
        FRONT_TEST(test_lesson_465_disk_that_comes_back_with_other_sectors_fails),
        FRONT_TEST(test_lesson_175_what_the_backend_says_about_the_disk_is_checked),
        FRONT_TEST(test_lesson_175_what_an_open_disk_becomes_is_checked_too),
        FRONT_TEST(test_a_disk_that_changes_all_the_time_is_served),
    };
    return cmocka_run_group_tests_name("blkfront_hostile", tests, NULL, NULL);
}
