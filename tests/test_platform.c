/* SPDX-License-Identifier: MIT */
/* The platform seam over a real hypervisor role: what a frontend and a backend do with each other's memory and
 * channels, what happens when either dies, and that all is given back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

#include "base/list.h"
#include "platform/platform.h"
#include "store/server.h"
#include "tests/hvworld.h"

struct told {
    unsigned instances_gone, domains_gone;
    uint16_t domid;
    uint32_t instance;
};

static void on_instance_gone(void *ctx, uint16_t domid, uint32_t instance)
{
    struct told *t = ctx;
    t->instances_gone++;
    t->domid = domid;
    t->instance = instance;
}

static void on_domain_gone(void *ctx, uint16_t domid)
{
    struct told *t = ctx;
    t->domains_gone++;
    t->domid = domid;
}

struct fixture {
    struct hvworld w;
    struct platform *dom0, *guest;
    struct told told; /* to dom0 */
    uint16_t domid;   /* the guest's */
    char domain_dir[128];
    unsigned own_fds;
};

static unsigned own_fd_count(void)
{
    DIR *dir = opendir("/proc/self/fd");
    unsigned count = 0;
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

static struct platform *open_at(const char *run_dir, const char *domain_dir, const struct platform_listener *listener)
{
    struct platform *p = NULL;
    struct err e = {""};
    struct platform_where where = {.run_dir = run_dir, .domain_dir = domain_dir};
    if (platform_open(NULL, &where, listener, &p, &e) < 0)
        fail_msg("%s", e.text);
    return p;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct platform_listener listener = {
        .ctx = &f->told, .instance_gone = on_instance_gone, .domain_gone = on_domain_gone};
    f->own_fds = own_fd_count();
    hvworld_start(&f->w, NULL);
    f->dom0 = open_at(f->w.run_dir, NULL, &listener);
    assert_int_equal(platform_domain_create(f->dom0, "guest", &f->domid, f->domain_dir, sizeof(f->domain_dir), NULL),
                     0);
    f->guest = open_at(NULL, f->domain_dir, NULL);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    platform_close(f->guest);
    platform_close(f->dom0);
    hvworld_stop(&f->w);
    assert_int_equal(own_fd_count(), f->own_fds);
    free(f);
    return 0;
}

struct wanted {
    uint16_t domid;
    struct platform_domain found;
};

static void pick(void *ctx, const struct platform_domain *d)
{
    struct wanted *w = ctx;
    if (d->domid == w->domid)
        w->found = *d;
}

static struct platform_domain info(struct fixture *f, uint16_t domid)
{
    struct wanted w = {.domid = domid, .found = {.domid = UINT16_MAX}};
    assert_int_equal(platform_domain_list(f->dom0, pick, &w, NULL), 0);
    return w.found;
}

static void wait_for_event(struct platform *p)
{
    struct pollfd poll_fd = {.fd = platform_fd(p), .events = POLLIN};
    assert_int_equal(poll(&poll_fd, 1, 10000), 1);
    assert_true(platform_step(p) > 0);
}

static struct platform_extent share(struct platform *p, uint16_t grantee, uint32_t frames, bool readonly)
{
    struct platform_extent x;
    struct err e = {""};
    if (platform_extent_alloc(p, grantee, frames, readonly, &x, &e) < 0)
        fail_msg("%s", e.text);
    return x;
}

static uint32_t grant(struct platform *p, const struct platform_extent *x, uint32_t frame)
{
    uint32_t gref = 0;
    assert_int_equal(gnttab_grant(platform_gnttab(p), x->grantee, x->base_gfn + frame, x->readonly, &gref, NULL), 0);
    return gref;
}

/* ---- memory ---- */

static void test_a_granted_page_is_the_same_page(void **state)
{
    struct fixture *f = *state;
    struct platform_extent x = share(f->guest, 0, 8, false);
    uint32_t gref = grant(f->guest, &x, 5);
    struct gntmap *map, *same;
    struct frametable *frames;
    struct gntmap_page page;
    assert_int_equal(platform_gntmap_get(f->dom0, f->domid, &map, &frames, NULL), 0);
    assert_int_equal(platform_gntmap_get(f->dom0, f->domid, &same, &frames, NULL), 0);
    assert_ptr_equal(map, same);
    assert_int_equal(gntmap_map(map, gref, true, &page), 0);
    strcpy((char *)x.address + 5 * PAGE_BYTES, "from the guest");
    assert_string_equal(page.address, "from the guest");
    strcpy((char *)page.address, "from dom0");
    assert_string_equal(x.address + 5 * PAGE_BYTES, "from dom0");
    assert_int_equal(gnttab_end(platform_gnttab(f->guest), gref), -EBUSY);
    gntmap_unmap(map, &page);
    assert_int_equal(gnttab_end(platform_gnttab(f->guest), gref), 0);
    platform_gntmap_put(f->dom0, f->domid);
    assert_int_equal(info(f, f->domid).held_extents, 1);
    platform_gntmap_put(f->dom0, f->domid); /* the last put gives back */
    assert_int_equal(info(f, f->domid).held_extents, 0);
    platform_extent_free(f->guest, &x);
    assert_int_equal(info(f, f->domid).frames, 0);
    platform_extent_free(f->guest, &x); /* of an empty one: nothing */
}

static void test_lesson_266_a_readonly_extent_refuses_writers(void **state)
{
    struct fixture *f = *state;
    struct platform_extent x = share(f->guest, 0, 2, true);
    /* the guest lies: it grants for writing what it shares for reading */
    uint32_t gref;
    assert_int_equal(gnttab_grant(platform_gnttab(f->guest), 0, x.base_gfn, false, &gref, NULL), 0);
    struct gntmap *map;
    struct frametable *frames;
    struct gntmap_page page;
    assert_int_equal(platform_gntmap_get(f->dom0, f->domid, &map, &frames, NULL), 0);
    assert_int_equal(gntmap_map(map, gref, true, &page), GRANT_E_READONLY);
    assert_int_equal(gntmap_map(map, gref, false, &page), 0);
    memcpy(x.address, "still mine", 11); /* the owner's mapping is as it was */
    assert_string_equal(page.address, "still mine");
    gntmap_unmap(map, &page);
    platform_gntmap_put(f->dom0, f->domid);
    platform_extent_free(f->guest, &x);
}

static void test_a_grant_for_one_domain_is_no_other_ones(void **state)
{
    struct fixture *f = *state;
    char dir[128];
    uint16_t other;
    assert_int_equal(platform_domain_create(f->dom0, "other", &other, dir, sizeof(dir), NULL), 0);
    struct platform *p = open_at(NULL, dir, NULL);
    struct platform_extent x = share(f->guest, 0, 1, false);
    uint32_t gref = grant(f->guest, &x, 0);
    struct gntmap *map;
    struct frametable *frames;
    struct gntmap_page page;
    struct frame_extent *extent;
    unsigned char *address;
    assert_int_equal(platform_gntmap_get(p, f->domid, &map, &frames, NULL), 0);
    assert_int_equal(gntmap_map(map, gref, false, &page), GRANT_E_BAD_REF);
    assert_int_equal(frametable_pin(frames, x.base_gfn, false, &extent, &address), -ENOENT);
    assert_int_equal(gntmap_misses(map), 1);
    platform_gntmap_put(p, f->domid);
    assert_int_equal(info(f, other).refusals, 2);
    platform_close(p);
    platform_extent_free(f->guest, &x);
}

static void test_lesson_350_memory_freed_under_a_map_stays_until_the_unmap(void **state)
{
    struct fixture *f = *state;
    struct platform_extent x = share(f->guest, 0, 3, false);
    uint32_t gref = grant(f->guest, &x, 1);
    struct gntmap *map;
    struct frametable *frames;
    struct gntmap_page page, again;
    assert_int_equal(platform_gntmap_get(f->dom0, f->domid, &map, &frames, NULL), 0);
    assert_int_equal(gntmap_map(map, gref, true, &page), 0);
    platform_extent_free(f->guest, &x);
    wait_for_event(f->dom0);
    page.address[0] = 42; /* no fault */
    assert_int_equal(info(f, f->domid).frames, 3);
    assert_int_equal(frametable_pinned(frames), 1);
    gntmap_unmap(map, &page);
    assert_int_equal(frametable_extents(frames), 0);
    assert_int_equal(info(f, f->domid).frames, 0);
    assert_int_equal(gntmap_map(map, gref, true, &again), GRANT_E_FRAME);
    platform_gntmap_put(f->dom0, f->domid);
}

/* A guest in a process of its own, to be killed: grants a page, then waits. */
static pid_t guest_process(struct fixture *f, uint32_t *gref, uint32_t *port)
{
    int report[2];
    assert_int_equal(pipe(report), 0);
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(report[1], 3);
        close_range(4, ~0u, 0);
        struct platform *p = open_at(NULL, f->domain_dir, NULL);
        struct platform_extent x = share(p, 0, 4, false);
        struct evtchn ch;
        uint32_t words[2] = {grant(p, &x, 2)};
        memcpy(x.address + 2 * PAGE_BYTES, "last words", 11);
        if (platform_evtchn_alloc_unbound(p, 0, &ch, NULL) < 0)
            _exit(1);
        words[1] = ch.port;
        if (write(3, words, sizeof(words)) != sizeof(words))
            _exit(1);
        for (;;)
            pause();
    }
    close(report[1]);
    uint32_t words[2];
    assert_int_equal(read(report[0], words, sizeof(words)), sizeof(words));
    close(report[0]);
    *gref = words[0];
    *port = words[1];
    return pid;
}

