/* SPDX-License-Identifier: MIT */
/* store/ops_session.c: the operations on what a connection holds, watches and transactions, and on domains. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "store/answers.h"
#include "store/ops.h"

/* What begins with '@' can be watched whatever it is: nobody will ever tell of most of it. */
static int watch_path(struct store_request *r, const char *given)
{
    return given[0] == '@' ? store_path_special(&r->path, given) : store_request_path(r, given);
}

int store_op_watch(struct store_request *r)
{
    const char *strings[2];
    int error = store_wire_strings(r->in->payload, r->in->header.len, strings, 2);
    if (!error)
        error = watch_path(r, strings[0]);
    if (!error && !store_actor_privileged(&r->who) && r->session->domain->watches >= r->session->domain->quota.watches)
        error = store_answer(r->engine, STORE_ANSWER_WATCH_QUOTA);
    if (!error && store_watch_bytes(&r->path, strings[1]) > store_session_room_bytes(r->session))
        error = ENOMEM;
    if (!error)
        error = store_watch_add(&r->engine->watches, r->session, &r->path, strings[1]);
    return error ? error : store_reply_ok(r);
}

int store_op_unwatch(struct store_request *r)
{
    const char *strings[2];
    int error = store_wire_strings(r->in->payload, r->in->header.len, strings, 2);
    if (!error)
        error = watch_path(r, strings[0]) ? ENOENT : 0; /* nobody can watch what is no path */
    if (!error)
        error = store_watch_remove(&r->engine->watches, r->session, &r->path, strings[1]);
    return error ? error : store_reply_ok(r);
}

int store_op_reset_watches(struct store_request *r)
{
    store_session_reset(r->session);
    return store_reply_ok(r);
}

int store_op_transaction_start(struct store_request *r)
{
    struct store_session *s = r->session;
    bool dom0 = store_actor_privileged(&r->who);
    if (r->transaction)
        return EBUSY;
    if (!dom0 && s->domain->transactions >= s->domain->quota.transactions)
        return store_answer(r->engine, STORE_ANSWER_NODE_QUOTA);
    do
        s->last_transaction++;
    while (s->last_transaction == 0 || store_session_transaction(s, s->last_transaction));
    bool room = sizeof(struct store_transaction) <= store_session_room_bytes(s);
    struct store_transaction *x = room ? store_session_transaction_begin(s, s->last_transaction) : NULL;
    if (!x)
        return ENOMEM;
    char id[16];
    snprintf(id, sizeof(id), "%" PRIu32, x->id);
    return store_reply_text(r, id);
}

int store_op_transaction_end(struct store_request *r)
{
    const char *how;
    if (store_wire_strings(r->in->payload, r->in->header.len, &how, 1) != 0 ||
        (strcmp(how, "T") != 0 && strcmp(how, "F") != 0))
        return EINVAL;
    if (!r->transaction)
        return ENOENT;
    int error = how[0] == 'T' ? store_engine_commit(r->engine, r->transaction) : 0;
    store_session_transaction_end(r->session, r->transaction);
    return error ? error : store_reply_ok(r);
}

/* The one string is a number; whether a domain can have it is not asked, only whether one has. */
static int domid_only(const struct store_request *r, unsigned *domid)
{
    const char *text;
    uint64_t number;
    if (store_wire_strings(r->in->payload, r->in->header.len, &text, 1) != 0 ||
        store_wire_number(text, UINT32_MAX, &number) != 0)
        return EINVAL;
    *domid = (unsigned)number;
    return 0;
}

int store_op_get_domain_path(struct store_request *r)
{
    unsigned domid;
    char path[32];
    int error = domid_only(r, &domid);
    if (error)
        return error;
    snprintf(path, sizeof(path), "/local/domain/%u", domid);
    return store_reply_text(r, path);
}

static struct store_domain *introduced(const struct store_request *r, unsigned domid)
{
    struct store_domain *d = store_domain_find(&r->engine->domains, domid);
    return d && d->introduced ? d : NULL;
}

int store_op_is_domain_introduced(struct store_request *r)
{
    unsigned domid;
    int error = domid_only(r, &domid);
    if (error)
        return error;
    bool self = domid == STORE_DOMID_MAX + 1; /* DOMID_SELF: who asks has been introduced */
    return store_reply_text(r, self || introduced(r, domid) ? "T" : "F");
}

