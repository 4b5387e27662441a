/* SPDX-License-Identifier: MIT */
/* ring/ring.h is Xen's ring: whatever seeded script drives them, our accessors and the macros of <xen/io/ring.h> leave
 * the same bytes in the page, count the same entries and ask for the same events. Two pages are driven side by side,
 * one by each implementation; then one page by one of each. Rings begin at index 0 and just below 2^32.
 *
 * Both implementations stand behind the same small table, so a script cannot favour one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "ring/ring.h"
#include "tests/random.h"

enum { STEPS = 5000 };
static const uint32_t starts[] = {0, UINT32_MAX, UINT32_MAX - 5, UINT32_MAX - 1000, 1u << 31};

union page {
    unsigned char bytes[4 * PAGE_BYTES];
    struct blkif_sring sring;
};

/* One end of a ring; room and pending are for the front the free slots and the responses, for the back the answers
 * that are owed and the requests. */
union end {
    struct ring_front front;
    struct ring_back back;
    struct blkif_front_ring xen_front;
    struct blkif_back_ring xen_back;
};

struct end_ops {
    void (*attach)(union end *e, union page *p, size_t bytes, uint32_t start);
    uint32_t (*room)(union end *e);
    uint32_t (*pending)(union end *e);
    void (*put)(union end *e, const struct blkif_request *message); /* a response is the head of it */
    bool (*push)(union end *e);
    void (*take)(union end *e, struct blkif_request *message);
    bool (*arm)(union end *e); /* asked for only when nothing is pending */
};

/* ---- ours ---- */

static void our_front_attach(union end *e, union page *p, size_t bytes, uint32_t start)
{
    e->front = (struct ring_front){.ring = {p->bytes, ring_entries(bytes, sizeof(struct blkif_request)), 112},
                                   .req_prod_pvt = start,
                                   .req_prod = start,
                                   .rsp_cons = start};
}

static uint32_t our_front_room(union end *e)
{
    return ring_front_room(&e->front);
}

static uint32_t our_front_pending(union end *e)
{
    uint32_t n = 0;
    assert_int_equal(ring_front_pending(&e->front, &n), 0);
    return n;
}

static void our_front_put(union end *e, const struct blkif_request *m)
{
    ring_front_put(&e->front, m, sizeof(*m));
}

static bool our_front_push(union end *e)
{
    return ring_front_push(&e->front);
}

static void our_front_take(union end *e, struct blkif_request *m)
{
    ring_front_take(&e->front, m, sizeof(struct blkif_response));
}

static bool our_front_arm(union end *e)
{
    return ring_front_arm(&e->front);
}

static void our_back_attach(union end *e, union page *p, size_t bytes, uint32_t start)
{
    ring_back_init(&e->back, p->bytes, bytes, sizeof(struct blkif_request), start);
}

static uint32_t our_back_room(union end *e)
{
    return e->back.req_cons - e->back.rsp_prod_pvt;
}

static uint32_t our_back_pending(union end *e)
{
    uint32_t n = 0;
    assert_int_equal(ring_back_pending(&e->back, &n), 0);
    return n;
}

static void our_back_put(union end *e, const struct blkif_request *m)
{
    ring_back_put(&e->back, m, sizeof(struct blkif_response));
}

static bool our_back_push(union end *e)
{
    return ring_back_push(&e->back);
}

static void our_back_take(union end *e, struct blkif_request *m)
{
    ring_back_take(&e->back, m, sizeof(*m));
}

static bool our_back_arm(union end *e)
{
    return ring_back_arm(&e->back);
}

/* ---- Xen's ---- */

static void xen_front_attach(union end *e, union page *p, size_t bytes, uint32_t start)
{
    FRONT_RING_ATTACH(&e->xen_front, &p->sring, start, bytes);
}

static uint32_t xen_front_room(union end *e)
{
    return RING_FREE_REQUESTS(&e->xen_front);
}

static uint32_t xen_front_pending(union end *e)
{
    assert_false(RING_RESPONSE_PROD_OVERFLOW(&e->xen_front, e->xen_front.sring->rsp_prod));
    return RING_HAS_UNCONSUMED_RESPONSES(&e->xen_front);
}

static void xen_front_put(union end *e, const struct blkif_request *m)
{
    *RING_GET_REQUEST(&e->xen_front, e->xen_front.req_prod_pvt++) = *m;
}

static bool xen_front_push(union end *e)
{
    bool notify;
    RING_PUSH_REQUESTS_AND_CHECK_NOTIFY(&e->xen_front, notify);
    return notify;
}

