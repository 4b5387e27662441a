/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tests/bench_run.h"
#include "tests/harness.h"

#define KNOBS    "QUICK ONLY CASES LOADS STRATEGIES ATTACKS PEERS MODE MODES SEED ATTEMPTS STORAGE REPORT_SECONDS"
#define SAID_MAX 800 /* a message has no room for more */

void bench_run(const char *command_fmt, ...)
{
    static char command[4096], said[65536];
    const char *source = getenv("DOMZERO_SOURCE"), *build = getenv("DOMZERO_BUILD");
    if (!source || !build)
        skip();
    va_list args;
    va_start(args, command_fmt);
    int length = vsnprintf(command, sizeof(command), command_fmt, args);
    va_end(args);
    assert_in_range(length, 1, sizeof(command) - 1);
    struct world w = {.run = "/nonexistent", .dir = "/tmp/dzXXXXXX"};
    assert_non_null(mkdtemp(w.dir));
    int status = world_shell(&w, said, sizeof(said), "unset " KNOBS "; cd %s && export BUILD=%s RESULTS=%s && %s",
                             source, build, w.dir, command);
    char gone[256];
    world_shell(&w, gone, sizeof(gone), "rm -rf %s", w.dir);
    size_t bytes = strlen(said);
    if (status)
        fail_msg("status %d: %s", status, said + (bytes > SAID_MAX ? bytes - SAID_MAX : 0));
}
