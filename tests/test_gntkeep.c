/* SPDX-License-Identifier: MIT */
/* Grants that stay mapped: what a keep holds, what it gives back and when, and what its granter can do meanwhile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "grant/gntkeep.h"
#include "tests/grant_world.h"

#define GFN    0x100 /* 64 frames in one extent */
#define FRAMES 64u
#define GFN_B  0x800 /* 4 in another */
#define GFN_RO 0x900 /* 4 that the guest shares for reading */
#define PAGES  8u    /* that the keep may hold */

struct kept_world {
    struct grant_world world;
    struct gntkeep *keep;
    uint32_t gref[FRAMES];
};

static int world_setup(void **state)
{
    static struct kept_world k;
    struct grant_world *w = &k.world;
    gworld_open(w);
    gworld_share(w, GFN, FRAMES, false);
    gworld_share(w, GFN_B, 4, false);
    gworld_share(w, GFN_RO, 4, true);
    for (uint32_t i = 0; i < FRAMES; i++)
        k.gref[i] = gworld_grant(w, GFN + i, false);
    assert_int_equal(gntkeep_new(w->map, PAGES, &k.keep), 0);
    *state = &k;
    return 0;
}

static int world_teardown(void **state)
{
    struct kept_world *k = *state;
    gntkeep_free(k->keep);
    assert_int_equal(gntmap_mapped(k->world.map), 0);
    assert_int_equal(frametable_pinned(k->world.frames), 0);
    gworld_close(&k->world);
    return 0;
}

/* What a request does: the address that it was given. */
static unsigned char *use(struct kept_world *k, uint32_t gref, bool write)
{
    struct gntmap_page page;
    assert_int_equal(gntmap_map_keeping(k->world.map, k->keep, gref, write, &page), 0);
    unsigned char *address = page.address;
    gntmap_unmap(k->world.map, &page);
    return address;
}

static bool is_kept(struct kept_world *k, uint32_t gref)
{
    return gworld_flags(&k->world, gref) & GTF_reading;
}

/* So much time passes that nothing stays. */
static void expire(struct kept_world *k)
{
    gntkeep_tick(k->keep, 1000000);
    gntkeep_tick(k->keep, 1000000 + GNTKEEP_IDLE_S);
}

/* ---- a kept reference is found without the granter's table ---- */

static void test_a_second_map_neither_reads_nor_writes_the_entry(void **state)
{
    struct kept_world *k = *state;
    for (int write = 0; write < 2; write++) {
        unsigned char *address = use(k, k->gref[write], write);
        gworld_write(&k->world, k->gref[write], GTF_invalid, 9, UINT32_MAX); /* a refusal, were it read */
        for (int i = 0; i < 3; i++)
            assert_ptr_equal(use(k, k->gref[write], write), address);
        assert_int_equal(grant_word_load(gworld_entry(&k->world, k->gref[write])), grant_word_make(GTF_invalid, 9));
    }
    assert_int_equal(gntkeep_stats(k->keep).hits, 6);
    assert_int_equal(gntkeep_pages(k->keep), 2);
}

static void test_without_a_keep_nothing_stays_mapped(void **state)
{
    struct kept_world *k = *state;
    struct gntmap_page page;
    assert_int_equal(gntmap_map(k->world.map, k->gref[0], true, &page), 0);
    gntmap_unmap(k->world.map, &page);
    assert_int_equal(gworld_flags(&k->world, k->gref[0]), GTF_permit_access);
    assert_int_equal(gntmap_mapped(k->world.map), 0);
}

static void test_a_copy_keeps_too(void **state)
{
    struct kept_world *k = *state;
    char text[6] = "";
    memcpy(gworld_guest_page(&k->world, GFN) + 10, "hello", 6);
    for (int i = 0; i < 2; i++)
        assert_int_equal(gntmap_copy_keeping(k->world.map, k->keep, k->gref[0], 10, text, 6, false), 0);
    assert_string_equal(text, "hello");
    assert_int_equal(gntmap_copy_keeping(k->world.map, k->keep, k->gref[0], 4090, text, 7, false), GRANT_E_RANGE);
    assert_int_equal(gntkeep_stats(k->keep).hits, 1);
    assert_true(is_kept(k, k->gref[0]));
}

