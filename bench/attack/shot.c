/* SPDX-License-Identifier: MIT */
/* bench/attack/shot.c: making a request, and what becomes of it between the check and the landing. */
#include <assert.h>
#include <string.h>

#include "base/spin.h"
#include "bench/attack/attack.h"
#include "bench/attack/trap.h"

#define HAMMER_ROUNDS 2000 /* of a page that is rewritten all the time: some 10 us */
#define HAMMER_SPINS  1000

/* ---- frames and grants ---- */

static uint32_t frame_unused(struct scene *s, const struct shot *shot, unsigned have)
{
    uint32_t frame = FRAME_DATA, from = scene_random(s, MACHINE_FRAMES);
    bool taken = true;
    while (taken) {
        frame = machine_pick(&s->machine, DOMAIN_ATTACKER, from);
        from = frame - FRAME_DATA + 1;
        taken = false;
        for (unsigned k = 0; k < have; k++)
            taken |= shot->frame[k] == frame;
    }
    return frame;
}

void shot_begin(struct scene *s, struct shot *shot, unsigned count, unsigned flags)
{
    struct domain_reply reply;
    assert(count <= ATTACK_FRAMES_MAX && (flags & SHOT_INDIRECT || count <= BLKREQ_SEGMENTS_MAX));
    *shot = (struct shot){.write = flags & SHOT_WRITE || (scene_random(s, 2) && !(flags & SHOT_READ)),
                          .late = !s->stepped_only && scene_random(s, 2),
                          .count = count,
                          .flags = flags,
                          .bus_access = BLKREQ_BUS_READ | BLKREQ_BUS_WRITE};
    for (unsigned i = 0; i < count; i++) {
        const uint32_t frame = shot->frame[i] = frame_unused(s, shot, i);
        attacker_do(s, &(struct domain_call){.op = DOMAIN_FILL, .frame = frame, .byte = BYTE_ATTACKER}, &reply);
        int r = attacker_do(s, &(struct domain_call){.op = DOMAIN_GRANT, .frame = frame}, &reply);
        assert(r == 0);
        shot->gref[i] = reply.gref;
    }
}

/* ---- a page that changes while dom0 reads ---- */

void entry_poke(struct domain_call *poke, uint32_t gref, uint16_t flags, uint32_t frame)
{
    const struct grant_entry_v1 entry = {.flags = flags, .domid = 0, .frame = frame};
    poke->frame = FRAME_GRANTS;
    poke->offset = gref * (uint32_t)sizeof(entry);
    poke->length = sizeof(entry);
    memcpy(poke->bytes[0], &entry, sizeof(entry));
}

struct move {
    const struct domain_call *poke;
    unsigned char *at;
};

static void move_make(void *ctx)
{
    const struct move *m = ctx;
    for (uint32_t i = 0; i < m->poke->length; i++)
        ((volatile unsigned char *)m->at)[i] = m->poke->bytes[0][i];
}

/* dom0 takes what is in the ring, and meanwhile the page changes. */
static void take_meanwhile(struct scene *s, const struct shot *shot, struct domain_call *poke)
{
    struct domain_reply reply;
    if (!shot->late && trap_works()) {
        unsigned char *page = machine_page(&s->machine, poke->frame);
        struct move move = {poke, page + poke->offset};
        trap_arm(page, 1 + scene_random(s, poke->accesses_max), move_make, &move);
        dom0_take(&s->dom0);
        trap_disarm();
        return;
    }
    poke->op = DOMAIN_POKE;
    poke->rounds = 1 + scene_random(s, HAMMER_ROUNDS);
    domain_call_late(&s->machine.attacker, poke);
    for (uint32_t spins = scene_random(s, HAMMER_SPINS); spins; spins--)
        spin_relax();
    dom0_take(&s->dom0);
    domain_answer_late(&s->machine.attacker, &reply);
}

void shot_rewrite(struct scene *s, struct shot *shot, struct domain_call *poke)
{
    take_meanwhile(s, shot, poke);
    dom0_submit(&s->dom0);
    dom0_land(&s->dom0, BYTE_DEVICE);
}

/* ---- bus addresses ---- */

/* Looks for the answer to that request; those of others are passed over. */
static bool answer_find(struct scene *s, uint64_t id, struct domain_reply *reply)
{
    dom0_publish(&s->dom0);
    while (attacker_do(s, &(struct domain_call){.op = DOMAIN_ANSWER}, reply) == 0)
        if (reply->id == id)
            return true;
    return false;
}

