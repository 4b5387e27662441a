/* SPDX-License-Identifier: MIT */
/* The operations of the store, asked without a socket: paths, nodes, permissions, watches. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <stdio.h>

#include "tests/storekit.h"

static int setup(void **state)
{
    return kit_world_new(state, NULL);
}

/* --- paths ------------------------------------------------------------------------------------------------ */

static void test_every_character_is_legal_or_refused(void **state)
{
    struct kit_world *w = *state;
    static const char legal[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_@";
    for (int c = 1; c < 256; c++) {
        char path[] = {'/', 'x', (char)c, 'y', '\0'};
        struct kit_reply r = kit_write(w->dom0, 0, path, "v");
        if (c == '/' || strchr(legal, c))
            kit_expect_ok(r);
        else
            kit_expect_error(r, "EINVAL");
    }
}

static void test_malformed_paths_are_refused_by_every_operation(void **state)
{
    struct kit_world *w = *state;
    static const char *const bad[] = {
        "", "//", "/a/", "a/", "/a//b", "//a", "/.", "/a b", "@", "@x/y", "@introduceDomain/1/"};
    static const uint32_t ops[] = {XS_READ, XS_DIRECTORY, XS_GET_PERMS, XS_MKDIR, XS_RM};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        for (size_t k = 0; k < ARRAY_SIZE(ops); k++)
            kit_expect_error(kit_ask1(w->one, ops[k], 0, bad[i]), "EINVAL");
        kit_expect_error(kit_write(w->one, 0, bad[i], "v"), "EINVAL");
        kit_expect_error(kit_ask2(w->one, XS_SET_PERMS, 0, bad[i], "n1"), "EINVAL");
        kit_expect_error(kit_ask2(w->one, XS_DIRECTORY_PART, 0, bad[i], "0"), "EINVAL");
        if (bad[i][0] != '@')
            kit_expect_error(kit_ask2(w->one, XS_WATCH, 0, bad[i], "t"), "EINVAL");
        kit_expect_error(kit_ask2(w->one, XS_UNWATCH, 0, bad[i], "t"), "ENOENT");
    }
    kit_expect_error(kit_ask1(w->dom0, XS_READ, 0, "@introduceDomain"), "EINVAL");
    kit_expect_error(kit_write(w->dom0, 0, "@introduceDomain", "v"), "EINVAL");
    kit_expect_error(kit_ask1(w->dom0, XS_RM, 0, "@introduceDomain"), "EINVAL");
    kit_expect_error(kit_ask1(w->dom0, XS_RM, 0, "/"), "EINVAL");
}

static void test_payloads_without_their_nul_are_refused(void **state)
{
    struct kit_world *w = *state;
    static const struct {
        uint32_t type;
        const char *error;
    } ops[] = {
        {XS_READ, "ENOENT"},
        {XS_DIRECTORY, "ENOENT"},
        {XS_GET_PERMS, "ENOENT"},
        {XS_MKDIR, "ENOENT"},
        {XS_RM, "ENOENT"},
        {XS_WRITE, "EINVAL"},
        {XS_SET_PERMS, "EINVAL"},
        {XS_DIRECTORY_PART, "EINVAL"},
        {XS_WATCH, "EINVAL"},
        {XS_UNWATCH, "EINVAL"},
        {XS_TRANSACTION_END, "EINVAL"},
        {XS_GET_DOMAIN_PATH, "EINVAL"},
        {XS_INTRODUCE, "EINVAL"},
        {XS_RELEASE, "EINVAL"},
        {XS_SET_TARGET, "EINVAL"},
        {XS_RESUME, "EINVAL"},
        {XS_IS_DOMAIN_INTRODUCED, "EINVAL"},
        {XS_CONTROL, "EINVAL"},
    };
    for (size_t k = 0; k < ARRAY_SIZE(ops); k++) {
        kit_expect_error(kit_ask(w->dom0, ops[k].type, 0, "", 0), ops[k].error);
        kit_expect_error(kit_ask(w->dom0, ops[k].type, 0, "/tool", 5), ops[k].error);
        if (ops[k].type != XS_WRITE) /* whose value needs none */
            kit_expect_error(kit_ask(w->dom0, ops[k].type, 0, "/tool\0n0", 8), ops[k].error);
    }
}

