/* SPDX-License-Identifier: MIT */
/* store/ops_node.c: the operations on nodes. Each checks all that a peer could have got wrong before it changes the
 * first node, so that in a transaction of the peer's, too, a refused request has changed nothing; memory excepted,
 * which breaks that transaction. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/parse.h"
#include "store/ops.h"

static int view_get(const struct store_request *r, size_t length, struct store_node **out)
{
    if (r->transaction)
        return store_transaction_get(r->transaction, r->path.text, length, out);
    *out = store_tree_get(&r->engine->tree, r->path.text, length);
    return 0;
}

static struct store_node *view_peek(const struct store_request *r, size_t length)
{
    return r->transaction ? store_transaction_peek(r->transaction, r->path.text, length)
                          : store_tree_get(&r->engine->tree, r->path.text, length);
}

/* The length of the nearest ancestor's path that exists; "/" always does. */
static size_t view_ancestor(const struct store_request *r)
{
    size_t length = r->path.length;
    do
        length = store_path_parent(r->path.text, length);
    while (length > 1 && !view_peek(r, length));
    return length;
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

/* The one string of the payload is a path. */
static int path_only(struct store_request *r)
{
    const char *path;
    int error = store_wire_strings(r->in->payload, r->in->header.len, &path, 1);
    return error ? error : store_request_path(r, path);
}

static int lookup_only(struct store_request *r, unsigned access, struct store_node **out)
{
    int error = path_only(r);
    if (!error && r->path.special)
        error = EINVAL;
    return error ? error : lookup(r, access, out);
}

int store_op_read(struct store_request *r)
{
    struct store_node *n;
    int error = lookup_only(r, STORE_READ, &n);
    return error ? error : store_reply_bytes(r, store_node_value(n), n->value_bytes);
}

int store_op_directory(struct store_request *r)
{
    struct store_node *n;
    int error = lookup_only(r, STORE_READ, &n);
    return error ? error : store_reply_bytes(r, store_node_children(n), n->children_bytes);
}

/* How many bytes of whole names fit. */
static size_t names_fit(const char *names, size_t length, size_t room)
{
    size_t fit = 0, next;
    for (; fit < length; fit += next) {
        next = strnlen(names + fit, length - fit) + 1;
        if (next > room - fit)
            break;
    }
    return MIN(fit, length);
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
    if (!error && (r->path.special || parse_u64(strings[1], 0, UINT32_MAX, &offset) < 0))
        error = EINVAL;
    if (!error)
        error = lookup(r, STORE_READ, &n);
    if (error)
        return error;
    snprintf(generation, sizeof(generation), "%" PRIu64, n->generation);
    store_reply_text(r, generation);
    offset = MIN(offset, n->children_bytes);
    const char *names = store_node_children(n) + offset;
    size_t room = sizeof(r->out->payload) - r->out->header.len - 1; /* the empty name that ends the list */
    size_t fit = names_fit(names, n->children_bytes - offset, room);
    store_reply_bytes(r, names, fit);
    return offset + fit == n->children_bytes ? store_reply_text(r, "") : 0;
}

int store_op_get_perms(struct store_request *r)
{
    struct store_node *n;
    int error = path_only(r);
    if (!error)
        error = lookup(r, STORE_READ, &n);
    for (unsigned i = 0; !error && i < n->perm_count; i++) {
        char text[8];
        error = store_reply_bytes(r, text, store_perm_format(&n->perms[i], text));
    }
    return error;
}

static bool too_big(const struct store_request *r, const struct store_node_parts *parts)
{
    return !store_actor_privileged(&r->who) && store_node_size(parts) > r->session->domain->quota.node_size_bytes;
}

/* One node that is to be made: its path is r->path up to `length`. */
struct birth {
    size_t length;
    const char *child; /* the next one's name, or NULL at the last */
    size_t child_bytes;
};

/* The path of the node to make below the existing one at `above`. */
static struct birth birth_below(const struct store_request *r, size_t above)
{
    const char *text = r->path.text;
    size_t start = above == 1 ? 1 : above + 1;
    struct birth b = {.length = start + strcspn(text + start, "/")};
    if (b.length < r->path.length) {
        b.child = text + b.length + 1;
        b.child_bytes = strcspn(b.child, "/") + 1;
    }
    return b;
}

/* May all nodes between the existing ancestor and r->path be made? ENOSPC where a quota says no. */
static int births_check(const struct store_request *r, size_t above, const struct store_node *ancestor,
                        size_t value_bytes)
{
    if (store_actor_privileged(&r->who))
        return 0;
    const struct store_transaction *x = r->transaction;
    struct store_node_parts parts = store_node_parts(ancestor);
    uint32_t count = 0;
    parts.children_bytes += (uint32_t)(birth_below(r, above).length - above) + (above == 1);
    if (too_big(r, &parts))
        return ENOSPC;
    while (above < r->path.length) {
        struct birth b = birth_below(r, above);
        parts.children_bytes = (uint32_t)b.child_bytes;
        parts.value_bytes = b.child ? 0 : (uint32_t)value_bytes;
        if (too_big(r, &parts))
            return ENOSPC;
        above = b.length;
        count++;
    }
    if (r->engine->tree.owned[r->who.domid] + x->own_delta + count > r->session->domain->quota.nodes)
        return ENOSPC;
    return store_transaction_room(x) < count - 1 ? ENOSPC : 0; /* the first and the last are touched already */
}

/* Makes r->path and what is missing above it, with the permissions of the nearest ancestor; a guest owns what it makes.
 */
static int create(struct store_request *r, const char *value, size_t value_bytes)
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
    const char *name = r->path.text + (above == 1 ? 1 : above + 1);
    error = store_transaction_put(r->transaction, r->path.text, above,
                                  store_node_with_child(ancestor, name, strcspn(name, "/")), STORE_FIRE_NONE);
    while (!error && above < r->path.length) {
        struct birth b = birth_below(r, above);
        char child[XENSTORE_ABS_PATH_MAX + 1];
        parts.children_bytes = (uint32_t)b.child_bytes;
        parts.children = memcpy(child, b.child ? b.child : "", b.child_bytes);
        if (b.child)
            child[b.child_bytes - 1] = '\0';
        parts.value = value;
        parts.value_bytes = b.child ? 0 : (uint32_t)value_bytes;
        error = store_transaction_put(r->transaction, r->path.text, b.length, store_node_new(&parts),
                                      b.child ? STORE_FIRE_NONE : STORE_FIRE_TREE);
        above = b.length;
    }
    return error;
}

