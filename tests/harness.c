/* SPDX-License-Identifier: MIT */
#include "tests/harness.h"

#include <endian.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/util.h"

const char *world_program(const char *name)
{
    static char path[4][512];
    static unsigned next;
    char *p = path[next++ % 4];
    const char *build = getenv("DOMZERO_BUILD");
    snprintf(p, sizeof(path[0]), "%s/%s", build ? build : "build", name);
    return p;
}

const char *world_path(const struct world *w, const char *name)
{
    static char path[4][512];
    static unsigned next;
    char *p = path[next++ % 4];
    snprintf(p, sizeof(path[0]), "%s/%s", w->dir, name);
    return p;
}

void world_daemon_start(struct world *w, const char *option)
{
    w->daemon = fork();
    assert_true(w->daemon >= 0);
    if (w->daemon == 0) {
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        execl(world_program("domzerod"), "domzerod", "--foreground", "--run-dir", w->run, option, (char *)NULL);
        _exit(127);
    }
}

bool world_serves(void *world)
{
    return world_domzero(world, NULL, 0, "list") == 0;
}

void world_start(struct world *w, const char *option)
{
    snprintf(w->dir, sizeof(w->dir), "/tmp/dzXXXXXX");
    assert_non_null(mkdtemp(w->dir));
    snprintf(w->run, sizeof(w->run), "%s/run", w->dir);
    world_daemon_start(w, option);
    char settled[128]; /* the supervisor's socket: all roles serve, and from now on one that ends is restarted */
    snprintf(settled, sizeof(settled), "%s/domzerod.sock", w->run);
    uint64_t deadline = clock_now_ns() + WORLD_PATIENCE_MS * CLOCK_NS_PER_MS;
    while (access(settled, F_OK) < 0) {
        int status;
        if (waitpid(w->daemon, &status, WNOHANG) == w->daemon)
            fail_msg("domzerod ended with status %d", status);
        if (clock_now_ns() > deadline)
            fail_msg("domzerod does not serve");
        poll(NULL, 0, 5);
    }
}

void world_stop(struct world *w)
{
    kill(w->daemon, SIGTERM);
    int status = world_wait(w->daemon);
    char command[128];
    snprintf(command, sizeof(command), "rm -rf %s", w->dir);
    int removed = system(command);
    assert_int_equal(removed, 0);
    assert_int_equal(status, 0);
}

