/* SPDX-License-Identifier: MIT */
/* The small parts of base/: ranges that cannot wrap, numbers out of hostile text, the map against a naive model,
 * the id allocator, and an event loop whose callbacks remove each other. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>
#include <cmocka.h>

#include "base/err.h"
#include "base/hist.h"
#include "base/idalloc.h"
#include "base/list.h"
#include "base/loop.h"
#include "base/map.h"
#include "base/parse.h"
#include "base/span.h"
#include "tests/random.h"

static void test_span_never_wraps(void **state)
{
    (void)state;
    assert_true(span_fits(0, 0, 0));
    assert_true(span_fits(8, 8, 16));
    assert_true(span_fits(16, 0, 16));
    assert_false(span_fits(17, 0, 16));
    assert_false(span_fits(8, 9, 16));
    assert_false(span_fits(UINT64_MAX, 2, 16));
    assert_false(span_fits(2, UINT64_MAX, 16));
    assert_false(span_fits(UINT64_MAX, UINT64_MAX, UINT64_MAX));
    uint64_t out = 7;
    assert_false(span_mul(1ull << 55, 512, &out)); /* the sector number that QEMU 7.2 accepted */
    assert_int_equal(out, 7);
    assert_true(span_mul(1ull << 54, 512, &out));
    assert_true(out == 1ull << 63);
}

static void test_numbers_are_whole_and_in_range(void **state)
{
    (void)state;
    uint64_t v = 42;
    assert_int_equal(parse_u64("51712", 0, UINT32_MAX, &v), 0);
    assert_int_equal(v, 51712);
    assert_int_equal(parse_u64("0xca00", 0, UINT32_MAX, &v), 0);
    assert_int_equal(v, 51712);
    static const char *const junk[] = {"", " 1", "1 ", "-1", "+1", "0x", "1x", "0b1", "one"};
    for (size_t i = 0; i < ARRAY_SIZE(junk); i++)
        assert_int_equal(parse_u64(junk[i], 0, 9, &v), -EINVAL);
    assert_int_equal(parse_u64("18446744073709551616", 0, UINT64_MAX, &v), -ERANGE);
    assert_int_equal(parse_u64("12", 0, 11, &v), -ERANGE);
    assert_int_equal(parse_size("64M", &v), 0);
    assert_int_equal(v, 64 << 20);
    assert_int_equal(parse_size("64Q", &v), -EINVAL);
    assert_int_equal(parse_size("64MM", &v), -EINVAL);
    assert_int_equal(parse_size("17179869184G", &v), -ERANGE);
}

static void test_map_equals_an_array(void **state)
{
    (void)state;
    enum { KEYS = 512, STEPS = 20000 };
    static void *model[KEYS];
    struct map m = {0};
    uint64_t seed = 20260101;
    for (int step = 0; step < STEPS; step++) {
        random_step(&seed);
        unsigned key = (unsigned)(seed >> 33) % KEYS;
        if (seed >> 63) {
            assert_int_equal(map_put(&m, key, &model[key]), model[key] ? -EEXIST : 0);
            model[key] = &model[key];
        } else {
            assert_ptr_equal(map_remove(&m, key), model[key]);
            model[key] = NULL;
        }
        if (step % 97 == 0)
            for (unsigned k = 0; k < KEYS; k++)
                assert_ptr_equal(map_get(&m, k), model[k]);
    }
    map_deinit(&m);
}

static void test_ids_are_lowest_first_and_bounded(void **state)
{
    (void)state;
    struct idalloc a;
    assert_int_equal(idalloc_init(&a, 70), 0);
    for (int i = 0; i < 70; i++)
        assert_int_equal(idalloc_get(&a), i);
    assert_int_equal(idalloc_get(&a), -ENOSPC);
    idalloc_put(&a, 66);
    idalloc_put(&a, 3);
    assert_int_equal(idalloc_get(&a), 3);
    assert_int_equal(idalloc_take(&a, 66), 0);
    assert_int_equal(idalloc_take(&a, 66), -EBUSY);
    assert_int_equal(idalloc_take(&a, 70), -ERANGE);
    idalloc_deinit(&a);
}

static struct loop test_loop;
static struct loop_source source_a, source_b;
static int calls;

static void on_ready(struct loop_source *s, uint32_t events)
{
    (void)events;
    calls++;
    loop_remove(&test_loop, s == &source_a ? &source_b : &source_a);
    if (calls == 1)
        loop_quit(&test_loop);
}

static void test_a_removed_source_is_not_called_in_the_same_round(void **state)
{
    (void)state;
    assert_int_equal(loop_init(&test_loop), 0);
    int a = eventfd(1, 0), b = eventfd(1, 0);
    assert_int_equal(loop_add(&test_loop, &source_a, a, EPOLLIN, on_ready), 0);
    assert_int_equal(loop_add(&test_loop, &source_b, b, EPOLLIN, on_ready), 0);
    assert_int_equal(loop_run(&test_loop), 0);
    assert_int_equal(calls, 1);
    close(a);
    close(b);
    loop_deinit(&test_loop);
}

static void test_histogram_buckets_are_contiguous_and_close(void **state)
{
    (void)state;
    unsigned last = 0;
    for (uint64_t v = 0; v < 100000; v++) {
        unsigned b = hist_bucket(v);
        assert_true(b == last || b == last + 1);
        last = b;
    }
    assert_true(hist_bucket(UINT64_MAX) < HIST_BUCKETS);
    struct hist h = {0};
    for (uint64_t v = 1; v <= 1000; v++)
        hist_add(&h, v);
    assert_in_range(hist_quantile(&h, 0.5), 484, 516);
    assert_in_range(hist_quantile(&h, 0.99), 960, 1020);
}

static void test_an_error_keeps_its_code_and_grows_a_prefix(void **state)
{
    (void)state;
    struct err e;
    assert_int_equal(err_set(&e, -ENOENT, "no image %s", "a.img"), -ENOENT);
    assert_int_equal(err_prefix(&e, -ENOENT, "disk %s", "xvda"), -ENOENT);
    assert_string_equal(e.text, "disk xvda: no image a.img");
    assert_int_equal(err_set(NULL, 3, "nobody listens"), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_span_never_wraps),
        cmocka_unit_test(test_numbers_are_whole_and_in_range),
        cmocka_unit_test(test_map_equals_an_array),
        cmocka_unit_test(test_ids_are_lowest_first_and_bounded),
        cmocka_unit_test(test_a_removed_source_is_not_called_in_the_same_round),
        cmocka_unit_test(test_histogram_buckets_are_contiguous_and_close),
        cmocka_unit_test(test_an_error_keeps_its_code_and_grows_a_prefix),
    };
    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