static void test_a_killed_guest_leaves_nothing_when_its_backend_has_let_go(void **state)
{
    struct fixture *f = *state;
    struct gntmap *map;
    struct frametable *frames;
    assert_int_equal(platform_gntmap_get(f->dom0, f->domid, &map, &frames, NULL), 0);
    for (unsigned round = 1; round <= 3; round++) { /* the guest comes again each time */
        uint32_t gref, port;
        pid_t pid = guest_process(f, &gref, &port);
        struct gntmap_page page;
        struct evtchn ch;
        assert_int_equal(gntmap_map(map, gref, true, &page), 0);
        assert_int_equal(platform_evtchn_bind_interdomain(f->dom0, f->domid, port, &ch, NULL), 0);
        uint32_t instance = page.extent->instance;
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        wait_for_event(f->dom0);
        assert_int_equal(f->told.instances_gone, round);
        assert_int_equal(f->told.domid, f->domid);
        assert_int_equal(f->told.instance, instance);
        assert_string_equal(page.address, "last words");
        assert_int_equal(info(f, f->domid).frames, 4); /* while we hold it */
        gntmap_unmap(map, &page);
        assert_int_equal(evtchn_notify(&ch), 0);
        platform_evtchn_close(f->dom0, &ch);
        struct platform_domain d = info(f, f->domid);
        assert_int_equal(d.extents + d.frames + d.grant_frames + d.ports + d.held_extents, 0);
        assert_int_equal(d.instances, 1);
    }
    platform_gntmap_put(f->dom0, f->domid);
}

