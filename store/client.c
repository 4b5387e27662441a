/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "store/client.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xen/io/xs_wire.h>

#include "store/link.h"

struct store_client {
    struct store_link *link;
};

int store_client_open(const char *path, struct store_client **out, struct err *e)
{
    struct store_client *c = malloc(sizeof(*c));
    if (!c)
        return err_set(e, -ENOMEM, "store client: no memory");
    int r = store_link_open(path, &c->link, e);
    if (r < 0)
        free(c);
    else
        *out = c;
    return r;
}

void store_client_close(struct store_client *c)
{
    if (!c)
        return;
    store_link_close(c->link);
    free(c);
}

int store_client_fd(struct store_client *c)
{
    return store_link_fd(c->link);
}

/* A request whose payload is `text` with its NUL, and bytes behind it. */
static int ask(struct store_client *c, uint32_t type, store_tx tx, const char *text, const void *bytes, size_t length,
               char **out, size_t *out_length)
{
    const struct iovec parts[] = {{(void *)text, strlen(text) + 1}, {(void *)bytes, length}};
    return store_link_ask(c->link, type, tx, parts, ARRAY_SIZE(parts), out, out_length);
}

/* Composes into `path` of STORE_PATH_MAX bytes. */
static int compose(char *path, const char *fmt, va_list ap)
{
    int n = vsnprintf(path, STORE_PATH_MAX, fmt, ap);
    return n < 0 || n >= STORE_PATH_MAX ? -ENAMETOOLONG : 0;
}

#define COMPOSE(path, fmt)                    \
    ({                                        \
        va_list ap_;                          \
        va_start(ap_, fmt);                   \
        int r_ = compose((path), (fmt), ap_); \
        va_end(ap_);                          \
        r_;                                   \
    })

int store_read(struct store_client *c, store_tx tx, char **out, size_t *length, const char *path_fmt, ...)
{
    char path[STORE_PATH_MAX];
    int r = COMPOSE(path, path_fmt);
    return r < 0 ? r : ask(c, XS_READ, tx, path, NULL, 0, out, length);
}

static int write_at(struct store_client *c, store_tx tx, const char *path, const char *value)
{
    size_t length = strlen(value);
    if (length > STORE_VALUE_MAX)
        return -E2BIG;
    return ask(c, XS_WRITE, tx, path, value, length, NULL, NULL);
}

int store_write(struct store_client *c, store_tx tx, const char *value, const char *path_fmt, ...)
{
    char path[STORE_PATH_MAX];
    int r = COMPOSE(path, path_fmt);
    return r < 0 ? r : write_at(c, tx, path, value);
}

int store_printf(struct store_client *c, store_tx tx, const char *dir, const char *key, const char *value_fmt, ...)
{
    char path[STORE_PATH_MAX], value[STORE_VALUE_MAX + 1];
    va_list ap;
    va_start(ap, value_fmt);
    int n = vsnprintf(value, sizeof(value), value_fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof(value))
        return -E2BIG;
    n = snprintf(path, sizeof(path), "%s/%s", dir, key);
    if (n < 0 || (size_t)n >= sizeof(path))
        return -ENAMETOOLONG;
    return write_at(c, tx, path, value);
}

int store_mkdir(struct store_client *c, store_tx tx, const char *path_fmt, ...)
{
    char path[STORE_PATH_MAX];
    int r = COMPOSE(path, path_fmt);
    return r < 0 ? r : ask(c, XS_MKDIR, tx, path, NULL, 0, NULL, NULL);
}

int store_rm(struct store_client *c, store_tx tx, const char *path_fmt, ...)
{
    char path[STORE_PATH_MAX];
    int r = COMPOSE(path, path_fmt);
    if (r == 0)
        r = ask(c, XS_RM, tx, path, NULL, 0, NULL, NULL);
    return r == -ENOENT ? 0 : r;
}

/* A list that does not fit a message, by parts of one generation, and again where it changes meanwhile. */
static int directory_long(struct store_client *c, store_tx tx, const char *path, char **out, size_t *length)
{
    char generation[24] = "", offset[24];
    _cleanup_free_ char *names = NULL;
    for (size_t have = 0;;) {
        _cleanup_free_ char *part = NULL;
        size_t bytes;
        snprintf(offset, sizeof(offset), "%zu", have);
        int r = ask(c, XS_DIRECTORY_PART, tx, path, offset, strlen(offset) + 1, &part, &bytes);
        if (r < 0)
            return r;
        size_t skip = strlen(part) + 1;
        if (skip > bytes || skip > sizeof(generation))
            return -EPROTO;
        if (have && strcmp(part, generation) != 0) {
            have = 0;
            continue;
        }
        memcpy(generation, part, skip);
        char *more = realloc(names, have + bytes - skip + 1);
        if (!more)
            return -ENOMEM;
        names = more;
        memcpy(names + have, part + skip, bytes - skip);
        have += bytes - skip;
        bool last = have > 0 && names[have - 1] == '\0' && (have == 1 || names[have - 2] == '\0');
        if (!last && bytes > skip)
            continue;
        *length = have - last;
        *out = take_ptr(names);
        return last ? 0 : -EPROTO;
    }
}

