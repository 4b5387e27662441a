/* SPDX-License-Identifier: MIT */
/* The toolstack's side of a disk against a real store: what it makes and who may write there, that a close is asked of
 * a guest that holds the disk and of nobody else, that a backend's reason comes through, and that nothing stays behind.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include <stdio.h>

#include "tests/storekit.h"
#include "tools/vbd.h"

#define GUEST 5

struct fixture {
    struct kit_server store;
    struct store_client *dom0, *guest;
    struct xb_device vbd, back, front; /* the toolstack's view, and both drivers' */
};

static const struct vmcfg_disk disk = {
    .vdev = "xvda",
    .devid = 51712,
    .config = {.format = "raw", .path = "/srv/a.img", .online = true},
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    kit_server_start(&f->store, NULL);
    f->dom0 = kit_client(&f->store, 0);
    assert_int_equal(store_introduce(f->dom0, GUEST, 1, 1), 0);
    f->guest = kit_client(&f->store, GUEST);
    vbd_init(&f->vbd, f->dom0, GUEST, disk.devid);
    xb_device_init(&f->back, f->dom0, XB_BACK, "vbd", GUEST, 0, disk.devid);
    xb_device_init(&f->front, f->guest, XB_FRONT, "vbd", GUEST, 0, disk.devid);
    assert_int_equal(vbd_make(&f->vbd, &disk, NULL), 0);
    assert_int_equal(xb_device_load(&f->back, NULL), 0);
    assert_int_equal(xb_device_load(&f->front, NULL), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    store_client_close(f->guest);
    store_client_close(f->dom0);
    kit_server_stop(&f->store);
    free(f);
    return 0;
}

static void connect_both(struct fixture *f)
{
    xb_device_switch(&f->back, STORE_NO_TX, XenbusStateInitWait, NULL);
    xb_device_switch(&f->front, STORE_NO_TX, XenbusStateInitialised, NULL);
    xb_device_switch(&f->back, STORE_NO_TX, XenbusStateConnected, NULL);
    xb_device_switch(&f->front, STORE_NO_TX, XenbusStateConnected, NULL);
}

static xb_state shown(struct fixture *f, const char *dir)
{
    _cleanup_free_ char *text = NULL;
    return store_read(f->dom0, STORE_NO_TX, &text, NULL, "%s/state", dir) ? XenbusStateUnknown : xb_state_parse(text);
}

static void test_each_end_writes_its_own_directory_only(void **state)
{
    struct fixture *f = *state;
    _cleanup_free_ char *backend = NULL, *params = NULL;
    assert_int_equal(store_read(f->guest, STORE_NO_TX, &backend, NULL, "%s/backend", f->front.dir), 0);
    assert_string_equal(backend, f->back.dir);
    assert_int_equal(store_read(f->guest, STORE_NO_TX, &params, NULL, "%s/params", f->front.peer_dir), 0);
    assert_string_equal(params, "raw:/srv/a.img");
    assert_int_equal(store_write(f->guest, STORE_NO_TX, "raw:/etc/shadow", "%s/params", f->front.peer_dir), -EACCES);
    assert_int_equal(store_write(f->guest, STORE_NO_TX, "0", "%s/domzero/offset", f->front.peer_dir), -EACCES);
    assert_int_equal(store_write(f->guest, STORE_NO_TX, "x", "%s/new", f->front.peer_dir), -EACCES);
    assert_int_equal(store_write(f->guest, STORE_NO_TX, "8", "%s/ring-ref", f->front.dir), 0);
    struct keys_blk_config config;
    assert_int_equal(keys_blk_config_read(&f->back, &config, NULL), 0);
    assert_true(config.online && !config.readonly);
}

static void test_a_disk_is_not_made_over_another(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    assert_int_equal(vbd_make(&f->vbd, &disk, &e), -EEXIST);
    assert_non_null(strstr(e.text, "xvda"));
    _cleanup_free_ uint32_t *devids = NULL;
    assert_int_equal(vbd_list(f->dom0, GUEST, &devids, NULL), 1);
    assert_int_equal(devids[0], disk.devid);
}

static void test_a_backends_reason_comes_through(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    assert_int_equal(vbd_wait_ready(&f->vbd, 0, &e), -ETIMEDOUT);
    xb_device_fatal(&f->back, -ENOENT, "/srv/a.img\033 is not there");
    assert_int_equal(vbd_wait_ready(&f->vbd, VBD_READY_MS, &e), -EIO);
    assert_string_equal(e.text, "/srv/a.img? is not there");
}

static void test_a_guest_that_holds_it_is_asked(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    connect_both(f);
    assert_int_equal(vbd_wait_ready(&f->vbd, VBD_READY_MS, NULL), 0);
    assert_int_equal(vbd_ask_close(&f->vbd, true, NULL), 0);
    assert_int_equal(shown(f, f->back.dir), XenbusStateClosing);
    assert_int_equal(shown(f, f->front.dir), XenbusStateConnected);
    assert_int_equal(vbd_wait_closed(&f->vbd, 0, &e), -ETIMEDOUT);
    xb_device_load(&f->back, NULL);
    xb_device_switch(&f->back, STORE_NO_TX, XenbusStateClosed, NULL);
    assert_int_equal(vbd_ask_close(&f->vbd, true, NULL), 0); /* Closed stays Closed */
    assert_int_equal(vbd_wait_closed(&f->vbd, VBD_CLOSE_MS, NULL), 0);
}

static void test_where_nobody_holds_it_the_frontend_goes_first(void **state)
{
    struct fixture *f = *state;
    xb_device_switch(&f->back, STORE_NO_TX, XenbusStateInitWait, NULL);
    assert_int_equal(vbd_ask_close(&f->vbd, true, NULL), 0); /* lives, but never opened it */
    assert_int_equal(shown(f, f->front.dir), XenbusStateUnknown);
    xb_device_load(&f->back, NULL);
    xb_device_read_peer(&f->back);
    assert_int_equal(xb_device_reaction(&f->back), XB_CLOSED);
}

static void test_a_dead_guest_is_not_waited_for(void **state)
{
    struct fixture *f = *state;
    connect_both(f);
    assert_int_equal(vbd_ask_close(&f->vbd, false, NULL), 0);
    assert_int_equal(shown(f, f->front.dir), XenbusStateUnknown);
    xb_device_read_peer(&f->back); /* whether or not it looked at its own state yet, it closes */
    assert_int_equal(xb_device_reaction(&f->back), XB_CLOSE);
    xb_device_load(&f->back, NULL);
    assert_int_equal(xb_device_reaction(&f->back), XB_CLOSED);
}

static void test_nothing_stays_behind(void **state)
{
    struct fixture *f = *state;
    static const char *const gone[] = {"/local/domain/0/backend/vbd/5", "/local/domain/0/error/backend/vbd/5",
                                       "/local/domain/5/device/vbd/51712"};
    xb_device_fatal(&f->back, -EIO, "x");
    assert_int_equal(vbd_remove(&f->vbd, NULL), 0);
    for (size_t i = 0; i < ARRAY_SIZE(gone); i++) {
        _cleanup_free_ char **names = NULL;
        assert_int_equal(store_directory(f->dom0, STORE_NO_TX, &names, NULL, "%s", gone[i]), -ENOENT);
    }
    assert_int_equal(vbd_remove(&f->vbd, NULL), 0); /* twice is no error */
    assert_int_equal(vbd_ask_close(&f->vbd, true, NULL), 0);
    assert_int_equal(vbd_wait_closed(&f->vbd, 0, NULL), 0);
    _cleanup_free_ uint32_t *devids = NULL;
    assert_int_equal(vbd_list(f->dom0, GUEST, &devids, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_each_end_writes_its_own_directory_only, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_disk_is_not_made_over_another, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_backends_reason_comes_through, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_guest_that_holds_it_is_asked, setup, teardown),
        cmocka_unit_test_setup_teardown(test_where_nobody_holds_it_the_frontend_goes_first, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_dead_guest_is_not_waited_for, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nothing_stays_behind, setup, teardown),
    };
    return cmocka_run_group_tests_name("vbd", tests, NULL, NULL);
}
