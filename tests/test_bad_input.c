/* SPDX-License-Identifier: MIT */
/* The table of what an operator can get wrong: each case through the real programs, with the status and the part of the
 * sentence that must say what was wrong; after each, nothing is left behind and a good guest still works. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "tests/harness.h"

#define MIB (1u << 20)

static struct world world;

static int setup(void **state)
{
    (void)state;
    world_start(&world, NULL);
    world_image(&world, "good.img", MIB, 1);
    world_image(&world, "neighbour.img", MIB, 1);
    world_image(&world, "odd.img", MIB + 100, 1);
    world_image(&world, "tiny.img", 100, 1);
    world_image(&world, "empty.img", 0, 1);
    world_image(&world, "readonly.img", MIB, 1);
    chmod(world_path(&world, "readonly.img"), 0400);
    mkdir(world_path(&world, "dir.img"), 0700);
    world_guest(&world, "neighbour", "neighbour.img", NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    world_stop(&world);
    return 0;
}

/* %s in a cfg is the world's directory, three times at the most. */
static const struct bad_cfg {
    const char *what, *cfg, *says;
    bool not_root; /* root may do it */
} bad_cfgs[] = {
    {"no such image", "name=\"x\"\ndisk=[\"format=raw,vdev=xvda,access=rw,target=%s/none.img\"]\n", "none.img", false},
    {"image is a directory", "name=\"x\"\ndisk=[\"format=raw,vdev=xvda,access=rw,target=%s/dir.img\"]\n", "dir.img",
     false},
    {"image is no multiple of a sector", "name=\"x\"\ndisk=[\"format=raw,vdev=xvda,access=rw,target=%s/odd.img\"]\n",
     "multiple", false},
    {"image smaller than a sector", "name=\"x\"\ndisk=[\"format=raw,vdev=xvda,access=rw,target=%s/tiny.img\"]\n",
     "tiny.img", false},
    {"image empty", "name=\"x\"\ndisk=[\"format=raw,vdev=xvda,access=rw,target=%s/empty.img\"]\n", "empty.img", false},
    {"image not writable", "name=\"x\"\ndisk=[\"format=raw,vdev=xvda,access=rw,target=%s/readonly.img\"]\n",
     "readonly.img", true},
    {"image of another guest", "name=\"x\"\ndisk=[\"format=raw,vdev=xvda,access=rw,target=%s/neighbour.img\"]\n",
     "neighbour.img", false},
    {"region past the end",
     "name=\"x\"\ndisk=[\"format=raw,vdev=xvda,access=rw,target=%s/"
     "good.img\"]\ndisk_options=[\"xvda,offset=512K,size=1M\"]\n",
     "good.img", false},
    {"region that wraps",
     "name=\"x\"\ndisk=[\"format=raw,vdev=xvda,access=rw,target=%s/"
     "good.img\"]\ndisk_options=[\"xvda,offset=18446744073709551104,size=1M\"]\n",
     "offset", false},
    {"unknown DMA strategy",
     "name=\"x\"\ndisk=[\"format=raw,vdev=xvda,access=rw,target=%s/good.img\"]\ndisk_options=[\"xvda,dma=magic\"]\n",
     "magic", false},
    {"unknown format", "name=\"x\"\ndisk=[\"format=qcow2,vdev=xvda,access=rw,target=%s/good.img\"]\n", "qcow2", false},
    {"torn cfg", "name=\"x\"\ndisk=[\"format=raw,vdev=xvda,acc", "", false},
    {"unknown key", "name=\"x\"\ndisks=[\"format=raw,vdev=xvda,access=rw,target=%s/good.img\"]\n", "disks", false},
    {"no name", "disk=[\"format=raw,vdev=xvda,access=rw,target=%s/good.img\"]\n", "name", false},
    {"name taken", "name=\"neighbour\"\ndisk=[\"format=raw,vdev=xvda,access=rw,target=%s/good.img\"]\n", "neighbour",
     false},
    {"one device twice",
     "name=\"x\"\ndisk=[\"format=raw,vdev=xvda,access=rw,target=%s/"
     "good.img\",\"format=raw,vdev=xvda,access=ro,target=%s/good.img\"]\n",
     "xvda", false},
};

static void assert_nothing_left(void)
{
    char out[4096];
    assert_int_equal(world_domzero(&world, out, sizeof(out), "list"), 0);
    assert_non_null(strstr(out, "neighbour"));
    assert_null(strstr(out, "\nx "));
    assert_int_equal(world_shell(&world, out, sizeof(out), "xenstore-list /local/domain/0/backend/vbd | wc -l"), 0);
    assert_string_equal(out, "1\n");
}

static void test_each_bad_cfg_is_refused_with_a_reason_and_leaves_nothing(void **state)
{
    (void)state;
    char cfg[1024], out[4096];
    for (unsigned i = 0; i < ARRAY_SIZE(bad_cfgs); i++) {
        const struct bad_cfg *c = &bad_cfgs[i];
        if (c->not_root && geteuid() == 0)
            continue;
        snprintf(cfg, sizeof(cfg), c->cfg, world.dir, world.dir, world.dir);
        world_write(&world, "x.cfg", cfg);
        int status = world_domzero(&world, out, sizeof(out), "create %s", world_path(&world, "x.cfg"));
        print_message("%-36s exit %d: %s", c->what, status, out);
        if (status != 1)
            fail_msg("%s: exit status %d, should be 1", c->what, status);
        if (!strstr(out, c->says) || strlen(out) < 10)
            fail_msg("%s: says \"%s\", which does not name %s", c->what, out, c->says);
        assert_nothing_left();
    }
}