static void test_one_reference_twice_in_flight_is_one_kept_page(void **state)
{
    struct kept_world *k = *state;
    struct gntmap_page a, b, c;
    for (int round = 0; round < 2; round++) {
        assert_int_equal(gntmap_map_keeping(k->world.map, k->keep, k->gref[0], false, &a), 0);
        assert_int_equal(gntmap_map_keeping(k->world.map, k->keep, k->gref[0], true, &b), 0);
        assert_int_equal(gntmap_map_keeping(k->world.map, k->keep, k->gref[0], true, &c), 0);
        assert_ptr_equal(a.address, b.address);
        assert_ptr_equal(a.address, c.address);
        assert_int_equal(gntmap_mapped(k->world.map), 4);
        assert_int_equal(gntkeep_pages(k->keep), 1);
        gntmap_unmap(k->world.map, &b);
        gntmap_unmap(k->world.map, &a);
        gntmap_unmap(k->world.map, &c);
    }
    assert_int_equal(gntmap_mapped(k->world.map), 1);
}

/* ---- access ---- */

static void test_kept_for_reading_is_asked_for_again_before_a_write(void **state)
{
    struct kept_world *k = *state;
    use(k, k->gref[0], false);
    assert_int_equal(gworld_flags(&k->world, k->gref[0]), GTF_permit_access | GTF_reading);
    unsigned char *address = use(k, k->gref[0], true);
    assert_int_equal(gworld_flags(&k->world, k->gref[0]), GTF_permit_access | GTF_reading | GTF_writing);
    gworld_write(&k->world, k->gref[0], GTF_invalid, 9, UINT32_MAX);
    assert_ptr_equal(use(k, k->gref[0], true), address); /* kept for writing from then on */
    assert_ptr_equal(use(k, k->gref[0], false), address);
    assert_int_equal(gntkeep_pages(k->keep), 1);
}

static void test_lesson_142_what_is_kept_for_reading_is_not_written(void **state)
{
    struct kept_world *k = *state;
    struct gntmap_page page;
    uint32_t granted_ro = gworld_grant(&k->world, GFN, true), shared_ro = gworld_grant(&k->world, GFN_RO, false);
    use(k, granted_ro, false);
    use(k, shared_ro, false);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(gntmap_map_keeping(k->world.map, k->keep, granted_ro, true, &page), GRANT_E_READONLY);
        assert_int_equal(gntmap_map_keeping(k->world.map, k->keep, shared_ro, true, &page), GRANT_E_READONLY);
    }
    assert_int_equal(gworld_flags(&k->world, granted_ro), GTF_permit_access | GTF_readonly | GTF_reading);
    assert_int_equal(gworld_flags(&k->world, shared_ro), GTF_permit_access | GTF_reading);
    use(k, granted_ro, false);
}

static void test_a_writer_without_a_keep_leaves_the_kept_reader_its_mark(void **state)
{
    struct kept_world *k = *state;
    struct gntmap_page page;
    use(k, k->gref[0], false);
    assert_int_equal(gntmap_map(k->world.map, k->gref[0], true, &page), 0); /* the keep writes from now on */
    gntmap_unmap(k->world.map, &page);
    assert_int_equal(gworld_flags(&k->world, k->gref[0]), GTF_permit_access | GTF_reading | GTF_writing);
    expire(k);
    assert_int_equal(gworld_flags(&k->world, k->gref[0]), GTF_permit_access);
}

/* ---- bounds ---- */

static void test_a_flood_of_references_is_bounded_and_each_is_served(void **state)
{
    struct kept_world *k = *state;
    for (unsigned round = 0; round < 20; round++)
        for (uint32_t i = 0; i < FRAMES; i++) {
            gntkeep_tick(k->keep, round / 4);
            unsigned char *address = use(k, k->gref[i], i % 2);
            assert_ptr_equal(address, gworld_host_page(&k->world, GFN + i));
            unsigned marked = 0;
            for (uint32_t j = 0; j < FRAMES; j++)
                marked += is_kept(k, k->gref[j]);
            assert_int_equal(marked, gntkeep_pages(k->keep));
            assert_true(marked <= PAGES);
            assert_int_equal(gntmap_mapped(k->world.map), marked);
        }
    struct gntkeep_stats s = gntkeep_stats(k->keep);
    assert_true(s.evictions > 0 && s.expiries == 0);
}

