/* SPDX-License-Identifier: MIT */
#include "base/burial.h"

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/socket.h>

#include "base/util.h"

struct burial {
    const int *fds; /* ascending */
    unsigned count;
    sem_t holds, alone, left; /* the thread has them; nobody else does; the thread has done with this struct */
    int result;
};

static int fd_order(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

/* All but the dead: a connection of somebody else must not live on in here. */
static void others_close(const struct burial *b)
{
    unsigned from = 0;
    for (unsigned i = 0; i < b->count; i++) {
        if (from < (unsigned)b->fds[i])
            close_range(from, (unsigned)b->fds[i] - 1, 0);
        from = (unsigned)b->fds[i] + 1;
    }
    close_range(from, ~0u, 0);
}

static void meet(sem_t *s)
{
    while (sem_wait(s) < 0)
        ; /* EINTR */
}

static void *bury(void *arg)
{
    struct burial *b = arg;
    b->result = unshare(CLONE_FILES) < 0 ? -errno : 0;
    if (b->result == 0)
        others_close(b);
    sem_post(&b->holds);
    meet(&b->alone);
    sem_post(&b->left);
    return NULL;
}

static int undertaker_start(struct burial *b)
{
    pthread_t thread;
    sigset_t all, before;
    sigfillset(&all); /* signals are for the other threads */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int r = -pthread_create(&thread, NULL, bury, b);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r == 0)
        pthread_detach(thread);
    return r;
}

/* What can be done without a thread: the peer may win a race against it. */
static void linger_off(const int *fds, unsigned count)
{
    const struct linger off = {0};
    for (unsigned i = 0; i < count; i++)
        setsockopt(fds[i], SOL_SOCKET, SO_LINGER, &off, sizeof(off));
}

static void fds_close(const int *fds, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        close(fds[i]);
}

void fds_bury(int *fds, unsigned count)
{
    if (count == 0)
        return;
    qsort(fds, count, sizeof(*fds), fd_order);
    struct burial b = {.fds = fds, .count = count};
    sem_init(&b.holds, 0, 0);
    sem_init(&b.alone, 0, 0);
    sem_init(&b.left, 0, 0);
    bool helped = undertaker_start(&b) == 0;
    if (helped)
        meet(&b.holds);
    if (!helped || b.result < 0)
        linger_off(fds, count);
    fds_close(fds, count);
    if (helped) {
        sem_post(&b.alone);
        meet(&b.left);
    }
    sem_destroy(&b.holds);
    sem_destroy(&b.alone);
    sem_destroy(&b.left);
}
