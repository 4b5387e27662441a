/* SPDX-License-Identifier: MIT */
/* Bus addresses over two queues on two reactors, over another guest's, over changes of the disk, and over the end of
 * whoever is at either end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/bus_pair.h"
#include "xenbus/keys_blk_set.h"

static struct bus_scene b;

/* ---- two queues ---- */

static void test_all_queues_translate_and_the_one_that_mapped_unmaps(void **state)
{
    static struct pair p;
    (void)state;
    for (int deferred = 0; deferred < 2; deferred++) {
        pair_start(&p, 2, &(struct keys_blk_config){.iommu_deferred = deferred});
        struct blkguest *mapper = &p.guest.queue[0], *other = &p.guest.queue[1];
        for (unsigned round = 0; round < 100; round++) {
            uint64_t id;
            assert_int_equal(blkguest_do_map(mapper, p.guest.g.gref, 16, 0, BUS_BOTH), BLKIF_RSP_OKAY);
            const uint64_t address = mapper->bus_address;
            const uint32_t page = (uint32_t)(address / PAGE_BYTES);
            for (unsigned i = 0; i < 16; i++)
                mapper->gref[i] = other->gref[i] = page + i;
            blkguest_check_served(other, SEED);
            blkguest_check_served(mapper, SEED);
            assert_int_equal(blkguest_do_unmap(other, address, 16), BLKIF_RSP_ERROR);
            for (unsigned i = 0; i < 10; i++) /* under way on one reactor while the other unmaps */
                blkguest_put(other, BLKIF_OP_READ, 0, i, 5, 0, 7);
            blkguest_kick(other);
            assert_int_equal(blkguest_do_unmap(mapper, address, 16), BLKIF_RSP_OKAY);
            for (unsigned i = 0; i < 10; i++)
                blkguest_take(other, &id); /* each found it or did not */
            if (!deferred)
                assert_int_equal(bus_read_into(other, page), BLKIF_RSP_ERROR);
            pair_grants_end(&p, 0, 16);
            memset(p.guest.g.data, 0x77, 16 * PAGE_BYTES);
            assert_int_equal(bus_read_into(other, page + 3), BLKIF_RSP_ERROR);
            for (unsigned i = 0; i < 16 * PAGE_BYTES; i++)
                assert_int_equal(p.guest.g.data[i], 0x77);
        }
        assert_int_equal(blkworld_stat(&p.world, p.domid, BLKWORLD_DEVID, "request_bus_unmap", 100), 100);
        pair_stop(&p);
    }
}

/* What one queue has mapped is in the other's IOTLB, and in use by it, when both go. */
static void test_queues_that_go_give_back_what_the_other_uses(void **state)
{
    static struct pair p;
    (void)state;
    pair_start(&p, 2, &(struct keys_blk_config){0});
    struct blkguest *q = p.guest.queue;
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(blkguest_do_map(&q[i], p.guest.g.gref, BLKWORLD_PAGES, 0, BUS_BOTH), BLKIF_RSP_OKAY);
        for (unsigned k = 0; k < BLKWORLD_PAGES; k++)
            q[!i].gref[k] = (uint32_t)(q[i].bus_address / PAGE_BYTES) + k;
    }
    for (unsigned i = 0; i < 2; i++) {
        for (unsigned k = 0; k < 30; k++)
            blkguest_put(&q[i], k % 2, 8 * k, k, 11, 0, 7);
        blkguest_kick(&q[i]);
    }
    pair_stop(&p);
}

/* ---- another guest ---- */

