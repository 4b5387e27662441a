/* SPDX-License-Identifier: MIT */
/* xenbus/keys_blk.h: every store key of a block device, typed: who writes it, its range, its default.
 *
 * Names are those of <xen/io/blkif.h>. Keys of our own, none of which a peer needs, live in a subdirectory `domzero` of
 * either end's directory, so that everything else in it is exactly Xen's. An extension of the protocol is a key there
 * that the backend offers and the frontend takes; it is used where both did.
 *
 *   toolstack → backend's dir
 *     params (FORMAT:PATH), mode (r|w), device-type, type, dev, bootable, removable, online, discard-enable,
 *     direct-io-safe; below domzero/ offset, size, direct-io, dma, iommu (strict|deferred), dma-bits, poll, on-error,
 *     report-after, persistent, max-queues, sector-size, physical-sector-size, host-alignment, those of keys_blk_qos.h;
 *     to change a disk that runs set/… (keys_blk_set.h), paused ("resume", over what the backend wrote)
 *
 *   backend → its dir
 *     max-ring-page-order, multi-queue-max-queues, feature-max-indirect-segments, feature-persistent (where it may be
 *     used, 1), domzero/{feature-fua,max-write-zeroes-sectors,feature-bus-addresses,warning}; with state 4 sectors,
 *     sector-size, physical-sector-size, info, feature-flush-cache, feature-barrier, and where it discards
 *     feature-discard, discard-granularity, discard-alignment, discard-secure (0)
 *
 *   frontend → its dir, with state 3
 *     multi-queue-num-queues, ring-page-order, protocol, feature-persistent,
 *     domzero/{feature-fua,feature-write-zeroes,bus-addresses,instance}, and ring-ref | ring-ref<n> and event-channel:
 *     of one queue here, of several in queue-<N>/
 *
 * All sector counts are in 512-byte units whatever sector-size is.
 */
#ifndef XENBUS_KEYS_BLK_H
#define XENBUS_KEYS_BLK_H

#include "xenbus/device.h"
#include "xenbus/keys.h"
#include "xenbus/keys_blk_qos.h"

#define KEYS_BLK_RING_ORDER_MAX 4 /* of the protocol; a backend may offer less */
#define KEYS_BLK_RING_REFS_MAX  (1u << KEYS_BLK_RING_ORDER_MAX)

#define KEYS_BLK_PAUSED     "domzero/paused"
#define KEYS_BLK_WARNING    "domzero/warning" /* the backend's: what is wrong with how the disk is served */
#define KEYS_BLK_RESUME     "resume"
#define KEYS_BLK_QUEUES_MAX 16 /* what this project uses, at either end */

#define KEYS_BLK_INDIRECT_MAX 4096u /* segments: 8 pages of 512 */

#define KEYS_BLK_BUS_BITS_32  32 /* of a device that reaches 4 GiB of bus addresses */
#define KEYS_BLK_BUS_BITS_MAX 44 /* a bus page has the room of a grant reference */

#define KEYS_BLK_INFO_CDROM     1u /* VDISK_CDROM, _REMOVABLE, _READONLY of blkif.h's `info` */
#define KEYS_BLK_INFO_REMOVABLE 2u
#define KEYS_BLK_INFO_READONLY  4u

/* What the toolstack configured; only dom0 writes it. */
struct keys_blk_config {
    char format[16]; /* before the first ':' of params: "raw"; always given, never probed */
    char path[512];  /* behind it; absolute */
    bool readonly;   /* mode is not "w", or a CD-ROM */
    bool cdrom;      /* device-type; it is read-only and removable whatever the other keys say */
    bool removable;
    bool discard;             /* the guest may punch holes into it; on where nobody said anything */
    bool direct_io;           /* O_DIRECT instead of the page cache */
    uint64_t offset_bytes;    /* where the disk begins in the file */
    uint64_t size_bytes;      /* its size; 0: to the end of the file */
    char dma[16];             /* a row of grant/dma.h */
    bool iommu_deferred;      /* where that is "iommu": unmaps are gathered, and ended a little later */
    uint32_t dma_bits;        /* and so many bits of bus address the device has: 32, 44 */
    bool stop_on_error;       /* requests that the storage failed are held, not answered */
    uint32_t report_after_ms; /* the frontend's: see keys_blk_report_after_read() */
    char poll[16];            /* how its reactors wait for it; "": as the role does */
    struct keys_blk_qos qos;
    uint32_t max_queues; /* to offer to the frontend, 1 … KEYS_BLK_QUEUES_MAX; 0: not said, the backend's default */
    /* 512, 4096; 0: what the storage says. */
    uint32_t sector_bytes, physical_sector_bytes; /* that the guest is shown */
    uint32_t host_alignment_bytes;                /* that I/O on the storage is a multiple of, at the least */
    bool direct_io_safe; /* O_DIRECT may be used by backends that give pages back too early; we do not */
    bool no_persistent;  /* grants are not kept mapped, whatever the frontend can do */
    bool online;         /* 0: the toolstack wants the device gone once it is closed */
};
/* For the frontend: how long it lets a request wait for a backend that does not answer; 0: for ever. */
int keys_blk_report_after_read(const struct xb_device *front, uint32_t *ms, struct err *e);
int keys_blk_config_read(const struct xb_device *back, struct keys_blk_config *out, struct err *e);
/* Writes all toolstack keys of the backend directory except state, frontend, frontend-id. `vdev` as "xvda". */
int keys_blk_config_write(struct store_client *c, store_tx tx, const char *back_dir,
                          const struct keys_blk_config *config, const char *vdev, struct err *e);
