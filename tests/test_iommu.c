/* SPDX-License-Identifier: MIT */
/* The IOMMU's unit and spaces: faults are named and kept, limits hold, large entries are made and split. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include <sys/wait.h>

#include "tests/iommu_world.h"
#include "tests/no_membarrier.h"

#define RW   (IOMMU_READ | IOMMU_WRITE)
#define LAST (UINT64_C(1) << (32 - IOMMU_PAGE_SHIFT)) /* the first page beyond a window of 32 bits */

static struct iommu_stats stats_of(struct iworld *w)
{
    struct iommu_stats stats;
    iommu_space_stats(w->space, &stats);
    return stats;
}

static struct iommu_fault last_fault(struct iworld *w, uint64_t *total)
{
    struct iommu_fault f = {0};
    assert_int_equal(iommu_faults(w->unit, &f, 1, total), 1);
    return f;
}

static void expect_fault(struct iworld *w, uint64_t page, bool write, int reason)
{
    uint64_t total, counted = iommu_fault_count(w->unit, (uint8_t)reason);
    assert_int_equal(iworld_look(w, 0, page, write, 0), reason);
    struct iommu_fault f = last_fault(w, &total);
    assert_int_equal(f.reason, reason);
    assert_int_equal(f.address, page << IOMMU_PAGE_SHIFT);
    assert_int_equal(f.device, IWORLD_DEVICE);
    assert_int_equal(f.domid, IWORLD_DOMID);
    assert_int_equal(f.write, write);
    assert_true(f.at_ns > 0);
    assert_int_equal(iommu_fault_count(w->unit, (uint8_t)reason), counted + 1);
}

static void test_each_fault_is_put_down_with_its_reason(void **state)
{
    (void)state;
    struct iworld *w = iworld_open(&(struct iworld_setup){.iotlbs = 2});
    uint64_t readable = IOMMU_ANY, writable = IOMMU_ANY, gone = IOMMU_ANY;
    struct iworld_unmap u;
    assert_int_equal(iworld_map(w, &readable, 7, 1, IOMMU_READ), 0);
    assert_int_equal(iworld_map(w, &writable, 8, 1, IOMMU_WRITE), 0);
    assert_int_equal(iworld_map(w, &gone, 9, 1, RW), 0);
    for (unsigned round = 0; round < 2; round++) { /* unknown, then remembered */
        assert_int_equal(iworld_look(w, 0, readable, false, 7), 0);
        assert_int_equal(iworld_look(w, 0, writable, true, 8), 0);
        expect_fault(w, readable, true, IOMMU_F_PERMISSION);
        expect_fault(w, writable, false, IOMMU_F_PERMISSION);
        expect_fault(w, gone + 1, false, IOMMU_F_NOT_PRESENT);
        expect_fault(w, 0, false, IOMMU_F_NOT_PRESENT);
        expect_fault(w, LAST - 1, true, IOMMU_F_NOT_PRESENT);
        expect_fault(w, LAST, true, IOMMU_F_WINDOW);
        expect_fault(w, UINT32_MAX, false, IOMMU_F_WINDOW);
        expect_fault(w, UINT64_C(1) << 51, false, IOMMU_F_WINDOW);
        assert_int_equal(iworld_look(w, 0, UINT64_MAX, false, 0), IOMMU_F_WINDOW);
        w->holds[0].refuse = 9;
        expect_fault(w, gone, false, IOMMU_F_FRAME);
        w->holds[0].refuse = 0;
    }
    assert_int_equal(iworld_look(w, 0, gone, false, 9), 0); /* it is asked again */
    iworld_unmap(w, readable, 3, &u);
    assert_int_equal(u.ended, 1); /* a fault leaves nothing in use */
    iworld_close(w);
}

