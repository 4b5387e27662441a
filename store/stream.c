/* SPDX-License-Identifier: MIT */
#include "store/stream.h"

#include <assert.h>
#include <endian.h>
#include <string.h>

#include "base/reader.h"
#include "base/span.h"

#define STORE_STREAM_VERSION    1u
#define STORE_STREAM_ROOM_FIRST 65536
#define STORE_STREAM_NO_TARGET  0x7ff4u /* DOMID_INVALID of <xen/xen.h> */
#define STORE_STREAM_PERM_STALE 1u      /* of a domain that is gone: not to be looked at */

struct wire_preamble {
    char ident[8];
    uint32_t version, flags; /* big endian */
};
struct wire_record {
    uint32_t type, length;
};
struct wire_connection {
    uint32_t id;
    uint16_t kind, pad;
    union {
        struct {
            uint16_t domid, target;
            uint32_t port;
        } ring;
        int32_t fd;
    } spec;
    uint16_t in_bytes, partial_bytes;
    uint32_t out_bytes;
};
struct wire_watch {
    uint32_t connection;
    uint16_t watched_bytes, token_bytes;
};
struct wire_event {
    uint32_t connection;
    uint16_t watched_bytes, token_bytes, path_bytes, pad[3];
};
struct wire_transaction {
    uint32_t connection, id;
};
struct wire_perm {
    uint8_t access, flags;
    uint16_t domid;
};
struct wire_node {
    uint32_t connection, transaction;
    uint16_t path_bytes, value_bytes, access, perm_count;
};
struct wire_global {
    int32_t socket_fd, evtchn_fd;
};
struct wire_server {
    uint32_t revision, pad;
    uint64_t generation;
};
struct wire_domain {
    uint16_t domid, target;
    uint32_t flags;
    uint64_t gfn, brake_ns, braked_for_ns, collided_ago_ns;
    uint32_t port, pad;
};
struct wire_quota {
    uint32_t value;
    uint16_t domid, name_bytes;
};
struct wire_listener {
    int32_t fd;
    uint16_t domid, path_bytes;
};
struct wire_session {
    uint32_t connection, last_transaction;
    uint16_t domid, pad[3];
};
enum { DOMAIN_INTRODUCED = 1, DOMAIN_STALE = 2 };

_Static_assert(sizeof(struct wire_preamble) == 16, "as the document has it");
_Static_assert(sizeof(struct wire_connection) == 24, "as xenstored 4.17 has it");
_Static_assert(sizeof(struct wire_watch) == 8 && sizeof(struct wire_transaction) == 8, "as the document has it");
_Static_assert(sizeof(struct wire_node) == 16 && sizeof(struct wire_perm) == 4, "as the document has it");
_Static_assert(sizeof(struct wire_domain) == 48 && sizeof(struct wire_session) == 16, "no holes");

/* ---- writing ---- */

static char *out_reserve(struct store_stream_out *o, size_t bytes)
{
    if (!o->failed && bytes > o->room - o->length) {
        size_t room = MAX(MAX(o->room * 2, (size_t)STORE_STREAM_ROOM_FIRST), o->length + bytes);
        char *more = realloc(o->bytes, room);
        o->failed = !more;
        if (more) {
            o->bytes = more;
            o->room = room;
        }
    }
    return o->failed ? NULL : o->bytes + o->length;
}

static void out_bytes(struct store_stream_out *o, const void *bytes, size_t length)
{
    char *to = out_reserve(o, length);
    if (!to || !length)
        return;
    memcpy(to, bytes, length);
    o->length += length;
}

/* A piece of a body. */
struct piece {
    const void *bytes;
    size_t length;
};

