/* SPDX-License-Identifier: MIT */
/* CONTROL: what an operator asks of the store itself, without a socket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <stdio.h>

#include "store/control.h"
#include "tests/storekit.h"

static int setup(void **state)
{
    return kit_world_new(state, NULL);
}

/* The command and its arguments with ' ' for each NUL; the last one's is added. */
static struct kit_reply control(struct store_session *s, const char *words)
{
    char payload[256];
    size_t length = (size_t)snprintf(payload, sizeof(payload), "%s", words) + 1;
    assert_true(length <= sizeof(payload));
    for (size_t i = 0; i < length; i++)
        if (payload[i] == ' ')
            payload[i] = '\0';
    return kit_ask(s, XS_CONTROL, 0, payload, length);
}

static void expect_in(struct kit_reply r, const char *part)
{
    assert_int_equal(r.type, XS_CONTROL);
    assert_int_equal(r.bytes[r.length - 1], '\0');
    if (!strstr(r.bytes, part))
        fail_msg("no '%s' in: %s", part, r.bytes);
}

static void test_control_is_domain_0s(void **state)
{
    struct kit_world *w = *state;
    static const char *const commands[] = {"help", "check", "quota", "quota set nodes 5", "live-update -s", "nonsense"};
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        kit_expect_error(control(w->one, commands[i]), "EACCES");
    kit_expect_ok(kit_ask2(w->dom0, XS_SET_TARGET, 0, "1", "2"));
    kit_expect_error(control(w->one, "quota"), "EACCES");
    assert_int_equal(w->g.domains.quota.nodes, store_quota_default.nodes);
}

