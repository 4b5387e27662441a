/* SPDX-License-Identifier: MIT */
/* What was written before a flush that was answered is there: after kill -9 of everything, roles and guest, and after
 * every cut of the power that the log of writes allows. Guests write numbered blocks; the test judges the image. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include <domzero/domzero.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backend/blk/image.h"
#include "backend/blk/image_log.h"
#include "base/util.h"
#include "tests/harness.h"
#include "tests/random.h"

#define BLOCK   4096u
#define BLOCKS  64u
#define BYTES   (BLOCK * BLOCKS)
#define SECTORS (BLOCK / SECTOR_BYTES)
#define DEPTH   8u
#define CUTS    150u

/* What survives the guest: for each block the number of its newest write, and of the newest that was flushed. */
struct told {
    _Atomic uint64_t sent[BLOCKS], safe[BLOCKS];
    _Atomic unsigned flushes;
    struct cut { /* the moment after a flush */
        uint64_t log_bytes, safe[BLOCKS];
    } cut[CUTS];
    char log[128]; /* its path; "": none */
};

static struct world world;
static struct told *told;

static int setup(void **state)
{
    (void)state;
    told = mmap(NULL, sizeof(*told), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0); /* roles of a killed daemon become our children */
    world_start(&world, NULL);
    return told == MAP_FAILED;
}

static int teardown(void **state)
{
    (void)state;
    world_stop(&world);
    return munmap(told, sizeof(*told));
}

/* ---- blocks ---- */

static void sector_fill(unsigned char *at, uint64_t sector, uint64_t number)
{
    world_pattern(at, SECTOR_BYTES, sector * SECTOR_BYTES, number);
    memcpy(at, &number, sizeof(number));
}

/* Each sector of the block has a write that was sent, whole, and no older one than what is safe. */
static void block_check(const unsigned char *disk, unsigned block, uint64_t safe, uint64_t sent)
{
    unsigned char should[SECTOR_BYTES];
    for (unsigned i = 0; i < SECTORS; i++) {
        uint64_t number, sector = block * SECTORS + i;
        memcpy(&number, disk + sector * SECTOR_BYTES, sizeof(number));
        if (number < safe || number > sent)
            fail_msg("block %u, sector %u: write %llu, and %llu is safe, %llu was sent", block, i,
                     (unsigned long long)number, (unsigned long long)safe, (unsigned long long)sent);
        if (!number)
            continue;
        sector_fill(should, sector, number);
        assert_memory_equal(disk + sector * SECTOR_BYTES, should, SECTOR_BYTES);
    }
}

