/* SPDX-License-Identifier: MIT */
/* What every DMA strategy owes, for each row of the table; then what sets the rows apart.
 *
 * The "device" is the test itself: it reads and writes through the vectors as an engine would. The ring's registration
 * is a small host that keeps books, so a vector that names a buffer can be held against what was registered.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "grant/dma.h"
#include "tests/grant_world.h"

#define GFN          0x100 /* sixteen frames in one extent */
#define GFN_FAR      0x800 /* two more, in another */
#define GFN_RO       0x900 /* two, shared for reading */
#define REQUESTS_MAX 4
#define BUFFERS_MAX  32

struct buffer {
    unsigned char *address; /* NULL: free */
    size_t length_bytes;
};

struct fixture {
    struct grant_world world;
    struct buffer buffer[BUFFERS_MAX];
    unsigned registrations, in_force;
    int refuse; /* -errno */
    struct dma_host host;
    const struct dma_strategy *row;
    struct dma *dma;
};

static int32_t buffer_register(void *ctx, void *address, size_t length_bytes)
{
    struct fixture *f = ctx;
    f->registrations++;
    if (f->refuse)
        return f->refuse;
    for (int32_t i = 0; i < BUFFERS_MAX; i++)
        if (!f->buffer[i].address) {
            f->buffer[i] = (struct buffer){address, length_bytes};
            f->in_force++;
            return i;
        }
    return -ENOSPC;
}

static void buffer_unregister(void *ctx, int32_t index)
{
    struct fixture *f = ctx;
    assert_true(index >= 0 && index < BUFFERS_MAX && f->buffer[index].address);
    f->buffer[index] = (struct buffer){0};
    f->in_force--;
}

/* Memory that goes while the ring holds it registered would be the kernel's to reach after its reuse. */
static void nothing_registered_there(struct grant_world *w, uint32_t id)
{
    struct fixture *f = w->user;
    for (int32_t i = 0; i < BUFFERS_MAX; i++)
        assert_true(f->buffer[i].address != w->extent[id - 1].host);
}

static struct dma *device_new(struct fixture *f)
{
    const struct dma_setup setup = {
        .map = f->world.map, .frames = f->world.frames, .host = &f->host, .requests_max = REQUESTS_MAX};
    struct dma *d = NULL;
    assert_int_equal(f->row->setup(&setup, &d, NULL), 0);
    return d;
}

static struct fixture *fixture_new(const struct dma_strategy *row, int refuse)
{
    struct fixture *f = calloc(1, sizeof(*f));
    world_open(&f->world);
    world_share(&f->world, GFN, 16, false);
    world_share(&f->world, GFN_FAR, 2, false);
    world_share(&f->world, GFN_RO, 2, true);
    f->world.user = f;
    f->world.on_extent_put = nothing_registered_there;
    f->host = (struct dma_host){f, buffer_register, buffer_unregister};
    f->row = row;
    f->refuse = refuse;
    f->dma = device_new(f);
    return f;
}

static void fixture_free(struct fixture *f)
{
    assert_int_equal(gntmap_mapped(f->world.map), 0);
    assert_int_equal(frametable_pinned(f->world.frames), 0);
    f->row->teardown(f->dma);
    assert_int_equal(f->in_force, 0);
    world_close(&f->world);
    free(f);
}

#define FOREACH_ROW(row)                                             \
    for (unsigned row_i_ = 0; row_i_ < dma_strategy_count; row_i_++) \
        for (const struct dma_strategy *row = dma_strategies[row_i_]; row; row = NULL)

/* ---- the device's side of a vector ---- */

static uint32_t vec_bytes(const struct dma_io *io)
{
    uint32_t sum = 0;
    for (unsigned i = 0; i < io->vec_count; i++)
        sum += io->vec[i].length_bytes;
    return sum;
}

