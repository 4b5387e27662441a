/* SPDX-License-Identifier: MIT */
/* base/parse.h: numbers out of text that somebody else wrote. The whole text must be the number: no sign, no blanks
 * around it, no rest behind it; out of range is -ERANGE, anything else that is no number -EINVAL.
 */
#ifndef BASE_PARSE_H
#define BASE_PARSE_H

#include "base/util.h"

/* A decimal number, or hexadecimal behind 0x, of min … max. */
int parse_u64(const char *text, uint64_t min, uint64_t max, uint64_t *out);
/* Bytes: a decimal number with an optional K, M, G or T (powers of 1024, either case). */
int parse_size(const char *text, uint64_t *out_bytes);

#endif
