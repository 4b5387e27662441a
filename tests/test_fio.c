/* SPDX-License-Identifier: MIT */
/* fio on a virtual disk: the engine in the real fio, as a process of the guest's domain. fio judges by reading back and
 * comparing checksums; that the data is in the image is judged from outside, by fio on the image file. Skipped where
 * fio or the engine is not there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/util.h"
#include "tests/plugin_world.h"

#define MIB (1ull << 20)

static int setup(void **state)
{
    static const char *const programs[] = {"fio", NULL};
    (void)state;
    return plugin_world_start("fio-domzero.so", programs);
}

#define FIO "%s fio --ioengine=external:%s --verify_state_save=0 "

/* Runs fio as a process of the guest; its exit status. */
static int fio(const char *arguments)
{
    return plugin_shell(FIO "%s", plugin_in_vm(), world_program("fio-domzero.so"), arguments);
}

/* ---- tests ---- */

/* Blocks of all sizes, several requests each, and flushes between them. */
#define VERIFIED                                                                                                       \
    "[global]\nverify=crc32c\niodepth=16\nsize=48m\nbsrange=4k-128k\nblockalign=4k\nrandseed=7\n[job]\nrw=randwrite\n" \
    "fsync=100\n"

static void test_what_fio_wrote_verifies_through_the_disk_and_in_the_image(void **state)
{
    NEEDS_PLUGIN();
    world_image(&plugin_world, "disk.img", 64 * MIB, 1);
    world_guest(&plugin_world, "vm", "disk.img", NULL);
    world_write(&plugin_world, "job.fio", VERIFIED);
    if (fio("--domzero_vdev=xvda job.fio") != 0)
        fail_msg("fio: %s", plugin_said);
    assert_non_null(strstr(plugin_said, "err= 0"));
    plugin_destroy();
    plugin_shell_ok("fio --ioengine=psync --verify_only --verify_state_save=0 --filename=disk.img job.fio");
}

static void test_blocks_that_are_no_pages_and_more_than_the_pool_verify(void **state)
{
    NEEDS_PLUGIN();
    static const char *const jobs[] = {
        "--bs=1536 --iodepth=7 --size=4m",            /* buffers that begin in the middle of a page */
        "--bs=512 --iodepth=32 --size=1m",            /* the ring full of single sectors */
        "--bs=4m --iodepth=2 --size=32m",             /* more requests than the ring takes */
        "--bs=1m --iodepth=64 --size=48m",            /* more than the pool: bounced */
        "--bs=64k --iodepth=4 --size=16m --thread=1", /* a thread of fio and not a process */
        "--bs=4k --iodepth=8 --size=2m --direct=1 --fdatasync=32 --domzero_spin_us=50",
        "--bs=16k --iodepth=128 --size=32m", /* a ring of several pages */
    };
    world_image(&plugin_world, "disk.img", 64 * MIB, 2);
    world_guest(&plugin_world, "vm", "disk.img", NULL);
    for (unsigned i = 0; i < ARRAY_SIZE(jobs); i++) {
        char arguments[256];
        snprintf(arguments, sizeof(arguments), "--domzero_vdev=xvda --name=job --rw=randwrite --verify=crc32c %s",
                 jobs[i]);
        if (fio(arguments) != 0)
            fail_msg("fio %s: %s", arguments, plugin_said);
    }
    plugin_destroy();
}

static void test_jobs_that_are_threads_share_a_disk(void **state)
{
    NEEDS_PLUGIN();
    world_image(&plugin_world, "disk.img", 64 * MIB, 5);
    world_guest(&plugin_world, "vm", "disk.img", NULL);
    int status = fio("--domzero_vdev=xvda --thread=1 --numjobs=8 --size=8m --offset_increment=8m --name=job "
                     "--rw=randwrite --bsrange=4k-1m --blockalign=4k --iodepth=8 --verify=crc32c --fsync=64");
    if (status != 0)
        fail_msg("fio: %s", plugin_said);
    plugin_destroy();
}

