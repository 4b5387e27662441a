/* SPDX-License-Identifier: MIT */
/* bench/load.h: what all sides of a comparison share: the options of a load, where its next request goes, whose
 * processor time counts, and the row that it prints, so that nothing but the path under test differs.
 *
 * A load is a closed loop: QD requests of `block_bytes`, at random aligned offsets or in order, for `seconds`. Latency
 * is from the moment a request is handed over to the moment its completion is seen, in nanoseconds. Processor time is
 * taken at the same two moments as the wall clock's, of this process and of those named by -c (servers): the clocks of
 * whole processes, so that io_uring's workers and threads that ended in between are in it, to the nanosecond.
 */
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include <assert.h>
#include <getopt.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>

#include "base/clock.h"
#include "base/hist.h"
#include "base/parse.h"

#define LOAD_QD_MAX      256
#define LOAD_THREADS_MAX 16
#define LOAD_SERVERS_MAX 8

struct load {
    const char *target; /* a file, a vdev, or a socket */
    bool write, poll, adaptive, direct, sequential, nop, place;
    bool walk, touch, per_request;
    unsigned qd, threads;             /* qd is each thread's */
    uint32_t block_bytes, pool_bytes; /* pool_bytes 0: as the guest thinks fit */
    double seconds;
    uint64_t size_bytes, position, random;
    pid_t server[LOAD_SERVERS_MAX];
    unsigned server_count;
    uint64_t start_ns, end_ns; /* of the loop: nothing is begun after its end */
    struct hist latency_ns;
    uint64_t done, errors, syscalls;
    double elapsed_s, cpu_s, server_cpu_s;
};

static inline uint64_t load_next_offset(struct load *l)
{
    uint64_t blocks = l->size_bytes / l->block_bytes;
    if (l->sequential) {
        l->position = l->position + 1 < blocks ? l->position + 1 : 0;
        return l->position * l->block_bytes;
    }
    l->random ^= l->random << 13;
    l->random ^= l->random >> 7;
    l->random ^= l->random << 17;
    return ((l->random >> 32) * blocks >> 32) * l->block_bytes; /* blocks < 2^32: no division in the loop */
}

/* What process `pid` (0: this one) has used, all its threads, in seconds; 0 if it is gone. */
static inline double load_cpu_s(pid_t pid)
{
    clockid_t clock;
    struct timespec t;
    if (clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &t))
        return 0;
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static inline double load_servers_cpu_s(const struct load *l)
{
    double sum = 0;
    for (unsigned i = 0; i < l->server_count; i++)
        sum += load_cpu_s(l->server[i]);
    return sum;
}

static inline void load_begin(struct load *l)
{
    l->cpu_s = -load_cpu_s(0);
    l->server_cpu_s = -load_servers_cpu_s(l);
    l->start_ns = clock_now_ns();
    l->end_ns = l->start_ns + (uint64_t)(l->seconds * 1e9);
}

static inline void load_end(struct load *l)
{
    l->elapsed_s = (double)(clock_now_ns() - l->start_ns) / 1e9;
    l->cpu_s += load_cpu_s(0);
    l->server_cpu_s += load_servers_cpu_s(l);
}

/* The part of `whole` that thread `i` has: its own numbers, its own place in the disk. */
static inline struct load load_part(const struct load *whole, unsigned i)
{
    struct load l = *whole;
    l.random ^= (i + 1) * 0x9e3779b97f4a7c15ull;
    l.position = l.size_bytes / l.block_bytes * i / l.threads;
    return l;
}

static inline void load_add(struct load *whole, const struct load *part)
{
    for (unsigned i = 0; i < HIST_BUCKETS; i++)
        whole->latency_ns.bucket[i] += part->latency_ns.bucket[i];
    whole->latency_ns.count += part->latency_ns.count;
    whole->done += part->done;
    whole->errors += part->errors;
    whole->syscalls += part->syscalls;
}

/* ---- a load of several threads: each has its part of the whole, all begin at the same moment ---- */

struct load_thread {
    struct load load; /* its part */
    unsigned index;
    const struct load_row *row;
    struct load *whole;
    pthread_barrier_t *ready; /* passed when all are set up, and again when `whole` has begun */
    pthread_t thread;
    bool good;
};

/* The threads of a load are members of structs that lie one after another, `stride_bytes` apart. */
struct load_row {
    struct load_thread *first;
    size_t stride_bytes;
    bool (*setup)(struct load_thread *t);
    bool (*run)(struct load_thread *t); /* both: false: it failed and said why */
};

static inline struct load_thread *load_row_thread(const struct load_row *row, unsigned i)
{
    return (struct load_thread *)((char *)row->first + i * row->stride_bytes);
}

static inline void *load_thread_main(void *arg)
{
    struct load_thread *t = arg;
    t->good = t->row->setup(t);
    pthread_barrier_wait(t->ready);
    pthread_barrier_wait(t->ready);
    t->load.end_ns = t->whole->end_ns;
    if (t->good)
        t->good = t->row->run(t);
    return NULL;
}

/* Puts a thread on the i-th of the processors that this process may use, and round again. */
static inline void load_place(pthread_t thread, unsigned i)
{
    cpu_set_t allowed, one;
    CPU_ZERO(&one);
    if (sched_getaffinity(0, sizeof(allowed), &allowed) || !CPU_COUNT(&allowed))
        return;
    int left = (int)i % CPU_COUNT(&allowed), cpu = 0;
    while (!CPU_ISSET(cpu, &allowed) || left--)
        cpu++;
    CPU_SET(cpu, &one);
    pthread_setaffinity_np(thread, sizeof(one), &one);
}

