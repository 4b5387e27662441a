/* SPDX-License-Identifier: MIT */
#include "backend/child.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/log.h"

const char *child_dir(const struct child_world *w)
{
    const struct role_options *r = &w->o->role;
    return r->domain_dir ? r->domain_dir : r->run_dir;
}

void child_pid_path(const struct child *c, char *path, size_t size)
{
    snprintf(path, size, "%s/%s.pid", child_dir(c->world), c->role->name);
}

/* `<run>/<role>.pid`: for operators and tests; nothing of ours reads it. */
static void child_pid_publish(const struct child *c)
{
    char path[256];
    child_pid_path(c, path, sizeof(path));
    _cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0 || dprintf(fd, "%d\n", (int)c->pid) < 0)
        log_warning("cannot write %s: %s", path, strerror(errno));
}

/* The number of a descriptor that the role is to have, as text. */
static void give(int fd, char text[16])
{
    snprintf(text, 16, "%d", fd);
    if (fd >= 0)
        fcntl(fd, F_SETFD, 0);
}

/* Executes `program` as a role. Never returns. */
static void child_exec(const struct child *c, const char *program, int ready_fd, int stop_fd, int log_fd, bool standby)
{
    const struct supervisor_options *o = c->world->o;
    char ready[16], stop[16], log[16], spin[16], reactors[16], journal[16], claim[16];
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    snprintf(spin, sizeof(spin), "%u", o->role.spin_us);
    snprintf(reactors, sizeof(reactors), "%u", o->role.reactors);
    give(ready_fd, ready);
    give(stop_fd, stop);
    give(log_fd, log);
    give(c->world->journal_fd, journal);
    give(c->world->pid_file, claim); /* the directory is claimed until the last role has left it */
    const char *argv[32] = {"domzerod",
                            "--as-role",
                            c->role->name,
                            "--ready-fd",
                            ready,
                            "--stop-fd",
                            stop,
                            o->role.domain_dir ? "--domain-dir" : "--run-dir",
                            child_dir(c->world),
                            "--platform",
                            o->role.platform_row,
                            "--poll",
                            o->role.poll,
                            "--spin-us",
                            spin,
                            "--reactors",
                            reactors,
                            "--log-level",
                            o->log_level,
                            "--journal-fd",
                            journal,
                            "--claim-fd",
                            claim};
    unsigned n = 23;
    if (log_fd >= 0) {
        argv[n++] = "--log-fd";
        argv[n++] = log;
    }
    if (o->role.store_answers) {
        argv[n++] = "--store-answers";
        argv[n++] = o->role.store_answers;
    }
    if (o->role.store_quota) {
        argv[n++] = "--store-quota";
        argv[n++] = o->role.store_quota;
    }
    if (standby)
        argv[n++] = "--standby";
    execv(program, (char *const *)argv);
    log_error("cannot execute %s: %s", program, strerror(errno));
    _exit(127);
}

/* Its standard error is ours to read until it stands by; then it is the log, or what ours is. */
static void child_exec_standby(const struct child *c, const char *program, int ready_fd, int stop_fd, int said_fd)
{
    int log_fd = c->world->log_fd >= 0 ? c->world->log_fd : dup(STDERR_FILENO);
    dup2(said_fd, STDERR_FILENO);
    child_exec(c, program, ready_fd, stop_fd, log_fd, true);
}

static int pipes_make(int pipes[][2], unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (!pipe2(pipes[i], O_CLOEXEC))
            continue;
        int r = -errno;
        while (i-- > 0) {
            close(pipes[i][0]);
            close(pipes[i][1]);
        }
        return r;
    }
    return 0;
}

