/* SPDX-License-Identifier: MIT */
/* The frame table: hostile frame numbers find nothing, what is pinned stays, everything goes back exactly once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "grant/frametable.h"
#include "tests/grant_world.h"

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

static int pin(struct grant_world *w, uint32_t gfn, bool write, struct frame_extent **x)
{
    unsigned char *address = NULL;
    int r = frametable_pin(w->frames, gfn, write, x, &address);
    if (r == 0)
        assert_ptr_equal(address, gworld_host_page(w, gfn));
    return r;
}

static void test_frame_numbers_find_exactly_their_extent(void **state)
{
    struct grant_world *w = *state;
    /* Shared out of order; the first frame of all, neighbours without a gap, the last of all. */
    gworld_share(w, 0x100, 4, false);
    gworld_share(w, 0, 1, false);
    gworld_share(w, 0x104, 2, false);
    gworld_share(w, UINT32_MAX, 1, false);
    gworld_share(w, 0x80, 8, false);
    static const uint32_t edges[] = {0,     1,     0x7f,  0x80,  0x87,       0x88,           0xff,
                                     0x100, 0x103, 0x104, 0x105, UINT32_MAX, UINT32_MAX - 1, 0x106};
    for (int round = 0; round < 2; round++) /* unknown, then known */
        for (size_t i = 0; i < ARRAY_SIZE(edges); i++) {
            struct frame_extent *x;
            if (!gworld_guest_page(w, edges[i])) {
                assert_int_equal(pin(w, edges[i], true, &x), -ENOENT);
                continue;
            }
            assert_int_equal(pin(w, edges[i], true, &x), 0);
            frametable_unpin(w->frames, x, edges[i]);
        }
    assert_int_equal(frametable_extents(w->frames), 5);
    for (uint32_t i = 1; i < 5; i++)
        assert_true(frametable_extent(w->frames, i - 1)->base_gfn < frametable_extent(w->frames, i)->base_gfn);
}

static void test_known_extents_cost_no_lookup(void **state)
{
    struct grant_world *w = *state;
    gworld_share(w, 0x100, 4, false);
    gworld_share(w, 0x200, 4, false);
    for (int i = 0; i < 10; i++) {
        struct frame_extent *x, *y;
        assert_int_equal(pin(w, 0x100 + (uint32_t)i % 4, true, &x), 0);
        assert_int_equal(pin(w, 0x203, false, &y), 0);
        frametable_unpin(w->frames, x, 0x100 + (uint32_t)i % 4);
        frametable_unpin(w->frames, y, 0x203);
    }
    assert_int_equal(w->lookups, 2);
    assert_int_equal(frametable_pinned(w->frames), 0);
}

static void test_lesson_266_readonly_extent_is_never_pinned_for_writing(void **state)
{
    struct grant_world *w = *state;
    gworld_share(w, 0x100, 4, true);
    struct frame_extent *x;
    assert_int_equal(pin(w, 0x101, true, &x), -EROFS);
    assert_int_equal(frametable_pinned(w->frames), 0);
    assert_int_equal(pin(w, 0x101, false, &x), 0);
    assert_int_equal(pin(w, 0x101, true, &x), -EROFS);
    frametable_unpin(w->frames, x, 0x101);
}

static void test_refused_lookups_are_forwarded_and_hold_nothing(void **state)
{
    struct grant_world *w = *state;
    gworld_share(w, 0x100, 4, false);
    static const int refusals[] = {-ENOENT, -EACCES, -EMFILE, -EPIPE};
    for (size_t i = 0; i < ARRAY_SIZE(refusals); i++) {
        struct frame_extent *x;
        w->refuse = refusals[i];
        assert_int_equal(pin(w, 0x100, false, &x), refusals[i]);
        assert_int_equal(frametable_extents(w->frames), 0);
    }
    w->refuse = 0;
    struct frame_extent *x;
    assert_int_equal(pin(w, 0x100, false, &x), 0);
    frametable_unpin(w->frames, x, 0x100);
}

static void test_lesson_236_pins_do_not_wrap(void **state)
{
    struct grant_world *w = *state;
    gworld_share(w, 0x100, 4, false);
    struct frame_extent *x;
    assert_int_equal(pin(w, 0x100, false, &x), 0);
    x->pinned = UINT32_MAX; /* four milliards of pins, shortened */
    assert_int_equal(pin(w, 0x101, false, &x), -EOVERFLOW);
    assert_int_equal(x->pins[1], 0);
    assert_int_equal(frametable_pinned(w->frames), 1);
    x->pinned = 1;
    frametable_unpin(w->frames, x, 0x100);
}

