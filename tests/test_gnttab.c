/* SPDX-License-Identifier: MIT */
/* The granting side: what is published, when a grant ends, and how little a grantee that writes the table can do. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "grant/gnttab.h"
#include "tests/grant_world.h"

#define GFN          0x100
#define TABLE_GRANTS (GNTTAB_FRAMES_MAX * GRANT_PER_FRAME - GNTTAB_NR_RESERVED_ENTRIES)

static int setup(void **state)
{
    struct grant_world *w = malloc(sizeof(*w));
    gworld_open(w);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    gworld_close(*state);
    free(*state);
    return 0;
}

static void test_entries_are_published_as_xen_lays_them_out(void **state)
{
    struct grant_world *w = *state;
    uint32_t rw = gworld_grant(w, 0x12345678, false), ro = gworld_grant(w, 7, true);
    struct grant_entry_v1 *e = gworld_entry(w, rw);
    assert_int_equal(e->flags, GTF_permit_access);
    assert_int_equal(e->domid, WORLD_HOST);
    assert_int_equal(e->frame, 0x12345678);
    assert_int_equal(gworld_entry(w, ro)->flags, GTF_permit_access | GTF_readonly);
    uint32_t other;
    assert_int_equal(gnttab_grant(w->table, 0x7fef, 9, false, &other, NULL), 0);
    assert_int_equal(gworld_entry(w, other)->domid, 0x7fef);
    assert_int_equal(gnttab_in_use(w->table), 3);
}

static void test_reserved_references_are_never_given(void **state)
{
    struct grant_world *w = *state;
    for (unsigned i = 0; i < 2 * GRANT_PER_FRAME; i++)
        assert_true(gworld_grant(w, i, false) >= GNTTAB_NR_RESERVED_ENTRIES);
    for (unsigned i = 0; i < GNTTAB_NR_RESERVED_ENTRIES; i++)
        assert_int_equal(grant_word_load(gworld_entry(w, i)), 0);
}

static void test_a_reserved_reference_is_granted_by_its_name_and_comes_back(void **state)
{
    struct grant_world *w = *state;
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(gnttab_grant_reserved(w->table, GNTTAB_RESERVED_XENSTORE, WORLD_HOST, 5, false, NULL), 0);
        struct grant_entry_v1 *entry = gworld_entry(w, GNTTAB_RESERVED_XENSTORE);
        assert_int_equal(entry->flags, GTF_permit_access);
        assert_int_equal(entry->domid, WORLD_HOST);
        assert_int_equal(entry->frame, 5);
        assert_int_equal(gnttab_in_use(w->table), 1);
        struct err e = {0};
        assert_int_equal(gnttab_grant_reserved(w->table, GNTTAB_RESERVED_XENSTORE, WORLD_HOST, 6, false, &e), -EBUSY);
        assert_non_null(strstr(e.text, "granted already"));
        assert_true(gworld_grant(w, 7, false) >= GNTTAB_NR_RESERVED_ENTRIES);
        __atomic_fetch_or(grant_word(entry), GTF_reading, __ATOMIC_RELAXED);
        assert_int_equal(gnttab_end(w->table, GNTTAB_RESERVED_XENSTORE), -EBUSY);
        __atomic_fetch_and(grant_word(entry), ~(uint32_t)GTF_reading, __ATOMIC_RELAXED);
        assert_int_equal(gnttab_end(w->table, GNTTAB_RESERVED_XENSTORE), 0);
        assert_int_equal(grant_word_load(entry), 0);
        assert_int_equal(gnttab_end(w->table, GNTTAB_NR_RESERVED_ENTRIES), 0);
    }
    assert_int_equal(w->frame_count, 1);
}

static void test_a_reserved_reference_is_mapped_by_its_name_alone(void **state)
{
    struct grant_world *w = *state;
    struct gntmap_page page;
    gworld_share(w, GFN, 1, false);
    assert_int_equal(gntmap_map_reserved(w->map, GNTTAB_RESERVED_XENSTORE, true, &page),
                     GRANT_E_BAD_REF); /* no table */
    assert_int_equal(gnttab_grant_reserved(w->table, GNTTAB_RESERVED_XENSTORE, WORLD_HOST, GFN, false, NULL), 0);
    assert_int_equal(gntmap_map_reserved(w->map, GNTTAB_RESERVED_CONSOLE, true, &page), GRANT_E_TYPE);
    assert_int_equal(gntmap_map(w->map, GNTTAB_RESERVED_XENSTORE, true, &page), GRANT_E_BAD_REF);
    assert_int_equal(gntmap_map_reserved(w->map, GNTTAB_RESERVED_XENSTORE, true, &page), 0);
    page.address[5] = 77;
    assert_int_equal(gworld_guest_page(w, GFN)[5], 77);
    assert_int_equal(gnttab_end(w->table, GNTTAB_RESERVED_XENSTORE), -EBUSY);
    gntmap_unmap(w->map, &page);
    assert_int_equal(gnttab_end(w->table, GNTTAB_RESERVED_XENSTORE), 0);
}

