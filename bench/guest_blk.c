/* SPDX-License-Identifier: MIT */
/* bench/guest_blk.c: the load from inside a guest: run by `domzero exec`, through libdomzero, with buffers of the
 * granted pool. -p polls for responses all the time, -a for a short window before it sleeps; otherwise it sleeps at
 * once. -j N: a queue of the disk for each of N threads. */
#include <domzero/domzero.h>

#include "bench/load.h"

#define ADAPTIVE_SPIN_US 100        /* as domzerod's default */
#define POOL_BYTES_MIN   (4u << 20) /* the library's default */

/* A thread with its queue. */
struct guest {
    struct load_thread thread;
    struct dz_queue *queue;
    struct dz_io io[LOAD_QD_MAX];
    uint64_t started_ns[LOAD_QD_MAX];
};

static struct dz_domain *dom;
static struct dz_vbd *disk;

static bool guest_fail(const char *why)
{
    fprintf(stderr, "guest_blk: %s\n", why);
    return false;
}

static bool guest_open(struct load *l)
{
    uint64_t data_bytes = (uint64_t)l->qd * l->block_bytes * l->threads;
    struct dz_vbd_options options = {.queue_depth = l->qd, .queues = l->threads};
    options.spin_us = l->poll ? UINT32_MAX : l->adaptive ? ADAPTIVE_SPIN_US : 0;
    options.pool_bytes = (uint32_t)MAX(data_bytes, POOL_BYTES_MIN);
    if (dz_domain_open(NULL, &dom) < 0 || dz_vbd_open(dom, l->target, &options, &disk) < 0)
        return guest_fail(dz_error());
    struct dz_vbd_info info;
    dz_vbd_info(disk, &info);
    l->size_bytes = info.size_bytes;
    if (l->qd > info.queue_depth || l->threads > info.queues || l->block_bytes > info.request_bytes_max) {
        fprintf(stderr, "guest_blk: the disk takes %u requests of %u bytes in %u queues\n", info.queue_depth,
                info.request_bytes_max, info.queues);
        return false;
    }
    return true;
}

static bool guest_setup(struct load_thread *t)
{
    struct guest *g = container_of(t, struct guest, thread);
    g->queue = dz_vbd_queue(disk, t->index);
    for (unsigned i = 0; i < t->load.qd; i++) {
        g->io[i] = (struct dz_io){.op = t->load.write ? DZ_WRITE : DZ_READ,
                                  .buffer = dz_buffer_alloc(disk, t->load.block_bytes),
                                  .length_bytes = t->load.block_bytes};
        if (!g->io[i].buffer)
            return guest_fail("the pool is full");
        memset(g->io[i].buffer, (int)i, t->load.block_bytes);
    }
    return true;
}

static int guest_submit(struct guest *g, struct dz_io *io, uint64_t now_ns)
{
    io->offset_bytes = load_next_offset(&g->thread.load);
    g->started_ns[io - g->io] = now_ns;
    return dz_queue_submit(g->queue, io);
}

static bool guest_run(struct load_thread *t)
{
    struct guest *g = container_of(t, struct guest, thread);
    struct load *l = &t->load;
    struct dz_io *done[LOAD_QD_MAX];
    uint64_t now = clock_now_ns();
    unsigned in_flight = 0;
    for (; in_flight < l->qd; in_flight++)
        if (guest_submit(g, &g->io[in_flight], now) < 0)
            return guest_fail(dz_error());
    while (in_flight) {
        int n = dz_queue_wait(g->queue, done, LOAD_QD_MAX, -1);
        if (n <= 0)
            return guest_fail(dz_error());
        now = clock_now_ns();
        for (int i = 0; i < n; i++) {
            l->errors += done[i]->result != 0;
            hist_add(&l->latency_ns, now - g->started_ns[done[i] - g->io]);
            if (now >= l->end_ns)
                in_flight--;
            else if (guest_submit(g, done[i], now) < 0)
                return guest_fail(dz_error());
        }
        l->done += (unsigned)n;
    }
    return true;
}

int main(int argc, char **argv)
{
    static struct load l;
    static struct guest part[LOAD_THREADS_MAX];
    struct load_row row = {&part[0].thread, sizeof(part[0]), guest_setup, guest_run};
    int status = load_parse(&l, argc, argv);
    if (status)
        return status;
    if (!guest_open(&l) || !load_run(&l, &row))
        return 1;
    struct dz_vbd_stats s;
    dz_vbd_stats(disk, &s);
    char extra[128];
    snprintf(extra, sizeof(extra), ", \"sent_per_io\": %.5f, \"received_per_io\": %.5f",
             (double)s.notifications_sent / (double)s.requests, (double)s.notifications_received / (double)s.requests);
    load_print(&l, extra);
    dz_vbd_close(disk);
    dz_domain_close(dom);
    return l.errors != 0;
}
