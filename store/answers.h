/* SPDX-License-Identifier: MIT */
/* store/answers.h: where Xen's two reference servers answer the same request with different words: one row each.
 *
 * Xen has a xenstored in C and one in OCaml, and programs that were only ever tried with one of them. A server follows
 * the one that it was started for (struct store_options). The rows are what was measured of 4.17's: docs/store.md has
 * them as a table, with what is not followed.
 */
#ifndef STORE_ANSWERS_H
#define STORE_ANSWERS_H

/* X(situation, C's answer, OCaml's answer): errno values; 0: the request is fine */
#define STORE_ANSWERS_TABLE(X)                                                                                        \
    X(HIDDEN, EACCES, ENOENT)      /* a missing node below one that the caller may not look at, where none is made */ \
    X(NO_TRANSACTION, ENOENT, EIO) /* a transaction id that is none */                                                \
    X(NO_NUL, ENOENT, EINVAL)      /* an operation on a path whose payload is not one string with its NUL */          \
    X(REMOVE_ROOT, EINVAL, 0)      /* RM of "/" by domain 0: refused, or all below it goes */                         \
    X(WATCH_QUOTA, E2BIG, EDQUOT)  /* one watch too many; EDQUOT goes over the wire as "EQUOTA" */                    \
    X(NODE_QUOTA, ENOSPC, EDQUOT)  /* a node or a transaction too many */                                             \
    X(SPECIAL_PERMS, EINVAL, 0)    /* GET_PERMS of a special node: refused, or as of any other */                     \
    X(SPECIAL_UNKNOWN, EINVAL, ENOENT) /* SET_PERMS of a special node that there is not */

enum store_answer {
#define STORE_ANSWER_NAME(name, c, ocaml) STORE_ANSWER_##name,
    STORE_ANSWERS_TABLE(STORE_ANSWER_NAME)
#undef STORE_ANSWER_NAME
};

#define STORE_ANSWERS_OCAML_PATH_MAX 1024 /* the OCaml server's path-max, where none is given */

struct store_engine;
int store_answer(const struct store_engine *g, enum store_answer situation);

#endif
