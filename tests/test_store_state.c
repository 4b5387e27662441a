/* SPDX-License-Identifier: MIT */
/* The store's state as a stream: what goes in comes out, in an engine that answers as the first one does; damaged bytes
 * are refused and harm nobody. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <stdio.h>

#include "store/state.h"
#include "tests/storekit.h"

/* A second engine with a session for each of the first one's three, as connections 1, 2, 3. */
struct twin {
    struct store_engine g;
    struct store_session s[3];
};

static int twin_record(void *context, const struct store_stream_record *r, struct err *e)
{
    (void)context, (void)r, (void)e;
    return 0;
}

static struct store_session *twin_session(void *context, uint32_t connection)
{
    struct twin *t = context;
    return connection - 1 < 3 ? &t->s[connection - 1] : NULL;
}

static struct store_stream_out state_of(const struct store_engine *g, struct store_session *s)
{
    struct store_stream_out o;
    store_stream_begin(&o);
    store_state_put_domains(&o, g);
    for (unsigned i = 0; s && i < 3; i++)
        store_state_put_watches(&o, &s[i], i + 1, i != 0);
    store_state_put_nodes(&o, g);
    for (unsigned i = 0; s && i < 3; i++)
        store_state_put_transactions(&o, &s[i], i + 1, i != 0);
    store_stream_end(&o);
    assert_false(o.failed);
    return o;
}

static int twin_load(struct twin *t, const char *bytes, size_t length, struct err *e)
{
    const struct store_state_edge edge = {.record = twin_record, .session = twin_session, .context = t};
    assert_int_equal(store_engine_init(&t->g, NULL, 43), 0);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(store_session_init(&t->s[i], &t->g, i), 0);
    return store_state_load(&t->g, bytes, length, &edge, e);
}

static void twin_free(struct twin *t)
{
    for (unsigned i = 0; i < 3; i++)
        store_session_deinit(&t->s[i]);
    store_engine_deinit(&t->g);
}

static void twin_of(struct kit_world *w, struct twin *t)
{
    struct err e = {0};
    struct store_stream_out o = state_of(&w->g, w->s);
    int r = twin_load(t, o.bytes, o.length, &e);
    assert_string_equal(e.text, "");
    assert_int_equal(r, 0);
    store_stream_free(&o);
}

static void replies_equal(struct kit_reply a, struct kit_reply b)
{
    assert_int_equal(a.type, b.type);
    assert_int_equal(a.length, b.length);
    assert_memory_equal(a.bytes, b.bytes, a.length);
}

/* Every node's value, permissions and children, and who owns how many. */
static void trees_equal(struct store_session *a, struct store_session *b)
{
    static const uint32_t asked[] = {XS_READ, XS_DIRECTORY, XS_GET_PERMS};
    const struct store_tree *t = &a->engine->tree;
    assert_int_equal(t->slots.count, b->engine->tree.slots.count);
    for (const struct store_tree_slot *slot = NULL; (slot = store_tree_next(t, slot)) != NULL;)
        for (unsigned i = 0; i < ARRAY_SIZE(asked); i++)
            replies_equal(kit_ask1(a, asked[i], 0, slot->path), kit_ask1(b, asked[i], 0, slot->path));
    assert_memory_equal(t->owned, b->engine->tree.owned, (STORE_DOMID_MAX + 1) * sizeof(uint32_t));
}

static int setup(void **state)
{
    return kit_world_new(state, NULL);
}

