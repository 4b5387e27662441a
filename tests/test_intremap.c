/* SPDX-License-Identifier: MIT */
/* Interrupt remapping: a device raises what was assigned to it, and nothing else; nothing reaches a target whose revoke
 * has returned. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "grant/intremap.h"

#define ENTRIES 64u

struct world {
    struct iommu *unit;
    struct intremap *table;
};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    assert_int_equal(iommu_new(&w->unit), 0);
    assert_int_equal(intremap_new(w->unit, ENTRIES, &w->table), 0);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    intremap_free(w->table);
    iommu_free(w->unit);
    free(w);
    return 0;
}

static struct intremap_source device(uint32_t number, uint16_t domid)
{
    return (struct intremap_source){.device = number, .domid = domid};
}

static uint32_t block(struct world *w, struct intremap_source source, uint32_t vectors)
{
    uint32_t handle;
    assert_int_equal(intremap_alloc(w->table, &source, vectors, &handle), 0);
    return handle;
}

static int assign(struct world *w, uint32_t handle, uint32_t vector, uint16_t domid, uint32_t port)
{
    struct intremap_target target = {.domid = domid, .port = port, .vector = port + 1000, .owner = w};
    return intremap_assign(w->table, handle, vector, &target);
}

/* The port that is reached, 0: none. */
static uint32_t raised(struct world *w, struct intremap_source source, uint32_t handle, uint32_t vector)
{
    const struct intremap_target *target = intremap_begin(w->table, &source, handle, vector);
    if (!target)
        return 0;
    assert_int_equal(target->domid, source.domid);
    assert_int_equal(target->vector, target->port + 1000);
    assert_ptr_equal(target->owner, w);
    uint32_t port = target->port;
    intremap_end(w->table, target);
    return port;
}

/* ---- one rule each ---- */

static void test_a_device_raises_what_was_assigned_to_it(void **state)
{
    struct world *w = *state;
    struct intremap_source disk = device(7, 3);
    uint32_t handle = block(w, disk, 4);
    assert_int_equal(assign(w, handle, 0, 3, 11), 0);
    assert_int_equal(assign(w, handle, 3, 3, 12), 0);
    assert_int_equal(raised(w, disk, handle, 0), 11);
    assert_int_equal(raised(w, disk, handle, 3), 12);
    assert_int_equal(iommu_fault_count(w->unit, IOMMU_F_INTERRUPT), 0);
    intremap_release(w->table, handle);
}

static void test_a_vector_that_was_not_assigned_is_a_fault_in_the_log(void **state)
{
    struct world *w = *state;
    struct intremap_source disk = device(7, 3);
    struct intremap_stats stats;
    struct iommu_fault fault;
    uint64_t total;
    uint32_t handle = block(w, disk, 2);
    assert_int_equal(assign(w, handle, 0, 3, 11), 0);
    assert_int_equal(raised(w, disk, handle, 1), 0);
    assert_int_equal(iommu_faults(w->unit, &fault, 1, &total), 1);
    assert_int_equal(total, 1);
    assert_int_equal(fault.reason, IOMMU_F_INTERRUPT);
    assert_int_equal(fault.device, 7);
    assert_int_equal(fault.domid, 3);
    assert_int_equal(fault.address, 1);
    intremap_stats(w->table, &stats);
    assert_int_equal(stats.faults, 1);
    intremap_release(w->table, handle);
}

/* Whatever handle and vector another device writes: its own source gives it away. */
static void test_no_device_raises_the_port_of_another(void **state)
{
    struct world *w = *state;
    struct intremap_source victim = device(7, 3), neighbour = device(8, 3), foreign = device(9, 4);
    uint32_t mine = block(w, foreign, 2), theirs = block(w, victim, 4);
    unsigned attempts = 0;
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(assign(w, theirs, i, 3, 20 + i), 0);
    for (uint32_t handle = 0; handle <= ENTRIES; handle++)
        for (uint32_t vector = 0; vector <= ENTRIES; vector++, attempts += 2) {
            assert_int_equal(raised(w, neighbour, handle, vector), 0);
            assert_int_equal(raised(w, foreign, handle, vector), 0);
        }
    assert_int_equal(iommu_fault_count(w->unit, IOMMU_F_INTERRUPT), attempts);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(raised(w, victim, theirs, i), 20 + i);
    intremap_release(w->table, mine);
    intremap_release(w->table, theirs);
}

