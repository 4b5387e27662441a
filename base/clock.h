/* SPDX-License-Identifier: MIT */
/* base/clock.h: monotonic time in nanoseconds; the only clock of the project. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

#define CLOCK_NS_PER_S  1000000000ull
#define CLOCK_NS_PER_MS 1000000ull
#define CLOCK_NS_PER_US 1000ull

static inline uint64_t clock_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * CLOCK_NS_PER_S + (uint64_t)t.tv_nsec;
}

#endif
