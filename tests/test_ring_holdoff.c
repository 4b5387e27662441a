/* SPDX-License-Identifier: MIT */
/* The hold-off protocol of ring/ring.h, explored exhaustively: no order of events loses a wake-up, and each part of the
 * protocol is needed. The code itself is explored, over the modelled memory of test_ring_model.h, by a breadth-first
 * search that visits every state that can be reached.
 *
 * The program: a frontend sends requests through a small ring, sleeps when there is nothing to do, and checks what
 * comes back; a backend answers and sleeps. What may never be seen:
 *   - an end sleeps, its event bit is clear, work for it is in memory, and the peer is not about to notify it
 *   - nothing can move and the frontend is not done
 *   - an index judged to be out of bounds, or a slot with anything but the message that belongs there
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "tests/test_ring_model.h"

struct found {
    const char *wrong; /* NULL: nothing */
    size_t states;
    unsigned done, slept[2], held_off[2]; /* how often seen: that the search was not vacuous */
};

/* ---- the two programs ---- */

/* A message says which it is: the number of the request, and that an answer is one. */
static uint32_t message(uint32_t index, bool answer)
{
    return (index - model.config->start) * 2 + answer + 1000;
}

static uint32_t front_op(struct ring_front *f, enum op op)
{
    uint32_t value = 0, expected = message(f->rsp_cons, true);
    switch (op) {
    case PUT:
        value = message(f->req_prod_pvt, false);
        ring_front_put(f, &value, sizeof(value));
        return 0;
    case PUSH: return ring_front_push(f);
    case LOOK:
        if (ring_front_pending(f, &value))
            model.wrong = "the frontend finds the response index out of bounds";
        return value;
    case TAKE:
        ring_front_take(f, &value, sizeof(value));
        if (value != expected)
            model.wrong = "the frontend takes a slot that does not hold its response";
        return 0;
    default: return ring_front_arm(f) && !faulty(NO_SECOND_LOOK);
    }
}

static uint32_t back_op(struct ring_back *b, enum op op)
{
    uint32_t value = 0, expected = message(b->req_cons, false);
    switch (op) {
    case PUT:
        value = message(b->rsp_prod_pvt, true);
        ring_back_put(b, &value, sizeof(value));
        return 0;
    case PUSH: return ring_back_push(b);
    case LOOK:
        if (ring_back_pending(b, &value))
            model.wrong = "the backend finds the request index out of bounds";
        return value;
    case TAKE:
        ring_back_take(b, &value, sizeof(value));
        if (value != expected)
            model.wrong = "the backend takes a slot that does not hold its request";
        return 0;
    default: return ring_back_arm(b) && !faulty(NO_SECOND_LOOK);
    }
}

static bool front_can_put(const struct ring_front *f)
{
    return f->req_prod_pvt - model.config->start < model.config->requests && ring_front_room(f);
}

/* What the frontend does after `a->op` gave `result`. */
static enum op front_next(const struct actor *a, uint32_t result)
{
    const struct ring_front *f = &a->end.front;
    switch (a->op) {
    case PUT: return model.config->batch && front_can_put(f) ? PUT : PUSH;
    case PUSH: return result ? NOTIFY : LOOK;
    case ARM: return result ? LOOK : SLEEP;
    case LOOK:
    case TAKE:
        if (a->left)
            return TAKE;
        if (f->rsp_cons - model.config->start == model.config->requests)
            return DONE;
        return front_can_put(f) ? PUT : ARM;
    default: /* notified, or woken */ return LOOK;
    }
}

static enum op back_next(const struct actor *a, uint32_t result)
{
    const struct ring_back *b = &a->end.back;
    switch (a->op) {
    case PUT: return b->rsp_prod_pvt != b->req_cons ? PUT : PUSH;
    case PUSH: return result ? NOTIFY : a->left ? TAKE : LOOK;
    case NOTIFY: return a->left ? TAKE : LOOK;
    case ARM: return result ? LOOK : SLEEP;
    case LOOK: return a->left ? TAKE : ARM;
    case TAKE: return model.config->batch && a->left ? TAKE : PUT;
    default: return LOOK;
    }
}

