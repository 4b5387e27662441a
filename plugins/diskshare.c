/* SPDX-License-Identifier: MIT */
#include "plugins/diskshare.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PAGE_BYTES 4096u
#define REAP_MAX   64u

struct diskshare {
    pthread_mutex_t lock; /* over all but the names */
    char *domain_dir, *vdev;
    pid_t process; /* a fork's copy of a share is of no use to it */
    unsigned openers;
    struct diskshare *next;
    void (*complain)(const char *sentence);

    struct dz_domain *dom;
    struct dz_vbd *disk;
    struct dz_vbd_info info;
    uint32_t spin_us;
    struct dz_io *io, **io_free; /* queue_depth of them; those not in flight: a stack */
    unsigned io_free_count;
    struct diskshare_queue waiting;
    bool led;                                        /* somebody looks after the disk */
    struct diskshare_user *sleepers, *sleepers_last; /* both NULL: none */
};

static pthread_mutex_t shares_lock = PTHREAD_MUTEX_INITIALIZER; /* before any share's */
static struct diskshare *shares;

static void queue_put(struct diskshare_queue *q, struct diskshare_transfer *t)
{
    t->next = NULL;
    if (q->first)
        q->last->next = t;
    else
        q->first = t;
    q->last = t;
    q->count++;
}

static struct diskshare_transfer *queue_take(struct diskshare_queue *q)
{
    struct diskshare_transfer *t = q->first;
    if (t) {
        q->first = t->next;
        q->count--;
    }
    return t;
}

/* ---- transfers; the lock is held ---- */

static void transfer_finished(struct diskshare_transfer *t)
{
    struct diskshare_user *u = t->user;
    queue_put(&u->finished, t);
    if (u->wanted && u->finished.count >= u->wanted)
        pthread_cond_signal(&u->woken);
}

/* The next request of a transfer. From an address in the middle of a page it is shorter, so that it ends with a page
 * and does not touch one more than a request takes; the next one then begins a page. */
static void piece_fill(const struct diskshare *s, struct diskshare_transfer *t, struct dz_io *io)
{
    uint64_t left = t->length_bytes - t->submitted_bytes, most = s->info.request_bytes_max;
    *io = (struct dz_io){.op = t->op, .user = t, .offset_bytes = t->offset_bytes + t->submitted_bytes};
    if (t->op == DZ_DISCARD)
        most = UINT32_MAX / s->info.sector_bytes * s->info.sector_bytes;
    if ((t->op & ~DZ_MAY_UNMAP) == DZ_WRITE_ZEROES && s->info.write_zeroes_bytes_max)
        most = s->info.write_zeroes_bytes_max;
    if (t->buffer) {
        io->buffer = (unsigned char *)t->buffer + t->submitted_bytes;
        uint32_t into_page = (uint32_t)((uintptr_t)io->buffer % PAGE_BYTES);
        if (into_page % s->info.sector_bytes == 0)
            most -= into_page;
    }
    io->length_bytes = (uint32_t)(left < most ? left : most);
}

static void transfer_fail(struct diskshare_transfer *t, int error)
{
    if (!t->result)
        t->result = error;
    t->more = false;
}

/* Submits what there are free requests for. False: no more can be submitted now. */
static bool transfer_submit(struct diskshare *s, struct diskshare_transfer *t)
{
    while (t->more) {
        if (!s->io_free_count)
            return false;
        struct dz_io *io = s->io_free[s->io_free_count - 1];
        piece_fill(s, t, io);
        int r = dz_vbd_submit(s->disk, io);
        if (r == -EAGAIN && s->io_free_count < s->info.queue_depth)
            return false;
        if (r < 0) {
            s->complain(dz_error());
            transfer_fail(t, r);
            break;
        }
        s->io_free_count--;
        t->in_flight++;
        t->submitted_bytes += io->length_bytes;
        t->more = t->submitted_bytes < t->length_bytes;
    }
    return true;
}

static void share_move_on(struct diskshare *s)
{
    while (s->waiting.first && transfer_submit(s, s->waiting.first)) {
        struct diskshare_transfer *t = queue_take(&s->waiting);
        t->queued = false;
        if (!t->in_flight)
            transfer_finished(t);
    }
}

static void request_done(struct diskshare *s, struct dz_io *io)
{
    struct diskshare_transfer *t = io->user;
    s->io_free[s->io_free_count++] = io;
    t->in_flight--;
    if (io->result < 0)
        transfer_fail(t, io->result);
    if (!t->in_flight && !t->queued)
        transfer_finished(t);
}

