/* SPDX-License-Identifier: MIT */
/* The reactor and the data path of a queue: a real io_uring on a real file, a real world around it, a guest that drives
 * its ring by hand. The guest is in this process; the reactor is a thread of it, as domain 0. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "tests/engine_bench.h"

/* ---- requests of every length reach the file and come back ---- */

static void write_then_read(struct bench *b, unsigned segments, uint64_t sector, unsigned first, unsigned last)
{
    unsigned char wanted[DMA_SEGMENTS_SMALL * PAGE_BYTES];
    struct blkguest *g = &b->guest;
    unsigned per_page = last - first + 1;
    blkworld_pattern(wanted, sector, segments * per_page, segments + 100);
    for (unsigned i = 0; i < segments; i++) {
        memset(g->data + i * PAGE_BYTES, 0x5a, PAGE_BYTES);
        memcpy(g->data + i * PAGE_BYTES + first * SECTOR_BYTES, wanted + i * per_page * SECTOR_BYTES,
               per_page * SECTOR_BYTES);
    }
    assert_int_equal(blkguest_do(g, BLKIF_OP_WRITE, sector, 0, segments, first, last), BLKIF_RSP_OKAY);
    file_expect(b, sector, wanted, segments * per_page * SECTOR_BYTES);
    memset(g->data, 0xa5, segments * PAGE_BYTES);
    assert_int_equal(blkguest_do(g, BLKIF_OP_READ, sector, 0, segments, first, last), BLKIF_RSP_OKAY);
    for (unsigned i = 0; i < segments; i++) {
        const unsigned char *page = g->data + i * PAGE_BYTES;
        assert_memory_equal(page + first * SECTOR_BYTES, wanted + i * per_page * SECTOR_BYTES, per_page * SECTOR_BYTES);
        for (unsigned at = 0; at < first * SECTOR_BYTES; at++)
            assert_int_equal(page[at], 0xa5); /* not a byte beside what was asked for */
        for (unsigned at = (last + 1) * SECTOR_BYTES; at < PAGE_BYTES; at++)
            assert_int_equal(page[at], 0xa5);
    }
}

static void test_all_lengths_arrive_whatever_the_dma_row_and_poll_mode(void **state)
{
    static const char *const polls[] = {"interrupt", "adaptive", "poll"};
    (void)state;
    for (unsigned p = 0; p < ARRAY_SIZE(polls); p++) {
        struct bench b;
        bench_start(&b, polls[p]);
        for (unsigned d = 0; d < dma_strategy_count; d++) {
            connect_default(&b, dma_strategies[d]->name);
            for (unsigned segments = 1; segments <= BLKREQ_SEGMENTS_MAX; segments++) {
                write_then_read(&b, segments, segments * 90, 0, 7);
                write_then_read(&b, segments, segments * 90, 2, 5);
                write_then_read(&b, segments, segments * 90, 7, 7);
            }
            disconnect(&b);
        }
        bench_stop(&b);
    }
}

/* ---- images that scatter a disk ---- */

/* A format of the test: pieces of one to three sectors; each third piece of a read is a hole. */
static int scatter_map(const struct image *image, uint64_t offset_bytes, uint64_t length_bytes, bool write,
                       struct image_extent *out)
{
    int n = 0;
    while (length_bytes) {
        uint64_t piece = MIN(length_bytes, (uint64_t)(1 + n % 3) * SECTOR_BYTES);
        if (n == IMAGE_EXTENTS_MAX - 1)
            piece = length_bytes;
        out[n] = (struct image_extent){.fd = image->fd,
                                       .offset_bytes = offset_bytes,
                                       .length_bytes = piece,
                                       .kind = !write && n % 3 == 2 ? IMAGE_ZERO : IMAGE_DATA};
        offset_bytes += piece;
        length_bytes -= piece;
        n++;
    }
    return n;
}

static const struct image_format image_scatter = {.name = "scatter", .map = scatter_map};

static void scatter_expect(unsigned char *wanted, uint64_t sector, unsigned sectors)
{
    struct image none = {.fd = -1};
    struct image_extent x[IMAGE_EXTENTS_MAX];
    blkworld_pattern(wanted, sector, sectors, SEED);
    int n = scatter_map(&none, sector * SECTOR_BYTES, sectors * SECTOR_BYTES, false, x);
    for (int i = 0; i < n; i++)
        if (x[i].kind == IMAGE_ZERO)
            memset(wanted + (x[i].offset_bytes - sector * SECTOR_BYTES), 0, x[i].length_bytes);
}

