/* SPDX-License-Identifier: MIT */
/* The block frontend at its beginning and its end: who of several openers gets the disk, what a close does with
 * requests that nobody answers, and that thousands of both leave nothing behind. Time limits are none of the tests':
 * where a call would wait for its whole timeout, that is weeks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/front_guest.h"
#include "tests/tool.h"

#define WEEKS_MS INT32_MAX

/* ---- several openers ---- */

enum { OPENERS = 4 };

struct race {
    int start[2], result[2], end[2];
};

/* A process of the domain: opens when it is told to, says how it went, and has the disk until the end. */
static void opener(struct front_world *w, struct race *race)
{
    struct dz_vbd_options options = {.timeout_ms = WEEKS_MS};
    struct dz_domain *dom;
    struct dz_vbd *disk = NULL;
    unsigned char data[512];
    char byte;
    close(race->start[1]);
    close(race->end[1]);
    int r = dz_domain_open(w->domain_dir, &dom);
    if (read(race->start[0], &byte, 1) != 0)
        _exit(1);
    r = r ? r : dz_vbd_open(dom, "xvda", &options, &disk);
    r = r ? r : dz_vbd_read(disk, data, sizeof(data), 0);
    if (write(race->result[1], &r, sizeof(r)) != sizeof(r) || read(race->end[0], &byte, 1) != 0)
        _exit(1);
    dz_vbd_close(disk);
    dz_domain_close(dom);
    _exit(0);
}

static void race_once(struct front_world *w)
{
    struct race race;
    pid_t pid[OPENERS];
    unsigned winners = 0;
    assert_true(pipe(race.start) == 0 && pipe(race.result) == 0 && pipe(race.end) == 0);
    for (unsigned i = 0; i < OPENERS; i++)
        if ((pid[i] = fork()) == 0)
            opener(w, &race);
    close(race.start[1]);
    for (unsigned i = 0; i < OPENERS; i++) {
        int r;
        assert_int_equal(read(race.result[0], &r, sizeof(r)), sizeof(r));
        winners += r == 0;
        if (r && r != -EBUSY)
            fail_msg("an opener got %d", r);
    }
    assert_int_equal(winners, 1);
    close(race.end[1]);
    for (unsigned i = 0; i < OPENERS; i++) {
        int status;
        waitpid(pid[i], &status, 0);
        assert_int_equal(status, 0);
    }
    close(race.start[0]), close(race.end[0]), close(race.result[0]), close(race.result[1]);
}

static void test_of_several_openers_one_gets_the_disk_and_the_others_hear_at_once(void **state)
{
    struct front_world *w = *state;
    front_world_backend_start(w, BACK_GOOD, 0);
    for (unsigned round = 0; round < 15; round++)
        race_once(w);
}

/* ---- a close with requests in flight ---- */

static void hold_requests(struct front_world *w, struct guest *g, struct dz_io *io, unsigned char (*data)[4096],
                          unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        io[i] = (struct dz_io){i % 2 ? DZ_WRITE : DZ_READ, data[i], 4096, i * 4096, NULL, 1, {0}};
        submit(g, &io[i]);
    }
    dz_vbd_kick(g->disk);
    front_world_until(&w->back->held, count);
}

static void test_a_close_cancels_what_a_backend_that_lives_does_not_answer(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    struct dz_io io[8];
    static unsigned char data[8][4096];
    front_world_backend_start(w, BACK_HOLD, 0);
    const struct dz_vbd_options options = {.timeout_ms = 500}; /* of the open, too: it may need another try */
    assert_int_equal(dz_domain_open(w->domain_dir, &g.dom), 0);
    while (dz_vbd_open(g.dom, "xvda", &options, &g.disk) == -ETIMEDOUT)
        ;
    hold_requests(w, &g, io, data, 8);
    guest_close(w, &g);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(io[i].result, -ECANCELED);
}

static void test_a_close_does_not_wait_for_a_backend_that_is_gone(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    struct dz_io io[8];
    static unsigned char data[8][4096];
    for (unsigned removed = 0; removed < 2; removed++) {
        front_world_backend_start(w, BACK_HOLD, 0);
        guest_open_with(w, &g, &(struct dz_vbd_options){.timeout_ms = WEEKS_MS});
        hold_requests(w, &g, io, data, 8);
        front_world_backend_kill(w);
        if (removed) /* its keys, too */
            front_world_disk_remove(w);
        guest_close(w, &g);
        for (unsigned i = 0; i < 8; i++)
            assert_int_equal(io[i].result, removed ? -ENODEV : -ECANCELED);
        assert_int_equal(holdings(w).extents, 0);
    }
}

static void test_a_close_waits_for_a_backend_that_is_restarted(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    struct dz_io io[8];
    static unsigned char data[8][4096];
    front_world_backend_start(w, BACK_HOLD, 0);
    guest_open_with(w, &g, &(struct dz_vbd_options){.timeout_ms = WEEKS_MS});
    hold_requests(w, &g, io, data, 8);
    front_world_backend_kill(w);
    front_world_backend_start(w, BACK_GOOD, 0);
    guest_close(w, &g);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(io[i].result, 0);
}