static void put(struct store_stream_out *o, uint32_t type, const struct piece *pieces, unsigned count)
{
    size_t body = 0;
    for (unsigned i = 0; i < count; i++)
        body += pieces[i].length;
    size_t padded = (body + 7) & ~(size_t)7;
    if (padded > UINT32_MAX || !out_reserve(o, sizeof(struct wire_record) + padded)) {
        o->failed = true;
        return;
    }
    /* the length counts the padding, as xenstored's reader goes from record to record by it */
    out_bytes(o, &(struct wire_record){.type = type, .length = (uint32_t)padded}, sizeof(struct wire_record));
    for (unsigned i = 0; i < count; i++)
        out_bytes(o, pieces[i].bytes, pieces[i].length);
    out_bytes(o, "\0\0\0\0\0\0\0", padded - body);
}

/* A length for a field of 16 bits. */
static uint16_t narrow(struct store_stream_out *o, size_t bytes)
{
    if (bytes > UINT16_MAX)
        o->failed = true;
    return (uint16_t)bytes;
}

void store_stream_begin(struct store_stream_out *o)
{
    *o = (struct store_stream_out){0};
    struct wire_preamble p = {.version = htobe32(STORE_STREAM_VERSION), .flags = htobe32(0)};
    memcpy(p.ident, "xenstore", sizeof(p.ident));
    out_bytes(o, &p, sizeof(p));
}

void store_stream_end(struct store_stream_out *o)
{
    put(o, STORE_STREAM_END, NULL, 0);
}

void store_stream_free(struct store_stream_out *o)
{
    free(o->bytes);
    *o = (struct store_stream_out){0};
}

static uint32_t type_of(enum store_stream_type type, bool guest)
{
    return (uint32_t)type + (guest ? STORE_STREAM_GUEST : 0);
}

void store_stream_put_node(struct store_stream_out *o, const struct store_stream_node *n, bool guest)
{
    struct wire_perm perms[STORE_PERMS_MAX];
    size_t path_bytes = strlen(n->path) + 1;
    assert(n->perm_count <= STORE_PERMS_MAX);
    struct wire_node w = {.connection = n->connection,
                          .transaction = n->transaction,
                          .path_bytes = narrow(o, path_bytes),
                          .value_bytes = narrow(o, n->value_bytes),
                          .access = (uint16_t)n->access,
                          .perm_count = (uint16_t)n->perm_count};
    for (unsigned i = 0; i < n->perm_count; i++)
        perms[i] = (struct wire_perm){.access = (uint8_t) "nrwb"[n->perms[i].access & (STORE_READ | STORE_WRITE)],
                                      .domid = n->perms[i].domid};
    struct piece pieces[] = {
        {&w, sizeof(w)}, {perms, n->perm_count * sizeof(perms[0])}, {n->path, path_bytes}, {n->value, n->value_bytes}};
    put(o, type_of(STORE_STREAM_NODE, guest), pieces, ARRAY_SIZE(pieces));
}

void store_stream_put_connection(struct store_stream_out *o, const struct store_stream_connection *c, bool guest)
{
    struct wire_connection w = {.id = c->id,
                                .kind = (uint16_t)c->kind,
                                .in_bytes = narrow(o, c->in_bytes),
                                .partial_bytes = narrow(o, c->partial_bytes),
                                .out_bytes = (uint32_t)c->out_bytes};
    if (c->out_bytes > UINT32_MAX)
        o->failed = true;
    if (c->kind == STORE_STREAM_SOCKET) {
        w.spec.fd = c->fd;
    } else {
        w.spec.ring.domid = (uint16_t)c->domid;
        w.spec.ring.target = (uint16_t)(c->target == c->domid ? STORE_STREAM_NO_TARGET : c->target);
        w.spec.ring.port = c->port;
    }
    struct piece pieces[] = {{&w, sizeof(w)}, {c->in, c->in_bytes}, {c->out, c->out_bytes}};
    put(o, type_of(STORE_STREAM_CONNECTION, guest), pieces, ARRAY_SIZE(pieces));
}

