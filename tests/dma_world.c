/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tests/dma_world.h"

static int32_t buffer_register(void *ctx, uint16_t domid, void *address, size_t length_bytes)
{
    struct dma_world *f = ctx;
    assert_int_equal(domid, WORLD_GUEST);
    f->registrations++;
    if (f->refuse)
        return f->refuse;
    for (int32_t i = 0; i < BUFFERS_MAX; i++)
        if (!f->buffer[i].address) {
            f->buffer[i] = (struct dma_buffer){address, length_bytes};
            f->in_force++;
            return i;
        }
    return -ENOSPC;
}

static void buffer_unregister(void *ctx, int32_t index)
{
    struct dma_world *f = ctx;
    assert_true(index >= 0 && index < BUFFERS_MAX && f->buffer[index].address);
    f->buffer[index] = (struct dma_buffer){0};
    f->in_force--;
}

/* Memory that goes while the ring holds it registered would be the kernel's to reach after its reuse. */
static void nothing_registered_there(struct grant_world *w, uint32_t id)
{
    struct dma_world *f = w->user;
    for (int32_t i = 0; i < BUFFERS_MAX; i++)
        assert_true(f->buffer[i].address != w->extent[id - 1].host);
}

bool dma_world_keeps;

void dma_world_expire(struct dma_world *f)
{
    for (int i = 0; f->keep && i < 2; i++)
        gntkeep_tick(f->keep, f->now_s += GNTKEEP_IDLE_S);
}

uint32_t dma_world_mapped(const struct dma_world *f)
{
    return gntmap_mapped(f->world.map) - (f->keep ? gntkeep_pages(f->keep) : 0);
}

struct dma *dma_world_device(struct dma_world *f)
{
    const struct dma_setup setup = {.map = f->world.map,
                                    .keep = f->keep,
                                    .frames = f->world.frames,
                                    .host = &f->host,
                                    .requests_max = REQUESTS_MAX,
                                    .large_max = LARGE_MAX};
    struct dma *d = NULL;
    assert_int_equal(f->row->setup(&setup, &d, NULL), 0);
    return d;
}

struct dma_world *dma_world_new(const struct dma_strategy *row, int refuse)
{
    struct dma_world *f = calloc(1, sizeof(*f));
    gworld_open(&f->world);
    gworld_share(&f->world, GFN, 16, false);
    gworld_share(&f->world, GFN_FAR, 2, false);
    gworld_share(&f->world, GFN_RO, 2, true);
    f->world.user = f;
    f->world.on_extent_put = nothing_registered_there;
    f->host = (struct dma_host){f, buffer_register, buffer_unregister};
    f->row = row;
    f->refuse = refuse;
    if (dma_world_keeps)
        assert_int_equal(gntkeep_new(f->world.map, KEEP_PAGES, &f->keep), 0);
    f->dma = dma_world_device(f);
    return f;
}

void dma_world_free(struct dma_world *f)
{
    gntkeep_free(f->keep);
    assert_int_equal(gntmap_mapped(f->world.map), 0);
    assert_int_equal(frametable_pinned(f->world.frames), 0);
    f->row->teardown(f->dma);
    assert_int_equal(f->in_force, 0);
    gworld_close(&f->world);
    free(f);
}

static uint32_t vec_bytes(const struct dma_io *io)
{
    uint32_t sum = 0;
    for (unsigned i = 0; i < io->vec_count; i++)
        sum += io->vec[i].length_bytes;
    return sum;
}

void dma_device_checks(struct dma_world *f, const struct dma_io *io, uint32_t expected_bytes)
{
    assert_true(io->vec_count >= 1 && io->vec_count <= DMA_SEGMENTS_MAX);
    assert_int_equal(vec_bytes(io), expected_bytes);
    for (unsigned i = 0; i < io->vec_count; i++) {
        const struct dma_vec *v = &io->vec[i];
        assert_true(v->length_bytes > 0 && v->buffer_index >= -1 && v->buffer_index < BUFFERS_MAX);
        if (v->buffer_index >= 0) {
            const struct dma_buffer *b = &f->buffer[v->buffer_index];
            assert_non_null(b->address);
            assert_true(v->address >= b->address && v->address + v->length_bytes <= b->address + b->length_bytes);
        }
    }
}

void dma_device_fills(const struct dma_io *io, unsigned char seed)
{
    for (unsigned i = 0; i < io->vec_count; i++)
        for (uint32_t k = 0; k < io->vec[i].length_bytes; k++)
            io->vec[i].address[k] = seed++;
}

void dma_device_expects(const struct dma_io *io, unsigned char seed)
{
    for (unsigned i = 0; i < io->vec_count; i++)
        for (uint32_t k = 0; k < io->vec[i].length_bytes; k++)
            assert_int_equal(io->vec[i].address[k], seed++);
}

int dma_device_request(struct dma_world *f, const struct dma_segment *s, unsigned count, bool to_guest)
{
    DMA_IO(io);
    int r = f->row->get(f->dma, s, count, to_guest, &io);
    if (r == 0) {
        if (to_guest)
            dma_device_fills(&io, 1);
        r = f->row->put(f->dma, &io, true);
    }
    assert_int_equal(dma_world_mapped(f), 0);
    return r;
}
