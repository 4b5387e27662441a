/* SPDX-License-Identifier: MIT */
/* store/conn.h: one connection: whole requests out of partial reads, replies and events into partial writes, over any
 * transport (store/transport.h).
 *
 * It reads exactly up to the end of the request that it is in, so what the peer sent ahead stays in the transport's
 * buffer, whose size is the transport's. It holds one request, and of answers no more than the outstanding limit: at
 * that many unsent messages the peer is not read from, until it has read. It is not read from either while the brake of
 * its domain is on (store/domain.h). Broken is for ever: the server then closes it.
 */
#ifndef STORE_CONN_H
#define STORE_CONN_H

#include "base/log.h"
#include "base/loop.h"
#include "store/ops.h"
#include "store/transport.h"

struct store_conn {
    struct loop_source source;
    struct store_transport *transport; /* NULL once closed */
    struct list link;                  /* the server's open or closed ones */
    struct store_server *server;
    struct store_session session;
    struct log_limiter limiter;
    struct list unsent; /* store_conn_packet */
    unsigned unsent_count;
    uint32_t armed; /* the epoll events asked for */
    int broken;     /* -errno, enum store_wire_error, or 0 */
    size_t have;    /* bytes of `in` so far */
    struct store_message in;
};

/* Takes the transport in any case; NULL: no memory. */
struct store_conn *store_conn_new(struct store_transport *t, struct store_engine *g, unsigned domid);
/* Ends what it means to the store and closes the transport; the memory stays until store_conn_free(). */
void store_conn_close(struct store_conn *c);
void store_conn_free(struct store_conn *c);
/* Reads on; serves the request when it is complete. 1: served one, 0: not yet; what goes wrong is in c->broken. */
int store_conn_serve(struct store_conn *c);
/* Sends what can be sent, waiting events included. */
void store_conn_flush(struct store_conn *c);
bool store_conn_may_read(const struct store_conn *c);
/* What to poll for: EPOLLIN, EPOLLOUT. */
uint32_t store_conn_interest(const struct store_conn *c);

#endif
