/* SPDX-License-Identifier: MIT */
/* The blk role as a process, from outside: what its devices do in the store, what its guests get, what is left when
 * guests, devices or the role itself go away. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

#include "backend/blk/image.h"
#include "grant/dma.h"
#include "tests/blkworld.h"
#include "tests/tool.h"

#define DISK_BYTES   (1u << 20)
#define DISK_SECTORS (DISK_BYTES / SECTOR_BYTES)
#define SEED         3u

struct scene {
    struct blkworld world;
    char domain_dir[256];
    uint16_t domid;
    struct keys_blk_config config;
    struct blkguest guest;
};

static void scene_world(struct scene *s)
{
    *s = (struct scene){0};
    blkworld_start(&s->world, NULL);
    s->domid = blkworld_domain(&s->world, "guest", s->domain_dir, sizeof(s->domain_dir));
    blkworld_image(&s->world, "disk.img", DISK_BYTES, SEED, s->config.path, sizeof(s->config.path));
}

/* One domain with one disk, connected. */
static void scene_start(struct scene *s)
{
    scene_world(s);
    blkworld_attach(&s->world, s->domid, BLKWORLD_DEVID, &s->config);
    blkguest_open(&s->guest, s->domain_dir, BLKWORLD_DEVID);
    blkguest_connect(&s->guest, NULL);
}

/* The guest leaves in order, and nothing of it is left. */
static void scene_stop(struct scene *s)
{
    blkguest_disconnect(&s->guest);
    blkguest_close(&s->guest);
    blkworld_wait_held(&s->world, s->domid, 0);
    blkworld_stop(&s->world);
}

static bool image_is_free(const char *path)
{
    struct image *image = NULL;
    const struct image_config c = {.path = path};
    int rc = image_open("raw", &c, &image, NULL);
    image_close(image);
    return rc == 0;
}

static void wait_image(const char *path, bool is_free)
{
    for (unsigned i = 0; image_is_free(path) != is_free; i++) {
        assert_in_range(i, 0, BLKWORLD_PATIENCE_MS);
        usleep(1000);
    }
}

/* ---- an orderly life ---- */

static void check_io(struct blkguest *g, const char *path)
{
    unsigned char wanted[BLKREQ_SEGMENTS_MAX * PAGE_BYTES], got[sizeof(wanted)];
    int fd = open(path, O_RDONLY);
    for (unsigned n = 1; n <= BLKREQ_SEGMENTS_MAX; n++) {
        blkworld_pattern(g->data, n, n * 8, n + 1000);
        memcpy(wanted, g->data, n * PAGE_BYTES);
        assert_int_equal(blkguest_do(g, BLKIF_OP_WRITE, n * 100, 0, n, 0, 7), BLKIF_RSP_OKAY);
        assert_int_equal(blkguest_do(g, BLKIF_OP_FLUSH_DISKCACHE, 0, 0, 0, 0, 0), BLKIF_RSP_OKAY);
        assert_int_equal(pread(fd, got, n * PAGE_BYTES, n * 100 * SECTOR_BYTES), n * PAGE_BYTES);
        assert_memory_equal(got, wanted, n * PAGE_BYTES);
        assert_int_equal(blkguest_do(g, BLKIF_OP_READ, n * 100, 20, n, 0, 7), BLKIF_RSP_OKAY);
        assert_memory_equal(g->data + 20 * PAGE_BYTES, wanted, n * PAGE_BYTES);
    }
    close(fd);
}

static void test_a_guest_does_verified_io_over_each_protocol_and_dma_row(void **state)
{
    static const char *const protocols[] = {NULL, "x86_64-abi", "x86_32-abi"};
    struct scene s;
    (void)state;
    scene_world(&s);
    blkguest_open(&s.guest, s.domain_dir, BLKWORLD_DEVID);
    for (unsigned d = 0; d < dma_strategy_count; d++) {
        snprintf(s.config.dma, sizeof(s.config.dma), "%s", dma_strategies[d]->name);
        blkworld_attach(&s.world, s.domid, BLKWORLD_DEVID, &s.config);
        for (unsigned p = 0; p < ARRAY_SIZE(protocols); p++) {
            blkguest_switch(&s.guest, XenbusStateInitialising);
            blkguest_connect(&s.guest, protocols[p]);
            assert_int_equal(s.guest.disk.sectors, DISK_SECTORS);
            check_io(&s.guest, s.config.path);
            blkguest_disconnect(&s.guest);
            wait_image(s.config.path, true);
        }
        blkworld_remove(&s.world, s.domid, BLKWORLD_DEVID);
    }
    blkguest_close(&s.guest);
    blkworld_stop(&s.world);
}

