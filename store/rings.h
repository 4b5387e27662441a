/* SPDX-License-Identifier: MIT */
/* store/rings.h: the rings of a server's domains, one each at the most, from INTRODUCE to the domain's end.
 *
 * A ring that is connected belongs to a connection of the server, like an accepted socket. One that is dead is looked
 * at here: its event channel is polled, and when the guest asks to reconnect it gets a new connection. So the guest can
 * make us do one connection's worth of work for each event, in its turn, and holds one connection's worth of memory.
 *
 * How a page and a port are found is the world's affair: whoever runs the server gives a source.
 */
#ifndef STORE_RINGS_H
#define STORE_RINGS_H

#include "base/err.h"
#include "base/list.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/map.h"
#include "store/ring.h"
#include "store/server.h"

struct store_rings {
    struct map by_domid;
    struct list died; /* since the last settling */
    struct loop *loop;
    struct store_server *server;
    struct store_ring_source source; /* .open is NULL: no rings */
    struct log_limiter limiter;
};

/* `source` NULL: there are none. Server and loop are borrowed. */
void store_rings_init(struct store_rings *rs, const struct store_ring_source *source, struct store_server *s,
                      struct loop *loop);
void store_rings_deinit(struct store_rings *rs);
/* What an INTRODUCE says of a domain's ring: the one that it had goes, and, where there is a port, another one comes.
 * `lost`: its guest spoke with a server that is no more, and has to ask. 0, or -errno with a sentence; the domain has
 * no ring then. */
int store_rings_open(struct store_rings *rs, unsigned domid, uint64_t gfn, uint32_t port, bool lost, struct err *e);
/* The ring of a domain whose connection another process had, up to now: alive, in the middle of what both queues hold.
 * *out: the transport, for the caller to make that connection of. 0, or -errno with a sentence. */
int store_rings_resume(struct store_rings *rs, unsigned domid, uint64_t gfn, uint32_t port,
                       struct store_transport **out, struct err *e);
/* Harmless where it has none. */
void store_rings_close(struct store_rings *rs, unsigned domid);
bool store_rings_has(const struct store_rings *rs, unsigned domid);
/* To be called after anything that may have ended a connection, before the loop waits. */
void store_rings_settle(struct store_rings *rs);

#endif
