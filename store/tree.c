/* SPDX-License-Identifier: MIT */
#include "store/tree.h"

#include <assert.h>
#include <string.h>

struct store_tree_slot *store_tree_find_hashed(const struct store_tree *t, uint32_t hash, const char *path,
                                               size_t length)
{
    struct strmap_entry *e = strmap_find_hashed(&t->slots, hash, path, length);
    return e ? container_of(e, struct store_tree_slot, entry) : NULL;
}

struct store_tree_slot *store_tree_find(const struct store_tree *t, const char *path, size_t length)
{
    return store_tree_find_hashed(t, strmap_hash(t->slots.seed, path, length), path, length);
}

struct store_node *store_tree_get(const struct store_tree *t, const char *path, size_t length)
{
    struct store_tree_slot *slot = store_tree_find(t, path, length);
    return slot ? slot->node : NULL;
}

struct store_tree_slot *store_tree_next(const struct store_tree *t, const struct store_tree_slot *slot)
{
    if (!slot)
        return list_entry(t->top.next, struct store_tree_slot, sibling);
    struct store_tree_slot *next = store_tree_child_first(slot);
    for (; !next && slot->parent; slot = slot->parent)
        next = store_tree_child_next(slot);
    if (next || slot->sibling.next == &t->top)
        return next;
    return list_entry(slot->sibling.next, struct store_tree_slot, sibling);
}

/* The ring's entry behind `at`; NULL at its end. A ring of zeroes was never used. */
static struct list *ring_next(const struct list *head, const struct list *at)
{
    struct list *next = at ? at->next : head->next;
    return next == head ? NULL : next;
}

static void ring_append(struct list *head, struct list *entry)
{
    if (!head->next)
        list_init(head);
    list_append(head, entry);
}

struct store_tree_slot *store_tree_owned_next(const struct store_tree *t, unsigned domid,
                                              const struct store_tree_slot *slot)
{
    struct list *next = ring_next(&t->domains[domid].owned, slot ? &slot->owned : NULL);
    return next ? list_entry(next, struct store_tree_slot, owned) : NULL;
}

struct store_tree_link *store_tree_named_next(const struct store_tree *t, unsigned domid,
                                              const struct store_tree_link *link)
{
    struct list *next = ring_next(&t->domains[domid].named, link ? &link->link : NULL);
    return next ? list_entry(next, struct store_tree_link, link) : NULL;
}

struct store_names *store_tree_names_new(const struct store_tree_slot *slot)
{
    struct store_names *names = slot->children_bytes ? malloc(sizeof(*names) + slot->children_bytes) : NULL;
    if (!names)
        return NULL;
    names->bytes = 0;
    for (const struct store_tree_slot *c = store_tree_child_first(slot); c; c = store_tree_child_next(c)) {
        const char *name = store_tree_slot_name(c);
        size_t bytes = (size_t)(c->path + c->entry.length - name) + 1;
        memcpy(names->text + names->bytes, name, bytes);
        names->bytes += (uint32_t)bytes;
    }
    assert(names->bytes == slot->children_bytes);
    return names;
}

static struct store_tree_listing *listing_of(struct store_tree *t, const struct store_tree_slot *slot)
{
    return &t->listings[slot->node->generation % STORE_TREE_LISTINGS];
}

static void listing_drop(struct store_tree_listing *l)
{
    free(l->names);
    *l = (struct store_tree_listing){0};
}

const struct store_names *store_tree_listing(struct store_tree *t, const struct store_tree_slot *slot)
{
    struct store_tree_listing *l = listing_of(t, slot);
    if (slot->children_bytes > XENSTORE_PAYLOAD_MAX)
        return NULL;
    if (l->slot != slot || l->generation != slot->node->generation) {
        listing_drop(l);
        l->slot = slot;
        l->generation = slot->node->generation;
    } else if (!l->names) {
        l->names = store_tree_names_new(slot);
    }
    return l->names;
}

struct store_tree_slot *store_tree_slot_new(uint32_t hash, const char *path, size_t length)
{
    struct store_tree_slot *slot = malloc(store_tree_slot_bytes(length));
    if (!slot)
        return NULL;
    *slot = (struct store_tree_slot){.entry = {.hash = hash, .length = (uint16_t)length}};
    list_init(&slot->sibling);
    list_init(&slot->owned);
    memcpy(slot->path, path, length);
    slot->path[length] = '\0';
    return slot;
}

int store_tree_named_new(const struct store_node *node, struct store_tree_named **out)
{
    unsigned count = 0;
    for (unsigned i = 1; i < node->perm_count; i++)
        count += node->perms[i].domid != 0;
    *out = count ? malloc(sizeof(**out) + count * sizeof((*out)->links[0])) : NULL;
    if (!*out)
        return count ? -ENOMEM : 0;
    (*out)->count = count;
    return 0;
}

/* Counts the slot for its owner, and puts it into the lists of those whom its permissions name. */
static void slot_enter(struct store_tree *t, struct store_tree_slot *slot, struct store_tree_named *named)
{
    unsigned owner = store_node_owner(slot->node), used = 0;
    t->owned[owner]++;
    ring_append(&t->domains[owner].owned, &slot->owned);
    slot->named = named;
    for (unsigned i = 1; i < slot->node->perm_count; i++) {
        unsigned domid = slot->node->perms[i].domid;
        if (domid == 0)
            continue;
        assert(named && used < named->count);
        named->links[used].slot = slot;
        ring_append(&t->domains[domid].named, &named->links[used++].link);
    }
}

