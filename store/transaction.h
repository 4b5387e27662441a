/* SPDX-License-Identifier: MIT */
/* store/transaction.h: a set of reads and changes that takes effect as a whole or not at all.
 *
 * Every change of the tree is one: a request outside a transaction runs in one of its own, so a request that fails
 * halfway leaves nothing behind. A transaction remembers, for each path that it looked at or changed, the version that
 * the tree had then (`base`, NULL: none) and the one it would put there (`now`). Within it the `now`s are seen; outside
 * it nothing is, until the commit: that compares every base with the tree, refuses with EAGAIN where one differs, gets
 * all memory that it will need, and then applies changes that cannot fail any more. Events are the caller's to fire
 * from the `changed` list, after the commit, in the order of the changes.
 *
 * Lists of children are not copied: what a transaction adds to the list of its base and takes away from it is told by
 * the children's touches (`added`, `unlisted`; store/view.h puts them together). A node's version changes with each
 * change of its list, so a base that is still there still has the list that it had.
 *
 * A path is fixed when it is first touched, not when the transaction starts. So one that lost a race can see a parent's
 * list that does not fit a child. What it does then does not matter, since a stale base cannot commit, but must be
 * harmless.
 *
 * `limit` bounds how many paths it may touch, since a peer decides that (0: no limit), `room_bytes` how much memory it
 * may yet hold. What runs out of memory in the middle of a request marks the transaction broken: it answers ENOMEM for
 * ever and cannot be committed. Errors are positive errno values, to be sent to the peer.
 */
#ifndef STORE_TRANSACTION_H
#define STORE_TRANSACTION_H

#include "base/list.h"
#include "store/tree.h"

enum store_fire {
    STORE_FIRE_NONE,  /* a consequence: a parent's list, a path in between */
    STORE_FIRE_EXACT, /* removed along with an ancestor: only who watches this very path is told */
    STORE_FIRE_TREE,  /* who watches this path or one above it is told */
};

struct store_touch {
    struct strmap_entry entry;  /* key: path */
    struct list changed;        /* in the order of the first change, or of the last making: parents before children */
    struct list added, sibling; /* made here: the transaction's, its parent's `children`; in the order of making */
    struct list children;       /* touches made here */
    struct list removed;        /* for the walk of a removal */
    struct store_node *base, *now;
    struct store_tree_slot *slot;   /* base's, found at the commit at the latest; or prepared for it */
    struct store_tree_named *named; /* prepared for the commit */
    struct store_touch *parent;     /* where it was made or removed */
    uint32_t children_bytes;        /* of its list as it is seen here */
    uint32_t unlisted_children;
    enum store_fire fire;
    bool unlisted; /* it was in the list of its parent's base, and was removed; it may have been made again */
    char path[];
};

struct store_transaction {
    struct store_tree *tree;
    struct strmap touches;
    struct store_touch *last; /* touched: mostly the next one, too */
    struct list changed;      /* store_touch.changed */
    struct list added;        /* store_touch.added: parents before children */
    struct list link;         /* its session's */
    uint64_t commits;         /* the tree's, when it began */
    uint32_t id, limit;
    unsigned domid;      /* on whose behalf */
    unsigned target;     /* for whom that domain acts as well: known at the commit */
    int64_t own_delta;   /* nodes that `domid` will own more */
    uint64_t held_bytes; /* of memory, by touches and versions */
    uint64_t room_bytes; /* how much more may be held: set before each request */
    uint64_t *account;   /* counts held_bytes for who has it open; NULL: it is over when its request is */
    bool broken, applied;
    bool doomed; /* restored without what it saw (store/state.h): collides for certain */
};

void store_transaction_init(struct store_transaction *x, struct store_tree *tree, unsigned domid, uint32_t limit);
/* From now on, what it holds, itself included, is counted in *account, which outlives it. */
void store_transaction_charge(struct store_transaction *x, uint64_t *account);
void store_transaction_deinit(struct store_transaction *x);
/* The version seen now; the path counts as read, so a later change by others collides. *out NULL: there is none. */
int store_transaction_get(struct store_transaction *x, const char *path, size_t length, struct store_node **out);
/* What is known of a path; NULL: it was not touched. */
struct store_touch *store_transaction_touch(const struct store_transaction *x, uint32_t hash, const char *path,
                                            size_t length);
/* How many paths it may yet touch. */
uint32_t store_transaction_room(const struct store_transaction *x);
/* What a touch of a path takes. */
size_t store_touch_bytes(size_t path_length);
/* Puts another version of a node that is there; takes over the caller's reference in any case. NULL is ENOMEM, which
 * breaks x. */
int store_transaction_put(struct store_transaction *x, const char *path, size_t length, struct store_node *node,
                          enum store_fire fire);
/* The same for a node that is not there, below one that is: it goes to the end of its parent's list. */
int store_transaction_create(struct store_transaction *x, const char *path, size_t length, struct store_node *node,
                             enum store_fire fire);
/* Removes a node that is there, all below it, and its name from its parent's list. */
int store_transaction_remove(struct store_transaction *x, const char *path, size_t length, enum store_fire fire);
/* 0, EAGAIN (*culprit: the domain whose change collided), ENOSPC where `domid` would own more than quota_nodes (0: no
 * quota), ENOMEM. On any error the tree is as it was. */
int store_transaction_commit(struct store_transaction *x, uint32_t quota_nodes, unsigned *culprit);
/* Is everything that it saw still what the tree has? */
bool store_transaction_current(const struct store_transaction *x);
/* Its two halves: the first decides, with those errors; the second cannot fail, if nothing happened in between. */
int store_transaction_prepare(struct store_transaction *x, uint32_t quota_nodes, unsigned *culprit);
void store_transaction_apply(struct store_transaction *x);
/* The node's parent before and after, for a change in the list; either may be NULL. Borrowed. */
void store_transaction_parents(const struct store_transaction *x, const struct store_touch *touch,
                               struct store_node *parents[2]);

#endif
