/* SPDX-License-Identifier: MIT */
/* Persistent grants of a disk, with the real role: who must say yes, what stays mapped and for how long, what a guest
 * that abuses it gets, and what is left when the guest or the role dies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "backend/blk/blkqueue.h"
#include "tests/blk_scene.h"

#define KEPT_MAX   (BLKQUEUE_KEEP_SLOT * 32) /* of a ring of one page */
#define FLOOD      (KEPT_MAX + 500)
#define PATTERN(s) blkworld_pattern((s)->guest.data, 0, 8, 77)

static void scene_persistent(struct scene *s, const char *dma, bool guest_says, bool disk_says)
{
    scene_start(s, dma);
    blkguest_disconnect(&s->guest);
    blkworld_remove(&s->world, s->domid, BLKWORLD_DEVID);
    blkguest_close(&s->guest);
    s->config.no_persistent = !disk_says;
    blkworld_attach(&s->world, s->domid, BLKWORLD_DEVID, &s->config);
    blkguest_open(&s->guest, s->dir, BLKWORLD_DEVID);
    s->guest.persistent = guest_says;
    blkguest_connect(&s->guest, NULL);
}

/* A read of the disk's first page into that grant. */
static int16_t read_into(struct blkguest *g, uint32_t gref)
{
    uint64_t id;
    struct blkreq req = {.id = ++g->next_id,
                         .operation = BLKIF_OP_READ,
                         .operation_raw = BLKIF_OP_READ,
                         .segment_count = 1,
                         .segment = {{gref, 0, 7}}};
    blkguest_put_raw(g, &req);
    blkguest_kick(g);
    return blkguest_take(g, &id);
}

static uint32_t grant_page(struct blkguest *g, unsigned page, bool readonly)
{
    struct err e;
    uint32_t gref;
    if (gnttab_grant(platform_gnttab(g->platform), 0, g->memory.base_gfn + BLKWORLD_DATA_PAGE + page, readonly, &gref,
                     &e))
        fail_msg("%s", e.text);
    return gref;
}

static int grant_end(struct blkguest *g, uint32_t gref)
{
    return gnttab_end(platform_gnttab(g->platform), gref);
}

/* All grants of the guest's data end now. */
static void all_grants_end(struct blkguest *g)
{
    for (unsigned i = 0; i < BLKWORLD_PAGES; i++)
        assert_int_equal(grant_end(g, g->gref[i]), 0);
    for (unsigned i = 0; i < BLKWORLD_INDIRECT; i++)
        assert_int_equal(grant_end(g, g->indirect_gref[i]), 0);
    struct err e;
    for (unsigned i = 0; i < BLKWORLD_PAGES; i++) /* for the end of the test */
        assert_int_equal(gnttab_grant(platform_gnttab(g->platform), 0, g->memory.base_gfn, false, &g->gref[i], &e), 0);
}

static uint64_t stat_now(struct scene *s, const char *name)
{
    return blkworld_stat(&s->world, s->domid, BLKWORLD_DEVID, name, 0);
}

/* ---- who must say yes ---- */

static void test_grants_stay_mapped_only_where_both_ends_say_so(void **state)
{
    (void)state;
    for (int says = 0; says < 4; says++) {
        struct scene s;
        bool guest_says = says & 1, disk_says = says & 2;
        scene_persistent(&s, dma_strategies[says % dma_strategy_count]->name, guest_says, disk_says);
        struct keys_blk_features offer;
        assert_int_equal(keys_blk_features_read(&s.guest.xb, &offer, NULL), 0);
        assert_int_equal(offer.persistent, disk_says);
        blkguest_check_served(&s.guest, SEED);
        assert_int_equal(grant_end(&s.guest, s.guest.gref[0]), guest_says && disk_says ? -EBUSY : 0);
        if (!guest_says || !disk_says)
            s.guest.gref[0] = grant_page(&s.guest, 0, false);
        scene_stop(&s);
    }
}

/* ---- data ---- */

