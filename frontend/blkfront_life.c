/* SPDX-License-Identifier: MIT */
/* frontend/blkfront_life.c: a disk's xenbus life, from the guest's end. Everything here is store round trips.
 *
 *   open       whatever a dead process of this domain left is closed as the protocol asks (5, 6), then 1; the backend
 *              comes to InitWait; keys and 3 in one transaction; the backend connects; the disk's keys are checked; 4
 *   reconnect  the backend was restarted and shows InitWait under our 4: fresh ring and channel, keys and 3; at its 4,
 *              ours, and the replay
 *   detach     the backend shows Closing: 5, the responses that still come are taken, the rest is -ENODEV, 6
 *   close      5, its 5 or 6, 6, its 6
 *
 * What a state pair asks for comes from xenbus/state.h. A process says that it is alive in its front directory, beside
 * the event channel's port, as its platform instance: ports are numbers that get used again, so the port alone does not
 * tell whether a connected-looking directory has a living owner.
 *
 * The backend may write anything into its directory at any time: keys are read once, judged whole, kept privately. A
 * disk may grow or shrink while connected (`sectors` and state 4 rewritten) but never change its sector size.
 */
#include "frontend/blkfront.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"

#define KEY_INSTANCE     "domzero/instance"
#define VBD_WATCH_TOKEN  "vbd"
#define BACKEND_SAYS_MAX 160 /* of a backend's own words in our sentences */

void vbd_fail(struct dz_vbd *v, int code, const char *fmt, ...)
{
    if (v->life == VBD_FAILED)
        return;
    va_list args;
    va_start(args, fmt);
    vsnprintf(v->why.text, sizeof(v->why.text), fmt, args);
    va_end(args);
    err_prefix(&v->why, code, "%s", v->name);
    v->life = VBD_FAILED;
    v->failed = code;
    if (!v->world_gone)
        xb_device_fatal(&v->device, code, v->why.text);
    vbd_abort(v, code);
}

/* ---- the channel ---- */

static void channel_close(struct dz_vbd *v)
{
    if (v->channel.wait_fd < 0)
        return;
    vbd_source_remove(v, v->channel.wait_fd);
    platform_evtchn_close(v->dom->platform, &v->channel);
    v->channel = EVTCHN_NONE;
}

static int channel_open(struct dz_vbd *v, struct err *e)
{
    channel_close(v);
    int r = platform_evtchn_alloc_unbound(v->dom->platform, v->device.back_domid, &v->channel, e);
    if (r < 0) {
        v->channel = EVTCHN_NONE;
        return r;
    }
    return vbd_source_add(v, VBD_SOURCE_CHANNEL, v->channel.wait_fd);
}

/* ---- publishing ---- */

/* Is our directory as it was when we decided? Another process of this domain that opens the disk and was first wins. */
static int still_ours(struct xb_device *d, store_tx tx, struct err *e)
{
    _cleanup_free_ char *state = NULL;
    int r = store_read(d->store, tx, &state, NULL, "%s/state", d->dir);
    if (r < 0)
        return err_set(e, r == -ENOENT ? -ENODEV : r, "%s is gone: the disk was detached", d->dir);
    if (xb_state_parse(state) != d->state)
        return err_set(e, -EBUSY, "another process of this domain opens the disk, too");
    return 0;
}

static int publish_body(struct xb_device *d, store_tx tx, void *arg, struct err *e)
{
    struct dz_vbd *v = arg;
    int r = still_ours(d, tx, e);
    if (r == 0)
        r = xb_device_confirm_peer(d, tx, e);
    if (r < 0)
        return r;
    struct keys_blk_front keys = {.queue_count = 1,
                                  .ring_order = v->ring_order,
                                  .ring_ref_count = 1u << v->ring_order,
                                  .queue[0].port = v->channel.port};
    memcpy(keys.queue[0].ring_ref, v->ring_pool->gref, keys.ring_ref_count * sizeof(keys.queue[0].ring_ref[0]));
    snprintf(keys.protocol, sizeof(keys.protocol), "%s", blk_protocol_native.name);
    r = keys_blk_front_write(d, tx, &keys, e);
    if (r < 0)
        return r;
    r = store_printf(d->store, tx, d->dir, KEY_INSTANCE, "%u", platform_instance(v->dom->platform));
    if (r < 0)
        return err_set(e, r, "cannot write %s/%s: %s", d->dir, KEY_INSTANCE, strerror(-r));
    return xb_device_switch(d, tx, XenbusStateInitialised, e);
}

