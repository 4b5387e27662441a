/* SPDX-License-Identifier: MIT */
/* grant/iommu_table.h: the radix tree of an address space: bus page → frame and access, in tables of 512 entries.
 *
 * Level 0 has entries of 4 KiB; level 1 pointers to those tables and entries of 2 MiB; the root's level follows from
 * the window. An entry is one word, written under the space's lock and read by tree_walk() without it: a walker sees
 * the old or the new. A table whose last entry goes is unlinked at once and handed to the caller, who gives it back
 * when no walker can be in it any more; it is all zeros, so it serves as it is when it is taken again.
 *
 * A large entry is split when a part of it is unmapped. The table for that is charged from the beginning (tree_charge),
 * so a domain's limit never stands in the way of a split.
 */
#ifndef GRANT_IOMMU_TABLE_H
#define GRANT_IOMMU_TABLE_H

#include <stdatomic.h>

#include "grant/iommu.h"

#define TABLE_SHIFT   9
#define TABLE_ENTRIES 512u

/* An entry: access (IOMMU_READ | IOMMU_WRITE) and frame << 12; or a table's address. 0: none. */
#define ENTRY_ACCESS      (uint64_t)(IOMMU_READ | IOMMU_WRITE)
#define ENTRY_TABLE       4u
#define ENTRY_LARGE       8u
#define ENTRY_FLAGS       (uint64_t)(ENTRY_ACCESS | ENTRY_TABLE | ENTRY_LARGE)
#define ENTRY_FRAME_SHIFT 12

struct iommu_table {
    _Alignas(64) _Atomic uint64_t entry[TABLE_ENTRIES];
    uint32_t used; /* entries that are not 0 */
    struct iommu_table *next;
};

struct iommu_tree {
    struct iommu_table *root;
    unsigned levels;
    uint32_t tables; /* the root and those that were unlinked and not given back included */
    uint32_t large;
    uint32_t spare_count;
    struct iommu_table *spare;
};

int tree_init(struct iommu_tree *t, unsigned bus_bits); /* 0 or -ENOMEM */
void tree_deinit(struct iommu_tree *t);                 /* nothing is mapped */

/* The entry of 4 KiB that translates the page, in the window: or 0. */
static inline uint64_t tree_walk(const struct iommu_tree *t, uint64_t page)
{
    const struct iommu_table *at = t->root;
    for (unsigned level = t->levels - 1;; level--) {
        uint64_t e =
            atomic_load_explicit(&at->entry[page >> TABLE_SHIFT * level & (TABLE_ENTRIES - 1)], memory_order_acquire);
        if (!level || !e)
            return e;
        if (e & ENTRY_LARGE)
            return (e & ~(uint64_t)ENTRY_LARGE) + ((page & (IOMMU_LARGE_PAGES - 1)) << ENTRY_FRAME_SHIFT);
        at = (const struct iommu_table *)(uintptr_t)(e & ~ENTRY_FLAGS);
    }
}

/* What a map of pages that are free would add: tables, and one for each large entry; *tables: of these, needed now. */
uint32_t tree_charge(const struct iommu_tree *t, uint64_t first, const uint32_t *frames, uint32_t count,
                     uint32_t *tables);
/* Has so many spare tables at hand, for what follows: 0 or -ENOMEM. */
int tree_reserve(struct iommu_tree *t, uint32_t tables);
void tree_map(struct iommu_tree *t, uint64_t first, const uint32_t *frames, uint32_t count, unsigned access);
bool tree_mapped(const struct iommu_tree *t, uint64_t first, uint32_t count); /* all of them */
/* Makes the page begin an entry; takes a spare table where a large one is split, which it tells. */
bool tree_splits(const struct iommu_tree *t, uint64_t page);
void tree_split(struct iommu_tree *t, uint64_t page);
/* Of whole entries. The tables that became empty are put before *gone. */
void tree_clear(struct iommu_tree *t, uint64_t first, uint32_t count, struct iommu_table **gone);
void tree_give(struct iommu_tree *t, struct iommu_table *gone); /* no walker is in them */

#endif
