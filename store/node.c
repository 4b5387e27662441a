/* SPDX-License-Identifier: MIT */
#include "store/node.h"

#include <assert.h>
#include <string.h>

struct store_node_parts store_node_parts(const struct store_node *n)
{
    return (struct store_node_parts){
        .perms = n->perms, .value = store_node_value(n), .perm_count = n->perm_count, .value_bytes = n->value_bytes};
}

size_t store_node_bytes(const struct store_node_parts *parts)
{
    return sizeof(struct store_node) + parts->perm_count * sizeof(struct store_perm) + parts->value_bytes;
}

struct store_node *store_node_new(const struct store_node_parts *parts)
{
    assert(parts->perm_count > 0 && parts->perm_count <= STORE_PERMS_MAX);
    struct store_node *n = malloc(store_node_bytes(parts));
    if (!n)
        return NULL;
    *n = (struct store_node){.refs = 1, .perm_count = (uint16_t)parts->perm_count, .value_bytes = parts->value_bytes};
    memcpy(n->perms, parts->perms, parts->perm_count * sizeof(struct store_perm));
    if (parts->value_bytes)
        memcpy((char *)store_node_value(n), parts->value, parts->value_bytes);
    return n;
}

struct store_node *store_node_copy(const struct store_node *n)
{
    struct store_node_parts parts = store_node_parts(n);
    return store_node_new(&parts);
}

struct store_node *store_node_ref(struct store_node *n)
{
    if (n)
        n->refs++;
    return n;
}

void store_node_unref(struct store_node *n)
{
    if (!n || --n->refs > 0)
        return;
    free(n->names);
    free(n);
}

bool store_node_names_domain(const struct store_node *n, unsigned domid)
{
    for (unsigned i = 1; i < n->perm_count; i++)
        if (n->perms[i].domid == domid)
            return true;
    return false;
}

bool store_node_same_perms(const struct store_node *a, const struct store_node *b)
{
    if (a->perm_count != b->perm_count)
        return false;
    for (unsigned i = 0; i < a->perm_count; i++)
        if (a->perms[i].domid != b->perms[i].domid || a->perms[i].access != b->perms[i].access)
            return false;
    return true;
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

size_t store_node_size(const struct store_node_parts *parts, size_t children_bytes)
{
    return 24 + 8 * (size_t)parts->perm_count + parts->value_bytes + children_bytes;
}