/* ---- transitions: each writes the successor into *s; false: it is not possible now ---- */

static void finish_op(struct actor *a, int actor, uint32_t result)
{
    if (a->op == LOOK)
        a->left = (uint8_t)result;
    if (a->op == TAKE)
        a->left--;
    a->op = (uint8_t)(actor == FRONT ? front_next(a, result) : back_next(a, result));
    a->steps = 0;
    memset(a->seen, 0, sizeof(a->seen));
}

/* The next step of the operation under way; an operation ends with its last step. */
static bool move_operation(struct state *s, int actor)
{
    static uint32_t result;
    static bool complete;
    model.state = s;
    model.actor = actor;
    model.work = s->actor[actor];
    model.at = 0;
    model.moved = complete = false;
    const struct actor before = model.work;
    if (!setjmp(model.stop)) {
        result = actor == FRONT ? front_op(&model.work.end.front, model.work.op)
                                : back_op(&model.work.end.back, model.work.op);
        complete = true;
    }
    model.state = NULL;
    if (!model.moved)
        return false;
    if (complete)
        finish_op(&model.work, actor, result);
    else
        model.work.end = before.end; /* it will be run again from its beginning */
    s->actor[actor] = model.work;
    return true;
}

static bool move_actor(struct state *s, int actor)
{
    struct actor *a = &s->actor[actor];
    switch (a->op) {
    case DONE: return false;
    case NOTIFY:
        s->event[!actor] = 1;
        finish_op(a, actor, 0);
        return true;
    case SLEEP:
        if (!s->event[actor])
            return false;
        s->event[actor] = 0;
        finish_op(a, actor, 0);
        return true;
    default: return move_operation(s, actor);
    }
}

enum { MOVES = 2 * (1 + BUFFER_MAX) };

static bool move(struct state *s, unsigned which)
{
    int actor = which >= MOVES / 2;
    which %= MOVES / 2;
    return which ? move_drain(s, actor, which - 1) : move_actor(s, actor);
}

/* ---- what must hold in each state ---- */

static bool lost_wakeup(const struct state *s, int sleeper)
{
    const struct actor *a = &s->actor[sleeper], *peer = &s->actor[!sleeper];
    if (a->op != SLEEP || s->event[sleeper] || peer->op == PUSH || peer->op == NOTIFY)
        return false;
    uint32_t prod = s->memory[sleeper == FRONT ? 2 : 0]; /* rsp_prod, req_prod */
    return prod != (sleeper == FRONT ? a->end.front.rsp_cons : a->end.back.req_cons);
}

static const char *judge(const struct state *s)
{
    if (model.wrong)
        return model.wrong;
    if (lost_wakeup(s, FRONT))
        return "the frontend sleeps on a response";
    if (lost_wakeup(s, BACK))
        return "the backend sleeps on a request";
    return NULL;
}

/* ---- the search ---- */

struct node {
    struct state state;
    uint32_t parent, move;
};

static struct {
    struct node *nodes;
    uint32_t *table; /* index + 1 into nodes */
    size_t count, capacity, table_size;
} search;

static uint64_t state_hash(const struct state *s)
{
    const unsigned char *p = (const unsigned char *)s;
    uint64_t h = 1469598103934665603ull, word;
    _Static_assert(sizeof(*s) % sizeof(word) == 0, "hashed by words");
    for (size_t i = 0; i < sizeof(*s); i += sizeof(word)) {
        memcpy(&word, p + i, sizeof(word));
        h = (h ^ word) * 0x9e3779b97f4a7c15ull;
        h ^= h >> 29;
    }
    return h;
}

static void search_rehash(void)
{
    search.table_size = search.table_size ? search.table_size * 2 : 1 << 12;
    free(search.table);
    search.table = calloc(search.table_size, sizeof(search.table[0]));
    assert_non_null(search.table);
    for (size_t n = 0; n < search.count; n++) {
        size_t i = state_hash(&search.nodes[n].state) & (search.table_size - 1);
        while (search.table[i])
            i = (i + 1) & (search.table_size - 1);
        search.table[i] = (uint32_t)n + 1;
    }
}

