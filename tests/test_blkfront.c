/* SPDX-License-Identifier: MIT */
/* The block frontend over a real hypervisor role and store: data, refusals, opening and closing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <poll.h>
#include <sys/wait.h>

#include "tests/front_guest.h"

/* ---- data ---- */

static void test_reads_what_was_written(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    static unsigned char out[1000 * 512], in[1000 * 512];
    static const size_t sectors[] = {1, 7, 8, 9, 88, 89, 177, 1000};
    front_world_backend_start(w, BACK_GOOD, 0);
    guest_open(w, &g);
    for (size_t i = 0; i < ARRAY_SIZE(sectors); i++) {
        size_t bytes = sectors[i] * 512;
        uint64_t offset = (i * 1111 + 3) * 512;
        fill(out, bytes, (unsigned)i);
        assert_int_equal(dz_vbd_write(g.disk, out, bytes, offset), 0);
        assert_memory_equal(w->back->data + offset, out, bytes);
        memset(in, 0, bytes);
        assert_int_equal(dz_vbd_read(g.disk, in, bytes, offset), 0);
        assert_memory_equal(in, out, bytes);
    }
    guest_close(w, &g);
}

static void test_memory_of_any_alignment_is_bounced(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    static unsigned char raw[3 * 4096 + 64], in[3 * 4096 + 64];
    struct dz_vbd_stats stats;
    front_world_backend_start(w, BACK_GOOD, 0);
    guest_open(w, &g);
    for (unsigned shift = 0; shift < 32; shift += 5) {
        fill(raw + shift, 3 * 4096, shift);
        assert_int_equal(dz_vbd_write(g.disk, raw + shift, 3 * 4096, 512), 0);
        assert_int_equal(dz_vbd_read(g.disk, in + 31 - shift, 3 * 4096, 512), 0);
        assert_memory_equal(in + 31 - shift, raw + shift, 3 * 4096);
    }
    dz_vbd_stats(g.disk, &stats);
    assert_int_equal(stats.bytes_bounced, stats.bytes_read + stats.bytes_written);
    guest_close(w, &g);
}

static void test_pool_buffers_go_without_a_copy(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    struct dz_vbd_info info;
    struct dz_vbd_stats stats;
    front_world_backend_start(w, BACK_GOOD, 0);
    guest_open(w, &g);
    dz_vbd_info(g.disk, &info);
    unsigned char *buffer = dz_buffer_alloc(g.disk, 64 * 1024);
    assert_non_null(buffer);
    fill(buffer, 64 * 1024, 1);
    assert_int_equal(dz_vbd_write(g.disk, buffer + 512, 9 * 4096 + 512, 4096), 0);
    assert_memory_equal(w->back->data + 4096, buffer + 512, 9 * 4096 + 512);
    memset(buffer, 0, 64 * 1024);
    assert_int_equal(dz_vbd_read(g.disk, buffer + 1024, info.request_bytes_max - 4096, 4096), 0);
    assert_memory_equal(w->back->data + 4096, buffer + 1024, info.request_bytes_max - 4096);
    dz_vbd_stats(g.disk, &stats);
    assert_int_equal(stats.bytes_bounced, 0);
    /* Eleven pages that begin within a page touch twelve: more than a request has segments, so they are bounced. */
    assert_int_equal(dz_vbd_read(g.disk, buffer + 512, info.request_bytes_max, 0), 0);
    assert_memory_equal(w->back->data, buffer + 512, info.request_bytes_max);
    dz_vbd_stats(g.disk, &stats);
    assert_int_equal(stats.bytes_bounced, info.request_bytes_max);
    dz_buffer_free(g.disk, buffer, 64 * 1024);
    guest_close(w, &g);
}