void store_stream_put_watch(struct store_stream_out *o, const struct store_stream_watch *w, bool guest)
{
    size_t watched = strlen(w->watched) + 1, token = strlen(w->token) + 1;
    struct wire_watch wire = {w->connection, narrow(o, watched), narrow(o, token)};
    struct piece pieces[] = {{&wire, sizeof(wire)}, {w->watched, watched}, {w->token, token}};
    put(o, type_of(STORE_STREAM_WATCH, guest), pieces, ARRAY_SIZE(pieces));
}

void store_stream_put_event(struct store_stream_out *o, const struct store_stream_watch *w)
{
    size_t watched = strlen(w->watched) + 1, token = strlen(w->token) + 1, path = strlen(w->path) + 1;
    struct wire_event wire = {w->connection, narrow(o, watched), narrow(o, token), narrow(o, path), {0}};
    struct piece pieces[] = {{&wire, sizeof(wire)}, {w->watched, watched}, {w->token, token}, {w->path, path}};
    put(o, STORE_STREAM_EVENT, pieces, ARRAY_SIZE(pieces));
}

void store_stream_put_transaction(struct store_stream_out *o, uint32_t connection, uint32_t id, bool guest)
{
    struct wire_transaction w = {connection, id};
    put(o, type_of(STORE_STREAM_TRANSACTION, guest), &(struct piece){&w, sizeof(w)}, 1);
}

void store_stream_put_global(struct store_stream_out *o, int socket_fd, int evtchn_fd)
{
    struct wire_global w = {socket_fd, evtchn_fd};
    put(o, STORE_STREAM_GLOBAL, &(struct piece){&w, sizeof(w)}, 1);
}

void store_stream_put_server(struct store_stream_out *o, const struct store_stream_server *s)
{
    struct wire_server w = {.revision = s->revision, .generation = s->generation};
    put(o, STORE_STREAM_SERVER, &(struct piece){&w, sizeof(w)}, 1);
}

void store_stream_put_domain(struct store_stream_out *o, const struct store_stream_domain *d)
{
    struct wire_domain w = {
        .domid = (uint16_t)d->domid,
        .target = (uint16_t)d->target,
        .flags = (d->introduced ? DOMAIN_INTRODUCED : 0u) | (d->stale ? DOMAIN_STALE : 0u),
        .gfn = d->gfn,
        .brake_ns = d->brake_ns,
        .braked_for_ns = d->braked_for_ns,
        .collided_ago_ns = d->collided_ago_ns,
        .port = d->port,
    };
    put(o, STORE_STREAM_DOMAIN, &(struct piece){&w, sizeof(w)}, 1);
}

void store_stream_put_quota(struct store_stream_out *o, const struct store_stream_quota *q)
{
    size_t name = strlen(q->name) + 1;
    struct wire_quota w = {.value = q->value, .domid = (uint16_t)q->domid, .name_bytes = narrow(o, name)};
    struct piece pieces[] = {{&w, sizeof(w)}, {q->name, name}};
    put(o, STORE_STREAM_QUOTA, pieces, ARRAY_SIZE(pieces));
}

void store_stream_put_listener(struct store_stream_out *o, const struct store_stream_listener *l)
{
    size_t path = strlen(l->path) + 1;
    struct wire_listener w = {.fd = l->fd, .domid = (uint16_t)l->domid, .path_bytes = narrow(o, path)};
    struct piece pieces[] = {{&w, sizeof(w)}, {l->path, path}};
    put(o, STORE_STREAM_LISTENER, pieces, ARRAY_SIZE(pieces));
}

void store_stream_put_session(struct store_stream_out *o, const struct store_stream_session *s)
{
    struct wire_session w = {
        .connection = s->connection, .last_transaction = s->last_transaction, .domid = (uint16_t)s->domid};
    put(o, STORE_STREAM_SESSION, &(struct piece){&w, sizeof(w)}, 1);
}

/* ---- reading ---- */

