/* SPDX-License-Identifier: MIT */
#include "backend/blk/blkstats.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static void kind_put(struct stats_blk_kind *kind, const char *room, const char *name, uint64_t count)
{
    snprintf(kind->name, sizeof(kind->name), "%s%s", room, name);
    for (char *p = kind->name; *p; p++)
        if (*p == '-')
            *p = '_';
    kind->count = count;
}

static void kinds_read(const struct blkstats *s, struct stats_blk *out)
{
    static const char *const faults[] = {[BLKQUEUE_F_OVERRUN] = "ring_overrun",
                                         [BLKQUEUE_F_MISSES] = "unknown_grants",
                                         [BLKQUEUE_F_GONE] = "process_gone",
                                         [BLKQUEUE_F_SLOW] = "slow_channel"};
    _Static_assert(ARRAY_SIZE(faults) == BLKQUEUE_F_COUNT_ && BLKQUEUE_F_COUNT_ <= STATS_BLK_FAULTS, "all have names");
    _Static_assert(BLKREQ_E_COUNT_ - 1 + GRANT_E_COUNT_ - 1 + 2 <= STATS_BLK_KINDS, "room for all kinds of errors");
    struct stats_blk_kind *kind = out->error;
    for (int i = 1; i < BLKREQ_E_COUNT_; i++)
        kind_put(kind++, "request_", blkreq_error_name(i), blkcounter_get(&s->bad_requests[i]));
    for (int i = 1; i < GRANT_E_COUNT_; i++)
        kind_put(kind++, "grant_", grant_error_name(i), blkcounter_get(&s->bad_grants[i]));
    const uint64_t full = blkcounter_get(&s->io_full), all = blkcounter_get(&s->io_errors);
    kind_put(kind++, "", "storage", all > full ? all - full : 0);
    kind_put(kind, "", "storage_full", full);
    for (int i = 1; i < BLKQUEUE_F_COUNT_; i++)
        kind_put(&out->fault[i - 1], "", faults[i], blkcounter_get(&s->faults[i]));
}

void blkstats_read(const struct blkstats *s, struct stats_blk *out)
{
    memset(out, 0, sizeof(*out));
#define COUNTER(name, help) out->name = blkcounter_get(&s->name);
#define GAUGE(name, help)   out->name = blkcounter_get(&s->name);
#include "xenbus/stats_blk_list.h"
#undef COUNTER
#undef GAUGE
    for (unsigned i = 0; i < STATS_BLK_BATCHES; i++)
        out->batch[i] = blkcounter_get(&s->batch[i]);
    for (unsigned op = 0; op < STATS_BLK_OPS; op++) {
        out->latency[op].sum_ns = blkcounter_get(&s->latency[op].sum_ns);
        for (unsigned i = 0; i < LOGHIST_BUCKETS; i++)
            out->latency[op].bucket[i] = blkcounter_get(&s->latency[op].bucket[i]);
    }
    kinds_read(s, out);
}

/* The code whose counter moved most since it was last seen; 0 where none did. */
static unsigned counters_news(const blkcounter *c, uint64_t *seen, unsigned n, uint64_t *count)
{
    unsigned code = 0;
    uint64_t most = 0;
    for (unsigned i = 0; i < n; i++) {
        uint64_t now = blkcounter_get(&c[i]), moved = now - seen[i];
        seen[i] = now;
        *count += moved;
        if (moved > most) {
            most = moved;
            code = i;
        }
    }
    return code;
}

const char *blkstats_news(const struct blkstats *s, struct blkstats_seen *seen, uint64_t *count)
{
    *count = 0;
    unsigned request = counters_news(s->bad_requests, seen->bad_requests, BLKREQ_E_COUNT_, count);
    unsigned grant = counters_news(s->bad_grants, seen->bad_grants, GRANT_E_COUNT_, count);
    uint64_t io = blkcounter_get(&s->io_errors);
    bool storage = io != seen->io_errors;
    *count += io - seen->io_errors;
    seen->io_errors = io;
    if (storage)
        return strerror((int)blkcounter_get(&s->last_io_errno));
    if (grant)
        return grant_error_text((int)grant);
    return request ? blkreq_error_text((int)request) : NULL;
}
