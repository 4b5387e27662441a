/* SPDX-License-Identifier: MIT */
/* What the block role counts, with the real programs: exactly what a guest did, errors by their names, nothing lost
 * when a guest comes back, and nothing disturbed by whoever reads. The guest's ring is driven by hand in this process,
 * or by libdomzero in one of its own. */
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
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/unixsock.h"
#include "tests/blkworld.h"
#include "tests/harness.h"

#define MIB (1u << 20)

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

/* A domain with one disk of 1 MiB, and a connected guest. */
struct guest {
    unsigned domid;
    char dir[128];
    struct blkguest g;
};

static void guest_start(struct guest *v, const char *name, const char *disk_options)
{
    char image[64];
    snprintf(image, sizeof(image), "%s.img", name);
    world_image(&world, image, MIB, 1);
    v->domid = world_guest(&world, name, image, disk_options);
    snprintf(v->dir, sizeof(v->dir), "%s/dom/%u", world.run, v->domid);
    blkguest_open(&v->g, v->dir, BLKWORLD_DEVID);
    blkguest_connect(&v->g, NULL);
}

static void guest_end(struct guest *v, const char *name)
{
    char out[512];
    blkguest_close(&v->g);
    if (world_domzero(&world, out, sizeof(out), "destroy %s", name))
        fail_msg("%s", out);
}

static void stats(const struct guest *v, struct stats_blk_reply *out)
{
    assert_true(blkworld_stats(world.run, (uint16_t)v->domid, BLKWORLD_DEVID, out));
}

#define assert_number(r, name, value) assert_number_(r, name, value, __LINE__)
static void assert_number_(const struct stats_blk_reply *r, const char *name, uint64_t value, int line)
{
    uint64_t is = blkworld_number(r, name);
    if (is != value)
        fail_msg("line %d: %s is %llu, should be %llu", line, name, (unsigned long long)is, (unsigned long long)value);
}

static uint64_t sum(const uint64_t *v, unsigned count)
{
    uint64_t s = 0;
    for (unsigned i = 0; i < count; i++)
        s += v[i];
    return s;
}

static void request(struct guest *v, uint8_t operation, unsigned segments, unsigned first, unsigned last)
{
    assert_int_equal(blkguest_do(&v->g, operation, 8, 0, segments, first, last), BLKIF_RSP_OKAY);
}

/* The reactor counts a notification when it has published: the guest may be here before. */
static bool notifications_add_up(void *ctx)
{
    struct stats_blk_reply r;
    stats(ctx, &r);
    return r.stats.notifications + r.stats.notifications_suppressed == r.stats.batches;
}

/* ---- exactly what the guest did ---- */

static void check_exact(const char *name, const char *disk_options, uint64_t merges)
{
    struct guest v;
    struct stats_blk_reply r;
    guest_start(&v, name, disk_options);
    for (unsigned i = 0; i < 7; i++)
        request(&v, BLKIF_OP_READ, 1, 0, 7);
    for (unsigned i = 0; i < 5; i++)
        request(&v, BLKIF_OP_WRITE, 3, 0, 7); /* whole pages side by side: one vector */
    request(&v, BLKIF_OP_WRITE, 2, 2, 5);     /* with a gap between them */
    for (unsigned i = 0; i < 3; i++)
        request(&v, BLKIF_OP_FLUSH_DISKCACHE, 0, 0, 0);
    request(&v, BLKIF_OP_FLUSH_DISKCACHE, 1, 0, 0);
    world_await(notifications_add_up, &v, "every batch is notified or not");
    stats(&v, &r);
    assert_number(&r, "requests", 17);
    assert_number(&r, "responses", 17);
    assert_number(&r, "reads", 7);
    assert_number(&r, "writes", 6);
    assert_number(&r, "flushes", 4);
    assert_number(&r, "discards", 0);
    assert_number(&r, "sectors_read", 7 * 8);
    assert_number(&r, "sectors_written", 5 * 24 + 8 + 1);
    assert_number(&r, "syncs", 4); /* one after the other */
    assert_number(&r, "grants_mapped", 7 + 15 + 2 + 1);
    assert_number(&r, "merges", merges);
    assert_number(&r, "errors", 0);
    assert_number(&r, "batches", 17);
    assert_number(&r, "connects", 1);
    assert_number(&r, "in_flight", 0);
    assert_number(&r, "last_io_errno", 0);
    assert_int_equal(r.stats.batch[0], 17);
    assert_int_equal(sum(r.stats.batch, STATS_BLK_BATCHES), 17);
    static const uint64_t ended[STATS_BLK_OPS] = {
        [STATS_BLK_READ] = 7, [STATS_BLK_WRITE] = 6, [STATS_BLK_FLUSH] = 4, [STATS_BLK_DISCARD] = 0};
    for (unsigned op = 0; op < STATS_BLK_OPS; op++) {
        assert_int_equal(loghist_count(r.stats.latency[op].bucket), ended[op]);
        assert_int_equal(r.stats.latency[op].sum_ns > 0, ended[op] > 0);
    }
    assert_true(r.state == XenbusStateConnected && r.now_ns > r.since_ns);
    guest_end(&v, name);
}

