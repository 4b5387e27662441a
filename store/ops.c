/* SPDX-License-Identifier: MIT */
#include "store/ops.h"

#include <string.h>

#include "base/log.h"
#include "store/answers.h"

static const struct store_op op_table[XS_TYPE_COUNT] = {
    [XS_CONTROL] = {"CONTROL", store_op_control, STORE_OP_DOM0},
    [XS_DIRECTORY] = {"DIRECTORY", store_op_directory, 0},
    [XS_READ] = {"READ", store_op_read, 0},
    [XS_GET_PERMS] = {"GET_PERMS", store_op_get_perms, 0},
    [XS_WATCH] = {"WATCH", store_op_watch, STORE_OP_NO_TX},
    [XS_UNWATCH] = {"UNWATCH", store_op_unwatch, STORE_OP_NO_TX},
    [XS_TRANSACTION_START] = {"TRANSACTION_START", store_op_transaction_start, 0},
    [XS_TRANSACTION_END] = {"TRANSACTION_END", store_op_transaction_end, 0},
    [XS_INTRODUCE] = {"INTRODUCE", store_op_introduce, STORE_OP_DOM0},
    [XS_RELEASE] = {"RELEASE", store_op_release, STORE_OP_DOM0},
    [XS_GET_DOMAIN_PATH] = {"GET_DOMAIN_PATH", store_op_get_domain_path, 0},
    [XS_WRITE] = {"WRITE", store_op_write, STORE_OP_CHANGES},
    [XS_MKDIR] = {"MKDIR", store_op_mkdir, STORE_OP_CHANGES},
    [XS_RM] = {"RM", store_op_rm, STORE_OP_CHANGES},
    [XS_SET_PERMS] = {"SET_PERMS", store_op_set_perms, STORE_OP_CHANGES},
    [XS_IS_DOMAIN_INTRODUCED] = {"IS_DOMAIN_INTRODUCED", store_op_is_domain_introduced, STORE_OP_DOM0},
    [XS_RESUME] = {"RESUME", store_op_resume, STORE_OP_DOM0},
    [XS_SET_TARGET] = {"SET_TARGET", store_op_set_target, STORE_OP_DOM0},
    [XS_RESET_WATCHES] = {"RESET_WATCHES", store_op_reset_watches, 0},
    [XS_DIRECTORY_PART] = {"DIRECTORY_PART", store_op_directory_part, 0},
};

/* The row of a message type, or NULL: ENOSYS. */
static const struct store_op *op_find(uint32_t type)
{
    return type < ARRAY_SIZE(op_table) && op_table[type].handler ? &op_table[type] : NULL;
}

int store_reply_bytes(struct store_request *r, const void *bytes, size_t length)
{
    if (length > sizeof(r->out->payload) - r->out->header.len)
        return E2BIG;
    if (length)
        memcpy(r->out->payload + r->out->header.len, bytes, length);
    r->out->header.len += (uint32_t)length;
    return 0;
}

int store_reply_text(struct store_request *r, const char *text)
{
    return store_reply_bytes(r, text, strlen(text) + 1);
}

int store_reply_ok(struct store_request *r)
{
    return store_reply_text(r, "OK");
}

int store_request_path(struct store_request *r, const char *given)
{
    return store_path_resolve(&r->path, given, r->who.domid, r->session->domain->quota.path_max_bytes);
}

/* Runs a changing operation in a transaction of its own. */
static int run_alone(struct store_request *r, const struct store_op *op)
{
    struct store_transaction x;
    store_transaction_init(&x, &r->engine->tree, r->who.domid, 0);
    x.room_bytes = store_session_room_bytes(r->session);
    r->transaction = &x;
    int error = op->handler(r);
    if (!error)
        error = store_engine_commit(r->engine, &x);
    store_transaction_deinit(&x);
    return error;
}

static int run(struct store_request *r)
{
    const struct xsd_sockmsg *header = &r->in->header;
    const struct store_op *op = op_find(header->type);
    if (!op)
        return ENOSYS;
    if ((op->rules & STORE_OP_DOM0) && !store_actor_privileged(&r->who))
        return EACCES;
    if (header->tx_id != 0 && !(op->rules & STORE_OP_NO_TX)) {
        r->transaction = store_session_transaction(r->session, header->tx_id);
        if (!r->transaction)
            return store_answer(r->engine, STORE_ANSWER_NO_TRANSACTION);
        r->transaction->room_bytes = store_session_room_bytes(r->session);
    }
    return (op->rules & STORE_OP_CHANGES) && !r->transaction ? run_alone(r, op) : op->handler(r);
}

/* One line a request, with as much of its payload as tells what it was about: a peer's bytes, so only harmless ones. */
static void trace(const struct store_request *r, int error)
{
    const struct xsd_sockmsg *header = &r->in->header;
    const struct store_op *op = op_find(header->type);
    char text[128];
    size_t length = MIN((size_t)header->len, sizeof(text) - 1);
    for (size_t i = 0; i < length; i++)
        text[i] = r->in->payload[i] > ' ' && r->in->payload[i] < 127 ? r->in->payload[i] : ' ';
    text[length] = '\0';
    log_info("store: domain %u: %s %s, transaction %u: %s", r->who.domid, op ? op->name : "unknown", text,
             header->tx_id, error ? store_wire_error_name(error) : "OK");
}

void store_ops_handle(struct store_session *s, const struct store_message *in, struct store_message *out)
{
    struct store_request r; /* its path is filled by who needs it, and too long to be cleared for each request */
    r.session = s;
    r.engine = s->engine;
    r.in = in;
    r.out = out;
    r.who = store_session_actor(s);
    r.transaction = NULL;
    out->header = in->header;
    out->header.len = 0;
    r.engine->requests++;
    int error = run(&r);
    if (r.engine->trace)
        trace(&r, error);
    if (!error)
        return;
    r.engine->errors++;
    out->header.type = XS_ERROR;
    out->header.len = 0;
    store_reply_text(&r, store_wire_error_name(error));
}
