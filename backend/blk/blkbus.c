/* SPDX-License-Identifier: MIT */
#include "backend/blk/blkbus.h"

#include <assert.h>
#include <sys/mman.h>

#include "backend/blk/blkrequest.h"

/* The grant behind a bus page. 0: not mapped through this ring; a reference 0 is Xen's own and never mapped. */
#define PAGE_WRITE  (1u << 31)
#define PAGE_ENDING (1u << 30) /* an unmap is under way */
#define PAGE_GREF   (PAGE_ENDING - 1)

#define LEAF_PAGES IOMMU_LARGE_PAGES
/* 2 MiB of bus addresses with a page of ours have a table in the tree or are one entry of it; and a map reaches into
 * three at the most. */
#define LEAVES_OF_MAP 3u
#define LEAVES        (BLKBUS_TABLES_MAX + BLKBUS_PAGES_MAX / LEAF_PAGES + LEAVES_OF_MAP)

struct bus_leaf {
    uint32_t page[LEAF_PAGES];
};

/* An unmap under way. */
struct bus_unmap {
    struct iommu_unmap unmap;
    struct letter letter;
    struct blkqueue *queue;
    struct bus_unmap *next; /* in the list of the free ones */
    uint64_t id, bus_page;
    uint32_t count;
    bool answer; /* a request waits for it */
};

struct blkbus {
    struct iommu_space *space;
    bool deferred;
    uint32_t pages, ending; /* in the books; of these PAGE_ENDING */
    uint32_t leaves;        /* in use */
    uint64_t key[LEAVES];   /* bus page / LEAF_PAGES, where used[] is not 0 */
    uint32_t used[LEAVES];  /* pages in the leaf */
    struct bus_leaf *leaf;  /* LEAVES: a mapping of its own, which is brought in as it is touched */
    struct bus_unmap *unmaps, *unmap_free;
    uint64_t mapped, unmapped; /* counted */
    uint32_t early;            /* unmaps that were answered and have not ended */
    struct uring_op flush_op;
    bool flush_posted;
};

/* ---- the books ---- */

/* LEAVES: there is none. */
static uint32_t leaf_find(const struct blkbus *b, uint64_t key)
{
    uint32_t i = 0;
    while (i < LEAVES && (!b->used[i] || b->key[i] != key))
        i++;
    return i;
}

static uint32_t leaf_make(struct blkbus *b, uint64_t key)
{
    uint32_t i = leaf_find(b, key);
    if (i < LEAVES)
        return i;
    for (i = 0; b->used[i]; i++)
        ;
    b->key[i] = key;
    b->leaves++;
    return i;
}

/* Walks bus pages from leaf to leaf. */
struct book_cursor {
    uint64_t bus_page;
    uint32_t leaf;
};

static struct book_cursor book_at(const struct blkbus *b, uint64_t bus_page)
{
    return (struct book_cursor){bus_page, leaf_find(b, bus_page / LEAF_PAGES)};
}

static uint32_t *book_next(struct blkbus *b, struct book_cursor *at)
{
    uint32_t *page = at->leaf < LEAVES ? &b->leaf[at->leaf].page[at->bus_page % LEAF_PAGES] : NULL;
    if (++at->bus_page % LEAF_PAGES == 0)
        at->leaf = leaf_find(b, at->bus_page / LEAF_PAGES);
    return page;
}

static void book_enter(struct blkbus *b, uint64_t bus_page, const uint32_t *gref, uint32_t count, bool write)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t leaf = leaf_make(b, (bus_page + i) / LEAF_PAGES), n = 0;
        for (uint32_t at = (uint32_t)((bus_page + i) % LEAF_PAGES); at < LEAF_PAGES && i + n < count; at++, n++)
            b->leaf[leaf].page[at] = gref[i + n] | (write ? PAGE_WRITE : 0);
        b->used[leaf] += n;
        i += n - 1;
    }
    b->pages += count;
}

/* All of them are ours, and no unmap of them is under way. */
static bool book_holds(struct blkbus *b, uint64_t bus_page, uint32_t count)
{
    struct book_cursor at = book_at(b, bus_page);
    while (count-- > 0) {
        const uint32_t *page = book_next(b, &at);
        if (!page || !*page || *page & PAGE_ENDING)
            return false;
    }
    return true;
}