static void vec_check(struct fixture *f, const struct dma_io *io, uint32_t expected_bytes)
{
    assert_true(io->vec_count >= 1 && io->vec_count <= DMA_SEGMENTS_MAX);
    assert_int_equal(vec_bytes(io), expected_bytes);
    for (unsigned i = 0; i < io->vec_count; i++) {
        const struct dma_vec *v = &io->vec[i];
        assert_true(v->length_bytes > 0 && v->buffer_index >= -1 && v->buffer_index < BUFFERS_MAX);
        if (v->buffer_index >= 0) {
            const struct buffer *b = &f->buffer[v->buffer_index];
            assert_non_null(b->address);
            assert_true(v->address >= b->address && v->address + v->length_bytes <= b->address + b->length_bytes);
        }
    }
}

static void device_fills(const struct dma_io *io, unsigned char seed)
{
    for (unsigned i = 0; i < io->vec_count; i++)
        for (uint32_t k = 0; k < io->vec[i].length_bytes; k++)
            io->vec[i].address[k] = seed++;
}

static void device_expects(const struct dma_io *io, unsigned char seed)
{
    for (unsigned i = 0; i < io->vec_count; i++)
        for (uint32_t k = 0; k < io->vec[i].length_bytes; k++)
            assert_int_equal(io->vec[i].address[k], seed++);
}

/* A request whose read or write goes wrong somewhere: its code, whether get or put said so. */
static int request_result(struct fixture *f, const struct dma_segment *s, unsigned count, bool to_guest)
{
    struct dma_io io;
    int r = f->row->get(f->dma, s, count, to_guest, &io);
    if (r == 0) {
        if (to_guest)
            device_fills(&io, 1);
        r = f->row->put(f->dma, &io, true);
    }
    assert_int_equal(gntmap_mapped(f->world.map), 0);
    return r;
}

/* ---- conformance: every row ---- */

static void test_rows_have_names_texts_and_are_found(void **state)
{
    (void)state;
    assert_true(dma_strategy_count >= 2);
    FOREACH_ROW(row)
    {
        assert_ptr_equal(dma_strategy_find(row->name), row);
        assert_true(row->summary && strlen(row->summary) > 10);
        assert_true(row->setup && row->get && row->put && row->teardown && row->describe);
    }
    assert_non_null(dma_strategy_find(DMA_DEFAULT));
    assert_null(dma_strategy_find("none such"));
    assert_null(dma_strategy_find(""));
}

/* Random requests in both directions: what arrives is what was sent, in order, and no byte beside it changes. */
static void random_request(struct fixture *f, uint64_t *seed)
{
    static unsigned char before[16][PAGE_BYTES];
    struct grant_world *w = &f->world;
    struct dma_segment s[DMA_SEGMENTS_MAX];
    uint32_t gfn[DMA_SEGMENTS_MAX], total = 0;
    unsigned count = 1 + world_random(seed) % DMA_SEGMENTS_MAX;
    uint32_t start = world_random(seed) % 16, stride = world_random(seed) % 2 ? 1 : 5; /* prime to 16: all differ */
    bool to_guest = world_random(seed) % 2;
    for (unsigned i = 0; i < count; i++) {
        unsigned first = world_random(seed) % 8, last = first + world_random(seed) % (8 - first);
        gfn[i] = GFN + (start + i * stride) % 16;
        s[i] = (struct dma_segment){
            .gref = world_grant(w, gfn[i], !to_guest && world_random(seed) % 2),
            .offset_bytes = (uint16_t)(first * SECTOR_BYTES),
            .length_bytes = (uint16_t)((last - first + 1) * SECTOR_BYTES),
        };
        total += s[i].length_bytes;
    }
    memcpy(before, world_guest_page(w, GFN), sizeof(before));
    unsigned char mark = (unsigned char)world_random(seed), at = mark;
    for (unsigned i = 0; i < count; i++)
        for (unsigned k = 0; k < s[i].length_bytes; k++) {
            unsigned char *now = to_guest ? before[gfn[i] - GFN] : world_guest_page(w, gfn[i]);
            now[s[i].offset_bytes + k] = before[gfn[i] - GFN][s[i].offset_bytes + k] = at++;
        }
    struct dma_io io;
    assert_int_equal(f->row->get(f->dma, s, count, to_guest, &io), 0);
    vec_check(f, &io, total);
    if (to_guest)
        device_fills(&io, mark);
    else
        device_expects(&io, mark);
    assert_int_equal(f->row->put(f->dma, &io, true), 0);
    assert_memory_equal(world_guest_page(w, GFN), before, sizeof(before));
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(gnttab_end(w->table, s[i].gref), 0);
}

