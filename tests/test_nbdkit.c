/* SPDX-License-Identifier: MIT */
/* A virtual disk through nbdkit: the plugin in the real nbdkit, on a unix socket, as a process of the guest's domain;
 * NBD clients of other projects (nbdinfo, nbdcopy, nbddump, qemu-img, qemu-io) use it, and what they did is judged in
 * the image file from outside. Skipped where the programs, or the header to build the plugin, are not installed. */
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
#include <unistd.h>

#include "base/util.h"
#include "tests/plugin_world.h"

#define MIB        (1u << 20)
#define DISK_BYTES (16ull * MIB)

static char uri[128];

static bool socket_answers(void *ctx)
{
    (void)ctx;
    return plugin_shell("nbdinfo --size '%s'", uri) == 0;
}

/* nbdkit as a process of the guest, until it serves. */
static pid_t nbdkit_start(const char *options)
{
    snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s", world_path(&plugin_world, "nbd"));
    pid_t pid = plugin_spawn(NULL, "%s nbdkit -f -U nbd %s vdev=xvda %s", plugin_in_vm(),
                             world_program("nbdkit-domzero-plugin.so"), options);
    world_await(socket_answers, NULL, "nbdkit serves");
    return pid;
}

static void nbdkit_end(pid_t pid)
{
    kill(pid, SIGTERM);
    assert_int_equal(world_wait(pid), 0);
    assert_int_equal(unlink(world_path(&plugin_world, "nbd")), 0);
}

static void nbdkit_stop(pid_t pid)
{
    nbdkit_end(pid);
    plugin_destroy();
}

static int setup(void **state)
{
    static const char *const programs[] = {"nbdkit", "nbdinfo", "nbdcopy", "nbddump", "qemu-img", "qemu-io", NULL};
    (void)state;
    return plugin_world_start("nbdkit-domzero-plugin.so", programs);
}

static void assert_image_bytes(uint64_t offset, size_t length, int value)
{
    static unsigned char is[65536], should[65536];
    _cleanup_close_ int fd = open(world_path(&plugin_world, "disk.img"), O_RDONLY | O_CLOEXEC);
    assert_true(length <= sizeof(is));
    assert_int_equal(pread(fd, is, length, (off_t)offset), (ssize_t)length);
    memset(should, value, length);
    assert_memory_equal(is, should, length);
}

/* ---- tests ---- */

static void test_what_nbd_clients_write_is_in_the_image(void **state)
{
    NEEDS_PLUGIN();
    world_image(&plugin_world, "disk.img", DISK_BYTES, 1);
    world_image(&plugin_world, "new.img", DISK_BYTES, 2);
    world_guest(&plugin_world, "vm", "disk.img", NULL);
    plugin_shell_ok("nbdkit --dump-plugin %s", world_program("nbdkit-domzero-plugin.so"));
    assert_non_null(strstr(plugin_said, "\nthread_model=parallel"));
    pid_t nbdkit = nbdkit_start("");
    plugin_shell_ok("nbdinfo '%s'", uri);
    assert_non_null(strstr(plugin_said, "export-size: 16777216"));
    assert_non_null(strstr(plugin_said, "is_read_only: false"));
    assert_non_null(strstr(plugin_said, "can_flush: true"));
    assert_non_null(strstr(plugin_said, "can_fua: true"));
    assert_non_null(strstr(plugin_said, "block_size_minimum: 512"));
    assert_non_null(strstr(plugin_said, "block_size_preferred: 4096"));

    plugin_shell_ok("nbdcopy '%s' read.img && cmp read.img disk.img", uri);
    plugin_shell_ok("nbdcopy --flush --connections=4 new.img '%s' && cmp new.img disk.img", uri);
    plugin_shell_ok("qemu-img compare -f raw -F raw new.img '%s'", uri);
    /* A write with FUA, zeroes, and the pattern around them untouched. */
    plugin_shell_ok("qemu-io -f raw -c 'write -f -P 0x5a 1M 64k' -c 'write -z 2M 64k' -c flush '%s'", uri);
    assert_image_bytes(MIB, 65536, 0x5a);
    assert_image_bytes(2 * MIB, 65536, 0);
    plugin_shell_ok("cmp -n 1048576 new.img disk.img && cmp -i 2162688 new.img disk.img");
    nbdkit_stop(nbdkit);
}

