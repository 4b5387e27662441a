/* SPDX-License-Identifier: MIT */
/* fio on a virtual disk: the engine in the real fio, as a process of the guest's domain. fio judges by reading back and
 * comparing checksums; that the data is in the image is judged from outside, by fio on the image file. Skipped where
 * fio or the engine is not there. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "tests/harness.h"

#define MIB (1ull << 20)

static struct world world;
static char said[16384];

static bool can_run(void)
{
    const char *engine = world_program("fio-domzero.so");
    if (access(engine, R_OK) < 0) {
        print_message("skipped: no %s; `make plugins` builds it where fio's source can be had\n", engine);
        return false;
    }
    if (system("command -v fio > /dev/null") != 0) {
        print_message("skipped: no fio here; `make check-peers` installs it\n");
        return false;
    }
    return true;
}

static int setup(void **state)
{
    (void)state;
    if (can_run())
        world_start(&world, NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (world.daemon)
        world_stop(&world);
    return 0;
}

#define NEEDS_FIO()        \
    do {                   \
        (void)state;       \
        if (!world.daemon) \
            skip();        \
    } while (0)

/* Runs fio as a process of domain `vm` in the world's directory; its exit status. */
static int fio(const char *arguments)
{
    return world_shell(&world, said, sizeof(said),
                       "cd %s && %s exec vm -- fio --ioengine=external:%s --verify_state_save=0 %s", world.dir,
                       world_program("domzero"), world_program("fio-domzero.so"), arguments);
}

static void destroy(void)
{
    if (world_domzero(&world, said, sizeof(said), "destroy vm") != 0)
        fail_msg("destroy: %s", said);
}

/* ---- tests ---- */

/* Blocks of all sizes, several requests each, and flushes between them. */
#define VERIFIED                                                                                                       \
    "[global]\nverify=crc32c\niodepth=16\nsize=48m\nbsrange=4k-128k\nblockalign=4k\nrandseed=7\n[job]\nrw=randwrite\n" \
    "fsync=100\n"

static void test_what_fio_wrote_verifies_through_the_disk_and_in_the_image(void **state)
{
    NEEDS_FIO();
    world_image(&world, "disk.img", 64 * MIB, 1);
    world_guest(&world, "vm", "disk.img", NULL);
    world_write(&world, "job.fio", VERIFIED);
    if (fio("--domzero_vdev=xvda job.fio") != 0)
        fail_msg("fio: %s", said);
    assert_non_null(strstr(said, "err= 0"));
    destroy();
    int status = world_shell(&world, said, sizeof(said),
                             "cd %s && fio --ioengine=psync --verify_only --verify_state_save=0 --filename=disk.img "
                             "job.fio",
                             world.dir);
    if (status != 0)
        fail_msg("fio on the image: %s", said);
}

static void test_blocks_that_are_no_pages_and_more_than_the_pool_verify(void **state)
{
    NEEDS_FIO();
    static const char *const jobs[] = {
        "--bs=1536 --iodepth=7 --size=4m",            /* buffers that begin in the middle of a page */
        "--bs=512 --iodepth=32 --size=1m",            /* the ring full of single sectors */
        "--bs=4m --iodepth=2 --size=32m",             /* more requests than the ring takes */
        "--bs=1m --iodepth=64 --size=48m",            /* more than the pool: bounced */
        "--bs=64k --iodepth=4 --size=16m --thread=1", /* a thread of fio and not a process */
        "--bs=4k --iodepth=8 --size=2m --direct=1 --fdatasync=32 --domzero_spin_us=50",
    };
    world_image(&world, "disk.img", 64 * MIB, 2);
    world_guest(&world, "vm", "disk.img", NULL);
    for (unsigned i = 0; i < ARRAY_SIZE(jobs); i++) {
        char arguments[256];
        snprintf(arguments, sizeof(arguments), "--domzero_vdev=xvda --name=job --rw=randwrite --verify=crc32c %s",
                 jobs[i]);
        if (fio(arguments) != 0)
            fail_msg("fio %s: %s", arguments, said);
    }
    destroy();
}

static bool disk_is_connected(void *ctx)
{
    return world_shell(&world, said, sizeof(said), "xenstore-read /local/domain/0/backend/vbd/%u/51712/state",
                       *(unsigned *)ctx) == 0 &&
           strcmp(said, "4\n") == 0;
}

static void test_fio_verifies_while_the_backend_is_killed_twice(void **state)
{
    NEEDS_FIO();
    world_image(&world, "disk.img", 64 * MIB, 3);
    unsigned domid = world_guest(&world, "vm", "disk.img", NULL);
    world_write(&world, "job.fio", VERIFIED "rate=20m,20m\n"); /* more than two seconds to write, and as long to read */
    const char *out = world_path(&world, "fio.out"), *job = world_path(&world, "job.fio");
    char engine[600];
    snprintf(engine, sizeof(engine), "--ioengine=external:%s", world_program("fio-domzero.so"));
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        int fd = open(out, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        dup2(fd, 1);
        dup2(fd, 2);
        execl(world_program("domzero"), "domzero", "--run-dir", world.run, "exec", "vm", "--", "fio", engine,
              "--verify_state_save=0", "--domzero_vdev=xvda", job, (char *)NULL);
        _exit(127);
    }
    for (int round = 0; round < 2; round++) {
        poll(NULL, 0, 800);
        world_await(disk_is_connected, &domid, "the disk is connected");
        world_kill_blk(&world);
        assert_int_equal(waitpid(pid, NULL, WNOHANG), 0); /* it was in the middle */
    }
    int status = world_wait(pid);
    world_shell(&world, said, sizeof(said), "cat %s", out);
    if (status != 0)
        fail_msg("fio ended with status %d: %s", status, said);
    assert_non_null(strstr(said, "err= 0"));
    assert_non_null(strstr(said, "the backend came back 2 times"));
    destroy();
}

static void test_what_a_job_cannot_have_is_said(void **state)
{
    NEEDS_FIO();
    static const struct {
        const char *arguments, *says;
    } rows[] = {
        {"--rw=read", "domzero_vdev=xvda"},
        {"--domzero_vdev=xvdz --rw=read", "no disk xvdz"},
        {"--domzero_vdev=xvda --rw=randtrim", "no trim"},
        {"--domzero_vdev=xvda --rw=read --nrfiles=2", "one disk"},
        {"--domzero_vdev=xvda --rw=read --mem=malloc", "pool"},
        {"--domzero_vdev=xvda --rw=read --io_submit_mode=offload", "offload"},
        {"--domzero_vdev=xvda --rw=read --bs=1000", "multiples of the disk's sector size"},
        {"--domzero_vdev=xvda --rw=read --time_based --runtime=2 --name=late --domzero_vdev=xvda --rw=read "
         "--startdelay=500ms",
         "another process"},
    };
    world_image(&world, "disk.img", 4 * MIB, 4);
    world_guest(&world, "vm", "disk.img", NULL);
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        char arguments[256];
        snprintf(arguments, sizeof(arguments), "--name=job %s", rows[i].arguments);
        if (fio(arguments) == 0 || !strstr(said, rows[i].says))
            fail_msg("fio %s does not say '%s': %s", arguments, rows[i].says, said);
    }
    destroy();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_fio_wrote_verifies_through_the_disk_and_in_the_image),
        cmocka_unit_test(test_blocks_that_are_no_pages_and_more_than_the_pool_verify),
        cmocka_unit_test(test_fio_verifies_while_the_backend_is_killed_twice),
        cmocka_unit_test(test_what_a_job_cannot_have_is_said),
    };
    return cmocka_run_group_tests_name("fio", tests, setup, teardown);
}
