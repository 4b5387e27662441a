/* SPDX-License-Identifier: MIT */
/* tools/upgrade.c: `domzero upgrade`: a running role is replaced, and how long guests saw a pause.
 *
 * The pause is measured from outside: from the moment in which the old role was told to end until each disk that was
 * connected before is connected again, as the store shows it. */
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/parse.h"
#include "base/unixsock.h"
#include "tools/verb.h"
#include "xenbus/state.h"
#include "xenbus/upgrade.h"

#define UPGRADE_RECONNECT_MS 10000 /* a guest that is stopped or slow is not waited for longer */
#define BACKEND_DIR          "/local/domain/0/backend/vbd"

/* Directories of disks. */
struct disks {
    char (*dir)[96];
    unsigned count, room;
};

static bool connected(struct store_client *c, const char *dir, bool *gone)
{
    _cleanup_free_ char *text = NULL;
    *gone = store_read(c, STORE_NO_TX, &text, NULL, "%s/state", dir) != 0;
    return !*gone && xb_state_parse(text) == XenbusStateConnected;
}

static int disks_add(struct disks *d, struct store_client *c, const char *domid, const char *devid)
{
    bool gone;
    char dir[96];
    snprintf(dir, sizeof(dir), BACKEND_DIR "/%.20s/%.20s", domid, devid);
    if (!connected(c, dir, &gone))
        return 0;
    if (d->count == d->room) {
        unsigned room = d->room ? 2 * d->room : 64;
        void *more = realloc(d->dir, room * sizeof(d->dir[0]));
        if (!more)
            return -ENOMEM;
        d->dir = more;
        d->room = room;
    }
    memcpy(d->dir[d->count++], dir, sizeof(dir));
    return 0;
}

static int disks_find(struct disks *d, struct store_client *c)
{
    _cleanup_free_ char **domids = NULL;
    int r = 0;
    if (store_directory(c, STORE_NO_TX, &domids, NULL, BACKEND_DIR))
        return 0;
    for (char **domid = domids; *domid && !r; domid++) {
        _cleanup_free_ char **devids = NULL;
        if (store_directory(c, STORE_NO_TX, &devids, NULL, BACKEND_DIR "/%s", *domid))
            continue;
        for (char **devid = devids; *devid && !r; devid++)
            r = disks_add(d, c, *domid, *devid);
    }
    return r;
}

/* Until all are connected again or gone: how many are not. */
static unsigned disks_await(struct disks *d, struct store_client *c)
{
    uint64_t end_ns = clock_now_ns() + UPGRADE_RECONNECT_MS * CLOCK_NS_PER_MS;
    unsigned left = d->count;
    while (left && clock_now_ns() < end_ns) {
        bool gone;
        if (connected(c, d->dir[left - 1], &gone) || gone)
            left--;
        else
            poll(NULL, 0, 1);
    }
    return left;
}

static int upgrade_ask(const struct tool *t, const char *role, const char *program, struct upgrade_reply *reply,
                       struct err *e)
{
    char path[TOOL_PATH_MAX + sizeof(UPGRADE_SOCKET) + 1];
    struct upgrade_query q = {.magic = UPGRADE_MAGIC, .length_bytes = sizeof(q)};
    snprintf(path, sizeof(path), "%s/%s", t->run_dir, UPGRADE_SOCKET);
    snprintf(q.program, sizeof(q.program), "%s", program);
    snprintf(q.role, sizeof(q.role), "%s", role);
    _cleanup_close_ int fd = unixsock_connect(path, SOCK_SEQPACKET, e);
    if (fd < 0)
        return fd;
    int r = unixsock_send(fd, &q, sizeof(q), NULL, 0, 0);
    ssize_t n = r ? r : unixsock_recv(fd, reply, sizeof(*reply), NULL, NULL, 0);
    if (n < 0 && n != -EMSGSIZE)
        return err_set(e, (int)n, "%s: %s", path, strerror((int)-n));
    if (n != sizeof(*reply) || reply->magic != UPGRADE_MAGIC || reply->length_bytes != sizeof(*reply))
        return err_set(e, -EPROTO, "the daemon at %s is of another version: restart it once", path);
    reply->text[sizeof(reply->text) - 1] = 0;
    return reply->result < 0 ? err_set(e, reply->result, "%s", reply->text) : 0;
}

static void store_print(const struct upgrade_reply *reply)
{
    printf("store: pid %" PRIu32 " goes on as the other binary, pause %.1f ms\n", reply->pid_before,
           (double)(reply->served_ns - reply->stop_ns) / 1e6);
}

static void upgrade_print(const struct upgrade_reply *reply, const struct disks *d, unsigned left)
{
    double over_ms = (double)(reply->served_ns - reply->stop_ns) / 1e6;
    double pause_ms = (double)(clock_now_ns() - reply->stop_ns) / 1e6;
    printf("blk: pid %" PRIu32 " replaced by pid %" PRIu32 ", taken over after %.1f ms\n", reply->pid_before,
           reply->pid_after, over_ms);
    if (reply->killed)
        printf("the old one was killed: some of its I/O does not end; disks that had it wait for that\n");
    if (d->count)
        printf("%u of %u disks are connected again, pause %.1f ms\n", d->count - left, d->count, pause_ms);
}

static int upgrade_run(struct tool *t, int argc, char **argv, struct err *e)
{
    const char *binary = NULL, *role = NULL;
    _cleanup_free_ char *program = NULL;
    struct upgrade_reply reply = {0};
    struct disks d = {0};
    int r = tool_option(&argc, argv, "--binary", &binary);
    if (r >= 0)
        r = tool_option(&argc, argv, "--role", &role);
    role = role ? role : "blk";
    bool store = strcmp(role, "store") == 0;
    if (r < 0 || argc || (!store && strcmp(role, "blk") != 0))
        return VERB_USAGE;
    if (binary && !(program = realpath(binary, NULL)))
        return err_set(e, -errno, "%.200s: %s", binary, strerror(errno));
    if (program && strlen(program) >= sizeof(((struct upgrade_query *)0)->program))
        return err_set(e, -ENAMETOOLONG, "the binary's path is too long");
    r = tool_open(t, e);
    if (r)
        return r;
    if (!store && disks_find(&d, t->store))
        r = err_set(e, -ENOMEM, "out of memory");
    r = r ? r : upgrade_ask(t, role, program ? program : "", &reply, e);
    if (!r && store)
        store_print(&reply);
    else if (!r)
        upgrade_print(&reply, &d, disks_await(&d, t->store));
    free(d.dir);
    return r;
}

const struct verb verb_upgrade = {
    .name = "upgrade",
    .arguments = "[--role blk|store] [--binary PATH]",
    .summary = "replace the binary of the block role or of the store under load",
    .help =
        "Without --binary: the one that the daemon was started from, as it is on the disk now. The new one gets ready\n"
        "beside the old; where it cannot, the old one goes on serving. Guests see a pause and no error.\n"
        "--role store: the store goes on as that binary, with all connections, watches and transactions.\n",
    .run = upgrade_run,
};
