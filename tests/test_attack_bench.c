/* SPDX-License-Identifier: MIT */
/* The attack bench's table and its verdict: of a real run, whole, and of rows that lose where they must not or do not
 * where they must. tests/attack_check.py says what is looked at. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/bench_run.h"

static void test_a_run_is_reported_whole_and_losing_is_an_error(void **state)
{
    (void)state;
    bench_run("python3 tests/attack_check.py $RESULTS $BUILD");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_run_is_reported_whole_and_losing_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
