/* SPDX-License-Identifier: MIT */
/* frontend/blkfront_life.c: a disk's xenbus life, from the guest's end. Everything here is store round trips.
 *
 *   open       whatever a dead process of this domain left is closed as the protocol asks (5, 6), then 1; the backend
 *              comes to InitWait; keys and 3 in one transaction; the backend connects; the disk's keys are checked; 4
 *   mapping    where the backend is behind an IOMMU: before any request the disk's memory is mapped (blkfront_bus.c)
 *   reconnect  the backend was restarted and shows InitWait under our 4: fresh ring and channel, keys and 3; at its 4,
 *              ours, and the replay
 *   detach     the backend shows Closing: 5, the responses that still come are taken, the rest is -ENODEV, 6
 *   close      blkfront_close.c
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
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"

/* Here, but for what says otherwise: `control` is held and the gates are closed, or nobody else knows the disk. */

#define KEY_INSTANCE     "domzero/instance"
#define BACKEND_SAYS_MAX 160 /* of a backend's own words in our sentences */

/* ---- the gates ---- */

static unsigned gates_of(struct dz_vbd *v, struct vbd_gate **gates)
{
    for (uint32_t i = 0; i < v->queue_count; i++)
        gates[i] = &v->queue[i]->gate;
    return v->queue_count;
}

/* From here on no other thread is in a queue, to the end. `control` is held. */
static void exclusive_begin(struct dz_vbd *v)
{
    struct vbd_gate *gates[KEYS_BLK_QUEUES_MAX];
    gates_close(gates, gates_of(v, gates));
}

/* Who sleeps has something to look at. */
static void exclusive_end(struct dz_vbd *v)
{
    struct vbd_gate *gates[KEYS_BLK_QUEUES_MAX];
    for (uint32_t i = 0; i < v->queue_count; i++)
        queue_wake_sleeper(v->queue[i]);
    gates_open(gates, gates_of(v, gates));
}

void vbd_end(struct dz_vbd *v, int code)
{
    v->life = VBD_FAILED;
    v->failed = code;
    for (uint32_t i = 0; i < v->queue_count; i++)
        queue_abort(v->queue[i], code);
}

static void PRINTF(3, 4) vbd_fail(struct dz_vbd *v, int code, const char *fmt, ...)
{
    if (v->life == VBD_FAILED)
        return;
    va_list args;
    va_start(args, fmt);
    vsnprintf(v->why.text, sizeof(v->why.text), fmt, args);
    va_end(args);
    err_prefix(&v->why, code, "%s", v->name);
    if (!v->world_gone)
        xb_device_fatal(&v->device, code, v->why.text);
    vbd_end(v, code);
}

static void fail_wrong(struct dz_queue *q)
{
    if (q->wrong)
        vbd_fail(q->disk, -EIO, "the backend %s", q->wrong);
    q->wrong = NULL;
}

void vbd_fail_queue(struct dz_queue *q)
{
    struct dz_vbd *v = q->disk;
    pthread_mutex_lock(&v->control);
    exclusive_begin(v);
    fail_wrong(q);
    exclusive_end(v);
    pthread_mutex_unlock(&v->control);
}

static void take_all(struct dz_vbd *v)
{
    for (uint32_t i = 0; i < v->queue_count; i++) {
        queue_take_responses(v->queue[i]);
        fail_wrong(v->queue[i]);
    }
}

static uint64_t finished_all(const struct dz_vbd *v)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < v->queue_count; i++)
        n += v->queue[i]->finished;
    return n;
}

/* ---- the channels ---- */

void vbd_channels_close(struct dz_vbd *v)
{
    vbd_bus_unwatch(v);
    for (uint32_t i = 0; i < v->queue_count; i++) {
        struct dz_queue *q = v->queue[i];
        if (q->channel.wait_fd < 0)
            continue;
        queue_source_remove(q, q->channel.wait_fd);
        domain_channel_close(v->dom, &q->channel);
    }
}

static int channels_open(struct dz_vbd *v, struct err *e)
{
    int r = 0;
    vbd_channels_close(v);
    for (uint32_t i = 0; r == 0 && i < v->queue_count; i++) {
        struct dz_queue *q = v->queue[i];
        r = domain_channel_open(v->dom, v->device.back_domid, &q->channel, e);
        if (r == 0 && (r = queue_source_add(q, VBD_SOURCE_CHANNEL, q->channel.wait_fd)) < 0)
            err_set(e, r, "cannot watch an event channel: %s", strerror(-r));
    }
    return r;
}

