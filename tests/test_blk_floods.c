/* SPDX-License-Identifier: MIT */
/* Guests that ask for nothing but what is dear: barriers, megabytes, parts of blocks, zeroes, discards, durable writes,
 * one page for everything, a rate used up, connections. Whatever it is, a neighbour on the same reactor is served
 * meanwhile; and whether the guest dies amid it or breaks the ring, its device is closed and nothing of its stays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/wait.h>

#include "grant/dma.h"
#include "tests/mqguest.h"

#define DISK_BYTES (64u << 20)
#define SEED       3u
#define QUEUES     KEYS_BLK_QUEUES_MAX

/* ---- the guest's process ---- */

static void put_barrier(struct blkguest *g, unsigned n)
{
    blkguest_put(g, n % 2 ? BLKIF_OP_WRITE_BARRIER : BLKIF_OP_WRITE, n % 64 * 88, n, 11, 0, 7);
}

static void put_large(struct blkguest *g, unsigned n)
{
    blkguest_put_indirect(g, n % 3 ? BLKIF_OP_WRITE : BLKIF_OP_READ, n % 16 * 2048, n, 256, 0, 7);
}

static void put_part(struct blkguest *g, unsigned n)
{
    blkguest_put(g, n % 5 ? BLKIF_OP_WRITE : BLKIF_OP_READ, n % 24, n, 1, n % 8, n % 8);
}

static void put_zeroes(struct blkguest *g, unsigned n)
{
    blkguest_put_span(g, BLKREQ_OP_WRITE_ZEROES, n % 8, 65528, n % 2);
}

static void put_discard(struct blkguest *g, unsigned n)
{
    blkguest_put_span(g, BLKIF_OP_DISCARD, n % 8, DISK_BYTES / SECTOR_BYTES - 8, 0);
}

static void put_durable(struct blkguest *g, unsigned n)
{
    blkguest_put(g, n % 4 ? BLKREQ_OP_WRITE_FUA : BLKIF_OP_FLUSH_DISKCACHE, n % 64 * 88, n, 11, 0, 7);
}

static void put_one_page(struct blkguest *g, unsigned n)
{
    struct blkreq req = {.id = n, .operation = n % 2, .operation_raw = n % 2, .sector = n % 64 * 88};
    for (; req.segment_count < BLKREQ_SEGMENTS_MAX; req.segment_count++)
        req.segment[req.segment_count] = (struct blkreq_segment){g->gref[0], 0, 7};
    blkguest_put_raw(g, &req);
}

static const struct flood {
    const char *name;
    void (*put)(struct blkguest *g, unsigned n); /* NULL: connects and disconnects all of its queues */
    bool parts, rate;
} floods[] = {
    {"barriers", put_barrier, false, false}, {"large", put_large, false, false},
    {"parts", put_part, true, false},        {"parts and zeroes", put_zeroes, true, false},
    {"zeroes", put_zeroes, false, false},    {"discards", put_discard, false, false},
    {"durable", put_durable, false, false},  {"one page", put_one_page, false, false},
    {"rate", put_large, false, true},        {"connections", NULL, false, false},
};

static bool told(int stop)
{
    struct pollfd p = {.fd = stop};
    return poll(&p, 1, 0) != 0;
}

static void flood_connections(const char *domain_dir, int ready)
{
    static struct mqguest m;
    mqguest_open(&m, domain_dir, BLKWORLD_DEVID);
    for (unsigned n = 0;; n++) {
        mqguest_connect(&m, QUEUES, 0);
        if (n == 0 && write(ready, "r", 1) != 1)
            return;
        for (unsigned i = 0; i < QUEUES; i++) {
            put_durable(&m.queue[i], n + i);
            blkguest_kick(&m.queue[i]);
        }
        mqguest_disconnect(&m);
        blkguest_switch(&m.g, XenbusStateInitialising);
    }
}

/* Until it is told to lie; then it waits for its end. */
static int flood_main(const char *domain_dir, int ready, int stop, const struct flood *f)
{
    struct blkguest g;
    uint64_t id;
    if (!f->put)
        flood_connections(domain_dir, ready);
    blkguest_open(&g, domain_dir, BLKWORLD_DEVID);
    blkguest_switch(&g, XenbusStateInitialising);
    g.persistent = g.fua = g.write_zeroes = true;
    blkguest_connect(&g, NULL);
    for (unsigned n = 0; !told(stop);) {
        while (ring_front_room(&g.ring))
            f->put(&g, n++);
        blkguest_kick(&g);
        if (n == g.ring.ring.entries && write(ready, "r", 1) != 1)
            return 1;
        blkguest_take(&g, &id);
    }
    ring_set(&g.ring.ring, req_prod, g.ring.req_prod + 100000);
    evtchn_notify(&g.channel);
    for (;;)
        pause();
}

