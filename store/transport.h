/* SPDX-License-Identifier: MIT */
/* store/transport.h: what carries one connection's bytes: a unix socket, or the ring page of a guest.
 *
 * A row of operations and one descriptor to poll. The connection above it (store/conn.h) knows messages and nothing of
 * sockets or rings; a transport knows bytes and nothing of messages. Nothing here waits.
 *
 * The peer may write whatever it likes into what it shares with us, at any time: a transport copies out and hands up
 * bytes, or says that the peer broke the rules (-EPROTO), which ends the connection.
 */
#ifndef STORE_TRANSPORT_H
#define STORE_TRANSPORT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct store_transport;

struct store_transport_ops {
    const char *name; /* "socket", "ring" */
    /* Up to `room` bytes. -EAGAIN: none now; 0: the peer has closed; else -errno, for ever. */
    ssize_t (*receive)(struct store_transport *t, void *out, size_t room);
    /* As much as goes now, in order; the peer is told of it. -EAGAIN: nothing goes; else -errno, for ever. */
    ssize_t (*send)(struct store_transport *t, const struct iovec *iov, unsigned count);
    /* The descriptor was readable: takes what made it so, where that is not the bytes themselves (an event channel).
     * May be NULL. */
    void (*acknowledge)(struct store_transport *t);
    /* The connection's turn is over: the peer is told of what was received, unless a send did that. May be NULL. */
    void (*turn_over)(struct store_transport *t);
    /* The connection ended through `error` (-errno, enum store_wire_error; 0: the server ends it): the peer is told as
     * far as it can be, everything is given back, `t` is freed. */
    void (*close)(struct store_transport *t, int error);
    /* Room to send is told by the descriptor being readable too: there is no EPOLLOUT to wait for. */
    bool signals_room;
};

struct store_transport {
    const struct store_transport_ops *ops;
    int fd; /* to poll; the transport's own */
};

/* The row of an accepted, non-blocking unix socket. Takes the descriptor in any case; NULL: no memory. */
struct store_transport *store_transport_socket(int fd);

#endif
