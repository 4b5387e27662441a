/* SPDX-License-Identifier: MIT */
/* store/ring.h: the ring page of a guest (struct xenstore_domain_interface of <xen/io/xs_wire.h>) as a transport.
 *
 * Two streams of bytes through 1024 bytes each, one page, one event channel. What the page and the channel are made of
 * is the caller's: the ring gets an address, a descriptor and three functions, so it can be tried on any memory.
 *
 * The guest may write any byte of the page at any time. Our two indexes, req_cons and rsp_prod, are kept here and only
 * ever published; the guest's two are read once each time and must lie within 1024 of ours, bytes are copied out before
 * ours is advanced, and of the other words only `connection` is looked at. So whatever it writes, it confuses its own
 * stream. What it can cost us is one look at three words for each event.
 *
 * A ring outlives its connections: it is connected, and then the transport is a store_conn's, or it is dead. It dies
 * when its connection ends, whatever the reason, which `error` in the page tells (XENSTORE_ERROR_*), and comes to life
 * again when the guest asks for it (`connection` = XENSTORE_RECONNECT) or the domain is introduced anew: both queues
 * empty, nothing of the old connection left. docs/misc/xenstore-ring.txt of Xen has the protocol.
 *
 * Waking: guests wait for room in a full queue of requests, and some tell us that they have read only when the queue of
 * answers had been full. So who filled the one is told at once that something was taken, else with the next send or at
 * the turn's end; and a send that falls short has filled the other, and has looked for room once more after it
 * published that.
 */
#ifndef STORE_RING_H
#define STORE_RING_H

#include "store/transport.h"
#include "store/wire.h"

_Static_assert(sizeof(((struct xenstore_domain_interface *)0)->req) == XENSTORE_RING_SIZE, "the ring's page");
_Static_assert(offsetof(struct xenstore_domain_interface, req_cons) == 2048, "the ring's page");
_Static_assert(offsetof(struct xenstore_domain_interface, rsp_prod) == 2060, "the ring's page");
_Static_assert(offsetof(struct xenstore_domain_interface, error) == 2072, "the ring's page");

#define STORE_RING_FEATURES (XENSTORE_SERVER_FEATURE_RECONNECTION | XENSTORE_SERVER_FEATURE_ERROR)

/* The page and the event channel of a ring, by whoever knows how a world has them. */
struct store_ring_link {
    struct xenstore_domain_interface *page;
    int fd;                     /* readable: the guest notified */
    void (*notify)(void *ctx);  /* the guest; never waits */
    void (*consume)(void *ctx); /* fd is not readable any more, until the next time */
    void (*release)(void *ctx); /* gives back both; once, the last that is called */
    void *ctx;
};

struct store_ring {
    struct store_transport transport; /* whose connection it is, while `connected` */
    struct store_ring_link link;
    uint32_t req_cons, rsp_prod; /* ours; what stands in the page is for the guest */
    bool connected;
    bool bad_index;                     /* why it died */
    bool owes;                          /* bytes were taken and the guest not told yet */
    void (*died)(struct store_ring *r); /* the connection is over: may be NULL */
};

/* Takes over the link. The ring is dead, and the page untouched. */
void store_ring_init(struct store_ring *r, const struct store_ring_link *link);
/* Releases the link; its connection is gone before. */
void store_ring_deinit(struct store_ring *r);
/* Empties both queues, says so to the guest, and is alive: the transport of a new connection, whose close() ends it. */
struct store_transport *store_ring_connect(struct store_ring *r);
/* The same in the middle of a connection that another process had: the page says where its queues are. Both say it as
 * the guest left it, so one that changed it has its own connection ended. */
struct store_transport *store_ring_resume(struct store_ring *r);
/* The server that the guest spoke with is no more: says so, and stays dead until the guest asks. */
void store_ring_lose(struct store_ring *r);
/* Whether the guest asks for a new connection. */
bool store_ring_asked(const struct store_ring *r);

#endif
