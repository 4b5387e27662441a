/* SPDX-License-Identifier: MIT */
/* 05-copy-into-disk: copies a file onto a virtual disk, flushes, reads it back and compares CRC-32 request by request.
 *
 *   build/domzero exec hello -- build/examples/05-copy-into-disk --file README.md xvda
 *   build/domzero exec hello -- build/examples/05-copy-into-disk --bytes 64M --seed 1 xvda    seeded data, no file
 *   build/examples/05-copy-into-disk --make source.bin --bytes 64M --seed 1                   the same data as a file
 *
 * The domain is that of examples/hello.cfg; the result is JSON. What to look at: 32 requests in flight, the whole ring,
 * from buffers of the pool, so nothing is copied; one wait publishes all that was submitted before it. */
#include <domzero/domzero.h>
#include <getopt.h>
#include <stdio.h>
#include <time.h>
#include <zlib.h>

#include "examples/source.h"

#define DEPTH_MAX       32u
#define PIECE_BYTES_MAX (64u << 10) /* of a request: 32 of them are half of the pool that a disk has by default */

static struct dz_vbd *disk;
static struct dz_vbd_info info;
static struct source source = {.fd = -1};
static uint32_t piece_bytes, depth, *crc; /* crc: of each request's data */
static double *latency_us;                /* of each request, as they finish */

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void request_submit(struct dz_io *io, enum dz_op op, uint64_t index)
{
    uint64_t at = index * piece_bytes, left = source.bytes - at;
    io->op = op, io->offset_bytes = at, io->length_bytes = piece_bytes;
    if (left < piece_bytes) /* the last: whole sectors */
        io->length_bytes = (uint32_t)((left + info.sector_bytes - 1) / info.sector_bytes * info.sector_bytes);
    if (op == DZ_WRITE) {
        source_read(&source, io->buffer, io->length_bytes, at);
        crc[index] = (uint32_t)crc32(0, io->buffer, io->length_bytes);
    }
    *(double *)io->user = now_us();
    if (dz_vbd_submit(disk, io) < 0)
        errx(1, "%s", dz_error());
}

static void request_check(const struct dz_io *io)
{
    if (io->result < 0)
        errx(1, "byte %llu: %s", (unsigned long long)io->offset_bytes, strerror(-io->result));
    if (io->op == DZ_READ && crc[io->offset_bytes / piece_bytes] != crc32(0, io->buffer, io->length_bytes))
        errx(1, "byte %llu: not what was written", (unsigned long long)io->offset_bytes);
}

static int by_value(const void *a, const void *b)
{
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

/* All of it in one direction; its measurements as JSON. */
static void run(enum dz_op op, struct dz_io *io, FILE *report)
{
    struct dz_io *done[DEPTH_MAX];
    struct dz_vbd_stats before, after;
    uint64_t submitted = 0, finished = 0, total = (source.bytes - 1) / piece_bytes + 1;
    const char *name = op == DZ_WRITE ? "write" : "read";
    double start = now_us();
    dz_vbd_stats(disk, &before);
    for (; submitted < total && submitted < depth; submitted++)
        request_submit(&io[submitted], op, submitted);
    while (finished < total) {
        int n = dz_vbd_wait(disk, done, depth, -1);
        for (int i = 0; i < n; i++) {
            request_check(done[i]);
            latency_us[finished++] = now_us() - *(double *)done[i]->user;
            if (submitted < total)
                request_submit(done[i], op, submitted++);
        }
        if (isatty(2) && finished * 100 / total != (finished - (uint64_t)n) * 100 / total)
            fprintf(stderr, "\r%s %3.0f %%%s", name, 100.0 * (double)finished / (double)total,
                    finished < total ? "" : "\n");
    }
    if (op == DZ_WRITE && dz_vbd_flush(disk) < 0)
        errx(1, "flush: %s", dz_error());
    double seconds = (now_us() - start) / 1e6;
    dz_vbd_stats(disk, &after);
    qsort(latency_us, total, sizeof(double), by_value);
    fprintf(report,
            "\"%s\": {\"seconds\": %.3f, \"iops\": %.0f, \"p50_us\": %.1f, \"p99_us\": %.1f, "
            "\"notifications_per_request\": %.3f}",
            name, seconds, (double)total / seconds, latency_us[total / 2], latency_us[total * 99 / 100],
            (double)(after.notifications_sent - before.notifications_sent) / (double)total);
}

static void copy(FILE *report, const char *vdev)
{
    static struct dz_io io[DEPTH_MAX];
    static double started_us[DEPTH_MAX];
    struct dz_domain *dom;
    if (dz_domain_open(NULL, &dom) < 0 || dz_vbd_open(dom, vdev, NULL, &disk) < 0)
        errx(1, "%s", dz_error());
    dz_vbd_info(disk, &info);
    piece_bytes = info.request_bytes_max < PIECE_BYTES_MAX ? info.request_bytes_max : PIECE_BYTES_MAX;
    depth = info.queue_depth < DEPTH_MAX ? info.queue_depth : DEPTH_MAX;
    if (source.bytes > info.size_bytes)
        errx(1, "%llu bytes do not fit onto %s", (unsigned long long)source.bytes, vdev);
    size_t total = source.bytes / piece_bytes + 1;
    crc = calloc(total, sizeof(*crc));
    latency_us = calloc(total, sizeof(*latency_us));
    for (uint32_t i = 0; i < depth; i++)
        io[i] = (struct dz_io){.buffer = dz_buffer_alloc(disk, piece_bytes), .user = &started_us[i]};
    fprintf(report, "{\"bytes\": %llu, ", (unsigned long long)source.bytes);
    run(DZ_WRITE, io, report);
    fprintf(report, ", ");
    run(DZ_READ, io, report);
    fprintf(report, ", \"verified\": true}\n");
    dz_vbd_close(disk);
    dz_domain_close(dom);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"file", required_argument, NULL, 'f'},   {"bytes", required_argument, NULL, 'b'},
        {"seed", required_argument, NULL, 's'},   {"make", required_argument, NULL, 'm'},
        {"report", required_argument, NULL, 'r'}, {0},
    };
    const char *make = NULL;
    FILE *report = stdout;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 'f')
            source_open(&source, optarg);
        else if (c == 'b')
            source.bytes = source_size_parse(optarg);
        else if (c == 's')
            source.seed = strtoull(optarg, NULL, 0);
        else if (c == 'm')
            make = optarg;
        else if (c != 'r' || !(report = fopen(optarg, "w")))
            errx(2, "no such option, or the report cannot be written");
    }
    if (!source.bytes || optind + !make != argc)
        errx(2, "usage: 05-copy-into-disk --file FILE | --bytes SIZE [--seed N]  [--report FILE] DISK | --make FILE");
    make ? source_save(&source, make) : copy(report, argv[optind]);
    return fclose(report) ? 1 : 0;
}