static void test_pool_gives_lowest_runs_and_keeps_a_reserve(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    unsigned char *page[64];
    front_world_backend_start(w, BACK_GOOD, 0);
    guest_open_with(w, &g, &(struct dz_vbd_options){.pool_bytes = 64 * 4096});
    for (unsigned i = 0; i < 64; i++) {
        page[i] = dz_buffer_alloc(g.disk, 4096);
        assert_ptr_equal(page[i], page[0] + i * 4096);
    }
    assert_null(dz_buffer_alloc(g.disk, 1)); /* what is left is for bounced requests, which still go */
    unsigned char data[512];
    assert_int_equal(dz_vbd_read(g.disk, data, sizeof(data), 0), 0);
    static unsigned char big[200 * 4096];
    assert_int_equal(dz_vbd_read(g.disk, big, sizeof(big), 0), 0);
    dz_buffer_free(g.disk, page[3], 4096);
    dz_buffer_free(g.disk, page[5], 4096);
    dz_buffer_free(g.disk, page[6], 4096);
    assert_ptr_equal(dz_buffer_alloc(g.disk, 2 * 4096), page[5]);
    assert_ptr_equal(dz_buffer_alloc(g.disk, 100), page[3]);
    assert_null(dz_buffer_alloc(g.disk, SIZE_MAX));
    assert_null(dz_buffer_alloc(g.disk, 0));
    guest_close(w, &g);
}

static void test_full_queue_keeps_every_request_apart(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    struct dz_io io[DEPTH], *done[DEPTH];
    unsigned char *buffer;
    unsigned completed = 0, submitted = 0;
    front_world_backend_start(w, BACK_GOOD, 0);
    guest_open_with(w, &g, &(struct dz_vbd_options){.spin_us = 50});
    fill(w->back->data, BACK_DISK_BYTES, 5);
    buffer = dz_buffer_alloc(g.disk, DEPTH * 8192);
    assert_non_null(buffer);
    for (unsigned i = 0; i < DEPTH; i++, submitted++) {
        io[i] = (struct dz_io){DZ_READ, buffer + i * 8192, 8192, (uint64_t)i * 8192, &io[i], 0, {0}};
        submit(&g, &io[i]);
    }
    assert_int_equal(dz_vbd_submit(g.disk, &(struct dz_io){DZ_READ, buffer, 512, 0, NULL, 0, {0}}), -EAGAIN);
    while (completed < 2000) {
        int n = dz_vbd_wait(g.disk, done, DEPTH, -1);
        assert_true(n > 0);
        for (int i = 0; i < n; i++, completed++) {
            assert_ptr_equal(done[i]->user, done[i]);
            assert_int_equal(done[i]->result, 0);
            assert_memory_equal(done[i]->buffer, w->back->data + done[i]->offset_bytes, 8192);
            memset(done[i]->buffer, 0, 8192);
            if (submitted == 2000)
                continue;
            done[i]->offset_bytes = (uint64_t)(submitted * 7919u % 1000) * 8192;
            submit(&g, done[i]);
            submitted++;
        }
    }
    assert_int_equal(dz_vbd_wait(g.disk, done, DEPTH, -1), 0); /* none in flight */
    guest_close(w, &g);
}

static void test_synchronous_calls_leave_asynchronous_ones_to_their_reaper(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    struct dz_io io[8], *done[DEPTH];
    unsigned char data[4096], other[8][512];
    front_world_backend_start(w, BACK_GOOD, 0);
    guest_open(w, &g);
    for (unsigned i = 0; i < 8; i++) {
        io[i] = (struct dz_io){DZ_READ, other[i], 512, i * 512, NULL, 1, {0}};
        submit(&g, &io[i]);
    }
    assert_int_equal(dz_vbd_read(g.disk, data, sizeof(data), 0), 0);
    unsigned reaped = 0;
    while (reaped < 8)
        reaped += (unsigned)dz_vbd_wait(g.disk, done + reaped, DEPTH - reaped, -1);
    for (unsigned i = 0; i < 8; i++)
        assert_true(done[i] >= io && done[i] < io + 8 && done[i]->result == 0);
    guest_close(w, &g);
}

