/* SPDX-License-Identifier: MIT */
/* grant/gnttab.h: the guest's side of its grant table: which of its frames another domain may map.
 *
 * Layout: Xen's version 1, in memory that the guest and one grantee share. A grant-table frame belongs to one grantee
 * (the hypervisor role hands it to nobody else), so each frame has a free list of its own and a new grantee gets a new
 * frame through `frame_new`.
 *
 * Publishing writes the frame, then, released, the word of flags and domid. Ending is one cmpxchg of that word to 0,
 * refused while the grantee has the reading or writing bit set: never query and then end (XSA-396). A grant whose end
 * was refused is still in force: its page must not be given to anything else until a later end succeeds.
 *
 * The grantee may write the shared entries: it can make our ends fail (that costs our own page only; after a few tries
 * against an entry that keeps changing an end gives up as busy), never more; the free lists and all bookkeeping are
 * private. One thread a table.
 */
#ifndef GRANT_GNTTAB_H
#define GRANT_GNTTAB_H

#include "base/err.h"
#include "grant/xen_grant.h"

#define GNTTAB_FRAMES_MAX 64 /* 32,768 grants: more than 64 devices with every slot in flight */

struct gnttab;

struct gnttab_ops {
    /* A new zeroed grant-table frame for `grantee`: its index in the domain's table and its mapping, valid until the
     * table is freed (the platform owns both). 0 or -errno. */
    int (*frame_new)(void *ctx, uint16_t grantee, uint32_t *index, void **page, struct err *e);
};

/* `ops` and `ctx` are borrowed until gnttab_free(). 0 or -ENOMEM. */
int gnttab_new(const struct gnttab_ops *ops, void *ctx, struct gnttab **out);
/* Does not touch the shared frames: what is still granted stays so until the platform takes the frames away. */
void gnttab_free(struct gnttab *t);

/* Grants frame `gfn` to `grantee`: 0 and *gref; -ENOSPC where the table is full, -ENOMEM, or what frame_new said. A
 * reference that was ended may be given again at once. */
int gnttab_grant(struct gnttab *t, uint16_t grantee, uint32_t gfn, bool readonly, uint32_t *gref, struct err *e);
/* The same under a reference that all the world knows: GNTTAB_RESERVED_XENSTORE, GNTTAB_RESERVED_CONSOLE. They lie in
 * the table's first frame, which has one grantee and is one process's: -EBUSY where it is another's of either, or where
 * the reference is granted. */
int gnttab_grant_reserved(struct gnttab *t, uint32_t gref, uint16_t grantee, uint32_t gfn, bool readonly,
                          struct err *e);
/* Ends the grant: 0 (the reference is free again), -EBUSY (still mapped: defer and retry). Asserts that it was ours. */
int gnttab_end(struct gnttab *t, uint32_t gref);
/* Grants in force, deferred ends included. */
uint32_t gnttab_in_use(const struct gnttab *t);

#endif
