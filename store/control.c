/* SPDX-License-Identifier: MIT */
#include "store/control.h"

#include <inttypes.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

/* A command with its arguments: 0, the reply being there, or an errno value. */
typedef int control_fn(struct store_request *r, const char *const *args, unsigned count);

/* Adds to a reply of text; its NUL comes at the end. */
static int PRINTF(2, 3) say(struct store_request *r, const char *fmt, ...)
{
    char line[256];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(line, sizeof(line), fmt, args);
    va_end(args);
    return store_reply_bytes(r, line, MIN((size_t)MAX(n, 0), sizeof(line) - 1));
}

static int control_check(struct store_request *r, const char *const *args, unsigned count)
{
    (void)args;
    struct err why = {0};
    if (count)
        return EINVAL;
    if (store_control_check(r->engine, &why))
        return store_reply_ok(r);
    log_error("store: check: %s", why.text);
    return store_reply_text(r, why.text);
}

static int control_log(struct store_request *r, const char *const *args, unsigned count)
{
    if (count != 1 || (strcmp(args[0], "on") != 0 && strcmp(args[0], "off") != 0))
        return EINVAL;
    r->engine->trace = strcmp(args[0], "on") == 0;
    return store_reply_ok(r);
}

static int control_print(struct store_request *r, const char *const *args, unsigned count)
{
    if (count != 1)
        return EINVAL;
    log_info("store: control: %s", args[0]);
    return store_reply_ok(r);
}

/* The store's memory in parts; domains as far as they fit a message, the busiest or not. */
static int control_memreport(struct store_request *r, const char *const *args, unsigned count)
{
    (void)args;
    const struct store_engine *g = r->engine;
    const struct store_domain *d;
    struct mallinfo2 heap = mallinfo2();
    uint64_t bytes = 0;
    if (count)
        return EINVAL;
    for (unsigned domid = 0; domid <= STORE_DOMID_MAX; domid++)
        bytes += g->tree.domains[domid].bytes;
    say(r, "nodes: %zu, %" PRIu64 " bytes, %" PRIu64 " a node\n", g->tree.slots.count, bytes,
        bytes / MAX(g->tree.slots.count, (size_t)1));
    say(r, "watches: %u\ntransactions: %u\n", g->watches.count, g->transactions);
    say(r, "heap: %zu bytes in use, %zu from the system\n", heap.uordblks + heap.hblkhd, heap.arena + heap.hblkhd);
    map_foreach (&g->domains.by_domid, i, d) {
        if (r->out->header.len > XENSTORE_PAYLOAD_MAX - 256)
            break;
        say(r, "domain %u: nodes %" PRIu32 ", watches %u, transactions %u, connections %u, %" PRIu64 " bytes\n",
            d->domid, g->tree.owned[d->domid], d->watches, d->transactions, d->connections,
            store_engine_domain_bytes(g, d->domid));
    }
    return store_reply_text(r, "");
}

static bool quota_is_soft(const struct store_quota_row *row)
{
    size_t length = strlen(row->name);
    return length > 5 && strcmp(row->name + length - 5, "-soft") == 0;
}

static unsigned quota_shown(const struct store_quota *q, const struct store_quota_row *row)
{
    unsigned value = store_quota_value(q, row);
    return value == STORE_QUOTA_NONE ? 0 : value;
}

static int quota_show(struct store_request *r, bool soft)
{
    say(r, "Quota settings:\n");
    for (unsigned i = 0; i < store_quota_row_count; i++) {
        const struct store_quota_row *row = &store_quota_rows[i];
        if (quota_is_soft(row) == soft)
            say(r, "%-17.*s: %8u %s\n", (int)(strlen(row->name) - (soft ? 5 : 0)), row->name,
                quota_shown(&r->engine->domains.quota, row), row->sentence);
    }
    return store_reply_text(r, "");
}

/* What the domain has, and what it may have where that is a number of the domain's. */
static int quota_show_domain(struct store_request *r, unsigned domid)
{
    const struct store_domain *d = store_domain_find(&r->engine->domains, domid);
    if (!d)
        return ENOENT;
    say(r, "Domain %u:\n", domid);
    say(r, "%-16s: %8" PRIu32 "\n", "nodes", r->engine->tree.owned[domid]);
    say(r, "%-16s: %8u\n", "watches", d->watches);
    say(r, "%-16s: %8u\n", "transactions", d->transactions);
    say(r, "%-16s: %8u\n", "outstanding", d->unsent);
    say(r, "%-16s: %8u\n", "connections", d->connections);
    say(r, "%-16s: %8" PRIu64 "\n", "memory", store_engine_domain_bytes(r->engine, domid));
    for (unsigned i = 0; i < store_quota_row_count; i++)
        if (d->quota_own & (1u << i))
            say(r, "own limit of %s: %u\n", store_quota_rows[i].name, quota_shown(&d->quota, &store_quota_rows[i]));
    return store_reply_text(r, "");
}

