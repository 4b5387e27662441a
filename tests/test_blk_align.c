/* SPDX-License-Identifier: MIT */
/* Disks whose sectors are smaller than what their storage moves: every byte arrives, whatever the guest has in flight
 * at the same time, and none beside the disk changes. The storage is a file with `host-alignment` 4096, through the
 * page cache and with O_DIRECT, and, where root may make one, a loop device with sectors of 4096. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>

#include "grant/dma.h"
#include "tests/blkworld.h"
#include "tests/random.h"

#define FILE_BYTES   ((2u << 20) + 1536) /* it ends within a block */
#define FILE_SECTORS (FILE_BYTES / SECTOR_BYTES)
#define SEED         11u

struct disk {
    const char *name;
    bool direct_io, loop;
    uint64_t offset_sectors, size_sectors; /* size 0: to the end of the file */
    uint32_t alignment_bytes;
};

static const struct disk disks[] = {
    {"page cache, whole file", false, false, 0, 0, 4096},
    {"page cache, in the middle of blocks", false, false, 3, 1010, 4096},
    {"O_DIRECT, whole file", true, false, 0, 0, 4096},
    {"O_DIRECT, in the middle of blocks", true, false, 5, 1018, 4096},
    {"O_DIRECT, within one block", true, false, 9, 6, 4096},
    {"O_DIRECT, two parts and no whole block", true, false, 12, 8, 4096},
    {"O_DIRECT, what the file wants", true, false, 1, 3000, 0},
    {"loop device of 4096", true, true, 0, 0, 0},
    {"loop device of 4096, in the middle of blocks", true, true, 7, 2001, 0},
    {"loop device of 4096, page cache", false, true, 0, 0, 0},
};

struct scene {
    struct blkworld world;
    char dir[256], path[300], loop[64];
    uint16_t domid;
    struct keys_blk_config config;
    struct blkguest guest;
    uint64_t first, sectors; /* of the disk, in the file */
    unsigned char *file;     /* what ought to be in it */
    uint32_t file_bytes;     /* of it */
    uint64_t seed;
};

/* False: this machine has none of these, and says why. */
static bool scene_storage(struct scene *s, const struct disk *d)
{
    s->file_bytes = d->loop ? FILE_BYTES / 4096 * 4096 : FILE_BYTES;
    blkworld_image(&s->world, "disk.img", s->file_bytes, SEED, s->path, sizeof(s->path));
    assert_int_equal(truncate(s->path, s->file_bytes), 0); /* the pattern is written in whole pages */
    strcpy(s->config.path, s->path);
    if (d->loop) {
        if (geteuid() ||
            !blkworld_shell(s->loop, sizeof(s->loop), "losetup -b 4096 --show -f '%s' 2>/dev/null", s->path)) {
            print_message("skipped: %s: no loop device can be made here\n", d->name);
            s->loop[0] = 0;
            return false;
        }
        strcpy(s->config.path, s->loop);
    }
    int fd = open(s->config.path, O_RDWR | (d->direct_io ? O_DIRECT : 0));
    if (fd < 0)
        print_message("skipped: %s: no O_DIRECT here\n", d->name);
    else
        close(fd);
    return fd >= 0;
}

static void scene_end(struct scene *s)
{
    char line[64];
    blkworld_stop(&s->world);
    if (s->loop[0])
        assert_true(blkworld_shell(line, sizeof(line), "losetup -d %s", s->loop));
    free(s->file);
}

