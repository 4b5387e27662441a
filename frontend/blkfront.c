/* SPDX-License-Identifier: MIT */
#include "frontend/blkfront.h"

#include "base/clock.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

/* Numbers that dom0 wrote into our directory; we could too, to our own harm. */
static int backend_domid_read(struct dz_vbd *v, const char *front_dir, uint16_t *domid, struct err *e)
{
    static const struct xb_key key = {.name = "backend-id", .max = PLATFORM_DOMID_MAX, .required = true};
    uint64_t value;
    int r = xb_key_read(v->store, STORE_NO_TX, front_dir, &key, &value, e);
    if (r == 0)
        *domid = (uint16_t)value;
    return r;
}

/* "xvda, xvdb": for the sentence about a disk that is not there. */
static void disks_list(struct dz_vbd *v, unsigned domid, char *out, size_t size)
{
    _cleanup_free_ char **names = NULL;
    unsigned count = 0;
    size_t length = 0;
    snprintf(out, size, "none");
    if (store_directory(v->store, STORE_NO_TX, &names, &count, "/local/domain/%u/device/vbd", domid) < 0)
        return;
    for (unsigned i = 0; i < count && length + 1 < size; i++) {
        char name[32];
        uint32_t devid;
        if (keys_blk_devid(names[i], &devid) == 0)
            keys_blk_vdev(devid, name, sizeof(name));
        else
            snprintf(name, sizeof(name), "%s", names[i]);
        length += (size_t)snprintf(out + length, size - length, "%s%s", length ? ", " : "", name);
    }
}

/* Finds the disk's directory: v->device, our state loaded. */
static int device_find(struct dz_vbd *v, const char *vdev, struct err *e)
{
    unsigned us = platform_domid(v->dom->platform);
    uint32_t devid;
    uint16_t backend = 0;
    char front_dir[128], disks[160];
    if (keys_blk_devid(vdev, &devid) < 0)
        return err_set(e, -EINVAL, "'%s' is no virtual disk's name or number; xvda is the first", vdev);
    keys_blk_vdev(devid, v->name, sizeof(v->name));
    snprintf(front_dir, sizeof(front_dir), "/local/domain/%u/device/vbd/%u", us, devid);
    int r = backend_domid_read(v, front_dir, &backend, e);
    if (r == 0) {
        xb_device_init(&v->device, v->store, XB_FRONT, "vbd", (uint16_t)us, backend, devid);
        r = xb_device_load(&v->device, e);
    }
    if (r == -ENOENT) {
        disks_list(v, us, disks, sizeof(disks));
        return err_set(e, -ENODEV, "domain %u has no disk %s; it has: %s", us, v->name, disks);
    }
    return r;
}

/* All of it, whatever of it is there. */
static void vbd_free(struct dz_vbd *v)
{
    domain_disk_remove(v->dom, v);
    vbd_memory_free(v);
    store_client_close(v->store);
    pthread_mutex_destroy(&v->control);
    pthread_mutex_destroy(&v->pool_lock);
    free(v);
}

/* What the toolstack wants where the caller did not say. */
static int report_after_read(struct dz_vbd *v, struct err *e)
{
    uint32_t ms = 0;
    int r = v->epoch_ns ? 0 : keys_blk_report_after_read(&v->device, &ms, e);
    if (r == 0 && ms)
        v->epoch_ns = ms * CLOCK_NS_PER_MS / VBD_EPOCHS;
    return r;
}

static int vbd_open(struct dz_vbd *v, const char *vdev, struct err *e)
{
    int r = domain_store_open(v->dom, &v->store, e);
    if (r == 0)
        r = device_find(v, vdev, e);
    if (r == 0)
        r = report_after_read(v, e);
    if (r == 0 && domain_disk_add(v->dom, v) < 0)
        r = err_set(e, -EBUSY, "%s is open in this process already", v->name);
    if (r == 0 && (r = queue_new(v, 0, &v->queue[0])) < 0)
        err_set(e, r, "cannot watch the disk's events: %s", strerror(-r));
    if (r < 0)
        return r;
    v->queue_count = 1;
    r = vbd_connect(v, e);
    if (r < 0)
        vbd_disconnect(v, vbd_deadline_ns(VBD_DETACH_MS));
    return r;
}

static struct dz_vbd *vbd_new(struct dz_domain *dom, const struct dz_vbd_options *o)
{
    struct dz_vbd *v = calloc(1, sizeof(*v));
    if (!v)
        return NULL;
    v->dom = dom;
    list_init(&v->in_domain);
    pthread_mutex_init(&v->control, NULL);
    pthread_mutex_init(&v->pool_lock, NULL);
    v->biased = gate_may_be_biased();
    v->spin_us = o->spin_us;
    v->pool_bytes = o->pool_bytes ? o->pool_bytes : VBD_POOL_BYTES;
    v->depth_wanted = o->queue_depth ? o->queue_depth : VBD_DEPTH_DEFAULT;
    v->queues_wanted = o->queues ? o->queues : 1;
    v->merge = o->merge;
    v->epoch_ns = o->request_timeout_ms * CLOCK_NS_PER_MS / VBD_EPOCHS;
    v->no_persistent = o->no_persistent;
    v->no_bus_addresses = o->no_bus_addresses;
    v->timeout_ms = o->timeout_ms ? MIN(o->timeout_ms, (uint32_t)INT32_MAX) : VBD_TIMEOUT_MS;
    return v;
}

