/* SPDX-License-Identifier: MIT */
#include "ring/evtchn.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

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

int evtchn_receiver_open(int notify_fd, int *wait_fd)
{
    _cleanup_close_ int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event edge = {.events = EPOLLIN | EPOLLET};
    if (epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, notify_fd, &edge))
        return -errno;
    *wait_fd = take_fd(&epoll_fd);
    return 0;
}

int evtchn_direction_open(int *wait_fd, int *notify_fd)
{
    _cleanup_close_ int event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (event_fd < 0)
        return -errno;
    int r = evtchn_receiver_open(event_fd, wait_fd);
    if (r == 0)
        *notify_fd = take_fd(&event_fd);
    return r;
}

int evtchn_notify(struct evtchn *ch)
{
    const uint64_t one = 1;
    if (write(ch->notify_fd, &one, sizeof(one)) == sizeof(one) || errno == EAGAIN)
        return 0;
    return -errno;
}

bool evtchn_consume(struct evtchn *ch)
{
    struct epoll_event event;
    return epoll_wait(ch->wait_fd, &event, 1, 0) > 0;
}

static int wait_readable(const struct evtchn *ch, int timeout_ms)
{
    struct pollfd p = {.fd = ch->wait_fd, .events = POLLIN};
    int n = poll(&p, 1, timeout_ms);
    return n < 0 ? -errno : n > 0 && (p.revents & POLLIN);
}

bool evtchn_pending(const struct evtchn *ch)
{
    return wait_readable(ch, 0) == 1;
}

int evtchn_wait(struct evtchn *ch, int timeout_ms)
{
    int r = wait_readable(ch, timeout_ms);
    if (r <= 0)
        return r < 0 ? r : -ETIMEDOUT;
    evtchn_consume(ch);
    return 0;
}
