/* SPDX-License-Identifier: MIT */
/* bench/guest_blk.c: the load from inside a guest: run by `domzero exec`, through libdomzero, with buffers of the
 * granted pool. -p polls for responses all the time, -a for a short window before it sleeps; otherwise it sleeps at
 * once. */
#include <domzero/domzero.h>

#include "bench/load.h"

#define ADAPTIVE_SPIN_US 50 /* as domzerod's default */

struct guest {
    struct load load;
    struct dz_domain *dom;
    struct dz_vbd *disk;
    struct dz_io io[LOAD_QD_MAX];
    uint64_t started_ns[LOAD_QD_MAX];
};

static int guest_setup(struct guest *g)
{
    struct dz_vbd_options options = {.spin_us = g->load.poll ? UINT32_MAX : g->load.adaptive ? ADAPTIVE_SPIN_US : 0};
    options.queue_depth = g->load.qd;
    options.pool_bytes = g->load.qd * g->load.block_bytes > 4u << 20 ? g->load.qd * g->load.block_bytes : 4u << 20;
    struct dz_vbd_info info;
    if (dz_domain_open(NULL, &g->dom) < 0 || dz_vbd_open(g->dom, g->load.target, &options, &g->disk) < 0) {
        fprintf(stderr, "guest_blk: %s\n", dz_error());
        return -1;
    }
    dz_vbd_info(g->disk, &info);
    g->load.size_bytes = info.size_bytes;
    if (g->load.qd > info.queue_depth || g->load.block_bytes > info.request_bytes_max) {
        fprintf(stderr, "guest_blk: the disk takes %u requests of %u bytes\n", info.queue_depth,
                info.request_bytes_max);
        return -1;
    }
    for (unsigned i = 0; i < g->load.qd; i++) {
        g->io[i] = (struct dz_io){.op = g->load.write ? DZ_WRITE : DZ_READ,
                                  .buffer = dz_buffer_alloc(g->disk, g->load.block_bytes),
                                  .length_bytes = g->load.block_bytes};
        if (!g->io[i].buffer) {
            fprintf(stderr, "guest_blk: pool full\n");
            return -1;
        }
        memset(g->io[i].buffer, (int)i, g->load.block_bytes);
    }
    return 0;
}

static int guest_submit(struct guest *g, struct dz_io *io, uint64_t now_ns)
{
    io->offset_bytes = load_next_offset(&g->load);
    g->started_ns[io - g->io] = now_ns;
    return dz_vbd_submit(g->disk, io);
}

static int guest_run(struct guest *g)
{
    struct load *l = &g->load;
    struct dz_io *done[LOAD_QD_MAX];
    unsigned in_flight = 0;
    load_begin(l);
    for (; in_flight < l->qd; in_flight++)
        if (guest_submit(g, &g->io[in_flight], l->start_ns) < 0)
            return -1;
    while (in_flight) {
        int n = dz_vbd_wait(g->disk, done, LOAD_QD_MAX, -1);
        if (n <= 0)
            return -1;
        uint64_t now = clock_now_ns();
        for (int i = 0; i < n; i++) {
            l->errors += done[i]->result != 0;
            hist_add(&l->latency_ns, now - g->started_ns[done[i] - g->io]);
            if (now >= l->end_ns)
                in_flight--;
            else if (guest_submit(g, done[i], now) < 0)
                return -1;
        }
        l->done += (unsigned)n;
    }
    load_end(l);
    return 0;
}

int main(int argc, char **argv)
{
    static struct guest g;
    int status = load_parse(&g.load, argc, argv);
    if (status)
        return status;
    if (g.load.threads > 1) {
        fprintf(stderr, "guest_blk: a disk is used by one thread\n");
        return 1;
    }
    if (guest_setup(&g) < 0)
        return 1;
    if (guest_run(&g) < 0) {
        fprintf(stderr, "guest_blk: %s\n", dz_error());
        return 1;
    }
    struct dz_vbd_stats s;
    dz_vbd_stats(g.disk, &s);
    char extra[128];
    snprintf(extra, sizeof(extra), ", \"sent_per_io\": %.5f, \"received_per_io\": %.5f",
             (double)s.notifications_sent / (double)s.requests, (double)s.notifications_received / (double)s.requests);
    load_print(&g.load, extra);
    dz_vbd_close(g.disk);
    dz_domain_close(g.dom);
    return g.load.errors != 0;
}
