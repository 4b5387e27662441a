/* SPDX-License-Identifier: MIT */
/* store/conn.h: one connection: whole requests out of what a transport brings, replies and events into what it takes.
 *
 * A connection is served in turns (store/rota.h has them go round). In a turn it receives once or twice, serves the
 * whole requests that came, up to the turn's budget and time, and sends all answers at once. They are gathered in the
 * outbox, which all connections share, as one is served at a time; only what does not go at once is kept in memory of
 * the connection's own. So a peer that reads costs no allocation, and two system calls for as many requests as it sent.
 *
 * What a peer can make us hold, charged to its domain: one buffer of requests, of fixed size (what it sent beyond stays
 * with the transport, whose size is the kernel's or the ring's), and answers up to the outstanding quota and a turn
 * more: a guest with that many unread ones, over all its connections, is not read from until it has read, nor is one
 * while its brake is on (store/domain.h). Events wait at the session, where they merge, until everything before them
 * has gone. Who has closed its sending side yet gets the answers to all that it sent. Broken is for ever: no request is
 * served any more, and the rota closes it.
 *
 * An event goes after the reply to the request that caused it, and before the reply to the next one.
 */
#ifndef STORE_CONN_H
#define STORE_CONN_H

#include "base/loop.h"
#include "store/ops.h"
#include "store/stream.h"
#include "store/transport.h"

#define STORE_CONN_IN_BYTES  (2 * sizeof(struct store_message)) /* one message at any place, or many small ones */
#define STORE_TURN_NS        200000 /* a turn of dear requests ends early: others wait for it */
#define STORE_OUTBOX_BYTES   65536
#define STORE_OUTBOX_FULL(o) ((o)->used > STORE_OUTBOX_BYTES - sizeof(struct store_message))

/* Messages on their way to the connection whose turn it is; empty between turns. */
struct store_outbox {
    size_t used;
    unsigned count;
    struct store_message in, reply; /* of the request being served: messages in buffers are not aligned */
    char bytes[STORE_OUTBOX_BYTES];
};

struct store_conn {
    struct loop_source source;
    struct store_transport *transport; /* NULL once closed */
    struct store_rota *rota;
    struct list link; /* the rota's open or closed ones */
    struct list turn; /* those that are ready, or wait for something else than bytes (store/rota.h) */
    struct store_session session;
    uint32_t armed;    /* the epoll events asked for */
    int broken;        /* -errno, enum store_wire_error, or 0 */
    bool readable;     /* the transport may have bytes: until it said that it has none */
    bool hung_up;      /* nothing will come but what is there, and the end */
    bool ended;        /* the end has come */
    unsigned unsent;   /* messages in `out`, the first perhaps in part */
    size_t first_left; /* bytes of the first */
    char *out;         /* NULL where all was sent */
    size_t out_at, out_end, out_room;
    size_t in_at, in_end; /* of in_bytes: not served yet */
    char in_bytes[STORE_CONN_IN_BYTES];
};

/* Takes the transport in any case; NULL: no memory. */
struct store_conn *store_conn_new(struct store_transport *t, struct store_engine *g, unsigned domid);
/* Ends what it means to the store and closes the transport; the memory stays until store_conn_free(). */
void store_conn_close(struct store_conn *c);
void store_conn_free(struct store_conn *c);
/* Sends what can be sent, serves at most `budget` requests and sends what came of it. The number served; what goes
 * wrong is in c->broken. */
unsigned store_conn_turn(struct store_conn *c, struct store_outbox *out, unsigned budget);
/* Sends what can be sent, waiting events included. */
void store_conn_flush(struct store_conn *c, struct store_outbox *out);
/* What was received and not served, and what was not sent, into the fields of `r`; borrowed. */
void store_conn_describe(const struct store_conn *c, struct store_stream_connection *r);
/* Whether it can be what a connection had; then a new one has it: 0 or -ENOMEM. */
bool store_conn_can_resume(const struct store_stream_connection *r);
int store_conn_resume(struct store_conn *c, const struct store_stream_connection *r);
/* Something can be served: a whole request is here, or bytes may be. */
bool store_conn_has_work(const struct store_conn *c);
/* Too much of its waits to be read by the peer. */
bool store_conn_is_stalled(const struct store_conn *c);
bool store_conn_is_braked(const struct store_conn *c);
/* The transport's descriptor had these epoll events. */
void store_conn_notice(struct store_conn *c, uint32_t events);
/* What to poll for. */
uint32_t store_conn_interest(const struct store_conn *c);

#endif
