/* SPDX-License-Identifier: MIT */
/* The operations of our own, on the wire: write-zeroes and the write that is durable, for each protocol row; and what
 * they are to a device that did not agree on them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "tests/blkreq_rows.h"

static const struct blkreq_limits xen = {.capacity_sectors = 4096,
                                         .sector_bytes = 512,
                                         .flush = true,
                                         .barrier = true,
                                         .discard = true,
                                         .indirect_segments_max = BLKREQ_INDIRECT_SEGMENTS_MAX};

static struct blkreq_limits agreed(void)
{
    struct blkreq_limits l = xen;
    l.fua = true;
    l.zeroes_sectors_max = 2048;
    return l;
}

static struct blkreq span(uint8_t operation, uint64_t sector, uint64_t count, uint8_t flag)
{
    return (struct blkreq){.id = 0x1122334455667788,
                           .operation = operation,
                           .operation_raw = operation,
                           .flag = flag,
                           .sector = sector,
                           .sector_count = count};
}

static struct blkreq write_of(uint64_t sector, unsigned segments)
{
    struct blkreq r = span(BLKREQ_OP_WRITE_FUA, sector, segments * 8, 0);
    r.segment_count = (uint16_t)segments;
    for (unsigned i = 0; i < segments && i < BLKREQ_SEGMENTS_MAX; i++)
        r.segment[i] = (struct blkreq_segment){.gref = 8 + i, .last_sector = 7};
    return r;
}

static void test_the_codes_are_not_xens(void **state)
{
    (void)state;
    static const unsigned xens[] = {
        BLKIF_OP_READ,       BLKIF_OP_WRITE,   BLKIF_OP_WRITE_BARRIER, BLKIF_OP_FLUSH_DISKCACHE,
        BLKIF_OP_RESERVED_1, BLKIF_OP_DISCARD, BLKIF_OP_INDIRECT};
    for (size_t i = 0; i < ARRAY_SIZE(xens); i++)
        assert_true(xens[i] < 0x80);
    assert_true(BLKREQ_OP_WRITE_ZEROES >= 0x80 && BLKREQ_OP_WRITE_FUA >= 0x80);
    assert_true(BLKREQ_OP_BUS_MAP >= 0x80 && BLKREQ_OP_BUS_UNMAP >= 0x80);
}

static void test_extensions_lie_where_the_wire_has_them(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        size_t id, sector, sectors, segment;
    } wire[] = {{"x86_64-abi", 8, 16, 24, 24}, {"x86_32-abi", 4, 12, 20, 20}};
    for (size_t i = 0; i < ARRAY_SIZE(wire); i++) {
        const struct blk_protocol *row = blk_protocol_find(wire[i].key);
        unsigned char slot[112];
        struct blkreq in = span(BLKREQ_OP_WRITE_ZEROES, 0x10, 0x7e0, BLKREQ_ZEROES_MAY_UNMAP);
        blkreq_encode(row, &in, slot);
        assert_memory_equal(slot, "\xd0\x01", 2);
        assert_memory_equal(slot + wire[i].id, "\x88\x77\x66\x55\x44\x33\x22\x11", 8);
        assert_memory_equal(slot + wire[i].sector, "\x10\0\0\0\0\0\0\0", 8);
        assert_memory_equal(slot + wire[i].sectors, "\xe0\x07\0\0\0\0\0\0", 8);
        in = write_of(0x10, 2);
        blkreq_encode(row, &in, slot);
        assert_memory_equal(slot, "\xd1\x02", 2);
        assert_memory_equal(slot + wire[i].segment + 8, "\x09\0\0\0\0\x07", 6);
    }
}

static void test_what_was_not_agreed_on_is_an_unknown_operation(void **state)
{
    (void)state;
    struct blkreq_limits fua = xen, zeroes = xen, both = agreed();
    fua.fua = true;
    zeroes.zeroes_sectors_max = 2048;
    struct blkreq w = write_of(8, 3), z = span(BLKREQ_OP_WRITE_ZEROES, 8, 16, 0), out;
    assert_int_equal(decode_of(&w, &xen, &out), BLKREQ_E_OPERATION);
    assert_int_equal(out.operation_raw, BLKREQ_OP_WRITE_FUA);
    assert_int_equal(decode_of(&z, &xen, &out), BLKREQ_E_OPERATION);
    assert_int_equal(decode_of(&w, &zeroes, &out), BLKREQ_E_OPERATION);
    assert_int_equal(decode_of(&z, &fua, &out), BLKREQ_E_OPERATION);
    assert_int_equal(decode_of(&w, &both, &out), 0);
    assert_int_equal(out.operation, BLKREQ_OP_WRITE_FUA);
    assert_int_equal(out.sector_count, 24);
    assert_int_equal(decode_of(&z, &both, &out), 0);
    assert_true(out.operation == BLKREQ_OP_WRITE_ZEROES && out.sector == 8 && out.sector_count == 16);
    for (unsigned op = 0; op < 256; op++) { /* nothing else came with them */
        struct blkreq in = write_of(0, 1);
        in.operation = in.operation_raw = (uint8_t)op;
        bool offered = op <= BLKIF_OP_FLUSH_DISKCACHE || op == BLKREQ_OP_WRITE_FUA;
        int code = blkreq_is_span((uint8_t)op) || op == BLKIF_OP_INDIRECT ? -1 : offered ? 0 : BLKREQ_E_OPERATION;
        if (code >= 0)
            assert_int_equal(decode_of(&in, &both, &out), code);
    }
}

