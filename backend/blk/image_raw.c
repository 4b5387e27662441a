/* SPDX-License-Identifier: MIT */
/* backend/blk/image_raw.c: a disk that is a region of a file or of a block device, byte for byte.
 *
 * The descriptor stays blocking: with O_NONBLOCK io_uring answers -EAGAIN instead of handing a slow read to a worker.
 * It is opened with the flag all the same, so that a FIFO cannot stop the control thread, and cleared once the file is
 * known to be what it should be.
 *
 * A discard punches a hole. Whether a file's file system can do that is tried once, behind the file's end, where it
 * changes nothing. A block device only says so when it is asked in earnest.
 *
 * Closing takes the lock off by hand and not by the last close: a fixed-file slot of an io_uring gives its reference
 * back later. A killed process never comes here, and its lock stays until its last I/O is done; that is wanted.
 */
#include <assert.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "backend/blk/image.h"
#include "base/span.h"

struct raw_file {
    int fd;
    uint64_t size_bytes;
    uint32_t align_bytes, memory_align_bytes; /* what offsets and lengths, and addresses must be multiples of */
    uint32_t physical_bytes;
    uint32_t span_align_bytes; /* of fallocate(): a file system does any, a device its blocks */
    bool discard;
};

/* What of the file is the disk, and what its guest sees. */
struct raw_region {
    uint64_t offset_bytes, size_bytes;
    uint64_t inner_first, inner_end; /* the whole blocks in it; first == end: none */
    uint32_t sector_bytes, physical_bytes;
};

static int raw_open_error(const struct image_config *c, int error, struct err *e)
{
    switch (error) {
    case ENOENT:
        return err_set(e, -error, "%s does not exist: make it (truncate -s 1G FILE) or correct params", c->path);
    case EISDIR: return err_set(e, -error, "%s is a directory: name an image file or a block device", c->path);
    case EACCES:
    case EPERM:
    case EROFS:
        return err_set(e, -error, "%s may not be opened for %s: change its permissions%s", c->path,
                       c->readonly ? "reading" : "writing", c->readonly ? "" : ", or attach it with mode r");
    case EINVAL:
        if (c->direct_io)
            return err_set(e, -error, "%s lies on a file system without O_DIRECT: attach it with direct-io 0", c->path);
        /* fall through */
    default: return err_set(e, -error, "%s cannot be opened: %s", c->path, strerror(error));
    }
}

/* 512 or 4096: the sizes that the block protocol's peers expect. */
static uint32_t raw_sector_round(uint64_t align_bytes)
{
    return align_bytes <= 512 ? 512 : 4096;
}

/* What O_DIRECT wants of this file: as the kernel says, or `guess` where it does not. */
static int raw_direct_align(struct raw_file *f, uint32_t guess, const char *path, struct err *e)
{
    struct statx x = {0};
    bool said = !statx(f->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &x) && (x.stx_mask & STATX_DIOALIGN);
    f->align_bytes = MAX(said && x.stx_dio_offset_align ? x.stx_dio_offset_align : guess, SECTOR_BYTES);
    f->memory_align_bytes = MAX(said && x.stx_dio_mem_align ? x.stx_dio_mem_align : guess, SECTOR_BYTES);
    const bool powers =
        !(f->align_bytes & (f->align_bytes - 1)) && !(f->memory_align_bytes & (f->memory_align_bytes - 1));
    if (powers && f->align_bytes <= IMAGE_ALIGN_MAX && f->memory_align_bytes <= PAGE_BYTES)
        return 0;
    return err_set(e, -EINVAL,
                   "%s: O_DIRECT on it wants blocks of %u bytes in memory aligned to %u: attach it with direct-io 0",
                   path, f->align_bytes, f->memory_align_bytes);
}

static int raw_measure_device(struct raw_file *f, const char *path, bool direct_io, struct err *e)
{
    int logical = 512;
    unsigned physical = 512;
    if (ioctl(f->fd, BLKGETSIZE64, &f->size_bytes) || ioctl(f->fd, BLKSSZGET, &logical))
        return err_set(e, -errno, "%s: its size cannot be read: %s", path, strerror(errno));
    if (ioctl(f->fd, BLKPBSZGET, &physical))
        physical = (unsigned)logical;
    f->physical_bytes = raw_sector_round(physical);
    f->span_align_bytes = (uint32_t)logical;
    f->discard = true;
    return direct_io ? raw_direct_align(f, (uint32_t)logical, path, e) : 0;
}

