/* SPDX-License-Identifier: MIT */
/* A disk of several queues and a disk in the hands of several threads: nothing is lost or mixed up, whatever becomes of
 * the backend meanwhile. Of most use under ThreadSanitizer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <poll.h>
#include <pthread.h>
#include <sys/wait.h>
#include <time.h>

#include "tests/front_guest.h"

#define THREADS      8
#define THREAD_BYTES (BACK_DISK_BYTES / THREADS)

static void offer_queues(struct front_world *w, uint32_t queues)
{
    w->back->features =
        (struct keys_blk_features){.max_ring_order = 2, .max_queues = queues, .max_indirect_segments = 64};
}

static uint32_t queues_of(struct guest *g)
{
    struct dz_vbd_info info;
    dz_vbd_info(g->disk, &info);
    return info.queues;
}

/* ---- one thread ---- */

static void test_there_are_as_many_queues_as_asked_and_offered(void **state)
{
    struct front_world *w = *state;
    static const struct {
        uint32_t asked, offered, queues;
    } rows[] = {{0, 16, 1}, {1, 16, 1}, {4, 1, 1}, {4, 4, 4}, {3, 8, 3}, {16, 16, 16}, {UINT32_MAX, 16, 16}};
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct guest g;
        struct dz_vbd_stats one;
        unsigned char data[512];
        offer_queues(w, rows[i].offered);
        front_world_backend_start(w, BACK_GOOD, 0);
        guest_open_with(w, &g, &(struct dz_vbd_options){.queues = rows[i].asked});
        assert_int_equal(queues_of(&g), rows[i].queues);
        assert_null(dz_vbd_queue(g.disk, rows[i].queues));
        for (uint32_t n = 0; n < rows[i].queues; n++) {
            struct dz_queue *q = dz_vbd_queue(g.disk, n);
            struct dz_io io = {DZ_READ, data, 512, 0, NULL, 1, {0}}, *done = NULL;
            w->back->taken_by[n] = 0;
            assert_int_equal(dz_queue_submit(q, &io), 0);
            assert_int_equal(dz_queue_wait(q, &done, 1, -1), 1);
            assert_true(done == &io && io.result == 0);
            assert_int_equal(w->back->taken_by[n], 1);
            dz_queue_stats(q, &one);
            assert_int_equal(one.requests, 1);
        }
        dz_vbd_stats(g.disk, &one);
        assert_int_equal(one.requests, rows[i].queues);
        guest_close(w, &g);
        assert_int_equal(holdings(w).extents, 0);
        front_world_backend_kill(w);
    }
}

static void submit_to(struct guest *g, unsigned queue, struct dz_io *io)
{
    if (dz_queue_submit(dz_vbd_queue(g->disk, queue), io) < 0)
        fail_msg("%s", dz_error());
}

static void test_all_queues_are_replayed(void **state)
{
    enum { QUEUES = 4, EACH = 10 };
    struct front_world *w = *state;
    struct guest g;
    struct dz_vbd_stats stats;
    struct dz_io io[QUEUES][EACH], *done[EACH];
    static unsigned char data[QUEUES][EACH][4096];
    offer_queues(w, QUEUES);
    front_world_backend_start(w, BACK_HOLD, 0);
    guest_open_with(w, &g, &(struct dz_vbd_options){.queues = QUEUES});
    for (unsigned n = 0; n < QUEUES; n++)
        for (unsigned i = 0; i < EACH; i++) {
            fill(data[n][i], 4096, n * EACH + i);
            io[n][i] = (struct dz_io){DZ_WRITE, data[n][i], 4096, (n * EACH + i) * 4096ull, NULL, 1, {0}};
            submit_to(&g, n, &io[n][i]);
        }
    for (unsigned n = 0; n < QUEUES; n++)
        dz_queue_kick(dz_vbd_queue(g.disk, n));
    front_world_until(&w->back->held, QUEUES * EACH);
    front_world_backend_kill(w);
    front_world_backend_start(w, BACK_GOOD, 0);
    for (unsigned n = QUEUES; n-- > 0;)
        for (unsigned got = 0; got < EACH;)
            got += (unsigned)dz_queue_wait(dz_vbd_queue(g.disk, n), done, EACH, -1);
    for (unsigned n = 0; n < QUEUES; n++)
        for (unsigned i = 0; i < EACH; i++) {
            assert_int_equal(io[n][i].result, 0);
            assert_memory_equal(w->back->data + io[n][i].offset_bytes, data[n][i], 4096);
        }
    dz_vbd_stats(g.disk, &stats);
    assert_int_equal(stats.reconnects, 1);
    assert_int_equal(stats.replayed, QUEUES * EACH);
    guest_close(w, &g);
    assert_int_equal(holdings(w).extents, 0);
}

