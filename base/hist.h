/* SPDX-License-Identifier: MIT */
/* base/hist.h: a histogram of unsigned values in logarithmic buckets, 16 to each doubling, so a percentile is off by
 * 3 % at the most. Fixed size, adds in a few instructions, one writer. Units are the caller's.
 */
#ifndef BASE_HIST_H
#define BASE_HIST_H

#include "base/util.h"

#define HIST_BUCKETS 976 /* 16 exact ones, then 16 for each of the 60 doublings from 2^4 to 2^63 */

struct hist {
    uint64_t bucket[HIST_BUCKETS];
    uint64_t count, max;
};

static inline unsigned hist_bucket(uint64_t v)
{
    if (v < 16)
        return (unsigned)v;
    unsigned e = 63u - (unsigned)__builtin_clzll(v);
    return (e - 3) * 16 + (unsigned)((v >> (e - 4)) & 15);
}

static inline void hist_add(struct hist *h, uint64_t v)
{
    h->bucket[hist_bucket(v)]++;
    h->count++;
    h->max = MAX(h->max, v);
}

/* The value below which `fraction` (0…1) of all lie, as the middle of its bucket; 0 of an empty histogram. */
static inline uint64_t hist_quantile(const struct hist *h, double fraction)
{
    uint64_t seen = 0, target = (uint64_t)((double)h->count * fraction);
    for (unsigned i = 0; i < HIST_BUCKETS; i++) {
        seen += h->bucket[i];
        if (seen > target || (seen == h->count && h->count)) {
            if (i < 16)
                return i;
            uint64_t low = (16ull + i % 16) << (i / 16 - 1);
            return low + (1ull << (i / 16 - 1)) / 2;
        }
    }
    return 0;
}

#endif
