/* SPDX-License-Identifier: MIT */
/* The hypervisor role: hypervisor/server.h stepped by a loop until the supervisor says stop. */
#include <string.h>

#include "backend/role.h"
#include "base/log.h"
#include "base/loop.h"
#include "hypervisor/server.h"

#define HYPERVISOR_BUDGET 64 /* messages a step: keeps the stop descriptor looked at */

struct role_hypervisor {
    struct loop loop;
    struct loop_source server_source, stop_source;
    struct hypervisor *server;
    int result;
};

static void on_server(struct loop_source *s, uint32_t events)
{
    (void)events;
    struct role_hypervisor *r = container_of(s, struct role_hypervisor, server_source);
    int n = hypervisor_step(r->server, HYPERVISOR_BUDGET);
    if (n < 0) {
        r->result = n;
        loop_quit(&r->loop);
    }
}

static void on_stop(struct loop_source *s, uint32_t events)
{
    (void)events;
    loop_quit(&container_of(s, struct role_hypervisor, stop_source)->loop);
}

int role_hypervisor_run(const struct role_options *o)
{
    struct role_hypervisor r = {0};
    struct err e = {0};
    int status = hypervisor_new(o->run_dir, &r.server, &e);
    if (status < 0) {
        log_error("%s", e.text);
        return 1;
    }
    status = loop_init(&r.loop);
    if (!status)
        status = loop_add(&r.loop, &r.server_source, hypervisor_fd(r.server), EPOLLIN, on_server);
    if (!status)
        status = loop_add(&r.loop, &r.stop_source, o->stop_fd, EPOLLIN, on_stop);
    if (!status) {
        role_ready(o);
        status = loop_run(&r.loop);
    }
    if (!status)
        status = r.result;
    if (status < 0)
        log_error("event loop: %s", strerror(-status));
    loop_deinit(&r.loop);
    hypervisor_free(r.server);
    return status < 0;
}
