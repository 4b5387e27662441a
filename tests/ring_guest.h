/* SPDX-License-Identifier: MIT */
/* tests/ring_guest.h: a guest's end of its store ring: for test guests and benches, in any process.
 *
 * It does as Linux does: it notifies after each piece that it wrote, but of what it read only where the queue had been
 * full. It asks for its connection before it is introduced (docs/misc/xenstore-ring.txt of Xen), so nothing that it
 * sends is lost. False: the store said that the connection is over (page->error), or RING_GUEST_PATIENCE_MS went by.
 */
#ifndef TESTS_RING_GUEST_H
#define TESTS_RING_GUEST_H

#include "platform/platform.h"
#include "store/wire.h"

#define RING_GUEST_PATIENCE_MS 30000 /* ends a test that hangs */

struct ring_guest {
    struct xenstore_domain_interface *page;
    struct evtchn channel;
    struct platform *platform; /* NULL: page and channel are the caller's */
    struct platform_extent extent;
};

/* Over the world of `domain_dir`: grants a page under the store's reserved reference and allocates a port. Not
 * introduced yet: dom0 has to be told channel.port. */
int ring_guest_open(struct ring_guest *g, const char *domain_dir, struct err *e);
void ring_guest_close(struct ring_guest *g);
/* Closes the port and allocates another one. */
int ring_guest_other_port(struct ring_guest *g, struct err *e);

/* Asks for a new connection; done where the store has answered. */
void ring_guest_ask(struct ring_guest *g);
bool ring_guest_connected(struct ring_guest *g);

bool ring_guest_write(struct ring_guest *g, const void *bytes, size_t length);
bool ring_guest_receive(struct ring_guest *g, struct store_message *out);
/* A request and its reply; events in between are dropped. */
bool ring_guest_exchange(struct ring_guest *g, uint32_t type, uint32_t tx, const void *payload, size_t length,
                         struct store_message *out);
/* The store says that the connection is over: XENSTORE_ERROR_*. */
uint32_t ring_guest_await_error(struct ring_guest *g);

#endif