/* Reads and writes of all kinds through pages that stay mapped, each page in both directions. */
static void data_goes_round(struct scene *s)
{
    struct blkguest *g = &s->guest;
    unsigned char wanted[40 * PAGE_BYTES];
    for (unsigned i = 0; i < 60; i++) {
        unsigned segments = 1 + i * 7 % 40, page = i * 11 % BLKWORLD_PAGES;
        uint64_t sector = i * 16 % (DISK_SECTORS - 320);
        blkworld_pattern(wanted, sector, segments * 8, 1000 + i);
        for (unsigned k = 0; k < segments; k++)
            memcpy(g->data + (page + k) % BLKWORLD_PAGES * PAGE_BYTES, wanted + k * PAGE_BYTES, PAGE_BYTES);
        assert_int_equal(segments > 11 ? blkguest_do_indirect(g, BLKIF_OP_WRITE, sector, page, segments, 0, 7)
                                       : blkguest_do(g, BLKIF_OP_WRITE, sector, page, segments, 0, 7),
                         BLKIF_RSP_OKAY);
        page = (page + 3) % BLKWORLD_PAGES;
        assert_int_equal(segments > 11 ? blkguest_do_indirect(g, BLKIF_OP_READ, sector, page, segments, 0, 7)
                                       : blkguest_do(g, BLKIF_OP_READ, sector, page, segments, 0, 7),
                         BLKIF_RSP_OKAY);
        for (unsigned k = 0; k < segments; k++)
            assert_memory_equal(g->data + (page + k) % BLKWORLD_PAGES * PAGE_BYTES, wanted + k * PAGE_BYTES,
                                PAGE_BYTES);
    }
}

static void test_data_is_right_and_the_numbers_tell(void **state)
{
    (void)state;
    for (unsigned d = 0; d < dma_strategy_count; d++) {
        struct scene s;
        scene_persistent(&s, dma_strategies[d]->name, true, true);
        data_goes_round(&s);
        assert_int_equal(grant_end(&s.guest, s.guest.gref[33]), -EBUSY);
        blkworld_stat(&s.world, s.domid, BLKWORLD_DEVID, "persistent_hits", 100);
        blkworld_stat(&s.world, s.domid, BLKWORLD_DEVID, "persistent_pages", 100);
        blkguest_disconnect(&s.guest); /* and its grants are its own again */
        assert_int_equal(stat_now(&s, "persistent_pages"), 0);
        all_grants_end(&s.guest);
        blkguest_switch(&s.guest, XenbusStateInitialising);
        blkguest_connect(&s.guest, NULL);
        scene_stop(&s);
    }
}

/* A guest that is idle while the other tests run: GNTKEEP_IDLE_S is long. */
static struct scene idle;

static int idle_start(void **state)
{
    (void)state;
    scene_persistent(&idle, DMA_DEFAULT, true, true);
    blkguest_do(&idle.guest, BLKIF_OP_READ, 0, 0, 5, 0, 7);
    assert_int_equal(grant_end(&idle.guest, idle.guest.gref[0]), -EBUSY);
    return 0;
}

static void test_what_an_idle_guest_left_mapped_is_given_back(void **state)
{
    (void)state;
    blkworld_stat(&idle.world, idle.domid, BLKWORLD_DEVID, "persistent_expiries", 5);
    assert_int_equal(stat_now(&idle, "persistent_pages"), 0);
    assert_int_equal(grant_end(&idle.guest, idle.guest.gref[0]), 0);
    idle.guest.gref[0] = grant_page(&idle.guest, 0, false);
    scene_stop(&idle);
}

/* ---- abuse ---- */

static void test_one_reference_many_times_in_flight_is_served(void **state)
{
    (void)state;
    for (unsigned d = 0; d < dma_strategy_count; d++) {
        struct scene s;
        scene_persistent(&s, dma_strategies[d]->name, true, true);
        struct blkguest *g = &s.guest;
        unsigned char wanted[PAGE_BYTES];
        blkworld_pattern(wanted, 0, 8, SEED);
        for (unsigned round = 0; round < 50; round++) {
            uint64_t id;
            for (unsigned i = 0; i < 31; i++) { /* one page, read into and written from at the same time */
                struct blkreq req = {.id = i, .operation = BLKIF_OP_READ, .segment_count = 11};
                req.operation = req.operation_raw = i % 8 == 7 ? BLKIF_OP_WRITE : BLKIF_OP_READ;
                req.sector = req.operation == BLKIF_OP_WRITE ? 1024 : 0;
                for (unsigned k = 0; k < 11; k++)
                    req.segment[k] = (struct blkreq_segment){g->gref[0], 0, 7};
                blkguest_put_raw(g, &req);
            }
            blkguest_kick(g);
            for (unsigned i = 0; i < 31; i++)
                assert_int_equal(blkguest_take(g, &id), BLKIF_RSP_OKAY);
        }
        blkguest_check_served(g, SEED);
        scene_stop(&s);
    }
}

