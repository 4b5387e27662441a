/* SPDX-License-Identifier: MIT */
/* The state tables, proved by walking them. The walk drives both machines as the drivers do, each end seeing the other
 * only through the state it read last (a watch may be late), while either side restarts, closes or dies at any moment;
 * then docs/xenbus.md is held to the printed tables (--print prints them); then a device's end against a real store. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include <stdio.h>

#include "tests/storekit.h"
#include "xenbus/device.h"

#define UNKNOWN      XenbusStateUnknown
#define INITIALISING XenbusStateInitialising
#define INITWAIT     XenbusStateInitWait
#define INITIALISED  XenbusStateInitialised
#define CONNECTED    XenbusStateConnected
#define CLOSING      XenbusStateClosing
#define CLOSED       XenbusStateClosed

/* ---- the walk ---- */

/* Which rings the frontend's keys name: FRESH ones were never served, USED ones may hold requests that only the
 * frontend can replay. */
enum { KEYS_NONE, KEYS_FRESH, KEYS_USED };

/* A state of the whole. `front_sees`: the backend's state as the frontend last read it, and the reverse. `mapped`: the
 * backend serves the rings that the keys name now; `predates` is xb_device's peer_predates_us. */
struct world {
    uint8_t front, back, front_sees, back_sees, keys, mapped, predates;
};
#define WORLDS (7 * 7 * 7 * 7 * 3 * 2 * 2)

static unsigned world_index(const struct world *w)
{
    unsigned i = w->front;
    i = i * 7 + w->back;
    i = i * 7 + w->front_sees;
    i = i * 7 + w->back_sees;
    i = i * 3 + w->keys;
    i = i * 2 + w->mapped;
    return i * 2 + w->predates;
}

static struct world world_at(unsigned i)
{
    struct world w;
    w.predates = i % 2, i /= 2;
    w.mapped = i % 2, i /= 2;
    w.keys = i % 3, i /= 3;
    w.back_sees = i % 7, i /= 7;
    w.front_sees = i % 7, i /= 7;
    w.back = i % 7, i /= 7;
    w.front = (uint8_t)i;
    return w;
}

static void front_to(struct world *w, uint8_t to)
{
    assert_true(xb_transition_allowed(XB_FRONT, w->front, to));
    assert_false(w->front == CONNECTED && to == CLOSED);
    w->front = to;
    if (w->front == CONNECTED && w->mapped)
        w->keys = KEYS_USED;
}

static void back_to(struct world *w, uint8_t to)
{
    assert_true(xb_transition_allowed(XB_BACK, w->back, to));
    assert_false(w->back == CONNECTED && to == CLOSED);
    w->back = to;
    if (w->front == CONNECTED && w->mapped)
        w->keys = KEYS_USED;
}

/* Publishing keys and connecting are transactions that confirm the peer's state. */
static bool confirmed(enum xb_action a, uint8_t seen, uint8_t shown)
{
    return seen == shown || (a != XB_ANNOUNCE && a != XB_CONNECT && a != XB_RECONNECT && a != XB_REINIT);
}

/* What a frontend does; false: nothing. */
static bool front_acts(struct world *w)
{
    enum xb_action a = xb_reaction(XB_FRONT, w->front, w->front_sees);
    if (!confirmed(a, w->front_sees, w->back))
        return false;
    switch (a) {
    case XB_ANNOUNCE:
    case XB_RECONNECT:
        w->keys = KEYS_FRESH;
        w->mapped = 0;
        front_to(w, INITIALISED);
        return true;
    case XB_CONNECT: front_to(w, CONNECTED); return true;
    case XB_CLOSE: front_to(w, CLOSING); return true;
    case XB_CLOSED: front_to(w, CLOSED); return true;
    default: return false;
    }
}

static void back_closes(struct world *w)
{
    if (w->back != CLOSING)
        back_to(w, CLOSING);
    w->mapped = 0;
    back_to(w, CLOSED);
}