static int overwrite(struct store_request *r, const struct store_node *n, const char *value, size_t value_bytes)
{
    struct store_node_parts parts = store_node_parts(n);
    parts.value = value;
    parts.value_bytes = (uint32_t)value_bytes;
    if (too_big(r, &parts))
        return ENOSPC;
    return store_transaction_put(r->transaction, r->path.text, r->path.length, store_node_new(&parts), STORE_FIRE_TREE);
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
        error = create(r, value, r->in->header.len - offset);
    else if (!error)
        error = overwrite(r, n, value, r->in->header.len - offset);
    return error ? error : store_reply_ok(r);
}

int store_op_mkdir(struct store_request *r)
{
    struct store_node *n;
    int error = lookup_only(r, STORE_WRITE, &n);
    if (error == ENOENT)
        error = create(r, "", 0);
    return error ? error : store_reply_ok(r);
}

int store_op_rm(struct store_request *r)
{
    struct store_node *n;
    int error = lookup_only(r, STORE_WRITE, &n);
    if (!error && r->path.length == 1)
        return EINVAL;
    if (!error)
        error = store_transaction_remove(r->transaction, r->path.text, r->path.length, STORE_FIRE_TREE);
    else if (error == ENOENT && view_peek(r, store_path_parent(r->path.text, r->path.length)))
        error = 0; /* gone already is as good, where there could have been one */
    return error ? error : store_reply_ok(r);
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
    if (!error && !store_actor_privileged(&r->who) && count > r->session->domain->quota.permissions)
        error = ENOSPC;
    if (!error)
        error = lookup(r, STORE_WRITE | STORE_OWNER, &n);
    if (error)
        return error;
    if (!store_actor_privileged(&r->who) && perms[0].domid != store_node_owner(n))
        return EPERM;
    struct store_node_parts parts = store_node_parts(n);
    parts.perms = perms;
    parts.perm_count = count;
    if (too_big(r, &parts))
        return ENOSPC;
    error = store_transaction_put(r->transaction, r->path.text, r->path.length, store_node_new(&parts),
                                  r->path.special ? STORE_FIRE_NONE : STORE_FIRE_TREE);
    return error ? error : store_reply_ok(r);
}