static void test_pieces_and_holes_of_an_image_land_where_they_belong(void **state)
{
    struct bench b;
    (void)state;
    for (unsigned d = 0; d < dma_strategy_count; d++) {
        bench_start(&b, "interrupt");
        image_default(&b);
        struct image scattered = *b.image;
        struct blkqueue_config c;
        scattered.format = &image_scatter;
        guest_ring(&b);
        config_default(&b, dma_strategies[d]->name, &c);
        c.image = &scattered;
        assert_int_equal(queue_attach(&b, &c), 0);
        for (unsigned segments = 1; segments <= BLKREQ_SEGMENTS_MAX; segments++)
            for (unsigned first = 0; first < 8; first += 3) {
                unsigned char wanted[DMA_SEGMENTS_SMALL * PAGE_BYTES];
                unsigned per_page = 8 - first;
                scatter_expect(wanted, segments, segments * per_page);
                assert_int_equal(blkguest_do(&b.guest, BLKIF_OP_READ, segments, 3, segments, first, 7), 0);
                for (unsigned i = 0; i < segments; i++)
                    assert_memory_equal(b.guest.data + (3 + i) * PAGE_BYTES + first * SECTOR_BYTES,
                                        wanted + i * per_page * SECTOR_BYTES, per_page * SECTOR_BYTES);
            }
        memset(b.guest.data, 0x77, 11 * PAGE_BYTES);
        assert_int_equal(blkguest_do(&b.guest, BLKIF_OP_WRITE, 500, 0, 11, 0, 7), BLKIF_RSP_OKAY);
        file_expect(&b, 500, b.guest.data, 11 * PAGE_BYTES);
        disconnect(&b);
        bench_stop(&b);
    }
}

/* ---- failures of the storage ---- */

static void test_a_file_made_shorter_fails_requests_and_nothing_else(void **state)
{
    struct bench b;
    (void)state;
    bench_start(&b, "interrupt");
    connect_default(&b, "pin");
    assert_int_equal(truncate(b.path, DISK_BYTES / 2 + 1536), 0);
    assert_int_equal(blkguest_do(&b.guest, BLKIF_OP_READ, DISK_SECTORS - 8, 0, 1, 0, 7), BLKIF_RSP_ERROR);
    /* Ends in the middle: the rest is asked for again, and is not there. */
    assert_int_equal(blkguest_do(&b.guest, BLKIF_OP_READ, DISK_SECTORS / 2, 0, 1, 0, 7), BLKIF_RSP_ERROR);
    assert_int_equal(blkguest_do(&b.guest, BLKIF_OP_READ, DISK_SECTORS / 2 - 8, 0, 11, 0, 0), BLKIF_RSP_OKAY);
    assert_int_equal(blkcounter_get(&b.queue->stats.io_errors), 2);
    assert_int_equal(blkcounter_get(&b.queue->stats.last_io_errno), EIO);
    blkguest_check_served(&b.guest, SEED);
    disconnect(&b);
    bench_stop(&b);
}

static void test_an_error_of_the_kernel_is_the_requests_error(void **state)
{
    struct bench b;
    struct blkqueue_config c;
    (void)state;
    bench_start(&b, "interrupt");
    image_default(&b);
    struct image unwritable = *b.image;
    unwritable.fd = open(b.path, O_RDONLY);
    guest_ring(&b);
    config_default(&b, "copy", &c);
    c.image = &unwritable;
    assert_int_equal(queue_attach(&b, &c), 0);
    assert_int_equal(blkguest_do(&b.guest, BLKIF_OP_WRITE, 0, 0, 3, 0, 7), BLKIF_RSP_ERROR);
    assert_int_equal(blkcounter_get(&b.queue->stats.last_io_errno), EBADF);
    blkguest_check_served(&b.guest, SEED);
    disconnect(&b);
    close(unwritable.fd);
    bench_stop(&b);
}

/* ---- flushes ---- */

