/* SPDX-License-Identifier: MIT */
/* A guest that changes what it can reach while it is being served: slots, grants, index words, events, the store, its
 * own memory. Tests named test_lesson_<n>_… hold the lesson of that Xen security advisory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <sys/mman.h>
#include <sys/wait.h>

#include "tests/blk_scene.h"

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

/* The segments of indirect requests, good and bad by turns, while they are checked and used. */
static void scribble_indirect(struct scene *s, uint64_t n)
{
    struct blkif_request_segment *page = blkguest_indirect_page(&s->guest);
    struct blkif_request_segment *x = &page[n % BLKREQ_INDIRECT_SEGMENTS_MAX];
    bool bad = n / BLKREQ_INDIRECT_SEGMENTS_MAX % 2;
    __atomic_store_n(&x->gref, bad ? 4000 : s->guest.gref[n % BLKWORLD_PAGES], __ATOMIC_RELAXED);
    __atomic_store_n(&x->first_sect, bad ? 250 : 0, __ATOMIC_RELAXED);
    __atomic_store_n(&x->last_sect, bad ? 255 : 7, __ATOMIC_RELAXED);
}

static void test_lesson_155_the_segments_of_an_indirect_request_are_fetched_once(void **state)
{
    (void)state;
    for (unsigned d = 0; d < 2; d++) {
        struct scene s;
        struct scribbler x;
        unsigned good = 0, bad = 0;
        scene_start(&s, d ? "copy" : "pin");
        scribble_start(&x, &s, scribble_indirect);
        for (unsigned n = 0; n < 2000 || !good || !bad; n++) {
            s.guest.indirect_next = 0; /* the page that the other process knows */
            int16_t status =
                blkguest_do_indirect(&s.guest, n % 2 ? BLKIF_OP_READ : BLKIF_OP_WRITE, 8, 0, 1 + n % 250, 0, 7);
            assert_true(status == BLKIF_RSP_OKAY || status == BLKIF_RSP_ERROR);
            good += status == BLKIF_RSP_OKAY;
            bad += status != BLKIF_RSP_OKAY;
            if (n % 64 == 0)
                scene_check(&s);
        }
        scribble_stop(&x);
        scene_stop(&s); /* and its end finds no grant held */
    }
}

/* The entries of the grant table that a request refers to, revoked and granted anew all the time. */
static void scribble_grants(struct scene *s, uint64_t n)
{
    (void)n;
    struct gnttab *t = platform_gnttab(s->guest.platform);
    if (gnttab_end(t, s->guest.gref[0]) == 0)
        (void)gnttab_grant(t, 0, s->guest.memory.base_gfn + BLKWORLD_DATA_PAGE, false, &s->guest.gref[0], NULL);
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
        cmocka_unit_test(test_lesson_155_a_request_is_fetched_once),
        cmocka_unit_test(test_lesson_155_the_segments_of_an_indirect_request_are_fetched_once),
        cmocka_unit_test(test_lesson_396_grants_that_vanish_amid_io_fail_their_request_at_most),
        cmocka_unit_test(test_event_words_decide_about_nothing_but_events),
        cmocka_unit_test(test_a_producer_word_that_flickers_starves_nobody),
        cmocka_unit_test(test_lesson_331_events_without_cause_are_listened_to_less),
        cmocka_unit_test(test_lesson_349_a_state_written_in_a_loop_piles_nothing_up),
        cmocka_unit_test(test_lesson_175_keys_that_lie_close_the_device_with_a_sentence),
        cmocka_unit_test(test_lesson_233_memory_given_back_under_a_live_device_is_kept_until_it_is_closed),
    };
    return cmocka_run_group_tests_name("blk_hostile_live", tests, NULL, NULL);
}
