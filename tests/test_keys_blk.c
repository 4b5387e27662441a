/* SPDX-License-Identifier: MIT */
/* Keys of a block device through a real store: what one end writes the other reads; what a hostile peer writes is
 * refused with a sentence that names key and value; and device names against the numbers that xl gives them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include <stdio.h>

#include "tests/keys_scene.h"
#include "tests/random.h"

/* ---- one key ---- */

static void test_a_number_is_within_its_range_or_refused(void **state)
{
    struct fixture *f = fresh(state);
    static const struct xb_key key = {.name = "k", .min = 1, .max = 100, .def = 7};
    static const struct xb_key required = {.name = "k", .min = 1, .max = 100, .required = true};
    static const struct {
        const char *value;
        int result;
    } rows[] = {{"1", 0},          {"100", 0},
                {"007", 0},        {"0", -ERANGE},
                {"101", -ERANGE},  {"-1", -EINVAL},
                {"", -EINVAL},     {" 1", -EINVAL},
                {"1 ", -EINVAL},   {"1\n", -EINVAL},
                {"0x10", -EINVAL}, {"1.5", -EINVAL},
                {"ten", -EINVAL},  {"99999999999999999999999", -ERANGE}};
    uint64_t out = 42;
    struct err e = {0};
    assert_int_equal(xb_key_read(f->client, STORE_NO_TX, f->front.dir, &required, &out, &e), -ENOENT);
    assert_non_null(strstr(e.text, "/local/domain/3/device/vbd/51712/k is missing"));
    assert_int_equal(xb_key_read(f->client, STORE_NO_TX, f->front.dir, &key, &out, NULL), 0);
    assert_int_equal(out, 7);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        put(f, f->front.dir, "k", rows[i].value);
        out = 42;
        int r = xb_key_read(f->client, STORE_NO_TX, f->front.dir, &key, &out, &e);
        assert_int_equal(r, rows[i].result);
        if (r < 0) {
            assert_int_equal(out, 42);
            assert_non_null(strstr(e.text, "a number of 1 to 100 was expected"));
        } else {
            assert_in_range(out, 1, 100);
        }
    }
}

static void test_a_hostile_value_does_not_reach_a_log_raw(void **state)
{
    struct fixture *f = fresh(state);
    static const struct xb_key key = {.name = "k", .max = 100};
    uint64_t out;
    struct err e = {0};
    char path[256], text[2000], small[16];
    snprintf(path, sizeof(path), "%s/k", f->front.dir);
    int length = snprintf(text, sizeof(text), "%s%c12%c34", path, '\0', '\0');
    int raw = kit_connect(&f->store, 0);
    kit_expect_ok(kit_exchange(raw, XS_WRITE, 0, text, (size_t)length));
    close(raw);
    assert_int_equal(xb_key_read(f->client, STORE_NO_TX, f->front.dir, &key, &out, &e), -EINVAL);
    assert_non_null(strstr(e.text, "NUL"));
    assert_int_equal(xb_key_read_string(f->client, STORE_NO_TX, f->front.dir, "k", "", small, sizeof(small), &e),
                     -EINVAL);
    put(f, f->front.dir, "k", "\033[2Jx\n");
    assert_int_equal(xb_key_read(f->client, STORE_NO_TX, f->front.dir, &key, &out, &e), -EINVAL);
    assert_null(strchr(e.text, '\033'));
    assert_null(strchr(e.text, '\n'));
    memset(text, '9', sizeof(text));
    text[sizeof(text) - 1] = 0;
    put(f, f->front.dir, "k", text);
    assert_int_equal(xb_key_read(f->client, STORE_NO_TX, f->front.dir, &key, &out, &e), -ERANGE);
    assert_non_null(strstr(e.text, "..."));
    assert_int_equal(xb_key_read_string(f->client, STORE_NO_TX, f->front.dir, "k", "", small, sizeof(small), &e),
                     -ERANGE);
    put(f, f->front.dir, "k", "fifteen bytes..");
    assert_int_equal(xb_key_read_string(f->client, STORE_NO_TX, f->front.dir, "k", "", small, sizeof(small), &e), 0);
    assert_string_equal(small, "fifteen bytes..");
}

