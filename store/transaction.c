/* SPDX-License-Identifier: MIT */
#include "store/transaction.h"

#include <assert.h>
#include <string.h>

#include "store/view.h"

void store_transaction_init(struct store_transaction *x, struct store_tree *tree, unsigned domid, uint32_t limit)
{
    *x = (struct store_transaction){.tree = tree,
                                    .commits = tree->commits,
                                    .domid = domid,
                                    .target = domid,
                                    .limit = limit,
                                    .room_bytes = UINT64_MAX};
    strmap_init(&x->touches, tree->slots.seed);
    list_init(&x->changed);
    list_init(&x->added);
    list_init(&x->link);
}

static void hold(struct store_transaction *x, size_t bytes)
{
    if (!x->account)
        return;
    *x->account += bytes;
    x->held_bytes += bytes;
    x->room_bytes -= MIN(x->room_bytes, bytes);
}

static void let_go(struct store_transaction *x, size_t bytes)
{
    if (!x->account)
        return;
    assert(x->held_bytes >= bytes && *x->account >= bytes);
    *x->account -= bytes;
    x->held_bytes -= bytes;
}

void store_transaction_charge(struct store_transaction *x, uint64_t *account)
{
    assert(!x->account && x->touches.count == 0);
    x->account = account;
    hold(x, sizeof(*x));
}

void store_transaction_deinit(struct store_transaction *x)
{
    struct strmap_entry *e, *next;
    strmap_foreach_safe(&x->touches, i, e, next)
    {
        struct store_touch *touch = container_of(e, struct store_touch, entry);
        if (!x->applied && !touch->base)
            free(touch->slot);
        free(touch->named);
        store_node_unref(touch->base);
        store_node_unref(touch->now);
        free(touch);
    }
    strmap_deinit(&x->touches);
    list_remove(&x->link);
    let_go(x, x->held_bytes);
}

struct store_touch *store_transaction_touch(const struct store_transaction *x, uint32_t hash, const char *path,
                                            size_t length)
{
    struct strmap_entry *e = strmap_find_hashed(&x->touches, hash, path, length);
    return e ? container_of(e, struct store_touch, entry) : NULL;
}

uint32_t store_transaction_room(const struct store_transaction *x)
{
    return x->limit == 0 ? UINT32_MAX : x->limit - (uint32_t)MIN(x->touches.count, x->limit);
}

size_t store_touch_bytes(size_t path_length)
{
    return sizeof(struct store_touch) + path_length + 1;
}

static void touch_fill(struct store_touch *touch, struct store_tree_slot *slot, const char *path, size_t length)
{
    *touch = (struct store_touch){.slot = slot, .base = slot ? store_node_ref(slot->node) : NULL};
    touch->now = store_node_ref(touch->base);
    touch->children_bytes = slot ? slot->children_bytes : 0;
    list_init(&touch->changed);
    list_init(&touch->added);
    list_init(&touch->sibling);
    list_init(&touch->children);
    list_init(&touch->removed);
    memcpy(touch->path, path, length);
    touch->path[length] = '\0';
}

/* What a version that it looked at takes once the tree has another one: its bytes, and its list as text. */
static size_t kept_bytes(const struct store_tree_slot *slot)
{
    if (!slot)
        return 0;
    struct store_node_parts parts = store_node_parts(slot->node);
    return store_node_bytes(&parts) + (slot->children_bytes ? sizeof(struct store_names) + slot->children_bytes : 0);
}

static int touch_make_hashed(struct store_transaction *x, uint32_t hash, const char *path, size_t length,
                             struct store_touch **out)
{
    if (x->broken)
        return ENOMEM;
    *out = x->last = store_transaction_touch(x, hash, path, length);
    if (*out)
        return 0;
    if (store_transaction_room(x) == 0)
        return ENOSPC;
    struct store_tree_slot *slot = store_tree_find_hashed(x->tree, hash, path, length);
    size_t bytes = store_touch_bytes(length) + kept_bytes(slot);
    bool room = !x->account || bytes <= x->room_bytes;
    struct store_touch *touch = room ? malloc(store_touch_bytes(length)) : NULL;
    if (!touch)
        return ENOMEM;
    touch_fill(touch, slot, path, length);
    strmap_insert_hashed(&x->touches, &touch->entry, hash, touch->path, length);
    hold(x, bytes);
    *out = x->last = touch;
    return 0;
}

