/* SPDX-License-Identifier: MIT */
#include "store/state.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "base/log.h"
#include "store/view.h"

/* Beside the document's accesses of a node in a transaction; others' readers do not look at them. */
#define ACCESS_COLLIDED   0x8000u
#define ACCESS_REMADE     0x4000u /* it was removed before, with all below it */
#define ACCESS_FIRE_SHIFT 8

/* ---- out ---- */

/* The rows of `mask`, a bit each. */
static void quotas_put(struct store_stream_out *o, unsigned domid, const struct store_quota *quota, uint32_t mask)
{
    for (unsigned i = 0; i < store_quota_row_count; i++) {
        const struct store_quota_row *row = &store_quota_rows[i];
        if (mask & 1u << i)
            store_stream_put_quota(o, &(struct store_stream_quota){domid, row->name, store_quota_value(quota, row)});
    }
}

static void domain_put(struct store_stream_out *o, const struct store_engine *g, const struct store_domain *d)
{
    bool braked = d->braked_until_ns > g->now_ns;
    struct store_stream_domain s = {.domid = d->domid,
                                    .target = d->target,
                                    .introduced = d->introduced,
                                    .stale = d->stale,
                                    .gfn = d->gfn,
                                    .port = d->port,
                                    .brake_ns = d->brake_ns,
                                    .braked_for_ns = braked ? d->braked_until_ns - g->now_ns : 0,
                                    .collided_ago_ns = g->now_ns - d->collided_ns};
    store_stream_put_domain(o, &s);
    quotas_put(o, d->domid, &d->quota, d->quota_own);
}

void store_state_put_domains(struct store_stream_out *o, const struct store_engine *g)
{
    const struct store_domain *d;
    store_stream_put_server(
        o, &(struct store_stream_server){.revision = STORE_STREAM_REVISION, .generation = g->tree.generation});
    quotas_put(o, STORE_STREAM_QUOTA_ALL, &g->domains.quota, ~0u);
    map_foreach (&g->domains.by_domid, i, d) {
        if (d->domid != 0 && (d->introduced || d->stale))
            domain_put(o, g, d);
    }
}

static void node_fill(struct store_stream_node *n, const char *path, const struct store_node *node)
{
    *n = (struct store_stream_node){.path = path};
    if (!node)
        return;
    n->value = store_node_value(node);
    n->value_bytes = node->value_bytes;
    n->perm_count = node->perm_count;
    memcpy(n->perms, node->perms, node->perm_count * sizeof(n->perms[0]));
}

static void node_put(struct store_stream_out *o, const struct store_tree_slot *slot)
{
    struct store_stream_node n;
    node_fill(&n, slot->path, slot->node);
    store_stream_put_node(o, &n, false);
}

void store_state_put_nodes(struct store_stream_out *o, const struct store_engine *g)
{
    for (const struct store_tree_slot *slot = NULL; (slot = store_tree_next(&g->tree, slot)) != NULL;)
        node_put(o, slot);
}

void store_state_put_watches(struct store_stream_out *o, const struct store_session *s, uint32_t connection, bool guest)
{
    const struct store_watch *watch;
    const struct store_event *event;
    list_foreach (watch, &s->watches, of_session)
        store_stream_put_watch(
            o, &(struct store_stream_watch){connection, store_watch_given(watch), watch->token, NULL}, guest);
    list_foreach (event, &s->events, queued) {
        watch = event->watch;
        store_stream_put_event(
            o, &(struct store_stream_watch){connection, store_watch_given(watch), watch->token, event->path});
    }
}

/* What the transaction did with one path. */
static void touch_put(struct store_stream_out *o, const struct store_transaction *x, const struct store_touch *touch,
                      uint32_t connection, bool guest, bool collided)
{
    struct store_stream_node n;
    bool changed = !list_empty(&touch->changed);
    node_fill(&n, touch->path, changed ? touch->now : NULL);
    n.connection = connection;
    n.transaction = x->id;
    n.access = (collided ? ACCESS_COLLIDED : 0) | ((unsigned)touch->fire << ACCESS_FIRE_SHIFT);
    if (!changed)
        n.access |= STORE_STREAM_READ;
    else if (touch->now)
        n.access |= STORE_STREAM_WRITTEN | (touch->base && touch->unlisted ? ACCESS_REMADE : 0);
    store_stream_put_node(o, &n, guest);
}