static void test_numbers_that_wrap_are_faults(void **state)
{
    struct world *w = *state;
    struct intremap_source disk = device(7, 3);
    static const uint32_t wild[][2] = {{UINT32_MAX, 1}, {1, UINT32_MAX}, {UINT32_MAX, UINT32_MAX}, {1u << 31, 1u << 31},
                                       {ENTRIES, 0},    {0, ENTRIES},    {ENTRIES - 1, 1},         {UINT32_MAX - 1, 2}};
    uint32_t handle = block(w, disk, 1);
    assert_int_equal(assign(w, handle, 0, 3, 11), 0);
    for (size_t i = 0; i < ARRAY_SIZE(wild); i++)
        assert_int_equal(raised(w, disk, wild[i][0], wild[i][1]), 0);
    assert_int_equal(iommu_fault_count(w->unit, IOMMU_F_INTERRUPT), ARRAY_SIZE(wild));
    intremap_release(w->table, handle);
}

/* The device number is the same: the domain that had it has it no more. */
static void test_a_device_that_changed_hands_raises_nothing_of_its_former_domain(void **state)
{
    struct world *w = *state;
    struct intremap_source before = device(7, 3), after = device(7, 4);
    uint32_t handle = block(w, before, 1);
    assert_int_equal(assign(w, handle, 0, 3, 11), 0);
    assert_int_equal(raised(w, after, handle, 0), 0);
    intremap_release(w->table, handle);
    assert_int_equal(raised(w, before, handle, 0), 0);
}

static void test_a_target_of_another_domain_is_refused(void **state)
{
    struct world *w = *state;
    uint32_t handle = block(w, device(7, 3), 1);
    assert_int_equal(assign(w, handle, 0, 4, 11), -EPERM);
    assert_int_equal(assign(w, handle, 1, 3, 11), -ERANGE);
    assert_int_equal(assign(w, handle, 0, 3, 11), 0);
    assert_int_equal(assign(w, handle, 0, 3, 12), -EEXIST);
    assert_int_equal(raised(w, device(7, 3), handle, 0), 11);
    intremap_release(w->table, handle);
}

static void test_what_a_device_holds_is_bounded_and_given_back(void **state)
{
    struct world *w = *state;
    struct intremap *large;
    struct intremap_source one = device(1, 3), two = device(1, 4); /* each its own limit */
    struct intremap_stats stats;
    uint32_t a, b, c;
    assert_int_equal(intremap_new(w->unit, 0, &large), -EINVAL);
    assert_int_equal(intremap_new(w->unit, INTREMAP_ENTRIES_MAX + 1, &large), -EINVAL);
    assert_int_equal(intremap_new(w->unit, INTREMAP_ENTRIES_MAX, &large), 0);
    assert_int_equal(intremap_alloc(large, &one, 0, &a), -EINVAL);
    assert_int_equal(intremap_alloc(large, &one, UINT32_MAX, &a), -EDQUOT);
    assert_int_equal(intremap_alloc(large, &one, INTREMAP_DEVICE_MAX - 1, &a), 0);
    assert_int_equal(intremap_alloc(large, &one, 2, &b), -EDQUOT);
    assert_int_equal(intremap_alloc(large, &one, 1, &b), 0);
    assert_int_equal(intremap_alloc(large, &two, INTREMAP_DEVICE_MAX, &c), 0);
    intremap_stats(large, &stats);
    assert_int_equal(stats.blocks, 3);
    assert_int_equal(stats.entries, 2 * INTREMAP_DEVICE_MAX);
    intremap_release(large, a);
    intremap_release(large, c);
    intremap_release(large, b);
    intremap_stats(large, &stats);
    assert_int_equal(stats.blocks + stats.entries, 0);
    intremap_free(large);

    assert_int_equal(intremap_alloc(w->table, &one, ENTRIES + 1, &a), -ENOSPC);
    assert_int_equal(intremap_alloc(w->table, &one, ENTRIES, &a), 0);
    assert_int_equal(intremap_alloc(w->table, &two, 1, &b), -ENOSPC);
    intremap_release(w->table, a);
}