/* The whole disk by indirect requests, written, checked in the file, and read back. */
static void check_large_io(struct blkguest *g, const char *path, unsigned seed)
{
    static unsigned char wanted[DISK_BYTES], got[DISK_BYTES];
    _Static_assert(DISK_BYTES == BLKREQ_INDIRECT_SEGMENTS_MAX * PAGE_BYTES, "one request covers it");
    blkworld_pattern(wanted, 0, DISK_SECTORS, seed);
    memcpy(g->data, wanted, DISK_BYTES);
    assert_int_equal(blkguest_do_indirect(g, BLKIF_OP_WRITE, 0, 0, 256, 0, 7), BLKIF_RSP_OKAY);
    int fd = open(path, O_RDONLY);
    assert_int_equal(pread(fd, got, DISK_BYTES, 0), DISK_BYTES);
    close(fd);
    assert_memory_equal(got, wanted, DISK_BYTES);
    memset(g->data, 0, DISK_BYTES);
    assert_int_equal(blkguest_do_indirect(g, BLKIF_OP_READ, 0, 0, 256, 0, 7), BLKIF_RSP_OKAY);
    assert_memory_equal(g->data, wanted, DISK_BYTES);
}

/* Fills the ring to its last slot with reads of one page each, again and again, so that all slots are used. */
static void check_full_ring(struct blkguest *g, unsigned seed)
{
    unsigned char wanted[PAGE_BYTES];
    uint64_t id, first = g->next_id + 1;
    for (unsigned round = 0; round < 3; round++, first += g->ring.ring.entries) {
        static bool seen[512];
        memset(seen, 0, sizeof(seen));
        memset(g->data, 0, DISK_BYTES);
        for (unsigned i = 0; i < g->ring.ring.entries; i++)
            blkguest_put(g, BLKIF_OP_READ, i % 256 * 8, i % BLKWORLD_PAGES, 1, 0, 7);
        assert_int_equal(ring_front_room(&g->ring), 0);
        blkguest_kick(g);
        for (unsigned i = 0; i < g->ring.ring.entries; i++) {
            assert_int_equal(blkguest_take(g, &id), BLKIF_RSP_OKAY);
            assert_in_range(id, first, first + g->ring.ring.entries - 1);
            assert_false(seen[id - first]);
            seen[id - first] = true;
        }
        for (unsigned i = 0; i < MIN(g->ring.ring.entries, 256u); i++) {
            blkworld_pattern(wanted, i * 8, 8, seed);
            assert_memory_equal(g->data + i * PAGE_BYTES, wanted, PAGE_BYTES);
        }
    }
}

static void test_rings_of_every_order_serve_large_requests_over_each_abi_and_dma_row(void **state)
{
    static const char *const protocols[] = {NULL, "x86_32-abi"};
    struct scene s;
    (void)state;
    scene_world(&s);
    blkguest_open(&s.guest, s.domain_dir, BLKWORLD_DEVID);
    for (unsigned d = 0; d < dma_strategy_count; d++) {
        snprintf(s.config.dma, sizeof(s.config.dma), "%s", dma_strategies[d]->name);
        blkworld_attach(&s.world, s.domid, BLKWORLD_DEVID, &s.config);
        for (unsigned n = 0; n < 2 * (KEYS_BLK_RING_ORDER_MAX + 1); n++) {
            s.guest.order = n / 2;
            /* Pages side by side, and not: valgrind refuses the mremap(2) that the guest's own view of these needs. */
            s.guest.scattered = n % 3 && !under_tool("valgrind");
            blkguest_switch(&s.guest, XenbusStateInitialising);
            blkguest_connect(&s.guest, protocols[n % 2]);
            assert_int_equal(s.guest.ring.ring.entries, 32u << s.guest.order);
            check_large_io(&s.guest, s.config.path, n + 50);
            check_full_ring(&s.guest, n + 50);
            blkguest_disconnect(&s.guest);
        }
        blkworld_remove(&s.world, s.domid, BLKWORLD_DEVID);
        blkworld_wait_held(&s.world, s.domid, 0);
    }
    blkguest_close(&s.guest);
    blkworld_stop(&s.world);
}