static void test_a_reserved_reference_needs_the_first_frame(void **state)
{
    struct grant_world *w = *state;
    uint32_t gref;
    struct err e = {0};
    assert_int_equal(gnttab_grant(w->table, WORLD_GUEST + 1, 9, false, &gref, NULL), 0);
    assert_int_equal(gnttab_grant_reserved(w->table, GNTTAB_RESERVED_XENSTORE, WORLD_HOST, 5, false, &e), -EBUSY);
    assert_non_null(strstr(e.text, "before anything else"));
    assert_int_equal(gnttab_grant_reserved(w->table, GNTTAB_RESERVED_CONSOLE, WORLD_GUEST + 1, 5, false, &e), 0);
    assert_int_equal(gnttab_end(w->table, GNTTAB_RESERVED_CONSOLE), 0);
}

static void test_a_reserved_reference_is_not_the_second_process_s(void **state)
{
    struct grant_world *w = *state;
    struct err e = {0};
    gworld_frame_new(w, WORLD_HOST); /* which another process took */
    assert_int_equal(gnttab_grant_reserved(w->table, GNTTAB_RESERVED_XENSTORE, WORLD_HOST, 5, false, &e), -EBUSY);
    assert_non_null(strstr(e.text, "another process"));
    assert_int_equal(gnttab_in_use(w->table), 0);
}

static void test_lesson_403_a_frame_of_the_table_serves_one_grantee(void **state)
{
    struct grant_world *w = *state;
    for (unsigned i = 0; i < 2000; i++) {
        uint16_t grantee = (uint16_t)(i % 3);
        uint32_t gref;
        assert_int_equal(gnttab_grant(w->table, grantee, i, false, &gref, NULL), 0);
        assert_int_equal(w->frame[gref / GRANT_PER_FRAME].grantee, grantee);
    }
    assert_int_equal(w->frame_count, 6); /* 667 each: two frames each, and no more */
}

static void test_lesson_396_end_is_refused_while_mapped_and_the_grant_stays(void **state)
{
    struct grant_world *w = *state;
    static const uint32_t marks[] = {GTF_reading, GTF_writing, GTF_reading | GTF_writing};
    for (size_t i = 0; i < ARRAY_SIZE(marks); i++) {
        uint32_t gref = gworld_grant(w, 5, false);
        uint32_t *word = grant_word(gworld_entry(w, gref)), published = *word;
        __atomic_fetch_or(word, marks[i], __ATOMIC_RELAXED);
        assert_int_equal(gnttab_end(w->table, gref), -EBUSY);
        assert_int_equal(*word, published | marks[i]);
        assert_int_equal(gnttab_in_use(w->table), 1);
        uint32_t second = gworld_grant(w, 6, false);
        assert_int_not_equal(second, gref);
        assert_int_equal(gnttab_end(w->table, second), 0);
        __atomic_fetch_and(word, ~marks[i], __ATOMIC_RELAXED);
        assert_int_equal(gnttab_end(w->table, gref), 0);
        assert_int_equal(*word, 0);
        assert_int_equal(gnttab_in_use(w->table), 0);
    }
}

