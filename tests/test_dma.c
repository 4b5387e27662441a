/* SPDX-License-Identifier: MIT */
/* What every DMA strategy owes, for each row of the table. What sets the rows apart is in test_dma_rows.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "grant/dma.h"
#include "tests/dma_world.h"

static void test_rows_have_names_texts_and_are_found(void **state)
{
    (void)state;
    assert_true(dma_strategy_count >= 2);
    FOREACH_ROW(row)
    {
        assert_ptr_equal(dma_strategy_find(row->name), row);
        assert_true(row->summary && strlen(row->summary) > 10);
        assert_true(row->setup && row->get && row->put && row->teardown && row->describe);
    }
    assert_non_null(dma_strategy_find(DMA_DEFAULT));
    assert_false(dma_strategy_find(DMA_DEFAULT)->unsafe);
    assert_null(dma_strategy_find("none such"));
    assert_null(dma_strategy_find(""));
}

/* Random requests in both directions: what arrives is what was sent, in order, and no byte beside it changes. */
static void random_request(struct dma_world *f, uint64_t *seed)
{
    static unsigned char before[16][PAGE_BYTES];
    struct grant_world *w = &f->world;
    struct dma_segment s[DMA_SEGMENTS_SMALL];
    uint32_t gfn[DMA_SEGMENTS_SMALL], total = 0;
    unsigned count = 1 + gworld_random(seed) % DMA_SEGMENTS_SMALL;
    uint32_t start = gworld_random(seed) % 16, stride = gworld_random(seed) % 2 ? 1 : 5; /* prime to 16: all differ */
    bool to_guest = gworld_random(seed) % 2;
    for (unsigned i = 0; i < count; i++) {
        unsigned first = gworld_random(seed) % 8, last = first + gworld_random(seed) % (8 - first);
        gfn[i] = GFN + (start + i * stride) % 16;
        s[i] = (struct dma_segment){
            .gref = gworld_grant(w, gfn[i], !to_guest && gworld_random(seed) % 2),
            .offset_bytes = (uint16_t)(first * SECTOR_BYTES),
            .length_bytes = (uint16_t)((last - first + 1) * SECTOR_BYTES),
        };
        total += s[i].length_bytes;
    }
    memcpy(before, gworld_guest_page(w, GFN), sizeof(before));
    unsigned char mark = (unsigned char)gworld_random(seed), at = mark;
    for (unsigned i = 0; i < count; i++)
        for (unsigned k = 0; k < s[i].length_bytes; k++) {
            unsigned char *now = to_guest ? before[gfn[i] - GFN] : gworld_guest_page(w, gfn[i]);
            now[s[i].offset_bytes + k] = before[gfn[i] - GFN][s[i].offset_bytes + k] = at++;
        }
    DMA_IO(io);
    assert_int_equal(f->row->get(f->dma, s, count, to_guest, &io), 0);
    dma_device_checks(f, &io, total);
    if (to_guest)
        dma_device_fills(&io, mark);
    else
        dma_device_expects(&io, mark);
    assert_int_equal(f->row->put(f->dma, &io, true), 0);
    assert_memory_equal(gworld_guest_page(w, GFN), before, sizeof(before));
    dma_world_expire(f);
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(gnttab_end(w->table, s[i].gref), 0);
}

static void test_data_arrives_in_order_and_nothing_else_changes(void **state)
{
    (void)state;
    FOREACH_ROW(row)
    {
        for (int refuse = 0; refuse < 2; refuse++) {
            struct dma_world *f = dma_world_new(row, refuse ? -ENOMEM : 0);
            uint64_t seed = 3;
            for (int i = 0; i < 300; i++)
                random_request(f, &seed);
            dma_world_free(f);
        }
    }
}

