/* SPDX-License-Identifier: MIT */
#include "xenbus/keys_blk.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xen/event_channel.h>

#include "base/span.h"

#define SECTORS_MAX (INT64_MAX / SECTOR_BYTES) /* a disk whose bytes an off_t can count */
/* One page: a segment lies within a page and starts and ends on a logical sector, so a larger one could not be moved.
 */
#define SECTOR_BYTES_MAX          PAGE_BYTES
#define PHYSICAL_SECTOR_BYTES_MAX (1u << 20)
/* The default row of grant/dma.h, which this room does not see. */
#define DMA_DEFAULT_NAME "pin"

/* ---- what the toolstack configured ---- */

/* "FORMAT:/PATH"; xl writes "aio" for a raw image. */
static int split_params(const char *dir, const char *params, struct keys_blk_config *out, struct err *e)
{
    const char *colon = strchr(params, ':');
    size_t format_length = colon ? (size_t)(colon - params) : 0;
    if (format_length == 0 || format_length >= sizeof(out->format) || colon[1] != '/' ||
        strlen(colon + 1) >= sizeof(out->path))
        return err_set(e, -EINVAL,
                       "%s/params is no FORMAT:/ABSOLUTE/PATH of at most %zu bytes; give both, as in "
                       "raw:/srv/disk.img",
                       dir, sizeof(out->path) - 1);
    memcpy(out->format, params, format_length);
    out->format[format_length] = 0;
    if (!strcmp(out->format, "aio"))
        strcpy(out->format, "raw");
    strcpy(out->path, colon + 1);
    return 0;
}

static int read_bool(const struct xb_device *d, const char *dir, const char *name, bool *out, struct err *e)
{
    const struct xb_key key = {.name = name, .max = UINT32_MAX};
    uint64_t value;
    int r = xb_key_read(d->store, STORE_NO_TX, dir, &key, &value, e);
    if (r == 0)
        *out = value != 0;
    return r;
}

static int read_on_error(const struct xb_device *d, bool *stop, struct err *e)
{
    char text[8];
    int r = xb_key_read_string(d->store, STORE_NO_TX, d->dir, "domzero/on-error", "report", text, sizeof(text), e);
    if (!r && strcmp(text, "report") && strcmp(text, "stop"))
        r = err_set(e, -EINVAL, "%s/domzero/on-error is '%s': report and stop are known", d->dir, text);
    if (!r)
        *stop = !strcmp(text, "stop");
    return r;
}

/* How the device's IOMMU ends unmaps, and how far it reaches. */
static int read_iommu(const struct xb_device *d, struct keys_blk_config *k, struct err *e)
{
    static const struct xb_key bits_key = {
        .name = "domzero/dma-bits", .max = KEYS_BLK_BUS_BITS_MAX, .def = KEYS_BLK_BUS_BITS_MAX};
    char text[16];
    uint64_t bits;
    int r = xb_key_read_string(d->store, STORE_NO_TX, d->dir, "domzero/iommu", "strict", text, sizeof(text), e);
    r = r ? r : xb_key_read(d->store, STORE_NO_TX, d->dir, &bits_key, &bits, e);
    if (r)
        return r;
    if (strcmp(text, "strict") && strcmp(text, "deferred"))
        return err_set(e, -EINVAL, "%s/domzero/iommu is '%s': strict and deferred are known", d->dir, text);
    if (bits != KEYS_BLK_BUS_BITS_32 && bits != KEYS_BLK_BUS_BITS_MAX)
        return err_set(e, -EINVAL, "%s/domzero/dma-bits is %" PRIu64 ": %d and %d are known", d->dir, bits,
                       KEYS_BLK_BUS_BITS_32, KEYS_BLK_BUS_BITS_MAX);
    k->iommu_deferred = !strcmp(text, "deferred");
    k->dma_bits = (uint32_t)bits;
    return 0;
}

