/* SPDX-License-Identifier: MIT */
/* Guests in processes of their own that speak to the store of a real domzerod through their ring pages: what they can
 * do, what they can do to others, and what is left when they or the store go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "domzero/domzero.h"
#include "tests/harness.h"
#include "tests/random.h"
#include "tests/ring_guest.h"
#include "tests/storekit.h"

#define LIVE_UPDATES 5

static struct world world;

#define CHECK(condition)                                                                \
    do {                                                                                \
        if (!(condition)) {                                                             \
            fprintf(stderr, "guest %d: line %d: %s\n", getpid(), __LINE__, #condition); \
            return 1;                                                                   \
        }                                                                               \
    } while (0)

/* A guest that runs, and the two pipes by which it and the test wait for each other. */
struct guest {
    unsigned domid;
    pid_t pid;
    int (*body)(struct guest *g, struct ring_guest *ring);
    int says[2], hears[2];
};

static void tell(int fd, uint32_t word)
{
    if (write(fd, &word, sizeof(word)) != sizeof(word))
        abort();
}

static uint32_t hear(int fd)
{
    uint32_t word = 0;
    return read(fd, &word, sizeof(word)) == sizeof(word) ? word : 0;
}

static int guest_main(const char *domain_dir, void *argument)
{
    struct guest *g = argument;
    struct ring_guest ring;
    struct err e = {0};
    close(g->says[0]);
    close(g->hears[1]);
    if (ring_guest_open(&ring, domain_dir, &e) < 0) {
        fprintf(stderr, "guest: %s\n", e.text);
        return 1;
    }
    tell(g->says[1], ring.channel.port);
    CHECK(ring_guest_connected(&ring));
    int r = g->body(g, &ring);
    ring_guest_close(&ring);
    return r;
}

static unsigned domain_make(const char *name)
{
    char file[32], text[64], out[512];
    snprintf(file, sizeof(file), "%s.cfg", name);
    snprintf(text, sizeof(text), "name = \"%s\"\n", name);
    world_write(&world, file, text);
    if (world_domzero(&world, out, sizeof(out), "create %s", world_path(&world, file)) != 0)
        fail_msg("create %s: %s", name, out);
    return (unsigned)strtoul(strstr(out, "domid ") + strlen("domid "), NULL, 10);
}

static void introduce(unsigned domid, uint32_t port)
{
    char out[512];
    if (world_domzero(&world, out, sizeof(out), "introduce %u --port=%u", domid, port) != 0)
        fail_msg("introduce: %s", out);
}

static struct guest guest_start(unsigned domid, int (*body)(struct guest *, struct ring_guest *))
{
    struct guest g = {.domid = domid, .body = body};
    assert_int_equal(pipe(g.says), 0);
    assert_int_equal(pipe(g.hears), 0);
    g.pid = world_spawn(&world, domid, guest_main, &g);
    close(g.says[1]);
    close(g.hears[0]);
    uint32_t port = hear(g.says[0]);
    assert_int_not_equal(port, 0);
    introduce(domid, port);
    return g;
}

static int guest_end(struct guest *g)
{
    int status = world_wait(g->pid);
    close(g->says[0]);
    close(g->hears[1]);
    return status;
}

static void domain_end(unsigned domid)
{
    assert_int_equal(world_domzero(&world, NULL, 0, "destroy %u", domid), 0);
}

/* ---- what the role holds ---- */

