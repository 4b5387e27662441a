/* SPDX-License-Identifier: MIT */
#include "store/transaction.h"

#include <assert.h>
#include <string.h>

void store_transaction_init(struct store_transaction *x, struct store_tree *tree, unsigned domid, uint32_t limit)
{
    *x = (struct store_transaction){.tree = tree, .domid = domid, .limit = limit};
    strmap_init(&x->touches, tree->slots.seed);
    list_init(&x->changed);
    list_init(&x->link);
}

void store_transaction_deinit(struct store_transaction *x)
{
    struct strmap_entry *e, *next;
    strmap_foreach_safe(&x->touches, i, e, next)
    {
        struct store_touch *touch = container_of(e, struct store_touch, entry);
        store_node_unref(touch->base);
        store_node_unref(touch->now);
        free(touch->slot);
        free(touch);
    }
    strmap_deinit(&x->touches);
    list_remove(&x->link);
}

static struct store_touch *touch_find(const struct store_transaction *x, const char *path, size_t length)
{
    struct strmap_entry *e = strmap_find(&x->touches, path, length);
    return e ? container_of(e, struct store_touch, entry) : NULL;
}

uint32_t store_transaction_room(const struct store_transaction *x)
{
    return x->limit == 0 ? UINT32_MAX : x->limit - (uint32_t)MIN(x->touches.count, x->limit);
}

static int touch_make(struct store_transaction *x, const char *path, size_t length, struct store_touch **out)
{
    if (x->broken)
        return ENOMEM;
    *out = touch_find(x, path, length);
    if (*out)
        return 0;
    if (store_transaction_room(x) == 0)
        return ENOSPC;
    struct store_touch *touch = malloc(sizeof(*touch) + length + 1);
    if (!touch)
        return ENOMEM;
    *touch = (struct store_touch){.base = store_node_ref(store_tree_get(x->tree, path, length))};
    touch->now = store_node_ref(touch->base);
    list_init(&touch->changed);
    list_init(&touch->removed);
    memcpy(touch->path, path, length);
    touch->path[length] = '\0';
    strmap_insert(&x->touches, &touch->entry, touch->path, length);
    *out = touch;
    return 0;
}

int store_transaction_get(struct store_transaction *x, const char *path, size_t length, struct store_node **out)
{
    struct store_touch *touch;
    int error = touch_make(x, path, length, &touch);
    *out = error ? NULL : touch->now;
    return error;
}

struct store_node *store_transaction_peek(const struct store_transaction *x, const char *path, size_t length)
{
    const struct store_touch *touch = touch_find(x, path, length);
    return touch ? touch->now : store_tree_get(x->tree, path, length);
}

static bool owned_by(const struct store_node *n, unsigned domid)
{
    return n && store_node_owner(n) == domid;
}

static void touch_set(struct store_transaction *x, struct store_touch *touch, struct store_node *node,
                      enum store_fire fire)
{
    x->own_delta += owned_by(node, x->domid) - owned_by(touch->now, x->domid);
    if (node) {
        node->generation = ++x->tree->generation;
        node->writer = (uint16_t)x->domid;
    }
    store_node_unref(touch->now);
    touch->now = node;
    touch->fire = MAX(touch->fire, fire);
    if (list_empty(&touch->changed))
        list_append(&x->changed, &touch->changed);
}

int store_transaction_put(struct store_transaction *x, const char *path, size_t length, struct store_node *node,
                          enum store_fire fire)
{
    struct store_touch *touch;
    int error = node ? touch_make(x, path, length, &touch) : ENOMEM;
    if (error) {
        store_node_unref(node);
        x->broken = true;
        return error;
    }
    touch_set(x, touch, node, fire);
    return 0;
}

/* Queues a node for the walk of a removal, once. */
static int removal_add(struct store_transaction *x, const char *path, size_t length, struct list *walk)
{
    struct store_touch *touch;
    int error = touch_make(x, path, length, &touch);
    if (!error && list_empty(&touch->removed))
        list_append(walk, &touch->removed);
    return error;
}

/* Queues the children of one node of the walk. */
static int removal_descend(struct store_transaction *x, const struct store_touch *touch, struct list *walk)
{
    char path[XENSTORE_ABS_PATH_MAX + 1];
    size_t length = touch->entry.length, name_length;
    if (!touch->now) {
        x->doomed = true;
        return 0;
    }
    const char *children = store_node_children(touch->now);
    memcpy(path, touch->path, length);
    path[length++] = '/';
    for (size_t at = 0; at < touch->now->children_bytes; at += name_length + 1) {
        name_length = strlen(children + at);
        assert(length + name_length < sizeof(path));
        memcpy(path + length, children + at, name_length);
        int error = removal_add(x, path, length + name_length, walk);
        if (error)
            return error;
    }
    return 0;
}

