/* SPDX-License-Identifier: MIT */
/* tests/keys_scene.h: a store, and the two directories of one block device in it, for tests of keys. */
#ifndef TESTS_KEYS_SCENE_H
#define TESTS_KEYS_SCENE_H

#include "tests/storekit.h"
#include "xenbus/keys_blk.h"

struct fixture {
    struct kit_server store;
    struct store_client *client;
    struct xb_device front, back;
};

static inline int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    kit_server_start(&f->store, NULL);
    f->client = kit_client(&f->store, 0);
    *state = f;
    return 0;
}

static inline int teardown(void **state)
{
    struct fixture *f = *state;
    store_client_close(f->client);
    kit_server_stop(&f->store);
    free(f);
    return 0;
}

/* A fresh pair of directories. */
static inline struct fixture *fresh(void **state)
{
    struct fixture *f = *state;
    xb_device_init(&f->front, f->client, XB_FRONT, "vbd", 3, 0, 51712);
    xb_device_init(&f->back, f->client, XB_BACK, "vbd", 3, 0, 51712);
    assert_int_equal(store_rm(f->client, STORE_NO_TX, "%s", f->front.dir), 0);
    assert_int_equal(store_rm(f->client, STORE_NO_TX, "%s", f->back.dir), 0);
    return f;
}

static inline void put(struct fixture *f, const char *dir, const char *key, const char *value)
{
    assert_int_equal(store_write(f->client, STORE_NO_TX, value, "%s/%s", dir, key), 0);
}

static inline void expect(struct fixture *f, const char *dir, const char *key, const char *value)
{
    _cleanup_free_ char *text = NULL;
    assert_int_equal(store_read(f->client, STORE_NO_TX, &text, NULL, "%s/%s", dir, key), 0);
    assert_string_equal(text, value);
}

#endif
