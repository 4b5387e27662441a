/* SPDX-License-Identifier: MIT */
#include "hypervisor/client.h"

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "base/list.h"
#include "base/unixsock.h"

struct kept_event {
    struct list link;
    struct hv_event event;
};

struct hvclient {
    int fd;
    int kept_fd;  /* an eventfd, readable while events are kept */
    int epoll_fd; /* both */
    uint32_t seq;
    struct hv_hello hello;
    struct list kept;
    unsigned kept_count;
    bool broken;
};

union answer {
    struct hv_reply reply;
    struct hv_event event;
};

/* ---- events ---- */

static int event_keep(struct hvclient *c, const struct hv_event *event)
{
    struct kept_event *k = c->kept_count < HVCLIENT_EVENTS_MAX ? malloc(sizeof(*k)) : NULL;
    if (!k)
        return -ENOMEM;
    k->event = *event;
    list_append(&c->kept, &k->link);
    if (c->kept_count++ == 0)
        eventfd_write(c->kept_fd, 1);
    return 0;
}

static bool event_take(struct hvclient *c, struct hv_event *out)
{
    if (c->kept_count == 0)
        return false;
    struct kept_event *k = list_entry(c->kept.next, struct kept_event, link);
    *out = k->event;
    list_remove(&k->link);
    free(k);
    eventfd_t ignored;
    if (--c->kept_count == 0)
        eventfd_read(c->kept_fd, &ignored);
    return true;
}

static int give_up(struct hvclient *c, int code)
{
    c->broken = true;
    shutdown(c->fd, SHUT_RDWR); /* the descriptor stays readable: the owner's loop finds out */
    return code;
}

/* One message: 1 a reply, 2 an event, -EAGAIN, -EPIPE, -EPROTO. Descriptors only come with replies. */
static int message_read(struct hvclient *c, union answer *out, int *fds, unsigned *fd_count, int flags)
{
    ssize_t n;
    do
        n = unixsock_recv(c->fd, out, sizeof(*out), fds, fd_count, flags);
    while (n == -ECONNRESET && !c->broken && (c->broken = true)); /* what was sent before the end is still there */
    if (n == -EAGAIN)
        return -EAGAIN;
    if (n <= 0)
        return give_up(c, -EPIPE);
    if (n == sizeof(struct hv_event) && out->event.op > 0x100 && out->event.seq == 0)
        return 2;
    if (n == sizeof(struct hv_reply) && out->reply.op < HV_OP_END_)
        return 1;
    return give_up(c, -EPROTO);
}

int hvclient_event(struct hvclient *c, struct hv_event *out)
{
    if (event_take(c, out))
        return 1;
    if (c->broken)
        return -EPIPE;
    union answer a;
    int r = message_read(c, &a, NULL, NULL, MSG_DONTWAIT);
    if (r == -EAGAIN)
        return 0;
    if (r != 2)
        return r < 0 ? r : give_up(c, -EPROTO);
    *out = a.event;
    return 1;
}

/* ---- requests ---- */

static void fds_drop(int *fds, unsigned fd_count)
{
    for (unsigned i = 0; i < fd_count; i++)
        fd_closep(&fds[i]);
}

/* Waits for the answer to request `r`; events before it are kept. */
static int reply_wait(struct hvclient *c, const struct hv_request *r, struct hv_reply *out, int *fds,
                      unsigned fds_wanted)
{
    for (;;) {
        union answer a;
        int got[UNIXSOCK_FDS_MAX];
        unsigned got_count = UNIXSOCK_FDS_MAX;
        int kind = message_read(c, &a, got, &got_count, 0);
        if (kind < 0)
            return kind;
        if (kind == 2 && a.event.op == HV_REFUSED)
            return give_up(c, -(int)a.event.value);
        if (kind == 2) {
            int kept = event_keep(c, &a.event);
            if (kept < 0)
                return give_up(c, kept);
            continue;
        }
        unsigned expected = a.reply.result == 0 ? fds_wanted : 0;
        bool fits = a.reply.op == r->op && a.reply.seq == r->seq && a.reply.result <= 0;
        if (!fits || got_count != expected) { /* fewer: our descriptor table is full, and what we own is lost */
            fds_drop(got, got_count);
            return give_up(c, fits && got_count < expected ? -EMFILE : -EPROTO);
        }
        for (unsigned i = 0; i < got_count; i++)
            fds[i] = got[i];
        *out = a.reply;
        return a.reply.result;
    }
}

