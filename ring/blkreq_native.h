/* SPDX-License-Identifier: MIT */
/* ring/blkreq_native.h: the native row of ring/blkreq.h as a frontend uses it per request: straight into the slot of
 * the shared ring, and no more of it than the request needs.
 *
 * A slot's bytes behind those are whatever was in it before: a request or a response of the same ring, which both ends
 * have seen. Every byte that is written is defined: a segment is one word, its padding zero (XSA-216). The peer may
 * rewrite a slot at any time; nothing is read from it here but a response, once.
 */
#ifndef RING_BLKREQ_NATIVE_H
#define RING_BLKREQ_NATIVE_H

#include <string.h>

#include "ring/blkreq.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "segments are words of the wire");
_Static_assert(sizeof(struct blkif_request_segment) == sizeof(uint64_t) &&
                   offsetof(struct blkif_request_segment, first_sect) == 4 &&
                   offsetof(struct blkif_request_segment, last_sect) == 5 && sizeof(grant_ref_t) == 4,
               "blkif.h: a segment is a word");

static inline uint64_t blkreq_native_segment(uint32_t gref, uint32_t first_sector, uint32_t last_sector)
{
    return gref | (uint64_t)first_sector << 32 | (uint64_t)last_sector << 40;
}

/* READ, WRITE, WRITE_FUA, FLUSH_DISKCACHE, WRITE_BARRIER with `count` <= BLKREQ_SEGMENTS_MAX segments. */
static inline void blkreq_native_put(void *slot, uint8_t operation, uint64_t id, uint64_t sector,
                                     const uint64_t *segment, unsigned count)
{
    struct blkif_request *r = slot;
    r->operation = operation;
    r->nr_segments = (uint8_t)count;
    r->handle = 0;
    r->id = id;
    r->sector_number = sector;
    for (unsigned i = 0; i < count; i++)
        memcpy(&r->seg[i], &segment[i], sizeof(segment[i]));
}

/* READ, WRITE, WRITE_FUA whose `count` segments are in the page of reference `gref`. */
static inline void blkreq_native_put_indirect(void *slot, uint8_t operation, uint64_t id, uint64_t sector,
                                              uint32_t gref, unsigned count)
{
    struct blkif_request_indirect *r = slot;
    memset(r, 0, sizeof(*r));
    r->operation = BLKIF_OP_INDIRECT;
    r->indirect_op = operation;
    r->nr_segments = (uint16_t)count;
    r->id = id;
    r->sector_number = sector;
    r->indirect_grefs[0] = gref;
}

/* Where blkreq_is_span(). */
static inline void blkreq_native_put_span(void *slot, uint8_t operation, uint8_t flag, uint64_t id, uint64_t sector,
                                          uint64_t sector_count)
{
    struct blkif_request_discard *r = slot;
    memset(r, 0, sizeof(*r));
    r->operation = operation;
    r->flag = flag;
    r->id = id;
    r->sector_number = sector;
    r->nr_sectors = sector_count;
}

/* A map of the `count` pages whose references are in the page of reference `list`, at `address`, 0: anywhere. */
static inline void blkreq_native_put_bus_map(void *slot, uint8_t access, uint64_t id, uint64_t address, uint32_t list,
                                             unsigned count)
{
    blkreq_native_put_indirect(slot, access, id, address, list, count);
    ((struct blkif_request_indirect *)slot)->operation = BLKREQ_OP_BUS_MAP;
}

#endif