static enum xb_action back_reaction_of(const struct world *w)
{
    struct xb_device d = {
        .side = XB_BACK, .state = w->back, .peer_state = w->back_sees, .peer_predates_us = w->predates};
    return xb_device_reaction(&d);
}

static bool back_acts(struct world *w)
{
    enum xb_action a = back_reaction_of(w);
    if (!confirmed(a, w->back_sees, w->front))
        return false;
    switch (a) {
    case XB_ANNOUNCE:
    case XB_REINIT: back_to(w, INITWAIT); return true;
    case XB_CONNECT:
        assert_int_not_equal(w->keys, KEYS_USED); /* never to rings that may hold another connection's requests */
        w->mapped = 1;
        w->predates = 0;
        back_to(w, CONNECTED);
        return true;
    case XB_CLOSE: back_to(w, CLOSING); return true;
    case XB_CLOSED:
    case XB_RESET: back_closes(w); return true;
    default: return false;
    }
}

/* The moves that follow from the tables alone: an end looks, an end acts. */
static unsigned reactions(const struct world *w, struct world next[4])
{
    unsigned n = 0;
    struct world v = *w;
    v.front_sees = w->back;
    if (v.front_sees != w->front_sees)
        next[n++] = v;
    v = *w;
    v.back_sees = w->front;
    if (v.back_sees != CONNECTED && v.back_sees != INITIALISED)
        v.predates = 0;
    if (v.back_sees != w->back_sees || v.predates != w->predates)
        next[n++] = v;
    v = *w;
    if (front_acts(&v))
        next[n++] = v;
    v = *w;
    if (back_acts(&v))
        next[n++] = v;
    return n;
}

/* The moves that somebody wants: a frontend starts over (a restarted guest reads afresh) or closes; a backend is killed
 * and comes again; it gives up; the toolstack asks for a close in its name. */
static unsigned wishes(const struct world *w, struct world next[4])
{
    unsigned n = 0;
    struct world v = *w;
    front_to(&v, INITIALISING);
    v.front_sees = v.back;
    v.keys = KEYS_NONE;
    v.mapped = 0;
    next[n++] = v;
    if (xb_transition_allowed(XB_FRONT, w->front, CLOSING)) {
        v = *w;
        front_to(&v, CLOSING);
        next[n++] = v;
    }
    v = *w;
    v.mapped = 0;
    v.back_sees = v.front;
    v.predates = v.back != INITIALISING && (v.front == CONNECTED || v.front == INITIALISED);
    if (v.back == CONNECTED || v.back == INITWAIT)
        back_to(&v, INITWAIT);
    next[n++] = v;
    if (xb_transition_allowed(XB_BACK, w->back, CLOSING)) {
        v = *w;
        back_to(&v, CLOSING);
        next[n++] = v;
    }
    return n;
}

struct walk {
    bool seen[WORLDS];
    uint8_t colour[WORLDS]; /* of the depth-first search over reactions: 0 new, 1 on the path, 2 done */
    unsigned stack[WORLDS], depth, count, ends;
};

static void push(struct walk *k, const struct world *w)
{
    unsigned i = world_index(w);
    if (k->seen[i])
        return;
    k->seen[i] = true;
    k->stack[k->depth++] = i;
    k->count++;
}

static void visit_all(struct walk *k)
{
    const struct world start = {
        .front = INITIALISING, .back = INITIALISING, .front_sees = INITIALISING, .back_sees = INITIALISING};
    push(k, &start);
    while (k->depth) {
        struct world w = world_at(k->stack[--k->depth]), next[8];
        unsigned n = reactions(&w, next);
        n += wishes(&w, next + n);
        for (unsigned i = 0; i < n; i++)
            push(k, &next[i]);
    }
}