/* ---- the toolstack's ---- */

static void test_configuration_is_what_xl_writes_and_reads_back(void **state)
{
    struct fixture *f = fresh(state);
    const struct keys_blk_config in = {.format = "raw",
                                       .path = "/srv/a: b.img",
                                       .direct_io = true,
                                       .discard = true,
                                       .offset_bytes = 1 << 20,
                                       .size_bytes = 64 << 20,
                                       .dma = "copy",
                                       .max_queues = 3,
                                       .no_persistent = true,
                                       .online = true};
    assert_int_equal(keys_blk_config_write(f->client, STORE_NO_TX, f->back.dir, &in, "xvda", NULL), 0);
    expect(f, f->back.dir, "params", "raw:/srv/a: b.img");
    expect(f, f->back.dir, "type", "qdisk");
    expect(f, f->back.dir, "dev", "xvda");
    expect(f, f->back.dir, "mode", "w");
    expect(f, f->back.dir, "device-type", "disk");
    expect(f, f->back.dir, "bootable", "1");
    expect(f, f->back.dir, "removable", "0");
    expect(f, f->back.dir, "online", "1");
    expect(f, f->back.dir, "discard-enable", "1");
    expect(f, f->back.dir, "domzero/max-queues", "3");
    expect(f, f->back.dir, "domzero/persistent", "0");
    struct keys_blk_config out;
    assert_int_equal(keys_blk_config_read(&f->back, &out, NULL), 0);
    assert_string_equal(out.format, "raw");
    assert_string_equal(out.path, in.path);
    assert_string_equal(out.dma, "copy");
    assert_true(out.offset_bytes == in.offset_bytes && out.size_bytes == in.size_bytes && out.max_queues == 3);
    assert_true(out.no_persistent && out.discard && out.direct_io && out.online && !out.readonly && !out.cdrom &&
                !out.removable);
}

static void test_configuration_of_xl_itself_is_understood(void **state)
{
    struct fixture *f = fresh(state);
    put(f, f->back.dir, "params", "aio:/dev/vg/disk");
    put(f, f->back.dir, "mode", "r");
    put(f, f->back.dir, "device-type", "cdrom");
    put(f, f->back.dir, "removable", "1");
    put(f, f->back.dir, "online", "1");
    struct keys_blk_config out;
    assert_int_equal(keys_blk_config_read(&f->back, &out, NULL), 0);
    assert_string_equal(out.format, "raw");
    assert_string_equal(out.dma, "pin");
    assert_true(out.readonly && out.cdrom && out.removable && out.online && !out.direct_io);
    assert_true(out.offset_bytes == 0 && out.size_bytes == 0 && out.max_queues == 0);
    assert_true(out.discard); /* blkif.h: unless it says no */
    assert_false(out.no_persistent);
    put(f, f->back.dir, "discard-enable", "0");
    assert_int_equal(keys_blk_config_read(&f->back, &out, NULL), 0);
    assert_false(out.discard);
}

static void test_configuration_without_format_or_path_is_refused(void **state)
{
    struct fixture *f = fresh(state);
    static const char *const bad[] = {"",     "/srv/a.img", ":/srv/a.img",
                                      "raw:", "raw:a.img",  "averyveryverylongformat:/a"};
    struct keys_blk_config out;
    struct err e = {0};
    assert_int_equal(keys_blk_config_read(&f->back, &out, &e), -ENOENT);
    assert_non_null(strstr(e.text, "params is missing"));
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        put(f, f->back.dir, "params", bad[i]);
        assert_int_equal(keys_blk_config_read(&f->back, &out, &e), -EINVAL);
        assert_non_null(strstr(e.text, "FORMAT:/ABSOLUTE/PATH"));
    }
    put(f, f->back.dir, "params", "raw:/srv/a.img");
    put(f, f->back.dir, "domzero/offset", "9223372036854775807");
    put(f, f->back.dir, "domzero/size", "512");
    assert_int_equal(keys_blk_config_read(&f->back, &out, &e), -ERANGE);
    put(f, f->back.dir, "domzero/offset", "0");
    put(f, f->back.dir, "domzero/max-queues", "17");
    assert_int_equal(keys_blk_config_read(&f->back, &out, &e), -ERANGE);
    assert_non_null(strstr(e.text, "domzero/max-queues"));
    put(f, f->back.dir, "domzero/offset", "-512");
    assert_int_equal(keys_blk_config_read(&f->back, &out, &e), -EINVAL);
}

