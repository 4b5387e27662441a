/* SPDX-License-Identifier: MIT */
/* grant/frametable.h: the frames of other domains that this process may reach, who owns each, and how often each is
 * pinned.
 *
 * The unit that moves between processes is an extent: `frame_count` frames from `base_gfn` of one domain, backed by one
 * sealed memfd, mapped here once and whole. A pin says "somebody here uses this frame": while any frame of an extent is
 * pinned the extent is not given back, whatever its owner asked for; frametable_revoke() marks it and the last unpin
 * releases it through `put`. So revocation, reuse and reallocation wait for DMA under way.
 *
 * All fields are private memory. Frame numbers (gfn) come from guests and are only ever searched for, never used as an
 * index. One thread a table. `dma_index` is the DMA strategy's note about the extent (its registered-buffer number),
 * -1: none.
 */
#ifndef GRANT_FRAMETABLE_H
#define GRANT_FRAMETABLE_H

#include "base/err.h"

struct frame_extent {
    uint32_t id;       /* the hypervisor's name for it */
    uint32_t instance; /* which process of the owner it belongs to */
    uint16_t owner;    /* domid */
    bool readonly;     /* mapped without PROT_WRITE: the kernel refuses more */
    bool revoked;      /* the owner wants it back */
    int32_t dma_index;
    uint32_t base_gfn, frame_count;
    uint32_t pinned; /* sum of pins[] */
    uint32_t *pins;  /* by frame */
    unsigned char *address;
};

struct frametable;

struct frametable_ops {
    /* The extent of `domid` that holds `gfn`: fills *out (all but pins, pinned, dma_index). 0; -ENOENT, -EACCES: not
     * ours to map. */
    int (*extent_get)(void *ctx, uint16_t domid, uint32_t gfn, struct frame_extent *out);
    /* Unmaps and gives back; called once an extent, unpinned. */
    void (*extent_put)(void *ctx, const struct frame_extent *extent);
};

int frametable_new(const struct frametable_ops *ops, void *ctx, uint16_t owner, struct frametable **out);
void frametable_free(struct frametable *t); /* asserts that no pin is left; gives every extent back */

/* Told before an extent goes, so that a strategy can take back its registration; one listener. */
typedef void frametable_release_fn(void *ctx, struct frame_extent *extent);
void frametable_on_release(struct frametable *t, frametable_release_fn *fn, void *ctx);

/* Pins the frame: *extent and *address (of its first byte). -ENOENT, -EACCES, -EROFS, -EOVERFLOW, or what extent_get
 * said. */
int frametable_pin(struct frametable *t, uint32_t gfn, bool write, struct frame_extent **extent,
                   unsigned char **address);
void frametable_unpin(struct frametable *t, struct frame_extent *extent, uint32_t gfn);
/* Marks the extents with that id (or, where id is 0, of that instance) and releases what is not pinned. */
void frametable_revoke(struct frametable *t, uint32_t extent_id, uint32_t instance);
uint32_t frametable_pinned(const struct frametable *t);
uint32_t frametable_extents(const struct frametable *t);

#endif
