/* SPDX-License-Identifier: MIT */
/* backend/role_blk.c: the block backend as a process: the control thread's loop around store, reactors and the daemon's
 * two descriptors. Everything it opens it closes; two of them can run in one process.
 */
#include <stdio.h>
#include <string.h>

#include "backend/blk/statsock.h"
#include "backend/role.h"

struct role_blk {
    struct loop loop;
    struct platform *platform;
    struct store_client *store;
    struct journal *journal;
    struct blkback *back;
    struct statsock *stats; /* NULL: nobody can read them */
    struct loop_source platform_source, stop_source;
    int result;
};

static void platform_ready(struct loop_source *source, uint32_t epoll_events)
{
    struct role_blk *role = container_of(source, struct role_blk, platform_source);
    (void)epoll_events;
    role->result = platform_step(role->platform);
    if (role->result >= 0)
        return;
    log_error("the connection to the hypervisor role is lost: %s", strerror(-role->result));
    loop_quit(&role->loop);
}

static void stop_ready(struct loop_source *source, uint32_t epoll_events)
{
    struct role_blk *role = container_of(source, struct role_blk, stop_source);
    (void)epoll_events;
    loop_quit(&role->loop);
}

static int role_connect(struct role_blk *role, const struct role_options *o, struct engine_options *engine,
                        struct err *e)
{
    engine->platform_row = o->platform_row;
    if (o->domain_dir)
        engine->where.domain_dir = o->domain_dir;
    else
        engine->where.run_dir = o->run_dir;
    int rc = engine_poll_parse(o->poll, o->spin_us, engine, e);
    if (!rc)
        rc = platform_open(o->platform_row, &engine->where, NULL, &role->platform, e);
    if (!rc)
        rc = platform_store_open(role->platform, &role->store, e);
    return rc;
}

static int role_watch(struct role_blk *role, const struct role_options *o, struct err *e)
{
    int rc = loop_add(&role->loop, &role->platform_source, platform_fd(role->platform), EPOLLIN, platform_ready);
    if (!rc && o->stop_fd >= 0)
        rc = loop_add(&role->loop, &role->stop_source, o->stop_fd, EPOLLIN, stop_ready);
    return rc ? err_set(e, rc, "cannot wait for the hypervisor role and the daemon: %s", strerror(-rc)) : 0;
}

/* Disks are served without it too. A driver domain's directory is not its own: it has none. */
static void role_stats_start(struct role_blk *role, const struct role_options *o)
{
    struct err e;
    char path[256];
    if (o->domain_dir)
        return;
    int n = snprintf(path, sizeof(path), "%s/%s", o->run_dir, STATS_BLK_SOCKET);
    int rc = n < (int)sizeof(path) ? statsock_new(&role->loop, path, role->back, &role->stats, &e)
                                   : err_set(&e, -ENAMETOOLONG, "the run directory's name is too long");
    if (rc)
        log_warning("block role: no statistics: %s", e.text);
}

static int role_start(struct role_blk *role, const struct role_options *o, struct err *e)
{
    struct engine_options options = {0};
    struct reactors *reactors = NULL;
    int rc = role_connect(role, o, &options, e);
    if (!rc)
        rc = role_watch(role, o, e);
    if (!rc)
        rc = journal_open(o->journal_fd, &role->journal, e);
    options.journal = role->journal;
    options.claim_fd = o->claim_fd;
    if (!rc)
        rc = reactors_new(&options, o->reactors ? o->reactors : reactors_default(), &reactors, e);
    if (!rc && o->standby && role_standby(o)) {
        reactors_free(reactors);
        return err_set(e, -ECANCELED, "stood by, and was not needed");
    }
    if (!rc)
        rc = blkback_new(&role->loop, role->store, reactors, platform_domid(role->platform), &role->back, e);
    if (rc)
        reactors_free(reactors);
    else
        role_stats_start(role, o);
    return rc;
}

static void role_stop(struct role_blk *role)
{
    statsock_free(role->stats);
    blkback_free(role->back);
    journal_close(role->journal);
    loop_remove(&role->loop, &role->platform_source);
    loop_remove(&role->loop, &role->stop_source);
    if (role->store)
        store_client_close(role->store);
    if (role->platform)
        platform_close(role->platform);
}

static int role_serve(struct role_blk *role, const struct role_options *o, struct err *e)
{
    role_ready(o);
    int rc = loop_run(&role->loop);
    if (rc)
        return err_set(e, rc, "event loop: %s", strerror(-rc));
    return blkback_result(role->back, e);
}

int role_blk_run(const struct role_options *o)
{
    struct role_blk role = {0};
    struct err e;
    int rc = loop_init(&role.loop);
    if (rc) {
        log_error("block role: %s", strerror(-rc));
        return rc;
    }
    rc = role_start(&role, o, &e);
    if (!rc)
        rc = role_serve(&role, o, &e);
    if (rc)
        log_error("block role: %s", e.text);
    role_stop(&role);
    loop_deinit(&role.loop);
    return rc ? rc : MIN(role.result, 0);
}
