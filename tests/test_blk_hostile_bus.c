/* SPDX-License-Identifier: MIT */
/* What a guest may do with bus addresses that is not meant: maps of its ring and of the list itself, of one page ten
 * thousand times, unmaps behind requests that never end, all at random on two queues; and what each row of the security
 * advisories means for them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <pthread.h>
#include <unistd.h>

#include "tests/bus_pair.h"
#include "tests/random.h"

static struct bus_scene b;

/* ---- two queues ---- */

/* The storage failed and the operator has not said a word: one queue has a read that does not end. Unmaps of other
 * pages do, whatever thread has to hear of them; one of its page does not, and the end of the device ends all. */
static void an_unmap_beside_a_held_request(unsigned reactors, bool deferred)
{
    static struct pair p;
    uint64_t id;
    pair_start(&p, reactors, &(struct keys_blk_config){.stop_on_error = true, .iommu_deferred = deferred});
    struct blkguest *mapper = &p.guest.queue[0], *other = &p.guest.queue[1];
    assert_int_equal(blkguest_do_map(mapper, p.guest.g.gref, 16, 0x100000, BUS_BOTH), BLKIF_RSP_OKAY);
    assert_int_equal(bus_read_into(other, 0x105), BLKIF_RSP_OKAY); /* remembered */
    assert_int_equal(truncate(p.config.path, 0), 0);
    blkguest_put_raw(other,
                     &(struct blkreq){.operation = BLKIF_OP_READ, .segment_count = 1, .segment = {{0x103, 0, 7}}});
    blkguest_kick(other);
    blkworld_stat(&p.world, p.domid, BLKWORLD_DEVID, "held", 1);
    for (unsigned i = 4; i < 16; i++)
        blkguest_put_unmap(mapper, (uint64_t)(0x100 + i) * PAGE_BYTES, 1);
    blkguest_kick(mapper);
    for (unsigned i = 4; i < 16; i++)
        assert_int_equal(blkguest_take(mapper, &id), BLKIF_RSP_OKAY);
    pair_grants_end(&p, 4, 16);
    blkguest_put_unmap(mapper, 0x100000, 4);
    blkguest_kick(mapper);
    if (deferred)
        assert_int_equal(blkguest_take(mapper, &id), BLKIF_RSP_OKAY);
    assert_int_equal(blkguest_do_map(mapper, p.guest.g.gref, 1, 0x103000, BUS_BOTH), BLKIF_RSP_ERROR);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(gnttab_end(platform_gnttab(p.guest.g.platform), p.guest.g.gref[i]), -EBUSY);
    pair_stop(&p);
}

static void test_an_unmap_waits_for_no_request_of_other_pages(void **state)
{
    (void)state;
    for (unsigned reactors = 1; reactors <= 2; reactors++)
        for (int deferred = 0; deferred < 2; deferred++)
            an_unmap_beside_a_held_request(reactors, deferred);
}

struct hammer {
    struct blkguest *queue;
    _Atomic bool stop;
    pthread_t thread;
};

static void *hammer_run(void *arg)
{
    struct hammer *h = arg;
    uint64_t id;
    while (!h->stop) {
        for (unsigned i = 0; i < 8; i++)
            blkguest_put_raw(
                h->queue,
                &(struct blkreq){.operation = BLKIF_OP_WRITE, .segment_count = 1, .segment = {{0x500, 0, 0}}});
        blkguest_kick(h->queue);
        for (unsigned i = 0; i < 8; i++)
            blkguest_take(h->queue, &id);
    }
    return NULL;
}

/* One queue unmaps a page that the other uses and maps another there at once, again and again: the last put, which is
 * the other reactor's, ends the unmap, but the address is free only when the one that has the books knows. */
