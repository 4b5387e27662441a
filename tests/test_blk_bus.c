/* SPDX-License-Identifier: MIT */
/* A disk behind an IOMMU whose guest uses bus addresses, with the real role: data, what is agreed on, limits, and what
 * a guest gets that lies about its addresses. With two queues, and when somebody dies: test_blk_bus_ends.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <pthread.h>

#include "tests/bus_scene.h"

static struct bus_scene b;

/* ---- data ---- */

static void test_data_goes_by_bus_addresses(void **state)
{
    (void)state;
    unsigned char wanted[PAGE_BYTES];
    struct blkguest *g = &b.s.guest;
    for (int deferred = 0; deferred < 2; deferred++) {
        bus_scene_start(&b, deferred, KEYS_BLK_BUS_BITS_MAX);
        uint64_t address = bus_map_all(&b, 0, BUS_BOTH);
        blkguest_check_served(g, SEED);
        assert_int_equal(blkguest_do(g, BLKIF_OP_READ, 88, 1, 11, 0, 7), BLKIF_RSP_OKAY);
        blkworld_pattern(wanted, 88 + 8 * 10, 8, SEED);
        assert_memory_equal(g->data + 11 * PAGE_BYTES, wanted, PAGE_BYTES);
        memset(g->data, 0x5a, PAGE_BYTES);
        assert_int_equal(blkguest_do(g, BLKIF_OP_WRITE, 800, 0, 1, 2, 5), BLKIF_RSP_OKAY);
        assert_int_equal(blkguest_do(g, BLKIF_OP_READ, 800, 9, 1, 0, 3), BLKIF_RSP_OKAY);
        assert_memory_equal(g->data + 9 * PAGE_BYTES, g->data, 4 * SECTOR_BYTES);
        assert_int_equal(blkguest_do_indirect(g, BLKIF_OP_READ, 0, 0, 90, 0, 7), BLKIF_RSP_OKAY);
        blkworld_pattern(wanted, 8 * 50, 8, SEED);
        assert_memory_equal(g->data + 50 * PAGE_BYTES, wanted, PAGE_BYTES);
        assert_true(bus_stat(&b, "iotlb_hits", 10) && bus_stat(&b, "iotlb_misses", 90));
        assert_int_equal(bus_stat(&b, "iommu_pages", BLKWORLD_PAGES), BLKWORLD_PAGES);
        assert_int_equal(gnttab_end(bus_gnttab(&b), b.grant[0]), -EBUSY);
        assert_int_equal(blkguest_do_unmap(g, address, BLKWORLD_PAGES), BLKIF_RSP_OKAY);
        if (!deferred) /* when it is answered it has ended */
            assert_int_equal(gnttab_end(bus_gnttab(&b), b.grant[0]), 0);
        if (!deferred)
            assert_int_equal(gnttab_grant(bus_gnttab(&b), 0, g->memory.base_gfn + BLKWORLD_DATA_PAGE, false,
                                          &b.grant[0], &(struct err){0}),
                             0);
        bus_grants_end(&b);
        bus_map_all(&b, address, BUS_BOTH); /* where they were */
        blkguest_check_served(g, SEED);
        bus_scene_stop(&b); /* with all of it mapped */
    }
}

static void test_a_window_of_32_bits_is_kept(void **state)
{
    (void)state;
    struct blkguest *g = &b.s.guest;
    bus_scene_start(&b, false, KEYS_BLK_BUS_BITS_32);
    struct keys_blk_features f;
    assert_int_equal(keys_blk_features_read(&g->xb, &f, NULL), 0);
    assert_int_equal(f.bus_bits, 32);
    assert_true(bus_map_all(&b, 0, BUS_BOTH) < 1ull << 32);
    bus_map_all(&b, (1ull << 32) - BLKWORLD_PAGES * PAGE_BYTES, BUS_BOTH);
    blkguest_check_served(g, SEED);
    assert_int_equal(blkguest_do_map(g, b.grant, 2, (1ull << 32) - PAGE_BYTES, BUS_BOTH), BLKIF_RSP_ERROR);
    assert_int_equal(blkguest_do_map(g, b.grant, 1, 1ull << 32, BUS_BOTH), BLKIF_RSP_ERROR);
    assert_int_equal(bus_read_into(g, 1u << 20), BLKIF_RSP_ERROR);
    assert_int_equal(bus_stat(&b, "request_bus", 2), 2);
    assert_int_equal(bus_stat(&b, "iommu_window", 1), 1);
    bus_scene_stop(&b);
}

