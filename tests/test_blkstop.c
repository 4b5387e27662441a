/* SPDX-License-Identifier: MIT */
/* A disk whose storage fails, or whose backend is away: with on-error=stop its requests are held until the operator has
 * them tried again, whatever happens to the role meanwhile; by default the guest gets the error. The storage fails as a
 * real one does: by a limit on the size of files, or because the image was made shorter behind our back. */
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

#define MIB   (1u << 20)
#define BYTES (4 * MIB)

static struct world world;

struct job {
    bool write;
    int result;  /* that its I/O is to have */
    int told_fd; /* connected */
    int go_fd;   /* the storage fails by now */
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

/* Moves the whole disk, of which the upper part fails. */
static int guest_run(const char *domain_dir, void *arg)
{
    const struct job *job = arg;
    static unsigned char buffer[BYTES], should[BYTES];
    struct dz_domain *dom;
    struct dz_vbd *disk;
    struct dz_vbd_stats stats;
    char byte;
    GUEST_CHECK(dz_domain_open(domain_dir, &dom) == 0 && dz_vbd_open(dom, "xvda", WORLD_PATIENT, &disk) == 0);
    GUEST_CHECK(write(job->told_fd, "", 1) == 1 && read(job->go_fd, &byte, 1) == 1);
    world_pattern(buffer, BYTES, 0, 2);
    int r = job->write ? dz_vbd_write(disk, buffer, BYTES, 0) : dz_vbd_read(disk, buffer, BYTES, 0);
    GUEST_CHECK(r == job->result);
    if (job->write && !r)
        GUEST_CHECK(dz_vbd_flush(disk) == 0);
    world_pattern(should, BYTES, 0, 1);
    GUEST_CHECK(job->write || r || !memcmp(buffer, should, MIB));
    dz_vbd_stats(disk, &stats);
    GUEST_CHECK((stats.errors == 0) == (r == 0));
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

static void image_length(off_t bytes)
{
    assert_int_equal(truncate(world_path(&world, "disk.img"), bytes), 0);
}

struct guest {
    pid_t pid;
    int go_fd;
};

static struct guest guest_start(bool write, const char *options, int result)
{
    int told[2], go[2];
    char byte;
    world_image(&world, "disk.img", BYTES, 1);
    unsigned domid = world_guest(&world, "vm", "disk.img", options);
    assert_int_equal(pipe2(told, O_CLOEXEC) | pipe2(go, O_CLOEXEC), 0);
    struct job job = {.write = write, .result = result, .told_fd = told[1], .go_fd = go[0]};
    struct guest g = {.pid = world_spawn(&world, domid, guest_run, &job), .go_fd = go[1]};
    assert_int_equal(read(told[0], &byte, 1), 1);
    close(told[0]);
    close(told[1]);
    close(go[0]);
    return g;
}

static void guest_go(struct guest *g)
{
    assert_int_equal(write(g->go_fd, "", 1), 1);
    fd_closep(&g->go_fd);
}

static void guest_end(struct guest *g)
{
    assert_int_equal(world_wait(g->pid), 0);
    assert_int_equal(world_domzero(&world, NULL, 0, "destroy vm"), 0);
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

static void assert_waits(const struct guest *g)
{
    assert_int_equal(waitpid(g->pid, NULL, WNOHANG), 0);
}

static void test_a_write_that_fails_waits_for_the_operator(void **state)
{
    char out[4096];
    (void)state;
    struct guest g = guest_start(true, "on-error=stop", 0);
    limit_files(2 * MIB);
    guest_go(&g);
    world_await(is_paused, NULL, "the disk is paused");
    assert_int_equal(world_domzero(&world, out, sizeof(out), "block-list vm"), 0);
    assert_non_null(strstr(out, "File too large"));
    assert_int_equal(world_domzero(&world, out, sizeof(out), "block-stats vm xvda | grep -w held"), 0);
    assert_null(strstr(out, " 0  "));
    assert_int_equal(world_domzero(&world, out, sizeof(out), "block-resume vm xvda"), 1);
    assert_non_null(strstr(out, "still File too large"));
    assert_waits(&g);
    limit_files(RLIM_INFINITY);
    if (world_domzero(&world, out, sizeof(out), "block-resume vm xvda"))
        fail_msg("%s", out);
    assert_false(is_paused(NULL));
    guest_end(&g);
    static unsigned char is[BYTES], should[BYTES];
    _cleanup_close_ int fd = open(world_path(&world, "disk.img"), O_RDONLY | O_CLOEXEC);
    assert_int_equal(pread(fd, is, BYTES, 0), BYTES);
    world_pattern(should, BYTES, 0, 2);
    assert_memory_equal(is, should, BYTES);
}

static void test_a_read_that_fails_waits_for_the_operator(void **state)
{
    static const char *const options[] = {"on-error=stop", "on-error=stop,dma=copy", "on-error=stop,direct-io=1"};
    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(options); i++) {
        struct guest g = guest_start(false, options[i], 0);
        image_length(2 * MIB);
        guest_go(&g);
        world_await(is_paused, NULL, "the disk is paused");
        assert_waits(&g);
        image_length(BYTES);
        assert_int_equal(world_domzero(&world, NULL, 0, "block-resume vm xvda"), 0);
        guest_end(&g);
    }
}

static void test_by_default_the_guest_gets_the_error(void **state)
{
    (void)state;
    struct guest g = guest_start(false, NULL, -EIO);
    image_length(2 * MIB);
    guest_go(&g);
    guest_end(&g);
    assert_false(is_paused(NULL));
}

static void test_a_disk_that_is_detached_while_it_waits_answers_with_the_error(void **state)
{
    char out[2048];
    (void)state;
    struct guest g = guest_start(false, "on-error=stop", -EIO);
    image_length(2 * MIB);
    guest_go(&g);
    world_await(is_paused, NULL, "the disk is paused");
    if (world_domzero(&world, out, sizeof(out), "block-detach vm xvda"))
        fail_msg("%s", out);
    guest_end(&g);
}

static void test_a_guest_that_dies_while_it_waits_leaves_nothing_behind(void **state)
{
    (void)state;
    struct guest g = guest_start(false, "on-error=stop", 0);
    image_length(2 * MIB);
    guest_go(&g);
    world_await(is_paused, NULL, "the disk is paused");
    kill(g.pid, SIGKILL);
    assert_int_equal(world_wait(g.pid), 128 + SIGKILL);
    world_await(is_not_paused, NULL, "nothing is held");
    assert_int_equal(world_domzero(&world, NULL, 0, "destroy vm"), 0);
}

/* The successor is given again what was held; the limit went with the process that had it. */
static void role_ends_meanwhile(void (*end)(void))
{
    struct guest g = guest_start(true, "on-error=stop", 0);
    limit_files(2 * MIB);
    guest_go(&g);
    world_await(is_paused, NULL, "the disk is paused");
    end();
    world_await(is_not_paused, NULL, "the successor tries again");
    guest_end(&g);
}

static void role_killed(void)
{
    world_kill_blk(&world);
}

static void role_upgraded(void)
{
    assert_int_equal(world_domzero(&world, NULL, 0, "upgrade"), 0);
}

static void test_what_is_held_survives_a_role_that_is_killed(void **state)
{
    (void)state;
    role_ends_meanwhile(role_killed);
}

static void test_what_is_held_survives_an_upgrade(void **state)
{
    (void)state;
    role_ends_meanwhile(role_upgraded);
}

/* ---- a backend that is away ---- */

/* Reads until a read fails, and then until one works again. */
static int guest_sees_loss(const char *domain_dir, void *arg)
{
    const struct job *job = arg;
    static unsigned char buffer[MIB];
    struct dz_domain *dom;
    struct dz_vbd *disk;
    int r;
    GUEST_CHECK(dz_domain_open(domain_dir, &dom) == 0 && dz_vbd_open(dom, "xvda", WORLD_PATIENT, &disk) == 0);
    GUEST_CHECK(write(job->told_fd, "", 1) == 1);
    while ((r = dz_vbd_read(disk, buffer, MIB, 0)) == 0)
        ;
    GUEST_CHECK(r == job->result && write(job->told_fd, "", 1) == 1);
    while ((r = dz_vbd_read(disk, buffer, MIB, 0)) == job->result)
        ;
    GUEST_CHECK(r == 0);
    dz_vbd_close(disk);
    dz_domain_close(dom);
    return 0;
}

static void test_a_backend_that_is_away_is_reported_where_the_toolstack_wants_it(void **state)
{
    int told[2];
    char byte;
    (void)state;
    world_image(&world, "disk.img", BYTES, 1);
    unsigned domid = world_guest(&world, "vm", "disk.img", "report-after=100");
    assert_int_equal(pipe2(told, O_CLOEXEC), 0);
    struct job job = {.result = -ETIMEDOUT, .told_fd = told[1]};
    pid_t guest = world_spawn(&world, domid, guest_sees_loss, &job);
    assert_int_equal(read(told[0], &byte, 1), 1);
    pid_t blk = world_role(&world, "blk");
    assert_int_equal(kill(blk, SIGSTOP), 0);
    assert_int_equal(read(told[0], &byte, 1), 1); /* it failed */
    assert_int_equal(kill(blk, SIGKILL), 0);
    assert_int_equal(world_wait(guest), 0); /* the next role answers */
    close(told[0]);
    close(told[1]);
    assert_int_equal(world_domzero(&world, NULL, 0, "destroy vm"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_write_that_fails_waits_for_the_operator),
        cmocka_unit_test(test_a_read_that_fails_waits_for_the_operator),
        cmocka_unit_test(test_by_default_the_guest_gets_the_error),
        cmocka_unit_test(test_a_disk_that_is_detached_while_it_waits_answers_with_the_error),
        cmocka_unit_test(test_a_guest_that_dies_while_it_waits_leaves_nothing_behind),
        cmocka_unit_test(test_what_is_held_survives_a_role_that_is_killed),
        cmocka_unit_test(test_what_is_held_survives_an_upgrade),
        cmocka_unit_test(test_a_backend_that_is_away_is_reported_where_the_toolstack_wants_it),
    };
    return cmocka_run_group_tests_name("blkstop", tests, setup, teardown);
}
