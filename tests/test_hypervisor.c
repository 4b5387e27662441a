/* SPDX-License-Identifier: MIT */
/* The hypervisor role, met through its socket by real processes: what is whose, who may have it, what it costs, and
 * what is left when somebody dies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
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

static void start_with(struct fixture *f, void (*prepare)(struct hypervisor *h))
{
    char path[128];
    hvworld_start(&f->w, prepare);
    assert_int_equal(hvclient_open(hvworld_socket(&f->w, 0, path), &f->dom0, NULL), 0);
    f->idle_fds = hvworld_fd_count(&f->w);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    start_with(f, NULL);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    hvclient_close(f->dom0);
    hvworld_stop(&f->w);
    free(f);
    return 0;
}

static uint16_t domain(struct fixture *f, const char *name)
{
    uint16_t domid = 0;
    struct err e = {""};
    if (hvclient_domain_create(f->dom0, name, &domid, &e) < 0)
        fail_msg("%s", e.text);
    return domid;
}

static struct hvclient *connect_to(struct fixture *f, unsigned domid)
{
    char path[128];
    struct hvclient *c = NULL;
    struct err e = {""};
    if (hvclient_open(hvworld_socket(&f->w, domid, path), &c, &e) < 0)
        fail_msg("%s", e.text);
    return c;
}

static struct hv_domain info(struct fixture *f, uint16_t domid)
{
    struct hv_domain d;
    assert_int_equal(hvclient_domain_next(f->dom0, domid, &d, NULL), 0);
    return d;
}

static void assert_holds_nothing(struct fixture *f, uint16_t domid)
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
static struct hv_event next_event(struct hvclient *c)
{
    struct hv_event event = {0};
    struct pollfd p = {.fd = hvclient_fd(c), .events = POLLIN};
    assert_int_equal(poll(&p, 1, 10000), 1);
    assert_int_equal(hvclient_event(c, &event), 1);
    return event;
}

static void assert_no_event(struct hvclient *c)
{
    struct hv_event event;
    assert_int_equal(hvclient_event(c, &event), 0);
}

static struct evtchn channel_end(const struct hv_port *p, const int fds[2])
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

static struct guest guest_start(struct fixture *f, uint64_t (*fn)(struct fixture *f, uint64_t word), uint64_t word)
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

static void guest_kill(struct guest g)
{
    assert_int_equal(kill(g.pid, SIGKILL), 0);
    assert_int_equal(waitpid(g.pid, NULL, 0), g.pid);
}

/* ---- memory ---- */

static void test_an_extent_is_the_same_memory_for_owner_and_grantee(void **state)
{
    struct fixture *f = *state;
    uint16_t a = domain(f, "a");
    struct hvclient *guest = connect_to(f, a);
    assert_int_equal(hvclient_domid(guest), a);
    struct hv_extent mine, theirs;
    int fd, fd0;
    assert_int_equal(hvclient_extent_alloc(guest, 0, 4, false, &mine, &fd, NULL), 0);
    assert_int_equal(hvclient_extent_map(f->dom0, a, mine.base_gfn + 3, &theirs, &fd0, NULL), 0);
    assert_memory_equal(&mine, &theirs, sizeof(mine));
    assert_int_equal(mine.instance, hvclient_instance(guest));
    char *p = mmap(NULL, 4 * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    char *q = mmap(NULL, 4 * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd0, 0);
    assert_true(p != MAP_FAILED && q != MAP_FAILED);
    strcpy(p + PAGE_BYTES, "hello");
    assert_string_equal(q + PAGE_BYTES, "hello");
    munmap(p, 4 * PAGE_BYTES);
    munmap(q, 4 * PAGE_BYTES);
    close(fd);
    close(fd0);
    struct hv_domain d = info(f, a);
    assert_int_equal(d.instances, 1);
    assert_int_equal(d.extents, 1);
    assert_int_equal(d.frames, 4);
    assert_int_equal(d.held_extents, 1);
    hvclient_close(guest);
}

static void test_frames_and_ids_never_come_again(void **state)
{
    struct fixture *f = *state;
    struct hvclient *guest = connect_to(f, domain(f, "a"));
    uint32_t last_id = 0, next_gfn = 1;
    for (int i = 0; i < 50; i++) {
        struct hv_extent x;
        int fd;
        assert_int_equal(hvclient_extent_alloc(guest, 0, 3, false, &x, &fd, NULL), 0);
        close(fd);
        assert_true(x.id > last_id && x.base_gfn >= next_gfn);
        last_id = x.id;
        next_gfn = x.base_gfn + 3;
        assert_int_equal(hvclient_extent_free(guest, x.id, NULL), 0);
    }
    hvclient_close(guest);
}

static void assert_cannot_resize(int fd, off_t size)
{
    assert_int_equal(ftruncate(fd, 0), -1);
    assert_int_equal(ftruncate(fd, size * 2), -1);
    assert_int_equal(fallocate(fd, 0, size, PAGE_BYTES), -1);
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_size, size);
}

static int reopen(int fd, int flags)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return open(path, flags | O_CLOEXEC);
}

static void test_a_sealed_extent_cannot_be_resized_by_either_side(void **state)
{
    struct fixture *f = *state;
    uint16_t a = domain(f, "a");
    struct hvclient *guest = connect_to(f, a);
    struct hv_extent x;
    int fds[4];
    assert_int_equal(hvclient_extent_alloc(guest, 0, 2, false, &x, &fds[0], NULL), 0);
    assert_int_equal(hvclient_extent_map(f->dom0, a, x.base_gfn, &x, &fds[1], NULL), 0);
    assert_int_equal(hvclient_grant_frame_new(guest, 0, &x, &fds[2], NULL), 0);
    assert_true((fds[3] = reopen(fds[0], O_RDWR)) >= 0);
    for (int i = 0; i < 4; i++) {
        assert_cannot_resize(fds[i], i == 2 ? PAGE_BYTES : 2 * PAGE_BYTES);
        assert_int_equal(fcntl(fds[i], F_ADD_SEALS, F_SEAL_FUTURE_WRITE), -1);
        close(fds[i]);
    }
    hvclient_close(guest);
}