static void test_what_is_no_command_is_einval_and_does_nothing(void **state)
{
    struct kit_world *w = *state;
    static const char *const bad[] = {
        "nonsense",
        "",
        "check x",
        "log",
        "log maybe",
        "log on off",
        "print",
        "print a b",
        "help me",
        "memreport /etc/passwd",
        "quota set",
        "quota set nodes",
        "quota set x 1",
        "quota set nodes -1",
        "quota set nodes 0x1",
        "quota set nodes 4294967295",
        "quota set nodes 1 x",
        "quota set nodes 1 2 3",
        "quota x",
        "quota 1 2",
        "quota-soft set nodes 1",
        "quota-soft x",
        "quota set memory-soft 1",
        "quota set outstanding-and-a-name-that-is-too-long 1",
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        kit_expect_error(control(w->dom0, bad[i]), "EINVAL");
    kit_expect_error(kit_ask(w->dom0, XS_CONTROL, 0, "", 0), "EINVAL");
    kit_expect_error(kit_ask(w->dom0, XS_CONTROL, 0, "help", 4), "EINVAL"); /* no NUL */
    kit_expect_error(kit_ask(w->dom0, XS_CONTROL, 0, "check\0x", 7), "EINVAL");
    char many[XENSTORE_PAYLOAD_MAX] = "check";
    kit_expect_error(kit_ask(w->dom0, XS_CONTROL, 0, many, sizeof(many)), "EINVAL");
    kit_expect_error(kit_ask1(w->dom0, XS_CONTROL, 99, "help"), "ENOENT"); /* a transaction that is none */
    assert_memory_equal(&w->g.domains.quota, &store_quota_default, sizeof(store_quota_default));
    assert_false(w->g.trace);
}

static void test_help_names_each_command(void **state)
{
    struct kit_world *w = *state;
    static const char *const names[] = {"check\t",  "log\ton|off\n", "memreport\t", "print\t<string>\n",
                                        "quota\t[", "quota-soft\t",  "help\t",      "live-update\t"};
    struct kit_reply r = control(w->dom0, "help");
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        expect_in(r, names[i]);
}

static void test_check_tells_of_what_does_not_agree(void **state)
{
    struct kit_world *w = *state;
    kit_expect_ok(kit_write(w->one, 0, "a/b/c", "v"));
    kit_expect_ok(kit_ask2(w->one, XS_WATCH, 0, "a", "t"));
    kit_expect_string(control(w->dom0, "check"), "OK");
    w->g.tree.owned[1]++;
    expect_in(control(w->dom0, "check"), "domain 1 owns 4 nodes, 5 are counted, 4 listed");
    w->g.tree.owned[1]--;
    w->one->domain->watches++;
    expect_in(control(w->dom0, "check"), "domains have 2 watches");
    w->one->domain->watches--;
    struct store_tree_slot *slot = store_tree_find(&w->g.tree, "/local/domain/1/a", 17);
    slot->children_bytes++;
    expect_in(control(w->dom0, "check"), "the children of /local/domain/1/a have names of 2 bytes, and 3 are counted");
    slot->children_bytes--;
    slot->parent = slot->parent->parent;
    expect_in(control(w->dom0, "check"), "/local/domain/1/a is listed by /local/domain/1");
    slot->parent = store_tree_find(&w->g.tree, "/local/domain/1", 15);
    kit_expect_string(control(w->dom0, "check"), "OK");
}

static void test_quotas_are_shown_by_the_references_names(void **state)
{
    struct kit_world *w = *state;
    struct kit_reply r = control(w->dom0, "quota");
    expect_in(r, "Quota settings:\nnodes            :     1000 ");
    expect_in(r, "\nwatches          :      128 ");
    expect_in(r, "\ntransactions     :       10 ");
    expect_in(r, "\noutstanding      :       20 ");
    expect_in(r, "\ntransaction-nodes:     1024 ");
    expect_in(r, "\nmemory           :  2621440 ");
    expect_in(r, "\nnode-size        :     2048 ");
    expect_in(r, "\npath-max         :     2048 ");
    expect_in(r, "\npermissions      :        5 ");
    assert_null(strstr(r.bytes, "soft"));
    expect_in(control(w->dom0, "quota-soft"), "memory           :  2097152 ");
    kit_expect_string(control(w->dom0, "quota-soft set memory 1000000"), "OK");
    assert_int_equal(w->g.domains.quota.memory_soft_bytes, 1000000);
}

static void test_a_quota_changes_for_all_who_have_none_of_their_own(void **state)
{
    struct kit_world *w = *state;
    kit_expect_string(control(w->dom0, "quota set nodes 3 1"), "OK");
    kit_expect_string(control(w->dom0, "quota set nodes 2"), "OK");
    kit_expect_ok(kit_write(w->one, 0, "a/b", ""));
    kit_expect_error(kit_write(w->one, 0, "c", ""), "ENOSPC");
    kit_expect_ok(kit_write(w->two, 0, "a", ""));
    kit_expect_error(kit_write(w->two, 0, "c", ""), "ENOSPC");
    expect_in(control(w->dom0, "quota 1"), "Domain 1:\nnodes           :        3\n");
    expect_in(control(w->dom0, "quota 1"), "own limit of nodes: 3\n");
    assert_null(strstr(control(w->dom0, "quota 2").bytes, "own limit"));
    kit_introduce(w, "7"); /* who comes later has them, too */
    assert_int_equal(store_domain_find(&w->g.domains, 7)->quota.nodes, 2);
    kit_expect_error(control(w->dom0, "quota 9"), "ENOENT");
    kit_expect_error(control(w->dom0, "quota set nodes 2 9"), "ENOENT");
}

static void test_each_quota_can_be_lowered_below_what_is_held_and_lifted(void **state)
{
    struct kit_world *w = *state;
    static const char *const names[] = {"nodes",     "watches",    "transactions", "transaction-nodes",
                                        "node-size", "permissions"};
    static const char *const refusals[] = {"ENOSPC", "E2BIG", "ENOSPC", "ENOSPC", "ENOSPC", "ENOSPC"};
    kit_expect_ok(kit_write(w->one, 0, "a", "v"));
    kit_expect_ok(kit_ask2(w->one, XS_WATCH, 0, "a", "t"));
    kit_tx(w->one);
    for (unsigned round = 0; round < 2; round++) {
        for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
            char words[64];
            snprintf(words, sizeof(words), "quota set %s %d 1", names[i], round ? 0 : 1); /* 0: no limit */
            kit_expect_string(control(w->dom0, words), "OK");
        }
        uint32_t tx = round ? kit_tx(w->one) : 0;
        struct kit_reply replies[] = {
            kit_write(w->one, 0, "b", ""),
            kit_ask2(w->one, XS_WATCH, 0, "b", "t"),
            round ? kit_ask1(w->one, XS_TRANSACTION_END, tx, "T") : kit_ask1(w->one, XS_TRANSACTION_START, 0, ""),
            round ? kit_write(w->one, 0, "d", "") : kit_write(w->one, 1, "d/e/f", ""),
            kit_write(w->one, 0, "a", "longer"),
            kit_ask(w->one, XS_SET_PERMS, 0, "a\0n1\0r2", 8),
        };
        for (size_t i = 0; i < ARRAY_SIZE(replies); i++) {
            if (round)
                kit_expect_ok(replies[i]);
            else
                kit_expect_error(replies[i], refusals[i]);
        }
    }
    kit_expect_string(control(w->dom0, "check"), "OK");
}