/* False: skipped. */
static bool scene_start(struct scene *s, const struct disk *d, const char *dma, const char *protocol)
{
    *s = (struct scene){.seed = 4711};
    blkworld_start(&s->world, NULL);
    if (!scene_storage(s, d)) {
        scene_end(s);
        return false;
    }
    s->file = malloc(s->file_bytes);
    blkworld_pattern(s->file, 0, s->file_bytes / SECTOR_BYTES, SEED);
    s->first = d->offset_sectors;
    s->sectors = d->size_sectors ? d->size_sectors : s->file_bytes / SECTOR_BYTES - s->first;
    s->config.offset_bytes = s->first * SECTOR_BYTES;
    s->config.size_bytes = d->size_sectors * SECTOR_BYTES;
    s->config.direct_io = d->direct_io;
    s->config.sector_bytes = 512;
    s->config.host_alignment_bytes = d->alignment_bytes;
    s->config.discard = true;
    snprintf(s->config.dma, sizeof(s->config.dma), "%s", dma);
    s->domid = blkworld_domain(&s->world, "guest", s->dir, sizeof(s->dir));
    blkworld_attach(&s->world, s->domid, BLKWORLD_DEVID, &s->config);
    blkguest_open(&s->guest, s->dir, BLKWORLD_DEVID);
    s->guest.order = 1;
    s->guest.fua = s->guest.write_zeroes = true;
    blkguest_connect(&s->guest, protocol);
    assert_int_equal(s->guest.disk.sectors, s->sectors);
    assert_int_equal(s->guest.disk.sector_bytes, 512);
    return true;
}

static void check_file(struct scene *s)
{
    unsigned char *now = malloc(s->file_bytes);
    _cleanup_close_ int fd = open(s->config.path, O_RDONLY);
    assert_int_equal(pread(fd, now, s->file_bytes, 0), s->file_bytes);
    for (uint32_t i = 0; i < s->file_bytes / SECTOR_BYTES; i++)
        if (memcmp(now + i * SECTOR_BYTES, s->file + i * SECTOR_BYTES, SECTOR_BYTES))
            fail_msg("sector %u of the file is not what was written (the disk: %u to %u)", i, (unsigned)s->first,
                     (unsigned)(s->first + s->sectors - 1));
    assert_int_equal(lseek(fd, 0, SEEK_END), s->file_bytes);
    free(now);
}

static void scene_stop(struct scene *s)
{
    assert_int_equal(blkguest_do(&s->guest, BLKIF_OP_FLUSH_DISKCACHE, 0, 0, 0, 0, 0), BLKIF_RSP_OKAY);
    blkguest_disconnect(&s->guest);
    blkguest_close(&s->guest);
    blkworld_wait_held(&s->world, s->domid, 0);
    check_file(s);
    scene_end(s);
}

/* ---- one request at a time: all offsets and lengths ---- */

/* A request of `count` sectors from `sector`, in pages from `page`: its first segment begins at `first`. */
static struct blkreq request_of(struct scene *s, uint8_t operation, uint64_t sector, unsigned count, unsigned page,
                                unsigned first)
{
    struct blkreq r = {.id = ++s->guest.next_id, .operation = operation, .sector = sector};
    while (count) {
        unsigned n = MIN(count, 8 - first);
        r.segment[r.segment_count++] =
            (struct blkreq_segment){s->guest.gref[page++ % BLKWORLD_PAGES], (uint8_t)first, (uint8_t)(first + n - 1)};
        count -= n;
        first = 0;
    }
    return r;
}

static void request_do(struct scene *s, const struct blkreq *r)
{
    uint64_t id;
    blkguest_put_raw(&s->guest, r);
    blkguest_kick(&s->guest);
    assert_int_equal(blkguest_take(&s->guest, &id), BLKIF_RSP_OKAY);
    assert_int_equal(id, r->id);
}

static unsigned char *place(struct scene *s, uint64_t sector)
{
    return s->file + (s->first + sector) * SECTOR_BYTES;
}

static void check_transfer(struct scene *s, uint64_t sector, unsigned count, unsigned first, bool durable)
{
    unsigned char *memory = s->guest.data + first * SECTOR_BYTES;
    blkworld_pattern(memory, random_next(&s->seed), count, 3);
    memcpy(place(s, sector), memory, count * SECTOR_BYTES);
    struct blkreq r = request_of(s, durable ? BLKREQ_OP_WRITE_FUA : BLKIF_OP_WRITE, sector, count, 0, first);
    request_do(s, &r);
    memset(s->guest.data, 0xee, 12 * PAGE_BYTES);
    r = request_of(s, BLKIF_OP_READ, sector, count, 0, first);
    request_do(s, &r);
    assert_memory_equal(memory, place(s, sector), count * SECTOR_BYTES);
    assert_true(first == 0 || memory[-1] == 0xee); /* and nothing beside it */
    assert_int_equal(memory[count * SECTOR_BYTES], 0xee);
}

