/* SPDX-License-Identifier: MIT */
/* base/loghist.h: a coarse histogram of times: 4 buckets to each doubling, so that a quantile is off by 12 % at the
 * most, and small enough to be kept for each kind of request of each queue and sent as it is.
 *
 * Here is only the arithmetic; who counts owns the array, of whatever type (relaxed atomics for one writer and many
 * readers). The first bucket takes all below 2^LOGHIST_FIRST_BIT ns, which is less than a request can take, the last
 * one all from 2^LOGHIST_END_BIT ns, 69 s. Two histograms are subtracted bucket by bucket: what is left is the
 * interval's.
 */
#ifndef BASE_LOGHIST_H
#define BASE_LOGHIST_H

#include "base/util.h"

#define LOGHIST_FIRST_BIT 8
#define LOGHIST_END_BIT   36
#define LOGHIST_BUCKETS   ((LOGHIST_END_BIT - LOGHIST_FIRST_BIT) * 4 + 2)

static inline unsigned loghist_bucket(uint64_t v)
{
    if (v < 1ull << LOGHIST_FIRST_BIT)
        return 0;
    if (v >= 1ull << LOGHIST_END_BIT)
        return LOGHIST_BUCKETS - 1;
    unsigned e = 63u - (unsigned)__builtin_clzll(v);
    return 1 + (e - LOGHIST_FIRST_BIT) * 4 + (unsigned)((v >> (e - 2)) & 3);
}

/* The least value of bucket i; that of LOGHIST_BUCKETS is UINT64_MAX. */
static inline uint64_t loghist_low(unsigned i)
{
    if (i == 0)
        return 0;
    if (i >= LOGHIST_BUCKETS)
        return UINT64_MAX;
    return (uint64_t)(4 + (i - 1) % 4) << (LOGHIST_FIRST_BIT + (i - 1) / 4 - 2);
}

static inline uint64_t loghist_count(const uint64_t bucket[LOGHIST_BUCKETS])
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < LOGHIST_BUCKETS; i++)
        sum += bucket[i];
    return sum;
}

/* The value below which `fraction` (0…1) of all lie, as the middle of its bucket (of the last one: its least value); 0
 * of an empty histogram. */
static inline uint64_t loghist_quantile(const uint64_t bucket[LOGHIST_BUCKETS], double fraction)
{
    uint64_t seen = 0, count = loghist_count(bucket), target = (uint64_t)((double)count * fraction);
    for (unsigned i = 0; i < LOGHIST_BUCKETS && count; i++) {
        seen += bucket[i];
        if (seen <= target && seen < count)
            continue;
        return i == LOGHIST_BUCKETS - 1 ? loghist_low(i) : loghist_low(i) + (loghist_low(i + 1) - loghist_low(i)) / 2;
    }
    return 0;
}

#endif
