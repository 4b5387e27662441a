/* SPDX-License-Identifier: MIT */
#include "store/answers.h"

#include <errno.h>

#include "store/session.h"

static const struct {
    int c, ocaml;
} answers[] = {
#define STORE_ANSWER_ROW(name, c, ocaml) {c, ocaml},
    STORE_ANSWERS_TABLE(STORE_ANSWER_ROW)};

int store_answer(const struct store_engine *g, enum store_answer situation)
{
    return g->answers == STORE_ANSWERS_C ? answers[situation].c : answers[situation].ocaml;
}
