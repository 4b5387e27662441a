/* SPDX-License-Identifier: MIT */
#include "backend/blk/engine.h"

#include <assert.h>
#include <semaphore.h>
#include <signal.h>
#include <string.h>

#include "base/spin.h"
#include "base/ticker.h"

#define ENGINE_SPIN_LOOKS 8 /* between two looks at the clock: a pause can take 50 ns */

enum { ENGINE_STOP = 1 << 0, ENGINE_LOST = 1 << 1 };

struct engine {
    struct engine_options options;
    struct reactor reactor;
    enum engine_poll poll; /* as it waits now */
    struct spin spin;
    bool spin_in_flight; /* `poll`: also while I/O is under way; and whether it pays does not matter */
    bool spin_asked;     /* before the sleep that comes */
    struct ticker ticker;
    struct list queues; /* attached, all of them */
    struct uring_op mailbox_op, platform_op;
    bool stopping, lost;
    int32_t kept[2];       /* slots of files that the ring keeps open until its last I/O has ended; -1: none */
    bool spun;             /* the last pass ended in a spin that saw something */
    unsigned quick_passes; /* that had no need of the kernel */

    pthread_t thread;
    sem_t started;
    int start_result;
    struct err err;
    struct mailbox to_reactor, to_control;
    struct letter stop, trouble;
    _Atomic uint64_t enters, sleeps, spins, spin_hits;
};

static void counter_bump(_Atomic uint64_t *c)
{
    blkcounter_add(c, 1);
}

/* ---- what reaches the thread ---- */

/* As the keenest of the queues wants it. */
static enum engine_poll poll_wanted(const struct engine *g)
{
    enum engine_poll most = ENGINE_DEFAULT;
    struct blkqueue *q;
    list_foreach (q, &g->queues, engine_link) {
        enum engine_poll own = (enum engine_poll)atomic_load_explicit(&q->poll, memory_order_relaxed);
        own = own == ENGINE_DEFAULT ? g->options.poll : own;
        most = MAX(most, own);
    }
    return most == ENGINE_DEFAULT ? g->options.poll : most;
}

/* Queues have come, gone or changed their mind. */
static void engine_choose_poll(struct engine *g)
{
    enum engine_poll poll = poll_wanted(g);
    if (poll == g->poll)
        return;
    g->poll = poll;
    g->spin_in_flight = poll == ENGINE_POLL;
    spin_init(&g->spin, poll == ENGINE_ADAPTIVE ? g->options.spin_us * CLOCK_NS_PER_US
                        : poll == ENGINE_POLL   ? ENGINE_POLL_IDLE_NS
                                                : 0);
}

static void engine_stop_all(struct engine *g)
{
    struct blkqueue *q;
    g->stopping = true;
    list_foreach (q, &g->queues, engine_link) {
        blkstop_abandon(q);
        blkqueue_detach(q);
    }
}

static void engine_attach_now(struct engine *g, struct blkqueue *q)
{
    if (g->lost)
        q->result = err_set(&q->err, -EPIPE, "%s", g->err.text);
    else
        q->result = blkqueue_attach(q, &g->reactor, &q->err);
    if (!q->result)
        list_append(&g->queues, &q->engine_link);
    engine_choose_poll(g);
    mailbox_post(&g->to_control, &q->to_control, BLKQUEUE_ATTACHED);
}

static void engine_letter(struct engine *g, struct letter *l, uint32_t bits)
{
    if (l == &g->stop) {
        engine_stop_all(g);
        return;
    }
    if (bits == BLKQUEUE_UNMAPPED) {
        blkbus_letter(l);
        return;
    }
    struct blkqueue *q = container_of(l, struct blkqueue, to_reactor);
    if (bits & BLKQUEUE_ATTACH)
        engine_attach_now(g, q);
    if (bits & BLKQUEUE_RESUME) /* before a detach that came with it: the image may have changed */
        blkqueue_resume(q);
    if (bits & BLKQUEUE_DETACH) {
        blkqueue_detach(q);
        return;
    }
    if (bits & BLKQUEUE_RETRY)
        blkstop_retry(q);
    if (bits & BLKQUEUE_GIVE_UP)
        blkstop_give_up(q);
    if (bits & BLKQUEUE_REST)
        blkqueue_rest(q);
    if (bits & BLKQUEUE_HOLD)
        blkqueue_hold(q);
    if (bits & BLKQUEUE_TUNE) {
        blkqueue_rate_changed(q);
        engine_choose_poll(g);
    }
    if (bits & BLKQUEUE_REFRESH)
        blkqueue_refresh(q);
}

