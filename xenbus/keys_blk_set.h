/* SPDX-License-Identifier: MIT */
/* xenbus/keys_blk_set.h: how a disk that runs is changed: the toolstack asks, the backend does it and answers.
 *
 *   toolstack → backend's dir   domzero/set/{readonly,size,dma,poll,iops,iops-burst,bytes,bytes-burst}, those that are
 *                               to change, and domzero/set/id, a word of its choice; all in one transaction
 *   backend → its dir           in one transaction: what is in force now, as keys_blk.h has it; domzero/set removed;
 *                               domzero/done, the id; domzero/error, what was refused and why, or removed
 *
 * So what is configured is always what was in force last, and what is asked for outlives a backend that dies before it
 * has answered: its successor does it. Doing it twice does no harm. What was refused leaves the disk as it was.
 *
 * Only dom0 writes there. A value that cannot be, or a name that is none, is refused like one that cannot be had.
 */
#ifndef XENBUS_KEYS_BLK_SET_H
#define XENBUS_KEYS_BLK_SET_H

#include "xenbus/keys_blk.h"

struct keys_blk_set {
    char id[24]; /* "": whoever asked does not wait for an answer */
    bool has_readonly, readonly;
    uint64_t size_bytes; /* 0: not to change */
    char dma[16];        /* "": not to change */
    bool has_poll;
    char poll[16]; /* "default": as the role does */
    bool has_qos[KEYS_BLK_QOS_KEYS];
    struct keys_blk_qos qos; /* 0: no limit */
};

/* -EBUSY with a sentence where another change waits. */
int keys_blk_set_write(struct store_client *c, store_tx tx, const char *back_dir, const struct keys_blk_set *set,
                       struct err *e);
/* -ENOENT, without a sentence: nothing is asked for. On other failures out->id is still set, where there is one. */
int keys_blk_set_read(struct store_client *c, store_tx tx, const char *back_dir, struct keys_blk_set *out,
                      struct err *e);
/* Takes the request away with it. `why` "": all was done. */
int keys_blk_set_answer(struct store_client *c, store_tx tx, const char *back_dir, const char *id, const char *why,
                        struct err *e);
/* 0: that one is done; -EIO: it was refused, with the backend's sentence; -EAGAIN: not yet. */
int keys_blk_set_answered(struct store_client *c, const char *back_dir, const char *id, struct err *e);

/* The rates that result, of those there are and those that are asked for. */
struct keys_blk_qos keys_blk_set_qos(const struct keys_blk_set *set, const struct keys_blk_qos *now);

#endif
