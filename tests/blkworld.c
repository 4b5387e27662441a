/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <assert.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "backend/role.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/parse.h"
#include "base/unixsock.h"
#include "hypervisor/server.h"
#include "store/server.h"
#include "tests/blkworld.h"

static uint64_t patience_end(void)
{
    return clock_now_ns() + BLKWORLD_PATIENCE_MS * CLOCK_NS_PER_MS;
}

static void nap(uint64_t end_ns, const char *what)
{
    if (clock_now_ns() > end_ns)
        fail_msg("waited too long for %s", what);
    usleep(500);
}

/* ---- children ---- */

static int servers_main(const char *dir, int ready, int stop)
{
    struct hypervisor *h;
    struct store_server *s;
    struct err e;
    if (hypervisor_new(dir, &h, &e) || store_server_new(dir, NULL, &s, &e)) {
        log_error("%s", e.text);
        return 1;
    }
    if (write(ready, "r", 1) != 1)
        return 1;
    for (;;) {
        struct pollfd p[] = {{hypervisor_fd(h), POLLIN, 0}, {store_server_fd(s), POLLIN, 0}, {stop, POLLIN, 0}};
        poll(p, 3, -1);
        if (p[2].revents)
            break;
        if (hypervisor_step(h, 64) < 0 || store_server_step(s, 64) < 0)
            return 1;
    }
    store_server_free(s);
    hypervisor_free(h);
    return 0;
}

static int guest_main(const char *domain_dir, int ready);

static int role_main(const char *dir, const char *poll, int ready, int stop)
{
    const struct role_options o = {.run_dir = dir, .poll = poll, .ready_fd = ready, .stop_fd = stop};
    return role_blk_run(&o) ? 1 : 0;
}

void blkworld_child(int argc, char **argv)
{
    if (argc < 5)
        return;
    int ready = atoi(argv[2]), stop = atoi(argv[3]);
    log_setup(argv[1], getenv("BLKWORLD_VERBOSE") ? LOG_DEBUG : LOG_ERROR);
    if (!strcmp(argv[1], "servers"))
        exit(servers_main(argv[4], ready, stop));
    if (!strcmp(argv[1], "guest"))
        exit(guest_main(argv[4], ready));
    if (!strcmp(argv[1], "role"))
        exit(role_main(argv[4], argc > 5 ? argv[5] : NULL, ready, stop));
}

/* args[0] names the child, args[1] … follow the two descriptors. */
pid_t blkworld_spawn(const char *const *args, int *ready, int *stop)
{
    int up[2], down[2];
    char up_text[12], down_text[12];
    char self[256] = ""; /* its name: valgrind does not like /proc/self/exe itself to be executed */
    const char *argv[16] = {self, args[0], up_text, down_text};
    assert_true(readlink("/proc/self/exe", self, sizeof(self) - 1) > 0);
    assert_int_equal(pipe2(up, O_CLOEXEC), 0);
    assert_int_equal(pipe2(down, O_CLOEXEC), 0);
    snprintf(up_text, sizeof(up_text), "%d", up[1]);
    snprintf(down_text, sizeof(down_text), "%d", down[0]);
    for (unsigned i = 1; args[i]; i++)
        argv[3 + i] = args[i];
    pid_t pid = fork();
    if (pid == 0) {
        fcntl(up[1], F_SETFD, 0);
        fcntl(down[0], F_SETFD, 0);
        execv(argv[0], (char *const *)argv);
        _exit(127);
    }
    assert_true(pid > 0);
    close(up[1]);
    close(down[0]);
    *ready = up[0];
    *stop = down[1];
    return pid;
}

static void wait_ready(int ready)
{
    char byte;
    struct pollfd p = {ready, POLLIN, 0};
    assert_int_equal(poll(&p, 1, BLKWORLD_PATIENCE_MS), 1);
    assert_int_equal(read(ready, &byte, 1), 1);
    close(ready);
}

static void wait_exit(pid_t pid, int status_wanted)
{
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, status_wanted);
}

pid_t blkworld_guest_process(const char *domain_dir)
{
    int ready, stop;
    pid_t pid = blkworld_spawn((const char *const[]){"guest", domain_dir, NULL}, &ready, &stop);
    wait_ready(ready);
    close(stop);
    return pid;
}

void blkworld_kill(pid_t pid)
{
    kill(pid, SIGKILL);
    wait_exit(pid, SIGKILL);
}

