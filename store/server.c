/* SPDX-License-Identifier: MIT */
#include "store/server.h"

#include <assert.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/spin.h"
#include "base/unixsock.h"
#include "store/handover.h"
#include "store/journal.h"
#include "store/rings.h"
#include "store/rota.h"
#include "store/server_parts.h"

#define SERVER_GUEST_CONNECTIONS 16 /* a guest needs one, its command line tools some more */
/* What came while a look of a microsecond took so long came because we were not let run: its sender shares our
 * processor, and looking keeps it away. */
#define SERVER_INTERRUPTED_NS 4000
#define SERVER_PATH_BYTES     (PATH_MAX + 32)
#define SERVER_RETRY_MS       100   /* after running out of descriptors: unmeasured */
#define SERVER_ROUND_REQUESTS 256   /* then descriptors are looked at again: unmeasured */
#define SERVER_RING_WAIT_MS   5000  /* for a port that this process had before: the hypervisor role has to get a turn */
#define SERVER_LOOK_NS        50000 /* before a sleep: one client's next request needs a wake-up of its own */

/* A listening socket: whoever connects to it is `domid`. */
struct listener {
    struct loop_source source;
    struct list link;
    struct store_server *server;
    unsigned domid;
    int fd;
    char path[];
};

struct store_server {
    struct loop loop;
    struct loop_source accept_timer; /* when to try again what was refused */
    struct loop_source kick;         /* readable while connections are ready that no descriptor tells of */
    bool kicked;
    struct store_engine engine;
    struct store_journal *journal; /* NULL: none */
    struct store_rota rota;
    struct list listeners;
    store_live_update_fn *live_update; /* NULL: there is nobody to ask */
    void *live_update_context;
    struct store_rings rings;
    uint64_t ring_deadline_ns; /* of a live update: for all rings, or many that are never free would hold it up */
    struct log_limiter limiter;
    struct spin spin;
    char run_dir[];
};

int store_server_adopt(struct store_server *s, struct store_transport *t, unsigned domid)
{
    return store_rota_take(&s->rota, t, domid, NULL);
}

static unsigned connections_of(const struct store_server *s, unsigned domid)
{
    const struct store_domain *d = store_domain_find(&s->engine.domains, domid);
    return d ? d->connections : 0;
}

static bool caller_allowed(struct store_server *s, unsigned domid, uid_t uid)
{
    if (uid != 0 && uid != geteuid()) {
        log_peer(&s->limiter, "store: uid %u connected to the socket of domain %u: refused", uid, domid);
        return false;
    }
    if (domid != 0 && connections_of(s, domid) >= SERVER_GUEST_CONNECTIONS) {
        log_peer(&s->limiter, "store: domain %u has %u connections already: refused", domid, SERVER_GUEST_CONNECTIONS);
        return false;
    }
    return true;
}

/* Out of descriptors or memory: waits for better times without being woken for each that waits to be accepted. */
static void accept_pause(struct store_server *s, int error)
{
    struct listener *l;
    log_peer(&s->limiter, "store: cannot accept a connection: %s", strerror(-error));
    if (loop_timer_set(&s->accept_timer, SERVER_RETRY_MS, 0) < 0)
        return;
    list_foreach (l, &s->listeners, link)
        loop_modify(&s->loop, &l->source, 0);
}

static void listener_ready(struct loop_source *source, uint32_t events)
{
    (void)events;
    struct listener *l = container_of(source, struct listener, source);
    struct store_server *s = l->server;
    uid_t uid;
    int fd = unixsock_accept(source->fd, &uid, NULL);
    if (fd == -EMFILE || fd == -ENFILE || fd == -ENOMEM || fd == -ENOBUFS)
        accept_pause(s, fd);
    if (fd < 0)
        return;
    if (!caller_allowed(s, l->domid, uid)) {
        unixsock_close_served(&fd);
        return;
    }
    struct store_transport *t = store_transport_socket(fd);
    if (t)
        store_server_adopt(s, t, l->domid);
}