static void test_a_backend_that_comes_back_with_fewer_queues_fails_the_disk(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    unsigned char data[512];
    offer_queues(w, 4);
    front_world_backend_start(w, BACK_GOOD, 0);
    guest_open_with(w, &g, &(struct dz_vbd_options){.queues = 4});
    front_world_backend_kill(w);
    offer_queues(w, 3);
    front_world_backend_start(w, BACK_GOOD, 0);
    assert_int_equal(dz_vbd_read(g.disk, data, 512, 0), -EPROTO);
    assert_non_null(strstr(dz_error(), "3 queues"));
    guest_close(w, &g);
}

static void test_requests_of_all_queues_end_with_a_detach(void **state)
{
    enum { QUEUES = 3 };
    struct front_world *w = *state;
    struct guest g;
    struct dz_io io[QUEUES], *done;
    unsigned char data[QUEUES][512];
    offer_queues(w, QUEUES);
    front_world_backend_start(w, BACK_HOLD, 0);
    guest_open_with(w, &g, &(struct dz_vbd_options){.queues = QUEUES});
    for (unsigned n = 0; n < QUEUES; n++) {
        io[n] = (struct dz_io){DZ_READ, data[n], 512, 0, NULL, 1, {0}};
        submit_to(&g, n, &io[n]);
        dz_queue_kick(dz_vbd_queue(g.disk, n));
    }
    front_world_until(&w->back->held, QUEUES);
    w->back->detach = true; /* it answers what it holds, then closes */
    for (unsigned n = 0; n < QUEUES; n++) {
        assert_int_equal(dz_queue_wait(dz_vbd_queue(g.disk, n), &done, 1, -1), 1);
        assert_int_equal(io[n].result, 0);
    }
    guest_close(w, &g);
}

/* ---- hostile: what one queue's backend does ends the disk, and all who wait for it hear of it ---- */

struct waiter {
    struct dz_queue *queue;
    struct dz_io io;
    unsigned char data[512];
    pthread_t thread;
};

static void *waiter_run(void *arg)
{
    struct waiter *t = arg;
    struct dz_io *done;
    return (void *)(intptr_t)dz_queue_wait(t->queue, &done, 1, -1);
}

static void test_misbehaviour_in_one_queue_wakes_and_fails_all(void **state)
{
    enum { QUEUES = 4 };
    struct front_world *w = *state;
    struct guest g;
    struct waiter t[QUEUES];
    offer_queues(w, QUEUES);
    front_world_backend_start(w, BACK_HOLD, 0);
    guest_open_with(w, &g, &(struct dz_vbd_options){.queues = QUEUES});
    for (unsigned n = 0; n < QUEUES; n++) {
        t[n].queue = dz_vbd_queue(g.disk, n);
        t[n].io = (struct dz_io){DZ_READ, t[n].data, 512, 0, NULL, 1, {0}};
    }
    for (unsigned n = 1; n < QUEUES; n++) {
        assert_int_equal(dz_queue_submit(t[n].queue, &t[n].io), 0);
        assert_int_equal(pthread_create(&t[n].thread, NULL, waiter_run, &t[n]), 0);
    }
    front_world_until(&w->back->held, QUEUES - 1);
    front_world_mode(w, BACK_BAD_ID_NEXT, 0);
    assert_int_equal(dz_queue_submit(t[0].queue, &t[0].io), 0);
    assert_int_equal((intptr_t)waiter_run(&t[0]), 1);
    assert_int_equal(t[0].io.result, -EIO);
    for (unsigned n = 1; n < QUEUES; n++) {
        void *got;
        pthread_join(t[n].thread, &got);
        assert_int_equal((intptr_t)got, 1);
        assert_int_equal(t[n].io.result, -EIO);
    }
    assert_int_equal(dz_vbd_flush(g.disk), -EIO);
    assert_non_null(strstr(dz_error(), "not in flight"));
    guest_close(w, &g);
}

/* ---- many threads ---- */

struct worker {
    struct guest *guest;
    struct dz_queue *queue; /* NULL: synchronous calls */
    unsigned index, rounds;
    _Atomic bool *stop; /* or for so long */
    pthread_t thread;
    int result;
    uint64_t done;
};