/* Keeps a state that is new. States are all bytes: they begin as zeroes and are copied whole. */
static void search_add(const struct state *s, size_t parent, unsigned move_made)
{
    if (search.count * 2 >= search.table_size)
        search_rehash();
    size_t i = state_hash(s) & (search.table_size - 1);
    for (; search.table[i]; i = (i + 1) & (search.table_size - 1))
        if (!memcmp(&search.nodes[search.table[i] - 1].state, s, sizeof(*s)))
            return;
    if (search.count == search.capacity) {
        search.capacity = search.capacity ? search.capacity * 2 : 1 << 12;
        search.nodes = realloc(search.nodes, search.capacity * sizeof(search.nodes[0]));
        assert_non_null(search.nodes);
    }
    search.table[i] = (uint32_t)search.count + 1;
    struct node *n = &search.nodes[search.count++];
    memcpy(&n->state, s, sizeof(*s));
    n->parent = (uint32_t)parent;
    n->move = move_made;
}

static void search_free(void)
{
    free(search.nodes);
    free(search.table);
    memset(&search, 0, sizeof(search));
}

static void print_move(const struct state *from, unsigned which)
{
    static const char *const words[] = {"req_prod", "req_event", "rsp_prod", "rsp_event"};
    const struct actor *a = &from->actor[which >= MOVES / 2];
    const char *who = which >= MOVES / 2 ? "back " : "front";
    unsigned entry = which % (MOVES / 2);
    if (!entry)
        print_message("    %s %s, step %u\n", who, op_names[a->op], a->steps);
    else if (a->buffer[entry - 1].word < 4)
        print_message("    %s   its %s = %u reaches memory\n", who, words[a->buffer[entry - 1].word],
                      a->buffer[entry - 1].value);
    else
        print_message("    %s   its slot %u reaches memory\n", who, a->buffer[entry - 1].word - 4u);
}

/* The way to node `n`, a shortest one, into the test's log. */
static void print_way(size_t n)
{
    if (!n)
        return;
    print_way(search.nodes[n].parent);
    print_move(&search.nodes[search.nodes[n].parent].state, search.nodes[n].move);
}

static void first_state(struct state *s, const struct config *c)
{
    memset(s, 0, sizeof(*s));
    model.memory = s->memory;
    ring_front_init(&s->actor[FRONT].end.front, image, image_bytes(c->entries), SLOT_BYTES);
    ring_back_init(&s->actor[BACK].end.back, image, image_bytes(c->entries), SLOT_BYTES, c->start);
    assert_int_equal(s->actor[FRONT].end.front.ring.entries, c->entries);
    struct ring_front *f = &s->actor[FRONT].end.front;
    f->req_prod_pvt = f->req_prod = f->rsp_cons = c->start;
    for (unsigned w = 0; w < 4; w++)
        s->memory[w] += c->start;
    s->actor[FRONT].op = PUT;
    s->actor[BACK].op = SLEEP;
    s->event[FRONT] = s->event[BACK] = c->bound;
}

static void count_seen(struct found *f, const struct state *from, const struct state *to)
{
    f->done += to->actor[FRONT].op == DONE;
    for (int i = 0; i < 2; i++) {
        f->slept[i] += to->actor[i].op == SLEEP;
        f->held_off[i] += from->actor[i].op == PUSH && to->actor[i].op != PUSH && to->actor[i].op != NOTIFY;
    }
}

/* Visits every state that can be reached; stops at the first that is wrong. */
static struct found explore(const struct config *config)
{
    struct found found = {0};
    struct state s;
    model.config = config;
    model.wrong = NULL;
    first_state(&s, config);
    search_add(&s, 0, 0);
    for (size_t n = 0; n < search.count && !found.wrong; n++) {
        bool stuck = true;
        for (unsigned m = 0; m < MOVES && !found.wrong; m++) {
            memcpy(&s, &search.nodes[n].state, sizeof(s));
            if (!move(&s, m))
                continue;
            stuck = false;
            count_seen(&found, &search.nodes[n].state, &s);
            search_add(&s, n, m);
            if ((found.wrong = judge(&s))) {
                print_way(n);
                print_move(&search.nodes[n].state, m);
            }
        }
        if (stuck && search.nodes[n].state.actor[FRONT].op != DONE) {
            found.wrong = "nothing can move";
            print_way(n);
        }
    }
    found.states = search.count;
    if (found.wrong)
        print_message("    %s\n", found.wrong);
    search_free();
    return found;
}

