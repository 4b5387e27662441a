/* SPDX-License-Identifier: MIT */
/* backend/blk/blkrequest.h: one request between the ring and the image.
 *
 * A request is cut into pieces, one for each extent of the image that it covers; a piece is one operation of the ring
 * at a time and is issued again from where it stopped when the kernel did less than was asked. The request ends when
 * its last piece has; its first error decides.
 *
 * A piece whose memory is one run in a registered buffer is a fixed-buffer operation, several runs are a vector. The
 * I/O vectors live in the request, so they are stable whenever the kernel reads them.
 */
#ifndef BLK_BLKREQUEST_H
#define BLK_BLKREQUEST_H

#include "backend/blk/blkqueue.h"

struct blk_piece {
    struct uring_op op;
    struct blk_request *request;
    int fd;
    uint64_t offset_bytes; /* in the file, of what is left */
    uint32_t left_bytes;
    uint16_t iov_first, iov_count; /* what is left, in request->iov */
    int32_t buffer_index;          /* of the registered buffer that holds all of it, -1: none */
    uint16_t retries;
};

/* In front what every request needs, a line of the cache each; uring.h fetches these and the first piece ahead. */
struct blk_request {
    _Alignas(64) struct blkqueue *queue;
    struct journal_row *row; /* its own */
    uint64_t id;
    uint64_t taken_ns;
    uint64_t offset_bytes, length_bytes;
    uint8_t operation, operation_raw;
    uint8_t flag; /* of a discard or write-zeroes */
    uint8_t kind; /* enum stats_blk_op */
    bool write, has_data;
    bool data_next, sync_last; /* what follows: the data after a sync, a sync after the data */
    bool sync_failed;          /* what the kernel had not written it has forgotten */
    bool claimed;              /* `range` is held: blkalign_end() */
    uint16_t parts;            /* pieces that have not ended */
    int error;                 /* the first, as a positive errno */
    _Alignas(64) struct dma_io dma;
    struct iovec *iov;    /* dma.segments_max + IMAGE_EXTENTS_MAX of them: each piece may split one */
    struct blkpool *pool; /* that it comes from */
    _Alignas(64) struct blk_piece piece[IMAGE_EXTENTS_MAX];
    struct blk_request *next; /* in a list of flushes */
    int rw_flags;             /* RWF_DSYNC: a write that is durable when it is answered */
    /* blkspan.h, blkalign.h: what is left of it in the file, and what it holds or waits for. */
    uint64_t span_first_bytes, span_end_bytes;
    struct blkrange range;
    struct blkalign_slot *slot;
    void (*granted)(struct blk_request *r), (*bounced)(struct blk_request *r);
};

_Static_assert(offsetof(struct blk_request, piece) == URING_FETCH_BYTES, "uring.h: what lies before the operation");

/* Starts what was decoded from the ring, `segment` being its segments; it is answered now or when its I/O ends. */
void blkrequest_start(struct blkqueue *q, const struct blkreq *req, const struct blkreq_segment *segment);
/* One that was held (blkstop.h): from its beginning. */
void blkrequest_retry(struct blk_request *r);
/* Moves its data, its offsets and memory being what the storage can do. */
void blkrequest_transfer(struct blk_request *r);
/* Its data is moved, or could not be (r->error): what follows, or the answer. */
void blkrequest_data_end(struct blk_request *r);
/* The answer. */
void blkrequest_end(struct blk_request *r);
/* Around each operation of the ring; `threaded`: another thread may have to do it. */
void blkrequest_flight_begin(struct blkqueue *q, bool threaded);
void blkrequest_flight_end(struct blkqueue *q, bool threaded);
/* Names the file by its registered slot where it has one. */
void blkrequest_set_file(struct io_uring_sqe *sqe, const struct blkqueue *q, int fd);
/* For images that are recorded (blkrecord.c): 0 or an errno, a positive one; 0 or -errno. */
int blkrecord_write(struct blk_request *r);
void blkrecord_sync_begin(struct blkqueue *q);
int blkrecord_sync_end(struct blkqueue *q);
/* Counts why a request's memory could not be had: GRANT_E_* or -errno; 0 is fine. */
void blkrequest_count_get(struct blkqueue *q, int code);
static inline bool blkrequest_is_barrier(const struct blkreq *req)
{
    return req->operation == BLKIF_OP_WRITE_BARRIER;
}
/* Does it need one of the large requests? */
static inline bool blkrequest_is_large(const struct blkreq *req)
{
    return req->segment_count > DMA_SEGMENTS_SMALL;
}
/* Writes a response into the ring, to be published with the pass: its slot, NULL where the ring is not to be touched.
 */
void *blkqueue_answer(struct blkqueue *q, uint64_t id, uint8_t operation_raw, int16_t status);

#endif
