/* SPDX-License-Identifier: MIT */
/* store/client.c: libxenstore with this project's errors, path formats and bounds.
 *
 * libxenstore takes the socket's path from $XENSTORED_PATH, and has no other way to be told one. Where
 * store_client_open() is given a path, it sets the variable around xs_open() and puts back what was there, under a lock
 * of this file, so two threads may open clients of different stores at a time; a thread that reads the environment by
 * other means meanwhile is not kept away, so open clients before starting such threads.
 */
#include "store/client.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <xenstore.h>

struct store_client {
    struct xs_handle *xs;
};

static pthread_mutex_t environment_lock = PTHREAD_MUTEX_INITIALIZER;

/* libxenstore's errno, never 0. Once its reader thread has seen the store go, it has closed its descriptor. */
static int failure(void)
{
    return errno == EBADF ? -EPIPE : errno ? -errno : -EIO;
}

static struct xs_handle *open_at(const char *path)
{
    static const char variable[] = "XENSTORED_PATH";
    pthread_mutex_lock(&environment_lock);
    const char *old = getenv(variable);
    _cleanup_free_ char *kept = old ? strdup(old) : NULL;
    struct xs_handle *xs = NULL;
    if ((old && !kept) || setenv(variable, path, 1) < 0) {
        errno = ENOMEM;
    } else {
        xs = xs_open(0);
        int keep = errno;
        if (kept)
            setenv(variable, kept, 1);
        else
            unsetenv(variable);
        errno = keep;
    }
    pthread_mutex_unlock(&environment_lock);
    return xs;
}

int store_client_open(const char *path, struct store_client **out, struct err *e)
{
    struct store_client *c = malloc(sizeof(*c));
    if (!c)
        return err_set(e, -ENOMEM, "store client: no memory");
    errno = 0;
    c->xs = path ? open_at(path) : xs_open(0);
    if (!c->xs) {
        int r = failure();
        free(c);
        return err_set(e, r, "cannot connect to the xenstore at %s: %s; is the store running?",
                       path ? path : xs_daemon_socket(), strerror(-r));
    }
    *out = c;
    return 0;
}

void store_client_close(struct store_client *c)
{
    if (!c)
        return;
    xs_close(c->xs);
    free(c);
}

int store_client_fd(struct store_client *c)
{
    return xs_fileno(c->xs);
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
    unsigned got = 0;
    int r = COMPOSE(path, path_fmt);
    if (r < 0)
        return r;
    char *value = xs_read(c->xs, tx, path, &got);
    if (!value)
        return failure();
    *out = value;
    if (length)
        *length = got;
    return 0;
}

static int write_at(struct store_client *c, store_tx tx, const char *path, const char *value)
{
    size_t length = strlen(value);
    if (length > STORE_VALUE_MAX)
        return -E2BIG;
    return xs_write(c->xs, tx, path, value, (unsigned)length) ? 0 : failure();
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
    if (r < 0)
        return r;
    return xs_mkdir(c->xs, tx, path) ? 0 : failure();
}

int store_rm(struct store_client *c, store_tx tx, const char *path_fmt, ...)
{
    char path[STORE_PATH_MAX];
    int r = COMPOSE(path, path_fmt);
    if (r < 0)
        return r;
    if (xs_rm(c->xs, tx, path))
        return 0;
    r = failure();
    return r == -ENOENT ? 0 : r;
}

int store_directory(struct store_client *c, store_tx tx, char ***out, unsigned *count, const char *path_fmt, ...)
{
    char path[STORE_PATH_MAX];
    unsigned n = 0;
    int r = COMPOSE(path, path_fmt);
    if (r < 0)
        return r;
    _cleanup_free_ char **names = xs_directory(c->xs, tx, path, &n);
    if (!names)
        return failure();
    size_t bytes = 0; /* libxenstore's array has no NULL at its end */
    for (unsigned i = 0; i < n; i++)
        bytes += strlen(names[i]) + 1;
    char **copy = malloc((n + 1) * sizeof(char *) + bytes);
    if (!copy)
        return -ENOMEM;
    char *text = (char *)(copy + n + 1);
    for (unsigned i = 0; i < n; i++) {
        copy[i] = text;
        text = stpcpy(text, names[i]) + 1;
    }
    copy[n] = NULL;
    *out = copy;
    if (count)
        *count = n;
    return 0;
}

int store_set_owner_reader(struct store_client *c, store_tx tx, unsigned owner, unsigned reader, const char *path_fmt,
                           ...)
{
    char path[STORE_PATH_MAX];
    int r = COMPOSE(path, path_fmt);
    if (r < 0)
        return r;
    struct xs_permissions perms[2] = {{owner, XS_PERM_NONE}, {reader, XS_PERM_READ}};
    return xs_set_permissions(c->xs, tx, path, perms, owner == reader ? 1 : 2) ? 0 : failure();
}

int store_tx_start(struct store_client *c, store_tx *out)
{
    xs_transaction_t tx = xs_transaction_start(c->xs);
    if (tx == XBT_NULL)
        return failure();
    *out = tx;
    return 0;
}

int store_tx_end(struct store_client *c, store_tx tx, bool abort_it)
{
    return xs_transaction_end(c->xs, tx, abort_it) ? 0 : failure();
}

int store_watch(struct store_client *c, const char *token, const char *path_fmt, ...)
{
    char path[STORE_PATH_MAX];
    int r = COMPOSE(path, path_fmt);
    if (r < 0)
        return r;
    return xs_watch(c->xs, path, token) ? 0 : failure();
}

int store_unwatch(struct store_client *c, const char *token, const char *path_fmt, ...)
{
    char path[STORE_PATH_MAX];
    int r = COMPOSE(path, path_fmt);
    if (r < 0)
        return r;
    return xs_unwatch(c->xs, path, token) ? 0 : failure();
}

int store_next_event(struct store_client *c, char ***event, const char **path, const char **token)
{
    char **got = xs_check_watch(c->xs);
    if (!got)
        return errno == EAGAIN ? -EAGAIN : -EPIPE;
    *event = got;
    *path = got[XS_WATCH_PATH];
    *token = got[XS_WATCH_TOKEN];
    return 0;
}

int store_introduce(struct store_client *c, unsigned domid, unsigned long gfn, uint32_t port)
{
    return xs_introduce_domain(c->xs, domid, gfn, port) ? 0 : failure();
}

int store_release(struct store_client *c, unsigned domid)
{
    return xs_release_domain(c->xs, domid) ? 0 : failure();
}