static void test_an_address_is_taken_until_its_queue_knows_of_the_end(void **state)
{
    const char *slow = getenv("DOMZERO_TEST_MODE");
    static struct pair p;
    (void)state;
    pair_start(&p, 2, &(struct keys_blk_config){.path = ""});
    struct blkguest *mapper = &p.guest.queue[0];
    struct hammer h = {.queue = &p.guest.queue[1]};
    uint64_t id;
    for (unsigned life = 0; life < 3; life++) {
        h.stop = false;
        assert_int_equal(blkguest_do_map(mapper, p.guest.g.gref, 1, 0x500000, BUS_BOTH), BLKIF_RSP_OKAY);
        assert_int_equal(pthread_create(&h.thread, NULL, hammer_run, &h), 0);
        for (unsigned round = 0; round < (slow && *slow ? 200 : 2000); round++) {
            blkguest_put_unmap(mapper, 0x500000, 1);
            for (unsigned i = 0; i < 28; i++)
                blkguest_put_map(mapper, &p.guest.g.gref[1 + (round + i) % 16], 1, 0x500000, BUS_BOTH);
            blkguest_kick(mapper);
            for (unsigned i = 0; i < 29; i++)
                (void)blkguest_take(mapper, &id);
        }
        h.stop = true;
        pthread_join(h.thread, NULL);
        (void)blkguest_do_unmap(mapper, 0x500000, 1);
        pair_grants_end(&p, 0, 32);
    }
    pair_stop(&p);
}

/* Mapped by one reactor, and taken back before the other has learnt it: that one asks the hypervisor role, in vain, and
 * is not to do so for each request for ever. */
static void test_a_flood_of_lookups_in_vain_closes_the_device(void **state)
{
    static struct pair p;
    (void)state;
    pair_start(&p, 2, &(struct keys_blk_config){.path = ""});
    struct blkguest *mapper = &p.guest.queue[0], *other = &p.guest.queue[1];
    struct platform_extent x;
    uint32_t gref;
    uint64_t id;
    assert_int_equal(platform_extent_alloc(p.guest.g.platform, 0, 1, false, &x, NULL), 0);
    assert_int_equal(gnttab_grant(platform_gnttab(p.guest.g.platform), 0, x.base_gfn, false, &gref, NULL), 0);
    assert_int_equal(blkguest_do_map(mapper, &gref, 1, 0x900000, BUS_BOTH), BLKIF_RSP_OKAY);
    platform_extent_free(p.guest.g.platform, &x);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(bus_read_into(other, 0x900), BLKIF_RSP_ERROR);
    assert_int_equal(blkworld_stat(&p.world, p.domid, BLKWORLD_DEVID, "iommu_frame", 5), 5);
    for (unsigned round = 0; round < 100; round++) {
        for (unsigned i = 0; i < 30; i++)
            blkguest_put_raw(
                other, &(struct blkreq){.operation = BLKIF_OP_READ, .segment_count = 1, .segment = {{0x900, 0, 7}}});
        blkguest_kick(other);
        for (unsigned i = 0; i < 30; i++) {
            uint32_t waiting = 0;
            for (uint64_t end = blkworld_patience_end(); !waiting;) {
                if (blkworld_back_is(&p.world, p.domid, BLKWORLD_DEVID, XenbusStateClosed))
                    goto closed;
                assert_int_equal(ring_front_pending(&other->ring, &waiting), 0);
                if (!waiting)
                    blkworld_nap(end, "a response");
            }
            (void)blkguest_take(other, &id);
        }
    }
    fail_msg("3000 lookups in vain, and the device is open");
closed:
    assert_int_equal(blkworld_stat(&p.world, p.domid, BLKWORLD_DEVID, "unknown_grants", 1), 1);
    blkworld_wait_held(&p.world, p.domid, 0);
    assert_int_equal(gnttab_end(platform_gnttab(p.guest.g.platform), gref), 0);
    mqguest_rings_end(&p.guest, false);
    mqguest_close(&p.guest);
    blkworld_stop(&p.world);
}

/* ---- one guest ---- */

/* A read of the disk's first page by way of a bus page, and what is found at that page of the data then. */
static bool reaches(uint32_t bus_page, unsigned data_page)
{
    struct blkguest *g = &b.s.guest;
    unsigned char wanted[PAGE_BYTES], *at = g->data + (size_t)data_page * PAGE_BYTES;
    memset(at, 0x77, PAGE_BYTES);
    int16_t status = bus_read_into(g, bus_page);
    blkworld_pattern(wanted, 0, 8, SEED);
    bool there = !memcmp(at, wanted, PAGE_BYTES);
    for (unsigned i = 0; i < PAGE_BYTES && !there; i++)
        assert_int_equal(at[i], 0x77);
    assert_int_equal(status, there ? BLKIF_RSP_OKAY : BLKIF_RSP_ERROR);
    return there;
}

