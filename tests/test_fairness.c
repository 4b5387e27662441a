/* SPDX-License-Identifier: MIT */
/* Nine disks of one reactor, eight of them with deep queues, one with one request at a time: each gets its turn.
 *
 * Nothing here depends on time. The role is stopped while the guests fill their rings and count what they got, and runs
 * in between for as long as it happens to; whatever that was, no disk is ahead of another by more than some
 * passes' budget. The disks are of the null format, so nothing but the reactor decides. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

#include "backend/blk/blkqueue.h"
#include "tests/mqguest.h"

#define DEEP   8u
#define ROUNDS 200u
#define WAITS  5000u /* … and no more of them */
/* A stop may cut a pass in two, at either end of a round, and who was active already is seen a pass before the others.
 */
#define AHEAD_MAX (4 * BLKQUEUE_BUDGET)
/* With 17 queues the kernel tells of the last one some passes later than of the first: measured up to 264 requests.
 * Queues that did not share a budget would be 464 ahead. */
#define QUEUES_AHEAD_MAX (6 * BLKQUEUE_BUDGET)

struct disk {
    struct blkguest g;
    struct keys_blk_config config;
    char dir[256];
    uint16_t domid;
    unsigned depth, segments; /* of each request */
    unsigned in_ring;
    unsigned served_now; /* in this round */
    uint64_t served;
};

struct crowd {
    struct blkworld world;
    struct disk disk[DEEP + 1]; /* the last: one request at a time */
};

static void disk_start(struct crowd *c, unsigned i, unsigned segments)
{
    struct disk *d = &c->disk[i];
    char name[16];
    snprintf(name, sizeof(name), "guest%u", i);
    d->domid = blkworld_domain(&c->world, name, d->dir, sizeof(d->dir));
    d->config.size_bytes = 1u << 30;
    strcpy(d->config.format, "null");
    strcpy(d->config.path, "/null");
    blkworld_attach(&c->world, d->domid, BLKWORLD_DEVID, &d->config);
    blkguest_open(&d->g, d->dir, BLKWORLD_DEVID);
    d->g.order = i < DEEP ? 4 : 0;
    blkguest_connect(&d->g, NULL);
    d->segments = segments;
    d->depth = i == DEEP ? 1 : segments > BLKREQ_SEGMENTS_MAX ? BLKWORLD_INDIRECT : d->g.ring.ring.entries;
}

static void crowd_start(struct crowd *c, const unsigned segments[DEEP])
{
    memset(c, 0, sizeof(*c));
    blkworld_servers(&c->world);
    blkworld_role_start_with(&c->world, "interrupt", 1);
    for (unsigned i = 0; i <= DEEP; i++)
        disk_start(c, i, i < DEEP ? segments[i] : 1);
}

static void crowd_stop(struct crowd *c)
{
    for (unsigned i = 0; i <= DEEP; i++) {
        blkguest_disconnect(&c->disk[i].g);
        blkguest_close(&c->disk[i].g);
    }
    blkworld_stop(&c->world);
}

static void role_stop(struct crowd *c)
{
    int status;
    kill(c->world.role, SIGSTOP);
    assert_int_equal(waitpid(c->world.role, &status, WUNTRACED), c->world.role);
    assert_true(WIFSTOPPED(status));
}

static void disk_fill(struct disk *d)
{
    for (; d->in_ring < d->depth; d->in_ring++) {
        if (d->segments > BLKREQ_SEGMENTS_MAX)
            blkguest_put_indirect(&d->g, BLKIF_OP_READ, 0, 0, d->segments, 0, 7);
        else
            blkguest_put(&d->g, BLKIF_OP_READ, 0, 0, d->segments, 0, 7);
    }
    blkguest_kick(&d->g);
}

static void disk_count(struct disk *d)
{
    uint32_t n = 0;
    uint64_t id;
    (void)ring_front_arm(&d->g.ring);
    assert_int_equal(ring_front_pending(&d->g.ring, &n), 0);
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(blkguest_take(&d->g, &id), BLKIF_RSP_OKAY);
    d->served_now = n;
    d->served += n;
    d->in_ring -= n;
}

/* Rings are filled and the role runs until it has done something, or, `all`, everything. */
static void crowd_round(struct crowd *c, bool all)
{
    unsigned sum = 0, wanted = 0;
    for (unsigned i = 0; i <= DEEP; i++) {
        c->disk[i].served_now = 0;
        disk_fill(&c->disk[i]);
        wanted += c->disk[i].in_ring;
    }
    for (unsigned waits = 0; sum < (all ? wanted : 1); waits++) {
        assert_true(waits < WAITS);
        kill(c->world.role, SIGCONT);
        usleep(waits < 10 && !all ? 50 : 2000);
        role_stop(c);
        sum = 0;
        for (unsigned i = 0; i <= DEEP; i++) {
            unsigned before = c->disk[i].served_now;
            disk_count(&c->disk[i]);
            sum += c->disk[i].served_now += before;
        }
    }
}

/* (sum x)² / (n · sum x²): 1 where all have the same. */
static double jain(const struct crowd *c)
{
    double sum = 0, squares = 0;
    for (unsigned i = 0; i < DEEP; i++) {
        sum += (double)c->disk[i].served;
        squares += (double)c->disk[i].served * (double)c->disk[i].served;
    }
    return sum * sum / (DEEP * squares);
}

/* One that has work left got at least a request for each budget that another got, but for the passes that the stop cut
 * in two. */
