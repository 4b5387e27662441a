/* SPDX-License-Identifier: MIT */
/* bench/dma_primitives.c: what the strategies are made of, each alone: nanoseconds of one check, one pin, one
 * registration with the kernel, one translation, one copy. JSON: the median over the rounds, the least and the most.
 *
 *   dma_primitives [ROUNDS [COUNT]]    11 rounds, in which all take turns; in each COUNT (16384) times
 *
 * Hot is what was used just now: a few pages that fit the first cache, the same all the time. Cold is what was not for
 * long: pages in an order that no prefetcher knows, of arenas that are each COLD_CACHES times as large as the last
 * cache and at least COLD_BYTES_MIN, through which the rounds go on and on, so that a page comes again when all others
 * have been. Memory is as a guest's extents are, shared and of 4 KiB pages, and was touched before, so nothing here is
 * a page's making but where it says so. Times are of runs of BATCH, between two readings of the clock. */
#include <liburing.h>
#include <pthread.h>
#include <string.h>

#include "base/clock.h"
#include "base/parse.h"
#include "bench/grant_guest.h"
#include "grant/gntmap_active.h"
#include "grant/iommu.h"

#define BATCH          GUEST_PAGES
#define HOT_PAIRS      4u
#define COLD_CACHES    4u
#define COLD_BYTES_MIN (128u << 20)
#define IOTLB_ENTRIES  1024u
#define HIT_PAGES      32u                 /* of requests in flight: translated again and again */
#define MISS_PAGES     (8 * IOTLB_ENTRIES) /* one after another, so each is forgotten when it comes again */
#define BUS_MAPPED     512u                /* a bus page, from which on MISS_PAGES are mapped */
#define BUS_FREE       65536u              /* and one from which on none are */
#define ROUNDS_MAX     101u
#define NOT_HERE       (-1.0) /* what is not printed */

struct arena {
    unsigned char *bytes;
    uint32_t *order; /* of its pages */
    uint32_t pages, next;
};

/* An address space and a queue's view of it. */
struct translation {
    struct iommu_space *space;
    struct iotlb *tlb;
};

struct bench {
    struct guest guest;
    struct frametable *frames;
    struct gntmap *map, *kept; /* `kept` has all of its references mapped already */
    struct gntkeep *keep;
    struct io_uring ring;
    bool refused; /* a page to register with it */
    struct iommu *iommu;
    struct translation strict, deferred;
    struct arena from, to;
    unsigned char *hot; /* HOT_PAIRS of pages */
    int fd;             /* of one page */
    uint64_t random;
};

static void check(bool good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "dma_primitives: %s\n", what);
    exit(1);
}

/* ---- grants and frames ---- */

/* Two halves of one thing, as their halves are to be told apart. */
struct halves {
    uint64_t first_ns, second_ns;
};

static double per(uint64_t ns, uint32_t count)
{
    return (double)ns / count;
}

static double map_unmap(struct gntmap *m, struct gntkeep *keep, uint32_t count)
{
    struct active_entry *a;
    uint64_t begin = clock_now_ns();
    for (uint32_t i = 0; i < count; i++) {
        uint32_t gref = GUEST_GREF + i % GUEST_PAGES;
        check(!active_map(m, keep, gref, true, &a), "a grant cannot be mapped");
        active_unmap(m, gref, true);
    }
    return per(clock_now_ns() - begin, count);
}

static double validate(struct bench *b, uint32_t count)
{
    return map_unmap(b->map, NULL, count);
}

static double validate_kept(struct bench *b, uint32_t count)
{
    return map_unmap(b->kept, b->keep, count);
}

static struct halves maps(struct bench *b, uint32_t count)
{
    struct halves h = {0};
    struct active_entry *a;
    for (uint32_t n = 0; n < count; n += BATCH) {
        uint64_t begin = clock_now_ns();
        for (uint32_t i = 0; i < BATCH; i++)
            check(!active_map(b->map, NULL, GUEST_GREF + i, true, &a), "a grant cannot be mapped");
        uint64_t middle = clock_now_ns();
        for (uint32_t i = 0; i < BATCH; i++)
            active_unmap(b->map, GUEST_GREF + i, true);
        h.first_ns += middle - begin;
        h.second_ns += clock_now_ns() - middle;
    }
    return h;
}

