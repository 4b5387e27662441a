/* SPDX-License-Identifier: MIT */
/* bench/vhost_blk.c: the load on a vhost-user-blk server, whose socket is TARGET. -p: looks for completions all the
 * time and asks for no calls; otherwise it sleeps in an eventfd. The server decides how it waits; it is kicked when it
 * asks for that. */
#include <poll.h>

#include "bench/load.h"
#include "bench/vhost.h"

struct driver {
    struct load load;
    struct vhost vhost;
    uint16_t available, used; /* requests published and completions taken, modulo 2^16 as in the ring */
    unsigned in_flight, free_count;
    unsigned free[LOAD_QD_MAX];
    uint64_t started_ns[LOAD_QD_MAX];
    uint64_t kicks, calls;
};

static uint16_t driver_peek(const struct driver *d)
{
    return __atomic_load_n(&d->vhost.ring.used->idx, __ATOMIC_SEQ_CST);
}

/* Publishes all that is free as one batch, and kicks if the server asked for one of them. */
static void driver_submit(struct driver *d, uint64_t now_ns)
{
    struct vring *r = &d->vhost.ring;
    uint16_t before = d->available;
    while (d->free_count) {
        unsigned slot = d->free[--d->free_count];
        d->vhost.header[slot].sector = load_next_offset(&d->load) / SECTOR_BYTES;
        d->vhost.status[slot] = 0xff;
        d->started_ns[slot] = now_ns;
        r->avail->ring[d->available++ & (r->num - 1)] = (uint16_t)(VHOST_CHAIN * slot);
        d->in_flight++;
    }
    /* SEQ_CST, here and below: each side says what it did before it looks at what the other one wants. */
    __atomic_store_n(&r->avail->idx, d->available, __ATOMIC_SEQ_CST);
    uint16_t wanted = __atomic_load_n(&vring_avail_event(r), __ATOMIC_SEQ_CST);
    uint16_t flags = __atomic_load_n(&r->used->flags, __ATOMIC_SEQ_CST);
    if (d->vhost.event_index ? vring_need_event(wanted, d->available, before) : !(flags & VRING_USED_F_NO_NOTIFY)) {
        d->kicks++;
        eventfd_write(d->vhost.kick_fd, 1);
    }
}

/* Until there is a completion. */
static void driver_wait(struct driver *d)
{
    while (driver_peek(d) == d->used) {
        if (d->load.poll) {
            __builtin_ia32_pause();
            continue;
        }
        __atomic_store_n(&vring_used_event(&d->vhost.ring), d->used, __ATOMIC_SEQ_CST);
        if (driver_peek(d) != d->used)
            return;
        struct pollfd called = {d->vhost.call_fd, POLLIN, 0}; /* the server may have made it non-blocking */
        eventfd_t count;
        poll(&called, 1, -1);
        d->calls += eventfd_read(d->vhost.call_fd, &count) == 0;
    }
}

static void driver_take(struct driver *d, uint64_t now_ns)
{
    struct vring *r = &d->vhost.ring;
    for (uint16_t end = driver_peek(d); d->used != end; d->used++) {
        unsigned slot = r->used->ring[d->used & (r->num - 1)].id / VHOST_CHAIN;
        d->load.done++;
        d->load.errors += d->vhost.status[slot] != VIRTIO_BLK_S_OK;
        hist_add(&d->load.latency_ns, now_ns - d->started_ns[slot]);
        d->free[d->free_count++] = slot;
        d->in_flight--;
    }
}

static void driver_run(struct driver *d)
{
    for (; d->free_count < d->load.qd; d->free_count++)
        d->free[d->free_count] = d->free_count;
    if (!d->vhost.event_index)
        d->vhost.ring.avail->flags = d->load.poll ? VRING_AVAIL_F_NO_INTERRUPT : 0;
    else if (d->load.poll)
        vring_used_event(&d->vhost.ring) = UINT16_MAX / 2; /* once in 65536 requests */
    load_begin(&d->load);
    driver_submit(d, d->load.start_ns);
    while (d->in_flight) {
        driver_wait(d);
        uint64_t now = clock_now_ns();
        driver_take(d, now);
        if (now < d->load.end_ns)
            driver_submit(d, now);
    }
    load_end(&d->load);
}

int main(int argc, char **argv)
{
    static struct driver d;
    struct err e;
    struct load *l = &d.load;
    int status = load_parse(l, argc, argv);
    if (status)
        return status;
    if (vhost_open(&d.vhost, l->target, l->qd, l->block_bytes, l->write, &e) < 0) {
        fprintf(stderr, "vhost_blk: %s\n", e.text);
        return 1;
    }
    l->size_bytes = d.vhost.capacity_bytes;
    driver_run(&d);
    char extra[128];
    snprintf(extra, sizeof(extra), ", \"sent_per_io\": %.5f, \"received_per_io\": %.5f",
             (double)d.kicks / (double)l->done, (double)d.calls / (double)l->done);
    load_print(l, extra);
    vhost_close(&d.vhost);
    return l->errors != 0;
}
