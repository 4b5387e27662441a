/* SPDX-License-Identifier: MIT */
/* ring/blkreq.h: the block protocol's requests and responses (<xen/io/blkif.h>) to and from a form without layout.
 *
 * blkreq_decode() is the only reader of guest request memory: it is given a private copy of a slot, checks all of it in
 * one flat function, and what it returns in `struct blkreq` is trusted afterwards. All sector numbers are in units of
 * 512 bytes whatever the disk's sector size; they must be multiples of it. A request that fails a check is answered
 * with BLKIF_RSP_ERROR (or EOPNOTSUPP for an operation that was not offered) and counted under its code; the device
 * lives. READ and WRITE are always offered, FLUSH_DISKCACHE, WRITE_BARRIER, DISCARD and INDIRECT where the limits say
 * so. A flush may carry data segments: it is then a flush followed by that write, as QEMU has it; without any its
 * sector number means nothing and is not looked at. A secure discard is never offered.
 *
 * Four operations are our own, done only where both ends said so (`domzero/` keys of xenbus/keys_blk.h); to everybody
 * else their codes, far above those of <xen/io/blkif.h>, are unknown ones:
 *
 *   BLKREQ_OP_WRITE_ZEROES  laid out as a discard; afterwards the sectors read as zeroes. With the flag
 *                           BLKREQ_ZEROES_MAY_UNMAP their storage may be given back, without it stays allocated. At
 *                           most as many sectors as were offered.
 *   BLKREQ_OP_WRITE_FUA     laid out as a write, also inside an indirect request: a write that is on stable storage
 *                           when it is answered. It says nothing of other writes.
 *   BLKREQ_OP_BUS_MAP       laid out as an indirect request, on a device behind an IOMMU: maps up to
 *                           BLKREQ_BUS_PAGES_MAX pages, whose references are 32-bit words in the one page that the
 *                           slot names, to bus pages in a row. `flag` (on the wire: the inner operation) is what the
 *                           device may do to them, `sector` (its sector number) the wanted bus address in bytes, 0:
 *                           any. Its response carries the bus address: blkreq_encode_bus_address().
 *   BLKREQ_OP_BUS_UNMAP     laid out as a discard: `sector` is a bus address in bytes, `sector_count` counts pages.
 *                           Answered when no DMA uses them any more.
 *
 * Where those two were agreed on, the reference of every segment, also of an indirect one, is the number of a bus page;
 * the codec does not care.
 *
 * An indirect request has its segments in pages of the guest's, which the codec does not reach. Its decode checks what
 * the slot says and leaves `indirect_pages` and their references; the backend copies those pages out, once, and
 * blkreq_check_indirect() checks the copy. Before that returned 0 nothing of such a request may be done. It is answered
 * with the operation that it carries (READ, WRITE), as Linux does and its frontend demands.
 *
 * A protocol row (`struct blk_protocol`) is an ABI: slot size, and the two directions of both messages. The row is
 * chosen by the frontend's `protocol` key; absent means native.
 */
#ifndef RING_BLKREQ_H
#define RING_BLKREQ_H

#include "base/util.h"
#include "ring/xen_io.h"

#define BLKREQ_SEGMENTS_MAX     BLKIF_MAX_SEGMENTS_PER_REQUEST /* 11, in a ring slot */
#define BLKREQ_SECTORS_PER_PAGE (PAGE_BYTES / SECTOR_BYTES)

#define BLKREQ_INDIRECT_SEGMENTS_MAX      256 /* 1 MiB; the protocol's own end is 8 pages of 512 */
#define BLKREQ_INDIRECT_SEGMENTS_PER_PAGE (PAGE_BYTES / sizeof(struct blkif_request_segment))
#define BLKREQ_INDIRECT_PAGES_MAX         blkreq_indirect_pages(BLKREQ_INDIRECT_SEGMENTS_MAX)
/* Pages that hold so many segments. */
#define blkreq_indirect_pages(segments) \
    (((segments) + BLKREQ_INDIRECT_SEGMENTS_PER_PAGE - 1) / BLKREQ_INDIRECT_SEGMENTS_PER_PAGE)

