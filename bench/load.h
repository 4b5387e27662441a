/* SPDX-License-Identifier: MIT */
/* bench/load.h: what the two sides of a comparison share: the options of a load, where its next request goes, and the
 * row that it prints, so that nothing but the path under test differs.
 *
 * A load is a closed loop: QD requests of `block_bytes` at random aligned offsets for `seconds`. Latency is from
 * the moment a request is handed over to the moment its completion is seen, in nanoseconds.
 */
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/hist.h"
#include "base/parse.h"

#define LOAD_QD_MAX 256

struct load {
    const char *target; /* a file, or a vdev */
    bool write, poll, adaptive, direct;
    unsigned qd;
    uint32_t block_bytes;
    double seconds;
    uint64_t size_bytes, random;
    struct hist latency_ns;
    uint64_t done, errors;
    double elapsed_s, cpu_s;
};

static inline uint64_t load_next_offset(struct load *l)
{
    l->random ^= l->random << 13;
    l->random ^= l->random >> 7;
    l->random ^= l->random << 17;
    return l->random % (l->size_bytes / l->block_bytes) * l->block_bytes;
}

static inline double load_cpu_s(void)
{
    struct rusage r;
    getrusage(RUSAGE_SELF, &r);
    return (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) + (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) * 1e-6;
}

static inline int load_usage(const char *program)
{
    fprintf(stderr,
            "usage: %s -t TARGET [-w] [-q QD] [-b BYTES] [-s SECONDS] [-p (poll) | -a (adaptive)] [-d (O_DIRECT)] [-r "
            "SEED]\n",
            program);
    return 2;
}

static inline int load_parse(struct load *l, int argc, char **argv)
{
    *l = (struct load){.qd = 32, .block_bytes = 4096, .seconds = 1, .random = 88172645463325252ull};
    uint64_t v = 0;
    for (int c; (c = getopt(argc, argv, "t:wq:b:s:padr:")) != -1;) {
        bool ok = true;
        switch (c) {
        case 't': l->target = optarg; break;
        case 'w': l->write = true; break;
        case 'p': l->poll = true; break;
        case 'a': l->adaptive = true; break;
        case 'd': l->direct = true; break;
        case 'q': ok = !parse_u64(optarg, 1, LOAD_QD_MAX, &v), l->qd = (unsigned)v; break;
        case 'b': ok = !parse_size(optarg, &v) && v >= 512 && v <= 1 << 20, l->block_bytes = (uint32_t)v; break;
        case 's': l->seconds = strtod(optarg, NULL), ok = l->seconds > 0; break;
        case 'r': ok = !parse_u64(optarg, 1, UINT64_MAX, &v), l->random ^= v * 0x9e3779b97f4a7c15ull; break;
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
    printf("{\"iops\": %.0f, \"p50_us\": %.2f, \"p99_us\": %.2f, \"cpu_us_per_io\": %.3f, \"done\": %llu, \"errors\": "
           "%llu%s}\n",
           (double)l->done / l->elapsed_s, (double)hist_quantile(&l->latency_ns, 0.5) / 1e3,
           (double)hist_quantile(&l->latency_ns, 0.99) / 1e3, l->done ? l->cpu_s * 1e6 / (double)l->done : 0,
           (unsigned long long)l->done, (unsigned long long)l->errors, extra);
}

#endif
