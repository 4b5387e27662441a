/* SPDX-License-Identifier: MIT */
/* tools/top.c: `domzero top`: what disks do now, in xentop's manner; on a terminal, or as text for scripts. */
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "base/parse.h"
#include "tools/top.h"
#include "tools/verb.h"

static void print_round(const struct top *t)
{
    char line[TOP_LINE_BYTES];
    top_format_sum(t, line);
    printf("%s\n", line);
    top_format_head(line);
    printf("%s\n", line);
    for (unsigned i = 0; i < t->now.count; i++) {
        top_format_row(&t->rows[i], line);
        printf("%s\n", line);
    }
    printf("\n");
    fflush(stdout);
}

static int batch_run(struct top *t, uint64_t rounds, struct err *e)
{
    int rc = top_look(t, e);
    for (uint64_t i = 0; i < rounds && !rc; i++) {
        poll(NULL, 0, (int)(t->delay_s * 1000));
        rc = top_look(t, e);
        if (!rc)
            print_round(t);
    }
    return rc;
}

/* 0, -EINVAL with a sentence, or VERB_USAGE. */
static int options_parse(int *argc, char **argv, struct top *t, uint64_t *rounds, struct err *e)
{
    const char *batch = NULL, *delay = NULL, *sort = NULL;
    if (tool_option(argc, argv, "--batch", &batch) < 0 || tool_option(argc, argv, "--delay", &delay) < 0 ||
        tool_option(argc, argv, "--sort", &sort) < 0 || *argc)
        return VERB_USAGE;
    if (batch && parse_u64(batch, 1, UINT32_MAX, rounds))
        return err_set(e, -EINVAL, "--batch %.40s: a number of rounds, 1 or more", batch);
    if (delay && top_delay_parse(delay, &t->delay_s))
        return err_set(e, -EINVAL, "--delay %.40s: seconds, %.1f to %.0f", delay, TOP_DELAY_MIN_S, TOP_DELAY_MAX_S);
    if (sort && top_sort_parse(sort, &t->sort))
        return err_set(e, -EINVAL, "--sort %.40s: domain, iops, bytes, latency or errors", sort);
    return 0;
}

static int top_run(struct tool *tool, int argc, char **argv, struct err *e)
{
    struct top t = {.tool = tool, .delay_s = TOP_DELAY_S, .sort = TOP_BY_DOMAIN};
    uint64_t rounds = 0;
    int r = options_parse(&argc, argv, &t, &rounds, e);
    if (r)
        return r;
    if (!rounds && (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)))
        return err_set(e, -ENOTTY, "this is no terminal: use --batch N");
    r = rounds ? batch_run(&t, rounds, e) : top_screen_run(&t, e);
    top_deinit(&t);
    return r;
}

const struct verb verb_top = {
    .name = "top",
    .arguments = "[--batch N] [--delay SECONDS] [--sort domain|iops|bytes|latency|errors]",
    .summary = "watch what disks do",
    .help =
        "Reads and writes (flushes among them) a second, MiB a second, average and 99th percentile of the latency "
        "over\n"
        "the interval, notifications in both directions for each request, requests in flight, the DMA strategy ('!':\n"
        "memory could not be registered; '?' before it: UNSAFE, guests may reach each other's memory), and errors "
        "since the disk was attached.\n"
        "Keys: q quit, s sort by the next column, d change the delay. --batch prints N rounds as text.\n",
    .run = top_run,
};