#define BLKREQ_OP_WRITE_ZEROES  0xd0
#define BLKREQ_OP_WRITE_FUA     0xd1
#define BLKREQ_ZEROES_MAY_UNMAP 1u
#define BLKREQ_OP_BUS_MAP       0xd2
#define BLKREQ_OP_BUS_UNMAP     0xd3
#define BLKREQ_BUS_PAGES_MAX    1024u /* references in the list page; also of an unmap */
#define BLKREQ_BUS_READ         1u    /* what the device may do: it reads memory when the guest writes to the disk */
#define BLKREQ_BUS_WRITE        2u

/* The peer's errors. Names and texts: blkreq_error_name(), blkreq_error_text(). */
enum blkreq_error {
    BLKREQ_E_OPERATION = 1, /* an operation that the device did not offer: answered EOPNOTSUPP */
    BLKREQ_E_SEGMENT_COUNT, /* none, or more than fit */
    BLKREQ_E_SEGMENT,       /* first > last, last > 7, or not a multiple of the sector size */
    BLKREQ_E_READ_ONLY,     /* a write to a read-only disk */
    BLKREQ_E_RANGE,     /* past the end, also by wrapping, not aligned to the sector size, or a discard of nothing */
    BLKREQ_E_BUS,       /* a map or unmap of no page or too many, beyond the window, off a page, or for no access */
    BLKREQ_E_BUS_TAKEN, /* a map to bus addresses that are mapped already, or whose unmap has not ended */
    BLKREQ_E_BUS_LIMIT, /* a map of more than the device may have mapped, or for which its window has no room */
    BLKREQ_E_BUS_UNMAP, /* an unmap of what this ring has not mapped */
    BLKREQ_E_COUNT_
};

struct blkreq_segment {
    uint32_t gref;
    uint8_t first_sector, last_sector; /* inclusive, within the page */
};

struct blkreq {
    uint64_t id;
    uint8_t operation; /* BLKIF_OP_*; valid only after a decode that returned 0 */
    uint8_t
        operation_raw; /* as the guest wrote it (of an indirect request: the one inside): goes back in the response */
    uint16_t segment_count;
    uint8_t flag;            /* of a discard or write-zeroes; of a bus map BLKREQ_BUS_* */
    uint16_t indirect_pages; /* 0: the segments are in `segment`; else in pages of these references */
    uint64_t sector;         /* 512-byte units; of blkreq_is_bus() a bus address in bytes */
    uint64_t sector_count;   /* sum over the segments, or of a discard or write-zeroes; of blkreq_is_bus() pages */
    struct blkreq_segment segment[BLKREQ_SEGMENTS_MAX];
    uint32_t indirect_gref[BLKREQ_INDIRECT_PAGES_MAX];
};

/* What a device offers; private to the backend. */
struct blkreq_limits {
    uint64_t capacity_sectors; /* 512-byte units */
    uint32_t sector_bytes;     /* 512 or 4096: ours, asserted to divide a page into whole sectors */
    bool read_only;
    bool flush;                     /* BLKIF_OP_FLUSH_DISKCACHE offered */
    bool barrier;                   /* BLKIF_OP_WRITE_BARRIER offered */
    bool discard;                   /* BLKIF_OP_DISCARD offered */
    bool fua;                       /* BLKREQ_OP_WRITE_FUA agreed on */
    uint32_t zeroes_sectors_max;    /* of a BLKREQ_OP_WRITE_ZEROES; 0: not agreed on */
    uint16_t indirect_segments_max; /* 0: BLKIF_OP_INDIRECT is not offered; <= BLKREQ_INDIRECT_SEGMENTS_MAX */
    uint8_t bus_bits;               /* of a bus address, 12 … 44; 0: BLKREQ_OP_BUS_* not agreed on */
};

