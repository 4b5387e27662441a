/* SPDX-License-Identifier: MIT */
/* tests/grant_world.h: a granting domain and its mapper in one process: what the hypervisor role does for both, in the
 * least code. Extents and grant-table frames are memfds that are mapped twice, so the guest's address and the host's
 * address of a byte differ as they do between processes. Gives and takes are counted, and closing asserts that what was
 * handed out came back exactly once.
 */
#ifndef TESTS_GRANT_WORLD_H
#define TESTS_GRANT_WORLD_H

#include "grant/frametable.h"
#include "grant/gntmap.h"
#include "grant/gnttab.h"

#define WORLD_EXTENTS_MAX 64
#define WORLD_HOST        0 /* domid of the mapper */
#define WORLD_GUEST       3 /* domid of the granter */

struct world_extent {
    uint32_t id, instance, base_gfn, frame_count;
    bool readonly, gone;
    int fd;
    unsigned char *guest, *host; /* host: NULL while it does not hold it */
};

struct world_frame {
    uint32_t instance;
    uint16_t grantee;
    bool gone;
    int fd;
    unsigned char *guest, *host;
};

struct grant_world {
    struct world_extent extent[WORLD_EXTENTS_MAX];
    unsigned extent_count;
    struct world_frame frame[GNTTAB_FRAMES_MAX];
    unsigned frame_count;
    uint32_t instance;    /* whose the next extent or frame is */
    bool one_mapping;     /* the host uses the guest's addresses: ThreadSanitizer then sees both sides' accesses meet */
    unsigned char *place; /* where the host's next mapping goes, one behind the other; NULL: anywhere */
    unsigned lookups;     /* calls of either get */
    uint64_t left;        /* what is said of frames that a dead mapper marked */
    int refuse;           /* -errno for all gets to come, 0: none */
    /* Lets a test be the guest at the very moment when the host asks for an extent; or NULL. */
    void (*on_extent_get)(struct grant_world *w, uint32_t gfn);
    /* Told before the host's mapping of an extent goes; or NULL. */
    void (*on_extent_put)(struct grant_world *w, uint32_t id);
    void *user; /* the test's */
    struct gnttab *table;
    struct frametable *frames;
    struct gntmap *map;
};

extern const struct gnttab_ops gworld_gnttab_ops;
extern const struct frametable_ops gworld_frametable_ops;
extern const struct gntmap_ops gworld_gntmap_ops;

void gworld_open(struct grant_world *w);
void gworld_close(struct grant_world *w);
/* An extent that the guest shares with the host. */
struct world_extent *gworld_share(struct grant_world *w, uint32_t base_gfn, uint32_t frame_count, bool readonly);
/* The guest process is gone: its memory is handed out no more. What the host holds, it holds. */
void gworld_instance_ends(struct grant_world *w, uint32_t instance);
/* A grant-table frame for `grantee` by its next index, without gnttab. */
uint32_t gworld_frame_new(struct grant_world *w, uint16_t grantee);

/* The guest's view of an entry; its frame exists. */
struct grant_entry_v1 *gworld_entry(struct grant_world *w, uint32_t gref);
void gworld_write(struct grant_world *w, uint32_t gref, uint32_t flags, uint16_t domid, uint32_t gfn);
uint16_t gworld_flags(struct grant_world *w, uint32_t gref);
/* Grants through gnttab; asserts success. */
uint32_t gworld_grant(struct grant_world *w, uint32_t gfn, bool readonly);
/* The guest's address of a frame of an extent, NULL where it is in none. */
unsigned char *gworld_guest_page(struct grant_world *w, uint32_t gfn);
unsigned char *gworld_host_page(struct grant_world *w, uint32_t gfn); /* NULL too where the host does not hold it */

/* A seeded sequence that is the same everywhere. */
uint32_t gworld_random(uint64_t *state);

#endif
