/* SPDX-License-Identifier: MIT */
/* backend/blk/image_sum.c: a raw disk whose blocks have checksums (image_sum.h). They are read and written by the
 * reactor, two short system calls for each transfer in the page cache. It needs stable data: a guest that changes its
 * page while it is written would make a sum of what is not on the disk. No discards, write-zeroes, durable writes or
 * live changes; one queue.
 */
#include "backend/blk/image_sum.h"

#include <assert.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

#include "backend/blk/blkalign.h"
#include "backend/blk/image.h"
#include "base/log.h"
#include "base/span.h"

#define BLOCK       IMAGE_SUM_BLOCK_BYTES
#define ENTRIES_MAX (BLKALIGN_SLOT_BYTES / BLOCK)

_Static_assert(sizeof(struct image_sum_head) <= IMAGE_SUM_HEAD_BYTES && sizeof(struct image_sum_entry) == 8, "layout");

struct image_sum {
    struct image image;
    struct image *raw;
    int fd;
    bool writing; /* the head says so */
    struct log_limiter limiter;
    struct image_sum_head head;
};

static struct image_sum *sum_of(const struct image *image)
{
    return (struct image_sum *)container_of(image, struct image_sum, image);
}

/* ---- entries ---- */

static uint32_t block_sum(const unsigned char *block)
{
    uint32_t sum = (uint32_t)crc32(0, block, BLOCK);
    return sum ? sum : 1;
}

/* All of it: 0 or -errno. */
static int sums_move(struct image_sum *s, struct image_sum_entry *e, uint64_t first, unsigned count, bool write)
{
    const size_t bytes = count * sizeof(*e);
    const off_t at = (off_t)(IMAGE_SUM_HEAD_BYTES + first * sizeof(*e));
    ssize_t n = write ? pwrite(s->fd, e, bytes, at) : pread(s->fd, e, bytes, at);
    return n == (ssize_t)bytes ? 0 : n < 0 ? -errno : write ? -ENOSPC : -EIO;
}

static bool entry_allows(const struct image_sum_entry *e, uint32_t sum)
{
    return !e->was || !e->is || sum == e->was || sum == e->is;
}

/* Which of two sums is that of the block as it is; 0: not known. `other`, where it is neither's: then it is bad, and as
 * it is about to be replaced, only what replaces it is good. */
static int entry_settle(const struct image_sum *s, const struct image_sum_entry *e, uint64_t block, uint32_t other,
                        uint32_t *out)
{
    _Alignas(BLOCK) unsigned char data[BLOCK];
    *out = e->is;
    if (e->was == e->is)
        return 0;
    ssize_t n = pread(s->raw->fd, data, BLOCK, (off_t)(block * BLOCK));
    if (n != BLOCK)
        return n < 0 ? -errno : -EIO;
    uint32_t sum = block_sum(data);
    if (sum != e->is && sum != e->was)
        *out = e->was && e->is ? other : 0;
    else
        *out = sum;
    return 0;
}

static int sums_begin(struct image_sum *s, struct image_sum_entry *e, uint64_t first, unsigned count,
                      const unsigned char *data)
{
    for (unsigned i = 0; i < count; i++) {
        uint32_t now, then = block_sum(data + (size_t)i * BLOCK);
        int r = entry_settle(s, &e[i], first + i, then, &now);
        if (r)
            return r;
        e[i] = (struct image_sum_entry){now, then};
    }
    return sums_move(s, e, first, count, true);
}

static int sums_end(struct image_sum *s, struct image_sum_entry *e, uint64_t first, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        e[i].was = e[i].is;
    return sums_move(s, e, first, count, true);
}

static int sums_check(struct image_sum *s, const struct image_sum_entry *e, uint64_t first, unsigned count,
                      const unsigned char *data)
{
    int r = 0;
    for (unsigned i = 0; i < count; i++) {
        if (entry_allows(&e[i], block_sum(data + (size_t)i * BLOCK)))
            continue;
        log_peer(&s->limiter, "%s: block %" PRIu64 " (4096 bytes at %" PRIu64 ") is not what was written there%s",
                 s->image.path, first + i, (first + i) * BLOCK,
                 s->head.cuts ? "; it may be one that was being written when the machine went down" : "");
        r = -EIO;
    }
    return r;
}

static int sum_seal(const struct image *image, enum image_seal event, uint64_t offset_bytes, const unsigned char *data,
                    uint64_t length_bytes)
{
    struct image_sum_entry entry[ENTRIES_MAX];
    struct image_sum *s = sum_of(image);
    const uint64_t first = offset_bytes / BLOCK;
    const unsigned count = (unsigned)(length_bytes / BLOCK);
    assert(offset_bytes % BLOCK == 0 && length_bytes % BLOCK == 0 && count <= ENTRIES_MAX);
    int r = sums_move(s, entry, first, count, false);
    if (r)
        return r;
    switch (event) {
    case IMAGE_SEAL_WRITE: return sums_begin(s, entry, first, count, data);
    case IMAGE_SEAL_WROTE: return sums_end(s, entry, first, count);
    case IMAGE_SEAL_READ: break;
    }
    return sums_check(s, entry, first, count, data);
}

/* ---- the file ---- */