/* XSA-142, XSA-266: read-only is enforced below the backend, whatever it tries. */
static void test_lesson_266_readonly_holds_against_mmap_mprotect_proc_and_holes(void **state)
{
    struct fixture *f = *state;
    uint16_t a = domain(f, "a");
    struct hvclient *guest = connect_to(f, a);
    struct hv_extent x, y;
    int fd, fd0;
    assert_int_equal(hvclient_extent_alloc(guest, 0, 1, true, &x, &fd, NULL), 0);
    char *own = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(own != MAP_FAILED);
    assert_int_equal(hvclient_extent_map(f->dom0, a, x.base_gfn, &y, &fd0, NULL), -ENOENT); /* not sealed yet */
    assert_int_equal(hvclient_extent_seal(guest, x.id, NULL), 0);
    assert_int_equal(hvclient_extent_map(f->dom0, a, x.base_gfn, &y, &fd0, NULL), 0);
    assert_int_equal(y.readonly, 1);
    int again = reopen(fd0, O_RDWR);
    int tries[] = {fd0, again, fd};
    for (int i = 0; i < 3; i++) {
        if (tries[i] < 0)
            continue;
        assert_ptr_equal(mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, tries[i], 0), MAP_FAILED);
        assert_int_equal(pwrite(tries[i], "x", 1, 0), -1);
        assert_int_equal(fallocate(tries[i], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE_BYTES), -1);
    }
    char *q = mmap(NULL, PAGE_BYTES, PROT_READ, MAP_SHARED, fd0, 0);
    assert_true(q != MAP_FAILED);
    assert_int_equal(mprotect(q, PAGE_BYTES, PROT_READ | PROT_WRITE), -1);
    strcpy(own, "still mine to write");
    assert_string_equal(q, "still mine to write");
    munmap(q, PAGE_BYTES);
    munmap(own, PAGE_BYTES);
    close(fd);
    close(fd0);
    close(again);
    hvclient_close(guest);
}

static void test_an_owner_that_seals_behind_our_back_shares_with_nobody(void **state)
{
    struct fixture *f = *state;
    uint16_t a = domain(f, "a");
    struct hvclient *guest = connect_to(f, a);
    struct hv_extent x, y;
    int fd, fd0;
    assert_int_equal(hvclient_extent_alloc(guest, 0, 1, true, &x, &fd, NULL), 0);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL), 0);
    assert_int_equal(hvclient_extent_seal(guest, x.id, NULL), -EPERM);
    assert_int_equal(hvclient_extent_map(f->dom0, a, x.base_gfn, &y, &fd0, NULL), -ENOENT);
    close(fd);
    hvclient_close(guest);
}

static void test_a_freed_extent_is_charged_until_its_holder_puts_it(void **state)
{
    struct fixture *f = *state;
    uint16_t a = domain(f, "a");
    struct hvclient *guest = connect_to(f, a), *backend = connect_to(f, 0);
    struct hv_extent x, y;
    int fd, fd0;
    assert_int_equal(hvclient_extent_alloc(guest, 0, 5, false, &x, &fd, NULL), 0);
    assert_int_equal(hvclient_extent_map(backend, a, x.base_gfn, &y, &fd0, NULL), 0);
    close(fd);
    close(fd0);
    assert_int_equal(hvclient_extent_free(guest, x.id, NULL), 0);
    struct hv_event event = next_event(backend);
    assert_int_equal(event.op, HV_EXTENT_REVOKED);
    assert_int_equal(event.domid, a);
    assert_int_equal(event.value, x.id);
    assert_int_equal(info(f, a).frames, 5);
    assert_int_equal(info(f, a).held_extents, 1);
    /* it is gone for everybody else, and for its owner */
    assert_int_equal(hvclient_extent_map(f->dom0, a, x.base_gfn, &y, &fd0, NULL), -ENOENT);
    assert_int_equal(hvclient_extent_map(backend, a, x.base_gfn, &y, &fd0, NULL), -ENOENT);
    assert_int_equal(hvclient_extent_free(guest, x.id, NULL), -ENOENT);
    assert_int_equal(hvclient_extent_put(backend, a, x.id, NULL), 0);
    assert_int_equal(info(f, a).frames, 0);
    assert_int_equal(hvclient_extent_put(backend, a, x.id, NULL), -ENOENT); /* XSA-484: twice is harmless */
    hvclient_close(backend);
    hvclient_close(guest);
}

static void test_two_holders_are_counted_and_one_that_dies_lets_go(void **state)
{
    struct fixture *f = *state;
    uint16_t a = domain(f, "a");
    struct hvclient *guest = connect_to(f, a), *one = connect_to(f, 0), *two = connect_to(f, 0);
    struct hv_extent x, y;
    int fd;
    assert_int_equal(hvclient_extent_alloc(guest, 0, 5, false, &x, &fd, NULL), 0);
    close(fd);
    struct hvclient *holders[] = {one, two, two}; /* mapped twice by one is held once */
    for (int i = 0; i < 3; i++) {
        assert_int_equal(hvclient_extent_map(holders[i], a, x.base_gfn, &y, &fd, NULL), 0);
        close(fd);
    }
    hvclient_close(guest);
    assert_int_equal(next_event(one).op, HV_INSTANCE_GONE);
    assert_int_equal(next_event(two).op, HV_INSTANCE_GONE);
    assert_int_equal(hvclient_extent_put(one, a, x.id, NULL), 0);
    assert_int_equal(info(f, a).held_extents, 1);
    hvclient_close(two);
    hvclient_close(one);
    eventually(info(f, 0).instances == 1);
    assert_holds_nothing(f, a);
}

/* ---- isolation ---- */

static void refuse_all(struct fixture *f, struct hvclient *c, uint16_t owner, const struct hv_extent *x,
                       const struct hv_extent *frame, uint32_t port)
{
    struct hv_extent out;
    struct hv_port p;
    struct hv_domain d;
    int fds[2];
    uint16_t domid;
    assert_int_equal(hvclient_extent_map(c, owner, x->base_gfn, &out, fds, NULL), -ENOENT);
    assert_int_equal(hvclient_extent_put(c, owner, x->id, NULL), -ENOENT);
    assert_int_equal(hvclient_extent_free(c, x->id, NULL), -ENOENT);
    assert_int_equal(hvclient_extent_seal(c, x->id, NULL), -ENOENT);
    assert_int_equal(hvclient_grant_frame_map(c, owner, frame->id, &out, fds, NULL), -ENOENT);
    assert_int_equal(hvclient_grant_frame_put(c, owner, frame->id, NULL), -ENOENT);
    assert_int_equal(hvclient_port_bind(c, owner, port, &p, fds, NULL), -ENOENT);
    assert_int_equal(hvclient_port_close(c, port, NULL), -ENOENT);
    assert_int_equal(hvclient_port_status(c, port, &p, NULL), 0);
    assert_int_equal(p.status, HV_PORT_CLOSED);
    assert_int_equal(hvclient_domain_create(c, "mine", &domid, NULL), -EACCES);
    assert_int_equal(hvclient_domain_destroy(c, owner, NULL), -EACCES);
    assert_int_equal(hvclient_domain_next(c, 0, &d, NULL), -EACCES);
    assert_int_equal(hvclient_domain_watch(c, NULL), -EACCES);
    (void)f;
}

