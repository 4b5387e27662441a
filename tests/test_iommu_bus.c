/* SPDX-License-Identifier: MIT */
/* Bus addresses: what is taken is not given twice, room is found where there is some, as a bitmap has it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "grant/iommu_bus.h"
#include "tests/random.h"

#define PAGES 512u

struct bitmap {
    bool taken[PAGES];
};

static bool all_free(const struct bitmap *m, uint64_t first, uint64_t count)
{
    for (uint64_t p = first; p < first + count; p++)
        if (!p || p >= PAGES || m->taken[p])
            return false;
    return true;
}

static uint64_t lowest(const struct bitmap *m, uint64_t count, uint64_t align)
{
    for (uint64_t p = align; align > 1 && p + count <= PAGES; p += align)
        if (all_free(m, p, count))
            return p;
    for (uint64_t p = 1; align == 1 && p + count <= PAGES; p++)
        if (all_free(m, p, count))
            return p;
    return 0;
}

static void mark(struct bitmap *m, uint64_t first, uint64_t count, bool taken)
{
    for (uint64_t p = first; p < first + count; p++)
        m->taken[p] = taken;
}

/* The widest hole, so that an aligned search that passes narrow ones by can be judged. */
static uint64_t widest(const struct bitmap *m)
{
    uint64_t best = 0, run = 0;
    for (uint64_t p = 1; p < PAGES; p++) {
        run = m->taken[p] ? 0 : run + 1;
        best = MAX(best, run);
    }
    return best;
}

static void look_for_room(const struct iommu_bus *b, const struct bitmap *m, uint64_t count, uint64_t align)
{
    uint64_t at = bus_find(b, count, align), least = lowest(m, count, align);
    if (align == 1)
        assert_int_equal(at, least);
    else if (at)
        assert_true(at % align == 0 && all_free(m, at, count));
    else
        assert_true(!least || widest(m) < count + align - 1);
}

static void test_ranges_are_as_a_bitmap_has_them(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        struct iommu_bus b;
        struct bitmap m = {{0}};
        uint64_t random = seed;
        bus_init(&b, PAGES);
        for (unsigned i = 0; i < 20000; i++) {
            uint64_t count = 1 + random_next(&random) % (seed % 2 ? 4 : 40), first = random_next(&random) % PAGES;
            if (random_next(&random) % 4 == 0)
                first = MAX(bus_find(&b, count, 1), 1);
            if (!first || first + count > PAGES)
                continue;
            look_for_room(&b, &m, count, random_next(&random) % 2 ? 1 : 16);
            assert_int_equal(bus_free(&b, first, count), all_free(&m, first, count));
            uint64_t taken = 0;
            while (taken < count && m.taken[first + taken])
                taken++;
            if (all_free(&m, first, count)) {
                assert_int_equal(bus_take(&b, first, count), 0);
                mark(&m, first, count, true);
            } else if (taken) {
                assert_int_equal(bus_cut(&b, first, taken), 0);
                bus_give(&b, first, taken);
                mark(&m, first, taken, false);
            }
        }
        bus_deinit(&b);
    }
}

static void test_a_full_window_has_no_room_and_page_0_is_none(void **state)
{
    (void)state;
    struct iommu_bus b;
    bus_init(&b, PAGES);
    assert_int_equal(bus_find(&b, PAGES, 1), 0);
    assert_int_equal(bus_find(&b, PAGES - 1, 1), 1);
    assert_int_equal(bus_find(&b, UINT32_MAX, 1), 0);
    assert_int_equal(bus_take(&b, 1, PAGES - 1), 0);
    assert_int_equal(bus_find(&b, 1, 1), 0);
    assert_int_equal(bus_cut(&b, PAGES - 1, 1), 0);
    bus_give(&b, PAGES - 1, 1);
    assert_int_equal(bus_find(&b, 1, 1), PAGES - 1);
    assert_int_equal(bus_find(&b, 2, 1), 0);
    bus_deinit(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranges_are_as_a_bitmap_has_them),
        cmocka_unit_test(test_a_full_window_has_no_room_and_page_0_is_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