/* As many segments as an indirect request can have, in each row, beside small ones. */
static void test_large_requests_carry_all_their_segments(void **state)
{
    enum { LARGE_GFN = 0x2000 };
    static struct dma_segment s[DMA_SEGMENTS_MAX];
    (void)state;
    FOREACH_ROW(row)
    {
        for (int to_guest = 0; to_guest < 2; to_guest++) {
            struct dma_world *f = dma_world_new(row, 0);
            gworld_share(&f->world, LARGE_GFN, DMA_SEGMENTS_MAX, false);
            for (uint32_t i = 0; i < DMA_SEGMENTS_MAX; i++) {
                uint32_t gfn = LARGE_GFN + (i * 7) % DMA_SEGMENTS_MAX; /* no two neighbours: nothing merges */
                s[i] = (struct dma_segment){gworld_grant(&f->world, gfn, false), 0, PAGE_BYTES};
                memset(gworld_guest_page(&f->world, gfn), (int)i, PAGE_BYTES);
            }
            DMA_IOS(io, LARGE_MAX);
            DMA_IO(small);
            for (unsigned i = 0; i < LARGE_MAX; i++) {
                assert_int_equal(row->get(f->dma, s, DMA_SEGMENTS_MAX, to_guest, &io[i]), 0);
                dma_device_checks(f, &io[i], DMA_SEGMENTS_MAX * PAGE_BYTES);
            }
            assert_int_equal(row->get(f->dma, s, DMA_SEGMENTS_SMALL, to_guest, &small), 0);
            if (to_guest)
                dma_device_fills(&io[0], 3);
            unsigned char at = 3;
            for (unsigned i = 0, k = 0; !to_guest && i < io[0].vec_count; i++)
                for (uint32_t b = 0; b < io[0].vec[i].length_bytes; b++, k++)
                    assert_int_equal(io[0].vec[i].address[b], (unsigned char)(k / PAGE_BYTES));
            assert_int_equal(row->put(f->dma, &small, false), 0);
            assert_int_equal(row->put(f->dma, &io[1], false), 0);
            assert_int_equal(row->put(f->dma, &io[0], true), 0);
            for (uint32_t i = 0; to_guest && i < DMA_SEGMENTS_MAX; i++)
                for (unsigned k = 0; k < PAGE_BYTES; k++)
                    assert_int_equal(gworld_guest_page(&f->world, LARGE_GFN + (i * 7) % DMA_SEGMENTS_MAX)[k], at++);
            dma_world_free(f);
        }
    }
}

static void test_requests_in_flight_do_not_meet(void **state)
{
    (void)state;
    FOREACH_ROW(row)
    {
        struct dma_world *f = dma_world_new(row, 0);
        DMA_IOS(io, REQUESTS_MAX);
        for (unsigned round = 0; round < 3; round++) {
            struct dma_segment s[REQUESTS_MAX];
            for (unsigned i = 0; i < REQUESTS_MAX; i++) {
                s[i] = (struct dma_segment){gworld_grant(&f->world, GFN + i, false), 0, PAGE_BYTES};
                assert_int_equal(row->get(f->dma, &s[i], 1, true, &io[i]), 0);
                dma_device_checks(f, &io[i], PAGE_BYTES);
            }
            for (unsigned i = 0; i < REQUESTS_MAX; i++)
                dma_device_fills(&io[i], (unsigned char)(i * 50));
            for (unsigned i = REQUESTS_MAX; i-- > 0;) {
                assert_int_equal(row->put(f->dma, &io[i], true), 0);
                for (unsigned k = 0; k < PAGE_BYTES; k++)
                    assert_int_equal(gworld_guest_page(&f->world, GFN + i)[k], (unsigned char)(i * 50 + k));
                dma_world_expire(f);
                assert_int_equal(gnttab_end(f->world.table, s[i].gref), 0);
            }
        }
        dma_world_free(f);
    }
}

static void test_lesson_142_no_row_writes_what_is_granted_for_reading(void **state)
{
    (void)state;
    FOREACH_ROW(row)
    {
        struct dma_world *f = dma_world_new(row, 0);
        struct dma_segment granted_ro = {gworld_grant(&f->world, GFN, true), 0, PAGE_BYTES};
        struct dma_segment shared_ro = {gworld_grant(&f->world, GFN_RO, false), 0, PAGE_BYTES};
        assert_int_equal(dma_device_request(f, &granted_ro, 1, true), GRANT_E_READONLY);
        assert_int_equal(dma_device_request(f, &shared_ro, 1, true), GRANT_E_READONLY);
        for (unsigned i = 0; i < PAGE_BYTES; i++)
            assert_int_equal(gworld_guest_page(&f->world, GFN)[i] | gworld_guest_page(&f->world, GFN_RO)[i], 0);
        assert_int_equal(dma_device_request(f, &granted_ro, 1, false), 0);
        assert_int_equal(dma_device_request(f, &shared_ro, 1, false), 0);
        dma_world_free(f);
    }
}

