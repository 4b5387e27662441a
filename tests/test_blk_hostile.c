/* SPDX-License-Identifier: MIT */
/* A guest that writes whatever it can reach, against the real blk role; beside it a neighbour with a disk of its own,
 * who must notice nothing. Tests named test_lesson_<n>_… hold the lesson of that Xen security advisory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "tests/blkworld.h"

#define DISK_BYTES   (1u << 20)
#define DISK_SECTORS (DISK_BYTES / SECTOR_BYTES)
#define SEED         5u

struct scene {
    struct blkworld world;
    char dir[256], neighbour_dir[256];
    uint16_t domid, neighbour_domid;
    struct keys_blk_config config, neighbour_config;
    struct blkguest guest, neighbour;
};

static void scene_start(struct scene *s, const char *dma)
{
    *s = (struct scene){0};
    struct blkworld *w = &s->world;
    blkworld_start(w, NULL);
    s->domid = blkworld_domain(w, "hostile", s->dir, sizeof(s->dir));
    s->neighbour_domid = blkworld_domain(w, "neighbour", s->neighbour_dir, sizeof(s->neighbour_dir));
    blkworld_image(w, "hostile.img", DISK_BYTES, SEED, s->config.path, sizeof(s->config.path));
    blkworld_image(w, "neighbour.img", DISK_BYTES, SEED, s->neighbour_config.path, sizeof(s->config.path));
    snprintf(s->config.dma, sizeof(s->config.dma), "%s", dma);
    blkworld_attach(w, s->domid, BLKWORLD_DEVID, &s->config);
    blkworld_attach(w, s->neighbour_domid, BLKWORLD_DEVID, &s->neighbour_config);
    blkguest_open(&s->guest, s->dir, BLKWORLD_DEVID);
    blkguest_open(&s->neighbour, s->neighbour_dir, BLKWORLD_DEVID);
    blkguest_connect(&s->guest, NULL);
    blkguest_connect(&s->neighbour, NULL);
}

static void scene_check(struct scene *s)
{
    blkguest_check_served(&s->neighbour, SEED);
}

/* The hostile guest's device was closed under it: it takes note, and may start over. */
static void guest_start_over(struct scene *s)
{
    struct blkguest *g = &s->guest;
    blkworld_wait_back(&s->world, s->domid, BLKWORLD_DEVID, XenbusStateClosed);
    blkworld_wait_held(&s->world, s->domid, 0);
    blkguest_ring_end(g);
    blkguest_switch(g, XenbusStateClosing);
    blkguest_switch(g, XenbusStateClosed);
    blkguest_switch(g, XenbusStateInitialising);
    blkguest_connect(g, NULL);
    blkguest_check_served(g, SEED);
}

/* Everything is given back, by the guest's own end and by dom0's. */
static void scene_stop(struct scene *s)
{
    scene_check(s);
    blkguest_disconnect(&s->guest);
    blkguest_disconnect(&s->neighbour);
    blkworld_wait_held(&s->world, s->domid, 0);
    blkworld_wait_held(&s->world, s->neighbour_domid, 0);
    blkguest_close(&s->guest);
    blkguest_close(&s->neighbour);
    blkworld_stop(&s->world);
}

/* ---- requests that are wrong get their answer, and nothing else happens ---- */

/* A slot as the guest would fill it for a good read of the disk's first page, to be spoiled. */
static struct blkif_request slot_good(struct blkguest *g)
{
    struct blkif_request r = {.operation = BLKIF_OP_READ, .nr_segments = 1, .id = ++g->next_id};
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
    assert_int_equal(
        gnttab_grant(platform_gnttab(s->guest.platform), 0, s->guest.memory.base_gfn + 1, true, &gref, NULL), 0);
    return gref;
}

