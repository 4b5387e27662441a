/* SPDX-License-Identifier: MIT */
/* Keys of a disk with several queues, through a real store: laid out as <xen/io/blkif.h> has it, read back, and refused
 * by name where they lie. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include <stdio.h>

#include "tests/keys_scene.h"

/* An offer of several queues: page and port of each are made of its number. */
static struct keys_blk_front several(uint32_t queues, uint32_t order)
{
    struct keys_blk_front k = {.queue_count = queues, .ring_order = order, .ring_ref_count = 1u << order};
    for (uint32_t i = 0; i < queues; i++) {
        k.queue[i].port = 100 + i;
        for (uint32_t j = 0; j < k.ring_ref_count; j++)
            k.queue[i].ring_ref[j] = 1000 + i * KEYS_BLK_RING_REFS_MAX + j;
    }
    return k;
}

static void test_several_queues_read_back_at_every_order(void **state)
{
    static const uint32_t queues[] = {2, 3, KEYS_BLK_QUEUES_MAX};
    for (uint32_t order = 0; order <= KEYS_BLK_RING_ORDER_MAX; order++) {
        for (size_t i = 0; i < ARRAY_SIZE(queues); i++) {
            struct fixture *f = fresh(state);
            struct keys_blk_front out, in = several(queues[i], order);
            struct err e = {0};
            assert_int_equal(keys_blk_front_write(&f->front, STORE_NO_TX, &in, NULL), 0);
            assert_int_equal(keys_blk_front_read(&f->back, 4, queues[i], &out, NULL), 0);
            assert_memory_equal(&in, &out, sizeof(in));
            assert_int_equal(keys_blk_front_read(&f->back, 4, queues[i] - 1, &out, &e), -ERANGE);
            assert_non_null(strstr(e.text, "multi-queue-num-queues"));
        }
    }
}

static void test_several_queues_are_laid_out_as_blkif_h_says(void **state)
{
    struct fixture *f = fresh(state);
    struct keys_blk_front in = several(2, 0);
    _cleanup_free_ char *text = NULL;
    assert_int_equal(keys_blk_front_write(&f->front, STORE_NO_TX, &in, NULL), 0);
    expect(f, f->front.dir, "multi-queue-num-queues", "2");
    expect(f, f->front.dir, "queue-0/ring-ref", "1000");
    expect(f, f->front.dir, "queue-0/event-channel", "100");
    expect(f, f->front.dir, "queue-1/ring-ref", "1016");
    expect(f, f->front.dir, "queue-1/event-channel", "101");
    assert_int_equal(store_read(f->client, STORE_NO_TX, &text, NULL, "%s/ring-ref", f->front.dir), -ENOENT);
    assert_int_equal(store_read(f->client, STORE_NO_TX, &text, NULL, "%s/event-channel", f->front.dir), -ENOENT);
    in = several(2, 1);
    assert_int_equal(keys_blk_front_write(&f->front, STORE_NO_TX, &in, NULL), 0);
    expect(f, f->front.dir, "ring-page-order", "1");
    expect(f, f->front.dir, "queue-1/ring-ref0", "1016");
    expect(f, f->front.dir, "queue-1/ring-ref1", "1017");
}

static void test_fewer_queues_leave_nothing_of_more(void **state)
{
    struct fixture *f = fresh(state);
    const uint32_t queues[] = {KEYS_BLK_QUEUES_MAX, 2, 1, 3, 1};
    for (size_t i = 0; i < ARRAY_SIZE(queues); i++) {
        struct keys_blk_front out, in = several(queues[i], i % 2);
        _cleanup_free_ char *text = NULL;
        assert_int_equal(keys_blk_front_write(&f->front, STORE_NO_TX, &in, NULL), 0);
        assert_int_equal(keys_blk_front_read(&f->back, 4, KEYS_BLK_QUEUES_MAX, &out, NULL), 0);
        assert_memory_equal(&in, &out, sizeof(in));
        assert_int_equal(store_read(f->client, STORE_NO_TX, &text, NULL, "%s/queue-%u", f->front.dir, queues[i]),
                         -ENOENT);
        if (queues[i] == 1)
            assert_int_equal(store_read(f->client, STORE_NO_TX, &text, NULL, "%s/queue-0", f->front.dir), -ENOENT);
    }
}

static void test_hostile_queues_are_refused_by_name(void **state)
{
    static const struct {
        const char *key, *value; /* NULL: removed */
        int result;
        const char *sentence;
    } rows[] = {
        {"queue-1", NULL, -ENOENT, "queue-1/ring-ref0 is missing"},
        {"queue-2/ring-ref1", NULL, -ENOENT, "queue-2/ring-ref1 is missing"},
        {"queue-2/event-channel", NULL, -ENOENT, "queue-2/event-channel is missing"},
        {"queue-2/ring-ref1", "1000", -EINVAL, "queue-2/ring-ref1 is 1000, as is queue-0/ring-ref0"},
        {"queue-1/ring-ref1", "1016", -EINVAL, "queue-1/ring-ref1 is 1016, as is queue-1/ring-ref0"},
        {"queue-2/event-channel", "100", -EINVAL, "queue-2/event-channel is 100, as is queue-0/event-channel"},
        {"queue-0/event-channel", "0", -ERANGE, "queue-0/event-channel is \"0\""},
        {"queue-1/ring-ref0", "0", -ERANGE, "queue-1/ring-ref0 is \"0\""},
        {"queue-1/ring-ref0", "4294967296", -ERANGE, "queue-1/ring-ref0"},
        {"queue-1/ring-ref0", "x", -EINVAL, "queue-1/ring-ref0"},
        {"multi-queue-num-queues", "4", -ENOENT, "queue-3/ring-ref0 is missing"},
        {"multi-queue-num-queues", "1", -ENOENT, "51712/ring-ref0 is missing"},
        {"multi-queue-num-queues", "18446744073709551618", -ERANGE, "multi-queue-num-queues"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct fixture *f = fresh(state);
        const struct keys_blk_front in = several(3, 1);
        struct keys_blk_front out = {.queue_count = 77};
        struct err e = {0};
        assert_int_equal(keys_blk_front_write(&f->front, STORE_NO_TX, &in, NULL), 0);
        if (rows[i].value)
            put(f, f->front.dir, rows[i].key, rows[i].value);
        else
            assert_int_equal(store_rm(f->client, STORE_NO_TX, "%s/%s", f->front.dir, rows[i].key), 0);
        assert_int_equal(keys_blk_front_read(&f->back, 4, KEYS_BLK_QUEUES_MAX, &out, &e), rows[i].result);
        assert_non_null(strstr(e.text, rows[i].sentence));
        assert_int_equal(out.queue_count, 77);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_several_queues_read_back_at_every_order),
        cmocka_unit_test(test_several_queues_are_laid_out_as_blkif_h_says),
        cmocka_unit_test(test_fewer_queues_leave_nothing_of_more),
        cmocka_unit_test(test_hostile_queues_are_refused_by_name),
    };
    return cmocka_run_group_tests_name("keys_blk_queues", tests, setup, teardown);
}
