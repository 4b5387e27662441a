/* SPDX-License-Identifier: MIT */
/* The report says what the results say: of made-up results with figures that nobody could measure, whole, cut and
 * damaged, with gnuplot and without. tests/report_check.py has them, and says what a page must say of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/util.h"
#include "tests/harness.h"

static char said[65536];

static void test_a_page_says_what_the_results_say_and_no_more(void **state)
{
    (void)state;
    const char *source = getenv("DOMZERO_SOURCE");
    if (!source)
        skip(); /* run by hand: the runner says where the tree is */
    struct world w = {.run = "/nonexistent", .dir = "/tmp/dzXXXXXX"};
    assert_non_null(mkdtemp(w.dir));
    int status = world_shell(&w, said, sizeof(said),
                             "cd %s && unset ONLY QUICK RESULTS; python3 tests/report_check.py %s", source, w.dir);
    char gone[4096];
    world_shell(&w, gone, sizeof(gone), "rm -rf %s", w.dir);
    if (status)
        fail_msg("status %d: %s", status, said);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_page_says_what_the_results_say_and_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