static void test_descriptor_wakes_a_foreign_loop(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    unsigned char data[4096];
    front_world_backend_start(w, BACK_GOOD, 0);
    guest_open(w, &g);
    struct dz_io io = {DZ_READ, data, sizeof(data), 0, NULL, 0, {0}}, *done;
    for (unsigned i = 0; i < 200; i++) {
        submit(&g, &io);
        while (dz_vbd_reap(g.disk, &done, 1) == 0) {
            struct pollfd p = {dz_vbd_fd(g.disk), POLLIN, 0};
            if (!dz_vbd_arm(g.disk))
                assert_true(poll(&p, 1, -1) == 1);
        }
    }
    assert_false(dz_vbd_arm(g.disk));
    guest_close(w, &g);
}

/* ---- what is refused ---- */

static void test_bad_requests_are_refused_with_a_reason(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    static unsigned char data[64 * 1024];
    const uint64_t end = BACK_DISK_BYTES;
    const struct {
        struct dz_io io;
        int error;
    } bad[] = {
        {{DZ_READ, NULL, 512, 0, NULL, 0, {0}}, -EINVAL},
        {{DZ_READ, data, 0, 0, NULL, 0, {0}}, -EINVAL},
        {{DZ_READ, data, 100, 0, NULL, 0, {0}}, -EINVAL},
        {{DZ_READ, data, 512, 100, NULL, 0, {0}}, -EINVAL},
        {{DZ_FLUSH, NULL, 512, 0, NULL, 0, {0}}, -EINVAL},
        {{(enum dz_op)9, data, 512, 0, NULL, 0, {0}}, -EINVAL},
        {{(enum dz_op)(DZ_READ | DZ_FUA), data, 512, 0, NULL, 0, {0}}, -EINVAL},
        {{(enum dz_op)(DZ_READ | DZ_MAY_UNMAP), data, 512, 0, NULL, 0, {0}}, -EINVAL},
        {{(enum dz_op)(DZ_WRITE | DZ_FUA), data, 512, 0, NULL, 0, {0}}, -EOPNOTSUPP},
        {{DZ_WRITE_ZEROES, NULL, 512, 0, NULL, 0, {0}}, -EOPNOTSUPP},
        {{DZ_READ, data, 512, end, NULL, 0, {0}}, -ERANGE},
        {{DZ_WRITE, data, 1024, end - 512, NULL, 0, {0}}, -ERANGE},
        {{DZ_READ, data, 1024, UINT64_MAX - 511, NULL, 0, {0}}, -ERANGE},
    };
    front_world_backend_start(w, BACK_GOOD, 0);
    guest_open(w, &g);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct dz_io io = bad[i].io;
        assert_int_equal(dz_vbd_submit(g.disk, &io), bad[i].error);
        assert_true(strlen(dz_error()) > 10);
    }
    assert_int_equal(dz_vbd_read(g.disk, data, sizeof(data), end - 512), -ERANGE);
    assert_int_equal(dz_vbd_read(g.disk, data, SIZE_MAX - 511, 512), -ERANGE);
    assert_int_equal(dz_vbd_read(g.disk, data, 100, 0), -EINVAL);
    assert_int_equal(dz_vbd_read(g.disk, data, 0, 0), 0);
    assert_int_equal(w->back->taken, 0);
    guest_close(w, &g);
}

static void test_read_only_disk_takes_no_writes(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    unsigned char data[512] = {0};
    w->back->disk.info = KEYS_BLK_INFO_READONLY;
    front_world_backend_start(w, BACK_GOOD, 0);
    guest_open(w, &g);
    assert_int_equal(dz_vbd_write(g.disk, data, sizeof(data), 0), -EROFS);
    assert_int_equal(dz_vbd_read(g.disk, data, sizeof(data), 0), 0);
    guest_close(w, &g);
}

static void test_sectors_of_4096_bytes(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    static unsigned char out[5 * 4096], in[5 * 4096];
    w->back->disk.sector_bytes = 4096;
    front_world_backend_start(w, BACK_GOOD, 0);
    guest_open(w, &g);
    assert_int_equal(dz_vbd_read(g.disk, in, 512, 0), -EINVAL);
    fill(out, sizeof(out), 3);
    assert_int_equal(dz_vbd_write(g.disk, out, sizeof(out), 3 * 4096), 0);
    assert_int_equal(dz_vbd_read(g.disk, in, sizeof(in), 3 * 4096), 0);
    assert_memory_equal(in, out, sizeof(in));
    /* In the pool, but within a page: segments are whole sectors, so it is bounced. */
    unsigned char *buffer = dz_buffer_alloc(g.disk, 3 * 4096);
    assert_int_equal(dz_vbd_read(g.disk, buffer + 512, 2 * 4096, 3 * 4096), 0);
    assert_memory_equal(buffer + 512, out, 2 * 4096);
    guest_close(w, &g);
}

