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
 *
 * What guests may ask for and what the storage can do are two things: sector_bytes is the guest's, align_bytes and
 * memory_align_bytes are the storage's (O_DIRECT, mostly). Where a good request may not fit them `realigns` is set and
 * blkalign.h stands between. A region that begins or ends within a block of align_bytes shares that block with what
 * lies beside it, maybe another guest's disk: it is never written as a whole, its part is written through the page
 * cache (edge_fd), and that descriptor holds the lock on it.
 *
 * A guest may change its memory at any moment, also while it is written out or after it was read in. An image that has
 * to look at the data twice (to write it, and to write down what was written) says that it needs stable_data: then, in
 * every DMA strategy, all its data goes by way of memory that no guest reaches (blkalign.h), copied out of the guest's
 * once and into it when all is done, and what the image looks at is that memory.
 */
#ifndef BLK_IMAGE_H
#define BLK_IMAGE_H

#include "base/err.h"

#define IMAGE_EXTENTS_MAX 16           /* pieces one request may be cut into by a format */
#define IMAGE_ALIGN_MAX   (64u * 1024) /* of align_bytes */

enum image_extent_kind {
    IMAGE_DATA, /* in a file */
    IMAGE_ZERO, /* a hole: reads as zeroes; for reads only */
    IMAGE_NONE, /* nowhere: reads change nothing, writes are dropped; then it is the whole span */
};

/* What an image may want to write down (image_log.h). */
enum image_event { IMAGE_WROTE = 1, IMAGE_SYNC_BEGIN, IMAGE_SYNC_END };

/* What a sealing image (below) is told of. */
enum image_seal {
    IMAGE_SEAL_WRITE, /* this is about to be written */
    IMAGE_SEAL_WROTE, /* it is */
    IMAGE_SEAL_READ,  /* this was read */
};

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
    uint32_t sector_bytes, physical_sector_bytes; /* that the guest is shown: 512, 4096; 0: what suits the storage */
    uint32_t align_bytes;                         /* I/O is a multiple of this, whatever the storage says; 0: no more */
};

struct image {
    const struct image_format *format;
    uint64_t size_bytes;
    uint32_t sector_bytes; /* logical, what guests must align to: 512 or 4096 */
    uint32_t physical_sector_bytes;
    bool physical_asked; /* for that: a size that is no multiple of it is refused; else sector_bytes stands in */
    uint32_t align_bytes, memory_align_bytes; /* what offsets and lengths, and addresses, of I/O are multiples of */
    bool realigns;                            /* a request may not be */
    int edge_fd;                              /* for parts of blocks at the region's ends; -1: there are none */
    bool stable_data;                         /* all its data goes by way of our own memory, in whole align_bytes */
    bool readonly;
    bool write_zeroes; /* map() answers any write with one extent, so zeroes can be written without a guest's memory */
    /* Holes may be punched where map() says that a write would go, which is one extent for any span. Storage that
     * cannot after all answers -EOPNOTSUPP. */
    bool discard;
    uint32_t discard_granularity_bytes; /* 0: a format without discards; smaller or unaligned parts of a discard may be
                                           left as they are, or zeroed */
    uint32_t span_align_bytes;          /* what holes and ranges of zeroes begin and end at */
    bool direct_io;                     /* no page cache: completions need no other thread */
    bool punts;                         /* the file system cannot say that a transfer would wait (FUSE, NFS): a thread
                                           has to begin it, or who submits it is who waits */
    int fd;                             /* the file; the format's own state sits behind this struct */
    char *path;                         /* owned; for sentences, and to open it anew */
    uint64_t base_bytes;
    _Atomic int *sync_error; /* image_sync_error() */
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
    /* With stable_data, around each transfer: whole blocks of align_bytes, in memory that nobody changes. 0, or -errno:
     * the request fails. A write's blocks are nobody else's until it has ended, a read's nobody writes meanwhile. The
     * reactor's: not for long. NULL: not this format. */
    int (*seal)(const struct image *image, enum image_seal event, uint64_t offset_bytes, const unsigned char *data,
                uint64_t length_bytes);
    /* A second file, borrowed, which a flush syncs before the image's own. NULL: there is none. */
    int (*companion_fd)(const struct image *image);
};

#define IMAGE_FORMAT(name) extern const struct image_format image_##name;
#include "backend/blk/image_list.h"
#undef IMAGE_FORMAT

extern const struct image_format *const image_formats[];
extern const unsigned image_format_count;

/* A description of the file of its own, for one queue's syncs: the kernel reports each loss of written data once to
 * each description, so what one queue was told is no secret from another, nor a durable write's error from the flush
 * behind it. The image's own descriptor where none can be had. To be closed by image_sync_close(). */
int image_sync_open(const struct image *image);
void image_sync_close(const struct image *image, int fd);

/* After a sync that failed data may be gone that the kernel believes to be clean: the next one would succeed and mean
 * nothing. So what failed once fails until the image is closed. 0, or the errno; any thread. */
int image_sync_error(const struct image *image);
void image_sync_fail(const struct image *image, int error);

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
