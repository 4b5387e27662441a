/* SPDX-License-Identifier: MIT */
/* bench/store_engine.c: what the store's engine costs, with no socket around: nanoseconds of one request, and how that
 * grows with the tree, with siblings and with watches of others; bytes of memory of one node. `store_engine ROW COUNT`
 * runs one row COUNT times, for a profiler.
 *
 * A row is: what is there before (`setup`, with a size), and one round of requests that leaves things as they were. */
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/parse.h"
#include "store/ops.h"

#define ROUNDS 7
#define DEVICE "/local/domain/1/device/vbd/51712"

struct world {
    struct store_engine g;
    struct store_session dom0, guest;
    struct store_message in, out;
};

static void check(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "store_engine: %s\n", what);
    exit(1);
}

static const char *ask(struct world *w, struct store_session *s, uint32_t type, uint32_t tx, const char *payload,
                       size_t length)
{
    w->in.header = (struct xsd_sockmsg){.type = type, .tx_id = tx, .len = (uint32_t)length};
    memcpy(w->in.payload, payload, length);
    store_ops_handle(s, &w->in, &w->out);
    return w->out.payload;
}

static void expect(struct world *w, uint32_t type, uint32_t tx, const char *payload, size_t length)
{
    ask(w, &w->dom0, type, tx, payload, length);
    check(w->out.header.type == type, w->out.payload);
}

static void put(struct world *w, uint32_t tx, const char *path, const char *value)
{
    char payload[256];
    int n = snprintf(payload, sizeof(payload), "%s%c%s", path, '\0', value);
    expect(w, XS_WRITE, tx, payload, (size_t)n);
}

static void get(struct world *w, uint32_t type, uint32_t tx, const char *path)
{
    expect(w, type, tx, path, strlen(path) + 1);
}

static void drain(struct world *w, struct store_session *s)
{
    while (store_watch_next(&w->g.watches, s, w->out.payload) > 0)
        continue;
}

/* --- what is there before ----------------------------------------------------------------------------------- */

static void setup_siblings(struct world *w, unsigned size)
{
    char path[64];
    for (unsigned i = 0; i < size; i++) {
        snprintf(path, sizeof(path), "/wide/child-%u", i);
        put(w, 0, path, "value");
    }
    drain(w, &w->guest);
}

static void setup_watches(struct world *w, unsigned size)
{
    char payload[64];
    for (unsigned i = 0; i < size; i++) {
        int n = snprintf(payload, sizeof(payload), "/elsewhere/%u%ctoken", i, '\0');
        expect(w, XS_WATCH, 0, payload, (size_t)n + 1);
    }
    drain(w, &w->dom0);
}

static void setup_watchers(struct world *w, unsigned size)
{
    char payload[64];
    for (unsigned i = 0; i < size; i++) {
        int n = snprintf(payload, sizeof(payload), DEVICE "/state%ctoken-%u", '\0', i);
        expect(w, XS_WATCH, 0, payload, (size_t)n + 1);
    }
    drain(w, &w->dom0);
}

/* --- one round ---------------------------------------------------------------------------------------------- */

static void round_read(struct world *w)
{
    get(w, XS_READ, 0, DEVICE "/state");
}

static void round_missing(struct world *w)
{
    ask(w, &w->dom0, XS_READ, 0, DEVICE "/nothing", sizeof(DEVICE "/nothing"));
}

static void round_write(struct world *w)
{
    put(w, 0, DEVICE "/state", "4");
}

static void round_write_told(struct world *w)
{
    put(w, 0, DEVICE "/state", "4");
    drain(w, &w->dom0);
}

static void round_child(struct world *w)
{
    put(w, 0, "/wide/another", "value");
    get(w, XS_RM, 0, "/wide/another");
}

static void round_transaction(struct world *w)
{
    char id[16];
    uint32_t tx = (uint32_t)strtoul(ask(w, &w->dom0, XS_TRANSACTION_START, 0, "", 1), NULL, 10);
    snprintf(id, sizeof(id), "T");
    get(w, XS_READ, tx, DEVICE "/state");
    put(w, tx, DEVICE "/state", "4");
    put(w, tx, DEVICE "/sectors", "1048576");
    get(w, XS_TRANSACTION_END, tx, id);
}

static void round_list(struct world *w)
{
    get(w, XS_DIRECTORY, 0, "/wide");
}

