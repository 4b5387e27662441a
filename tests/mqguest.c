/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <assert.h>
#include <stdio.h>

#include "base/clock.h"
#include "tests/mqguest.h"

#define SECTORS_BLOCK (PAGE_BYTES / SECTOR_BYTES)

/* ---- the guest ---- */

void mqguest_open(struct mqguest *m, const char *domain_dir, uint32_t devid)
{
    *m = (struct mqguest){0};
    blkguest_open(&m->g, domain_dir, devid);
}

static void wait_back(struct mqguest *m, xb_state state)
{
    for (uint64_t end = blkworld_patience_end();;) {
        assert_int_equal(xb_device_read_peer(&m->g.xb), 0);
        if (m->g.xb.peer_state == state)
            return;
        blkworld_nap(end, xb_state_name(state));
    }
}

/* A ring in its own pages of the guest's memory, and a channel. */
static void queue_open(struct mqguest *m, unsigned index, uint32_t order, struct keys_blk_queue *keys)
{
    struct err e = {0};
    struct blkguest *q = &m->queue[index];
    uint32_t pages = 1u << order, first = index << order;
    *q = m->g;
    q->protocol = &blk_protocol_native;
    q->order = order;
    for (uint32_t i = 0; i < pages; i++) {
        uint32_t *gref = &m->g.ring_gref[first + i];
        if (!*gref &&
            gnttab_grant(platform_gnttab(m->g.platform), 0, m->g.memory.base_gfn + first + i, false, gref, &e))
            fail_msg("%s", e.text);
        keys->ring_ref[i] = *gref;
    }
    ring_front_init(&q->ring, m->g.memory.address + (size_t)first * PAGE_BYTES, (size_t)pages * PAGE_BYTES,
                    q->protocol->slot_bytes);
    if (platform_evtchn_alloc_unbound(m->g.platform, 0, &q->channel, &e))
        fail_msg("%s", e.text);
    keys->port = q->channel.port;
}

void mqguest_publish(struct mqguest *m, unsigned count, uint32_t order)
{
    struct err e = {0};
    struct keys_blk_front keys = {
        .queue_count = count, .ring_order = order, .ring_ref_count = 1u << order, .persistent = m->g.persistent};
    keys.bus_addresses = m->g.bus;
    assert(count << order <= BLKWORLD_RING_PAGES);
    wait_back(m, XenbusStateInitWait);
    m->count = count;
    for (unsigned i = 0; i < count; i++)
        queue_open(m, i, order, &keys.queue[i]);
    if (keys_blk_front_write(&m->g.xb, STORE_NO_TX, &keys, &e))
        fail_msg("%s", e.text);
}

void mqguest_offer(struct mqguest *m, unsigned count, uint32_t order)
{
    mqguest_publish(m, count, order);
    blkguest_switch(&m->g, XenbusStateInitialised);
}

void mqguest_wait_connected(struct mqguest *m)
{
    struct err e = {0};
    wait_back(m, XenbusStateConnected);
    if (keys_blk_disk_read(&m->g.xb, &m->g.disk, &e))
        fail_msg("%s", e.text);
    for (unsigned i = 0; i < m->count; i++)
        m->queue[i].disk = m->g.disk;
    blkguest_switch(&m->g, XenbusStateConnected);
}

void mqguest_connect(struct mqguest *m, unsigned count, uint32_t order)
{
    mqguest_offer(m, count, order);
    mqguest_wait_connected(m);
}

void mqguest_rings_end(struct mqguest *m, bool killed)
{
    for (unsigned i = 0; i < m->count; i++)
        platform_evtchn_close(m->g.platform, &m->queue[i].channel);
    for (unsigned i = 0; i < BLKWORLD_RING_PAGES && !killed; i++) {
        int r = m->g.ring_gref[i] ? gnttab_end(platform_gnttab(m->g.platform), m->g.ring_gref[i]) : 0;
        assert_true(r == 0 || (r == -EBUSY && m->marked));
        if (r == 0)
            m->g.ring_gref[i] = 0;
    }
    m->marked |= killed;
    m->count = 0;
}

void mqguest_disconnect(struct mqguest *m)
{
    blkguest_switch(&m->g, XenbusStateClosing);
    wait_back(m, XenbusStateClosing);
    blkguest_switch(&m->g, XenbusStateClosed);
    wait_back(m, XenbusStateClosed);
    mqguest_rings_end(m, false);
}