void blkworld_role_start(struct blkworld *w, const char *poll)
{
    int ready;
    w->role = blkworld_spawn((const char *const[]){"role", w->dir, poll, NULL}, &ready, &w->role_stop);
    wait_ready(ready);
}

void blkworld_role_stop(struct blkworld *w)
{
    close(w->role_stop);
    wait_exit(w->role, 0);
    w->role = 0;
}

void blkworld_role_kill(struct blkworld *w)
{
    kill(w->role, SIGKILL);
    wait_exit(w->role, SIGKILL);
    close(w->role_stop);
    w->role = 0;
}

void blkworld_servers(struct blkworld *w)
{
    int ready;
    struct err e = {0};
    const char *base = getenv("DOMZERO_BUILD");
    *w = (struct blkworld){0};
    signal(SIGPIPE, SIG_IGN);
    snprintf(w->dir, sizeof(w->dir), "%s/blkworld-XXXXXX", base ? base : "/tmp");
    assert_non_null(mkdtemp(w->dir));
    w->servers = blkworld_spawn((const char *const[]){"servers", w->dir, NULL}, &ready, &w->servers_stop);
    wait_ready(ready);
    const struct platform_where where = {.run_dir = w->dir};
    if (platform_open(NULL, &where, NULL, &w->platform, &e) || platform_store_open(w->platform, &w->store, &e))
        fail_msg("%s", e.text);
}

void blkworld_start(struct blkworld *w, const char *poll)
{
    blkworld_servers(w);
    blkworld_role_start(w, poll);
}

void blkworld_stop(struct blkworld *w)
{
    char command[320];
    if (w->role)
        blkworld_role_stop(w);
    store_client_close(w->store);
    platform_close(w->platform);
    close(w->servers_stop);
    wait_exit(w->servers, 0);
    snprintf(command, sizeof(command), "rm -rf '%s'", w->dir);
    assert_int_equal(system(command), 0);
}

/* ---- the toolstack ---- */

uint16_t blkworld_domain(struct blkworld *w, const char *name, char *dir, size_t size)
{
    uint16_t domid;
    struct err e = {0};
    if (platform_domain_create(w->platform, name, &domid, dir, size, &e))
        fail_msg("%s", e.text);
    assert_int_equal(store_introduce(w->store, domid, 0, 0), 0);
    assert_int_equal(store_mkdir(w->store, STORE_NO_TX, "/local/domain/%u", domid), 0);
    assert_int_equal(store_set_owner_reader(w->store, STORE_NO_TX, domid, domid, "/local/domain/%u", domid), 0);
    return domid;
}

void blkworld_pattern(void *to, uint64_t sector, unsigned count, unsigned seed)
{
    uint64_t *word = to;
    for (uint64_t i = 0; i < count * 64ull; i++)
        word[i] = (sector * 64 + i) * 0x9e3779b97f4a7c15ull + seed;
}

void blkworld_image(struct blkworld *w, const char *name, uint64_t bytes, unsigned seed, char *path, size_t size)
{
    unsigned char chunk[PAGE_BYTES];
    snprintf(path, size, "%s/%s", w->dir, name);
    int fd = open(path, O_CREAT | O_RDWR | O_TRUNC, 0600);
    assert_true(fd >= 0);
    for (uint64_t at = 0; at < bytes; at += sizeof(chunk)) {
        blkworld_pattern(chunk, at / SECTOR_BYTES, sizeof(chunk) / SECTOR_BYTES, seed);
        assert_int_equal(pwrite(fd, chunk, sizeof(chunk), (off_t)at), sizeof(chunk));
    }
    close(fd);
}

static void store_ok(int rc)
{
    if (rc)
        fail_msg("store: %s", strerror(-rc));
}

