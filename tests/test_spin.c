/* SPDX-License-Identifier: MIT */
/* Whether to look before a sleep: always while it pays, next to never where it does not, and never given up for good.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/spin.h"

#define CAP_NS  100000u
#define LONG_NS (10u * CAP_NS)
#define SOON_NS 5000u

/* So many waits, each of which brings something after gap(i); whether a looker sees it is `fair`: on a processor that
 * both ends share nothing comes while it looks, and then at once. Returns how many looks there were. */
static unsigned waits(struct spin *s, unsigned count, uint64_t (*gap)(unsigned i), bool fair)
{
    unsigned looks = 0;
    for (unsigned i = 0; i < count; i++) {
        uint64_t window = spin_window_ns(s), gap_ns = gap(i);
        bool paid = window && fair && gap_ns < window;
        if (window) {
            looks++;
            spin_learn(s, paid);
        }
        if (!paid)
            spin_slept(s, fair ? gap_ns - (window < gap_ns ? window : gap_ns) : gap_ns);
    }
    return looks;
}

static uint64_t short_gap(unsigned i)
{
    return SOON_NS + i % 7;
}

static uint64_t long_gap(unsigned i)
{
    return LONG_NS + i % 7;
}

/* What a Poisson process of one in ten windows has: each tenth is short, here and there two in a row. */
static uint64_t seldom_short_gap(unsigned i)
{
    return i % 10 == 3 || i % 130 == 4 ? SOON_NS : LONG_NS;
}

static uint64_t seldom_long_gap(unsigned i)
{
    return i % 8 == 3 ? LONG_NS : SOON_NS;
}

static void test_looks_that_pay_go_on(void **state)
{
    struct spin s;
    (void)state;
    spin_init(&s, CAP_NS);
    assert_int_equal(spin_window_ns(&s), CAP_NS);
    assert_int_equal(waits(&s, 1000, short_gap, true), 1000);
}

static void test_a_long_wait_here_and_there_costs_one_look_and_no_more(void **state)
{
    struct spin s;
    (void)state;
    spin_init(&s, CAP_NS);
    waits(&s, 100, short_gap, true);
    assert_int_equal(waits(&s, 10000, seldom_long_gap, true), 10000);
}

static void test_at_a_low_rate_it_looks_once_in_a_thousand_sleeps(void **state)
{
    struct spin s;
    (void)state;
    spin_init(&s, CAP_NS);
    assert_in_range(waits(&s, 64 * SPIN_RETRY_MAX, long_gap, true), 32, 66);
    assert_in_range(waits(&s, 64 * SPIN_RETRY_MAX, seldom_short_gap, true), 32, 66 * 2);
}

static void test_ends_that_share_a_processor_lose_a_look_in_a_thousand_sleeps(void **state)
{
    struct spin s;
    (void)state;
    spin_init(&s, CAP_NS);
    waits(&s, 100, short_gap, true); /* then both are put on one */
    assert_true(waits(&s, 4096, short_gap, false) <= 16);
    assert_in_range(waits(&s, 64 * SPIN_RETRY_MAX, short_gap, false), 32, 66);
}

/* Seventeen ends on one processor: each looks once, all know it after that. */
static void test_new_ends_that_share_a_processor_lose_a_look_each(void **state)
{
    unsigned looks = 0;
    (void)state;
    for (unsigned i = 0; i < 17; i++) {
        struct spin s;
        spin_init(&s, CAP_NS);
        looks += waits(&s, SPIN_RETRY_MIN, short_gap, false);
    }
    assert_int_equal(looks, 17);
}

/* Processors are taken away and given back so that as few looks pay as leave it on. */
static void test_whatever_comes_one_look_of_four_is_in_vain_at_the_most(void **state)
{
    const unsigned count = 100000;
    unsigned vain = 0;
    struct spin s;
    (void)state;
    spin_init(&s, CAP_NS);
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(spin_window_ns(&s), CAP_NS);
        struct spin missed = s;
        spin_learn(&missed, false);
        vain += missed.on;
        spin_learn(&s, !missed.on);
        assert_true(s.on);
    }
    assert_in_range(vain, count / 8, count / 4);
}

/* On such a processor most sleeps end soon, so it is tried again; where each trial's first look pays, by chance, and no
 * other, it still sleeps nearly always. */
static void test_chance_hits_on_a_shared_processor_keep_nobody_looking(void **state)
{
    const unsigned count = 64 * SPIN_RETRY_MAX;
    unsigned looks = 0;
    bool lucky = true;
    struct spin s;
    (void)state;
    spin_init(&s, CAP_NS);
    for (unsigned i = 0; i < count; i++) {
        bool look = spin_window_ns(&s), paid = look && lucky;
        lucky = !look || !lucky;
        looks += look;
        if (look)
            spin_learn(&s, paid);
        if (!paid)
            spin_slept(&s, SOON_NS);
    }
    assert_in_range(looks, 64, count / 100);
}

static void test_ends_that_part_find_each_other_again(void **state)
{
    struct spin s;
    (void)state;
    spin_init(&s, CAP_NS);
    waits(&s, 100000, short_gap, false);
    waits(&s, SPIN_RETRY_MAX, short_gap, true);
    assert_int_equal(waits(&s, 1000, short_gap, true), 1000);
    assert_int_equal(s.retry, SPIN_RETRY_MIN);
}

/* After a quiet time the first tries come soon: most sleeps are short again. */
static void test_a_load_that_grows_is_noticed(void **state)
{
    struct spin s;
    (void)state;
    spin_init(&s, CAP_NS);
    waits(&s, 100000, long_gap, true);
    waits(&s, SPIN_RETRY_MAX + 16, short_gap, true);
    assert_int_equal(waits(&s, 1000, short_gap, true), 1000);
}

static void test_no_cap_is_no_look(void **state)
{
    struct spin s;
    (void)state;
    spin_init(&s, 0);
    assert_int_equal(waits(&s, 10 * SPIN_RETRY_MAX, short_gap, true), 0);
    assert_int_equal(waits(&s, 10 * SPIN_RETRY_MAX, long_gap, true), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_looks_that_pay_go_on),
        cmocka_unit_test(test_a_long_wait_here_and_there_costs_one_look_and_no_more),
        cmocka_unit_test(test_at_a_low_rate_it_looks_once_in_a_thousand_sleeps),
        cmocka_unit_test(test_ends_that_share_a_processor_lose_a_look_in_a_thousand_sleeps),
        cmocka_unit_test(test_new_ends_that_share_a_processor_lose_a_look_each),
        cmocka_unit_test(test_whatever_comes_one_look_of_four_is_in_vain_at_the_most),
        cmocka_unit_test(test_chance_hits_on_a_shared_processor_keep_nobody_looking),
        cmocka_unit_test(test_ends_that_part_find_each_other_again),
        cmocka_unit_test(test_a_load_that_grows_is_noticed),
        cmocka_unit_test(test_no_cap_is_no_look),
    };
    return cmocka_run_group_tests_name("spin", tests, NULL, NULL);
}