static unsigned fds_of(pid_t pid)
{
    char path[64];
    unsigned count = 0;
    snprintf(path, sizeof(path), "/proc/%d/fd", pid);
    DIR *dir = opendir(path);
    assert_non_null(dir);
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

/* Mappings of other processes' memory. */
static unsigned maps_of(pid_t pid)
{
    char path[64], line[512];
    unsigned count = 0;
    snprintf(path, sizeof(path), "/proc/%d/maps", pid);
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    while (fgets(line, sizeof(line), f))
        count += strstr(line, "memfd:") != NULL;
    fclose(f);
    return count;
}

struct holdings {
    unsigned fds, maps;
};

static struct holdings holdings_now(void)
{
    pid_t store = world_role(&world, "store");
    return (struct holdings){fds_of(store), maps_of(store)};
}

static bool holds_again(void *ctx)
{
    const struct holdings *before = ctx;
    struct holdings now = holdings_now();
    return now.fds <= before->fds && now.maps <= before->maps; /* somebody's connection may have been there before */
}

static void expect_given_back(struct holdings before)
{
    world_await(holds_again, &before, "the store role to give back a guest's ring");
}

/* ---- guests ---- */

/* The payload: `commas` with a NUL for each ',' and one at its end unless it is a WRITE. */
static bool ask(struct ring_guest *g, uint32_t type, const char *commas, const char *expected)
{
    struct store_message reply;
    char payload[256];
    size_t length = strlen(commas);
    for (size_t i = 0; i <= length; i++)
        payload[i] = commas[i] == ',' ? '\0' : commas[i];
    if (!ring_guest_exchange(g, type, 0, payload, length + (type != XS_WRITE), &reply))
        return false;
    reply.payload[MIN(reply.header.len, sizeof(reply.payload) - 1)] = '\0';
    if (strcmp(reply.payload, expected) == 0)
        return true;
    fprintf(stderr, "%s: %s instead of %s\n", commas, reply.payload, expected);
    return false;
}

static bool is_event(struct ring_guest *g, const char *path, const char *token)
{
    struct store_message m;
    return ring_guest_receive(g, &m) && m.header.type == XS_WATCH_EVENT && strcmp(m.payload, path) == 0 &&
           strcmp(m.payload + strlen(path) + 1, token) == 0;
}

static int speaks(struct guest *g, struct ring_guest *ring)
{
    char domid[16];
    snprintf(domid, sizeof(domid), "%u", g->domid);
    CHECK(ask(ring, XS_READ, "domid", domid));
    CHECK(ask(ring, XS_WRITE, "data/hello,from the ring", "OK"));
    CHECK(ask(ring, XS_WRITE, "name,mine", "EACCES"));
    CHECK(ask(ring, XS_WATCH, "data/answer,token", "OK"));
    CHECK(is_event(ring, "data/answer", "token"));
    tell(g->says[1], 1);
    CHECK(is_event(ring, "data/answer", "token"));
    CHECK(ask(ring, XS_READ, "data/answer", "from dom0"));
    for (unsigned i = 0; i < 200; i++)
        CHECK(ask(ring, XS_WRITE, "data/count,x", "OK"));
    return 0;
}

static void test_a_guest_process_speaks_to_the_store_through_its_page(void **state)
{
    (void)state;
    struct holdings before = holdings_now();
    unsigned domid = domain_make("ring");
    struct guest g = guest_start(domid, speaks);
    char out[256];
    assert_int_equal(hear(g.says[0]), 1);
    assert_int_equal(world_shell(&world, out, sizeof(out), "xenstore-read /local/domain/%u/data/hello", domid), 0);
    assert_string_equal(out, "from the ring\n");
    assert_int_equal(
        world_shell(&world, out, sizeof(out), "xenstore-write /local/domain/%u/data/answer 'from dom0'", domid), 0);
    assert_int_equal(guest_end(&g), 0);
    domain_end(domid);
    expect_given_back(before);
}

/* Waits to be killed. */
static int stays(struct guest *g, struct ring_guest *ring)
{
    CHECK(ask(ring, XS_WATCH, "data,token", "OK"));
    CHECK(ask(ring, XS_TRANSACTION_START, "", "1"));
    tell(g->says[1], 1);
    hear(g->hears[0]);
    return 1;
}

static int comes_after(struct guest *g, struct ring_guest *ring)
{
    (void)g;
    CHECK(ask(ring, XS_WATCH, "data,token", "OK"));
    return 0;
}

static void test_a_killed_guest_gives_its_ring_back_and_the_domain_s_next_process_has_its_own(void **state)
{
    (void)state;
    unsigned domid = domain_make("killed");
    struct holdings before = holdings_now();
    for (unsigned round = 0; round < 5; round++) {
        struct guest g = guest_start(domid, stays);
        assert_int_equal(hear(g.says[0]), 1);
        kill(g.pid, SIGKILL);
        assert_int_equal(guest_end(&g), 128 + SIGKILL);
        expect_given_back(before);
    }
    struct guest g = guest_start(domid, comes_after);
    assert_int_equal(guest_end(&g), 0);
    expect_given_back(before);
    domain_end(domid);
}

static int moves(struct guest *g, struct ring_guest *ring)
{
    struct err e = {0};
    for (unsigned i = 0; i < 5; i++) {
        CHECK(ask(ring, XS_WATCH, "data,token", "OK")); /* none is left of the ring before */
        ring->page->connection = XENSTORE_RECONNECT;
        CHECK(ring_guest_other_port(ring, &e) == 0);
        tell(g->says[1], ring->channel.port);
        CHECK(ring_guest_connected(ring));
    }
    return 0;
}

static void test_introducing_again_binds_the_guest_s_other_port(void **state)
{
    (void)state;
    unsigned domid = domain_make("moves");
    struct holdings before = holdings_now();
    struct guest g = guest_start(domid, moves);
    for (unsigned i = 0; i < 5; i++)
        introduce(domid, hear(g.says[0]));
    assert_int_equal(guest_end(&g), 0);
    expect_given_back(before);
    domain_end(domid);
}

static int survives_the_store(struct guest *g, struct ring_guest *ring)
{
    CHECK(ask(ring, XS_WRITE, "data/kept,yes", "OK"));
    for (unsigned i = 0; i < 3; i++) {
        CHECK(ask(ring, XS_WATCH, "data,token", "OK"));
        tell(g->says[1], 1);
        CHECK(ring_guest_await_error(ring) == XENSTORE_ERROR_COMM);
        ring_guest_ask(ring);
        CHECK(ring_guest_connected(ring));
        CHECK(ask(ring, XS_READ, "data/kept", "yes"));
    }
    return 0;
}

struct successor {
    pid_t before;
};

static bool store_runs_anew(void *ctx)
{
    pid_t now = world_role(&world, "store");
    return now > 0 && now != ((struct successor *)ctx)->before && world_serves(&world);
}

static void test_a_guest_is_told_that_the_store_was_killed_and_goes_on_with_the_next_one(void **state)
{
    (void)state;
    unsigned domid = domain_make("survives");
    struct guest g = guest_start(domid, survives_the_store);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(hear(g.says[0]), 1);
        struct successor s = {.before = world_role(&world, "store")};
        kill(s.before, SIGKILL);
        world_await(store_runs_anew, &s, "another store role");
    }
    assert_int_equal(guest_end(&g), 0);
    domain_end(domid);
}

