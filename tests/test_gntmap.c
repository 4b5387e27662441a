/* SPDX-License-Identifier: MIT */
/* The mapping side under a guest that writes its grant table as it likes: each rule once, lesson by lesson.
 * Random sequences and races are in test_gntmap_race.c.
 *
 * Rows of the lessons that cannot apply: no version 2 tables are offered, so there are no status frames, no transitive
 * or sub-page grants to follow, and no version switch (379's, 382's and 384's kind of race exists for the grant frames
 * of an instance that goes, and is tested there). Unmaps name no handle that a guest could forge: they are the host's
 * own calls, and a wrong one is an assert.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "grant/gntmap.h"
#include "tests/grant_world.h"

#define GFN    0x100 /* four frames, shared for writing */
#define GFN_RO 0x200 /* four frames, shared for reading */

static int setup(void **state)
{
    struct grant_world *w = malloc(sizeof(*w));
    gworld_open(w);
    gworld_share(w, GFN, 4, false);
    gworld_share(w, GFN_RO, 4, true);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct grant_world *w = *state;
    assert_int_equal(gntmap_mapped(w->map), 0);
    assert_int_equal(frametable_pinned(w->frames), 0);
    gworld_close(w);
    free(w);
    return 0;
}

static struct gntmap_page must_map(struct grant_world *w, uint32_t gref, bool write)
{
    struct gntmap_page page;
    assert_int_equal(gntmap_map(w->map, gref, write, &page), 0);
    return page;
}

static void must_fail(struct grant_world *w, uint32_t gref, bool write, int code)
{
    struct gntmap_page page;
    uint32_t mapped = gntmap_mapped(w->map), pinned = frametable_pinned(w->frames);
    assert_int_equal(gntmap_map(w->map, gref, write, &page), code);
    assert_int_equal(gntmap_mapped(w->map), mapped);
    assert_int_equal(frametable_pinned(w->frames), pinned);
}

static void test_map_marks_the_entry_and_reaches_the_frame(void **state)
{
    struct grant_world *w = *state;
    uint32_t gref = gworld_grant(w, GFN + 2, false);
    struct gntmap_page read = must_map(w, gref, false);
    assert_int_equal(gworld_flags(w, gref), GTF_permit_access | GTF_reading);
    gntmap_unmap(w->map, &read);
    assert_int_equal(gworld_flags(w, gref), GTF_permit_access);
    struct gntmap_page page = must_map(w, gref, true);
    assert_int_equal(gworld_flags(w, gref), GTF_permit_access | GTF_reading | GTF_writing);
    memset(page.address, 0x5a, PAGE_BYTES);
    assert_int_equal(gworld_guest_page(w, GFN + 2)[PAGE_BYTES - 1], 0x5a);
    assert_int_equal(gworld_guest_page(w, GFN + 1)[PAGE_BYTES - 1] | gworld_guest_page(w, GFN + 3)[0], 0);
    assert_int_equal(gnttab_end(w->table, gref), -EBUSY);
    gntmap_unmap(w->map, &page);
    assert_int_equal(gnttab_end(w->table, gref), 0);
    must_fail(w, gref, false, GRANT_E_TYPE);
}

static void test_references_outside_the_table_are_refused(void **state)
{
    struct grant_world *w = *state;
    gworld_frame_new(w, WORLD_HOST);
    gworld_frame_new(w, WORLD_GUEST + 4); /* for somebody else */
    for (uint32_t gref = 0; gref < GNTTAB_NR_RESERVED_ENTRIES; gref++) {
        gworld_write(w, gref, GTF_permit_access, WORLD_HOST, GFN);
        must_fail(w, gref, false, GRANT_E_BAD_REF);
    }
    static const uint32_t outside[] = {GNTTAB_FRAMES_MAX * GRANT_PER_FRAME, 1u << 31, UINT32_MAX - 7, UINT32_MAX};
    for (size_t i = 0; i < ARRAY_SIZE(outside); i++)
        must_fail(w, outside[i], true, GRANT_E_BAD_REF);
    assert_int_equal(gntmap_misses(w->map), 0); /* none of these cost a round trip */
    must_fail(w, GRANT_PER_FRAME, false, GRANT_E_BAD_REF);
    must_fail(w, GNTTAB_FRAMES_MAX * GRANT_PER_FRAME - 1, false, GRANT_E_BAD_REF);
    assert_int_equal(gntmap_misses(w->map), 2);
    must_fail(w, GNTTAB_NR_RESERVED_ENTRIES, false, GRANT_E_TYPE);
}