static void test_who_did_not_take_bus_addresses_has_none(void **state)
{
    (void)state;
    struct blkguest *g = &b.s.guest;
    bus_scene_start(&b, false, KEYS_BLK_BUS_BITS_MAX);
    blkguest_disconnect(g);
    blkguest_switch(g, XenbusStateInitialising);
    g->bus = false;
    blkguest_connect(g, NULL);
    blkguest_check_served(g, SEED); /* by its grants, through the same row */
    assert_int_equal(blkguest_do_indirect(g, BLKIF_OP_READ, 0, 0, 90, 0, 7), BLKIF_RSP_OKAY);
    assert_true(bus_stat(&b, "iommu_maps", 91) == bus_stat(&b, "iommu_unmaps", 91));
    assert_int_equal(blkguest_do_map(g, b.grant, 1, 0, BUS_BOTH), BLKIF_RSP_EOPNOTSUPP);
    assert_int_equal(blkguest_do_unmap(g, PAGE_BYTES, 1), BLKIF_RSP_EOPNOTSUPP);
    bus_grants_end(&b);
    bus_scene_stop(&b);
}

/* ---- addresses that are not ---- */

static void test_a_bad_address_fails_its_request_and_says_why(void **state)
{
    (void)state;
    static const uint32_t bad[] = {0, 1u << 20, 12345678, UINT32_MAX};
    struct blkguest *g = &b.s.guest;
    bus_scene_start(&b, false, KEYS_BLK_BUS_BITS_MAX);
    uint64_t address = bus_map_all(&b, 0x10000000, BUS_BOTH);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(bus_read_into(g, bad[i]), BLKIF_RSP_ERROR);
    assert_int_equal(bus_read_into(g, (uint32_t)(address / PAGE_BYTES) - 1), BLKIF_RSP_ERROR);
    assert_int_equal(bus_read_into(g, (uint32_t)(address / PAGE_BYTES) + BLKWORLD_PAGES), BLKIF_RSP_ERROR);
    assert_int_equal(bus_read_into(g, b.grant[3]), BLKIF_RSP_ERROR); /* a grant is no address */
    assert_int_equal(bus_stat(&b, "grant_bus_fault", 7), 7);
    assert_int_equal(bus_stat(&b, "iommu_not_present", 7), 7);
    for (unsigned at = 0; at < 11; at += 5) { /* in the midst of good ones: nothing is read, nothing held */
        memset(g->data, 0x77, 11 * PAGE_BYTES);
        uint32_t keep = g->gref[at];
        g->gref[at] = 12345678;
        assert_int_equal(blkguest_do(g, BLKIF_OP_READ, 0, 0, 11, 0, 7), BLKIF_RSP_ERROR);
        g->gref[at] = keep;
        for (unsigned i = 0; i < 11 * PAGE_BYTES; i++)
            assert_int_equal(g->data[i], 0x77);
    }
    blkguest_check_served(g, SEED);
    assert_int_equal(blkguest_do_unmap(g, address, BLKWORLD_PAGES), BLKIF_RSP_OKAY);
    bus_scene_stop(&b);
}

