/* SPDX-License-Identifier: MIT */
#include <assert.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "backend/blk/image.h"

#define IMAGE_FORMAT(name) &image_##name,
const struct image_format *const image_formats[] = {
#include "backend/blk/image_list.h"
};
#undef IMAGE_FORMAT
const unsigned image_format_count = ARRAY_SIZE(image_formats);

static const struct image_format *format_find(const char *name)
{
    for (unsigned i = 0; i < image_format_count; i++)
        if (!strcmp(image_formats[i]->name, name))
            return image_formats[i];
    return NULL;
}

static int image_unknown(const char *format, struct err *e)
{
    char names[128] = "";
    size_t used = 0;
    for (unsigned i = 0; i < image_format_count && used < sizeof(names); i++)
        used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%s", i ? ", " : "", image_formats[i]->name);
    return err_set(e, -EINVAL, "image format '%s' is not known; write params as FORMAT:PATH with one of: %s", format,
                   names);
}

int image_open(const char *format, const struct image_config *config, struct image **out, struct err *e)
{
    const struct image_format *row = format_find(format);
    if (!row)
        return image_unknown(format, e);
    int rc = row->open(config, out, e);
    if (rc)
        return rc;
    struct image *image = *out;
    image->realigns |= image->stable_data;
    image->sync_error = calloc(1, sizeof(*image->sync_error));
    if (!image->sync_error) {
        image_close(take_ptr(*out));
        return err_set(e, -ENOMEM, "out of memory");
    }
    assert(image->format == row && image->size_bytes > 0 && image->size_bytes % image->sector_bytes == 0);
    assert(image->sector_bytes == 512 || image->sector_bytes == 4096);
    assert(image->physical_sector_bytes % image->sector_bytes == 0);
    assert(image->size_bytes % image->physical_sector_bytes == 0); /* blkif.h, of `sectors` */
    return 0;
}

void image_close(struct image *image)
{
    if (!image)
        return;
    free(image->sync_error);
    image->format->close(image);
}

int image_sync_open(const struct image *image)
{
    char path[32];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", image->fd);
    int fd = open(path, (image->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY);
    return fd < 0 ? image->fd : fd;
}

void image_sync_close(const struct image *image, int fd)
{
    if (fd >= 0 && fd != image->fd)
        close(fd);
}

int image_sync_error(const struct image *image)
{
    return atomic_load_explicit(image->sync_error, memory_order_acquire);
}

void image_sync_fail(const struct image *image, int error)
{
    atomic_store_explicit(image->sync_error, error, memory_order_release);
}

int image_resize(struct image *image, uint64_t size_bytes, struct err *e)
{
    if (size_bytes == image->size_bytes)
        return 0;
    if (size_bytes == 0 || size_bytes % image->sector_bytes || size_bytes > INT64_MAX)
        return err_set(e, -EINVAL, "a disk cannot have %" PRIu64 " bytes: give a multiple of its sector size, %u",
                       size_bytes, image->sector_bytes);
    if (!image->format->resize)
        return err_set(e, -EOPNOTSUPP, "images of format %s cannot be resized", image->format->name);
    return image->format->resize(image, size_bytes, e);
}

int image_set_readonly(struct image *image, bool readonly, struct err *e)
{
    if (readonly == image->readonly)
        return 0;
    if (!image->format->set_readonly)
        return err_set(e, -EOPNOTSUPP, "images of format %s cannot change between reading and writing",
                       image->format->name);
    return image->format->set_readonly(image, readonly, e);
}
