/* SPDX-License-Identifier: MIT */
/* Transactions, quotas and the life of domains, asked without a socket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <stdio.h>

#include "base/clock.h"
#include "tests/storekit.h"

static int setup(void **state)
{
    return kit_world_new(state, NULL);
}

static int setup_small(void **state)
{
    static const struct store_quota small = {.nodes = 6,
                                             .watches = 3,
                                             .transactions = 2,
                                             .node_size_bytes = 100,
                                             .permissions = 2,
                                             .path_max_bytes = 20,
                                             .outstanding = 4,
                                             .transaction_nodes = 8};
    return kit_world_new(state, &small);
}

/* --- transactions ----------------------------------------------------------------------------------------- */

static void test_a_transaction_shows_its_changes_to_itself_only_until_it_ends(void **state)
{
    struct kit_world *w = *state;
    kit_expect_ok(kit_ask2(w->dom0, XS_WATCH, 0, "/a", "t"));
    kit_drain(w->dom0);
    uint32_t tx = kit_tx(w->dom0);
    kit_expect_ok(kit_write(w->dom0, tx, "/a/b", "v"));
    kit_expect_text(kit_ask1(w->dom0, XS_READ, tx, "/a/b"), "v");
    kit_expect_error(kit_ask1(w->dom0, XS_READ, 0, "/a/b"), "ENOENT");
    kit_expect_event(w->dom0, NULL, NULL);
    kit_expect_ok(kit_ask1(w->dom0, XS_TRANSACTION_END, tx, "T"));
    kit_expect_text(kit_ask1(w->dom0, XS_READ, 0, "/a/b"), "v");
    kit_expect_event(w->dom0, "/a/b", "t");
    kit_expect_error(kit_ask1(w->dom0, XS_READ, tx, "/a/b"), "ENOENT"); /* the id is gone */
    tx = kit_tx(w->dom0);
    kit_expect_ok(kit_ask1(w->dom0, XS_RM, tx, "/a"));
    kit_expect_ok(kit_ask1(w->dom0, XS_TRANSACTION_END, tx, "F"));
    kit_expect_text(kit_ask1(w->dom0, XS_READ, 0, "/a/b"), "v");
    kit_expect_event(w->dom0, NULL, NULL);
}

static void test_anything_read_or_written_that_changed_is_a_conflict(void **state)
{
    struct kit_world *w = *state;
    static const struct {
        uint32_t type;
        const char *path, *change;
        bool conflict;
    } rows[] = {
        {XS_READ, "/c/x", "/c/x", true},       {XS_WRITE, "/c/x", "/c/x", true},
        {XS_DIRECTORY, "/c", "/c/new1", true}, {XS_GET_PERMS, "/c/x", "/c/x", true},
        {XS_READ, "/c/none", "/c/none", true}, {XS_WRITE, "/c/new2", "/c/new3", true},
        {XS_READ, "/c/x", "/c/y", false},      {XS_READ, "/c", "/c/x", false},
        {XS_WRITE, "/c/x", "/c/y", false},     {XS_MKDIR, "/c/x/sub", "/c/y/sub", false},
    };
    kit_expect_ok(kit_write(w->dom0, 0, "/c/x", "1"));
    kit_expect_ok(kit_write(w->dom0, 0, "/c/y", "1"));
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        uint32_t tx = kit_tx(w->dom0);
        if (rows[i].type == XS_WRITE)
            kit_expect_ok(kit_write(w->dom0, tx, rows[i].path, "tx"));
        else
            kit_ask1(w->dom0, rows[i].type, tx, rows[i].path);
        kit_expect_ok(kit_write(w->dom0, 0, rows[i].change, "1"));
        struct kit_reply r = kit_ask1(w->dom0, XS_TRANSACTION_END, tx, "T");
        rows[i].conflict ? kit_expect_error(r, "EAGAIN") : kit_expect_ok(r);
    }
    kit_expect_text(kit_ask1(w->dom0, XS_READ, 0, "/c/x"), "tx"); /* of the one that did not collide */
    kit_expect_error(kit_ask1(w->dom0, XS_READ, 0, "/c/new2"), "ENOENT");
}