static void test_an_attached_image_is_locked_until_the_device_is_closed(void **state)
{
    struct scene s;
    (void)state;
    scene_start(&s);
    assert_false(image_is_free(s.config.path));
    blkguest_disconnect(&s.guest);
    assert_true(image_is_free(s.config.path)); /* before Closed is shown */
    blkguest_switch(&s.guest, XenbusStateInitialising);
    blkguest_connect(&s.guest, NULL);
    assert_false(image_is_free(s.config.path));
    scene_stop(&s);
}

static void test_a_region_of_a_file_is_a_disk_and_a_read_only_one_refuses_writes(void **state)
{
    struct scene s;
    unsigned char wanted[PAGE_BYTES];
    (void)state;
    scene_world(&s);
    s.config.offset_bytes = 65536;
    s.config.size_bytes = 131072;
    s.config.readonly = true;
    blkworld_attach(&s.world, s.domid, BLKWORLD_DEVID, &s.config);
    blkguest_open(&s.guest, s.domain_dir, BLKWORLD_DEVID);
    blkguest_connect(&s.guest, NULL);
    assert_int_equal(s.guest.disk.sectors, 256);
    assert_int_equal(s.guest.disk.info & KEYS_BLK_INFO_READONLY, KEYS_BLK_INFO_READONLY);
    blkworld_pattern(wanted, 128 + 248, 8, SEED);
    assert_int_equal(blkguest_do(&s.guest, BLKIF_OP_READ, 248, 0, 1, 0, 7), BLKIF_RSP_OKAY);
    assert_memory_equal(s.guest.data, wanted, PAGE_BYTES);
    assert_int_equal(blkguest_do(&s.guest, BLKIF_OP_READ, 249, 0, 1, 0, 7), BLKIF_RSP_ERROR);
    assert_int_equal(blkguest_do(&s.guest, BLKIF_OP_WRITE, 0, 0, 1, 0, 7), BLKIF_RSP_ERROR);
    scene_stop(&s);
}

static void test_direct_io_serves_the_same_bytes(void **state)
{
    struct scene s;
    (void)state;
    scene_world(&s);
    s.config.direct_io = true;
    blkworld_attach(&s.world, s.domid, BLKWORLD_DEVID, &s.config);
    blkguest_open(&s.guest, s.domain_dir, BLKWORLD_DEVID);
    blkguest_connect(&s.guest, NULL);
    check_io(&s.guest, s.config.path);
    scene_stop(&s);
}

