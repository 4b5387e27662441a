/* SPDX-License-Identifier: MIT */
#include "grant/gntkeep.h"

#include <assert.h>

#include "grant/gntmap_active.h"

int gntkeep_new(struct gntmap *m, uint32_t pages_max, struct gntkeep **out)
{
    assert(pages_max > 0 && pages_max <= GREFS_MAX);
    struct gntkeep *k = malloc(sizeof(*k) + pages_max * sizeof(k->gref[0])); /* the rest becomes memory when used */
    if (!k)
        return -ENOMEM;
    *k = (struct gntkeep){.map = m, .pages_max = pages_max};
    *out = k;
    return 0;
}

/* Lets go of the reference at that place; another one moves there. */
static void keep_drop(struct gntkeep *k, uint32_t place)
{
    uint32_t gref = k->gref[place];
    struct active_entry *a = &k->map->active[gref];
    assert(a->keep == k && k->pages > 0);
    a->keep = NULL;
    k->gref[place] = k->gref[--k->pages];
    active_unmap(k->map, gref, a->keep_writes);
}

void gntkeep_free(struct gntkeep *k)
{
    if (!k)
        return;
    while (k->pages)
        keep_drop(k, k->pages - 1);
    free(k);
}

/* Is no request's: the keep's own map is the only one. */
static bool active_idle(const struct active_entry *a)
{
    return a->maps[0] + a->maps[1] == 1;
}

/* Whether there is room for one more now. */
static bool keep_make_room(struct gntkeep *k)
{
    if (k->pages < k->pages_max)
        return true;
    for (unsigned i = 0; i < GNTKEEP_LOOKS; i++) {
        k->hand = k->hand + 1 < k->pages ? k->hand + 1 : 0;
        struct active_entry *a = &k->map->active[k->gref[k->hand]];
        if (active_idle(a) && a->used_s != k->now_s) {
            keep_drop(k, k->hand);
            k->stats.evictions++;
            return true;
        }
        a->used_s = (uint16_t)(k->now_s - 1); /* passed over once */
    }
    return false;
}

void gntkeep_take(struct gntkeep *k, struct active_entry *a, uint32_t gref, bool write)
{
    assert(!a->keep && a->extent);
    if (a->maps[write] == GRANT_PINS_MAX || !keep_make_room(k))
        return;
    a->keep = k;
    a->keep_writes = write;
    a->used_s = k->now_s;
    a->maps[write]++;
    k->gref[k->pages++] = gref;
}

void gntkeep_tick(struct gntkeep *k, uint64_t now_s)
{
    uint16_t before_s = k->now_s;
    k->now_s = (uint16_t)now_s;
    for (uint32_t i = k->pages; i-- > 0;) {
        struct active_entry *a = &k->map->active[k->gref[i]];
        if (a->used_s == before_s && k->now_s != before_s)
            a->used_s = (uint16_t)(k->now_s - 1); /* used since the last tick, however long ago that was */
        bool unused = (uint16_t)(k->now_s - a->used_s) >= GNTKEEP_IDLE_S && active_idle(a);
        if (!unused && !(a->open & ACTIVE_GONE) && !a->extent->revoked)
            continue;
        keep_drop(k, i);
        k->stats.expiries++;
    }
}

uint32_t gntkeep_pages(const struct gntkeep *k)
{
    return k->pages;
}

struct gntkeep_stats gntkeep_stats(const struct gntkeep *k)
{
    return k->stats;
}