static void test_a_device_that_was_detached_reaches_nothing(void **state)
{
    (void)state;
    struct iworld *w = iworld_open(&(struct iworld_setup){.iotlbs = 2});
    uint64_t at = IOMMU_ANY;
    struct iworld_unmap u;
    struct iotlb_entry *e;
    assert_int_equal(iworld_map(w, &at, 7, 2, RW), 0);
    assert_int_equal(iworld_look(w, 0, at, true, 7), 0);
    assert_int_equal(iotlb_get(w->tlb[1], at, true, &e), 0);
    iommu_space_detach(w->space);
    expect_fault(w, at, true, IOMMU_F_FOREIGN);
    expect_fault(w, at + 1, true, IOMMU_F_FOREIGN);
    expect_fault(w, LAST, true, IOMMU_F_FOREIGN);
    assert_int_equal(iworld_look(w, 1, at, true, 7), IOMMU_F_FOREIGN);
    iworld_unmap(w, at, 2, &u); /* what was under way is still waited for */
    assert_int_equal(u.ended, 0);
    assert_int_equal(e->frame, 7);
    iotlb_put(w->tlb[1], e);
    assert_int_equal(u.ended, 1);
    iworld_close(w);
}

static void test_the_log_keeps_the_last_and_counts_all(void **state)
{
    (void)state;
    struct iommu *u;
    struct iommu_fault f[IOMMU_FAULTS_KEPT + 1];
    uint64_t total;
    assert_int_equal(iommu_new(&u), 0);
    assert_int_equal(iommu_faults(u, f, ARRAY_SIZE(f), &total), 0);
    assert_int_equal(total, 0);
    for (uint64_t i = 0; i < 1000; i++)
        iommu_fault_record(u, &(struct iommu_fault){.address = i, .reason = IOMMU_F_INTERRUPT});
    assert_int_equal(iommu_faults(u, f, ARRAY_SIZE(f), &total), IOMMU_FAULTS_KEPT);
    assert_int_equal(total, 1000);
    for (uint64_t i = 0; i < IOMMU_FAULTS_KEPT; i++) {
        assert_int_equal(f[i].address, 1000 - IOMMU_FAULTS_KEPT + i);
        assert_true(i == 0 || f[i].at_ns >= f[i - 1].at_ns);
    }
    assert_int_equal(iommu_faults(u, f, 3, &total), 3);
    assert_int_equal(f[0].address, 997);
    assert_int_equal(iommu_fault_count(u, IOMMU_F_INTERRUPT), 1000);
    assert_int_equal(iommu_fault_count(u, IOMMU_F_WINDOW), 0);
    assert_int_equal(iommu_fault_count(u, UINT8_MAX), 0);
    iommu_free(u);
}

static void test_every_reason_has_a_name_and_a_text(void **state)
{
    (void)state;
    for (int i = 1; i < IOMMU_F_COUNT_; i++) {
        assert_string_not_equal(iommu_fault_name(i), "unknown");
        for (int k = 1; k < i; k++) {
            assert_string_not_equal(iommu_fault_name(i), iommu_fault_name(k));
            assert_string_not_equal(iommu_fault_text(i), iommu_fault_text(k));
        }
    }
    assert_string_equal(iommu_fault_name(IOMMU_F_NOT_PRESENT), "not-present");
    static const int none[] = {0, -1, IOMMU_F_COUNT_, 255};
    for (unsigned i = 0; i < ARRAY_SIZE(none); i++) {
        assert_string_equal(iommu_fault_name(none[i]), "unknown");
        assert_non_null(iommu_fault_text(none[i]));
    }
}