static void test_relative_paths_are_below_the_callers_home(void **state)
{
    struct kit_world *w = *state;
    kit_expect_ok(kit_write(w->one, 0, "data/x", "mine"));
    kit_expect_text(kit_ask1(w->dom0, XS_READ, 0, "/local/domain/1/data/x"), "mine");
    kit_expect_text(kit_ask1(w->one, XS_READ, 0, "/local/domain/1/data/x"), "mine");
    kit_expect_error(kit_ask1(w->two, XS_READ, 0, "data/x"), "ENOENT");
}

static void test_lesson_323_path_limits_hold_before_and_after_expansion(void **state)
{
    struct kit_world *w = *state;
    static char text[XENSTORE_ABS_PATH_MAX + 16];
    memset(text, 'x', sizeof(text) - 1);
    text[XENSTORE_REL_PATH_MAX + 1] = '\0';
    kit_expect_error(kit_ask1(w->dom0, XS_READ, 0, text), "EINVAL"); /* relative, one too long */
    text[XENSTORE_REL_PATH_MAX] = '\0';
    kit_expect_error(kit_ask1(w->dom0, XS_READ, 0, text), "ENOENT");
    kit_expect_error(kit_ask1(w->one, XS_READ, 0, text), "ENOENT"); /* the quota does not count the home */
    memset(text, 'x', sizeof(text) - 1);
    text[0] = '/';
    text[2049] = '\0';
    kit_expect_error(kit_ask1(w->dom0, XS_READ, 0, text), "EINVAL"); /* which binds domain 0, too */
    kit_expect_error(kit_ask1(w->one, XS_READ, 0, text), "EINVAL");
    text[2048] = '\0';
    kit_expect_error(kit_ask1(w->dom0, XS_READ, 0, text), "ENOENT");
    kit_expect_error(kit_ask1(w->one, XS_READ, 0, text), "EACCES");
    kit_expect_ok(kit_ask(w->dom0, XS_CONTROL, 0,
                          "quota\0set\0path-max\0"
                          "0",
                          21)); /* the wire's own limit stays */
    memset(text, 'x', sizeof(text) - 1);
    text[0] = '/';
    text[XENSTORE_ABS_PATH_MAX + 1] = '\0';
    kit_expect_error(kit_ask1(w->dom0, XS_READ, 0, text), "EINVAL");
    text[XENSTORE_ABS_PATH_MAX] = '\0';
    kit_expect_error(kit_ask1(w->dom0, XS_READ, 0, text), "ENOENT");
}

static void test_lesson_481_a_refusal_always_has_a_name(void **state)
{
    struct kit_world *w = *state;
    static const char *const corners[] = {"/local/domain/", "/local/domain", "/local/domain//", "/local/domain/x/",
                                          "/local/domain/99999999999/a"};
    for (uint32_t type = 0; type < XS_TYPE_COUNT + 8; type++) {
        for (size_t i = 0; i < ARRAY_SIZE(corners); i++) {
            struct kit_reply r = kit_ask1(w->one, type, 0, corners[i]);
            assert_true(r.type == XS_ERROR ? r.bytes[0] == 'E' && r.length > 1 : r.length > 0);
        }
    }
}

/* --- nodes ------------------------------------------------------------------------------------------------ */

static void test_values_hold_any_bytes(void **state)
{
    struct kit_world *w = *state;
    char payload[2 + 256 + 2];
    memcpy(payload, "/v", 3);
    for (int i = 0; i < 256; i++)
        payload[3 + i] = (char)i;
    kit_expect_ok(kit_ask(w->dom0, XS_WRITE, 0, payload, 3 + 256));
    struct kit_reply r = kit_ask1(w->dom0, XS_READ, 0, "/v");
    assert_int_equal(r.length, 256);
    assert_memory_equal(r.bytes, payload + 3, 256);
    kit_expect_ok(kit_write(w->dom0, 0, "/v", ""));
    kit_expect_text(kit_ask1(w->dom0, XS_READ, 0, "/v"), "");
}