static void test_an_address_means_nothing_to_another_guests_device(void **state)
{
    (void)state;
    struct scene *s = &b.s;
    struct blkguest *n = &s->neighbour;
    bus_scene_start(&b, false, KEYS_BLK_BUS_BITS_MAX);
    blkguest_disconnect(n);
    blkworld_remove(&s->world, s->neighbour_domid, BLKWORLD_DEVID);
    blkguest_close(n);
    strcpy(s->neighbour_config.dma, "iommu");
    blkworld_attach(&s->world, s->neighbour_domid, BLKWORLD_DEVID, &s->neighbour_config);
    blkguest_open(n, s->neighbour_dir, BLKWORLD_DEVID);
    uint32_t grants[BLKWORLD_PAGES];
    memcpy(grants, n->gref, sizeof(grants));
    n->bus = true;
    blkguest_connect(n, NULL);
    assert_int_equal(blkguest_do_map(n, n->gref, BLKWORLD_PAGES, 0x40000000, BUS_BOTH), BLKIF_RSP_OKAY);
    for (unsigned i = 0; i < BLKWORLD_PAGES; i++)
        n->gref[i] = 0x40000 + i;
    memset(n->data, 0x77, PAGE_BYTES);
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(bus_read_into(&s->guest, 0x40000), BLKIF_RSP_ERROR);
    assert_int_equal(blkguest_do_unmap(&s->guest, 0x40000000, 1), BLKIF_RSP_ERROR);
    bus_map_all(&b, 0x40000000, BUS_BOTH); /* and its own are where the other's are */
    blkguest_check_served(&s->guest, SEED);
    for (unsigned i = 0; i < PAGE_BYTES; i++)
        assert_int_equal(n->data[i], 0x77);
    blkguest_check_served(n, SEED);
    assert_int_equal(bus_stat(&b, "iommu_not_present", 20), 20);
    struct stats_blk_reply r;
    assert_true(blkworld_stats(s->world.dir, s->neighbour_domid, BLKWORLD_DEVID, &r));
    assert_int_equal(r.bus_fault_count, 0);
    assert_true(blkworld_stats(s->world.dir, s->domid, BLKWORLD_DEVID, &r));
    assert_int_equal(r.bus_fault_count, STATS_BLK_BUS_FAULTS);
    for (unsigned i = 0; i < r.bus_fault_count; i++) {
        assert_true(r.bus_fault[i].address == 0x40000000 && r.bus_fault[i].write && r.bus_fault[i].at_ns <= r.now_ns);
        assert_string_equal(r.bus_fault[i].reason, "not-present");
    }
    scene_check(s);
    assert_int_equal(blkguest_do_unmap(n, 0x40000000, BLKWORLD_PAGES), BLKIF_RSP_OKAY);
    assert_int_equal(blkguest_do_map(n, grants, BLKWORLD_PAGES, (uint64_t)grants[0] * PAGE_BYTES, BUS_BOTH),
                     BLKIF_RSP_OKAY); /* a grant's number is as good an address as any, for who closes this world */
    memcpy(n->gref, grants, sizeof(grants));
    bus_scene_stop(&b);
}

/* ---- changes ---- */

static int change(struct scene *s, const char *dma, struct err *e)
{
    static unsigned asked;
    char dir[64];
    struct keys_blk_set set = {.size_bytes = 0};
    int r;
    snprintf(dir, sizeof(dir), "/local/domain/0/backend/vbd/%u/%u", s->domid, BLKWORLD_DEVID);
    snprintf(set.dma, sizeof(set.dma), "%s", dma);
    snprintf(set.id, sizeof(set.id), "bus-%u", ++asked);
    do {
        store_tx tx;
        assert_int_equal(store_tx_start(s->world.store, &tx), 0);
        assert_int_equal(keys_blk_set_write(s->world.store, tx, dir, &set, e), 0);
        r = store_tx_end(s->world.store, tx, false);
    } while (r == -EAGAIN);
    assert_int_equal(r, 0);
    for (uint64_t end = blkworld_patience_end();
         (r = keys_blk_set_answered(s->world.store, dir, set.id, e)) == -EAGAIN;)
        blkworld_nap(end, "the backend's answer");
    return r;
}

