/* SPDX-License-Identifier: MIT */
#include <errno.h> /* before the wire's header: the error table depends on it */

#include "store/link.h"

#include <assert.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>

#include "base/clock.h"
#include "base/list.h"
#include "base/parse.h"
#include "base/strmap.h"
#include "store/wire.h"

#define LINK_PARTS_MAX 8

/* A watch that is set, or an event that waits: path, NUL, token, NUL. */
struct note {
    struct list link;
    struct strmap_entry entry; /* of an event: so that none waits twice */
    size_t path_bytes, bytes;
    char text[];
};

struct transaction {
    struct list link;
    uint32_t name, id; /* to the caller; to the store */
    bool over;
};

struct store_link {
    int fd; /* -1: there is no connection */
    int epoll_fd, timer_fd;
    bool lost, repeated;
    bool alive;       /* the connection has said something */
    uint64_t down_ns; /* since when there is none */
    uint64_t gone_ns; /* since when there is not even a socket; 0: there was one at the last try */
    unsigned retry_ms;
    uint32_t request, transaction; /* the last ones' numbers */
    struct list watches, events, transactions;
    struct strmap waiting; /* the events */
    bool answered;
    struct store_message answer; /* to the request that is open */
    size_t have;                 /* bytes of `in`, of a message that is not whole */
    struct store_message in;
    char path[PATH_MAX];
};

/* ---- notes ---- */

static struct note *note_new(const char *path, size_t path_bytes, const char *token, size_t token_bytes)
{
    struct note *n = malloc(sizeof(*n) + path_bytes + token_bytes);
    if (!n)
        return NULL;
    *n = (struct note){.path_bytes = path_bytes, .bytes = path_bytes + token_bytes};
    memcpy(n->text, path, path_bytes);
    memcpy(n->text + path_bytes, token, token_bytes);
    return n;
}

static void notes_free(struct list *notes)
{
    struct note *n, *next;
    list_foreach_safe (n, next, notes, link) {
        list_remove(&n->link);
        free(n);
    }
}

/* What makes the descriptor readable beside the connection: 0 never, 1 at once. */
static void timer_set(struct store_link *l, uint64_t ns)
{
    const struct itimerspec when = {
        .it_value = {.tv_sec = (time_t)(ns / CLOCK_NS_PER_S), .tv_nsec = (long)(ns % CLOCK_NS_PER_S)}};
    timerfd_settime(l->timer_fd, 0, &when, NULL);
}

/* ---- the connection ---- */

static void link_down(struct store_link *l)
{
    struct transaction *t;
    epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, l->fd, NULL); /* a process that was forked may have it too */
    fd_closep(&l->fd);
    l->have = 0;
    if (l->alive) { /* else it was none: the patience goes on */
        l->down_ns = clock_now_ns();
        l->retry_ms = 1;
    }
    l->alive = false;
    list_foreach (t, &l->transactions, link)
        t->over = true;
    timer_set(l, l->retry_ms * CLOCK_NS_PER_MS);
}

/* A whole message is in `in`. 0 or -EPROTO. */
static int message_take(struct store_link *l)
{
    struct store_message *m = &l->in;
    const char *strings[2];
    l->alive = true;
    if (m->header.type != XS_WATCH_EVENT) {
        if (l->answered || m->header.req_id != l->request)
            return -EPROTO;
        l->answer = *m;
        l->answered = true;
        return 0;
    }
    if (store_wire_strings(m->payload, m->header.len, strings, 2) != 0)
        return -EPROTO;
    if (strmap_find(&l->waiting, m->payload, m->header.len))
        return 0;
    size_t path_bytes = strlen(strings[0]) + 1;
    struct note *n = note_new(strings[0], path_bytes, strings[1], m->header.len - path_bytes);
    if (!n)
        return -ENOMEM; /* the connection ends, and each watch has a first event again */
    strmap_insert(&l->waiting, &n->entry, n->text, n->bytes);
    if (list_empty(&l->events))
        timer_set(l, 1);
    list_append(&l->events, &n->link);
    return 0;
}

