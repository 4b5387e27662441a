/* SPDX-License-Identifier: MIT */
#include "backend/supervisor.h"

#include <assert.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "backend/blk/journal.h"
#include "backend/upgrade.h"
#include "base/clock.h"
#include "base/log.h"
#include "store/client.h"
#include "store/journal.h"

struct supervisor {
    const struct supervisor_options *o;
    struct loop loop;
    struct loop_source signals;
    struct child child[SUPERVISOR_ROLES_MAX];
    unsigned child_count;
    struct child_world world;
    struct upgrade *upgrade;
    bool stopping;
    int result;
};

static void supervisor_quit(struct supervisor *s, int result)
{
    s->stopping = true;
    s->result = result;
    loop_quit(&s->loop);
}

/* At once the first time, then after a pause that doubles. */
static void child_restart_later(struct child *c)
{
    loop_timer_set(&c->timer, MAX(c->pause_ms, 1u), 0);
    c->pause_ms = MIN(MAX(c->pause_ms * 2, SUPERVISOR_PAUSE_MIN_MS), SUPERVISOR_PAUSE_MAX_MS);
}

static void on_restart_timer(struct loop_source *source, uint32_t events)
{
    (void)events;
    struct child *c = container_of(source, struct child, timer);
    loop_timer_ack(source);
    int r = child_start(c, false);
    if (r < 0) { /* out of descriptors or processes: of this user's, so who knows whose fault it is */
        log_error("cannot restart role %s: %s; trying again", c->role->name, strerror(-r));
        child_restart_later(c);
    } else {
        log_info("role %s restarted as pid %d", c->role->name, (int)c->pid);
    }
}

/* A driver domain's daemon has nothing to serve when its domain was destroyed or dom0 has stopped. */
static bool domain_gone(const struct supervisor *s)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/hypervisor.sock", child_dir(&s->world));
    return s->o->role.domain_dir && access(path, F_OK) < 0;
}

static void child_ended(struct child *c, int status)
{
    struct supervisor *s = container_of(c->world, struct supervisor, world);
    bool steady = clock_now_ns() - c->started_ns >= SUPERVISOR_STEADY_MS * CLOCK_NS_PER_MS;
    c->pid = 0;
    fd_closep(&c->stop_fd);
    if (s->stopping)
        return;
    if (WIFSIGNALED(status))
        log_warning("role %s was killed by signal %d (%s)", c->role->name, WTERMSIG(status),
                    strsignal(WTERMSIG(status)));
    else
        log_warning("role %s ended with status %d", c->role->name, WEXITSTATUS(status));
    if (c->role->policy == ROLE_FATAL) {
        log_error("dom0 cannot go on without its %s role: stopping", c->role->name);
        supervisor_quit(s, 1);
        return;
    }
    if (domain_gone(s)) {
        log_error("the domain of %s is gone: stopping", child_dir(&s->world));
        supervisor_quit(s, 1);
        return;
    }
    c->pause_ms = steady ? 0 : c->pause_ms;
    child_restart_later(c);
}

static void reap(struct supervisor *s)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        for (unsigned i = 0; i < s->child_count; i++)
            if (s->child[i].pid == pid)
                child_ended(&s->child[i], status);
}

static void on_signal(struct loop_source *source, uint32_t events)
{
    (void)events;
    struct supervisor *s = container_of(source, struct supervisor, signals);
    struct signalfd_siginfo info;
    while (read(source->fd, &info, sizeof(info)) == sizeof(info)) {
        if (info.ssi_signo == SIGCHLD)
            reap(s);
        else
            supervisor_quit(s, 0);
    }
}

/* The state of another daemon's store: its domains are gone, and what was said of them must be. */
static void store_state_remove(const struct supervisor *s)
{
    char path[256];
    if (s->o->role.domain_dir)
        return;
    snprintf(path, sizeof(path), "%s/%s", child_dir(&s->world), STORE_JOURNAL_FILE);
    store_journal_remove(path);
}

/* Stops the children from the last to the first: those who use a role go before it. */
static void stop_all(struct supervisor *s)
{
    s->stopping = true;
    upgrade_free(take_ptr(s->upgrade));
    for (unsigned i = s->child_count; i-- > 0;) {
        struct child *c = &s->child[i];
        char path[256];
        loop_timer_remove(&s->loop, &c->timer);
        if (c->pid && !child_stop(c))
            s->result = 1;
        free(take_ptr(c->program));
        child_pid_path(c, path, sizeof(path));
        unlink(path);
    }
    store_state_remove(s);
}

