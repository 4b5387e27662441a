/* SPDX-License-Identifier: MIT */
/* Disks with several queues, over one and over several reactors: they move data at the same time and mix nothing up,
 * come and go together, and what happens to one happens to the device and to nobody else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/unixsock.h"
#include "grant/dma.h"
#include "tests/mqguest.h"

#define DISK_BYTES MQLOAD_DISK_BYTES(KEYS_BLK_QUEUES_MAX)
#define SEED       0x5eed0000u /* of the neighbour's disk */

/* A guest with several queues, and a neighbour with one, who must notice nothing. */
struct scene {
    struct blkworld world;
    char dir[256], neighbour_dir[256];
    uint16_t domid, neighbour_domid;
    struct keys_blk_config config, neighbour_config;
    struct mqguest guest;
    struct blkguest neighbour;
    struct mqloads loads;
};

static void scene_start(struct scene *s, unsigned reactors, const char *dma)
{
    memset(s, 0, sizeof(*s));
    struct blkworld *w = &s->world;
    blkworld_servers(w);
    blkworld_role_start_with(&s->world, NULL, reactors);
    s->domid = blkworld_domain(w, "several", s->dir, sizeof(s->dir));
    s->neighbour_domid = blkworld_domain(w, "neighbour", s->neighbour_dir, sizeof(s->neighbour_dir));
    blkworld_image(w, "several.img", DISK_BYTES, 1, s->config.path, sizeof(s->config.path));
    blkworld_image(w, "neighbour.img", 1u << 20, SEED, s->neighbour_config.path, sizeof(s->config.path));
    snprintf(s->config.dma, sizeof(s->config.dma), "%s", dma);
    s->config.max_queues = KEYS_BLK_QUEUES_MAX;
    blkworld_attach(w, s->domid, BLKWORLD_DEVID, &s->config);
    blkworld_attach(w, s->neighbour_domid, BLKWORLD_DEVID, &s->neighbour_config);
    mqguest_open(&s->guest, s->dir, BLKWORLD_DEVID);
    blkguest_open(&s->neighbour, s->neighbour_dir, BLKWORLD_DEVID);
    blkguest_connect(&s->neighbour, NULL);
}

static void scene_check(struct scene *s)
{
    blkguest_check_served(&s->neighbour, SEED);
}

/* The guest's device is closed, or its role gone. */
static void scene_stop(struct scene *s)
{
    scene_check(s);
    blkguest_disconnect(&s->neighbour);
    blkworld_wait_held(&s->world, s->domid, 0);
    blkworld_wait_held(&s->world, s->neighbour_domid, 0);
    mqguest_close(&s->guest);
    blkguest_close(&s->neighbour);
    blkworld_stop(&s->world);
}

/* The device was closed under the guest: it takes note, and starts over with as many queues. */
static void guest_start_over(struct scene *s, unsigned queues)
{
    blkworld_wait_back(&s->world, s->domid, BLKWORLD_DEVID, XenbusStateClosed);
    blkworld_wait_held(&s->world, s->domid, 0);
    mqguest_rings_end(&s->guest, false);
    blkguest_switch(&s->guest.g, XenbusStateClosing);
    blkguest_switch(&s->guest.g, XenbusStateClosed);
    blkguest_switch(&s->guest.g, XenbusStateInitialising);
    mqguest_connect(&s->guest, queues, 0);
}

/* None of its data is mapped by any reactor, nor marked by one that died. */
static void check_grants_free(struct scene *s)
{
    struct blkguest *g = &s->guest.g;
    struct gnttab *t = platform_gnttab(g->platform);
    struct err e;
    for (unsigned i = 0; i < BLKWORLD_PAGES; i++) {
        uint32_t gfn = g->memory.base_gfn + BLKWORLD_DATA_PAGE + i;
        assert_int_equal(gnttab_end(t, g->gref[i]), 0);
        assert_int_equal(gnttab_grant(t, 0, gfn, false, &g->gref[i], &e), 0);
    }
}

static void expect_error(struct scene *s, const char *words)
{
    char text[512];
    blkworld_wait_back(&s->world, s->domid, BLKWORLD_DEVID, XenbusStateClosed);
    blkworld_error(&s->world, s->domid, BLKWORLD_DEVID, text, sizeof(text));
    if (!strstr(text, words))
        fail_msg("'%s' was expected in '%s'", words, text);
}

