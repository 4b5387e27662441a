/* SPDX-License-Identifier: MIT */
/* The IOMMU against a model that is an array: random maps, unmaps, translations, flushes, by seed. What the model calls
 * mapped translates, to that frame and for that access; what it does not, does not, and says why; an unmap has ended
 * exactly when nothing uses it and every IOTLB has had its turn or was idle; all frames go back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tests/iommu_world.h"
#include "tests/random.h"

#define REGION_PAGES 2048u
#define REGIONS      3u
#define UNMAPS       4096u
#define USES         96u
#define SEEN         16u

enum page_state {
    FREE,
    MAPPED,
    GATHERED, /* unmapped, and not flushed yet: who remembers it may use it */
    ENDING    /* flushed */
};

struct model_page {
    enum page_state state;
    uint32_t frame;
    unsigned access, map; /* map: the number of the iommu_map() */
    int unmap;
};

struct model_unmap {
    struct iworld_unmap w;
    uint64_t first;
    uint32_t count, uses;
    bool pending;
    bool asked[IWORLD_IOTLBS]; /* that IOTLB was busy when it began and had no turn since */
};

struct model_use {
    struct iotlb_entry *entry;
    unsigned tlb;
    uint64_t page;
    uint32_t frame;
};

struct model {
    struct iworld *w;
    struct iworld_setup setup;
    uint64_t random, base[REGIONS];
    struct model_page page[REGIONS][REGION_PAGES];
    struct model_unmap unmap[UNMAPS];
    int unmap_last;
    struct model_use use[USES];
    unsigned uses, uses_of[IWORLD_IOTLBS], maps;
    uint32_t pages, frame_next;
    uint64_t translated, refused, remembered; /* remembered: by a deferred entry */
    bool large;
    uint64_t seen[SEEN]; /* translated lately: an IOTLB may remember them */
};

static uint32_t roll(struct model *m, uint32_t below)
{
    return random_next(&m->random) % below;
}

static struct model_page *page_at(struct model *m, uint64_t page)
{
    for (unsigned r = 0; r < REGIONS; r++)
        if (page - m->base[r] < REGION_PAGES)
            return &m->page[r][page - m->base[r]];
    return NULL;
}

/* Often one of few, so that IOTLBs have something to remember. */
static uint64_t any_page(struct model *m)
{
    return m->base[roll(m, REGIONS)] + (roll(m, 2) ? roll(m, REGION_PAGES) : 500 + roll(m, 16));
}

/* A page that is mapped, if a few tries find one. */
static uint64_t mapped_page(struct model *m)
{
    uint64_t page = any_page(m);
    for (unsigned i = 0; i < 6 && page_at(m, page)->state != MAPPED; i++)
        page = any_page(m);
    return page;
}

/* That IOTLB did a get, put or turn. */
static void had_turn(struct model *m, unsigned tlb)
{
    for (int i = 0; i <= m->unmap_last; i++)
        m->unmap[i].asked[tlb] = false;
}

static void begin_end(struct model *m, struct model_unmap *u)
{
    for (uint64_t p = u->first; p < u->first + u->count; p++)
        page_at(m, p)->state = ENDING;
    for (unsigned i = 0; i < IWORLD_IOTLBS; i++)
        u->asked[i] = m->uses_of[i] > 0;
}

static bool gathered(struct model *m, const struct model_unmap *u)
{
    return page_at(m, u->first)->state == GATHERED;
}

static void begin_ends(struct model *m)
{
    for (int k = 0; k <= m->unmap_last; k++)
        if (m->unmap[k].pending && gathered(m, &m->unmap[k]))
            begin_end(m, &m->unmap[k]);
}

static void do_flush(struct model *m)
{
    iommu_flush(m->w->space);
    begin_ends(m);
}

