/* SPDX-License-Identifier: MIT */
/* The guest library where the kernel has no membarrier(), or a filter forbids it: gates are mutexes from the beginning.
 * The tests of threads, reconnects, unusual and late requests run again, each in a process that gets ENOSYS for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/harness.h"
#include "tests/no_membarrier.h"

static void runs_without_membarrier(const char *test)
{
    const char *program = world_program(test);
    int status = 0;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(open("/dev/null", O_WRONLY), 1); /* what passes there is not counted here; failures are on stderr */
        if (membarrier_forbid())
            execl(program, program, (char *)NULL);
        _exit(127);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_threads_and_queues(void **state)
{
    (void)state;
    runs_without_membarrier("tests/test_blkfront_queues");
}

static void test_reconnects(void **state)
{
    (void)state;
    runs_without_membarrier("tests/test_blkfront_reconnect");
}

static void test_unusual_requests(void **state)
{
    (void)state;
    runs_without_membarrier("tests/test_blkfront_unusual");
}

static void test_late_requests(void **state)
{
    (void)state;
    runs_without_membarrier("tests/test_blkfront_late");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads_and_queues),
        cmocka_unit_test(test_reconnects),
        cmocka_unit_test(test_unusual_requests),
        cmocka_unit_test(test_late_requests),
    };
    return cmocka_run_group_tests_name("blkfront_fallback", tests, NULL, NULL);
}
