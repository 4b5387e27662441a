/* SPDX-License-Identifier: MIT */
/* store/link.h: one connection to a store that is made again when it breaks: under store/client.h.
 *
 * It speaks xs_wire.h to a socket, or to the device that a kernel has for its domain's ring. Requests are asked one at
 * a time; events that come between are kept, each path and token once, until they are taken. No thread: store_link_fd()
 * is one descriptor for all of its life, readable while events are kept, may come, or the connection has to be seen to.
 *
 * A store that restarts has lost its connections and nothing else. So a request that found no answer is asked again on
 * the next connection, for up to LINK_PATIENCE_MS; it may then have happened twice, or once and late, which is the same
 * for all that is asked here. Watches are set again, each with its first event: "look again". A transaction is over
 * (-EAGAIN: run it again). Where nobody listens any more (LINK_GONE_MS without a socket, or the patience is over) the
 * link is lost for ever: -EPIPE.
 *
 * Not thread safe: one thread, or one at a time. The store is trusted to answer; what it says is checked all the same,
 * as a message that is none ends the connection.
 */
#ifndef STORE_LINK_H
#define STORE_LINK_H

#include <sys/uio.h>

#include "base/err.h"

#define LINK_PATIENCE_MS 20000 /* a supervisor waits 5 s at the most before it starts a role again */
#define LINK_GONE_MS     1000  /* without a socket: a role that starts puts its own in the place of the old one */
#define LINK_RETRY_MS    100   /* between two tries, at the most; the first ones come sooner */
#define LINK_OPEN_MS     10000 /* for the first connection, where there is a socket that nobody listens at: as above */
#define LINK_TRIES       5     /* connections on which one request finds no answer: it may be what ends them */

struct store_link;

/* `path` NULL: $XENSTORED_PATH, else where xenstored is. */
int store_link_open(const char *path, struct store_link **out, struct err *e);
void store_link_close(struct store_link *l);
int store_link_fd(const struct store_link *l);

/* One request outside transactions or in `tx` (0: none). The payload of the answer, with a NUL behind it, in *out
 * (the caller's; `out` NULL: not wanted) and its length in *length. -errno as the store answers, -EAGAIN where the
 * transaction is over, -EPIPE. */
int store_link_ask(struct store_link *l, uint32_t type, uint32_t tx, const struct iovec *parts, unsigned count,
                   char **out, size_t *length);
/* The same; whether it was asked more than once, so that "it is so already" is as good. */
bool store_link_repeated(const struct store_link *l);
int store_link_tx_start(struct store_link *l, uint32_t *out);
int store_link_tx_end(struct store_link *l, uint32_t tx, bool abort_it);
int store_link_watch(struct store_link *l, const char *path, const char *token);
int store_link_unwatch(struct store_link *l, const char *path, const char *token);
/* The next event, without waiting: *path and *token point into *event, which the caller frees. -EAGAIN, -EPIPE. */
int store_link_event(struct store_link *l, char ***event, const char **path, const char **token);

#endif
