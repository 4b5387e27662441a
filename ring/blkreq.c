/* SPDX-License-Identifier: MIT */
#include "ring/blkreq.h"

#include <assert.h>
#include <xen/io/protocols.h>

#include "base/span.h"

/* A file's last byte has an off_t: no sector behind this one can be served, and below it a byte offset never wraps. */
#define SECTORS_LIMIT ((uint64_t)INT64_MAX / SECTOR_BYTES)

/* What a private copy of a slot says, before anything of it is believed. */
struct wire {
    uint8_t operation;
    uint16_t segment_count;
    uint64_t id, sector;
    const void *segments;       /* struct blkif_request_segment[11], unaligned */
    uint8_t indirect_operation; /* these two: of BLKIF_OP_INDIRECT */
    const void *indirect_grefs; /* uint32_t[BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST], unaligned */
    uint8_t span_flag;          /* these two: where blkreq_is_span() or blkreq_is_bus() */
    uint64_t span_sectors;
};

/* Sectors of a block of the disk, a power of two, less one. */
static inline uint32_t block_mask(const struct blkreq_limits *limits)
{
    const uint32_t n = limits->sector_bytes / SECTOR_BYTES;
    assert(n && n <= BLKREQ_SECTORS_PER_PAGE && !(n & (n - 1)));
    return n - 1;
}

static inline bool segment_ok(const struct blkif_request_segment *s, uint32_t mask)
{
    return s->first_sect <= s->last_sect && s->last_sect < BLKREQ_SECTORS_PER_PAGE &&
           !((s->first_sect | (s->last_sect + 1u)) & mask);
}

static inline bool operation_offered(const struct wire *wire, const struct blkreq_limits *limits)
{
    switch (wire->operation) {
    case BLKIF_OP_READ:
    case BLKIF_OP_WRITE: return true;
    case BLKIF_OP_FLUSH_DISKCACHE: return limits->flush;
    case BLKIF_OP_WRITE_BARRIER: return limits->barrier;
    case BLKIF_OP_DISCARD: return limits->discard && !(wire->span_flag & BLKIF_DISCARD_SECURE);
    case BLKIF_OP_INDIRECT:
        return limits->indirect_segments_max &&
               (wire->indirect_operation == BLKIF_OP_READ || wire->indirect_operation == BLKIF_OP_WRITE ||
                (wire->indirect_operation == BLKREQ_OP_WRITE_FUA && limits->fua));
    case BLKREQ_OP_WRITE_ZEROES: return limits->zeroes_sectors_max && !(wire->span_flag & ~BLKREQ_ZEROES_MAY_UNMAP);
    case BLKREQ_OP_WRITE_FUA: return limits->fua;
    case BLKREQ_OP_BUS_MAP:
    case BLKREQ_OP_BUS_UNMAP: return limits->bus_bits != 0;
    default: return false;
    }
}

static bool operation_may_be_empty(uint8_t operation)
{
    return operation == BLKIF_OP_FLUSH_DISKCACHE || operation == BLKIF_OP_WRITE_BARRIER;
}

/* Checks and takes over the segments, and adds up their sectors. */
static inline int segments_check(const void *from, const struct blkreq_limits *limits, struct blkreq *req,
                                 struct blkreq_segment *to)
{
    const uint32_t mask = block_mask(limits);
    uint32_t sectors = 0;
    for (unsigned i = 0; i < req->segment_count; i++) {
        struct blkif_request_segment s;
        memcpy(&s, (const unsigned char *)from + i * sizeof(s), sizeof(s));
        if (!segment_ok(&s, mask))
            return BLKREQ_E_SEGMENT;
        to[i] = (struct blkreq_segment){s.gref, s.first_sect, s.last_sect};
        sectors += s.last_sect - s.first_sect + 1u;
    }
    req->sector_count = sectors;
    return 0;
}

/* The sectors that the request is about; a bare flush means the whole disk: its sector number is not looked at. */
static inline int span_check(uint8_t operation, const struct blkreq_limits *limits, struct blkreq *req)
{
    if (operation != BLKIF_OP_READ && req->sector_count && limits->read_only)
        return BLKREQ_E_READ_ONLY;
    if (!req->sector_count) {
        req->sector = 0;
        return operation_may_be_empty(operation) ? 0 : BLKREQ_E_RANGE;
    }
    if (((req->sector | req->sector_count) & block_mask(limits)) ||
        !span_fits(req->sector, req->sector_count, MIN(limits->capacity_sectors, SECTORS_LIMIT)))
        return BLKREQ_E_RANGE;
    return 0;
}

