/* SPDX-License-Identifier: MIT */
/* The block frontend and bus addresses: its memory is mapped before the first request of each connection, whatever the
 * backend becomes between two of them, and a backend that answers a map with nonsense fails the disk. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/front_guest.h"

#define POOL_PAGES (1024u + 32) /* the default, and a page to bounce for each slot: two pieces */
#define LARGE      (128u << 10)
#define KINDS      4u
#define IOS        (KINDS + 3u)
#define REQUESTS   (IOS - 1u) /* two are one */

static void offer(struct front_world *w, uint32_t bits)
{
    w->back->features.bus_bits = bits;
    w->back->features.max_indirect_segments = 32;
}

static bool uses_bus_addresses(struct guest *g)
{
    struct dz_vbd_info info;
    dz_vbd_info(g->disk, &info);
    return info.bus_addresses;
}

/* Data of each kind: the pool's and the caller's, in a slot and in an indirect page; then of the pool two pages that
 * are joined, and a vector of two. */
struct transfers {
    unsigned char *buffer[IOS];
    uint32_t bytes[IOS];
    uint64_t offset[IOS];
    struct dz_io io[IOS];
    struct iovec iov[2];
    unsigned char caller[2][LARGE], vector[2 * PAGE_BYTES];
};

static void transfers_init(struct guest *g, struct transfers *t)
{
    static const uint32_t bytes[IOS] = {8192, 8192, LARGE, LARGE, PAGE_BYTES, PAGE_BYTES, 2 * PAGE_BYTES};
    unsigned char *pages = dz_buffer_alloc(g->disk, 8 * PAGE_BYTES);
    assert_non_null(pages);
    for (unsigned i = 0; i < IOS; i++) {
        t->bytes[i] = bytes[i];
        t->offset[i] = i < KINDS ? (uint64_t)i * LARGE : KINDS * LARGE + (i - KINDS) * PAGE_BYTES;
        t->buffer[i] = i >= KINDS ? pages + (size_t)(i - KINDS) * 2 * PAGE_BYTES
                       : i % 2    ? t->caller[i / 2]
                                  : dz_buffer_alloc(g->disk, bytes[i]);
        assert_non_null(t->buffer[i]);
    }
    t->iov[0] = (struct iovec){pages + (size_t)7 * PAGE_BYTES, PAGE_BYTES};
    t->iov[1] = (struct iovec){pages + (size_t)6 * PAGE_BYTES, PAGE_BYTES};
    t->buffer[IOS - 1] = t->vector;
}

static void transfers_submit(struct guest *g, struct transfers *t, bool write, unsigned seed)
{
    for (unsigned i = 0; i < IOS; i++) {
        bool vector = i == IOS - 1;
        if (write)
            fill(t->buffer[i], t->bytes[i], seed + i);
        else
            memset(t->buffer[i], 0, t->bytes[i]);
        for (unsigned piece = 0; vector && piece < 2; piece++)
            memcpy(t->iov[piece].iov_base, t->vector + (size_t)piece * PAGE_BYTES, PAGE_BYTES);
        enum dz_op op = vector ? (write ? DZ_WRITEV : DZ_READV) : write ? DZ_WRITE : DZ_READ;
        t->io[i] = (struct dz_io){op, vector ? (void *)t->iov : t->buffer[i], t->bytes[i], t->offset[i], NULL, 1, {0}};
        submit(g, &t->io[i]);
    }
}

static void transfers_check(struct front_world *w, struct transfers *t)
{
    for (unsigned piece = 0; piece < 2; piece++)
        memcpy(t->vector + (size_t)piece * PAGE_BYTES, t->iov[piece].iov_base, PAGE_BYTES);
    for (unsigned i = 0; i < IOS; i++) {
        assert_int_equal(t->io[i].result, 0);
        assert_memory_equal(w->back->data + t->offset[i], t->buffer[i], t->bytes[i]);
    }
}

