/* SPDX-License-Identifier: MIT */
/* bench/store_ring.h: a guest's end of its store's ring page, in each of the two worlds that are measured.
 *
 * Of domzero the guest is a domain of its own, with a page and an event channel of the hypervisor role. Of the
 * references it is what tests/peers/xenshim.c says: a file and two FIFOs in the store's directory. What is done for a
 * request is the same: a notification each way, and one look at what woke us. As Linux does, the store is not told that
 * its answers were read unless the queue had been full.
 */
#ifndef BENCH_STORE_RING_H
#define BENCH_STORE_RING_H

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "bench/store_client.h"
#include "platform/platform.h"

#define SHIM_PORT_GUEST 1000u /* XENSHIM_PORT_GUEST */

struct store_ring_end {
    struct store_conn_client client; /* first: what the load knows */
    struct xenstore_domain_interface *page;
    struct platform *platform; /* of the guest; NULL: the references' world */
    struct evtchn channel;
    int port_fd;
    uint32_t port;
    uint16_t domid;
};

/* Who introduces the guests. */
struct store_host {
    const char *dir;
    struct platform *platform; /* of domain 0; NULL: the references' world */
    struct store_conn_client *store;
    int port_fd;
};

static inline uint32_t ring_index(const XENSTORE_RING_IDX *index)
{
    return __atomic_load_n(index, __ATOMIC_SEQ_CST);
}

static inline void ring_publish(XENSTORE_RING_IDX *index, uint32_t value)
{
    __atomic_store_n(index, value, __ATOMIC_SEQ_CST);
}

static inline void ring_notify(struct store_ring_end *r)
{
    ssize_t n = 0;
    if (r->platform)
        evtchn_notify(&r->channel);
    else
        n = write(r->port_fd, &r->port, sizeof(r->port));
    (void)n; /* a full FIFO wakes the store anyway */
}

static inline void ring_consume(struct store_ring_end *r)
{
    char kicks[64];
    ssize_t n = 0;
    if (r->platform)
        evtchn_consume(&r->channel);
    else
        n = read(r->client.fd, kicks, sizeof(kicks));
    (void)n;
}

/* A request, for which there is room: a load has one of them under way. */
static inline bool ring_send(struct store_conn_client *c, struct store_request *request)
{
    struct store_ring_end *r = container_of(c, struct store_ring_end, client);
    const char *bytes = request->bytes;
    size_t length = request->length;
    uint32_t prod = r->page->req_prod;
    store_end(request);
    if (length > XENSTORE_RING_SIZE - (prod - ring_index(&r->page->req_cons)))
        return false;
    uint32_t at = MASK_XENSTORE_IDX(prod);
    size_t first = MIN(length, XENSTORE_RING_SIZE - at);
    memcpy(r->page->req + at, bytes, first);
    memcpy(r->page->req, bytes + first, length - first);
    ring_publish(&r->page->req_prod, prod + (uint32_t)length);
    ring_notify(r);
    return true;
}

/* What has come, as far as there is room; nothing is all right. */
static inline bool ring_receive(struct store_conn_client *c)
{
    struct store_ring_end *r = container_of(c, struct store_ring_end, client);
    store_compact(c);
    ring_consume(r);
    for (;;) {
        uint32_t cons = r->page->rsp_cons, there = ring_index(&r->page->rsp_prod) - cons, at = MASK_XENSTORE_IDX(cons);
        size_t n = MIN(MIN(there, XENSTORE_RING_SIZE - at), sizeof(c->in) - c->have);
        if (!n)
            return ring_index(&r->page->error) == XENSTORE_ERROR_NONE;
        memcpy(c->in + c->have, r->page->rsp + at, n);
        c->have += n;
        ring_publish(&r->page->rsp_cons, cons + (uint32_t)n);
        if (there == XENSTORE_RING_SIZE)
            ring_notify(r);
    }
}

/* Until something may have come; not longer than 10 s. */
static inline bool ring_wait(struct store_conn_client *c)
{
    struct pollfd p = {.fd = c->fd, .events = POLLIN};
    return poll(&p, 1, 10000) == 1;
}

/* ---- the two worlds ---- */

