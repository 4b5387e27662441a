/* SPDX-License-Identifier: MIT */
/* Keys of a block device that say what it is like, and those of the extensions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include <stdio.h>

#include "tests/keys_scene.h"

static void test_a_cdrom_is_read_only_and_removable_whatever_the_other_keys_say(void **state)
{
    struct fixture *f = fresh(state);
    const struct keys_blk_config in = {.format = "raw", .path = "/cd.iso", .cdrom = true};
    struct keys_blk_config out;
    assert_int_equal(keys_blk_config_write(f->client, STORE_NO_TX, f->back.dir, &in, "xvdc", NULL), 0);
    expect(f, f->back.dir, "device-type", "cdrom");
    expect(f, f->back.dir, "mode", "r");
    expect(f, f->back.dir, "removable", "1");
    put(f, f->back.dir, "mode", "w");
    put(f, f->back.dir, "removable", "0");
    assert_int_equal(keys_blk_config_read(&f->back, &out, NULL), 0);
    assert_true(out.cdrom && out.readonly && out.removable);
}

static void test_block_sizes_are_512_or_4096_or_not_said(void **state)
{
    struct fixture *f = fresh(state);
    static const char *const names[] = {"domzero/sector-size", "domzero/physical-sector-size",
                                        "domzero/host-alignment"};
    static const struct {
        const char *value;
        int code;
    } rows[] = {{"512", 0},
                {"4096", 0},
                {"0", 0},
                {"513", -EINVAL},
                {"1024", -EINVAL},
                {"8192", -ERANGE},
                {"4294967808", -ERANGE},
                {"-512", -EINVAL},
                {"", -EINVAL}};
    const struct keys_blk_config in = {.format = "raw",
                                       .path = "/d.img",
                                       .sector_bytes = 512,
                                       .physical_sector_bytes = 4096,
                                       .host_alignment_bytes = 4096,
                                       .direct_io_safe = true};
    struct keys_blk_config out;
    struct err e = {0};
    assert_int_equal(keys_blk_config_write(f->client, STORE_NO_TX, f->back.dir, &in, "xvda", NULL), 0);
    expect(f, f->back.dir, "direct-io-safe", "1");
    assert_int_equal(keys_blk_config_read(&f->back, &out, NULL), 0);
    assert_true(out.sector_bytes == 512 && out.physical_sector_bytes == 4096 && out.host_alignment_bytes == 4096);
    assert_true(out.direct_io_safe && !out.direct_io); /* blkif.h: not there to turn caching off */
    for (size_t n = 0; n < ARRAY_SIZE(names); n++)
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
            put(f, f->back.dir, names[n], rows[i].value);
            assert_int_equal(keys_blk_config_read(&f->back, &out, &e), rows[i].code);
            assert_true(!rows[i].code || strstr(e.text, names[n]));
            put(f, f->back.dir, names[n], "0");
        }
}

static void test_an_iommu_is_strict_or_deferred_and_has_32_or_44_bits(void **state)
{
    struct fixture *f = fresh(state);
    static const struct {
        const char *name, *value;
        int code;
    } rows[] = {{"iommu", "lazy", -EINVAL},  {"iommu", "", -EINVAL},     {"iommu", "deferred", 0},
                {"iommu", "strict", 0},      {"dma-bits", "0", -EINVAL}, {"dma-bits", "40", -EINVAL},
                {"dma-bits", "64", -ERANGE}, {"dma-bits", "32", 0}};
    struct keys_blk_config out;
    struct err e = {0};
    put(f, f->back.dir, "params", "raw:/tmp/disk");
    assert_int_equal(keys_blk_config_read(&f->back, &out, NULL), 0);
    assert_true(!out.iommu_deferred && out.dma_bits == KEYS_BLK_BUS_BITS_MAX);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        char name[24];
        snprintf(name, sizeof(name), "domzero/%s", rows[i].name);
        put(f, f->back.dir, name, rows[i].value);
        assert_int_equal(keys_blk_config_read(&f->back, &out, &e), rows[i].code);
        assert_true(!rows[i].code || strstr(e.text, name));
    }
    assert_true(!out.iommu_deferred && out.dma_bits == KEYS_BLK_BUS_BITS_32);
    out.iommu_deferred = true;
    assert_int_equal(keys_blk_config_write(f->client, STORE_NO_TX, f->back.dir, &out, "xvda", NULL), 0);
    assert_int_equal(keys_blk_config_read(&f->back, &out, NULL), 0);
    assert_true(out.iommu_deferred && out.dma_bits == KEYS_BLK_BUS_BITS_32);
}

