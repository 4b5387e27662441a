/* SPDX-License-Identifier: MIT */
/* A guest that wants the reactor's time, or its attention to fail: floods of events, memory that is dear to register,
 * waiters on its channel. Its neighbour is served, and what was given back is let go of. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "backend/blk/blktell.h"
#include "backend/blk/uring.h"
#include "tests/blk_scene.h"

#define EXTENTS 176 /* 16 requests of 11 segments; a domain may have 256 */

/* A request that reads one sector into each of 11 pages, by their references. */
static void read_into(struct blkguest *g, const uint32_t gref[BLKREQ_SEGMENTS_MAX])
{
    struct blkreq r = {.operation = BLKIF_OP_READ, .segment_count = BLKREQ_SEGMENTS_MAX, .id = g->next_id++};
    uint64_t id;
    for (unsigned i = 0; i < BLKREQ_SEGMENTS_MAX; i++)
        r.segment[i] = (struct blkreq_segment){.gref = gref[i]};
    blkguest_put_raw(g, &r);
    blkguest_kick(g);
    assert_int_equal(blkguest_take(g, &id), BLKIF_RSP_OKAY);
}

/* More events wait than the reactor handles at a time: none is left for the next wake-up, which may never come. */
static void test_memory_given_back_in_one_go_is_let_go_of(void **state)
{
    struct scene s;
    struct platform_extent x[EXTENTS];
    uint32_t gref[EXTENTS];
    (void)state;
    scene_start(&s, "pin");
    struct blkguest *g = &s.guest;
    uint32_t held = blkworld_held(&s.world, s.domid);
    for (unsigned i = 0; i < EXTENTS; i++) {
        assert_int_equal(platform_extent_alloc(g->platform, 0, 1, false, &x[i], NULL), 0);
        assert_int_equal(gnttab_grant(platform_gnttab(g->platform), 0, x[i].base_gfn, false, &gref[i], NULL), 0);
    }
    for (unsigned i = 0; i < EXTENTS; i += BLKREQ_SEGMENTS_MAX)
        read_into(g, &gref[i]);
    assert_true(blkworld_held(&s.world, s.domid) >= EXTENTS);
    kill(s.world.role, SIGSTOP);
    for (unsigned i = 0; i < EXTENTS; i++) {
        assert_int_equal(gnttab_end(platform_gnttab(g->platform), gref[i]), 0);
        platform_extent_free(g->platform, &x[i]);
    }
    kill(s.world.role, SIGCONT);
    blkworld_wait_held(&s.world, s.domid, held);
    scene_stop(&s);
}

/* Registering what guests bring is bounded in time, whatever the machine's speed; what was put off is done later. */
static void test_registering_has_its_share_of_time_and_no_more(void **state)
{
    struct uring u;
    const size_t length = 1u << 20;
    int32_t index = 0;
    (void)state;
    assert_int_equal(uring_init(&u, NULL), 0);
    for (unsigned i = 0; index >= 0; i++) {
        assert_in_range(i, 0, 1000000);
        void *fresh = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        index = u.host.buffer_register(u.host.ctx, 1, fresh, length);
        if (index >= 0)
            u.host.buffer_unregister(u.host.ctx, index);
        munmap(fresh, length);
    }
    assert_int_equal(index, -EBUSY);
    static unsigned char page[PAGE_BYTES];
    for (unsigned i = 0; (index = u.host.buffer_register(u.host.ctx, 1, page, sizeof(page))) == -EBUSY; i++) {
        assert_in_range(i, 0, BLKWORLD_PATIENCE_MS);
        usleep(1000);
    }
    assert_true(index >= 0);
    u.host.buffer_unregister(u.host.ctx, index);
    uring_deinit(&u);
}

/* Polls of the guest's end of its channel: all are woken by each notification, on the notifier's time. */
static void waiters_add(struct io_uring *ring, int fd, unsigned count)
{
    struct io_uring_params p = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN};
    assert_int_equal(io_uring_queue_init_params(4096, ring, &p), 0);
    for (unsigned i = 0; i < count; i++) {
        struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
        if (!sqe) {
            assert_true(io_uring_submit(ring) > 0);
            sqe = io_uring_get_sqe(ring);
        }
        io_uring_prep_poll_multishot(sqe, fd, POLLIN);
    }
    assert_true(io_uring_submit(ring) >= 0);
}

static bool guest_closed(struct scene *s)
{
    return blkworld_back_is(&s->world, s->domid, BLKWORLD_DEVID, XenbusStateClosed);
}

