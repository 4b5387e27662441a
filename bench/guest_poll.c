/* SPDX-License-Identifier: MIT */
/* bench/guest_poll.c: guests that ask for blocks as users do, to see how both ends wait (bench/poll.py).
 *
 *   guest_poll [-q QD | -R RATE | -R RATE -B BURST | -i] [options] DOMAIN-DIR...
 *
 * A process for each domain, each with one disk. All begin at the same moment, warm up, and are measured for the same
 * time; what is reported is the sum. Four patterns:
 *
 *   -q QD          closed loop: QD requests under way, each answer is the next request. It waits in dz_vbd_wait(), by
 * -p (polls for ever), -a (a window, then sleeps), or asleep at once. -R RATE        open loop: arrivals of a Poisson
 * process, RATE a second for all guests together, whatever is answered. -R RATE -B N   open loop: N arrivals at once,
 * at equal distances, those of several guests in turn. -i             nothing at all.
 *
 * An open loop's latency counts from the moment at which a request was to be made, not from when there was room for it:
 * where the server is late the whole queue behind it is late, and shows. Arrivals that nobody had begun by the end are
 * `left`: the rate was not reached. Such a guest is a program with an event loop, the same in all modes of the server:
 * it sleeps on the disk's descriptor until the next arrival, and looks at the ring instead only where that is less
 * than NEAR_NS away; with -n (both ends on one processor) never.
 *
 * Latencies in nanoseconds. Processor time: of the guests by their own clocks, of -c PID (servers) by the parent's,
 * each over the time that passed by the clock that was read beside it.
 */
#include <domzero/domzero.h>

#include <math.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/load.h"

#define ADAPTIVE_SPIN_US 100  /* as domzerod's default */
#define DEPTH_MAX        256u /* requests of an open loop under way; later arrivals queue behind them */
#define BLOCK_BYTES      4096u
#define NEAR_NS          50000 /* about what it costs to be woken on a processor that slept */
#define START_NS         (20 * CLOCK_NS_PER_MS)
#define GUESTS_MAX       64

struct options {
    struct load load; /* size, seed, servers */
    const char *vdev;
    bool poll, adaptive, sleeps, idle;
    unsigned qd, burst, guests;
    int cpu; /* -1: any */
    double rate, warm_s;
    char **dir;
};

/* What a guest has counted, where the parent sees it. */
struct told {
    struct hist latency_ns;
    uint64_t done, errors, left, requests, sent, received;
    uint64_t from_ns, to_ns; /* when its own measured time began and ended: late, where it was not let run */
    double cpu_s;
};

struct shared {
    atomic_uint ready;
    atomic_ullong start_ns; /* 0: not yet */
    struct told told[GUESTS_MAX];
};

struct guest {
    const struct options *options;
    struct load load;
    struct told *told;
    struct dz_domain *dom;
    struct dz_vbd *disk;
    unsigned depth, free_count;
    struct dz_io io[DEPTH_MAX], *free[DEPTH_MAX];
    uint64_t due_ns[DEPTH_MAX]; /* of each io: when it was to be made */
    uint64_t next_ns;           /* the arrival after those that were begun */
    unsigned of_burst;          /* how many of that burst are left */
    bool counts;                /* not warming up */
};

/* ---- arrivals ---- */

static double random_unit(struct guest *g)
{
    g->load.random ^= g->load.random << 13;
    g->load.random ^= g->load.random >> 7;
    g->load.random ^= g->load.random << 17;
    return ((double)(g->load.random >> 11) + 0.5) / (double)(1ull << 53);
}

static uint64_t guest_period_ns(const struct guest *g, double arrivals)
{
    return (uint64_t)(1e9 * arrivals * g->options->guests / g->options->rate);
}

static void arrival_first(struct guest *g, uint64_t start_ns, unsigned number)
{
    g->of_burst = g->options->burst;
    g->next_ns = start_ns;
    if (g->of_burst)
        g->next_ns += guest_period_ns(g, g->of_burst) * number / g->options->guests;
    else
        g->next_ns += guest_period_ns(g, -log(random_unit(g)));
}

static void arrival_next(struct guest *g)
{
    if (!g->options->burst) {
        g->next_ns += guest_period_ns(g, -log(random_unit(g)));
    } else if (--g->of_burst == 0) {
        g->of_burst = g->options->burst;
        g->next_ns += guest_period_ns(g, g->of_burst);
    }
}

/* ---- requests ---- */

static bool guest_submit(struct guest *g, uint64_t due_ns)
{
    struct dz_io *io = g->free[--g->free_count];
    io->offset_bytes = load_next_offset(&g->load);
    g->due_ns[io - g->io] = due_ns;
    return dz_vbd_submit(g->disk, io) == 0;
}

