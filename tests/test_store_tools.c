/* SPDX-License-Identifier: MIT */
/* Xen's own command line tools, as Debian packages them (xenstore-utils), against the server: they know nothing of it
 * but the path of its socket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

#include "tests/storekit.h"

static void need_tools(void)
{
    static const char *const tools[] = {"read", "write", "ls", "list", "exists", "rm", "chmod", "watch"};
    for (size_t i = 0; i < ARRAY_SIZE(tools); i++) {
        char command[64];
        snprintf(command, sizeof(command), "command -v xenstore-%s > /dev/null", tools[i]);
        if (system(command) != 0) {
            print_message("skipped: there is no xenstore-%s; apt-get install xenstore-utils\n", tools[i]);
            skip();
        }
    }
}

/* Runs a shell command; its exit status, and what it printed must be `expected` where that is not NULL. */
static int run(const char *command, const char *expected)
{
    char printed[4096];
    FILE *f = popen(command, "r");
    assert_non_null(f);
    size_t n = fread(printed, 1, sizeof(printed) - 1, f);
    printed[n] = '\0';
    int status = pclose(f);
    if (expected)
        assert_string_equal(printed, expected);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_write_read_list_exists_and_rm(void **state)
{
    (void)state;
    need_tools();
    assert_int_equal(run("xenstore-write /a/b 'two words' /a/c 3", ""), 0);
    assert_int_equal(run("xenstore-read /a/b /a/c", "two words\n3\n"), 0);
    assert_int_equal(run("xenstore-read -p /a/c", "/a/c: 3\n"), 0);
    assert_int_equal(run("xenstore-list /a", "b\nc\n"), 0);
    assert_int_equal(run("xenstore-exists /a/b", ""), 0);
    assert_int_equal(run("xenstore-exists /a/x", ""), 1);
    assert_int_equal(run("xenstore-rm /a/b", ""), 0);
    assert_int_equal(run("xenstore-exists /a/b", ""), 1);
    assert_int_equal(run("xenstore-read /a/b 2> /dev/null", ""), 1);
    assert_int_equal(run("xenstore-rm -t /a/c", ""), 0); /* and the parents that it leaves empty */
    assert_int_equal(run("xenstore-exists /a", ""), 1);
}

static void test_ls_shows_the_tree_and_chmod_its_permissions(void **state)
{
    (void)state;
    need_tools();
    assert_int_equal(run("xenstore-ls", "tool = \"\"\n xenstored = \"\"\n"), 0);
    assert_int_equal(run("xenstore-write /a/b v && xenstore-chmod -r /a n0 r3 b4", ""), 0);
    assert_int_equal(run("xenstore-ls -f -p /a | tr -s '. ' ' '", "/a/b = \"v\" (n0,r3,b4)\n"), 0);
    assert_int_equal(
        run("xenstore-chmod -u /a w7 && xenstore-ls -f -p / | grep '^/a =' | tr -s '. ' ' '", "/a = \"\" (w7)\n"), 0);
    assert_int_equal(run("xenstore-chmod /a z1 2> /dev/null", ""), 1);
}

static void test_ls_of_a_directory_bigger_than_a_message(void **state)
{
    (void)state;
    need_tools();
    assert_int_equal(run("for i in $(seq 700); do echo /many/child-$i; echo v; done | xargs xenstore-write", ""), 0);
    assert_int_equal(run("xenstore-list /many | wc -l", "700\n"), 0);
    assert_int_equal(run("xenstore-ls /many | tail -1", "child-700 = \"v\"\n"), 0);
}

static void test_watch_prints_each_change(void **state)
{
    (void)state;
    need_tools();
    /* Reads the first event before it makes the change that the second one tells of. */
    assert_int_equal(
        run("xenstore-watch -n 2 /w | { read first; echo \"$first\"; xenstore-write /w/x 1; cat; }", "/w\n/w/x\n"), 0);
    assert_int_equal(run("xenstore-watch -n 2 @introduceDomain | { read first; echo \"$first\"; xenstore-write /y 1; "
                         "python3 -c 'import socket, struct, os; s = socket.socket(socket.AF_UNIX); "
                         "s.connect(os.environ[\"XENSTORED_PATH\"]); p = b\"6\\0001\\0001\\0\"; "
                         "s.sendall(struct.pack(\"<4I\", 8, 1, 0, len(p)) + p); s.recv(19)'; cat; }",
                         "@introduceDomain\n@introduceDomain\n"),
                     0);
}

static void test_the_tools_act_as_the_guest_whose_socket_they_use(void **state)
{
    struct kit_server *k = *state;
    need_tools();
    char path[128];
    snprintf(path, sizeof(path), "%s/dom/3/xenstored.sock", k->dir);
    int dom0 = kit_connect(k, 0);
    kit_expect_ok(kit_exchange(dom0, XS_INTRODUCE, 0, "3\0001\0001", 6));
    assert_int_equal(run("xenstore-write /local/domain/3 '' && xenstore-chmod /local/domain/3 n3", ""), 0);
    assert_int_equal(run("xenstore-write /secret s", ""), 0);
    setenv("XENSTORED_PATH", path, 1);
    assert_int_equal(run("xenstore-write data v && xenstore-read data /local/domain/3/data", "v\nv\n"), 0);
    assert_int_equal(run("xenstore-read /secret 2> /dev/null", ""), 1);
    assert_int_equal(run("xenstore-write /x v 2> /dev/null", ""), 1);
    assert_int_equal(run("xenstore-ls / 2> /dev/null", ""), 1);
    close(dom0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, kit_server_new, kit_server_free)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_write_read_list_exists_and_rm),
        T(test_ls_shows_the_tree_and_chmod_its_permissions),
        T(test_ls_of_a_directory_bigger_than_a_message),
        T(test_watch_prints_each_change),
        T(test_the_tools_act_as_the_guest_whose_socket_they_use),
    };
    return cmocka_run_group_tests_name("store_tools", tests, NULL, NULL);
}