/* Follows reactions only: where they end, the pair is at rest; a way back onto the path would be a livelock. */
static void settle(struct walk *k, unsigned index)
{
    if (k->colour[index] == 2)
        return;
    assert_int_equal(k->colour[index], 0);
    k->colour[index] = 1;
    struct world w = world_at(index), next[4];
    unsigned n = reactions(&w, next);
    if (n == 0) {
        bool connected = w.front == CONNECTED && w.back == CONNECTED;
        bool closed = w.front == CLOSED && w.back == CLOSED;
        if (!connected && !closed)
            fail_msg("at rest in front %s, back %s", xb_state_name(w.front), xb_state_name(w.back));
        if (connected)
            assert_true(w.mapped);
        k->ends++;
    }
    for (unsigned i = 0; i < n; i++)
        settle(k, world_index(&next[i]));
    k->colour[index] = 2;
}

static void test_every_run_ends_connected_or_closed(void **state)
{
    (void)state;
    struct walk *k = calloc(1, sizeof(*k));
    assert_non_null(k);
    visit_all(k);
    for (unsigned i = 0; i < WORLDS; i++)
        if (k->seen[i])
            settle(k, i);
    print_message("%u worlds, %u of them at rest\n", k->count, k->ends);
    assert_true(k->count > 100 && k->ends >= 2);
    free(k);
}

static void test_closed_is_entered_from_closing_only(void **state)
{
    (void)state;
    for (int side = XB_FRONT; side <= XB_BACK; side++) {
        for (int from = 0; from < XB_STATES; from++)
            assert_int_equal(xb_transition_allowed(side, from, CLOSED), from == CLOSING);
        assert_false(xb_transition_allowed(side, XB_STATES, INITIALISING));
        assert_false(xb_transition_allowed(side, INITIALISING, -1));
        assert_int_equal(xb_reaction(side, CONNECTED, 77), XB_WAIT);
    }
}

static void test_a_taken_over_frontend_must_leave_connected_first(void **state)
{
    (void)state;
    struct xb_device d = {.side = XB_BACK, .state = INITWAIT, .peer_state = CONNECTED, .peer_predates_us = true};
    assert_int_equal(xb_device_reaction(&d), XB_WAIT);
    d.peer_predates_us = false; /* Mini-OS: shows Connected without Initialised */
    assert_int_equal(xb_device_reaction(&d), XB_CONNECT);
    assert_int_equal(xb_reaction(XB_FRONT, CONNECTED, INITWAIT), XB_RECONNECT);
}

static void test_state_text_is_one_decimal_number(void **state)
{
    (void)state;
    assert_int_equal(xb_state_parse("1"), INITIALISING);
    assert_int_equal(xb_state_parse("8"), XenbusStateReconfigured);
    static const char *const junk[] = {
        "", "0", "9", "-1", " 4", "4 ", "4\n", "0x4", "Connected", "4294967300", "18446744073709551620"};
    for (size_t i = 0; i < ARRAY_SIZE(junk); i++)
        assert_int_equal(xb_state_parse(junk[i]), UNKNOWN);
    assert_string_equal(xb_state_name(CONNECTED), "Connected");
    assert_string_equal(xb_state_name(99), "?");
    assert_string_equal(xb_action_name(99), "?");
}

/* ---- the document ---- */

static void print_side(FILE *f, enum xb_side side)
{
    fprintf(f, "| %s is in, may go to |", side == XB_FRONT ? "frontend" : "backend");
    for (int peer = 0; peer <= CLOSED; peer++)
        fprintf(f, " peer %d %s |", peer, peer ? xb_state_name(peer) : "gone");
    fprintf(f, "\n|---|---|---|---|---|---|---|---|\n");
    for (int mine = INITIALISING; mine <= CLOSED; mine++) {
        if (mine == (side == XB_FRONT ? INITWAIT : INITIALISED))
            continue; /* a state of the other side's only */
        fprintf(f, "| %d %s →", mine, xb_state_name(mine));
        for (int to = 0; to < XB_STATES; to++)
            if (xb_transition_allowed(side, mine, to))
                fprintf(f, " %d", to);
        for (int peer = 0; peer <= CLOSED; peer++) {
            enum xb_action a = xb_reaction(side, mine, peer);
            fprintf(f, " | %s", a == XB_WAIT ? "·" : xb_action_name(a));
        }
        fprintf(f, " |\n");
    }
}