static void test_the_strategy_stays_while_its_addresses_are_used(void **state)
{
    (void)state;
    struct err e = {0};
    struct scene *s = &b.s;
    bus_scene_start(&b, false, KEYS_BLK_BUS_BITS_MAX);
    bus_map_all(&b, 0, BUS_BOTH);
    assert_int_equal(change(s, "copy", &e), -EIO);
    assert_non_null(strstr(e.text, "bus addresses"));
    assert_int_equal(change(s, "iommu", &e), 0); /* as it is */
    blkguest_check_served(&s->guest, SEED);
    blkguest_disconnect(&s->guest);
    blkguest_switch(&s->guest, XenbusStateInitialising);
    blkworld_wait_back(&s->world, s->domid, BLKWORLD_DEVID, XenbusStateInitWait);
    assert_int_equal(change(s, "copy", &e), -EIO); /* its frontend may be about to take the offer */
    s->guest.bus = false;
    memcpy(s->guest.gref, b.grant, sizeof(b.grant));
    blkguest_connect(&s->guest, NULL);
    static const char *const rows[] = {"copy", "iommu", "pin", "iommu"};
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) { /* it uses grants */
        assert_int_equal(change(s, rows[i], &e), 0);
        blkguest_check_served(&s->guest, SEED);
    }
    bus_scene_stop(&b);
}

/* ---- ends ---- */

static void test_after_a_kill_of_the_role_the_guest_maps_again_where_it_was(void **state)
{
    (void)state;
    struct blkguest *g = &b.s.guest;
    bus_scene_start(&b, false, KEYS_BLK_BUS_BITS_MAX);
    uint64_t address = bus_map_all(&b, 0, BUS_BOTH);
    blkguest_check_served(g, SEED);
    blkguest_disconnect(&b.s.neighbour);
    blkworld_role_kill(&b.s.world);
    blkworld_role_start(&b.s.world, NULL);
    memset(g->ring_gref, 0, sizeof(g->ring_gref)); /* new ones */
    blkguest_connect(g, NULL);
    assert_int_equal(blkguest_do(g, BLKIF_OP_READ, 0, 0, 1, 0, 7), BLKIF_RSP_ERROR); /* its address space is empty */
    assert_int_equal(bus_map_all(&b, address, BUS_BOTH), address);
    blkguest_check_served(g, SEED);
    assert_int_equal(blkguest_do_unmap(g, address, BLKWORLD_PAGES), BLKIF_RSP_OKAY);
    bus_grants_end(&b);
    blkguest_switch(&b.s.neighbour, XenbusStateInitialising);
    blkguest_connect(&b.s.neighbour, NULL);
    bus_scene_stop(&b);
}

static void test_a_guest_that_vanishes_leaves_nothing_mapped(void **state)
{
    (void)state;
    struct scene *s = &b.s;
    struct blkguest *g = &s->guest;
    bus_scene_start(&b, true, KEYS_BLK_BUS_BITS_MAX);
    for (unsigned i = 0; i < 10; i++)
        bus_map_all(&b, 0, BUS_BOTH);
    assert_int_equal(blkguest_do_unmap(g, 4096 * PAGE_BYTES, 1), BLKIF_RSP_ERROR);
    for (unsigned i = 0; i < 30; i++)
        blkguest_put(g, i % 2, 8 * i, i, 11, 0, 7);
    blkguest_kick(g);
    grant_window_close(&g->window);
    store_client_close(g->store);
    platform_close(g->platform); /* its process */
    blkworld_wait_held(&s->world, s->domid, 0);
    scene_check(s);
    blkguest_disconnect(&s->neighbour);
    blkguest_close(&s->neighbour);
    blkworld_stop(&s->world);
}

int main(int argc, char **argv)
{
    blkworld_child(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_queues_translate_and_the_one_that_mapped_unmaps),
        cmocka_unit_test(test_queues_that_go_give_back_what_the_other_uses),
        cmocka_unit_test(test_an_address_means_nothing_to_another_guests_device),
        cmocka_unit_test(test_the_strategy_stays_while_its_addresses_are_used),
        cmocka_unit_test(test_after_a_kill_of_the_role_the_guest_maps_again_where_it_was),
        cmocka_unit_test(test_a_guest_that_vanishes_leaves_nothing_mapped),
    };
    return cmocka_run_group_tests_name("blk_bus_ends", tests, NULL, NULL);
}