static void test_entries_of_other_kinds_or_domains_are_refused(void **state)
{
    struct grant_world *w = *state;
    uint32_t gref = gworld_grant(w, GFN, false);
    static const uint16_t kinds[] = {GTF_invalid, GTF_accept_transfer, GTF_transitive, GTF_permit_access | GTF_sub_page,
                                     GTF_transitive | GTF_sub_page};
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        gworld_write(w, gref, kinds[i], WORLD_HOST, GFN);
        must_fail(w, gref, false, GRANT_E_TYPE);
        assert_int_equal(gworld_flags(w, gref), kinds[i]);
    }
    static const uint16_t others[] = {1, WORLD_GUEST, 0x7ff0 /* DOMID_SELF */, 0xffff};
    for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
        gworld_write(w, gref, GTF_permit_access, others[i], GFN);
        must_fail(w, gref, false, GRANT_E_DOMAIN);
    }
    gworld_write(w, gref, GTF_permit_access | GTF_PWT | GTF_PCD | GTF_PAT, WORLD_HOST, GFN); /* hints: no matter */
    struct gntmap_page page = must_map(w, gref, true);
    gntmap_unmap(w->map, &page);
}

static void test_lesson_142_read_only_is_enforced_here(void **state)
{
    struct grant_world *w = *state;
    uint32_t granted_ro = gworld_grant(w, GFN, true), shared_ro = gworld_grant(w, GFN_RO, false);
    uint32_t grefs[] = {granted_ro, shared_ro};
    for (size_t i = 0; i < ARRAY_SIZE(grefs); i++) {
        must_fail(w, grefs[i], true, GRANT_E_READONLY);
        assert_int_equal(gworld_flags(w, grefs[i]) & (GTF_reading | GTF_writing), 0);
        struct gntmap_page page = must_map(w, grefs[i], false);
        must_fail(w, grefs[i], true, GRANT_E_READONLY); /* nor on top of a reader */
        assert_int_equal(gworld_flags(w, grefs[i]) & (GTF_reading | GTF_writing), GTF_reading);
        gntmap_unmap(w->map, &page);
    }
}

static void test_lesson_155_rewritten_entry_changes_nothing_after_the_map(void **state)
{
    struct grant_world *w = *state;
    uint32_t gref = gworld_grant(w, GFN, false);
    struct gntmap_page first = must_map(w, gref, true);
    static const struct {
        uint16_t flags, domid;
        uint32_t gfn;
    } lies[] = {
        {GTF_permit_access, WORLD_HOST, GFN + 1},
        {GTF_invalid, 0, 0},
        {GTF_permit_access | GTF_readonly, WORLD_HOST, GFN_RO},
        {GTF_transitive, 9, UINT32_MAX},
    };
    for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
        gworld_write(w, gref, lies[i].flags, lies[i].domid, lies[i].gfn);
        struct gntmap_page r = must_map(w, gref, false), rw = must_map(w, gref, true);
        assert_ptr_equal(r.address, first.address);
        assert_ptr_equal(rw.address, first.address);
        gntmap_unmap(w->map, &rw);
        gntmap_unmap(w->map, &r);
    }
    assert_int_equal(frametable_pinned(w->frames), 1);
    gntmap_unmap(w->map, &first);
}

