/* SPDX-License-Identifier: MIT */
/* Mapping and unmapping bus addresses, on the wire, for each protocol row: where the fields lie, what a hostile
 * frontend may say, and that nobody who did not agree on it has it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "tests/blkreq_rows.h"

static struct blkreq_limits agreed(unsigned bits)
{
    return (struct blkreq_limits){.capacity_sectors = 4096,
                                  .sector_bytes = 512,
                                  .read_only = true,
                                  .indirect_segments_max = BLKREQ_INDIRECT_SEGMENTS_MAX,
                                  .bus_bits = (uint8_t)bits};
}

static struct blkreq bus(uint8_t operation, uint64_t address, uint64_t count, uint8_t flag)
{
    struct blkreq r = {.id = 0x1122334455667788, .operation = operation, .operation_raw = operation};
    r.flag = flag;
    r.sector = address;
    r.sector_count = count;
    if (operation == BLKREQ_OP_BUS_MAP)
        r.indirect_gref[0] = 0xcafe;
    return r;
}

static int bus_decode_of(const struct blkreq *in, const struct blkreq_limits *limits, struct blkreq *out)
{
    int code = decode_of(in, limits, out);
    assert_true(out->segment_count == 0 && out->indirect_pages == 0);
    return code;
}

static void assert_same(const struct blkreq *a, const struct blkreq *b)
{
    assert_true(a->id == b->id && a->operation == b->operation && a->operation_raw == b->operation_raw);
    assert_true(a->sector == b->sector && a->sector_count == b->sector_count && a->flag == b->flag);
    assert_true(a->indirect_gref[0] == b->indirect_gref[0]);
}

static void test_what_is_encoded_is_decoded(void **state)
{
    (void)state;
    const struct blkreq_limits limits = agreed(44);
    for (unsigned n = 1; n <= BLKREQ_BUS_PAGES_MAX; n++) {
        struct blkreq in = bus(BLKREQ_OP_BUS_MAP, (uint64_t)n << 31, n, (uint8_t)(1 + n % 3)), out;
        assert_int_equal(bus_decode_of(&in, &limits, &out), 0);
        assert_same(&in, &out);
        in = bus(BLKREQ_OP_BUS_UNMAP, (uint64_t)n << 31, n, 0);
        assert_int_equal(bus_decode_of(&in, &limits, &out), 0);
        assert_same(&in, &out);
    }
}

static void test_they_lie_where_the_wire_has_them(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        size_t id, address, gref, pages;
    } wire[] = {{"x86_64-abi", 8, 16, 28, 24}, {"x86_32-abi", 4, 12, 24, 20}};
    for (size_t i = 0; i < ARRAY_SIZE(wire); i++) {
        const struct blk_protocol *row = blk_protocol_find(wire[i].key);
        unsigned char slot[112];
        struct blkreq in = bus(BLKREQ_OP_BUS_MAP, 0x123456789000, 0x102, BLKREQ_BUS_READ | BLKREQ_BUS_WRITE);
        blkreq_encode(row, &in, slot);
        assert_memory_equal(slot, "\xd2\x03\x02\x01", 4);
        assert_memory_equal(slot + wire[i].id, "\x88\x77\x66\x55\x44\x33\x22\x11", 8);
        assert_memory_equal(slot + wire[i].address, "\x00\x90\x78\x56\x34\x12\0\0", 8);
        assert_memory_equal(slot + wire[i].gref, "\xfe\xca\0\0\0\0\0\0", 8);
        in = bus(BLKREQ_OP_BUS_UNMAP, 0x1000, 0x102, 0);
        blkreq_encode(row, &in, slot);
        assert_memory_equal(slot, "\xd3\0", 2);
        assert_memory_equal(slot + wire[i].address, "\0\x10\0\0\0\0\0\0", 8);
        assert_memory_equal(slot + wire[i].pages, "\x02\x01\0\0\0\0\0\0", 8);
        memset(slot, 0xa5, sizeof(slot));
        blkreq_encode_response(row, in.id, BLKREQ_OP_BUS_MAP, BLKIF_RSP_OKAY, slot);
        blkreq_encode_bus_address(0x123456789000, slot);
        assert_memory_equal(slot + 16, "\x00\x90\x78\x56\x34\x12\0\0\xa5", 9);
        assert_true(blkreq_decode_bus_address(slot) == 0x123456789000);
        assert_true(BLKREQ_BUS_RESPONSE_BYTES == 24 && BLKREQ_BUS_RESPONSE_BYTES <= row->slot_bytes);
        assert_int_equal(blk_protocol_used_bytes(row, (const unsigned char *)"\xd2\x01"), row->request_bytes);
    }
}

static void test_who_did_not_agree_does_not_have_them(void **state)
{
    (void)state;
    const struct blkreq_limits none = agreed(0);
    struct blkreq map = bus(BLKREQ_OP_BUS_MAP, 0, 1, 1), unmap = bus(BLKREQ_OP_BUS_UNMAP, 4096, 1, 0), out;
    assert_int_equal(bus_decode_of(&map, &none, &out), BLKREQ_E_OPERATION);
    assert_int_equal(bus_decode_of(&unmap, &none, &out), BLKREQ_E_OPERATION);
}

static void test_only_whole_pages_inside_the_window_are_named(void **state)
{
    (void)state;
    static const struct {
        uint64_t address, count;
        unsigned bits;
        int code;
    } rows[] = {{0, 1, 32, 0},
                {0, 1024, 32, 0},
                {0, 1025, 32, BLKREQ_E_BUS},
                {4096, 0, 32, BLKREQ_E_BUS},
                {4097, 1, 32, BLKREQ_E_BUS},
                {4096 + 512, 1, 32, BLKREQ_E_BUS},
                {0xfffff000, 1, 32, 0},
                {0xfffff000, 2, 32, BLKREQ_E_BUS},
                {0x100000000, 1, 32, BLKREQ_E_BUS},
                {0x100000000, 1, 44, 0},
                {(1ull << 44) - 4096, 1, 44, 0},
                {(1ull << 44) - 4096, 2, 44, BLKREQ_E_BUS},
                {1ull << 44, 1, 44, BLKREQ_E_BUS},
                {UINT64_MAX - 4095, 1, 44, BLKREQ_E_BUS},
                {UINT64_MAX - 4095, 2, 44, BLKREQ_E_BUS}}; /* the sum wraps to a page */
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        const struct blkreq_limits limits = agreed(rows[i].bits);
        struct blkreq map = bus(BLKREQ_OP_BUS_MAP, rows[i].address, rows[i].count, 1), out;
        struct blkreq unmap = bus(BLKREQ_OP_BUS_UNMAP, rows[i].address, rows[i].count, 0);
        assert_int_equal(bus_decode_of(&map, &limits, &out), rows[i].code);
        assert_int_equal(bus_decode_of(&unmap, &limits, &out), rows[i].code);
    }
    const struct blkreq_limits limits = agreed(44);
    struct blkreq out, wide = bus(BLKREQ_OP_BUS_UNMAP, 4096, UINT64_MAX, 0);
    assert_int_equal(bus_decode_of(&wide, &limits, &out), BLKREQ_E_BUS);
    wide.sector_count = (1ull << 52) + 1;
    assert_int_equal(bus_decode_of(&wide, &limits, &out), BLKREQ_E_BUS);
}

static void test_only_reading_and_writing_are_allowed_and_something_must_be(void **state)
{
    (void)state;
    const struct blkreq_limits limits = agreed(44);
    for (unsigned flag = 0; flag < 256; flag++) {
        struct blkreq map = bus(BLKREQ_OP_BUS_MAP, 0, 3, (uint8_t)flag), out;
        struct blkreq unmap = bus(BLKREQ_OP_BUS_UNMAP, 4096, 3, (uint8_t)flag);
        assert_int_equal(bus_decode_of(&map, &limits, &out), flag >= 1 && flag <= 3 ? 0 : BLKREQ_E_BUS);
        assert_int_equal(bus_decode_of(&unmap, &limits, &out), flag ? BLKREQ_E_BUS : 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_encoded_is_decoded),
        cmocka_unit_test(test_they_lie_where_the_wire_has_them),
        cmocka_unit_test(test_who_did_not_agree_does_not_have_them),
        cmocka_unit_test(test_only_whole_pages_inside_the_window_are_named),
        cmocka_unit_test(test_only_reading_and_writing_are_allowed_and_something_must_be),
    };
    return cmocka_run_group_tests_name("blkreq_bus", tests, NULL, NULL);
}
