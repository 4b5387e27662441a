/* SPDX-License-Identifier: MIT */
/* Telling a guest under the `iommu` strategy: through the interrupt table, and no further than that lets it. What a
 * slow notification costs its guest: test_blk_stall.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "backend/blk/blkqueue.h"
#include "base/ticker.h"

#define DOMID 3
#define DEVID 51712u

/* A queue as its reactor has it, and the guest's end of its channel. */
struct scene {
    struct iommu *unit;
    struct intremap *remap;
    struct ticker ticker;
    struct reactor reactor;
    struct blkqueue queue;
    struct evtchn guest;
};

static int setup(void **state)
{
    struct scene *s = calloc(1, sizeof(*s));
    int wait_fd, notify_fd;
    assert_int_equal(iommu_new(&s->unit), 0);
    assert_int_equal(intremap_new(s->unit, 4, &s->remap), 0);
    assert_int_equal(evtchn_direction_open(&wait_fd, &notify_fd), 0);
    evtchn_init(&s->guest, 7, wait_fd, -1);
    evtchn_init(&s->queue.channel, 9, -1, notify_fd);
    ticker_init(&s->ticker);
    s->reactor.ticker = &s->ticker;
    s->queue.reactor = &s->reactor;
    s->queue.config = (struct blkqueue_config){.front_domid = DOMID, .devid = DEVID, .port = 7, .remap = s->remap};
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    struct scene *s = *state;
    blktell_unroute(&s->queue);
    intremap_free(s->remap);
    iommu_free(s->unit);
    evtchn_deinit(&s->guest);
    evtchn_deinit(&s->queue.channel);
    free(s);
    return 0;
}

static bool told(struct scene *s)
{
    blktell(&s->queue);
    return evtchn_consume(&s->guest);
}

static uint32_t vectors(struct scene *s)
{
    struct intremap_stats stats;
    intremap_stats(s->remap, &stats);
    return stats.entries;
}

static void test_the_strategy_says_whether_a_queue_has_a_vector(void **state)
{
    struct scene *s = *state;
    for (unsigned round = 0; round < 3; round++) {
        assert_int_equal(blktell_route(&s->queue, &dma_pin, NULL), 0);
        assert_int_equal(vectors(s), 0);
        assert_true(told(s));
        for (unsigned twice = 0; twice < 2; twice++)
            assert_int_equal(blktell_route(&s->queue, &dma_iommu, NULL), 0);
        assert_int_equal(vectors(s), 1);
        assert_true(told(s));
    }
    assert_int_equal(iommu_fault_count(s->unit, IOMMU_F_INTERRUPT), 0);
}

static void test_a_vector_that_was_taken_away_tells_nobody_and_is_a_fault(void **state)
{
    struct scene *s = *state;
    struct iommu_fault fault;
    uint64_t total;
    assert_int_equal(blktell_route(&s->queue, &dma_iommu, NULL), 0);
    intremap_revoke(s->remap, s->queue.tell.handle, 0);
    assert_false(told(s));
    assert_int_equal(iommu_faults(s->unit, &fault, 1, &total), 1);
    assert_int_equal(fault.reason, IOMMU_F_INTERRUPT);
    assert_int_equal(fault.device, DEVID);
    assert_int_equal(fault.domid, DOMID);
}

static void test_a_disk_that_raises_the_vector_of_another_tells_nobody(void **state)
{
    struct scene *s = *state;
    struct blkqueue other = s->queue;
    other.config.front_domid = DOMID + 1;
    assert_int_equal(blktell_route(&s->queue, &dma_iommu, NULL), 0);
    assert_int_equal(blktell_route(&other, &dma_iommu, NULL), 0);
    uint32_t own = other.tell.handle;
    other.tell.handle = s->queue.tell.handle;
    blktell(&other);
    assert_false(evtchn_consume(&s->guest));
    assert_int_equal(iommu_fault_count(s->unit, IOMMU_F_INTERRUPT), 1);
    assert_true(told(s));
    other.tell.handle = own;
    blktell_unroute(&other);
}

static void test_no_free_vector_is_said_and_leaves_the_queue_as_it_was(void **state)
{
    struct scene *s = *state;
    struct intremap_source someone = {.device = 1, .domid = 1};
    struct err e = {""};
    uint32_t handle;
    assert_int_equal(intremap_alloc(s->remap, &someone, 4, &handle), 0);
    assert_int_equal(blktell_route(&s->queue, &dma_iommu, &e), -ENOMEM);
    assert_non_null(strstr(e.text, "vector"));
    assert_true(told(s));
    intremap_release(s->remap, handle);
}

#define TELL_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TELL_TEST(test_the_strategy_says_whether_a_queue_has_a_vector),
        TELL_TEST(test_a_vector_that_was_taken_away_tells_nobody_and_is_a_fault),
        TELL_TEST(test_a_disk_that_raises_the_vector_of_another_tells_nobody),
        TELL_TEST(test_no_free_vector_is_said_and_leaves_the_queue_as_it_was),
    };
    return cmocka_run_group_tests_name("blktell", tests, NULL, NULL);
}
