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

#include <assert.h>

#include "base/util.h"

struct err {
    char text[320];
};

/* Writes the sentence; its value is `code`, so that `return err_set(e, -ENOENT, "…")` reads as one step. `code` is
 * taken first, errno included, and is never 0, which would read as success: an errno that no call has set is our bug. A
 * macro, so that compiler and analyzer know both. */
#define err_set(e, code, ...)        \
    ({                               \
        int err_code_ = (code);      \
        assert(err_code_ != 0);      \
        err_write((e), __VA_ARGS__); \
        err_code_;                   \
    })

/* Puts "what: " in front of the sentence that is there; its value is `code`, never 0. */
#define err_prefix(e, code, ...)            \
    ({                                      \
        int err_code_ = (code);             \
        assert(err_code_ != 0);             \
        err_write_before((e), __VA_ARGS__); \
        err_code_;                          \
    })

/* What stands behind the two: the sentence alone. */
void err_write(struct err *e, const char *fmt, ...) PRINTF(2, 3);
void err_write_before(struct err *e, const char *fmt, ...) PRINTF(2, 3);

#endif