static void test_lesson_350_revoked_extent_stays_until_its_last_unpin(void **state)
{
    struct grant_world *w = *state;
    struct world_extent *given = gworld_share(w, 0x100, 4, false);
    struct frame_extent *x, *y;
    assert_int_equal(pin(w, 0x100, true, &x), 0);
    assert_int_equal(pin(w, 0x103, false, &y), 0);
    given->gone = true;
    frametable_revoke(w->frames, given->id, 0);
    assert_int_equal(pin(w, 0x101, false, &y), -ESTALE);
    assert_int_equal(pin(w, 0x100, false, &y), -ESTALE);
    x->address[0] = 42;
    assert_int_equal(given->guest[0], 42);
    frametable_unpin(w->frames, x, 0x100);
    assert_non_null(given->host);
    frametable_revoke(w->frames, given->id, 0); /* repeated: harmless */
    frametable_unpin(w->frames, x, 0x103);
    assert_null(given->host);
    assert_int_equal(frametable_extents(w->frames), 0);
    assert_int_equal(pin(w, 0x100, false, &x), -ENOENT);
}

static void test_revoke_picks_by_id_or_by_instance(void **state)
{
    struct grant_world *w = *state;
    struct world_extent *a = gworld_share(w, 0x100, 1, false), *b = gworld_share(w, 0x101, 1, false);
    w->instance = 2;
    struct world_extent *c = gworld_share(w, 0x102, 1, false);
    for (uint32_t gfn = 0x100; gfn < 0x103; gfn++) {
        struct frame_extent *x;
        assert_int_equal(pin(w, gfn, true, &x), 0);
        frametable_unpin(w->frames, x, gfn);
    }
    frametable_revoke(w->frames, b->id, 0);
    assert_true(a->host && !b->host && c->host);
    frametable_revoke(w->frames, 0, 1);
    assert_true(!a->host && c->host);
    frametable_revoke(w->frames, 77, 2); /* no such extent: the instance does not matter beside an id */
    assert_non_null(c->host);
}

/* ---- what the hypervisor says is checked, too ---- */

static struct frame_extent said;
static unsigned said_puts;

static int said_get(void *ctx, uint16_t domid, uint32_t gfn, struct frame_extent *out)
{
    (void)ctx, (void)domid, (void)gfn;
    *out = said;
    return 0;
}

static void said_put(void *ctx, const struct frame_extent *extent)
{
    (void)ctx, (void)extent;
    said_puts++;
}

static void test_impossible_extents_are_given_back(void **state)
{
    (void)state;
    static const struct frametable_ops ops = {said_get, said_put};
    static unsigned char memory[PAGE_BYTES];
    struct frametable *t;
    assert_int_equal(frametable_new(&ops, NULL, WORLD_GUEST, &t), 0);
    const struct frame_extent good = {
        .id = 1, .owner = WORLD_GUEST, .base_gfn = 10, .frame_count = 1, .address = memory};
    struct frame_extent *x;
    unsigned char *address;
    said = good;
    assert_int_equal(frametable_pin(t, 10, true, &x, &address), 0);

    struct frame_extent bad[6];
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        bad[i] = good;
        bad[i].base_gfn = 20;
    }
    bad[0].owner = WORLD_GUEST + 1;
    bad[1].address = NULL;
    bad[2].frame_count = 0;
    bad[3].base_gfn = 21;                         /* does not hold what was asked for */
    bad[4].base_gfn = 5, bad[4].frame_count = 16; /* covers a known one */
    bad[5].frame_count = UINT32_MAX;              /* leaves the space of frame numbers */
    said_puts = 0;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        said = bad[i];
        assert_int_equal(frametable_pin(t, 20, true, &x, &address), -EPROTO);
        assert_int_equal(said_puts, i + 1);
    }
    said = good;
    said.base_gfn = 9, said.frame_count = 2; /* begins below and ends within */
    assert_int_equal(frametable_pin(t, 9, true, &x, &address), -EPROTO);
    said.base_gfn = 10; /* begins within and ends above */
    assert_int_equal(frametable_pin(t, 11, true, &x, &address), -EPROTO);
    assert_int_equal(frametable_extents(t), 1);
    frametable_unpin(t, (struct frame_extent *)frametable_extent(t, 0), 10);
    frametable_free(t);
    assert_int_equal(said_puts, ARRAY_SIZE(bad) + 3);
}

/* ---- the release listener ---- */

static void note_release(void *ctx, struct frame_extent *extent)
{
    unsigned *released = ctx;
    assert_int_equal(extent->pinned, 0);
    released[extent->id]++;
}