/* ---- dom0 ---- */

struct scene {
    struct blkworld world;
    char dir[256], neighbour_dir[256];
    uint16_t domid, neighbour_domid;
    struct keys_blk_config config, neighbour_config;
    struct blkguest neighbour;
};

static void scene_start(struct scene *s)
{
    struct blkworld *w = &s->world;
    *s = (struct scene){0};
    blkworld_servers(w);
    setenv("BLKWORLD_REACTORS", "1", 1);
    blkworld_role_start(w, NULL);
    unsetenv("BLKWORLD_REACTORS");
    s->domid = blkworld_domain(w, "flood", s->dir, sizeof(s->dir));
    s->neighbour_domid = blkworld_domain(w, "neighbour", s->neighbour_dir, sizeof(s->neighbour_dir));
    blkworld_image(w, "neighbour.img", 1u << 20, SEED, s->neighbour_config.path, sizeof(s->neighbour_config.path));
    blkworld_attach(w, s->neighbour_domid, BLKWORLD_DEVID, &s->neighbour_config);
    blkguest_open(&s->neighbour, s->neighbour_dir, BLKWORLD_DEVID);
    blkguest_connect(&s->neighbour, NULL);
    snprintf(s->config.path, sizeof(s->config.path), "%s/flood.img", w->dir);
    int fd = open(s->config.path, O_CREAT | O_RDWR, 0600);
    assert_int_equal(ftruncate(fd, DISK_BYTES), 0);
    close(fd);
    s->config.discard = true;
}

static void check_neighbour(struct scene *s)
{
    for (unsigned i = 0; i < 20; i++)
        blkguest_check_served(&s->neighbour, SEED);
    assert_int_equal(blkguest_do(&s->neighbour, BLKIF_OP_FLUSH_DISKCACHE, 0, 0, 0, 0, 0), BLKIF_RSP_OKAY);
}

static void flood_once(struct scene *s, unsigned kind, const char *dma, bool lie)
{
    const struct flood *f = &floods[kind];
    char number[12], byte;
    int ready, stop;
    snprintf(number, sizeof(number), "%u", kind);
    snprintf(s->config.dma, sizeof(s->config.dma), "%s", dma);
    s->config.max_queues = f->put ? 0 : QUEUES;
    s->config.sector_bytes = f->parts ? 512 : 0;
    s->config.host_alignment_bytes = f->parts ? 4096 : 0;
    s->config.qos.iops = f->rate ? 50 : 0;
    blkworld_attach(&s->world, s->domid, BLKWORLD_DEVID, &s->config);
    pid_t guest = blkworld_spawn((const char *const[]){"flood", s->dir, number, NULL}, &ready, &stop);
    assert_int_equal(read(ready, &byte, 1), 1);
    check_neighbour(s);
    if (lie) {
        close(stop);
        blkworld_wait_back(&s->world, s->domid, BLKWORLD_DEVID, XenbusStateClosed);
    }
    blkworld_kill(guest);
    if (!lie)
        close(stop);
    close(ready);
    if (f->put)
        blkworld_wait_back(&s->world, s->domid, BLKWORLD_DEVID, XenbusStateClosed);
    blkworld_wait_held(&s->world, s->domid, 0);
    check_neighbour(s);
    blkworld_remove(&s->world, s->domid, BLKWORLD_DEVID);
}

static void flood_all(bool lie)
{
    static struct scene s;
    scene_start(&s);
    for (unsigned kind = 0; kind < ARRAY_SIZE(floods); kind++) {
        if (!floods[kind].put && lie)
            continue;
        print_message("%s\n", floods[kind].name);
        for (unsigned i = 0; i < dma_strategy_count; i++)
            flood_once(&s, kind, dma_strategies[i]->name, lie);
    }
    blkguest_disconnect(&s.neighbour);
    blkguest_close(&s.neighbour);
    blkworld_wait_held(&s.world, s.neighbour_domid, 0);
    blkworld_stop(&s.world);
}

static void test_no_flood_starves_a_neighbour_and_a_death_amid_it_leaves_nothing(void **state)
{
    (void)state;
    flood_all(false);
}

static void test_a_ring_that_lies_amid_a_flood_leaves_nothing(void **state)
{
    (void)state;
    flood_all(true);
}

int main(int argc, char **argv)
{
    blkworld_child(argc, argv);
    if (argc == 6 && !strcmp(argv[1], "flood"))
        return flood_main(argv[4], atoi(argv[2]), atoi(argv[3]), &floods[atoi(argv[5])]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_flood_starves_a_neighbour_and_a_death_amid_it_leaves_nothing),
        cmocka_unit_test(test_a_ring_that_lies_amid_a_flood_leaves_nothing),
    };
    return cmocka_run_group_tests_name("blk_floods", tests, NULL, NULL);
}