int store_stream_open(struct store_stream_in *in, const char *bytes, size_t length)
{
    struct wire_preamble p;
    *in = (struct store_stream_in){.bytes = bytes, .length = length, .at = sizeof(p)};
    if (length < sizeof(p))
        return -EPROTO;
    memcpy(&p, bytes, sizeof(p));
    return memcmp(p.ident, "xenstore", sizeof(p.ident)) || p.version != htobe32(STORE_STREAM_VERSION) || p.flags
               ? -EPROTO
               : 0;
}

int store_stream_next(struct store_stream_in *in, struct store_stream_record *r)
{
    struct wire_record w;
    if (!span_fits(in->at, sizeof(w), in->length))
        return -EPROTO;
    memcpy(&w, in->bytes + in->at, sizeof(w));
    size_t padded = ((size_t)w.length + 7) & ~(size_t)7;
    if (!span_fits(in->at + sizeof(w), padded, in->length))
        return -EPROTO;
    *r = (struct store_stream_record){.type = w.type, .body = in->bytes + in->at + sizeof(w), .length = w.length};
    in->at += sizeof(w) + padded;
    return w.type != STORE_STREAM_END;
}

/* The next bytes, which are a string with its NUL and no other; or NULL. */
static const char *take_text(struct reader *r, size_t length)
{
    const char *at = reader_take(r, length);
    r->bad = r->bad || length == 0 || memchr(at, '\0', length) != at + length - 1;
    return r->bad ? NULL : at;
}

static struct reader open_body(const struct store_stream_record *r, void *fixed, size_t length)
{
    struct reader rest = {.at = r->body, .left = r->length};
    const char *at = reader_take(&rest, length);
    memset(fixed, 0, length);
    if (at)
        memcpy(fixed, at, length);
    return rest;
}

static int perm_get(const struct wire_perm *w, struct store_perm *p)
{
    const char *letter = w->access ? strchr("nrwb", w->access) : NULL;
    if (!letter || w->domid > STORE_DOMID_MAX)
        return -EPROTO;
    *p = (struct store_perm){.domid = w->domid, .access = (uint8_t)(letter - "nrwb")};
    return 0;
}

int store_stream_get_node(const struct store_stream_record *r, struct store_stream_node *n)
{
    struct wire_node w;
    struct reader rest = open_body(r, &w, sizeof(w));
    n->perm_count = 0;
    if (w.perm_count > STORE_PERMS_MAX)
        return -EPROTO;
    const char *perms = reader_take(&rest, w.perm_count * sizeof(struct wire_perm));
    n->connection = w.connection;
    n->transaction = w.transaction;
    n->access = w.access;
    n->path = take_text(&rest, w.path_bytes);
    n->value = reader_take(&rest, w.value_bytes);
    n->value_bytes = w.value_bytes;
    if (rest.bad)
        return -EPROTO;
    for (unsigned i = 0; i < w.perm_count; i++) {
        struct wire_perm perm;
        memcpy(&perm, perms + i * sizeof(perm), sizeof(perm));
        if (i > 0 && (perm.flags & STORE_STREAM_PERM_STALE))
            continue;
        if (perm_get(&perm, &n->perms[n->perm_count++]) < 0)
            return -EPROTO;
    }
    return 0;
}

int store_stream_get_connection(const struct store_stream_record *r, struct store_stream_connection *c)
{
    struct wire_connection w;
    struct reader rest = open_body(r, &w, sizeof(w));
    *c = (struct store_stream_connection){.id = w.id,
                                          .kind = (enum store_stream_connection_kind)w.kind,
                                          .fd = -1,
                                          .in = reader_take(&rest, w.in_bytes),
                                          .in_bytes = w.in_bytes,
                                          .out = reader_take(&rest, w.out_bytes),
                                          .out_bytes = w.out_bytes,
                                          .partial_bytes = w.partial_bytes};
    if (w.kind == STORE_STREAM_SOCKET) {
        c->fd = w.spec.fd;
    } else {
        c->domid = w.spec.ring.domid;
        c->target = w.spec.ring.target == STORE_STREAM_NO_TARGET ? c->domid : w.spec.ring.target;
        c->port = w.spec.ring.port;
    }
    bool known = w.kind == STORE_STREAM_SOCKET || w.kind == STORE_STREAM_RING;
    bool sane = c->id && c->partial_bytes <= c->out_bytes && MAX(c->domid, c->target) <= STORE_DOMID_MAX;
    return rest.bad || !known || !sane ? -EPROTO : 0;
}

