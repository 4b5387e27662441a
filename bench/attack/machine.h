/* SPDX-License-Identifier: MIT */
/* bench/attack/machine.h: a machine's memory: real frames, each owned by one domain, and the hypervisor that moves
 * them.
 *
 * All memory is one memfd. dom0's process, which is also the hypervisor, has all of it mapped in one piece, as a
 * device without an IOMMU sees it: an address that was once good stays one, whoever owns the frame by then. That is
 * what makes a check of the past dangerous. A domain's process maps what it owns.
 *
 * A frame number is a place in the memory, and a guest's frame number is the same (gfn == mfn), so that a grant entry
 * can name anybody's frame. Each frame is an extent of its own: what moves between domains is one frame.
 *
 * Release and reallocation, as the hypervisor role does them: the attacker gives a frame back; dom0 is told that its
 * extent is revoked; once dom0 has let go (which grant/frametable.h defers to the last unpin) the frame is scrubbed and
 * handed to the victim, who fills it with canaries. The victim gives another one back in its place, so frames wander.
 *
 * Who is asked what is dom0's to reach answers by ownership alone; a frame that the victim shares with the attacker for
 * reading is the one exception (`shared`): dom0 may read it for the attacker, and no more.
 */
#ifndef ATTACK_MACHINE_H
#define ATTACK_MACHINE_H

#include "bench/attack/domain.h"
#include "grant/frametable.h"

#define MACHINE_FRAMES          64u
#define MACHINE_ATTACKER_FRAMES 24u /* of data */

struct machine_frame {
    uint16_t owner;
    bool shared;  /* the victim's, and the attacker may read it */
    bool held;    /* dom0 has its extent */
    bool leaving; /* its owner has given it back */
    uint32_t id;  /* of the extent: another one for each owner */
};

struct machine {
    int fd;
    unsigned char *memory; /* dom0's view: all of it */
    struct machine_frame frame[MACHINE_FRAMES];
    struct domain attacker, victim;
    uint32_t next_id;
};

struct machine_damage {
    uint32_t frames, frame, offset; /* how many frames have changed; the first, and where */
    unsigned char before[DOMAIN_SAMPLE], after[DOMAIN_SAMPLE];
};

int machine_open(struct machine *m); /* 0 or -errno; before there are threads or rings */
void machine_close(struct machine *m);

static inline unsigned char *machine_page(const struct machine *m, uint32_t frame)
{
    return m->memory + (size_t)frame * PAGE_BYTES;
}

/* A frame of data that this domain owns and that is not `shared`, by a random number; the next one from there. */
uint32_t machine_pick(const struct machine *m, uint16_t owner, uint32_t random);
/* The attacker gives the frame back. True: it is the victim's already; false: dom0 has to let go first, which is told
 * by `revoke`. */
bool machine_release(struct machine *m, uint32_t frame, struct frametable *frames,
                     void (*revoke)(struct frametable *t, uint32_t extent_id, uint32_t instance));
/* The victim lets the attacker read one of its frames, or no longer. */
uint32_t machine_share(struct machine *m, uint32_t random);
void machine_unshare(struct machine *m, uint32_t frame, struct frametable *frames);
/* The victim gives up as many frames as the attacker lost. */
void machine_balance(struct machine *m, uint32_t random);
/* The victim looks at its frames and mends them: what it found. */
void machine_check(struct machine *m, struct machine_damage *out);
/* The hypervisor's answers to dom0; ctx is the machine. */
extern const struct frametable_ops machine_frame_ops;

#endif