int world_wait(pid_t pid)
{
    int status = -1;
    uint64_t deadline = clock_now_ns() + 4 * WORLD_PATIENCE_MS * CLOCK_NS_PER_MS;
    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (clock_now_ns() > deadline) {
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            fail_msg("process %d did not end", (int)pid);
        }
        poll(NULL, 0, 2);
    }
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static int run_shell(const struct world *w, char *out, size_t size, const char *command)
{
    char line[2048];
    snprintf(line, sizeof(line), "export DOMZERO_RUN_DIR=%s XENSTORED_PATH=%s/xenstored/socket; { %s\n} 2>&1", w->run,
             w->run, command);
    FILE *p = popen(line, "re");
    assert_non_null(p);
    size_t n = 0;
    char scrap[4096];
    for (;;) {
        size_t got = fread(scrap, 1, sizeof(scrap), p);
        if (!got)
            break;
        size_t keep = out && n < size - 1 ? MIN(got, size - 1 - n) : 0;
        if (keep)
            memcpy(out + n, scrap, keep);
        n += keep;
    }
    if (out)
        out[n] = 0;
    int status = pclose(p);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

int world_shell(const struct world *w, char *out, size_t size, const char *command_fmt, ...)
{
    char command[1536];
    va_list ap;
    va_start(ap, command_fmt);
    vsnprintf(command, sizeof(command), command_fmt, ap);
    va_end(ap);
    return run_shell(w, out, size, command);
}

int world_domzero(const struct world *w, char *out, size_t size, const char *args_fmt, ...)
{
    char args[1024], command[1536];
    va_list ap;
    va_start(ap, args_fmt);
    vsnprintf(args, sizeof(args), args_fmt, ap);
    va_end(ap);
    snprintf(command, sizeof(command), "%s %s", world_program("domzero"), args);
    return run_shell(w, out, size, command);
}

void world_pattern(void *to, size_t length, uint64_t offset, uint64_t seed)
{
    unsigned char *bytes = to;
    for (size_t i = 0, n; i < length; i += n) { /* a word at a time: sanitizers make each access a dear one */
        uint64_t x = (offset + i) / 8 * 0x9e3779b97f4a7c15ull + seed;
        x ^= x >> 31;
        x = htole64(x * 0xbf58476d1ce4e5b9ull);
        size_t skip = (offset + i) % 8;
        n = MIN(sizeof(x) - skip, length - i);
        memcpy(bytes + i, (unsigned char *)&x + skip, n);
    }
}

void world_image(const struct world *w, const char *name, uint64_t bytes, uint64_t seed)
{
    _cleanup_close_ int fd = open(world_path(w, name), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    static unsigned char piece[1 << 16];
    for (uint64_t at = 0; at < bytes; at += sizeof(piece)) {
        size_t n = (size_t)MIN((uint64_t)sizeof(piece), bytes - at);
        world_pattern(piece, n, at, seed);
        assert_int_equal(pwrite(fd, piece, n, (off_t)at), (ssize_t)n);
    }
}

void world_write(const struct world *w, const char *name, const char *text)
{
    FILE *f = fopen(world_path(w, name), "we");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

unsigned world_guest(const struct world *w, const char *name, const char *image, const char *disk_options)
{
    char cfg[1024], file[80], out[1024];
    snprintf(file, sizeof(file), "%s.cfg", name);
    snprintf(cfg, sizeof(cfg), "name = \"%s\"\ndisk = [ \"format=raw,vdev=xvda,access=rw,target=%s\" ]\n%s%s%s\n", name,
             world_path(w, image), disk_options ? "disk_options = [ \"xvda," : "", disk_options ? disk_options : "",
             disk_options ? "\" ]" : "");
    world_write(w, file, cfg);
    if (world_domzero(w, out, sizeof(out), "create %s", world_path(w, file)) != 0)
        fail_msg("create %s: %s", name, out);
    const char *domid = strstr(out, "domid ");
    if (!domid)
        fail_msg("create says no domid: %s", out);
    return (unsigned)strtoul(domid + strlen("domid "), NULL, 10);
}

pid_t world_role(const struct world *w, const char *role)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s.pid", w->run, role);
    FILE *f = fopen(path, "re");
    int pid = 0;
    if (!f || fscanf(f, "%d", &pid) != 1)
        pid = 0;
    if (f)
        fclose(f);
    return pid;
}

void world_await(bool (*condition)(void *ctx), void *ctx, const char *what)
{
    uint64_t deadline = clock_now_ns() + WORLD_PATIENCE_MS * CLOCK_NS_PER_MS;
    while (!condition(ctx)) {
        if (clock_now_ns() > deadline)
            fail_msg("waited in vain: %s", what);
        poll(NULL, 0, 10);
    }
}

struct role_killed {
    const struct world *world;
    pid_t pid;
};

static bool blk_is_another(void *ctx)
{
    const struct role_killed *killed = ctx;
    pid_t now = world_role(killed->world, "blk");
    return now && now != killed->pid;
}

void world_kill_blk(const struct world *w)
{
    struct role_killed killed = {w, world_role(w, "blk")};
    assert_true(killed.pid > 0);
    assert_int_equal(kill(killed.pid, SIGKILL), 0);
    world_await(blk_is_another, &killed, "the supervisor restarts blk");
}

pid_t world_spawn(const struct world *w, unsigned domid, int (*guest)(const char *domain_dir, void *arg), void *arg)
{
    char dir[128];
    snprintf(dir, sizeof(dir), "%s/dom/%u", w->run, domid);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(guest(dir, arg));
    }
    return pid;
}
