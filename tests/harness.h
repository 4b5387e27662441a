/* SPDX-License-Identifier: MIT */
/* tests/harness.h: a whole dom0 in a directory of its own, for tests that use the real programs.
 *
 * world_start() makes a temporary directory (short: unix socket paths are limited), starts the real domzerod of this
 * build in it and waits until it serves; world_stop() stops it, asserts that it stopped cleanly and removes the
 * directory. Everything fails the test that called it with a sentence. Images and cfgs live beside the run directory.
 * Time limits here are only there to end a test that hangs.
 */
#ifndef TESTS_HARNESS_H
#define TESTS_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct world {
    char dir[64]; /* /tmp/dzXXXXXX */
    char run[80]; /* its run directory */
    pid_t daemon;
};

#define WORLD_PATIENCE_MS 30000
/* A guest's dz_vbd_options: the default gives up after 10 s. For who includes domzero.h. */
#define WORLD_PATIENT (&(const struct dz_vbd_options){.timeout_ms = WORLD_PATIENCE_MS})

/* `option` (may be NULL) is one more argument of domzerod, e.g. "--poll=poll". */
void world_start(struct world *w, const char *option);
void world_stop(struct world *w);
/* Only the daemon, in the directories that there are: after its end. world_await(world_serves, w, …) waits for it. */
void world_daemon_start(struct world *w, const char *option);
bool world_serves(void *world);

/* Path of a program of this build: "domzero", "examples/04-read-disk". Static storage, four at a time. */
const char *world_program(const char *name);
/* `name` in the world's directory; likewise static. */
const char *world_path(const struct world *w, const char *name);

/* Runs `domzero --run-dir … ARGS` through the shell; its output (stdout and stderr) into out. The exit status. */
int world_domzero(const struct world *w, char *out, size_t size, const char *args_fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* As world_domzero for any shell command, with DOMZERO_RUN_DIR and XENSTORED_PATH (dom0's) set. */
int world_shell(const struct world *w, char *out, size_t size, const char *command_fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* A file of `bytes` whose content is a function of seed and offset; world_pattern() gives the same bytes. */
void world_image(const struct world *w, const char *name, uint64_t bytes, uint64_t seed);
void world_pattern(void *to, size_t length, uint64_t offset, uint64_t seed);
void world_write(const struct world *w, const char *name, const char *text);
/* Creates a guest with one raw disk xvda on image `image` of the world's directory: asserts that it worked; its domid.
 */
unsigned world_guest(const struct world *w, const char *name, const char *image, const char *disk_options);

/* The pid of a role's process now. */
pid_t world_role(const struct world *w, const char *role);
/* kill -9 of the blk role; returns when the supervisor has started another. */
void world_kill_blk(const struct world *w);
/* Waits until `condition(ctx)`; fails the test naming `what` after WORLD_PATIENCE_MS. */
void world_await(bool (*condition)(void *ctx), void *ctx, const char *what);

/* Forks `guest` as that domain's process: it gets the domain directory; its return value is the exit status. */
pid_t world_spawn(const struct world *w, unsigned domid, int (*guest)(const char *domain_dir, void *arg), void *arg);
/* In it a failure is a sentence and exit status 1: cmocka belongs to the parent. For who includes stdio.h and
 * domzero.h. */
#define GUEST_CHECK(condition)                                                             \
    do {                                                                                   \
        if (!(condition)) {                                                                \
            fprintf(stderr, "guest: line %d: %s: %s\n", __LINE__, #condition, dz_error()); \
            return 1;                                                                      \
        }                                                                                  \
    } while (0)
/* Waits for it: the exit status, or 128 + signal. */
int world_wait(pid_t pid);

#endif
