/* SPDX-License-Identifier: MIT */
/* A whole dom0 whose store role is killed: guests' I/O goes on, the blk role and the toolstack go on, what was said
 * before is known after, and a domain that died meanwhile is forgotten. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/util.h"
#include "platform/platform.h"
#include "tests/live_load.h"

static struct world world;

struct role_killed {
    pid_t pid;
};

static int setup(void **state)
{
    (void)state;
    world_start(&world, NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    world_stop(&world);
    return 0;
}

static bool store_is_another(void *ctx)
{
    const struct role_killed *killed = ctx;
    pid_t now = world_role(&world, "store");
    return now && now != killed->pid;
}

/* kill -9 of the store role; returns when the supervisor has started another. */
static void store_kill(void)
{
    struct role_killed killed = {world_role(&world, "store")};
    assert_true(killed.pid > 0);
    assert_int_equal(kill(killed.pid, SIGKILL), 0);
    world_await(store_is_another, &killed, "the supervisor restarts store");
}

static void shell_is(const char *command_line, const char *wanted)
{
    char out[4096];
    if (world_shell(&world, out, sizeof(out), "%s", command_line) != 0 || strcmp(out, wanted) != 0)
        fail_msg("%s: '%s', wanted '%s'", command_line, out, wanted);
}

static void test_what_was_written_is_there_after_kill_9(void **state)
{
    (void)state;
    shell_is("xenstore-write /a/b/c hello /a/b/d there && xenstore-chmod /a/b n0 r3", "");
    store_kill();
    world_await(world_serves, &world, "the store serves again"); /* Debian's tools do not wait for it */
    shell_is("xenstore-read /a/b/c", "hello\n");
    shell_is("xenstore-ls -p /a | sed 's/  *[. ]* (/ (/'",
             "b = \"\" (n0,r3)\n c = \"hello\" (n0)\n d = \"there\" (n0)\n");
}

static void test_guests_io_goes_on_and_the_toolstack_as_well(void **state)
{
    struct load a, b;
    (void)state;
    load_start(&a, &world, "a", "direct-io=1");
    pid_t blk = world_role(&world, "blk");
    for (unsigned i = 0; i < 3; i++) {
        load_goes_on(&a);
        store_kill();
        load_goes_on(&a);
    }
    /* What is new is seen, what is asked of a disk that runs is done, what goes is seen to go. */
    load_start(&b, &world, "b", "direct-io=1");
    command(&a, "block-set %s xvda", "iops=100000");
    load_resize(&a, 2 * MIB);
    store_kill();
    load_resize(&a, 3 * MIB);
    load_goes_on(&b);
    load_stop(&b);
    load_end(&b);
    load_stop(&a);
    assert_int_equal(a.errors, 0);
    load_end(&a);
    assert_int_equal(world_role(&world, "blk"), blk);
    shell_is("xenstore-list /local/domain | wc -l", "1\n");
}

/* The blk role is killed together with the store: neither waits for the other for ever. */
static void test_blk_and_store_are_killed_together(void **state)
{
    struct load a;
    (void)state;
    load_start(&a, &world, "a", "direct-io=1");
    kill(world_role(&world, "blk"), SIGKILL);
    store_kill();
    load_goes_on(&a);
    load_stop(&a);
    assert_int_equal(a.errors, 0);
    load_end(&a);
}

static void test_a_domain_that_died_meanwhile_is_forgotten(void **state)
{
    char out[512], command_line[256];
    struct platform *p;
    struct err e = {""};
    (void)state;
    world_image(&world, "d.img", MIB, 1);
    unsigned domid = world_guest(&world, "d", "d.img", NULL);
    snprintf(command_line, sizeof(command_line), "xenstore-exists /local/domain/%u/data", domid);
    assert_int_equal(world_shell(&world, out, sizeof(out), "%s", command_line), 0);
    const struct platform_where where = {.run_dir = world.run};
    assert_int_equal(platform_open(NULL, &where, NULL, &p, &e), 0);
    kill(world.daemon, SIGSTOP); /* nobody restarts the store before the domain is gone */
    struct role_killed killed = {world_role(&world, "store")};
    kill(killed.pid, SIGKILL);
    assert_int_equal(platform_domain_destroy(p, (uint16_t)domid, &e), 0);
    kill(world.daemon, SIGCONT);
    world_await(store_is_another, &killed, "the supervisor restarts store");
    platform_close(p);
    world_await(world_serves, &world, "the store serves again");
    assert_int_not_equal(world_shell(&world, out, sizeof(out), "%s", command_line), 0);
    char socket[128];
    struct stat st;
    snprintf(socket, sizeof(socket), "%s/dom/%u/xenstored.sock", world.run, domid);
    assert_int_not_equal(stat(socket, &st), 0);
    world_domzero(&world, out, sizeof(out), "destroy d");
}

static void test_a_new_daemon_knows_nothing_of_the_old_ones_domains(void **state)
{
    char out[512];
    (void)state;
    shell_is("xenstore-write /left behind", "");
    pid_t pid[] = {world.daemon, world_role(&world, "blk"), world_role(&world, "store"),
                   world_role(&world, "hypervisor")};
    kill(pid[0], SIGKILL); /* first: nobody restarts the others */
    for (size_t i = 1; i < ARRAY_SIZE(pid); i++)
        kill(pid[i], SIGKILL);
    world_wait(pid[0]);
    world_daemon_start(&world, NULL);
    world_await(world_serves, &world, "the new daemon serves");
    assert_int_not_equal(world_shell(&world, out, sizeof(out), "xenstore-exists /left"), 0);
}

int main(void)
{
#define RESTART_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        RESTART_TEST(test_what_was_written_is_there_after_kill_9),
        RESTART_TEST(test_guests_io_goes_on_and_the_toolstack_as_well),
        RESTART_TEST(test_blk_and_store_are_killed_together),
        RESTART_TEST(test_a_domain_that_died_meanwhile_is_forgotten),
        RESTART_TEST(test_a_new_daemon_knows_nothing_of_the_old_ones_domains),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
