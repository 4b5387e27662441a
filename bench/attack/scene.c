/* SPDX-License-Identifier: MIT */
/* bench/attack/scene.c: what is around an attempt, and what is seen of it afterwards. */
#include <assert.h>
#include <string.h>

#include "bench/attack/attack.h"

static void counters_note(struct scene *s)
{
    const struct blkstats *b = &s->dom0.queue->stats;
    for (unsigned i = 0; i < GRANT_E_COUNT_; i++)
        s->bad_grants[i] = blkcounter_get(&b->bad_grants[i]);
    for (unsigned i = 0; i < BLKREQ_E_COUNT_; i++)
        s->bad_requests[i] = blkcounter_get(&b->bad_requests[i]);
    for (unsigned i = 0; i < IOMMU_F_COUNT_; i++)
        s->iommu_faults[i] = iommu_fault_count(s->dom0.unit, (uint8_t)i);
    s->errors = blkcounter_get(&b->errors);
    s->outside = s->dom0.gate.outside;
}

int scene_open(struct scene *s, const struct dom0_rules *rules, uint64_t seed, struct err *e)
{
    *s = (struct scene){.random = seed * 2654435761u + 1};
    int r = machine_open(&s->machine);
    if (r)
        return err_set(e, r, "the machine cannot be had: %s", strerror(-r));
    r = dom0_open(&s->dom0, &s->machine, rules, e);
    if (!r)
        counters_note(s);
    return r;
}

void scene_close(struct scene *s)
{
    dom0_close(&s->dom0);
    machine_close(&s->machine);
}

uint32_t scene_random(struct scene *s, uint32_t below)
{
    s->random = s->random * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(s->random >> 33) % below;
}

int attacker_do(struct scene *s, const struct domain_call *call, struct domain_reply *reply)
{
    domain_call(&s->machine.attacker, call, reply);
    return reply->result;
}

/* ---- what is seen ---- */

/* Canaries among what was written to the disk. Pages of the attacker's own have such bytes too, but not so many in a
 * row. */
static bool canaries_in(const unsigned char *data, size_t size)
{
    unsigned row = 0;
    for (size_t i = 0; i < size; i++) {
        row = data[i] >= BYTE_CANARY ? row + 1 : 0;
        if (row == DOMAIN_SAMPLE)
            return true;
    }
    return false;
}

/* What the storage saw of the request that it should not have; NULL: nothing. */
static const char *storage_won(struct scene *s, const struct shot *shot)
{
    static unsigned char data[GATE_PIPE_BYTES];
    struct gate *g = &s->dom0.gate;
    const size_t size = shot->write ? gate_written(g, data, sizeof(data)) : 0;
    const char *won = canaries_in(data, size)                        ? "read"
                      : g->outside != s->outside                     ? "outside"
                      : g->bad_sums || !gate_sums_fit(g, data, size) ? "checksum"
                                                                     : NULL;
    g->bad_sums = 0;
    gate_rest(g);
    return won;
}

static const char *const grant_refusals[GRANT_E_COUNT_] = {
    [GRANT_E_BAD_REF] = "refused: reference",     [GRANT_E_TYPE] = "refused: no grant",
    [GRANT_E_DOMAIN] = "refused: domain",         [GRANT_E_READONLY] = "refused: read-only",
    [GRANT_E_UNSTABLE] = "refused: unstable",     [GRANT_E_FRAME] = "refused: foreign frame",
    [GRANT_E_REVOKED] = "refused: being revoked",
};

static const char *const request_refusals[BLKREQ_E_COUNT_] = {
    [BLKREQ_E_OPERATION] = "refused: operation", [BLKREQ_E_SEGMENT_COUNT] = "refused: segments",
    [BLKREQ_E_SEGMENT] = "refused: segment",     [BLKREQ_E_RANGE] = "refused: range",
    [BLKREQ_E_BUS] = "refused: bus address",     [BLKREQ_E_BUS_UNMAP] = "refused: not mapped",
};

static const char *const iommu_refusals[IOMMU_F_COUNT_] = {
    [IOMMU_F_NOT_PRESENT] = "fault: not present",
    [IOMMU_F_PERMISSION] = "fault: permission",
    [IOMMU_F_FOREIGN] = "fault: foreign",
    [IOMMU_F_WINDOW] = "fault: window",
    [IOMMU_F_FRAME] = "fault: frame",
    [IOMMU_F_INTERRUPT] = "fault: interrupt",
};

/* What was counted since the last attempt. */
static const char *refusal(const struct scene *s)
{
    const struct blkstats *b = &s->dom0.queue->stats;
    for (unsigned i = 0; i < GRANT_E_COUNT_; i++)
        if (grant_refusals[i] && blkcounter_get(&b->bad_grants[i]) != s->bad_grants[i])
            return grant_refusals[i];
    for (unsigned i = 0; i < BLKREQ_E_COUNT_; i++)
        if (request_refusals[i] && blkcounter_get(&b->bad_requests[i]) != s->bad_requests[i])
            return request_refusals[i];
    for (unsigned i = 0; i < IOMMU_F_COUNT_; i++)
        if (iommu_refusals[i] && iommu_fault_count(s->dom0.unit, (uint8_t)i) != s->iommu_faults[i])
            return iommu_refusals[i];
    return blkcounter_get(&b->errors) != s->errors ? "failed" : "no effect";
}

/* ---- taking back ---- */

/* The entry as it was granted, without the marks of which the attacker may have made anything. */
static void entry_restore(struct scene *s, const struct shot *shot, unsigned i)
{
    struct domain_reply reply;
    struct domain_call poke = {.op = DOMAIN_POKE, .rounds = 1};
    entry_poke(&poke, shot->gref[i], GTF_permit_access, shot->frame[i]);
    memcpy(poke.bytes[1], poke.bytes[0], sizeof(poke.bytes[1]));
    attacker_do(s, &poke, &reply);
}

/* The grants go; nothing of this request's is mapped any more. */
static void grants_end(struct scene *s, struct shot *shot)
{
    struct domain_reply reply;
    for (unsigned i = 0; i < shot->count; i++) {
        if (!shot->gref[i])
            continue;
        if (shot->entries_changed)
            entry_restore(s, shot, i);
        int r = attacker_do(s, &(struct domain_call){.op = DOMAIN_END, .gref = shot->gref[i]}, &reply);
        assert(r == 0);
    }
}

void scene_flush(struct scene *s)
{
    if (s->dom0.space)
        iommu_flush(s->dom0.space);
    if (s->dom0.rules.dma->turn)
        s->dom0.rules.dma->turn(s->dom0.queue->dma);
    dom0_publish(&s->dom0);
}

void shot_judge(struct scene *s, struct shot *shot, struct outcome *out)
{
    struct domain_reply reply;
    dom0_finish(&s->dom0);
    *out = (struct outcome){.how = shot->stopped_by ? shot->stopped_by : refusal(s)};
    out->won = storage_won(s, shot);
    if (shot->bus_page && !shot->unmapping)
        shot_unmap(s, shot);
    scene_flush(s);
    while (attacker_do(s, &(struct domain_call){.op = DOMAIN_ANSWER}, &reply) == 0)
        ;
    grants_end(s, shot);
    machine_check(&s->machine, &out->damage);
    if (out->damage.frames)
        out->won = "changed";
    machine_balance(&s->machine, scene_random(s, MACHINE_FRAMES));
    dom0_refresh(&s->dom0);
    counters_note(s);
}