static void test_discards_are_offered_where_they_are_wanted_and_possible(void **state)
{
    static const struct {
        bool wanted, readonly, offered;
    } rows[] = {{true, false, true}, {false, false, false}, {true, true, false}};
    struct scene s;
    uint64_t id;
    (void)state;
    scene_world(&s);
    blkguest_open(&s.guest, s.domain_dir, BLKWORLD_DEVID);
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        s.config.discard = rows[i].wanted;
        s.config.readonly = rows[i].readonly;
        s.config.offset_bytes = 512;
        s.config.size_bytes = DISK_BYTES / 2;
        blkworld_attach(&s.world, s.domid, BLKWORLD_DEVID, &s.config);
        blkguest_switch(&s.guest, XenbusStateInitialising);
        blkguest_connect(&s.guest, NULL);
        const struct keys_blk_disk *disk = &s.guest.disk;
        assert_int_equal(disk->discard, rows[i].offered);
        if (rows[i].offered) /* the first whole block of the file begins so far into the disk */
            assert_int_equal(disk->discard_alignment_bytes, disk->discard_granularity_bytes - 512);
        struct blkreq req = {.id = 77, .operation = BLKIF_OP_DISCARD, .sector = 16, .sector_count = 16};
        blkguest_put_raw(&s.guest, &req);
        blkguest_kick(&s.guest);
        assert_int_equal(blkguest_take(&s.guest, &id), rows[i].offered ? BLKIF_RSP_OKAY : BLKIF_RSP_EOPNOTSUPP);
        memset(s.guest.data, 1, 2 * PAGE_BYTES);
        assert_int_equal(blkguest_do(&s.guest, BLKIF_OP_READ, 16, 0, 2, 0, 7), BLKIF_RSP_OKAY);
        for (unsigned k = 0; k < 2 * PAGE_BYTES; k++)
            assert_int_equal(s.guest.data[k], 0); /* by the first of the rows, and still */
        blkguest_disconnect(&s.guest);
        blkworld_remove(&s.world, s.domid, BLKWORLD_DEVID);
        blkworld_wait_held(&s.world, s.domid, 0);
        wait_image(s.config.path, true);
    }
    blkguest_close(&s.guest);
    blkworld_stop(&s.world);
}

/* ---- configuration that cannot work is told at once ---- */

struct misfit {
    const char *params, *dma, *words;
};

static void test_a_device_that_cannot_be_says_why_and_closes(void **state)
{
    static const struct misfit misfits[] = {
        {"raw:/nowhere/at/all.img", "pin", "/nowhere/at/all.img does not exist"},
        {"raw:/", "pin", "/ is a directory"},
        {"qcow7:/dev/null", "pin", "qcow7"},
        {"no-colon", "pin", "FORMAT:/ABSOLUTE/PATH"},
        {"raw:/dev/null", "pin", "neither a regular file nor a block device"},
        {NULL, "teleport", "teleport"},
    };
    struct scene s;
    char text[512];
    (void)state;
    scene_start(&s);
    for (unsigned i = 0; i < ARRAY_SIZE(misfits); i++) {
        struct keys_blk_config c = s.config;
        uint32_t devid = BLKWORLD_DEVID + 16 * (1 + i);
        char dir[128];
        snprintf(c.dma, sizeof(c.dma), "%s", misfits[i].dma);
        snprintf(dir, sizeof(dir), "/local/domain/0/backend/vbd/%u/%u", s.domid, devid);
        if (misfits[i].params) { /* the typed writer would not write these */
            const char *colon = strchr(misfits[i].params, ':');
            snprintf(c.format, sizeof(c.format), "%.*s", colon ? (int)(colon - misfits[i].params) : 0,
                     misfits[i].params);
            snprintf(c.path, sizeof(c.path), "%s", colon ? colon + 1 : misfits[i].params);
            if (!colon)
                strcpy(c.format, "-");
        }
        blkworld_attach(&s.world, s.domid, devid, &c);
        blkworld_wait_back(&s.world, s.domid, devid, XenbusStateClosed);
        blkworld_error(&s.world, s.domid, devid, text, sizeof(text));
        if (!strstr(text, misfits[i].words))
            fail_msg("%u: '%s' does not say '%s'", i, text, misfits[i].words);
        blkguest_check_served(&s.guest, SEED); /* the neighbour does not care */
        blkworld_remove(&s.world, s.domid, devid);
    }
    scene_stop(&s);
}

static void test_two_devices_cannot_write_one_image(void **state)
{
    struct scene s;
    char text[512];
    (void)state;
    scene_start(&s);
    struct keys_blk_config c = s.config;
    blkworld_attach(&s.world, s.domid, BLKWORLD_DEVID + 16, &c);
    blkworld_wait_back(&s.world, s.domid, BLKWORLD_DEVID + 16, XenbusStateClosed);
    blkworld_error(&s.world, s.domid, BLKWORLD_DEVID + 16, text, sizeof(text));
    assert_non_null(strstr(text, "locked"));
    blkguest_check_served(&s.guest, SEED);
    scene_stop(&s);
}