/* A first writer behind readers asks for permission anew, by all of the rules, and still gets the readers' frame. */
static void test_lesson_500_first_writer_is_checked_in_full(void **state)
{
    struct grant_world *w = *state;
    uint32_t gref = gworld_grant(w, GFN, false);
    struct gntmap_page reader = must_map(w, gref, false);
    gworld_write(w, gref, GTF_permit_access | GTF_readonly, WORLD_HOST, GFN + 1);
    must_fail(w, gref, true, GRANT_E_READONLY);
    gworld_write(w, gref, GTF_permit_access, WORLD_HOST + 5, GFN + 1);
    must_fail(w, gref, true, GRANT_E_DOMAIN);
    gworld_write(w, gref, GTF_accept_transfer, WORLD_HOST, GFN + 1);
    must_fail(w, gref, true, GRANT_E_TYPE);
    gworld_write(w, gref, GTF_permit_access, WORLD_HOST, GFN + 1);
    struct gntmap_page writer = must_map(w, gref, true);
    assert_ptr_equal(writer.address, reader.address);
    assert_int_equal(gworld_flags(w, gref), GTF_permit_access | GTF_reading | GTF_writing);
    gntmap_unmap(w->map, &writer);
    gntmap_unmap(w->map, &reader);
}

static void test_lesson_226_copy_takes_the_active_frame(void **state)
{
    struct grant_world *w = *state;
    uint32_t gref = gworld_grant(w, GFN, false);
    gworld_guest_page(w, GFN)[0] = 'a';
    gworld_guest_page(w, GFN + 1)[0] = 'b';
    struct gntmap_page page = must_map(w, gref, false);
    gworld_write(w, gref, GTF_permit_access | GTF_reading, WORLD_HOST, GFN + 1);
    char c = 0;
    assert_int_equal(gntmap_copy(w->map, gref, 0, &c, 1, false), 0);
    assert_int_equal(c, 'a');
    gntmap_unmap(w->map, &page);
    assert_int_equal(gntmap_copy(w->map, gref, 0, &c, 1, false), 0);
    assert_int_equal(c, 'b');
}

static void test_lesson_411_transitive_grants_are_not_followed(void **state)
{
    struct grant_world *w = *state;
    uint32_t gref = gworld_grant(w, GFN, false);
    gworld_write(w, gref, GTF_transitive, WORLD_HOST, GFN);
    char c = 'x';
    assert_int_equal(gntmap_copy(w->map, gref, 0, &c, 1, false), GRANT_E_TYPE);
    assert_int_equal(c, 'x');
}

static void test_lesson_218_writing_is_cleared_by_the_last_writer_only(void **state)
{
    struct grant_world *w = *state;
    uint32_t gref = gworld_grant(w, GFN, false);
    struct gntmap_page r = must_map(w, gref, false), a = must_map(w, gref, true), b = must_map(w, gref, true);
    gntmap_unmap(w->map, &a);
    assert_int_equal(gworld_flags(w, gref), GTF_permit_access | GTF_reading | GTF_writing);
    gntmap_unmap(w->map, &b);
    assert_int_equal(gworld_flags(w, gref), GTF_permit_access | GTF_reading);
    b = must_map(w, gref, true);
    gntmap_unmap(w->map, &r); /* the reader goes first: both marks stay */
    assert_int_equal(gworld_flags(w, gref), GTF_permit_access | GTF_reading | GTF_writing);
    gntmap_unmap(w->map, &b);
    assert_int_equal(gworld_flags(w, gref), GTF_permit_access);
}

static void test_lesson_224_failed_map_undoes_only_its_own_marks(void **state)
{
    struct grant_world *w = *state;
    uint32_t gref = gworld_grant(w, 0x999, false); /* shared with nobody */
    must_fail(w, gref, true, GRANT_E_FRAME);
    assert_int_equal(gworld_flags(w, gref), GTF_permit_access);
    gworld_write(w, gref, GTF_permit_access | GTF_writing, WORLD_HOST, 0x999);
    must_fail(w, gref, false, GRANT_E_FRAME);
    assert_int_equal(gworld_flags(w, gref), GTF_permit_access | GTF_writing);
    gworld_write(w, gref, GTF_permit_access, WORLD_HOST, GFN_RO);
    must_fail(w, gref, true, GRANT_E_READONLY);
    assert_int_equal(gworld_flags(w, gref), GTF_permit_access);
}