static double pin(struct bench *b, uint32_t count)
{
    return per(maps(b, count).first_ns, count);
}

static double unpin(struct bench *b, uint32_t count)
{
    return per(maps(b, count).second_ns, count);
}

static double pin_frame(struct bench *b, uint32_t count)
{
    struct frame_extent *x;
    unsigned char *address;
    uint64_t begin = clock_now_ns();
    for (uint32_t i = 0; i < count; i++) {
        check(!frametable_pin(b->frames, i % GUEST_PAGES, true, &x, &address), "a frame cannot be pinned");
        frametable_unpin(b->frames, x, i % GUEST_PAGES);
    }
    return per(clock_now_ns() - begin, count);
}

/* ---- the kernel ---- */

/* An ordinary user may not lock as much as he likes: then it is not measured. */
static void buffer_update(struct bench *b, unsigned index, void *page)
{
    struct iovec iov = {page, page ? PAGE_BYTES : 0};
    __u64 tag = 0;
    b->refused |= io_uring_register_buffers_update_tag(&b->ring, index, &iov, &tag, 1) != 1;
}

static struct halves registrations(struct bench *b, uint32_t count)
{
    struct halves h = {0};
    for (uint32_t n = 0; n < count; n += BATCH) {
        uint64_t begin = clock_now_ns();
        for (uint32_t i = 0; i < BATCH; i++)
            buffer_update(b, i, b->guest.memory + i * PAGE_BYTES);
        uint64_t middle = clock_now_ns();
        for (uint32_t i = 0; i < BATCH; i++)
            buffer_update(b, i, NULL);
        h.first_ns += middle - begin;
        h.second_ns += clock_now_ns() - middle;
    }
    return h;
}

static double pin_kernel(struct bench *b, uint32_t count)
{
    uint64_t ns = registrations(b, count).first_ns;
    return b->refused ? NOT_HERE : per(ns, count);
}

static double unpin_kernel(struct bench *b, uint32_t count)
{
    uint64_t ns = registrations(b, count).second_ns;
    return b->refused ? NOT_HERE : per(ns, count);
}

static double mmap_munmap(struct bench *b, uint32_t count)
{
    count /= 8; /* it takes microseconds */
    uint64_t begin = clock_now_ns();
    for (uint32_t i = 0; i < count; i++) {
        unsigned char *p = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, b->fd, 0);
        check(p != MAP_FAILED, "a page cannot be mapped");
        *(volatile unsigned char *)p = 1;
        munmap(p, PAGE_BYTES);
    }
    return per(clock_now_ns() - begin, count);
}

static void *run_until(void *arg)
{
    atomic_bool *end = arg;
    while (!atomic_load_explicit(end, memory_order_relaxed))
        ;
    return NULL;
}

static double beside_a_thread(struct bench *b, uint32_t count, double (*ns)(struct bench *b, uint32_t count))
{
    atomic_bool end = false;
    pthread_t other;
    check(!pthread_create(&other, NULL, run_until, &end), "no thread can be had");
    double took = ns(b, count);
    atomic_store(&end, true);
    pthread_join(other, NULL);
    return took;
}

static double mmap_munmap_threads(struct bench *b, uint32_t count)
{
    return beside_a_thread(b, count, mmap_munmap);
}

/* ---- the IOMMU ---- */

static int frame_hold(void *ctx, uint32_t frame, bool write, unsigned char **address, void **handle)
{
    struct bench *b = ctx;
    return frametable_pin(b->frames, frame, write, (struct frame_extent **)handle, address);
}

static void frame_release(void *ctx, uint32_t frame, void *handle)
{
    struct bench *b = ctx;
    frametable_unpin(b->frames, handle, frame);
}

static const struct iotlb_ops iotlb_ops = {frame_hold, frame_release};

static void unmap_done(struct iommu_unmap *u)
{
    (void)u;
}

static void translate(struct translation *t, uint64_t bus_page)
{
    struct iotlb_entry *e;
    check(!iotlb_get(t->tlb, bus_page, true, &e), "a bus address cannot be translated");
    iotlb_put(t->tlb, e);
}

