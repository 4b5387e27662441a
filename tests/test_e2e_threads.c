/* SPDX-License-Identifier: MIT */
/* End to end with the real programs: many threads of one guest on one disk, some with a queue of their own, joined or
 * long and durable requests on it, and some that call synchronously, while the blk role is killed; what they wrote is
 * judged by themselves and in the image. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <domzero/domzero.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>
#include <zlib.h>

#include "base/util.h"
#include "tests/harness.h"

#define MIB          (1u << 20)
#define THREADS      8
#define QUEUES       3
#define REGION_BYTES (2u * MIB) /* a thread's */
#define DEPTH        8
#define PIECE_BYTES  (16u * 1024)
#define KILLS        3
#define SEED         42u

struct thread {
    pthread_t thread;
    struct dz_vbd *disk;
    struct dz_queue *queue; /* NULL: synchronous calls */
    unsigned index;
    _Atomic bool *stop;
    _Atomic unsigned *rounds;
    bool unusual, failed;
};

#define CHECK(condition)                                                                                 \
    do {                                                                                                 \
        if (!(condition)) {                                                                              \
            fprintf(stderr, "thread %u, line %d: %s: %s\n", t->index, __LINE__, #condition, dz_error()); \
            return false;                                                                                \
        }                                                                                                \
    } while (0)

static uint64_t region(const struct thread *t)
{
    return (uint64_t)t->index * REGION_BYTES;
}

static bool round_sync(struct thread *t, uint64_t seed)
{
    static _Thread_local unsigned char out[REGION_BYTES], in[REGION_BYTES];
    world_pattern(out, sizeof(out), region(t), seed);
    struct iovec iov[] = {{out, 1001}, {out + 1001, MIB}, {out + 1001 + MIB, sizeof(out) - 1001 - MIB}};
    CHECK(dz_vbd_writev(t->disk, iov, 3, region(t)) == 0);
    CHECK(dz_vbd_flush(t->disk) == 0);
    CHECK(dz_vbd_read(t->disk, in, sizeof(in), region(t)) == 0);
    CHECK(!memcmp(in, out, sizeof(in)));
    return true;
}

/* The region as two requests: durable, longer than the backend takes, in pieces of memory that are not all the pool's
 * nor whole sectors. */
static bool round_unusual(struct thread *t, enum dz_op op, unsigned char *pool, unsigned char *heap)
{
    const uint32_t half = REGION_BYTES / 2;
    struct iovec iov[] = {{pool, half - 4096 - 1001}, {heap, 1001}, {pool + half - 4096, 4096}};
    struct iovec pooled[] = {{pool + half, 4096}, {pool + half + 4096, half - 4096}};
    struct dz_io io[] = {{.op = op, .buffer = iov, .length_bytes = half, .offset_bytes = region(t)},
                         {.op = op, .buffer = pooled, .length_bytes = half, .offset_bytes = region(t) + half}};
    struct dz_io *done[2];
    for (int submitted = 0, finished = 0; finished < 2;) {
        int r = submitted < 2 ? dz_queue_submit(t->queue, &io[submitted]) : -EAGAIN;
        CHECK(r == 0 || r == -EAGAIN); /* calls of other threads have all bounce pages */
        submitted += r == 0;
        int n = r == 0 ? 0 : dz_queue_wait(t->queue, done, 2, -1);
        CHECK(n >= 0);
        finished += n;
    }
    CHECK(io[0].result == 0 && io[1].result == 0);
    return true;
}

/* All pieces of the region, DEPTH at a time, each answered well. */
static bool pieces(struct thread *t, enum dz_op op, struct dz_io *io)
{
    const unsigned count = REGION_BYTES / PIECE_BYTES;
    struct dz_io *done[DEPTH];
    unsigned submitted = 0, finished = 0;
    while (finished < count) {
        for (; submitted < count && submitted - finished < DEPTH; submitted++) {
            io[submitted].op = op;
            CHECK(dz_queue_submit(t->queue, &io[submitted]) == 0);
        }
        int n = dz_queue_wait(t->queue, done, DEPTH, -1);
        CHECK(n > 0);
        for (int i = 0; i < n; i++)
            CHECK(done[i]->result == 0);
        finished += (unsigned)n;
    }
    return true;
}

static bool round_queue(struct thread *t, uint64_t seed)
{
    static _Thread_local unsigned char should[REGION_BYTES];
    static _Thread_local struct dz_io io[REGION_BYTES / PIECE_BYTES];
    static _Thread_local unsigned char *buffer;
    while (!buffer && !(buffer = dz_buffer_alloc(t->disk, REGION_BYTES)))
        poll(NULL, 0, 1); /* calls of other threads have the pages, until the role answers them */
    for (unsigned i = 0; i < ARRAY_SIZE(io); i++)
        io[i] = (struct dz_io){.buffer = buffer + i * PIECE_BYTES,
                               .length_bytes = PIECE_BYTES,
                               .offset_bytes = region(t) + (uint64_t)i * PIECE_BYTES};
    world_pattern(should, sizeof(should), region(t), seed);
    memcpy(buffer, should, sizeof(should));
    if (t->unusual) {
        static _Thread_local unsigned char odd[1001];
        const size_t at = REGION_BYTES / 2 - 4096 - sizeof(odd);
        memcpy(odd, should + at, sizeof(odd));
        memset(buffer + at, 0, sizeof(odd));
        CHECK(round_unusual(t, (enum dz_op)(DZ_WRITEV | DZ_FUA), buffer, odd));
        memset(odd, 0, sizeof(odd));
        memset(buffer, 0, sizeof(should));
        CHECK(round_unusual(t, DZ_READV, buffer, odd));
        memcpy(buffer + at, odd, sizeof(odd));
    } else {
        CHECK(pieces(t, DZ_WRITE, io));
        memset(buffer, 0, sizeof(should));
        CHECK(pieces(t, DZ_READ, io));
    }
    CHECK(!memcmp(buffer, should, sizeof(should)));
    return true;
}

static void *thread_run(void *arg)
{
    struct thread *t = arg;
    bool (*one_round)(struct thread *, uint64_t) = t->queue ? round_queue : round_sync;
    for (uint64_t seed = 1000 + t->index; !*t->stop && !t->failed; seed += THREADS) {
        t->failed = !one_round(t, seed);
        ++*t->rounds;
    }
    t->failed = t->failed || !one_round(t, SEED);
    return NULL;
}

struct job {
    int end_fd, end_write_fd, round_fd;
    bool bus_addresses; /* what the backend is to have offered */
};

/* Tells each round; ends when it is told to. */
static int guest(const char *domain_dir, void *arg)
{
    const struct job *job = arg;
    struct dz_vbd_options options = {
        .queues = QUEUES, .pool_bytes = 8 * MIB, .spin_us = 20, .merge = true, .timeout_ms = WORLD_PATIENCE_MS};
    struct dz_domain *dom;
    struct dz_vbd *disk;
    struct thread t[THREADS];
    _Atomic bool stop = false;
    _Atomic unsigned rounds = 0;
    bool failed = false;
    char byte;
    close(job->end_write_fd);
    if (dz_domain_open(domain_dir, &dom) || dz_vbd_open(dom, "xvda", &options, &disk)) {
        fprintf(stderr, "guest: %s\n", dz_error());
        return 1;
    }
    struct dz_vbd_info info;
    dz_vbd_info(disk, &info);
    if (info.bus_addresses != job->bus_addresses) {
        fprintf(stderr, "guest: bus addresses: %d\n", info.bus_addresses);
        return 1;
    }
    for (unsigned i = 0; i < THREADS; i++) {
        t[i] = (struct thread){.disk = disk, .index = i, .stop = &stop, .rounds = &rounds};
        t[i].queue = i < QUEUES ? dz_vbd_queue(disk, i) : NULL;
        t[i].unusual = i == 0;
        failed |= (i < QUEUES && !t[i].queue) || pthread_create(&t[i].thread, NULL, thread_run, &t[i]);
    }
    for (unsigned kills = 0; kills <= KILLS && !failed; kills++) { /* a go for each: they are at work */
        for (unsigned before = rounds; rounds < before + THREADS / 2;)
            usleep(1000);
        failed |= write(job->round_fd, "", 1) != 1 || read(job->end_fd, &byte, 1) != 1;
    }
    stop = true;
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(t[i].thread, NULL);
        failed |= t[i].failed;
    }
    struct dz_vbd_stats stats;
    dz_vbd_stats(disk, &stats);
    if (!stats.merged || !stats.split) {
        fprintf(stderr, "guest: nothing was merged, or nothing split\n");
        failed = true;
    }
    if (stats.errors || stats.reconnects < 1 || stats.reconnects > KILLS) {
        fprintf(stderr, "guest: %llu errors, %llu reconnects\n", (unsigned long long)stats.errors,
                (unsigned long long)stats.reconnects);
        failed = true;
    }
    failed |= dz_vbd_flush(disk) != 0;
    dz_vbd_close(disk);
    dz_domain_close(dom);
    return failed;
}

