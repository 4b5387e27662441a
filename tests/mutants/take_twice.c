/* SPDX-License-Identifier: MIT */
/* tests/mutants/take_twice.c: backend/blk/blkqueue.c, compiled once more, to read what it has checked again. */
#define blkqueue_new        twice_new
#define blkqueue_free       twice_free
#define blkqueue_fault_text twice_fault_text
#define blkqueue_activate   twice_activate
#define blkqueue_listen     twice_listen
#define blkqueue_answer     twice_answer
#define blkqueue_refuse     twice_refuse
#define blkqueue_all_idle   twice_all_idle
#define blkqueue_unpark     twice_unpark
#define blkqueue_take       mutant_take_twice
#define blkqueue_waiting    twice_waiting
#define blkqueue_publish    twice_publish
#define blkqueue_arm        twice_arm
#include "backend/blk/blkqueue.h"
#include "backend/blk/blkrequest.h"
#include "tests/mutants/mutants.h"

/* Where the last request and the last page of segments were read. */
static const unsigned char *read_slot;
static struct {
    struct gntmap *map;
    uint32_t gref, bytes;
} read_page;

static void peek_noted(const struct ring_back *b, unsigned char *request, size_t from, size_t to)
{
    read_slot = ring_slot(&b->ring, b->req_cons);
    ring_back_peek(b, request, from, to);
}

static int decode_twice(const struct blk_protocol *p, const void *slot, const struct blkreq_limits *limits,
                        struct blkreq *out)
{
    unsigned char again[BLKQUEUE_SLOT_BYTES_MAX];
    int r = blkreq_decode(p, slot, limits, out);
    ring_copy_out(again, read_slot, BLKREQ_HEAD_BYTES);
    if (!r && !out->indirect_pages)
        memcpy(&out->sector, again + p->sector, sizeof(out->sector));
    return r;
}

static int copy_noted(struct gntmap *m, struct gntkeep *keep, uint32_t gref, uint32_t offset_bytes, void *local,
                      uint32_t length_bytes, bool to_guest)
{
    read_page.map = m;
    read_page.gref = gref;
    read_page.bytes = length_bytes;
    return gntmap_copy_keeping(m, keep, gref, offset_bytes, local, length_bytes, to_guest);
}

static int check_twice(struct blkreq *req, struct blkif_request_segment *copy, const struct blkreq_limits *limits,
                       struct blkreq_segment *segment)
{
    int r = blkreq_check_indirect(req, copy, limits, segment);
    if (r || gntmap_copy(read_page.map, read_page.gref, 0, copy, read_page.bytes, false))
        return r;
    req->sector_count = 0;
    for (unsigned i = 0; i < req->segment_count; i++) {
        segment[i].last_sector = copy[i].last_sect % BLKREQ_SECTORS_PER_PAGE; /* a DMA row asserts as much */
        req->sector_count += segment[i].last_sector + 1u;
    }
    return 0;
}

#define ring_back_peek        peek_noted
#define blkreq_decode         decode_twice
#define gntmap_copy_keeping   copy_noted
#define blkreq_check_indirect check_twice
#include "backend/blk/blkqueue.c"
