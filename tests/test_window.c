/* SPDX-License-Identifier: MIT */
/* Grants that lie anywhere, seen as one piece of memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "grant/window.h"
#include "tests/grant_world.h"

#define PAGES 16
#define GFN   0x100 /* sixteen frames */
#define FAR   0x800 /* sixteen more, in another extent */

struct fixture {
    struct grant_world world;
    struct gntmap_page page[PAGES];
    struct grant_window window;
};

static void open_window(struct fixture *f, const uint32_t *gfn, unsigned count)
{
    uint32_t gref[PAGES];
    for (unsigned i = 0; i < count; i++)
        gref[i] = gworld_grant(&f->world, gfn[i], false);
    assert_int_equal(gntmap_map_many(f->world.map, gref, count, true, f->page, NULL), 0);
    assert_int_equal(grant_window_open(&f->window, f->page, count, NULL), 0);
    assert_int_equal(f->window.bytes, count * PAGE_BYTES);
}

static void close_window(struct fixture *f, unsigned count)
{
    grant_window_close(&f->window);
    assert_null(f->window.address);
    grant_window_close(&f->window);
    for (unsigned i = 0; i < count; i++)
        gntmap_unmap(f->world.map, &f->page[i]);
}

static struct fixture *fixture_new(void)
{
    struct fixture *f = calloc(1, sizeof(*f));
    gworld_open(&f->world);
    gworld_share(&f->world, GFN, PAGES, false);
    gworld_share(&f->world, FAR, PAGES, false);
    return f;
}

static void fixture_free(struct fixture *f)
{
    gworld_close(&f->world);
    free(f);
}

/* Both ways, across the borders of pages. */
static void check_bytes(struct fixture *f, const uint32_t *gfn, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        memset(gworld_guest_page(&f->world, gfn[i]), (int)(0x40 + i), PAGE_BYTES);
    for (unsigned i = 0; i < count; i++) {
        unsigned char *at = f->window.address + i * PAGE_BYTES;
        assert_true(at[0] == 0x40 + i && at[PAGE_BYTES - 1] == 0x40 + i);
    }
    for (unsigned i = 1; i < count; i++) {
        memset(f->window.address + i * PAGE_BYTES - 54, (int)i, 108);
        assert_int_equal(gworld_guest_page(&f->world, gfn[i - 1])[PAGE_BYTES - 1], i);
        assert_int_equal(gworld_guest_page(&f->world, gfn[i])[53], i);
    }
}

static void test_adjacent_pages_are_taken_as_they_lie(void **state)
{
    (void)state;
    for (unsigned count = 1; count <= PAGES; count *= 2) {
        struct fixture *f = fixture_new();
        uint32_t gfn[PAGES];
        for (unsigned i = 0; i < count; i++)
            gfn[i] = GFN + i;
        open_window(f, gfn, count);
        assert_ptr_equal(f->window.address, f->page[0].address);
        check_bytes(f, gfn, count);
        close_window(f, count);
        fixture_free(f);
    }
}

static void test_pages_from_anywhere_come_in_the_order_of_their_references(void **state)
{
    (void)state;
    for (unsigned count = 2; count <= PAGES; count *= 2) {
        struct fixture *f = fixture_new();
        uint32_t gfn[PAGES];
        for (unsigned i = 0; i < count; i++)
            gfn[i] = (i % 2 ? GFN : FAR) + (i * 5 + 3) % PAGES;
        open_window(f, gfn, count);
        check_bytes(f, gfn, count);
        close_window(f, count);
        for (unsigned i = 0; i < count; i++) /* the pages' own mappings are untouched */
            assert_int_equal(gworld_guest_page(&f->world, gfn[i])[PAGE_BYTES / 2], 0x40 + i);
        fixture_free(f);
    }
}

static void test_one_page_named_twice_is_twice_in_the_window(void **state)
{
    (void)state;
    struct fixture *f = fixture_new();
    const uint32_t gfn[] = {GFN + 3, GFN + 3};
    open_window(f, gfn, 2);
    f->window.address[17] = 99;
    assert_int_equal(f->window.address[PAGE_BYTES + 17], 99);
    close_window(f, 2);
    fixture_free(f);
}

/* What the kernel will not map twice is told, and nothing is left. Private memory stands for such memory. */
static void test_a_refusal_names_its_remedy(void **state)
{
    (void)state;
    static unsigned char private[4 * PAGE_BYTES] __attribute__((aligned(4096)));
    struct gntmap_page page[2] = {{.address = private + 2 * PAGE_BYTES}, {.address = private}};
    struct grant_window w;
    struct err e = {0};
    assert_true(grant_window_open(&w, page, 2, &e) < 0);
    assert_non_null(strstr(e.text, "ring-page-order 0"));
    grant_window_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adjacent_pages_are_taken_as_they_lie),
        cmocka_unit_test(test_pages_from_anywhere_come_in_the_order_of_their_references),
        cmocka_unit_test(test_one_page_named_twice_is_twice_in_the_window),
        cmocka_unit_test(test_a_refusal_names_its_remedy),
    };
    return cmocka_run_group_tests_name("window", tests, NULL, NULL);
}
