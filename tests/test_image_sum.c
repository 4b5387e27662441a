/* SPDX-License-Identifier: MIT */
/* Images whose blocks have checksums (backend/blk/image_sum.h): what is bad is found and is never data, what is good is
 * never called bad, whatever the guest does to its memory meanwhile; alone, and under a guest in each DMA strategy. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <zlib.h>

#include "backend/blk/image.h"
#include "backend/blk/image_sum.h"
#include "grant/dma.h"
#include "tests/blkworld.h"
#include "tests/random.h"

#define BLOCK       IMAGE_SUM_BLOCK_BYTES
#define BLOCKS      256u
#define DISK_BYTES  (BLOCKS * BLOCK)
#define BLOCK_SECTS (BLOCK / SECTOR_BYTES)
#define SEED        11

/* ---- the format alone ---- */

struct alone {
    char dir[64], path[96], sums[112];
    struct image *image;
};

static void alone_open(struct alone *a)
{
    const struct image_config c = {.path = a->path};
    struct err e;
    if (image_open("sum", &c, &a->image, &e))
        fail_msg("%s", e.text);
}

static void alone_close(struct alone *a)
{
    image_close(take_ptr(a->image));
}

static void alone_start(struct alone *a)
{
    *a = (struct alone){.dir = "/tmp/sumXXXXXX"};
    assert_non_null(mkdtemp(a->dir));
    snprintf(a->path, sizeof(a->path), "%s/disk", a->dir);
    snprintf(a->sums, sizeof(a->sums), "%s" IMAGE_SUM_SUFFIX, a->path);
    int fd = open(a->path, O_CREAT | O_RDWR, 0600);
    assert_int_equal(ftruncate(fd, DISK_BYTES), 0);
    close(fd);
    alone_open(a);
}

static void alone_end(struct alone *a)
{
    if (a->image)
        alone_close(a);
    unlink(a->path);
    unlink(a->sums);
    rmdir(a->dir);
}

static void block_fill(unsigned char data[BLOCK], unsigned mark)
{
    blkworld_pattern(data, mark * 8, 8, SEED);
}

static int seal(const struct alone *a, enum image_seal event, unsigned block, unsigned mark)
{
    unsigned char data[BLOCK];
    block_fill(data, mark);
    return a->image->format->seal(a->image, event, (uint64_t)block * BLOCK, data, BLOCK);
}

/* What the storage would be told. */
static void store(const struct alone *a, unsigned block, unsigned mark)
{
    unsigned char data[BLOCK];
    block_fill(data, mark);
    assert_int_equal(pwrite(a->image->fd, data, BLOCK, (off_t)block * BLOCK), BLOCK);
}

static void write_all(const struct alone *a, unsigned block, unsigned mark)
{
    assert_int_equal(seal(a, IMAGE_SEAL_WRITE, block, mark), 0);
    store(a, block, mark);
    assert_int_equal(seal(a, IMAGE_SEAL_WROTE, block, mark), 0);
}

static void test_a_block_is_checked_from_its_first_write_on(void **state)
{
    struct alone a;
    (void)state;
    alone_start(&a);
    assert_true(a.image->stable_data && a.image->realigns);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(seal(&a, IMAGE_SEAL_READ, 7, i), 0); /* nobody knows */
    write_all(&a, 7, 1);
    for (int again = 0; again < 2; again++) {
        assert_int_equal(seal(&a, IMAGE_SEAL_READ, 7, 1), 0);
        assert_int_equal(seal(&a, IMAGE_SEAL_READ, 7, 2), -EIO);
        assert_int_equal(seal(&a, IMAGE_SEAL_READ, 6, 2), 0);
        assert_int_equal(seal(&a, IMAGE_SEAL_READ, BLOCKS - 1, 2), 0);
        alone_close(&a);
        alone_open(&a);
    }
    write_all(&a, 7, 3);
    assert_int_equal(seal(&a, IMAGE_SEAL_READ, 7, 1), -EIO); /* a write that was lost */
    alone_end(&a);
}

/* The role is killed between the first seal and the last, before the data is there or after: neither is bad, anything
 * else is; and it is settled when the block is written again. */
