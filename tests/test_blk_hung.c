/* SPDX-License-Identifier: MIT */
/* Storage that does not answer: a file of a FUSE server that is stopped. Whose disk it is waits, whatever its guest
 * sends; who has another disk on the same reactor sees nothing of it; and what waited is answered when the server goes
 * on, or with its error when the server is killed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/mqguest.h"

#define DISK_BYTES (4u << 20)
#define DISK_MIB   "4M"
#define SEED       5u

struct scene {
    struct blkworld world;
    char file[300]; /* served by FUSE */
    pid_t fuse;
    struct {
        char dir[256];
        uint16_t domid;
        struct keys_blk_config config;
        struct blkguest guest;
    } hung, neighbour;
};

static bool programs_are_here(void)
{
    if (!geteuid() && !access("/dev/fuse", R_OK | W_OK) &&
        !system("command -v nbdfuse > /dev/null && command -v nbdkit > /dev/null"))
        return true;
    print_message("skipped: FUSE, nbdfuse and nbdkit are needed\n");
    return false;
}

static void fuse_start(struct scene *s)
{
    struct stat st;
    snprintf(s->file, sizeof(s->file), "%s/hung.img", s->world.dir);
    close(open(s->file, O_CREAT | O_WRONLY, 0600));
    s->fuse = fork();
    if (!s->fuse) {
        setpgid(0, 0);
        execlp("nbdfuse", "nbdfuse", s->file, "--command", "nbdkit", "-s", "memory", DISK_MIB, (char *)NULL);
        _exit(127);
    }
    for (uint64_t end = blkworld_patience_end(); stat(s->file, &st) || st.st_size != DISK_BYTES;)
        blkworld_nap(end, "nbdfuse serves its file");
}

/* Ends whatever waits for it, too. */
static void fuse_kill(struct scene *s)
{
    umount2(s->file, MNT_DETACH);
    kill(-s->fuse, SIGKILL);
    waitpid(s->fuse, NULL, 0);
    s->fuse = 0;
}

static bool scene_start(struct scene *s)
{
    *s = (struct scene){0};
    if (!programs_are_here())
        return false;
    setenv("BLKWORLD_REACTORS", "1", 1);
    blkworld_start(&s->world, NULL);
    unsetenv("BLKWORLD_REACTORS");
    fuse_start(s);
    strcpy(s->hung.config.path, s->file);
    s->hung.config.max_queues = KEYS_BLK_QUEUES_MAX;
    s->hung.domid = blkworld_domain(&s->world, "hung", s->hung.dir, sizeof(s->hung.dir));
    blkworld_attach(&s->world, s->hung.domid, BLKWORLD_DEVID, &s->hung.config);
    s->neighbour.domid = blkworld_domain(&s->world, "neighbour", s->neighbour.dir, sizeof(s->neighbour.dir));
    blkworld_image(&s->world, "disk.img", DISK_BYTES, SEED, s->neighbour.config.path, sizeof(s->neighbour.config.path));
    blkworld_attach(&s->world, s->neighbour.domid, BLKWORLD_DEVID, &s->neighbour.config);
    blkguest_open(&s->neighbour.guest, s->neighbour.dir, BLKWORLD_DEVID);
    s->neighbour.guest.write_zeroes = s->neighbour.guest.fua = true;
    blkguest_connect(&s->neighbour.guest, NULL);
    return true;
}

static void guest_leave(struct scene *s, struct blkguest *g, uint16_t domid)
{
    blkguest_disconnect(g);
    blkguest_close(g);
    blkworld_wait_held(&s->world, domid, 0);
}

/* Everything that a disk can be asked for, also what only a thread of the kernel can do. */
static void check_neighbour(struct scene *s)
{
    struct blkguest *g = &s->neighbour.guest;
    for (unsigned i = 0; i < 20; i++) {
        blkguest_check_served(g, SEED);
        assert_int_equal(blkguest_do(g, BLKIF_OP_WRITE, 800, 2, 4, 0, 7), BLKIF_RSP_OKAY);
        assert_int_equal(blkguest_do(g, BLKIF_OP_FLUSH_DISKCACHE, 0, 0, 0, 0, 0), BLKIF_RSP_OKAY);
        assert_int_equal(blkguest_do(g, BLKREQ_OP_WRITE_FUA, 800, 2, 1, 0, 7), BLKIF_RSP_OKAY);
        assert_int_equal(blkguest_do_span(g, BLKREQ_OP_WRITE_ZEROES, 1600, 64, 0), BLKIF_RSP_OKAY);
    }
}

