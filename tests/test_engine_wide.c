/* SPDX-License-Identifier: MIT */
/* What the block protocol has beyond eleven segments in a slot, through a real io_uring on a real file: indirect
 * requests and discards. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <sys/stat.h>

#include "tests/engine_bench.h"

/* ---- indirect requests ---- */

static void indirect_write_then_read(struct bench *b, unsigned segments, unsigned first, unsigned last)
{
    static unsigned char wanted[DMA_SEGMENTS_MAX * PAGE_BYTES];
    struct blkguest *g = &b->guest;
    size_t per_page = (last - first + 1) * SECTOR_BYTES;
    for (unsigned i = 0; i < segments; i++) {
        blkworld_pattern(g->data + i * PAGE_BYTES, i * 8, 8, segments + first);
        memcpy(wanted + i * per_page, g->data + i * PAGE_BYTES + first * SECTOR_BYTES, per_page);
    }
    assert_int_equal(blkguest_do_indirect(g, BLKIF_OP_WRITE, 0, 0, segments, first, last), BLKIF_RSP_OKAY);
    file_expect(b, 0, wanted, segments * per_page);
    memset(g->data, 0xa5, segments * PAGE_BYTES);
    uint32_t at = g->ring.req_prod_pvt;
    assert_int_equal(blkguest_do_indirect(g, BLKIF_OP_READ, 0, 0, segments, first, last), BLKIF_RSP_OKAY);
    struct blkif_response response;
    memcpy(&response, ring_slot(&g->ring.ring, at), sizeof(response));
    assert_int_equal(response.operation, BLKIF_OP_READ); /* not INDIRECT: Linux takes that for another's answer */
    for (unsigned i = 0; i < segments; i++)
        assert_memory_equal(g->data + i * PAGE_BYTES + first * SECTOR_BYTES, wanted + i * per_page, per_page);
}

static void test_indirect_requests_of_all_lengths_arrive(void **state)
{
    static const unsigned lengths[] = {1, 2, 11, 12, 100, 255, 256};
    struct bench b;
    (void)state;
    bench_start(&b, "interrupt");
    for (unsigned d = 0; d < dma_strategy_count; d++) {
        connect_default(&b, dma_strategies[d]->name);
        for (unsigned i = 0; i < ARRAY_SIZE(lengths); i++) {
            indirect_write_then_read(&b, lengths[i], 0, 7);
            indirect_write_then_read(&b, lengths[i], 3, 4); /* no two segments are adjacent: a vector of all */
        }
        assert_int_equal(blkcounter_get(&b.queue->stats.errors), 0);
        disconnect(&b);
    }
    bench_stop(&b);
}

/* More large requests than there are books for: each waits for its turn, small ones come in between. */
static void test_large_requests_take_turns_and_none_is_lost(void **state)
{
    (void)state;
    for (unsigned d = 0; d < dma_strategy_count; d++) {
        struct bench b;
        uint64_t id;
        bench_start(&b, d ? "adaptive" : "interrupt");
        connect_default(&b, dma_strategies[d]->name);
        for (unsigned n = 0, out = 0; n < 1000 || out;) {
            for (; n < 1000 && ring_front_room(&b.guest.ring); n++, out++)
                if (n % 7 == 6)
                    blkguest_put(&b.guest, BLKIF_OP_READ, 0, 0, 1, 0, 7);
                else
                    blkguest_put_indirect(&b.guest, n % 2 ? BLKIF_OP_READ : BLKIF_OP_WRITE, 0, 0, 12 + n % 245, 0, 7);
            blkguest_kick(&b.guest);
            assert_int_equal(blkguest_take(&b.guest, &id), BLKIF_RSP_OKAY);
            out--;
        }
        assert_int_equal(blkcounter_get(&b.queue->stats.requests), 1000);
        disconnect(&b);
        bench_stop(&b);
    }
}

/* ---- discards ---- */

