/* SPDX-License-Identifier: MIT */
/* A guest that sends whatever it likes, against the real blk role: wrong requests, and what ends its device; beside it
 * a neighbour, who must notice nothing. Tests named test_lesson_<n>_… hold the lesson of that Xen security advisory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/blk_scene.h"

/* ---- requests that are wrong get their answer, and nothing else happens ---- */

/* A slot as the guest would fill it for a good read of the disk's first page, to be spoiled. */
static struct blkif_request slot_good(struct blkguest *g)
{
    struct blkif_request r;
    memset(&r, 0, sizeof(r));
    r.operation = BLKIF_OP_READ;
    r.nr_segments = 1;
    r.id = ++g->next_id;
    r.seg[0] = (struct blkif_request_segment){.gref = g->gref[0], .last_sect = 7};
    return r;
}

static int16_t slot_do(struct blkguest *g, const struct blkif_request *r)
{
    uint64_t id;
    ring_front_put(&g->ring, r, sizeof(*r));
    blkguest_kick(g);
    int16_t status = blkguest_take(g, &id);
    assert_int_equal(id, r->id);
    return status;
}

struct bad_request {
    const char *name;
    void (*spoil)(struct scene *s, struct blkif_request *r);
    int16_t status;
};

#define SPOIL(name, ...)                                               \
    static void spoil_##name(struct scene *s, struct blkif_request *r) \
    {                                                                  \
        (void)s;                                                       \
        __VA_ARGS__;                                                   \
    }

static uint32_t gref_foreign(struct scene *s)
{
    /* Granted, but to the neighbour: in a grant frame that dom0 cannot even see. */
    uint32_t gref;
    struct platform_extent x;
    struct err e;
    if (platform_extent_alloc(s->guest.platform, s->neighbour_domid, 1, false, &x, &e) ||
        gnttab_grant(platform_gnttab(s->guest.platform), s->neighbour_domid, x.base_gfn, false, &gref, &e))
        fail_msg("%s", e.text);
    return gref;
}

/* A grant to dom0 of a frame that was never shared with it. */
static uint32_t gref_bad_frame(struct scene *s)
{
    uint32_t gref;
    assert_int_equal(gnttab_grant(platform_gnttab(s->guest.platform), 0, 0x00ffffff, false, &gref, NULL), 0);
    return gref;
}

static uint32_t gref_readonly(struct scene *s)
{
    uint32_t gref;
    assert_int_equal(gnttab_grant(platform_gnttab(s->guest.platform), 0, s->guest.memory.base_gfn + BLKWORLD_DATA_PAGE,
                                  true, &gref, NULL),
                     0);
    return gref;
}

/* A good indirect read of that many segments, to be spoiled; its page of segments is `page`. */
static struct blkif_request_indirect *indirect_good(struct scene *s, struct blkif_request *r, unsigned segments,
                                                    struct blkif_request_segment **page)
{
    struct blkif_request_indirect *i = (void *)r;
    *page = blkguest_indirect_page(&s->guest);
    memset(r, 0, sizeof(*r));
    i->operation = BLKIF_OP_INDIRECT;
    i->nr_segments = (uint16_t)segments;
    i->id = s->guest.next_id;
    i->indirect_grefs[0] = s->guest.indirect_gref[s->guest.indirect_next++ % BLKWORLD_INDIRECT];
    for (unsigned k = 0; k < BLKREQ_INDIRECT_SEGMENTS_PER_PAGE; k++)
        (*page)[k] = (struct blkif_request_segment){.gref = s->guest.gref[k % BLKWORLD_PAGES], .last_sect = 7};
    return i;
}

#define SPOIL_INDIRECT(name, segments, ...)                                      \
    static void spoil_##name(struct scene *s, struct blkif_request *r)           \
    {                                                                            \
        struct blkif_request_segment *page;                                      \
        struct blkif_request_indirect *i = indirect_good(s, r, segments, &page); \
        (void)i;                                                                 \
        __VA_ARGS__;                                                             \
    }

