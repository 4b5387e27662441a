/* SPDX-License-Identifier: MIT */
/* What guests try at each other and at the store's memory, by requests that are all well formed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <sched.h>
#include <stdio.h>

#include "base/clock.h"
#include "store/control.h"
#include "store/journal.h"
#include "tests/storekit.h"

static int setup(void **state)
{
    return kit_world_new(state, NULL);
}

/* A transaction that looks at a node, which then is written. */
static void collide(struct kit_world *w, struct store_session *looks, const char *path, const char *error)
{
    uint32_t tx = kit_tx(looks);
    kit_ask1(looks, XS_READ, tx, path);
    kit_expect_ok(kit_write(w->one, 0, path, "x"));
    kit_expect_error(kit_ask1(looks, XS_TRANSACTION_END, tx, "T"), error);
}

static void test_lesson_206_a_guest_is_not_braked_for_what_who_collides_may_not_read(void **state)
{
    struct kit_world *w = *state;
    w->g.now_ns = CLOCK_NS_PER_S;
    collide(w, w->two, "/local/domain/1/mine", "EAGAIN"); /* missing, below what may not be looked at */
    for (unsigned i = 0; i < 20; i++)
        collide(w, w->two, "/local/domain/1/mine", "EAGAIN");
    uint32_t tx = kit_tx(w->two);
    kit_ask1(w->two, XS_READ, tx, "/local/domain/1/mine");
    kit_expect_ok(kit_ask1(w->one, XS_RM, 0, "/local/domain/1/mine"));
    kit_expect_error(kit_ask1(w->two, XS_TRANSACTION_END, tx, "T"), "EAGAIN");
    assert_int_equal(store_session_braked_until_ns(w->one), 0);
    kit_expect_ok(kit_write(w->one, 0, "shared", "x"));
    kit_set_perms(w->one, "shared", "n1,r2");
    collide(w, w->two, "/local/domain/1/shared", "EAGAIN");
    assert_true(store_session_braked_until_ns(w->one) > 0);
}

/* Versions that only open transactions still have are theirs to pay for. */
static void test_lesson_416_a_guests_transactions_pay_for_the_versions_that_they_keep(void **state)
{
    struct kit_world *w = *state;
    char value[1901], path[16];
    memset(value, 'v', sizeof(value) - 1);
    value[sizeof(value) - 1] = '\0';
    uint64_t limit = w->one->domain->quota.memory_bytes, kept = 0;
    for (unsigned round = 0; round < 10; round++) {
        for (unsigned i = 0; i < 900; i++) {
            snprintf(path, sizeof(path), "n%u", i);
            kit_write(w->one, 0, path, value);
        }
        struct kit_reply r = kit_ask1(w->one, XS_TRANSACTION_START, 0, "");
        if (r.type == XS_ERROR)
            kit_expect_error(r, "ENOMEM");
        uint32_t tx = (uint32_t)strtoul(r.bytes, NULL, 10);
        for (unsigned i = 0; i < 900 && r.type != XS_ERROR; i++) {
            snprintf(path, sizeof(path), "n%u", i);
            kept += kit_ask1(w->one, XS_READ, tx, path).type == XS_READ ? sizeof(value) : 0;
        }
    }
    assert_true(kept <= limit);
    assert_in_range(store_engine_domain_bytes(&w->g, 1), kept, limit);
    store_session_reset(w->one);
    kit_expect_ok(kit_write(w->one, 0, "n0", "again"));
}

/* Its lists count as well: they are kept as text where they change. */
static void test_lesson_416_a_guests_transactions_pay_for_the_lists_that_they_keep(void **state)
{
    struct kit_world *w = *state;
    char path[64];
    kit_expect_ok(kit_write(w->dom0, 0, "/big", ""));
    kit_set_perms(w->dom0, "/big", "n0,r1");
    for (unsigned i = 0; i < 2000; i++) {
        snprintf(path, sizeof(path), "/big/a-name-of-some-length-%u", i);
        kit_expect_ok(kit_write(w->dom0, 0, path, ""));
    }
    uint64_t before = store_engine_domain_bytes(&w->g, 1);
    uint32_t tx = kit_tx(w->one);
    kit_expect_error(kit_ask1(w->one, XS_DIRECTORY, tx, "/big"), "E2BIG");
    kit_expect_ok(kit_write(w->dom0, 0, "/big/z", ""));
    assert_true(store_engine_domain_bytes(&w->g, 1) > before + 2000 * strlen("a-name-of-some-length-"));
    kit_expect_error(kit_ask1(w->one, XS_TRANSACTION_END, tx, "T"), "EAGAIN");
    assert_int_equal(store_engine_domain_bytes(&w->g, 1), before);
}

