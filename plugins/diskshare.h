/* SPDX-License-Identifier: MIT */
/* plugins/diskshare.h: one open disk for many threads, over the installed header alone.
 *
 * A domain can have a disk open once, and a disk of libdomzero is used by one thread at a time; the programs that load
 * plugins come with many threads. They share one open disk here, under one lock, which nobody holds while waiting.
 *
 * A transfer is a user's: any length, cut into as many requests as it takes. Transfers of all users stand in one queue
 * for free requests and are submitted in its order, so many are in flight at once and none starves. Who waits first
 * leads: it sleeps on the disk's descriptor, takes what is finished for everybody and wakes whose it is; the others
 * sleep until theirs is. A leader that has what it wanted leaves the lead to a sleeper. So there is no thread of the
 * share's own, and a single user pays no hand-over from thread to thread.
 *
 * A user is one thread's (a struct anywhere), a transfer its user's until it comes back, the share everybody's who
 * opened it. Opening the same disk of the same domain again in one process gives the same share.
 *
 * Order: as on the disk, none between transfers in flight. A flush covers the writes that had come back before it was
 * submitted, whichever user's they were.
 */
#ifndef PLUGINS_DISKSHARE_H
#define PLUGINS_DISKSHARE_H

#include <domzero/domzero.h>
#include <pthread.h>

struct diskshare;

struct diskshare_transfer {
    enum dz_op op; /* and its flags */
    void *buffer;  /* NULL where there is no data */
    uint64_t offset_bytes, length_bytes;
    void *owner; /* the caller's */
    int result;  /* when it comes back: 0 or -errno, of its first request that failed */
    /* the share's */
    struct diskshare_user *user;
    struct diskshare_transfer *next; /* in the queue that it is in */
    uint64_t submitted_bytes;
    unsigned in_flight;
    bool more, queued; /* not all of it was submitted; it is in the share's queue */
};

struct diskshare_queue {
    struct diskshare_transfer *first, *last;
    unsigned count;
};

struct diskshare_user {
    struct diskshare *share;
    struct diskshare_queue finished;
    unsigned wanted; /* asleep until that many are finished; 0: not asleep */
    pthread_cond_t woken;
    struct diskshare_user *next; /* among the sleepers */
};

/* Opens the disk, or finds it open. `options` and `complain` are the first opener's. `complain` is told why it could
 * not be opened, and later why the library did not take a request, on any user's thread. 0 or -errno. */
int diskshare_open(const char *domain_dir, const char *vdev, const struct dz_vbd_options *options,
                   void (*complain)(const char *sentence), struct diskshare **out);
/* All transfers of this opener have come back. True: it was the last, and the disk is closed; `stats` (may be NULL) is
 * what it had counted. */
bool diskshare_close(struct diskshare *s, struct dz_vbd_stats *stats);
void diskshare_info(struct diskshare *s, struct dz_vbd_info *out);
void *diskshare_buffer_alloc(struct diskshare *s, size_t bytes);
void diskshare_buffer_free(struct diskshare *s, void *buffer, size_t bytes);

void diskshare_user_init(struct diskshare_user *u, struct diskshare *s);
void diskshare_user_deinit(struct diskshare_user *u);
/* Queues a transfer; it starts with the next _kick() or _wait() of anybody. */
void diskshare_submit(struct diskshare_user *u, struct diskshare_transfer *t);
void diskshare_kick(struct diskshare_user *u);
/* Waits until `min` of the user's transfers are finished (timeout_ms < 0: for ever), and takes up to `max`. */
unsigned diskshare_wait(struct diskshare_user *u, struct diskshare_transfer **done, unsigned min, unsigned max,
                        int timeout_ms);

#endif