/* Until a channel has an event, which is taken; false: none in that time. */
static bool channels_wait(struct dz_vbd *v, int timeout_ms)
{
    struct pollfd fd[KEYS_BLK_QUEUES_MAX];
    for (uint32_t i = 0; i < v->queue_count; i++)
        fd[i] = (struct pollfd){v->queue[i]->channel.wait_fd, POLLIN, 0};
    if (poll(fd, v->queue_count, timeout_ms) <= 0)
        return false;
    for (uint32_t i = 0; i < v->queue_count; i++)
        evtchn_consume(&v->queue[i]->channel);
    return true;
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
    struct keys_blk_front keys = {
        .queue_count = v->queue_count,
        .ring_order = v->ring_order,
        .ring_ref_count = 1u << v->ring_order,
        .persistent = !v->no_persistent,
        .fua = true,
        .write_zeroes = true,
        .bus_addresses = v->bus.bits != 0,
    };
    for (uint32_t i = 0; i < v->queue_count; i++) {
        const struct dz_queue *q = v->queue[i];
        keys.queue[i].port = q->channel.port;
        memcpy(keys.queue[i].ring_ref, v->ring_pool->gref + vbd_ring_page(q),
               keys.ring_ref_count * sizeof(keys.queue[i].ring_ref[0]));
    }
    snprintf(keys.protocol, sizeof(keys.protocol), "%s", blk_protocol_native.name);
    r = keys_blk_front_write(d, tx, &keys, e);
    if (r < 0)
        return r;
    r = store_printf(d->store, tx, d->dir, KEY_INSTANCE, "%u", platform_instance(v->dom->platform));
    if (r < 0)
        return err_set(e, r, "cannot write %s/%s: %s", d->dir, KEY_INSTANCE, strerror(-r));
    return xb_device_switch(d, tx, XenbusStateInitialised, e);
}

/* Fresh rings and channels, and the backend told of both. */
static int publish(struct dz_vbd *v, struct err *e)
{
    struct keys_blk_features offer;
    int r = keys_blk_features_read(&v->device, &offer, e);
    if (r == 0)
        r = vbd_memory_fit(v, &offer, e);
    if (r == 0)
        r = vbd_bus_agree(v, e);
    if (r == 0)
        r = channels_open(v, e);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < v->queue_count; i++)
        vbd_ring_init(v->queue[i]);
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

static uint32_t zeroes_bytes_max(const struct dz_vbd *v, uint32_t sector_bytes)
{
    uint64_t bytes = (uint64_t)v->offer.max_write_zeroes_sectors * SECTOR_BYTES;
    return (uint32_t)(MIN(bytes, 1u << 31) & ~(uint64_t)(sector_bytes - 1));
}

static int disk_read(struct dz_vbd *v, struct err *e)
{
    struct keys_blk_disk disk;
    int r = keys_blk_disk_read(&v->device, &disk, e);
    if (r == 0)
        r = disk_check(v, &disk, e);
    if (r < 0)
        return r;
    const struct dz_vbd_info before = v->info;
    v->info = (struct dz_vbd_info){
        .size_bytes = disk.sectors * SECTOR_BYTES,
        .sector_bytes = disk.sector_bytes,
        .physical_sector_bytes = disk.physical_sector_bytes,
        .readonly = disk.info & KEYS_BLK_INFO_READONLY,
        .flush = disk.flush_cache,
        .discard = disk.discard && !(disk.info & KEYS_BLK_INFO_READONLY),
        .discard_granularity_bytes = disk.discard_granularity_bytes,
        .queue_depth = v->slots,
        .queues = v->queue_count,
        .fua = v->offer.fua && !(disk.info & KEYS_BLK_INFO_READONLY),
        .write_zeroes_bytes_max = disk.info & KEYS_BLK_INFO_READONLY ? 0 : zeroes_bytes_max(v, disk.sector_bytes),
        .request_bytes_max = v->segments_max * PAGE_BYTES,
        .bus_addresses = v->bus.bits != 0,
        .changes = before.changes,
    };
    v->info.changes += v->opened && (before.size_bytes != v->info.size_bytes || before.readonly != v->info.readonly ||
                                     before.discard != v->info.discard);
    return 0;
}

/* ---- reactions ---- */

static int connected_body(struct xb_device *d, store_tx tx, void *arg, struct err *e)
{
    (void)arg;
    int r = xb_device_confirm_peer(d, tx, e);
    return r < 0 ? r : xb_device_switch(d, tx, XenbusStateConnected, e);
}

/* All is ready: what gathered goes out. */
static void serve(struct dz_vbd *v)
{
    v->life = VBD_CONNECTED;
    vbd_count(&v->reconnects, v->opened);
    v->opened = true;
    for (uint32_t i = 0; i < v->queue_count; i++) {
        queue_replay(v->queue[i]);
        queue_kick(v->queue[i]);
    }
    v->references_new = false;
}

static int on_connect(struct dz_vbd *v, struct err *e)
{
    int r = disk_read(v, e);
    if (r == 0)
        r = xb_transaction(&v->device, connected_body, NULL, e);
    if (r < 0)
        return r;
    if (v->bus.bits)
        return vbd_bus_begin(v, e);
    serve(v);
    return 0;
}