/* 512, 4096, or 0 for "not said". */
static int read_block_bytes(const struct xb_device *back, const struct xb_key *key, uint32_t *out, struct err *e)
{
    uint64_t value;
    int r = xb_key_read(back->store, STORE_NO_TX, back->dir, key, &value, e);
    if (r)
        return r;
    if (value && value != SECTOR_BYTES && value != PAGE_BYTES)
        return err_set(e, -EINVAL, "%s/%s is %" PRIu64 "; %u, %u or 0 was expected", back->dir, key->name, value,
                       SECTOR_BYTES, (unsigned)PAGE_BYTES);
    *out = (uint32_t)value;
    return 0;
}

static const struct xb_key report_after = {.name = "domzero/report-after", .max = INT32_MAX};

static int read_report_after(struct store_client *c, const char *dir, uint32_t *ms, struct err *e)
{
    uint64_t value;
    int r = xb_key_read(c, STORE_NO_TX, dir, &report_after, &value, e);
    if (!r)
        *ms = (uint32_t)value;
    return r;
}

int keys_blk_report_after_read(const struct xb_device *front, uint32_t *ms, struct err *e)
{
    return read_report_after(front->store, front->peer_dir, ms, e);
}

int keys_blk_config_read(const struct xb_device *back, struct keys_blk_config *out, struct err *e)
{
    static const struct xb_key offset = {.name = "domzero/offset", .max = INT64_MAX};
    static const struct xb_key size = {.name = "domzero/size", .max = INT64_MAX};
    static const struct xb_key discard = {.name = "discard-enable", .max = UINT32_MAX, .def = 1};
    static const struct xb_key sector = {.name = "domzero/sector-size", .max = SECTOR_BYTES_MAX};
    static const struct xb_key physical = {.name = "domzero/physical-sector-size", .max = SECTOR_BYTES_MAX};
    static const struct xb_key alignment = {.name = "domzero/host-alignment", .max = SECTOR_BYTES_MAX};
    static const struct xb_key queues = {.name = "domzero/max-queues", .min = 1, .max = KEYS_BLK_QUEUES_MAX};
    static const struct xb_key persistent = {.name = "domzero/persistent", .max = 1, .def = 1};
    struct store_client *c = back->store;
    const char *dir = back->dir;
    struct keys_blk_config k = {0};
    uint64_t discards, max_queues, persists;
    char params[sizeof(k.format) + sizeof(k.path)], mode[8], device_type[16];
    int r = xb_key_read_string(c, STORE_NO_TX, dir, "params", NULL, params, sizeof(params), e);
    r = r ? r : split_params(dir, params, &k, e);
    r = r ? r : xb_key_read_string(c, STORE_NO_TX, dir, "mode", "r", mode, sizeof(mode), e);
    r = r ? r : xb_key_read_string(c, STORE_NO_TX, dir, "device-type", "disk", device_type, sizeof(device_type), e);
    r = r ? r : read_bool(back, dir, "removable", &k.removable, e);
    r = r ? r : read_bool(back, dir, "online", &k.online, e);
    r = r ? r : xb_key_read(c, STORE_NO_TX, dir, &discard, &discards, e);
    r = r ? r : read_bool(back, dir, "domzero/direct-io", &k.direct_io, e);
    r = r ? r : xb_key_read(c, STORE_NO_TX, dir, &offset, &k.offset_bytes, e);
    r = r ? r : xb_key_read(c, STORE_NO_TX, dir, &size, &k.size_bytes, e);
    r = r ? r : xb_key_read(c, STORE_NO_TX, dir, &queues, &max_queues, e);
    r = r ? r : xb_key_read(c, STORE_NO_TX, dir, &persistent, &persists, e);
    r = r ? r : xb_key_read_string(c, STORE_NO_TX, dir, "domzero/dma", DMA_DEFAULT_NAME, k.dma, sizeof(k.dma), e);
    r = r ? r : read_iommu(back, &k, e);
    r = r ? r : read_on_error(back, &k.stop_on_error, e);
    r = r ? r : read_report_after(c, dir, &k.report_after_ms, e);
    r = r ? r : xb_key_read_string(c, STORE_NO_TX, dir, "domzero/poll", "", k.poll, sizeof(k.poll), e);
    r = r ? r : keys_blk_qos_read(c, dir, &k.qos, e);
    r = r ? r : read_bool(back, dir, "direct-io-safe", &k.direct_io_safe, e);
    r = r ? r : read_block_bytes(back, &sector, &k.sector_bytes, e);
    r = r ? r : read_block_bytes(back, &physical, &k.physical_sector_bytes, e);
    r = r ? r : read_block_bytes(back, &alignment, &k.host_alignment_bytes, e);
    if (r)
        return r;
    if (!span_fits(k.offset_bytes, k.size_bytes, INT64_MAX))
        return err_set(e, -ERANGE, "%s/domzero: offset %" PRIu64 " and size %" PRIu64 " end beyond any file", dir,
                       k.offset_bytes, k.size_bytes);
    k.discard = discards != 0;
    k.max_queues = (uint32_t)max_queues;
    k.no_persistent = !persists;
    k.cdrom = !strcmp(device_type, "cdrom");
    k.readonly = k.cdrom || mode[0] != 'w';
    k.removable |= k.cdrom;
    *out = k;
    return 0;
}

