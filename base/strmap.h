/* SPDX-License-Identifier: MIT */
/* base/strmap.h: bytes → entry, an intrusive chained hash map.
 *
 * The entry is embedded in its owner, and so are the key's bytes, behind the entry: it has their distance and not their
 * address, as there may be a million of it. The owner keeps them unchanged while the entry is in the map; the map owns
 * only its buckets. Inserting cannot fail: a map starts with the few buckets inside it, and where memory
 * for more is refused the chains grow instead. The hash is FNV-1a, 32 bits, from a seed, so a walk along a path hashes
 * each prefix by adding to the last one's hash. A peer that guesses the seed gets no more than its quota of collisions.
 * Must not be moved once initialised.
 */
#ifndef BASE_STRMAP_H
#define BASE_STRMAP_H

#include "base/util.h"

#define STRMAP_INLINE_BUCKETS 8 /* enough for most transactions: unmeasured */

struct strmap_entry {
    struct strmap_entry *next;
    uint32_t hash;
    uint16_t length, key_offset; /* of the key, from the entry */
};

struct strmap {
    struct strmap_entry **buckets;
    size_t capacity, count; /* capacity: a power of two */
    uint32_t seed;
    struct strmap_entry *first[STRMAP_INLINE_BUCKETS];
};

void strmap_init(struct strmap *m, uint64_t seed);
void strmap_deinit(struct strmap *m); /* the entries are their owners' to free */
static inline const char *strmap_key(const struct strmap_entry *e)
{
    return (const char *)e + e->key_offset;
}

static inline uint32_t strmap_hash_byte(uint32_t hash, char byte)
{
    return (hash ^ (unsigned char)byte) * 0x01000193u; /* FNV's prime */
}

/* Continues a hash that began as m->seed. */
uint32_t strmap_hash(uint32_t hash, const char *bytes, size_t length);
struct strmap_entry *strmap_find_hashed(const struct strmap *m, uint32_t hash, const char *key, size_t length);
struct strmap_entry *strmap_find(const struct strmap *m, const char *key, size_t length);
/* The key must not be in the map yet, and be no longer than 65,535 bytes. With its hash where that is known: as
 * strmap_hash(m->seed, …) gives it. */
void strmap_insert_hashed(struct strmap *m, struct strmap_entry *entry, uint32_t hash, const char *key, size_t length);
void strmap_insert(struct strmap *m, struct strmap_entry *entry, const char *key, size_t length);
void strmap_remove(struct strmap *m, struct strmap_entry *entry); /* asserts that it is in */

/* Visits every entry; `it` may be removed or freed meanwhile, nothing may be inserted. */
#define strmap_foreach_safe(m, i, it, tmp)     \
    for (size_t i = 0; i < (m)->capacity; i++) \
        for ((it) = (m)->buckets[i]; (it) && ((tmp) = (it)->next, true); (it) = (tmp))

#endif
