/* SPDX-License-Identifier: MIT */
/* backend/store_pages.h: where the store role finds its domains' rings: the page that a domain granted under the
 * reserved reference GNTTAB_RESERVED_XENSTORE, and the port that INTRODUCE named, in any world of platform/.
 *
 * The frame number of INTRODUCE is not looked at, as the grant says which one it is. A ring is one process's: where the
 * process that granted the page goes, or the channel has nobody at its other end, it is over; the store's domain stays.
 */
#ifndef BACKEND_STORE_PAGES_H
#define BACKEND_STORE_PAGES_H

#include "base/list.h"
#include "platform/platform.h"
#include "store/server.h"

struct store_pages {
    struct platform *platform;
    struct list all;
};

/* The platform is borrowed, until the server that uses the source is freed. */
void store_pages_init(struct store_pages *s, struct platform *p);
/* What struct store_options has as `rings`. */
struct store_ring_source store_pages_source(struct store_pages *s);
/* A process of the domain is gone: is the domain's ring? */
bool store_pages_lost(const struct store_pages *s, uint16_t domid, uint32_t instance);

#endif
