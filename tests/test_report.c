/* SPDX-License-Identifier: MIT */
/* The report says what the results say: of made-up results with figures that nobody could measure, whole, cut and
 * damaged, with gnuplot and without. tests/report_check.py has them, and says what a page must say of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/bench_run.h"

static void test_a_page_says_what_the_results_say_and_no_more(void **state)
{
    (void)state;
    bench_run("here=$RESULTS; unset RESULTS; python3 tests/report_check.py $here");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_page_says_what_the_results_say_and_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
