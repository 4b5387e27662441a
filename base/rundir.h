/* SPDX-License-Identifier: MIT */
/* base/rundir.h: which directory is dom0's: the one rule of daemon and command line, so that they meet.
 *
 * What the option says, else $DOMZERO_RUN_DIR, else /run/domzero for root and $XDG_RUNTIME_DIR/domzero for others. An
 * empty name is an error and not "unset": it is what a script's misspelt variable leaves. The length is checked here
 * because the longest socket path of a domain comes much later: a unix socket's has 107 bytes.
 */
#ifndef BASE_RUNDIR_H
#define BASE_RUNDIR_H

#include "base/err.h"

#define RUNDIR_BYTES_MAX 81 /* leaves room for /dom/32751/hypervisor.sock */

/* `option` may be NULL. 0; -EINVAL, -ENOENT, -ENAMETOOLONG with a sentence. */
int rundir_find(const char *option, char out[RUNDIR_BYTES_MAX + 1], struct err *e);

#endif
