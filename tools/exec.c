/* SPDX-License-Identifier: MIT */
/* tools/exec.c: `domzero exec`: a process becomes a domain's by knowing two paths. Nothing else makes it one: the
 * domain's directory is 0700 and its sockets are 0600, so only this user's processes can. */
#include <stdio.h>
#include <string.h>

#include "tools/verb.h"

/* Puts the domain's paths into the environment, and takes dom0's out. */
static int enter(const char *run_dir, uint16_t domid, struct err *e)
{
    char dir[TOOL_PATH_MAX + 32], store[TOOL_PATH_MAX + 64];
    _cleanup_free_ char *real = realpath(run_dir, NULL); /* the command may change its directory */
    if (!real)
        return err_set(e, -errno, "%s: %s", run_dir, strerror(errno));
    int n = snprintf(dir, sizeof(dir), "%s/dom/%u", real, domid);
    if (n < 0 || (size_t)n >= sizeof(dir))
        return err_set(e, -ENAMETOOLONG, "%s is too long a name for a run directory", real);
    snprintf(store, sizeof(store), "%s/xenstored.sock", dir);
    if (access(store, R_OK | W_OK))
        return err_set(e, -errno, "%s: %s; the domain belongs to another user, or its store is down", store,
                       strerror(errno));
    if (setenv("DOMZERO_DOMAIN_DIR", dir, 1) || setenv("XENSTORED_PATH", store, 1))
        return err_set(e, -ENOMEM, "no memory for the environment");
    unsetenv("DOMZERO_RUN_DIR");
    unsetenv("XENSTORED_RUNDIR");
    return 0;
}

static int exec_run(struct tool *t, int argc, char **argv, struct err *e)
{
    struct platform_domain d;
    int command = argc > 1 && !strcmp(argv[1], "--") ? 2 : 1;
    if (argc <= command)
        return VERB_USAGE;
    int r = tool_open(t, e);
    r = r ? r : tool_domain_find(t, argv[0], &d, e);
    tool_close(t); /* all that is dom0's, before anything of the guest's runs */
    r = r ? r : enter(t->run_dir, d.domid, e);
    if (r < 0)
        return r;
    execvp(argv[command], argv + command);
    return err_set(e, -errno, "\"%s\" cannot be run: %s", argv[command], strerror(errno));
}

const struct verb verb_exec = {
    .name = "exec",
    .arguments = "DOMAIN [--] COMMAND [ARGUMENT ...]",
    .summary = "run a command as a process of a domain",
    .help = "COMMAND finds its domain by DOMZERO_DOMAIN_DIR and XENSTORED_PATH, both set here; libdomzero and Xen's\n"
            "xenstore tools read them. dom0's own sockets and variables are not passed on.\n",
    .run = exec_run,
};