static void test_full_table_is_an_early_named_error(void **state)
{
    struct grant_world *w = *state;
    static uint8_t seen[GNTTAB_FRAMES_MAX * GRANT_PER_FRAME];
    memset(seen, 0, sizeof(seen));
    for (unsigned i = 0; i < TABLE_GRANTS; i++) {
        uint32_t gref = gworld_grant(w, i, false);
        assert_int_equal(seen[gref]++, 0);
    }
    uint32_t gref = 4711;
    struct err e = {0};
    assert_int_equal(gnttab_grant(w->table, WORLD_HOST, 0, false, &gref, &e), -ENOSPC);
    assert_non_null(strstr(e.text, "full"));
    assert_int_equal(gref, 4711);
    assert_int_equal(gnttab_end(w->table, 20000), 0);
    assert_int_equal(gworld_grant(w, 1, false), 20000); /* the one free reference is found again */
    assert_int_equal(gnttab_in_use(w->table), TABLE_GRANTS);
}

static void test_refused_frame_is_forwarded_with_its_sentence(void **state)
{
    struct grant_world *w = *state;
    uint32_t gref;
    struct err e = {0};
    w->refuse = -EDQUOT;
    assert_int_equal(gnttab_grant(w->table, WORLD_HOST, 0, false, &gref, &e), -EDQUOT);
    assert_non_null(strstr(e.text, "refuses"));
    assert_int_equal(gnttab_in_use(w->table), 0);
    w->refuse = 0;
    assert_int_equal(gnttab_grant(w->table, WORLD_HOST, 0, false, &gref, &e), 0);
}

static uint32_t odd_index;
static struct grant_entry_v1 odd_page[GRANT_PER_FRAME];

static int odd_frame_new(void *ctx, uint16_t grantee, uint32_t *index, void **page, struct err *e)
{
    (void)ctx, (void)grantee, (void)e;
    *index = odd_index;
    *page = odd_page;
    return 0;
}

static void test_frame_index_outside_the_table_or_in_use_is_refused(void **state)
{
    (void)state;
    static const struct gnttab_ops ops = {odd_frame_new};
    struct gnttab *t;
    uint32_t gref;
    assert_int_equal(gnttab_new(&ops, NULL, &t), 0);
    odd_index = GNTTAB_FRAMES_MAX;
    assert_int_equal(gnttab_grant(t, 1, 0, false, &gref, NULL), -EPROTO);
    odd_index = GNTTAB_FRAMES_MAX - 1; /* the domain's other instances have the ones below */
    assert_int_equal(gnttab_grant(t, 1, 0, false, &gref, NULL), 0);
    assert_int_equal(gref / GRANT_PER_FRAME, GNTTAB_FRAMES_MAX - 1);
    struct err e = {0};
    assert_int_equal(gnttab_grant(t, 2, 0, false, &gref, &e), -EPROTO);
    assert_non_null(strstr(e.text, "in use"));
    gnttab_free(t);
}

/* The grantee fills the whole frame with what it likes: our references stay distinct, and each end answers. */
static void test_scribbling_grantee_costs_nothing_but_ends(void **state)
{
    struct grant_world *w = *state;
    static uint32_t grefs[300];
    uint64_t seed = 4;
    for (unsigned i = 0; i < ARRAY_SIZE(grefs); i++)
        grefs[i] = gworld_grant(w, i, false);
    for (unsigned i = 0; i < GRANT_PER_FRAME; i++)
        gworld_write(w, i, gworld_random(&seed) & 0xffff, (uint16_t)gworld_random(&seed), gworld_random(&seed));
    unsigned ended = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(grefs); i++) {
        uint16_t flags = gworld_flags(w, grefs[i]);
        bool marked = flags & (GTF_reading | GTF_writing);
        assert_int_equal(gnttab_end(w->table, grefs[i]), marked ? -EBUSY : 0);
        ended += !marked;
    }
    assert_int_equal(gnttab_in_use(w->table), ARRAY_SIZE(grefs) - ended);
    uint32_t gref = gworld_grant(w, 99, true); /* over whatever the grantee left there */
    assert_int_equal(gworld_flags(w, gref), GTF_permit_access | GTF_readonly);
    assert_int_equal(gworld_entry(w, gref)->frame, 99);
}

/* ---- random grants and ends against a set ---- */