/* The invariant: each pending unmap has ended if and only if nothing holds it up. */
static void check_ends(struct model *m)
{
    for (int i = 0; i <= m->unmap_last; i++) {
        struct model_unmap *u = &m->unmap[i];
        if (!u->pending)
            continue;
        bool held_up = gathered(m, u) || u->uses;
        for (unsigned t = 0; t < IWORLD_IOTLBS; t++)
            held_up |= u->asked[t];
        assert_int_equal(u->w.ended, !held_up);
        if (held_up)
            continue;
        u->pending = false;
        m->pages -= u->count;
        for (uint64_t p = u->first; p < u->first + u->count; p++)
            *page_at(m, p) = (struct model_page){.state = FREE};
    }
    while (m->unmap_last >= 0 && !m->unmap[m->unmap_last].pending)
        m->unmap_last--;
    struct iommu_stats stats;
    iommu_space_stats(m->w->space, &stats);
    assert_int_equal(stats.pages, m->pages);
    m->large |= stats.large > 0;
}

static int expect_map(struct model *m, uint64_t first, uint32_t count)
{
    uint64_t end = 1ull << (m->setup.bus_bits - IOMMU_PAGE_SHIFT);
    if (count > m->setup.limits.pages_max - m->pages)
        return -EDQUOT;
    if (!first || first + count > end)
        return -ERANGE;
    for (uint64_t p = first; p < first + count; p++)
        if (page_at(m, p) && page_at(m, p)->state != FREE)
            return -EEXIST;
    return 0;
}

/* Frames in a row, often of whole 2 MiB, or all different. */
static void make_frames(struct model *m, uint32_t *frames, uint32_t count, bool large)
{
    bool row = large || roll(m, 2);
    uint32_t first = large || roll(m, 2) ? roll(m, 96) * IOMMU_LARGE_PAGES : roll(m, IWORLD_FRAMES);
    for (uint32_t i = 0; i < count; i++)
        frames[i] = (row ? first + i : roll(m, IWORLD_FRAMES)) % IWORLD_FRAMES;
}

static void do_map(struct model *m)
{
    static uint32_t frames[REGION_PAGES];
    bool large = roll(m, 6) == 0;
    uint32_t count = large ? IOMMU_LARGE_PAGES + roll(m, 600) : 1 + roll(m, roll(m, 4) ? 24 : 1200);
    uint64_t first = any_page(m);
    if (large)
        first &= ~(uint64_t)(IOMMU_LARGE_PAGES - 1);
    if (page_at(m, first + count - 1) != page_at(m, first) + count - 1 && roll(m, 8))
        return; /* beyond the region: only to see it refused at the window's end */
    unsigned access = 1 + roll(m, 3);
    int expected = expect_map(m, first, count);
    if (!page_at(m, first + count - 1) && expected != -ERANGE)
        return;
    make_frames(m, frames, count, large);
    uint64_t at = first;
    bool anywhere = expected == 0 && roll(m, 4) == 0;
    if (anywhere)
        at = IOMMU_ANY;
    assert_int_equal(iommu_map(m->w->space, &at, frames, count, access), expected);
    if (expected)
        return;
    if (!anywhere)
        assert_int_equal(at, first);
    m->maps++;
    if (!page_at(m, at + count - 1)) { /* the lowest room was above the first region */
        struct iworld_unmap u;
        iworld_unmap(m->w, at, count, &u);
        do_flush(m);
        for (unsigned i = 0; i < IWORLD_IOTLBS; i++) {
            iotlb_turn(m->w->tlb[i]);
            had_turn(m, i);
        }
        assert_int_equal(u.ended, 1);
        return;
    }
    m->pages += count;
    for (uint32_t i = 0; i < count; i++) {
        struct model_page *p = page_at(m, at + i);
        assert_int_equal(p->state, FREE);
        *p = (struct model_page){.state = MAPPED, .frame = frames[i], .access = access, .map = m->maps};
    }
}

static unsigned gathered_count(struct model *m)
{
    unsigned n = 0;
    for (int k = 0; k <= m->unmap_last; k++)
        n += m->unmap[k].pending && gathered(m, &m->unmap[k]);
    return n;
}

