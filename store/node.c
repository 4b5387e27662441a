/* SPDX-License-Identifier: MIT */
#include "store/node.h"

#include <assert.h>
#include <string.h>

struct store_node_parts store_node_parts(const struct store_node *n)
{
    return (struct store_node_parts){.perms = n->perms,
                                     .value = store_node_value(n),
                                     .children = store_node_children(n),
                                     .perm_count = n->perm_count,
                                     .value_bytes = n->value_bytes,
                                     .children_bytes = n->children_bytes};
}

/* A version with room for `parts`, permissions and value filled in. */
static struct store_node *node_start(const struct store_node_parts *parts)
{
    assert(parts->perm_count > 0);
    size_t perms_bytes = parts->perm_count * sizeof(struct store_perm);
    struct store_node *n = malloc(sizeof(*n) + perms_bytes + parts->value_bytes + parts->children_bytes);
    if (!n)
        return NULL;
    *n = (struct store_node){.refs = 1,
                             .perm_count = parts->perm_count,
                             .value_bytes = parts->value_bytes,
                             .children_bytes = parts->children_bytes};
    memcpy(n->perms, parts->perms, perms_bytes);
    if (parts->value_bytes)
        memcpy((char *)store_node_value(n), parts->value, parts->value_bytes);
    return n;
}

struct store_node *store_node_new(const struct store_node_parts *parts)
{
    struct store_node *n = node_start(parts);
    if (n && parts->children_bytes)
        memcpy((char *)store_node_children(n), parts->children, parts->children_bytes);
    return n;
}

struct store_node *store_node_ref(struct store_node *n)
{
    if (n)
        n->refs++;
    return n;
}

void store_node_unref(struct store_node *n)
{
    if (n && --n->refs == 0)
        free(n);
}

struct store_node *store_node_with_child(const struct store_node *n, const char *name, size_t length)
{
    struct store_node_parts parts = store_node_parts(n);
    uint32_t before = parts.children_bytes;
    parts.children_bytes += (uint32_t)length + 1;
    struct store_node *changed = node_start(&parts);
    if (!changed)
        return NULL;
    char *children = (char *)store_node_children(changed);
    memcpy(children, parts.children, before);
    memcpy(children + before, name, length);
    children[before + length] = '\0';
    return changed;
}

/* Where the child's name begins, or children_bytes. */
static size_t child_find(const struct store_node *n, const char *name, size_t length)
{
    const char *children = store_node_children(n);
    size_t at = 0, child_length;
    for (; at < n->children_bytes; at += child_length + 1) {
        child_length = strlen(children + at);
        if (child_length == length && memcmp(children + at, name, length) == 0)
            break;
    }
    return at;
}

bool store_node_has_child(const struct store_node *n, const char *name, size_t length)
{
    return child_find(n, name, length) < n->children_bytes;
}

struct store_node *store_node_without_child(const struct store_node *n, const char *name, size_t length)
{
    size_t at = child_find(n, name, length), behind = at + length + 1;
    assert(at < n->children_bytes);
    struct store_node_parts parts = store_node_parts(n);
    uint32_t before = parts.children_bytes;
    parts.children_bytes -= (uint32_t)length + 1;
    struct store_node *changed = node_start(&parts);
    if (!changed)
        return NULL;
    char *children = (char *)store_node_children(changed);
    memcpy(children, parts.children, at);
    memcpy(children + at, parts.children + behind, before - behind);
    return changed;
}

bool store_node_names_domain(const struct store_node *n, unsigned domid)
{
    for (unsigned i = 1; i < n->perm_count; i++)
        if (n->perms[i].domid == domid)
            return true;
    return false;
}

struct store_node *store_node_without_domain(const struct store_node *n, unsigned domid)
{
    struct store_perm perms[STORE_PERMS_MAX];
    struct store_node_parts parts = store_node_parts(n);
    assert(n->perm_count <= STORE_PERMS_MAX);
    parts.perms = perms;
    parts.perm_count = 0;
    for (unsigned i = 0; i < n->perm_count; i++)
        if (i == 0 || n->perms[i].domid != domid)
            perms[parts.perm_count++] = n->perms[i];
    return store_node_new(&parts);
}

size_t store_node_size(const struct store_node_parts *parts)
{
    return 24 + 8 * (size_t)parts->perm_count + parts->value_bytes + parts->children_bytes;
}