/* The changes in their order, so that each finds its parent; then what was only looked at. */
static void transaction_put(struct store_stream_out *o, const struct store_transaction *x, uint32_t connection,
                            bool guest)
{
    struct store_touch *touch;
    struct strmap_entry *e, *next;
    store_stream_put_transaction(o, connection, x->id, guest);
    bool collided = x->doomed || x->broken || !store_transaction_current(x);
    list_foreach (touch, &x->changed, changed)
        touch_put(o, x, touch, connection, guest, collided);
    strmap_foreach_safe(&x->touches, i, e, next)
    {
        touch = container_of(e, struct store_touch, entry);
        if (list_empty(&touch->changed))
            touch_put(o, x, touch, connection, guest, collided);
    }
}

void store_state_put_transactions(struct store_stream_out *o, const struct store_session *s, uint32_t connection,
                                  bool guest)
{
    const struct store_transaction *x;
    list_foreach (x, &s->transactions, link)
        transaction_put(o, x, connection, guest);
}

/* ---- in ---- */

struct loader {
    struct store_engine *g;
    const struct store_state_edge *edge;
    bool planted; /* a transaction has come: all committed nodes are there */
    struct err *e;
};

static int bad(struct loader *l, const struct store_stream_record *r)
{
    return err_set(l->e, -EPROTO, "the store's state is damaged: a record of type 0x%" PRIx32 " of %zu bytes", r->type,
                   r->length);
}

static int no_memory(struct loader *l)
{
    return err_set(l->e, -ENOMEM, "no memory for the store's state");
}

static int load_server(struct loader *l, const struct store_stream_record *r)
{
    struct store_stream_server s;
    if (store_stream_get_server(r, &s) < 0)
        return err_set(l->e, -EPROTO, "the store's state is of a newer version than this program knows");
    l->g->tree.generation = MAX(l->g->tree.generation, s.generation);
    return 0;
}

static int load_quota(struct loader *l, const struct store_stream_record *r)
{
    struct store_stream_quota q;
    if (store_stream_get_quota(r, &q) < 0)
        return bad(l, r);
    const struct store_quota_row *row = store_quota_find(q.name);
    struct store_domain *d = store_domain_find(&l->g->domains, q.domid);
    if (row && q.domid == STORE_STREAM_QUOTA_ALL)
        store_domains_quota_set(&l->g->domains, row, q.value);
    else if (row && d)
        store_domain_quota_set(d, row, q.value);
    return 0;
}

static int load_domain(struct loader *l, const struct store_stream_record *r)
{
    struct store_stream_domain s;
    if (store_stream_get_domain(r, &s) < 0 || s.domid == 0)
        return bad(l, r);
    struct store_engine *g = l->g;
    struct store_domain *d = store_domain_get(&g->domains, s.domid);
    if (!d)
        return no_memory(l);
    g->domains.introduced += s.introduced && !d->introduced;
    d->introduced = d->introduced || s.introduced;
    d->stale = s.stale;
    d->gfn = s.gfn;
    d->port = s.port;
    d->target = s.target;
    d->brake_ns = MIN(s.brake_ns, STORE_BRAKE_MAX_NS);
    d->braked_until_ns = s.braked_for_ns ? g->now_ns + MIN(s.braked_for_ns, STORE_BRAKE_MAX_NS) : 0;
    d->collided_ns = g->now_ns - MIN(s.collided_ago_ns, g->now_ns);
    return 0;
}

static struct store_node *node_make(const struct store_stream_node *n)
{
    return store_node_new(&(struct store_node_parts){
        .perms = n->perms, .perm_count = n->perm_count, .value = n->value, .value_bytes = (uint32_t)n->value_bytes});
}