static void test_an_interrupted_write_leaves_the_old_or_the_new(void **state)
{
    (void)state;
    for (unsigned there = 1; there <= 2; there++) {
        struct alone a;
        alone_start(&a);
        write_all(&a, 5, 1);
        assert_int_equal(seal(&a, IMAGE_SEAL_WRITE, 5, 2), 0);
        store(&a, 5, there);
        alone_close(&a);
        alone_open(&a);
        assert_int_equal(seal(&a, IMAGE_SEAL_READ, 5, 1), 0);
        assert_int_equal(seal(&a, IMAGE_SEAL_READ, 5, 2), 0);
        assert_int_equal(seal(&a, IMAGE_SEAL_READ, 5, 3), -EIO);
        assert_int_equal(seal(&a, IMAGE_SEAL_WRITE, 5, 4), 0); /* interrupted, too */
        assert_int_equal(seal(&a, IMAGE_SEAL_READ, 5, there), 0);
        assert_int_equal(seal(&a, IMAGE_SEAL_READ, 5, 4), 0);
        assert_int_equal(seal(&a, IMAGE_SEAL_READ, 5, 3 - there), -EIO);
        store(&a, 5, 4);
        assert_int_equal(seal(&a, IMAGE_SEAL_WROTE, 5, 4), 0);
        assert_int_equal(seal(&a, IMAGE_SEAL_READ, 5, there), -EIO);
        assert_int_equal(seal(&a, IMAGE_SEAL_READ, 5, 4), 0);
        alone_end(&a);
    }
}

/* A part of a block is there: it is bad until it is written again, and is not made good by that write's beginning. */
static void test_a_torn_block_is_bad_until_it_is_written(void **state)
{
    struct alone a;
    (void)state;
    alone_start(&a);
    write_all(&a, 5, 1);
    assert_int_equal(seal(&a, IMAGE_SEAL_WRITE, 5, 2), 0);
    store(&a, 5, 9);
    assert_int_equal(seal(&a, IMAGE_SEAL_READ, 5, 9), -EIO);
    assert_int_equal(seal(&a, IMAGE_SEAL_WRITE, 5, 3), 0);
    assert_int_equal(seal(&a, IMAGE_SEAL_READ, 5, 9), -EIO);
    store(&a, 5, 3);
    assert_int_equal(seal(&a, IMAGE_SEAL_WROTE, 5, 3), 0);
    assert_int_equal(seal(&a, IMAGE_SEAL_READ, 5, 3), 0);
    alone_end(&a);
}

static void head_change(const struct alone *a, void (*change)(struct image_sum_head *h), struct image_sum_head *out)
{
    int fd = open(a->sums, O_RDWR);
    assert_int_equal(pread(fd, out, sizeof(*out), 0), sizeof(*out));
    if (change) {
        change(out);
        assert_int_equal(pwrite(fd, out, sizeof(*out), 0), sizeof(*out));
    }
    close(fd);
}

static void change_boot(struct image_sum_head *h)
{
    h->open = 1;
    memset(h->boot, 'x', sizeof(h->boot));
}

static void change_open(struct image_sum_head *h)
{
    h->open = 1;
}

static void change_magic(struct image_sum_head *h)
{
    h->magic ^= 1;
    h->open = 1;
}

static void test_a_cut_of_the_power_is_told_from_a_killed_role(void **state)
{
    struct alone a;
    struct image_sum_head head;
    (void)state;
    alone_start(&a);
    head_change(&a, NULL, &head);
    assert_true(head.open == 1 && head.boot[0] && head.cuts == 0);
    alone_close(&a);
    head_change(&a, change_open, &head); /* killed: in this boot */
    assert_int_equal(head.cuts, 0);
    alone_open(&a);
    alone_close(&a);
    head_change(&a, NULL, &head);
    assert_true(head.open == 0 && head.cuts == 0);
    head_change(&a, change_boot, &head);
    alone_open(&a);
    alone_close(&a);
    head_change(&a, NULL, &head);
    assert_true(head.open == 0 && head.cuts == 1);
    alone_end(&a);
}

