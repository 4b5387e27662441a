/* SPDX-License-Identifier: MIT */
/* backend/blk/journal.h: which requests are in flight, in memory that outlives the role, and whether the role before
 * this one has wholly gone.
 *
 * The memory is a memfd of the supervisor's, sealed in its size, that it hands to each blk role. It is cut into areas
 * of 520 rows; a queue has an area for as long as it is connected, a request the row of its place in the queue's pools.
 * An area of which nothing was used takes no memory, an idle queue's one page.
 *
 * Writing. One row has one writer, the queue's reactor, with plain stores: the words that describe the request, then
 * the mark that makes them count (release); and one store of 0 to the mark (release) before the response is put into
 * the ring. A killed thread stops between two instructions; what it stored before is in memory in the order of the
 * program, for the reader that starts after its end, and nothing that it would have stored later is. Aligned words do
 * not tear. So a row with a mark is whole, and names a request whose response no frontend has seen; its I/O may or may
 * not have happened. What has no row was answered, or never begun (it waited in the ring, or parked).
 *
 * Reading. A successor reads once, when the predecessor has gone, copies what it finds and empties the memory. It
 * trusts none of it: a role that ran wild may have written anything. Rows are compared with what frontends send, and
 * counted; nothing is indexed, allocated or done again on their word. Another layout (an upgrade) is no journal.
 *
 * What it is good for. A frontend that lost its backend sends again what was not answered. Where it comes from the same
 * process (`instance`), its requests are compared with the rows by operation and place: `inherited` counts the rows,
 * `replayed` those that came again, and `not_replayed` those that had not after as many requests as were in flight and
 * fit the ring: a write of that guest is in doubt, and the log says so. A frontend that cuts its requests anew is
 * counted there too.
 *
 * The lock. A role holds byte 0 of the journal by an open-file-description lock on a descriptor of its own, which is in
 * the file table of each of its io_urings: the kernel lets go of it when the last I/O of the role has ended, however
 * the role did. What a predecessor served is not taken over before, so nothing that it read or wrote comes after what
 * the frontend sends again. The image's lock gives the same for writes, but readers share it: a late read of a disk
 * that is read-only would land in the guest's page after the answer to its replay.
 */
#ifndef BLK_JOURNAL_H
#define BLK_JOURNAL_H

#include <stdatomic.h>

#include "base/err.h"
#include "base/list.h"
#include "ring/blkreq.h"

#define JOURNAL_MAGIC      0x316a7a64u /* changes with any layout below */
#define JOURNAL_AREAS      4096u       /* queues connected at a time; more are served without a journal */
#define JOURNAL_ROWS       520u        /* of a queue: a ring of 512, and its large requests */
#define JOURNAL_AREA_BYTES 20480u
#define JOURNAL_BYTES      ((1u + JOURNAL_AREAS) * (uint64_t)JOURNAL_AREA_BYTES)

struct journal_row {
    _Atomic uint64_t mark; /* 0: free; else the request's number in its queue and its operation */
    _Atomic uint64_t id, sector, sector_count;
};

struct journal_area {
    _Atomic uint32_t used;
    _Atomic uint32_t front_domid, devid, queue;
    _Atomic uint32_t instance; /* of the guest's process */
    uint32_t zero[11];
    struct journal_row row[JOURNAL_ROWS];
};

/* What a predecessor had in flight in one queue: copies, checked, in the order of their taking. */
struct journal_past {
    struct list link;
    uint32_t front_domid, devid, queue, instance;
    uint32_t count, left, cursor;
    struct journal_past_row {
        uint64_t number, sector, sector_count; /* number 0: it came again */
        uint8_t operation;
    } row[];
};

/* A queue's part: control's until the queue is attached, then its reactor's. */
struct journal_queue {
    struct journal_area *area;
    bool private_area;         /* it has none that survives */
    uint64_t number;           /* of the last request */
    struct journal_past *past; /* NULL: nothing was in flight */
    bool comparing;            /* requests with it */
    uint32_t window;           /* requests until what has not come again is missing */
};

struct journal;

/* For the supervisor: a fresh one, close-on-exec. Its descriptor, or -errno with a sentence. */
int journal_create(struct err *e);
/* Maps it; fd <= 0: one that nobody inherits is made. Does not read it, does not lock it. */
int journal_open(int fd, struct journal **out, struct err *e);
void journal_close(struct journal *j); /* NULL is fine. I/O has ended: lets go of the lock at once */
/* What each io_uring registers. */
int journal_lock_fd(const struct journal *j);
/* No predecessor's I/O is under way. From the first true on the journal is ours: what was in flight has been read. */
bool journal_ready(struct journal *j);
/* An area for the queue, and what was in flight in it. 0 or -ENOMEM. NULL, or not ready: one that nobody inherits. */
int journal_claim(struct journal *j, uint16_t front_domid, uint32_t devid, uint32_t queue, struct journal_queue *out);
/* What is in flight still stays for a successor. */
void journal_release(struct journal *j, struct journal_queue *q);

/* ---- the reactor's ---- */

/* The queue is connected to that process of the guest: the number of requests that may come again. */
uint32_t journal_connect(struct journal_queue *q, uint32_t instance, uint32_t ring_entries);
/* Compares a request with the past: 1: it came again. Ends the comparison when it is complete or the window is over:
 * *missing is then how many have not come. */
unsigned journal_compare(struct journal_queue *q, const struct blkreq *req, uint32_t *missing);

static inline void journal_begin(struct journal_queue *q, struct journal_row *row, const struct blkreq *req)
{
    atomic_store_explicit(&row->id, req->id, memory_order_relaxed);
    atomic_store_explicit(&row->sector, req->sector, memory_order_relaxed);
    atomic_store_explicit(&row->sector_count, req->sector_count, memory_order_relaxed);
    atomic_store_explicit(&row->mark, ++q->number << 8 | req->operation, memory_order_release);
}

static inline void journal_end(struct journal_row *row)
{
    atomic_store_explicit(&row->mark, 0, memory_order_release);
}

#endif
