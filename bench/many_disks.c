/* SPDX-License-Identifier: MIT */
/* bench/many_disks.c: many guests with a disk each on one blk role.
 *
 *   many_disks RUN-DIR GUESTS SECONDS
 *
 * Domains 1 … GUESTS + 1 are there already, each with a disk xvda (bench/many.sh). Each becomes a process of its own.
 * Domain 1 connects and does I/O first: what the role needs for any disk at all it has then. The others connect all at
 * once, stay idle, load the role all at once (QD 4, random 4 KiB reads), and are idle again.
 *
 * Printed, as JSON: how long it took from the start until all were connected; what a role's memory grew by a disk
 * (private: pages that nobody else has; PSS: shared ones by their share), idle and after the load; what the load did,
 * and how evenly: Jain's index, 1 being even; processor ticks of the blk role in 3 s without a request. */
#include <domzero/domzero.h>
#include <inttypes.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"

#define QD          4
#define BLOCK_BYTES 4096u
#define POOL_BYTES  (128u << 10)
#define IDLE_S      3

enum phase { PHASE_START, PHASE_LOAD, PHASE_REST, PHASE_END };

struct guest {
    atomic_uint done; /* phases: 1 connected, 2 after the load */
    uint64_t connected_ns, requests;
};

struct shared {
    atomic_uint phase;
    atomic_uint first_only; /* guest 0 alone may go on */
    atomic_uint failed;
    uint64_t load_s;
    struct guest guest[];
};

struct memory {
    long private_kib, pss_kib;
};

/* ---- a guest ---- */

static void guest_await(struct shared *s, unsigned phase)
{
    while (atomic_load(&s->phase) < phase)
        poll(NULL, 0, 2);
}

static int guest_load(struct dz_vbd *disk, struct guest *g, uint64_t end_ns, uint64_t requests_max)
{
    struct dz_vbd_info info;
    struct dz_io io[QD], *done[QD];
    uint64_t random = (uint64_t)getpid() * 0x9e3779b97f4a7c15ull, submitted = 0;
    unsigned in_flight = 0;
    dz_vbd_info(disk, &info);
    memset(io, 0, sizeof(io));
    for (unsigned i = 0; i < QD; i++) {
        io[i].buffer = dz_buffer_alloc(disk, BLOCK_BYTES);
        done[i] = &io[i];
    }
    for (int n = QD; n > 0;) {
        bool more = submitted < requests_max && clock_now_ns() < end_ns;
        for (int i = 0; more && i < n; i++, submitted++, in_flight++) {
            random = random * 6364136223846793005ull + 1442695040888963407ull;
            done[i]->op = DZ_READ;
            done[i]->length_bytes = BLOCK_BYTES;
            done[i]->offset_bytes = (random >> 33) % (info.size_bytes / BLOCK_BYTES) * BLOCK_BYTES;
            if (dz_vbd_submit(disk, done[i]) < 0)
                return -1;
        }
        n = dz_vbd_wait(disk, done, QD, -1);
        for (int i = 0; i < n; i++)
            if (done[i]->result < 0)
                return -1;
        in_flight -= (unsigned)n;
        g->requests += (unsigned)n;
    }
    for (unsigned i = 0; i < QD; i++)
        dz_buffer_free(disk, io[i].buffer, BLOCK_BYTES);
    return in_flight ? -1 : 0;
}

static int guest_run(struct shared *s, unsigned number, const char *run)
{
    struct guest *g = &s->guest[number];
    struct dz_vbd_options options = {.pool_bytes = POOL_BYTES, .timeout_ms = 120000};
    struct dz_domain *dom;
    struct dz_vbd *disk;
    char dir[512];
    snprintf(dir, sizeof(dir), "%s/dom/%u", run, number + 1);
    while (number && atomic_load(&s->first_only))
        poll(NULL, 0, 2);
    if (dz_domain_open(dir, &dom) < 0 || dz_vbd_open(dom, "xvda", &options, &disk) < 0)
        return -1;
    g->connected_ns = clock_now_ns();
    if (number == 0 && guest_load(disk, g, UINT64_MAX, 1000) < 0)
        return -1;
    g->requests = 0;
    atomic_store(&g->done, 1);
    guest_await(s, PHASE_LOAD);
    if (guest_load(disk, g, clock_now_ns() + s->load_s * 1000000000ull, UINT64_MAX) < 0)
        return -1;
    atomic_store(&g->done, 2);
    guest_await(s, PHASE_END);
    dz_vbd_close(disk);
    dz_domain_close(dom);
    return 0;
}

/* ---- what is measured ---- */

static int role_pid(const char *run, const char *role)
{
    char path[512];
    int pid = 0;
    snprintf(path, sizeof(path), "%s/%s.pid", run, role);
    FILE *f = fopen(path, "re");
    if (!f || fscanf(f, "%d", &pid) != 1)
        pid = 0;
    if (f)
        fclose(f);
    return pid;
}

