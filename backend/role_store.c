/* SPDX-License-Identifier: MIT */
/* The store role: store/server.h, told by the hypervisor role of domains that died. All runs in the server's loop. */
#include <string.h>

#include "backend/role.h"
#include "base/log.h"
#include "base/loop.h"
#include "platform/platform.h"
#include "store/server.h"

struct role_store {
    struct loop_source platform_source, stop_source;
    struct store_server *server;
    struct platform *platform;
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

static void on_stop(struct loop_source *s, uint32_t events)
{
    (void)events;
    loop_quit(store_server_loop(container_of(s, struct role_store, stop_source)->server));
}

static int role_store_open(struct role_store *r, const struct role_options *o, struct err *e)
{
    int status = store_server_new(o->run_dir, &o->store, &r->server, e);
    if (status < 0)
        return status;
    const struct platform_where where = {.run_dir = o->run_dir};
    const struct platform_listener listener = {.ctx = r, .domain_gone = on_domain_gone};
    status = platform_open(o->platform_row, &where, &listener, &r->platform, e);
    if (status < 0)
        return status;
    status = platform_watch_domains(r->platform);
    struct loop *loop = store_server_loop(r->server);
    if (!status)
        status = loop_add(loop, &r->platform_source, platform_fd(r->platform), EPOLLIN, on_platform);
    if (!status)
        status = loop_add(loop, &r->stop_source, o->stop_fd, EPOLLIN, on_stop);
    return status < 0 ? err_set(e, status, "cannot set up the event loop: %s", strerror(-status)) : 0;
}

int role_store_run(const struct role_options *o)
{
    struct role_store r = {0};
    struct err e = {0};
    int status = role_store_open(&r, o, &e);
    if (status < 0) {
        log_error("%s", e.text);
    } else {
        role_ready(o);
        status = store_server_run(r.server);
        if (!status)
            status = r.result;
        if (status < 0)
            log_error("serving stopped: %s", strerror(-status));
    }
    if (r.platform)
        platform_close(r.platform);
    if (r.server)
        store_server_free(r.server);
    return status < 0;
}