static void refused(const struct image_config *c, int code, const char *words)
{
    struct image *image = NULL;
    struct err e;
    assert_int_equal(image_open("sum", c, &image, &e), code);
    assert_non_null(strstr(e.text, words));
}

static void test_what_cannot_have_sums_is_refused_and_left_as_it_is(void **state)
{
    struct alone a;
    struct image_sum_head head, same;
    (void)state;
    alone_start(&a);
    alone_close(&a);
    refused(&(struct image_config){.path = a.path, .offset_bytes = BLOCK}, -EINVAL, "multiple of 4096");
    refused(&(struct image_config){.path = a.path, .size_bytes = 5 * SECTOR_BYTES}, -EINVAL, "multiple of 4096");
    head_change(&a, change_magic, &head);
    refused(&(struct image_config){.path = a.path}, -EINVAL, a.sums);
    head_change(&a, NULL, &same);
    assert_memory_equal(&head, &same, sizeof(head));
    unlink(a.sums);
    refused(&(struct image_config){.path = a.path, .readonly = true}, -ENOENT, a.sums);
    assert_int_equal(mkdir(a.sums, 0700), 0);
    refused(&(struct image_config){.path = a.path}, -EISDIR, a.sums);
    rmdir(a.sums);
    alone_end(&a);
}

/* ---- under a guest ---- */

struct scene {
    struct blkworld world;
    char dir[256];
    uint16_t domid;
    struct keys_blk_config config;
    struct blkguest guest;
};

/* The guest has sectors of 512 bytes where `sector_bytes` says so, and so writes parts of blocks. */
static void scene_start(struct scene *s, const char *dma, bool direct, uint32_t sector_bytes)
{
    *s = (struct scene){0};
    blkworld_start(&s->world, NULL);
    s->domid = blkworld_domain(&s->world, "guest", s->dir, sizeof(s->dir));
    blkworld_image(&s->world, "sum.img", DISK_BYTES, SEED, s->config.path, sizeof(s->config.path));
    strcpy(s->config.format, "sum");
    snprintf(s->config.dma, sizeof(s->config.dma), "%s", dma);
    s->config.direct_io = direct;
    s->config.sector_bytes = sector_bytes;
    blkworld_attach(&s->world, s->domid, BLKWORLD_DEVID, &s->config);
    blkguest_open(&s->guest, s->dir, BLKWORLD_DEVID);
    blkguest_connect(&s->guest, NULL);
}

static void scene_stop(struct scene *s)
{
    blkguest_disconnect(&s->guest);
    blkguest_close(&s->guest);
    blkworld_remove(&s->world, s->domid, BLKWORLD_DEVID);
    blkworld_wait_held(&s->world, s->domid, 0);
    blkworld_stop(&s->world);
}

static void byte_flip(struct scene *s, uint64_t at)
{
    unsigned char byte;
    int fd = open(s->config.path, O_RDWR);
    assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
    byte ^= 0x10;
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
    close(fd);
}

static int16_t do_blocks(struct scene *s, uint8_t operation, unsigned block, unsigned count)
{
    return blkguest_do_indirect(&s->guest, operation, (uint64_t)block * BLOCK_SECTS, block, count, 0, 7);
}

