/* SPDX-License-Identifier: MIT */
/* Rings of several pages and indirect requests, seen from the guest: what is offered is used, what is not is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/front_guest.h"

#define MIB (1u << 20)

static void offer(struct front_world *w, uint32_t order, uint32_t segments)
{
    w->back->features =
        (struct keys_blk_features){.max_ring_order = order, .max_queues = 1, .max_indirect_segments = segments};
}

static struct dz_vbd_info info_of(struct guest *g)
{
    struct dz_vbd_info info;
    dz_vbd_info(g->disk, &info);
    return info;
}

static char *front_key(struct front_world *w, const char *name)
{
    struct xb_device d = front_world_device(w);
    char *text = NULL;
    return store_read(w->store, STORE_NO_TX, &text, NULL, "%s/%s", d.dir, name) < 0 ? NULL : text;
}

static void test_the_ring_is_as_deep_as_was_asked_and_offered(void **state)
{
    struct front_world *w = *state;
    static const struct {
        uint32_t asked, order_offered, depth;
        const char *order;
    } rows[] = {
        {0, 4, 32, NULL},          {1, 4, 32, NULL},   {33, 4, 64, "1"},   {128, 4, 128, "2"},  {300, 4, 512, "4"},
        {UINT32_MAX, 4, 512, "4"}, {512, 0, 32, NULL}, {512, 2, 128, "2"}, {512, 77, 512, "4"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct guest g;
        unsigned char data[512];
        offer(w, MIN(rows[i].order_offered, (uint32_t)KEYS_BLK_RING_ORDER_MAX), 0);
        front_world_backend_start(w, BACK_GOOD, 0);
        guest_open_with(w, &g, &(struct dz_vbd_options){.queue_depth = rows[i].asked});
        assert_int_equal(info_of(&g).queue_depth, rows[i].depth);
        assert_int_equal(info_of(&g).request_bytes_max, 11 * 4096);
        _cleanup_free_ char *order = front_key(w, "ring-page-order"), *one = front_key(w, "ring-ref");
        assert_true(rows[i].order ? order && !strcmp(order, rows[i].order) && !one : !order && one);
        assert_int_equal(dz_vbd_read(g.disk, data, sizeof(data), 0), 0);
        guest_close(w, &g);
        assert_int_equal(holdings(w).extents, 0);
        front_world_backend_kill(w);
    }
}

static void test_a_deep_ring_holds_its_requests_apart(void **state)
{
    enum { DEEP = 512 };
    struct front_world *w = *state;
    struct guest g;
    static struct dz_io io[DEEP];
    static unsigned char data[DEEP][512];
    struct dz_io *done[DEEP];
    offer(w, 4, 0);
    front_world_backend_start(w, BACK_HOLD, 0);
    guest_open_with(w, &g, &(struct dz_vbd_options){.queue_depth = DEEP});
    fill(w->back->data, BACK_DISK_BYTES, 4);
    for (unsigned round = 0; round < 4; round++) {
        front_world_mode(w, BACK_HOLD, 0);
        for (unsigned i = 0; i < DEEP; i++) {
            io[i] = (struct dz_io){DZ_READ, data[i], 512, (uint64_t)(i * 7 + round) * 512, NULL, 1, {0}};
            submit(&g, &io[i]);
        }
        assert_int_equal(dz_vbd_submit(g.disk, &(struct dz_io){DZ_READ, data[0], 512, 0, NULL, 0, {0}}), -EAGAIN);
        dz_vbd_kick(g.disk);
        front_world_until(&w->back->held, DEEP);
        front_world_mode(w, BACK_GOOD, 0);
        for (unsigned got = 0; got < DEEP;)
            got += (unsigned)dz_vbd_wait(g.disk, done, DEEP, -1);
        for (unsigned i = 0; i < DEEP; i++) {
            assert_int_equal(io[i].result, 0);
            assert_memory_equal(data[i], w->back->data + io[i].offset_bytes, 512);
        }
    }
    guest_close(w, &g);
}

static void test_requests_are_as_long_as_the_offer_and_the_protocol_allow(void **state)
{
    struct front_world *w = *state;
    static const struct {
        uint32_t offered, pages;
    } rows[] = {{0, 11}, {5, 11}, {11, 11}, {12, 12}, {32, 32}, {256, 256}, {4096, 256}};
    static unsigned char out[MIB], in[MIB];
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct guest g;
        offer(w, 0, rows[i].offered);
        front_world_backend_start(w, BACK_GOOD, 0);
        guest_open(w, &g);
        uint32_t bytes = info_of(&g).request_bytes_max;
        assert_int_equal(bytes, rows[i].pages * 4096);
        fill(out, bytes, (unsigned)i);
        w->back->taken = w->back->indirect = 0;
        assert_int_equal(dz_vbd_write(g.disk, out, bytes, 512), 0);
        assert_memory_equal(w->back->data + 512, out, bytes);
        assert_int_equal(dz_vbd_read(g.disk, in, bytes, 512), 0);
        assert_memory_equal(in, out, bytes);
        assert_int_equal(w->back->taken, 2);
        assert_int_equal(w->back->indirect, rows[i].pages > 11 ? 2 : 0);
        guest_close(w, &g);
        front_world_backend_kill(w);
    }
}

static void test_long_requests_go_from_the_pool_without_a_copy(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    struct dz_vbd_stats stats;
    offer(w, 0, 256);
    front_world_backend_start(w, BACK_GOOD, 0);
    guest_open(w, &g);
    unsigned char *buffer = dz_buffer_alloc(g.disk, MIB);
    assert_non_null(buffer);
    fill(buffer, MIB, 1);
    assert_int_equal(dz_vbd_write(g.disk, buffer, MIB, 4096), 0);
    assert_memory_equal(w->back->data + 4096, buffer, MIB);
    assert_int_equal(dz_vbd_read(g.disk, buffer + 512, MIB - 4096, 4096 + 512), 0); /* 256 pages, two of them in part */
    assert_memory_equal(w->back->data + 4096 + 512, buffer + 512, MIB - 4096);
    dz_vbd_stats(g.disk, &stats);
    assert_int_equal(stats.bytes_bounced, 0);
    assert_int_equal(stats.requests, 2);
    guest_close(w, &g);
}

