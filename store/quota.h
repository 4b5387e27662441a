/* SPDX-License-Identifier: MIT */
/* store/quota.h: what an unprivileged domain may make the store hold: one table of names, defaults and sentences.
 *
 * The names are those that the reference server's CONTROL knows, the fields those of struct store_quota; a new quota is
 * a line here. Each domain has a copy (store/domain.h), so that a check is one comparison; domain 0's is not asked but
 * for `outstanding`. STORE_QUOTA_NONE is no limit. In what a server is started with 0 stands for the default.
 */
#ifndef STORE_QUOTA_H
#define STORE_QUOTA_H

#include <limits.h>

#include "base/err.h"

#define STORE_QUOTA_NONE UINT_MAX

/* field, name, default, what it limits */
#define STORE_QUOTAS(X)                                                                                 \
    X(nodes, "nodes", 1000, "Nodes owned by a domain")                                                  \
    X(watches, "watches", 128, "Watches of a domain")                                                   \
    X(transactions, "transactions", 10, "Open transactions of a domain")                                \
    X(outstanding, "outstanding", 20, "Replies and events that a domain has not read")                  \
    X(transaction_nodes, "transaction-nodes", 1024, "Nodes that a transaction reads or changes")        \
    X(memory_bytes, "memory", 2560 * 1024, "Bytes that the store holds for a domain")                   \
    X(node_size_bytes, "node-size", 2048, "Bytes of a node: value, permissions, names of its children") \
    X(path_max_bytes, "path-max", 2048, "Bytes of a path, behind /local/domain/<domid>/")               \
    X(permissions, "permissions", 5, "Permissions of a node")                                           \
    X(memory_soft_bytes, "memory-soft", 2048 * 1024, "Bytes above which the log tells of a domain")

struct store_quota {
#define STORE_QUOTA_FIELD(field, name, value, sentence) unsigned field;
    STORE_QUOTAS(STORE_QUOTA_FIELD)
#undef STORE_QUOTA_FIELD
};

extern const struct store_quota store_quota_default;

struct store_quota_row {
    const char *name, *sentence;
    size_t offset;
};

extern const struct store_quota_row store_quota_rows[];
extern const unsigned store_quota_row_count;

const struct store_quota_row *store_quota_find(const char *name); /* or NULL */
unsigned *store_quota_field(struct store_quota *q, const struct store_quota_row *row);
unsigned store_quota_value(const struct store_quota *q, const struct store_quota_row *row);
/* The defaults in the place of zeroes; `given` NULL: all of them. */
struct store_quota store_quota_complete(const struct store_quota *given);
/* "name=value[,name=value]…" into the fields that it names. 0, or -EINVAL with a sentence. */
int store_quota_parse(const char *text, struct store_quota *out, struct err *e);

#endif
