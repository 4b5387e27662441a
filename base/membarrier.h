/* SPDX-License-Identifier: MIT */
/* base/membarrier.h: the fence that one thread makes for all.
 *
 * Where one side is rare and the other often passes "store mine, then load yours", the often passing side does with a
 * compiler's fence (atomic_signal_fence) and the rare side calls membarrier_all() between its own store and load:
 * membarrier(2) makes every thread of this process that runs pass a full fence meanwhile.
 */
#ifndef BASE_MEMBARRIER_H
#define BASE_MEMBARRIER_H

#include <linux/membarrier.h>
#include <sys/syscall.h>

#include "base/err.h"

static inline int membarrier_call(int command)
{
    int r;
    do
        r = (int)syscall(__NR_membarrier, command, 0, 0);
    while (r < 0 && errno == ENOMEM); /* of a moment */
    return r;
}

/* Is it to be had? To be asked by this very process, before it relies on it. */
static inline bool membarrier_register(void)
{
    return membarrier_call(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0;
}

static inline void membarrier_all(void)
{
    int r = membarrier_call(MEMBARRIER_CMD_PRIVATE_EXPEDITED);
    assert(r == 0); /* it was registered; whoever filters system calls lets it through */
    (void)r;
}

#endif
