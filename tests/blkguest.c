/* SPDX-License-Identifier: MIT */
/* tests/blkguest.c: the guest of blkworld.h: one disk, its ring driven by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <assert.h>
#include <stdio.h>

#include "base/clock.h"
#include "tests/blkworld.h"

static void guest_grants(struct blkguest *g, struct err *e)
{
    struct gnttab *t = platform_gnttab(g->platform);
    for (unsigned i = 0; i < BLKWORLD_PAGES; i++)
        if (gnttab_grant(t, 0, g->memory.base_gfn + BLKWORLD_DATA_PAGE + i, false, &g->gref[i], e))
            fail_msg("%s", e->text);
    for (unsigned i = 0; i < BLKWORLD_INDIRECT; i++) /* for reading: nobody has to write there */
        if (gnttab_grant(t, 0, g->memory.base_gfn + BLKWORLD_RING_PAGES + i, true, &g->indirect_gref[i], e))
            fail_msg("%s", e->text);
}

void blkguest_open(struct blkguest *g, const char *domain_dir, uint32_t devid)
{
    const struct platform_where where = {.domain_dir = domain_dir};
    struct err e = {0};
    *g = (struct blkguest){.channel = EVTCHN_NONE};
    if (platform_open(NULL, &where, NULL, &g->platform, &e) || platform_store_open(g->platform, &g->store, &e) ||
        platform_extent_alloc(g->platform, 0, BLKWORLD_DATA_PAGE + BLKWORLD_PAGES, false, &g->memory, &e))
        fail_msg("%s", e.text);
    g->data = g->memory.address + BLKWORLD_DATA_PAGE * PAGE_BYTES;
    xb_device_init(&g->xb, g->store, XB_FRONT, "vbd", platform_domid(g->platform), 0, devid);
    g->xb.state = XenbusStateInitialising;
    guest_grants(g, &e);
}

void blkguest_switch(struct blkguest *g, xb_state to)
{
    blkworld_store_ok(store_printf(g->store, STORE_NO_TX, g->xb.dir, "state", "%d", (int)to));
    g->xb.state = to;
}

static void guest_wait_back(struct blkguest *g, xb_state state)
{
    for (uint64_t end = blkworld_patience_end();;) {
        assert_int_equal(xb_device_read_peer(&g->xb), 0);
        if (g->xb.peer_state == state)
            return;
        blkworld_nap(end, xb_state_name(state));
    }
}

/* The ring's pages, granted, and side by side for the guest itself whether or not they are in its memory. */
static void guest_ring_grant(struct blkguest *g)
{
    struct err e = {0};
    struct gntmap_page page[BLKWORLD_RING_PAGES];
    uint32_t count = 1u << g->order;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = g->scattered ? count - 1 - i : i;
        page[i] = (struct gntmap_page){.address = g->memory.address + at * PAGE_BYTES};
        if (!g->ring_gref[i] &&
            gnttab_grant(platform_gnttab(g->platform), 0, g->memory.base_gfn + at, false, &g->ring_gref[i], &e))
            fail_msg("%s", e.text);
    }
    grant_window_close(&g->window);
    if (grant_window_open(&g->window, page, count, &e))
        fail_msg("%s", e.text);
}

void blkguest_offer(struct blkguest *g, const char *protocol)
{
    struct err e = {0};
    struct keys_blk_front keys = {
        .queue_count = 1, .ring_order = g->order, .ring_ref_count = 1u << g->order, .persistent = g->persistent};
    guest_wait_back(g, XenbusStateInitWait);
    g->protocol = blk_protocol_find(protocol);
    guest_ring_grant(g);
    ring_front_init(&g->ring, g->window.address, g->window.bytes, g->protocol->slot_bytes);
    if (platform_evtchn_alloc_unbound(g->platform, 0, &g->channel, &e))
        fail_msg("%s", e.text);
    memcpy(keys.queue[0].ring_ref, g->ring_gref, sizeof(keys.queue[0].ring_ref));
    keys.queue[0].port = g->channel.port;
    keys.fua = g->fua;
    keys.write_zeroes = g->write_zeroes;
    keys.bus_addresses = g->bus;
    snprintf(keys.protocol, sizeof(keys.protocol), "%s", protocol ? protocol : "");
    if (keys_blk_front_write(&g->xb, STORE_NO_TX, &keys, &e))
        fail_msg("%s", e.text);
    blkguest_switch(g, XenbusStateInitialised);
}

void blkguest_wait_connected(struct blkguest *g)
{
    struct err e = {0};
    guest_wait_back(g, XenbusStateConnected);
    if (keys_blk_disk_read(&g->xb, &g->disk, &e))
        fail_msg("%s", e.text);
    blkguest_switch(g, XenbusStateConnected);
}

