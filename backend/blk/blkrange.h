/* SPDX-License-Identifier: MIT */
/* backend/blk/blkrange.h: which bytes of a file are being written, for who must not write beside them.
 *
 * A writer claims a range before its I/O and releases it after. Shared claims may overlap each other: two writes of the
 * guest to one place at a time, whose order is the guest's to keep. An exclusive claim overlaps none: it is that of who
 * reads a block, changes a part and writes it back, and who must not write back what somebody else has changed since.
 *
 * Who cannot have his range waits in line. Nobody overtakes a waiter whom he would hold up, so none waits for ever.
 * Nothing is allocated: a range is embedded in what it is claimed for. Owned by one thread. While no exclusive claim is
 * there a shared one costs no search.
 */
#ifndef BLK_BLKRANGE_H
#define BLK_BLKRANGE_H

#include "base/list.h"

struct blkrange {
    struct list link;
    uint64_t first_bytes, end_bytes; /* [first, end) in the file */
    bool exclusive;
};

struct blkranges {
    struct list shared, exclusive; /* claimed */
    struct list waiting;           /* in the order in which they came */
};

void blkranges_init(struct blkranges *s);
bool blkranges_idle(const struct blkranges *s);
/* True: claimed. False: it waits, until blkranges_next() gives it out. */
bool blkranges_claim(struct blkranges *s, struct blkrange *r);
/* Afterwards blkranges_next() is to be asked until it has no more. */
void blkranges_release(struct blkranges *s, struct blkrange *r);
/* The first that waited and need not any more, claimed; NULL: none. */
struct blkrange *blkranges_next(struct blkranges *s);

#endif