static void test_data_arrives_in_order_and_nothing_else_changes(void **state)
{
    (void)state;
    FOREACH_ROW(row)
    {
        for (int refuse = 0; refuse < 2; refuse++) {
            struct fixture *f = fixture_new(row, refuse ? -ENOMEM : 0);
            uint64_t seed = 3;
            for (int i = 0; i < 300; i++)
                random_request(f, &seed);
            fixture_free(f);
        }
    }
}

static void test_requests_in_flight_do_not_meet(void **state)
{
    (void)state;
    FOREACH_ROW(row)
    {
        struct fixture *f = fixture_new(row, 0);
        struct dma_io io[REQUESTS_MAX];
        for (unsigned round = 0; round < 3; round++) {
            struct dma_segment s[REQUESTS_MAX];
            for (unsigned i = 0; i < REQUESTS_MAX; i++) {
                s[i] = (struct dma_segment){world_grant(&f->world, GFN + i, false), 0, PAGE_BYTES};
                assert_int_equal(row->get(f->dma, &s[i], 1, true, &io[i]), 0);
                vec_check(f, &io[i], PAGE_BYTES);
            }
            for (unsigned i = 0; i < REQUESTS_MAX; i++)
                device_fills(&io[i], (unsigned char)(i * 50));
            for (unsigned i = REQUESTS_MAX; i-- > 0;) {
                assert_int_equal(row->put(f->dma, &io[i], true), 0);
                for (unsigned k = 0; k < PAGE_BYTES; k++)
                    assert_int_equal(world_guest_page(&f->world, GFN + i)[k], (unsigned char)(i * 50 + k));
                assert_int_equal(gnttab_end(f->world.table, s[i].gref), 0);
            }
        }
        fixture_free(f);
    }
}

static void test_lesson_142_no_row_writes_what_is_granted_for_reading(void **state)
{
    (void)state;
    FOREACH_ROW(row)
    {
        struct fixture *f = fixture_new(row, 0);
        struct dma_segment granted_ro = {world_grant(&f->world, GFN, true), 0, PAGE_BYTES};
        struct dma_segment shared_ro = {world_grant(&f->world, GFN_RO, false), 0, PAGE_BYTES};
        assert_int_equal(request_result(f, &granted_ro, 1, true), GRANT_E_READONLY);
        assert_int_equal(request_result(f, &shared_ro, 1, true), GRANT_E_READONLY);
        for (unsigned i = 0; i < PAGE_BYTES; i++)
            assert_int_equal(world_guest_page(&f->world, GFN)[i] | world_guest_page(&f->world, GFN_RO)[i], 0);
        assert_int_equal(request_result(f, &granted_ro, 1, false), 0);
        assert_int_equal(request_result(f, &shared_ro, 1, false), 0);
        fixture_free(f);
    }
}

