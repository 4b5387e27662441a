/* SPDX-License-Identifier: MIT */
/* What sets the DMA strategies apart: what the guest can do between get and put, and what is registered when. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "grant/dma.h"
#include "tests/dma_world.h"

/* ---- pin ---- */

static void test_pin_uses_the_guests_own_pages_and_merges_neighbours(void **state)
{
    (void)state;
    struct dma_world *f = dma_world_new(&dma_pin, 0);
    struct grant_world *w = &f->world;
    struct dma_segment s[] = {
        {gworld_grant(w, GFN, false), 1024, 3072},  {gworld_grant(w, GFN + 1, false), 0, PAGE_BYTES},
        {gworld_grant(w, GFN + 2, false), 0, 512},  {gworld_grant(w, GFN + 3, false), 0, 512},
        {gworld_grant(w, GFN_FAR, false), 0, 4096}, {gworld_grant(w, GFN_FAR + 1, false), 512, 512},
    };
    DMA_IO(io);
    assert_int_equal(dma_pin.get(f->dma, s, ARRAY_SIZE(s), false, &io), 0);
    assert_int_equal(io.vec_count, 4);
    assert_ptr_equal(io.vec[0].address, gworld_host_page(w, GFN) + 1024);
    assert_int_equal(io.vec[0].length_bytes, 3072 + 4096 + 512);
    assert_ptr_equal(io.vec[1].address, gworld_host_page(w, GFN + 3));
    assert_ptr_equal(io.vec[2].address, gworld_host_page(w, GFN_FAR));
    assert_ptr_equal(io.vec[3].address, gworld_host_page(w, GFN_FAR + 1) + 512);
    assert_int_not_equal(io.vec[1].buffer_index, io.vec[2].buffer_index);
    assert_int_equal(f->registrations, 2);
    dma_pin.put(f->dma, &io, true);
    dma_world_free(f);
}