static uint64_t blkguest_put_discard(struct blkguest *g, uint64_t sector, uint64_t count)
{
    struct blkreq req = {.id = ++g->next_id, .operation = BLKIF_OP_DISCARD, .sector = sector, .sector_count = count};
    return blkguest_put_raw(g, &req);
}

static int16_t discard(struct blkguest *g, uint64_t sector, uint64_t count)
{
    uint64_t id, wanted = blkguest_put_discard(g, sector, count);
    blkguest_kick(g);
    int16_t status = blkguest_take(g, &id);
    assert_int_equal(id, wanted);
    return status;
}

static void test_a_discard_punches_a_hole_and_touches_nothing_beside_it(void **state)
{
    static unsigned char wanted[DISK_BYTES];
    struct bench b;
    struct stat before, after;
    (void)state;
    bench_start(&b, "interrupt");
    connect_default(&b, "pin");
    assert_true(b.image->discard);
    blkworld_pattern(wanted, 0, DISK_SECTORS, SEED);
    assert_int_equal(stat(b.path, &before), 0);
    assert_int_equal(discard(&b.guest, 512, 1024), BLKIF_RSP_OKAY);
    memset(wanted + 512 * SECTOR_BYTES, 0, 1024 * SECTOR_BYTES);
    assert_int_equal(discard(&b.guest, 3, 1), BLKIF_RSP_OKAY); /* less than a block of the file system */
    memset(wanted + 3 * SECTOR_BYTES, 0, SECTOR_BYTES);
    file_expect(&b, 0, wanted, DISK_BYTES);
    assert_int_equal(stat(b.path, &after), 0);
    assert_true(after.st_blocks < before.st_blocks && after.st_size == before.st_size);
    assert_int_equal(discard(&b.guest, 0, DISK_SECTORS), BLKIF_RSP_OKAY);
    memset(wanted, 0, DISK_BYTES);
    file_expect(&b, 0, wanted, DISK_BYTES);
    assert_int_equal(discard(&b.guest, 1, DISK_SECTORS), BLKIF_RSP_ERROR);
    assert_int_equal(blkcounter_get(&b.queue->stats.discards), 3);
    assert_int_equal(blkcounter_get(&b.queue->stats.sectors_discarded), 1024 + 1 + DISK_SECTORS);
    disconnect(&b);
    bench_stop(&b);
}

static void test_discards_wait_for_each_other_and_none_is_lost(void **state)
{
    struct bench b;
    uint64_t id;
    (void)state;
    bench_start(&b, "adaptive");
    connect_default(&b, "copy");
    for (unsigned round = 0; round < 50; round++) {
        unsigned out = 0;
        for (; ring_front_room(&b.guest.ring); out++)
            if (out % 4 == 3)
                blkguest_put(&b.guest, BLKIF_OP_WRITE, out * 8, out, 1, 0, 7);
            else
                blkguest_put_discard(&b.guest, out * 8, 8);
        blkguest_kick(&b.guest);
        for (; out; out--)
            assert_int_equal(blkguest_take(&b.guest, &id), BLKIF_RSP_OKAY);
    }
    while (ring_front_room(&b.guest.ring)) /* and an end in their midst */
        blkguest_put_discard(&b.guest, 0, 8);
    blkguest_kick(&b.guest);
    disconnect(&b);
    bench_stop(&b);
}

static void test_a_discard_that_fails_is_answered_as_it_failed(void **state)
{
    static const struct {
        const char *path;
        int16_t status;
    } rows[] = {{"/proc/self/comm", BLKIF_RSP_EOPNOTSUPP}, /* a file of a file system without holes */
                {"/dev/null", BLKIF_RSP_ERROR}};
    struct bench b;
    (void)state;
    bench_start(&b, "interrupt");
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        struct blkqueue_config c;
        image_default(&b);
        struct image odd = *b.image;
        odd.fd = open(rows[i].path, O_RDWR);
        assert_true(odd.fd >= 0);
        guest_ring(&b);
        config_default(&b, "pin", &c);
        c.image = &odd;
        assert_int_equal(queue_attach(&b, &c), 0);
        assert_int_equal(discard(&b.guest, 0, 8), rows[i].status);
        assert_int_equal(blkcounter_get(&b.queue->stats.io_errors), 1);
        disconnect(&b);
        close(odd.fd);
    }
    bench_stop(&b);
}

