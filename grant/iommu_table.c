/* SPDX-License-Identifier: MIT */
#include "grant/iommu_table.h"

#include <string.h>

#define SPARE_MAX \
    4u /* as many as a map in an empty window takes, so that one page mapped and unmapped allocates none */

static struct iommu_table *table_new(void)
{
    struct iommu_table *n = aligned_alloc(_Alignof(struct iommu_table), sizeof(*n));
    if (n)
        memset(n, 0, sizeof(*n));
    return n;
}

static void trim(struct iommu_tree *t, uint32_t keep)
{
    while (t->spare_count > keep) {
        struct iommu_table *n = t->spare;
        t->spare = n->next;
        t->spare_count--;
        free(n);
    }
}

int tree_init(struct iommu_tree *t, unsigned bus_bits)
{
    unsigned page_bits = bus_bits - IOMMU_PAGE_SHIFT;
    *t = (struct iommu_tree){.levels = (page_bits + TABLE_SHIFT - 1) / TABLE_SHIFT, .tables = 1, .root = table_new()};
    return t->root ? 0 : -ENOMEM;
}

void tree_deinit(struct iommu_tree *t)
{
    assert(!t->root || (t->tables == 1 && !t->root->used));
    trim(t, 0);
    free(t->root);
}

int tree_reserve(struct iommu_tree *t, uint32_t tables)
{
    while (t->spare_count < tables) {
        struct iommu_table *n = table_new();
        if (!n) {
            trim(t, SPARE_MAX);
            return -ENOMEM;
        }
        n->next = t->spare;
        t->spare = n;
        t->spare_count++;
    }
    return 0;
}

static struct iommu_table *spare_take(struct iommu_tree *t)
{
    struct iommu_table *n = t->spare;
    assert(n && !n->used);
    t->spare = n->next;
    t->spare_count--;
    t->tables++;
    return n;
}

void tree_give(struct iommu_tree *t, struct iommu_table *gone)
{
    for (struct iommu_table *next; gone; gone = next) {
        next = gone->next;
        gone->next = t->spare;
        t->spare = gone;
        t->spare_count++;
        t->tables--;
    }
    trim(t, SPARE_MAX);
}

static _Atomic uint64_t *entry_of(struct iommu_table *at, unsigned level, uint64_t page)
{
    return &at->entry[page >> TABLE_SHIFT * level & (TABLE_ENTRIES - 1)];
}

static uint64_t entry_read(const _Atomic uint64_t *e)
{
    return atomic_load_explicit(e, memory_order_relaxed); /* the lock is held: nobody writes it */
}

static void entry_write(_Atomic uint64_t *e, uint64_t value)
{
    atomic_store_explicit(e, value, memory_order_release);
}

static struct iommu_table *table_of(uint64_t entry)
{
    return entry & ENTRY_TABLE ? (struct iommu_table *)(uintptr_t)(entry & ~ENTRY_FLAGS) : NULL;
}

/* The table of that level that has the page; NULL: there is none, or a large entry stands there. */
static struct iommu_table *table_at(const struct iommu_tree *t, unsigned level, uint64_t page)
{
    struct iommu_table *at = t->root;
    for (unsigned l = t->levels - 1; at && l > level; l--)
        at = table_of(entry_read(entry_of(at, l, page)));
    return at;
}

static struct iommu_table *table_make(struct iommu_tree *t, unsigned level, uint64_t page)
{
    struct iommu_table *at = t->root;
    for (unsigned l = t->levels - 1; l > level; l--) {
        _Atomic uint64_t *e = entry_of(at, l, page);
        struct iommu_table *below = table_of(entry_read(e));
        if (!below) {
            below = spare_take(t);
            entry_write(e, (uintptr_t)below | ENTRY_TABLE);
            at->used++;
        }
        at = below;
    }
    return at;
}

/* Can the next pages be one large entry? */
static bool large_fits(const struct iommu_tree *t, uint64_t page, const uint32_t *frames, uint32_t count)
{
    if (t->levels < 2 || count < IOMMU_LARGE_PAGES || page % IOMMU_LARGE_PAGES || frames[0] % IOMMU_LARGE_PAGES)
        return false;
    for (uint32_t i = 1; i < IOMMU_LARGE_PAGES; i++)
        if (frames[i] != frames[0] + i)
            return false;
    return true;
}

/* How many of the pages from there lie in one table of level 0. */
static uint32_t chunk(uint64_t page, uint32_t count)
{
    return (uint32_t)MIN(count, TABLE_ENTRIES - page % TABLE_ENTRIES);
}

