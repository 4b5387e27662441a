/* SPDX-License-Identifier: MIT */
/* on-error=stop where the guest's sectors are parts of the storage's blocks: requests that were reading, changing and
 * writing back when the storage failed, and those that waited for a block that another had claimed, are held; then they
 * are done again, or answered, whatever becomes of the role, and none loses what another wrote into its block. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include <domzero/domzero.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "tests/harness.h"

#define MIB    (1u << 20)
#define BYTES  (4 * MIB)
#define FIRST  (3 * MIB) /* what is written, all of it where the storage fails: every second sector from here */
#define WRITES 128u
#define SECTOR 512u
#define STEP   (2 * SECTOR)

static const char *const kinds[] = {"on-error=stop,sector-size=512,host-alignment=4096",
                                    "on-error=stop,sector-size=512,host-alignment=4096,dma=copy",
                                    "on-error=stop,sector-size=512,host-alignment=4096,direct-io=1"};

static struct world world;

struct job {
    int result;  /* that each write is to have */
    int told_fd; /* connected */
    int go_fd;   /* the storage fails by now */
};

struct guest {
    pid_t pid;
    int go_fd;
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

/* Four writers a block, and all of them in flight at once, as far as the ring goes. */
static int guest_run(const char *domain_dir, void *arg)
{
    const struct job *job = arg;
    static unsigned char data[WRITES][SECTOR];
    static struct dz_io io[WRITES];
    struct dz_io *done[WRITES];
    struct dz_domain *dom;
    struct dz_vbd *disk;
    char byte;
    const struct dz_vbd_options options = {.queue_depth = WRITES, .timeout_ms = WORLD_PATIENCE_MS};
    GUEST_CHECK(dz_domain_open(domain_dir, &dom) == 0 && dz_vbd_open(dom, "xvda", &options, &disk) == 0);
    GUEST_CHECK(write(job->told_fd, "", 1) == 1 && read(job->go_fd, &byte, 1) == 1);
    for (unsigned i = 0; i < WRITES; i++) {
        uint64_t at = FIRST + (uint64_t)i * STEP;
        world_pattern(data[i], SECTOR, at, 2);
        io[i] = (struct dz_io){.op = DZ_WRITE, .buffer = data[i], .length_bytes = SECTOR, .offset_bytes = at};
        GUEST_CHECK(dz_vbd_submit(disk, &io[i]) == 0);
    }
    for (unsigned n = 0; n < WRITES;) {
        int r = dz_vbd_wait(disk, done, WRITES, -1);
        GUEST_CHECK(r > 0);
        n += (unsigned)r;
    }
    for (unsigned i = 0; i < WRITES; i++)
        GUEST_CHECK(io[i].result == job->result);
    dz_vbd_close(disk);
    dz_domain_close(dom);
    return 0;
}

/* From now on nothing is written beyond `bytes` of any file by the role. */
static void limit_files(rlim_t bytes)
{
    const struct rlimit limit = {bytes, RLIM_INFINITY};
    assert_int_equal(prlimit(world_role(&world, "blk"), RLIMIT_FSIZE, &limit, NULL), 0);
}

static bool is_paused(void *ctx)
{
    char out[4096];
    (void)ctx;
    return world_domzero(&world, out, sizeof(out), "block-list vm") == 0 && strstr(out, "paused: ");
}

static bool is_not_paused(void *ctx)
{
    return !is_paused(ctx);
}

/* Until the disk is paused. */
static struct guest guest_start(const char *options, int result)
{
    int told[2], go[2];
    char byte;
    world_image(&world, "disk.img", BYTES, 1);
    unsigned domid = world_guest(&world, "vm", "disk.img", options);
    assert_int_equal(pipe2(told, O_CLOEXEC) | pipe2(go, O_CLOEXEC), 0);
    struct job job = {.result = result, .told_fd = told[1], .go_fd = go[0]};
    struct guest g = {.pid = world_spawn(&world, domid, guest_run, &job), .go_fd = go[1]};
    assert_int_equal(read(told[0], &byte, 1), 1);
    close(told[0]);
    close(told[1]);
    close(go[0]);
    limit_files(2 * MIB);
    assert_int_equal(write(g.go_fd, "", 1), 1);
    fd_closep(&g.go_fd);
    world_await(is_paused, NULL, "the disk is paused");
    assert_int_equal(waitpid(g.pid, NULL, WNOHANG), 0);
    return g;
}

static void guest_end(const struct guest *g)
{
    assert_int_equal(world_wait(g->pid), 0);
    assert_int_equal(world_domzero(&world, NULL, 0, "destroy vm"), 0);
}

/* Each sector as the guest wrote it, or as it was where it did not, or was refused. */
static void image_check(bool written)
{
    static unsigned char is[BYTES], should[BYTES];
    _cleanup_close_ int fd = open(world_path(&world, "disk.img"), O_RDONLY | O_CLOEXEC);
    assert_int_equal(pread(fd, is, BYTES, 0), BYTES);
    world_pattern(should, BYTES, 0, 1);
    for (unsigned i = 0; written && i < WRITES; i++)
        world_pattern(should + FIRST + i * STEP, SECTOR, FIRST + (uint64_t)i * STEP, 2);
    assert_memory_equal(is, should, BYTES);
}

static void test_parts_of_blocks_that_fail_wait_for_the_operator(void **state)
{
    char out[4096];
    (void)state;
    for (unsigned k = 0; k < ARRAY_SIZE(kinds); k++) {
        struct guest g = guest_start(kinds[k], 0);
        for (unsigned i = 0; i < 3; i++) { /* in vain: held again, with what had waited for their blocks */
            assert_int_equal(world_domzero(&world, out, sizeof(out), "block-resume vm xvda"), 1);
            assert_non_null(strstr(out, "still File too large"));
        }
        image_check(false);
        limit_files(RLIM_INFINITY);
        if (world_domzero(&world, out, sizeof(out), "block-resume vm xvda"))
            fail_msg("%s", out);
        guest_end(&g);
        image_check(true);
    }
}

static void test_a_role_killed_with_parts_of_blocks_held_leaves_them_to_its_successor(void **state)
{
    (void)state;
    for (unsigned k = 0; k < ARRAY_SIZE(kinds); k++) {
        struct guest g = guest_start(kinds[k], 0);
        world_kill_blk(&world); /* its successor has no limit */
        guest_end(&g);
        image_check(true);
    }
}

/* In the middle of trying again: some are held, others read, write back, or wait for a block. */
static void test_a_role_killed_amid_a_retry_leaves_all_to_its_successor(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 6; i++) {
        struct guest g = guest_start(kinds[i % ARRAY_SIZE(kinds)], 0);
        pid_t tool = fork();
        if (tool == 0) {
            char out[512];
            for (unsigned n = 0; n < 20; n++)
                (void)world_domzero(&world, out, sizeof(out), "block-resume vm xvda");
            _exit(0);
        }
        usleep(i * 4000);
        world_kill_blk(&world);
        assert_int_equal(world_wait(tool), 0);
        guest_end(&g);
        image_check(true);
    }
}