static int touch_make(struct store_transaction *x, const char *path, size_t length, struct store_touch **out)
{
    if (!x->broken && x->last && x->last->entry.length == length && memcmp(x->last->path, path, length) == 0) {
        *out = x->last;
        return 0;
    }
    return touch_make_hashed(x, strmap_hash(x->touches.seed, path, length), path, length, out);
}

int store_transaction_get(struct store_transaction *x, const char *path, size_t length, struct store_node **out)
{
    struct store_touch *touch;
    int error = touch_make(x, path, length, &touch);
    *out = error ? NULL : touch->now;
    return error;
}

static bool owned_by(const struct store_node *n, unsigned domid)
{
    return n && store_node_owner(n) == domid;
}

/* The bytes of a version that only this transaction has. */
static size_t own_bytes(const struct store_touch *touch)
{
    struct store_node_parts parts;
    if (!touch->now || touch->now == touch->base)
        return 0;
    parts = store_node_parts(touch->now);
    return store_node_bytes(&parts);
}

static void touch_set(struct store_transaction *x, struct store_touch *touch, struct store_node *node,
                      enum store_fire fire)
{
    x->own_delta += owned_by(node, x->domid) - owned_by(touch->now, x->domid);
    if (node) {
        node->generation = ++x->tree->generation;
        node->writer = (uint16_t)x->domid;
    }
    let_go(x, own_bytes(touch));
    store_node_unref(touch->now);
    touch->now = node;
    hold(x, own_bytes(touch));
    touch->fire = MAX(touch->fire, fire);
    if (list_empty(&touch->changed))
        list_append(&x->changed, &touch->changed);
}

/* No memory in the middle of a request. */
static int broken(struct store_transaction *x, struct store_node *node, int error)
{
    store_node_unref(node);
    x->broken = true;
    return error;
}

int store_transaction_put(struct store_transaction *x, const char *path, size_t length, struct store_node *node,
                          enum store_fire fire)
{
    struct store_touch *touch;
    int error = node ? touch_make(x, path, length, &touch) : ENOMEM;
    if (error)
        return broken(x, node, error);
    touch_set(x, touch, node, fire);
    return 0;
}

/* Its list is to change, so it becomes another version; one that nobody else has seen yet needs only another number. */
static int touch_relist(struct store_transaction *x, struct store_touch *touch)
{
    if (touch->now != touch->base) {
        touch->now->generation = ++x->tree->generation;
        return 0;
    }
    struct store_node *node = store_node_copy(touch->now);
    if (!node)
        return ENOMEM;
    touch_set(x, touch, node, STORE_FIRE_NONE);
    return 0;
}

static uint32_t touch_name_bytes(const struct store_touch *touch)
{
    return (uint32_t)(touch->entry.length - store_path_name_offset(touch->path, touch->entry.length)) + 1;
}

int store_transaction_create(struct store_transaction *x, const char *path, size_t length, struct store_node *node,
                             enum store_fire fire)
{
    struct store_touch *parent, *touch;
    int error = node ? touch_make(x, path, store_path_parent(path, length), &parent) : ENOMEM;
    if (!error) {
        assert(parent->now);
        error = touch_relist(x, parent);
    }
    if (!error)
        error = touch_make(x, path, length, &touch);
    if (error)
        return broken(x, node, error);
    assert(!touch->now);
    list_remove(&touch->changed); /* what is made again stands behind its parent, which may have been, too */
    touch_set(x, touch, node, fire);
    touch->parent = parent;
    list_append(&parent->children, &touch->sibling);
    list_append(&x->added, &touch->added);
    parent->children_bytes += touch_name_bytes(touch);
    return 0;
}