static void test_a_bounced_long_request_always_goes_on(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    static unsigned char big[5 * MIB], in[5 * MIB];
    offer(w, 0, 256);
    front_world_backend_start(w, BACK_GOOD, 0);
    guest_open_with(w, &g, &(struct dz_vbd_options){.pool_bytes = 16 * 4096});
    while (dz_buffer_alloc(g.disk, 4096)) /* all that a program can have */
        ;
    fill(big, sizeof(big), 6);
    assert_int_equal(dz_vbd_write(g.disk, big, sizeof(big), 0), 0);
    assert_int_equal(dz_vbd_read(g.disk, in, sizeof(in), 0), 0);
    assert_memory_equal(in, big, sizeof(in));
    guest_close(w, &g);
}

/* What the dead backend may have scribbled over the pages of segments is written anew. */
static void test_long_requests_are_replayed(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    struct dz_io io[12];
    static unsigned char data[12][300 * 1024];
    struct dz_vbd_stats stats;
    offer(w, 1, 128);
    front_world_backend_start(w, BACK_HOLD, 0);
    guest_open_with(w, &g, &(struct dz_vbd_options){.queue_depth = 64});
    for (unsigned i = 0; i < 12; i++) {
        fill(data[i], sizeof(data[i]), i);
        io[i] = (struct dz_io){DZ_WRITE, data[i], sizeof(data[i]), i * sizeof(data[i]), NULL, 1, {0}};
        submit(&g, &io[i]);
    }
    dz_vbd_kick(g.disk);
    front_world_until(&w->back->held, 12);
    front_world_backend_kill(w);
    front_world_backend_start(w, BACK_GOOD, 0);
    assert_int_equal(drain(&g), 12);
    for (unsigned i = 0; i < 12; i++) {
        assert_int_equal(io[i].result, 0);
        assert_memory_equal(w->back->data + io[i].offset_bytes, data[i], sizeof(data[i]));
    }
    dz_vbd_stats(g.disk, &stats);
    assert_int_equal(stats.replayed, 12);
    guest_close(w, &g);
    assert_int_equal(holdings(w).extents, 0);
}

static void test_a_backend_that_comes_back_with_less_fails_the_disk(void **state)
{
    struct front_world *w = *state;
    static const struct {
        uint32_t order, segments;
        const char *words;
    } rows[] = {{1, 256, "rings of order 1"}, {2, 128, "requests of 128 segments"}, {0, 0, "rings of order 0"}};
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct guest g;
        unsigned char data[512];
        offer(w, 2, 256);
        front_world_backend_start(w, BACK_GOOD, 0);
        guest_open_with(w, &g, &(struct dz_vbd_options){.queue_depth = 128});
        front_world_backend_kill(w);
        offer(w, rows[i].order, rows[i].segments);
        front_world_backend_start(w, BACK_GOOD, 0);
        assert_int_equal(dz_vbd_read(g.disk, data, 512, 0), -EPROTO);
        assert_non_null(strstr(dz_error(), rows[i].words));
        guest_close(w, &g);
        front_world_backend_kill(w);
    }
}

static void test_a_backend_that_comes_back_with_more_serves_the_disk_as_it_was(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    unsigned char data[512];
    front_world_backend_start(w, BACK_GOOD, 0);
    guest_open_with(w, &g, &(struct dz_vbd_options){.queue_depth = 128});
    front_world_backend_kill(w);
    offer(w, 4, 256);
    front_world_backend_start(w, BACK_GOOD, 0);
    assert_int_equal(dz_vbd_read(g.disk, data, 512, 0), 0);
    assert_int_equal(info_of(&g).queue_depth, 32);
    assert_int_equal(info_of(&g).request_bytes_max, 11 * 4096);
    guest_close(w, &g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FRONT_TEST(test_the_ring_is_as_deep_as_was_asked_and_offered),
        FRONT_TEST(test_a_deep_ring_holds_its_requests_apart),
        FRONT_TEST(test_requests_are_as_long_as_the_offer_and_the_protocol_allow),
        FRONT_TEST(test_long_requests_go_from_the_pool_without_a_copy),
        FRONT_TEST(test_a_bounced_long_request_always_goes_on),
        FRONT_TEST(test_long_requests_are_replayed),
        FRONT_TEST(test_a_backend_that_comes_back_with_less_fails_the_disk),
        FRONT_TEST(test_a_backend_that_comes_back_with_more_serves_the_disk_as_it_was),
    };
    return cmocka_run_group_tests_name("blkfront_memory", tests, NULL, NULL);
}