/* ---- against a model ---- */

struct model {
    bool taken[ENTRIES];
    struct intremap_source source[ENTRIES];
    uint32_t port[ENTRIES];  /* 0: not assigned */
    uint32_t count[ENTRIES]; /* of the block that begins there */
};

static uint32_t seed = 12345;

static uint32_t random_below(uint32_t n)
{
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % n;
}

static bool model_has_run(const struct model *m, uint32_t count)
{
    for (uint32_t first = 0, i; first + count <= ENTRIES; first++) {
        for (i = 0; i < count && !m->taken[first + i]; i++)
            ;
        if (i == count)
            return true;
    }
    return false;
}

static void model_alloc(struct world *w, struct model *m)
{
    struct intremap_source source = device(random_below(4), (uint16_t)random_below(3));
    uint32_t count = 1 + random_below(8), handle = 0;
    int r = intremap_alloc(w->table, &source, count, &handle);
    assert_int_equal(r, model_has_run(m, count) ? 0 : -ENOSPC);
    for (uint32_t i = handle; r == 0 && i < handle + count; i++) {
        assert_false(m->taken[i]);
        m->taken[i] = true;
        m->source[i] = source;
        m->port[i] = 0;
    }
    if (r == 0)
        m->count[handle] = count;
}

static void model_release(struct world *w, struct model *m, uint32_t handle)
{
    intremap_release(w->table, handle);
    for (uint32_t i = handle; i < handle + m->count[handle]; i++) {
        m->taken[i] = false;
        m->port[i] = 0;
    }
    m->count[handle] = 0;
}

static void model_assign(struct world *w, struct model *m, uint32_t handle, uint32_t port)
{
    uint32_t vector = random_below(9);
    uint16_t domid = (uint16_t)random_below(3);
    int want = vector >= m->count[handle]                   ? -ERANGE
               : domid != m->source[handle].domid           ? -EPERM
               : m->port[handle + MIN(vector, ENTRIES - 1)] ? -EEXIST
                                                            : 0;
    assert_int_equal(assign(w, handle, vector, domid, port), want);
    if (want == 0)
        m->port[handle + vector] = port;
}

static void model_raise(struct world *w, const struct model *m)
{
    struct intremap_source source = device(random_below(4), (uint16_t)random_below(3));
    uint32_t handle = random_below(ENTRIES + 2), vector = random_below(9), at = handle + vector;
    uint32_t want =
        at < ENTRIES && m->source[at].device == source.device && m->source[at].domid == source.domid ? m->port[at] : 0;
    assert_int_equal(raised(w, source, handle, vector), want);
}

static void test_random_steps_do_what_a_model_does(void **state)
{
    struct world *w = *state;
    static struct model m;
    memset(&m, 0, sizeof(m));
    for (uint32_t step = 1; step <= 200000; step++) {
        uint32_t handle = random_below(ENTRIES), vector = random_below(8);
        bool is_block = m.count[handle];
        switch (random_below(10)) {
        case 0: model_alloc(w, &m); break;
        case 1:
            if (is_block && random_below(3) == 0)
                model_release(w, &m, handle);
            break;
        case 2:
        case 3:
        case 4:
            if (is_block)
                model_assign(w, &m, handle, step);
            break;
        case 5:
            if (is_block) {
                intremap_revoke(w->table, handle, vector);
                if (vector < m.count[handle])
                    m.port[handle + vector] = 0;
            }
            break;
        default: model_raise(w, &m);
        }
    }
    for (uint32_t i = 0; i < ENTRIES; i++)
        if (m.count[i])
            model_release(w, &m, i);
}

