/* SPDX-License-Identifier: MIT */
/* The textbook's attack on the whole of dom0, in each DMA strategy: a guest takes its memory back while its I/O is
 * under way, and another guest's memory comes to lie where it was. What does not hold the memory (`unsafe`) hands the
 * victim over, and all others do not; dom0 itself goes on in every row.
 *
 * So that the I/O is under way for as long as it takes, the storage fails and the attacker's disk holds its requests
 * (on-error=stop): they were checked, and are done again when the storage is back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>

#include "grant/dma.h"
#include "tests/blkworld.h"

#define DISK_BYTES (4u << 20)
#define SEED       5u
#define FRAMES     64u /* of the extents that change places */
#define PAGES      8u  /* of them, in a request */
#define CANARY     0xca
#define ATTACK     0xa7

struct party {
    char dir[256];
    uint16_t domid;
    struct keys_blk_config config;
    struct blkguest guest;
    struct platform_extent extent;
    uint32_t gref[PAGES];
};

struct scene {
    struct blkworld world;
    struct party attacker, victim;
};

static void party_start(struct scene *s, struct party *p, const char *name, const char *dma)
{
    char image[32];
    snprintf(image, sizeof(image), "%s.img", name);
    p->domid = blkworld_domain(&s->world, name, p->dir, sizeof(p->dir));
    blkworld_image(&s->world, image, DISK_BYTES, SEED, p->config.path, sizeof(p->config.path));
    snprintf(p->config.dma, sizeof(p->config.dma), "%s", dma);
    blkworld_attach(&s->world, p->domid, BLKWORLD_DEVID, &p->config);
    blkguest_open(&p->guest, p->dir, BLKWORLD_DEVID);
    blkguest_connect(&p->guest, NULL);
}

static void extent_grant(struct party *p, unsigned char fill)
{
    struct err e;
    struct platform *platform = p->guest.platform;
    if (platform_extent_alloc(platform, 0, FRAMES, false, &p->extent, &e))
        fail_msg("%s", e.text);
    memset(p->extent.address, fill, FRAMES * PAGE_BYTES);
    for (unsigned i = 0; i < PAGES; i++)
        assert_int_equal(gnttab_grant(platform_gnttab(platform), 0, p->extent.base_gfn + i, false, &p->gref[i], &e), 0);
}

/* Grants ended, of PAGES. */
static unsigned extent_end(struct party *p)
{
    unsigned ended = 0;
    for (unsigned i = 0; i < PAGES; i++)
        if (p->gref[i] && !gnttab_end(platform_gnttab(p->guest.platform), p->gref[i])) {
            p->gref[i] = 0;
            ended++;
        }
    return ended;
}

/* A request on its extent. */
static void extent_request(struct party *p, uint8_t operation, uint64_t sector)
{
    struct blkreq r = {.operation = operation,
                       .operation_raw = operation,
                       .id = ++p->guest.next_id,
                       .sector = sector,
                       .sector_count = PAGES * 8,
                       .segment_count = PAGES};
    for (unsigned i = 0; i < PAGES; i++)
        r.segment[i] = (struct blkreq_segment){p->gref[i], 0, 7};
    blkguest_put_raw(&p->guest, &r);
    blkguest_kick(&p->guest);
}

static void file_fill(const char *path, unsigned char byte)
{
    static unsigned char data[DISK_BYTES];
    memset(data, byte, sizeof(data));
    int fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, data, sizeof(data), 0), sizeof(data));
    close(fd);
}

static bool all_are(const unsigned char *p, size_t n, unsigned char byte)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != byte)
            return false;
    return true;
}

/* Reads fail behind the file's end, writes behind the limit of the role's files. */
static void storage_fails(struct scene *s, bool write)
{
    const struct rlimit none = {0, RLIM_INFINITY};
    if (write)
        assert_int_equal(prlimit(s->world.role, RLIMIT_FSIZE, &none, NULL), 0);
    else
        assert_int_equal(truncate(s->attacker.config.path, 0), 0);
}

static void storage_works(struct scene *s, bool write)
{
    const struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
    if (write)
        assert_int_equal(prlimit(s->world.role, RLIMIT_FSIZE, &all, NULL), 0);
    else
        file_fill(s->attacker.config.path, ATTACK);
    blkworld_store_ok(store_write(s->world.store, STORE_NO_TX, KEYS_BLK_RESUME, "%s/" KEYS_BLK_PAUSED,
                                  s->attacker.guest.xb.peer_dir));
}

static bool victim_was_harmed(struct scene *s, bool write)
{
    unsigned char first[PAGES * PAGE_BYTES];
    if (!write)
        return !all_are(s->victim.extent.address, FRAMES * PAGE_BYTES, CANARY);
    int fd = open(s->attacker.config.path, O_RDONLY);
    assert_int_equal(pread(fd, first, sizeof(first), 0), sizeof(first));
    close(fd);
    return memchr(first, CANARY, sizeof(first)) != NULL;
}

static void party_end(struct scene *s, struct party *p)
{
    extent_end(p);
    platform_extent_free(p->guest.platform, &p->extent);
    blkguest_disconnect(&p->guest);
    blkguest_close(&p->guest);
    blkworld_wait_held(&s->world, p->domid, 0);
}

