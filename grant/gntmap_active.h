/* SPDX-License-Identifier: MIT */
/* grant/gntmap_active.h: the private side of a map, and the short way to what is mapped already. For gntmap.c,
 * gntkeep.c and the DMA strategies; who is not in this room uses gntmap.h.
 *
 * An active entry is found by its reference alone: the array has one for every reference that a table can have, in
 * memory that becomes real a page at a time when its entries are first used. So what is mapped already costs one bound
 * check and one look at private memory, and neither the grant frame nor the frame table is looked at.
 */
#ifndef GRANT_GNTMAP_ACTIVE_H
#define GRANT_GNTMAP_ACTIVE_H

#include <assert.h>

#include "grant/gntkeep.h"
#include "grant/gnttab.h"

#define GREFS_MAX ((uint32_t)(GNTTAB_FRAMES_MAX * GRANT_PER_FRAME))

/* What the first map of a reference found; in force while it has maps. */
struct active_entry {
    struct frame_extent *extent; /* holds one pin of the frame; NULL: not mapped */
    unsigned char *address;      /* of the page */
    struct gntkeep *keep;        /* who holds one of the maps beyond the requests; NULL: nobody */
    uint16_t maps[2];            /* without and with write access */
    uint16_t used_s;             /* kept: when it was mapped last, by the keep's clock */
    uint8_t keep_writes;         /* kept: which of the maps is the keep's */
    uint8_t open;                /* ACTIVE_*: what more maps may do without a look at the table */
};

#define ACTIVE_READS  1u
#define ACTIVE_WRITES 2u /* it has a writer */
#define ACTIVE_GONE   4u /* and nothing else: its grant frame's instance is gone, no new maps */

_Static_assert(sizeof(struct active_entry) == 32, "two of them a cache line, found by a shift");

struct grant_frame {
    struct grant_entry_v1 *entries; /* shared with the granter; NULL: not known yet */
    struct gntmarks_frame *marks;   /* NULL: this map is the only one */
    uint32_t instance;
    uint32_t used; /* active entries in force */
    bool gone;     /* its instance is: no new maps, given back when unused */
};

struct gntmap {
    struct active_entry *active; /* GREFS_MAX */
    const struct gntmap_ops *ops;
    void *ctx;
    struct gntmarks *marks; /* or NULL */
    struct frametable *frames;
    uint16_t self, granter;
    uint64_t misses;
    uint64_t left; /* frames whose marks may be a dead process's */
    struct grant_frame frame[GNTTAB_FRAMES_MAX];
};

struct gntkeep {
    struct gntmap *map;
    uint32_t pages_max, pages;
    uint32_t hand; /* where the search for one to give back goes on */
    uint16_t now_s;
    struct gntkeep_stats stats;
    uint32_t gref[]; /* of what it holds: pages_max */
};

/* All of a map that active_serves() does not cover. */
int gntmap_map_slowly(struct gntmap *m, struct gntkeep *keep, uint32_t gref, bool write);
/* The last writer of a reference, or its last map, has gone. */
void gntmap_settle(struct gntmap *m, uint32_t gref, bool write);

/* Whether one more map needs nothing from the granter: it is mapped already, for this access. */
static inline bool active_serves(const struct active_entry *a, bool write)
{
    return a->open & (write ? ACTIVE_WRITES : ACTIVE_READS) && a->maps[write] < GRANT_PINS_MAX && !a->extent->revoked;
}

/* A request found it mapped. */
static inline void active_used(struct active_entry *a)
{
    struct gntkeep *k = a->keep;
    if (!k)
        return;
    a->used_s = k->now_s;
    k->stats.hits++;
}

/* One map of a reference more: *out is in force until active_unmap(). 0, GRANT_E_*, or -errno. */
static inline int active_map(struct gntmap *m, struct gntkeep *keep, uint32_t gref, bool write,
                             struct active_entry **out)
{
    if (gref >= GREFS_MAX)
        return GRANT_E_BAD_REF;
    struct active_entry *a = *out = &m->active[gref];
    if (__builtin_expect(!active_serves(a, write), 0))
        return gntmap_map_slowly(m, keep, gref, write);
    active_used(a);
    a->maps[write]++;
    return 0;
}

/* One less. */
static inline void active_unmap(struct gntmap *m, uint32_t gref, bool write)
{
    assert(gref < GREFS_MAX);
    struct active_entry *a = &m->active[gref];
    assert(a->maps[write] > 0);
    a->maps[write]--;
    if (!a->maps[1] && (write || !a->maps[0]))
        gntmap_settle(m, gref, write);
}

/* A reference was mapped that is not kept: keeps it from now on, where there is room or can be made. */
void gntkeep_take(struct gntkeep *k, struct active_entry *a, uint32_t gref, bool write);

#endif