static void test_what_is_used_all_the_time_stays_and_what_is_not_gives_way(void **state)
{
    struct kept_world *k = *state;
    for (uint32_t i = 0; i < PAGES; i++)
        use(k, k->gref[i], true);
    uint64_t before = gntkeep_stats(k->keep).hits;
    for (uint32_t i = PAGES; i < FRAMES; i++) {
        use(k, k->gref[0], true); /* between any two that come once */
        use(k, k->gref[i], true);
    }
    assert_int_equal(gntkeep_stats(k->keep).hits - before, FRAMES - PAGES); /* gref[0] was never let go */
    assert_true(is_kept(k, k->gref[0]));
    assert_int_equal(gntkeep_pages(k->keep), PAGES);
    for (uint32_t i = 1; i < PAGES; i++)
        assert_false(is_kept(k, k->gref[i]));
}

static void test_a_keep_full_of_pages_in_use_keeps_no_more(void **state)
{
    struct kept_world *k = *state;
    struct gntmap_page page[PAGES], more;
    for (uint32_t i = 0; i < PAGES; i++)
        assert_int_equal(gntmap_map_keeping(k->world.map, k->keep, k->gref[i], true, &page[i]), 0);
    assert_int_equal(gntmap_map_keeping(k->world.map, k->keep, k->gref[PAGES], true, &more), 0);
    gntmap_unmap(k->world.map, &more);
    assert_false(is_kept(k, k->gref[PAGES]));
    for (uint32_t i = 0; i < PAGES; i++)
        gntmap_unmap(k->world.map, &page[i]);
    for (uint32_t i = 0; i < PAGES; i++)
        assert_true(is_kept(k, k->gref[i]));
    assert_int_equal(gntkeep_stats(k->keep).evictions, 0);
}

static void test_what_is_not_used_for_a_while_is_given_back(void **state)
{
    struct kept_world *k = *state;
    struct gntmap_page held;
    gntkeep_tick(k->keep, 70000); /* beyond 16 bits */
    use(k, k->gref[0], true);
    use(k, k->gref[1], true);
    assert_int_equal(gntmap_map_keeping(k->world.map, k->keep, k->gref[2], true, &held), 0);
    gntkeep_tick(k->keep, 70001);
    gntkeep_tick(k->keep, 70000 + GNTKEEP_IDLE_S - 1);
    assert_int_equal(gntkeep_pages(k->keep), 3);
    use(k, k->gref[1], true);
    gntkeep_tick(k->keep, 70000 + GNTKEEP_IDLE_S);
    assert_false(is_kept(k, k->gref[0]));
    assert_int_equal(gnttab_end(k->world.table, k->gref[0]), 0);
    assert_true(is_kept(k, k->gref[1]));
    assert_true(is_kept(k, k->gref[2])); /* a request is at it */
    gntmap_unmap(k->world.map, &held);
    gntkeep_tick(k->keep, 70000 + 2 * GNTKEEP_IDLE_S);
    assert_int_equal(gntkeep_pages(k->keep), 0);
    assert_int_equal(gntkeep_stats(k->keep).expiries, 3);
    assert_int_equal(gntmap_mapped(k->world.map), 0);
}

/* Nobody tells the time while nothing is kept. */
static void test_what_is_used_after_a_long_pause_is_not_old(void **state)
{
    struct kept_world *k = *state;
    for (uint64_t now_s = 5; now_s < 1000000; now_s += 250000) {
        use(k, k->gref[0], true);
        gntkeep_tick(k->keep, now_s);
        assert_true(is_kept(k, k->gref[0]));
        gntkeep_tick(k->keep, now_s + GNTKEEP_IDLE_S - 2);
        assert_true(is_kept(k, k->gref[0]));
        gntkeep_tick(k->keep, now_s + GNTKEEP_IDLE_S - 1);
        assert_false(is_kept(k, k->gref[0]));
    }
}

/* ---- what the granter does meanwhile ---- */

static void test_the_end_of_a_kept_grant_is_refused_until_it_is_given_back(void **state)
{
    struct kept_world *k = *state;
    use(k, k->gref[0], false);
    assert_int_equal(gnttab_end(k->world.table, k->gref[0]), -EBUSY);
    gntkeep_free(k->keep);
    k->keep = NULL;
    assert_int_equal(gnttab_end(k->world.table, k->gref[0]), 0);
}

