/* SPDX-License-Identifier: MIT */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "backend/blk/image.h"

#define IMAGE_FORMAT(name) &image_##name,
const struct image_format *const image_formats[] = {
#include "backend/blk/image_list.h"
};
#undef IMAGE_FORMAT
const unsigned image_format_count = ARRAY_SIZE(image_formats);

const struct image_format *image_format_find(const char *name)
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
    const struct image_format *row = image_format_find(format);
    if (!row)
        return image_unknown(format, e);
    int rc = row->open(config, out, e);
    if (rc)
        return rc;
    const struct image *image = *out;
    assert(image->format == row && image->size_bytes > 0 && image->size_bytes % image->sector_bytes == 0);
    assert(image->sector_bytes == 512 || image->sector_bytes == 4096);
    return 0;
}

void image_close(struct image *image)
{
    if (image)
        image->format->close(image);
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
