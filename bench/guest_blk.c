/* SPDX-License-Identifier: MIT */
/* bench/guest_blk.c: the load from inside a guest: run by `domzero exec`, through libdomzero, with buffers of the
 * granted pool. -p polls for responses all the time, -a for a short window before it sleeps; otherwise it sleeps at
 * once. -j N: a queue of the disk for each of N threads.
 *
 * Each request has a buffer of its own. -m BYTES gives the pool a size: where it is too small for that, requests share
 * buffers; with -W they go round all of it in an order that no prefetcher knows, so that of a pool larger than the
 * caches each buffer is cold. -T: the program looks at all that was read, and fills what is to be written. -G: the
 * backend does not keep the pool mapped from request to request. */
#include <domzero/domzero.h>
#include <stdlib.h>

#include "bench/load.h"

#define ADAPTIVE_SPIN_US 100        /* as domzerod's default */
#define POOL_BYTES_MIN   (4u << 20) /* the library's default */

/* A thread with its queue. */
struct guest {
    struct load_thread thread;
    struct dz_queue *queue;
    void **buffer;
    unsigned buffer_count, buffer_next;
    uint64_t seen; /* of what -T looks at, lest the compiler leaves it out */
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
    uint64_t data_bytes = l->pool_bytes ? l->pool_bytes : (uint64_t)l->qd * l->block_bytes * l->threads;
    struct dz_vbd_options options = {.queue_depth = l->qd, .queues = l->threads, .no_persistent = l->per_request};
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

/* All that the thread's share of the pool holds where it is to be walked, else one for each request. */
static bool buffers_make(struct guest *g)
{
    const struct load *l = &g->thread.load;
    unsigned wanted = l->walk ? l->pool_bytes / l->threads / l->block_bytes : l->qd;
    g->buffer = calloc(MAX(wanted, 1), sizeof(*g->buffer));
    while (g->buffer && g->buffer_count < wanted) {
        void *b = dz_buffer_alloc(disk, l->block_bytes);
        if (!b)
            break;
        memset(b, (int)g->buffer_count, l->block_bytes);
        g->buffer[g->buffer_count++] = b;
    }
    return g->buffer_count && (l->pool_bytes || g->buffer_count == wanted);
}

static void buffers_shuffle(struct guest *g)
{
    uint64_t random = g->thread.load.random;
    for (unsigned i = g->buffer_count; i > 1; i--) {
        random = random * 6364136223846793005ull + 1442695040888963407ull;
        unsigned j = (unsigned)((random >> 33) % i);
        void *swapped = g->buffer[i - 1];
        g->buffer[i - 1] = g->buffer[j];
        g->buffer[j] = swapped;
    }
}

static bool guest_setup(struct load_thread *t)
{
    struct guest *g = container_of(t, struct guest, thread);
    g->queue = dz_vbd_queue(disk, t->index);
    if (!buffers_make(g))
        return guest_fail("the pool is full");
    if (t->load.walk)
        buffers_shuffle(g);
    for (unsigned i = 0; i < t->load.qd; i++)
        g->io[i] = (struct dz_io){.op = t->load.write ? DZ_WRITE : DZ_READ,
                                  .buffer = g->buffer[i % g->buffer_count],
                                  .length_bytes = t->load.block_bytes};
    return true;
}

/* A program that uses its data. */
static void guest_touch(struct guest *g, const struct dz_io *io)
{
    const uint64_t *word = io->buffer;
    if (g->thread.load.write)
        memset(io->buffer, (int)g->buffer_next, io->length_bytes);
    else
        for (size_t i = 0; i < io->length_bytes / sizeof(*word); i++)
            g->seen += word[i];
}

static int guest_submit(struct guest *g, struct dz_io *io, uint64_t now_ns)
{
    const struct load *l = &g->thread.load;
    io->offset_bytes = load_next_offset(&g->thread.load);
    if (l->walk) {
        io->buffer = g->buffer[g->buffer_next];
        g->buffer_next = g->buffer_next + 1 < g->buffer_count ? g->buffer_next + 1 : 0;
    }
    if (l->touch && l->write)
        guest_touch(g, io);
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
            if (l->touch && !l->write)
                guest_touch(g, done[i]);
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
    uint64_t seen = 0;
    for (unsigned i = 0; i < l.threads; i++) {
        seen += part[i].seen;
        free(part[i].buffer);
    }
    char extra[160];
    snprintf(extra, sizeof(extra), ", \"sent_per_io\": %.5f, \"received_per_io\": %.5f, \"touched\": %llu",
             (double)s.notifications_sent / (double)s.requests, (double)s.notifications_received / (double)s.requests,
             (unsigned long long)seen);
    load_print(&l, extra);
    dz_vbd_close(disk);
    dz_domain_close(dom);
    return l.errors != 0;
}
