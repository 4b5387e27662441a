/* SPDX-License-Identifier: MIT */
#include "backend/blk/blkalign.h"

#include <assert.h>
#include <string.h>
#include <sys/mman.h>

#include "backend/blk/blkrequest.h"

#define STEPS_MAX 5 /* two blocks are read; a head, whole blocks and a tail are written */

/* One transfer between the file and the slot. */
struct step {
    int fd;
    bool write;
    uint64_t offset_bytes;
    uint32_t length_bytes; /* left to do */
    uint32_t needed_bytes; /* of these: a read at the file's end may bring less */
};

struct blkalign_slot {
    struct uring_op op;
    struct blkalign *align;
    struct blk_request *request;
    unsigned char *memory;
    void (*done)(struct blk_request *r);
    bool zeroes;
    uint64_t first_bytes, end_bytes; /* in the file: what this round is about … */
    uint64_t base_bytes;             /* … and where in it the memory begins */
    uint64_t last_bytes;             /* where the last round ends */
    struct step step[STEPS_MAX];
    unsigned step_count, read_count, at;
    unsigned retries;
};

struct blkalign {
    struct blkqueue *queue;
    const struct image *image;
    struct blkranges ranges;
    unsigned char *memory;
    struct blkalign_slot slot[BLKALIGN_SLOTS];
    struct blkalign_slot *free[BLKALIGN_SLOTS];
    unsigned free_count;
    struct blk_request *waiting, *waiting_last; /* for a slot; a queue by next */
};

int blkalign_new(struct blkqueue *q, struct blkalign **out)
{
    struct blkalign *a = calloc(1, sizeof(*a));
    if (!a)
        return -ENOMEM;
    void *memory = mmap(NULL, (size_t)BLKALIGN_SLOTS * BLKALIGN_SLOT_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        free(a);
        return -ENOMEM;
    }
    a->queue = q;
    a->image = q->config.image;
    a->memory = memory;
    blkranges_init(&a->ranges);
    for (unsigned i = BLKALIGN_SLOTS; i-- > 0;) {
        a->slot[i].align = a;
        a->slot[i].memory = a->memory + (size_t)i * BLKALIGN_SLOT_BYTES;
        a->free[a->free_count++] = &a->slot[i];
    }
    *out = a;
    return 0;
}

void blkalign_free(struct blkalign *a)
{
    if (!a)
        return;
    assert(a->free_count == BLKALIGN_SLOTS && !a->waiting && blkranges_idle(&a->ranges));
    munmap(a->memory, (size_t)BLKALIGN_SLOTS * BLKALIGN_SLOT_BYTES);
    free(a);
}

/* ---- blocks ---- */

static uint64_t block_down(const struct image *image, uint64_t bytes)
{
    return bytes - bytes % image->align_bytes;
}

static uint64_t block_up(const struct image *image, uint64_t bytes)
{
    return block_down(image, bytes + image->align_bytes - 1);
}

static uint64_t region_end(const struct image *image)
{
    return image->base_bytes + image->size_bytes;
}

static bool whole_blocks(const struct image *image, uint64_t first_bytes, uint64_t end_bytes)
{
    return first_bytes % image->align_bytes == 0 && end_bytes % image->align_bytes == 0;
}

/* Can its memory be used as it is? Each vector is a transfer of its own to some of the kernel's drivers. */
static bool memory_fits(const struct image *image, const struct dma_io *io)
{
    for (unsigned i = 0; i < io->vec_count; i++)
        if ((uintptr_t)io->vec[i].address % image->memory_align_bytes || io->vec[i].length_bytes % image->align_bytes)
            return false;
    return true;
}

/* ---- a round: what is to be moved between the file and the slot ---- */

static void step_add(struct blkalign_slot *s, int fd, bool write, uint64_t first_bytes, uint64_t end_bytes)
{
    assert(s->step_count < STEPS_MAX);
    s->step[s->step_count++] = (struct step){.fd = fd,
                                             .write = write,
                                             .offset_bytes = first_bytes,
                                             .length_bytes = (uint32_t)(end_bytes - first_bytes),
                                             .needed_bytes = (uint32_t)(end_bytes - first_bytes)};
}