/* Writes what is in a table of name and text, up to the first failure. */
struct pair {
    const char *name, *value;
};
static int write_pairs(struct store_client *c, store_tx tx, const char *dir, const struct pair *pairs, size_t count,
                       struct err *e)
{
    for (size_t i = 0; i < count; i++) {
        int r = store_write(c, tx, pairs[i].value, "%s/%s", dir, pairs[i].name);
        if (r < 0)
            return err_set(e, r, "cannot write %s/%s: %s", dir, pairs[i].name, strerror(-r));
    }
    return 0;
}

int keys_blk_config_write(struct store_client *c, store_tx tx, const char *back_dir,
                          const struct keys_blk_config *config, const char *vdev, struct err *e)
{
    char params[sizeof(config->format) + sizeof(config->path) + 1], offset[24], queues[12];
    char sector[12], physical[12], alignment[12];
    snprintf(sector, sizeof(sector), "%u", config->sector_bytes);
    snprintf(physical, sizeof(physical), "%u", config->physical_sector_bytes);
    snprintf(alignment, sizeof(alignment), "%u", config->host_alignment_bytes);
    snprintf(params, sizeof(params), "%s:%s", config->format, config->path);
    snprintf(offset, sizeof(offset), "%" PRIu64, config->offset_bytes);
    snprintf(queues, sizeof(queues), "%" PRIu32, config->max_queues);
    char report[16];
    snprintf(report, sizeof(report), "%" PRIu32, config->report_after_ms);
    char bits[12];
    snprintf(bits, sizeof(bits), "%" PRIu32, config->dma_bits ? config->dma_bits : KEYS_BLK_BUS_BITS_MAX);
    const struct pair pairs[] = {
        {"params", params},
        {"type", "qdisk"},
        {"dev", vdev},
        {"device-type", config->cdrom ? "cdrom" : "disk"},
        {"bootable", "1"},
        {"removable", config->removable || config->cdrom ? "1" : "0"},
        {"discard-enable", config->discard ? "1" : "0"},
        {"online", config->online ? "1" : "0"},
        {"domzero/offset", offset},
        {"domzero/direct-io", config->direct_io ? "1" : "0"},
        {"domzero/on-error", config->stop_on_error ? "stop" : "report"},
        {"domzero/report-after", report},
        {"domzero/sector-size", sector},
        {"domzero/physical-sector-size", physical},
        {"domzero/host-alignment", alignment},
        {"domzero/persistent", config->no_persistent ? "0" : "1"},
        {"domzero/iommu", config->iommu_deferred ? "deferred" : "strict"},
        {"domzero/dma-bits", bits},
        {"domzero/max-queues", queues}, /* the last: where it was not said it is not written */
    };
    static const struct pair safe = {"direct-io-safe", "1"}; /* where it is not, xl writes nothing */
    int r = write_pairs(c, tx, back_dir, pairs, ARRAY_SIZE(pairs) - !config->max_queues, e);
    r = r ? r : write_pairs(c, tx, back_dir, &safe, config->direct_io_safe, e);
    return r ? r : keys_blk_config_write_live(c, tx, back_dir, config, e);
}

