/* SPDX-License-Identifier: MIT */
/* store/ops_node.c: the operations on nodes. Each checks all that a peer could have got wrong before it changes the
 * first node, so that in a transaction of the peer's, too, a refused request has changed nothing; memory excepted,
 * which breaks that transaction. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "store/answers.h"
#include "store/ops.h"
#include "store/view.h"

static int view_get(const struct store_request *r, size_t length, struct store_node **out)
{
    if (r->transaction)
        return store_transaction_get(r->transaction, r->path.text, length, out);
    *out = store_tree_get(&r->engine->tree, r->path.text, length);
    return 0;
}

static struct store_node *view_peek(const struct store_request *r, size_t length)
{
    return store_view_peek(&r->engine->tree, r->transaction, r->path.text, length);
}

/* The length of the nearest ancestor's path that exists; "/" always does. */
static size_t view_ancestor(const struct store_request *r)
{
    return store_view_ancestor(&r->engine->tree, r->transaction, r->path.text, r->path.length);
}

/* The node at r->path for a caller who needs `access`. A caller who may not look at the nearest ancestor does not learn
 * that the node is missing. */
static int lookup(const struct store_request *r, unsigned access, struct store_node **out)
{
    int error = view_get(r, r->path.length, out);
    if (error)
        return error;
    if (*out)
        return (store_node_access(*out, &r->who) & access) == access ? 0 : EACCES;
    if (r->path.special)
        return ENOENT;
    struct store_node *ancestor;
    error = view_get(r, view_ancestor(r), &ancestor);
    if (error)
        return error;
    return store_node_access(ancestor, &r->who) & access ? ENOENT : EACCES;
}

/* The same for who makes nothing where there is nothing. */
static int lookup_there(const struct store_request *r, unsigned access, struct store_node **out)
{
    int error = lookup(r, access, out);
    return error == EACCES && !*out ? store_answer(r->engine, STORE_ANSWER_HIDDEN) : error;
}

/* The one string of the payload is a path. */
static int path_only(struct store_request *r)
{
    const char *path;
    if (store_wire_strings(r->in->payload, r->in->header.len, &path, 1) != 0)
        return store_answer(r->engine, STORE_ANSWER_NO_NUL);
    return store_request_path(r, path);
}

/* … and of no special node. */
static int path_ordinary(struct store_request *r)
{
    int error = path_only(r);
    return !error && r->path.special ? EINVAL : error;
}

static int lookup_only(struct store_request *r, unsigned access, struct store_node **out)
{
    int error = path_ordinary(r);
    return error ? error : lookup_there(r, access, out);
}

int store_op_read(struct store_request *r)
{
    struct store_node *n;
    int error = lookup_only(r, STORE_READ, &n);
    return error ? error : store_reply_bytes(r, store_node_value(n), n->value_bytes);
}

/* Appends the children's names from `offset` on to the reply, as many as fit if `spare` bytes are left. True: all of
 * them. */
static bool names_append(const struct store_request *r, uint64_t offset, uint32_t spare)
{
    bool end;
    uint32_t used = r->out->header.len, room = (uint32_t)sizeof(r->out->payload) - used - spare;
    r->out->header.len += store_view_names_copy(&r->engine->tree, r->transaction, r->path.text, r->path.length, offset,
                                                r->out->payload + used, room, &end);
    return end;
}

int store_op_directory(struct store_request *r)
{
    struct store_node *n;
    int error = lookup_only(r, STORE_READ, &n);
    if (error)
        return error;
    return names_append(r, 0, 0) ? 0 : E2BIG;
}

int store_op_directory_part(struct store_request *r)
{
    const char *strings[2];
    struct store_node *n;
    uint64_t offset;
    char generation[24];
    int error = store_wire_strings(r->in->payload, r->in->header.len, strings, 2);
    if (!error)
        error = store_request_path(r, strings[0]);
    if (!error && (r->path.special || store_wire_number(strings[1], UINT32_MAX, &offset) != 0))
        error = EINVAL;
    if (!error)
        error = lookup_there(r, STORE_READ, &n);
    if (error)
        return error;
    snprintf(generation, sizeof(generation), "%" PRIu64, n->generation);
    store_reply_text(r, generation);
    return names_append(r, offset, 1) ? store_reply_text(r, "") : 0; /* an empty name ends the list */
}

int store_op_get_perms(struct store_request *r)
{
    struct store_node *n;
    int error = path_only(r);
    if (!error && r->path.special)
        error = store_answer(r->engine, STORE_ANSWER_SPECIAL_PERMS);
    if (!error)
        error = lookup_there(r, STORE_READ, &n);
    for (unsigned i = 0; !error && i < n->perm_count; i++) {
        char text[8];
        error = store_reply_bytes(r, text, store_perm_format(&n->perms[i], text));
    }
    return error;
}

