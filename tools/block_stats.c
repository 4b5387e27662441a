/* SPDX-License-Identifier: MIT */
/* tools/block_stats.c: `domzero block-stats`: a line for each disk, all numbers of one disk, or all of all for
 * programs. */
#include <inttypes.h>
#include <string.h>

#include "tools/blkrate.h"
#include "tools/blkstat.h"
#include "tools/verb.h"
#include "xenbus/keys_blk.h"

static double mib(uint64_t sectors)
{
    return (double)sectors * SECTOR_BYTES / (1u << 20);
}

static void print_table(const struct blkstat_list *l)
{
    printf("%-16s %5s %-6s %10s %10s %8s %10s %10s %7s %7s %6s %5s %-6s %s\n", "Domain", "ID", "Vdev", "reads",
           "writes", "flushes", "MiB-read", "MiB-writ", "p50-us", "p99-us", "ntf/rq", "infl", "dma", "errors");
    for (unsigned i = 0; i < l->count; i++) {
        const struct blkstat *d = &l->disk[i];
        const struct stats_blk *s = &d->r.stats;
        struct blkrate rate;
        char dma[20];
        blkrate_between(NULL, &d->r, &rate);
        blkstat_dma(d, dma, sizeof(dma));
        printf("%-16s %5" PRIu32 " %-6s %10" PRIu64 " %10" PRIu64 " %8" PRIu64
               " %10.1f %10.1f %7.1f %7.1f %6.2f %5" PRIu64 " %-6s %" PRIu64 "\n",
               d->domain, d->r.domid, d->vdev, s->reads, s->writes, s->flushes, mib(s->sectors_read),
               mib(s->sectors_written), rate.p50_us, rate.p99_us, rate.notifications_request, s->in_flight, dma,
               rate.problems);
    }
}

static void print_kinds(const char *what, const struct stats_blk_kind *kind, unsigned count)
{
    for (unsigned i = 0; i < count && kind[i].name[0]; i++)
        if (kind[i].count)
            printf("%-26s %16" PRIu64 "  %s\n", kind[i].name, kind[i].count, what);
}

static void print_latencies(const struct stats_blk *s)
{
    printf("\n%-10s %12s %10s %10s %10s %10s\n", "latency us", "count", "average", "p50", "p90", "p99");
    for (unsigned op = 0; op < STATS_BLK_OPS; op++) {
        const struct stats_blk_latency *l = &s->latency[op];
        uint64_t n = loghist_count(l->bucket);
        printf("%-10s %12" PRIu64 " %10.1f %10.1f %10.1f %10.1f\n", stats_blk_op_name((enum stats_blk_op)op), n,
               n ? (double)l->sum_ns / (double)n / 1e3 : 0, (double)loghist_quantile(l->bucket, 0.5) / 1e3,
               (double)loghist_quantile(l->bucket, 0.9) / 1e3, (double)loghist_quantile(l->bucket, 0.99) / 1e3);
    }
    printf("\n%-10s", "batch of");
    for (unsigned i = 0; i < STATS_BLK_BATCHES; i++)
        printf(" %8u%s", 1u << i, i == STATS_BLK_BATCHES - 1 ? "+" : " ");
    printf("\n%-10s", "times");
    for (unsigned i = 0; i < STATS_BLK_BATCHES; i++)
        printf(" %8" PRIu64 " ", s->batch[i]);
    printf("\n");
}

static void print_queues(const struct blkstat *d)
{
    printf("\n%-10s %8s %12s %12s %8s %6s %10s %10s\n", "queue", "reactor", "requests", "batches", "ntf/rq", "infl",
           "p50-us", "p99-us");
    for (unsigned i = 0; i < d->queue_count; i++) {
        const struct stats_blk_reply *r = &d->queue[i];
        struct blkrate rate;
        blkrate_between(NULL, r, &rate);
        printf("%-10" PRIu32 " %8" PRIu32 " %12" PRIu64 " %12" PRIu64 " %8.2f %6" PRIu64 " %10.1f %10.1f\n",
               r->queue - 1, r->reactor, r->stats.requests, r->stats.batches, rate.notifications_request,
               r->stats.in_flight, rate.p50_us, rate.p99_us);
    }
}

static void print_disk(const struct blkstat *d)
{
    const struct stats_blk *s = &d->r.stats;
    for (unsigned i = 0; i < stats_blk_row_count; i++)
        printf("%-26s %16" PRIu64 "  %s\n", stats_blk_rows[i].name, stats_blk_value(s, &stats_blk_rows[i]),
               stats_blk_rows[i].help);
    print_kinds("requests with this error", s->error, STATS_BLK_KINDS);
    print_kinds("times that the device was closed for this reason", s->fault, STATS_BLK_FAULTS);
    print_latencies(s);
    print_queues(d);
}

/* Nothing, DOMAIN, or DOMAIN VDEV. */
static int filter_parse(struct tool *t, int argc, char **argv, struct blkstat_filter *out, struct err *e)
{
    struct platform_domain domain;
    *out = (struct blkstat_filter){.one_domain = argc > 0, .one_disk = argc > 1};
    if (argc == 0)
        return 0;
    int r = tool_domain_find(t, argv[0], &domain, e);
    out->domid = domain.domid;
    if (r == 0 && argc > 1 && keys_blk_devid(argv[1], &out->devid))
        r = err_set(e, -EINVAL, "\"%.80s\" is no virtual device: xvda, xvdb1, ... or a number", argv[1]);
    return r;
}

static int block_stats_run(struct tool *t, int argc, char **argv, struct err *e)
{
    struct blkstat_filter filter;
    struct blkstat_list list = {0};
    bool json = tool_flag(&argc, argv, "--json"), prometheus = tool_flag(&argc, argv, "--prometheus");
    if (argc > 2 || (json && prometheus) || (argc && argv[0][0] == '-'))
        return VERB_USAGE;
    int r = tool_open(t, e);
    r = r ? r : filter_parse(t, argc, argv, &filter, e);
    r = r ? r : blkstat_read(t, &filter, &list, e);
    if (!r && (json || filter.one_disk))
        r = blkstat_read_queues(t->run_dir, &list, e);
    if (r) {
        blkstat_free(&list);
        return r;
    }
    if (json)
        blkstat_json(stdout, &list);
    else if (prometheus)
        blkstat_prometheus(stdout, &list);
    else if (filter.one_disk)
        print_disk(&list.disk[0]);
    else
        print_table(&list);
    blkstat_free(&list);
    return 0;
}

const struct verb verb_block_stats = {
    .name = "block-stats",
    .arguments = "[DOMAIN [VDEV]] [--json | --prometheus]",
    .summary = "show what disks have counted",
    .help = "A line for each disk, or all numbers of one; since the disk was attached or the block role was started.\n"
            "--prometheus prints the text exposition format, names domzero_block_*.\n",
    .run = block_stats_run,
};