static void test_the_counters_are_what_a_guest_did(void **state)
{
    (void)state;
    check_exact("pinned", NULL, 5 * 2);
    check_exact("copied", "dma=copy", 5 * 2 + 1);
}

static void test_a_batch_is_counted_by_its_size(void **state)
{
    struct guest v;
    struct stats_blk_reply r;
    uint64_t id;
    (void)state;
    guest_start(&v, "batch", NULL);
    for (unsigned i = 0; i < 32; i++)
        blkguest_put(&v.g, BLKIF_OP_READ, 0, 0, 1, 0, 7);
    blkguest_kick(&v.g);
    for (unsigned i = 0; i < 32; i++)
        assert_int_equal(blkguest_take(&v.g, &id), BLKIF_RSP_OKAY);
    stats(&v, &r);
    assert_number(&r, "responses", 32);
    assert_int_equal(sum(r.stats.batch, STATS_BLK_BATCHES), r.stats.batches);
    uint64_t least = 0, most = 0;
    for (unsigned i = 0; i < STATS_BLK_BATCHES; i++) {
        least += r.stats.batch[i] << i;
        most += r.stats.batch[i] * MIN(stats_blk_batch_max(i), 32);
    }
    assert_in_range(32, least, most);
    guest_end(&v, "batch");
}

/* ---- over connections and lives ---- */

static void test_a_guest_that_comes_back_goes_on_counting(void **state)
{
    struct guest v;
    struct stats_blk_reply r;
    (void)state;
    guest_start(&v, "back", NULL);
    for (unsigned round = 1; round <= 3; round++) {
        request(&v, BLKIF_OP_READ, 1, 0, 7);
        blkguest_disconnect(&v.g);
        stats(&v, &r);
        assert_number(&r, "reads", round);
        assert_number(&r, "connects", round);
        assert_number(&r, "pinned_bytes", 0);
        assert_number(&r, "dma_maps", round);        /* exact once the queue is gone */
        assert_true(r.stats.reactor_calls >= round); /* a read each, and nothing to share a call */
        assert_true(r.stats.registrations <= round &&
                    r.stats.registrations > 0); /* its memory; or it was not the time */
        assert_int_equal(loghist_count(r.stats.latency[STATS_BLK_READ].bucket), round);
        blkguest_switch(&v.g, XenbusStateInitialising);
        blkguest_connect(&v.g, NULL);
    }
    guest_end(&v, "back");
}

static bool counts_from_zero(void *ctx)
{
    struct stats_blk_reply r;
    const struct guest *v = ctx;
    return blkworld_stats(world.run, (uint16_t)v->domid, BLKWORLD_DEVID, &r) && r.stats.requests == 0;
}

static void test_a_role_that_is_started_again_serves_its_numbers_again(void **state)
{
    struct guest v;
    struct stats_blk_reply before, after;
    (void)state;
    guest_start(&v, "lives", NULL);
    request(&v, BLKIF_OP_READ, 1, 0, 7);
    stats(&v, &before);
    world_kill_blk(&world);
    world_await(counts_from_zero, &v, "the new role's numbers");
    stats(&v, &after);
    assert_true(after.since_ns > before.now_ns);
    guest_end(&v, "lives");
}

/* ---- a hostile guest is called by what it did ---- */

static int16_t raw(struct guest *v, struct blkreq req)
{
    uint64_t id;
    blkguest_put_raw(&v->g, &req);
    blkguest_kick(&v->g);
    return blkguest_take(&v->g, &id);
}

