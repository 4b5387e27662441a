/* SPDX-License-Identifier: MIT */
/* base/spin.h: whether to look for a while before going to sleep: as long as it pays, and else not at all.
 *
 * A looker is on, and looks for up to cap_ns before each sleep, or off, and sleeps at once. What counts is the share of
 * looks that paid, a mean that forgets (a sixteenth at each): below three of four it goes off. So a rare long wait
 * among short ones costs one look, and where waits are long, as at a low rate, nobody looks.
 *
 * Off, sleeps say whether looking may pay: they end soon (within twice cap_ns, for each end of the wait may have been
 * woken, which takes some 50 us on an idle processor of a virtual machine). Where most do, it is tried again after
 * SPIN_RETRY_MIN sleeps; where they are long, only after SPIN_RETRY_MAX. A trial is one look; one in vain ends it, and
 * the next comes after twice as many sleeps, up to SPIN_RETRY_MAX.
 *
 * The spare processor. Two ends that share one, or a looker beside somebody who wants its processor, keep away what
 * they look for. It shows here and needs no system call: nothing comes while one looks, and then at once, as soon as
 * one sleeps; or it came while the looker was not let run, so that the look took longer than its window, and that has
 * not paid. They lose a window in a thousand sleeps. Ends on processors of their own find each other again in a few
 * milliseconds.
 *
 * The caller looks and has the clock; this only counts. Nothing of it depends on what a peer says: one that makes looks
 * pay, or not, sets how much of its own latency this end spends on it, up to cap_ns for each sleep.
 */
#ifndef BASE_SPIN_H
#define BASE_SPIN_H

#include <stdbool.h>
#include <stdint.h>

#define SPIN_ALL       4096u /* a share of one */
#define SPIN_ENOUGH    (SPIN_ALL * 3 / 4)
#define SPIN_GOOD      (SPIN_ALL * 7 / 8) /* from here on a failure would be the first one */
#define SPIN_RETRY_MIN 32
#define SPIN_RETRY_MAX 1024

struct spin {
    uint64_t cap_ns;
    bool on;
    uint32_t share;         /* of SPIN_ALL. On: looks that paid; off: sleeps that ended soon */
    uint32_t sleeps, retry; /* since it went off; after how many it is tried again */
};

/* On: the first look is a trial. */
static inline void spin_init(struct spin *s, uint64_t cap_ns)
{
    *s = (struct spin){.cap_ns = cap_ns, .on = cap_ns > 0, .share = SPIN_ENOUGH, .retry = SPIN_RETRY_MIN};
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

static inline void spin_count(struct spin *s, bool good)
{
    s->share += (good ? (SPIN_ALL - s->share) / 16 : 0) - (good ? 0 : s->share / 16);
}

/* Before a sleep: how long to look; 0: not at all. */
static inline uint64_t spin_window_ns(struct spin *s)
{
    if (s->on)
        return s->cap_ns;
    if (!s->cap_ns || s->sleeps < (s->share >= SPIN_ALL / 2 ? s->retry : SPIN_RETRY_MAX))
        return 0;
    s->on = true;
    s->share = SPIN_ENOUGH;
    return s->cap_ns;
}

/* A look that was to be spin_window_ns() long has ended. `paid`: it brought something, before the window had passed. */
static inline void spin_learn(struct spin *s, bool paid)
{
    spin_count(s, paid);
    if (s->share >= SPIN_GOOD)
        s->retry = SPIN_RETRY_MIN;
    if (s->share >= SPIN_ENOUGH)
        return;
    s->on = false;
    s->sleeps = 0;
    s->share = SPIN_ALL / 2;
    s->retry = s->retry < SPIN_RETRY_MAX ? 2 * s->retry : SPIN_RETRY_MAX;
}

/* A sleep before which spin_window_ns() was asked has ended after so long. */
static inline void spin_slept(struct spin *s, uint64_t slept_ns)
{
    if (s->on)
        return;
    spin_count(s, slept_ns <= 2 * s->cap_ns);
    if (s->sleeps < SPIN_RETRY_MAX)
        s->sleeps++;
}

#endif