/* Of one queue; false where there is none. */
static bool queue_stats(struct scene *s, unsigned queue, struct stats_blk_reply *out)
{
    char path[300];
    struct err e = {0};
    snprintf(path, sizeof(path), "%s/%s", s->world.dir, STATS_BLK_SOCKET);
    _cleanup_close_ int fd = unixsock_connect(path, SOCK_SEQPACKET, &e);
    struct stats_blk_query q = stats_blk_of_queue(s->domid, BLKWORLD_DEVID, queue);
    int r = fd < 0 ? fd : stats_blk_ask(fd, &q, out, &e);
    if (r < 0)
        fail_msg("%s", e.text);
    return r == 1;
}

/* ---- data ---- */

/* Each queue serves what it was asked, the reactors take turns, and the disk's numbers are the sums. */
static void check_numbers(struct scene *s, unsigned queues, unsigned reactors)
{
    struct stats_blk_reply all, one, first;
    uint64_t requests = 0, flushes = 0;
    assert_true(blkworld_stats(s->world.dir, s->domid, BLKWORLD_DEVID, &all));
    assert_int_equal(all.stats.queues, queues);
    assert_true(queue_stats(s, 0, &first));
    for (unsigned i = 0; i < queues; i++) {
        assert_true(queue_stats(s, i, &one));
        assert_true(one.queue == i + 1 && one.domid == s->domid && one.devid == BLKWORLD_DEVID);
        assert_int_equal(one.reactor, (first.reactor + i) % reactors);
        assert_int_equal(one.stats.requests, s->loads.load[i].done);
        requests += one.stats.requests;
        flushes += one.stats.flushes;
    }
    assert_false(queue_stats(s, queues, &one));
    assert_false(queue_stats(s, UINT32_MAX - 1, &one));
    assert_true(flushes > 0);
    assert_int_equal(all.stats.requests, requests);
    assert_int_equal(all.stats.flushes, flushes);
    assert_int_equal(all.stats.errors, 0);
}

static void check_data(unsigned reactors, unsigned queues, uint32_t order, const char *dma)
{
    struct scene s;
    scene_start(&s, reactors, dma);
    s.guest.g.persistent = queues > 1;
    mqguest_connect(&s.guest, queues, order);
    mqloads_start(&s.loads, &s.guest, 1500);
    for (unsigned i = 0; i < 50; i++)
        scene_check(&s);
    mqloads_join(&s.loads);
    check_numbers(&s, queues, reactors);
    mqloads_verify(&s.loads, &s.guest);
    mqguest_disconnect(&s.guest);
    check_grants_free(&s);
    struct stats_blk_reply after;
    assert_false(queue_stats(&s, 0, &after));
    assert_true(blkworld_stats(s.world.dir, s.domid, BLKWORLD_DEVID, &after));
    assert_true(after.stats.queues == 0 && after.stats.requests >= 1500ull * queues);
    scene_stop(&s);
}

static void test_queues_do_verified_io_all_at_once(void **state)
{
    (void)state;
    static const struct {
        unsigned reactors, queues;
        uint32_t order;
    } rows[] = {{1, 1, 0}, {1, 2, 3}, {2, 2, 0}, {3, 5, 1}, {2, 16, 0}, {16, 16, 0}};
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        for (unsigned d = 0; d < dma_strategy_count; d++)
            check_data(rows[i].reactors, rows[i].queues, rows[i].order, dma_strategies[d]->name);
}

/* The barrier of one queue cannot order what another does, so with several there is none. */
static void test_a_barrier_is_offered_and_served_with_one_queue_only(void **state)
{
    struct scene s;
    (void)state;
    scene_start(&s, 2, "pin");
    for (unsigned queues = 1; queues <= 2; queues++) {
        mqguest_connect(&s.guest, queues, 0);
        assert_int_equal(s.guest.g.disk.barrier, queues == 1);
        assert_true(s.guest.g.disk.flush_cache);
        assert_int_equal(blkguest_do(&s.guest.queue[queues - 1], BLKIF_OP_WRITE_BARRIER, 0, 0, 1, 0, 7),
                         queues == 1 ? BLKIF_RSP_OKAY : BLKIF_RSP_EOPNOTSUPP);
        assert_int_equal(blkguest_do(&s.guest.queue[0], BLKIF_OP_WRITE, 0, 0, 1, 0, 7), BLKIF_RSP_OKAY);
        assert_int_equal(blkguest_do(&s.guest.queue[queues - 1], BLKIF_OP_FLUSH_DISKCACHE, 0, 0, 0, 0, 0),
                         BLKIF_RSP_OKAY);
        mqguest_disconnect(&s.guest);
        blkguest_switch(&s.guest.g, XenbusStateInitialising);
    }
    scene_stop(&s);
}

