/* SPDX-License-Identifier: MIT */
/* grant/xen_grant.h: Xen's grant-table ABI (<xen/grant_table.h>, version 1), in one place.
 *
 * A grant reference (gref) is frame index * GRANT_PER_FRAME + slot. References below GNTTAB_NR_RESERVED_ENTRIES (8) are
 * Xen's own.
 *
 * Both sides of a table access an entry only through its two 32-bit words: the first, {flags, domid}, decides and is
 * only ever read, published and exchanged whole, so no check can see the flags of one moment with the domid of another;
 * the second is the frame. Both are shared memory: every access is one of the atomics below.
 */
#ifndef GRANT_XEN_GRANT_H
#define GRANT_XEN_GRANT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <xen/grant_table.h>

#include "base/util.h"

#define GRANT_PER_FRAME (PAGE_BYTES / sizeof(struct grant_entry_v1))

_Static_assert(sizeof(struct grant_entry_v1) == 8, "grant_table.h: v1 entry");
_Static_assert(offsetof(struct grant_entry_v1, flags) == 0 && offsetof(struct grant_entry_v1, domid) == 2 &&
                   offsetof(struct grant_entry_v1, frame) == 4,
               "grant_table.h: v1 entry");
_Static_assert(PAGE_BYTES / sizeof(struct grant_entry_v1) == 512, "512 v1 entries a frame");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the first word has the flags in its low half");

static inline uint32_t *grant_word(struct grant_entry_v1 *entry)
{
    return (uint32_t *)(void *)entry;
}

static inline uint32_t grant_word_make(uint32_t flags, uint16_t domid)
{
    return flags | (uint32_t)domid << 16;
}

static inline uint16_t grant_word_domid(uint32_t word)
{
    return (uint16_t)(word >> 16);
}

static inline uint32_t grant_word_load(struct grant_entry_v1 *entry)
{
    return __atomic_load_n(grant_word(entry), __ATOMIC_ACQUIRE);
}

/* True where *seen was replaced by `next`; else *seen is what is there now. */
static inline bool grant_word_exchange(struct grant_entry_v1 *entry, uint32_t *seen, uint32_t next)
{
    return __atomic_compare_exchange_n(grant_word(entry), seen, next, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

/* Clears flags; what this side did with the page before is visible to who sees them clear. */
static inline void grant_word_clear(struct grant_entry_v1 *entry, uint32_t flags)
{
    __atomic_fetch_and(grant_word(entry), ~flags, __ATOMIC_RELEASE);
}

#endif
