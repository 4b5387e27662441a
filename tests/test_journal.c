/* SPDX-License-Identifier: MIT */
/* The journal of requests in flight: readable wherever its writer was killed, locked until the writer's I/O has ended,
 * trusted in nothing; and what a role makes of it when it takes a device over. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "backend/blk/journal.h"
#include "backend/blk/uring.h"
#include "base/log.h"
#include "tests/blk_scene.h"

#define DOMID 3u
#define DEVID BLKWORLD_DEVID

static struct blkreq request(uint64_t n)
{
    return (struct blkreq){.id = n * 3, .operation = BLKIF_OP_WRITE, .sector = n * 5, .sector_count = n * 7};
}

static pid_t child_fork(void)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (!pid)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    return pid;
}

static void await_ready(struct journal *j)
{
    for (unsigned i = 0; !journal_ready(j); i++) {
        assert_in_range(i, 0, BLKWORLD_PATIENCE_MS);
        usleep(1000);
    }
}

/* A role: takes and answers requests for ever, several in flight. */
static void child_write(int fd, int told)
{
    struct journal *j;
    struct journal_queue q;
    enum { FLIGHT = 5 };
    if (journal_open(fd, &j, NULL) || !journal_ready(j) || journal_claim(j, DOMID, DEVID, 0, &q) || q.past)
        _exit(1);
    journal_connect(&q, 9, 32);
    for (uint64_t n = 1;; n++) {
        struct blkreq r = request(n);
        if (n > FLIGHT)
            journal_end(&q.area->row[n % FLIGHT]);
        journal_begin(&q, &q.area->row[n % FLIGHT], &r);
        if (n == FLIGHT && write(told, "", 1) != 1)
            _exit(1);
    }
}

static void test_a_journal_is_whole_wherever_its_writer_is_killed(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 100; round++) {
        int fd = journal_create(NULL), told[2];
        char byte;
        struct journal *j;
        struct journal_queue q;
        assert_true(fd > 0);
        assert_int_equal(pipe(told), 0);
        pid_t pid = child_fork();
        if (!pid)
            child_write(fd, told[1]);
        assert_int_equal(read(told[0], &byte, 1), 1);
        usleep(round * 7 % 50);
        blkworld_kill(pid);
        assert_int_equal(journal_open(fd, &j, NULL), 0);
        await_ready(j);
        assert_int_equal(journal_claim(j, DOMID, DEVID, 0, &q), 0);
        assert_non_null(q.past);
        assert_in_range(q.past->count, 4, 5);
        for (uint32_t i = 0; i < q.past->count; i++) {
            const struct journal_past_row *r = &q.past->row[i];
            assert_true(r->operation == BLKIF_OP_WRITE && r->sector == r->number * 5);
            assert_int_equal(r->sector_count, r->number * 7);
            assert_true(!i || r->number == r[-1].number + 1);
        }
        assert_int_equal(journal_connect(&q, 9, 32), q.past->count);
        journal_release(j, &q);
        journal_close(j);
        close(told[0]);
        close(told[1]);
        close(fd);
    }
}

static void test_another_process_of_the_guest_is_not_asked_for_what_it_never_sent(void **state)
{
    struct journal *j;
    struct journal_queue q;
    (void)state;
    int fd = journal_create(NULL);
    for (uint32_t instance = 1; instance <= 2; instance++) {
        struct blkreq r = request(1);
        assert_int_equal(journal_open(fd, &j, NULL), 0);
        await_ready(j);
        assert_int_equal(journal_claim(j, DOMID, DEVID, 0, &q), 0);
        assert_int_equal(q.past != NULL, instance == 2);
        assert_int_equal(journal_connect(&q, instance, 32), 0);
        assert_false(q.comparing);
        journal_begin(&q, &q.area->row[0], &r);
        journal_release(j, &q); /* in flight still: it stays */
        journal_close(j);
    }
    close(fd);
}