static int raw_measure(struct raw_file *f, const struct image_config *c, struct err *e)
{
    struct stat st;
    if (fstat(f->fd, &st))
        return err_set(e, -errno, "%s: %s", c->path, strerror(errno));
    if (S_ISDIR(st.st_mode))
        return raw_open_error(c, EISDIR, e);
    if (S_ISBLK(st.st_mode))
        return raw_measure_device(f, c->path, c->direct_io, e);
    if (!S_ISREG(st.st_mode))
        return err_set(e, -EINVAL, "%s is neither a regular file nor a block device: name one", c->path);
    f->size_bytes = (uint64_t)st.st_size;
    f->physical_bytes = raw_sector_round((uint64_t)st.st_blksize);
    f->discard = !fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, st.st_size, (off_t)PAGE_BYTES);
    return c->direct_io ? raw_direct_align(f, raw_sector_round((uint64_t)st.st_blksize), c->path, e) : 0;
}

/* What the guest is shown: what was asked for, or the storage's own sizes where the region is a multiple of them. */
static int raw_region_sectors(const struct raw_file *f, const struct image_config *c, struct raw_region *r,
                              struct err *e)
{
    const uint32_t suits = MIN(f->align_bytes, PAGE_BYTES);
    const bool fits = r->offset_bytes % suits == 0 && r->size_bytes % suits == 0;
    r->sector_bytes = c->sector_bytes ? c->sector_bytes : fits ? suits : SECTOR_BYTES;
    if (r->size_bytes % r->sector_bytes)
        return err_set(e, -EINVAL,
                       "%s: size %" PRIu64 " is not a multiple of %u, the sector size: pad the file (truncate -s "
                       "%%%u FILE) or give the disk a size",
                       c->path, r->size_bytes, r->sector_bytes, r->sector_bytes);
    r->physical_bytes =
        c->physical_sector_bytes ? c->physical_sector_bytes : raw_sector_round(MAX(f->physical_bytes, f->align_bytes));
    r->physical_bytes = MAX(r->physical_bytes, r->sector_bytes);
    if (r->size_bytes % r->physical_bytes == 0)
        return 0;
    if (c->physical_sector_bytes)
        return err_set(e, -EINVAL,
                       "%s: size %" PRIu64 " is not a multiple of %u, the physical sector size that was asked for: "
                       "leave that out, or give the disk another size",
                       c->path, r->size_bytes, r->physical_bytes);
    r->physical_bytes = r->sector_bytes; /* which a disk's size is a multiple of (blkif.h) */
    return 0;
}

static int raw_region(const struct raw_file *f, const struct image_config *c, struct raw_region *r, struct err *e)
{
    uint64_t offset = c->offset_bytes;
    if (offset % SECTOR_BYTES)
        return err_set(e, -EINVAL, "%s: offset %" PRIu64 " is not a multiple of %u: correct it", c->path, offset,
                       SECTOR_BYTES);
    if (offset >= f->size_bytes)
        return err_set(e, -EINVAL, "%s is too small: %" PRIu64 " bytes, and the disk is to begin at byte %" PRIu64,
                       c->path, f->size_bytes, offset);
    uint64_t size = c->size_bytes ? c->size_bytes : f->size_bytes - offset;
    if (!span_fits(offset, size, f->size_bytes))
        return err_set(e, -EINVAL,
                       "%s is too small: %" PRIu64 " bytes, and the disk is to have %" PRIu64 " from byte %" PRIu64
                       ": enlarge it or correct size and offset",
                       c->path, f->size_bytes, size, offset);
    const uint64_t align = f->align_bytes, end = offset + size;
    *r = (struct raw_region){.offset_bytes = offset, .size_bytes = size};
    r->inner_first = (offset + align - 1) / align * align;
    r->inner_end = MAX(r->inner_first, end / align * align);
    return raw_region_sectors(f, c, r, e);
}

static struct flock raw_lock_range(short type, uint64_t offset, uint64_t size)
{
    return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)offset, .l_len = (off_t)size};
}