/* What is there, up to the end of one message. 1: one came, 0: not yet, -EPIPE: the connection is down. */
static int message_read(struct store_link *l)
{
    for (;;) {
        size_t want = sizeof(l->in.header);
        if (l->have >= want)
            want += l->in.header.len;
        if (l->have == want && l->have >= sizeof(l->in.header)) {
            l->have = 0;
            if (message_take(l) == 0)
                return 1;
            break;
        }
        ssize_t n = read(l->fd, (char *)&l->in + l->have, want - l->have);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return 0;
        if (n <= 0)
            break;
        l->have += (size_t)n;
        if (l->have == sizeof(l->in.header) && store_wire_check(&l->in.header) != 0)
            break;
    }
    link_down(l);
    return -EPIPE;
}

static int link_wait(const struct store_link *l, short events)
{
    struct pollfd p = {.fd = l->fd, .events = events};
    return poll(&p, 1, -1) < 0 && errno != EINTR ? -errno : 0;
}

/* All of it. Who sends also reads: a store does not read from who does not. */
static int link_send(struct store_link *l, struct iovec *iov, unsigned count)
{
    struct msghdr m = {.msg_iov = iov, .msg_iovlen = count};
    while (m.msg_iovlen > 0) {
        ssize_t n = sendmsg(l->fd, &m, MSG_NOSIGNAL);
        if (n < 0 && errno == ENOTSOCK)
            n = writev(l->fd, m.msg_iov, (int)m.msg_iovlen);
        if (n < 0 && errno == EAGAIN) {
            int r = link_wait(l, POLLIN | POLLOUT);
            if (r == 0 && message_read(l) < 0)
                return -EPIPE;
            n = 0;
        } else if (n < 0 && errno != EINTR) {
            link_down(l);
            return -EPIPE;
        }
        for (size_t left = n > 0 ? (size_t)n : 0; m.msg_iovlen > 0;) {
            size_t took = MIN(left, m.msg_iov->iov_len);
            m.msg_iov->iov_base = (char *)m.msg_iov->iov_base + took;
            m.msg_iov->iov_len -= took;
            left -= took;
            if (m.msg_iov->iov_len > 0)
                break;
            m.msg_iov++;
            m.msg_iovlen--;
        }
    }
    return 0;
}

/* The errno value of an error's name. */
static int error_number(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(xsd_errors); i++)
        if (strcmp(xsd_errors[i].errstring, name) == 0)
            return xsd_errors[i].errnum;
    return EIO;
}

/* One request and its answer on the connection that there is. 0, -errno as the store answers, -EPIPE: it went down. */
static int exchange(struct store_link *l, uint32_t type, uint32_t id, const struct iovec *parts, unsigned count)
{
    struct iovec iov[1 + LINK_PARTS_MAX];
    struct xsd_sockmsg header = {.type = type, .req_id = ++l->request, .tx_id = id};
    size_t length = 0;
    assert(count <= LINK_PARTS_MAX);
    for (unsigned i = 0; i < count; i++)
        length += parts[i].iov_len;
    if (length > XENSTORE_PAYLOAD_MAX)
        return -E2BIG;
    header.len = (uint32_t)length;
    iov[0] = (struct iovec){&header, sizeof(header)};
    memcpy(iov + 1, parts, count * sizeof(*parts));
    l->answered = false;
    int r = link_send(l, iov, 1 + count);
    while (r == 0 && !l->answered) {
        r = message_read(l);
        r = r == 0 ? link_wait(l, POLLIN) : MIN(r, 0);
    }
    if (r < 0)
        return r;
    struct store_message *a = &l->answer;
    if (a->header.type == XS_ERROR) {
        a->payload[MIN(a->header.len, sizeof(a->payload) - 1)] = '\0';
        return -error_number(a->payload);
    }
    if (a->header.type == type)
        return 0;
    link_down(l);
    return -EPIPE;
}

/* A socket, or a device. The descriptor, or -errno. */
static int descriptor_open(const char *path)
{
    struct stat st;
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (stat(path, &st) < 0)
        return -errno;
    if (!S_ISSOCK(st.st_mode)) {
        int device = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
        return device < 0 ? -errno : device;
    }
    if (strlen(path) >= sizeof(a.sun_path))
        return -ENAMETOOLONG;
    strcpy(a.sun_path, path);
    _cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
        return -errno;
    return take_fd(&fd);
}