/* ---- ends ---- */

static void test_a_detach_under_load_ends_every_queue(void **state)
{
    struct scene s;
    (void)state;
    scene_start(&s, 3, "pin");
    for (unsigned round = 0; round < 10; round++) {
        mqguest_connect(&s.guest, 1 + round % 5, 0);
        mqloads_start(&s.loads, &s.guest, 0);
        mqloads_await(&s.loads, 50);
        scene_check(&s);
        blkguest_switch(&s.guest.g, XenbusStateClosing);
        blkworld_wait_back(&s.world, s.domid, BLKWORLD_DEVID, XenbusStateClosing);
        mqloads_stop(&s.loads);
        blkguest_switch(&s.guest.g, XenbusStateClosed);
        blkworld_wait_back(&s.world, s.domid, BLKWORLD_DEVID, XenbusStateClosed);
        blkworld_wait_held(&s.world, s.domid, 0);
        mqguest_rings_end(&s.guest, false);
        blkguest_switch(&s.guest.g, XenbusStateInitialising);
        mqguest_connect(&s.guest, 2, 0);
        mqloads_verify(&s.loads, &s.guest);
        mqguest_disconnect(&s.guest);
        blkguest_switch(&s.guest.g, XenbusStateInitialising);
    }
    scene_stop(&s);
}

static void test_a_directory_that_vanishes_takes_every_queue_along(void **state)
{
    struct scene s;
    (void)state;
    scene_start(&s, 2, "copy");
    mqguest_connect(&s.guest, 4, 0);
    mqloads_start(&s.loads, &s.guest, 0);
    mqloads_await(&s.loads, 50);
    blkworld_remove(&s.world, s.domid, BLKWORLD_DEVID);
    blkworld_wait_held(&s.world, s.domid, 0);
    mqloads_stop(&s.loads);
    mqguest_rings_end(&s.guest, false);
    scene_stop(&s);
}

/* Reactors are stopped side by side; what was answered is on the disk, and the rest is the guest's to do again. */
static void takeover(bool killed)
{
    struct scene s;
    scene_start(&s, 2, "pin");
    s.guest.g.persistent = true;
    mqguest_connect(&s.guest, 4, 0);
    for (unsigned round = 0; round < 5; round++) {
        mqloads_start(&s.loads, &s.guest, 0);
        mqloads_await(&s.loads, 200);
        if (killed)
            blkworld_role_kill(&s.world);
        else
            blkworld_role_stop(&s.world);
        mqloads_stop(&s.loads);
        assert_true(blkworld_back_is(&s.world, s.domid, BLKWORLD_DEVID, XenbusStateConnected));
        blkworld_role_start_with(&s.world, NULL, 1 + round % 3);
        mqguest_rings_end(&s.guest, true);
        mqguest_connect(&s.guest, 4 - round % 3, 0);
        mqloads_verify(&s.loads, &s.guest);
        platform_evtchn_close(s.neighbour.platform, &s.neighbour.channel);
        blkguest_connect(&s.neighbour, NULL);
        scene_check(&s);
    }
    mqguest_disconnect(&s.guest);
    check_grants_free(&s);
    scene_stop(&s);
}

/* What a reactor clears of a dead role's marks is nothing that another reactor has just marked: the rings are in use,
 * and the guest's end of their grants is refused. */
static void test_a_successors_reactors_leave_each_others_marks_alone(void **state)
{
    struct scene s;
    (void)state;
    scene_start(&s, 4, "pin");
    mqguest_connect(&s.guest, 8, 0);
    for (unsigned round = 0; round < 20; round++) {
        blkworld_role_kill(&s.world);
        blkworld_role_start_with(&s.world, NULL, 4);
        mqguest_rings_end(&s.guest, true);
        mqguest_connect(&s.guest, 8, 0);
        for (unsigned i = 0; i < 8; i++)
            assert_int_equal(gnttab_end(platform_gnttab(s.guest.g.platform), s.guest.g.ring_gref[i]), -EBUSY);
        platform_evtchn_close(s.neighbour.platform, &s.neighbour.channel);
        blkguest_connect(&s.neighbour, NULL);
    }
    mqguest_disconnect(&s.guest);
    scene_stop(&s);
}

static void test_a_role_that_is_stopped_under_load_is_taken_over(void **state)
{
    (void)state;
    takeover(false);
}

