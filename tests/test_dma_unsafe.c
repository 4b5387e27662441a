/* SPDX-License-Identifier: MIT */
/* The strategy that gives guests into each other's hands is served where it is asked for by name and nowhere else, and
 * nobody who looks at the disk can miss it: with the real programs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/util.h"
#include "tests/blkworld.h"
#include "tests/live_load.h"

static struct world world;
static FILE *log_file; /* what the daemon says */

/* The daemon's stderr is the file. */
static int setup(void **state)
{
    (void)state;
    int stderr_fd = dup(STDERR_FILENO);
    log_file = tmpfile();
    assert_true(log_file && stderr_fd >= 0 && dup2(fileno(log_file), STDERR_FILENO) >= 0);
    world_start(&world, NULL);
    assert_true(dup2(stderr_fd, STDERR_FILENO) >= 0);
    close(stderr_fd);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    world_stop(&world);
    fclose(log_file);
    return 0;
}

/* Lines of the log with all of these words. */
static unsigned log_lines(const char *word, const char *other)
{
    static char line[4096];
    unsigned n = 0;
    rewind(log_file);
    while (fgets(line, sizeof(line), log_file))
        n += strstr(line, word) && strstr(line, other);
    return n;
}

static const char *says(const char *args)
{
    static char out[32768];
    assert_int_equal(world_domzero(&world, out, sizeof(out), "%s", args), 0);
    return out;
}

/* In each place where it is to be seen, or not. */
static void check_shown(struct load *l, bool unsafe)
{
    char args[64], warning[320];
    struct stats_blk_reply r;
    snprintf(args, sizeof(args), "block-list %s", l->name);
    assert_int_equal(!!strstr(says(args), "?validate"), unsafe);
    assert_int_equal(!!strstr(says(args), "warning: dma=validate is UNSAFE"), unsafe);
    snprintf(args, sizeof(args), "block-list %s --json", l->name);
    assert_int_equal(!!strstr(says(args), "\"warning\": \"dma=validate is UNSAFE"), unsafe);
    assert_int_equal(!!strstr(says("block-stats"), "?validate"), unsafe);
    assert_int_equal(!!strstr(says("block-stats --json"), "\"dma_unsafe\": 1"), unsafe);
    assert_int_equal(!!strstr(says("top --batch 1 --delay 0.1"), " ?vali "), unsafe);
    snprintf(warning, sizeof(warning), "%s",
             unsafe
                 ? "dma=validate is UNSAFE: it does not hold the guest's memory during I/O, so a guest can have other "
                   "guests' memory read and overwritten; it is for demonstrations"
                 : "");
    key_is(l, "domzero/warning", warning);
    key_is(l, "domzero/dma", unsafe ? "validate" : "pin");
    assert_true(blkworld_stats(world.run, (uint16_t)l->domid, BLKWORLD_DEVID, &r));
    assert_int_equal(blkworld_number(&r, "dma_unsafe"), unsafe);
}

static void test_a_disk_that_names_no_strategy_is_not_served_by_an_unsafe_one(void **state)
{
    struct load l;
    (void)state;
    load_start(&l, &world, "plain", NULL);
    load_goes_on(&l);
    check_shown(&l, false);
    assert_int_equal(log_lines("UNSAFE", ""), 0);
    load_stop(&l);
    assert_int_equal(l.errors, 0);
    load_end(&l);
}

static void test_a_disk_that_asks_for_it_is_served_and_marked_everywhere(void **state)
{
    struct load l;
    (void)state;
    load_start(&l, &world, "asked", "dma=validate");
    load_goes_on(&l);
    check_shown(&l, true);
    assert_int_equal(log_lines("UNSAFE", "dma=validate"), 1);
    world_kill_blk(&world); /* its successor says so, too */
    load_goes_on(&l);
    check_shown(&l, true);
    assert_int_equal(log_lines("UNSAFE", "dma=validate"), 2);
    load_stop(&l);
    assert_int_equal(l.errors, 0);
    load_end(&l);
}

static void test_a_running_disk_is_switched_to_it_with_a_warning_and_away_without(void **state)
{
    struct load l;
    char out[1024];
    (void)state;
    load_start(&l, &world, "switched", NULL);
    unsigned before = log_lines("UNSAFE", "");
    for (int i = 0; i < 3; i++) {
        assert_int_equal(world_domzero(&world, out, sizeof(out), "block-set switched xvda dma=validate"), 0);
        assert_int_equal(strncmp(out, "warning: disk xvda: dma=validate is UNSAFE: ", 44), 0);
        load_goes_on(&l);
        check_shown(&l, true);
        assert_int_equal(log_lines("UNSAFE", "dma=validate"), before + 1 + (unsigned)i);
        assert_int_equal(world_domzero(&world, out, sizeof(out), "block-set switched xvda iops=0"), 0);
        assert_string_equal(out, ""); /* it has been said */
        assert_int_equal(world_domzero(&world, out, sizeof(out), "block-set switched xvda dma=pin"), 0);
        assert_string_equal(out, "");
        load_goes_on(&l);
        check_shown(&l, false);
    }
    load_stop(&l);
    assert_int_equal(l.errors, 0);
    load_end(&l);
}

/* What is there to be measured beside the strategies is in no build that serves guests. */
static void test_rows_for_measuring_are_not_there(void **state)
{
    static const char *const rows[] = {"none", "pin-each"};
    struct load l;
    char out[1024];
    (void)state;
    load_start(&l, &world, "bench", NULL);
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        assert_int_equal(world_domzero(&world, out, sizeof(out), "block-set bench xvda dma=%s", rows[i]), 1);
        assert_non_null(strstr(out, "is no DMA strategy"));
        assert_non_null(strstr(out, rows[i]));
    }
    load_goes_on(&l);
    check_shown(&l, false);
    load_stop(&l);
    assert_int_equal(l.errors, 0);
    load_end(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_disk_that_names_no_strategy_is_not_served_by_an_unsafe_one),
        cmocka_unit_test(test_a_disk_that_asks_for_it_is_served_and_marked_everywhere),
        cmocka_unit_test(test_a_running_disk_is_switched_to_it_with_a_warning_and_away_without),
        cmocka_unit_test(test_rows_for_measuring_are_not_there),
    };
    return cmocka_run_group_tests_name("dma_unsafe", tests, setup, teardown);
}
