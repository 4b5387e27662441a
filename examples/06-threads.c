/* SPDX-License-Identifier: MIT */
/* 06-threads: the CRC-32 of a virtual disk, by several threads, each with a queue of the disk for itself.
 *
 *   build/domzero exec hello -- build/examples/06-threads --threads 2 xvda
 *
 * The domain is that of examples/hello.cfg. What to look at: a thread keeps eight requests in flight on its queue and
 * shares nothing with the others, so there is no lock of ours and none of the library's; the backend may offer fewer
 * queues than were asked for, so the disk says how many threads there are.
 */
#include <domzero/domzero.h>
#include <err.h>
#include <getopt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define DEPTH       8u
#define PIECE_BYTES (64u << 10)
#define THREADS_MAX 16u

static struct dz_vbd *disk;
static struct dz_vbd_info info;
static uint32_t piece_bytes, *crc; /* of each piece */

struct part {
    pthread_t thread;
    struct dz_queue *queue;
    uint64_t first, end; /* pieces */
};

static void piece_submit(const struct part *p, struct dz_io *io, uint64_t piece)
{
    uint64_t left = info.size_bytes - piece * piece_bytes;
    io->op = DZ_READ;
    io->offset_bytes = piece * piece_bytes;
    io->length_bytes = left < piece_bytes ? (uint32_t)left : piece_bytes;
    if (dz_queue_submit(p->queue, io) < 0)
        errx(1, "%s", dz_error());
}

static void piece_done(const struct dz_io *io)
{
    if (io->result < 0)
        errx(1, "byte %llu: %s", (unsigned long long)io->offset_bytes, strerror(-io->result));
    crc[io->offset_bytes / piece_bytes] = (uint32_t)crc32(0, io->buffer, io->length_bytes);
}

static void *part_run(void *arg)
{
    struct part *p = arg;
    struct dz_io io[DEPTH] = {0}, *done[DEPTH];
    uint64_t next = p->first, finished = p->first;
    for (unsigned i = 0; i < DEPTH; i++) {
        io[i].buffer = dz_buffer_alloc(disk, piece_bytes);
        if (!io[i].buffer)
            errx(1, "the pool is too small");
        if (next < p->end)
            piece_submit(p, &io[i], next++);
    }
    while (finished < p->end) {
        int n = dz_queue_wait(p->queue, done, DEPTH, -1);
        for (int i = 0; i < n; i++, finished++) {
            piece_done(done[i]);
            if (next < p->end)
                piece_submit(p, done[i], next++);
        }
    }
    return NULL; /* the buffers go with the disk */
}

static uint32_t disk_crc(uint64_t pieces)
{
    struct part part[THREADS_MAX];
    uLong sum = crc32(0, NULL, 0);
    for (unsigned i = 0; i < info.queues; i++) {
        part[i] = (struct part){
            .queue = dz_vbd_queue(disk, i), .first = pieces * i / info.queues, .end = pieces * (i + 1) / info.queues};
        if (pthread_create(&part[i].thread, NULL, part_run, &part[i]))
            errx(1, "no thread");
    }
    for (unsigned i = 0; i < info.queues; i++)
        pthread_join(part[i].thread, NULL);
    for (uint64_t i = 0; i < pieces; i++) {
        uint64_t left = info.size_bytes - i * piece_bytes;
        sum = crc32_combine(sum, crc[i], (z_off_t)(left < piece_bytes ? left : piece_bytes));
    }
    return (uint32_t)sum;
}

int main(int argc, char **argv)
{
    static const struct option long_options[] = {{"threads", required_argument, NULL, 't'}, {0}};
    struct dz_vbd_options options = {.queues = 2, .pool_bytes = THREADS_MAX * DEPTH * PIECE_BYTES};
    struct dz_domain *dom;
    for (int c; (c = getopt_long(argc, argv, "", long_options, NULL)) != -1;)
        options.queues = c == 't' ? (uint32_t)atoi(optarg) : 0;
    if (optind + 1 != argc || !options.queues || options.queues > THREADS_MAX)
        errx(2, "usage: 06-threads [--threads 1…16] DISK");
    if (dz_domain_open(NULL, &dom) < 0 || dz_vbd_open(dom, argv[optind], &options, &disk) < 0)
        errx(1, "%s", dz_error());
    dz_vbd_info(disk, &info);
    piece_bytes = info.request_bytes_max < PIECE_BYTES ? info.request_bytes_max : PIECE_BYTES;
    uint64_t pieces = (info.size_bytes + piece_bytes - 1) / piece_bytes;
    crc = calloc(pieces, sizeof(*crc));
    if (!crc)
        errx(1, "no memory");
    printf("%08x, by %u threads\n", disk_crc(pieces), info.queues);
    dz_vbd_close(disk);
    dz_domain_close(dom);
    return fflush(stdout) ? 1 : 0;
}