/* What the slot of an indirect request says; its segments are not here yet. */
static int indirect_check(const struct wire *wire, const struct blkreq_limits *limits, struct blkreq *out)
{
    assert(limits->indirect_segments_max <= BLKREQ_INDIRECT_SEGMENTS_MAX);
    if (!wire->segment_count || wire->segment_count > limits->indirect_segments_max)
        return BLKREQ_E_SEGMENT_COUNT;
    out->segment_count = wire->segment_count;
    out->indirect_pages = (uint16_t)blkreq_indirect_pages(wire->segment_count);
    memcpy(out->indirect_gref, wire->indirect_grefs, out->indirect_pages * sizeof(out->indirect_gref[0]));
    out->operation = wire->indirect_operation;
    return 0;
}

/* A map's pages and access, an unmap's pages: within the device's window. Whether they are mapped is not known here. */
static int bus_check(const struct wire *wire, const struct blkreq_limits *limits, struct blkreq *out)
{
    const bool map = wire->operation == BLKREQ_OP_BUS_MAP;
    const uint64_t count = map ? wire->segment_count : wire->span_sectors;
    assert(limits->bus_bits > PAGE_SHIFT_4K && limits->bus_bits <= PAGE_SHIFT_4K + 32);
    if (!count || count > BLKREQ_BUS_PAGES_MAX || wire->sector % PAGE_BYTES ||
        !span_fits(wire->sector >> PAGE_SHIFT_4K, count, UINT64_C(1) << (limits->bus_bits - PAGE_SHIFT_4K)))
        return BLKREQ_E_BUS;
    if (map ? !wire->span_flag || (wire->span_flag & ~(BLKREQ_BUS_READ | BLKREQ_BUS_WRITE)) : wire->span_flag)
        return BLKREQ_E_BUS;
    out->flag = wire->span_flag;
    out->sector_count = count;
    if (map)
        memcpy(out->indirect_gref, wire->indirect_grefs, sizeof(out->indirect_gref[0]));
    out->operation = wire->operation;
    return 0;
}

/* The one check of all of it: what decode returns. */
static inline int request_check(const struct wire *wire, const struct blkreq_limits *limits, struct blkreq *out)
{
    const uint8_t op = wire->operation;
    const bool indirect = op == BLKIF_OP_INDIRECT && limits->indirect_segments_max;
    out->id = wire->id;
    out->operation = out->flag = 0;
    out->operation_raw = indirect ? wire->indirect_operation : op;
    out->segment_count = out->indirect_pages = 0;
    out->sector = wire->sector;
    out->sector_count = 0;
    if (!operation_offered(wire, limits))
        return BLKREQ_E_OPERATION;
    if (indirect)
        return indirect_check(wire, limits, out);
    if (blkreq_is_bus(op))
        return bus_check(wire, limits, out);
    int code;
    if (blkreq_is_span(op)) {
        out->flag = wire->span_flag;
        out->sector_count = wire->span_sectors;
        code = span_check(op, limits, out);
        if (!code && op == BLKREQ_OP_WRITE_ZEROES && out->sector_count > limits->zeroes_sectors_max)
            code = BLKREQ_E_RANGE;
    } else {
        if (wire->segment_count > BLKREQ_SEGMENTS_MAX || (!wire->segment_count && !operation_may_be_empty(op)))
            return BLKREQ_E_SEGMENT_COUNT;
        out->segment_count = wire->segment_count;
        code = segments_check(wire->segments, limits, out, out->segment);
        code = code ? code : span_check(op, limits, out);
    }
    if (code)
        out->segment_count = 0;
    else
        out->operation = op;
    return code;
}

int blkreq_check_indirect(struct blkreq *req, const struct blkif_request_segment *copy,
                          const struct blkreq_limits *limits, struct blkreq_segment *segment)
{
    assert(req->indirect_pages && req->segment_count <= BLKREQ_INDIRECT_SEGMENTS_MAX);
    int code = segments_check(copy, limits, req, segment);
    return code ? code : span_check(req->operation, limits, req);
}

static void fill_segments(const struct blkreq_segment *from, unsigned count, void *to)
{
    for (unsigned i = 0; i < count; i++) {
        struct blkif_request_segment s = {from[i].gref, from[i].first_sector, from[i].last_sector};
        memcpy((unsigned char *)to + i * sizeof(s), &s, sizeof(s));
    }
}

/* ---- the rows ---- */

const struct blk_protocol blk_protocol_native = {
    .name = XEN_IO_PROTO_ABI_X86_64,
    .request_bytes = sizeof(struct blkif_request),
    .response_bytes = sizeof(struct blkif_response),
    .slot_bytes = sizeof(union blkif_sring_entry),
    .id = offsetof(struct blkif_request, id),
    .sector = offsetof(struct blkif_request, sector_number),
    .segments = offsetof(struct blkif_request, seg),
    .indirect_grefs = offsetof(struct blkif_request_indirect, indirect_grefs),
    .span_sectors = offsetof(struct blkif_request_discard, nr_sectors),
};

