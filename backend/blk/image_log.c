/* SPDX-License-Identifier: MIT */
/* backend/blk/image_log.c: a raw disk whose writes and flushes are written down (image_log.h): slow, and for tests of
 * crashes. Reactors write into the log themselves, one after the other; discards, write-zeroes and durable writes are
 * not offered.
 */
#include "backend/blk/image_log.h"

#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "backend/blk/image.h"
#include "base/span.h"

struct image_log {
    struct image image;
    struct image *raw;
    int fd;
    pthread_mutex_t lock; /* of what follows, and of the file's end */
    uint64_t end_bytes;
};

static struct image_log *log_of(const struct image *image)
{
    return (struct image_log *)container_of(image, struct image_log, image);
}

static void log_close(struct image *image)
{
    struct image_log *l = log_of(image);
    image_close(l->raw);
    fd_closep(&l->fd);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

/* Where the last whole record ends. */
static uint64_t log_end(int fd, uint64_t bytes)
{
    struct image_log_record r;
    uint64_t at = 0;
    while (span_fits(at, sizeof(r), bytes) && pread(fd, &r, sizeof(r), (off_t)at) == sizeof(r) &&
           r.magic == IMAGE_LOG_MAGIC && span_fits(at + sizeof(r), r.bytes, bytes))
        at += sizeof(r) + r.bytes;
    return at;
}

static int log_file_open(struct image_log *l, const char *disk, struct err *e)
{
    char path[PATH_MAX];
    struct stat st;
    snprintf(path, sizeof(path), "%s" IMAGE_LOG_SUFFIX, disk);
    l->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (l->fd < 0 || fstat(l->fd, &st))
        return err_set(e, -errno, "%s cannot be opened: %s", path, strerror(errno));
    l->end_bytes = log_end(l->fd, (uint64_t)st.st_size);
    if (l->end_bytes != (uint64_t)st.st_size && ftruncate(l->fd, (off_t)l->end_bytes))
        return err_set(e, -errno, "%s: %s", path, strerror(errno));
    return 0;
}

static int log_open(const struct image_config *c, struct image **out, struct err *e)
{
    struct image_log *l = calloc(1, sizeof(*l));
    if (!l)
        return err_set(e, -ENOMEM, "out of memory");
    l->fd = -1;
    pthread_mutex_init(&l->lock, NULL);
    int rc = image_open("raw", c, &l->raw, e); /* its lock is the log's */
    if (!rc)
        rc = log_file_open(l, c->path, e);
    if (rc) {
        log_close(&l->image);
        return rc;
    }
    l->image = *l->raw;
    l->image.format = &image_log;
    l->image.discard = l->image.write_zeroes = false;
    *out = &l->image;
    return 0;
}

static int log_map(const struct image *image, uint64_t offset_bytes, uint64_t length_bytes, bool write,
                   struct image_extent *out)
{
    const struct image *raw = log_of(image)->raw;
    return raw->format->map(raw, offset_bytes, length_bytes, write, out);
}

static int64_t log_record(const struct image *image, enum image_event event, uint64_t number, uint64_t offset_bytes,
                          uint64_t length_bytes, struct iovec *iov, unsigned count)
{
    struct image_log *l = log_of(image);
    struct image_log_record r = {.magic = IMAGE_LOG_MAGIC,
                                 .event = event,
                                 .offset_bytes = offset_bytes,
                                 .bytes = length_bytes,
                                 .number = number};
    iov[0] = (struct iovec){&r, sizeof(r)};
    pthread_mutex_lock(&l->lock);
    int64_t at = (int64_t)l->end_bytes;
    ssize_t n = pwritev(l->fd, iov, (int)count, at);
    int64_t result = n == (ssize_t)(sizeof(r) + length_bytes) ? at : n < 0 ? -errno : -ENOSPC;
    if (result >= 0)
        l->end_bytes += (uint64_t)n;
    pthread_mutex_unlock(&l->lock);
    return result;
}

const struct image_format image_log = {
    .name = "log", .open = log_open, .close = log_close, .map = log_map, .record = log_record};
