/* SPDX-License-Identifier: MIT */
/* The block codec: what a hostile frontend can put into a slot, for each protocol row. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "ring/blkreq.h"
#include "ring/ring.h"
#include "tests/random.h"

static const char *const keys[] = {NULL, "x86_64-abi", "arm-abi", "x86_32-abi"};

#define foreach_row(row) \
    for (size_t row##_i = 0; row##_i < ARRAY_SIZE(keys) && ((row) = blk_protocol_find(keys[row##_i])); row##_i++)

static const struct blkreq_limits disk = {.capacity_sectors = 4096, .sector_bytes = 512, .flush = true};

static struct blkreq plain(uint8_t operation, uint64_t sector, unsigned segments)
{
    struct blkreq r = {.id = 0x1122334455667788, .operation = operation, .operation_raw = operation};
    r.sector = sector;
    r.segment_count = (uint16_t)segments;
    for (unsigned i = 0; i < segments && i < BLKREQ_SEGMENTS_MAX; i++)
        r.segment[i] = (struct blkreq_segment){.gref = 8 + i, .first_sector = 0, .last_sector = 7};
    r.sector_count = segments * 8;
    return r;
}

/* Encodes as the row does, then decodes. */
static int pass(const struct blk_protocol *row, const struct blkreq *in, const struct blkreq_limits *limits,
                struct blkreq *out)
{
    unsigned char slot[256];
    memset(slot, 0xa5, sizeof(slot));
    blkreq_encode(row, in, slot);
    for (size_t i = row->request_bytes; i < sizeof(slot); i++)
        assert_int_equal(slot[i], 0xa5);
    return blkreq_decode(row, slot, limits, out);
}

static int decode_of(const struct blkreq *in, const struct blkreq_limits *limits)
{
    const struct blk_protocol *row;
    struct blkreq out;
    int first = pass(blk_protocol_find(NULL), in, limits, &out);
    foreach_row(row)
    {
        assert_int_equal(pass(row, in, limits, &out), first);
        assert_true(out.id == in->id);
        assert_int_equal(out.operation_raw, in->operation);
    }
    return first;
}

static void test_rows_are_found_by_the_protocol_key(void **state)
{
    (void)state;
    assert_ptr_equal(blk_protocol_find(NULL), &blk_protocol_native);
    assert_ptr_equal(blk_protocol_find("x86_64-abi"), &blk_protocol_native);
    assert_ptr_equal(blk_protocol_find("arm-abi"), &blk_protocol_native);
    assert_ptr_equal(blk_protocol_find("x86_32-abi"), &blk_protocol_x86_32);
    assert_null(blk_protocol_find(""));
    assert_null(blk_protocol_find("x86_64-abi "));
    const struct blk_protocol *row;
    foreach_row(row)
    {
        assert_int_equal(ring_entries(PAGE_BYTES, row->slot_bytes), 32);
        assert_int_equal(ring_entries(16 * PAGE_BYTES, row->slot_bytes), 512);
        assert_true(row->request_bytes <= row->slot_bytes && row->response_bytes <= row->slot_bytes);
    }
    assert_int_equal(blk_protocol_native.request_bytes, 112);
    assert_int_equal(blk_protocol_native.response_bytes, 16);
    assert_int_equal(blk_protocol_x86_32.request_bytes, 108);
    assert_int_equal(blk_protocol_x86_32.response_bytes, 12);
}

static void test_what_is_encoded_is_decoded(void **state)
{
    (void)state;
    const struct blk_protocol *row;
    uint64_t seed = 20260201;
    foreach_row(row) for (int step = 0; step < 2000; step++)
    {
        struct blkreq in = plain(step & 1 ? BLKIF_OP_READ : BLKIF_OP_WRITE, random_next(&seed) % 4000, 1 + step % 11);
        in.sector_count = 0;
        for (unsigned i = 0; i < in.segment_count; i++) {
            uint8_t first = random_next(&seed) % 8;
            uint8_t last = first + random_next(&seed) % (8 - first);
            in.segment[i] = (struct blkreq_segment){random_next(&seed), first, last};
            in.sector_count += last - first + 1u;
        }
        struct blkreq out;
        memset(&out, 0, sizeof(out)); /* the holes between the fields, which `in` has as zeroes */
        assert_int_equal(pass(row, &in, &disk, &out), 0);
        assert_memory_equal(&in, &out, offsetof(struct blkreq, segment));
        assert_memory_equal(in.segment, out.segment, in.segment_count * sizeof(in.segment[0]));
    }
}