static void rewrite_during_lookup(struct grant_world *w, uint32_t gfn)
{
    uint32_t gref = *(uint32_t *)w->user;
    assert_int_equal(gfn, GFN + 1); /* read already … */
    assert_int_equal(gworld_flags(w, gref) & (GTF_reading | GTF_writing), GTF_reading | GTF_writing); /* … and marked */
    assert_int_equal(gnttab_end(w->table, gref), -EBUSY);
    gworld_write(w, gref, GTF_permit_access | GTF_readonly, WORLD_HOST, GFN_RO);
}

static void test_lesson_228_the_frame_is_read_behind_the_mark_and_once(void **state)
{
    struct grant_world *w = *state;
    uint32_t gref = gworld_grant(w, GFN + 1, false);
    w->user = &gref;
    w->on_extent_get = rewrite_during_lookup;
    struct gntmap_page page = must_map(w, gref, true);
    assert_ptr_equal(page.address, gworld_host_page(w, GFN + 1));
    gntmap_unmap(w->map, &page);
    w->on_extent_get = NULL;
}

static void test_lesson_230_guest_that_clears_marks_does_not_unpin(void **state)
{
    struct grant_world *w = *state;
    uint32_t gref = gworld_grant(w, GFN, false);
    struct gntmap_page a = must_map(w, gref, true);
    gworld_write(w, gref, GTF_permit_access, WORLD_HOST, GFN); /* as though it were not mapped */
    assert_int_equal(gnttab_end(w->table, gref), 0);
    uint32_t again = gworld_grant(w, GFN + 3, false);
    assert_int_equal(again, gref);
    struct gntmap_page b = must_map(w, gref, true); /* the old map is in force: it stays the old frame */
    assert_ptr_equal(b.address, a.address);
    assert_int_equal(frametable_pinned(w->frames), 1);
    gntmap_unmap(w->map, &a);
    gntmap_unmap(w->map, &b);
    b = must_map(w, gref, true);
    assert_ptr_equal(b.address, gworld_host_page(w, GFN + 3));
    gntmap_unmap(w->map, &b);
}

static void test_lesson_236_pins_of_a_reference_do_not_overflow(void **state)
{
    struct grant_world *w = *state;
    uint32_t gref = gworld_grant(w, GFN, false);
    struct gntmap_page r, rw;
    for (uint32_t i = 0; i < GRANT_PINS_MAX; i++) {
        r = must_map(w, gref, false);
        rw = must_map(w, gref, true);
    }
    must_fail(w, gref, false, GRANT_E_PINS);
    must_fail(w, gref, true, GRANT_E_PINS);
    gntmap_unmap(w->map, &rw);
    must_fail(w, gref, false, GRANT_E_PINS);
    rw = must_map(w, gref, true);
    for (uint32_t i = 0; i < GRANT_PINS_MAX; i++) {
        gntmap_unmap(w->map, &r);
        assert_int_equal(gworld_flags(w, gref) & GTF_writing, GTF_writing);
    }
    for (uint32_t i = 0; i < GRANT_PINS_MAX; i++)
        gntmap_unmap(w->map, &rw);
    assert_int_equal(gworld_flags(w, gref), GTF_permit_access);
}