static bool share_reap(struct diskshare *s)
{
    struct dz_io *done[REAP_MAX];
    int n = dz_vbd_reap(s->disk, done, REAP_MAX);
    for (int i = 0; i < n; i++)
        request_done(s, done[i]);
    return n > 0;
}

/* ---- waiting ---- */

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* Looks after the disk until the user has what it wants; false: the deadline passed. */
static bool share_lead(struct diskshare *s, const struct diskshare_user *u, unsigned min, uint64_t deadline_us)
{
    struct pollfd news = {.fd = dz_vbd_fd(s->disk), .events = POLLIN};
    uint64_t spin_until_us = s->spin_us ? now_us() + s->spin_us : 0;
    while (u->finished.count < min) {
        share_move_on(s);
        if (share_reap(s)) {
            spin_until_us = s->spin_us ? now_us() + s->spin_us : 0;
            continue;
        }
        uint64_t now = deadline_us == UINT64_MAX && !spin_until_us ? 0 : now_us();
        if (now >= deadline_us)
            return false;
        bool spin = now < spin_until_us;
        if (u->finished.count >= min || (!spin && dz_vbd_arm(s->disk)))
            continue;
        pthread_mutex_unlock(&s->lock);
        if (!spin)
            poll(&news, 1, deadline_us == UINT64_MAX ? -1 : (int)((deadline_us - now) / 1000 + 1));
        pthread_mutex_lock(&s->lock);
    }
    return true;
}

static void sleeper_put(struct diskshare *s, struct diskshare_user *u)
{
    u->next = NULL;
    if (s->sleepers_last)
        s->sleepers_last->next = u;
    else
        s->sleepers = u;
    s->sleepers_last = u;
}

static void sleeper_remove(struct diskshare *s, struct diskshare_user *u)
{
    struct diskshare_user **at = &s->sleepers, *before = NULL;
    for (; *at != u; at = &(*at)->next)
        before = *at;
    *at = u->next;
    if (s->sleepers_last == u)
        s->sleepers_last = before;
}

/* Sleeps until enough is finished or the lead is free; false: the deadline passed. */
static bool share_sleep(struct diskshare *s, struct diskshare_user *u, unsigned min, uint64_t deadline_us)
{
    int r = 0;
    u->wanted = min;
    sleeper_put(s, u);
    struct timespec until = {(time_t)(deadline_us / 1000000), (long)(deadline_us % 1000000 * 1000)};
    if (deadline_us == UINT64_MAX)
        pthread_cond_wait(&u->woken, &s->lock);
    else
        r = pthread_cond_timedwait(&u->woken, &s->lock, &until);
    sleeper_remove(s, u);
    u->wanted = 0;
    return r == 0;
}

unsigned diskshare_wait(struct diskshare_user *u, struct diskshare_transfer **done, unsigned min, unsigned max,
                        int timeout_ms)
{
    struct diskshare *s = u->share;
    uint64_t deadline_us = timeout_ms < 0 ? UINT64_MAX : now_us() + (uint64_t)timeout_ms * 1000;
    bool in_time = true;
    unsigned n = 0;
    pthread_mutex_lock(&s->lock);
    if (!s->led)
        share_reap(s); /* not while somebody sleeps on the descriptor: the event that wakes it would be taken */
    share_move_on(s);
    dz_vbd_kick(s->disk);
    while (u->finished.count < min && in_time) {
        if (s->led) {
            in_time = share_sleep(s, u, min, deadline_us);
            continue;
        }
        s->led = true;
        in_time = share_lead(s, u, min, deadline_us);
        share_move_on(s);
        dz_vbd_kick(s->disk);
        s->led = false;
    }
    while (n < max && u->finished.first)
        done[n++] = queue_take(&u->finished);
    if (!s->led && s->sleepers) /* also by one that was woken to lead and had no need to any more */
        pthread_cond_signal(&s->sleepers->woken);
    pthread_mutex_unlock(&s->lock);
    return n;
}

void diskshare_submit(struct diskshare_user *u, struct diskshare_transfer *t)
{
    struct diskshare *s = u->share;
    t->user = u;
    t->result = 0;
    t->submitted_bytes = 0;
    t->in_flight = 0;
    t->more = t->queued = true;
    pthread_mutex_lock(&s->lock);
    if (t->op == DZ_FLUSH && !s->info.flush) { /* no cache that could lose anything; an event for it there is none */
        t->more = t->queued = false;
        transfer_finished(t);
    } else {
        queue_put(&s->waiting, t);
    }
    pthread_mutex_unlock(&s->lock);
}

void diskshare_kick(struct diskshare_user *u)
{
    struct diskshare *s = u->share;
    pthread_mutex_lock(&s->lock);
    share_move_on(s);
    dz_vbd_kick(s->disk); /* where it fails, the requests come back with the reason */
    pthread_mutex_unlock(&s->lock);
}

