/* SPDX-License-Identifier: MIT */
#include "tools/blkstat.h"

#include <inttypes.h>
#include <string.h>
#include <sys/socket.h>

#include "base/unixsock.h"
#include "tools/json.h"
#include "xenbus/keys_blk.h"

static int list_append_reply(struct blkstat_list *l, const struct stats_blk_reply *r)
{
    struct blkstat *grown = realloc(l->disk, (l->count + 1) * sizeof(*grown));
    if (!grown)
        return -ENOMEM;
    l->disk = grown;
    struct blkstat *d = &grown[l->count++];
    *d = (struct blkstat){.r = *r};
    snprintf(d->domain, sizeof(d->domain), "%" PRIu32, r->domid);
    keys_blk_vdev(r->devid, d->vdev, sizeof(d->vdev));
    json_plain(d->r.dma);
    json_plain(d->r.format);
    return 0;
}

static uint64_t place(uint32_t domid, uint32_t devid)
{
    return (uint64_t)domid << 32 | devid;
}

static bool filter_takes(const struct blkstat_filter *f, const struct stats_blk_reply *r)
{
    return (!f->one_domain || r->domid == f->domid) && (!f->one_disk || r->devid == f->devid);
}

/* Behind what the filter can take, in the order of the replies. */
static bool filter_done(const struct blkstat_filter *f, const struct stats_blk_reply *r)
{
    return f->one_domain && place(r->domid, r->devid) >= place(f->domid, f->one_disk ? f->devid : UINT32_MAX);
}

static int ask_all(int fd, const struct blkstat_filter *f, struct blkstat_list *l, struct err *e)
{
    struct stats_blk_reply r = {0};
    struct stats_blk_query q =
        f->one_domain && f->domid > 0 ? stats_blk_after(f->domid - 1, UINT32_MAX) : stats_blk_first();
    while (!filter_done(f, &r)) {
        int rc = stats_blk_ask(fd, &q, &r, e);
        if (rc <= 0)
            return rc;
        if (filter_takes(f, &r) && list_append_reply(l, &r))
            return err_set(e, -ENOMEM, "out of memory");
        struct stats_blk_query next = stats_blk_after(r.domid, r.devid);
        if (!q.all && place(r.domid, r.devid) <= place(q.domid, q.devid))
            return err_set(e, -EPROTO, "the block role's answers are out of order");
        q = next;
    }
    return 0;
}

/* A descriptor, or -errno with a sentence. */
static int role_connect(const char *run_dir, struct err *e)
{
    char path[TOOL_PATH_MAX + sizeof(STATS_BLK_SOCKET) + 1];
    snprintf(path, sizeof(path), "%s/%s", run_dir, STATS_BLK_SOCKET);
    int fd = unixsock_connect(path, SOCK_SEQPACKET, e);
    if (fd == -ENOENT || fd == -ECONNREFUSED)
        return err_set(e, fd, "no block role serves %s now: start domzerod there, or try again if it is just starting",
                       run_dir);
    return fd;
}

int blkstat_read_numbers(const char *run_dir, const struct blkstat_filter *filter, struct blkstat_list *out,
                         struct err *e)
{
    *out = (struct blkstat_list){0};
    _cleanup_close_ int fd = role_connect(run_dir, e);
    if (fd < 0)
        return fd;
    int rc = ask_all(fd, filter, out, e);
    if (!rc && filter->one_disk && !out->count)
        rc = err_set(e, -ENOENT,
                     "domain %" PRIu32 " has no such disk; `domzero block-list %" PRIu32 "` shows those it has",
                     filter->domid, filter->domid);
    if (rc)
        blkstat_free(out);
    return rc;
}

/* Queues that went since the disk was asked about are left out. */
static int ask_queues(int fd, struct blkstat *d, struct err *e)
{
    d->queue = calloc(d->r.stats.queues + 1, sizeof(*d->queue));
    if (!d->queue)
        return err_set(e, -ENOMEM, "out of memory");
    for (unsigned i = 0; i < d->r.stats.queues; i++) {
        struct stats_blk_query q = stats_blk_of_queue(d->r.domid, d->r.devid, i);
        int rc = stats_blk_ask(fd, &q, &d->queue[d->queue_count], e);
        if (rc < 0)
            return rc;
        d->queue_count += rc > 0;
    }
    return 0;
}

int blkstat_read_queues(const char *run_dir, struct blkstat_list *l, struct err *e)
{
    _cleanup_close_ int fd = role_connect(run_dir, e);
    int rc = MIN(fd, 0);
    for (unsigned i = 0; i < l->count && !rc; i++)
        rc = ask_queues(fd, &l->disk[i], e);
    return rc;
}

static void name_visit(void *ctx, const struct platform_domain *domain)
{
    struct blkstat_list *l = ctx;
    for (unsigned i = 0; i < l->count; i++)
        if (l->disk[i].r.domid == domain->domid && !domain->dying)
            snprintf(l->disk[i].domain, sizeof(l->disk[i].domain), "%s", domain->name);
}

int blkstat_read(struct tool *t, const struct blkstat_filter *filter, struct blkstat_list *out, struct err *e)
{
    int rc = tool_open(t, e);
    if (!rc)
        rc = blkstat_read_numbers(t->run_dir, filter, out, e);
    if (!rc)
        rc = platform_domain_list(t->platform, name_visit, out, e);
    if (rc)
        blkstat_free(out);
    return rc;
}

void blkstat_free(struct blkstat_list *l)
{
    for (unsigned i = 0; i < l->count; i++)
        free(l->disk[i].queue);
    free(take_ptr(l->disk));
    l->count = 0;
}

void blkstat_dma(const struct blkstat *d, char *out, size_t size)
{
    snprintf(out, size, "%s%s%s", d->r.stats.dma_unsafe ? "?" : "", d->r.dma, d->r.stats.dma_plain ? "!" : "");
}