static void test_lesson_361_one_bad_reference_undoes_the_whole_batch(void **state)
{
    struct grant_world *w = *state;
    enum { COUNT = 5 };
    uint32_t good[COUNT];
    struct gntmap_page pages[COUNT];
    for (unsigned i = 0; i < COUNT; i++)
        good[i] = gworld_grant(w, GFN + i % 4, false);
    uint32_t readonly = gworld_grant(w, GFN, true), unshared = gworld_grant(w, 0x999, false);
    const struct {
        uint32_t gref;
        int code;
    } bad[] = {{3, GRANT_E_BAD_REF}, {readonly, GRANT_E_READONLY}, {unshared, GRANT_E_FRAME}};
    for (unsigned at = 0; at < COUNT; at++)
        for (size_t k = 0; k < ARRAY_SIZE(bad); k++) {
            uint32_t grefs[COUNT];
            unsigned failed = 99;
            memcpy(grefs, good, sizeof(grefs));
            grefs[at] = bad[k].gref;
            assert_int_equal(gntmap_map_many(w->map, grefs, COUNT, true, pages, &failed), bad[k].code);
            assert_int_equal(failed, at);
            assert_int_equal(gntmap_map_many(w->map, grefs, COUNT, true, pages, NULL), bad[k].code);
            assert_int_equal(gntmap_mapped(w->map), 0);
            for (unsigned i = 0; i < COUNT; i++)
                assert_int_equal(gworld_flags(w, good[i]), GTF_permit_access);
        }
    assert_int_equal(gntmap_map_many(w->map, good, COUNT, true, pages, NULL), 0);
    assert_int_equal(gntmap_mapped(w->map), COUNT);
    for (unsigned i = 0; i < COUNT; i++)
        gntmap_unmap(w->map, &pages[i]);
}

static void test_lesson_362_the_first_error_of_a_batch_is_the_one_reported(void **state)
{
    struct grant_world *w = *state;
    uint32_t grefs[3] = {gworld_grant(w, GFN, false), gworld_grant(w, GFN, true), 2};
    struct gntmap_page pages[3];
    unsigned failed;
    assert_int_equal(gntmap_map_many(w->map, grefs, 3, true, pages, &failed), GRANT_E_READONLY);
    assert_int_equal(failed, 1);
}

static void test_lesson_374_environment_errors_leak_nothing_and_pass(void **state)
{
    struct grant_world *w = *state;
    uint32_t gref = gworld_grant(w, GFN, false);
    static const int refusals[] = {-EMFILE, -ENOMEM, -EPIPE};
    for (size_t i = 0; i < ARRAY_SIZE(refusals); i++) {
        w->refuse = refusals[i];
        must_fail(w, gref, true, refusals[i]); /* the grant frame */
    }
    w->refuse = 0;
    must_fail(w, gref + 1, true, GRANT_E_TYPE);
    for (size_t i = 0; i < ARRAY_SIZE(refusals); i++) {
        w->refuse = refusals[i];
        must_fail(w, gref, true, refusals[i]); /* the extent */
        assert_int_equal(gworld_flags(w, gref), GTF_permit_access);
    }
    assert_int_equal(gntmap_misses(w->map), 2 * ARRAY_SIZE(refusals));
    w->refuse = 0;
    struct gntmap_page page = must_map(w, gref, true);
    gntmap_unmap(w->map, &page);
}

static void test_known_memory_costs_no_round_trip(void **state)
{
    struct grant_world *w = *state;
    uint32_t grefs[4];
    for (uint32_t i = 0; i < 4; i++)
        grefs[i] = gworld_grant(w, GFN + i, false);
    for (int round = 0; round < 100; round++) {
        struct gntmap_page pages[4];
        assert_int_equal(gntmap_map_many(w->map, grefs, 4, true, pages, NULL), 0);
        for (unsigned i = 0; i < 4; i++)
            gntmap_unmap(w->map, &pages[i]);
    }
    assert_int_equal(w->lookups, 2); /* one grant frame, one extent */
    uint32_t unshared = gworld_grant(w, 0x999, false);
    for (unsigned i = 0; i < 10; i++)
        must_fail(w, unshared, false, GRANT_E_FRAME);
    assert_int_equal(gntmap_misses(w->map), 10); /* a guest's doing: counted, for its device to be bounded by */
}

/* ---- copies ---- */