/* The backend has our memory mapped, or not yet. */
static int on_mapping(struct dz_vbd *v, struct err *e)
{
    int r = vbd_bus_look(v, e);
    if (r > 0)
        serve(v);
    return MIN(r, 0);
}

/* The backend was restarted. What its predecessor answered is taken first: it need not be done again. */
static int on_reconnect(struct dz_vbd *v, struct err *e)
{
    if (v->life == VBD_CONNECTED)
        take_all(v);
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
void vbd_show(struct dz_vbd *v, xb_state to)
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
    vbd_show(v, XenbusStateClosing);
    while (vbd_in_flight(v) && v->life == VBD_CONNECTED && v->device.peer_state == XenbusStateClosing) {
        uint64_t mark = finished_all(v);
        for (uint32_t i = 0; i < v->queue_count; i++)
            ring_front_arm(&v->queue[i]->ring);
        take_all(v);
        if (finished_all(v) == mark && !channels_wait(v, VBD_DETACH_MS))
            break;
        take_all(v);
    }
    if (v->life != VBD_FAILED) {
        err_set(&v->why, -ENODEV, opened ? "%s: the disk was detached%s" : "%s: the backend refuses the disk%s",
                v->name, says);
        vbd_end(v, opened ? -ENODEV : -EIO);
    }
    vbd_show(v, XenbusStateClosed);
}

/* Connected both, and the backend rewrote its state: a resize. */
static int on_change(struct dz_vbd *v, struct err *e)
{
    bool ours = v->life == VBD_CONNECTED || v->life == VBD_MAPPING;
    return ours && v->device.peer_state == XenbusStateConnected ? disk_read(v, e) : 0;
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
            vbd_show(v, XenbusStateClosed);
        return 0;
    default: return on_change(v, e);
    }
}

/* Opening, with nothing published: is the disk still as we found it, or left it? Another process that is ahead of us
 * has the backend's attention, and we would wait for a state that was meant for it. */
static int lost_to_another(struct dz_vbd *v, struct err *e)
{
    return v->ours || v->opened ? 0 : still_ours(&v->device, STORE_NO_TX, e);
}

static int react(struct dz_vbd *v, struct err *e)
{
    int r = xb_device_read_peer(&v->device);
    if (r < 0)
        return err_set(e, r, "cannot read the backend's state: %s", strerror(-r));
    if ((r = lost_to_another(v, e)) < 0)
        return r;
    if (v->starting_over && ((r = start_over(v, e)) < 0 || v->starting_over))
        return r;
    r = react_to_pair(v, e);
    if (r == 0 && v->life == VBD_MAPPING)
        r = on_mapping(v, e);
    return r == -ESTALE ? 0 : r; /* the backend moved meanwhile: its watch event is on its way */
}

/* Takes all waiting events: how many, or -errno. */
int vbd_store_drain(struct dz_vbd *v)
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

static void unwatch_all(struct dz_vbd *v, int fd)
{
    for (uint32_t i = 0; i < v->queue_count; i++)
        queue_source_remove(v->queue[i], fd);
}

/* Events of the store that were taken, or why there will be none any more. */
static int news(struct dz_vbd *v, struct err *e)
{
    int r = domain_step(v->dom);
    if (r < 0) { /* its descriptor would stay readable for ever */
        unwatch_all(v, platform_fd(v->dom->platform));
        v->world_gone = true;
        return err_set(e, -EIO, "the hypervisor role of this dom0 is gone: open the domain again when it runs");
    }
    r = vbd_store_drain(v);
    if (r < 0) {
        unwatch_all(v, store_client_fd(v->store));
        v->world_gone = true;
        return err_set(e, -EIO, "the store of this dom0 is gone: open the disk again when it runs");
    }
    return r;
}

void vbd_control(struct dz_vbd *v, bool patient)
{
    struct err e = {""};
    if (patient)
        pthread_mutex_lock(&v->control);
    else if (pthread_mutex_trylock(&v->control))
        return;
    int r = news(v, &e);
    if (r || v->life == VBD_MAPPING) {
        exclusive_begin(v);
        r = r < 0 ? r : react(v, &e);
        if (r < 0)
            vbd_fail(v, r, "%s", e.text);
        exclusive_end(v);
    }
    pthread_mutex_unlock(&v->control);
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
    int status = domain_port_status(v->dom, (uint32_t)port, &owner);
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
    if (v->life == VBD_MAPPING)
        return err_set(e, -ETIMEDOUT, "%s: the backend (domain %u) did not map the disk's memory within %u ms%s",
                       v->name, v->device.back_domid, v->timeout_ms, says);
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
    while (v->life == VBD_CONNECTING || v->life == VBD_MAPPING) {
        int timeout_ms = vbd_ms_until(deadline);
        if (timeout_ms == 0)
            return open_timeout(v, e);
        queue_await_alone(v->queue[0], timeout_ms);
        r = news(v, e);
        r = r > 0 || (r == 0 && v->life == VBD_MAPPING) ? react(v, e) : r;
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