int keys_blk_config_write_live(struct store_client *c, store_tx tx, const char *back_dir,
                               const struct keys_blk_config *config, struct err *e)
{
    char size[24];
    snprintf(size, sizeof(size), "%" PRIu64, config->size_bytes);
    const struct pair pairs[] = {
        {"mode", config->readonly || config->cdrom ? "r" : "w"},
        {"domzero/size", size},
        {"domzero/dma", config->dma[0] ? config->dma : DMA_DEFAULT_NAME},
        {"domzero/poll", config->poll},
    };
    int r = write_pairs(c, tx, back_dir, pairs, ARRAY_SIZE(pairs) - !config->poll[0], e);
    if (!r && !config->poll[0] && (r = store_rm(c, tx, "%s/domzero/poll", back_dir)) < 0)
        return err_set(e, r, "cannot remove %s/domzero/poll: %s", back_dir, strerror(-r));
    return r ? r : keys_blk_qos_write(c, tx, back_dir, &config->qos, e);
}

/* ---- what the frontend offers ---- */

#define QUEUE_DIR_MORE (sizeof("/queue-4294967295") - 1)

/* Where the keys of a queue lie: the frontend's own directory for one that is alone. */
static void queue_dir(const char *front_dir, const struct keys_blk_front *k, uint32_t queue, char *out, size_t size)
{
    if (k->queue_count == 1)
        snprintf(out, size, "%s", front_dir);
    else
        snprintf(out, size, "%s/queue-%" PRIu32, front_dir, queue);
}

/* Where order 0 is said in so many words, peers differ in the name: Linux and QEMU then use ring-ref0. */
static int read_ring_refs(const struct xb_device *back, const char *dir, bool numbered, const struct keys_blk_front *k,
                          struct keys_blk_queue *q, struct err *e)
{
    for (uint32_t i = 0; i < k->ring_ref_count; i++) {
        char name[24];
        snprintf(name, sizeof(name), numbered ? "ring-ref%u" : "ring-ref", i);
        const struct xb_key key = {.name = name, .min = 1, .max = UINT32_MAX, .required = true};
        uint64_t ref;
        int r = xb_key_read(back->store, STORE_NO_TX, dir, &key, &ref, e);
        if (r == -ENOENT && numbered && k->ring_order == 0)
            return read_ring_refs(back, dir, false, k, q, e);
        if (r)
            return r;
        q->ring_ref[i] = (uint32_t)ref;
    }
    return 0;
}

static int read_queue(const struct xb_device *back, uint32_t queue, bool numbered, struct keys_blk_front *k,
                      struct err *e)
{
    static const struct xb_key port_key = {
        .name = "event-channel", .min = 1, .max = EVTCHN_FIFO_NR_CHANNELS - 1, .required = true};
    char dir[sizeof(back->peer_dir) + QUEUE_DIR_MORE];
    uint64_t port;
    queue_dir(back->peer_dir, k, queue, dir, sizeof(dir));
    int r = read_ring_refs(back, dir, numbered, k, &k->queue[queue], e);
    r = r ? r : xb_key_read(back->store, STORE_NO_TX, dir, &port_key, &port, e);
    if (r == 0)
        k->queue[queue].port = (uint32_t)port;
    return r;
}

static uint32_t ref_at(const struct keys_blk_front *k, uint32_t i)
{
    return k->queue[i / k->ring_ref_count].ring_ref[i % k->ring_ref_count];
}

/* The key of page i of all, below the frontend's directory. */
static const char *ref_name(const struct keys_blk_front *k, uint32_t i, char out[48])
{
    char queue[24] = "";
    if (k->queue_count > 1)
        snprintf(queue, sizeof(queue), "queue-%" PRIu32 "/", i / k->ring_ref_count);
    snprintf(out, 48, "%sring-ref%" PRIu32, queue, i % k->ring_ref_count);
    return out;
}

