/* SPDX-License-Identifier: MIT */
/* Write-zeroes and durable writes against the real blk role, from agreeing on them to what is in the file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

#include "tests/blkworld.h"

#define DISK_BYTES   (4u << 20)
#define DISK_SECTORS (DISK_BYTES / SECTOR_BYTES)
#define SEED         9u

struct scene {
    struct blkworld world;
    char dir[256];
    uint16_t domid;
    struct keys_blk_config config;
    struct blkguest guest;
    unsigned char *file; /* what ought to be in it */
    int fd;
};

static void scene_world(struct scene *s)
{
    *s = (struct scene){.config = {.discard = true}};
    blkworld_start(&s->world, NULL);
    s->domid = blkworld_domain(&s->world, "guest", s->dir, sizeof(s->dir));
    blkworld_image(&s->world, "disk.img", DISK_BYTES, SEED, s->config.path, sizeof(s->config.path));
    s->file = malloc(DISK_BYTES);
    blkworld_pattern(s->file, 0, DISK_SECTORS, SEED);
    s->fd = open(s->config.path, O_RDWR);
    blkguest_open(&s->guest, s->dir, BLKWORLD_DEVID);
    s->guest.fua = s->guest.write_zeroes = true;
}

static void scene_connect(struct scene *s, const char *protocol)
{
    blkworld_attach(&s->world, s->domid, BLKWORLD_DEVID, &s->config);
    blkguest_connect(&s->guest, protocol);
}

static void scene_stop(struct scene *s)
{
    blkguest_disconnect(&s->guest);
    blkguest_close(&s->guest);
    blkworld_wait_held(&s->world, s->domid, 0);
    blkworld_stop(&s->world);
    free(s->file);
    close(s->fd);
}

static void check_file(struct scene *s)
{
    unsigned char *now = malloc(DISK_BYTES);
    assert_int_equal(pread(s->fd, now, DISK_BYTES, 0), DISK_BYTES);
    assert_memory_equal(now, s->file, DISK_BYTES);
    free(now);
}

static int16_t zero(struct scene *s, uint64_t sector, uint64_t count, uint8_t flag)
{
    int16_t status = blkguest_do_span(&s->guest, BLKREQ_OP_WRITE_ZEROES, sector, count, flag);
    if (status == BLKIF_RSP_OKAY)
        memset(s->file + sector * SECTOR_BYTES, 0, count * SECTOR_BYTES);
    return status;
}

static uint64_t allocated(struct scene *s)
{
    struct stat st;
    assert_int_equal(fsync(s->fd), 0);
    assert_int_equal(fstat(s->fd, &st), 0);
    assert_int_equal(st.st_size, DISK_BYTES);
    return (uint64_t)st.st_blocks * 512;
}

static void test_zeroes_are_written_in_both_abis_with_and_without_giving_storage_back(void **state)
{
    static const char *const protocols[] = {"x86_64-abi", "x86_32-abi"};
    (void)state;
    for (unsigned p = 0; p < ARRAY_SIZE(protocols); p++) {
        struct scene s;
        scene_world(&s);
        scene_connect(&s, protocols[p]);
        uint64_t full = allocated(&s);
        assert_int_equal(zero(&s, 3, 1, 0), BLKIF_RSP_OKAY);
        assert_int_equal(zero(&s, 7, 2, 0), BLKIF_RSP_OKAY); /* across blocks of the file system */
        assert_int_equal(zero(&s, 1024, 2048, 0), BLKIF_RSP_OKAY);
        check_file(&s);
        assert_true(allocated(&s) >= full);
        assert_int_equal(zero(&s, 4096, 1024, BLKREQ_ZEROES_MAY_UNMAP), BLKIF_RSP_OKAY);
        assert_int_equal(zero(&s, DISK_SECTORS - 1, 1, BLKREQ_ZEROES_MAY_UNMAP), BLKIF_RSP_OKAY);
        check_file(&s);
        assert_true(allocated(&s) < full);
        assert_int_equal(blkworld_stat(&s.world, s.domid, BLKWORLD_DEVID, "write_zeroes", 5), 5);
        assert_int_equal(blkworld_stat(&s.world, s.domid, BLKWORLD_DEVID, "sectors_zeroed", 1),
                         1 + 2 + 2048 + 1024 + 1);
        scene_stop(&s);
    }
}

