/* SPDX-License-Identifier: MIT */
/* base/unixsock.h: unix sockets with paths, credentials and passed descriptors.
 *
 * A message carries at most UNIXSOCK_FDS_MAX descriptors. A receiver always gets them close-on-exec, and closes
 * those that it did not expect, so a peer cannot fill another's descriptor table.
 */
#ifndef BASE_UNIXSOCK_H
#define BASE_UNIXSOCK_H

#include <sys/types.h>

#include "base/err.h"

#define UNIXSOCK_FDS_MAX 4

/* Binds and listens at `path` (a stale socket there is replaced) with file mode `mode`; type is SOCK_STREAM or
 * SOCK_SEQPACKET. The descriptor is close-on-exec and non-blocking. -errno, with a sentence that names the path. */
int unixsock_listen(const char *path, int type, mode_t mode, struct err *e);
/* A blocking, close-on-exec connection to `path`, or -errno with a sentence. */
int unixsock_connect(const char *path, int type, struct err *e);
/* A non-blocking, close-on-exec connection and who is at its far end; -EAGAIN where none waits. */
int unixsock_accept(int listen_fd, uid_t *peer_uid, pid_t *peer_pid);

/* Where the kernel can (Linux 6.16), sends of descriptors to `fd`, or to what it accepts, fail with EPERM. Best effort:
 * unixsock_recv() without `fds` drops them anyway. */
void unixsock_refuse_fds(int fd);

/* One datagram with descriptors. Sends never raise SIGPIPE. `flags` as of sendmsg (MSG_DONTWAIT …). 0 or -errno. */
int unixsock_send(int fd, const void *data, size_t length, const int *fds, unsigned fd_count, int flags);
/* The datagram's length (0: the peer is gone), or -errno; -EMSGSIZE where it was longer than `size`. *fd_count holds
 * the room in `fds` before and the number received after; with fds == NULL none are accepted
 * (the kernel drops them before they are descriptors of ours). */
ssize_t unixsock_recv(int fd, void *data, size_t size, int *fds, unsigned *fd_count, int flags);

#endif
