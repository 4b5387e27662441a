/* SPDX-License-Identifier: MIT */
/* tests/live_load.h: a guest that works on its disk and verifies what it reads, as a thread of the test, while the test
 * does to the disk what an operator does; and the operator's hands. */
#ifndef TESTS_LIVE_LOAD_H
#define TESTS_LIVE_LOAD_H

#include <domzero/domzero.h>
#include <pthread.h>
#include <stdatomic.h>

#include "tests/harness.h"

#define MIB        (1u << 20)
#define BLOCK      4096u
#define BLOCKS     64u /* that the load works on, at the beginning of the disk */
#define LOAD_DEPTH 16u

struct load {
    const struct world *world;
    unsigned domid;
    char name[32];
    struct dz_domain *dom;
    struct dz_vbd *disk;
    pthread_t thread;
    _Atomic bool stop, writes;
    _Atomic uint64_t size_bytes, rounds, refused, errors;
    _Atomic uint32_t changes;
    _Atomic bool readonly;
    uint64_t rounds_wanted;
    uint32_t version[BLOCKS]; /* what was written last: 0: what the image began with */
};

/* What a block holds when it was written for the `version`th time. */
void block_fill(unsigned char *to, unsigned block, uint32_t version);

/* A domain with a disk of 1 MiB, and the thread that works on it. */
void load_start(struct load *l, const struct world *w, const char *name, const char *disk_options);
/* The thread's end; the disk is the caller's then. */
void load_stop(struct load *l);
/* Closes the disk and destroys the domain. */
void load_end(struct load *l);
/* The load has gone on for a while since now. */
void load_goes_on(struct load *l);

/* "block-set %s xvda", "iops=5": %s is the domain; it must work. */
void command(struct load *l, const char *fmt, const char *rest);
/* The guest has seen this size, and gone on. */
void load_sees_size(struct load *l, uint64_t bytes);
/* `domzero block-resize`, and the same. */
void load_resize(struct load *l, uint64_t bytes);
void attach(struct load *l, const char *vdev, const char *access, const char *image, const char *options);
/* A key of the backend's directory of xvda; "": it is not there. */
void key_is(struct load *l, const char *key, const char *wanted);
uint64_t file_size(const struct load *l, const char *name);

#endif