static void test_lesson_371_bad_segment_fails_the_request_and_holds_nothing(void **state)
{
    (void)state;
    FOREACH_ROW(row)
    {
        struct fixture *f = fixture_new(row, 0);
        const struct {
            uint32_t gref;
            int code;
        } bad[] = {{1, GRANT_E_BAD_REF},
                   {UINT32_MAX, GRANT_E_BAD_REF},
                   {world_grant(&f->world, 0xfff, false), GRANT_E_FRAME},
                   {400, GRANT_E_TYPE}};
        struct dma_segment good[DMA_SEGMENTS_MAX];
        for (unsigned i = 0; i < DMA_SEGMENTS_MAX; i++)
            good[i] = (struct dma_segment){world_grant(&f->world, GFN + i, false), 512, 1024};
        for (unsigned at = 0; at < DMA_SEGMENTS_MAX; at += 5)
            for (size_t k = 0; k < ARRAY_SIZE(bad); k++)
                for (int to_guest = 0; to_guest < 2; to_guest++) {
                    struct dma_segment s[DMA_SEGMENTS_MAX];
                    memcpy(s, good, sizeof(s));
                    s[at].gref = bad[k].gref;
                    for (int again = 0; again < REQUESTS_MAX + 1; again++) /* no slot is lost either */
                        assert_int_equal(request_result(f, s, DMA_SEGMENTS_MAX, to_guest), bad[k].code);
                }
        for (unsigned i = 0; i < DMA_SEGMENTS_MAX; i++)
            assert_int_equal(world_flags(&f->world, good[i].gref), GTF_permit_access);
        assert_int_equal(request_result(f, good, DMA_SEGMENTS_MAX, true), 0);
        fixture_free(f);
    }
}

static void test_lesson_361_environment_errors_pass_unchanged(void **state)
{
    (void)state;
    FOREACH_ROW(row)
    {
        struct fixture *f = fixture_new(row, 0);
        struct dma_segment s = {world_grant(&f->world, GFN, false), 0, 512};
        f->world.refuse = -EPIPE;
        assert_int_equal(request_result(f, &s, 1, false), -EPIPE);
        assert_int_equal(request_result(f, &s, 1, true), -EPIPE);
        f->world.refuse = 0;
        assert_int_equal(request_result(f, &s, 1, true), 0);
        fixture_free(f);
    }
}

static void test_failed_io_releases_all(void **state)
{
    (void)state;
    FOREACH_ROW(row)
    {
        struct fixture *f = fixture_new(row, 0);
        struct dma_segment s[2] = {{world_grant(&f->world, GFN, false), 0, PAGE_BYTES},
                                   {world_grant(&f->world, GFN_FAR, false), 512, 512}};
        for (int i = 0; i < 2 * REQUESTS_MAX; i++) {
            struct dma_io io;
            assert_int_equal(row->get(f->dma, s, 2, i % 2, &io), 0);
            assert_int_equal(row->put(f->dma, &io, false), 0);
            assert_int_equal(gntmap_mapped(f->world.map), 0);
        }
        fixture_free(f);
    }
}

/* Whatever the guest does to its table between get and put, bytes land in what it shares, or nowhere. */
static void test_lesson_155_no_row_follows_a_table_that_changes_in_flight(void **state)
{
    (void)state;
    FOREACH_ROW(row)
    {
        static const uint32_t elsewhere[] = {GFN + 1, GFN_RO, 0xfff, UINT32_MAX};
        for (size_t i = 0; i < ARRAY_SIZE(elsewhere); i++) {
            struct fixture *f = fixture_new(row, 0);
            struct dma_segment s = {world_grant(&f->world, GFN, false), 512, 1024};
            struct dma_io io;
            assert_int_equal(row->get(f->dma, &s, 1, true, &io), 0);
            world_write(&f->world, s.gref, GTF_permit_access, WORLD_HOST, elsewhere[i]);
            device_fills(&io, 1);
            int r = row->put(f->dma, &io, true);
            unsigned landed = 0;
            for (uint32_t gfn = GFN; gfn < GFN + 16; gfn++)
                for (unsigned k = 0; k < PAGE_BYTES; k++)
                    if (world_guest_page(&f->world, gfn)[k]) {
                        assert_true(gfn <= GFN + 1 && k >= 512 && k < 1536);
                        landed++;
                    }
            assert_true(r == 0 ? landed > 1000 : landed == 0);
            assert_int_equal(world_guest_page(&f->world, GFN_RO)[512], 0);
            fixture_free(f);
        }
    }
}

