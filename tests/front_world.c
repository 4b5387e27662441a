/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "hypervisor/server.h"
#include "store/server.h"
#include "tests/front_world.h"

/* ---- the servers ---- */

static void serve(const char *run_dir, int ready_fd)
{
    struct hypervisor *h;
    struct store_server *s;
    struct err e;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGPIPE, SIG_IGN);
    if (hypervisor_new(run_dir, &h, &e) < 0 || store_server_new(run_dir, NULL, &s, &e) < 0) {
        fprintf(stderr, "servers: %s\n", e.text);
        _exit(1);
    }
    if (write(ready_fd, "", 1) != 1)
        _exit(1);
    for (;;) {
        struct pollfd p[] = {{hypervisor_fd(h), POLLIN, 0}, {store_server_fd(s), POLLIN, 0}};
        poll(p, 2, -1);
        if (p[0].revents && hypervisor_step(h, 64) < 0)
            _exit(1);
        if (p[1].revents && store_server_step(s, 64) < 0)
            _exit(1);
    }
}

static void servers_start(struct front_world *w)
{
    int ready[2];
    char byte;
    assert_int_equal(pipe(ready), 0);
    w->servers = fork();
    if (w->servers == 0)
        serve(w->run_dir, ready[1]);
    assert_true(w->servers > 0);
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
}

/* ---- the toolstack ---- */

struct xb_device front_world_device(struct front_world *w)
{
    struct xb_device d;
    xb_device_init(&d, w->store, XB_FRONT, "vbd", w->domid, 0, FRONT_DEVID);
    return d;
}

static void put(struct front_world *w, const char *dir, const char *key, const char *value)
{
    assert_int_equal(store_write(w->store, STORE_NO_TX, value, "%s/%s", dir, key), 0);
}

void front_world_disk_create(struct front_world *w)
{
    struct xb_device d = front_world_device(w);
    assert_int_equal(store_mkdir(w->store, STORE_NO_TX, "%s", d.peer_dir), 0);
    assert_int_equal(store_set_owner_reader(w->store, STORE_NO_TX, 0, w->domid, "%s", d.peer_dir), 0);
    put(w, d.peer_dir, "online", "1");
    put(w, d.peer_dir, "state", "1");
    assert_int_equal(store_mkdir(w->store, STORE_NO_TX, "%s", d.dir), 0);
    assert_int_equal(store_set_owner_reader(w->store, STORE_NO_TX, w->domid, 0, "%s", d.dir), 0);
    put(w, d.dir, "backend", d.peer_dir);
    put(w, d.dir, "backend-id", "0");
    put(w, d.dir, "virtual-device", "51712");
    put(w, d.dir, "state", "1");
}

void front_world_disk_remove(struct front_world *w)
{
    struct xb_device d = front_world_device(w);
    assert_int_equal(store_rm(w->store, STORE_NO_TX, "%s", d.peer_dir), 0);
    assert_int_equal(store_rm(w->store, STORE_NO_TX, "%s", d.dir), 0);
}

static xb_state state_in(struct front_world *w, const char *dir)
{
    _cleanup_free_ char *text = NULL;
    return store_read(w->store, STORE_NO_TX, &text, NULL, "%s/state", dir) < 0 ? XenbusStateUnknown
                                                                               : xb_state_parse(text);
}

xb_state front_world_front_state(struct front_world *w)
{
    struct xb_device d = front_world_device(w);
    return state_in(w, d.dir);
}

xb_state front_world_back_state(struct front_world *w)
{
    struct xb_device d = front_world_device(w);
    return state_in(w, d.peer_dir);
}

static void domain_create(struct front_world *w)
{
    struct err e = {""};
    struct platform_where where = {.run_dir = w->run_dir};
    if (platform_open(NULL, &where, NULL, &w->platform, &e) < 0 ||
        platform_store_open(w->platform, &w->store, &e) < 0 ||
        platform_domain_create(w->platform, "guest", &w->domid, w->domain_dir, sizeof(w->domain_dir), &e) < 0)
        fail_msg("%s", e.text);
    assert_int_equal(store_introduce(w->store, w->domid, 0, 1), 0);
    assert_int_equal(store_mkdir(w->store, STORE_NO_TX, "/local/domain/%u", w->domid), 0);
    assert_int_equal(store_set_owner_reader(w->store, STORE_NO_TX, w->domid, w->domid, "/local/domain/%u", w->domid),
                     0);
}

/* ---- the world ---- */

int front_world_setup(void **state)
{
    struct front_world *w = calloc(1, sizeof(*w));
    assert_non_null(w);
    signal(SIGPIPE, SIG_IGN);
    strcpy(w->run_dir, "/tmp/dz-front-XXXXXX");
    assert_non_null(mkdtemp(w->run_dir));
    w->back = mmap(NULL, sizeof(*w->back), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(w->back != MAP_FAILED);
    w->back->disk = (struct keys_blk_disk){.sectors = BACK_DISK_BYTES / SECTOR_BYTES,
                                           .sector_bytes = 512,
                                           .physical_sector_bytes = 4096,
                                           .flush_cache = true};
    w->back->features = (struct keys_blk_features){.max_queues = 1};
    servers_start(w);
    domain_create(w);
    front_world_disk_create(w);
    *state = w;
    return 0;
}

void front_world_servers_kill(struct front_world *w)
{
    if (!w->servers)
        return;
    kill(w->servers, SIGKILL);
    waitpid(w->servers, NULL, 0);
    w->servers = 0;
}

int front_world_teardown(void **state)
{
    struct front_world *w = *state;
    if (w->backend)
        front_world_backend_kill(w);
    store_client_close(w->store);
    platform_close(w->platform);
    front_world_servers_kill(w);
    munmap(w->back, sizeof(*w->back));
    char command[128];
    snprintf(command, sizeof(command), "rm -rf %s", w->run_dir);
    int r = system(command);
    free(w);
    return r;
}

/* ---- the backend's process ---- */

void front_world_mode(struct front_world *w, enum back_mode mode, unsigned after)
{
    w->back->after = after;
    w->back->mode = (int)mode;
}

void front_world_backend_start(struct front_world *w, enum back_mode mode, unsigned after)
{
    assert_int_equal(w->backend, 0);
    front_world_mode(w, mode, after);
    w->back->seen = 0;
    w->back->mapped_pages = 0;
    w->back->held = 0;
    fflush(NULL);
    w->backend = fork();
    if (w->backend == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close_range(3, ~0u, 0); /* the guest's connections too, which would outlive it */
        front_back_run(w);
    }
    assert_true(w->backend > 0);
}

void front_world_backend_reap(struct front_world *w)
{
    waitpid(w->backend, NULL, 0);
    w->backend = 0;
}

void front_world_backend_kill(struct front_world *w)
{
    kill(w->backend, SIGKILL);
    front_world_backend_reap(w);
}

void front_world_until(const _Atomic unsigned *counter, unsigned n)
{
    while (*counter < n)
        nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
}
