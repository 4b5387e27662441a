/* SPDX-License-Identifier: MIT */
#include "store/handover.h"

#include <assert.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/log.h"
#include "store/server_parts.h"
#include "store/state.h"

/* ---- out ---- */

struct saving {
    struct store_stream_out *o;
    uint32_t id; /* the last connection's */
};

static void listener_save(void *context, int fd, unsigned domid, const char *path)
{
    struct saving *s = context;
    if (domid == 0)
        store_stream_put_global(s->o, fd, -1);
    store_stream_put_listener(s->o, &(struct store_stream_listener){.domid = domid, .fd = fd, .path = path});
}

static bool conn_is_ring(const struct store_conn *c)
{
    return c->transport->ops->signals_room;
}

static void conn_save(void *context, struct store_conn *c)
{
    struct saving *s = context;
    const struct store_session *session = &c->session;
    unsigned domid = session->domain->domid;
    bool ring = conn_is_ring(c);
    struct store_stream_connection r = {.id = ++s->id,
                                        .kind = ring ? STORE_STREAM_RING : STORE_STREAM_SOCKET,
                                        .fd = ring ? -1 : c->transport->fd,
                                        .domid = domid,
                                        .target = session->domain->target,
                                        .port = session->domain->port};
    store_conn_describe(c, &r);
    store_stream_put_connection(s->o, &r, !ring && domid != 0);
    store_stream_put_session(s->o, &(struct store_stream_session){.connection = r.id,
                                                                  .last_transaction = session->last_transaction,
                                                                  .domid = domid});
    store_state_put_watches(s->o, session, r.id, !ring && domid != 0);
}

static void conn_save_transactions(void *context, struct store_conn *c)
{
    struct saving *s = context;
    store_state_put_transactions(s->o, &c->session, ++s->id, !conn_is_ring(c) && c->session.domain->domid != 0);
}

int store_handover_save(struct store_server *s, struct store_stream_out *o)
{
    struct saving saving = {.o = o};
    store_stream_begin(o);
    store_state_put_domains(o, store_server_engine(s));
    store_server_listeners_each(s, listener_save, &saving);
    store_server_conns_each(s, conn_save, &saving);
    store_state_put_nodes(o, store_server_engine(s));
    saving.id = 0;
    store_server_conns_each(s, conn_save_transactions, &saving);
    store_stream_end(o);
    return o->failed ? -ENOMEM : 0;
}

static void listener_keep(void *context, int fd, unsigned domid, const char *path)
{
    (void)domid, (void)path;
    fcntl(fd, F_SETFD, *(const bool *)context ? 0 : FD_CLOEXEC);
}

static void conn_keep(void *context, struct store_conn *c)
{
    if (!conn_is_ring(c))
        fcntl(c->transport->fd, F_SETFD, *(const bool *)context ? 0 : FD_CLOEXEC);
}

void store_handover_keep(struct store_server *s, bool keep)
{
    store_server_listeners_each(s, listener_keep, &keep);
    store_server_conns_each(s, conn_keep, &keep);
}

/* ---- in ---- */

struct loading {
    struct store_server *server; /* NULL: only a check */
    struct store_engine *engine;
    struct map sessions;                 /* store_session by connection */
    struct map shadows;                  /* those of them that no connection has */
    struct store_stream_connection conn; /* the one whose SESSION is to come; id 0: none */
};

static int damaged(struct err *e, const char *what)
{
    return err_set(e, -EPROTO, "the store's state is damaged: %s", what);
}

static bool is_socket(int fd)
{
    struct stat st;
    return fd > STDERR_FILENO && fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
}

static int load_listener(struct loading *l, const struct store_stream_record *r, struct err *e)
{
    struct store_stream_listener s;
    if (store_stream_get_listener(r, &s) < 0)
        return damaged(e, "a listening socket");
    if (!l->server)
        return 0;
    if (!is_socket(s.fd))
        return damaged(e, "a listening socket that is none");
    fcntl(s.fd, F_SETFD, FD_CLOEXEC);
    return store_server_listener_take(l->server, s.fd, s.domid, s.path, e);
}

static int load_connection(struct loading *l, const struct store_stream_record *r, struct err *e)
{
    if (l->conn.id || store_stream_get_connection(r, &l->conn) < 0 || map_get(&l->sessions, l->conn.id))
        return damaged(e, "a connection");
    return 0;
}

