/* SPDX-License-Identifier: MIT */
/* IOTLB: what it hands out stays what it was until the put, an unmap ends with the last use, frames go back exactly
 * once, and there is always an entry for who may have one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "tests/iommu_world.h"

#define RW (IOMMU_READ | IOMMU_WRITE)

static struct iworld *open_world(bool fenced, enum iommu_flush_mode mode)
{
    return iworld_open(&(struct iworld_setup){.fenced = fenced, .mode = mode, .iotlbs = IWORLD_IOTLBS});
}

static struct iotlb_entry *get(struct iworld *w, unsigned tlb, uint64_t page)
{
    struct iotlb_entry *e = NULL;
    assert_int_equal(iotlb_get(w->tlb[tlb], page, false, &e), 0);
    return e;
}

static uint64_t map(struct iworld *w, uint32_t frame, uint32_t count)
{
    uint64_t at = IOMMU_ANY;
    assert_int_equal(iworld_map(w, &at, frame, count, RW), 0);
    return at;
}

static void unmap_waits_for_its_last_put(bool fenced)
{
    struct iworld *w = open_world(fenced, IOMMU_STRICT);
    struct iworld_unmap first, second;
    uint64_t at = map(w, 7, 2);
    struct iotlb_entry *a = get(w, 1, at), *b = get(w, 1, at), *other = get(w, 1, at + 1), *far = get(w, 2, at);
    iworld_unmap(w, at, 1, &first);
    assert_int_equal(iworld_look(w, 1, at, false, 0), IOMMU_F_NOT_PRESENT);
    assert_int_equal(iworld_look(w, 1, at + 1, false, 8), 0);
    iotlb_put(w->tlb[1], a);
    iotlb_put(w->tlb[2], far);
    assert_int_equal(w->holds[2].of[7], 0);
    assert_int_equal(first.ended, 0); /* one use is left */
    assert_int_equal(b->frame, 7);
    assert_ptr_equal(b->address, iworld_address(7));
    iotlb_put(w->tlb[1], b);
    assert_int_equal(first.ended, 1);
    assert_int_equal(w->holds[1].of[7], 0);
    assert_int_equal(w->holds[1].of[8], 1);
    iotlb_put(w->tlb[1], other);
    iworld_unmap(w, at + 1, 1, &second);
    assert_int_equal(second.ended, 1); /* nobody uses anything: nobody is asked */
    iworld_close(w);
}

static void test_an_unmap_ends_with_the_last_put(void **state)
{
    (void)state;
    unmap_waits_for_its_last_put(false);
    unmap_waits_for_its_last_put(true);
}

static void test_bus_pages_are_not_used_again_before_the_unmap_ended(void **state)
{
    (void)state;
    struct iworld *w = open_world(false, IOMMU_STRICT);
    struct iworld_unmap u;
    uint64_t at = map(w, 7, 1), again = at;
    struct iotlb_entry *e = get(w, 0, at);
    iworld_unmap(w, at, 1, &u);
    assert_int_equal(iworld_map(w, &again, 9, 1, RW), -EEXIST);
    assert_int_not_equal(map(w, 10, 1), at);
    iotlb_put(w->tlb[0], e);
    assert_int_equal(u.ended, 1);
    assert_int_equal(iworld_map(w, &again, 9, 1, RW), 0);
    assert_int_equal(iworld_look(w, 0, at, true, 9), 0); /* and not 7 */
    iworld_unmap(w, at, 2, &u);
    iworld_close(w);
}

/* One that was away for more invalidations than are remembered, and one for fewer. */
static void test_an_idle_iotlb_gives_frames_back_when_it_runs_next(void **state)
{
    (void)state;
    struct iworld *w = open_world(false, IOMMU_STRICT);
    struct iworld_unmap u;
    static const uint32_t rounds[] = {1, 200, 256, 257, 1000};
    for (unsigned i = 0; i < ARRAY_SIZE(rounds); i++) {
        uint64_t kept = map(w, 5000, 1), at = map(w, 1, 1);
        assert_int_equal(iworld_look(w, 2, kept, true, 5000), 0);
        assert_int_equal(iworld_look(w, 2, at, true, 1), 0);
        iworld_unmap(w, at, 1, &u);
        for (uint32_t k = 1; k < rounds[i]; k++) {
            at = map(w, 1 + k, 1);
            iworld_unmap(w, at, 1, &u);
            assert_int_equal(u.ended, 1);
        }
        assert_int_equal(w->holds[2].of[1], 1); /* its thread has not run */
        iotlb_turn(w->tlb[2]);
        assert_int_equal(w->holds[2].of[1], 0);
        assert_int_equal(iworld_look(w, 2, at, true, 0), IOMMU_F_NOT_PRESENT);
        assert_int_equal(iworld_look(w, 2, kept, true, 5000), 0);
        iworld_unmap(w, kept, 1, &u);
    }
    iworld_close(w);
}

