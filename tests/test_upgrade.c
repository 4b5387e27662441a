/* SPDX-License-Identifier: MIT */
/* `domzero upgrade`: the blk role's binary is replaced while guests do I/O, and not at all where the new one is none.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include <domzero/domzero.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include "base/util.h"
#include "tests/harness.h"

#define BLOCK  16384u
#define BLOCKS 256u
#define DEPTH  16u

static struct world world;

struct job {
    int go_fd, end_fd, end_write_fd; /* the guest is connected; it is to end when this is closed; its other end */
    unsigned reconnects;             /* at least */
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

static void destroy(const char *name)
{
    assert_int_equal(world_domzero(&world, NULL, 0, "destroy %s", name), 0);
}

/* Keeps DEPTH writes in flight; each block has the pattern of the round in which it was written last. */
static int guest_load(const char *domain_dir, void *arg)
{
    const struct job *job = arg;
    static struct dz_io io[DEPTH];
    static uint64_t seed_of[BLOCKS];
    static unsigned char is[BLOCK], should[BLOCK];
    struct dz_io *done[DEPTH];
    struct dz_domain *dom;
    struct dz_vbd *disk;
    struct pollfd end = {.fd = job->end_fd, .events = POLLIN};
    close(job->end_write_fd);
    GUEST_CHECK(dz_domain_open(domain_dir, &dom) == 0 && dz_vbd_open(dom, "xvda", WORLD_PATIENT, &disk) == 0);
    for (unsigned i = 0; i < DEPTH; i++)
        io[i] = (struct dz_io){.op = DZ_WRITE, .buffer = dz_buffer_alloc(disk, BLOCK), .length_bytes = BLOCK};
    GUEST_CHECK(io[DEPTH - 1].buffer && write(job->go_fd, "", 1) == 1);
    for (uint64_t round = 1; poll(&end, 1, 0) == 0; round++) {
        for (unsigned i = 0; i < DEPTH; i++) {
            unsigned block = (unsigned)((round * DEPTH + i) * 37 % BLOCKS);
            io[i].offset_bytes = (uint64_t)block * BLOCK;
            seed_of[block] = round;
            world_pattern(io[i].buffer, BLOCK, io[i].offset_bytes, round);
            GUEST_CHECK(dz_vbd_submit(disk, &io[i]) == 0);
        }
        for (int left = DEPTH, n; left > 0; left -= n) {
            n = dz_vbd_wait(disk, done, DEPTH, -1);
            GUEST_CHECK(n > 0);
            for (int i = 0; i < n; i++)
                GUEST_CHECK(done[i]->result == 0);
        }
    }
    for (unsigned block = 0; block < BLOCKS; block++) {
        GUEST_CHECK(dz_vbd_read(disk, is, BLOCK, (uint64_t)block * BLOCK) == 0);
        world_pattern(should, BLOCK, (uint64_t)block * BLOCK, seed_of[block]);
        GUEST_CHECK(!seed_of[block] || !memcmp(is, should, BLOCK));
    }
    struct dz_vbd_stats stats;
    dz_vbd_stats(disk, &stats);
    GUEST_CHECK(stats.errors == 0 && stats.reconnects >= job->reconnects);
    dz_vbd_close(disk);
    dz_domain_close(dom);
    return 0;
}

static pid_t guest_start(const char *name, struct job *job)
{
    char byte, image[32];
    int go[2], end[2];
    snprintf(image, sizeof(image), "%s.img", name);
    world_image(&world, image, BLOCK * BLOCKS, 1);
    unsigned domid = world_guest(&world, name, image, "direct-io=1");
    assert_int_equal(pipe2(go, O_CLOEXEC) | pipe2(end, O_CLOEXEC), 0);
    job->go_fd = go[1];
    job->end_fd = end[0];
    job->end_write_fd = end[1];
    pid_t pid = world_spawn(&world, domid, guest_load, job);
    close(go[1]); /* so that the end of a guest that failed is seen */
    assert_int_equal(read(go[0], &byte, 1), 1);
    close(go[0]);
    close(end[0]);
    return pid;
}

