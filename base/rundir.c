/* SPDX-License-Identifier: MIT */
#include "base/rundir.h"

#include <stdio.h>
#include <string.h>
#include <sys/un.h>

_Static_assert(RUNDIR_BYTES_MAX + sizeof("/dom/32751/hypervisor.sock") <= sizeof(((struct sockaddr_un *)0)->sun_path),
               "a domain's sockets fit");

int rundir_find(const char *option, char out[RUNDIR_BYTES_MAX + 1], struct err *e)
{
    const char *dir = option ? option : getenv("DOMZERO_RUN_DIR"), *tail = "";
    if (dir && !dir[0])
        return err_set(e, -EINVAL, "the run directory is an empty name: give --run-dir DIR or unset DOMZERO_RUN_DIR");
    if (!dir && geteuid() == 0)
        dir = "/run/domzero";
    if (!dir) {
        dir = getenv("XDG_RUNTIME_DIR");
        tail = "/domzero";
    }
    if (!dir || !dir[0])
        return err_set(e, -ENOENT,
                       "there is no run directory: give --run-dir DIR, or set DOMZERO_RUN_DIR or XDG_RUNTIME_DIR");
    size_t length = strlen(dir) + strlen(tail);
    if (length > RUNDIR_BYTES_MAX)
        return err_set(e, -ENAMETOOLONG,
                       "%.100s%s has %zu characters, of which the paths of sockets leave room for %d: choose a shorter "
                       "run directory",
                       dir, length > 100 ? "..." : tail, length, RUNDIR_BYTES_MAX);
    snprintf(out, RUNDIR_BYTES_MAX + 1, "%s%s", dir, tail);
    return 0;
}
