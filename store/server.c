/* SPDX-License-Identifier: MIT */
#include "store/server.h"

#include <assert.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/unixsock.h"
#include "store/conn.h"
#include "store/journal.h"

#define SERVER_GUEST_CONNECTIONS 16 /* a guest needs one, its command line tools some more */
#define SERVER_PATH_BYTES        (PATH_MAX + 32)
#define SERVER_RETRY_MS          100 /* after running out of descriptors: unmeasured */

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
    struct loop_source timer; /* brakes and refused accepts end without an event of a socket */
    uint64_t timer_due_ns;    /* 0: not armed */
    bool accept_paused;
    struct store_engine engine;
    struct store_journal *journal; /* NULL: none */
    struct list listeners, open, closed;
    struct log_limiter limiter;
    unsigned budget; /* sockets left to serve in this step: a peer cannot keep one going */
    unsigned served; /* requests, in this step */
    char run_dir[];
};

static void conn_end(struct store_conn *c)
{
    struct store_server *s = c->server;
    loop_remove(&s->loop, &c->source);
    store_conn_close(c);
    list_remove(&c->link);
    list_append(&s->closed, &c->link);
}

static void timer_want(struct store_server *s, uint64_t due_ns)
{
    if (s->timer_due_ns && s->timer_due_ns <= due_ns)
        return;
    uint64_t wait_ns = due_ns > s->engine.now_ns ? due_ns - s->engine.now_ns : 0;
    if (loop_timer_set(&s->timer, wait_ns / CLOCK_NS_PER_MS + 1, 0) == 0)
        s->timer_due_ns = due_ns;
}

static void conn_log_end(struct store_conn *c)
{
    unsigned domid = c->session.domain->domid;
    if (c->broken == STORE_E_UNREAD_EVENTS)
        log_peer(&c->server->limiter, "store: domain %u does not read its watch events: disconnected", domid);
    else if (c->broken == STORE_E_OVERSIZE)
        log_peer(&c->server->limiter,
                 "store: domain %u sent a header with a payload of %u bytes, at most %u may be: disconnected", domid,
                 c->in.header.len, XENSTORE_PAYLOAD_MAX);
}

/* After anything that may have changed what a connection waits for: sends, ends it, or polls for what it now needs. */
static void conn_settle(struct store_conn *c)
{
    if (c->session.overflowed)
        c->broken = STORE_E_UNREAD_EVENTS;
    if (!c->broken)
        store_conn_flush(c);
    if (c->broken) {
        conn_log_end(c);
        conn_end(c);
        return;
    }
    uint32_t interest = store_conn_interest(c);
    uint64_t braked_until_ns = store_session_braked_until_ns(&c->session);
    if (braked_until_ns > c->server->engine.now_ns)
        timer_want(c->server, braked_until_ns);
    if (interest != c->armed && loop_modify(&c->server->loop, &c->source, interest) == 0)
        c->armed = interest;
}

/* Sessions with news: what one request changed, others are told of. */
static void marked_settle(struct store_server *s)
{
    while (!list_empty(&s->engine.marked)) {
        struct store_session *session = list_entry(s->engine.marked.next, struct store_session, marked);
        list_remove(&session->marked);
        conn_settle(container_of(session, struct store_conn, session));
    }
}

/* What is not served for want of budget stays ready: the epoll set is level triggered. */
static bool budget_take(struct store_server *s)
{
    if (s->budget == 0)
        return false;
    s->budget--;
    return true;
}

static void conn_ready(struct loop_source *source, uint32_t events)
{
    struct store_conn *c = container_of(source, struct store_conn, source);
    struct store_server *s = c->server;
    if (!budget_take(s))
        return;
    if (c->transport->ops->acknowledge)
        c->transport->ops->acknowledge(c->transport);
    bool may_read = store_conn_may_read(c);
    if ((events & EPOLLIN) && may_read)
        s->served += (unsigned)store_conn_serve(c);
    else if (!(events & EPOLLIN) && (events & (EPOLLHUP | EPOLLERR)))
        c->broken = -EPIPE;
    else if (!may_read && (events & EPOLLHUP))
        c->broken = -EPIPE; /* nobody is left to read what it would have to read first */
    if (c->transport)       /* it may have released itself */
        conn_settle(c);
    marked_settle(s);
}