static void test_lesson_350_guest_may_die_during_io(void **state)
{
    (void)state;
    FOREACH_ROW(row)
    {
        for (int to_guest = 0; to_guest < 2; to_guest++) {
            struct fixture *f = fixture_new(row, 0);
            struct dma_segment s[2] = {{world_grant(&f->world, GFN, false), 0, PAGE_BYTES},
                                       {world_grant(&f->world, GFN_FAR, false), 0, PAGE_BYTES}};
            struct dma_io io;
            assert_int_equal(row->get(f->dma, s, 2, to_guest, &io), 0);
            world_instance_ends(&f->world, 1);
            gntmap_instance_gone(f->world.map, 1);
            if (to_guest)
                device_fills(&io, 9);
            int r = row->put(f->dma, &io, true);
            assert_true(r == 0 || r == GRANT_E_REVOKED || r == GRANT_E_BAD_REF);
            assert_int_equal(frametable_extents(f->world.frames), 0); /* all of the guest's went back */
            assert_null(f->world.frame[0].host);
            fixture_free(f);
        }
    }
}

static void test_statistics_tell_what_was_done(void **state)
{
    (void)state;
    FOREACH_ROW(row)
    {
        for (int refuse = 0; refuse < 2; refuse++) {
            struct fixture *f = fixture_new(row, refuse ? -EPERM : 0);
            struct dma_stats before, after;
            row->describe(f->dma, &before);
            struct dma_segment s = {world_grant(&f->world, GFN, false), 0, PAGE_BYTES};
            assert_int_equal(request_result(f, &s, 1, true), 0);
            row->describe(f->dma, &after);
            assert_int_equal(after.maps, before.maps + 1);
            assert_true(after.bytes_copied == before.bytes_copied || after.bytes_copied == before.bytes_copied + 4096);
            assert_int_equal(after.fixed_buffers, !refuse);
            size_t registered = 0;
            for (unsigned i = 0; i < BUFFERS_MAX; i++)
                registered += f->buffer[i].length_bytes;
            assert_int_equal(after.registered_bytes, registered);
            assert_true((registered > 0) == !refuse);
            fixture_free(f);
        }
    }
}

static void test_refused_registration_is_not_asked_for_again(void **state)
{
    (void)state;
    FOREACH_ROW(row)
    {
        struct fixture *f = fixture_new(row, -ENOMEM);
        struct dma_segment s = {world_grant(&f->world, GFN, false), 0, PAGE_BYTES};
        for (int i = 0; i < 20; i++) {
            struct dma_io io;
            assert_int_equal(row->get(f->dma, &s, 1, true, &io), 0);
            for (unsigned k = 0; k < io.vec_count; k++)
                assert_int_equal(io.vec[k].buffer_index, -1);
            assert_int_equal(row->put(f->dma, &io, true), 0);
        }
        assert_int_equal(f->registrations, 1);
        fixture_free(f);
    }
}

/* ---- pin ---- */

static void test_pin_uses_the_guests_own_pages_and_merges_neighbours(void **state)
{
    (void)state;
    struct fixture *f = fixture_new(&dma_pin, 0);
    struct grant_world *w = &f->world;
    struct dma_segment s[] = {
        {world_grant(w, GFN, false), 1024, 3072},  {world_grant(w, GFN + 1, false), 0, PAGE_BYTES},
        {world_grant(w, GFN + 2, false), 0, 512},  {world_grant(w, GFN + 3, false), 0, 512},
        {world_grant(w, GFN_FAR, false), 0, 4096}, {world_grant(w, GFN_FAR + 1, false), 512, 512},
    };
    struct dma_io io;
    assert_int_equal(dma_pin.get(f->dma, s, ARRAY_SIZE(s), false, &io), 0);
    assert_int_equal(io.vec_count, 4);
    assert_ptr_equal(io.vec[0].address, world_host_page(w, GFN) + 1024);
    assert_int_equal(io.vec[0].length_bytes, 3072 + 4096 + 512);
    assert_ptr_equal(io.vec[1].address, world_host_page(w, GFN + 3));
    assert_ptr_equal(io.vec[2].address, world_host_page(w, GFN_FAR));
    assert_ptr_equal(io.vec[3].address, world_host_page(w, GFN_FAR + 1) + 512);
    assert_int_not_equal(io.vec[1].buffer_index, io.vec[2].buffer_index);
    assert_int_equal(f->registrations, 2);
    dma_pin.put(f->dma, &io, true);
    fixture_free(f);
}

