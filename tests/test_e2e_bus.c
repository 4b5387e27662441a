/* SPDX-License-Identifier: MIT */
/* End to end with the real programs: a disk behind the IOMMU, by bus addresses and by grants: what is written is what
 * is read and what the image has, while the disk is detached, its guest is killed, or dom0 ends. Over the death of the
 * role: test_e2e_threads.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <domzero/domzero.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>

#include "base/util.h"
#include "tests/harness.h"

#define MIB          (1u << 20)
#define DISK_BYTES   (16u * MIB)
#define QUEUES       2u
#define DEPTH        16u
#define REQUEST_MAX  (64u * 1024)
#define SEED_BEFORE  5u
#define SEED_WRITTEN 6u

/* Options of the disk, each with what the guest asks for. */
static const struct variant {
    const char *options;
    bool no_bus_addresses;
} variants[] = {
    {"max-queues=2,dma=iommu", false},
    {"max-queues=2,dma=iommu,iommu=deferred", false},
    {"max-queues=2,dma=iommu,dma-bits=32", false},
    {"max-queues=2,dma=iommu", true},
    {"max-queues=2,dma=iommu,persistent=0", true},
};

struct job {
    const struct variant *variant;
    int go_fd; /* the guest tells that it is at work */
};

static struct world world;
static pid_t role;

static bool role_is_there(void *ctx)
{
    (void)ctx;
    return (role = world_role(&world, "blk")) > 0;
}

static int setup(void **state)
{
    (void)state;
    world_start(&world, NULL);
    world_await(role_is_there, NULL, "the blk role is there");
    return 0;
}

/* The role has lived through all of it. */
static int teardown(void **state)
{
    (void)state;
    assert_int_equal(world_role(&world, "blk"), role);
    world_stop(&world);
    return 0;
}

/* ---- the guest ---- */

struct guest {
    struct dz_domain *dom;
    struct dz_vbd *disk;
    struct dz_io io[QUEUES][DEPTH];
};

static int guest_open(struct guest *g, const char *domain_dir, const struct variant *variant)
{
    const struct dz_vbd_options options = {.queues = QUEUES,
                                           .timeout_ms = WORLD_PATIENCE_MS,
                                           .pool_bytes = 2 * QUEUES * DEPTH * REQUEST_MAX,
                                           .no_bus_addresses = variant->no_bus_addresses};
    struct dz_vbd_info info;
    GUEST_CHECK(dz_domain_open(domain_dir, &g->dom) == 0);
    GUEST_CHECK(dz_vbd_open(g->dom, "xvda", &options, &g->disk) == 0);
    dz_vbd_info(g->disk, &info);
    GUEST_CHECK(info.queues == QUEUES && info.bus_addresses == !variant->no_bus_addresses);
    for (unsigned i = 0; i < QUEUES * DEPTH; i++) { /* every second one bounced */
        static unsigned char heap[QUEUES * DEPTH][REQUEST_MAX];
        struct dz_io *io = &g->io[i / DEPTH][i % DEPTH];
        io->buffer = i % 2 ? heap[i] : dz_buffer_alloc(g->disk, REQUEST_MAX);
        GUEST_CHECK(io->buffer);
    }
    return 0;
}

/* The same request over and over to each piece of the disk, lengths of all kinds; 0, or its first error. */
static int sweep(struct guest *g, enum dz_op op, unsigned seed)
{
    static const uint32_t lengths[] = {4096, REQUEST_MAX, 512, 45056, 49152, 3584};
    static unsigned char should[REQUEST_MAX];
    uint64_t at = 0;
    for (unsigned round = 0; at < DISK_BYTES; round++) {
        struct dz_queue *q = dz_vbd_queue(g->disk, round % QUEUES);
        struct dz_io *io = g->io[round % QUEUES], *done[DEPTH];
        unsigned count = 0;
        for (; count < DEPTH && at < DISK_BYTES; count++) {
            io[count].op = op;
            io[count].length_bytes =
                (uint32_t)MIN((uint64_t)lengths[(round + count) % ARRAY_SIZE(lengths)], DISK_BYTES - at);
            io[count].offset_bytes = at;
            if (op == DZ_WRITE)
                world_pattern(io[count].buffer, io[count].length_bytes, at, seed);
            else
                memset(io[count].buffer, 0, io[count].length_bytes);
            at += io[count].length_bytes;
            int r = dz_queue_submit(q, &io[count]);
            if (r)
                return r;
        }
        for (int left = (int)count, n; left > 0; left -= n)
            if ((n = dz_queue_wait(q, done, DEPTH, -1)) <= 0)
                return n ? n : -ETIME;
        for (unsigned i = 0; i < count; i++) {
            if (io[i].result)
                return io[i].result;
            world_pattern(should, io[i].length_bytes, io[i].offset_bytes, seed);
            if (op == DZ_READ && memcmp(should, io[i].buffer, io[i].length_bytes))
                return -EBADMSG;
        }
    }
    return 0;
}

