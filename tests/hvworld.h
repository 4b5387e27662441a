/* SPDX-License-Identifier: MIT */
/* tests/hvworld.h: a hypervisor role in a process of its own, with a run directory in /tmp, for tests. It ends with
 * its test: the server leaves when the pipe from the test process closes. */
#ifndef TESTS_HVWORLD_H
#define TESTS_HVWORLD_H

#include <sys/types.h>

struct hypervisor;

struct hvworld {
    char run_dir[64];
    pid_t pid;
    int stop_fd;
};

/* `prepare` (may be NULL) runs in the server's process before it serves. */
void hvworld_start(struct hvworld *w, void (*prepare)(struct hypervisor *h));
/* Ends the server in order and asserts that it left nothing in its run directory. */
void hvworld_stop(struct hvworld *w);
/* Open descriptors of the server. */
unsigned hvworld_fd_count(const struct hvworld *w);
/* The path of a domain's hypervisor socket; domid 0: domain 0's. */
const char *hvworld_socket(const struct hvworld *w, unsigned domid, char out[128]);

#endif