static void test_lesson_371_bad_segment_fails_the_request_and_holds_nothing(void **state)
{
    (void)state;
    FOREACH_ROW(row)
    {
        struct dma_world *f = dma_world_new(row, 0);
        const struct {
            uint32_t gref;
            int code;
        } bad[] = {{1, GRANT_E_BAD_REF},
                   {UINT32_MAX, GRANT_E_BAD_REF},
                   {gworld_grant(&f->world, 0xfff, false), GRANT_E_FRAME},
                   {400, GRANT_E_TYPE}};
        struct dma_segment good[DMA_SEGMENTS_SMALL];
        for (unsigned i = 0; i < DMA_SEGMENTS_SMALL; i++)
            good[i] = (struct dma_segment){gworld_grant(&f->world, GFN + i, false), 512, 1024};
        for (unsigned at = 0; at < DMA_SEGMENTS_SMALL; at += 5)
            for (size_t k = 0; k < ARRAY_SIZE(bad); k++)
                for (int to_guest = 0; to_guest < 2; to_guest++) {
                    struct dma_segment s[DMA_SEGMENTS_SMALL];
                    memcpy(s, good, sizeof(s));
                    s[at].gref = bad[k].gref;
                    for (int again = 0; again < REQUESTS_MAX + 1; again++) /* no slot is lost either */
                        assert_int_equal(dma_device_request(f, s, DMA_SEGMENTS_SMALL, to_guest), bad[k].code);
                }
        dma_world_expire(f);
        for (unsigned i = 0; i < DMA_SEGMENTS_SMALL; i++)
            assert_int_equal(gworld_flags(&f->world, good[i].gref), GTF_permit_access);
        assert_int_equal(dma_device_request(f, good, DMA_SEGMENTS_SMALL, true), 0);
        dma_world_free(f);
    }
}

static void test_lesson_361_environment_errors_pass_unchanged(void **state)
{
    (void)state;
    FOREACH_ROW(row)
    {
        struct dma_world *f = dma_world_new(row, 0);
        struct dma_segment s = {gworld_grant(&f->world, GFN, false), 0, 512};
        f->world.refuse = -EPIPE;
        assert_int_equal(dma_device_request(f, &s, 1, false), -EPIPE);
        assert_int_equal(dma_device_request(f, &s, 1, true), -EPIPE);
        f->world.refuse = 0;
        assert_int_equal(dma_device_request(f, &s, 1, true), 0);
        dma_world_free(f);
    }
}

static void test_failed_io_releases_all(void **state)
{
    (void)state;
    FOREACH_ROW(row)
    {
        struct dma_world *f = dma_world_new(row, 0);
        struct dma_segment s[2] = {{gworld_grant(&f->world, GFN, false), 0, PAGE_BYTES},
                                   {gworld_grant(&f->world, GFN_FAR, false), 512, 512}};
        for (int i = 0; i < 2 * REQUESTS_MAX; i++) {
            DMA_IO(io);
            assert_int_equal(row->get(f->dma, s, 2, i % 2, &io), 0);
            assert_int_equal(row->put(f->dma, &io, false), 0);
            assert_int_equal(dma_world_mapped(f), 0);
        }
        dma_world_free(f);
    }
}

/* Whatever the guest does to its table between get and put, bytes land in what it shares, or nowhere. */
static void test_lesson_155_no_row_follows_a_table_that_changes_in_flight(void **state)
{
    (void)state;
    FOREACH_ROW(row)
    {
        static const uint32_t elsewhere[] = {GFN + 1, GFN_RO, 0xfff, UINT32_MAX};
        for (size_t i = 0; i < ARRAY_SIZE(elsewhere); i++) {
            struct dma_world *f = dma_world_new(row, 0);
            struct dma_segment s = {gworld_grant(&f->world, GFN, false), 512, 1024};
            DMA_IO(io);
            assert_int_equal(row->get(f->dma, &s, 1, true, &io), 0);
            gworld_write(&f->world, s.gref, GTF_permit_access, WORLD_HOST, elsewhere[i]);
            dma_device_fills(&io, 1);
            int r = row->put(f->dma, &io, true);
            unsigned landed = 0;
            for (uint32_t gfn = GFN; gfn < GFN + 16; gfn++)
                for (unsigned k = 0; k < PAGE_BYTES; k++)
                    if (gworld_guest_page(&f->world, gfn)[k]) {
                        assert_true(gfn <= GFN + 1 && k >= 512 && k < 1536);
                        landed++;
                    }
            assert_true(r == 0 ? landed > 1000 : landed == 0);
            assert_int_equal(gworld_guest_page(&f->world, GFN_RO)[512], 0);
            dma_world_free(f);
        }
    }
}

