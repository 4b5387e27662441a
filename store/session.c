/* SPDX-License-Identifier: MIT */
#include "store/session.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "base/log.h"
#include "store/answers.h"

int store_engine_init(struct store_engine *g, const struct store_options *o, uint64_t seed)
{
    *g = (struct store_engine){.answers = o ? o->answers : STORE_ANSWERS_C};
    list_init(&g->marked);
    int r = store_tree_init(&g->tree, seed);
    if (r < 0)
        return r;
    store_watches_init(&g->watches, seed);
    struct store_quota quota = store_quota_complete(o ? &o->quota : NULL);
    if (o && o->answers == STORE_ANSWERS_OCAML && !o->quota.path_max_bytes)
        quota.path_max_bytes = STORE_ANSWERS_OCAML_PATH_MAX;
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
                                  .hash = touch->entry.hash,
                                  .exact = touch->fire == STORE_FIRE_EXACT,
                                  .seen = {touch->base, touch->now, parents[0], parents[1]}};
        store_watch_fire(&g->watches, &news);
    }
}

int store_engine_commit(struct store_engine *g, struct store_transaction *x)
{
    unsigned culprit = x->domid;
    const struct store_domain *writer = x->domid ? store_domain_find(&g->domains, x->domid) : NULL;
    x->target = writer ? writer->target : x->domid;
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
    struct store_tree_slot *slot = store_tree_find(&g->tree, special, strlen(special));
    struct store_news news = {.path = slot->path,
                              .length = slot->entry.length,
                              .hash = slot->entry.hash,
                              .exact = true,
                              .seen = {slot->node}};
    store_watch_fire(&g->watches, &news);
}

/* What is there of a slot when the plan so far is carried out. */
static struct store_node *slot_planned(const struct store_transaction *x, const struct store_tree_slot *slot)
{
    const struct store_touch *touch = store_transaction_touch(x, slot->entry.hash, slot->path, slot->entry.length);
    return touch ? touch->now : slot->node;
}

/* "/" and the special nodes cannot be removed: what domain 0 once gave away falls back to it. */
static int node_disown(struct store_transaction *x, const struct store_tree_slot *slot, const struct store_node *now)
{
    struct store_node_parts parts = store_node_parts(now);
    parts.perms = &(struct store_perm){.domid = 0};
    parts.perm_count = 1;
    return store_transaction_put(x, slot->path, slot->entry.length, store_node_new(&parts), STORE_FIRE_NONE);
}

/* Plans the removal of all that the domain owns, with all below it, and of its name from all other permissions. */
static int domain_forget(struct store_engine *g, struct store_transaction *x, unsigned domid)
{
    struct store_tree_slot *slot = NULL;
    struct store_tree_link *link = NULL;
    int error = 0;
    while (!error && (slot = store_tree_owned_next(&g->tree, domid, slot)) != NULL) {
        const struct store_node *now = slot_planned(x, slot);
        if (now && slot->parent)
            error = store_transaction_remove(x, slot->path, slot->entry.length, STORE_FIRE_TREE);
        else if (now)
            error = node_disown(x, slot, now);
    }
    while (!error && (link = store_tree_named_next(&g->tree, domid, link)) != NULL) {
        slot = link->slot;
        const struct store_node *now = slot_planned(x, slot);
        if (now && store_node_names_domain(now, domid))
            error = store_transaction_put(x, slot->path, slot->entry.length, store_node_without_domain(now, domid),
                                          STORE_FIRE_NONE);
    }
    return error;
}

/* The tree must not name a dead domain: its domid will be another's (XSA-322, 417, 419). */
static int tree_cleanse(struct store_engine *g, unsigned domid)
{
    struct store_transaction x;
    store_transaction_init(&x, &g->tree, 0, 0);
    unsigned culprit;
    int error = domain_forget(g, &x, domid);
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
    store_tree_domain_died(&g->tree, domid);
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

uint64_t store_engine_domain_bytes(const struct store_engine *g, unsigned domid)
{
    const struct store_domain *domain = store_domain_find(&g->domains, domid);
    return g->tree.domains[domid].bytes + (domain ? domain->bytes : 0);
}

static uint64_t room_below(uint64_t limit, uint64_t held)
{
    return limit == STORE_QUOTA_NONE ? UINT64_MAX : limit - MIN(limit, held);
}

uint64_t store_engine_domain_room_bytes(const struct store_engine *g, unsigned domid)
{
    const struct store_domain *domain = store_domain_find(&g->domains, domid);
    const struct store_quota *quota = domain ? &domain->quota : &g->domains.quota;
    return domid == 0 ? UINT64_MAX : room_below(quota->memory_bytes, store_engine_domain_bytes(g, domid));
}

uint64_t store_session_room_bytes(const struct store_session *s)
{
    struct store_domain *domain = s->domain;
    if (domain->domid == 0)
        return UINT64_MAX;
    uint64_t held = s->engine->tree.domains[domain->domid].bytes + domain->bytes;
    if (held > domain->quota.memory_soft_bytes && !domain->soft_told) {
        domain->soft_told = true;
        log_warning("domain %u makes the store hold %" PRIu64 " bytes, its soft quota is %u: at %u it is refused more",
                    domain->domid, held, domain->quota.memory_soft_bytes, domain->quota.memory_bytes);
    }
    return room_below(domain->quota.memory_bytes, held);
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
    store_transaction_charge(x, &s->domain->bytes);
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
