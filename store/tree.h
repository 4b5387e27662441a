/* SPDX-License-Identifier: MIT */
/* store/tree.h: which version of which node is there now: absolute path → slot → struct store_node.
 *
 * A flat map by path, so finding a node costs its path's length and nothing recurses. Beside it the slots are linked as
 * the tree that they are: each stands in its parent's list of children, oldest first. Invariants: "/" is always there;
 * where a node is there so is its parent, and the parent's list has it once; the special nodes stand beside, in no
 * list. The tree counts how many nodes each domain owns. Only transaction.c changes it, in whole transactions, and a
 * change of a node that is being placed cannot fail. store_tree_plant() is for who builds a tree from a record of one.
 */
#ifndef STORE_TREE_H
#define STORE_TREE_H

#include "base/list.h"
#include "base/strmap.h"
#include "store/node.h"

struct store_tree_slot {
    struct strmap_entry entry; /* key: path */
    struct store_node *node;
    struct store_tree_slot *parent; /* NULL: "/" and the special nodes */
    struct list children, sibling;  /* of slots, oldest first; those without a parent are siblings of each other */
    uint32_t children_bytes;        /* the children's names, each with its NUL */
    char path[];
};

struct store_tree {
    struct strmap slots;
    struct list top;     /* store_tree_slot.sibling of "/", then the special nodes */
    uint64_t generation; /* the last one handed out */
    uint32_t *owned;     /* nodes by owner: STORE_DOMID_MAX + 1 counters */
};

/* With the nodes that the reference server starts with: "/", "/tool", "/tool/xenstored", "@introduceDomain",
 * "@releaseDomain", all domain 0's. `seed` is the hash's. -ENOMEM. */
int store_tree_init(struct store_tree *t, uint64_t seed);
void store_tree_deinit(struct store_tree *t);
/* NULL where there is none; borrowed until the next change. */
struct store_tree_slot *store_tree_find(const struct store_tree *t, const char *path, size_t length);
struct store_node *store_tree_get(const struct store_tree *t, const char *path, size_t length);

/* Every slot, parents before their children, children in order, then the special nodes: NULL begins, NULL ends. The
 * tree must not change meanwhile. */
struct store_tree_slot *store_tree_next(const struct store_tree *t, const struct store_tree_slot *slot);
/* The children of one node, oldest first, one level: NULL ends. */
struct store_tree_slot *store_tree_child_first(const struct store_tree_slot *slot);
struct store_tree_slot *store_tree_child_next(const struct store_tree_slot *child);

/* Its last name within its path. */
static inline const char *store_tree_slot_name(const struct store_tree_slot *slot)
{
    return slot->path + store_path_name_offset(slot->path, slot->entry.length);
}

/* Puts a node where none is, as its parent's youngest child; takes a reference, leaves the generation as it is. 0,
 * -ENOMEM, -EEXIST, -ENOENT: its parent is not there. */
int store_tree_plant(struct store_tree *t, const char *path, size_t length, struct store_node *node);

/* A slot that is in no tree yet; NULL: no memory. free() it where it is never placed. */
struct store_tree_slot *store_tree_slot_new(const char *path, size_t length);
/* Puts a version into the tree, takes a reference; the slot is the tree's from then on. */
void store_tree_place(struct store_tree *t, struct store_tree_slot *slot, struct store_node *node);
void store_tree_replace(struct store_tree *t, struct store_tree_slot *slot, struct store_node *node);
void store_tree_remove(struct store_tree *t, struct store_tree_slot *slot); /* frees the slot */

#endif
