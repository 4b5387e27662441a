/* SPDX-License-Identifier: MIT */
/* Disks that are changed while a guest works on them, with the real programs: resized, made read-only, limited, served
 * another way, attached and detached; with the blk role killed in between, and with values that cannot be. The guest is
 * a thread of this process that verifies what it reads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include <domzero/domzero.h>
#include <signal.h>
#include <sys/wait.h>

#include "base/util.h"
#include "tests/blkworld.h"
#include "tests/live_load.h"

static struct world world;

static int setup(void **state)
{
    (void)state;
    world_start(&world, NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    world_stop(&world);
    return 0;
}

/* ---- size ---- */

/* The last block can be written and read, the one behind it not even be asked for. */
static void check_end(struct load *l, uint64_t size)
{
    unsigned char data[BLOCK], got[BLOCK];
    block_fill(data, (unsigned)(size / BLOCK), 99);
    assert_int_equal(dz_vbd_write(l->disk, data, BLOCK, size - BLOCK), 0);
    assert_int_equal(dz_vbd_read(l->disk, got, BLOCK, size - BLOCK), 0);
    assert_memory_equal(data, got, BLOCK);
    assert_int_equal(dz_vbd_read(l->disk, got, BLOCK, size), -ERANGE);
}

static void test_a_disk_grows_and_shrinks_under_load(void **state)
{
    static const uint64_t sizes[] = {4 * MIB, 2 * MIB, 8 * MIB, MIB / 2, 3 * MIB};
    struct load l;
    char text[32];
    uint64_t file = MIB;
    (void)state;
    load_start(&l, &world, "grow", NULL);
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        load_resize(&l, sizes[i]);
        file = MAX(file, sizes[i]);
        assert_int_equal(file_size(&l, "grow.img"), file); /* what shrinks loses nothing */
        snprintf(text, sizeof(text), "%llu", (unsigned long long)sizes[i]);
        key_is(&l, "domzero/size", text);
        key_is(&l, "domzero/error", "");
        key_is(&l, "domzero/set/id", "");
    }
    load_stop(&l);
    assert_int_equal(l.errors + l.refused, 0);
    check_end(&l, 3 * MIB);
    load_end(&l);
}

/* Its end is seen by the backend before the frontend hears of it: those on their way are errors, each its own. */
static void test_requests_on_their_way_past_a_new_end_are_errors(void **state)
{
    struct load l;
    struct dz_io io[LOAD_DEPTH], *done[LOAD_DEPTH];
    static unsigned char data[LOAD_DEPTH][BLOCK];
    (void)state;
    load_start(&l, &world, "past", NULL);
    load_stop(&l);
    command(&l, "block-resize %s xvda", "512K");
    for (unsigned i = 0; i < LOAD_DEPTH; i++) { /* this end was not asked yet, and knows 1 MiB */
        io[i] = (struct dz_io){.op = i % 2 ? DZ_READ : DZ_WRITE,
                               .buffer = data[i],
                               .length_bytes = BLOCK,
                               .offset_bytes = MIB / 2 + (uint64_t)i * BLOCK - LOAD_DEPTH / 2 * BLOCK};
        block_fill(data[i], (unsigned)(io[i].offset_bytes / BLOCK), 7);
        assert_int_equal(dz_vbd_submit(l.disk, &io[i]), 0);
    }
    for (unsigned n = 0; n < LOAD_DEPTH;)
        n += (unsigned)dz_vbd_wait(l.disk, done, LOAD_DEPTH, -1);
    for (unsigned i = 0; i < LOAD_DEPTH; i++)
        assert_int_equal(io[i].result, io[i].offset_bytes < MIB / 2 ? 0 : -EIO);
    load_end(&l);
}

/* The tool, not waited for. It is executed: a fork of this process alone would die with what the threads had. */
static pid_t resize_begin(const char *name, uint64_t size)
{
    char text[32];
    snprintf(text, sizeof(text), "%llu", (unsigned long long)size);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        execl(world_program("domzero"), "domzero", "--run-dir", world.run, "block-resize", name, "xvda", text, NULL);
        _exit(127);
    }
    return pid;
}