static void test_what_is_mapped_for_reading_is_not_written(void **state)
{
    (void)state;
    struct blkguest *g = &b.s.guest;
    bus_scene_start(&b, false, KEYS_BLK_BUS_BITS_MAX);
    uint64_t address = bus_map_all(&b, 0, BLKREQ_BUS_READ);
    memset(g->data, 0x77, PAGE_BYTES);
    assert_int_equal(blkguest_do(g, BLKIF_OP_WRITE, 0, 0, 1, 0, 7), BLKIF_RSP_OKAY);
    assert_int_equal(blkguest_do(g, BLKIF_OP_READ, 8, 0, 1, 0, 7), BLKIF_RSP_ERROR);
    for (unsigned i = 0; i < PAGE_BYTES; i++)
        assert_int_equal(g->data[i], 0x77);
    assert_int_equal(bus_stat(&b, "iommu_permission", 1), 1);
    assert_int_equal(blkguest_do_unmap(g, address, BLKWORLD_PAGES), BLKIF_RSP_OKAY);
    bus_map_all(&b, 0, BLKREQ_BUS_WRITE);
    assert_int_equal(blkguest_do(g, BLKIF_OP_WRITE, 0, 0, 1, 0, 7), BLKIF_RSP_ERROR);
    assert_int_equal(blkguest_do(g, BLKIF_OP_READ, 8, 0, 1, 0, 7), BLKIF_RSP_OKAY);
    assert_int_equal(bus_stat(&b, "iommu_permission", 2), 2);
    assert_int_equal(blkguest_do_map(g, g->indirect_gref, 1, 0, BLKREQ_BUS_WRITE), BLKIF_RSP_ERROR); /* granted so */
    assert_int_equal(blkguest_do_map(g, g->indirect_gref, 1, 0, BLKREQ_BUS_READ), BLKIF_RSP_OKAY);
    assert_int_equal(bus_stat(&b, "grant_readonly", 1), 1);
    bus_scene_stop(&b);
}

static void test_an_address_is_stale_at_once_when_its_unmap_is_answered(void **state)
{
    (void)state;
    struct blkguest *g = &b.s.guest;
    bus_scene_start(&b, false, KEYS_BLK_BUS_BITS_MAX);
    uint64_t address = bus_map_all(&b, 0, BUS_BOTH);
    for (unsigned i = 0; i < 50; i++) {
        blkguest_check_served(g, SEED); /* remembered by the IOTLB */
        assert_int_equal(blkguest_do_unmap(g, address, 1), BLKIF_RSP_OKAY);
        memset(g->data, 0x77, PAGE_BYTES);
        assert_int_equal(blkguest_do(g, BLKIF_OP_READ, 0, 0, 1, 0, 7), BLKIF_RSP_ERROR);
        for (unsigned k = 0; k < PAGE_BYTES; k++)
            assert_int_equal(g->data[k], 0x77);
        assert_int_equal(blkguest_do(g, BLKIF_OP_READ, 0, 1, 1, 0, 7), BLKIF_RSP_OKAY); /* its neighbour is not */
        assert_int_equal(blkguest_do_map(g, b.grant, 1, address, BUS_BOTH), BLKIF_RSP_OKAY);
    }
    bus_scene_stop(&b);
}

/* ---- map and unmap requests that lie ---- */

static void test_a_map_of_what_is_not_granted_maps_nothing(void **state)
{
    (void)state;
    struct blkguest *g = &b.s.guest;
    bus_scene_start(&b, false, KEYS_BLK_BUS_BITS_MAX);
    static const uint32_t bad[] = {0, 7, 500, 40000, UINT32_MAX};
    uint32_t list[BLKREQ_BUS_PAGES_MAX];
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        for (unsigned at = 0; at < ARRAY_SIZE(list); at += 341) {
            for (unsigned k = 0; k < ARRAY_SIZE(list); k++)
                list[k] = b.grant[k % BLKWORLD_PAGES];
            list[at] = bad[i];
            assert_int_equal(blkguest_do_map(g, list, ARRAY_SIZE(list), 0, BUS_BOTH), BLKIF_RSP_ERROR);
        }
    struct blkreq req = {.operation = BLKREQ_OP_BUS_MAP, .flag = BUS_BOTH, .sector_count = 1, .indirect_gref = {499}};
    uint64_t id;
    blkguest_put_raw(g, &req); /* the list itself */
    blkguest_kick(g);
    assert_int_equal(blkguest_take(g, &id), BLKIF_RSP_ERROR);
    assert_int_equal(bus_stat(&b, "iommu_maps", 0), 0);
    bus_grants_end(&b);
    bus_map_all(&b, 0, BUS_BOTH);
    blkguest_check_served(g, SEED);
    bus_scene_stop(&b);
}