static void test_a_channel_with_very_many_waiters_is_closed_and_no_other(void **state)
{
    enum { WAITERS = 300000 };
    struct scene s;
    struct io_uring ring;
    struct stats_blk_reply stats;
    char text[256];
    uint32_t waiting = 0;
    (void)state;
    scene_start(&s, "pin");
    struct blkguest *g = &s.guest;
    waiters_add(&ring, g->channel.wait_fd, WAITERS);
    for (uint64_t end = blkworld_patience_end(); !guest_closed(&s);) {
        blkguest_put(g, BLKIF_OP_READ, 0, 0, 1, 0, 7);
        ring_front_arm(&g->ring);
        blkguest_kick(g);
        while (!guest_closed(&s) && !waiting) {
            assert_int_equal(ring_front_pending(&g->ring, &waiting), 0);
            blkworld_nap(end, "the device of a guest with very many waiters was not closed");
        }
        for (unsigned char slot[sizeof(union blkif_sring_entry)]; waiting; waiting--)
            ring_front_take(&g->ring, slot, g->protocol->response_bytes);
    }
    io_uring_queue_exit(&ring);
    blkworld_error(&s.world, s.domid, BLKWORLD_DEVID, text, sizeof(text));
    assert_non_null(strstr(text, "waiters"));
    assert_true(blkworld_stats(s.world.dir, s.domid, BLKWORLD_DEVID, &stats));
    assert_int_equal(blkworld_number(&stats, "slow_channel"), 1);
    assert_true(blkworld_number(&stats, "notifications_slow") >= BLKTELL_SLOW_MAX);
    assert_true(blkworld_stats(s.world.dir, s.neighbour_domid, BLKWORLD_DEVID, &stats));
    assert_int_equal(blkworld_number(&stats, "slow_channel"), 0);
    guest_start_over(&s);
    scene_stop(&s);
}

static unsigned buffers_take(struct uring *u, uint16_t domid, unsigned wanted, int32_t *index)
{
    static unsigned char page[PAGE_BYTES];
    unsigned n = 0;
    while (n < wanted) {
        index[n] = u->host.buffer_register(u->host.ctx, domid, page, sizeof(page));
        if (index[n] == -EDQUOT)
            break;
        if (index[n] >= 0)
            n++;
        else
            assert_int_equal(index[n], -EBUSY); /* its time is used up: it goes on later */
    }
    return n;
}

/* However many guests take all the buffers that they can get, whoever comes later has some; what they give back is
 * theirs again. */
static void test_guests_that_take_all_buffers_leave_some_for_the_next(void **state)
{
    enum { HOGS = 40, EXTENTS_MAX = 256 };
    struct rlimit may_lock;
    getrlimit(RLIMIT_MEMLOCK, &may_lock);
    if (geteuid() && may_lock.rlim_cur < 2ull * URING_BUFFERS_MAX * PAGE_BYTES) {
        print_message("RLIMIT_MEMLOCK lets an ordinary user register fewer pages than the table has places\n");
        skip();
    }
    static int32_t index[HOGS][URING_BUFFERS_MAX];
    unsigned had[HOGS], sum = 0;
    struct uring u;
    (void)state;
    assert_int_equal(uring_init(&u, NULL), 0);
    for (unsigned i = 0; i < HOGS; i++) {
        had[i] = buffers_take(&u, (uint16_t)(i + 1), URING_BUFFERS_MAX, index[i]);
        sum += had[i];
        assert_true(i >= 4 || had[i] >= EXTENTS_MAX); /* four with all their extents: each has them registered */
        assert_true(had[i] >= 4);
    }
    assert_int_equal(sum, u.buffers.used);
    for (unsigned k = 0; k < had[0]; k++)
        u.host.buffer_unregister(u.host.ctx, index[0][k]);
    unsigned again = buffers_take(&u, HOGS + 1, URING_BUFFERS_MAX, index[0]);
    assert_true(again > had[HOGS - 1]); /* there is more for all */
    for (unsigned k = 0; k < again; k++)
        u.host.buffer_unregister(u.host.ctx, index[0][k]);
    for (unsigned i = 1; i < HOGS; i++)
        for (unsigned k = 0; k < had[i]; k++)
            u.host.buffer_unregister(u.host.ctx, index[i][k]);
    assert_true(buffers_take(&u, 1, EXTENTS_MAX, index[0]) == EXTENTS_MAX);
    for (unsigned k = 0; k < EXTENTS_MAX; k++)
        u.host.buffer_unregister(u.host.ctx, index[0][k]);
    uring_deinit(&u);
}

int main(int argc, char **argv)
{
    blkworld_child(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_given_back_in_one_go_is_let_go_of),
        cmocka_unit_test(test_a_channel_with_very_many_waiters_is_closed_and_no_other),
        cmocka_unit_test(test_guests_that_take_all_buffers_leave_some_for_the_next),
        cmocka_unit_test(test_registering_has_its_share_of_time_and_no_more),
    };
    return cmocka_run_group_tests_name("blk_stall", tests, NULL, NULL);
}