static void test_flushes_with_and_without_data_are_done(void **state)
{
    struct bench b;
    (void)state;
    bench_start(&b, "interrupt");
    connect_default(&b, "pin");
    memset(b.guest.data, 0x31, PAGE_BYTES);
    assert_int_equal(blkguest_do(&b.guest, BLKIF_OP_WRITE, 8, 0, 1, 0, 7), BLKIF_RSP_OKAY);
    assert_int_equal(blkguest_do(&b.guest, BLKIF_OP_FLUSH_DISKCACHE, 0, 0, 0, 0, 0), BLKIF_RSP_OKAY);
    memset(b.guest.data, 0x32, PAGE_BYTES);
    assert_int_equal(blkguest_do(&b.guest, BLKIF_OP_FLUSH_DISKCACHE, 16, 0, 1, 0, 7), BLKIF_RSP_OKAY);
    file_expect(&b, 16, b.guest.data, PAGE_BYTES);
    assert_int_equal(blkcounter_get(&b.queue->stats.flushes), 2);
    assert_int_equal(blkcounter_get(&b.queue->stats.syncs), 2);
    assert_int_equal(blkcounter_get(&b.queue->stats.sectors_written), 16);
    disconnect(&b);
    bench_stop(&b);
}

static void test_a_flood_of_flushes_shares_its_syncs(void **state)
{
    struct bench b;
    uint64_t id;
    unsigned flushes = 0;
    (void)state;
    bench_start(&b, "interrupt");
    connect_default(&b, "pin");
    for (unsigned round = 0; round < 50; round++) {
        unsigned out = 0;
        for (; ring_front_room(&b.guest.ring); out++)
            blkguest_put(&b.guest, BLKIF_OP_FLUSH_DISKCACHE, 8, 0, out % 2, 0, 7);
        blkguest_kick(&b.guest);
        for (flushes += out; out; out--)
            assert_int_equal(blkguest_take(&b.guest, &id), BLKIF_RSP_OKAY);
    }
    assert_int_equal(blkcounter_get(&b.queue->stats.flushes), flushes);
    assert_in_range(blkcounter_get(&b.queue->stats.syncs), 50, flushes / 2);
    disconnect(&b);
    bench_stop(&b);
}

/* ---- a full ring, for long ---- */

/* Keeps the ring full; every response is of a request that is out, and each gets one. */
static void churn(struct bench *b, unsigned rounds)
{
    struct blkguest *g = &b->guest;
    uint64_t out = 0, id;
    for (unsigned n = 0; n < rounds;) {
        while (ring_front_room(&g->ring)) {
            blkguest_put(g, n % 3 ? BLKIF_OP_READ : BLKIF_OP_WRITE, n * 8 % (DISK_SECTORS - 88),
                         n % (BLKWORLD_PAGES - 11), 1 + n % 11, 0, 7);
            n++;
            out++;
        }
        blkguest_kick(g);
        for (unsigned i = 0; i < 1 + n % 9; i++, out--)
            assert_int_equal(blkguest_take(g, &id), BLKIF_RSP_OKAY);
    }
    while (out--)
        assert_int_equal(blkguest_take(g, &id), BLKIF_RSP_OKAY);
}

static void test_a_full_ring_never_stalls_and_is_told_at_most_once_a_batch(void **state)
{
    static const char *const polls[] = {"interrupt", "adaptive", "poll"};
    (void)state;
    for (unsigned p = 0; p < ARRAY_SIZE(polls); p++) {
        struct bench b;
        bench_start(&b, polls[p]);
        connect_default(&b, p % 2 ? "copy" : "pin");
        churn(&b, 20000);
        const struct blkstats *s = &b.queue->stats;
        assert_true(blkcounter_get(&s->requests) >= 20000);
        assert_int_equal(blkcounter_get(&s->requests),
                         blkcounter_get(&s->reads) + blkcounter_get(&s->writes) + blkcounter_get(&s->flushes));
        assert_int_equal(blkcounter_get(&s->errors), 0);
        assert_true(blkcounter_get(&s->notifications) <= blkcounter_get(&s->batches));
        assert_true(blkcounter_get(&s->batches) <= blkcounter_get(&s->requests));
        disconnect(&b);
        bench_stop(&b);
    }
}

static unsigned pool_resident_pages(const struct blkpool *p)
{
    unsigned char resident[512];
    unsigned pages = (unsigned)((p->bytes + PAGE_BYTES - 1) / PAGE_BYTES), n = 0;
    assert_true(pages <= sizeof(resident) && !mincore(p->requests, p->bytes, resident));
    for (unsigned i = 0; i < pages; i++)
        n += resident[i] & 1;
    return n;
}