/* The layout itself, byte by byte, so that it does not rest on the structs that the rows use. */
static void test_requests_lie_where_the_wire_has_them(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        size_t id, sector, segment;
    } wire[] = {{"x86_64-abi", 8, 16, 24}, {"x86_32-abi", 4, 12, 20}};
    for (size_t i = 0; i < ARRAY_SIZE(wire); i++) {
        unsigned char slot[112];
        struct blkreq in = plain(BLKIF_OP_WRITE, 0x123456, 2);
        in.segment[1] = (struct blkreq_segment){0xdeadbeef, 2, 5};
        blkreq_encode(blk_protocol_find(wire[i].key), &in, slot);
        const unsigned char *second = slot + wire[i].segment + 8;
        assert_int_equal(slot[0], 1);
        assert_int_equal(slot[1], 2);
        assert_memory_equal(slot + wire[i].id, "\x88\x77\x66\x55\x44\x33\x22\x11", 8);
        assert_memory_equal(slot + wire[i].sector, "\x56\x34\x12\0\0\0\0\0", 8);
        assert_memory_equal(second, "\xef\xbe\xad\xde\x02\x05\0\0", 8);
    }
}

static void test_only_offered_operations_are_accepted(void **state)
{
    (void)state;
    struct blkreq_limits no_flush = disk;
    no_flush.flush = false;
    for (unsigned op = 0; op < 256; op++) {
        struct blkreq in = plain((uint8_t)op, 0, 1);
        bool rw = op == BLKIF_OP_READ || op == BLKIF_OP_WRITE;
        assert_int_equal(decode_of(&in, &disk), rw || op == BLKIF_OP_FLUSH_DISKCACHE ? 0 : BLKREQ_E_OPERATION);
        assert_int_equal(decode_of(&in, &no_flush), rw ? 0 : BLKREQ_E_OPERATION);
    }
}

static void test_segment_counts_are_one_to_eleven(void **state)
{
    (void)state;
    const struct blk_protocol *row;
    foreach_row(row) for (unsigned n = 0; n < 256; n++)
    {
        unsigned char slot[112];
        struct blkreq in = plain(BLKIF_OP_READ, 0, 11), out;
        blkreq_encode(row, &in, slot);
        slot[1] = (unsigned char)n; /* nr_segments, in both layouts */
        int expected = n >= 1 && n <= 11 ? 0 : BLKREQ_E_SEGMENT_COUNT;
        assert_int_equal(blkreq_decode(row, slot, &disk, &out), expected);
        assert_int_equal(out.segment_count, expected ? 0 : n);
        slot[0] = BLKIF_OP_FLUSH_DISKCACHE;
        assert_int_equal(blkreq_decode(row, slot, &disk, &out), n <= 11 ? 0 : BLKREQ_E_SEGMENT_COUNT);
    }
}

static void test_a_segment_stays_in_its_page(void **state)
{
    (void)state;
    for (unsigned first = 0; first < 256; first++)
        for (unsigned last = 0; last < 256; last += 1 + (last > 16) * 13) {
            struct blkreq in = plain(BLKIF_OP_READ, 0, 3);
            in.segment[1].first_sector = (uint8_t)first;
            in.segment[1].last_sector = (uint8_t)last;
            assert_int_equal(decode_of(&in, &disk), first <= last && last <= 7 ? 0 : BLKREQ_E_SEGMENT);
        }
}

static void test_large_sectors_are_never_split(void **state)
{
    (void)state;
    struct blkreq_limits large = disk;
    large.sector_bytes = 4096;
    for (unsigned first = 0; first < 8; first++)
        for (unsigned last = first; last < 8; last++) {
            struct blkreq in = plain(BLKIF_OP_WRITE, 8, 2);
            in.segment[1].first_sector = (uint8_t)first;
            in.segment[1].last_sector = (uint8_t)last;
            assert_int_equal(decode_of(&in, &large), first == 0 && last == 7 ? 0 : BLKREQ_E_SEGMENT);
        }
    for (uint64_t sector = 0; sector < 32; sector++) {
        struct blkreq in = plain(BLKIF_OP_WRITE, sector, 1);
        assert_int_equal(decode_of(&in, &large), sector % 8 ? BLKREQ_E_RANGE : 0);
    }
}

