/* SPDX-License-Identifier: MIT */
/* A queue that is held, changed and resumed under load, and one whose rate is used up: nothing is lost, nothing passes
 * the new rules, nothing spins. The reactor is a thread of the test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "tests/engine_bench.h"

#define IN_FLIGHT 32
#define ROUNDS    300

/* Puts `n` reads of one page each, from page sized places `at`, `at` + 1 …; kicks. */
static void put_reads(struct blkguest *g, unsigned n, unsigned at)
{
    for (unsigned i = 0; i < n; i++) {
        unsigned place = (at + i) % (DISK_BYTES / PAGE_BYTES);
        memset(g->data + place * PAGE_BYTES, 0xee, PAGE_BYTES);
        blkguest_put(g, BLKIF_OP_READ, place * 8, place, 1, 0, 7);
    }
    blkguest_kick(g);
}

static void check_page(struct blkguest *g, unsigned place)
{
    unsigned char wanted[PAGE_BYTES];
    place %= DISK_BYTES / PAGE_BYTES;
    blkworld_pattern(wanted, place * 8, 8, SEED);
    assert_memory_equal(g->data + place * PAGE_BYTES, wanted, PAGE_BYTES);
}

static unsigned take_all(struct blkguest *g, unsigned n)
{
    unsigned good = 0;
    uint64_t id;
    for (unsigned i = 0; i < n; i++)
        good += blkguest_take(g, &id) == BLKIF_RSP_OKAY;
    return good;
}

static void hold(struct bench *b)
{
    engine_hold(b->engine, b->queue);
    assert_int_equal(next_event(b), BLKQUEUE_HELD);
}

static void resume(struct bench *b)
{
    engine_resume(b->engine, b->queue);
    assert_int_equal(next_event(b), BLKQUEUE_RESUMED);
    assert_int_equal(b->queue->result, 0);
}

static void test_strategies_are_switched_under_load_without_losing_a_request(void **state)
{
    static const char *const polls[] = {"interrupt", "adaptive", "poll"};
    (void)state;
    for (unsigned p = 0; p < ARRAY_SIZE(polls); p++) {
        struct bench b;
        bench_start(&b, polls[p]);
        connect_default(&b, "pin");
        for (unsigned round = 0; round < ROUNDS; round++) {
            put_reads(&b.guest, IN_FLIGHT, round * 7);
            hold(&b);
            b.queue->change.dma = dma_strategies[round % dma_strategy_count];
            resume(&b);
            assert_ptr_equal(b.queue->config.dma, dma_strategies[round % dma_strategy_count]);
            assert_int_equal(take_all(&b.guest, IN_FLIGHT), IN_FLIGHT);
            for (unsigned i = 0; i < IN_FLIGHT; i++)
                check_page(&b.guest, round * 7 + i);
        }
        disconnect(&b);
        bench_stop(&b);
    }
}

static void test_nothing_is_taken_while_held_and_all_of_it_afterwards(void **state)
{
    struct bench b;
    (void)state;
    bench_start(&b, NULL);
    connect_default(&b, "pin");
    hold(&b);
    put_reads(&b.guest, IN_FLIGHT, 0);
    engine_refresh(b.engine, b.queue); /* a letter that is answered by nothing: the reactor goes on */
    uint64_t before = blkcounter_get(&b.queue->stats.requests);
    usleep(20000);
    assert_int_equal(before, 0);
    assert_int_equal(blkcounter_get(&b.queue->stats.requests), 0);
    resume(&b);
    assert_int_equal(take_all(&b.guest, IN_FLIGHT), IN_FLIGHT);
    disconnect(&b);
    bench_stop(&b);
}

/* A barrier waits for what was sent before it; held, it is judged again before it begins. */
static void test_what_was_parked_is_judged_by_the_new_limits(void **state)
{
    (void)state;
    for (unsigned shrink = 0; shrink < 2; shrink++) {
        struct bench b;
        uint64_t id, barrier;
        bench_start(&b, NULL);
        connect_default(&b, "copy");
        hold(&b);
        put_reads(&b.guest, 8, 0);
        barrier = blkguest_put(&b.guest, BLKIF_OP_WRITE_BARRIER, DISK_SECTORS - 8, 0, 1, 0, 7);
        put_reads(&b.guest, 8, 8);
        resume(&b);
        hold(&b); /* now it is parked, or done */
        if (shrink)
            b.queue->change.limits.capacity_sectors = DISK_SECTORS / 2;
        else
            b.queue->change.limits.read_only = true;
        resume(&b);
        for (unsigned i = 0; i < 17; i++) {
            int16_t status = blkguest_take(&b.guest, &id);
            if (id != barrier)
                assert_int_equal(status, BLKIF_RSP_OKAY);
        }
        assert_int_equal(blkguest_do(&b.guest, BLKIF_OP_WRITE, DISK_SECTORS - 8, 0, 1, 0, 7), BLKIF_RSP_ERROR);
        assert_int_equal(blkguest_do(&b.guest, BLKIF_OP_WRITE_BARRIER, DISK_SECTORS - 8, 0, 1, 0, 7), BLKIF_RSP_ERROR);
        assert_int_equal(blkguest_do(&b.guest, BLKIF_OP_READ, 0, 0, 1, 0, 7), BLKIF_RSP_OKAY);
        disconnect(&b);
        bench_stop(&b);
    }
}

