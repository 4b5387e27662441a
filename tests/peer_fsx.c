/* SPDX-License-Identifier: MIT */
/* tests/peer_fsx.c: traffic on a file system that knows what must be read back.
 *
 *   peer_fsx DIRECTORY SHADOW SEED SECONDS WORKERS
 *
 * Each worker is a process with a directory of its own. In it are one large file, of which it keeps a model in memory:
 * writes, reads, truncations, holes, syncs and reopening at random, every read compared; and many small ones that are
 * written, renamed over each other, linked, removed, moved between directories, whose content follows from a number in
 * the model. In the end what must be there is written to SHADOW, for who compares it with what is on the disk.
 * The last line counts. Exit status 1 and a sentence at the first byte that is wrong. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/util.h"

#define LARGE_BYTES_MAX (4u << 20)
#define SMALL_MAX       64u
#define SMALL_BYTES_MAX 40000u

struct counts {
    uint64_t operations, bytes_written, bytes_compared;
};

struct worker {
    unsigned number;
    uint64_t random;
    char dir[512];
    int fd; /* of the large file */
    uint32_t size;
    unsigned char *model, *buffer;  /* LARGE_BYTES_MAX each; the model is zero behind `size` */
    uint32_t small_seed[SMALL_MAX]; /* content of small file i; 0: there is none */
    struct counts *counts;          /* shared with the parent */
};

static uint32_t below(struct worker *w, uint32_t limit)
{
    w->random = w->random * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)((w->random >> 32) % limit);
}

#define DIE(w, ...)                                                                                               \
    do {                                                                                                          \
        fprintf(stderr, "worker %u, operation %llu: ", (w)->number, (unsigned long long)(w)->counts->operations); \
        fprintf(stderr, __VA_ARGS__);                                                                             \
        fprintf(stderr, " (%s)\n", strerror(errno));                                                              \
        _exit(1);                                                                                                 \
    } while (0)

static void bytes_make(unsigned char *to, uint32_t length, uint32_t seed)
{
    uint64_t x = seed * 0x9e3779b97f4a7c15ull + 1;
    for (uint32_t i = 0; i < length; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        to[i] = (unsigned char)x;
    }
}

static void bytes_compare(struct worker *w, const unsigned char *is, const unsigned char *should, uint32_t length,
                          const char *what, uint32_t offset)
{
    w->counts->bytes_compared += length;
    if (memcmp(is, should, length) == 0)
        return;
    for (uint32_t i = 0; i < length; i++)
        if (is[i] != should[i])
            DIE(w, "%s: byte %u is %02x and should be %02x", what, offset + i, is[i], should[i]);
}

/* ---- the large file ---- */

static void large_open(struct worker *w)
{
    char path[600];
    snprintf(path, sizeof(path), "%s/large", w->dir);
    w->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (w->fd < 0)
        DIE(w, "%s", path);
}

/* A range that begins in [0, limit) and ends in it; true: there is one. */
static bool range_pick(struct worker *w, uint32_t limit, uint32_t *offset, uint32_t *length)
{
    if (!limit)
        return false;
    *offset = below(w, limit);
    *length = 1 + below(w, below(w, 4) ? 8192 : 256 * 1024);
    *length = MIN(*length, limit - *offset);
    return true;
}

static void large_write(struct worker *w)
{
    uint32_t offset, length;
    range_pick(w, LARGE_BYTES_MAX, &offset, &length);
    bytes_make(w->model + offset, length, below(w, UINT32_MAX));
    if (pwrite(w->fd, w->model + offset, length, offset) != (ssize_t)length)
        DIE(w, "write of %u at %u", length, offset);
    w->size = MAX(w->size, offset + length);
    w->counts->bytes_written += length;
}

static void large_compare(struct worker *w, uint32_t offset, uint32_t length)
{
    ssize_t n = pread(w->fd, w->buffer, length, offset);
    if (n != (ssize_t)length)
        DIE(w, "read of %u at %u: %zd", length, offset, n);
    bytes_compare(w, w->buffer, w->model + offset, length, "large", offset);
}

static void large_read(struct worker *w)
{
    uint32_t offset, length;
    if (range_pick(w, w->size, &offset, &length))
        large_compare(w, offset, length);
}

