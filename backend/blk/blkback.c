/* SPDX-License-Identifier: MIT */
#include "backend/blk/blkback.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/map.h"
#include "base/parse.h"

#define ROOT_TOKEN "backend/vbd"

struct back_reactor {
    struct blkback *back;
    struct engine *engine;
    struct loop_source source; /* its events */
};

struct blkback {
    struct loop *loop;
    struct store_client *store;
    struct reactors *reactors;
    struct iommu *iommu;  /* one for all devices */
    uint64_t faults_seen; /* of its log */
    struct log_limiter limiter;
    struct intremap *remap; /* … and its interrupt table */
    struct back_reactor reactor[REACTORS_MAX];
    uint16_t domid;
    char root[64];
    struct list devices;
    struct map by_id; /* of device_key() */
    bool starting;    /* the first scan: what is found was a predecessor's */
    struct loop_source store_source, tick, lock_tick;
    int result;
    struct err err;
};

static uint64_t device_key(uint16_t front_domid, uint32_t devid)
{
    return (uint64_t)front_domid << 32 | devid;
}

static void back_lost(struct blkback *b, int code, const char *sentence)
{
    if (!b->result)
        b->result = err_set(&b->err, code, "%s", sentence);
    loop_quit(b->loop);
}

/* ---- devices come and go ---- */

static void device_forget(struct blkback *b, struct blkdev *d)
{
    log_info("vbd %u/%u: removed", d->xb.front_domid, d->xb.devid);
    map_remove(&b->by_id, device_key(d->xb.front_domid, d->xb.devid));
    list_remove(&d->link);
    blkdev_free(d);
}

static struct blkdev *device_find(struct blkback *b, uint16_t front_domid, uint32_t devid)
{
    struct blkdev *d = map_get(&b->by_id, device_key(front_domid, devid));
    if (d)
        return d;
    d = blkdev_new(b->store, b->reactors, b->iommu, b->domid, front_domid, devid, b->starting);
    if (!d)
        return NULL;
    if (map_put(&b->by_id, device_key(front_domid, devid), d)) {
        blkdev_free(d);
        return NULL;
    }
    d->siblings = &b->devices;
    d->remap = b->remap;
    list_append(&b->devices, &d->link);
    return d;
}

static void scan_domain(struct blkback *b, uint16_t front_domid)
{
    _cleanup_free_ char **names = NULL;
    uint64_t devid;
    if (store_directory(b->store, STORE_NO_TX, &names, NULL, "%s/%u", b->root, front_domid))
        return;
    for (char **name = names; *name; name++)
        if (!parse_u64(*name, 0, UINT32_MAX, &devid))
            device_find(b, front_domid, (uint32_t)devid);
}

/* Looks for new devices, whether the known ones are still there, and what was said to them: also where the store has
 * restarted, and with it the events have gone that waited. */
static void scan_all(struct blkback *b)
{
    _cleanup_free_ char **names = NULL;
    struct blkdev *d;
    uint64_t domid;
    list_foreach (d, &b->devices, link) {
        blkdev_own_event(d);
        blkdev_stop_event(d);
        blkdev_live_event(d);
    }
    if (store_directory(b->store, STORE_NO_TX, &names, NULL, "%s", b->root))
        return;
    for (char **name = names; *name; name++)
        if (!parse_u64(*name, 0, PLATFORM_DOMID_MAX, &domid))
            scan_domain(b, (uint16_t)domid);
}

/* ---- what the store tells ---- */

/* Two numbers and the rest of "<root>/F/D/rest": how many there are of both, 0 … 2. */
static int path_parse(const struct blkback *b, const char *path, uint16_t *front_domid, uint32_t *devid,
                      const char **rest)
{
    unsigned domid = 0, id = 0;
    int at = 0, end = 0;
    size_t root = strlen(b->root);
    if (strncmp(path, b->root, root) || path[root] != '/')
        return 0;
    path += root;
    if (sscanf(path, "/%5u%n", &domid, &at) < 1 || domid > PLATFORM_DOMID_MAX)
        return 0;
    *front_domid = (uint16_t)domid;
    if (sscanf(path + at, "/%10u%n", &id, &end) < 1)
        return 1;
    *devid = id;
    *rest = path + at + end;
    return 2;
}

