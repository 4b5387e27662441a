/* SPDX-License-Identifier: MIT */
/* base/reader.h: bytes that somebody else wrote, taken piece by piece.
 *
 * A piece is there as a whole or not at all; one that is not makes the reader bad, and a bad one has nothing more. So
 * who takes several pieces looks at `bad` once, behind the last. The bytes are borrowed, and pieces point into them.
 */
#ifndef BASE_READER_H
#define BASE_READER_H

#include <stdbool.h>
#include <stddef.h>

struct reader {
    const char *at;
    size_t left;
    bool bad;
};

/* The next bytes, or NULL. */
static inline const char *reader_take(struct reader *r, size_t length)
{
    const char *at = r->at;
    r->bad = r->bad || length > r->left;
    if (r->bad)
        return NULL;
    r->at += length;
    r->left -= length;
    return at;
}

#endif