/* The domain that a transaction gives something to dies before the commit; the next of its number must not have it. */
static void test_lesson_322_a_transaction_gives_nothing_to_the_next_domain_of_a_number(void **state)
{
    struct kit_world *w = *state;
    static const char *const perms[] = {"n0\0r7", "n7\0n0"};
    kit_introduce(w, "7");
    kit_expect_ok(kit_write(w->dom0, 0, "/a", "for 7"));
    for (unsigned i = 0; i < ARRAY_SIZE(perms); i++) {
        char payload[16] = "/a";
        memcpy(payload + 3, perms[i], 6);
        uint32_t tx = kit_tx(w->dom0), fine = kit_tx(w->dom0);
        kit_expect_ok(kit_ask(w->dom0, XS_SET_PERMS, tx, payload, 9));
        kit_expect_ok(kit_write(w->dom0, fine, "/of-another-kind", "x"));
        store_engine_domain_gone(&w->g, 7);
        kit_introduce(w, "7");
        kit_expect_error(kit_ask1(w->dom0, XS_TRANSACTION_END, tx, "T"), "EAGAIN");
        kit_expect_ok(kit_ask1(w->dom0, XS_TRANSACTION_END, fine, "T"));
        kit_expect_list(kit_ask1(w->dom0, XS_GET_PERMS, 0, "/a"), "n0,");
        tx = kit_tx(w->dom0); /* who begins afterwards means the new one */
        kit_expect_ok(kit_ask(w->dom0, XS_SET_PERMS, tx, payload, 9));
        kit_expect_ok(kit_ask1(w->dom0, XS_TRANSACTION_END, tx, "T"));
        kit_set_perms(w->dom0, "/a", "n0");
    }
}

static void expect_sound(struct kit_world *w)
{
    struct err why = {0};
    store_control_check(&w->g, &why);
    assert_string_equal(why.text, "");
}

/* The quota ends in the middle of a path, in a transaction and without one. */
static void test_lesson_414_a_path_that_cannot_be_made_to_its_end_is_not_begun(void **state)
{
    struct kit_world *w = *state;
    char path[700] = "deep";
    for (unsigned i = 0; i < 300; i++)
        strcat(path, "/x");
    store_domain_quota_set(w->one->domain, store_quota_find("nodes"), 100);
    for (unsigned round = 0; round < 2; round++) {
        uint32_t tx = round ? kit_tx(w->one) : 0, owned = w->g.tree.owned[1];
        kit_expect_error(kit_write(w->one, tx, path, "v"), "ENOSPC");
        kit_expect_error(kit_ask1(w->one, XS_MKDIR, tx, path), "ENOSPC");
        kit_expect_error(kit_ask1(w->one, XS_READ, tx, "deep"), "ENOENT");
        if (tx)
            kit_expect_ok(kit_ask1(w->one, XS_TRANSACTION_END, tx, "T"));
        assert_int_equal(w->g.tree.owned[1], owned);
        expect_sound(w);
    }
}

