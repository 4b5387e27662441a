/* SPDX-License-Identifier: MIT */
#include "bench/attack/gate.h"

#include <assert.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>

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

static const struct image_format gate_format = {.name = "gate", .map = gate_map};

int gate_open(struct gate *g)
{
    *g = (struct gate){.from = {-1, -1}, .to = {-1, -1}};
    if (pipe2(g->from, O_CLOEXEC) || pipe2(g->to, O_CLOEXEC) || fcntl(g->to[0], F_SETFL, O_NONBLOCK) ||
        fcntl(g->from[1], F_SETFL, O_NONBLOCK))
        return -errno;
    g->image = (struct image){.format = &gate_format,
                              .size_bytes = GATE_DISK_BYTES,
                              .sector_bytes = SECTOR_BYTES,
                              .physical_sector_bytes = SECTOR_BYTES,
                              .align_bytes = SECTOR_BYTES,
                              .memory_align_bytes = SECTOR_BYTES,
                              .span_align_bytes = SECTOR_BYTES,
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
}

size_t gate_written(struct gate *g, unsigned char *out, size_t size)
{
    ssize_t n = read(g->to[0], out, size);
    return n > 0 ? (size_t)n : 0;
}
