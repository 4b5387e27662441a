/* SPDX-License-Identifier: MIT */
#include "base/parse.h"

#include <ctype.h>
#include <string.h>

#include "base/span.h"

/* Reads digits at *text and moves it behind them. */
static int digits(const char **text, unsigned base, uint64_t *out)
{
    const char *p = *text;
    uint64_t value = 0;
    bool overflow = false;
    for (; isxdigit((unsigned char)*p); p++) {
        unsigned d =
            isdigit((unsigned char)*p) ? (unsigned)(*p - '0') : (unsigned)(tolower((unsigned char)*p) - 'a' + 10);
        if (d >= base)
            break;
        overflow |=
            __builtin_mul_overflow(value, (uint64_t)base, &value) || __builtin_add_overflow(value, (uint64_t)d, &value);
    }
    if (p == *text)
        return -EINVAL;
    *text = p;
    *out = value;
    return overflow ? -ERANGE : 0;
}

int parse_u64(const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
    bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    uint64_t value;
    if (hex)
        text += 2;
    int r = digits(&text, hex ? 16 : 10, &value);
    if (r == -EINVAL || *text)
        return -EINVAL;
    if (r < 0 || value < min || value > max)
        return -ERANGE;
    *out = value;
    return 0;
}

int parse_size(const char *text, uint64_t *out_bytes)
{
    static const char units[] = "KMGT";
    uint64_t value, scale = 1;
    int r = digits(&text, 10, &value);
    if (r == -EINVAL)
        return r;
    if (*text) {
        const char *unit = strchr(units, toupper((unsigned char)*text));
        if (!unit || !*unit || text[1])
            return -EINVAL;
        scale <<= 10 * (unit - units + 1);
    }
    return r < 0 || !span_mul(value, scale, out_bytes) ? -ERANGE : 0;
}
