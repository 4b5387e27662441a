/* SPDX-License-Identifier: MIT */
#include "xenbus/stats_blk.h"

#include <string.h>
#include <sys/socket.h>

#include "base/unixsock.h"

const struct stats_blk_row stats_blk_rows[] = {
#define COUNTER(name, help) {#name, help, false, offsetof(struct stats_blk, name)},
#define GAUGE(name, help)   {#name, help, true, offsetof(struct stats_blk, name)},
#include "xenbus/stats_blk_list.h"
#undef COUNTER
#undef GAUGE
};

const unsigned stats_blk_row_count = ARRAY_SIZE(stats_blk_rows);

const char *stats_blk_op_name(enum stats_blk_op op)
{
    static const char *const names[STATS_BLK_OPS] = {[STATS_BLK_READ] = "read",
                                                     [STATS_BLK_WRITE] = "write",
                                                     [STATS_BLK_FLUSH] = "flush",
                                                     [STATS_BLK_DISCARD] = "discard",
                                                     [STATS_BLK_ZEROES] = "write_zeroes"};
    assert(op < STATS_BLK_OPS);
    return names[op];
}

uint64_t stats_blk_batch_max(unsigned bucket)
{
    assert(bucket < STATS_BLK_BATCHES);
    return bucket == STATS_BLK_BATCHES - 1 ? UINT64_MAX : (2ull << bucket) - 1;
}

/* ---- arithmetic: `sign` is 1 or -1, in wrapping numbers ---- */

static void kinds_add(struct stats_blk_kind *to, const struct stats_blk_kind *from, unsigned count, uint64_t sign)
{
    for (unsigned i = 0; i < count; i++) {
        to[i].count += sign * from[i].count;
        memcpy(to[i].name, from[i].name, sizeof(to[i].name));
    }
}

static void stats_combine(struct stats_blk *to, const struct stats_blk *from, uint64_t sign)
{
    for (unsigned i = 0; i < stats_blk_row_count; i++)
        if (!stats_blk_rows[i].gauge)
            *(uint64_t *)(void *)((char *)to + stats_blk_rows[i].offset) +=
                sign * stats_blk_value(from, &stats_blk_rows[i]);
    for (unsigned i = 0; i < STATS_BLK_BATCHES; i++)
        to->batch[i] += sign * from->batch[i];
    for (unsigned op = 0; op < STATS_BLK_OPS; op++) {
        to->latency[op].sum_ns += sign * from->latency[op].sum_ns;
        for (unsigned i = 0; i < LOGHIST_BUCKETS; i++)
            to->latency[op].bucket[i] += sign * from->latency[op].bucket[i];
    }
    kinds_add(to->error, from->error, STATS_BLK_KINDS, sign);
    kinds_add(to->fault, from->fault, STATS_BLK_FAULTS, sign);
}

void stats_blk_add(struct stats_blk *to, const struct stats_blk *from)
{
    stats_combine(to, from, 1);
}

void stats_blk_subtract(struct stats_blk *from, const struct stats_blk *before)
{
    stats_combine(from, before, (uint64_t)-1);
}

/* ---- the socket ---- */

struct stats_blk_query stats_blk_first(void)
{
    return (struct stats_blk_query){.magic = STATS_BLK_MAGIC, .length_bytes = sizeof(struct stats_blk_query), .all = 1};
}

struct stats_blk_query stats_blk_after(uint32_t domid, uint32_t devid)
{
    struct stats_blk_query q = stats_blk_first();
    q.all = 0;
    q.domid = domid;
    q.devid = devid;
    return q;
}

struct stats_blk_query stats_blk_of_queue(uint32_t domid, uint32_t devid, uint32_t queue)
{
    struct stats_blk_query q = stats_blk_after(domid, devid);
    q.queue = queue + 1;
    return q;
}

static void kinds_terminate(struct stats_blk_kind *kind, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        kind[i].name[sizeof(kind[i].name) - 1] = 0;
}

int stats_blk_ask(int fd, const struct stats_blk_query *query, struct stats_blk_reply *out, struct err *e)
{
    int rc = unixsock_send(fd, query, sizeof(*query), NULL, 0, 0);
    if (rc)
        return err_set(e, rc, "the block role's statistics cannot be asked for: %s", strerror(-rc));
    ssize_t n = unixsock_recv(fd, out, sizeof(*out), NULL, NULL, 0);
    if (n == 0)
        return err_set(e, -EPIPE,
                       "the block role hung up: it was stopped, is another version, or has too many readers");
    if (n < 0 && n != -EMSGSIZE)
        return err_set(e, (int)n, "the block role's statistics cannot be read: %s", strerror((int)-n));
    if (n != sizeof(*out) || out->magic != STATS_BLK_MAGIC || out->length_bytes != sizeof(*out))
        return err_set(e, -EPROTO,
                       "the block role speaks another version's statistics: use the domzero of its version");
    out->dma[sizeof(out->dma) - 1] = 0;
    out->format[sizeof(out->format) - 1] = 0;
    kinds_terminate(out->stats.error, STATS_BLK_KINDS);
    kinds_terminate(out->stats.fault, STATS_BLK_FAULTS);
    return out->found != 0;
}
