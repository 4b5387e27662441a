/* SPDX-License-Identifier: MIT */
/* End to end, with the real programs: domzerod with all its roles, the domzero command line, and guests that are
 * processes of their own and do I/O through libdomzero; what they wrote is judged in the image file from outside. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include <domzero/domzero.h>
#include <fcntl.h>
#include <poll.h>

#include "base/clock.h"
#include "base/util.h"
#include "tests/harness.h"
#include "tests/random.h"

#define MIB (1u << 20)

struct job {
    uint64_t bytes, seed_before, seed_after;
    bool readonly;
    int go_fd;        /* the guest tells here that it is connected; -1: nobody asks */
    int end_fd;       /* … and ends when this one is readable or closed */
    int end_write_fd; /* its other end, the parent's: the guest closes its copy */
};

static struct world world;

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

static void assert_image(const char *name, uint64_t from, uint64_t bytes, uint64_t seed)
{
    static unsigned char is[1 << 16], should[1 << 16];
    _cleanup_close_ int fd = open(world_path(&world, name), O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    for (uint64_t at = from; at < from + bytes; at += sizeof(is)) {
        size_t n = (size_t)MIN((uint64_t)sizeof(is), from + bytes - at);
        assert_int_equal(pread(fd, is, n, (off_t)at), (ssize_t)n);
        world_pattern(should, n, at, seed);
        assert_memory_equal(is, should, n);
    }
}

static void destroy(const char *name)
{
    char out[1024];
    if (world_domzero(&world, out, sizeof(out), "destroy %s", name) != 0)
        fail_msg("destroy: %s", out);
}

/* ---- guests ---- */

static int guest_rewrite(const char *domain_dir, void *arg)
{
    const struct job *job = arg;
    static unsigned char buffer[3 * MIB / 2], should[3 * MIB / 2];
    struct dz_domain *dom;
    struct dz_vbd *disk;
    struct dz_vbd_info info;
    GUEST_CHECK(dz_domain_open(domain_dir, &dom) == 0);
    GUEST_CHECK(dz_vbd_open(dom, "xvda", WORLD_PATIENT, &disk) == 0);
    dz_vbd_info(disk, &info);
    GUEST_CHECK(info.size_bytes == job->bytes && info.sector_bytes == 512 && info.flush && !info.readonly);
    /* Lengths from one sector to 1.5 MiB, from odd addresses, so that every splitting occurs. */
    static const uint32_t lengths[] = {512, 4096, 45056, 512 * 7, 512 * 89, 1536 * 1024, 4096 * 3 + 512};
    uint64_t at = 0;
    for (unsigned i = 0; at < job->bytes; i++) {
        uint32_t n = (uint32_t)MIN((uint64_t)lengths[i % ARRAY_SIZE(lengths)], job->bytes - at);
        GUEST_CHECK(dz_vbd_read(disk, buffer, n, at) == 0);
        world_pattern(should, n, at, job->seed_before);
        GUEST_CHECK(memcmp(buffer, should, n) == 0);
        world_pattern(buffer, n, at, job->seed_after);
        GUEST_CHECK(dz_vbd_write(disk, buffer, n, at) == 0);
        at += n;
    }
    GUEST_CHECK(dz_vbd_flush(disk) == 0);
    GUEST_CHECK(info.discard && dz_vbd_discard(disk, job->bytes / 2, MIB) == 0);
    memset(should, 0, MIB);
    for (at = MIB; at < MIB + job->bytes / 2; at += MIB) {
        GUEST_CHECK(dz_vbd_read(disk, buffer, MIB, at) == 0 && !memcmp(buffer, should, MIB));
        world_pattern(buffer, MIB, at, job->seed_after);
        GUEST_CHECK(dz_vbd_write(disk, buffer, MIB, at) == 0);
    }
    for (at = 0; at < job->bytes; at += MIB) {
        GUEST_CHECK(dz_vbd_read(disk, buffer, MIB, at) == 0);
        world_pattern(should, MIB, at, job->seed_after);
        GUEST_CHECK(memcmp(buffer, should, MIB) == 0);
    }
    dz_vbd_close(disk);
    dz_domain_close(dom);
    return 0;
}

/* The whole disk in requests of 1 MiB from the pool, all in flight, and beside them a full ring of small ones. */
static int guest_rewrite_wide(const char *domain_dir, void *arg)
{
    enum { LARGE = 16, SMALL = 512 - LARGE };
    const struct job *job = arg;
    static struct dz_io io[LARGE + SMALL];
    static unsigned char should[MIB];
    struct dz_io *done[LARGE + SMALL];
    const struct dz_vbd_options options = {
        .queue_depth = 512, .pool_bytes = LARGE * MIB + SMALL * 512, .timeout_ms = WORLD_PATIENCE_MS};
    struct dz_domain *dom;
    struct dz_vbd *disk;
    struct dz_vbd_info info;
    GUEST_CHECK(job->bytes == LARGE * MIB);
    GUEST_CHECK(dz_domain_open(domain_dir, &dom) == 0 && dz_vbd_open(dom, "xvda", &options, &disk) == 0);
    dz_vbd_info(disk, &info);
    GUEST_CHECK(info.queue_depth == 512 && info.request_bytes_max == MIB);
    unsigned char *pool = dz_buffer_alloc(disk, options.pool_bytes);
    GUEST_CHECK(pool);
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < LARGE + SMALL; i++) {
            bool large = i < LARGE;
            io[i] = (struct dz_io){.op = large && !round ? DZ_WRITE : DZ_READ,
                                   .buffer = large ? pool + i * MIB : pool + LARGE * MIB + (i - LARGE) * 512ull,
                                   .length_bytes = large ? MIB : 512,
                                   .offset_bytes = large ? i * MIB : (i - LARGE) * 4096ull};
            if (io[i].op == DZ_WRITE)
                world_pattern(io[i].buffer, MIB, io[i].offset_bytes, job->seed_after);
            else
                memset(io[i].buffer, 0, io[i].length_bytes);
            GUEST_CHECK(dz_vbd_submit(disk, &io[i]) == 0);
        }
        for (int left = LARGE + SMALL, n; left > 0; left -= n)
            GUEST_CHECK((n = dz_vbd_wait(disk, done, LARGE + SMALL, -1)) > 0);
        for (unsigned i = 0; i < LARGE + SMALL; i++) {
            world_pattern(should, io[i].length_bytes, io[i].offset_bytes, job->seed_after);
            GUEST_CHECK(io[i].result == 0 && (!round || !memcmp(io[i].buffer, should, io[i].length_bytes)));
        }
    }
    GUEST_CHECK(dz_vbd_flush(disk) == 0);
    struct dz_vbd_stats stats;
    dz_vbd_stats(disk, &stats);
    GUEST_CHECK(stats.bytes_bounced == 0 && stats.errors == 0);
    dz_vbd_close(disk);
    dz_domain_close(dom);
    return 0;
}