/* Guests' nodes below each other's, when one dies amid the other's transaction. */
static void test_lesson_419_a_death_leaves_no_node_without_its_parent(void **state)
{
    struct kit_world *w = *state;
    kit_introduce(w, "3");
    struct store_session three;
    assert_int_equal(store_session_init(&three, &w->g, 3), 0);
    kit_expect_ok(kit_write(w->two, 0, "room", ""));
    kit_set_perms(w->two, "room", "b2");
    kit_expect_ok(kit_write(&three, 0, "/local/domain/2/room/of3", "3"));
    kit_set_perms(&three, "/local/domain/2/room/of3", "b3,b2");
    kit_expect_ok(kit_write(w->two, 0, "room/of3/of2", "2"));
    uint32_t tx = kit_tx(w->two), other = kit_tx(w->two);
    kit_expect_ok(kit_write(w->two, tx, "room/of3/new/deep", "2"));
    kit_expect_ok(kit_ask1(w->two, XS_RM, other, "room/of3/of2"));
    store_session_deinit(&three);
    store_engine_domain_gone(&w->g, 3);
    kit_expect_error(kit_ask1(w->two, XS_TRANSACTION_END, tx, "T"), "EAGAIN");
    kit_expect_error(kit_ask1(w->two, XS_TRANSACTION_END, other, "T"), "EAGAIN");
    kit_expect_error(kit_ask1(w->two, XS_READ, 0, "room/of3/of2"), "ENOENT");
    assert_int_equal(w->g.tree.owned[3], 0);
    assert_int_equal(w->g.tree.owned[2], 2);
    assert_int_equal(store_engine_domain_bytes(&w->g, 3), 0);
    expect_sound(w);
}

/* As much as its quotas allow, twice, with a death in between; and what domain 0 gave to its number is gone. */
static void test_lesson_417_483_the_next_domain_of_a_number_has_its_quotas_whole(void **state)
{
    struct kit_world *w = *state;
    char path[32];
    kit_introduce(w, "9");
    for (unsigned life = 0; life < 3; life++) {
        struct store_session nine;
        unsigned made[3] = {0};
        assert_int_equal(store_session_init(&nine, &w->g, 9), 0);
        if (life > 0) {
            assert_null(store_tree_named_next(&w->g.tree, 9, NULL));
            assert_int_equal(store_engine_domain_bytes(&w->g, 9), 0);
        }
        kit_expect_ok(kit_write(w->dom0, 0, "/local/domain/9", ""));
        kit_expect_ok(kit_ask2(w->dom0, XS_SET_PERMS, 0, "/local/domain/9", "n9"));
        kit_set_perms(w->dom0, "@releaseDomain", "n0,r9");
        do /* a list of children is bounded, too */
            snprintf(path, sizeof(path), "x%u/n%u", made[0] / 200, made[0]);
        while (made[0]++ < 2000 && kit_write(&nine, 0, path, "").type != XS_ERROR);
        do
            snprintf(path, sizeof(path), "n%u", ++made[1]);
        while (kit_ask2(&nine, XS_WATCH, 0, path, "t").type != XS_ERROR);
        while (kit_ask1(&nine, XS_TRANSACTION_START, 0, "").type != XS_ERROR)
            made[2]++;
        assert_int_equal(w->g.tree.owned[9], store_quota_default.nodes);
        assert_int_equal(made[1], store_quota_default.watches + 1);
        assert_int_equal(made[2], store_quota_default.transactions);
        store_session_deinit(&nine);
        store_engine_domain_gone(&w->g, 9);
        kit_introduce(w, "9");
        expect_sound(w);
    }
}

/* Everything that a guest can make the store hold, at once, has one limit. */
static void test_lesson_2022_42311_to_42318_all_ways_to_hold_memory_end_at_one_limit(void **state)
{
    struct kit_world *w = *state;
    char value[1901], path[64];
    uint64_t random = 7, limit = w->one->domain->quota.memory_bytes;
    memset(value, 'v', sizeof(value) - 1);
    value[sizeof(value) - 1] = '\0';
    uint32_t tx[10] = {0};
    for (unsigned i = 0; i < 20000; i++) {
        uint32_t *x = &tx[kit_random(&random, ARRAY_SIZE(tx))];
        snprintf(path, sizeof(path), "%u/n%u", kit_random(&random, 30), kit_random(&random, 1000));
        switch (kit_random(&random, 8)) {
        case 0: kit_ask2(w->one, XS_WATCH, 0, path, value); break;
        case 1: *x = (uint32_t)strtoul(kit_ask1(w->one, XS_TRANSACTION_START, 0, "").bytes, NULL, 10); break;
        case 2: kit_write(w->one, *x, path, value); break;
        case 3: kit_ask1(w->one, XS_READ, *x, path); break;
        case 4: kit_ask1(w->one, XS_DIRECTORY, *x, path); break;
        case 5: kit_ask1(w->one, kit_random(&random, 20) ? XS_READ : XS_RM, *x, path); break;
        default: kit_write(w->one, 0, path, value); break;
        }
        kit_drain(w->one);
        assert_true(store_engine_domain_bytes(&w->g, 1) <= limit + 64 * 1024); /* a removal is not refused */
    }
    assert_true(store_engine_domain_bytes(&w->g, 1) > limit / 2);
    store_session_reset(w->one);
    kit_ask1(w->dom0, XS_RM, 0, "/local/domain/1");
    assert_int_equal(store_engine_domain_bytes(&w->g, 1), 0);
    expect_sound(w);
}

