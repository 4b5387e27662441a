/* SPDX-License-Identifier: MIT */
/* The coarse histogram's arithmetic, and that of the statistics that are made of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/loghist.h"
#include "tools/blkrate.h"
#include "xenbus/stats_blk.h"

static void test_buckets_are_adjacent_and_hold_their_own_bounds(void **state)
{
    (void)state;
    assert_int_equal(loghist_low(0), 0);
    for (unsigned i = 0; i < LOGHIST_BUCKETS; i++) {
        assert_true(loghist_low(i) < loghist_low(i + 1));
        assert_int_equal(loghist_bucket(loghist_low(i)), i);
        assert_int_equal(loghist_bucket(loghist_low(i + 1) - 1), i);
    }
    assert_int_equal(loghist_bucket(UINT64_MAX), LOGHIST_BUCKETS - 1);
}

static void test_a_quantile_is_off_by_an_eighth_at_the_most(void **state)
{
    (void)state;
    for (uint64_t scale = 300; scale < 1ull << 30; scale *= 3) {
        uint64_t bucket[LOGHIST_BUCKETS] = {0};
        for (uint64_t i = 0; i < 1000; i++)
            bucket[loghist_bucket(scale + i * scale / 100)]++; /* evenly from scale to 11 scale */
        assert_int_equal(loghist_count(bucket), 1000);
        uint64_t p50 = loghist_quantile(bucket, 0.5), p99 = loghist_quantile(bucket, 0.99);
        assert_in_range(p50, 6 * scale * 7 / 8, 6 * scale * 9 / 8);
        assert_in_range(p99, scale * 109 / 10 * 7 / 8, scale * 109 / 10 * 9 / 8);
    }
    uint64_t none[LOGHIST_BUCKETS] = {0};
    assert_int_equal(loghist_quantile(none, 0.5), 0);
    none[LOGHIST_BUCKETS - 1] = 1;
    assert_int_equal(loghist_quantile(none, 0.5), 1ull << LOGHIST_END_BIT);
}

static void test_batches_fall_into_doublings(void **state)
{
    (void)state;
    for (uint32_t n = 1; n < 1000; n++) {
        unsigned b = stats_blk_batch(n);
        assert_true(n <= stats_blk_batch_max(b));
        assert_true(b == 0 || n > stats_blk_batch_max(b - 1));
    }
    assert_int_equal(stats_blk_batch(UINT32_MAX), STATS_BLK_BATCHES - 1);
}

/* Every counter differs, so that one that is forgotten shows. */
static void fill(struct stats_blk *s, uint64_t seed)
{
    memset(s, 0, sizeof(*s));
    for (unsigned i = 0; i < stats_blk_row_count; i++)
        *(uint64_t *)(void *)((char *)s + stats_blk_rows[i].offset) = seed + i;
    for (unsigned i = 0; i < STATS_BLK_BATCHES; i++)
        s->batch[i] = seed * i;
    for (unsigned op = 0; op < STATS_BLK_OPS; op++) {
        s->latency[op].sum_ns = seed * 100 + op;
        s->latency[op].bucket[op + 20] = seed;
    }
    s->error[0] = (struct stats_blk_kind){"request_range", seed};
    s->fault[0] = (struct stats_blk_kind){"ring_overrun", seed + 1};
}

static void test_what_is_added_and_subtracted_again_is_what_was(void **state)
{
    struct stats_blk a, b, sum;
    (void)state;
    fill(&a, 1000);
    fill(&b, 7);
    sum = a;
    stats_blk_add(&sum, &b);
    assert_int_equal(sum.requests, a.requests + b.requests);
    assert_int_equal(sum.error[0].count, 1007);
    assert_int_equal(sum.in_flight, a.in_flight); /* a gauge */
    stats_blk_subtract(&sum, &b);
    assert_memory_equal(&sum, &a, sizeof(a));
}

static void test_rates_are_of_the_interval(void **state)
{
    (void)state;
    static struct stats_blk_reply before, now;
    before = (struct stats_blk_reply){.since_ns = 5, .now_ns = 1000000005};
    before.stats.reads = 100;
    before.stats.latency[STATS_BLK_READ].bucket[5] = 100;
    now = before;
    now.now_ns += 2000000000;
    now.stats.reads += 30;
    now.stats.writes += 8;
    now.stats.flushes += 2;
    now.stats.requests += 40;
    now.stats.sectors_read += 2 * 4096;
    now.stats.notifications += 10;
    now.stats.events += 10;
    now.stats.errors = 3;
    now.stats.in_flight = 4;
    now.stats.latency[STATS_BLK_READ].sum_ns += 30 * 5000;
    now.stats.latency[STATS_BLK_READ].bucket[loghist_bucket(5000)] += 30;
    struct blkrate r;
    blkrate_between(&before, &now, &r);
    assert_true(r.seconds == 2 && r.reads_s == 15 && r.writes_s == 5 && r.read_mib_s == 2 && r.write_mib_s == 0);
    assert_true(r.average_us == 5 && r.p50_us > 4.3 && r.p99_us < 5.7 && r.notifications_request == 0.5);
    assert_int_equal(r.problems, 3);
    assert_int_equal(r.in_flight, 4);
    before.since_ns = 4; /* another life of the device */
    blkrate_between(&before, &now, &r);
    assert_true(r.seconds == 3);
    assert_true(r.reads_s > 43 && r.reads_s < 44);
    now.now_ns = now.since_ns; /* no time at all */
    blkrate_between(NULL, &now, &r);
    assert_true(r.reads_s == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buckets_are_adjacent_and_hold_their_own_bounds),
        cmocka_unit_test(test_a_quantile_is_off_by_an_eighth_at_the_most),
        cmocka_unit_test(test_batches_fall_into_doublings),
        cmocka_unit_test(test_what_is_added_and_subtracted_again_is_what_was),
        cmocka_unit_test(test_rates_are_of_the_interval),
    };
    return cmocka_run_group_tests_name("loghist", tests, NULL, NULL);
}