/* One try. 0; else there is none: -errno. */
static int link_try(struct store_link *l)
{
    struct epoll_event in = {.events = EPOLLIN};
    struct note *w;
    int fd = descriptor_open(l->path);
    if (fd < 0)
        return fd;
    if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &in) < 0) {
        int r = -errno;
        close(fd);
        return r;
    }
    l->fd = fd;
    list_foreach (w, &l->watches, link)
        if (exchange(l, XS_WATCH, 0, &(struct iovec){w->text, w->bytes}, 1) == -EPIPE)
            return -EPIPE;
    timer_set(l, list_empty(&l->events) ? 0 : 1);
    return 0;
}

/* Tries again, if it is worth it: 0, -EAGAIN: try later, -EPIPE: never again. */
static int link_retry(struct store_link *l)
{
    if (l->lost)
        return -EPIPE;
    int r = link_try(l);
    if (r == 0) {
        l->gone_ns = 0;
        return 0;
    }
    uint64_t now_ns = clock_now_ns();
    if (r != -ENOENT && r != -ENOTDIR)
        l->gone_ns = 0;
    else if (!l->gone_ns) /* from now: that it was down for long before says nothing of the socket */
        l->gone_ns = now_ns;
    if ((l->gone_ns && now_ns - l->gone_ns >= LINK_GONE_MS * CLOCK_NS_PER_MS) ||
        now_ns - l->down_ns >= LINK_PATIENCE_MS * CLOCK_NS_PER_MS) {
        l->lost = true;
        timer_set(l, 1); /* readable for good: who waits for events is to learn it */
        return -EPIPE;
    }
    l->retry_ms = MIN(MAX(l->retry_ms, 1u) * 2, LINK_RETRY_MS);
    timer_set(l, l->retry_ms * CLOCK_NS_PER_MS);
    return -EAGAIN;
}

/* Waits for a connection: 0 or -EPIPE. */
static int link_up(struct store_link *l)
{
    int r = 0;
    while (l->fd < 0 && (r = link_retry(l)) == -EAGAIN)
        poll(NULL, 0, (int)l->retry_ms);
    return r;
}

/* ---- for the client ---- */

int store_link_open(const char *path, struct store_link **out, struct err *e)
{
    const char *where = path ?: getenv("XENSTORED_PATH") ?: "/run/xenstored/socket";
    struct epoll_event in = {.events = EPOLLIN};
    struct store_link *l = calloc(1, sizeof(*l));
    if (!l)
        return err_set(e, -ENOMEM, "store client: no memory");
    l->fd = -1;
    list_init(&l->watches);
    list_init(&l->events);
    list_init(&l->transactions);
    strmap_init(&l->waiting, (uintptr_t)l);
    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    l->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    int r = (size_t)snprintf(l->path, sizeof(l->path), "%s", where) >= sizeof(l->path) ? -ENAMETOOLONG : 0;
    if (r == 0 && (l->epoll_fd < 0 || l->timer_fd < 0 || epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, l->timer_fd, &in) < 0))
        r = -errno;
    l->down_ns = clock_now_ns();
    while (r == 0 && (r = link_try(l)) == -ECONNREFUSED &&
           clock_now_ns() - l->down_ns < LINK_OPEN_MS * CLOCK_NS_PER_MS) {
        poll(NULL, 0, 10);
        r = 0;
    }
    if (r < 0) {
        err_set(e, r, "cannot connect to the xenstore at %s: %s; is the store running?", where, strerror(-r));
        store_link_close(l);
        return r;
    }
    *out = l;
    return 0;
}

void store_link_close(struct store_link *l)
{
    struct transaction *t, *next;
    if (!l)
        return;
    list_foreach_safe (t, next, &l->transactions, link)
        free(t);
    notes_free(&l->watches);
    notes_free(&l->events);
    strmap_deinit(&l->waiting);
    fd_closep(&l->fd);
    fd_closep(&l->timer_fd);
    fd_closep(&l->epoll_fd);
    free(l);
}

int store_link_fd(const struct store_link *l)
{
    return l->epoll_fd;
}

static int answer_copy(const struct store_link *l, char **out, size_t *length)
{
    size_t bytes = l->answer.header.len;
    if (!out)
        return 0;
    *out = malloc(bytes + 1);
    if (!*out)
        return -ENOMEM;
    memcpy(*out, l->answer.payload, bytes);
    (*out)[bytes] = '\0';
    if (length)
        *length = bytes;
    return 0;
}

static struct transaction *transaction_find(struct store_link *l, uint32_t name)
{
    struct transaction *t;
    list_foreach (t, &l->transactions, link) {
        if (t->name == name)
            return t;
    }
    return NULL;
}

