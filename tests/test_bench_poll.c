/* SPDX-License-Identifier: MIT */
/* The benchmark of interrupts and polling runs: for moments, so that no figure means anything, a load of each kind
 * comes out whole, as JSON and as Markdown. tests/bench_poll_check.py says what whole is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/bench_run.h"
#include "tests/tool.h"

static void bench_poll(const char *settings, const char *wanted)
{
    bench_run("SIZE_MIB=8 ROUNDS=2 BESIDE=1 SECONDS_EACH=0.02 %s python3 bench/poll.py && "
              "python3 tests/bench_poll_check.py $RESULTS %s",
              settings, wanted);
}

static void test_each_kind_of_load_is_measured_and_reported_whole(void **state)
{
    (void)state;
    bench_poll("STORAGE=null LOADS='idle-1d-*,closed-qd1-1d-*,poisson-1000-1d-*,burst-32000-1d-*'",
               "idle closed-qd1 poisson burst");
}

static void test_files_and_sixteen_guests_are_served_too(void **state)
{
    (void)state;
    if (under_tool(NULL))
        skip(); /* sixteen guests' starts are all that it would measure */
    bench_poll("STORAGE=hot MODES=adaptive LOADS='closed-qd32-16d-*,poisson-10000-16d-*'", "closed-qd32 poisson");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_kind_of_load_is_measured_and_reported_whole),
        cmocka_unit_test(test_files_and_sixteen_guests_are_served_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