SPOIL(operation_unknown, r->operation = 77)
SPOIL(operation_barrier, r->operation = BLKIF_OP_WRITE_BARRIER)
SPOIL(operation_discard, r->operation = BLKIF_OP_DISCARD)
SPOIL(operation_indirect, r->operation = BLKIF_OP_INDIRECT)
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
SPOIL(gref_unpublished, r->seg[0].gref = s->guest.gref[0] + 300)
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
    ROW(operation_barrier, EOPNOTSUPP),
    ROW(operation_discard, EOPNOTSUPP),
    ROW(operation_indirect, EOPNOTSUPP),
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
        scene_check(&s);
    }
    assert_int_equal(blkworld_stat(&s.world, s.domid, BLKWORLD_DEVID, "errors", ARRAY_SIZE(bad_requests)),
                     ARRAY_SIZE(bad_requests));
    for (unsigned i = 0; i < BLKWORLD_PAGES; i++) { /* no failed request holds a grant: XSA-362, 365 */
        assert_int_equal(gnttab_end(platform_gnttab(s.guest.platform), s.guest.gref[i]), 0);
        assert_int_equal(gnttab_grant(platform_gnttab(s.guest.platform), 0, s.guest.memory.base_gfn + 1 + i, false,
                                      &s.guest.gref[i], NULL),
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

static void test_lesson_142_a_read_only_disk_is_not_written_whatever_the_guest_sends(void **state)
{
    struct scene s;
    struct keys_blk_config ro;
    struct blkguest g;
    (void)state;
    scene_start(&s, "pin");
    blkworld_image(&s.world, "ro.img", DISK_BYTES, SEED, ro.path, sizeof(ro.path));
    ro = (struct keys_blk_config){.readonly = true};
    blkworld_image(&s.world, "ro.img", DISK_BYTES, SEED, ro.path, sizeof(ro.path));
    blkworld_attach(&s.world, s.domid, BLKWORLD_DEVID + 16, &ro);
    blkguest_open(&g, s.dir, BLKWORLD_DEVID + 16);
    assert_int_equal(store_write(g.store, STORE_NO_TX, "w", "%s/mode", g.xb.dir), 0); /* only dom0's directory counts */
    blkguest_connect(&g, NULL);
    assert_int_equal(blkguest_do(&g, BLKIF_OP_WRITE, 0, 0, 1, 0, 7), BLKIF_RSP_ERROR);
    assert_int_equal(blkguest_do(&g, BLKIF_OP_FLUSH_DISKCACHE, 0, 0, 1, 0, 7), BLKIF_RSP_ERROR);
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
    r.seg[0].gref = s->guest.ring_gref;
    r.sector_number = 8; /* its first word is no small number */
    ring_front_put(&s->guest.ring, &r, sizeof(r));
    (void)ring_front_push(&s->guest.ring);
}

/* References that the hypervisor must be asked for, each time anew. */
static void unknown_refs(struct scene *s)
{
    for (unsigned n = 0; n < 200 && !blkworld_back_is(&s->world, s->domid, BLKWORLD_DEVID, XenbusStateClosed); n++) {
        struct blkif_request r = slot_good(&s->guest);
        uint32_t waiting = 0;
        r.seg[0].gref = 5 * 512 + n;
        if (!ring_front_room(&s->guest.ring) && !ring_front_pending(&s->guest.ring, &waiting) && waiting)
            ring_front_take(&s->guest.ring, &(struct blkif_response){0}, sizeof(struct blkif_response));
        if (ring_front_room(&s->guest.ring))
            ring_front_put(&s->guest.ring, &r, sizeof(r));
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

/* ---- what a guest writes while it is being served ---- */

/* A process, not a thread: it shares the guest's memory with this one as a second processor of the guest would. */
struct scribbler {
    pid_t pid;
    _Atomic bool *stop; /* shared */
};

static void scribble_start(struct scribbler *x, struct scene *s, void (*fn)(struct scene *, uint64_t))
{
    x->stop = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(x->stop, MAP_FAILED);
    x->pid = fork();
    if (x->pid == 0) {
        for (uint64_t n = 0; !*x->stop; n++)
            fn(s, n);
        _exit(0);
    }
}

static void scribble_stop(struct scribbler *x)
{
    int status;
    *x->stop = true;
    assert_int_equal(waitpid(x->pid, &status, 0), x->pid);
    assert_int_equal(status, 0);
    munmap(x->stop, PAGE_BYTES);
}

/* Good and bad values by turns in every field of every slot. */
static void scribble_slots(struct scene *s, uint64_t n)
{
    struct ring *ring = &s->guest.ring.ring;
    struct blkif_request *r = (void *)ring_slot(ring, (uint32_t)(n % ring->entries));
    uint64_t bad = n >> 5 & 1;
    __atomic_store_n(&r->sector_number, bad ? UINT64_MAX - n : 0, __ATOMIC_RELAXED);
    __atomic_store_n(&r->nr_segments, bad ? 200 : 1, __ATOMIC_RELAXED);
    __atomic_store_n(&r->seg[0].gref, bad ? (uint32_t)n : s->guest.gref[0], __ATOMIC_RELAXED);
    __atomic_store_n(&r->seg[0].last_sect, bad ? 255 : 7, __ATOMIC_RELAXED);
}

/* Responses lie in the slots that are scribbled over: their count is all that can be believed. */
static void rounds_under_scribbling(struct scene *s, unsigned rounds)
{
    struct blkguest *g = &s->guest;
    for (unsigned n = 0; n < rounds; n++) {
        uint64_t id;
        blkguest_put(g, n % 2 ? BLKIF_OP_READ : BLKIF_OP_WRITE, 8, n % BLKWORLD_PAGES, 1 + n % 11, 0, 7);
        blkguest_kick(g);
        (void)blkguest_take(g, &id);
        if (n % 64 == 0)
            scene_check(s);
    }
}

static void test_lesson_155_a_request_is_fetched_once(void **state)
{
    struct scene s;
    struct scribbler x;
    (void)state;
    scene_start(&s, "pin");
    scribble_start(&x, &s, scribble_slots);
    rounds_under_scribbling(&s, 3000);
    scribble_stop(&x);
    scene_check(&s);
    blkguest_disconnect(&s.guest);
    blkworld_wait_held(&s.world, s.domid, 0);
    blkguest_switch(&s.guest, XenbusStateInitialising);
    blkguest_connect(&s.guest, NULL);
    assert_int_equal(blkguest_do(&s.guest, BLKIF_OP_READ, 0, 0, 11, 0, 7),
                     BLKIF_RSP_OKAY); /* what it says is its own */
    scene_stop(&s);
}

/* The entries of the grant table that a request refers to, revoked and granted anew all the time. */
static void scribble_grants(struct scene *s, uint64_t n)
{
    (void)n;
    struct gnttab *t = platform_gnttab(s->guest.platform);
    if (gnttab_end(t, s->guest.gref[0]) == 0)
        (void)gnttab_grant(t, 0, s->guest.memory.base_gfn + 1, false, &s->guest.gref[0], NULL);
}

static void test_lesson_396_grants_that_vanish_amid_io_fail_their_request_at_most(void **state)
{
    struct scene s;
    struct scribbler x;
    (void)state;
    for (unsigned d = 0; d < 2; d++) {
        scene_start(&s, d ? "copy" : "pin");
        scribble_start(&x, &s, scribble_grants);
        for (unsigned n = 0; n < 2000; n++) {
            int16_t status = blkguest_do(&s.guest, BLKIF_OP_READ, 0, 0, 1, 0, 7);
            assert_true(status == BLKIF_RSP_OKAY || status == BLKIF_RSP_ERROR);
        }
        scribble_stop(&x);
        scene_stop(&s);
    }
}

/* The event word of the other direction, and the producer word by one, there and back. */
static void scribble_words(struct scene *s, uint64_t n)
{
    ring_set(&s->guest.ring.ring, rsp_event, (uint32_t)(n * 0x9e3779b9u));
    ring_set(&s->guest.ring.ring, req_event, (uint32_t)n);
}

static void test_event_words_decide_about_nothing_but_events(void **state)
{
    struct scene s;
    struct scribbler x;
    (void)state;
    scene_start(&s, "pin");
    scribble_start(&x, &s, scribble_words);
    for (unsigned n = 0; n < 500; n++)
        scene_check(&s);
    scribble_stop(&x);
    ring_set(&s.guest.ring.ring, rsp_event, s.guest.ring.rsp_cons + 1);
    (void)evtchn_notify(&s.guest.channel);
    scene_stop(&s);
}

static void scribble_producer(struct scene *s, uint64_t n)
{
    ring_set(&s->guest.ring.ring, req_prod, s->guest.ring.req_prod + (uint32_t)(n & 1));
}

static void test_a_producer_word_that_flickers_starves_nobody(void **state)
{
    struct scene s;
    struct scribbler x;
    (void)state;
    scene_start(&s, "copy");
    scribble_start(&x, &s, scribble_producer);
    for (unsigned n = 0; n < 500; n++) {
        (void)evtchn_notify(&s.guest.channel);
        scene_check(&s);
    }
    scribble_stop(&x);
    /* Requests were taken that never were, or an index went back: either is the guest's own damage. */
    ring_set(&s.guest.ring.ring, req_prod, s.guest.ring.req_prod + 1000);
    (void)evtchn_notify(&s.guest.channel);
    guest_start_over(&s);
    scene_stop(&s);
}

static void test_lesson_331_events_without_cause_are_listened_to_less(void **state)
{
    struct scene s;
    (void)state;
    scene_start(&s, "pin");
    while (blkworld_stat(&s.world, s.domid, BLKWORLD_DEVID, "pauses", 0) == 0) {
        for (unsigned i = 0; i < 1000; i++)
            (void)evtchn_notify(&s.guest.channel);
        scene_check(&s);
    }
    blkguest_check_served(&s.guest, SEED); /* slower, but served */
    scene_stop(&s);
}

/* ---- the store ---- */

static void test_lesson_349_a_state_written_in_a_loop_piles_nothing_up(void **state)
{
    struct scene s;
    (void)state;
    scene_start(&s, "pin");
    for (unsigned n = 0; n < 400; n++) {
        assert_int_equal(store_printf(s.guest.store, STORE_NO_TX, s.guest.xb.dir, "state", "%u", n % 10), 0);
        if (n % 40 == 0)
            scene_check(&s);
    }
    assert_int_equal(store_write(s.guest.store, STORE_NO_TX, "hello", "%s/state", s.guest.xb.dir), 0);
    assert_int_equal(store_rm(s.guest.store, STORE_NO_TX, "%s/state", s.guest.xb.dir), 0);
    blkguest_switch(&s.guest, XenbusStateClosing);
    blkguest_switch(&s.guest, XenbusStateClosed);
    guest_start_over(&s);
    scene_stop(&s);
}

struct bad_key {
    const char *name, *value, *words;
};

static void test_lesson_175_keys_that_lie_close_the_device_with_a_sentence(void **state)
{
    static const struct bad_key keys[] = {
        {"ring-ref", "0", "ring-ref"},
        {"ring-ref", "4000000000", "grant"},
        {"ring-ref", "-1", "ring-ref"},
        {"ring-ref", "x", "ring-ref"},
        {"event-channel", "99999999", "event-channel"},
        {"event-channel", "1000", ""},
        {"protocol", "vax-abi", "vax-abi"},
        {"ring-page-order", "9", "ring-page-order"},
    };
    struct scene s;
    char text[512];
    (void)state;
    scene_start(&s, "pin");
    for (unsigned i = 0; i < ARRAY_SIZE(keys); i++) {
        struct blkguest *g = &s.guest;
        blkguest_disconnect(g);
        blkguest_switch(g, XenbusStateInitialising);
        blkworld_wait_back(&s.world, s.domid, BLKWORLD_DEVID, XenbusStateInitWait);
        assert_int_equal(store_write(g->store, STORE_NO_TX, keys[i].value, "%s/%s", g->xb.dir, keys[i].name), 0);
        blkguest_switch(g, XenbusStateInitialised);
        blkworld_wait_back(&s.world, s.domid, BLKWORLD_DEVID, XenbusStateClosed);
        blkworld_error(&s.world, s.domid, BLKWORLD_DEVID, text, sizeof(text));
        if (!strlen(text) || !strstr(text, keys[i].words))
            fail_msg("%s=%s: '%s'", keys[i].name, keys[i].value, text);
        assert_int_equal(store_rm(g->store, STORE_NO_TX, "%s/%s", g->xb.dir, keys[i].name), 0);
        blkguest_switch(g, XenbusStateClosed);
        blkguest_switch(g, XenbusStateInitialising);
        blkguest_connect(g, NULL);
        scene_check(&s);
    }
    scene_stop(&s);
}

static void test_lesson_233_memory_given_back_under_a_live_device_is_kept_until_it_is_closed(void **state)
{
    struct scene s;
    (void)state;
    scene_start(&s, "pin");
    blkguest_check_served(&s.guest, SEED);
    while (ring_front_room(&s.guest.ring))
        blkguest_put(&s.guest, BLKIF_OP_READ, 0, 0, 11, 0, 7);
    blkguest_kick(&s.guest);
    store_client_close(s.guest.store);
    platform_close(s.guest.platform); /* the process goes, with all its memory; twice is once */
    blkworld_wait_back(&s.world, s.domid, BLKWORLD_DEVID, XenbusStateClosed);
    blkworld_wait_held(&s.world, s.domid, 0);
    scene_check(&s);
    blkguest_open(&s.guest, s.dir, BLKWORLD_DEVID);
    blkguest_switch(&s.guest, XenbusStateInitialising);
    blkguest_connect(&s.guest, NULL);
    blkguest_check_served(&s.guest, SEED);
    scene_stop(&s);
}

int main(int argc, char **argv)
{
    blkworld_child(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_requests_get_their_answer_with_copy),
        cmocka_unit_test(test_bad_requests_get_their_answer_with_pin),
        cmocka_unit_test(test_lesson_142_a_read_only_disk_is_not_written_whatever_the_guest_sends),
        cmocka_unit_test(test_lesson_216_every_byte_of_a_response_is_written),
        cmocka_unit_test(test_lesson_39_a_ring_index_that_lies_closes_the_device),
        cmocka_unit_test(test_references_that_cost_dom0_a_question_each_close_the_device),
        cmocka_unit_test(test_lesson_155_a_request_is_fetched_once),
        cmocka_unit_test(test_lesson_396_grants_that_vanish_amid_io_fail_their_request_at_most),
        cmocka_unit_test(test_event_words_decide_about_nothing_but_events),
        cmocka_unit_test(test_a_producer_word_that_flickers_starves_nobody),
        cmocka_unit_test(test_lesson_331_events_without_cause_are_listened_to_less),
        cmocka_unit_test(test_lesson_349_a_state_written_in_a_loop_piles_nothing_up),
        cmocka_unit_test(test_lesson_175_keys_that_lie_close_the_device_with_a_sentence),
        cmocka_unit_test(test_lesson_233_memory_given_back_under_a_live_device_is_kept_until_it_is_closed),
    };
    return cmocka_run_group_tests_name("blk_hostile", tests, NULL, NULL);
}