static void test_copies_stay_within_the_page_and_are_exact(void **state)
{
    struct grant_world *w = *state;
    uint32_t gref = gworld_grant(w, GFN + 1, false);
    unsigned char local[PAGE_BYTES], *page = gworld_guest_page(w, GFN + 1);
    memset(local, 7, sizeof(local));
    static const struct {
        uint32_t offset, length;
    } out[] = {{0, PAGE_BYTES + 1},      {1, PAGE_BYTES}, {PAGE_BYTES, 1},     {UINT32_MAX, 2}, {2, UINT32_MAX},
               {UINT32_MAX, UINT32_MAX}, {4095, 2},       {PAGE_BYTES + 1, 1}, {0, UINT32_MAX}};
    for (size_t i = 0; i < ARRAY_SIZE(out); i++)
        assert_int_equal(gntmap_copy(w->map, gref, out[i].offset, local, out[i].length, true), GRANT_E_RANGE);
    for (unsigned i = 0; i < PAGE_BYTES; i++)
        assert_int_equal(page[i], 0);
    assert_int_equal(gntmap_copy(w->map, gref, 100, local, 50, true), 0);
    for (unsigned i = 0; i < PAGE_BYTES; i++)
        assert_int_equal(page[i], i >= 100 && i < 150 ? 7 : 0);
    page[4095] = 9;
    assert_int_equal(gntmap_copy(w->map, gref, 4094, local, 2, false), 0);
    assert_int_equal(local[0] | local[1] << 8 | local[2] << 16, 0x070900);
    assert_int_equal(gntmap_copy(w->map, gref, 0, local, PAGE_BYTES, false), 0);
    assert_memory_equal(local, page, PAGE_BYTES);
}

static void test_copy_of_nothing_is_ignored_entirely(void **state)
{
    struct grant_world *w = *state;
    assert_int_equal(gntmap_copy(w->map, 0, UINT32_MAX, NULL, 0, true), 0);
    assert_int_equal(gntmap_copy(w->map, UINT32_MAX, 5000, NULL, 0, false), 0);
    assert_int_equal(w->lookups, 0);
}

/* ---- the granter goes ---- */

static void test_lesson_255_grant_frame_in_use_outlives_its_instance(void **state)
{
    struct grant_world *w = *state;
    uint32_t used = gworld_grant(w, GFN, false), idle = gworld_grant(w, GFN + 1, false);
    struct gntmap_page page = must_map(w, used, true);
    gworld_instance_ends(w, 1);
    gntmap_instance_gone(w->map, 1);
    assert_non_null(w->frame[0].host);
    must_fail(w, used, false, GRANT_E_REVOKED);
    must_fail(w, idle, false, GRANT_E_REVOKED);
    page.address[5] = 'z'; /* DMA under way: still the guest's page */
    assert_int_equal(gworld_guest_page(w, GFN)[5], 'z');
    assert_int_equal(gworld_flags(w, used), GTF_permit_access | GTF_reading | GTF_writing);
    gntmap_unmap(w->map, &page);
    assert_int_equal(gworld_flags(w, used), GTF_permit_access);
    assert_null(w->frame[0].host);
    assert_int_equal(frametable_extents(w->frames), 0);
    must_fail(w, used, false, GRANT_E_BAD_REF);
}

/* Two processes of one domain: the table is the one's, the memory the other's. */
static void test_lesson_268_gone_table_gives_no_new_maps_of_living_memory(void **state)
{
    struct grant_world *w = *state;
    w->instance = 2;
    struct world_extent *others = gworld_share(w, 0x300, 2, false);
    w->instance = 1;
    uint32_t used = gworld_grant(w, 0x300, false), idle = gworld_grant(w, 0x301, false);
    struct gntmap_page page = must_map(w, used, true);
    gworld_instance_ends(w, 1);
    gntmap_instance_gone(w->map, 1);
    must_fail(w, used, true, GRANT_E_REVOKED);
    must_fail(w, idle, true, GRANT_E_REVOKED);
    assert_int_equal(gworld_flags(w, idle), GTF_permit_access);
    gntmap_unmap(w->map, &page);
    assert_null(w->frame[0].host);
    assert_non_null(others->host); /* its owner lives */
}