/* The smallest IOTLB has four entries: what is in use beyond them is in spare ones, for which the same holds. */
static void test_uses_never_fail_for_want_of_an_entry(void **state)
{
    (void)state;
    struct iworld *w = open_world(false, IOMMU_STRICT);
    struct iotlb_entry *use[IWORLD_USES];
    struct iworld_unmap u[IWORLD_USES];
    for (unsigned round = 0; round < 3; round++) {
        uint64_t at = map(w, 100, IWORLD_USES);
        for (uint32_t i = 0; i < IWORLD_USES; i++) {
            use[i] = get(w, 0, at + i);
            assert_int_equal(use[i]->frame, 100 + i);
            assert_ptr_equal(iotlb_at(w->tlb[0], iotlb_index(w->tlb[0], use[i])), use[i]);
        }
        for (uint32_t i = 0; i < IWORLD_USES; i++)
            iworld_unmap(w, at + i, 1, &u[i]);
        iotlb_turn(w->tlb[0]);
        for (uint32_t i = 0; i < IWORLD_USES; i++) {
            assert_int_equal(u[i].ended, 0);
            assert_int_equal(w->holds[0].of[100 + i], 1);
            iotlb_put(w->tlb[0], use[i]);
            assert_int_equal(u[i].ended, 1);
            assert_int_equal(w->holds[0].of[100 + i], 0);
        }
    }
    iworld_close(w);
}

/* 64 entries in 16 sets of four: eight pages of one set. */
static void test_what_a_set_has_no_room_for_is_waited_for_too(void **state)
{
    (void)state;
    struct iworld *w = open_world(false, IOMMU_STRICT);
    struct iotlb_entry *use[8];
    struct iworld_unmap u[8], rest;
    uint64_t at = 16;
    assert_int_equal(iworld_map(w, &at, 100, 8 * 16, RW), 0);
    for (uint32_t i = 0; i < 8; i++)
        use[i] = get(w, 1, at + i * 16);
    for (uint32_t i = 0; i < 8; i++)
        iworld_unmap(w, at + i * 16, 1, &u[i]);
    iotlb_turn(w->tlb[1]);
    for (uint32_t i = 0; i < 8; i++) {
        assert_int_equal(u[i].ended, 0);
        iotlb_put(w->tlb[1], use[i]);
        assert_int_equal(u[i].ended, 1);
    }
    for (uint32_t i = 0; i < 8; i++)
        iworld_unmap(w, at + i * 16 + 1, 15, &rest);
    iworld_close(w);
}

/* As many as there can be at once, all of one set and each page twice, put in another order than got. */
static void test_a_crowded_set_is_waited_for_page_by_page(void **state)
{
    (void)state;
    enum { PAGES = IWORLD_USES / 2 };
    struct iworld *w = open_world(false, IOMMU_STRICT);
    struct iotlb_entry *use[IWORLD_USES];
    struct iworld_unmap u[PAGES], rest;
    for (unsigned stride = 1; stride < IWORLD_USES; stride += 6) { /* odd */
        uint64_t at = 16;
        assert_int_equal(iworld_map(w, &at, 100, PAGES * 16, RW), 0);
        for (uint32_t i = 0; i < IWORLD_USES; i++)
            use[i] = get(w, 1, at + i % PAGES * 16);
        for (uint32_t i = 0; i < PAGES; i++)
            iworld_unmap(w, at + i * 16, 1, &u[i]);
        for (uint32_t i = 0, puts[PAGES] = {0}; i < IWORLD_USES; i++) {
            uint32_t k = i * stride % IWORLD_USES;
            iotlb_put(w->tlb[1], use[k]);
            assert_int_equal(u[k % PAGES].ended, ++puts[k % PAGES] == 2);
        }
        for (uint32_t i = 0; i < PAGES; i++)
            iworld_unmap(w, at + i * 16 + 1, 15, &rest);
    }
    iworld_close(w);
}