static void test_guests_under_load_see_no_error(void **state)
{
    char out[2048];
    struct job a = {.reconnects = 5}, b = {.reconnects = 5};
    (void)state;
    pid_t guest_a = guest_start("a", &a), guest_b = guest_start("b", &b);
    for (unsigned i = 0; i < 5; i++) {
        pid_t before = world_role(&world, "blk");
        if (world_domzero(&world, out, sizeof(out), "upgrade"))
            fail_msg("%s", out);
        assert_non_null(strstr(out, "2 of 2 disks are connected again, pause "));
        assert_int_not_equal(world_role(&world, "blk"), before);
        poll(NULL, 0, 50);
    }
    /* The old one ended what it had begun: nothing was in flight. */
    assert_int_equal(world_domzero(&world, out, sizeof(out), "block-stats a xvda | grep -w inherited"), 0);
    if (!strstr(out, " 0  "))
        fail_msg("%s", out);
    close(a.end_write_fd);
    close(b.end_write_fd);
    assert_int_equal(world_wait(guest_a), 0);
    assert_int_equal(world_wait(guest_b), 0);
    destroy("a");
    destroy("b");
}

static void refused(const char *binary, const char *why)
{
    char out[2048];
    pid_t before = world_role(&world, "blk");
    assert_int_equal(world_domzero(&world, out, sizeof(out), "upgrade --binary %s", binary), 1);
    if (!strstr(out, why))
        fail_msg("'%s' is not in: %s", why, out);
    assert_int_equal(world_role(&world, "blk"), before);
    assert_int_equal(kill(before, 0), 0);
}

static void test_a_binary_that_is_no_role_changes_nothing(void **state)
{
    struct job job = {0};
    (void)state;
    pid_t guest = guest_start("vm", &job);
    refused("/no/such/file", "No such file");
    refused("/etc/passwd", "Permission denied");
    refused("/bin/false", "ended with status 1; the running role goes on");
    refused("/bin/true", "ended with status 0; the running role goes on");
    world_write(&world, "bad", "no program\n");
    assert_int_equal(world_shell(&world, NULL, 0, "chmod +x %s", world_path(&world, "bad")), 0);
    refused(world_path(&world, "bad"), "cannot execute");
    refused(world_program("domzero"), "the running role goes on");
    close(job.end_write_fd);
    assert_int_equal(world_wait(guest), 0);
    destroy("vm");
}

/* Whether the blk role of now runs a program of that name. */
static bool runs(void *ctx)
{
    const char *name = ctx;
    char path[64], exe[512] = "";
    snprintf(path, sizeof(path), "/proc/%d/exe", world_role(&world, "blk"));
    return readlink(path, exe, sizeof(exe) - 1) > 0 && strstr(exe, name);
}

static void test_the_new_binary_stays_when_the_role_is_restarted(void **state)
{
    char out[1024];
    struct job job = {.reconnects = 2};
    (void)state;
    pid_t guest = guest_start("vm", &job);
    assert_int_equal(
        world_shell(&world, out, sizeof(out), "cp %s %s", world_program("domzerod"), world_path(&world, "newer")), 0);
    assert_false(runs("newer"));
    if (world_domzero(&world, out, sizeof(out), "upgrade --binary %s", world_path(&world, "newer")))
        fail_msg("%s", out);
    assert_true(runs("newer"));
    world_kill_blk(&world);
    world_await(runs, "newer", "the new binary is started again");
    poll(NULL, 0, 200);
    close(job.end_write_fd);
    assert_int_equal(world_wait(guest), 0);
    destroy("vm");
}

/* The supervisor's socket is not for what it does not understand, and a tool that says nothing is no end of it. */
static void test_a_query_that_is_none_is_hung_up_on(void **state)
{
    char out[512];
    (void)state;
    pid_t before = world_role(&world, "blk");
    assert_int_equal(
        world_shell(&world, out, sizeof(out),
                    "python3 -c 'import socket,sys; s=socket.socket(socket.AF_UNIX,socket.SOCK_SEQPACKET);"
                    "s.connect(sys.argv[1]); s.send(b\"x\"*600); print(len(s.recv(4096)))' %s/domzerod.sock",
                    world.run),
        0);
    assert_string_equal(out, "0\n");
    assert_int_equal(world_role(&world, "blk"), before);
    assert_int_equal(world_domzero(&world, out, sizeof(out), "upgrade"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_guests_under_load_see_no_error),
        cmocka_unit_test(test_a_binary_that_is_no_role_changes_nothing),
        cmocka_unit_test(test_the_new_binary_stays_when_the_role_is_restarted),
        cmocka_unit_test(test_a_query_that_is_none_is_hung_up_on),
    };
    return cmocka_run_group_tests_name("upgrade", tests, setup, teardown);
}
