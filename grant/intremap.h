/* SPDX-License-Identifier: MIT */
/* grant/intremap.h: interrupt remapping: which event channel a device may raise.
 *
 * A unit has one table. A device that is given to a domain gets a block of entries in a row, its `handle` the number of
 * the first, one for each of its vectors. An entry says which (domain, port, vector) a raise is for, and is made and
 * taken away by the privileged side alone. A device raises (handle, vector), both of its own choice, as it writes
 * whatever address and data it likes; its source, which device it is and whose, is not: it is set by who gave it away.
 * So a raise is judged by the entry that it hits: inside the table, valid, and of this very source; else nothing is
 * raised and the unit's log has an IOMMU_F_INTERRUPT. An entry's target is of the domain that has the device, else it
 * is refused where it is made: no device can raise a port of another domain, whatever it writes.
 *
 * A raise takes no lock and waits for nobody: it counts itself into the entry, looks once more whether that is valid,
 * does what it does to the target, and counts itself out. A revoke takes the valid bit away and waits until those that
 * were counted in are out: after it returned nothing reaches the old target, which may be freed. Whoever raises must
 * not wait in between (to notify is a write(2) that never blocks), and a revoke is not for a thread that is in a raise.
 *
 * What a domain can make us hold is bounded: INTREMAP_DEVICE_MAX vectors a device of it, the table's size for all.
 *
 * What is to stand on it: a virtual disk under the `iommu` strategy is a device; each of its queues has a block of one
 * vector, and its backend raises for it (backend/blk/blktell.h). With SR-IOV the physical function and each virtual one
 * is a device with a number of its own (its source id), and a block for as many vectors as its interrupt table has; the
 * driver of the physical function assigns a virtual one's vectors to ports of the domain that has it, and gives the
 * block back when it takes it away. A function that writes another's handle is refused by the source.
 */
#ifndef GRANT_INTREMAP_H
#define GRANT_INTREMAP_H

#include "grant/iommu.h"

#define INTREMAP_ENTRIES_MAX 65536u
#define INTREMAP_DEVICE_MAX  2048u /* as an interrupt table of PCI may have */

struct intremap;

/* Who raises: not the device's to say. */
struct intremap_source {
    uint32_t device; /* as in struct iommu_fault */
    uint16_t domid;  /* that has it */
};

struct intremap_target {
    uint16_t domid;
    uint32_t port, vector;
    void *owner; /* of whoever delivers: alive until the revoke has returned */
};

/* `unit` has the log, and outlives the table. 0, -EINVAL: no number of entries up to INTREMAP_ENTRIES_MAX, or -ENOMEM.
 */
int intremap_new(struct iommu *unit, uint32_t entries, struct intremap **out);
void intremap_free(struct intremap *t); /* asserts that all blocks were given back; NULL is fine */

/* Gives the device a block; a device may have several. -EINVAL: no vectors, -EDQUOT: more than INTREMAP_DEVICE_MAX, or
 * than fit any table, -ENOSPC: no room. */
int intremap_alloc(struct intremap *t, const struct intremap_source *source, uint32_t vectors, uint32_t *handle);
/* Revokes what is assigned in the block, and takes it back. */
void intremap_release(struct intremap *t, uint32_t handle);

/* Vector of the block. -ERANGE: it has no such vector, -EEXIST: it is assigned already, -EPERM: a target of another
 * domain than the device's. */
int intremap_assign(struct intremap *t, uint32_t handle, uint32_t vector, const struct intremap_target *target);
/* When it returns nobody is, or will be, at the target. One that is not assigned is fine. */
void intremap_revoke(struct intremap *t, uint32_t handle, uint32_t vector);

/* A raise, from any thread: its target, to be told before intremap_end(); or NULL: a fault, recorded. */
const struct intremap_target *intremap_begin(struct intremap *t, const struct intremap_source *source, uint32_t handle,
                                             uint32_t vector);
void intremap_end(struct intremap *t, const struct intremap_target *target);

struct intremap_stats {
    uint32_t blocks, entries; /* given out now: blocks, and entries in them */
    uint64_t faults;
};
void intremap_stats(struct intremap *t, struct intremap_stats *out);

#endif