static void unmap_range(struct model *m, uint64_t first, uint32_t count, int expected)
{
    int i = 0;
    while (m->unmap[i].pending)
        i++;
    assert_true((unsigned)i < UNMAPS - 1);
    struct model_unmap *u = &m->unmap[i];
    assert_int_equal(iworld_try_unmap(m->w, first, count, &u->w), expected);
    if (expected)
        return;
    u->first = first;
    u->count = count;
    u->uses = 0;
    u->pending = true;
    memset(u->asked, 0, sizeof(u->asked));
    m->unmap_last = MAX(m->unmap_last, i);
    for (uint64_t p = first; p < first + count; p++) {
        page_at(m, p)->state = GATHERED;
        page_at(m, p)->unmap = i;
    }
    for (unsigned k = 0; k < m->uses; k++)
        u->uses += m->use[k].page >= first && m->use[k].page < first + count;
    if (m->setup.mode == IOMMU_STRICT || gathered_count(m) == IOMMU_BATCH_MAX)
        begin_ends(m);
    check_ends(m);
}

static uint32_t mapped_run(struct model *m, uint64_t first)
{
    uint32_t n = 0;
    while (page_at(m, first + n) && page_at(m, first + n)->state == MAPPED)
        n++;
    return n;
}

/* From a mapped page on: a few of it, or all that is mapped in a row. */
static void do_unmap(struct model *m)
{
    uint64_t first = mapped_page(m);
    uint32_t count = 1 + roll(m, roll(m, 2) ? 8 : 1500);
    if (roll(m, 2)) /* from the beginning of what is mapped there */
        while (page_at(m, first)->state == MAPPED && page_at(m, first - 1) && page_at(m, first - 1)->state == MAPPED)
            first--;
    uint32_t run = mapped_run(m, first);
    if (run && roll(m, 8))
        count = MIN(run, count);
    unmap_range(m, first, count, run < count ? -ENOENT : 0);
}

/* All that is mapped in a region, so that there is room for large entries now and then. */
static void do_clear(struct model *m)
{
    uint64_t base = m->base[roll(m, REGIONS)];
    for (uint32_t i = 0, n; i < REGION_PAGES; i += MAX(n, 1))
        if ((n = mapped_run(m, base + i)))
            unmap_range(m, base + i, n, 0);
}

static int expect_get(struct model *m, uint64_t page, bool write)
{
    const struct model_page *p = page_at(m, page);
    if (page >> (m->setup.bus_bits - IOMMU_PAGE_SHIFT))
        return IOMMU_F_WINDOW;
    if (!p || p->state != MAPPED)
        return IOMMU_F_NOT_PRESENT;
    return p->access & (write ? IOMMU_WRITE : IOMMU_READ) ? 0 : IOMMU_F_PERMISSION;
}

static void do_get(struct model *m)
{
    unsigned tlb = roll(m, IWORLD_IOTLBS);
    uint64_t page = any_page(m);
    if (roll(m, 32) == 0)
        page = random_step(&m->random) >> roll(m, 40);
    else if (roll(m, 4))
        page = m->seen[roll(m, SEEN)];
    else if (roll(m, 4))
        page = mapped_page(m);
    bool write = roll(m, 2);
    struct iotlb_entry *e;
    if (m->uses == USES || m->uses_of[tlb] == IWORLD_USES - 1)
        return;
    int r = iotlb_get(m->w->tlb[tlb], page, write, &e), expected = expect_get(m, page, write);
    had_turn(m, tlb);
    struct model_page *p = page_at(m, page);
    if (r == 0 && p && p->state == GATHERED) {
        assert_true(p->access & (write ? IOMMU_WRITE : IOMMU_READ));
        m->unmap[p->unmap].uses++;
        m->remembered++;
    } else {
        assert_int_equal(r, expected);
    }
    if (r) {
        m->refused++;
        return;
    }
    m->seen[m->translated++ % SEEN] = page;
    assert_non_null(p);
    assert_int_equal(e->frame, p->frame);
    assert_ptr_equal(e->address, iworld_address(p->frame));
    assert_true(m->w->holds[tlb].of[p->frame] > 0);
    m->use[m->uses++] = (struct model_use){e, tlb, page, p->frame};
    m->uses_of[tlb]++;
}

