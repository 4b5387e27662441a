/* SPDX-License-Identifier: MIT */
#include "ring/blkreq.h"

#include <assert.h>
#include <xen/io/protocols.h>

#include "base/span.h"

/* A file's last byte has an off_t: no sector behind this one can be served, and below it a byte offset never wraps. */
#define SECTORS_LIMIT ((uint64_t)INT64_MAX / SECTOR_BYTES)

static bool segment_ok(const struct blkif_request_segment *s, uint32_t sectors_per_block)
{
    return s->first_sect <= s->last_sect && s->last_sect < BLKREQ_SECTORS_PER_PAGE &&
           s->first_sect % sectors_per_block == 0 && (s->last_sect + 1u) % sectors_per_block == 0;
}

static bool operation_offered(const struct blkreq_wire *wire, const struct blkreq_limits *limits)
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
    default: return false;
    }
}

static bool operation_may_be_empty(uint8_t operation)
{
    return operation == BLKIF_OP_FLUSH_DISKCACHE || operation == BLKIF_OP_WRITE_BARRIER;
}

static uint32_t sectors_per_block(const struct blkreq_limits *limits)
{
    const uint32_t n = limits->sector_bytes / SECTOR_BYTES;
    assert(n && BLKREQ_SECTORS_PER_PAGE % n == 0);
    return n;
}

/* Checks and takes over the segments, and adds up their sectors. */
static int segments_check(const struct blkif_request_segment *from, const struct blkreq_limits *limits,
                          struct blkreq *req, struct blkreq_segment *to)
{
    const uint32_t per_block = sectors_per_block(limits);
    req->sector_count = 0;
    for (unsigned i = 0; i < req->segment_count; i++) {
        const struct blkif_request_segment *s = &from[i];
        if (!segment_ok(s, per_block))
            return BLKREQ_E_SEGMENT;
        to[i] = (struct blkreq_segment){s->gref, s->first_sect, s->last_sect};
        req->sector_count += s->last_sect - s->first_sect + 1u;
    }
    return 0;
}

/* The sectors that the request is about; a bare flush means the whole disk: its sector number is not looked at. */
static int span_check(uint8_t operation, const struct blkreq_limits *limits, struct blkreq *req)
{
    const uint32_t per_block = sectors_per_block(limits);
    if (operation != BLKIF_OP_READ && req->sector_count && limits->read_only)
        return BLKREQ_E_READ_ONLY;
    if (!req->sector_count) {
        req->sector = 0;
        return operation_may_be_empty(operation) ? 0 : BLKREQ_E_RANGE;
    }
    if (req->sector % per_block || req->sector_count % per_block ||
        !span_fits(req->sector, req->sector_count, MIN(limits->capacity_sectors, SECTORS_LIMIT)))
        return BLKREQ_E_RANGE;
    return 0;
}

/* What the slot of an indirect request says; its segments are not here yet. */
static int indirect_check(const struct blkreq_wire *wire, const struct blkreq_limits *limits, struct blkreq *out)
{
    assert(limits->indirect_segments_max <= BLKREQ_INDIRECT_SEGMENTS_MAX);
    if (!wire->segment_count || wire->segment_count > limits->indirect_segments_max)
        return BLKREQ_E_SEGMENT_COUNT;
    out->segment_count = wire->segment_count;
    out->indirect_pages = (uint16_t)blkreq_indirect_pages(wire->segment_count);
    memcpy(out->indirect_gref, wire->indirect_gref, out->indirect_pages * sizeof(out->indirect_gref[0]));
    out->operation = wire->indirect_operation;
    return 0;
}

int blkreq_check(const struct blkreq_wire *wire, const struct blkreq_limits *limits, struct blkreq *out)
{
    const uint8_t op = wire->operation;
    const bool indirect = op == BLKIF_OP_INDIRECT && limits->indirect_segments_max;
    *out = (struct blkreq){
        .id = wire->id, .operation_raw = indirect ? wire->indirect_operation : op, .sector = wire->sector};
    if (!operation_offered(wire, limits))
        return BLKREQ_E_OPERATION;
    if (indirect)
        return indirect_check(wire, limits, out);
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
        code = segments_check(wire->segment, limits, out, out->segment);
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

void blkreq_fill_segments(const struct blkreq_segment *from, unsigned count, struct blkif_request_segment *to)
{
    for (unsigned i = 0; i < count; i++) {
        to[i].gref = from[i].gref;
        to[i].first_sect = from[i].first_sector;
        to[i].last_sect = from[i].last_sector;
    }
}

/* ---- the native row: Xen's structs as this compiler lays them out ---- */

union request_native {
    struct blkif_request rw;
    struct blkif_request_indirect indirect;
    struct blkif_request_discard discard;
};

_Static_assert(sizeof(union request_native) == sizeof(struct blkif_request), "blkif.h: one slot for all requests");
_Static_assert(offsetof(struct blkif_request_indirect, nr_segments) == 2 &&
                   offsetof(struct blkif_request_indirect, id) == 8 &&
                   offsetof(struct blkif_request_indirect, sector_number) == 16 &&
                   offsetof(struct blkif_request_indirect, indirect_grefs) == 28,
               "blkif.h: indirect request");
_Static_assert(offsetof(struct blkif_request_discard, id) == 8 &&
                   offsetof(struct blkif_request_discard, sector_number) == 16 &&
                   offsetof(struct blkif_request_discard, nr_sectors) == 24,
               "blkif.h: discard");

static int native_decode(const void *slot, const struct blkreq_limits *limits, struct blkreq *out)
{
    union request_native r;
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

static void native_encode(const struct blkreq *request, void *slot)
{
    union request_native r;
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

/* Field by field into zeroes: an assignment to a struct may write anything into its padding. */
static void native_encode_response(uint64_t id, uint8_t operation, int16_t status, void *slot)
{
    unsigned char *to = slot;
    memset(to, 0, sizeof(struct blkif_response));
    memcpy(to + offsetof(struct blkif_response, id), &id, sizeof(id));
    memcpy(to + offsetof(struct blkif_response, operation), &operation, sizeof(operation));
    memcpy(to + offsetof(struct blkif_response, status), &status, sizeof(status));
}

static void native_decode_response(const void *slot, uint64_t *id, uint8_t *operation, int16_t *status)
{
    struct blkif_response r;
    memcpy(&r, slot, sizeof(r));
    *id = r.id;
    *operation = r.operation;
    *status = r.status;
}

const struct blk_protocol blk_protocol_native = {
    .name = XEN_IO_PROTO_ABI_X86_64,
    .request_bytes = sizeof(struct blkif_request),
    .response_bytes = sizeof(struct blkif_response),
    .slot_bytes = sizeof(union blkif_sring_entry),
    .segments_offset = offsetof(struct blkif_request, seg),
    .decode = native_decode,
    .encode = native_encode,
    .encode_response = native_encode_response,
    .decode_response = native_decode_response,
};

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
};

const char *blkreq_error_name(int code)
{
    return code > 0 && code < BLKREQ_E_COUNT_ ? errors[code].name : "unknown";
}

const char *blkreq_error_text(int code)
{
    return code > 0 && code < BLKREQ_E_COUNT_ ? errors[code].text : "no code of the block codec";
}