/* One page in two rings, or one port for two queues, would have one queue's books describe the other. */
static int check_distinct(const char *dir, const struct keys_blk_front *k, struct err *e)
{
    char name[48], before[48];
    for (uint32_t i = 0; i < k->queue_count * k->ring_ref_count; i++)
        for (uint32_t j = 0; j < i; j++)
            if (ref_at(k, i) == ref_at(k, j))
                return err_set(e, -EINVAL, "%s/%s is %" PRIu32 ", as is %s: each page of a ring has its own", dir,
                               ref_name(k, i, name), ref_at(k, i), ref_name(k, j, before));
    for (uint32_t i = 0; i < k->queue_count; i++)
        for (uint32_t j = 0; j < i; j++)
            if (k->queue[i].port == k->queue[j].port)
                return err_set(e, -EINVAL,
                               "%s/queue-%" PRIu32 "/event-channel is %" PRIu32 ", as is queue-%" PRIu32
                               "/event-channel: each queue has its own",
                               dir, i, k->queue[i].port, j);
    return 0;
}

int keys_blk_front_read(const struct xb_device *back, uint32_t order_max, uint32_t queues_max,
                        struct keys_blk_front *out, struct err *e)
{
    assert(order_max <= KEYS_BLK_RING_ORDER_MAX);
    assert(queues_max >= 1 && queues_max <= KEYS_BLK_QUEUES_MAX);
    const uint64_t absent = UINT64_MAX;
    const struct xb_key order_key = {.name = "ring-page-order", .max = order_max, .def = absent};
    const struct xb_key queues_key = {.name = "multi-queue-num-queues", .min = 1, .max = queues_max, .def = 1};
    struct store_client *c = back->store;
    const char *dir = back->peer_dir;
    struct keys_blk_front k = {0};
    uint64_t order, queues;
    int r = xb_key_read(c, STORE_NO_TX, dir, &queues_key, &queues, e);
    r = r ? r : xb_key_read(c, STORE_NO_TX, dir, &order_key, &order, e);
    if (r)
        return r;
    k.queue_count = (uint32_t)queues;
    k.ring_order = order == absent ? 0 : (uint32_t)order;
    k.ring_ref_count = 1u << k.ring_order;
    for (uint32_t i = 0; r == 0 && i < k.queue_count; i++)
        r = read_queue(back, i, order != absent, &k, e);
    r = r ? r : check_distinct(dir, &k, e);
    r = r ? r : xb_key_read_string(c, STORE_NO_TX, dir, "protocol", "", k.protocol, sizeof(k.protocol), e);
    r = r ? r : read_bool(back, dir, "feature-persistent", &k.persistent, e);
    r = r ? r : read_bool(back, dir, "domzero/feature-fua", &k.fua, e);
    r = r ? r : read_bool(back, dir, "domzero/feature-write-zeroes", &k.write_zeroes, e);
    r = r ? r : read_bool(back, dir, "domzero/bus-addresses", &k.bus_addresses, e);
    if (r == 0)
        *out = k;
    return r;
}

/* A key that an earlier connection may have left and this one does not have. */
static int remove_key(const struct xb_device *d, store_tx tx, const char *name, struct err *e)
{
    int r = store_rm(d->store, tx, "%s/%s", d->dir, name);
    return r < 0 ? err_set(e, r, "cannot remove %s/%s: %s", d->dir, name, strerror(-r)) : 0;
}

static int write_number_at(const struct xb_device *d, store_tx tx, const char *dir, const char *name, uint64_t value,
                           struct err *e)
{
    int r = store_printf(d->store, tx, dir, name, "%" PRIu64, value);
    return r < 0 ? err_set(e, r, "cannot write %s/%s: %s", dir, name, strerror(-r)) : 0;
}

static int write_number(const struct xb_device *d, store_tx tx, const char *name, uint64_t value, struct err *e)
{
    return write_number_at(d, tx, d->dir, name, value, e);
}

/* An extension of ours: a key, or none, so that a peer without it shows exactly Xen's. */
static int write_extension(const struct xb_device *d, store_tx tx, const char *name, uint64_t value, struct err *e)
{
    return value ? write_number(d, tx, name, value, e) : remove_key(d, tx, name, e);
}

