/* SPDX-License-Identifier: MIT */
/* The torture jobs of scripts/torture.sh in their short form: a disk under load, whose backend is killed every two
 * seconds, has every byte that was written; an ext4 survives cuts of the power. `make check-torture` is the long form.
 * Skipped where the script says what is missing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "tests/harness.h"

#define SKIPPED 77

static void torture(const char *job)
{
    static const struct world nowhere;
    static char said[8192];
    const char *build = getenv("DOMZERO_BUILD"), *source = getenv("DOMZERO_SOURCE");
    int status = world_shell(&nowhere, said, sizeof(said), "BUILD=%s %s/scripts/torture.sh %s short",
                             build ? build : "build", source ? source : ".", job);
    print_message("%s", said);
    if (status == SKIPPED)
        skip();
    assert_int_equal(status, 0);
}

static void test_what_fio_wrote_verifies_while_the_backend_is_killed_again_and_again(void **state)
{
    (void)state;
    torture("fio");
}

static void test_an_ext4_on_the_disk_is_whole_while_the_backend_is_killed_again_and_again(void **state)
{
    (void)state;
    torture("ext4");
}

static void test_an_ext4_is_whole_after_each_cut_of_the_power_with_all_files_that_were_synced(void **state)
{
    (void)state;
    torture("cuts");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_fio_wrote_verifies_while_the_backend_is_killed_again_and_again),
        cmocka_unit_test(test_an_ext4_on_the_disk_is_whole_while_the_backend_is_killed_again_and_again),
        cmocka_unit_test(test_an_ext4_is_whole_after_each_cut_of_the_power_with_all_files_that_were_synced),
    };
    return cmocka_run_group_tests_name("torture", tests, NULL, NULL);
}
