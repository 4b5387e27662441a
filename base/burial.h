/* SPDX-License-Identifier: MIT */
/* base/burial.h: closing descriptors that a hostile peer passed to us.
 *
 * The last close of a file runs the file's own end, in whoever closes it: a TCP socket with SO_LINGER and a peer that
 * does not read keeps close(2) for up to eighteen hours. A peer that passes such a socket and closes its own copy would
 * stop a server in close(2), or in the recvmsg(2) that drops what it did not ask for. Clearing SO_LINGER first is no
 * cure: the file is the peer's too, who sets it again.
 *
 * So another thread has the last reference. It takes a private copy of the descriptor table, in which only the dead
 * remain, and ends; a thread that ends does not linger, and if a file finds another way to make it wait, nobody waits
 * for it. Costs a thread and a walk over the table: for peers that misbehave, whose connection ends with it.
 */
#ifndef BASE_BURIAL_H
#define BASE_BURIAL_H

/* Closes all of them, in bounded time. Reorders the array. */
void fds_bury(int *fds, unsigned count);

#endif
