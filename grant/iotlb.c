/* SPDX-License-Identifier: MIT */
#include <string.h>
#include <sys/mman.h>

#include "grant/iotlb_short.h"

#define WAYS       IOTLB_WAYS
#define IOTLB_NONE UINT32_MAX

static uint32_t *crowd_of(struct iotlb *t, const struct iotlb_entry *e)
{
    return &t->crowded[iotlb_set_of(t, e->bus_page)];
}

static void crowd_add(struct iotlb *t, struct iotlb_entry *e)
{
    uint32_t *first = crowd_of(t, e), i = iotlb_index(t, e);
    e->next = *first;
    e->prev = IOTLB_NONE;
    if (e->next != IOTLB_NONE)
        t->at[e->next].prev = i;
    *first = i;
}

static void crowd_remove(struct iotlb *t, struct iotlb_entry *e)
{
    *(e->prev == IOTLB_NONE ? crowd_of(t, e) : &t->at[e->prev].next) = e->next;
    if (e->next != IOTLB_NONE)
        t->at[e->next].prev = e->prev;
}

/* An entry goes: its frame is owed back, at once or by release_all(). */
static void forget(struct iotlb *t, struct iotlb_entry *e)
{
    uint32_t i = iotlb_index(t, e);
    if (i < t->entries)
        t->tags[i] = 0;
    else
        crowd_remove(t, e);
    e->bus_page = 0;
    e->access = 0;
    e->stale = false;
    e->unmap = NULL;
}

static void release(struct iotlb *t, struct iotlb_entry *e)
{
    t->ops->frame_release(t->ctx, e->frame, e->handle);
    uint32_t i = iotlb_index(t, e);
    if (i >= t->entries) {
        e->next = t->spare;
        t->spare = i;
    }
}

/* The last use of an entry that is not remembered is over. */
void iotlb_retire(struct iotlb *t, struct iotlb_entry *e)
{
    struct iommu_unmap *u = e->unmap;
    struct list ended;
    forget(t, e);
    release(t, e);
    if (!u)
        return;
    list_init(&ended);
    space_lock(t->space);
    space_unuse(t->space, u, &ended);
    space_unlock(t->space);
    space_tell(&ended);
}

/* What an invalidation does to one entry. `u`: the unmap, where it waits for this IOTLB; the lock is held. */
static void strike(struct iotlb *t, struct iotlb_entry *e, struct iommu_unmap *u, uint32_t *doomed)
{
    uint32_t i = iotlb_index(t, e);
    if (!e->in_use) {
        forget(t, e);
        e->next = *doomed;
        *doomed = i;
        return;
    }
    if (i < t->entries)
        t->tags[i] = 0;
    e->access = 0;
    e->stale = true;
    if (u && !e->unmap) {
        e->unmap = u;
        u->uses++;
    }
}

static inline bool holds(const struct iotlb_entry *e)
{
    return e->bus_page != 0;
}

/* All that it knows of one page. */
static void strike_page(struct iotlb *t, uint64_t page, struct iommu_unmap *u, uint32_t *doomed)
{
    const uint32_t set = iotlb_set_of(t, page);
    for (uint32_t i = set * WAYS; i < (set + 1) * WAYS; i++)
        if (t->at[i].bus_page == page)
            strike(t, &t->at[i], u, doomed);
    for (uint32_t i = t->crowded[set]; i != IOTLB_NONE; i = t->at[i].next) /* in use, so they stay where they are */
        if (t->at[i].bus_page == page)
            strike(t, &t->at[i], u, doomed);
}

static void strike_range(struct iotlb *t, uint64_t first, uint32_t count, struct iommu_unmap *u, uint32_t *doomed)
{
    if (count < t->entries / WAYS) {
        for (uint64_t page = first; page < first + count; page++)
            strike_page(t, page, u, doomed);
        return;
    }
    for (uint32_t i = 0; i < t->entries + t->uses_max; i++)
        if (holds(&t->at[i]) && t->at[i].bus_page - first < count)
            strike(t, &t->at[i], u, doomed);
}

static void strike_all(struct iotlb *t, bool in_use_too, uint32_t *doomed)
{
    for (uint32_t i = 0; i < t->entries + t->uses_max; i++)
        if (holds(&t->at[i]) && (in_use_too || !t->at[i].in_use))
            strike(t, &t->at[i], NULL, doomed);
}

/* What has ended without this IOTLB, which was idle then: nothing of it is in use. Where it is much, looking for each
 * page costs more than learning all anew. The lock is held. */