int store_server_adopt(struct store_server *s, struct store_transport *t, unsigned domid)
{
    int fd = t->fd;
    struct store_conn *c = store_conn_new(t, &s->engine, domid);
    if (!c)
        return -ENOMEM;
    c->server = s;
    list_append(&s->open, &c->link);
    c->armed = EPOLLIN;
    c->broken = loop_add(&s->loop, &c->source, fd, c->armed, conn_ready);
    if (!c->broken)
        return 0;
    int r = c->broken;
    conn_end(c);
    return r;
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
    s->accept_paused = true;
    list_foreach (l, &s->listeners, link)
        loop_modify(&s->loop, &l->source, 0);
    timer_want(s, s->engine.now_ns + SERVER_RETRY_MS * CLOCK_NS_PER_MS);
}

static void listener_ready(struct loop_source *source, uint32_t events)
{
    (void)events;
    struct listener *l = container_of(source, struct listener, source);
    struct store_server *s = l->server;
    uid_t uid;
    if (!budget_take(s))
        return;
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

static void timer_ready(struct loop_source *source, uint32_t events)
{
    (void)events;
    struct store_server *s = container_of(source, struct store_server, timer);
    struct store_conn *c, *next;
    struct listener *l;
    loop_timer_ack(source);
    s->timer_due_ns = 0;
    if (s->accept_paused)
        list_foreach (l, &s->listeners, link)
            loop_modify(&s->loop, &l->source, EPOLLIN);
    s->accept_paused = false;
    list_foreach_safe (c, next, &s->open, link)
        conn_settle(c);
}

static void listener_free(struct listener *l)
{
    loop_remove(&l->server->loop, &l->source);
    unlink(l->path);
    unixsock_close_listener(&l->fd);
    list_remove(&l->link);
    free(l);
}

static int listener_new(struct store_server *s, const char *path, unsigned domid, struct err *e)
{
    size_t length = strlen(path);
    struct listener *l = calloc(1, sizeof(*l) + length + 1);
    if (!l)
        return err_set(e, -ENOMEM, "no memory for a listening socket");
    memcpy(l->path, path, length + 1);
    l->server = s;
    l->domid = domid;
    int fd = unixsock_listen(path, SOCK_STREAM, 0600, e);
    int r = fd < 0 ? fd : loop_add(&s->loop, &l->source, fd, EPOLLIN, listener_ready);
    if (r < 0) {
        if (fd >= 0)
            close(fd);
        free(l);
        return r;
    }
    l->fd = fd;
    list_append(&s->listeners, &l->link);
    return 0;
}

static int directory_make(const char *path, struct err *e)
{
    if (mkdir(path, 0700) == 0 || errno == EEXIST)
        return 0;
    return err_set(e, -errno, "cannot make the directory %s: %s", path, strerror(errno));
}

static int hook_introduce(void *context, unsigned domid)
{
    struct store_server *s = context;
    char path[SERVER_PATH_BYTES];
    struct err e = {0};
    snprintf(path, sizeof(path), "%s/dom", s->run_dir);
    int r = directory_make(path, &e);
    if (r == 0) {
        snprintf(path, sizeof(path), "%s/dom/%u", s->run_dir, domid);
        r = directory_make(path, &e);
    }
    if (r == 0) {
        snprintf(path, sizeof(path), "%s/dom/%u/xenstored.sock", s->run_dir, domid);
        r = listener_new(s, path, domid, &e);
    }
    if (r < 0)
        log_error("store: domain %u cannot be introduced: %s", domid, e.text);
    return r;
}

static void hook_release(void *context, unsigned domid)
{
    struct store_server *s = context;
    struct listener *l, *next_listener;
    struct store_conn *c, *next;
    list_foreach_safe (l, next_listener, &s->listeners, link) {
        if (l->domid == domid)
            listener_free(l);
    }
    list_foreach_safe (c, next, &s->open, link) {
        if (c->session.domain->domid == domid)
            conn_end(c);
    }
}

static int hook_record(void *context, const struct store_change *change)
{
    struct store_server *s = context;
    return store_journal_record(s->journal, change);
}

/* What a predecessor left, and from now on each change. A domain whose socket cannot be made stays introduced. */
static int journal_start(struct store_server *s, const struct store_options *o, struct err *e)
{
    if (!o || !o->journal)
        return 0;
    int r = store_journal_open(o->journal, o->journal_sync, &s->engine, &s->journal, e);
    if (r < 0)
        return r;
    s->engine.hooks.record = hook_record;
    const struct store_domain *d;
    map_foreach (&s->engine.domains.by_domid, i, d) {
        if (d->introduced && d->domid != 0)
            (void)hook_introduce(s, d->domid);
    }
    return 0;
}

static int server_start(struct store_server *s, const struct store_options *o, struct err *e)
{
    uint64_t seed = clock_now_ns();
    char path[SERVER_PATH_BYTES];
    if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) < 0)
        seed ^= (uint64_t)getpid() << 32; /* early in a boot: a guessable seed costs speed and nothing else */
    int r = loop_timer_add(&s->loop, &s->timer, 0, 0, timer_ready);
    if (r < 0)
        return err_set(e, r, "store: no timer: %s", strerror(-r));
    r = directory_make(s->run_dir, e);
    snprintf(path, sizeof(path), "%s/xenstored", s->run_dir);
    if (r == 0)
        r = directory_make(path, e);
    if (r < 0)
        return r;
    r = store_engine_init(&s->engine, o, seed);
    if (r < 0)
        return err_set(e, r, "store: no memory for the tree");
    s->engine.hooks = (struct store_hooks){.introduce = hook_introduce, .release = hook_release, .context = s};
    s->engine.now_ns = clock_now_ns();
    r = journal_start(s, o, e);
    snprintf(path, sizeof(path), "%s/xenstored/socket", s->run_dir);
    if (r == 0)
        r = listener_new(s, path, 0, e);
    if (r < 0) {
        struct listener *l, *next;
        list_foreach_safe (l, next, &s->listeners, link)
            listener_free(l);
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
    list_init(&s->open);
    list_init(&s->closed);
    int r = loop_init(&s->loop);
    if (r < 0) {
        free(s);
        return err_set(e, r, "store: no epoll set: %s", strerror(-r));
    }
    r = server_start(s, o, e);
    if (r < 0) {
        loop_timer_remove(&s->loop, &s->timer);
        loop_deinit(&s->loop);
        free(s);
        return r;
    }
    *out = s;
    return 0;
}