static void large_truncate(struct worker *w)
{
    uint32_t size = below(w, LARGE_BYTES_MAX);
    if (ftruncate(w->fd, size) < 0)
        DIE(w, "truncate to %u", size);
    if (size < w->size)
        memset(w->model + size, 0, w->size - size);
    w->size = size;
}

static void large_punch(struct worker *w)
{
    uint32_t offset, length;
    if (!range_pick(w, w->size, &offset, &length))
        return;
    if (fallocate(w->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length) == 0)
        memset(w->model + offset, 0, length);
    else if (errno != EOPNOTSUPP)
        DIE(w, "hole of %u at %u", length, offset);
}

/* Out of the cache, and all of it from the disk again. */
static void large_reopen(struct worker *w)
{
    struct stat st;
    if (fsync(w->fd) < 0)
        DIE(w, "fsync");
    posix_fadvise(w->fd, 0, 0, POSIX_FADV_DONTNEED);
    close(w->fd);
    large_open(w);
    if (fstat(w->fd, &st) < 0 || st.st_size != w->size)
        DIE(w, "the large file has %lld bytes and should have %u", (long long)st.st_size, w->size);
    large_compare(w, 0, w->size);
}

static void large_sync(struct worker *w)
{
    if ((below(w, 2) ? fsync(w->fd) : fdatasync(w->fd)) < 0)
        DIE(w, "sync");
}

/* ---- the small files: number i lies in directory i % 4, which may be away and is made when it is needed ---- */

static uint32_t small_bytes(uint32_t seed)
{
    return seed % SMALL_BYTES_MAX;
}

static const char *small_path(const struct worker *w, unsigned i)
{
    static char path[2][640];
    static unsigned next;
    char *p = path[next++ % 2];
    snprintf(p, sizeof(path[0]), "%s/d%u", w->dir, i % 4);
    mkdir(p, 0700);
    snprintf(p, sizeof(path[0]), "%s/d%u/small%u", w->dir, i % 4, i);
    return p;
}

static void file_write(struct worker *w, const char *path, const unsigned char *bytes, uint32_t length, bool sync)
{
    _cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, bytes, length) != (ssize_t)length || (sync && fsync(fd) < 0))
        DIE(w, "%s: writing %u bytes", path, length);
    w->counts->bytes_written += length;
}

static void small_create(struct worker *w)
{
    unsigned i = below(w, SMALL_MAX);
    w->small_seed[i] = 1 + below(w, UINT32_MAX - 1);
    bytes_make(w->buffer, small_bytes(w->small_seed[i]), w->small_seed[i]);
    file_write(w, small_path(w, i), w->buffer, small_bytes(w->small_seed[i]), below(w, 8) == 0);
}

static void small_check(struct worker *w, unsigned i)
{
    const char *path = small_path(w, i);
    uint32_t bytes = small_bytes(w->small_seed[i]);
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (!w->small_seed[i]) {
        if (fd >= 0 || errno != ENOENT)
            DIE(w, "%s: is there and should not be", path);
        return;
    }
    if (fd < 0 || read(fd, w->buffer, SMALL_BYTES_MAX + 1) != (ssize_t)bytes)
        DIE(w, "%s: reading %u bytes", path, bytes);
    bytes_make(w->buffer + SMALL_BYTES_MAX + 1, bytes, w->small_seed[i]);
    bytes_compare(w, w->buffer, w->buffer + SMALL_BYTES_MAX + 1, bytes, path, 0);
}

static void small_read(struct worker *w)
{
    small_check(w, below(w, SMALL_MAX));
}

static void small_rename(struct worker *w)
{
    unsigned from = below(w, SMALL_MAX), to = below(w, SMALL_MAX);
    if (!w->small_seed[from] || from == to)
        return;
    if (rename(small_path(w, from), small_path(w, to)) < 0)
        DIE(w, "rename of %u to %u", from, to);
    w->small_seed[to] = w->small_seed[from];
    w->small_seed[from] = 0;
}

static void small_remove(struct worker *w)
{
    unsigned i = below(w, SMALL_MAX);
    if (w->small_seed[i] && unlink(small_path(w, i)) < 0)
        DIE(w, "unlink of %u", i);
    w->small_seed[i] = 0;
}