/* Writes and reads back pieces of its own eighth of the disk. */
static int worker_round_sync(struct worker *t, unsigned round)
{
    unsigned char out[3 * 4096], in[3 * 4096];
    uint64_t at = t->index * (uint64_t)THREAD_BYTES + round * 7919ull % (THREAD_BYTES / 4096 - 3) * 4096;
    uint32_t bytes = 4096 * (1 + round % 3);
    fill(out, bytes, t->index * 1000 + round);
    int r = dz_vbd_write(t->guest->disk, out, bytes, at);
    r = r ? r : round % 5 ? 0 : dz_vbd_flush(t->guest->disk);
    r = r ? r : dz_vbd_read(t->guest->disk, in, bytes, at);
    return r ? r : memcmp(in, out, bytes) ? -EILSEQ : 0;
}

static int await_one(struct worker *t, struct dz_io *io, unsigned round)
{
    struct dz_io *done = NULL;
    int n = 0;
    if (dz_queue_submit(t->queue, io) < 0)
        return -EIO;
    if (round % 2) /* a wait, or the descriptor */
        return dz_queue_wait(t->queue, &done, 1, -1) == 1 && done == io ? io->result : -EPROTO;
    while ((n = dz_queue_reap(t->queue, &done, 1)) == 0) {
        struct pollfd p = {dz_queue_fd(t->queue), POLLIN, 0};
        if (!dz_queue_arm(t->queue))
            poll(&p, 1, -1);
    }
    return n == 1 && done == io ? io->result : -EPROTO;
}

static int worker_round_queue(struct worker *t, unsigned round)
{
    unsigned char out[4096], in[4096];
    uint64_t at = t->index * (uint64_t)THREAD_BYTES + round * 7919ull % (THREAD_BYTES / 4096) * 4096;
    fill(out, sizeof(out), t->index * 1000 + round);
    struct dz_io write = {DZ_WRITE, out, sizeof(out), at, NULL, 1, {0}};
    struct dz_io read = {DZ_READ, in, sizeof(in), at, NULL, 1, {0}};
    int r = await_one(t, &write, round);
    r = r ? r : await_one(t, &read, round);
    return r ? r : memcmp(in, out, sizeof(in)) ? -EILSEQ : 0;
}

static void *worker_run(void *arg)
{
    struct worker *t = arg;
    for (unsigned round = 0; (t->stop ? !*t->stop : round < t->rounds) && !t->result; round++, t->done++)
        t->result = t->queue ? worker_round_queue(t, round) : worker_round_sync(t, round);
    return NULL;
}

static void workers_start(struct worker *t, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(pthread_create(&t[i].thread, NULL, worker_run, &t[i]), 0);
}

static void workers_join(struct worker *t, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        pthread_join(t[i].thread, NULL);
        assert_int_equal(t[i].result, 0);
        assert_true(t[i].done > 0);
    }
}

static void test_synchronous_calls_from_many_threads(void **state)
{
    struct front_world *w = *state;
    static const struct dz_vbd_options options[] = {
        {.queues = 1}, {.queues = 1, .spin_us = 30}, {.queues = 3}, {.queues = 16}};
    offer_queues(w, 16);
    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        struct guest g;
        struct worker t[THREADS] = {0};
        front_world_backend_start(w, BACK_GOOD, 0);
        guest_open_with(w, &g, &options[i]);
        for (unsigned n = 0; n < THREADS; n++)
            t[n] = (struct worker){.guest = &g, .index = n, .rounds = 60};
        workers_start(t, THREADS);
        workers_join(t, THREADS);
        guest_close(w, &g);
        front_world_backend_kill(w);
    }
}

/* The first half have a queue each; the others call synchronously, into the same queues. */
static void test_queues_and_synchronous_calls_at_the_same_time(void **state)
{
    struct front_world *w = *state;
    offer_queues(w, 16);
    for (unsigned spin_us = 0; spin_us < 60; spin_us += 30) {
        struct guest g;
        struct worker t[THREADS] = {0};
        front_world_backend_start(w, BACK_GOOD, 0);
        guest_open_with(w, &g, &(struct dz_vbd_options){.queues = THREADS / 2, .spin_us = spin_us});
        for (unsigned n = 0; n < THREADS; n++)
            t[n] = (struct worker){
                .guest = &g, .index = n, .rounds = 60, .queue = n < THREADS / 2 ? dz_vbd_queue(g.disk, n) : NULL};
        workers_start(t, THREADS);
        workers_join(t, THREADS);
        guest_close(w, &g);
        front_world_backend_kill(w);
    }
}

