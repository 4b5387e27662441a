/* SPDX-License-Identifier: MIT */
/* bench/store_load.c: clients of a store, as many as a host has domains, in one thread that costs as little as it can.
 *
 *   store_load -t SOCKET -k KIND [-n CONNECTIONS] [-N COUNT] [-s SECONDS] [-w WARM-UP] [-r SEED] [-c PID (of the
 * server)]
 *
 * Loads: each connection does an operation, waits for its end and does the next. They are rows of `loads`. Prepared by
 * `fill` (COUNT nodes, a hundred below each directory) and `children` (COUNT below one node), requests one behind the
 * other; `hold` has COUNT watches that match nothing the loads do, until its standard input ends. `idle` has
 * connections and does nothing.
 *
 * With -R connections are domains of their own, each with a ring page; but for a fan-out's writer, which is domain 0.
 *
 * Latency is from the first byte that is sent for an operation to the last that is received. One connection waits in
 * recv(2) as libxenstore does; more of them in epoll. What is under way at the end is not counted. Processor time is
 * that of whole processes, between the same two moments as the wall clock's. Printed: one JSON object on one line. */
#include <sys/epoll.h>

#include "bench/load.h"
#include "bench/store_ring.h"

#define CONNECTIONS_MAX 1024
#define WINDOW          16 /* requests of a preparation that are under way */

struct conn {
    struct store_conn_client *client;
    unsigned index, step;
    uint32_t tx;
    uint64_t begin_ns;
};

struct bench {
    struct load load;
    const struct kind *kind;
    const char *kind_name, *ring_dir;
    struct store_host host;
    unsigned connections; /* that do operations; a fan-out's watchers are that many more */
    unsigned opened;
    uint64_t count; /* of what there is: nodes, children, watches */
    double warm_s;
    unsigned waiting; /* events of a fan-out that have not come yet */
    uint64_t again, events;
    bool broken;
    struct conn conn[CONNECTIONS_MAX];
};

/* A load: what is sent in step `step` of an operation (false: the operation is over), and what an answer means. */
struct kind {
    const char *name;
    bool (*request)(struct bench *b, struct conn *c, struct store_request *out);
    bool fan; /* connection 0 writes, all others watch */
};

static uint64_t random_of(struct bench *b)
{
    struct load *l = &b->load;
    l->random ^= l->random << 13;
    l->random ^= l->random >> 7;
    l->random ^= l->random << 17;
    return b->count ? (l->random >> 32) * b->count >> 32 : 0;
}

/* The path of node `n`; its NUL is not there yet. */
static void node_begin(struct store_request *out, uint32_t type, uint64_t n)
{
    store_begin(out, type, 0);
    store_text(out, "/bench/n/");
    store_number(out, n / 100);
    if (type == XS_DIRECTORY)
        return;
    store_text(out, "/");
    store_number(out, n % 100);
}

static void value_put(struct store_request *out)
{
    store_nul(out);
    store_text(out, "0123456789abcdef");
}

static bool read_request(struct bench *b, struct conn *c, struct store_request *out)
{
    if (c->step)
        return false;
    node_begin(out, XS_READ, random_of(b));
    store_nul(out);
    return true;
}

static bool write_request(struct bench *b, struct conn *c, struct store_request *out)
{
    if (c->step)
        return false;
    node_begin(out, XS_WRITE, random_of(b));
    value_put(out);
    return true;
}

static bool list_request(struct bench *b, struct conn *c, struct store_request *out)
{
    if (c->step)
        return false;
    node_begin(out, XS_DIRECTORY, random_of(b));
    store_nul(out);
    return true;
}

static void own_begin(struct store_request *out, uint32_t type, uint32_t tx, uint64_t domain, bool second)
{
    store_begin(out, type, tx);
    store_text(out, "/bench/own/");
    store_number(out, domain);
    second ? store_text(out, "/b") : store_text(out, "/a");
}

/* Of a domain that changes its own nodes: one is read, two are written. */
static bool transaction_request(struct bench *b, struct conn *c, struct store_request *out)
{
    (void)b;
    switch (c->step) {
    case 0:
        store_begin(out, XS_TRANSACTION_START, 0);
        store_nul(out);
        return true;
    case 1:
        own_begin(out, XS_READ, c->tx, c->index, false);
        store_nul(out);
        return true;
    case 2:
    case 3:
        own_begin(out, XS_WRITE, c->tx, c->index, c->step == 3);
        value_put(out);
        return true;
    case 4:
        store_begin(out, XS_TRANSACTION_END, c->tx);
        store_text(out, "T");
        store_nul(out);
        return true;
    default: return false;
    }
}