/* A session that no connection has. */
static struct store_session *shadow_make(struct loading *l, unsigned domid)
{
    struct store_session *s = malloc(sizeof(*s));
    if (!s || store_session_init(s, l->engine, domid) < 0) {
        free(s);
        return NULL;
    }
    if (map_put(&l->shadows, l->conn.id, s) == 0)
        return s;
    store_session_deinit(s);
    free(s);
    return NULL;
}

static struct store_transport *transport_make(struct loading *l, unsigned domid, struct err *e)
{
    if (l->conn.kind == STORE_STREAM_RING)
        return store_server_ring_resume(l->server, domid, l->conn.port, e);
    if (!is_socket(l->conn.fd)) {
        damaged(e, "a connection that is none");
        return NULL;
    }
    fcntl(l->conn.fd, F_SETFD, FD_CLOEXEC);
    return store_transport_socket(l->conn.fd);
}

/* A ring that cannot go on is as one whose guest has to ask again: a session to which the records belong that follow,
 * and which ends with them. */
static struct store_session *conn_make(struct loading *l, unsigned domid, struct err *e)
{
    struct store_transport *t = transport_make(l, domid, e);
    if (!t && l->conn.kind == STORE_STREAM_RING) {
        log_warning("store: domain %u has to connect its ring again: %s", domid, e->text);
        return shadow_make(l, domid);
    }
    struct store_conn *c = t ? store_server_conn_take(l->server, t, domid) : NULL;
    if (!c || store_conn_resume(c, &l->conn) < 0)
        return NULL;
    return &c->session;
}

static int load_session(struct loading *l, const struct store_stream_record *r, struct err *e)
{
    struct store_stream_session s;
    if (store_stream_get_session(r, &s) < 0 || !l->conn.id || s.connection != l->conn.id ||
        !store_conn_can_resume(&l->conn))
        return damaged(e, "a session");
    err_write(e, "store: no memory for a session");
    struct store_session *session = l->server ? conn_make(l, s.domid, e) : shadow_make(l, s.domid);
    if (!session)
        return -ENOMEM;
    session->last_transaction = s.last_transaction;
    int status = map_put(&l->sessions, l->conn.id, session);
    l->conn.id = 0;
    return status < 0 ? err_set(e, status, "store: no memory for a session") : 0;
}

static int on_record(void *context, const struct store_stream_record *r, struct err *e)
{
    switch (r->type) {
    case STORE_STREAM_LISTENER: return load_listener(context, r, e);
    case STORE_STREAM_SESSION: return load_session(context, r, e);
    case STORE_STREAM_CONNECTION:
    case STORE_STREAM_GUEST + STORE_STREAM_CONNECTION: return load_connection(context, r, e);
    default: return 0; /* GLOBAL says what LISTENER says better */
    }
}

static struct store_session *on_session(void *context, uint32_t connection)
{
    return map_get(&((struct loading *)context)->sessions, connection);
}

static int load(struct loading *l, const struct store_saved *saved, struct err *e)
{
    const struct store_state_edge edge = {.record = on_record, .session = on_session, .context = l};
    struct store_session *shadow;
    int r = store_state_load(l->engine, saved->bytes, saved->length, &edge, e);
    map_foreach (&l->shadows, i, shadow) {
        store_session_deinit(shadow);
        free(shadow);
    }
    map_deinit(&l->shadows);
    map_deinit(&l->sessions);
    return r == 0 && l->conn.id ? damaged(e, "a connection without a session") : r;
}

int store_handover_load(struct store_server *s, const struct store_saved *saved, struct err *e)
{
    struct loading l = {.server = s, .engine = store_server_engine(s)};
    int r = load(&l, saved, e);
    if (r == 0)
        store_server_conns_go(s);
    return r;
}

int store_handover_check(const struct store_saved *saved, struct err *e)
{
    struct store_engine engine;
    struct loading l = {.engine = &engine};
    int r = store_engine_init(&engine, NULL, 1);
    if (r < 0)
        return err_set(e, r, "store: no memory for the tree");
    r = load(&l, saved, e);
    store_engine_deinit(&engine);
    return r;
}
