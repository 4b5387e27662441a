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

/* Data of each kind: the pool's and the caller's, in a slot and in an indirect page. */
struct transfers {
    unsigned char *buffer[KINDS];
    uint32_t bytes[KINDS];
    struct dz_io io[KINDS];
    unsigned char *pool[2];
    unsigned char caller[2][LARGE];
};

static void transfers_init(struct guest *g, struct transfers *t)
{
    static const uint32_t bytes[] = {8192, LARGE};
    for (unsigned i = 0; i < KINDS; i++) {
        t->bytes[i] = bytes[i / 2];
        if (i % 2 == 0)
            assert_non_null(t->pool[i / 2] = dz_buffer_alloc(g->disk, bytes[i / 2]));
        t->buffer[i] = i % 2 ? t->caller[i / 2] : t->pool[i / 2];
    }
}

static void transfers_submit(struct guest *g, struct transfers *t, enum dz_op op, unsigned seed)
{
    for (unsigned i = 0; i < KINDS; i++) {
        if (op == DZ_WRITE)
            fill(t->buffer[i], t->bytes[i], seed + i);
        else
            memset(t->buffer[i], 0, t->bytes[i]);
        t->io[i] = (struct dz_io){op, t->buffer[i], t->bytes[i], (uint64_t)i * LARGE, NULL, 1, {0}};
        submit(g, &t->io[i]);
    }
}

static void transfers_check(struct front_world *w, struct transfers *t)
{
    for (unsigned i = 0; i < KINDS; i++) {
        assert_int_equal(t->io[i].result, 0);
        assert_memory_equal(w->back->data + (size_t)i * LARGE, t->buffer[i], t->bytes[i]);
    }
}

static void writes_and_reads_are_right(struct front_world *w, struct guest *g, struct transfers *t, unsigned seed)
{
    for (unsigned op = 0; op < 2; op++) {
        transfers_submit(g, t, op ? DZ_READ : DZ_WRITE, seed);
        assert_int_equal(drain(g), KINDS);
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
    guest_open(w, &g);
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
    guest_open(w, &g);
    transfers_init(&g, &t);
    uint64_t mapped[2] = {w->back->mapped[0], w->back->mapped[1]};
    transfers_submit(&g, &t, DZ_WRITE, before + after);
    dz_vbd_kick(g.disk);
    front_world_until(&w->back->held, KINDS);
    front_world_backend_kill(w);
    w->back->features.bus_bits = after;
    front_world_backend_start(w, BACK_GOOD, 0);
    assert_int_equal(drain(&g), KINDS);
    transfers_check(w, &t);
    dz_vbd_stats(g.disk, &stats);
    assert_int_equal(stats.reconnects, 1);
    assert_int_equal(stats.replayed, KINDS);
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
    guest_open(w, &g);
    transfers_init(&g, &t);
    transfers_submit(&g, &t, DZ_WRITE, 3);
    dz_vbd_kick(g.disk);
    front_world_until(&w->back->held, KINDS);
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
    assert_int_equal(drain(&g), KINDS);
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
    struct dz_io io[4];
    static unsigned char data[4][512];
    offer(w, 44);
    front_world_backend_start(w, BACK_HOLD, 0);
    guest_open(w, &g);
    for (unsigned i = 0; i < 4; i++) {
        io[i] = (struct dz_io){DZ_READ, data[i], 512, i * 512, NULL, 1, {0}};
        submit(&g, &io[i]);
    }
    dz_vbd_kick(g.disk);
    front_world_until(&w->back->held, 4);
    w->back->detach = true;
    assert_int_equal(drain(&g), 4);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(io[i].result, 0);
    while (dz_vbd_read(g.disk, data[0], 512, 0) != -ENODEV)
        ;
    guest_close(w, &g);
    assert_int_equal(holdings(w).extents, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FRONT_TEST(test_the_pool_is_mapped_once_and_requests_name_bus_pages),
        FRONT_TEST(test_who_refuses_or_is_not_offered_them_names_grants),
        FRONT_TEST(test_a_successor_maps_the_pool_where_it_was_before_the_replay),
        FRONT_TEST(test_a_successor_without_bus_addresses_is_given_grants),
        FRONT_TEST(test_a_successor_with_bus_addresses_is_given_those),
        FRONT_TEST(test_a_successor_that_reaches_less_far_maps_the_pool_elsewhere),
        FRONT_TEST(test_a_backend_that_dies_while_it_maps_is_succeeded),
        FRONT_TEST(test_who_waits_on_another_queue_hears_of_the_maps),
        FRONT_TEST(test_requests_time_out_while_the_backend_does_not_map),
        FRONT_TEST(test_a_map_that_is_refused_or_answered_with_garbage_fails_the_open),
        FRONT_TEST(test_a_successor_that_maps_nonsense_fails_the_disk),
        FRONT_TEST(test_a_disk_with_bus_addresses_is_detached_as_any),
    };
    return cmocka_run_group_tests_name("blkfront_bus", tests, NULL, NULL);
}
