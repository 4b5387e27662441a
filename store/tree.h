/* SPDX-License-Identifier: MIT */
/* store/tree.h: which version of which node is there now: absolute path → slot → struct store_node.
 *
 * A flat map by path, so finding a node costs its path's length and nothing recurses. Beside it the slots are linked as
 * the tree that they are: each stands in its parent's list of children, oldest first, so that a child comes and goes
 * without its siblings being looked at. Invariants: "/" is always there; where a node is there so is its parent, and
 * the parent's list has it once; the special nodes stand beside, in no list.
 *
 * For each domain the tree keeps which nodes it owns, how many, and the bytes that they take, and in which other nodes'
 * permissions it is named: a domain's death is the walk of two lists. Domain 0 does not die and is in no second list.
 *
 * Only transaction.c changes it, in whole transactions: memory is taken before (store_tree_slot_new(),
 * store_tree_named_new()), so that a change of the tree cannot fail. store_tree_plant() is for who builds a tree from a
 * record of one.
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
    struct store_tree_slot *oldest; /* child; NULL: it has none */
    struct list sibling;            /* a ring of slots without a head; those without a parent are in the tree's `top` */
    struct list owned;              /* its owner's */
    struct store_tree_named *named; /* NULL: the permissions name nobody but the owner and domain 0 */
    uint32_t children_bytes;        /* the children's names, each with its NUL */
    char path[];
};

/* Where a slot stands in the lists of those whom its permissions name. */
struct store_tree_link {
    struct list link;
    struct store_tree_slot *slot;
};

struct store_tree_named {
    unsigned count;
    struct store_tree_link links[];
};

struct store_tree_domain {
    struct list owned, named; /* of store_tree_slot.owned, store_tree_link.link; all zeroes: empty */
    uint64_t bytes;           /* of memory, of what it owns */
    uint64_t died;            /* store_tree.commits when one of this number did; 0: never */
};

/* Where the reading of a long list by parts goes on, as long as `slot` has the same version and so the same list. */
struct store_tree_resume {
    const struct store_tree_slot *slot;
    struct store_tree_slot *child;
    uint64_t generation;
    uint32_t offset; /* bytes of names before the child */
};

#define STORE_TREE_LISTINGS 64 /* lists that are kept as text: 256 KiB at most */

/* A list that was asked for twice is kept as text until its node has another version. */
struct store_tree_listing {
    const struct store_tree_slot *slot;
    uint64_t generation;
    struct store_names *names; /* NULL: asked for once */
};

struct store_tree {
    struct strmap slots;
    struct list top;                   /* store_tree_slot.sibling of "/", then the special nodes */
    uint64_t generation;               /* the last one handed out */
    uint64_t commits;                  /* how often it was changed, or a domain died */
    uint64_t died;                     /* `commits` when the last one did */
    uint32_t *owned;                   /* nodes by owner: STORE_DOMID_MAX + 1 counters */
    struct store_tree_domain *domains; /* as many */
    struct store_tree_resume resume;
    struct store_tree_listing listings[STORE_TREE_LISTINGS]; /* by version */
};

/* With the nodes that the reference server starts with: "/", "/tool", "/tool/xenstored", "@introduceDomain",
 * "@releaseDomain", all domain 0's. `seed` is the hash's. -ENOMEM. */
int store_tree_init(struct store_tree *t, uint64_t seed);
void store_tree_deinit(struct store_tree *t);
/* NULL where there is none; borrowed until the next change. */
struct store_tree_slot *store_tree_find(const struct store_tree *t, const char *path, size_t length);
struct store_tree_slot *store_tree_find_hashed(const struct store_tree *t, uint32_t hash, const char *path,
                                               size_t length);
struct store_node *store_tree_get(const struct store_tree *t, const char *path, size_t length);

/* Every slot, parents before their children, children in order, then the special nodes: NULL begins, NULL ends. The
 * tree must not change meanwhile; the same holds for the two below. */
struct store_tree_slot *store_tree_next(const struct store_tree *t, const struct store_tree_slot *slot);
/* The children of one node, oldest first, one level: NULL ends. */
static inline struct store_tree_slot *store_tree_child_first(const struct store_tree_slot *slot)
{
    return slot->oldest;
}

static inline struct store_tree_slot *store_tree_child_next(const struct store_tree_slot *child)
{
    struct store_tree_slot *next = list_entry(child->sibling.next, struct store_tree_slot, sibling);
    return next == child->parent->oldest ? NULL : next;
}

/* The nodes that a domain owns, and those whose permissions name it (domain 0: none), more than once where they name
 * it so: NULL begins, NULL ends. */
struct store_tree_slot *store_tree_owned_next(const struct store_tree *t, unsigned domid,
                                              const struct store_tree_slot *slot);
struct store_tree_link *store_tree_named_next(const struct store_tree *t, unsigned domid,
                                              const struct store_tree_link *link);

/* Where the children's names begin in their paths. */
static inline size_t store_tree_name_offset(const struct store_tree_slot *parent)
{
    return parent->entry.length == 1 ? 1 : parent->entry.length + 1u;
}

/* Its last name within its path. */
static inline const char *store_tree_slot_name(const struct store_tree_slot *slot)
{
    return slot->path + (slot->parent ? store_tree_name_offset(slot->parent) : 0);
}

/* What a node takes beside its version. */
static inline size_t store_tree_slot_bytes(size_t path_length)
{
    return sizeof(struct store_tree_slot) + path_length + 1;
}

/* Puts a node where none is, as its parent's youngest child; takes a reference, leaves the generation as it is. 0,
 * -ENOMEM, -EEXIST, -ENOENT: its parent is not there. */
int store_tree_plant(struct store_tree *t, const char *path, size_t length, struct store_node *node);

/* The list of a node's children as it is now, as text; NULL: empty, or no memory. The caller's to free. */
struct store_names *store_tree_names_new(const struct store_tree_slot *slot);
/* The same, where it is kept: borrowed until the next change; NULL: walk the list. */
const struct store_names *store_tree_listing(struct store_tree *t, const struct store_tree_slot *slot);
/* A slot that is in no tree yet, with its path's hash; NULL: no memory. free() it where it is never placed. */
struct store_tree_slot *store_tree_slot_new(uint32_t hash, const char *path, size_t length);
/* What a slot needs to carry this version; *out is NULL where it is nothing. 0 or -ENOMEM. */
int store_tree_named_new(const struct store_node *node, struct store_tree_named **out);

/* A new slot and its version, as the youngest child of `parent` (NULL: it has none); takes a reference. The slot and
 * `named` are the tree's from then on. */
void store_tree_place(struct store_tree *t, struct store_tree_slot *slot, struct store_tree_slot *parent,
                      struct store_node *node, struct store_tree_named *named);
/* Another version; takes a reference, and `named` where the permissions differ: else that must be NULL. */
void store_tree_replace(struct store_tree *t, struct store_tree_slot *slot, struct store_node *node,
                        struct store_tree_named *named);
/* Takes a slot out of its parent's list; puts it there again, as the youngest. */
void store_tree_unlist(struct store_tree_slot *slot);
void store_tree_list(struct store_tree_slot *slot, struct store_tree_slot *parent);
/* The domain is no more: what began before must not name it any more (store_transaction_prepare()). */
static inline void store_tree_domain_died(struct store_tree *t, unsigned domid)
{
    t->died = t->domains[domid].died = ++t->commits;
}
/* Frees a slot that is unlisted, as all its children are. */
void store_tree_remove(struct store_tree *t, struct store_tree_slot *slot);

#endif