/* ---- barriers ---- */

static uint64_t put_anything(struct blkguest *g, unsigned n)
{
    switch (n % 6) {
    case 0: return blkguest_put_indirect(g, BLKIF_OP_READ, 0, 0, 200, 0, 7);
    case 1: return blkguest_put(g, BLKIF_OP_FLUSH_DISKCACHE, 0, 0, 0, 0, 0);
    case 2: return blkguest_put_discard(g, 1024, 8);
    case 3: return blkguest_put(g, BLKIF_OP_READ, 64, 100, 11, 0, 7);
    default: return blkguest_put(g, BLKIF_OP_WRITE, 64, n % 8, 1, 0, 7);
    }
}

/* Whatever is under way: what came before a barrier is answered before it, what came after it after it. */
static void test_nothing_passes_a_barrier(void **state)
{
    struct bench b;
    (void)state;
    for (unsigned d = 0; d < dma_strategy_count; d++) {
        bench_start(&b, d ? "adaptive" : "interrupt");
        connect_default(&b, dma_strategies[d]->name);
        for (unsigned round = 0; round < 100; round++) {
            uint64_t barrier[32] = {0}, id, last = 0;
            unsigned out = 0, barriers = 0, passed = 0;
            for (; ring_front_room(&b.guest.ring); out++)
                if ((out + round) % 9 == 0)
                    barrier[barriers++] = last =
                        blkguest_put(&b.guest, BLKIF_OP_WRITE_BARRIER, 64, 20, (out + round) % 2, 0, 7);
                else
                    last = put_anything(&b.guest, out * 7 + round);
            barrier[barriers] = last + 1;
            blkguest_kick(&b.guest);
            for (; out; out--) {
                assert_int_equal(blkguest_take(&b.guest, &id), BLKIF_RSP_OKAY);
                assert_true(id <= barrier[passed] && (!passed || id > barrier[passed - 1]));
                passed += id == barrier[passed];
            }
            assert_int_equal(passed, barriers);
        }
        disconnect(&b);
        bench_stop(&b);
    }
}

static void test_a_barrier_syncs_before_and_after_its_data(void **state)
{
    struct bench b;
    (void)state;
    bench_start(&b, "interrupt");
    connect_default(&b, "pin");
    memset(b.guest.data, 0x42, PAGE_BYTES);
    assert_int_equal(blkguest_do(&b.guest, BLKIF_OP_WRITE_BARRIER, 16, 0, 1, 0, 7), BLKIF_RSP_OKAY);
    file_expect(&b, 16, b.guest.data, PAGE_BYTES);
    assert_int_equal(blkcounter_get(&b.queue->stats.syncs), 2);
    assert_int_equal(blkguest_do(&b.guest, BLKIF_OP_WRITE_BARRIER, 0, 0, 0, 0, 0), BLKIF_RSP_OKAY);
    assert_int_equal(blkcounter_get(&b.queue->stats.syncs), 3);
    disconnect(&b);
    bench_stop(&b);
}

int main(int argc, char **argv)
{
    blkworld_child(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_indirect_requests_of_all_lengths_arrive),
        cmocka_unit_test(test_large_requests_take_turns_and_none_is_lost),
        cmocka_unit_test(test_a_discard_punches_a_hole_and_touches_nothing_beside_it),
        cmocka_unit_test(test_discards_wait_for_each_other_and_none_is_lost),
        cmocka_unit_test(test_a_discard_that_fails_is_answered_as_it_failed),
        cmocka_unit_test(test_nothing_passes_a_barrier),
        cmocka_unit_test(test_a_barrier_syncs_before_and_after_its_data),
    };
    return cmocka_run_group_tests_name("engine_wide", tests, NULL, NULL);
}