static int head_write(struct image_sum *s, bool is_open)
{
    s->head.open = is_open;
    ssize_t n = pwrite(s->fd, &s->head, sizeof(s->head), 0);
    return n != sizeof(s->head) ? (n < 0 ? -errno : -ENOSPC) : fdatasync(s->fd) ? -errno : 0;
}

/* In which we are; "" where the kernel does not say. */
static void boot_read(char *out, size_t size)
{
    _cleanup_close_ int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, out, size - 1);
    memset(out + MAX(n, 0), 0, size - (size_t)MAX(n, 0));
}

/* What is there, or begins it. */
static int head_open(struct image_sum *s, const char *path, struct err *e)
{
    char boot[sizeof(s->head.boot)];
    boot_read(boot, sizeof(boot));
    ssize_t n = pread(s->fd, &s->head, sizeof(s->head), 0);
    if (n < 0)
        return err_set(e, -errno, "%s cannot be read: %s", path, strerror(errno));
    bool fresh = n == 0;
    if (fresh)
        s->head = (struct image_sum_head){.magic = IMAGE_SUM_MAGIC, .block_bytes = BLOCK};
    else if (n != sizeof(s->head) || s->head.magic != IMAGE_SUM_MAGIC || s->head.block_bytes != BLOCK)
        return err_set(e, -EINVAL,
                       "%s holds no checksums of a disk: remove it, and blocks are checked as they are written", path);
    const bool cut = s->head.open && memcmp(s->head.boot, boot, sizeof(boot)) != 0;
    s->head.cuts += cut;
    if (cut)
        log_warning(
            "%s: the machine went down while it was written: what was written after the last flush may be reported "
            "as bad",
            s->image.path);
    if (s->image.readonly)
        return 0;
    memcpy(s->head.boot, boot, sizeof(boot));
    int r = head_write(s, true);
    s->writing = r == 0;
    return r ? err_set(e, r, "%s cannot be written: %s", path, strerror(-r)) : 0;
}

/* As long as the disk asks for: what is new is zeroes, which is "not known". */
static int sum_file_open(struct image_sum *s, struct err *e)
{
    char path[PATH_MAX];
    struct stat st;
    const uint64_t bytes = IMAGE_SUM_HEAD_BYTES + s->image.size_bytes / BLOCK * sizeof(struct image_sum_entry);
    snprintf(path, sizeof(path), "%s" IMAGE_SUM_SUFFIX, s->image.path);
    const int flags = s->image.readonly ? O_RDONLY : O_RDWR | O_CREAT;
    s->fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (s->fd < 0)
        return err_set(e, -errno, "%s cannot be opened: %s%s", path, strerror(errno),
                       s->image.readonly && errno == ENOENT ? "; attach the disk for writing once" : "");
    if (fstat(s->fd, &st) || !S_ISREG(st.st_mode))
        return err_set(e, -EINVAL, "%s is no regular file", path);
    int r = head_open(s, path, e);
    if (r)
        return r;
    if ((uint64_t)st.st_size < bytes && (s->image.readonly || ftruncate(s->fd, (off_t)bytes)))
        return err_set(e, s->image.readonly ? -EINVAL : -errno,
                       "%s is too short for the disk, and cannot be made longer", path);
    return 0;
}

/* What was written is on the disk, or the head stays as it is. */
static void sum_close(struct image *image)
{
    struct image_sum *s = sum_of(image);
    if (s->writing)
        (void)(fdatasync(s->fd) || fdatasync(s->raw->fd) || head_write(s, false));
    image_close(s->raw);
    fd_closep(&s->fd);
    free(s);
}

static int sum_open(const struct image_config *c, struct image **out, struct err *e)
{
    struct image_sum *s = calloc(1, sizeof(*s));
    struct image_config raw = *c;
    if (!s)
        return err_set(e, -ENOMEM, "out of memory");
    s->fd = -1;
    raw.align_bytes = MAX(raw.align_bytes, BLOCK);
    int r = image_open("raw", &raw, &s->raw, e); /* its lock is that of the sums */
    if (!r) {
        s->image = *s->raw;
        s->image.format = &image_sum;
        s->image.discard = s->image.write_zeroes = false;
        s->image.stable_data = true;
        if (!c->physical_sector_bytes)
            s->image.physical_sector_bytes = MAX(s->image.physical_sector_bytes, BLOCK);
        if (s->image.base_bytes || s->image.size_bytes % BLOCK || s->image.align_bytes != BLOCK)
            r = err_set(
                e, -EINVAL,
                "%s: an image with checksums begins at the beginning of its file, and is a multiple of %u bytes "
                "on storage that moves no more at a time",
                c->path, BLOCK);
    }
    r = r ? r : sum_file_open(s, e);
    if (r) {
        sum_close(&s->image);
        return r;
    }
    *out = &s->image;
    return 0;
}

static int sum_map(const struct image *image, uint64_t offset_bytes, uint64_t length_bytes, bool write,
                   struct image_extent *out)
{
    const struct image *raw = sum_of(image)->raw;
    return raw->format->map(raw, offset_bytes, length_bytes, write, out);
}

static int sum_companion_fd(const struct image *image)
{
    return sum_of(image)->fd;
}

const struct image_format image_sum = {.name = "sum",
                                       .open = sum_open,
                                       .close = sum_close,
                                       .map = sum_map,
                                       .seal = sum_seal,
                                       .companion_fd = sum_companion_fd};
