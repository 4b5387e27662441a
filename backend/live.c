/* SPDX-License-Identifier: MIT */
#include "backend/live.h"

#include <assert.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "backend/child.h"
#include "base/log.h"
#include "base/parse.h"
#include "store/handover.h"

#define LIVE_ARGS_MAX 64

enum live_stage { LIVE_NONE, LIVE_NAMED, LIVE_CHECKING, LIVE_CHECKED, LIVE_FAILED, LIVE_SWITCHING };

struct live {
    struct loop *loop;
    struct store_server *server;
    char *const *argv;
    enum live_stage stage;
    const void *who; /* whose session it is: an identity, never looked into */
    char program[PATH_MAX], arguments[512];
    struct child_process checker;    /* while CHECKING */
    struct loop_source ready, timer; /* of the checker */
    struct loop_source kick;         /* SWITCHING: once what is being served has been */
    struct err why;                  /* FAILED */
};

/* ---- the program's arguments ---- */

/* Options that were the beginning's and are not handed on, each with its value. */
static bool argument_dropped(const char *argument)
{
    static const char *const dropped[] = {"--ready-fd", "--log-fd", "--state-fd"};
    for (unsigned i = 0; i < ARRAY_SIZE(dropped); i++)
        if (strcmp(argument, dropped[i]) == 0)
            return true;
    return false;
}

/* Those that the role has, those of -c, and `own`; pointers into all of them. */
static int arguments_make(struct live *l, const char *const *own, const char *args[LIVE_ARGS_MAX])
{
    unsigned n = 0;
    for (char *const *a = l->argv; *a && n < LIVE_ARGS_MAX - 2; a++) {
        if (argument_dropped(*a) && a[1])
            a++;
        else
            args[n++] = *a;
    }
    for (char *save, *a = strtok_r(l->arguments, " \t", &save); a && n < LIVE_ARGS_MAX - 2;
         a = strtok_r(NULL, " \t", &save))
        args[n++] = a;
    for (; *own && n < LIVE_ARGS_MAX - 2; own++)
        args[n++] = *own;
    args[n] = NULL;
    return *own ? -E2BIG : 0;
}

/* ---- the state in a memory file ---- */

static int write_all(int fd, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t n = write(fd, bytes, length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        bytes += n;
        length -= (size_t)n;
    }
    return 0;
}

/* A descriptor or -errno. */
static int state_write(struct store_server *s, struct err *e)
{
    struct store_stream_out o;
    _cleanup_close_ int fd = memfd_create("domzero-store", MFD_CLOEXEC);
    if (fd < 0)
        return err_set(e, -errno, "no memory file for the state: %s", strerror(errno));
    int r = store_handover_save(s, &o);
    if (!r)
        r = write_all(fd, o.bytes, o.length);
    store_stream_free(&o);
    return r < 0 ? err_set(e, r, "the state cannot be written: %s", strerror(-r)) : take_fd(&fd);
}

int live_state_map(int fd, struct store_saved *out, struct err *e)
{
    struct stat st;
    if (fstat(fd, &st) < 0 || st.st_size == 0)
        return err_set(e, -EPROTO, "descriptor %d holds no state of a store", fd);
    void *bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (bytes == MAP_FAILED)
        return err_set(e, -errno, "the state of the store cannot be read: %s", strerror(errno));
    close(fd);
    *out = (struct store_saved){.bytes = bytes, .length = (size_t)st.st_size};
    return 0;
}

void live_state_unmap(struct store_saved *s)
{
    if (s->bytes)
        munmap((void *)s->bytes, s->length);
    *s = (struct store_saved){0};
}

/* ---- the check ---- */

static void check_over(struct live *l)
{
    loop_remove(l->loop, &l->ready);
    loop_timer_set(&l->timer, 0, 0);
    l->ready.fn = NULL;
}

static void check_failed(struct live *l, int code)
{
    char how[256];
    check_over(l);
    child_fate(&l->checker, how, sizeof(how));
    if (code == -ETIMEDOUT)
        err_write(&l->why, "%.100s has not read the state after %d s; the store goes on", l->program,
                  LIVE_CHECK_MS / 1000);
    else
        err_write(&l->why, "%.100s cannot go on as the store, it ended %.150s; the store goes on", l->program, how);
    log_warning("live update: %s", l->why.text);
    l->stage = LIVE_FAILED;
}

static void on_checked(struct loop_source *source, uint32_t events)
{
    (void)events;
    struct live *l = container_of(source, struct live, ready);
    char byte;
    if (read(source->fd, &byte, 1) != 1) {
        check_failed(l, -ECHILD);
        return;
    }
    check_over(l);
    child_discard(&l->checker);
    l->stage = LIVE_CHECKED;
}

