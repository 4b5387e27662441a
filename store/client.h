/* SPDX-License-Identifier: MIT */
/* store/client.h: the rest of domzero talks to xenstore through this thin layer over the wire protocol (store/link.h),
 * so the same code meets our store role, xenstored, oxenstored or a real Xen.
 *
 * A client is one connection; it is not thread safe (one thread a client). It outlives a restart of the store: calls
 * wait for the next one, watches are set again, and each has a first event then, so who looks again at an event
 * has missed nothing. A transaction that was open answers -EAGAIN from then on, its end too. A change may have been
 * made twice, or later than others that came meanwhile. Values read are bounded copies, NUL-terminated, owned by the
 * caller. Every call is a round trip to the store: control plane only.
 *
 * What is read here was written by somebody else: a value is text of at most STORE_VALUE_MAX bytes and nothing more
 * until a typed reader (xenbus/keys.h) has judged it.
 */
#ifndef STORE_CLIENT_H
#define STORE_CLIENT_H

#include <stdarg.h>

#include "base/err.h"

#define STORE_PATH_MAX  1024 /* longest path this project composes; the protocol's limit is 3072 */
#define STORE_VALUE_MAX 4096 /* XENSTORE_PAYLOAD_MAX of <xen/io/xs_wire.h> */

struct store_client;

/* A transaction: 0 is none. */
typedef uint32_t store_tx;
#define STORE_NO_TX ((store_tx)0)

/* Connects to the socket at `path` (NULL: as libxenstore finds it, by XENSTORED_PATH or its default). */
int store_client_open(const char *path, struct store_client **out, struct err *e);
void store_client_close(struct store_client *c);
/* Readable when a watch event waits or the connection wants to be seen to, by store_next_event(); the same as long as
 * the client. */
int store_client_fd(struct store_client *c);

/* The value at the printf-composed path as a NUL-terminated string in *out (caller frees), its length without the NUL
 * in *length where that is not NULL. -ENOENT, -EACCES … as the store answers. */
int store_read(struct store_client *c, store_tx tx, char **out, size_t *length, const char *path_fmt, ...) PRINTF(5, 6);
/* Writes the string `value` (without its NUL). */
int store_write(struct store_client *c, store_tx tx, const char *value, const char *path_fmt, ...) PRINTF(4, 5);
/* store_write of a printf-composed value below a directory: `dir`/`key`. */
int store_printf(struct store_client *c, store_tx tx, const char *dir, const char *key, const char *value_fmt, ...)
    PRINTF(5, 6);
int store_mkdir(struct store_client *c, store_tx tx, const char *path_fmt, ...) PRINTF(3, 4);
/* Removes the node and all below it; 0 also where there was none. */
int store_rm(struct store_client *c, store_tx tx, const char *path_fmt, ...) PRINTF(3, 4);
/* Child names as a NULL-terminated array in one allocation (free() it); *count where not NULL. */
int store_directory(struct store_client *c, store_tx tx, char ***out, unsigned *count, const char *path_fmt, ...)
    PRINTF(5, 6);

/* Sets "n<owner>" and, where reader != owner, "r<reader>" on the node: the shape every device node has. */
int store_set_owner_reader(struct store_client *c, store_tx tx, unsigned owner, unsigned reader, const char *path_fmt,
                           ...) PRINTF(5, 6);

int store_tx_start(struct store_client *c, store_tx *out);
/* -EAGAIN: somebody else's change collided; run the whole transaction again. */
int store_tx_end(struct store_client *c, store_tx tx, bool abort_it);

int store_watch(struct store_client *c, const char *token, const char *path_fmt, ...) PRINTF(3, 4);
int store_unwatch(struct store_client *c, const char *token, const char *path_fmt, ...) PRINTF(3, 4);
/* The next waiting event, without blocking: *path and *token point into *event, which the caller frees.
 * -EAGAIN: none waits. -EPIPE: the store is gone for good, and the descriptor stays readable. */
int store_next_event(struct store_client *c, char ***event, const char **path, const char **token);

/* Domain administration, dom0 only: INTRODUCE, RELEASE. */
int store_introduce(struct store_client *c, unsigned domid, unsigned long gfn, uint32_t port);
int store_release(struct store_client *c, unsigned domid);
/* CONTROL live-update with an option and, where not NULL, its value (backend/live.h): what the store said of it, "OK",
 * "BUSY" or why not, in *reply (caller frees). */
int store_live_update(struct store_client *c, const char *option, const char *value, char **reply);

#endif