static void test_windows_begin_at_page_1_and_end_where_they_should(void **state)
{
    (void)state;
    static const struct iommu_limits limits = {16, 16};
    static const unsigned bits[] = {21, 30, 32, 39, 44};
    struct iommu *u;
    struct iommu_space *s;
    uint32_t ids[ARRAY_SIZE(bits)], frame = 5, two[] = {1, 2};
    assert_int_equal(iommu_new(&u), 0);
    assert_int_equal(iommu_space_new(u, 1, 1, 20, IOMMU_STRICT, &limits, &s), -EINVAL);
    assert_int_equal(iommu_space_new(u, 1, 1, 45, IOMMU_STRICT, &limits, &s), -EINVAL);
    for (unsigned i = 0; i < ARRAY_SIZE(bits); i++) {
        uint64_t end = UINT64_C(1) << (bits[i] - IOMMU_PAGE_SHIFT), at;
        struct iworld_holds *h = calloc(1, sizeof(*h));
        struct iotlb *t;
        struct iotlb_entry *e;
        assert_int_equal(iommu_space_new(u, 1, 1, bits[i], IOMMU_STRICT, &limits, &s), 0);
        assert_int_equal(iotlb_new(s, &iworld_ops, h, 1, 1, &t), 0);
        ids[i] = iommu_space_id(s);
        for (unsigned k = 0; k < i; k++)
            assert_int_not_equal(ids[i], ids[k]);
        at = 0;
        assert_int_equal(iommu_map(s, &at, &frame, 1, RW), -ERANGE);
        at = end;
        assert_int_equal(iommu_map(s, &at, &frame, 1, RW), -ERANGE);
        at = end - 1;
        assert_int_equal(iommu_map(s, &at, two, 2, RW), -ERANGE);
        assert_int_equal(iommu_map(s, &at, &frame, 1, RW), 0);
        assert_int_equal(at, end - 1);
        assert_int_equal(iotlb_get(t, at, true, &e), 0);
        assert_int_equal(e->frame, frame);
        iotlb_put(t, e);
        at = IOMMU_ANY;
        assert_int_equal(iommu_map(s, &at, &frame, 1, RW), 0);
        assert_int_equal(at, 1);
        struct iworld w = {.space = s};
        struct iworld_unmap first, last;
        iworld_unmap(&w, 1, 1, &first);
        iworld_unmap(&w, end - 1, 1, &last);
        assert_int_equal(first.ended + last.ended, 2);
        iotlb_free(t);
        iommu_space_free(s);
        assert_int_equal(h->held, 0);
        free(h);
    }
    iommu_free(u);
}

static void test_room_is_the_lowest_and_none_is_none(void **state)
{
    (void)state;
    struct iworld *w = iworld_open(&(struct iworld_setup){.bus_bits = 21, .iotlbs = 1});
    struct iworld_unmap u;
    uint64_t a = IOMMU_ANY, b = IOMMU_ANY, c = IOMMU_ANY, d = IOMMU_ANY;
    assert_int_equal(iworld_map(w, &a, 1, 100, RW), 0);
    assert_int_equal(iworld_map(w, &b, 200, 100, RW), 0);
    assert_int_equal(iworld_map(w, &c, 300, 311, RW), 0);
    assert_int_equal(c, 201);
    assert_int_equal(iworld_map(w, &d, 1, 1, RW), -ENOSPC); /* 511 pages, all taken */
    iworld_unmap(w, b + 10, 50, &u);
    assert_int_equal(iworld_map(w, &d, 1000, 51, RW), -ENOSPC);
    assert_int_equal(iworld_map(w, &d, 1000, 50, RW), 0);
    assert_int_equal(d, b + 10);
    assert_int_equal(iworld_look(w, 0, b + 9, true, 209), 0);
    assert_int_equal(iworld_look(w, 0, b + 10, true, 1000), 0);
    assert_int_equal(iworld_look(w, 0, b + 60, true, 260), 0);
    iworld_unmap(w, 1, 511, &u); /* across what four maps made */
    assert_int_equal(u.ended, 1);
    iworld_close(w);
}