SPOIL_INDIRECT(indirect_fine, 256, (void)s)
SPOIL_INDIRECT(indirect_none, 0, (void)s)
SPOIL_INDIRECT(indirect_past_the_offer, 257, (void)s)
SPOIL_INDIRECT(indirect_past_the_page, 513, i->indirect_grefs[1] = i->indirect_grefs[0])
SPOIL_INDIRECT(indirect_past_the_protocol, 65535, (void)s)
SPOIL_INDIRECT(indirect_flush, 20, i->indirect_op = BLKIF_OP_FLUSH_DISKCACHE)
SPOIL_INDIRECT(indirect_discard, 20, i->indirect_op = BLKIF_OP_DISCARD)
SPOIL_INDIRECT(indirect_indirect, 20, i->indirect_op = BLKIF_OP_INDIRECT)
SPOIL_INDIRECT(indirect_page_zero, 20, i->indirect_grefs[0] = 0)
SPOIL_INDIRECT(indirect_page_reserved, 20, i->indirect_grefs[0] = 1)
SPOIL_INDIRECT(indirect_page_unpublished, 20, i->indirect_grefs[0] = s->guest.gref[0] + 400)
SPOIL_INDIRECT(indirect_page_outside, 20, i->indirect_grefs[0] = UINT32_MAX)
SPOIL_INDIRECT(indirect_page_foreign, 20, i->indirect_grefs[0] = gref_foreign(s))
SPOIL_INDIRECT(indirect_page_frame, 20, i->indirect_grefs[0] = gref_bad_frame(s))
SPOIL_INDIRECT(indirect_segment_backwards, 256, page[255].first_sect = 5; page[255].last_sect = 4)
SPOIL_INDIRECT(indirect_segment_leaves_page, 256, page[128].last_sect = 8)
SPOIL_INDIRECT(indirect_crosses_end, 256, i->sector_number = 1)
SPOIL_INDIRECT(indirect_wraps, 256, i->sector_number = UINT64_MAX - 2047)
SPOIL_INDIRECT(indirect_write_crosses_end, 12, i->indirect_op = BLKIF_OP_WRITE; i->sector_number = DISK_SECTORS - 95)
SPOIL_INDIRECT(indirect_last_gref, 256, page[255].gref = 5)
SPOIL_INDIRECT(indirect_last_gref_foreign, 256, page[255].gref = gref_foreign(s))
SPOIL_INDIRECT(indirect_into_its_own_page, 12, page[11].gref = i->indirect_grefs[0]) /* granted for reading */

#define SPOIL_DISCARD(name, ...)                                               \
    static void spoil_discard_##name(struct scene *s, struct blkif_request *r) \
    {                                                                          \
        struct blkif_request_discard *d = (void *)r;                           \
        (void)s;                                                               \
        memset(r, 0, sizeof(*r));                                              \
        d->operation = BLKIF_OP_DISCARD;                                       \
        d->id = s->guest.next_id;                                              \
        d->sector_number = 8;                                                  \
        __VA_ARGS__;                                                           \
    }

SPOIL_DISCARD(nothing, d->nr_sectors = 0)
SPOIL_DISCARD(past_end, d->nr_sectors = DISK_SECTORS)
SPOIL_DISCARD(wraps, d->nr_sectors = UINT64_MAX - 7)
SPOIL_DISCARD(wraps_bytes, d->nr_sectors = 1ull << 55)
SPOIL_DISCARD(behind, d->sector_number = 1ull << 55; d->nr_sectors = 8)
SPOIL_DISCARD(secure, d->flag = BLKIF_DISCARD_SECURE; d->nr_sectors = 8)