static void test_what_was_trimmed_reads_as_zeroes_and_is_given_back(void **state)
{
    NEEDS_PLUGIN();
    world_image(&plugin_world, "disk.img", 16 * MIB, 6);
    world_guest(&plugin_world, "vm", "disk.img", NULL);
    if (fio("--domzero_vdev=xvda --name=job --rw=trim --bs=64k --iodepth=4 --offset=4m --size=8m") != 0)
        fail_msg("fio: %s", plugin_said);
    plugin_destroy();
    plugin_shell_ok("cmp -i 4194304 -n 8388608 disk.img /dev/zero");
    plugin_shell_fails("cmp -n 1048576 disk.img /dev/zero");
    plugin_shell_ok("test $(du -k disk.img | cut -f1) -lt 9000");
}

static void test_fio_verifies_while_the_backend_is_killed_twice(void **state)
{
    NEEDS_PLUGIN();
    world_image(&plugin_world, "disk.img", 64 * MIB, 3);
    unsigned domid = world_guest(&plugin_world, "vm", "disk.img", NULL);
    world_write(&plugin_world, "job.fio", VERIFIED "rate=10m,10m\n"); /* five seconds to write, and as long to read */
    pid_t pid =
        plugin_spawn("fio.out", FIO "--domzero_vdev=xvda job.fio", plugin_in_vm(), world_program("fio-domzero.so"));
    plugin_kill_blk(pid, domid, 2, 800);
    int status = world_wait(pid);
    plugin_shell_ok("cat fio.out");
    if (status != 0)
        fail_msg("fio ended with status %d: %s", status, plugin_said);
    assert_non_null(strstr(plugin_said, "err= 0"));
    assert_non_null(strstr(plugin_said, "the backend came back 2 times"));
    plugin_destroy();
}

static void test_what_a_job_cannot_have_is_said(void **state)
{
    NEEDS_PLUGIN();
    static const struct {
        const char *arguments, *says;
    } rows[] = {
        {"--rw=read", "domzero_vdev=xvda"},
        {"--domzero_vdev=xvdz --rw=read", "no disk xvdz"},
        {"--domzero_vdev=xvda --rw=read --nrfiles=2", "one disk"},
        {"--domzero_vdev=xvda --rw=read --mem=malloc", "pool"},
        {"--domzero_vdev=xvda --rw=read --io_submit_mode=offload", "offload"},
        {"--domzero_vdev=xvda --rw=read --bs=1000", "multiples of the disk's sector size"},
        {"--domzero_vdev=xvda --rw=read --time_based --runtime=4 --name=late --domzero_vdev=xvda --rw=read "
         "--startdelay=500ms",
         "thread=1"},
    };
    world_image(&plugin_world, "disk.img", 4 * MIB, 4);
    world_guest(&plugin_world, "vm", "disk.img", NULL);
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        char arguments[256];
        snprintf(arguments, sizeof(arguments), "--name=job %s", rows[i].arguments);
        if (fio(arguments) == 0 || !strstr(plugin_said, rows[i].says))
            fail_msg("fio %s does not say '%s': %s", arguments, rows[i].says, plugin_said);
    }
    plugin_destroy();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_fio_wrote_verifies_through_the_disk_and_in_the_image),
        cmocka_unit_test(test_blocks_that_are_no_pages_and_more_than_the_pool_verify),
        cmocka_unit_test(test_jobs_that_are_threads_share_a_disk),
        cmocka_unit_test(test_what_was_trimmed_reads_as_zeroes_and_is_given_back),
        cmocka_unit_test(test_fio_verifies_while_the_backend_is_killed_twice),
        cmocka_unit_test(test_what_a_job_cannot_have_is_said),
    };
    return cmocka_run_group_tests_name("fio", tests, setup, plugin_world_stop);
}