static void test_transaction_ids_are_checked(void **state)
{
    struct kit_world *w = *state;
    uint32_t tx = kit_tx(w->one);
    kit_expect_error(kit_ask1(w->one, XS_TRANSACTION_START, tx, ""), "EBUSY");
    kit_expect_error(kit_ask1(w->one, XS_READ, tx + 1, "x"), "ENOENT");
    kit_expect_error(kit_ask1(w->two, XS_READ, tx, "x"), "ENOENT"); /* another's */
    kit_expect_error(kit_ask1(w->two, XS_TRANSACTION_END, tx, "T"), "ENOENT");
    kit_expect_error(kit_ask1(w->one, XS_TRANSACTION_END, tx, "X"), "EINVAL");
    kit_expect_error(kit_ask1(w->one, XS_TRANSACTION_END, tx, "TT"), "EINVAL");
    kit_expect_error(kit_ask1(w->one, XS_TRANSACTION_END, 0, "T"), "ENOENT");
    kit_expect_ok(kit_ask1(w->one, XS_TRANSACTION_END, tx, "T"));
    w->one->last_transaction = UINT32_MAX; /* the counter wraps past 0, which means none */
    assert_int_equal(kit_tx(w->one), 1);
    w->one->last_transaction = UINT32_MAX;
    assert_int_equal(kit_tx(w->one), 2); /* 1 is open */
}

static void test_a_transaction_that_lost_a_race_stays_harmless(void **state)
{
    struct kit_world *w = *state;
    kit_expect_ok(kit_write(w->dom0, 0, "/a/b/c", ""));
    uint32_t tx = kit_tx(w->dom0);
    kit_expect_list(kit_ask1(w->dom0, XS_DIRECTORY, tx, "/a"), "b,");
    kit_expect_ok(kit_ask1(w->dom0, XS_RM, 0, "/a/b"));
    kit_expect_ok(kit_ask1(w->dom0, XS_RM, tx, "/a")); /* its list names a child that is gone */
    kit_expect_error(kit_ask1(w->dom0, XS_TRANSACTION_END, tx, "T"), "EAGAIN");
    tx = kit_tx(w->dom0);
    kit_expect_list(kit_ask1(w->dom0, XS_DIRECTORY, tx, "/a"), "");
    kit_expect_ok(kit_write(w->dom0, 0, "/a/n", ""));
    kit_expect_ok(kit_ask1(w->dom0, XS_RM, tx, "/a/n")); /* there, but in no list that it saw */
    kit_expect_error(kit_ask1(w->dom0, XS_TRANSACTION_END, tx, "T"), "EAGAIN");
    tx = kit_tx(w->dom0);
    kit_expect_error(kit_ask1(w->dom0, XS_READ, tx, "/z"), "ENOENT");
    kit_expect_ok(kit_write(w->dom0, 0, "/z/y", ""));
    kit_expect_ok(kit_ask1(w->dom0, XS_RM, tx, "/z/y")); /* there, below what it saw missing */
    kit_expect_ok(kit_write(w->dom0, tx, "/z/x", ""));
    kit_expect_error(kit_ask1(w->dom0, XS_TRANSACTION_END, tx, "T"), "EAGAIN");
    kit_expect_list(kit_ask1(w->dom0, XS_DIRECTORY, 0, "/z"), "y,");
}

static void test_a_list_that_a_transaction_looked_at_stays_what_it_was(void **state)
{
    struct kit_world *w = *state;
    static const uint32_t looks[] = {XS_READ, XS_DIRECTORY, XS_GET_PERMS};
    for (size_t i = 0; i < ARRAY_SIZE(looks); i++) {
        kit_expect_ok(kit_write(w->dom0, 0, "/a/x", ""));
        kit_expect_ok(kit_write(w->dom0, 0, "/a/y/z", ""));
        uint32_t tx = kit_tx(w->one), mine = kit_tx(w->dom0);
        kit_set_perms(w->dom0, "/a", "r0");
        kit_ask1(w->one, looks[i], tx, "/a");
        kit_ask1(w->dom0, looks[i], mine, "/a");
        kit_expect_ok(kit_write(w->dom0, 0, "/a/new", ""));
        kit_expect_ok(kit_ask1(w->dom0, XS_RM, 0, "/a/x"));
        kit_expect_list(kit_ask1(w->one, XS_DIRECTORY, tx, "/a"), "x,y,");
        kit_expect_ok(kit_ask1(w->dom0, XS_RM, 0, "/a"));
        kit_expect_list(kit_ask1(w->one, XS_DIRECTORY, tx, "/a"), "x,y,");
        kit_expect_ok(kit_write(w->dom0, 0, "/a/other", ""));
        kit_expect_list(kit_ask1(w->one, XS_DIRECTORY, tx, "/a"), "x,y,");
        kit_expect_ok(kit_write(w->dom0, mine, "/a/v", ""));
        kit_expect_list(kit_ask1(w->dom0, XS_DIRECTORY, mine, "/a"), "x,y,v,");
        kit_expect_error(kit_ask1(w->one, XS_TRANSACTION_END, tx, "T"), "EAGAIN");
        kit_expect_error(kit_ask1(w->dom0, XS_TRANSACTION_END, mine, "T"), "EAGAIN");
        kit_expect_list(kit_ask1(w->dom0, XS_DIRECTORY, 0, "/a"), "other,");
        kit_expect_ok(kit_ask1(w->dom0, XS_RM, 0, "/a"));
    }
}