SPOIL(operation_unknown, r->operation = 77)
SPOIL(barrier_crosses_end, r->operation = BLKIF_OP_WRITE_BARRIER; r->sector_number = DISK_SECTORS)
SPOIL(barrier_bad_gref, r->operation = BLKIF_OP_WRITE_BARRIER; r->seg[0].gref = 3)
SPOIL(barrier_twelve_segments, r->operation = BLKIF_OP_WRITE_BARRIER; r->nr_segments = 12)
SPOIL(no_segments, r->nr_segments = 0)
SPOIL(twelve_segments, r->nr_segments = 12)
SPOIL(many_segments, r->nr_segments = 255)
SPOIL(segment_backwards, r->seg[0].first_sect = 5; r->seg[0].last_sect = 4)
SPOIL(segment_leaves_page, r->seg[0].last_sect = 8)
SPOIL(segment_far_out, r->seg[0].first_sect = 255; r->seg[0].last_sect = 255)
SPOIL(starts_at_end, r->sector_number = DISK_SECTORS)
SPOIL(crosses_end, r->sector_number = DISK_SECTORS - 7)
SPOIL(wraps_bytes, r->sector_number = 1ull << 55)
SPOIL(wraps_sectors, r->sector_number = UINT64_MAX - 3)
SPOIL(write_crosses_end, r->operation = BLKIF_OP_WRITE; r->sector_number = DISK_SECTORS - 1)
SPOIL(flush_crosses_end, r->operation = BLKIF_OP_FLUSH_DISKCACHE; r->sector_number = DISK_SECTORS)
SPOIL(gref_reserved, r->seg[0].gref = 1)
SPOIL(gref_zero, r->seg[0].gref = 0)
SPOIL(gref_unpublished, r->seg[0].gref = s->guest.gref[0] + 400)
SPOIL(gref_outside, r->seg[0].gref = UINT32_MAX)
SPOIL(gref_second_frame, r->seg[0].gref = 700)
SPOIL(gref_foreign, r->seg[0].gref = gref_foreign(s))
SPOIL(gref_frame, r->seg[0].gref = gref_bad_frame(s))
SPOIL(gref_readonly, r->seg[0].gref = gref_readonly(s))
SPOIL(gref_last_of_eleven, r->nr_segments = 11; for (unsigned i = 0; i < 11; i++) r->seg[i] = r->seg[0];
      r->seg[10].gref = 5)

#define ROW(name, status)                       \
    {                                           \
#name, spoil_##name, BLKIF_RSP_##status \
    }
static const struct bad_request bad_requests[] = {
    ROW(operation_unknown, EOPNOTSUPP),
    ROW(barrier_crosses_end, ERROR),
    ROW(barrier_bad_gref, ERROR),
    ROW(barrier_twelve_segments, ERROR),
    ROW(discard_nothing, ERROR),
    ROW(discard_past_end, ERROR),
    ROW(discard_wraps, ERROR),
    ROW(discard_wraps_bytes, ERROR),
    ROW(discard_behind, ERROR),
    ROW(discard_secure, EOPNOTSUPP),
    ROW(indirect_none, ERROR),
    ROW(indirect_past_the_offer, ERROR),
    ROW(indirect_past_the_page, ERROR),
    ROW(indirect_past_the_protocol, ERROR),
    ROW(indirect_flush, EOPNOTSUPP),
    ROW(indirect_discard, EOPNOTSUPP),
    ROW(indirect_indirect, EOPNOTSUPP),
    ROW(indirect_page_zero, ERROR),
    ROW(indirect_page_reserved, ERROR),
    ROW(indirect_page_unpublished, ERROR),
    ROW(indirect_page_outside, ERROR),
    ROW(indirect_page_foreign, ERROR),
    ROW(indirect_page_frame, ERROR),
    ROW(indirect_segment_backwards, ERROR),
    ROW(indirect_segment_leaves_page, ERROR),
    ROW(indirect_crosses_end, ERROR),
    ROW(indirect_wraps, ERROR),
    ROW(indirect_write_crosses_end, ERROR),
    ROW(indirect_last_gref, ERROR),
    ROW(indirect_last_gref_foreign, ERROR),
    ROW(indirect_into_its_own_page, ERROR),
    ROW(no_segments, ERROR),
    ROW(twelve_segments, ERROR),
    ROW(many_segments, ERROR),
    ROW(segment_backwards, ERROR),
    ROW(segment_leaves_page, ERROR),
    ROW(segment_far_out, ERROR),
    ROW(starts_at_end, ERROR),
    ROW(crosses_end, ERROR),
    ROW(wraps_bytes, ERROR),
    ROW(wraps_sectors, ERROR),
    ROW(write_crosses_end, ERROR),
    ROW(flush_crosses_end, ERROR),
    ROW(gref_reserved, ERROR),
    ROW(gref_zero, ERROR),
    ROW(gref_unpublished, ERROR),
    ROW(gref_outside, ERROR),
    ROW(gref_second_frame, ERROR),
    ROW(gref_foreign, ERROR),
    ROW(gref_frame, ERROR),
    ROW(gref_readonly, ERROR),
    ROW(gref_last_of_eleven, ERROR),
};