static void test_nothing_past_the_end_is_reached(void **state)
{
    (void)state;
    for (uint64_t sector = 4096 - 96; sector < 4100; sector++)
        for (unsigned n = 1; n <= 11; n++) {
            struct blkreq in = plain(BLKIF_OP_READ, sector, n);
            assert_int_equal(decode_of(&in, &disk), sector + n * 8 <= 4096 ? 0 : BLKREQ_E_RANGE);
        }
    struct blkreq_limits empty = disk;
    empty.capacity_sectors = 0;
    struct blkreq in = plain(BLKIF_OP_READ, 0, 1);
    assert_int_equal(decode_of(&in, &empty), BLKREQ_E_RANGE);
}

/* QEMU 7.2's disk backend took sector 2^55: times 512 that is 0. */
static void test_lesson_qemu_sector_times_512_never_wraps(void **state)
{
    (void)state;
    struct blkreq_limits endless = disk;
    endless.capacity_sectors = UINT64_MAX; /* even a backend that is wrong about its disk */
    const uint64_t last = (uint64_t)INT64_MAX / 512;
    const uint64_t bad[] = {1ull << 55, (1ull << 55) - 8, 1ull << 54, UINT64_MAX, UINT64_MAX - 7, last, last - 7};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct blkreq in = plain(BLKIF_OP_WRITE, bad[i], 1);
        assert_int_equal(decode_of(&in, &endless), BLKREQ_E_RANGE);
        assert_int_equal(decode_of(&in, &disk), BLKREQ_E_RANGE);
    }
    struct blkreq in = plain(BLKIF_OP_WRITE, last - 8, 1);
    assert_int_equal(decode_of(&in, &endless), 0);
}

static void test_lesson_142_read_only_is_held_by_the_backend(void **state)
{
    (void)state;
    struct blkreq_limits read_only = disk;
    read_only.read_only = true;
    struct blkreq in = plain(BLKIF_OP_READ, 0, 1);
    assert_int_equal(decode_of(&in, &read_only), 0);
    in = plain(BLKIF_OP_WRITE, 0, 1);
    assert_int_equal(decode_of(&in, &read_only), BLKREQ_E_READ_ONLY);
    in = plain(BLKIF_OP_FLUSH_DISKCACHE, 0, 1); /* a flush with data writes */
    assert_int_equal(decode_of(&in, &read_only), BLKREQ_E_READ_ONLY);
    in = plain(BLKIF_OP_FLUSH_DISKCACHE, 0, 0);
    assert_int_equal(decode_of(&in, &read_only), 0);
}

static void test_a_flush_may_carry_data_and_then_obeys_its_rules(void **state)
{
    (void)state;
    struct blkreq out;
    struct blkreq in = plain(BLKIF_OP_FLUSH_DISKCACHE, UINT64_MAX, 0); /* a bare one's sector means nothing */
    assert_int_equal(pass(&blk_protocol_native, &in, &disk, &out), 0);
    assert_int_equal(out.sector_count, 0);
    assert_true(out.sector == 0);
    in = plain(BLKIF_OP_FLUSH_DISKCACHE, 4096 - 16, 2);
    assert_int_equal(pass(&blk_protocol_native, &in, &disk, &out), 0);
    assert_int_equal(out.operation, BLKIF_OP_FLUSH_DISKCACHE);
    assert_int_equal(out.sector_count, 16);
    in.sector++;
    assert_int_equal(pass(&blk_protocol_native, &in, &disk, &out), BLKREQ_E_RANGE);
}

/* Whatever the bytes: an accepted request keeps to the disk and its pages, a refused one keeps its id for the answer.
 */
static void test_random_bytes_never_leave_the_disk(void **state)
{
    (void)state;
    const struct blk_protocol *row;
    uint64_t seed = 20260202;
    unsigned accepted = 0;
    foreach_row(row) for (int step = 0; step < 20000; step++)
    {
        unsigned char slot[112];
        for (size_t i = 0; i < sizeof(slot); i++)
            slot[i] = (unsigned char)(random_next(&seed) % (step & 1 ? 8 : 256));
        slot[0] %= 8;
        if (step & 1) /* likely enough to pass: a small sector */
            memset(slot + row->request_bytes - 11 * 8 - 7, 0, 7);
        struct blkreq r;
        int code = blkreq_decode(row, slot, &disk, &r);
        assert_in_range(code, 0, BLKREQ_E_COUNT_ - 1);
        assert_int_equal(r.operation_raw, slot[0]);
        assert_memory_equal(&r.id, slot + row->request_bytes - 11 * 8 - 16, 8);
        if (code)
            continue;
        uint32_t sum = 0;
        for (unsigned i = 0; i < r.segment_count; i++) {
            assert_true(r.segment[i].first_sector <= r.segment[i].last_sector && r.segment[i].last_sector < 8);
            sum += r.segment[i].last_sector - r.segment[i].first_sector + 1u;
        }
        assert_int_equal(sum, r.sector_count);
        assert_true(r.sector_count <= 88 && r.sector <= 4096 - r.sector_count);
        accepted++;
    }
    assert_true(accepted > 100); /* else this test tests nothing */
}

