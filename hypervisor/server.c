/* SPDX-License-Identifier: MIT */
#include "hypervisor/server.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/fdlimit.h"
#include "base/parse.h"
#include "base/unixsock.h"
#include "hypervisor/dispatch.h"
#include "hypervisor/instance.h"

/* Stdio, epoll, what an operation opens in passing, and what a peer may pass to us in one message: where there is no
 * room for that the kernel closes it, in our name (base/burial.h). */
#define DESCRIPTORS_OWN  (64 + 256)
#define MESSAGES_A_TURN  4 /* of one connection, before the others have theirs: unmeasured */
#define RUN_DIR_PATH_MAX 512

const struct hypervisor_limits hypervisor_limits_default = {
    .instances = 16,
    .extents = 256,
    .frames = 65536,
    .grant_frames = 64,
    .ports = 256,
};

static loop_fn accepted;

/* Reads one request and acts on it: false where nothing more is to be read now. */
static bool serve_one(struct instance *i)
{
    struct hv_request_create request;
    ssize_t n = unixsock_recv_plain(i->fd, &request, sizeof(request), MSG_DONTWAIT);
    if (n == -EAGAIN)
        return false;
    if (n == 0 || n == -ECONNRESET) {
        instance_doom(i, NULL);
        return false;
    }
    const char *why = n == -EMSGSIZE ? "longer than a request"
                      : n == -EPERM  ? "passes descriptors"
                      : n < 0        ? strerror((int)-n)
                                     : hv_request_check(&request, (size_t)n);
    if (!why && !i->greeted != (request.head.op == HV_HELLO))
        why = i->greeted ? "greets twice" : "does not greet";
    if (why) {
        instance_doom(i, why);
        return false;
    }
    dispatch(i, &request, accepted);
    return !i->doomed && i->queued == 0;
}

static void connection_ready(struct loop_source *s, uint32_t epoll_events)
{
    struct instance *i = container_of(s, struct instance, source);
    struct hypervisor *h = i->domain->h;
    if (i->queued && !instance_flush(i)) {
        if (epoll_events & (EPOLLHUP | EPOLLERR))
            instance_doom(i, NULL);
        return;
    }
    for (int turn = 0; turn < MESSAGES_A_TURN; turn++) {
        h->budget_left -= h->budget_left > 0; /* a round that has begun is gone through: each has its turn */
        h->served++;
        if (!serve_one(i))
            return;
    }
}

static void refuse(struct domain *d, int fd, int error, const char *why)
{
    struct hv_event event = {.op = HV_REFUSED, .domid = d->domid, .value = (uint32_t)-error};
    unixsock_send(fd, &event, sizeof(event), NULL, 0, MSG_DONTWAIT);
    log_peer(&d->limiter, "domain %u: a connection was refused: %s", d->domid, why);
}

static void accepted(struct loop_source *s, uint32_t epoll_events)
{
    (void)epoll_events;
    struct domain *d = container_of(s, struct domain, source);
    uid_t uid = (uid_t)-1;
    _cleanup_(unixsock_close_served) int fd = unixsock_accept(d->listen_fd, &uid, NULL);
    if (fd < 0)
        return; /* gone meanwhile; of the descriptors some are kept back, DESCRIPTORS_OWN */
    if (uid != geteuid() && uid != 0) {
        refuse(d, fd, -EACCES, "it comes from another user");
        return;
    }
    int r = instance_new(d, fd, connection_ready);
    if (r < 0) {
        d->refusals += r == -EDQUOT;
        refuse(d, fd, r, r == -EDQUOT ? "it has its limit of instances or descriptors" : strerror(-r));
        return;
    }
    take_fd(&fd);
}

/* Frees the doomed. */
static void reap(struct hypervisor *h)
{
    while (!list_empty(&h->doomed))
        instance_free(list_entry(h->doomed.next, struct instance, doomed_link));
}

int hypervisor_fd(const struct hypervisor *h)
{
    return h->loop.epoll_fd;
}

int hypervisor_step(struct hypervisor *h, unsigned budget)
{
    h->budget_left = budget;
    h->served = 0;
    while (h->budget_left) {
        unsigned before = h->served;
        int r = loop_step(&h->loop, 0);
        reap(h);
        if (r < 0)
            return r;
        if (r == 0 || h->served == before)
            break;
    }
    return (int)h->served;
}