/* The role is stopped, so that it is killed when it was asked and before it has answered; its successor answers. */
static void test_a_role_killed_in_the_middle_of_a_resize_leaves_it_to_its_successor(void **state)
{
    struct load l;
    (void)state;
    load_start(&l, &world, "killed", NULL);
    for (unsigned i = 1; i <= 2; i++) {
        char out[512];
        pid_t blk = world_role(&world, "blk");
        kill(blk, SIGSTOP);
        pid_t tool = resize_begin("killed", (1 + i % 3) * MIB);
        int asked;
        do
            asked =
                world_shell(&world, out, sizeof(out), "xenstore-exists /local/domain/0/backend/vbd/%u/%u/domzero/set",
                            l.domid, BLKWORLD_DEVID);
        while (asked != 0);
        kill(blk, SIGKILL);
        assert_int_equal(world_wait(tool), 0);
        load_sees_size(&l, (1 + i % 3) * MIB);
    }
    load_stop(&l);
    assert_int_equal(l.errors, 0);
    load_end(&l);
}

static void test_resizes_and_kills_at_any_moment_lose_nothing(void **state)
{
    struct load l;
    (void)state;
    load_start(&l, &world, "chaos", NULL);
    for (unsigned i = 0; i < 4; i++) {
        pid_t tool = resize_begin("chaos", (1 + i % 4) * MIB);
        usleep(i * 1500);
        world_kill_blk(&world);
        assert_int_equal(world_wait(tool), 0);
    }
    load_resize(&l, 5 * MIB);
    load_stop(&l);
    assert_int_equal(l.errors, 0);
    check_end(&l, 5 * MIB);
    load_end(&l);
}

/* ---- read-only ---- */

static bool is_readonly(void *ctx)
{
    struct load *l = ctx;
    return l->readonly;
}

static bool is_writable(void *ctx)
{
    return !is_readonly(ctx);
}

static void test_a_disk_becomes_read_only_and_writable_again_under_load(void **state)
{
    struct load l;
    char out[1024];
    (void)state;
    load_start(&l, &world, "flip", NULL);
    for (unsigned i = 0; i < 3; i++) {
        command(&l, "block-set %s xvda", "readonly=1");
        world_await(is_readonly, &l, "the guest to see it read-only");
        key_is(&l, "mode", "r");
        key_is(&l, "info", "4");
        load_goes_on(&l);
        assert_true(l.refused > 0);
        /* Another reads it, so nobody may write it. */
        attach(&l, "xvdb", "ro", "flip.img", "");
        assert_int_equal(world_domzero(&world, out, sizeof(out), "block-set flip xvda readonly=0"), 1);
        assert_non_null(strstr(out, "lock"));
        key_is(&l, "mode", "r");
        assert_true(l.readonly);
        command(&l, "block-detach %s xvdb", "");
        command(&l, "block-set %s xvda", "readonly=0");
        world_await(is_writable, &l, "the guest to see it writable");
        key_is(&l, "mode", "w");
        key_is(&l, "domzero/error", "");
        load_goes_on(&l);
        assert_int_equal(world_domzero(&world, out, sizeof(out),
                                       "block-attach flip format=raw,vdev=xvdb,access=ro,target=%s/flip.img",
                                       world.dir),
                         1);
    }
    load_stop(&l);
    load_end(&l);
}

/* What began read-only was opened for reading: writing it needs another descriptor, and the lock to go over to it. */
static void test_a_disk_attached_read_only_becomes_writable(void **state)
{
    struct load l;
    char out[1024], data[BLOCK] = "written";
    (void)state;
    load_start(&l, &world, "ro", NULL);
    load_stop(&l);
    dz_vbd_close(l.disk);
    command(&l, "block-detach %s xvda", "");
    attach(&l, "xvda", "ro", "ro.img", "");
    if (dz_vbd_open(l.dom, "xvda", WORLD_PATIENT, &l.disk))
        fail_msg("%s", dz_error());
    assert_int_equal(dz_vbd_write(l.disk, data, BLOCK, 0), -EROFS);
    attach(&l, "xvdb", "ro", "ro.img", "");
    assert_int_equal(world_domzero(&world, out, sizeof(out), "block-set ro xvda readonly=0"), 1);
    command(&l, "block-detach %s xvdb", "");
    command(&l, "block-set %s xvda", "readonly=0");
    assert_int_equal(world_domzero(&world, out, sizeof(out),
                                   "block-attach ro format=raw,vdev=xvdb,access=ro,target=%s/ro.img", world.dir),
                     1);
    struct dz_vbd_info info;
    do {
        dz_vbd_read(l.disk, data, BLOCK, 0);
        dz_vbd_info(l.disk, &info);
    } while (info.readonly);
    assert_int_equal(dz_vbd_write(l.disk, data, BLOCK, 0), 0);
    assert_int_equal(dz_vbd_flush(l.disk), 0);
    load_end(&l);
}