static void test_lesson_396_pin_makes_the_guests_end_wait_for_the_io(void **state)
{
    (void)state;
    struct fixture *f = fixture_new(&dma_pin, 0);
    struct dma_segment s = {world_grant(&f->world, GFN, false), 0, PAGE_BYTES};
    struct dma_io io;
    assert_int_equal(dma_pin.get(f->dma, &s, 1, true, &io), 0);
    assert_int_equal(gnttab_end(f->world.table, s.gref), -EBUSY);
    f->world.extent[0].gone = true;
    frametable_revoke(f->world.frames, 1, 0);
    device_fills(&io, 1);
    assert_int_equal(world_guest_page(&f->world, GFN)[10], 11);
    assert_int_equal(f->in_force, 1);
    assert_int_equal(dma_pin.put(f->dma, &io, true), 0);
    assert_int_equal(gnttab_end(f->world.table, s.gref), 0);
    assert_int_equal(f->in_force, 0);
    assert_null(f->world.extent[0].host);
    fixture_free(f);
}

static void test_pin_writes_the_pinned_frame_whatever_the_table_says(void **state)
{
    (void)state;
    struct fixture *f = fixture_new(&dma_pin, 0);
    struct dma_segment s = {world_grant(&f->world, GFN, false), 0, PAGE_BYTES};
    struct dma_io io;
    assert_int_equal(dma_pin.get(f->dma, &s, 1, true, &io), 0);
    world_write(&f->world, s.gref, GTF_permit_access, WORLD_HOST, GFN + 1);
    device_fills(&io, 1);
    assert_int_equal(dma_pin.put(f->dma, &io, true), 0);
    assert_int_equal(world_guest_page(&f->world, GFN)[0], 1);
    assert_int_equal(world_guest_page(&f->world, GFN + 1)[0], 0);
    fixture_free(f);
}

/* An I/O TLB is flushed before its page is given back; here the ring's registration is that cache. */
static void test_lesson_399_registration_ends_before_the_extent_goes(void **state)
{
    (void)state;
    struct fixture *f = fixture_new(&dma_pin, 0);
    struct dma_segment s = {world_grant(&f->world, GFN, false), 0, PAGE_BYTES};
    assert_int_equal(request_result(f, &s, 1, true), 0);
    assert_int_equal(f->in_force, 1);
    f->world.extent[0].gone = true;
    frametable_revoke(f->world.frames, 1, 0); /* on_extent_put checks the order */
    assert_int_equal(f->in_force, 0);
    assert_null(f->world.extent[0].host);
    fixture_free(f);
}

static void test_pin_devices_of_one_domain_share_registrations(void **state)
{
    (void)state;
    struct fixture *f = fixture_new(&dma_pin, 0);
    struct dma *first = f->dma, *second = device_new(f), *third = device_new(f);
    struct dma_segment s = {world_grant(&f->world, GFN, false), 0, PAGE_BYTES};
    struct dma_segment far = {world_grant(&f->world, GFN_FAR, false), 0, PAGE_BYTES};
    assert_int_equal(request_result(f, &s, 1, true), 0);
    f->dma = second;
    assert_int_equal(request_result(f, &s, 1, true), 0);
    assert_int_equal(request_result(f, &far, 1, true), 0);
    assert_int_equal(f->registrations, 2);
    dma_pin.teardown(second);
    assert_int_equal(f->in_force, 2); /* the others' still */
    f->dma = third;
    assert_int_equal(request_result(f, &far, 1, true), 0);
    assert_int_equal(f->registrations, 2);
    f->world.extent[1].gone = true;
    frametable_revoke(f->world.frames, 2, 0);
    assert_int_equal(f->in_force, 1);
    dma_pin.teardown(first);
    assert_int_equal(f->in_force, 1);
    dma_pin.teardown(third);
    assert_int_equal(f->in_force, 0); /* the ring may go now; the extents stay for who comes next */
    assert_int_equal(frametable_extents(f->world.frames), 1);
    f->dma = device_new(f);
    assert_int_equal(request_result(f, &s, 1, true), 0);
    assert_int_equal(f->registrations, 3);
    fixture_free(f);
}