static void mailbox_ready(struct uring_op *op, int result, uint32_t cqe_flags)
{
    struct engine *g = container_of(op, struct engine, mailbox_op);
    struct letter *l;
    uint32_t bits;
    (void)result;
    while ((l = mailbox_take(&g->to_reactor, &bits)))
        engine_letter(g, l, bits);
    if (!(cqe_flags & IORING_CQE_F_MORE))
        uring_poll(&g->reactor.uring, op, g->to_reactor.fd);
}

static void platform_ready(struct uring_op *op, int result, uint32_t cqe_flags)
{
    struct engine *g = container_of(op, struct engine, platform_op);
    (void)result;
    if (g->lost) /* said once: the control thread reads the sentence */
        return;
    int r = platform_step(g->reactor.platform);
    if (r < 0) {
        g->lost = true;
        err_set(&g->err, r, "the connection to the hypervisor role is lost: %s", strerror(-r));
        mailbox_post(&g->to_control, &g->trouble, ENGINE_LOST);
        return;
    }
    if (!(cqe_flags & IORING_CQE_F_MORE))
        uring_poll(&g->reactor.uring, op, platform_fd(g->reactor.platform));
}

static void instance_gone(void *ctx, uint16_t domid, uint32_t instance)
{
    struct engine *g = ctx;
    struct blkqueue *q;
    list_foreach (q, &g->queues, engine_link)
        if (q->config.front_domid == domid && q->instance == instance)
            blkqueue_break(q, BLKQUEUE_F_GONE);
}

/* ---- the pass ---- */

static unsigned pass_take(struct engine *g)
{
    struct blkqueue *q, *next;
    unsigned taken = 0;
    list_foreach_safe (q, next, &g->reactor.active, active_link)
        taken += blkqueue_take(q);
    return taken;
}

static void pass_publish(struct engine *g)
{
    struct blkqueue *q, *next;
    list_foreach_safe (q, next, &g->reactor.dirty, dirty_link)
        blkqueue_publish(q);
}

/* How many went, or gave something back: the last one ends a thread that is to stop, so it must not go to sleep after
 * that. */
static unsigned pass_release(struct engine *g)
{
    struct blkqueue *q, *next;
    unsigned released = 0;
    if (!g->reactor.draining)
        return 0;
    list_foreach_safe (q, next, &g->queues, engine_link) {
        released += q->state == BLKQUEUE_DRAINING && blkbus_give_back(q);
        if (!blkqueue_drained(q))
            continue;
        list_remove(&q->engine_link);
        blkqueue_release(q);
        released++;
    }
    if (released)
        engine_choose_poll(g);
    return released;
}

static bool anything_waiting(const struct engine *g)
{
    struct blkqueue *q;
    list_foreach (q, &g->reactor.active, active_link)
        if (blkqueue_waiting(q))
            return true;
    return uring_ready(&g->reactor.uring);
}

/* A spinner must not hold the processor that what it waits for needs. */
static bool spin_allowed(const struct engine *g)
{
    return g->spin_in_flight ? !g->reactor.in_flight_threaded : !g->reactor.in_flight;
}

/* True: there is something to do. */
static bool engine_spin(struct engine *g)
{
    g->spin_asked = !list_empty(&g->reactor.active) && spin_allowed(g);
    if (!g->spin_asked)
        return false;
    uint64_t window_ns = spin_window_ns(&g->spin);
    if (!window_ns)
        return false;
    counter_bump(&g->spins);
    uint64_t now_ns, end_ns = 0;
    bool hit;
    do {
        for (unsigned i = 0; i < ENGINE_SPIN_LOOKS && !(hit = anything_waiting(g)); i++)
            spin_relax();
        now_ns = ticker_now_ns(&g->ticker);
        if (!end_ns)
            end_ns = now_ns + window_ns;
    } while (!hit && now_ns < end_ns);
    g->reactor.now_ns = now_ns;
    if (!g->spin_in_flight)
        spin_learn(&g->spin, hit && now_ns < end_ns);
    if (hit)
        counter_bump(&g->spin_hits);
    return hit;
}

/* True: some guest put something in meanwhile. */
static bool engine_arm(struct engine *g)
{
    struct blkqueue *q, *next;
    bool work = false;
    list_foreach_safe (q, next, &g->reactor.active, active_link)
        work |= blkqueue_arm(q);
    return work;
}

static void engine_submit(struct engine *g, bool wait)
{
    int r = uring_submit(&g->reactor.uring, wait);
    assert(r == 0 || r == -EAGAIN || r == -EBUSY || r == -ENOMEM); /* the kernel is short of something: again */
    blkcounter_set(&g->enters, g->reactor.uring.enters);
}