static void check_bad_requests(const char *dma)
{
    struct scene s;
    scene_start(&s, dma);
    for (unsigned i = 0; i < ARRAY_SIZE(bad_requests); i++) {
        struct blkif_request r = slot_good(&s.guest);
        bad_requests[i].spoil(&s, &r);
        int16_t status = slot_do(&s.guest, &r);
        if (status != bad_requests[i].status)
            fail_msg("%s: status %d", bad_requests[i].name, status);
        blkguest_check_served(&s.guest, SEED); /* itself included */
        spoil_indirect_fine(&s, &r);
        assert_int_equal(slot_do(&s.guest, &r), BLKIF_RSP_OKAY);
        scene_check(&s);
    }
    assert_int_equal(blkworld_stat(&s.world, s.domid, BLKWORLD_DEVID, "errors", ARRAY_SIZE(bad_requests)),
                     ARRAY_SIZE(bad_requests));
    for (unsigned i = 0; i < BLKWORLD_PAGES; i++) { /* no failed request holds a grant: XSA-362, 365 */
        assert_int_equal(gnttab_end(platform_gnttab(s.guest.platform), s.guest.gref[i]), 0);
        assert_int_equal(gnttab_grant(platform_gnttab(s.guest.platform), 0,
                                      s.guest.memory.base_gfn + BLKWORLD_DATA_PAGE + i, false, &s.guest.gref[i], NULL),
                         0);
    }
    scene_stop(&s);
}

static void test_bad_requests_get_their_answer_with_copy(void **state)
{
    (void)state;
    check_bad_requests("copy");
}

static void test_bad_requests_get_their_answer_with_pin(void **state)
{
    (void)state;
    check_bad_requests("pin");
}

/* CVE-2008-1945 and -2004: a guest writes the header of another format, with a file of dom0's behind it, and connects
 * anew: the disk is the same bytes, of the same length. */
static void test_lesson_2008_2004_a_format_that_the_guest_writes_is_not_believed(void **state)
{
    static const unsigned char qcow2[] = {'Q', 'F', 'I', 0xfb, 0, 0, 0, 2, 0,  0, 0, 0, 0, 0, 0, 72, 0, 0,
                                          0,   11,  0,   0,    0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0,  0, 0};
    struct scene s;
    (void)state;
    scene_start(&s, "pin");
    struct blkguest *g = &s.guest;
    uint64_t sectors = g->disk.sectors;
    memset(g->data, 0, PAGE_BYTES);
    memcpy(g->data, qcow2, sizeof(qcow2));
    strcpy((char *)g->data + 72, "/etc/passwd");
    assert_int_equal(blkguest_do(g, BLKIF_OP_WRITE, 0, 0, 1, 0, 7), BLKIF_RSP_OKAY);
    blkguest_disconnect(g);
    blkguest_switch(g, XenbusStateInitialising);
    blkguest_connect(g, NULL);
    assert_int_equal(g->disk.sectors, sectors);
    assert_int_equal(blkguest_do(g, BLKIF_OP_READ, 0, 1, 1, 0, 7), BLKIF_RSP_OKAY);
    assert_memory_equal(g->data, g->data + PAGE_BYTES, PAGE_BYTES);
    assert_int_equal(blkguest_do(g, BLKIF_OP_READ, sectors, 1, 1, 0, 7), BLKIF_RSP_ERROR);
    blkworld_pattern(g->data, 0, 8, SEED); /* as it was */
    assert_int_equal(blkguest_do(g, BLKIF_OP_WRITE, 0, 0, 1, 0, 7), BLKIF_RSP_OKAY);
    scene_stop(&s);
}

