/* SPDX-License-Identifier: MIT */
/* tests/test_ring_channel.h: both ends of an event channel as the hypervisor role makes them. */
#ifndef TESTS_TEST_RING_CHANNEL_H
#define TESTS_TEST_RING_CHANNEL_H

#include "ring/evtchn.h"

static void channel_open(struct evtchn *a, struct evtchn *b)
{
    int wait_fd[2], notify_fd[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(evtchn_direction_open(&wait_fd[i], &notify_fd[i]), 0);
    evtchn_init(a, 1, wait_fd[0], notify_fd[1]);
    evtchn_init(b, 2, wait_fd[1], notify_fd[0]);
}

static void channel_close(struct evtchn *a, struct evtchn *b)
{
    evtchn_deinit(a);
    evtchn_deinit(b);
}

#endif
