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

#include "backend/blk/journal.h"
#include "backend/role.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/parse.h"
#include "base/unixsock.h"
#include "hypervisor/server.h"
#include "store/server.h"
#include "tests/blkworld.h"

uint64_t blkworld_patience_end(void)
{
    return clock_now_ns() + BLKWORLD_PATIENCE_MS * CLOCK_NS_PER_MS;
}

void blkworld_nap(uint64_t end_ns, const char *what)
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

static int role_main(const char *dir, const char *poll, int ready, int stop)
{
    const char *reactors = getenv("BLKWORLD_REACTORS");
    const struct role_options o = {.run_dir = dir,
                                   .poll = poll,
                                   .reactors = reactors ? (unsigned)atoi(reactors) : 0,
                                   .ready_fd = ready,
                                   .stop_fd = stop,
                                   .journal_fd = atoi(getenv("BLKWORLD_JOURNAL"))};
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
        exit(blkguest_main(argv[4], ready));
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
    char journal[12];
    snprintf(journal, sizeof(journal), "%d", w->journal_fd);
    setenv("BLKWORLD_JOURNAL", journal, 1);
    w->role = blkworld_spawn((const char *const[]){"role", w->dir, poll, NULL}, &ready, &w->role_stop);
    wait_ready(ready);
}

void blkworld_role_start_with(struct blkworld *w, const char *poll, unsigned reactors)
{
    char text[12];
    snprintf(text, sizeof(text), "%u", reactors);
    setenv("BLKWORLD_REACTORS", text, 1);
    blkworld_role_start(w, poll);
    unsetenv("BLKWORLD_REACTORS");
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
    *w = (struct blkworld){.journal_fd = journal_create(&e)};
    assert_true(w->journal_fd > 0 && fcntl(w->journal_fd, F_SETFD, 0) == 0); /* children have it */
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
    close(w->journal_fd);
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

void blkworld_store_ok(int rc)
{
    if (rc)
        fail_msg("store: %s", strerror(-rc));
}

bool blkworld_shell(char *out, size_t size, const char *format, const char *arg)
{
    char command[512];
    snprintf(command, sizeof(command), format, arg);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    if (!fgets(out, (int)size, f))
        out[0] = 0;
    out[strcspn(out, "\n")] = 0;
    return pclose(f) == 0;
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
    blkworld_store_ok(store_tx_start(w->store, &tx));
    blkworld_store_ok(store_mkdir(w->store, tx, "%s", f.dir));
    blkworld_store_ok(store_set_owner_reader(w->store, tx, domid, 0, "%s", f.dir));
    blkworld_store_ok(store_mkdir(w->store, tx, "%s", b.dir));
    blkworld_store_ok(store_set_owner_reader(w->store, tx, 0, domid, "%s", b.dir));
    blkworld_store_ok(store_write(w->store, tx, b.dir, "%s/backend", f.dir));
    blkworld_store_ok(store_write(w->store, tx, "0", "%s/backend-id", f.dir));
    blkworld_store_ok(store_write(w->store, tx, "1", "%s/state", f.dir));
    blkworld_store_ok(store_write(w->store, tx, f.dir, "%s/frontend", b.dir));
    blkworld_store_ok(store_printf(w->store, tx, b.dir, "frontend-id", "%u", domid));
    blkworld_store_ok(store_write(w->store, tx, "1", "%s/state", b.dir));
    if (keys_blk_config_write(w->store, tx, b.dir, config, "xvda", &e))
        fail_msg("%s", e.text);
    int rc = store_tx_end(w->store, tx, false);
    if (rc == -EAGAIN) /* the role looked meanwhile */
        blkworld_attach(w, domid, devid, config);
    blkworld_store_ok(rc == -EAGAIN ? 0 : rc);
}

void blkworld_remove(struct blkworld *w, uint16_t domid, uint32_t devid)
{
    blkworld_store_ok(store_rm(w->store, STORE_NO_TX, "/local/domain/0/backend/vbd/%u/%u", domid, devid));
    blkworld_store_ok(store_rm(w->store, STORE_NO_TX, "/local/domain/%u/device/vbd/%u", domid, devid));
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
    for (uint64_t end = blkworld_patience_end(); !blkworld_back_is(w, domid, devid, state);)
        blkworld_nap(end, xb_state_name(state));
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
    uint64_t value, end = blkworld_patience_end();
    while ((value = stat_of(w, domid, devid, word)) < at_least)
        blkworld_nap(end, word);
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
    for (uint64_t end = blkworld_patience_end(); blkworld_held(w, domid) != count;)
        blkworld_nap(end, "memory to be given back");
}