/* Some of everything that a tree can have. */
static void furnish(struct kit_world *w)
{
    char path[64];
    for (unsigned i = 0; i < 40; i++) {
        snprintf(path, sizeof(path), "/local/domain/%u/dev/%u/key%u", 1 + i % 2, (i * 7) % 10, i);
        kit_expect_ok(kit_write(&w->s[i % 3 ? 1 + i % 2 : 0], 0, path, "value"));
    }
    kit_set_perms(w->one, "/local/domain/1/dev", "n1,r2,b0");
    kit_set_perms(w->dom0, "@releaseDomain", "n0,r2");
    kit_expect_ok(kit_write(w->dom0, 0, "/empty", ""));
    kit_expect_ok(kit_ask(w->dom0, XS_WRITE, 0, "/bytes\0a\0b\xff", 11));
    kit_expect_ok(kit_ask1(w->dom0, XS_RM, 0, "/tool"));
    kit_expect_ok(kit_write(w->dom0, 0, "/tool/late", "x"));
}

static void test_nodes_come_out_as_they_went_in(void **state)
{
    struct kit_world *w = *state;
    struct twin t;
    furnish(w);
    twin_of(w, &t);
    trees_equal(w->dom0, &t.s[0]);
    kit_expect_list(kit_ask1(&t.s[0], XS_DIRECTORY, 0, "/"), "local,empty,bytes,tool,");
    twin_free(&t);
}

static void test_a_state_without_tool_stays_without(void **state)
{
    struct kit_world *w = *state;
    struct twin t;
    kit_expect_ok(kit_ask1(w->dom0, XS_RM, 0, "/tool"));
    twin_of(w, &t);
    kit_expect_error(kit_ask1(&t.s[0], XS_READ, 0, "/tool"), "ENOENT");
    trees_equal(w->dom0, &t.s[0]);
    twin_free(&t);
}

static void test_versions_go_on_above_those_that_were(void **state)
{
    struct kit_world *w = *state;
    struct twin t;
    furnish(w);
    uint64_t before = w->g.tree.generation;
    twin_of(w, &t);
    for (const struct store_tree_slot *slot = NULL; (slot = store_tree_next(&t.g.tree, slot)) != NULL;)
        assert_true(slot->node->generation > before);
    twin_free(&t);
}

static void test_domains_keep_target_introduction_and_quota(void **state)
{
    struct kit_world *w = *state;
    struct twin t;
    const struct store_quota_row *nodes = store_quota_find("nodes"), *watches = store_quota_find("watches");
    kit_expect_ok(kit_ask2(w->dom0, XS_SET_TARGET, 0, "1", "2"));
    store_domains_quota_set(&w->g.domains, nodes, 77);
    store_domain_quota_set(store_domain_find(&w->g.domains, 2), watches, 3);
    twin_of(w, &t);
    kit_expect_string(kit_ask1(&t.s[0], XS_IS_DOMAIN_INTRODUCED, 0, "1"), "T");
    kit_expect_string(kit_ask1(&t.s[0], XS_IS_DOMAIN_INTRODUCED, 0, "3"), "F");
    assert_int_equal(t.g.domains.introduced, 2);
    assert_int_equal(t.s[1].domain->target, 2);
    assert_int_equal(t.s[1].domain->quota.nodes, 77);
    assert_int_equal(t.s[1].domain->quota.watches, 128);
    assert_int_equal(t.s[2].domain->quota.watches, 3);
    twin_free(&t);
}

static void test_the_brake_of_a_domain_stays_on(void **state)
{
    struct kit_world *w = *state;
    struct twin t;
    w->g.now_ns = 5000000000;
    store_domain_brake(w->one->domain, w->g.now_ns);
    store_domain_brake(w->one->domain, w->g.now_ns);
    twin_of(w, &t);
    assert_int_equal(t.s[1].domain->braked_until_ns, t.g.now_ns + 2 * STORE_BRAKE_FIRST_NS);
    assert_int_equal(t.s[1].domain->brake_ns, 2 * STORE_BRAKE_FIRST_NS);
    assert_int_equal(t.s[2].domain->braked_until_ns, 0);
    twin_free(&t);
}