static void test_an_unmap_is_of_what_is_mapped_and_once(void **state)
{
    (void)state;
    struct blkguest *g = &b.s.guest;
    bus_scene_start(&b, false, KEYS_BLK_BUS_BITS_MAX);
    uint64_t address = bus_map_all(&b, 0x7ff000, BUS_BOTH); /* over a border of tables */
    assert_int_equal(blkguest_do_map(g, b.grant, 2, address + 255 * PAGE_BYTES, BUS_BOTH), BLKIF_RSP_ERROR); /* taken */
    static const struct {
        int first;
        uint64_t count;
    } bad[] = {{-1, 1}, {-1, 2}, {0, 257}, {255, 2}, {256, 1}, {100000, 1}, {0, 1024}};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(blkguest_do_unmap(g, address + (uint64_t)(bad[i].first * 4096ll), bad[i].count),
                         BLKIF_RSP_ERROR);
    assert_int_equal(bus_stat(&b, "request_bus_unmap", ARRAY_SIZE(bad)), ARRAY_SIZE(bad));
    assert_int_equal(bus_stat(&b, "request_bus_taken", 1), 1);
    assert_int_equal(blkguest_do_unmap(g, address + 1, 1), BLKIF_RSP_ERROR);
    assert_int_equal(blkguest_do_unmap(g, address, 0), BLKIF_RSP_ERROR);
    assert_int_equal(bus_stat(&b, "request_bus", 2), 2);
    blkguest_check_served(g, SEED); /* none of it did anything */
    assert_int_equal(blkguest_do_unmap(g, address + 100 * PAGE_BYTES, 50), BLKIF_RSP_OKAY);
    assert_int_equal(blkguest_do_unmap(g, address, BLKWORLD_PAGES), BLKIF_RSP_ERROR); /* a hole in it */
    assert_int_equal(blkguest_do_unmap(g, address, 100), BLKIF_RSP_OKAY);
    assert_int_equal(blkguest_do_unmap(g, address, 100), BLKIF_RSP_ERROR);
    assert_int_equal(blkguest_do_unmap(g, address + 150 * PAGE_BYTES, BLKWORLD_PAGES - 150), BLKIF_RSP_OKAY);
    bus_grants_end(&b);
    bus_scene_stop(&b);
}

/* Twice in one batch: the second sees the first under way, or ended. */
static void test_two_unmaps_of_a_page_under_way_are_one(void **state)
{
    (void)state;
    struct blkguest *g = &b.s.guest;
    for (int deferred = 0; deferred < 2; deferred++) {
        bus_scene_start(&b, deferred, KEYS_BLK_BUS_BITS_MAX);
        for (unsigned round = 0; round < 20; round++) {
            uint64_t address = bus_map_all(&b, 0, BUS_BOTH), id;
            unsigned good = 0;
            for (unsigned i = 0; i < 10; i++)
                blkguest_put(g, i % 2, 8 * i, i, 11, 0, 7);
            for (unsigned i = 0; i < 3; i++)
                blkguest_put_unmap(g, address, BLKWORLD_PAGES);
            blkguest_kick(g);
            for (unsigned i = 0; i < 13; i++)
                good += blkguest_take(g, &id) == BLKIF_RSP_OKAY;
            assert_int_equal(good, 11);
            bus_grants_end(&b);
        }
        bus_scene_stop(&b);
    }
}

