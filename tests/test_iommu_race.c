/* SPDX-License-Identifier: MIT */
/* Translations in several threads against unmaps: after done() nobody reads or writes the frame.
 *
 * The frames are plain memory here, written without any lock by who translated and by who unmapped: that a translator
 * finds only what belongs there shows it, and so does ThreadSanitizer, for which each use must happen before done(). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/spin.h"
#include "grant/iommu_inner.h"
#include "tests/random.h"

#define SLOTS       24u /* bus pages that come and go, each with a frame of its own */
#define TRANSLATORS 2u
#define DEPTH       4u
#define ENOUGH_MS   2000
#define LOOKS       16u
#define COLD_BYTES  (32u << 20)
#define COLD_STORES 24u
#define POISON      UINT64_C(0xdeaddeaddeaddead)

struct frame {
    /* Written between done() and the next map by the unmapper alone. */
    uint64_t generation;
    uint64_t touched[TRANSLATORS]; /* by translator */
};

struct scene {
    enum iommu_flush_mode mode;
    bool fenced;
    bool cold; /* one translator, its stores delayed, and few slots: to catch it in the act */
};

struct race {
    struct scene scene;
    uint32_t slots;
    struct iommu *unit;
    struct iommu_space *space;
    struct frame frames[SLOTS];
    atomic_bool stop;
    atomic_uint wrong, ready;
    atomic_uint ended[SLOTS];
    struct slot_unmap {
        struct iommu_unmap u;
        atomic_uint *ended;
    } unmap[SLOTS];
};

struct translator {
    struct race *r;
    unsigned number;
    pthread_t thread;
    atomic_ulong translated;
    unsigned char *cold;
};

static int frame_hold(void *ctx, uint32_t frame, bool write, unsigned char **address, void **handle)
{
    struct translator *t = ctx;
    (void)write;
    *address = (unsigned char *)&t->r->frames[frame];
    *handle = NULL;
    return 0;
}

static void frame_release(void *ctx, uint32_t frame, void *handle)
{
    (void)ctx;
    (void)frame;
    (void)handle;
}

static const struct iotlb_ops ops = {frame_hold, frame_release};

/* What a device does to the page. */
static void touch(struct translator *t, const struct iotlb_entry *e)
{
    struct frame *f = (struct frame *)e->address;
    for (unsigned i = 0; i < LOOKS; i++) {
        if (f->generation == POISON)
            atomic_fetch_add(&t->r->wrong, 1);
        atomic_signal_fence(memory_order_seq_cst);
    }
    f->touched[t->number]++;
}

/* Stores that must wait for memory, and those that follow them too: so that the processor looks at the sequence long
 * before others can see that it did. */
static void delay_stores(struct translator *t, uint64_t *random)
{
    for (unsigned i = 0; i < COLD_STORES; i++)
        ((volatile unsigned char *)t->cold)[random_next(random) % COLD_BYTES] = (unsigned char)i;
}

static void *translate(void *arg)
{
    struct translator *t = arg;
    struct iotlb *tlb;
    struct iotlb_entry *in_use[DEPTH];
    uint64_t random = t->number + 1;
    if (iotlb_new(t->r->space, &ops, t, 16, DEPTH, &tlb)) {
        atomic_fetch_add(&t->r->wrong, 1);
        return NULL;
    }
    atomic_fetch_add(&t->r->ready, 1);
    while (!atomic_load_explicit(&t->r->stop, memory_order_relaxed)) {
        /* Now and then several at once, so that it is idle at some unmaps and not at others. */
        unsigned depth = t->cold ? 1 : 1 + random_next(&random) % DEPTH, n = 0;
        if (t->cold)
            delay_stores(t, &random);
        for (unsigned i = 0; i < depth; i++)
            if (iotlb_get(tlb, 1 + random_next(&random) % t->r->slots, true, &in_use[n]) == 0)
                n++;
        for (unsigned i = 0; i < n; i++)
            touch(t, in_use[i]);
        for (unsigned i = 0; i < n; i++)
            iotlb_put(tlb, in_use[i]);
        atomic_fetch_add_explicit(&t->translated, n, memory_order_relaxed);
    }
    iotlb_free(tlb);
    return NULL;
}

static void unmap_done(struct iommu_unmap *u)
{
    atomic_store_explicit(container_of(u, struct slot_unmap, u)->ended, 1, memory_order_release);
}

static bool has_ended(struct race *r, uint32_t slot)
{
    return atomic_load_explicit(&r->ended[slot], memory_order_acquire);
}

static void map_slot(struct race *r, uint32_t slot, uint64_t generation)
{
    uint64_t at = 1 + slot;
    r->frames[slot].generation = generation;
    assert_int_equal(iommu_map(r->space, &at, &slot, 1, IOMMU_READ | IOMMU_WRITE), 0);
    atomic_store(&r->ended[slot], 0);
}

static void unmap_slot(struct race *r, uint32_t slot)
{
    r->unmap[slot].u.done = unmap_done;
    r->unmap[slot].ended = &r->ended[slot];
    assert_int_equal(iommu_unmap(r->space, 1 + slot, 1, &r->unmap[slot].u), 0);
}

