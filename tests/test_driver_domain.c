/* SPDX-License-Identifier: MIT */
/* A driver domain: a blk role that is a domain of its own serves a guest's disk. Only the driver domain gets at what
 * the guest shares with it; dom0, which serves others beside it, does not. The toolstack's part is played by hand here,
 * node by node, as domain 0. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <domzero/domzero.h>
#include <fcntl.h>
#include <sys/prctl.h>

#include "platform/platform.h"
#include "tests/harness.h"
#include "xenbus/keys_blk.h"

#define MIB (1u << 20)

enum { DEVID = 51712 };

static struct world world;
static int go[2], end[2];

static unsigned domain(const char *name)
{
    char cfg[64], file[64], out[512];
    snprintf(file, sizeof(file), "%s.cfg", name);
    snprintf(cfg, sizeof(cfg), "name = \"%s\"\n", name);
    world_write(&world, file, cfg);
    assert_int_equal(world_domzero(&world, out, sizeof(out), "create %s", world_path(&world, file)), 0);
    return (unsigned)strtoul(strstr(out, "domid ") + 6, NULL, 10);
}

static pid_t driver_start(unsigned domid)
{
    char dir[128];
    snprintf(dir, sizeof(dir), "%s/dom/%u", world.run, domid);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        execl(world_program("domzerod"), "domzerod", "--foreground", "--role", "blk", "--domain-dir", dir,
              (char *)NULL);
        _exit(127);
    }
    return pid;
}

/* What `domzero block-attach` writes, with the driver as the backend's domain. */
static void attach(struct store_client *c, unsigned guest, unsigned driver)
{
    char front[96], back[96];
    struct err e;
    struct keys_blk_config config = {.format = "raw", .dma = "pin", .online = true};
    snprintf(config.path, sizeof(config.path), "%s", world_path(&world, "disk.img"));
    snprintf(front, sizeof(front), "/local/domain/%u/device/vbd/%d", guest, DEVID);
    snprintf(back, sizeof(back), "/local/domain/%u/backend/vbd/%u/%d", driver, guest, DEVID);
    store_tx tx;
    assert_int_equal(store_tx_start(c, &tx), 0);
    assert_int_equal(store_mkdir(c, tx, "%s", back), 0);
    assert_int_equal(store_set_owner_reader(c, tx, driver, guest, "%s", back), 0);
    assert_int_equal(store_mkdir(c, tx, "%s", front), 0);
    assert_int_equal(store_set_owner_reader(c, tx, guest, driver, "%s", front), 0);
    assert_int_equal(store_printf(c, tx, back, "frontend", "%s", front), 0);
    assert_int_equal(store_printf(c, tx, back, "frontend-id", "%u", guest), 0);
    assert_int_equal(keys_blk_config_write(c, tx, back, &config, "xvda", &e), 0);
    assert_int_equal(store_printf(c, tx, back, "state", "1"), 0);
    assert_int_equal(store_printf(c, tx, front, "backend", "%s", back), 0);
    assert_int_equal(store_printf(c, tx, front, "backend-id", "%u", driver), 0);
    assert_int_equal(store_printf(c, tx, front, "virtual-device", "%d", DEVID), 0);
    assert_int_equal(store_printf(c, tx, front, "device-type", "disk"), 0);
    assert_int_equal(store_printf(c, tx, front, "state", "1"), 0);
    assert_int_equal(store_tx_end(c, tx, false), 0);
}

static int guest_writes_and_holds(const char *domain_dir, void *arg)
{
    (void)arg;
    static unsigned char data[MIB], back[MIB];
    struct dz_domain *dom;
    struct dz_vbd *disk;
    char byte;
    close(end[1]);
    world_pattern(data, MIB, 0, 2);
    if (dz_domain_open(domain_dir, &dom) < 0 || dz_vbd_open(dom, "xvda", WORLD_PATIENT, &disk) < 0 ||
        dz_vbd_write(disk, data, MIB, 0) < 0 || dz_vbd_flush(disk) < 0 || dz_vbd_read(disk, back, MIB, 0) < 0) {
        fprintf(stderr, "guest: %s\n", dz_error());
        return 1;
    }
    bool same = memcmp(data, back, MIB) == 0;
    if (write(go[1], "", 1) != 1 || read(end[0], &byte, 1) != 0)
        return 1;
    dz_vbd_close(disk);
    dz_domain_close(dom);
    return !same;
}

/* Domain 0 itself asks for all that the guest has shared, while it is shared with the driver. */
static void dom0_maps_nothing(unsigned guest)
{
    struct platform *p;
    struct gntmap *map;
    struct frametable *frames;
    const struct platform_where where = {.run_dir = world.run};
    struct err e;
    assert_int_equal(platform_open(NULL, &where, NULL, &p, &e), 0);
    if (platform_gntmap_get(p, (uint16_t)guest, &map, &frames, &e) == 0) {
        struct gntmap_page page;
        struct frame_extent *extent;
        unsigned char *address;
        for (uint32_t gref = 0; gref < 2048; gref++)
            assert_int_not_equal(gntmap_map(map, gref, false, &page), 0);
        for (uint32_t gfn = 0; gfn < 4096; gfn++)
            assert_true(frametable_pin(frames, gfn, false, &extent, &address) < 0);
        platform_gntmap_put(p, (uint16_t)guest);
    }
    platform_close(p);
}

static void test_a_driver_domain_serves_a_guest_and_dom0_sees_none_of_it(void **state)
{
    (void)state;
    char out[512], path[128];
    struct store_client *c;
    world_start(&world, NULL);
    world_image(&world, "disk.img", MIB, 1);
    unsigned driver = domain("driver"), guest = domain("guest");
    pid_t daemon = driver_start(driver);
    snprintf(path, sizeof(path), "%s/xenstored/socket", world.run);
    assert_int_equal(store_client_open(path, &c, NULL), 0);
    attach(c, guest, driver);
    assert_int_equal(pipe2(go, O_CLOEXEC) | pipe2(end, O_CLOEXEC), 0);
    pid_t pid = world_spawn(&world, guest, guest_writes_and_holds, NULL);
    char byte;
    close(go[1]);
    assert_int_equal(read(go[0], &byte, 1), 1);
    dom0_maps_nothing(guest);
    close(end[1]);
    assert_int_equal(world_wait(pid), 0);
    kill(daemon, SIGTERM);
    assert_int_equal(world_wait(daemon), 0);
    store_client_close(c);
    world_image(&world, "should.img", MIB, 2);
    assert_int_equal(world_shell(&world, out, sizeof(out), "cmp %s %s", world_path(&world, "disk.img"),
                                 world_path(&world, "should.img")),
                     0);
    assert_int_equal(world_domzero(&world, out, sizeof(out), "destroy guest"), 0);
    assert_int_equal(world_domzero(&world, out, sizeof(out), "destroy driver"), 0);
    world_stop(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_driver_domain_serves_a_guest_and_dom0_sees_none_of_it),
    };
    return cmocka_run_group_tests_name("driver domain", tests, NULL, NULL);
}