/* Reads that were taken before the unmap end as they should, and the unmap after them. */
static void test_an_unmap_waits_for_the_requests_that_use_it(void **state)
{
    (void)state;
    unsigned char wanted[PAGE_BYTES];
    struct blkguest *g = &b.s.guest;
    bus_scene_start(&b, false, KEYS_BLK_BUS_BITS_MAX);
    blkworld_pattern(wanted, 8, 8, SEED);
    for (unsigned round = 0; round < 100; round++) {
        uint64_t address = bus_map_all(&b, 0, BUS_BOTH), id, unmap;
        memset(g->data, 0, 30 * PAGE_BYTES);
        for (unsigned i = 0; i < 30; i++)
            blkguest_put(g, BLKIF_OP_READ, 8, i, 1, 0, 7);
        unmap = blkguest_put_unmap(g, address, BLKWORLD_PAGES);
        blkguest_kick(g);
        for (unsigned i = 0, reads = 0; i < 31; i++) {
            assert_int_equal(blkguest_take(g, &id), BLKIF_RSP_OKAY);
            if (id == unmap)
                assert_true(reads >= 29); /* the last one ends with it, and its answer may be the next */
            reads += id != unmap;
        }
        for (unsigned i = 0; i < 30; i++)
            assert_memory_equal(g->data + i * PAGE_BYTES, wanted, PAGE_BYTES);
    }
    bus_scene_stop(&b);
}

/* ---- limits ---- */

static void test_a_flood_of_maps_ends_at_the_limit_and_all_comes_back(void **state)
{
    (void)state;
    enum { MAPS = BLKBUS_PAGES_MAX / BLKREQ_BUS_PAGES_MAX };
    uint64_t address[MAPS];
    uint32_t list[BLKREQ_BUS_PAGES_MAX];
    struct blkguest *g = &b.s.guest;
    bus_scene_start(&b, false, KEYS_BLK_BUS_BITS_MAX);
    for (unsigned i = 0; i < ARRAY_SIZE(list); i++)
        list[i] = b.grant[i % BLKWORLD_PAGES];
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < MAPS; i++) {
            assert_int_equal(blkguest_do_map(g, list, ARRAY_SIZE(list), 0, BUS_BOTH), BLKIF_RSP_OKAY);
            address[i] = g->bus_address;
        }
        for (unsigned i = 0; i < 5; i++)
            assert_int_equal(blkguest_do_map(g, list, 1, 0, BUS_BOTH), BLKIF_RSP_ERROR);
        assert_int_equal(bus_stat(&b, "request_bus_limit", 5 * (round + 1)), 5 * (round + 1));
        g->gref[0] = (uint32_t)(address[MAPS / 2] / PAGE_BYTES);
        blkguest_check_served(g, SEED);
        for (unsigned i = 0; i < MAPS; i++)
            assert_int_equal(blkguest_do_unmap(g, address[i], ARRAY_SIZE(list)), BLKIF_RSP_OKAY);
        bus_grants_end(&b);
        memcpy(list, b.grant, sizeof(b.grant));
        for (unsigned i = BLKWORLD_PAGES; i < ARRAY_SIZE(list); i++)
            list[i] = b.grant[i % BLKWORLD_PAGES];
    }
    for (unsigned i = 0; i < MAPS; i++) /* and left to whoever closes the device */
        assert_int_equal(blkguest_do_map(g, list, ARRAY_SIZE(list), 0, BUS_BOTH), BLKIF_RSP_OKAY);
    bus_scene_stop(&b);
}