/* A node comes and goes below the one that has many. */
static bool child_request(struct bench *b, struct conn *c, struct store_request *out)
{
    (void)b;
    store_begin(out, c->step ? XS_RM : XS_WRITE, 0);
    store_text(out, "/bench/dir/new");
    store_number(out, c->index);
    c->step ? store_nul(out) : value_put(out);
    return c->step < 2;
}

static bool fan_request(struct bench *b, struct conn *c, struct store_request *out)
{
    if (c->step)
        return false;
    b->waiting = b->opened - 1;
    store_begin(out, XS_WRITE, 0);
    store_text(out, "/bench/fan/x");
    value_put(out);
    return true;
}

static const struct kind loads[] = {
    {.name = "read", .request = read_request},   {.name = "write", .request = write_request},
    {.name = "list", .request = list_request},   {.name = "transaction", .request = transaction_request},
    {.name = "child", .request = child_request}, {.name = "fan", .request = fan_request, .fan = true},
};

/* ---- preparations: requests one behind the other on one connection ---- */

struct preparation {
    const char *name;
    void (*compose)(struct store_request *out, uint64_t i);
    unsigned messages; /* that come for each request: its answer, and a watch's first event */
};

static void fill_compose(struct store_request *out, uint64_t i)
{
    node_begin(out, XS_WRITE, i);
    value_put(out);
}

static void children_compose(struct store_request *out, uint64_t i)
{
    store_begin(out, XS_WRITE, 0);
    store_text(out, "/bench/dir/c");
    store_number(out, i);
    value_put(out);
}

static void own_compose(struct store_request *out, uint64_t i)
{
    own_begin(out, XS_WRITE, 0, i / 2, i % 2);
    value_put(out);
}

static void watch_put(struct store_request *out, uint64_t token)
{
    store_nul(out);
    store_number(out, token);
    store_nul(out);
}

static void elsewhere_compose(struct store_request *out, uint64_t i)
{
    store_begin(out, XS_WATCH, 0);
    store_text(out, "/bench/elsewhere/");
    store_number(out, i);
    watch_put(out, i);
}

static void fan_compose(struct store_request *out, uint64_t i)
{
    store_begin(out, XS_WATCH, 0);
    store_text(out, "/bench/fan");
    watch_put(out, i);
}

/* All that is made below may be read and written by everyone. */
static void root_compose(struct store_request *out, uint64_t i)
{
    store_begin(out, i == 1 ? XS_SET_PERMS : XS_WRITE, 0);
    store_text(out, "/bench");
    if (i == 2)
        store_text(out, "/fan/x");
    store_nul(out);
    if (i == 1)
        store_text(out, "b0\0");
}

static const struct preparation root = {"root", root_compose, 1};
static const struct preparation preparations[] = {
    {"fill", fill_compose, 1},
    {"children", children_compose, 1},
    {"own", own_compose, 1},
};
static const struct preparation elsewhere = {"hold", elsewhere_compose, 2}, fan_watch = {"fan", fan_compose, 2};

static bool answer_is_good(const struct store_answer *a)
{
    if (a->header.type != XS_ERROR)
        return true;
    fprintf(stderr, "store_load: the store answered %.*s\n", (int)a->header.len, a->payload);
    return false;
}

static bool send_request(struct store_conn_client *c, struct store_request *r)
{
    return c->ring ? ring_send(c, r) : store_send(c, r);
}

/* Requests first … end - 1, about WINDOW of them without an answer. */
static bool do_all(struct store_conn_client *c, const struct preparation *p, uint64_t first, uint64_t end)
{
    uint64_t came = 0, all = (end - first) * p->messages, sent = first;
    while (came < all) {
        for (; sent < end && sent - first < came / p->messages + WINDOW; sent++) {
            struct store_request r;
            p->compose(&r, sent);
            if (!send_request(c, &r))
                return false;
        }
        if (c->ring ? !ring_wait(c) || !ring_receive(c) : !store_receive(c))
            return false;
        for (struct store_answer a; store_take(c, &a); came++)
            if (!answer_is_good(&a))
                return false;
    }
    return true;
}