static void writes_and_reads_are_right(struct front_world *w, struct guest *g, struct transfers *t, unsigned seed)
{
    for (unsigned op = 0; op < 2; op++) {
        transfers_submit(g, t, op == 0, seed);
        assert_int_equal(drain(g), IOS);
        transfers_check(w, t);
    }
}

static void test_the_pool_is_mapped_once_and_requests_name_bus_pages(void **state)
{
    struct front_world *w = *state;
    static struct transfers t;
    struct guest g;
    offer(w, 44);
    front_world_backend_start(w, BACK_GOOD, 0);
    guest_open_with(w, &g, &(struct dz_vbd_options){.merge = true});
    transfers_init(&g, &t);
    assert_true(uses_bus_addresses(&g) && w->back->bus);
    for (unsigned i = 0; i < 3; i++)
        writes_and_reads_are_right(w, &g, &t, 10 * i);
    assert_int_equal(w->back->maps, 2);
    assert_int_equal(w->back->mapped_pages, POOL_PAGES);
    assert_int_equal(w->back->wanted[0] + w->back->wanted[1], 0);
    guest_close(w, &g);
    assert_int_equal(holdings(w).extents, 0);
}

static void test_lesson_403_a_page_of_references_holds_nothing_else(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    offer(w, 44);
    front_world_backend_start(w, BACK_GOOD, 0);
    guest_open(w, &g);
    assert_int_equal(w->back->maps, 2);
    assert_int_equal(w->back->mapped_pages % 1024, 32); /* so the second has room for something else */
    assert_int_equal(w->back->list_rest, 0);
    guest_close(w, &g);
}

static void test_the_largest_pool_is_mapped_in_as_many_pieces(void **state)
{
    struct front_world *w = *state;
    static struct transfers t;
    struct guest g;
    offer(w, 32);
    front_world_backend_start(w, BACK_GOOD, 0);
    guest_open_with(w, &g, &(struct dz_vbd_options){.pool_bytes = 64u << 20, .merge = true});
    transfers_init(&g, &t);
    writes_and_reads_are_right(w, &g, &t, 4);
    assert_int_equal(w->back->maps, 16);
    assert_int_equal(w->back->mapped_pages, 16384);
    guest_close(w, &g);
    assert_int_equal(holdings(w).extents, 0);
}

static void test_who_refuses_or_is_not_offered_them_names_grants(void **state)
{
    struct front_world *w = *state;
    static struct transfers t;
    for (unsigned offered = 0; offered < 2; offered++) {
        struct guest g;
        offer(w, offered ? 32 : 0);
        front_world_backend_start(w, BACK_GOOD, 0);
        guest_open_with(w, &g, &(struct dz_vbd_options){.no_bus_addresses = offered});
        transfers_init(&g, &t);
        assert_false(uses_bus_addresses(&g) || w->back->bus);
        writes_and_reads_are_right(w, &g, &t, 1);
        guest_close(w, &g);
        front_world_backend_kill(w);
    }
    assert_int_equal(w->back->maps, 0);
}

/* ---- the backend is another one ---- */

/* From one kind of backend to another, and requests in flight with it. */
static void succeeded(struct front_world *w, uint32_t before, uint32_t after)
{
    static struct transfers t;
    struct guest g;
    struct dz_vbd_stats stats;
    offer(w, before);
    front_world_backend_start(w, BACK_HOLD, 0);
    guest_open_with(w, &g, &(struct dz_vbd_options){.merge = true});
    transfers_init(&g, &t);
    uint64_t mapped[2] = {w->back->mapped[0], w->back->mapped[1]};
    transfers_submit(&g, &t, true, before + after);
    dz_vbd_kick(g.disk);
    front_world_until(&w->back->held, REQUESTS);
    front_world_backend_kill(w);
    w->back->features.bus_bits = after;
    front_world_backend_start(w, BACK_GOOD, 0);
    assert_int_equal(drain(&g), IOS);
    transfers_check(w, &t);
    dz_vbd_stats(g.disk, &stats);
    assert_int_equal(stats.reconnects, 1);
    assert_int_equal(stats.replayed, REQUESTS);
    assert_int_equal(stats.errors, 0);
    assert_int_equal(uses_bus_addresses(&g), after != 0);
    assert_int_equal(w->back->mapped_pages, after ? POOL_PAGES : 0);
    for (unsigned i = 0; i < 2 && after; i++)
        assert_int_equal(w->back->wanted[i], before == after ? mapped[i] : 0);
    writes_and_reads_are_right(w, &g, &t, 5);
    guest_close(w, &g);
    front_world_backend_kill(w);
    assert_int_equal(holdings(w).extents, 0);
}