/* All of one directory, and the directory. */
static void small_clear(struct worker *w)
{
    char dir[600];
    unsigned d = below(w, 4);
    for (unsigned i = d; i < SMALL_MAX; i += 4) {
        if (w->small_seed[i] && unlink(small_path(w, i)) < 0)
            DIE(w, "unlink of %u", i);
        w->small_seed[i] = 0;
    }
    snprintf(dir, sizeof(dir), "%s/d%u", w->dir, d);
    if (rmdir(dir) < 0 && errno != ENOENT)
        DIE(w, "rmdir of %s", dir);
}

/* ---- a worker ---- */

static const struct {
    unsigned weight;
    void (*run)(struct worker *w);
} operations[] = {
    {30, large_write},  {30, large_read}, {4, large_truncate}, {4, large_punch},   {2, large_reopen}, {4, large_sync},
    {20, small_create}, {20, small_read}, {10, small_rename},  {10, small_remove}, {1, small_clear},
};

static void operation_run(struct worker *w)
{
    unsigned all = 0, i = 0;
    for (; i < ARRAY_SIZE(operations); i++)
        all += operations[i].weight;
    unsigned pick = below(w, all);
    for (i = 0; pick >= operations[i].weight; i++)
        pick -= operations[i].weight;
    operations[i].run(w);
    w->counts->operations++;
}

/* What must be there, in another place. */
static void shadow_write(struct worker *w, const char *shadow)
{
    char path[640];
    large_reopen(w);
    for (unsigned i = 0; i < SMALL_MAX; i++)
        small_check(w, i); /* makes all directories, too */
    snprintf(w->dir, sizeof(w->dir), "%s/w%u", shadow, w->number);
    if (mkdir(w->dir, 0700) < 0)
        DIE(w, "%s", w->dir);
    snprintf(path, sizeof(path), "%s/large", w->dir);
    struct counts before = *w->counts;
    file_write(w, path, w->model, w->size, false);
    for (unsigned i = 0; i < SMALL_MAX; i++) {
        const char *small = small_path(w, i);
        bytes_make(w->buffer, small_bytes(w->small_seed[i]), w->small_seed[i]);
        if (w->small_seed[i])
            file_write(w, small, w->buffer, small_bytes(w->small_seed[i]), false);
    }
    *w->counts = before;
}

static int worker_run(struct worker *w, const char *dir, const char *shadow, uint64_t seed, unsigned seconds)
{
    uint64_t end = clock_now_ns() + seconds * 1000000000ull;
    w->random = seed * 1000 + w->number;
    w->model = calloc(1, LARGE_BYTES_MAX);
    w->buffer = calloc(1, LARGE_BYTES_MAX);
    snprintf(w->dir, sizeof(w->dir), "%s/w%u", dir, w->number);
    if (!w->model || !w->buffer || mkdir(w->dir, 0700) < 0)
        DIE(w, "%s", w->dir);
    large_open(w);
    while (clock_now_ns() < end)
        operation_run(w);
    shadow_write(w, shadow);
    close(w->fd);
    free(w->model);
    free(w->buffer);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        fprintf(stderr, "usage: peer_fsx DIRECTORY SHADOW SEED SECONDS WORKERS\n");
        return 2;
    }
    uint64_t seed = strtoull(argv[3], NULL, 10);
    unsigned seconds = (unsigned)atoi(argv[4]), workers = (unsigned)atoi(argv[5]), broken = 0;
    struct counts *counts =
        mmap(NULL, workers * sizeof(*counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (counts == MAP_FAILED)
        return 2;
    fprintf(stderr, "seed %llu\n", (unsigned long long)seed);
    for (unsigned i = 0; i < workers; i++) {
        struct worker w = {.number = i, .counts = &counts[i]};
        pid_t pid = fork();
        if (pid == 0)
            _exit(worker_run(&w, argv[1], argv[2], seed, seconds));
        if (pid < 0)
            return 2;
    }
    struct counts sum = {0};
    for (unsigned i = 0; i < workers; i++) {
        int status = 0;
        broken += wait(&status) < 0 || status != 0;
    }
    for (unsigned i = 0; i < workers; i++) {
        sum.operations += counts[i].operations;
        sum.bytes_written += counts[i].bytes_written;
        sum.bytes_compared += counts[i].bytes_compared;
    }
    printf("%llu operations of %u workers, %llu MiB written, %llu MiB compared\n", (unsigned long long)sum.operations,
           workers, (unsigned long long)(sum.bytes_written >> 20), (unsigned long long)(sum.bytes_compared >> 20));
    return broken ? 1 : 0;
}