static void test_every_offset_and_length_arrives_and_nothing_beside_it_changes(void **state)
{
    (void)state;
    for (unsigned d = 0; d < ARRAY_SIZE(disks); d++)
        for (unsigned row = 0; row < dma_strategy_count; row++) {
            struct scene s;
            if (!scene_start(&s, &disks[d], dma_strategies[row]->name, row ? "x86_32-abi" : NULL))
                continue;
            for (unsigned i = 0; i < 400; i++) {
                const unsigned first = random_next(&s.seed) % 8;
                const unsigned most = (unsigned)MIN(s.sectors, (uint64_t)(88 - first));
                const unsigned count = 1 + random_next(&s.seed) % (i % 2 ? MIN(most, 20u) : most);
                uint64_t sector = random_next(&s.seed) % (s.sectors - count + 1);
                if (i % 5 == 0)
                    sector = i % 2 ? 0 : s.sectors - count;            /* the ends */
                check_transfer(&s, sector, count, first, i % 31 == 0); /* durable: each waits for the drive */
            }
            check_file(&s);
            scene_stop(&s);
        }
}

static void test_large_requests_arrive(void **state)
{
    (void)state;
    for (unsigned d = 0; d < ARRAY_SIZE(disks); d++) {
        struct scene s;
        if (disks[d].size_sectors && disks[d].size_sectors < 1000)
            continue;
        if (!scene_start(&s, &disks[d], d % 2 ? "pin" : "copy", NULL))
            continue;
        for (unsigned i = 0; i < 24; i++) {
            const unsigned segments = i % 3 ? 256 : 12 + i;
            const unsigned first = i % 8, per_page = 8 - first;
            const unsigned count = (unsigned)MIN(s.sectors / per_page, (uint64_t)segments);
            const uint64_t sector = random_next(&s.seed) % (s.sectors - count * per_page + 1);
            for (unsigned p = 0; p < count; p++) {
                unsigned char *memory = s.guest.data + p * PAGE_BYTES + first * SECTOR_BYTES;
                blkworld_pattern(memory, random_next(&s.seed), per_page, i);
                memcpy(place(&s, sector + p * per_page), memory, per_page * SECTOR_BYTES);
            }
            assert_int_equal(blkguest_do_indirect(&s.guest, BLKIF_OP_WRITE, sector, 0, count, first, 7), 0);
            memset(s.guest.data, 0, count * PAGE_BYTES);
            assert_int_equal(blkguest_do_indirect(&s.guest, BLKIF_OP_READ, sector, 0, count, first, 7), 0);
            for (unsigned p = 0; p < count; p++)
                assert_memory_equal(s.guest.data + p * PAGE_BYTES + first * SECTOR_BYTES,
                                    place(&s, sector + p * per_page), per_page * SECTOR_BYTES);
        }
        scene_stop(&s);
    }
}

/* ---- a full ring: neighbours in one block at the same time ---- */

#define FLIGHT_MAX 64

struct flight {
    uint64_t id, sector;
    unsigned count, page, first;
    uint8_t operation;
};

struct storm {
    struct scene *s;
    struct flight flight[FLIGHT_MAX];
    unsigned in_flight;
    unsigned char busy[FILE_SECTORS]; /* sectors of the disk with a request in flight: their order is not defined */
    uint64_t where;                   /* what is hammered: a few blocks from here */
    unsigned width;
};

static bool is_busy(const struct storm *m, uint64_t sector, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (m->busy[sector + i])
            return true;
    return false;
}

static uint8_t storm_operation(struct scene *s)
{
    static const uint8_t operations[] = {BLKIF_OP_WRITE, BLKIF_OP_WRITE,      BLKIF_OP_WRITE,        BLKIF_OP_READ,
                                         BLKIF_OP_READ,  BLKREQ_OP_WRITE_FUA, BLKREQ_OP_WRITE_ZEROES};
    return operations[random_next(&s->seed) % ARRAY_SIZE(operations)];
}