static void do_put(struct model *m, unsigned i)
{
    struct model_use use = m->use[i];
    struct model_page *p = page_at(m, use.page);
    m->use[i] = m->use[--m->uses];
    m->uses_of[use.tlb]--;
    assert_int_equal(use.entry->frame, use.frame); /* still the one that was given out */
    assert_true(m->w->holds[use.tlb].of[use.frame] > 0);
    if (p->state != MAPPED)
        m->unmap[p->unmap].uses--;
    iotlb_put(m->w->tlb[use.tlb], use.entry);
    had_turn(m, use.tlb);
}

static void step(struct model *m)
{
    uint32_t what = roll(m, 100);
    unsigned tlb = roll(m, IWORLD_IOTLBS);
    if (what < 8) {
        do_map(m);
    } else if (what < 20) {
        do_unmap(m);
    } else if (what < 55) {
        do_get(m);
    } else if (what < 97) {
        if (m->uses)
            do_put(m, roll(m, m->uses));
    } else if (what < 98) {
        if (roll(m, 4) == 0)
            do_clear(m);
        do_flush(m);
    } else if (what < 99) {
        iotlb_turn(m->w->tlb[tlb]);
        had_turn(m, tlb);
    } else {
        iotlb_rest(m->w->tlb[tlb]);
        had_turn(m, tlb);
    }
    check_ends(m);
}

static void unmap_rest(struct model *m)
{
    while (m->uses)
        do_put(m, m->uses - 1);
    do_flush(m);
    check_ends(m);
    assert_int_equal(m->unmap_last, -1);
    for (unsigned r = 0; r < REGIONS; r++)
        for (uint32_t i = 0; i < REGION_PAGES; i++) {
            struct iworld_unmap u;
            if (m->page[r][i].state != MAPPED)
                continue;
            iworld_unmap(m->w, m->base[r] + i, 1, &u);
            iommu_flush(m->w->space);
            assert_int_equal(u.ended, 1);
        }
}

static void run(uint64_t seed, const struct iworld_setup *setup, unsigned steps)
{
    struct model *m = calloc(1, sizeof(*m));
    uint64_t end = 1ull << (setup->bus_bits - IOMMU_PAGE_SHIFT);
    assert_non_null(m);
    m->random = seed;
    m->setup = *setup;
    m->w = iworld_open(setup);
    m->unmap_last = -1;
    m->base[0] = 0;
    m->base[1] = end / 2 - REGION_PAGES / 2;
    m->base[2] = end - REGION_PAGES;
    for (unsigned i = 0; i < steps; i++)
        step(m);
    assert_true(m->translated && m->refused && m->large);
    if (setup->mode == IOMMU_DEFERRED)
        assert_true(m->remembered);
    unmap_rest(m);
    iworld_close(m->w);
    free(m);
}

static void run_all(bool fenced)
{
    const char *mode = getenv("DOMZERO_TEST_MODE");
    unsigned steps = mode && *mode ? 8000 : 100000;
    static const unsigned bits[] = {32, 44};
    for (unsigned b = 0; b < ARRAY_SIZE(bits); b++)
        for (enum iommu_flush_mode f = IOMMU_STRICT; f <= IOMMU_DEFERRED; f++)
            for (uint64_t seed = 1; seed <= 4; seed++)
                run(seed * 977 + bits[b] + f,
                    &(struct iworld_setup){.bus_bits = bits[b],
                                           .mode = f,
                                           .fenced = fenced,
                                           .iotlbs = IWORLD_IOTLBS,
                                           .limits = {seed % 2 ? 3000 : 100000, 4096}},
                    steps);
}

static void test_random_sequences_are_as_the_model_has_them(void **state)
{
    (void)state;
    run_all(false);
}

static void test_random_sequences_without_membarrier_too(void **state)
{
    (void)state;
    run_all(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_sequences_are_as_the_model_has_them),
        cmocka_unit_test(test_random_sequences_without_membarrier_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
