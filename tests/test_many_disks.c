/* SPDX-License-Identifier: MIT */
/* Many guests with a disk each on one blk role: they connect at the same time, each gets its own disk and nobody
 * else's, none waits for ever while the others load the role, and idle ones cost next to nothing. bench/many_disks.c
 * measures the same with 256. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <dirent.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include <domzero/domzero.h>

#include "base/util.h"
#include "tests/harness.h"
#include "tests/tool.h"

#define GUESTS       32u
#define DISK_BYTES   (1u << 20)
#define BLOCK_BYTES  4096u
#define ROUNDS       100u /* of QD blocks */
#define QD           4u
#define DISK_KIB_MAX 64 /* of private memory of the role, for a disk that is idle */

enum phase { PHASE_FIRST, PHASE_ALL, PHASE_LOAD, PHASE_END };

struct shared {
    atomic_uint phase, connected, loaded;
};

static struct world world;
static struct shared *shared;

static void phase_await(unsigned phase)
{
    while (atomic_load(&shared->phase) < phase)
        poll(NULL, 0, 2);
}

/* Blocks all over the disk, QD at a time, each compared with what the guest's image has there. */
static int disk_load(struct dz_vbd *disk, unsigned number)
{
    static unsigned char should[BLOCK_BYTES];
    struct dz_io io[QD] = {0}, *done[QD];
    for (unsigned i = 0; i < QD; i++)
        io[i].buffer = dz_buffer_alloc(disk, BLOCK_BYTES);
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned in_flight = 0;
        for (unsigned i = 0; i < QD; i++, in_flight++) {
            io[i].op = DZ_READ;
            io[i].length_bytes = BLOCK_BYTES;
            io[i].offset_bytes = (round * QD + i) * 7 % (DISK_BYTES / BLOCK_BYTES) * BLOCK_BYTES;
            if (dz_vbd_submit(disk, &io[i]) < 0)
                return 2;
        }
        while (in_flight) {
            int n = dz_vbd_wait(disk, done, QD, -1);
            for (int i = 0; i < n; i++) {
                world_pattern(should, BLOCK_BYTES, done[i]->offset_bytes, number);
                if (done[i]->result < 0 || memcmp(should, done[i]->buffer, BLOCK_BYTES) != 0)
                    return 3;
            }
            in_flight -= (unsigned)n;
        }
    }
    return 0;
}

static int guest(const char *domain_dir, void *arg)
{
    unsigned number = *(unsigned *)arg;
    struct dz_vbd_options options = {.pool_bytes = 128u << 10, .timeout_ms = WORLD_PATIENCE_MS};
    struct dz_domain *dom;
    struct dz_vbd *disk;
    if (number)
        phase_await(PHASE_ALL);
    if (dz_domain_open(domain_dir, &dom) < 0 || dz_vbd_open(dom, "xvda", &options, &disk) < 0) {
        fprintf(stderr, "guest %u: %s\n", number, dz_error());
        return 1;
    }
    int r = number ? 0 : disk_load(disk, number); /* what the role needs for any disk it has then */
    atomic_fetch_add(&shared->connected, 1);
    phase_await(PHASE_LOAD);
    r = r ? r : disk_load(disk, number);
    atomic_fetch_add(&shared->loaded, 1);
    phase_await(PHASE_END);
    dz_vbd_close(disk);
    dz_domain_close(dom);
    return r;
}

static bool counted(void *ctx)
{
    return atomic_load(&shared->connected) >= *(unsigned *)ctx;
}

static bool all_loaded(void *ctx)
{
    (void)ctx;
    return atomic_load(&shared->loaded) == GUESTS;
}

static long private_kib(pid_t pid)
{
    char path[64], line[256];
    long sum = 0, kib;
    snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    while (fgets(line, sizeof(line), f))
        if (sscanf(line, "Private_Clean: %ld", &kib) == 1 || sscanf(line, "Private_Dirty: %ld", &kib) == 1)
            sum += kib;
    fclose(f);
    return sum;
}

/* How often all threads of a process went to sleep: each time they had been woken. */
static unsigned long sleeps(pid_t pid)
{
    char path[300], line[256];
    unsigned long sum = 0, n;
    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    DIR *tasks = opendir(path);
    assert_non_null(tasks);
    for (const struct dirent *t; (t = readdir(tasks));) {
        snprintf(path, sizeof(path), "/proc/%d/task/%s/status", (int)pid, t->d_name);
        FILE *f = t->d_name[0] == '.' ? NULL : fopen(path, "re");
        while (f && fgets(line, sizeof(line), f))
            if (sscanf(line, "voluntary_ctxt_switches: %lu", &n) == 1)
                sum += n;
        if (f)
            fclose(f);
    }
    closedir(tasks);
    return sum;
}

/* Is there a while in which nothing wakes the role? What follows from work that was done may still do so for some time.
 */
static bool is_quiet(void *ctx)
{
    pid_t pid = *(pid_t *)ctx;
    unsigned long before = sleeps(pid);
    poll(NULL, 0, 500);
    return sleeps(pid) == before;
}

static void test_many_guests_connect_at_once_share_the_role_and_cost_it_little_when_idle(void **state)
{
    (void)state;
    bool plain = !under_tool(NULL); /* sanitizers have their own idea of memory, and threads that wake up */
    unsigned number[GUESTS], one = 1, all = GUESTS;
    pid_t pid[GUESTS], blk = world_role(&world, "blk");
    char file[32], vm[32];
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(shared, MAP_FAILED);
    for (unsigned i = 0; i < GUESTS; i++) {
        number[i] = i;
        snprintf(file, sizeof(file), "disk%u.img", i);
        snprintf(vm, sizeof(vm), "vm%u", i);
        world_image(&world, file, DISK_BYTES, i);
        pid[i] = world_spawn(&world, world_guest(&world, vm, file, NULL), guest, &number[i]);
    }
    world_await(counted, &one, "the first guest is connected");
    long before = private_kib(blk);
    atomic_store(&shared->phase, PHASE_ALL);
    world_await(counted, &all, "all guests are connected");
    if (plain)
        world_await(is_quiet, &blk, "idle disks let the role sleep");
    long idle = (private_kib(blk) - before) / (GUESTS - 1);
    if (plain)
        assert_in_range(MAX(idle, 0), 0, DISK_KIB_MAX);
    atomic_store(&shared->phase, PHASE_LOAD);
    world_await(all_loaded, NULL, "all guests have read their disks");
    if (plain)
        world_await(is_quiet, &blk, "disks that are idle again let the role sleep");
    atomic_store(&shared->phase, PHASE_END);
    for (unsigned i = 0; i < GUESTS; i++)
        assert_int_equal(world_wait(pid[i]), 0);
    assert_int_equal(world_role(&world, "blk"), blk); /* it was one and the same all the time */
    munmap(shared, sizeof(*shared));
}

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_guests_connect_at_once_share_the_role_and_cost_it_little_when_idle),
    };
    return cmocka_run_group_tests_name("many_disks", tests, setup, teardown);
}