static void test_a_child_that_was_removed_and_made_again_is_the_youngest(void **state)
{
    struct kit_world *w = *state;
    kit_expect_ok(kit_write(w->dom0, 0, "/a/x/1", "old"));
    kit_expect_ok(kit_write(w->dom0, 0, "/a/y", "old"));
    kit_expect_ok(kit_write(w->dom0, 0, "/a/z", "old"));
    uint32_t tx = kit_tx(w->dom0);
    kit_expect_ok(kit_ask1(w->dom0, XS_RM, tx, "/a/x"));
    kit_expect_ok(kit_write(w->dom0, tx, "/a/n", "new"));
    kit_expect_ok(kit_write(w->dom0, tx, "/a/m", "new"));
    kit_expect_ok(kit_ask1(w->dom0, XS_RM, tx, "/a/n"));
    kit_expect_ok(kit_write(w->dom0, tx, "/a/x", "new"));
    kit_expect_ok(kit_write(w->dom0, tx, "/a/n/2", "new"));
    kit_expect_ok(kit_ask1(w->dom0, XS_RM, tx, "/a/y"));
    kit_expect_list(kit_ask1(w->dom0, XS_DIRECTORY, tx, "/a"), "z,m,x,n,");
    kit_expect_list(kit_ask1(w->dom0, XS_DIRECTORY, tx, "/a/x"), "");
    kit_expect_list(kit_ask1(w->dom0, XS_DIRECTORY, 0, "/a"), "x,y,z,");
    kit_expect_ok(kit_ask1(w->dom0, XS_TRANSACTION_END, tx, "T"));
    kit_expect_list(kit_ask1(w->dom0, XS_DIRECTORY, 0, "/a"), "z,m,x,n,");
    kit_expect_list(kit_ask1(w->dom0, XS_DIRECTORY, 0, "/a/n"), "2,");
    kit_expect_list(kit_ask1(w->dom0, XS_DIRECTORY, 0, "/a/x"), "");
    tx = kit_tx(w->dom0);
    kit_expect_ok(kit_ask1(w->dom0, XS_RM, tx, "/a"));
    kit_expect_ok(kit_write(w->dom0, tx, "/a/z/z", "all anew"));
    kit_expect_ok(kit_ask1(w->dom0, XS_TRANSACTION_END, tx, "T"));
    kit_expect_list(kit_ask1(w->dom0, XS_DIRECTORY, 0, "/a"), "z,");
    kit_expect_list(kit_ask1(w->dom0, XS_DIRECTORY, 0, "/a/z"), "z,");
}

static void test_lesson_421_a_commit_is_all_or_nothing(void **state)
{
    struct kit_world *w = *state; /* six nodes a guest; one is its home */
    kit_expect_ok(kit_write(w->one, 0, "p", ""));
    kit_expect_ok(kit_write(w->one, 0, "q", ""));
    kit_expect_ok(kit_ask2(w->dom0, XS_WATCH, 0, "/local/domain/1", "t"));
    uint32_t a = kit_tx(w->one), b = kit_tx(w->one);
    kit_expect_ok(kit_write(w->one, a, "p/1", ""));
    kit_expect_ok(kit_write(w->one, a, "p/2", ""));
    kit_expect_ok(kit_write(w->one, b, "q/1", ""));
    kit_expect_ok(kit_write(w->one, b, "q/2", ""));
    kit_expect_ok(kit_ask1(w->one, XS_TRANSACTION_END, a, "T"));
    kit_drain(w->dom0);
    kit_expect_error(kit_ask1(w->one, XS_TRANSACTION_END, b, "T"), "ENOSPC"); /* no conflict, but together too many */
    kit_expect_list(kit_ask1(w->one, XS_DIRECTORY, 0, "q"), "");
    kit_expect_event(w->dom0, NULL, NULL);
    assert_int_equal(w->g.tree.owned[1], 5);
}

