/* SPDX-License-Identifier: MIT */
#include "store/record.h"

#include <assert.h>
#include <string.h>

#include "base/reader.h"

#define RECORD_SNAPSHOT_BYTES 65536 /* of one record of a snapshot, about: unmeasured */
#define RECORD_ITEM_MAX       (64 + XENSTORE_ABS_PATH_MAX + 4 * STORE_PERMS_MAX + XENSTORE_PAYLOAD_MAX)

enum item_kind {
    ITEM_EMPTY = 1,
    ITEM_WRITER,
    ITEM_NODE,
    ITEM_NODE_GONE,
    ITEM_DOMAIN,
    ITEM_DOMAIN_GONE,
    ITEM_TARGET,
    ITEM_QUOTA
};

/* ---- writing: `at` NULL only counts ---- */

struct writer {
    char *at;
    size_t length;
};

static void put(struct writer *w, const void *bytes, size_t length)
{
    if (w->at && length)
        w->at = (char *)memcpy(w->at, bytes, length) + length;
    w->length += length;
}

static void put_u8(struct writer *w, uint8_t v)
{
    put(w, &v, sizeof(v));
}

static void put_u16(struct writer *w, uint16_t v)
{
    put(w, &v, sizeof(v));
}

static void put_u32(struct writer *w, uint32_t v)
{
    put(w, &v, sizeof(v));
}

static void put_text(struct writer *w, const char *text, size_t length)
{
    assert(length <= UINT16_MAX);
    put_u16(w, (uint16_t)length);
    put(w, text, length);
}

static void put_node(struct writer *w, const char *path, size_t length, const struct store_node *n)
{
    put_u8(w, ITEM_NODE);
    put_text(w, path, length);
    put_u16(w, (uint16_t)n->perm_count);
    for (uint32_t i = 0; i < n->perm_count; i++) {
        put_u16(w, n->perms[i].domid);
        put_u8(w, n->perms[i].access);
    }
    put_text(w, store_node_value(n), n->value_bytes);
}

static bool same_but_children(const struct store_node *a, const struct store_node *b)
{
    return a == b || (store_node_same_perms(a, b) && a->value_bytes == b->value_bytes &&
                      memcmp(store_node_value(a), store_node_value(b), a->value_bytes) == 0);
}

static void put_gone(struct writer *w, const struct store_touch *touch)
{
    put_u8(w, ITEM_NODE_GONE);
    put_text(w, touch->path, touch->entry.length);
}

/* What was there and is gone or changed; then what was made, in the order in which it stands in its parents' lists. */
static void put_nodes(struct writer *w, const struct store_transaction *x)
{
    const struct store_touch *touch;
    const size_t begin = w->length;
    put_u8(w, ITEM_WRITER);
    put_u16(w, (uint16_t)x->domid);
    const size_t nothing = w->length;
    list_foreach (touch, &x->changed, changed) {
        if (!touch->base || !list_empty(&touch->added))
            continue;
        if (!touch->now)
            put_gone(w, touch);
        else if (!same_but_children(touch->base, touch->now))
            put_node(w, touch->path, touch->entry.length, touch->now);
    }
    list_foreach (touch, &x->added, added) {
        if (touch->base)
            put_gone(w, touch);
        put_node(w, touch->path, touch->entry.length, touch->now);
    }
    if (w->length == nothing)
        w->length = begin;
}

static void put_domain(struct writer *w, enum item_kind kind, unsigned domid)
{
    put_u8(w, (uint8_t)kind);
    put_u16(w, (uint16_t)domid);
}

static void put_introduced(struct writer *w, unsigned domid, uint64_t gfn, uint32_t port)
{
    put_domain(w, ITEM_DOMAIN, domid);
    put(w, &gfn, sizeof(gfn));
    put_u32(w, port);
}

/* By name: another version may have another table. */
static void put_quota(struct writer *w, unsigned domid, const struct store_quota_row *row, unsigned value)
{
    put_domain(w, ITEM_QUOTA, domid);
    put_text(w, row->name, strlen(row->name));
    put_u32(w, value);
}

static void put_change(struct writer *w, const struct store_change *c)
{
    switch (c->kind) {
    case STORE_CHANGE_NODES: put_nodes(w, c->nodes); break;
    case STORE_CHANGE_INTRODUCE: put_introduced(w, c->domid, c->gfn, c->port); break;
    case STORE_CHANGE_GONE: put_domain(w, ITEM_DOMAIN_GONE, c->domid); break;
    case STORE_CHANGE_TARGET:
        put_domain(w, ITEM_TARGET, c->domid);
        put_u16(w, (uint16_t)c->target);
        break;
    case STORE_CHANGE_QUOTA: put_quota(w, c->domid, c->row, c->value); break;
    }
}

size_t store_record_size(const struct store_change *change)
{
    struct writer w = {0};
    put_change(&w, change);
    return w.length;
}

