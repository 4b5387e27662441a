/* SPDX-License-Identifier: MIT */
#include "base/ticker.h"

#ifdef __x86_64__
#include <cpuid.h>

/* CPUID 8000_0007h EDX bit 8: the counter runs at one rate in all power states. */
static bool counter_invariant(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(0x80000007, &a, &b, &c, &d) && (d & 1u << 8);
}

static uint64_t counter_read(void)
{
    return __builtin_ia32_rdtsc();
}
#else
static bool counter_invariant(void)
{
    return false;
}

static uint64_t counter_read(void)
{
    return 0;
}
#endif

void ticker_init(struct ticker *t)
{
    *t = (struct ticker){.counter = counter_invariant(), .sync_ticks = counter_read(), .sync_ns = clock_now_ns()};
    t->last_ns = t->sync_ns;
}

/* Asks the clock, and learns the rate from what both have gone since the last time. Where they do not agree (a pause of
 * the machine, a counter that jumped, this thread put off between its two looks) the clock alone serves until the next
 * time. */
uint64_t ticker_sync_ns(struct ticker *t, uint64_t ticks)
{
    uint64_t now_ns = clock_now_ns(), gone_ns = now_ns - t->sync_ns, gone = ticks - t->sync_ticks;
    if (now_ns > t->last_ns)
        t->last_ns = now_ns;
    if (gone_ns < TICKER_SYNC_NS / 2) /* too short to measure by */
        return t->last_ns;
    uint64_t look_ticks = counter_read() - ticks;
    t->sync_after_ticks = 0;
    if (gone_ns < CLOCK_NS_PER_S && gone && gone < UINT32_MAX && look_ticks < gone / 1024) {
        t->ns_per_tick_q32 = (gone_ns << 32) / gone;
        t->sync_after_ticks = gone / (gone_ns / TICKER_SYNC_NS + 1);
    }
    t->sync_ticks = ticks + look_ticks;
    t->sync_ns = now_ns;
    return t->last_ns;
}