static void test_lesson_155_the_references_of_a_map_are_fetched_once(void **state)
{
    (void)state;
    struct blkguest *g = &b.s.guest;
    bus_scene_start(&b, false, KEYS_BLK_BUS_BITS_MAX);
    uint32_t *list = (uint32_t *)(void *)blkguest_indirect_page(g);
    const uint32_t page = 0x100;
    assert_int_equal(blkguest_do_map(g, b.grant, 4, (uint64_t)page * PAGE_BYTES, BUS_BOTH), BLKIF_RSP_OKAY);
    for (unsigned i = 0; i < 4; i++)
        list[i] = b.grant[100 + i];
    for (unsigned i = 0; i < 4; i++)
        assert_true(reaches(page + i, i));
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(gnttab_end(bus_gnttab(&b), b.grant[i]), -EBUSY);
        assert_int_equal(gnttab_end(bus_gnttab(&b), b.grant[100 + i]), 0);
        assert_int_equal(gnttab_grant(bus_gnttab(&b), 0, g->memory.base_gfn + BLKWORLD_DATA_PAGE + 100 + i, false,
                                      &b.grant[100 + i], NULL),
                         0);
    }
    for (unsigned i = 0; i < 4; i++)
        list[i] = UINT32_MAX;
    assert_int_equal(blkguest_do_unmap(g, (uint64_t)page * PAGE_BYTES, 4), BLKIF_RSP_OKAY);
    bus_grants_end(&b);
    bus_scene_stop(&b);
}

/* In each ABI: the address stands behind the response, and what is beside them in the slot is what the guest wrote. */
static void test_lesson_216_the_response_of_a_map_brings_nothing_else(void **state)
{
    static const char *const protocols[] = {"x86_64-abi", "x86_32-abi"};
    (void)state;
    struct blkguest *g = &b.s.guest;
    bus_scene_start(&b, false, KEYS_BLK_BUS_BITS_MAX);
    for (size_t i = 0; i < ARRAY_SIZE(protocols); i++) {
        blkguest_disconnect(g);
        blkguest_switch(g, XenbusStateInitialising);
        blkguest_connect(g, protocols[i]);
        const unsigned slot_bytes = g->protocol->slot_bytes;
        unsigned char *slots = g->memory.address + 64, before[4 * sizeof(union blkif_sring_entry)];
        for (unsigned k = 0; k < 3 * slot_bytes; k++)
            slots[k] = (unsigned char)(k * 7 + 1);
        memcpy(before, slots, 3 * slot_bytes);
        struct blkreq req = {.id = 0x1111111111111111,
                             .operation = BLKREQ_OP_BUS_MAP,
                             .flag = BUS_BOTH,
                             .sector = 0x123456000,
                             .sector_count = 1,
                             .indirect_gref = {g->indirect_gref[0]}};
        memcpy(g->memory.address + BLKWORLD_RING_PAGES * PAGE_BYTES, b.grant, sizeof(b.grant[0]));
        blkguest_put_raw(g, &req);
        memcpy(before, slots, g->protocol->request_bytes);
        blkguest_kick(g);
        uint64_t id, address;
        assert_int_equal(blkguest_take(g, &id), BLKIF_RSP_OKAY);
        assert_true(id == req.id && g->bus_address == req.sector);
        memcpy(&address, slots + 16, sizeof(address));
        assert_true(address == req.sector);
        assert_memory_equal(slots + BLKREQ_BUS_RESPONSE_BYTES, before + BLKREQ_BUS_RESPONSE_BYTES,
                            3 * slot_bytes - BLKREQ_BUS_RESPONSE_BYTES);
        assert_true(reaches(0x123456, 0));
        for (unsigned k = 0; k < 70; k++) { /* round the ring */
            assert_int_equal(blkguest_do_map(g, b.grant, 1, 0, BUS_BOTH), BLKIF_RSP_OKAY);
            assert_int_equal(blkguest_do_unmap(g, g->bus_address, 1), BLKIF_RSP_OKAY);
        }
    }
    bus_scene_stop(&b);
}