int store_directory(struct store_client *c, store_tx tx, char ***out, unsigned *count, const char *path_fmt, ...)
{
    char path[STORE_PATH_MAX];
    _cleanup_free_ char *names = NULL;
    size_t bytes = 0, n = 0;
    int r = COMPOSE(path, path_fmt);
    if (r == 0)
        r = ask(c, XS_DIRECTORY, tx, path, NULL, 0, &names, &bytes);
    if (r == -E2BIG)
        r = directory_long(c, tx, path, &names, &bytes);
    if (r < 0)
        return r;
    for (size_t i = 0; i < bytes; i++)
        n += names[i] == '\0';
    char **copy = malloc((n + 1) * sizeof(char *) + bytes);
    if (!copy)
        return -ENOMEM;
    char *text = memcpy(copy + n + 1, names, bytes);
    for (size_t i = 0; i < n; i++) {
        copy[i] = text;
        text += strlen(text) + 1;
    }
    copy[n] = NULL;
    *out = copy;
    if (count)
        *count = (unsigned)n;
    return 0;
}

int store_set_owner_reader(struct store_client *c, store_tx tx, unsigned owner, unsigned reader, const char *path_fmt,
                           ...)
{
    char path[STORE_PATH_MAX];
    int r = COMPOSE(path, path_fmt);
    if (r < 0)
        return r;
    char perms[32];
    int length = snprintf(perms, sizeof(perms), "n%u", owner) + 1;
    if (owner != reader)
        length += snprintf(perms + length, sizeof(perms) - (size_t)length, "r%u", reader) + 1;
    return ask(c, XS_SET_PERMS, tx, path, perms, (size_t)length, NULL, NULL);
}

int store_tx_start(struct store_client *c, store_tx *out)
{
    return store_link_tx_start(c->link, out);
}

int store_tx_end(struct store_client *c, store_tx tx, bool abort_it)
{
    return store_link_tx_end(c->link, tx, abort_it);
}

int store_watch(struct store_client *c, const char *token, const char *path_fmt, ...)
{
    char path[STORE_PATH_MAX];
    int r = COMPOSE(path, path_fmt);
    return r < 0 ? r : store_link_watch(c->link, path, token);
}

int store_unwatch(struct store_client *c, const char *token, const char *path_fmt, ...)
{
    char path[STORE_PATH_MAX];
    int r = COMPOSE(path, path_fmt);
    return r < 0 ? r : store_link_unwatch(c->link, path, token);
}

int store_next_event(struct store_client *c, char ***event, const char **path, const char **token)
{
    return store_link_event(c->link, event, path, token);
}

int store_introduce(struct store_client *c, unsigned domid, unsigned long gfn, uint32_t port)
{
    char id[16], rest[48];
    snprintf(id, sizeof(id), "%u", domid);
    int length = snprintf(rest, sizeof(rest), "%lu", gfn) + 1;
    length += snprintf(rest + length, sizeof(rest) - (size_t)length, "%" PRIu32, port) + 1;
    return ask(c, XS_INTRODUCE, STORE_NO_TX, id, rest, (size_t)length, NULL, NULL);
}

int store_release(struct store_client *c, unsigned domid)
{
    char id[16];
    snprintf(id, sizeof(id), "%u", domid);
    int r = ask(c, XS_RELEASE, STORE_NO_TX, id, NULL, 0, NULL, NULL);
    return r == -ENOENT && store_link_repeated(c->link) ? 0 : r;
}

int store_live_update(struct store_client *c, const char *option, const char *value, char **reply)
{
    char rest[STORE_PATH_MAX];
    int length = snprintf(rest, sizeof(rest), "%s%c%s", option, '\0', value ? value : "");
    if (length >= (int)sizeof(rest))
        return -ENAMETOOLONG;
    return ask(c, XS_CONTROL, STORE_NO_TX, "live-update", rest, (size_t)length + (value ? 1 : 0), reply, NULL);
}
