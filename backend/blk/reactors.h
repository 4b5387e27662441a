/* SPDX-License-Identifier: MIT */
/* backend/blk/reactors.h: the reactors of one blk role, and which of them serves which queue.
 *
 * Each is an engine (engine.h) and shares next to nothing with the others: its own thread, io_uring, connection to the
 * hypervisor role, and so its own maps of guests' memory. A queue belongs to one of them from its attach to its detach;
 * it is not moved. The queues of a disk go round all reactors, beginning with the one that has the fewest, so the load
 * of one disk is spread where it has several queues, and that of many disks where each has one.
 *
 * What each has to itself is also counted by itself: a guest that is served by N reactors may have N times what one of
 * them allows it (registering's share of the time, workers of io-wq for its flushes). What they share is the count of
 * who relies on the marks in guests' grant tables (grant/gntmarks.h), so that a page that two of them use, or keep
 * mapped, is marked until both let go.
 *
 * Owned by the control thread.
 */
#ifndef BLK_REACTORS_H
#define BLK_REACTORS_H

#include "backend/blk/engine.h"

#define REACTORS_MAX 16u /* unmeasured; ROLE_REACTORS_MAX of backend/role.h for who gives the options */

/* By default. Each is an instance of our domain at the hypervisor role, beside the control thread's; a driver domain
 * has 16 of those for all of its processes, and two roles at a time while one is upgraded. */
#define REACTORS_DEFAULT_MAX 6u

struct reactors;

/* Half of the processors, at least one: the other half is the guests'. */
unsigned reactors_default(void);
/* Starts `count` of them, 1 … REACTORS_MAX: all, or -errno with a sentence. */
int reactors_new(const struct engine_options *options, unsigned count, struct reactors **out, struct err *e);
/* Stops all, which drain side by side, and joins them. Queues that are still attached become the caller's to free. */
void reactors_free(struct reactors *r);

unsigned reactors_count(const struct reactors *r);
struct engine *reactors_engine(const struct reactors *r, unsigned index);
struct journal *reactors_journal(const struct reactors *r); /* theirs together */
/* Where the first queue of a disk goes; the next ones follow in order, and after the last comes the first. */
unsigned reactors_least(const struct reactors *r);
/* A queue was given to it; one was taken from it. */
void reactors_charge(struct reactors *r, unsigned index);
void reactors_discharge(struct reactors *r, unsigned index);

#endif
