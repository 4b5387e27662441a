/* SPDX-License-Identifier: MIT */
/* tests/ring_world.h: pages and event channels of this process, offered to a server as the rings of its domains: what
 * the store role finds through platform/, in the least code. What is taken is counted, and must come back. */
#ifndef TESTS_RING_WORLD_H
#define TESTS_RING_WORLD_H

#include "store/ring.h"
#include "tests/ring_guest.h"
#include "tests/storekit.h"

#define RING_WORLD_MAX 8

struct ring_offer {
    unsigned domid;
    uint32_t port;
    struct ring_guest guest;
    struct evtchn channel; /* the server's end */
    unsigned opened, released;
};

struct ring_world {
    struct kit_server kit;
    struct ring_offer offer[RING_WORLD_MAX];
    unsigned offers;
    int dom0; /* a raw connection */
};

void ring_world_start(struct ring_world *w);
void ring_world_start_with(struct ring_world *w, const char *journal); /* NULL: none */
void ring_world_stop(struct ring_world *w);                            /* and asserts that all came back */
/* A page and a port that the domain offers from now on; not introduced. */
struct ring_offer *ring_world_offer(struct ring_world *w, unsigned domid, uint32_t port);
/* The reply of domain 0's INTRODUCE. */
struct kit_reply ring_world_introduce(struct ring_world *w, unsigned domid, uint32_t port);
/* Offers, introduces, waits for the connection and gives the domain a home. */
struct ring_guest *ring_world_guest(struct ring_world *w, unsigned domid);

#endif