static void xen_front_take(union end *e, struct blkif_request *m)
{
    RING_COPY_RESPONSE(&e->xen_front, e->xen_front.rsp_cons++, (struct blkif_response *)(void *)m);
}

static bool xen_front_arm(union end *e)
{
    unsigned more;
    RING_FINAL_CHECK_FOR_RESPONSES(&e->xen_front, more);
    return more;
}

static void xen_back_attach(union end *e, union page *p, size_t bytes, uint32_t start)
{
    BACK_RING_ATTACH(&e->xen_back, &p->sring, start, bytes);
}

static uint32_t xen_back_room(union end *e)
{
    return e->xen_back.req_cons - e->xen_back.rsp_prod_pvt;
}

static uint32_t xen_back_pending(union end *e)
{
    assert_false(RING_REQUEST_PROD_OVERFLOW(&e->xen_back, e->xen_back.sring->req_prod));
    return RING_HAS_UNCONSUMED_REQUESTS(&e->xen_back);
}

static void xen_back_put(union end *e, const struct blkif_request *m)
{
    memcpy(RING_GET_RESPONSE(&e->xen_back, e->xen_back.rsp_prod_pvt++), m, sizeof(struct blkif_response));
}

static bool xen_back_push(union end *e)
{
    bool notify;
    RING_PUSH_RESPONSES_AND_CHECK_NOTIFY(&e->xen_back, notify);
    return notify;
}

static void xen_back_take(union end *e, struct blkif_request *m)
{
    RING_COPY_REQUEST(&e->xen_back, e->xen_back.req_cons++, m);
}

static bool xen_back_arm(union end *e)
{
    unsigned more;
    RING_FINAL_CHECK_FOR_REQUESTS(&e->xen_back, more);
    return more;
}

#define END_OPS(prefix)                                                                                     \
    {                                                                                                       \
        .attach = prefix##_attach, .room = prefix##_room, .pending = prefix##_pending, .put = prefix##_put, \
        .push = prefix##_push, .take = prefix##_take, .arm = prefix##_arm                                   \
    }
static const struct end_ops our_front = END_OPS(our_front), our_back = END_OPS(our_back);
static const struct end_ops xen_front = END_OPS(xen_front), xen_back = END_OPS(xen_back);

/* ---- the script ---- */

/* A page with its two ends, each under one of the implementations. */
struct rig {
    const struct end_ops *ops[2]; /* front, back */
    union end end[2];
    union page page;
};

/* A page as it is after `start` requests and responses; initialised by one implementation. */
static void rig_init(struct rig *r, const struct end_ops *front, const struct end_ops *back, size_t bytes,
                     uint32_t start)
{
    memset(r, 0, sizeof(*r));
    r->ops[0] = front;
    r->ops[1] = back;
    if (front == &our_front) {
        struct ring_front f;
        ring_front_init(&f, r->page.bytes, bytes, sizeof(struct blkif_request));
    } else {
        SHARED_RING_INIT(&r->page.sring);
    }
    if (start) {
        r->page.sring.req_prod = r->page.sring.rsp_prod = start;
        r->page.sring.req_event = r->page.sring.rsp_event = start + 1;
    }
    for (int side = 0; side < 2; side++)
        r->ops[side]->attach(&r->end[side], &r->page, bytes, start);
}

static void fill(struct blkif_request *m, uint64_t *seed)
{
    memset(m, 0, sizeof(*m));
    for (size_t i = 0; i < sizeof(*m); i += 4)
        memcpy((unsigned char *)m + i, &(uint32_t){random_next(seed)}, 4);
}

/* One action of one end of one rig; the result is what the other rig must answer too. */
static uint64_t act(struct rig *r, int side, unsigned action, const struct blkif_request *m)
{
    const struct end_ops *ops = r->ops[side];
    union end *e = &r->end[side];
    struct blkif_request taken;
    uint64_t sum = 20;
    memset(&taken, 0, sizeof(taken));
    switch (action) {
    case 0:
        if (!ops->room(e))
            return 0;
        ops->put(e, m);
        return 1;
    case 1: return ops->push(e) + 10u;
    case 2:
        do { /* one, or all that there are: only then can the end arm itself */
            if (!ops->pending(e))
                return sum;
            ops->take(e, &taken);
            sum = sum * 31 + taken.id * 7 + taken.operation; /* both lie within a response, too */
        } while (m->nr_segments & 1);
        return sum;
    case 3: return ops->pending(e) ? 30 : 31u + ops->arm(e);
    default: return ops->room(e) * 1000ull + ops->pending(e);
    }
}