static uint64_t another_tries_everything(struct fixture *f, uint64_t word)
{
    struct hvclient *c = connect_to(f, (unsigned)(word >> 16));
    uint16_t owner = (uint16_t)word;
    uint64_t found = 0;
    struct hv_extent x;
    struct hv_port p;
    int fds[2];
    for (uint32_t k = 0; k < 64; k++) {
        found += hvclient_extent_map(c, owner, k, &x, fds, NULL) != -ENOENT;
        found += hvclient_grant_frame_map(c, owner, k, &x, fds, NULL) != -ENOENT;
        found += hvclient_port_bind(c, owner, k, &p, fds, NULL) != -ENOENT;
        found += hvclient_extent_put(c, owner, k, NULL) != -ENOENT;
        found += hvclient_extent_free(c, k, NULL) != -ENOENT;
    }
    return found;
}

static void test_two_guests_cannot_map_bind_put_or_see_each_others_things(void **state)
{
    struct fixture *f = *state;
    uint16_t a = domain(f, "a"), b = domain(f, "b");
    struct hvclient *ca = connect_to(f, a), *cb = connect_to(f, b);
    struct hv_extent x, frame, y;
    struct hv_port port;
    int fd, fds[2];
    assert_int_equal(hvclient_extent_alloc(ca, 0, 2, false, &x, &fd, NULL), 0);
    close(fd);
    assert_int_equal(hvclient_grant_frame_new(ca, 0, &frame, &fd, NULL), 0);
    close(fd);
    assert_int_equal(hvclient_port_alloc(ca, 0, &port, fds, NULL), 0);
    close(fds[0]), close(fds[1]);
    refuse_all(f, cb, a, &x, &frame, port.port);
    assert_int_equal(info(f, b).refusals, 12);
    struct guest g = guest_start(f, another_tries_everything, a | (uint64_t)b << 16);
    assert_int_equal(g.result, 0);
    guest_kill(g);
    /* nor may the owner take its own by the grantee's door */
    assert_int_equal(hvclient_extent_map(ca, a, x.base_gfn, &y, &fd, NULL), -ENOENT);
    /* and all this has taken nothing from those whose they are */
    assert_int_equal(hvclient_extent_map(f->dom0, a, x.base_gfn, &y, &fd, NULL), 0);
    close(fd);
    assert_int_equal(hvclient_port_bind(f->dom0, a, port.port, &port, fds, NULL), 0);
    close(fds[0]), close(fds[1]);
    hvclient_close(ca);
    hvclient_close(cb);
}

static void test_another_process_of_the_same_domain_cannot_free_or_close(void **state)
{
    struct fixture *f = *state;
    uint16_t a = domain(f, "a");
    struct hvclient *one = connect_to(f, a), *two = connect_to(f, a);
    struct hv_extent x;
    struct hv_port port, seen;
    int fd, fds[2];
    assert_int_equal(hvclient_extent_alloc(one, 0, 2, true, &x, &fd, NULL), 0);
    close(fd);
    assert_int_equal(hvclient_port_alloc(one, 0, &port, fds, NULL), 0);
    close(fds[0]), close(fds[1]);
    assert_int_equal(hvclient_extent_free(two, x.id, NULL), -EACCES);
    assert_int_equal(hvclient_extent_seal(two, x.id, NULL), -EACCES);
    assert_int_equal(hvclient_port_close(two, port.port, NULL), -EACCES);
    assert_int_equal(hvclient_port_status(two, port.port, &seen, NULL), 0); /* but see whose it is */
    assert_int_equal(seen.instance, hvclient_instance(one));
    hvclient_close(one);
    hvclient_close(two);
}

static void test_a_grantee_must_exist(void **state)
{
    struct fixture *f = *state;
    struct hvclient *guest = connect_to(f, domain(f, "a"));
    static const uint16_t nobody[] = {99, 0x7fef, 0x7ff0, 0x7ff4, 0xffff};
    for (size_t i = 0; i < ARRAY_SIZE(nobody); i++) {
        struct hv_extent x;
        struct hv_port p;
        int fds[2];
        assert_int_equal(hvclient_extent_alloc(guest, nobody[i], 1, false, &x, fds, NULL), -ENOENT);
        assert_int_equal(hvclient_grant_frame_new(guest, nobody[i], &x, fds, NULL), -ENOENT);
        assert_int_equal(hvclient_port_alloc(guest, nobody[i], &p, fds, NULL), -ENOENT);
        assert_int_equal(hvclient_extent_map(guest, nobody[i], 1, &x, fds, NULL), -ENOENT);
        assert_int_equal(hvclient_port_bind(guest, nobody[i], 1, &p, fds, NULL), -ENOENT);
    }
    hvclient_close(guest);
}

static uint64_t as_nobody(struct fixture *f, uint64_t domid)
{
    char path[128];
    struct hvclient *c;
    if (setgid(65534) < 0 || setuid(65534) < 0)
        return 1;
    return (uint64_t)-hvclient_open(hvworld_socket(&f->w, (unsigned)domid, path), &c, NULL);
}

static void test_another_user_is_refused_even_where_the_files_let_it_in(void **state)
{
    struct fixture *f = *state;
    if (geteuid() != 0)
        skip(); /* only root can become somebody else */
    uint16_t a = domain(f, "a");
    char path[128];
    struct guest g = guest_start(f, as_nobody, a);
    assert_int_equal(g.result, EACCES); /* the directory's mode */
    guest_kill(g);
    assert_int_equal(chmod(f->w.run_dir, 0755), 0);
    snprintf(path, sizeof(path), "%s/dom", f->w.run_dir);
    assert_int_equal(chmod(path, 0755), 0);
    snprintf(path, sizeof(path), "%s/dom/%u", f->w.run_dir, a);
    assert_int_equal(chmod(path, 0755), 0);
    assert_int_equal(chmod(hvworld_socket(&f->w, a, path), 0777), 0);
    g = guest_start(f, as_nobody, a);
    assert_int_equal(g.result, EACCES); /* the server's refusal */
    guest_kill(g);
    assert_holds_nothing(f, a);
}

/* ---- death ---- */

static uint64_t owner_of_everything(struct fixture *f, uint64_t domid)
{
    struct hvclient *c = connect_to(f, (unsigned)domid);
    struct hv_extent x;
    struct hv_port p;
    int fds[2];
    if (hvclient_extent_alloc(c, 0, 7, false, &x, fds, NULL) || hvclient_grant_frame_new(c, 0, &x, fds, NULL) ||
        hvclient_port_alloc(c, 0, &p, fds, NULL))
        return 0;
    return hvclient_instance(c);
}