static void test_lesson_155_an_entry_pointed_elsewhere_moves_no_kept_page(void **state)
{
    struct kept_world *k = *state;
    unsigned char *address = use(k, k->gref[0], true);
    gworld_write(&k->world, k->gref[0], GTF_permit_access, WORLD_HOST, GFN_B);
    assert_ptr_equal(use(k, k->gref[0], true), address);
    expire(k);
    address = use(k, k->gref[0], true);
    assert_ptr_equal(address, gworld_host_page(&k->world, GFN_B));
}

static void test_lesson_230_a_guest_that_clears_marks_unpins_nothing(void **state)
{
    struct kept_world *k = *state;
    unsigned char *address = use(k, k->gref[0], true);
    gworld_write(&k->world, k->gref[0], GTF_permit_access, WORLD_HOST, GFN);
    assert_int_equal(gnttab_end(k->world.table, k->gref[0]), 0); /* its own books only */
    k->world.extent[0].gone = true;
    frametable_revoke(k->world.frames, 1, 0);
    address[5] = 7; /* still here: it is pinned */
    assert_int_equal(frametable_extents(k->world.frames), 1);
    gntkeep_tick(k->keep, 0);
    assert_int_equal(frametable_extents(k->world.frames), 0);
}

static void test_memory_that_is_taken_back_goes_with_the_next_tick(void **state)
{
    struct kept_world *k = *state;
    struct gntmap_page page;
    use(k, k->gref[0], true);
    uint32_t other = gworld_grant(&k->world, GFN_B, false);
    use(k, other, true);
    k->world.extent[0].gone = true;
    frametable_revoke(k->world.frames, 1, 0);
    assert_int_equal(gntmap_map_keeping(k->world.map, k->keep, k->gref[0], true, &page), GRANT_E_REVOKED);
    gntkeep_tick(k->keep, 0);
    assert_null(k->world.extent[0].host);
    assert_int_equal(gnttab_end(k->world.table, k->gref[0]), 0);
    assert_true(is_kept(k, other));
}

static void test_lesson_350_a_dead_granters_pages_go_with_the_next_tick(void **state)
{
    struct kept_world *k = *state;
    struct gntmap_page held;
    use(k, k->gref[0], true);
    assert_int_equal(gntmap_map_keeping(k->world.map, k->keep, k->gref[1], true, &held), 0);
    gworld_instance_ends(&k->world, 1);
    gntmap_instance_gone(k->world.map, 1);
    gntkeep_tick(k->keep, 0);
    assert_int_equal(gntkeep_pages(k->keep), 0);
    held.address[0] = 1; /* a request was at it: until its end */
    gntmap_unmap(k->world.map, &held);
    assert_int_equal(frametable_extents(k->world.frames), 0);
    assert_null(k->world.frame[0].host);
}

/* ---- two keeps over one map: two disks of a domain ---- */

static void test_each_keep_gives_back_its_own(void **state)
{
    struct kept_world *k = *state;
    struct gntkeep *other;
    struct gntmap_page page;
    assert_int_equal(gntkeep_new(k->world.map, PAGES, &other), 0);
    use(k, k->gref[0], true);
    assert_int_equal(gntmap_map_keeping(k->world.map, other, k->gref[0], true, &page), 0); /* has the use of it */
    assert_int_equal(gntkeep_pages(other), 0);
    gntkeep_free(k->keep);
    assert_true(is_kept(k, k->gref[0])); /* a request is at it */
    gntmap_unmap(k->world.map, &page);
    assert_false(is_kept(k, k->gref[0]));
    k->keep = other;
    use(k, k->gref[0], true);
    assert_int_equal(gntkeep_pages(other), 1);
}

/* ---- two maps of one process: two reactors ---- */

struct two_maps {
    struct gntmarks *marks;
    struct frametable *frames;
    struct gntmap *map; /* the second; the first is the world's */
};

/* The world hands out everything once; the second reactor uses the guest's own mapping. */
static int second_extent(void *ctx, uint16_t domid, uint32_t gfn, struct frame_extent *out)
{
    struct kept_world *k = ctx;
    const struct world_extent *x = &k->world.extent[0];
    assert_true(gfn >= x->base_gfn && gfn - x->base_gfn < x->frame_count);
    *out = (struct frame_extent){.id = x->id,
                                 .instance = x->instance,
                                 .owner = domid,
                                 .base_gfn = x->base_gfn,
                                 .frame_count = x->frame_count,
                                 .address = x->guest};
    return 0;
}

