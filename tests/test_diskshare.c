/* SPDX-License-Identifier: MIT */
/* What plugins share of a disk: many threads on one open disk, each with what it wrote and nothing else, also while the
 * backend is killed under them; one share for a disk, whoever opens it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>

#include "base/util.h"
#include "plugins/diskshare.h"
#include "tests/harness.h"
#include "tests/tool.h"

#define THREADS      8u
#define REGION_BYTES (3u << 20) /* of a thread: more than a request takes */
#define SECTOR       512u

static struct world world;
static char domain_dir[128];
static atomic_uint complaints;

static void complain(const char *sentence)
{
    atomic_fetch_add(&complaints, 1);
    print_message("%s\n", sentence);
}

static struct diskshare *share_open(uint32_t spin_us)
{
    struct dz_vbd_options options = {.queue_depth = 32, .spin_us = spin_us, .timeout_ms = WORLD_PATIENCE_MS};
    struct diskshare *s = NULL;
    assert_int_equal(diskshare_open(domain_dir, "xvda", &options, complain, &s), 0);
    return s;
}

static int setup(void **state)
{
    (void)state;
    world_start(&world, NULL);
    world_image(&world, "disk.img", THREADS * REGION_BYTES, 1);
    unsigned domid = world_guest(&world, "vm", "disk.img", NULL);
    snprintf(domain_dir, sizeof(domain_dir), "%s/dom/%u", world.run, domid);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    world_stop(&world);
    return 0;
}

/* ---- a thread ---- */

struct client {
    struct diskshare *share;
    struct dz_vbd_info disk;
    unsigned number;
    atomic_uint *running;
    unsigned random;
    unsigned char *model, *buffer;
    int wrong; /* the line */
};

static uint32_t below(struct client *c, uint32_t limit)
{
    c->random = c->random * 1103515245 + 12345;
    return (c->random >> 8) % limit;
}

/* One transfer, waited for in one of the ways that there are. */
static int transfer(struct client *c, struct diskshare_user *u, struct diskshare_transfer *t)
{
    struct diskshare_transfer *done[2];
    unsigned n = 0;
    diskshare_submit(u, t);
    switch (below(c, 3)) {
    case 0:
        while (!n) {
            n = diskshare_wait(u, done, 0, 2, 0);
            if (!n)
                sched_yield();
        }
        break;
    case 1:
        diskshare_kick(u);
        while (!n)
            n = diskshare_wait(u, done, 1, 2, 1);
        break;
    default: n = diskshare_wait(u, done, 1, 2, -1);
    }
    return n != 1 || done[0] != t ? -EPROTO : t->result;
}

#define CHECK(condition)         \
    do {                         \
        if (!(condition)) {      \
            c->wrong = __LINE__; \
            goto out;            \
        }                        \
    } while (0)

static void *client_run(void *arg)
{
    struct client *c = arg;
    struct diskshare_user u;
    uint64_t base = (uint64_t)c->number * REGION_BYTES;
    diskshare_user_init(&u, c->share);
    diskshare_info(c->share, &c->disk);
    struct diskshare_transfer all = {
        .op = DZ_READ, .buffer = c->model, .offset_bytes = base, .length_bytes = REGION_BYTES};
    CHECK(transfer(c, &u, &all) == 0);
    const unsigned operations = under_tool(NULL) ? 30 : 120;
    for (unsigned i = 0; i < operations; i++) {
        uint32_t at = below(c, REGION_BYTES / SECTOR) * SECTOR;
        uint32_t most = below(c, 4) ? 64u << 10 : REGION_BYTES;
        most = MIN(REGION_BYTES - at, most);
        uint32_t bytes = (1 + below(c, most / SECTOR)) * SECTOR;
        struct diskshare_transfer t = {.offset_bytes = base + at, .length_bytes = bytes, .buffer = c->buffer};
        unsigned what = below(c, 10);
        if (what < 5) {
            t.op = c->disk.fua && below(c, 2) ? DZ_WRITE | DZ_FUA : DZ_WRITE;
            world_pattern(c->buffer, bytes, i, c->number);
            memcpy(c->model + at, c->buffer, bytes);
        } else if (what < 7 && c->disk.write_zeroes_bytes_max) {
            t.op = DZ_WRITE_ZEROES;
            t.buffer = NULL;
            memset(c->model + at, 0, bytes);
        } else if (what < 9) {
            t.op = DZ_READ;
        } else {
            t = (struct diskshare_transfer){.op = DZ_FLUSH};
        }
        CHECK(transfer(c, &u, &t) == 0);
        CHECK(t.op != DZ_READ || memcmp(c->buffer, c->model + at, bytes) == 0);
    }
    all.buffer = c->buffer;
    CHECK(transfer(c, &u, &all) == 0);
    CHECK(memcmp(c->buffer, c->model, REGION_BYTES) == 0);
out:
    diskshare_user_deinit(&u);
    atomic_fetch_sub(c->running, 1);
    return NULL;
}

