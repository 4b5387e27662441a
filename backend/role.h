/* SPDX-License-Identifier: MIT */
/* backend/role.h: a role is one process of dom0: `hypervisor`, `store`, `blk`. The table has one row for each; a role
 * knows the others only through the hypervisor socket and xenstore.
 *
 * The supervisor starts a role by executing this program again with `--as-role`, so a restarted role is a fresh process
 * image (after an upgrade: the new one). A role writes one byte to ready_fd when it serves, and ends cleanly when
 * stop_fd is readable or closed (the supervisor is gone): 0, or anything else with the reason logged. Stopping `blk`
 * drains what is in flight and leaves every device as connected as it was, for a successor to take over.
 *
 * A role that stands by (only `blk` can) has made what it needs and touched no device; it writes a byte to ready_fd
 * then, serves when one comes on stop_fd, and writes another.
 *
 * Until it serves or stands by, a role of a daemon in the background still has the standard descriptors of who started
 * the daemon, so that the reason of a failed start is seen there. When it serves it lets go of them (role_detach).
 */
#ifndef BACKEND_ROLE_H
#define BACKEND_ROLE_H

#include "store/server.h"

#define ROLE_REACTORS_MAX 16

struct role_options {
    const char *run_dir;      /* dom0's; NULL in a driver domain */
    const char *domain_dir;   /* a driver domain's; NULL in dom0 */
    const char *platform_row; /* platform/platform.h: "user" */
    const char *poll;         /* "interrupt", "adaptive" or "poll" */
    unsigned spin_us;
    const char *store_answers, *store_quota; /* as they were given; NULL: not */
    struct store_options store;              /* … and what they say */
    unsigned reactors;                       /* of the blk role; 0: as many as suit the machine */
    int ready_fd, stop_fd;                   /* -1: none */
    int journal_fd;                          /* blk/journal.h; 0: none, what is in flight is not known to a successor */
    int claim_fd;      /* the locked pid file of the daemon, kept until the last I/O has ended; 0: none */
    int state_fd;      /* of the store role: what this process was before (backend/live.h); -1: it begins */
    bool state_check;  /* only say, on ready_fd, whether it could go on from that */
    char *const *argv; /* what the process was started with */
    bool standby;      /* get ready, say so, and serve when a byte comes on stop_fd */
    int log_fd;        /* where standard error goes once it serves; -1: nowhere else */
};

/* What the supervisor does when the process ends by itself. */
enum role_policy {
    ROLE_RESTART, /* its clients survive it */
    ROLE_FATAL,   /* it is the world of the others: stop everything and say so */
};

struct role {
    const char *name;
    int (*run)(const struct role_options *o);
    enum role_policy policy;
    bool stands_by; /* see above */
    bool goes_on;   /* as another binary, in its own process (live.h) */
};

int role_hypervisor_run(const struct role_options *o);
int role_store_run(const struct role_options *o);
int role_blk_run(const struct role_options *o);

extern const struct role roles[]; /* in the order in which they start */
extern const unsigned role_count;
const struct role *role_find(const char *name);

/* Nothing of the terminal or pipe that the daemon was started from stays open: input and output are /dev/null, standard
 * error is `log_fd`, which is closed. */
void role_detach(int log_fd);
/* For a role's main: says that it serves. */
void role_ready(const struct role_options *o);
/* … that it stands by; returns when it is to serve: 0, or -ECANCELED when it is to end. */
int role_standby(const struct role_options *o);

#endif