static void test_lesson_379_idle_grant_frames_go_at_once(void **state)
{
    struct grant_world *w = *state;
    uint32_t gref = gworld_grant(w, GFN, false);
    struct gntmap_page page = must_map(w, gref, true);
    gntmap_unmap(w->map, &page);
    gntmap_instance_gone(w->map, 2); /* another's end: nothing of ours */
    assert_non_null(w->frame[0].host);
    gworld_instance_ends(w, 1);
    gntmap_instance_gone(w->map, 1);
    assert_null(w->frame[0].host);
    assert_null(w->extent[0].host);
}

static void test_lesson_501_new_frame_of_the_same_index_comes_after_the_old_is_gone(void **state)
{
    struct grant_world *w = *state;
    uint32_t gref = gworld_grant(w, GFN, false);
    struct gntmap_page old = must_map(w, gref, false);
    gworld_instance_ends(w, 1);
    gntmap_instance_gone(w->map, 1);
    w->instance = 2;
    gworld_share(w, 0x300, 1, false);
    must_fail(w, gref, false, GRANT_E_REVOKED);
    gntmap_unmap(w->map, &old);
    assert_int_equal(gworld_frame_new(w, WORLD_HOST), 0);
    gworld_write(w, gref, GTF_permit_access, WORLD_HOST, 0x300);
    struct gntmap_page page = must_map(w, gref, true); /* the old active entry is forgotten */
    assert_ptr_equal(page.address, gworld_host_page(w, 0x300));
    gntmap_instance_gone(w->map, 1); /* late news of the old one */
    struct gntmap_page again = must_map(w, gref, true);
    gntmap_unmap(w->map, &again);
    gntmap_unmap(w->map, &page);
}

static void test_lesson_484_instance_may_go_twice(void **state)
{
    struct grant_world *w = *state;
    uint32_t gref = gworld_grant(w, GFN, false);
    struct gntmap_page page = must_map(w, gref, false);
    gworld_instance_ends(w, 1);
    for (int i = 0; i < 3; i++)
        gntmap_instance_gone(w->map, 1);
    gntmap_unmap(w->map, &page);
    for (int i = 0; i < 3; i++)
        gntmap_instance_gone(w->map, 1);
    assert_null(w->frame[0].host);
}

static void test_lesson_350_extent_taken_back_during_use_waits(void **state)
{
    struct grant_world *w = *state;
    uint32_t mapped = gworld_grant(w, GFN, false), other = gworld_grant(w, GFN + 1, false);
    struct gntmap_page page = must_map(w, mapped, true);
    w->extent[0].gone = true;
    frametable_revoke(w->frames, w->extent[0].id, 0);
    must_fail(w, mapped, false, GRANT_E_REVOKED);
    must_fail(w, mapped, true, GRANT_E_REVOKED);
    must_fail(w, other, false, GRANT_E_REVOKED);
    assert_int_equal(gworld_flags(w, other), GTF_permit_access);
    memset(page.address, 1, PAGE_BYTES);
    assert_int_equal(gworld_guest_page(w, GFN)[77], 1);
    gntmap_unmap(w->map, &page);
    assert_null(w->extent[0].host);
    must_fail(w, other, false, GRANT_E_FRAME);
}