/* What an INTRODUCE says. The frame is not used: the ring is the page that the domain grants under its reserved
 * reference. Port 0 is none, and the domain has its socket alone. */
struct introduction {
    unsigned domid;
    uint64_t gfn, port;
};

static int introduction_parse(const struct store_request *r, struct introduction *out)
{
    const char *strings[3];
    bool good = store_wire_strings(r->in->payload, r->in->header.len, strings, 3) == 0 &&
                store_domid_parse(strings[0], &out->domid) == 0 && out->domid != 0 &&
                store_wire_number(strings[1], UINT64_MAX, &out->gfn) == 0 &&
                store_wire_number(strings[2], UINT32_MAX, &out->port) == 0;
    return good ? 0 : EINVAL;
}

static int introduction_record(struct store_engine *g, const struct introduction *i)
{
    const struct store_change change = {
        .kind = STORE_CHANGE_INTRODUCE, .domid = i->domid, .gfn = i->gfn, .port = (uint32_t)i->port};
    return store_engine_record(g, &change);
}

/* The domain's ring goes, and another one comes where the introduction names one. */
static int introduction_do(struct store_engine *g, struct store_domain *d, const struct introduction *i)
{
    int error = g->hooks.introduce ? -g->hooks.introduce(g->hooks.context, i->domid, i->gfn, (uint32_t)i->port) : 0;
    d->gfn = i->gfn;
    d->port = error ? 0 : (uint32_t)i->port;
    return error;
}

/* The same of one that is new, and written down: its ring first, as that can fail for reasons of its own. */
static int introduction_first(struct store_engine *g, struct store_domain *d, const struct introduction *i)
{
    d->connections++; /* outlives its ring, which may come and go in here */
    int error = introduction_do(g, d, i);
    if (!error && (error = introduction_record(g, i)) != 0 && g->hooks.release)
        g->hooks.release(g->hooks.context, i->domid);
    d->connections--;
    return error;
}

int store_op_introduce(struct store_request *r)
{
    struct store_engine *g = r->engine;
    struct introduction i;
    int error = introduction_parse(r, &i);
    if (error)
        return error;
    struct store_domain *d = introduced(r, i.domid);
    if (d) {
        error = introduction_record(g, &i);
        error = error ? error : introduction_do(g, d, &i);
        return error ? error : store_reply_ok(r);
    }
    d = store_domain_get(&g->domains, i.domid);
    if (!d)
        return ENOMEM;
    if (d->stale)
        store_engine_domain_gone(g, i.domid); /* once more; what is left keeps it stale */
    d = store_domain_get(&g->domains, i.domid);
    if (!d || d->stale)
        return ENOMEM;
    error = introduction_first(g, d, &i);
    if (error) {
        store_domain_put(&g->domains, d);
        return error;
    }
    d->introduced = true;
    g->domains.introduced++;
    store_engine_announce(g, "@introduceDomain");
    return store_reply_ok(r);
}

int store_op_release(struct store_request *r)
{
    unsigned domid;
    int error = domid_only(r, &domid);
    if (error || domid == 0)
        return EINVAL;
    if (!introduced(r, domid))
        return ENOENT;
    error = store_engine_record(r->engine, &(struct store_change){.kind = STORE_CHANGE_GONE, .domid = domid});
    if (error)
        return error;
    store_engine_domain_forget(r->engine, domid);
    return store_reply_ok(r);
}

/* There is no shutdown flag to clear: death is announced by the hypervisor role, once. */
int store_op_resume(struct store_request *r)
{
    unsigned domid;
    int error = domid_only(r, &domid);
    if (error || domid == 0)
        return EINVAL;
    return introduced(r, domid) ? store_reply_ok(r) : ENOENT;
}

int store_op_set_target(struct store_request *r)
{
    const char *strings[2];
    unsigned domid, target;
    if (store_wire_strings(r->in->payload, r->in->header.len, strings, 2) != 0 ||
        store_domid_parse(strings[0], &domid) != 0 || store_domid_parse(strings[1], &target) != 0 || domid == 0 ||
        target == 0)
        return EINVAL;
    struct store_domain *d = introduced(r, domid);
    if (!d || !introduced(r, target))
        return ENOENT;
    const struct store_change change = {.kind = STORE_CHANGE_TARGET, .domid = domid, .target = target};
    int error = store_engine_record(r->engine, &change);
    if (error)
        return error;
    d->target = target;
    return store_reply_ok(r);
}
