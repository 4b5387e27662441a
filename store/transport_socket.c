/* SPDX-License-Identifier: MIT */
/* The transport row of an accepted unix socket. Descriptors that a peer sends along are no bytes of a message: they
 * are dropped and end the connection (base/unixsock.h). */
#include <stdlib.h>
#include <sys/socket.h>

#include "base/unixsock.h"
#include "store/transport.h"

static ssize_t socket_receive(struct store_transport *t, void *out, size_t room)
{
    return unixsock_recv_plain(t->fd, out, room, MSG_DONTWAIT);
}

static ssize_t socket_send(struct store_transport *t, const struct iovec *iov, unsigned count)
{
    const struct msghdr message = {.msg_iov = (struct iovec *)iov, .msg_iovlen = count};
    ssize_t n;
    do
        n = sendmsg(t->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static void socket_close(struct store_transport *t, int error)
{
    (void)error; /* the end of the stream says it all */
    unixsock_close_served(&t->fd);
    free(t);
}

static const struct store_transport_ops socket_ops = {
    .name = "socket",
    .receive = socket_receive,
    .send = socket_send,
    .close = socket_close,
};

struct store_transport *store_transport_socket(int fd)
{
    struct store_transport *t = malloc(sizeof(*t));
    if (!t) {
        unixsock_close_served(&fd);
        return NULL;
    }
    *t = (struct store_transport){.ops = &socket_ops, .fd = fd};
    return t;
}