static void test_a_successor_maps_the_pool_where_it_was_before_the_replay(void **state)
{
    succeeded(*state, 44, 44);
    succeeded(*state, 32, 32);
}

static void test_a_successor_without_bus_addresses_is_given_grants(void **state)
{
    succeeded(*state, 44, 0);
}

static void test_a_successor_with_bus_addresses_is_given_those(void **state)
{
    succeeded(*state, 0, 32);
}

static void test_a_successor_that_reaches_less_far_maps_the_pool_elsewhere(void **state)
{
    succeeded(*state, 44, 32);
}

static void test_a_backend_that_dies_while_it_maps_is_succeeded(void **state)
{
    struct front_world *w = *state;
    static struct transfers t;
    struct guest g;
    struct dz_vbd_stats stats;
    offer(w, 44);
    front_world_backend_start(w, BACK_HOLD, 0);
    guest_open_with(w, &g, &(struct dz_vbd_options){.merge = true});
    transfers_init(&g, &t);
    transfers_submit(&g, &t, true, 3);
    dz_vbd_kick(g.disk);
    front_world_until(&w->back->held, REQUESTS);
    for (unsigned life = 0; life < 3; life++) {
        struct dz_io *done;
        unsigned maps = w->back->maps;
        front_world_backend_kill(w);
        w->back->map_mode = BACK_MAP_HOLD;
        front_world_backend_start(w, BACK_GOOD, 0);
        while (w->back->maps == maps)
            assert_int_equal(dz_vbd_wait(g.disk, &done, 1, 5), 0);
    }
    front_world_backend_kill(w);
    w->back->map_mode = BACK_MAP_GOOD;
    front_world_backend_start(w, BACK_GOOD, 0);
    assert_int_equal(drain(&g), IOS);
    transfers_check(w, &t);
    dz_vbd_stats(g.disk, &stats);
    assert_int_equal(stats.reconnects, 1);
    guest_close(w, &g);
    assert_int_equal(holdings(w).extents, 0);
}

/* The maps go through a queue that nobody looks at. */
static void test_who_waits_on_another_queue_hears_of_the_maps(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    struct dz_io *done;
    static unsigned char data[4096];
    offer(w, 44);
    w->back->features.max_queues = 2;
    front_world_backend_start(w, BACK_HOLD, 0);
    guest_open_with(w, &g, &(struct dz_vbd_options){.queues = 2});
    struct dz_queue *other = dz_vbd_queue(g.disk, 1);
    assert_non_null(other);
    fill(data, sizeof(data), 8);
    struct dz_io io = {DZ_WRITE, data, sizeof(data), 0, NULL, 1, {0}};
    assert_int_equal(dz_queue_submit(other, &io), 0);
    dz_queue_kick(other);
    front_world_until(&w->back->held, 1);
    front_world_backend_kill(w);
    w->back->map_mode = BACK_MAP_HOLD;
    front_world_backend_start(w, BACK_GOOD, 0);
    for (unsigned maps = w->back->maps; w->back->maps == maps;)
        assert_int_equal(dz_queue_wait(other, &done, 1, 5), 0);
    w->back->map_mode = BACK_MAP_GOOD;
    assert_int_equal(dz_queue_wait(other, &done, 1, -1), 1);
    assert_int_equal(io.result, 0);
    assert_memory_equal(w->back->data, data, sizeof(data));
    guest_close(w, &g);
}

