/* SPDX-License-Identifier: MIT */
#include "base/loop.h"

#include <sys/timerfd.h>

int loop_init(struct loop *l)
{
    *l = (struct loop){.epoll_fd = epoll_create1(EPOLL_CLOEXEC)};
    return l->epoll_fd < 0 ? -errno : 0;
}

void loop_deinit(struct loop *l)
{
    fd_closep(&l->epoll_fd);
}

int loop_add(struct loop *l, struct loop_source *s, int fd, uint32_t events, loop_fn *fn)
{
    struct epoll_event ev = {.events = events, .data.ptr = s};
    if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0)
        return -errno;
    *s = (struct loop_source){.fd = fd, .fn = fn};
    return 0;
}

int loop_modify(struct loop *l, struct loop_source *s, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.ptr = s};
    return epoll_ctl(l->epoll_fd, EPOLL_CTL_MOD, s->fd, &ev) < 0 ? -errno : 0;
}

void loop_remove(struct loop *l, struct loop_source *s)
{
    if (!s->fn)
        return;
    epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, s->fd, NULL);
    for (int i = 0; i < l->round_count; i++)
        if (l->round[i].data.ptr == s)
            l->round[i].data.ptr = NULL;
    *s = (struct loop_source){.fd = -1};
}

int loop_step(struct loop *l, int timeout_ms)
{
    int n = epoll_wait(l->epoll_fd, l->round, LOOP_BATCH, timeout_ms);
    if (n < 0)
        return errno == EINTR ? 0 : -errno;
    l->round_count = n;
    for (int i = 0; i < n; i++) {
        struct loop_source *s = l->round[i].data.ptr;
        if (s)
            s->fn(s, l->round[i].events);
    }
    l->round_count = 0;
    return n;
}

int loop_run(struct loop *l)
{
    l->quit = false;
    while (!l->quit) {
        int r = loop_step(l, -1);
        if (r < 0)
            return r;
    }
    return 0;
}

void loop_quit(struct loop *l)
{
    l->quit = true;
}

static struct timespec ms_to_timespec(uint64_t ms)
{
    return (struct timespec){.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};
}

int loop_timer_set(struct loop_source *s, uint64_t first_ms, uint64_t interval_ms)
{
    struct itimerspec spec = {.it_value = ms_to_timespec(first_ms), .it_interval = ms_to_timespec(interval_ms)};
    return timerfd_settime(s->fd, 0, &spec, NULL) < 0 ? -errno : 0;
}

int loop_timer_add(struct loop *l, struct loop_source *s, uint64_t first_ms, uint64_t interval_ms, loop_fn *fn)
{
    _cleanup_close_ int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (fd < 0)
        return -errno;
    int r = loop_add(l, s, fd, EPOLLIN, fn);
    if (r < 0)
        return r;
    take_fd(&fd);
    return loop_timer_set(s, first_ms, interval_ms);
}

void loop_timer_remove(struct loop *l, struct loop_source *s)
{
    if (!s->fn)
        return;
    int fd = s->fd;
    loop_remove(l, s);
    close(fd);
}

uint64_t loop_timer_ack(struct loop_source *s)
{
    uint64_t expirations = 0;
    return read(s->fd, &expirations, sizeof(expirations)) == sizeof(expirations) ? expirations : 0;
}
