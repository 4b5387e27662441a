/* SPDX-License-Identifier: MIT */
/* base/spin.h: how long to look before going to sleep: a window that is as long as it pays.
 *
 * A look that brought something makes it the whole `cap_ns` again, one that did not halves it, down to nothing. Then it
 * is tried again after SPIN_RETRY_MIN sleeps, and where that was in vain too, after twice as many, up to
 * SPIN_RETRY_MAX. So two ends that share a processor, where the looker keeps away what it looks for, lose a window in
 * a thousand sleeps; and ends on processors of their own find each other again in a few milliseconds.
 *
 * The caller looks and has the clock; this only counts. Nothing of it depends on what a peer says: one that makes looks
 * pay, or not, sets how much of its own latency this end spends on it, up to cap_ns for each sleep.
 */
#ifndef BASE_SPIN_H
#define BASE_SPIN_H

#include <stdbool.h>
#include <stdint.h>

#define SPIN_MIN_NS    1000 /* a window that has shrunk below this is none */
#define SPIN_RETRY_MIN 32
#define SPIN_RETRY_MAX 1024

struct spin {
    uint64_t cap_ns, window_ns;
    uint32_t sleeps, retry; /* since the window became nothing; at how many it is tried again */
};

static inline void spin_init(struct spin *s, uint64_t cap_ns)
{
    *s = (struct spin){.cap_ns = cap_ns, .window_ns = cap_ns, .retry = SPIN_RETRY_MIN};
}

/* Between two looks. */
static inline void spin_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield" : : : "memory");
#else
    __asm__ volatile("" : : : "memory");
#endif
}

/* Before a sleep: how long to look; 0: not at all. */
static inline uint64_t spin_window_ns(struct spin *s)
{
    if (s->window_ns || !s->cap_ns)
        return s->window_ns;
    if (++s->sleeps < s->retry)
        return 0;
    s->sleeps = 0;
    return s->cap_ns; /* a trial: window_ns stays 0 until it has paid */
}

/* A look that was spin_window_ns() long has ended. */
static inline void spin_learn(struct spin *s, bool paid)
{
    if (paid) {
        s->window_ns = s->cap_ns;
        s->retry = SPIN_RETRY_MIN;
    } else if (s->window_ns) {
        s->window_ns = s->window_ns / 2 < SPIN_MIN_NS ? 0 : s->window_ns / 2;
        s->sleeps = 0;
    } else if (s->retry < SPIN_RETRY_MAX) {
        s->retry *= 2;
    }
}

#endif