static void test_an_upgrade_with_parts_of_blocks_held_leaves_them_to_the_successor(void **state)
{
    (void)state;
    struct guest g = guest_start(kinds[0], 0);
    assert_int_equal(world_domzero(&world, NULL, 0, "upgrade"), 0);
    guest_end(&g);
    image_check(true);
}

static void test_a_detach_answers_parts_of_blocks_with_their_errors(void **state)
{
    char out[2048];
    (void)state;
    struct guest g = guest_start(kinds[0], -EIO);
    if (world_domzero(&world, out, sizeof(out), "block-detach vm xvda"))
        fail_msg("%s", out);
    guest_end(&g);
    image_check(false);
}

static void test_a_guest_killed_with_parts_of_blocks_held_leaves_nothing_behind(void **state)
{
    (void)state;
    struct guest g = guest_start(kinds[0], 0);
    kill(g.pid, SIGKILL);
    assert_int_equal(world_wait(g.pid), 128 + SIGKILL);
    world_await(is_not_paused, NULL, "nothing is held");
    assert_int_equal(world_domzero(&world, NULL, 0, "destroy vm"), 0);
    image_check(false);
    limit_files(RLIM_INFINITY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts_of_blocks_that_fail_wait_for_the_operator),
        cmocka_unit_test(test_a_role_killed_with_parts_of_blocks_held_leaves_them_to_its_successor),
        cmocka_unit_test(test_a_role_killed_amid_a_retry_leaves_all_to_its_successor),
        cmocka_unit_test(test_an_upgrade_with_parts_of_blocks_held_leaves_them_to_the_successor),
        cmocka_unit_test(test_a_detach_answers_parts_of_blocks_with_their_errors),
        cmocka_unit_test(test_a_guest_killed_with_parts_of_blocks_held_leaves_nothing_behind),
    };
    return cmocka_run_group_tests_name("blkstop_align", tests, setup, teardown);
}