static void closed_free(struct store_server *s)
{
    struct store_conn *c, *next;
    list_foreach_safe (c, next, &s->closed, link)
        store_conn_free(c);
}

void store_server_free(struct store_server *s)
{
    if (!s)
        return;
    struct store_conn *c, *next;
    struct listener *l, *next_listener;
    list_foreach_safe (c, next, &s->open, link)
        conn_end(c);
    list_foreach_safe (l, next_listener, &s->listeners, link)
        listener_free(l);
    closed_free(s);
    store_engine_deinit(&s->engine);
    store_journal_close(s->journal);
    loop_timer_remove(&s->loop, &s->timer);
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

int store_server_step(struct store_server *s, unsigned budget)
{
    int r = 1;
    s->budget = budget;
    s->served = 0;
    while (r > 0 && s->budget > 0) {
        s->engine.now_ns = clock_now_ns();
        r = loop_step(&s->loop, 0);
    }
    closed_free(s);
    return r < 0 ? r : (int)s->served;
}

void store_server_domain_gone(struct store_server *s, unsigned domid)
{
    if (domid == 0 || domid > STORE_DOMID_MAX)
        return;
    store_engine_domain_gone(&s->engine, domid);
    marked_settle(s);
    closed_free(s);
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
                                       .domains = g->domains.introduced,
                                       .nodes = (unsigned)g->tree.slots.count,
                                       .watches = g->watches.count,
                                       .transactions = g->transactions};
    const struct store_conn *c;
    list_foreach (c, &s->open, link)
        out->connections++;
}
