/* SPDX-License-Identifier: MIT */
/* tools/verb.h: the table of what `domzero` can do. One line in verb_list.h makes the declaration and the row; a verb
 * is one `const struct verb` in the file of its noun.
 *
 * A verb gets the arguments behind its name, flags taken out, and connects itself where it needs dom0.
 */
#ifndef TOOLS_VERB_H
#define TOOLS_VERB_H

#include "tools/tool.h"

#define VERB_USAGE 1 /* what run() returns for arguments that it cannot make sense of; *e may say why */

struct verb {
    const char *name;
    const char *arguments; /* "DOMAIN VDEV [--force]" */
    const char *summary;   /* a line of `domzero help` */
    const char *help;      /* what follows it in `domzero help VERB` */
    /* 0; -errno with a sentence; VERB_USAGE. argv[0] is the first argument. */
    int (*run)(struct tool *t, int argc, char **argv, struct err *e);
};

#define VERB(name) extern const struct verb verb_##name;
#include "tools/verb_list.h"
#undef VERB

#endif