/* By way of a hold, which is answered: what was asked of the reactor before it is done by then. */
static void rest_and_wait(struct bench *b)
{
    engine_rest(b->engine, b->queue);
    engine_hold(b->engine, b->queue);
    assert_int_equal(next_event(b), BLKQUEUE_HELD);
}

static void test_an_idle_queue_gives_its_memory_back_and_works_on(void **state)
{
    struct bench b;
    (void)state;
    for (unsigned d = 0; d < dma_strategy_count; d++) {
        bench_start(&b, "interrupt");
        connect_default(&b, dma_strategies[d]->name);
        for (unsigned round = 0; round < 3; round++) {
            churn(&b, 100);
            assert_int_equal(blkguest_do_indirect(&b.guest, BLKIF_OP_READ, 0, 0, 100, 0, 7), BLKIF_RSP_OKAY);
            assert_true(pool_resident_pages(&b.queue->small) > 8 && pool_resident_pages(&b.queue->large) > 0);
            rest_and_wait(&b);
            assert_int_equal(pool_resident_pages(&b.queue->small) + pool_resident_pages(&b.queue->large), 0);
            assert_true(dma_strategies[d]->registers_extents || !blkcounter_get(&b.queue->stats.pinned_bytes));
            engine_resume(b.engine, b.queue);
            assert_int_equal(next_event(&b), BLKQUEUE_RESUMED);
        }
        disconnect(&b);
        bench_stop(&b);
    }
}

/* What has requests under way is left as it is. */
static void test_a_queue_with_requests_under_way_keeps_its_memory(void **state)
{
    struct bench b;
    uint64_t id, asked;
    (void)state;
    bench_start(&b, "interrupt");
    connect_default(&b, "copy");
    for (unsigned i = 0; i < 200; i++) {
        asked = blkguest_put(&b.guest, i % 2 ? BLKIF_OP_FLUSH_DISKCACHE : BLKIF_OP_READ, 0, 0, i % 2 ? 0 : 11, 0, 7);
        blkguest_kick(&b.guest);
        engine_rest(b.engine, b.queue);
        assert_int_equal(blkguest_take(&b.guest, &id), BLKIF_RSP_OKAY);
        assert_int_equal(id, asked);
    }
    disconnect(&b);
    bench_stop(&b);
}

static void test_a_detach_answers_what_was_taken_and_gives_all_back(void **state)
{
    struct bench b;
    uint32_t answered = 0;
    (void)state;
    for (unsigned d = 0; d < dma_strategy_count; d++) {
        bench_start(&b, "adaptive");
        connect_default(&b, dma_strategies[d]->name);
        while (ring_front_room(&b.guest.ring)) /* more large ones than run at a time: some wait when the end comes */
            if (b.guest.next_id % 2)
                blkguest_put(&b.guest, BLKIF_OP_WRITE, 0, 0, 11, 0, 7);
            else
                blkguest_put_indirect(&b.guest, BLKIF_OP_WRITE, 0, 0, 200, 0, 7);
        blkguest_kick(&b.guest);
        engine_detach(b.engine, b.queue);
        while (!(next_event(&b) & BLKQUEUE_DETACHED))
            ;
        assert_int_equal(ring_front_pending(&b.guest.ring, &answered), 0);
        assert_int_equal(answered, blkcounter_get(&b.queue->stats.requests));
        for (unsigned i = 0; i < BLKWORLD_PAGES; i++) /* no grant is held any more */
            assert_int_equal(gnttab_end(platform_gnttab(b.guest.platform), b.guest.gref[i]), 0);
        for (unsigned i = 0; i < BLKWORLD_PAGES; i++)
            assert_int_equal(gnttab_grant(platform_gnttab(b.guest.platform), 0,
                                          b.guest.memory.base_gfn + BLKWORLD_DATA_PAGE + i, false, &b.guest.gref[i],
                                          NULL),
                             0);
        blkqueue_free(b.queue);
        image_close(b.image);
        guest_ring_end(&b);
        blkworld_wait_held(&b.world, b.domid, 0);
        bench_stop(&b);
    }
}