static int raw_lock_error(int fd, const struct image_config *c, struct flock *lock, struct err *e)
{
    if (errno != EAGAIN && errno != EACCES)
        return err_set(e, -errno, "%s cannot be locked: %s", c->path, strerror(errno));
    lock->l_pid = 0;
    if (!fcntl(fd, F_OFD_GETLK, lock) && lock->l_type != F_UNLCK && lock->l_pid > 0)
        return err_set(e, -EBUSY, "%s is locked by process %d: stop it, or give the disk another image", c->path,
                       (int)lock->l_pid);
    return err_set(e, -EBUSY,
                   "%s is in use, its bytes are locked by another disk or program (see /proc/locks): detach it "
                   "there, or attach both with mode r",
                   c->path);
}

static void raw_unlock(int fd, uint64_t offset, uint64_t size)
{
    struct flock lock = raw_lock_range(F_UNLCK, offset, size);
    (void)fcntl(fd, F_OFD_SETLK, &lock);
}

/* Locks [first, end), or unlocks it. Nothing of it: nothing is done, as a lock of no bytes is one to the file's end. */
static int raw_lock_span(int fd, const struct image_config *c, short type, uint64_t first, uint64_t end, struct err *e)
{
    struct flock lock = raw_lock_range(type, first, end - first);
    if (first >= end || !fcntl(fd, F_OFD_SETLK, &lock))
        return 0;
    return raw_lock_error(fd, c, &lock, e);
}

/* The whole region of a disk without edges. */
static int raw_lock_region(int fd, const struct image_config *c, struct err *e)
{
    return raw_lock_span(fd, c, c->readonly ? F_RDLCK : F_WRLCK, c->offset_bytes, c->offset_bytes + c->size_bytes, e);
}

/* Each descriptor locks what is written through it. */
static int raw_lock(int fd, int edge_fd, const struct image_config *c, const struct raw_region *r, struct err *e)
{
    const short type = c->readonly ? F_RDLCK : F_WRLCK;
    const uint64_t end = r->offset_bytes + r->size_bytes;
    if (edge_fd < 0)
        return raw_lock_span(fd, c, type, r->offset_bytes, end, e);
    int rc = raw_lock_span(fd, c, type, r->inner_first, r->inner_end, e);
    rc = rc ? rc : raw_lock_span(edge_fd, c, type, r->offset_bytes, MIN(r->inner_first, end), e);
    return rc ? rc : raw_lock_span(edge_fd, c, type, MAX(r->inner_end, r->offset_bytes), end, e);
}

static void raw_close(struct image *image)
{
    raw_unlock(image->fd, image->base_bytes, image->size_bytes);
    if (image->edge_fd >= 0) {
        raw_unlock(image->edge_fd, image->base_bytes, image->size_bytes);
        close(image->edge_fd);
    }
    close(image->fd);
    free(image->path);
    free(image);
}

static bool raw_has_edges(const struct raw_region *r)
{
    return r->inner_first != r->offset_bytes || r->inner_end != r->offset_bytes + r->size_bytes;
}

