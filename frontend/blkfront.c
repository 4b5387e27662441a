/* SPDX-License-Identifier: MIT */
#include "frontend/blkfront.h"

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

static int not_open_here(const struct dz_vbd *v, struct err *e)
{
    const struct dz_vbd *other;
    list_foreach (other, &v->dom->disks, in_domain)
        if (other->device.devid == v->device.devid)
            return err_set(e, -EBUSY, "%s is open in this process already", v->name);
    return 0;
}

static int sources_open(struct dz_vbd *v, struct err *e)
{
    int r = vbd_sources_init(v);
    if (r == 0)
        r = vbd_source_add(v, VBD_SOURCE_STORE, store_client_fd(v->store));
    if (r == 0)
        r = vbd_source_add(v, VBD_SOURCE_PLATFORM, platform_fd(v->dom->platform));
    return r < 0 ? err_set(e, r, "cannot watch the disk's events: %s", strerror(-r)) : 0;
}

/* All of it, whatever of it is there. */
static void vbd_free(struct dz_vbd *v)
{
    list_remove(&v->in_domain);
    store_client_close(v->store);
    fd_closep(&v->epoll_fd);
    vbd_memory_free(v);
    free(v);
}

static int vbd_open(struct dz_vbd *v, const char *vdev, struct err *e)
{
    int r = platform_store_open(v->dom->platform, &v->store, e);
    if (r == 0)
        r = device_find(v, vdev, e);
    if (r == 0)
        r = not_open_here(v, e);
    if (r == 0)
        r = sources_open(v, e);
    if (r == 0)
        r = vbd_connect(v, e);
    return r;
}

int dz_vbd_open(struct dz_domain *dom, const char *vdev, const struct dz_vbd_options *options, struct dz_vbd **out)
{
    static const struct dz_vbd_options defaults = {0};
    struct err e = {""};
    options = options ? options : &defaults;
    struct dz_vbd *v = calloc(1, sizeof(*v));
    if (!v)
        return front_fail(-ENOMEM, "no memory for a disk");
    v->dom = dom;
    list_init(&v->in_domain);
    v->epoll_fd = -1;
    v->channel = EVTCHN_NONE;
    v->spin_us = options->spin_us;
    v->pool_bytes = options->pool_bytes ? options->pool_bytes : VBD_POOL_BYTES;
    v->depth_wanted = options->queue_depth ? options->queue_depth : VBD_DEPTH_DEFAULT;
    v->timeout_ms = options->timeout_ms ? MIN(options->timeout_ms, (uint32_t)INT32_MAX) : VBD_TIMEOUT_MS;
    int r = vbd_open(v, vdev, &e);
    if (r < 0) {
        vbd_disconnect(v, vbd_deadline_ns(VBD_DETACH_MS));
        vbd_free(v);
        return front_fail_err(r, &e);
    }
    list_append(&dom->disks, &v->in_domain);
    *out = v;
    return 0;
}

void dz_vbd_close(struct dz_vbd *v)
{
    if (!v)
        return;
    uint64_t deadline = vbd_deadline_ns((int)v->timeout_ms);
    dz_vbd_kick(v);
    while (vbd_in_flight(v) && vbd_progress(v, deadline))
        ;
    vbd_disconnect(v, deadline);
    vbd_free(v);
}

void dz_vbd_info(const struct dz_vbd *v, struct dz_vbd_info *out)
{
    *out = v->info;
}

void dz_vbd_stats(const struct dz_vbd *v, struct dz_vbd_stats *out)
{
    *out = v->stats;
}