/* An ABI: where fields lie in a slot; what is the same in all is in blkreq.c. */
struct blk_protocol {
    const char *name; /* value of the `protocol` key, XEN_IO_PROTO_ABI_* */
    uint32_t request_bytes, response_bytes, slot_bytes;
    uint16_t id, sector, segments, indirect_grefs, span_sectors; /* offsets in a request */
};

#define BLKREQ_BUS_RESPONSE_BYTES 24 /* of a bus map, in every row */
#define BLKREQ_HEAD_BYTES         32 /* all of a request of one segment, in every row */

/* How many bytes of a slot mean something, by its first BLKREQ_HEAD_BYTES: most requests are of one segment, and the
 * second cache line of such a slot need not go from processor to processor. */
static inline uint32_t blk_protocol_used_bytes(const struct blk_protocol *p, const unsigned char *head)
{
    const uint8_t operation = head[0], segments = head[1]; /* as in every row: blkif.h begins with these */
    if (operation > BLKIF_OP_FLUSH_DISKCACHE || segments > BLKREQ_SEGMENTS_MAX)
        return p->request_bytes;
    return p->segments + segments * (uint32_t)sizeof(struct blkif_request_segment);
}

extern const struct blk_protocol blk_protocol_native; /* "x86_64-abi", and "arm-abi", which is laid out the same */
extern const struct blk_protocol blk_protocol_x86_32; /* "x86_32-abi" */
/* The row of that `protocol` key; NULL name: native; NULL result: unknown. */
const struct blk_protocol *blk_protocol_find(const char *name);

/* `slot_copy` is private, of request_bytes of which blk_protocol_used_bytes() are looked at. 0 or BLKREQ_E_*; out->id
 * and out->operation_raw are set in any case. Of the arrays in `out` only what the counts say is. */
int blkreq_decode(const struct blk_protocol *p, const void *slot_copy, const struct blkreq_limits *limits,
                  struct blkreq *out);
/* Writes blk_protocol_used_bytes() of the slot, at least BLKREQ_HEAD_BYTES. */
void blkreq_encode(const struct blk_protocol *p, const struct blkreq *request, void *to_slot);
/* All bytes of the response are written, padding with zeroes (XSA-216). */
void blkreq_encode_response(const struct blk_protocol *p, uint64_t id, uint8_t operation, int16_t status,
                            void *to_slot);
/* Of a bus map that was done: behind its response, in the same slot, which is longer. */
void blkreq_encode_bus_address(uint64_t address, void *to_slot);
uint64_t blkreq_decode_bus_address(const void *slot_copy); /* of BLKREQ_BUS_RESPONSE_BYTES */
/* The same in every row. */
void blkreq_decode_response(const void *slot_copy, uint64_t *id, uint8_t *operation, int16_t *status);

/* The other half of the check of an indirect request: `copy` is a private copy of its segment_count segments (laid out
 * the same in every row), `segment` takes them checked. 0 or BLKREQ_E_*. */
int blkreq_check_indirect(struct blkreq *req, const struct blkif_request_segment *copy,
                          const struct blkreq_limits *limits, struct blkreq_segment *segment);

/* Does it name a span of sectors and no memory? Those are laid out as struct blkif_request_discard. */
static inline bool blkreq_is_span(uint8_t operation)
{
    return operation == BLKIF_OP_DISCARD || operation == BLKREQ_OP_WRITE_ZEROES;
}

/* Does it change what the device can reach? It names no sectors. */
static inline bool blkreq_is_bus(uint8_t operation)
{
    return operation == BLKREQ_OP_BUS_MAP || operation == BLKREQ_OP_BUS_UNMAP;
}

const char *blkreq_error_name(int code); /* "range"; never NULL */
const char *blkreq_error_text(int code); /* a sentence */

#endif
