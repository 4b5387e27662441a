/* SPDX-License-Identifier: MIT */
/* store/view.h: the tree as one caller sees it: as it is (`x` NULL), or through a transaction.
 *
 * A list of children is the tree's, less what the transaction removed, then what it made. Where the tree has gone on
 * since the transaction looked, it is the list that was kept with the version that it saw; where memory for that was
 * short the list is empty, and the transaction cannot commit in either case.
 */
#ifndef STORE_VIEW_H
#define STORE_VIEW_H

#include "store/transaction.h"

/* A walk along one list of children; nothing may be committed meanwhile. */
struct store_view_walk {
    const struct store_transaction *x;
    const struct store_touch *touch;
    struct store_tree_slot *live;  /* the next one of the tree's list */
    const char *kept, *kept_end;   /* what is left of a kept list */
    const struct list *made;       /* the next one that was made here */
    const struct strmap_entry *at; /* the child's path, where it is known */
    const char *name;              /* the child's name; its length without the NUL */
    size_t length;
};

/* The node at a path; does not count as read, and cannot fail. NULL: there is none. */
struct store_node *store_view_peek(const struct store_tree *t, const struct store_transaction *x, const char *path,
                                   size_t length);
/* The length of the nearest ancestor's path that exists; "/" always does. Not for special nodes. */
size_t store_view_ancestor(const struct store_tree *t, const struct store_transaction *x, const char *path,
                           size_t length);

/* `hash` is the path's, by the tree's seed. */
void store_view_walk_start(struct store_view_walk *w, const struct store_tree *t, const struct store_transaction *x,
                           uint32_t hash, const char *path, size_t length);
bool store_view_walk_next(struct store_view_walk *w); /* false: the list is over */

/* The bytes of a node's list: each name with its NUL. */
uint32_t store_view_names_bytes(const struct store_tree *t, const struct store_transaction *x, const char *path,
                                size_t length);
/* Copies the list from `offset` on, as many whole names as `room` bytes take. The bytes; *end: nothing is left. */
uint32_t store_view_names_copy(struct store_tree *t, const struct store_transaction *x, const char *path, size_t length,
                               uint64_t offset, char *out, uint32_t room, bool *end);

#endif
