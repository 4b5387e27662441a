/* SPDX-License-Identifier: MIT */
/* bench/attack/attack_bus.c: bus addresses that are another's, or no longer anybody's. */
#include "bench/attack/attack.h"

static const char *bus_spared(const struct dom0_rules *rules)
{
    if (!rules->iommu)
        return "its requests name grants: there are no bus addresses";
    return rules->bus ? NULL : "";
}

/* The attacker wants the memory back that it has just unmapped, or not waited to be: ends a grant, and gives the frame
 * away. */
static void frame_take_back(struct scene *s, struct shot *shot, const char *busy)
{
    struct domain_reply reply;
    unsigned i = scene_random(s, shot->count);
    if (attacker_do(s, &(struct domain_call){.op = DOMAIN_END, .gref = shot->gref[i]}, &reply))
        shot->stopped_by = busy;
    else
        shot->gref[i] = 0;
    if (!dom0_release(&s->dom0, shot->frame[i]) && !shot->stopped_by)
        shot->stopped_by = "release deferred";
}

static void unmap_act(struct scene *s, struct shot *shot)
{
    shot_unmap(s, shot);
    if (scene_random(s, 2))
        scene_flush(s);
    frame_take_back(s, shot, "unmap waits for the DMA");
}

static void unmap_dma_attempt(struct scene *s, struct outcome *out)
{
    struct shot shot;
    shot_put_any(s, &shot);
    shot_run(s, &shot, unmap_act);
    shot_judge(s, &shot, out);
}

const struct attack attack_unmap_dma = {
    .name = "unmap during DMA",
    .text = "While a transfer is under way the attacker unmaps its bus addresses, ends the grants and gives a frame "
            "back, which goes to the victim.",
    .spared = bus_spared,
    .attempt = unmap_dma_attempt,
};

/* A page of the victim's space that the attacker has not mapped in its own, or beyond the device's window. */
static uint32_t page_foreign(struct scene *s, const struct shot *shot)
{
    if (scene_random(s, 4) == 0)
        return (1u << (DOM0_BUS_BITS - PAGE_SHIFT_4K)) + scene_random(s, 1u << 20);
    uint32_t page = 1 + scene_random(s, DOM0_VICTIM_PAGES);
    bool own = page >= shot->bus_page && page < shot->bus_page + shot->count;
    return own ? DOM0_VICTIM_PAGES : page;
}

static void foreign_bus_attempt(struct scene *s, struct outcome *out)
{
    struct shot shot;
    shot_make(s, &shot, 1 + scene_random(s, 4), 0);
    shot.put.req.segment[scene_random(s, shot.count)].gref = page_foreign(s, &shot);
    shot_send(s, &shot);
    shot_run(s, &shot, NULL);
    shot_judge(s, &shot, out);
}

const struct attack attack_foreign_bus = {
    .name = "foreign bus address",
    .text = "A request names a bus address that is mapped for the victim's device, to the victim's frames, and not for "
            "the attacker's; or one beyond its device's window.",
    .spared = bus_spared,
    .attempt = foreign_bus_attempt,
};

/* A request warms the IOTLB; then the pages are unmapped, a frame goes to the victim, and a second request names the
 * old bus addresses. */
static void stale_iotlb_attempt(struct scene *s, struct outcome *out)
{
    struct shot shot;
    shot_put(s, &shot, 1 + scene_random(s, 4), 0);
    shot_run(s, &shot, NULL);
    dom0_finish(&s->dom0);
    gate_rest(&s->dom0.gate);
    shot_unmap(s, &shot);
    const bool flushed = scene_random(s, 2) || !s->dom0.rules.deferred;
    if (flushed)
        scene_flush(s);
    frame_take_back(s, &shot, NULL);
    /* What becomes of the second request is the answer; before the flush it may reach what is still held for it. */
    shot.stopped_by = flushed ? NULL : "frame held until the flush";
    shot.put.req.id = ++s->next_id;
    shot_send(s, &shot);
    shot_run(s, &shot, NULL);
    shot_judge(s, &shot, out);
}

const struct attack attack_stale_iotlb = {
    .name = "stale IOTLB entry",
    .text =
        "Bus addresses that the IOTLB remembers are unmapped, a frame behind them goes to the victim, and a request "
        "names them once more.",
    .spared = bus_spared,
    .attempt = stale_iotlb_attempt,
};
