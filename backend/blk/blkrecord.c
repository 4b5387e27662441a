/* SPDX-License-Identifier: MIT */
/* backend/blk/blkrecord.c: tells an image that writes down what is done to it (image_log.h). Others never come here. */
#include "backend/blk/blkrequest.h"

int blkrecord_write(struct blk_request *r)
{
    const struct image *image = r->queue->config.image;
    for (unsigned i = 0; i < r->dma.vec_count; i++) /* the I/O is over: the request's vectors are free */
        r->iov[1 + i] = (struct iovec){r->dma.vec[i].address, r->dma.vec[i].length_bytes};
    int64_t n =
        image->format->record(image, IMAGE_WROTE, 0, r->offset_bytes, r->length_bytes, r->iov, 1 + r->dma.vec_count);
    return n < 0 ? (int)-n : 0;
}

/* A begin that cannot be recorded makes the end fail. */
void blkrecord_sync_begin(struct blkqueue *q)
{
    struct iovec iov[1];
    const struct image *image = q->config.image;
    q->sync_number = image->format->record(image, IMAGE_SYNC_BEGIN, 0, 0, 0, iov, 1);
}

int blkrecord_sync_end(struct blkqueue *q)
{
    struct iovec iov[1];
    const struct image *image = q->config.image;
    int64_t n = q->sync_number;
    if (n >= 0)
        n = image->format->record(image, IMAGE_SYNC_END, (uint64_t)n, 0, 0, iov, 1);
    return n < 0 ? (int)n : 0;
}
