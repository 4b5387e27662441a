/* SPDX-License-Identifier: MIT */
/* frontend/blkfront_bus.c: the disk's pool, mapped for a device that is behind an IOMMU.
 *
 * Where the backend offers bus addresses and the caller does not refuse them, segments name bus pages in place of
 * grants (ring/blkreq.h). So before the first request of each connection the pool is mapped, in pieces of as many pages
 * as a list page has references: one request each, through the ring of queue 0, in which nothing else is then. Until
 * all are answered the disk is VBD_MAPPING: requests gather in the shadows, as while the backend is away, and may time
 * out. The segments of those that are there already, or gather now, are made anew before they are put, where the
 * references are not those of the last connection; so a backend that comes back with bus addresses, without, or with
 * others is given the same requests.
 *
 * A successor's address space is empty: it is asked for the addresses that there were, or, where its device reaches
 * less far, for any.
 *
 * What the answers say is checked as any response: known, the first of its kind, an address that is a page's, inside
 * the window, not 0, overlapping no other piece, and the wanted one. Else, and where a map is refused, the disk fails:
 * to go on with grants the connection would have to be closed and made anew, with requests in flight; who wants that
 * opens the disk with no_bus_addresses.
 *
 * Nothing is unmapped here. The pool is mapped as long as the connection lasts, and its end is the backend's: it takes
 * the device from the domain, with all that is mapped, before it shows Closed. The grants are ended after that, and
 * where one is still in use the memory is kept (domain.h); a backend that died is no different.
 */
#include <string.h>

#include "frontend/blkfront.h"

#define BUS_ID_FIRST (UINT64_MAX - VBD_BUS_PIECES_MAX) /* of piece 0; no shadow's id gets there */
#define BUS_LOOKS    8                                 /* at a ring that says "answers" again and again */

static uint32_t piece_count(const struct dz_vbd *v)
{
    return (v->pool->page_count + BLKREQ_BUS_PAGES_MAX - 1) / BLKREQ_BUS_PAGES_MAX;
}

static uint32_t piece_pages(const struct dz_vbd *v, uint32_t piece)
{
    return MIN(v->pool->page_count - piece * BLKREQ_BUS_PAGES_MAX, BLKREQ_BUS_PAGES_MAX);
}

/* Are they bus pages of the device? */
static bool in_window(const struct dz_vbd *v, uint64_t address, uint32_t pages)
{
    return span_fits(address / PAGE_BYTES, pages, (uint64_t)1 << (v->bus.bits - PAGE_SHIFT_4K));
}

/* ---- memory ---- */

/* The references never change, so the lists are written once. */
static int lists_open(struct dz_vbd *v, struct err *e)
{
    int r = domain_pool_open(v->dom, v->device.back_domid, piece_count(v), &v->bus.lists, e);
    for (uint32_t i = 0; r == 0 && i < piece_count(v); i++)
        memcpy(pool_page(v->bus.lists, i), v->pool->gref + i * BLKREQ_BUS_PAGES_MAX,
               piece_pages(v, i) * sizeof(*v->pool->gref));
    return r;
}

int vbd_bus_agree(struct dz_vbd *v, struct err *e)
{
    struct vbd_bus *b = &v->bus;
    _Static_assert(BLKREQ_BUS_PAGES_MAX * sizeof(uint32_t) <= PAGE_BYTES, "a list is one page");
    const uint32_t *before = v->ref_of_page;
    b->bits = v->no_bus_addresses ? 0 : v->offer.bus_bits;
    v->ref_of_page = v->pool->gref;
    if (!b->bits) {
        v->references_new |= before != v->ref_of_page;
        return 0;
    }
    if (!b->page && !(b->page = calloc(v->pool->page_count, sizeof(*b->page))))
        return err_set(e, -ENOMEM, "no memory for the books of %u bus pages", v->pool->page_count);
    int r = b->lists ? 0 : lists_open(v, e);
    v->ref_of_page = b->page;
    v->references_new |= before != v->ref_of_page;
    return r;
}

void vbd_bus_free(struct dz_vbd *v)
{
    domain_pool_retire(v->dom, v->bus.lists);
    free(v->bus.page);
}

/* ---- who hears of the answers: whoever looks at any queue ---- */

void vbd_bus_unwatch(struct dz_vbd *v)
{
    for (uint32_t i = 1; i < v->queue_count; i++)
        queue_source_remove(v->queue[i], v->queue[0]->channel.wait_fd);
}