/* A mapper that died left its marks; the next one clears them, but for those that are its own. */
static void test_marks_of_a_dead_mapper_are_cleared_and_no_others(void **state)
{
    struct grant_world *w = *state;
    uint32_t theirs = gworld_grant(w, GFN, false), read = gworld_grant(w, GFN, false),
             both = gworld_grant(w, GFN, false);
    for (unsigned i = 0; i < 2; i++)
        gworld_frame_new(w, WORLD_HOST); /* the second of which is never mapped from */
    w->left = 5;
    uint32_t all = GTF_permit_access | GTF_reading | GTF_writing;
    gworld_write(w, theirs, all, WORLD_HOST, GFN);
    gworld_write(w, read, all, WORLD_HOST, GFN);
    gworld_write(w, both, all, WORLD_HOST, GFN);
    gworld_write(w, 2 * GRANT_PER_FRAME + 7, all, WORLD_HOST, GFN);
    gworld_write(w, GRANT_PER_FRAME + 7, all, WORLD_HOST, GFN); /* of a frame that was not named */
    struct gntmap_page reader = must_map(w, read, false), writer = must_map(w, both, true);
    gntmap_take_over(w->map);
    assert_int_equal(gworld_flags(w, theirs), GTF_permit_access);
    assert_int_equal(gworld_flags(w, read), GTF_permit_access | GTF_reading);
    assert_int_equal(gworld_flags(w, both), all);
    assert_int_equal(gworld_flags(w, 2 * GRANT_PER_FRAME + 7), GTF_permit_access);
    assert_int_equal(gworld_flags(w, GRANT_PER_FRAME + 7), all);
    gntmap_unmap(w->map, &reader);
    gntmap_unmap(w->map, &writer);
    assert_int_equal(gnttab_end(w->table, read), 0);
    w->left = 0;
}

static void test_every_error_has_its_own_text(void **state)
{
    (void)state;
    for (int i = 1; i < GRANT_E_COUNT_; i++)
        for (int k = 1; k < GRANT_E_COUNT_; k++)
            assert_true(grant_error_text(i) && (i == k || strcmp(grant_error_text(i), grant_error_text(k)) != 0));
    assert_string_equal(grant_error_text(0), grant_error_text(-5));
    assert_string_equal(grant_error_text(0), grant_error_text(GRANT_E_COUNT_));
}

#define WORLD_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_map_marks_the_entry_and_reaches_the_frame),
        WORLD_TEST(test_references_outside_the_table_are_refused),
        WORLD_TEST(test_entries_of_other_kinds_or_domains_are_refused),
        WORLD_TEST(test_lesson_142_read_only_is_enforced_here),
        WORLD_TEST(test_lesson_155_rewritten_entry_changes_nothing_after_the_map),
        WORLD_TEST(test_lesson_500_first_writer_is_checked_in_full),
        WORLD_TEST(test_lesson_226_copy_takes_the_active_frame),
        WORLD_TEST(test_lesson_411_transitive_grants_are_not_followed),
        WORLD_TEST(test_lesson_218_writing_is_cleared_by_the_last_writer_only),
        WORLD_TEST(test_lesson_224_failed_map_undoes_only_its_own_marks),
        WORLD_TEST(test_lesson_228_the_frame_is_read_behind_the_mark_and_once),
        WORLD_TEST(test_lesson_230_guest_that_clears_marks_does_not_unpin),
        WORLD_TEST(test_lesson_236_pins_of_a_reference_do_not_overflow),
        WORLD_TEST(test_lesson_361_one_bad_reference_undoes_the_whole_batch),
        WORLD_TEST(test_lesson_362_the_first_error_of_a_batch_is_the_one_reported),
        WORLD_TEST(test_lesson_374_environment_errors_leak_nothing_and_pass),
        WORLD_TEST(test_known_memory_costs_no_round_trip),
        WORLD_TEST(test_copies_stay_within_the_page_and_are_exact),
        WORLD_TEST(test_copy_of_nothing_is_ignored_entirely),
        WORLD_TEST(test_lesson_255_grant_frame_in_use_outlives_its_instance),
        WORLD_TEST(test_lesson_268_gone_table_gives_no_new_maps_of_living_memory),
        WORLD_TEST(test_lesson_379_idle_grant_frames_go_at_once),
        WORLD_TEST(test_lesson_501_new_frame_of_the_same_index_comes_after_the_old_is_gone),
        WORLD_TEST(test_lesson_484_instance_may_go_twice),
        WORLD_TEST(test_lesson_350_extent_taken_back_during_use_waits),
        WORLD_TEST(test_marks_of_a_dead_mapper_are_cleared_and_no_others),
        cmocka_unit_test(test_every_error_has_its_own_text),
    };
    return cmocka_run_group_tests_name("gntmap", tests, NULL, NULL);
}
