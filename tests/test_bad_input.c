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
#include <signal.h>
#include <stdlib.h>
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
    {"--no-such-option list", 2, "--no-such-option"},
    {"--run-dir '' list", 1, "empty name"},
    {"create --help", 0, "FILE.cfg"},
    {"create", 2, "usage"},
    {"create /nonexistent.cfg", 1, "nonexistent.cfg"},
    {"destroy nobody", 1, "nobody"},
    {"destroy 4711", 1, "4711"},
    {"destroy 0", 1, "0"},
    {"introduce neighbour", 2, "usage"},
    {"introduce neighbour --port=many", 2, "usage"},
    {"introduce neighbour --port=4294967296", 2, "usage"},
    {"introduce nobody --port=1", 1, "nobody"},
    {"introduce 0 --port=1", 1, "0"},
    {"introduce neighbour --port=77", 1, "reference 1"},
    {"block-list nobody", 1, "nobody"},
    {"block-attach neighbour", 2, "usage"},
    {"block-attach neighbour vdev=xvda,format=raw,access=rw,target=/tmp/x", 1, "xvda"},
    {"block-attach neighbour vdev=nonsense,format=raw,access=rw,target=/tmp/x", 1, "nonsense"},
    {"block-detach neighbour xvdq", 1, "xvdq"},
    {"block-resume neighbour", 2, "usage"},
    {"block-resume neighbour xvdq", 1, "xvdq"},
    {"block-resume neighbour xvda", 1, "nothing is held"},
    {"block-attach neighbour vdev=xvdc,format=raw,access=rw,target=/tmp/x on-error=panic", 1, "stop"},
    {"upgrade now", 2, "usage"},
    {"upgrade --binary /no/such/file", 1, "/no/such/file"},
    {"upgrade --binary /bin/false", 1, "the running role goes on"},
    {"block-stats nobody", 1, "nobody"},
    {"block-stats neighbour xvdq", 1, "block-list"},
    {"block-stats neighbour nonsense", 1, "nonsense"},
    {"block-stats --json --prometheus", 2, "usage"},
    {"block-stats neighbour xvda xvdb", 2, "usage"},
    {"--run-dir /nonexistent block-stats", 1, "/nonexistent"},
    {"top", 1, "--batch"},
    {"top --batch 0", 1, "0"},
    {"top --batch", 2, "usage"},
    {"top --batch 1 --delay nan", 1, "nan"},
    {"top --batch 1 --delay 0.001", 1, "0.001"},
    {"top --batch 1 --sort size", 1, "size"},
    {"top neighbour", 2, "usage"},
    {"exec neighbour -- /nonexistent/program", 1, "/nonexistent/program"},
    {"exec neighbour -- ''", 1, "\"\""},
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
    assert_nothing_left();
}

static const struct bad_command daemon_commands[] = {
    {"--no-such-option", 2, "'--no-such-option'"},
    {"-x", 2, "'-x'"},
    {"--run-dir", 2, "'--run-dir' lacks its value"},
    {"--spin-us=-1", 2, "'-1'"},
    {"--poll sometimes", 2, "sometimes"},
    {"--store-answers=perl", 2, "'perl'"},
    {"--store-quota=magic=1", 2, "no quota 'magic'"},
    {"--store-quota=nodes", 2, "'nodes' is no NAME=NUMBER"},
    {"--store-quota=watches=1,nodes=0", 2, "'0' is no number for the quota nodes"},
    {"stray", 2, "'stray'"},
    {"--role blk,magic --run-dir /tmp", 2, "magic"},
    {"--role store --domain-dir /tmp", 2, "role blk and no other"},
    {"--run-dir /tmp --domain-dir /tmp", 2, "exclude each other"},
    {"--domain-dir /nonexistent", 1, "no domain in /nonexistent"},
    {"--run-dir ''", 1, "empty name"},
    {"--run-dir /nonexistent/run", 1, "/nonexistent/run"},
};

static void test_each_bad_option_of_the_daemon_is_refused_in_one_line(void **state)
{
    (void)state;
    char out[4096];
    for (unsigned i = 0; i < ARRAY_SIZE(daemon_commands); i++) {
        const struct bad_command *c = &daemon_commands[i];
        int status = world_shell(&world, out, sizeof(out), "%s %s", world_program("domzerod"), c->args);
        print_message("domzerod %-40s exit %d: %s", c->args, status, out);
        if (status != c->status)
            fail_msg("domzerod %s: exit status %d, should be %d", c->args, status, c->status);
        if (!strstr(out, c->says) || strchr(out, '\n') != out + strlen(out) - 1)
            fail_msg("domzerod %s: says \"%s\", which is no line that names %s", c->args, out, c->says);
    }
}

