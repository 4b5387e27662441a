/* SPDX-License-Identifier: MIT */
/* A ring page as a transport, over memory of this process: what goes through it comes out as it went in, and a guest
 * that writes anything anywhere into its page gets its own connection ended and nothing more. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "store/ring.h"
#include "tests/random.h"

struct scene {
    struct store_ring ring;
    struct store_transport *t;
    struct xenstore_domain_interface *page;
    unsigned notified, consumed, released, died;
    uint32_t guest_prod, guest_cons; /* the guest's own memory of its two indexes */
};

static void on_notify(void *ctx)
{
    ((struct scene *)ctx)->notified++;
}

static void on_consume(void *ctx)
{
    ((struct scene *)ctx)->consumed++;
}

static void on_release(void *ctx)
{
    ((struct scene *)ctx)->released++;
}

static void on_died(struct store_ring *r)
{
    container_of(r, struct scene, ring)->died++;
}

static int setup(void **state)
{
    struct scene *s = calloc(1, sizeof(*s));
    s->page = calloc(1, sizeof(*s->page));
    const struct store_ring_link link = {
        .page = s->page, .fd = -1, .notify = on_notify, .consume = on_consume, .release = on_release, .ctx = s};
    store_ring_init(&s->ring, &link);
    s->ring.died = on_died;
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    struct scene *s = *state;
    if (s->ring.connected)
        s->t->ops->close(s->t, 0);
    store_ring_deinit(&s->ring);
    assert_int_equal(s->released, 1);
    free(s->page);
    free(s);
    return 0;
}

static void connect_it(struct scene *s)
{
    s->t = store_ring_connect(&s->ring);
    s->guest_prod = s->guest_cons = 0;
}

/* An honest guest: as much as fits. */
static size_t guest_write(struct scene *s, const char *bytes, size_t length)
{
    size_t room = XENSTORE_RING_SIZE - (s->guest_prod - s->page->req_cons), n = MIN(length, room);
    for (size_t i = 0; i < n; i++)
        s->page->req[MASK_XENSTORE_IDX(s->guest_prod++)] = bytes[i];
    s->page->req_prod = s->guest_prod;
    return n;
}

static size_t guest_read(struct scene *s, char *out, size_t room)
{
    size_t n = MIN((size_t)(s->page->rsp_prod - s->guest_cons), room);
    for (size_t i = 0; i < n; i++)
        out[i] = s->page->rsp[MASK_XENSTORE_IDX(s->guest_cons++)];
    s->page->rsp_cons = s->guest_cons;
    return n;
}

static ssize_t receive(struct scene *s, void *out, size_t room)
{
    return s->t->ops->receive(s->t, out, room);
}

static ssize_t send1(struct scene *s, const void *bytes, size_t length)
{
    const struct iovec iov = {(void *)bytes, length};
    return s->t->ops->send(s->t, &iov, 1);
}

static void test_connecting_empties_both_queues_and_says_what_is_offered(void **state)
{
    struct scene *s = *state;
    memset(s->page, 0xa5, sizeof(*s->page));
    connect_it(s);
    assert_int_equal(s->page->req_cons, s->page->req_prod);
    assert_int_equal(s->page->rsp_cons, s->page->rsp_prod);
    assert_int_equal(s->page->connection, XENSTORE_CONNECTED);
    assert_int_equal(s->page->error, XENSTORE_ERROR_NONE);
    assert_int_equal(s->page->server_features, XENSTORE_SERVER_FEATURE_RECONNECTION | XENSTORE_SERVER_FEATURE_ERROR);
    assert_int_equal(s->notified, 1);
    char byte;
    assert_int_equal(receive(s, &byte, 1), -EAGAIN);
}