static void test_listener_hears_of_each_extent_once_and_before_it_goes(void **state)
{
    struct grant_world *w = *state;
    unsigned released[4] = {0};
    for (uint32_t i = 0; i < 3; i++) {
        struct frame_extent *x;
        gworld_share(w, 0x100 * i, 4, false);
        assert_int_equal(pin(w, 0x100 * i, true, &x), 0);
        frametable_unpin(w->frames, x, 0x100 * i);
    }
    frametable_on_release(w->frames, note_release, released);
    frametable_on_release(w->frames, note_release, released); /* a second device */
    frametable_revoke(w->frames, 2, 0);
    assert_int_equal(released[2], 1);
    frametable_off_release(w->frames, note_release, released);
    assert_int_equal(released[1] + released[3], 0); /* one device is left */
    frametable_off_release(w->frames, note_release, released);
    assert_int_equal(released[1], 1);
    assert_int_equal(released[2], 1);
    assert_int_equal(released[3], 1);
    frametable_revoke(w->frames, 0, 1);
    assert_int_equal(released[1] + released[3], 2); /* forgotten: not told again */
}

/* ---- all of it against the naive model ---- */

struct held {
    struct frame_extent *x;
    uint32_t gfn;
};

static void test_random_pins_equal_the_model(void **state)
{
    struct grant_world *w = *state;
    uint64_t seed = 20;
    uint32_t base = 0;
    while (w->extent_count < WORLD_EXTENTS_MAX) {
        base += gworld_random(&seed) % 3;
        uint32_t count = 1 + gworld_random(&seed) % 4;
        gworld_share(w, base, count, gworld_random(&seed) % 4 == 0);
        base += count;
    }
    static struct held held[256];
    unsigned count = 0;
    for (int step = 0; step < 20000; step++) {
        uint32_t what = gworld_random(&seed) % 100, gfn = gworld_random(&seed) % (base + 4);
        struct frame_extent *x = NULL;
        if (what == 0) {
            uint32_t id = 1 + gworld_random(&seed) % WORLD_EXTENTS_MAX;
            w->extent[id - 1].gone = true;
            frametable_revoke(w->frames, id, 0);
        } else if (what < 55 && count < ARRAY_SIZE(held)) {
            bool write = gworld_random(&seed) % 2;
            const struct world_extent *truth = NULL;
            for (unsigned i = 0; i < w->extent_count; i++)
                if (gfn >= w->extent[i].base_gfn && gfn < w->extent[i].base_gfn + w->extent[i].frame_count)
                    truth = &w->extent[i];
            int expected = !truth                       ? -ENOENT
                           : truth->gone && truth->host ? -ESTALE
                           : truth->gone                ? -ENOENT
                           : truth->readonly && write   ? -EROFS
                                                        : 0;
            assert_int_equal(pin(w, gfn, write, &x), expected);
            if (expected == 0)
                held[count++] = (struct held){x, gfn};
        } else if (count) {
            uint32_t i = gworld_random(&seed) % count;
            frametable_unpin(w->frames, held[i].x, held[i].gfn);
            held[i] = held[--count];
        }
        assert_int_equal(frametable_pinned(w->frames), count);
        for (unsigned i = 0; i < w->extent_count && step % 64 == 0; i++) { /* given back when, and only when, unused */
            unsigned pins = 0;
            for (unsigned k = 0; k < count; k++)
                pins += held[k].x->id == w->extent[i].id;
            assert_true(!w->extent[i].gone || (pins > 0) == (w->extent[i].host != NULL));
            assert_true(pins == 0 || w->extent[i].host);
        }
    }
    while (count--)
        frametable_unpin(w->frames, held[count].x, held[count].gfn);
}

#define WORLD_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_frame_numbers_find_exactly_their_extent),
        WORLD_TEST(test_known_extents_cost_no_lookup),
        WORLD_TEST(test_lesson_266_readonly_extent_is_never_pinned_for_writing),
        WORLD_TEST(test_refused_lookups_are_forwarded_and_hold_nothing),
        WORLD_TEST(test_lesson_236_pins_do_not_wrap),
        WORLD_TEST(test_lesson_350_revoked_extent_stays_until_its_last_unpin),
        WORLD_TEST(test_revoke_picks_by_id_or_by_instance),
        cmocka_unit_test(test_impossible_extents_are_given_back),
        WORLD_TEST(test_listener_hears_of_each_extent_once_and_before_it_goes),
        WORLD_TEST(test_random_pins_equal_the_model),
    };
    return cmocka_run_group_tests_name("frametable", tests, NULL, NULL);
}
