/* SPDX-License-Identifier: MIT */
#include "store/session.h"

#include <assert.h>
#include <string.h>

int store_engine_init(struct store_engine *g, const struct store_options *o, uint64_t seed)
{
    *g = (struct store_engine){.answers = o ? o->answers : STORE_ANSWERS_C};
    list_init(&g->marked);
    int r = store_tree_init(&g->tree, seed);
    if (r < 0)
        return r;
    store_watches_init(&g->watches, seed);
    const struct store_quota quota = store_quota_complete(o ? &o->quota : NULL);
    r = store_domains_init(&g->domains, &quota);
    if (r < 0)
        store_tree_deinit(&g->tree);
    return r;
}

void store_engine_deinit(struct store_engine *g)
{
    assert(list_empty(&g->marked) && g->transactions == 0);
    store_watches_deinit(&g->watches);
    store_domains_deinit(&g->domains);
    store_tree_deinit(&g->tree);
}

int store_engine_record(struct store_engine *g, const struct store_change *change)
{
    return g->hooks.record ? g->hooks.record(g->hooks.context, change) : 0;
}

static void commit_announce(struct store_engine *g, const struct store_transaction *x)
{
    const struct store_touch *touch;
    list_foreach (touch, &x->changed, changed) {
        if (touch->fire == STORE_FIRE_NONE || (!touch->base && !touch->now))
            continue;
        struct store_node *parents[2];
        store_transaction_parents(x, touch, parents);
        struct store_news news = {.path = touch->path,
                                  .length = touch->entry.length,
                                  .exact = touch->fire == STORE_FIRE_EXACT,
                                  .seen = {touch->base, touch->now, parents[0], parents[1]}};
        store_watch_fire(&g->watches, &news);
    }
}

int store_engine_commit(struct store_engine *g, struct store_transaction *x)
{
    unsigned culprit = x->domid;
    const struct store_domain *writer = x->domid ? store_domain_find(&g->domains, x->domid) : NULL;
    int error = store_transaction_prepare(x, writer ? writer->quota.nodes : 0, &culprit);
    if (!error)
        error = store_engine_record(g, &(struct store_change){.kind = STORE_CHANGE_NODES, .nodes = x});
    struct store_domain *braked =
        error == EAGAIN && culprit != x->domid ? store_domain_find(&g->domains, culprit) : NULL;
    if (braked)
        store_domain_brake(braked, g->now_ns);
    if (error)
        return error;
    store_transaction_apply(x);
    commit_announce(g, x);
    return 0;
}

void store_engine_announce(struct store_engine *g, const char *special)
{
    size_t length = strlen(special);
    struct store_news news = {
        .path = special, .length = length, .exact = true, .seen = {store_tree_get(&g->tree, special, length)}};
    store_watch_fire(&g->watches, &news);
}

/* Plans the removal of all that the domain owns and of its name from all other permissions. */
static int domain_forget(struct store_engine *g, struct store_transaction *x, unsigned domid)
{
    struct strmap_entry *e, *next;
    strmap_foreach_safe(&g->tree.slots, i, e, next)
    {
        struct store_tree_slot *slot = container_of(e, struct store_tree_slot, entry);
        struct store_node *now = store_transaction_peek(x, slot->path, e->length);
        int error = 0;
        if (!now)
            continue; /* was below another one of its nodes */
        bool removable = store_path_parent(slot->path, e->length) > 0;
        if (store_node_owner(now) == domid && removable)
            error = store_transaction_remove(x, slot->path, e->length, STORE_FIRE_TREE);
        else if (store_node_names_domain(now, domid))
            error =
                store_transaction_put(x, slot->path, e->length, store_node_without_domain(now, domid), STORE_FIRE_NONE);
        if (error)
            return error;
    }
    return 0;
}

/* "/" and the special nodes cannot be removed: what domain 0 once gave away falls back to it. */
static int domain_disown(struct store_transaction *x, unsigned domid)
{
    static const char *const fixed[] = {"/", "@introduceDomain", "@releaseDomain"};
    for (size_t i = 0; i < ARRAY_SIZE(fixed); i++) {
        struct store_node *now = store_transaction_peek(x, fixed[i], strlen(fixed[i]));
        if (store_node_owner(now) != domid)
            continue;
        struct store_node *changed = store_node_new(&(struct store_node_parts){
            .perms = &(struct store_perm){.domid = 0},
            .perm_count = 1,
            .value = store_node_value(now),
            .value_bytes = now->value_bytes,
            .children = store_node_children(now),
            .children_bytes = now->children_bytes,
        });
        int error = store_transaction_put(x, fixed[i], strlen(fixed[i]), changed, STORE_FIRE_NONE);
        if (error)
            return error;
    }
    return 0;
}