static void round_list_parts(struct world *w)
{
    char payload[64];
    for (size_t offset = 0;;) {
        int n = snprintf(payload, sizeof(payload), "/wide%c%zu", '\0', offset);
        expect(w, XS_DIRECTORY_PART, 0, payload, (size_t)n + 1);
        size_t generation = strlen(w->out.payload) + 1, names = w->out.header.len - generation;
        offset += names;
        if (names == 0 || (names >= 1 && w->out.payload[w->out.header.len - 1] == '\0' &&
                           (names == 1 || w->out.payload[w->out.header.len - 2] == '\0')))
            return;
    }
}

static void round_death(struct world *w)
{
    char path[64];
    for (unsigned i = 0; i < 100; i++) {
        snprintf(path, sizeof(path), "/local/domain/1/data/%u", i);
        put(w, 0, path, "value");
    }
    store_engine_domain_gone(&w->g, 1);
    expect(w, XS_INTRODUCE, 0,
           "1\0"
           "1\0"
           "2",
           6);
    put(w, 0, "/local/domain/1", "");
    expect(w, XS_SET_PERMS, 0, "/local/domain/1\0n1", 19);
}

static const struct row {
    const char *name, *size_of;
    void (*setup)(struct world *w, unsigned size);
    void (*round)(struct world *w);
    unsigned count;
    unsigned sizes[4]; /* 0: the end, but for the first */
} rows[] = {
    {"read", "", NULL, round_read, 200000, {0}},
    {"read-missing", "", NULL, round_missing, 200000, {0}},
    {"write", "", NULL, round_write, 200000, {0}},
    {"read-tree", "nodes", setup_siblings, round_read, 200000, {1000, 10000, 100000}},
    {"write-watches", "watches elsewhere", setup_watches, round_write, 200000, {100, 10000, 100000}},
    {"write-told", "watchers", setup_watchers, round_write_told, 20000, {1, 16, 256}},
    {"make-remove", "siblings", setup_siblings, round_child, 50000, {1, 1000, 100000}},
    {"transaction", "read, 2 writes", NULL, round_transaction, 50000, {0}},
    {"list", "children", setup_siblings, round_list, 50000, {10, 100, 200}},
    {"list-parts", "children", setup_siblings, round_list_parts, 20, {1000, 10000, 100000}},
    {"death", "nodes elsewhere", setup_siblings, round_death, 200, {1, 10000, 100000}},
};

static void world_open(struct world *w)
{
    check(store_engine_init(&w->g, NULL, 0x1234567) == 0, "no memory");
    check(store_session_init(&w->dom0, &w->g, 0) == 0 && store_session_init(&w->guest, &w->g, 1) == 0, "no memory");
    put(w, 0, DEVICE "/state", "4");
    put(w, 0, DEVICE "/sectors", "1048576");
}

static void world_close(struct world *w)
{
    store_session_deinit(&w->guest);
    store_session_deinit(&w->dom0);
    store_engine_deinit(&w->g);
}

static int by_value(const void *a, const void *b)
{
    double d = *(const double *)a - *(const double *)b;
    return d < 0 ? -1 : d > 0;
}

static void row_run(const struct row *row, unsigned size, unsigned count)
{
    static struct world w;
    double ns[ROUNDS];
    world_open(&w);
    size_t before = mallinfo2().uordblks, nodes = w.g.tree.slots.count;
    if (row->setup)
        row->setup(&w, size);
    nodes = w.g.tree.slots.count - nodes;
    double bytes = nodes ? (double)(mallinfo2().uordblks - before) / (double)nodes : 0;
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t start = clock_now_ns();
        for (unsigned n = 0; n < count; n++)
            row->round(&w);
        ns[i] = (double)(clock_now_ns() - start) / count;
    }
    qsort(ns, ROUNDS, sizeof(ns[0]), by_value);
    char what[48] = "";
    snprintf(what, sizeof(what), row->setup ? "%u %s" : "%.0u%s", size, row->size_of);
    printf("%-14s %-24s %10.0f  %10.0f … %.0f", row->name, what, ns[ROUNDS / 2], ns[0], ns[ROUNDS - 1]);
    nodes >= 1000 ? printf("   %.0f bytes a node\n", bytes) : printf("\n");
    world_close(&w);
}

int main(int argc, char **argv)
{
    uint64_t count = 0;
    if (argc > 1 && (argc != 3 || parse_u64(argv[2], 1, UINT32_MAX, &count) < 0)) {
        fprintf(stderr, "usage: store_engine [ROW COUNT]\n");
        return 2;
    }
    printf("%-14s %-24s %10s  %10s\n", "row", "", "ns", "min … max");
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        for (unsigned j = 0; j < 4 && (j == 0 || rows[i].sizes[j]); j++)
            if (argc == 1 || strcmp(argv[1], rows[i].name) == 0)
                row_run(&rows[i], rows[i].sizes[j], count ? (unsigned)count : rows[i].count);
    return 0;
}
