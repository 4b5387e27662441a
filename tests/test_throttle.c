/* SPDX-License-Identifier: MIT */
/* Token buckets: what they promise of every window, of changes, of numbers at the edge. Time is made up here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "backend/blk/throttle.h"
#include "base/clock.h"
#include "tests/random.h"

#define EVENTS 600

static uint64_t seed;

static uint64_t pick(uint64_t max)
{
    random_step(&seed);
    return (seed >> 20) % (max + 1);
}

struct admitted {
    uint64_t at_ns, tokens;
};

/* In every window between two admissions, both counted. */
static void check_windows(const struct admitted *a, unsigned count, uint64_t rate, uint64_t burst)
{
    for (unsigned from = 0; from < count; from++) {
        unsigned __int128 sum = 0;
        for (unsigned to = from; to < count; to++) {
            sum += a[to].tokens;
            unsigned __int128 bound =
                (unsigned __int128)rate * (a[to].at_ns - a[from].at_ns) + (unsigned __int128)burst * CLOCK_NS_PER_S;
            assert_true(sum * CLOCK_NS_PER_S <= bound);
        }
    }
}

/* Somebody who asks at odd moments for charges of odd sizes: how many were admitted. */
static unsigned drive(struct bucket *b, uint64_t largest, uint64_t step_ns, uint64_t *now_ns, struct admitted *out)
{
    unsigned n = 0;
    for (unsigned i = 0; i < EVENTS; i++) {
        *now_ns += pick(3) ? pick(step_ns) : 0;
        if (!bucket_ready(b, *now_ns))
            continue;
        out[n] = (struct admitted){*now_ns, 1 + pick(largest - 1)};
        bucket_charge(b, out[n++].tokens);
    }
    return n;
}

static void test_no_window_admits_more_than_rate_times_time_and_the_burst(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 60; round++) {
        seed = round + 1;
        uint64_t largest = 1 + pick(round % 2 ? 0 : 1 << 20);
        uint64_t rate = 1 + pick(1ull << (round % 40)), burst = largest + pick(rate);
        struct admitted a[EVENTS];
        struct bucket b;
        uint64_t now_ns = pick(1ull << 50);
        bucket_init(&b, rate, burst, largest, now_ns);
        uint64_t step_ns = 1 + (uint64_t)((unsigned __int128)largest * CLOCK_NS_PER_S / rate) % (1ull << 50);
        unsigned n = drive(&b, largest, step_ns, &now_ns, a);
        assert_true(n > 0);
        check_windows(a, n, rate, burst);
    }
}

static void test_who_always_asks_gets_the_whole_rate(void **state)
{
    static const uint64_t rates[] = {1, 3, 7, 999, 333333, 1000003};
    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(rates); i++) {
        struct bucket b;
        uint64_t now_ns = 12345, begin_ns = now_ns, got = 0, wanted = rates[i] * 10;
        bucket_init(&b, rates[i], 1, 1, now_ns);
        for (; got < wanted && got < 20000; now_ns += bucket_wait_ns(&b)) {
            if (!bucket_ready(&b, now_ns))
                continue;
            bucket_charge(&b, 1);
            got++;
        }
        /* Token k cannot be had before k / rate, and is had within one step of the clock behind that: remainders are
         * kept, so being late never adds up. */
        uint64_t ideal_ns = (uint64_t)((unsigned __int128)got * CLOCK_NS_PER_S / rates[i]);
        assert_true(now_ns - begin_ns + 1 >= ideal_ns);
        assert_true(now_ns - begin_ns <= ideal_ns + got + CLOCK_NS_PER_S / rates[i] + 2);
    }
}

static void test_the_wait_ends_where_something_may_begin(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 2000; round++) {
        seed = round + 77;
        struct bucket b;
        uint64_t largest = 1 + pick(1 << 20), rate = 1 + pick(1ull << (round % 34)), now_ns = pick(1ull << 40);
        bucket_init(&b, rate, largest + pick(1 << 21), largest, now_ns);
        bucket_charge(&b, largest);
        unsigned waits = 0;
        while (!bucket_ready(&b, now_ns)) {
            uint64_t wait_ns = bucket_wait_ns(&b);
            assert_in_range(wait_ns, 1, THROTTLE_WAIT_NS);
            now_ns += wait_ns;
            if (++waits > 3) /* a long one is cut into THROTTLE_WAIT_NS */
                now_ns += (uint64_t)((unsigned __int128)largest * 2 * CLOCK_NS_PER_S / rate);
            assert_true(waits < 8);
        }
    }
}