static void image_empty(void)
{
    _cleanup_close_ int fd = open(world_path(&world, "disk.img"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_int_equal(ftruncate(fd, BYTES), 0);
    memset(told, 0, sizeof(*told));
}

/* ---- the guest ---- */

static void cut_note(void)
{
    struct stat st;
    unsigned n = atomic_load(&told->flushes);
    if (n >= CUTS || !told->log[0] || stat(told->log, &st))
        return;
    told->cut[n].log_bytes = (uint64_t)st.st_size;
    for (unsigned b = 0; b < BLOCKS; b++)
        told->cut[n].safe[b] = atomic_load(&told->safe[b]);
}

/* Rounds of DEPTH writes, a flush behind most of them: for ever, or until there are as many cuts as wanted. */
static int guest_write(const char *domain_dir, void *arg)
{
    static struct dz_io io[DEPTH];
    struct dz_io *done[DEPTH];
    struct dz_domain *dom;
    struct dz_vbd *disk;
    const int *told_fd = arg;
    uint64_t random = 3, number = 0, answered[BLOCKS] = {0};
    for (unsigned b = 0; b < BLOCKS; b++)
        number = MAX(number, atomic_load(&told->sent[b]));
    GUEST_CHECK(dz_domain_open(domain_dir, &dom) == 0 && dz_vbd_open(dom, "xvda", WORLD_PATIENT, &disk) == 0);
    for (unsigned i = 0; i < DEPTH; i++)
        io[i] = (struct dz_io){.op = DZ_WRITE, .buffer = dz_buffer_alloc(disk, BLOCK), .length_bytes = BLOCK};
    GUEST_CHECK(write(*told_fd, "", 1) == 1);
    while (!told->log[0] || atomic_load(&told->flushes) < CUTS) {
        for (unsigned i = 0; i < DEPTH; i++) {
            random_step(&random);
            unsigned block = ((unsigned)(random >> 40) % (BLOCKS / DEPTH)) * DEPTH + i; /* none twice in a round */
            io[i].offset_bytes = (uint64_t)block * BLOCK;
            atomic_store(&told->sent[block], ++number);
            answered[block] = number; /* by the end of the round; what a killed guest sent last may never have been */
            for (unsigned s = 0; s < SECTORS; s++)
                sector_fill((unsigned char *)io[i].buffer + s * SECTOR_BYTES, block * SECTORS + s, number);
            GUEST_CHECK(dz_vbd_submit(disk, &io[i]) == 0);
        }
        for (int left = DEPTH, n; left > 0; left -= n) {
            n = dz_vbd_wait(disk, done, DEPTH, -1);
            GUEST_CHECK(n > 0);
            for (int i = 0; i < n; i++)
                GUEST_CHECK(done[i]->result == 0);
        }
        if (random >> 62 == 0)
            continue;
        GUEST_CHECK(dz_vbd_flush(disk) == 0);
        for (unsigned b = 0; b < BLOCKS; b++)
            if (answered[b])
                atomic_store(&told->safe[b], answered[b]);
        cut_note();
        atomic_fetch_add(&told->flushes, 1);
    }
    dz_vbd_close(disk);
    dz_domain_close(dom);
    return 0;
}

static pid_t guest_start(const char *options)
{
    int fd[2];
    char byte;
    unsigned domid = world_guest(&world, "vm", "disk.img", options);
    assert_int_equal(pipe2(fd, O_CLOEXEC), 0);
    pid_t pid = world_spawn(&world, domid, guest_write, &fd[1]);
    close(fd[1]); /* so that the end of a guest that failed is seen */
    assert_int_equal(read(fd[0], &byte, 1), 1);
    close(fd[0]);
    return pid;
}

/* ---- kill -9 of everything ---- */

static void kill_everything(pid_t guest, unsigned round)
{
    pid_t pid[] = {world_role(&world, "blk"), guest, world.daemon, world_role(&world, "hypervisor"),
                   world_role(&world, "store")};
    for (unsigned i = 0; i < ARRAY_SIZE(pid); i++)
        kill(pid[(i + round) % ARRAY_SIZE(pid)], SIGKILL);
    int status;
    while (waitpid(-1, &status, 0) > 0) /* a role that the daemon may just have started ends with it */
        ;
}

static void killed_rounds(const char *options)
{
    static unsigned char disk[BYTES];
    image_empty();
    for (unsigned round = 0; round < 5; round++) {
        unsigned flushes = atomic_load(&told->flushes);
        pid_t guest = guest_start(options);
        for (unsigned i = 0; atomic_load(&told->flushes) < flushes + 5 + round; i++) {
            assert_in_range(i, 0, WORLD_PATIENCE_MS);
            poll(NULL, 0, 1);
        }
        kill_everything(guest, round);
        _cleanup_close_ int fd = open(world_path(&world, "disk.img"), O_RDONLY | O_CLOEXEC);
        assert_int_equal(pread(fd, disk, BYTES, 0), BYTES);
        for (unsigned b = 0; b < BLOCKS; b++)
            block_check(disk, b, atomic_load(&told->safe[b]), atomic_load(&told->sent[b]));
        world_daemon_start(&world, NULL);
        world_await(world_serves, &world, "the daemon serves again");
    }
}

static void test_what_was_flushed_survives_kill_9_of_everything(void **state)
{
    (void)state;
    killed_rounds(NULL);
    killed_rounds("direct-io=1");
}

/* ---- cuts of the power ---- */

/* The log as a table of where records are. */
struct records {
    const unsigned char *log;
    uint64_t at[65536];
    unsigned count;
};

static struct image_log_record record_at(const struct records *r, unsigned i)
{
    struct image_log_record record;
    memcpy(&record, r->log + r->at[i], sizeof(record));
    return record;
}

static void records_read(struct records *r, const unsigned char *log, uint64_t bytes)
{
    *r = (struct records){.log = log};
    for (uint64_t at = 0; at < bytes;) {
        assert_true(r->count < ARRAY_SIZE(r->at));
        r->at[r->count] = at;
        struct image_log_record record = record_at(r, r->count++);
        assert_int_equal(record.magic, IMAGE_LOG_MAGIC);
        at += sizeof(record) + record.bytes;
        assert_true(at <= bytes);
    }
}

/* One sector, or all of them: of a write. */
static void replay(unsigned char *disk, const struct records *r, unsigned i, uint64_t sectors)
{
    struct image_log_record w = record_at(r, i);
    assert_true(w.event == IMAGE_WROTE && w.offset_bytes + w.bytes <= BYTES);
    for (unsigned s = 0; s < w.bytes / SECTOR_BYTES; s++)
        if (sectors >> (s % 64) & 1)
            memcpy(disk + w.offset_bytes + s * SECTOR_BYTES, r->log + r->at[i] + sizeof(w) + s * SECTOR_BYTES,
                   SECTOR_BYTES);
}

/* What a cut behind `bytes` of the log leaves: what the last flush that had ended covers, and of the rest a part. */
static void cut_make(unsigned char *disk, const struct records *r, uint64_t bytes, uint64_t random)
{
    uint64_t covered = 0;
    for (unsigned i = 0; i < r->count && r->at[i] < bytes; i++)
        if (record_at(r, i).event == IMAGE_SYNC_END)
            covered = record_at(r, i).number;
    memset(disk, 0, BYTES);
    for (unsigned i = 0; i < r->count && r->at[i] < bytes; i++) {
        if (record_at(r, i).event != IMAGE_WROTE)
            continue;
        random_step(&random);
        replay(disk, r, i, r->at[i] < covered ? UINT64_MAX : random & (random >> 32));
    }
}

static void assert_syncs_refer_to_their_begins(const struct records *r)
{
    for (unsigned i = 0; i < r->count; i++) {
        struct image_log_record end = record_at(r, i), begin;
        if (end.event != IMAGE_SYNC_END)
            continue;
        assert_true(end.number < r->at[i]);
        memcpy(&begin, r->log + end.number, sizeof(begin));
        assert_true(begin.magic == IMAGE_LOG_MAGIC && begin.event == IMAGE_SYNC_BEGIN);
    }
}

static void log_judge(void)
{
    static unsigned char disk[BYTES];
    static struct records records;
    struct stat st;
    _cleanup_close_ int fd = open(told->log, O_RDONLY | O_CLOEXEC);
    assert_int_equal(fstat(fd, &st), 0);
    unsigned char *log = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    assert_true(log != MAP_FAILED);
    records_read(&records, log, (uint64_t)st.st_size);
    assert_syncs_refer_to_their_begins(&records);
    for (unsigned c = 0; c < CUTS; c++)
        for (uint64_t seed = 0; seed < 3; seed++) {
            cut_make(disk, &records, told->cut[c].log_bytes, c * 3 + seed);
            for (unsigned b = 0; b < BLOCKS; b++)
                block_check(disk, b, told->cut[c].safe[b], atomic_load(&told->sent[b]));
        }
    /* An empty disk would not have passed. */
    cut_make(disk, &records, records.at[0], 0);
    unsigned lost = 0;
    for (unsigned b = 0; b < BLOCKS; b++)
        lost += told->cut[CUTS - 1].safe[b] && !disk[b * BLOCK];
    assert_int_not_equal(lost, 0);
    munmap(log, (size_t)st.st_size);
}

static void power_cuts(const char *options, unsigned kills)
{
    image_empty();
    snprintf(told->log, sizeof(told->log), "%s" IMAGE_LOG_SUFFIX, world_path(&world, "disk.img"));
    unlink(told->log);
    pid_t guest = guest_start(options);
    for (unsigned i = 0; i < kills; i++) {
        poll(NULL, 0, 50);
        world_kill_blk(&world);
    }
    assert_int_equal(world_wait(guest), 0);
    assert_int_equal(world_domzero(&world, NULL, 0, "destroy vm"), 0);
    log_judge();
}

static void test_what_was_flushed_survives_every_cut_of_the_power(void **state)
{
    (void)state;
    power_cuts("image=log", 0);
    power_cuts("image=log,dma=copy,direct-io=1", 0);
}

static void test_and_where_the_role_is_killed_meanwhile(void **state)
{
    (void)state;
    power_cuts("image=log", 3);
}

/* A record that a killed role left half written was answered by nobody. */
static void test_an_unfinished_record_goes_and_the_log_goes_on(void **state)
{
    struct image *image;
    struct image_config c = {.path = world_path(&world, "disk.img")};
    char path[128], data[SECTOR_BYTES] = "data";
    struct stat st;
    (void)state;
    image_empty();
    snprintf(path, sizeof(path), "%s" IMAGE_LOG_SUFFIX, c.path);
    unlink(path);
    for (unsigned round = 1; round <= 3; round++) {
        struct iovec iov[2] = {{0}, {data, sizeof(data)}};
        assert_int_equal(image_open("log", &c, &image, NULL), 0);
        assert_true(image->format->record(image, IMAGE_WROTE, 0, 0, sizeof(data), iov, 2) >= 0);
        image_close(image);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_size, round * (sizeof(struct image_log_record) + sizeof(data)));
        struct image_log_record torn = {.magic = IMAGE_LOG_MAGIC, .event = IMAGE_WROTE, .bytes = UINT64_MAX - round};
        _cleanup_close_ int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
        assert_int_equal(write(fd, &torn, sizeof(torn) - round), (ssize_t)(sizeof(torn) - round));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_flushed_survives_kill_9_of_everything),
        cmocka_unit_test(test_what_was_flushed_survives_every_cut_of_the_power),
        cmocka_unit_test(test_and_where_the_role_is_killed_meanwhile),
        cmocka_unit_test(test_an_unfinished_record_goes_and_the_log_goes_on),
    };
    return cmocka_run_group_tests_name("crash", tests, setup, teardown);
}