static int prepare(struct bench *b, const struct preparation *p)
{
    struct store_conn_client *c = store_connect(b->load.target);
    bool good = c && do_all(c, &root, 0, 3);
    uint64_t start_ns = clock_now_ns();
    good = good && do_all(c, p, 0, b->count);
    printf("{\"per_s\": %.0f, \"errors\": %d}\n", (double)b->count * 1e9 / (double)(clock_now_ns() - start_ns), !good);
    store_disconnect(c);
    return !good;
}

/* ---- a load ---- */

static void operation_go_on(struct bench *b, struct conn *c)
{
    struct store_request r;
    if (!b->kind->request(b, c, &r)) {
        hist_add(&b->load.latency_ns, clock_now_ns() - c->begin_ns);
        b->load.done++;
        c->step = 0;
        b->kind->request(b, c, &r);
    }
    if (c->step == 0)
        c->begin_ns = clock_now_ns();
    if (!send_request(c->client, &r))
        b->broken = true;
}

/* A fan-out's operation goes on when its answer and all events are there. */
static void on_answer(struct bench *b, struct conn *c, const struct store_answer *a)
{
    if (a->header.type == XS_ERROR && a->header.len == sizeof("EAGAIN") && !memcmp(a->payload, "EAGAIN", a->header.len))
        b->again++;
    else if (!answer_is_good(a))
        b->load.errors++;
    if (a->header.type == XS_TRANSACTION_START)
        c->tx = (uint32_t)strtoul(a->payload, NULL, 10);
    c->step++;
    if (!b->waiting)
        operation_go_on(b, c);
}

static void on_event(struct bench *b)
{
    b->events++;
    if (b->waiting && --b->waiting == 0 && b->conn[0].step)
        operation_go_on(b, &b->conn[0]);
}

static void on_readable(struct bench *b, struct conn *c)
{
    if (!(c->client->ring ? ring_receive(c->client) : store_receive(c->client))) {
        fprintf(stderr, "store_load: the store closed connection %u\n", c->index);
        b->broken = true;
        return;
    }
    for (struct store_answer a; store_take(c->client, &a);) {
        if (a.header.type == XS_WATCH_EVENT)
            on_event(b);
        else
            on_answer(b, c, &a);
    }
}

static void run_until(struct bench *b, int epoll_fd, uint64_t end_ns)
{
    struct epoll_event ready[256];
    while (!b->broken && clock_now_ns() < end_ns) {
        if (b->opened == 1 && !b->ring_dir) {
            on_readable(b, &b->conn[0]);
            continue;
        }
        int n = epoll_wait(epoll_fd, ready, ARRAY_SIZE(ready), 100);
        for (int i = 0; i < n; i++)
            on_readable(b, ready[i].data.ptr);
    }
}

static bool connections_open(struct bench *b, int epoll_fd)
{
    bool fan = b->kind && b->kind->fan;
    unsigned wanted = b->connections + fan;
    if (b->ring_dir && !host_open(&b->host, b->load.target, b->ring_dir))
        return false;
    for (unsigned i = 0; i < wanted; i++, b->opened++) {
        struct conn *c = &b->conn[i];
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        c->index = i;
        c->client = b->ring_dir && !(fan && i == 0) ? guest_open(&b->host, i) : store_connect(b->load.target);
        if (!c->client || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->client->fd, &event))
            return false;
        if (fan && i && !do_all(c->client, &fan_watch, i, i + 1))
            return false;
    }
    return true;
}

static void connections_close(struct bench *b)
{
    for (unsigned i = 0; i < b->opened; i++)
        if (b->conn[i].client && b->conn[i].client->ring)
            guest_close(&b->host, b->conn[i].client);
        else
            store_disconnect(b->conn[i].client);
    if (b->ring_dir)
        host_close(&b->host);
}

static bool measure(struct bench *b, int epoll_fd)
{
    struct load *l = &b->load;
    for (unsigned i = 0; i < (b->kind->fan ? 1 : b->connections); i++)
        operation_go_on(b, &b->conn[i]);
    run_until(b, epoll_fd, clock_now_ns() + (uint64_t)(b->warm_s * 1e9));
    l->latency_ns = (struct hist){0};
    l->done = b->again = b->events = 0;
    load_begin(l);
    run_until(b, epoll_fd, l->end_ns);
    load_end(l);
    double done = l->done ? (double)l->done : 1;
    printf("{\"per_s\": %.1f, \"events_per_s\": %.1f, \"p50_us\": %.2f, \"p99_us\": %.2f, \"p999_us\": %.2f, "
           "\"server_us\": %.4f, \"client_us\": %.4f, \"client_busy\": %.3f, \"server_busy\": %.3f, \"again\": %llu, "
           "\"done\": %llu, \"errors\": %llu, \"elapsed_s\": %.4f}\n",
           (double)l->done / l->elapsed_s, (double)b->events / l->elapsed_s,
           (double)hist_quantile(&l->latency_ns, 0.5) / 1e3, (double)hist_quantile(&l->latency_ns, 0.99) / 1e3,
           (double)hist_quantile(&l->latency_ns, 0.999) / 1e3, l->server_cpu_s * 1e6 / done, l->cpu_s * 1e6 / done,
           l->cpu_s / l->elapsed_s, l->server_cpu_s / l->elapsed_s, (unsigned long long)b->again,
           (unsigned long long)l->done, (unsigned long long)l->errors, l->elapsed_s);
    return !b->broken;
}