/* Random bytes behind a head that is right: nothing that was read can do more than be counted. */
static void test_a_journal_of_garbage_is_read_without_harm(void **state)
{
    struct journal *j;
    struct journal_queue q;
    struct blkreq r = request(1);
    uint32_t missing;
    (void)state;
    for (unsigned seed = 1; seed <= 3; seed++) {
        int fd = journal_create(NULL);
        assert_int_equal(journal_open(fd, &j, NULL), 0);
        await_ready(j); /* writes the head */
        journal_close(j);
        uint64_t *at = mmap(NULL, 3 * JOURNAL_AREA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, JOURNAL_AREA_BYTES);
        assert_true(at != MAP_FAILED);
        blkworld_pattern(at, seed, 3 * JOURNAL_AREA_BYTES / SECTOR_BYTES, seed);
        for (unsigned i = 0; i < 3 * JOURNAL_AREA_BYTES / sizeof(*at); i++) /* of some operation that there is */
            if (seed == 2)
                at[i] = at[i] << 8 | BLKIF_OP_WRITE;
        for (unsigned i = 0; i < 3; i++) {
            struct journal_area *a = (void *)((char *)at + i * JOURNAL_AREA_BYTES);
            a->used = seed == 3 ? UINT32_MAX : 1;
            a->front_domid = DOMID;
            a->devid = DEVID;
            a->queue = 0;
            a->instance = 1;
        }
        munmap(at, 3 * JOURNAL_AREA_BYTES);
        assert_int_equal(journal_open(fd, &j, NULL), 0);
        await_ready(j);
        assert_int_equal(journal_claim(j, DOMID, DEVID, 0, &q), 0);
        uint32_t count = journal_connect(&q, 1, 32);
        assert_in_range(count, 0, JOURNAL_ROWS);
        for (unsigned i = 0; q.comparing; i++) {
            assert_in_range(i, 0, JOURNAL_ROWS + 32);
            journal_compare(&q, &r, &missing);
        }
        journal_release(j, &q);
        journal_close(j);
        close(fd);
    }
}

static void test_a_journal_of_another_version_is_none(void **state)
{
    struct journal *j;
    struct journal_queue q;
    struct blkreq r = request(1);
    (void)state;
    int fd = journal_create(NULL);
    uint32_t version = JOURNAL_MAGIC + 1;
    assert_int_equal(journal_open(fd, &j, NULL), 0);
    await_ready(j);
    assert_int_equal(journal_claim(j, DOMID, DEVID, 0, &q), 0);
    journal_begin(&q, &q.area->row[0], &r);
    journal_release(j, &q);
    journal_close(j);
    assert_int_equal(pwrite(fd, &version, sizeof(version), 0), sizeof(version));
    assert_int_equal(journal_open(fd, &j, NULL), 0);
    await_ready(j);
    assert_int_equal(journal_claim(j, DOMID, DEVID, 0, &q), 0);
    assert_null(q.past);
    assert_int_equal(q.area->row[0].mark, 0);
    journal_release(j, &q);
    journal_close(j);
    close(fd);
}