/* Whether the victim was harmed. */
static bool attack(const struct dma_strategy *row, bool write)
{
    static struct scene s;
    uint64_t id;
    s = (struct scene){.attacker.config.stop_on_error = true};
    blkworld_start(&s.world, NULL);
    party_start(&s, &s.attacker, "attacker", row->name);
    party_start(&s, &s.victim, "victim", DMA_DEFAULT);
    file_fill(s.attacker.config.path, ATTACK);
    extent_grant(&s.attacker, ATTACK);

    storage_fails(&s, write);
    extent_request(&s.attacker, write ? BLKIF_OP_WRITE : BLKIF_OP_READ, 0);
    blkworld_stat(&s.world, s.attacker.domid, BLKWORLD_DEVID, "held", 1);
    const uint32_t held = blkworld_held(&s.world, s.attacker.domid);
    const unsigned ended = extent_end(&s.attacker);
    assert_true(ended == 0 || ended == PAGES);
    platform_extent_free(s.attacker.guest.platform, &s.attacker.extent);
    if (row->unsafe) {
        assert_int_equal(ended, PAGES);
        blkworld_wait_held(&s.world, s.attacker.domid, held - 1); /* dom0 let go of it, under the I/O */
    }

    extent_grant(&s.victim, CANARY);
    extent_request(&s.victim, BLKIF_OP_READ, 0);
    assert_int_equal(blkguest_take(&s.victim.guest, &id), BLKIF_RSP_OKAY);
    memset(s.victim.extent.address, CANARY, FRAMES * PAGE_BYTES);

    storage_works(&s, write);
    (void)blkguest_take(&s.attacker.guest, &id); /* with whatever status */
    const bool harmed = victim_was_harmed(&s, write);
    blkguest_check_served(&s.victim.guest, SEED);
    s.attacker.extent = (struct platform_extent){0};
    extent_end(&s.attacker);
    blkguest_disconnect(&s.attacker.guest);
    blkguest_close(&s.attacker.guest);
    blkworld_wait_held(&s.world, s.attacker.domid, 0);
    party_end(&s, &s.victim);
    blkworld_stop(&s.world); /* the role is well */
    return harmed;
}

static void test_memory_that_goes_to_another_guest_during_a_read_is_overwritten_in_unsafe_rows_alone(void **state)
{
    (void)state;
    for (unsigned d = 0; d < dma_strategy_count; d++)
        if (attack(dma_strategies[d], false) != dma_strategies[d]->unsafe)
            fail_msg("%s", dma_strategies[d]->name);
}

static void test_memory_that_goes_to_another_guest_during_a_write_is_read_in_unsafe_rows_alone(void **state)
{
    (void)state;
    for (unsigned d = 0; d < dma_strategy_count; d++)
        if (attack(dma_strategies[d], true) != dma_strategies[d]->unsafe)
            fail_msg("%s", dma_strategies[d]->name);
}

/* Nobody has the place, and dom0 itself copies between the guest's memory and its own (blkalign.h): an error of that
 * request, and no more. */
static void test_memory_that_is_gone_when_dom0_copies_fails_the_request_alone(void **state)
{
    (void)state;
    for (unsigned d = 0; d < 2 * dma_strategy_count; d++) {
        const struct dma_strategy *row = dma_strategies[d / 2];
        const bool write = d % 2;
        struct scene s = {.attacker.config = {
                              .stop_on_error = true, .sector_bytes = SECTOR_BYTES, .host_alignment_bytes = PAGE_BYTES}};
        uint64_t id;
        blkworld_start(&s.world, NULL);
        party_start(&s, &s.attacker, "attacker", row->name);
        party_start(&s, &s.victim, "victim", DMA_DEFAULT);
        extent_grant(&s.attacker, ATTACK);
        storage_fails(&s, write);
        extent_request(&s.attacker, write ? BLKIF_OP_WRITE : BLKIF_OP_READ, 1); /* a part of a block at each end */
        blkworld_stat(&s.world, s.attacker.domid, BLKWORLD_DEVID, "held", 1);
        const uint32_t held = blkworld_held(&s.world, s.attacker.domid);
        extent_end(&s.attacker);
        platform_extent_free(s.attacker.guest.platform, &s.attacker.extent);
        if (row->unsafe)
            blkworld_wait_held(&s.world, s.attacker.domid, held - 1);
        storage_works(&s, write);
        const int16_t status = blkguest_take(&s.attacker.guest, &id);
        assert_true(!row->unsafe || status == BLKIF_RSP_ERROR);
        blkguest_check_served(&s.victim.guest, SEED);
        s.attacker.extent = (struct platform_extent){0};
        extent_end(&s.attacker);
        blkguest_disconnect(&s.attacker.guest);
        blkguest_close(&s.attacker.guest);
        blkguest_disconnect(&s.victim.guest);
        blkguest_close(&s.victim.guest);
        blkworld_stop(&s.world);
    }
}

int main(int argc, char **argv)
{
    blkworld_child(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_that_goes_to_another_guest_during_a_read_is_overwritten_in_unsafe_rows_alone),
        cmocka_unit_test(test_memory_that_goes_to_another_guest_during_a_write_is_read_in_unsafe_rows_alone),
        cmocka_unit_test(test_memory_that_is_gone_when_dom0_copies_fails_the_request_alone),
    };
    return cmocka_run_group_tests_name("dma_reuse", tests, NULL, NULL);
}
