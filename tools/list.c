/* SPDX-License-Identifier: MIT */
/* tools/list.c: `domzero list`. */
#include <inttypes.h>
#include <stdio.h>

#include "tools/json.h"
#include "tools/vbd.h"
#include "tools/verb.h"

struct listing {
    struct tool *t;
    bool json, any;
    int failure;
    struct err *e;
};

static const char *domain_state(const struct platform_domain *d)
{
    return d->dying ? "dying" : d->instances ? "running" : "paused";
}

/* The names of a domain's disks as "xvda xvdb" or as JSON strings. */
static void print_disks(FILE *f, const uint32_t *devids, int count, bool json)
{
    for (int i = 0; i < count; i++) {
        char vdev[16];
        keys_blk_vdev(devids[i], vdev, sizeof(vdev));
        fprintf(f, json ? "%s\"%s\"" : "%s%s", i ? (json ? ", " : " ") : "", vdev);
    }
}

static uint64_t kib(uint64_t frames)
{
    return frames * PAGE_BYTES / 1024;
}

static void print_json(const struct platform_domain *d, const uint32_t *devids, int count, bool first)
{
    printf("%s\n  {\"domid\": %u", first ? "" : ",", d->domid);
    json_member(stdout, false, "name", d->name);
    json_member(stdout, false, "state", domain_state(d));
    printf(", \"processes\": %" PRIu32 ", \"memory_kib\": %" PRIu64 ", \"held_extents\": %" PRIu32, d->instances,
           kib(d->frames), d->held_extents);
    printf(", \"extents\": %" PRIu32 ", \"grant_frames\": %" PRIu32 ", \"ports\": %" PRIu32 ", \"refusals\": %" PRIu64,
           d->extents, d->grant_frames, d->ports, d->refusals);
    printf(", \"disks\": [");
    print_disks(stdout, devids, count, true);
    printf("]}");
}

static void list_visit(void *ctx, const struct platform_domain *d)
{
    struct listing *l = ctx;
    _cleanup_free_ uint32_t *devids = NULL;
    int count = vbd_list(l->t->store, d->domid, &devids, l->e);
    if (count < 0) {
        l->failure = count;
        count = 0;
    }
    if (l->json) {
        print_json(d, devids, count, !l->any);
    } else {
        printf("%-24s %5u  %-5c %10" PRIu64 " %5" PRIu32 "  ", d->name, d->domid,
               d->dying       ? 'd'
               : d->instances ? 'r'
                              : 'p',
               kib(d->frames), d->held_extents);
        print_disks(stdout, devids, count, false);
        printf("\n");
    }
    l->any = true;
}

static int list_run(struct tool *t, int argc, char **argv, struct err *e)
{
    struct listing l = {.t = t, .json = tool_flag(&argc, argv, "--json"), .e = e};
    if (argc)
        return VERB_USAGE;
    int r = tool_open(t, e);
    if (r < 0)
        return r;
    if (l.json)
        printf("[");
    else
        printf("%-24s %5s  %-5s %10s %5s  %s\n", "Name", "ID", "State", "Mem(KiB)", "Held", "Disks");
    r = platform_domain_list(t->platform, list_visit, &l, e);
    if (l.json)
        printf("%s]\n", l.any ? "\n" : "");
    return r ? r : l.failure;
}

const struct verb verb_list = {
    .name = "list",
    .arguments = "[--json]",
    .summary = "show the domains",
    .help = "State: r where a process of it is connected, p where there is none, d where it was destroyed and a "
            "backend still\n"
            "holds its memory. Mem is what the domain has made for sharing, Held the number of its pieces that others "
            "hold.\n",
    .run = list_run,
};