/* There 64-bit numbers are aligned to 4 bytes, so the padding in front of `id` goes away and every later field moves
 * up. Xen's header only gives the layout of the compiler that reads it, therefore these numbers are our own. An entry
 * of a multi-page ring may straddle two pages, which does not matter to a ring that is mapped in one piece. */
const struct blk_protocol blk_protocol_x86_32 = {
    .name = XEN_IO_PROTO_ABI_X86_32,
    .request_bytes = 108,
    .response_bytes = 12,
    .slot_bytes = 108,
    .id = 4,
    .sector = 12,
    .segments = 20,
    .indirect_grefs = 24,
    .span_sectors = 20,
};

/* What is at the same place in both. */
#define AT_OPERATION         0
#define AT_FLAG              1 /* or the number of segments, or an indirect request's operation */
#define AT_INDIRECT_SEGMENTS 2
#define AT_RESPONSE_TAIL     sizeof(uint64_t) /* operation, padding, status */
_Static_assert(offsetof(struct blkif_request, operation) == AT_OPERATION &&
                   offsetof(struct blkif_request, nr_segments) == AT_FLAG &&
                   sizeof(struct blkif_request) <= sizeof(union blkif_sring_entry),
               "blkif.h: request");
_Static_assert(offsetof(struct blkif_request_indirect, indirect_op) == AT_FLAG &&
                   offsetof(struct blkif_request_indirect, nr_segments) == AT_INDIRECT_SEGMENTS &&
                   offsetof(struct blkif_request_indirect, id) == offsetof(struct blkif_request, id) &&
                   offsetof(struct blkif_request_indirect, sector_number) ==
                       offsetof(struct blkif_request, sector_number),
               "blkif.h: indirect request");
_Static_assert(offsetof(struct blkif_request_discard, flag) == AT_FLAG &&
                   offsetof(struct blkif_request_discard, id) == offsetof(struct blkif_request, id) &&
                   offsetof(struct blkif_request_discard, sector_number) ==
                       offsetof(struct blkif_request, sector_number),
               "blkif.h: discard");
_Static_assert(offsetof(struct blkif_response, id) == 0 &&
                   offsetof(struct blkif_response, operation) == AT_RESPONSE_TAIL &&
                   offsetof(struct blkif_response, status) == AT_RESPONSE_TAIL + 2,
               "blkif.h: response");

int blkreq_decode(const struct blk_protocol *p, const void *slot_copy, const struct blkreq_limits *limits,
                  struct blkreq *out)
{
    const unsigned char *slot = slot_copy;
    struct wire wire = {.operation = slot[AT_OPERATION], .segment_count = slot[AT_FLAG]};
    memcpy(&wire.id, slot + p->id, sizeof(wire.id));
    memcpy(&wire.sector, slot + p->sector, sizeof(wire.sector));
    wire.segments = slot + p->segments;
    if (wire.operation == BLKIF_OP_INDIRECT || wire.operation == BLKREQ_OP_BUS_MAP) {
        wire.indirect_operation = wire.span_flag = slot[AT_FLAG];
        memcpy(&wire.segment_count, slot + AT_INDIRECT_SEGMENTS, sizeof(wire.segment_count));
        wire.indirect_grefs = slot + p->indirect_grefs;
    } else if (blkreq_is_span(wire.operation) || wire.operation == BLKREQ_OP_BUS_UNMAP) {
        wire.span_flag = slot[AT_FLAG];
        memcpy(&wire.span_sectors, slot + p->span_sectors, sizeof(wire.span_sectors));
    }
    return request_check(&wire, limits, out);
}

void blkreq_encode(const struct blk_protocol *p, const struct blkreq *request, void *to_slot)
{
    unsigned char *slot = to_slot;
    const bool own_segments =
        !request->indirect_pages && !blkreq_is_span(request->operation) && !blkreq_is_bus(request->operation);
    memset(slot, 0, own_segments ? BLKREQ_HEAD_BYTES : p->request_bytes);
    slot[AT_OPERATION] = request->operation;
    memcpy(slot + p->id, &request->id, sizeof(request->id));
    memcpy(slot + p->sector, &request->sector, sizeof(request->sector));
    if (own_segments) {
        assert(request->segment_count <= BLKREQ_SEGMENTS_MAX);
        slot[AT_FLAG] = (uint8_t)request->segment_count;
        fill_segments(request->segment, request->segment_count, slot + p->segments);
    } else if (request->indirect_pages) {
        slot[AT_OPERATION] = BLKIF_OP_INDIRECT;
        slot[AT_FLAG] = request->operation;
        memcpy(slot + AT_INDIRECT_SEGMENTS, &request->segment_count, sizeof(request->segment_count));
        memcpy(slot + p->indirect_grefs, request->indirect_gref,
               request->indirect_pages * sizeof(request->indirect_gref[0]));
    } else if (request->operation == BLKREQ_OP_BUS_MAP) {
        const uint16_t count = (uint16_t)request->sector_count;
        slot[AT_FLAG] = request->flag;
        memcpy(slot + AT_INDIRECT_SEGMENTS, &count, sizeof(count));
        memcpy(slot + p->indirect_grefs, request->indirect_gref, sizeof(request->indirect_gref[0]));
    } else {
        slot[AT_FLAG] = request->flag;
        memcpy(slot + p->span_sectors, &request->sector_count, sizeof(request->sector_count));
    }
}

