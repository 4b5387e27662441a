/* SPDX-License-Identifier: MIT */
/* bench/attack/trap.h: a guest that moves between two of dom0's looks at one page, at each of them in turn.
 *
 * The page of dom0's own mapping is taken away; an instruction that touches it faults, is let through alone under the
 * processor's single-step trap, and behind the access number `at` the guest makes its move: exactly what a guest on
 * another processor could do, without waiting for luck. One trap a process; not where there is no such processor
 * (trap_works()): there the races that an attack runs besides are all there is.
 */
#ifndef ATTACK_TRAP_H
#define ATTACK_TRAP_H

#include "base/util.h"

typedef void trap_move_fn(void *ctx);

bool trap_works(void);
/* `move` is called in a signal handler, once: it writes memory and does nothing else. */
void trap_arm(unsigned char *page, unsigned at, trap_move_fn *move, void *ctx);
unsigned trap_disarm(void); /* the accesses that there were */

#endif
