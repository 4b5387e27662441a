/* SPDX-License-Identifier: MIT */
/* bench/attack/attack_checksum.c: data that changes under the checksum that is made of it.
 *
 * The page is the attacker's own to write. But a block on the storage that does not have its checksum is a report of
 * bad storage: the operator's to look into, a mirror's to repair from the other half, and the end of a disk for all who
 * are on it. So an image that makes checksums says that it needs stable data. */
#include "bench/attack/attack.h"

static struct domain_call page_change(struct scene *s, const struct shot *shot)
{
    return (struct domain_call){.op = DOMAIN_FILL,
                                .frame = shot->frame[scene_random(s, shot->count)],
                                .byte = BYTE_CHANGED,
                                .spins = shot->late ? scene_random(s, 200) : 0};
}

static void checksum_act(struct scene *s, struct shot *shot)
{
    struct domain_reply reply;
    const struct domain_call change = page_change(s, shot);
    attacker_do(s, &change, &reply);
}

static void checksum_attempt(struct scene *s, struct outcome *out)
{
    struct shot shot;
    struct domain_reply reply;
    shot_put_any(s, &shot);
    const bool beside = shot.late && scene_random(s, 2);
    const struct domain_call change = page_change(s, &shot);
    if (beside)
        domain_call_late(&s->machine.attacker, &change);
    shot_run(s, &shot, beside ? NULL : checksum_act);
    if (beside)
        domain_answer_late(&s->machine.attacker, &reply);
    shot.stopped_by = "bounced";
    shot_judge(s, &shot, out);
}

const struct attack attack_checksum = {
    .name = "data under a checksum",
    .text = "On an image that writes a checksum of each block, the attacker changes its page after the checksum was "
            "made and before the data is out, or after it came in and before it was checked.",
    .sealed = true,
    .attempt = checksum_attempt,
};
