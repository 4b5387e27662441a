/* SPDX-License-Identifier: MIT */
#include "backend/blk/throttle.h"

#include <assert.h>

#include "base/clock.h"

typedef unsigned __int128 u128;

void bucket_init(struct bucket *b, uint64_t rate, uint64_t burst, uint64_t largest, uint64_t now_ns)
{
    assert(rate <= INT64_MAX && burst <= INT64_MAX && largest > 0 && largest <= INT64_MAX);
    *b = (struct bucket){.rate = rate, .depth = burst > largest ? (int64_t)(burst - largest) : 0, .now_ns = now_ns};
    b->level = rate ? -1 : 0; /* empty */
}

static void bucket_fill(struct bucket *b, uint64_t now_ns)
{
    if (now_ns <= b->now_ns)
        return;
    u128 grown = (u128)b->rate * (now_ns - b->now_ns) + b->rest;
    u128 room = (u128)((__int128)b->depth - b->level);
    b->now_ns = now_ns;
    if (grown / CLOCK_NS_PER_S >= room) { /* full: what does not fit is lost, the rest of a token with it */
        b->level = b->depth;
        b->rest = 0;
        return;
    }
    b->level += (int64_t)(grown / CLOCK_NS_PER_S);
    b->rest = (uint64_t)(grown % CLOCK_NS_PER_S);
}

bool bucket_ready(struct bucket *b, uint64_t now_ns)
{
    if (!b->rate)
        return true;
    bucket_fill(b, now_ns);
    return b->level >= 0;
}

void bucket_charge(struct bucket *b, uint64_t tokens)
{
    assert(tokens <= INT64_MAX);
    if (!b->rate)
        return;
    int64_t charge = (int64_t)tokens;
    b->level = b->level < INT64_MIN + charge ? INT64_MIN : b->level - charge;
}

uint64_t bucket_wait_ns(const struct bucket *b)
{
    if (!b->rate || b->level >= 0)
        return 0;
    u128 worth = (u128)b->rate * THROTTLE_NAP_NS / CLOCK_NS_PER_S;
    u128 wanted = (u128)(-(__int128)b->level) + MIN(worth, (u128)b->depth / 2);
    u128 wait_ns = (wanted * CLOCK_NS_PER_S - b->rest + b->rate - 1) / b->rate;
    return (uint64_t)MIN(wait_ns, (u128)THROTTLE_WAIT_NS);
}

void throttle_init(struct throttle *t)
{
    *t = (struct throttle){.lock = PTHREAD_MUTEX_INITIALIZER};
}

void throttle_deinit(struct throttle *t)
{
    pthread_mutex_destroy(&t->lock);
}

void throttle_set(struct throttle *t, const struct keys_blk_qos *qos, uint64_t now_ns)
{
    pthread_mutex_lock(&t->lock);
    bucket_init(&t->requests, qos->iops, keys_blk_qos_iops_burst(qos), 1, now_ns);
    bucket_init(&t->bytes, qos->bytes, keys_blk_qos_bytes_burst(qos), THROTTLE_REQUEST_BYTES_MAX, now_ns);
    pthread_mutex_unlock(&t->lock);
}

bool throttle_limits(struct throttle *t)
{
    pthread_mutex_lock(&t->lock);
    bool limits = t->requests.rate || t->bytes.rate;
    pthread_mutex_unlock(&t->lock);
    return limits;
}

bool throttle_begin(struct throttle *t, uint64_t now_ns, uint64_t *wait_ns)
{
    pthread_mutex_lock(&t->lock);
    bool requests = bucket_ready(&t->requests, now_ns), bytes = bucket_ready(&t->bytes, now_ns);
    if (requests && bytes)
        bucket_charge(&t->requests, 1);
    else
        *wait_ns = MAX(bucket_wait_ns(&t->requests), bucket_wait_ns(&t->bytes));
    pthread_mutex_unlock(&t->lock);
    return requests && bytes;
}

void throttle_charge(struct throttle *t, uint64_t bytes)
{
    pthread_mutex_lock(&t->lock);
    bucket_charge(&t->bytes, bytes);
    pthread_mutex_unlock(&t->lock);
}