static void drive(struct rig *a, struct rig *b, uint64_t seed)
{
    unsigned notified = 0, held_off = 0;
    for (int step = 0; step < STEPS; step++) {
        static const unsigned char weights[] = {0, 0, 0, 1, 2, 2, 3, 3, 4};
        int side = (int)(random_next(&seed) & 1);
        unsigned action = weights[random_next(&seed) % sizeof(weights)];
        struct blkif_request m;
        fill(&m, &seed);
        uint64_t one = act(a, side, action, &m), two = act(b, side, action, &m);
        assert_true(one == two);
        assert_int_equal(memcmp(a->page.bytes, b->page.bytes, sizeof(a->page.bytes)), 0); /* cmocka goes byte by byte */
        notified += action == 1 && one == 11;
        held_off += action == 1 && one == 10;
    }
    assert_true(notified > STEPS / 200 && held_off > STEPS / 200); /* the script reaches both answers */
}

static void check_pair(const struct end_ops *front, const struct end_ops *back)
{
    static struct rig a, b;
    for (size_t i = 0; i < ARRAY_SIZE(starts); i++)
        for (size_t order = 0; order < 3; order++) {
            rig_init(&a, front, back, PAGE_BYTES << order, starts[i]);
            rig_init(&b, &xen_front, &xen_back, PAGE_BYTES << order, starts[i]);
            drive(&a, &b, 20260301 + i * 7 + order);
        }
}

static void test_ring_equals_xens_macros_step_by_step(void **state)
{
    (void)state;
    check_pair(&our_front, &our_back);
}

static void test_our_front_works_with_a_xen_back_on_one_page(void **state)
{
    (void)state;
    check_pair(&our_front, &xen_back);
}

static void test_our_back_works_with_a_xen_front_on_one_page(void **state)
{
    (void)state;
    check_pair(&xen_front, &our_back);
}

static void test_a_new_ring_is_the_page_that_xen_initialises(void **state)
{
    (void)state;
    for (size_t order = 0; order < 3; order++) {
        static union page ours, theirs;
        struct ring_front f;
        struct ring_back back;
        struct blkif_front_ring xf;
        memset(&ours, 0xa5, sizeof(ours));
        memset(&theirs, 0, sizeof(theirs));
        memset(theirs.bytes + (PAGE_BYTES << order), 0xa5, sizeof(theirs) - (PAGE_BYTES << order));
        ring_front_init(&f, ours.bytes, PAGE_BYTES << order, sizeof(struct blkif_request));
        XEN_FRONT_RING_INIT(&xf, &theirs.sring, PAGE_BYTES << order);
        ring_back_init(&back, ours.bytes, PAGE_BYTES << order, sizeof(struct blkif_request), 0);
        assert_memory_equal(&ours, &theirs, sizeof(ours));
        assert_int_equal(f.ring.entries, RING_SIZE(&xf));
        assert_int_equal(back.ring.entries, RING_SIZE(&xf));
        assert_int_equal(f.ring.entries, 32u << order);
    }
}

static void test_entry_counts_are_xens_for_every_size(void **state)
{
    (void)state;
    for (size_t bytes = SRING_HEADER_BYTES + sizeof(struct blkif_request); bytes <= 16 * PAGE_BYTES; bytes++) {
        assert_int_equal(ring_entries(bytes, sizeof(union blkif_sring_entry)), __CONST_RING_SIZE(blkif, bytes));
    }
    assert_int_equal(ring_entries(SRING_HEADER_BYTES + 111, 112), 0);
    assert_int_equal(ring_entries(0, 112), 0);
}

static void test_hold_off_arithmetic_is_xens_at_the_wrap(void **state)
{
    (void)state;
    for (uint32_t base = UINT32_MAX - 40; base != 40; base++)
        for (uint32_t pushed = 0; pushed <= 32; pushed++)
            for (uint32_t event = base - 34; event != base + 67; event++) {
                bool crossed = false; /* said slowly: is `event` one of base+1 … base+pushed? */
                for (uint32_t i = 1; i <= pushed; i++)
                    crossed |= base + i == event;
                assert_true(ring_must_notify(base + pushed, base, event) == crossed);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_new_ring_is_the_page_that_xen_initialises),
        cmocka_unit_test(test_entry_counts_are_xens_for_every_size),
        cmocka_unit_test(test_hold_off_arithmetic_is_xens_at_the_wrap),
        cmocka_unit_test(test_ring_equals_xens_macros_step_by_step),
        cmocka_unit_test(test_our_front_works_with_a_xen_back_on_one_page),
        cmocka_unit_test(test_our_back_works_with_a_xen_front_on_one_page),
    };
    return cmocka_run_group_tests_name("ring_equivalence", tests, NULL, NULL);
}