static int write_queue(const struct xb_device *front, store_tx tx, const struct keys_blk_front *k, uint32_t queue,
                       struct err *e)
{
    char dir[sizeof(front->dir) + QUEUE_DIR_MORE];
    const struct keys_blk_queue *q = &k->queue[queue];
    queue_dir(front->dir, k, queue, dir, sizeof(dir));
    int r = 0;
    for (uint32_t i = 0; r == 0 && i < k->ring_ref_count; i++) {
        char name[24];
        snprintf(name, sizeof(name), k->ring_order ? "ring-ref%u" : "ring-ref", i);
        r = write_number_at(front, tx, dir, name, q->ring_ref[i], e);
    }
    return r ? r : write_number_at(front, tx, dir, "event-channel", q->port, e);
}

/* The queues of an offer that had several. */
static int remove_queues(const struct xb_device *front, store_tx tx, struct err *e)
{
    _cleanup_free_ char *text = NULL;
    int r = store_read(front->store, tx, &text, NULL, "%s/multi-queue-num-queues", front->dir);
    if (r == -ENOENT)
        return 0;
    if (r < 0)
        return err_set(e, r, "%s/multi-queue-num-queues cannot be read: %s", front->dir, strerror(-r));
    for (unsigned i = 0; r == 0 && i < KEYS_BLK_QUEUES_MAX; i++) {
        char name[24];
        snprintf(name, sizeof(name), "queue-%u", i);
        r = remove_key(front, tx, name, e);
    }
    return r ? r : remove_key(front, tx, "multi-queue-num-queues", e);
}

static int write_queues(const struct xb_device *front, store_tx tx, const struct keys_blk_front *keys, struct err *e)
{
    int r = remove_queues(front, tx, e);
    if (r == 0)
        r = keys->ring_order ? write_number(front, tx, "ring-page-order", keys->ring_order, e)
                             : remove_key(front, tx, "ring-page-order", e);
    if (r == 0 && (keys->ring_order || keys->queue_count > 1))
        r = remove_key(front, tx, "ring-ref", e);
    if (r == 0 && keys->queue_count > 1)
        r = remove_key(front, tx, "event-channel", e);
    if (r == 0 && keys->queue_count > 1)
        r = write_number(front, tx, "multi-queue-num-queues", keys->queue_count, e);
    for (uint32_t i = 0; r == 0 && i < keys->queue_count; i++)
        r = write_queue(front, tx, keys, i, e);
    return r;
}

int keys_blk_front_write(const struct xb_device *front, store_tx tx, const struct keys_blk_front *keys, struct err *e)
{
    assert(keys->ring_order <= KEYS_BLK_RING_ORDER_MAX && keys->ring_ref_count == 1u << keys->ring_order);
    assert(keys->queue_count >= 1 && keys->queue_count <= KEYS_BLK_QUEUES_MAX);
    int r = write_queues(front, tx, keys, e);
    r = r ? r : write_number(front, tx, "feature-persistent", keys->persistent, e);
    r = r ? r : write_extension(front, tx, "domzero/feature-fua", keys->fua, e);
    r = r ? r : write_extension(front, tx, "domzero/feature-write-zeroes", keys->write_zeroes, e);
    r = r ? r : write_extension(front, tx, "domzero/bus-addresses", keys->bus_addresses, e);
    if (r || !keys->protocol[0])
        return r ? r : remove_key(front, tx, "protocol", e);
    const struct pair protocol = {"protocol", keys->protocol};
    return write_pairs(front->store, tx, front->dir, &protocol, 1, e);
}

/* ---- what the backend announces ---- */

