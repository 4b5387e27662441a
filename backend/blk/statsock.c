/* SPDX-License-Identifier: MIT */
#include "backend/blk/statsock.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/unixsock.h"

struct reader {
    struct loop_source source; /* fn NULL: free */
    struct statsock *sock;
};

struct statsock {
    struct loop *loop;
    const struct blkback *back;
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
    struct loop_source listener;
    struct reader readers[STATSOCK_READERS_MAX];
};

static void reader_drop(struct reader *r)
{
    int fd = r->source.fd;
    loop_remove(r->sock->loop, &r->source);
    r->source.fn = NULL;
    close(fd);
}

static bool query_valid(const struct stats_blk_query *q, ssize_t n)
{
    return n == sizeof(*q) && q->magic == STATS_BLK_MAGIC && q->length_bytes == sizeof(*q) && q->domid <= UINT16_MAX;
}

static void reply_fill(const struct blkback *back, const struct stats_blk_query *q, struct stats_blk_reply *out)
{
    uint16_t domid = (uint16_t)q->domid;
    const struct blkdev *d =
        q->queue ? blkback_device(back, domid, q->devid) : blkback_device_after(back, q->all, domid, q->devid);
    if (d && q->queue)
        (void)blkdev_stats_queue(d, q->queue - 1, out);
    else if (d)
        blkdev_stats(d, out);
}

static void reader_ready(struct loop_source *source, uint32_t epoll_events)
{
    struct reader *r = container_of(source, struct reader, source);
    struct stats_blk_query q;
    struct stats_blk_reply reply = {.magic = STATS_BLK_MAGIC, .length_bytes = sizeof(reply)};
    (void)epoll_events;
    ssize_t n = unixsock_recv(source->fd, &q, sizeof(q), NULL, NULL, MSG_DONTWAIT);
    if (n == -EAGAIN)
        return;
    if (n <= 0 || !query_valid(&q, n)) {
        reader_drop(r);
        return;
    }
    reply_fill(r->sock->back, &q, &reply);
    if (unixsock_send(source->fd, &reply, sizeof(reply), NULL, 0, MSG_DONTWAIT))
        reader_drop(r); /* it asks and does not read */
}

static struct reader *reader_free(struct statsock *s)
{
    for (unsigned i = 0; i < STATSOCK_READERS_MAX; i++)
        if (!s->readers[i].source.fn)
            return &s->readers[i];
    return NULL;
}

static void listener_ready(struct loop_source *source, uint32_t epoll_events)
{
    struct statsock *s = container_of(source, struct statsock, listener);
    (void)epoll_events;
    _cleanup_close_ int fd = unixsock_accept(source->fd, NULL, NULL);
    struct reader *r = reader_free(s);
    if (fd < 0 || !r)
        return;
    r->sock = s;
    if (loop_add(s->loop, &r->source, fd, EPOLLIN, reader_ready)) {
        r->source.fn = NULL;
        return;
    }
    (void)take_fd(&fd);
}

int statsock_new(struct loop *loop, const char *path, const struct blkback *back, struct statsock **out, struct err *e)
{
    int fd = unixsock_listen(path, SOCK_SEQPACKET, 0600, e);
    if (fd < 0)
        return fd;
    struct statsock *s = calloc(1, sizeof(*s));
    int rc = s ? loop_add(loop, &s->listener, fd, EPOLLIN, listener_ready) : -ENOMEM;
    if (rc) {
        close(fd);
        unlink(path);
        free(s);
        return err_set(e, rc, "cannot serve statistics at %s: %s", path, strerror(-rc));
    }
    s->loop = loop;
    s->back = back;
    snprintf(s->path, sizeof(s->path), "%s", path);
    *out = s;
    return 0;
}

void statsock_free(struct statsock *s)
{
    if (!s)
        return;
    for (unsigned i = 0; i < STATSOCK_READERS_MAX; i++)
        if (s->readers[i].source.fn)
            reader_drop(&s->readers[i]);
    int fd = s->listener.fd;
    loop_remove(s->loop, &s->listener);
    close(fd);
    unlink(s->path);
    free(s);
}