static void test_a_flood_of_references_is_bounded(void **state)
{
    static uint32_t gref[FLOOD];
    (void)state;
    for (unsigned d = 0; d < dma_strategy_count; d++) {
        struct scene s;
        scene_persistent(&s, dma_strategies[d]->name, true, true);
        for (unsigned i = 0; i < FLOOD; i++)
            gref[i] = grant_page(&s.guest, i % BLKWORLD_PAGES, false);
        for (unsigned round = 0; round < 2; round++)
            for (unsigned i = 0; i < FLOOD; i++)
                assert_int_equal(read_into(&s.guest, gref[i]), BLKIF_RSP_OKAY);
        unsigned busy = 0;
        for (unsigned i = 0; i < FLOOD; i++)
            busy += grant_end(&s.guest, gref[i]) == -EBUSY;
        assert_true(busy > 0 && busy <= KEPT_MAX);
        blkworld_stat(&s.world, s.domid, BLKWORLD_DEVID, "persistent_evictions", 1);
        assert_true(stat_now(&s, "persistent_pages") <= KEPT_MAX);
        scene_stop(&s);
    }
}

/* The guest rewrites an entry whose page stays mapped: its data goes where it went before, and nobody else is hurt. */
static void test_a_guest_that_revokes_what_stays_mapped_hurts_itself_only(void **state)
{
    (void)state;
    for (unsigned d = 0; d < dma_strategy_count; d++) {
        struct scene s;
        scene_persistent(&s, dma_strategies[d]->name, true, true);
        struct blkguest *g = &s.guest;
        struct err e;
        blkguest_check_served(g, SEED); /* gref[0] is kept */
        assert_int_equal(grant_end(g, g->gref[0]), -EBUSY);
        struct platform_extent more;
        uint32_t gref;
        assert_int_equal(platform_extent_alloc(g->platform, 0, 2, false, &more, &e), 0);
        assert_int_equal(gnttab_grant(platform_gnttab(g->platform), 0, more.base_gfn, false, &gref, &e), 0);
        assert_int_equal(read_into(g, gref), BLKIF_RSP_OKAY);
        platform_extent_free(g->platform, &more); /* the memory of a page that is kept */
        for (int16_t status = BLKIF_RSP_OKAY; status == BLKIF_RSP_OKAY;)
            status = read_into(g, gref); /* until the role heard of it */
        blkguest_check_served(g, SEED);
        assert_int_equal(stat_now(&s, "grant_revoked") + stat_now(&s, "grant_frame") > 0, 1);
        scene_stop(&s);
    }
}

static void test_kept_for_reading_is_written_only_where_the_guest_permits(void **state)
{
    (void)state;
    for (unsigned d = 0; d < dma_strategy_count; d++) {
        struct scene s;
        scene_persistent(&s, dma_strategies[d]->name, true, true);
        struct blkguest *g = &s.guest;
        uint32_t both = g->gref[3];
        g->gref[3] = grant_page(g, 3, true); /* for reading */
        assert_int_equal(blkguest_do(g, BLKIF_OP_WRITE, 64, 3, 1, 0, 7), BLKIF_RSP_OKAY);
        assert_int_equal(blkguest_do(g, BLKIF_OP_READ, 0, 3, 1, 0, 7), BLKIF_RSP_ERROR);
        assert_int_equal(blkguest_do(g, BLKIF_OP_WRITE, 64, 3, 1, 0, 7), BLKIF_RSP_OKAY);
        g->gref[3] = both; /* kept for reading by a write to the disk, then needed for a read */
        assert_int_equal(blkguest_do(g, BLKIF_OP_WRITE, 64, 3, 1, 0, 7), BLKIF_RSP_OKAY);
        assert_int_equal(blkguest_do(g, BLKIF_OP_READ, 0, 3, 1, 0, 7), BLKIF_RSP_OKAY);
        unsigned char wanted[PAGE_BYTES];
        blkworld_pattern(wanted, 0, 8, SEED);
        assert_memory_equal(g->data + 3 * PAGE_BYTES, wanted, PAGE_BYTES);
        assert_int_equal(stat_now(&s, "grant_readonly"), 1);
        scene_stop(&s);
    }
}