static void test_only_a_durable_write_is_indirect_and_only_where_it_was_agreed_on(void **state)
{
    (void)state;
    struct blkreq_limits both = agreed();
    struct blkreq in = span(BLKREQ_OP_WRITE_FUA, 8, 0, 0), out;
    in.segment_count = 20;
    in.indirect_pages = 1;
    in.indirect_gref[0] = 77;
    assert_int_equal(decode_of(&in, &both, &out), 0);
    assert_true(out.operation == BLKREQ_OP_WRITE_FUA && out.indirect_pages == 1 && out.indirect_gref[0] == 77);
    assert_int_equal(out.operation_raw, BLKREQ_OP_WRITE_FUA);
    assert_int_equal(decode_of(&in, &xen, &out), BLKREQ_E_OPERATION);
    in.operation = BLKREQ_OP_WRITE_ZEROES;
    in.segment_count = 20;
    unsigned char slot[112];
    for (size_t i = 0; i < ARRAY_SIZE(blkreq_keys); i++) {
        const struct blk_protocol *row = blk_protocol_find(blkreq_keys[i]);
        blkreq_encode(row, &in, slot);
        assert_int_equal(blkreq_decode(row, slot, &both, &out), BLKREQ_E_OPERATION);
    }
}

static void test_zeroing_stays_on_its_disk_and_below_its_bound(void **state)
{
    (void)state;
    static const struct {
        uint64_t sector, count;
        int code;
    } rows[] = {{0, 2048, 0},
                {4095, 1, 0},
                {2048, 2048, 0},
                {0, 2049, BLKREQ_E_RANGE},
                {0, 0, BLKREQ_E_RANGE},
                {2049, 2048, BLKREQ_E_RANGE},
                {4096, 1, BLKREQ_E_RANGE},
                {8, UINT64_MAX, BLKREQ_E_RANGE},
                {8, UINT64_MAX - 7, BLKREQ_E_RANGE}, /* the sum wraps to 0 */
                {UINT64_MAX, 1, BLKREQ_E_RANGE},
                {1ull << 55, 8, BLKREQ_E_RANGE}, /* times 512 it is 0 */
                {8, 1ull << 55, BLKREQ_E_RANGE}};
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct blkreq_limits limits = agreed();
        struct blkreq in = span(BLKREQ_OP_WRITE_ZEROES, rows[i].sector, rows[i].count, 0), out;
        assert_int_equal(decode_of(&in, &limits, &out), rows[i].code);
        limits.sector_bytes = 4096;
        int code = rows[i].sector % 8 || rows[i].count % 8 ? BLKREQ_E_RANGE : rows[i].code;
        assert_int_equal(decode_of(&in, &limits, &out), code);
    }
}

static void test_flags_that_nobody_knows_are_not_done_by_halves(void **state)
{
    (void)state;
    struct blkreq_limits both = agreed();
    for (unsigned flag = 0; flag < 256; flag++) {
        struct blkreq in = span(BLKREQ_OP_WRITE_ZEROES, 0, 8, (uint8_t)flag), out;
        assert_int_equal(decode_of(&in, &both, &out), flag <= BLKREQ_ZEROES_MAY_UNMAP ? 0 : BLKREQ_E_OPERATION);
        if (flag <= BLKREQ_ZEROES_MAY_UNMAP)
            assert_int_equal(out.flag, flag);
    }
}

static void test_extensions_write_and_a_read_only_disk_refuses_them(void **state)
{
    (void)state;
    struct blkreq_limits read_only = agreed();
    read_only.read_only = true;
    struct blkreq w = write_of(0, 1), z = span(BLKREQ_OP_WRITE_ZEROES, 0, 8, 0), out;
    assert_int_equal(decode_of(&w, &read_only, &out), BLKREQ_E_READ_ONLY);
    assert_int_equal(decode_of(&z, &read_only, &out), BLKREQ_E_READ_ONLY);
}

static void test_a_durable_write_obeys_the_rules_of_a_write(void **state)
{
    (void)state;
    struct blkreq_limits both = agreed();
    struct blkreq out, in = write_of(4096 - 16, 2);
    assert_int_equal(decode_of(&in, &both, &out), 0);
    in.sector++;
    assert_int_equal(decode_of(&in, &both, &out), BLKREQ_E_RANGE);
    in = write_of(0, 0);
    assert_int_equal(decode_of(&in, &both, &out), BLKREQ_E_SEGMENT_COUNT);
    in = write_of(0, 2);
    in.segment[1].last_sector = 8;
    assert_int_equal(decode_of(&in, &both, &out), BLKREQ_E_SEGMENT);
    in = write_of(1ull << 55, 1);
    assert_int_equal(decode_of(&in, &both, &out), BLKREQ_E_RANGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_codes_are_not_xens),
        cmocka_unit_test(test_extensions_lie_where_the_wire_has_them),
        cmocka_unit_test(test_what_was_not_agreed_on_is_an_unknown_operation),
        cmocka_unit_test(test_only_a_durable_write_is_indirect_and_only_where_it_was_agreed_on),
        cmocka_unit_test(test_zeroing_stays_on_its_disk_and_below_its_bound),
        cmocka_unit_test(test_flags_that_nobody_knows_are_not_done_by_halves),
        cmocka_unit_test(test_extensions_write_and_a_read_only_disk_refuses_them),
        cmocka_unit_test(test_a_durable_write_obeys_the_rules_of_a_write),
    };
    return cmocka_run_group_tests_name("blkreq_extensions", tests, NULL, NULL);
}
