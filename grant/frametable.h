/* SPDX-License-Identifier: MIT */
/* grant/frametable.h: the frames of other domains that this process may reach, who owns each, and how often each is
 * pinned.
 *
 * The unit that moves between processes is an extent: `frame_count` frames from `base_gfn` of one domain, backed by one
 * sealed memfd, mapped here once and whole. A pin says "somebody here uses this frame": while any frame of an extent is
 * pinned the extent is not given back, whatever its owner asked for; frametable_revoke() marks it and the last unpin
 * releases it through `put`. So revocation, reuse and reallocation wait for DMA under way.
 *
 * All fields are private memory. Frame numbers (gfn) come from guests and are only ever searched for (a sorted array of
 * extents that do not overlap, and the one hit last), never used as an index. What the hypervisor role says about an
 * extent is checked before it enters: owner, range, no overlap. A revoked extent stays in the array until it goes, so
 * its frames cannot be mapped anew meanwhile, under the old owner process or a new one. One thread a table; no
 * allocation once an extent is known.
 *
 * `dma_index` is the DMA strategy's note about the extent, its number as a registered buffer. It belongs to the extent
 * and not to a device: devices of one domain share the table, and with it the one release listener.
 */
#ifndef GRANT_FRAMETABLE_H
#define GRANT_FRAMETABLE_H

#include "base/err.h"

#define FRAME_DMA_NONE    (-1) /* not asked yet, or it was not the time */
#define FRAME_DMA_REFUSED (-2) /* asked and refused: not asked again while the extent lives */

struct frame_extent {
    uint32_t id;       /* the hypervisor's name for it */
    uint32_t instance; /* which process of the owner it belongs to */
    uint16_t owner;    /* domid */
    bool readonly;     /* mapped without PROT_WRITE: the kernel refuses more */
    bool revoked;      /* the owner wants it back */
    int32_t dma_index; /* or FRAME_DMA_* */
    uint32_t base_gfn, frame_count;
    uint32_t pinned; /* sum of pins[] */
    uint32_t *pins;  /* by frame */
    unsigned char *address;
};

struct frametable;

/* Neither may call back into the table. */
struct frametable_ops {
    /* The extent of `domid` that holds `gfn`: fills *out (all but pins, pinned, dma_index). 0; -ENOENT, -EACCES: not
     * ours to map. */
    int (*extent_get)(void *ctx, uint16_t domid, uint32_t gfn, struct frame_extent *out);
    /* Unmaps and gives back; called once an extent, unpinned. */
    void (*extent_put)(void *ctx, const struct frame_extent *extent);
};

/* `ops` and `ctx` are borrowed until frametable_free(). 0 or -ENOMEM. */
int frametable_new(const struct frametable_ops *ops, void *ctx, uint16_t owner, struct frametable **out);
void frametable_free(struct frametable *t); /* asserts that no pin is left; gives every extent back */

/* Told before an extent goes, so that a strategy can take back its registration. One listener, counted: each device
 * that uses it sets it (the same fn and ctx, asserted) and takes it off again; with the last off it is told of every
 * extent as though it went, and forgotten. */
typedef void frametable_release_fn(void *ctx, struct frame_extent *extent);
void frametable_on_release(struct frametable *t, frametable_release_fn *fn, void *ctx);
void frametable_off_release(struct frametable *t, frametable_release_fn *fn, void *ctx);

/* Pins the frame: *extent and *address (of its first byte). -EROFS, -EOVERFLOW, -ESTALE (revoked and not gone yet),
 * -ENOMEM, -EPROTO (the hypervisor named an extent that cannot be), or what extent_get said: -ENOENT, -EACCES … */
int frametable_pin(struct frametable *t, uint32_t gfn, bool write, struct frame_extent **extent,
                   unsigned char **address);
void frametable_unpin(struct frametable *t, struct frame_extent *extent, uint32_t gfn);
/* Marks the extents with that id (or, where id is 0, of that instance) and releases what is not pinned. */
void frametable_revoke(struct frametable *t, uint32_t extent_id, uint32_t instance);
uint32_t frametable_pinned(const struct frametable *t);
uint32_t frametable_extents(const struct frametable *t);
/* The extents in order of base_gfn; `index` below frametable_extents(). */
const struct frame_extent *frametable_extent(const struct frametable *t, uint32_t index);

#endif
