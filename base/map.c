/* SPDX-License-Identifier: MIT */
#include "base/map.h"

#define MAP_MIN_CAPACITY 16

static size_t map_home(const struct map *m, uint64_t key)
{
    key ^= key >> 32;
    key *= 0x9e3779b97f4a7c15ull; /* 2^64 / golden ratio: spreads consecutive keys */
    return (size_t)(key >> 20) & (m->capacity - 1);
}

static size_t map_find(const struct map *m, uint64_t key)
{
    size_t i = map_home(m, key);
    while (m->slots[i].value && m->slots[i].key != key)
        i = (i + 1) & (m->capacity - 1);
    return i;
}

void map_deinit(struct map *m)
{
    free(m->slots);
    *m = (struct map){0};
}

void *map_get(const struct map *m, uint64_t key)
{
    return m->capacity ? m->slots[map_find(m, key)].value : NULL;
}

static int map_grow(struct map *m)
{
    struct map bigger = {.capacity = m->capacity ? m->capacity * 2 : MAP_MIN_CAPACITY, .count = m->count};
    bigger.slots = calloc(bigger.capacity, sizeof(*bigger.slots));
    if (!bigger.slots)
        return -ENOMEM;
    for (size_t i = 0; i < m->capacity; i++)
        if (m->slots[i].value)
            bigger.slots[map_find(&bigger, m->slots[i].key)] = m->slots[i];
    free(m->slots);
    *m = bigger;
    return 0;
}

int map_put(struct map *m, uint64_t key, void *value)
{
    if (m->capacity && m->slots[map_find(m, key)].value)
        return -EEXIST;
    if ((m->count + 1) * 4 > m->capacity * 3) {
        int r = map_grow(m);
        if (r < 0)
            return r;
    }
    m->slots[map_find(m, key)] = (struct map_slot){key, value};
    m->count++;
    return 0;
}

void *map_remove(struct map *m, uint64_t key)
{
    if (!m->capacity)
        return NULL;
    size_t hole = map_find(m, key), mask = m->capacity - 1;
    void *removed = m->slots[hole].value;
    if (!removed)
        return NULL;
    for (size_t i = (hole + 1) & mask; m->slots[i].value; i = (i + 1) & mask) {
        size_t home = map_home(m, m->slots[i].key);
        if (((i - home) & mask) >= ((i - hole) & mask)) { /* the hole lies on this entry's probe path */
            m->slots[hole] = m->slots[i];
            hole = i;
        }
    }
    m->slots[hole] = (struct map_slot){0};
    m->count--;
    return removed;
}
