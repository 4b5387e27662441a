/* SPDX-License-Identifier: MIT */
/* The block frontend's requests that are no plain transfer: longer than the ring takes, in pieces of memory, joined
 * with others, durable, and of zeroes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <pthread.h>

#include "tests/front_guest.h"

#define MIB (1u << 20)

static void offer(struct front_world *w, uint32_t segments)
{
    w->back->features = (struct keys_blk_features){.max_queues = 1, .max_indirect_segments = segments};
}

static struct dz_vbd_stats stats_of(struct guest *g)
{
    struct dz_vbd_stats s;
    dz_vbd_stats(g->disk, &s);
    return s;
}

/* ---- long ones ---- */

static void test_a_request_of_any_length_comes_back_once(void **state)
{
    struct front_world *w = *state;
    static unsigned char out[7 * MIB], in[7 * MIB];
    static const uint32_t segments[] = {0, 64, 256};
    fill(out, sizeof(out), 1);
    for (size_t i = 0; i < ARRAY_SIZE(segments); i++) {
        struct guest g;
        struct dz_io *done[4];
        struct dz_io write = {DZ_WRITE, out, sizeof(out) - 512, 512, NULL, 1, {0}};
        struct dz_io read = {DZ_READ, in, sizeof(in) - 512, 512, NULL, 1, {0}};
        offer(w, segments[i]);
        memset(w->back->data, 0, BACK_DISK_BYTES);
        memset(in, 0, sizeof(in));
        front_world_backend_start(w, BACK_GOOD, 0);
        guest_open(w, &g);
        submit(&g, &write);
        assert_int_equal(dz_vbd_wait(g.disk, done, 4, -1), 1);
        assert_true(done[0] == &write && write.result == 0);
        assert_memory_equal(w->back->data + 512, out, sizeof(out) - 512);
        submit(&g, &read);
        assert_int_equal(dz_vbd_wait(g.disk, done, 4, -1), 1);
        assert_true(done[0] == &read && read.result == 0);
        assert_memory_equal(in, out, sizeof(in) - 512);
        assert_int_equal(dz_vbd_wait(g.disk, done, 4, 0), 0);
        assert_int_equal(stats_of(&g).split, 2);
        guest_close(w, &g);
        front_world_backend_kill(w);
    }
}

static void test_long_and_short_requests_share_the_ring(void **state)
{
    enum { COUNT = 40, LONG_BYTES = 190 * 1024 };
    struct front_world *w = *state;
    struct guest g;
    static unsigned char data[COUNT][LONG_BYTES];
    static struct dz_io io[COUNT];
    struct dz_io *done[8];
    unsigned submitted = 0, finished = 0;
    offer(w, 0); /* five parts each */
    front_world_backend_start(w, BACK_GOOD, 0);
    guest_open(w, &g);
    fill(w->back->data, BACK_DISK_BYTES, 2);
    while (finished < COUNT) {
        for (; submitted < COUNT; submitted++) {
            uint32_t bytes = submitted % 3 ? LONG_BYTES : 4096;
            io[submitted] = (struct dz_io){DZ_READ, data[submitted], bytes, submitted * 200ull * 1024, NULL, 1, {0}};
            int r = dz_vbd_submit(g.disk, &io[submitted]);
            if (r == -EAGAIN)
                break;
            assert_int_equal(r, 0);
        }
        finished += (unsigned)dz_vbd_wait(g.disk, done, 8, -1);
    }
    for (unsigned i = 0; i < COUNT; i++) {
        assert_int_equal(io[i].result, 0);
        assert_memory_equal(data[i], w->back->data + io[i].offset_bytes, io[i].length_bytes);
    }
    assert_int_equal(dz_vbd_wait(g.disk, done, 8, 0), 0);
    guest_close(w, &g);
}

static void test_the_first_error_ends_a_long_request(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    static unsigned char out[6 * MIB];
    struct dz_io io = {DZ_WRITE, out, sizeof(out), 0, NULL, 1, {0}}, *done;
    offer(w, 0);
    front_world_backend_start(w, BACK_ERROR, 10); /* ten parts are served */
    guest_open(w, &g);
    submit(&g, &io);
    assert_int_equal(dz_vbd_wait(g.disk, &done, 1, -1), 1);
    assert_int_equal(io.result, -EIO);
    assert_true(w->back->taken < 10 + 2 * DEPTH); /* of 140 */
    front_world_mode(w, BACK_GOOD, 0);
    assert_int_equal(dz_vbd_write(g.disk, out, 4096, 0), 0);
    guest_close(w, &g);
}

