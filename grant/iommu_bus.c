/* SPDX-License-Identifier: MIT */
#include "grant/iommu_bus.h"

#define BUS_UNUSED_MAX 64u /* unmeasured: as many maps as a queue has requests at once, or so */

struct bus_range {
    struct bus_range *left, *right;
    uint64_t first, end;
    uint64_t low, high; /* of the subtree: its first page, and the one after its last */
    uint64_t gap;       /* the widest between two neighbours of the subtree */
    uint32_t priority;
};

void bus_init(struct iommu_bus *b, uint64_t end)
{
    *b = (struct iommu_bus){.end = end, .random = (uintptr_t)b | 1};
}

static void subtree_free(struct bus_range *n)
{
    if (!n)
        return;
    subtree_free(n->left);
    subtree_free(n->right);
    free(n);
}

void bus_deinit(struct iommu_bus *b)
{
    subtree_free(b->root);
    for (struct bus_range *n = b->unused, *next; n; n = next) {
        next = n->right;
        free(n);
    }
}

static struct bus_range *range_new(struct iommu_bus *b, uint64_t first, uint64_t end)
{
    struct bus_range *n = b->unused;
    if (n) {
        b->unused = n->right;
        b->unused_count--;
    } else if (!(n = malloc(sizeof(*n)))) {
        return NULL;
    }
    b->random = b->random * 6364136223846793005ull + 1442695040888963407ull;
    *n = (struct bus_range){.first = first, .end = end, .low = first, .high = end, .priority = b->random >> 32};
    return n;
}

static void range_free(struct iommu_bus *b, struct bus_range *n)
{
    if (b->unused_count == BUS_UNUSED_MAX) {
        free(n);
        return;
    }
    n->right = b->unused;
    b->unused = n;
    b->unused_count++;
}

static void subtree_give(struct iommu_bus *b, struct bus_range *n)
{
    if (!n)
        return;
    subtree_give(b, n->left);
    subtree_give(b, n->right);
    range_free(b, n);
}

/* Its children have changed. */
static struct bus_range *renew(struct bus_range *n)
{
    const struct bus_range *l = n->left, *r = n->right;
    n->low = l ? l->low : n->first;
    n->high = r ? r->high : n->end;
    n->gap = 0;
    if (l)
        n->gap = MAX(l->gap, n->first - l->high);
    if (r)
        n->gap = MAX(n->gap, MAX(r->gap, r->low - n->end));
    return n;
}

/* Those that begin before `at`, and the others. */
static void split(struct bus_range *n, uint64_t at, struct bus_range **before, struct bus_range **rest)
{
    if (!n) {
        *before = *rest = NULL;
    } else if (n->first < at) {
        split(n->right, at, &n->right, rest);
        *before = renew(n);
    } else {
        split(n->left, at, before, &n->left);
        *rest = renew(n);
    }
}

static struct bus_range *merge(struct bus_range *a, struct bus_range *b)
{
    if (!a || !b)
        return a ? a : b;
    if (a->priority > b->priority) {
        a->right = merge(a->right, b);
        return renew(a);
    }
    b->left = merge(a, b->left);
    return renew(b);
}

static uint64_t round_up(uint64_t page, uint64_t align)
{
    return (page + align - 1) & ~(align - 1);
}

/* Is there room for `count` aligned pages in the gap [first, end)? */
static bool gap_serves(uint64_t first, uint64_t end, uint64_t count, uint64_t align)
{
    uint64_t at = round_up(first, align);
    return at <= end && end - at >= count;
}

uint64_t bus_find(const struct iommu_bus *b, uint64_t count, uint64_t align)
{
    const struct bus_range *n = b->root;
    uint64_t first = 1;
    if (n && !gap_serves(first, n->low, count, align)) {
        /* A gap of this size serves wherever it begins; narrower ones that happen to are passed by. */
        uint64_t gap = count + align - 1;
        first = n->high;
        while (n->gap >= gap) {
            if (n->left && n->left->gap >= gap) {
                n = n->left;
            } else if (n->left && n->first - n->left->high >= gap) {
                first = n->left->high;
                break;
            } else if (n->right->low - n->end >= gap) {
                first = n->end;
                break;
            } else {
                n = n->right;
            }
        }
    }
    return gap_serves(first, b->end, count, align) ? round_up(first, align) : 0;
}

bool bus_free(const struct iommu_bus *b, uint64_t first, uint64_t count)
{
    const struct bus_range *n = b->root;
    while (n) {
        if (n->end <= first)
            n = n->right;
        else if (n->first >= first + count)
            n = n->left;
        else
            return false;
    }
    return true;
}

static void insert(struct iommu_bus *b, struct bus_range *n)
{
    struct bus_range *before, *rest;
    split(b->root, n->first, &before, &rest);
    b->root = merge(merge(before, n), rest);
}

int bus_take(struct iommu_bus *b, uint64_t first, uint64_t count)
{
    struct bus_range *n = range_new(b, first, first + count);
    if (!n)
        return -ENOMEM;
    insert(b, n);
    return 0;
}

/* Makes `at` a boundary, where it lies within a range. */
static int cut_at(struct iommu_bus *b, uint64_t at)
{
    const struct bus_range *n = b->root;
    while (n && !(n->first < at && at < n->end))
        n = n->end <= at ? n->right : n->left;
    if (!n)
        return 0;
    struct bus_range *tail = range_new(b, at, n->end), *before, *rest, *whole;
    if (!tail)
        return -ENOMEM;
    split(b->root, n->first, &before, &rest);
    split(rest, at, &whole, &rest); /* that range alone */
    assert(whole && !whole->left && !whole->right);
    whole->end = at;
    b->root = merge(merge(before, merge(renew(whole), tail)), rest);
    return 0;
}

int bus_cut(struct iommu_bus *b, uint64_t first, uint64_t count)
{
    int r = cut_at(b, first);
    return r ? r : cut_at(b, first + count);
}

void bus_give(struct iommu_bus *b, uint64_t first, uint64_t count)
{
    struct bus_range *before, *gone, *rest;
    split(b->root, first, &before, &rest);
    split(rest, first + count, &gone, &rest);
    assert(gone && gone->low == first && gone->high == first + count);
    b->root = merge(before, rest);
    subtree_give(b, gone);
}