static void accept_resume(struct loop_source *source, uint32_t events)
{
    (void)events;
    struct store_server *s = container_of(source, struct store_server, accept_timer);
    struct listener *l;
    loop_timer_ack(source);
    list_foreach (l, &s->listeners, link)
        loop_modify(&s->loop, &l->source, EPOLLIN);
}

static void kick_ready(struct loop_source *source, uint32_t events)
{
    (void)events;
    eventfd_t ignored;
    eventfd_read(source->fd, &ignored);
    container_of(source, struct store_server, kick)->kicked = false;
}

/* Who polls us must learn of what is left to do. */
static void kick_if_ready(struct store_server *s)
{
    if (store_rota_is_ready(&s->rota) && !s->kicked)
        s->kicked = eventfd_write(s->kick.fd, 1) == 0;
}

static void listener_free(struct listener *l)
{
    loop_remove(&l->server->loop, &l->source);
    unlink(l->path);
    unixsock_close_listener(&l->fd);
    list_remove(&l->link);
    free(l);
}

static void listeners_free(struct store_server *s)
{
    struct listener *l, *next;
    list_foreach_safe (l, next, &s->listeners, link)
        listener_free(l);
}

int store_server_listener_take(struct store_server *s, int fd, unsigned domid, const char *path, struct err *e)
{
    _cleanup_close_ int taken = fd;
    size_t length = strlen(path);
    struct listener *l = calloc(1, sizeof(*l) + length + 1);
    if (!l)
        return err_set(e, -ENOMEM, "no memory for a listening socket");
    memcpy(l->path, path, length + 1);
    l->server = s;
    l->domid = domid;
    int r = loop_add(&s->loop, &l->source, fd, EPOLLIN, listener_ready);
    if (r < 0) {
        free(l);
        return err_set(e, r, "no event for a listening socket: %s", strerror(-r));
    }
    l->fd = take_fd(&taken);
    list_append(&s->listeners, &l->link);
    return 0;
}

static int listener_new(struct store_server *s, const char *path, unsigned domid, struct err *e)
{
    int fd = unixsock_listen(path, SOCK_STREAM, 0600, e);
    return fd < 0 ? fd : store_server_listener_take(s, fd, domid, path, e);
}

static int directory_make(const char *path, struct err *e)
{
    if (mkdir(path, 0700) == 0 || errno == EEXIST)
        return 0;
    return err_set(e, -errno, "cannot make the directory %s: %s", path, strerror(errno));
}

static struct listener *listener_find(const struct store_server *s, unsigned domid)
{
    struct listener *l;
    list_foreach (l, &s->listeners, link) {
        if (l->domid == domid)
            return l;
    }
    return NULL;
}

/* The domain's own socket. */
static int domain_listen(struct store_server *s, unsigned domid, struct err *e)
{
    char path[SERVER_PATH_BYTES];
    snprintf(path, sizeof(path), "%s/dom", s->run_dir);
    int r = directory_make(path, e);
    snprintf(path, sizeof(path), "%s/dom/%u", s->run_dir, domid);
    r = r ? r : directory_make(path, e);
    snprintf(path, sizeof(path), "%s/dom/%u/xenstored.sock", s->run_dir, domid);
    return r ? r : listener_new(s, path, domid, e);
}

static int hook_introduce(void *context, unsigned domid, uint64_t gfn, uint32_t port)
{
    struct store_server *s = context;
    struct err e = {0};
    bool again = listener_find(s, domid) != NULL;
    int r = again ? 0 : domain_listen(s, domid, &e);
    if (r == 0) {
        r = store_rings_open(&s->rings, domid, gfn, port, false, &e);
        if (r < 0 && !again)
            listener_free(listener_find(s, domid));
    }
    if (r < 0)
        log_error("store: domain %u cannot be introduced: %s", domid, e.text);
    return r;
}

static void hook_release(void *context, unsigned domid)
{
    struct store_server *s = context;
    struct listener *l = listener_find(s, domid);
    if (l)
        listener_free(l);
    store_rings_close(&s->rings, domid);
    store_rota_end_domain(&s->rota, domid);
}