static bool ring_overrun_is_counted(void *ctx)
{
    struct stats_blk_reply r;
    stats(ctx, &r);
    return blkworld_number(&r, "ring_overrun") == 1 && r.state == XenbusStateClosed;
}

static void test_a_hostile_guest_shows_by_the_names_of_its_errors(void **state)
{
    struct guest v;
    struct stats_blk_reply r;
    char out[8192];
    (void)state;
    guest_start(&v, "hostile", NULL);
    struct blkreq good = {.operation = BLKIF_OP_READ, .segment_count = 1, .segment[0] = {v.g.gref[0], 0, 7}};
    struct blkreq bad = good;
    bad.sector = UINT64_MAX - 3;
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(raw(&v, bad), BLKIF_RSP_ERROR);
    bad = good;
    bad.operation = 77;
    assert_int_equal(raw(&v, bad), BLKIF_RSP_EOPNOTSUPP);
    bad = good;
    bad.segment[0].gref = UINT32_MAX;
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(raw(&v, bad), BLKIF_RSP_ERROR);
    assert_int_equal(raw(&v, good), BLKIF_RSP_OKAY);
    stats(&v, &r);
    assert_number(&r, "request_range", 3);
    assert_number(&r, "request_operation", 1);
    assert_number(&r, "grant_bad_ref", 2);
    assert_number(&r, "errors", 6);
    assert_number(&r, "requests", 7);
    assert_number(&r, "grants_mapped", 1);
    uint64_t kinds = 0;
    for (unsigned i = 0; i < STATS_BLK_KINDS; i++)
        kinds += r.stats.error[i].count;
    assert_int_equal(kinds, 6);
    assert_int_equal(loghist_count(r.stats.latency[STATS_BLK_READ].bucket), 1);

    ring_set(&v.g.ring.ring, req_prod, v.g.ring.req_prod + 1000);
    (void)evtchn_notify(&v.g.channel);
    world_await(ring_overrun_is_counted, &v, "the device is closed for what the ring says");
    assert_int_equal(world_domzero(&world, out, sizeof(out), "block-stats hostile xvda"), 0);
    assert_non_null(strstr(out, "request_range"));
    assert_non_null(strstr(out, "grant_bad_ref"));
    assert_non_null(strstr(out, "ring_overrun"));
    assert_null(strstr(out, "request_read_only")); /* what did not happen is not shown */
    guest_end(&v, "hostile");
}

/* ---- readers ---- */

struct job {
    int report_fd; /* the guest writes its number of requests here */
};

#define GUEST_ROUNDS 400

/* Writes, reads back and compares; tells how many requests that were. */
static int guest_verify(const char *domain_dir, void *arg)
{
    const struct job *job = arg;
    static unsigned char buffer[65536], should[65536];
    struct dz_domain *dom;
    struct dz_vbd *disk;
    struct dz_vbd_stats s;
    if (dz_domain_open(domain_dir, &dom) || dz_vbd_open(dom, "xvda", WORLD_PATIENT, &disk))
        return 1;
    for (uint64_t i = 0; i < GUEST_ROUNDS; i++) {
        uint64_t at = i * sizeof(buffer) % MIB;
        world_pattern(should, sizeof(should), at, i);
        if (dz_vbd_write(disk, should, sizeof(should), at) || dz_vbd_read(disk, buffer, sizeof(buffer), at) ||
            memcmp(buffer, should, sizeof(buffer)))
            return 1;
    }
    dz_vbd_stats(disk, &s);
    if (s.errors || s.reconnects || write(job->report_fd, &s.requests, sizeof(s.requests)) != sizeof(s.requests))
        return 1;
    dz_vbd_close(disk);
    dz_domain_close(dom);
    return 0;
}

/* No counter goes back. */
static void assert_grown(const struct stats_blk_reply *before, const struct stats_blk_reply *now)
{
    for (unsigned i = 0; i < stats_blk_row_count; i++)
        if (!stats_blk_rows[i].gauge)
            assert_true(stats_blk_value(&now->stats, &stats_blk_rows[i]) >=
                        stats_blk_value(&before->stats, &stats_blk_rows[i]));
}