static void test_a_long_request_survives_its_backend(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    static unsigned char out[5 * MIB];
    struct dz_io io = {DZ_WRITE, out, sizeof(out), 0, NULL, 1, {0}}, *done;
    offer(w, 0);
    fill(out, sizeof(out), 9);
    front_world_backend_start(w, BACK_DIE, 50);
    guest_open(w, &g);
    submit(&g, &io);
    assert_int_equal(dz_vbd_wait(g.disk, &done, 1, 20), 0);
    while (dz_vbd_reap(g.disk, &done, 1) == 0 && w->back->answered < 50)
        ;
    front_world_backend_reap(w);
    front_world_backend_start(w, BACK_GOOD, 0);
    assert_int_equal(dz_vbd_wait(g.disk, &done, 1, -1), 1);
    assert_int_equal(io.result, 0);
    assert_memory_equal(w->back->data, out, sizeof(out));
    guest_close(w, &g);
}

static void test_a_long_request_fails_once_with_its_disk(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    static unsigned char out[5 * MIB];
    struct dz_io io[2] = {{DZ_WRITE, out, sizeof(out), 0, NULL, 1, {0}}, {DZ_READ, out, sizeof(out), 0, NULL, 1, {0}}};
    offer(w, 0);
    front_world_backend_start(w, BACK_BAD_ID, 7);
    guest_open(w, &g);
    submit(&g, &io[0]);
    int r = dz_vbd_submit(g.disk, &io[1]); /* the ring is full of the first */
    assert_int_equal(r, -EAGAIN);
    assert_int_equal(drain(&g), 1);
    assert_int_equal(io[0].result, -EIO);
    guest_close(w, &g);
}

/* ---- vectors ---- */

static void vector_both_ways(struct front_world *w, struct guest *g, struct iovec *iov, unsigned count,
                             uint64_t bounced)
{
    static unsigned char whole[3 * MIB];
    size_t bytes = 0;
    uint64_t before = stats_of(g).bytes_bounced;
    for (unsigned i = 0; i < count; i++) {
        if (iov[i].iov_len)
            fill(iov[i].iov_base, iov[i].iov_len, i + 1);
        memcpy(whole + bytes, iov[i].iov_base, iov[i].iov_len);
        bytes += iov[i].iov_len;
    }
    assert_int_equal(dz_vbd_writev(g->disk, iov, (int)count, 1024), 0);
    assert_memory_equal(w->back->data + 1024, whole, bytes);
    for (unsigned i = 0; i < count; i++)
        memset(iov[i].iov_base, 0, iov[i].iov_len);
    assert_int_equal(dz_vbd_readv(g->disk, iov, (int)count, 1024), 0);
    bytes = 0;
    for (unsigned i = 0; i < count; i++) {
        assert_memory_equal(iov[i].iov_base, whole + bytes, iov[i].iov_len);
        bytes += iov[i].iov_len;
    }
    assert_int_equal(stats_of(g).bytes_bounced - before, bounced);
}

static void test_vectors_go_without_a_copy_from_the_pool_and_bounced_else(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    static unsigned char a[100 * 1024 + 3], b[2 * MIB];
    offer(w, 64);
    front_world_backend_start(w, BACK_GOOD, 0);
    guest_open(w, &g);
    unsigned char *p = dz_buffer_alloc(g.disk, 64 * 4096);
    struct iovec pool[] = {{p + 512, 512}, {p + 8192, 12288}, {p, 0}, {p + 3 * 8192 + 1024, 4096}};
    vector_both_ways(w, &g, pool, 4, 0);
    struct iovec mixed[] = {{p, 4096}, {a + 3, 1000}, {a + 2000, 24}, {p + 8192, 512}};
    vector_both_ways(w, &g, mixed, 4, 2 * (4096 + 1024 + 512));
    struct iovec one[] = {{a + 1, 512}};
    vector_both_ways(w, &g, one, 1, 1024);
    struct iovec odd[] = {{p, 100}, {p + 4096, 412}}; /* the pool's, but no whole sectors */
    vector_both_ways(w, &g, odd, 2, 1024);
    struct iovec large[] = {{a, 77}, {b, sizeof(b) - 513}, {a + 100, 436}}; /* several requests */
    vector_both_ways(w, &g, large, 3, 2 * sizeof(b));
    assert_int_equal(dz_vbd_readv(g.disk, one, 0, 0), 0);
    one[0].iov_len = 100;
    assert_int_equal(dz_vbd_readv(g.disk, one, 1, 0), -EINVAL);
    one[0].iov_len = SIZE_MAX;
    assert_int_equal(dz_vbd_readv(g.disk, one, 1, 0), -EINVAL);
    struct dz_io io = {DZ_WRITEV, pool, 512 + 4096, 0, NULL, 1, {0}}, *done; /* less than the vector has */
    submit(&g, &io);
    assert_int_equal(dz_vbd_wait(g.disk, &done, 1, -1), 1);
    assert_memory_equal(w->back->data, p + 512, 512);
    assert_memory_equal(w->back->data + 512, p + 8192, 4096);
    guest_close(w, &g);
}

