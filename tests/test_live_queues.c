/* SPDX-License-Identifier: MIT */
/* Live changes of a disk with several queues on several reactors, asked for as a toolstack asks: all of its queues
 * change together, under load, or the device ends in the middle of it and starts over. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>

#include "base/clock.h"
#include "grant/dma.h"
#include "tests/mqguest.h"
#include "xenbus/keys_blk_set.h"

#define QUEUES     4u
#define REACTORS   2u
#define DISK_BYTES MQLOAD_DISK_BYTES(QUEUES)

struct scene {
    struct blkworld world;
    char dir[256];
    uint16_t domid;
    struct keys_blk_config config;
    struct mqguest guest;
    struct mqloads loads;
    struct xb_device back;
    unsigned asked;
};

static void scene_start(struct scene *s)
{
    memset(s, 0, sizeof(*s));
    struct blkworld *w = &s->world;
    blkworld_servers(w);
    blkworld_role_start_with(&s->world, NULL, REACTORS);
    s->domid = blkworld_domain(w, "several", s->dir, sizeof(s->dir));
    blkworld_image(w, "several.img", DISK_BYTES, 1, s->config.path, sizeof(s->config.path));
    s->config.max_queues = QUEUES;
    blkworld_attach(w, s->domid, BLKWORLD_DEVID, &s->config);
    xb_device_init(&s->back, w->store, XB_BACK, "vbd", s->domid, 0, BLKWORLD_DEVID);
    mqguest_open(&s->guest, s->dir, BLKWORLD_DEVID);
    mqguest_connect(&s->guest, QUEUES, 0);
}

static void scene_stop(struct scene *s)
{
    mqguest_disconnect(&s->guest);
    blkworld_wait_held(&s->world, s->domid, 0);
    mqguest_close(&s->guest);
    blkworld_stop(&s->world);
}

static void ask(struct scene *s, struct keys_blk_set *set)
{
    struct err e;
    store_tx tx;
    snprintf(set->id, sizeof(set->id), "test-%u", ++s->asked);
    int r;
    do {
        assert_int_equal(store_tx_start(s->world.store, &tx), 0);
        r = keys_blk_set_write(s->world.store, tx, s->back.dir, set, &e);
        if (r)
            fail_msg("%s", e.text);
        r = store_tx_end(s->world.store, tx, false);
    } while (r == -EAGAIN);
    assert_int_equal(r, 0);
}

/* The answer: 0, or -EIO with the backend's words. */
static int answer(struct scene *s, const struct keys_blk_set *set, struct err *e)
{
    int r;
    for (uint64_t end = blkworld_patience_end();
         (r = keys_blk_set_answered(s->world.store, s->back.dir, set->id, e)) == -EAGAIN;)
        blkworld_nap(end, "the backend's answer");
    return r;
}

static void change(struct scene *s, struct keys_blk_set set)
{
    struct err e;
    ask(s, &set);
    if (answer(s, &set, &e))
        fail_msg("%s", e.text);
}

static void test_all_queues_change_together_under_load(void **state)
{
    static struct scene s;
    (void)state;
    scene_start(&s);
    mqloads_start(&s.loads, &s.guest, 10000);
    for (unsigned i = 1; i <= 20; i++) {
        struct keys_blk_set set = {.size_bytes = DISK_BYTES + i * PAGE_BYTES};
        struct stats_blk_reply r;
        snprintf(set.dma, sizeof(set.dma), "%s", dma_strategies[i % dma_strategy_count]->name);
        change(&s, set);
        assert_true(blkworld_stats(s.world.dir, s.domid, BLKWORLD_DEVID, &r));
        assert_string_equal(r.dma, set.dma);
        mqloads_await(&s.loads, i * 500);
    }
    mqloads_join(&s.loads);
    assert_true(keys_blk_disk_read(&s.guest.g.xb, &s.guest.g.disk, NULL) == 0);
    assert_int_equal(s.guest.g.disk.sectors, (DISK_BYTES + 20 * PAGE_BYTES) / SECTOR_BYTES);
    mqloads_verify(&s.loads, &s.guest);
    /* Each of them knows the new end. */
    for (unsigned i = 0; i < QUEUES; i++) {
        struct blkguest *q = &s.guest.queue[i];
        assert_int_equal(blkguest_do(q, BLKIF_OP_READ, s.guest.g.disk.sectors - 8, 0, 1, 0, 7), BLKIF_RSP_OKAY);
        assert_int_equal(blkguest_do(q, BLKIF_OP_READ, s.guest.g.disk.sectors, 0, 1, 0, 7), BLKIF_RSP_ERROR);
    }
    scene_stop(&s);
}

static void test_no_queue_writes_a_disk_that_became_read_only(void **state)
{
    static struct scene s;
    (void)state;
    scene_start(&s);
    for (unsigned round = 0; round < 6; round++) {
        bool readonly = round % 2 == 0;
        change(&s, (struct keys_blk_set){.has_readonly = true, .readonly = readonly});
        for (unsigned i = 0; i < QUEUES; i++)
            assert_int_equal(blkguest_do(&s.guest.queue[i], BLKIF_OP_WRITE, i * 8, 0, 1, 0, 7),
                             readonly ? BLKIF_RSP_ERROR : BLKIF_RSP_OKAY);
    }
    scene_stop(&s);
}