/* One that does not map, but tells of answers all the time: whoever looks at whichever queue. */
static void test_lesson_391_events_while_maps_are_held_cost_bounded_wakeups(void **state)
{
    struct front_world *w = *state;
    static unsigned char data[512];
    offer(w, 44);
    w->back->features.max_queues = 2;
    for (uint32_t queue = 0; queue < 2; queue++) {
        struct guest g;
        struct dz_io *done;
        struct dz_vbd_stats before, after;
        w->back->map_mode = BACK_MAP_GOOD;
        front_world_backend_start(w, BACK_GOOD, 0);
        guest_open_with(w, &g, &(struct dz_vbd_options){.queues = 2});
        struct dz_queue *q = dz_vbd_queue(g.disk, queue);
        front_world_backend_kill(w);
        w->back->map_mode = BACK_MAP_HOLD;
        w->back->storms = 0;
        dz_vbd_stats(g.disk, &before);
        front_world_backend_start(w, BACK_STORM, 0);
        struct dz_io io = {DZ_READ, data, sizeof(data), 0, NULL, 1, {0}};
        assert_int_equal(dz_queue_submit(q, &io), 0);
        while (w->back->storms < 20)
            assert_int_equal(dz_queue_wait(q, &done, 1, 5), 0);
        dz_vbd_stats(g.disk, &after);
        assert_true(after.notifications_received - before.notifications_received < 20 * 10000 / 10);
        w->back->map_mode = BACK_MAP_GOOD;
        assert_int_equal(dz_queue_wait(q, &done, 1, -1), 1);
        assert_int_equal(io.result, 0);
        guest_close(w, &g);
        front_world_backend_kill(w);
    }
}

static void test_requests_time_out_while_the_backend_does_not_map(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    unsigned char data[512];
    offer(w, 44);
    front_world_backend_start(w, BACK_GOOD, 0);
    guest_open_with(w, &g, &(struct dz_vbd_options){.request_timeout_ms = 40});
    front_world_backend_kill(w);
    w->back->map_mode = BACK_MAP_HOLD;
    front_world_backend_start(w, BACK_GOOD, 0);
    for (unsigned maps = w->back->maps; w->back->maps == maps;)
        assert_int_equal(dz_vbd_read(g.disk, data, sizeof(data), 0), -ETIMEDOUT);
    assert_int_equal(dz_vbd_read(g.disk, data, sizeof(data), 0), -ETIMEDOUT);
    w->back->map_mode = BACK_MAP_GOOD;
    int r;
    while ((r = dz_vbd_read(g.disk, data, sizeof(data), 0)) == -ETIMEDOUT) /* until it is there again */
        ;
    assert_int_equal(r, 0);
    guest_close(w, &g);
}

/* ---- the backend misbehaves ---- */

static const struct {
    enum back_map_mode mode;
    const char *sentence;
} wrong[] = {
    {BACK_MAP_REFUSED, "refused to map"}, {BACK_MAP_NOTHING, "no page's"},
    {BACK_MAP_MISALIGNED, "no page's"},   {BACK_MAP_BEYOND, "beyond"},
    {BACK_MAP_WRAPS, "beyond"},           {BACK_MAP_OVERLAP, "two pieces"},
    {BACK_MAP_TWICE, "not in flight"},    {BACK_MAP_WRONG_OP, "another operation"},
    {BACK_MAP_BAD_ID, "not in flight"},   {BACK_MAP_RUNS_AHEAD, "response index"},
    {BACK_MAP_ELSEWHERE, "elsewhere"}, /* where it was asked for a place */
};

static void error_node_says(struct front_world *w, const char *sentence)
{
    struct xb_device d = front_world_device(w);
    _cleanup_free_ char *text = NULL;
    assert_int_equal(store_read(w->store, STORE_NO_TX, &text, NULL, "%s/error", d.dir), 0);
    if (!strstr(text, sentence))
        fail_msg("%s", text);
}

