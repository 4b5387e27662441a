/* SPDX-License-Identifier: MIT */
#include "grant/intremap.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/span.h"

#define VALID (1ull << 63) /* of an entry's state; below it, how many raises are in it */

/* A cache line each: devices that raise at the same time do not meet. */
struct entry {
    _Alignas(64) _Atomic uint64_t state;
    /* These are written where the state is 0, and read where a raise has counted itself in. */
    struct intremap_source source;
    struct intremap_target target;
    /* The books, under the lock. */
    uint32_t block_entries; /* of the block that begins here; 0: none does */
    bool taken;
};

struct intremap {
    struct iommu *unit;
    struct entry *entry;
    uint32_t entry_count;
    pthread_mutex_t lock; /* of all but raises */
    uint32_t blocks, entries_taken;
    _Atomic uint64_t faults;
};

int intremap_new(struct iommu *unit, uint32_t entries, struct intremap **out)
{
    if (!entries || entries > INTREMAP_ENTRIES_MAX)
        return -EINVAL;
    struct intremap *t = calloc(1, sizeof(*t));
    if (!t)
        return -ENOMEM;
    /* Zeroes, and memory only where it is used. */
    void *table =
        mmap(NULL, entries * sizeof(struct entry), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (table == MAP_FAILED) {
        free(t);
        return -ENOMEM;
    }
    t->unit = unit;
    t->entry = table;
    t->entry_count = entries;
    pthread_mutex_init(&t->lock, NULL);
    *out = t;
    return 0;
}

void intremap_free(struct intremap *t)
{
    if (!t)
        return;
    assert(!t->blocks && !t->entries_taken);
    munmap(t->entry, t->entry_count * sizeof(*t->entry));
    pthread_mutex_destroy(&t->lock);
    free(t);
}

/* ---- blocks; under the lock ---- */

static bool is_source(const struct entry *e, const struct intremap_source *source)
{
    return e->source.device == source->device && e->source.domid == source->domid;
}

static uint32_t source_entries(const struct intremap *t, const struct intremap_source *source)
{
    uint32_t n = 0, seen = 0;
    for (uint32_t i = 0; seen < t->entries_taken; i++) {
        seen += t->entry[i].taken;
        n += t->entry[i].taken && is_source(&t->entry[i], source);
    }
    return n;
}

/* The first of so many free ones, or entry_count. */
static uint32_t free_run(const struct intremap *t, uint32_t count)
{
    uint32_t run = 0;
    for (uint32_t i = 0; i < t->entry_count; i++) {
        run = t->entry[i].taken ? 0 : run + 1;
        if (run == count)
            return i + 1 - count;
    }
    return t->entry_count;
}

static int block_take(struct intremap *t, const struct intremap_source *source, uint32_t vectors, uint32_t *handle)
{
    if (source_entries(t, source) + vectors > INTREMAP_DEVICE_MAX)
        return -EDQUOT;
    uint32_t first = free_run(t, vectors);
    if (first == t->entry_count)
        return -ENOSPC;
    for (uint32_t i = first; i < first + vectors; i++) {
        t->entry[i].taken = true;
        t->entry[i].source = *source;
    }
    t->entry[first].block_entries = vectors;
    t->blocks++;
    t->entries_taken += vectors;
    *handle = first;
    return 0;
}

int intremap_alloc(struct intremap *t, const struct intremap_source *source, uint32_t vectors, uint32_t *handle)
{
    if (!vectors || vectors > INTREMAP_DEVICE_MAX)
        return vectors ? -EDQUOT : -EINVAL;
    pthread_mutex_lock(&t->lock);
    int r = block_take(t, source, vectors, handle);
    pthread_mutex_unlock(&t->lock);
    return r;
}

/* Handles are the privileged side's own: one that is none is a bug. */
static uint32_t block_entries(const struct intremap *t, uint32_t handle)
{
    assert(handle < t->entry_count && t->entry[handle].block_entries);
    return t->entry[handle].block_entries;
}

/* Those that look now see that it is not valid and do not count themselves in, so the wait ends. */
static void entry_revoke(struct entry *e)
{
    atomic_fetch_and(&e->state, ~VALID);
    while (atomic_load_explicit(&e->state, memory_order_acquire))
        sched_yield();
}

void intremap_release(struct intremap *t, uint32_t handle)
{
    pthread_mutex_lock(&t->lock);
    uint32_t count = block_entries(t, handle);
    for (uint32_t i = handle; i < handle + count; i++) {
        entry_revoke(&t->entry[i]);
        t->entry[i].taken = false;
    }
    t->entry[handle].block_entries = 0;
    t->blocks--;
    t->entries_taken -= count;
    pthread_mutex_unlock(&t->lock);
}

/* ---- entries ---- */

static int entry_assign(struct entry *e, const struct intremap_target *target)
{
    if (target->domid != e->source.domid)
        return -EPERM;
    if (atomic_load_explicit(&e->state, memory_order_acquire) & VALID)
        return -EEXIST;
    e->target = *target;
    atomic_fetch_or_explicit(&e->state, VALID, memory_order_release);
    return 0;
}

int intremap_assign(struct intremap *t, uint32_t handle, uint32_t vector, const struct intremap_target *target)
{
    pthread_mutex_lock(&t->lock);
    int r = vector < block_entries(t, handle) ? entry_assign(&t->entry[handle + vector], target) : -ERANGE;
    pthread_mutex_unlock(&t->lock);
    return r;
}

void intremap_revoke(struct intremap *t, uint32_t handle, uint32_t vector)
{
    pthread_mutex_lock(&t->lock);
    if (vector < block_entries(t, handle))
        entry_revoke(&t->entry[handle + vector]);
    pthread_mutex_unlock(&t->lock);
}

/* ---- raises ---- */

static bool entry_enter(struct entry *e)
{
    if (!(atomic_load_explicit(&e->state, memory_order_relaxed) & VALID))
        return false;
    if (atomic_fetch_add_explicit(&e->state, 1, memory_order_acquire) & VALID)
        return true;
    atomic_fetch_sub_explicit(&e->state, 1, memory_order_release);
    return false;
}

static void entry_leave(struct entry *e)
{
    atomic_fetch_sub_explicit(&e->state, 1, memory_order_release);
}

static struct entry *entry_hit(struct intremap *t, const struct intremap_source *source, uint32_t handle,
                               uint32_t vector)
{
    if (!span_fits(handle, vector, t->entry_count - 1))
        return NULL;
    struct entry *e = &t->entry[handle + vector];
    if (!entry_enter(e))
        return NULL;
    if (is_source(e, source))
        return e;
    entry_leave(e);
    return NULL;
}

static void __attribute__((noinline))
raise_fault(struct intremap *t, const struct intremap_source *source, uint32_t vector)
{
    atomic_fetch_add_explicit(&t->faults, 1, memory_order_relaxed);
    iommu_fault_record(t->unit, &(struct iommu_fault){.address = vector,
                                                      .device = source->device,
                                                      .domid = source->domid,
                                                      .reason = IOMMU_F_INTERRUPT,
                                                      .write = true});
}

const struct intremap_target *intremap_begin(struct intremap *t, const struct intremap_source *source, uint32_t handle,
                                             uint32_t vector)
{
    struct entry *e = entry_hit(t, source, handle, vector);
    if (__builtin_expect(e != NULL, 1))
        return &e->target;
    raise_fault(t, source, vector);
    return NULL;
}

void intremap_end(struct intremap *t, const struct intremap_target *target)
{
    (void)t;
    entry_leave(container_of(target, struct entry, target));
}

void intremap_stats(struct intremap *t, struct intremap_stats *out)
{
    pthread_mutex_lock(&t->lock);
    *out = (struct intremap_stats){t->blocks, t->entries_taken, atomic_load(&t->faults)};
    pthread_mutex_unlock(&t->lock);
}