static void test_storage_is_not_given_back_where_the_toolstack_forbids_discards(void **state)
{
    struct scene s;
    (void)state;
    scene_world(&s);
    s.config.discard = false;
    scene_connect(&s, NULL);
    uint64_t full = allocated(&s);
    assert_int_equal(zero(&s, 0, 4096, BLKREQ_ZEROES_MAY_UNMAP), BLKIF_RSP_OKAY);
    check_file(&s);
    assert_true(allocated(&s) >= full);
    scene_stop(&s);
}

/* tmpfs punches holes and knows no ranges of zeroes: they are written. */
static void test_a_file_system_that_cannot_zero_gets_zeroes_written(void **state)
{
    struct scene s;
    struct statfs fs;
    char path[] = "/dev/shm/domzero-zero-XXXXXX";
    (void)state;
    if (statfs("/dev/shm", &fs) || fs.f_type != 0x01021994) {
        print_message("skipped: /dev/shm is no tmpfs\n");
        skip();
    }
    scene_world(&s);
    close(s.fd);
    s.fd = mkstemp(path);
    assert_int_equal(pwrite(s.fd, s.file, DISK_BYTES, 0), DISK_BYTES);
    strcpy(s.config.path, path);
    assert_true(fallocate(s.fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 0, 4096) && errno == EOPNOTSUPP);
    scene_connect(&s, NULL);
    uint64_t full = allocated(&s);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(zero(&s, 1 + i * 17, 5, 0), BLKIF_RSP_OKAY);
        assert_int_equal(zero(&s, 1023 + i, 4097, 0), BLKIF_RSP_OKAY); /* more than goes at once */
        check_file(&s);
    }
    assert_true(allocated(&s) >= full);
    assert_int_equal(zero(&s, 0, 4096, BLKREQ_ZEROES_MAY_UNMAP), BLKIF_RSP_OKAY);
    check_file(&s);
    assert_true(allocated(&s) < full);
    scene_stop(&s);
    unlink(path);
}

static void test_zeroes_discards_and_writes_wait_for_each_other_and_none_is_lost(void **state)
{
    struct scene s;
    uint64_t id;
    (void)state;
    scene_world(&s);
    s.guest.order = 2;
    scene_connect(&s, NULL);
    memset(s.guest.data, 0x5a, 64 * PAGE_BYTES);
    for (unsigned round = 0; round < 20; round++) {
        unsigned out = 0;
        for (; ring_front_room(&s.guest.ring); out++) {
            uint64_t sector = out * 16;
            if (out % 3 == 0)
                blkguest_put(&s.guest, out % 2 ? BLKREQ_OP_WRITE_FUA : BLKIF_OP_WRITE, sector, out % 64, 1, 0, 7);
            else
                blkguest_put_span(&s.guest, out % 3 == 1 ? BLKIF_OP_DISCARD : BLKREQ_OP_WRITE_ZEROES, sector, 8, 0);
            memset(s.file + sector * SECTOR_BYTES, out % 3 ? 0 : 0x5a, PAGE_BYTES);
        }
        blkguest_kick(&s.guest);
        for (; out; out--)
            assert_int_equal(blkguest_take(&s.guest, &id), BLKIF_RSP_OKAY);
        check_file(&s);
    }
    while (ring_front_room(&s.guest.ring)) /* and an end in their midst */
        blkguest_put_span(&s.guest, BLKREQ_OP_WRITE_ZEROES, 0, 4096, 0);
    blkguest_kick(&s.guest);
    scene_stop(&s);
}

/* ---- durable writes ---- */

/* <linux/mman.h> of newer kernels */
struct range_asked {
    uint64_t offset, length;
};
struct range_cached {
    uint64_t cached, dirty, writeback, evicted, recently_evicted;
};
#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif

/* Pages of it that are not on storage yet; -1: the kernel does not tell. */
static int64_t dirty(struct scene *s, uint64_t sector, uint64_t count)
{
    struct range_asked ask = {sector * SECTOR_BYTES, count * SECTOR_BYTES};
    struct range_cached c = {0};
    struct statfs fs;
    if (fstatfs(s->fd, &fs) || fs.f_type == 0x01021994 || syscall(SYS_cachestat, s->fd, &ask, &c, 0))
        return -1;
    return (int64_t)(c.dirty + c.writeback);
}

