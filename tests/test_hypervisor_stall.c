/* SPDX-License-Identifier: MIT */
/* A guest that wants the hypervisor role to wait: for a lock that it holds, for a descriptor that it passed, for the
 * end of its own flood. The neighbour's questions must be answered all the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <pthread.h>

#include "hypervisor/domain.h"
#include "tests/hvkit.h"
#include "tests/trap_page.h"

#define PATIENCE_MS 10000

/* A question on a connection of its own: whether the answer comes at all. */
static bool served(struct fixture *f, int fd)
{
    (void)f;
    struct hv_request r = {.op = HV_PORT_STATUS, .value = 1};
    struct hv_reply reply;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return unixsock_send(fd, &r, sizeof(r), NULL, 0, 0) == 0 && poll(&p, 1, PATIENCE_MS) == 1 &&
           unixsock_recv(fd, &reply, sizeof(reply), NULL, NULL, 0) == sizeof(reply);
}

struct stuck {
    int fd;
    void *page;
};

static void *stuck_writer(void *arg)
{
    const struct stuck *s = arg;
    return write(s->fd, s->page, 8) == 8 ? arg : NULL;
}

/* Takes the lock of its own memory's inode, for good, and then asks the role to seal it: 1. 0: not possible here. */
static uint64_t guest_seals_locked_memory(struct fixture *f, uint64_t domid)
{
    static struct stuck s;
    struct hv_request r = {.op = HV_EXTENT_ALLOC, .value = 1, .flag = 1};
    struct hv_reply reply;
    unsigned fd_count = 1;
    pthread_t thread;
    int connection = raw_connect(f, (uint16_t)domid, true), trap = trap_page(&s.page);
    if (trap < 0)
        return 0;
    if (unixsock_send(connection, &r, sizeof(r), NULL, 0, 0) ||
        unixsock_recv(connection, &reply, sizeof(reply), &s.fd, &fd_count, 0) < 0 || fd_count != 1)
        return 2;
    pthread_create(&thread, NULL, stuck_writer, &s);
    struct pollfd faulted = {.fd = trap, .events = POLLIN};
    poll(&faulted, 1, -1); /* the writer holds the lock now */
    r = (struct hv_request){.op = HV_EXTENT_SEAL, .value = reply.body.extent.id};
    return unixsock_send(connection, &r, sizeof(r), NULL, 0, 0) ? 3 : 1;
}

static void test_a_guest_that_locks_its_memory_stops_nobody(void **state)
{
    struct fixture *f = *state;
    uint16_t a = domain(f, "a"), b = domain(f, "b");
    int neighbour = raw_connect(f, b, true);
    struct guest g = guest_start(f, guest_seals_locked_memory, a);
    if (g.result == 0)
        print_message("    userfaultfd is not allowed here\n");
    bool alive = served(f, neighbour);
    guest_kill(g);
    assert_true(g.result <= 1);
    assert_true(alive);
    close(neighbour);
}

/* ---- a flood: in steps that this process makes, so that who is ready when is no accident ---- */

#define FLOOD_DOMAINS   4
#define FLOOD_PROCESSES 16 /* of a domain: its limit */
#define FLOOD_AHEAD     8  /* questions that always wait, of each */
#define VICTIM          20 /* which of the connections: neither among the first nor the last of a round */
#define STEPS_MAX       1000

struct flooded {
    struct hypervisor *server;
    struct fixture f; /* only for its run directory */
    int fd[FLOOD_DOMAINS * FLOOD_PROCESSES];
};

/* A connection, greeted, by a server that is stepped here. */
static int stepped_connect(struct flooded *x, uint16_t domid)
{
    char path[128];
    struct hv_request r = {.op = HV_HELLO, .value = HV_VERSION};
    struct hv_reply reply;
    int fd = unixsock_connect(hvworld_socket(&x->f.w, domid, path), SOCK_SEQPACKET, NULL);
    assert_true(fd >= 0);
    assert_int_equal(unixsock_send(fd, &r, sizeof(r), NULL, 0, 0), 0);
    while (unixsock_recv(fd, &reply, sizeof(reply), NULL, NULL, MSG_DONTWAIT) == -EAGAIN)
        assert_true(hypervisor_step(x->server, 64) >= 0);
    return fd;
}

static void flooded_open(struct flooded *x)
{
    uint16_t domid = 0;
    strcpy(x->f.w.run_dir, "/tmp/hvworld.XXXXXX");
    assert_non_null(mkdtemp(x->f.w.run_dir));
    assert_int_equal(hypervisor_new(x->f.w.run_dir, &x->server, NULL), 0);
    for (unsigned i = 0; i < ARRAY_SIZE(x->fd); i++) {
        if (i % FLOOD_PROCESSES == 0) {
            char name[] = {(char)('a' + i / FLOOD_PROCESSES), 0};
            struct domain *d;
            assert_int_equal(domain_create(x->server, name, x->server->domains[0]->source.fn, &d, NULL), 0);
            domid = d->domid;
        }
        x->fd[i] = stepped_connect(x, domid);
    }
}

static void question(int fd, uint32_t seq)
{
    struct hv_request r = {.op = HV_PORT_STATUS, .value = 1, .seq = seq};
    assert_int_equal(unixsock_send(fd, &r, sizeof(r), NULL, 0, 0), 0);
}

/* Takes the answers; each but the victim's is followed by a new question. True: one was the victim's. */
static bool answers(struct flooded *x)
{
    struct hv_reply reply;
    bool victims = false;
    for (unsigned i = 0; i < ARRAY_SIZE(x->fd); i++)
        while (unixsock_recv(x->fd[i], &reply, sizeof(reply), NULL, NULL, MSG_DONTWAIT) > 0) {
            if (i == VICTIM)
                victims = true;
            else
                question(x->fd[i], 1);
        }
    return victims;
}

static void test_a_flood_starves_nobody(void **state)
{
    (void)state;
    static struct flooded x;
    flooded_open(&x);
    for (unsigned i = 0; i < ARRAY_SIZE(x.fd); i++)
        for (unsigned n = 0; n < (i == VICTIM ? 1 : FLOOD_AHEAD); n++)
            question(x.fd[i], 1);
    unsigned steps = 0;
    for (; steps < STEPS_MAX && !answers(&x); steps++)
        assert_true(hypervisor_step(x.server, 64) >= 0);
    assert_true(steps < STEPS_MAX);
    for (unsigned i = 0; i < ARRAY_SIZE(x.fd); i++)
        close(x.fd[i]);
    hypervisor_free(x.server);
    assert_int_equal(rmdir(x.f.w.run_dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_a_guest_that_locks_its_memory_stops_nobody),
        cmocka_unit_test(test_a_flood_starves_nobody),
    };
    return cmocka_run_group_tests_name("hypervisor: stall", tests, NULL, NULL);
}
