/* SPDX-License-Identifier: MIT */
/* backend/role.h: what the daemon and a role's process say to each other. A role runs in a process of its own, knows
 * nothing of the daemon beyond this, and speaks to the other roles only through the hypervisor socket and the store.
 */
#ifndef BACKEND_ROLE_H
#define BACKEND_ROLE_H

struct role_options {
    const char *run_dir;      /* domain 0's run directory */
    const char *domain_dir;   /* of a driver domain; NULL: the role serves as domain 0 */
    const char *platform_row; /* NULL: "user" */
    const char *poll;         /* "interrupt", "adaptive", "poll"; NULL: adaptive where a processor is to spare */
    unsigned spin_us;         /* how long to spin before a sleep; 0: the mode's own */
    int ready_fd;             /* gets one byte when the role serves; -1: nobody waits */
    int stop_fd;              /* readable or closed: stop; -1: never */
};

/* Serves until it is told to stop: 0; or -errno, with the reason logged. Stopping drains what is in flight and leaves
 * every device as connected as it was, for a successor to take over. */
int role_blk_run(const struct role_options *o);

#endif
