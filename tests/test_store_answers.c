/* SPDX-License-Identifier: MIT */
/* Where Xen's two servers differ, each is followed by the server that was started for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <stdio.h>
#include <sys/socket.h>

#include "base/unixsock.h"
#include "store/answers.h"
#include "tests/harness.h"
#include "tests/storekit.h"

static int setup_c(void **state)
{
    return kit_world_new_with(state, &(struct store_options){.answers = STORE_ANSWERS_C});
}

static int setup_ocaml(void **state)
{
    return kit_world_new_with(state, &(struct store_options){.answers = STORE_ANSWERS_OCAML});
}

/* OK where the situation's answer is 0. */
static void expect_answer(const struct kit_world *w, enum store_answer situation, struct kit_reply r)
{
    int error = store_answer(&w->g, situation);
    if (error)
        kit_expect_error(r, store_wire_error_name(error));
    else
        kit_expect_ok(r);
}

static void test_each_row_is_what_its_server_answers(void **state)
{
    struct kit_world *w = *state;
    static const uint32_t on_paths[] = {XS_READ, XS_DIRECTORY, XS_GET_PERMS, XS_MKDIR, XS_RM};
    static const uint32_t looks[] = {XS_READ, XS_DIRECTORY, XS_GET_PERMS};
    for (size_t i = 0; i < ARRAY_SIZE(looks); i++)
        expect_answer(w, STORE_ANSWER_HIDDEN, kit_ask1(w->one, looks[i], 0, "/local/domain/2/none"));
    expect_answer(w, STORE_ANSWER_HIDDEN, kit_ask2(w->one, XS_DIRECTORY_PART, 0, "/local/domain/2/none", "0"));
    expect_answer(w, STORE_ANSWER_HIDDEN, kit_ask2(w->one, XS_SET_PERMS, 0, "/local/domain/2/none", "n1"));
    kit_expect_error(kit_ask1(w->one, XS_MKDIR, 0, "/local/domain/2/none"), "EACCES"); /* of both: it would be made */
    kit_expect_error(kit_write(w->one, 0, "/local/domain/2/none", ""), "EACCES");
    for (size_t i = 0; i < ARRAY_SIZE(on_paths); i++) {
        expect_answer(w, STORE_ANSWER_NO_TRANSACTION, kit_ask1(w->dom0, on_paths[i], 99, "/tool"));
        expect_answer(w, STORE_ANSWER_NO_NUL, kit_ask(w->dom0, on_paths[i], 0, "/tool", 5));
        expect_answer(w, STORE_ANSWER_NO_NUL, kit_ask(w->dom0, on_paths[i], 0, "/tool\0x\0", 8));
    }
    expect_answer(w, STORE_ANSWER_NO_TRANSACTION, kit_ask1(w->dom0, XS_TRANSACTION_END, 99, "T"));
    expect_answer(w, STORE_ANSWER_SPECIAL_UNKNOWN, kit_ask2(w->dom0, XS_SET_PERMS, 0, "@x", "n0"));
}

static void test_quotas_have_the_names_of_each(void **state)
{
    struct kit_world *w = *state;
    w->one->domain->quota = (struct store_quota){.path_max_bytes = 2048,
                                                 .node_size_bytes = 2048,
                                                 .memory_bytes = STORE_QUOTA_NONE,
                                                 .memory_soft_bytes = STORE_QUOTA_NONE};
    expect_answer(w, STORE_ANSWER_WATCH_QUOTA, kit_ask2(w->one, XS_WATCH, 0, "x", "t"));
    expect_answer(w, STORE_ANSWER_NODE_QUOTA, kit_write(w->one, 0, "x", ""));
    expect_answer(w, STORE_ANSWER_NODE_QUOTA, kit_ask1(w->one, XS_TRANSACTION_START, 0, ""));
}

