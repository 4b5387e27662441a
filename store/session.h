/* SPDX-License-Identifier: MIT */
/* store/session.h: the engine's state, and what it holds for one connection.
 *
 * The engine is the store without descriptors and without a clock: requests go in (store/ops.h), replies come out,
 * events queue up at sessions, and a session that has news stands in the `marked` list for the edge to collect. A
 * session acts for one domid for all its life; the edge decides which, a peer never. The engine outlives its sessions.
 */
#ifndef STORE_SESSION_H
#define STORE_SESSION_H

#include "store/domain.h"
#include "store/server.h"
#include "store/transaction.h"
#include "store/watch.h"

#define STORE_EVENTS_MAX_GUEST 512   /* waiting at one session; a guest's own watch quota keeps it well below */
#define STORE_EVENTS_MAX_DOM0  65536 /* a toolstack that stands still while many devices change: unmeasured */

enum store_change_kind {
    STORE_CHANGE_NODES,     /* nodes: a transaction that will be applied */
    STORE_CHANGE_INTRODUCE, /* domid, gfn, port */
    STORE_CHANGE_GONE,      /* domid: store_engine_domain_gone(), all of it */
    STORE_CHANGE_TARGET,    /* domid, target */
    STORE_CHANGE_QUOTA,     /* domid (STORE_CHANGE_ALL: of all that have none of their own), row, value */
};

#define STORE_CHANGE_ALL 0xffffu

/* A change that is to outlive the process, in one piece. */
struct store_change {
    enum store_change_kind kind;
    const struct store_transaction *nodes;
    unsigned domid, target;
    uint64_t gfn;
    uint32_t port;
    const struct store_quota_row *row;
    unsigned value;
};

/* What happens outside the engine; each may be NULL. */
struct store_hooks {
    /* Before a change takes effect: writes it down. 0, or what the peer is answered with; then nothing has changed. */
    int (*record)(void *context, const struct store_change *change);
    /* Also of one that is introduced, for another ring. 0, or -errno: the number that the toolstack is answered with.
     */
    int (*introduce)(void *context, unsigned domid, uint64_t gfn, uint32_t port);
    void (*release)(void *context, unsigned domid); /* must end the domain's sessions */
    void *context;
    /* CONTROL live-update: a text into `reply` of XENSTORE_PAYLOAD_MAX bytes, or an errno value for who asked. */
    int (*live_update)(void *context, struct store_session *who, const char *const *args, unsigned count, char *reply);
};

struct store_engine {
    struct store_tree tree;
    struct store_watches watches;
    struct store_domains domains;
    enum store_answers answers;
    bool trace; /* each request is logged */
    struct store_hooks hooks;
    struct list marked;    /* store_session.marked */
    unsigned transactions; /* open ones */
    uint64_t requests, errors;
    uint64_t now_ns; /* the edge's clock, for the brake */
};

struct store_session {
    struct store_engine *engine;
    struct store_domain *domain;
    struct list watches, transactions, events; /* ours */
    struct list marked;
    unsigned event_count, event_limit;
    uint32_t last_transaction;
    bool overflowed; /* an event was lost: end the connection */
};

/* `o` NULL: the defaults. -ENOMEM. */
int store_engine_init(struct store_engine *g, const struct store_options *o, uint64_t seed);
void store_engine_deinit(struct store_engine *g); /* its sessions are gone before */
/* The domain is no more: its nodes, its permissions on others' nodes and its introduction go, who watched is told. */
void store_engine_domain_gone(struct store_engine *g, unsigned domid);
/* The same of one whose going was written down already. */
void store_engine_domain_forget(struct store_engine *g, unsigned domid);
/* Has the change written down, where there is a place for it. 0, or an errno value for the peer: it must not happen. */
int store_engine_record(struct store_engine *g, const struct store_change *change);
/* Fires "@introduceDomain" or "@releaseDomain". */
void store_engine_announce(struct store_engine *g, const char *special);
/* Commits and, where that succeeds, fires the events of what changed. As store_transaction_commit. */
int store_engine_commit(struct store_engine *g, struct store_transaction *x);

/* The bytes of memory that are held for a domain: its nodes, watches, waiting events, open transactions, and what the
 * edge buffers for it. */
uint64_t store_engine_domain_bytes(const struct store_engine *g, unsigned domid);
/* How many more a domain may make the store hold; domain 0 has no limit. */
uint64_t store_engine_domain_room_bytes(const struct store_engine *g, unsigned domid);

int store_session_init(struct store_session *s, struct store_engine *g, unsigned domid); /* -ENOMEM */
void store_session_deinit(struct store_session *s);
void store_session_mark(struct store_session *s);
struct store_actor store_session_actor(const struct store_session *s);
/* The same for who asks; the first time that it holds more than its soft quota the log says so. */
uint64_t store_session_room_bytes(const struct store_session *s);
struct store_transaction *store_session_transaction(const struct store_session *s, uint32_t id); /* or NULL */
/* A new one, counted and charged; `id` is not taken. NULL: no memory. */
struct store_transaction *store_session_transaction_begin(struct store_session *s, uint32_t id);
void store_session_transaction_end(struct store_session *s, struct store_transaction *x); /* frees it */
void store_session_reset(struct store_session *s); /* all watches and transactions go */
/* The domain's changes made somebody's transaction fail: serve nothing of it before engine->now_ns reaches this. */
static inline uint64_t store_session_braked_until_ns(const struct store_session *s)
{
    return s->domain->braked_until_ns;
}

#endif