/* Each request in flight has four pages of its own. */
static bool storm_put(struct storm *m, unsigned slot)
{
    struct scene *s = m->s;
    struct flight f = {.operation = storm_operation(s), .page = slot * 4, .first = random_next(&s->seed) % 8};
    f.count = 1 + random_next(&s->seed) % (random_next(&s->seed) % 4 ? 6 : 24);
    f.count = MIN(f.count, m->width);
    if (random_next(&s->seed) % 4 == 0) { /* whole blocks, beside parts of them */
        f.first = 0;
        f.count = MIN(8u, m->width);
    }
    f.sector = m->where + random_next(&s->seed) % (m->width - f.count + 1);
    if (is_busy(m, f.sector, f.count))
        return false;
    memset(m->busy + f.sector, 1, f.count);
    unsigned char *memory = s->guest.data + f.page * PAGE_BYTES + f.first * SECTOR_BYTES;
    if (f.operation == BLKREQ_OP_WRITE_ZEROES) {
        f.id = blkguest_put_span(&s->guest, f.operation, f.sector, f.count, random_next(&s->seed) % 2);
        memset(place(s, f.sector), 0, f.count * SECTOR_BYTES);
    } else {
        struct blkreq r = request_of(s, f.operation, f.sector, f.count, f.page, f.first);
        f.id = r.id;
        if (f.operation == BLKIF_OP_READ) {
            memset(memory, 0xdd, f.count * SECTOR_BYTES);
        } else {
            blkworld_pattern(memory, r.id, f.count, 21);
            memcpy(place(s, f.sector), memory, f.count * SECTOR_BYTES);
        }
        blkguest_put_raw(&s->guest, &r);
    }
    m->flight[slot] = f;
    m->in_flight++;
    return true;
}

static void storm_take(struct storm *m)
{
    struct scene *s = m->s;
    uint64_t id;
    unsigned slot = 0;
    assert_int_equal(blkguest_take(&s->guest, &id), BLKIF_RSP_OKAY);
    while (slot < FLIGHT_MAX && m->flight[slot].id != id)
        slot++;
    assert_in_range(slot, 0, FLIGHT_MAX - 1);
    struct flight *f = &m->flight[slot];
    if (f->operation == BLKIF_OP_READ)
        assert_memory_equal(s->guest.data + f->page * PAGE_BYTES + f->first * SECTOR_BYTES, place(s, f->sector),
                            f->count * SECTOR_BYTES);
    memset(m->busy + f->sector, 0, f->count);
    *f = (struct flight){0};
    m->in_flight--;
}

/* Many requests at a time to few blocks, no sector in two of them: each must find what the others left it. */
static void storm_run(struct scene *s, unsigned rounds)
{
    struct storm *m = calloc(1, sizeof(*m));
    m->s = s;
    m->width = (unsigned)MIN(s->sectors, (uint64_t)64);
    for (unsigned i = 0; i < rounds; i++) {
        const uint64_t last = s->sectors - m->width;
        m->where = i % 3 == 0 ? 0 : i % 3 == 1 ? last : random_next(&s->seed) % (last + 1);
        for (unsigned tries = 0; tries < 400; tries++) {
            unsigned slot = random_next(&s->seed) % FLIGHT_MAX;
            if (!m->flight[slot].id && ring_front_room(&s->guest.ring))
                storm_put(m, slot);
            if (tries % 16 == 15)
                blkguest_kick(&s->guest);
            if (m->in_flight > 24 || (m->in_flight && tries % 32 == 31)) {
                blkguest_kick(&s->guest);
                storm_take(m);
            }
        }
        blkguest_kick(&s->guest);
        while (m->in_flight)
            storm_take(m);
        check_file(s);
    }
    free(m);
}

static void test_requests_in_one_block_at_the_same_time_lose_nothing(void **state)
{
    (void)state;
    for (unsigned d = 0; d < ARRAY_SIZE(disks); d++) {
        struct scene s;
        if (!scene_start(&s, &disks[d], d % 2 ? "copy" : "pin", NULL))
            continue;
        storm_run(&s, 12);
        if (disks[d].alignment_bytes || disks[d].direct_io)
            assert_true(disks[d].alignment_bytes != 4096 ||
                        blkworld_stat(&s.world, s.domid, BLKWORLD_DEVID, "realigned", 1) > 100);
        scene_stop(&s);
    }
}

