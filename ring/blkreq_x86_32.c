/* SPDX-License-Identifier: MIT */
/* ring/blkreq_x86_32.c: the row "x86_32-abi": what a 32-bit x86 frontend puts on the ring.
 *
 * There 64-bit numbers are aligned to 4 bytes, so the padding in front of `id` goes away and every later field moves
 * up; a segment is the same in both ABIs. Xen's header only gives the layout of the compiler that reads it, therefore
 * these structs are our own, pinned by static asserts. Slots of 108 bytes: an entry of a multi-page ring may
 * straddle two pages, which does not matter to a ring that is mapped in one piece.
 */
#include <assert.h>
#include <xen/io/protocols.h>

#include "ring/blkreq.h"

typedef uint64_t u64_aligned4 __attribute__((aligned(4)));

struct request_x86_32 {
    uint8_t operation, nr_segments;
    uint16_t handle;
    u64_aligned4 id;
    u64_aligned4 sector_number;
    struct blkif_request_segment seg[BLKIF_MAX_SEGMENTS_PER_REQUEST];
};

struct indirect_x86_32 {
    uint8_t operation, indirect_op;
    uint16_t nr_segments;
    u64_aligned4 id;
    u64_aligned4 sector_number;
    uint16_t handle, pad1;
    uint32_t indirect_grefs[BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST];
    u64_aligned4 pad2;
};

struct discard_x86_32 {
    uint8_t operation, flag;
    uint16_t handle;
    u64_aligned4 id;
    u64_aligned4 sector_number;
    u64_aligned4 nr_sectors;
};

union slot_x86_32 {
    struct request_x86_32 rw;
    struct indirect_x86_32 indirect;
    struct discard_x86_32 discard;
};

struct response_x86_32 {
    u64_aligned4 id;
    uint8_t operation;
    int16_t status;
};

_Static_assert(sizeof(struct request_x86_32) == 108, "x86_32-abi: request");
_Static_assert(offsetof(struct request_x86_32, id) == 4 && offsetof(struct request_x86_32, sector_number) == 12 &&
                   offsetof(struct request_x86_32, seg) == 20,
               "x86_32-abi: request");
_Static_assert(sizeof(struct indirect_x86_32) == 64 && offsetof(struct indirect_x86_32, indirect_grefs) == 24,
               "x86_32-abi: indirect request");
_Static_assert(sizeof(struct discard_x86_32) == 28 && offsetof(struct discard_x86_32, nr_sectors) == 20,
               "x86_32-abi: discard");
_Static_assert(sizeof(union slot_x86_32) == 108, "x86_32-abi: one slot for all requests");
_Static_assert(sizeof(struct response_x86_32) == 12 && offsetof(struct response_x86_32, operation) == 8 &&
                   offsetof(struct response_x86_32, status) == 10,
               "x86_32-abi: response");

static int x86_32_decode(const void *slot, const struct blkreq_limits *limits, struct blkreq *out)
{
    union slot_x86_32 r;
    memcpy(&r, slot, sizeof(r));
    struct blkreq_wire wire = {.operation = r.rw.operation,
                               .segment_count = r.rw.nr_segments,
                               .id = r.rw.id,
                               .sector = r.rw.sector_number,
                               .segment = r.rw.seg};
    if (wire.operation == BLKIF_OP_INDIRECT) {
        wire.segment_count = r.indirect.nr_segments;
        wire.indirect_operation = r.indirect.indirect_op;
        wire.indirect_gref = r.indirect.indirect_grefs;
    } else if (blkreq_is_span(wire.operation)) {
        wire.span_flag = r.discard.flag;
        wire.span_sectors = r.discard.nr_sectors;
    }
    return blkreq_check(&wire, limits, out);
}

static void x86_32_encode(const struct blkreq *request, void *slot)
{
    union slot_x86_32 r;
    memset(&r, 0, sizeof(r));
    r.rw.operation = request->operation;
    r.rw.id = request->id;
    r.rw.sector_number = request->sector;
    if (request->indirect_pages) {
        r.indirect.operation = BLKIF_OP_INDIRECT;
        r.indirect.indirect_op = request->operation;
        r.indirect.nr_segments = request->segment_count;
        memcpy(r.indirect.indirect_grefs, request->indirect_gref, sizeof(request->indirect_gref));
    } else if (blkreq_is_span(request->operation)) {
        r.discard.flag = request->flag;
        r.discard.nr_sectors = request->sector_count;
    } else {
        assert(request->segment_count <= BLKREQ_SEGMENTS_MAX);
        r.rw.nr_segments = (uint8_t)request->segment_count;
        blkreq_fill_segments(request->segment, request->segment_count, r.rw.seg);
    }
    memcpy(slot, &r, sizeof(r));
}

static void x86_32_encode_response(uint64_t id, uint8_t operation, int16_t status, void *slot)
{
    unsigned char *to = slot;
    memset(to, 0, sizeof(struct response_x86_32));
    memcpy(to + offsetof(struct response_x86_32, id), &id, sizeof(id));
    memcpy(to + offsetof(struct response_x86_32, operation), &operation, sizeof(operation));
    memcpy(to + offsetof(struct response_x86_32, status), &status, sizeof(status));
}

static void x86_32_decode_response(const void *slot, uint64_t *id, uint8_t *operation, int16_t *status)
{
    struct response_x86_32 r;
    memcpy(&r, slot, sizeof(r));
    *id = r.id;
    *operation = r.operation;
    *status = r.status;
}

const struct blk_protocol blk_protocol_x86_32 = {
    .name = XEN_IO_PROTO_ABI_X86_32,
    .request_bytes = sizeof(struct request_x86_32),
    .response_bytes = sizeof(struct response_x86_32),
    .slot_bytes = sizeof(struct request_x86_32),
    .segments_offset = offsetof(struct request_x86_32, seg),
    .decode = x86_32_decode,
    .encode = x86_32_encode,
    .encode_response = x86_32_encode_response,
    .decode_response = x86_32_decode_response,
};