static void steps_read(struct blkalign_slot *s)
{
    const struct image *image = s->align->image;
    step_add(s, image->fd, false, s->base_bytes, block_up(image, s->end_bytes));
    if (!image->stable_data)
        s->step[0].needed_bytes = (uint32_t)(s->end_bytes - s->base_bytes);
}

/* The blocks of [first, end) that are written in part: [first, end) lies in the region's whole blocks. */
static void steps_read_partial(struct blkalign_slot *s, uint64_t first_bytes, uint64_t end_bytes)
{
    const struct image *image = s->align->image;
    const uint64_t head = block_down(image, first_bytes), tail = block_down(image, end_bytes);
    if (first_bytes != head)
        step_add(s, image->fd, false, head, head + image->align_bytes);
    if (end_bytes != tail && (first_bytes == head || tail != head))
        step_add(s, image->fd, false, tail, tail + image->align_bytes);
}

static void steps_write(struct blkalign_slot *s)
{
    const struct image *image = s->align->image;
    const uint64_t inner_first = block_up(image, image->base_bytes);
    const uint64_t inner_end = MAX(block_down(image, region_end(image)), inner_first);
    const uint64_t first = MAX(s->first_bytes, inner_first), end = MIN(s->end_bytes, inner_end);
    if (first < end)
        steps_read_partial(s, first, end);
    s->read_count = s->step_count;
    if (s->first_bytes < inner_first)
        step_add(s, image->edge_fd, true, s->first_bytes, MIN(s->end_bytes, inner_first));
    if (first < end)
        step_add(s, image->fd, true, block_down(image, first), block_up(image, end));
    if (s->end_bytes > inner_end)
        step_add(s, image->edge_fd, true, MAX(s->first_bytes, inner_end), s->end_bytes);
}

/* The guest's part of the slot to or from its memory: 0, or an errno, a positive one. */
static int slot_copy(struct blkalign_slot *s, bool to_guest)
{
    unsigned char *at = s->memory + (s->first_bytes - s->base_bytes);
    const struct dma_strategy *row = s->align->queue->config.dma;
    const struct dma_io *io = &s->request->dma;
    int r = 0;
    for (unsigned i = 0; i < io->vec_count && !r; i++) {
        r = dma_reach(row, io->vec[i].address, at, io->vec[i].length_bytes, to_guest);
        at += io->vec[i].length_bytes;
    }
    return -r;
}

static int slot_fill(struct blkalign_slot *s)
{
    if (!s->zeroes)
        return slot_copy(s, false);
    memset(s->memory + (s->first_bytes - s->base_bytes), 0, s->end_bytes - s->first_bytes);
    return 0;
}

/* Tells the image of blocks of the slot, where it wants to know: 0, or an errno, a positive one. */
static int slot_seal(const struct blkalign_slot *s, enum image_seal event, uint64_t first_bytes, uint64_t end_bytes)
{
    const struct image *image = s->align->image;
    return image->format->seal
               ? -image->format->seal(image, event, first_bytes - image->base_bytes,
                                      s->memory + (first_bytes - s->base_bytes), end_bytes - first_bytes)
               : 0;
}

/* All that this round is about. */
static int slot_seal_round(const struct blkalign_slot *s, enum image_seal event)
{
    return slot_seal(s, event, s->base_bytes, block_up(s->align->image, s->end_bytes));
}

/* What is to be written is put into the slot, over the blocks that were read for it. */
static int slot_prepare(struct blkalign_slot *s)
{
    int error = 0;
    for (unsigned i = 0; i < s->read_count && !error; i++) {
        const uint64_t end = s->step[i].offset_bytes + s->step[i].length_bytes; /* of one block, wherever it stopped */
        error = slot_seal(s, IMAGE_SEAL_READ, end - s->align->image->align_bytes, end);
    }
    error = error ? error : slot_fill(s);
    return error ? error : slot_seal_round(s, IMAGE_SEAL_WRITE);
}