/* Whatever stands between hold and resume: the detach ends, and gives all back. */
static void test_a_held_queue_can_be_detached(void **state)
{
    struct bench b;
    (void)state;
    bench_start(&b, NULL);
    for (unsigned step = 0; step < 4; step++) {
        connect_default(&b, "pin");
        put_reads(&b.guest, IN_FLIGHT, 0);
        if (step > 0)
            engine_hold(b.engine, b.queue);
        if (step > 1)
            while (!(next_event(&b) & BLKQUEUE_HELD))
                ;
        if (step > 2)
            engine_resume(b.engine, b.queue);
        disconnect(&b);
    }
    bench_stop(&b);
}

/* ---- rates ---- */

struct rated {
    struct bench b;
    struct throttle throttle;
};

static void rated_start(struct rated *r, const char *poll, struct keys_blk_qos qos)
{
    struct blkqueue_config c;
    bench_start(&r->b, poll);
    throttle_init(&r->throttle);
    throttle_set(&r->throttle, &qos, clock_now_ns());
    image_default(&r->b);
    guest_ring(&r->b);
    config_default(&r->b, "pin", &c);
    c.throttle = &r->throttle;
    c.limits.zeroes_sectors_max = DISK_SECTORS;
    if (queue_attach(&r->b, &c))
        fail_msg("%s", r->b.queue->err.text);
}

static void rated_stop(struct rated *r)
{
    disconnect(&r->b);
    bench_stop(&r->b);
    throttle_deinit(&r->throttle);
}

/* Time only makes the bound larger, so a slow machine cannot break it. */
static void test_a_rate_holds_and_the_reactor_sleeps_meanwhile(void **state)
{
    static const char *const polls[] = {"interrupt", "adaptive", "poll"};
    (void)state;
    for (unsigned p = 0; p < ARRAY_SIZE(polls); p++) {
        struct rated r;
        struct engine_stats before, after;
        uint64_t begin_ns = clock_now_ns();
        rated_start(&r, polls[p], (struct keys_blk_qos){.iops = 200, .iops_burst = 5});
        engine_stats(r.b.engine, &before);
        for (unsigned n = 1; n <= 4; n++) {
            put_reads(&r.b.guest, 16, n);
            assert_int_equal(take_all(&r.b.guest, 16), 16);
            assert_true(n * 16 * CLOCK_NS_PER_S <= 200 * (clock_now_ns() - begin_ns) + 5 * CLOCK_NS_PER_S);
        }
        engine_stats(r.b.engine, &after);
        uint64_t naps = blkcounter_get(&r.b.queue->stats.throttled);
        assert_in_range(naps, 1, 64);
        assert_true(after.enters - before.enters <= 64 * 8); /* some system calls a request, not a loop of them */
        rated_stop(&r);
    }
}

static void test_bytes_are_charged_also_of_large_requests(void **state)
{
    struct rated r;
    (void)state;
    uint64_t begin_ns = clock_now_ns();
    rated_start(&r, NULL, (struct keys_blk_qos){.bytes = 40 << 20});
    for (unsigned i = 0; i < 3; i++)
        blkguest_put_indirect(&r.b.guest, BLKIF_OP_READ, 0, 0, 256, 0, 7);
    for (unsigned i = 0; i < 9; i++)
        blkguest_put_indirect(&r.b.guest, BLKIF_OP_READ, 0, 0, 256, 0, 7);
    blkguest_kick(&r.b.guest);
    assert_int_equal(take_all(&r.b.guest, 12), 12);
    uint64_t bytes = 12ull << 20, burst = keys_blk_qos_bytes_burst(&(struct keys_blk_qos){.bytes = 40 << 20});
    assert_true(bytes - burst <= (40ull << 20) * (clock_now_ns() - begin_ns) / CLOCK_NS_PER_S);
    assert_true(blkcounter_get(&r.b.queue->stats.throttled) > 0);
    rated_stop(&r);
}