static void on_timeout(struct loop_source *source, uint32_t events)
{
    (void)events;
    struct live *l = container_of(source, struct live, timer);
    loop_timer_ack(source);
    if (l->stage == LIVE_CHECKING)
        check_failed(l, -ETIMEDOUT);
}

/* In the new process. */
static void check_exec(struct live *l, int state_fd, int ready_fd, int said_fd)
{
    char state[16], ready[16];
    const char *args[LIVE_ARGS_MAX];
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    snprintf(state, sizeof(state), "%d", state_fd);
    snprintf(ready, sizeof(ready), "%d", ready_fd);
    const char *const own[] = {"--state-fd", state, "--ready-fd", ready, "--state-check", NULL};
    fcntl(state_fd, F_SETFD, 0);
    fcntl(ready_fd, F_SETFD, 0);
    dup2(said_fd, STDERR_FILENO);
    if (arguments_make(l, own, args) == 0)
        execv(l->program, (char *const *)args);
    dprintf(STDERR_FILENO, "cannot be executed: %s\n", strerror(errno));
    _exit(127);
}

static int check_start(struct live *l, int state_fd, struct err *e)
{
    int ready[2], said[2];
    if (pipe2(ready, O_CLOEXEC) < 0)
        return err_set(e, -errno, "no pipe: %s", strerror(errno));
    _cleanup_close_ int ready_in = ready[0], ready_out = ready[1];
    if (pipe2(said, O_CLOEXEC) < 0)
        return err_set(e, -errno, "no pipe: %s", strerror(errno));
    _cleanup_close_ int said_in = said[0], said_out = said[1];
    int r = loop_add(l->loop, &l->ready, ready_in, EPOLLIN, on_checked);
    if (r < 0)
        return err_set(e, r, "no event: %s", strerror(-r));
    pid_t pid = fork();
    if (pid == 0)
        check_exec(l, state_fd, ready_out, said_out);
    if (pid < 0) {
        r = -errno;
        check_over(l);
        return err_set(e, r, "no process: %s", strerror(-r));
    }
    l->checker =
        (struct child_process){.pid = pid, .stop_fd = -1, .ready_fd = take_fd(&ready_in), .said_fd = take_fd(&said_in)};
    loop_timer_set(&l->timer, LIVE_CHECK_MS, 0);
    return 0;
}

static int check_begin(struct live *l, struct err *e)
{
    _cleanup_close_ int state_fd = state_write(l->server, e);
    return state_fd < 0 ? state_fd : check_start(l, state_fd, e);
}

/* ---- the switch ---- */

static void live_forget(struct live *l)
{
    if (l->stage == LIVE_CHECKING) {
        check_over(l);
        child_discard(&l->checker);
    }
    l->stage = LIVE_NONE;
    l->who = NULL;
}

/* Does not return, unless nothing has changed. */
static void live_switch(struct live *l, struct err *e)
{
    char state[16];
    const char *args[LIVE_ARGS_MAX];
    _cleanup_close_ int state_fd = state_write(l->server, e);
    if (state_fd < 0)
        return;
    snprintf(state, sizeof(state), "%d", state_fd);
    const char *const own[] = {"--state-fd", state, NULL};
    if (arguments_make(l, own, args) < 0) {
        err_write(e, "too many arguments");
        return;
    }
    fcntl(state_fd, F_SETFD, 0);
    store_handover_keep(l->server, true);
    log_info("live update: going on as %s", l->program);
    execv(l->program, (char *const *)args);
    int error = errno;
    store_handover_keep(l->server, false);
    err_write(e, "%.100s cannot be executed: %s", l->program, strerror(error));
}

static void on_kick(struct loop_source *source, uint32_t events)
{
    (void)events;
    struct live *l = container_of(source, struct live, kick);
    struct err e = {0};
    eventfd_t ignored;
    eventfd_read(source->fd, &ignored);
    if (l->stage != LIVE_SWITCHING)
        return;
    live_switch(l, &e);
    log_error("live update: %s; the store goes on", e.text);
    live_forget(l);
}

/* ---- what is asked ---- */

static int ask_file(struct live *l, const struct store_session *who, const char *program, char *reply)
{
    if (l->stage == LIVE_SWITCHING)
        return snprintf(reply, XENSTORE_PAYLOAD_MAX, "a live update is under way");
    live_forget(l);
    if (program[0] != '/')
        return snprintf(reply, XENSTORE_PAYLOAD_MAX, "'%.200s' is no absolute path", program);
    if (strlen(program) >= sizeof(l->program) || access(program, X_OK) < 0)
        return snprintf(reply, XENSTORE_PAYLOAD_MAX, "%.200s cannot be executed: %s", program, strerror(errno));
    strcpy(l->program, program);
    l->arguments[0] = '\0';
    l->who = who;
    l->stage = LIVE_NAMED;
    return 0;
}