static void guest_count(struct guest *g, struct dz_io *const *done, int n)
{
    uint64_t now = clock_now_ns();
    for (int i = 0; i < n; i++) {
        g->free[g->free_count++] = done[i];
        g->told->errors += done[i]->result != 0;
        if (!g->counts)
            continue;
        g->told->done++;
        hist_add(&g->told->latency_ns, now - g->due_ns[done[i] - g->io]);
    }
}

static bool closed_run(struct guest *g, uint64_t end_ns)
{
    struct dz_io *done[DEPTH_MAX];
    for (uint64_t now; (now = clock_now_ns()) < end_ns;) {
        while (g->free_count > g->depth - g->options->qd)
            if (!guest_submit(g, now))
                return false;
        int n = dz_vbd_wait(g->disk, done, DEPTH_MAX, (int)((end_ns - now) / CLOCK_NS_PER_MS) + 1);
        if (n < 0)
            return false;
        guest_count(g, done, n);
    }
    return true;
}

/* Until the next arrival, or an answer: looks at the ring where that may be soon. */
static void open_wait(struct guest *g, uint64_t now_ns, uint64_t until_ns)
{
    if (!g->options->sleeps && until_ns < now_ns + NEAR_NS) {
        for (unsigned i = 0; i < 4; i++)
            __builtin_ia32_pause();
        return;
    }
    if (dz_vbd_arm(g->disk))
        return;
    struct pollfd fd = {.fd = dz_vbd_fd(g->disk), .events = POLLIN};
    uint64_t ns = until_ns - now_ns;
    ppoll(&fd, 1, &(struct timespec){(time_t)(ns / CLOCK_NS_PER_S), (long)(ns % CLOCK_NS_PER_S)}, NULL);
}

static bool open_run(struct guest *g, uint64_t end_ns)
{
    struct dz_io *done[DEPTH_MAX];
    for (uint64_t now; (now = clock_now_ns()) < end_ns;) {
        bool begun = false;
        for (; g->next_ns <= now && g->free_count; begun = true) {
            if (!guest_submit(g, g->next_ns))
                return false;
            arrival_next(g);
        }
        int n = dz_vbd_reap(g->disk, done, DEPTH_MAX); /* which publishes, too */
        if (n < 0)
            return false;
        guest_count(g, done, n);
        if (!n && !begun)
            open_wait(g, now, g->free_count ? MIN(g->next_ns, end_ns) : g->options->sleeps ? end_ns : now);
    }
    return true;
}

static bool idle_run(struct guest *g, uint64_t end_ns)
{
    struct timespec t = {(time_t)(end_ns / CLOCK_NS_PER_S), (long)(end_ns % CLOCK_NS_PER_S)};
    (void)g;
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
    return true;
}

static bool guest_pass_time(struct guest *g, uint64_t end_ns)
{
    return g->options->idle ? idle_run(g, end_ns) : g->options->qd ? closed_run(g, end_ns) : open_run(g, end_ns);
}

/* ---- a guest's life ---- */

static bool guest_open(struct guest *g, const char *dir)
{
    const struct options *o = g->options;
    struct dz_vbd_options v = {.queue_depth = o->qd ? o->qd : DEPTH_MAX, .pool_bytes = 4u << 20};
    if (o->qd)
        v.spin_us = o->poll ? UINT32_MAX : o->adaptive ? ADAPTIVE_SPIN_US : 0;
    if (dz_domain_open(dir, &g->dom) < 0 || dz_vbd_open(g->dom, o->vdev, &v, &g->disk) < 0)
        return false;
    struct dz_vbd_info info;
    dz_vbd_info(g->disk, &info);
    g->load.size_bytes = info.size_bytes;
    g->depth = MIN(info.queue_depth, DEPTH_MAX);
    for (unsigned i = 0; i < g->depth; i++) {
        g->io[i] =
            (struct dz_io){.op = DZ_READ, .buffer = dz_buffer_alloc(g->disk, BLOCK_BYTES), .length_bytes = BLOCK_BYTES};
        g->free[g->free_count++] = &g->io[i];
        if (!g->io[i].buffer)
            return false;
        memset(g->io[i].buffer, 1, BLOCK_BYTES);
    }
    return o->qd <= g->depth;
}

/* Each buffer once. The first request has the server map and register the pool, 2 ms of work: with little of the
 * processor left to it by others that takes longer than a warm-up, and belongs into no measurement. Sleeps in all
 * modes, as who looks would keep the processor that the server needs. */
static bool guest_first(struct guest *g)
{
    struct dz_io *done[DEPTH_MAX];
    while (g->free_count)
        if (!guest_submit(g, clock_now_ns()))
            return false;
    for (int n; (n = dz_vbd_reap(g->disk, done, DEPTH_MAX)) >= 0;) {
        guest_count(g, done, n);
        if (g->free_count == g->depth)
            return true;
        struct pollfd fd = {.fd = dz_vbd_fd(g->disk), .events = POLLIN};
        if (!dz_vbd_arm(g->disk) && poll(&fd, 1, 10000) == 0)
            return false;
    }
    return false;
}