static void test_a_durable_write_is_on_storage_when_it_is_answered(void **state)
{
    struct scene s;
    bool seen_dirty = false;
    (void)state;
    scene_world(&s);
    assert_int_equal(fsync(s.fd), 0);
    scene_connect(&s, NULL);
    if (dirty(&s, 0, 8) < 0)
        print_message("the kernel does not tell what is dirty: only the data is checked\n");
    for (unsigned i = 0; i < 40; i++) {
        const unsigned segments = 1 + i % 11;
        const uint64_t sector = i * 96;
        bool large = i % 4 == 3, durable = i % 2;
        blkworld_pattern(s.guest.data, sector, segments * 8, 77);
        memcpy(s.file + sector * SECTOR_BYTES, s.guest.data, segments * PAGE_BYTES);
        const uint8_t operation = durable ? BLKREQ_OP_WRITE_FUA : BLKIF_OP_WRITE;
        assert_int_equal(large ? blkguest_do_indirect(&s.guest, operation, sector, 0, segments, 0, 7)
                               : blkguest_do(&s.guest, operation, sector, 0, segments, 0, 7),
                         BLKIF_RSP_OKAY);
        if (durable)
            assert_true(dirty(&s, sector, segments * 8) <= 0);
        else
            seen_dirty |= dirty(&s, sector, segments * 8) > 0;
    }
    assert_true(seen_dirty || dirty(&s, 0, 8) < 0); /* or the test sees nothing at all */
    check_file(&s);
    assert_int_equal(blkworld_stat(&s.world, s.domid, BLKWORLD_DEVID, "writes", 40), 40);
    assert_int_equal(blkworld_stat(&s.world, s.domid, BLKWORLD_DEVID, "syncs", 0), 0); /* it syncs nothing else */
    scene_stop(&s);
}

static void test_a_durable_write_with_direct_io(void **state)
{
    struct scene s;
    (void)state;
    scene_world(&s);
    int probe = open(s.config.path, O_RDWR | O_DIRECT);
    if (probe < 0) {
        print_message("skipped: no O_DIRECT here\n");
        scene_connect(&s, NULL);
        scene_stop(&s);
        skip();
    }
    close(probe);
    s.config.direct_io = true;
    scene_connect(&s, NULL);
    memset(s.guest.data, 0x3c, 11 * PAGE_BYTES);
    for (unsigned i = 0; i < 20; i++) {
        assert_int_equal(blkguest_do(&s.guest, BLKREQ_OP_WRITE_FUA, i * 88, 0, 11, 0, 7), BLKIF_RSP_OKAY);
        memset(s.file + i * 11 * PAGE_BYTES, 0x3c, 11 * PAGE_BYTES);
    }
    check_file(&s);
    scene_stop(&s);
}

/* ---- agreeing, and not ---- */

static void test_an_extension_takes_both_ends(void **state)
{
    (void)state;
    for (unsigned takes = 0; takes < 4; takes++) {
        struct scene s;
        scene_world(&s);
        s.guest.fua = takes & 1;
        s.guest.write_zeroes = takes & 2;
        scene_connect(&s, NULL);
        struct keys_blk_features f;
        assert_int_equal(keys_blk_features_read(&s.guest.xb, &f, NULL), 0);
        assert_true(f.fua && f.max_write_zeroes_sectors >= DISK_SECTORS); /* the offer is there for everybody */
        int16_t fua = takes & 1 ? BLKIF_RSP_OKAY : BLKIF_RSP_EOPNOTSUPP;
        int16_t zeroes = takes & 2 ? BLKIF_RSP_OKAY : BLKIF_RSP_EOPNOTSUPP;
        memcpy(s.guest.data, s.file, PAGE_BYTES);
        assert_int_equal(blkguest_do(&s.guest, BLKREQ_OP_WRITE_FUA, 0, 0, 1, 0, 7), fua);
        assert_int_equal(blkguest_do_indirect(&s.guest, BLKREQ_OP_WRITE_FUA, 0, 0, 1, 0, 7), fua);
        assert_int_equal(zero(&s, 0, 8, 0), zeroes);
        check_file(&s);
        scene_stop(&s);
    }
}

