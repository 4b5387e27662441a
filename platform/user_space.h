/* SPDX-License-Identifier: MIT */
/* platform/user_space.h: where in this process other domains' extents are mapped.
 *
 * An address that was once a guest's memory is for the life of the process a guest's memory or nothing: it is never
 * given to what is our own. So a transfer that outlives its extent (`validate` of grant/dma.h lets it) is refused by
 * the kernel or reaches another guest's memory, and never ours. Places are taken from reservations without access,
 * which cost address space and nothing else, the lowest that is large enough first; what is given back is a
 * reservation again, and one with its neighbours. So their number is bounded by what guests share at once.
 *
 * One for the process, as addresses are. Any thread.
 */
#ifndef PLATFORM_USER_SPACE_H
#define PLATFORM_USER_SPACE_H

#include "base/err.h"

/* A shared mapping of the descriptor, which is closed in either case. NULL with errno. */
void *user_space_map(int fd, uint32_t frame_count, bool readonly);
void user_space_unmap(void *address, uint32_t frame_count);

#endif