/* A full ring of reads, each of a page that nobody has read yet, flushes and writes among them. */
static unsigned hung_flood(struct scene *s)
{
    struct blkguest *g = &s->hung.guest;
    unsigned n = 0;
    assert_int_equal(kill(s->fuse, SIGSTOP), 0);
    for (; ring_front_room(&g->ring); n++)
        if (n % 16 == 15)
            blkguest_put(g, BLKIF_OP_FLUSH_DISKCACHE, 0, 0, 0, 0, 0);
        else
            blkguest_put(g, n % 16 == 7 ? BLKIF_OP_WRITE : BLKIF_OP_READ, n * 8, n % BLKWORLD_PAGES, 1, 0, 7);
    blkguest_kick(g);
    blkworld_stat(&s->world, s->hung.domid, BLKWORLD_DEVID, "requests", n);
    return n;
}

static unsigned hung_answers(struct scene *s, unsigned n)
{
    unsigned fine = 0;
    uint64_t id;
    for (unsigned i = 0; i < n; i++)
        fine += blkguest_take(&s->hung.guest, &id) == BLKIF_RSP_OKAY;
    return fine;
}

static void test_storage_that_does_not_answer_holds_up_nobody_elses_disk(void **state)
{
    static struct scene s;
    (void)state;
    if (!scene_start(&s))
        skip();
    blkguest_open(&s.hung.guest, s.hung.dir, BLKWORLD_DEVID);
    s.hung.guest.order = 4;
    blkguest_connect(&s.hung.guest, NULL);
    unsigned n = hung_flood(&s);
    check_neighbour(&s);
    assert_int_equal(kill(s.fuse, SIGCONT), 0);
    assert_int_equal(hung_answers(&s, n), n); /* late, and none is lost */
    guest_leave(&s, &s.hung.guest, s.hung.domid);
    guest_leave(&s, &s.neighbour.guest, s.neighbour.domid);
    fuse_kill(&s);
    blkworld_stop(&s.world);
}

/* A flush, and what else is no transfer, holds a thread of the kernel for each queue. */
static void test_flushes_of_many_queues_that_do_not_end_hold_up_nobody_elses(void **state)
{
    static struct scene s;
    static struct mqguest m;
    uint64_t id;
    (void)state;
    if (!scene_start(&s))
        skip();
    mqguest_open(&m, s.hung.dir, BLKWORLD_DEVID);
    mqguest_connect(&m, KEYS_BLK_QUEUES_MAX, 0);
    assert_int_equal(kill(s.fuse, SIGSTOP), 0);
    for (unsigned i = 0; i < m.count; i++) {
        blkguest_put(&m.queue[i], BLKIF_OP_FLUSH_DISKCACHE, 0, 0, 0, 0, 0);
        blkguest_kick(&m.queue[i]);
    }
    blkworld_stat(&s.world, s.hung.domid, BLKWORLD_DEVID, "syncs", m.count);
    check_neighbour(&s);
    assert_int_equal(kill(s.fuse, SIGCONT), 0);
    for (unsigned i = 0; i < m.count; i++)
        assert_int_equal(blkguest_take(&m.queue[i], &id), BLKIF_RSP_OKAY);
    mqguest_disconnect(&m);
    mqguest_close(&m);
    guest_leave(&s, &s.neighbour.guest, s.neighbour.domid);
    fuse_kill(&s);
    blkworld_stop(&s.world);
}