char *store_record_write(const struct store_change *change, char *out)
{
    struct writer w = {.at = out};
    put_change(&w, change);
    return w.at;
}

/* ---- a snapshot ---- */

struct snapshot {
    struct writer w;
    char *buffer;
    store_record_emit_fn *emit;
    void *context;
};

static int snapshot_flush(struct snapshot *s, size_t above)
{
    if (s->w.length <= above)
        return 0;
    int r = s->emit(s->context, s->buffer, s->w.length);
    s->w = (struct writer){.at = s->buffer};
    return r;
}

static int snapshot_nodes(struct snapshot *s, const struct store_tree *t)
{
    int r = 0;
    for (const struct store_tree_slot *slot = NULL; r == 0 && (slot = store_tree_next(t, slot)) != NULL;) {
        put_node(&s->w, slot->path, slot->entry.length, slot->node);
        r = snapshot_flush(s, RECORD_SNAPSHOT_BYTES);
    }
    return r;
}

static int snapshot_domains(struct snapshot *s, const struct store_domains *domains)
{
    const struct store_domain *d;
    for (unsigned i = 0; i < store_quota_row_count; i++)
        put_quota(&s->w, STORE_CHANGE_ALL, &store_quota_rows[i],
                  store_quota_value(&domains->quota, &store_quota_rows[i]));
    map_foreach (&domains->by_domid, i, d) {
        if (d->introduced && d->domid)
            put_introduced(&s->w, d->domid, d->gfn, d->port);
        for (unsigned q = 0; q < store_quota_row_count; q++)
            if (d->quota_own & 1u << q)
                put_quota(&s->w, d->domid, &store_quota_rows[q], store_quota_value(&d->quota, &store_quota_rows[q]));
        int r = snapshot_flush(s, RECORD_SNAPSHOT_BYTES);
        if (r < 0)
            return r;
    }
    map_foreach (&domains->by_domid, i, d) { /* both ends are there by now */
        if (!d->introduced || d->target == d->domid)
            continue;
        put_domain(&s->w, ITEM_TARGET, d->domid);
        put_u16(&s->w, (uint16_t)d->target);
        int r = snapshot_flush(s, RECORD_SNAPSHOT_BYTES);
        if (r < 0)
            return r;
    }
    return 0;
}

int store_record_snapshot(const struct store_engine *g, store_record_emit_fn *emit, void *context)
{
    _cleanup_free_ char *buffer = malloc(RECORD_SNAPSHOT_BYTES + RECORD_ITEM_MAX + store_quota_row_count * 64);
    struct snapshot s = {.w = {.at = buffer}, .buffer = buffer, .emit = emit, .context = context};
    if (!buffer)
        return -ENOMEM;
    put_u8(&s.w, ITEM_EMPTY);
    int r = snapshot_nodes(&s, &g->tree);
    if (r == 0)
        r = snapshot_domains(&s, &g->domains);
    return r ? r : snapshot_flush(&s, 0);
}

/* ---- reading ---- */

static uint64_t take_number(struct reader *r, size_t bytes)
{
    uint64_t v = 0;
    const char *at = reader_take(r, bytes);
    if (at)
        memcpy(&v, at, bytes); /* machines of ours are little endian, and a record stays on its machine */
    return v;
}

static const char *take_text(struct reader *r, size_t *length)
{
    *length = take_number(r, 2);
    return reader_take(r, *length);
}

/* A node's path, absolute and in the form that the tree has. */
static bool take_path(struct reader *r, struct store_path *out)
{
    char text[XENSTORE_ABS_PATH_MAX + 1];
    size_t length;
    const char *at = take_text(r, &length);
    if (!at || length == 0 || length >= sizeof(text) || (at[0] != '/' && at[0] != '@'))
        return false;
    memcpy(text, at, length);
    text[length] = '\0';
    return strlen(text) == length && store_path_resolve(out, text, 0, 0) == 0;
}

static unsigned take_domid(struct reader *r)
{
    unsigned domid = (unsigned)take_number(r, 2);
    r->bad |= domid > STORE_DOMID_MAX;
    return domid;
}

static bool take_perms(struct reader *r, struct store_perm *perms, uint32_t *count)
{
    *count = (uint32_t)take_number(r, 2);
    if (*count == 0 || *count > STORE_PERMS_MAX)
        return false;
    for (uint32_t i = 0; i < *count && !r->bad; i++) {
        perms[i].domid = (uint16_t)take_domid(r);
        perms[i].access = take_number(r, 1) & (STORE_READ | STORE_WRITE);
    }
    return !r->bad;
}

/* ---- applying ---- */

static int node_put(struct store_transaction *x, const struct store_path *p, const struct store_node_parts *parts)
{
    size_t above = store_path_parent(p->text, p->length);
    struct store_node *there, *parent = NULL;
    int error = store_transaction_get(x, p->text, p->length, &there);
    if (!error && !there && above)
        error = store_transaction_get(x, p->text, above, &parent);
    if (error)
        return -error;
    if (there)
        return -store_transaction_put(x, p->text, p->length, store_node_new(parts), STORE_FIRE_NONE);
    return parent ? -store_transaction_create(x, p->text, p->length, store_node_new(parts), STORE_FIRE_NONE) : -EPROTO;
}

