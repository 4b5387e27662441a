/* SPDX-License-Identifier: MIT */
/* tests/mqguest.h: a guest whose one disk has several queues, each driven by hand as tests/blkworld.h drives one.
 *
 * A queue is a `struct blkguest` of its own that borrows platform, store, memory and grants from the first: what puts,
 * kicks and takes on one queue works here. Each has its own ring page and its own share of the data pages, so that
 * queues can be driven by one thread each. What is shared (the store, the platform) is one thread's at a time.
 */
#ifndef TESTS_MQGUEST_H
#define TESTS_MQGUEST_H

#include <pthread.h>

#include "tests/blkworld.h"

struct mqguest {
    struct blkguest g; /* owns the memory; its own ring is not used */
    unsigned count;
    bool marked; /* a backend was killed: what it marked in the grant table stays so where no successor maps it */
    struct blkguest queue[KEYS_BLK_QUEUES_MAX];
};

void mqguest_open(struct mqguest *m, const char *domain_dir, uint32_t devid);
/* Publishes `count` fresh rings of 2^order pages each (count << order <= BLKWORLD_RING_PAGES), once the backend is in
 * InitWait; _offer() Initialised too. */
void mqguest_publish(struct mqguest *m, unsigned count, uint32_t order);
void mqguest_offer(struct mqguest *m, unsigned count, uint32_t order);
void mqguest_wait_connected(struct mqguest *m);
/* From Initialising to Connected. */
void mqguest_connect(struct mqguest *m, unsigned count, uint32_t order);
/* Channels back; grants too where the backend has let go of them (not where it was killed: they stay for the next
 * offer). */
void mqguest_rings_end(struct mqguest *m, bool killed);
/* Closing, Closed. */
void mqguest_disconnect(struct mqguest *m);
void mqguest_close(struct mqguest *m);
/* A process that is the domain, and does I/O on all queues of BLKWORLD_DEVID for ever; connected already. Its main. */
pid_t mqguest_process(const char *domain_dir, unsigned count);
int mqguest_main(const char *domain_dir, int ready, unsigned count);

/* ---- a load on all queues at once, a thread each ---- */

/* Writes, reads back and compares in the queue's own part of the disk, with the ring full and a flush now and then.
 * What was answered is what the part holds; it is kept here, over connections. */
#define MQLOAD_BLOCKS 128 /* of 4 KiB, of each queue */

struct mqload {
    struct blkguest *queue;
    unsigned index;
    _Atomic bool *stop;
    _Atomic uint64_t done;           /* requests answered well */
    uint64_t flush_due;              /* done, of the first read behind which a flush comes */
    uint64_t wanted;                 /* ends after so many; 0: when it is told to */
    uint64_t written[MQLOAD_BLOCKS]; /* the seed of what was written last, 0: nothing yet */
    uint64_t doing[MQLOAD_BLOCKS];   /* the seed of a write that is under way, 0: none */
    char error[128];                 /* "": all is as it should be */
    pthread_t thread;
};

struct mqloads {
    _Atomic bool stop;
    unsigned count;
    struct mqload load[KEYS_BLK_QUEUES_MAX];
};

/* Each ends after `wanted` requests, or, 0, in mqloads_stop(). Goes on from what the loads know of the disk. */
void mqloads_start(struct mqloads *l, struct mqguest *m, uint64_t wanted);
/* Waits until each has done `more` requests since they were started. */
void mqloads_await(struct mqloads *l, uint64_t more);
/* Joins them; fails the test with the first one's complaint. */
void mqloads_stop(struct mqloads *l);
void mqloads_join(struct mqloads *l);
/* Does again what was under way when the last backend went, and compares all that was ever written. */
void mqloads_verify(struct mqloads *l, struct mqguest *m);
/* Bytes of a disk for so many queues. */
#define MQLOAD_DISK_BYTES(queues) ((queues)*MQLOAD_BLOCKS * (uint64_t)PAGE_BYTES)

#endif