static inline bool host_open(struct store_host *h, const char *socket, const char *dir)
{
    char path[512];
    struct err e = {0};
    *h = (struct store_host){.dir = dir, .port_fd = -1, .store = store_connect(socket)};
    if (!h->store)
        return false;
    snprintf(path, sizeof(path), "%s/port", dir);
    h->port_fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (h->port_fd >= 0)
        return true;
    const struct platform_where where = {.run_dir = dir};
    if (platform_open(NULL, &where, NULL, &h->platform, &e) == 0)
        return true;
    fprintf(stderr, "%s\n", e.text);
    return false;
}

static inline void host_close(struct store_host *h)
{
    store_disconnect(h->store);
    if (h->platform)
        platform_close(h->platform);
    fd_closep(&h->port_fd);
}

/* RELEASE where there is no port to introduce. */
static inline bool host_tell(struct store_host *h, uint16_t domid, uint64_t gfn, uint32_t port)
{
    struct store_request r;
    struct store_answer a;
    store_begin(&r, port ? XS_INTRODUCE : XS_RELEASE, 0);
    store_number(&r, domid);
    store_nul(&r);
    if (port) {
        store_number(&r, gfn);
        store_nul(&r);
        store_number(&r, port);
        store_nul(&r);
    }
    if (!store_send(h->store, &r))
        return false;
    while (!store_take(h->store, &a))
        if (!store_receive(h->store))
            return false;
    if (a.header.type == XS_ERROR)
        fprintf(stderr, "domain %u: the store answered %.*s\n", domid, (int)a.header.len, a.payload);
    return a.header.type != XS_ERROR;
}

static inline int guest_give(struct store_ring_end *r, const char *domain_dir, struct platform_extent *x, struct err *e)
{
    const struct platform_where where = {.domain_dir = domain_dir};
    int status = platform_open(NULL, &where, NULL, &r->platform, e);
    if (!status)
        status = platform_extent_alloc(r->platform, 0, 1, false, x, e);
    if (!status)
        status =
            gnttab_grant_reserved(platform_gnttab(r->platform), GNTTAB_RESERVED_XENSTORE, 0, x->base_gfn, false, e);
    return status ? status : platform_evtchn_alloc_unbound(r->platform, 0, &r->channel, e);
}

static inline bool guest_open_ours(struct store_host *h, struct store_ring_end *r, unsigned index)
{
    char name[32], dir[512];
    struct err e = {0};
    struct platform_extent x;
    snprintf(name, sizeof(name), "bench%d.%u", getpid(), index);
    if (platform_domain_create(h->platform, name, &r->domid, dir, sizeof(dir), &e) || guest_give(r, dir, &x, &e)) {
        fprintf(stderr, "%s\n", e.text);
        return false;
    }
    r->page = (struct xenstore_domain_interface *)x.address;
    r->client.fd = r->channel.wait_fd;
    return host_tell(h, r->domid, x.base_gfn, r->channel.port);
}

static inline bool guest_open_theirs(struct store_host *h, struct store_ring_end *r, unsigned index)
{
    char path[512];
    r->domid = (uint16_t)(index + 1);
    r->port = SHIM_PORT_GUEST + r->domid;
    r->port_fd = h->port_fd;
    snprintf(path, sizeof(path), "%s/ring.%u", h->dir, r->domid);
    _cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, PAGE_BYTES))
        return false;
    r->page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    snprintf(path, sizeof(path), "%s/kick.%u", h->dir, r->domid);
    if (r->page == MAP_FAILED || (mkfifo(path, 0600) && errno != EEXIST))
        return false;
    r->client.fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    return r->client.fd >= 0 && host_tell(h, r->domid, 1, 1);
}

/* A domain with a ring that the store serves; NULL: what is wrong was printed. */
static inline struct store_conn_client *guest_open(struct store_host *h, unsigned index)
{
    struct store_ring_end *r = calloc(1, sizeof(*r));
    assert(r);
    r->client.ring = true;
    r->client.fd = -1;
    if (h->platform ? guest_open_ours(h, r, index) : guest_open_theirs(h, r, index))
        return &r->client;
    fprintf(stderr, "domain %u has no ring\n", index);
    return NULL;
}

static inline void guest_close(struct store_host *h, struct store_conn_client *c)
{
    struct store_ring_end *r = container_of(c, struct store_ring_end, client);
    struct err e;
    host_tell(h, r->domid, 0, 0);
    if (r->platform) {
        platform_close(r->platform);
        platform_domain_destroy(h->platform, r->domid, &e);
    } else {
        munmap(r->page, PAGE_BYTES);
        close(c->fd);
    }
    free(r);
}

#endif