/* Two disks that meet within a block, written by two guests at the same time. */
static void test_disks_that_share_a_block_do_not_lose_each_others_writes(void **state)
{
    static const struct disk low = {"O_DIRECT, low", true, false, 0, 1003, 4096};
    struct scene s;
    char dir[256];
    struct blkguest other;
    (void)state;
    if (!scene_start(&s, &low, "pin", NULL))
        skip();
    struct keys_blk_config config = s.config;
    config.offset_bytes = 1003 * SECTOR_BYTES;
    config.size_bytes = 500 * SECTOR_BYTES;
    uint16_t domid = blkworld_domain(&s.world, "other", dir, sizeof(dir));
    blkworld_attach(&s.world, domid, BLKWORLD_DEVID, &config);
    blkguest_open(&other, dir, BLKWORLD_DEVID);
    blkguest_connect(&other, NULL);
    for (unsigned i = 0; i < 500; i++) {
        uint64_t id;
        blkworld_pattern(s.guest.data, i, 1, 1);
        blkworld_pattern(other.data, i, 1, 2);
        blkguest_put(&s.guest, BLKIF_OP_WRITE, 1002 - i % 3, 0, 1, 0, 0);
        blkguest_put(&other, BLKIF_OP_WRITE, i % 5, 0, 1, 0, 0);
        memcpy(s.file + (1002 - i % 3) * SECTOR_BYTES, s.guest.data, SECTOR_BYTES);
        memcpy(s.file + (1003 + i % 5) * SECTOR_BYTES, other.data, SECTOR_BYTES);
        blkguest_kick(&s.guest);
        blkguest_kick(&other);
        assert_int_equal(blkguest_take(&s.guest, &id), BLKIF_RSP_OKAY);
        assert_int_equal(blkguest_take(&other, &id), BLKIF_RSP_OKAY);
    }
    check_file(&s);
    blkguest_disconnect(&other);
    blkguest_close(&other);
    scene_stop(&s);
}

/* ---- ends in the midst of it ---- */

static void test_a_guest_killed_amid_parts_of_blocks_leaves_nothing_held(void **state)
{
    struct blkworld w;
    char dir[256];
    struct keys_blk_config c = {.offset_bytes = 3 * SECTOR_BYTES, .sector_bytes = 512, .host_alignment_bytes = 4096};
    (void)state;
    blkworld_start(&w, NULL);
    uint16_t domid = blkworld_domain(&w, "guest", dir, sizeof(dir));
    blkworld_image(&w, "disk.img", 2u << 20, SEED, c.path, sizeof(c.path));
    blkworld_attach(&w, domid, BLKWORLD_DEVID, &c);
    for (unsigned round = 0; round < 4; round++) {
        uint64_t before = blkworld_stat(&w, domid, BLKWORLD_DEVID, "realigned", 0);
        pid_t pid = blkworld_guest_process(dir);
        blkworld_stat(&w, domid, BLKWORLD_DEVID, "realigned", before + 100);
        blkworld_kill(pid);
        blkworld_wait_back(&w, domid, BLKWORLD_DEVID, XenbusStateClosed);
        blkworld_wait_held(&w, domid, 0);
    }
    blkworld_stop(&w);
}

static void test_a_detach_amid_parts_of_blocks_waits_for_all_of_them(void **state)
{
    static const struct disk disk = {"page cache", false, false, 3, 1010, 4096};
    struct scene s;
    (void)state;
    if (!scene_start(&s, &disk, "pin", NULL))
        skip();
    for (unsigned i = 0; i < 16; i++) { /* all in three blocks, and nobody takes the answers */
        memset(s.guest.data + i * PAGE_BYTES, (int)i, SECTOR_BYTES);
        memset(place(&s, i), (int)i, SECTOR_BYTES);
        struct blkreq r = request_of(&s, BLKIF_OP_WRITE, i, 1, i, 0);
        blkguest_put_raw(&s.guest, &r);
    }
    blkguest_kick(&s.guest);
    blkworld_stat(&s.world, s.domid, BLKWORLD_DEVID, "requests", 16);
    blkguest_disconnect(&s.guest);
    blkguest_close(&s.guest);
    blkworld_wait_held(&s.world, s.domid, 0);
    check_file(&s);
    scene_end(&s);
}