/* ---- merging ---- */

static void submit_run(struct guest *g, enum dz_op op, struct dz_io *io, unsigned char (*data)[4096], unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        io[i] = (struct dz_io){op, data[i], 4096, (i + 1) * 4096ull, &io[i], 1, {0}};
        submit(g, &io[i]);
    }
}

static void test_requests_that_continue_each_other_become_one(void **state)
{
    enum { COUNT = 40 };
    struct front_world *w = *state;
    struct guest g;
    struct dz_io io[COUNT], *done[COUNT];
    static unsigned char outside[COUNT][4096];
    offer(w, 256);
    front_world_backend_start(w, BACK_GOOD, 0);
    guest_open_with(w, &g, &(struct dz_vbd_options){.merge = true});
    unsigned char(*pool)[4096] = dz_buffer_alloc(g.disk, sizeof(outside));
    for (unsigned kind = 0; kind < 2; kind++) {
        unsigned char(*data)[4096] = kind ? pool : outside;
        uint64_t merged = stats_of(&g).merged;
        fill(data[0], sizeof(outside), kind);
        w->back->taken = 0;
        submit_run(&g, DZ_WRITE, io, data, COUNT); /* more than the ring's slots */
        assert_int_equal(dz_vbd_wait(g.disk, done, COUNT, -1), COUNT);
        assert_int_equal(w->back->taken, 1);
        assert_int_equal(stats_of(&g).merged - merged, COUNT - 1);
        assert_memory_equal(w->back->data + 4096, data[0], sizeof(outside));
        memset(data[0], 0, sizeof(outside));
        submit_run(&g, DZ_READ, io, data, COUNT);
        assert_int_equal(dz_vbd_wait(g.disk, done, COUNT, -1), COUNT);
        assert_int_equal(w->back->taken, 2);
        for (unsigned i = 0; i < COUNT; i++)
            assert_true(done[i] == &io[i] && io[i].result == 0); /* in their order */
        assert_memory_equal(w->back->data + 4096, data[0], sizeof(outside));
    }
    assert_int_equal(stats_of(&g).bytes_written, 2 * sizeof(outside));
    guest_close(w, &g);
}

static void test_what_does_not_continue_stays_apart(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    static unsigned char a[8192], b[8192];
    struct iovec iov = {a, 4096};
    offer(w, 256);
    front_world_backend_start(w, BACK_GOOD, 0);
    guest_open_with(w, &g, &(struct dz_vbd_options){.merge = true});
    unsigned char *p = dz_buffer_alloc(g.disk, 8192);
    struct dz_io io[] = {
        {DZ_WRITE, a, 4096, 0, NULL, 1, {0}},        {DZ_READ, b, 4096, 4096, NULL, 1, {0}}, /* another operation */
        {DZ_READ, b, 4096, 12288, NULL, 1, {0}},                                             /* a gap */
        {DZ_READ, b, 4096, 8192, NULL, 1, {0}},                                              /* backwards */
        {DZ_READ, p, 4096, 12288, NULL, 1, {0}},                                             /* other memory */
        {DZ_FLUSH, NULL, 0, 0, NULL, 1, {0}},        {DZ_READ, p, 4096, 16384, NULL, 1, {0}},
        {DZ_READV, &iov, 4096, 20480, NULL, 1, {0}}, {DZ_READ, b, 4096, 24576, NULL, 1, {0}},
    };
    for (size_t i = 0; i < ARRAY_SIZE(io); i++)
        submit(&g, &io[i]);
    assert_int_equal(drain(&g), ARRAY_SIZE(io));
    assert_int_equal(w->back->taken, ARRAY_SIZE(io));
    assert_int_equal(stats_of(&g).merged, 0);
    guest_close(w, &g);
}