static void test_a_read_only_disk_offers_none_and_does_none(void **state)
{
    struct scene s;
    struct keys_blk_features f;
    (void)state;
    scene_world(&s);
    s.config.readonly = true;
    scene_connect(&s, NULL);
    assert_int_equal(keys_blk_features_read(&s.guest.xb, &f, NULL), 0);
    assert_true(!f.fua && !f.max_write_zeroes_sectors);
    assert_int_equal(blkguest_do(&s.guest, BLKREQ_OP_WRITE_FUA, 0, 0, 1, 0, 7), BLKIF_RSP_EOPNOTSUPP);
    assert_int_equal(zero(&s, 0, 8, BLKREQ_ZEROES_MAY_UNMAP), BLKIF_RSP_EOPNOTSUPP);
    check_file(&s);
    scene_stop(&s);
}

/* What a guest that took them may yet send. */
static void test_bad_extensions_get_their_answer_and_change_nothing(void **state)
{
    static const struct {
        uint64_t sector, count;
        uint8_t flag;
        int16_t status;
    } rows[] = {{0, 0, 0, BLKIF_RSP_ERROR},
                {DISK_SECTORS, 1, 0, BLKIF_RSP_ERROR},
                {0, DISK_SECTORS + 1, 0, BLKIF_RSP_ERROR},
                {8, UINT64_MAX - 7, 1, BLKIF_RSP_ERROR},
                {UINT64_MAX, 1, 0, BLKIF_RSP_ERROR},
                {1ull << 55, 8, 0, BLKIF_RSP_ERROR},
                {0, 1ull << 55, 1, BLKIF_RSP_ERROR},
                {0, 8, 2, BLKIF_RSP_EOPNOTSUPP},
                {0, 8, 0xff, BLKIF_RSP_EOPNOTSUPP}};
    struct scene s;
    (void)state;
    scene_world(&s);
    scene_connect(&s, NULL);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        assert_int_equal(zero(&s, rows[i].sector, rows[i].count, rows[i].flag), rows[i].status);
    assert_int_equal(blkguest_do(&s.guest, BLKREQ_OP_WRITE_FUA, 0, 0, 0, 0, 0), BLKIF_RSP_ERROR);
    assert_int_equal(blkguest_do(&s.guest, BLKREQ_OP_WRITE_FUA, DISK_SECTORS - 1, 0, 1, 0, 7), BLKIF_RSP_ERROR);
    assert_int_equal(blkguest_do(&s.guest, BLKREQ_OP_WRITE_FUA, 1ull << 55, 0, 1, 0, 7), BLKIF_RSP_ERROR);
    assert_int_equal(blkguest_do(&s.guest, BLKREQ_OP_WRITE_FUA, 0, 0, 1, 5, 4), BLKIF_RSP_ERROR);
    assert_int_equal(blkguest_do_indirect(&s.guest, BLKREQ_OP_WRITE_ZEROES, 0, 0, 1, 0, 7), BLKIF_RSP_EOPNOTSUPP);
    assert_int_equal(blkguest_do(&s.guest, 0xd2, 0, 0, 1, 0, 7), BLKIF_RSP_EOPNOTSUPP);
    check_file(&s);
    blkguest_check_served(&s.guest, SEED);
    scene_stop(&s);
}

/* ---- what a disk is ---- */

static void test_a_cdrom_is_shown_as_one_and_never_written_whatever_its_mode_says(void **state)
{
    struct scene s;
    (void)state;
    scene_world(&s);
    s.config.cdrom = true;
    blkworld_attach(&s.world, s.domid, BLKWORLD_DEVID, &s.config);
    blkworld_wait_back(&s.world, s.domid, BLKWORLD_DEVID, XenbusStateInitWait);
    blkworld_store_ok(store_write(s.world.store, STORE_NO_TX, "w", "/local/domain/0/backend/vbd/%u/%u/mode", s.domid,
                                  BLKWORLD_DEVID)); /* also when it is read again */
    blkguest_connect(&s.guest, NULL);
    assert_int_equal(s.guest.disk.info, KEYS_BLK_INFO_CDROM | KEYS_BLK_INFO_REMOVABLE | KEYS_BLK_INFO_READONLY);
    assert_int_equal(blkguest_do(&s.guest, BLKIF_OP_WRITE, 0, 0, 1, 0, 7), BLKIF_RSP_ERROR);
    assert_int_equal(blkguest_do(&s.guest, BLKIF_OP_FLUSH_DISKCACHE, 0, 0, 1, 0, 7), BLKIF_RSP_ERROR);
    assert_int_equal(blkguest_do_span(&s.guest, BLKIF_OP_DISCARD, 0, 8, 0), BLKIF_RSP_EOPNOTSUPP);
    blkguest_check_served(&s.guest, SEED);
    check_file(&s);
    scene_stop(&s);
}