static char *printed_tables(void)
{
    char *text;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    print_side(f, XB_FRONT);
    fprintf(f, "\n");
    print_side(f, XB_BACK);
    fclose(f);
    return text;
}

static void test_document_shows_the_tables(void **state)
{
    (void)state;
    const char *source = getenv("DOMZERO_SOURCE");
    char path[4096];
    snprintf(path, sizeof(path), "%s/docs/xenbus.md", source ? source : ".");
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    static char document[64 << 10];
    size_t n = fread(document, 1, sizeof(document) - 1, f);
    fclose(f);
    document[n] = 0;
    _cleanup_free_ char *tables = printed_tables();
    if (!strstr(document, tables))
        fail_msg("docs/xenbus.md does not hold the tables as test_xenbus --print prints them");
}

/* ---- a device's end ---- */

struct pair {
    struct kit_server store;
    struct store_client *dom0, *guest;
    struct xb_device front, back;
};

/* The toolstack's work for device 51712 of domain 7. */
static int setup(void **state)
{
    struct pair *p = calloc(1, sizeof(*p));
    kit_server_start(&p->store, NULL);
    p->dom0 = kit_client(&p->store, 0);
    assert_int_equal(store_introduce(p->dom0, 7, 1, 1), 0);
    p->guest = kit_client(&p->store, 7);
    xb_device_init(&p->front, p->guest, XB_FRONT, "vbd", 7, 0, 51712);
    xb_device_init(&p->back, p->dom0, XB_BACK, "vbd", 7, 0, 51712);
    store_write(p->dom0, STORE_NO_TX, "1", "%s/state", p->front.dir);
    store_set_owner_reader(p->dom0, STORE_NO_TX, 7, 0, "%s", p->front.dir);
    store_set_owner_reader(p->dom0, STORE_NO_TX, 7, 0, "%s/state", p->front.dir);
    store_write(p->dom0, STORE_NO_TX, "1", "%s/state", p->back.dir);
    store_set_owner_reader(p->dom0, STORE_NO_TX, 0, 7, "%s", p->back.dir);
    store_set_owner_reader(p->dom0, STORE_NO_TX, 0, 7, "%s/state", p->back.dir);
    assert_int_equal(xb_device_load(&p->front, NULL), 0);
    assert_int_equal(xb_device_load(&p->back, NULL), 0);
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct pair *p = *state;
    store_client_close(p->guest);
    store_client_close(p->dom0);
    kit_server_stop(&p->store);
    free(p);
    return 0;
}

static void test_each_end_sees_what_the_other_shows(void **state)
{
    struct pair *p = *state;
    assert_string_equal(p->front.dir, "/local/domain/7/device/vbd/51712");
    assert_string_equal(p->front.peer_dir, "/local/domain/0/backend/vbd/7/51712");
    assert_int_equal(p->front.state, INITIALISING);
    assert_int_equal(xb_device_watch(&p->front, "t", NULL), 0);
    assert_int_equal(xb_device_switch(&p->back, STORE_NO_TX, INITWAIT, NULL), 0);
    assert_int_equal(xb_device_read_peer(&p->front), 0);
    assert_int_equal(p->front.peer_state, INITWAIT);
    assert_int_equal(xb_device_reaction(&p->front), XB_ANNOUNCE);
    xb_device_unwatch(&p->front, "t");

    store_write(p->guest, STORE_NO_TX, "999999999999999999999", "%s/state", p->front.dir);
    assert_int_equal(xb_device_read_peer(&p->back), 0);
    assert_int_equal(p->back.peer_state, UNKNOWN);
}

