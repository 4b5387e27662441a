/* SPDX-License-Identifier: MIT */
#include "frontend/blkfront_queue.h"

#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

#include "base/clock.h"
#include "frontend/blkfront.h"

int queue_source_add(struct dz_queue *q, enum vbd_source source, int fd)
{
    /* The channel's end is an epoll set itself, whose bit is left standing: each notification is one event here, and
     * taking it costs no second call. */
    const uint32_t edge = source == VBD_SOURCE_CHANNEL || source == VBD_SOURCE_MAPPING ? EPOLLET : 0;
    struct epoll_event event = {.events = EPOLLIN | edge, .data.u32 = source};
    return epoll_ctl(q->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

void queue_source_remove(struct dz_queue *q, int fd)
{
    if (fd >= 0)
        epoll_ctl(q->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

static int sources_open(struct dz_queue *q)
{
    q->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (q->epoll_fd < 0)
        return -errno;
    q->bell_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (q->bell_fd < 0)
        return -errno;
    int r = queue_source_add(q, VBD_SOURCE_BELL, q->bell_fd);
    if (q->disk->epoch_ns) {
        q->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
        if (q->timer_fd < 0)
            return -errno;
        r = r ? r : queue_source_add(q, VBD_SOURCE_TIMER, q->timer_fd);
    }
    r = r ? r : queue_source_add(q, VBD_SOURCE_STORE, store_client_fd(q->disk->store));
    return r ? r : queue_source_add(q, VBD_SOURCE_PLATFORM, platform_fd(q->disk->dom->platform));
}

int queue_new(struct dz_vbd *v, uint32_t index, struct dz_queue **out)
{
    struct dz_queue *q = aligned_alloc(_Alignof(struct dz_queue), sizeof(*q));
    if (!q)
        return -ENOMEM;
    memset(q, 0, sizeof(*q));
    q->disk = v;
    q->index = index;
    q->channel = EVTCHN_NONE;
    q->epoll_fd = q->bell_fd = q->timer_fd = -1;
    spin_init(&q->spin, v->spin_us * CLOCK_NS_PER_US);
    gate_init(&q->gate, &v->control, v->biased);
    list_init(&q->waiting);
    int r = sources_open(q);
    if (r < 0) {
        queue_free(q);
        return r;
    }
    *out = q;
    return 0;
}

int queue_books_new(struct dz_queue *q, uint32_t slots, uint32_t segments_max)
{
    q->shadow = aligned_alloc(_Alignof(struct vbd_shadow), slots * sizeof(*q->shadow));
    q->free_slot = calloc(slots, sizeof(*q->free_slot));
    q->segments = calloc((size_t)slots * segments_max, sizeof(*q->segments));
    q->bounces = calloc((size_t)slots * segments_max, sizeof(*q->bounces));
    q->splits = calloc(slots, sizeof(*q->splits));
    if (!q->shadow || !q->free_slot || !q->segments || !q->bounces || !q->splits)
        return -ENOMEM;
    memset(q->shadow, 0, slots * sizeof(*q->shadow));
    for (uint32_t i = 0; i < slots; i++) {
        q->shadow[i].segment = q->segments + (size_t)i * segments_max;
        q->shadow[i].bounce = q->bounces + (size_t)i * segments_max;
        q->free_slot[i] = (uint16_t)(slots - 1 - i);
        q->splits[i].next = q->free_split;
        q->free_split = &q->splits[i];
    }
    q->slots = q->free_count = slots;
    return 0;
}

void queue_free(struct dz_queue *q)
{
    if (!q)
        return;
    fd_closep(&q->epoll_fd);
    fd_closep(&q->bell_fd);
    fd_closep(&q->timer_fd);
    gate_deinit(&q->gate);
    pool_area_deinit(&q->bounce_area);
    free(q->shadow);
    free(q->free_slot);
    free(q->segments);
    free(q->bounces);
    free(q->splits);
    free(q);
}