/* ---- the tests ---- */

static const uint32_t starts[] = {0, UINT32_MAX - 1};

static void explore_all_variants(bool weak)
{
    size_t states = 0;
    for (unsigned v = 0; v < 16; v++) {
        struct config c = {.start = starts[v & 1],
                           .entries = v & 8 ? 4 : 2,
                           .requests = 6,
                           .batch = v & 2,
                           .bound = v & 4,
                           .weak = weak};
        struct found f = explore(&c);
        assert_null(f.wrong);
        assert_true(f.done && f.slept[FRONT] && f.slept[BACK] && f.held_off[FRONT] && f.held_off[BACK]);
        states += f.states;
    }
    print_message("    %zu states, each with all its successors\n", states);
}

static void test_no_wakeup_is_lost_on_tso(void **state)
{
    (void)state;
    explore_all_variants(false);
}

static void test_no_wakeup_is_lost_where_stores_reorder(void **state)
{
    (void)state;
    explore_all_variants(true);
}

/* Each variant of the program in which `fault` shows; how many there are. */
static unsigned times_caught(struct fault fault, bool weak)
{
    unsigned caught = 0;
    for (unsigned v = 0; v < 4; v++) {
        struct config c = {.start = starts[v & 1],
                           .entries = 2,
                           .requests = 4,
                           .batch = v & 2,
                           .weak = weak,
                           .bound = false,
                           .fault = fault};
        caught += explore(&c).wrong != NULL;
    }
    return caught;
}

static void test_each_producer_needs_its_fence(void **state)
{
    (void)state;
    assert_int_equal(times_caught((struct fault){NO_FENCE, FRONT, PUSH}, false), 4);
    assert_int_equal(times_caught((struct fault){NO_FENCE, BACK, PUSH}, false), 4);
}

static void test_each_consumer_needs_its_fence(void **state)
{
    (void)state;
    assert_int_equal(times_caught((struct fault){NO_FENCE, FRONT, ARM}, false), 4);
    assert_int_equal(times_caught((struct fault){NO_FENCE, BACK, ARM}, false), 4);
}

static void test_each_consumer_needs_its_second_look(void **state)
{
    (void)state;
    assert_int_equal(times_caught((struct fault){NO_SECOND_LOOK, FRONT, ARM}, false), 4);
    assert_int_equal(times_caught((struct fault){NO_SECOND_LOOK, BACK, ARM}, false), 4);
}

static void test_the_event_word_is_one_past_what_was_taken(void **state)
{
    (void)state;
    assert_int_equal(times_caught((struct fault){EVENT_TOO_EARLY, FRONT, ARM}, false), 4);
    assert_int_equal(times_caught((struct fault){EVENT_TOO_EARLY, BACK, ARM}, false), 4);
}

static void test_publishing_needs_its_release_where_stores_reorder(void **state)
{
    (void)state;
    assert_int_equal(times_caught((struct fault){UNORDERED_PUBLISH, FRONT, PUSH}, true), 4);
    assert_int_equal(times_caught((struct fault){UNORDERED_PUBLISH, BACK, PUSH}, true), 4);
    assert_int_equal(times_caught((struct fault){UNORDERED_PUBLISH, FRONT, PUSH}, false), 0); /* x86 forgives it */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_wakeup_is_lost_on_tso),
        cmocka_unit_test(test_no_wakeup_is_lost_where_stores_reorder),
        cmocka_unit_test(test_each_producer_needs_its_fence),
        cmocka_unit_test(test_each_consumer_needs_its_fence),
        cmocka_unit_test(test_each_consumer_needs_its_second_look),
        cmocka_unit_test(test_the_event_word_is_one_past_what_was_taken),
        cmocka_unit_test(test_publishing_needs_its_release_where_stores_reorder),
    };
    return cmocka_run_group_tests_name("ring_holdoff", tests, NULL, NULL);
}
