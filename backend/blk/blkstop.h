/* SPDX-License-Identifier: MIT */
/* backend/blk/blkstop.h: requests that are held because the storage failed, where the disk is configured so
 * (`domzero/on-error` = stop).
 *
 * A request whose I/O failed is not answered: it is kept as it is, with its grants mapped and its data where it is, and
 * its queue takes nothing more from the ring. What else is under way ends as it does, answered or held too. The control
 * thread is told, and tells the operator. Then one of three things happens:
 *
 *   - resume: all are done again. When the last has ended well the queue goes on; one that fails again is held again,
 *     and the operator told again
 *   - give up: the disk is to be closed: they are answered with their errors, and so is what fails from then on
 *   - abandon: the role ends: they are dropped, not answered, and stay in the journal; the successor gets them again
 *
 * A flush whose fdatasync() failed is not held but answered with its error: the kernel forgets what it could not write
 * once it has said so, a second try would succeed and be a lie. Nor is a discard that the storage does not know.
 *
 * The memory is that of the requests, so a guest holds no more than its ring. All of it is the reactor's.
 */
#ifndef BLK_BLKSTOP_H
#define BLK_BLKSTOP_H

#include <stdbool.h>
#include <stdint.h>

struct blkqueue;
struct blk_request;

enum blkstop_state { BLKSTOP_NONE, BLKSTOP_PAUSED, BLKSTOP_RETRYING };

struct blkstop {
    enum blkstop_state state;
    bool give_up, abandon;            /* what fails from now on is answered; is dropped */
    struct blk_request *first, *last; /* by next; last: valid where first is not NULL */
    uint32_t count;
};

/* A request whose I/O has failed is about to end: true: it does not. */
bool blkstop_keep(struct blk_request *r);
/* A request has ended while the queue is stopped: true: that is over. */
bool blkstop_over(struct blkqueue *q);
void blkstop_retry(struct blkqueue *q);
void blkstop_give_up(struct blkqueue *q);
void blkstop_abandon(struct blkqueue *q);

#endif
