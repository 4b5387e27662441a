/* SPDX-License-Identifier: MIT */
/* A peer that writes anything into the shared page at any time: what it can do to either end of ring/ring.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "ring/blkreq.h"
#include "ring/ring.h"
#include "tests/random.h"

enum {
    ENTRIES = 8,
    SLOT = sizeof(struct blkif_request),
    RING_BYTES = SRING_HEADER_BYTES + ENTRIES * SLOT,
    GUARD = 256
};

/* The shared page between two guards that nobody may write to. */
static struct {
    unsigned char before[GUARD];
    union {
        unsigned char bytes[RING_BYTES];
        struct blkif_sring sring;
    } page;
    unsigned char after[GUARD];
} memory;
#define shared  memory.page.bytes
#define indices (&memory.page.sring)

static void assert_guards(void)
{
    for (size_t i = 0; i < GUARD; i++)
        assert_true(memory.before[i] == 0xc7 && memory.after[i] == 0xc7);
}

/* Both ends of an empty ring whose indices stand at `start`. */
static void fresh(struct ring_front *f, struct ring_back *b, uint32_t start)
{
    memset(&memory, 0xc7, sizeof(memory));
    ring_front_init(f, shared, RING_BYTES, SLOT);
    f->req_prod = f->req_prod_pvt = f->rsp_cons = start;
    indices->req_prod = indices->rsp_prod = start;
    indices->req_event = indices->rsp_event = start + 1;
    ring_back_init(b, shared, RING_BYTES, SLOT, start);
}

static void send(struct ring_front *f, uint32_t count)
{
    for (struct blkif_request r = {.id = 7}; count; count--)
        ring_front_put(f, &r, sizeof(r));
    ring_front_push(f);
}

static void serve(struct ring_back *b, uint32_t count)
{
    for (struct blkif_request r; count; count--)
        ring_back_take(b, &r, sizeof(r));
}

static void answer(struct ring_back *b, uint32_t count)
{
    for (struct blkif_response r = {.id = 7}; count; count--)
        ring_back_put(b, &r, sizeof(r));
    ring_back_push(b);
}

static const uint32_t starts[] = {0, UINT32_MAX - 3, 1u << 31};

static void test_lesson_39_backend_refuses_more_requests_than_the_ring_holds(void **state)
{
    (void)state;
    struct ring_front f;
    struct ring_back b;
    for (size_t i = 0; i < ARRAY_SIZE(starts); i++)
        for (uint32_t taken = 0; taken <= ENTRIES; taken++)
            for (uint32_t answered = 0; answered <= taken; answered++)
                for (uint32_t ahead = 0; ahead < 3 * ENTRIES; ahead++) {
                    fresh(&f, &b, starts[i]);
                    send(&f, ENTRIES);
                    serve(&b, taken);
                    answer(&b, answered);
                    indices->req_prod = starts[i] + ahead;
                    uint32_t n = 99;
                    bool honest = ahead >= taken && ahead - answered <= ENTRIES;
                    assert_int_equal(ring_back_pending(&b, &n), honest ? 0 : SRING_E_OVERRUN);
                    assert_int_equal(n, honest ? ahead - taken : 99);
                }
}

static void test_frontend_refuses_more_responses_than_it_has_requests(void **state)
{
    (void)state;
    struct ring_front f;
    struct ring_back b;
    for (size_t i = 0; i < ARRAY_SIZE(starts); i++)
        for (uint32_t sent = 0; sent <= ENTRIES; sent++)
            for (uint32_t ahead = 0; ahead < 3 * ENTRIES; ahead++) {
                fresh(&f, &b, starts[i]);
                send(&f, sent);
                indices->rsp_prod = starts[i] + ahead;
                uint32_t n = 99;
                assert_int_equal(ring_front_pending(&f, &n), ahead <= sent ? 0 : SRING_E_OVERRUN);
                assert_int_equal(n, ahead <= sent ? ahead : 99);
            }
}