/* Anything, anywhere in the page, at any time, with events as fast as they go. */
static int scribbles(struct guest *g, struct ring_guest *ring)
{
    uint64_t seed = g->domid;
    unsigned char *page = (unsigned char *)ring->page;
    tell(g->says[1], 1);
    for (;;) {
        uint32_t dice = random_next(&seed);
        volatile uint32_t *word = &ring->page->req_cons + dice % 7;
        if (dice & 0x100)
            *word = random_next(&seed) % (dice & 0x200 ? 2 : 3000);
        else if (dice & 0x400)
            *word += random_next(&seed) % 1100;
        else
            page[random_next(&seed) % PAGE_BYTES] = (unsigned char)dice;
        if (dice & 0x800)
            evtchn_notify(&ring->channel);
    }
    return 0;
}

static int works(struct guest *g, struct ring_guest *ring)
{
    (void)g;
    for (unsigned i = 0; i < 300; i++)
        CHECK(ask(ring, XS_WRITE, "data/x,y", "OK") && ask(ring, XS_READ, "data/x", "y"));
    return 0;
}

static void test_a_guest_that_scribbles_all_over_its_page_costs_itself_only(void **state)
{
    (void)state;
    struct holdings before = holdings_now();
    unsigned bad = domain_make("bad"), worse = domain_make("worse"), good = domain_make("good");
    pid_t store = world_role(&world, "store");
    struct guest vandal = guest_start(bad, scribbles), other = guest_start(worse, scribbles);
    assert_int_equal(hear(vandal.says[0]), 1);
    assert_int_equal(hear(other.says[0]), 1);
    struct guest g = guest_start(good, works);
    assert_int_equal(guest_end(&g), 0);
    domain_end(bad); /* under it */
    kill(vandal.pid, SIGKILL);
    kill(other.pid, SIGKILL);
    assert_int_equal(guest_end(&vandal), 128 + SIGKILL);
    assert_int_equal(guest_end(&other), 128 + SIGKILL);
    domain_end(worse);
    domain_end(good);
    expect_given_back(before);
    assert_int_equal(world_role(&world, "store"), store);
}

