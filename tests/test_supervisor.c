/* SPDX-License-Identifier: MIT */
/* The daemon when things go wrong around it: it is killed and started again at once, and it runs out of descriptors in
 * the moment in which a role has to be restarted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/harness.h"

static struct world world;

static bool blk_is_another(void *ctx)
{
    pid_t now = world_role(&world, "blk");
    return now > 0 && now != *(pid_t *)ctx;
}

/* As they end, the roles of a killed daemon remove their sockets: by then these must not be its successor's. */
static void test_a_successor_waits_until_the_roles_of_a_killed_daemon_are_gone(void **state)
{
    (void)state;
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0); /* they become our children, and end for us to see */
    world_start(&world, NULL);
    pid_t slow = world_role(&world, "hypervisor");
    assert_int_equal(kill(slow, SIGSTOP), 0);
    assert_int_equal(kill(world.daemon, SIGKILL), 0);
    assert_int_equal(world_wait(world.daemon), 128 + SIGKILL);
    world_daemon_start(&world, NULL);
    poll(NULL, 0, 300);
    assert_int_equal(waitpid(world.daemon, NULL, WNOHANG), 0); /* waits, and does not refuse */
    assert_int_equal(kill(slow, SIGCONT), 0);
    assert_int_equal(world_wait(slow), 0);
    world_await(world_serves, &world, "the successor serves");
    world_stop(&world);
}

static void descriptors_limit(pid_t pid, rlim_t most)
{
    struct rlimit limit;
    assert_int_equal(prlimit(pid, RLIMIT_NOFILE, NULL, &limit), 0);
    limit.rlim_cur = most;
    assert_int_equal(prlimit(pid, RLIMIT_NOFILE, &limit, NULL), 0);
}

static void test_a_restart_that_fails_is_tried_again(void **state)
{
    (void)state;
    world_start(&world, NULL);
    world_image(&world, "disk.img", 1 << 20, 1);
    world_guest(&world, "vm", "disk.img", NULL); /* so blk serves, and the daemon has heard of it */
    pid_t blk = world_role(&world, "blk");
    descriptors_limit(world.daemon, 4);
    assert_int_equal(kill(blk, SIGKILL), 0);
    poll(NULL, 0, 300);
    assert_int_equal(waitpid(world.daemon, NULL, WNOHANG), 0);
    descriptors_limit(world.daemon, 1024);
    world_await(blk_is_another, &blk, "blk is restarted");
    world_stop(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_successor_waits_until_the_roles_of_a_killed_daemon_are_gone),
        cmocka_unit_test(test_a_restart_that_fails_is_tried_again),
    };
    return cmocka_run_group_tests_name("supervisor", tests, NULL, NULL);
}
