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
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "tests/harness.h"

#define MIB        (1u << 20)
#define DISK_BYTES (16ull * MIB)

static struct world world;
static char uri[128];
static char said[8192];

/* Runs a client; `URI` is in the environment. Fails the test with what it said unless it ends with `status`. */
#define CLIENT(status, ...)                                                              \
    do {                                                                                 \
        int is_ = world_shell(&world, said, sizeof(said), __VA_ARGS__);                  \
        if ((is_ == 0) != ((status) == 0))                                               \
            fail_msg("line %d: a client ended with status %d: %s", __LINE__, is_, said); \
    } while (0)

static bool can_run(void)
{
    static const char *const programs[] = {"nbdkit", "nbdinfo", "nbdcopy", "nbddump", "qemu-img", "qemu-io"};
    const char *plugin = world_program("nbdkit-domzero-plugin.so");
    if (access(plugin, R_OK) < 0) {
        print_message("skipped: no %s; `make plugins` builds it where nbdkit-plugin-dev is installed\n", plugin);
        return false;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(programs); i++) {
        char command[64];
        snprintf(command, sizeof(command), "command -v %s > /dev/null", programs[i]);
        if (system(command) != 0) {
            print_message("skipped: no %s here; `make check-peers` installs what is missing\n", programs[i]);
            return false;
        }
    }
    return true;
}

static bool socket_answers(void *ctx)
{
    (void)ctx;
    return world_shell(&world, said, sizeof(said), "nbdinfo --size '%s'", uri) == 0;
}

/* nbdkit as a process of the domain `vm`, until it serves. */
static pid_t nbdkit_start(const char *filter, const char *filter_option)
{
    char plugin[512];
    snprintf(plugin, sizeof(plugin), "%s", world_program("nbdkit-domzero-plugin.so"));
    snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s", world_path(&world, "nbd"));
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execl(world_program("domzero"), "domzero", "--run-dir", world.run, "exec", "vm", "--", "nbdkit", "-f", "-U",
              world_path(&world, "nbd"), plugin, "vdev=xvda", filter, filter_option, (char *)NULL);
        _exit(127);
    }
    world_await(socket_answers, NULL, "nbdkit serves");
    return pid;
}