static void test_what_introduce_refuses_it_says(void **state)
{
    (void)state;
    unsigned domid = domain_make("none");
    struct holdings before = holdings_now();
    char out[512];
    assert_int_equal(world_domzero(&world, out, sizeof(out), "introduce %u --port=1", domid), 1);
    assert_non_null(strstr(out, "reference 1"));
    assert_int_equal(world_domzero(&world, out, sizeof(out), "introduce %u", domid), 2);
    assert_int_equal(world_domzero(&world, out, sizeof(out), "introduce %u --port=zero", domid), 2);
    assert_int_equal(world_domzero(&world, out, sizeof(out), "introduce nobody --port=1"), 1);
    assert_int_equal(world_domzero(&world, out, sizeof(out), "introduce %u --port=0 --gfn=5", domid), 0);
    assert_int_equal(world_shell(&world, out, sizeof(out), "xenstore-exists /local/domain/%u", domid), 0);
    expect_given_back(before);
    domain_end(domid);
}

/* The role has by then what it makes when it is first needed. */
static int group_setup(void **state)
{
    (void)state;
    world_start(&world, NULL);
    domain_end(domain_make("first"));
    return 0;
}

static int group_teardown(void **state)
{
    (void)state;
    world_stop(&world);
    return 0;
}

/* Half a request before, its other half after; then the event of a watch that was set before. */
static int goes_on(struct guest *g, struct ring_guest *ring)
{
    static const char payload[] = "data/kept\0yes";
    struct xsd_sockmsg header = {.type = XS_WRITE, .req_id = 1, .len = sizeof(payload) - 1};
    struct store_message m;
    CHECK(ask(ring, XS_WATCH, "data/answer,token", "OK"));
    CHECK(is_event(ring, "data/answer", "token"));
    for (unsigned i = 0; i < LIVE_UPDATES; i++) {
        CHECK(ring_guest_write(ring, &header, 9));
        tell(g->says[1], 1);
        CHECK(hear(g->hears[0]) == 1);
        CHECK(ring_guest_write(ring, (const char *)&header + 9, sizeof(header) - 9));
        CHECK(ring_guest_write(ring, payload, sizeof(payload) - 1));
        do
            CHECK(ring_guest_receive(ring, &m));
        while (m.header.type == XS_WATCH_EVENT);
        CHECK(m.header.type == XS_WRITE);
        CHECK(ask(ring, XS_READ, "data/kept", "yes"));
        CHECK(ask(ring, XS_WRITE, "data/answer,again", "OK"));
        CHECK(is_event(ring, "data/answer", "token"));
    }
    return 0;
}

static void test_a_guest_s_ring_goes_on_through_live_updates(void **state)
{
    (void)state;
    char program[PATH_MAX];
    assert_non_null(realpath(world_program("domzerod"), program));
    unsigned domid = domain_make("goeson");
    struct guest g = guest_start(domid, goes_on);
    for (unsigned i = 0; i < LIVE_UPDATES; i++) {
        assert_int_equal(hear(g.says[0]), 1);
        kit_live_update(world_path(&world, "run/xenstored/socket"), program);
        tell(g.hears[1], 1);
    }
    assert_int_equal(guest_end(&g), 0);
    domain_end(domid);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_guest_process_speaks_to_the_store_through_its_page),
        cmocka_unit_test(test_a_killed_guest_gives_its_ring_back_and_the_domain_s_next_process_has_its_own),
        cmocka_unit_test(test_introducing_again_binds_the_guest_s_other_port),
        cmocka_unit_test(test_a_guest_that_scribbles_all_over_its_page_costs_itself_only),
        cmocka_unit_test(test_what_introduce_refuses_it_says),
        /* Last: another role makes what it needs, and who was connected connects again, in their own time, so nothing
         * can be counted after these. */
        cmocka_unit_test(test_a_guest_s_ring_goes_on_through_live_updates),
        cmocka_unit_test(test_a_guest_is_told_that_the_store_was_killed_and_goes_on_with_the_next_one),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
