/* SPDX-License-Identifier: MIT */
/* A disk of no bytes, from outside: it answers everything, and what a guest reads is what it had. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <stdio.h>

#include "grant/dma.h"
#include "tests/blkworld.h"

#define DISK_BYTES   ((uint64_t)1 << 40)
#define DISK_SECTORS (DISK_BYTES / SECTOR_BYTES)

struct scene {
    struct blkworld world;
    char dir[256];
    uint16_t domid;
    struct keys_blk_config config;
    struct blkguest guest;
};

static void scene_start(struct scene *s, const char *dma)
{
    *s = (struct scene){.config = {.format = "null", .path = "/dev/null", .size_bytes = DISK_BYTES}};
    snprintf(s->config.dma, sizeof(s->config.dma), "%s", dma);
    blkworld_start(&s->world, NULL);
    s->domid = blkworld_domain(&s->world, "guest", s->dir, sizeof(s->dir));
    blkworld_attach(&s->world, s->domid, BLKWORLD_DEVID, &s->config);
    blkguest_open(&s->guest, s->dir, BLKWORLD_DEVID);
    blkguest_connect(&s->guest, NULL);
}

static void scene_stop(struct scene *s)
{
    blkguest_disconnect(&s->guest);
    blkguest_close(&s->guest);
    blkworld_wait_held(&s->world, s->domid, 0);
    blkworld_stop(&s->world);
}

/* More than the ring holds, of all kinds. */
static void load(struct blkguest *g, unsigned rounds)
{
    static const uint8_t operations[] = {BLKIF_OP_READ, BLKIF_OP_WRITE, BLKIF_OP_FLUSH_DISKCACHE,
                                         BLKIF_OP_WRITE_BARRIER};
    uint64_t id, answered = 0;
    for (unsigned round = 0; round < rounds; round++) {
        unsigned put = 0;
        for (; ring_front_room(&g->ring); put++) {
            uint64_t n = g->next_id;
            if (n % 3 == 0)
                blkguest_put_indirect(g, n % 2, n * 4096 % DISK_SECTORS, 0, 1 + (unsigned)(n % 256), 0, 7);
            else
                blkguest_put(g, operations[n % 4], DISK_SECTORS - 88, 0, 11, 0, 7);
        }
        blkguest_kick(g);
        for (answered += put; put; put--)
            assert_int_equal(blkguest_take(g, &id), BLKIF_RSP_OKAY);
    }
    assert_int_equal(g->next_id, answered);
}

static void test_a_null_disk_answers_every_kind_of_request(void **state)
{
    (void)state;
    for (unsigned d = 0; d < dma_strategy_count; d++) {
        struct scene s;
        scene_start(&s, dma_strategies[d]->name);
        assert_int_equal(s.guest.disk.sectors, DISK_SECTORS);
        assert_false(s.guest.disk.discard);
        load(&s.guest, 100);
        scene_stop(&s);
    }
}

static void test_reads_of_a_null_disk_leave_the_guests_memory_as_it_is(void **state)
{
    struct scene s;
    unsigned char before[PAGE_BYTES];
    (void)state;
    scene_start(&s, "pin");
    blkworld_pattern(before, 1, 8, 7);
    memcpy(s.guest.data, before, sizeof(before));
    assert_int_equal(blkguest_do(&s.guest, BLKIF_OP_READ, 800, 0, 1, 0, 7), BLKIF_RSP_OKAY);
    assert_memory_equal(s.guest.data, before, sizeof(before));
    scene_stop(&s);
}

static void test_a_null_disk_has_bounds(void **state)
{
    struct scene s;
    (void)state;
    scene_start(&s, "pin");
    assert_int_equal(blkguest_do(&s.guest, BLKIF_OP_READ, DISK_SECTORS - 7, 0, 1, 0, 7), BLKIF_RSP_ERROR);
    assert_int_equal(blkguest_do(&s.guest, BLKIF_OP_WRITE, UINT64_MAX - 7, 0, 1, 0, 7), BLKIF_RSP_ERROR);
    assert_int_equal(blkguest_do(&s.guest, BLKIF_OP_WRITE, DISK_SECTORS - 8, 0, 1, 0, 7), BLKIF_RSP_OKAY);
    scene_stop(&s);
}

int main(int argc, char **argv)
{
    blkworld_child(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_null_disk_answers_every_kind_of_request),
        cmocka_unit_test(test_reads_of_a_null_disk_leave_the_guests_memory_as_it_is),
        cmocka_unit_test(test_a_null_disk_has_bounds),
    };
    return cmocka_run_group_tests_name("blk-null", tests, NULL, NULL);
}