static int guest_rewrite(const char *domain_dir, void *arg)
{
    const struct job *job = arg;
    static struct guest g;
    if (guest_open(&g, domain_dir, job->variant))
        return 1;
    GUEST_CHECK(sweep(&g, DZ_READ, SEED_BEFORE) == 0);
    GUEST_CHECK(sweep(&g, DZ_WRITE, SEED_WRITTEN) == 0);
    GUEST_CHECK(sweep(&g, DZ_READ, SEED_WRITTEN) == 0);
    GUEST_CHECK(dz_vbd_flush(g.disk) == 0);
    dz_vbd_close(g.disk);
    dz_domain_close(g.dom);
    return 0;
}

/* Until the disk is gone: its error is the exit status. */
static int guest_hammer(const char *domain_dir, void *arg)
{
    const struct job *job = arg;
    static struct guest g;
    int r = guest_open(&g, domain_dir, job->variant);
    if (r)
        return r;
    for (bool told = false; (r = sweep(&g, DZ_WRITE, SEED_WRITTEN)) == 0; told = true)
        GUEST_CHECK(told || write(job->go_fd, "", 1) == 1);
    dz_vbd_close(g.disk);
    dz_domain_close(g.dom);
    return -r;
}

static pid_t hammer(unsigned domid, const struct variant *variant)
{
    int go[2];
    char byte;
    assert_int_equal(pipe2(go, O_CLOEXEC), 0);
    struct job job = {variant, go[1]};
    pid_t pid = world_spawn(&world, domid, guest_hammer, &job);
    close(go[1]);
    if (read(go[0], &byte, 1) != 1)
        fail_msg("%s: the guest ended with %d", variant->options, world_wait(pid));
    close(go[0]);
    return pid;
}

/* ---- dom0 ---- */

static void domzero(const char *args)
{
    char out[1024];
    if (world_domzero(&world, out, sizeof(out), "%s", args))
        fail_msg("%s: %s", args, out);
}

static void assert_image(unsigned seed)
{
    static unsigned char is[MIB], should[MIB];
    _cleanup_close_ int fd = open(world_path(&world, "disk.img"), O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    for (uint64_t at = 0; at < DISK_BYTES; at += MIB) {
        assert_int_equal(pread(fd, is, MIB, (off_t)at), MIB);
        world_pattern(should, MIB, at, seed);
        assert_memory_equal(is, should, MIB);
    }
}

static void test_what_is_written_is_what_is_read(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(variants); i++) {
        world_image(&world, "disk.img", DISK_BYTES, SEED_BEFORE);
        unsigned domid = world_guest(&world, "vm", "disk.img", variants[i].options);
        struct job job = {&variants[i], -1};
        assert_int_equal(world_wait(world_spawn(&world, domid, guest_rewrite, &job)), 0);
        domzero("destroy vm");
        assert_image(SEED_WRITTEN);
    }
}

static void test_a_disk_at_work_is_detached(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(variants); i++) {
        world_image(&world, "disk.img", DISK_BYTES, SEED_BEFORE);
        unsigned domid = world_guest(&world, "vm", "disk.img", variants[i].options);
        pid_t pid = hammer(domid, &variants[i]);
        domzero("block-detach vm xvda");
        assert_int_equal(world_wait(pid), ENODEV);
        domzero("destroy vm");
        assert_image(SEED_WRITTEN);
    }
}

/* What it had mapped is nobody's: the next process of the domain begins with none of it. */
static void test_a_killed_guest_leaves_a_disk_that_its_successor_opens(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(variants); i++) {
        world_image(&world, "disk.img", DISK_BYTES, SEED_BEFORE);
        unsigned domid = world_guest(&world, "vm", "disk.img", variants[i].options);
        for (unsigned life = 0; life < 3; life++) {
            pid_t pid = hammer(domid, &variants[(i + life) % ARRAY_SIZE(variants)]);
            kill(pid, SIGKILL);
            assert_int_equal(world_wait(pid), 128 + SIGKILL);
        }
        domzero("destroy vm");
    }
}

static void test_dom0_ends_cleanly_while_such_disks_are_at_work(void **state)
{
    world_image(&world, "disk.img", DISK_BYTES, SEED_BEFORE);
    pid_t pid = hammer(world_guest(&world, "vm", "disk.img", variants[0].options), &variants[0]);
    assert_int_equal(world_role(&world, "blk"), role);
    world_stop(&world);
    assert_int_equal(world_wait(pid), EIO);
    setup(state);
}

#define BUS_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        BUS_TEST(test_what_is_written_is_what_is_read),
        BUS_TEST(test_a_disk_at_work_is_detached),
        BUS_TEST(test_a_killed_guest_leaves_a_disk_that_its_successor_opens),
        BUS_TEST(test_dom0_ends_cleanly_while_such_disks_are_at_work),
    };
    return cmocka_run_group_tests_name("e2e_bus", tests, NULL, NULL);
}
