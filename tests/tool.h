/* SPDX-License-Identifier: MIT */
/* tests/tool.h: what stands around a test program: "asan", "tsan", "valgrind", or nothing. scripts/run-tests.sh says
 * so.
 *
 * A test asks in order to do less of what a tool makes slow, and in order to leave out what a tool cannot follow;
 * never to be content with less.
 */
#ifndef TESTS_TOOL_H
#define TESTS_TOOL_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* NULL: is there any? */
static inline bool under_tool(const char *name)
{
    const char *mode = getenv("DOMZERO_TEST_MODE");
    return mode && *mode && (!name || strcmp(mode, name) == 0);
}

#endif
