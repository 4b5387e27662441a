/* SPDX-License-Identifier: MIT */
#include "base/membarrier.h"
#include "base/span.h"
#include "grant/iommu_inner.h"

#define BUS_BITS_MIN 21

int iommu_space_new(struct iommu *u, uint16_t domid, uint32_t device, unsigned bus_bits, enum iommu_flush_mode mode,
                    const struct iommu_limits *limits, struct iommu_space **out)
{
    if (bus_bits < BUS_BITS_MIN || bus_bits > IOMMU_BUS_BITS_MAX)
        return -EINVAL;
    struct iommu_space *s = aligned_alloc(_Alignof(struct iommu_space), sizeof(*s));
    if (!s)
        return -ENOMEM;
    *s = (struct iommu_space){.unit = u,
                              .domid = domid,
                              .device = device,
                              .deferred = mode == IOMMU_DEFERRED,
                              .pages_end = 1ull << (bus_bits - IOMMU_PAGE_SHIFT),
                              .limits = *limits};
    if (tree_init(&s->tree, bus_bits)) {
        free(s);
        return -ENOMEM;
    }
    bus_init(&s->bus, s->pages_end);
    list_init(&s->iotlbs);
    list_init(&s->gathered);
    list_init(&s->waiting);
    list_init(&s->lingering);
    pthread_mutex_init(&s->lock, NULL);
    atomic_fetch_add(&u->spaces, 1);
    s->id = atomic_fetch_add(&u->space_last, 1) + 1;
    *out = s;
    return 0;
}

void iommu_space_free(struct iommu_space *s)
{
    if (!s)
        return;
    assert(list_empty(&s->iotlbs) && list_empty(&s->gathered) && list_empty(&s->waiting) && list_empty(&s->lingering));
    assert(s->pages == 0);
    tree_deinit(&s->tree);
    bus_deinit(&s->bus);
    pthread_mutex_destroy(&s->lock);
    atomic_fetch_sub(&s->unit->spaces, 1);
    free(s);
}

uint32_t iommu_space_id(const struct iommu_space *s)
{
    return s->id;
}

static uint64_t find_room(const struct iommu_space *s, uint32_t count)
{
    uint64_t at = count < IOMMU_LARGE_PAGES ? 0 : bus_find(&s->bus, count, IOMMU_LARGE_PAGES);
    return at ? at : bus_find(&s->bus, count, 1);
}

/* The lock is held. */
static int map_locked(struct iommu_space *s, uint64_t *bus_page, const uint32_t *frames, uint32_t count,
                      unsigned access)
{
    if (!span_fits(s->pages, count, s->limits.pages_max))
        return -EDQUOT;
    uint64_t first = *bus_page;
    if (first == IOMMU_ANY) {
        if (!(first = find_room(s, count)))
            return -ENOSPC;
    } else if (!first || !span_fits(first, count, s->pages_end)) {
        return -ERANGE;
    } else if (!bus_free(&s->bus, first, count)) {
        return -EEXIST;
    }
    uint32_t tables, charge = tree_charge(&s->tree, first, frames, count, &tables);
    if (!span_fits((uint64_t)s->tree.tables + s->tree.large, charge, s->limits.tables_max))
        return -EDQUOT;
    if (tree_reserve(&s->tree, tables) || bus_take(&s->bus, first, count))
        return -ENOMEM;
    tree_map(&s->tree, first, frames, count, access);
    s->pages += count;
    s->stats.maps += count;
    *bus_page = first;
    return 0;
}

int iommu_map(struct iommu_space *s, uint64_t *bus_page, const uint32_t *frames, uint32_t count, unsigned access)
{
    assert(count && access && !(access & ~(unsigned)ENTRY_ACCESS));
    space_lock(s);
    int r = map_locked(s, bus_page, frames, count, access);
    space_unlock(s);
    return r;
}

/* The lock is held. */
static void addresses_free(struct iommu_space *s, const struct iommu_unmap *u)
{
    bus_give(&s->bus, u->bus_page, u->count);
    s->pages -= u->count;
}

void iommu_unmap_free(struct iommu_space *s, struct iommu_unmap *u)
{
    assert(u->keeps);
    space_lock(s);
    addresses_free(s, u);
    space_unlock(s);
}

static void finish(struct iommu_space *s, struct iommu_unmap *u, struct list *ended)
{
    tree_give(&s->tree, u->tables);
    if (!u->keeps)
        addresses_free(s, u);
    list_remove(&u->link);
    list_append(ended, &u->link);
}

void space_settle(struct iommu_space *s, struct list *ended)
{
    uint64_t answered = atomic_load_explicit(&s->sequence, memory_order_relaxed);
    struct iotlb *t;
    list_foreach (t, &s->iotlbs, link)
        answered = MIN(answered, MAX(t->seen, t->excused));
    s->answered = answered;
    struct iommu_unmap *u, *next;
    list_foreach_safe (u, next, &s->waiting, link) {
        if (u->sequence > answered)
            break;
        if (u->uses) {
            list_remove(&u->link);
            list_append(&s->lingering, &u->link);
        } else {
            finish(s, u, ended);
        }
    }
}

