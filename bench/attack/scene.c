/* SPDX-License-Identifier: MIT */
/* bench/attack/scene.c: the steps that attempts are made of. */
#include "bench/attack/attack.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/spin.h"
#include "bench/attack/trap.h"

int scene_open(struct scene *s, const struct dom0_rules *rules, uint64_t seed, struct err *e)
{
    *s = (struct scene){.random = seed * 2654435761u + 1};
    int r = machine_open(&s->machine);
    if (r)
        return err_set(e, r, "the machine cannot be had: %s", strerror(-r));
    return dom0_open(&s->dom0, &s->machine, rules, e);
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

static void counters_note(struct scene *s)
{
    const struct blkstats *b = &s->dom0.queue->stats;
    for (unsigned i = 0; i < GRANT_E_COUNT_; i++)
        s->bad_grants[i] = blkcounter_get(&b->bad_grants[i]);
    for (unsigned i = 0; i < BLKREQ_E_COUNT_; i++)
        s->bad_requests[i] = blkcounter_get(&b->bad_requests[i]);
    s->errors = blkcounter_get(&b->errors);
    s->outside = s->dom0.gate.outside;
}

static void frame_prepare(struct scene *s, struct shot *shot, unsigned i)
{
    struct domain_reply reply;
    uint32_t frame;
    bool taken = true;
    for (uint32_t from = scene_random(s, MACHINE_FRAMES); taken; from = frame - FRAME_DATA + 1) {
        frame = machine_pick(&s->machine, DOMAIN_ATTACKER, from);
        taken = false;
        for (unsigned k = 0; k < i; k++)
            taken |= shot->frame[k] == frame;
    }
    shot->frame[i] = frame;
    attacker_do(s, &(struct domain_call){.op = DOMAIN_FILL, .frame = frame, .byte = BYTE_ATTACKER}, &reply);
    int r = attacker_do(s, &(struct domain_call){.op = DOMAIN_GRANT, .frame = frame}, &reply);
    assert(r == 0);
    shot->gref[i] = reply.gref;
}

void shot_make(struct scene *s, struct shot *shot, unsigned count, unsigned flags)
{
    const bool indirect = flags & SHOT_INDIRECT;
    assert(count <= ATTACK_FRAMES_MAX && (indirect || count <= BLKREQ_SEGMENTS_MAX));
    dom0_refresh(&s->dom0);
    counters_note(s);
    *shot = (struct shot){.write = flags & SHOT_WRITE || (scene_random(s, 2) && !(flags & SHOT_READ)),
                          .late = !s->stepped_only && scene_random(s, 2),
                          .count = count};
    shot->put.op = DOMAIN_PUT;
    struct blkreq *req = &shot->put.req;
    *req = (struct blkreq){.id = ++s->next_id,
                           .operation = shot->write ? BLKIF_OP_WRITE : BLKIF_OP_READ,
                           .segment_count = (uint16_t)count,
                           .sector_count = count * BLKREQ_SECTORS_PER_PAGE};
    req->sector = scene_random(s, GATE_DISK_BYTES / SECTOR_BYTES - (uint32_t)req->sector_count + 1);
    for (unsigned i = 0; i < count; i++) {
        frame_prepare(s, shot, i);
        shot->put.segment[i] = (struct blkreq_segment){shot->gref[i], 0, BLKREQ_SECTORS_PER_PAGE - 1};
        if (!indirect)
            req->segment[i] = shot->put.segment[i];
    }
    req->indirect_pages = indirect;
    req->indirect_gref[0] = indirect ? s->dom0.indirect_gref : 0;
}

void shot_send(struct scene *s, struct shot *shot)
{
    struct domain_reply reply;
    if (shot->write)
        gate_shut(&s->dom0.gate);
    s->dom0.queue->sqe_flags = shot->late ? IOSQE_ASYNC : 0;
    attacker_do(s, &shot->put, &reply);
}

void shot_run(struct scene *s, struct shot *shot, void (*act)(struct scene *s, struct shot *shot))
{
    uint32_t moment = act ? scene_random(s, 3) : 3;
    dom0_take(&s->dom0);
    if (moment == 0)
        act(s, shot);
    dom0_submit(&s->dom0);
    if (moment == 1)
        act(s, shot);
    if (shot->late) { /* a thread of the kernel moves it from here on */
        dom0_land(&s->dom0, BYTE_DEVICE);
        if (moment == 2)
            act(s, shot);
        return;
    }
    if (moment == 2)
        act(s, shot);
    dom0_land(&s->dom0, BYTE_DEVICE);
}

void entry_poke(struct domain_call *poke, uint32_t gref, uint16_t flags, uint32_t frame)
{
    const struct grant_entry_v1 entry = {.flags = flags, .domid = 0, .frame = frame};
    poke->frame = FRAME_GRANTS;
    poke->offset = gref * (uint32_t)sizeof(entry);
    poke->length = sizeof(entry);
    memcpy(poke->bytes[0], &entry, sizeof(entry));
}

static void move_make(void *ctx)
{
    const struct domain_call *poke = ((void **)ctx)[0];
    unsigned char *at = ((void **)ctx)[1];
    for (uint32_t i = 0; i < poke->length; i++)
        ((volatile unsigned char *)at)[i] = poke->bytes[0][i];
}

void shot_rewrite(struct scene *s, struct shot *shot, struct domain_call *poke, unsigned accesses_max)
{
    struct domain_reply reply;
    poke->op = DOMAIN_POKE;
    if (!shot->late && trap_works()) {
        unsigned char *page = machine_page(&s->machine, poke->frame);
        void *move[] = {poke, page + poke->offset};
        trap_arm(page, 1 + scene_random(s, accesses_max), move_make, move);
        dom0_take(&s->dom0);
        trap_disarm();
    } else {
        poke->rounds = 1 + scene_random(s, 2000);
        domain_call_late(&s->machine.attacker, poke);
        for (uint32_t spins = scene_random(s, 1000); spins; spins--)
            spin_relax();
        dom0_take(&s->dom0);
        domain_answer_late(&s->machine.attacker, &reply);
    }
    dom0_submit(&s->dom0);
    dom0_land(&s->dom0, BYTE_DEVICE);
}

static bool victim_read(struct scene *s, const struct shot *shot)
{
    static unsigned char data[GATE_PIPE_BYTES];
    size_t n = shot->write ? gate_written(&s->dom0.gate, data, sizeof(data)) : 0;
    for (size_t i = 0; i < n; i++)
        if (data[i] >= BYTE_CANARY)
            return true;
    return false;
}

/* What the queue counted since the attempt began. */
static const char *refusal(const struct scene *s)
{
    static const char *const grants[GRANT_E_COUNT_] = {
        [GRANT_E_BAD_REF] = "refused: reference",     [GRANT_E_TYPE] = "refused: no grant",
        [GRANT_E_DOMAIN] = "refused: domain",         [GRANT_E_READONLY] = "refused: read-only",
        [GRANT_E_UNSTABLE] = "refused: unstable",     [GRANT_E_FRAME] = "refused: foreign frame",
        [GRANT_E_REVOKED] = "refused: being revoked",
    };
    static const char *const requests[BLKREQ_E_COUNT_] = {
        [BLKREQ_E_OPERATION] = "refused: operation",
        [BLKREQ_E_SEGMENT_COUNT] = "refused: segments",
        [BLKREQ_E_SEGMENT] = "refused: segment",
        [BLKREQ_E_RANGE] = "refused: range",
    };
    const struct blkstats *b = &s->dom0.queue->stats;
    for (unsigned i = 0; i < GRANT_E_COUNT_; i++)
        if (grants[i] && blkcounter_get(&b->bad_grants[i]) != s->bad_grants[i])
            return grants[i];
    for (unsigned i = 0; i < BLKREQ_E_COUNT_; i++)
        if (requests[i] && blkcounter_get(&b->bad_requests[i]) != s->bad_requests[i])
            return requests[i];
    return blkcounter_get(&b->errors) != s->errors ? "refused" : NULL;
}

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

void shot_judge(struct scene *s, struct shot *shot, struct outcome *out)
{
    struct domain_reply reply;
    dom0_finish(&s->dom0);
    *out = (struct outcome){0};
    machine_check(&s->machine, &out->damage);
    out->success = out->damage.frames || victim_read(s, shot) || s->dom0.gate.outside != s->outside;
    gate_rest(&s->dom0.gate);
    const char *refused = refusal(s);
    out->how = shot->stopped_by ? shot->stopped_by : refused ? refused : "no effect";
    while (attacker_do(s, &(struct domain_call){.op = DOMAIN_ANSWER}, &reply) == 0)
        ;
    grants_end(s, shot);
    machine_balance(&s->machine, scene_random(s, MACHINE_FRAMES));
}
