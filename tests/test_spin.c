/* SPDX-License-Identifier: MIT */
/* The window of a spin: full while it pays, nothing while it does not, and never given up for good. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/spin.h"

#define CAP_NS 50000u

static void test_a_spin_that_pays_keeps_its_whole_window(void **state)
{
    struct spin s;
    (void)state;
    spin_init(&s, CAP_NS);
    for (unsigned i = 0; i < 1000; i++) {
        assert_int_equal(spin_window_ns(&s), CAP_NS);
        spin_learn(&s, true);
    }
}

static uint64_t looked_in_vain_ns(struct spin *s, unsigned sleeps)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < sleeps; i++) {
        uint64_t window = spin_window_ns(s);
        sum += window;
        if (window)
            spin_learn(s, false);
    }
    return sum;
}

static void test_spins_in_vain_come_to_a_window_in_a_thousand_sleeps(void **state)
{
    struct spin s;
    (void)state;
    spin_init(&s, CAP_NS);
    assert_true(looked_in_vain_ns(&s, 4096) <= CAP_NS * 10);
    assert_true(looked_in_vain_ns(&s, 64 * SPIN_RETRY_MAX) <= (uint64_t)CAP_NS * 64);
}

static void test_one_success_brings_all_back(void **state)
{
    struct spin s;
    (void)state;
    spin_init(&s, CAP_NS);
    looked_in_vain_ns(&s, 100000);
    unsigned sleeps = 0;
    while (!spin_window_ns(&s))
        sleeps++;
    assert_true(sleeps < SPIN_RETRY_MAX);
    spin_learn(&s, true);
    assert_int_equal(spin_window_ns(&s), CAP_NS);
    assert_int_equal(s.retry, SPIN_RETRY_MIN);
}

static void test_no_cap_is_no_spin(void **state)
{
    struct spin s;
    (void)state;
    spin_init(&s, 0);
    for (unsigned i = 0; i < 10 * SPIN_RETRY_MAX; i++)
        assert_int_equal(spin_window_ns(&s), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_spin_that_pays_keeps_its_whole_window),
        cmocka_unit_test(test_spins_in_vain_come_to_a_window_in_a_thousand_sleeps),
        cmocka_unit_test(test_one_success_brings_all_back),
        cmocka_unit_test(test_no_cap_is_no_spin),
    };
    return cmocka_run_group_tests_name("spin", tests, NULL, NULL);
}