static int polled_init(struct store_server *s)
{
    _cleanup_close_ int kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int r = kick < 0 ? -errno : loop_add(&s->loop, &s->kick, kick, EPOLLIN, kick_ready);
    if (r < 0)
        return r;
    take_fd(&kick);
    return loop_timer_add(&s->loop, &s->accept_timer, 0, 0, accept_resume);
}

static void polled_deinit(struct store_server *s)
{
    int kick = s->kick.fn ? s->kick.fd : -1;
    loop_remove(&s->loop, &s->kick);
    fd_closep(&kick);
    loop_timer_remove(&s->loop, &s->accept_timer);
}

static int hook_live_update(void *context, struct store_session *who, const char *const *args, unsigned count,
                            char *reply)
{
    struct store_server *s = context;
    return s->live_update ? s->live_update(s->live_update_context, who, args, count, reply) : ENOSYS;
}

static int engine_start(struct store_server *s, const struct store_options *o)
{
    uint64_t seed = clock_now_ns();
    if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) < 0)
        seed ^= (uint64_t)getpid() << 32; /* early in a boot: a guessable seed costs speed and nothing else */
    int r = store_engine_init(&s->engine, o, seed);
    if (r < 0)
        return r;
    s->engine.hooks = (struct store_hooks){
        .introduce = hook_introduce, .release = hook_release, .context = s, .live_update = hook_live_update};
    s->engine.now_ns = clock_now_ns();
    r = store_rota_init(&s->rota, &s->loop, &s->engine);
    if (r < 0)
        store_engine_deinit(&s->engine);
    return r;
}

void store_server_end(struct store_server *s, const struct store_transport *t)
{
    store_rota_end(&s->rota, t);
}

void store_server_find_rings(struct store_server *s)
{
    const struct store_domain *d;
    map_foreach (&s->engine.domains.by_domid, i, d) {
        struct err e = {0};
        if (!d->introduced || store_rings_has(&s->rings, d->domid))
            continue;
        if (store_rings_open(&s->rings, d->domid, d->gfn, d->port, true, &e) < 0)
            log_error("store: domain %u has no ring any more: %s", d->domid, e.text);
    }
    store_rings_settle(&s->rings);
}

void store_server_ring_gone(struct store_server *s, unsigned domid)
{
    struct store_domain *d = store_domain_find(&s->engine.domains, domid);
    if (d)
        d->port = 0;
    store_rings_close(&s->rings, domid);
}

static int hook_record(void *context, const struct store_change *change)
{
    struct store_server *s = context;
    return store_journal_record(s->journal, change);
}

/* What a predecessor left, and from now on each change. */
static int journal_start(struct store_server *s, const struct store_options *o, struct err *e)
{
    if (!o || !o->journal)
        return 0;
    int r = o->saved.bytes ? store_journal_continue(o->journal, &s->engine, &s->journal, e)
                           : store_journal_open(o->journal, &s->engine, &s->journal, e);
    if (r == 0)
        s->engine.hooks.record = hook_record;
    return r;
}

/* Domain 0's socket, and those of the domains that the journal has. One whose socket cannot be made stays introduced.
 */
static int sockets_make(struct store_server *s, struct err *e)
{
    char path[SERVER_PATH_BYTES];
    const struct store_domain *d;
    map_foreach (&s->engine.domains.by_domid, i, d) {
        if (d->introduced && d->domid != 0)
            (void)hook_introduce(s, d->domid, d->gfn, 0); /* its ring: store_server_find_rings() */
    }
    snprintf(path, sizeof(path), "%s/xenstored/socket", s->run_dir);
    return listener_new(s, path, 0, e);
}

/* Goes on where the process was before it executed this program, or begins anew with what the journal has. */
static int contents_make(struct store_server *s, const struct store_options *o, struct err *e)
{
    bool resumed = o && o->saved.bytes;
    int r = resumed ? store_handover_load(s, &o->saved, e) : 0;
    if (r == 0)
        r = journal_start(s, o, e);
    return r == 0 && !resumed ? sockets_make(s, e) : r;
}

