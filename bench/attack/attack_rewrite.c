/* SPDX-License-Identifier: MIT */
/* bench/attack/attack_rewrite.c: shared pages that change while dom0 reads them. */
#include <string.h>

#include "bench/attack/attack.h"
#include "ring/ring.h"

#define ENTRY_ACCESSES    4 /* looks at a page within a take, and a few more: the move then comes late, or never */
#define RING_ACCESSES     10
#define INDIRECT_ACCESSES 6

/* ---- the grant entry ---- */

static uint32_t victims_frame(struct scene *s)
{
    return machine_pick(&s->machine, DOMAIN_VICTIM, scene_random(s, MACHINE_FRAMES));
}

static void rewrite_grant_act(struct scene *s, struct shot *shot)
{
    struct domain_reply reply;
    struct domain_call poke = {.op = DOMAIN_POKE};
    entry_poke(&poke, shot->gref[0], GTF_permit_access, victims_frame(s));
    poke.rounds = 2; /* ends with the lie */
    attacker_do(s, &poke, &reply);
}

/* An entry that is good, and then a lie. */
static void rewrite_grant_poke(struct scene *s, const struct shot *shot, struct domain_call *poke)
{
    entry_poke(poke, shot->gref[0], GTF_permit_access, shot->frame[0]);
    memcpy(poke->bytes[1], poke->bytes[0], sizeof(poke->bytes[1]));
    entry_poke(poke, shot->gref[0], GTF_permit_access, victims_frame(s));
    poke->accesses_max = ENTRY_ACCESSES;
}

static void rewrite_grant_attempt(struct scene *s, struct outcome *out)
{
    struct shot shot;
    struct domain_call poke = {0};
    const bool afterwards = scene_random(s, 2);
    shot_begin(s, &shot, 1 + scene_random(s, 4), 0);
    shot.entries_changed = true;
    rewrite_grant_poke(s, &shot, &poke);
    shot_map(s, &shot, afterwards ? NULL : &poke);
    shot_compose(s, &shot);
    shot_send(s, &shot);
    if (afterwards || s->dom0.rules.bus)
        shot_run(s, &shot, rewrite_grant_act);
    else
        shot_rewrite(s, &shot, &poke);
    shot_judge(s, &shot, out);
}

const struct attack attack_rewrite_grant = {
    .name = "rewritten grant",
    .text = "After the check, or between any two looks of it, the entry of the grant names a frame of the victim's.",
    .attempt = rewrite_grant_attempt,
};

/* ---- the request ---- */

/* Something that the check refuses: beyond the disk, beyond the page, more segments than there are, no memory of ours.
 */
static void request_lie(struct scene *s, struct blkreq *req)
{
    switch (scene_random(s, 4)) {
    case 0: req->sector = GATE_DISK_BYTES / SECTOR_BYTES + scene_random(s, 1u << 20); break;
    case 1: req->segment[0].last_sector = 2 * BLKREQ_SECTORS_PER_PAGE - 1; break;
    case 2: req->sector = UINT64_MAX - scene_random(s, 64); break;
    default: req->segment[0].gref = 8 + scene_random(s, 4096); break;
    }
}

static void rewrite_request_attempt(struct scene *s, struct outcome *out)
{
    struct shot shot;
    struct domain_call poke = {.frame = FRAME_RING, .length = BLKREQ_HEAD_BYTES, .accesses_max = RING_ACCESSES};
    shot_put(s, &shot, 1, 0);
    struct blkreq lie = shot.put.req;
    request_lie(s, &lie);
    poke.offset = (uint32_t)(ring_slot(&s->dom0.queue->ring.ring, s->dom0.queue->ring.req_cons) -
                             s->dom0.queue->ring.ring.shared);
    blkreq_encode(&blk_protocol_native, &lie, poke.bytes[0]);
    blkreq_encode(&blk_protocol_native, &shot.put.req, poke.bytes[1]);
    shot_rewrite(s, &shot, &poke);
    shot_judge(s, &shot, out);
}