/* The share that the IOTLB did not remember must be what the primitive is named for. */
static double translations(struct bench *b, uint32_t count, uint32_t pages, bool hits)
{
    struct translation *t = &b->strict;
    struct iotlb_stats before, after;
    for (uint32_t i = 0; i < pages; i++)
        translate(t, BUS_MAPPED + i);
    iotlb_stats(t->tlb, &before);
    uint64_t begin = clock_now_ns();
    for (uint32_t i = 0; i < count; i++)
        translate(t, BUS_MAPPED + i % pages);
    uint64_t ns = clock_now_ns() - begin;
    iotlb_stats(t->tlb, &after);
    check(hits ? after.misses == before.misses : after.hits == before.hits, "the IOTLB remembers what it should not");
    return per(ns, count);
}

static double iotlb_hit(struct bench *b, uint32_t count)
{
    return translations(b, count, HIT_PAGES, true);
}

static double iotlb_miss(struct bench *b, uint32_t count)
{
    return translations(b, count, MISS_PAGES, false);
}

static void bus_map(struct translation *t, uint64_t bus_page, uint32_t frame)
{
    check(!iommu_map(t->space, &bus_page, &frame, 1, IOMMU_READ | IOMMU_WRITE), "a bus address cannot be mapped");
}

/* Pages are mapped, used once, so that there is something to forget, and unmapped: one by one. */
static struct halves bus_maps(struct translation *t, uint32_t count)
{
    static struct iommu_unmap unmap[BATCH];
    struct halves h = {0};
    for (uint32_t n = 0; n < count; n += BATCH) {
        uint64_t begin = clock_now_ns();
        for (uint32_t i = 0; i < BATCH; i++)
            bus_map(t, BUS_FREE + i, i);
        uint64_t middle = clock_now_ns();
        h.first_ns += middle - begin;
        for (uint32_t i = 0; i < BATCH; i++)
            translate(t, BUS_FREE + i);
        begin = clock_now_ns();
        for (uint32_t i = 0; i < BATCH; i++) {
            unmap[i].done = unmap_done;
            check(!iommu_unmap(t->space, BUS_FREE + i, 1, &unmap[i]), "a bus address cannot be unmapped");
        }
        iommu_flush(t->space);
        iotlb_turn(t->tlb);
        h.second_ns += clock_now_ns() - begin;
    }
    return h;
}

static double bus_map_alone(struct bench *b, uint32_t count)
{
    return per(bus_maps(&b->strict, count).first_ns, count);
}

static double bus_unmap_strict(struct bench *b, uint32_t count)
{
    return per(bus_maps(&b->strict, count).second_ns, count);
}

static double bus_unmap_deferred(struct bench *b, uint32_t count)
{
    return per(bus_maps(&b->deferred, count).second_ns, count);
}

static double bus_unmap_threads(struct bench *b, uint32_t count)
{
    return beside_a_thread(b, count, bus_unmap_strict);
}

/* ---- copies ---- */

static inline unsigned char *arena_page(struct arena *a)
{
    unsigned char *page = a->bytes + (size_t)a->order[a->next] * PAGE_BYTES;
    a->next = a->next + 1 < a->pages ? a->next + 1 : 0;
    return page;
}

/* As the strategy does it: of a length that the compiler does not know. */
static double copy(struct bench *b, uint32_t count, bool from_cold, bool to_cold)
{
    volatile uint32_t length_bytes = PAGE_BYTES;
    uint64_t begin = clock_now_ns();
    for (uint32_t i = 0; i < count; i++) {
        unsigned char *hot = b->hot + (size_t)(i % HOT_PAIRS) * 2 * PAGE_BYTES;
        unsigned char *from = from_cold ? arena_page(&b->from) : hot,
                      *to = to_cold ? arena_page(&b->to) : hot + PAGE_BYTES;
        memcpy(to, from, length_bytes);
        __asm__ volatile("" ::: "memory");
    }
    return per(clock_now_ns() - begin, count);
}

static double copy_hot(struct bench *b, uint32_t count)
{
    return copy(b, count, false, false);
}

static double copy_cold(struct bench *b, uint32_t count)
{
    return copy(b, count, true, true);
}

static double copy_to_cold(struct bench *b, uint32_t count)
{
    return copy(b, count, false, true);
}

static double copy_from_cold(struct bench *b, uint32_t count)
{
    return copy(b, count, true, false);
}

/* ---- all of it ---- */