/* The part of it that can change while the disk runs: mode, domzero/{size,dma,poll} and those of keys_blk_qos.h. */
int keys_blk_config_write_live(struct store_client *c, store_tx tx, const char *back_dir,
                               const struct keys_blk_config *config, struct err *e);

struct keys_blk_queue {
    uint32_t ring_ref[KEYS_BLK_RING_REFS_MAX]; /* the first keys_blk_front.ring_ref_count; the others are 0 */
    uint32_t port;
};

/* What the frontend offers to connect; hostile. No page and no port occurs twice in what was read. */
struct keys_blk_front {
    uint32_t queue_count; /* 1 … KEYS_BLK_QUEUES_MAX; 1 is said by saying nothing */
    uint32_t ring_order;
    uint32_t ring_ref_count; /* of each queue: 1 << ring_order */
    struct keys_blk_queue queue[KEYS_BLK_QUEUES_MAX];
    bool persistent;
    bool fua, write_zeroes; /* it takes these extensions where they are offered */
    bool bus_addresses;     /* and this one: then every segment names a bus page */
    char protocol[32];      /* "" where absent */
};
/* `order_max`, `queues_max`: what the backend offered. */
int keys_blk_front_read(const struct xb_device *back, uint32_t order_max, uint32_t queues_max,
                        struct keys_blk_front *out, struct err *e);
/* Leaves nothing of an earlier offer with more queues or pages. */
int keys_blk_front_write(const struct xb_device *front, store_tx tx, const struct keys_blk_front *keys, struct err *e);

/* What the backend announces before it is connected … */
struct keys_blk_features {
    uint32_t max_ring_order, max_queues; /* 0 and 1 in a backend without them */
    uint32_t max_indirect_segments;      /* 0: no indirect requests */
    bool fua;                            /* BLKREQ_OP_WRITE_FUA of ring/blkreq.h */
    uint32_t max_write_zeroes_sectors;   /* BLKREQ_OP_WRITE_ZEROES of up to so many; 0: none */
    uint32_t bus_bits;                   /* BLKREQ_OP_BUS_*, and bits of a bus address; 0: there are none */
    bool persistent;                     /* it keeps grants mapped where the frontend says so, too */
};
int keys_blk_features_write(const struct xb_device *back, store_tx tx, const struct keys_blk_features *f,
                            struct err *e);
int keys_blk_features_read(const struct xb_device *front, struct keys_blk_features *f, struct err *e);

/* … and the disk itself. The frontend checks it like anything a peer wrote. */
struct keys_blk_disk {
    uint64_t sectors; /* 512-byte units */
    uint32_t sector_bytes, physical_sector_bytes;
    uint32_t info; /* KEYS_BLK_INFO_* */
    bool flush_cache, barrier;
    bool discard;
    uint32_t discard_granularity_bytes, discard_alignment_bytes; /* read: sector size and 0 where not said */
};
int keys_blk_disk_write(const struct xb_device *back, store_tx tx, const struct keys_blk_disk *disk, struct err *e);
int keys_blk_disk_read(const struct xb_device *front, struct keys_blk_disk *disk, struct err *e);

/* Virtual device names and numbers (xen-vbd-interface.7): xvda … xvdp with partitions, beyond that the extended form;
 * hd* and sd* too; a plain number is taken as it is. 0 or -EINVAL. */
int keys_blk_devid(const char *vdev, uint32_t *devid);
/* The name of a devid, in the xvd form ("xvda", "xvdb1"); its number where it has none. */
void keys_blk_vdev(uint32_t devid, char *out, size_t size);

#endif