static struct memory memory_of(int pid)
{
    struct memory m = {0, 0};
    char path[64], line[256];
    long kib;
    snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", pid);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof(line), f)) {
        if (sscanf(line, "Private_Clean: %ld", &kib) == 1 || sscanf(line, "Private_Dirty: %ld", &kib) == 1)
            m.private_kib += kib;
        if (sscanf(line, "Pss: %ld", &kib) == 1)
            m.pss_kib = kib;
    }
    if (f)
        fclose(f);
    return m;
}

static long ticks_of(int pid)
{
    char path[64];
    long user = 0, system = 0;
    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    FILE *f = fopen(path, "re");
    if (f && fscanf(f, "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %ld %ld", &user, &system) != 2)
        user = -1;
    if (f)
        fclose(f);
    return user + system;
}

static int guests_await(struct shared *s, unsigned first, unsigned end, unsigned done)
{
    for (unsigned i = first; i < end; i++)
        while (atomic_load(&s->guest[i].done) < done) {
            if (atomic_load(&s->failed))
                return -1;
            poll(NULL, 0, 2);
        }
    return 0;
}

static double jain(const struct shared *s, unsigned first, unsigned end, uint64_t *sum)
{
    double squares = 0, all = 0;
    for (unsigned i = first; i < end; i++) {
        double x = (double)s->guest[i].requests;
        all += x;
        squares += x * x;
    }
    *sum = (uint64_t)all;
    return squares > 0 ? all * all / (squares * (end - first)) : 0;
}

static const char *const roles[] = {"blk", "hypervisor", "store"};
#define ROLES 3

static void memory_print(const char *when, const int *pid, const struct memory *before, unsigned guests)
{
    for (unsigned i = 0; i < ROLES; i++) {
        struct memory now = memory_of(pid[i]);
        printf("  \"%s_%s_private_kib_per_disk\": %.1f, \"%s_%s_pss_kib_per_disk\": %.1f,\n", roles[i], when,
               (double)(now.private_kib - before[i].private_kib) / guests, roles[i], when,
               (double)(now.pss_kib - before[i].pss_kib) / guests);
    }
}

static void idle_print(const char *when, int pid)
{
    long ticks = ticks_of(pid);
    sleep(IDLE_S);
    printf("  \"blk_%s_ticks_in_%d_s\": %ld,\n", when, IDLE_S, ticks_of(pid) - ticks);
}

static int measure(struct shared *s, unsigned guests, const char *run)
{
    struct memory before[ROLES];
    int pid[ROLES];
    uint64_t start, last = 0, requests;
    for (unsigned i = 0; i < ROLES; i++)
        pid[i] = role_pid(run, roles[i]);
    if (guests_await(s, 0, 1, 1) < 0)
        return -1;
    sleep(1);
    for (unsigned i = 0; i < ROLES; i++)
        before[i] = memory_of(pid[i]);
    start = clock_now_ns();
    atomic_store(&s->first_only, 0);
    if (guests_await(s, 1, guests + 1, 1) < 0)
        return -1;
    for (unsigned i = 1; i <= guests; i++)
        last = s->guest[i].connected_ns > last ? s->guest[i].connected_ns : last;
    sleep(1); /* what connecting leaves to be done */
    printf("{ \"guests\": %u, \"connect_all_ms\": %.0f,\n", guests, (double)(last - start) / 1e6);
    idle_print("idle", pid[0]);
    memory_print("idle", pid, before, guests);
    atomic_store(&s->phase, PHASE_LOAD);
    if (guests_await(s, 0, guests + 1, 2) < 0)
        return -1;
    double fair = jain(s, 0, guests + 1, &requests);
    printf("  \"load_iops\": %" PRIu64 ", \"load_jain\": %.4f,\n", requests / s->load_s, fair);
    sleep(1);
    idle_print("after", pid[0]);
    memory_print("after", pid, before, guests);
    printf("  \"block_bytes\": %u, \"qd\": %d, \"load_s\": %" PRIu64 " }\n", BLOCK_BYTES, QD, s->load_s);
    return 0;
}

int main(int argc, char **argv)
{
    unsigned guests = argc == 4 ? (unsigned)atoi(argv[2]) : 0;
    if (!guests) {
        fprintf(stderr, "usage: many_disks RUN-DIR GUESTS SECONDS\n");
        return 2;
    }
    size_t bytes = sizeof(struct shared) + (guests + 1) * sizeof(struct guest);
    struct shared *s = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (s == MAP_FAILED)
        return 1;
    s->load_s = (uint64_t)atoi(argv[3]);
    atomic_store(&s->first_only, 1);
    for (unsigned i = 0; i <= guests; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            int r = guest_run(s, i, argv[1]);
            if (r < 0) {
                fprintf(stderr, "many_disks: domain %u: %s\n", i + 1, dz_error());
                atomic_store(&s->failed, 1);
            }
            _exit(r < 0);
        }
        if (pid < 0)
            return 1;
    }
    int r = measure(s, guests, argv[1]), broken = r < 0, status;
    atomic_store(&s->phase, PHASE_END);
    while (wait(&status) > 0)
        broken |= status != 0;
    return broken;
}