/* ---- strategy, polling, rates ---- */

static void test_strategy_and_polling_are_switched_under_load(void **state)
{
    static const char *const settings[] = {"dma=copy poll=poll", "dma=validate poll=interrupt", "dma=copy iops=5000",
                                           "dma=pin poll=adaptive iops=0", "poll=default bytes=100M"};
    struct load l;
    (void)state;
    load_start(&l, &world, "switch", NULL);
    for (unsigned i = 0; i < 10; i++) {
        command(&l, "block-set %s xvda", settings[i % ARRAY_SIZE(settings)]);
        load_goes_on(&l);
    }
    key_is(&l, "domzero/dma", "pin");
    key_is(&l, "domzero/poll", "");
    key_is(&l, "domzero/bytes", "104857600");
    load_stop(&l);
    assert_int_equal(l.errors + l.refused, 0);
    load_end(&l);
}

static uint64_t throttled(struct load *l)
{
    struct stats_blk_reply r;
    return blkworld_stats(world.run, (uint16_t)l->domid, BLKWORLD_DEVID, &r) ? blkworld_number(&r, "throttled") : 0;
}

static bool is_throttled(void *ctx)
{
    return throttled(ctx) > 0;
}

static void test_rates_given_at_attach_or_set_later_outlive_the_role(void **state)
{
    struct load l;
    (void)state;
    load_start(&l, &world, "rates", "iops=1000,iops-burst=10");
    world_await(is_throttled, &l, "the rate given at attach to be felt");
    command(&l, "block-set %s xvda", "iops=2000 bytes=64M bytes-burst=2M");
    world_kill_blk(&world);
    key_is(&l, "domzero/iops", "2000");
    key_is(&l, "domzero/iops-burst", "10");
    key_is(&l, "domzero/bytes", "67108864");
    char out[2048];
    assert_int_equal(world_domzero(&world, out, sizeof(out), "block-list rates"), 0);
    assert_non_null(strstr(out, "limits: iops=2000 iops-burst=10 bytes=67108864 bytes-burst=2097152\n"));
    assert_int_equal(world_domzero(&world, out, sizeof(out), "block-list rates --json"), 0);
    assert_non_null(strstr(out, "\"limits\": {\"iops\": 2000, \"iops-burst\": 10, "));
    world_await(is_throttled, &l, "the rate to be felt again");
    load_goes_on(&l);
    command(&l, "block-set %s xvda", "iops=0 bytes=0");
    key_is(&l, "domzero/iops", "");
    key_is(&l, "domzero/iops-burst", "");
    uint64_t before = throttled(&l);
    load_goes_on(&l);
    assert_int_equal(throttled(&l), before);
    load_stop(&l);
    assert_int_equal(l.errors, 0);
    load_end(&l);
}

/* ---- what cannot be ---- */

static const struct bad_setting {
    const char *args, *says;
} bad_settings[] = {
    {"block-set bad xvda iops=many", "iops=many"},
    {"block-set bad xvda iops=-1", "iops=-1"},
    {"block-set bad xvda iops=9223372036854775808", "number"},
    {"block-set bad xvda bytes=10X", "10X"},
    {"block-set bad xvda bytes=99999999T", "bytes"},
    {"block-set bad xvda iops-burst=5", "without iops"},
    {"block-set bad xvda bytes=1M bytes-burst=4K", "1048576"},
    {"block-set bad xvda readonly=maybe", "0 or 1"},
    {"block-set bad xvda dma=teleport", "teleport"},
    {"block-set bad xvda dma=Pin", "DMA"},
    {"block-set bad xvda poll=lazily", "lazily"},
    {"block-set bad xvda colour=red", "colour"},
    {"block-set bad xvda iops", "iops"},
    {"block-set bad xvdq iops=1", "xvdq"},
    {"block-set nobody xvda iops=1", "nobody"},
    {"block-resize bad xvda 0", "size"},
    {"block-resize bad xvda 1000", "512"},
    {"block-resize bad xvda -4096", "-4096"},
    {"block-resize bad xvda 16777215T", "size"},
    {"block-resize bad xvda 8388607T", "enlarged"},
    {"block-resize bad xvdq 1M", "xvdq"},
};