/* Opens the disk, says so, holds it until end_fd closes. */
static int guest_hold(const char *domain_dir, void *arg)
{
    const struct job *job = arg;
    struct dz_domain *dom;
    struct dz_vbd *disk;
    char byte = 0;
    close(job->end_write_fd);
    GUEST_CHECK(dz_domain_open(domain_dir, &dom) == 0);
    GUEST_CHECK(dz_vbd_open(dom, "xvda", WORLD_PATIENT, &disk) == 0);
    GUEST_CHECK(write(job->go_fd, "", 1) == 1);
    GUEST_CHECK(read(job->end_fd, &byte, 1) >= 0);
    dz_vbd_close(disk);
    dz_domain_close(dom);
    return 0;
}

/* Keeps requests in flight until one fails. */
static int guest_hammer(const char *domain_dir, void *arg)
{
    const struct job *job = arg;
    static struct dz_io io[16];
    struct dz_io *done[16];
    struct dz_domain *dom;
    struct dz_vbd *disk;
    GUEST_CHECK(dz_domain_open(domain_dir, &dom) == 0);
    GUEST_CHECK(dz_vbd_open(dom, "xvda", WORLD_PATIENT, &disk) == 0);
    for (unsigned i = 0; i < ARRAY_SIZE(io); i++) {
        io[i] = (struct dz_io){.op = i % 2 ? DZ_WRITE : DZ_READ,
                               .buffer = dz_buffer_alloc(disk, 16384),
                               .length_bytes = 16384,
                               .offset_bytes = i * 16384ull};
        GUEST_CHECK(io[i].buffer && dz_vbd_submit(disk, &io[i]) == 0);
    }
    GUEST_CHECK(write(job->go_fd, "", 1) == 1);
    bool fine = true;
    while (fine) {
        int n = dz_vbd_wait(disk, done, ARRAY_SIZE(done), -1);
        fine = n > 0;
        for (int i = 0; i < n && fine; i++)
            fine = done[i]->result == 0 && dz_vbd_submit(disk, done[i]) == 0;
    }
    dz_vbd_close(disk);
    dz_domain_close(dom);
    return 1;
}

