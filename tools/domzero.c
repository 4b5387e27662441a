/* SPDX-License-Identifier: MIT */
/* tools/domzero.c: the command line. Exit status: 0; 1 refused or failed, with one line on stderr that says why and
 * what to do; 2 usage. */
#include <stdio.h>
#include <string.h>

#include "tools/verb.h"

enum { EXIT_OK, EXIT_FAILED, EXIT_USAGE };

static const struct verb *const verbs[] = {
#define VERB(name) &verb_##name,
#include "tools/verb_list.h"
#undef VERB
};

static const struct verb *verb_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
        if (!strcmp(verbs[i]->name, name))
            return verbs[i];
    return NULL;
}

static void print_usage(FILE *f)
{
    fprintf(f, "usage: domzero [--run-dir DIR] VERB ...\n\n");
    for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
        fprintf(f, "  %-13s %s\n", verbs[i]->name, verbs[i]->summary);
    fprintf(f, "  %-13s %s\n\n", "help [VERB]", "show this, or a verb's arguments");
    fprintf(f,
            "DOMAIN is a name or a domid. The run directory is DIR, else $DOMZERO_RUN_DIR, else /run/domzero for root\n"
            "and $XDG_RUNTIME_DIR/domzero for others. See domzero(1).\n");
}

static int help(const char *name)
{
    if (!name) {
        print_usage(stdout);
        return EXIT_OK;
    }
    const struct verb *v = verb_find(name);
    if (!v) {
        fprintf(stderr, "domzero: there is no verb \"%s\"; `domzero help` shows those there are\n", name);
        return EXIT_USAGE;
    }
    printf("usage: domzero %s %s\n\n%s\n", v->name, v->arguments, v->help);
    return EXIT_OK;
}

static int run(const struct verb *v, const char *run_dir, int argc, char **argv)
{
    struct tool t = {0};
    struct err e = {0};
    int r = tool_run_dir(run_dir, t.run_dir, &e);
    if (r == 0)
        r = v->run(&t, argc, argv, &e);
    tool_close(&t);
    if (fflush(stdout) && r == 0)
        r = err_set(&e, -errno, "what was to be printed cannot be written: %s", strerror(errno));
    if (r == VERB_USAGE) {
        fprintf(stderr, "usage: domzero %s %s\n", v->name, v->arguments);
        return EXIT_USAGE;
    }
    if (r < 0) {
        fprintf(stderr, "domzero %s: %s\n", v->name, e.text[0] ? e.text : strerror(-r));
        return EXIT_FAILED;
    }
    return EXIT_OK;
}

/* Options before the verb; moves *argv to it. False: usage. */
static bool global_options(char ***argv, const char **run_dir, bool *want_help)
{
    for (; **argv && ***argv == '-'; (*argv)++) {
        const char *arg = **argv;
        if (!strncmp(arg, "--run-dir=", 10))
            *run_dir = arg + 10;
        else if (!strcmp(arg, "--run-dir") && (*argv)[1])
            *run_dir = *++*argv;
        else if (!strcmp(arg, "--help") || !strcmp(arg, "-h"))
            *want_help = true;
        else
            return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    const char *run_dir = NULL;
    bool want_help = false;
    char **at = argv + (argc > 0);
    if (!global_options(&at, &run_dir, &want_help)) {
        fprintf(stderr, "domzero: no option \"%s\", or one without its value; `domzero help` shows those there are\n",
                *at);
        return EXIT_USAGE;
    }
    if (want_help)
        return help(at[0]);
    if (!at[0]) {
        print_usage(stderr);
        return EXIT_USAGE;
    }
    if (!strcmp(at[0], "help"))
        return help(at[1]);
    const struct verb *v = verb_find(at[0]);
    if (!v) {
        fprintf(stderr, "domzero: there is no verb \"%s\"; `domzero help` shows those there are\n", at[0]);
        return EXIT_USAGE;
    }
    if (at[1] && (!strcmp(at[1], "--help") || !strcmp(at[1], "-h")))
        return help(v->name);
    return run(v, run_dir, (int)(argv + argc - at) - 1, at + 1);
}