int dz_vbd_open(struct dz_domain *dom, const char *vdev, const struct dz_vbd_options *options, struct dz_vbd **out)
{
    static const struct dz_vbd_options defaults = {0};
    struct err e = {""};
    struct dz_vbd *v = vbd_new(dom, options ? options : &defaults);
    if (!v)
        return front_fail(-ENOMEM, "no memory for a disk");
    int r = vbd_open(v, vdev, &e);
    if (r < 0) {
        vbd_free(v);
        return front_fail_err(r, &e);
    }
    *out = v;
    return 0;
}

/* Until nothing is in flight, or there is nobody to wait for. */
static void drain(struct dz_queue *q, uint64_t deadline_ns)
{
    gate_enter(&q->gate);
    queue_kick(q);
    while (queue_in_flight(q)) {
        if (queue_progress(q, NULL, MIN(deadline_ns, vbd_deadline_ns(VBD_LOOK_MS))))
            continue;
        if (vbd_ms_until(deadline_ns) == 0 || vbd_backend_gone(q->disk))
            break;
    }
    assert(!q->gate.away); /* the caller's bug: a thread is in a call */
    gate_leave(&q->gate);
}

void dz_vbd_close(struct dz_vbd *v)
{
    if (!v)
        return;
    uint64_t deadline = vbd_deadline_ns((int)v->timeout_ms);
    for (uint32_t i = 0; i < v->queue_count; i++)
        drain(v->queue[i], deadline);
    vbd_disconnect(v, MAX(deadline, vbd_deadline_ns(VBD_DETACH_MS))); /* that it ends well is worth a moment more */
    vbd_free(v);
}

/* ---- what a caller may ask at any time ---- */

void dz_vbd_info(const struct dz_vbd *v, struct dz_vbd_info *out)
{
    pthread_mutex_t *control = (pthread_mutex_t *)(uintptr_t)&v->control;
    pthread_mutex_lock(control);
    *out = v->info;
    pthread_mutex_unlock(control);
}

static uint64_t counter_read(const uint64_t *counter)
{
    return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

void dz_queue_stats(const struct dz_queue *q, struct dz_vbd_stats *out)
{
    const struct vbd_counters *c = &q->stats;
    *out = (struct dz_vbd_stats){
        .requests = counter_read(&c->requests),
        .bytes_read = counter_read(&c->bytes_read),
        .bytes_written = counter_read(&c->bytes_written),
        .errors = counter_read(&c->errors),
        .notifications_sent = counter_read(&c->notifications_sent),
        .notifications_received = counter_read(&c->notifications_received),
        .bytes_bounced = counter_read(&c->bytes_bounced),
        .reconnects = counter_read(&q->disk->reconnects),
        .replayed = counter_read(&c->replayed),
        .merged = counter_read(&c->merged),
        .split = counter_read(&c->split),
        .timeouts = counter_read(&c->timeouts),
    };
}

void dz_vbd_stats(const struct dz_vbd *v, struct dz_vbd_stats *out)
{
    struct dz_vbd_stats sum = {0};
    for (uint32_t i = 0; i < v->queue_count; i++) {
        struct dz_vbd_stats one;
        dz_queue_stats(v->queue[i], &one);
        sum.requests += one.requests;
        sum.bytes_read += one.bytes_read;
        sum.bytes_written += one.bytes_written;
        sum.errors += one.errors;
        sum.notifications_sent += one.notifications_sent;
        sum.notifications_received += one.notifications_received;
        sum.bytes_bounced += one.bytes_bounced;
        sum.reconnects = one.reconnects;
        sum.replayed += one.replayed;
        sum.merged += one.merged;
        sum.split += one.split;
        sum.timeouts += one.timeouts;
    }
    *out = sum;
}

/* ---- the queues; a disk's own calls mean the first ---- */

struct dz_queue *dz_vbd_queue(struct dz_vbd *v, unsigned index)
{
    return index < v->queue_count ? v->queue[index] : NULL;
}

int dz_vbd_submit(struct dz_vbd *v, struct dz_io *io)
{
    return dz_queue_submit(v->queue[0], io);
}

int dz_vbd_kick(struct dz_vbd *v)
{
    return dz_queue_kick(v->queue[0]);
}

int dz_vbd_reap(struct dz_vbd *v, struct dz_io **done, unsigned max)
{
    return dz_queue_reap(v->queue[0], done, max);
}

int dz_vbd_wait(struct dz_vbd *v, struct dz_io **done, unsigned max, int timeout_ms)
{
    return dz_queue_wait(v->queue[0], done, max, timeout_ms);
}

int dz_vbd_fd(struct dz_vbd *v)
{
    return dz_queue_fd(v->queue[0]);
}

bool dz_vbd_arm(struct dz_vbd *v)
{
    return dz_queue_arm(v->queue[0]);
}
