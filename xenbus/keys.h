/* SPDX-License-Identifier: MIT */
/* xenbus/keys.h: typed keys. A key has a name, a type, a range and a default; reading judges the text once and yields
 * a number or a bounded string, or a sentence that names directory, key, value and what was expected.
 *
 * The peer wrote the value: `*out` is only ever within [min, max].
 */
#ifndef XENBUS_KEYS_H
#define XENBUS_KEYS_H

#include "store/client.h"

struct xb_key {
    const char *name;
    uint64_t min, max;
    uint64_t def;  /* where the key is missing */
    bool required; /* missing is -ENOENT */
};

/* 0, -ENOENT (required and missing), -EINVAL (no number), -ERANGE; *out is set only on 0. */
int xb_key_read(struct store_client *c, store_tx tx, const char *dir, const struct xb_key *key, uint64_t *out,
                struct err *e);
/* A string shorter than `size`; `def` (may be NULL: required) where the key is missing. */
int xb_key_read_string(struct store_client *c, store_tx tx, const char *dir, const char *name, const char *def,
                       char *out, size_t size, struct err *e);

#endif