/* ---- indirect requests and discards ---- */

static const struct blkreq_limits wide = {.capacity_sectors = 4096,
                                          .sector_bytes = 512,
                                          .flush = true,
                                          .discard = true,
                                          .indirect_segments_max = BLKREQ_INDIRECT_SEGMENTS_MAX};

static struct blkreq indirect(uint8_t operation, uint64_t sector, unsigned segments)
{
    struct blkreq r = {.id = 0x1122334455667788, .operation = operation, .operation_raw = operation};
    r.sector = sector;
    r.segment_count = (uint16_t)segments;
    r.indirect_pages = 1;
    r.indirect_gref[0] = 0xcafe;
    return r;
}

static void segments_plain(struct blkif_request_segment *s, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        s[i] = (struct blkif_request_segment){.gref = 8 + i, .last_sect = 7};
}

static void test_indirect_requests_and_discards_lie_where_the_wire_has_them(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        size_t id, sector, grefs, sectors;
    } wire[] = {{"x86_64-abi", 8, 16, 28, 24}, {"x86_32-abi", 4, 12, 24, 20}};
    for (size_t i = 0; i < ARRAY_SIZE(wire); i++) {
        const struct blk_protocol *row = blk_protocol_find(wire[i].key);
        unsigned char slot[112];
        struct blkreq in = indirect(BLKIF_OP_WRITE, 0x123456, 0x102), out;
        blkreq_encode(row, &in, slot);
        assert_memory_equal(slot, "\x06\x01\x02\x01", 4);
        assert_memory_equal(slot + wire[i].id, "\x88\x77\x66\x55\x44\x33\x22\x11", 8);
        assert_memory_equal(slot + wire[i].sector, "\x56\x34\x12\0\0\0\0\0", 8);
        assert_memory_equal(slot + wire[i].grefs, "\xfe\xca\0\0\0\0\0\0", 8);
        in = plain(BLKIF_OP_DISCARD, 0x10, 0);
        in.sector_count = 0x0fe0;
        blkreq_encode(row, &in, slot);
        assert_memory_equal(slot, "\x05\0", 2);
        assert_memory_equal(slot + wire[i].sector, "\x10\0\0\0\0\0\0\0", 8);
        assert_memory_equal(slot + wire[i].sectors, "\xe0\x0f\0\0\0\0\0\0", 8);
        assert_int_equal(blkreq_decode(row, slot, &wide, &out), 0);
        assert_true(out.operation == BLKIF_OP_DISCARD && out.sector == 0x10 && out.sector_count == 0x0fe0);
        slot[1] = BLKIF_DISCARD_SECURE; /* cannot be promised, so it is not done by halves */
        assert_int_equal(blkreq_decode(row, slot, &wide, &out), BLKREQ_E_OPERATION);
    }
}

static void test_an_indirect_request_has_as_many_segments_as_were_offered(void **state)
{
    (void)state;
    for (unsigned offered = 0; offered <= 256; offered += 32)
        for (unsigned n = 0; n < 0x10000; n += n < 600 ? 1 : 997) {
            struct blkreq_limits limits = wide;
            limits.indirect_segments_max = (uint16_t)offered;
            struct blkreq in = indirect(BLKIF_OP_READ, 0, n);
            int expected = !offered ? BLKREQ_E_OPERATION : n && n <= offered ? 0 : BLKREQ_E_SEGMENT_COUNT;
            const struct blk_protocol *row;
            struct blkreq out;
            foreach_row(row)
            {
                assert_int_equal(pass(row, &in, &limits, &out), expected);
                assert_int_equal(out.operation_raw, offered ? BLKIF_OP_READ : BLKIF_OP_INDIRECT);
                assert_true(expected || (out.indirect_pages == 1 && out.indirect_gref[0] == 0xcafe));
            }
        }
}

static void test_only_reads_and_writes_are_indirect(void **state)
{
    (void)state;
    for (unsigned op = 0; op < 256; op++) {
        struct blkreq in = indirect((uint8_t)op, 0, 20);
        assert_int_equal(decode_of(&in, &wide), op == BLKIF_OP_READ || op == BLKIF_OP_WRITE ? 0 : BLKREQ_E_OPERATION);
    }
}

