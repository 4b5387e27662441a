/* SPDX-License-Identifier: MIT */
#include "backend/upgrade.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/unixsock.h"
#include "store/client.h"

struct upgrade {
    struct loop *loop;
    struct child *children;
    unsigned count;
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
    struct loop_source listener, asker; /* asker.fn NULL: nobody asks */
};

/* It ended, or does something else than a role would: why, and it is gone. */
static int standby_failed(struct child_process *p, const char *program, int code, struct err *e)
{
    char how[256];
    child_fate(p, how, sizeof(how));
    if (code == -ETIMEDOUT)
        return err_set(e, code, "%.100s is not ready to serve after %d s; the running role goes on", program,
                       SUPERVISOR_STANDBY_MS / 1000);
    return err_set(e, -ENOEXEC, "%.100s does not serve as a role, it ended %s; the running role goes on", program, how);
}

static int upgrade_check(const struct child *c, const char *program, struct err *e)
{
    if (!c->pid)
        return err_set(e, -EAGAIN, "role %s is being restarted just now: try again", c->role->name);
    if (program[0] != '/')
        return err_set(e, -EINVAL, "'%.100s' is no absolute path", program);
    if (access(program, X_OK))
        return err_set(e, -errno, "%.100s cannot be executed: %s; the running role goes on", program, strerror(errno));
    return 0;
}

/* The old one ends, the new one serves. */
static int upgrade_switch(struct child *c, const char *program, struct child_process *p, struct upgrade_reply *reply,
                          struct err *e)
{
    char *copy = strdup(program);
    if (!copy) {
        child_discard(p);
        return err_set(e, -ENOMEM, "out of memory; the running role goes on");
    }
    reply->pid_before = (uint32_t)c->pid;
    reply->pid_after = (uint32_t)p->pid;
    reply->stop_ns = clock_now_ns();
    reply->killed = !child_stop(c);
    int told = write(p->stop_fd, "", 1) == 1 ? 0 : -ECHILD;
    struct child_process waiting = {.ready_fd = take_fd(&p->ready_fd)};
    child_adopt(c, p);
    int r = told ? told : child_await_byte(&waiting, SUPERVISOR_READY_MS);
    fd_closep(&waiting.ready_fd);
    reply->served_ns = clock_now_ns();
    if (r) { /* its end is reaped like any other, and then the program before it is started */
        free(copy);
        return err_set(e, r, "%.100s ended as it took over; the program before it is started again", program);
    }
    free(c->program);
    c->program = copy;
    return 0;
}

/* A successor beside the old one. */
static int upgrade_succeed(struct child *c, const char *program, struct upgrade_reply *reply, struct err *e)
{
    struct child_process p;
    int r = child_spawn(c, program, true, &p);
    if (r)
        return err_set(e, r, "cannot start %.100s: %s; the running role goes on", program, strerror(-r));
    r = child_await_byte(&p, SUPERVISOR_STANDBY_MS);
    if (r)
        return standby_failed(&p, program, r, e);
    r = upgrade_switch(c, program, &p, reply, e);
    if (!r)
        log_info("role %s upgraded to %s: pid %u to %u, taken over in %.1f ms", c->role->name, program,
                 reply->pid_before, reply->pid_after, (double)(reply->served_ns - reply->stop_ns) / 1e6);
    return r;
}

/* One step of it: 0 where the store said OK, -EBUSY where BUSY, else -errno with what it said. */
static int live_step(struct store_client *store, const char *option, const char *value, struct err *e)
{
    _cleanup_free_ char *said = NULL;
    int r = store_live_update(store, option, value, &said);
    if (r < 0)
        return err_set(e, r, "the store does not answer: %s", strerror(-r));
    if (strcmp(said, "OK") == 0)
        return 0;
    return strcmp(said, "BUSY") == 0 ? -EBUSY : err_set(e, -ENOEXEC, "%s", said);
}

/* The process itself becomes the program. */
static int upgrade_go_on(struct child *c, const char *program, struct upgrade_reply *reply, struct err *e)
{
    char socket[256];
    struct store_client *store;
    _cleanup_free_ char *copy = strdup(program);
    if (!copy)
        return err_set(e, -ENOMEM, "out of memory; the running role goes on");
    snprintf(socket, sizeof(socket), "%s/xenstored/socket", child_dir(c->world));
    int r = store_client_open(socket, &store, e);
    if (r < 0)
        return r;
    reply->pid_before = reply->pid_after = (uint32_t)c->pid;
    r = live_step(store, "-f", program, e);
    for (uint64_t end_ns = clock_now_ns() + SUPERVISOR_STANDBY_MS * CLOCK_NS_PER_MS; r == 0 || r == -EBUSY;) {
        reply->stop_ns = clock_now_ns();
        r = live_step(store, "-s", NULL, e);
        if (r == 0)
            break;
        if (r == -EBUSY && clock_now_ns() > end_ns) {
            (void)live_step(store, "-a", NULL, e);
            r = err_set(e, -ETIMEDOUT, "%.100s is not ready to serve after %d s; the running role goes on", program,
                        SUPERVISOR_STANDBY_MS / 1000);
        }
        poll(NULL, 0, 1);
    }
    if (r == 0 && (r = store_watch(store, "upgrade", "/")) < 0) /* answered by the new one */
        err_set(e, r, "%.100s ended as it took over; the store is started again", program);
    reply->served_ns = clock_now_ns();
    store_client_close(store);
    if (r == 0) {
        free(c->program);
        c->program = take_ptr(copy);
    }
    return r;
}

