/* SPDX-License-Identifier: MIT */
/* backend/blk/image.h: where a disk's bytes lie: the table of image formats.
 *
 * An image maps a span of the virtual disk to spans of files. A row is one file backend/blk/image_<format>.c and one
 * line in image_list.h; the conformance test iterates the table. The format is configured, never found out by looking:
 * a guest could write another format's header into its raw disk.
 *
 * image_open() opens the file, checks that the configured region lies within it and is a multiple of the sector size,
 * and locks it (OFD lock: exclusive for writing, shared for reading) over the region's bytes, so regions of one file
 * can be the disks of different guests and one region cannot be written twice. The lock lives as long as any descriptor
 * or I/O in flight refers to the open file: a backend that was killed still holds it while the kernel finishes its I/O,
 * so whoever gets the lock afterwards knows that no old write can land.
 */
#ifndef BLK_IMAGE_H
#define BLK_IMAGE_H

#include "base/err.h"

#define IMAGE_EXTENTS_MAX 16 /* pieces one request may be cut into by a format */

enum image_extent_kind {
    IMAGE_DATA, /* in a file */
    IMAGE_ZERO, /* a hole: reads as zeroes; for reads only */
    IMAGE_NONE, /* nowhere: reads change nothing, writes are dropped; then it is the whole span */
};

/* What an image may want to write down (image_log.h). */
enum image_event { IMAGE_WROTE = 1, IMAGE_SYNC_BEGIN, IMAGE_SYNC_END };

struct iovec;

struct image_extent {
    int fd; /* borrowed from the image */
    uint64_t offset_bytes, length_bytes;
    enum image_extent_kind kind;
};

struct image_config {
    const char *path;
    uint64_t offset_bytes, size_bytes; /* size 0: to the end of the file */
    bool readonly, direct_io;
};

struct image {
    const struct image_format *format;
    uint64_t size_bytes;
    uint32_t sector_bytes; /* logical, what guests must align to: 512, or the device's with O_DIRECT */
    uint32_t physical_sector_bytes;
    bool readonly;
    /* Holes may be punched where map() says that a write would go, which is one extent for any span. Storage that
     * cannot after all answers -EOPNOTSUPP. */
    bool discard;
    uint32_t discard_granularity_bytes; /* 0: a format without discards; smaller or unaligned parts of a discard may be
                                           left as they are, or zeroed */
    bool direct_io;                     /* no page cache: completions need no other thread */
    int fd;                             /* the file; the format's own state sits behind this struct */
    char *path;                         /* owned; for sentences, and to open it anew */
    uint64_t base_bytes;
};

struct image_format {
    const char *name;
    int (*open)(const struct image_config *config, struct image **out, struct err *e);
    void (*close)(struct image *image);
    /* Cuts the span (already within size_bytes) into at most IMAGE_EXTENTS_MAX pieces: their number or -errno. No I/O,
     * no allocation. */
    int (*map)(const struct image *image, uint64_t offset_bytes, uint64_t length_bytes, bool write,
               struct image_extent *out);
    /* Live changes, while nothing is under way; NULL: cannot. On failure all is as it was. What they promise: below. */
    int (*resize)(struct image *image, uint64_t size_bytes, struct err *e);
    int (*set_readonly)(struct image *image, bool readonly, struct err *e);
    /* Writes it down: where, or -errno. iov[0] is its own, the data of a write begins at iov[1]. Any thread, and it may
     * take its time. NULL: not this format. */
    int64_t (*record)(const struct image *image, enum image_event event, uint64_t number, uint64_t offset_bytes,
                      uint64_t length_bytes, struct iovec *iov, unsigned count);
};

#define IMAGE_FORMAT(name) extern const struct image_format image_##name;
#include "backend/blk/image_list.h"
#undef IMAGE_FORMAT

extern const struct image_format *const image_formats[];
extern const unsigned image_format_count;
/* The row of that name; NULL where there is none. */
const struct image_format *image_format_find(const char *name);

/* -EINVAL with a sentence that lists the formats where there is no such one. -EBUSY: locked by another process, named
 * with its pid where the kernel tells. */
int image_open(const char *format, const struct image_config *config, struct image **out, struct err *e);
void image_close(struct image *image); /* NULL is fine */

/* While nothing is under way on it; the lock follows. 0, or -errno with a sentence, and then all is as it was.
 *
 * A disk that shrinks leaves its file as it is: what lay behind its end lies there still, and is seen again when it
 * grows. One that grows takes what lies behind it in the file; a regular file is made longer for it where the disk
 * began at the file's first byte or ended at its last. -EBUSY: somebody holds what it would grow into. */
int image_resize(struct image *image, uint64_t size_bytes, struct err *e);
/* -EBUSY: others read it, so that it cannot be written. image->fd may be another one afterwards. -ENOTRECOVERABLE: the
 * lock is lost, nothing may be done with the image any more. */
int image_set_readonly(struct image *image, bool readonly, struct err *e);

#endif