static void test_lesson_236_a_page_mapped_ten_thousand_times_is_given_back_as_often(void **state)
{
    (void)state;
    enum { MAPS = 12 };
    uint32_t list[BLKREQ_BUS_PAGES_MAX];
    uint64_t address[MAPS];
    struct blkguest *g = &b.s.guest;
    bus_scene_start(&b, false, KEYS_BLK_BUS_BITS_MAX);
    for (unsigned i = 0; i < ARRAY_SIZE(list); i++)
        list[i] = b.grant[0];
    for (unsigned i = 0; i < MAPS; i++) {
        assert_int_equal(blkguest_do_map(g, list, ARRAY_SIZE(list), 0, i % 2 ? BUS_BOTH : BLKREQ_BUS_READ),
                         BLKIF_RSP_OKAY);
        address[i] = g->bus_address;
    }
    assert_true(reaches((uint32_t)(address[1] / PAGE_BYTES) + 1023, 0));
    assert_false(reaches((uint32_t)(address[0] / PAGE_BYTES) + 1023, 0)); /* for reading, whatever others are for */
    for (unsigned i = 0; i < MAPS; i++) {
        assert_int_equal(gnttab_end(bus_gnttab(&b), b.grant[0]), -EBUSY);
        assert_int_equal(blkguest_do_unmap(g, address[i], ARRAY_SIZE(list) - 1), BLKIF_RSP_OKAY);
    }
    for (unsigned i = 0; i < MAPS; i++) {
        assert_int_equal(gnttab_end(bus_gnttab(&b), b.grant[0]), -EBUSY);
        assert_int_equal(blkguest_do_unmap(g, address[i] + 1023 * PAGE_BYTES, 1), BLKIF_RSP_OKAY);
    }
    assert_int_equal(gnttab_end(bus_gnttab(&b), b.grant[0]), 0);
    assert_int_equal(gnttab_grant(bus_gnttab(&b), 0, g->memory.base_gfn + BLKWORLD_DATA_PAGE, false, &b.grant[0], NULL),
                     0);
    bus_scene_stop(&b);
}

static void test_lesson_361_a_map_with_one_bad_reference_holds_nothing(void **state)
{
    (void)state;
    uint32_t list[64];
    struct blkguest *g = &b.s.guest;
    bus_scene_start(&b, false, KEYS_BLK_BUS_BITS_MAX);
    for (unsigned bad = 0; bad < ARRAY_SIZE(list); bad += 9) {
        memcpy(list, b.grant, sizeof(list));
        list[bad] = g->indirect_gref[0]; /* a good one, but for reading only */
        assert_int_equal(blkguest_do_map(g, list, ARRAY_SIZE(list), 0x200000, BUS_BOTH), BLKIF_RSP_ERROR);
        for (unsigned i = 0; i < ARRAY_SIZE(list); i++)
            assert_false(i % 16 == 0 && reaches(0x200 + i, i));
        bus_grants_end(&b);
    }
    assert_int_equal(bus_stat(&b, "grant_readonly", 8), 8);
    /* Nor where the grants are good and the place is not. */
    assert_int_equal(blkguest_do_map(g, b.grant, 1, 0x203000, BUS_BOTH), BLKIF_RSP_OKAY);
    assert_int_equal(blkguest_do_map(g, b.grant + 8, 8, 0x200000, BUS_BOTH), BLKIF_RSP_ERROR);
    assert_int_equal(gnttab_end(bus_gnttab(&b), b.grant[0]), -EBUSY);
    assert_int_equal(blkguest_do_unmap(g, 0x203000, 1), BLKIF_RSP_OKAY);
    bus_grants_end(&b);
    bus_scene_stop(&b);
}

/* Once the guest could end the grant, which is when its page may be anybody's, the address reaches nothing, whatever
 * remembers it; and until then it reaches that page and no other. */
static void test_lesson_399_no_translation_outlives_the_end_of_its_grant(void **state)
{
    (void)state;
    struct blkguest *g = &b.s.guest;
    for (int deferred = 0; deferred < 2; deferred++) {
        bus_scene_start(&b, deferred, KEYS_BLK_BUS_BITS_MAX);
        for (unsigned round = 0; round < 60; round++) {
            const uint32_t page = 0x300 + round % 3;
            for (uint64_t end = blkworld_patience_end(); /* deferred: it is taken until the flush */
                 blkguest_do_map(g, b.grant, 1, (uint64_t)page * PAGE_BYTES, BUS_BOTH) != BLKIF_RSP_OKAY;)
                blkworld_nap(end, "the bus page to be free");
            assert_true(reaches(page, 0));
            assert_int_equal(blkguest_do_unmap(g, (uint64_t)page * PAGE_BYTES, 1), BLKIF_RSP_OKAY);
            assert_true(deferred || !reaches(page, 0));
            for (uint64_t end = blkworld_patience_end(); gnttab_end(bus_gnttab(&b), b.grant[0]);) {
                assert_true(deferred);
                (void)reaches(page, 0);
                blkworld_nap(end, "the flush");
            }
            assert_false(reaches(page, 0));
            assert_int_equal(gnttab_grant(bus_gnttab(&b), 0, g->memory.base_gfn + BLKWORLD_DATA_PAGE + round % 5, false,
                                          &b.grant[0], NULL),
                             0);
            assert_false(reaches(page, round % 5));
            assert_int_equal(gnttab_end(bus_gnttab(&b), b.grant[0]), 0);
            assert_int_equal(
                gnttab_grant(bus_gnttab(&b), 0, g->memory.base_gfn + BLKWORLD_DATA_PAGE, false, &b.grant[0], NULL), 0);
        }
        bus_scene_stop(&b);
    }
}