static void own_event(struct blkback *b, const char *path)
{
    uint16_t front_domid;
    uint32_t devid;
    const char *rest;
    if (path_parse(b, path, &front_domid, &devid, &rest) < 2) {
        scan_all(b);
        return;
    }
    struct blkdev *d = map_get(&b->by_id, device_key(front_domid, devid));
    if (!d)
        device_find(b, front_domid, devid);
    else if (!rest[0] || !strcmp(rest, "/state") || !strcmp(rest, "/online"))
        blkdev_own_event(d);
    else if (!strcmp(rest, "/" KEYS_BLK_PAUSED))
        blkdev_stop_event(d);
    else if (!strncmp(rest, "/domzero/set", strlen("/domzero/set")))
        blkdev_live_event(d);
}

static void peer_event(struct blkback *b, const char *token)
{
    unsigned front_domid, devid;
    struct blkdev *d = NULL;
    if (sscanf(token, "front/%5u/%10u", &front_domid, &devid) == 2)
        d = map_get(&b->by_id, device_key((uint16_t)front_domid, devid));
    if (d)
        blkdev_peer_event(d);
}

/* A device that was removed is gone; but its directory may have been made anew since its end was seen, and the events
 * of that taken along with it. */
static void device_replace(struct blkback *b, struct blkdev *d)
{
    uint16_t front_domid = d->xb.front_domid;
    uint32_t devid = d->xb.devid;
    device_forget(b, d);
    device_find(b, front_domid, devid);
}

static void devices_react(struct blkback *b)
{
    struct blkdev *d, *next;
    bool locked = false;
    list_foreach_safe (d, next, &b->devices, link) {
        if (d->dirty) {
            d->dirty = false;
            blkdev_react(d);
        }
        locked |= d->locked;
        if (blkdev_finished(d))
            device_replace(b, d);
    }
    loop_timer_set(&b->lock_tick, locked ? BLKBACK_LOCK_TICK_MS : 0, 0);
}

static void store_ready(struct loop_source *source, uint32_t epoll_events)
{
    struct blkback *b = container_of(source, struct blkback, store_source);
    const char *path, *token;
    (void)epoll_events;
    for (unsigned i = 0; i < BLKBACK_EVENTS_MAX; i++) {
        _cleanup_free_ char **event = NULL;
        int rc = store_next_event(b->store, &event, &path, &token);
        if (rc == -EAGAIN)
            break;
        if (rc) {
            back_lost(b, rc, "the connection to the store is lost");
            return;
        }
        if (!strcmp(token, ROOT_TOKEN))
            own_event(b, path);
        else
            peer_event(b, token);
    }
    devices_react(b);
}

static void engine_ready(struct loop_source *source, uint32_t epoll_events)
{
    const struct back_reactor *r = container_of(source, struct back_reactor, source);
    struct blkback *b = r->back;
    struct engine_event ev;
    (void)epoll_events;
    while (engine_event_next(r->engine, &ev)) {
        if (ev.queue)
            blkdev_queue_event(ev.queue->config.owner, ev.queue, ev.words);
        else
            back_lost(b, -EPIPE, engine_error(r->engine)->text);
    }
    devices_react(b);
}

/* What the IOMMU refused since the last tick, the last few of it. */
static void faults_log(struct blkback *b)
{
    struct iommu_fault f[BLKBACK_FAULTS_LOGGED];
    uint64_t total;
    unsigned n = iommu_faults(b->iommu, f, ARRAY_SIZE(f), &total);
    const uint64_t news = total - b->faults_seen;
    for (unsigned i = news < n ? n - (unsigned)news : 0; i < n; i++)
        log_peer(&b->limiter, "vbd %u/%" PRIu32 ": IOMMU: a device's %s at 0x%" PRIx64 " was stopped: %s (%s)",
                 f[i].domid, f[i].device,
                 f[i].reason == IOMMU_F_INTERRUPT ? "interrupt"
                 : f[i].write                     ? "write"
                                                  : "read",
                 f[i].address, iommu_fault_name(f[i].reason), iommu_fault_text(f[i].reason));
    b->faults_seen = total;
}

static void tick_ready(struct loop_source *source, uint32_t epoll_events)
{
    struct blkback *b = container_of(source, struct blkback, tick);
    struct blkdev *d;
    (void)epoll_events;
    loop_timer_ack(source);
    list_foreach (d, &b->devices, link)
        blkdev_tick(d);
    faults_log(b);
}

