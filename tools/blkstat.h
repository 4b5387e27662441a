/* SPDX-License-Identifier: MIT */
/* tools/blkstat.h: the block role's statistics, read from its socket (xenbus/stats_blk.h), and the forms in which they
 * are printed. Numbers and names are the role's; domains' names are the hypervisor's. */
#ifndef TOOLS_BLKSTAT_H
#define TOOLS_BLKSTAT_H

#include <stdio.h>

#include "tools/tool.h"
#include "xenbus/stats_blk.h"

struct blkstat {
    char domain[64]; /* its name; its number where it has none */
    char vdev[16];
    struct stats_blk_reply r;
    struct stats_blk_reply *queue; /* by blkstat_read_queues() */
    unsigned queue_count;
};

struct blkstat_list {
    struct blkstat *disk; /* in order of (domid, devid) */
    unsigned count;
};

/* What is asked for: all disks, a domain's, or one. */
struct blkstat_filter {
    bool one_domain, one_disk;
    uint32_t domid, devid;
};

/* Connects, asks, hangs up: 0, or -errno with a sentence; -ENOENT where the one disk is not there. */
int blkstat_read(struct tool *t, const struct blkstat_filter *filter, struct blkstat_list *out, struct err *e);
/* Without the domains' names: needs no connection to the hypervisor. */
int blkstat_read_numbers(const char *run_dir, const struct blkstat_filter *filter, struct blkstat_list *out,
                         struct err *e);
/* And of each disk's queues, as many as are connected now. */
int blkstat_read_queues(const char *run_dir, struct blkstat_list *l, struct err *e);
void blkstat_free(struct blkstat_list *l);

/* "dma", with '!' behind it where the kernel refused to register memory, and '?' before it where it is unsafe. */
void blkstat_dma(const struct blkstat *d, char *out, size_t size);
/* The numbers as JSON members, in braces. */
void blkstat_json_numbers(FILE *f, const struct stats_blk *s);
void blkstat_json(FILE *f, const struct blkstat_list *l);
/* Prometheus' text exposition format, 0.0.4. */
void blkstat_prometheus(FILE *f, const struct blkstat_list *l);

#endif