static void test_bytes_come_out_as_they_went_in_around_every_wrap(void **state)
{
    struct scene *s = *state;
    uint64_t seed = 7;
    char in[3000], out[3000];
    size_t written = 0, read = 0, total = 200000;
    connect_it(s);
    s->ring.req_cons = s->page->req_cons = s->page->req_prod = s->guest_prod = 0xffffff00u; /* the index wraps, too */
    while (read < total) {
        size_t length = MIN(random_next(&seed) % 2000, total - written);
        for (size_t i = 0; i < length; i++)
            in[i] = (char)((written + i) * 31 >> 3);
        written += guest_write(s, in, length);
        size_t room = 1 + random_next(&seed) % sizeof(out);
        ssize_t n = receive(s, out, room);
        if (n < 0)
            assert_int_equal(n, -EAGAIN);
        for (ssize_t i = 0; i < n; i++)
            assert_int_equal(out[i], (char)((read + (size_t)i) * 31 >> 3));
        read += n > 0 ? (size_t)n : 0;
    }
    assert_int_equal(written, read);
}

static void test_answers_arrive_in_order_whatever_the_pieces(void **state)
{
    struct scene *s = *state;
    uint64_t seed = 8;
    char bytes[4096], out[1500];
    size_t sent = 0, read = 0, total = 200000;
    connect_it(s);
    s->ring.rsp_prod = s->page->rsp_prod = s->page->rsp_cons = s->guest_cons = 0xfffffe01u;
    while (read < total) {
        size_t length = MIN(random_next(&seed) % sizeof(bytes), total - sent);
        for (size_t i = 0; i < length; i++)
            bytes[i] = (char)((sent + i) * 17 >> 2);
        size_t cut = length ? random_next(&seed) % length : 0;
        const struct iovec iov[3] = {{bytes, cut}, {bytes, 0}, {bytes + cut, length - cut}};
        ssize_t n = s->t->ops->send(s->t, iov, 3);
        if (n < 0)
            assert_int_equal(n, -EAGAIN);
        if (n >= 0 && (size_t)n < length) /* who tells only of a full queue is told */
            assert_int_equal(s->page->rsp_prod - s->page->rsp_cons, XENSTORE_RING_SIZE);
        sent += n > 0 ? (size_t)n : 0;
        size_t got = guest_read(s, out, 1 + random_next(&seed) % sizeof(out));
        for (size_t i = 0; i < got; i++)
            assert_int_equal(out[i], (char)((read + i) * 17 >> 2));
        read += got;
    }
    assert_int_equal(sent, read);
}

static void test_the_guest_is_told_once_for_what_was_taken_and_answered(void **state)
{
    struct scene *s = *state;
    char buffer[100];
    connect_it(s);
    unsigned before = s->notified;
    guest_write(s, "request", 7);
    assert_int_equal(receive(s, buffer, sizeof(buffer)), 7);
    assert_int_equal(s->notified, before);
    assert_int_equal(send1(s, "answer", 6), 6);
    assert_int_equal(s->notified, before + 1);
    assert_int_equal(receive(s, buffer, sizeof(buffer)), -EAGAIN);
    s->t->ops->turn_over(s->t);
    assert_int_equal(s->notified, before + 1);
    guest_write(s, "half", 4); /* nothing to answer: it must hear of the room nevertheless */
    assert_int_equal(receive(s, buffer, sizeof(buffer)), 4);
    assert_int_equal(receive(s, buffer, sizeof(buffer)), -EAGAIN);
    assert_int_equal(s->notified, before + 1);
    s->t->ops->turn_over(s->t);
    assert_int_equal(s->notified, before + 2);
    s->t->ops->acknowledge(s->t);
    assert_int_equal(s->consumed, 1);
}

static void test_a_full_queue_of_answers_takes_no_more_until_the_guest_has_read(void **state)
{
    struct scene *s = *state;
    char bytes[2000], out[2000];
    memset(bytes, 'x', sizeof(bytes));
    connect_it(s);
    assert_int_equal(send1(s, bytes, sizeof(bytes)), XENSTORE_RING_SIZE);
    assert_int_equal(send1(s, bytes, 1), -EAGAIN);
    assert_int_equal(guest_read(s, out, 10), 10);
    assert_int_equal(send1(s, bytes, sizeof(bytes)), 10);
    assert_int_equal(send1(s, bytes, 1), -EAGAIN);
}