void space_unuse(struct iommu_space *s, struct iommu_unmap *u, struct list *ended)
{
    assert(u->uses);
    if (--u->uses == 0 && u->sequence <= s->answered)
        finish(s, u, ended);
}

void space_tell(struct list *ended)
{
    while (!list_empty(ended)) {
        struct iommu_unmap *u = list_entry(ended->next, struct iommu_unmap, link);
        list_remove(&u->link);
        u->done(u);
    }
}

/* Gives what was gathered its sequence, in force with the store. The lock is held. */
static uint64_t announce(struct iommu_space *s)
{
    uint64_t sequence = atomic_load_explicit(&s->sequence, memory_order_relaxed);
    struct iommu_unmap *u, *next;
    list_foreach_safe (u, next, &s->gathered, link) {
        u->sequence = ++sequence;
        s->recent[sequence % IOMMU_RECENT] = (struct iommu_recent){(uint32_t)u->bus_page, u->count};
        list_remove(&u->link);
        list_append(&s->waiting, &u->link);
    }
    s->gathered_count = 0;
    s->stats.flushes++;
    atomic_store(&s->sequence, sequence);
    return sequence;
}

/* Since the barrier came after the sequence: an IOTLB that uses nothing now sees it before it translates again. */
static void excuse_idle(struct iommu_space *s, uint64_t sequence)
{
    struct iotlb *t;
    list_foreach (t, &s->iotlbs, link) {
        if (atomic_load(&t->uses) == 0)
            t->excused = MAX(t->excused, sequence);
    }
}

static bool others(const struct iommu_space *s, const struct iotlb *own)
{
    return !list_empty(&s->iotlbs) && !(own && s->iotlbs.next == &own->link && s->iotlbs.prev == &own->link);
}

/* Begins the end of what was gathered. `own`: this thread's IOTLB, which it turns itself, or NULL. Called with the lock
 * held, returns without. */
static void invalidate_and_unlock(struct iommu_space *s, const struct iotlb *own)
{
    struct list ended;
    list_init(&ended);
    uint64_t sequence = announce(s);
    if (others(s, own)) {
        /* Without the lock: whoever sees the sequence wants it. What waits may have ended when we have it again. */
        space_unlock(s);
        if (!s->unit->fenced)
            membarrier_all();
        space_lock(s);
        excuse_idle(s, sequence);
    }
    space_settle(s, &ended);
    space_unlock(s);
    space_tell(&ended);
}

/* The lock is held. */
static int unmap_locked(struct iommu_space *s, uint64_t first, uint32_t count, struct iommu_unmap *u)
{
    if (!first || !count || !span_fits(first, count, s->pages_end) || !tree_mapped(&s->tree, first, count))
        return -ENOENT;
    uint32_t splits = (uint32_t)tree_splits(&s->tree, first) + tree_splits(&s->tree, first + count);
    if (tree_reserve(&s->tree, splits) || bus_cut(&s->bus, first, count))
        return -ENOMEM;
    u->bus_page = first;
    u->count = count;
    u->uses = 0;
    u->tables = NULL;
    tree_split(&s->tree, first);
    tree_split(&s->tree, first + count);
    tree_clear(&s->tree, first, count, &u->tables);
    s->stats.unmaps += count;
    list_append(&s->gathered, &u->link);
    s->gathered_count++;
    return 0;
}

int space_unmap(struct iommu_space *s, uint64_t bus_page, uint32_t count, struct iommu_unmap *u,
                const struct iotlb *own)
{
    space_lock(s);
    int r = unmap_locked(s, bus_page, count, u);
    if (r || (s->deferred && s->gathered_count < IOMMU_BATCH_MAX))
        space_unlock(s);
    else
        invalidate_and_unlock(s, own);
    return r;
}

int iommu_unmap(struct iommu_space *s, uint64_t bus_page, uint32_t count, struct iommu_unmap *u)
{
    return space_unmap(s, bus_page, count, u, NULL);
}

void iommu_flush(struct iommu_space *s)
{
    space_lock(s);
    if (list_empty(&s->gathered))
        space_unlock(s);
    else
        invalidate_and_unlock(s, NULL);
}

void iommu_space_detach(struct iommu_space *s)
{
    space_lock(s);
    uint64_t sequence = atomic_load_explicit(&s->sequence, memory_order_relaxed) + 1;
    s->detached_at = sequence;
    s->recent[sequence % IOMMU_RECENT] = (struct iommu_recent){0};
    atomic_store_explicit(&s->detached, true, memory_order_relaxed);
    atomic_store(&s->sequence, sequence);
    invalidate_and_unlock(s, NULL);
}

void iommu_space_stats(struct iommu_space *s, struct iommu_stats *out)
{
    space_lock(s);
    *out = s->stats;
    out->pages = s->pages;
    out->tables = s->tree.tables;
    out->large = s->tree.large;
    space_unlock(s);
}