static int upgrade_run(struct upgrade *u, const struct upgrade_query *q, struct upgrade_reply *reply, struct err *e)
{
    for (unsigned i = 0; i < u->count; i++) {
        struct child *c = &u->children[i];
        const char *program = q->program[0] ? q->program : c->world->o->program;
        if (strcmp(c->role->name, q->role) != 0 || (!c->role->stands_by && !c->role->goes_on))
            continue;
        int r = upgrade_check(c, program, e);
        if (r)
            return r;
        return c->role->goes_on ? upgrade_go_on(c, program, reply, e) : upgrade_succeed(c, program, reply, e);
    }
    return err_set(e, -ENOENT, "there is no role %.15s here that can be upgraded: blk and store can", q->role);
}

static void asker_drop(struct upgrade *u)
{
    int fd = u->asker.fd;
    loop_remove(u->loop, &u->asker);
    u->asker.fn = NULL;
    close(fd);
    loop_modify(u->loop, &u->listener, EPOLLIN);
}

static void asker_ready(struct loop_source *source, uint32_t epoll_events)
{
    struct upgrade *u = container_of(source, struct upgrade, asker);
    struct upgrade_query q;
    struct upgrade_reply reply = {.magic = UPGRADE_MAGIC, .length_bytes = sizeof(reply)};
    struct err e = {0};
    (void)epoll_events;
    ssize_t n = unixsock_recv(source->fd, &q, sizeof(q), NULL, NULL, MSG_DONTWAIT);
    if (n == -EAGAIN)
        return;
    if (n == sizeof(q) && q.magic == UPGRADE_MAGIC && q.length_bytes == sizeof(q)) {
        q.program[sizeof(q.program) - 1] = 0;
        q.role[sizeof(q.role) - 1] = 0;
        reply.result = upgrade_run(u, &q, &reply, &e);
        snprintf(reply.text, sizeof(reply.text), "%s", e.text);
        if (reply.result)
            log_warning("upgrade: %s", e.text);
        (void)unixsock_send(source->fd, &reply, sizeof(reply), NULL, 0, MSG_DONTWAIT);
    }
    asker_drop(u);
}

static void listener_ready(struct loop_source *source, uint32_t epoll_events)
{
    struct upgrade *u = container_of(source, struct upgrade, listener);
    (void)epoll_events;
    _cleanup_close_ int fd = unixsock_accept(source->fd, NULL, NULL);
    if (fd < 0)
        return;
    if (loop_add(u->loop, &u->asker, fd, EPOLLIN, asker_ready)) {
        u->asker.fn = NULL;
        return;
    }
    (void)take_fd(&fd);
    loop_modify(u->loop, &u->listener, 0); /* one at a time */
}

int upgrade_new(struct loop *loop, struct child *children, unsigned count, struct upgrade **out, struct err *e)
{
    struct upgrade *u = calloc(1, sizeof(*u));
    if (!u)
        return err_set(e, -ENOMEM, "out of memory");
    u->loop = loop;
    u->children = children;
    u->count = count;
    int n = snprintf(u->path, sizeof(u->path), "%s/%s", child_dir(children[0].world), UPGRADE_SOCKET);
    int fd = n < (int)sizeof(u->path) ? unixsock_listen(u->path, SOCK_SEQPACKET, 0600, e)
                                      : err_set(e, -ENAMETOOLONG, "the run directory's name is too long");
    int r = fd < 0 ? fd : 0;
    if (!r && (r = loop_add(loop, &u->listener, fd, EPOLLIN, listener_ready))) {
        close(fd);
        err_set(e, r, "cannot serve %s: %s", u->path, strerror(-r));
    }
    if (r) {
        free(u);
        return r;
    }
    *out = u;
    return 0;
}

void upgrade_free(struct upgrade *u)
{
    if (!u)
        return;
    if (u->asker.fn)
        asker_drop(u);
    int fd = u->listener.fd;
    loop_remove(u->loop, &u->listener);
    close(fd);
    unlink(u->path);
    free(u);
}
