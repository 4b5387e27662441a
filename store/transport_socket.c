/* SPDX-License-Identifier: MIT */
/* The transport row of an accepted unix socket. Descriptors that a peer sends along are no bytes of a message: they
 * are dropped and end the connection (base/unixsock.h). */
#include <stdlib.h>
#include <sys/socket.h>

#include "base/unixsock.h"
#include "store/transport.h"

struct store_socket {
    struct store_transport transport;
    bool fds_may_come;
};

static ssize_t socket_receive(struct store_transport *t, void *out, size_t room)
{
    if (container_of(t, struct store_socket, transport)->fds_may_come)
        return unixsock_recv_plain(t->fd, out, room, MSG_DONTWAIT);
    ssize_t n;
    do
        n = recv(t->fd, out, room, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static ssize_t socket_send(struct store_transport *t, const struct iovec *iov, unsigned count)
{
    const struct msghdr message = {.msg_iov = (struct iovec *)iov, .msg_iovlen = count};
    const int flags = MSG_NOSIGNAL | MSG_DONTWAIT;
    ssize_t n;
    do /* of one piece the kernel has less to copy */
        n = count == 1 ? send(t->fd, iov->iov_base, iov->iov_len, flags) : sendmsg(t->fd, &message, flags);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static void socket_close(struct store_transport *t, int error)
{
    (void)error; /* the end of the stream says it all */
    unixsock_close_served(&t->fd);
    free(container_of(t, struct store_socket, transport));
}

static const struct store_transport_ops socket_ops = {
    .name = "socket",
    .receive = socket_receive,
    .send = socket_send,
    .close = socket_close,
};

struct store_transport *store_transport_socket(int fd)
{
    struct store_socket *s = malloc(sizeof(*s));
    if (!s) {
        unixsock_close_served(&fd);
        return NULL;
    }
    *s = (struct store_socket){{.ops = &socket_ops, .fd = fd}, unixsock_fds_may_come(fd)};
    return &s->transport;
}