static uint32_t view_names_bytes(const struct store_request *r, size_t length)
{
    return store_view_names_bytes(&r->engine->tree, r->transaction, r->path.text, length);
}

static bool too_big(const struct store_request *r, const struct store_node_parts *parts, size_t children_bytes)
{
    return store_node_size(parts, children_bytes) >= r->session->domain->quota.node_size_bytes;
}

/* The path of the node to make below the existing one at `above`: its length. */
static size_t birth_below(const struct store_request *r, size_t above)
{
    size_t start = above == 1 ? 1 : above + 1;
    return start + strcspn(r->path.text + start, "/");
}

/* May the store hold this much more for who asks, and for the owner of what is written? */
static int memory_check(const struct store_request *r, unsigned owner, uint64_t more)
{
    if (store_actor_privileged(&r->who) || more == 0)
        return 0;
    if (more > r->transaction->room_bytes)
        return ENOMEM;
    return owner == r->who.domid || more <= store_engine_domain_room_bytes(r->engine, owner) ? 0 : ENOMEM;
}

/* What a node takes that is made: in an open transaction also for its touch. */
static uint64_t birth_bytes(const struct store_request *r, size_t length, const struct store_node_parts *parts)
{
    return store_tree_slot_bytes(length) + store_node_bytes(parts) +
           (r->transaction->account ? store_touch_bytes(length) : 0);
}

/* May all nodes between the existing ancestor and r->path be made? ENOSPC or ENOMEM where a quota says no. */
static int births_check(const struct store_request *r, size_t above, const struct store_node *ancestor,
                        uint32_t value_bytes)
{
    if (store_actor_privileged(&r->who))
        return 0;
    struct store_node_parts parts = store_node_parts(ancestor);
    size_t names_bytes = view_names_bytes(r, above);
    uint64_t more =
        r->transaction->account ? store_node_bytes(&parts) : 0; /* the ancestor's version with a longer list */
    uint32_t count = 0;
    for (; above < r->path.length; count++) {
        size_t birth = birth_below(r, above);
        if (too_big(r, &parts, names_bytes + (birth - above) + (above == 1)))
            return ENOSPC;
        parts.value_bytes = birth < r->path.length ? 0 : value_bytes;
        names_bytes = 0;
        above = birth;
        more += birth_bytes(r, birth, &parts);
    }
    if (too_big(r, &parts, 0))
        return ENOSPC;
    if (r->engine->tree.owned[r->who.domid] + r->transaction->own_delta + count > r->session->domain->quota.nodes)
        return store_answer(r->engine, STORE_ANSWER_NODE_QUOTA);
    if (store_transaction_room(r->transaction) < count - 1) /* the first and the last are touched */
        return ENOSPC;
    return memory_check(r, r->who.domid, more);
}

/* Makes r->path and what is missing above it, with the permissions of the nearest ancestor; a guest owns what it makes.
 */
static int create(struct store_request *r, const char *value, uint32_t value_bytes)
{
    struct store_perm perms[STORE_PERMS_MAX];
    struct store_node *ancestor;
    size_t above = view_ancestor(r);
    int error = view_get(r, above, &ancestor);
    if (!error)
        error = births_check(r, above, ancestor, value_bytes);
    if (error)
        return error;
    struct store_node_parts parts = {.perms = perms, .perm_count = ancestor->perm_count};
    memcpy(perms, ancestor->perms, parts.perm_count * sizeof(perms[0]));
    if (!store_actor_privileged(&r->who))
        perms[0].domid = (uint16_t)r->who.domid;
    while (!error && above < r->path.length) {
        above = birth_below(r, above);
        bool last = above == r->path.length;
        parts.value = value;
        parts.value_bytes = last ? value_bytes : 0;
        error = store_transaction_create(r->transaction, r->path.text, above, store_node_new(&parts),
                                         last ? STORE_FIRE_TREE : STORE_FIRE_NONE);
    }
    return error;
}

/* Puts another version of `n` at r->path. */
static int change(struct store_request *r, const struct store_node *n, const struct store_node_parts *parts,
                  enum store_fire fire)
{
    const struct store_node_parts before = store_node_parts(n);
    uint64_t bytes = store_node_bytes(parts), freed = r->transaction->account ? 0 : store_node_bytes(&before);
    if (!store_actor_privileged(&r->who) && too_big(r, parts, view_names_bytes(r, r->path.length)))
        return ENOSPC;
    int error = memory_check(r, parts->perms[0].domid, bytes - MIN(bytes, freed));
    if (error)
        return error;
    return store_transaction_put(r->transaction, r->path.text, r->path.length, store_node_new(parts), fire);
}