/* ---- the frontend's ---- */

static void offer(struct fixture *f, const char *ring_ref, const char *port)
{
    put(f, f->front.dir, "ring-ref", ring_ref);
    put(f, f->front.dir, "event-channel", port);
}

static void test_an_offer_reads_back_at_every_order(void **state)
{
    for (uint32_t order = 0; order <= KEYS_BLK_RING_ORDER_MAX; order++) {
        struct fixture *f = fresh(state);
        struct keys_blk_front in = {.queue_count = 1,
                                    .ring_order = order,
                                    .ring_ref_count = 1u << order,
                                    .queue[0].port = 9,
                                    .persistent = order & 1,
                                    .protocol = "x86_64-abi"};
        for (uint32_t i = 0; i < in.ring_ref_count; i++)
            in.queue[0].ring_ref[i] = UINT32_MAX - i;
        assert_int_equal(keys_blk_front_write(&f->front, STORE_NO_TX, &in, NULL), 0);
        struct keys_blk_front out;
        assert_int_equal(keys_blk_front_read(&f->back, KEYS_BLK_RING_ORDER_MAX, KEYS_BLK_QUEUES_MAX, &out, NULL), 0);
        assert_memory_equal(&in, &out, sizeof(in));
        if (order) {
            struct err e = {0};
            assert_int_equal(keys_blk_front_read(&f->back, order - 1, KEYS_BLK_QUEUES_MAX, &out, &e), -ERANGE);
            assert_non_null(strstr(e.text, "ring-page-order"));
        }
    }
}

static void test_a_second_offer_leaves_nothing_of_the_first(void **state)
{
    struct fixture *f = fresh(state);
    const struct keys_blk_front wide = {.queue_count = 1,
                                        .ring_order = 1,
                                        .ring_ref_count = 2,
                                        .queue[0] = {.ring_ref = {8, 9}, .port = 1},
                                        .protocol = "x86_32-abi"};
    const struct keys_blk_front narrow = {
        .queue_count = 1, .ring_ref_count = 1, .queue[0] = {.ring_ref = {10}, .port = 2}};
    struct keys_blk_front out;
    assert_int_equal(keys_blk_front_write(&f->front, STORE_NO_TX, &wide, NULL), 0);
    assert_int_equal(keys_blk_front_write(&f->front, STORE_NO_TX, &narrow, NULL), 0);
    assert_int_equal(keys_blk_front_read(&f->back, 4, KEYS_BLK_QUEUES_MAX, &out, NULL), 0);
    assert_memory_equal(&narrow, &out, sizeof(out));
    assert_int_equal(keys_blk_front_write(&f->front, STORE_NO_TX, &wide, NULL), 0);
    assert_int_equal(keys_blk_front_read(&f->back, 4, KEYS_BLK_QUEUES_MAX, &out, NULL), 0);
    assert_memory_equal(&wide, &out, sizeof(out));
}

static void test_order_zero_in_words_takes_either_name(void **state)
{
    struct fixture *f = fresh(state);
    struct keys_blk_front out;
    put(f, f->front.dir, "ring-page-order", "0");
    offer(f, "11", "3");
    assert_int_equal(keys_blk_front_read(&f->back, 0, KEYS_BLK_QUEUES_MAX, &out, NULL), 0);
    assert_int_equal(out.queue[0].ring_ref[0], 11);
    put(f, f->front.dir, "ring-ref0", "12");
    assert_int_equal(keys_blk_front_read(&f->back, 0, KEYS_BLK_QUEUES_MAX, &out, NULL), 0);
    assert_int_equal(out.queue[0].ring_ref[0], 12);
    assert_string_equal(out.protocol, "");
    assert_false(out.persistent);
}