/* A fresh ring and channel, and the backend told of both. */
static int publish(struct dz_vbd *v, struct err *e)
{
    struct keys_blk_features offer;
    int r = keys_blk_features_read(&v->device, &offer, e);
    if (r == 0)
        r = vbd_memory_fit(v, &offer, e);
    if (r == 0)
        r = channel_open(v, e);
    if (r < 0)
        return r;
    vbd_ring_init(v);
    r = xb_transaction(&v->device, publish_body, v, e);
    v->ours |= r == 0;
    return r;
}

/* ---- the disk's properties ---- */

/* keys_blk_disk_read() judged each key; what is left is that requests in flight were made for these sectors. */
static int disk_check(const struct dz_vbd *v, const struct keys_blk_disk *disk, struct err *e)
{
    if (v->opened && disk->sector_bytes != v->info.sector_bytes)
        return err_set(e, -EPROTO, "the backend changed the sector size from %u to %u bytes", v->info.sector_bytes,
                       disk->sector_bytes);
    return 0;
}

static int disk_read(struct dz_vbd *v, struct err *e)
{
    struct keys_blk_disk disk;
    int r = keys_blk_disk_read(&v->device, &disk, e);
    if (r == 0)
        r = disk_check(v, &disk, e);
    if (r < 0)
        return r;
    v->info = (struct dz_vbd_info){
        .size_bytes = disk.sectors * SECTOR_BYTES,
        .sector_bytes = disk.sector_bytes,
        .physical_sector_bytes = disk.physical_sector_bytes,
        .readonly = disk.info & KEYS_BLK_INFO_READONLY,
        .flush = disk.flush_cache,
        .discard = disk.discard && !(disk.info & KEYS_BLK_INFO_READONLY),
        .discard_granularity_bytes = disk.discard_granularity_bytes,
        .queue_depth = v->slots,
        .request_bytes_max = v->segments_max * PAGE_BYTES,
    };
    return 0;
}

/* ---- reactions ---- */

static int connected_body(struct xb_device *d, store_tx tx, void *arg, struct err *e)
{
    (void)arg;
    int r = xb_device_confirm_peer(d, tx, e);
    return r < 0 ? r : xb_device_switch(d, tx, XenbusStateConnected, e);
}

static int on_connect(struct dz_vbd *v, struct err *e)
{
    int r = disk_read(v, e);
    if (r == 0)
        r = xb_transaction(&v->device, connected_body, NULL, e);
    if (r < 0)
        return r;
    v->life = VBD_CONNECTED;
    v->stats.reconnects += v->opened;
    v->opened = true;
    vbd_replay(v);
    dz_vbd_kick(v);
    return 0;
}

/* The backend was restarted. What its predecessor answered is taken first: it need not be done again. */
static int on_reconnect(struct dz_vbd *v, struct err *e)
{
    vbd_take_responses(v);
    if (v->life == VBD_FAILED)
        return 0;
    v->life = VBD_CONNECTING;
    return publish(v, e);
}

static int show_body(struct xb_device *d, store_tx tx, void *arg, struct err *e)
{
    xb_state to = *(const xb_state *)arg;
    _cleanup_free_ char *state = NULL;
    int r = store_read(d->store, tx, &state, NULL, "%s/state", d->dir);
    if (r < 0)
        return r;
    d->state = xb_state_parse(state);
    return xb_transition_allowed(XB_FRONT, d->state, to) ? xb_device_switch(d, tx, to, e) : -EINVAL;
}

/* Our directory may be gone with the backend's: writing outside a transaction could bring it back as a stray. */
static void show(struct dz_vbd *v, xb_state to)
{
    if (!v->world_gone)
        xb_transaction(&v->device, show_body, &to, NULL);
}

/* The backend's own words about its failure, made printable; "" where it says nothing. */
static void backend_says(struct dz_vbd *v, char *out, size_t size)
{
    _cleanup_free_ char *text = NULL;
    out[0] = 0;
    if (store_read(v->store, STORE_NO_TX, &text, NULL, "%s/error", v->device.peer_dir) < 0 || !*text)
        return;
    snprintf(out, size, ": %s", text);
    for (char *c = out; *c; c++)
        if (*c < ' ' || *c > '~')
            *c = '?';
}