static void test_one_page_may_be_used_often_at_once(void **state)
{
    (void)state;
    struct iworld *w = open_world(false, IOMMU_STRICT);
    struct iotlb_entry *use[IWORLD_USES];
    struct iworld_unmap u;
    uint64_t at = map(w, 100, 8);
    for (uint32_t i = 0; i < 8; i++) /* four entries, so some of these are in spare ones, twice over */
        use[i] = get(w, 0, at + i);
    for (uint32_t i = 8; i < IWORLD_USES; i++)
        use[i] = get(w, 0, at + i % 8);
    iworld_unmap(w, at, 8, &u);
    for (uint32_t i = 0; i < IWORLD_USES; i++) {
        assert_int_equal(u.ended, 0);
        iotlb_put(w->tlb[0], use[i]);
    }
    assert_int_equal(u.ended, 1);
    assert_int_equal(w->holds[0].held, 0);
    iworld_close(w);
}

static void test_a_turn_lets_unmaps_of_other_pages_end_during_a_slow_dma(void **state)
{
    (void)state;
    struct iworld *w = open_world(false, IOMMU_STRICT);
    struct iworld_unmap u, own, slow;
    uint64_t at = map(w, 7, 3);
    struct iotlb_entry *e = get(w, 0, at);
    iworld_unmap(w, at + 1, 1, &u);
    assert_int_equal(u.ended, 0);
    iotlb_turn(w->tlb[0]);
    assert_int_equal(u.ended, 1);
    own = (struct iworld_unmap){.u.done = u.u.done};
    assert_int_equal(iotlb_unmap(w->tlb[0], at + 2, 1, &own.u), 0); /* answers for itself at once */
    assert_int_equal(own.ended, 1);
    iworld_unmap(w, at, 1, &slow);
    iotlb_turn(w->tlb[0]);
    assert_int_equal(slow.ended, 0);
    iotlb_put(w->tlb[0], e);
    assert_int_equal(slow.ended, 1);
    iworld_close(w);
}

static void test_rest_gives_back_what_is_not_in_use(void **state)
{
    (void)state;
    struct iworld *w = open_world(false, IOMMU_STRICT);
    struct iworld_unmap u;
    uint64_t at = map(w, 1, 32);
    struct iotlb_entry *e = get(w, 2, at + 3);
    for (uint32_t i = 0; i < 32; i++)
        assert_int_equal(iworld_look(w, 2, at + i, true, 1 + i), 0);
    assert_int_equal(w->holds[2].held, 32);
    iotlb_rest(w->tlb[2]);
    assert_int_equal(w->holds[2].held, 1);
    assert_int_equal(e->frame, 4);
    assert_int_equal(iworld_look(w, 2, at + 3, true, 4), 0);
    struct iotlb_stats stats;
    iotlb_stats(w->tlb[2], &stats);
    assert_int_equal(stats.misses, 32);
    assert_int_equal(stats.hits, 2);
    iotlb_put(w->tlb[2], e);
    iworld_unmap(w, at, 32, &u);
    iworld_close(w);
}

static void test_deferred_unmaps_are_remembered_until_the_flush_and_no_longer(void **state)
{
    (void)state;
    struct iworld *w = open_world(false, IOMMU_DEFERRED);
    struct iworld_unmap u;
    uint64_t at = map(w, 7, 1);
    assert_int_equal(iworld_look(w, 0, at, true, 7), 0);
    iworld_unmap(w, at, 1, &u);
    assert_int_equal(iworld_look(w, 0, at, true, 7), 0); /* on a frame that is held for it */
    assert_int_equal(w->holds[0].of[7], 1);
    assert_int_equal(iworld_look(w, 1, at, true, 7), IOMMU_F_NOT_PRESENT); /* it had not seen it */
    assert_int_equal(u.ended, 0);
    iommu_flush(w->space);
    assert_int_equal(u.ended, 1);
    assert_int_equal(iworld_look(w, 0, at, true, 7), IOMMU_F_NOT_PRESENT);
    assert_int_equal(w->holds[0].of[7], 0);
    iworld_close(w);
}

static void test_a_batch_that_is_full_is_flushed(void **state)
{
    (void)state;
    struct iworld *w = open_world(false, IOMMU_DEFERRED);
    struct iworld_unmap u[IOMMU_BATCH_MAX + 1];
    struct iommu_stats stats;
    uint64_t at = map(w, 1, IOMMU_BATCH_MAX + 1);
    for (uint32_t i = 0; i < IOMMU_BATCH_MAX; i++) {
        iworld_unmap(w, at + i, 1, &u[i]);
        assert_int_equal(u[0].ended, i == IOMMU_BATCH_MAX - 1);
    }
    for (uint32_t i = 0; i < IOMMU_BATCH_MAX; i++)
        assert_int_equal(u[i].ended, 1);
    iommu_space_stats(w->space, &stats);
    assert_int_equal(stats.flushes, 1); /* of all of them */
    iworld_unmap(w, at + IOMMU_BATCH_MAX, 1, &u[IOMMU_BATCH_MAX]);
    assert_int_equal(u[IOMMU_BATCH_MAX].ended, 0);
    iworld_close(w);
    assert_int_equal(u[IOMMU_BATCH_MAX].ended, 1);
}

