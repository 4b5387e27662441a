/* SPDX-License-Identifier: MIT */
/* bench/attack/attack_release.c: memory that changes hands while a transfer into it is under way. */
#include "bench/attack/attack.h"

static void frame_release(struct scene *s, struct shot *shot, unsigned i)
{
    if (!dom0_release(&s->dom0, shot->frame[i]))
        shot->stopped_by = "release deferred";
}

/* Ends the grant; where that is granted, the frame is free for whatever its owner likes, who gives it back. */
static void revoke_reuse_act(struct scene *s, struct shot *shot)
{
    struct domain_reply reply;
    unsigned i = scene_random(s, shot->count);
    const struct domain_call end = {.op = DOMAIN_END, .gref = shot->gref[i], .spins = scene_random(s, 500)};
    if (attacker_do(s, &end, &reply)) {
        shot->stopped_by = "busy";
        return;
    }
    shot->gref[i] = 0;
    frame_release(s, shot, i);
}

static void revoke_reuse_attempt(struct scene *s, struct outcome *out)
{
    struct shot shot;
    shot_put(s, &shot, 1 + scene_random(s, 4), scene_random(s, 4) ? 0 : SHOT_INDIRECT);
    shot_run(s, &shot, revoke_reuse_act);
    shot_judge(s, &shot, out);
}

const struct attack attack_revoke_reuse = {
    .name = "revoke and reuse",
    .text = "After the check the attacker ends a grant of the request; where it may, it gives the frame back, and the "
            "victim gets it.",
    .attempt = revoke_reuse_attempt,
};

static void reallocate_act(struct scene *s, struct shot *shot)
{
    frame_release(s, shot, scene_random(s, shot->count));
}

static void reallocate_attempt(struct scene *s, struct outcome *out)
{
    struct shot shot;
    shot_put(s, &shot, 1 + scene_random(s, 4), scene_random(s, 4) ? 0 : SHOT_INDIRECT);
    shot_run(s, &shot, reallocate_act);
    shot_judge(s, &shot, out);
}

const struct attack attack_reallocate = {
    .name = "reallocation",
    .text = "The attacker gives a frame back, grant and all, before the DMA lands; the hypervisor hands it to the "
            "victim, who fills it with canaries.",
    .attempt = reallocate_attempt,
};
