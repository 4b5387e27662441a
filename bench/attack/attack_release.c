/* SPDX-License-Identifier: MIT */
/* bench/attack/attack_release.c: memory that changes hands while a transfer into it is under way. */
#include "bench/attack/attack.h"

static void frame_release(struct scene *s, struct shot *shot, unsigned i)
{
    if (!dom0_release(&s->dom0, shot->frame[i]))
        shot->stopped_by = "release deferred";
}

/* The grant was ended, or not; where it was, the frame is free for whatever its owner likes, who gives it back. */
static void grant_ended(struct scene *s, struct shot *shot, unsigned i, int result)
{
    if (result) {
        shot->stopped_by = "busy";
        return;
    }
    shot->gref[i] = 0;
    frame_release(s, shot, i);
}

static void revoke_act(struct scene *s, struct shot *shot)
{
    struct domain_reply reply;
    const unsigned i = scene_random(s, shot->count);
    grant_ended(s, shot, i, attacker_do(s, &(struct domain_call){.op = DOMAIN_END, .gref = shot->gref[i]}, &reply));
}

/* The end began before dom0 took the request: which was first shows now. */
static void revoke_beside_act(struct scene *s, struct shot *shot)
{
    struct domain_reply reply;
    domain_answer_late(&s->machine.attacker, &reply);
    grant_ended(s, shot, 0, reply.result);
}

static void revoke_reuse_attempt(struct scene *s, struct outcome *out)
{
    struct shot shot;
    shot_put_any(s, &shot);
    const bool beside = shot.late && scene_random(s, 2);
    const struct domain_call end = {.op = DOMAIN_END, .gref = shot.gref[0], .spins = scene_random(s, 300)};
    if (beside)
        domain_call_late(&s->machine.attacker, &end);
    shot_run(s, &shot, beside ? revoke_beside_act : revoke_act);
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
    shot_put_any(s, &shot);
    shot_run(s, &shot, reallocate_act);
    shot_judge(s, &shot, out);
}

const struct attack attack_reallocate = {
    .name = "reallocation",
    .text = "The attacker gives a frame back, grant and all, before the DMA lands; the hypervisor hands it to the "
            "victim, who fills it with canaries.",
    .attempt = reallocate_attempt,
};
