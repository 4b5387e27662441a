/* SPDX-License-Identifier: MIT */
/* Lists of children as callers see them, against the same list as one text: read from any offset into any room, from
 * the tree, through a transaction that changes it, and through one that the tree has left behind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <stdio.h>

#include "store/view.h"
#include "tests/storekit.h"

#define NAMES 300

struct text {
    char bytes[XENSTORE_PAYLOAD_MAX];
    uint32_t length;
};

static void text_add(struct text *t, const char *name)
{
    t->length += (uint32_t)strlen(strcpy(t->bytes + t->length, name)) + 1;
}

static void text_remove(struct text *t, const char *name)
{
    for (uint32_t at = 0; at < t->length; at += (uint32_t)strlen(t->bytes + at) + 1) {
        uint32_t bytes = (uint32_t)strlen(name) + 1;
        if (strcmp(t->bytes + at, name) != 0)
            continue;
        memmove(t->bytes + at, t->bytes + at + bytes, t->length - at - bytes);
        t->length -= bytes;
        return;
    }
    fail();
}

/* How many bytes from `offset` on end with a whole name and are no more than `room`. */
static uint32_t text_fit(const struct text *t, uint32_t offset, uint32_t room)
{
    uint32_t fit = 0;
    for (uint32_t at = offset; at < t->length; at++)
        if (t->bytes[at] == '\0' && at + 1 - offset <= room)
            fit = at + 1 - offset;
    return fit;
}

static void list_is(struct store_tree *t, const struct store_transaction *x, const struct text *expected,
                    uint64_t *random)
{
    assert_int_equal(store_view_names_bytes(t, x, "/l", 2), expected->length);
    char out[XENSTORE_PAYLOAD_MAX];
    bool end;
    for (unsigned i = 0; i < 3; i++) { /* what is asked for again is kept as text */
        assert_int_equal(store_view_names_copy(t, x, "/l", 2, 0, out, sizeof(out), &end), expected->length);
        assert_memory_equal(out, expected->bytes, expected->length);
        assert_true(end);
    }
    for (unsigned i = 0; i < 8; i++) {
        uint32_t offset = kit_random(random, expected->length + 10);
        uint32_t room = kit_random(random, 4) ? kit_random(random, 40) : sizeof(out);
        uint32_t fit = offset < expected->length ? text_fit(expected, offset, room) : 0;
        assert_int_equal(store_view_names_copy(t, x, "/l", 2, offset, out, room, &end), fit);
        assert_memory_equal(out, expected->bytes + MIN(offset, expected->length), fit);
        assert_int_equal(end, offset + fit >= expected->length);
    }
}

/* The list part by part, as long as nobody changes it. */
static void parts_are(struct store_tree *t, const struct store_transaction *x, const struct text *expected,
                      uint32_t room)
{
    uint32_t offset = 0;
    bool end = false;
    while (!end) {
        char out[64];
        uint32_t copied = store_view_names_copy(t, x, "/l", 2, offset, out, room, &end);
        assert_true(copied > 0 || expected->length == 0);
        assert_memory_equal(out, expected->bytes + offset, copied);
        offset += copied;
    }
    assert_int_equal(offset, expected->length);
}

static void toggle(struct store_session *s, uint32_t tx, struct text *list, bool *there, unsigned i)
{
    char path[16];
    snprintf(path, sizeof(path), "/l/n%u", i);
    kit_expect_ok(there[i] ? kit_ask1(s, XS_RM, tx, path) : kit_write(s, tx, path, ""));
    there[i] ? text_remove(list, path + 3) : text_add(list, path + 3);
    there[i] = !there[i];
}

static void test_a_list_is_read_from_any_offset_into_any_room(void **state)
{
    (void)state;
    static struct text list;
    bool there[NAMES] = {false};
    struct store_engine g;
    struct store_session s;
    uint64_t random = 5;
    list.length = 0;
    assert_int_equal(store_engine_init(&g, NULL, 1), 0);
    assert_int_equal(store_session_init(&s, &g, 0), 0);
    kit_expect_ok(kit_write(&s, 0, "/l", ""));
    for (unsigned step = 0; step < 1500; step++) {
        toggle(&s, 0, &list, there, kit_random(&random, NAMES));
        list_is(&g.tree, NULL, &list, &random);
        if (step % 50 == 0)
            parts_are(&g.tree, NULL, &list, 7 + kit_random(&random, 57));
    }
    store_session_deinit(&s);
    store_engine_deinit(&g);
}