static void test_a_directory_that_is_gone_is_unknown(void **state)
{
    struct pair *p = *state;
    assert_int_equal(store_rm(p->dom0, STORE_NO_TX, "%s", p->back.dir), 0);
    assert_int_equal(xb_device_read_peer(&p->front), 0); /* EACCES from the store: the guest may not read above it */
    assert_int_equal(p->front.peer_state, UNKNOWN);
    struct err e = {0};
    assert_int_equal(xb_device_load(&p->back, &e), -ENOENT);
    assert_non_null(strstr(e.text, p->back.dir));
}

static void test_a_restarted_backend_waits_until_the_frontend_reconnects(void **state)
{
    struct pair *p = *state;
    xb_device_switch(&p->back, STORE_NO_TX, INITWAIT, NULL);
    xb_device_switch(&p->front, STORE_NO_TX, INITIALISED, NULL);
    xb_device_switch(&p->back, STORE_NO_TX, CONNECTED, NULL);
    xb_device_switch(&p->front, STORE_NO_TX, CONNECTED, NULL);

    struct xb_device again;
    xb_device_init(&again, p->dom0, XB_BACK, "vbd", 7, 0, 51712);
    assert_int_equal(xb_device_load(&again, NULL), 0);
    assert_int_equal(xb_device_switch(&again, STORE_NO_TX, INITWAIT, NULL), 0);
    assert_int_equal(xb_device_read_peer(&again), 0);
    assert_int_equal(xb_device_reaction(&again), XB_WAIT);
    assert_int_equal(xb_device_read_peer(&p->front), 0);
    assert_int_equal(xb_device_reaction(&p->front), XB_RECONNECT);
    xb_device_switch(&p->front, STORE_NO_TX, INITIALISED, NULL);
    assert_int_equal(xb_device_read_peer(&again), 0);
    assert_int_equal(xb_device_reaction(&again), XB_CONNECT);
}

static void test_a_fatal_error_says_why_and_closes(void **state)
{
    struct pair *p = *state;
    xb_device_fatal(&p->back, -EBUSY, "disk.img is in use");
    assert_int_equal(p->back.state, CLOSING);
    _cleanup_free_ char *own = NULL, *error = NULL, *shown = NULL;
    assert_int_equal(store_read(p->guest, STORE_NO_TX, &own, NULL, "%s/error", p->back.dir), 0);
    assert_string_equal(own, "16 disk.img is in use");
    assert_int_equal(store_read(p->dom0, STORE_NO_TX, &error, NULL, "/local/domain/0/error/backend/vbd/7/51712/error"),
                     0);
    assert_string_equal(error, own);
    assert_int_equal(store_read(p->guest, STORE_NO_TX, &shown, NULL, "%s/state", p->back.dir), 0);
    assert_string_equal(shown, "5");
    xb_device_fatal(&p->back, EIO, "again"); /* Closing to Closing: no step, no assertion */
    assert_int_equal(p->back.state, CLOSING);
}

static void assert_missing(struct pair *p, const char *path)
{
    _cleanup_free_ char *text = NULL;
    assert_int_equal(store_read(p->dom0, STORE_NO_TX, &text, NULL, "%s", path), -ENOENT);
}

/* It would come with permissions that nobody chose, and the next device of that number would inherit them. */
static void test_an_end_does_not_make_a_removed_directory_again(void **state)
{
    struct pair *p = *state;
    assert_int_equal(store_rm(p->dom0, STORE_NO_TX, "%s", p->back.dir), 0);
    assert_int_equal(xb_device_switch(&p->back, STORE_NO_TX, INITWAIT, NULL), -ENOENT);
    assert_int_equal(p->back.state, INITIALISING);
    xb_device_fatal(&p->back, EIO, "no such image");
    assert_missing(p, p->back.dir);
    assert_missing(p, "/local/domain/0/error/backend/vbd/7/51712/error");
}