/* The backend takes the disk away, with requests in flight perhaps: what it still answers counts. */
static void on_close(struct dz_vbd *v)
{
    char says[BACKEND_SAYS_MAX];
    backend_says(v, says, sizeof(says));
    bool opened = v->opened;
    show(v, XenbusStateClosing);
    while (vbd_in_flight(v) && v->life == VBD_CONNECTED && v->device.peer_state == XenbusStateClosing) {
        uint64_t mark = v->finished;
        ring_front_arm(&v->ring);
        vbd_take_responses(v);
        if (v->finished == mark && evtchn_wait(&v->channel, VBD_DETACH_MS) < 0)
            break;
        vbd_take_responses(v);
    }
    if (v->life != VBD_FAILED) {
        v->life = VBD_FAILED;
        v->failed = opened ? -ENODEV : -EIO;
        err_set(&v->why, v->failed, opened ? "%s: the disk was detached%s" : "%s: the backend refuses the disk%s",
                v->name, says);
        vbd_abort(v, v->failed);
    }
    show(v, XenbusStateClosed);
}

/* Connected both, and the backend rewrote its state: a resize. */
static int on_change(struct dz_vbd *v, struct err *e)
{
    return v->life == VBD_CONNECTED && v->device.peer_state == XenbusStateConnected ? disk_read(v, e) : 0;
}

/* The next state on the way from what a dead predecessor left to Initialising; the same where the backend has to move
 * first. Xen's drivers want 5, 6 and 1 one after the other, each answered; where the backend waits in InitWait already
 * there is nothing to close. */
static xb_state start_over_next(xb_state mine, xb_state peer)
{
    switch (mine) {
    case XenbusStateInitialised:
    case XenbusStateConnected: return peer == XenbusStateInitWait ? XenbusStateInitialising : XenbusStateClosing;
    case XenbusStateClosing: return xb_reaction(XB_FRONT, mine, peer) == XB_CLOSED ? XenbusStateClosed : mine;
    case XenbusStateClosed:
        return peer == XenbusStateClosed || peer == XenbusStateUnknown ? XenbusStateInitialising : mine;
    default: return XenbusStateInitialising;
    }
}

static int start_over_body(struct xb_device *d, store_tx tx, void *arg, struct err *e)
{
    int r = still_ours(d, tx, e);
    return r < 0 ? r : xb_device_switch(d, tx, *(const xb_state *)arg, e);
}

/* As far as the backend's state lets us. */
static int start_over(struct dz_vbd *v, struct err *e)
{
    while (v->device.state != XenbusStateInitialising) {
        xb_state next = start_over_next(v->device.state, v->device.peer_state);
        if (next == v->device.state)
            return 0;
        int r = xb_transaction(&v->device, start_over_body, &next, e);
        if (r < 0)
            return r;
    }
    v->starting_over = false;
    return 0;
}

static int react_to_pair(struct dz_vbd *v, struct err *e)
{
    switch (xb_device_reaction(&v->device)) {
    case XB_ANNOUNCE: return publish(v, e);
    case XB_CONNECT: return on_connect(v, e);
    case XB_RECONNECT: return on_reconnect(v, e);
    case XB_CLOSE: on_close(v); return 0;
    case XB_CLOSED:
        if (v->life == VBD_FAILED)
            show(v, XenbusStateClosed);
        return 0;
    default: return on_change(v, e);
    }
}

static int react(struct dz_vbd *v, struct err *e)
{
    int r = xb_device_read_peer(&v->device);
    if (r < 0)
        return err_set(e, r, "cannot read the backend's state: %s", strerror(-r));
    if (v->starting_over && ((r = start_over(v, e)) < 0 || v->starting_over))
        return r;
    r = react_to_pair(v, e);
    return r == -ESTALE ? 0 : r; /* the backend moved meanwhile: its watch event is on its way */
}

/* Takes all waiting events: how many, or -errno. */
static int store_drain(struct dz_vbd *v)
{
    int n = 0;
    for (;; n++) {
        _cleanup_free_ char **event = NULL;
        const char *path, *token;
        int r = store_next_event(v->store, &event, &path, &token);
        if (r == -EAGAIN)
            return n;
        if (r < 0)
            return r;
    }
}

static int control(struct dz_vbd *v, struct err *e)
{
    int r = platform_step(v->dom->platform);
    if (r < 0) { /* its descriptor would stay readable for ever */
        vbd_source_remove(v, platform_fd(v->dom->platform));
        v->world_gone = true;
        return err_set(e, -EIO, "the hypervisor role of this dom0 is gone: open the domain again when it runs");
    }
    r = store_drain(v);
    if (r < 0) {
        vbd_source_remove(v, store_client_fd(v->store));
        v->world_gone = true;
        return err_set(e, -EIO, "the store of this dom0 is gone: open the disk again when it runs");
    }
    return r > 0 ? react(v, e) : 0;
}

