/* SPDX-License-Identifier: MIT */
#include "store/tree.h"

#include <assert.h>
#include <string.h>

struct store_tree_slot *store_tree_find(const struct store_tree *t, const char *path, size_t length)
{
    struct strmap_entry *e = strmap_find(&t->slots, path, length);
    return e ? container_of(e, struct store_tree_slot, entry) : NULL;
}

struct store_node *store_tree_get(const struct store_tree *t, const char *path, size_t length)
{
    struct store_tree_slot *slot = store_tree_find(t, path, length);
    return slot ? slot->node : NULL;
}

struct store_tree_slot *store_tree_child_first(const struct store_tree_slot *slot)
{
    return list_empty(&slot->children) ? NULL : list_entry(slot->children.next, struct store_tree_slot, sibling);
}

struct store_tree_slot *store_tree_child_next(const struct store_tree_slot *child)
{
    const struct list *head = &child->parent->children;
    return child->sibling.next == head ? NULL : list_entry(child->sibling.next, struct store_tree_slot, sibling);
}

struct store_tree_slot *store_tree_next(const struct store_tree *t, const struct store_tree_slot *slot)
{
    if (!slot)
        return list_entry(t->top.next, struct store_tree_slot, sibling);
    struct store_tree_slot *next = store_tree_child_first(slot);
    for (; !next && slot->parent; slot = slot->parent)
        next = store_tree_child_next(slot);
    if (next || slot->sibling.next == &t->top)
        return next;
    return list_entry(slot->sibling.next, struct store_tree_slot, sibling);
}

struct store_tree_slot *store_tree_slot_new(const char *path, size_t length)
{
    struct store_tree_slot *slot = malloc(sizeof(*slot) + length + 1);
    if (!slot)
        return NULL;
    *slot = (struct store_tree_slot){.entry = {.length = length}};
    list_init(&slot->children);
    list_init(&slot->sibling);
    memcpy(slot->path, path, length);
    slot->path[length] = '\0';
    return slot;
}

/* What its name adds to its parent's list. */
static uint32_t slot_name_bytes(const struct store_tree_slot *slot)
{
    return (uint32_t)(slot->entry.length - store_path_name_offset(slot->path, slot->entry.length)) + 1;
}

void store_tree_place(struct store_tree *t, struct store_tree_slot *slot, struct store_node *node)
{
    size_t parent_length = store_path_parent(slot->path, slot->entry.length);
    struct store_tree_slot *parent = parent_length ? store_tree_find(t, slot->path, parent_length) : NULL;
    assert(parent || !parent_length);
    strmap_insert(&t->slots, &slot->entry, slot->path, slot->entry.length);
    slot->parent = parent;
    list_append(parent ? &parent->children : &t->top, &slot->sibling);
    if (parent)
        parent->children_bytes += slot_name_bytes(slot);
    slot->node = store_node_ref(node);
    t->owned[store_node_owner(node)]++;
}

void store_tree_replace(struct store_tree *t, struct store_tree_slot *slot, struct store_node *node)
{
    store_node_ref(node);
    assert(t->owned[store_node_owner(slot->node)] > 0);
    t->owned[store_node_owner(slot->node)]--;
    t->owned[store_node_owner(node)]++;
    store_node_unref(slot->node);
    slot->node = node;
}

void store_tree_remove(struct store_tree *t, struct store_tree_slot *slot)
{
    assert(t->owned[store_node_owner(slot->node)] > 0);
    t->owned[store_node_owner(slot->node)]--;
    strmap_remove(&t->slots, &slot->entry);
    for (struct store_tree_slot *child; (child = store_tree_child_first(slot)) != NULL; child->parent = NULL)
        list_remove(&child->sibling); /* they are to be removed, too */
    if (slot->parent)
        slot->parent->children_bytes -= slot_name_bytes(slot);
    list_remove(&slot->sibling);
    store_node_unref(slot->node);
    free(slot);
}

int store_tree_plant(struct store_tree *t, const char *path, size_t length, struct store_node *node)
{
    size_t parent_length = store_path_parent(path, length);
    if (store_tree_find(t, path, length))
        return -EEXIST;
    if (parent_length && !store_tree_find(t, path, parent_length))
        return -ENOENT;
    struct store_tree_slot *slot = store_tree_slot_new(path, length);
    if (!slot)
        return -ENOMEM;
    store_tree_place(t, slot, node);
    return 0;
}

static int tree_start(struct store_tree *t, const char *path, const char *child)
{
    static const struct store_perm dom0_only = {.domid = 0, .access = 0};
    struct store_node_parts parts = {.perms = &dom0_only, .perm_count = 1, .children = child};
    parts.children_bytes = child ? (uint32_t)strlen(child) + 1 : 0;
    struct store_node *node = store_node_new(&parts);
    if (!node)
        return -ENOMEM;
    node->generation = ++t->generation;
    int r = store_tree_plant(t, path, strlen(path), node);
    store_node_unref(node);
    return r;
}

int store_tree_init(struct store_tree *t, uint64_t seed)
{
    *t = (struct store_tree){.owned = calloc(STORE_DOMID_MAX + 1, sizeof(uint32_t))};
    strmap_init(&t->slots, seed);
    list_init(&t->top);
    if (t->owned && tree_start(t, "/", "tool") == 0 && tree_start(t, "/tool", "xenstored") == 0 &&
        tree_start(t, "/tool/xenstored", NULL) == 0 && tree_start(t, "@introduceDomain", NULL) == 0 &&
        tree_start(t, "@releaseDomain", NULL) == 0)
        return 0;
    store_tree_deinit(t);
    return -ENOMEM;
}

void store_tree_deinit(struct store_tree *t)
{
    struct strmap_entry *e, *next;
    strmap_foreach_safe(&t->slots, i, e, next)
    {
        struct store_tree_slot *slot = container_of(e, struct store_tree_slot, entry);
        store_node_unref(slot->node);
        free(slot);
    }
    strmap_deinit(&t->slots);
    free(t->owned);
    *t = (struct store_tree){0};
}
