/* SPDX-License-Identifier: MIT */
/* backend/blk/mailbox.h: words from one thread to another: the only thing that control thread and reactor share, beside
 * counters.
 *
 * A letter is embedded in what it is about and carries bits. Posting a letter that still lies in the box adds its bits,
 * as an event channel merges notifications: so posting allocates nothing, cannot fail, and the box is bounded by the
 * number of things that can send. Who posts a letter hands over with it all that the letter is about.
 *
 * The letter's owner must not free it before the last post was taken.
 */
#ifndef BLK_MAILBOX_H
#define BLK_MAILBOX_H

#include <pthread.h>

#include "base/list.h"

struct letter {
    struct list link;
    uint32_t bits; /* 0: in no box */
};

struct mailbox {
    pthread_mutex_t lock;
    struct list letters;
    int fd; /* an eventfd, readable while a letter waits */
};

int mailbox_init(struct mailbox *m); /* 0 or -errno */
void mailbox_deinit(struct mailbox *m);
void letter_init(struct letter *l);
void mailbox_post(struct mailbox *m, struct letter *l, uint32_t bits);
/* The oldest letter and its bits; NULL: none waits. */
struct letter *mailbox_take(struct mailbox *m, uint32_t *bits);

#endif