/* ---- devices and guests that go ---- */

static void test_a_directory_that_vanishes_takes_its_device_along(void **state)
{
    struct scene s;
    (void)state;
    scene_start(&s);
    blkworld_remove(&s.world, s.domid, BLKWORLD_DEVID);
    blkworld_wait_held(&s.world, s.domid, 0);
    wait_image(s.config.path, true);
    blkworld_attach(&s.world, s.domid, BLKWORLD_DEVID, &s.config); /* and may come again */
    blkguest_ring_end(&s.guest);
    blkguest_connect(&s.guest, NULL);
    blkguest_check_served(&s.guest, SEED);
    scene_stop(&s);
}

/* The end of the old directory and the beginning of the new one may be seen in one look. */
static void test_a_device_that_is_made_anew_at_once_is_seen(void **state)
{
    struct scene s;
    (void)state;
    scene_world(&s);
    for (unsigned round = 0; round < 200; round++) {
        blkworld_attach(&s.world, s.domid, BLKWORLD_DEVID, &s.config);
        blkworld_wait_back(&s.world, s.domid, BLKWORLD_DEVID, XenbusStateInitWait);
        blkworld_remove(&s.world, s.domid, BLKWORLD_DEVID);
    }
    blkworld_stop(&s.world);
}

static void test_a_toolstack_that_asks_for_the_end_gets_it(void **state)
{
    struct scene s;
    char back[64];
    (void)state;
    scene_start(&s);
    snprintf(back, sizeof(back), "/local/domain/0/backend/vbd/%u/%u", s.domid, BLKWORLD_DEVID);
    assert_int_equal(store_write(s.world.store, STORE_NO_TX, "0", "%s/online", back), 0);
    assert_int_equal(store_write(s.world.store, STORE_NO_TX, "5", "%s/state", back), 0);
    blkguest_check_served(&s.guest, SEED); /* until the guest is done with it */
    blkguest_disconnect(&s.guest);
    blkguest_switch(&s.guest, XenbusStateInitialising); /* too late: it is not online any more */
    blkworld_attach(&s.world, s.domid, BLKWORLD_DEVID + 16, &(struct keys_blk_config){.path = "/nowhere"});
    blkworld_wait_back(&s.world, s.domid, BLKWORLD_DEVID + 16, XenbusStateClosed);
    assert_true(blkworld_back_is(&s.world, s.domid, BLKWORLD_DEVID, XenbusStateClosed));
    assert_true(image_is_free(s.config.path));
    blkworld_remove(&s.world, s.domid, BLKWORLD_DEVID);
    blkguest_close(&s.guest);
    blkworld_stop(&s.world);
}

static void test_lesson_350_a_guest_killed_amid_io_leaves_nothing_held(void **state)
{
    struct scene s;
    (void)state;
    scene_world(&s);
    for (unsigned d = 0; d < dma_strategy_count; d++) {
        snprintf(s.config.dma, sizeof(s.config.dma), "%s", dma_strategies[d]->name);
        blkworld_attach(&s.world, s.domid, BLKWORLD_DEVID, &s.config);
        for (unsigned round = 0; round < 3; round++) {
            uint64_t before = blkworld_stat(&s.world, s.domid, BLKWORLD_DEVID, "requests", 0);
            pid_t pid = blkworld_guest_process(s.domain_dir);
            blkworld_stat(&s.world, s.domid, BLKWORLD_DEVID, "requests", before + 100);
            blkworld_kill(pid);
            blkworld_wait_back(&s.world, s.domid, BLKWORLD_DEVID, XenbusStateClosed);
            assert_true(image_is_free(s.config.path));
            blkworld_wait_held(&s.world, s.domid, 0);
        }
        blkworld_remove(&s.world, s.domid, BLKWORLD_DEVID);
    }
    blkworld_stop(&s.world);
}

