/* SPDX-License-Identifier: MIT */
/* backend/supervisor.h: domzerod's first process: it starts one process for each role, restarts those whose clients
 * survive it, and stops all of them in reverse order.
 *
 * It touches no guest data and speaks to roles by two pipes each (ready, stop) and waitpid (child.h). It replaces the
 * blk role's binary when it is asked to (upgrade.h). A role that may be restarted is at once the first time, then after
 * a pause that doubles up to SUPERVISOR_PAUSE_MAX_MS, and at once again after it ran for SUPERVISOR_STEADY_MS. The end
 * of any other role ends the daemon, with a line that names it.
 *
 * It keeps the journal of what its blk role has in flight (blk/journal.h) for the next one, and never looks into it.
 * The store role's own (store/journal.h) is a file; the supervisor only removes it, before the first one and after the
 * last.
 *
 * The directory (dom0's run directory, or the domain's of a driver domain) is one daemon's: `domzerod.pid` in it is
 * locked for as long as it or one of its roles lives, or the I/O of one that was killed goes on. Where the supervisor
 * was killed its roles end by themselves; the next one waits SUPERVISOR_STOP_MS for that. In the background it lets go
 * of the terminal or pipe that it was started from once all roles serve; from then on the log goes to `domzerod.log`
 * there. A driver domain's daemon ends when its domain has gone.
 */
#ifndef BACKEND_SUPERVISOR_H
#define BACKEND_SUPERVISOR_H

#include "backend/role.h"

#define SUPERVISOR_PAUSE_MIN_MS 100
#define SUPERVISOR_PAUSE_MAX_MS 5000
#define SUPERVISOR_STEADY_MS    1000  /* waiting out the pause is all that guests get of it */
#define SUPERVISOR_READY_MS     30000 /* a role that does not serve by then has failed to start */
#define SUPERVISOR_STOP_MS      10000 /* a role that did not stop by then is killed */
#define SUPERVISOR_ROLES_MAX    8

struct supervisor_options {
    struct role_options role; /* ready_fd, stop_fd unused */
    const struct role *run[SUPERVISOR_ROLES_MAX];
    unsigned run_count;
    const char *program; /* what to execute for a role */
    const char *log_level;
    bool background; /* return to the shell once everything serves */
};

/* Runs until SIGTERM or SIGINT or a fatal end: an exit status. */
int supervisor_run(const struct supervisor_options *o);

#endif
