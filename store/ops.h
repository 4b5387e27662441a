/* SPDX-License-Identifier: MIT */
/* store/ops.h: the operations, one row of one table each: name, handler, who may, and what a transaction id means to
 * it.
 *
 * store_ops_handle() takes one whole request of one session and makes its one reply; events queue up at the
 * sessions (store/watch.h) and go out after the reply. A handler returns 0, or the errno value that the peer is
 * answered with, and has then changed nothing. It sees text whose NULs were found, paths that were resolved, and nodes
 * through the request's transaction; an operation that changes nodes has always one (STORE_OP_CHANGES), its own if the
 * peer named none.
 */
#ifndef STORE_OPS_H
#define STORE_OPS_H

#include "store/session.h"
#include "store/wire.h"

struct store_request {
    struct store_session *session;
    struct store_engine *engine;
    const struct store_message *in;
    struct store_message *out;
    struct store_actor who;
    struct store_transaction *transaction; /* NULL: reads straight from the tree */
    struct store_path path;
};

enum store_op_rule {
    STORE_OP_DOM0 = 1,    /* domain 0 only: EACCES for others */
    STORE_OP_NO_TX = 2,   /* a transaction id in the header is ignored */
    STORE_OP_CHANGES = 4, /* changes nodes */
};

typedef int store_op_fn(struct store_request *r);

struct store_op {
    const char *name;
    store_op_fn *handler;
    unsigned rules; /* enum store_op_rule */
};

void store_ops_handle(struct store_session *s, const struct store_message *in, struct store_message *out);

/* For handlers: the reply's payload grows; E2BIG where it would not fit a message. */
int store_reply_bytes(struct store_request *r, const void *bytes, size_t length);
int store_reply_text(struct store_request *r, const char *text); /* with its NUL */
int store_reply_ok(struct store_request *r);
/* Resolves the peer's path into r->path. 0 or EINVAL. */
int store_request_path(struct store_request *r, const char *given);

store_op_fn store_op_directory, store_op_directory_part, store_op_read, store_op_get_perms, store_op_write,
    store_op_mkdir, store_op_rm, store_op_set_perms;
store_op_fn store_op_watch, store_op_unwatch, store_op_reset_watches, store_op_transaction_start,
    store_op_transaction_end;
store_op_fn store_op_control, store_op_introduce, store_op_release, store_op_is_domain_introduced,
    store_op_get_domain_path, store_op_resume, store_op_set_target;

#endif
