/* SPDX-License-Identifier: MIT */
#include "base/clock.h"
#include "base/membarrier.h"
#include "grant/iommu_inner.h"

static const struct {
    const char *name, *text;
} reasons[IOMMU_F_COUNT_] = {
    [IOMMU_F_NOT_PRESENT] = {"not-present", "nothing is mapped at that bus address"},
    [IOMMU_F_PERMISSION] = {"permission", "the bus address is mapped, but not for that"},
    [IOMMU_F_FOREIGN] = {"foreign", "the device is not, or no longer, assigned to that domain"},
    [IOMMU_F_WINDOW] = {"window", "the bus address is beyond what the device can address"},
    [IOMMU_F_FRAME] = {"frame", "the memory behind the bus address is gone or is taken back by its owner"},
    [IOMMU_F_INTERRUPT] = {"interrupt", "the device raised an interrupt that is not assigned to it"},
};

static bool reason_known(int reason)
{
    return reason > 0 && reason < IOMMU_F_COUNT_ && reasons[reason].name;
}

const char *iommu_fault_name(int reason)
{
    return reason_known(reason) ? reasons[reason].name : "unknown";
}

const char *iommu_fault_text(int reason)
{
    return reason_known(reason) ? reasons[reason].text : "a fault of no known kind";
}

int iommu_new_fenced(struct iommu **out)
{
    struct iommu *u = calloc(1, sizeof(*u));
    if (!u)
        return -ENOMEM;
    u->fenced = true;
    pthread_mutex_init(&u->lock, NULL);
    *out = u;
    return 0;
}

int iommu_new(struct iommu **out)
{
    int r = iommu_new_fenced(out);
    if (r == 0)
        (*out)->fenced = !membarrier_register();
    return r;
}

void iommu_free(struct iommu *u)
{
    if (!u)
        return;
    assert(atomic_load(&u->spaces) == 0);
    pthread_mutex_destroy(&u->lock);
    free(u);
}

void iommu_fault_record(struct iommu *u, const struct iommu_fault *fault)
{
    assert(reason_known(fault->reason));
    uint64_t now_ns = clock_now_ns();
    pthread_mutex_lock(&u->lock);
    struct iommu_fault *f = &u->log[u->total++ % IOMMU_FAULTS_KEPT];
    *f = *fault;
    f->at_ns = now_ns;
    pthread_mutex_unlock(&u->lock);
    atomic_fetch_add_explicit(&u->counts[fault->reason], 1, memory_order_relaxed);
}

unsigned iommu_faults(struct iommu *u, struct iommu_fault *out, unsigned max, uint64_t *total)
{
    pthread_mutex_lock(&u->lock);
    unsigned n = (unsigned)MIN(MIN(u->total, IOMMU_FAULTS_KEPT), max);
    for (unsigned i = 0; i < n; i++)
        out[i] = u->log[(u->total - n + i) % IOMMU_FAULTS_KEPT];
    *total = u->total;
    pthread_mutex_unlock(&u->lock);
    return n;
}

uint64_t iommu_fault_count(const struct iommu *u, uint8_t reason)
{
    return reason_known(reason) ? atomic_load_explicit(&u->counts[reason], memory_order_relaxed) : 0;
}