static int overwrite(struct store_request *r, const struct store_node *n, const char *value, uint32_t value_bytes)
{
    struct store_node_parts parts = store_node_parts(n);
    parts.value = value;
    parts.value_bytes = value_bytes;
    return change(r, n, &parts, STORE_FIRE_TREE);
}

int store_op_write(struct store_request *r)
{
    const char *path, *value = NULL;
    size_t offset;
    struct store_node *n;
    int error = store_wire_first(r->in->payload, r->in->header.len, &path, &offset);
    if (!error)
        error = store_request_path(r, path);
    if (!error && r->path.special)
        error = EINVAL;
    if (error)
        return error;
    value = r->in->payload + offset;
    error = lookup(r, STORE_WRITE, &n);
    if (error == ENOENT)
        error = create(r, value, r->in->header.len - (uint32_t)offset);
    else if (!error)
        error = overwrite(r, n, value, r->in->header.len - (uint32_t)offset);
    return error ? error : store_reply_ok(r);
}

int store_op_mkdir(struct store_request *r)
{
    struct store_node *n;
    int error = path_ordinary(r);
    if (error)
        return error;
    error = lookup(r, STORE_WRITE, &n);
    if (error == ENOENT)
        error = create(r, "", 0);
    return error ? error : store_reply_ok(r);
}

/* Everything below the root, which stays. */
static int remove_all(struct store_request *r)
{
    char path[XENSTORE_ABS_PATH_MAX + 1] = "/";
    int error = store_answer(r->engine, STORE_ANSWER_REMOVE_ROOT);
    while (!error) {
        struct store_view_walk w;
        const struct store_tree *t = &r->engine->tree;
        store_view_walk_start(&w, t, r->transaction, strmap_hash(t->slots.seed, "/", 1), "/", 1);
        if (!store_view_walk_next(&w))
            break;
        memcpy(path + 1, w.name, w.length);
        if (!store_view_peek(&r->engine->tree, r->transaction, path, w.length + 1))
            break; /* of a transaction that cannot commit any more */
        error = store_transaction_remove(r->transaction, path, w.length + 1, STORE_FIRE_TREE);
    }
    return error;
}

int store_op_rm(struct store_request *r)
{
    struct store_node *n;
    int error = path_ordinary(r);
    if (error)
        return error;
    error = lookup_there(r, STORE_WRITE, &n);
    if (!error && r->path.length == 1)
        error = remove_all(r);
    else if (!error)
        error = store_transaction_remove(r->transaction, r->path.text, r->path.length, STORE_FIRE_TREE);
    else if (error == ENOENT && view_peek(r, store_path_parent(r->path.text, r->path.length)))
        error = 0; /* gone already is as good, where there could have been one */
    return error ? error : store_reply_ok(r);
}

/* Who may change the permissions of a special node, and of which. */
static int special_check(const struct store_request *r)
{
    if (!r->path.special)
        return 0;
    if (!view_peek(r, r->path.length))
        return store_answer(r->engine, STORE_ANSWER_SPECIAL_UNKNOWN);
    return store_actor_privileged(&r->who) ? 0 : store_answer(r->engine, STORE_ANSWER_SPECIAL_PERMS);
}

int store_op_set_perms(struct store_request *r)
{
    struct store_perm perms[STORE_PERMS_MAX];
    unsigned count;
    const char *path;
    size_t offset;
    struct store_node *n;
    int error = store_wire_first(r->in->payload, r->in->header.len, &path, &offset);
    if (!error)
        error = store_perms_parse(r->in->payload + offset, r->in->header.len - offset, perms, &count);
    if (!error)
        error = store_request_path(r, path);
    if (!error)
        error = special_check(r);
    if (!error && !store_actor_privileged(&r->who) && count > r->session->domain->quota.permissions)
        error = ENOSPC;
    if (!error)
        error = lookup_there(r, STORE_WRITE | STORE_OWNER, &n);
    if (error)
        return error;
    if (!store_actor_privileged(&r->who) && perms[0].domid != store_node_owner(n))
        return EPERM;
    struct store_node_parts parts = store_node_parts(n);
    parts.perms = perms;
    parts.perm_count = count;
    error = change(r, n, &parts, r->path.special ? STORE_FIRE_NONE : STORE_FIRE_TREE);
    return error ? error : store_reply_ok(r);
}