static void test_statuses_become_errnos(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    static unsigned char data[100 * 4096];
    struct dz_vbd_stats stats;
    front_world_backend_start(w, BACK_ERROR, 0);
    guest_open(w, &g);
    assert_int_equal(dz_vbd_read(g.disk, data, 512, 0), -EIO);
    assert_int_equal(dz_vbd_write(g.disk, data, sizeof(data), 0), -EIO); /* many requests; all are waited for */
    front_world_mode(w, BACK_EOPNOTSUPP, 0);
    assert_int_equal(dz_vbd_flush(g.disk), -EOPNOTSUPP);
    front_world_mode(w, BACK_GOOD, 0);
    assert_int_equal(dz_vbd_read(g.disk, data, 512, 0), 0); /* the disk lives */
    dz_vbd_stats(g.disk, &stats);
    assert_int_equal(stats.errors + 1, stats.requests);
    guest_close(w, &g);
}

static void test_flush_reaches_a_backend_that_has_a_cache(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    for (unsigned cache = 0; cache < 2; cache++) {
        w->back->disk.flush_cache = cache;
        w->back->taken = 0;
        front_world_backend_start(w, BACK_GOOD, 0);
        guest_open(w, &g);
        assert_int_equal(dz_vbd_flush(g.disk), 0);
        assert_int_equal(w->back->taken, cache);
        struct dz_io io = {DZ_FLUSH, NULL, 0, 0, NULL, 1, {0}}, *done = NULL;
        submit(&g, &io);
        assert_int_equal(dz_vbd_wait(g.disk, &done, 1, -1), 1);
        assert_true(done == &io && io.result == 0);
        guest_close(w, &g);
        front_world_backend_kill(w);
    }
}

static void test_discards_reach_a_backend_that_offers_them(void **state)
{
    struct front_world *w = *state;
    static const unsigned char zeroes[4096];
    struct dz_vbd_info info;
    for (unsigned offered = 0; offered < 3; offered++) { /* 2: of a disk that is read-only */
        struct guest g;
        w->back->disk.discard = offered;
        w->back->disk.discard_granularity_bytes = 4096;
        w->back->disk.info = offered == 2 ? KEYS_BLK_INFO_READONLY : 0;
        fill(w->back->data, BACK_DISK_BYTES, 3);
        front_world_backend_start(w, BACK_GOOD, 0);
        guest_open(w, &g);
        dz_vbd_info(g.disk, &info);
        assert_int_equal(info.discard, offered == 1);
        int expected = offered == 1 ? 0 : -EOPNOTSUPP;
        assert_int_equal(dz_vbd_discard(g.disk, 4096, 8192), expected);
        assert_int_equal(memcmp(w->back->data + 8192, zeroes, 4096) == 0, !expected);
        assert_int_equal(dz_vbd_discard(g.disk, 512, BACK_DISK_BYTES), -ERANGE);
        assert_int_equal(dz_vbd_discard(g.disk, UINT64_MAX - 511, 512), -ERANGE);
        assert_true(dz_vbd_discard(g.disk, 100, 0) < 0);
        struct dz_io io = {DZ_DISCARD, NULL, BACK_DISK_BYTES, 0, NULL, 1, {0}}, *done;
        assert_int_equal(dz_vbd_submit(g.disk, &io), expected);
        assert_int_equal(dz_vbd_wait(g.disk, &done, 1, -1), !expected);
        struct dz_vbd_stats stats;
        dz_vbd_stats(g.disk, &stats);
        assert_int_equal(stats.bytes_written, 0);
        guest_close(w, &g);
        front_world_backend_kill(w);
    }
}

/* ---- opening and closing ---- */

