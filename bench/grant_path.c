/* SPDX-License-Identifier: MIT */
/* bench/grant_path.c: what grants cost a request: get and put of each DMA row, for 4 KiB, without and with grants that
 * stay mapped, with nothing else around. Nanoseconds, and where `valgrind --tool=callgrind --toggle-collect=requests`
 * runs it for one row (`grant_path ROW KEEPS COUNT`), instructions: its total divided by COUNT.
 *
 * The guest is this process: one extent, one grant frame, 32 requests in flight that take 256 pages in turn. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/parse.h"
#include "grant/dma.h"

#define PAGES 256u
#define DEPTH 32u
#define GUEST 3

struct guest {
    unsigned char *memory;
    struct grant_entry_v1 *table;
};

static int extent_get(void *ctx, uint16_t domid, uint32_t gfn, struct frame_extent *out)
{
    const struct guest *g = ctx;
    (void)gfn;
    *out = (struct frame_extent){.id = 1, .owner = domid, .frame_count = PAGES, .address = g->memory};
    return 0;
}

static void extent_put(void *ctx, const struct frame_extent *extent)
{
    (void)ctx, (void)extent;
}

static int grant_frame_get(void *ctx, uint16_t domid, uint32_t index, struct gntmap_frame *out)
{
    const struct guest *g = ctx;
    (void)domid, (void)index;
    *out = (struct gntmap_frame){.page = g->table};
    return 0;
}

static void grant_frame_put(void *ctx, uint16_t domid, uint32_t index, void *page)
{
    (void)ctx, (void)domid, (void)index, (void)page;
}

static int32_t buffer_register(void *ctx, uint16_t domid, void *address, size_t length_bytes)
{
    (void)ctx, (void)domid, (void)address, (void)length_bytes;
    return 0;
}

static void buffer_unregister(void *ctx, int32_t index)
{
    (void)ctx, (void)index;
}

struct device {
    struct frametable *frames;
    struct gntmap *map;
    struct gntkeep *keep;
    struct dma *dma;
};

static const struct frametable_ops frame_ops = {extent_get, extent_put};
static const struct gntmap_ops map_ops = {grant_frame_get, grant_frame_put};
static const struct dma_host host = {NULL, buffer_register, buffer_unregister};

static void check(int r)
{
    if (r) {
        fprintf(stderr, "grant_path: %d\n", r);
        exit(1);
    }
}

static void device_open(struct device *d, struct guest *g, const struct dma_strategy *row, bool keeps)
{
    struct err e;
    *d = (struct device){0};
    check(frametable_new(&frame_ops, g, GUEST, &d->frames));
    check(gntmap_new(&map_ops, g, 0, GUEST, d->frames, &d->map));
    if (keeps)
        check(gntkeep_new(d->map, PAGES, &d->keep));
    const struct dma_setup setup = {
        .map = d->map, .keep = d->keep, .frames = d->frames, .host = &host, .requests_max = DEPTH};
    check(row->setup(&setup, &d->dma, &e));
}

static void device_close(struct device *d, const struct dma_strategy *row)
{
    row->teardown(d->dma);
    gntkeep_free(d->keep);
    gntmap_free(d->map);
    frametable_free(d->frames);
}

/* Reads: DEPTH are always under way. */
static __attribute__((noinline)) void requests(struct device *d, const struct dma_strategy *row, uint64_t count)
{
    static _Alignas(16) unsigned char arrays[DEPTH][DMA_IO_BYTES(DMA_SEGMENTS_SMALL)];
    static struct dma_io io[DEPTH];
    for (uint64_t i = 0; i < count + DEPTH; i++) {
        struct dma_io *at = &io[i % DEPTH];
        if (i >= DEPTH)
            check(row->put(d->dma, at, true));
        else
            dma_io_init(at, arrays[i], DMA_SEGMENTS_SMALL);
        const struct dma_segment s = {8 + (uint32_t)(i * 7 % PAGES), 0, PAGE_BYTES};
        if (i < count)
            check(row->get(d->dma, &s, 1, true, at));
    }
}

static void run(struct guest *g, const struct dma_strategy *row, bool keeps, uint64_t count)
{
    struct device d;
    device_open(&d, g, row, keeps);
    uint64_t start = clock_now_ns();
    requests(&d, row, count);
    double ns = (double)(clock_now_ns() - start) / (double)count;
    printf("{\"dma\": \"%s\", \"persistent\": %d, \"ns_per_request\": %.1f}\n", row->name, keeps, ns);
    device_close(&d, row);
}

int main(int argc, char **argv)
{
    struct guest g;
    uint64_t count = 2000000;
    void *p = mmap(NULL, (PAGES + 1) * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || (argc != 1 && (argc != 4 || parse_u64(argv[3], DEPTH, UINT32_MAX, &count)))) {
        fprintf(stderr, "usage: %s [ROW KEEPS COUNT]\n", argv[0]);
        return 2;
    }
    g.memory = p;
    g.table = (void *)(g.memory + PAGES * PAGE_BYTES);
    for (uint32_t i = 0; i < PAGES; i++)
        g.table[8 + i] = (struct grant_entry_v1){.flags = GTF_permit_access, .frame = i};
    for (unsigned i = 0; i < 2 * dma_strategy_count; i++)
        if (argc == 1 || (!strcmp(argv[1], dma_strategies[i / 2]->name) && atoi(argv[2]) == (int)i % 2))
            run(&g, dma_strategies[i / 2], i % 2, count);
    return 0;
}