/* Domain 0's own nodes, as Xen's init of a dom0 writes them. */
static int dom0_nodes_write(const char *run_dir, struct err *e)
{
    char socket[256];
    snprintf(socket, sizeof(socket), "%s/xenstored/socket", run_dir);
    struct store_client *c;
    int r = store_client_open(socket, &c, e);
    if (r < 0)
        return r;
    r = store_write(c, STORE_NO_TX, "0", "/local/domain/0/domid");
    if (!r)
        r = store_write(c, STORE_NO_TX, "Domain-0", "/local/domain/0/name");
    if (!r)
        r = store_mkdir(c, STORE_NO_TX, "/local/domain/0/backend");
    store_client_close(c);
    return r < 0 ? err_set(e, r, "cannot write domain 0's nodes to the store: %s", strerror(-r)) : 0;
}

static int start_all(struct supervisor *s, struct err *e)
{
    const struct supervisor_options *o = s->o;
    store_state_remove(s);
    for (unsigned i = 0; i < o->run_count; i++) {
        struct child *c = &s->child[s->child_count++];
        *c = (struct child){.role = o->run[i], .world = &s->world, .stop_fd = -1};
        int r = loop_timer_add(&s->loop, &c->timer, 0, 0, on_restart_timer);
        if (r == 0)
            r = child_start(c, true);
        if (r < 0)
            return err_set(e, r, "role %s did not start; what it said stands above", c->role->name);
        if (strcmp(c->role->name, "store") == 0)
            r = dom0_nodes_write(o->role.run_dir, e);
        if (r < 0)
            return r;
    }
    return 0;
}

/* The supervisor that lives, or 0: what holds the file are roles that one left behind. Its own lock is of the kind that
 * no child inherits and that ends with the process, though nobody may have waited for that yet. */
static pid_t pid_file_owner(int fd)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK ? lock.l_pid : 0;
}

/* Opens and locks it: 0, -EAGAIN (look again), or an error. */
static int pid_file_lock(const char *path, const char *dir, int *out, struct err *e)
{
    struct stat ours, there;
    _cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_set(e, -errno, "cannot open %s: %s", path, strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        pid_t pid = pid_file_owner(fd);
        if (pid)
            return err_set(e, -EBUSY, "a domzerod (pid %d) runs in %s already: stop it or choose another directory",
                           pid, dir);
        return err_set(e, -EAGAIN, "roles of a domzerod that was killed still run in %s: see its *.pid", dir);
    }
    if (fstat(fd, &ours) < 0 || stat(path, &there) < 0 || ours.st_ino != there.st_ino) /* its last owner removed it */
        return err_set(e, -EAGAIN, "%s changes all the time", path);
    struct flock own = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(fd, F_SETLK, &own) < 0)
        return err_set(e, -errno, "cannot lock %s: %s", path, strerror(errno));
    *out = take_fd(&fd);
    return 0;
}

/* The directory is one daemon's: the locked descriptor of its pid file in s->world.pid_file. dom0's is made where
 * missing. The roles of a predecessor that was killed have some time to leave: as they go they remove their sockets,
 * which must not be ours. */
static int claim_dir(struct supervisor *s, struct err *e)
{
    const char *dir = child_dir(&s->world);
    if (!s->o->role.domain_dir && mkdir(dir, 0700) < 0 && errno != EEXIST)
        return err_set(e, -errno, "cannot make the run directory %s: %s", dir, strerror(errno));
    if (domain_gone(s))
        return err_set(e, -ENOENT, "there is no domain in %s: name the dom/DOMID directory of one that lives", dir);
    char path[256];
    snprintf(path, sizeof(path), "%s/domzerod.pid", dir);
    uint64_t deadline_ns = clock_now_ns() + SUPERVISOR_STOP_MS * CLOCK_NS_PER_MS;
    int r;
    while ((r = pid_file_lock(path, dir, &s->world.pid_file, e)) == -EAGAIN && clock_now_ns() < deadline_ns)
        poll(NULL, 0, 5);
    if (r < 0)
        return r;
    if (ftruncate(s->world.pid_file, 0) < 0 || dprintf(s->world.pid_file, "%d\n", (int)getpid()) < 0)
        return err_set(e, -errno, "cannot write %s: %s", path, strerror(errno)); /* a short pwrite() sets no errno */
    return 0;
}