uint32_t tree_charge(const struct iommu_tree *t, uint64_t first, const uint32_t *frames, uint32_t count,
                     uint32_t *tables)
{
    uint32_t large = 0, missing = 0, n;
    for (uint32_t i = 0; i < count; i += n) {
        n = chunk(first + i, count - i);
        if (large_fits(t, first + i, frames + i, count - i))
            large++;
        else if (!table_at(t, 0, first + i))
            missing++;
    }
    for (unsigned level = 1; level < t->levels; level++) {
        unsigned shift = TABLE_SHIFT * (level + 1); /* pages of one table */
        for (uint64_t span = first >> shift; span <= (first + count - 1) >> shift; span++)
            missing += !table_at(t, level, span << shift);
    }
    *tables = missing;
    return missing + large;
}

void tree_map(struct iommu_tree *t, uint64_t first, const uint32_t *frames, uint32_t count, unsigned access)
{
    for (uint32_t i = 0, n; i < count; i += n) {
        n = chunk(first + i, count - i);
        if (large_fits(t, first + i, frames + i, count - i)) {
            struct iommu_table *at = table_make(t, 1, first + i);
            entry_write(entry_of(at, 1, first + i), (uint64_t)frames[i] << ENTRY_FRAME_SHIFT | ENTRY_LARGE | access);
            at->used++;
            t->large++;
            continue;
        }
        struct iommu_table *at = table_make(t, 0, first + i);
        for (uint32_t k = i; k < i + n; k++)
            entry_write(entry_of(at, 0, first + k), (uint64_t)frames[k] << ENTRY_FRAME_SHIFT | access);
        at->used += n;
    }
}

bool tree_mapped(const struct iommu_tree *t, uint64_t first, uint32_t count)
{
    for (uint32_t i = 0, n; i < count; i += n) {
        n = chunk(first + i, count - i);
        struct iommu_table *at = table_at(t, 0, first + i);
        if (!at && !tree_walk(t, first + i)) /* else: in a large entry, with all of the chunk */
            return false;
        for (uint32_t k = i; at && k < i + n; k++)
            if (!entry_read(entry_of(at, 0, first + k)))
                return false;
    }
    return true;
}

/* The large entry that has the page; NULL: none. */
static _Atomic uint64_t *large_at(const struct iommu_tree *t, uint64_t page)
{
    struct iommu_table *at = t->levels < 2 ? NULL : table_at(t, 1, page);
    _Atomic uint64_t *e = at ? entry_of(at, 1, page) : NULL;
    return e && entry_read(e) & ENTRY_LARGE ? e : NULL;
}

bool tree_splits(const struct iommu_tree *t, uint64_t page)
{
    return page % IOMMU_LARGE_PAGES && large_at(t, page);
}

void tree_split(struct iommu_tree *t, uint64_t page)
{
    if (!tree_splits(t, page))
        return;
    _Atomic uint64_t *e = large_at(t, page);
    uint64_t small = entry_read(e) & ~(uint64_t)ENTRY_LARGE;
    struct iommu_table *n = spare_take(t);
    for (uint64_t i = 0; i < TABLE_ENTRIES; i++)
        entry_write(&n->entry[i], small + (i << ENTRY_FRAME_SHIFT));
    n->used = TABLE_ENTRIES;
    entry_write(e, (uintptr_t)n | ENTRY_TABLE); /* a walker finds the same frames either way */
    t->large--;
}

/* Takes `n` entries of the table away, which are 0 now, and the table too where none is left, and so on upwards. */
static void shrink(struct iommu_tree *t, struct iommu_table *at, unsigned level, uint64_t page, uint32_t n,
                   struct iommu_table **gone)
{
    for (at->used -= n; !at->used && level < t->levels - 1; at->used--) {
        at->next = *gone;
        *gone = at;
        at = table_at(t, ++level, page);
        entry_write(entry_of(at, level, page), 0);
    }
}

void tree_clear(struct iommu_tree *t, uint64_t first, uint32_t count, struct iommu_table **gone)
{
    for (uint32_t i = 0, n; i < count; i += n) {
        n = chunk(first + i, count - i);
        _Atomic uint64_t *large = large_at(t, first + i);
        if (large) {
            assert(n == IOMMU_LARGE_PAGES);
            entry_write(large, 0);
            t->large--;
            shrink(t, table_at(t, 1, first + i), 1, first + i, 1, gone);
            continue;
        }
        struct iommu_table *at = table_at(t, 0, first + i);
        for (uint32_t k = i; k < i + n; k++)
            entry_write(entry_of(at, 0, first + k), 0);
        shrink(t, at, 0, first + i, n, gone);
    }
}
