/* SPDX-License-Identifier: MIT */
/* tests/store_thread.h: the project's own store, served by a thread in a private run directory, for tests of what
 * speaks to a store. */
#ifndef TESTS_STORE_THREAD_H
#define TESTS_STORE_THREAD_H

#include <pthread.h>

#include "store/client.h"
#include "store/server.h"

struct store_thread {
    char run_dir[64], socket[96];
    struct store_server *server;
    pthread_t thread;
    int stop_fd;
};

/* Both assert on failure: a test cannot go on without a store. */
void store_thread_start(struct store_thread *t);
void store_thread_stop(struct store_thread *t); /* every client is closed; removes the run directory */

/* A connection of dom0. */
struct store_client *store_thread_client(struct store_thread *t);
/* A connection of `domid`, which dom0 introduced. */
struct store_client *store_thread_client_of(struct store_thread *t, unsigned domid);
/* Writes `length` bytes as they are, which store_write() cannot. */
void store_thread_write_bytes(struct store_thread *t, const char *path, const void *bytes, size_t length);

#endif