static void test_kill_of_an_owner_frees_everything_and_tells_its_holder_once(void **state)
{
    struct fixture *f = *state;
    uint16_t a = domain(f, "a");
    struct hvclient *backend = connect_to(f, 0);
    unsigned fds_before = hvworld_fd_count(&f->w);
    struct guest g = guest_start(f, owner_of_everything, a);
    assert_true(g.result > 0);
    struct hv_extent x, frame;
    struct hv_port port;
    int fd, fds[2];
    assert_int_equal(hvclient_extent_map(backend, a, 1, &x, &fd, NULL), 0);
    close(fd);
    assert_int_equal(hvclient_grant_frame_map(backend, a, 0, &frame, &fd, NULL), 0);
    close(fd);
    assert_int_equal(frame.instance, g.result);
    assert_int_equal(hvclient_port_bind(backend, a, 1, &port, fds, NULL), 0);
    close(fds[0]), close(fds[1]);
    guest_kill(g);
    struct hv_event event = next_event(backend);
    assert_int_equal(event.op, HV_INSTANCE_GONE);
    assert_int_equal(event.domid, a);
    assert_int_equal(event.value, g.result);
    assert_int_equal(info(f, a).ports, 0);
    assert_int_equal(info(f, a).frames, 7); /* until the holder puts */
    assert_int_equal(info(f, a).grant_frames, 1);
    assert_int_equal(hvclient_extent_put(backend, a, x.id, NULL), 0);
    assert_int_equal(hvclient_grant_frame_put(backend, a, frame.id, NULL), 0);
    assert_int_equal(hvclient_port_close(backend, port.port, NULL), 0);
    assert_holds_nothing(f, a);
    assert_no_event(backend);
    assert_int_equal(hvworld_fd_count(&f->w), fds_before);
    hvclient_close(backend);
}

static void test_a_destroyed_domain_is_dying_until_nothing_is_held(void **state)
{
    struct fixture *f = *state;
    uint16_t a = domain(f, "a");
    struct hvclient *backend = connect_to(f, 0), *watcher = connect_to(f, 0);
    assert_int_equal(hvclient_domain_watch(watcher, NULL), 0);
    struct guest g = guest_start(f, owner_of_everything, a);
    struct hv_extent x;
    int fd;
    assert_int_equal(hvclient_extent_map(backend, a, 1, &x, &fd, NULL), 0);
    close(fd);
    assert_int_equal(hvclient_domain_destroy(f->dom0, a, NULL), 0);
    struct hv_event event = next_event(watcher);
    assert_int_equal(event.op, HV_DOMAIN_GONE);
    assert_int_equal(event.domid, a);
    assert_int_equal(next_event(backend).op, HV_INSTANCE_GONE);
    struct hv_domain d = info(f, a);
    assert_int_equal(d.dying, 1);
    assert_int_equal(d.instances, 0);
    assert_int_equal(d.frames, 7);
    assert_int_equal(d.grant_frames, 0);
    char path[128];
    assert_int_equal(access(hvworld_socket(&f->w, a, path), F_OK), -1);
    *strrchr(path, '/') = '\0';
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(hvclient_domain_destroy(f->dom0, a, NULL), -EALREADY);
    uint16_t b = domain(f, "a"); /* the name is free, the domid is not */
    assert_true(b > a);
    struct hvclient *other = connect_to(f, b);
    assert_int_equal(hvclient_extent_alloc(other, a, 1, false, &x, &fd, NULL), -ENOENT);
    hvclient_close(backend); /* the last holder dies */
    eventually(info(f, a).domid != a);
    assert_int_equal(info(f, a).domid, b);
    hvclient_close(other);
    hvclient_close(watcher);
    guest_kill(g);
}

static struct hypervisor *served; /* in the server's process */

static void go_to_the_last_domid(int signal_number)
{
    (void)signal_number;
    served->next_domid = HV_DOMID_MAX;
}

static void at_the_last_domid(struct hypervisor *h)
{
    served = h;
    signal(SIGUSR1, go_to_the_last_domid);
    go_to_the_last_domid(0);
}

/* XSA-322, XSA-417: what was shared with a dead domain is not its successor's of the same number. */
static void test_lesson_322_a_reused_domid_inherits_nothing(void **state)
{
    (void)state;
    struct fixture fixture, *f = &fixture;
    start_with(f, at_the_last_domid);
    uint16_t dead = domain(f, "dead"), a = domain(f, "a");
    assert_int_equal(dead, HV_DOMID_MAX);
    assert_int_equal(a, 1);
    struct hvclient *guest = connect_to(f, a);
    struct hv_extent x, frame, y;
    struct hv_port port, q;
    int fd, fds[2];
    assert_int_equal(hvclient_extent_alloc(guest, dead, 1, false, &x, &fd, NULL), 0);
    close(fd);
    assert_int_equal(hvclient_grant_frame_new(guest, dead, &frame, &fd, NULL), 0);
    close(fd);
    assert_int_equal(hvclient_port_alloc(guest, dead, &port, fds, NULL), 0);
    close(fds[0]), close(fds[1]);
    assert_int_equal(hvclient_domain_destroy(f->dom0, dead, NULL), 0);
    assert_int_equal(kill(f->w.pid, SIGUSR1), 0); /* instead of 32,750 domains in between */
    uint16_t heir = domain(f, "heir");
    assert_int_equal(heir, dead);
    struct hvclient *c = connect_to(f, heir);
    assert_int_equal(hvclient_extent_map(c, a, x.base_gfn, &y, &fd, NULL), -ENOENT);
    assert_int_equal(hvclient_grant_frame_map(c, a, frame.id, &y, &fd, NULL), -ENOENT);
    assert_int_equal(hvclient_port_bind(c, a, port.port, &q, fds, NULL), -ENOENT);
    hvclient_close(c);
    hvclient_close(guest);
    hvclient_close(f->dom0);
    hvworld_stop(&f->w);
}

/* ---- event channels ---- */