static void test_a_flipped_byte_is_found_and_never_data(void **state)
{
    (void)state;
    for (unsigned d = 0; d < dma_strategy_count; d++) {
        struct scene s;
        unsigned char wanted[BLOCK];
        scene_start(&s, dma_strategies[d]->name, false, SECTOR_BYTES);
        unsigned char *data = s.guest.data;
        blkworld_pattern(data, 0, BLOCKS * BLOCK_SECTS, SEED + 1);
        assert_int_equal(do_blocks(&s, BLKIF_OP_WRITE, 0, BLOCKS), BLKIF_RSP_OKAY);
        assert_int_equal(blkguest_do(&s.guest, BLKIF_OP_FLUSH_DISKCACHE, 0, 0, 0, 0, 0), BLKIF_RSP_OKAY);
        byte_flip(&s, 100 * BLOCK + 4095);
        memset(data, 0xee, DISK_BYTES);
        assert_int_equal(do_blocks(&s, BLKIF_OP_READ, 100, 1), BLKIF_RSP_ERROR);
        assert_int_equal(do_blocks(&s, BLKIF_OP_READ, 90, 20), BLKIF_RSP_ERROR);
        assert_int_equal(blkguest_do(&s.guest, BLKIF_OP_READ, 100 * 8, 100, 1, 0, 0),
                         BLKIF_RSP_ERROR); /* a sector of it */
        assert_true(data[0] == 0xee && !memcmp(data, data + 1, DISK_BYTES - 1));
        assert_int_equal(do_blocks(&s, BLKIF_OP_READ, 0, 100), BLKIF_RSP_OKAY);
        assert_int_equal(do_blocks(&s, BLKIF_OP_READ, 101, BLOCKS - 101), BLKIF_RSP_OKAY);
        for (unsigned i = 0; i < BLOCKS; i++) {
            blkworld_pattern(wanted, i * 8, 8, SEED + 1);
            assert_true(i == 100 || !memcmp(data + i * BLOCK, wanted, BLOCK));
        }
        /* A part written over it does not make it good; all of it does. */
        assert_int_equal(blkguest_do(&s.guest, BLKIF_OP_WRITE, 100 * 8, 100, 1, 0, 3), BLKIF_RSP_ERROR);
        assert_int_equal(do_blocks(&s, BLKIF_OP_READ, 100, 1), BLKIF_RSP_ERROR);
        assert_int_equal(do_blocks(&s, BLKIF_OP_WRITE, 100, 1), BLKIF_RSP_OKAY);
        assert_int_equal(blkguest_do(&s.guest, BLKIF_OP_WRITE, 100 * 8 + 2, 3, 1, 0, 3), BLKIF_RSP_OKAY);
        assert_int_equal(do_blocks(&s, BLKIF_OP_READ, 100, 1), BLKIF_RSP_OKAY);
        assert_memory_equal(data + 100 * BLOCK + 1024, data + 3 * BLOCK, 2048);
        assert_int_equal(data[100 * BLOCK], 0xee);
        scene_stop(&s);
    }
}

/* A guest that writes into all of its pages all the time. */
struct scribbler {
    unsigned char *data;
    _Atomic bool stop;
    pthread_t thread;
};

static void *scribble(void *arg)
{
    struct scribbler *w = arg;
    uint64_t seed = 9;
    while (!w->stop)
        for (unsigned i = 0; i < 64; i++)
            ((volatile unsigned char *)w->data)[random_next(&seed) % DISK_BYTES] = (unsigned char)random_next(&seed);
    return NULL;
}

/* One in flight for each slot of the ring, of all kinds, on few blocks, so that they meet. */
static void load(struct scene *s, unsigned rounds)
{
    uint64_t id, seed = 77;
    struct blkguest *g = &s->guest;
    for (unsigned round = 0; round < rounds; round++) {
        unsigned n = g->ring.ring.entries;
        for (unsigned i = 0; i < n; i++) {
            const uint8_t operation = random_next(&seed) % 3 ? BLKIF_OP_WRITE : BLKIF_OP_READ;
            const unsigned first = random_next(&seed) % 2 ? 0 : random_next(&seed) % 8;
            const unsigned last = first ? first + random_next(&seed) % (8 - first) : 7;
            const unsigned segments = 1 + random_next(&seed) % 8, sector = random_next(&seed) % (40 * BLOCK_SECTS);
            blkguest_put(g, operation, round % 2 ? sector : sector & ~7u, random_next(&seed) % BLKWORLD_PAGES, segments,
                         first, last);
        }
        blkguest_kick(g);
        for (unsigned i = 0; i < n; i++)
            assert_int_equal(blkguest_take(g, &id), BLKIF_RSP_OKAY);
    }
}