static void slot_go(struct blkalign_slot *s);
static void slot_end(struct blkalign_slot *s, int error);

/* Begins the step that is next. */
static void slot_step(struct blkalign_slot *s)
{
    int error = s->request->write && s->at == s->read_count ? slot_prepare(s) : 0;
    if (error)
        slot_end(s, error);
    else
        slot_go(s);
}

static void slot_round(struct blkalign_slot *s, uint64_t first_bytes)
{
    s->first_bytes = first_bytes;
    s->end_bytes = MIN(s->last_bytes, block_down(s->align->image, first_bytes) + BLKALIGN_CHUNK_BYTES);
    if (!s->zeroes) /* never more than the largest request */
        s->end_bytes = s->last_bytes;
    s->base_bytes = block_down(s->align->image, first_bytes);
    s->step_count = s->read_count = s->at = s->retries = 0;
    if (s->request->write)
        steps_write(s);
    else
        steps_read(s);
    slot_step(s);
}

/* ---- doing it ---- */

static bool step_threaded(const struct blkalign_slot *s)
{
    const struct image *image = s->align->image;
    return !image->direct_io || s->step[s->at].fd != image->fd || s->request->rw_flags;
}

static void step_done(struct uring_op *op, int result, uint32_t cqe_flags);

static void slot_go(struct blkalign_slot *s)
{
    const struct step *t = &s->step[s->at];
    struct blkqueue *q = s->align->queue;
    unsigned char *memory = s->memory + (t->offset_bytes - s->base_bytes);
    s->op.fn = step_done;
    struct io_uring_sqe *sqe = uring_sqe(&q->reactor->uring, &s->op);
    if (t->write)
        io_uring_prep_write(sqe, t->fd, memory, t->length_bytes, t->offset_bytes);
    else
        io_uring_prep_read(sqe, t->fd, memory, t->length_bytes, t->offset_bytes);
    sqe->rw_flags = t->write ? s->request->rw_flags : 0;
    blkrequest_set_file(sqe, q, t->fd);
    blkrequest_flight_begin(q, step_threaded(s));
}

static void slot_put(struct blkalign_slot *s);

static void slot_end(struct blkalign_slot *s, int error)
{
    struct blk_request *r = s->request;
    void (*done)(struct blk_request *) = s->done;
    if (!r->error)
        r->error = error;
    if (!r->write && !r->error)
        r->error = slot_copy(s, true);
    slot_put(s);
    done(r);
}

/* A step is complete. */
static void slot_next(struct blkalign_slot *s)
{
    s->at++;
    s->retries = 0;
    if (s->at < s->step_count) {
        slot_step(s);
        return;
    }
    int error = slot_seal_round(s, s->request->write ? IMAGE_SEAL_WROTE : IMAGE_SEAL_READ);
    if (error || s->end_bytes == s->last_bytes)
        slot_end(s, error);
    else
        slot_round(s, s->end_bytes);
}

/* What the kernel did in part is continued at a block, which is where it can be. */
static void step_done(struct uring_op *op, int result, uint32_t cqe_flags)
{
    (void)cqe_flags;
    struct blkalign_slot *s = container_of(op, struct blkalign_slot, op);
    struct step *t = &s->step[s->at];
    const struct image *image = s->align->image;
    blkrequest_flight_end(s->align->queue, step_threaded(s));
    if (result > 0 && (uint32_t)result >= t->needed_bytes) {
        slot_next(s);
        return;
    }
    uint32_t done = result > 0 ? (uint32_t)result : 0;
    if (t->fd == image->fd && t->fd != image->edge_fd)
        done -= done % image->align_bytes;
    t->offset_bytes += done;
    t->length_bytes -= done;
    t->needed_bytes -= done;
    if (done || ((result == -EINTR || result == -EAGAIN) && s->retries++ < BLKQUEUE_RETRIES_MAX))
        slot_go(s);
    else /* nothing: the file ends here */
        slot_end(s, result < 0 ? -result : EIO);
}

