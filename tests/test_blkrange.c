/* SPDX-License-Identifier: MIT */
/* Claims on ranges of a file: what may overlap, who waits, and that everybody gets his turn. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "backend/blk/blkrange.h"
#include "tests/random.h"

static struct blkrange range(uint64_t first, uint64_t end, bool exclusive)
{
    return (struct blkrange){.first_bytes = first, .end_bytes = end, .exclusive = exclusive};
}

static void test_shared_claims_overlap_and_exclusive_ones_do_not(void **state)
{
    static const struct {
        uint64_t first, end;
        bool a, b, together;
    } rows[] = {{0, 4096, false, false, true},   {0, 4096, false, true, false},
                {0, 4096, true, false, false},   {0, 4096, true, true, false},
                {4095, 8192, true, true, false}, {4096, 8192, true, true, true},
                {0, 1, true, true, false},       {UINT64_MAX - 1, UINT64_MAX, true, true, true}};
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct blkranges s;
        struct blkrange a = range(0, 4096, rows[i].a), b = range(rows[i].first, rows[i].end, rows[i].b);
        blkranges_init(&s);
        assert_true(blkranges_claim(&s, &a));
        assert_int_equal(blkranges_claim(&s, &b), rows[i].together);
        assert_null(blkranges_next(&s));
        blkranges_release(&s, &a);
        assert_ptr_equal(blkranges_next(&s), rows[i].together ? NULL : &b);
        assert_null(blkranges_next(&s));
        blkranges_release(&s, &b);
        assert_true(blkranges_idle(&s));
    }
}

static void test_nobody_overtakes_whom_he_would_hold_up(void **state)
{
    struct blkranges s;
    struct blkrange writer = range(0, 8192, false), waiter = range(4096, 8192, true);
    struct blkrange late = range(4096, 4608, false), beside = range(8192, 12288, true);
    (void)state;
    blkranges_init(&s);
    assert_true(blkranges_claim(&s, &writer));
    assert_false(blkranges_claim(&s, &waiter));
    assert_false(blkranges_claim(&s, &late)); /* the writer alone would not mind */
    assert_true(blkranges_claim(&s, &beside));
    blkranges_release(&s, &writer);
    assert_ptr_equal(blkranges_next(&s), &waiter);
    assert_null(blkranges_next(&s));
    blkranges_release(&s, &beside);
    assert_null(blkranges_next(&s));
    blkranges_release(&s, &waiter);
    assert_ptr_equal(blkranges_next(&s), &late);
    blkranges_release(&s, &late);
    assert_true(blkranges_idle(&s));
}

/* ---- a long life, against a model that counts who is where ---- */

#define PLACES 16
#define MANY   40

struct life {
    struct blkranges s;
    struct blkrange r[MANY];
    enum { FREE, WAITS, HELD } state[MANY];
    uint64_t seed;
};

static void check_held(const struct life *l)
{
    unsigned shared[PLACES] = {0}, exclusive[PLACES] = {0};
    for (unsigned i = 0; i < MANY; i++)
        for (uint64_t p = l->r[i].first_bytes; l->state[i] == HELD && p < l->r[i].end_bytes; p++)
            (l->r[i].exclusive ? exclusive : shared)[p]++;
    for (unsigned p = 0; p < PLACES; p++)
        assert_true(exclusive[p] == 0 || (exclusive[p] == 1 && shared[p] == 0));
}

static void life_release(struct life *l, unsigned i)
{
    struct blkrange *next;
    blkranges_release(&l->s, &l->r[i]);
    l->state[i] = FREE;
    while ((next = blkranges_next(&l->s))) {
        assert_int_equal(l->state[next - l->r], WAITS);
        l->state[next - l->r] = HELD;
    }
}

static void test_no_exclusive_claim_is_shared_and_none_waits_for_ever(void **state)
{
    struct life l = {.seed = 20261120};
    unsigned waited = 0;
    (void)state;
    blkranges_init(&l.s);
    for (unsigned step = 0; step < 200000; step++) {
        unsigned i = random_next(&l.seed) % MANY;
        if (l.state[i] == FREE) {
            uint64_t first = random_next(&l.seed) % PLACES;
            l.r[i] = range(first, first + 1 + random_next(&l.seed) % (PLACES - first), random_next(&l.seed) % 2);
            l.state[i] = blkranges_claim(&l.s, &l.r[i]) ? HELD : WAITS;
            waited += l.state[i] == WAITS;
        } else if (l.state[i] == HELD) {
            life_release(&l, i);
        }
        check_held(&l);
    }
    assert_true(waited > 1000);
    for (bool again = true; again;) { /* all of them come to their end, whoever is released first */
        again = false;
        for (unsigned i = 0; i < MANY; i++)
            if (l.state[i] == HELD) {
                life_release(&l, i);
                again = true;
            }
    }
    for (unsigned i = 0; i < MANY; i++)
        assert_int_equal(l.state[i], FREE);
    assert_true(blkranges_idle(&l.s));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shared_claims_overlap_and_exclusive_ones_do_not),
        cmocka_unit_test(test_nobody_overtakes_whom_he_would_hold_up),
        cmocka_unit_test(test_no_exclusive_claim_is_shared_and_none_waits_for_ever),
    };
    return cmocka_run_group_tests_name("blkrange", tests, NULL, NULL);
}