static void test_a_role_that_is_killed_under_load_is_taken_over(void **state)
{
    (void)state;
    takeover(true);
}

static void test_a_guest_killed_under_load_leaves_nothing_on_any_reactor(void **state)
{
    struct scene s;
    (void)state;
    scene_start(&s, 3, "pin");
    for (unsigned round = 0; round < 5; round++) {
        uint64_t before = blkworld_stat(&s.world, s.domid, BLKWORLD_DEVID, "requests", 0);
        pid_t pid = mqguest_process(s.dir, 4);
        blkworld_stat(&s.world, s.domid, BLKWORLD_DEVID, "requests", before + 1000);
        blkworld_kill(pid);
        expect_error(&s, "process is gone");
        blkworld_wait_held(&s.world, s.domid, 0);
        scene_check(&s);
    }
    scene_stop(&s);
}

/* ---- hostile guests ---- */

static void test_a_lie_in_one_ring_closes_the_device_and_no_other(void **state)
{
    struct scene s;
    struct stats_blk_reply r;
    (void)state;
    scene_start(&s, 2, "pin");
    mqguest_connect(&s.guest, 4, 0);
    for (unsigned liar = 0; liar < 4; liar++) {
        struct blkguest *q = &s.guest.queue[liar];
        mqloads_start(&s.loads, &s.guest, 300);
        mqloads_join(&s.loads);
        for (unsigned i = 0; i < 4; i++) { /* and the others have work */
            while (ring_front_room(&s.guest.queue[i].ring))
                blkguest_put(&s.guest.queue[i], BLKIF_OP_READ, 0, i * 16, 11, 0, 7);
            blkguest_kick(&s.guest.queue[i]);
        }
        ring_set(&q->ring.ring, req_prod, q->ring.req_prod + 1000);
        (void)evtchn_notify(&q->channel);
        expect_error(&s, "ring index");
        assert_true(blkworld_stats(s.world.dir, s.domid, BLKWORLD_DEVID, &r));
        assert_int_equal(blkworld_number(&r, "ring_overrun"), liar + 1);
        assert_int_equal(r.stats.queues, 0);
        scene_check(&s);
        guest_start_over(&s, 4);
        mqloads_verify(&s.loads, &s.guest);
    }
    mqguest_disconnect(&s.guest);
    scene_stop(&s);
}

static void test_rings_that_lie_all_at_once_are_one_close(void **state)
{
    struct scene s;
    (void)state;
    scene_start(&s, 3, "pin");
    mqguest_connect(&s.guest, 16, 0);
    for (unsigned round = 0; round < 10; round++) {
        for (unsigned i = 0; i < 16; i++)
            ring_set(&s.guest.queue[i].ring.ring, req_prod, 1000);
        for (unsigned i = 0; i < 16; i++)
            (void)evtchn_notify(&s.guest.queue[i].channel);
        expect_error(&s, "ring index");
        guest_start_over(&s, 16);
    }
    mqguest_disconnect(&s.guest);
    scene_stop(&s);
}

/* An index that lies before the device is connected: a fault that is found while other queues attach. */
static void test_a_ring_that_lies_during_the_attach_closes_the_device(void **state)
{
    struct scene s;
    (void)state;
    scene_start(&s, 2, "pin");
    for (unsigned round = 0; round < 10; round++) {
        mqguest_offer(&s.guest, 8, 0);
        for (unsigned i = 0; i < 8; i += 1 + round)
            ring_set(&s.guest.queue[i].ring.ring, req_prod, 1000);
        for (unsigned i = 0; i < 8; i++)
            (void)evtchn_notify(&s.guest.queue[i].channel);
        expect_error(&s, "index");
        guest_start_over(&s, 2);
        mqguest_disconnect(&s.guest);
        blkguest_switch(&s.guest.g, XenbusStateInitialising);
    }
    scene_stop(&s);
}