int child_spawn(const struct child *c, const char *program, bool standby, struct child_process *out)
{
    int pipes[3][2] = {{-1, -1}, {-1, -1}, {-1, -1}}; /* ready, stop, said */
    int r = pipes_make(pipes, standby ? 3 : 2);
    if (r)
        return r;
    if (!program)
        program = c->program ? c->program : c->world->o->program;
    pid_t pid = fork();
    r = pid < 0 ? -errno : 0;
    if (pid == 0 && standby)
        child_exec_standby(c, program, pipes[0][1], pipes[1][0], pipes[2][1]);
    if (pid == 0)
        child_exec(c, program, pipes[0][1], pipes[1][0], c->world->log_fd, false);
    fd_closep(&pipes[0][1]);
    fd_closep(&pipes[1][0]);
    fd_closep(&pipes[2][1]);
    *out = (struct child_process){.pid = pid, .ready_fd = pipes[0][0], .stop_fd = pipes[1][1], .said_fd = pipes[2][0]};
    if (r) {
        fd_closep(&out->ready_fd);
        fd_closep(&out->stop_fd);
        fd_closep(&out->said_fd);
    }
    return r;
}

int child_await_byte(const struct child_process *p, unsigned timeout_ms)
{
    struct pollfd ready = {.fd = p->ready_fd, .events = POLLIN};
    int n;
    do
        n = poll(&ready, 1, (int)timeout_ms);
    while (n < 0 && errno == EINTR);
    char byte;
    if (n == 1 && read(p->ready_fd, &byte, 1) == 1)
        return 0;
    return n == 0 ? -ETIMEDOUT : -ECHILD;
}

void child_adopt(struct child *c, struct child_process *p)
{
    c->pid = p->pid;
    c->stop_fd = take_fd(&p->stop_fd);
    c->started_ns = clock_now_ns();
    child_pid_publish(c);
    fd_closep(&p->said_fd);
    fd_closep(&p->ready_fd);
}

int child_discard(struct child_process *p)
{
    int status = 0;
    fd_closep(&p->ready_fd);
    fd_closep(&p->stop_fd);
    fd_closep(&p->said_fd);
    kill(p->pid, SIGKILL);
    waitpid(p->pid, &status, 0);
    return status;
}

/* The last line of what it said. */
static void said_read(int fd, char *out, size_t size)
{
    char text[1024];
    fcntl(fd, F_SETFL, O_NONBLOCK);
    ssize_t n = read(fd, text, sizeof(text) - 1);
    text[MAX(n, 0)] = 0;
    for (char *end = text + strlen(text); end > text && end[-1] == '\n';)
        *--end = 0;
    const char *line = strrchr(text, '\n');
    snprintf(out, size, "%.150s", line ? line + 1 : text);
}

void child_fate(struct child_process *p, char *out, size_t size)
{
    char said[160] = "", how[64] = "without a word";
    said_read(p->said_fd, said, sizeof(said));
    int status = child_discard(p);
    if (WIFEXITED(status))
        snprintf(how, sizeof(how), "with status %d", WEXITSTATUS(status));
    else if (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL)
        snprintf(how, sizeof(how), "by signal %d", WTERMSIG(status));
    snprintf(out, size, "%s%s%s", how, said[0] ? ": " : "", said);
}

int child_start(struct child *c, bool wait_ready)
{
    struct child_process p;
    int r = child_spawn(c, NULL, false, &p);
    if (r)
        return r;
    int ready_fd = take_fd(&p.ready_fd);
    child_adopt(c, &p);
    p.ready_fd = ready_fd;
    if (wait_ready)
        r = child_await_byte(&p, SUPERVISOR_READY_MS);
    if (r == -ETIMEDOUT)
        log_error("role %s does not serve after %d s", c->role->name, SUPERVISOR_READY_MS / 1000);
    fd_closep(&p.ready_fd);
    return r;
}

bool child_stop(struct child *c)
{
    fd_closep(&c->stop_fd);
    uint64_t deadline = clock_now_ns() + SUPERVISOR_STOP_MS * CLOCK_NS_PER_MS;
    int status;
    bool stopped = true;
    while (waitpid(c->pid, &status, WNOHANG) == 0) {
        if (clock_now_ns() > deadline) {
            log_warning("role %s does not stop: killed", c->role->name);
            kill(c->pid, SIGKILL);
            waitpid(c->pid, &status, 0);
            stopped = false;
            break;
        }
        poll(NULL, 0, 1);
    }
    c->pid = 0;
    return stopped;
}