static void test_what_is_no_journal_is_refused(void **state)
{
    struct journal *j;
    struct err e = {0};
    (void)state;
    int fd = memfd_create("small", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_true(fd > 0);
    assert_int_equal(journal_open(fd, &j, &e), -EINVAL);
    assert_int_equal(ftruncate(fd, (off_t)JOURNAL_BYTES), 0);
    assert_int_equal(journal_open(fd, &j, &e), -EINVAL); /* it could be made shorter under us */
    assert_non_null(strstr(e.text, "journal"));
    close(fd);
}

/* ---- the lock ---- */

#define PIECE  (1u << 20)
#define PIECES 48u

static struct uring_op nothing;

static void nothing_done(struct uring_op *op, int result, uint32_t flags)
{
    (void)op, (void)result, (void)flags;
}

/* A role that reads into a guest's pages, past the cache, and is killed as it does. */
static void child_read(int journal_fd, const char *image, unsigned char *pages, int told)
{
    static struct uring u;
    struct journal *j;
    int fd = open(image, O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (fd < 0 || uring_init(&u, NULL) || journal_open(journal_fd, &j, NULL) || !journal_ready(j) ||
        uring_file_register(&u, journal_lock_fd(j)) < 0)
        _exit(1);
    nothing.fn = nothing_done;
    for (unsigned i = 0; i < PIECES; i++)
        io_uring_prep_read(uring_sqe(&u, &nothing), fd, pages + i * PIECE, PIECE, (uint64_t)i * PIECE);
    if (uring_submit(&u, false) || write(told, "", 1) != 1)
        _exit(1);
    for (;;)
        pause();
}

static void test_the_lock_of_a_killed_role_is_held_until_its_last_read_has_landed(void **state)
{
    struct blkworld w;
    char image[256];
    (void)state;
    blkworld_servers(&w);
    blkworld_image(&w, "big.img", PIECES * PIECE, SEED, image, sizeof(image));
    const size_t bytes = (size_t)PIECES * PIECE;
    unsigned char *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    unsigned char *then = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(pages != MAP_FAILED && then != MAP_FAILED);
    for (unsigned round = 0; round < 5; round++) {
        int told[2], fd = journal_create(NULL);
        char byte;
        struct journal *j;
        memset(pages, 0xee, bytes);
        assert_int_equal(pipe(told), 0);
        pid_t pid = child_fork();
        if (!pid)
            child_read(fd, image, pages, told[1]);
        assert_int_equal(read(told[0], &byte, 1), 1);
        blkworld_kill(pid);
        assert_int_equal(journal_open(fd, &j, NULL), 0);
        await_ready(j);
        memcpy(then, pages, bytes);
        usleep(20000); /* what is under way now would show */
        assert_memory_equal(then, pages, bytes);
        journal_close(j);
        close(told[0]);
        close(told[1]);
        close(fd);
    }
    munmap(pages, bytes);
    munmap(then, bytes);
    blkworld_stop(&w);
}

/* ---- the role ---- */

/* What a frontend does when its backend comes back. */
static void guest_reconnect(struct blkguest *g)
{
    platform_evtchn_close(g->platform, &g->channel);
    blkguest_connect(g, NULL);
}

/* The lock is ours, as it is the kernel's while the I/O of a role that was killed goes on. */
static struct journal *successor_without_lock(struct scene *s)
{
    struct journal *j;
    blkworld_role_kill(&s->world);
    assert_int_equal(journal_open(s->world.journal_fd, &j, NULL), 0);
    await_ready(j);
    blkworld_role_start(&s->world, NULL);
    return j;
}

static void test_nothing_is_taken_over_while_a_predecessors_io_is_under_way(void **state)
{
    struct scene s;
    struct keys_blk_config other = {.readonly = true};
    char dir[256];
    (void)state;
    scene_start(&s, "pin");
    uint16_t domid = blkworld_domain(&s.world, "reader", dir, sizeof(dir));
    struct keys_blk_config readonly = {.readonly = true, .direct_io = true};
    struct blkguest reader;
    blkworld_image(&s.world, "ro.img", DISK_BYTES, SEED, readonly.path, sizeof(readonly.path));
    blkworld_attach(&s.world, domid, DEVID, &readonly);
    blkguest_open(&reader, dir, DEVID);
    blkguest_connect(&reader, NULL);
    struct journal *lock = successor_without_lock(&s);
    /* A disk that is new is served meanwhile. */
    strcpy(other.path, readonly.path);
    blkworld_attach(&s.world, domid, DEVID + 16, &other);
    blkworld_wait_back(&s.world, domid, DEVID + 16, XenbusStateInitWait);
    usleep(100000); /* several looks at the lock */
    assert_true(blkworld_back_is(&s.world, s.domid, DEVID, XenbusStateConnected));
    assert_true(blkworld_back_is(&s.world, domid, DEVID, XenbusStateConnected));
    journal_close(lock);
    guest_reconnect(&s.guest);
    guest_reconnect(&s.neighbour);
    guest_reconnect(&reader);
    blkguest_check_served(&reader, SEED);
    blkguest_disconnect(&reader);
    blkguest_close(&reader);
    scene_stop(&s);
}

/* In place of requests that were caught in flight, which is a matter of luck: rows in the dead role's area. */
static void journal_plant(struct scene *s, uint32_t count)
{
    struct journal_area *area = mmap(NULL, JOURNAL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, s->world.journal_fd, 0);
    assert_true(area != MAP_FAILED);
    unsigned found = 0;
    for (uint32_t i = 1; i <= 8; i++) {
        struct journal_area *a = (void *)((char *)area + i * JOURNAL_AREA_BYTES);
        if (a->used != 1 || a->front_domid != s->domid || a->devid != DEVID)
            continue;
        found++;
        assert_true(a->instance > 0);
        for (uint32_t n = 0; n < count; n++) {
            a->row[n].sector = n * 8;
            a->row[n].sector_count = 8;
            a->row[n].mark = (n + 1ull) << 8 | BLKIF_OP_WRITE;
        }
    }
    assert_int_equal(found, 1);
    munmap(area, JOURNAL_BYTES);
}

static uint64_t number(struct scene *s, const char *name)
{
    struct stats_blk_reply r;
    assert_true(blkworld_stats(s->world.dir, s->domid, DEVID, &r));
    return blkworld_number(&r, name);
}

static void test_what_was_in_flight_is_known_when_it_comes_again(void **state)
{
    struct scene s;
    (void)state;
    scene_start(&s, "pin");
    blkguest_check_served(&s.guest, SEED);
    blkworld_role_kill(&s.world);
    journal_plant(&s, 5);
    blkworld_role_start(&s.world, NULL);
    guest_reconnect(&s.guest);
    guest_reconnect(&s.neighbour);
    for (unsigned n = 0; n < 5; n++)
        assert_int_equal(blkguest_do(&s.guest, BLKIF_OP_WRITE, n * 8, 0, 1, 0, 7), BLKIF_RSP_OKAY);
    assert_int_equal(number(&s, "inherited"), 5);
    assert_int_equal(number(&s, "replayed"), 5);
    assert_int_equal(number(&s, "not_replayed"), 0);
    scene_stop(&s);
}

static void test_a_frontend_that_forgets_what_was_in_flight_is_found_out(void **state)
{
    struct scene s;
    (void)state;
    scene_start(&s, "pin");
    blkworld_role_kill(&s.world);
    journal_plant(&s, 5);
    blkworld_role_start(&s.world, NULL);
    guest_reconnect(&s.guest);
    guest_reconnect(&s.neighbour);
    assert_int_equal(blkguest_do(&s.guest, BLKIF_OP_WRITE, 16, 0, 1, 0, 7), BLKIF_RSP_OKAY); /* one comes again */
    assert_int_equal(number(&s, "not_replayed"), 0);                                         /* the rest may yet */
    for (unsigned n = 0; n < 5 + 32; n++)
        assert_int_equal(blkguest_do(&s.guest, BLKIF_OP_READ, 0, 0, 1, 0, 7), BLKIF_RSP_OKAY);
    assert_int_equal(number(&s, "inherited"), 5);
    assert_int_equal(number(&s, "replayed"), 1);
    assert_int_equal(number(&s, "not_replayed"), 4);
    scene_stop(&s);
}

static void test_a_role_that_ends_well_leaves_nothing_in_flight(void **state)
{
    struct scene s;
    (void)state;
    scene_start(&s, "pin");
    blkguest_check_served(&s.guest, SEED);
    blkguest_put(&s.guest, BLKIF_OP_WRITE, 0, 0, 11, 0, 7);
    blkguest_kick(&s.guest);
    blkworld_role_stop(&s.world);
    blkworld_role_start(&s.world, NULL);
    guest_reconnect(&s.guest);
    guest_reconnect(&s.neighbour);
    assert_int_equal(number(&s, "inherited"), 0);
    scene_stop(&s);
}

int main(int argc, char **argv)
{
    blkworld_child(argc, argv);
    log_setup("test", LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_journal_is_whole_wherever_its_writer_is_killed),
        cmocka_unit_test(test_another_process_of_the_guest_is_not_asked_for_what_it_never_sent),
        cmocka_unit_test(test_a_journal_of_garbage_is_read_without_harm),
        cmocka_unit_test(test_a_journal_of_another_version_is_none),
        cmocka_unit_test(test_what_is_no_journal_is_refused),
        cmocka_unit_test(test_the_lock_of_a_killed_role_is_held_until_its_last_read_has_landed),
        cmocka_unit_test(test_nothing_is_taken_over_while_a_predecessors_io_is_under_way),
        cmocka_unit_test(test_what_was_in_flight_is_known_when_it_comes_again),
        cmocka_unit_test(test_a_frontend_that_forgets_what_was_in_flight_is_found_out),
        cmocka_unit_test(test_a_role_that_ends_well_leaves_nothing_in_flight),
    };
    return cmocka_run_group_tests_name("journal", tests, NULL, NULL);
}