/* Queues a node for the walk of a removal, once. */
static void removal_add(struct store_touch *touch, struct store_touch *parent, struct list *walk)
{
    if (!list_empty(&touch->removed) || !touch->now)
        return; /* not there: the list is of another time, so its version is stale, and x cannot commit */
    touch->parent = parent;
    list_append(walk, &touch->removed);
}

/* Queues the children of one node of the walk. */
static int removal_descend(struct store_transaction *x, struct store_touch *parent, struct list *walk)
{
    char path[2 * XENSTORE_ABS_PATH_MAX + 2];
    size_t length = parent->entry.length;
    struct store_view_walk w;
    memcpy(path, parent->path, length);
    path[length++] = '/';
    store_view_walk_start(&w, x->tree, x, parent->entry.hash, parent->path, parent->entry.length);
    while (store_view_walk_next(&w)) {
        struct store_touch *touch;
        int error;
        if (w.at) {
            error = touch_make_hashed(x, w.at->hash, strmap_key(w.at), w.at->length, &touch);
        } else {
            memcpy(path + length, w.name, w.length);
            error = touch_make(x, path, length + w.length, &touch);
        }
        if (error)
            return error;
        removal_add(touch, parent, walk);
    }
    return 0;
}

/* Takes it out of its parent's list as it is seen here. */
static void touch_unlist(struct store_touch *touch)
{
    struct store_touch *parent = touch->parent;
    parent->children_bytes -= MIN(parent->children_bytes, touch_name_bytes(touch));
    if (list_empty(&touch->sibling)) {
        touch->unlisted = true;
        parent->unlisted_children++;
    }
    list_remove(&touch->sibling);
    list_remove(&touch->added);
}

int store_transaction_remove(struct store_transaction *x, const char *path, size_t length, enum store_fire fire)
{
    struct list walk; /* breadth first; nothing is taken away before all is found, so a limit leaves nothing behind */
    struct store_touch *parent, *touch, *next;
    list_init(&walk);
    assert(length > 1 && path[0] == '/');
    int error = touch_make(x, path, store_path_parent(path, length), &parent);
    if (!error)
        error = touch_make(x, path, length, &touch);
    if (!error)
        removal_add(touch, parent, &walk);
    list_foreach_safe (touch, next, &walk, removed) {
        if (!error)
            error = removal_descend(x, touch, &walk);
        next = list_entry(touch->removed.next, struct store_touch, removed); /* may have been appended just now */
    }
    if (!error && parent->now && touch_relist(x, parent) != 0)
        error = broken(x, NULL, ENOMEM);
    list_foreach_safe (touch, next, &walk, removed) {
        list_remove(&touch->removed);
        if (error)
            continue;
        touch_unlist(touch);
        touch_set(x, touch, NULL, fire);
        fire = MIN(fire, STORE_FIRE_EXACT);
    }
    return error;
}

static bool sees(const struct store_transaction *x, const struct store_node *n)
{
    const struct store_actor who = {x->domid, x->target};
    return n && (store_node_access(n, &who) & (STORE_READ | STORE_WRITE));
}

/* Whom to blame for a path that is not what it was: who wrote what is there or, where it is gone, the nearest
 * ancestor, whose list the removal rewrote. For a path that x may not look at nobody is to blame but x: else a guest
 * could have others braked at will. */
static unsigned collision_culprit(const struct store_transaction *x, const struct store_touch *touch)
{
    const struct store_tree *t = x->tree;
    size_t length = touch->entry.length;
    const struct store_node *n = store_tree_get(t, touch->path, length);
    if (!n && touch->path[0] == '/')
        n = store_tree_get(t, touch->path, store_view_ancestor(t, NULL, touch->path, length));
    if (!sees(x, touch->base) && !sees(x, n))
        return x->domid;
    return n ? n->writer : 0;
}

/* Where nothing was committed since it began, nothing can differ. */
static int commit_check(const struct store_transaction *x, unsigned *culprit)
{
    struct strmap_entry *e, *next;
    if (x->commits == x->tree->commits)
        return 0;
    strmap_foreach_safe(&x->touches, i, e, next)
    {
        struct store_touch *touch = container_of(e, struct store_touch, entry);
        touch->slot = store_tree_find_hashed(x->tree, e->hash, touch->path, e->length);
        if ((touch->slot ? touch->slot->node : NULL) == touch->base)
            continue;
        touch->slot = NULL;
        *culprit = collision_culprit(x, touch);
        return EAGAIN;
    }
    return 0;
}