void shot_map(struct scene *s, struct shot *shot, struct domain_call *meanwhile)
{
    struct domain_reply reply;
    struct domain_call call = {.op = DOMAIN_PUT};
    if (!s->dom0.rules.bus)
        return;
    call.req = (struct blkreq){.id = ++s->next_id,
                               .operation = BLKREQ_OP_BUS_MAP,
                               .flag = shot->bus_access,
                               .sector_count = shot->count,
                               .indirect_gref = {s->dom0.list_gref}};
    for (unsigned i = 0; i < shot->count; i++)
        call.segment[i].gref = shot->gref[i];
    attacker_do(s, &call, &reply);
    if (meanwhile)
        take_meanwhile(s, shot, meanwhile);
    else
        dom0_take(&s->dom0);
    if (answer_find(s, call.req.id, &reply) && reply.status == BLKIF_RSP_OKAY)
        shot->bus_page = reply.value / PAGE_BYTES;
}

bool shot_unmap(struct scene *s, struct shot *shot)
{
    struct domain_reply reply;
    const struct domain_call call = {.op = DOMAIN_PUT,
                                     .req = {.id = ++s->next_id,
                                             .operation = BLKREQ_OP_BUS_UNMAP,
                                             .sector = shot->bus_page * PAGE_BYTES,
                                             .sector_count = shot->count}};
    attacker_do(s, &call, &reply);
    dom0_take(&s->dom0);
    shot->unmapping = true;
    return answer_find(s, call.req.id, &reply);
}

/* ---- the request ---- */

void shot_compose(struct scene *s, struct shot *shot)
{
    const bool indirect = shot->flags & SHOT_INDIRECT;
    struct blkreq *req = &shot->put.req;
    shot->put.op = DOMAIN_PUT;
    *req = (struct blkreq){.id = ++s->next_id,
                           .operation = shot->write ? BLKIF_OP_WRITE : BLKIF_OP_READ,
                           .segment_count = (uint16_t)shot->count,
                           .sector_count = shot->count * BLKREQ_SECTORS_PER_PAGE,
                           .indirect_pages = indirect,
                           .indirect_gref = {indirect ? s->dom0.indirect_gref : 0}};
    req->sector = scene_random(s, GATE_DISK_BYTES / SECTOR_BYTES - (uint32_t)req->sector_count + 1);
    if (s->dom0.rules.sealed)
        req->sector -= req->sector % (GATE_BLOCK / SECTOR_BYTES);
    for (unsigned i = 0; i < shot->count; i++) {
        uint32_t reference = s->dom0.rules.bus ? (uint32_t)shot->bus_page + i : shot->gref[i];
        shot->put.segment[i] = (struct blkreq_segment){reference, 0, BLKREQ_SECTORS_PER_PAGE - 1};
        if (!indirect)
            req->segment[i] = shot->put.segment[i];
    }
}

void shot_send(struct scene *s, struct shot *shot)
{
    struct domain_reply reply;
    if (shot->write)
        gate_shut(&s->dom0.gate);
    else if (s->dom0.rules.sealed)
        s->dom0.gate.reading_bytes = shot->put.req.sector_count * SECTOR_BYTES;
    s->dom0.queue->sqe_flags = shot->late ? IOSQE_ASYNC : 0;
    attacker_do(s, &shot->put, &reply);
}

void shot_make(struct scene *s, struct shot *shot, unsigned count, unsigned flags)
{
    shot_begin(s, shot, count, flags);
    shot_map(s, shot, NULL);
    shot_compose(s, shot);
}

void shot_put(struct scene *s, struct shot *shot, unsigned count, unsigned flags)
{
    shot_make(s, shot, count, flags);
    shot_send(s, shot);
}

void shot_put_any(struct scene *s, struct shot *shot)
{
    const unsigned count = 1 + scene_random(s, 4);
    shot_put(s, shot, count, scene_random(s, 4) ? 0 : SHOT_INDIRECT);
}

void shot_run(struct scene *s, struct shot *shot, void (*act)(struct scene *s, struct shot *shot))
{
    const uint32_t moment = act ? scene_random(s, 3) : 3;
    dom0_take(&s->dom0);
    if (moment == 0)
        act(s, shot);
    dom0_submit(&s->dom0);
    if (moment == 1)
        act(s, shot);
    if (shot->late) /* a thread of the kernel moves it from here on */
        dom0_land(&s->dom0, BYTE_DEVICE);
    if (moment == 2)
        act(s, shot);
    if (!shot->late)
        dom0_land(&s->dom0, BYTE_DEVICE);
}
