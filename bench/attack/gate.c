/* SPDX-License-Identifier: MIT */
#include "bench/attack/gate.h"

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <zlib.h>

#include "base/span.h"

static unsigned char filler[GATE_PIPE_BYTES];

static struct gate *gate_of(const struct image *image)
{
    return (struct gate *)(uintptr_t)container_of(image, struct gate, image);
}

static int gate_map(const struct image *image, uint64_t offset_bytes, uint64_t length_bytes, bool write,
                    struct image_extent *out)
{
    struct gate *g = gate_of(image);
    *out = (struct image_extent){.fd = -1, .length_bytes = length_bytes, .kind = IMAGE_NONE};
    if (!span_fits(offset_bytes, length_bytes, GATE_DISK_BYTES)) {
        g->outside++;
        return 1;
    }
    uint64_t *waiting = write ? &g->writing_bytes : &g->reading_bytes;
    if (length_bytes > GATE_PIPE_BYTES - *waiting)
        return -EIO;
    *waiting += length_bytes;
    out->fd = write ? g->to[1] : g->from[0];
    out->kind = IMAGE_DATA;
    return 1;
}

static uint32_t block_sum(const unsigned char *block)
{
    return (uint32_t)crc32(0, block, GATE_BLOCK);
}

static uint32_t delivered_sum(const struct gate *g)
{
    unsigned char block[GATE_BLOCK];
    memset(block, g->delivered, sizeof(block));
    return block_sum(block);
}

static int gate_seal(const struct image *image, enum image_seal event, uint64_t offset_bytes, const unsigned char *data,
                     uint64_t length_bytes)
{
    struct gate *g = gate_of(image);
    const unsigned count = (unsigned)(length_bytes / GATE_BLOCK);
    const uint64_t bad_before = g->bad_sums;
    if (!span_fits(offset_bytes, length_bytes, GATE_DISK_BYTES))
        g->outside++;
    assert(count <= ARRAY_SIZE(g->sum));
    if (event == IMAGE_SEAL_WRITE)
        for (g->sums = 0; g->sums < count; g->sums++)
            g->sum[g->sums] = block_sum(data + (size_t)g->sums * GATE_BLOCK);
    for (unsigned i = 0; event == IMAGE_SEAL_READ && i < count; i++)
        g->bad_sums += block_sum(data + (size_t)i * GATE_BLOCK) != delivered_sum(g);
    return g->bad_sums == bad_before ? 0 : -EIO;
}

bool gate_sums_fit(const struct gate *g, const unsigned char *data, size_t size)
{
    for (unsigned i = 0; i < g->sums && (i + 1) * GATE_BLOCK <= size; i++)
        if (block_sum(data + (size_t)i * GATE_BLOCK) != g->sum[i])
            return false;
    return true;
}

static const struct image_format gate_format = {.name = "gate", .map = gate_map};
static const struct image_format sealed_format = {.name = "sealed gate", .map = gate_map, .seal = gate_seal};

/* One pipe that the image's descriptor reads and writes. */
static int gate_one_pipe(struct gate *g)
{
    char path[32];
    if (pipe2(g->to, O_CLOEXEC | O_NONBLOCK))
        return -1;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", g->to[0]);
    g->from[0] = open(path, O_RDWR | O_CLOEXEC);
    g->from[1] = fcntl(g->to[1], F_DUPFD_CLOEXEC, 0);
    return g->from[0] < 0 || g->from[1] < 0 ? -1 : 0;
}

static int gate_pipes(struct gate *g)
{
    if (g->sealed)
        return gate_one_pipe(g);
    return pipe2(g->from, O_CLOEXEC) || pipe2(g->to, O_CLOEXEC) || fcntl(g->to[0], F_SETFL, O_NONBLOCK) ||
           fcntl(g->from[1], F_SETFL, O_NONBLOCK);
}

int gate_open(struct gate *g, bool sealed)
{
    *g = (struct gate){.from = {-1, -1}, .to = {-1, -1}, .sealed = sealed};
    if (gate_pipes(g))
        return -errno;
    g->image = (struct image){.format = sealed ? &sealed_format : &gate_format,
                              .size_bytes = GATE_DISK_BYTES,
                              .sector_bytes = SECTOR_BYTES,
                              .physical_sector_bytes = SECTOR_BYTES,
                              .align_bytes = sealed ? GATE_BLOCK : SECTOR_BYTES,
                              .memory_align_bytes = SECTOR_BYTES,
                              .span_align_bytes = SECTOR_BYTES,
                              .stable_data = sealed,
                              .realigns = sealed,
                              .edge_fd = -1,
                              .direct_io = true,
                              .fd = g->from[0],
                              .sync_error = &g->sync_error};
    return 0;
}

void gate_close(struct gate *g)
{
    for (int i = 0; i < 2; i++) {
        fd_closep(&g->from[i]);
        fd_closep(&g->to[i]);
    }
}

void gate_shut(struct gate *g)
{
    if (g->full)
        return;
    ssize_t n = write(g->to[1], filler, sizeof(filler));
    assert(n == sizeof(filler)); /* a pipe's usual size */
    g->full = true;
}

void gate_release(struct gate *g, unsigned char byte)
{
    unsigned char data[GATE_PIPE_BYTES];
    memset(data, byte, g->reading_bytes);
    g->delivered = byte;
    ssize_t n = write(g->from[1], data, g->reading_bytes);
    assert(n == (ssize_t)g->reading_bytes);
    g->reading_bytes = g->writing_bytes = 0;
    if (!g->full)
        return;
    for (size_t left = sizeof(data); left; left -= (size_t)n) {
        n = read(g->to[0], data, left);
        assert(n > 0);
    }
    g->full = false;
}

void gate_rest(struct gate *g)
{
    unsigned char data[GATE_PIPE_BYTES];
    int left = 0;
    while (ioctl(g->from[0], FIONREAD, &left) == 0 && left > 0) {
        ssize_t n = read(g->from[0], data, MIN((size_t)left, sizeof(data)));
        assert(n > 0);
    }
    while (read(g->to[0], data, sizeof(data)) > 0)
        ;
    g->sums = 0;
}

size_t gate_written(struct gate *g, unsigned char *out, size_t size)
{
    size_t n = 0;
    for (ssize_t got = 1; got > 0 && n < size; n += (size_t)MAX(got, 0))
        got = read(g->to[0], out + n, size - n);
    return n;
}