/* set <name> <value> [<domid>] */
static int quota_set(struct store_request *r, const char *const *args, unsigned count, const char *suffix)
{
    char name[32];
    uint64_t value;
    if ((count != 2 && count != 3) || (size_t)snprintf(name, sizeof(name), "%s%s", args[0], suffix) >= sizeof(name) ||
        store_wire_number(args[1], INT_MAX, &value) != 0)
        return EINVAL;
    const struct store_quota_row *row = store_quota_find(name);
    if (!row || quota_is_soft(row) != (suffix[0] != '\0'))
        return EINVAL;
    struct store_change change = {.kind = STORE_CHANGE_QUOTA, .domid = STORE_CHANGE_ALL, .row = row};
    struct store_domain *d = NULL;
    change.value = value ? (unsigned)value : STORE_QUOTA_NONE;
    if (count == 3) {
        if (store_domid_parse(args[2], &change.domid) != 0)
            return EINVAL;
        d = store_domain_find(&r->engine->domains, change.domid);
        if (!d || !d->introduced)
            return ENOENT;
    }
    int error = store_engine_record(r->engine, &change);
    if (error)
        return error;
    if (d)
        store_domain_quota_set(d, row, change.value);
    else
        store_domains_quota_set(&r->engine->domains, row, change.value);
    return store_reply_ok(r);
}

static int control_quota(struct store_request *r, const char *const *args, unsigned count)
{
    unsigned domid;
    if (count == 0)
        return quota_show(r, false);
    if (strcmp(args[0], "set") == 0)
        return quota_set(r, args + 1, count - 1, "");
    if (count != 1 || store_domid_parse(args[0], &domid) != 0)
        return EINVAL;
    return quota_show_domain(r, domid);
}

static int control_quota_soft(struct store_request *r, const char *const *args, unsigned count)
{
    if (count == 0)
        return quota_show(r, true);
    return strcmp(args[0], "set") == 0 ? quota_set(r, args + 1, count - 1, "-soft") : EINVAL;
}

static int control_live_update(struct store_request *r, const char *const *args, unsigned count)
{
    const struct store_hooks *hooks = &r->engine->hooks;
    char reply[XENSTORE_PAYLOAD_MAX] = "";
    if (!hooks->live_update)
        return ENOSYS;
    int error = hooks->live_update(hooks->context, r->session, args, count, reply);
    return error ? error : store_reply_text(r, reply);
}

static control_fn control_help;

static const struct command {
    const char *name;
    control_fn *run;
    const char *usage;
} commands[] = {
    {"check", control_check, ""},
    {"log", control_log, "on|off"},
    {"live-update", control_live_update, "[-c <cmdline>] [-F] [-t <timeout>] <file>"},
    {"memreport", control_memreport, ""},
    {"print", control_print, "<string>"},
    {"quota", control_quota, "[set <name> <val> [<domid>]|<domid>]"},
    {"quota-soft", control_quota_soft, "[set <name> <val> [<domid>]]"},
    {"help", control_help, ""},
};

static int control_help(struct store_request *r, const char *const *args, unsigned count)
{
    (void)args;
    if (count)
        return EINVAL;
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        say(r, "%s\t%s\n", commands[i].name, commands[i].usage);
    return store_reply_text(r, "");
}

int store_op_control(struct store_request *r)
{
    const char *args[STORE_CONTROL_ARGS_MAX];
    unsigned count = 0;
    size_t at = 0, used;
    for (; at < r->in->header.len; at += used, count++)
        if (count == ARRAY_SIZE(args) ||
            store_wire_first(r->in->payload + at, r->in->header.len - at, &args[count], &used) != 0)
            return EINVAL;
    for (size_t i = 0; count > 0 && i < ARRAY_SIZE(commands); i++)
        if (strcmp(args[0], commands[i].name) == 0)
            return commands[i].run(r, args + 1, count - 1);
    return EINVAL;
}