/* ---- raise against revoke ---- */

/* What a target's owner is: written plainly by whoever has it alone, which ThreadSanitizer holds us to. */
struct owner {
    unsigned life, told;
};

struct race {
    struct world *w;
    uint32_t handle;
    _Atomic bool stop;
    _Atomic unsigned reached, missed;
};

static void *raiser(void *arg)
{
    struct race *r = arg;
    const struct intremap_source disk = device(7, 3);
    while (!atomic_load(&r->stop)) {
        const struct intremap_target *target = intremap_begin(r->w->table, &disk, r->handle, 0);
        if (!target) {
            atomic_fetch_add(&r->missed, 1);
            sched_yield();
            continue;
        }
        struct owner *owner = target->owner;
        if (owner->life != target->port) /* a target that was freed, or half of another */
            abort();
        __atomic_fetch_add(&owner->told, 1, __ATOMIC_RELAXED);
        intremap_end(r->w->table, target);
        atomic_fetch_add(&r->reached, 1);
    }
    return NULL;
}

static void *stranger(void *arg)
{
    struct race *r = arg;
    const struct intremap_source other = device(8, 3);
    while (!atomic_load(&r->stop))
        if (intremap_begin(r->w->table, &other, r->handle, 0))
            abort();
    return NULL;
}

/* Each life of the target ends with a revoke, after which its owner is ours alone, and soon another. */
static void test_after_a_revoke_no_raise_reaches_the_old_target(void **state)
{
    struct world *w = *state;
    struct race race = {.w = w, .handle = block(w, device(7, 3), 1)};
    pthread_t thread[3];
    unsigned told = 0, lives = 0;
    assert_int_equal(pthread_create(&thread[0], NULL, raiser, &race), 0);
    assert_int_equal(pthread_create(&thread[1], NULL, raiser, &race), 0);
    assert_int_equal(pthread_create(&thread[2], NULL, stranger, &race), 0);
    while (lives < 2000 || race.reached < 100 || race.missed < 100) {
        struct owner *owner = calloc(1, sizeof(*owner));
        owner->life = ++lives;
        struct intremap_target target = {.domid = 3, .port = lives, .owner = owner};
        assert_int_equal(intremap_assign(w->table, race.handle, 0, &target), 0);
        for (unsigned mark = race.reached; lives % 64 == 0 && race.reached == mark;)
            sched_yield();
        intremap_revoke(w->table, race.handle, 0);
        owner->life = 0;
        told += owner->told;
        free(owner);
    }
    race.stop = true;
    for (size_t i = 0; i < ARRAY_SIZE(thread); i++)
        pthread_join(thread[i], NULL);
    assert_int_equal(told, race.reached);
    assert_true(iommu_fault_count(w->unit, IOMMU_F_INTERRUPT) >= race.missed);
    intremap_release(w->table, race.handle);
}

#define INTREMAP_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        INTREMAP_TEST(test_a_device_raises_what_was_assigned_to_it),
        INTREMAP_TEST(test_a_vector_that_was_not_assigned_is_a_fault_in_the_log),
        INTREMAP_TEST(test_no_device_raises_the_port_of_another),
        INTREMAP_TEST(test_numbers_that_wrap_are_faults),
        INTREMAP_TEST(test_a_device_that_changed_hands_raises_nothing_of_its_former_domain),
        INTREMAP_TEST(test_a_target_of_another_domain_is_refused),
        INTREMAP_TEST(test_what_a_device_holds_is_bounded_and_given_back),
        INTREMAP_TEST(test_random_steps_do_what_a_model_does),
        INTREMAP_TEST(test_after_a_revoke_no_raise_reaches_the_old_target),
    };
    return cmocka_run_group_tests_name("intremap", tests, NULL, NULL);
}