/* ---- keys ---- */

static void test_the_backend_may_keep_grants_mapped_unless_that_is_refused(void **state)
{
    struct front_world *w = *state;
    for (unsigned refused = 0; refused < 2; refused++) {
        struct guest g;
        front_world_backend_start(w, BACK_GOOD, 0);
        guest_open_with(w, &g, &(struct dz_vbd_options){.no_persistent = refused});
        assert_int_equal(w->back->persistent, !refused);
        guest_close(w, &g);
        front_world_backend_kill(w);
    }
}

/* ---- thousands of both ---- */

struct footprint {
    unsigned descriptors, mappings, threads;
    uint64_t resident_bytes;
    struct platform_domain held;
};

static unsigned entries_of(const char *path)
{
    DIR *d = opendir(path);
    unsigned n = 0;
    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static struct footprint footprint(struct front_world *w)
{
    struct footprint f = {.descriptors = entries_of("/proc/self/fd"), .threads = entries_of("/proc/self/task")};
    unsigned long size, resident;
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "r"), *statm = fopen("/proc/self/statm", "r");
    assert_true(maps && statm);
    while (fgets(line, sizeof(line), maps))
        f.mappings += strchr(line, '\n') != NULL;
    assert_int_equal(fscanf(statm, "%lu %lu", &size, &resident), 2);
    f.resident_bytes = resident * (uint64_t)sysconf(_SC_PAGESIZE);
    fclose(maps);
    fclose(statm);
    f.held = holdings(w);
    return f;
}

static void cycle(struct guest *g, unsigned i)
{
    struct dz_vbd_options options = {.queues = 1 + i % 3, .queue_depth = i % 2 ? 64 : 32, .pool_bytes = 256 << 10};
    unsigned char data[4096];
    if (dz_vbd_open(g->dom, "xvda", &options, &g->disk) < 0)
        fail_msg("open %u: %s", i, dz_error());
    fill(data, sizeof(data), i);
    assert_int_equal(dz_vbd_write(g->disk, data, sizeof(data), 4096ull * (i % 100)), 0);
    dz_vbd_close(g->disk);
}

static void test_cycles_of_opening_and_closing_leave_nothing(void **state)
{
    struct front_world *w = *state;
    const char *asked = getenv("DOMZERO_TEST_CYCLES");
    unsigned cycles = asked ? (unsigned)strtoul(asked, NULL, 10) : under_tool(NULL) ? 50 : 500;
    struct guest g;
    w->back->features = (struct keys_blk_features){.max_ring_order = 1, .max_queues = 3, .max_indirect_segments = 64};
    front_world_backend_start(w, BACK_GOOD, 0);
    assert_int_equal(dz_domain_open(w->domain_dir, &g.dom), 0);
    for (unsigned i = 0; i < 60; i++) /* what is allocated once is */
        cycle(&g, i);
    struct footprint before = footprint(w);
    for (unsigned i = 0; i < cycles; i++)
        cycle(&g, i);
    struct footprint after = footprint(w);
    print_message(
        "%u cycles: descriptors %u and %u, mappings %u and %u, threads %u and %u, resident %llu and %llu KiB, "
        "grant frames %u and %u\n",
        cycles, before.descriptors, after.descriptors, before.mappings, after.mappings, before.threads, after.threads,
        (unsigned long long)before.resident_bytes >> 10, (unsigned long long)after.resident_bytes >> 10,
        before.held.grant_frames, after.held.grant_frames);
    assert_int_equal(after.descriptors, before.descriptors);
    assert_int_equal(after.threads, before.threads);
    assert_true(after.mappings <= before.mappings + 4); /* the allocator's and the C library's own come and go */
    assert_int_equal(after.held.extents, 0);
    assert_int_equal(after.held.frames, before.held.frames);
    assert_int_equal(after.held.grant_frames, before.held.grant_frames);
    assert_int_equal(after.held.ports, 0);
    if (!under_tool(NULL)) /* else what was freed is kept */
        assert_true(after.resident_bytes < before.resident_bytes + (2u << 20));
    g.disk = NULL;
    guest_close(w, &g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FRONT_TEST(test_of_several_openers_one_gets_the_disk_and_the_others_hear_at_once),
        FRONT_TEST(test_a_close_cancels_what_a_backend_that_lives_does_not_answer),
        FRONT_TEST(test_a_close_does_not_wait_for_a_backend_that_is_gone),
        FRONT_TEST(test_a_close_waits_for_a_backend_that_is_restarted),
        FRONT_TEST(test_the_backend_may_keep_grants_mapped_unless_that_is_refused),
        FRONT_TEST(test_cycles_of_opening_and_closing_leave_nothing),
    };
    return cmocka_run_group_tests_name("blkfront_close", tests, NULL, NULL);
}