static const struct primitive {
    const char *name, *what;
    double (*ns)(struct bench *b, uint32_t count);
} primitives[] = {
    {"validate", "a grant checked by all its rules and let go again: map and unmap of a page at once", validate},
    {"validate-kept", "the same of a grant that stays mapped: a look at private memory", validate_kept},
    {"pin", "a grant checked, its active entry and its frame pinned: map of a page that stays in use", pin},
    {"unpin", "both unpinned, the marks in the grant cleared: its unmap", unpin},
    {"pin-frame", "of these two: a frame pinned and unpinned in the frame table", pin_frame},
    {"pin-kernel", "a page registered with io_uring, for one request", pin_kernel},
    {"unpin-kernel", "its registration given back", unpin_kernel},
    {"copy-4k-hot", "4 KiB copied, both pages in the first cache", copy_hot},
    {"copy-4k-cold", "4 KiB copied, neither page in any cache", copy_cold},
    {"copy-4k-to-cold", "4 KiB copied to a page that is in no cache: read from disk into a cold pool", copy_to_cold},
    {"copy-4k-from-cold", "4 KiB copied from a page that is in no cache: written to disk of a cold pool",
     copy_from_cold},
    {"iommu-map", "a page mapped to a bus address", bus_map_alone},
    {"iommu-unmap-strict", "its unmap: the entry cleared, each IOTLB told, nothing under way", bus_unmap_strict},
    {"iommu-unmap-strict-threads", "the same beside a second thread that runs", bus_unmap_threads},
    {"iommu-unmap-deferred", "its unmap where 256 are told of together", bus_unmap_deferred},
    {"iotlb-hit", "a bus address translated that the queue remembers, and let go", iotlb_hit},
    {"iotlb-miss", "one that it does not: a walk of the tree, its frame pinned, another's unpinned", iotlb_miss},
    {"mmap-munmap", "a page mapped into the process, touched, unmapped", mmap_munmap},
    {"mmap-munmap-threads", "the same beside a second thread that runs", mmap_munmap_threads},
};
#define PRIMITIVES ARRAY_SIZE(primitives)

/* As the kernel has it for the first processor: the C library's figure may be of all processors of the host. */
static size_t last_cache_bytes(void)
{
    uint64_t most = 0, bytes;
    for (unsigned i = 0; i < 8; i++) {
        char path[64], text[32] = "";
        snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu0/cache/index%u/size", i);
        FILE *f = fopen(path, "r");
        if (!f)
            break;
        if (fgets(text, sizeof(text), f) && !parse_size(strtok(text, "\n"), &bytes))
            most = MAX(most, bytes);
        fclose(f);
    }
    return (size_t)most;
}

static void *pages_make(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    check(p != MAP_FAILED, "no memory");
    madvise(p, bytes, MADV_NOHUGEPAGE);
    memset(p, 1, bytes);
    return p;
}

static uint32_t random_below(struct bench *b, uint32_t limit)
{
    b->random = b->random * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)((b->random >> 33) % limit);
}

static void arena_make(struct bench *b, struct arena *a)
{
    size_t bytes = MAX(COLD_CACHES * last_cache_bytes(), (size_t)COLD_BYTES_MIN);
    *a = (struct arena){.bytes = pages_make(bytes), .pages = (uint32_t)(bytes / PAGE_BYTES)};
    a->order = calloc(a->pages, sizeof(*a->order));
    check(a->order, "no memory");
    for (uint32_t i = 0; i < a->pages; i++) {
        uint32_t at = random_below(b, i + 1);
        a->order[i] = a->order[at];
        a->order[at] = i;
    }
}

static void translation_make(struct bench *b, struct translation *t, enum iommu_flush_mode mode)
{
    const struct iommu_limits limits = {.pages_max = 1u << 20, .tables_max = 4096};
    check(!iommu_space_new(b->iommu, GUEST, 1, IOMMU_BUS_BITS_MAX, mode, &limits, &t->space) &&
              !iotlb_new(t->space, &iotlb_ops, b, IOTLB_ENTRIES, BATCH, &t->tlb),
          "no memory");
}

static void translation_end(struct translation *t, uint32_t mapped)
{
    struct iommu_unmap u = {.done = unmap_done};
    iotlb_free(t->tlb);
    check(!mapped || !iommu_unmap(t->space, BUS_MAPPED, mapped, &u), "bus addresses cannot be unmapped");
    iommu_flush(t->space);
    iommu_space_free(t->space);
}