static void book_mark(struct blkbus *b, uint64_t bus_page, uint32_t count)
{
    struct book_cursor at = book_at(b, bus_page);
    b->ending += count;
    while (count-- > 0)
        *book_next(b, &at) |= PAGE_ENDING;
}

static void book_unmark(struct blkbus *b, uint64_t bus_page, uint32_t count)
{
    struct book_cursor at = book_at(b, bus_page);
    b->ending -= count;
    while (count-- > 0)
        *book_next(b, &at) &= ~PAGE_ENDING;
}

/* Unmaps their grants. */
static void book_remove(struct blkqueue *q, uint64_t bus_page, uint32_t count)
{
    struct blkbus *b = q->bus;
    for (uint32_t i = 0; i < count; i++) {
        const uint64_t at = bus_page + i;
        const uint32_t leaf = leaf_find(b, at / LEAF_PAGES);
        const uint32_t n = MIN(count - i, LEAF_PAGES - (uint32_t)(at % LEAF_PAGES));
        for (uint32_t k = 0; k < n; k++) {
            uint32_t *page = &b->leaf[leaf].page[at % LEAF_PAGES + k];
            gntmap_unmap_gref(q->map, *page & PAGE_GREF, *page & PAGE_WRITE);
            *page = 0;
        }
        b->used[leaf] -= n;
        b->leaves -= !b->used[leaf];
        i += n - 1;
    }
    b->pages -= count;
    b->ending -= count;
    b->unmapped += count;
}

/* ---- unmap ---- */

/* Its grants are unmapped by the queue's own thread. */
static void unmap_end(struct bus_unmap *u)
{
    struct blkqueue *q = u->queue;
    struct blkbus *b = q->bus;
    book_remove(q, u->bus_page, u->count);
    q->reactor->unmapped = true;
    if (u->answer)
        blkqueue_answer(q, u->id, BLKREQ_OP_BUS_UNMAP, BLKIF_RSP_OKAY);
    else
        b->early--;
    u->next = b->unmap_free;
    b->unmap_free = u;
}

static void unmap_done(struct iommu_unmap *unmap)
{
    struct bus_unmap *u = container_of(unmap, struct bus_unmap, unmap);
    struct reactor *r = u->queue->reactor;
    if (pthread_equal(r->thread, pthread_self()))
        unmap_end(u);
    else
        mailbox_post(r->to_reactor, &u->letter, BLKQUEUE_UNMAPPED);
}

void blkbus_letter(struct letter *l)
{
    unmap_end(container_of(l, struct bus_unmap, letter));
}

static void flush_arm(struct blkqueue *q);

static void flush_over(struct uring_op *op, int result, uint32_t cqe_flags)
{
    (void)result, (void)cqe_flags;
    struct blkbus *b = container_of(op, struct blkbus, flush_op);
    b->flush_posted = false;
    iommu_flush(b->space);
    if (b->early && b->unmaps->queue->state == BLKQUEUE_RUNNING)
        flush_arm(b->unmaps->queue);
}

/* Something is deferred: it ends when this is over. */
static void flush_arm(struct blkqueue *q)
{
    static struct __kernel_timespec wait = {.tv_nsec = BLKBUS_FLUSH_MS * CLOCK_NS_PER_MS};
    struct blkbus *b = q->bus;
    if (b->flush_posted)
        return;
    b->flush_op.fn = flush_over;
    b->flush_posted = true;
    io_uring_prep_timeout(uring_sqe(&q->reactor->uring, &b->flush_op), &wait, 0, 0);
}

/* Pages that the books hold; there is a free unmap. `id`: of the request that is answered at its end, or NULL. 0 or
 * -ENOMEM. */
static int unmap_begin(struct blkqueue *q, uint64_t bus_page, uint32_t count, const uint64_t *id)
{
    struct blkbus *b = q->bus;
    struct bus_unmap *u = b->unmap_free;
    b->unmap_free = u->next; /* it may be back before iotlb_unmap() returns */
    u->bus_page = bus_page;
    u->count = count;
    u->answer = id;
    u->id = id ? *id : 0;
    b->early += !id;
    book_mark(b, bus_page, count);
    int r = iotlb_unmap(dma_iommu_tlb(q->dma), bus_page, count, &u->unmap);
    assert(!r || r == -ENOMEM); /* the books say what is mapped */
    if (!r)
        return 0;
    book_unmark(b, bus_page, count);
    b->early -= !id;
    u->next = b->unmap_free;
    b->unmap_free = u;
    return r;
}