static void slot_leave(struct store_tree *t, struct store_tree_slot *slot)
{
    unsigned owner = store_node_owner(slot->node);
    assert(t->owned[owner] > 0);
    t->owned[owner]--;
    list_remove(&slot->owned);
    for (unsigned i = 0; slot->named && i < slot->named->count; i++)
        list_remove(&slot->named->links[i].link);
    free(take_ptr(slot->named));
}

/* What its owner is charged. */
static size_t slot_charge(const struct store_tree_slot *slot)
{
    struct store_node_parts parts = store_node_parts(slot->node);
    return store_tree_slot_bytes(slot->entry.length) + store_node_bytes(&parts);
}

void store_tree_place(struct store_tree *t, struct store_tree_slot *slot, struct store_tree_slot *parent,
                      struct store_node *node, struct store_tree_named *named)
{
    strmap_insert_hashed(&t->slots, &slot->entry, slot->entry.hash, slot->path, slot->entry.length);
    slot->node = store_node_ref(node);
    slot_enter(t, slot, named);
    t->domains[store_node_owner(node)].bytes += slot_charge(slot);
    if (parent)
        store_tree_list(slot, parent);
    else
        list_append(&t->top, &slot->sibling);
}

void store_tree_replace(struct store_tree *t, struct store_tree_slot *slot, struct store_node *node,
                        struct store_tree_named *named)
{
    bool same = store_node_same_perms(slot->node, node);
    assert(!same || !named);
    t->domains[store_node_owner(slot->node)].bytes -= slot_charge(slot);
    if (!same)
        slot_leave(t, slot);
    store_node_ref(node);
    store_node_unref(slot->node);
    slot->node = node;
    if (!same)
        slot_enter(t, slot, named);
    t->domains[store_node_owner(node)].bytes += slot_charge(slot);
}

/* What its name adds to its parent's list. */
static uint32_t slot_name_bytes(const struct store_tree_slot *slot)
{
    return (uint32_t)(slot->entry.length - store_path_name_offset(slot->path, slot->entry.length)) + 1;
}

void store_tree_list(struct store_tree_slot *slot, struct store_tree_slot *parent)
{
    slot->parent = parent;
    if (parent->oldest)
        list_append(&parent->oldest->sibling, &slot->sibling);
    else
        parent->oldest = slot;
    parent->children_bytes += slot_name_bytes(slot);
}

void store_tree_unlist(struct store_tree_slot *slot)
{
    if (slot->parent->oldest == slot)
        slot->parent->oldest = store_tree_child_next(slot);
    list_remove(&slot->sibling);
    assert(slot->parent->children_bytes >= slot_name_bytes(slot));
    slot->parent->children_bytes -= slot_name_bytes(slot);
    slot->parent = NULL;
}

void store_tree_remove(struct store_tree *t, struct store_tree_slot *slot)
{
    assert(!slot->parent && !slot->oldest && slot->children_bytes == 0);
    t->domains[store_node_owner(slot->node)].bytes -= slot_charge(slot);
    slot_leave(t, slot);
    strmap_remove(&t->slots, &slot->entry);
    store_node_unref(slot->node);
    free(slot);
}

int store_tree_plant(struct store_tree *t, const char *path, size_t length, struct store_node *node)
{
    size_t parent_length = store_path_parent(path, length);
    struct store_tree_slot *parent = parent_length ? store_tree_find(t, path, parent_length) : NULL;
    uint32_t hash = strmap_hash(t->slots.seed, path, length);
    if (store_tree_find_hashed(t, hash, path, length))
        return -EEXIST;
    if (parent_length && !parent)
        return -ENOENT;
    struct store_tree_named *named;
    struct store_tree_slot *slot = store_tree_slot_new(hash, path, length);
    if (!slot || store_tree_named_new(node, &named) < 0) {
        free(slot);
        return -ENOMEM;
    }
    if (parent)
        listing_drop(listing_of(t, parent)); /* its list changes, and its version does not */
    t->generation = MAX(t->generation, node->generation);
    store_tree_place(t, slot, parent, node, named);
    return 0;
}

static int tree_start(struct store_tree *t, const char *path)
{
    static const struct store_perm dom0_only = {.domid = 0, .access = 0};
    struct store_node *node = store_node_new(&(struct store_node_parts){.perms = &dom0_only, .perm_count = 1});
    if (!node)
        return -ENOMEM;
    node->generation = ++t->generation;
    int r = store_tree_plant(t, path, strlen(path), node);
    store_node_unref(node);
    return r;
}

int store_tree_init(struct store_tree *t, uint64_t seed)
{
    static const char *const start[] = {"/", "/tool", "/tool/xenstored", "@introduceDomain", "@releaseDomain"};
    *t = (struct store_tree){.owned = calloc(STORE_DOMID_MAX + 1, sizeof(*t->owned)),
                             .domains = calloc(STORE_DOMID_MAX + 1, sizeof(*t->domains))};
    strmap_init(&t->slots, seed);
    list_init(&t->top);
    int r = t->owned && t->domains ? 0 : -ENOMEM;
    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(start); i++)
        r = tree_start(t, start[i]);
    if (r < 0)
        store_tree_deinit(t);
    return r;
}

void store_tree_deinit(struct store_tree *t)
{
    struct strmap_entry *e, *next;
    strmap_foreach_safe(&t->slots, i, e, next)
    {
        struct store_tree_slot *slot = container_of(e, struct store_tree_slot, entry);
        store_node_unref(slot->node);
        free(slot->named);
        free(slot);
    }
    strmap_deinit(&t->slots);
    for (size_t i = 0; i < STORE_TREE_LISTINGS; i++)
        free(t->listings[i].names);
    free(t->owned);
    free(t->domains);
    *t = (struct store_tree){0};
}
