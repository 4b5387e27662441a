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

int blkreq_check(const struct blkreq_wire *wire, const struct blkreq_limits *limits, struct blkreq *out)
{
    const uint8_t op = wire->operation;
    const uint32_t sectors_per_block = limits->sector_bytes / SECTOR_BYTES;
    assert(sectors_per_block && BLKREQ_SECTORS_PER_PAGE % sectors_per_block == 0);

    *out = (struct blkreq){.id = wire->id, .operation_raw = op};
    if (op != BLKIF_OP_READ && op != BLKIF_OP_WRITE && !(op == BLKIF_OP_FLUSH_DISKCACHE && limits->flush))
        return BLKREQ_E_OPERATION;
    if (wire->segment_count > BLKREQ_SEGMENTS_MAX || (!wire->segment_count && op != BLKIF_OP_FLUSH_DISKCACHE))
        return BLKREQ_E_SEGMENT_COUNT;

    uint32_t count = 0;
    for (unsigned i = 0; i < wire->segment_count; i++) {
        const struct blkif_request_segment *s = &wire->segment[i];
        if (!segment_ok(s, sectors_per_block))
            return BLKREQ_E_SEGMENT;
        out->segment[i] = (struct blkreq_segment){s->gref, s->first_sect, s->last_sect};
        count += s->last_sect - s->first_sect + 1u;
    }
    if (op != BLKIF_OP_READ && count && limits->read_only)
        return BLKREQ_E_READ_ONLY;
    if (count && (wire->sector % sectors_per_block ||
                  !span_fits(wire->sector, count, MIN(limits->capacity_sectors, SECTORS_LIMIT))))
        return BLKREQ_E_RANGE;

    out->operation = op;
    out->segment_count = wire->segment_count;
    out->sector = count ? wire->sector : 0; /* a bare flush means the whole disk: its sector number is not looked at */
    out->sector_count = count;
    return 0;
}

unsigned blkreq_fill_segments(const struct blkreq *request, struct blkif_request_segment *segment)
{
    assert(request->segment_count <= BLKREQ_SEGMENTS_MAX);
    for (unsigned i = 0; i < request->segment_count; i++) {
        segment[i].gref = request->segment[i].gref;
        segment[i].first_sect = request->segment[i].first_sector;
        segment[i].last_sect = request->segment[i].last_sector;
    }
    return request->segment_count;
}

/* ---- the native row: Xen's structs as this compiler lays them out ---- */

static int native_decode(const void *slot, const struct blkreq_limits *limits, struct blkreq *out)
{
    struct blkif_request r;
    memcpy(&r, slot, sizeof(r));
    struct blkreq_wire wire = {r.operation, r.nr_segments, r.id, r.sector_number, r.seg};
    return blkreq_check(&wire, limits, out);
}

static void native_encode(const struct blkreq *request, void *slot)
{
    struct blkif_request r;
    memset(&r, 0, sizeof(r));
    r.operation = request->operation;
    r.id = request->id;
    r.sector_number = request->sector;
    r.nr_segments = (uint8_t)blkreq_fill_segments(request, r.seg);
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
    [BLKREQ_E_SEGMENT_COUNT] = {"segment-count", "the request has no segments, or more than a ring slot can hold"},
    [BLKREQ_E_SEGMENT] = {"segment",
                          "a segment ends before it begins, leaves its page or is no multiple of the sector"},
    [BLKREQ_E_READ_ONLY] = {"read-only", "the request writes to a read-only disk"},
    [BLKREQ_E_RANGE] = {"range", "the request reaches past the end of the disk or begins within a sector"},
};

const char *blkreq_error_name(int code)
{
    return code > 0 && code < BLKREQ_E_COUNT_ ? errors[code].name : "unknown";
}

const char *blkreq_error_text(int code)
{
    return code > 0 && code < BLKREQ_E_COUNT_ ? errors[code].text : "no code of the block codec";
}
