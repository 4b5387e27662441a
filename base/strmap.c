/* SPDX-License-Identifier: MIT */
#include "base/strmap.h"

#include <assert.h>
#include <string.h>

void strmap_init(struct strmap *m, uint64_t seed)
{
    *m = (struct strmap){.capacity = STRMAP_INLINE_BUCKETS, .seed = (uint32_t)(seed ^ seed >> 32)};
    m->buckets = m->first;
}

void strmap_deinit(struct strmap *m)
{
    if (m->buckets != m->first)
        free(m->buckets);
    *m = (struct strmap){0};
}

uint32_t strmap_hash(uint32_t hash, const char *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        hash = strmap_hash_byte(hash, bytes[i]);
    return hash;
}

static size_t bucket_of(size_t capacity, uint32_t hash)
{
    return (size_t)((hash * 0x9e3779b97f4a7c15ull) >> 32) &
           (capacity - 1); /* FNV's low bits see those of the text only */
}

struct strmap_entry *strmap_find_hashed(const struct strmap *m, uint32_t hash, const char *key, size_t length)
{
    struct strmap_entry *e = m->buckets[bucket_of(m->capacity, hash)];
    while (e && (e->hash != hash || e->length != length || memcmp(strmap_key(e), key, length) != 0))
        e = e->next;
    return e;
}

struct strmap_entry *strmap_find(const struct strmap *m, const char *key, size_t length)
{
    return strmap_find_hashed(m, strmap_hash(m->seed, key, length), key, length);
}

static void strmap_grow(struct strmap *m)
{
    size_t capacity = m->capacity * 2;
    struct strmap_entry **buckets = calloc(capacity, sizeof(struct strmap_entry *));
    if (!buckets)
        return; /* longer chains are slower, not wrong */
    struct strmap_entry *e, *next;
    strmap_foreach_safe(m, i, e, next)
    {
        struct strmap_entry **home = &buckets[bucket_of(capacity, e->hash)];
        e->next = *home;
        *home = e;
    }
    if (m->buckets != m->first)
        free(m->buckets);
    m->buckets = buckets;
    m->capacity = capacity;
}

void strmap_insert_hashed(struct strmap *m, struct strmap_entry *entry, uint32_t hash, const char *key, size_t length)
{
    if (m->count >= m->capacity)
        strmap_grow(m);
    size_t offset = (size_t)(key - (const char *)entry);
    assert(length <= UINT16_MAX && offset <= UINT16_MAX);
    entry->key_offset = (uint16_t)offset;
    entry->length = (uint16_t)length;
    entry->hash = hash;
    struct strmap_entry **home = &m->buckets[bucket_of(m->capacity, entry->hash)];
    entry->next = *home;
    *home = entry;
    m->count++;
}

void strmap_insert(struct strmap *m, struct strmap_entry *entry, const char *key, size_t length)
{
    strmap_insert_hashed(m, entry, strmap_hash(m->seed, key, length), key, length);
}

void strmap_remove(struct strmap *m, struct strmap_entry *entry)
{
    struct strmap_entry **at = &m->buckets[bucket_of(m->capacity, entry->hash)];
    while (*at && *at != entry)
        at = &(*at)->next;
    assert(*at == entry);
    *at = entry->next;
    m->count--;
}