/* An extension is on where the backend offers it and the frontend takes it; a peer that knows neither sees nothing. */
static void test_extensions_are_keys_of_their_own_at_both_ends(void **state)
{
    struct fixture *f = fresh(state);
    const struct keys_blk_front none = {
        .queue_count = 1, .ring_ref_count = 1, .queue = {{.ring_ref = {10}, .port = 2}}};
    const struct keys_blk_features plain = {.max_queues = 1};
    struct keys_blk_front front = none, front_out;
    struct keys_blk_features offer = plain, offer_out;
    _cleanup_free_ char *text = NULL;
    assert_int_equal(keys_blk_front_write(&f->front, STORE_NO_TX, &none, NULL), 0);
    assert_int_equal(keys_blk_features_write(&f->back, STORE_NO_TX, &plain, NULL), 0);
    assert_int_equal(store_read(f->client, STORE_NO_TX, &text, NULL, "%s/domzero", f->front.dir), -ENOENT);
    assert_int_equal(store_read(f->client, STORE_NO_TX, &text, NULL, "%s/domzero", f->back.dir), -ENOENT);
    assert_int_equal(keys_blk_front_read(&f->back, 0, 1, &front_out, NULL), 0);
    assert_true(!front_out.fua && !front_out.write_zeroes);
    assert_int_equal(keys_blk_features_read(&f->front, &offer_out, NULL), 0);
    assert_true(!offer_out.fua && !offer_out.max_write_zeroes_sectors && !offer_out.bus_bits);
    assert_false(front_out.bus_addresses);
    front.fua = front.write_zeroes = front.bus_addresses = offer.fua = true;
    offer.max_write_zeroes_sectors = 65536;
    offer.bus_bits = KEYS_BLK_BUS_BITS_32;
    assert_int_equal(keys_blk_front_write(&f->front, STORE_NO_TX, &front, NULL), 0);
    assert_int_equal(keys_blk_features_write(&f->back, STORE_NO_TX, &offer, NULL), 0);
    assert_int_equal(keys_blk_front_read(&f->back, 0, 1, &front_out, NULL), 0);
    assert_true(front_out.fua && front_out.write_zeroes && front_out.bus_addresses);
    assert_int_equal(keys_blk_features_read(&f->front, &offer_out, NULL), 0);
    assert_true(offer_out.fua && offer_out.max_write_zeroes_sectors == 65536 && offer_out.bus_bits == 32);
    static const char *const no_bus[] = {"0", "12", "45", "64"}; /* what no segment can hold is not taken */
    for (size_t i = 0; i < ARRAY_SIZE(no_bus); i++) {
        put(f, f->back.dir, "domzero/feature-bus-addresses", no_bus[i]);
        assert_int_equal(keys_blk_features_read(&f->front, &offer_out, NULL), 0);
        assert_int_equal(offer_out.bus_bits, 0);
    }
    assert_int_equal(keys_blk_front_write(&f->front, STORE_NO_TX, &none, NULL), 0); /* an older one follows */
    assert_int_equal(keys_blk_front_read(&f->back, 0, 1, &front_out, NULL), 0);
    assert_true(!front_out.fua && !front_out.write_zeroes && !front_out.bus_addresses);
    put(f, f->front.dir, "domzero/feature-fua", "yes");
    assert_int_equal(keys_blk_front_read(&f->back, 0, 1, &front_out, NULL), -EINVAL);
    put(f, f->back.dir, "domzero/max-write-zeroes-sectors", "4294967296");
    assert_int_equal(keys_blk_features_read(&f->front, &offer_out, NULL), -ERANGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_cdrom_is_read_only_and_removable_whatever_the_other_keys_say),
        cmocka_unit_test(test_block_sizes_are_512_or_4096_or_not_said),
        cmocka_unit_test(test_an_iommu_is_strict_or_deferred_and_has_32_or_44_bits),
        cmocka_unit_test(test_extensions_are_keys_of_their_own_at_both_ends),
    };
    return cmocka_run_group_tests_name("keys_blk_options", tests, setup, teardown);
}
