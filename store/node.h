/* SPDX-License-Identifier: MIT */
/* store/node.h: one version of one node: permissions, value, names of its children. Never changed once made.
 *
 * A change of a node makes a new version, so whoever holds a reference (a transaction, an event on its way) sees what
 * it saw first, and "was it changed?" is "is it another version?". Its path is the tree's business. The generation is
 * unique within a tree. One allocation each; references are counted without atomics: one thread.
 */
#ifndef STORE_NODE_H
#define STORE_NODE_H

#include "store/perm.h"

struct store_node {
    uint64_t generation;
    uint32_t refs;
    uint32_t perm_count;
    uint32_t value_bytes, children_bytes; /* children: each name with its NUL, oldest first */
    uint16_t writer;                      /* the domain whose request made this version */
    struct store_perm perms[];            /* then the value, then the children */
};

/* What a new version consists of; borrowed. */
struct store_node_parts {
    const struct store_perm *perms;
    const char *value, *children;
    uint32_t perm_count, value_bytes, children_bytes;
};

static inline const char *store_node_value(const struct store_node *n)
{
    return (const char *)&n->perms[n->perm_count];
}

static inline const char *store_node_children(const struct store_node *n)
{
    return store_node_value(n) + n->value_bytes;
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
struct store_node *store_node_ref(struct store_node *n); /* NULL is fine for both */
void store_node_unref(struct store_node *n);
bool store_node_has_child(const struct store_node *n, const char *name, size_t length);
/* New versions that differ in one child's name; the one to take away is there. */
struct store_node *store_node_with_child(const struct store_node *n, const char *name, size_t length);
struct store_node *store_node_without_child(const struct store_node *n, const char *name, size_t length);
/* A new version without `domid`'s entries, the owner's excepted. */
struct store_node *store_node_without_domain(const struct store_node *n, unsigned domid);
bool store_node_names_domain(const struct store_node *n, unsigned domid); /* behind the owner's entry */
/* What the node-size quota counts: as the reference server's record, a header of 24 bytes and 8 a permission. */
size_t store_node_size(const struct store_node_parts *parts);

#endif