static void test_lesson_142_a_read_only_disk_is_not_written_whatever_the_guest_sends(void **state)
{
    struct scene s;
    struct keys_blk_config ro;
    struct blkguest g;
    (void)state;
    scene_start(&s, "pin");
    blkworld_image(&s.world, "ro.img", DISK_BYTES, SEED, ro.path, sizeof(ro.path));
    ro = (struct keys_blk_config){.readonly = true, .discard = true};
    blkworld_image(&s.world, "ro.img", DISK_BYTES, SEED, ro.path, sizeof(ro.path));
    blkworld_attach(&s.world, s.domid, BLKWORLD_DEVID + 16, &ro);
    blkguest_open(&g, s.dir, BLKWORLD_DEVID + 16);
    assert_int_equal(store_write(g.store, STORE_NO_TX, "w", "%s/mode", g.xb.dir), 0); /* only dom0's directory counts */
    blkguest_connect(&g, NULL);
    assert_int_equal(blkguest_do(&g, BLKIF_OP_WRITE, 0, 0, 1, 0, 7), BLKIF_RSP_ERROR);
    assert_int_equal(blkguest_do(&g, BLKIF_OP_FLUSH_DISKCACHE, 0, 0, 1, 0, 7), BLKIF_RSP_ERROR);
    assert_int_equal(blkguest_do(&g, BLKIF_OP_WRITE_BARRIER, 0, 0, 1, 0, 7), BLKIF_RSP_ERROR);
    assert_int_equal(blkguest_do(&g, BLKIF_OP_WRITE_BARRIER, 0, 0, 0, 0, 0), BLKIF_RSP_OKAY);
    assert_int_equal(blkguest_do_indirect(&g, BLKIF_OP_WRITE, 0, 0, 1, 0, 7), BLKIF_RSP_ERROR);
    assert_int_equal(blkguest_do_indirect(&g, BLKIF_OP_WRITE, 0, 0, 200, 0, 7), BLKIF_RSP_ERROR);
    struct blkreq discard = {.id = ++g.next_id, .operation = BLKIF_OP_DISCARD, .sector_count = 8};
    uint64_t id;
    assert_false(g.disk.discard);
    blkguest_put_raw(&g, &discard);
    blkguest_kick(&g);
    assert_int_equal(blkguest_take(&g, &id), BLKIF_RSP_EOPNOTSUPP);
    blkguest_check_served(&g, SEED);
    blkguest_disconnect(&g);
    blkguest_close(&g);
    scene_stop(&s);
}

static void test_lesson_216_every_byte_of_a_response_is_written(void **state)
{
    struct scene s;
    (void)state;
    scene_start(&s, "copy");
    for (unsigned i = 0; i < 2; i++) {
        struct blkif_request r = slot_good(&s.guest);
        r.operation = i ? 0xee : BLKIF_OP_READ;
        uint32_t at = s.guest.ring.req_prod_pvt;
        slot_do(&s.guest, &r);
        const unsigned char *slot = ring_slot(&s.guest.ring.ring, at);
        struct blkif_response wanted;
        memset(&wanted, 0, sizeof(wanted));
        wanted.id = r.id;
        wanted.operation = r.operation;
        wanted.status = i ? BLKIF_RSP_EOPNOTSUPP : BLKIF_RSP_OKAY;
        assert_memory_equal(slot, &wanted, sizeof(wanted));
    }
    scene_stop(&s);
}

/* ---- what closes the device, and only it ---- */

static void index_far_ahead(struct scene *s)
{
    ring_set(&s->guest.ring.ring, req_prod, s->guest.ring.req_prod + 1000);
}

static void index_one_too_far(struct scene *s)
{
    ring_set(&s->guest.ring.ring, req_prod, s->guest.ring.rsp_cons + s->guest.ring.ring.entries + 1);
}