int keys_blk_features_write(const struct xb_device *back, store_tx tx, const struct keys_blk_features *f, struct err *e)
{
    int r = write_number(back, tx, "max-ring-page-order", f->max_ring_order, e);
    r = r ? r : write_number(back, tx, "multi-queue-max-queues", f->max_queues, e);
    r = r ? r : write_extension(back, tx, "domzero/feature-fua", f->fua, e);
    r = r ? r : write_extension(back, tx, "domzero/max-write-zeroes-sectors", f->max_write_zeroes_sectors, e);
    r = r ? r : write_extension(back, tx, "domzero/feature-bus-addresses", f->bus_bits, e);
    r = r ? r : write_number(back, tx, "feature-persistent", f->persistent, e);
    if (r || !f->max_indirect_segments)
        return r ? r : remove_key(back, tx, "feature-max-indirect-segments", e);
    return write_number(back, tx, "feature-max-indirect-segments", f->max_indirect_segments, e);
}

/* Offers beyond what the protocol or this project knows are no error: one need not take them. */
int keys_blk_features_read(const struct xb_device *front, struct keys_blk_features *f, struct err *e)
{
    static const struct xb_key order_key = {.name = "max-ring-page-order", .max = UINT32_MAX};
    static const struct xb_key queues_key = {.name = "multi-queue-max-queues", .min = 1, .max = UINT32_MAX, .def = 1};
    static const struct xb_key indirect_key = {.name = "feature-max-indirect-segments", .max = UINT32_MAX};
    static const struct xb_key zeroes_key = {.name = "domzero/max-write-zeroes-sectors", .max = UINT32_MAX};
    static const struct xb_key bus_key = {.name = "domzero/feature-bus-addresses", .max = UINT32_MAX};
    uint64_t order, queues, segments, zeroes, bus_bits;
    bool fua;
    f->persistent = false;
    int r = xb_key_read(front->store, STORE_NO_TX, front->peer_dir, &order_key, &order, e);
    r = r ? r : xb_key_read(front->store, STORE_NO_TX, front->peer_dir, &queues_key, &queues, e);
    r = r ? r : xb_key_read(front->store, STORE_NO_TX, front->peer_dir, &indirect_key, &segments, e);
    r = r ? r : xb_key_read(front->store, STORE_NO_TX, front->peer_dir, &zeroes_key, &zeroes, e);
    r = r ? r : xb_key_read(front->store, STORE_NO_TX, front->peer_dir, &bus_key, &bus_bits, e);
    r = r ? r : read_bool(front, front->peer_dir, "domzero/feature-fua", &fua, e);
    r = r ? r : read_bool(front, front->peer_dir, "feature-persistent", &f->persistent, e);
    if (r)
        return r;
    f->fua = fua;
    f->bus_bits = bus_bits > PAGE_SHIFT_4K && bus_bits <= KEYS_BLK_BUS_BITS_MAX ? (uint32_t)bus_bits : 0;
    f->max_write_zeroes_sectors = (uint32_t)zeroes;
    f->max_ring_order = (uint32_t)MIN(order, (uint64_t)KEYS_BLK_RING_ORDER_MAX);
    f->max_queues = (uint32_t)MIN(queues, (uint64_t)KEYS_BLK_QUEUES_MAX);
    f->max_indirect_segments = (uint32_t)MIN(segments, (uint64_t)KEYS_BLK_INDIRECT_MAX);
    return 0;
}

/* ---- the disk ---- */

/* Four keys, or none. */
static int write_discard(const struct xb_device *back, store_tx tx, const struct keys_blk_disk *disk, struct err *e)
{
    const struct {
        const char *name;
        uint64_t value;
    } keys[] = {{"feature-discard", 1},
                {"discard-granularity", disk->discard_granularity_bytes},
                {"discard-alignment", disk->discard_alignment_bytes},
                {"discard-secure", 0}};
    int r = 0;
    for (size_t i = 0; i < ARRAY_SIZE(keys) && r == 0; i++)
        r = disk->discard ? write_number(back, tx, keys[i].name, keys[i].value, e)
                          : remove_key(back, tx, keys[i].name, e);
    return r;
}