static void test_removable_is_a_property_of_its_own(void **state)
{
    struct scene s;
    (void)state;
    scene_world(&s);
    s.config.removable = true;
    scene_connect(&s, NULL);
    assert_int_equal(s.guest.disk.info, KEYS_BLK_INFO_REMOVABLE);
    assert_int_equal(blkguest_do(&s.guest, BLKREQ_OP_WRITE_FUA, 0, 0, 1, 0, 0), BLKIF_RSP_OKAY);
    scene_stop(&s);
}

/* The first whole block of the storage is where the guest is told, counted from its disk's beginning. */
static void test_discards_are_shown_where_the_storages_blocks_lie(void **state)
{
    struct scene s;
    (void)state;
    for (unsigned sectors = 0; sectors < 9; sectors++) {
        scene_world(&s);
        s.config.offset_bytes = sectors * SECTOR_BYTES;
        s.config.sector_bytes = 512;
        s.config.host_alignment_bytes = 4096;
        scene_connect(&s, NULL);
        assert_true(s.guest.disk.discard);
        assert_int_equal(s.guest.disk.discard_granularity_bytes, 4096);
        assert_int_equal(s.guest.disk.discard_alignment_bytes, (8 - sectors % 8) % 8 * SECTOR_BYTES);
        scene_stop(&s);
    }
}

static void test_a_secure_discard_is_not_offered_and_not_done(void **state)
{
    struct scene s;
    _cleanup_free_ char *text = NULL;
    (void)state;
    scene_world(&s);
    scene_connect(&s, NULL);
    assert_int_equal(store_read(s.guest.store, STORE_NO_TX, &text, NULL, "%s/discard-secure", s.guest.xb.peer_dir), 0);
    assert_string_equal(text, "0");
    assert_int_equal(blkguest_do_span(&s.guest, BLKIF_OP_DISCARD, 0, 8, BLKIF_DISCARD_SECURE), BLKIF_RSP_EOPNOTSUPP);
    check_file(&s);
    assert_int_equal(blkguest_do_span(&s.guest, BLKIF_OP_DISCARD, 0, 8, 0), BLKIF_RSP_OKAY);
    scene_stop(&s);
}

int main(int argc, char **argv)
{
    blkworld_child(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zeroes_are_written_in_both_abis_with_and_without_giving_storage_back),
        cmocka_unit_test(test_storage_is_not_given_back_where_the_toolstack_forbids_discards),
        cmocka_unit_test(test_a_file_system_that_cannot_zero_gets_zeroes_written),
        cmocka_unit_test(test_zeroes_discards_and_writes_wait_for_each_other_and_none_is_lost),
        cmocka_unit_test(test_a_durable_write_is_on_storage_when_it_is_answered),
        cmocka_unit_test(test_a_durable_write_with_direct_io),
        cmocka_unit_test(test_an_extension_takes_both_ends),
        cmocka_unit_test(test_a_read_only_disk_offers_none_and_does_none),
        cmocka_unit_test(test_bad_extensions_get_their_answer_and_change_nothing),
        cmocka_unit_test(test_a_cdrom_is_shown_as_one_and_never_written_whatever_its_mode_says),
        cmocka_unit_test(test_removable_is_a_property_of_its_own),
        cmocka_unit_test(test_discards_are_shown_where_the_storages_blocks_lie),
        cmocka_unit_test(test_a_secure_discard_is_not_offered_and_not_done),
    };
    return cmocka_run_group_tests_name("blk_extensions", tests, NULL, NULL);
}