static int explain(struct err *e, const struct hv_request *r, const struct hv_reply *reply, int code)
{
    const char *op = hv_op_name(r->op);
    switch (code) {
    case 0: return 0;
    case -EDQUOT: return err_set(e, code, "%s: this domain has its limit of %s", op, hv_limit_name(reply->limit));
    case -ENOENT: return err_set(e, code, "%s: there is no %u for us (domain %u)", op, r->value, r->domid);
    case -EACCES: return err_set(e, code, "%s: only domain 0, or the process that owns it, may", op);
    case -EBUSY: return err_set(e, code, "%s: port %u of domain %u is bound already", op, r->value, r->domid);
    case -EPIPE: return err_set(e, code, "%s: the hypervisor role is gone; reconnect", op);
    case -EPROTO: return err_set(e, code, "%s: the hypervisor role answered something else", op);
    default: return err_set(e, code, "%s: %s", op, strerror(-code));
    }
}

static int ask(struct hvclient *c, struct hv_request *r, size_t length_bytes, struct hv_reply *reply, int *fds,
               unsigned fds_wanted, struct err *e)
{
    r->seq = ++c->seq;
    *reply = (struct hv_reply){.limit = HV_LIMIT_NONE};
    int result = c->broken ? -EPIPE : unixsock_send(c->fd, r, length_bytes, NULL, 0, 0);
    if (result == 0 || (result == -EPIPE && !c->broken)) /* a refusal may wait where nobody listens any more */
        result = reply_wait(c, r, reply, fds, fds_wanted);
    return explain(e, r, reply, result);
}

static int ask_plain(struct hvclient *c, struct hv_request r, struct hv_reply *reply, int *fds, unsigned fds_wanted,
                     struct err *e)
{
    struct hv_reply unused;
    return ask(c, &r, sizeof(r), reply ? reply : &unused, fds, fds_wanted, e);
}

