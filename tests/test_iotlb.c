/* SPDX-License-Identifier: MIT */
/* IOTLB: what it hands out is what is mapped, an unmap ends when nothing uses it, and frames go back exactly once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "grant/iommu.h"

struct held {
    unsigned holds[4096];
    unsigned char memory[16];
    int refuse;
};

static int hold(void *ctx, uint32_t frame, bool write, unsigned char **address, void **handle)
{
    struct held *h = ctx;
    (void)write;
    if (h->refuse)
        return -ESTALE;
    h->holds[frame]++;
    *address = h->memory;
    *handle = h;
    return 0;
}

static void release(void *ctx, uint32_t frame, void *handle)
{
    struct held *h = ctx;
    assert_ptr_equal(handle, h);
    assert_true(h->holds[frame] > 0);
    h->holds[frame]--;
}

static const struct iotlb_ops ops = {hold, release};
static const struct iommu_limits limits = {4096, 64};

static unsigned ended;
static void done(struct iommu_unmap *u)
{
    (void)u;
    ended++;
}

static void test_unmap_waits_for_its_last_put(void **state)
{
    (void)state;
    struct iommu *u;
    struct iommu_space *s;
    struct iotlb *t;
    struct held h = {0};
    assert_int_equal(iommu_new(&u), 0);
    assert_int_equal(iommu_space_new(u, 3, 51712, 32, IOMMU_STRICT, &limits, &s), 0);
    assert_int_equal(iotlb_new(s, &ops, &h, 16, 8, &t), 0);
    uint64_t at = IOMMU_ANY;
    static const uint32_t frames[] = {7, 9};
    assert_int_equal(iommu_map(s, &at, frames, 2, IOMMU_READ), 0);
    struct iotlb_entry *e, *f;
    assert_int_equal(iotlb_get(t, at, false, &e), 0);
    assert_int_equal(e->frame, 7);
    assert_int_equal(iotlb_get(t, at + 1, true, &f), IOMMU_F_PERMISSION);
    assert_int_equal(iotlb_get(t, at + 1, false, &f), 0);
    struct iommu_unmap unmap = {.done = done};
    ended = 0;
    assert_int_equal(iommu_unmap(s, at, 1, &unmap), 0);
    iotlb_put(t, f);
    assert_int_equal(iotlb_get(t, at, false, &f), IOMMU_F_NOT_PRESENT);
    assert_int_equal(ended, 0);
    iotlb_put(t, e);
    assert_int_equal(ended, 1);
    assert_int_equal(h.holds[7], 0);
    assert_int_equal(h.holds[9], 1);
    assert_int_equal(iommu_unmap(s, at + 1, 1, &unmap), 0);
    assert_int_equal(ended, 2); /* idle: nobody is asked */
    iotlb_free(t);
    assert_int_equal(h.holds[9], 0);
    iommu_space_free(s);
    iommu_free(u);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unmap_waits_for_its_last_put),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
