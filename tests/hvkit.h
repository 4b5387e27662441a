/* SPDX-License-Identifier: MIT */
/* tests/hvkit.h: what the tests of the hypervisor role share: a world with domain 0 connected, domains, connections,
 * and guests that are processes of their own and are killed. */
#ifndef TESTS_HVKIT_H
#define TESTS_HVKIT_H

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/unixsock.h"
#include "hypervisor/client.h"
#include "hypervisor/world.h"
#include "ring/evtchn.h"
#include "tests/hvworld.h"

struct fixture {
    struct hvworld w;
    struct hvclient *dom0;
    unsigned idle_fds; /* of the server, with dom0 connected and no domain */
};

static inline void start_with(struct fixture *f, void (*prepare)(struct hypervisor *h))
{
    char path[128];
    hvworld_start(&f->w, prepare);
    assert_int_equal(hvclient_open(hvworld_socket(&f->w, 0, path), &f->dom0, NULL), 0);
    f->idle_fds = hvworld_fd_count(&f->w);
}

static inline int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    start_with(f, NULL);
    *state = f;
    return 0;
}

static inline int teardown(void **state)
{
    struct fixture *f = *state;
    hvclient_close(f->dom0);
    hvworld_stop(&f->w);
    free(f);
    return 0;
}

static inline uint16_t domain(struct fixture *f, const char *name)
{
    uint16_t domid = 0;
    struct err e = {""};
    if (hvclient_domain_create(f->dom0, name, &domid, &e) < 0)
        fail_msg("%s", e.text);
    return domid;
}

static inline struct hvclient *connect_to(struct fixture *f, unsigned domid)
{
    char path[128];
    struct hvclient *c = NULL;
    struct err e = {""};
    if (hvclient_open(hvworld_socket(&f->w, domid, path), &c, &e) < 0)
        fail_msg("%s", e.text);
    return c;
}

static inline struct hv_domain info(struct fixture *f, uint16_t domid)
{
    struct hv_domain d;
    assert_int_equal(hvclient_domain_next(f->dom0, domid, &d, NULL), 0);
    return d;
}

static inline void assert_holds_nothing(struct fixture *f, uint16_t domid)
{
    struct hv_domain d = info(f, domid);
    assert_int_equal(d.domid, domid);
    assert_int_equal(d.instances + d.extents + d.frames + d.grant_frames + d.ports + d.held_extents, 0);
}

/* The server finds out about a closed connection when it is next served. */
#define eventually(condition)                                         \
    do {                                                              \
        for (int tries_ = 0; !(condition) && tries_ < 5000; tries_++) \
            usleep(1000);                                             \
        assert_true(condition);                                       \
    } while (0)

/* Waits for the next event. */
static inline struct hv_event next_event(struct hvclient *c)
{
    struct hv_event event = {0};
    struct pollfd p = {.fd = hvclient_fd(c), .events = POLLIN};
    assert_int_equal(poll(&p, 1, 10000), 1);
    assert_int_equal(hvclient_event(c, &event), 1);
    return event;
}

static inline void assert_no_event(struct hvclient *c)
{
    struct hv_event event;
    assert_int_equal(hvclient_event(c, &event), 0);
}

static inline struct evtchn channel_end(const struct hv_port *p, const int fds[2])
{
    struct evtchn ch;
    evtchn_init(&ch, p->port, fds[0], fds[1]);
    return ch;
}

/* A process that runs fn(f, word) and then waits to be killed. What fn returns arrives here. */
struct guest {
    pid_t pid;
    uint64_t result;
};

static inline struct guest guest_start(struct fixture *f, uint64_t (*fn)(struct fixture *f, uint64_t word),
                                       uint64_t word)
{
    int report[2];
    struct guest g;
    assert_int_equal(pipe(report), 0);
    fflush(NULL);
    g.pid = fork();
    assert_true(g.pid >= 0);
    if (g.pid == 0) {
        dup2(report[1], 3); /* nothing else of ours: a connection lives as long as any copy of its descriptor */
        report[1] = 3;
        close_range(4, ~0u, 0);
        uint64_t result = fn(f, word);
        if (write(report[1], &result, sizeof(result)) != sizeof(result))
            _exit(1);
        for (;;)
            pause();
    }
    close(report[1]);
    assert_int_equal(read(report[0], &g.result, sizeof(g.result)), sizeof(g.result));
    close(report[0]);
    return g;
}

static inline void guest_kill(struct guest g)
{
    assert_int_equal(kill(g.pid, SIGKILL), 0);
    assert_int_equal(waitpid(g.pid, NULL, 0), g.pid);
}

static inline int raw_connect(struct fixture *f, uint16_t domid, bool greet)
{
    char path[128];
    int fd = unixsock_connect(hvworld_socket(&f->w, domid, path), SOCK_SEQPACKET, NULL);
    assert_true(fd >= 0);
    if (greet) {
        struct hv_request r = {.op = HV_HELLO, .value = HV_VERSION};
        struct hv_reply reply;
        assert_int_equal(unixsock_send(fd, &r, sizeof(r), NULL, 0, 0), 0);
        assert_int_equal(unixsock_recv(fd, &reply, sizeof(reply), NULL, NULL, 0), sizeof(reply));
        assert_int_equal(reply.result, 0);
    }
    return fd;
}

static inline void assert_is_cut_off(int fd)
{
    char buffer[256];
    struct pollfd p = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 10000), 1);
    ssize_t n = unixsock_recv(fd, buffer, sizeof(buffer), NULL, NULL, 0);
    assert_true(n == 0 || n == -ECONNRESET);
    close(fd);
}

static inline uint32_t random_next(uint32_t *seed)
{
    return *seed = *seed * 1664525 + 1013904223;
}

#define WORLD_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

#endif
