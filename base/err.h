/* SPDX-License-Identifier: MIT */
/* base/err.h: three wrongs, three mechanisms.
 *
 *   our own bug          assert(), kept in release builds
 *   the environment      a negative errno, forwarded unchanged
 *   the peer             a positive code named ROOM_E_*; that peer's device is closed, nothing else
 *
 * A sentence for a person travels beside the number in a `struct err`, owned by whoever called first: the place
 * that knows the cause writes it with err_set(), callers pass the number through. The sentence names what was
 * wrong and what to do. `err` may be NULL everywhere: then only the number travels.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include "base/util.h"

struct err {
    char text[320];
};

/* Writes the sentence and returns `code` unchanged, so that `return err_set(e, -ENOENT, "…")` reads as one step. */
int err_set(struct err *e, int code, const char *fmt, ...) PRINTF(3, 4);

/* Puts "what: " in front of the sentence that is there; returns `code`. */
int err_prefix(struct err *e, int code, const char *fmt, ...) PRINTF(3, 4);

#endif