static void second_extent_put(void *ctx, const struct frame_extent *extent)
{
    (void)ctx, (void)extent;
}

static int second_frame(void *ctx, uint16_t domid, uint32_t index, struct gntmap_frame *out)
{
    struct kept_world *k = ctx;
    (void)domid;
    *out = (struct gntmap_frame){
        .page = k->world.frame[index].guest, .instance = k->world.frame[index].instance, .left = k->world.left};
    return 0;
}

static void second_frame_put(void *ctx, uint16_t domid, uint32_t index, void *page)
{
    (void)ctx, (void)domid, (void)index, (void)page;
}

static void two_maps_open(struct kept_world *k, struct two_maps *t)
{
    static const struct frametable_ops frame_ops = {second_extent, second_extent_put};
    static const struct gntmap_ops map_ops = {second_frame, second_frame_put};
    assert_int_equal(gntmarks_new(&t->marks), 0);
    assert_int_equal(frametable_new(&frame_ops, k, WORLD_GUEST, &t->frames), 0);
    assert_int_equal(gntmap_new(&map_ops, k, WORLD_HOST, WORLD_GUEST, t->frames, &t->map), 0);
    gntmap_share(t->map, t->marks);
    gntmap_share(k->world.map, t->marks);
}

static void two_maps_close(struct kept_world *k, struct two_maps *t)
{
    gntkeep_free(k->keep);
    k->keep = NULL;
    gntmap_free(t->map);
    frametable_free(t->frames);
    gntmap_free(k->world.map);
    k->world.map = NULL;
    gntmarks_free(t->marks);
    assert_int_equal(gntmap_new(&gworld_gntmap_ops, &k->world, WORLD_HOST, WORLD_GUEST, k->world.frames, &k->world.map),
                     0);
}

static void test_a_mark_stays_until_the_last_map_of_the_process_lets_go(void **state)
{
    struct kept_world *k = *state;
    struct two_maps t;
    struct gntmap_page page;
    two_maps_open(k, &t);
    for (int write = 0; write < 2; write++) {
        uint32_t gref = k->gref[write], marks = write ? GTF_reading | GTF_writing : GTF_reading;
        use(k, gref, write); /* kept by one reactor */
        assert_int_equal(gntmap_map(t.map, gref, write, &page), 0);
        gntmap_unmap(t.map, &page); /* used by the other */
        assert_int_equal(gworld_flags(&k->world, gref), GTF_permit_access | marks);
        assert_int_equal(gntmap_map(t.map, gref, write, &page), 0);
        expire(k);
        assert_int_equal(gworld_flags(&k->world, gref), GTF_permit_access | marks);
        assert_int_equal(gnttab_end(k->world.table, gref), -EBUSY);
        gntmap_unmap(t.map, &page);
        assert_int_equal(gnttab_end(k->world.table, gref), 0);
    }
    use(k, k->gref[2], false); /* a reader here, a writer there */
    assert_int_equal(gntmap_map(t.map, k->gref[2], true, &page), 0);
    gntmap_unmap(t.map, &page);
    assert_int_equal(gworld_flags(&k->world, k->gref[2]), GTF_permit_access | GTF_reading);
    two_maps_close(k, &t);
}

static void test_a_failed_map_leaves_the_other_reactors_marks(void **state)
{
    struct kept_world *k = *state;
    struct two_maps t;
    struct gntmap_page page;
    two_maps_open(k, &t);
    use(k, k->gref[0], true);
    k->world.extent[1].gone = true;
    gworld_write(&k->world, k->gref[0], GTF_permit_access | GTF_reading | GTF_writing, WORLD_GUEST + 1, GFN);
    assert_int_equal(gntmap_map(t.map, k->gref[0], true, &page), GRANT_E_DOMAIN);
    assert_true(is_kept(k, k->gref[0]));
    gworld_write(&k->world, k->gref[0], GTF_permit_access | GTF_reading | GTF_writing, WORLD_HOST, GFN);
    k->world.left = 1;
    assert_int_equal(gntmap_map(t.map, k->gref[1], false, &page), 0); /* and is told that somebody died */
    gntmap_take_over(t.map);
    assert_int_equal(gworld_flags(&k->world, k->gref[0]), GTF_permit_access | GTF_reading | GTF_writing);
    assert_int_equal(gworld_flags(&k->world, k->gref[1]), GTF_permit_access | GTF_reading);
    gntmap_unmap(t.map, &page);
    k->world.left = 0;
    two_maps_close(k, &t);
}