static void test_a_write_makes_what_is_missing_above(void **state)
{
    struct kit_world *w = *state;
    kit_expect_ok(kit_write(w->dom0, 0, "/a/b/c", "v"));
    kit_expect_text(kit_ask1(w->dom0, XS_READ, 0, "/a/b"), "");
    kit_expect_list(kit_ask1(w->dom0, XS_DIRECTORY, 0, "/a"), "b,");
    kit_expect_ok(kit_ask1(w->dom0, XS_MKDIR, 0, "/a/b")); /* there already: fine, and kept */
    kit_expect_text(kit_ask1(w->dom0, XS_READ, 0, "/a/b/c"), "v");
    kit_expect_ok(kit_ask1(w->dom0, XS_MKDIR, 0, "/a/d"));
    kit_expect_list(kit_ask1(w->dom0, XS_DIRECTORY, 0, "/a"), "b,d,");
}

static void test_removal_of_the_missing_is_fine_where_it_could_have_been(void **state)
{
    struct kit_world *w = *state;
    kit_expect_ok(kit_write(w->dom0, 0, "/a/b/c", "v"));
    kit_expect_ok(kit_ask1(w->dom0, XS_RM, 0, "/a/x"));
    kit_expect_error(kit_ask1(w->dom0, XS_RM, 0, "/a/x/y"), "ENOENT");
    kit_expect_ok(kit_ask1(w->dom0, XS_RM, 0, "/a"));
    kit_expect_error(kit_ask1(w->dom0, XS_READ, 0, "/a/b/c"), "ENOENT");
    kit_expect_list(kit_ask1(w->dom0, XS_DIRECTORY, 0, "/"), "tool,local,");
}

static void test_a_directory_too_big_for_a_message_is_read_in_parts(void **state)
{
    struct kit_world *w = *state;
    static char expected[16384], got[16384];
    size_t total = 0, offset = 0;
    for (unsigned i = 0; i < 600; i++) {
        char path[64];
        snprintf(path, sizeof(path), "/many/child-number-%u", i);
        kit_expect_ok(kit_write(w->dom0, 0, path, ""));
        total += (size_t)sprintf(expected + total, "child-number-%u", i) + 1;
    }
    kit_expect_error(kit_ask1(w->dom0, XS_DIRECTORY, 0, "/many"), "E2BIG");
    for (bool end = false; !end;) {
        char at[16];
        snprintf(at, sizeof(at), "%zu", offset);
        struct kit_reply r = kit_ask2(w->dom0, XS_DIRECTORY_PART, 0, "/many", at);
        size_t head = strlen(r.bytes) + 1; /* the generation */
        size_t names = r.length - head;
        assert_int_equal(r.type, XS_DIRECTORY_PART);
        end = names == 1 || (r.bytes[r.length - 1] == '\0' && r.bytes[r.length - 2] == '\0');
        memcpy(got + offset, r.bytes + head, names - end);
        offset += names - end;
        assert_true(offset <= total);
    }
    assert_int_equal(offset, total);
    assert_memory_equal(got, expected, total);
    struct kit_reply r = kit_ask2(w->dom0, XS_DIRECTORY_PART, 0, "/many", "99999");
    assert_int_equal(r.length, strlen(r.bytes) + 2);
    kit_expect_error(kit_ask2(w->dom0, XS_DIRECTORY_PART, 0, "/many", "-1"), "EINVAL");
    kit_expect_error(kit_ask2(w->dom0, XS_DIRECTORY_PART, 0, "/many", "0x1"), "EINVAL");
}

static void test_unknown_operations_answer_enosys(void **state)
{
    struct kit_world *w = *state;
    static const uint32_t unknown[] = {XS_WATCH_EVENT, XS_ERROR, 20, XS_TYPE_COUNT, 23, 26, 0xffff, 0xffffffff};
    for (size_t i = 0; i < ARRAY_SIZE(unknown); i++)
        kit_expect_error(kit_ask1(w->dom0, unknown[i], 0, "/"), "ENOSYS");
}