static void test_lesson_415_a_create_that_fails_inside_a_transaction_leaves_nothing(void **state)
{
    struct kit_world *w = *state;
    uint32_t tx = kit_tx(w->one);
    kit_expect_error(kit_write(w->one, tx, "a/b/c/d/e/f", ""), "ENOSPC"); /* seven nodes with the home */
    kit_expect_error(kit_ask1(w->one, XS_DIRECTORY, tx, "a"), "ENOENT");
    kit_expect_ok(kit_write(w->one, tx, "a/b/c/d/e", ""));
    kit_expect_error(kit_write(w->one, tx, "g", ""), "ENOSPC");
    kit_expect_ok(kit_ask1(w->one, XS_RM, tx, "a/b"));
    kit_expect_ok(kit_write(w->one, tx, "g", "v"));
    kit_expect_ok(kit_ask1(w->one, XS_TRANSACTION_END, tx, "T"));
    kit_expect_list(kit_ask1(w->one, XS_DIRECTORY, 0, "/local/domain/1"), "a,g,");
    assert_int_equal(w->g.tree.owned[1], 3);
}

static void test_lesson_418_a_deep_tree_is_walked_without_recursion(void **state)
{
    struct kit_world *w = *state;
    char path[2 * 990 + 1] = "";
    for (unsigned i = 0; i < 990; i++)
        strcat(path, i ? "/d" : "d");
    kit_expect_ok(kit_write(w->one, 0, path, "deep"));
    assert_int_equal(w->g.tree.owned[1], 991);
    uint32_t tx = kit_tx(w->one);
    kit_expect_ok(kit_ask1(w->one, XS_RM, tx, "d"));
    kit_expect_ok(kit_ask1(w->one, XS_TRANSACTION_END, tx, "T"));
    assert_int_equal(w->g.tree.owned[1], 1);
}

static void test_lesson_484_reset_inside_a_transaction_ends_it_once(void **state)
{
    struct kit_world *w = *state;
    uint32_t tx = kit_tx(w->one);
    kit_expect_ok(kit_ask2(w->one, XS_WATCH, 0, "x", "t"));
    kit_expect_ok(kit_write(w->one, tx, "x", "v"));
    kit_expect_ok(kit_ask1(w->one, XS_RESET_WATCHES, tx, ""));
    kit_expect_error(kit_ask1(w->one, XS_TRANSACTION_END, tx, "T"), "ENOENT");
    kit_expect_error(kit_ask2(w->one, XS_UNWATCH, 0, "x", "t"), "ENOENT");
    kit_expect_error(kit_ask1(w->one, XS_READ, 0, "x"), "ENOENT");
    kit_expect_ok(kit_ask1(w->one, XS_RESET_WATCHES, 0, ""));
    assert_int_equal(w->one->domain->watches + w->one->domain->transactions + w->one->event_count, 0);
}

static void test_lesson_496_a_refused_request_undoes_nothing(void **state)
{
    struct kit_world *w = *state;
    kit_expect_ok(kit_write(w->one, 0, "x/y", "v"));
    kit_expect_ok(kit_ask2(w->one, XS_WATCH, 0, "x", "t"));
    uint32_t tx = kit_tx(w->one);
    kit_expect_ok(kit_write(w->one, tx, "x/z", "v"));
    struct store_domain before = *w->one->domain;
    uint32_t owned = w->g.tree.owned[1];
    for (unsigned twice = 0; twice < 2; twice++) {
        uint32_t in = twice ? tx : 0;
        kit_expect_error(kit_write(w->one, in, "/tool/no", "v"), "EACCES");
        kit_expect_error(kit_ask1(w->one, XS_RM, in, "/tool"), "EACCES");
        kit_expect_error(kit_ask2(w->one, XS_SET_PERMS, in, "x", "n2"), "EPERM");
        kit_expect_error(kit_ask2(w->one, XS_WATCH, in, "x", "t"), "EEXIST");
        kit_expect_error(kit_ask2(w->one, XS_UNWATCH, in, "x", "u"), "ENOENT");
        kit_expect_error(kit_ask1(w->one, XS_TRANSACTION_END, in, "maybe"), "EINVAL");
        if (!twice)
            assert_int_equal(w->one->domain->bytes, before.bytes);
    }
    before.bytes = w->one->domain->bytes; /* the transaction has paths more that it looked at */
    assert_memory_equal(&before, w->one->domain, sizeof(before));
    assert_int_equal(w->g.tree.owned[1], owned);
    kit_expect_ok(kit_ask1(w->one, XS_TRANSACTION_END, tx, "T"));
    kit_expect_list(kit_ask1(w->one, XS_DIRECTORY, 0, "x"), "y,z,");
}

