/* SPDX-License-Identifier: MIT */
/* bench/attack/attack.h: what an attack is: one row of attack_list.h, one attempt at a time.
 *
 * An attempt makes a request of frames of the attacker's, does its mischief at a moment that the seed picks, lets the
 * transfer land, and looks. It has succeeded where anything but the attacker's own was read, changed or stopped:
 *
 *   changed   a canary in a frame that the victim owns
 *   read      a byte of the victim's among what the storage was given
 *   outside   a transfer to a place of the storage that is not the attacker's disk
 *   stopped   stored data that does not match its checksum; another domain's interrupt
 *
 * Otherwise `how` says what stood in its way.
 *
 * Moments. Half of the attempts act at a step of dom0's loop or behind one of its accesses to the page in question
 * (trap.h): these windows are open for certain. In the other half the attacker's process acts on its own, at the same
 * time as dom0, and a thread of the kernel moves the data (IOSQE_ASYNC), so that nothing is in step with anything.
 */
#ifndef ATTACK_ATTACK_H
#define ATTACK_ATTACK_H

#include "bench/attack/dom0.h"

#define ATTACK_FRAMES_MAX 16

struct scene {
    struct machine machine;
    struct dom0 dom0;
    uint64_t random;
    bool stepped_only; /* no races: for tests, which are not to depend on time */
    uint64_t next_id;
    /* before the attempt, to see what it brought */
    uint64_t bad_grants[GRANT_E_COUNT_], bad_requests[BLKREQ_E_COUNT_], iommu_faults[IOMMU_F_COUNT_], errors, outside;
};

/* One request of an attempt. */
struct shot {
    bool write; /* the device reads the frames */
    bool late;  /* the attacker acts at the same time as dom0 */
    unsigned count, flags;
    uint32_t frame[ATTACK_FRAMES_MAX], gref[ATTACK_FRAMES_MAX]; /* a grant of 0: it was ended */
    uint64_t bus_page;                                          /* of frame[0], the others follow; 0: not mapped */
    uint8_t bus_access;                                         /* asked for: BLKREQ_BUS_* */
    bool unmapping;                                             /* the attacker has asked for the map's end */
    bool entries_changed;                                       /* the grant table is to be mended afterwards */
    const char *stopped_by;                                     /* what stood in the attacker's way when it acted */
    struct domain_call put;                                     /* the request as it was first */
};

struct outcome {
    const char *won; /* success: what was got at; NULL: nothing. A constant, as is the other */
    const char *how; /* what stood in the way */
    struct machine_damage damage;
};

struct attack {
    const char *name, *text;
    bool sealed; /* the disk is one that needs stable data */
    /* NULL where it applies to these rules; else why it does not. */
    const char *(*spared)(const struct dom0_rules *rules);
    void (*attempt)(struct scene *s, struct outcome *out);
};

#define ATTACK(name) extern const struct attack attack_##name;
#include "bench/attack/attack_list.h"
#undef ATTACK

int scene_open(struct scene *s, const struct dom0_rules *rules, uint64_t seed, struct err *e);
void scene_close(struct scene *s);
uint32_t scene_random(struct scene *s, uint32_t below);
int attacker_do(struct scene *s, const struct domain_call *call, struct domain_reply *reply); /* the reply's result */

/* ---- the steps of an attempt ---- */

#define SHOT_INDIRECT 1u /* its segments lie in a page */
#define SHOT_READ     2u /* the device writes the frames; otherwise either, by chance */
#define SHOT_WRITE    4u

/* Takes `count` frames of the attacker's and grants them to dom0. */
void shot_begin(struct scene *s, struct shot *shot, unsigned count, unsigned flags);
/* Where requests name bus addresses: maps the frames. With `meanwhile`, a page is rewritten while dom0 does that. */
void shot_map(struct scene *s, struct shot *shot, struct domain_call *meanwhile);
/* A request of the frames, in shot->put; and into the ring with it. */
void shot_compose(struct scene *s, struct shot *shot);
void shot_send(struct scene *s, struct shot *shot);
/* All of these but the last; all of these. */
void shot_make(struct scene *s, struct shot *shot, unsigned count, unsigned flags);
void shot_put(struct scene *s, struct shot *shot, unsigned count, unsigned flags);
void shot_put_any(struct scene *s, struct shot *shot); /* one to four frames, one time of four indirect */
/* The steps of dom0, from taking the request to the transfer's landing. `act`, or NULL: called before the landing, at a
 * moment of its own. The answers are not handled yet. */
void shot_run(struct scene *s, struct shot *shot, void (*act)(struct scene *s, struct shot *shot));
/* The same, while a page is rewritten. In step: bytes[0], the lie, is written behind an access of dom0's to it, the
 * accesses_max-th at the latest; else the attacker's process writes bytes[0] and bytes[1], what was there, in turn. */
void shot_rewrite(struct scene *s, struct shot *shot, struct domain_call *poke);
/* Asks for the end of the map: true where that is answered already. */
bool shot_unmap(struct scene *s, struct shot *shot);
/* The end of what was deferred, as dom0 brings it about now and then. */
void scene_flush(struct scene *s);
/* Handles the completions, takes back maps and grants, and judges. */
void shot_judge(struct scene *s, struct shot *shot, struct outcome *out);

/* A poke's lie: the entry of a grant to dom0, with these flags. */
void entry_poke(struct domain_call *poke, uint32_t gref, uint16_t flags, uint32_t frame);

#endif