/* --- permissions ------------------------------------------------------------------------------------------ */

static void test_two_guests_cannot_reach_each_other(void **state)
{
    struct kit_world *w = *state;
    kit_expect_ok(kit_write(w->one, 0, "secret", "s"));
    static const uint32_t ops[] = {XS_READ, XS_DIRECTORY, XS_GET_PERMS, XS_RM, XS_MKDIR};
    for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
        kit_expect_error(kit_ask1(w->two, ops[i], 0, "/local/domain/1/secret"), "EACCES");
        kit_expect_error(kit_ask1(w->two, ops[i], 0, "/local/domain/1/missing"), "EACCES"); /* nor that it is missing */
    }
    kit_expect_error(kit_write(w->two, 0, "/local/domain/1/secret", "x"), "EACCES");
    kit_expect_error(kit_write(w->two, 0, "/local/domain/1/new", "x"), "EACCES");
    kit_expect_error(kit_write(w->two, 0, "/new", "x"), "EACCES");
    kit_expect_error(kit_ask2(w->two, XS_SET_PERMS, 0, "/local/domain/1/secret", "b2"), "EACCES");
    kit_expect_text(kit_ask1(w->one, XS_READ, 0, "secret"), "s");
}

static void test_permission_letters_mean_what_they_say(void **state)
{
    struct kit_world *w = *state;
    static const struct {
        const char *perms, *read, *write;
    } rows[] = {
        {"n0,n1", "EACCES", "EACCES"},
        {"n0,r1", NULL, "EACCES"},
        {"n0,w1", "EACCES", NULL},
        {"n0,b1", NULL, NULL},
        {"b0", NULL, NULL},
        {"r0", NULL, "EACCES"},
        {"b0,n1", "EACCES", "EACCES"},
        {"n0,r1,b1", NULL, "EACCES"}, /* the first entry counts */
        {"n1", NULL, NULL},           /* the owner may, whatever the letter */
    };
    kit_expect_ok(kit_write(w->dom0, 0, "/p", "v"));
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        kit_set_perms(w->dom0, "/p", rows[i].perms);
        struct kit_reply r = kit_ask1(w->one, XS_READ, 0, "/p");
        rows[i].read ? kit_expect_error(r, rows[i].read) : kit_expect_text(r, "v");
        r = kit_write(w->one, 0, "/p", "v");
        rows[i].write ? kit_expect_error(r, rows[i].write) : kit_expect_ok(r);
    }
    kit_expect_list(kit_ask1(w->dom0, XS_GET_PERMS, 0, "/p"), "n1,");
}

static void test_malformed_permissions_are_refused(void **state)
{
    struct kit_world *w = *state;
    static const char *const bad[] = {"",  "n",  "x0",     "n0x",    "n-1",    "n 1",
                                      "0", "N0", "n32752", "n99999", "n65536", "n01"};
    kit_expect_ok(kit_write(w->dom0, 0, "/p", "v"));
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        kit_expect_error(kit_ask2(w->dom0, XS_SET_PERMS, 0, "/p", bad[i]), "EINVAL");
    kit_expect_error(kit_ask1(w->dom0, XS_SET_PERMS, 0, "/p"), "EINVAL");
    kit_expect_error(kit_ask2(w->dom0, XS_SET_PERMS, 0, "/missing", "n0"), "ENOENT");
    kit_expect_list(kit_ask1(w->dom0, XS_GET_PERMS, 0, "/p"), "n0,");
}

static void test_a_new_node_inherits_and_belongs_to_the_guest_that_made_it(void **state)
{
    struct kit_world *w = *state;
    kit_expect_ok(kit_write(w->dom0, 0, "/shared", ""));
    kit_set_perms(w->dom0, "/shared", "n2,b1,r0");
    kit_expect_ok(kit_write(w->one, 0, "/shared/a/b", ""));
    kit_expect_list(kit_ask1(w->dom0, XS_GET_PERMS, 0, "/shared/a"), "n1,b1,r0,");
    kit_expect_ok(kit_write(w->dom0, 0, "/shared/zero", ""));
    kit_expect_list(kit_ask1(w->dom0, XS_GET_PERMS, 0, "/shared/zero"), "n2,b1,r0,");
}

