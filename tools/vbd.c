/* SPDX-License-Identifier: MIT */
#include "tools/vbd.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>

#include "base/clock.h"
#include "base/parse.h"
#include "tools/json.h"

#define WATCH_TOKEN "domzero"

void vbd_init(struct xb_device *d, struct store_client *store, uint16_t front, uint32_t devid)
{
    xb_device_init(d, store, XB_BACK, "vbd", front, 0, devid);
}

int vbd_find(struct tool *t, const char *domain_name, const char *vdev, struct platform_domain *domain,
             struct xb_device *d, struct err *e)
{
    uint32_t devid;
    if (keys_blk_devid(vdev, &devid))
        return err_set(e, -EINVAL, "\"%.40s\" is no virtual device: give one of block-list's, such as xvda", vdev);
    int r = tool_open(t, e);
    r = r ? r : tool_domain_find(t, domain_name, domain, e);
    if (r)
        return r;
    vbd_init(d, t->store, domain->domid, devid);
    if (xb_device_load(d, NULL) == -ENOENT)
        return err_set(e, -ENOENT, "domain %s has no disk %s; `domzero block-list %s` shows those there are",
                       domain->name, vdev, domain->name);
    return 0;
}

/* ---- making ---- */

/* An empty directory with the permissions of a device node: what is written into it inherits them. */
static int make_dir(struct xb_device *d, store_tx tx, const char *dir, unsigned owner, unsigned reader, struct err *e)
{
    int r = store_mkdir(d->store, tx, "%s", dir);
    r = r ? r : store_set_owner_reader(d->store, tx, owner, reader, "%s", dir);
    return r ? err_set(e, r, "cannot make %s: %s", dir, strerror(-r)) : 0;
}

static int make_front(struct xb_device *d, store_tx tx, const struct vmcfg_disk *disk, struct err *e)
{
    const char *dir = d->peer_dir;
    int r = make_dir(d, tx, dir, d->front_domid, d->back_domid, e);
    if (r < 0)
        return r;
    r = store_printf(d->store, tx, dir, "backend", "%s", d->dir);
    r = r ? r : store_printf(d->store, tx, dir, "backend-id", "%u", d->back_domid);
    r = r ? r : store_printf(d->store, tx, dir, "virtual-device", "%u", d->devid);
    r = r ? r : store_printf(d->store, tx, dir, "device-type", "%s", disk->config.cdrom ? "cdrom" : "disk");
    r = r ? r : store_printf(d->store, tx, dir, "state", "%d", XenbusStateInitialising);
    return r ? err_set(e, r, "cannot write into %s: %s", dir, strerror(-r)) : 0;
}

static int make_back(struct xb_device *d, store_tx tx, const struct vmcfg_disk *disk, struct err *e)
{
    const char *dir = d->dir;
    int r = make_dir(d, tx, dir, d->back_domid, d->front_domid, e);
    if (r < 0)
        return r;
    r = store_printf(d->store, tx, dir, "frontend", "%s", d->peer_dir);
    r = r ? r : store_printf(d->store, tx, dir, "frontend-id", "%u", d->front_domid);
    r = r ? r : store_printf(d->store, tx, dir, "state", "%d", XenbusStateInitialising);
    if (r < 0)
        return err_set(e, r, "cannot write into %s: %s", dir, strerror(-r));
    return keys_blk_config_write(d->store, tx, dir, &disk->config, disk->vdev, e);
}

static int make_body(struct xb_device *d, store_tx tx, void *arg, struct err *e)
{
    const struct vmcfg_disk *disk = arg;
    _cleanup_free_ char *state = NULL;
    int r = store_read(d->store, tx, &state, NULL, "%s/state", d->dir);
    if (r == 0)
        return err_set(e, -EEXIST, "domain %u has a disk %s already: block-detach it first", d->front_domid,
                       disk->vdev);
    if (r != -ENOENT)
        return err_set(e, r, "%s/state cannot be read: %s", d->dir, strerror(-r));
    r = store_rm(d->store, tx, "%s", d->peer_dir); /* what a frontend may have left */
    r = r ? r : make_front(d, tx, disk, e);
    return r ? r : make_back(d, tx, disk, e);
}

int vbd_make(struct xb_device *d, const struct vmcfg_disk *disk, struct err *e)
{
    return xb_transaction(d, make_body, (void *)(uintptr_t)disk, e);
}

/* ---- waiting ---- */

/* What is waited for: 0 it is so; -EAGAIN not yet; else the end of waiting. */
typedef int check_fn(struct xb_device *d, struct err *e);

static int drain_events(struct store_client *store)
{
    for (;;) {
        _cleanup_free_ char **event = NULL;
        const char *path, *token;
        int r = store_next_event(store, &event, &path, &token);
        if (r < 0)
            return r == -EAGAIN ? 0 : r;
    }
}

static const sigset_t *end_signals(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGHUP);
    return set;
}

void vbd_hold_signals(void)
{
    sigset_t set;
    sigprocmask(SIG_BLOCK, end_signals(&set), NULL);
}