/* ---- tests ---- */

static void rewrite_whole_disk(const char *options)
{
    world_image(&world, "disk.img", 8 * MIB, 1);
    unsigned domid = world_guest(&world, "vm", "disk.img", options);
    struct job job = {.bytes = 8 * MIB, .seed_before = 1, .seed_after = 2, .go_fd = -1};
    assert_int_equal(world_wait(world_spawn(&world, domid, guest_rewrite, &job)), 0);
    destroy("vm");
    assert_image("disk.img", 0, 8 * MIB, 2);
}

static void test_what_a_guest_writes_is_in_the_image(void **state)
{
    (void)state;
    rewrite_whole_disk(NULL);
}

static void test_the_copy_strategy_carries_the_same_data(void **state)
{
    (void)state;
    rewrite_whole_disk("dma=copy");
}

static void test_deep_rings_and_requests_of_a_mebibyte_carry_the_same_data(void **state)
{
    static const char *const options[] = {"dma=pin", "dma=copy", "dma=pin,direct-io=1"};
    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(options); i++) {
        world_image(&world, "disk.img", 16 * MIB, 1);
        unsigned domid = world_guest(&world, "vm", "disk.img", options[i]);
        struct job job = {.bytes = 16 * MIB, .seed_after = 2 + i, .go_fd = -1};
        assert_int_equal(world_wait(world_spawn(&world, domid, guest_rewrite_wide, &job)), 0);
        destroy("vm");
        assert_image("disk.img", 0, 16 * MIB, 2 + i);
    }
}

static void test_a_region_of_a_file_is_a_disk_and_nothing_outside_it_is_touched(void **state)
{
    (void)state;
    world_image(&world, "region.img", 12 * MIB, 1);
    unsigned domid = world_guest(&world, "vm", "region.img", "offset=2M,size=8M");
    /* What the guest sees at 0 is the file's 2 MiB: the pattern depends on the offset in the file, so read it raw. */
    struct job job = {.go_fd = -1};
    (void)job;
    char out[4096];
    assert_int_equal(world_domzero(&world, out, sizeof(out), "exec vm -- %s xvda --offset 0 --length 8388608 > %s",
                                   world_program("examples/04-read-disk"), world_path(&world, "seen.bin")),
                     0);
    assert_int_equal(world_shell(&world, out, sizeof(out), "cmp -n 8388608 -i 0:2097152 %s %s",
                                 world_path(&world, "seen.bin"), world_path(&world, "region.img")),
                     0);
    (void)domid;
    assert_int_equal(world_domzero(&world, out, sizeof(out),
                                   "exec vm -- sh -c 'head -c 8388608 /dev/zero > %s; %s --file %s xvda'",
                                   world_path(&world, "zero.bin"), world_program("examples/05-copy-into-disk"),
                                   world_path(&world, "zero.bin")),
                     0);
    destroy("vm");
    assert_image("region.img", 0, 2 * MIB, 1);
    assert_image("region.img", 10 * MIB, 2 * MIB, 1);
    assert_int_equal(world_shell(&world, out, sizeof(out), "cmp -n 8388608 -i 0:2097152 %s %s",
                                 world_path(&world, "zero.bin"), world_path(&world, "region.img")),
                     0);
}

static void assert_keys(const char *dir, const char *const *keys, unsigned count)
{
    char out[4096], wanted[2048] = "";
    if (world_shell(&world, out, sizeof(out), "xenstore-list %s | grep -v '^domzero$' | sort", dir) != 0)
        fail_msg("xenstore-list %s: %s", dir, out);
    for (unsigned i = 0; i < count; i++) {
        strcat(wanted, keys[i]);
        strcat(wanted, "\n");
    }
    assert_string_equal(out, wanted);
}

