/* SPDX-License-Identifier: MIT */
/* A whole dom0 with several reactors: the option reaches the role, queues are spread, the numbers say so, and the
 * threads sleep while nothing is to be done. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include <dirent.h>

#include "tests/harness.h"
#include "tests/mqguest.h"

#define REACTORS 3

static struct world world;

static int setup(void **state)
{
    (void)state;
    world_start(&world, "--reactors=3");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    world_stop(&world);
    return 0;
}

/* A domain with one disk, and a guest with so many queues of it. */
static void guest_start(struct mqguest *m, struct mqloads *l, const char *name, unsigned queues)
{
    char image[64], dir[128];
    snprintf(image, sizeof(image), "%s.img", name);
    world_image(&world, image, MQLOAD_DISK_BYTES(KEYS_BLK_QUEUES_MAX), 1);
    unsigned domid = world_guest(&world, name, image, "max-queues=16");
    snprintf(dir, sizeof(dir), "%s/dom/%u", world.run, domid);
    memset(l, 0, sizeof(*l));
    mqguest_open(m, dir, BLKWORLD_DEVID);
    mqguest_connect(m, queues, 0);
}

static void guest_end(struct mqguest *m, const char *name)
{
    char out[512];
    mqguest_close(m);
    if (world_domzero(&world, out, sizeof(out), "destroy %s", name))
        fail_msg("%s", out);
}

static unsigned count_of(const char *text, const char *word)
{
    unsigned n = 0;
    for (const char *p = text; (p = strstr(p, word)); p += strlen(word))
        n++;
    return n;
}

static void test_statistics_show_each_queue_and_its_reactor(void **state)
{
    static char out[256 << 10];
    static struct mqguest m;
    static struct mqloads l;
    (void)state;
    guest_start(&m, &l, "several", 6);
    mqloads_start(&l, &m, 100);
    mqloads_join(&l);
    assert_int_equal(world_domzero(&world, out, sizeof(out), "block-stats --json"), 0);
    char *queues = strstr(out, "\"queues\": [");
    assert_non_null(queues);
    assert_non_null(strstr(out, "\"queues\": 6"));
    assert_int_equal(count_of(queues, "\"queue\": "), 6);
    for (unsigned i = 0; i < REACTORS; i++) {
        char word[32];
        snprintf(word, sizeof(word), "\"reactor\": %u,", i);
        assert_int_equal(count_of(queues, word), 2);
    }
    assert_int_equal(world_shell(&world, out, sizeof(out), "%s --run-dir %s block-stats --json | python3 -m json.tool",
                                 world_program("domzero"), world.run),
                     0);
    assert_int_equal(world_domzero(&world, out, sizeof(out), "block-stats several xvda"), 0);
    assert_non_null(strstr(out, "reactor"));
    assert_int_equal(world_domzero(&world, out, sizeof(out), "block-stats --prometheus"), 0);
    assert_int_equal(count_of(out, "domzero_block_requests_total{"), 1);
    assert_int_equal(count_of(out, "domzero_block_queues{"), 1);
    mqguest_disconnect(&m);
    assert_int_equal(world_domzero(&world, out, sizeof(out), "block-stats --json"), 0);
    assert_non_null(strstr(out, "\"queues\": []"));
    guest_end(&m, "several");
}

/* Ticks of all threads of the blk role. */
static unsigned long role_ticks(void)
{
    char path[64];
    unsigned long user = 0, kernel = 0;
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)world_role(&world, "blk"));
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &kernel), 2);
    fclose(f);
    return user + kernel;
}

static unsigned role_threads(void)
{
    char path[64];
    unsigned n = 0;
    snprintf(path, sizeof(path), "/proc/%d/task", (int)world_role(&world, "blk"));
    DIR *d = opendir(path);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static bool rests(void *ctx)
{
    (void)ctx;
    unsigned long before = role_ticks();
    usleep(300000);
    return role_ticks() == before; /* a tick is 10 ms: a thread that spins has 30 of them */
}

static void test_reactors_with_connected_queues_and_nothing_to_do_sleep(void **state)
{
    static struct mqguest m;
    static struct mqloads l;
    (void)state;
    guest_start(&m, &l, "idle", 16);
    mqloads_start(&l, &m, 100);
    mqloads_join(&l);
    assert_true(role_threads() >= 1 + REACTORS); /* io_uring's workers show too */
    world_await(rests, NULL, "the reactors to rest");
    mqloads_verify(&l, &m);
    mqguest_disconnect(&m);
    guest_end(&m, "idle");
}

/* The supervisor tells the next one too. */
static void test_a_role_that_is_started_again_has_as_many_reactors(void **state)
{
    static struct mqguest m;
    static struct mqloads l;
    (void)state;
    guest_start(&m, &l, "again", 4);
    mqloads_start(&l, &m, 0);
    mqloads_await(&l, 100);
    world_kill_blk(&world);
    mqloads_stop(&l);
    mqguest_rings_end(&m, true);
    mqguest_connect(&m, 4, 0);
    assert_true(role_threads() >= 1 + REACTORS);
    mqloads_verify(&l, &m);
    mqguest_disconnect(&m);
    guest_end(&m, "again");
}

static void test_a_number_of_reactors_that_cannot_be_is_a_usage_error(void **state)
{
    static const char *const bad[] = {"17", "-1", "", "two", "4294967297"};
    char out[512];
    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(world_shell(&world, out, sizeof(out), "%s --reactors '%s'", world_program("domzerod"), bad[i]),
                         2);
        assert_non_null(strstr(out, "is no value for this option"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_statistics_show_each_queue_and_its_reactor),
        cmocka_unit_test(test_reactors_with_connected_queues_and_nothing_to_do_sleep),
        cmocka_unit_test(test_a_role_that_is_started_again_has_as_many_reactors),
        cmocka_unit_test(test_a_number_of_reactors_that_cannot_be_is_a_usage_error),
    };
    return cmocka_run_group_tests_name("reactors", tests, setup, teardown);
}
