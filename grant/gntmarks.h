/* SPDX-License-Identifier: MIT */
/* grant/gntmarks.h: the marks of one process in others' grant tables, where several maps set them: a map for each
 * reactor, and a guest that uses one page in rings of several of them.
 *
 * In Xen the hypervisor counts the maps of an entry over all who map it; here each gntmap counts its own, so who clears
 * a mark must know whether another still relies on it. Else the granter could end a grant that another reactor has in
 * use, or keeps, and give its reference to another page: that reactor would go on with the old one. What is counted is
 * maps that hold a mark, not their pages: a map comes here for its first use of a reference and its last, as it would
 * go to the table, and not between.
 *
 * One for a process; its frames are those of the maps that share it. Any thread.
 */
#ifndef GRANT_GNTMARKS_H
#define GRANT_GNTMARKS_H

#include <pthread.h>

#include "base/err.h"
#include "grant/xen_grant.h"

#define GNTMARKS_MAPS_MAX UINT8_MAX /* that share: more than there can be reactors */

struct gntmarks;

/* A grant frame of one instance of one granter. */
struct gntmarks_frame {
    uint64_t key;
    unsigned users; /* maps that fetched it; under the lock of all */
    pthread_mutex_t lock;
    uint8_t reading[GRANT_PER_FRAME], writing[GRANT_PER_FRAME]; /* how many maps hold that mark */
};

int gntmarks_new(struct gntmarks **out); /* 0 or -ENOMEM */
void gntmarks_free(struct gntmarks *g);  /* no map uses it any more; NULL is fine */

/* NULL: no memory. Each get has its put. */
struct gntmarks_frame *gntmarks_frame_get(struct gntmarks *g, uint16_t granter, uint32_t index, uint32_t instance);
void gntmarks_frame_put(struct gntmarks *g, struct gntmarks_frame *f);

/* Under f->lock: one map holds these marks (GTF_reading, GTF_writing), or does no more; the latter gives those that
 * nobody holds now. */
void gntmarks_hold(struct gntmarks_frame *f, uint32_t slot, uint32_t marks);
uint32_t gntmarks_drop(struct gntmarks_frame *f, uint32_t slot, uint32_t marks);
/* Those that somebody holds. */
uint32_t gntmarks_held(const struct gntmarks_frame *f, uint32_t slot);

#endif