static void test_a_change_of_rate_begins_empty_and_forgets_debts(void **state)
{
    struct throttle t;
    uint64_t wait_ns = 0, now_ns = CLOCK_NS_PER_S, begun = 0;
    (void)state;
    throttle_init(&t);
    assert_false(throttle_limits(&t));
    throttle_set(&t, &(struct keys_blk_qos){.bytes = 1}, now_ns);
    assert_true(throttle_limits(&t));
    now_ns += 2 * CLOCK_NS_PER_S;
    assert_true(throttle_begin(&t, now_ns, &wait_ns));
    throttle_charge(&t, THROTTLE_REQUEST_BYTES_MAX); /* twelve days of debt */
    assert_false(throttle_begin(&t, now_ns, &wait_ns));
    assert_int_equal(wait_ns, THROTTLE_WAIT_NS);
    throttle_set(&t, &(struct keys_blk_qos){.iops = 1000, .iops_burst = 50}, now_ns);
    assert_false(throttle_begin(&t, now_ns, &wait_ns)); /* no burst for changing it */
    now_ns += 100 * CLOCK_NS_PER_S;
    while (throttle_begin(&t, now_ns, &wait_ns))
        begun++;
    assert_int_equal(begun, 50);
    throttle_set(&t, &(struct keys_blk_qos){0}, now_ns);
    assert_false(throttle_limits(&t));
    for (unsigned i = 0; i < 1000; i++)
        assert_true(throttle_begin(&t, now_ns, &wait_ns));
    throttle_deinit(&t);
}

static void test_both_limits_hold_at_once(void **state)
{
    struct throttle t;
    uint64_t wait_ns, now_ns = 0, requests = 0, bytes = 0;
    (void)state;
    throttle_init(&t);
    throttle_set(&t, &(struct keys_blk_qos){.iops = 100, .iops_burst = 1, .bytes = 10 << 20}, 0);
    for (; now_ns < 10 * CLOCK_NS_PER_S; now_ns += wait_ns) {
        if (!throttle_begin(&t, now_ns, &wait_ns))
            continue;
        wait_ns = 0;
        requests++;
        uint64_t size = now_ns < 5 * CLOCK_NS_PER_S ? 4096 : 1 << 20;
        bytes += size;
        throttle_charge(&t, size);
    }
    assert_in_range(requests, 540, 552); /* 100 a second of small ones, then 10 a second of large ones */
    assert_true(bytes <= 10ull * (10 << 20) + (1 << 20));
    throttle_deinit(&t);
}

static void test_numbers_at_the_edge_do_not_wrap(void **state)
{
    static const uint64_t edge[] = {1, 2, 1000000000, INT64_MAX / 2, INT64_MAX - 1, INT64_MAX};
    (void)state;
    for (unsigned r = 0; r < ARRAY_SIZE(edge); r++)
        for (unsigned d = 0; d < ARRAY_SIZE(edge); d++)
            for (unsigned l = 0; l < ARRAY_SIZE(edge); l++) {
                struct bucket b;
                bucket_init(&b, edge[r], edge[d], edge[l], 0);
                for (unsigned i = 0; i < 3; i++)
                    bucket_charge(&b, edge[l]);
                assert_true(b.level < 0);
                assert_in_range(bucket_wait_ns(&b), 1, THROTTLE_WAIT_NS);
                (void)bucket_ready(&b, UINT64_MAX);
                assert_true(b.level <= b.depth && b.depth >= 0);
                assert_int_equal(bucket_ready(&b, 5), b.level >= 0); /* a clock that goes back gives nothing */
            }
}

static void test_a_burst_is_judged_and_has_defaults(void **state)
{
    struct err e;
    (void)state;
    assert_int_equal(keys_blk_qos_check(&(struct keys_blk_qos){0}, &e), 0);
    assert_int_equal(keys_blk_qos_check(&(struct keys_blk_qos){.iops_burst = 1}, &e), -EINVAL);
    assert_int_equal(keys_blk_qos_check(&(struct keys_blk_qos){.bytes_burst = 1 << 21}, &e), -EINVAL);
    assert_int_equal(keys_blk_qos_check(&(struct keys_blk_qos){.bytes = 1, .bytes_burst = 4096}, &e), -EINVAL);
    assert_non_null(strstr(e.text, "1048576"));
    assert_int_equal(keys_blk_qos_check(&(struct keys_blk_qos){.bytes = 1, .bytes_burst = 1 << 20}, &e), 0);
    assert_int_equal(keys_blk_qos_iops_burst(&(struct keys_blk_qos){.iops = 5}), 1);
    assert_int_equal(keys_blk_qos_iops_burst(&(struct keys_blk_qos){.iops = 5000}), 500);
    assert_int_equal(keys_blk_qos_iops_burst(&(struct keys_blk_qos){.iops = 5000, .iops_burst = 7}), 7);
    assert_int_equal(keys_blk_qos_bytes_burst(&(struct keys_blk_qos){.bytes = 5}), 1 << 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_window_admits_more_than_rate_times_time_and_the_burst),
        cmocka_unit_test(test_who_always_asks_gets_the_whole_rate),
        cmocka_unit_test(test_the_wait_ends_where_something_may_begin),
        cmocka_unit_test(test_a_change_of_rate_begins_empty_and_forgets_debts),
        cmocka_unit_test(test_both_limits_hold_at_once),
        cmocka_unit_test(test_numbers_at_the_edge_do_not_wrap),
        cmocka_unit_test(test_a_burst_is_judged_and_has_defaults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