/* Runs whole->threads of them and adds up in `whole`. False if one failed. */
static inline bool load_run(struct load *whole, const struct load_row *row)
{
    pthread_barrier_t ready;
    pthread_barrier_init(&ready, NULL, whole->threads + 1);
    for (unsigned i = 0; i < whole->threads; i++) {
        struct load_thread *t = load_row_thread(row, i);
        *t = (struct load_thread){.load = load_part(whole, i), .index = i, .row = row, .whole = whole, .ready = &ready};
        int e = pthread_create(&t->thread, NULL, load_thread_main, t);
        assert(!e);
        if (whole->place)
            load_place(t->thread, i);
    }
    pthread_barrier_wait(&ready);
    load_begin(whole);
    pthread_barrier_wait(&ready);
    bool good = true;
    for (unsigned i = 0; i < whole->threads; i++) {
        struct load_thread *t = load_row_thread(row, i);
        pthread_join(t->thread, NULL);
        load_add(whole, &t->load);
        good &= t->good;
    }
    load_end(whole);
    pthread_barrier_destroy(&ready);
    return good;
}

static inline int load_usage(const char *program)
{
    fprintf(stderr,
            "usage: %s -t TARGET [-w] [-S (in order)] [-q QD] [-b BYTES] [-j THREADS] [-P (thread i on "
            "processor i)] [-s SECONDS] [-p (poll) | -a "
            "(adaptive)] [-d (O_DIRECT)] [-n (no I/O)] [-r SEED] [-c PID (of a server whose CPU time counts)]... of a "
            "guest: "
            "[-m BYTES (pool)] [-W (walks all of the pool)] [-T (touches the data)] [-G (grants for each request)]\n",
            program);
    return 2;
}

static inline bool load_server(struct load *l, const char *text)
{
    uint64_t pid;
    if (l->server_count == LOAD_SERVERS_MAX || parse_u64(text, 1, INT32_MAX, &pid))
        return false;
    l->server[l->server_count++] = (pid_t)pid;
    return true;
}

static inline int load_parse(struct load *l, int argc, char **argv)
{
    *l = (struct load){.qd = 32, .threads = 1, .block_bytes = 4096, .seconds = 1, .random = 88172645463325252ull};
    uint64_t v = 0;
    for (int c; (c = getopt(argc, argv, "t:wSq:b:j:Ps:padnr:c:m:WTG")) != -1;) {
        bool ok = true;
        switch (c) {
        case 't': l->target = optarg; break;
        case 'w': l->write = true; break;
        case 'S': l->sequential = true; break;
        case 'p': l->poll = true; break;
        case 'a': l->adaptive = true; break;
        case 'd': l->direct = true; break;
        case 'P': l->place = true; break;
        case 'n': l->nop = true; break;
        case 'W': l->walk = true; break;
        case 'T': l->touch = true; break;
        case 'G': l->per_request = true; break;
        case 'm': ok = !parse_size(optarg, &v) && v <= UINT32_MAX, l->pool_bytes = (uint32_t)v; break;
        case 'q': ok = !parse_u64(optarg, 1, LOAD_QD_MAX, &v), l->qd = (unsigned)v; break;
        case 'j': ok = !parse_u64(optarg, 1, LOAD_THREADS_MAX, &v), l->threads = (unsigned)v; break;
        case 'b': ok = !parse_size(optarg, &v) && v >= 512 && v <= 1 << 20, l->block_bytes = (uint32_t)v; break;
        case 's': l->seconds = strtod(optarg, NULL), ok = l->seconds > 0; break;
        case 'r': ok = !parse_u64(optarg, 1, UINT64_MAX, &v), l->random ^= v * 0x9e3779b97f4a7c15ull; break;
        case 'c': ok = load_server(l, optarg); break;
        default: ok = false;
        }
        if (!ok)
            return load_usage(argv[0]);
    }
    return l->target ? 0 : load_usage(argv[0]);
}

/* One JSON object on one line; `extra` is "" or more fields with a comma in front. */
static inline void load_print(const struct load *l, const char *extra)
{
    double done = l->done ? (double)l->done : 1;
    printf("{\"iops\": %.0f, \"gib_s\": %.4f, \"p50_us\": %.3f, \"p99_us\": %.3f, \"p999_us\": %.3f, "
           "\"cpu_us_per_io\": %.4f, \"client_cpu_us_per_io\": %.4f, \"done\": %llu, \"errors\": %llu, \"elapsed_s\": "
           "%.4f%s}\n",
           (double)l->done / l->elapsed_s, (double)l->done * l->block_bytes / l->elapsed_s / (double)(1 << 30),
           (double)hist_quantile(&l->latency_ns, 0.5) / 1e3, (double)hist_quantile(&l->latency_ns, 0.99) / 1e3,
           (double)hist_quantile(&l->latency_ns, 0.999) / 1e3, (l->cpu_s + l->server_cpu_s) * 1e6 / done,
           l->cpu_s * 1e6 / done, (unsigned long long)l->done, (unsigned long long)l->errors, l->elapsed_s, extra);
}

#endif