void mqguest_close(struct mqguest *m)
{
    blkguest_close(&m->g);
}

/* ---- the load ---- */

/* Requests under way, each with a page of data and every LOAD_SLOTS'th block to itself. */
#define LOAD_SLOTS (BLKWORLD_PAGES / KEYS_BLK_QUEUES_MAX)

enum slot_phase { SLOT_FREE, SLOT_WRITE, SLOT_READ, SLOT_FLUSH };

struct slot {
    enum slot_phase phase;
    unsigned block;
};

static unsigned page_of(const struct mqload *l, unsigned slot)
{
    return l->index * LOAD_SLOTS + slot;
}

static unsigned char *data_of(const struct mqload *l, unsigned slot)
{
    return l->queue->data + (size_t)page_of(l, slot) * PAGE_BYTES;
}

static uint64_t sector_of(const struct mqload *l, unsigned block)
{
    return ((uint64_t)l->index * MQLOAD_BLOCKS + block) * SECTORS_BLOCK;
}

static void put(struct mqload *l, unsigned slot, struct slot *s, enum slot_phase phase)
{
    static const uint8_t operation[] = {
        [SLOT_WRITE] = BLKIF_OP_WRITE, [SLOT_READ] = BLKIF_OP_READ, [SLOT_FLUSH] = BLKIF_OP_FLUSH_DISKCACHE};
    bool flush = phase == SLOT_FLUSH;
    struct blkreq r = {.id = slot,
                       .operation = operation[phase],
                       .operation_raw = operation[phase],
                       .sector = flush ? 0 : sector_of(l, s->block),
                       .segment_count = flush ? 0 : 1,
                       .segment[0] = {l->queue->gref[page_of(l, slot)], 0, 7}};
    s->phase = phase;
    blkguest_put_raw(l->queue, &r);
}

static void put_write(struct mqload *l, unsigned slot, struct slot *s, uint64_t seed)
{
    l->doing[s->block] = seed;
    blkworld_pattern(data_of(l, slot), sector_of(l, s->block), SECTORS_BLOCK, (unsigned)seed);
    put(l, slot, s, SLOT_WRITE);
}

static void put_read(struct mqload *l, unsigned slot, struct slot *s)
{
    memset(data_of(l, slot), 0x5a, PAGE_BYTES);
    put(l, slot, s, SLOT_READ);
}

static void compare(struct mqload *l, unsigned slot, const struct slot *s)
{
    unsigned char wanted[PAGE_BYTES];
    blkworld_pattern(wanted, sector_of(l, s->block), SECTORS_BLOCK, (unsigned)l->written[s->block]);
    if (memcmp(wanted, data_of(l, slot), PAGE_BYTES) && !l->error[0])
        snprintf(l->error, sizeof(l->error), "queue %u: block %u is not what was written", l->index, s->block);
}

static void slot_answered(struct mqload *l, unsigned slot, const struct slot *s)
{
    l->done++;
    if (s->phase == SLOT_READ)
        compare(l, slot, s);
    if (s->phase != SLOT_WRITE)
        return;
    l->written[s->block] = l->doing[s->block];
    l->doing[s->block] = 0;
}

/* What was written is read back; then comes the next block, and a flush before it now and then. */
static void slot_next(struct mqload *l, unsigned slot, struct slot *s)
{
    if (s->phase == SLOT_WRITE) {
        put_read(l, slot, s);
    } else if (s->phase == SLOT_READ && l->done >= l->flush_due) {
        l->flush_due = l->done + 64;
        put(l, slot, s, SLOT_FLUSH);
    } else {
        s->block = s->block + LOAD_SLOTS < MQLOAD_BLOCKS ? s->block + LOAD_SLOTS : slot;
        put_write(l, slot, s, l->written[s->block] + 1);
    }
}

/* False: nothing follows it. */
static bool response(struct mqload *l, struct slot *slots)
{
    unsigned char raw[sizeof(union blkif_sring_entry)];
    uint64_t id;
    uint8_t operation;
    int16_t status;
    ring_front_take(&l->queue->ring, raw, l->queue->protocol->response_bytes);
    blkreq_decode_response(raw, &id, &operation, &status);
    if (id >= LOAD_SLOTS || status != BLKIF_RSP_OKAY) {
        snprintf(l->error, sizeof(l->error), "queue %u: request %llu was answered %d", l->index, (unsigned long long)id,
                 status);
        return false;
    }
    slot_answered(l, (unsigned)id, &slots[id]);
    if (l->wanted && l->done >= l->wanted)
        return false;
    slot_next(l, (unsigned)id, &slots[id]);
    return true;
}