static void test_an_index_that_cannot_be_stops_the_ring_with_that_error(void **state)
{
    struct scene *s = *state;
    static const uint32_t far[] = {1025, 2048, 0x7fffffff, 0x80000000, 0xffffffff};
    char buffer[100];
    for (size_t i = 0; i < ARRAY_SIZE(far); i++) {
        connect_it(s);
        s->page->req_prod = far[i];
        assert_int_equal(receive(s, buffer, sizeof(buffer)), -EPROTO);
        assert_int_equal(s->page->req_cons, 0);
        s->t->ops->close(s->t, -EPROTO);
        assert_int_equal(s->page->error, XENSTORE_ERROR_RINGIDX);
        connect_it(s);
        assert_int_equal(s->page->error, XENSTORE_ERROR_NONE);
        s->page->rsp_cons = far[i] == 0xffffffff ? 1 : far[i]; /* -1 is one byte behind: of 0 ones, one was read */
        assert_int_equal(send1(s, "x", 1), -EPROTO);
        s->t->ops->close(s->t, -EPROTO);
        assert_int_equal(s->page->error, XENSTORE_ERROR_RINGIDX);
    }
    assert_int_equal(s->died, 2 * ARRAY_SIZE(far));
}

static void test_our_indexes_are_not_the_guest_s_to_move(void **state)
{
    struct scene *s = *state;
    char buffer[100];
    connect_it(s);
    assert_int_equal(send1(s, "one", 3), 3);
    guest_write(s, "two", 3);
    s->page->req_cons = 0xdeadbeef;
    s->page->rsp_prod = 0xdeadbeef;
    assert_int_equal(receive(s, buffer, sizeof(buffer)), 3);
    assert_memory_equal(buffer, "two", 3);
    assert_int_equal(send1(s, "three", 5), 5);
    assert_int_equal(s->page->req_cons, 3);
    assert_int_equal(s->page->rsp_prod, 8);
    assert_int_equal(guest_read(s, buffer, sizeof(buffer)), 8);
    assert_memory_equal(buffer, "onethree", 8);
}

static void test_the_end_of_a_connection_says_why(void **state)
{
    struct scene *s = *state;
    static const struct {
        int error;
        uint32_t word;
    } ends[] = {{0, XENSTORE_ERROR_COMM},
                {-ENOMEM, XENSTORE_ERROR_COMM},
                {STORE_E_UNREAD_EVENTS, XENSTORE_ERROR_COMM},
                {STORE_E_OVERSIZE, XENSTORE_ERROR_PROTO}};
    for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
        connect_it(s);
        unsigned before = s->notified;
        s->t->ops->close(s->t, ends[i].error);
        assert_int_equal(s->page->error, ends[i].word);
        assert_int_equal(s->notified, before + 1);
        assert_false(store_ring_asked(&s->ring));
    }
}

static void test_a_guest_that_asks_to_reconnect_ends_the_connection_from_both_sides(void **state)
{
    struct scene *s = *state;
    char buffer[100];
    connect_it(s);
    guest_write(s, "half of a mess", 14);
    assert_int_equal(receive(s, buffer, 7), 7);
    s->page->connection = XENSTORE_RECONNECT;
    assert_int_equal(receive(s, buffer, sizeof(buffer)), 0);
    assert_int_equal(send1(s, "x", 1), -ECONNRESET);
    s->t->ops->close(s->t, -EPIPE);
    assert_int_equal(s->page->error, XENSTORE_ERROR_NONE); /* nobody did anything wrong */
    assert_true(store_ring_asked(&s->ring));
    connect_it(s);
    assert_false(store_ring_asked(&s->ring));
    assert_int_equal(receive(s, buffer, sizeof(buffer)), -EAGAIN); /* the other half is gone */
    guest_write(s, "new", 3);
    assert_int_equal(receive(s, buffer, sizeof(buffer)), 3);
    assert_memory_equal(buffer, "new", 3);
}