/* What one queue cannot have none has: the sentence says what it was, and nothing is held. */
static void test_lesson_175_keys_of_queues_that_lie_close_the_device_with_a_sentence(void **state)
{
    static const struct {
        const char *key, *value, *words;
    } rows[] = {
        {"multi-queue-num-queues", "0", "multi-queue-num-queues"},
        {"multi-queue-num-queues", "17", "multi-queue-num-queues"},
        {"multi-queue-num-queues", "4294967299", "multi-queue-num-queues"},
        {"multi-queue-num-queues", "4", "queue-3/ring-ref is missing"},
        {"queue-2", NULL, "queue-2/ring-ref is missing"},
        {"queue-1/event-channel", NULL, "queue-1/event-channel is missing"},
        {"queue-1/ring-ref", "4000000000", "grant 4000000000"},
        {"queue-2/ring-ref", "4000000000", "grant 4000000000"},
        {"queue-0/event-channel", "1000", ""},
        {"queue-2/event-channel", "1000", ""},
    };
    struct scene s;
    (void)state;
    scene_start(&s, 2, "pin");
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct blkguest *g = &s.guest.g;
        mqguest_publish(&s.guest, 3, 0);
        if (rows[i].value)
            assert_int_equal(store_write(g->store, STORE_NO_TX, rows[i].value, "%s/%s", g->xb.dir, rows[i].key), 0);
        else
            assert_int_equal(store_rm(g->store, STORE_NO_TX, "%s/%s", g->xb.dir, rows[i].key), 0);
        blkguest_switch(g, XenbusStateInitialised);
        expect_error(&s, rows[i].words);
        scene_check(&s);
        guest_start_over(&s, 3);
        mqguest_disconnect(&s.guest);
        blkguest_switch(g, XenbusStateInitialising);
    }
    scene_stop(&s);
}

static void test_lesson_270_no_more_queues_than_were_offered(void **state)
{
    struct scene s;
    struct keys_blk_features offer;
    (void)state;
    scene_start(&s, 1, "pin");
    blkworld_remove(&s.world, s.domid, BLKWORLD_DEVID);
    s.config.max_queues = 2;
    blkworld_attach(&s.world, s.domid, BLKWORLD_DEVID, &s.config);
    blkworld_wait_back(&s.world, s.domid, BLKWORLD_DEVID, XenbusStateInitWait);
    assert_int_equal(keys_blk_features_read(&s.guest.g.xb, &offer, NULL), 0);
    assert_int_equal(offer.max_queues, 2);
    mqguest_offer(&s.guest, 3, 0);
    expect_error(&s, "multi-queue-num-queues is \"3\"; a number of 1 to 2 was expected");
    guest_start_over(&s, 2);
    mqguest_disconnect(&s.guest);
    scene_stop(&s);
}

/* ---- the role ---- */

static void test_a_role_of_several_reactors_ends_when_the_world_does(void **state)
{
    struct scene s;
    int status;
    (void)state;
    scene_start(&s, 4, "pin");
    mqguest_connect(&s.guest, 4, 0);
    mqloads_start(&s.loads, &s.guest, 0);
    mqloads_await(&s.loads, 50);
    blkworld_kill(s.world.servers);
    assert_int_equal(waitpid(s.world.role, &status, 0), s.world.role);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    mqloads_stop(&s.loads);
    store_client_close(s.guest.g.store);
    platform_close(s.guest.g.platform);
    store_client_close(s.neighbour.store);
    platform_close(s.neighbour.platform);
    store_client_close(s.world.store);
    platform_close(s.world.platform);
}

int main(int argc, char **argv)
{
    if (argc > 5 && !strcmp(argv[1], "mqguest"))
        return mqguest_main(argv[4], atoi(argv[2]), (unsigned)atoi(argv[5]));
    blkworld_child(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_queues_do_verified_io_all_at_once),
        cmocka_unit_test(test_a_barrier_is_offered_and_served_with_one_queue_only),
        cmocka_unit_test(test_a_detach_under_load_ends_every_queue),
        cmocka_unit_test(test_a_directory_that_vanishes_takes_every_queue_along),
        cmocka_unit_test(test_a_successors_reactors_leave_each_others_marks_alone),
        cmocka_unit_test(test_a_role_that_is_stopped_under_load_is_taken_over),
        cmocka_unit_test(test_a_role_that_is_killed_under_load_is_taken_over),
        cmocka_unit_test(test_a_guest_killed_under_load_leaves_nothing_on_any_reactor),
        cmocka_unit_test(test_a_lie_in_one_ring_closes_the_device_and_no_other),
        cmocka_unit_test(test_rings_that_lie_all_at_once_are_one_close),
        cmocka_unit_test(test_a_ring_that_lies_during_the_attach_closes_the_device),
        cmocka_unit_test(test_lesson_175_keys_of_queues_that_lie_close_the_device_with_a_sentence),
        cmocka_unit_test(test_lesson_270_no_more_queues_than_were_offered),
        cmocka_unit_test(test_a_role_of_several_reactors_ends_when_the_world_does),
    };
    return cmocka_run_group_tests_name("blk_queues", tests, NULL, NULL);
}
