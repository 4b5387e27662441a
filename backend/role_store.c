/* SPDX-License-Identifier: MIT */
/* The store role: store/server.h, told by the hypervisor role of domains that died. All runs in the server's loop. */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "backend/live.h"
#include "backend/role.h"
#include "backend/store_pages.h"
#include "base/log.h"
#include "base/loop.h"
#include "platform/platform.h"
#include "store/handover.h"
#include "store/journal.h"
#include "store/server.h"

struct role_store {
    struct loop_source platform_source, stop_source;
    struct store_server *server;
    struct platform *platform;
    struct store_saved saved;
    struct live *live;
    struct store_pages pages;
    int result;
};

static void on_platform(struct loop_source *s, uint32_t events)
{
    (void)events;
    struct role_store *r = container_of(s, struct role_store, platform_source);
    int n = platform_step(r->platform);
    if (n < 0) {
        r->result = n;
        loop_quit(store_server_loop(r->server));
    }
}

static void on_domain_gone(void *ctx, uint16_t domid)
{
    store_server_domain_gone(((struct role_store *)ctx)->server, domid);
}

static void on_instance_gone(void *ctx, uint16_t domid, uint32_t instance)
{
    struct role_store *r = ctx;
    if (store_pages_lost(&r->pages, domid, instance))
        store_server_ring_gone(r->server, domid);
}

static void on_stop(struct loop_source *s, uint32_t events)
{
    (void)events;
    loop_quit(store_server_loop(container_of(s, struct role_store, stop_source)->server));
}

static void alive_note(void *ctx, const struct platform_domain *d)
{
    bool *alive = ctx;
    if (d->domid <= STORE_DOMID_MAX && !d->dying)
        alive[d->domid] = true;
}

/* What the journal of a predecessor knows as introduced may have died meanwhile. Deaths from now on are events. */
static int role_store_sweep(struct role_store *r, struct err *e)
{
    _cleanup_free_ bool *alive = calloc(STORE_DOMID_MAX + 1, sizeof(bool));
    if (!alive)
        return err_set(e, -ENOMEM, "no memory");
    int status = platform_domain_list(r->platform, alive_note, alive, e);
    if (!status)
        store_server_sweep(r->server, alive);
    return status;
}

static int role_store_open(struct role_store *r, const struct role_options *o, struct err *e)
{
    char journal[PATH_MAX];
    struct store_options options = o->store;
    if (snprintf(journal, sizeof(journal), "%s/%s", o->run_dir, STORE_JOURNAL_FILE) >= (int)sizeof(journal))
        return err_set(e, -ENAMETOOLONG, "the run directory's name is too long");
    options.journal = journal;
    options.saved = r->saved;
    const struct platform_where where = {.run_dir = o->run_dir};
    const struct platform_listener listener = {
        .ctx = r, .instance_gone = on_instance_gone, .domain_gone = on_domain_gone};
    int status = platform_open(o->platform_row, &where, &listener, &r->platform, e);
    if (status < 0)
        return status;
    store_pages_init(&r->pages, r->platform);
    const struct store_ring_source rings = store_pages_source(&r->pages);
    options.rings = &rings;
    status = store_server_new(o->run_dir, &options, &r->server, e);
    live_state_unmap(&r->saved);
    if (status < 0)
        return status;
    status = platform_watch_domains(r->platform);
    if (!status && (status = role_store_sweep(r, e)))
        return status;
    if (!status)
        store_server_find_rings(r->server);
    struct loop *loop = store_server_loop(r->server);
    if (!status)
        status = loop_add(loop, &r->platform_source, platform_fd(r->platform), EPOLLIN, on_platform);
    if (!status)
        status = loop_add(loop, &r->stop_source, o->stop_fd, EPOLLIN, on_stop);
    if (!status && (status = live_new(loop, r->server, o->argv, &r->live, e)))
        return status;
    return status < 0 ? err_set(e, status, "cannot set up the event loop: %s", strerror(-status)) : 0;
}

/* Could this program go on from what another one has? An exit status. */
static int role_store_check(struct role_store *r, const struct role_options *o, struct err *e)
{
    int status =
        r->saved.bytes ? store_handover_check(&r->saved, e) : err_set(e, -EINVAL, "there is no state to check");
    if (status < 0)
        log_error("%s", e->text);
    else
        role_ready(o);
    live_state_unmap(&r->saved);
    return status < 0;
}

int role_store_run(const struct role_options *o)
{
    struct role_store r = {0};
    struct err e = {0};
    int status = o->state_fd < 0 ? 0 : live_state_map(o->state_fd, &r.saved, &e);
    if (!status && o->state_check)
        return role_store_check(&r, o, &e);
    if (!status)
        status = role_store_open(&r, o, &e);
    if (status < 0) {
        log_error("%s", e.text);
    } else {
        role_ready(o);
        fcntl(o->ready_fd, F_SETFD, FD_CLOEXEC); /* who goes on after us has nothing to say on it */
        status = store_server_run(r.server);
        if (!status)
            status = r.result;
        if (status < 0)
            log_error("serving stopped: %s", strerror(-status));
    }
    live_free(r.live);
    if (r.server)
        store_server_free(r.server);
    if (r.platform)
        platform_close(r.platform);
    return status < 0;
}