static void nbdkit_stop(pid_t pid)
{
    kill(pid, SIGTERM);
    assert_int_equal(world_wait(pid), 0);
    assert_int_equal(unlink(world_path(&world, "nbd")), 0);
    CLIENT(0, "%s destroy vm", world_program("domzero"));
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

#define NEEDS_NBDKIT()     \
    do {                   \
        (void)state;       \
        if (!world.daemon) \
            skip();        \
    } while (0)

static void assert_image_bytes(uint64_t offset, size_t length, int value)
{
    static unsigned char is[65536], should[65536];
    _cleanup_close_ int fd = open(world_path(&world, "disk.img"), O_RDONLY | O_CLOEXEC);
    assert_true(length <= sizeof(is));
    assert_int_equal(pread(fd, is, length, (off_t)offset), (ssize_t)length);
    memset(should, value, length);
    assert_memory_equal(is, should, length);
}

/* ---- tests ---- */

static void test_what_nbd_clients_write_is_in_the_image(void **state)
{
    NEEDS_NBDKIT();
    world_image(&world, "disk.img", DISK_BYTES, 1);
    world_image(&world, "new.img", DISK_BYTES, 2);
    world_guest(&world, "vm", "disk.img", NULL);
    pid_t nbdkit = nbdkit_start(NULL, NULL);
    CLIENT(0, "nbdinfo '%s'", uri);
    assert_non_null(strstr(said, "export-size: 16777216"));
    assert_non_null(strstr(said, "is_read_only: false"));
    assert_non_null(strstr(said, "can_flush: true"));
    assert_non_null(strstr(said, "can_fua: true"));
    assert_non_null(strstr(said, "block_size_minimum: 512"));
    assert_non_null(strstr(said, "block_size_preferred: 4096"));

    CLIENT(0, "nbdcopy '%s' %s && cmp %s %s", uri, world_path(&world, "read.img"), world_path(&world, "read.img"),
           world_path(&world, "disk.img"));
    CLIENT(0, "nbdcopy --flush --connections=4 %s '%s' && cmp %s %s", world_path(&world, "new.img"), uri,
           world_path(&world, "new.img"), world_path(&world, "disk.img"));
    CLIENT(0, "qemu-img compare -f raw -F raw %s '%s'", world_path(&world, "new.img"), uri);
    /* A write with FUA, zeroes, and the pattern around them untouched. */
    CLIENT(0, "qemu-io -f raw -c 'write -f -P 0x5a 1M 64k' -c 'write -z 2M 64k' -c flush '%s'", uri);
    assert_image_bytes(MIB, 65536, 0x5a);
    assert_image_bytes(2 * MIB, 65536, 0);
    CLIENT(0, "cmp -n 1048576 %s %s && cmp -i 2162688 %s %s", world_path(&world, "new.img"),
           world_path(&world, "disk.img"), world_path(&world, "new.img"), world_path(&world, "disk.img"));
    nbdkit_stop(nbdkit);
}

static void test_less_than_a_sector_is_refused_and_left_to_the_blocksize_filter(void **state)
{
    NEEDS_NBDKIT();
    world_image(&world, "disk.img", DISK_BYTES, 3);
    world_guest(&world, "vm", "disk.img", NULL);
    pid_t nbdkit = nbdkit_start(NULL, NULL);
    CLIENT(0, "nbddump --length=512 '%s'", uri);
    CLIENT(1, "nbddump --length=100 '%s'", uri);
    assert_non_null(strstr(said, "Invalid argument"));
    kill(nbdkit, SIGTERM);
    assert_int_equal(world_wait(nbdkit), 0);
    unlink(world_path(&world, "nbd"));
    nbdkit = nbdkit_start("--filter=blocksize", NULL);
    CLIENT(0, "nbddump --length=100 '%s'", uri);
    nbdkit_stop(nbdkit);
}

static void test_a_read_only_disk_refuses_writes(void **state)
{
    NEEDS_NBDKIT();
    char cfg[512];
    world_image(&world, "disk.img", DISK_BYTES, 4);
    snprintf(cfg, sizeof(cfg), "name = \"vm\"\ndisk = [ \"format=raw,vdev=xvda,access=ro,target=%s\" ]\n",
             world_path(&world, "disk.img"));
    world_write(&world, "vm.cfg", cfg);
    CLIENT(0, "cp %s %s && %s create %s", world_path(&world, "disk.img"), world_path(&world, "copy.img"),
           world_program("domzero"), world_path(&world, "vm.cfg"));
    pid_t nbdkit = nbdkit_start(NULL, NULL);
    CLIENT(0, "nbdinfo '%s'", uri);
    assert_non_null(strstr(said, "is_read_only: true"));
    CLIENT(1, "qemu-io -f raw -c 'write -P 1 0 4k' '%s'", uri);
    CLIENT(1, "nbdcopy %s '%s'", world_path(&world, "copy.img"), uri);
    CLIENT(0, "cmp %s %s", world_path(&world, "copy.img"), world_path(&world, "disk.img"));
    nbdkit_stop(nbdkit);
}

static void test_a_copy_goes_on_over_the_backends_death(void **state)
{
    NEEDS_NBDKIT();
    world_image(&world, "disk.img", DISK_BYTES, 5);
    world_image(&world, "new.img", DISK_BYTES, 6);
    world_guest(&world, "vm", "disk.img", NULL);
    pid_t nbdkit = nbdkit_start("--filter=rate", "rate=48M"); /* bits a second: a copy takes its time */
    pid_t copy = fork();
    assert_true(copy >= 0);
    if (copy == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execlp("nbdcopy", "nbdcopy", "--flush", "--request-size=65536", world_path(&world, "new.img"), uri,
               (char *)NULL);
        _exit(127);
    }
    for (int round = 0; round < 2; round++) {
        poll(NULL, 0, 200);
        world_kill_blk(&world);
        assert_int_equal(waitpid(copy, NULL, WNOHANG), 0); /* it was in the middle */
    }
    assert_int_equal(world_wait(copy), 0);
    CLIENT(0, "cmp %s %s", world_path(&world, "new.img"), world_path(&world, "disk.img"));
    nbdkit_stop(nbdkit);
}

static void test_what_is_missing_is_said(void **state)
{
    NEEDS_NBDKIT();
    world_image(&world, "disk.img", DISK_BYTES, 7);
    world_guest(&world, "vm", "disk.img", NULL);
    CLIENT(1, "nbdkit %s", world_program("nbdkit-domzero-plugin.so"));
    assert_non_null(strstr(said, "vdev=xvda"));
    CLIENT(1, "nbdkit %s xvda", world_program("nbdkit-domzero-plugin.so"));
    assert_non_null(strstr(said, "domain-dir="));
    CLIENT(1, "%s exec vm -- nbdkit -U - %s xvdz --run 'nbdinfo \"$uri\"'", world_program("domzero"),
           world_program("nbdkit-domzero-plugin.so"));
    assert_non_null(strstr(said, "xvdz"));
    CLIENT(0, "%s destroy vm", world_program("domzero"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_nbd_clients_write_is_in_the_image),
        cmocka_unit_test(test_less_than_a_sector_is_refused_and_left_to_the_blocksize_filter),
        cmocka_unit_test(test_a_read_only_disk_refuses_writes),
        cmocka_unit_test(test_a_copy_goes_on_over_the_backends_death),
        cmocka_unit_test(test_what_is_missing_is_said),
    };
    return cmocka_run_group_tests_name("nbdkit", tests, setup, teardown);
}