static void test_pin_asks_again_where_an_earlier_ring_refused(void **state)
{
    (void)state;
    struct fixture *f = fixture_new(&dma_pin, -ENOMEM);
    struct dma_segment s = {world_grant(&f->world, GFN, false), 0, PAGE_BYTES};
    assert_int_equal(request_result(f, &s, 1, true), 0);
    dma_pin.teardown(f->dma);
    f->refuse = 0;
    f->dma = device_new(f);
    assert_int_equal(request_result(f, &s, 1, true), 0);
    assert_int_equal(f->in_force, 1);
    fixture_free(f);
}

/* ---- copy ---- */

static void test_lesson_155_copy_does_not_see_what_the_guest_writes_later(void **state)
{
    (void)state;
    struct fixture *f = fixture_new(&dma_copy, 0);
    struct dma_segment s = {world_grant(&f->world, GFN, false), 0, PAGE_BYTES};
    memset(world_guest_page(&f->world, GFN), 'a', PAGE_BYTES);
    struct dma_io io;
    assert_int_equal(dma_copy.get(f->dma, &s, 1, false, &io), 0);
    memset(world_guest_page(&f->world, GFN), 'b', PAGE_BYTES);
    assert_int_equal(io.vec_count, 1);
    for (unsigned i = 0; i < PAGE_BYTES; i++)
        assert_int_equal(io.vec[0].address[i], 'a');
    assert_int_equal(dma_copy.put(f->dma, &io, true), 0);
    fixture_free(f);
}

static void test_copy_holds_nothing_and_fails_a_read_whose_grant_vanished(void **state)
{
    (void)state;
    struct fixture *f = fixture_new(&dma_copy, 0);
    struct dma_segment s = {world_grant(&f->world, GFN, false), 0, PAGE_BYTES};
    struct dma_io read, write, failed;
    assert_int_equal(dma_copy.get(f->dma, &s, 1, false, &write), 0);
    assert_int_equal(dma_copy.get(f->dma, &s, 1, true, &read), 0);
    assert_int_equal(dma_copy.get(f->dma, &s, 1, true, &failed), 0);
    assert_int_equal(gntmap_mapped(f->world.map), 0);
    assert_int_equal(gnttab_end(f->world.table, s.gref), 0);
    device_fills(&read, 1);
    assert_int_equal(dma_copy.put(f->dma, &read, true), GRANT_E_TYPE);
    assert_int_equal(dma_copy.put(f->dma, &write, true), 0);   /* it was taken in time */
    assert_int_equal(dma_copy.put(f->dma, &failed, false), 0); /* nothing was to be delivered */
    for (unsigned i = 0; i < PAGE_BYTES; i++)
        assert_int_equal(world_guest_page(&f->world, GFN)[i], 0);
    fixture_free(f);
}

static void test_copy_of_a_failed_read_does_not_reach_the_guest(void **state)
{
    (void)state;
    struct fixture *f = fixture_new(&dma_copy, 0);
    struct dma_segment s = {world_grant(&f->world, GFN, false), 0, PAGE_BYTES};
    struct dma_io io;
    assert_int_equal(dma_copy.get(f->dma, &s, 1, true, &io), 0);
    device_fills(&io, 1);
    assert_int_equal(dma_copy.put(f->dma, &io, false), 0);
    for (unsigned i = 0; i < PAGE_BYTES; i++)
        assert_int_equal(world_guest_page(&f->world, GFN)[i], 0);
    fixture_free(f);
}

