/* SPDX-License-Identifier: MIT */
/* backend/live.h: the store role goes on as another binary, and no client notices.
 *
 *   1  the other binary is started beside it, gets the state (store/state.h) in a memory file, makes a store of it that
 *      serves nobody, and says so. Whatever else it does, it is killed, and nothing has changed. The store serves on
 *      meanwhile
 *   2  the state is written once more, and the process executes the other binary in its own place: the process stays,
 *      and with it the sockets, whose descriptors are numbers in the state. What clients send waits in them
 *
 * Asked for by CONTROL live-update, as xenstore-control does it: -f names the binary, -c arguments for it beyond those
 * that the role has, -s begins and is answered BUSY until the check has ended, then OK by the old program. Texts other
 * than these are the reason why not. -a forgets it all. Open transactions go along, so there is nothing to wait for: -t
 * and -F are taken and change nothing. One session at a time; a later -f takes over from who never came back.
 *
 * A binary that passes the check and then cannot load the state ends as a role does.
 */
#ifndef BACKEND_LIVE_H
#define BACKEND_LIVE_H

#include "base/err.h"
#include "base/loop.h"
#include "store/server.h"

#define LIVE_CHECK_MS 10000 /* for a store of that size to be read: unmeasured */

struct live;

/* `argv`: what the role's process was started with; kept, as are loop and server. 0, or -errno with a sentence. */
int live_new(struct loop *loop, struct store_server *server, char *const *argv, struct live **out, struct err *e);
void live_free(struct live *l); /* NULL is fine */

/* The state that a predecessor left in the memory file `fd`, which is closed. */
int live_state_map(int fd, struct store_saved *out, struct err *e);
void live_state_unmap(struct store_saved *s);

#endif
