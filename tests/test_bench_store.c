/* SPDX-License-Identifier: MIT */
/* The benchmark of the store runs: for moments, so that no figure means anything, a case of each kind comes out whole.
 * tests/bench_store_check.py says what whole is. Beside ours the references are measured where they can be had. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/bench_run.h"
#include "tests/tool.h"

static void bench_store(const char *settings)
{
    bench_run("ROUNDS=2 SECONDS_EACH=0.02 %s python3 bench/store.py && python3 tests/bench_store_check.py $RESULTS",
              settings);
}

static void test_each_kind_of_case_is_measured_and_reported_whole(void **state)
{
    (void)state;
    bench_store("PEERS=ours "
                "CASES='read-1,write-1-core,transaction-16,list-16,fan-16,children-10,watches-1000,rings-fan-16,idle'");
}

static void test_a_tree_is_listed_and_weighed(void **state)
{
    (void)state;
    bench_store("PEERS=ours CASES=ls,watches-10000");
}

static void test_the_references_take_turns_with_ours(void **state)
{
    (void)state;
    if (under_tool(NULL))
        skip(); /* it would be the only one under it */
    bench_store("CASES=read-16,rings-read-16");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_kind_of_case_is_measured_and_reported_whole),
        cmocka_unit_test(test_a_tree_is_listed_and_weighed),
        cmocka_unit_test(test_the_references_take_turns_with_ours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