static void test_lesson_352_only_domain_0_changes_an_owner(void **state)
{
    struct kit_world *w = *state;
    kit_expect_ok(kit_write(w->one, 0, "x", ""));
    kit_expect_error(kit_ask2(w->one, XS_SET_PERMS, 0, "x", "n2"), "EPERM");
    kit_expect_error(kit_ask2(w->one, XS_SET_PERMS, 0, "x", "n0"), "EPERM");
    kit_expect_ok(kit_ask2(w->one, XS_SET_PERMS, 0, "x", "b1"));
    kit_expect_error(kit_ask2(w->two, XS_SET_PERMS, 0, "/local/domain/1/x", "n2"), "EACCES"); /* may write, owns not */
    kit_expect_ok(kit_ask2(w->dom0, XS_SET_PERMS, 0, "/local/domain/1/x", "n2"));
    kit_expect_error(kit_ask1(w->one, XS_READ, 0, "x"), "EACCES");
}

static void test_lesson_353_the_root_has_permissions_too(void **state)
{
    struct kit_world *w = *state;
    kit_expect_error(kit_ask1(w->one, XS_READ, 0, "/"), "EACCES");
    kit_expect_error(kit_ask1(w->one, XS_DIRECTORY, 0, "/"), "EACCES");
    kit_expect_error(kit_write(w->one, 0, "/", "x"), "EACCES");
    kit_expect_error(kit_ask2(w->one, XS_SET_PERMS, 0, "/", "n1"), "EACCES");
    kit_expect_error(kit_ask1(w->one, XS_RM, 0, "/"), "EACCES");
}

static void test_privileged_operations_are_domain_0s(void **state)
{
    struct kit_world *w = *state;
    static const uint32_t ops[] = {XS_INTRODUCE, XS_RELEASE, XS_RESUME, XS_SET_TARGET, XS_IS_DOMAIN_INTRODUCED};
    for (size_t i = 0; i < ARRAY_SIZE(ops); i++)
        kit_expect_error(kit_ask1(w->one, ops[i], 0, "1"), "EACCES");
    kit_expect_string(kit_ask1(w->dom0, XS_IS_DOMAIN_INTRODUCED, 0, "1"), "T");
    static const char *const no_numbers[] = {"", "x", "-1", "0x1", " 1", "1 ", "4294967296"};
    for (size_t i = 0; i < ARRAY_SIZE(no_numbers); i++) {
        kit_expect_error(kit_ask1(w->dom0, XS_IS_DOMAIN_INTRODUCED, 0, no_numbers[i]), "EINVAL");
        kit_expect_error(kit_ask1(w->dom0, XS_GET_DOMAIN_PATH, 0, no_numbers[i]), "EINVAL");
        kit_expect_error(kit_ask1(w->dom0, XS_RESUME, 0, no_numbers[i]), "EINVAL");
    }
}

static void test_a_domain_acts_for_its_target_as_well(void **state)
{
    struct kit_world *w = *state;
    kit_expect_ok(kit_write(w->two, 0, "x", "target"));
    kit_expect_error(kit_ask1(w->one, XS_READ, 0, "/local/domain/2/x"), "EACCES");
    kit_expect_ok(kit_ask2(w->dom0, XS_SET_TARGET, 0, "1", "2"));
    kit_expect_text(kit_ask1(w->one, XS_READ, 0, "/local/domain/2/x"), "target");
    kit_expect_error(kit_ask2(w->dom0, XS_SET_TARGET, 0, "1", "0"), "EINVAL"); /* never domain 0 */
    kit_expect_error(kit_ask2(w->dom0, XS_SET_TARGET, 0, "1", "7"), "ENOENT");
    kit_expect_ok(kit_ask1(w->dom0, XS_RELEASE, 0, "2"));
    assert_int_equal(w->one->domain->target, 1);
}

/* --- watches ---------------------------------------------------------------------------------------------- */