/* One transaction looks and changes; then others change the tree, and it must go on seeing the list that it made. */
static void test_a_transactions_list_is_what_it_saw_and_made(void **state)
{
    (void)state;
    static struct text list, outside;
    struct store_engine g;
    struct store_session s;
    assert_int_equal(store_engine_init(&g, NULL, 1), 0);
    assert_int_equal(store_session_init(&s, &g, 0), 0);
    for (uint64_t seed = 1; seed <= 40; seed++) {
        uint64_t random = seed;
        bool there[NAMES] = {false}, inside[NAMES], touched[NAMES] = {false};
        list.length = 0;
        kit_expect_ok(kit_write(&s, 0, "/l", ""));
        for (unsigned i = 0; i < 60; i++)
            toggle(&s, 0, &list, there, kit_random(&random, NAMES));
        outside = list;
        memcpy(inside, there, sizeof(there));
        uint32_t id = kit_tx(&s);
        kit_expect_ok(kit_write(&s, id, "/l", "touched"));
        const struct store_transaction *x = store_session_transaction(&s, id);
        for (unsigned i = 0; i < 40; i++) {
            unsigned name = kit_random(&random, NAMES);
            if (i % 2) {
                toggle(&s, 0, &outside, there, name);
            } else if (touched[name] || there[name] == inside[name]) { /* else it would mix two times */
                toggle(&s, id, &list, inside, name);
                touched[name] = true;
            }
            if (i == 20) {
                kit_expect_ok(kit_ask1(&s, XS_RM, 0, "/l"));
                kit_expect_ok(kit_write(&s, 0, "/l", ""));
                memset(there, 0, sizeof(there));
                outside.length = 0;
                break;
            }
            list_is(&g.tree, x, &list, &random);
            list_is(&g.tree, NULL, &outside, &random);
        }
        list_is(&g.tree, x, &list, &random);
        parts_are(&g.tree, x, &list, 7 + kit_random(&random, 57));
        kit_expect_error(kit_ask1(&s, XS_TRANSACTION_END, id, "T"), "EAGAIN");
        list_is(&g.tree, NULL, &outside, &random);
        kit_expect_ok(kit_ask1(&s, XS_RM, 0, "/l"));
    }
    store_session_deinit(&s);
    store_engine_deinit(&g);
}

static void test_a_list_that_is_kept_as_text_sees_what_is_planted(void **state)
{
    (void)state;
    struct store_tree t;
    const struct store_perm dom0 = {0};
    char out[64];
    bool end;
    assert_int_equal(store_tree_init(&t, 1), 0);
    struct store_node *node = store_node_new(&(struct store_node_parts){.perms = &dom0, .perm_count = 1});
    assert_non_null(node);
    node->generation = 99;
    assert_int_equal(store_tree_plant(&t, "/none/x", 7, node), -ENOENT);
    assert_int_equal(store_tree_plant(&t, "/tool", 5, node), -EEXIST);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(store_view_names_copy(&t, NULL, "/", 1, 0, out, sizeof(out), &end), sizeof("tool"));
    assert_int_equal(store_tree_plant(&t, "/x", 2, node), 0);
    assert_int_equal(store_view_names_copy(&t, NULL, "/", 1, 0, out, sizeof(out), &end), sizeof("tool\0x"));
    assert_memory_equal(out, "tool\0x", sizeof("tool\0x"));
    assert_int_equal(t.generation, 99); /* none is handed out twice */
    store_node_unref(node);
    store_tree_deinit(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_list_is_read_from_any_offset_into_any_room),
        cmocka_unit_test(test_a_transactions_list_is_what_it_saw_and_made),
        cmocka_unit_test(test_a_list_that_is_kept_as_text_sees_what_is_planted),
    };
    return cmocka_run_group_tests_name("store_view", tests, NULL, NULL);
}
