/* SPDX-License-Identifier: MIT */
/* base/map.h: 64-bit key → pointer, open addressing with linear probing and backward-shift deletion (no
 * tombstones), at most ¾ full. The map borrows the values. Keys are mixed, so a guest that chooses them gets no
 * more than its quota of collisions. Zero-initialised is empty and valid. Not for the data path: put() allocates.
 */
#ifndef BASE_MAP_H
#define BASE_MAP_H

#include "base/util.h"

struct map_slot {
    uint64_t key;
    void *value; /* NULL: empty */
};

struct map {
    struct map_slot *slots;
    size_t capacity; /* a power of two, or 0 */
    size_t count;
};

void map_deinit(struct map *m);
void *map_get(const struct map *m, uint64_t key);
/* `value` is not NULL. -EEXIST where the key is taken, -ENOMEM. */
int map_put(struct map *m, uint64_t key, void *value);
/* The value that was there, or NULL. */
void *map_remove(struct map *m, uint64_t key);

/* Visits every value; the map must not change meanwhile. */
#define map_foreach(m, i, v)                   \
    for (size_t i = 0; i < (m)->capacity; i++) \
        if (((v) = (m)->slots[i].value) != NULL)

#endif