static void test_a_watch_tells_first_of_itself_then_of_changes_at_and_below(void **state)
{
    struct kit_world *w = *state;
    kit_expect_ok(kit_ask2(w->dom0, XS_WATCH, 0, "/a/b", "t"));
    kit_expect_event(w->dom0, "/a/b", "t");
    kit_expect_ok(kit_write(w->dom0, 0, "/a/b/c/d", "v"));
    kit_expect_event(w->dom0, "/a/b/c/d", "t");
    kit_expect_ok(kit_write(w->dom0, 0, "/a/b", "same"));
    kit_expect_event(w->dom0, "/a/b", "t");
    kit_expect_ok(
        kit_write(w->dom0, 0, "/a/b", "same")); /* a rewrite of the same value counts: online resize needs it */
    kit_expect_event(w->dom0, "/a/b", "t");
    kit_expect_ok(kit_write(w->dom0, 0, "/a/bc", "no prefix of a name"));
    kit_expect_ok(kit_write(w->dom0, 0, "/a", "above"));
    kit_expect_ok(kit_ask1(w->dom0, XS_MKDIR, 0, "/a/b")); /* there already: no change */
    kit_expect_event(w->dom0, NULL, NULL);
    kit_expect_ok(kit_ask2(w->dom0, XS_SET_PERMS, 0, "/a/b", "n0"));
    kit_expect_event(w->dom0, "/a/b", "t");
    kit_expect_ok(kit_ask2(w->dom0, XS_UNWATCH, 0, "/a/b", "t"));
    kit_expect_ok(kit_write(w->dom0, 0, "/a/b", "x"));
    kit_expect_event(w->dom0, NULL, NULL);
    kit_expect_error(kit_ask2(w->dom0, XS_UNWATCH, 0, "/a/b", "t"), "ENOENT");
}

static void test_removal_of_an_ancestor_tells_of_the_watched_path(void **state)
{
    struct kit_world *w = *state;
    kit_expect_ok(kit_write(w->dom0, 0, "/a/b/c/d", "v"));
    kit_expect_ok(kit_ask2(w->dom0, XS_WATCH, 0, "/a/b/c", "t"));
    kit_drain(w->dom0);
    kit_expect_ok(kit_ask1(w->dom0, XS_RM, 0, "/a"));
    kit_expect_event(w->dom0, "/a/b/c", "t"); /* and not of /a/b/c/d: it went along */
    kit_expect_event(w->dom0, NULL, NULL);
}

static void test_relative_watches_get_relative_events(void **state)
{
    struct kit_world *w = *state;
    kit_expect_ok(kit_ask2(w->one, XS_WATCH, 0, "device", "r"));
    kit_expect_event(w->one, "device", "r");
    kit_expect_ok(kit_ask2(w->one, XS_WATCH, 0, "/local/domain/1/device", "a"));
    kit_expect_event(w->one, "/local/domain/1/device", "a");
    kit_expect_ok(kit_write(w->one, 0, "device/vbd/0", "v"));
    kit_expect_event(w->one, "device/vbd/0", "r");
    kit_expect_event(w->one, "/local/domain/1/device/vbd/0", "a");
    kit_expect_error(kit_ask2(w->one, XS_WATCH, 0, "device", "r"), "EEXIST");
    kit_expect_error(kit_ask2(w->one, XS_WATCH, 0, "/local/domain/1/device", "a"), "EEXIST");
}

static void test_lesson_115_events_tell_nothing_of_what_may_not_be_read(void **state)
{
    struct kit_world *w = *state;
    kit_expect_ok(kit_ask2(w->one, XS_WATCH, 0, "/", "spy"));
    kit_expect_event(w->one, "/", "spy"); /* its own words back */
    kit_expect_ok(kit_write(w->two, 0, "secret", "s"));
    kit_expect_ok(kit_ask1(w->two, XS_RM, 0, "secret"));
    kit_expect_ok(kit_write(w->dom0, 0, "/vm/x", ""));
    kit_expect_event(w->one, NULL, NULL);
    kit_expect_ok(kit_write(w->two, 0, "open", ""));
    kit_set_perms(w->two, "open", "n2,r1");
    kit_expect_event(w->one, "/local/domain/2/open", "spy");
    kit_set_perms(w->two, "open", "n2"); /* it could read it before: it is told that it no longer can */
    kit_expect_event(w->one, "/local/domain/2/open", "spy");
    kit_expect_ok(kit_write(w->two, 0, "open", "again"));
    kit_expect_event(w->one, NULL, NULL);
}

