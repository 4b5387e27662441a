/* SPDX-License-Identifier: MIT */
/* store/server_parts.h: what a server consists of, for who takes it apart and puts it together again
 * (store/handover.h), and for nobody else. */
#ifndef STORE_SERVER_PARTS_H
#define STORE_SERVER_PARTS_H

#include "store/conn.h"
#include "store/server.h"

struct store_engine *store_server_engine(struct store_server *s);
typedef void store_server_listener_fn(void *context, int fd, unsigned domid, const char *path);
void store_server_listeners_each(struct store_server *s, store_server_listener_fn *fn, void *context);
typedef void store_server_conn_fn(void *context, struct store_conn *c);
void store_server_conns_each(struct store_server *s, store_server_conn_fn *fn, void *context);
/* Takes over a listening socket, the descriptor in any case. 0 or -errno with a sentence. */
int store_server_listener_take(struct store_server *s, int fd, unsigned domid, const char *path, struct err *e);
/* As store_server_adopt(), and which connection it is; NULL: no memory or no event. */
struct store_conn *store_server_conn_take(struct store_server *s, struct store_transport *t, unsigned domid);
/* The transport of a ring whose connection a predecessor had; NULL, with a sentence: it cannot go on. */
struct store_transport *store_server_ring_resume(struct store_server *s, unsigned domid, uint32_t port, struct err *e);
/* All connections are as they were: what they have to do is looked for. */
void store_server_conns_go(struct store_server *s);

#endif
