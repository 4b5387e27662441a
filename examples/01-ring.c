/* SPDX-License-Identifier: MIT */
/* 01-ring: two processes exchange requests over a Xen ring and an event channel. No dom0 is needed: the shared page and
 * the channel, which the hypervisor role makes otherwise, are made here.
 *
 *   build/examples/01-ring              100,000 requests, one at a time
 *   build/examples/01-ring 1000000 32   a million, 32 in flight: see how few notifications are left
 *
 * A request is a number, its response the number's square. What to look at: a producer fills slots and publishes them
 * all at once; it notifies only where the other side asked to be told; a consumer that finds nothing asks for an event
 * *and looks again* before it sleeps. Leave out the second look and it hangs sooner or later.
 */
#include <err.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "ring/evtchn.h"
#include "ring/ring.h"

struct message {
    uint64_t id, value;
};

static void back(void *page, struct evtchn *channel, uint32_t total)
{
    struct ring_back ring;
    ring_back_init(&ring, page, PAGE_BYTES, sizeof(struct message), 0);
    while (ring.req_cons < total) {
        uint32_t waiting;
        if (ring_back_pending(&ring, &waiting))
            errx(1, "the other side's index runs ahead of the ring: give up the ring");
        while (waiting--) {
            struct message m;
            ring_back_take(&ring, &m, sizeof(m)); /* a private copy: the other side may go on writing the slot */
            m.value *= m.value;
            ring_back_put(&ring, &m, sizeof(m));
        }
        if (ring_back_push(&ring))
            evtchn_notify(channel);
        if (ring.req_cons < total && !ring_back_arm(&ring))
            evtchn_wait(channel, -1);
    }
}

struct front {
    struct ring_front ring;
    uint32_t sent, received, notifications, sleeps;
};

static void front_receive(struct front *f)
{
    uint32_t waiting;
    if (ring_front_pending(&f->ring, &waiting))
        errx(1, "the other side's index runs ahead of the requests");
    for (; waiting; waiting--, f->received++) {
        struct message m;
        ring_front_take(&f->ring, &m, sizeof(m));
        if (m.id >= f->sent || m.value != m.id * m.id) /* never believe an id */
            errx(1, "response %llu is wrong", (unsigned long long)m.id);
    }
}

static void front_run(struct front *f, struct evtchn *channel, uint32_t total, uint32_t depth)
{
    while (f->received < total) {
        for (; f->sent < total && f->sent - f->received < depth && ring_front_room(&f->ring); f->sent++)
            ring_front_put(&f->ring, &(struct message){f->sent, f->sent}, sizeof(struct message));
        if (ring_front_push(&f->ring)) {
            f->notifications++;
            evtchn_notify(channel);
        }
        if (!ring_front_arm(&f->ring)) {
            f->sleeps++;
            evtchn_wait(channel, -1);
        }
        front_receive(f);
    }
}

int main(int argc, char **argv)
{
    uint32_t total = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 0) : 100000;
    uint32_t depth = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 0) : 1;
    void *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int back_wait, back_notify, front_wait, front_notify; /* who waits on it, who is notified through it */
    struct evtchn channel;
    struct front f = {0};
    if (!total || !depth)
        errx(2, "usage: 01-ring [REQUESTS [IN-FLIGHT]]");
    if (page == MAP_FAILED || evtchn_direction_open(&back_wait, &back_notify) ||
        evtchn_direction_open(&front_wait, &front_notify))
        err(1, "shared page and event channel");
    /* The frontend owns the page and initialises it before the backend sees it. */
    ring_front_init(&f.ring, page, PAGE_BYTES, sizeof(struct message));
    pid_t child = fork();
    if (child == 0) {
        evtchn_init(&channel, 2, back_wait, front_notify);
        back(page, &channel, total);
        return 0;
    }
    evtchn_init(&channel, 1, front_wait, back_notify);
    uint64_t start = clock_now_ns();
    front_run(&f, &channel, total, depth);
    double seconds = (double)(clock_now_ns() - start) / 1e9;
    waitpid(child, NULL, 0);
    printf("%u requests, %u in flight: %.0f a second, %.3f notifications and %.3f sleeps a request\n", total, depth,
           total / seconds, (double)f.notifications / total, (double)f.sleeps / total);
    return 0;
}
