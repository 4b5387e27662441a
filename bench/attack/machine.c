/* SPDX-License-Identifier: MIT */
#include "bench/attack/machine.h"

#include <assert.h>
#include <string.h>
#include <sys/mman.h>

static struct domain *frame_owner(struct machine *m, uint32_t frame)
{
    return m->frame[frame].owner == DOMAIN_VICTIM ? &m->victim : &m->attacker;
}

static int frame_call(struct machine *m, uint8_t op, uint32_t frame)
{
    const struct domain_call call = {.op = op, .frame = frame};
    struct domain_reply reply;
    domain_call(frame_owner(m, frame), &call, &reply);
    return reply.result;
}

/* Scrubs it, and it is that domain's. */
static int frame_give_to(struct machine *m, uint32_t frame, uint16_t owner)
{
    struct machine_frame *f = &m->frame[frame];
    memset(machine_page(m, frame), 0, PAGE_BYTES);
    *f = (struct machine_frame){.owner = owner, .id = ++m->next_id};
    return frame_call(m, DOMAIN_TAKE, frame);
}

int machine_open(struct machine *m)
{
    *m = (struct machine){.fd = memfd_create("machine", MFD_CLOEXEC)};
    if (m->fd < 0 || ftruncate(m->fd, (off_t)MACHINE_FRAMES * PAGE_BYTES))
        return -errno;
    int r = domain_start(&m->attacker, DOMAIN_ATTACKER, m->fd);
    if (!r)
        r = domain_start(&m->victim, DOMAIN_VICTIM, m->fd);
    if (r)
        return r;
    void *p = mmap(NULL, MACHINE_FRAMES * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, m->fd, 0);
    if (p == MAP_FAILED)
        return -errno;
    m->memory = p;
    /* Frames of the two lie in turn, so that beside each of the attacker's is one of the victim's. */
    for (uint32_t i = 0, given = 0; !r && i < MACHINE_FRAMES; i++) {
        bool attackers = i < FRAME_DATA || (i % 2 == 0 && given < MACHINE_ATTACKER_FRAMES);
        given += i >= FRAME_DATA && attackers;
        r = frame_give_to(m, i, attackers ? DOMAIN_ATTACKER : DOMAIN_VICTIM);
    }
    return r;
}

void machine_close(struct machine *m)
{
    domain_stop(&m->attacker);
    domain_stop(&m->victim);
    if (m->memory)
        munmap(m->memory, MACHINE_FRAMES * PAGE_BYTES);
    fd_closep(&m->fd);
}

uint32_t machine_pick(const struct machine *m, uint16_t owner, uint32_t random)
{
    for (uint32_t i = 0; i < MACHINE_FRAMES - FRAME_DATA; i++) {
        uint32_t frame = FRAME_DATA + (random + i) % (MACHINE_FRAMES - FRAME_DATA);
        const struct machine_frame *f = &m->frame[frame];
        if (f->owner == owner && !f->shared && !f->leaving)
            return frame;
    }
    assert(!"a domain has no frame left");
    return 0;
}

static void frame_hand_on(struct machine *m, uint32_t frame)
{
    int r = frame_give_to(m, frame, DOMAIN_VICTIM);
    assert(!r);
}

bool machine_release(struct machine *m, uint32_t frame, struct frametable *frames,
                     void (*revoke)(struct frametable *t, uint32_t extent_id, uint32_t instance))
{
    struct machine_frame *f = &m->frame[frame];
    assert(f->owner == DOMAIN_ATTACKER && frame >= FRAME_DATA && !f->leaving);
    frame_call(m, DOMAIN_GIVE, frame);
    f->leaving = true;
    if (f->held)
        revoke(frames, f->id, 0);
    else
        frame_hand_on(m, frame);
    return !f->leaving;
}

uint32_t machine_share(struct machine *m, uint32_t random)
{
    uint32_t frame = machine_pick(m, DOMAIN_VICTIM, random);
    m->frame[frame].shared = true;
    return frame;
}

void machine_unshare(struct machine *m, uint32_t frame, struct frametable *frames)
{
    struct machine_frame *f = &m->frame[frame];
    if (f->held)
        frametable_revoke(frames, f->id, 0);
    assert(!f->held);
    f->shared = false;
}

void machine_balance(struct machine *m, uint32_t random)
{
    uint32_t has = 0;
    for (uint32_t i = FRAME_DATA; i < MACHINE_FRAMES; i++)
        has += m->frame[i].owner == DOMAIN_ATTACKER;
    for (; has < MACHINE_ATTACKER_FRAMES; has++, random += 7) {
        uint32_t frame = machine_pick(m, DOMAIN_VICTIM, random);
        frame_call(m, DOMAIN_GIVE, frame);
        frame_give_to(m, frame, DOMAIN_ATTACKER);
    }
}

void machine_check(struct machine *m, struct machine_damage *out)
{
    const struct domain_call call = {.op = DOMAIN_CHECK};
    struct domain_reply reply;
    domain_call(&m->victim, &call, &reply);
    *out = (struct machine_damage){.frames = reply.wrong, .frame = reply.wrong_frame, .offset = reply.wrong_offset};
    memcpy(out->before, reply.before, sizeof(out->before));
    memcpy(out->after, reply.after, sizeof(out->after));
}

static int extent_get(void *ctx, uint16_t domid, uint32_t gfn, struct frame_extent *out)
{
    struct machine *m = ctx;
    if (gfn >= MACHINE_FRAMES)
        return -ENOENT;
    struct machine_frame *f = &m->frame[gfn];
    if ((f->owner != domid && !f->shared) || f->leaving || f->held)
        return -ENOENT;
    f->held = true;
    *out = (struct frame_extent){.id = f->id,
                                 .instance = domid,
                                 .owner = domid,
                                 .readonly = f->shared,
                                 .base_gfn = gfn,
                                 .frame_count = 1,
                                 .address = machine_page(m, gfn)};
    return 0;
}

static void extent_put(void *ctx, const struct frame_extent *extent)
{
    struct machine *m = ctx;
    struct machine_frame *f = &m->frame[extent->base_gfn];
    if (f->id != extent->id) /* let go of twice: the frame is another's by now */
        return;
    f->held = false;
    if (f->leaving)
        frame_hand_on(m, extent->base_gfn);
}

const struct frametable_ops machine_frame_ops = {.extent_get = extent_get, .extent_put = extent_put};
