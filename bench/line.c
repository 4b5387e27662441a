/* SPDX-License-Identifier: MIT */
/* bench/line.c: how far apart two processors are: one word goes from the first to the last processor that this process
 * may use and back, for `line [SECONDS]`; prints the median round trip in nanoseconds.
 *
 * A host that moves virtual processors puts them on neighbouring cores now and on distant ones then; everything that
 * polls across them is two to four times slower meanwhile, without any sign of it inside but this. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/hist.h"

#define TRIPS 64 /* timed together, as the clock costs a good part of one */

static _Alignas(128) _Atomic uint32_t word; /* odd: it is the other side's turn */
static atomic_bool stop;
static int far_cpu, near_cpu = -1;

static void place(int cpu)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    sched_setaffinity(0, sizeof(one), &one);
}

static void *far_side(void *arg)
{
    (void)arg;
    place(far_cpu);
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        uint32_t seen = atomic_load_explicit(&word, memory_order_acquire);
        if (seen & 1)
            atomic_store_explicit(&word, seen + 1, memory_order_release);
        else
            __builtin_ia32_pause();
    }
    return NULL;
}

static void round_trip(void)
{
    uint32_t sent = atomic_load_explicit(&word, memory_order_relaxed) + 1;
    atomic_store_explicit(&word, sent, memory_order_release);
    while (atomic_load_explicit(&word, memory_order_acquire) == sent)
        __builtin_ia32_pause();
}

int main(int argc, char **argv)
{
    static struct hist trips;
    cpu_set_t allowed;
    pthread_t thread;
    double seconds = argc > 1 ? strtod(argv[1], NULL) : 0.02;
    if (sched_getaffinity(0, sizeof(allowed), &allowed))
        return 1;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &allowed))
            far_cpu = cpu, near_cpu = near_cpu < 0 ? cpu : near_cpu;
    if (near_cpu == far_cpu || pthread_create(&thread, NULL, far_side, NULL)) {
        fprintf(stderr, "line: it takes two processors\n");
        return 1;
    }
    place(near_cpu);
    round_trip(); /* the other side is there */
    for (uint64_t now = clock_now_ns(), end = now + (uint64_t)(seconds * 1e9); now < end;) {
        uint64_t before = now;
        for (unsigned i = 0; i < TRIPS; i++)
            round_trip();
        now = clock_now_ns();
        hist_add(&trips, (now - before) / TRIPS);
    }
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    printf("%llu\n", (unsigned long long)hist_quantile(&trips, 0.5));
    return 0;
}
