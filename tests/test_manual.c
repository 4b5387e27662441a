/* SPDX-License-Identifier: MIT */
/* What the programs say of themselves is in their manual pages and in the help of the Makefile: a verb, an option or a
 * target that somebody added and did not tell of fails here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "tests/harness.h"

/* A pipe from the words that there are, one a line, to those that the second half does not know. Nothing is to come
 * out; and the words are to be some. `$1` of `known` is the word. */
static void assert_all_known(const char *words, const char *known)
{
    static const struct world nowhere = {.run = "/nonexistent"};
    static char said[8192];
    const char *source = getenv("DOMZERO_SOURCE"), *build = getenv("DOMZERO_BUILD");
    if (!source || !build)
        skip(); /* run by hand: the runner says where the tree is */
    int status = world_shell(&nowhere, said, sizeof(said),
                             "cd %s; export PATH=%s:$PATH; known() { %s; }; words=$(%s); "
                             "[ \"$(echo \"$words\" | wc -l)\" -gt 2 ] || echo \"no words: $words\"; "
                             "for w in $words; do known \"$w\" || echo \"not told of: $w\"; done",
                             source, build, known, words);
    assert_int_equal(status, 0);
    assert_string_equal(said, "");
}

#define VERBS        "domzero help | sed -n 's/^  \\([a-z-]*\\) .*/\\1/p'"
#define DISK_OPTIONS "sed -n 's/^    {\"\\([a-z-]*\\)\", option_.*/\\1/p' tools/vmcfg_disk.c"

static void test_every_verb_has_an_entry_in_the_manual_page(void **state)
{
    (void)state;
    assert_all_known(VERBS, "tr -d '\\\\' < docs/domzero.1 | grep -E > /dev/null -- \"^\\.[BIR]+ \\\"?$1( |$)\"");
}

static void test_every_option_of_a_disk_is_in_the_manual_page_and_in_the_help(void **state)
{
    (void)state;
    assert_all_known(DISK_OPTIONS, "tr -d '\\\\' < docs/domzero.1 | grep -E > /dev/null -- \"^\\.[BIR]+ \\\"?$1=\"");
    assert_all_known(DISK_OPTIONS, "domzero help block-attach | grep -E -- \"[ ,]$1(,|$)\" > /dev/null");
}

static void test_every_option_of_the_daemon_is_in_the_manual_page(void **state)
{
    (void)state;
    assert_all_known("domzerod --help | grep -oE -- '--[a-z-]+' | sort -u",
                     "tr -d '\\\\' < docs/domzerod.8 | grep -E > /dev/null -- \"^\\.[BIR]+ $1( |$)\"");
}

static void test_every_target_that_is_made_by_name_is_in_the_help(void **state)
{
    (void)state;
    assert_all_known("sed -n 's/^\\.PHONY: all deps//p' Makefile | tr ' ' '\\n' | "
                     "grep -vxE 'programs|tests|plugin-files|help|'",
                     "grep -q \"echo 'make $1 \" Makefile");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_verb_has_an_entry_in_the_manual_page),
        cmocka_unit_test(test_every_option_of_a_disk_is_in_the_manual_page_and_in_the_help),
        cmocka_unit_test(test_every_option_of_the_daemon_is_in_the_manual_page),
        cmocka_unit_test(test_every_target_that_is_made_by_name_is_in_the_help),
    };
    return cmocka_run_group_tests_name("manual", tests, NULL, NULL);
}