static void test_bits_travel_both_ways_and_binding_sets_the_near_one(void **state)
{
    struct fixture *f = *state;
    uint16_t a = domain(f, "a");
    struct hvclient *guest = connect_to(f, a);
    struct hv_port p, q;
    int fds[2];
    assert_int_equal(hvclient_port_alloc(guest, 0, &p, fds, NULL), 0);
    struct evtchn near = channel_end(&p, fds);
    assert_int_equal(p.status, HV_PORT_UNBOUND);
    assert_false(evtchn_pending(&near));
    assert_int_equal(evtchn_notify(&near), 0); /* nobody there: kept */
    assert_int_equal(hvclient_port_bind(f->dom0, a, p.port, &q, fds, NULL), 0);
    struct evtchn far = channel_end(&q, fds);
    assert_int_equal(q.status, HV_PORT_INTERDOMAIN);
    assert_int_equal(q.remote_port, p.port);
    assert_int_equal(q.remote, a);
    assert_true(evtchn_consume(&far)); /* set once by binding, merged with the first notification */
    assert_false(evtchn_consume(&far));
    assert_false(evtchn_pending(&near));
    for (int i = 0; i < 100000; i++)
        assert_int_equal(evtchn_notify(&near), 0);
    assert_true(evtchn_consume(&far));
    assert_false(evtchn_consume(&far)); /* all merged */
    assert_int_equal(evtchn_notify(&far), 0);
    assert_int_equal(evtchn_wait(&near, 10000), 0);
    assert_int_equal(hvclient_port_bind(f->dom0, a, p.port, &q, fds, NULL), -EBUSY);
    evtchn_deinit(&near);
    evtchn_deinit(&far);
    hvclient_close(guest);
}

static uint64_t binds(struct fixture *f, uint64_t word)
{
    struct hvclient *c = connect_to(f, 0);
    struct hv_port p;
    int fds[2], r;
    do
        r = hvclient_port_bind(c, (uint16_t)(word >> 32), (uint32_t)word, &p, fds, NULL);
    while (r == -EAGAIN);
    if (r < 0)
        return 0;
    struct evtchn ch = channel_end(&p, fds);
    return evtchn_consume(&ch) && evtchn_notify(&ch) == 0;
}

static void test_a_port_is_bound_again_after_its_peer_was_killed(void **state)
{
    struct fixture *f = *state;
    uint16_t a = domain(f, "a");
    struct hvclient *guest = connect_to(f, a);
    struct hv_port p;
    int fds[2];
    assert_int_equal(hvclient_port_alloc(guest, 0, &p, fds, NULL), 0);
    struct evtchn near = channel_end(&p, fds);
    for (int round = 0; round < 3; round++) {
        struct guest backend = guest_start(f, binds, (uint64_t)a << 32 | p.port);
        assert_int_equal(backend.result, 1);
        assert_int_equal(evtchn_wait(&near, 10000), 0);
        assert_int_equal(hvclient_port_status(guest, p.port, &p, NULL), 0);
        assert_int_equal(p.status, HV_PORT_INTERDOMAIN);
        guest_kill(backend);
        assert_int_equal(next_event(guest).op, HV_INSTANCE_GONE);
        assert_int_equal(hvclient_port_status(guest, p.port, &p, NULL), 0);
        assert_int_equal(p.status, HV_PORT_UNBOUND);
        assert_int_equal(evtchn_notify(&near), 0);
        assert_no_event(guest);
    }
    evtchn_deinit(&near);
    hvclient_close(guest);
}

static void test_when_the_allocating_end_closes_the_other_one_is_unbound_and_bindable(void **state)
{
    struct fixture *f = *state;
    uint16_t a = domain(f, "a"), b = domain(f, "b");
    struct hvclient *ca = connect_to(f, a), *cb = connect_to(f, b);
    struct hv_port p, q, r;
    int fds[2];
    assert_int_equal(hvclient_port_alloc(ca, 0, &p, fds, NULL), 0);
    close(fds[0]), close(fds[1]);
    assert_int_equal(hvclient_port_bind(f->dom0, a, p.port, &q, fds, NULL), 0);
    struct evtchn near = channel_end(&q, fds);
    assert_true(evtchn_consume(&near));
    assert_int_equal(hvclient_port_close(ca, p.port, NULL), 0);
    assert_int_equal(hvclient_port_close(ca, p.port, NULL), -ENOENT);
    assert_int_equal(hvclient_port_status(f->dom0, q.port, &q, NULL), 0);
    assert_int_equal(q.status, HV_PORT_UNBOUND);
    assert_int_equal(hvclient_port_bind(cb, 0, q.port, &r, fds, NULL), -ENOENT); /* it was a's, it stays a's */
    assert_int_equal(hvclient_port_bind(ca, 0, q.port, &r, fds, NULL), 0);
    struct evtchn far = channel_end(&r, fds);
    assert_int_equal(evtchn_notify(&far), 0);
    assert_true(evtchn_consume(&near));
    evtchn_deinit(&far);
    evtchn_deinit(&near);
    assert_int_equal(hvclient_port_close(f->dom0, q.port, NULL), 0);
    hvclient_close(ca);
    hvclient_close(cb);
}

/* XSA-331, XSA-332, XSA-441: nothing that a peer does to its own descriptors makes our notification wait. */
static void test_lesson_331_a_hostile_peer_cannot_make_a_notification_block(void **state)
{
    struct fixture *f = *state;
    uint16_t a = domain(f, "a");
    struct hvclient *guest = connect_to(f, a);
    struct hv_port p, q;
    int theirs[2], fds[2];
    assert_int_equal(hvclient_port_alloc(guest, 0, &p, theirs, NULL), 0);
    assert_int_equal(hvclient_port_bind(f->dom0, a, p.port, &q, fds, NULL), 0);
    struct evtchn ours = channel_end(&q, fds);
    /* it never reads, makes its own ends block, and fills its counter */
    for (int i = 0; i < 2; i++)
        assert_int_equal(fcntl(theirs[i], F_SETFL, 0), 0);
    const uint64_t full = UINT64_MAX - 1;
    assert_true(evtchn_consume(&ours)); /* binding's */
    assert_int_equal(write(theirs[1], &full, sizeof(full)), sizeof(full));
    assert_true(fcntl(ours.notify_fd, F_GETFL) & O_NONBLOCK);
    for (int i = 0; i < 10000; i++)
        assert_int_equal(evtchn_notify(&ours), 0);
    assert_true(evtchn_consume(&ours)); /* a storm is one event */
    assert_false(evtchn_consume(&ours));
    /* nor is the server in its reach: with that counter full the other end is bound again and again */
    for (int i = 0; i < 3; i++) {
        assert_int_equal(hvclient_port_close(f->dom0, ours.port, NULL), 0);
        evtchn_deinit(&ours);
        assert_int_equal(hvclient_port_bind(f->dom0, a, p.port, &q, fds, NULL), 0);
        ours = channel_end(&q, fds);
        assert_true(evtchn_consume(&ours));
    }
    /* it dies with all its ends: still no error */
    close(theirs[0]), close(theirs[1]);
    hvclient_close(guest);
    assert_int_equal(next_event(f->dom0).op, HV_INSTANCE_GONE);
    for (int i = 0; i < 10000; i++)
        assert_int_equal(evtchn_notify(&ours), 0);
    evtchn_deinit(&ours);
}