void blkworld_attach(struct blkworld *w, uint16_t domid, uint32_t devid, struct keys_blk_config *config)
{
    struct xb_device f, b;
    struct err e = {0};
    store_tx tx;
    config->online = true;
    if (!config->format[0])
        strcpy(config->format, "raw");
    xb_device_init(&f, w->store, XB_FRONT, "vbd", domid, 0, devid);
    xb_device_init(&b, w->store, XB_BACK, "vbd", domid, 0, devid);
    store_ok(store_tx_start(w->store, &tx));
    store_ok(store_mkdir(w->store, tx, "%s", f.dir));
    store_ok(store_set_owner_reader(w->store, tx, domid, 0, "%s", f.dir));
    store_ok(store_mkdir(w->store, tx, "%s", b.dir));
    store_ok(store_set_owner_reader(w->store, tx, 0, domid, "%s", b.dir));
    store_ok(store_write(w->store, tx, b.dir, "%s/backend", f.dir));
    store_ok(store_write(w->store, tx, "0", "%s/backend-id", f.dir));
    store_ok(store_write(w->store, tx, "1", "%s/state", f.dir));
    store_ok(store_write(w->store, tx, f.dir, "%s/frontend", b.dir));
    store_ok(store_printf(w->store, tx, b.dir, "frontend-id", "%u", domid));
    store_ok(store_write(w->store, tx, "1", "%s/state", b.dir));
    if (keys_blk_config_write(w->store, tx, b.dir, config, "xvda", &e))
        fail_msg("%s", e.text);
    store_ok(store_tx_end(w->store, tx, false));
}

void blkworld_remove(struct blkworld *w, uint16_t domid, uint32_t devid)
{
    store_ok(store_rm(w->store, STORE_NO_TX, "/local/domain/0/backend/vbd/%u/%u", domid, devid));
    store_ok(store_rm(w->store, STORE_NO_TX, "/local/domain/%u/device/vbd/%u", domid, devid));
}

bool blkworld_back_is(struct blkworld *w, uint16_t domid, uint32_t devid, xb_state state)
{
    _cleanup_free_ char *text = NULL;
    if (store_read(w->store, STORE_NO_TX, &text, NULL, "/local/domain/0/backend/vbd/%u/%u/state", domid, devid))
        return false;
    return xb_state_parse(text) == state;
}

void blkworld_wait_back(struct blkworld *w, uint16_t domid, uint32_t devid, xb_state state)
{
    for (uint64_t end = patience_end(); !blkworld_back_is(w, domid, devid, state);)
        nap(end, xb_state_name(state));
}

void blkworld_error(struct blkworld *w, uint16_t domid, uint32_t devid, char *out, size_t size)
{
    _cleanup_free_ char *text = NULL;
    out[0] = 0;
    if (!store_read(w->store, STORE_NO_TX, &text, NULL, "/local/domain/0/backend/vbd/%u/%u/error", domid, devid))
        snprintf(out, size, "%s", text);
}

bool blkworld_stats(const char *run_dir, uint16_t domid, uint32_t devid, struct stats_blk_reply *out)
{
    char path[300];
    struct err e;
    snprintf(path, sizeof(path), "%s/%s", run_dir, STATS_BLK_SOCKET);
    _cleanup_close_ int fd = unixsock_connect(path, SOCK_SEQPACKET, &e);
    struct stats_blk_query q = stats_blk_after(domid, devid - 1);
    return fd >= 0 && stats_blk_ask(fd, &q, out, &e) == 1 && out->domid == domid && out->devid == devid;
}

uint64_t blkworld_number(const struct stats_blk_reply *r, const char *name)
{
    for (unsigned i = 0; i < stats_blk_row_count; i++)
        if (!strcmp(stats_blk_rows[i].name, name))
            return stats_blk_value(&r->stats, &stats_blk_rows[i]);
    for (unsigned i = 0; i < STATS_BLK_KINDS; i++)
        if (!strcmp(r->stats.error[i].name, name))
            return r->stats.error[i].count;
    for (unsigned i = 0; i < STATS_BLK_FAULTS; i++)
        if (!strcmp(r->stats.fault[i].name, name))
            return r->stats.fault[i].count;
    fail_msg("no %s in the statistics", name);
    return 0;
}

static uint64_t stat_of(struct blkworld *w, uint16_t domid, uint32_t devid, const char *word)
{
    struct stats_blk_reply r;
    return blkworld_stats(w->dir, domid, devid, &r) ? blkworld_number(&r, word) : 0;
}

uint64_t blkworld_stat(struct blkworld *w, uint16_t domid, uint32_t devid, const char *word, uint64_t at_least)
{
    uint64_t value, end = patience_end();
    while ((value = stat_of(w, domid, devid, word)) < at_least)
        nap(end, word);
    return value;
}

struct held {
    uint16_t domid;
    uint32_t extents;
};

static void held_count(void *ctx, const struct platform_domain *d)
{
    struct held *h = ctx;
    if (d->domid == h->domid)
        h->extents = d->held_extents;
}

