/* SPDX-License-Identifier: MIT */
#include "store/view.h"

#include <string.h>

static struct store_node *peek_hashed(const struct store_tree *t, const struct store_transaction *x, uint32_t hash,
                                      const char *path, size_t length)
{
    const struct store_touch *touch = x ? store_transaction_touch(x, hash, path, length) : NULL;
    if (touch)
        return touch->now;
    const struct store_tree_slot *slot = store_tree_find_hashed(t, hash, path, length);
    return slot ? slot->node : NULL;
}

struct store_node *store_view_peek(const struct store_tree *t, const struct store_transaction *x, const char *path,
                                   size_t length)
{
    return peek_hashed(t, x, strmap_hash(t->slots.seed, path, length), path, length);
}

/* One pass over the path from its start: a peer's path of a thousand names costs its length, not the square of it. */
size_t store_view_ancestor(const struct store_tree *t, const struct store_transaction *x, const char *path,
                           size_t length)
{
    size_t found = 1, hashed = 1, parent = store_path_parent(path, length);
    uint32_t hash = strmap_hash(t->slots.seed, path, 1);
    for (size_t end = 2; end <= parent; end++) {
        if (end < parent && path[end] != '/')
            continue;
        hash = strmap_hash(hash, path + hashed, end - hashed);
        hashed = end;
        if (peek_hashed(t, x, hash, path, end))
            found = end;
    }
    return found;
}

void store_view_walk_start(struct store_view_walk *w, const struct store_tree *t, const struct store_transaction *x,
                           uint32_t hash, const char *path, size_t length)
{
    const struct store_tree_slot *slot = store_tree_find_hashed(t, hash, path, length);
    *w = (struct store_view_walk){.x = x};
    w->touch = x ? store_transaction_touch(x, hash, path, length) : NULL;
    if (w->touch)
        w->made = w->touch->children.next;
    if (slot && (!w->touch || w->touch->base == slot->node)) {
        w->live = store_tree_child_first(slot);
    } else if (w->touch && w->touch->base && w->touch->base->names) {
        w->kept = w->touch->base->names->text;
        w->kept_end = w->kept + w->touch->base->names->bytes;
    }
}

static void walk_at(struct store_view_walk *w, const struct strmap_entry *e, size_t name_offset)
{
    w->at = e;
    w->name = strmap_key(e) + name_offset;
    w->length = e->length - name_offset;
}

static bool child_unlisted(const struct store_view_walk *w, uint32_t hash, const char *path, size_t length)
{
    const struct store_touch *child = store_transaction_touch(w->x, hash, path, length);
    return child && child->unlisted;
}

static bool kept_unlisted(const struct store_view_walk *w)
{
    char path[2 * XENSTORE_ABS_PATH_MAX + 2];
    const struct strmap_entry *above = &w->touch->entry;
    size_t length = above->length;
    memcpy(path, strmap_key(above), length);
    if (length > 1)
        path[length++] = '/';
    memcpy(path + length, w->name, w->length);
    length += w->length;
    return child_unlisted(w, strmap_hash(w->x->touches.seed, path, length), path, length);
}

bool store_view_walk_next(struct store_view_walk *w)
{
    bool gaps = w->touch && w->touch->unlisted_children > 0;
    while (w->live) {
        const struct strmap_entry *e = &w->live->entry;
        size_t name = store_tree_name_offset(w->live->parent);
        w->live = store_tree_child_next(w->live);
        if (gaps && child_unlisted(w, e->hash, strmap_key(e), e->length))
            continue;
        walk_at(w, e, name);
        return true;
    }
    while (w->kept < w->kept_end) {
        w->at = NULL;
        w->name = w->kept;
        w->length = strlen(w->kept);
        w->kept += w->length + 1;
        if (!gaps || !kept_unlisted(w))
            return true;
    }
    if (!w->touch || w->made == &w->touch->children)
        return false;
    const struct strmap_entry *made = &list_entry(w->made, struct store_touch, sibling)->entry;
    walk_at(w, made, store_path_name_offset(strmap_key(made), made->length));
    w->made = w->made->next;
    return true;
}

uint32_t store_view_names_bytes(const struct store_tree *t, const struct store_transaction *x, const char *path,
                                size_t length)
{
    uint32_t hash = strmap_hash(t->slots.seed, path, length);
    const struct store_touch *touch = x ? store_transaction_touch(x, hash, path, length) : NULL;
    if (touch)
        return touch->children_bytes;
    const struct store_tree_slot *slot = store_tree_find_hashed(t, hash, path, length);
    return slot ? slot->children_bytes : 0;
}

/* A list that is read in parts is not walked from its start for each: the tree remembers where the last part ended. */
static uint64_t walk_resume(struct store_view_walk *w, const struct store_tree *t, uint64_t offset)
{
    const struct store_tree_resume *r = &t->resume;
    if (w->touch || !w->live || offset == 0 || r->offset != offset || r->slot != w->live->parent ||
        r->generation != r->slot->node->generation)
        return offset;
    w->live = r->child;
    return 0;
}

static void walk_stop(const struct store_view_walk *w, struct store_tree *t, uint64_t offset)
{
    if (w->touch || !w->at || offset > UINT32_MAX)
        return;
    struct store_tree_slot *child = container_of(w->at, struct store_tree_slot, entry);
    t->resume = (struct store_tree_resume){.slot = child->parent,
                                           .child = child,
                                           .generation = child->parent->node->generation,
                                           .offset = (uint32_t)offset};
}

/* The plain case: nothing to skip, nothing to leave out. As many whole names as fit; stands then at the next one. */
static uint32_t live_copy(struct store_tree *t, struct store_tree_slot **at, char *out, uint32_t room)
{
    struct store_tree_slot *child = *at, *parent = child->parent;
    const struct store_names *names = child == store_tree_child_first(parent) ? store_tree_listing(t, parent) : NULL;
    size_t name = store_tree_name_offset(parent);
    uint32_t copied = 0;
    if (names && names->bytes <= room) {
        *at = NULL;
        memcpy(out, names->text, names->bytes);
        return names->bytes;
    }
    while (child) {
        uint32_t bytes = child->entry.length + 1u - (uint32_t)name;
        if (bytes > room - copied)
            break;
        memcpy(out + copied, child->path + name, bytes);
        copied += bytes;
        child = store_tree_child_next(child);
    }
    *at = child;
    return copied;
}

uint32_t store_view_names_copy(struct store_tree *t, const struct store_transaction *x, const char *path, size_t length,
                               uint64_t offset, char *out, uint32_t room, bool *end)
{
    struct store_view_walk w;
    uint32_t copied = 0;
    store_view_walk_start(&w, t, x, strmap_hash(t->slots.seed, path, length), path, length);
    uint64_t skip = walk_resume(&w, t, offset);
    *end = false;
    if (w.live && skip == 0 && !(w.touch && w.touch->unlisted_children))
        copied = live_copy(t, &w.live, out, room);
    while (store_view_walk_next(&w)) {
        size_t bytes = w.length + 1;
        if (skip >= bytes) {
            skip -= bytes;
            continue;
        }
        if (bytes - skip > room - copied) {
            walk_stop(&w, t, offset + copied - skip);
            return copied;
        }
        memcpy(out + copied, w.name + skip, bytes - skip - 1);
        copied += (uint32_t)(bytes - skip);
        out[copied - 1] = '\0';
        skip = 0;
    }
    *end = true;
    return copied;
}
