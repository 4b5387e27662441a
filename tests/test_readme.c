/* SPDX-License-Identifier: MIT */
/* The README's shell block works as it is printed: it is taken out of the README and run, with `make` left out (this is
 * a built tree) and build/ replaced by the build under test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/util.h"
#include "tests/harness.h"

/* The first ```sh block, one command a line, as a script in *out. */
static void readme_script(const char *readme, char *out, size_t size)
{
    FILE *f = fopen(readme, "re");
    assert_non_null(f);
    char line[1024];
    bool inside = false, done = false;
    size_t n = (size_t)snprintf(out, size, "set -ex\ntrap 'rm -rf $DOMZERO_RUN_DIR' EXIT\n");
    while (!done && fgets(line, sizeof(line), f)) {
        if (strncmp(line, "```", 3) == 0) {
            done = inside;
            inside = strncmp(line, "```sh", 5) == 0;
            continue;
        }
        if (!inside || strncmp(line, "make", 4) == 0)
            continue;
        for (const char *p = line; *p;) {
            bool build = strncmp(p, "build/", 6) == 0;
            n +=
                (size_t)snprintf(out + n, size - n, "%s%.*s", build ? getenv("DOMZERO_BUILD") : "", 1, build ? "/" : p);
            p += build ? 6 : 1;
        }
    }
    fclose(f);
    assert_true(done);
}

static void test_the_readmes_paste_works_as_printed(void **state)
{
    (void)state;
    const char *source = getenv("DOMZERO_SOURCE");
    if (!source || !getenv("DOMZERO_BUILD"))
        skip(); /* run by hand: the runner says where the tree is */
    char path[512], script[8192], out[16384];
    snprintf(path, sizeof(path), "%s/README.md", source);
    readme_script(path, script, sizeof(script));
    assert_non_null(strstr(script, "domzero create"));
    snprintf(path, sizeof(path), "/tmp/dzreadmeXXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, script, strlen(script)) == (ssize_t)strlen(script));
    close(fd);
    struct world w = {.run = "/nonexistent"};
    int status =
        world_shell(&w, out, sizeof(out), "cd %s && unset XENSTORED_PATH DOMZERO_RUN_DIR && bash %s", source, path);
    unlink(path);
    if (status)
        fail_msg("exit %d:\n%s", status, out);
    assert_non_null(strstr(out, "51712"));
    assert_non_null(strstr(out, "backend-id = \"0\""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_the_readmes_paste_works_as_printed)};
    return cmocka_run_group_tests_name("readme", tests, NULL, NULL);
}