/* Guest 2 writes what guest 1's transaction reads, as fast as it is served; guest 1 must commit all the same. */
static void test_lesson_206_a_stream_of_writes_does_not_starve_a_transaction(void **state)
{
    struct kit_world *w = *state;
    unsigned attempts = 0, steps = 0;
    uint32_t tx = 0;
    kit_expect_ok(kit_write(w->dom0, 0, "/fought", "0"));
    kit_set_perms(w->dom0, "/fought", "b0");
    w->g.now_ns = CLOCK_NS_PER_S;
    for (bool done = false; !done && attempts < 20; steps++, w->g.now_ns += 100000) { /* 0.1 ms a request */
        if (w->g.now_ns >= store_session_braked_until_ns(w->two))
            kit_expect_ok(kit_write(w->two, 0, "/fought", "flood"));
        if (steps % 8 == 0)
            tx = kit_tx(w->one);
        else if (steps % 8 < 7)
            kit_ask1(w->one, XS_READ, tx, "/fought");
        else {
            attempts++;
            done = kit_ask1(w->one, XS_TRANSACTION_END, tx, "T").type != XS_ERROR;
        }
    }
    assert_in_range(attempts, 2, 5);
    assert_int_equal(store_session_braked_until_ns(w->one), 0); /* who collided is not who is to blame */
    assert_true(store_session_braked_until_ns(w->two) > 0);
}

/* --- quotas ----------------------------------------------------------------------------------------------- */

static void test_quotas_hold_to_the_last_one_and_are_given_back(void **state)
{
    struct kit_world *w = *state;
    for (unsigned round = 0; round < 3; round++) {
        kit_expect_ok(kit_write(w->one, 0, "1/2/3", ""));
        kit_expect_ok(kit_write(w->one, 0, "4/5", ""));
        kit_expect_error(kit_write(w->one, 0, "6", ""), "ENOSPC");
        kit_expect_ok(kit_write(w->one, 0, "4/5", "more is fine"));
        kit_expect_ok(kit_write(w->dom0, 0, "/local/domain/1/7", "by domain 0"));
        kit_expect_ok(kit_ask1(w->one, XS_RM, 0, "7"));
        for (unsigned i = 0; i < 3; i++)
            kit_expect_ok(kit_ask2(w->one, XS_WATCH, 0, "x", (char[]){(char)('a' + i), '\0'}));
        kit_expect_error(kit_ask2(w->one, XS_WATCH, 0, "x", "z"), "E2BIG");
        kit_expect_ok(kit_ask2(w->one, XS_UNWATCH, 0, "x", "a"));
        kit_expect_ok(kit_ask2(w->one, XS_WATCH, 0, "x", "z"));
        uint32_t first = kit_tx(w->one), second = kit_tx(w->one);
        kit_expect_error(kit_ask1(w->one, XS_TRANSACTION_START, 0, ""), "ENOSPC");
        kit_expect_ok(kit_ask1(w->one, XS_TRANSACTION_END, first, "F"));
        kit_expect_ok(kit_ask1(w->one, XS_TRANSACTION_END, second, "T"));
        kit_expect_ok(kit_ask1(w->one, XS_RM, 0, "1"));
        kit_expect_ok(kit_ask1(w->one, XS_RM, 0, "4"));
        kit_expect_ok(kit_ask1(w->one, XS_RESET_WATCHES, 0, ""));
        assert_int_equal(w->g.tree.owned[1], 1);
    }
    kit_expect_ok(kit_write(w->two, 0, "a/b/c/d/e", "another's quota is another's"));
}

static void test_quotas_of_a_node_and_a_path_hold(void **state)
{
    struct kit_world *w = *state;
    char value[101];
    memset(value, 'v', sizeof(value));
    value[100 - 24 - 9] = '\0';
    kit_expect_ok(kit_write(w->one, 0, "x", value)); /* a header of 24 bytes and 8 for each permission: 99 in all */
    kit_expect_ok(kit_ask2(w->one, XS_SET_PERMS, 0, "x", "n1"));
    value[100 - 24 - 9] = 'v';
    value[100 - 24 - 8] = '\0';
    kit_expect_error(kit_write(w->one, 0, "x", value), "ENOSPC");
    kit_expect_error(kit_write(w->one, 0, "y", value), "ENOSPC");
    kit_expect_error(kit_write(w->one, 0, "x/1", ""), "ENOSPC"); /* a child's name counts at its parent */
    kit_expect_ok(kit_write(w->one, 0, "aaaaaaaaaaaaaaaaaaaa", ""));
    kit_expect_error(kit_write(w->one, 0, "aaaaaaaaaaaaaaaaaaaaa", ""), "EINVAL");
    kit_expect_error(kit_ask(w->one, XS_SET_PERMS, 0, "x\0n1\0r0\0r2\0", 11), "ENOSPC");
    kit_expect_ok(kit_write(w->dom0, 0, "/local/domain/1/free/of/the/limit", value));
    kit_expect_error(kit_write(w->dom0, 0, "/local/domain/1/but/not/of/that/of/paths", ""), "EINVAL");
}