static void test_lesson_400_no_mapping_outlives_its_connection(void **state)
{
    (void)state;
    struct blkguest *g = &b.s.guest;
    bus_scene_start(&b, true, KEYS_BLK_BUS_BITS_32);
    for (unsigned round = 0; round < 5; round++) {
        const uint64_t address = bus_map_all(&b, 0, BUS_BOTH);
        blkguest_check_served(g, SEED);
        assert_int_equal(blkguest_do_unmap(g, address, BLKWORLD_PAGES / 2), BLKIF_RSP_OKAY);
        memcpy(g->gref, b.grant, sizeof(b.grant));
        blkguest_disconnect(g);
        for (unsigned i = 0; i < BLKWORLD_PAGES; i++) /* at Closed, and not some time later */
            assert_int_equal(gnttab_end(bus_gnttab(&b), b.grant[i]), 0);
        for (unsigned i = 0; i < BLKWORLD_PAGES; i++)
            assert_int_equal(
                gnttab_grant(bus_gnttab(&b), 0, g->memory.base_gfn + BLKWORLD_DATA_PAGE + i, false, &b.grant[i], NULL),
                0);
        memcpy(g->gref, b.grant, sizeof(b.grant));
        blkguest_switch(g, XenbusStateInitialising);
        blkguest_connect(g, NULL);
        for (unsigned i = 0; i < BLKWORLD_PAGES; i += 15)
            assert_false(reaches((uint32_t)(address / PAGE_BYTES) + i, i));
    }
    bus_scene_stop(&b);
}

/* Its ring, for the disk's data to go to: the guest's own, to spoil; the ring is checked as ever. */
static void test_a_guest_that_maps_its_ring_harms_itself_alone(void **state)
{
    (void)state;
    struct scene *s = &b.s;
    struct blkguest *g = &s->guest;
    bus_scene_start(&b, false, KEYS_BLK_BUS_BITS_MAX);
    assert_int_equal(blkguest_do_map(g, g->ring_gref, 1, 0x700000, BUS_BOTH), BLKIF_RSP_OKAY);
    assert_int_equal(
        blkguest_do_map(g, &g->indirect_gref[g->indirect_next % BLKWORLD_INDIRECT], 1, 0x800000, BLKREQ_BUS_READ),
        BLKIF_RSP_OKAY); /* a list that lists itself */
    assert_int_equal(blkguest_do(g, BLKIF_OP_WRITE, 800, 0, 0, 0, 7), BLKIF_RSP_ERROR);
    struct blkreq req = {.id = 1, .operation = BLKIF_OP_WRITE, .sector = 800, .segment_count = 1};
    uint64_t id;
    req.segment[0] = (struct blkreq_segment){0x800, 0, 7};
    blkguest_put_raw(g, &req);
    blkguest_kick(g);
    assert_int_equal(blkguest_take(g, &id), BLKIF_RSP_OKAY);
    req = (struct blkreq){.operation = BLKIF_OP_READ, .sector = 8, .segment_count = 1, .segment = {{0x700, 0, 7}}};
    blkguest_put_raw(g, &req); /* the disk's pattern over indices and all */
    blkguest_kick(g);
    scene_check(s);
    blkworld_wait_back(&s->world, s->domid, BLKWORLD_DEVID, XenbusStateClosed);
    blkworld_wait_held(&s->world, s->domid, 0);
    assert_true(bus_stat(&b, "ring_overrun", 1) == 1);
    blkguest_ring_end(g);
    blkguest_switch(g, XenbusStateClosing);
    blkguest_switch(g, XenbusStateClosed);
    blkguest_switch(g, XenbusStateInitialising);
    blkguest_connect(g, NULL);
    bus_map_all(&b, 0, BUS_BOTH);
    blkguest_check_served(g, SEED);
    bus_scene_stop(&b);
}