int store_stream_get_watch(const struct store_stream_record *r, struct store_stream_watch *w)
{
    struct wire_watch wire;
    struct reader rest = open_body(r, &wire, sizeof(wire));
    *w = (struct store_stream_watch){.connection = wire.connection};
    w->watched = take_text(&rest, wire.watched_bytes);
    w->token = take_text(&rest, wire.token_bytes);
    return rest.bad ? -EPROTO : 0;
}

int store_stream_get_event(const struct store_stream_record *r, struct store_stream_watch *w)
{
    struct wire_event wire;
    struct reader rest = open_body(r, &wire, sizeof(wire));
    *w = (struct store_stream_watch){.connection = wire.connection};
    w->watched = take_text(&rest, wire.watched_bytes);
    w->token = take_text(&rest, wire.token_bytes);
    w->path = take_text(&rest, wire.path_bytes);
    return rest.bad ? -EPROTO : 0;
}

int store_stream_get_transaction(const struct store_stream_record *r, uint32_t *connection, uint32_t *id)
{
    struct wire_transaction w;
    struct reader rest = open_body(r, &w, sizeof(w));
    *connection = w.connection;
    *id = w.id;
    return rest.bad || !w.id ? -EPROTO : 0;
}

int store_stream_get_server(const struct store_stream_record *r, struct store_stream_server *s)
{
    struct wire_server w;
    struct reader rest = open_body(r, &w, sizeof(w));
    *s = (struct store_stream_server){.revision = w.revision, .generation = w.generation};
    return rest.bad || w.revision > STORE_STREAM_REVISION ? -EPROTO : 0;
}

int store_stream_get_domain(const struct store_stream_record *r, struct store_stream_domain *d)
{
    struct wire_domain w;
    struct reader rest = open_body(r, &w, sizeof(w));
    *d = (struct store_stream_domain){.domid = w.domid,
                                      .target = w.target,
                                      .introduced = w.flags & DOMAIN_INTRODUCED,
                                      .stale = w.flags & DOMAIN_STALE,
                                      .gfn = w.gfn,
                                      .port = w.port,
                                      .brake_ns = w.brake_ns,
                                      .braked_for_ns = w.braked_for_ns,
                                      .collided_ago_ns = w.collided_ago_ns};
    return rest.bad || MAX(w.domid, w.target) > STORE_DOMID_MAX ? -EPROTO : 0;
}

int store_stream_get_quota(const struct store_stream_record *r, struct store_stream_quota *q)
{
    struct wire_quota w;
    struct reader rest = open_body(r, &w, sizeof(w));
    *q = (struct store_stream_quota){.domid = w.domid, .name = take_text(&rest, w.name_bytes), .value = w.value};
    return rest.bad || (w.domid > STORE_DOMID_MAX && w.domid != STORE_STREAM_QUOTA_ALL) ? -EPROTO : 0;
}

int store_stream_get_listener(const struct store_stream_record *r, struct store_stream_listener *l)
{
    struct wire_listener w;
    struct reader rest = open_body(r, &w, sizeof(w));
    *l = (struct store_stream_listener){.domid = w.domid, .fd = w.fd, .path = take_text(&rest, w.path_bytes)};
    return rest.bad || w.domid > STORE_DOMID_MAX ? -EPROTO : 0;
}

int store_stream_get_session(const struct store_stream_record *r, struct store_stream_session *s)
{
    struct wire_session w;
    struct reader rest = open_body(r, &w, sizeof(w));
    *s = (struct store_stream_session){w.connection, w.last_transaction, w.domid};
    return rest.bad || w.domid > STORE_DOMID_MAX ? -EPROTO : 0;
}