/* What every store has and the stream has again. */
static bool path_fixed(const struct store_path *path)
{
    return path->special || path->length == 1;
}

static int fixed_replace(struct store_tree *t, const struct store_path *path, struct store_node *node)
{
    struct store_tree_named *named = NULL;
    struct store_tree_slot *slot = store_tree_find(t, path->text, path->length);
    if (!slot)
        return -ENOENT;
    if (!store_node_same_perms(slot->node, node) && store_tree_named_new(node, &named) < 0)
        return -ENOMEM;
    store_tree_replace(t, slot, node, named);
    return 0;
}

static int load_committed(struct loader *l, const struct store_stream_record *r, const struct store_path *path,
                          const struct store_stream_node *n)
{
    struct store_tree *t = &l->g->tree;
    if (l->planted || n->perm_count == 0)
        return bad(l, r); /* too late, or of nobody */
    struct store_node *node = node_make(n);
    if (!node)
        return no_memory(l);
    node->generation = ++t->generation;
    int status = path_fixed(path) ? fixed_replace(t, path, node) : store_tree_plant(t, path->text, path->length, node);
    store_node_unref(node);
    return status == -ENOMEM ? no_memory(l) : status < 0 ? bad(l, r) : 0;
}

/* Makes a node that is not there, below one that is. */
static int pending_create(struct store_transaction *x, const struct store_path *path, const struct store_stream_node *n,
                          enum store_fire fire)
{
    size_t parent_length = store_path_parent(path->text, path->length);
    if (!parent_length || !store_view_peek(x->tree, x, path->text, parent_length))
        return EINVAL;
    return store_transaction_create(x, path->text, path->length, node_make(n), fire);
}

/* 0 or an errno of the transaction. */
static int pending_apply(struct store_transaction *x, const struct store_path *path, const struct store_stream_node *n)
{
    struct store_node *now;
    enum store_fire fire = (enum store_fire)((n->access & ~(ACCESS_COLLIDED | ACCESS_REMADE)) >> ACCESS_FIRE_SHIFT);
    if (n->access & ACCESS_COLLIDED)
        x->doomed = true;
    int error = store_transaction_get(x, path->text, path->length, &now);
    if (error || (n->access & (STORE_STREAM_READ | STORE_STREAM_WRITTEN)) == STORE_STREAM_READ)
        return error;
    bool gone = n->perm_count == 0 || (n->access & ACCESS_REMADE);
    if (fire > STORE_FIRE_TREE || (gone && path_fixed(path)))
        return EINVAL;
    if (gone && now)
        error = store_transaction_remove(x, path->text, path->length, fire);
    if (error || n->perm_count == 0)
        return error;
    return now && !gone ? store_transaction_put(x, path->text, path->length, node_make(n), fire)
                        : pending_create(x, path, n, fire);
}

static struct store_session *session_find(const struct loader *l, uint32_t connection)
{
    return l->edge && l->edge->session ? l->edge->session(l->edge->context, connection) : NULL;
}

static int load_pending(struct loader *l, const struct store_stream_record *r, const struct store_path *path,
                        const struct store_stream_node *n)
{
    struct store_session *s = session_find(l, n->connection);
    struct store_transaction *x = s ? store_session_transaction(s, n->transaction) : NULL;
    if (!l->edge)
        return 0;
    if (!x)
        return bad(l, r);
    int error = pending_apply(x, path, n);
    if (error == EINVAL && !x->doomed)
        return bad(l, r);
    if (error)
        x->doomed = true; /* a base is another by now, or a quota is lower than it was */
    return 0;
}

static int load_node(struct loader *l, const struct store_stream_record *r)
{
    struct store_stream_node n;
    struct store_path path;
    if (store_stream_get_node(r, &n) < 0 || store_path_resolve(&path, n.path, 0, 0) != 0 || path.relative)
        return bad(l, r);
    return n.connection ? load_pending(l, r, &path, &n) : load_committed(l, r, &path, &n);
}

