/* SPDX-License-Identifier: MIT */
/* nbdkit-domzero.c: a virtual disk as a network block device: an nbdkit plugin that is a guest of domzero.
 *
 *   domzero exec VM -- nbdkit build/nbdkit-domzero-plugin.so vdev=xvda
 *
 * A program of the installed header alone. All connections share one open disk, as a domain can have a disk open once:
 * the first connection opens it and the last one closes it, so between clients another program of the domain may have
 * it. One disk behind all connections is also why multi-conn is true: a flush on one covers what the others wrote.
 *
 * Threads: a domain of libdomzero is used by one thread at a time, so nbdkit is told to have one callback in progress
 * at any time, for all connections together (SERIALIZE_ALL_REQUESTS; open and close count). Nothing here is locked.
 * Within one callback the library still keeps as many requests in flight as the ring takes: large requests are fast.
 *
 * Sectors: requests are whole sectors, the announced minimum. Smaller ones are refused with EINVAL. Reading the sector
 * and writing it back would be wrong without a lock around both, as two connections may write into one sector:
 * nbdkit's blocksize filter (--filter=blocksize) does it, with that lock, for clients that ignore the minimum.
 *
 * Durability: flush is the disk's. FUA is emulated by nbdkit, a flush after the write. Zeroing is nbdkit's writing of
 * zeros, and trim is not offered: libdomzero has no request for either. When it has, .trim, .can_trim and disk_trim()
 * beside disk_write() are what to add.
 *
 * A backend that dies and comes back is a pause for the client. */
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <domzero/domzero.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define THREAD_MODEL NBDKIT_THREAD_MODEL_SERIALIZE_ALL_REQUESTS

#define PREFERRED_BYTES 4096u
#define MAXIMUM_BYTES   (64u << 20) /* nbdkit's own limit of a request */

static const char *vdev;      /* borrowed from nbdkit, which keeps its arguments */
static char *domain_dir;      /* NULL: $DOMZERO_DOMAIN_DIR */
static struct dz_domain *dom; /* these three: while there are connections */
static struct dz_vbd *disk;
static unsigned connections;

/* To nbdkit: the library's sentence and its code. -1, as callbacks answer. */
static int disk_failed(int r)
{
    nbdkit_error("%s", dz_error());
    nbdkit_set_error(-r);
    return -1;
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

static int disk_acquire(void)
{
    int r = 0;
    if (connections == 0) {
        r = dz_domain_open(domain_dir, &dom);
        if (r < 0)
            return disk_failed(r);
        r = dz_vbd_open(dom, vdev, NULL, &disk);
    }
    if (r < 0) {
        disk_failed(r);
        dz_domain_close(dom);
        return -1;
    }
    connections++;
    return 0;
}

static void *disk_open(int readonly)
{
    (void)readonly; /* nbdkit refuses writes on such a connection itself */
    return disk_acquire() < 0 ? NULL : NBDKIT_HANDLE_NOT_NEEDED;
}

static void disk_close(void *handle)
{
    (void)handle;
    if (--connections)
        return;
    dz_vbd_close(disk);
    dz_domain_close(dom);
}

/* ---- what the disk is ---- */

static struct dz_vbd_info disk_info(void)
{
    struct dz_vbd_info info;
    dz_vbd_info(disk, &info);
    return info;
}

static int64_t disk_size(void *handle)
{
    (void)handle;
    return (int64_t)disk_info().size_bytes;
}

static int disk_block_size(void *handle, uint32_t *minimum, uint32_t *preferred, uint32_t *maximum)
{
    (void)handle;
    struct dz_vbd_info info = disk_info();
    *minimum = info.sector_bytes;
    *preferred = info.physical_sector_bytes > PREFERRED_BYTES ? info.physical_sector_bytes : PREFERRED_BYTES;
    *maximum = MAXIMUM_BYTES;
    return 0;
}

static int disk_can_write(void *handle)
{
    (void)handle;
    return !disk_info().readonly;
}

static int disk_can_flush(void *handle)
{
    (void)handle;
    return disk_info().flush;
}

static int disk_can_fua(void *handle)
{
    (void)handle;
    return disk_info().flush ? NBDKIT_FUA_EMULATE : NBDKIT_FUA_NONE;
}

static int disk_can_multi_conn(void *handle)
{
    (void)handle;
    return 1;
}

/* ---- requests: flags are 0, as nothing but FUA could be set, and that is emulated ---- */

static int disk_read(void *handle, void *buffer, uint32_t bytes, uint64_t offset, uint32_t flags)
{
    (void)handle, (void)flags;
    int r = dz_vbd_read(disk, buffer, bytes, offset);
    return r < 0 ? disk_failed(r) : 0;
}

static int disk_write(void *handle, const void *buffer, uint32_t bytes, uint64_t offset, uint32_t flags)
{
    (void)handle, (void)flags;
    int r = dz_vbd_write(disk, buffer, bytes, offset);
    return r < 0 ? disk_failed(r) : 0;
}

static int disk_flush(void *handle, uint32_t flags)
{
    (void)handle, (void)flags;
    int r = dz_vbd_flush(disk);
    return r < 0 ? disk_failed(r) : 0;
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
    .can_multi_conn = disk_can_multi_conn,
    .pread = disk_read,
    .pwrite = disk_write,
    .flush = disk_flush,
};

NBDKIT_REGISTER_PLUGIN(plugin)
