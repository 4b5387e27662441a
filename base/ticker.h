/* SPDX-License-Identifier: MIT */
/* base/ticker.h: the monotonic clock for loops that look at it all the time: a third of the price, or less.
 *
 * Where the processor has a time stamp counter whose rate does not change, a reading is that counter and a
 * multiplication; once it has gone TICKER_SYNC_NS since the last one, clock_now_ns() is asked and the rate measured
 * anew. Between two of these a reading may be off by the error of the rate over that time, some 100 ns; it never goes
 * back. Elsewhere a reading is clock_now_ns().
 *
 * For the length of a spin and for latencies; a deadline that somebody sleeps until is clock_now_ns()'s.
 * One thread a ticker.
 */
#ifndef BASE_TICKER_H
#define BASE_TICKER_H

#include <stdbool.h>

#include "base/clock.h"

#define TICKER_SYNC_NS CLOCK_NS_PER_MS

struct ticker {
    bool counter;        /* there is one that can be used */
    uint64_t last_ns;    /* the latest reading */
    uint64_t sync_ticks; /* counter and clock at the last look at both */
    uint64_t sync_ns;
    uint64_t sync_after_ticks; /* … and how far the counter may go until the next */
    uint64_t ns_per_tick_q32;  /* 32 bits behind the point */
};

void ticker_init(struct ticker *t);
uint64_t ticker_sync_ns(struct ticker *t, uint64_t ticks);

static inline uint64_t ticker_now_ns(struct ticker *t)
{
#ifdef __x86_64__
    if (t->counter) {
        uint64_t ticks = __builtin_ia32_rdtsc(), gone = ticks - t->sync_ticks;
        if (gone >= t->sync_after_ticks) /* also where it went backwards */
            return ticker_sync_ns(t, ticks);
        uint64_t now_ns = t->sync_ns + (gone * t->ns_per_tick_q32 >> 32);
        if (now_ns > t->last_ns)
            t->last_ns = now_ns;
        return t->last_ns;
    }
#endif
    return t->last_ns = clock_now_ns();
}

#endif