/* Does it give something to a domain that died since it began? Its number may be another's by now. */
static bool names_dead(const struct store_transaction *x)
{
    const struct store_touch *touch;
    if (x->tree->died <= x->commits)
        return false;
    list_foreach (touch, &x->changed, changed) {
        for (unsigned i = 0; touch->now && i < touch->now->perm_count; i++)
            if (x->tree->domains[touch->now->perms[i].domid].died > x->commits)
                return true;
    }
    return false;
}

bool store_transaction_current(const struct store_transaction *x)
{
    unsigned culprit;
    return commit_check(x, &culprit) == 0 && !names_dead(x);
}

static int commit_prepare(struct store_transaction *x)
{
    struct store_touch *touch;
    list_foreach (touch, &x->changed, changed) {
        if (!touch->now || (touch->base && store_node_same_perms(touch->base, touch->now)))
            continue;
        if (!touch->base)
            touch->slot = store_tree_slot_new(touch->entry.hash, touch->path, touch->entry.length);
        if (!touch->slot || store_tree_named_new(touch->now, &touch->named) < 0)
            return ENOMEM;
    }
    return 0;
}

/* First of all, versions that other transactions hold get their lists, and what is taken away leaves its parent's. */
static void commit_unlist(struct store_transaction *x)
{
    struct store_touch *touch;
    list_foreach (touch, &x->changed, changed) {
        if (touch->base && touch->base->refs > 2) /* by others than us and the tree */
            touch->base->names = store_tree_names_new(touch->slot);
    }
    list_foreach (touch, &x->changed, changed) {
        if (touch->base && touch->unlisted)
            store_tree_unlist(touch->slot);
    }
}

void store_transaction_apply(struct store_transaction *x)
{
    struct store_touch *touch;
    x->applied = true;
    x->tree->commits++;
    commit_unlist(x);
    list_foreach (touch, &x->changed, changed) {
        assert(!touch->base || touch->slot->node == touch->base);
        if (touch->base && touch->now)
            store_tree_replace(x->tree, touch->slot, touch->now, take_ptr(touch->named));
        else if (touch->base)
            store_tree_remove(x->tree, take_ptr(touch->slot));
    }
    list_foreach (touch, &x->added, added) {
        if (touch->base)
            store_tree_list(touch->slot, touch->parent->slot);
        else
            store_tree_place(x->tree, touch->slot, touch->parent->slot, touch->now, take_ptr(touch->named));
    }
}

int store_transaction_prepare(struct store_transaction *x, uint32_t quota_nodes, unsigned *culprit)
{
    if (x->broken)
        return ENOMEM;
    int error = x->doomed ? EAGAIN : commit_check(x, culprit);
    if (!error && names_dead(x))
        error = EAGAIN;
    if (!error && quota_nodes && x->own_delta > 0 && x->tree->owned[x->domid] + x->own_delta > quota_nodes)
        error = ENOSPC;
    return error ? error : commit_prepare(x);
}

int store_transaction_commit(struct store_transaction *x, uint32_t quota_nodes, unsigned *culprit)
{
    int error = store_transaction_prepare(x, quota_nodes, culprit);
    if (!error)
        store_transaction_apply(x);
    return error;
}

void store_transaction_parents(const struct store_transaction *x, const struct store_touch *touch,
                               struct store_node *parents[2])
{
    const struct store_tree_slot *slot = touch->slot ? touch->slot->parent : NULL;
    const struct store_touch *parent = touch->parent;
    if (!parent && slot)
        parent = store_transaction_touch(x, slot->entry.hash, slot->path, slot->entry.length);
    parents[0] = parents[1] = slot ? slot->node : NULL;
    if (!parent)
        return;
    parents[0] = parent->base;
    parents[1] = parent->now;
}