static void test_a_request_that_was_not_published_cannot_be_answered(void **state)
{
    (void)state;
    struct ring_front f;
    struct ring_back b;
    fresh(&f, &b, 0);
    send(&f, 2);
    struct blkif_request r = {.id = 7};
    ring_front_put(&f, &r, sizeof(r));
    indices->rsp_prod = 3;
    uint32_t n;
    assert_int_equal(ring_front_pending(&f, &n), SRING_E_OVERRUN);
    ring_front_push(&f);
    assert_int_equal(ring_front_pending(&f, &n), 0);
    assert_int_equal(n, 3);
}

static void test_producer_indices_never_move_backwards(void **state)
{
    (void)state;
    struct ring_front f;
    struct ring_back b;
    for (uint32_t back_by = 1; back_by < 100; back_by++) {
        uint32_t n = 0;
        fresh(&f, &b, 5);
        send(&f, 4);
        serve(&b, 4);
        indices->req_prod = 9 - back_by;
        assert_int_equal(ring_back_pending(&b, &n), SRING_E_OVERRUN);
        answer(&b, 4);
        assert_int_equal(ring_back_pending(&b, &n), SRING_E_OVERRUN);
        assert_int_equal(ring_front_pending(&f, &n), 0);
        struct blkif_response r;
        for (; n; n--)
            ring_front_take(&f, &r, sizeof(r));
        indices->rsp_prod = 9 - back_by;
        assert_int_equal(ring_front_pending(&f, &n), SRING_E_OVERRUN);
    }
}

/* Mostly what an honest peer could have written, at times close to it, at times anything. */
static uint32_t garbage(uint32_t near, uint64_t *seed)
{
    switch (random_next(seed) % 16) {
    case 0: return random_next(seed) << 8 ^ random_next(seed);
    case 1: return near + random_next(seed) % 24 - 6;
    default: return near + random_next(seed) % 3;
    }
}

static void scribble(uint64_t *seed, uint32_t near)
{
    for (size_t i = 0; i < RING_BYTES / 4; i++)
        memcpy(shared + i * 4, &(uint32_t){random_next(seed)}, 4);
    indices->req_prod = garbage(near, seed);
    indices->rsp_prod = garbage(near, seed);
    indices->req_event = garbage(near, seed);
    indices->rsp_event = garbage(near, seed);
}

static void test_lesson_39_backend_work_is_bounded_whatever_the_page_says(void **state)
{
    (void)state;
    uint64_t seed = 20260501;
    unsigned passes = 0, refused = 0;
    struct ring_front f;
    struct ring_back b;
    for (int life = 0; life < 3000; life++) {
        fresh(&f, &b, garbage(0, &seed));
        for (int pass = 0; pass < 20; pass++, passes++) {
            scribble(&seed, b.req_cons);
            uint32_t n, owed = b.req_cons - b.rsp_prod_pvt;
            if (ring_back_pending(&b, &n)) {
                refused++;
                break; /* abandoned for good */
            }
            assert_true(n <= ENTRIES - owed);
            serve(&b, n);
            scribble(&seed, b.req_cons);
            answer(&b, random_next(&seed) % (owed + n + 1));
            ring_back_arm(&b);
            assert_true(b.req_cons - b.rsp_prod_pvt <= ENTRIES);
            assert_guards();
        }
    }
    assert_true(refused > 100 && passes > 2 * refused); /* both ways were taken */
}

static void test_frontend_work_is_bounded_whatever_the_page_says(void **state)
{
    (void)state;
    uint64_t seed = 20260502;
    unsigned passes = 0, refused = 0;
    struct ring_front f;
    struct ring_back b;
    for (int life = 0; life < 3000; life++) {
        fresh(&f, &b, garbage(0, &seed));
        for (int pass = 0; pass < 20; pass++, passes++) {
            scribble(&seed, f.rsp_cons);
            send(&f, random_next(&seed) % (ring_front_room(&f) + 1));
            scribble(&seed, f.rsp_cons);
            uint32_t n, outstanding = f.req_prod - f.rsp_cons;
            if (ring_front_pending(&f, &n)) {
                refused++;
                break;
            }
            assert_true(n <= outstanding);
            for (struct blkif_response r; n; n--)
                ring_front_take(&f, &r, sizeof(r));
            ring_front_arm(&f);
            assert_true(ring_front_room(&f) <= ENTRIES);
            assert_guards();
        }
    }
    assert_true(refused > 100 && passes > 2 * refused);
}