/* XSA-349: a peer that comes and goes cannot pile up events in front of one who does not read them. */
static void test_lesson_349_events_of_a_port_do_not_pile_up(void **state)
{
    struct fixture *f = *state;
    uint16_t a = domain(f, "a");
    struct hvclient *slow = connect_to(f, 0);
    struct hv_port p, q;
    int fds[2];
    assert_int_equal(hvclient_port_alloc(slow, a, &p, fds, NULL), 0);
    close(fds[0]), close(fds[1]);
    unsigned refused = 0, gone = 0;
    for (int i = 0; i < 3000; i++) {
        struct hvclient *guest = connect_to(f, a);
        int r = hvclient_port_bind(guest, 0, p.port, &q, fds, NULL);
        if (r == 0)
            close(fds[0]), close(fds[1]), gone++;
        else
            assert_int_equal(r, -EAGAIN), refused++;
        hvclient_close(guest);
        eventually(info(f, a).instances == 0);
    }
    assert_true(refused > 0 && gone > 0 && gone < 100);
    struct hv_event event;
    struct pollfd poll_slow = {.fd = hvclient_fd(slow), .events = POLLIN};
    unsigned told = 0;
    while (told < gone && poll(&poll_slow, 1, 10000) == 1 && hvclient_event(slow, &event) == 1)
        told++;
    assert_int_equal(told, gone); /* none was lost, and it is still connected */
    assert_int_equal(hvclient_port_status(slow, p.port, &p, NULL), 0);
    assert_int_equal(p.status, HV_PORT_UNBOUND);
    hvclient_close(slow);
}

/* ---- quotas ---- */

static void test_each_limit_is_refused_early_and_counted(void **state)
{
    struct fixture *f = *state;
    uint16_t a = domain(f, "a");
    struct hvclient *c = connect_to(f, a);
    const struct hypervisor_limits *l = &hypervisor_limits_default;
    struct hv_extent x;
    struct hv_port p;
    struct err e;
    int fds[2];
    assert_int_equal(hvclient_extent_alloc(c, 0, l->frames + 1, false, &x, fds, &e), -EDQUOT);
    assert_non_null(strstr(e.text, "limit of frames"));
    assert_int_equal(hvclient_extent_alloc(c, 0, UINT32_MAX, false, &x, fds, NULL), -EDQUOT);
    assert_int_equal(hvclient_extent_alloc(c, 0, 0, false, &x, fds, NULL), -EINVAL);
    assert_int_equal(hvclient_extent_alloc(c, 0, l->frames, false, &x, fds, NULL), 0);
    close(fds[0]);
    assert_int_equal(hvclient_extent_alloc(c, 0, 1, false, &x, fds, NULL), -EDQUOT);
    assert_int_equal(hvclient_extent_free(c, 1, NULL), 0);
    for (unsigned i = 0; i < l->extents; i++) {
        assert_int_equal(hvclient_extent_alloc(c, 0, 1, false, &x, fds, NULL), 0);
        close(fds[0]);
    }
    assert_int_equal(hvclient_extent_alloc(c, 0, 1, false, &x, fds, &e), -EDQUOT);
    assert_non_null(strstr(e.text, "limit of extents"));
    for (unsigned i = 0; i < l->grant_frames; i++) {
        assert_int_equal(hvclient_grant_frame_new(c, 0, &x, fds, NULL), 0);
        assert_int_equal(x.id, i);
        close(fds[0]);
    }
    assert_int_equal(hvclient_grant_frame_new(c, 0, &x, fds, &e), -EDQUOT);
    assert_non_null(strstr(e.text, "grant frames"));
    for (unsigned i = 0; i < l->ports; i++) {
        assert_int_equal(hvclient_port_alloc(c, 0, &p, fds, NULL), 0);
        close(fds[0]), close(fds[1]);
    }
    assert_int_equal(hvclient_port_alloc(c, 0, &p, fds, &e), -EDQUOT);
    assert_non_null(strstr(e.text, "ports"));
    assert_int_equal(info(f, a).refusals, 6);
    hvclient_close(c);
    eventually(info(f, a).instances == 0);
    assert_holds_nothing(f, a);
}

static void test_a_domain_has_so_many_processes_and_no_more(void **state)
{
    struct fixture *f = *state;
    uint16_t a = domain(f, "a");
    struct hvclient *c[17] = {0};
    char path[128];
    for (unsigned i = 0; i < 16; i++)
        c[i] = connect_to(f, a);
    struct err e;
    assert_int_equal(hvclient_open(hvworld_socket(&f->w, a, path), &c[16], &e), -EDQUOT);
    assert_int_equal(info(f, a).instances, 16);
    hvclient_close(c[3]);
    eventually(info(f, a).instances == 15);
    c[3] = connect_to(f, a);
    for (unsigned i = 0; i < 16; i++)
        hvclient_close(c[i]);
}

static void with_few_descriptors(struct hypervisor *h)
{
    h->descriptors_max = 512 + 2 * 128 + 20;
}

static void test_a_greedy_domain_leaves_its_neighbour_the_guaranteed_descriptors(void **state)
{
    (void)state;
    struct fixture fixture, *f = &fixture;
    start_with(f, with_few_descriptors);
    uint16_t a = domain(f, "a"), b = domain(f, "b"), none;
    assert_int_equal(hvclient_domain_create(f->dom0, "c", &none, NULL), -EMFILE);
    struct hvclient *greedy = connect_to(f, a), *modest = connect_to(f, b);
    struct hv_extent x;
    struct err e;
    int fd, r, taken = 0;
    while ((r = hvclient_extent_alloc(greedy, 0, 1, false, &x, &fd, &e)) == 0)
        close(fd), taken++;
    assert_int_equal(r, -EDQUOT);
    assert_non_null(strstr(e.text, "descriptors"));
    assert_int_equal(taken, 128 + 20 - 2);
    for (int i = 0; i < 128 - 2; i++) {
        assert_int_equal(hvclient_extent_alloc(modest, 0, 1, false, &x, &fd, NULL), 0);
        close(fd);
    }
    assert_int_equal(hvclient_extent_alloc(modest, 0, 1, false, &x, &fd, NULL), -EDQUOT);
    hvclient_close(greedy);
    hvclient_close(modest);
    assert_int_equal(hvclient_domain_destroy(f->dom0, a, NULL), 0);
    assert_int_equal(hvclient_domain_create(f->dom0, "c", &none, NULL), 0);
    hvclient_close(f->dom0);
    hvworld_stop(&f->w);
}

/* ---- garbage ---- */