/* ---- slots and claims ---- */

/* It holds what it needs. */
static void bounce_granted(struct blk_request *r)
{
    struct blkalign_slot *s = r->slot;
    slot_round(s, s->first_bytes);
}

static void range_claim(struct blk_request *r)
{
    if (!blkranges_claim(&r->queue->align->ranges, &r->range))
        return;
    r->claimed = true;
    r->granted(r);
}

/* A slot is there: the range is next, where one is needed. */
static void slot_give(struct blk_request *r)
{
    struct blkalign *a = r->queue->align;
    struct blkalign_slot *s = r->slot = a->free[--a->free_count];
    s->request = r;
    s->zeroes = !r->has_data;
    s->done = r->bounced;
    s->first_bytes = r->span_first_bytes;
    s->last_bytes = r->span_end_bytes;
    if (r->write || a->image->stable_data)
        range_claim(r);
    else
        bounce_granted(r);
}

static void slot_put(struct blkalign_slot *s)
{
    struct blkalign *a = s->align;
    s->request->slot = NULL;
    s->request = NULL;
    a->free[a->free_count++] = s;
    struct blk_request *next = a->waiting;
    if (!next)
        return;
    a->waiting = next->next;
    slot_give(next);
}

/* [first, end) of the file by way of a slot, and then `done`. */
static void bounce(struct blk_request *r, uint64_t first_bytes, uint64_t end_bytes, void (*done)(struct blk_request *))
{
    struct blkalign *a = r->queue->align;
    const struct image *image = a->image;
    if (!image->stable_data)
        blkcounter_add(&r->queue->stats.realigned, 1);
    r->span_first_bytes = first_bytes;
    r->span_end_bytes = end_bytes;
    r->range =
        (struct blkrange){.first_bytes = block_down(image, first_bytes),
                          .end_bytes = block_up(image, end_bytes),
                          .exclusive = image->stable_data ? r->write : !whole_blocks(image, first_bytes, end_bytes)};
    r->granted = bounce_granted;
    r->bounced = done;
    if (a->free_count) {
        slot_give(r);
        return;
    }
    r->next = NULL;
    if (a->waiting)
        a->waiting_last->next = r;
    else
        a->waiting = r;
    a->waiting_last = r;
}

bool blkalign_begin(struct blk_request *r)
{
    const struct image *image = r->queue->align->image;
    const uint64_t first = image->base_bytes + r->offset_bytes, end = first + r->length_bytes;
    if (image->stable_data || !whole_blocks(image, first, end) || !memory_fits(image, &r->dma)) {
        bounce(r, first, end, blkrequest_data_end);
        return true;
    }
    if (!r->write)
        return false;
    r->range = (struct blkrange){.first_bytes = first, .end_bytes = end};
    r->granted = blkrequest_transfer;
    r->claimed = blkranges_claim(&r->queue->align->ranges, &r->range);
    return !r->claimed;
}

void blkalign_claim(struct blk_request *r, uint64_t first_bytes, uint64_t end_bytes,
                    void (*granted)(struct blk_request *r))
{
    r->range = (struct blkrange){.first_bytes = first_bytes, .end_bytes = end_bytes};
    r->granted = granted;
    range_claim(r);
}

void blkalign_zero(struct blk_request *r, uint64_t first_bytes, uint64_t end_bytes, void (*done)(struct blk_request *r))
{
    if (r->claimed)
        blkalign_end(r);
    bounce(r, first_bytes, end_bytes, done);
}

void blkalign_end(struct blk_request *r)
{
    struct blkranges *ranges = &r->queue->align->ranges;
    struct blkrange *next;
    assert(r->claimed);
    r->claimed = false;
    blkranges_release(ranges, &r->range);
    while ((next = blkranges_next(ranges))) {
        struct blk_request *waiter = container_of(next, struct blk_request, range);
        waiter->claimed = true;
        waiter->granted(waiter);
    }
}