static void strike_ended(struct iotlb *t, uint64_t sequence, uint32_t *doomed)
{
    const struct iommu_space *s = t->space;
    uint64_t end = sequence + 1, pages = 0;
    if (!list_empty(&s->waiting))
        end = list_entry(s->waiting.next, struct iommu_unmap, link)->sequence;
    if (end <= t->seen + 1)
        return;
    bool much = sequence - t->seen > IOMMU_RECENT;
    for (uint64_t k = t->seen + 1; !much && k < end; k++) {
        pages += s->recent[k % IOMMU_RECENT].count;
        much = pages > t->entries;
    }
    if (much) {
        strike_all(t, false, doomed);
        return;
    }
    for (uint64_t k = t->seen + 1; k < end; k++) {
        const struct iommu_recent *r = &s->recent[k % IOMMU_RECENT];
        strike_range(t, r->bus_page, r->count, NULL, doomed);
    }
}

/* The lock is held. */
static void strike_waiting(struct iotlb *t, uint32_t *doomed)
{
    struct iommu_space *s = t->space;
    for (struct list *l = s->waiting.prev; l != &s->waiting; l = l->prev) {
        struct iommu_unmap *u = list_entry(l, struct iommu_unmap, link);
        if (u->sequence <= t->seen)
            return;
        strike_range(t, u->bus_page, u->count, u, doomed);
    }
}

static void release_all(struct iotlb *t, uint32_t doomed)
{
    while (doomed != IOTLB_NONE) {
        struct iotlb_entry *e = &t->at[doomed];
        doomed = e->next;
        release(t, e);
    }
}

/* Does what the invalidations since `seen` ask, and answers them. */
void iotlb_catch_up(struct iotlb *t)
{
    struct iommu_space *s = t->space;
    uint32_t doomed = IOTLB_NONE;
    struct list ended;
    list_init(&ended);
    space_lock(s);
    uint64_t sequence = atomic_load_explicit(&s->sequence, memory_order_relaxed);
    strike_ended(t, sequence, &doomed);
    strike_waiting(t, &doomed);
    if (t->seen < s->detached_at)
        strike_all(t, true, &doomed);
    t->seen = sequence;
    space_settle(s, &ended);
    space_unlock(s);
    t->stats.invalidations++;
    release_all(t, doomed);
    space_tell(&ended);
}

static uint64_t limit_address(uint64_t bus_page)
{
    return bus_page > UINT64_MAX >> IOMMU_PAGE_SHIFT ? UINT64_MAX : bus_page << IOMMU_PAGE_SHIFT;
}

static int fault(struct iotlb *t, uint64_t bus_page, bool write, int reason)
{
    const struct iommu_space *s = t->space;
    iotlb_leave(t);
    t->stats.faults++;
    iommu_fault_record(s->unit, &(struct iommu_fault){.address = limit_address(bus_page),
                                                      .device = s->device,
                                                      .domid = s->domid,
                                                      .reason = (uint8_t)reason,
                                                      .write = write});
    return reason;
}

static int check(const struct iommu_space *s, uint64_t bus_page, unsigned need, uint64_t *entry)
{
    if (atomic_load_explicit(&s->detached, memory_order_relaxed))
        return IOMMU_F_FOREIGN;
    if (bus_page >= s->pages_end)
        return IOMMU_F_WINDOW;
    *entry = tree_walk(&s->tree, bus_page);
    if (!*entry)
        return IOMMU_F_NOT_PRESENT;
    return *entry & need ? 0 : IOMMU_F_PERMISSION;
}

/* An entry that remembers nothing, for that page: one of its set, or where all of these are in use a spare one, that
 * forgets with its last use. */
static struct iotlb_entry *place(struct iotlb *t, uint64_t bus_page)
{
    struct iotlb_entry *set = &t->at[iotlb_set_of(t, bus_page) * WAYS], *e = NULL;
    for (uint32_t way = 0; way < WAYS; way++) {
        struct iotlb_entry *it = &set[(t->victim + way) % WAYS];
        if (!holds(it))
            return it;
        if (!e && !it->in_use)
            e = it;
    }
    if (e) {
        t->victim++;
        forget(t, e);
        release(t, e);
        return e;
    }
    assert(t->spare < t->entries + t->uses_max); /* uses_max gets at once */
    e = &t->at[t->spare];
    t->spare = e->next ? e->next : t->spare + 1;
    e->bus_page = bus_page;
    crowd_add(t, e);
    e->stale = true;
    return e;
}