static void test_stopping_the_engine_ends_what_is_attached(void **state)
{
    struct bench b;
    uint32_t answered = 0;
    (void)state;
    bench_start(&b, "interrupt");
    connect_default(&b, "pin");
    while (ring_front_room(&b.guest.ring))
        blkguest_put(&b.guest, BLKIF_OP_READ, 0, 0, 11, 0, 7);
    blkguest_kick(&b.guest);
    engine_free(b.engine);
    assert_int_equal(ring_front_pending(&b.guest.ring, &answered), 0);
    assert_int_equal(answered, blkcounter_get(&b.queue->stats.requests));
    blkqueue_free(b.queue);
    image_close(b.image);
    guest_ring_end(&b);
    engine_start(&b, "interrupt"); /* and another one takes its place */
    connect_default(&b, "pin");
    blkguest_check_served(&b.guest, SEED);
    disconnect(&b);
    bench_stop(&b);
}

/* ---- attaches that must fail hold nothing (XSA-361, 362, 365, 367, 484) ---- */

static void bad_ref(struct bench *b, struct blkqueue_config *c)
{
    (void)b;
    c->ring_ref[0] = 4711;
}

static void bad_port(struct bench *b, struct blkqueue_config *c)
{
    (void)b;
    c->port = 4000;
}

static void bad_index(struct bench *b, struct blkqueue_config *c)
{
    (void)c;
    ring_set(&b->guest.ring.ring, req_prod, 1000);
}

static void bad_domain(struct bench *b, struct blkqueue_config *c)
{
    (void)b;
    c->front_domid = 999;
}

static void test_lesson_361_a_failed_attach_holds_nothing(void **state)
{
    static void (*const spoils[])(struct bench *, struct blkqueue_config *) = {bad_ref, bad_port, bad_index,
                                                                               bad_domain};
    (void)state;
    struct bench b;
    bench_start(&b, "interrupt");
    for (unsigned i = 0; i < ARRAY_SIZE(spoils); i++) {
        struct blkqueue_config c;
        image_default(&b);
        guest_ring(&b);
        config_default(&b, "pin", &c);
        spoils[i](&b, &c);
        assert_int_not_equal(queue_attach(&b, &c), 0);
        assert_true(strlen(b.queue->err.text) > 10);
        blkqueue_free(b.queue);
        image_close(b.image);
        guest_ring_end(&b);
        blkworld_wait_held(&b.world, b.domid, 0);
    }
    connect_default(&b, "pin");
    blkguest_check_served(&b.guest, SEED);
    disconnect(&b);
    bench_stop(&b);
}

static void test_poll_modes_are_chosen_by_name(void **state)
{
    struct engine_options o = {0};
    struct err e = {0};
    (void)state;
    assert_int_equal(engine_poll_parse("poll", 0, &o, &e), 0);
    assert_int_equal(o.poll, ENGINE_POLL);
    assert_int_equal(engine_poll_parse("adaptive", 17, &o, &e), 0);
    assert_int_equal(o.spin_us, 17);
    assert_int_equal(engine_poll_parse(NULL, 0, &o, &e), 0);
    assert_int_equal(engine_poll_parse("busy", 0, &o, &e), -EINVAL);
    assert_non_null(strstr(e.text, "interrupt, adaptive or poll"));
}

/* Requests that are far apart. */
static void test_at_a_low_rate_adaptive_sleeps_and_does_not_look(void **state)
{
    struct bench b;
    struct engine_stats before, after;
    (void)state;
    bench_start(&b, "adaptive");
    connect_default(&b, "pin");
    for (unsigned i = 0; i < 300; i++) {
        if (i == 20)
            engine_stats(b.engine, &before);
        assert_int_equal(blkguest_do(&b.guest, BLKIF_OP_READ, i % 64 * 8, 0, 1, 0, 7), BLKIF_RSP_OKAY);
        usleep(10 * ENGINE_SPIN_US_DEFAULT);
    }
    engine_stats(b.engine, &after);
    assert_true(after.sleeps - before.sleeps >= 250);
    assert_true(after.spins - before.spins <= (after.sleeps - before.sleeps) / 10);
    disconnect(&b);
    bench_stop(&b);
}

