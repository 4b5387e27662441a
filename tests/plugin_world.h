/* SPDX-License-Identifier: MIT */
/* tests/plugin_world.h: a dom0, and the programs of others that our plugins are loaded into; for tests of plugins.
 *
 * Where the plugin was not built, or one of the programs is not installed, nothing is started, and each test that
 * begins with NEEDS_PLUGIN() is skipped. The guest is always called `vm`, its disk xvda.
 */
#ifndef TESTS_PLUGIN_WORLD_H
#define TESTS_PLUGIN_WORLD_H

#include "tests/harness.h"

extern struct world plugin_world;
extern char plugin_said[16384]; /* what the last program said */

#define NEEDS_PLUGIN()            \
    do {                          \
        (void)state;              \
        if (!plugin_world.daemon) \
            skip();               \
    } while (0)

/* For the group's setup: `programs` ends with NULL. Always 0. */
int plugin_world_start(const char *plugin, const char *const *programs);
int plugin_world_stop(void **state);

/* Runs a shell command in the world's directory: its exit status. */
int plugin_shell(const char *command_fmt, ...) __attribute__((format(printf, 1, 2)));
/* The same; the test fails with what it said where it does not succeed, or does although it should not. */
void plugin_shell_ok(const char *command_fmt, ...) __attribute__((format(printf, 1, 2)));
void plugin_shell_fails(const char *command_fmt, ...) __attribute__((format(printf, 1, 2)));
/* The beginning of a command: `domzero exec vm --` of this build. */
const char *plugin_in_vm(void);
/* Starts `sh -c command` in the world's directory, output to the file `out` there (NULL: the test's), and does not wait
 * for it. The shell is replaced by the command. */
pid_t plugin_spawn(const char *out, const char *command_fmt, ...) __attribute__((format(printf, 2, 3)));
/* Kills the blk role `rounds` times, every `ms` and when the disk of domain `domid` is connected; asserts that `pid`
 * runs on meanwhile. */
void plugin_kill_blk(pid_t pid, unsigned domid, unsigned rounds, int ms);
void plugin_destroy(void);

#endif