static void test_watches_and_waiting_events_come_along_once(void **state)
{
    struct kit_world *w = *state;
    struct twin t;
    kit_expect_ok(kit_ask2(w->one, XS_WATCH, 0, "dev", "relative"));
    kit_drain(w->one);
    kit_expect_ok(kit_ask2(w->dom0, XS_WATCH, 0, "/local", "all"));
    kit_expect_ok(kit_write(w->one, 0, "dev/a", "1"));
    kit_expect_ok(kit_write(w->one, 0, "dev/b", "1"));
    twin_of(w, &t);
    kit_expect_ok(kit_write(&t.s[1], 0, "dev/a", "2")); /* is one with the event that waits */
    kit_expect_event(&t.s[1], "dev/a", "relative");
    kit_expect_event(&t.s[1], "dev/b", "relative");
    kit_expect_event(&t.s[1], NULL, NULL);
    kit_expect_event(&t.s[0], "/local", "all");
    kit_expect_event(&t.s[0], "/local/domain/1/dev/a", "all");
    kit_expect_event(&t.s[0], "/local/domain/1/dev/b", "all");
    kit_expect_event(&t.s[0], NULL, NULL);
    assert_int_equal(t.g.watches.count, 2);
    kit_expect_ok(kit_ask2(&t.s[1], XS_UNWATCH, 0, "dev", "relative"));
    twin_free(&t);
}

/* A transaction of guest 1 that reads, writes, makes, removes and makes again. */
static uint32_t busy_transaction(struct kit_world *w)
{
    uint32_t tx = kit_tx(w->one);
    kit_expect_text(kit_ask1(w->one, XS_READ, tx, "read"), "r");
    kit_expect_error(kit_ask1(w->one, XS_READ, tx, "missing"), "ENOENT");
    kit_expect_ok(kit_write(w->one, tx, "written", "new"));
    kit_expect_ok(kit_write(w->one, tx, "made/deep/down", "d"));
    kit_expect_ok(kit_ask1(w->one, XS_RM, tx, "gone"));
    kit_expect_ok(kit_ask1(w->one, XS_RM, tx, "again"));
    kit_expect_ok(kit_write(w->one, tx, "again", "two"));
    kit_expect_ok(kit_write(w->one, tx, "passing/by", "p"));
    kit_expect_ok(kit_ask1(w->one, XS_RM, tx, "passing"));
    return tx;
}

static void before_transaction(struct kit_world *w)
{
    static const char *const paths[] = {"read", "written", "gone/child", "again/child"};
    for (unsigned i = 0; i < ARRAY_SIZE(paths); i++)
        kit_expect_ok(kit_write(w->one, 0, paths[i], "r"));
}

static void watch_home(struct store_session *s)
{
    kit_expect_ok(kit_ask2(s, XS_WATCH, 0, "/local/domain/1", "t"));
    kit_drain(s);
}

/* Both sessions' events are the same, in number and order. */
static void events_equal(struct store_session *a, struct store_session *b)
{
    char one[XENSTORE_PAYLOAD_MAX], two[XENSTORE_PAYLOAD_MAX];
    size_t length;
    do {
        length = store_watch_next(&a->engine->watches, a, one);
        assert_int_equal(store_watch_next(&b->engine->watches, b, two), length);
        assert_memory_equal(one, two, length);
    } while (length);
}

/* What begins with '@' can be watched whatever it is, and a guest must not hold up an update by it. */
static void test_a_watch_of_any_special_name_comes_along(void **state)
{
    struct kit_world *w = *state;
    struct twin t;
    kit_expect_ok(kit_ask2(w->one, XS_WATCH, 0, "@no such/name//\x01\xff", "tok"));
    kit_expect_ok(kit_ask2(w->two, XS_WATCH, 0, "@", ""));
    twin_of(w, &t);
    kit_expect_event(&t.s[1], "@no such/name//\x01\xff", "tok");
    kit_expect_ok(kit_ask2(&t.s[1], XS_UNWATCH, 0, "@no such/name//\x01\xff", "tok"));
    kit_expect_ok(kit_ask2(&t.s[2], XS_UNWATCH, 0, "@", ""));
    twin_free(&t);
}

