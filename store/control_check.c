/* SPDX-License-Identifier: MIT */
/* store/control_check.c: what the engine promises of itself, looked at from outside. */
#include <string.h>

#include "store/control.h"

/* The node's parent is there. */
static bool parent_is_there(const struct store_tree *t, const struct store_tree_slot *slot, struct err *why)
{
    size_t above = store_path_parent(slot->path, slot->entry.length);
    if (above == 0 || store_tree_get(t, slot->path, above))
        return true;
    err_write(why, "%s has no parent", slot->path);
    return false;
}

/* Each child that the node lists is there; adds how many it lists. */
static bool children_are_there(const struct store_tree *t, const struct store_tree_slot *slot, size_t *listed,
                               struct err *why)
{
    char path[XENSTORE_ABS_PATH_MAX + 2];
    size_t length = slot->entry.length == 1 ? 0 : slot->entry.length, name_bytes;
    const char *names = store_node_children(slot->node);
    memcpy(path, slot->path, length);
    path[length++] = '/';
    for (size_t at = 0; at < slot->node->children_bytes; at += name_bytes, ++*listed) {
        name_bytes = strlen(names + at) + 1;
        memcpy(path + length, names + at, MIN(name_bytes, sizeof(path) - length));
        if (store_tree_get(t, path, length + name_bytes - 1))
            continue;
        err_write(why, "%s lists a child %s that is not there", slot->path, names + at);
        return false;
    }
    return true;
}

static bool tree_check(const struct store_engine *g, uint32_t *owned, struct err *why)
{
    const struct store_tree *t = &g->tree;
    struct strmap_entry *e, *next;
    size_t listed = 0, children = 0;
    strmap_foreach_safe(&t->slots, i, e, next)
    {
        const struct store_tree_slot *slot = container_of(e, struct store_tree_slot, entry);
        owned[store_node_owner(slot->node)]++;
        children += store_path_parent(slot->path, e->length) > 0;
        if (!parent_is_there(t, slot, why) || !children_are_there(t, slot, &listed, why))
            return false;
    }
    if (listed == children)
        return true;
    err_write(why, "%zu nodes have parents, and %zu are listed as children", children, listed);
    return false;
}

/* What is counted for domains is what there is. */
static bool counts_check(const struct store_engine *g, const uint32_t *owned, struct err *why)
{
    const struct store_domain *d;
    unsigned watches = 0, transactions = 0;
    for (unsigned domid = 0; domid <= STORE_DOMID_MAX; domid++) {
        if (owned[domid] == g->tree.owned[domid])
            continue;
        err_write(why, "domain %u owns %u nodes, and %u are counted", domid, owned[domid], g->tree.owned[domid]);
        return false;
    }
    map_foreach (&g->domains.by_domid, i, d) {
        watches += d->watches;
        transactions += d->transactions;
    }
    if (watches == g->watches.count && transactions == g->transactions)
        return true;
    err_write(why, "domains have %u watches and %u transactions, and %u and %u are counted", watches, transactions,
              g->watches.count, g->transactions);
    return false;
}

bool store_control_check(const struct store_engine *g, struct err *why)
{
    uint32_t *owned = calloc(STORE_DOMID_MAX + 1, sizeof(*owned));
    if (!owned) {
        err_write(why, "no memory to check");
        return false;
    }
    bool good = tree_check(g, owned, why) && counts_check(g, owned, why);
    free(owned);
    return good;
}
