/* SPDX-License-Identifier: MIT */
/* tools/top_rows.c: the rows of `domzero top`: two looks at what disks counted, and what lies between them. */
#include <inttypes.h>
#include <string.h>

#include "tools/top.h"

static const char *const sort_names[TOP_SORTS] = {[TOP_BY_DOMAIN] = "domain",
                                                  [TOP_BY_IOPS] = "iops",
                                                  [TOP_BY_BYTES] = "bytes",
                                                  [TOP_BY_LATENCY] = "latency",
                                                  [TOP_BY_ERRORS] = "errors"};

const char *top_sort_name(enum top_sort sort)
{
    assert(sort < TOP_SORTS);
    return sort_names[sort];
}

int top_sort_parse(const char *name, enum top_sort *out)
{
    for (unsigned i = 0; i < TOP_SORTS; i++) {
        if (strcmp(sort_names[i], name))
            continue;
        *out = (enum top_sort)i;
        return 0;
    }
    return -EINVAL;
}

int top_delay_parse(const char *text, double *out)
{
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end || !(v >= TOP_DELAY_MIN_S && v <= TOP_DELAY_MAX_S)) /* a NaN is in no range */
        return -EINVAL;
    *out = v;
    return 0;
}

/* ---- rows ---- */

static double row_weight(const struct blkrate *r, enum top_sort sort)
{
    switch (sort) {
    case TOP_BY_IOPS: return r->reads_s + r->writes_s;
    case TOP_BY_BYTES: return r->read_mib_s + r->write_mib_s;
    case TOP_BY_LATENCY: return r->p99_us;
    case TOP_BY_ERRORS: return (double)r->problems;
    case TOP_BY_DOMAIN:
    case TOP_SORTS: break;
    }
    return 0;
}

/* The list is in order of (domid, devid) already, which decides among equals. */
static int row_compare(const void *a, const void *b, void *arg)
{
    const struct top_row *x = a, *y = b;
    enum top_sort sort = *(const enum top_sort *)arg;
    double p = row_weight(&x->rate, sort), q = row_weight(&y->rate, sort);
    if (p != q)
        return p > q ? -1 : 1;
    return x->disk < y->disk ? -1 : x->disk > y->disk;
}

void top_sort_rows(struct top *t)
{
    if (t->rows)
        qsort_r(t->rows, t->now.count, sizeof(*t->rows), row_compare, &t->sort);
}

static const struct blkstat *list_find(const struct blkstat_list *l, const struct blkstat *like)
{
    for (unsigned i = 0; i < l->count; i++)
        if (l->disk[i].r.domid == like->r.domid && l->disk[i].r.devid == like->r.devid)
            return &l->disk[i];
    return NULL;
}

int top_look(struct top *t, struct err *e)
{
    struct blkstat_list now = {0};
    const struct blkstat_filter all = {0};
    int rc = blkstat_read(t->tool, &all, &now, e);
    if (rc)
        return rc;
    struct top_row *rows = calloc(now.count + 1, sizeof(*rows));
    if (!rows) {
        blkstat_free(&now);
        return err_set(e, -ENOMEM, "out of memory");
    }
    for (unsigned i = 0; i < now.count; i++) {
        const struct blkstat *before = list_find(&t->now, &now.disk[i]);
        rows[i].disk = &now.disk[i];
        blkrate_between(before ? &before->r : NULL, &now.disk[i].r, &rows[i].rate);
    }
    top_deinit(t);
    t->now = now;
    t->rows = rows;
    top_sort_rows(t);
    return 0;
}

void top_deinit(struct top *t)
{
    blkstat_free(&t->now);
    free(take_ptr(t->rows));
}

/* ---- text ---- */

/* In `width` characters, 5 or 6. */
static const char *short_number(double v, int width, char out[16])
{
    double most = width < 6 ? 99999.5 : 999999.5;
    if (v < most)
        snprintf(out, 16, v < 999.95 && v != (double)(uint64_t)v ? "%.1f" : "%.0f", v);
    else if (v < most * 100)
        snprintf(out, 16, "%.0fk", v / 1e3);
    else
        snprintf(out, 16, "%.0fM", v / 1e6);
    return out;
}

/* 80 columns, as a terminal's. */
void top_format_head(char out[TOP_LINE_BYTES])
{
    snprintf(out, TOP_LINE_BYTES, "%-10s %-5s %6s %6s %6s %6s %6s %6s %4s %4s %-5s %5s", "DOMAIN", "VDEV", "RD/S",
             "WR/S", "RMIB/S", "WMIB/S", "AVG-US", "P99-US", "NT/R", "INFL", "DMA", "ERR");
}

static void format(char *out, const char *domain, const char *vdev, const char *dma, const struct blkrate *r)
{
    char rd[16], wr[16], rb[16], wb[16], avg[16], p99[16], errors[16];
    snprintf(out, TOP_LINE_BYTES, "%-10.10s %-5.5s %6s %6s %6s %6s %6s %6s %4.2f %4" PRIu64 " %-5.5s %5s", domain, vdev,
             short_number(r->reads_s, 6, rd), short_number(r->writes_s, 6, wr), short_number(r->read_mib_s, 6, rb),
             short_number(r->write_mib_s, 6, wb), short_number(r->average_us, 6, avg), short_number(r->p99_us, 6, p99),
             MIN(r->notifications_request, 9.99), r->in_flight, dma, short_number((double)r->problems, 5, errors));
}

void top_format_row(const struct top_row *row, char out[TOP_LINE_BYTES])
{
    char dma[20];
    blkstat_dma(row->disk, dma, sizeof(dma));
    format(out, row->disk->domain, row->disk->vdev, dma, &row->rate);
}

void top_format_sum(const struct top *t, char out[TOP_LINE_BYTES])
{
    double iops = 0, mib_s = 0;
    uint64_t in_flight = 0, problems = 0;
    for (unsigned i = 0; i < t->now.count; i++) {
        const struct blkrate *r = &t->rows[i].rate;
        iops += r->reads_s + r->writes_s;
        mib_s += r->read_mib_s + r->write_mib_s;
        in_flight += r->in_flight;
        problems += r->problems;
    }
    snprintf(out, TOP_LINE_BYTES, "%u disk%s: %.0f requests/s, %.1f MiB/s, %" PRIu64 " in flight, %" PRIu64 " errors",
             t->now.count, t->now.count == 1 ? "" : "s", iops, mib_s, in_flight, problems);
}