/* The frame is ours again: what a translator does there now is seen. */
static void poison_slot(struct race *r, uint32_t slot)
{
    r->frames[slot].generation = POISON;
    memset(r->frames[slot].touched, 0, sizeof(r->frames[slot].touched));
}

static void check_poison(struct race *r, uint32_t slot)
{
    for (unsigned i = 0; i < TRANSLATORS; i++)
        if (r->frames[slot].touched[i])
            atomic_fetch_add(&r->wrong, 1);
}

static bool all_translate(const struct translator *t, unsigned translators)
{
    for (unsigned i = 0; i < translators; i++)
        if (!atomic_load(&t[i].translated))
            return false;
    return true;
}

static void linger(uint64_t *random)
{
    for (uint32_t n = random_next(random) % 256; n; n--)
        spin_relax();
}

/* A slot's life, over and over: mapped, unmapped, ended, poisoned, and after a while mapped again. */
static void come_and_go(struct race *r, const struct translator *t, unsigned translators, uint64_t lives)
{
    enum { MAPPED, ENDING, OURS } state[SLOTS] = {MAPPED};
    uint64_t random = 7, lived = 0, enough_ns = clock_now_ns() + ENOUGH_MS * CLOCK_NS_PER_MS;
    for (uint32_t slot = 0; slot < r->slots; slot++)
        map_slot(r, slot, 1);
    /* Fewer lives where others have the processors. */
    for (uint64_t round = 0; !all_translate(t, translators) || (lived < lives && clock_now_ns() < enough_ns); round++) {
        uint32_t slot = random_next(&random) % r->slots;
        if (state[slot] == MAPPED) {
            unmap_slot(r, slot);
            state[slot] = ENDING;
        } else if (state[slot] == ENDING && has_ended(r, slot)) {
            poison_slot(r, slot);
            state[slot] = OURS;
            lived++;
        } else if (state[slot] == OURS) {
            check_poison(r, slot);
            map_slot(r, slot, round);
            state[slot] = MAPPED;
            if (r->scene.cold)
                linger(&random);
        } else if (round % 256 == 0) {
            sched_yield(); /* who uses it may have lost its processor */
        }
        if (round % 64 == 0)
            iommu_flush(r->space);
    }
    for (uint32_t slot = 0; slot < r->slots; slot++) {
        if (state[slot] == MAPPED)
            unmap_slot(r, slot);
        iommu_flush(r->space);
        while (state[slot] != OURS && !has_ended(r, slot))
            sched_yield(); /* the translators' next get or put */
        if (state[slot] == OURS)
            check_poison(r, slot);
    }
}

static void run(const struct scene *scene)
{
    const char *slow = getenv("DOMZERO_TEST_MODE");
    static const struct iommu_limits limits = {1024, 64};
    unsigned translators = scene->cold ? 1 : TRANSLATORS;
    struct race *r = calloc(1, sizeof(*r));
    struct translator t[TRANSLATORS] = {0};
    assert_non_null(r);
    r->scene = *scene;
    r->slots = scene->cold ? 1 : SLOTS;
    assert_int_equal(scene->fenced ? iommu_new_fenced(&r->unit) : iommu_new(&r->unit), 0);
    assert_int_equal(iommu_space_new(r->unit, 1, 1, 32, scene->mode, &limits, &r->space), 0);
    for (unsigned i = 0; i < translators; i++) {
        t[i].r = r;
        t[i].number = i;
        t[i].cold = scene->cold ? calloc(1, COLD_BYTES) : NULL;
        assert_int_equal(pthread_create(&t[i].thread, NULL, translate, &t[i]), 0);
    }
    while (atomic_load(&r->ready) < translators && !atomic_load(&r->wrong))
        sched_yield();
    come_and_go(r, t, translators, slow && *slow ? 3000 : 40000);
    atomic_store(&r->stop, true);
    for (unsigned i = 0; i < translators; i++) {
        pthread_join(t[i].thread, NULL);
        free(t[i].cold);
    }
    assert_int_equal(atomic_load(&r->wrong), 0);
    iommu_space_free(r->space);
    iommu_free(r->unit);
    free(r);
}

static void test_after_done_nobody_uses_the_frame(void **state)
{
    (void)state;
    run(&(struct scene){.mode = IOMMU_STRICT});
}

static void test_after_done_nobody_uses_the_frame_deferred(void **state)
{
    (void)state;
    run(&(struct scene){.mode = IOMMU_DEFERRED});
}

static void test_after_done_nobody_uses_the_frame_without_membarrier(void **state)
{
    (void)state;
    run(&(struct scene){.mode = IOMMU_STRICT, .fenced = true});
    run(&(struct scene){.mode = IOMMU_DEFERRED, .fenced = true});
}

static void test_a_use_that_no_other_processor_sees_yet_is_waited_for(void **state)
{
    (void)state;
    run(&(struct scene){.cold = true});
    run(&(struct scene){.cold = true, .fenced = true});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_after_done_nobody_uses_the_frame),
        cmocka_unit_test(test_after_done_nobody_uses_the_frame_deferred),
        cmocka_unit_test(test_after_done_nobody_uses_the_frame_without_membarrier),
        cmocka_unit_test(test_a_use_that_no_other_processor_sees_yet_is_waited_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