/* Byte by byte: an assignment to a struct may write anything into its padding. */
void blkreq_encode_response(const struct blk_protocol *p, uint64_t id, uint8_t operation, int16_t status, void *to_slot)
{
    unsigned char *slot = to_slot;
    const unsigned char tail[] = {operation, 0, (unsigned char)status, (unsigned char)((uint16_t)status >> 8)};
    memcpy(slot, &id, sizeof(id));
    memcpy(slot + AT_RESPONSE_TAIL, tail, sizeof(tail));
    if (p->response_bytes > AT_RESPONSE_TAIL + sizeof(tail))
        memset(slot + AT_RESPONSE_TAIL + sizeof(tail), 0, p->response_bytes - AT_RESPONSE_TAIL - sizeof(tail));
}

#define AT_BUS_ADDRESS 16

void blkreq_encode_bus_address(uint64_t address, void *to_slot)
{
    memcpy((unsigned char *)to_slot + AT_BUS_ADDRESS, &address, sizeof(address));
}

uint64_t blkreq_decode_bus_address(const void *slot_copy)
{
    uint64_t address;
    memcpy(&address, (const unsigned char *)slot_copy + AT_BUS_ADDRESS, sizeof(address));
    return address;
}

void blkreq_decode_response(const void *slot_copy, uint64_t *id, uint8_t *operation, int16_t *status)
{
    const unsigned char *slot = slot_copy;
    memcpy(id, slot, sizeof(*id));
    *operation = slot[AT_RESPONSE_TAIL];
    memcpy(status, slot + AT_RESPONSE_TAIL + 2, sizeof(*status));
}

/* ---- the rows by the value of the `protocol` key ---- */

static const struct {
    const char *key;
    const struct blk_protocol *row;
} protocols[] = {
    {XEN_IO_PROTO_ABI_X86_64, &blk_protocol_native},
    {XEN_IO_PROTO_ABI_ARM, &blk_protocol_native}, /* the same layout */
    {XEN_IO_PROTO_ABI_X86_32, &blk_protocol_x86_32},
};

const struct blk_protocol *blk_protocol_find(const char *name)
{
    if (!name)
        return &blk_protocol_native;
    for (size_t i = 0; i < ARRAY_SIZE(protocols); i++)
        if (!strcmp(protocols[i].key, name))
            return protocols[i].row;
    return NULL;
}

/* ---- what the peer did wrong, for counters and for people ---- */

static const struct {
    const char *name, *text;
} errors[BLKREQ_E_COUNT_] = {
    [BLKREQ_E_OPERATION] = {"operation", "the request asks for an operation that this device did not offer"},
    [BLKREQ_E_SEGMENT_COUNT] = {"segment-count", "the request has no segments, or more than were offered"},
    [BLKREQ_E_SEGMENT] = {"segment",
                          "a segment ends before it begins, leaves its page or is no multiple of the sector"},
    [BLKREQ_E_READ_ONLY] = {"read-only", "the request writes to a read-only disk"},
    [BLKREQ_E_RANGE] = {"range",
                        "the request reaches past the end of the disk, begins or ends within a sector, is empty, or "
                        "is to zero more than was offered"},
    [BLKREQ_E_BUS] = {"bus", "a map or unmap of bus addresses is of no page or too many, begins within a page, ends "
                             "beyond the device's window, or allows nothing"},
    [BLKREQ_E_BUS_TAKEN] = {"bus-taken", "a map is to bus addresses that are taken, or whose unmap has not ended"},
    [BLKREQ_E_BUS_LIMIT] = {"bus-limit", "a map is of more than the device may have mapped at once"},
    [BLKREQ_E_BUS_UNMAP] = {"bus-unmap", "an unmap is of bus addresses that this ring has not mapped"},
};

const char *blkreq_error_name(int code)
{
    return code > 0 && code < BLKREQ_E_COUNT_ ? errors[code].name : "unknown";
}

const char *blkreq_error_text(int code)
{
    return code > 0 && code < BLKREQ_E_COUNT_ ? errors[code].text : "no code of the block codec";
}