static int server_start(struct store_server *s, const struct store_options *o, struct err *e)
{
    char path[SERVER_PATH_BYTES];
    int r = polled_init(s);
    if (r < 0)
        return err_set(e, r, "store: no timer or event: %s", strerror(-r));
    r = directory_make(s->run_dir, e);
    snprintf(path, sizeof(path), "%s/xenstored", s->run_dir);
    if (r == 0)
        r = directory_make(path, e);
    if (r < 0)
        return r;
    r = engine_start(s, o);
    if (r < 0)
        return err_set(e, r, "store: no tree: %s", strerror(-r));
    r = contents_make(s, o, e);
    if (r < 0) {
        listeners_free(s);
        store_rota_deinit(&s->rota);
        store_journal_close(s->journal);
        store_engine_deinit(&s->engine);
    }
    return r;
}

int store_server_new(const char *run_dir, const struct store_options *o, struct store_server **out, struct err *e)
{
    size_t length = strlen(run_dir);
    if (length >= PATH_MAX)
        return err_set(e, -ENAMETOOLONG, "the run directory's path has %zu characters: choose a shorter one", length);
    struct store_server *s = calloc(1, sizeof(*s) + length + 1);
    if (!s)
        return err_set(e, -ENOMEM, "store: no memory");
    memcpy(s->run_dir, run_dir, length + 1);
    list_init(&s->listeners);
    spin_init(&s->spin, SERVER_LOOK_NS);
    store_rings_init(&s->rings, o ? o->rings : NULL, s, &s->loop);
    int r = loop_init(&s->loop);
    if (r < 0) {
        free(s);
        return err_set(e, r, "store: no epoll set: %s", strerror(-r));
    }
    r = server_start(s, o, e);
    if (r < 0) {
        polled_deinit(s);
        loop_deinit(&s->loop);
        free(s);
        return r;
    }
    *out = s;
    return 0;
}

void store_server_free(struct store_server *s)
{
    if (!s)
        return;
    listeners_free(s);
    store_rings_deinit(&s->rings);
    store_rota_deinit(&s->rota);
    store_engine_deinit(&s->engine);
    store_journal_close(s->journal);
    polled_deinit(s);
    loop_deinit(&s->loop);
    free(s);
}

int store_answers_parse(const char *text, enum store_answers *out)
{
    if (strcmp(text, "c") != 0 && strcmp(text, "ocaml") != 0)
        return -EINVAL;
    *out = text[0] == 'c' ? STORE_ANSWERS_C : STORE_ANSWERS_OCAML;
    return 0;
}

int store_server_fd(const struct store_server *s)
{
    return s->loop.epoll_fd;
}

struct loop *store_server_loop(struct store_server *s)
{
    return &s->loop;
}

int store_server_step(struct store_server *s, unsigned budget)
{
    uint64_t before = s->engine.requests;
    unsigned used = 1;
    int r = 1;
    for (unsigned left = budget; left > 0 && (r > 0 || used > 0); left -= MIN(left, MAX(used, 1))) {
        s->engine.now_ns = clock_now_ns();
        r = loop_step(&s->loop, 0);
        if (r < 0)
            break;
        used = store_rota_round(&s->rota, left);
        store_rings_settle(&s->rings);
    }
    store_rota_bury(&s->rota);
    kick_if_ready(s);
    return r < 0 ? r : (int)(s->engine.requests - before);
}

/* Looks until there is something, or the window has passed. What is there at once says nothing for looking. */
static int look_for_work(struct store_server *s, uint64_t window_ns)
{
    int r = loop_step(&s->loop, 0);
    if (r != 0)
        return r;
    uint64_t start_ns = clock_now_ns(), now_ns = start_ns, last_ns = start_ns;
    while (r == 0 && now_ns - start_ns < window_ns) {
        last_ns = now_ns;
        r = loop_step(&s->loop, 0);
        now_ns = clock_now_ns();
    }
    spin_learn(&s->spin, r != 0 && now_ns - start_ns < window_ns && now_ns - last_ns < SERVER_INTERRUPTED_NS);
    return r;
}