static void test_open_names_the_disks_that_there_are(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    assert_int_equal(dz_domain_open(w->domain_dir, &g.dom), 0);
    assert_int_equal(dz_domain_id(g.dom), w->domid);
    assert_int_equal(dz_vbd_open(g.dom, "xvdq", NULL, &g.disk), -ENODEV);
    assert_non_null(strstr(dz_error(), "xvda"));
    assert_int_equal(dz_vbd_open(g.dom, "no such", NULL, &g.disk), -EINVAL);
    dz_domain_close(g.dom);
    assert_true(dz_domain_open("/nonexistent/dom/3", &g.dom) < 0);
    assert_non_null(strstr(dz_error(), "/nonexistent"));
}

static void test_open_without_a_backend_times_out_and_says_so(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    assert_int_equal(dz_domain_open(w->domain_dir, &g.dom), 0);
    assert_int_equal(dz_vbd_open(g.dom, "xvda", &(struct dz_vbd_options){.timeout_ms = 50}, &g.disk), -ETIMEDOUT);
    assert_non_null(strstr(dz_error(), "Initialising"));
    assert_int_equal(holdings(w).extents, 0);
    front_world_backend_start(w, BACK_GOOD, 0);
    assert_int_equal(dz_vbd_open(g.dom, "xvda", NULL, &g.disk), 0);
    guest_close(w, &g);
}

static void test_close_ends_in_closed_and_leaves_nothing(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    front_world_backend_start(w, BACK_GOOD, 0);
    guest_open(w, &g);
    assert_int_equal(front_world_front_state(w), XenbusStateConnected);
    assert_int_equal(front_world_back_state(w), XenbusStateConnected);
    assert_true(holdings(w).extents > 0);
    dz_vbd_close(g.disk);
    assert_int_equal(front_world_front_state(w), XenbusStateClosed);
    assert_int_equal(front_world_back_state(w), XenbusStateClosed);
    assert_int_equal(holdings(w).extents, 0);
    assert_int_equal(holdings(w).ports, 0);
    for (unsigned i = 0; i < 3; i++) { /* and again */
        assert_int_equal(dz_vbd_open(g.dom, "51712", NULL, &g.disk), 0);
        if (i < 2)
            dz_vbd_close(g.disk);
    }
    guest_close(w, &g);
}

static void test_a_disk_has_one_user(void **state)
{
    struct front_world *w = *state;
    struct guest first, second;
    unsigned char data[512];
    front_world_backend_start(w, BACK_GOOD, 0);
    guest_open(w, &first);
    assert_int_equal(dz_vbd_open(first.dom, "xvda", NULL, &second.disk), -EBUSY);
    assert_int_equal(dz_domain_open(w->domain_dir, &second.dom), 0); /* another instance of the domain */
    assert_int_equal(dz_vbd_open(second.dom, "xvda", NULL, &second.disk), -EBUSY);
    assert_non_null(strstr(dz_error(), "another process"));
    assert_int_equal(dz_vbd_read(first.disk, data, sizeof(data), 0), 0); /* undisturbed */
    dz_vbd_close(first.disk);
    assert_int_equal(dz_vbd_open(second.dom, "xvda", NULL, &second.disk), 0);
    dz_domain_close(first.dom);
    guest_close(w, &second);
}

static void test_starts_over_where_a_process_died(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    unsigned char data[512];
    front_world_backend_start(w, BACK_GOOD, 0);
    for (unsigned i = 0; i < 3; i++) {
        pid_t pid = fork();
        if (pid == 0) { /* dies connected, with a request in flight */
            front_world_mode(w, BACK_HOLD, 0);
            bool ok = dz_domain_open(w->domain_dir, &g.dom) == 0 && dz_vbd_open(g.dom, "xvda", NULL, &g.disk) == 0;
            struct dz_io io = {DZ_READ, data, sizeof(data), 0, NULL, 0, {0}};
            ok = ok && dz_vbd_submit(g.disk, &io) == 0 && dz_vbd_kick(g.disk) == 0;
            front_world_until(&w->back->held, 1);
            _exit(!ok);
        }
        int status;
        waitpid(pid, &status, 0);
        assert_int_equal(status, 0);
        assert_int_equal(front_world_front_state(w), XenbusStateConnected);
    }
    front_world_mode(w, BACK_GOOD, 0);
    guest_open(w, &g);
    assert_int_equal(dz_vbd_read(g.disk, data, sizeof(data), 0), 0);
    guest_close(w, &g);
}