uint32_t blkworld_held(struct blkworld *w, uint16_t domid)
{
    struct held h = {.domid = domid};
    assert_int_equal(platform_domain_list(w->platform, held_count, &h, NULL), 0);
    return h.extents;
}

void blkworld_wait_held(struct blkworld *w, uint16_t domid, uint32_t count)
{
    for (uint64_t end = patience_end(); blkworld_held(w, domid) != count;)
        nap(end, "memory to be given back");
}

/* ---- a guest ---- */

static void guest_grants(struct blkguest *g, struct err *e)
{
    struct gnttab *t = platform_gnttab(g->platform);
    for (unsigned i = 0; i < BLKWORLD_PAGES; i++)
        if (gnttab_grant(t, 0, g->memory.base_gfn + 1 + i, false, &g->gref[i], e))
            fail_msg("%s", e->text);
}

void blkguest_open(struct blkguest *g, const char *domain_dir, uint32_t devid)
{
    const struct platform_where where = {.domain_dir = domain_dir};
    struct err e = {0};
    *g = (struct blkguest){.channel = EVTCHN_NONE};
    if (platform_open(NULL, &where, NULL, &g->platform, &e) || platform_store_open(g->platform, &g->store, &e) ||
        platform_extent_alloc(g->platform, 0, 1 + BLKWORLD_PAGES, false, &g->memory, &e))
        fail_msg("%s", e.text);
    g->data = g->memory.address + PAGE_BYTES;
    xb_device_init(&g->xb, g->store, XB_FRONT, "vbd", platform_domid(g->platform), 0, devid);
    g->xb.state = XenbusStateInitialising;
    guest_grants(g, &e);
}

void blkguest_switch(struct blkguest *g, xb_state to)
{
    store_ok(store_printf(g->store, STORE_NO_TX, g->xb.dir, "state", "%d", (int)to));
    g->xb.state = to;
}

static void guest_wait_back(struct blkguest *g, xb_state state)
{
    for (uint64_t end = patience_end();;) {
        assert_int_equal(xb_device_read_peer(&g->xb), 0);
        if (g->xb.peer_state == state)
            return;
        nap(end, xb_state_name(state));
    }
}

void blkguest_offer(struct blkguest *g, const char *protocol)
{
    struct err e = {0};
    struct keys_blk_front keys = {.ring_ref_count = 1};
    guest_wait_back(g, XenbusStateInitWait);
    g->protocol = blk_protocol_find(protocol);
    ring_front_init(&g->ring, g->memory.address, PAGE_BYTES, g->protocol->slot_bytes);
    if (!g->ring_gref && gnttab_grant(platform_gnttab(g->platform), 0, g->memory.base_gfn, false, &g->ring_gref, &e))
        fail_msg("%s", e.text);
    if (platform_evtchn_alloc_unbound(g->platform, 0, &g->channel, &e))
        fail_msg("%s", e.text);
    keys.ring_ref[0] = g->ring_gref;
    keys.port = g->channel.port;
    snprintf(keys.protocol, sizeof(keys.protocol), "%s", protocol ? protocol : "");
    if (keys_blk_front_write(&g->xb, STORE_NO_TX, &keys, &e))
        fail_msg("%s", e.text);
    blkguest_switch(g, XenbusStateInitialised);
}

void blkguest_wait_connected(struct blkguest *g)
{
    struct err e = {0};
    guest_wait_back(g, XenbusStateConnected);
    if (keys_blk_disk_read(&g->xb, &g->disk, &e))
        fail_msg("%s", e.text);
    blkguest_switch(g, XenbusStateConnected);
}

void blkguest_connect(struct blkguest *g, const char *protocol)
{
    blkguest_offer(g, protocol);
    blkguest_wait_connected(g);
}

void blkguest_ring_end(struct blkguest *g)
{
    assert_int_equal(gnttab_end(platform_gnttab(g->platform), g->ring_gref), 0);
    g->ring_gref = 0;
    platform_evtchn_close(g->platform, &g->channel);
}

void blkguest_disconnect(struct blkguest *g)
{
    blkguest_switch(g, XenbusStateClosing);
    guest_wait_back(g, XenbusStateClosing);
    blkguest_switch(g, XenbusStateClosed);
    guest_wait_back(g, XenbusStateClosed);
    blkguest_ring_end(g); /* nothing of ours is mapped any more */
}