/* ---- all of it at random, against a model ---- */

static void test_random_use_balances(void **state)
{
    struct kept_world *k = *state;
    struct gntmap_page page[24];
    bool taken[24] = {false};
    unsigned in_use = 0;
    uint64_t seed = 11, now_s = 0;
    for (unsigned i = 0; i < 200000; i++) {
        unsigned at = gworld_random(&seed) % 24;
        if (taken[at]) {
            gntmap_unmap(k->world.map, &page[at]);
            in_use--;
        } else {
            uint32_t n = gworld_random(&seed) % 20;
            bool write = gworld_random(&seed) % 2, keeps = gworld_random(&seed) % 4;
            assert_int_equal(gntmap_map_keeping(k->world.map, keeps ? k->keep : NULL, k->gref[n], write, &page[at]), 0);
            assert_ptr_equal(page[at].address, gworld_host_page(&k->world, GFN + n));
            assert_true(gworld_flags(&k->world, k->gref[n]) & (write ? GTF_writing : GTF_reading));
            in_use++;
        }
        taken[at] = !taken[at];
        if (gworld_random(&seed) % 100 == 0)
            gntkeep_tick(k->keep, now_s += gworld_random(&seed) % (2 * GNTKEEP_IDLE_S));
        assert_true(gntkeep_pages(k->keep) <= PAGES);
        if (i % 64 == 0)
            assert_int_equal(gntmap_mapped(k->world.map), in_use + gntkeep_pages(k->keep));
    }
    for (unsigned at = 0; at < 24; at++)
        if (taken[at])
            gntmap_unmap(k->world.map, &page[at]);
    gntkeep_tick(k->keep, now_s + 1);
    gntkeep_tick(k->keep, now_s + 1 + GNTKEEP_IDLE_S);
    for (uint32_t i = 0; i < FRAMES; i++)
        assert_int_equal(gworld_flags(&k->world, k->gref[i]), GTF_permit_access);
}

#define KEPT_TEST(test) cmocka_unit_test_setup_teardown(test, world_setup, world_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        KEPT_TEST(test_a_second_map_neither_reads_nor_writes_the_entry),
        KEPT_TEST(test_without_a_keep_nothing_stays_mapped),
        KEPT_TEST(test_a_copy_keeps_too),
        KEPT_TEST(test_one_reference_twice_in_flight_is_one_kept_page),
        KEPT_TEST(test_kept_for_reading_is_asked_for_again_before_a_write),
        KEPT_TEST(test_lesson_142_what_is_kept_for_reading_is_not_written),
        KEPT_TEST(test_a_writer_without_a_keep_leaves_the_kept_reader_its_mark),
        KEPT_TEST(test_a_flood_of_references_is_bounded_and_each_is_served),
        KEPT_TEST(test_what_is_used_all_the_time_stays_and_what_is_not_gives_way),
        KEPT_TEST(test_a_keep_full_of_pages_in_use_keeps_no_more),
        KEPT_TEST(test_what_is_not_used_for_a_while_is_given_back),
        KEPT_TEST(test_what_is_used_after_a_long_pause_is_not_old),
        KEPT_TEST(test_the_end_of_a_kept_grant_is_refused_until_it_is_given_back),
        KEPT_TEST(test_lesson_155_an_entry_pointed_elsewhere_moves_no_kept_page),
        KEPT_TEST(test_lesson_230_a_guest_that_clears_marks_unpins_nothing),
        KEPT_TEST(test_memory_that_is_taken_back_goes_with_the_next_tick),
        KEPT_TEST(test_lesson_350_a_dead_granters_pages_go_with_the_next_tick),
        KEPT_TEST(test_each_keep_gives_back_its_own),
        KEPT_TEST(test_a_mark_stays_until_the_last_map_of_the_process_lets_go),
        KEPT_TEST(test_a_failed_map_leaves_the_other_reactors_marks),
        KEPT_TEST(test_random_use_balances),
    };
    return cmocka_run_group_tests_name("gntkeep", tests, NULL, NULL);
}
