/* SPDX-License-Identifier: MIT */
/* Storage in trouble, for real: full, cut short, failing. The error goes to the request it belongs to and is counted by
 * its kind; everything else is served; a flush that lost data is never followed by one that says all is well. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "tests/blkworld.h"

#define SEED 7u

/* ---- a full disk ---- */

struct scene {
    struct blkworld world;
    char dir[256], small[300];
    uint16_t domid;
    struct keys_blk_config config;
    struct blkguest guest;
};

/* The world's processes, in a mount namespace of their own where there is a file system of `bytes` at s->small. The
 * namespace is the test's from here on. False: this may not be done here. */
static bool scene_small(struct scene *s, const char *bytes)
{
    char options[32];
    *s = (struct scene){0};
    snprintf(options, sizeof(options), "size=%s", bytes);
    if (unshare(CLONE_NEWNS) || mount("none", "/", "", MS_REC | MS_PRIVATE, NULL)) {
        print_message("skipped: no mount namespace may be made here (%s)\n", strerror(errno));
        return false;
    }
    blkworld_start(&s->world, NULL);
    blkworld_role_stop(&s->world); /* it was started before the file system is there; path lookups would do, too */
    snprintf(s->small, sizeof(s->small), "%s/small", s->world.dir);
    assert_int_equal(mkdir(s->small, 0700), 0);
    if (mount("domzero-small", s->small, "tmpfs", 0, options)) {
        print_message("skipped: no tmpfs may be mounted here (%s)\n", strerror(errno));
        blkworld_stop(&s->world);
        return false;
    }
    blkworld_role_start(&s->world, NULL);
    return true;
}

static void scene_connect(struct scene *s)
{
    s->domid = blkworld_domain(&s->world, "guest", s->dir, sizeof(s->dir));
    blkworld_attach(&s->world, s->domid, BLKWORLD_DEVID, &s->config);
    blkguest_open(&s->guest, s->dir, BLKWORLD_DEVID);
    s->guest.fua = s->guest.write_zeroes = true;
    blkguest_connect(&s->guest, NULL);
}

static void scene_leave(struct scene *s)
{
    blkguest_disconnect(&s->guest);
    blkguest_close(&s->guest);
    blkworld_wait_held(&s->world, s->domid, 0);
}

static uint64_t number(struct scene *s, const char *name)
{
    return blkworld_stat(&s->world, s->domid, BLKWORLD_DEVID, name, 0);
}

/* A sparse image of 1 MiB on a file system of 256 KiB: the guest runs into its end. */
static void test_a_full_file_system_fails_the_writes_that_find_no_room_and_nothing_else(void **state)
{
    struct scene s;
    unsigned full = 0, fine = 0;
    (void)state;
    if (!scene_small(&s, "256k"))
        skip();
    snprintf(s.config.path, sizeof(s.config.path), "%s/disk.img", s.small);
    int fd = open(s.config.path, O_CREAT | O_RDWR, 0600);
    assert_int_equal(ftruncate(fd, 1 << 20), 0);
    scene_connect(&s);
    memset(s.guest.data, 0x66, PAGE_BYTES);
    for (unsigned page = 0; page < 200; page++) {
        int16_t status = blkguest_do(&s.guest, page % 2 ? BLKREQ_OP_WRITE_FUA : BLKIF_OP_WRITE, page * 8, 0, 1, 0, 7);
        full += status == BLKIF_RSP_ERROR;
        fine += status == BLKIF_RSP_OKAY;
        memset(s.guest.data + PAGE_BYTES, 0xee, PAGE_BYTES);
        assert_int_equal(blkguest_do(&s.guest, BLKIF_OP_READ, page * 8, 1, 1, 0, 7), BLKIF_RSP_OKAY);
        assert_int_equal(s.guest.data[PAGE_BYTES], status == BLKIF_RSP_OKAY ? 0x66 : 0);
    }
    assert_true(fine >= 32 && full >= 100 && fine + full == 200);
    assert_int_equal(number(&s, "storage_full"), full);
    assert_int_equal(number(&s, "storage"), 0);
    assert_int_equal(number(&s, "errors"), full);
    assert_int_equal(number(&s, "last_io_errno"), ENOSPC);
    /* Nothing that was accepted is lost: flushes go on. */
    assert_int_equal(blkguest_do(&s.guest, BLKIF_OP_FLUSH_DISKCACHE, 0, 0, 0, 0, 0), BLKIF_RSP_OKAY);
    assert_int_equal(number(&s, "flush_lost"), 0);
    /* Room that is made is used, and zeroes that have no room say so. */
    assert_int_equal(blkguest_do_span(&s.guest, BLKREQ_OP_WRITE_ZEROES, 1600, 448, 0), BLKIF_RSP_ERROR);
    assert_int_equal(number(&s, "storage_full"), full + 1);
    assert_int_equal(blkguest_do_span(&s.guest, BLKREQ_OP_WRITE_ZEROES, 0, 256, BLKREQ_ZEROES_MAY_UNMAP), 0);
    scene_leave(&s);
    close(fd);
    umount2(s.small, MNT_DETACH);
    blkworld_stop(&s.world);
}