static void release_dir(struct supervisor *s)
{
    if (s->world.pid_file < 0)
        return;
    char path[256];
    snprintf(path, sizeof(path), "%s/domzerod.pid", child_dir(&s->world));
    unlink(path);
    if (domain_gone(s)) { /* its directory would have gone with it, but for us */
        snprintf(path, sizeof(path), "%s/domzerod.log", child_dir(&s->world));
        unlink(path);
        rmdir(child_dir(&s->world));
    }
    fd_closep(&s->world.pid_file);
}

static int open_log(struct supervisor *s, struct err *e)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/domzerod.log", child_dir(&s->world));
    s->world.log_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    return s->world.log_fd < 0 ? err_set(e, -errno, "cannot open %s: %s", path, strerror(errno)) : 0;
}

/* Forks; the parent waits for the outcome and exits with it. Returns in the child, with the descriptor to tell it. */
static int go_background(void)
{
    int p[2];
    if (pipe2(p, O_CLOEXEC) < 0)
        return -1;
    pid_t pid = fork();
    if (pid < 0) {
        close(p[0]);
        close(p[1]);
        return -1;
    }
    if (pid > 0) {
        close(p[1]);
        char status;
        _exit(read(p[0], &status, 1) == 1 ? status : 1);
    }
    close(p[0]);
    setsid();
    return p[1];
}

static void tell_parent(int fd, char status)
{
    ssize_t ignored = write(fd, &status, 1);
    (void)ignored;
    close(fd);
}

static int prepare(struct supervisor *s, int signal_fd, struct err *e)
{
    int r = loop_init(&s->loop);
    if (!r)
        r = loop_add(&s->loop, &s->signals, signal_fd, EPOLLIN, on_signal);
    if (r < 0)
        return err_set(e, r, "cannot set up the event loop: %s", strerror(-r));
    r = claim_dir(s, e);
    if (!r)
        r = s->world.journal_fd = journal_create(e);
    r = MIN(r, 0);
    if (!r && s->o->background)
        r = open_log(s, e);
    return r;
}

/* Only dom0's daemon can be asked: a driver domain's directory is not its own. It serves without it too. */
static void upgrade_start(struct supervisor *s)
{
    struct err e;
    if (!s->o->role.domain_dir && upgrade_new(&s->loop, s->child, s->child_count, &s->upgrade, &e))
        log_warning("no upgrades: %s", e.text);
}

static int serve(struct supervisor *s, int parent_fd)
{
    upgrade_start(s);
    log_info("serving in %s", child_dir(&s->world));
    if (parent_fd >= 0) {
        role_detach(take_fd(&s->world.log_fd));
        s->world.log_fd =
            fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1); /* for roles that are started again */
        tell_parent(parent_fd, 0);
    }
    return loop_run(&s->loop);
}

int supervisor_run(const struct supervisor_options *o)
{
    int parent_fd = o->background ? go_background() : -1;
    if (o->background && parent_fd < 0) {
        log_error("cannot go into the background: %s", strerror(errno));
        return 1;
    }
    struct supervisor s = {.o = o, .world = {.o = o, .pid_file = -1, .log_fd = -1, .journal_fd = -1}};
    struct err e = {0};
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP); /* the terminal of --foreground is gone */
    sigprocmask(SIG_BLOCK, &set, NULL);
    _cleanup_close_ int signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    int r = prepare(&s, signal_fd, &e);
    if (!r)
        r = start_all(&s, &e);
    if (r < 0) {
        log_error("%s", e.text);
        s.result = 1;
    } else {
        r = serve(&s, parent_fd);
        parent_fd = -1;
    }
    stop_all(&s);
    if (parent_fd >= 0)
        tell_parent(parent_fd, 1);
    release_dir(&s);
    fd_closep(&s.world.log_fd);
    fd_closep(&s.world.journal_fd);
    loop_deinit(&s.loop);
    return r < 0 ? 1 : s.result;
}
