/* SPDX-License-Identifier: MIT */
/* bench/store_client.h: xenstore's wire in a few lines, the same for each server that is measured: requests are
 * composed in a buffer, messages are taken out of one. No library and no allocation between a load and the server.
 *
 * A connection blocks. What the server says is trusted as far as a bench may: a message that is none ends the program.
 */
#ifndef BENCH_STORE_CLIENT_H
#define BENCH_STORE_CLIENT_H

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <xen/io/xs_wire.h>

#include "base/unixsock.h"
#include "base/util.h"

#define STORE_CLIENT_ROOM (4 * (sizeof(struct xsd_sockmsg) + XENSTORE_PAYLOAD_MAX))

struct store_conn_client {
    int fd;
    size_t at, have; /* of `in`: what was taken, what has come */
    char in[STORE_CLIENT_ROOM];
};

struct store_request {
    size_t length;
    char bytes[512];
};

struct store_answer {
    struct xsd_sockmsg header;
    const char *payload; /* in the connection's buffer, until more is received */
};

/* The payload is a printf-composed text in which '|' stands for NUL. */
static inline void PRINTF(4, 5) store_compose(struct store_request *r, uint32_t type, uint32_t tx, const char *fmt, ...)
{
    va_list args;
    struct xsd_sockmsg header = {.type = type, .tx_id = tx};
    va_start(args, fmt);
    int n = vsnprintf(r->bytes + sizeof(header), sizeof(r->bytes) - sizeof(header), fmt, args);
    va_end(args);
    assert(n > 0 && (size_t)n < sizeof(r->bytes) - sizeof(header));
    for (char *c = r->bytes + sizeof(header); (c = memchr(c, '|', (size_t)(r->bytes + sizeof(header) + n - c)));)
        *c = 0;
    header.len = (uint32_t)n;
    memcpy(r->bytes, &header, sizeof(header));
    r->length = sizeof(header) + (size_t)n;
}

static inline bool store_send(struct store_conn_client *c, const void *bytes, size_t length)
{
    for (size_t sent = 0; sent < length;) {
        ssize_t n = send(c->fd, (const char *)bytes + sent, length - sent, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR)
            return false;
        sent += n > 0 ? (size_t)n : 0;
    }
    return true;
}

/* More of what the server says; waits for it. False: the server has gone. */
static inline bool store_receive(struct store_conn_client *c)
{
    memmove(c->in, c->in + c->at, c->have - c->at);
    c->have -= c->at;
    c->at = 0;
    ssize_t n;
    do
        n = recv(c->fd, c->in + c->have, sizeof(c->in) - c->have, 0);
    while (n < 0 && errno == EINTR);
    c->have += n > 0 ? (size_t)n : 0;
    return n > 0;
}

/* The next whole message of what has come. */
static inline bool store_take(struct store_conn_client *c, struct store_answer *out)
{
    if (c->have - c->at < sizeof(out->header))
        return false;
    memcpy(&out->header, c->in + c->at, sizeof(out->header));
    assert(out->header.len <= XENSTORE_PAYLOAD_MAX);
    if (c->have - c->at < sizeof(out->header) + out->header.len)
        return false;
    out->payload = c->in + c->at + sizeof(out->header);
    c->at += sizeof(out->header) + out->header.len;
    return true;
}

/* NULL where nobody listens; the sentence is printed. */
static inline struct store_conn_client *store_connect(const char *path)
{
    struct err e = {0};
    struct store_conn_client *c = calloc(1, sizeof(*c));
    assert(c);
    c->fd = unixsock_connect(path, SOCK_STREAM, &e);
    if (c->fd >= 0)
        return c;
    fprintf(stderr, "%s\n", e.text);
    free(c);
    return NULL;
}

static inline void store_disconnect(struct store_conn_client *c)
{
    if (c)
        close(c->fd);
    free(c);
}

#endif
