/* SPDX-License-Identifier: MIT */
/* nbdkit-domzero.c: a virtual disk as a network block device: an nbdkit plugin that is a guest of domzero.
 *
 *   domzero exec VM -- nbdkit build/nbdkit-domzero-plugin.so vdev=xvda
 *
 * A program of the installed header alone. All connections share one open disk, as a domain can have a disk open once:
 * the first connection opens it and the last one closes it, so between clients another program of the domain may have
 * it. One disk behind all connections is also why multi-conn is true: a flush on one covers what the others wrote.
 *
 * Threads: nbdkit calls from many at once, for one connection and for several (the parallel model). Each callback is a
 * user of the share (diskshare.h) with one transfer, so all are in flight together.
 *
 * Sectors: requests are whole sectors, the announced minimum. Smaller ones are refused with EINVAL. Reading the sector
 * and writing it back would be wrong without a lock around both, as two connections may write into one sector:
 * nbdkit's blocksize filter (--filter=blocksize) does it, with that lock, for clients that ignore the minimum.
 *
 * Durability: flush is the disk's. FUA is the disk's for writes where it has it, and otherwise a flush after the write.
 *
 * Trim is the disk's discard, where it has it. It is no way to write zeroes, as the protocol does not say what is read
 * afterwards; for these domzero's disks have a request of their own, and where a disk has not, nbdkit writes them.
 * There are no extents: the protocol has no question for what is allocated, so all is, and a client reads it all.
 *
 * A backend that dies and comes back is a pause for the client. */
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <domzero/domzero.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/diskshare.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

#define PREFERRED_BYTES 4096u
#define MAXIMUM_BYTES   (64u << 20) /* nbdkit's own limit of a request */
#define QUEUE_DEPTH     128u        /* several connections of 16 threads each */
#define POOL_BYTES      (16u << 20)

static const char *vdev; /* borrowed from nbdkit, which keeps its arguments */
static char *domain_dir; /* NULL: $DOMZERO_DOMAIN_DIR */

static void disk_complain(const char *sentence)
{
    nbdkit_error("%s", sentence);
}

/* ---- configuration ---- */

static int disk_config(const char *key, const char *value)
{
    if (strcmp(key, "vdev") == 0) {
        vdev = value;
    } else if (strcmp(key, "domain-dir") == 0) {
        free(domain_dir);
        domain_dir = nbdkit_absolute_path(value); /* nbdkit changes its directory when it becomes a daemon */
        if (!domain_dir)
            return -1;
    } else {
        nbdkit_error("unknown parameter '%s': vdev and domain-dir are known", key);
        return -1;
    }
    return 0;
}

static int disk_config_complete(void)
{
    if (!vdev) {
        nbdkit_error("which disk? Say vdev=xvda");
        return -1;
    }
    if (!domain_dir && !getenv("DOMZERO_DOMAIN_DIR")) {
        nbdkit_error("which domain? Start nbdkit by `domzero exec VM -- nbdkit …`, or say domain-dir=RUN/dom/DOMID");
        return -1;
    }
    return 0;
}

static void disk_unload(void)
{
    free(domain_dir);
}

/* ---- connections ---- */

static void *disk_open(int readonly)
{
    (void)readonly; /* nbdkit refuses writes on such a connection itself */
    struct dz_vbd_options options = {.pool_bytes = POOL_BYTES, .queue_depth = QUEUE_DEPTH};
    struct diskshare *share;
    int r = diskshare_open(domain_dir, vdev, &options, disk_complain, &share);
    if (r == 0)
        return share;
    nbdkit_set_error(-r);
    return NULL;
}

static void disk_close(void *handle)
{
    diskshare_close(handle, NULL);
}

/* ---- what the disk is ---- */

static struct dz_vbd_info disk_info(void *handle)
{
    struct dz_vbd_info info;
    diskshare_info(handle, &info);
    return info;
}

static int64_t disk_size(void *handle)
{
    return (int64_t)disk_info(handle).size_bytes;
}

static int disk_block_size(void *handle, uint32_t *minimum, uint32_t *preferred, uint32_t *maximum)
{
    struct dz_vbd_info info = disk_info(handle);
    *minimum = info.sector_bytes;
    *preferred = info.physical_sector_bytes > PREFERRED_BYTES ? info.physical_sector_bytes : PREFERRED_BYTES;
    *maximum = MAXIMUM_BYTES;
    return 0;
}

static int disk_can_write(void *handle)
{
    return !disk_info(handle).readonly;
}

