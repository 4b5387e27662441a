/* SPDX-License-Identifier: MIT */
/* The store asked the same as Xen's two, xenstored in C and oxenstored (scripts/peer-store.sh), thousands of things,
 * malformed ones too, by domain 0 and by three guests: tests/peers/store_diff.py, in which each difference must have
 * its row. Skipped with the script's reason where they cannot be had. STORE_DIFF_STEPS and STORE_DIFF_SEED are another
 * script. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "tests/harness.h"

#define SKIPPED 77

static const char *setting(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return value ? value : otherwise;
}

static void difference(const char *servers, const char *steps)
{
    static const struct world nowhere;
    static char said[65536];
    const char *build = setting("DOMZERO_BUILD", "build"), *source = setting("DOMZERO_SOURCE", ".");
    if (world_shell(&nowhere, said, sizeof(said), "%s/scripts/peer-store.sh fetch 2>&1", source) == SKIPPED) {
        print_message("skipped: %s", said);
        skip();
    }
    int status =
        world_shell(&nowhere, said, sizeof(said),
                    "dir=$(mktemp -d) && BUILD=%s python3 %s/tests/peers/store_diff.py $dir/stores --servers %s "
                    "--steps %s --seed %s 2>&1; status=$?; rm -rf \"$dir\"; exit $status",
                    build, source, servers, setting("STORE_DIFF_STEPS", steps), setting("STORE_DIFF_SEED", "1"));
    printf("%s", said);
    assert_int_equal(status, 0);
}

static void test_each_difference_from_xenstored_is_explained(void **state)
{
    (void)state;
    difference("ours,c", "3000");
}

static void test_each_difference_between_three_servers_is_explained(void **state)
{
    (void)state;
    difference("ours,c,ocaml,ours-ocaml", "1000");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_difference_from_xenstored_is_explained),
        cmocka_unit_test(test_each_difference_between_three_servers_is_explained),
    };
    return cmocka_run_group_tests_name("store_diff", tests, NULL, NULL);
}
