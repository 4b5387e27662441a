/* SPDX-License-Identifier: MIT */
/* store/rota.h: the open connections, and whose turn it is.
 *
 * A connection that has something to serve stands in the queue of those that are ready. A round gives each of them one
 * turn, in that order: STORE_TURN_REQUESTS requests, for a guest shared by its connections, so that neither a long
 * stream nor many connections are served more than others are. One that has more stands at the queue's end again. A
 * round's changes are told to those who watch at its end, in one go; a connection that is served meanwhile gets its
 * events before its replies.
 *
 * Descriptors are polled edge triggered and a connection remembers that it may have bytes. So nothing is asked of the
 * kernel for it while it waits: for the end of its domain's brake (`braked`, by a timer), or for its domain to read
 * (`stalled` of store/domain.h). No step looks at connections that have no part in it.
 */
#ifndef STORE_ROTA_H
#define STORE_ROTA_H

#include "base/log.h"
#include "store/conn.h"

#define STORE_TURN_REQUESTS 16 /* answered by one send */

struct store_rota {
    struct loop *loop; /* borrowed, as is the engine */
    struct store_engine *engine;
    struct loop_source timer; /* brakes end without an event of a descriptor */
    uint64_t timer_due_ns;    /* 0: not armed */
    struct list open, closed; /* store_conn.link */
    struct list ready, braked;
    struct list round_end; /* stands in `ready` behind those whose turn is in this round */
    unsigned connections;
    struct log_limiter limiter;
    uint64_t slow; /* disconnected as they did not read */
    struct store_outbox outbox;
};

int store_rota_init(struct store_rota *r, struct loop *l, struct store_engine *g); /* 0 or -errno */
void store_rota_deinit(struct store_rota *r);                                      /* ends all; before the engine */
/* Takes the transport in any case. 0 or -errno; *out (may be NULL): which connection it is. */
int store_rota_take(struct store_rota *r, struct store_transport *t, unsigned domid, struct store_conn **out);
/* Ends the connection that has this transport. */
void store_rota_end(struct store_rota *r, const struct store_transport *t);
void store_rota_end_domain(struct store_rota *r, unsigned domid);
/* One turn to each that is ready now, as far as the budget of requests goes (a turn without one counts as one), then
 * store_rota_tell(). What was used of the budget. */
unsigned store_rota_round(struct store_rota *r, unsigned budget);
static inline bool store_rota_is_ready(const struct store_rota *r)
{
    return !list_empty(&r->ready);
}
/* Sends the events that wait. */
void store_rota_tell(struct store_rota *r);
/* All connections are looked at: what was done to them was not done by their turns. */
void store_rota_settle(struct store_rota *r);
/* Frees the connections that have ended; not to be called by what a connection calls. */
void store_rota_bury(struct store_rota *r);

#endif