static int indirect_of(struct blkreq *req, const struct blkif_request_segment *copy, const struct blkreq_limits *limits)
{
    static struct blkreq_segment segment[BLKREQ_INDIRECT_SEGMENTS_MAX];
    struct blkreq out;
    assert_int_equal(pass(&blk_protocol_native, req, limits, &out), 0);
    int code = blkreq_check_indirect(&out, copy, limits, segment);
    for (unsigned i = 0; !code && i < out.segment_count; i++)
        assert_true(segment[i].gref == copy[i].gref && segment[i].first_sector == copy[i].first_sect &&
                    segment[i].last_sector == copy[i].last_sect);
    *req = out;
    return code;
}

static void test_segments_of_an_indirect_request_obey_the_same_rules(void **state)
{
    (void)state;
    struct blkif_request_segment s[BLKREQ_INDIRECT_SEGMENTS_MAX];
    for (unsigned n = 1; n <= BLKREQ_INDIRECT_SEGMENTS_MAX; n += 15) {
        segments_plain(s, n);
        struct blkreq in = indirect(BLKIF_OP_WRITE, 4096 - n * 8, n);
        assert_int_equal(indirect_of(&in, s, &wide), 0);
        assert_int_equal(in.sector_count, n * 8);
        in = indirect(BLKIF_OP_WRITE, 4096 - n * 8 + 1, n);
        assert_int_equal(indirect_of(&in, s, &wide), BLKREQ_E_RANGE);
        in = indirect(BLKIF_OP_READ, 1ull << 55, n);
        assert_int_equal(indirect_of(&in, s, &wide), BLKREQ_E_RANGE);
        struct blkreq_limits read_only = wide;
        read_only.read_only = true;
        in = indirect(BLKIF_OP_WRITE, 0, n);
        assert_int_equal(indirect_of(&in, s, &read_only), BLKREQ_E_READ_ONLY);
        s[n - 1].last_sect = 8;
        in = indirect(BLKIF_OP_READ, 0, n);
        assert_int_equal(indirect_of(&in, s, &wide), BLKREQ_E_SEGMENT);
        s[n - 1] = (struct blkif_request_segment){.gref = 9, .first_sect = 4, .last_sect = 3};
        in = indirect(BLKIF_OP_READ, 0, n);
        assert_int_equal(indirect_of(&in, s, &wide), BLKREQ_E_SEGMENT);
    }
}

static void test_a_barrier_obeys_the_rules_of_a_flush(void **state)
{
    (void)state;
    struct blkreq_limits limits = disk;
    struct blkreq out;
    for (unsigned n = 0; n <= 11; n++) {
        struct blkreq in = plain(BLKIF_OP_WRITE_BARRIER, 4096 - n * 8, n);
        limits.barrier = false;
        assert_int_equal(decode_of(&in, &limits), BLKREQ_E_OPERATION);
        limits.barrier = true;
        assert_int_equal(pass(&blk_protocol_native, &in, &limits, &out), 0);
        assert_true(out.operation == BLKIF_OP_WRITE_BARRIER && out.sector_count == n * 8);
        in.sector++;
        assert_int_equal(decode_of(&in, &limits), n ? BLKREQ_E_RANGE : 0);
    }
}

static void test_a_discard_stays_on_its_disk_whatever_its_length(void **state)
{
    (void)state;
    static const struct {
        uint64_t sector, count;
        int code;
    } rows[] = {{0, 4096, 0},
                {4095, 1, 0},
                {0, 0, BLKREQ_E_RANGE},
                {0, 4097, BLKREQ_E_RANGE},
                {4096, 1, BLKREQ_E_RANGE},
                {8, UINT64_MAX, BLKREQ_E_RANGE},
                {8, UINT64_MAX - 7, BLKREQ_E_RANGE}, /* the sum wraps to 0 */
                {UINT64_MAX, 1, BLKREQ_E_RANGE},
                {1ull << 55, 8, BLKREQ_E_RANGE},
                {8, 1ull << 55, BLKREQ_E_RANGE}};
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct blkreq in = plain(BLKIF_OP_DISCARD, rows[i].sector, 0);
        in.sector_count = rows[i].count;
        assert_int_equal(decode_of(&in, &wide), rows[i].code);
        struct blkreq_limits limits = wide;
        limits.read_only = true;
        assert_true(decode_of(&in, &limits) != 0);
        limits = wide;
        limits.sector_bytes = 4096;
        int code = rows[i].sector % 8 || rows[i].count % 8 ? BLKREQ_E_RANGE : rows[i].code;
        assert_int_equal(decode_of(&in, &limits), code);
    }
}