static void test_a_hostile_offer_is_refused_by_name(void **state)
{
    static const struct {
        const char *key, *value;
        int result;
    } rows[] = {
        {"ring-ref", "0", -ERANGE},
        {"ring-ref", "4294967296", -ERANGE},
        {"ring-ref", "18446744073709551624", -ERANGE},
        {"ring-ref", "8 9", -EINVAL},
        {"ring-ref", "", -EINVAL},
        {"event-channel", "0", -ERANGE},
        {"event-channel", "131072", -ERANGE},
        {"event-channel", "-1", -EINVAL},
        {"ring-page-order", "5", -ERANGE},
        {"ring-page-order", "31", -ERANGE},
        {"ring-page-order", "4294967296", -ERANGE},
        {"ring-page-order", "one", -EINVAL},
        {"ring-page-order", "1", -ENOENT}, /* and no ring-ref0 */
        {"multi-queue-num-queues", "0", -ERANGE},
        {"multi-queue-num-queues", "17", -ERANGE},
        {"multi-queue-num-queues", "4294967297", -ERANGE},
        {"multi-queue-num-queues", "two", -EINVAL},
        {"feature-persistent", "yes", -EINVAL},
        {"protocol", "a protocol of more than thirty-one bytes", -ERANGE},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct fixture *f = fresh(state);
        struct keys_blk_front out = {.queue[0].port = 77};
        struct err e = {0};
        offer(f, "8", "3");
        put(f, f->front.dir, rows[i].key, rows[i].value);
        assert_int_equal(keys_blk_front_read(&f->back, 4, KEYS_BLK_QUEUES_MAX, &out, &e), rows[i].result);
        assert_non_null(strstr(e.text, rows[i].result == -ENOENT ? "ring-ref0" : rows[i].key));
        assert_int_equal(out.queue[0].port, 77);
    }
}

static void test_an_offer_needs_ring_and_port_and_no_page_twice(void **state)
{
    struct fixture *f = fresh(state);
    struct keys_blk_front out;
    struct err e = {0};
    assert_int_equal(keys_blk_front_read(&f->back, 4, KEYS_BLK_QUEUES_MAX, &out, &e), -ENOENT);
    put(f, f->front.dir, "ring-ref", "8");
    assert_int_equal(keys_blk_front_read(&f->back, 4, KEYS_BLK_QUEUES_MAX, &out, &e), -ENOENT);
    assert_non_null(strstr(e.text, "event-channel"));
    put(f, f->front.dir, "event-channel", "1");
    put(f, f->front.dir, "feature-persistent", "2");
    put(f, f->front.dir, "protocol", "sparc-abi"); /* whether it is known is the caller's to say */
    assert_int_equal(keys_blk_front_read(&f->back, 4, KEYS_BLK_QUEUES_MAX, &out, &e), 0);
    assert_true(out.persistent);
    assert_string_equal(out.protocol, "sparc-abi");
    put(f, f->front.dir, "ring-page-order", "1");
    put(f, f->front.dir, "ring-ref0", "8");
    put(f, f->front.dir, "ring-ref1", "8");
    assert_int_equal(keys_blk_front_read(&f->back, 4, KEYS_BLK_QUEUES_MAX, &out, &e), -EINVAL);
    assert_non_null(strstr(e.text, "ring-ref1 is 8, as is ring-ref0"));
}

/* ---- the backend's ---- */