static void test_lesson_416_a_transaction_touches_no_more_than_its_quota(void **state)
{
    struct kit_world *w = *state;
    uint32_t tx = kit_tx(w->one);
    char path[2] = "a";
    for (unsigned i = 0; i < 7; i++, path[0]++)
        kit_expect_error(kit_ask1(w->one, XS_READ, tx, path), "ENOENT"); /* seven, and the home */
    kit_expect_error(kit_ask1(w->one, XS_READ, tx, path), "ENOSPC");
    kit_expect_error(kit_ask1(w->one, XS_RM, tx, path), "ENOSPC");
    kit_expect_ok(kit_ask1(w->one, XS_TRANSACTION_END, tx, "T"));
}

static void test_a_second_connection_shares_its_domains_quota(void **state)
{
    struct kit_world *w = *state;
    struct store_session again;
    assert_int_equal(store_session_init(&again, &w->g, 1), 0);
    for (unsigned i = 0; i < 3; i++)
        kit_expect_ok(kit_ask2(i ? w->one : &again, XS_WATCH, 0, "x", (char[]){(char)('a' + i), '\0'}));
    kit_expect_error(kit_ask2(&again, XS_WATCH, 0, "x", "z"), "E2BIG");
    store_session_deinit(&again);
    kit_expect_ok(kit_ask2(w->one, XS_WATCH, 0, "x", "z"));
    assert_int_equal(w->g.watches.count, 3);
}

static uint64_t bytes_of(const struct kit_world *w, unsigned domid)
{
    return store_engine_domain_bytes(&w->g, domid);
}

static void memory_quota_set(struct kit_world *w, unsigned domid, unsigned bytes)
{
    store_domain_quota_set(store_domain_find(&w->g.domains, domid), store_quota_find("memory"), bytes);
}

static void test_all_that_a_domain_makes_the_store_hold_is_counted_and_given_back(void **state)
{
    struct kit_world *w = *state;
    uint64_t start = bytes_of(w, 1), before = start;
    kit_expect_ok(kit_write(w->one, 0, "a/b", "v"));
    assert_true(bytes_of(w, 1) > before);
    before = bytes_of(w, 1);
    kit_expect_ok(kit_write(w->one, 0, "a/b", "vvvvv"));
    assert_int_equal(bytes_of(w, 1), before + 4);
    kit_expect_ok(kit_ask2(w->one, XS_WATCH, 0, "a", "token"));
    uint64_t watched = bytes_of(w, 1);
    assert_true(watched > before + 4);
    kit_drain(w->one);
    assert_true(bytes_of(w, 1) < watched); /* the first event was taken */
    watched = bytes_of(w, 1);
    uint32_t tx = kit_tx(w->one);
    uint64_t open = bytes_of(w, 1);
    assert_true(open > watched);
    kit_expect_ok(kit_write(w->one, tx, "a/c", "of the transaction"));
    assert_true(bytes_of(w, 1) > open);
    kit_expect_ok(kit_write(w->one, tx, "a/c", "other"));
    kit_expect_ok(kit_ask1(w->one, XS_RM, tx, "a"));
    kit_expect_ok(kit_ask1(w->one, XS_TRANSACTION_END, tx, "F"));
    assert_int_equal(bytes_of(w, 1), watched);
    kit_expect_ok(kit_ask1(w->one, XS_RESET_WATCHES, 0, ""));
    kit_expect_ok(kit_ask1(w->one, XS_RM, 0, "a"));
    assert_int_equal(bytes_of(w, 1), start);
    assert_int_equal(w->one->domain->bytes, 0);
}

