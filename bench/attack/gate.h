/* SPDX-License-Identifier: MIT */
/* bench/attack/gate.h: storage whose transfers wait until they are let go: how a window between check and DMA is kept
 * open for as long as an attack needs.
 *
 * An image (backend/blk/image.h) whose file is a pipe: a read waits for bytes, a write for room. So the kernel has the
 * request, with the addresses that it was given, and moves the data when the bench says so and not before; no timing is
 * involved. The disk is a region of a storage whose rest is the victim's: what the data path would do outside of it
 * is not done, and counted.
 *
 * A sealed gate is an image that needs stable data: it makes a checksum of each block that is about to be written, and
 * what comes out at the other end must have it; what was read must have that of what was delivered. Its transfers are
 * of one direction at a time.
 */
#ifndef ATTACK_GATE_H
#define ATTACK_GATE_H

#include "backend/blk/image.h"

#define GATE_DISK_BYTES (1u << 20)
#define GATE_PIPE_BYTES (64u << 10) /* the longest transfer */
#define GATE_BLOCK      4096u       /* of a sealed gate */

struct gate {
    struct image image;
    int from[2], to[2]; /* pipes: what guests read, what they write; sealed: one and the same */
    bool sealed;
    uint32_t sum[GATE_PIPE_BYTES / GATE_BLOCK]; /* of the blocks that were sealed last */
    unsigned sums;
    unsigned char delivered; /* what reads were given */
    uint64_t bad_sums;       /* blocks read that had not the checksum of what was delivered */
    uint64_t reading_bytes;  /* asked for and not yet let go */
    uint64_t writing_bytes;
    uint64_t outside; /* transfers beyond the disk */
    bool full;        /* writes wait */
    _Atomic int sync_error;
};

int gate_open(struct gate *g, bool sealed); /* 0 or -errno */
void gate_close(struct gate *g);
void gate_shut(struct gate *g); /* from now on writes wait, too */
/* Lets go what waits: the data of reads is `byte`. The kernel moves it when its ring is entered, or when a thread of
 * its own wakes. */
void gate_release(struct gate *g, unsigned char byte);
/* What was written since: its length. */
size_t gate_written(struct gate *g, unsigned char *out, size_t size);
/* Whether what was written has the checksums that were made of it. */
bool gate_sums_fit(const struct gate *g, const unsigned char *data, size_t size);
/* Nothing is under way: what nobody took goes. */
void gate_rest(struct gate *g);

#endif