static void test_event_words_decide_about_notifications_only(void **state)
{
    (void)state;
    uint64_t seed = 20260503;
    struct ring_front f;
    struct ring_back b;
    for (int step = 0; step < 5000; step++) {
        uint32_t start = garbage(0, &seed), event = garbage(start, &seed);
        fresh(&f, &b, start);
        indices->req_event = indices->rsp_event = event;
        send(&f, 3);
        uint32_t n;
        assert_int_equal(ring_back_pending(&b, &n), 0);
        assert_int_equal(n, 3);
        serve(&b, n);
        answer(&b, n);
        assert_int_equal(ring_front_pending(&f, &n), 0);
        assert_int_equal(n, 3);
        assert_int_equal(indices->req_prod, start + 3);
        assert_int_equal(indices->rsp_prod, start + 3);
        assert_int_equal(indices->req_event, event); /* the consumer's word: a producer never writes it */
        assert_int_equal(indices->rsp_event, event);
    }
}

/* Each end's own producer word lies in shared memory as well: the peer may spoil it, and only itself with it. */
static void test_nobody_reads_back_what_it_published(void **state)
{
    (void)state;
    struct ring_front f;
    struct ring_back b;
    fresh(&f, &b, 0);
    send(&f, 2);
    serve(&b, 2);
    indices->req_prod = 0xdeadbeef;
    indices->rsp_prod = 0xfeedface;
    indices->req_event = 4;
    indices->rsp_event = 2;
    struct blkif_request r = {.id = 7};
    ring_front_put(&f, &r, sizeof(r));
    assert_false(ring_front_push(&f)); /* 2 → 3 does not cross 4 */
    assert_int_equal(indices->req_prod, 3);
    struct blkif_response a = {.id = 7};
    ring_back_put(&b, &a, sizeof(a));
    assert_false(ring_back_push(&b)); /* 0 → 1 does not cross 2 */
    ring_back_put(&b, &a, sizeof(a));
    assert_true(ring_back_push(&b));
    assert_int_equal(indices->rsp_prod, 2);
}

static void test_an_end_never_sleeps_on_a_garbage_index(void **state)
{
    (void)state;
    struct ring_front f;
    struct ring_back b;
    uint64_t seed = 20260504;
    for (int step = 0; step < 1000; step++) {
        fresh(&f, &b, 0);
        uint32_t n, bad = ENTRIES + 1 + random_next(&seed) % (UINT32_MAX / 2);
        indices->req_prod = indices->rsp_prod = bad;
        assert_true(ring_back_arm(&b));
        assert_int_equal(ring_back_pending(&b, &n), SRING_E_OVERRUN);
        assert_true(ring_front_arm(&f));
        assert_int_equal(ring_front_pending(&f, &n), SRING_E_OVERRUN);
    }
}

/* A backend that reconnects begins where the page says: that, too, is the peer's word. */
static void test_a_garbage_start_of_a_reconnect_is_harmless(void **state)
{
    (void)state;
    uint64_t seed = 20260505;
    struct ring_front f;
    struct ring_back b;
    for (int step = 0; step < 5000; step++) {
        fresh(&f, &b, 0);
        scribble(&seed, 1u << 30);
        ring_back_init(&b, shared, RING_BYTES, SLOT, ring_get(&b.ring, rsp_prod));
        uint32_t n;
        if (ring_back_pending(&b, &n))
            continue;
        assert_true(n <= ENTRIES);
        serve(&b, n);
        answer(&b, n);
        assert_guards();
    }
}