/* A guest whose connections break, in the middle of anything, is still there; that it is gone is told once. */
static void test_lesson_325_a_broken_connection_is_no_death(void **state)
{
    (void)state;
    struct kit_server k;
    struct kit_reply r;
    kit_server_start(&k, NULL);
    struct store_client *dom0 = kit_client(&k, 0);
    kit_guest_make(dom0, 5);
    int watcher = kit_connect(&k, 0);
    kit_send_request(watcher, XS_WATCH, 0, "@releaseDomain\0t", 17);
    assert_true(kit_receive(watcher, &r) && kit_receive(watcher, &r));
    for (unsigned i = 0; i < 40; i++) {
        struct xsd_sockmsg header = {.type = XS_WRITE, .len = i % 2 ? 100 : XENSTORE_PAYLOAD_MAX + i};
        int fd = kit_connect(&k, 5);
        assert_true(fd >= 0);
        kit_expect_ok(kit_exchange(fd, XS_WATCH, 0, "data\0t", 7));
        assert_int_equal(kit_exchange(fd, XS_TRANSACTION_START, 0, "", 1).type, XS_TRANSACTION_START);
        kit_send(fd, &header, i % 3 ? sizeof(header) : 7);
        close(fd);
        while (kit_stats(&k).connections > 2)
            sched_yield();
    }
    assert_int_equal(kit_stats(&k).watches + kit_stats(&k).transactions, 1);
    kit_expect_string(kit_exchange(watcher, XS_IS_DOMAIN_INTRODUCED, 0, "5", 2), "T");
    assert_int_equal(store_release(dom0, 5), 0);
    assert_int_equal(store_release(dom0, 5), -ENOENT);
    kit_send_request(watcher, XS_GET_DOMAIN_PATH, 0, "5", 2);
    assert_true(kit_receive(watcher, &r));
    assert_int_equal(r.type, XS_WATCH_EVENT); /* the one of RELEASE; none came before */
    assert_true(kit_receive(watcher, &r));
    kit_expect_string(r, "/local/domain/5");
    close(watcher);
    store_client_close(dom0);
    kit_server_stop(&k);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, kit_world_free)
    const struct CMUnitTest tests[] = {
        T(test_lesson_206_a_guest_is_not_braked_for_what_who_collides_may_not_read),
        T(test_lesson_416_a_guests_transactions_pay_for_the_versions_that_they_keep),
        T(test_lesson_416_a_guests_transactions_pay_for_the_lists_that_they_keep),
        T(test_lesson_322_a_transaction_gives_nothing_to_the_next_domain_of_a_number),
        T(test_lesson_414_a_path_that_cannot_be_made_to_its_end_is_not_begun),
        T(test_lesson_419_a_death_leaves_no_node_without_its_parent),
        T(test_lesson_417_483_the_next_domain_of_a_number_has_its_quotas_whole),
        T(test_lesson_2022_42311_to_42318_all_ways_to_hold_memory_end_at_one_limit),
        cmocka_unit_test(test_lesson_325_a_broken_connection_is_no_death),
    };
    return cmocka_run_group_tests_name("store_abuse", tests, NULL, NULL);
}