static void assert_image(const struct world *w, const char *name)
{
    static unsigned char is[MIB], should[MIB];
    _cleanup_close_ int fd = open(world_path(w, name), O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    for (uint64_t at = 0; at < THREADS * (uint64_t)REGION_BYTES; at += MIB) {
        assert_int_equal(pread(fd, is, MIB, (off_t)at), MIB);
        world_pattern(should, MIB, at, SEED);
        assert_memory_equal(is, should, MIB);
    }
}

static void threads_over_deaths(const char *options, bool bus_addresses)
{
    struct world w;
    int end[2], round[2];
    char byte, out[1024];
    world_start(&w, NULL);
    world_image(&w, "disk.img", THREADS * (uint64_t)REGION_BYTES, 1);
    unsigned domid = world_guest(&w, "vm", "disk.img", options);
    assert_true(pipe(end) == 0 && pipe(round) == 0);
    struct job job = {end[0], end[1], round[1], bus_addresses};
    pid_t pid = world_spawn(&w, domid, guest, &job);
    close(round[1]);
    for (unsigned kills = 0; kills <= KILLS; kills++) {
        if (read(round[0], &byte, 1) != 1)
            fail_msg("the guest ended with %d", world_wait(pid));
        if (kills < KILLS)
            world_kill_blk(&w);
        assert_int_equal(write(end[1], "", 1), 1);
    }
    assert_int_equal(world_wait(pid), 0);
    close(end[0]), close(end[1]), close(round[0]);
    assert_image(&w, "disk.img");
    if (world_domzero(&w, out, sizeof(out), "destroy vm") != 0)
        fail_msg("destroy: %s", out);
    world_stop(&w);
}

static void test_threads_of_both_kinds_over_the_death_of_the_role(void **state)
{
    (void)state;
    threads_over_deaths("max-queues=3", false);
}

/* Each role that follows has the pool mapped anew before the replay. */
static void test_the_same_by_bus_addresses(void **state)
{
    (void)state;
    threads_over_deaths("max-queues=3,dma=iommu,iommu=deferred,dma-bits=32", true);
}

static void test_the_example_with_threads_reads_all_of_the_disk(void **state)
{
    (void)state;
    static unsigned char image[3 * MIB + 4096];
    struct world w;
    char out[1024], crc[16];
    world_start(&w, NULL);
    world_image(&w, "disk.img", sizeof(image), 1);
    world_guest(&w, "vm", "disk.img", "max-queues=3");
    _cleanup_close_ int fd = open(world_path(&w, "disk.img"), O_RDONLY | O_CLOEXEC);
    assert_int_equal(pread(fd, image, sizeof(image), 0), sizeof(image));
    snprintf(crc, sizeof(crc), "%08lx", crc32(0, image, sizeof(image)));
    for (unsigned threads = 1; threads <= 5; threads += 2) { /* as many as there are queues */
        if (world_domzero(&w, out, sizeof(out), "exec vm -- %s --threads %u xvda", world_program("examples/06-threads"),
                          threads) != 0)
            fail_msg("%s", out);
        assert_memory_equal(out, crc, 8);
        assert_non_null(strstr(out, threads == 1 ? "by 1 thr" : "by 3 thr"));
    }
    assert_int_equal(world_domzero(&w, out, sizeof(out), "destroy vm"), 0);
    world_stop(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads_of_both_kinds_over_the_death_of_the_role),
        cmocka_unit_test(test_the_same_by_bus_addresses),
        cmocka_unit_test(test_the_example_with_threads_reads_all_of_the_disk),
    };
    return cmocka_run_group_tests_name("e2e_threads", tests, NULL, NULL);
}
