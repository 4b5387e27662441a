/* SPDX-License-Identifier: MIT */
/* tests/test_ring_channel.h: both ends of an event channel as the hypervisor role makes them: for each direction a pipe
 * of one page, whose two ends are opened anew through /proc so that nobody shares an open file description. */
#ifndef TESTS_TEST_RING_CHANNEL_H
#define TESTS_TEST_RING_CHANNEL_H

#include <fcntl.h>
#include <stdio.h>

#include "ring/evtchn.h"

/* The pipe itself, which the hypervisor role keeps: so neither end ever sees the other vanish. */
struct channel {
    int pipe[2][2];
};

static int channel_reopen(int fd, int flags)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return open(path, flags | O_NONBLOCK | O_CLOEXEC);
}

static void channel_open(struct channel *c, struct evtchn *a, struct evtchn *b)
{
    struct evtchn *near[2] = {a, b};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pipe2(c->pipe[i], O_NONBLOCK | O_CLOEXEC), 0);
        assert_int_equal(fcntl(c->pipe[i][1], F_SETPIPE_SZ, PAGE_BYTES), PAGE_BYTES);
    }
    for (int i = 0; i < 2; i++) { /* pipe[i] carries the bit of end i */
        int wait_fd = channel_reopen(c->pipe[i][0], O_RDONLY), notify_fd = channel_reopen(c->pipe[!i][1], O_WRONLY);
        assert_true(wait_fd >= 0 && notify_fd >= 0);
        evtchn_init(near[i], (uint32_t)i + 1, wait_fd, notify_fd);
    }
}

static void channel_close(struct channel *c, struct evtchn *a, struct evtchn *b)
{
    evtchn_deinit(a);
    evtchn_deinit(b);
    for (int i = 0; i < 4; i++)
        fd_closep(&c->pipe[i / 2][i % 2]);
}

#endif
