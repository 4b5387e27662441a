/* SPDX-License-Identifier: MIT */
#include "tools/blkrate.h"

#include "base/clock.h"

#define MIB_SECTORS ((double)(1u << 20) / SECTOR_BYTES)

static uint64_t problems(const struct stats_blk *s)
{
    uint64_t sum = s->errors;
    for (unsigned i = 0; i < STATS_BLK_FAULTS; i++)
        sum += s->fault[i].count;
    return sum;
}

static void latencies(const struct stats_blk *s, struct blkrate *out)
{
    uint64_t all[LOGHIST_BUCKETS] = {0}, sum_ns = 0;
    for (unsigned op = 0; op < STATS_BLK_OPS; op++) {
        sum_ns += s->latency[op].sum_ns;
        for (unsigned i = 0; i < LOGHIST_BUCKETS; i++)
            all[i] += s->latency[op].bucket[i];
    }
    uint64_t count = loghist_count(all);
    out->average_us = count ? (double)sum_ns / (double)count / (double)CLOCK_NS_PER_US : 0;
    out->p50_us = (double)loghist_quantile(all, 0.5) / (double)CLOCK_NS_PER_US;
    out->p99_us = (double)loghist_quantile(all, 0.99) / (double)CLOCK_NS_PER_US;
}

void blkrate_between(const struct stats_blk_reply *before, const struct stats_blk_reply *now, struct blkrate *out)
{
    struct stats_blk s = now->stats;
    uint64_t from_ns = now->since_ns;
    if (before && before->since_ns == now->since_ns) {
        stats_blk_subtract(&s, &before->stats);
        from_ns = before->now_ns;
    }
    double seconds = now->now_ns > from_ns ? (double)(now->now_ns - from_ns) / (double)CLOCK_NS_PER_S : 0;
    double a_second = seconds > 0 ? 1 / seconds : 0;
    *out = (struct blkrate){
        .seconds = seconds,
        .reads_s = (double)s.reads * a_second,
        .writes_s = (double)(s.writes + s.flushes) * a_second,
        .read_mib_s = (double)s.sectors_read / MIB_SECTORS * a_second,
        .write_mib_s = (double)s.sectors_written / MIB_SECTORS * a_second,
        .notifications_request = s.requests ? (double)(s.notifications + s.events) / (double)s.requests : 0,
        .requests = s.requests,
        .in_flight = s.in_flight,
        .problems = problems(&now->stats),
    };
    latencies(&s, out);
}