/* ---- ends ---- */

static void test_lesson_350_a_killed_guests_kept_pages_are_given_back(void **state)
{
    (void)state;
    for (unsigned d = 0; d < dma_strategy_count; d++) {
        struct scene s;
        scene_persistent(&s, dma_strategies[d]->name, true, true);
        blkguest_disconnect(&s.guest);
        blkguest_switch(&s.guest, XenbusStateInitialising);
        pid_t pid = blkworld_guest_process(s.dir); /* says feature-persistent */
        blkworld_stat(&s.world, s.domid, BLKWORLD_DEVID, "persistent_hits", 1000);
        blkworld_kill(pid);
        blkworld_wait_back(&s.world, s.domid, BLKWORLD_DEVID, XenbusStateClosed);
        blkworld_wait_held(&s.world, s.domid, 0);
        blkguest_switch(&s.guest, XenbusStateInitialising);
        blkguest_connect(&s.guest, NULL);
        scene_stop(&s);
    }
}

/* The role dies with pages kept, some of which no request ever names again, in frames of the grant table that its
 * successor would never look at. */
static void test_a_killed_roles_marks_do_not_outlive_the_next_connection(void **state)
{
    (void)state;
    for (unsigned d = 0; d < dma_strategy_count; d++) {
        struct scene s;
        uint32_t far = 0;
        scene_persistent(&s, dma_strategies[d]->name, true, true);
        struct blkguest *g = &s.guest;
        while (far < 3 * 512)
            far = grant_page(g, 9, false);
        assert_int_equal(read_into(g, far), BLKIF_RSP_OKAY);
        assert_int_equal(blkguest_do_indirect(g, BLKIF_OP_READ, 0, 0, 100, 0, 7), BLKIF_RSP_OKAY);
        blkworld_role_kill(&s.world);
        assert_int_equal(grant_end(g, far), -EBUSY);
        assert_int_equal(grant_end(g, g->gref[50]), -EBUSY);
        blkworld_role_start(&s.world, NULL);
        platform_evtchn_close(g->platform, &g->channel);
        blkguest_connect(g, NULL);
        platform_evtchn_close(s.neighbour.platform, &s.neighbour.channel);
        blkguest_connect(&s.neighbour, NULL);
        blkguest_check_served(g, SEED);
        blkguest_disconnect(g);
        assert_int_equal(grant_end(g, far), 0);
        all_grants_end(g);
        blkguest_switch(g, XenbusStateInitialising);
        blkguest_connect(g, NULL);
        scene_stop(&s);
    }
}

int main(int argc, char **argv)
{
    blkworld_child(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grants_stay_mapped_only_where_both_ends_say_so),
        cmocka_unit_test(test_data_is_right_and_the_numbers_tell),
        cmocka_unit_test(test_one_reference_many_times_in_flight_is_served),
        cmocka_unit_test(test_a_flood_of_references_is_bounded),
        cmocka_unit_test(test_a_guest_that_revokes_what_stays_mapped_hurts_itself_only),
        cmocka_unit_test(test_kept_for_reading_is_written_only_where_the_guest_permits),
        cmocka_unit_test(test_lesson_350_a_killed_guests_kept_pages_are_given_back),
        cmocka_unit_test(test_a_killed_roles_marks_do_not_outlive_the_next_connection),
        cmocka_unit_test(test_what_an_idle_guest_left_mapped_is_given_back),
    };
    return cmocka_run_group_tests_name("blk_persistent", tests, idle_start, NULL);
}