static void unmap_start(struct blkqueue *q, const struct blkreq *req)
{
    struct blkbus *b = q->bus;
    const uint64_t bus_page = req->sector / PAGE_BYTES;
    const uint32_t count = (uint32_t)req->sector_count;
    const bool early = b->deferred && b->early < BLKBUS_DEFERRED_MAX;
    if (!book_holds(b, bus_page, count)) {
        blkqueue_refuse(q, req, BLKREQ_E_BUS_UNMAP);
        return;
    }
    int r = unmap_begin(q, bus_page, count, early ? NULL : &req->id);
    blkrequest_count_get(q, r);
    if (r || early)
        blkqueue_answer(q, req->id, req->operation_raw, r ? BLKIF_RSP_ERROR : BLKIF_RSP_OKAY);
    if (b->deferred)
        flush_arm(q);
}

/* ---- map ---- */

static void grants_end(struct blkqueue *q, uint32_t count, bool write)
{
    while (count-- > 0)
        gntmap_unmap_gref(q->map, q->reactor->bus_gref[count], write);
}

/* The list, copied out once, and the frames of its grants, which stay mapped: 0, GRANT_E_* or -errno. */
static int grants_begin(struct blkqueue *q, const struct blkreq *req, uint32_t count, bool write)
{
    uint32_t *gref = q->reactor->bus_gref;
    int code = gntmap_copy_keeping(q->map, q->keep, req->indirect_gref[0], 0, gref, count * sizeof(*gref), false);
    for (uint32_t i = 0; i < count && !code; i++) {
        struct gntmap_page page;
        code = gntmap_map(q->map, gref[i], write, &page);
        if (code) {
            grants_end(q, i, write);
            break;
        }
        q->reactor->bus_frame[i] =
            page.extent->base_gfn + (uint32_t)((size_t)(page.address - page.extent->address) / PAGE_BYTES);
    }
    return code;
}

/* 0, BLKREQ_E_*, or -ENOMEM. */
static int map_code(int r)
{
    switch (r) {
    case -EEXIST: return BLKREQ_E_BUS_TAKEN;
    case -EDQUOT:
    case -ENOSPC: return BLKREQ_E_BUS_LIMIT;
    case -ERANGE: return BLKREQ_E_BUS;
    default: return r;
    }
}

static int space_map(struct blkbus *b, const struct blkreq *req, const uint32_t *frames, uint32_t count,
                     uint64_t *bus_page)
{
    if (LEAVES - b->leaves < LEAVES_OF_MAP)
        return BLKREQ_E_BUS_LIMIT;
    *bus_page = req->sector ? req->sector / PAGE_BYTES : IOMMU_ANY;
    return map_code(iommu_map(b->space, bus_page, frames, count, req->flag));
}

_Static_assert(BLKREQ_BUS_READ == IOMMU_READ && BLKREQ_BUS_WRITE == IOMMU_WRITE, "the wire has the IOMMU's numbers");

static void map_start(struct blkqueue *q, const struct blkreq *req)
{
    const uint32_t count = (uint32_t)req->sector_count;
    const bool write = req->flag & BLKREQ_BUS_WRITE;
    uint64_t bus_page;
    int code = grants_begin(q, req, count, write);
    if (code) {
        blkrequest_count_get(q, code);
        blkqueue_answer(q, req->id, req->operation_raw, BLKIF_RSP_ERROR);
        return;
    }
    code = space_map(q->bus, req, q->reactor->bus_frame, count, &bus_page);
    if (code)
        grants_end(q, count, write);
    if (code > 0) {
        blkqueue_refuse(q, req, code);
        return;
    }
    if (code) {
        blkrequest_count_get(q, code);
        blkqueue_answer(q, req->id, req->operation_raw, BLKIF_RSP_ERROR);
        return;
    }
    book_enter(q->bus, bus_page, q->reactor->bus_gref, count, write);
    q->bus->mapped += count;
    void *slot = blkqueue_answer(q, req->id, req->operation_raw, BLKIF_RSP_OKAY);
    if (slot)
        blkreq_encode_bus_address(bus_page * PAGE_BYTES, slot);
}

void blkbus_start(struct blkqueue *q, const struct blkreq *req)
{
    if (req->operation == BLKREQ_OP_BUS_MAP)
        map_start(q, req);
    else
        unmap_start(q, req);
}