static void test_features_default_and_are_clamped(void **state)
{
    struct fixture *f = fresh(state);
    struct keys_blk_features out;
    assert_int_equal(keys_blk_features_read(&f->front, &out, NULL), 0);
    assert_true(out.max_ring_order == 0 && out.max_queues == 1 && out.max_indirect_segments == 0);
    assert_false(out.persistent);
    const struct keys_blk_features in = {
        .max_ring_order = 4, .max_queues = 2, .max_indirect_segments = 256, .persistent = true};
    assert_int_equal(keys_blk_features_write(&f->back, STORE_NO_TX, &in, NULL), 0);
    assert_int_equal(keys_blk_features_read(&f->front, &out, NULL), 0);
    assert_true(out.max_ring_order == 4 && out.max_queues == 2 && out.max_indirect_segments == 256);
    assert_true(out.persistent);
    put(f, f->back.dir, "feature-max-indirect-segments", "4294967295");
    assert_int_equal(keys_blk_features_read(&f->front, &out, NULL), 0);
    assert_int_equal(out.max_indirect_segments, KEYS_BLK_INDIRECT_MAX);
    const struct keys_blk_features less = {.max_queues = 1};
    assert_int_equal(keys_blk_features_write(&f->back, STORE_NO_TX, &less, NULL), 0); /* takes back what it offered */
    assert_int_equal(keys_blk_features_read(&f->front, &out, NULL), 0);
    assert_int_equal(out.max_indirect_segments, 0);
    put(f, f->back.dir, "max-ring-page-order", "4294967295");
    assert_int_equal(keys_blk_features_read(&f->front, &out, NULL), 0);
    assert_int_equal(out.max_ring_order, KEYS_BLK_RING_ORDER_MAX);
    put(f, f->back.dir, "multi-queue-max-queues", "0");
    assert_int_equal(keys_blk_features_read(&f->front, &out, NULL), -ERANGE);
}

static void test_a_disk_reads_back(void **state)
{
    struct fixture *f = fresh(state);
    const struct keys_blk_disk in = {.sectors = 1ull << 50,
                                     .sector_bytes = 4096,
                                     .physical_sector_bytes = 8192,
                                     .info = KEYS_BLK_INFO_READONLY | KEYS_BLK_INFO_CDROM,
                                     .flush_cache = true,
                                     .barrier = true,
                                     .discard = true,
                                     .discard_granularity_bytes = 65536,
                                     .discard_alignment_bytes = 512};
    struct keys_blk_disk out;
    struct err e = {0};
    assert_int_equal(keys_blk_disk_read(&f->front, &out, &e), -ENOENT);
    assert_int_equal(keys_blk_disk_write(&f->back, STORE_NO_TX, &in, NULL), 0);
    assert_int_equal(keys_blk_disk_read(&f->front, &out, NULL), 0);
    assert_true(out.sectors == in.sectors && out.sector_bytes == 4096 && out.physical_sector_bytes == 8192);
    assert_true(out.info == in.info && out.flush_cache && out.barrier);
    assert_true(out.discard && out.discard_granularity_bytes == 65536 && out.discard_alignment_bytes == 512);
    expect(f, f->back.dir, "discard-secure", "0");
    const struct keys_blk_disk without = {.sectors = 8, .sector_bytes = 512, .physical_sector_bytes = 512};
    assert_int_equal(keys_blk_disk_write(&f->back, STORE_NO_TX, &without, NULL), 0);
    assert_int_equal(keys_blk_disk_read(&f->front, &out, NULL), 0);
    assert_true(!out.discard && out.discard_granularity_bytes == 512 && out.discard_alignment_bytes == 0);
}