/* A page here and a page there: each wants tables of its own. */
static void test_scattered_addresses_end_at_the_limit_of_tables(void **state)
{
    (void)state;
    struct blkguest *g = &b.s.guest;
    bus_scene_start(&b, false, KEYS_BLK_BUS_BITS_MAX);
    unsigned good = 0;
    for (unsigned i = 1; i < 600; i++)
        good += blkguest_do_map(g, b.grant, 1, (uint64_t)i << 30 | 0x1000, BUS_BOTH) == BLKIF_RSP_OKAY;
    assert_true(good > 10 && good < BLKBUS_TABLES_MAX);
    assert_int_equal(bus_stat(&b, "request_bus_limit", 599 - good), 599 - good);
    bus_scene_stop(&b);
}

struct rewriter {
    uint32_t *list, good, bad;
    _Atomic bool stop;
};

static void *rewrite(void *arg)
{
    struct rewriter *r = arg;
    for (uint32_t i = 0; !r->stop; i++)
        __atomic_store_n(&r->list[i % 64], i % 3 ? r->good : r->bad, __ATOMIC_RELAXED);
    return NULL;
}

/* Whatever is read is checked: the map is whole, or there is none. */
static void test_a_list_that_changes_while_it_is_read_is_one_or_the_other(void **state)
{
    (void)state;
    struct blkguest *g = &b.s.guest;
    pthread_t thread;
    bus_scene_start(&b, false, KEYS_BLK_BUS_BITS_MAX);
    struct blkif_request_segment *page = blkguest_indirect_page(g);
    const uint32_t list_gref = g->indirect_gref[g->indirect_next % BLKWORLD_INDIRECT];
    struct rewriter r = {.list = (uint32_t *)(void *)page, .good = b.grant[0], .bad = 501};
    for (unsigned i = 0; i < 64; i++)
        r.list[i] = b.grant[0];
    assert_int_equal(pthread_create(&thread, NULL, rewrite, &r), 0);
    unsigned good = 0;
    for (unsigned i = 0; i < 2000; i++) {
        uint64_t id;
        struct blkreq req = {
            .id = i, .operation = BLKREQ_OP_BUS_MAP, .flag = BUS_BOTH, .sector_count = 2, .indirect_gref = {list_gref}};
        blkguest_put_raw(g, &req);
        blkguest_kick(g);
        if (blkguest_take(g, &id) != BLKIF_RSP_OKAY)
            continue;
        good++;
        uint64_t address = g->bus_address;
        assert_int_equal(bus_read_into(g, (uint32_t)(address / PAGE_BYTES) + 1), BLKIF_RSP_OKAY);
        assert_int_equal(blkguest_do_unmap(g, address, 2), BLKIF_RSP_OKAY);
    }
    r.stop = true;
    pthread_join(thread, NULL);
    assert_int_equal(bus_stat(&b, "grant_type", 2000 - good), 2000 - good);
    bus_grants_end(&b);
    bus_scene_stop(&b);
}

int main(int argc, char **argv)
{
    blkworld_child(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_data_goes_by_bus_addresses),
        cmocka_unit_test(test_a_window_of_32_bits_is_kept),
        cmocka_unit_test(test_who_did_not_take_bus_addresses_has_none),
        cmocka_unit_test(test_a_bad_address_fails_its_request_and_says_why),
        cmocka_unit_test(test_what_is_mapped_for_reading_is_not_written),
        cmocka_unit_test(test_an_address_is_stale_at_once_when_its_unmap_is_answered),
        cmocka_unit_test(test_a_map_of_what_is_not_granted_maps_nothing),
        cmocka_unit_test(test_an_unmap_is_of_what_is_mapped_and_once),
        cmocka_unit_test(test_two_unmaps_of_a_page_under_way_are_one),
        cmocka_unit_test(test_an_unmap_waits_for_the_requests_that_use_it),
        cmocka_unit_test(test_a_flood_of_maps_ends_at_the_limit_and_all_comes_back),
        cmocka_unit_test(test_scattered_addresses_end_at_the_limit_of_tables),
        cmocka_unit_test(test_a_list_that_changes_while_it_is_read_is_one_or_the_other),
    };
    return cmocka_run_group_tests_name("blk_bus", tests, NULL, NULL);
}