/* ---- the end of the queue ---- */

/* The next pages in a row that can be unmapped, from `at` on: how many. */
static uint32_t leaf_run(const struct bus_leaf *leaf, uint32_t *at)
{
    uint32_t end;
    while (*at < LEAF_PAGES && (!leaf->page[*at] || leaf->page[*at] & PAGE_ENDING))
        ++*at;
    for (end = *at; end < LEAF_PAGES && leaf->page[end] && !(leaf->page[end] & PAGE_ENDING); end++)
        ;
    return end - *at;
}

/* True: some pages of it were there to be unmapped. */
static bool leaf_give_back(struct blkqueue *q, uint32_t leaf)
{
    struct blkbus *b = q->bus;
    bool any = false;
    for (uint32_t at = 0, n; b->used[leaf] && b->unmap_free && (n = leaf_run(&b->leaf[leaf], &at)); at += n) {
        if (unmap_begin(q, b->key[leaf] * LEAF_PAGES + at, n, NULL))
            break; /* no memory: in the next pass */
        any = true;
    }
    return any;
}

bool blkbus_give_back(struct blkqueue *q)
{
    struct blkbus *b = q->bus;
    if (!b || b->pages == b->ending || !blkqueue_all_idle(q))
        return false;
    for (uint32_t i = 0; i < LEAVES; i++) {
        if (!leaf_give_back(q, i))
            continue;
        iommu_flush(b->space);
        return true;
    }
    return false;
}

bool blkbus_idle(const struct blkbus *b)
{
    return !b || (!b->pages && !b->flush_posted);
}

void blkbus_stop(struct blkqueue *q)
{
    if (q->bus && q->bus->flush_posted)
        uring_cancel(&q->reactor->uring, &q->bus->flush_op);
}

void blkbus_refresh(struct blkqueue *q, const struct dma_stats *s)
{
    const struct blkbus *b = q->bus;
    blkcounter_set(&q->stats.iotlb_hits, s->iotlb_hits);
    blkcounter_set(&q->stats.iotlb_misses, s->iotlb_misses);
    blkcounter_set(&q->stats.iommu_maps, s->iommu_maps + (b ? b->mapped : 0));
    blkcounter_set(&q->stats.iommu_unmaps, s->iommu_unmaps + (b ? b->unmapped : 0));
    blkcounter_set(&q->stats.iommu_pages, b ? b->pages : 0);
    blkcounter_set(&q->stats.iommu_not_present, s->iommu_faults[IOMMU_F_NOT_PRESENT]);
    blkcounter_set(&q->stats.iommu_permission, s->iommu_faults[IOMMU_F_PERMISSION]);
    blkcounter_set(&q->stats.iommu_foreign, s->iommu_faults[IOMMU_F_FOREIGN]);
    blkcounter_set(&q->stats.iommu_window, s->iommu_faults[IOMMU_F_WINDOW]);
    blkcounter_set(&q->stats.iommu_frame, s->iommu_faults[IOMMU_F_FRAME]);
}

/* ---- life ---- */

int blkbus_new(struct blkqueue *q, struct iommu_space *space, bool deferred, struct blkbus **out)
{
    const size_t bytes = LEAVES * sizeof(struct bus_leaf);
    const uint32_t unmaps = q->request_count + BLKBUS_DEFERRED_MAX;
    struct blkbus *b = calloc(1, sizeof(*b));
    void *leaves = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (b)
        b->unmaps = calloc(unmaps, sizeof(*b->unmaps));
    if (!b || !b->unmaps || leaves == MAP_FAILED) {
        if (leaves != MAP_FAILED)
            munmap(leaves, bytes);
        if (b)
            free(b->unmaps);
        free(b);
        return -ENOMEM;
    }
    b->space = space;
    b->deferred = deferred;
    b->leaf = leaves;
    for (uint32_t i = 0; i < unmaps; i++) {
        struct bus_unmap *u = &b->unmaps[i];
        *u = (struct bus_unmap){.unmap.done = unmap_done, .queue = q, .next = b->unmap_free};
        letter_init(&u->letter);
        b->unmap_free = u;
    }
    *out = b;
    return 0;
}

void blkbus_free(struct blkbus *b)
{
    if (!b)
        return;
    assert(blkbus_idle(b));
    munmap(b->leaf, LEAVES * sizeof(struct bus_leaf));
    free(b->unmaps);
    free(b);
}
