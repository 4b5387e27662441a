/* SPDX-License-Identifier: MIT */
/* The ticker: never back, and close to the clock that it saves readings of. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/ticker.h"

#define READINGS 300000

static void test_readings_never_go_back(void **state)
{
    (void)state;
    struct ticker t;
    ticker_init(&t);
    uint64_t before = ticker_now_ns(&t);
    for (unsigned i = 0; i < READINGS; i++) {
        uint64_t now = ticker_now_ns(&t);
        assert_true(now >= before);
        before = now;
    }
}

/* Each reading lies between two of the clock, give or take what a rate can be off over a millisecond. A thread that is
 * put off only makes the span between the two wider. */
static void test_a_reading_lies_between_two_of_the_clock(void **state)
{
    (void)state;
    struct ticker t;
    ticker_init(&t);
    for (unsigned i = 0; i < READINGS; i++) {
        uint64_t before = clock_now_ns(), now = ticker_now_ns(&t), after = clock_now_ns();
        assert_true(now + TICKER_SYNC_NS / 50 >= before);
        assert_true(now <= after + TICKER_SYNC_NS / 50);
    }
}

/* A counter that went backwards, or stood still, as after a move to another machine. */
static void test_a_counter_that_jumps_is_not_believed(void **state)
{
    (void)state;
    struct ticker t;
    ticker_init(&t);
    for (unsigned i = 0; i < READINGS; i++)
        ticker_now_ns(&t);
    const uint64_t jump[] = {1ull << 50, -(1ull << 50), UINT64_MAX / 2};
    for (unsigned i = 0; i < sizeof(jump) / sizeof(jump[0]); i++) {
        t.sync_ticks += jump[i];
        uint64_t before = clock_now_ns(), now = ticker_now_ns(&t);
        assert_true(now + TICKER_SYNC_NS >= before);
        assert_true(now <= clock_now_ns() + TICKER_SYNC_NS);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_readings_never_go_back),
        cmocka_unit_test(test_a_reading_lies_between_two_of_the_clock),
        cmocka_unit_test(test_a_counter_that_jumps_is_not_believed),
    };
    return cmocka_run_group_tests_name("ticker", tests, NULL, NULL);
}
