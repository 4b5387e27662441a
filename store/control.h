/* SPDX-License-Identifier: MIT */
/* store/control.h: CONTROL, by which the operator speaks to the store itself: domain 0 only.
 *
 * The payload is a command's name and its arguments, each with a NUL; the commands are one table in control.c, with the
 * names and arguments that Xen's xenstore-control knows. "OK" is the answer of one that has nothing to tell. A command
 * that does not exist, or has other arguments, is EINVAL and has done nothing.
 */
#ifndef STORE_CONTROL_H
#define STORE_CONTROL_H

#include "store/ops.h"

#define STORE_CONTROL_ARGS_MAX 16

/* Whether the engine's parts agree with each other; where they do not, the first sentence that is untrue is in `why`.
 * Walks everything. */
bool store_control_check(const struct store_engine *g, struct err *why);

#endif
