/* SPDX-License-Identifier: MIT */
/* tools/tool.h: what the verbs share: where dom0 is, the connection to it, and how domains are named.
 *
 * The tool speaks to dom0 as anybody does, through the hypervisor's socket (platform/) and the store. It is the
 * toolstack: what it writes into the store is what backends trust. What guests wrote it reads as text of no meaning.
 */
#ifndef TOOLS_TOOL_H
#define TOOLS_TOOL_H

#include "base/err.h"
#include "platform/platform.h"

#define TOOL_PATH_MAX 256 /* a run directory; socket paths end at 108 bytes, so a longer one fails when it is used */

struct tool {
    char run_dir[TOOL_PATH_MAX];
    struct platform *platform;
    struct store_client *store;
};

/* The run directory, by base/rundir.h's rule; `option` may be NULL. */
int tool_run_dir(const char *option, char out[TOOL_PATH_MAX], struct err *e);
/* Connects to both; harmless where it is connected. */
int tool_open(struct tool *t, struct err *e);
void tool_close(struct tool *t);

/* The domain of that name or domid, dying ones not: 0, or -ENOENT with a sentence. */
int tool_domain_find(struct tool *t, const char *name_or_domid, struct platform_domain *out, struct err *e);
/* -EEXIST where a domain has that name. */
int tool_name_free(struct tool *t, const char *name, struct err *e);

/* Takes `flag` out of the arguments where it stands before a "--": whether it was there. */
bool tool_flag(int *argc, char **argv, const char *flag);
/* The same for "--name VALUE" and "--name=VALUE": 1 and *value; 0 where it is not there; -EINVAL without its value. */
int tool_option(int *argc, char **argv, const char *name, const char **value);

#endif
