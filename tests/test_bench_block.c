/* SPDX-License-Identifier: MIT */
/* The benchmark runs: with a tiny file and for moments, so that no figure means anything, a case of each kind comes out
 * whole, in all of its forms, with all peers that are installed. tests/bench_block_check.py says what whole is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/bench_run.h"
#include "tests/tool.h"

#define KINDS                                                                                                          \
    "hot-read-qd1 hot-write-qd32 two-queues-qd32 one-core-qd1 hog-qd1 seq-read-qd8 direct-read-qd32 tmpfs-write-qd32 " \
    "null-qd32 "                                                                                                       \
    "idle-disks"
#define LOADS "hot-write-qd32 two-queues-qd32 null-qd32 idle-disks" /* of these, one for each program of ours */

static void test_each_kind_of_case_is_measured_and_reported_whole(void **state)
{
    (void)state;
    struct rlimit may_lock;
    getrlimit(RLIMIT_MEMLOCK, &may_lock);
    if (geteuid() && may_lock.rlim_cur < 64u << 20) {
        print_message(
            "the kernel gives locked memory back after a process has ended: an ordinary user's 8 MiB are soon "
            "used up by one measurement after the other\n");
        skip();
    }
    bench_run("cases='%s'; CASES=$(echo $cases | tr ' ' ,) SIZE_MIB=8 ROUNDS=1 SECONDS_EACH=0.02 IDLE_DISKS=3 "
              "python3 bench/block.py && python3 tests/bench_block_check.py $RESULTS $cases",
              under_tool(NULL) ? LOADS : KINDS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_kind_of_case_is_measured_and_reported_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