static void test_special_watches_are_domain_0s_unless_it_shares(void **state)
{
    struct kit_world *w = *state;
    kit_expect_ok(kit_ask2(w->dom0, XS_WATCH, 0, "@introduceDomain", "i"));
    kit_expect_ok(kit_ask2(w->dom0, XS_WATCH, 0, "@releaseDomain", "r"));
    kit_expect_ok(kit_ask2(w->one, XS_WATCH, 0, "@releaseDomain", "r"));
    kit_expect_event(w->dom0, "@introduceDomain", "i");
    kit_expect_event(w->dom0, "@releaseDomain", "r");
    kit_expect_event(w->one, "@releaseDomain", "r");
    kit_introduce(w, "7");
    kit_expect_event(w->dom0, "@introduceDomain", "i");
    kit_introduce(w, "7"); /* again: known already */
    kit_expect_event(w->dom0, NULL, NULL);
    kit_expect_ok(kit_ask1(w->dom0, XS_RELEASE, 0, "7"));
    kit_expect_event(w->dom0, "@releaseDomain", "r");
    kit_expect_event(w->one, NULL, NULL);
    kit_set_perms(w->dom0, "@releaseDomain", "n0,r1");
    kit_introduce(w, "7");
    kit_expect_ok(kit_ask1(w->dom0, XS_RELEASE, 0, "7"));
    kit_expect_event(w->one, "@releaseDomain", "r");
    kit_expect_error(kit_ask2(w->one, XS_SET_PERMS, 0, "@releaseDomain", "n1"), "EINVAL");
    kit_expect_error(kit_ask2(w->dom0, XS_SET_PERMS, 0, "@unheardOf", "n0"), "EINVAL");
    kit_expect_error(kit_ask1(w->dom0, XS_GET_PERMS, 0, "@releaseDomain"), "EINVAL");
}

static void test_a_watch_of_an_unheard_of_special_name_hears_nothing(void **state)
{
    struct kit_world *w = *state;
    static const char *const names[] = {"@", "@x", "@x/y/", "@introduceDomain/7", "@ \x01"};
    char longest[XENSTORE_REL_PATH_MAX + 2] = "@";
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        kit_expect_ok(kit_ask2(w->one, XS_WATCH, 0, names[i], "t"));
        kit_expect_event(w->one, names[i], "t");
    }
    memset(longest + 1, 'x', sizeof(longest) - 2);
    kit_expect_error(kit_ask2(w->one, XS_WATCH, 0, longest, "t"), "EINVAL");
    longest[sizeof(longest) - 2] = '\0';
    kit_expect_ok(kit_ask2(w->one, XS_WATCH, 0, longest, "t"));
    kit_expect_ok(kit_ask2(w->one, XS_UNWATCH, 0, longest, "t"));
    kit_introduce(w, "7");
    kit_expect_ok(kit_ask1(w->dom0, XS_RELEASE, 0, "7"));
    kit_expect_event(w->one, NULL, NULL);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        kit_expect_ok(kit_ask2(w->one, XS_UNWATCH, 0, names[i], "t"));
}

static void test_lesson_349_unread_events_merge(void **state)
{
    struct kit_world *w = *state;
    kit_expect_ok(kit_ask2(w->dom0, XS_WATCH, 0, "/local/domain/1", "t"));
    kit_drain(w->dom0);
    for (unsigned i = 0; i < 10000; i++)
        kit_expect_ok(kit_write(w->one, 0, i % 2 ? "x" : "y", "v"));
    assert_int_equal(w->dom0->event_count, 2);
    kit_expect_event(w->dom0, "/local/domain/1/y", "t");
    kit_expect_ok(kit_write(w->one, 0, "y", "v")); /* one was delivered: it may wait again */
    kit_expect_event(w->dom0, "/local/domain/1/x", "t");
    kit_expect_event(w->dom0, "/local/domain/1/y", "t");
    kit_expect_event(w->dom0, NULL, NULL);
}