const struct attack attack_rewrite_request = {
    .name = "rewritten request",
    .text = "While dom0 reads a request from the ring it becomes another one: beyond the disk, beyond the page, with a "
            "reference to nothing.",
    .attempt = rewrite_request_attempt,
};

/* ---- the page of segments ---- */

/* Segments of a sector each, in the last sectors of the disk: one that grows leads beyond it. */
static void shot_to_the_end(struct shot *shot)
{
    struct blkreq *req = &shot->put.req;
    req->sector_count = req->segment_count;
    req->sector = GATE_DISK_BYTES / SECTOR_BYTES - req->sector_count;
    for (unsigned i = 0; i < req->segment_count; i++)
        shot->put.segment[i].last_sector = 0;
}

static struct blkif_request_segment segment_lie(struct scene *s, struct blkif_request_segment good, unsigned which)
{
    struct blkif_request_segment lie = good;
    switch (which) {
    case 0: lie.last_sect = BLKREQ_SECTORS_PER_PAGE - 1; break;
    case 1: lie.last_sect = (uint8_t)(2 * BLKREQ_SECTORS_PER_PAGE - 1 + scene_random(s, 200)); break;
    default: lie.gref = 8 + scene_random(s, 4096); break;
    }
    return lie;
}

static void rewrite_indirect_attempt(struct scene *s, struct outcome *out)
{
    struct shot shot;
    struct domain_call poke = {
        .frame = FRAME_INDIRECT, .length = sizeof(struct blkif_request_segment), .accesses_max = INDIRECT_ACCESSES};
    unsigned which = scene_random(s, 3);
    shot_make(s, &shot, 12 + scene_random(s, 4), SHOT_INDIRECT);
    if (which == 0)
        shot_to_the_end(&shot);
    const struct blkreq_segment *first = &shot.put.segment[0];
    struct blkif_request_segment good = {.gref = first->gref, .last_sect = first->last_sector};
    struct blkif_request_segment lie = segment_lie(s, good, which);
    memcpy(poke.bytes[0], &lie, sizeof(lie));
    memcpy(poke.bytes[1], &good, sizeof(good));
    shot_send(s, &shot);
    shot_rewrite(s, &shot, &poke);
    shot_judge(s, &shot, out);
}

const struct attack attack_rewrite_indirect = {
    .name = "rewritten indirect page",
    .text = "While dom0 reads the segments of an indirect request from the guest's page, one of them grows beyond its "
            "page or names something else.",
    .attempt = rewrite_indirect_attempt,
};

/* ---- read-only ---- */

/* A page of the victim's that the attacker may read is granted on, for reading; a request writes to it, and meanwhile
 * the entry says that it may. */
static void flip_readonly_attempt(struct scene *s, struct outcome *out)
{
    struct shot shot;
    struct domain_reply reply;
    struct domain_call poke = {.op = DOMAIN_POKE, .rounds = 1, .accesses_max = ENTRY_ACCESSES};
    const uint32_t frame = machine_share(&s->machine, scene_random(s, MACHINE_FRAMES));
    shot_begin(s, &shot, 1, SHOT_READ);
    shot.entries_changed = true;
    if (scene_random(s, 2))
        shot.bus_access = BLKREQ_BUS_READ; /* which may be had; and then the device writes */
    entry_poke(&poke, shot.gref[0], GTF_permit_access | GTF_readonly, frame);
    memcpy(poke.bytes[1], poke.bytes[0], sizeof(poke.bytes[1]));
    attacker_do(s, &poke, &reply);
    entry_poke(&poke, shot.gref[0], GTF_permit_access, frame);
    shot_map(s, &shot, &poke);
    shot_compose(s, &shot);
    shot_send(s, &shot);
    if (s->dom0.rules.bus)
        shot_run(s, &shot, NULL);
    else
        shot_rewrite(s, &shot, &poke);
    shot_judge(s, &shot, out);
    machine_unshare(&s->machine, frame, s->dom0.frames);
}

const struct attack attack_flip_readonly = {
    .name = "flipped read-only",
    .text = "A grant for reading, of a page that the victim lets the attacker read, becomes one for writing while dom0 "
            "looks at it.",
    .attempt = flip_readonly_attempt,
};