/* The same file through the page cache. */
static int raw_edge_open(int fd, const struct image_config *c, struct err *e)
{
    char path[32];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int edge_fd = open(path, (c->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY);
    if (edge_fd < 0)
        return err_set(e, -errno, "%s cannot be opened a second time (by /proc/self/fd): %s", c->path, strerror(errno));
    return edge_fd;
}

static int raw_image(const struct raw_file *f, const struct image_config *c, const struct raw_region *r,
                     struct image **out, struct err *e)
{
    struct image *image = calloc(1, sizeof(*image));
    char *path = strdup(c->path);
    if (!image || !path) {
        free(image);
        free(path);
        return err_set(e, -ENOMEM, "out of memory");
    }
    *image = (struct image){
        .format = &image_raw,
        .size_bytes = r->size_bytes,
        .sector_bytes = r->sector_bytes,
        .physical_sector_bytes = r->physical_bytes,
        .align_bytes = f->align_bytes,
        .memory_align_bytes = f->memory_align_bytes,
        .realigns = f->align_bytes > r->sector_bytes || f->memory_align_bytes > SECTOR_BYTES || raw_has_edges(r),
        .edge_fd = -1,
        .readonly = c->readonly,
        .write_zeroes = !c->readonly,
        .discard = f->discard && !c->readonly,
        .discard_granularity_bytes = MAX(raw_sector_round(f->physical_bytes), f->align_bytes),
        .span_align_bytes = f->span_align_bytes,
        .direct_io = c->direct_io,
        .path = path,
        .base_bytes = c->offset_bytes,
    };
    *out = image;
    return 0;
}

static bool raw_punts(int fd)
{
    _Alignas(PAGE_BYTES) unsigned char page[PAGE_BYTES];
    struct iovec iov = {page, sizeof(page)};
    return preadv2(fd, &iov, 1, 0, RWF_NOWAIT) < 0 && errno == EOPNOTSUPP;
}

static int raw_open(const struct image_config *c, struct image **out, struct err *e)
{
    int flags = (c->readonly ? O_RDONLY : O_RDWR) | (c->direct_io ? O_DIRECT : 0);
    _cleanup_close_ int fd = open(c->path, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    _cleanup_close_ int edge_fd = -1;
    if (fd < 0)
        return raw_open_error(c, errno, e);
    struct raw_file f = {
        .fd = fd, .align_bytes = SECTOR_BYTES, .memory_align_bytes = SECTOR_BYTES, .span_align_bytes = SECTOR_BYTES};
    struct raw_region r;
    int rc = raw_measure(&f, c, e);
    f.align_bytes = MAX(f.align_bytes, c->align_bytes);
    rc = rc ? rc : raw_region(&f, c, &r, e);
    if (!rc && raw_has_edges(&r)) {
        edge_fd = raw_edge_open(fd, c, e);
        rc = MIN(edge_fd, 0);
    }
    rc = rc ? rc : raw_lock(fd, edge_fd, c, &r, e);
    if (!rc && fcntl(fd, F_SETFL, flags))
        rc = err_set(e, -errno, "%s: %s", c->path, strerror(errno));
    rc = rc ? rc : raw_image(&f, c, &r, out, e);
    if (rc)
        return rc;
    (*out)->punts = raw_punts(fd);
    (*out)->fd = take_fd(&fd);
    (*out)->edge_fd = take_fd(&edge_fd);
    return 0;
}

/* ---- live changes ---- */

static struct image_config raw_config(const struct image *image)
{
    return (struct image_config){.path = image->path,
                                 .offset_bytes = image->base_bytes,
                                 .size_bytes = image->size_bytes,
                                 .readonly = image->readonly,
                                 .direct_io = image->direct_io};
}

/* Makes the file longer where the disk may: a disk in the middle of a file must not swallow what follows. */
static int raw_file_grow(const struct image *image, const struct raw_file *f, uint64_t end, struct err *e)
{
    struct stat st;
    if (end <= f->size_bytes)
        return 0;
    bool whole = image->base_bytes == 0 || image->base_bytes + image->size_bytes == f->size_bytes;
    if (fstat(image->fd, &st) || !S_ISREG(st.st_mode) || !whole)
        return err_set(e, -ENOSPC, "%s has %" PRIu64 " bytes, and the disk would end at %" PRIu64 ": enlarge it first",
                       image->path, f->size_bytes, end);
    if (image->readonly)
        return err_set(e, -EROFS, "%s has %" PRIu64 " bytes, and a read-only disk does not enlarge it", image->path,
                       f->size_bytes);
    if (ftruncate(image->fd, (off_t)end))
        return err_set(e, -errno, "%s cannot be enlarged to %" PRIu64 " bytes: %s", image->path, end, strerror(errno));
    return 0;
}

static int raw_grow(struct image *image, uint64_t size, struct err *e)
{
    struct image_config c = raw_config(image), more = c;
    struct raw_file f = {.fd = image->fd, .align_bytes = SECTOR_BYTES};
    more.offset_bytes = c.offset_bytes + c.size_bytes;
    more.size_bytes = size - c.size_bytes;
    int rc = raw_measure(&f, &c, e);
    rc = rc ? rc : raw_lock_region(image->fd, &more, e);
    if (rc)
        return rc;
    rc = raw_file_grow(image, &f, image->base_bytes + size, e);
    if (rc)
        raw_unlock(image->fd, more.offset_bytes, size - c.size_bytes);
    return rc;
}

/* Where parts of blocks go through a second descriptor there is more to change than is worth it. */
static int raw_change_check(const struct image *image, uint64_t size, struct err *e)
{
    if (image->edge_fd >= 0 || size % image->align_bytes)
        return err_set(
            e, -EOPNOTSUPP,
            "%s: a disk that begins or ends within a block of its storage (%u bytes) does not change while it "
            "is attached",
            image->path, image->align_bytes);
    return 0;
}

static int raw_resize(struct image *image, uint64_t size, struct err *e)
{
    const uint64_t before = image->size_bytes;
    int r = raw_change_check(image, size, e);
    if (r)
        return r;
    if (!span_fits(image->base_bytes, size, INT64_MAX))
        return err_set(e, -EFBIG, "%s: a disk of %" PRIu64 " bytes ends beyond any file", image->path, size);
    if (size < before) {
        raw_unlock(image->fd, image->base_bytes + size, before - size);
    } else {
        int rc = raw_grow(image, size, e);
        if (rc)
            return rc;
    }
    image->size_bytes = size;
    return 0;
}

static bool raw_same_file(int a, int b)
{
    struct stat x, y;
    return !fstat(a, &x) && !fstat(b, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static int raw_reopen(const struct image *image, int *out, struct err *e)
{
    const struct image_config c = raw_config(image);
    int flags = O_RDWR | (c.direct_io ? O_DIRECT : 0);
    _cleanup_close_ int fd = open(c.path, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return err_set(e, -errno, "%s may not be opened for writing: %s", c.path, strerror(errno));
    if (!raw_same_file(fd, image->fd))
        return err_set(e, -ESTALE, "%s is another file than the disk began with: detach it and attach it again",
                       c.path);
    if (fcntl(fd, F_SETFL, flags))
        return err_set(e, -errno, "%s: %s", c.path, strerror(errno));
    *out = take_fd(&fd);
    return 0;
}

/* A lock belongs to an open file, and this is a second one: it reads beside the first, which then lets go, and becomes
 * the writer. At no moment could a third have written. Where others read, too, the first takes its lock back. */
static int raw_lock_pass(struct image *image, int fd, struct err *e)
{
    struct image_config reads = raw_config(image), writes = reads;
    writes.readonly = false;
    int rc = raw_lock_region(fd, &reads, e);
    if (rc)
        return rc;
    raw_unlock(image->fd, reads.offset_bytes, reads.size_bytes);
    rc = raw_lock_region(fd, &writes, e);
    if (rc && raw_lock_region(image->fd, &reads, NULL))
        return err_set(e, -ENOTRECOVERABLE, "%s: its lock is lost", image->path);
    return rc;
}

static int raw_to_writing(struct image *image, struct err *e)
{
    struct image_config c = raw_config(image);
    _cleanup_close_ int fd = -1;
    int rc;
    c.readonly = false;
    if ((fcntl(image->fd, F_GETFL) & O_ACCMODE) == O_RDWR) {
        rc = raw_lock_region(image->fd, &c, e);
    } else {
        rc = raw_reopen(image, &fd, e);
        rc = rc ? rc : raw_lock_pass(image, fd, e);
        if (!rc) {
            close(image->fd);
            image->fd = take_fd(&fd);
        }
    }
    return rc;
}

static int raw_set_readonly(struct image *image, bool readonly, struct err *e)
{
    struct image_config c = raw_config(image);
    struct raw_file f = {.align_bytes = SECTOR_BYTES};
    int rc = raw_change_check(image, image->size_bytes, e);
    if (rc)
        return rc;
    c.readonly = readonly;
    rc = readonly ? raw_lock_region(image->fd, &c, e) : raw_to_writing(image, e);
    if (rc)
        return rc;
    image->readonly = readonly;
    image->write_zeroes = !readonly;
    f.fd = image->fd;
    image->discard = !readonly && !raw_measure(&f, &c, NULL) && f.discard;
    return 0;
}

static int raw_map(const struct image *image, uint64_t offset_bytes, uint64_t length_bytes, bool write,
                   struct image_extent *out)
{
    assert(span_fits(offset_bytes, length_bytes, image->size_bytes) && !(write && image->readonly));
    out[0] = (struct image_extent){.fd = image->fd,
                                   .offset_bytes = image->base_bytes + offset_bytes,
                                   .length_bytes = length_bytes,
                                   .kind = IMAGE_DATA};
    return 1;
}

const struct image_format image_raw = {.name = "raw",
                                       .open = raw_open,
                                       .close = raw_close,
                                       .map = raw_map,
                                       .resize = raw_resize,
                                       .set_readonly = raw_set_readonly};
