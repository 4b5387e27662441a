/* SPDX-License-Identifier: MIT */
/* store/node.h: one version of one node: permissions and value. Never changed once made.
 *
 * A change of a node makes a new version, so whoever holds a reference (a transaction, an event on its way) sees what
 * it saw first, and "was it changed?" is "is it another version?". Its path and its list of children are the tree's
 * business; a change of that list makes a new version, too. A version that others still hold when another takes its
 * place keeps the list that it had (`names`), so that they see it as it was; nobody else pays for a copy.
 *
 * The generation is unique within a tree. One allocation each; references are counted without atomics: one thread.
 */
#ifndef STORE_NODE_H
#define STORE_NODE_H

#include "store/perm.h"

/* A list of children that is history: each name with its NUL, oldest first. */
struct store_names {
    uint32_t bytes;
    char text[];
};

struct store_node {
    uint64_t generation;
    struct store_names *names; /* NULL: it is in the tree, or had no children */
    uint32_t refs;
    uint32_t value_bytes;
    uint16_t perm_count;
    uint16_t writer;           /* the domain whose request made this version */
    struct store_perm perms[]; /* then the value */
};

/* What a new version consists of; borrowed. */
struct store_node_parts {
    const struct store_perm *perms;
    const char *value;
    uint32_t perm_count, value_bytes;
};

static inline const char *store_node_value(const struct store_node *n)
{
    return (const char *)&n->perms[n->perm_count];
}

static inline unsigned store_node_owner(const struct store_node *n)
{
    return n->perms[0].domid;
}

static inline unsigned store_node_access(const struct store_node *n, const struct store_actor *who)
{
    return store_perms_access(n->perms, n->perm_count, who);
}

struct store_node_parts store_node_parts(const struct store_node *n);
/* One reference, generation 0; NULL: no memory. */
struct store_node *store_node_new(const struct store_node_parts *parts);
struct store_node *store_node_copy(const struct store_node *n); /* a new version that differs in nothing */
struct store_node *store_node_ref(struct store_node *n);        /* NULL is fine for both */
void store_node_unref(struct store_node *n);
/* A new version without `domid`'s entries, the owner's excepted. */
struct store_node *store_node_without_domain(const struct store_node *n, unsigned domid);
bool store_node_names_domain(const struct store_node *n, unsigned domid); /* behind the owner's entry */
bool store_node_same_perms(const struct store_node *a, const struct store_node *b);
/* What the node-size quota counts: as the reference server's record, a header of 24 bytes, 8 a permission, the value
 * and the names of the children with their NULs. */
size_t store_node_size(const struct store_node_parts *parts, size_t children_bytes);
size_t store_node_bytes(const struct store_node_parts *parts); /* of memory */

#endif
