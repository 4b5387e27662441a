/* SPDX-License-Identifier: MIT */
/* The hypervisor role, met through its socket by real processes: memory, and what is whose. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <sys/mman.h>
#include <sys/stat.h>

#include "tests/hvkit.h"

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

/* XSA-403: nobody finds what somebody else left in memory. */
static void test_lesson_403_memory_arrives_zeroed(void **state)
{
    struct fixture *f = *state;
    uint16_t a = domain(f, "a"), b = domain(f, "b");
    struct hvclient *one = connect_to(f, a), *two = connect_to(f, b);
    char page[PAGE_BYTES];
    for (int round = 0; round < 2; round++) {
        struct hvclient *c = round ? two : one;
        struct hv_extent x;
        int fd;
        for (uint32_t n = 0; n < 2; n++) {
            assert_int_equal(n ? hvclient_grant_frame_new(c, 0, &x, &fd, NULL)
                               : hvclient_extent_alloc(c, 0, 1, false, &x, &fd, NULL),
                             0);
            assert_int_equal(pread(fd, page, sizeof(page), 0), sizeof(page));
            for (unsigned i = 0; i < sizeof(page); i++)
                assert_int_equal(page[i], 0);
            memset(page, 0x5a, sizeof(page));
            assert_int_equal(pwrite(fd, page, sizeof(page), 0), sizeof(page));
            close(fd);
        }
        hvclient_close(c);
    }
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
    assert_int_equal(hvclient_extent_seal(guest, x.id, -1, NULL), -EPERM); /* saying so is not enough */
    assert_int_equal(hvclient_extent_map(f->dom0, a, x.base_gfn, &y, &fd0, NULL), -ENOENT);
    assert_int_equal(hvclient_extent_seal(guest, x.id, fd, NULL), 0);
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
    assert_int_equal(hvclient_extent_seal(guest, x.id, fd, NULL), -EPERM);
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
    assert_int_equal(hvclient_extent_seal(c, x->id, -1, NULL), -ENOENT);
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
    assert_int_equal(hvclient_extent_seal(two, x.id, -1, NULL), -EACCES);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_an_extent_is_the_same_memory_for_owner_and_grantee),
        WORLD_TEST(test_lesson_403_memory_arrives_zeroed),
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
        WORLD_TEST(test_domains_are_listed_in_order_with_unique_names),
    };
    return cmocka_run_group_tests_name("hypervisor", tests, NULL, NULL);
}