static void threads_and_deaths(struct front_world *w, bool mixed)
{
    enum { LIVES = 6 };
    struct guest g;
    struct dz_vbd_stats stats;
    struct worker t[THREADS] = {0};
    _Atomic bool stop = false;
    offer_queues(w, THREADS);
    front_world_backend_start(w, BACK_DIE, 100);
    guest_open_with(w, &g, &(struct dz_vbd_options){.queues = mixed ? THREADS / 2 : THREADS, .spin_us = 10});
    for (unsigned n = 0; n < THREADS; n++)
        t[n] = (struct worker){.guest = &g,
                               .index = n,
                               .stop = &stop,
                               .queue = mixed && n % 2 ? NULL : dz_vbd_queue(g.disk, mixed ? n / 2 : n)};
    workers_start(t, THREADS);
    for (unsigned life = 0; life < LIVES; life++) {
        front_world_backend_reap(w);
        front_world_backend_start(w, life + 1 < LIVES ? BACK_DIE : BACK_GOOD, 100);
    }
    front_world_until(&w->back->connected, LIVES + 1);
    for (unsigned seen = w->back->answered; w->back->answered < seen + 100;)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    stop = true;
    workers_join(t, THREADS);
    dz_vbd_stats(g.disk, &stats);
    assert_int_equal(stats.reconnects, LIVES);
    assert_int_equal(stats.errors, 0);
    guest_close(w, &g);
    assert_int_equal(holdings(w).extents, 0);
}

static void test_a_thread_a_queue_while_the_backend_keeps_dying(void **state)
{
    threads_and_deaths(*state, false);
}

static void test_threads_of_both_kinds_while_the_backend_keeps_dying(void **state)
{
    threads_and_deaths(*state, true);
}

/* One after another uses the same queue: a few take it over, then it is shared. */
static void test_a_queue_changes_its_thread(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    front_world_backend_start(w, BACK_GOOD, 0);
    guest_open(w, &g);
    for (unsigned i = 0; i < 40; i++) {
        struct worker t = {.guest = &g, .index = i % THREADS, .rounds = 3, .queue = dz_vbd_queue(g.disk, 0)};
        workers_start(&t, 1);
        workers_join(&t, 1);
        assert_int_equal(worker_round_queue(&t, i), 0); /* and back to this one */
    }
    guest_close(w, &g);
}

struct side_by_side {
    struct front_world *world;
    struct dz_queue *queue;
    struct dz_vbd *disk;
    int result;
};

static void *second_comes_and_both_are_answered(void *arg)
{
    struct side_by_side *t = arg;
    unsigned char data[512];
    struct dz_io io = {DZ_READ, data, 512, 0, NULL, 1, {0}}, *done = NULL;
    front_world_until(&t->world->back->held, 1);
    t->result = dz_queue_submit(t->queue, &io);
    dz_queue_kick(t->queue);
    front_world_until(&t->world->back->held, 2);
    dz_queue_wait(t->queue, &done, 1, 20); /* both sleep */
    front_world_mode(t->world, BACK_GOOD, 0);
    t->result = dz_queue_wait(t->queue, &done, 1, -1) == 1 && done == &io ? io.result : -EPROTO;
    return NULL;
}

/* One thread is in a synchronous call, which the other, the queue's own, has to make way for and wake. */
static void test_a_synchronous_call_and_the_queues_thread_sleep_side_by_side(void **state)
{
    struct front_world *w = *state;
    for (unsigned spin_us = 0; spin_us < 40; spin_us += 20) {
        struct guest g;
        unsigned char data[512];
        front_world_backend_start(w, BACK_HOLD, 0);
        guest_open_with(w, &g, &(struct dz_vbd_options){.spin_us = spin_us}); /* the queue is this thread's */
        struct side_by_side s = {w, dz_vbd_queue(g.disk, 0), g.disk, -1};
        pthread_t release;
        assert_int_equal(pthread_create(&release, NULL, second_comes_and_both_are_answered, &s), 0);
        assert_int_equal(dz_vbd_read(g.disk, data, 512, 0), 0);
        pthread_join(release, NULL);
        assert_int_equal(s.result, 0);
        guest_close(w, &g);
        front_world_backend_kill(w);
    }
}

static void *fill_by_a_call(void *arg)
{
    struct side_by_side *t = arg;
    static unsigned char data[DEPTH * 44 * 1024];
    t->result = dz_vbd_read(t->disk, data, sizeof(data), 0);
    return NULL;
}

/* What a synchronous call has in flight is not the queue's thread's: it does not wait for that, but where it was
 * refused because of it. */