static void test_a_connected_device_has_exactly_xens_keys(void **state)
{
    (void)state;
    char out[4096];
    if (world_shell(&world, out, sizeof(out), "command -v xenstore-ls") != 0)
        skip();
    world_image(&world, "disk.img", MIB, 1);
    unsigned domid = world_guest(&world, "vm", "disk.img", NULL);
    int go[2], end[2];
    assert_int_equal(pipe2(go, O_CLOEXEC) | pipe2(end, O_CLOEXEC), 0);
    struct job job = {.go_fd = go[1], .end_fd = end[0], .end_write_fd = end[1]};
    pid_t guest = world_spawn(&world, domid, guest_hold, &job);
    char byte;
    assert_int_equal(read(go[0], &byte, 1), 1);
    static const char *const back[] = {"bootable",
                                       "dev",
                                       "device-type",
                                       "discard-alignment",
                                       "discard-enable",
                                       "discard-granularity",
                                       "discard-secure",
                                       "feature-barrier",
                                       "feature-discard",
                                       "feature-flush-cache",
                                       "feature-max-indirect-segments",
                                       "feature-persistent",
                                       "frontend",
                                       "frontend-id",
                                       "info",
                                       "max-ring-page-order",
                                       "mode",
                                       "multi-queue-max-queues",
                                       "online",
                                       "params",
                                       "physical-sector-size",
                                       "removable",
                                       "sector-size",
                                       "sectors",
                                       "state",
                                       "type"};
    static const char *const front[] = {"backend",  "backend-id", "device-type", "event-channel", "feature-persistent",
                                        "protocol", "ring-ref",   "state",       "virtual-device"};
    char dir[128];
    snprintf(dir, sizeof(dir), "/local/domain/0/backend/vbd/%u/51712", domid);
    assert_keys(dir, back, ARRAY_SIZE(back));
    snprintf(dir, sizeof(dir), "/local/domain/%u/device/vbd/51712", domid);
    assert_keys(dir, front, ARRAY_SIZE(front));
    assert_int_equal(world_shell(&world, out, sizeof(out),
                                 "xenstore-read %s/state %s/protocol /local/domain/0/backend/vbd/%u/51712/state "
                                 "/local/domain/0/backend/vbd/%u/51712/sectors",
                                 dir, dir, domid, domid),
                     0);
    assert_string_equal(out, "4\nx86_64-abi\n4\n2048\n");
    close(end[1]);
    assert_int_equal(world_wait(guest), 0);
    close(end[0]);
    close(go[0]);
    close(go[1]);
    destroy("vm");
}

/* All of a domain's counters, as `domzero list --json` has them, and the lock on its image. */
static bool nothing_is_held(void *ctx)
{
    const char *image = ctx;
    char out[2048];
    assert_int_equal(world_domzero(&world, out, sizeof(out), "list --json"), 0);
    const char *vm = strstr(out, "\"name\": \"vm\"");
    assert_non_null(vm);
    static const char *const zero[] = {"\"processes\": 0,",    "\"memory_kib\": 0,",   "\"extents\": 0,",
                                       "\"held_extents\": 0,", "\"grant_frames\": 0,", "\"ports\": 0,"};
    for (unsigned i = 0; i < ARRAY_SIZE(zero); i++)
        if (!strstr(vm, zero[i]))
            return false;
    _cleanup_close_ int fd = open(image, O_RDWR | O_CLOEXEC);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    assert_int_equal(fcntl(fd, F_OFD_GETLK, &lock), 0);
    return lock.l_type == F_UNLCK;
}