void blkguest_close(struct blkguest *g)
{
    for (unsigned i = 0; i < BLKWORLD_PAGES; i++)
        (void)gnttab_end(platform_gnttab(g->platform), g->gref[i]);
    platform_extent_free(g->platform, &g->memory);
    store_client_close(g->store);
    platform_close(g->platform);
}

uint64_t blkguest_put_raw(struct blkguest *g, const struct blkreq *req)
{
    unsigned char slot[sizeof(union blkif_sring_entry)] = {0};
    g->protocol->encode(req, slot);
    ring_front_put(&g->ring, slot, g->protocol->request_bytes);
    return req->id;
}

uint64_t blkguest_put(struct blkguest *g, uint8_t operation, uint64_t sector, unsigned page, unsigned segments,
                      unsigned first, unsigned last)
{
    struct blkreq req = {.id = ++g->next_id,
                         .operation = operation,
                         .operation_raw = operation,
                         .sector = sector,
                         .segment_count = (uint16_t)segments};
    for (unsigned i = 0; i < segments; i++)
        req.segment[i] = (struct blkreq_segment){g->gref[(page + i) % BLKWORLD_PAGES], (uint8_t)first, (uint8_t)last};
    return blkguest_put_raw(g, &req);
}

void blkguest_kick(struct blkguest *g)
{
    if (ring_front_push(&g->ring))
        assert_int_equal(evtchn_notify(&g->channel), 0);
}

/* A guest that never ends: reads and writes with a full ring, and a flush now and then. */
static void guest_load(struct blkguest *g)
{
    uint64_t id, sectors = g->disk.sectors;
    for (uint64_t n = 0;; n++) {
        while (ring_front_room(&g->ring)) {
            uint8_t operation = g->next_id % 7 == 0 ? BLKIF_OP_FLUSH_DISKCACHE : g->next_id % 2;
            unsigned segments = operation == BLKIF_OP_FLUSH_DISKCACHE ? 0 : 1 + (unsigned)(g->next_id % 11);
            blkguest_put(g, operation, g->next_id * 88 % (sectors - 88), (unsigned)g->next_id % BLKWORLD_PAGES,
                         segments, 0, 7);
        }
        blkguest_kick(g);
        if (blkguest_take(g, &id) != BLKIF_RSP_OKAY)
            return;
    }
}

static int guest_main(const char *domain_dir, int ready)
{
    struct blkguest g;
    blkguest_open(&g, domain_dir, BLKWORLD_DEVID);
    blkguest_switch(&g, XenbusStateInitialising);
    blkguest_connect(&g, NULL);
    if (write(ready, "r", 1) != 1)
        return 1;
    guest_load(&g);
    return 1;
}

int16_t blkguest_take(struct blkguest *g, uint64_t *id)
{
    unsigned char slot[sizeof(union blkif_sring_entry)];
    uint32_t waiting;
    int16_t status;
    uint8_t operation;
    for (uint64_t end = patience_end();;) {
        assert_int_equal(ring_front_pending(&g->ring, &waiting), 0);
        if (waiting)
            break;
        if (ring_front_arm(&g->ring))
            continue;
        assert_true(clock_now_ns() < end);
        assert_int_not_equal(evtchn_wait(&g->channel, BLKWORLD_PATIENCE_MS), -ETIMEDOUT);
    }
    ring_front_take(&g->ring, slot, g->protocol->response_bytes);
    g->protocol->decode_response(slot, id, &operation, &status);
    return status;
}

int16_t blkguest_do(struct blkguest *g, uint8_t operation, uint64_t sector, unsigned page, unsigned segments,
                    unsigned first, unsigned last)
{
    uint64_t id, wanted = blkguest_put(g, operation, sector, page, segments, first, last);
    blkguest_kick(g);
    int16_t status = blkguest_take(g, &id);
    assert_int_equal(id, wanted);
    return status;
}

void blkguest_check_served(struct blkguest *g, unsigned seed)
{
    unsigned char wanted[PAGE_BYTES];
    memset(g->data, 0, PAGE_BYTES);
    assert_int_equal(blkguest_do(g, BLKIF_OP_READ, 0, 0, 1, 0, 7), BLKIF_RSP_OKAY);
    blkworld_pattern(wanted, 0, 8, seed);
    assert_memory_equal(g->data, wanted, PAGE_BYTES);
}