static void lock_tick_ready(struct loop_source *source, uint32_t epoll_events)
{
    struct blkback *b = container_of(source, struct blkback, lock_tick);
    struct blkdev *d;
    (void)epoll_events;
    loop_timer_ack(source);
    list_foreach (d, &b->devices, link)
        blkdev_retry(d);
    devices_react(b);
}

/* ---- life ---- */

static int reactors_watch(struct blkback *b)
{
    int rc = 0;
    for (unsigned i = 0; i < reactors_count(b->reactors) && !rc; i++) {
        struct back_reactor *r = &b->reactor[i];
        *r = (struct back_reactor){.back = b, .engine = reactors_engine(b->reactors, i)};
        rc = loop_add(b->loop, &r->source, engine_event_fd(r->engine), EPOLLIN, engine_ready);
    }
    return rc;
}

static int back_watch(struct blkback *b, struct err *e)
{
    int rc = store_watch(b->store, ROOT_TOKEN, "%s", b->root);
    if (rc)
        return err_set(e, rc, "cannot watch %s: %s", b->root, strerror(-rc));
    rc = loop_add(b->loop, &b->store_source, store_client_fd(b->store), EPOLLIN, store_ready);
    if (!rc)
        rc = reactors_watch(b);
    if (!rc)
        rc = loop_timer_add(b->loop, &b->tick, BLKBACK_TICK_MS, BLKBACK_TICK_MS, tick_ready);
    if (!rc)
        rc = loop_timer_add(b->loop, &b->lock_tick, 0, 0, lock_tick_ready);
    return rc ? err_set(e, rc, "cannot wait for the store and the reactors: %s", strerror(-rc)) : 0;
}

static void back_release(struct blkback *b)
{
    struct blkdev *d, *next;
    loop_remove(b->loop, &b->store_source);
    for (unsigned i = 0; i < REACTORS_MAX; i++)
        loop_remove(b->loop, &b->reactor[i].source);
    if (b->tick.fn)
        loop_timer_remove(b->loop, &b->tick);
    if (b->lock_tick.fn)
        loop_timer_remove(b->loop, &b->lock_tick);
    list_foreach_safe (d, next, &b->devices, link) {
        list_remove(&d->link);
        blkdev_free(d);
    }
    store_unwatch(b->store, ROOT_TOKEN, "%s", b->root);
    map_deinit(&b->by_id);
    intremap_free(b->remap);
    iommu_free(b->iommu);
    free(b);
}

int blkback_new(struct loop *loop, struct store_client *store, struct reactors *reactors, uint16_t domid,
                struct blkback **out, struct err *e)
{
    struct blkback *b = calloc(1, sizeof(*b));
    if (!b || iommu_new(&b->iommu) || intremap_new(b->iommu, INTREMAP_ENTRIES_MAX, &b->remap)) {
        iommu_free(b ? b->iommu : NULL);
        free(b);
        return err_set(e, -ENOMEM, "out of memory");
    }
    b->loop = loop;
    b->store = store;
    b->reactors = reactors;
    b->domid = domid;
    list_init(&b->devices);
    snprintf(b->root, sizeof(b->root), "/local/domain/%u/backend/vbd", domid);
    int rc = back_watch(b, e);
    if (rc) {
        back_release(b);
        return rc;
    }
    b->starting = true;
    scan_all(b);
    b->starting = false;
    devices_react(b);
    *out = b;
    return 0;
}

void blkback_free(struct blkback *b)
{
    if (!b)
        return;
    reactors_free(b->reactors);
    back_release(b);
}

int blkback_result(const struct blkback *b, struct err *e)
{
    return b->result ? err_set(e, b->result, "%s", b->err.text) : 0;
}

const struct blkdev *blkback_device(const struct blkback *b, uint16_t front_domid, uint32_t devid)
{
    return map_get(&b->by_id, device_key(front_domid, devid));
}

const struct blkdev *blkback_device_after(const struct blkback *b, bool all, uint16_t front_domid, uint32_t devid)
{
    const struct blkdev *d, *best = NULL;
    uint64_t above = device_key(front_domid, devid), best_key = UINT64_MAX;
    list_foreach (d, &b->devices, link) {
        uint64_t key = device_key(d->xb.front_domid, d->xb.devid);
        if (key >= best_key || (!all && key <= above))
            continue;
        best = d;
        best_key = key;
    }
    return best;
}