static void test_a_hostile_disk_is_refused(void **state)
{
    static const struct {
        const char *key, *value;
    } rows[] = {
        {"sectors", "18014398509481984"}, /* 2^54: its bytes no longer fit a file offset */
        {"sectors", "-8"},
        {"sectors", "7"}, /* of 512 bytes, where sector-size is 4096 */
        {"sector-size", "0"},
        {"sector-size", "511"},
        {"sector-size", "1000"},
        {"sector-size", "8192"},
        {"sector-size", "4294967808"},
        {"physical-sector-size", "512"}, /* below sector-size */
        {"physical-sector-size", "5000"},
        {"info", "4294967296"},
        {"feature-flush-cache", "maybe"},
        {"feature-discard", "maybe"},
        {"discard-granularity", "0"},
        {"discard-granularity", "4294967296"},
        {"discard-alignment", "-1"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct fixture *f = fresh(state);
        struct keys_blk_disk out = {.sectors = 77};
        struct err e = {0};
        put(f, f->back.dir, "sectors", "800");
        put(f, f->back.dir, "sector-size", "4096");
        assert_int_equal(keys_blk_disk_read(&f->front, &out, &e), 0);
        assert_int_equal(out.physical_sector_bytes, 4096);
        out.sectors = 77;
        put(f, f->back.dir, rows[i].key, rows[i].value);
        assert_true(keys_blk_disk_read(&f->front, &out, &e) < 0);
        assert_non_null(strstr(e.text, rows[i].key));
        assert_int_equal(out.sectors, 77);
    }
}

/* ---- names ---- */

static void test_names_have_the_numbers_that_xl_gives_them(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint32_t devid;
    } rows[] = {
        {"xvda", 51712},
        {"xvda1", 51713},
        {"xvdb", 51728},
        {"xvdp15", 51967},
        {"xvdq", 1u << 28 | 16u << 8},
        {"xvda16", 1u << 28 | 16},
        {"xvdaa", 1u << 28 | 26u << 8},
        {"xvdz255", 1u << 28 | 25u << 8 | 255},
        {"hda", 768},
        {"hda63", 831},
        {"hdb", 832},
        {"hdc", 5632},
        {"hdd", 5696},
        {"sda", 2048},
        {"sdb1", 2065},
        {"sdp15", 2303},
        {"51712", 51712},
        {"0xca00", 51712},
        {"0", 0},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        uint32_t devid = 1;
        assert_int_equal(keys_blk_devid(rows[i].name, &devid), 0);
        assert_int_equal(devid, rows[i].devid);
        char name[16];
        keys_blk_vdev(devid, name, sizeof(name));
        uint32_t again;
        assert_int_equal(keys_blk_devid(name, &again), 0);
        assert_int_equal(again, devid);
        if (rows[i].name[0] == 'x')
            assert_string_equal(name, rows[i].name);
    }
    static const char *const bad[] = {
        "",        "x",   "xvd",   "xvd1", "xvda0", "xvda01", "xvda256", "xvda-1", "xvdA",   "xvda 1", "xvdzzzzzzz",
        "xvda0x1", "hde", "hda64", "sdq",  "sda16", "hd",     "sd",      "vda",    "51712x", "-1",     "4294967296"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        uint32_t devid = 77;
        assert_int_equal(keys_blk_devid(bad[i], &devid), -EINVAL);
        assert_int_equal(devid, 77);
    }
}

static void test_every_number_has_a_name_that_leads_back(void **state)
{
    (void)state;
    uint64_t seed = 1;
    for (unsigned i = 0; i < 200000; i++) {
        random_step(&seed);
        uint32_t devid = (uint32_t)(seed >> 32), again;
        if (i & 1)
            devid = devid % (1u << 29);
        char name[16];
        keys_blk_vdev(devid, name, sizeof(name));
        assert_int_equal(keys_blk_devid(name, &again), 0);
        assert_int_equal(again, devid);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_number_is_within_its_range_or_refused),
        cmocka_unit_test(test_a_hostile_value_does_not_reach_a_log_raw),
        cmocka_unit_test(test_configuration_is_what_xl_writes_and_reads_back),
        cmocka_unit_test(test_configuration_of_xl_itself_is_understood),
        cmocka_unit_test(test_configuration_without_format_or_path_is_refused),
        cmocka_unit_test(test_an_offer_reads_back_at_every_order),
        cmocka_unit_test(test_a_second_offer_leaves_nothing_of_the_first),
        cmocka_unit_test(test_order_zero_in_words_takes_either_name),
        cmocka_unit_test(test_a_hostile_offer_is_refused_by_name),
        cmocka_unit_test(test_an_offer_needs_ring_and_port_and_no_page_twice),
        cmocka_unit_test(test_features_default_and_are_clamped),
        cmocka_unit_test(test_a_disk_reads_back),
        cmocka_unit_test(test_a_hostile_disk_is_refused),
        cmocka_unit_test(test_names_have_the_numbers_that_xl_gives_them),
        cmocka_unit_test(test_every_number_has_a_name_that_leads_back),
    };
    return cmocka_run_group_tests_name("keys_blk", tests, setup, teardown);
}
