/* SPDX-License-Identifier: MIT */
/* backend/blk/statsock.h: the blk role's statistics socket (xenbus/stats_blk.h says what is spoken on it).
 *
 * Served by the control thread on its loop: the data path is not told that somebody reads. A query costs one look at
 * the list of devices and one message; at most STATSOCK_READERS_MAX connections are served, each one query a round. A
 * reader that says anything else, sends without reading, or is one too many, is hung up on.
 */
#ifndef BLK_STATSOCK_H
#define BLK_STATSOCK_H

#include "backend/blk/blkback.h"

#define STATSOCK_READERS_MAX 16

struct statsock;

/* Listens at `path`, mode 0600. Borrows loop and back until statsock_free(). 0, or -errno with a sentence. */
int statsock_new(struct loop *loop, const char *path, const struct blkback *back, struct statsock **out, struct err *e);
void statsock_free(struct statsock *s); /* NULL is fine */

#endif