static bool no_file(void *path)
{
    return access(path, F_OK) < 0;
}

static void stop_daemon(char *pid_file)
{
    char out[512];
    if (world_shell(&world, out, sizeof(out), "kill $(cat %s)", pid_file))
        fail_msg("%s", out);
    world_await(no_file, pid_file, "the end of a daemon in the background");
}

/* Whoever reads what the daemon prints, such as $(domzerod 2>&1), gets to its end while the daemon runs on. */
static void test_a_daemon_in_the_background_lets_go_of_where_it_was_started(void **state)
{
    (void)state;
    char out[1024], pid_file[128];
    assert_int_equal(world_shell(&world, out, sizeof(out), "%s --run-dir %s 2>&1 | timeout 20 cat",
                                 world_program("domzerod"), world_path(&world, "bg")),
                     0);
    assert_non_null(strstr(out, "serving in"));
    snprintf(pid_file, sizeof(pid_file), "%s/domzerod.pid", world_path(&world, "bg"));
    world_write(&world, "x.cfg", "name = \"x\"\ndisk = [ \"none.img,raw,xvda,rw\" ]\n");
    assert_int_equal(world_domzero(&world, out, sizeof(out), "--run-dir %s create %s", world_path(&world, "bg"),
                                   world_path(&world, "x.cfg")),
                     1);
    assert_int_equal(world_shell(&world, out, sizeof(out), "cat %s/domzerod.log", world_path(&world, "bg")), 0);
    assert_non_null(strstr(out, "none.img"));
    stop_daemon(pid_file);
}

static void test_a_domains_directory_has_one_daemon_which_ends_with_the_domain(void **state)
{
    (void)state;
    char out[1024], dir[96], pid_file[128];
    world_write(&world, "x.cfg", "name = \"x\"\n");
    assert_int_equal(world_domzero(&world, out, sizeof(out), "create %s", world_path(&world, "x.cfg")), 0);
    snprintf(dir, sizeof(dir), "%s/dom/%lu", world.run, strtoul(strstr(out, "domid ") + 6, NULL, 10));
    snprintf(pid_file, sizeof(pid_file), "%s/domzerod.pid", dir);
    if (world_shell(&world, out, sizeof(out), "%s --domain-dir %s 2>&1", world_program("domzerod"), dir))
        fail_msg("%s", out);
    assert_int_equal(world_shell(&world, out, sizeof(out), "%s --domain-dir %s", world_program("domzerod"), dir), 1);
    assert_non_null(strstr(out, "runs in"));
    assert_int_equal(world_domzero(&world, out, sizeof(out), "destroy x"), 0);
    world_await(no_file, dir, "the end of the daemon whose domain is gone");
    assert_nothing_left();
}

/* No backend answers, so the create waits; the shell goes on when the domain is there. */
static void test_a_create_that_is_interrupted_leaves_nothing(void **state)
{
    (void)state;
    char out[2048];
    const char *tool = world_program("domzero");
    pid_t blk = world_role(&world, "blk");
    world_write(&world, "x.cfg", "name = \"x\"\ndisk = [ \"good.img,raw,xvda,rw\" ]\n");
    kill(blk, SIGSTOP);
    int status = world_shell(&world, out, sizeof(out),
                             "%s create %s & pid=$!\n"
                             "until %s list | grep -q '^x '; do sleep 0.05; done; kill $pid; wait $pid",
                             tool, world_path(&world, "x.cfg"), tool);
    kill(blk, SIGCONT);
    assert_int_equal(status, 1);
    assert_non_null(strstr(out, "interrupted"));
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
        cmocka_unit_test(test_each_bad_option_of_the_daemon_is_refused_in_one_line),
        cmocka_unit_test(test_a_daemon_in_the_background_lets_go_of_where_it_was_started),
        cmocka_unit_test(test_a_domains_directory_has_one_daemon_which_ends_with_the_domain),
        cmocka_unit_test(test_a_create_that_is_interrupted_leaves_nothing),
        cmocka_unit_test(test_a_run_directory_too_long_for_sockets_is_named),
        cmocka_unit_test(test_a_good_guest_still_works_after_all_that),
    };
    return cmocka_run_group_tests_name("bad input", tests, setup, teardown);
}
