/* SPDX-License-Identifier: MIT */
/* tools/blkstat_prometheus.c: the block role's statistics in Prometheus' text exposition format: each family once, with
 * a sample for each disk; labels domain, domid and vdev. Times are in seconds and their buckets are whole doublings. */
#include <inttypes.h>
#include <string.h>

#include "tools/blkstat.h"
#include "xenbus/state.h"

#define PREFIX "domzero_block_"

/* A label's value: backslash, quote and newline are escaped. */
static void put_escaped(FILE *f, const char *text)
{
    for (const char *p = text; *p; p++) {
        if (*p == '\n')
            fputs("\\n", f);
        else if (*p == '\\' || *p == '"')
            fprintf(f, "\\%c", *p);
        else
            putc(*p, f);
    }
}

static void family(FILE *f, const char *name, const char *help, const char *type)
{
    fprintf(f, "# HELP " PREFIX "%s %s\n# TYPE " PREFIX "%s %s\n", name, help, name, type);
}

/* Everything of a sample up to its value. `label` NULL: no more than the disk's. */
static void sample(FILE *f, const struct blkstat *d, const char *name, const char *label, const char *value)
{
    fprintf(f, PREFIX "%s{domain=\"", name);
    put_escaped(f, d->domain);
    fprintf(f, "\",domid=\"%" PRIu32 "\",vdev=\"", d->r.domid);
    put_escaped(f, d->vdev);
    if (label) {
        fprintf(f, "\",%s=\"", label);
        put_escaped(f, value);
    }
    fprintf(f, "\"} ");
}

static void put_row(FILE *f, const struct blkstat_list *l, const struct stats_blk_row *row)
{
    char name[64];
    snprintf(name, sizeof(name), "%s%s", row->name, row->gauge ? "" : "_total");
    family(f, name, row->help, row->gauge ? "gauge" : "counter");
    for (unsigned i = 0; i < l->count; i++) {
        sample(f, &l->disk[i], name, NULL, NULL);
        fprintf(f, "%" PRIu64 "\n", stats_blk_value(&l->disk[i].r.stats, row));
    }
}

static void put_kinds(FILE *f, const struct blkstat *d, const char *name, const struct stats_blk_kind *kind,
                      unsigned count)
{
    for (unsigned i = 0; i < count && kind[i].name[0]; i++) {
        sample(f, d, name, "kind", kind[i].name);
        fprintf(f, "%" PRIu64 "\n", kind[i].count);
    }
}

static void put_batches(FILE *f, const struct blkstat *d)
{
    uint64_t seen = 0;
    char le[24];
    for (unsigned i = 0; i < STATS_BLK_BATCHES; i++) {
        seen += d->r.stats.batch[i];
        snprintf(le, sizeof(le), "%" PRIu64, stats_blk_batch_max(i));
        sample(f, d, "batch_responses_bucket", "le", i < STATS_BLK_BATCHES - 1 ? le : "+Inf");
        fprintf(f, "%" PRIu64 "\n", seen);
    }
    sample(f, d, "batch_responses_sum", NULL, NULL);
    fprintf(f, "%" PRIu64 "\n", d->r.stats.responses);
    sample(f, d, "batch_responses_count", NULL, NULL);
    fprintf(f, "%" PRIu64 "\n", seen);
}

/* "op" and "le" in one: the text behind `op="` up to where sample() closes the quote. */
static void put_latency_bucket(FILE *f, const struct blkstat *d, const char *op, const char *le, uint64_t count)
{
    fprintf(f, PREFIX "latency_seconds_bucket{domain=\"");
    put_escaped(f, d->domain);
    fprintf(f, "\",domid=\"%" PRIu32 "\",vdev=\"", d->r.domid);
    put_escaped(f, d->vdev);
    fprintf(f, "\",op=\"%s\",le=\"%s\"} %" PRIu64 "\n", op, le, count);
}

static void put_latency(FILE *f, const struct blkstat *d, enum stats_blk_op op)
{
    const struct stats_blk_latency *l = &d->r.stats.latency[op];
    const char *name = stats_blk_op_name(op);
    uint64_t seen = 0;
    char le[32];
    for (unsigned i = 0; i < LOGHIST_BUCKETS; i++) {
        seen += l->bucket[i];
        snprintf(le, sizeof(le), "%.9g", (double)loghist_low(i + 1) * 1e-9);
        if (i % 4 == 0 && i + 1 < LOGHIST_BUCKETS) /* bucket i ends where a doubling does */
            put_latency_bucket(f, d, name, le, seen);
    }
    put_latency_bucket(f, d, name, "+Inf", seen);
    sample(f, d, "latency_seconds_sum", "op", name);
    fprintf(f, "%.9f\n", (double)l->sum_ns * 1e-9);
    sample(f, d, "latency_seconds_count", "op", name);
    fprintf(f, "%" PRIu64 "\n", seen);
}

void blkstat_prometheus(FILE *f, const struct blkstat_list *l)
{
    for (unsigned i = 0; i < stats_blk_row_count; i++)
        put_row(f, l, &stats_blk_rows[i]);
    family(f, "connected", "1 where frontend and backend are connected", "gauge");
    for (unsigned i = 0; i < l->count; i++) {
        sample(f, &l->disk[i], "connected", NULL, NULL);
        fprintf(f, "%d\n", l->disk[i].r.state == XenbusStateConnected);
    }
    family(f, "request_errors_total", "requests answered with an error, by what was wrong", "counter");
    for (unsigned i = 0; i < l->count; i++)
        put_kinds(f, &l->disk[i], "request_errors_total", l->disk[i].r.stats.error, STATS_BLK_KINDS);
    family(f, "faults_total", "times that the device was closed under its frontend, by reason", "counter");
    for (unsigned i = 0; i < l->count; i++)
        put_kinds(f, &l->disk[i], "faults_total", l->disk[i].r.stats.fault, STATS_BLK_FAULTS);
    family(f, "batch_responses", "responses published at a time", "histogram");
    for (unsigned i = 0; i < l->count; i++)
        put_batches(f, &l->disk[i]);
    family(f, "latency_seconds", "from the look at the ring that took a request to its answer", "histogram");
    for (unsigned i = 0; i < l->count; i++)
        for (unsigned op = 0; op < STATS_BLK_OPS; op++)
            put_latency(f, &l->disk[i], (enum stats_blk_op)op);
}