static void test_copy_registers_one_arena_and_gives_one_run(void **state)
{
    (void)state;
    struct fixture *f = fixture_new(&dma_copy, 0);
    assert_int_equal(f->registrations, 1);
    assert_int_equal((uintptr_t)f->buffer[0].address % PAGE_BYTES, 0);
    struct dma_segment s[DMA_SEGMENTS_MAX];
    for (unsigned i = 0; i < DMA_SEGMENTS_MAX; i++)
        s[i] = (struct dma_segment){world_grant(&f->world, GFN + (i * 5) % 16, false), 512, 1536};
    struct dma_io io[REQUESTS_MAX];
    for (unsigned i = 0; i < REQUESTS_MAX; i++) {
        assert_int_equal(dma_copy.get(f->dma, s, DMA_SEGMENTS_MAX, false, &io[i]), 0);
        assert_int_equal(io[i].vec_count, 1);
        vec_check(f, &io[i], DMA_SEGMENTS_MAX * 1536);
    }
    assert_int_equal(f->registrations, 1);
    for (unsigned i = 0; i < REQUESTS_MAX; i++)
        assert_int_equal(dma_copy.put(f->dma, &io[i], true), 0);
    fixture_free(f);
}

/* ---- the strategy of a running device changes ---- */

static void test_rows_follow_each_other_over_one_map(void **state)
{
    (void)state;
    struct fixture *f = fixture_new(dma_strategies[0], 0);
    uint64_t seed = 8;
    for (unsigned i = 0; i < 3 * dma_strategy_count; i++) {
        random_request(f, &seed);
        f->row->teardown(f->dma);
        assert_int_equal(f->in_force, 0);
        f->row = dma_strategies[(i + 1) % dma_strategy_count];
        f->dma = device_new(f);
        random_request(f, &seed);
    }
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_have_names_texts_and_are_found),
        cmocka_unit_test(test_data_arrives_in_order_and_nothing_else_changes),
        cmocka_unit_test(test_requests_in_flight_do_not_meet),
        cmocka_unit_test(test_lesson_142_no_row_writes_what_is_granted_for_reading),
        cmocka_unit_test(test_lesson_371_bad_segment_fails_the_request_and_holds_nothing),
        cmocka_unit_test(test_lesson_361_environment_errors_pass_unchanged),
        cmocka_unit_test(test_failed_io_releases_all),
        cmocka_unit_test(test_lesson_155_no_row_follows_a_table_that_changes_in_flight),
        cmocka_unit_test(test_lesson_350_guest_may_die_during_io),
        cmocka_unit_test(test_statistics_tell_what_was_done),
        cmocka_unit_test(test_refused_registration_is_not_asked_for_again),
        cmocka_unit_test(test_pin_uses_the_guests_own_pages_and_merges_neighbours),
        cmocka_unit_test(test_lesson_396_pin_makes_the_guests_end_wait_for_the_io),
        cmocka_unit_test(test_pin_writes_the_pinned_frame_whatever_the_table_says),
        cmocka_unit_test(test_lesson_399_registration_ends_before_the_extent_goes),
        cmocka_unit_test(test_pin_devices_of_one_domain_share_registrations),
        cmocka_unit_test(test_pin_asks_again_where_an_earlier_ring_refused),
        cmocka_unit_test(test_lesson_155_copy_does_not_see_what_the_guest_writes_later),
        cmocka_unit_test(test_copy_holds_nothing_and_fails_a_read_whose_grant_vanished),
        cmocka_unit_test(test_copy_of_a_failed_read_does_not_reach_the_guest),
        cmocka_unit_test(test_copy_registers_one_arena_and_gives_one_run),
        cmocka_unit_test(test_rows_follow_each_other_over_one_map),
    };
    return cmocka_run_group_tests_name("dma", tests, NULL, NULL);
}