/* ---- all at once ---- */

#define STORM_PAGES 64u

static void storm_put(struct blkguest *q, const uint32_t *grants, uint64_t *random)
{
    const uint32_t first = random_next(random) % STORM_PAGES, count = 1 + random_next(random) % (STORM_PAGES - first);
    struct blkreq req = {.id = random_next(random), .operation = random_next(random) % 2};
    switch (random_next(random) % 4) {
    case 0:
        if (q->indirect_next % 4) /* few lists, of which some change while they are read */
            blkguest_put_map(q, grants, count, (uint64_t)(0x400 + first) * PAGE_BYTES, 1 + random_next(random) % 3);
        else
            blkguest_put_map(q, grants, 1 + random_next(random) % 64, 0, BUS_BOTH);
        break;
    case 1: blkguest_put_unmap(q, (uint64_t)(0x400 + first) * PAGE_BYTES, count); break;
    case 2: blkguest_put_unmap(q, (uint64_t)(1 + first) * PAGE_BYTES, 1 + random_next(random) % 3); break;
    default:
        req.segment_count = (uint16_t)(1 + random_next(random) % 11);
        for (unsigned i = 0; i < req.segment_count; i++)
            req.segment[i] = (struct blkreq_segment){0x400 + (first + i / 2) % STORM_PAGES, 0, 7};
        blkguest_put_raw(q, &req);
    }
}

struct storm {
    struct blkguest *queue;
    const uint32_t *grants;
    uint64_t random;
    unsigned rounds;
    pthread_t thread;
};

/* The last requests are left to whoever closes the device. */
static void *storm_run(void *arg)
{
    struct storm *s = arg;
    uint64_t id;
    for (unsigned i = 0; i < s->rounds; i++) {
        unsigned n = 1 + random_next(&s->random) % 30;
        for (unsigned k = 0; k < n; k++)
            storm_put(s->queue, s->grants, &s->random);
        blkguest_kick(s->queue);
        for (unsigned k = 0; k < n && i + 1 < s->rounds; k++)
            blkguest_take(s->queue, &id);
    }
    return NULL;
}

/* Maps, unmaps and transfers of each other's pages on two queues, and the end of the device among them. */
static void test_lesson_350_queues_that_end_in_a_storm_of_unmaps_leave_nothing(void **state)
{
    const char *slow = getenv("DOMZERO_TEST_MODE");
    static struct pair p;
    (void)state;
    for (unsigned life = 0; life < 8; life++) {
        struct storm storm[2];
        const unsigned rounds = slow && *slow ? 60 : 400;
        pair_start(&p, 1 + life % 2, &(struct keys_blk_config){.iommu_deferred = life / 2 % 2});
        for (unsigned i = 0; i < 2; i++) {
            storm[i] = (struct storm){&p.guest.queue[i], p.guest.g.gref + 64 * i, 1 + life * 2 + i, rounds, 0};
            assert_int_equal(pthread_create(&storm[i].thread, NULL, storm_run, &storm[i]), 0);
        }
        for (unsigned i = 0; i < 2; i++)
            pthread_join(storm[i].thread, NULL);
        pair_stop(&p);
    }
}

int main(int argc, char **argv)
{
    blkworld_child(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_unmap_waits_for_no_request_of_other_pages),
        cmocka_unit_test(test_an_address_is_taken_until_its_queue_knows_of_the_end),
        cmocka_unit_test(test_a_flood_of_lookups_in_vain_closes_the_device),
        cmocka_unit_test(test_lesson_155_the_references_of_a_map_are_fetched_once),
        cmocka_unit_test(test_lesson_216_the_response_of_a_map_brings_nothing_else),
        cmocka_unit_test(test_lesson_236_a_page_mapped_ten_thousand_times_is_given_back_as_often),
        cmocka_unit_test(test_lesson_361_a_map_with_one_bad_reference_holds_nothing),
        cmocka_unit_test(test_lesson_399_no_translation_outlives_the_end_of_its_grant),
        cmocka_unit_test(test_lesson_400_no_mapping_outlives_its_connection),
        cmocka_unit_test(test_a_guest_that_maps_its_ring_harms_itself_alone),
        cmocka_unit_test(test_lesson_350_queues_that_end_in_a_storm_of_unmaps_leave_nothing),
    };
    return cmocka_run_group_tests_name("blk_hostile_bus", tests, NULL, NULL);
}