static void test_events_that_arrive_during_a_call_keep_the_descriptor_readable(void **state)
{
    struct fixture *f = *state;
    uint32_t gref, port;
    pid_t pid = guest_process(f, &gref, &port);
    struct gntmap *map;
    struct frametable *frames;
    struct gntmap_page page;
    assert_int_equal(platform_gntmap_get(f->dom0, f->domid, &map, &frames, NULL), 0);
    assert_int_equal(gntmap_map(map, gref, true, &page), 0);
    gntmap_unmap(map, &page);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    while (info(f, f->domid).instances > 1) /* calls that meet the event */
        ;
    assert_int_equal(f->told.instances_gone, 0); /* told from platform_step() only */
    wait_for_event(f->dom0);
    assert_int_equal(f->told.instances_gone, 1);
    struct pollfd poll_fd = {.fd = platform_fd(f->dom0), .events = POLLIN};
    assert_int_equal(poll(&poll_fd, 1, 0), 0);
    platform_gntmap_put(f->dom0, f->domid);
}

/* ---- event channels, domains, the store ---- */

static void test_event_channels_and_their_status(void **state)
{
    struct fixture *f = *state;
    struct evtchn near, far;
    uint32_t instance;
    assert_int_equal(platform_evtchn_alloc_unbound(f->guest, 0, &near, NULL), 0);
    assert_int_equal(platform_evtchn_status(f->guest, near.port, &instance), PLATFORM_PORT_UNBOUND);
    assert_int_equal(instance, platform_instance(f->guest));
    assert_int_equal(platform_evtchn_bind_interdomain(f->dom0, f->domid, near.port + 1, &far, NULL), -ENOENT);
    assert_int_equal(far.wait_fd, -1);
    platform_evtchn_close(f->dom0, &far); /* of one that was never bound: nothing */
    assert_int_equal(platform_evtchn_bind_interdomain(f->dom0, f->domid, near.port, &far, NULL), 0);
    assert_int_equal(platform_evtchn_status(f->guest, near.port, NULL), PLATFORM_PORT_INTERDOMAIN);
    assert_true(evtchn_consume(&far));
    assert_int_equal(evtchn_notify(&far), 0);
    assert_int_equal(evtchn_wait(&near, 10000), 0);
    platform_evtchn_close(f->dom0, &far);
    assert_int_equal(platform_evtchn_status(f->guest, near.port, NULL), PLATFORM_PORT_UNBOUND);
    uint32_t port = near.port;
    platform_evtchn_close(f->guest, &near);
    assert_int_equal(platform_evtchn_status(f->guest, port, NULL), PLATFORM_PORT_CLOSED);
}

