/* SPDX-License-Identifier: MIT */
/* tools/blkstat_json.c: the block role's statistics as JSON. */
#include <inttypes.h>

#include "tools/blkstat.h"
#include "tools/json.h"
#include "xenbus/state.h"

static void json_kinds(FILE *f, const char *name, const struct stats_blk_kind *kind, unsigned count)
{
    fprintf(f, ", \"%s\": {", name);
    for (unsigned i = 0; i < count && kind[i].name[0]; i++) {
        fprintf(f, "%s", i ? ", " : "");
        json_string(f, kind[i].name);
        fprintf(f, ": %" PRIu64, kind[i].count);
    }
    fprintf(f, "}");
}

/* Buckets that hold something, as [least ns, count]. */
static void json_latency(FILE *f, enum stats_blk_op op, const struct stats_blk_latency *l)
{
    uint64_t count = loghist_count(l->bucket);
    bool first = true;
    fprintf(f, "%s\"%s\": {\"count\": %" PRIu64 ", \"sum_ns\": %" PRIu64, op ? ", " : "", stats_blk_op_name(op), count,
            l->sum_ns);
    fprintf(f, ", \"p50_ns\": %" PRIu64 ", \"p99_ns\": %" PRIu64 ", \"buckets\": [", loghist_quantile(l->bucket, 0.5),
            loghist_quantile(l->bucket, 0.99));
    for (unsigned i = 0; i < LOGHIST_BUCKETS; i++) {
        if (!l->bucket[i])
            continue;
        fprintf(f, "%s[%" PRIu64 ", %" PRIu64 "]", first ? "" : ", ", loghist_low(i), l->bucket[i]);
        first = false;
    }
    fprintf(f, "]}");
}

void blkstat_json_numbers(FILE *f, const struct stats_blk *s)
{
    fprintf(f, "{");
    for (unsigned i = 0; i < stats_blk_row_count; i++)
        fprintf(f, "%s\"%s\": %" PRIu64, i ? ", " : "", stats_blk_rows[i].name, stats_blk_value(s, &stats_blk_rows[i]));
    fprintf(f, ", \"batch_sizes\": [");
    for (unsigned i = 0; i < STATS_BLK_BATCHES; i++)
        fprintf(f, "%s%" PRIu64, i ? ", " : "", s->batch[i]);
    fprintf(f, "]");
    json_kinds(f, "errors_by_kind", s->error, STATS_BLK_KINDS);
    json_kinds(f, "faults_by_kind", s->fault, STATS_BLK_FAULTS);
    fprintf(f, ", \"latency\": {");
    for (unsigned op = 0; op < STATS_BLK_OPS; op++)
        json_latency(f, (enum stats_blk_op)op, &s->latency[op]);
    fprintf(f, "}}");
}

/* Each since it was connected; they go with the connection, and their numbers stay in the disk's. */
static void json_queues(FILE *f, const struct blkstat *d)
{
    fprintf(f, ", \"queues\": [");
    for (unsigned i = 0; i < d->queue_count; i++) {
        const struct stats_blk_reply *r = &d->queue[i];
        fprintf(f, "%s\n    {\"queue\": %" PRIu32 ", \"reactor\": %" PRIu32 ", \"stats\": ", i ? "," : "", r->queue - 1,
                r->reactor);
        blkstat_json_numbers(f, &r->stats);
        fprintf(f, "}");
    }
    fprintf(f, "]");
}

static void json_bus_faults(FILE *f, const struct stats_blk_reply *r)
{
    fprintf(f, ", \"iommu_faults\": [");
    for (unsigned i = 0; i < r->bus_fault_count && i < STATS_BLK_BUS_FAULTS; i++) {
        const struct stats_blk_bus_fault *b = &r->bus_fault[i];
        fprintf(f, "%s\n    {\"age_ns\": %" PRIu64 ", \"address\": \"0x%" PRIx64 "\", \"access\": \"%s\"", i ? "," : "",
                r->now_ns > b->at_ns ? r->now_ns - b->at_ns : 0, b->address, b->write ? "write" : "read");
        json_member(f, false, "reason", b->reason);
        fprintf(f, "}");
    }
    fprintf(f, "]");
}

void blkstat_json(FILE *f, const struct blkstat_list *l)
{
    fprintf(f, "[");
    for (unsigned i = 0; i < l->count; i++) {
        const struct blkstat *d = &l->disk[i];
        fprintf(f, "%s\n  {\"domid\": %" PRIu32 ", \"devid\": %" PRIu32, i ? "," : "", d->r.domid, d->r.devid);
        json_member(f, false, "domain", d->domain);
        json_member(f, false, "vdev", d->vdev);
        json_member(f, false, "state", xb_state_name((xb_state)d->r.state));
        json_member(f, false, "dma", d->r.dma);
        json_member(f, false, "format", d->r.format);
        fprintf(f, ", \"age_ns\": %" PRIu64 ", \"stats\": ", d->r.now_ns - d->r.since_ns);
        blkstat_json_numbers(f, &d->r.stats);
        json_bus_faults(f, &d->r);
        json_queues(f, d);
        fprintf(f, "}");
    }
    fprintf(f, "%s]\n", l->count ? "\n" : "");
}