static void test_no_limit_of_memory_is_none(void **state)
{
    struct kit_world *w = *state;
    kit_expect_string(control(w->dom0, "quota set memory 1 1"), "OK");
    kit_expect_error(kit_write(w->one, 0, "x", ""), "ENOMEM");
    kit_expect_string(control(w->dom0, "quota set memory 0 1"), "OK");
    kit_expect_ok(kit_write(w->one, 0, "x", ""));
    assert_true(store_engine_domain_room_bytes(&w->g, 1) == UINT64_MAX);
    expect_in(control(w->dom0, "quota 1"), "own limit of memory: 0\n");
}

static void test_a_domains_own_quota_goes_with_it(void **state)
{
    struct kit_world *w = *state;
    kit_introduce(w, "7");
    kit_expect_string(control(w->dom0, "quota set nodes 1 7"), "OK");
    kit_expect_ok(kit_ask1(w->dom0, XS_RELEASE, 0, "7"));
    kit_introduce(w, "7");
    assert_int_equal(store_domain_find(&w->g.domains, 7)->quota.nodes, 1000);
    /* … and of one whose record stays as it has connections */
    kit_expect_string(control(w->dom0, "quota set nodes 1 1"), "OK");
    kit_expect_ok(kit_ask1(w->dom0, XS_RELEASE, 0, "1"));
    assert_int_equal(w->one->domain->quota.nodes, 1000);
    assert_int_equal(w->one->domain->quota_own, 0);
}

static void test_memreport_and_log_answer(void **state)
{
    struct kit_world *w = *state;
    struct kit_reply r = control(w->dom0, "memreport");
    expect_in(r, "nodes: ");
    expect_in(r, "domain 2: nodes 1, watches 0, transactions 0, connections 1, ");
    for (unsigned domid = 3; domid < 300; domid++) {
        char text[8];
        snprintf(text, sizeof(text), "%u", domid);
        kit_introduce(w, text);
    }
    expect_in(control(w->dom0, "memreport"), "nodes: "); /* fits a message, however many domains there are */
    kit_expect_string(control(w->dom0, "log on"), "OK");
    assert_true(w->g.trace);
    kit_expect_ok(kit_write(w->dom0, 0, "/x", "\x01\xff%s%n\n")); /* a line of the log, and harmless */
    kit_expect_string(control(w->dom0, "log off"), "OK");
    assert_false(w->g.trace);
    kit_expect_string(control(w->dom0, "print hello"), "OK");
}

static int update_answer(void *context, struct store_session *who, const char *const *args, unsigned count, char *reply)
{
    (void)context;
    assert_int_equal(who->domain->domid, 0);
    snprintf(reply, XENSTORE_PAYLOAD_MAX, "%u %s", count, args[0]);
    return strcmp(args[0], "-x") == 0 ? EBUSY : 0;
}

static void test_live_update_is_asked_of_the_edge(void **state)
{
    struct kit_world *w = *state;
    kit_expect_error(control(w->dom0, "live-update -s"), "ENOSYS");
    w->g.hooks.live_update = update_answer;
    kit_expect_string(control(w->dom0, "live-update -s -t 5"), "3 -s");
    kit_expect_error(control(w->dom0, "live-update -x"), "EBUSY");
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, kit_world_free)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_control_is_domain_0s),
        T(test_what_is_no_command_is_einval_and_does_nothing),
        T(test_help_names_each_command),
        T(test_check_tells_of_what_does_not_agree),
        T(test_quotas_are_shown_by_the_references_names),
        T(test_a_quota_changes_for_all_who_have_none_of_their_own),
        T(test_each_quota_can_be_lowered_below_what_is_held_and_lifted),
        T(test_no_limit_of_memory_is_none),
        T(test_a_domains_own_quota_goes_with_it),
        T(test_memreport_and_log_answer),
        T(test_live_update_is_asked_of_the_edge),
    };
    return cmocka_run_group_tests_name("store_control", tests, NULL, NULL);
}
