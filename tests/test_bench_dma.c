/* SPDX-License-Identifier: MIT */
/* The benchmark of DMA strategies runs: with a tiny file and for moments, so that no figure means anything, each of the
 * build's strategies has a row for a case of each kind. tests/bench_dma_check.py says what whole is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/bench_run.h"
#include "tests/tool.h"

#define KINDS                                                                                      \
    "hot-read-4k-qd1-kept hot-write-64k-qd32-kept direct-read-1m-qd1-kept null-read-4k-qd32-each " \
    "hot-write-4k-qd32-kept hot-write-4k-qd32-cold-touch-kept null-read-4k-qd32-cold-each"
#define LOADS "null-read-4k-qd32-each hot-write-4k-qd32-touch-kept"

static void test_each_strategy_of_the_build_has_a_row_for_each_kind_of_case(void **state)
{
    (void)state;
    bench_run("cases='%s'; CASES=$(echo $cases | tr ' ' ,) SIZE_MIB=8 ROUNDS=2 GOAL_ROUNDS=2 SECONDS_EACH=0.02 "
              "PRIMITIVES=2,256 python3 bench/dma.py && python3 tests/bench_dma_check.py $RESULTS $cases",
              under_tool(NULL) ? LOADS : KINDS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_strategy_of_the_build_has_a_row_for_each_kind_of_case),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