static int bus_watch(struct dz_vbd *v, struct err *e)
{
    int r = 0;
    for (uint32_t i = 1; r == 0 && i < v->queue_count; i++)
        r = queue_source_add(v->queue[i], VBD_SOURCE_MAPPING, v->queue[0]->channel.wait_fd);
    return r < 0 ? err_set(e, r, "cannot watch an event channel: %s", strerror(-r)) : 0;
}

/* ---- maps out, answers in ---- */

int vbd_bus_begin(struct dz_vbd *v, struct err *e)
{
    struct dz_queue *q = v->queue[0];
    struct vbd_bus *b = &v->bus;
    b->unanswered = piece_count(v);
    b->answered = 0;
    for (uint32_t i = 0; i < b->unanswered; i++) {
        uint64_t wanted = in_window(v, b->address[i], piece_pages(v, i)) ? b->address[i] : 0;
        b->wanted[i] = wanted;
        blkreq_native_put_bus_map(ring_front_slot(&q->ring), BLKREQ_BUS_READ | BLKREQ_BUS_WRITE, BUS_ID_FIRST + i,
                                  wanted, b->lists->gref[i], piece_pages(v, i));
    }
    v->life = VBD_MAPPING;
    int r = bus_watch(v, e);
    if (r == 0 && ring_front_push(&q->ring)) {
        vbd_count(&q->stats.notifications_sent, 1);
        evtchn_notify(&q->channel);
    }
    return r;
}

static bool overlaps(const struct dz_vbd *v, uint64_t address, uint32_t pages)
{
    bool any = false;
    for (uint32_t i = 0; i < piece_count(v); i++)
        any |= v->bus.answered >> i & 1 && address < v->bus.address[i] + (uint64_t)piece_pages(v, i) * PAGE_BYTES &&
               v->bus.address[i] < address + (uint64_t)pages * PAGE_BYTES;
    return any;
}

/* What is wrong with the address of a piece, or NULL. */
static const char *address_wrong(const struct dz_vbd *v, uint32_t piece, uint64_t address)
{
    uint32_t pages = piece_pages(v, piece);
    if (!address || address % PAGE_BYTES)
        return "answered a map with an address that is no page's";
    if (!in_window(v, address, pages))
        return "answered a map with an address beyond those of its device";
    if (v->bus.wanted[piece] && v->bus.wanted[piece] != address)
        return "mapped memory elsewhere than it was asked to";
    return overlaps(v, address, pages) ? "mapped two pieces of memory to one address" : NULL;
}

static int answer_take(struct dz_vbd *v, const unsigned char *slot, struct err *e)
{
    struct vbd_bus *b = &v->bus;
    uint64_t id, address = blkreq_decode_bus_address(slot);
    uint8_t operation;
    int16_t status;
    blkreq_decode_response(slot, &id, &operation, &status);
    uint64_t piece = id - BUS_ID_FIRST;
    if (piece >= piece_count(v) || b->answered >> piece & 1)
        return err_set(e, -EIO, "the backend answered a request that is not in flight");
    if (operation != BLKREQ_OP_BUS_MAP)
        return err_set(e, -EIO, "the backend answered with another operation than was asked");
    if (status != BLKIF_RSP_OKAY)
        return err_set(e, -EIO,
                       "the backend refused to map the disk's memory for its device: a smaller pool_bytes, or "
                       "no_bus_addresses, may do");
    const char *wrong = address_wrong(v, (uint32_t)piece, address);
    if (wrong)
        return err_set(e, -EIO, "the backend %s", wrong);
    b->answered |= 1u << piece;
    b->unanswered--;
    v->references_new |= b->address[piece] != address;
    b->address[piece] = address;
    for (uint32_t i = 0; i < piece_pages(v, (uint32_t)piece); i++)
        b->page[piece * BLKREQ_BUS_PAGES_MAX + i] = (uint32_t)(address / PAGE_BYTES) + i;
    return 0;
}

int vbd_bus_look(struct dz_vbd *v, struct err *e)
{
    struct dz_queue *q = v->queue[0];
    uint32_t count = 0, looks = 0;
    do {
        if (ring_front_pending(&q->ring, &count))
            return err_set(e, -EIO, "the backend runs ahead of the requests with its response index");
        q->spurious = count ? 0 : q->spurious;
        while (count--) {
            unsigned char slot[BLKREQ_BUS_RESPONSE_BYTES];
            ring_front_take(&q->ring, slot, sizeof(slot));
            int r = answer_take(v, slot, e);
            if (r < 0)
                return r;
        }
    } while (v->bus.unanswered && ++looks < BUS_LOOKS && ring_front_arm(&q->ring));
    if (v->bus.unanswered)
        return 0;
    vbd_bus_unwatch(v);
    return 1;
}
