/* SPDX-License-Identifier: MIT */
/* backend/child.h: the process of a role, as the supervisor handles it: started, told to stop, waited for.
 *
 * A child is started by executing a program, mostly this one, with `--as-role`. Two pipes lead to it: on `ready` it
 * says that it serves, the other end of `stop_fd` tells it to end by being closed. A child that stands by (role.h)
 * says so first, and a byte on `stop_fd` makes it serve; what it says on standard error until it stands by can be read
 * here. Everything blocks: the supervisor has nothing better to do.
 */
#ifndef BACKEND_CHILD_H
#define BACKEND_CHILD_H

#include <sys/types.h>

#include "backend/supervisor.h"
#include "base/loop.h"

/* What all children of a supervisor are given. */
struct child_world {
    const struct supervisor_options *o;
    int pid_file; /* the directory's claim; every child holds it too */
    int log_fd;   /* of a daemon in the background; -1: none */
    int journal_fd;
};

struct child {
    const struct role *role;
    const struct child_world *world;
    char *program; /* what it was upgraded to; NULL: the supervisor's own */
    pid_t pid;     /* 0: not running */
    int stop_fd;
    uint64_t started_ns;
    unsigned pause_ms;
    struct loop_source timer; /* armed while a restart waits; made before, so that restarting needs no descriptor */
};

/* A process that was started and is no child's yet. */
struct child_process {
    pid_t pid;
    int stop_fd, ready_fd;
    int said_fd; /* its standard error, of one that stands by; else -1 */
};

/* The directory that is this daemon's: dom0's, or that of the domain which it is. */
const char *child_dir(const struct child_world *w);
void child_pid_path(const struct child *c, char *path, size_t size);

/* 0 or -errno; `program` NULL: the child's own. */
int child_spawn(const struct child *c, const char *program, bool standby, struct child_process *out);
/* Waits for its next byte: 0, -ECHILD where it ended first, -ETIMEDOUT. */
int child_await_byte(const struct child_process *p, unsigned timeout_ms);
/* It is the child now; the descriptors that are not needed any more are closed. */
void child_adopt(struct child *c, struct child_process *p);
/* Kills it, and waits: its wait status. */
int child_discard(struct child_process *p);

/* Discards it: how it ended, and the last line of what it said, for a sentence: "with status 1: …". */
void child_fate(struct child_process *p, char *out, size_t size);

/* Spawns and adopts: 0 or -errno; with `wait_ready` it serves, or has ended. */
int child_start(struct child *c, bool wait_ready);
/* Asks it to end, and kills it after SUPERVISOR_STOP_MS: whether it ended by itself. */
bool child_stop(struct child *c);

#endif