static int raw_connect(struct fixture *f, uint16_t domid, bool greet)
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

static void assert_is_cut_off(int fd)
{
    char buffer[256];
    struct pollfd p = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 10000), 1);
    ssize_t n = unixsock_recv(fd, buffer, sizeof(buffer), NULL, NULL, 0);
    assert_true(n == 0 || n == -ECONNRESET);
    close(fd);
}

static void test_garbage_of_any_length_is_disconnected_and_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    uint16_t a = domain(f, "a");
    unsigned fds_before = hvworld_fd_count(&f->w);
    unsigned char bytes[300];
    memset(bytes, 0xa5, sizeof(bytes));
    for (size_t length = 0; length < sizeof(bytes); length += 3) {
        int fd = raw_connect(f, a, length % 2);
        assert_int_equal(unixsock_send(fd, bytes, length, NULL, 0, 0), 0);
        assert_is_cut_off(fd);
    }
    struct {
        struct hv_request_create r;
        size_t length;
    } bad[] = {
        {{.head = {.op = HV_HELLO, .value = HV_VERSION}}, 16}, /* twice */
        {{.head = {.op = HV_PORT_CLOSE, .value = 1, .domid = 1}}, 16},
        {{.head = {.op = HV_PORT_CLOSE, .value = 1, .flag = 1}}, 16},
        {{.head = {.op = HV_EXTENT_ALLOC, .value = 1, .flag = 2}}, 16},
        {{.head = {.op = HV_DOMAIN_WATCH, .value = 1}}, 16},
        {{.head = {.op = HV_EXTENT_MAP}}, 80},
        {{.head = {.op = HV_DOMAIN_CREATE}, .name = "x"}, 16},
        {{.head = {.op = HV_DOMAIN_CREATE}, .name = ""}, 80},
        {{.head = {.op = HV_DOMAIN_CREATE}, .name = "../x"}, 80},
        {{.head = {.op = HV_DOMAIN_CREATE}, .name = "x\0y"}, 80},
        {{.head = {.op = HV_OP_END_}}, 16},
        {{.head = {.op = UINT32_MAX}}, 16},
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        int fd = raw_connect(f, i < 6 ? a : 0, true);
        assert_int_equal(unixsock_send(fd, &bad[i].r, bad[i].length, NULL, 0, 0), 0);
        assert_is_cut_off(fd);
    }
    struct hv_request early = {.op = HV_PORT_ALLOC};
    int fd = raw_connect(f, a, false);
    assert_int_equal(unixsock_send(fd, &early, sizeof(early), NULL, 0, 0), 0);
    assert_is_cut_off(fd);
    assert_holds_nothing(f, a);
    eventually(hvworld_fd_count(&f->w) == fds_before);
}

static void test_descriptors_beside_requests_do_not_stay(void **state)
{
    struct fixture *f = *state;
    uint16_t a = domain(f, "a");
    int fd = raw_connect(f, a, true);
    unsigned fds_before = hvworld_fd_count(&f->w);
    int passed[] = {0, 1, 2, fd};
    struct hv_request r = {.op = HV_PORT_STATUS, .value = 1};
    struct hv_reply reply;
    for (int i = 0; i < 100; i++) {
        int sent = unixsock_send(fd, &r, sizeof(r), passed, 4, 0);
        if (sent == -EPERM) { /* this kernel does not even send them */
            assert_int_equal(unixsock_send(fd, &r, sizeof(r), NULL, 0, 0), 0);
        } else {
            assert_int_equal(sent, 0);
        }
        assert_int_equal(unixsock_recv(fd, &reply, sizeof(reply), NULL, NULL, 0), sizeof(reply));
        assert_int_equal(reply.result, 0);
    }
    assert_int_equal(hvworld_fd_count(&f->w), fds_before);
    close(fd);
}

static void test_replies_carry_no_stale_bytes(void **state)
{
    struct fixture *f = *state;
    int fd = raw_connect(f, domain(f, "a"), true);
    struct hv_request r = {.op = HV_EXTENT_FREE, .value = 77, .seq = 5};
    struct hv_reply reply, expected;
    memset(&expected, 0, sizeof(expected));
    expected.op = HV_EXTENT_FREE;
    expected.seq = 5;
    expected.result = -ENOENT;
    assert_int_equal(unixsock_send(fd, &r, sizeof(r), NULL, 0, 0), 0);
    assert_int_equal(unixsock_recv(fd, &reply, sizeof(reply), NULL, NULL, 0), sizeof(reply));
    assert_memory_equal(&reply, &expected, sizeof(reply)); /* XSA-216 */
    close(fd);
}

/* XSA-326: one who asks and never reads the answers costs a bounded amount and stops nobody. */
static void test_lesson_326_unread_replies_are_bounded(void **state)
{
    struct fixture *f = *state;
    uint16_t a = domain(f, "a"), b = domain(f, "b");
    int fd = raw_connect(f, a, true);
    struct hv_request r = {.op = HV_EXTENT_ALLOC, .value = 1};
    unsigned sent = 0;
    struct hvclient *other = connect_to(f, b);
    while (unixsock_send(fd, &r, sizeof(r), NULL, 0, MSG_DONTWAIT) == 0 && sent < 100000)
        sent++;
    for (int i = 0; i < 100; i++) {
        struct hv_port p;
        assert_int_equal(hvclient_port_status(other, 1, &p, NULL), 0);
    }
    assert_true(sent < 100000);
    assert_true(info(f, a).extents < 100); /* it is not served further than it reads */
    close(fd);
    eventually(info(f, a).instances == 0);
    assert_holds_nothing(f, a);
    hvclient_close(other);
}

/* ---- all together ---- */

/* XSA-350: processes of six domains that hold each other's things are killed in any order, under sanitizers. */
static uint32_t random_next(uint32_t *seed)
{
    return *seed = *seed * 1664525 + 1013904223;
}

static void churn_step(struct hvclient *c, uint32_t *seed, uint16_t domains)
{
    struct hv_extent x;
    struct hv_port p;
    int fds[2] = {-1, -1}, n = 0;
    uint16_t other = (uint16_t)((random_next(seed) >> 16) % (domains + 1u));
    uint32_t key = (random_next(seed) >> 16) % 24;
    switch ((random_next(seed) >> 16) % 9) {
    case 0:
        n = hvclient_extent_alloc(c, other, 1 + key % 3, false, &x, fds, NULL) == 0 ? 1 : 0;
        break;
    case 1:
        n = hvclient_extent_map(c, other, key, &x, fds, NULL) == 0 ? 1 : 0;
        break;
    case 2:
        hvclient_extent_free(c, key, NULL);
        break;
    case 3:
        hvclient_extent_put(c, other, key, NULL);
        break;
    case 4:
        n = hvclient_port_alloc(c, other, &p, fds, NULL) == 0 ? 2 : 0;
        break;
    case 5:
        n = hvclient_port_bind(c, other, key, &p, fds, NULL) == 0 ? 2 : 0;
        break;
    case 6:
        hvclient_port_close(c, key, NULL);
        break;
    case 7:
        n = hvclient_grant_frame_new(c, other, &x, fds, NULL) == 0 ? 1 : 0;
        break;
    default:
        n = hvclient_grant_frame_map(c, other, key, &x, fds, NULL) == 0 ? 1 : 0;
    }
    for (int i = 0; i < n; i++)
        close(fds[i]);
}