static int disk_can_flush(void *handle)
{
    return disk_info(handle).flush;
}

static int disk_can_fua(void *handle)
{
    struct dz_vbd_info info = disk_info(handle);
    return info.fua ? NBDKIT_FUA_NATIVE : info.flush ? NBDKIT_FUA_EMULATE : NBDKIT_FUA_NONE;
}

static int disk_can_trim(void *handle)
{
    return disk_info(handle).discard;
}

static int disk_can_multi_conn(void *handle)
{
    (void)handle;
    return 1;
}

/* ---- requests ---- */

static int disk_transfer(struct diskshare *share, struct diskshare_transfer *t)
{
    struct diskshare_user user;
    diskshare_user_init(&user, share);
    diskshare_submit(&user, t);
    diskshare_wait(&user, &t, 1, 1, -1);
    diskshare_user_deinit(&user);
    if (t->result == 0)
        return 0;
    nbdkit_error("%s: operation %d of %llu bytes at %llu: %s", vdev, (int)t->op, (unsigned long long)t->length_bytes,
                 (unsigned long long)t->offset_bytes, strerror(-t->result));
    nbdkit_set_error(-t->result);
    return -1;
}

static int disk_read(void *handle, void *buffer, uint32_t bytes, uint64_t offset, uint32_t flags)
{
    (void)flags;
    struct diskshare_transfer t = {.op = DZ_READ, .buffer = buffer, .length_bytes = bytes, .offset_bytes = offset};
    return disk_transfer(handle, &t);
}

static int disk_flush(void *handle, uint32_t flags)
{
    (void)flags;
    struct diskshare_transfer t = {.op = DZ_FLUSH};
    return disk_transfer(handle, &t);
}

static int disk_write(void *handle, const void *buffer, uint32_t bytes, uint64_t offset, uint32_t flags)
{
    struct diskshare_transfer t = {
        .op = DZ_WRITE, .buffer = (void *)(uintptr_t)buffer, .length_bytes = bytes, .offset_bytes = offset};
    if (flags & NBDKIT_FLAG_FUA)
        t.op |= DZ_FUA;
    return disk_transfer(handle, &t);
}

/* Without data, so FUA is a flush afterwards. */
static int disk_change(struct diskshare *share, struct diskshare_transfer *t, uint32_t flags)
{
    int r = disk_transfer(share, t);
    return r < 0 || !(flags & NBDKIT_FLAG_FUA) ? r : disk_flush(share, 0);
}

static int disk_zero(void *handle, uint32_t bytes, uint64_t offset, uint32_t flags)
{
    struct diskshare_transfer t = {.op = DZ_WRITE_ZEROES, .length_bytes = bytes, .offset_bytes = offset};
    if (!disk_info(handle).write_zeroes_bytes_max) {
        nbdkit_set_error(EOPNOTSUPP); /* nbdkit writes zeroes then */
        return -1;
    }
    if (flags & NBDKIT_FLAG_MAY_TRIM)
        t.op |= DZ_MAY_UNMAP;
    return disk_change(handle, &t, flags);
}

static int disk_trim(void *handle, uint32_t bytes, uint64_t offset, uint32_t flags)
{
    struct diskshare_transfer t = {.op = DZ_DISCARD, .length_bytes = bytes, .offset_bytes = offset};
    return disk_change(handle, &t, flags);
}

static struct nbdkit_plugin plugin = {
    .name = "domzero",
    .longname = "domzero virtual disk",
    .description = "Serves a virtual disk of a domzero domain.",
    .magic_config_key = "vdev",
    .config = disk_config,
    .config_complete = disk_config_complete,
    .config_help = "[vdev=]<DISK>     (required) The disk: xvda, or its number.\n"
                   "domain-dir=<DIR>  The domain's directory; $DOMZERO_DOMAIN_DIR, which `domzero exec` sets.",
    .unload = disk_unload,
    .open = disk_open,
    .close = disk_close,
    .get_size = disk_size,
    .block_size = disk_block_size,
    .can_write = disk_can_write,
    .can_flush = disk_can_flush,
    .can_fua = disk_can_fua,
    .can_trim = disk_can_trim,
    .can_multi_conn = disk_can_multi_conn,
    .pread = disk_read,
    .pwrite = disk_write,
    .flush = disk_flush,
    .trim = disk_trim,
    .zero = disk_zero,
};

NBDKIT_REGISTER_PLUGIN(plugin)