static void test_a_killed_guests_neighbour_is_served_on(void **state)
{
    struct scene s;
    struct keys_blk_config other = {0};
    char dir[256];
    (void)state;
    scene_start(&s);
    uint16_t domid = blkworld_domain(&s.world, "other", dir, sizeof(dir));
    blkworld_image(&s.world, "other.img", DISK_BYTES, SEED, other.path, sizeof(other.path));
    blkworld_attach(&s.world, domid, BLKWORLD_DEVID, &other);
    pid_t pid = blkworld_guest_process(dir);
    blkguest_check_served(&s.guest, SEED);
    blkworld_kill(pid);
    for (unsigned i = 0; i < 200; i++)
        blkguest_check_served(&s.guest, SEED);
    blkworld_wait_held(&s.world, domid, 0);
    assert_true(blkworld_held(&s.world, s.domid) > 0);
    scene_stop(&s);
}

/* ---- takeover ---- */

/* What a frontend does when its backend comes back: a fresh ring. A backend that was killed left its marks in the grant
 * entries, so they cannot be ended; they are still grants, and the successor takes the marks over with its own. */
static void guest_reconnect(struct blkguest *g)
{
    platform_evtchn_close(g->platform, &g->channel);
    blkguest_connect(g, NULL);
}

static void test_a_restarted_role_takes_connected_devices_over(void **state)
{
    struct scene s;
    (void)state;
    scene_start(&s);
    blkworld_role_stop(&s.world);
    assert_true(blkworld_back_is(&s.world, s.domid, BLKWORLD_DEVID, XenbusStateConnected));
    blkworld_wait_held(&s.world, s.domid, 0);
    assert_true(image_is_free(s.config.path));
    blkworld_role_start(&s.world, NULL);
    guest_reconnect(&s.guest);
    blkguest_check_served(&s.guest, SEED);
    scene_stop(&s);
}

static void test_a_killed_roles_successor_waits_for_a_fresh_ring(void **state)
{
    struct scene s;
    (void)state;
    scene_start(&s);
    for (unsigned round = 0; round < 3; round++) {
        blkguest_put(&s.guest, BLKIF_OP_WRITE, 8, 0, 11, 0, 7);
        blkguest_kick(&s.guest);
        blkworld_role_kill(&s.world);
        blkworld_role_start(&s.world, NULL);
        blkworld_wait_back(&s.world, s.domid, BLKWORLD_DEVID, XenbusStateInitWait);
        assert_int_equal(blkworld_held(&s.world, s.domid), 0); /* nothing of the old connection is mapped */
        guest_reconnect(&s.guest);
        blkguest_check_served(&s.guest, SEED);
    }
    scene_stop(&s);
}

static void test_what_a_dead_role_left_closing_is_closed(void **state)
{
    struct scene s;
    (void)state;
    scene_start(&s);
    blkworld_role_kill(&s.world);
    assert_int_equal(store_write(s.world.store, STORE_NO_TX, "5", "%s/state", s.guest.xb.peer_dir), 0);
    blkguest_switch(&s.guest, XenbusStateClosing);
    blkworld_role_start(&s.world, NULL);
    blkworld_wait_back(&s.world, s.domid, BLKWORLD_DEVID, XenbusStateClosed);
    blkguest_switch(&s.guest, XenbusStateClosed);
    blkguest_switch(&s.guest, XenbusStateInitialising);
    guest_reconnect(&s.guest);
    blkguest_check_served(&s.guest, SEED);
    scene_stop(&s);
}

/* The role is killed, and somebody else has the image's lock when its successor starts. */
static struct image *successor_without_lock(struct scene *s)
{
    struct image *lock;
    blkworld_role_kill(&s->world);
    const struct image_config c = {.path = s->config.path};
    for (unsigned i = 0; image_open("raw", &c, &lock, NULL); i++) {
        assert_in_range(i, 0, BLKWORLD_PATIENCE_MS);
        usleep(1000);
    }
    blkworld_role_start(&s->world, NULL);
    return lock;
}