static void test_what_a_transaction_made_again_below_what_it_made_again_comes_along(void **state)
{
    struct kit_world *w = *state;
    struct twin t;
    kit_expect_ok(kit_write(w->one, 0, "p/c", "first"));
    kit_expect_ok(kit_write(w->one, 0, "p/gone", "first"));
    uint32_t tx = kit_tx(w->one);
    kit_expect_ok(kit_write(w->one, tx, "p/c", "second"));
    kit_expect_ok(kit_ask1(w->one, XS_RM, tx, "p"));
    kit_expect_ok(kit_write(w->one, tx, "p/c", "third"));
    twin_of(w, &t);
    kit_expect_ok(kit_ask1(&t.s[1], XS_TRANSACTION_END, tx, "T"));
    kit_expect_ok(kit_ask1(w->one, XS_TRANSACTION_END, tx, "T"));
    kit_expect_text(kit_ask1(w->one, XS_READ, 0, "p/c"), "third");
    trees_equal(w->dom0, &t.s[0]);
    twin_free(&t);
}

static void test_an_open_transaction_goes_on_and_commits(void **state)
{
    struct kit_world *w = *state;
    struct twin t;
    before_transaction(w);
    uint32_t tx = busy_transaction(w);
    watch_home(w->dom0);
    twin_of(w, &t);
    kit_expect_text(kit_ask1(&t.s[1], XS_READ, tx, "written"), "new");
    kit_expect_error(kit_ask1(&t.s[1], XS_READ, tx, "gone/child"), "ENOENT");
    kit_expect_text(kit_ask1(&t.s[1], XS_READ, 0, "written"), "r");
    replies_equal(kit_ask1(w->one, XS_DIRECTORY, tx, "/local/domain/1"),
                  kit_ask1(&t.s[1], XS_DIRECTORY, tx, "/local/domain/1"));
    kit_expect_ok(kit_ask1(w->one, XS_TRANSACTION_END, tx, "T"));
    kit_expect_ok(kit_ask1(&t.s[1], XS_TRANSACTION_END, tx, "T"));
    trees_equal(w->dom0, &t.s[0]);
    events_equal(w->dom0, &t.s[0]);
    twin_free(&t);
}

static void test_an_open_transaction_still_collides_with_what_it_read(void **state)
{
    static const char *const read[] = {"read", "missing", "written", "gone/child"};
    struct kit_world *w = *state;
    before_transaction(w);
    uint32_t tx = busy_transaction(w);
    for (unsigned i = 0; i < ARRAY_SIZE(read); i++) {
        struct twin t;
        twin_of(w, &t);
        kit_expect_ok(kit_write(&t.s[1], 0, read[i], "by another"));
        kit_expect_error(kit_ask1(&t.s[1], XS_TRANSACTION_END, tx, "T"), "EAGAIN");
        twin_free(&t);
    }
}

static void test_a_transaction_that_had_collided_cannot_commit_after_all(void **state)
{
    struct kit_world *w = *state;
    struct twin t;
    before_transaction(w);
    uint32_t tx = busy_transaction(w);
    kit_expect_ok(kit_write(w->one, 0, "read", "by another"));
    twin_of(w, &t);
    kit_expect_error(kit_ask1(&t.s[1], XS_TRANSACTION_END, tx, "T"), "EAGAIN");
    kit_expect_error(kit_ask1(&t.s[1], XS_TRANSACTION_END, tx, "T"), "ENOENT");
    twin_free(&t);
}

static void test_a_transaction_s_nodes_count_for_the_quota_after_it_as_before(void **state)
{
    struct kit_world *w = *state;
    struct twin t;
    uint32_t tx = kit_tx(w->one);
    kit_expect_ok(kit_write(w->one, tx, "a/b/c", ""));
    int64_t delta = store_session_transaction(w->one, tx)->own_delta;
    twin_of(w, &t);
    assert_int_equal(store_session_transaction(&t.s[1], tx)->own_delta, delta);
    assert_int_equal(t.s[1].domain->transactions, 1);
    twin_free(&t);
}

