/* SPDX-License-Identifier: MIT */
/* hypervisor/extent.h: memory that one domain shares with one other: extents of data, and grant-table frames, which
 * are the same thing with one page, numbered apart.
 *
 * An extent is a sealed memfd. It belongs to an instance of its owner and names one grantee domain; only instances of
 * that one get its descriptor, and each that has it holds it. Given back while held, it stays in its owner's account,
 * invisible to new mappings, until the last hold ends.
 *
 * Seals: shrinking and growing always, so no access of a grantee can fault. A read-write one gets F_SEAL_SEAL too, so
 * nobody adds to them. A read-only one gets HV_SEALS_READONLY (proto.h) from its owner, who has mapped it before,
 * and no grantee gets it until extent_seal() has seen them: a descriptor opened read-only would not do, since it can be
 * reopened for writing through /proc.
 *
 * What left is never sealed, truncated or written here again: each of these takes the inode's lock, and an owner that
 * writes into the memfd from a page whose fault it never resolves holds that lock for ever. Reading the seals takes
 * none.
 *
 * Every descriptor that leaves is opened anew: no open file description is shared, and the server's own one, open for
 * writing, keeps a peer from taking a lease that would make the server's next open wait.
 */
#ifndef HYPERVISOR_EXTENT_H
#define HYPERVISOR_EXTENT_H

#include "hypervisor/instance.h"

#define EXTENT_FRAMES_MAX 1048576u /* 4 GiB: of one extent, for domain 0 too */

enum extent_kind { EXTENT_DATA, EXTENT_GRANT_FRAME };

struct extent {
    enum extent_kind kind;
    uint32_t id, base_gfn, frame_count; /* a grant frame: id is its index, base_gfn 0 */
    struct domain *domain;
    struct instance *instance; /* NULL: given back */
    uint32_t instance_number;
    uint16_t grantee;
    bool readonly, shared; /* shared: sealed, may be handed out */
    bool left;             /* a grant frame: somebody who held it died and may have left marks in it */
    int fd;
    struct list domain_link, instance_link;
    struct list holds;
};

/* Each returns 0 or -errno; *fd is a new descriptor for the caller to send. */
int extent_alloc(struct instance *i, enum extent_kind kind, uint16_t grantee, bool readonly, uint32_t frame_count,
                 struct extent **out, int *fd, uint32_t *limit);
int extent_seal(struct instance *i, uint32_t id);
int extent_free(struct instance *i, uint32_t id);
/* `key`: a gfn, or the index of a grant frame. */
int extent_map(struct instance *i, enum extent_kind kind, uint16_t owner, uint32_t key, struct extent **out, int *fd);
int extent_put(struct instance *i, enum extent_kind kind, uint16_t owner, uint32_t id);
/* hv_extent's `left` for an instance that was just handed the grant frame x, which is the first to hear of x's. */
uint64_t extent_left_take(const struct instance *i, struct extent *x);
void extent_describe(const struct extent *x, struct hv_extent *out);

/* An instance ends. First all who hold its extents are told, then it puts and gives back all. */
void extent_tell_holders(struct instance *i, void (*tell)(struct instance *holder, struct instance *gone));
void extent_release_all(struct instance *i);
/* A domain ends: nobody's extent names it any more. */
void extent_forget_grantee(struct hypervisor *h, uint16_t domid);
uint32_t extent_held_count(const struct domain *d); /* extents of data that somebody holds */

/* A descriptor of the same file with an open file description of its own. */
int extent_fd_reopen(int fd, int flags);

#endif