static int ask_arguments(struct live *l, const char *arguments, char *reply)
{
    if (strlen(arguments) >= sizeof(l->arguments))
        return snprintf(reply, XENSTORE_PAYLOAD_MAX, "more than %zu bytes of arguments", sizeof(l->arguments) - 1);
    strcpy(l->arguments, arguments);
    return 0;
}

static int ask_start(struct live *l, char *reply)
{
    struct err e = {0};
    switch (l->stage) {
    case LIVE_NAMED:
        if (check_begin(l, &e) < 0) {
            live_forget(l);
            return snprintf(reply, XENSTORE_PAYLOAD_MAX, "%s", e.text);
        }
        l->stage = LIVE_CHECKING;
        return snprintf(reply, XENSTORE_PAYLOAD_MAX, "BUSY");
    case LIVE_CHECKING: return snprintf(reply, XENSTORE_PAYLOAD_MAX, "BUSY");
    case LIVE_CHECKED:
        if (eventfd_write(l->kick.fd, 1) < 0)
            return snprintf(reply, XENSTORE_PAYLOAD_MAX, "%s", strerror(errno));
        l->stage = LIVE_SWITCHING;
        return 0;
    case LIVE_FAILED: live_forget(l); return snprintf(reply, XENSTORE_PAYLOAD_MAX, "%s", l->why.text);
    default: return snprintf(reply, XENSTORE_PAYLOAD_MAX, "a live update is under way");
    }
}

/* The arguments of -s: -F and -t SECONDS. */
static bool start_well_formed(const char *const *args, unsigned count)
{
    uint64_t seconds;
    for (unsigned i = 0; i < count; i++) {
        bool timeout = strcmp(args[i], "-t") == 0 && i + 1 < count;
        if (!timeout && strcmp(args[i], "-F") != 0)
            return false;
        if (timeout && parse_u64(args[++i], 0, UINT32_MAX, &seconds) < 0)
            return false;
    }
    return true;
}

static bool asked_well_formed(const char *const *args, unsigned count)
{
    if (count == 0)
        return false;
    if (strcmp(args[0], "-s") == 0)
        return start_well_formed(args + 1, count - 1);
    return strcmp(args[0], "-a") == 0 ? count == 1
                                      : count == 2 && (strcmp(args[0], "-f") == 0 || strcmp(args[0], "-c") == 0);
}

static int on_asked(void *context, struct store_session *who, const char *const *args, unsigned count, char *reply)
{
    struct live *l = context;
    int said = 0;
    if (!asked_well_formed(args, count))
        return EINVAL;
    char command = args[0][1];
    if (command == 'f')
        said = ask_file(l, who, args[1], reply);
    else if (l->stage == LIVE_NONE || l->who != who)
        said = snprintf(reply, XENSTORE_PAYLOAD_MAX, "not in a live update that this connection began");
    else if (command == 's')
        said = ask_start(l, reply);
    else if (l->stage == LIVE_SWITCHING || (command == 'c' && l->stage != LIVE_NAMED))
        said = snprintf(reply, XENSTORE_PAYLOAD_MAX, "a live update is under way");
    else if (command == 'c')
        said = ask_arguments(l, args[1], reply);
    else
        live_forget(l);
    if (!said)
        strcpy(reply, "OK");
    return 0;
}

int live_new(struct loop *loop, struct store_server *server, char *const *argv, struct live **out, struct err *e)
{
    struct live *l = calloc(1, sizeof(*l));
    if (!l)
        return err_set(e, -ENOMEM, "out of memory");
    *l = (struct live){.loop = loop, .server = server, .argv = argv};
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int r = fd < 0 ? -errno : loop_add(loop, &l->kick, fd, EPOLLIN, on_kick);
    if (!r)
        r = loop_timer_add(loop, &l->timer, 0, 0, on_timeout);
    if (r < 0) {
        loop_remove(loop, &l->kick);
        fd_closep(&fd);
        free(l);
        return err_set(e, r, "no events for live updates: %s", strerror(-r));
    }
    store_server_on_live_update(server, on_asked, l);
    *out = l;
    return 0;
}

void live_free(struct live *l)
{
    if (!l)
        return;
    int fd = l->kick.fd;
    store_server_on_live_update(l->server, NULL, NULL);
    live_forget(l);
    loop_timer_remove(l->loop, &l->timer);
    loop_remove(l->loop, &l->kick);
    close(fd);
    free(l);
}
