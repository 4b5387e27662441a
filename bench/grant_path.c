/* SPDX-License-Identifier: MIT */
/* bench/grant_path.c: what grants cost a request: get and put of each DMA row, for 4 KiB, without and with grants that
 * stay mapped (KEEPS 0, 1), and of pages that are mapped to bus addresses (2), with nothing else around. Nanoseconds,
 * and where `valgrind --tool=callgrind --toggle-collect=requests` runs it for one row (`grant_path ROW KEEPS COUNT`),
 * instructions: its total divided by COUNT.
 *
 * The guest is this process: one extent, one grant frame, 32 requests in flight that take 256 pages in turn. */
#include <string.h>

#include "base/clock.h"
#include "base/parse.h"
#include "bench/grant_guest.h"

#define DEPTH 32u

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
    struct iommu *unit; /* these two: of bus pages */
    struct iommu_space *space;
    uint32_t first; /* the reference of the first page: a grant's or a bus page's */
};

/* What a request's pages are named by. */
enum way { GRANTS, KEPT_GRANTS, BUS_PAGES, WAYS };

static const struct dma_host host = {NULL, buffer_register, buffer_unregister};

static void check(int r)
{
    if (r) {
        fprintf(stderr, "grant_path: %d\n", r);
        exit(1);
    }
}

/* All of the guest's pages, mapped once. */
static void bus_open(struct device *d)
{
    const struct iommu_limits limits = {.pages_max = GUEST_PAGES, .tables_max = 16};
    uint32_t frames[GUEST_PAGES];
    uint64_t first = IOMMU_ANY;
    for (uint32_t i = 0; i < GUEST_PAGES; i++)
        frames[i] = i;
    check(iommu_new(&d->unit));
    check(iommu_space_new(d->unit, GUEST, 0, IOMMU_BUS_BITS_MAX, IOMMU_STRICT, &limits, &d->space));
    check(iommu_map(d->space, &first, frames, GUEST_PAGES, IOMMU_READ | IOMMU_WRITE));
    d->first = (uint32_t)first;
}

static void unmapped(struct iommu_unmap *u)
{
    (void)u;
}

static void bus_close(struct device *d)
{
    struct iommu_unmap all = {.done = unmapped};
    if (d->space)
        check(iommu_unmap(d->space, d->first, GUEST_PAGES, &all));
    iommu_space_free(d->space);
    iommu_free(d->unit);
}

static void device_open(struct device *d, struct guest *g, const struct dma_strategy *row, enum way way)
{
    struct err e;
    *d = (struct device){.first = GUEST_GREF};
    if (way == BUS_PAGES)
        bus_open(d);
    check(frametable_new(&guest_frame_ops, g, GUEST, &d->frames));
    check(gntmap_new(&guest_map_ops, g, 0, GUEST, d->frames, &d->map));
    if (way == KEPT_GRANTS)
        check(gntkeep_new(d->map, GUEST_PAGES, &d->keep));
    const struct dma_setup setup = {
        .map = d->map, .keep = d->keep, .frames = d->frames, .host = &host, .requests_max = DEPTH, .space = d->space};
    check(row->setup(&setup, &d->dma, &e));
}

static void device_close(struct device *d, const struct dma_strategy *row)
{
    row->teardown(d->dma);
    gntkeep_free(d->keep);
    gntmap_free(d->map);
    frametable_free(d->frames);
    bus_close(d);
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
        at->segment[0] = (struct dma_segment){d->first + (uint32_t)(i * 7 % GUEST_PAGES), 0, PAGE_BYTES};
        if (i < count)
            check(row->get(d->dma, at->segment, 1, true, at));
    }
}

static void run(struct guest *g, const struct dma_strategy *row, enum way way, uint64_t count)
{
    struct device d;
    device_open(&d, g, row, way);
    uint64_t start = clock_now_ns();
    requests(&d, row, count);
    double ns = (double)(clock_now_ns() - start) / (double)count;
    printf("{\"dma\": \"%s\", \"persistent\": %d, \"bus\": %d, \"ns_per_request\": %.1f}\n", row->name,
           way == KEPT_GRANTS, way == BUS_PAGES, ns);
    device_close(&d, row);
}

int main(int argc, char **argv)
{
    struct guest g;
    uint64_t count = 2000000;
    if ((argc != 1 && (argc != 4 || parse_u64(argv[3], DEPTH, UINT32_MAX, &count))) || !guest_make(&g)) {
        fprintf(stderr, "usage: %s [ROW KEEPS COUNT]\n", argv[0]);
        return 2;
    }
    for (unsigned i = 0; i < WAYS * dma_strategy_count; i++) {
        const struct dma_strategy *row = dma_strategies[i / WAYS];
        if (i % WAYS == BUS_PAGES && row != &dma_iommu)
            continue;
        if (argc == 1 || (!strcmp(argv[1], row->name) && atoi(argv[2]) == (int)(i % WAYS)))
            run(&g, row, i % WAYS, count);
    }
    return 0;
}