/* All queues pay into one purse: what they do together is what the disk may. Time only makes the bound larger. */
static void test_a_rate_is_the_disks_whatever_queue_uses_it(void **state)
{
    static struct scene s;
    (void)state;
    scene_start(&s);
    uint64_t begin_ns = clock_now_ns();
    change(&s, (struct keys_blk_set){.has_qos = {true, true}, .qos = {.iops = 400, .iops_burst = 10}});
    mqloads_start(&s.loads, &s.guest, 40);
    mqloads_join(&s.loads);
    uint64_t done = 0;
    for (unsigned i = 0; i < QUEUES; i++)
        done += s.loads.load[i].done;
    assert_true(done >= QUEUES * 40);
    assert_true((done - 10) * CLOCK_NS_PER_S <= 400 * (clock_now_ns() - begin_ns));
    scene_stop(&s);
}

/* The frontend goes while queues are being held: the change is done without them, and the device starts over. */
static void test_a_frontend_that_goes_in_the_middle_of_a_change(void **state)
{
    static struct scene s;
    (void)state;
    scene_start(&s);
    for (unsigned round = 1; round <= 8; round++) {
        struct keys_blk_set set = {.size_bytes = DISK_BYTES + round * PAGE_BYTES, .dma = "copy"};
        struct err e;
        mqloads_start(&s.loads, &s.guest, 20);
        mqloads_join(&s.loads);
        kill(s.world.role, SIGSTOP);
        ask(&s, &set);
        blkguest_switch(&s.guest.g, XenbusStateClosing);
        kill(s.world.role, SIGCONT);
        assert_int_equal(answer(&s, &set, &e), 0);
        mqguest_disconnect(&s.guest);
        blkguest_switch(&s.guest.g, XenbusStateInitialising);
        mqguest_connect(&s.guest, QUEUES, 0);
        assert_int_equal(s.guest.g.disk.sectors, set.size_bytes / SECTOR_BYTES);
    }
    scene_stop(&s);
}

/* A ring that lies while its device is being changed closes the device; the change is done, the neighbours of the ring
 * are let go of. */
static void test_a_queue_that_lies_in_the_middle_of_a_change(void **state)
{
    static struct scene s;
    (void)state;
    scene_start(&s);
    for (unsigned round = 1; round <= 4; round++) {
        struct keys_blk_set set = {.size_bytes = DISK_BYTES + round * PAGE_BYTES};
        struct err e;
        struct blkguest *liar = &s.guest.queue[round % QUEUES];
        kill(s.world.role, SIGSTOP);
        ask(&s, &set);
        ring_set(&liar->ring.ring, req_prod, liar->ring.req_prod + 1000);
        assert_int_equal(evtchn_notify(&liar->channel), 0);
        kill(s.world.role, SIGCONT);
        assert_int_equal(answer(&s, &set, &e), 0);
        blkworld_wait_back(&s.world, s.domid, BLKWORLD_DEVID, XenbusStateClosed);
        blkworld_wait_held(&s.world, s.domid, 0);
        mqguest_rings_end(&s.guest, false);
        blkguest_switch(&s.guest.g, XenbusStateClosing);
        blkguest_switch(&s.guest.g, XenbusStateClosed);
        blkguest_switch(&s.guest.g, XenbusStateInitialising);
        mqguest_connect(&s.guest, QUEUES, 0);
        assert_int_equal(s.guest.g.disk.sectors, set.size_bytes / SECTOR_BYTES);
    }
    scene_stop(&s);
}

/* The directory goes with a change in it: nothing of it comes back. */
static void test_a_directory_that_vanishes_in_the_middle_of_a_change(void **state)
{
    static struct scene s;
    char *left = NULL;
    (void)state;
    scene_start(&s);
    mqloads_start(&s.loads, &s.guest, 20);
    mqloads_join(&s.loads);
    kill(s.world.role, SIGSTOP);
    struct keys_blk_set set = {.size_bytes = DISK_BYTES * 2, .dma = "copy"};
    ask(&s, &set);
    blkworld_remove(&s.world, s.domid, BLKWORLD_DEVID);
    kill(s.world.role, SIGCONT);
    blkworld_wait_held(&s.world, s.domid, 0);
    mqguest_rings_end(&s.guest, false);
    assert_int_equal(store_read(s.world.store, STORE_NO_TX, &left, NULL, "%s", s.back.dir), -ENOENT);
    mqguest_close(&s.guest);
    blkworld_stop(&s.world);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_queues_change_together_under_load),
        cmocka_unit_test(test_no_queue_writes_a_disk_that_became_read_only),
        cmocka_unit_test(test_a_rate_is_the_disks_whatever_queue_uses_it),
        cmocka_unit_test(test_a_frontend_that_goes_in_the_middle_of_a_change),
        cmocka_unit_test(test_a_queue_that_lies_in_the_middle_of_a_change),
        cmocka_unit_test(test_a_directory_that_vanishes_in_the_middle_of_a_change),
    };
    blkworld_child(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