/* A transaction that cannot commit any more may see other times after than before: out of the comparison. */
static uint32_t stale_ended(struct store_session *s, uint32_t tx)
{
    if (!tx ||
        (store_transaction_current(store_session_transaction(s, tx)) && !store_session_transaction(s, tx)->doomed))
        return tx;
    kit_expect_ok(kit_ask1(s, XS_TRANSACTION_END, tx, "F"));
    return 0;
}

/* Random requests, some in transactions; then both engines answer alike to more of them. */
static void test_two_engines_answer_alike_after_any_history(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        void *world;
        struct twin t;
        uint64_t random = seed;
        uint32_t tx[3] = {0};
        kit_world_new(&world, NULL);
        struct kit_world *w = world;
        watch_home(w->dom0);
        for (unsigned step = 0; step < 160; step++) {
            static const uint32_t types[] = {XS_WRITE, XS_WRITE, XS_WRITE, XS_MKDIR, XS_RM, XS_READ, XS_DIRECTORY};
            char path[64];
            unsigned who = kit_random(&random, 3);
            for (unsigned i = 0; step == 80 && i < 3; i++)
                tx[i] = stale_ended(&w->s[i], tx[i]);
            if (step == 80)
                twin_of(w, &t);
            if (!tx[who] && step < 70 && kit_random(&random, 4) == 0)
                tx[who] = kit_tx(&w->s[who]);
            snprintf(path, sizeof(path), "/local/domain/%u/%c%s%c", kit_random(&random, 3),
                     'a' + (char)kit_random(&random, 3), kit_random(&random, 2) ? "/" : "",
                     'a' + (char)kit_random(&random, 3));
            uint32_t type = types[kit_random(&random, ARRAY_SIZE(types))];
            uint32_t id = kit_random(&random, 2) ? tx[who] : 0;
            size_t length = strlen(path) + (type != XS_WRITE);
            struct kit_reply r;
            if (type == XS_WRITE)
                path[length++] = '\0', path[length++] = (char)('0' + step % 10);
            r = kit_ask(&w->s[who], type, id, path, length);
            if (step >= 80)
                replies_equal(r, kit_ask(&t.s[who], type, id, path, length));
        }
        for (unsigned who = 0; who < 3; who++)
            if (tx[who])
                replies_equal(kit_ask1(&w->s[who], XS_TRANSACTION_END, tx[who], "T"),
                              kit_ask1(&t.s[who], XS_TRANSACTION_END, tx[who], "T"));
        trees_equal(w->dom0, &t.s[0]);
        events_equal(w->dom0, &t.s[0]);
        twin_free(&t);
        kit_world_free(&world);
    }
}

static struct store_stream_out rich_state(struct kit_world *w)
{
    furnish(w);
    before_transaction(w);
    busy_transaction(w);
    watch_home(w->dom0);
    kit_expect_ok(kit_write(w->one, 0, "other", "o"));
    return state_of(&w->g, w->s);
}

static void test_a_stream_cut_anywhere_is_refused(void **state)
{
    struct kit_world *w = *state;
    struct store_stream_out o = rich_state(w);
    for (size_t length = 0; length < o.length; length += 1 + length / 64) {
        struct twin t;
        struct err e = {0};
        char *exact = malloc(length + 1); /* so that a sanitizer sees a byte too far */
        assert_non_null(exact);
        memcpy(exact, o.bytes, length);
        exact[length] = 0x5a;
        assert_true(twin_load(&t, exact, length, &e) < 0);
        assert_string_not_equal(e.text, "");
        twin_free(&t);
        free(exact);
    }
    store_stream_free(&o);
}