/* The tree must not name a dead domain: its domid will be another's (XSA-322, 417, 419). */
static int tree_cleanse(struct store_engine *g, unsigned domid)
{
    struct store_transaction x;
    store_transaction_init(&x, &g->tree, 0, 0);
    int error = domain_forget(g, &x, domid);
    if (!error)
        error = domain_disown(&x, domid);
    unsigned culprit;
    if (!error)
        error = store_transaction_commit(&x, 0, &culprit);
    if (!error)
        commit_announce(g, &x);
    store_transaction_deinit(&x);
    return error;
}

void store_engine_domain_gone(struct store_engine *g, unsigned domid)
{
    assert(domid != 0 && domid <= STORE_DOMID_MAX);
    store_engine_record(g, &(struct store_change){.kind = STORE_CHANGE_GONE, .domid = domid}); /* a death is a fact */
    store_engine_domain_forget(g, domid);
}

void store_engine_domain_forget(struct store_engine *g, unsigned domid)
{
    if (g->hooks.release)
        g->hooks.release(g->hooks.context, domid);
    struct store_domain *domain, *other;
    map_foreach (&g->domains.by_domid, i, other) {
        if (other->target == domid)
            other->target = other->domid;
    }
    bool stale = tree_cleanse(g, domid) != 0;
    domain = stale ? store_domain_get(&g->domains, domid) : store_domain_find(&g->domains, domid);
    if (!domain)
        return;
    bool was_introduced = domain->introduced;
    domain->introduced = false;
    domain->stale = stale;
    domain->target = domid;
    store_domain_quota_reset(&g->domains, domain);
    g->domains.introduced -= was_introduced;
    store_domain_put(&g->domains, domain);
    if (was_introduced)
        store_engine_announce(g, "@releaseDomain");
}

int store_session_init(struct store_session *s, struct store_engine *g, unsigned domid)
{
    *s = (struct store_session){.engine = g, .domain = store_domain_get(&g->domains, domid)};
    if (!s->domain)
        return -ENOMEM;
    s->event_limit = domid == 0 ? STORE_EVENTS_MAX_DOM0 : STORE_EVENTS_MAX_GUEST;
    list_init(&s->watches);
    list_init(&s->transactions);
    list_init(&s->events);
    list_init(&s->marked);
    s->domain->connections++;
    return 0;
}

void store_session_reset(struct store_session *s)
{
    store_watch_remove_all(&s->engine->watches, s);
    struct store_transaction *x, *next;
    list_foreach_safe (x, next, &s->transactions, link)
        store_session_transaction_end(s, x);
}

void store_session_deinit(struct store_session *s)
{
    store_session_reset(s);
    list_remove(&s->marked);
    assert(s->domain->connections > 0);
    s->domain->connections--;
    store_domain_put(&s->engine->domains, s->domain);
}

void store_session_mark(struct store_session *s)
{
    if (list_empty(&s->marked))
        list_append(&s->engine->marked, &s->marked);
}

struct store_actor store_session_actor(const struct store_session *s)
{
    return (struct store_actor){s->domain->domid, s->domain->target};
}

struct store_transaction *store_session_transaction(const struct store_session *s, uint32_t id)
{
    struct store_transaction *x;
    list_foreach (x, &s->transactions, link) {
        if (x->id == id)
            return x;
    }
    return NULL;
}

struct store_transaction *store_session_transaction_begin(struct store_session *s, uint32_t id)
{
    struct store_transaction *x = malloc(sizeof(*x));
    if (!x)
        return NULL;
    unsigned domid = s->domain->domid;
    store_transaction_init(x, &s->engine->tree, domid, domid == 0 ? 0 : s->domain->quota.transaction_nodes);
    x->id = id;
    list_append(&s->transactions, &x->link);
    s->domain->transactions++;
    s->engine->transactions++;
    return x;
}

void store_session_transaction_end(struct store_session *s, struct store_transaction *x)
{
    assert(s->domain->transactions > 0 && s->engine->transactions > 0);
    s->domain->transactions--;
    s->engine->transactions--;
    store_transaction_deinit(x);
    free(x);
}