int iotlb_miss(struct iotlb *t, uint64_t bus_page, bool write, struct iotlb_entry **out)
{
    uint64_t found;
    int reason = check(t->space, bus_page, write ? IOMMU_WRITE : IOMMU_READ, &found);
    if (reason)
        return fault(t, bus_page, write, reason);
    uint32_t frame = (uint32_t)(found >> ENTRY_FRAME_SHIFT);
    unsigned char *address;
    void *handle;
    if (t->ops->frame_hold(t->ctx, frame, found & IOMMU_WRITE, &address, &handle))
        return fault(t, bus_page, write, IOMMU_F_FRAME);
    struct iotlb_entry *e = place(t, bus_page);
    e->bus_page = bus_page;
    e->address = address;
    e->handle = handle;
    e->frame = frame;
    e->in_use = 1;
    if (!e->stale) {
        e->access = found & ENTRY_ACCESS;
        t->tags[iotlb_index(t, e)] = (uint32_t)bus_page;
    }
    t->stats.misses++;
    *out = e;
    return 0;
}

int iotlb_get(struct iotlb *t, uint64_t bus_page, bool write, struct iotlb_entry **out)
{
    return iotlb_get_short(t, bus_page, write, out);
}

void iotlb_put(struct iotlb *t, struct iotlb_entry *e)
{
    iotlb_put_short(t, e);
}

uint32_t iotlb_index(const struct iotlb *t, const struct iotlb_entry *e)
{
    return iotlb_index_short(t, e);
}

struct iotlb_entry *iotlb_at(struct iotlb *t, uint32_t index)
{
    return iotlb_at_short(t, index);
}

void iotlb_turn(struct iotlb *t)
{
    if (iotlb_behind(t))
        iotlb_catch_up(t);
}

int iotlb_unmap(struct iotlb *t, uint64_t bus_page, uint32_t count, struct iommu_unmap *u)
{
    int r = space_unmap(t->space, bus_page, count, u, t);
    iotlb_turn(t);
    return r;
}

void iotlb_rest(struct iotlb *t)
{
    uint32_t doomed = IOTLB_NONE;
    iotlb_turn(t);
    strike_all(t, false, &doomed);
    release_all(t, doomed);
}

/* Most of it is never touched: a mapping of its own. */
static size_t at_bytes(const struct iotlb *t)
{
    return ((size_t)t->entries + t->uses_max) * sizeof(*t->at);
}

static void memory_free(struct iotlb *t)
{
    if (t->at)
        munmap(t->at, at_bytes(t));
    free(t->crowded);
    free(t->tags);
    free(t);
}

int iotlb_new(struct iommu_space *s, const struct iotlb_ops *ops, void *ctx, uint32_t entries, uint32_t uses_max,
              struct iotlb **out)
{
    assert(entries && !(entries & (entries - 1)) && uses_max);
    entries = MAX(entries, WAYS);
    struct iotlb *t = aligned_alloc(64, (sizeof(*t) + 63) & ~(size_t)63);
    if (!t)
        return -ENOMEM;
    *t = (struct iotlb){.space = s,
                        .fenced = s->unit->fenced,
                        .set_mask = entries / WAYS - 1,
                        .entries = entries,
                        .uses_max = uses_max,
                        .spare = entries,
                        .ops = ops,
                        .ctx = ctx};
    t->tags = calloc(entries, sizeof(*t->tags));
    t->crowded = malloc(entries / WAYS * sizeof(*t->crowded));
    void *at = mmap(NULL, at_bytes(t), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    t->at = at == MAP_FAILED ? NULL : at;
    if (!t->tags || !t->crowded || !t->at) {
        memory_free(t);
        return -ENOMEM;
    }
    memset(t->crowded, 0xff, entries / WAYS * sizeof(*t->crowded)); /* IOTLB_NONE */
    space_lock(s);
    t->seen = atomic_load_explicit(&s->sequence, memory_order_relaxed);
    list_append(&s->iotlbs, &t->link);
    space_unlock(s);
    *out = t;
    return 0;
}

void iotlb_free(struct iotlb *t)
{
    struct list ended;
    if (!t)
        return;
    assert(iotlb_uses_of(t) == 0);
    iotlb_rest(t);
    list_init(&ended);
    space_lock(t->space);
    list_remove(&t->link);
    space_settle(t->space, &ended);
    space_unlock(t->space);
    space_tell(&ended);
    memory_free(t);
}

void iotlb_stats(const struct iotlb *t, struct iotlb_stats *out)
{
    *out = t->stats;
}