static void test_lesson_216_response_padding_is_zero(void **state)
{
    (void)state;
    const struct blk_protocol *row;
    foreach_row(row)
    {
        unsigned char slot[112];
        memset(slot, 0xff, sizeof(slot));
        blkreq_encode_response(row, 0xfedcba9876543210, 0xee, BLKIF_RSP_EOPNOTSUPP, slot);
        assert_memory_equal(slot, "\x10\x32\x54\x76\x98\xba\xdc\xfe\xee\0\xfe\xff\0\0\0\0", row->response_bytes);
        assert_int_equal(slot[row->response_bytes], 0xff);
        uint64_t id;
        uint8_t operation;
        int16_t status;
        blkreq_decode_response(slot, &id, &operation, &status);
        assert_true(id == 0xfedcba9876543210);
        assert_int_equal(operation, 0xee);
        assert_int_equal(status, BLKIF_RSP_EOPNOTSUPP);
    }
}

static void test_requests_leak_nothing_between_their_fields(void **state)
{
    (void)state;
    const struct blk_protocol *row;
    foreach_row(row)
    {
        unsigned char a[112], b[112];
        memset(a, 0x00, sizeof(a));
        memset(b, 0xff, sizeof(b));
        struct blkreq in = plain(BLKIF_OP_WRITE, 8, 3);
        blkreq_encode(row, &in, a);
        blkreq_encode(row, &in, b);
        uint32_t used = blk_protocol_used_bytes(row, a);
        assert_int_equal(used, row->request_bytes - 8 * 8); /* the eight segments not used: not written at all */
        assert_memory_equal(a, b, used);
        for (size_t i = used; i < row->request_bytes; i++)
            assert_int_equal(b[i], 0xff);
    }
}

static void test_every_error_has_a_name_and_a_sentence(void **state)
{
    (void)state;
    for (int code = 1; code < BLKREQ_E_COUNT_; code++) {
        assert_true(strlen(blkreq_error_name(code)) > 0 && strlen(blkreq_error_text(code)) > 10);
        assert_string_not_equal(blkreq_error_name(code), "unknown");
        for (int other = 1; other < code; other++)
            assert_string_not_equal(blkreq_error_name(code), blkreq_error_name(other));
    }
    assert_string_equal(blkreq_error_name(0), "unknown");
    assert_string_equal(blkreq_error_name(-5), "unknown");
    assert_string_equal(blkreq_error_name(BLKREQ_E_COUNT_), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_are_found_by_the_protocol_key),
        cmocka_unit_test(test_what_is_encoded_is_decoded),
        cmocka_unit_test(test_requests_lie_where_the_wire_has_them),
        cmocka_unit_test(test_only_offered_operations_are_accepted),
        cmocka_unit_test(test_segment_counts_are_one_to_eleven),
        cmocka_unit_test(test_a_segment_stays_in_its_page),
        cmocka_unit_test(test_large_sectors_are_never_split),
        cmocka_unit_test(test_nothing_past_the_end_is_reached),
        cmocka_unit_test(test_lesson_qemu_sector_times_512_never_wraps),
        cmocka_unit_test(test_lesson_142_read_only_is_held_by_the_backend),
        cmocka_unit_test(test_a_flush_may_carry_data_and_then_obeys_its_rules),
        cmocka_unit_test(test_random_bytes_never_leave_the_disk),
        cmocka_unit_test(test_indirect_requests_and_discards_lie_where_the_wire_has_them),
        cmocka_unit_test(test_an_indirect_request_has_as_many_segments_as_were_offered),
        cmocka_unit_test(test_only_reads_and_writes_are_indirect),
        cmocka_unit_test(test_segments_of_an_indirect_request_obey_the_same_rules),
        cmocka_unit_test(test_a_barrier_obeys_the_rules_of_a_flush),
        cmocka_unit_test(test_a_discard_stays_on_its_disk_whatever_its_length),
        cmocka_unit_test(test_lesson_216_response_padding_is_zero),
        cmocka_unit_test(test_requests_leak_nothing_between_their_fields),
        cmocka_unit_test(test_every_error_has_a_name_and_a_sentence),
    };
    return cmocka_run_group_tests_name("blkreq", tests, NULL, NULL);
}