static void test_joined_requests_fail_together_and_are_replayed_together(void **state)
{
    enum { COUNT = 12 };
    struct front_world *w = *state;
    struct guest g;
    struct dz_io io[COUNT];
    static unsigned char data[COUNT][4096];
    offer(w, 256);
    front_world_backend_start(w, BACK_ERROR, 0);
    guest_open_with(w, &g, &(struct dz_vbd_options){.merge = true});
    submit_run(&g, DZ_WRITE, io, data, COUNT);
    assert_int_equal(drain(&g), COUNT);
    for (unsigned i = 0; i < COUNT; i++)
        assert_int_equal(io[i].result, -EIO);
    front_world_mode(w, BACK_HOLD, 0);
    fill(data[0], sizeof(data), 6);
    submit_run(&g, DZ_WRITE, io, data, COUNT);
    dz_vbd_kick(g.disk);
    front_world_until(&w->back->held, 1);
    front_world_backend_kill(w);
    front_world_backend_start(w, BACK_GOOD, 0);
    assert_int_equal(drain(&g), COUNT);
    assert_memory_equal(w->back->data + 4096, data[0], sizeof(data));
    guest_close(w, &g);
}

/* ---- extensions ---- */

static void test_durable_writes_and_zeroes_where_both_ends_have_them(void **state)
{
    struct front_world *w = *state;
    static unsigned char data[300 * 1024], zeroes[5 * 4096];
    struct dz_io *done;
    for (unsigned offered = 0; offered < 2; offered++) {
        struct guest g;
        struct dz_vbd_info info;
        offer(w, 32);
        w->back->features.fua = offered;
        w->back->features.max_write_zeroes_sectors = offered * 16;
        w->back->durable = w->back->taken = 0;
        front_world_backend_start(w, BACK_GOOD, 0);
        guest_open(w, &g);
        dz_vbd_info(g.disk, &info);
        assert_int_equal(info.fua, offered);
        assert_int_equal(info.write_zeroes_bytes_max, offered * 8192);
        fill(data, sizeof(data), offered);
        assert_int_equal(dz_vbd_write_durable(g.disk, data, sizeof(data), 8192), 0); /* three requests, indirect */
        assert_memory_equal(w->back->data + 8192, data, sizeof(data));
        assert_int_equal(w->back->durable, offered ? 3 : 0);
        assert_int_equal(w->back->taken, offered ? 3 : 4); /* a flush else */
        struct dz_io fua = {(enum dz_op)(DZ_WRITE | DZ_FUA), data, 4096, 0, NULL, 1, {0}};
        assert_int_equal(dz_vbd_submit(g.disk, &fua), offered ? 0 : -EOPNOTSUPP);
        assert_int_equal(dz_vbd_wait(g.disk, &done, 1, -1), offered);
        assert_int_equal(dz_vbd_write_zeroes(g.disk, sizeof(zeroes), 8192, true), offered ? 0 : -EOPNOTSUPP);
        assert_int_equal(!memcmp(w->back->data + 8192, zeroes, sizeof(zeroes)), offered);
        guest_close(w, &g);
        front_world_backend_kill(w);
    }
}

/* A long durable write and others are on their way when a backend comes that offers neither them nor zeroes: it is
 * given none of them. Nobody may hear that it is durable what sits in a cache; where there is none, a write is. */
static void test_a_successor_is_given_durable_writes_as_it_needs_them(void **state)
{
    enum { BYTES = 3 * MIB };
    struct front_world *w = *state;
    static unsigned char data[BYTES], zeroes[4096];
    for (unsigned cache = 0; cache < 2; cache++) {
        struct guest g;
        struct dz_io *done;
        struct dz_io io[] = {{(enum dz_op)(DZ_WRITE | DZ_FUA), data, BYTES, 0, NULL, 1, {0}},
                             {(enum dz_op)(DZ_WRITE | DZ_FUA), data, 4096, 2 * BYTES, NULL, 1, {0}},
                             {DZ_WRITE_ZEROES, NULL, 4096, 0, NULL, 1, {0}},
                             {DZ_WRITE, data, 4096, 2 * BYTES + 4096, NULL, 1, {0}}};
        offer(w, 0);
        w->back->features.fua = true;
        w->back->features.max_write_zeroes_sectors = 16;
        w->back->disk.flush_cache = true;
        w->back->durable = 0;
        fill(data, BYTES, cache + 1);
        memset(w->back->data, 0xee, BACK_DISK_BYTES);
        front_world_backend_start(w, BACK_HOLD, 0);
        guest_open(w, &g);
        for (unsigned i = ARRAY_SIZE(io); i-- > 0;)
            submit(&g, &io[i]);
        dz_vbd_kick(g.disk);
        front_world_until(&w->back->held, DEPTH);
        assert_int_equal(w->back->durable, DEPTH - 2);
        front_world_backend_kill(w);
        w->back->durable = 0;
        w->back->features.fua = false;
        w->back->features.max_write_zeroes_sectors = 0;
        w->back->disk.flush_cache = cache;
        front_world_backend_start(w, BACK_GOOD, 0);
        for (unsigned i = 0; i < ARRAY_SIZE(io); i++)
            assert_int_equal(dz_vbd_wait(g.disk, &done, 1, -1), 1);
        assert_int_equal(io[0].result, cache ? -EOPNOTSUPP : 0);
        assert_int_equal(io[1].result, cache ? -EOPNOTSUPP : 0);
        assert_int_equal(io[2].result, -EOPNOTSUPP);
        assert_int_equal(io[3].result, 0);
        assert_int_equal(w->back->durable, 0);
        assert_int_equal(!memcmp(w->back->data, data, BYTES), !cache);
        assert_memory_not_equal(w->back->data, zeroes, 4096);
        assert_int_equal(dz_vbd_wait(g.disk, &done, 1, 0), 0);
        guest_close(w, &g);
        front_world_backend_kill(w);
    }
    w->back->disk.flush_cache = true;
}