/* ---- a device that fails ---- */

/* A loop device over a sparse file on a file system that is too small: what the page cache took cannot be written, and
 * the fdatasync() that finds out is the kernel's own. */
static void test_a_flush_that_lost_data_is_followed_by_none_that_succeeds_until_the_disk_is_closed(void **state)
{
    struct scene s;
    char file[320], loop[64], line[64];
    (void)state;
    if (!scene_small(&s, "512k"))
        skip();
    snprintf(file, sizeof(file), "%s/disk.img", s.small);
    int fd = open(file, O_CREAT | O_RDWR, 0600);
    assert_int_equal(ftruncate(fd, 8 << 20), 0);
    close(fd);
    if (geteuid() || !blkworld_shell(loop, sizeof(loop), "losetup --show -f '%s' 2>/dev/null", file)) {
        print_message("skipped: no loop device can be made here\n");
        umount2(s.small, MNT_DETACH);
        blkworld_stop(&s.world);
        skip();
    }
    strcpy(s.config.path, loop);
    scene_connect(&s);
    memset(s.guest.data, 0x77, 11 * PAGE_BYTES);
    for (unsigned i = 0; i < 64; i++) /* 2.8 MB, all of it taken by the page cache */
        assert_int_equal(blkguest_do(&s.guest, BLKIF_OP_WRITE, i * 88, 0, 11, 0, 7), BLKIF_RSP_OKAY);
    assert_int_equal(blkguest_do(&s.guest, BLKIF_OP_FLUSH_DISKCACHE, 0, 0, 0, 0, 0), BLKIF_RSP_ERROR);
    assert_int_equal(number(&s, "flush_lost"), 1);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(blkguest_do(&s.guest, BLKIF_OP_FLUSH_DISKCACHE, 0, 0, 0, 0, 0), BLKIF_RSP_ERROR);
        assert_int_equal(blkguest_do(&s.guest, BLKIF_OP_WRITE_BARRIER, 0, 0, 1, 0, 7), BLKIF_RSP_ERROR);
        assert_int_equal(blkguest_do(&s.guest, BLKIF_OP_READ, 0, 20, 1, 0, 7), BLKIF_RSP_OKAY); /* the rest runs on */
        assert_int_equal(blkguest_do(&s.guest, BLKIF_OP_WRITE, 0, 0, 1, 0, 7), BLKIF_RSP_OKAY);
    }
    blkguest_disconnect(&s.guest);
    assert_int_equal(mount("domzero-small", s.small, "tmpfs", MS_REMOUNT, "size=16m"), 0); /* the operator helps */
    blkguest_switch(&s.guest, XenbusStateInitialising);
    blkguest_connect(&s.guest, NULL);
    for (unsigned i = 0; i < 64; i++) /* as a guest does that recovers: from its log */
        assert_int_equal(blkguest_do(&s.guest, BLKIF_OP_WRITE, i * 88, 0, 11, 0, 7), BLKIF_RSP_OKAY);
    assert_int_equal(blkguest_do(&s.guest, BLKIF_OP_FLUSH_DISKCACHE, 0, 0, 0, 0, 0), BLKIF_RSP_OKAY);
    scene_leave(&s);
    assert_true(blkworld_shell(line, sizeof(line), "losetup -d '%s'", loop));
    umount2(s.small, MNT_DETACH);
    blkworld_stop(&s.world);
}

/* ---- an image that is cut short under a disk that realigns ---- */