/* Or a guest with a limit on bytes had the storage write as much as it likes. */
static void test_zeroes_are_charged_as_what_is_written(void **state)
{
    struct rated r;
    const struct keys_blk_qos qos = {.bytes = 40 << 20};
    (void)state;
    uint64_t begin_ns = clock_now_ns();
    rated_start(&r, NULL, qos);
    for (unsigned i = 0; i < 12; i++)
        blkguest_put_span(&r.b.guest, BLKREQ_OP_WRITE_ZEROES, 0, DISK_SECTORS, i % 2);
    blkguest_kick(&r.b.guest);
    assert_int_equal(take_all(&r.b.guest, 12), 12);
    uint64_t bytes = 12ull * DISK_BYTES, burst = keys_blk_qos_bytes_burst(&qos);
    assert_true(bytes - burst <= (40ull << 20) * (clock_now_ns() - begin_ns) / CLOCK_NS_PER_S);
    assert_true(blkcounter_get(&r.b.queue->stats.throttled) > 0);
    rated_stop(&r);
}

/* It would take half a minute otherwise, and the guest's patience ends before that. */
static void test_lifting_a_rate_wakes_who_waits_for_it(void **state)
{
    struct rated r;
    (void)state;
    rated_start(&r, NULL, (struct keys_blk_qos){.iops = 1, .iops_burst = 1});
    for (unsigned i = 0; i < 3; i++) {
        put_reads(&r.b.guest, IN_FLIGHT, 0);
        blkworld_nap(blkworld_patience_end(), "nothing");
        throttle_set(&r.throttle, &(struct keys_blk_qos){.iops = i < 2 ? 1000000 : 0}, clock_now_ns());
        engine_tune(r.b.engine, r.b.queue);
        assert_int_equal(take_all(&r.b.guest, IN_FLIGHT), IN_FLIGHT);
        throttle_set(&r.throttle, &(struct keys_blk_qos){.iops = 1}, clock_now_ns());
        engine_tune(r.b.engine, r.b.queue);
    }
    rated_stop(&r); /* … and who waits for it can be detached */
}

/* It is not listened to while there is nothing that it could have; who lifts the rate is. */
static void test_a_guest_without_tokens_that_sends_events_is_paused(void **state)
{
    struct rated r;
    (void)state;
    rated_start(&r, NULL, (struct keys_blk_qos){.iops = 1, .iops_burst = 1});
    put_reads(&r.b.guest, IN_FLIGHT, 0);
    for (uint64_t end = blkworld_patience_end(); !blkcounter_get(&r.b.queue->stats.pauses);) {
        assert_int_equal(evtchn_notify(&r.b.guest.channel), 0);
        blkworld_nap(end, "a pause");
    }
    throttle_set(&r.throttle, &(struct keys_blk_qos){0}, clock_now_ns());
    engine_tune(r.b.engine, r.b.queue);
    assert_int_equal(take_all(&r.b.guest, IN_FLIGHT), IN_FLIGHT);
    rated_stop(&r);
}

/* ---- polling ---- */

static uint64_t spins(struct bench *b)
{
    struct engine_stats s;
    engine_stats(b->engine, &s);
    return s.spins;
}

static void one_read(struct bench *b)
{
    put_reads(&b->guest, 1, 3);
    assert_int_equal(take_all(&b->guest, 1), 1);
}

static void test_a_reactor_waits_as_its_keenest_queue_wants_it(void **state)
{
    struct bench b;
    struct blkqueue_config c;
    (void)state;
    bench_start(&b, "poll");
    image_default(&b);
    guest_ring(&b);
    config_default(&b, "pin", &c);
    c.poll = ENGINE_INTERRUPT;
    assert_int_equal(queue_attach(&b, &c), 0);
    uint64_t before = spins(&b); /* without a queue it has nothing to look at */
    for (unsigned i = 0; i < 50; i++)
        one_read(&b);
    assert_int_equal(spins(&b), before);
    b.queue->poll = ENGINE_DEFAULT; /* the reactor's own way, to poll */
    engine_tune(b.engine, b.queue);
    for (uint64_t end = blkworld_patience_end(); spins(&b) == before; blkworld_nap(end, "a spin"))
        one_read(&b);
    disconnect(&b);
    bench_stop(&b);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_strategies_are_switched_under_load_without_losing_a_request),
        cmocka_unit_test(test_nothing_is_taken_while_held_and_all_of_it_afterwards),
        cmocka_unit_test(test_what_was_parked_is_judged_by_the_new_limits),
        cmocka_unit_test(test_a_held_queue_can_be_detached),
        cmocka_unit_test(test_a_rate_holds_and_the_reactor_sleeps_meanwhile),
        cmocka_unit_test(test_bytes_are_charged_also_of_large_requests),
        cmocka_unit_test(test_zeroes_are_charged_as_what_is_written),
        cmocka_unit_test(test_lifting_a_rate_wakes_who_waits_for_it),
        cmocka_unit_test(test_a_guest_without_tokens_that_sends_events_is_paused),
        cmocka_unit_test(test_a_reactor_waits_as_its_keenest_queue_wants_it),
    };
    blkworld_child(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