static void test_settings_that_cannot_be_are_refused_and_harm_nothing(void **state)
{
    struct load l;
    char out[2048];
    (void)state;
    load_start(&l, &world, "bad", NULL);
    for (unsigned i = 0; i < ARRAY_SIZE(bad_settings); i++) {
        const struct bad_setting *b = &bad_settings[i];
        int status = world_domzero(&world, out, sizeof(out), "%s", b->args);
        print_message("domzero %-44s exit %d: %s", b->args, status, out);
        assert_int_equal(status, 1);
        assert_non_null(strstr(out, b->says));
        load_goes_on(&l);
        assert_int_equal(l.size_bytes, MIB);
    }
    assert_int_equal(file_size(&l, "bad.img"), MIB);
    load_stop(&l);
    assert_int_equal(l.errors + l.refused, 0);
    load_end(&l);
}

static const char *error_wanted;
static bool error_is(void *ctx)
{
    struct load *l = ctx;
    char out[1024];
    assert_int_equal(world_shell(&world, out, sizeof(out),
                                 "xenstore-read /local/domain/0/backend/vbd/%u/%u/domzero/error 2>/dev/null || true",
                                 l->domid, BLKWORLD_DEVID),
                     0);
    return strstr(out, error_wanted);
}

/* Written by somebody who did not ask the tool. */
static void test_what_is_written_into_the_store_by_hand_is_judged_by_the_backend(void **state)
{
    static const struct {
        const char *key, *value, *says;
    } writes[] = {
        {"iops", "lots", "lots"},
        {"iops", "-5", "-5"},
        {"iops", "99999999999999999999", "number"},
        {"iops-burst", "7", "without iops"},
        {"bytes-burst", "1", "without bytes"},
        {"size", "0", "number"},
        {"size", "1001", "multiple"},
        {"size", "9223372036854775807", "multiple"},
        {"size", "9223372036854775296", "enlarged"},
        {"readonly", "2", "number"},
        {"dma", "teleport", "teleport"},
        {"dma", "a-name-that-is-much-too-long", "at most"},
        {"poll", "lazily", "lazily"},
        {"colour", "red", "colour"},
        {"iops/below", "1", "iops"},
    };
    struct load l;
    char out[1024];
    (void)state;
    load_start(&l, &world, "hand", NULL);
    for (unsigned i = 0; i < ARRAY_SIZE(writes); i++) {
        error_wanted = writes[i].says;
        assert_int_equal(world_shell(&world, out, sizeof(out),
                                     "xenstore-write -- /local/domain/0/backend/vbd/%u/%u/domzero/set/%s '%s'", l.domid,
                                     BLKWORLD_DEVID, writes[i].key, writes[i].value),
                         0);
        world_await(error_is, &l, writes[i].says);
        key_is(&l, "domzero/set", "");
        load_goes_on(&l);
    }
    command(&l, "block-set %s xvda", "iops=0");
    key_is(&l, "domzero/error", "");
    load_stop(&l);
    assert_int_equal(l.errors + l.refused, 0);
    assert_int_equal(l.size_bytes, MIB);
    load_end(&l);
}

/* ---- coming and going, and what is closed ---- */

static void test_disks_come_and_go_under_load(void **state)
{
    struct load l, other;
    (void)state;
    load_start(&l, &world, "stays", NULL);
    world_image(&world, "guest.img", MIB, 3);
    for (unsigned i = 0; i < 8; i++) {
        load_start(&other, &world, "comes", i % 2 ? "dma=copy" : "iops=50");
        attach(&l, "xvdb", "rw", "guest.img", "");
        load_goes_on(&l);
        command(&l, "block-detach %s xvdb", "");
        load_stop(&other);
        assert_int_equal(other.errors, 0);
        load_end(&other);
        load_goes_on(&l);
    }
    load_stop(&l);
    assert_int_equal(l.errors, 0);
    load_end(&l);
}