static void test_lesson_155_a_slot_rewritten_after_take_changes_nothing(void **state)
{
    (void)state;
    const struct blkreq_limits disk = {.capacity_sectors = 1000, .sector_bytes = 512};
    struct ring_front f;
    struct ring_back b;
    fresh(&f, &b, 0);
    struct blkreq in = {.id = 42, .operation = BLKIF_OP_READ, .segment_count = 1, .sector = 10};
    in.segment[0] = (struct blkreq_segment){.gref = 9, .first_sector = 0, .last_sector = 7};
    unsigned char slot[SLOT] = {0}, before[SLOT]; /* of which encode writes what is used */
    blkreq_encode(&blk_protocol_native, &in, slot);
    ring_front_put(&f, slot, SLOT);
    ring_front_push(&f);

    ring_back_take(&b, slot, SLOT);
    memcpy(before, slot, SLOT);
    memset(ring_slot(&b.ring, 0), 0xff, SLOT); /* between the fetch and the check: 255 segments, operation 255 */
    assert_memory_equal(slot, before, SLOT);
    struct blkreq out;
    assert_int_equal(blkreq_decode(&blk_protocol_native, slot, &disk, &out), 0);
    memset(slot, 0xff, SLOT); /* and what was decoded does not point back into the copy either */
    assert_true(out.id == 42 && out.sector == 10 && out.sector_count == 8 && out.segment_count == 1);
    assert_int_equal(out.segment[0].gref, 9);
}

static void test_lesson_155_a_response_rewritten_after_take_changes_nothing(void **state)
{
    (void)state;
    struct ring_front f;
    struct ring_back b;
    fresh(&f, &b, 0);
    send(&f, 1);
    serve(&b, 1);
    answer(&b, 1);
    struct blkif_response r;
    ring_front_take(&f, &r, sizeof(r));
    memset(ring_slot(&f.ring, 0), 0xff, SLOT);
    assert_true(r.id == 7 && r.status == BLKIF_RSP_OKAY);
}

/* What a response leaves in its slot: its fields, zeroes, and behind it what the guest itself had written. */
static void test_lesson_216_a_response_brings_nothing_of_ours_into_the_ring(void **state)
{
    (void)state;
    static const char *const keys[] = {"x86_64-abi", "x86_32-abi"};
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        const struct blk_protocol *row = blk_protocol_find(keys[i]);
        struct ring_back b;
        unsigned char request[SLOT], response[SLOT];
        memset(shared, 0x5a, RING_BYTES);
        ring_back_init(&b, shared, RING_BYTES, row->slot_bytes, 0);
        ring_back_take(&b, request, row->request_bytes);
        memset(response, 0xee, sizeof(response)); /* what may lie around on a stack */
        blkreq_encode_response(row, 0x0102030405060708, BLKIF_OP_WRITE, BLKIF_RSP_ERROR, response);
        ring_back_put(&b, response, row->response_bytes);
        const unsigned char *slot = ring_slot(&b.ring, 0);
        assert_memory_equal(slot, "\x08\x07\x06\x05\x04\x03\x02\x01\x01\0\xff\xff\0\0\0\0", row->response_bytes);
        for (size_t at = row->response_bytes; at < row->slot_bytes; at++)
            assert_int_equal(slot[at], 0x5a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lesson_39_backend_refuses_more_requests_than_the_ring_holds),
        cmocka_unit_test(test_frontend_refuses_more_responses_than_it_has_requests),
        cmocka_unit_test(test_a_request_that_was_not_published_cannot_be_answered),
        cmocka_unit_test(test_producer_indices_never_move_backwards),
        cmocka_unit_test(test_lesson_39_backend_work_is_bounded_whatever_the_page_says),
        cmocka_unit_test(test_frontend_work_is_bounded_whatever_the_page_says),
        cmocka_unit_test(test_event_words_decide_about_notifications_only),
        cmocka_unit_test(test_nobody_reads_back_what_it_published),
        cmocka_unit_test(test_an_end_never_sleeps_on_a_garbage_index),
        cmocka_unit_test(test_a_garbage_start_of_a_reconnect_is_harmless),
        cmocka_unit_test(test_lesson_155_a_slot_rewritten_after_take_changes_nothing),
        cmocka_unit_test(test_lesson_155_a_response_rewritten_after_take_changes_nothing),
        cmocka_unit_test(test_lesson_216_a_response_brings_nothing_of_ours_into_the_ring),
    };
    return cmocka_run_group_tests_name("ring_hostile", tests, NULL, NULL);
}
