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

/* Binds and listens at `path` with file mode `mode`; type is SOCK_STREAM or SOCK_SEQPACKET. A stale socket there is
 * replaced at once: at no moment is there none, or one that refuses (but where the path is the longest that a socket
 * can have). Its own name is "path~" then, in `ss -x`. The descriptor is close-on-exec and non-blocking. -errno, with a
 * sentence that names the path. */
int unixsock_listen(const char *path, int type, mode_t mode, struct err *e);
/* A blocking, close-on-exec connection to `path`, or -errno with a sentence. */
int unixsock_connect(const char *path, int type, struct err *e);
/* A non-blocking, close-on-exec connection and who is at its far end; -EAGAIN where none waits. */
int unixsock_accept(int listen_fd, uid_t *peer_uid, pid_t *peer_pid);

/* ---- a server of hostile peers, which wants no descriptors ----
 *
 * Where the kernel can (Linux 6.16) unixsock_listen() has it refuse them: a send of descriptors to what is accepted
 * fails with EPERM. Before, they arrive and are dropped, by whoever reads or closes the socket, which a peer can make
 * last for hours (base/burial.h). So everything that such a server reads or closes goes through these. */

/* As recv(2) of a message or of a stream's bytes: their number, or -errno; -EMSGSIZE where a message was longer, -EPERM
 * where descriptors came along: they are gone, and the connection should be. */
ssize_t unixsock_recv_plain(int fd, void *data, size_t size, int flags);
/* What is accepted from unixsock_listen() may get descriptors; false: recv(2) does for it, and costs less. */
bool unixsock_fds_may_come(int fd);
/* Closes a connection, with what is unread in it; or a listening socket, with what nobody has accepted. */
void unixsock_close_served(int *fd);
void unixsock_close_listener(int *fd);

/* One datagram with descriptors. Sends never raise SIGPIPE. `flags` as of sendmsg (MSG_DONTWAIT …). 0 or -errno. */
int unixsock_send(int fd, const void *data, size_t length, const int *fds, unsigned fd_count, int flags);
/* The datagram's length (0: the peer is gone), or -errno; -EMSGSIZE where it was longer than `size`. *fd_count holds
 * the room in `fds` before and the number received after; with fds == NULL none are accepted
 * (the kernel drops them before they are descriptors of ours). */
ssize_t unixsock_recv(int fd, void *data, size_t size, int *fds, unsigned *fd_count, int flags);

#endif