static void test_the_root_is_removed_as_each_does_it(void **state)
{
    struct kit_world *w = *state;
    kit_expect_ok(kit_write(w->dom0, 0, "/a/b", ""));
    uint32_t stale = kit_tx(w->dom0), tx = kit_tx(w->dom0);
    kit_expect_ok(kit_write(w->dom0, stale, "/x", ""));
    expect_answer(w, STORE_ANSWER_REMOVE_ROOT, kit_ask1(w->dom0, XS_RM, tx, "/"));
    kit_expect_ok(kit_ask1(w->dom0, XS_TRANSACTION_END, tx, "T"));
    expect_answer(w, STORE_ANSWER_REMOVE_ROOT, kit_ask1(w->dom0, XS_RM, stale, "/")); /* ends, and comes to nothing */
    kit_expect_list(kit_ask1(w->dom0, XS_DIRECTORY, 0, "/"),
                    w->g.answers == STORE_ANSWERS_OCAML ? "" : "tool,local,a,");
    kit_expect_error(kit_ask1(w->one, XS_RM, 0, "/"), "EACCES");
    assert_true(store_tree_get(&w->g.tree, "@releaseDomain", 14) != NULL);
}

static void test_special_nodes_show_their_permissions_to_whom_each_shows_them(void **state)
{
    struct kit_world *w = *state;
    struct kit_reply r = kit_ask1(w->dom0, XS_GET_PERMS, 0, "@releaseDomain");
    if (w->g.answers == STORE_ANSWERS_C)
        kit_expect_error(r, "EINVAL");
    else
        kit_expect_list(r, "n0,");
    kit_expect_error(kit_ask2(w->one, XS_SET_PERMS, 0, "@releaseDomain", "n1"),
                     w->g.answers == STORE_ANSWERS_C ? "EINVAL" : "EACCES");
}

static void test_longest_path_is_each_ones(void **state)
{
    struct kit_world *w = *state;
    char path[2050];
    size_t limit = w->g.answers == STORE_ANSWERS_C ? 2048 : STORE_ANSWERS_OCAML_PATH_MAX;
    memset(path, 'x', sizeof(path));
    path[0] = '/';
    path[limit] = '\0';
    kit_expect_error(kit_ask1(w->dom0, XS_READ, 0, path), "ENOENT");
    path[limit] = 'x';
    path[limit + 1] = '\0';
    kit_expect_error(kit_ask1(w->dom0, XS_READ, 0, path), "EINVAL");
}

static void test_removal_of_what_may_not_be_looked_at_is_fine_for_ocaml(void **state)
{
    struct kit_world *w = *state;
    bool c = w->g.answers == STORE_ANSWERS_C;
    struct kit_reply r = kit_ask1(w->one, XS_RM, 0, "/local/domain/2/none");
    c ? kit_expect_error(r, "EACCES") : kit_expect_ok(r);
    kit_expect_error(kit_ask1(w->one, XS_RM, 0, "/local/domain/2/none/of/it"), c ? "EACCES" : "ENOENT");
}

/* What a real daemon was started with is what its store does. */
static void test_the_daemons_options_reach_the_store(void **state)
{
    (void)state;
    static const char *const options[] = {"--store-answers=ocaml", "--store-quota=path-max=20,nodes=7"};
    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        struct world w;
        char path[128];
        world_start(&w, options[i]);
        snprintf(path, sizeof(path), "%s/xenstored/socket", w.run);
        int fd = unixsock_connect(path, SOCK_STREAM, NULL);
        kit_expect_error(kit_exchange(fd, XS_READ, 99, "/tool", 6), i == 0 ? "EIO" : "ENOENT");
        kit_expect_error(kit_exchange(fd, XS_READ, 0, "/a-path-of-thirty-characters", 29),
                         i == 0 ? "ENOENT" : "EINVAL");
        close(fd);
        world_stop(&w);
    }
}

#define T(name)                                                     \
    cmocka_unit_test_setup_teardown(name, setup_c, kit_world_free), \
        cmocka_unit_test_setup_teardown(name, setup_ocaml, kit_world_free)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_daemons_options_reach_the_store),
        T(test_each_row_is_what_its_server_answers),
        T(test_quotas_have_the_names_of_each),
        T(test_the_root_is_removed_as_each_does_it),
        T(test_special_nodes_show_their_permissions_to_whom_each_shows_them),
        T(test_longest_path_is_each_ones),
        T(test_removal_of_what_may_not_be_looked_at_is_fine_for_ocaml),
    };
    return cmocka_run_group_tests_name("store_answers", tests, NULL, NULL);
}