/* ---- connections that do nothing ---- */

static bool idle(struct bench *b)
{
    usleep(100000); /* the store has accepted all of them */
    load_begin(&b->load);
    usleep((useconds_t)(b->load.seconds * 1e6));
    load_end(&b->load);
    printf("{\"server_busy\": %.6f, \"errors\": 0, \"elapsed_s\": %.4f}\n", b->load.server_cpu_s / b->load.elapsed_s,
           b->load.elapsed_s);
    return true;
}

/* Connection i has the i-th part of all watches. */
static bool hold(struct bench *b)
{
    for (unsigned i = 0; i < b->opened; i++)
        if (!do_all(b->conn[i].client, &elsewhere, b->count * i / b->opened, b->count * (i + 1) / b->opened))
            return false;
    printf("held\n");
    fflush(stdout);
    return getchar() == EOF;
}

static int connected(struct bench *b, bool (*what)(struct bench *b))
{
    _cleanup_close_ int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    bool good = connections_open(b, epoll_fd) && (what ? what(b) : measure(b, epoll_fd));
    connections_close(b);
    return !good;
}

static int usage(void)
{
    fprintf(stderr, "usage: store_load -t SOCKET -k KIND [-n CONNECTIONS] [-N COUNT] [-s SECONDS] [-w WARM-UP] "
                    "[-r SEED] [-c PID] [-R DIRECTORY]\nKIND: fill children own hold idle");
    for (size_t i = 0; i < ARRAY_SIZE(loads); i++)
        fprintf(stderr, " %s", loads[i].name);
    fprintf(stderr, "\n");
    return 2;
}

static bool parse(struct bench *b, int argc, char **argv)
{
    struct load *l = &b->load;
    uint64_t v = 1;
    *l = (struct load){.seconds = 1, .random = 88172645463325252ull};
    b->connections = 1;
    for (int c; (c = getopt(argc, argv, "t:k:n:N:s:w:r:c:R:")) != -1;) {
        bool ok = true;
        switch (c) {
        case 't': l->target = optarg; break;
        case 'k': b->kind_name = optarg; break;
        case 'R': b->ring_dir = optarg; break;
        case 'n': ok = !parse_u64(optarg, 1, CONNECTIONS_MAX - 1, &v), b->connections = (unsigned)v; break;
        case 'N': ok = !parse_u64(optarg, 0, UINT32_MAX, &b->count); break;
        case 's': l->seconds = strtod(optarg, NULL), ok = l->seconds > 0; break;
        case 'w': b->warm_s = strtod(optarg, NULL), ok = b->warm_s >= 0; break;
        case 'r': ok = !parse_u64(optarg, 1, UINT64_MAX, &v), l->random ^= v * 0x9e3779b97f4a7c15ull; break;
        case 'c': ok = load_server(l, optarg); break;
        default: ok = false;
        }
        if (!ok)
            return false;
    }
    return l->target && b->kind_name;
}

int main(int argc, char **argv)
{
    static struct bench b;
    if (!parse(&b, argc, argv))
        return usage();
    for (size_t i = 0; i < ARRAY_SIZE(preparations); i++)
        if (!strcmp(preparations[i].name, b.kind_name))
            return prepare(&b, &preparations[i]);
    if (!strcmp(b.kind_name, "hold"))
        return connected(&b, hold);
    if (!strcmp(b.kind_name, "idle"))
        return connected(&b, idle);
    for (size_t i = 0; i < ARRAY_SIZE(loads); i++)
        if (!strcmp(loads[i].name, b.kind_name))
            b.kind = &loads[i];
    return b.kind ? connected(&b, NULL) : usage();
}
