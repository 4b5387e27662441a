/* SPDX-License-Identifier: MIT */
/* tests/random.h: numbers that look random and are the same in each run (Knuth's linear congruential generator). */
#ifndef TESTS_RANDOM_H
#define TESTS_RANDOM_H

#include <stdint.h>

/* The next state; its high bits are the good ones. */
static inline uint64_t random_step(uint64_t *state)
{
    return *state = *state * 6364136223846793005ull + 1442695040888963407ull;
}

/* 31 bits. */
static inline uint32_t random_next(uint64_t *state)
{
    return (uint32_t)(random_step(state) >> 33);
}

#endif