/* What the file holds is what the sums say, of each block that was written: some were. */
static void check_offline(struct scene *s)
{
    static struct image_sum_entry entry[BLOCKS];
    unsigned char block[BLOCK];
    char sums[600];
    unsigned known = 0;
    snprintf(sums, sizeof(sums), "%s" IMAGE_SUM_SUFFIX, s->config.path);
    int fd = open(s->config.path, O_RDONLY), sums_fd = open(sums, O_RDONLY);
    assert_int_equal(pread(sums_fd, entry, sizeof(entry), IMAGE_SUM_HEAD_BYTES), sizeof(entry));
    for (unsigned i = 0; i < BLOCKS; i++) {
        assert_int_equal(pread(fd, block, BLOCK, (off_t)i * BLOCK), BLOCK);
        assert_int_equal(entry[i].was, entry[i].is);
        assert_true(!entry[i].is || entry[i].is == crc32(0, block, BLOCK));
        known += entry[i].is != 0;
    }
    assert_in_range(known, 40, 64);
    close(fd);
    close(sums_fd);
}

static void test_a_guest_that_changes_its_pages_in_flight_never_makes_a_bad_sum(void **state)
{
    (void)state;
    for (unsigned d = 0; d < 2 * dma_strategy_count; d++) {
        struct scene s;
        scene_start(&s, dma_strategies[d / 2]->name, d % 2, SECTOR_BYTES);
        struct scribbler w = {.data = s.guest.data};
        assert_int_equal(pthread_create(&w.thread, NULL, scribble, &w), 0);
        load(&s, 12);
        w.stop = true;
        pthread_join(w.thread, NULL);
        check_offline(&s);
        scene_stop(&s);
    }
}

/* Killed with writes under way, again and again: its successor finds nothing bad. */
static void test_a_killed_role_leaves_no_bad_sum(void **state)
{
    struct scene s;
    (void)state;
    scene_start(&s, DMA_DEFAULT, false, 0);
    struct blkguest *g = &s.guest;
    for (unsigned round = 0; round < 5; round++) {
        blkworld_pattern(g->data, round, BLOCKS * BLOCK_SECTS, SEED + round);
        for (unsigned i = 0; i < 8; i++)
            blkguest_put_indirect(g, BLKIF_OP_WRITE, i * 256, i * 32, 32, 0, 7);
        blkguest_kick(g);
        blkworld_role_kill(&s.world);
        blkworld_role_start(&s.world, NULL);
        blkworld_wait_back(&s.world, s.domid, BLKWORLD_DEVID, XenbusStateInitWait);
        platform_evtchn_close(g->platform, &g->channel);
        blkguest_connect(g, NULL);
        assert_int_equal(do_blocks(&s, BLKIF_OP_READ, 0, BLOCKS), BLKIF_RSP_OKAY);
    }
    scene_stop(&s);
}

static void test_what_would_pass_the_sums_by_is_not_offered(void **state)
{
    struct scene s;
    struct keys_blk_features f;
    (void)state;
    scene_start(&s, DMA_DEFAULT, false, 0);
    assert_int_equal(keys_blk_features_read(&s.guest.xb, &f, NULL), 0);
    assert_true(f.max_queues == 1 && !f.fua && !f.max_write_zeroes_sectors && !s.guest.disk.discard);
    assert_int_equal(s.guest.disk.sector_bytes, BLOCK);
    assert_int_equal(s.guest.disk.physical_sector_bytes, BLOCK);
    scene_stop(&s);
}

int main(int argc, char **argv)
{
    blkworld_child(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_block_is_checked_from_its_first_write_on),
        cmocka_unit_test(test_an_interrupted_write_leaves_the_old_or_the_new),
        cmocka_unit_test(test_a_torn_block_is_bad_until_it_is_written),
        cmocka_unit_test(test_a_cut_of_the_power_is_told_from_a_killed_role),
        cmocka_unit_test(test_what_cannot_have_sums_is_refused_and_left_as_it_is),
        cmocka_unit_test(test_a_flipped_byte_is_found_and_never_data),
        cmocka_unit_test(test_a_guest_that_changes_its_pages_in_flight_never_makes_a_bad_sum),
        cmocka_unit_test(test_a_killed_role_leaves_no_bad_sum),
        cmocka_unit_test(test_what_would_pass_the_sums_by_is_not_offered),
    };
    return cmocka_run_group_tests_name("image_sum", tests, NULL, NULL);
}
