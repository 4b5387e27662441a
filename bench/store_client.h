/* SPDX-License-Identifier: MIT */
/* bench/store_client.h: xenstore's wire in a few lines, the same for each server that is measured: requests are
 * composed in a buffer, messages are taken out of one. No library and no allocation between a load and the server.
 *
 * A connection blocks. What the server says is trusted as far as a bench may: a message that is none ends the program.
 */
#ifndef BENCH_STORE_CLIENT_H
#define BENCH_STORE_CLIENT_H

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <xen/io/xs_wire.h>

#include "base/unixsock.h"
#include "base/util.h"

#define STORE_CLIENT_ROOM (4 * (sizeof(struct xsd_sockmsg) + XENSTORE_PAYLOAD_MAX))

struct store_conn_client {
    int fd; /* a socket's; of a ring (bench/store_ring.h) what tells that it has something */
    bool ring;
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

/* ---- a request, piece by piece: printf would cost a tenth of what a whole one does ---- */

static inline void store_begin(struct store_request *r, uint32_t type, uint32_t tx)
{
    const struct xsd_sockmsg header = {.type = type, .tx_id = tx};
    memcpy(r->bytes, &header, sizeof(header));
    r->length = sizeof(header);
}

static inline void store_put(struct store_request *r, const char *bytes, size_t length)
{
    assert(length <= sizeof(r->bytes) - r->length);
    memcpy(r->bytes + r->length, bytes, length);
    r->length += length;
}

/* A literal, without its NUL. */
#define store_text(r, literal) store_put(r, "" literal, sizeof(literal) - 1)

static inline void store_nul(struct store_request *r)
{
    store_put(r, "", 1);
}

static inline void store_number(struct store_request *r, uint64_t n)
{
    char digits[20], *d = digits + sizeof(digits);
    do
        *--d = (char)('0' + n % 10);
    while (n /= 10);
    store_put(r, d, (size_t)(digits + sizeof(digits) - d));
}

static inline void store_end(struct store_request *r)
{
    const uint32_t length = (uint32_t)(r->length - sizeof(struct xsd_sockmsg));
    memcpy(r->bytes + offsetof(struct xsd_sockmsg, len), &length, sizeof(length));
}

static inline bool store_send(struct store_conn_client *c, struct store_request *r)
{
    store_end(r);
    for (size_t sent = 0; sent < r->length;) {
        ssize_t n = send(c->fd, r->bytes + sent, r->length - sent, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR)
            return false;
        sent += n > 0 ? (size_t)n : 0;
    }
    return true;
}

/* Makes room behind what has not been taken. */
static inline void store_compact(struct store_conn_client *c)
{
    memmove(c->in, c->in + c->at, c->have - c->at);
    c->have -= c->at;
    c->at = 0;
}

/* More of what the server says; waits for it. False: the server has gone. */
static inline bool store_receive(struct store_conn_client *c)
{
    ssize_t n;
    store_compact(c);
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