static int apply_node(struct reader *r, struct store_transaction *x)
{
    struct store_path path;
    struct store_perm perms[STORE_PERMS_MAX];
    struct store_node_parts parts = {.perms = perms};
    size_t value_bytes = 0;
    if (!take_path(r, &path) || !take_perms(r, perms, &parts.perm_count))
        return -EPROTO;
    parts.value = take_text(r, &value_bytes);
    parts.value_bytes = (uint32_t)value_bytes;
    return parts.value && value_bytes <= XENSTORE_PAYLOAD_MAX ? node_put(x, &path, &parts) : -EPROTO;
}

static int apply_node_gone(struct reader *r, struct store_transaction *x)
{
    struct store_path path;
    if (!take_path(r, &path) || path.special || path.length == 1)
        return -EPROTO;
    struct store_node *there;
    int error = store_transaction_get(x, path.text, path.length, &there);
    if (error || !there)
        return -error; /* went with one above it */
    return -store_transaction_remove(x, path.text, path.length, STORE_FIRE_NONE);
}

/* What a fresh tree begins with is in the snapshot where it is still there. */
static int apply_empty(struct store_transaction *x)
{
    int error = 0;
    struct store_tree_slot *child = store_tree_child_first(store_tree_find(x->tree, "/", 1));
    for (; child && !error; child = store_tree_child_next(child))
        error = store_transaction_remove(x, child->path, child->entry.length, STORE_FIRE_NONE);
    return -error;
}

static int apply_introduced(struct reader *r, struct store_engine *g)
{
    unsigned domid = take_domid(r);
    uint64_t gfn = take_number(r, 8);
    uint32_t port = (uint32_t)take_number(r, 4);
    if (r->bad || domid == 0)
        return -EPROTO;
    struct store_domain *d = store_domain_get(&g->domains, domid);
    if (!d)
        return -ENOMEM;
    g->domains.introduced += !d->introduced;
    d->introduced = true;
    d->gfn = gfn;
    d->port = port;
    return 0;
}

static int apply_gone(struct reader *r, struct store_engine *g)
{
    unsigned domid = take_domid(r);
    if (r->bad || domid == 0)
        return -EPROTO;
    store_engine_domain_forget(g, domid);
    return 0;
}

static int apply_target(struct reader *r, struct store_engine *g)
{
    unsigned domid = take_domid(r), target = take_domid(r);
    struct store_domain *d = store_domain_find(&g->domains, domid);
    if (r->bad || !d)
        return -EPROTO;
    d->target = target;
    return 0;
}

static int apply_quota(struct reader *r, struct store_engine *g)
{
    char name[32] = "";
    size_t length;
    unsigned domid = (unsigned)take_number(r, 2);
    const char *at = take_text(r, &length);
    unsigned value = (unsigned)take_number(r, 4);
    if (r->bad || length >= sizeof(name))
        return -EPROTO;
    memcpy(name, at, length);
    const struct store_quota_row *row = store_quota_find(name);
    struct store_domain *d = store_domain_find(&g->domains, domid);
    if (row && domid == STORE_CHANGE_ALL)
        store_domains_quota_set(&g->domains, row, value);
    else if (row && d)
        store_domain_quota_set(d, row, value);
    return 0;
}

static int apply_item(struct reader *r, struct store_engine *g, struct store_transaction *x)
{
    switch ((enum item_kind)take_number(r, 1)) {
    case ITEM_EMPTY: return apply_empty(x);
    case ITEM_WRITER: x->domid = take_domid(r); return 0;
    case ITEM_NODE: return apply_node(r, x);
    case ITEM_NODE_GONE: return apply_node_gone(r, x);
    case ITEM_DOMAIN: return apply_introduced(r, g);
    case ITEM_DOMAIN_GONE: return apply_gone(r, g);
    case ITEM_TARGET: return apply_target(r, g);
    case ITEM_QUOTA: return apply_quota(r, g);
    default: return -EPROTO;
    }
}

int store_record_apply(struct store_engine *g, const char *bytes, size_t length)
{
    const struct store_hooks hooks = g->hooks;
    struct reader r = {.at = bytes, .left = length};
    struct store_transaction x;
    unsigned culprit;
    int result = 0;
    g->hooks = (struct store_hooks){0};
    store_transaction_init(&x, &g->tree, 0, 0);
    while (result == 0 && r.left > 0) {
        result = apply_item(&r, g, &x);
        if (result == 0 && r.bad)
            result = -EPROTO;
    }
    if (result == 0)
        result = -store_transaction_commit(&x, 0, &culprit);
    store_transaction_deinit(&x);
    g->hooks = hooks;
    return result;
}