static void test_a_map_that_is_refused_or_answered_with_garbage_fails_the_open(void **state)
{
    struct front_world *w = *state;
    offer(w, 44);
    for (size_t i = 0; i < ARRAY_SIZE(wrong) - 1; i++) {
        struct dz_domain *dom;
        struct dz_vbd *disk;
        w->back->map_mode = wrong[i].mode;
        front_world_backend_start(w, BACK_GOOD, 0);
        assert_int_equal(dz_domain_open(w->domain_dir, &dom), 0);
        assert_int_equal(dz_vbd_open(dom, "xvda", NULL, &disk), -EIO);
        if (!strstr(dz_error(), wrong[i].sentence))
            fail_msg("%s", dz_error());
        error_node_says(w, wrong[i].sentence);
        dz_domain_close(dom);
        front_world_backend_kill(w);
    }
    assert_int_equal(holdings(w).extents, 0);
}

static void test_a_successor_that_maps_nonsense_fails_the_disk(void **state)
{
    struct front_world *w = *state;
    offer(w, 32);
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        struct guest g;
        struct dz_io *done;
        static unsigned char data[512];
        w->back->map_mode = BACK_MAP_GOOD;
        front_world_backend_start(w, BACK_HOLD, 0);
        guest_open(w, &g);
        struct dz_io io = {DZ_READ, data, 512, 0, NULL, 0, {0}};
        submit(&g, &io);
        dz_vbd_kick(g.disk);
        front_world_until(&w->back->held, 1);
        front_world_backend_kill(w);
        w->back->map_mode = wrong[i].mode;
        front_world_backend_start(w, BACK_GOOD, 0);
        assert_int_equal(dz_vbd_wait(g.disk, &done, 1, -1), 1);
        assert_int_equal(io.result, -EIO);
        assert_int_equal(dz_vbd_submit(g.disk, &io), -EIO);
        const char *sentence = wrong[i].mode == BACK_MAP_OVERLAP ? "elsewhere" : wrong[i].sentence; /* seen first */
        if (!strstr(dz_error(), sentence))
            fail_msg("%s", dz_error());
        error_node_says(w, sentence);
        guest_close(w, &g);
        front_world_backend_kill(w);
    }
}

static void test_a_disk_with_bus_addresses_is_detached_as_any(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    offer(w, 44);
    guest_detached(w, &g);
    guest_close(w, &g);
    assert_int_equal(holdings(w).extents, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FRONT_TEST(test_the_pool_is_mapped_once_and_requests_name_bus_pages),
        FRONT_TEST(test_the_largest_pool_is_mapped_in_as_many_pieces),
        FRONT_TEST(test_lesson_403_a_page_of_references_holds_nothing_else),
        FRONT_TEST(test_who_refuses_or_is_not_offered_them_names_grants),
        FRONT_TEST(test_a_successor_maps_the_pool_where_it_was_before_the_replay),
        FRONT_TEST(test_a_successor_without_bus_addresses_is_given_grants),
        FRONT_TEST(test_a_successor_with_bus_addresses_is_given_those),
        FRONT_TEST(test_a_successor_that_reaches_less_far_maps_the_pool_elsewhere),
        FRONT_TEST(test_a_backend_that_dies_while_it_maps_is_succeeded),
        FRONT_TEST(test_who_waits_on_another_queue_hears_of_the_maps),
        FRONT_TEST(test_lesson_391_events_while_maps_are_held_cost_bounded_wakeups),
        FRONT_TEST(test_requests_time_out_while_the_backend_does_not_map),
        FRONT_TEST(test_a_map_that_is_refused_or_answered_with_garbage_fails_the_open),
        FRONT_TEST(test_a_successor_that_maps_nonsense_fails_the_disk),
        FRONT_TEST(test_a_disk_with_bus_addresses_is_detached_as_any),
    };
    return cmocka_run_group_tests_name("blkfront_bus", tests, NULL, NULL);
}
