/* SPDX-License-Identifier: MIT */
/* Programs of others as the store's clients: Xen's own suite (test-xenstore), its xenstore-control, and pyxs. The first
 * two are fetched as scripts/peer-store.sh says, pyxs is Debian's python3-pyxs; skipped where they are not to be had.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <stdio.h>
#include <sys/wait.h>

#include "tests/storekit.h"

static char programs[4096]; /* the directory of Xen's; empty: none */

/* A shell command's exit status; what it prints, errors too, is in `said`. */
static int PRINTF(2, 3) run(char said[4096], const char *fmt, ...)
{
    char command[8192];
    va_list args;
    va_start(args, fmt);
    vsnprintf(command, sizeof(command), fmt, args);
    va_end(args);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    size_t n = fread(said, 1, 4095, f);
    said[n] = '\0';
    while (n && said[n - 1] == '\n')
        said[--n] = '\0';
    int status = pclose(f);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static int find_programs(void **state)
{
    (void)state;
    char said[4096];
    const char *source = getenv("DOMZERO_SOURCE");
    if (run(said, "%s/scripts/peer-store.sh fetch 2>&1", source ? source : ".") == 0)
        snprintf(programs, sizeof(programs), "%s", said);
    else
        print_message("%s\n", said);
    return 0;
}

static void need_programs(void)
{
    if (programs[0])
        return;
    print_message("skipped: Xen's programs cannot be fetched\n");
    skip();
}

/* One command of xenstore-control: its exit status and what it says. */
static void control(const char *command, int status, const char *said_part)
{
    char said[4096];
    int got = run(said, "%s/xenstore-control %s 2>&1", programs, command);
    if (got != status || !strstr(said, said_part))
        fail_msg("xenstore-control %s ended with %d and said: %s", command, got, said);
}

static void test_xenstore_control_drives_the_store(void **state)
{
    struct kit_server *k = *state;
    need_programs();
    control("check", 0, "OK");
    control("help", 0, "quota-soft\t");
    control("log on", 0, "OK");
    control("log off", 0, "OK");
    control("print hello", 0, "OK");
    control("memreport", 0, "nodes: ");
    control("quota", 0, "nodes            :     1000");
    control("quota set nodes 5", 0, "OK");
    control("quota", 0, "nodes            :        5");
    control("quota set outstanding 30", 0, "OK");
    control("quota-soft set memory 1000000", 0, "OK");
    control("quota-soft", 0, "memory           :  1000000");
    control("quota 0", 0, "Domain 0:\nnodes ");
    control("quota 7", 3, "");
    control("quota set unheard-of 5", 3, "");
    control("nonsense", 3, "Command not supported");
    control("live-update /bin/true", 3, "");
    struct store_client *dom0 = kit_client(k, 0);
    kit_guest_make(dom0, 3);
    struct store_client *guest = kit_client(k, 3);
    for (unsigned i = 1; i < 6; i++)
        assert_int_equal(store_write(guest, STORE_NO_TX, "", "n%u", i), i < 5 ? 0 : -ENOSPC);
    control("quota set nodes 6 3", 0, "OK");
    assert_int_equal(store_write(guest, STORE_NO_TX, "", "n5"), 0);
    control("quota 3", 0, "nodes           :        6");
    store_client_close(guest);
    store_client_close(dom0);
}

static void test_xens_own_suite_passes(void **state)
{
    (void)state;
    char said[4096];
    const char *random_s = getenv("STORE_RANDOM_S"); /* how long, in seconds */
    need_programs();
    assert_int_equal(run(said, "%s/test-xenstore -l 2>&1", programs), 0);
    const char *const modes[] = {"", "-i 100"};
    for (size_t i = 0; i < ARRAY_SIZE(modes); i++)
        if (run(said, "%s/test-xenstore %s 2>&1", programs, modes[i]) != 0 || !strstr(said, "ta err"))
            fail_msg("test-xenstore %s: %s", modes[i], said);
    if (run(said, "%s/test-xenstore -r %s 2>&1", programs, random_s ? random_s : "1") != 0)
        fail_msg("test-xenstore -r: %s", said);
}

static void test_pyxs_is_served(void **state)
{
    struct kit_server *k = *state;
    char said[4096];
    const char *source = getenv("DOMZERO_SOURCE");
    if (run(said, "/usr/bin/python3 -c 'import pyxs' 2>&1") != 0) {
        print_message("skipped: there is no pyxs; apt-get install python3-pyxs\n");
        skip();
    }
    if (run(said, "timeout 60 /usr/bin/python3 %s/tests/peers/store_pyxs.py %s %s/dom/3/xenstored.sock 2>&1",
            source ? source : ".", k->socket, k->dir) != 0)
        fail_msg("pyxs: %s", said);
}

#define T(name) cmocka_unit_test_setup_teardown(name, kit_server_new, kit_server_free)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_xenstore_control_drives_the_store),
        T(test_xens_own_suite_passes),
        T(test_pyxs_is_served),
    };
    return cmocka_run_group_tests_name("store_peers", tests, find_programs, NULL);
}
