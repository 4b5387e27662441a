/* SPDX-License-Identifier: MIT */
#include "xenbus/keys_blk_qos.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "xenbus/keys.h"

#define BURST_SHARE 10 /* of a second, where no burst is given */

#define KEY(key_name, member)                           \
    {                                                   \
        key_name, offsetof(struct keys_blk_qos, member) \
    }
const struct keys_blk_qos_key keys_blk_qos_keys[KEYS_BLK_QOS_KEYS] = {
    KEY("iops", iops),
    KEY("iops-burst", iops_burst),
    KEY("bytes", bytes),
    KEY("bytes-burst", bytes_burst),
};
#undef KEY

int keys_blk_qos_check(const struct keys_blk_qos *q, struct err *e)
{
    if (q->iops_burst && !q->iops)
        return err_set(e, -EINVAL, "iops-burst says nothing without iops: give both, or iops-burst=0");
    if (q->bytes_burst && !q->bytes)
        return err_set(e, -EINVAL, "bytes-burst says nothing without bytes: give both, or bytes-burst=0");
    if (q->bytes_burst && q->bytes_burst < KEYS_BLK_QOS_BYTES_BURST_MIN)
        return err_set(e, -EINVAL, "bytes-burst %" PRIu64 " is less than one request may have: give at least %u",
                       q->bytes_burst, KEYS_BLK_QOS_BYTES_BURST_MIN);
    return 0;
}

uint64_t keys_blk_qos_iops_burst(const struct keys_blk_qos *q)
{
    return q->iops_burst ? q->iops_burst : MAX(q->iops / BURST_SHARE, (uint64_t)1);
}

uint64_t keys_blk_qos_bytes_burst(const struct keys_blk_qos *q)
{
    return q->bytes_burst ? q->bytes_burst : MAX(q->bytes / BURST_SHARE, (uint64_t)KEYS_BLK_QOS_BYTES_BURST_MIN);
}

int keys_blk_qos_read(struct store_client *c, const char *back_dir, struct keys_blk_qos *out, struct err *e)
{
    struct keys_blk_qos q = {0};
    for (unsigned i = 0; i < KEYS_BLK_QOS_KEYS; i++) {
        char name[32];
        snprintf(name, sizeof(name), "domzero/%s", keys_blk_qos_keys[i].name);
        const struct xb_key key = {.name = name, .max = KEYS_BLK_QOS_MAX};
        int r = xb_key_read(c, STORE_NO_TX, back_dir, &key, keys_blk_qos_value(&q, &keys_blk_qos_keys[i]), e);
        if (r)
            return r;
    }
    int r = keys_blk_qos_check(&q, e);
    if (r)
        return err_prefix(e, r, "%s/domzero", back_dir);
    *out = q;
    return 0;
}

int keys_blk_qos_write(struct store_client *c, store_tx tx, const char *back_dir, const struct keys_blk_qos *q,
                       struct err *e)
{
    struct keys_blk_qos copy = *q;
    for (unsigned i = 0; i < KEYS_BLK_QOS_KEYS; i++) {
        char name[32];
        snprintf(name, sizeof(name), "domzero/%s", keys_blk_qos_keys[i].name);
        uint64_t value = *keys_blk_qos_value(&copy, &keys_blk_qos_keys[i]);
        int r =
            value ? store_printf(c, tx, back_dir, name, "%" PRIu64, value) : store_rm(c, tx, "%s/%s", back_dir, name);
        if (r < 0)
            return err_set(e, r, "cannot write %s/%s: %s", back_dir, name, strerror(-r));
    }
    return 0;
}
