/* SPDX-License-Identifier: MIT */
/* ring/blkreq.h: the block protocol's requests and responses (<xen/io/blkif.h>) to and from a form without layout.
 *
 * blkreq_decode() is the only reader of guest request memory: it is given a private copy of a slot, checks all of it in
 * one flat function, and what it returns in `struct blkreq` is trusted afterwards. All sector numbers are in units of
 * 512 bytes whatever the disk's sector size; they must be multiples of it. A request that fails a check is answered
 * with BLKIF_RSP_ERROR (or EOPNOTSUPP for an operation that was not offered) and counted under its code; the device
 * lives. READ and WRITE are always offered, FLUSH_DISKCACHE where the limits say so; BARRIER, DISCARD and INDIRECT are
 * not. A flush may carry data segments: it is then a flush followed by that write, as QEMU has it; without any its
 * sector number means nothing and is not looked at.
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

/* The peer's errors. Names and texts: blkreq_error_name(), blkreq_error_text(). */
enum blkreq_error {
    BLKREQ_E_OPERATION = 1, /* an operation that the device did not offer: answered EOPNOTSUPP */
    BLKREQ_E_SEGMENT_COUNT, /* none, or more than fit */
    BLKREQ_E_SEGMENT,       /* first > last, last > 7, or not a multiple of the sector size */
    BLKREQ_E_READ_ONLY,     /* a write to a read-only disk */
    BLKREQ_E_RANGE,         /* past the end, also by wrapping multiplication, or not aligned to the sector size */
    BLKREQ_E_COUNT_
};

struct blkreq_segment {
    uint32_t gref;
    uint8_t first_sector, last_sector; /* inclusive, within the page */
};

struct blkreq {
    uint64_t id;
    uint8_t operation;     /* BLKIF_OP_*; valid only after a decode that returned 0 */
    uint8_t operation_raw; /* as the guest wrote it: goes back in the response */
    uint16_t segment_count;
    uint64_t sector;       /* 512-byte units */
    uint32_t sector_count; /* sum over the segments, or nr_sectors; <= 11 * 8 here */
    struct blkreq_segment segment[BLKREQ_SEGMENTS_MAX];
};

/* What a device offers; private to the backend. */
struct blkreq_limits {
    uint64_t capacity_sectors; /* 512-byte units */
    uint32_t sector_bytes;     /* 512 or 4096: ours, asserted to divide a page into whole sectors */
    bool read_only;
    bool flush; /* BLKIF_OP_FLUSH_DISKCACHE offered */
};

struct blk_protocol {
    const char *name; /* value of the `protocol` key, XEN_IO_PROTO_ABI_* */
    uint32_t request_bytes, response_bytes, slot_bytes;
    /* `slot` is a private copy of request_bytes. 0 or BLKREQ_E_*; out->id and out->operation_raw are set in any case.
     */
    int (*decode)(const void *slot, const struct blkreq_limits *limits, struct blkreq *out);
    void (*encode)(const struct blkreq *request, void *slot);
    /* All bytes of the response are written, padding with zeroes (XSA-216). */
    void (*encode_response)(uint64_t id, uint8_t operation, int16_t status, void *slot);
    void (*decode_response)(const void *slot, uint64_t *id, uint8_t *operation, int16_t *status);
};

extern const struct blk_protocol blk_protocol_native; /* "x86_64-abi", and "arm-abi", which is laid out the same */
extern const struct blk_protocol blk_protocol_x86_32; /* "x86_32-abi" */
/* The row of that `protocol` key; NULL name: native; NULL result: unknown. */
const struct blk_protocol *blk_protocol_find(const char *name);

const char *blkreq_error_name(int code); /* "range"; never NULL */
const char *blkreq_error_text(int code); /* a sentence */

/* ---- for the rows ---- */

/* What a private copy of a slot says, before anything of it is believed; `segment` is its whole array of 11. */
struct blkreq_wire {
    uint8_t operation, segment_count;
    uint64_t id, sector;
    const struct blkif_request_segment *segment;
};
/* The one check of all of it: what decode returns. */
int blkreq_check(const struct blkreq_wire *wire, const struct blkreq_limits *limits, struct blkreq *out);
/* The other way: writes request->segment_count segments, which is returned. */
unsigned blkreq_fill_segments(const struct blkreq *request, struct blkif_request_segment *segment);

#endif