static void *load_main(void *arg)
{
    struct mqload *l = arg;
    struct slot slots[LOAD_SLOTS];
    unsigned in_flight = LOAD_SLOTS;
    for (unsigned i = 0; i < LOAD_SLOTS; i++) {
        slots[i] = (struct slot){.block = i};
        slot_next(l, i, &slots[i]);
    }
    while (in_flight && !*l->stop && !l->error[0]) {
        uint32_t waiting = 0;
        if (ring_front_push(&l->queue->ring))
            (void)evtchn_notify(&l->queue->channel); /* whose other end may be gone */
        if (ring_front_pending(&l->queue->ring, &waiting))
            snprintf(l->error, sizeof(l->error), "queue %u: the response index lies", l->index);
        else if (!waiting && !ring_front_arm(&l->queue->ring))
            (void)evtchn_wait(&l->queue->channel, 20); /* then it looks whether it is to stop */
        for (; waiting; waiting--)
            in_flight -= !response(l, slots);
    }
    return NULL;
}

void mqloads_start(struct mqloads *l, struct mqguest *m, uint64_t wanted)
{
    l->stop = false;
    l->count = m->count;
    for (unsigned i = 0; i < l->count; i++) {
        struct mqload *x = &l->load[i];
        x->queue = &m->queue[i];
        x->index = i;
        x->stop = &l->stop;
        x->done = 0;
        x->flush_due = 0;
        x->wanted = wanted;
        assert_int_equal(pthread_create(&x->thread, NULL, load_main, x), 0);
    }
}

void mqloads_await(struct mqloads *l, uint64_t more)
{
    for (unsigned i = 0; i < l->count; i++)
        for (uint64_t end = blkworld_patience_end(); l->load[i].done < more && !l->load[i].error[0];)
            blkworld_nap(end, "requests to be answered on each queue");
}

void mqloads_join(struct mqloads *l)
{
    for (unsigned i = 0; i < l->count; i++)
        pthread_join(l->load[i].thread, NULL);
    for (unsigned i = 0; i < l->count; i++)
        if (l->load[i].error[0])
            fail_msg("%s", l->load[i].error);
}

void mqloads_stop(struct mqloads *l)
{
    l->stop = true;
    mqloads_join(l);
}

static void verify_block(struct mqload *l, unsigned block)
{
    struct slot s = {.block = block};
    uint64_t id;
    if (l->doing[block]) {
        put_write(l, 0, &s, l->doing[block]);
        blkguest_kick(l->queue);
        assert_int_equal(blkguest_take(l->queue, &id), BLKIF_RSP_OKAY);
        l->written[block] = l->doing[block];
        l->doing[block] = 0;
    }
    if (!l->written[block])
        return;
    put_read(l, 0, &s);
    blkguest_kick(l->queue);
    assert_int_equal(blkguest_take(l->queue, &id), BLKIF_RSP_OKAY);
    compare(l, 0, &s);
    if (l->error[0])
        fail_msg("%s", l->error);
}

void mqloads_verify(struct mqloads *l, struct mqguest *m)
{
    for (unsigned i = 0; i < l->count; i++) {
        l->load[i].queue = &m->queue[i % m->count];
        for (unsigned block = 0; block < MQLOAD_BLOCKS; block++)
            verify_block(&l->load[i], block);
    }
}

/* ---- the guest as a process ---- */

pid_t mqguest_process(const char *domain_dir, unsigned count)
{
    int ready, stop;
    char byte, text[12];
    snprintf(text, sizeof(text), "%u", count);
    pid_t pid = blkworld_spawn((const char *const[]){"mqguest", domain_dir, text, NULL}, &ready, &stop);
    assert_int_equal(read(ready, &byte, 1), 1);
    close(ready);
    close(stop);
    return pid;
}

int mqguest_main(const char *domain_dir, int ready, unsigned count)
{
    static struct mqguest m;
    static struct mqloads l;
    mqguest_open(&m, domain_dir, BLKWORLD_DEVID);
    blkguest_switch(&m.g, XenbusStateInitialising);
    m.g.persistent = true;
    mqguest_connect(&m, count, 0);
    if (write(ready, "r", 1) != 1)
        return 1;
    mqloads_start(&l, &m, 0);
    mqloads_join(&l);
    return 1;
}
