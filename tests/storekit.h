/* SPDX-License-Identifier: MIT */
/* tests/storekit.h: what the store's tests share: asking the engine as a session does, asking a socket with raw
 * messages, and a server that is stepped by a thread of its own in a directory that goes away afterwards. */
#ifndef TESTS_STOREKIT_H
#define TESTS_STOREKIT_H

#include <pthread.h>

#include "store/client.h"
#include "store/ops.h"

struct kit_reply {
    uint32_t type;
    size_t length;
    char bytes[XENSTORE_PAYLOAD_MAX + 1]; /* a NUL stands behind it */
};

/* The engine, asked directly. */
struct kit_reply kit_ask(struct store_session *s, uint32_t type, uint32_t tx, const void *payload, size_t length);
/* The payload is one string, or two, or a path and a value. */
struct kit_reply kit_ask1(struct store_session *s, uint32_t type, uint32_t tx, const char *text);
struct kit_reply kit_ask2(struct store_session *s, uint32_t type, uint32_t tx, const char *first, const char *second);
struct kit_reply kit_write(struct store_session *s, uint32_t tx, const char *path, const char *value);
uint32_t kit_tx(struct store_session *s);
/* The reply's strings, with ',' for each NUL. */
void kit_expect_list(struct kit_reply r, const char *commas);
void kit_expect_ok(struct kit_reply r);
void kit_expect_text(struct kit_reply r, const char *bytes);  /* without a NUL at its end */
void kit_expect_string(struct kit_reply r, const char *text); /* with one */
void kit_expect_error(struct kit_reply r, const char *name);
/* The session's next event is this one; with path NULL, none waits. */
void kit_expect_event(struct store_session *s, const char *path, const char *token);
void kit_drain(struct store_session *s);

/* An engine with sessions of domain 0 and of two guests, 1 and 2, each with a home that it owns; a cmocka state. */
struct kit_world {
    struct store_engine g;
    struct store_session s[3]; /* by domid */
    struct store_session *dom0, *one, *two;
};

int kit_world_new(void **state, const struct store_quota *quota);
int kit_world_new_with(void **state, const struct store_options *o);
int kit_world_free(void **state);
void kit_introduce(struct kit_world *w, const char *domid);
void kit_set_perms(struct store_session *s, const char *path, const char *commas);

/* A deterministic random number below `below`. */
uint32_t kit_random(uint64_t *state, uint32_t below);

/* A server with a thread that steps it. The lock is held while it steps: take it to call the server. */
struct kit_server {
    struct store_server *server;
    char dir[64], socket[96];
    pthread_t thread;
    pthread_mutex_t lock;
    int stop_fd;
};

/* `options` NULL: the defaults. */
void kit_server_start(struct kit_server *k, const struct store_options *options);
void kit_server_stop(struct kit_server *k); /* and checks that it left nothing open */
/* The same as a cmocka state, for tests of which each has a server of its own. XENSTORED_PATH leads to it. */
int kit_server_new(void **state);
int kit_server_free(void **state);
/* A raw connection to domain 0's socket (domid 0) or a guest's; negative where refused. */
int kit_connect(const struct kit_server *k, unsigned domid);
void kit_send(int fd, const void *bytes, size_t length);
void kit_send_request(int fd, uint32_t type, uint32_t tx, const void *payload, size_t length);
/* The next message; false at the end of the connection. */
bool kit_receive(int fd, struct kit_reply *out);
struct kit_reply kit_exchange(int fd, uint32_t type, uint32_t tx, const void *payload, size_t length);
/* CONTROL live-update with one argument or two (`second` not NULL); -s until the answer is not BUSY. */
struct kit_reply kit_live_ask(int fd, const char *first, const char *second);
struct kit_reply kit_live_start(int fd);
/* All of it at the socket of a real store role, which serves as `program` afterwards. */
void kit_live_update(const char *socket, const char *program);
/* A client of domain 0 or of a guest. */
struct store_client *kit_client(const struct kit_server *k, unsigned domid);
void kit_guest_make(struct store_client *dom0, unsigned domid); /* introduces it, gives it a home */
void kit_expect_value(struct store_client *c, const char *path, const char *value);
struct store_server_stats kit_stats(struct kit_server *k);

#endif