static void test_an_iotlb_that_goes_holds_no_unmap_up(void **state)
{
    (void)state;
    struct iworld *w = open_world(false, IOMMU_STRICT);
    struct iworld_unmap u;
    uint64_t at = map(w, 7, 2);
    struct iotlb_entry *mine = get(w, 0, at), *other = get(w, 1, at + 1);
    iworld_unmap(w, at + 1, 1, &u);
    iotlb_put(w->tlb[1], other);
    assert_int_equal(u.ended, 0); /* 0 is in use, and has not answered */
    iotlb_put(w->tlb[0], mine);
    iotlb_free(w->tlb[0]);
    w->tlb[0] = NULL;
    assert_int_equal(u.ended, 1);
    assert_int_equal(w->holds[0].held, 0);
    iworld_unmap(w, at, 1, &u);
    iworld_close(w);
}

/* done() may use the space: here it maps the same bus page again. */
static struct iworld *again_world;
static uint64_t again_page;
static void map_again(struct iommu_unmap *u)
{
    assert_int_equal(iworld_map(again_world, &again_page, 99, 1, RW), 0);
    container_of(u, struct iworld_unmap, u)->ended++;
}

/* Who has books of the addresses hears of the end later than it comes. */
static void test_addresses_that_are_kept_are_free_when_the_owner_says_so(void **state)
{
    (void)state;
    struct iworld *w = open_world(false, IOMMU_STRICT);
    struct iworld_unmap u, whole;
    struct iommu_stats stats;
    uint64_t at = map(w, 100, 8), again = at + 2;
    struct iotlb_entry *use = get(w, 1, at + 3);
    iworld_unmap(w, at + 2, 4, &u);
    u.u.keeps = true;
    iotlb_put(w->tlb[1], use);
    assert_int_equal(u.ended, 1);
    assert_int_equal(iworld_look(w, 0, at + 3, true, 103), IOMMU_F_NOT_PRESENT);
    assert_int_equal(iworld_map(w, &again, 200, 1, RW), -EEXIST);
    iommu_space_stats(w->space, &stats);
    assert_int_equal(stats.pages, 8);
    iommu_unmap_free(w->space, &u.u);
    iommu_space_stats(w->space, &stats);
    assert_int_equal(stats.pages, 4);
    assert_int_equal(iworld_map(w, &again, 200, 4, RW), 0);
    assert_int_equal(iworld_look(w, 0, at + 3, true, 201), 0);
    iworld_unmap(w, at, 8, &whole);
    iworld_close(w);
}

static void test_done_may_map_the_same_page_again(void **state)
{
    (void)state;
    struct iworld *w = again_world = open_world(false, IOMMU_STRICT);
    struct iworld_unmap u = {.u.done = map_again};
    uint64_t at = again_page = map(w, 7, 1);
    struct iotlb_entry *e = get(w, 0, at);
    assert_int_equal(iommu_unmap(w->space, at, 1, &u.u), 0);
    iotlb_put(w->tlb[0], e);
    assert_int_equal(u.ended, 1);
    assert_int_equal(iworld_look(w, 0, at, true, 99), 0);
    iworld_unmap(w, at, 1, &u);
    iworld_close(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_unmap_ends_with_the_last_put),
        cmocka_unit_test(test_bus_pages_are_not_used_again_before_the_unmap_ended),
        cmocka_unit_test(test_an_idle_iotlb_gives_frames_back_when_it_runs_next),
        cmocka_unit_test(test_uses_never_fail_for_want_of_an_entry),
        cmocka_unit_test(test_what_a_set_has_no_room_for_is_waited_for_too),
        cmocka_unit_test(test_a_crowded_set_is_waited_for_page_by_page),
        cmocka_unit_test(test_one_page_may_be_used_often_at_once),
        cmocka_unit_test(test_a_turn_lets_unmaps_of_other_pages_end_during_a_slow_dma),
        cmocka_unit_test(test_rest_gives_back_what_is_not_in_use),
        cmocka_unit_test(test_deferred_unmaps_are_remembered_until_the_flush_and_no_longer),
        cmocka_unit_test(test_a_batch_that_is_full_is_flushed),
        cmocka_unit_test(test_an_iotlb_that_goes_holds_no_unmap_up),
        cmocka_unit_test(test_addresses_that_are_kept_are_free_when_the_owner_says_so),
        cmocka_unit_test(test_done_may_map_the_same_page_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