/* What becomes of an unsafe row's memory: test_dma_rows.c. */
static void test_lesson_350_guest_may_die_during_io(void **state)
{
    (void)state;
    FOREACH_ROW(row)
    {
        for (int to_guest = 0; to_guest < 2; to_guest++) {
            struct dma_world *f = dma_world_new(row, 0);
            struct dma_segment s[2] = {{gworld_grant(&f->world, GFN, false), 0, PAGE_BYTES},
                                       {gworld_grant(&f->world, GFN_FAR, false), 0, PAGE_BYTES}};
            DMA_IO(io);
            assert_int_equal(row->get(f->dma, s, 2, to_guest, &io), 0);
            gworld_instance_ends(&f->world, 1);
            gntmap_instance_gone(f->world.map, 1);
            if (to_guest && !row->unsafe)
                dma_device_fills(&io, 9);
            int r = row->put(f->dma, &io, true);
            assert_true(r == 0 || r == GRANT_E_REVOKED || r == GRANT_E_BAD_REF);
            if (f->keep)
                gntkeep_tick(f->keep, f->now_s);                      /* however lately it was used */
            assert_int_equal(frametable_extents(f->world.frames), 0); /* all of the guest's went back */
            assert_null(f->world.frame[0].host);
            dma_world_free(f);
        }
    }
}

static void test_statistics_tell_what_was_done(void **state)
{
    (void)state;
    FOREACH_ROW(row)
    {
        for (int refuse = 0; refuse < 2; refuse++) {
            struct dma_world *f = dma_world_new(row, refuse ? -EPERM : 0);
            struct dma_stats before, after;
            row->describe(f->dma, &before);
            struct dma_segment s = {gworld_grant(&f->world, GFN, false), 0, PAGE_BYTES};
            assert_int_equal(dma_device_request(f, &s, 1, true), 0);
            row->describe(f->dma, &after);
            assert_int_equal(after.maps, before.maps + 1);
            assert_true(after.bytes_copied == before.bytes_copied || after.bytes_copied == before.bytes_copied + 4096);
            assert_int_equal(after.fixed_buffers, !refuse);
            size_t registered = 0;
            for (unsigned i = 0; i < BUFFERS_MAX; i++)
                registered += f->buffer[i].length_bytes;
            assert_int_equal(after.registered_bytes, registered);
            assert_true((registered > 0) == !refuse);
            dma_world_free(f);
        }
    }
}

static void test_refused_registration_is_not_asked_for_again(void **state)
{
    (void)state;
    FOREACH_ROW(row)
    {
        struct dma_world *f = dma_world_new(row, -ENOMEM);
        struct dma_segment s = {gworld_grant(&f->world, GFN, false), 0, PAGE_BYTES};
        for (int i = 0; i < 20; i++) {
            DMA_IO(io);
            assert_int_equal(row->get(f->dma, &s, 1, true, &io), 0);
            for (unsigned k = 0; k < io.vec_count; k++)
                assert_int_equal(io.vec[k].buffer_index, -1);
            assert_int_equal(row->put(f->dma, &io, true), 0);
        }
        assert_int_equal(f->registrations, 1);
        dma_world_free(f);
    }
}

/* ---- the strategy of a running device changes ---- */

static void test_rows_follow_each_other_over_one_map(void **state)
{
    (void)state;
    dma_world_keeps = true;
    struct dma_world *f = dma_world_new(dma_strategies[0], 0);
    uint64_t seed = 8;
    for (unsigned i = 0; i < 3 * dma_strategy_count; i++) {
        random_request(f, &seed);
        f->row->teardown(f->dma);
        assert_int_equal(f->in_force, 0);
        f->row = dma_strategies[(i + 1) % dma_strategy_count];
        f->dma = dma_world_device(f);
        random_request(f, &seed);
    }
    dma_world_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_have_names_texts_and_are_found),
        cmocka_unit_test(test_data_arrives_in_order_and_nothing_else_changes),
        cmocka_unit_test(test_large_requests_carry_all_their_segments),
        cmocka_unit_test(test_requests_in_flight_do_not_meet),
        cmocka_unit_test(test_lesson_142_no_row_writes_what_is_granted_for_reading),
        cmocka_unit_test(test_lesson_371_bad_segment_fails_the_request_and_holds_nothing),
        cmocka_unit_test(test_lesson_361_environment_errors_pass_unchanged),
        cmocka_unit_test(test_failed_io_releases_all),
        cmocka_unit_test(test_lesson_155_no_row_follows_a_table_that_changes_in_flight),
        cmocka_unit_test(test_lesson_350_guest_may_die_during_io),
        cmocka_unit_test(test_statistics_tell_what_was_done),
        cmocka_unit_test(test_refused_registration_is_not_asked_for_again),
        cmocka_unit_test(test_rows_follow_each_other_over_one_map),
    };
    return cmocka_run_group_tests_name("dma", tests, NULL, NULL);
}
