/* SPDX-License-Identifier: MIT */
/* ring/blkreq_x86_32.c: the row "x86_32-abi": what a 32-bit x86 frontend puts on the ring.
 *
 * There 64-bit numbers are aligned to 4 bytes, so the padding in front of `id` goes away and every later field moves
 * up; a segment is the same in both ABIs. Xen's header only gives the layout of the compiler that reads it, therefore
 * these two structs are our own, pinned by static asserts. Slots of 108 bytes: an entry of a multi-page ring may
 * straddle two pages, which does not matter to a ring that is mapped in one piece.
 */
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

struct response_x86_32 {
    u64_aligned4 id;
    uint8_t operation;
    int16_t status;
};

_Static_assert(sizeof(struct request_x86_32) == 108, "x86_32-abi: request");
_Static_assert(offsetof(struct request_x86_32, id) == 4 && offsetof(struct request_x86_32, sector_number) == 12 &&
                   offsetof(struct request_x86_32, seg) == 20,
               "x86_32-abi: request");
_Static_assert(sizeof(struct response_x86_32) == 12 && offsetof(struct response_x86_32, operation) == 8 &&
                   offsetof(struct response_x86_32, status) == 10,
               "x86_32-abi: response");

static int x86_32_decode(const void *slot, const struct blkreq_limits *limits, struct blkreq *out)
{
    struct request_x86_32 r;
    memcpy(&r, slot, sizeof(r));
    struct blkreq_wire wire = {r.operation, r.nr_segments, r.id, r.sector_number, r.seg};
    return blkreq_check(&wire, limits, out);
}

static void x86_32_encode(const struct blkreq *request, void *slot)
{
    struct request_x86_32 r;
    memset(&r, 0, sizeof(r));
    r.operation = request->operation;
    r.id = request->id;
    r.sector_number = request->sector;
    r.nr_segments = (uint8_t)blkreq_fill_segments(request, r.seg);
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
    .decode = x86_32_decode,
    .encode = x86_32_encode,
    .encode_response = x86_32_encode_response,
    .decode_response = x86_32_decode_response,
};
