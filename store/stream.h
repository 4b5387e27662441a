/* SPDX-License-Identifier: MIT */
/* store/stream.h: a store's state as bytes: the record format of Xen's xenstore-migration.md, version 1, little endian.
 *
 * A preamble, then records of a type, a length and a body that is padded to 8 bytes, END last. Types of the document
 * keep their numbers and layouts (the connection's is the one that xenstored 4.17 has: bytes read, bytes of the message
 * that is partly sent, bytes to send). What the document has no record for has a number of ours: another reader skips
 * it. A guest's socket, and what belongs to it, is among those (STREAM_GUEST + the document's type): to others each
 * socket is domain 0's, and a guest must not become that.
 *
 * This file knows layouts and nothing else: writing appends to a buffer, reading checks a record in one function and
 * hands out numbers and pointers into the bytes, which the caller keeps. The bytes may be damaged: whatever they hold,
 * a reader answers 0 or -EPROTO and touches nothing outside them. What the numbers mean is checked by who uses them
 * (store/state.c).
 */
#ifndef STORE_STREAM_H
#define STORE_STREAM_H

#include "store/perm.h"

#define STREAM_GUEST 0x7a6d6400u /* "dmz" */

enum stream_type {
    STREAM_END = 0,
    STREAM_GLOBAL = 1,
    STREAM_CONNECTION = 2,
    STREAM_WATCH = 3,
    STREAM_TRANSACTION = 4,
    STREAM_NODE = 5,
    STREAM_SERVER = STREAM_GUEST + 0x80, /* ours alone: first, and once */
    STREAM_DOMAIN,
    STREAM_QUOTA, /* by name, so that another version's list may differ */
    STREAM_LISTENER,
    STREAM_SESSION, /* what a connection has beyond CONNECTION: behind it */
    STREAM_EVENT,   /* one that waits, in the order in which they go out */
};

enum stream_connection_kind { STREAM_RING = 0, STREAM_SOCKET = 1 };

/* A node's accesses within a transaction; a committed node has 0. */
enum stream_access { STREAM_READ = 1, STREAM_WRITTEN = 2 };

struct stream_out {
    char *bytes;
    size_t length, room;
    bool failed; /* no memory, or something longer than its field: for ever */
};

struct stream_in {
    const char *bytes;
    size_t length, at;
};

/* One record as it was found. */
struct stream_record {
    uint32_t type;
    const char *body;
    size_t length;
};

struct stream_node {
    uint32_t connection, transaction; /* 0: committed */
    unsigned access;
    const char *path, *value; /* a path has its NUL; 0 permissions: removed by the transaction */
    size_t value_bytes;
    unsigned perm_count;
    struct store_perm perms[STORE_PERMS_MAX];
};

struct stream_connection {
    uint32_t id;
    enum stream_connection_kind kind;
    int fd;                       /* of a socket */
    unsigned domid, target, port; /* of a ring */
    const char *in, *out;         /* read and not served; to send */
    size_t in_bytes, out_bytes;
    size_t partial_bytes; /* of `out`: the rest of a message that is partly sent */
};

/* A watch as its owner set it, and where `path` is not NULL an event of it. */
struct stream_watch {
    uint32_t connection;
    const char *watched, *token, *path;
};

struct stream_domain {
    unsigned domid, target;
    bool introduced, stale;
    uint64_t gfn;
    uint32_t port;
    uint64_t brake_ns, braked_for_ns, collided_ago_ns;
};

struct stream_quota {
    unsigned domid; /* STREAM_QUOTA_ALL: of every domain that has none of its own */
    const char *name;
    uint32_t value;
};
#define STREAM_QUOTA_ALL 0xffffu

struct stream_listener {
    unsigned domid;
    int fd;
    const char *path;
};

struct stream_session {
    uint32_t connection, last_transaction;
    unsigned domid;
};

struct stream_server {
    uint32_t revision; /* of our own records: a reader refuses what is newer than it */
    uint64_t generation;
};

#define STREAM_REVISION 1u

void stream_begin(struct stream_out *o); /* the preamble; `o` is zeroed or has been freed */
void stream_end(struct stream_out *o);
void stream_free(struct stream_out *o);
/* `guest`: STREAM_GUEST is added to the type. */
void stream_put_node(struct stream_out *o, const struct stream_node *n, bool guest);
void stream_put_connection(struct stream_out *o, const struct stream_connection *c, bool guest);
void stream_put_watch(struct stream_out *o, const struct stream_watch *w, bool guest);
void stream_put_event(struct stream_out *o, const struct stream_watch *w);
void stream_put_transaction(struct stream_out *o, uint32_t connection, uint32_t id, bool guest);
void stream_put_global(struct stream_out *o, int socket_fd, int evtchn_fd);
void stream_put_server(struct stream_out *o, const struct stream_server *s);
void stream_put_domain(struct stream_out *o, const struct stream_domain *d);
void stream_put_quota(struct stream_out *o, const struct stream_quota *q);
void stream_put_listener(struct stream_out *o, const struct stream_listener *l);
void stream_put_session(struct stream_out *o, const struct stream_session *s);

/* Checks the preamble: 0 or -EPROTO. */
int stream_open(struct stream_in *in, const char *bytes, size_t length);
/* 1 and the next record, 0 at END, -EPROTO where there is none. */
int stream_next(struct stream_in *in, struct stream_record *r);
/* Each 0 or -EPROTO; strings have their NUL, and no other. */
int stream_get_node(const struct stream_record *r, struct stream_node *n);
int stream_get_connection(const struct stream_record *r, struct stream_connection *c);
int stream_get_watch(const struct stream_record *r, struct stream_watch *w);
int stream_get_event(const struct stream_record *r, struct stream_watch *w);
int stream_get_transaction(const struct stream_record *r, uint32_t *connection, uint32_t *id);
int stream_get_server(const struct stream_record *r, struct stream_server *s);
int stream_get_domain(const struct stream_record *r, struct stream_domain *d);
int stream_get_listener(const struct stream_record *r, struct stream_listener *l);
int stream_get_session(const struct stream_record *r, struct stream_session *s);
int stream_get_quota(const struct stream_record *r, struct stream_quota *q);

#endif
