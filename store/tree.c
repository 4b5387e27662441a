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

struct store_tree_slot *store_tree_slot_new(const char *path, size_t length)
{
    struct store_tree_slot *slot = malloc(sizeof(*slot) + length + 1);
    if (!slot)
        return NULL;
    *slot = (struct store_tree_slot){.entry = {.length = length}};
    memcpy(slot->path, path, length);
    slot->path[length] = '\0';
    return slot;
}

void store_tree_place(struct store_tree *t, struct store_tree_slot *slot, struct store_node *node)
{
    strmap_insert(&t->slots, &slot->entry, slot->path, slot->entry.length);
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
    store_node_unref(slot->node);
    free(slot);
}

static int tree_plant(struct store_tree *t, const char *path, const char *child)
{
    static const struct store_perm dom0_only = {.domid = 0, .access = 0};
    struct store_node_parts parts = {.perms = &dom0_only, .perm_count = 1, .children = child};
    parts.children_bytes = child ? (uint32_t)strlen(child) + 1 : 0;
    struct store_tree_slot *slot = store_tree_slot_new(path, strlen(path));
    struct store_node *node = store_node_new(&parts);
    if (!slot || !node) {
        free(slot);
        store_node_unref(node);
        return -ENOMEM;
    }
    node->generation = ++t->generation;
    store_tree_place(t, slot, node);
    store_node_unref(node);
    return 0;
}

int store_tree_init(struct store_tree *t, uint64_t seed)
{
    *t = (struct store_tree){.owned = calloc(STORE_DOMID_MAX + 1, sizeof(uint32_t))};
    strmap_init(&t->slots, seed);
    if (t->owned && tree_plant(t, "/", "tool") == 0 && tree_plant(t, "/tool", "xenstored") == 0 &&
        tree_plant(t, "/tool/xenstored", NULL) == 0 && tree_plant(t, "@introduceDomain", NULL) == 0 &&
        tree_plant(t, "@releaseDomain", NULL) == 0)
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
