/* SPDX-License-Identifier: MIT */
#include "ring/evtchn.h"

#include <assert.h>
#include <poll.h>

void evtchn_init(struct evtchn *ch, uint32_t port, int wait_fd, int notify_fd)
{
    *ch = (struct evtchn){.port = port, .wait_fd = wait_fd, .notify_fd = notify_fd};
}

void evtchn_deinit(struct evtchn *ch)
{
    fd_closep(&ch->wait_fd);
    fd_closep(&ch->notify_fd);
    ch->port = 0;
}

int evtchn_notify(struct evtchn *ch)
{
    if (write(ch->notify_fd, "", 1) == 1 || errno == EAGAIN || errno == EPIPE)
        return 0;
    return -errno;
}

bool evtchn_consume(struct evtchn *ch)
{
    char bytes[PAGE_BYTES]; /* the pipe's whole capacity; if the peer enlarged it, the rest is further events */
    return read(ch->wait_fd, bytes, sizeof(bytes)) > 0;
}

/* 1, 0 when time is up, or -errno: -EPIPE where every writer is gone. */
static int wait_readable(const struct evtchn *ch, int timeout_ms)
{
    struct pollfd p = {.fd = ch->wait_fd, .events = POLLIN};
    int n = poll(&p, 1, timeout_ms);
    if (n <= 0)
        return n < 0 ? -errno : 0;
    return p.revents & POLLIN ? 1 : -EPIPE;
}

bool evtchn_pending(const struct evtchn *ch)
{
    return wait_readable(ch, 0) == 1;
}

void evtchn_mask(struct evtchn *ch)
{
    ch->masked = true;
}

bool evtchn_unmask(struct evtchn *ch)
{
    ch->masked = false;
    return evtchn_pending(ch);
}

int evtchn_wait(struct evtchn *ch, int timeout_ms)
{
    assert(!ch->masked);
    int r = wait_readable(ch, timeout_ms);
    if (r <= 0)
        return r < 0 ? r : -ETIMEDOUT;
    evtchn_consume(ch);
    return 0;
}
