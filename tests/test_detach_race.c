/* SPDX-License-Identifier: MIT */
/* The toolstack asks for a device's end in the moment in which it connects. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include <poll.h>
#include <signal.h>

#include "backend/blk/image.h"
#include "tests/blkworld.h"
#include "tests/harness.h"

static struct world world;

/* As blkguest_offer(), with the hypervisor role stopped before the last word: the backend's attach hangs halfway. */
static void offer_to_a_stopped_world(struct blkguest *g, pid_t hypervisor)
{
    struct keys_blk_front keys = {.queue_count = 1, .ring_ref_count = 1};
    g->protocol = blk_protocol_find(NULL);
    ring_front_init(&g->ring, g->memory.address, PAGE_BYTES, g->protocol->slot_bytes);
    assert_int_equal(gnttab_grant(platform_gnttab(g->platform), 0, g->memory.base_gfn, false, &g->ring_gref[0], NULL),
                     0);
    assert_int_equal(platform_evtchn_alloc_unbound(g->platform, 0, &g->channel, NULL), 0);
    keys.queue[0].ring_ref[0] = g->ring_gref[0];
    keys.queue[0].port = g->channel.port;
    assert_int_equal(keys_blk_front_write(&g->xb, STORE_NO_TX, &keys, NULL), 0);
    assert_int_equal(kill(hypervisor, SIGSTOP), 0);
    blkguest_switch(g, XenbusStateInitialised);
}

static bool back_closes(void *ctx)
{
    struct blkguest *g = ctx;
    return xb_device_read_peer(&g->xb) == 0 && g->xb.peer_state == XenbusStateClosing;
}

static void test_a_detach_meets_a_connect(void **state)
{
    char dir[128], out[256];
    static struct blkguest g;
    (void)state;
    world_start(&world, NULL);
    world_image(&world, "disk.img", 1 << 20, 1);
    unsigned domid = world_guest(&world, "vm", "disk.img", NULL);
    pid_t blk = world_role(&world, "blk"), hypervisor = world_role(&world, "hypervisor");
    snprintf(dir, sizeof(dir), "%s/dom/%u", world.run, domid);
    blkguest_open(&g, dir, BLKWORLD_DEVID);
    offer_to_a_stopped_world(&g, hypervisor);
    poll(NULL, 0, 200);
    assert_int_equal(world_shell(&world, out, sizeof(out), "xenstore-write /local/domain/0/backend/vbd/%u/%u/state 5",
                                 domid, BLKWORLD_DEVID),
                     0);
    poll(NULL, 0, 200);
    assert_int_equal(kill(hypervisor, SIGCONT), 0);
    world_await(back_closes, &g, "the backend closes");
    poll(NULL, 0, 200);
    assert_int_equal(world_role(&world, "blk"), blk);
    blkguest_close(&g);
    world_stop(&world);
}

static void test_a_detach_meets_a_takeover_that_waits_for_the_image(void **state)
{
    struct blkworld w;
    struct keys_blk_config config = {0};
    static struct blkguest g;
    struct image *lock;
    char dir[256];
    (void)state;
    blkworld_start(&w, NULL);
    uint16_t domid = blkworld_domain(&w, "vm", dir, sizeof(dir));
    blkworld_image(&w, "disk.img", 1 << 20, 1, config.path, sizeof(config.path));
    blkworld_attach(&w, domid, BLKWORLD_DEVID, &config);
    blkguest_open(&g, dir, BLKWORLD_DEVID);
    blkguest_connect(&g, NULL);
    blkworld_role_kill(&w);
    const struct image_config c = {.path = config.path};
    for (unsigned i = 0; image_open("raw", &c, &lock, NULL); i++) {
        assert_in_range(i, 0, BLKWORLD_PATIENCE_MS);
        usleep(1000);
    }
    blkworld_role_start(&w, NULL);
    assert_int_equal(
        store_write(w.store, STORE_NO_TX, "5", "/local/domain/0/backend/vbd/%u/%u/state", domid, BLKWORLD_DEVID), 0);
    usleep(300000);
    image_close(lock);
    blkguest_switch(&g, XenbusStateClosing);
    blkguest_switch(&g, XenbusStateClosed);
    blkworld_wait_back(&w, domid, BLKWORLD_DEVID, XenbusStateClosed);
    blkguest_close(&g);
    blkworld_stop(&w); /* asserts that the role ended well */
}

int main(int argc, char **argv)
{
    blkworld_child(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_detach_meets_a_connect),
        cmocka_unit_test(test_a_detach_meets_a_takeover_that_waits_for_the_image),
    };
    return cmocka_run_group_tests_name("detach race", tests, NULL, NULL);
}