static void test_a_disk_that_nobody_has_open_is_changed_too(void **state)
{
    struct load l;
    struct dz_vbd_info info;
    (void)state;
    load_start(&l, &world, "closed", NULL);
    load_stop(&l);
    dz_vbd_close(l.disk);
    command(&l, "block-resize %s xvda", "2M");
    command(&l, "block-set %s xvda", "readonly=1 iops=100");
    key_is(&l, "mode", "r");
    assert_int_equal(file_size(&l, "closed.img"), 2 * MIB);
    if (dz_vbd_open(l.dom, "xvda", WORLD_PATIENT, &l.disk))
        fail_msg("%s", dz_error());
    dz_vbd_info(l.disk, &info);
    assert_int_equal(info.size_bytes, 2 * MIB);
    assert_true(info.readonly);
    load_end(&l);
}

/* Its configuration cannot be, so that it was never served: what is asked of it changes nothing of that. */
static void test_a_disk_that_could_not_be_configured_is_left_as_it_was(void **state)
{
    struct load l;
    char out[1024];
    (void)state;
    load_start(&l, &world, "odd", NULL);
    load_stop(&l);
    dz_vbd_close(l.disk);
    world_shell(&world, out, sizeof(out),
                "xenstore-write /local/domain/0/backend/vbd/%u/%u/domzero/size 1000 "
                "/local/domain/0/backend/vbd/%u/%u/mode r",
                l.domid, BLKWORLD_DEVID, l.domid, BLKWORLD_DEVID);
    world_kill_blk(&world);
    assert_int_equal(world_domzero(&world, out, sizeof(out), "block-set odd xvda dma=teleport"), 1);
    assert_non_null(strstr(out, "teleport"));
    assert_int_equal(world_domzero(&world, out, sizeof(out), "block-resize odd xvda 1M"), 1);
    assert_non_null(strstr(out, "1000"));
    key_is(&l, "domzero/size", "1000");
    key_is(&l, "mode", "r");
    key_is(&l, "domzero/dma", "pin");
    assert_int_equal(dz_vbd_open(l.dom, "xvda", &(struct dz_vbd_options){.timeout_ms = 200}, &l.disk), -ETIMEDOUT);
    l.disk = NULL;
    load_end(&l);
}

/* A disk in the middle of a file must not swallow what lies behind it. */
static void test_a_region_grows_into_what_is_free_and_not_into_another_disk(void **state)
{
    struct load l;
    char out[1024];
    (void)state;
    load_start(&l, &world, "region", "offset=0,size=512K");
    attach(&l, "xvdb", "rw", "region.img", "offset=768K");
    command(&l, "block-resize %s xvda", "768K");
    assert_int_equal(world_domzero(&world, out, sizeof(out), "block-resize region xvda 1M"), 1);
    assert_non_null(strstr(out, "lock"));
    key_is(&l, "domzero/size", "786432");
    load_goes_on(&l);
    command(&l, "block-resize %s xvdb", "1M"); /* it is the end of the file */
    assert_int_equal(file_size(&l, "region.img"), MIB * 7 / 4);
    command(&l, "block-resize %s xvda", "512K");
    command(&l, "block-resize %s xvdb", "256K");
    assert_int_equal(world_domzero(&world, out, sizeof(out), "block-resize region xvdb 2M"), 1);
    assert_non_null(strstr(out, "enlarge"));
    load_stop(&l);
    assert_int_equal(l.errors, 0);
    load_end(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_disk_grows_and_shrinks_under_load),
        cmocka_unit_test(test_requests_on_their_way_past_a_new_end_are_errors),
        cmocka_unit_test(test_a_role_killed_in_the_middle_of_a_resize_leaves_it_to_its_successor),
        cmocka_unit_test(test_resizes_and_kills_at_any_moment_lose_nothing),
        cmocka_unit_test(test_a_disk_becomes_read_only_and_writable_again_under_load),
        cmocka_unit_test(test_a_disk_attached_read_only_becomes_writable),
        cmocka_unit_test(test_strategy_and_polling_are_switched_under_load),
        cmocka_unit_test(test_rates_given_at_attach_or_set_later_outlive_the_role),
        cmocka_unit_test(test_settings_that_cannot_be_are_refused_and_harm_nothing),
        cmocka_unit_test(test_what_is_written_into_the_store_by_hand_is_judged_by_the_backend),
        cmocka_unit_test(test_disks_come_and_go_under_load),
        cmocka_unit_test(test_a_disk_that_nobody_has_open_is_changed_too),
        cmocka_unit_test(test_a_disk_that_could_not_be_configured_is_left_as_it_was),
        cmocka_unit_test(test_a_region_grows_into_what_is_free_and_not_into_another_disk),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