static void check_turns(const struct crowd *c)
{
    unsigned most = 0;
    for (unsigned i = 0; i <= DEEP; i++)
        most = MAX(most, c->disk[i].served_now);
    for (unsigned i = 0; i <= DEEP; i++)
        if (c->disk[i].in_ring)
            assert_true(c->disk[i].served_now + AHEAD_MAX / BLKQUEUE_BUDGET >= most / BLKQUEUE_BUDGET);
}

static void test_equal_disks_get_equal_shares_and_one_of_little_depth_its_turn(void **state)
{
    static const unsigned equal[DEEP] = {1, 1, 1, 1, 1, 1, 1, 1};
    static struct crowd c;
    unsigned partly = 0;
    (void)state;
    crowd_start(&c, equal);
    role_stop(&c);
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned least = UINT32_MAX, most = 0;
        crowd_round(&c, false);
        for (unsigned i = 0; i < DEEP; i++) {
            least = MIN(least, c.disk[i].served_now);
            most = MAX(most, c.disk[i].served_now);
        }
        partly += least < c.disk[0].depth;
        assert_true(most - least <= AHEAD_MAX);
        if (most > AHEAD_MAX)
            assert_int_equal(c.disk[DEEP].served_now, 1);
        check_turns(&c);
    }
    print_message("Jain's index %.4f; %u of %u rounds ended with work left\n", jain(&c), partly, ROUNDS);
    assert_true(jain(&c) > 0.98);
    crowd_round(&c, true);
    kill(c.world.role, SIGCONT);
    crowd_stop(&c);
}

static void test_large_requests_do_not_keep_small_ones_from_their_turn(void **state)
{
    static const unsigned sizes[DEEP] = {1, 2, 4, 8, 11, 32, 128, 256};
    static struct crowd c;
    (void)state;
    crowd_start(&c, sizes);
    role_stop(&c);
    for (unsigned round = 0; round < ROUNDS; round++) {
        crowd_round(&c, false);
        check_turns(&c);
    }
    crowd_round(&c, true);
    for (unsigned i = 0; i <= DEEP; i++)
        assert_true(c.disk[i].served > 0);
    kill(c.world.role, SIGCONT);
    crowd_stop(&c);
}

/* What those from … to - 1 got since it was counted last. */
static unsigned served_by(struct disk *disks, unsigned from, unsigned to)
{
    unsigned sum = 0;
    for (unsigned i = from; i < to; i++) {
        disk_count(&disks[i]);
        sum += disks[i].served_now;
    }
    return sum;
}

static void test_a_guest_gets_no_more_of_a_reactor_by_asking_for_more_queues(void **state)
{
    static struct crowd c;
    static struct mqguest m;
    static struct disk disks[KEYS_BLK_QUEUES_MAX + 1]; /* queues of one disk, and another disk */
    struct disk *one = &disks[KEYS_BLK_QUEUES_MAX], *many = &c.disk[0];
    unsigned partly = 0;
    (void)state;
    blkworld_servers(&c.world);
    setenv("BLKWORLD_REACTORS", "1", 1);
    blkworld_role_start(&c.world, "interrupt");
    unsetenv("BLKWORLD_REACTORS");
    strcpy(c.disk[1].config.dma, "copy"); /* slow enough to be stopped amid it */
    disk_start(&c, 1, 1);
    *one = c.disk[1];
    many->domid = blkworld_domain(&c.world, "many", many->dir, sizeof(many->dir));
    many->config = one->config;
    many->config.max_queues = KEYS_BLK_QUEUES_MAX;
    blkworld_attach(&c.world, many->domid, BLKWORLD_DEVID, &many->config);
    mqguest_open(&m, many->dir, BLKWORLD_DEVID);
    mqguest_connect(&m, KEYS_BLK_QUEUES_MAX, 0);
    for (unsigned i = 0; i < m.count; i++)
        disks[i] = (struct disk){.g = m.queue[i], .depth = m.queue[i].ring.ring.entries, .segments = 1};
    role_stop(&c);
    for (unsigned round = 0, waits = 0; round < ROUNDS; waits++) {
        assert_true(waits < WAITS);
        for (unsigned i = 0; i <= m.count; i++)
            disk_fill(&disks[i]);
        kill(c.world.role, SIGCONT);
        usleep(waits % 50);
        role_stop(&c);
        unsigned got = served_by(disks, 0, m.count), other = served_by(disks, m.count, m.count + 1);
        if (one->in_ring)
            assert_true(got <= other + QUEUES_AHEAD_MAX);
        partly += got && one->in_ring;
        round += got || other;
    }
    print_message("%u of %u rounds ended with work left\n", partly, ROUNDS);
    kill(c.world.role, SIGCONT);
    for (unsigned i = 0; i <= m.count; i++)
        for (uint64_t id; disks[i].in_ring; disks[i].in_ring--)
            assert_int_equal(blkguest_take(&disks[i].g, &id), BLKIF_RSP_OKAY);
    mqguest_disconnect(&m);
    mqguest_close(&m);
    blkguest_disconnect(&one->g);
    blkguest_close(&one->g);
    blkworld_stop(&c.world);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal_disks_get_equal_shares_and_one_of_little_depth_its_turn),
        cmocka_unit_test(test_large_requests_do_not_keep_small_ones_from_their_turn),
        cmocka_unit_test(test_a_guest_gets_no_more_of_a_reactor_by_asking_for_more_queues),
    };
    blkworld_child(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