static void test_lesson_326_waiting_events_are_bounded(void **state)
{
    struct kit_world *w = *state;
    kit_expect_ok(kit_write(w->dom0, 0, "/open", ""));
    kit_set_perms(w->dom0, "/open", "r0");
    kit_expect_ok(kit_ask2(w->one, XS_WATCH, 0, "/open", "t"));
    for (unsigned i = 0; i < 3 * STORE_EVENTS_MAX_GUEST; i++) {
        char path[32];
        snprintf(path, sizeof(path), "/open/%u", i);
        kit_expect_ok(kit_write(w->dom0, 0, path, ""));
    }
    assert_int_equal(w->one->event_count, STORE_EVENTS_MAX_GUEST);
    assert_true(w->one->overflowed); /* the edge ends such a connection */
    assert_false(w->two->overflowed);
}

static void test_lesson_324_an_event_too_long_for_a_message_is_dropped(void **state)
{
    struct kit_world *w = *state;
    static char payload[XENSTORE_PAYLOAD_MAX], path[XENSTORE_ABS_PATH_MAX + 1];
    memcpy(payload, "/a", 3);
    memset(payload + 3, 't', sizeof(payload) - 4);
    kit_expect_ok(kit_ask(w->dom0, XS_WATCH, 0, payload, sizeof(payload)));
    kit_expect_event(w->dom0, "/a", payload + 3);
    memcpy(path, "/a/", 3);
    memset(path + 3, 'p', store_quota_default.path_max_bytes - 3);
    kit_expect_ok(kit_write(w->dom0, 0, path, ""));
    kit_expect_event(w->dom0, NULL, NULL);
    assert_false(w->dom0->overflowed);
    kit_expect_ok(kit_write(w->dom0, 0, "/a", ""));
    kit_expect_event(w->dom0, "/a", payload + 3);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, kit_world_free)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_every_character_is_legal_or_refused),
        T(test_malformed_paths_are_refused_by_every_operation),
        T(test_payloads_without_their_nul_are_refused),
        T(test_relative_paths_are_below_the_callers_home),
        T(test_lesson_323_path_limits_hold_before_and_after_expansion),
        T(test_lesson_481_a_refusal_always_has_a_name),
        T(test_values_hold_any_bytes),
        T(test_a_write_makes_what_is_missing_above),
        T(test_removal_of_the_missing_is_fine_where_it_could_have_been),
        T(test_a_directory_too_big_for_a_message_is_read_in_parts),
        T(test_unknown_operations_answer_enosys),
        T(test_two_guests_cannot_reach_each_other),
        T(test_permission_letters_mean_what_they_say),
        T(test_malformed_permissions_are_refused),
        T(test_a_new_node_inherits_and_belongs_to_the_guest_that_made_it),
        T(test_lesson_352_only_domain_0_changes_an_owner),
        T(test_lesson_353_the_root_has_permissions_too),
        T(test_privileged_operations_are_domain_0s),
        T(test_a_domain_acts_for_its_target_as_well),
        T(test_a_watch_tells_first_of_itself_then_of_changes_at_and_below),
        T(test_removal_of_an_ancestor_tells_of_the_watched_path),
        T(test_relative_watches_get_relative_events),
        T(test_lesson_115_events_tell_nothing_of_what_may_not_be_read),
        T(test_special_watches_are_domain_0s_unless_it_shares),
        T(test_a_watch_of_an_unheard_of_special_name_hears_nothing),
        T(test_lesson_349_unread_events_merge),
        T(test_lesson_326_waiting_events_are_bounded),
        T(test_lesson_324_an_event_too_long_for_a_message_is_dropped),
    };
    return cmocka_run_group_tests_name("store_ops", tests, NULL, NULL);
}