static void test_a_guest_killed_in_the_middle_of_io_leaves_nothing_behind(void **state)
{
    (void)state;
    world_image(&world, "disk.img", 8 * MIB, 1);
    unsigned domid = world_guest(&world, "vm", "disk.img", NULL);
    for (int round = 0; round < 5; round++) {
        int go[2];
        assert_int_equal(pipe2(go, O_CLOEXEC), 0);
        struct job job = {.go_fd = go[1]};
        pid_t guest = world_spawn(&world, domid, guest_hammer, &job);
        char byte;
        assert_int_equal(read(go[0], &byte, 1), 1);
        poll(NULL, 0, 5 + 10 * round);
        kill(guest, SIGKILL);
        assert_int_equal(world_wait(guest), 128 + SIGKILL);
        close(go[0]);
        close(go[1]);
        if (round % 2)
            world_await(nothing_is_held, (void *)world_path(&world, "disk.img"), "all is given back");
    }
    world_await(nothing_is_held, (void *)world_path(&world, "disk.img"), "all is given back");
    world_image(&world, "disk.img", 8 * MIB, 3);
    struct job job = {.bytes = 8 * MIB, .seed_before = 3, .seed_after = 4, .go_fd = -1};
    assert_int_equal(world_wait(world_spawn(&world, domid, guest_rewrite, &job)), 0);
    destroy("vm");
    assert_image("disk.img", 0, 8 * MIB, 4);
}

/* Writes and verifies random blocks until told to stop; keeps its own model of the disk. */
static int guest_write_verify(const char *domain_dir, void *arg)
{
    const struct job *job = arg;
    enum { BLOCK = 16384, BLOCKS = 512 };
    static uint64_t seed_of[BLOCKS];
    static unsigned char buffer[BLOCK], should[BLOCK];
    struct dz_domain *dom;
    struct dz_vbd *disk;
    close(job->end_write_fd);
    GUEST_CHECK(dz_domain_open(domain_dir, &dom) == 0);
    GUEST_CHECK(dz_vbd_open(dom, "xvda", WORLD_PATIENT, &disk) == 0);
    for (unsigned i = 0; i < BLOCKS; i++)
        seed_of[i] = job->seed_before;
    GUEST_CHECK(write(job->go_fd, "", 1) == 1);
    uint64_t random = 7;
    struct pollfd end = {.fd = job->end_fd, .events = POLLIN};
    for (uint64_t step = 1; poll(&end, 1, 0) == 0; step++) {
        random_step(&random);
        unsigned block = (unsigned)(random >> 40) % BLOCKS;
        uint64_t at = (uint64_t)block * BLOCK;
        if (random >> 63) {
            seed_of[block] = step + 1000;
            world_pattern(buffer, BLOCK, at, seed_of[block]);
            GUEST_CHECK(dz_vbd_write(disk, buffer, BLOCK, at) == 0);
        } else {
            GUEST_CHECK(dz_vbd_read(disk, buffer, BLOCK, at) == 0);
            world_pattern(should, BLOCK, at, seed_of[block]);
            GUEST_CHECK(memcmp(buffer, should, BLOCK) == 0);
        }
        if (step % 64 == 0)
            GUEST_CHECK(dz_vbd_flush(disk) == 0);
    }
    for (unsigned block = 0; block < BLOCKS; block++) {
        uint64_t at = (uint64_t)block * BLOCK;
        GUEST_CHECK(dz_vbd_read(disk, buffer, BLOCK, at) == 0);
        world_pattern(should, BLOCK, at, seed_of[block]);
        GUEST_CHECK(memcmp(buffer, should, BLOCK) == 0);
    }
    struct dz_vbd_stats stats;
    dz_vbd_stats(disk, &stats);
    GUEST_CHECK(stats.errors == 0 && stats.reconnects >= 1);
    dz_vbd_close(disk);
    dz_domain_close(dom);
    return 0;
}

static void test_a_killed_backend_comes_back_and_no_byte_is_wrong(void **state)
{
    (void)state;
    world_image(&world, "disk.img", 8 * MIB, 5);
    unsigned domid = world_guest(&world, "vm", "disk.img", NULL);
    int go[2], end[2];
    assert_int_equal(pipe2(go, O_CLOEXEC) | pipe2(end, O_CLOEXEC), 0);
    struct job job = {.seed_before = 5, .go_fd = go[1], .end_fd = end[0], .end_write_fd = end[1]};
    pid_t guest = world_spawn(&world, domid, guest_write_verify, &job);
    char byte;
    assert_int_equal(read(go[0], &byte, 1), 1);
    for (int round = 0; round < 4; round++) {
        poll(NULL, 0, 200);
        world_kill_blk(&world);
        poll(NULL, 0, 300);
    }
    close(end[1]);
    assert_int_equal(world_wait(guest), 0);
    close(end[0]);
    close(go[0]);
    close(go[1]);
    destroy("vm");
}

