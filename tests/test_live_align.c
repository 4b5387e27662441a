/* SPDX-License-Identifier: MIT */
/* Live changes of disks whose storage is not what the guest sees: through O_DIRECT, and with sectors of 512 bytes on
 * storage that moves 4096. Beside the load, which moves whole blocks, the test writes single sectors, so that blocks
 * are read, changed and written back while the disk changes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/util.h"
#include "tests/live_load.h"

static struct world world;

static const char *const kinds[] = {"direct-io=1", "sector-size=512,host-alignment=4096",
                                    "sector-size=512,host-alignment=4096,direct-io=1",
                                    "sector-size=512,host-alignment=4096,dma=copy"};

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

/* The smallest piece that the guest may write, by turns in each place of a block behind what the load works on. */
static void sectors_check(struct load *l, unsigned seed)
{
    struct dz_vbd_info info;
    unsigned char wrote[8][BLOCK], got[BLOCK];
    dz_vbd_info(l->disk, &info);
    const uint32_t piece = info.sector_bytes;
    for (unsigned i = 0; i < 8; i++) {
        uint64_t at = (BLOCKS + 2) * BLOCK + (uint64_t)i * 3 * piece;
        world_pattern(wrote[i], piece, at, seed + i);
        assert_int_equal(dz_vbd_write(l->disk, wrote[i], piece, at), 0);
    }
    for (unsigned i = 0; i < 8; i++) {
        uint64_t at = (BLOCKS + 2) * BLOCK + (uint64_t)i * 3 * piece;
        assert_int_equal(dz_vbd_read(l->disk, got, piece, at), 0);
        assert_memory_equal(got, wrote[i], piece);
    }
}

static void test_a_disk_of_another_alignment_changes_in_all_ways(void **state)
{
    static const uint64_t sizes[] = {4 * MIB, MIB / 2};
    (void)state;
    for (unsigned k = 0; k < ARRAY_SIZE(kinds); k++) {
        struct load l;
        char name[16], out[1024];
        snprintf(name, sizeof(name), "kind%u", k);
        load_start(&l, &world, name, kinds[k]);
        for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
            load_resize(&l, sizes[i]);
            command(&l, "block-set %s xvda", i % 2 ? "dma=pin" : "dma=copy");
            load_goes_on(&l);
            l.writes = false; /* those on their way would be refused, as they should */
            load_goes_on(&l);
            command(&l, "block-set %s xvda", "readonly=1");
            command(&l, "block-set %s xvda", "readonly=0");
            l.writes = true;
            load_goes_on(&l);
        }
        world_kill_blk(&world);
        load_goes_on(&l);
        if (strstr(kinds[k], "host-alignment")) { /* a part of a block at the end is not had while it runs */
            assert_int_equal(world_domzero(&world, out, sizeof(out), "block-resize %s xvda 1049088", name), 1);
            assert_non_null(strstr(out, "block"));
            load_goes_on(&l);
            assert_int_equal(l.size_bytes, MIB / 2);
        }
        load_stop(&l);
        assert_int_equal(l.errors, 0);
        for (unsigned i = 0; i < 4; i++) {
            sectors_check(&l, 10 * i);
            command(&l, "block-set %s xvda", i % 2 ? "dma=pin" : "dma=copy");
        }
        load_end(&l);
    }
}

/* What would make the disk one that cannot be opened again is refused while it runs, too. */
static void test_a_size_that_is_no_multiple_of_the_physical_sectors_asked_for_is_refused(void **state)
{
    struct load l;
    char out[1024];
    (void)state;
    load_start(&l, &world, "asked", "sector-size=512,physical-sector-size=4096");
    assert_int_equal(world_domzero(&world, out, sizeof(out), "block-resize asked xvda 1049088"), 1);
    assert_non_null(strstr(out, "physical sector size"));
    load_goes_on(&l);
    assert_int_equal(l.size_bytes, MIB);
    assert_int_equal(file_size(&l, "asked.img"), MIB);
    key_is(&l, "physical-sector-size", "4096");
    load_resize(&l, MIB + 4096);
    world_kill_blk(&world);
    load_goes_on(&l);
    load_stop(&l);
    assert_int_equal(l.errors, 0);
    load_end(&l);
}

/* Where it was not asked for it follows the size, as when the disk is opened with that. */
static void test_physical_sectors_that_were_not_asked_for_follow_the_size(void **state)
{
    struct load l;
    (void)state;
    load_start(&l, &world, "follows", NULL);
    key_is(&l, "physical-sector-size", "4096");
    load_resize(&l, MIB + 512);
    key_is(&l, "physical-sector-size", "512");
    world_kill_blk(&world);
    load_goes_on(&l);
    key_is(&l, "physical-sector-size", "512");
    load_stop(&l);
    assert_int_equal(l.errors, 0);
    load_end(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_disk_of_another_alignment_changes_in_all_ways),
        cmocka_unit_test(test_a_size_that_is_no_multiple_of_the_physical_sectors_asked_for_is_refused),
        cmocka_unit_test(test_physical_sectors_that_were_not_asked_for_follow_the_size),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