static void test_an_unmap_of_what_is_not_all_mapped_does_nothing(void **state)
{
    (void)state;
    struct iworld *w = iworld_open(&(struct iworld_setup){.iotlbs = 1});
    struct iworld_unmap u;
    uint64_t at = 600;
    assert_int_equal(iworld_map(w, &at, 1, 10, RW), 0);
    assert_int_equal(iworld_try_unmap(w, 599, 2, &u), -ENOENT);
    assert_int_equal(iworld_try_unmap(w, 600, 11, &u), -ENOENT);
    assert_int_equal(iworld_try_unmap(w, 600, 0, &u), -ENOENT);
    assert_int_equal(iworld_try_unmap(w, 0, 1, &u), -ENOENT);
    assert_int_equal(iworld_try_unmap(w, UINT64_MAX, 2, &u), -ENOENT);
    assert_int_equal(iworld_try_unmap(w, LAST - 1, UINT32_MAX, &u), -ENOENT);
    assert_int_equal(u.ended, 0);
    for (uint32_t i = 0; i < 10; i++)
        assert_int_equal(iworld_look(w, 0, at + i, true, 1 + i), 0);
    iworld_unmap(w, at, 10, &u);
    assert_int_equal(iworld_try_unmap(w, at, 1, &u), -ENOENT);
    iworld_close(w);
}

static void test_2_mib_in_a_row_are_one_entry(void **state)
{
    (void)state;
    struct iworld *w = iworld_open(&(struct iworld_setup){.iotlbs = 3});
    struct iworld_unmap u;
    uint64_t at = IOMMU_ANY, odd = 5 * IOMMU_LARGE_PAGES + 1, row = 10 * IOMMU_LARGE_PAGES;
    assert_int_equal(iworld_map(w, &at, IOMMU_LARGE_PAGES, 2 * IOMMU_LARGE_PAGES + 3, RW), 0);
    assert_int_equal(at % IOMMU_LARGE_PAGES, 0);
    assert_int_equal(stats_of(w).large, 2);
    for (uint32_t i = 0; i < 2 * IOMMU_LARGE_PAGES + 3; i++)
        assert_int_equal(iworld_look(w, i % 3, at + i, true, IOMMU_LARGE_PAGES + i), 0);
    assert_int_equal(iworld_map(w, &odd, IOMMU_LARGE_PAGES + 1, IOMMU_LARGE_PAGES, RW), 0); /* bus page not aligned */
    assert_int_equal(stats_of(w).large, 2);
    assert_int_equal(iworld_map(w, &row, 7, IOMMU_LARGE_PAGES, RW), 0); /* frame not aligned */
    assert_int_equal(stats_of(w).large, 2);
    assert_int_equal(iworld_look(w, 0, row + 511, true, 7 + 511), 0);
    iworld_unmap(w, at, 2 * IOMMU_LARGE_PAGES + 3, &u);
    assert_int_equal(stats_of(w).large, 0);
    assert_int_equal(iworld_look(w, 0, at + 40, true, 0), IOMMU_F_NOT_PRESENT);
    iworld_unmap(w, odd, IOMMU_LARGE_PAGES, &u);
    iworld_unmap(w, row, IOMMU_LARGE_PAGES, &u);
    iworld_close(w);
}

static void test_a_part_of_a_large_entry_goes_and_the_rest_stays(void **state)
{
    (void)state;
    struct iworld *w = iworld_open(&(struct iworld_setup){.iotlbs = 2});
    struct iworld_unmap u, rest;
    uint64_t at = IOMMU_LARGE_PAGES;
    struct iotlb_entry *inside, *beside;
    assert_int_equal(iworld_map(w, &at, 1024, 3 * IOMMU_LARGE_PAGES, IOMMU_READ), 0);
    assert_int_equal(stats_of(w).large, 3);
    assert_int_equal(iotlb_get(w->tlb[0], at + 600, false, &inside), 0);
    assert_int_equal(iotlb_get(w->tlb[0], at + 100, false, &beside), 0);
    iworld_unmap(w, at + 500, 600, &u); /* the end of one, all of another, the beginning of the third */
    assert_int_equal(stats_of(w).large, 0);
    iotlb_turn(w->tlb[0]);
    assert_int_equal(u.ended, 0);
    for (uint32_t i = 0; i < 3 * IOMMU_LARGE_PAGES; i++)
        assert_int_equal(iworld_look(w, 1, at + i, false, 1024 + i), i >= 500 && i < 1100 ? IOMMU_F_NOT_PRESENT : 0);
    iotlb_put(w->tlb[0], inside);
    assert_int_equal(u.ended, 1);
    assert_int_equal(iworld_look(w, 1, at, true, 0), IOMMU_F_PERMISSION);
    iotlb_put(w->tlb[0], beside);
    iworld_unmap(w, at, 500, &rest);
    iworld_unmap(w, at + 1100, 3 * IOMMU_LARGE_PAGES - 1100, &u);
    iworld_close(w);
}

