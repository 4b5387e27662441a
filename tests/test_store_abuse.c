/* SPDX-License-Identifier: MIT */
/* What guests try at each other and at the store's memory, by requests that are all well formed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <stdio.h>

#include "base/clock.h"
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

/* A domain that was never introduced dies while no store runs. */
static void test_lesson_322_a_restart_forgets_the_dead_that_were_not_introduced(void **state)
{
    (void)state;
    struct kit_server k;
    char journal[] = "/tmp/domzero-abuse-XXXXXX";
    const struct store_options o = {.journal = journal};
    bool *alive = calloc(STORE_DOMID_MAX + 1, sizeof(bool));
    assert_non_null(mkdtemp(journal));
    assert_int_equal(rmdir(journal), 0);
    alive[0] = alive[6] = true;
    for (unsigned life = 0; life < 2; life++) {
        kit_server_start(&k, &o);
        if (life == 1) {
            pthread_mutex_lock(&k.lock);
            store_server_sweep(k.server, alive);
            pthread_mutex_unlock(&k.lock);
        }
        struct store_client *dom0 = kit_client(&k, 0);
        if (life == 0)
            for (unsigned domid = 5; domid <= 7; domid++) {
                assert_int_equal(store_write(dom0, STORE_NO_TX, "v", "/of/%u", domid), 0);
                assert_int_equal(
                    store_set_owner_reader(dom0, STORE_NO_TX, domid == 7 ? 0 : domid, domid, "/of/%u", domid), 0);
            }
        int fd = kit_connect(&k, 0);
        kit_expect_list(kit_exchange(fd, XS_GET_PERMS, 0, "/of/6", 6), "n6,");
        kit_expect_list(kit_exchange(fd, XS_GET_PERMS, 0, "/of/7", 6), life ? "n0," : "n0,r7,");
        assert_int_equal(kit_exchange(fd, XS_READ, 0, "/of/5", 6).type == XS_ERROR, life);
        close(fd);
        store_client_close(dom0);
        kit_server_stop(&k);
    }
    free(alive);
    store_journal_remove(journal);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, kit_world_free)
    const struct CMUnitTest tests[] = {
        T(test_lesson_206_a_guest_is_not_braked_for_what_who_collides_may_not_read),
        T(test_lesson_416_a_guests_transactions_pay_for_the_versions_that_they_keep),
        T(test_lesson_416_a_guests_transactions_pay_for_the_lists_that_they_keep),
        T(test_lesson_322_a_transaction_gives_nothing_to_the_next_domain_of_a_number),
        cmocka_unit_test(test_lesson_322_a_restart_forgets_the_dead_that_were_not_introduced),
    };
    return cmocka_run_group_tests_name("store_abuse", tests, NULL, NULL);
}