/* One descriptor of the queue's is put on a file that cannot be synced, and back. */
static void check_failed_sync(bool stop_on_error)
{
    struct bench b;
    struct blkqueue_config config;
    uint64_t id;
    unsigned failed = 0;
    bench_start(&b, "interrupt");
    image_default(&b);
    guest_ring(&b);
    config_default(&b, "pin", &config);
    config.stop_on_error = stop_on_error; /* which holds what can be tried again, and this cannot */
    assert_int_equal(queue_attach(&b, &config), 0);
    int null = open("/dev/null", O_RDWR), kept = dup(b.queue->sync_fd);
    assert_int_not_equal(b.queue->sync_fd, b.image->fd); /* of its own: it is told of every loss itself */
    assert_int_equal(blkguest_do(&b.guest, BLKIF_OP_FLUSH_DISKCACHE, 0, 0, 0, 0, 0), BLKIF_RSP_OKAY);
    assert_int_equal(dup2(null, b.queue->sync_fd), b.queue->sync_fd);
    for (unsigned i = 0; i < 6; i++) /* those that wait for the next sync fail with it */
        blkguest_put(&b.guest, BLKIF_OP_FLUSH_DISKCACHE, 0, 0, 0, 0, 0);
    blkguest_kick(&b.guest);
    for (unsigned i = 0; i < 6; i++)
        failed += blkguest_take(&b.guest, &id) == BLKIF_RSP_ERROR;
    assert_int_equal(failed, 6);
    assert_int_equal(dup2(kept, b.queue->sync_fd), b.queue->sync_fd);
    memset(b.guest.data, 0x11, PAGE_BYTES);
    uint64_t syncs = blkcounter_get(&b.queue->stats.syncs);
    assert_int_equal(blkguest_do(&b.guest, BLKIF_OP_FLUSH_DISKCACHE, 0, 0, 0, 0, 0), BLKIF_RSP_ERROR);
    assert_int_equal(blkguest_do(&b.guest, BLKIF_OP_FLUSH_DISKCACHE, 8, 0, 1, 0, 7), BLKIF_RSP_ERROR);
    assert_int_equal(blkcounter_get(&b.queue->stats.syncs), syncs);
    assert_int_equal(blkcounter_get(&b.queue->stats.flush_lost), 1);
    assert_int_equal(image_sync_error(b.image), EINVAL);
    blkguest_check_served(&b.guest, SEED);
    disconnect(&b); /* and closes the image */
    struct image *again;
    const struct image_config c = {.path = b.path};
    assert_int_equal(image_open("raw", &c, &again, NULL), 0); /* a new life */
    assert_int_equal(image_sync_error(again), 0);
    image_close(again);
    close(null);
    close(kept);
    bench_stop(&b);
}

static void test_a_failed_sync_stays_failed_though_the_next_would_succeed(void **state)
{
    (void)state;
    check_failed_sync(false);
    check_failed_sync(true);
}

int main(int argc, char **argv)
{
    blkworld_child(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_poll_modes_are_chosen_by_name),
        cmocka_unit_test(test_at_a_low_rate_adaptive_sleeps_and_does_not_look),
        cmocka_unit_test(test_all_lengths_arrive_whatever_the_dma_row_and_poll_mode),
        cmocka_unit_test(test_pieces_and_holes_of_an_image_land_where_they_belong),
        cmocka_unit_test(test_a_file_made_shorter_fails_requests_and_nothing_else),
        cmocka_unit_test(test_an_error_of_the_kernel_is_the_requests_error),
        cmocka_unit_test(test_flushes_with_and_without_data_are_done),
        cmocka_unit_test(test_a_flood_of_flushes_shares_its_syncs),
        cmocka_unit_test(test_a_full_ring_never_stalls_and_is_told_at_most_once_a_batch),
        cmocka_unit_test(test_an_idle_queue_gives_its_memory_back_and_works_on),
        cmocka_unit_test(test_a_queue_with_requests_under_way_keeps_its_memory),
        cmocka_unit_test(test_a_detach_answers_what_was_taken_and_gives_all_back),
        cmocka_unit_test(test_stopping_the_engine_ends_what_is_attached),
        cmocka_unit_test(test_lesson_361_a_failed_attach_holds_nothing),
        cmocka_unit_test(test_a_failed_sync_stays_failed_though_the_next_would_succeed),
    };
    return cmocka_run_group_tests_name("engine", tests, NULL, NULL);
}