int keys_blk_disk_write(const struct xb_device *back, store_tx tx, const struct keys_blk_disk *disk, struct err *e)
{
    int r = write_number(back, tx, "sectors", disk->sectors, e);
    r = r ? r : write_number(back, tx, "sector-size", disk->sector_bytes, e);
    r = r ? r : write_number(back, tx, "physical-sector-size", disk->physical_sector_bytes, e);
    r = r ? r : write_number(back, tx, "info", disk->info, e);
    r = r ? r : write_number(back, tx, "feature-flush-cache", disk->flush_cache, e);
    r = r ? r : write_number(back, tx, "feature-barrier", disk->barrier, e);
    return r ? r : write_discard(back, tx, disk, e);
}

static bool power_of_two(uint64_t n)
{
    return n && !(n & (n - 1));
}

static int disk_check(const char *dir, uint64_t sectors, uint64_t sector, uint64_t physical, struct err *e)
{
    if (!power_of_two(sector))
        return err_set(e, -EINVAL, "%s/sector-size is %" PRIu64 "; a power of two was expected", dir, sector);
    if (!power_of_two(physical) || physical < sector)
        return err_set(e, -EINVAL,
                       "%s/physical-sector-size is %" PRIu64 "; a power of two of at least sector-size, %" PRIu64
                       ", was expected",
                       dir, physical, sector);
    if (sectors % (sector / SECTOR_BYTES))
        return err_set(e, -EINVAL, "%s/sectors is %" PRIu64 " (of 512 bytes), no multiple of sector-size %" PRIu64, dir,
                       sectors, sector);
    return 0;
}

int keys_blk_disk_read(const struct xb_device *front, struct keys_blk_disk *disk, struct err *e)
{
    static const struct xb_key sectors_key = {.name = "sectors", .max = SECTORS_MAX, .required = true};
    static const struct xb_key sector_key = {
        .name = "sector-size", .min = SECTOR_BYTES, .max = SECTOR_BYTES_MAX, .def = SECTOR_BYTES};
    static const struct xb_key info_key = {.name = "info", .max = UINT32_MAX};
    struct store_client *c = front->store;
    const char *dir = front->peer_dir;
    uint64_t sectors, sector, physical, info;
    const struct xb_key alignment_key = {.name = "discard-alignment", .max = UINT32_MAX};
    uint64_t granularity, alignment;
    bool flush = false, barrier = false, discard = false;
    int r = xb_key_read(c, STORE_NO_TX, dir, &sectors_key, &sectors, e);
    r = r ? r : xb_key_read(c, STORE_NO_TX, dir, &sector_key, &sector, e);
    if (r)
        return r;
    const struct xb_key physical_key = {
        .name = "physical-sector-size", .min = SECTOR_BYTES, .max = PHYSICAL_SECTOR_BYTES_MAX, .def = sector};
    r = xb_key_read(c, STORE_NO_TX, dir, &physical_key, &physical, e);
    r = r ? r : xb_key_read(c, STORE_NO_TX, dir, &info_key, &info, e);
    r = r ? r : read_bool(front, dir, "feature-flush-cache", &flush, e);
    const struct xb_key granularity_key = {.name = "discard-granularity", .min = 1, .max = UINT32_MAX, .def = sector};
    r = r ? r : read_bool(front, dir, "feature-barrier", &barrier, e);
    r = r ? r : read_bool(front, dir, "feature-discard", &discard, e);
    r = r ? r : xb_key_read(c, STORE_NO_TX, dir, &granularity_key, &granularity, e);
    r = r ? r : xb_key_read(c, STORE_NO_TX, dir, &alignment_key, &alignment, e);
    r = r ? r : disk_check(dir, sectors, sector, physical, e);
    if (r)
        return r;
    *disk = (struct keys_blk_disk){
        .sectors = sectors,
        .sector_bytes = (uint32_t)sector,
        .physical_sector_bytes = (uint32_t)physical,
        .info = (uint32_t)info & (KEYS_BLK_INFO_CDROM | KEYS_BLK_INFO_REMOVABLE | KEYS_BLK_INFO_READONLY),
        .flush_cache = flush,
        .barrier = barrier,
        .discard = discard,
        .discard_granularity_bytes = (uint32_t)granularity,
        .discard_alignment_bytes = (uint32_t)alignment,
    };
    return 0;
}
