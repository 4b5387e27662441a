/* SPDX-License-Identifier: MIT */
/* backend/blk/image_null.c: a disk of no bytes, for measuring what lies between a guest and its storage.
 *
 * Writes are dropped. Reads leave the guest's memory as it is, as QEMU's null-co does, so that the transport alone is
 * measured and not a memset: what a guest "reads" is what it had there itself (with the copy strategy: what its own
 * disk's bounce buffer held). Such requests end where they are taken, without the ring of the kernel. Flushes go the
 * way of all flushes, to an empty file in memory, which has nothing to sync. The path is not looked at; nothing is
 * locked.
 */
#include <assert.h>
#include <sys/mman.h>

#include "backend/blk/image.h"
#include "base/span.h"

#define NULL_BYTES_DEFAULT ((uint64_t)64 << 30)

static void null_close(struct image *image)
{
    close(image->fd);
    free(image);
}

static int null_open(const struct image_config *c, struct image **out, struct err *e)
{
    uint64_t size = c->size_bytes ? c->size_bytes : NULL_BYTES_DEFAULT;
    if (size % SECTOR_BYTES)
        return err_set(e, -EINVAL, "%s: size %llu is not a multiple of %u, the sector size: correct it", c->path,
                       (unsigned long long)size, SECTOR_BYTES);
    _cleanup_close_ int fd = memfd_create("image-null", MFD_CLOEXEC);
    struct image *image = fd < 0 ? NULL : calloc(1, sizeof(*image));
    if (!image)
        return err_set(e, fd < 0 ? -errno : -ENOMEM, "out of memory or descriptors");
    *image = (struct image){
        .format = &image_null,
        .size_bytes = size,
        .sector_bytes = SECTOR_BYTES,
        .physical_sector_bytes = SECTOR_BYTES,
        .align_bytes = SECTOR_BYTES,
        .memory_align_bytes = SECTOR_BYTES,
        .span_align_bytes = SECTOR_BYTES,
        .edge_fd = -1,
        .readonly = c->readonly,
        .direct_io = true, /* no thread of the kernel works for it: who polls may go on polling */
        .fd = take_fd(&fd),
    };
    *out = image;
    return 0;
}

static int null_map(const struct image *image, uint64_t offset_bytes, uint64_t length_bytes, bool write,
                    struct image_extent *out)
{
    assert(span_fits(offset_bytes, length_bytes, image->size_bytes) && !(write && image->readonly));
    out[0] =
        (struct image_extent){.fd = -1, .offset_bytes = offset_bytes, .length_bytes = length_bytes, .kind = IMAGE_NONE};
    return 1;
}

const struct image_format image_null = {.name = "null", .open = null_open, .close = null_close, .map = null_map};