void diskshare_user_init(struct diskshare_user *u, struct diskshare *s)
{
    pthread_condattr_t clock;
    *u = (struct diskshare_user){.share = s};
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&u->woken, &clock);
    pthread_condattr_destroy(&clock);
}

void diskshare_user_deinit(struct diskshare_user *u)
{
    pthread_cond_destroy(&u->woken);
}

/* ---- open, close ---- */

static void share_free(struct diskshare *s)
{
    dz_vbd_close(s->disk);
    dz_domain_close(s->dom);
    free(s->io);
    free(s->io_free);
    free(s->domain_dir);
    free(s->vdev);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static int share_books(struct diskshare *s, const char *domain_dir, const char *vdev)
{
    s->domain_dir = domain_dir ? strdup(domain_dir) : NULL;
    s->vdev = strdup(vdev);
    s->io = calloc(s->info.queue_depth, sizeof(*s->io));
    s->io_free = calloc(s->info.queue_depth, sizeof(struct dz_io *));
    if ((domain_dir && !s->domain_dir) || !s->vdev || !s->io || !s->io_free)
        return -ENOMEM;
    while (s->io_free_count < s->info.queue_depth) {
        s->io_free[s->io_free_count] = &s->io[s->io_free_count];
        s->io_free_count++;
    }
    return 0;
}

static int share_new(const char *domain_dir, const char *vdev, const struct dz_vbd_options *options,
                     void (*complain)(const char *sentence), struct diskshare **out)
{
    struct diskshare *s = calloc(1, sizeof(*s));
    if (!s) {
        complain("no memory");
        return -ENOMEM;
    }
    pthread_mutex_init(&s->lock, NULL);
    s->complain = complain;
    s->spin_us = options->spin_us;
    s->process = getpid();
    int r = dz_domain_open(domain_dir, &s->dom);
    if (r == 0)
        r = dz_vbd_open(s->dom, vdev, options, &s->disk);
    if (r == 0) {
        dz_vbd_info(s->disk, &s->info);
        r = share_books(s, domain_dir, vdev);
    }
    if (r < 0) {
        complain(s->disk ? "no memory" : dz_error());
        share_free(s);
        return r;
    }
    *out = s;
    return 0;
}

static bool share_is(const struct diskshare *s, const char *domain_dir, const char *vdev)
{
    bool same_domain = domain_dir && s->domain_dir ? !strcmp(domain_dir, s->domain_dir) : domain_dir == s->domain_dir;
    return s->process == getpid() && same_domain && strcmp(s->vdev, vdev) == 0;
}

int diskshare_open(const char *domain_dir, const char *vdev, const struct dz_vbd_options *options,
                   void (*complain)(const char *sentence), struct diskshare **out)
{
    int r = 0;
    pthread_mutex_lock(&shares_lock);
    struct diskshare *s = shares;
    while (s && !share_is(s, domain_dir, vdev))
        s = s->next;
    if (!s) {
        r = share_new(domain_dir, vdev, options, complain, &s);
        if (r == 0) {
            s->next = shares;
            shares = s;
        }
    }
    if (r == 0) {
        s->openers++;
        *out = s;
    }
    pthread_mutex_unlock(&shares_lock);
    return r;
}

bool diskshare_close(struct diskshare *s, struct dz_vbd_stats *stats)
{
    pthread_mutex_lock(&shares_lock);
    bool last = --s->openers == 0;
    if (last) {
        struct diskshare **at = &shares;
        while (*at != s)
            at = &(*at)->next;
        *at = s->next;
        if (stats)
            dz_vbd_stats(s->disk, stats);
        share_free(s);
    }
    pthread_mutex_unlock(&shares_lock);
    return last;
}

void diskshare_info(struct diskshare *s, struct dz_vbd_info *out)
{
    pthread_mutex_lock(&s->lock);
    dz_vbd_info(s->disk, &s->info);
    *out = s->info;
    pthread_mutex_unlock(&s->lock);
}

void *diskshare_buffer_alloc(struct diskshare *s, size_t bytes)
{
    pthread_mutex_lock(&s->lock);
    void *buffer = dz_buffer_alloc(s->disk, bytes);
    pthread_mutex_unlock(&s->lock);
    return buffer;
}

void diskshare_buffer_free(struct diskshare *s, void *buffer, size_t bytes)
{
    pthread_mutex_lock(&s->lock);
    dz_buffer_free(s->disk, buffer, bytes);
    pthread_mutex_unlock(&s->lock);
}
