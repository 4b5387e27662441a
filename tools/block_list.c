/* SPDX-License-Identifier: MIT */
/* tools/block_list.c: `domzero block-list`: xl's columns, then what xl does not know.
 *
 * Event channel and ring are the guest's words; they are shown as text and made printable. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tools/blkstat.h"
#include "tools/json.h"
#include "tools/vbd.h"
#include "tools/verb.h"

/* A row of strings; NULL where the key is missing. */
struct block_row {
    char *vdev, *state, *port, *ring_ref, *params, *mode, *dma, *iommu, *dma_bits, *bus, *poll, *error, *paused,
        *warning;
    struct keys_blk_qos qos;
};

static char *read_key(struct store_client *c, const char *dir, const char *key)
{
    char *text = NULL;
    return store_read(c, STORE_NO_TX, &text, NULL, "%s/%s", dir, key) == 0 ? json_plain(text) : NULL;
}

static void row_read(struct block_row *row, const struct xb_device *d)
{
    struct store_client *c = d->store;
    *row = (struct block_row){
        .vdev = read_key(c, d->dir, "dev"),
        .state = read_key(c, d->dir, "state"),
        .port = read_key(c, d->peer_dir, "event-channel"),
        .ring_ref = read_key(c, d->peer_dir, "ring-ref"),
        .params = read_key(c, d->dir, "params"),
        .mode = read_key(c, d->dir, "mode"),
        .dma = read_key(c, d->dir, "domzero/dma"),
        .iommu = read_key(c, d->dir, "domzero/iommu"),
        .dma_bits = read_key(c, d->dir, "domzero/dma-bits"),
        .bus = read_key(c, d->peer_dir, "domzero/bus-addresses"),
        .poll = read_key(c, d->dir, "domzero/poll"),
        .error = read_key(c, d->dir, "error"),
        .paused = read_key(c, d->dir, KEYS_BLK_PAUSED),
        .warning = read_key(c, d->dir, KEYS_BLK_WARNING),
    };
    (void)keys_blk_qos_read(c, d->dir, &row->qos, NULL); /* what cannot be read is no limit: the backend refused it */
    if (!row->ring_ref)
        row->ring_ref = read_key(c, d->peer_dir, "ring-ref0");
}

static void row_free(struct block_row *row)
{
    char *all[] = {row->vdev,  row->state,    row->port, row->ring_ref, row->params, row->mode,   row->dma,
                   row->iommu, row->dma_bits, row->bus,  row->poll,     row->error,  row->paused, row->warning};
    for (size_t i = 0; i < ARRAY_SIZE(all); i++)
        free(all[i]);
}

static const char *or_dash(const char *text)
{
    return text ? text : "-";
}

/* What is not zero, as name=number. */
static void print_stats(const struct stats_blk *s)
{
    printf("         stats:");
    for (unsigned i = 0; i < stats_blk_row_count; i++)
        if (stats_blk_value(s, &stats_blk_rows[i]))
            printf(" %s=%" PRIu64, stats_blk_rows[i].name, stats_blk_value(s, &stats_blk_rows[i]));
    printf("\n");
}

/* The limits that there are, each as name, `between`, number. */
static void print_limits(const struct keys_blk_qos *qos, const char *format, const char *between)
{
    struct keys_blk_qos q = *qos;
    const char *before = "";
    for (unsigned i = 0; i < KEYS_BLK_QOS_KEYS; i++) {
        uint64_t value = *keys_blk_qos_value(&q, &keys_blk_qos_keys[i]);
        if (!value)
            continue;
        printf(format, before, keys_blk_qos_keys[i].name, value);
        before = between;
    }
}

/* What is only of a disk behind an IOMMU. */
static bool behind_iommu(const struct block_row *row)
{
    return row->dma && !strcmp(row->dma, "iommu");
}

static const char *named_by(const struct block_row *row)
{
    return row->bus && strcmp(row->bus, "0") ? "bus-addresses" : "grants";
}

static void print_text(const struct xb_device *d, const struct block_row *row, const struct stats_blk *stats)
{
    char dma[20];
    snprintf(dma, sizeof(dma), "%s%s", row->warning ? "?" : "", or_dash(row->dma));
    printf("%-8s %-3u %-6u %-5s %-6s %-8s %-36s %-4s %-8s %s\n", or_dash(row->vdev), d->back_domid, d->front_domid,
           or_dash(row->state), or_dash(row->port), or_dash(row->ring_ref), d->dir, or_dash(row->mode), dma,
           or_dash(row->params));
    if (row->qos.iops || row->qos.bytes) {
        printf("         limits: ");
        print_limits(&row->qos, "%s%s=%" PRIu64, " ");
        printf("\n");
    }
    if (row->warning)
        printf("         warning: %s\n", row->warning);
    if (behind_iommu(row))
        printf("         iommu: %s, %s bits, %s\n", or_dash(row->iommu), or_dash(row->dma_bits), named_by(row));
    if (row->error)
        printf("         error: %s\n", row->error);
    if (row->paused)
        printf("         paused: %s\n", row->paused);
    if (stats && stats->requests)
        print_stats(stats);
}