static void test_a_destroyed_domain_is_told_to_the_watcher_and_dies_when_let_go(void **state)
{
    struct fixture *f = *state;
    struct platform_extent x = share(f->guest, 0, 2, false);
    uint32_t gref = grant(f->guest, &x, 0);
    struct gntmap *map;
    struct frametable *frames;
    struct gntmap_page page;
    assert_int_equal(platform_watch_domains(f->dom0), 0);
    assert_int_equal(platform_watch_domains(f->guest), -EACCES);
    assert_int_equal(platform_gntmap_get(f->dom0, f->domid, &map, &frames, NULL), 0);
    assert_int_equal(gntmap_map(map, gref, true, &page), 0);
    assert_int_equal(platform_domain_destroy(f->dom0, f->domid, NULL), 0);
    while (f->told.domains_gone == 0)
        wait_for_event(f->dom0);
    assert_int_equal(f->told.instances_gone, 1);
    assert_int_equal(f->told.domid, f->domid);
    assert_true(info(f, f->domid).dying);
    assert_int_equal(platform_step(f->guest), -EPIPE);
    assert_int_equal(platform_extent_alloc(f->guest, 0, 1, false, &x, NULL), -EPIPE);
    gntmap_unmap(map, &page);
    platform_gntmap_put(f->dom0, f->domid);
    assert_int_equal(info(f, f->domid).domid, UINT16_MAX);
}

static void test_when_the_hypervisor_is_killed_all_calls_say_so_and_memory_stays(void **state)
{
    (void)state;
    struct hvworld w;
    hvworld_start(&w, NULL);
    struct platform *p = open_at(w.run_dir, NULL, NULL);
    struct platform_extent x = share(p, 0, 2, false), y; /* dom0 with itself */
    uint32_t gref = grant(p, &x, 0);
    struct gntmap *map;
    struct frametable *frames;
    struct gntmap_page page;
    struct evtchn ch;
    struct err e;
    assert_int_equal(platform_gntmap_get(p, 0, &map, &frames, NULL), 0);
    assert_int_equal(gntmap_map(map, gref, true, &page), 0);
    assert_int_equal(platform_evtchn_alloc_unbound(p, 0, &ch, NULL), 0);
    kill(w.pid, SIGKILL);
    assert_int_equal(waitpid(w.pid, NULL, 0), w.pid);
    assert_int_equal(platform_step(p), -EPIPE);
    assert_int_equal(platform_step(p), -EPIPE);
    assert_int_equal(platform_extent_alloc(p, 0, 1, false, &y, &e), -EPIPE);
    assert_non_null(strstr(e.text, "gone"));
    x.address[0] = 7;
    assert_int_equal(page.address[0], 7);
    assert_int_equal(evtchn_notify(&ch), 0);
    platform_evtchn_close(p, &ch);
    gntmap_unmap(map, &page);
    platform_close(p); /* with a map not put and an extent not freed */
    close(w.stop_fd);
    struct platform *none;
    struct platform_where where = {.run_dir = w.run_dir};
    assert_int_equal(platform_open(NULL, &where, NULL, &none, &e), -ECONNREFUSED);
    assert_non_null(strstr(e.text, "domzerod"));
    assert_int_equal(platform_open("moon", &where, NULL, &none, &e), -EINVAL);
    char command[128];
    snprintf(command, sizeof(command), "rm -r %s", w.run_dir);
    assert_int_equal(system(command), 0);
}

