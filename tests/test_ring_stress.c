/* SPDX-License-Identifier: MIT */
/* Two threads, real event channels, blocking waits: a few hundred thousand requests go through small rings and every
 * one comes back, in order, with its content. Both ends sleep whenever they have nothing to do, so a single lost
 * wake-up stops the program; a wait that lasts WATCHDOG_MS is taken for that. The indices begin just below 2^32. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <pthread.h>

#include "ring/ring.h"
#include "tests/random.h"
#include "tests/test_ring_channel.h"

enum { REQUESTS = 350000, WATCHDOG_MS = 30000 };

/* One end's thread. cmocka's asserts only work in the main thread: a thread says in `wrong` what it saw. */
struct stress {
    struct ring_front front;
    struct ring_back back;
    struct evtchn front_channel, back_channel;
    uint32_t requests;
    _Atomic bool stop; /* one side failed: the other one need not wait for the watchdog */
    const char *front_wrong, *back_wrong;
    uint32_t front_sleeps, back_sleeps;
    uint32_t front_notifies, back_notifies;
};

static struct blkif_request request_of(uint32_t n)
{
    struct blkif_request r;
    memset(&r, (int)(n & 0x7f), sizeof(r));
    r.id = n;
    return r;
}

static const char *sleep_on(struct stress *s, struct evtchn *ch)
{
    if (evtchn_wait(ch, WATCHDOG_MS))
        return "no event came: a wake-up was lost";
    return s->stop ? "the other side failed" : NULL;
}

/* Takes and checks what is there; NULL or what is wrong. */
static const char *front_take(struct stress *s, uint32_t *received)
{
    uint32_t count;
    if (ring_front_pending(&s->front, &count))
        return "the response index is out of bounds";
    for (; count; count--) {
        struct blkif_response r;
        ring_front_take(&s->front, &r, sizeof(r));
        if (r.id != *received || r.status != (int16_t)*received)
            return "a response is not the one that was due";
        (*received)++;
    }
    return NULL;
}

static void *front_run(void *arg)
{
    struct stress *s = arg;
    uint64_t seed = 20260401;
    uint32_t sent = 0, received = 0;
    while (received < s->requests && !s->front_wrong) {
        uint32_t room = MIN(ring_front_room(&s->front), s->requests - sent);
        for (uint32_t n = room ? 1 + random_next(&seed) % room : 0; n; n--) {
            struct blkif_request r = request_of(sent++);
            ring_front_put(&s->front, &r, sizeof(r));
        }
        if (room && ring_front_push(&s->front)) {
            s->front_notifies++;
            evtchn_notify(&s->front_channel);
        }
        if ((s->front_wrong = front_take(s, &received)) || received == s->requests)
            break;
        if (received == sent || (room && random_next(&seed) % 2))
            continue; /* nothing is outstanding that could wake it; or at times it just goes on */
        if (!ring_front_arm(&s->front)) {
            s->front_sleeps++;
            s->front_wrong = sleep_on(s, &s->front_channel);
        }
    }
    s->stop = true;
    evtchn_notify(&s->front_channel);
    return NULL;
}

/* Takes some of what is there and answers it; NULL or what is wrong. */
static const char *back_serve(struct stress *s, uint64_t *seed, uint32_t *served)
{
    uint32_t count;
    if (ring_back_pending(&s->back, &count))
        return "the request index is out of bounds";
    for (uint32_t n = count ? 1 + random_next(seed) % count : 0; n; n--) {
        struct blkif_request r, expected = request_of((*served)++);
        ring_back_take(&s->back, &r, sizeof(r));
        if (memcmp(&r, &expected, sizeof(r)))
            return "a request is not the one that was due";
        struct blkif_response answer = {.id = r.id, .operation = r.operation, .status = (int16_t)r.id};
        ring_back_put(&s->back, &answer, sizeof(answer));
    }
    if (count && ring_back_push(&s->back)) {
        s->back_notifies++;
        evtchn_notify(&s->back_channel);
    }
    return NULL;
}

static void *back_run(void *arg)
{
    struct stress *s = arg;
    uint64_t seed = 20260402;
    uint32_t served = 0;
    while (!s->stop && !s->back_wrong) {
        uint32_t count = 0;
        s->back_wrong = back_serve(s, &seed, &served);
        if (s->back_wrong || ring_back_pending(&s->back, &count) || count || ring_back_arm(&s->back))
            continue;
        s->back_sleeps++;
        s->back_wrong = sleep_on(s, &s->back_channel);
        if (s->stop)
            s->back_wrong = NULL; /* the frontend's last event says: done */
    }
    s->stop = true;
    evtchn_notify(&s->back_channel);
    return NULL;
}

static void run(uint32_t entries)
{
    static _Alignas(64) unsigned char shared[PAGE_BYTES];
    static struct stress s;
    memset(&s, 0, sizeof(s));
    const size_t bytes = SRING_HEADER_BYTES + entries * sizeof(struct blkif_request);
    const uint32_t start = UINT32_MAX - REQUESTS / 2;
    channel_open(&s.front_channel, &s.back_channel);
    ring_front_init(&s.front, shared, bytes, sizeof(struct blkif_request));
    s.front.req_prod_pvt = s.front.req_prod = s.front.rsp_cons = start;
    ring_set(&s.front.ring, req_prod, start);
    ring_set(&s.front.ring, rsp_prod, start);
    ring_set(&s.front.ring, req_event, start + 1);
    ring_set(&s.front.ring, rsp_event, start + 1);
    ring_back_init(&s.back, shared, bytes, sizeof(struct blkif_request), start);
    assert_int_equal(s.front.ring.entries, entries);
    s.requests = REQUESTS;

    pthread_t front, back;
    assert_int_equal(pthread_create(&back, NULL, back_run, &s), 0);
    assert_int_equal(pthread_create(&front, NULL, front_run, &s), 0);
    pthread_join(front, NULL);
    pthread_join(back, NULL);
    print_message("    %u entries: front slept %u times, back %u; they notified %u and %u times\n", entries,
                  s.front_sleeps, s.back_sleeps, s.front_notifies, s.back_notifies);
    if (s.front_wrong || s.back_wrong)
        fail_msg("front: %s; back: %s", s.front_wrong ? s.front_wrong : "-", s.back_wrong ? s.back_wrong : "-");
    assert_int_equal(s.front.rsp_cons, start + REQUESTS);
    assert_int_equal(s.back.rsp_prod, start + REQUESTS);
    assert_true(s.front_sleeps && s.back_sleeps);
    channel_close(&s.front_channel, &s.back_channel);
}

static void test_two_threads_lose_no_wakeup_on_8_entries(void **state)
{
    (void)state;
    run(8);
}

static void test_two_threads_lose_no_wakeup_on_16_entries(void **state)
{
    (void)state;
    run(16);
}

static void test_two_threads_lose_no_wakeup_on_32_entries(void **state)
{
    (void)state;
    run(32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_threads_lose_no_wakeup_on_8_entries),
        cmocka_unit_test(test_two_threads_lose_no_wakeup_on_16_entries),
        cmocka_unit_test(test_two_threads_lose_no_wakeup_on_32_entries),
    };
    return cmocka_run_group_tests_name("ring_stress", tests, NULL, NULL);
}