static void engine_sleep(struct engine *g)
{
    const uint64_t since_ns = g->reactor.now_ns;
    counter_bump(&g->sleeps);
    engine_submit(g, true);
    g->reactor.now_ns = ticker_now_ns(&g->ticker);
    if (g->spin_asked)
        spin_slept(&g->spin, g->reactor.now_ns - since_ns);
    uring_reap(&g->reactor.uring);
}

static void engine_pass(struct engine *g)
{
    struct uring *u = &g->reactor.uring;
    g->reactor.unmapped = false;
    unsigned done = pass_take(g);
    if (u->queued || uring_ready(u)) {
        engine_submit(g, false);
        g->reactor.now_ns = ticker_now_ns(&g->ticker);
        done += uring_reap(u);
    } else if (done && ++g->quick_passes % ENGINE_QUICK_PASSES_MAX == 0) {
        g->reactor.now_ns = ticker_now_ns(&g->ticker);
    }
    pass_publish(g);
    done += pass_release(g);
    bool spin = !done && !g->spun; /* a guest that only pretends to have work gets one spin, and then the sleep */
    g->spin_asked = false;
    g->spun = spin && engine_spin(g);
    if (done || g->spun || engine_arm(g) || g->reactor.unmapped) /* what arming a queue let end is published first */
        return;
    engine_sleep(g);
}

static void engine_run(struct engine *g)
{
    while (!g->stopping || !list_empty(&g->queues))
        engine_pass(g);
}

/* ---- the thread's life ---- */

/* What a successor waits for (journal.h): without it a late read could come after what it is to come before. */
static int engine_files_keep(struct engine *g)
{
    const struct engine_options *o = &g->options;
    struct uring *u = &g->reactor.uring;
    g->kept[0] = o->journal ? uring_file_register(u, journal_lock_fd(o->journal)) : -1;
    g->kept[1] = o->claim_fd > 0 ? uring_file_register(u, o->claim_fd) : -1;
    if ((o->journal && g->kept[0] < 0) || (o->claim_fd > 0 && g->kept[1] < 0))
        return err_set(&g->err, -ENFILE, "io_uring refuses to hold the role's lock: raise the limit of open files");
    return 0;
}

static void engine_teardown(struct engine *g)
{
    struct uring *u = &g->reactor.uring;
    for (unsigned i = 0; i < ARRAY_SIZE(g->kept); i++)
        uring_file_unregister(u, g->kept[i]);
    uring_deinit(u);
    platform_close(g->reactor.platform);
}

static int engine_setup(struct engine *g)
{
    struct reactor *r = &g->reactor;
    ticker_init(&g->ticker);
    struct platform_listener listener = {.ctx = g, .instance_gone = instance_gone};
    int rc = platform_open(g->options.platform_row, &g->options.where, &listener, &r->platform, &g->err);
    if (rc)
        return rc;
    rc = uring_init(&r->uring, &g->err);
    if (rc) {
        platform_close(r->platform);
        return rc;
    }
    rc = engine_files_keep(g);
    if (rc) {
        engine_teardown(g);
        return rc;
    }
    g->mailbox_op.fn = mailbox_ready;
    g->platform_op.fn = platform_ready;
    uring_poll(&r->uring, &g->mailbox_op, g->to_reactor.fd);
    uring_poll(&r->uring, &g->platform_op, platform_fd(r->platform));
    return 0;
}

static void *engine_main(void *arg)
{
    struct engine *g = arg;
    g->reactor.thread = pthread_self();
    int rc = g->start_result = engine_setup(g);
    sem_post(&g->started);
    if (rc)
        return NULL;
    engine_run(g);
    engine_teardown(g);
    return NULL;
}

static void engine_fields_init(struct engine *g, const struct engine_options *options)
{
    g->options = *options;
    g->reactor.to_control = &g->to_control;
    g->reactor.to_reactor = &g->to_reactor;
    g->reactor.marks = options->marks;
    g->reactor.ticker = &g->ticker;
    list_init(&g->reactor.active);
    list_init(&g->reactor.dirty);
    list_init(&g->queues);
    letter_init(&g->stop);
    letter_init(&g->trouble);
    sem_init(&g->started, 0, 0);
    engine_choose_poll(g);
}

static void engine_fields_deinit(struct engine *g)
{
    mailbox_deinit(&g->to_reactor);
    mailbox_deinit(&g->to_control);
    sem_destroy(&g->started);
    free(g);
}