static int removal_unlist(struct store_transaction *x, const char *path, size_t length)
{
    size_t parent_length = store_path_parent(path, length), name = store_path_name_offset(path, length);
    struct store_node *parent;
    int error = store_transaction_get(x, path, parent_length, &parent);
    if (error)
        return error;
    if (!parent || !store_node_has_child(parent, path + name, length - name)) {
        x->doomed = true;
        return 0;
    }
    struct store_node *changed = store_node_without_child(parent, path + name, length - name);
    return store_transaction_put(x, path, parent_length, changed, STORE_FIRE_NONE);
}

int store_transaction_remove(struct store_transaction *x, const char *path, size_t length, enum store_fire fire)
{
    struct list walk; /* breadth first; nothing is taken away before all is found, so a limit leaves nothing behind */
    struct store_touch *touch, *next;
    list_init(&walk);
    int error = removal_add(x, path, length, &walk);
    list_foreach_safe (touch, next, &walk, removed) {
        if (!error)
            error = removal_descend(x, touch, &walk);
        next = list_entry(touch->removed.next, struct store_touch, removed); /* may have been appended just now */
    }
    if (!error)
        error = removal_unlist(x, path, length);
    list_foreach_safe (touch, next, &walk, removed) {
        list_remove(&touch->removed);
        if (error)
            continue;
        touch_set(x, touch, NULL, fire);
        fire = MIN(fire, STORE_FIRE_EXACT);
    }
    return error;
}

/* Whom to blame for a path that is not what it was: who wrote what is there or, where it is gone, the nearest
 * ancestor, whose list the removal rewrote. */
static unsigned collision_culprit(const struct store_tree *t, const char *path, size_t length)
{
    const struct store_node *n = store_tree_get(t, path, length);
    while (!n && (length = store_path_parent(path, length)) > 0)
        n = store_tree_get(t, path, length);
    return n ? n->writer : 0;
}

static int commit_check(const struct store_transaction *x, unsigned *culprit)
{
    struct strmap_entry *e, *next;
    strmap_foreach_safe(&x->touches, i, e, next)
    {
        const struct store_touch *touch = container_of(e, struct store_touch, entry);
        if (store_tree_get(x->tree, touch->path, e->length) == touch->base)
            continue;
        *culprit = collision_culprit(x->tree, touch->path, e->length);
        return EAGAIN;
    }
    return 0;
}

bool store_transaction_current(const struct store_transaction *x)
{
    unsigned culprit;
    return commit_check(x, &culprit) == 0;
}

static int commit_prepare(struct store_transaction *x)
{
    struct store_touch *touch;
    list_foreach (touch, &x->changed, changed) {
        if (touch->base || !touch->now)
            continue;
        touch->slot = store_tree_slot_new(touch->path, touch->entry.length);
        if (!touch->slot)
            return ENOMEM;
    }
    return 0;
}

void store_transaction_apply(struct store_transaction *x)
{
    struct store_touch *touch;
    list_foreach (touch, &x->changed, changed) {
        if (!touch->base && !touch->now)
            continue;
        if (!touch->base) {
            store_tree_place(x->tree, take_ptr(touch->slot), touch->now);
            continue;
        }
        struct store_tree_slot *slot = store_tree_find(x->tree, touch->path, touch->entry.length);
        assert(slot && slot->node == touch->base);
        if (touch->now)
            store_tree_replace(x->tree, slot, touch->now);
        else
            store_tree_remove(x->tree, slot);
    }
}

int store_transaction_prepare(struct store_transaction *x, uint32_t quota_nodes, unsigned *culprit)
{
    if (x->broken)
        return ENOMEM;
    int error = commit_check(x, culprit);
    if (!error && x->doomed)
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
    size_t length = store_path_parent(touch->path, touch->entry.length);
    parents[0] = parents[1] = NULL;
    if (length == 0)
        return;
    const struct store_touch *parent = touch_find(x, touch->path, length);
    parents[0] = parent ? parent->base : store_tree_get(x->tree, touch->path, length);
    parents[1] = parent ? parent->now : parents[0];
}
