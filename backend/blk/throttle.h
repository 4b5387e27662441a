/* SPDX-License-Identifier: MIT */
/* backend/blk/throttle.h: how fast a disk may be used: token buckets for requests and for bytes.
 *
 * A bucket fills with `rate` tokens a second up to its depth. A request may begin while neither bucket is in debt; it
 * is charged when its size is known, so it may leave debt behind, which has to be filled up before the next one begins.
 * A depth of burst - largest, `largest` being the most that one request can cost, makes this exact: in any window of t
 * seconds what was admitted is at most rate * t + burst, whatever the sizes. Numbers are whole and remainders kept, so
 * nothing drifts, and products have 128 bits, so nothing wraps.
 *
 * A write-zeroes costs more than `largest`: up to 32 MiB, of which what is over 1 MiB may come on top of that bound,
 * once, and is paid for before anything else begins.
 *
 * A rate of 0 is no limit. A change begins with an empty bucket and forgets debts: one of a slow rate would be felt for
 * days at a fast one.
 *
 * A throttle belongs to a device and is shared by its queues, on whatever threads: a lock of its own, held for some
 * additions, which only devices with a limit ever take. Queues that find tokens at the same moment may begin a request
 * each: with n of them bytes are bounded by rate * t + burst + (n - 1) * THROTTLE_REQUEST_BYTES_MAX. Time is the
 * caller's; one that goes back, as between threads that read the clock at different moments, counts as no time.
 */
#ifndef BLK_THROTTLE_H
#define BLK_THROTTLE_H

#include <pthread.h>

#include "base/util.h"
#include "xenbus/keys_blk_qos.h"

#define THROTTLE_REQUEST_BYTES_MAX KEYS_BLK_QOS_BYTES_BURST_MIN
/* Who is out of tokens waits until there are some for this long, or half a bucket: not one timer for each request. */
#define THROTTLE_NAP_NS  1000000
#define THROTTLE_WAIT_NS 1000000000ull /* the longest wait that is given at a time */

struct bucket {
    uint64_t rate;   /* tokens a second; 0: no limit */
    int64_t depth;   /* most that can be saved, counted from 0, where one request may still begin */
    int64_t level;   /* below 0: in debt */
    uint64_t rest;   /* of a token, in units of 1/10^9 */
    uint64_t now_ns; /* up to when it was filled */
};

/* rate and burst up to INT64_MAX; `largest` >= 1: of one charge, and burst is at least that (less is taken as that). */
void bucket_init(struct bucket *b, uint64_t rate, uint64_t burst, uint64_t largest, uint64_t now_ns);
/* May something begin? */
bool bucket_ready(struct bucket *b, uint64_t now_ns);
void bucket_charge(struct bucket *b, uint64_t tokens); /* at most `largest`, where the bound is to be exact */
/* How long until something may begin, rounded up so that it is worth a timer; THROTTLE_WAIT_NS at the most. */
uint64_t bucket_wait_ns(const struct bucket *b);

struct throttle {
    pthread_mutex_t lock;
    struct bucket requests, bytes;
};

void throttle_init(struct throttle *t); /* without limits */
void throttle_deinit(struct throttle *t);
void throttle_set(struct throttle *t, const struct keys_blk_qos *qos, uint64_t now_ns);
bool throttle_limits(struct throttle *t); /* is there any limit? */
/* True: one request may begin, and is charged to the first bucket. False: in *wait_ns it is worth to ask again. */
bool throttle_begin(struct throttle *t, uint64_t now_ns, uint64_t *wait_ns);
void throttle_charge(struct throttle *t, uint64_t bytes);

#endif