static void test_starts_over_where_both_ends_died(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    unsigned char data[512];
    front_world_backend_start(w, BACK_GOOD, 0);
    pid_t pid = fork();
    if (pid == 0)
        _exit(dz_domain_open(w->domain_dir, &g.dom) || dz_vbd_open(g.dom, "xvda", NULL, &g.disk));
    int status;
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
    front_world_backend_kill(w);
    front_world_backend_start(w, BACK_GOOD, 0);
    guest_open(w, &g);
    assert_int_equal(dz_vbd_read(g.disk, data, sizeof(data), 0), 0);
    guest_close(w, &g);
}

static void test_resize_is_seen(void **state)
{
    struct front_world *w = *state;
    struct guest g;
    struct dz_vbd_info info;
    struct dz_io *done;
    front_world_backend_start(w, BACK_GOOD, 0);
    guest_open(w, &g);
    struct xb_device d = front_world_device(w);
    assert_int_equal(store_printf(w->store, STORE_NO_TX, d.peer_dir, "sectors", "%u", 4096), 0);
    assert_int_equal(store_printf(w->store, STORE_NO_TX, d.peer_dir, "state", "4"), 0);
    do {
        assert_int_equal(dz_vbd_reap(g.disk, &done, 1), 0);
        dz_vbd_info(g.disk, &info);
    } while (info.size_bytes != 4096 * 512);
    assert_int_equal(info.changes, 1);
    assert_int_equal(dz_vbd_read(g.disk, &info, 512, 4096 * 512), -ERANGE);
    assert_int_equal(store_printf(w->store, STORE_NO_TX, d.peer_dir, "info", "%u", KEYS_BLK_INFO_READONLY), 0);
    assert_int_equal(store_printf(w->store, STORE_NO_TX, d.peer_dir, "state", "4"), 0);
    do {
        assert_int_equal(dz_vbd_reap(g.disk, &done, 1), 0);
        dz_vbd_info(g.disk, &info);
    } while (!info.readonly);
    assert_int_equal(info.changes, 2);
    assert_int_equal(dz_vbd_write(g.disk, &info, 512, 0), -EROFS);
    guest_close(w, &g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FRONT_TEST(test_reads_what_was_written),
        FRONT_TEST(test_memory_of_any_alignment_is_bounced),
        FRONT_TEST(test_pool_buffers_go_without_a_copy),
        FRONT_TEST(test_pool_gives_lowest_runs_and_keeps_a_reserve),
        FRONT_TEST(test_full_queue_keeps_every_request_apart),
        FRONT_TEST(test_synchronous_calls_leave_asynchronous_ones_to_their_reaper),
        FRONT_TEST(test_descriptor_wakes_a_foreign_loop),
        FRONT_TEST(test_bad_requests_are_refused_with_a_reason),
        FRONT_TEST(test_read_only_disk_takes_no_writes),
        FRONT_TEST(test_sectors_of_4096_bytes),
        FRONT_TEST(test_statuses_become_errnos),
        FRONT_TEST(test_flush_reaches_a_backend_that_has_a_cache),
        FRONT_TEST(test_discards_reach_a_backend_that_offers_them),
        FRONT_TEST(test_open_names_the_disks_that_there_are),
        FRONT_TEST(test_open_without_a_backend_times_out_and_says_so),
        FRONT_TEST(test_close_ends_in_closed_and_leaves_nothing),
        FRONT_TEST(test_a_disk_has_one_user),
        FRONT_TEST(test_starts_over_where_a_process_died),
        FRONT_TEST(test_starts_over_where_both_ends_died),
        FRONT_TEST(test_resize_is_seen),
    };
    return cmocka_run_group_tests_name("blkfront", tests, NULL, NULL);
}