static void test_an_end_does_not_write_into_what_took_the_place_of_its_directory(void **state)
{
    struct pair *p = *state;
    _cleanup_free_ char *text = NULL;
    assert_int_equal(xb_device_switch(&p->back, STORE_NO_TX, INITWAIT, NULL), 0);
    assert_int_equal(store_rm(p->dom0, STORE_NO_TX, "%s", p->back.dir), 0);
    assert_int_equal(store_write(p->dom0, STORE_NO_TX, "1", "%s/state", p->back.dir), 0);
    assert_int_equal(xb_device_switch(&p->back, STORE_NO_TX, CLOSING, NULL), -ENOENT);
    xb_device_fatal(&p->back, EIO, "too late");
    assert_int_equal(store_read(p->dom0, STORE_NO_TX, &text, NULL, "%s/state", p->back.dir), 0);
    assert_string_equal(text, "1");
}

struct body {
    struct store_client *other;
    unsigned runs, collide, fail;
};

static int body_run(struct xb_device *d, store_tx tx, void *arg, struct err *e)
{
    struct body *b = arg;
    _cleanup_free_ char *text = NULL;
    b->runs++;
    assert_int_equal(d->state, INITIALISING); /* put back before each try */
    assert_int_equal(store_read(d->store, tx, &text, NULL, "%s/state", d->dir), 0);
    if (b->runs <= b->collide)
        store_printf(b->other, STORE_NO_TX, d->dir, "state", "%d", 1);
    int r = xb_device_switch(d, tx, INITWAIT, e);
    return b->runs <= b->fail ? -ENOSPC : r;
}

static void test_a_transaction_is_repeated_until_it_holds(void **state)
{
    struct pair *p = *state;
    struct body b = {.other = kit_client(&p->store, 0), .collide = 3};
    assert_int_equal(xb_transaction(&p->back, body_run, &b, NULL), 0);
    assert_int_equal(b.runs, 4);
    assert_int_equal(p->back.state, INITWAIT);
    store_client_close(b.other);
}

static void test_a_transaction_that_never_holds_gives_up(void **state)
{
    struct pair *p = *state;
    struct err e = {0};
    struct body b = {.other = kit_client(&p->store, 0), .collide = UINT32_MAX};
    assert_int_equal(xb_transaction(&p->back, body_run, &b, &e), -EAGAIN);
    assert_int_equal(b.runs, XB_TX_TRIES);
    assert_int_equal(p->back.state, INITIALISING);
    assert_non_null(strstr(e.text, "collided"));
    b = (struct body){.other = b.other, .fail = 1};
    assert_int_equal(xb_transaction(&p->back, body_run, &b, &e), -ENOSPC);
    assert_int_equal(p->back.state, INITIALISING);
    _cleanup_free_ char *text = NULL;
    assert_int_equal(store_read(p->dom0, STORE_NO_TX, &text, NULL, "%s/state", p->back.dir), 0);
    assert_string_equal(text, "1");
    store_client_close(b.other);
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "--print")) {
        _cleanup_free_ char *text = printed_tables();
        fputs(text, stdout);
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_run_ends_connected_or_closed),
        cmocka_unit_test(test_closed_is_entered_from_closing_only),
        cmocka_unit_test(test_a_taken_over_frontend_must_leave_connected_first),
        cmocka_unit_test(test_state_text_is_one_decimal_number),
        cmocka_unit_test(test_document_shows_the_tables),
        cmocka_unit_test_setup_teardown(test_each_end_sees_what_the_other_shows, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_directory_that_is_gone_is_unknown, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_restarted_backend_waits_until_the_frontend_reconnects, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_fatal_error_says_why_and_closes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_end_does_not_make_a_removed_directory_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_end_does_not_write_into_what_took_the_place_of_its_directory, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_transaction_is_repeated_until_it_holds, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_transaction_that_never_holds_gives_up, setup, teardown),
    };
    return cmocka_run_group_tests_name("xenbus", tests, NULL, NULL);
}