/* Answers of what is still under way are nobody's. */
static bool guest_drain(struct guest *g)
{
    struct dz_io *done[DEPTH_MAX];
    g->counts = false;
    while (g->free_count < g->depth) {
        int n = dz_vbd_wait(g->disk, done, DEPTH_MAX, 10000);
        if (n <= 0)
            return false;
        guest_count(g, done, n);
    }
    return true;
}

static void guest_mark(struct guest *g, double sign)
{
    struct dz_vbd_stats s;
    struct told *t = g->told;
    dz_vbd_stats(g->disk, &s);
    t->cpu_s += sign * load_cpu_s(0);
    *(sign < 0 ? &t->from_ns : &t->to_ns) = clock_now_ns();
    t->requests = s.requests - t->requests;
    t->sent = s.notifications_sent - t->sent;
    t->received = s.notifications_received - t->received;
}

static bool guest_measure(struct guest *g, uint64_t start_ns, unsigned number)
{
    const struct options *o = g->options;
    const uint64_t warm_ns = (uint64_t)(o->warm_s * 1e9),
                   end_ns = start_ns + warm_ns + (uint64_t)(o->load.seconds * 1e9);
    if (o->rate > 0)
        arrival_first(g, start_ns, number);
    idle_run(g, start_ns);
    if (!guest_pass_time(g, start_ns + warm_ns))
        return false;
    g->counts = true;
    guest_mark(g, -1);
    bool good = guest_pass_time(g, end_ns);
    guest_mark(g, 1);
    for (; o->rate > 0 && g->next_ns < end_ns; arrival_next(g))
        g->told->left++;
    return good && guest_drain(g);
}

static int guest_main(const struct options *o, struct shared *s, unsigned number)
{
    static struct guest g;
    g = (struct guest){.options = o, .load = load_part(&o->load, number), .told = &s->told[number]};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_TIMERSLACK, 1);
    if (o->cpu >= 0) {
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(o->cpu, &one);
        sched_setaffinity(0, sizeof(one), &one);
    }
    bool good = guest_open(&g, o->dir[number]) && guest_first(&g);
    if (good)
        atomic_fetch_add(&s->ready, 1);
    while (good && !atomic_load(&s->start_ns))
        poll(NULL, 0, 1);
    good = good && guest_measure(&g, atomic_load(&s->start_ns), number);
    if (!good)
        fprintf(stderr, "guest_poll: %s: %s\n", o->dir[number], dz_error());
    dz_vbd_close(g.disk);
    dz_domain_close(g.dom);
    return !good || g.told->errors;
}

/* ---- the parent ---- */

/* As hist_quantile(), but with the place within the bucket: two that differ by 5 % are not the same. */
static double quantile_us(const struct hist *h, double fraction)
{
    double seen = 0, target = (double)h->count * fraction;
    for (unsigned i = 0; i < HIST_BUCKETS; i++) {
        double n = (double)h->bucket[i];
        if (n <= 0 || seen + n < target) {
            seen += n;
            continue;
        }
        double low = i < 16 ? i : (double)((16ull + i % 16) << (i / 16 - 1));
        double wide = i < 16 ? 1 : (double)(1ull << (i / 16 - 1));
        return (low + wide * (target - seen) / n) / 1e3;
    }
    return 0;
}

static void told_add(struct told *all, const struct told *t)
{
    for (unsigned i = 0; i < HIST_BUCKETS; i++)
        all->latency_ns.bucket[i] += t->latency_ns.bucket[i];
    all->latency_ns.count += t->latency_ns.count;
    all->latency_ns.max = MAX(all->latency_ns.max, t->latency_ns.max);
    all->done += t->done;
    all->errors += t->errors;
    all->left += t->left;
    all->requests += t->requests;
    all->sent += t->sent;
    all->received += t->received;
    all->cpu_s += t->cpu_s;
    all->from_ns = all->from_ns ? MIN(all->from_ns, t->from_ns) : t->from_ns;
    all->to_ns = MAX(all->to_ns, t->to_ns);
}