static void test_a_domain_at_its_memory_quota_is_refused_more_and_can_give_back(void **state)
{
    struct kit_world *w = *state;
    kit_expect_ok(kit_write(w->one, 0, "a/b", "value"));
    kit_expect_ok(kit_write(w->one, 0, "shared", "value"));
    kit_set_perms(w->one, "shared", "b1");
    uint32_t tx = kit_tx(w->one);
    memory_quota_set(w, 1, (unsigned)bytes_of(w, 1));
    kit_expect_error(kit_write(w->one, 0, "a/c", ""), "ENOMEM");
    kit_expect_error(kit_write(w->one, 0, "a/b", "longer value"), "ENOMEM");
    kit_expect_error(kit_ask(w->one, XS_SET_PERMS, 0, "a\0n1\0r2\0", 8), "ENOMEM");
    kit_expect_error(kit_ask2(w->one, XS_WATCH, 0, "a", "t"), "ENOMEM");
    kit_expect_error(kit_ask1(w->one, XS_TRANSACTION_START, 0, ""), "ENOMEM");
    kit_expect_error(kit_ask1(w->one, XS_READ, tx, "a/b"), "ENOMEM");
    kit_expect_error(kit_write(w->two, 0, "/local/domain/1/shared", "longer value"), "ENOMEM"); /* the owner pays */
    kit_expect_ok(kit_write(w->dom0, 0, "/local/domain/1/shared", "domain 0 is not refused"));
    kit_expect_text(kit_ask1(w->one, XS_READ, 0, "a/b"), "value");
    kit_expect_ok(kit_write(w->one, 0, "a/b", "short"));
    kit_expect_ok(kit_ask1(w->one, XS_TRANSACTION_END, tx, "T")); /* what was refused did not break it */
    kit_expect_ok(kit_ask1(w->one, XS_RM, 0, "a"));
    kit_expect_ok(kit_write(w->one, 0, "c", "there is room again"));
}

static void test_a_transaction_cannot_hold_more_than_its_domain_may(void **state)
{
    struct kit_world *w = *state;
    char value[1001], path[8];
    memset(value, 'v', sizeof(value) - 1);
    value[sizeof(value) - 1] = '\0';
    memory_quota_set(w, 1, (unsigned)bytes_of(w, 1) + 20000);
    uint32_t tx = kit_tx(w->one);
    unsigned made = 0;
    struct kit_reply r;
    do {
        snprintf(path, sizeof(path), "n%u", made++);
        r = kit_write(w->one, tx, path, value);
    } while (r.type != XS_ERROR && made < 100);
    kit_expect_error(r, "ENOMEM");
    assert_in_range(made, 10, 20);
    assert_true(bytes_of(w, 1) <= w->one->domain->quota.memory_bytes);
    kit_expect_ok(kit_ask1(w->one, XS_TRANSACTION_END, tx, "T"));
    assert_true(bytes_of(w, 1) <= w->one->domain->quota.memory_bytes);
    kit_expect_text(kit_ask1(w->one, XS_READ, 0, "n0"), value);
}

/* --- domains ---------------------------------------------------------------------------------------------- */