/* ---- tests ---- */

static void clients_run(struct diskshare *s, unsigned kills)
{
    static struct client client[THREADS];
    pthread_t thread[THREADS];
    atomic_uint running = THREADS;
    for (unsigned i = 0; i < THREADS; i++) {
        client[i] = (struct client){.share = s, .number = i, .running = &running, .random = i + 1};
        client[i].model = malloc(REGION_BYTES);
        client[i].buffer = malloc(REGION_BYTES);
        assert_true(client[i].model && client[i].buffer);
        assert_int_equal(pthread_create(&thread[i], NULL, client_run, &client[i]), 0);
    }
    for (; kills && atomic_load(&running); kills--) {
        poll(NULL, 0, 50);
        world_kill_blk(&world);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(thread[i], NULL);
        assert_int_equal(client[i].wrong, 0);
        free(client[i].model);
        free(client[i].buffer);
    }
    assert_int_equal(atomic_load(&complaints), 0);
}

static void test_each_thread_reads_what_it_wrote(void **state)
{
    (void)state;
    struct diskshare *s = share_open(0);
    clients_run(s, 0);
    assert_true(diskshare_close(s, NULL));
}

static void test_threads_that_poll_read_what_they_wrote(void **state)
{
    (void)state;
    struct diskshare *s = share_open(30);
    clients_run(s, 0);
    assert_true(diskshare_close(s, NULL));
}

static void test_the_backends_death_is_a_pause_for_all_threads(void **state)
{
    (void)state;
    struct diskshare *s = share_open(0);
    clients_run(s, 2);
    assert_true(diskshare_close(s, NULL));
}

static void test_a_disk_has_one_share_and_the_last_close_closes_it(void **state)
{
    (void)state;
    struct diskshare *a = share_open(0), *b = share_open(0), *none;
    struct dz_vbd_options options = {0};
    struct dz_vbd_stats stats;
    assert_ptr_equal(a, b);
    assert_int_equal(diskshare_open(domain_dir, "xvdz", &options, complain, &none), -ENODEV);
    assert_int_equal(atomic_exchange(&complaints, 0), 1);
    assert_false(diskshare_close(a, &stats));
    assert_true(diskshare_close(b, &stats));
    assert_int_equal(stats.errors, 0);
    a = share_open(0);
    assert_true(diskshare_close(a, NULL));
}

static void test_a_transfer_that_is_refused_fails_alone(void **state)
{
    (void)state;
    static unsigned char buffer[4096];
    struct diskshare *s = share_open(0);
    struct diskshare_user u;
    struct diskshare_transfer bad = {.op = DZ_READ, .buffer = buffer, .length_bytes = 100}, past = bad, good = bad;
    struct diskshare_transfer *done[3];
    diskshare_user_init(&u, s);
    past.length_bytes = good.length_bytes = sizeof(buffer);
    past.offset_bytes = THREADS * (uint64_t)REGION_BYTES;
    diskshare_submit(&u, &bad);
    diskshare_submit(&u, &past);
    diskshare_submit(&u, &good);
    unsigned n = 0;
    while (n < 3)
        n += diskshare_wait(&u, &done[n], 1, 3 - n, -1);
    assert_int_equal(bad.result, -EINVAL);
    assert_int_equal(past.result, -ERANGE);
    assert_int_equal(good.result, 0);
    assert_int_equal(atomic_exchange(&complaints, 0), 2);
    diskshare_user_deinit(&u);
    assert_true(diskshare_close(s, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_thread_reads_what_it_wrote),
        cmocka_unit_test(test_threads_that_poll_read_what_they_wrote),
        cmocka_unit_test(test_the_backends_death_is_a_pause_for_all_threads),
        cmocka_unit_test(test_a_disk_has_one_share_and_the_last_close_closes_it),
        cmocka_unit_test(test_a_transfer_that_is_refused_fails_alone),
    };
    return cmocka_run_group_tests_name("diskshare", tests, setup, teardown);
}