/* Takes what is held: whether there was one. */
static bool take_signal(int signal_fd)
{
    struct signalfd_siginfo info;
    sigset_t set;
    if (signal_fd < 0 || read(signal_fd, &info, sizeof(info)) != sizeof(info))
        return false;
    sigprocmask(SIG_UNBLOCK, end_signals(&set), NULL);
    return true;
}

/* Checks now and after each event until the deadline. A signal that is not held never gets here. */
static int wait_loop(struct xb_device *d, unsigned timeout_ms, check_fn *check, struct err *e)
{
    const uint64_t deadline = clock_now_ns() + timeout_ms * CLOCK_NS_PER_MS;
    sigset_t set;
    _cleanup_close_ int signal_fd = signalfd(-1, end_signals(&set), SFD_CLOEXEC | SFD_NONBLOCK);
    for (;;) {
        int r = check(d, e);
        uint64_t now = clock_now_ns();
        if (r != -EAGAIN)
            return r;
        if (now >= deadline)
            return -ETIMEDOUT;
        struct pollfd p[] = {{.fd = store_client_fd(d->store), .events = POLLIN}, {.fd = signal_fd, .events = POLLIN}};
        if (poll(p, 2, (int)((deadline - now) / CLOCK_NS_PER_MS) + 1) < 0 && errno != EINTR)
            return err_set(e, -errno, "cannot wait for the store: %s", strerror(errno));
        if (take_signal(signal_fd))
            return err_set(e, -EINTR, "interrupted");
        r = drain_events(d->store);
        if (r < 0)
            return err_set(e, r, "the store went away (%s): is domzerod running?", strerror(-r));
    }
}

static int wait_until(struct xb_device *d, unsigned timeout_ms, check_fn *check, struct err *e)
{
    int r = store_watch(d->store, WATCH_TOKEN, "%s", d->dir);
    if (r < 0)
        return err_set(e, r, "cannot watch %s: %s", d->dir, strerror(-r));
    r = wait_loop(d, timeout_ms, check, e);
    store_unwatch(d->store, WATCH_TOKEN, "%s", d->dir);
    drain_events(d->store);
    return r;
}

static int check_ready(struct xb_device *d, struct err *e)
{
    _cleanup_free_ char *error = NULL, *text = NULL;
    /* The state first: the backend writes its reason before it goes to Closing. */
    int r = store_read(d->store, STORE_NO_TX, &text, NULL, "%s/state", d->dir);
    if (r < 0)
        return err_set(e, r, "%s/state cannot be read (%s): did somebody remove it?", d->dir, strerror(-r));
    if (store_read(d->store, STORE_NO_TX, &error, NULL, "%s/error", d->dir) == 0) {
        char *words = strchr(error, ' '); /* behind the number */
        return err_set(e, -EIO, "%s", json_plain(words ? words + 1 : error));
    }
    switch (xb_state_parse(text)) {
    case XenbusStateInitialising: return -EAGAIN;
    case XenbusStateInitWait:
    case XenbusStateInitialised:
    case XenbusStateConnected: return 0;
    default:
        return err_set(e, -EIO, "the backend went to %s and gave no reason; see domzerod's log",
                       xb_state_name(xb_state_parse(text)));
    }
}

int vbd_wait_ready(struct xb_device *d, unsigned timeout_ms, struct err *e)
{
    int r = wait_until(d, timeout_ms, check_ready, e);
    if (r == -ETIMEDOUT)
        return err_set(e, r,
                       "no backend took it within %u s: is its image in use elsewhere, is domzerod's blk role running?",
                       timeout_ms / 1000);
    return r;
}

static int check_closed(struct xb_device *d, struct err *e)
{
    _cleanup_free_ char *text = NULL;
    int r = store_read(d->store, STORE_NO_TX, &text, NULL, "%s/state", d->dir);
    if (r == -ENOENT)
        return 0;
    if (r < 0)
        return err_set(e, r, "%s/state cannot be read: %s", d->dir, strerror(-r));
    return xb_state_parse(text) == XenbusStateClosed ? 0 : -EAGAIN;
}

int vbd_wait_closed(struct xb_device *d, unsigned timeout_ms, struct err *e)
{
    int r = wait_until(d, timeout_ms, check_closed, e);
    if (r == -ETIMEDOUT)
        return err_set(e, r, "not closed within %u s", timeout_ms / 1000);
    return r;
}

/* ---- changing ---- */

/* One process asks for one change at a time. */
static void change_id(char out[24])
{
    snprintf(out, 24, "%ld", (long)getpid());
}

static int change_body(struct xb_device *d, store_tx tx, void *arg, struct err *e)
{
    int r = store_rm(d->store, tx, "%s/domzero/done", d->dir); /* of somebody who had our number */
    return r ? err_set(e, r, "%s/domzero cannot be changed: %s", d->dir, strerror(-r))
             : keys_blk_set_write(d->store, tx, d->dir, arg, e);
}