static void test_domains_are_introduced_and_released(void **state)
{
    struct kit_world *w = *state;
    kit_expect_string(kit_ask1(w->dom0, XS_IS_DOMAIN_INTRODUCED, 0, "9"), "F");
    kit_introduce(w, "9");
    kit_expect_string(kit_ask1(w->dom0, XS_IS_DOMAIN_INTRODUCED, 0, "9"), "T");
    kit_expect_string(kit_ask1(w->dom0, XS_IS_DOMAIN_INTRODUCED, 0, "0"), "T");
    kit_expect_string(kit_ask1(w->one, XS_GET_DOMAIN_PATH, 0, "9"), "/local/domain/9");
    kit_expect_ok(kit_ask1(w->dom0, XS_RESUME, 0, "9"));
    kit_expect_ok(kit_ask1(w->dom0, XS_RELEASE, 0, "9"));
    kit_expect_error(kit_ask1(w->dom0, XS_RELEASE, 0, "9"), "ENOENT");
    kit_expect_error(kit_ask1(w->dom0, XS_RESUME, 0, "9"), "ENOENT");
    kit_expect_error(kit_ask1(w->dom0, XS_RELEASE, 0, "0"), "EINVAL");
    static const char bad[][8] = {"0\0"
                                  "1\0"
                                  "2",
                                  "x\0"
                                  "1\0"
                                  "2",
                                  "32752\0"
                                  "1",
                                  "1\0"
                                  "x\0"
                                  "2",
                                  "1\0"
                                  "1\0"
                                  "x"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        kit_expect_error(kit_ask(w->dom0, XS_INTRODUCE, 0, bad[i], 6), "EINVAL");
    assert_int_equal(w->g.domains.introduced, 2);
}

static void test_lesson_322_a_dead_domain_leaves_nothing_to_the_next_of_its_number(void **state)
{
    struct kit_world *w = *state;
    kit_expect_ok(kit_write(w->one, 0, "own/deep", "secret"));
    kit_expect_ok(kit_write(w->dom0, 0, "/shared", "for 1"));
    kit_set_perms(w->dom0, "/shared", "n0,r1,r2");
    kit_set_perms(w->dom0, "@releaseDomain", "n0,r1");
    kit_set_perms(w->dom0, "@introduceDomain", "n1");
    kit_set_perms(w->dom0, "/", "n1");
    kit_expect_ok(kit_ask2(w->dom0, XS_WATCH, 0, "/local/domain/1/own", "t"));
    kit_drain(w->dom0);
    kit_expect_ok(kit_ask1(w->dom0, XS_RELEASE, 0, "1"));
    kit_expect_event(w->dom0, "/local/domain/1/own", "t");
    assert_int_equal(w->g.tree.owned[1], 0);
    kit_introduce(w, "1");
    kit_expect_error(kit_ask1(w->one, XS_READ, 0, "own/deep"), "EACCES");
    kit_expect_error(kit_ask1(w->one, XS_READ, 0, "/shared"), "EACCES");
    kit_expect_error(kit_ask1(w->one, XS_DIRECTORY, 0, "/"), "EACCES");
    kit_expect_text(kit_ask1(w->two, XS_READ, 0, "/shared"), "for 1");
    kit_expect_list(kit_ask1(w->dom0, XS_GET_PERMS, 0, "/shared"), "n0,r2,");
    static const char *const special[] = {"@releaseDomain", "@introduceDomain"};
    for (size_t i = 0; i < ARRAY_SIZE(special); i++) {
        const struct store_node *n = store_tree_get(&w->g.tree, special[i], strlen(special[i]));
        assert_int_equal(n->perm_count, 1);
        assert_int_equal(n->perms[0].domid, 0);
    }
    kit_expect_list(kit_ask1(w->dom0, XS_GET_PERMS, 0, "/"), "n0,");
}

static void test_lesson_233_a_domain_dies_once(void **state)
{
    struct kit_world *w = *state;
    kit_expect_ok(kit_ask2(w->dom0, XS_WATCH, 0, "@releaseDomain", "r"));
    kit_drain(w->dom0);
    store_engine_domain_gone(&w->g, 55); /* never introduced */
    kit_expect_event(w->dom0, NULL, NULL);
    store_engine_domain_gone(&w->g, 1);
    kit_expect_event(w->dom0, "@releaseDomain", "r");
    store_engine_domain_gone(&w->g, 1);
    kit_expect_error(kit_ask1(w->dom0, XS_RELEASE, 0, "1"), "ENOENT");
    kit_expect_event(w->dom0, NULL, NULL);
    assert_int_equal(w->g.domains.introduced, 1);
}

#define T(name)       cmocka_unit_test_setup_teardown(name, setup, kit_world_free)
#define T_SMALL(name) cmocka_unit_test_setup_teardown(name, setup_small, kit_world_free)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_a_transaction_shows_its_changes_to_itself_only_until_it_ends),
        T(test_anything_read_or_written_that_changed_is_a_conflict),
        T(test_transaction_ids_are_checked),
        T(test_a_transaction_that_lost_a_race_stays_harmless),
        T(test_a_list_that_a_transaction_looked_at_stays_what_it_was),
        T(test_a_child_that_was_removed_and_made_again_is_the_youngest),
        T_SMALL(test_lesson_421_a_commit_is_all_or_nothing),
        T_SMALL(test_lesson_415_a_create_that_fails_inside_a_transaction_leaves_nothing),
        T(test_lesson_418_a_deep_tree_is_walked_without_recursion),
        T(test_lesson_484_reset_inside_a_transaction_ends_it_once),
        T(test_lesson_496_a_refused_request_undoes_nothing),
        T(test_lesson_206_a_stream_of_writes_does_not_starve_a_transaction),
        T_SMALL(test_quotas_hold_to_the_last_one_and_are_given_back),
        T_SMALL(test_quotas_of_a_node_and_a_path_hold),
        T_SMALL(test_lesson_416_a_transaction_touches_no_more_than_its_quota),
        T_SMALL(test_a_second_connection_shares_its_domains_quota),
        T(test_all_that_a_domain_makes_the_store_hold_is_counted_and_given_back),
        T(test_a_domain_at_its_memory_quota_is_refused_more_and_can_give_back),
        T(test_a_transaction_cannot_hold_more_than_its_domain_may),
        T(test_domains_are_introduced_and_released),
        T(test_lesson_322_a_dead_domain_leaves_nothing_to_the_next_of_its_number),
        T(test_lesson_233_a_domain_dies_once),
    };
    return cmocka_run_group_tests_name("store_transaction", tests, NULL, NULL);
}