static void told_print(const struct told *t, double server_cpu)
{
    double requests = t->requests ? (double)t->requests : 1, elapsed_s = (double)(t->to_ns - t->from_ns) / 1e9;
    printf(
        "{\"iops\": %.1f, \"p50_us\": %.4f, \"p99_us\": %.4f, \"p999_us\": %.4f, \"most_us\": %.3f, \"client_cpu\": "
        "%.6f, "
        "\"server_cpu\": %.6f, \"sent_per_request\": %.6f, \"received_per_request\": %.6f, \"done\": %llu, \"errors\": "
        "%llu, \"left\": %llu, \"elapsed_s\": %.4f}\n",
        (double)t->done / elapsed_s, quantile_us(&t->latency_ns, 0.5), quantile_us(&t->latency_ns, 0.99),
        quantile_us(&t->latency_ns, 0.999), (double)t->latency_ns.max / 1e3, t->cpu_s / elapsed_s, server_cpu,
        (double)t->sent / requests, (double)t->received / requests, (unsigned long long)t->done,
        (unsigned long long)t->errors, (unsigned long long)t->left, elapsed_s);
}

/* Processors that the servers keep busy between two moments. */
static double servers_watch(const struct options *o, uint64_t start_ns)
{
    uint64_t begin_ns = start_ns + (uint64_t)(o->warm_s * 1e9);
    idle_run(NULL, begin_ns);
    double cpu = -load_servers_cpu_s(&o->load);
    uint64_t from_ns = clock_now_ns();
    idle_run(NULL, begin_ns + (uint64_t)(o->load.seconds * 1e9));
    cpu += load_servers_cpu_s(&o->load);
    return cpu * 1e9 / (double)(clock_now_ns() - from_ns);
}

static int parent_main(const struct options *o, struct shared *s)
{
    static struct told all;
    double server_cpu = 0;
    int status, broken = 0;
    while (atomic_load(&s->ready) < o->guests) {
        if (waitpid(-1, &status, WNOHANG) > 0)
            return 1; /* it said why; the others die with us */
        poll(NULL, 0, 1);
    }
    uint64_t start_ns = clock_now_ns() + START_NS;
    atomic_store(&s->start_ns, start_ns);
    server_cpu = servers_watch(o, start_ns);
    while (wait(&status) > 0)
        broken |= status != 0;
    for (unsigned i = 0; i < o->guests; i++)
        told_add(&all, &s->told[i]);
    if (!broken)
        told_print(&all, server_cpu);
    return broken;
}

static int options_parse(struct options *o, int argc, char **argv)
{
    uint64_t v = 0;
    *o = (struct options){
        .load = {.seconds = 1, .random = 88172645463325252ull, .threads = 1, .block_bytes = BLOCK_BYTES},
        .vdev = "xvda",
        .cpu = -1};
    for (int c; (c = getopt(argc, argv, "t:q:R:B:ipanA:s:W:r:c:")) != -1;) {
        bool ok = true;
        switch (c) {
        case 't': o->vdev = optarg; break;
        case 'q': ok = !parse_u64(optarg, 1, DEPTH_MAX, &v), o->qd = (unsigned)v; break;
        case 'R': o->rate = strtod(optarg, NULL), ok = o->rate > 0; break;
        case 'B': ok = !parse_u64(optarg, 1, DEPTH_MAX, &v), o->burst = (unsigned)v; break;
        case 'i': o->idle = true; break;
        case 'p': o->poll = true; break;
        case 'a': o->adaptive = true; break;
        case 'n': o->sleeps = true; break;
        case 'A': ok = !parse_u64(optarg, 0, CPU_SETSIZE - 1, &v), o->cpu = (int)v; break;
        case 's': o->load.seconds = strtod(optarg, NULL), ok = o->load.seconds > 0; break;
        case 'W': o->warm_s = strtod(optarg, NULL), ok = o->warm_s >= 0; break;
        case 'r': ok = !parse_u64(optarg, 1, UINT64_MAX, &v), o->load.random ^= v * 0x9e3779b97f4a7c15ull; break;
        case 'c': ok = load_server(&o->load, optarg); break;
        default: ok = false;
        }
        if (!ok)
            return -1;
    }
    o->dir = argv + optind;
    o->guests = (unsigned)(argc - optind);
    return o->guests && o->guests <= GUESTS_MAX && (o->qd > 0) + (o->rate > 0) + o->idle == 1 ? 0 : -1;
}

int main(int argc, char **argv)
{
    static struct options o;
    if (options_parse(&o, argc, argv)) {
        fprintf(
            stderr,
            "usage: %s [-q QD [-p | -a] | -R RATE [-B BURST] [-n (never spins)] | -i] [-t VDEV] [-A CPU] [-s SECONDS] "
            "[-W SECONDS (before, to warm up)] [-r SEED] [-c PID (of a server)]... DOMAIN-DIR...\n",
            argv[0]);
        return 2;
    }
    struct shared *s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (s == MAP_FAILED)
        return 1;
    for (unsigned i = 0; i < o.guests; i++) {
        pid_t pid = fork();
        if (pid == 0)
            _exit(guest_main(&o, s, i));
        if (pid < 0)
            return 1;
    }
    return parent_main(&o, s);
}