static void index_backwards(struct scene *s)
{
    blkguest_check_served(&s->guest, SEED);
    ring_set(&s->guest.ring.ring, req_prod, s->guest.ring.req_prod - 1);
}

static void index_wild(struct scene *s)
{
    memset(s->guest.memory.address, 0xff, PAGE_BYTES);
    ring_set(&s->guest.ring.ring, req_prod, 0x80000000u);
}

/* Reads its own disk into its own ring page. */
static void ring_as_data(struct scene *s)
{
    struct blkif_request r = slot_good(&s->guest);
    r.seg[0].gref = s->guest.ring_gref[0];
    r.sector_number = 8; /* its first word is no small number */
    ring_front_put(&s->guest.ring, &r, sizeof(r));
    (void)ring_front_push(&s->guest.ring);
}

/* References that the hypervisor must be asked for, each time anew. */
static void unknown_refs(struct scene *s)
{
    uint64_t end_ns = blkworld_patience_end();
    for (unsigned n = 0; !blkworld_back_is(&s->world, s->domid, BLKWORLD_DEVID, XenbusStateClosed); n++) {
        struct blkif_request r = slot_good(&s->guest);
        uint32_t waiting = 0;
        r.seg[0].gref = 5 * 512 + n % 512;
        if (!ring_front_room(&s->guest.ring) && !ring_front_pending(&s->guest.ring, &waiting) && waiting)
            ring_front_take(&s->guest.ring, &(struct blkif_response){0}, sizeof(struct blkif_response));
        if (ring_front_room(&s->guest.ring))
            ring_front_put(&s->guest.ring, &r, sizeof(r));
        else
            blkworld_nap(end_ns, "room in the ring, or the device's end");
        blkguest_kick(&s->guest);
    }
}

struct fault {
    void (*commit)(struct scene *s);
    const char *words;
};

static void check_faults(const struct fault *faults, unsigned count)
{
    struct scene s;
    char text[512];
    scene_start(&s, "pin");
    for (unsigned i = 0; i < count; i++) {
        faults[i].commit(&s);
        (void)evtchn_notify(&s.guest.channel);
        blkworld_wait_back(&s.world, s.domid, BLKWORLD_DEVID, XenbusStateClosed);
        blkworld_error(&s.world, s.domid, BLKWORLD_DEVID, text, sizeof(text));
        if (!strstr(text, faults[i].words))
            fail_msg("fault %u: '%s' does not say '%s'", i, text, faults[i].words);
        scene_check(&s);
        guest_start_over(&s);
    }
    scene_stop(&s);
}

static void test_lesson_39_a_ring_index_that_lies_closes_the_device(void **state)
{
    static const struct fault faults[] = {
        {index_far_ahead, "further ahead than the ring has entries"},
        {index_one_too_far, "further ahead than the ring has entries"},
        {index_backwards, "further ahead than the ring has entries"},
        {index_wild, "further ahead than the ring has entries"},
        {ring_as_data, "further ahead than the ring has entries"},
    };
    (void)state;
    check_faults(faults, ARRAY_SIZE(faults));
}

static void test_references_that_cost_dom0_a_question_each_close_the_device(void **state)
{
    static const struct fault faults[] = {{unknown_refs, "too many grant references"}};
    (void)state;
    check_faults(faults, ARRAY_SIZE(faults));
}

int main(int argc, char **argv)
{
    blkworld_child(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_requests_get_their_answer_with_copy),
        cmocka_unit_test(test_bad_requests_get_their_answer_with_pin),
        cmocka_unit_test(test_lesson_2008_2004_a_format_that_the_guest_writes_is_not_believed),
        cmocka_unit_test(test_lesson_142_a_read_only_disk_is_not_written_whatever_the_guest_sends),
        cmocka_unit_test(test_lesson_216_every_byte_of_a_response_is_written),
        cmocka_unit_test(test_lesson_39_a_ring_index_that_lies_closes_the_device),
        cmocka_unit_test(test_references_that_cost_dom0_a_question_each_close_the_device),
    };
    return cmocka_run_group_tests_name("blk_hostile", tests, NULL, NULL);
}