/* Dispatches what is ready, or becomes so: looks for it for a while, where that pays, and then sleeps. */
static int wait_for_work(struct store_server *s)
{
    if (store_rota_is_ready(&s->rota))
        return loop_step(&s->loop, 0);
    uint64_t window_ns = spin_window_ns(&s->spin);
    int r = window_ns ? look_for_work(s, window_ns) : 0;
    if (r != 0)
        return r;
    uint64_t start_ns = clock_now_ns();
    r = loop_step(&s->loop, -1);
    spin_slept(&s->spin, clock_now_ns() - start_ns);
    return r;
}

int store_server_run(struct store_server *s)
{
    s->loop.quit = false;
    while (!s->loop.quit) {
        int r = wait_for_work(s);
        if (r < 0)
            return r;
        s->engine.now_ns = clock_now_ns();
        store_rota_round(&s->rota, SERVER_ROUND_REQUESTS);
        store_rings_settle(&s->rings);
        store_rota_bury(&s->rota);
    }
    return 0;
}

void store_server_domain_gone(struct store_server *s, unsigned domid)
{
    if (domid == 0 || domid > STORE_DOMID_MAX)
        return;
    store_engine_domain_gone(&s->engine, domid);
    store_rota_tell(&s->rota);
    store_rota_bury(&s->rota);
    kick_if_ready(s);
}

void store_server_sweep(struct store_server *s, const bool *alive)
{
    for (unsigned domid = 1; domid <= STORE_DOMID_MAX; domid++) {
        const struct store_domain *d = store_domain_find(&s->engine.domains, domid);
        if (d && d->introduced && !alive[domid])
            store_server_domain_gone(s, domid);
    }
}

void store_server_stats(const struct store_server *s, struct store_server_stats *out)
{
    const struct store_engine *g = &s->engine;
    *out = (struct store_server_stats){.requests = g->requests,
                                       .errors = g->errors,
                                       .events = g->watches.events,
                                       .events_merged = g->watches.merged,
                                       .slow = s->rota.slow,
                                       .connections = s->rota.connections,
                                       .domains = g->domains.introduced,
                                       .nodes = (unsigned)g->tree.slots.count,
                                       .watches = g->watches.count,
                                       .transactions = g->transactions};
}

void store_server_on_live_update(struct store_server *s, store_live_update_fn *fn, void *context)
{
    s->live_update = fn;
    s->live_update_context = context;
}

/* ---- its parts (store/server_parts.h) ---- */

struct store_engine *store_server_engine(struct store_server *s)
{
    return &s->engine;
}

void store_server_listeners_each(struct store_server *s, store_server_listener_fn *fn, void *context)
{
    struct listener *l;
    list_foreach (l, &s->listeners, link)
        fn(context, l->fd, l->domid, l->path);
}

void store_server_conns_each(struct store_server *s, store_server_conn_fn *fn, void *context)
{
    struct store_conn *c;
    list_foreach (c, &s->rota.open, link)
        fn(context, c);
}

struct store_conn *store_server_conn_take(struct store_server *s, struct store_transport *t, unsigned domid)
{
    struct store_conn *c;
    return store_rota_take(&s->rota, t, domid, &c) == 0 ? c : NULL;
}

struct store_transport *store_server_ring_resume(struct store_server *s, unsigned domid, uint32_t port, struct err *e)
{
    const struct store_domain *d = store_domain_find(&s->engine.domains, domid);
    struct store_transport *t = NULL;
    int r;
    if (!s->ring_deadline_ns)
        s->ring_deadline_ns = clock_now_ns() + SERVER_RING_WAIT_MS * CLOCK_NS_PER_MS;
    while ((r = store_rings_resume(&s->rings, domid, d ? d->gfn : 0, port, &t, e)) != 0 &&
           (r == -EAGAIN || r == -EBUSY) && clock_now_ns() < s->ring_deadline_ns)
        poll(NULL, 0, 1); /* the world has yet to see that we gave it up */
    return r == 0 ? t : NULL;
}

void store_server_conns_go(struct store_server *s)
{
    store_rota_settle(&s->rota);
    kick_if_ready(s);
}