static void test_what_is_trimmed_reads_as_zeroes_and_what_is_zeroed_too(void **state)
{
    NEEDS_PLUGIN();
    world_image(&plugin_world, "disk.img", DISK_BYTES, 8);
    plugin_shell_ok("cp disk.img before.img");
    world_guest(&plugin_world, "vm", "disk.img", NULL);
    pid_t nbdkit = nbdkit_start("");
    plugin_shell_ok("nbdinfo '%s'", uri);
    assert_non_null(strstr(plugin_said, "can_trim: true"));
    assert_non_null(strstr(plugin_said, "can_zero: true"));
    assert_non_null(strstr(plugin_said, "can_multi_conn: true"));
    plugin_shell_ok("qemu-io -f raw -d unmap -c 'discard 1M 2M' -c 'write -z 8M 5M' -c flush '%s'", uri);
    plugin_shell_ok("cmp -i 1048576 -n 2097152 disk.img /dev/zero && cmp -i 8388608 -n 5242880 disk.img /dev/zero");
    plugin_shell_ok("cmp -n 1048576 disk.img before.img && cmp -i 3145728 -n 5242880 disk.img before.img && "
                    "cmp -i 13631488 disk.img before.img");
    nbdkit_stop(nbdkit);
}

static void test_less_than_a_sector_is_refused_and_left_to_the_blocksize_filter(void **state)
{
    NEEDS_PLUGIN();
    world_image(&plugin_world, "disk.img", DISK_BYTES, 3);
    world_guest(&plugin_world, "vm", "disk.img", NULL);
    pid_t nbdkit = nbdkit_start("");
    plugin_shell_ok("nbddump --length=512 '%s'", uri);
    plugin_shell_fails("nbddump --length=100 '%s'", uri);
    assert_non_null(strstr(plugin_said, "Invalid argument"));
    nbdkit_end(nbdkit);
    nbdkit = nbdkit_start("--filter=blocksize");
    plugin_shell_ok("nbddump --length=100 '%s'", uri);
    nbdkit_stop(nbdkit);
}

static void test_a_read_only_disk_refuses_writes(void **state)
{
    NEEDS_PLUGIN();
    char cfg[512];
    world_image(&plugin_world, "disk.img", DISK_BYTES, 4);
    snprintf(cfg, sizeof(cfg), "name = \"vm\"\ndisk = [ \"format=raw,vdev=xvda,access=ro,target=%s\" ]\n",
             world_path(&plugin_world, "disk.img"));
    world_write(&plugin_world, "vm.cfg", cfg);
    plugin_shell_ok("cp disk.img copy.img && %s create vm.cfg", world_program("domzero"));
    pid_t nbdkit = nbdkit_start("");
    plugin_shell_ok("nbdinfo '%s'", uri);
    assert_non_null(strstr(plugin_said, "is_read_only: true"));
    plugin_shell_fails("qemu-io -f raw -c 'write -P 1 0 4k' '%s'", uri);
    plugin_shell_fails("nbdcopy copy.img '%s'", uri);
    plugin_shell_ok("cmp copy.img disk.img");
    nbdkit_stop(nbdkit);
}

static void test_a_copy_goes_on_over_the_backends_death(void **state)
{
    NEEDS_PLUGIN();
    world_image(&plugin_world, "disk.img", DISK_BYTES, 5);
    world_image(&plugin_world, "new.img", DISK_BYTES, 6);
    unsigned domid = world_guest(&plugin_world, "vm", "disk.img", NULL);
    pid_t nbdkit = nbdkit_start("--filter=rate rate=16M"); /* bits a second: a copy takes its time */
    pid_t copy = plugin_spawn(NULL, "nbdcopy --flush --request-size=65536 new.img '%s'", uri);
    plugin_kill_blk(copy, domid, 2, 200);
    assert_int_equal(world_wait(copy), 0);
    plugin_shell_ok("cmp new.img disk.img");
    nbdkit_stop(nbdkit);
}

static void test_what_is_missing_is_said(void **state)
{
    NEEDS_PLUGIN();
    world_image(&plugin_world, "disk.img", DISK_BYTES, 7);
    world_guest(&plugin_world, "vm", "disk.img", NULL);
    plugin_shell_fails("nbdkit %s", world_program("nbdkit-domzero-plugin.so"));
    assert_non_null(strstr(plugin_said, "vdev=xvda"));
    plugin_shell_fails("nbdkit %s xvda", world_program("nbdkit-domzero-plugin.so"));
    assert_non_null(strstr(plugin_said, "domain-dir="));
    plugin_shell_fails("%s nbdkit -U - %s xvdz --run 'nbdinfo \"$uri\"'", plugin_in_vm(),
                       world_program("nbdkit-domzero-plugin.so"));
    assert_non_null(strstr(plugin_said, "xvdz"));
    plugin_destroy();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_nbd_clients_write_is_in_the_image),
        cmocka_unit_test(test_what_is_trimmed_reads_as_zeroes_and_what_is_zeroed_too),
        cmocka_unit_test(test_less_than_a_sector_is_refused_and_left_to_the_blocksize_filter),
        cmocka_unit_test(test_a_read_only_disk_refuses_writes),
        cmocka_unit_test(test_a_copy_goes_on_over_the_backends_death),
        cmocka_unit_test(test_what_is_missing_is_said),
    };
    return cmocka_run_group_tests_name("nbdkit", tests, setup, plugin_world_stop);
}