static void test_another_process_goes_on_in_the_middle_of_both_queues(void **state)
{
    struct scene *s = *state;
    char buffer[2000];
    connect_it(s);
    guest_write(s, "request", 7);
    assert_int_equal(receive(s, buffer, 3), 3);
    assert_int_equal(send1(s, "answer", 6), 6);
    assert_int_equal(guest_read(s, buffer, 2), 2);
    struct store_ring first = s->ring; /* which is never heard of again */
    store_ring_init(&s->ring, &first.link);
    s->ring.died = on_died;
    s->t = store_ring_resume(&s->ring);
    assert_int_equal(receive(s, buffer, sizeof(buffer)), 4);
    assert_memory_equal(buffer, "uest", 4);
    assert_int_equal(send1(s, "s", 1), 1);
    assert_int_equal(guest_read(s, buffer, sizeof(buffer)), 5);
    assert_memory_equal(buffer, "swers", 5);
    s->page->rsp_prod += 3000; /* a guest that changes what is not its own before the next one comes */
    store_ring_init(&s->ring, &first.link);
    s->ring.died = on_died;
    s->t = store_ring_resume(&s->ring);
    assert_int_equal(send1(s, "x", 1), -EPROTO);
}

static void test_a_guest_is_told_that_its_server_is_lost_unless_it_asks_already(void **state)
{
    struct scene *s = *state;
    store_ring_lose(&s->ring);
    assert_int_equal(s->page->error, XENSTORE_ERROR_COMM);
    assert_int_equal(s->page->server_features, STORE_RING_FEATURES);
    assert_int_equal(s->notified, 1);
    assert_false(store_ring_asked(&s->ring));
    connect_it(s);
    s->t->ops->close(s->t, 0);
    s->page->error = XENSTORE_ERROR_NONE;
    s->page->connection = XENSTORE_RECONNECT;
    store_ring_lose(&s->ring);
    assert_int_equal(s->page->error, XENSTORE_ERROR_NONE);
    assert_true(store_ring_asked(&s->ring));
}

/* Every word, and bytes of the queues, changed at any moment: answers are numbers in range, errors that are named. */
static void test_anything_anywhere_in_the_page_ends_in_an_answer_or_a_named_error(void **state)
{
    struct scene *s = *state;
    uint64_t seed = 9;
    char buffer[5000];
    connect_it(s);
    for (unsigned round = 0; round < 300000; round++) {
        uint32_t dice = (uint32_t)random_next(&seed);
        uint32_t *word = &s->page->req_cons + dice % 7;
        switch (dice >> 8 & 3) {
        case 0: *word = (uint32_t)random_next(&seed); break;
        case 1: *word += (uint32_t)random_next(&seed) % 1200; break;
        case 2: *word ^= 1u << (random_next(&seed) & 31); break;
        default: ((char *)s->page)[random_next(&seed) % sizeof(*s->page)] ^= (char)dice; break;
        }
        size_t length = 1 + random_next(&seed) % sizeof(buffer);
        ssize_t n = dice & 0x10000 ? receive(s, buffer, length) : send1(s, buffer, length);
        assert_true(n == -EAGAIN || n == -EPROTO || n == -ECONNRESET || (n >= 0 && (size_t)n <= length));
        if (n != -EAGAIN && n <= 0) {
            s->t->ops->close(s->t, (int)n);
            connect_it(s);
        }
    }
    assert_true(s->died > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_connecting_empties_both_queues_and_says_what_is_offered, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bytes_come_out_as_they_went_in_around_every_wrap, setup, teardown),
        cmocka_unit_test_setup_teardown(test_answers_arrive_in_order_whatever_the_pieces, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_guest_is_told_once_for_what_was_taken_and_answered, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_full_queue_of_answers_takes_no_more_until_the_guest_has_read, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_an_index_that_cannot_be_stops_the_ring_with_that_error, setup, teardown),
        cmocka_unit_test_setup_teardown(test_our_indexes_are_not_the_guest_s_to_move, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_end_of_a_connection_says_why, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_guest_that_asks_to_reconnect_ends_the_connection_from_both_sides, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_another_process_goes_on_in_the_middle_of_both_queues, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_guest_is_told_that_its_server_is_lost_unless_it_asks_already, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_anything_anywhere_in_the_page_ends_in_an_answer_or_a_named_error, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
