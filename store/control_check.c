/* SPDX-License-Identifier: MIT */
/* store/control_check.c: what the engine promises of itself, looked at from outside. */
#include <string.h>

#include "store/control.h"

/* The slot can be found by its path, and its parent is the slot of the path above. */
static bool slot_check(const struct store_tree *t, const struct store_tree_slot *slot, struct err *why)
{
    size_t above = store_path_parent(slot->path, slot->entry.length);
    if (store_tree_find(t, slot->path, slot->entry.length) != slot) {
        err_write(why, "%s is not found by its path", slot->path);
        return false;
    }
    if (slot->parent == (above ? store_tree_find(t, slot->path, above) : NULL) && (!above || slot->parent))
        return true;
    err_write(why, "%s does not stand below its parent", slot->path);
    return false;
}

/* The children know whose they are, and their names are as long as it was counted. */
static bool children_check(const struct store_tree_slot *slot, struct err *why)
{
    const struct store_tree_slot *child = store_tree_child_first(slot);
    size_t bytes = 0;
    for (; child && child->parent == slot; child = store_tree_child_next(child))
        bytes += strlen(store_tree_slot_name(child)) + 1;
    if (child)
        err_write(why, "%s is listed by %s", child->path, slot->path);
    else if (bytes != slot->children_bytes)
        err_write(why, "the children of %s have names of %zu bytes, and %u are counted", slot->path, bytes,
                  slot->children_bytes);
    return !child && bytes == slot->children_bytes;
}

static bool tree_check(const struct store_engine *g, uint32_t *owned, struct err *why)
{
    const struct store_tree *t = &g->tree;
    const struct store_tree_slot *slot = NULL;
    size_t walked = 0;
    for (; (slot = store_tree_next(t, slot)) != NULL; walked++) {
        owned[store_node_owner(slot->node)]++;
        if (!slot_check(t, slot, why) || !children_check(slot, why))
            return false;
    }
    if (walked == t->slots.count)
        return true;
    err_write(why, "there are %zu nodes, and %zu can be reached from the root", t->slots.count, walked);
    return false;
}

/* The list of what the domain owns has what it owns. */
static bool owned_check(const struct store_tree *t, unsigned domid, uint32_t owned, struct err *why)
{
    const struct store_tree_slot *slot = NULL;
    uint32_t listed = 0;
    while ((slot = store_tree_owned_next(t, domid, slot)) != NULL && store_node_owner(slot->node) == domid)
        listed++;
    if (!slot && listed == owned && t->owned[domid] == owned)
        return true;
    err_write(why, "domain %u owns %u nodes, %u are counted, %u listed", domid, owned, t->owned[domid], listed);
    return false;
}

/* What is counted for domains is what there is. */
static bool counts_check(const struct store_engine *g, const uint32_t *owned, struct err *why)
{
    const struct store_domain *d;
    unsigned watches = 0, transactions = 0;
    for (unsigned domid = 0; domid <= STORE_DOMID_MAX; domid++)
        if (!owned_check(&g->tree, domid, owned[domid], why))
            return false;
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