static void bench_open(struct bench *b)
{
    *b = (struct bench){.random = 1};
    check(guest_make(&b->guest), "no memory");
    memset(b->guest.memory, 1, GUEST_PAGES * PAGE_BYTES);
    check(!frametable_new(&guest_frame_ops, &b->guest, GUEST, &b->frames) &&
              !gntmap_new(&guest_map_ops, &b->guest, 0, GUEST, b->frames, &b->map) &&
              !gntmap_new(&guest_map_ops, &b->guest, 0, GUEST, b->frames, &b->kept) &&
              !gntkeep_new(b->kept, GUEST_PAGES, &b->keep),
          "no memory");
    check(!io_uring_queue_init(8, &b->ring, 0) && !io_uring_register_buffers_sparse(&b->ring, BATCH),
          "io_uring cannot be had");
    check(!iommu_new(&b->iommu), "no memory");
    translation_make(b, &b->strict, IOMMU_STRICT);
    translation_make(b, &b->deferred, IOMMU_DEFERRED);
    for (uint32_t i = 0; i < MISS_PAGES; i++)
        bus_map(&b->strict, BUS_MAPPED + i, i * 7 % GUEST_PAGES); /* not in a row: no entry of 2 MiB */
    b->hot = pages_make(2 * HOT_PAIRS * PAGE_BYTES);
    b->fd = memfd_create("page", MFD_CLOEXEC);
    check(b->fd >= 0 && !ftruncate(b->fd, PAGE_BYTES), "no memory");
    arena_make(b, &b->from);
    arena_make(b, &b->to);
}

static void bench_close(struct bench *b)
{
    translation_end(&b->strict, MISS_PAGES);
    translation_end(&b->deferred, 0);
    iommu_free(b->iommu);
    gntkeep_free(b->keep);
    gntmap_free(b->kept);
    gntmap_free(b->map);
    frametable_free(b->frames);
    io_uring_queue_exit(&b->ring);
    close(b->fd);
    free(b->from.order);
    free(b->to.order);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void print(const struct bench *b, double ns[][ROUNDS_MAX], uint32_t rounds, uint32_t count)
{
    printf("{\"rounds\": %u, \"count\": %u, \"last_cache_bytes\": %zu, \"cold_bytes\": %zu, \"primitives\": [", rounds,
           count, last_cache_bytes(), (size_t)b->from.pages * PAGE_BYTES);
    const char *comma = "";
    for (unsigned i = 0; i < PRIMITIVES; i++) {
        qsort(ns[i], rounds, sizeof(ns[i][0]), compare);
        if (ns[i][0] == NOT_HERE)
            continue;
        printf("%s\n {\"name\": \"%s\", \"what\": \"%s\", \"ns\": {\"median\": %.1f, \"least\": %.1f, \"most\": %.1f}}",
               comma, primitives[i].name, primitives[i].what, (ns[i][(rounds - 1) / 2] + ns[i][rounds / 2]) / 2,
               ns[i][0], ns[i][rounds - 1]);
        comma = ",";
    }
    printf("\n]}\n");
}

int main(int argc, char **argv)
{
    static struct bench b;
    static double ns[PRIMITIVES][ROUNDS_MAX];
    uint64_t rounds = 11, count = 16384;
    if (argc > 3 || (argc > 1 && parse_u64(argv[1], 1, ROUNDS_MAX, &rounds)) ||
        (argc > 2 && parse_u64(argv[2], 1, 1 << 24, &count))) {
        fprintf(stderr, "usage: %s [ROUNDS [COUNT]]\n", argv[0]);
        return 2;
    }
    count = (count + BATCH - 1) / BATCH * BATCH;
    bench_open(&b);
    for (unsigned i = 0; i < PRIMITIVES; i++)
        primitives[i].ns(&b, BATCH); /* all that is made at the first use is */
    for (unsigned r = 0; r < rounds; r++)
        for (unsigned i = 0; i < PRIMITIVES; i++)
            ns[i][r] = primitives[i].ns(&b, (uint32_t)count);
    print(&b, ns, (uint32_t)rounds, (uint32_t)count);
    bench_close(&b);
    return 0;
}
