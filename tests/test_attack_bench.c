/* SPDX-License-Identifier: MIT */
/* The attack bench's table and its verdict: of a real run, whole, and of rows that lose where they must not or do not
 * where they must. tests/attack_check.py says what is looked at. */
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

static void test_a_run_is_reported_whole_and_losing_is_an_error(void **state)
{
    (void)state;
    const char *source = getenv("DOMZERO_SOURCE"), *build = getenv("DOMZERO_BUILD");
    if (!source || !build)
        skip(); /* run by hand: the runner says where the tree is */
    struct world w = {.run = "/nonexistent", .dir = "/tmp/dzXXXXXX"};
    assert_non_null(mkdtemp(w.dir));
    int status =
        world_shell(&w, said, sizeof(said), "cd %s && python3 tests/attack_check.py %s %s", source, w.dir, build);
    char gone[4096];
    world_shell(&w, gone, sizeof(gone), "rm -rf %s", w.dir);
    if (status)
        fail_msg("status %d: %s", status, said);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_run_is_reported_whole_and_losing_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
