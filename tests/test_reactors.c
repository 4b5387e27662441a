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
#include <fcntl.h>

#include <domzero/domzero.h>

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

/* ---- libdomzero as the other end ---- */

#define FRONT_QUEUES 4
#define FRONT_DEPTH  8
#define FRONT_BYTES  65536 /* of each request */

struct front_job {
    int ready_fd; /* a byte once all queues have moved data */
    int stop_fd;
};

struct front {
    struct dz_vbd *disk;
    struct dz_queue *queue;
    unsigned index;
    _Atomic uint64_t rounds;
    _Atomic bool *stop;
    _Atomic bool failed;
    pthread_t thread;
};

/* All requests of a queue at once, each in its own part of the queue's part of the disk. */
static bool front_do(struct front *f, enum dz_op op, unsigned char (*buffer)[FRONT_BYTES])
{
    struct dz_io io[FRONT_DEPTH] = {0}, *done[FRONT_DEPTH];
    for (unsigned i = 0; i < FRONT_DEPTH; i++) {
        io[i] = (struct dz_io){.op = op,
                               .buffer = buffer[i],
                               .length_bytes = FRONT_BYTES,
                               .offset_bytes = (uint64_t)(f->index * FRONT_DEPTH + i) * FRONT_BYTES};
        if (dz_queue_submit(f->queue, &io[i]))
            return false;
    }
    for (unsigned left = FRONT_DEPTH; left;) {
        int n = dz_queue_wait(f->queue, done, FRONT_DEPTH, -1);
        if (n < 0)
            return false;
        for (int i = 0; i < n; i++)
            if (done[i]->result)
                return false;
        left -= (unsigned)n;
    }
    return true;
}

static void *front_main(void *arg)
{
    struct front *f = arg;
    unsigned char(*data)[FRONT_BYTES] = malloc(FRONT_DEPTH * FRONT_BYTES),
             (*back)[FRONT_BYTES] = malloc(FRONT_DEPTH * FRONT_BYTES);
    while (!*f->stop && !f->failed) {
        world_pattern(data, FRONT_DEPTH * FRONT_BYTES, f->index, ++f->rounds);
        memset(back, 0, FRONT_DEPTH * FRONT_BYTES);
        f->failed = !front_do(f, DZ_WRITE, data) || !front_do(f, DZ_READ, back) ||
                    memcmp(data, back, FRONT_DEPTH * FRONT_BYTES);
    }
    free(data);
    free(back);
    return NULL;
}

static int front_guest(const char *domain_dir, void *arg)
{
    const struct front_job *job = arg;
    const struct dz_vbd_options options = {.queues = FRONT_QUEUES, .queue_depth = 32, .timeout_ms = WORLD_PATIENCE_MS};
    static struct front front[FRONT_QUEUES];
    static _Atomic bool stop;
    struct dz_domain *dom;
    struct dz_vbd *disk;
    struct dz_vbd_info info;
    char byte;
    if (dz_domain_open(domain_dir, &dom) || dz_vbd_open(dom, "xvda", &options, &disk))
        return 2;
    dz_vbd_info(disk, &info);
    if (info.queues != FRONT_QUEUES)
        return 3;
    for (unsigned i = 0; i < FRONT_QUEUES; i++) {
        front[i] = (struct front){.disk = disk, .queue = dz_vbd_queue(disk, i), .index = i, .stop = &stop};
        if (pthread_create(&front[i].thread, NULL, front_main, &front[i]))
            return 4;
    }
    for (unsigned i = 0; i < FRONT_QUEUES; i++)
        while (front[i].rounds < 3 && !front[i].failed)
            usleep(1000);
    bool bad = write(job->ready_fd, "r", 1) != 1 || read(job->stop_fd, &byte, 1) != 1;
    stop = true;
    for (unsigned i = 0; i < FRONT_QUEUES; i++) {
        pthread_join(front[i].thread, NULL);
        bad |= front[i].failed;
    }
    dz_vbd_close(disk);
    dz_domain_close(dom);
    return bad;
}

static bool serves_again(void *ctx)
{
    struct stats_blk_reply r;
    const unsigned *domid = ctx;
    return blkworld_stats(world.run, (uint16_t)*domid, BLKWORLD_DEVID, &r) && r.stats.requests > 500;
}

static void test_libdomzero_with_several_queues_lives_through_kills(void **state)
{
    int ready[2], stop[2];
    char byte;
    (void)state;
    world_image(&world, "front.img", FRONT_QUEUES * FRONT_DEPTH * FRONT_BYTES, 1);
    unsigned domid = world_guest(&world, "front", "front.img", "max-queues=4");
    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    assert_int_equal(pipe2(stop, O_CLOEXEC), 0);
    struct front_job job = {.ready_fd = ready[1], .stop_fd = stop[0]};
    pid_t guest = world_spawn(&world, domid, front_guest, &job);
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    for (unsigned i = 0; i < 3; i++) {
        world_kill_blk(&world);
        world_await(serves_again, &domid, "the next role to serve the guest");
    }
    assert_int_equal(write(stop[1], "s", 1), 1);
    assert_int_equal(world_wait(guest), 0);
    close(ready[0]);
    close(stop[0]);
    close(stop[1]);
    assert_int_equal(world_domzero(&world, NULL, 0, "destroy front"), 0);
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
        cmocka_unit_test(test_libdomzero_with_several_queues_lives_through_kills),
        cmocka_unit_test(test_a_number_of_reactors_that_cannot_be_is_a_usage_error),
    };
    return cmocka_run_group_tests_name("reactors", tests, setup, teardown);
}