static void test_lesson_350_churn_and_death_in_any_order_leave_nothing(void **state)
{
    struct fixture *f = *state;
    enum { DOMAINS = 6, CLIENTS = 12 };
    uint32_t seed = 20240607;
    struct hvclient *c[CLIENTS] = {0};
    for (int i = 0; i < DOMAINS; i++)
        domain(f, (char[]){'d', (char)('0' + i), 0});
    for (int step = 0; step < 8000; step++) {
        unsigned k = (random_next(&seed) >> 16) % CLIENTS;
        if (!c[k])
            c[k] = connect_to(f, 1 + k % DOMAINS);
        churn_step(c[k], &seed, DOMAINS);
        if ((random_next(&seed) >> 16) % 64 == 0) {
            hvclient_close(c[k]);
            c[k] = NULL;
        }
    }
    for (int i = 0; i < CLIENTS; i++)
        hvclient_close(c[i]);
    for (uint16_t i = 1; i <= DOMAINS; i++) {
        eventually(info(f, i).instances == 0);
        assert_holds_nothing(f, i);
        assert_int_equal(hvclient_domain_destroy(f->dom0, i, NULL), 0);
    }
    assert_int_equal(info(f, 1).domid, HV_DOMID_NONE);
    assert_int_equal(hvworld_fd_count(&f->w), f->idle_fds);
}

static void test_domains_are_listed_in_order_with_unique_names(void **state)
{
    struct fixture *f = *state;
    uint16_t a = domain(f, "one"), b = domain(f, "two"), again;
    struct err e;
    assert_int_equal(hvclient_domain_create(f->dom0, "one", &again, &e), -EEXIST);
    assert_int_equal(hvclient_domain_create(f->dom0, "o/ne", &again, &e), -EINVAL);
    assert_int_equal(info(f, 0).domid, 0);
    assert_string_equal(info(f, 0).name, "Domain-0");
    assert_int_equal(info(f, 1).domid, a);
    assert_string_equal(info(f, 1).name, "one");
    assert_int_equal(info(f, a + 1).domid, b);
    assert_int_equal(info(f, b + 1).domid, HV_DOMID_NONE);
    assert_int_equal(hvclient_domain_destroy(f->dom0, 0, NULL), -EINVAL);
}

static void test_a_server_after_a_killed_one_does_not_reuse_its_domids(void **state)
{
    (void)state;
    struct fixture fixture, *f = &fixture;
    start_with(f, NULL);
    domain(f, "a");
    uint16_t b = domain(f, "b");
    assert_int_equal(kill(f->w.pid, SIGKILL), 0);
    assert_int_equal(waitpid(f->w.pid, NULL, 0), f->w.pid);
    struct err e;
    struct hv_domain d;
    assert_int_equal(hvclient_domain_next(f->dom0, 0, &d, &e), -EPIPE);
    hvclient_close(f->dom0);
    close(f->w.stop_fd);
    struct hypervisor *h; /* not served: only its start matters */
    assert_int_equal(hypervisor_new(f->w.run_dir, &h, &e), 0);
    assert_int_equal(h->next_domid, b + 1);
    hypervisor_free(h);
    assert_int_equal(rmdir(f->w.run_dir), 0);
}

#define WORLD_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_an_extent_is_the_same_memory_for_owner_and_grantee),
        WORLD_TEST(test_frames_and_ids_never_come_again),
        WORLD_TEST(test_a_sealed_extent_cannot_be_resized_by_either_side),
        WORLD_TEST(test_lesson_266_readonly_holds_against_mmap_mprotect_proc_and_holes),
        WORLD_TEST(test_an_owner_that_seals_behind_our_back_shares_with_nobody),
        WORLD_TEST(test_a_freed_extent_is_charged_until_its_holder_puts_it),
        WORLD_TEST(test_two_holders_are_counted_and_one_that_dies_lets_go),
        WORLD_TEST(test_two_guests_cannot_map_bind_put_or_see_each_others_things),
        WORLD_TEST(test_another_process_of_the_same_domain_cannot_free_or_close),
        WORLD_TEST(test_a_grantee_must_exist),
        WORLD_TEST(test_another_user_is_refused_even_where_the_files_let_it_in),
        WORLD_TEST(test_kill_of_an_owner_frees_everything_and_tells_its_holder_once),
        WORLD_TEST(test_a_destroyed_domain_is_dying_until_nothing_is_held),
        cmocka_unit_test(test_lesson_322_a_reused_domid_inherits_nothing),
        WORLD_TEST(test_bits_travel_both_ways_and_binding_sets_the_near_one),
        WORLD_TEST(test_a_port_is_bound_again_after_its_peer_was_killed),
        WORLD_TEST(test_when_the_allocating_end_closes_the_other_one_is_unbound_and_bindable),
        WORLD_TEST(test_lesson_331_a_hostile_peer_cannot_make_a_notification_block),
        WORLD_TEST(test_lesson_349_events_of_a_port_do_not_pile_up),
        WORLD_TEST(test_each_limit_is_refused_early_and_counted),
        WORLD_TEST(test_a_domain_has_so_many_processes_and_no_more),
        cmocka_unit_test(test_a_greedy_domain_leaves_its_neighbour_the_guaranteed_descriptors),
        WORLD_TEST(test_garbage_of_any_length_is_disconnected_and_leaves_nothing),
        WORLD_TEST(test_descriptors_beside_requests_do_not_stay),
        WORLD_TEST(test_replies_carry_no_stale_bytes),
        WORLD_TEST(test_lesson_326_unread_replies_are_bounded),
        WORLD_TEST(test_lesson_350_churn_and_death_in_any_order_leave_nothing),
        WORLD_TEST(test_domains_are_listed_in_order_with_unique_names),
        cmocka_unit_test(test_a_server_after_a_killed_one_does_not_reuse_its_domids),
    };
    return cmocka_run_group_tests_name("hypervisor", tests, NULL, NULL);
}
