/* SPDX-License-Identifier: MIT */
/* tools/top.h: what `domzero top` shows, as lines of text; a terminal (top_screen.c) or a script (top.c) shows them.
 *
 * A `struct top` keeps the last look at all disks and makes rows of what changed until the next one. Looking costs the
 * data path nothing: tools/blkstat.h.
 */
#ifndef TOOLS_TOP_H
#define TOOLS_TOP_H

#include "tools/blkrate.h"
#include "tools/blkstat.h"

#define TOP_LINE_BYTES    160
#define TOP_DELAY_S       2.0 /* between two looks */
#define TOP_DELAY_MIN_S   0.1
#define TOP_DELAY_MAX_S   3600.0
#define TOP_FIRST_DELAY_S 0.5 /* a person waits for the first rows */

enum top_sort { TOP_BY_DOMAIN, TOP_BY_IOPS, TOP_BY_BYTES, TOP_BY_LATENCY, TOP_BY_ERRORS, TOP_SORTS };

struct top_row {
    const struct blkstat *disk; /* in top.now */
    struct blkrate rate;
};

struct top {
    struct tool *tool;
    double delay_s;
    enum top_sort sort;
    struct blkstat_list now;
    struct top_row *rows; /* now.count of them, sorted; NULL before the first look */
};

/* Looks: rows of what changed since the last look, of a disk that was not there then since it was attached. 0, or
 * -errno with a sentence; then the last look stands. */
int top_look(struct top *t, struct err *e);
void top_sort_rows(struct top *t);
void top_deinit(struct top *t);

const char *top_sort_name(enum top_sort sort); /* "iops" */
int top_sort_parse(const char *name, enum top_sort *out);
/* Seconds between the limits: 0 or -EINVAL. */
int top_delay_parse(const char *text, double *out);

void top_format_head(char out[TOP_LINE_BYTES]);
void top_format_row(const struct top_row *row, char out[TOP_LINE_BYTES]);
/* The sums over all disks. */
void top_format_sum(const struct top *t, char out[TOP_LINE_BYTES]);

/* Shows it on the terminal until q is pressed: 0, or -errno with a sentence. */
int top_screen_run(struct top *t, struct err *e);

#endif
