/* SPDX-License-Identifier: MIT */
/* store/stream.h: a store's state as bytes: the record format of Xen's xenstore-migration.md, version 1, little endian.
 *
 * A preamble, then records of a type, a length and a body that is padded to 8 bytes, END last. Types of the document
 * keep their numbers and layouts (the connection's is the one that xenstored 4.17 has: bytes read, bytes of the message
 * that is partly sent, bytes to send). What the document has no record for has a number of ours: another reader skips
 * it. A guest's socket, and what belongs to it, is among those (STORE_STREAM_GUEST + the document's type): to others
 * each socket is domain 0's, and a guest must not become that.
 *
 * This file knows layouts and nothing else: writing appends to a buffer, reading checks a record in one function and
 * hands out numbers and pointers into the bytes, which the caller keeps. The bytes may be damaged: whatever they hold,
 * a reader answers 0 or -EPROTO and touches nothing outside them. What the numbers mean is checked by who uses them
 * (store/state.c).
 */
#ifndef STORE_STREAM_H
#define STORE_STREAM_H

#include "store/perm.h"

#define STORE_STREAM_GUEST 0x7a6d6400u /* "dmz" */

enum store_stream_type {
    STORE_STREAM_END = 0,
    STORE_STREAM_GLOBAL = 1,
    STORE_STREAM_CONNECTION = 2,
    STORE_STREAM_WATCH = 3,
    STORE_STREAM_TRANSACTION = 4,
    STORE_STREAM_NODE = 5,
    STORE_STREAM_SERVER = STORE_STREAM_GUEST + 0x80, /* ours alone: first, and once */
    STORE_STREAM_DOMAIN,
    STORE_STREAM_QUOTA, /* by name, so that another version's list may differ */
    STORE_STREAM_LISTENER,
    STORE_STREAM_SESSION, /* what a connection has beyond CONNECTION: behind it */
    STORE_STREAM_EVENT,   /* one that waits, in the order in which they go out */
};

enum store_stream_connection_kind { STORE_STREAM_RING = 0, STORE_STREAM_SOCKET = 1 };

/* A node's accesses within a transaction; a committed node has 0. */
enum store_stream_access { STORE_STREAM_READ = 1, STORE_STREAM_WRITTEN = 2 };

struct store_stream_out {
    char *bytes;
    size_t length, room;
    bool failed; /* no memory, or something longer than its field: for ever */
};

struct store_stream_in {
    const char *bytes;
    size_t length, at;
};

/* One record as it was found. */
struct store_stream_record {
    uint32_t type;
    const char *body;
    size_t length;
};

struct store_stream_node {
    uint32_t connection, transaction; /* 0: committed */
    unsigned access;
    const char *path, *value; /* a path has its NUL; 0 permissions: removed by the transaction */
    size_t value_bytes;
    unsigned perm_count;
    struct store_perm perms[STORE_PERMS_MAX];
};

struct store_stream_connection {
    uint32_t id;
    enum store_stream_connection_kind kind;
    int fd;                       /* of a socket */
    unsigned domid, target, port; /* of a ring */
    const char *in, *out;         /* read and not served; to send */
    size_t in_bytes, out_bytes;
    size_t partial_bytes; /* of `out`: the rest of a message that is partly sent */
};

/* A watch as its owner set it, and where `path` is not NULL an event of it. */
struct store_stream_watch {
    uint32_t connection;
    const char *watched, *token, *path;
};

struct store_stream_domain {
    unsigned domid, target;
    bool introduced, stale;
    uint64_t gfn;
    uint32_t port;
    uint64_t brake_ns, braked_for_ns, collided_ago_ns;
};

struct store_stream_quota {
    unsigned domid; /* STORE_STREAM_QUOTA_ALL: of every domain that has none of its own */
    const char *name;
    uint32_t value;
};
#define STORE_STREAM_QUOTA_ALL 0xffffu

struct store_stream_listener {
    unsigned domid;
    int fd;
    const char *path;
};

struct store_stream_session {
    uint32_t connection, last_transaction;
    unsigned domid;
};

struct store_stream_server {
    uint32_t revision; /* of our own records: a reader refuses what is newer than it */
    uint64_t generation;
};

#define STORE_STREAM_REVISION 1u

void store_stream_begin(struct store_stream_out *o); /* the preamble; `o` is zeroed or has been freed */
void store_stream_end(struct store_stream_out *o);
void store_stream_free(struct store_stream_out *o);
/* `guest`: STORE_STREAM_GUEST is added to the type. */
void store_stream_put_node(struct store_stream_out *o, const struct store_stream_node *n, bool guest);
void store_stream_put_connection(struct store_stream_out *o, const struct store_stream_connection *c, bool guest);
void store_stream_put_watch(struct store_stream_out *o, const struct store_stream_watch *w, bool guest);
void store_stream_put_event(struct store_stream_out *o, const struct store_stream_watch *w);
void store_stream_put_transaction(struct store_stream_out *o, uint32_t connection, uint32_t id, bool guest);
void store_stream_put_global(struct store_stream_out *o, int socket_fd, int evtchn_fd);
void store_stream_put_server(struct store_stream_out *o, const struct store_stream_server *s);
void store_stream_put_domain(struct store_stream_out *o, const struct store_stream_domain *d);
void store_stream_put_quota(struct store_stream_out *o, const struct store_stream_quota *q);
void store_stream_put_listener(struct store_stream_out *o, const struct store_stream_listener *l);
void store_stream_put_session(struct store_stream_out *o, const struct store_stream_session *s);

/* Checks the preamble: 0 or -EPROTO. */
int store_stream_open(struct store_stream_in *in, const char *bytes, size_t length);
/* 1 and the next record, 0 at END, -EPROTO where there is none. */
int store_stream_next(struct store_stream_in *in, struct store_stream_record *r);
/* Each 0 or -EPROTO; strings have their NUL, and no other. */
int store_stream_get_node(const struct store_stream_record *r, struct store_stream_node *n);
int store_stream_get_connection(const struct store_stream_record *r, struct store_stream_connection *c);
int store_stream_get_watch(const struct store_stream_record *r, struct store_stream_watch *w);
int store_stream_get_event(const struct store_stream_record *r, struct store_stream_watch *w);
int store_stream_get_transaction(const struct store_stream_record *r, uint32_t *connection, uint32_t *id);
int store_stream_get_server(const struct store_stream_record *r, struct store_stream_server *s);
int store_stream_get_domain(const struct store_stream_record *r, struct store_stream_domain *d);
int store_stream_get_listener(const struct store_stream_record *r, struct store_stream_listener *l);
int store_stream_get_session(const struct store_stream_record *r, struct store_stream_session *s);
int store_stream_get_quota(const struct store_stream_record *r, struct store_stream_quota *q);

#endif