static void member_if(const char *name, const char *text)
{
    if (text)
        json_member(stdout, false, name, text);
}

static void print_json(const struct xb_device *d, const struct block_row *row, const struct stats_blk *stats,
                       bool first)
{
    xb_state s = row->state ? xb_state_parse(row->state) : XenbusStateUnknown;
    printf("%s\n  {\"devid\": %" PRIu32 ", \"backend_domid\": %u, \"frontend_domid\": %u, \"state\": %d",
           first ? "" : ",", d->devid, d->back_domid, d->front_domid, (int)s);
    json_member(stdout, false, "state_name", xb_state_name(s));
    json_member(stdout, false, "backend", d->dir);
    json_member(stdout, false, "frontend", d->peer_dir);
    member_if("vdev", row->vdev);
    member_if("event_channel", row->port);
    member_if("ring_ref", row->ring_ref);
    member_if("target", row->params);
    member_if("mode", row->mode);
    member_if("dma", row->dma);
    if (behind_iommu(row)) {
        member_if("iommu", row->iommu);
        member_if("dma_bits", row->dma_bits);
        member_if("pages_named_by", named_by(row));
    }
    member_if("poll", row->poll);
    printf(", \"limits\": {");
    print_limits(&row->qos, "%s\"%s\": %" PRIu64, ", ");
    printf("}");
    member_if("warning", row->warning);
    member_if("error", row->error);
    member_if("paused", row->paused);
    if (stats) {
        printf(", \"stats\": ");
        blkstat_json_numbers(stdout, stats);
    }
    printf("}");
}

/* NULL where the backend tells none. */
static const struct stats_blk *stats_of(const struct blkstat_list *l, uint32_t devid)
{
    for (unsigned i = 0; i < l->count; i++)
        if (l->disk[i].r.devid == devid)
            return &l->disk[i].r.stats;
    return NULL;
}

static int print_all(struct tool *t, uint16_t domid, bool json, struct err *e)
{
    _cleanup_free_ uint32_t *devids = NULL;
    const struct blkstat_filter filter = {.one_domain = true, .domid = domid};
    struct blkstat_list stats = {0};
    int count = vbd_list(t->store, domid, &devids, e);
    if (count < 0)
        return count;
    (void)blkstat_read_numbers(t->run_dir, &filter, &stats, NULL); /* a role that is down has no numbers: no failure */
    if (json)
        printf("[");
    else
        printf("%-8s %-3s %-6s %-5s %-6s %-8s %-36s %-4s %-8s %s\n", "Vdev", "BE", "handle", "state", "evt-ch",
               "ring-ref", "BE-path", "mode", "dma", "target");
    for (int i = 0; i < count; i++) {
        struct xb_device d;
        struct block_row row;
        vbd_init(&d, t->store, domid, devids[i]);
        row_read(&row, &d);
        if (json)
            print_json(&d, &row, stats_of(&stats, devids[i]), i == 0);
        else
            print_text(&d, &row, stats_of(&stats, devids[i]));
        row_free(&row);
    }
    blkstat_free(&stats);
    if (json)
        printf("%s]\n", count ? "\n" : "");
    return 0;
}

static int block_list_run(struct tool *t, int argc, char **argv, struct err *e)
{
    struct platform_domain domain;
    bool json = tool_flag(&argc, argv, "--json");
    if (argc != 1)
        return VERB_USAGE;
    int r = tool_open(t, e);
    r = r ? r : tool_domain_find(t, argv[0], &domain, e);
    return r ? r : print_all(t, domain.domid, json, e);
}

const struct verb verb_block_list = {
    .name = "block-list",
    .arguments = "DOMAIN [--json]",
    .summary = "show a domain's disks",
    .help = "xl's columns, then mode, DMA strategy and target; below a disk its limits, what its strategy warns of\n"
            "(then with '?' before it), the error that closed it, why it is paused, and what it has counted (see "
            "block-stats), where there is any of it.\n",
    .run = block_list_run,
};