/* A vector is one buffer's: two extents may happen to lie side by side in our memory. */
static void test_pin_does_not_merge_across_extents(void **state)
{
    (void)state;
    for (int refuse = 0; refuse < 2; refuse++) {
        struct dma_world *f = dma_world_new(&dma_pin, refuse ? -EPERM : 0);
        size_t room_bytes = (size_t)32 * PAGE_BYTES;
        void *room = mmap(NULL, room_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        f->world.place = room;
        struct dma_segment s[2] = {{gworld_grant(&f->world, GFN + 15, false), 0, PAGE_BYTES},
                                   {gworld_grant(&f->world, GFN_FAR, false), 0, PAGE_BYTES}};
        DMA_IO(io);
        assert_int_equal(dma_pin.get(f->dma, s, 2, true, &io), 0);
        assert_ptr_equal(gworld_host_page(&f->world, GFN + 15) + PAGE_BYTES, gworld_host_page(&f->world, GFN_FAR));
        dma_device_checks(f, &io, 2 * PAGE_BYTES);
        assert_int_equal(io.vec_count, refuse ? 1 : 2); /* plain memory is plain memory */
        assert_int_equal(dma_pin.put(f->dma, &io, true), 0);
        dma_world_free(f);
        munmap(room, room_bytes);
    }
}

static void test_lesson_396_pin_makes_the_guests_end_wait_for_the_io(void **state)
{
    (void)state;
    struct dma_world *f = dma_world_new(&dma_pin, 0);
    struct dma_segment s = {gworld_grant(&f->world, GFN, false), 0, PAGE_BYTES};
    DMA_IO(io);
    assert_int_equal(dma_pin.get(f->dma, &s, 1, true, &io), 0);
    assert_int_equal(gnttab_end(f->world.table, s.gref), -EBUSY);
    f->world.extent[0].gone = true;
    frametable_revoke(f->world.frames, 1, 0);
    dma_device_fills(&io, 1);
    assert_int_equal(gworld_guest_page(&f->world, GFN)[10], 11);
    assert_int_equal(f->in_force, 1);
    assert_int_equal(dma_pin.put(f->dma, &io, true), 0);
    assert_int_equal(gnttab_end(f->world.table, s.gref), 0);
    assert_int_equal(f->in_force, 0);
    assert_null(f->world.extent[0].host);
    dma_world_free(f);
}

static void test_pin_writes_the_pinned_frame_whatever_the_table_says(void **state)
{
    (void)state;
    struct dma_world *f = dma_world_new(&dma_pin, 0);
    struct dma_segment s = {gworld_grant(&f->world, GFN, false), 0, PAGE_BYTES};
    DMA_IO(io);
    assert_int_equal(dma_pin.get(f->dma, &s, 1, true, &io), 0);
    gworld_write(&f->world, s.gref, GTF_permit_access, WORLD_HOST, GFN + 1);
    dma_device_fills(&io, 1);
    assert_int_equal(dma_pin.put(f->dma, &io, true), 0);
    assert_int_equal(gworld_guest_page(&f->world, GFN)[0], 1);
    assert_int_equal(gworld_guest_page(&f->world, GFN + 1)[0], 0);
    dma_world_free(f);
}

/* An I/O TLB is flushed before its page is given back; here the ring's registration is that cache. */
static void test_lesson_399_registration_ends_before_the_extent_goes(void **state)
{
    (void)state;
    struct dma_world *f = dma_world_new(&dma_pin, 0);
    struct dma_segment s = {gworld_grant(&f->world, GFN, false), 0, PAGE_BYTES};
    assert_int_equal(dma_device_request(f, &s, 1, true), 0);
    assert_int_equal(f->in_force, 1);
    f->world.extent[0].gone = true;
    frametable_revoke(f->world.frames, 1, 0); /* on_extent_put checks the order */
    assert_int_equal(f->in_force, 0);
    assert_null(f->world.extent[0].host);
    dma_world_free(f);
}

static void test_pin_devices_of_one_domain_share_registrations(void **state)
{
    (void)state;
    struct dma_world *f = dma_world_new(&dma_pin, 0);
    struct dma *first = f->dma, *second = dma_world_device(f), *third = dma_world_device(f);
    struct dma_segment s = {gworld_grant(&f->world, GFN, false), 0, PAGE_BYTES};
    struct dma_segment far = {gworld_grant(&f->world, GFN_FAR, false), 0, PAGE_BYTES};
    assert_int_equal(dma_device_request(f, &s, 1, true), 0);
    f->dma = second;
    assert_int_equal(dma_device_request(f, &s, 1, true), 0);
    assert_int_equal(dma_device_request(f, &far, 1, true), 0);
    assert_int_equal(f->registrations, 2);
    dma_pin.teardown(second);
    assert_int_equal(f->in_force, 2); /* the others' still */
    f->dma = third;
    assert_int_equal(dma_device_request(f, &far, 1, true), 0);
    assert_int_equal(f->registrations, 2);
    f->world.extent[1].gone = true;
    frametable_revoke(f->world.frames, 2, 0);
    assert_int_equal(f->in_force, 1);
    dma_pin.teardown(first);
    assert_int_equal(f->in_force, 1);
    dma_pin.teardown(third);
    assert_int_equal(f->in_force, 0); /* the ring may go now; the extents stay for who comes next */
    assert_int_equal(frametable_extents(f->world.frames), 1);
    f->dma = dma_world_device(f);
    assert_int_equal(dma_device_request(f, &s, 1, true), 0);
    assert_int_equal(f->registrations, 3);
    dma_world_free(f);
}

static void test_pin_asks_again_where_an_earlier_ring_refused(void **state)
{
    (void)state;
    struct dma_world *f = dma_world_new(&dma_pin, -ENOMEM);
    struct dma_segment s = {gworld_grant(&f->world, GFN, false), 0, PAGE_BYTES};
    assert_int_equal(dma_device_request(f, &s, 1, true), 0);
    dma_pin.teardown(f->dma);
    f->refuse = 0;
    f->dma = dma_world_device(f);
    assert_int_equal(dma_device_request(f, &s, 1, true), 0);
    assert_int_equal(f->in_force, 1);
    dma_world_free(f);
}

/* ---- validate ---- */

static void test_validate_holds_nothing_and_the_guests_end_is_not_refused(void **state)
{
    (void)state;
    struct dma_world *f = dma_world_new(&dma_validate, 0);
    struct dma_segment s[2] = {{gworld_grant(&f->world, GFN, false), 512, 1024},
                               {gworld_grant(&f->world, GFN_FAR, false), 0, PAGE_BYTES}};
    DMA_IO(io);
    assert_int_equal(dma_validate.get(f->dma, s, 2, true, &io), 0);
    assert_int_equal(gntmap_mapped(f->world.map), 0);
    assert_int_equal(frametable_pinned(f->world.frames), 0);
    assert_int_equal(gworld_flags(&f->world, s[0].gref), GTF_permit_access);
    assert_int_equal(gnttab_end(f->world.table, s[0].gref), 0);
    assert_ptr_equal(io.vec[0].address, gworld_host_page(&f->world, GFN) + 512);
    assert_ptr_equal(io.vec[1].address, gworld_host_page(&f->world, GFN_FAR));
    dma_device_checks(f, &io, 1024 + PAGE_BYTES);
    dma_device_fills(&io, 1); /* into memory that the guest uses for something else by now */
    assert_int_equal(gworld_guest_page(&f->world, GFN)[512], 1);
    assert_int_equal(dma_validate.put(f->dma, &io, true), 0);
    dma_world_free(f);
}

/* The hole: a guest gives memory back after the check, somebody else's is put in its place, and the I/O lands there. */
static void test_validate_reaches_whoever_has_the_place_by_the_time_of_the_io(void **state)
{
    (void)state;
    struct dma_world *f = dma_world_new(&dma_validate, -EPERM);
    struct dma_segment s = {gworld_grant(&f->world, GFN, false), 0, PAGE_BYTES};
    DMA_IO(io);
    assert_int_equal(dma_validate.get(f->dma, &s, 1, true, &io), 0);
    f->world.extent[0].gone = true;
    frametable_revoke(f->world.frames, 1, 0);
    assert_null(f->world.extent[0].host); /* at once */
    const size_t bytes = (size_t)16 * PAGE_BYTES;
    unsigned char *victim = mmap(io.vec[0].address, bytes, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    assert_ptr_equal(victim, io.vec[0].address);
    dma_device_fills(&io, 1);
    assert_int_equal(dma_validate.put(f->dma, &io, true), 0); /* and nobody is told */
    assert_int_equal(victim[10], 11);
    munmap(victim, bytes);
    dma_world_free(f);
}

static void test_what_touches_the_memory_of_an_unsafe_row_gets_an_error_where_it_is_gone(void **state)
{
    (void)state;
    unsigned char mine[2 * PAGE_BYTES];
    memset(mine, 7, sizeof(mine));
    unsigned char *theirs = mmap(NULL, 3 * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (unsigned i = 0; i < dma_strategy_count; i++) {
        const struct dma_strategy *row = dma_strategies[i];
        assert_int_equal(dma_reach(row, theirs + 5, mine, PAGE_BYTES + 1, true), 0);
        assert_memory_equal(theirs + 5, mine, PAGE_BYTES + 1);
        assert_int_equal(theirs[4] | theirs[PAGE_BYTES + 6], 0);
        assert_int_equal(dma_reach(row, theirs + 6, NULL, PAGE_BYTES, true), 0);
        assert_int_equal(theirs[5], 7);
        assert_int_equal(theirs[6] | theirs[PAGE_BYTES + 5], 0);
        mine[0] = 0;
        assert_int_equal(dma_reach(row, theirs + 5, mine, 1, false), 0);
        assert_int_equal(mine[0], 7);
        memset(theirs, 0, 3 * PAGE_BYTES);
    }
    mprotect(theirs + PAGE_BYTES, PAGE_BYTES, PROT_NONE);
    assert_int_equal(dma_reach(&dma_validate, theirs + PAGE_BYTES, mine, 1, true), -EFAULT);
    assert_int_equal(dma_reach(&dma_validate, theirs + PAGE_BYTES, mine, 1, false), -EFAULT);
    assert_int_equal(dma_reach(&dma_validate, theirs, mine, PAGE_BYTES + 1, true), -EFAULT);
    assert_int_equal(dma_reach(&dma_validate, theirs, NULL, PAGE_BYTES + 1, true), -EFAULT);
    munmap(theirs, 3 * PAGE_BYTES);
}

static void test_pin_and_validate_share_registrations(void **state)
{
    (void)state;
    struct dma_world *f = dma_world_new(&dma_pin, 0);
    struct dma *pin = f->dma;
    struct dma_segment s = {gworld_grant(&f->world, GFN, false), 0, PAGE_BYTES};
    assert_int_equal(dma_device_request(f, &s, 1, true), 0);
    f->row = &dma_validate;
    f->dma = dma_world_device(f);
    assert_int_equal(dma_device_request(f, &s, 1, true), 0);
    assert_int_equal(f->registrations, 1);
    dma_pin.teardown(pin);
    assert_int_equal(f->in_force, 1);
    dma_world_free(f);
}

/* ---- copy ---- */

static void test_lesson_155_copy_does_not_see_what_the_guest_writes_later(void **state)
{
    (void)state;
    struct dma_world *f = dma_world_new(&dma_copy, 0);
    struct dma_segment s = {gworld_grant(&f->world, GFN, false), 0, PAGE_BYTES};
    memset(gworld_guest_page(&f->world, GFN), 'a', PAGE_BYTES);
    DMA_IO(io);
    assert_int_equal(dma_copy.get(f->dma, &s, 1, false, &io), 0);
    memset(gworld_guest_page(&f->world, GFN), 'b', PAGE_BYTES);
    assert_int_equal(io.vec_count, 1);
    for (unsigned i = 0; i < PAGE_BYTES; i++)
        assert_int_equal(io.vec[0].address[i], 'a');
    assert_int_equal(dma_copy.put(f->dma, &io, true), 0);
    dma_world_free(f);
}

static void test_copy_holds_nothing_and_fails_a_read_whose_grant_vanished(void **state)
{
    (void)state;
    struct dma_world *f = dma_world_new(&dma_copy, 0);
    struct dma_segment s = {gworld_grant(&f->world, GFN, false), 0, PAGE_BYTES};
    DMA_IO(read);
    DMA_IO(write);
    DMA_IO(failed);
    assert_int_equal(dma_copy.get(f->dma, &s, 1, false, &write), 0);
    assert_int_equal(dma_copy.get(f->dma, &s, 1, true, &read), 0);
    assert_int_equal(dma_copy.get(f->dma, &s, 1, true, &failed), 0);
    assert_int_equal(gntmap_mapped(f->world.map), 0);
    assert_int_equal(gnttab_end(f->world.table, s.gref), 0);
    dma_device_fills(&read, 1);
    assert_int_equal(dma_copy.put(f->dma, &read, true), GRANT_E_TYPE);
    assert_int_equal(dma_copy.put(f->dma, &write, true), 0);   /* it was taken in time */
    assert_int_equal(dma_copy.put(f->dma, &failed, false), 0); /* nothing was to be delivered */
    for (unsigned i = 0; i < PAGE_BYTES; i++)
        assert_int_equal(gworld_guest_page(&f->world, GFN)[i], 0);
    dma_world_free(f);
}

static void test_copy_of_a_failed_read_does_not_reach_the_guest(void **state)
{
    (void)state;
    struct dma_world *f = dma_world_new(&dma_copy, 0);
    struct dma_segment s = {gworld_grant(&f->world, GFN, false), 0, PAGE_BYTES};
    DMA_IO(io);
    assert_int_equal(dma_copy.get(f->dma, &s, 1, true, &io), 0);
    dma_device_fills(&io, 1);
    assert_int_equal(dma_copy.put(f->dma, &io, false), 0);
    for (unsigned i = 0; i < PAGE_BYTES; i++)
        assert_int_equal(gworld_guest_page(&f->world, GFN)[i], 0);
    dma_world_free(f);
}

static void test_copy_gives_one_run_in_what_is_registered(void **state)
{
    (void)state;
    struct dma_world *f = dma_world_new(&dma_copy, 0);
    struct dma_segment s[DMA_SEGMENTS_SMALL];
    for (unsigned i = 0; i < DMA_SEGMENTS_SMALL; i++)
        s[i] = (struct dma_segment){gworld_grant(&f->world, GFN + (i * 5) % 16, false), 512, 1536};
    DMA_IOS(io, REQUESTS_MAX);
    for (unsigned i = 0; i < REQUESTS_MAX; i++) {
        unsigned count = i % 2 ? 1 : DMA_SEGMENTS_SMALL;
        assert_int_equal(dma_copy.get(f->dma, s, count, false, &io[i]), 0);
        assert_int_equal(io[i].vec_count, 1);
        assert_true(io[i].vec[0].buffer_index >= 0);
        dma_device_checks(f, &io[i], count * 1536);
    }
    for (unsigned i = 0; i < REQUESTS_MAX; i++)
        assert_int_equal(dma_copy.put(f->dma, &io[i], true), 0);
    dma_world_free(f);
}

static struct dma *copy_device(struct dma_world *f, unsigned requests_max)
{
    const struct dma_setup setup = {
        .map = f->world.map, .frames = f->world.frames, .host = &f->host, .requests_max = requests_max};
    struct dma *d = NULL;
    assert_int_equal(dma_copy.setup(&setup, &d, NULL), 0);
    return d;
}

static uint64_t copy_registered_bytes(const struct dma *d)
{
    struct dma_stats s;
    dma_copy.describe(d, &s);
    return s.registered_bytes;
}

/* What is registered is memory: none for a disk that does nothing, 16 and 44 KiB for one that has one request at a
 * time, everything for one that has its ring full of large ones; in few buffers, none too long for the ring. */
static void test_copy_registers_what_is_in_flight_and_gives_it_back(void **state)
{
    enum { REQUESTS = 512 };
    (void)state;
    struct dma_world *f = dma_world_new(&dma_copy, 0);
    struct dma *d = copy_device(f, REQUESTS);
    struct dma_segment s[2] = {{gworld_grant(&f->world, GFN, false), 0, PAGE_BYTES},
                               {gworld_grant(&f->world, GFN + 1, false), 0, PAGE_BYTES}};
    static _Alignas(16) unsigned char arrays[REQUESTS][DMA_IO_BYTES(DMA_SEGMENTS_SMALL)];
    static struct dma_io io[REQUESTS];
    for (unsigned round = 0; round < 3; round++) {
        assert_int_equal(copy_registered_bytes(d), 0);
        for (unsigned i = 0; i < REQUESTS; i++) {
            dma_io_init(&io[i], arrays[i], DMA_SEGMENTS_SMALL);
            for (unsigned count = 1; i == 0 && count <= 2; count++) {
                assert_int_equal(dma_copy.get(d, s, count, true, &io[0]), 0);
                assert_int_equal(dma_copy.put(d, &io[0], true), 0);
                assert_true(copy_registered_bytes(d) <= (count == 1 ? 16u << 10 : 60u << 10));
            }
            assert_int_equal(dma_copy.get(d, s, 2, true, &io[i]), 0);
            assert_true(io[i].vec[0].buffer_index >= 0);
            dma_device_checks(f, &io[i], 2 * PAGE_BYTES);
            assert_true(copy_registered_bytes(d) <= 8 * (i + 1) * DMA_SEGMENTS_SMALL * PAGE_BYTES + (16u << 10));
        }
        assert_true(copy_registered_bytes(d) >= REQUESTS * DMA_SEGMENTS_SMALL * PAGE_BYTES);
        assert_in_range(f->in_force, 2, 20);
        for (unsigned i = 0; i < BUFFERS_MAX; i++)
            assert_in_range(f->buffer[i].length_bytes, 0, 2u << 20);
        for (unsigned i = 0; i < REQUESTS; i++)
            assert_int_equal(dma_copy.put(d, &io[i], false), 0);
        unsigned char *slot = io[REQUESTS - 1].vec[0].address;
        unsigned char resident;
        *slot = 1;
        assert_true(mincore(slot, PAGE_BYTES, &resident) == 0 && resident & 1);
        dma_copy.rest(d);
        assert_true(mincore(slot, PAGE_BYTES, &resident) == 0 && !(resident & 1));
        assert_int_equal(f->in_force, 0);
    }
    dma_copy.teardown(d);
    dma_world_free(f);
}

/* Whoever has his share goes by plain vectors, is counted, and gets more when there is more. */
static void test_rows_ask_again_where_the_guest_had_its_share(void **state)
{
    (void)state;
    for (unsigned r = 0; r < dma_strategy_count; r++) {
        const struct dma_strategy *row = dma_strategies[r];
        struct dma_world *f = dma_world_new(row, -EDQUOT);
        struct dma_segment s = {gworld_grant(&f->world, GFN, false), 0, PAGE_BYTES};
        struct dma_stats stats;
        for (unsigned i = 0; i < 3; i++)
            assert_int_equal(dma_device_request(f, &s, 1, true), 0);
        row->describe(f->dma, &stats);
        assert_int_equal(stats.over_share, 3);
        assert_true(stats.fixed_buffers && stats.registered_bytes == 0);
        f->refuse = 0;
        assert_int_equal(dma_device_request(f, &s, 1, true), 0);
        row->describe(f->dma, &stats);
        assert_int_equal(stats.over_share, 3);
        assert_true(stats.registered_bytes > 0);
        dma_world_free(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pin_uses_the_guests_own_pages_and_merges_neighbours),
        cmocka_unit_test(test_pin_does_not_merge_across_extents),
        cmocka_unit_test(test_lesson_396_pin_makes_the_guests_end_wait_for_the_io),
        cmocka_unit_test(test_pin_writes_the_pinned_frame_whatever_the_table_says),
        cmocka_unit_test(test_lesson_399_registration_ends_before_the_extent_goes),
        cmocka_unit_test(test_pin_devices_of_one_domain_share_registrations),
        cmocka_unit_test(test_pin_asks_again_where_an_earlier_ring_refused),
        cmocka_unit_test(test_validate_holds_nothing_and_the_guests_end_is_not_refused),
        cmocka_unit_test(test_validate_reaches_whoever_has_the_place_by_the_time_of_the_io),
        cmocka_unit_test(test_what_touches_the_memory_of_an_unsafe_row_gets_an_error_where_it_is_gone),
        cmocka_unit_test(test_pin_and_validate_share_registrations),
        cmocka_unit_test(test_lesson_155_copy_does_not_see_what_the_guest_writes_later),
        cmocka_unit_test(test_copy_holds_nothing_and_fails_a_read_whose_grant_vanished),
        cmocka_unit_test(test_copy_of_a_failed_read_does_not_reach_the_guest),
        cmocka_unit_test(test_copy_gives_one_run_in_what_is_registered),
        cmocka_unit_test(test_copy_registers_what_is_in_flight_and_gives_it_back),
        cmocka_unit_test(test_rows_ask_again_where_the_guest_had_its_share),
    };
    return cmocka_run_group_tests_name("dma_rows", tests, NULL, NULL);
}