static void test_two_guests_side_by_side(void **state)
{
    (void)state;
    world_image(&world, "a.img", 4 * MIB, 11);
    world_image(&world, "b.img", 4 * MIB, 21);
    unsigned a = world_guest(&world, "a", "a.img", NULL), b = world_guest(&world, "b", "b.img", "direct-io=1");
    struct job job_a = {.bytes = 4 * MIB, .seed_before = 11, .seed_after = 12, .go_fd = -1};
    struct job job_b = {.bytes = 4 * MIB, .seed_before = 21, .seed_after = 22, .go_fd = -1};
    pid_t guest_a = world_spawn(&world, a, guest_rewrite, &job_a),
          guest_b = world_spawn(&world, b, guest_rewrite, &job_b);
    assert_int_equal(world_wait(guest_a), 0);
    assert_int_equal(world_wait(guest_b), 0);
    destroy("a");
    destroy("b");
    assert_image("a.img", 0, 4 * MIB, 12);
    assert_image("b.img", 0, 4 * MIB, 22);
}

static void test_a_disk_is_attached_and_detached_while_the_guest_lives(void **state)
{
    (void)state;
    char out[2048];
    world_image(&world, "disk.img", MIB, 1);
    world_image(&world, "more.img", MIB, 9);
    world_guest(&world, "vm", "disk.img", NULL);
    if (world_domzero(&world, out, sizeof(out), "block-attach vm format=raw,vdev=xvdb,access=ro,target=%s",
                      world_path(&world, "more.img")))
        fail_msg("%s", out);
    if (world_domzero(&world, out, sizeof(out), "exec vm -- %s xvdb --length 1048576 | cmp - %s",
                      world_program("examples/04-read-disk"), world_path(&world, "more.img")))
        fail_msg("%s", out);
    assert_int_equal(world_domzero(&world, out, sizeof(out), "block-list vm"), 0);
    assert_non_null(strstr(out, "51728"));
    if (world_domzero(&world, out, sizeof(out), "block-detach vm xvdb"))
        fail_msg("%s", out);
    assert_int_equal(world_domzero(&world, out, sizeof(out), "block-list vm"), 0);
    assert_null(strstr(out, "51728"));
    destroy("vm");
}

static void test_dom0_stops_cleanly_while_a_guest_does_io(void **state)
{
    (void)state;
    static struct world other;
    for (int round = 0; round < 3; round++) {
        world_start(&other, NULL);
        world_image(&other, "disk.img", 8 * MIB, 1);
        unsigned domid = world_guest(&other, "vm", "disk.img", NULL);
        int go[2];
        char byte;
        assert_int_equal(pipe2(go, O_CLOEXEC), 0);
        struct job job = {.go_fd = go[1]};
        pid_t guest = world_spawn(&other, domid, guest_hammer, &job);
        assert_int_equal(read(go[0], &byte, 1), 1);
        world_stop(&other);                     /* exit status 0: no role had to be killed */
        assert_int_equal(world_wait(guest), 1); /* its disk failed: it was told */
        close(go[0]);
        close(go[1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_a_guest_writes_is_in_the_image),
        cmocka_unit_test(test_the_copy_strategy_carries_the_same_data),
        cmocka_unit_test(test_deep_rings_and_requests_of_a_mebibyte_carry_the_same_data),
        cmocka_unit_test(test_a_region_of_a_file_is_a_disk_and_nothing_outside_it_is_touched),
        cmocka_unit_test(test_a_connected_device_has_exactly_xens_keys),
        cmocka_unit_test(test_a_guest_killed_in_the_middle_of_io_leaves_nothing_behind),
        cmocka_unit_test(test_a_killed_backend_comes_back_and_no_byte_is_wrong),
        cmocka_unit_test(test_two_guests_side_by_side),
        cmocka_unit_test(test_a_disk_is_attached_and_detached_while_the_guest_lives),
        cmocka_unit_test(test_dom0_stops_cleanly_while_a_guest_does_io),
    };
    return cmocka_run_group_tests_name("e2e", tests, setup, teardown);
}