static void test_a_truncated_image_fails_what_lay_behind_its_end_and_nothing_else(void **state)
{
    struct scene s = {0};
    (void)state;
    blkworld_start(&s.world, NULL);
    blkworld_image(&s.world, "disk.img", 1 << 20, SEED, s.config.path, sizeof(s.config.path));
    s.config.sector_bytes = 512;
    s.config.host_alignment_bytes = 4096;
    scene_connect(&s);
    assert_int_equal(truncate(s.config.path, (512 << 10) + 1024), 0);
    /* A part of a block that is gone cannot be written back, nor read. */
    assert_int_equal(blkguest_do(&s.guest, BLKIF_OP_WRITE, 1601, 0, 1, 0, 0), BLKIF_RSP_ERROR);
    assert_int_equal(blkguest_do(&s.guest, BLKIF_OP_READ, 1601, 0, 1, 0, 0), BLKIF_RSP_ERROR);
    assert_int_equal(blkguest_do(&s.guest, BLKIF_OP_READ, 1026, 0, 1, 0, 0), BLKIF_RSP_ERROR);
    assert_int_equal(blkguest_do(&s.guest, BLKIF_OP_READ, 1025, 0, 1, 0, 0), BLKIF_RSP_OKAY);
    assert_int_equal(number(&s, "storage"), 3);
    assert_int_equal(number(&s, "storage_full"), 0);
    assert_int_equal(number(&s, "last_io_errno"), EIO);
    assert_int_equal(blkguest_do(&s.guest, BLKIF_OP_WRITE, 9, 0, 1, 0, 0), BLKIF_RSP_OKAY);
    assert_int_equal(blkguest_do(&s.guest, BLKIF_OP_FLUSH_DISKCACHE, 0, 0, 0, 0, 0), BLKIF_RSP_OKAY);
    blkguest_check_served(&s.guest, SEED);
    scene_leave(&s);
    blkworld_stop(&s.world);
}

/* A loop device whose file was cut short: its driver answers with errors of its own. */
static void test_errors_of_a_device_reach_the_requests_they_belong_to(void **state)
{
    struct scene s = {0};
    char file[300], line[64];
    (void)state;
    blkworld_start(&s.world, NULL);
    blkworld_image(&s.world, "disk.img", 1 << 20, SEED, file, sizeof(file));
    if (geteuid() || !blkworld_shell(s.config.path, sizeof(s.config.path),
                                     "losetup --direct-io=on --show -f '%s' 2>/dev/null", file)) {
        print_message("skipped: no loop device can be made here\n");
        blkworld_stop(&s.world);
        skip();
    }
    s.config.direct_io = true;
    scene_connect(&s);
    assert_int_equal(truncate(file, 512 << 10), 0);
    uint64_t ids[16], id, bad = 0;
    for (unsigned i = 0; i < 16; i++)
        ids[i] = blkguest_put(&s.guest, BLKIF_OP_READ, i % 2 ? 1024 + i * 8 : i * 8, i, 1, 0, 7);
    blkguest_kick(&s.guest);
    for (unsigned i = 0; i < 16; i++) {
        bool error = blkguest_take(&s.guest, &id) != BLKIF_RSP_OKAY;
        unsigned which = (unsigned)(id - ids[0]);
        assert_in_range(which, 0, 15);
        bad += error;
        assert_true(!error || which % 2); /* only those behind the end */
    }
    assert_int_equal(number(&s, "storage"), bad);
    assert_true(bad == 8);
    blkguest_check_served(&s.guest, SEED);
    scene_leave(&s);
    assert_true(blkworld_shell(line, sizeof(line), "losetup -d '%s'", s.config.path));
    blkworld_stop(&s.world);
}

int main(int argc, char **argv)
{
    blkworld_child(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_truncated_image_fails_what_lay_behind_its_end_and_nothing_else),
        cmocka_unit_test(test_errors_of_a_device_reach_the_requests_they_belong_to),
        cmocka_unit_test(test_a_full_file_system_fails_the_writes_that_find_no_room_and_nothing_else),
        cmocka_unit_test(test_a_flush_that_lost_data_is_followed_by_none_that_succeeds_until_the_disk_is_closed),
    };
    return cmocka_run_group_tests_name("blk_trouble", tests, NULL, NULL);
}
