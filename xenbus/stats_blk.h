/* SPDX-License-Identifier: MIT */
/* xenbus/stats_blk.h: what a backend tells the toolstack about its disks, and the messages by which it does.
 *
 * The numbers are rows of stats_blk_list.h and so members of `struct stats_blk`; beside them are latencies by
 * operation, sizes of batches, and errors with their names, which come with the message, so that who reads them needs
 * to know no table of the backend's. All numbers are since the device was first seen by the role (`since_ns`), over all
 * connections of its frontend.
 *
 * The socket RUN_DIR/blk-stats.sock is the blk role's, mode 0600, SEQPACKET. One query, one reply: the disk with the
 * least (domid, devid) above those of the query, or a reply that says that there is none. Who wants one disk asks for
 * what is above its predecessor; who wants all goes on from each answer; who wants one queue of a disk names both. So
 * the role keeps no state for a reader and does a bounded piece of work at a time. Both ends check magic and length: a
 * role of another version is an error with a sentence and not a wrong number. The layout is that of this machine.
 *
 * The reply comes from dom0's own role, is of fixed size, and its strings are terminated by the reader.
 */
#ifndef XENBUS_STATS_BLK_H
#define XENBUS_STATS_BLK_H

#include "base/err.h"
#include "base/loghist.h"

#define STATS_BLK_SOCKET     "blk-stats.sock"
#define STATS_BLK_MAGIC      0x32424b53u /* changes with any layout below; a new row of the list changes the length */
#define STATS_BLK_BATCHES    8           /* 1, 2…3, 4…7 … 128 and more responses */
#define STATS_BLK_KINDS      24          /* of errors */
#define STATS_BLK_FAULTS     8
#define STATS_BLK_BUS_FAULTS 16

enum stats_blk_op {
    STATS_BLK_READ,
    STATS_BLK_WRITE,
    STATS_BLK_FLUSH,
    STATS_BLK_DISCARD,
    STATS_BLK_ZEROES,
    STATS_BLK_OPS
};

struct stats_blk_latency {
    uint64_t sum_ns;
    uint64_t bucket[LOGHIST_BUCKETS];
};

struct stats_blk_kind {
    char name[24]; /* "request_range"; "": no more of them */
    uint64_t count;
};

struct stats_blk {
#define COUNTER(name, help) uint64_t name;
#define GAUGE(name, help)   uint64_t name;
#include "xenbus/stats_blk_list.h"
#undef COUNTER
#undef GAUGE
    uint64_t batch[STATS_BLK_BATCHES];
    struct stats_blk_latency latency[STATS_BLK_OPS]; /* of requests that got as far as the image */
    struct stats_blk_kind error[STATS_BLK_KINDS];    /* they sum up to `errors` */
    struct stats_blk_kind fault[STATS_BLK_FAULTS];   /* what closed the device */
};

/* The list as a table. */
struct stats_blk_row {
    const char *name, *help;
    bool gauge;
    size_t offset; /* in struct stats_blk */
};
extern const struct stats_blk_row stats_blk_rows[];
extern const unsigned stats_blk_row_count;

static inline uint64_t stats_blk_value(const struct stats_blk *s, const struct stats_blk_row *row)
{
    return *(const uint64_t *)(const void *)((const char *)s + row->offset);
}

const char *stats_blk_op_name(enum stats_blk_op op); /* "read" */
/* The bucket of a batch of n > 0 responses, and the most that it holds (UINT64_MAX: the last one). */
static inline unsigned stats_blk_batch(uint32_t n)
{
    unsigned e = 31u - (unsigned)__builtin_clz(n);
    return MIN(e, STATS_BLK_BATCHES - 1u);
}
uint64_t stats_blk_batch_max(unsigned bucket);

/* Adds what was counted (gauges are left as they are). Kinds of errors stand in the same order in both. */
void stats_blk_add(struct stats_blk *to, const struct stats_blk *from);
/* Takes what was counted before away, so that an interval is left; gauges stay. `before` is of the same device,
 * earlier.
 */
void stats_blk_subtract(struct stats_blk *from, const struct stats_blk *before);

/* ---- the socket ---- */

struct stats_blk_query {
    uint32_t magic, length_bytes;
    uint32_t all;   /* 1: the first disk of all; 0: the first above these */
    uint32_t domid; /* the frontend's */
    uint32_t devid;
    uint32_t queue; /* 0: the disk; n: queue n - 1 of just this disk, since it was connected */
};

/* What the IOMMU refused the device. */
struct stats_blk_bus_fault {
    uint64_t at_ns, address; /* monotonic; bus address in bytes */
    uint32_t write;          /* the device was to write memory */
    char reason[20];         /* "not-present" */
};

struct stats_blk_reply {
    uint32_t magic, length_bytes;
    uint32_t found;        /* 0: there is none, and all that follows is zero */
    uint32_t domid, devid; /* the frontend's */
    uint32_t state;        /* the backend's XenbusState */
    uint32_t queue;        /* as it was asked for */
    uint32_t reactor;      /* that serves this queue */
    char dma[16], format[16];
    uint64_t since_ns, now_ns; /* monotonic */
    uint32_t bus_fault_count;  /* of the disk, not of its queues */
    uint32_t padding;
    struct stats_blk_bus_fault bus_fault[STATS_BLK_BUS_FAULTS]; /* the last ones, the oldest first */
    struct stats_blk stats;
};

/* Asks on a connected socket: 1 and *out, 0 where there is none, or -errno with a sentence. */
int stats_blk_ask(int fd, const struct stats_blk_query *query, struct stats_blk_reply *out, struct err *e);
/* The query for the first disk of all, and for the one behind (domid, devid). */
struct stats_blk_query stats_blk_first(void);
struct stats_blk_query stats_blk_after(uint32_t domid, uint32_t devid);
/* For a queue of a disk, from 0. */
struct stats_blk_query stats_blk_of_queue(uint32_t domid, uint32_t devid, uint32_t queue);

#endif
