/* SPDX-License-Identifier: MIT */
/* bench/attack/gate.h: storage whose transfers wait until they are let go: how a window between check and DMA is kept
 * open for as long as an attack needs.
 *
 * An image (backend/blk/image.h) whose file is a pipe: a read waits for bytes, a write for room. So the kernel has the
 * request, with the addresses that it was given, and moves the data when the bench says so and not before; no timing is
 * involved. The disk is a region of a storage whose rest is the victim's: what the data path would do outside of it
 * is not done, and counted.
 */
#ifndef ATTACK_GATE_H
#define ATTACK_GATE_H

#include "backend/blk/image.h"

#define GATE_DISK_BYTES (1u << 20)
#define GATE_PIPE_BYTES (64u << 10) /* the longest transfer */

struct gate {
    struct image image;
    int from[2], to[2];     /* pipes: what guests read, what they write */
    uint64_t reading_bytes; /* asked for and not yet let go */
    uint64_t writing_bytes;
    uint64_t outside; /* transfers beyond the disk */
    bool full;        /* writes wait */
    _Atomic int sync_error;
};

int gate_open(struct gate *g); /* 0 or -errno */
void gate_close(struct gate *g);
void gate_shut(struct gate *g); /* from now on writes wait, too */
/* Lets go what waits: the data of reads is `byte`. The kernel moves it when its ring is entered, or when a thread of
 * its own wakes. */
void gate_release(struct gate *g, unsigned char byte);
/* What was written since: its length. */
size_t gate_written(struct gate *g, unsigned char *out, size_t size);
/* Nothing is under way: what nobody took goes. */
void gate_rest(struct gate *g);

#endif