static void test_a_takeover_waits_for_the_images_lock_and_nobody_waits_for_it(void **state)
{
    struct scene s;
    struct keys_blk_config other = {0};
    (void)state;
    scene_start(&s);
    struct image *lock = successor_without_lock(&s);
    /* A device that comes now is served, while the other one waits. */
    blkworld_image(&s.world, "other.img", DISK_BYTES, SEED, other.path, sizeof(other.path));
    blkworld_attach(&s.world, s.domid, BLKWORLD_DEVID + 16, &other);
    blkworld_wait_back(&s.world, s.domid, BLKWORLD_DEVID + 16, XenbusStateInitWait);
    assert_true(blkworld_back_is(&s.world, s.domid, BLKWORLD_DEVID, XenbusStateConnected));
    image_close(lock);
    guest_reconnect(&s.guest);
    blkguest_check_served(&s.guest, SEED);
    scene_stop(&s);
}

static void test_a_device_that_is_to_end_while_it_waits_for_the_lock_ends(void **state)
{
    struct scene s;
    char back[64], error[320];
    (void)state;
    scene_start(&s);
    struct image *lock = successor_without_lock(&s);
    snprintf(back, sizeof(back), "/local/domain/0/backend/vbd/%u/%u", s.domid, BLKWORLD_DEVID);
    assert_int_equal(store_write(s.world.store, STORE_NO_TX, "5", "%s/state", back), 0);
    blkguest_switch(&s.guest, XenbusStateClosing);
    blkguest_switch(&s.guest, XenbusStateClosed);
    blkworld_wait_back(&s.world, s.domid, BLKWORLD_DEVID, XenbusStateClosed);
    blkworld_error(&s.world, s.domid, BLKWORLD_DEVID, error, sizeof(error));
    assert_string_equal(error, ""); /* it did not try in vain until the end of its patience */
    image_close(lock);
    blkguest_switch(&s.guest, XenbusStateInitialising);
    guest_reconnect(&s.guest);
    blkguest_check_served(&s.guest, SEED);
    scene_stop(&s);
}

/* ---- the role itself ---- */

static void test_the_role_ends_when_the_world_does(void **state)
{
    struct scene s;
    int status;
    (void)state;
    scene_start(&s);
    blkworld_kill(s.world.servers);
    assert_int_equal(waitpid(s.world.role, &status, 0), s.world.role);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);
    assert_true(image_is_free(s.config.path));
    store_client_close(s.guest.store);
    platform_close(s.guest.platform);
    store_client_close(s.world.store);
    platform_close(s.world.platform);
}

int main(int argc, char **argv)
{
    blkworld_child(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_guest_does_verified_io_over_each_protocol_and_dma_row),
        cmocka_unit_test(test_rings_of_every_order_serve_large_requests_over_each_abi_and_dma_row),
        cmocka_unit_test(test_an_attached_image_is_locked_until_the_device_is_closed),
        cmocka_unit_test(test_a_region_of_a_file_is_a_disk_and_a_read_only_one_refuses_writes),
        cmocka_unit_test(test_direct_io_serves_the_same_bytes),
        cmocka_unit_test(test_discards_are_offered_where_they_are_wanted_and_possible),
        cmocka_unit_test(test_a_device_that_cannot_be_says_why_and_closes),
        cmocka_unit_test(test_two_devices_cannot_write_one_image),
        cmocka_unit_test(test_a_directory_that_vanishes_takes_its_device_along),
        cmocka_unit_test(test_a_device_that_is_made_anew_at_once_is_seen),
        cmocka_unit_test(test_a_toolstack_that_asks_for_the_end_gets_it),
        cmocka_unit_test(test_lesson_350_a_guest_killed_amid_io_leaves_nothing_held),
        cmocka_unit_test(test_a_killed_guests_neighbour_is_served_on),
        cmocka_unit_test(test_a_restarted_role_takes_connected_devices_over),
        cmocka_unit_test(test_a_killed_roles_successor_waits_for_a_fresh_ring),
        cmocka_unit_test(test_what_a_dead_role_left_closing_is_closed),
        cmocka_unit_test(test_a_takeover_waits_for_the_images_lock_and_nobody_waits_for_it),
        cmocka_unit_test(test_a_device_that_is_to_end_while_it_waits_for_the_lock_ends),
        cmocka_unit_test(test_the_role_ends_when_the_world_does),
    };
    return cmocka_run_group_tests_name("blkback", tests, NULL, NULL);
}