static int dir_make(const char *path, struct err *e)
{
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return err_set(e, -errno, "cannot make the run directory %s: %s", path, strerror(errno));
    return 0;
}

/* What a server that was killed left behind: its domids do not come again at once, its sockets go. */
static void leftovers_clear(struct hypervisor *h, const char *dom_dir)
{
    DIR *dir = opendir(dom_dir);
    struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        uint64_t domid;
        if (parse_u64(entry->d_name, 1, HV_DOMID_MAX, &domid) < 0)
            continue;
        char path[RUN_DIR_PATH_MAX + 64];
        snprintf(path, sizeof(path), "%s/%u/hypervisor.sock", dom_dir, (unsigned)domid);
        unlink(path);
        snprintf(path, sizeof(path), "%s/%u/xenstored.sock", dom_dir, (unsigned)domid);
        unlink(path);
        snprintf(path, sizeof(path), "%s/%u", dom_dir, (unsigned)domid);
        rmdir(path);
        if (domid >= h->next_domid)
            h->next_domid = domid == HV_DOMID_MAX ? 1 : (uint16_t)(domid + 1);
    }
    if (dir)
        closedir(dir);
}

static int dirs_make(struct hypervisor *h, struct err *e)
{
    char path[RUN_DIR_PATH_MAX];
    int n = snprintf(path, sizeof(path), "%s/dom", h->run_dir);
    if (n >= (int)sizeof(path))
        return err_set(e, -ENAMETOOLONG, "run directory %s: its name is too long", h->run_dir);
    int r = dir_make(h->run_dir, e);
    if (r == 0)
        r = dir_make(path, e);
    if (r == 0)
        leftovers_clear(h, path);
    return r;
}

static int descriptors_raise(struct hypervisor *h, struct err *e)
{
    rlim_t most = 0;
    int r = fdlimit_raise(&most);
    if (r < 0)
        return err_set(e, r, "cannot raise RLIMIT_NOFILE: %s", strerror(-r));
    most = MIN(most, 1u << 20);
    h->descriptors_max = most > DESCRIPTORS_OWN ? (uint32_t)most - DESCRIPTORS_OWN : 0;
    return 0;
}

int hypervisor_new(const char *run_dir, struct hypervisor **out, struct err *e)
{
    struct hypervisor *h = calloc(1, sizeof(*h));
    if (!h)
        return err_set(e, -ENOMEM, "no memory");
    h->limits = hypervisor_limits_default;
    h->next_domid = 1;
    list_init(&h->doomed);
    struct domain *dom0;
    int r = loop_init(&h->loop);
    h->kick_fd = eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC);
    if (r == 0 && h->kick_fd < 0)
        r = -errno;
    if (r == 0)
        r = (h->run_dir = strdup(run_dir)) ? 0 : -ENOMEM;
    if (r == 0)
        r = descriptors_raise(h, e);
    if (r == 0)
        r = dirs_make(h, e);
    if (r == 0)
        r = domain_new(h, 0, "Domain-0", accepted, &dom0, e);
    if (r < 0) {
        hypervisor_free(h);
        return r;
    }
    *out = h;
    return 0;
}

void hypervisor_free(struct hypervisor *h)
{
    if (!h)
        return;
    /* Domain 0 last: it is what may hold memory of the others. Whoever is left holds nothing when all are gone. */
    for (uint32_t domid = HV_DOMID_MAX; domid > 0; domid--)
        if (h->domains[domid] && !h->domains[domid]->dying)
            domain_destroy(h->domains[domid]);
    while (h->domains[0] && !list_empty(&h->domains[0]->instances))
        instance_free(list_entry(h->domains[0]->instances.next, struct instance, link));
    domain_free(h->domains[0]);
    if (h->run_dir) {
        char path[RUN_DIR_PATH_MAX];
        snprintf(path, sizeof(path), "%s/dom", h->run_dir);
        rmdir(path);
    }
    loop_deinit(&h->loop);
    fd_closep(&h->kick_fd);
    free(h->run_dir);
    free(h);
}