static void test_a_stream_with_any_bytes_flipped_harms_nobody(void **state)
{
    struct kit_world *w = *state;
    struct store_stream_out o = rich_state(w);
    uint64_t random = 7;
    for (unsigned round = 0; round < 1500; round++) {
        struct twin t;
        struct err e = {0};
        char *exact = malloc(o.length);
        assert_non_null(exact);
        memcpy(exact, o.bytes, o.length);
        for (unsigned flips = 1 + kit_random(&random, 3); flips > 0; flips--)
            exact[kit_random(&random, (uint32_t)o.length)] = (char)kit_random(&random, 256);
        int r = twin_load(&t, exact, o.length, &e);
        assert_true(r == 0 || e.text[0]);
        twin_free(&t);
        free(exact);
    }
    store_stream_free(&o);
}

/* The bytes that the document prescribes, so that another program's reader finds them. */
static void test_a_node_record_is_laid_out_as_the_document_has_it(void **state)
{
    (void)state;
    static const unsigned char expected[] = {
        'x', 'e', 'n', 's', 't', 'o', 'r', 'e', 0,   0,   0, 1,   0,   0, 0, 0, /* preamble */
        5,   0,   0,   0,   32,  0,   0,   0,                                   /* NODE */
        0,   0,   0,   0,   0,   0,   0,   0,   3,   0,   2, 0,   0,   0, 2, 0, /* /a, two bytes, two permissions */
        'n', 0,   0,   0,   'b', 0,   7,   0,   '/', 'a', 0, 'v', 'w', 0, 0, 0, /* and padding */
        0,   0,   0,   0,   0,   0,   0,   0};
    struct store_stream_out o;
    struct store_stream_node n = {.path = "/a", .value = "vw", .value_bytes = 2, .perm_count = 2};
    n.perms[1] = (struct store_perm){.domid = 7, .access = STORE_READ | STORE_WRITE};
    store_stream_begin(&o);
    store_stream_put_node(&o, &n, false);
    store_stream_end(&o);
    assert_int_equal(o.length, sizeof(expected));
    assert_memory_equal(o.bytes, expected, sizeof(expected));
    store_stream_free(&o);
}

static void test_a_newer_revision_is_refused(void **state)
{
    (void)state;
    struct twin t;
    struct err e = {0};
    struct store_stream_out o;
    store_stream_begin(&o);
    store_stream_put_server(&o, &(struct store_stream_server){.revision = STORE_STREAM_REVISION + 1});
    store_stream_end(&o);
    assert_int_equal(twin_load(&t, o.bytes, o.length, &e), -EPROTO);
    assert_non_null(strstr(e.text, "newer"));
    twin_free(&t);
    store_stream_free(&o);
}

#define WORLD_TEST(f) cmocka_unit_test_setup_teardown(f, setup, kit_world_free)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_nodes_come_out_as_they_went_in),
        WORLD_TEST(test_a_state_without_tool_stays_without),
        WORLD_TEST(test_versions_go_on_above_those_that_were),
        WORLD_TEST(test_domains_keep_target_introduction_and_quota),
        WORLD_TEST(test_the_brake_of_a_domain_stays_on),
        WORLD_TEST(test_watches_and_waiting_events_come_along_once),
        WORLD_TEST(test_a_watch_of_any_special_name_comes_along),
        WORLD_TEST(test_what_a_transaction_made_again_below_what_it_made_again_comes_along),
        WORLD_TEST(test_an_open_transaction_goes_on_and_commits),
        WORLD_TEST(test_an_open_transaction_still_collides_with_what_it_read),
        WORLD_TEST(test_a_transaction_that_had_collided_cannot_commit_after_all),
        WORLD_TEST(test_a_transaction_s_nodes_count_for_the_quota_after_it_as_before),
        cmocka_unit_test(test_two_engines_answer_alike_after_any_history),
        WORLD_TEST(test_a_stream_cut_anywhere_is_refused),
        WORLD_TEST(test_a_stream_with_any_bytes_flipped_harms_nobody),
        cmocka_unit_test(test_a_node_record_is_laid_out_as_the_document_has_it),
        cmocka_unit_test(test_a_newer_revision_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