static void test_pages_are_limited_until_their_unmap_has_ended(void **state)
{
    (void)state;
    struct iworld *w = iworld_open(&(struct iworld_setup){.iotlbs = 1, .limits = {100, 100}});
    struct iworld_unmap u, v;
    struct iotlb_entry *e;
    uint64_t at = IOMMU_ANY, more = IOMMU_ANY;
    assert_int_equal(iworld_map(w, &at, 1, 101, RW), -EDQUOT);
    assert_int_equal(iworld_map(w, &at, 1, 100, RW), 0);
    assert_int_equal(iworld_map(w, &more, 1, 1, RW), -EDQUOT);
    assert_int_equal(iotlb_get(w->tlb[0], at, true, &e), 0);
    iworld_unmap(w, at, 1, &u);
    assert_int_equal(iworld_map(w, &more, 1, 1, RW), -EDQUOT); /* DMA holds it: so does the account */
    iotlb_put(w->tlb[0], e);
    assert_int_equal(iworld_map(w, &more, 1, 1, RW), 0);
    iworld_unmap(w, more, 1, &u);
    iworld_unmap(w, at + 1, 99, &v);
    iworld_close(w);
}

/* A page here and a page there cost tables: a guest that chooses addresses gets no more of them than its limit. */
static void test_sparse_maps_hold_no_more_tables_than_allowed(void **state)
{
    (void)state;
    struct iworld *w = iworld_open(&(struct iworld_setup){.bus_bits = 44, .iotlbs = 1, .limits = {100000, 40}});
    struct iworld_unmap u;
    uint64_t at[30];
    unsigned mapped = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(at); i++) {
        at[mapped] = ((uint64_t)i + 1) << 27 | 77;
        int r = iworld_map(w, &at[mapped], i, 1, RW);
        assert_true(r == 0 || r == -EDQUOT);
        mapped += r == 0;
        assert_true(stats_of(w).tables <= 40);
    }
    assert_int_equal(mapped, (40 - 1) / 3);
    uint64_t beside = at[0] + 1, large = at[0] + 1024 - 77;
    assert_int_equal(iworld_map(w, &beside, 3, 400, RW), 0); /* in a table that is there */
    assert_int_equal(stats_of(w).tables, 40);
    assert_int_equal(iworld_map(w, &large, 1024, IOMMU_LARGE_PAGES, RW), -EDQUOT); /* it could be split */
    for (unsigned i = 0; i < mapped; i++)
        iworld_unmap(w, at[i], 1, &u);
    iworld_unmap(w, beside, 400, &u);
    iworld_close(w); /* asserts that only the root is left */
}

/* A large entry is charged the table that its split would take: the limit never stands in the way of an unmap. */
static void test_a_split_is_never_refused_for_the_limit(void **state)
{
    (void)state;
    enum { LARGE = 8 };
    struct iworld *w = iworld_open(&(struct iworld_setup){.iotlbs = 1, .limits = {100000, 2 + LARGE}});
    struct iworld_unmap u[LARGE], rest[LARGE];
    uint64_t at = IOMMU_LARGE_PAGES, more = IOMMU_ANY;
    assert_int_equal(iworld_map(w, &at, 1024, LARGE * IOMMU_LARGE_PAGES, RW), 0);
    assert_int_equal(stats_of(w).large, LARGE);
    assert_int_equal(iworld_map(w, &more, 1, 1, RW), -EDQUOT);
    for (uint32_t i = 0; i < LARGE; i++) {
        iworld_unmap(w, at + i * IOMMU_LARGE_PAGES, 1, &u[i]);
        assert_true(stats_of(w).tables <= 2 + LARGE);
    }
    for (uint32_t i = 0; i < LARGE; i++)
        iworld_unmap(w, at + i * IOMMU_LARGE_PAGES + 1, IOMMU_LARGE_PAGES - 1, &rest[i]);
    iworld_close(w);
}