/* ---- the other combinations ---- */

static void test_a_disk_has_the_sectors_that_its_storage_suits_or_that_it_was_given(void **state)
{
    static const struct {
        uint32_t sector, physical, alignment;
        uint64_t size_sectors;
        uint32_t sector_shown, physical_shown; /* 0: it cannot be */
    } rows[] = {
        {0, 0, 512, 2048, 512, 4096},       {0, 0, 4096, 2048, 4096, 4096},       {512, 0, 4096, 2048, 512, 4096},
        {512, 512, 4096, 2048, 512, 512},   {512, 4096, 512, 2048, 512, 4096},    {4096, 0, 512, 2048, 4096, 4096},
        {4096, 512, 512, 2048, 4096, 4096}, {4096, 4096, 4096, 2048, 4096, 4096}, {0, 0, 4096, 2047, 512, 512},
        {512, 0, 4096, 2047, 512, 512},     {512, 4096, 512, 2047, 0, 0},         {4096, 0, 512, 2047, 0, 0}};
    struct blkworld w;
    struct blkguest g;
    char dir[256];
    struct keys_blk_config c = {0};
    (void)state;
    blkworld_start(&w, NULL);
    uint16_t domid = blkworld_domain(&w, "guest", dir, sizeof(dir));
    blkworld_image(&w, "disk.img", 2u << 20, SEED, c.path, sizeof(c.path));
    blkguest_open(&g, dir, BLKWORLD_DEVID);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        c.sector_bytes = rows[i].sector;
        c.physical_sector_bytes = rows[i].physical;
        c.host_alignment_bytes = rows[i].alignment;
        c.size_bytes = rows[i].size_sectors * SECTOR_BYTES;
        blkworld_attach(&w, domid, BLKWORLD_DEVID, &c);
        if (!rows[i].sector_shown) {
            char text[512];
            blkworld_wait_back(&w, domid, BLKWORLD_DEVID, XenbusStateClosed);
            blkworld_error(&w, domid, BLKWORLD_DEVID, text, sizeof(text));
            assert_non_null(strstr(text, "is not a multiple of 4096"));
            blkworld_remove(&w, domid, BLKWORLD_DEVID);
            continue;
        }
        blkguest_switch(&g, XenbusStateInitialising);
        blkguest_connect(&g, NULL);
        assert_int_equal(g.disk.sectors, rows[i].size_sectors);
        assert_int_equal(g.disk.sector_bytes, rows[i].sector_shown);
        assert_int_equal(g.disk.physical_sector_bytes, rows[i].physical_shown);
        int16_t part = rows[i].sector_shown == 512 ? BLKIF_RSP_OKAY : BLKIF_RSP_ERROR;
        assert_int_equal(blkguest_do(&g, BLKIF_OP_READ, 1, 0, 1, 3, 3), part);
        blkguest_check_served(&g, SEED);
        blkguest_disconnect(&g);
        blkworld_remove(&w, domid, BLKWORLD_DEVID);
    }
    blkguest_close(&g);
    blkworld_stop(&w);
}

int main(int argc, char **argv)
{
    blkworld_child(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_offset_and_length_arrives_and_nothing_beside_it_changes),
        cmocka_unit_test(test_large_requests_arrive),
        cmocka_unit_test(test_requests_in_one_block_at_the_same_time_lose_nothing),
        cmocka_unit_test(test_disks_that_share_a_block_do_not_lose_each_others_writes),
        cmocka_unit_test(test_a_guest_killed_amid_parts_of_blocks_leaves_nothing_held),
        cmocka_unit_test(test_a_detach_amid_parts_of_blocks_waits_for_all_of_them),
        cmocka_unit_test(test_a_disk_has_the_sectors_that_its_storage_suits_or_that_it_was_given),
    };
    return cmocka_run_group_tests_name("blk_align", tests, NULL, NULL);
}