static int check_changed(struct xb_device *d, struct err *e)
{
    char id[24];
    change_id(id);
    return keys_blk_set_answered(d->store, d->dir, id, e);
}

int vbd_change(struct xb_device *d, struct keys_blk_set *set, unsigned timeout_ms, struct err *e)
{
    change_id(set->id);
    int r = xb_transaction(d, change_body, set, e);
    r = r ? r : wait_until(d, timeout_ms, check_changed, e);
    if (r == -ETIMEDOUT)
        return err_set(e, r,
                       "the backend has not done it within %u s: it will when what is under way has ended, if "
                       "domzerod's blk role is running",
                       timeout_ms / 1000);
    return r;
}

/* ---- closing ---- */

/* Whether somebody may use it, by what the frontend shows. */
static int front_held(struct xb_device *d, store_tx tx, bool *held)
{
    _cleanup_free_ char *text = NULL;
    int r = store_read(d->store, tx, &text, NULL, "%s/state", d->peer_dir);
    if (r < 0 && r != -ENOENT)
        return r;
    xb_state s = r < 0 ? XenbusStateUnknown : xb_state_parse(text);
    *held = s == XenbusStateInitialised || s == XenbusStateConnected || s == XenbusStateClosing;
    return 0;
}

static int ask_close_body(struct xb_device *d, store_tx tx, void *arg, struct err *e)
{
    const bool *guest_lives = arg;
    bool held = false;
    _cleanup_free_ char *text = NULL;
    int r = store_read(d->store, tx, &text, NULL, "%s/state", d->dir);
    if (r == -ENOENT)
        return 0;
    r = r ? r : front_held(d, tx, &held);
    r = r ? r : store_printf(d->store, tx, d->dir, "online", "0");
    xb_state s = r ? XenbusStateUnknown : xb_state_parse(text);
    if (r == 0 && s != XenbusStateClosing && s != XenbusStateClosed)
        r = store_printf(d->store, tx, d->dir, "state", "%d", XenbusStateClosing);
    if (r == 0 && !(held && *guest_lives))
        r = store_rm(d->store, tx, "%s", d->peer_dir);
    return r ? err_set(e, r, "cannot ask for a close in %s: %s", d->dir, strerror(-r)) : 0;
}

int vbd_ask_close(struct xb_device *d, bool guest_lives, struct err *e)
{
    return xb_transaction(d, ask_close_body, &guest_lives, e);
}

/* An ancestor that holds nothing else goes too. */
static int remove_empty(struct xb_device *d, store_tx tx, const char *dir)
{
    _cleanup_free_ char **names = NULL;
    unsigned count = 0;
    int r = store_directory(d->store, tx, &names, &count, "%s", dir);
    if (r == -ENOENT)
        return 0;
    return r < 0 || count ? r : store_rm(d->store, tx, "%s", dir);
}

static int remove_body(struct xb_device *d, store_tx tx, void *arg, struct err *e)
{
    (void)arg;
    char parent[sizeof(d->dir)], error_parent[sizeof(d->dir) + 32];
    snprintf(parent, sizeof(parent), "/local/domain/%u/backend/%s/%u", d->back_domid, d->class, d->front_domid);
    snprintf(error_parent, sizeof(error_parent), "/local/domain/%u/error/backend/%s/%u", d->back_domid, d->class,
             d->front_domid);
    int r = store_rm(d->store, tx, "%s", d->peer_dir);
    r = r ? r : store_rm(d->store, tx, "%s", d->dir);
    r = r ? r : store_rm(d->store, tx, "%s/%u", error_parent, d->devid);
    r = r ? r : remove_empty(d, tx, parent);
    r = r ? r : remove_empty(d, tx, error_parent);
    return r ? err_set(e, r, "cannot remove %s: %s", d->dir, strerror(-r)) : 0;
}

int vbd_remove(struct xb_device *d, struct err *e)
{
    return xb_transaction(d, remove_body, NULL, e);
}

/* ---- listing ---- */

static int by_number(const void *a, const void *b)
{
    const uint32_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

int vbd_list(struct store_client *store, uint16_t front, uint32_t **devids, struct err *e)
{
    _cleanup_free_ char **names = NULL;
    unsigned names_count = 0;
    int count = 0;
    int r = store_directory(store, STORE_NO_TX, &names, &names_count, "/local/domain/0/backend/vbd/%u", front);
    if (r < 0 && r != -ENOENT)
        return err_set(e, r, "the disks of domain %u cannot be listed: %s", front, strerror(-r));
    *devids = calloc(names_count + 1, sizeof(**devids));
    if (!*devids)
        return err_set(e, -ENOMEM, "no memory");
    for (unsigned i = 0; i < names_count; i++) {
        uint64_t devid;
        if (parse_u64(names[i], 0, UINT32_MAX, &devid) == 0)
            (*devids)[count++] = (uint32_t)devid;
    }
    qsort(*devids, (size_t)count, sizeof(**devids), by_number);
    return count;
}
