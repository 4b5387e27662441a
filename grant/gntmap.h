/* SPDX-License-Identifier: MIT */
/* grant/gntmap.h: the mapping side of another domain's grant table: what Xen's grant-table operations do, here in the
 * backend process.
 *
 * The rules are Xen's. A first map takes one 32-bit snapshot of {flags, domid}, checks type, grantee and access, and
 * sets the reading (and writing) bit by cmpxchg against that snapshot, at most GNTMAP_TRIES times; only then is the
 * frame number read, once, and the frame pinned in the frame table. What was found is kept in a private active entry,
 * and later maps of the same reference use the entry, never the table: rewriting the table after validation changes
 * nothing. The first writer among later maps asks the table for permission again, by the same rules; the frame stays
 * the one of the active entry. The last unmap of a writer clears the writing bit, the last unmap clears the reading
 * bit.
 *
 * Where several maps of a process share their marks (gntmap_share()), the last one clears them.
 *
 * A map may be kept beyond its request (gntkeep.h). Marks that a dead process of our domain left are cleared by
 * gntmap_take_over().
 *
 * What the granter can do to us: make its own maps fail. A map costs at most GNTMAP_TRIES exchanges and, for a grant
 * frame or an extent that is not known yet, one round trip to the hypervisor role; failed round trips are counted
 * (gntmap_misses()) for the device's owner to bound. An address that was handed out lies in an extent of the granter's
 * and stays valid until the unmap, whatever happens to the table, the extent or the granter.
 *
 * One gntmap serves one foreign domain for one thread (a reactor). The grant frames arrive through `ops`; a grant frame
 * that the hypervisor does not hand out to us is outside the table (GRANT_E_BAD_REF), a granted frame that it does not
 * is a GRANT_E_FRAME. Negative results are errors of the environment; positive ones are the peer's and fail its request
 * only. Map, unmap and copy of what is known allocate nothing, log nothing and take constant time (a pin behind another
 * extent than the last one: a binary search).
 */
#ifndef GRANT_GNTMAP_H
#define GRANT_GNTMAP_H

#include "base/err.h"
#include "grant/frametable.h"
#include "grant/gntmarks.h"

#define GRANT_PINS_MAX UINT16_MAX /* readers, and writers, of one reference: more than all requests of 32 rings */
#define GNTMAP_TRIES   5          /* as Xen: a guest that keeps changing the entry gets an error, not our time */

enum grant_error {
    GRANT_E_BAD_REF = 1, /* reserved, or outside the table */
    GRANT_E_TYPE,        /* not a permit-access entry */
    GRANT_E_DOMAIN,      /* granted to somebody else */
    GRANT_E_READONLY,    /* write asked of a read-only grant */
    GRANT_E_UNSTABLE,    /* changed GNTMAP_TRIES times under the check */
    GRANT_E_FRAME,       /* names a frame that is not shared with us */
    GRANT_E_PINS,        /* too many maps of one reference */
    GRANT_E_REVOKED,     /* its owner is gone or takes the memory back */
    GRANT_E_RANGE,       /* copy past the page */
    GRANT_E_FAULT,       /* no grant but a bus address, and the IOMMU refused it */
    GRANT_E_COUNT_
};

struct gntmap;

struct gntmap_frame {
    void *page; /* mapped writable */
    uint32_t instance;
    uint64_t left; /* a bit for each index: the granter's frames for us that may show marks of a process of our domain
                    * that died, and that no other process of it holds: see gntmap_take_over() */
};

/* Neither may call back into the map; gntmap_instance_gone() comes between its operations, never within one. */
struct gntmap_ops {
    /* Grant-table frame `index` of `domid`, valid until grant_frame_put. -ENOENT, -EACCES: no such frame for us. */
    int (*grant_frame_get)(void *ctx, uint16_t domid, uint32_t index, struct gntmap_frame *out);
    void (*grant_frame_put)(void *ctx, uint16_t domid, uint32_t index, void *page);
};

/* `self` is the mapping domain, `frames` the frame table of the granting one. `ops`, `ctx` and `frames` are borrowed
 * until gntmap_free(). 0 or -ENOMEM. */
int gntmap_new(const struct gntmap_ops *ops, void *ctx, uint16_t self, uint16_t granter, struct frametable *frames,
               struct gntmap **out);
/* Before anything is mapped, or again the same: other maps of this process set marks in the same tables (gntmarks.h).
 * Borrowed until gntmap_free(). */
void gntmap_share(struct gntmap *m, struct gntmarks *marks);
void gntmap_free(struct gntmap *m); /* asserts that nothing is mapped; gives the grant frames back */

struct gntmap_page {
    uint32_t gref;
    bool write;
    unsigned char *address; /* of the 4 KiB page; valid until the unmap */
    struct frame_extent *extent;
};

struct gntkeep; /* gntkeep.h: keeps what is mapped for requests to come; NULL: nothing does */

/* Maps and pins: 0, GRANT_E_*, or -errno. */
int gntmap_map_keeping(struct gntmap *m, struct gntkeep *keep, uint32_t gref, bool write, struct gntmap_page *out);
static inline int gntmap_map(struct gntmap *m, uint32_t gref, bool write, struct gntmap_page *out)
{
    return gntmap_map_keeping(m, NULL, gref, write, out);
}
/* As gntmap_map() of a reference that no request may name, for who was not told it by the peer. */
int gntmap_map_reserved(struct gntmap *m, uint32_t gref, bool write, struct gntmap_page *out);
void gntmap_unmap(struct gntmap *m, const struct gntmap_page *page);
/* For who kept the reference of a map and nothing else. */
void gntmap_unmap_gref(struct gntmap *m, uint32_t gref, bool write);
/* All or nothing: on failure none stays mapped and *failed (may be NULL) is the index that failed. */
int gntmap_map_many(struct gntmap *m, const uint32_t *grefs, unsigned count, bool write, struct gntmap_page *out,
                    unsigned *failed);
/* map, memcpy, unmap; offset + length within the page; a zero length is ignored entirely. */
int gntmap_copy_keeping(struct gntmap *m, struct gntkeep *keep, uint32_t gref, uint32_t offset_bytes, void *local,
                        uint32_t length_bytes, bool to_guest);
static inline int gntmap_copy(struct gntmap *m, uint32_t gref, uint32_t offset_bytes, void *local,
                              uint32_t length_bytes, bool to_guest)
{
    return gntmap_copy_keeping(m, NULL, gref, offset_bytes, local, length_bytes, to_guest);
}

/* Clears what dead processes of our domain left marked, in all frames of the granter of which those that were fetched
 * told: their grants can be ended again. To be called when no I/O of theirs can be under way any more. Costs a round
 * trip and a walk for each such frame, and nothing where there is none. */
void gntmap_take_over(struct gntmap *m);

/* The granter's process `instance` is gone. Its grant frames and extents without pins are given back at once; what is
 * mapped stays valid, and its page of the grant table too, until the unmap. New maps of either give GRANT_E_REVOKED
 * until then; afterwards a later instance may bring a new frame of the same index. Harmless when repeated. */
void gntmap_instance_gone(struct gntmap *m, uint32_t instance);

uint32_t gntmap_mapped(const struct gntmap *m); /* maps in force, keeps' included; counts them: for tests and asserts */
uint64_t gntmap_misses(const struct gntmap *m); /* failed lookups since the start */
const char *grant_error_name(int code);         /* "readonly"; never NULL */
const char *grant_error_text(int code);

#endif
