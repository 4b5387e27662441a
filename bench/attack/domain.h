/* SPDX-License-Identifier: MIT */
/* bench/attack/domain.h: the domains of the attack bench: processes that reach the frames they own and no others.
 *
 * The attacker is a frontend gone bad: it has a ring, a page of segments and a grant table, all in frames of the
 * machine, grants and ends through grant/gnttab.h as libdomzero does, and writes whatever it likes, whenever, into what
 * it owns. The victim fills each frame that it is given with canaries and says which of them changed.
 *
 * What a domain is told to do is a call; with `late` set, the answer is fetched later and the domain acts at the same
 * time as dom0, after `spins` rounds of doing nothing. One thread on either side.
 *
 * Bytes say whose they are, so that who finds one knows where it came from.
 */
#ifndef ATTACK_DOMAIN_H
#define ATTACK_DOMAIN_H

#include <sys/types.h>

#include "ring/blkreq.h"

#define DOMAIN_ATTACKER 3
#define DOMAIN_VICTIM   4

/* Whose a byte is: 0 is nobody's (a scrubbed page). */
#define BYTE_ATTACKER     0x21
#define BYTE_CHANGED      0x42 /* the attacker's too, written while a transfer is under way */
#define BYTE_DEVICE       0x80 /* from here on: what the storage delivers */
#define BYTE_CANARY       0xc0 /* from here on: the victim's */
#define DOMAIN_SEGMENTS   32   /* of an indirect request here */
#define DOMAIN_POKE_BYTES 128
#define DOMAIN_SAMPLE     16 /* bytes shown of a canary that changed */

/* Frames with a role; the others are data. */
enum machine_role { FRAME_RING, FRAME_INDIRECT, FRAME_GRANTS, FRAME_LIST, FRAME_DATA };

enum domain_op {
    DOMAIN_TAKE,    /* `frame` is yours: map it, and fill it */
    DOMAIN_GIVE,    /* unmap it */
    DOMAIN_CHECK,   /* the victim: are all bytes of your frames as you left them? They are mended */
    DOMAIN_FILL,    /* the attacker: fill `frame` with `byte` */
    DOMAIN_CONNECT, /* a fresh ring: grant it, and the page of segments, to dom0 */
    DOMAIN_GRANT,   /* `frame`, read-only where `readonly` */
    DOMAIN_END,     /* `gref`: 0 or -EBUSY */
    DOMAIN_PUT,     /* a request, and the segments of an indirect one, or the references of a map */
    DOMAIN_ANSWER,  /* the next response, where there is one */
    DOMAIN_POKE,    /* into `frame` at `offset`: bytes[1], bytes[0], … in turn, `rounds` in all */
    DOMAIN_QUIT,
};

struct domain_call {
    uint8_t op, byte;
    bool readonly;
    uint32_t spins, frame, gref, offset, length, rounds;
    uint32_t accesses_max; /* of a poke in step with dom0 (attack.h) */
    struct blkreq req;
    struct blkreq_segment segment[DOMAIN_SEGMENTS];
    unsigned char bytes[2][DOMAIN_POKE_BYTES];
};

struct domain_reply {
    int result;        /* 0, or -errno */
    uint32_t gref;     /* of a grant; of a connect: the ring's */
    uint32_t indirect; /* of a connect: the grant of the page of segments */
    uint32_t list;     /* … and of the page of references */
    uint32_t wrong;    /* of a check: frames that changed; the first of them, and where */
    uint32_t wrong_frame, wrong_offset;
    unsigned char before[DOMAIN_SAMPLE], after[DOMAIN_SAMPLE];
    uint64_t id, value; /* of an answer; `value`: the bus address, where it has one */
    int16_t status;
};

struct domain {
    pid_t pid;
    int fd;
    uint16_t domid;
    bool late; /* a reply is owed */
};

/* Starts the process; it maps frames of `memory_fd` as it is given them. 0 or -errno. */
int domain_start(struct domain *d, uint16_t domid, int memory_fd);
void domain_stop(struct domain *d);
/* Asks, and waits for the answer. A domain that is gone is a bug of the bench. */
void domain_call(struct domain *d, const struct domain_call *call, struct domain_reply *reply);
/* Asks, and goes on; the answer is to be fetched before the next call. */
void domain_call_late(struct domain *d, const struct domain_call *call);
void domain_answer_late(struct domain *d, struct domain_reply *reply);

/* Of a frame's canaries, by their generation: never a byte of anybody else. */
static inline unsigned char domain_canary(uint32_t frame, uint32_t generation, uint32_t at)
{
    uint64_t x = (uint64_t)frame << 40 ^ (uint64_t)generation << 12 ^ at;
    x *= 0x9e3779b97f4a7c15ull;
    return (unsigned char)(BYTE_CANARY | x >> 58);
}

#endif