void vbd_control(struct dz_vbd *v)
{
    struct err e = {""};
    int r = control(v, &e);
    if (r < 0)
        vbd_fail(v, r, "%s", e.text);
}

/* ---- opening ---- */

/* Whose port is in our directory? A living process of this domain that still has it: busy. */
static int predecessor_check(struct dz_vbd *v, struct err *e)
{
    static const struct xb_key port_key = {.name = "event-channel", .max = UINT32_MAX};
    static const struct xb_key instance_key = {.name = KEY_INSTANCE, .max = UINT32_MAX};
    uint64_t port = 0, instance = 0;
    uint32_t owner = 0;
    if (v->device.state == XenbusStateClosed) /* the port in there was closed; its number may have a new user */
        return 0;
    if (xb_key_read(v->store, STORE_NO_TX, v->device.dir, &port_key, &port, NULL) < 0 || !port ||
        xb_key_read(v->store, STORE_NO_TX, v->device.dir, &instance_key, &instance, NULL) < 0)
        return 0;
    int status = platform_evtchn_status(v->dom->platform, (uint32_t)port, &owner);
    if (status < 0 || status == PLATFORM_PORT_CLOSED || (instance && instance != owner))
        return 0;
    return err_set(e, -EBUSY,
                   "%s is open in another process of this domain (instance %u, event channel %u): close it "
                   "there",
                   v->name, owner, (unsigned)port);
}

static int open_timeout(struct dz_vbd *v, struct err *e)
{
    char says[BACKEND_SAYS_MAX];
    backend_says(v, says, sizeof(says));
    return err_set(e, -ETIMEDOUT,
                   "%s: the backend (domain %u) is in state %s and did not connect within %u ms; is its "
                   "blk role running?%s",
                   v->name, v->device.back_domid, xb_state_name(v->device.peer_state), v->timeout_ms, says);
}

/* Until connected or failed. */
static int connect_loop(struct dz_vbd *v, struct err *e)
{
    uint64_t deadline = vbd_deadline_ns((int)v->timeout_ms);
    int r = xb_device_watch(&v->device, VBD_WATCH_TOKEN, e);
    if (r < 0)
        return r;
    v->watched = true; /* and it fires at once */
    while (v->life == VBD_CONNECTING) {
        int timeout_ms = vbd_ms_until(deadline);
        if (timeout_ms == 0)
            return open_timeout(v, e);
        vbd_await(v, timeout_ms);
        r = control(v, e);
        if (r < 0)
            return r;
    }
    return v->life == VBD_CONNECTED ? 0 : err_set(e, v->failed, "%s", v->why.text);
}

int vbd_connect(struct dz_vbd *v, struct err *e)
{
    v->starting_over = v->device.state != XenbusStateInitialising;
    int r = v->starting_over ? predecessor_check(v, e) : 0;
    if (r == 0)
        r = connect_loop(v, e);
    if (r < 0 && v->ours && v->life != VBD_FAILED)
        xb_device_fatal(&v->device, r, e->text);
    return r;
}

/* ---- closing ---- */

/* Until the backend's state has `reached` what we wait for, or the deadline; false: it has not. */
static bool closing_wait(struct dz_vbd *v, bool (*reached)(const struct xb_device *d), uint64_t deadline)
{
    while (!v->world_gone) {
        if (xb_device_read_peer(&v->device) < 0)
            return false;
        if (reached(&v->device))
            return true;
        int timeout_ms = vbd_ms_until(deadline);
        if (timeout_ms == 0)
            return false;
        vbd_await(v, timeout_ms);
        v->world_gone = platform_step(v->dom->platform) < 0 || store_drain(v) < 0;
    }
    return false;
}

static bool may_show_closed(const struct xb_device *d)
{
    return xb_device_reaction(d) == XB_CLOSED;
}

static bool has_let_go(const struct xb_device *d)
{
    return d->peer_state == XenbusStateClosed || d->peer_state == XenbusStateUnknown;
}

void vbd_disconnect(struct dz_vbd *v, uint64_t deadline_ns)
{
    if (v->ours && !v->world_gone) {
        show(v, XenbusStateClosing);
        if (v->device.state == XenbusStateClosing) {
            closing_wait(v, may_show_closed, deadline_ns);
            show(v, XenbusStateClosed);
        }
        closing_wait(v, has_let_go, deadline_ns);
    }
    if (v->watched && !v->world_gone)
        xb_device_unwatch(&v->device, VBD_WATCH_TOKEN);
    channel_close(v);
}
