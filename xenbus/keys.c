/* SPDX-License-Identifier: MIT */
#include "xenbus/keys.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/parse.h"

#define QUOTE_MAX 40 /* of a peer's value in a sentence: enough to recognise it, too short to hide the rest */

/* What a peer wrote, fit for a log line: the first bytes, anything unprintable as '?'. */
static const char *quoted(const char *text, char out[QUOTE_MAX + 4])
{
    size_t n = strnlen(text, QUOTE_MAX + 1);
    bool cut = n > QUOTE_MAX;
    n = MIN(n, (size_t)QUOTE_MAX);
    for (size_t i = 0; i < n; i++)
        out[i] = text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
    strcpy(out + n, cut ? "..." : "");
    return out;
}

/* The value as one string: -ENOENT without a sentence where it is missing; -EINVAL where a NUL hides a rest. */
static int read_text(struct store_client *c, store_tx tx, const char *dir, const char *name, char **text, struct err *e)
{
    size_t length;
    int r = store_read(c, tx, text, &length, "%s/%s", dir, name);
    if (r == -ENOENT)
        return r;
    if (r < 0)
        return err_set(e, r, "%s/%s cannot be read: %s", dir, name, strerror(-r));
    if (strlen(*text) == length)
        return 0;
    free(take_ptr(*text));
    return err_set(e, -EINVAL, "%s/%s holds a NUL byte within its %zu bytes; text was expected", dir, name, length);
}

int xb_key_read(struct store_client *c, store_tx tx, const char *dir, const struct xb_key *key, uint64_t *out,
                struct err *e)
{
    _cleanup_free_ char *text = NULL;
    char quote[QUOTE_MAX + 4];
    uint64_t value;
    int r = read_text(c, tx, dir, key->name, &text, e);
    if (r == -ENOENT) {
        if (key->required)
            return err_set(e, r, "%s/%s is missing; a number of %" PRIu64 " to %" PRIu64 " was expected", dir,
                           key->name, key->min, key->max);
        *out = key->def;
        return 0;
    }
    if (r < 0)
        return r;
    /* Keys are decimal; only toolstacks write hexadecimal, and into none that is read here. */
    r = strpbrk(text, "xX") ? -EINVAL : parse_u64(text, key->min, key->max, &value);
    if (r < 0)
        return err_set(e, r, "%s/%s is \"%s\"; a number of %" PRIu64 " to %" PRIu64 " was expected", dir, key->name,
                       quoted(text, quote), key->min, key->max);
    *out = value;
    return 0;
}

int xb_key_read_string(struct store_client *c, store_tx tx, const char *dir, const char *name, const char *def,
                       char *out, size_t size, struct err *e)
{
    _cleanup_free_ char *text = NULL;
    char quote[QUOTE_MAX + 4];
    int r = read_text(c, tx, dir, name, &text, e);
    if (r == -ENOENT && !def)
        return err_set(e, r, "%s/%s is missing", dir, name);
    if (r < 0 && r != -ENOENT)
        return r;
    const char *value = r == -ENOENT ? def : text;
    size_t length = strlen(value);
    if (length >= size)
        return err_set(e, -ERANGE, "%s/%s is \"%s\", %zu bytes; at most %zu were expected", dir, name,
                       quoted(value, quote), length, size - 1);
    memcpy(out, value, length + 1);
    return 0;
}