static void test_random_grants_equal_the_model(void **state)
{
    struct grant_world *w = *state;
    static uint32_t held[1500];
    static bool in_use[GNTTAB_FRAMES_MAX * GRANT_PER_FRAME];
    memset(in_use, 0, sizeof(in_use));
    unsigned count = 0;
    uint64_t seed = 9;
    for (int step = 0; step < 60000; step++) {
        if (count < ARRAY_SIZE(held) && gworld_random(&seed) % 100 < 52) {
            uint32_t gref, gfn = gworld_random(&seed);
            uint16_t grantee = (uint16_t)(gworld_random(&seed) % 2);
            assert_int_equal(gnttab_grant(w->table, grantee, gfn, false, &gref, NULL), 0);
            assert_false(in_use[gref]);
            assert_int_equal(gworld_entry(w, gref)->frame, gfn);
            in_use[gref] = true;
            held[count++] = gref;
        } else if (count) {
            unsigned i = gworld_random(&seed) % count;
            assert_int_equal(gnttab_end(w->table, held[i]), 0);
            assert_int_equal(gworld_flags(w, held[i]), 0);
            in_use[held[i]] = false;
            held[i] = held[--count];
        }
        assert_int_equal(gnttab_in_use(w->table), count);
    }
    assert_true(w->frame_count <= 5); /* references are used again */
}

/* ---- a grantee that writes all the time ---- */

struct scribbler {
    unsigned char *page;
    bool stop;
};

static void *scribble(void *arg)
{
    struct scribbler *s = arg;
    struct grant_entry_v1 *entries = (struct grant_entry_v1 *)s->page;
    uint64_t seed = 77;
    while (!__atomic_load_n(&s->stop, __ATOMIC_RELAXED)) {
        struct grant_entry_v1 *e = &entries[gworld_random(&seed) % 16];
        __atomic_store_n(grant_word(e),
                         gworld_random(&seed) & ~(gworld_random(&seed) % 2 ? 0u : GTF_reading | GTF_writing),
                         __ATOMIC_RELAXED);
    }
    return NULL;
}

static void test_racing_grantee_cannot_hang_an_end_or_double_a_reference(void **state)
{
    struct grant_world *w = *state;
    uint32_t held[8];
    unsigned ended = 0, busy = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(held); i++)
        held[i] = gworld_grant(w, i, false);
    struct scribbler s = {.page = w->frame[0].guest};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, scribble, &s), 0);
    for (unsigned step = 0; step < 100000; step++) {
        unsigned i = step % ARRAY_SIZE(held);
        if (gnttab_end(w->table, held[i]) == 0) {
            ended++;
            held[i] = gworld_grant(w, i, false);
            for (unsigned k = 0; k < ARRAY_SIZE(held); k++)
                assert_true(k == i || held[k] != held[i]);
        } else {
            busy++;
        }
    }
    __atomic_store_n(&s.stop, true, __ATOMIC_RELAXED);
    pthread_join(thread, NULL);
    assert_int_equal(ended + busy, 100000);
    assert_int_equal(gnttab_in_use(w->table), ARRAY_SIZE(held));
    for (unsigned i = 0; i < ARRAY_SIZE(held); i++) { /* left alone, the grantee gives all back */
        gworld_write(w, held[i], 0, 0, 0);
        assert_int_equal(gnttab_end(w->table, held[i]), 0);
    }
}

#define WORLD_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_entries_are_published_as_xen_lays_them_out),
        WORLD_TEST(test_reserved_references_are_never_given),
        WORLD_TEST(test_a_reserved_reference_is_granted_by_its_name_and_comes_back),
        WORLD_TEST(test_a_reserved_reference_is_mapped_by_its_name_alone),
        WORLD_TEST(test_a_reserved_reference_needs_the_first_frame),
        WORLD_TEST(test_a_reserved_reference_is_not_the_second_process_s),
        WORLD_TEST(test_lesson_403_a_frame_of_the_table_serves_one_grantee),
        WORLD_TEST(test_lesson_396_end_is_refused_while_mapped_and_the_grant_stays),
        WORLD_TEST(test_full_table_is_an_early_named_error),
        WORLD_TEST(test_refused_frame_is_forwarded_with_its_sentence),
        cmocka_unit_test(test_frame_index_outside_the_table_or_in_use_is_refused),
        WORLD_TEST(test_scribbling_grantee_costs_nothing_but_ends),
        WORLD_TEST(test_random_grants_equal_the_model),
        WORLD_TEST(test_racing_grantee_cannot_hang_an_end_or_double_a_reference),
    };
    return cmocka_run_group_tests_name("gnttab", tests, NULL, NULL);
}
