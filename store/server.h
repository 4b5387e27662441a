/* SPDX-License-Identifier: MIT */
/* store/server.h: xenstored's wire protocol over unix sockets, as a library that the store role steps.
 *
 * The server owns its listening sockets and connections and keeps them in an epoll set of its own; the caller polls
 * store_server_fd() and calls store_server_step(), or gives its thread to store_server_run(). No thread, no global.
 * Behind the sockets is the pure engine (store/tree.h, store/watch.h, store/transaction.h), which knows no file
 * descriptor.
 *
 * Who a caller is follows from what its bytes came by: `<run>/xenstored/socket` (mode 0600) is domain 0, and
 * `<run>/dom/<domid>/xenstored.sock` (mode 0600, made at INTRODUCE, gone at RELEASE) is that domain, as is its ring
 * (store/rings.h). Where the peer's uid (SO_PEERCRED) is neither the server's own nor root, the connection is refused.
 * Nothing in a message can change it.
 */
#ifndef STORE_SERVER_H
#define STORE_SERVER_H

#include "store/quota.h"

struct loop;
struct store_server;
struct store_transport;
struct store_ring_link;

/* Where Xen's two reference servers answer differently (docs/store.md), which of them is followed. */
enum store_answers { STORE_ANSWERS_C, STORE_ANSWERS_OCAML };

/* What a predecessor left, who was this process (store/handover.h); borrowed. */
struct store_saved {
    const char *bytes; /* NULL: nothing */
    size_t length;
};

/* How a world finds the ring of a domain, by what INTRODUCE says of it (store/ring.h). */
struct store_ring_source {
    void *ctx;
    /* 0; -errno with a sentence, whose number the toolstack is answered with. */
    int (*open)(void *ctx, unsigned domid, uint64_t gfn, uint32_t port, struct store_ring_link *out, struct err *e);
};
/* What a server is started with; zeroed, it has the defaults. */
struct store_options {
    struct store_quota quota; /* of each unprivileged domain; a field of 0 is its default */
    enum store_answers answers;
    const char *journal;      /* the file that outlives the process (store/journal.h); NULL: nothing does */
    struct store_saved saved; /* goes before what the journal says, and before new sockets */
    const struct store_ring_source *rings; /* NULL: domains have their sockets alone, as where INTRODUCE names port 0 */
};

/* "c" or "ocaml": 0, or -EINVAL. */
int store_answers_parse(const char *text, enum store_answers *out);

/* Makes `<run_dir>/xenstored/` (0700) and its socket. `o` NULL: the defaults. 0, or -errno with a sentence. */
int store_server_new(const char *run_dir, const struct store_options *o, struct store_server **out, struct err *e);
void store_server_free(struct store_server *s); /* removes its sockets */
int store_server_fd(const struct store_server *s);
/* One more connection of `domid`, over a transport that the caller made; it lasts until the peer, the domain or the
 * server ends. Takes the transport in any case. 0 or -errno. */
int store_server_adopt(struct store_server *s, struct store_transport *t, unsigned domid);
/* Ends the connection that has this transport. */
void store_server_end(struct store_server *s, const struct store_transport *t);

/* After a restart: the rings of domains that were introduced to a predecessor. Their guests are told that their
 * connection is no more, and have to ask for another. */
void store_server_find_rings(struct store_server *s);
/* The ring's guest is gone; its domain is still introduced. Harmless where it has no ring. */
void store_server_ring_gone(struct store_server *s, unsigned domid);
/* Serves what is ready, at most `budget` messages; waits for nothing. The number served, or -errno. */
int store_server_step(struct store_server *s, unsigned budget);
/* For a process that does nothing else: adds its other sources to this loop and runs it until loop_quit(). Looks for
 * work for a while before it sleeps, where that pays (base/spin.h). 0 or -errno. */
struct loop *store_server_loop(struct store_server *s);
int store_server_run(struct store_server *s);
/* A domain died (the hypervisor said so): as RELEASE by domain 0, its connections, watches, transactions and quota
 * counts go; fires @releaseDomain. Harmless for a domain that was never introduced. The nodes it owned go as well, and
 * its domid disappears from all permissions, as the next domain of that number must find nothing; others' nodes are the
 * toolstack's. */
void store_server_domain_gone(struct store_server *s, unsigned domid);
/* After a restart: the same of each introduced domain for which `alive` (by domid, STORE_DOMID_MAX + 1 of them) says
 * that it died meanwhile. */
void store_server_sweep(struct store_server *s, const bool *alive);

/* Who is asked by CONTROL live-update (struct store_hooks); `fn` NULL: nobody, ENOSYS. */
struct store_session;
typedef int store_live_update_fn(void *context, struct store_session *who, const char *const *args, unsigned count,
                                 char *reply);
void store_server_on_live_update(struct store_server *s, store_live_update_fn *fn, void *context);

struct store_server_stats {
    uint64_t requests, errors, events, events_merged;
    uint64_t slow; /* connections that were ended as their events were not read */
    unsigned connections, domains, nodes, watches, transactions;
};
void store_server_stats(const struct store_server *s, struct store_server_stats *out);

#endif