static int fd_watch(struct hvclient *c, int fd)
{
    struct epoll_event ev = {.events = EPOLLIN};
    return epoll_ctl(c->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

static int greet(struct hvclient *c, struct err *e)
{
    struct hv_reply reply;
    int r = ask_plain(c, (struct hv_request){.op = HV_HELLO, .value = HV_VERSION}, &reply, NULL, 0, e);
    c->hello = reply.body.hello;
    if (r == -EDQUOT)
        return err_set(e, r, "the domain has as many processes connected as it may");
    return r;
}

int hvclient_open(const char *path, struct hvclient **out, struct err *e)
{
    struct hvclient *c = malloc(sizeof(*c));
    if (!c)
        return err_set(e, -ENOMEM, "no memory");
    *c = (struct hvclient){.fd = -1, .kept_fd = -1, .epoll_fd = -1};
    list_init(&c->kept);
    c->fd = unixsock_connect(path, SOCK_SEQPACKET, e);
    if (c->fd < 0) {
        int failure = c->fd;
        hvclient_close(c);
        return failure; /* its sentence names the path */
    }
    c->kept_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    c->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int r = c->kept_fd < 0 || c->epoll_fd < 0 ? err_set(e, -errno, "no descriptors: %s", strerror(errno)) : 0;
    if (r == 0)
        r = fd_watch(c, c->fd);
    if (r == 0)
        r = fd_watch(c, c->kept_fd);
    if (r == 0)
        r = greet(c, e);
    if (r < 0) {
        hvclient_close(c);
        return err_prefix(e, r, "%s", path);
    }
    *out = c;
    return 0;
}

void hvclient_close(struct hvclient *c)
{
    if (!c)
        return;
    struct hv_event ignored;
    while (event_take(c, &ignored))
        ;
    fd_closep(&c->fd);
    fd_closep(&c->kept_fd);
    fd_closep(&c->epoll_fd);
    free(c);
}

int hvclient_fd(const struct hvclient *c)
{
    return c->epoll_fd;
}

uint16_t hvclient_domid(const struct hvclient *c)
{
    return c->hello.domid;
}

uint32_t hvclient_instance(const struct hvclient *c)
{
    return c->hello.instance;
}

/* ---- the requests ---- */

int hvclient_domain_create(struct hvclient *c, const char *name, uint16_t *domid, struct err *e)
{
    struct hv_request_create r = {.head = {.op = HV_DOMAIN_CREATE}};
    struct hv_reply reply;
    if (strlen(name) >= sizeof(r.name))
        return err_set(e, -EINVAL, "domain name %s is longer than %zu characters", name, sizeof(r.name) - 1);
    memcpy(r.name, name, strlen(name));
    r.head.seq = 0;
    if (hv_request_check(&r, sizeof(r)))
        return err_set(e, -EINVAL, "domain name '%s': letters, digits and _ . + - only", name);
    int result = ask(c, &r.head, sizeof(r), &reply, NULL, 0, e);
    *domid = (uint16_t)reply.body.domid;
    if (result == -EMFILE)
        return err_set(e, result, "the hypervisor role has no descriptors for another domain: raise RLIMIT_NOFILE");
    if (result == -EEXIST)
        return err_set(e, result, "there is a domain named %s already", name);
    return result;
}

int hvclient_domain_destroy(struct hvclient *c, uint16_t domid, struct err *e)
{
    return ask_plain(c, (struct hv_request){.op = HV_DOMAIN_DESTROY, .domid = domid}, NULL, NULL, 0, e);
}

int hvclient_domain_next(struct hvclient *c, uint16_t domid, struct hv_domain *out, struct err *e)
{
    struct hv_reply reply;
    int r = ask_plain(c, (struct hv_request){.op = HV_DOMAIN_NEXT, .domid = domid}, &reply, NULL, 0, e);
    *out = reply.body.domain;
    out->name[HV_NAME_BYTES - 1] = '\0';
    return r;
}

int hvclient_domain_watch(struct hvclient *c, struct err *e)
{
    return ask_plain(c, (struct hv_request){.op = HV_DOMAIN_WATCH}, NULL, NULL, 0, e);
}

static int ask_extent(struct hvclient *c, struct hv_request r, struct hv_extent *out, int *fd, struct err *e)
{
    struct hv_reply reply;
    int result = ask_plain(c, r, &reply, fd, 1, e);
    *out = reply.body.extent;
    return result;
}

int hvclient_extent_alloc(struct hvclient *c, uint16_t grantee, uint32_t frame_count, bool readonly,
                          struct hv_extent *out, int *fd, struct err *e)
{
    struct hv_request r = {.op = HV_EXTENT_ALLOC, .domid = grantee, .flag = readonly, .value = frame_count};
    return ask_extent(c, r, out, fd, e);
}

int hvclient_extent_seal(struct hvclient *c, uint32_t id, int fd, struct err *e)
{
    (void)fcntl(fd, F_ADD_SEALS, HV_SEALS_READONLY); /* where it fails the hypervisor role says so */
    return ask_plain(c, (struct hv_request){.op = HV_EXTENT_SEAL, .value = id}, NULL, NULL, 0, e);
}

int hvclient_extent_free(struct hvclient *c, uint32_t id, struct err *e)
{
    return ask_plain(c, (struct hv_request){.op = HV_EXTENT_FREE, .value = id}, NULL, NULL, 0, e);
}

int hvclient_extent_map(struct hvclient *c, uint16_t owner, uint32_t gfn, struct hv_extent *out, int *fd, struct err *e)
{
    return ask_extent(c, (struct hv_request){.op = HV_EXTENT_MAP, .domid = owner, .value = gfn}, out, fd, e);
}

int hvclient_extent_put(struct hvclient *c, uint16_t owner, uint32_t id, struct err *e)
{
    return ask_plain(c, (struct hv_request){.op = HV_EXTENT_PUT, .domid = owner, .value = id}, NULL, NULL, 0, e);
}

int hvclient_grant_frame_new(struct hvclient *c, uint16_t grantee, struct hv_extent *out, int *fd, struct err *e)
{
    return ask_extent(c, (struct hv_request){.op = HV_GRANT_FRAME_NEW, .domid = grantee}, out, fd, e);
}

int hvclient_grant_frame_map(struct hvclient *c, uint16_t owner, uint32_t index, struct hv_extent *out, int *fd,
                             struct err *e)
{
    return ask_extent(c, (struct hv_request){.op = HV_GRANT_FRAME_MAP, .domid = owner, .value = index}, out, fd, e);
}

int hvclient_grant_frame_put(struct hvclient *c, uint16_t owner, uint32_t index, struct err *e)
{
    struct hv_request r = {.op = HV_GRANT_FRAME_PUT, .domid = owner, .value = index};
    return ask_plain(c, r, NULL, NULL, 0, e);
}

static int ask_port(struct hvclient *c, struct hv_request r, struct hv_port *out, int *fds, struct err *e)
{
    struct hv_reply reply;
    int result = ask_plain(c, r, &reply, fds, fds ? 2 : 0, e);
    *out = reply.body.port;
    return result;
}

int hvclient_port_alloc(struct hvclient *c, uint16_t remote, struct hv_port *out, int fds[2], struct err *e)
{
    return ask_port(c, (struct hv_request){.op = HV_PORT_ALLOC, .domid = remote}, out, fds, e);
}

int hvclient_port_bind(struct hvclient *c, uint16_t remote, uint32_t remote_port, struct hv_port *out, int fds[2],
                       struct err *e)
{
    return ask_port(c, (struct hv_request){.op = HV_PORT_BIND, .domid = remote, .value = remote_port}, out, fds, e);
}

int hvclient_port_close(struct hvclient *c, uint32_t port, struct err *e)
{
    return ask_plain(c, (struct hv_request){.op = HV_PORT_CLOSE, .value = port}, NULL, NULL, 0, e);
}

int hvclient_port_status(struct hvclient *c, uint32_t port, struct hv_port *out, struct err *e)
{
    return ask_port(c, (struct hv_request){.op = HV_PORT_STATUS, .value = port}, out, NULL, e);
}