static const struct bad_command {
    const char *args;
    int status;
    const char *says;
} bad_commands[] = {
    {"frobnicate", 2, "frobnicate"},
    {"", 2, "usage"},
    {"create", 2, "usage"},
    {"create /nonexistent.cfg", 1, "nonexistent.cfg"},
    {"destroy nobody", 1, "nobody"},
    {"destroy 4711", 1, "4711"},
    {"destroy 0", 1, "0"},
    {"block-list nobody", 1, "nobody"},
    {"block-attach neighbour", 2, "usage"},
    {"block-attach neighbour vdev=xvda,format=raw,access=rw,target=/tmp/x", 1, "xvda"},
    {"block-attach neighbour vdev=nonsense,format=raw,access=rw,target=/tmp/x", 1, "nonsense"},
    {"block-detach neighbour xvdq", 1, "xvdq"},
    {"exec neighbour -- /nonexistent/program", 1, "/nonexistent/program"},
    {"exec nobody -- true", 1, "nobody"},
};

static void test_each_bad_command_is_refused_with_a_reason(void **state)
{
    (void)state;
    char out[8192];
    for (unsigned i = 0; i < ARRAY_SIZE(bad_commands); i++) {
        const struct bad_command *c = &bad_commands[i];
        int status = world_domzero(&world, out, sizeof(out), "%s", c->args);
        print_message("domzero %-40s exit %d: %s", c->args, status, out);
        if (status != c->status)
            fail_msg("domzero %s: exit status %d, should be %d", c->args, status, c->status);
        if (!strstr(out, c->says))
            fail_msg("domzero %s: says \"%s\", which does not name %s", c->args, out, c->says);
    }
    assert_nothing_left();
}

static void test_an_image_locked_by_another_process_is_named(void **state)
{
    (void)state;
    char out[4096];
    _cleanup_close_ int fd = open(world_path(&world, "good.img"), O_RDWR | O_CLOEXEC);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), 0);
    world_write(&world, "x.cfg", "name = \"x\"\n");
    char spec[256];
    snprintf(spec, sizeof(spec), "format=raw,vdev=xvdb,access=rw,target=%s", world_path(&world, "good.img"));
    assert_int_equal(world_domzero(&world, out, sizeof(out), "block-attach neighbour %s", spec), 1);
    assert_non_null(strstr(out, "good.img"));
    assert_non_null(strstr(out, "lock"));
    fd_closep(&fd);
    if (world_domzero(&world, out, sizeof(out), "block-attach neighbour %s", spec) != 0)
        fail_msg("with the lock gone: %s", out);
    assert_int_equal(world_domzero(&world, out, sizeof(out), "block-detach neighbour xvdb"), 0);
}

static void test_a_second_daemon_in_the_same_directory_is_refused(void **state)
{
    (void)state;
    char out[1024];
    assert_int_equal(
        world_shell(&world, out, sizeof(out), "%s --foreground --run-dir %s", world_program("domzerod"), world.run), 1);
    assert_non_null(strstr(out, "runs in"));
    assert_int_equal(world_shell(&world, out, sizeof(out), "%s --no-such-option", world_program("domzerod")), 2);
    assert_int_equal(
        world_shell(&world, out, sizeof(out), "%s --role blk,magic --run-dir /tmp", world_program("domzerod")), 2);
    assert_non_null(strstr(out, "magic"));
    assert_int_equal(world_shell(&world, out, sizeof(out), "%s --domain-dir /tmp", world_program("domzerod")), 2);
    assert_nothing_left();
}

static void test_a_run_directory_too_long_for_sockets_is_named(void **state)
{
    (void)state;
    char out[2048], longname[121];
    memset(longname, 'd', sizeof(longname) - 1);
    longname[sizeof(longname) - 1] = 0;
    assert_int_equal(world_shell(&world, out, sizeof(out), "%s --foreground --run-dir %s/%s", world_program("domzerod"),
                                 world.dir, longname),
                     1);
    assert_non_null(strstr(out, "shorter run directory"));
}

static void test_a_good_guest_still_works_after_all_that(void **state)
{
    (void)state;
    char out[4096];
    if (world_domzero(&world, out, sizeof(out), "exec neighbour -- %s xvda --length 1048576 | cmp - %s",
                      world_program("examples/04-read-disk"), world_path(&world, "neighbour.img")))
        fail_msg("%s", out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_bad_cfg_is_refused_with_a_reason_and_leaves_nothing),
        cmocka_unit_test(test_each_bad_command_is_refused_with_a_reason),
        cmocka_unit_test(test_an_image_locked_by_another_process_is_named),
        cmocka_unit_test(test_a_second_daemon_in_the_same_directory_is_refused),
        cmocka_unit_test(test_a_run_directory_too_long_for_sockets_is_named),
        cmocka_unit_test(test_a_good_guest_still_works_after_all_that),
    };
    return cmocka_run_group_tests_name("bad input", tests, setup, teardown);
}
