/* SPDX-License-Identifier: MIT */
/* xenbus/keys_blk_qos.h: how fast a disk may be used, as the toolstack says it: domzero/{iops,iops-burst,bytes,
 * bytes-burst} of the backend's directory. Each is a decimal number and may be missing; 0 is no limit, and for a burst
 * the default: a tenth of a second's worth, and never less than one request.
 */
#ifndef XENBUS_KEYS_BLK_QOS_H
#define XENBUS_KEYS_BLK_QOS_H

#include "xenbus/device.h"

#define KEYS_BLK_QOS_MAX             INT64_MAX
#define KEYS_BLK_QOS_BYTES_BURST_MIN (1u << 20) /* the longest request: 256 segments of a page */

struct keys_blk_qos {
    uint64_t iops, iops_burst;   /* requests a second, and at once */
    uint64_t bytes, bytes_burst; /* read and written a second, and at once */
};

/* The four of them as a table: name below domzero/, and where it lies in the struct. */
struct keys_blk_qos_key {
    const char *name;
    size_t offset;
};
#define KEYS_BLK_QOS_KEYS 4
extern const struct keys_blk_qos_key keys_blk_qos_keys[KEYS_BLK_QOS_KEYS];
static inline uint64_t *keys_blk_qos_value(struct keys_blk_qos *q, const struct keys_blk_qos_key *key)
{
    return (uint64_t *)(void *)((char *)q + key->offset);
}

/* 0; -EINVAL with a sentence: a burst without its rate, or one that is smaller than a request. */
int keys_blk_qos_check(const struct keys_blk_qos *q, struct err *e);
/* What the burst is, defaults applied. */
uint64_t keys_blk_qos_iops_burst(const struct keys_blk_qos *q);
uint64_t keys_blk_qos_bytes_burst(const struct keys_blk_qos *q);

/* Of and into `dir`/domzero. Read judges each number and all together. */
int keys_blk_qos_read(struct store_client *c, const char *back_dir, struct keys_blk_qos *out, struct err *e);
int keys_blk_qos_write(struct store_client *c, store_tx tx, const char *back_dir, const struct keys_blk_qos *q,
                       struct err *e);

#endif
