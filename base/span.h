/* SPDX-License-Identifier: MIT */
/* base/span.h: the one range check of the project.
 *
 * A span (offset, length) fits into `size` when every byte of it lies below `size`. The test subtracts instead
 * of adding, so no choice of operands wraps; `offset + length > size` is never written anywhere else. An empty
 * span fits at any offset up to and including `size`. All operands are of one unit, the caller's.
 */
#ifndef BASE_SPAN_H
#define BASE_SPAN_H

#include <stdbool.h>
#include <stdint.h>

static inline bool span_fits(uint64_t offset, uint64_t length, uint64_t size)
{
    return offset <= size && length <= size - offset;
}

/* a * b into *out; false, and *out untouched, where the product does not fit 64 bits. */
static inline bool span_mul(uint64_t a, uint64_t b, uint64_t *out)
{
    uint64_t product;
    if (__builtin_mul_overflow(a, b, &product))
        return false;
    *out = product;
    return true;
}

#endif
