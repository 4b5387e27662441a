/* SPDX-License-Identifier: MIT */
#include "tools/tool.h"

#include <string.h>

#include "base/parse.h"
#include "base/rundir.h"

int tool_run_dir(const char *option, char out[TOOL_PATH_MAX], struct err *e)
{
    return rundir_find(option, out, e);
}

int tool_open(struct tool *t, struct err *e)
{
    if (t->store)
        return 0;
    const struct platform_where where = {.run_dir = t->run_dir};
    const struct platform_listener listener = {0};
    int r = platform_open(NULL, &where, &listener, &t->platform, e);
    if (r == 0)
        r = platform_store_open(t->platform, &t->store, e);
    if (r == -ENOENT || r == -ECONNREFUSED)
        return err_set(e, r,
                       "no domzerod serves %s: start one there, or name its directory by --run-dir or "
                       "DOMZERO_RUN_DIR",
                       t->run_dir);
    return r;
}

void tool_close(struct tool *t)
{
    store_client_close(t->store);
    if (t->platform)
        platform_close(t->platform);
    t->store = NULL;
    t->platform = NULL;
}

/* ---- domains ---- */

struct search {
    const char *name;
    uint64_t domid; /* UINT64_MAX: by name */
    bool found;
    struct platform_domain domain;
};

static void search_visit(void *ctx, const struct platform_domain *d)
{
    struct search *s = ctx;
    if (d->dying || s->found)
        return;
    s->found = s->domid == UINT64_MAX ? !strcmp(d->name, s->name) : d->domid == s->domid;
    if (s->found)
        s->domain = *d;
}

int tool_domain_find(struct tool *t, const char *name_or_domid, struct platform_domain *out, struct err *e)
{
    struct search s = {.name = name_or_domid, .domid = UINT64_MAX};
    parse_u64(name_or_domid, 0, UINT16_MAX, &s.domid);
    int r = platform_domain_list(t->platform, search_visit, &s, e);
    if (r < 0)
        return r;
    if (!s.found)
        return err_set(e, -ENOENT, "there is no domain \"%.80s\"; `domzero list` shows those there are", name_or_domid);
    if (s.domain.domid == 0)
        return err_set(e, -EINVAL, "domain 0 is dom0 itself: name a guest");
    *out = s.domain;
    return 0;
}

int tool_name_free(struct tool *t, const char *name, struct err *e)
{
    struct search s = {.name = name, .domid = UINT64_MAX};
    int r = platform_domain_list(t->platform, search_visit, &s, e);
    if (r == 0 && s.found)
        return err_set(e, -EEXIST, "domain %u is called \"%s\" already: destroy it, or take another name",
                       s.domain.domid, name);
    return r;
}

/* ---- arguments ---- */

static void arguments_drop(int *argc, char **argv, int at, int count)
{
    memmove(argv + at, argv + at + count,
            (size_t)(*argc - at - count + 1) * sizeof(*argv)); /* the NULL behind them too */
    *argc -= count;
}

bool tool_flag(int *argc, char **argv, const char *flag)
{
    for (int i = 0; i < *argc && strcmp(argv[i], "--"); i++) {
        if (strcmp(argv[i], flag))
            continue;
        arguments_drop(argc, argv, i, 1);
        return true;
    }
    return false;
}

int tool_option(int *argc, char **argv, const char *name, const char **value)
{
    size_t n = strlen(name);
    for (int i = 0; i < *argc && strcmp(argv[i], "--"); i++) {
        if (strncmp(argv[i], name, n) || (argv[i][n] && argv[i][n] != '='))
            continue;
        bool joined = argv[i][n] == '=';
        if (!joined && i + 1 == *argc)
            return -EINVAL;
        *value = joined ? argv[i] + n + 1 : argv[i + 1];
        arguments_drop(argc, argv, i, joined ? 1 : 2);
        return 1;
    }
    return 0;
}