/* The other way round: what was as good as durable is asked for as such from a backend with a cache. */
static void test_a_durable_write_stays_one_where_the_successor_has_a_cache(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    struct dz_io *done;
    static unsigned char data[4096];
    struct dz_io io = {(enum dz_op)(DZ_WRITE | DZ_FUA), data, 4096, 0, NULL, 1, {0}};
    offer(w, 0);
    w->back->disk.flush_cache = false;
    front_world_backend_start(w, BACK_HOLD, 0);
    guest_open(w, &g);
    submit(&g, &io);
    dz_vbd_kick(g.disk);
    front_world_until(&w->back->held, 1);
    assert_int_equal(w->back->durable, 0);
    front_world_backend_kill(w);
    w->back->disk.flush_cache = w->back->features.fua = true;
    front_world_backend_start(w, BACK_GOOD, 0);
    assert_int_equal(dz_vbd_wait(g.disk, &done, 1, -1), 1);
    assert_int_equal(io.result, 0);
    assert_int_equal(w->back->durable, 1);
    guest_close(w, &g);
}

static void *write_durable_run(void *arg)
{
    struct guest *g = arg;
    static unsigned char data[4096];
    return (void *)(intptr_t)dz_vbd_write_durable(g->disk, data, sizeof(data), 0);
}

static void test_a_durable_call_becomes_a_write_and_a_flush_where_the_successor_wants_it(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    pthread_t thread;
    void *result;
    offer(w, 0);
    w->back->features.fua = true;
    front_world_backend_start(w, BACK_HOLD, 0);
    guest_open(w, &g);
    assert_int_equal(pthread_create(&thread, NULL, write_durable_run, &g), 0);
    front_world_until(&w->back->held, 1);
    front_world_backend_kill(w);
    w->back->features.fua = false;
    w->back->taken = w->back->durable = 0;
    front_world_backend_start(w, BACK_GOOD, 0);
    pthread_join(thread, &result);
    assert_int_equal((intptr_t)result, 0);
    assert_int_equal(w->back->taken, 2);
    assert_int_equal(w->back->durable, 0);
    guest_close(w, &g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FRONT_TEST(test_a_request_of_any_length_comes_back_once),
        FRONT_TEST(test_long_and_short_requests_share_the_ring),
        FRONT_TEST(test_the_first_error_ends_a_long_request),
        FRONT_TEST(test_a_long_request_survives_its_backend),
        FRONT_TEST(test_a_long_request_fails_once_with_its_disk),
        FRONT_TEST(test_vectors_go_without_a_copy_from_the_pool_and_bounced_else),
        FRONT_TEST(test_requests_that_continue_each_other_become_one),
        FRONT_TEST(test_what_does_not_continue_stays_apart),
        FRONT_TEST(test_joined_requests_fail_together_and_are_replayed_together),
        FRONT_TEST(test_durable_writes_and_zeroes_where_both_ends_have_them),
        FRONT_TEST(test_a_successor_is_given_durable_writes_as_it_needs_them),
        FRONT_TEST(test_a_durable_write_stays_one_where_the_successor_has_a_cache),
        FRONT_TEST(test_a_durable_call_becomes_a_write_and_a_flush_where_the_successor_wants_it),
    };
    return cmocka_run_group_tests_name("blkfront_unusual", tests, NULL, NULL);
}