/* What it shared stays as long as the storage may still write there, and not longer. */
static void test_a_guest_killed_on_storage_that_does_not_answer_is_given_back_when_that_ends(void **state)
{
    static struct scene s;
    (void)state;
    if (!scene_start(&s))
        skip();
    pid_t guest = blkworld_guest_process(s.hung.dir);
    assert_int_equal(kill(s.fuse, SIGSTOP), 0);
    blkworld_stat(&s.world, s.hung.domid, BLKWORLD_DEVID, "in_flight", 32); /* flushes, in the end */
    blkworld_kill(guest);
    blkworld_stat(&s.world, s.hung.domid, BLKWORLD_DEVID, "process_gone", 1);
    check_neighbour(&s);
    assert_true(blkworld_held(&s.world, s.hung.domid) > 0);
    fuse_kill(&s);
    blkworld_wait_back(&s.world, s.hung.domid, BLKWORLD_DEVID, XenbusStateClosed);
    blkworld_wait_held(&s.world, s.hung.domid, 0);
    check_neighbour(&s);
    guest_leave(&s, &s.neighbour.guest, s.neighbour.domid);
    blkworld_stop(&s.world);
}

/* With on-error=stop what fails is held for the operator, but not where he has asked for the disk's end already. */
static void test_what_fails_after_its_disk_is_to_be_closed_is_answered(void **state)
{
    static struct scene s;
    struct keys_blk_config other = {.readonly = true};
    char file[300], path[128];
    uint64_t id;
    (void)state;
    if (!scene_start(&s))
        skip();
    blkworld_remove(&s.world, s.hung.domid, BLKWORLD_DEVID);
    s.hung.config.stop_on_error = true;
    blkworld_attach(&s.world, s.hung.domid, BLKWORLD_DEVID + 16, &s.hung.config);
    blkguest_open(&s.hung.guest, s.hung.dir, BLKWORLD_DEVID + 16);
    blkguest_connect(&s.hung.guest, NULL);
    assert_int_equal(kill(s.fuse, SIGSTOP), 0);
    for (unsigned i = 0; i < 4; i++)
        blkguest_put(&s.hung.guest, BLKIF_OP_FLUSH_DISKCACHE, 0, 0, 0, 0, 0);
    for (unsigned i = 0; i < 4; i++)
        blkguest_put(&s.hung.guest, BLKIF_OP_READ, 4096 + i * 512, i, 1, 0, 7);
    blkguest_kick(&s.hung.guest);
    blkworld_stat(&s.world, s.hung.domid, BLKWORLD_DEVID + 16, "requests", 8);
    snprintf(path, sizeof(path), "/local/domain/0/backend/vbd/%u/%u", s.hung.domid, BLKWORLD_DEVID + 16);
    blkworld_store_ok(store_printf(s.world.store, STORE_NO_TX, path, "state", "%d", (int)XenbusStateClosing));
    /* The backend hears of this one after that. */
    blkworld_image(&s.world, "other.img", DISK_BYTES, SEED, file, sizeof(file));
    snprintf(other.path, sizeof(other.path), "%s", file);
    blkworld_attach(&s.world, s.neighbour.domid, BLKWORLD_DEVID + 16, &other);
    blkworld_wait_back(&s.world, s.neighbour.domid, BLKWORLD_DEVID + 16, XenbusStateInitWait);
    fuse_kill(&s);
    unsigned failed = 0;
    for (unsigned i = 0; i < 8; i++) /* a stop takes effect in its own time: the first may have been served */
        failed += blkguest_take(&s.hung.guest, &id) == BLKIF_RSP_ERROR;
    assert_true(failed > 0);
    guest_leave(&s, &s.hung.guest, s.hung.domid);
    guest_leave(&s, &s.neighbour.guest, s.neighbour.domid);
    blkworld_stop(&s.world);
}

int main(int argc, char **argv)
{
    blkworld_child(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_storage_that_does_not_answer_holds_up_nobody_elses_disk),
        cmocka_unit_test(test_flushes_of_many_queues_that_do_not_end_hold_up_nobody_elses),
        cmocka_unit_test(test_a_guest_killed_on_storage_that_does_not_answer_is_given_back_when_that_ends),
        cmocka_unit_test(test_what_fails_after_its_disk_is_to_be_closed_is_answered),
    };
    return cmocka_run_group_tests_name("blk_hung", tests, NULL, NULL);
}