/* Signals are the control thread's. */
static int thread_start(struct engine *g)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = -pthread_create(&g->thread, NULL, engine_main, g);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc)
        return err_set(&g->err, rc, "cannot start the reactor thread: %s", strerror(-rc));
    while (sem_wait(&g->started) && errno == EINTR)
        ;
    if (g->start_result)
        pthread_join(g->thread, NULL);
    return g->start_result;
}

int engine_new(const struct engine_options *options, struct engine **out, struct err *e)
{
    struct engine *g = calloc(1, sizeof(*g));
    if (!g || mailbox_init(&g->to_reactor) || mailbox_init(&g->to_control)) {
        free(g);
        return err_set(e, -ENOMEM, "cannot make the reactor: out of memory or descriptors");
    }
    engine_fields_init(g, options);
    int rc = thread_start(g);
    if (rc) {
        err_set(e, rc, "%s", g->err.text);
        engine_fields_deinit(g);
        return rc;
    }
    *out = g;
    return 0;
}

void engine_stop(struct engine *g)
{
    mailbox_post(&g->to_reactor, &g->stop, ENGINE_STOP);
}

void engine_free(struct engine *g)
{
    if (!g)
        return;
    engine_stop(g);
    pthread_join(g->thread, NULL);
    engine_fields_deinit(g);
}

/* ---- the control thread's side ---- */

void engine_attach(struct engine *g, struct blkqueue *q)
{
    mailbox_post(&g->to_reactor, &q->to_reactor, BLKQUEUE_ATTACH);
}

void engine_detach(struct engine *g, struct blkqueue *q)
{
    mailbox_post(&g->to_reactor, &q->to_reactor, BLKQUEUE_DETACH);
}

void engine_refresh(struct engine *g, struct blkqueue *q)
{
    mailbox_post(&g->to_reactor, &q->to_reactor, BLKQUEUE_REFRESH);
}

void engine_rest(struct engine *g, struct blkqueue *q)
{
    mailbox_post(&g->to_reactor, &q->to_reactor, BLKQUEUE_REST);
}

void engine_hold(struct engine *g, struct blkqueue *q)
{
    mailbox_post(&g->to_reactor, &q->to_reactor, BLKQUEUE_HOLD);
}

void engine_resume(struct engine *g, struct blkqueue *q)
{
    mailbox_post(&g->to_reactor, &q->to_reactor, BLKQUEUE_RESUME);
}

void engine_retry(struct engine *g, struct blkqueue *q, bool give_up)
{
    mailbox_post(&g->to_reactor, &q->to_reactor, give_up ? BLKQUEUE_GIVE_UP : BLKQUEUE_RETRY);
}

void engine_tune(struct engine *g, struct blkqueue *q)
{
    mailbox_post(&g->to_reactor, &q->to_reactor, BLKQUEUE_TUNE);
}

int engine_event_fd(const struct engine *g)
{
    return g->to_control.fd;
}

bool engine_event_next(struct engine *g, struct engine_event *out)
{
    struct letter *l = mailbox_take(&g->to_control, &out->words);
    if (l)
        out->queue = l == &g->trouble ? NULL : container_of(l, struct blkqueue, to_control);
    return l != NULL;
}

const struct err *engine_error(const struct engine *g)
{
    return &g->err;
}

void engine_stats(const struct engine *g, struct engine_stats *out)
{
    *out = (struct engine_stats){.enters = blkcounter_get(&g->enters),
                                 .sleeps = blkcounter_get(&g->sleeps),
                                 .spins = blkcounter_get(&g->spins),
                                 .spin_hits = blkcounter_get(&g->spin_hits)};
}

struct journal *engine_journal(const struct engine *g)
{
    return g->options.journal;
}

int engine_poll_parse(const char *name, unsigned spin_us, struct engine_options *out, struct err *e)
{
    static const char *const names[] = {
        [ENGINE_INTERRUPT] = "interrupt", [ENGINE_ADAPTIVE] = "adaptive", [ENGINE_POLL] = "poll"};
    out->spin_us = spin_us ? spin_us : ENGINE_SPIN_US_DEFAULT;
    if (!name) {
        out->poll = sysconf(_SC_NPROCESSORS_ONLN) > 1 ? ENGINE_ADAPTIVE : ENGINE_INTERRUPT;
        return 0;
    }
    for (unsigned i = ENGINE_INTERRUPT; i < ARRAY_SIZE(names); i++) {
        if (strcmp(name, names[i]))
            continue;
        out->poll = (enum engine_poll)i;
        return 0;
    }
    return err_set(e, -EINVAL, "poll mode '%s' is not known: use interrupt, adaptive or poll", name);
}