void blkguest_connect(struct blkguest *g, const char *protocol)
{
    blkguest_offer(g, protocol);
    blkguest_wait_connected(g);
}

void blkguest_ring_end(struct blkguest *g)
{
    for (unsigned i = 0; i < BLKWORLD_RING_PAGES && g->ring_gref[i]; i++) {
        assert_int_equal(gnttab_end(platform_gnttab(g->platform), g->ring_gref[i]), 0);
        g->ring_gref[i] = 0;
    }
    platform_evtchn_close(g->platform, &g->channel);
}

void blkguest_disconnect(struct blkguest *g)
{
    blkguest_switch(g, XenbusStateClosing);
    guest_wait_back(g, XenbusStateClosing);
    blkguest_switch(g, XenbusStateClosed);
    guest_wait_back(g, XenbusStateClosed);
    blkguest_ring_end(g); /* nothing of ours is mapped any more */
}

void blkguest_close(struct blkguest *g)
{
    grant_window_close(&g->window);
    for (unsigned i = 0; i < BLKWORLD_PAGES; i++)
        (void)gnttab_end(platform_gnttab(g->platform), g->gref[i]);
    platform_extent_free(g->platform, &g->memory);
    store_client_close(g->store);
    platform_close(g->platform);
}

uint64_t blkguest_put_raw(struct blkguest *g, const struct blkreq *req)
{
    unsigned char slot[sizeof(union blkif_sring_entry)] = {0};
    blkreq_encode(g->protocol, req, slot);
    ring_front_put(&g->ring, slot, g->protocol->request_bytes);
    return req->id;
}

uint64_t blkguest_put(struct blkguest *g, uint8_t operation, uint64_t sector, unsigned page, unsigned segments,
                      unsigned first, unsigned last)
{
    struct blkreq req = {.id = ++g->next_id,
                         .operation = operation,
                         .operation_raw = operation,
                         .sector = sector,
                         .segment_count = (uint16_t)segments};
    for (unsigned i = 0; i < segments; i++)
        req.segment[i] = (struct blkreq_segment){g->gref[(page + i) % BLKWORLD_PAGES], (uint8_t)first, (uint8_t)last};
    return blkguest_put_raw(g, &req);
}

uint64_t blkguest_put_span(struct blkguest *g, uint8_t operation, uint64_t sector, uint64_t count, uint8_t flag)
{
    const struct blkreq req = {
        .id = ++g->next_id, .operation = operation, .sector = sector, .sector_count = count, .flag = flag};
    return blkguest_put_raw(g, &req);
}

struct blkif_request_segment *blkguest_indirect_page(struct blkguest *g)
{
    size_t page = BLKWORLD_RING_PAGES + g->indirect_next % BLKWORLD_INDIRECT;
    return (void *)(g->memory.address + page * PAGE_BYTES);
}

uint64_t blkguest_put_indirect(struct blkguest *g, uint8_t operation, uint64_t sector, unsigned page, unsigned segments,
                               unsigned first, unsigned last)
{
    struct blkif_request_segment *s = blkguest_indirect_page(g);
    struct blkreq req = {.id = ++g->next_id,
                         .operation = operation,
                         .sector = sector,
                         .segment_count = (uint16_t)segments,
                         .indirect_pages = 1,
                         .indirect_gref = {g->indirect_gref[g->indirect_next++ % BLKWORLD_INDIRECT]}};
    for (unsigned i = 0; i < segments; i++)
        s[i] = (struct blkif_request_segment){
            .gref = g->gref[(page + i) % BLKWORLD_PAGES], .first_sect = (uint8_t)first, .last_sect = (uint8_t)last};
    return blkguest_put_raw(g, &req);
}

uint64_t blkguest_put_map(struct blkguest *g, const uint32_t *grefs, unsigned count, uint64_t address, uint8_t access)
{
    memcpy(blkguest_indirect_page(g), grefs, MIN(count * sizeof(*grefs), PAGE_BYTES));
    struct blkreq req = {.id = ++g->next_id,
                         .operation = BLKREQ_OP_BUS_MAP,
                         .flag = access,
                         .sector = address,
                         .sector_count = count,
                         .indirect_gref = {g->indirect_gref[g->indirect_next++ % BLKWORLD_INDIRECT]}};
    return blkguest_put_raw(g, &req);
}

uint64_t blkguest_put_unmap(struct blkguest *g, uint64_t address, uint64_t count)
{
    return blkguest_put_span(g, BLKREQ_OP_BUS_UNMAP, address, count, 0);
}