static void test_a_queues_thread_and_a_call_that_fills_the_queue(void **state)
{
    struct front_world *w = *state;
    for (unsigned by_descriptor = 0; by_descriptor < 2; by_descriptor++) {
        struct guest g;
        unsigned char data[512];
        struct dz_io io = {DZ_READ, data, 512, 0, NULL, 1, {0}}, *done = NULL;
        pthread_t thread;
        front_world_backend_start(w, BACK_HOLD, 0);
        guest_open(w, &g);
        struct side_by_side s = {w, dz_vbd_queue(g.disk, 0), g.disk, -1};
        struct pollfd p = {dz_vbd_fd(g.disk), POLLIN, 0};
        assert_int_equal(pthread_create(&thread, NULL, fill_by_a_call, &s), 0);
        front_world_until(&w->back->held, DEPTH);
        assert_int_equal(dz_vbd_wait(g.disk, &done, 1, -1), 0);
        assert_int_equal(dz_vbd_submit(g.disk, &io), -EAGAIN);
        front_world_mode(w, BACK_GOOD, 0);
        while (dz_vbd_submit(g.disk, &io) == -EAGAIN) {
            if (!by_descriptor)
                assert_int_equal(dz_vbd_wait(g.disk, &done, 1, -1), 0);
            else if (!dz_vbd_arm(g.disk))
                assert_int_equal(poll(&p, 1, -1), 1);
            if (by_descriptor)
                assert_int_equal(dz_vbd_reap(g.disk, &done, 1), 0);
        }
        assert_int_equal(dz_vbd_wait(g.disk, &done, 1, -1), 1);
        assert_true(done == &io && io.result == 0);
        pthread_join(thread, NULL);
        assert_int_equal(s.result, 0);
        guest_close(w, &g);
        front_world_backend_kill(w);
    }
}

/* Between dz_vbd_arm() and the sleep on the descriptor a synchronous call takes what that was to wait for. */
static void test_a_descriptor_is_readable_though_a_synchronous_call_took_the_event(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    unsigned char data[2][512];
    struct dz_io io = {DZ_READ, data[0], 512, 0, NULL, 1, {0}}, *done;
    front_world_backend_start(w, BACK_HOLD, 0);
    guest_open(w, &g);
    struct pollfd p = {dz_vbd_fd(g.disk), POLLIN, 0};
    for (unsigned i = 0; i < 50; i++) {
        front_world_mode(w, BACK_HOLD, 0);
        done = NULL;
        submit(&g, &io);
        dz_vbd_kick(g.disk);
        front_world_until(&w->back->held, 1);
        while (dz_vbd_arm(g.disk))
            assert_int_equal(dz_vbd_reap(g.disk, &done, 1), 0);
        front_world_mode(w, BACK_GOOD, 0); /* both at a time */
        assert_int_equal(dz_vbd_read(g.disk, data[1], 512, 0), 0);
        do
            assert_int_equal(poll(&p, 1, -1), 1);
        while (dz_vbd_reap(g.disk, &done, 1) == 0 && !dz_vbd_arm(g.disk));
        while (!done)
            dz_vbd_reap(g.disk, &done, 1);
        assert_true(done == &io && io.result == 0);
    }
    guest_close(w, &g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FRONT_TEST(test_there_are_as_many_queues_as_asked_and_offered),
        FRONT_TEST(test_all_queues_are_replayed),
        FRONT_TEST(test_a_backend_that_comes_back_with_fewer_queues_fails_the_disk),
        FRONT_TEST(test_requests_of_all_queues_end_with_a_detach),
        FRONT_TEST(test_misbehaviour_in_one_queue_wakes_and_fails_all),
        FRONT_TEST(test_synchronous_calls_from_many_threads),
        FRONT_TEST(test_queues_and_synchronous_calls_at_the_same_time),
        FRONT_TEST(test_a_thread_a_queue_while_the_backend_keeps_dying),
        FRONT_TEST(test_threads_of_both_kinds_while_the_backend_keeps_dying),
        FRONT_TEST(test_a_queue_changes_its_thread),
        FRONT_TEST(test_a_synchronous_call_and_the_queues_thread_sleep_side_by_side),
        FRONT_TEST(test_a_queues_thread_and_a_call_that_fills_the_queue),
        FRONT_TEST(test_a_descriptor_is_readable_though_a_synchronous_call_took_the_event),
    };
    return cmocka_run_group_tests_name("blkfront_queues", tests, NULL, NULL);
}