static pid_t store_process(struct fixture *f)
{
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct store_server *s;
        struct err e;
        if (store_server_new(f->w.run_dir, NULL, &s, &e) < 0 || write(ready[1], "", 1) != 1)
            _exit(1);
        struct pollfd p = {.fd = store_server_fd(s), .events = POLLIN};
        for (;;)
            if (poll(&p, 1, -1) < 0 || store_server_step(s, 64) < 0)
                _exit(1);
    }
    close(ready[1]);
    char byte;
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return pid;
}

static void test_each_domain_reaches_the_store_as_itself(void **state)
{
    struct fixture *f = *state;
    pid_t pid = store_process(f);
    struct store_client *s0, *s;
    struct err e = {""};
    _cleanup_free_ char *value = NULL;
    if (platform_store_open(f->dom0, &s0, &e) < 0)
        fail_msg("%s", e.text);
    assert_int_equal(store_introduce(s0, f->domid, 0, 1), 0);
    assert_int_equal(store_write(s0, STORE_NO_TX, "yes", "/test/%u", f->domid), 0);
    assert_int_equal(store_set_owner_reader(s0, STORE_NO_TX, 0, f->domid, "/test/%u", f->domid), 0);
    assert_int_equal(store_write(s0, STORE_NO_TX, "no", "/test/secret"), 0);
    assert_int_equal(store_set_owner_reader(s0, STORE_NO_TX, 0, 0, "/test/secret"), 0);
    if (platform_store_open(f->guest, &s, &e) < 0)
        fail_msg("%s", e.text);
    assert_int_equal(store_read(s, STORE_NO_TX, &value, NULL, "/test/%u", f->domid), 0);
    assert_string_equal(value, "yes");
    char *secret = NULL;
    assert_int_equal(store_read(s, STORE_NO_TX, &secret, NULL, "/test/secret"), -EACCES);
    store_client_close(s);
    char path[160];
    snprintf(path, sizeof(path), "%s/xenstored.sock", f->domain_dir);
    assert_int_equal(unlink(path), 0);
    snprintf(path, sizeof(path), "%s/xenstored/socket", f->w.run_dir);
    setenv("XENSTORED_PATH", path, 1);
    assert_int_equal(platform_store_open(f->guest, &s, &e), 0);
    unsetenv("XENSTORED_PATH");
    store_client_close(s);
    store_client_close(s0);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    snprintf(path, sizeof(path), "rm -r %s/xenstored", f->w.run_dir);
    assert_int_equal(system(path), 0);
}

static void test_quotas_arrive_as_edquot_with_the_limits_name(void **state)
{
    struct fixture *f = *state;
    struct platform_extent x;
    struct err e;
    assert_int_equal(platform_extent_alloc(f->guest, 0, 1u << 20, false, &x, &e), -EDQUOT);
    assert_non_null(strstr(e.text, "frames"));
    assert_int_equal(platform_extent_alloc(f->guest, 0, 0, false, &x, &e), -EINVAL);
    assert_int_equal(platform_extent_alloc(f->guest, 77, 1, false, &x, &e), -ENOENT);
    assert_int_equal(info(f, f->domid).refusals, 2);
}

#define WORLD_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_a_granted_page_is_the_same_page),
        WORLD_TEST(test_lesson_266_a_readonly_extent_refuses_writers),
        WORLD_TEST(test_a_grant_for_one_domain_is_no_other_ones),
        WORLD_TEST(test_lesson_350_memory_freed_under_a_map_stays_until_the_unmap),
        WORLD_TEST(test_a_killed_guest_leaves_nothing_when_its_backend_has_let_go),
        WORLD_TEST(test_events_that_arrive_during_a_call_keep_the_descriptor_readable),
        WORLD_TEST(test_event_channels_and_their_status),
        WORLD_TEST(test_a_destroyed_domain_is_told_to_the_watcher_and_dies_when_let_go),
        cmocka_unit_test(test_when_the_hypervisor_is_killed_all_calls_say_so_and_memory_stays),
        WORLD_TEST(test_each_domain_reaches_the_store_as_itself),
        WORLD_TEST(test_quotas_arrive_as_edquot_with_the_limits_name),
    };
    return cmocka_run_group_tests_name("platform", tests, NULL, NULL);
}