static void test_reading_in_a_loop_disturbs_nobody(void **state)
{
    (void)state;
    struct stats_blk_reply before = {0}, now;
    int report[2];
    uint64_t requests = 0, reads = 0;
    world_image(&world, "loop.img", MIB, 1);
    unsigned domid = world_guest(&world, "loop", "loop.img", NULL);
    assert_int_equal(pipe2(report, O_CLOEXEC), 0);
    struct job job = {.report_fd = report[1]};
    pid_t guest = world_spawn(&world, domid, guest_verify, &job);
    int status;
    while (waitpid(guest, &status, WNOHANG) == 0) {
        assert_true(blkworld_stats(world.run, (uint16_t)domid, BLKWORLD_DEVID, &now));
        assert_grown(&before, &now);
        before = now;
        reads++;
    }
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(read(report[0], &requests, sizeof(requests)), sizeof(requests));
    assert_true(blkworld_stats(world.run, (uint16_t)domid, BLKWORLD_DEVID, &now));
    print_message("%llu requests, read %llu times meanwhile\n", (unsigned long long)requests,
                  (unsigned long long)reads);
    assert_number(&now, "requests", requests);
    assert_number(&now, "responses", requests);
    assert_number(&now, "sectors_written", (uint64_t)GUEST_ROUNDS * 65536 / SECTOR_BYTES);
    assert_number(&now, "sectors_read", (uint64_t)GUEST_ROUNDS * 65536 / SECTOR_BYTES);
    assert_number(&now, "errors", 0);
    close(report[0]);
    close(report[1]);
    assert_int_equal(world_domzero(&world, NULL, 0, "destroy loop"), 0);
}

static int reader_connect(void)
{
    struct err e = {0};
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", world.run, STATS_BLK_SOCKET);
    int fd = unixsock_connect(path, SOCK_SEQPACKET, &e);
    if (fd < 0)
        fail_msg("%s", e.text);
    return fd;
}

static void assert_answered(int fd)
{
    struct stats_blk_query q = stats_blk_first();
    struct stats_blk_reply r;
    struct err e = {0};
    if (stats_blk_ask(fd, &q, &r, &e) != 1)
        fail_msg("%s", e.text);
}

static void test_readers_that_misbehave_are_hung_up_on_and_others_served(void **state)
{
    (void)state;
    struct guest v;
    struct stats_blk_query wrong = stats_blk_first();
    char byte;
    guest_start(&v, "readers", NULL);
    int good = reader_connect();
    assert_answered(good);
    wrong.magic++;
    for (unsigned i = 0; i < 3; i++) { /* another version; too short; nothing at all */
        int fd = reader_connect();
        size_t n = i == 0 ? sizeof(wrong) : i == 1 ? 3 : 0;
        assert_int_equal(send(fd, &wrong, n, MSG_NOSIGNAL), (ssize_t)n);
        assert_int_equal(recv(fd, &byte, 1, 0), 0);
        close(fd);
    }
    int deaf = reader_connect(); /* asks and never reads, until it is hung up on */
    struct stats_blk_query q = stats_blk_first();
    while (send(deaf, &q, sizeof(q), MSG_NOSIGNAL) == (ssize_t)sizeof(q))
        ;
    assert_true(errno == EPIPE || errno == ECONNRESET);
    close(deaf);
    assert_answered(good);
    int many[40]; /* more than are served: the rest is hung up on, who was there is served on */
    for (unsigned i = 0; i < ARRAY_SIZE(many); i++)
        many[i] = reader_connect();
    assert_answered(many[0]);
    assert_int_equal(recv(many[39], &byte, 1, 0), 0);
    assert_answered(good);
    for (unsigned i = 0; i < ARRAY_SIZE(many); i++)
        close(many[i]);
    int late = reader_connect();
    assert_answered(late);
    close(late);
    close(good);
    request(&v, BLKIF_OP_READ, 1, 0, 7);
    guest_end(&v, "readers");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_counters_are_what_a_guest_did),
        cmocka_unit_test(test_a_batch_is_counted_by_its_size),
        cmocka_unit_test(test_a_guest_that_comes_back_goes_on_counting),
        cmocka_unit_test(test_a_hostile_guest_shows_by_the_names_of_its_errors),
        cmocka_unit_test(test_reading_in_a_loop_disturbs_nobody),
        cmocka_unit_test(test_readers_that_misbehave_are_hung_up_on_and_others_served),
        cmocka_unit_test(test_a_role_that_is_started_again_serves_its_numbers_again),
    };
    return cmocka_run_group_tests_name("block_stats", tests, setup, teardown);
}