int store_link_ask(struct store_link *l, uint32_t type, uint32_t tx, const struct iovec *parts, unsigned count,
                   char **out, size_t *length)
{
    struct transaction *t = tx ? transaction_find(l, tx) : NULL;
    if (tx && !t)
        return -ENOENT;
    l->repeated = false;
    for (unsigned i = 0; i < LINK_TRIES; i++) {
        int r = link_up(l);
        if (r < 0)
            return r;
        if (t && t->over)
            return -EAGAIN;
        r = exchange(l, type, t ? t->id : 0, parts, count);
        if (r == 0)
            return answer_copy(l, out, length);
        if (r != -EPIPE)
            return r;
        l->repeated = true;
    }
    return -EPIPE;
}

bool store_link_repeated(const struct store_link *l)
{
    return l->repeated;
}

int store_link_tx_start(struct store_link *l, uint32_t *out)
{
    _cleanup_free_ char *text = NULL;
    _cleanup_free_ struct transaction *t = malloc(sizeof(*t));
    uint64_t id;
    int r = t ? store_link_ask(l, XS_TRANSACTION_START, 0, &(struct iovec){"", 1}, 1, &text, NULL) : -ENOMEM;
    if (r == 0 && parse_u64(text, 1, UINT32_MAX, &id) < 0)
        r = -EPROTO;
    if (r < 0)
        return r;
    do
        l->transaction++;
    while (l->transaction == 0 || transaction_find(l, l->transaction));
    *t = (struct transaction){.name = l->transaction, .id = (uint32_t)id};
    list_append(&l->transactions, &t->link);
    *out = t->name;
    (void)take_ptr(t);
    return 0;
}

int store_link_tx_end(struct store_link *l, uint32_t tx, bool abort_it)
{
    struct transaction *t = transaction_find(l, tx);
    if (!t)
        return -ENOENT;
    int r = t->over || l->fd < 0
                ? -EAGAIN
                : store_link_ask(l, XS_TRANSACTION_END, tx, &(struct iovec){abort_it ? "F" : "T", 2}, 1, NULL, NULL);
    list_remove(&t->link);
    free(t);
    return abort_it && r == -EAGAIN ? 0 : r;
}

int store_link_watch(struct store_link *l, const char *path, const char *token)
{
    struct note *w = note_new(path, strlen(path) + 1, token, strlen(token) + 1);
    if (!w)
        return -ENOMEM;
    int r = store_link_ask(l, XS_WATCH, 0, &(struct iovec){w->text, w->bytes}, 1, NULL, NULL);
    if (r < 0)
        free(w);
    else
        list_append(&l->watches, &w->link);
    return r;
}

int store_link_unwatch(struct store_link *l, const char *path, const char *token)
{
    struct note *w, *next;
    list_foreach_safe (w, next, &l->watches, link) {
        if (strcmp(w->text, path) != 0 || strcmp(w->text + w->path_bytes, token) != 0)
            continue;
        list_remove(&w->link);
        struct iovec part = {w->text, w->bytes};
        int r = l->fd < 0 ? 0 : exchange(l, XS_UNWATCH, 0, &part, 1); /* a connection that is gone has no watches */
        free(w);
        return r == -EPIPE ? 0 : r;
    }
    return -ENOENT;
}

int store_link_event(struct store_link *l, char ***event, const char **path, const char **token)
{
    int r = l->fd < 0 && list_empty(&l->events) ? link_retry(l) : 0;
    if (r < 0)
        return r;
    while (list_empty(&l->events) && l->fd >= 0 && message_read(l) > 0) {
    }
    if (list_empty(&l->events))
        return -EAGAIN; /* also where it went down just now: the next call tries again */
    struct note *n = list_entry(l->events.next, struct note, link);
    char **strings = malloc(2 * sizeof(char *) + n->bytes);
    if (!strings)
        return -ENOMEM;
    *path = strings[0] = memcpy(strings + 2, n->text, n->bytes);
    *token = strings[1] = strings[0] + n->path_bytes;
    *event = strings;
    strmap_remove(&l->waiting, &n->entry);
    list_remove(&n->link);
    free(n);
    if (list_empty(&l->events) && l->fd >= 0)
        timer_set(l, 0);
    return 0;
}