/* Whoever walks the tree may still be in a table when its last entry goes. */
static void test_tables_stay_until_the_unmap_that_emptied_them_has_ended(void **state)
{
    (void)state;
    struct iworld *w = iworld_open(&(struct iworld_setup){.bus_bits = 44, .iotlbs = 1});
    struct iworld_unmap u;
    struct iotlb_entry *e;
    uint64_t at = UINT64_C(1) << 30, again = at + 1;
    assert_int_equal(iworld_map(w, &at, 7, 1, RW), 0);
    assert_int_equal(stats_of(w).tables, 4);
    assert_int_equal(iotlb_get(w->tlb[0], at, true, &e), 0);
    iworld_unmap(w, at, 1, &u);
    assert_int_equal(stats_of(w).tables, 4);
    assert_int_equal(iworld_map(w, &again, 8, 1, RW), 0); /* by tables of its own */
    assert_int_equal(stats_of(w).tables, 7);
    iotlb_put(w->tlb[0], e);
    assert_int_equal(u.ended, 1);
    assert_int_equal(stats_of(w).tables, 4);
    assert_int_equal(iworld_look(w, 0, again, true, 8), 0);
    iworld_unmap(w, again, 1, &u);
    iworld_close(w);
}

/* In a process of its own, as what is forbidden stays forbidden. */
static int without_membarrier(void)
{
    static const struct iommu_limits limits = {16, 16};
    struct iworld_holds *holds = calloc(1, sizeof(*holds));
    struct iworld w = {0};
    struct iworld_unmap u = {0};
    struct iotlb_entry *e;
    uint64_t at = IOMMU_ANY;
    if (!membarrier_forbid() || iommu_new(&w.unit) ||
        iommu_space_new(w.unit, 1, 1, 32, IOMMU_STRICT, &limits, &w.space) ||
        iotlb_new(w.space, &iworld_ops, holds, 4, 4, &w.tlb[0]) || iworld_map(&w, &at, 7, 1, RW) ||
        iotlb_get(w.tlb[0], at, true, &e) || iworld_try_unmap(&w, at, 1, &u) || u.ended)
        return 1;
    iotlb_put(w.tlb[0], e);
    iotlb_free(w.tlb[0]);
    iommu_space_free(w.space);
    iommu_free(w.unit);
    free(holds);
    return u.ended == 1 ? 0 : 2;
}

static void test_it_works_where_the_kernel_refuses_membarrier(void **state)
{
    (void)state;
    int status = 0;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(without_membarrier());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_fault_is_put_down_with_its_reason),
        cmocka_unit_test(test_a_device_that_was_detached_reaches_nothing),
        cmocka_unit_test(test_the_log_keeps_the_last_and_counts_all),
        cmocka_unit_test(test_every_reason_has_a_name_and_a_text),
        cmocka_unit_test(test_windows_begin_at_page_1_and_end_where_they_should),
        cmocka_unit_test(test_room_is_the_lowest_and_none_is_none),
        cmocka_unit_test(test_an_unmap_of_what_is_not_all_mapped_does_nothing),
        cmocka_unit_test(test_2_mib_in_a_row_are_one_entry),
        cmocka_unit_test(test_a_part_of_a_large_entry_goes_and_the_rest_stays),
        cmocka_unit_test(test_pages_are_limited_until_their_unmap_has_ended),
        cmocka_unit_test(test_sparse_maps_hold_no_more_tables_than_allowed),
        cmocka_unit_test(test_a_split_is_never_refused_for_the_limit),
        cmocka_unit_test(test_it_works_where_the_kernel_refuses_membarrier),
        cmocka_unit_test(test_tables_stay_until_the_unmap_that_emptied_them_has_ended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
