/* SPDX-License-Identifier: MIT */
#include "tests/plugin_world.h"

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

struct world plugin_world;
char plugin_said[16384];

static bool can_run(const char *plugin, const char *const *programs)
{
    const char *file = world_program(plugin);
    if (access(file, R_OK) < 0) {
        print_message("skipped: no %s; `make plugins` builds it where it can\n", file);
        return false;
    }
    for (; *programs; programs++) {
        char command[96];
        snprintf(command, sizeof(command), "command -v %s > /dev/null", *programs);
        if (system(command) != 0) {
            print_message("skipped: no %s here; `make check-peers` installs what is missing\n", *programs);
            return false;
        }
    }
    return true;
}

int plugin_world_start(const char *plugin, const char *const *programs)
{
    if (can_run(plugin, programs))
        world_start(&plugin_world, NULL);
    return 0;
}

int plugin_world_stop(void **state)
{
    (void)state;
    if (plugin_world.daemon)
        world_stop(&plugin_world);
    return 0;
}

static int shell(const char *command_fmt, va_list ap)
{
    char command[1400];
    vsnprintf(command, sizeof(command), command_fmt, ap);
    return world_shell(&plugin_world, plugin_said, sizeof(plugin_said), "cd %s && { %s\n}", plugin_world.dir, command);
}

#define SHELL(status)                    \
    do {                                 \
        va_list ap;                      \
        va_start(ap, command_fmt);       \
        status = shell(command_fmt, ap); \
        va_end(ap);                      \
    } while (0)

int plugin_shell(const char *command_fmt, ...)
{
    int status;
    SHELL(status);
    return status;
}

void plugin_shell_ok(const char *command_fmt, ...)
{
    int status;
    SHELL(status);
    if (status != 0)
        fail_msg("%s: ended with status %d: %s", command_fmt, status, plugin_said);
}

void plugin_shell_fails(const char *command_fmt, ...)
{
    int status;
    SHELL(status);
    if (status == 0)
        fail_msg("%s: ended well: %s", command_fmt, plugin_said);
}

const char *plugin_in_vm(void)
{
    static char command[600];
    snprintf(command, sizeof(command), "%s --run-dir %s exec vm --", world_program("domzero"), plugin_world.run);
    return command;
}

pid_t plugin_spawn(const char *out, const char *command_fmt, ...)
{
    char command[1400], line[1536];
    va_list ap;
    va_start(ap, command_fmt);
    vsnprintf(command, sizeof(command), command_fmt, ap);
    va_end(ap);
    snprintf(line, sizeof(line), "cd %s && exec %s", plugin_world.dir, command);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (out) {
        int fd = open(world_path(&plugin_world, out), O_WRONLY | O_CREAT | O_TRUNC, 0600);
        dup2(fd, 1);
        dup2(fd, 2);
    }
    execl("/bin/sh", "sh", "-c", line, (char *)NULL);
    _exit(127);
}

struct victim {
    pid_t pid;
    unsigned domid;
};

static bool disk_is_connected(void *ctx)
{
    const struct victim *v = ctx;
    if (waitpid(v->pid, NULL, WNOHANG) != 0)
        fail_msg("the program was done before the backend was killed as often as it should be");
    return plugin_shell("xenstore-read /local/domain/0/backend/vbd/%u/51712/state", v->domid) == 0 &&
           strcmp(plugin_said, "4\n") == 0;
}

void plugin_kill_blk(pid_t pid, unsigned domid, unsigned rounds, int ms)
{
    struct victim victim = {pid, domid};
    while (rounds--) {
        poll(NULL, 0, ms);
        world_await(disk_is_connected, &victim, "the disk is connected");
        world_kill_blk(&plugin_world);
    }
}

void plugin_destroy(void)
{
    plugin_shell_ok("%s destroy vm", world_program("domzero"));
}
