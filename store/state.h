/* SPDX-License-Identifier: MIT */
/* store/state.h: the engine as a stream of records (store/stream.h), and an engine out of one.
 *
 * Order: SERVER, quotas, domains, what the edge has, nodes, parents before children and children oldest first; then
 * transactions and what is in them. The tree comes out as it went in, but for its versions' numbers: they go on above
 * those that were, so a client in the middle of DIRECTORY_PART reads its list again.
 *
 * A transaction is the list of what it touched. One whose bases are still what the tree has gets them again; any other
 * could not have committed, and says so when it comes to that. What an open transaction holds is thus lost by nobody.
 *
 * The bytes may be damaged: whatever they are, loading answers 0 or -errno with a sentence. After an error the engine
 * can be deinitialised and nothing else.
 */
#ifndef STORE_STATE_H
#define STORE_STATE_H

#include "store/session.h"
#include "store/stream.h"

/* SERVER, the quotas and the domains. */
void store_state_put_domains(struct store_stream_out *o, const struct store_engine *g);
/* All committed nodes. */
void store_state_put_nodes(struct store_stream_out *o, const struct store_engine *g);
/* A connection's watches and the events that wait; later, after the nodes, its transactions. `guest`: it is one that
 * only we know (store/stream.h). */
void store_state_put_watches(struct store_stream_out *o, const struct store_session *s, uint32_t connection,
                             bool guest);
void store_state_put_transactions(struct store_stream_out *o, const struct store_session *s, uint32_t connection,
                                  bool guest);

/* Whose records the engine's loader passes on. */
struct store_state_edge {
    /* GLOBAL, LISTENER, CONNECTION, SESSION: 0 or -errno with a sentence. */
    int (*record)(void *context, const struct store_stream_record *r, struct err *e);
    /* The session that a CONNECTION and its SESSION made, or NULL. */
    struct store_session *(*session)(void *context, uint32_t connection);
    void *context;
};

/* Fills an engine that was just initialised. `edge` NULL: only what the engine itself has, all else is skipped. No
 * hook of the engine is called, no event fires. */
int store_state_load(struct store_engine *g, const char *bytes, size_t length, const struct store_state_edge *edge,
                     struct err *e);

#endif