static int load_watch(struct loader *l, const struct store_stream_record *r, bool event)
{
    struct store_stream_watch w;
    struct store_path path;
    if ((event ? store_stream_get_event(r, &w) : store_stream_get_watch(r, &w)) < 0)
        return bad(l, r);
    if (!l->edge)
        return 0;
    struct store_session *s = session_find(l, w.connection);
    if (!s || (w.watched[0] == '@' ? store_path_special(&path, w.watched)
                                   : store_path_resolve(&path, w.watched, s->domain->domid, 0)) != 0)
        return bad(l, r);
    struct store_watches *watches = &l->g->watches;
    int error = event ? store_watch_restore_event(watches, s, &path, w.token, w.path)
                      : store_watch_restore(watches, s, &path, w.token);
    return error == ENOMEM ? no_memory(l) : error ? bad(l, r) : 0;
}

static int load_transaction(struct loader *l, const struct store_stream_record *r)
{
    uint32_t connection, id;
    if (store_stream_get_transaction(r, &connection, &id) < 0)
        return bad(l, r);
    l->planted = true;
    if (!l->edge)
        return 0;
    struct store_session *s = session_find(l, connection);
    if (!s || store_session_transaction(s, id))
        return bad(l, r);
    struct store_transaction *x = store_session_transaction_begin(s, id);
    if (!x)
        return no_memory(l);
    x->room_bytes = UINT64_MAX; /* it was held before; the next request sets what more may be */
    return 0;
}

static int load_record(struct loader *l, const struct store_stream_record *r)
{
    switch (r->type) {
    case STORE_STREAM_SERVER: return load_server(l, r);
    case STORE_STREAM_QUOTA: return load_quota(l, r);
    case STORE_STREAM_DOMAIN: return load_domain(l, r);
    case STORE_STREAM_NODE:
    case STORE_STREAM_GUEST + STORE_STREAM_NODE: return load_node(l, r);
    case STORE_STREAM_WATCH:
    case STORE_STREAM_GUEST + STORE_STREAM_WATCH: return load_watch(l, r, false);
    case STORE_STREAM_EVENT: return load_watch(l, r, true);
    case STORE_STREAM_TRANSACTION:
    case STORE_STREAM_GUEST + STORE_STREAM_TRANSACTION: return load_transaction(l, r);
    case STORE_STREAM_GLOBAL:
    case STORE_STREAM_CONNECTION:
    case STORE_STREAM_GUEST + STORE_STREAM_CONNECTION:
    case STORE_STREAM_LISTENER:
    case STORE_STREAM_SESSION: return l->edge ? l->edge->record(l->edge->context, r, l->e) : 0;
    default: log_debug("store: a record of type 0x%" PRIx32 " is nothing that this program knows", r->type); return 0;
    }
}

/* The nodes that a store begins with are the stream's to have, or not. */
static int tree_clear(struct store_engine *g)
{
    unsigned culprit;
    struct store_transaction x;
    store_transaction_init(&x, &g->tree, 0, 0);
    int error = store_transaction_remove(&x, "/tool", 5, STORE_FIRE_NONE);
    if (!error)
        error = store_transaction_commit(&x, 0, &culprit);
    store_transaction_deinit(&x);
    return error;
}

static int load_all(struct loader *l, struct store_stream_in *in)
{
    struct store_stream_record r;
    int more;
    while ((more = store_stream_next(in, &r)) > 0) {
        int result = load_record(l, &r);
        if (result < 0)
            return result;
    }
    return more < 0 ? err_set(l->e, more, "the store's state ends in the middle") : 0;
}

int store_state_load(struct store_engine *g, const char *bytes, size_t length, const struct store_state_edge *edge,
                     struct err *e)
{
    struct loader l = {.g = g, .edge = edge, .e = e};
    struct store_stream_in in;
    if (store_stream_open(&in, bytes, length) < 0)
        return err_set(e, -EPROTO, "what should be a store's state is none");
    if (tree_clear(g))
        return no_memory(&l);
    return load_all(&l, &in);
}