void blkguest_kick(struct blkguest *g)
{
    if (ring_front_push(&g->ring))
        assert_int_equal(evtchn_notify(&g->channel), 0);
}

/* A guest that never ends: reads and writes with a full ring, and a flush now and then. */
static void guest_load(struct blkguest *g)
{
    uint64_t id, sectors = g->disk.sectors;
    for (uint64_t n = 0;; n++) {
        while (ring_front_room(&g->ring)) {
            if (g->next_id % 5 == 4) {
                blkguest_put_indirect(g, g->next_id % 2, 0, 0, 1 + (unsigned)(g->next_id * 37 % 256), 0, 7);
                continue;
            }
            uint8_t operation = g->next_id % 7 == 0 ? BLKIF_OP_FLUSH_DISKCACHE : g->next_id % 2;
            unsigned segments = operation == BLKIF_OP_FLUSH_DISKCACHE ? 0 : 1 + (unsigned)(g->next_id % 11);
            blkguest_put(g, operation, g->next_id * 88 % (sectors - 88), (unsigned)g->next_id % BLKWORLD_PAGES,
                         segments, 0, 7);
        }
        blkguest_kick(g);
        if (blkguest_take(g, &id) != BLKIF_RSP_OKAY)
            return;
    }
}

int blkguest_main(const char *domain_dir, int ready)
{
    struct blkguest g;
    blkguest_open(&g, domain_dir, BLKWORLD_DEVID);
    blkguest_switch(&g, XenbusStateInitialising);
    g.persistent = true;
    blkguest_connect(&g, NULL);
    if (write(ready, "r", 1) != 1)
        return 1;
    guest_load(&g);
    return 1;
}

int16_t blkguest_take(struct blkguest *g, uint64_t *id)
{
    unsigned char slot[sizeof(union blkif_sring_entry)];
    uint32_t waiting;
    int16_t status;
    uint8_t operation;
    for (uint64_t end = blkworld_patience_end();;) {
        assert_int_equal(ring_front_pending(&g->ring, &waiting), 0);
        if (waiting)
            break;
        if (ring_front_arm(&g->ring))
            continue;
        assert_true(clock_now_ns() < end);
        assert_int_not_equal(evtchn_wait(&g->channel, BLKWORLD_PATIENCE_MS), -ETIMEDOUT);
    }
    ring_front_take(&g->ring, slot, g->bus ? BLKREQ_BUS_RESPONSE_BYTES : g->protocol->response_bytes);
    g->bus_address = g->bus ? blkreq_decode_bus_address(slot) : 0;
    blkreq_decode_response(slot, id, &operation, &status);
    return status;
}

static int16_t kick_and_take(struct blkguest *g, uint64_t wanted)
{
    uint64_t id;
    blkguest_kick(g);
    int16_t status = blkguest_take(g, &id);
    assert_int_equal(id, wanted);
    return status;
}

int16_t blkguest_do(struct blkguest *g, uint8_t operation, uint64_t sector, unsigned page, unsigned segments,
                    unsigned first, unsigned last)
{
    return kick_and_take(g, blkguest_put(g, operation, sector, page, segments, first, last));
}

int16_t blkguest_do_span(struct blkguest *g, uint8_t operation, uint64_t sector, uint64_t count, uint8_t flag)
{
    return kick_and_take(g, blkguest_put_span(g, operation, sector, count, flag));
}

int16_t blkguest_do_map(struct blkguest *g, const uint32_t *grefs, unsigned count, uint64_t address, uint8_t access)
{
    return kick_and_take(g, blkguest_put_map(g, grefs, count, address, access));
}

int16_t blkguest_do_unmap(struct blkguest *g, uint64_t address, uint64_t count)
{
    return kick_and_take(g, blkguest_put_unmap(g, address, count));
}

int16_t blkguest_do_indirect(struct blkguest *g, uint8_t operation, uint64_t sector, unsigned page, unsigned segments,
                             unsigned first, unsigned last)
{
    return kick_and_take(g, blkguest_put_indirect(g, operation, sector, page, segments, first, last));
}

void blkguest_check_served(struct blkguest *g, unsigned seed)
{
    unsigned char wanted[PAGE_BYTES];
    memset(g->data, 0, PAGE_BYTES);
    assert_int_equal(blkguest_do(g, BLKIF_OP_READ, 0, 0, 1, 0, 7), BLKIF_RSP_OKAY);
    blkworld_pattern(wanted, 0, 8, seed);
    assert_memory_equal(g->data, wanted, PAGE_BYTES);
}
