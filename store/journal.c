/* SPDX-License-Identifier: MIT */
#include "store/journal.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <zlib.h>

#include "base/log.h"
#include "base/span.h"
#include "store/record.h"

#define JOURNAL_MAGIC       0x316c6e6a73747a64ull /* changes with the layout, also of records */
#define JOURNAL_CHUNK_BYTES (256u << 10)          /* by which a file grows at the least: unmeasured */
#define JOURNAL_RENEW_BYTES (1u << 20)            /* of changes at the least, before a new file: unmeasured */
#define JOURNAL_PATH_BYTES  (PATH_MAX + 8)

struct head {
    uint64_t magic;
    uint64_t first;          /* the first record's number */
    uint64_t snapshot_bytes; /* where the snapshot ends */
    uint32_t crc;            /* of the three */
    uint32_t zero[5];
    _Atomic uint64_t tail; /* tail_word() of where the next record goes */
    uint64_t zero_too;
};

struct row {
    _Atomic uint32_t length; /* of the bytes behind it; 0: there is none */
    uint32_t crc;            /* of length, number and bytes */
    uint64_t number;
};

_Static_assert(sizeof(struct head) == 64 && sizeof(struct row) == 16, "layout of the journal");

/* A file that is written. */
struct file {
    int fd;
    char *memory; /* NULL: there is none */
    size_t room, tail;
    uint64_t number; /* the next record's */
};

struct store_journal {
    struct store_engine *engine;
    struct file file;
    bool behind;     /* something happened that no file tells of */
    bool damaged;    /* what lies at `path` is kept as .bad when its successor takes its place */
    size_t snapshot; /* bytes of the last one */
    size_t renew_at; /* the tail at which a new file is due */
    char path[PATH_MAX];
    struct log_limiter limiter;
};

static void path_beside(const struct store_journal *j, const char *suffix, char out[JOURNAL_PATH_BYTES])
{
    snprintf(out, JOURNAL_PATH_BYTES, "%s%s", j->path, suffix);
}

/* In units of 8 bytes, below a number that no other one has. */
static uint64_t tail_word(uint64_t tail)
{
    uint32_t units = (uint32_t)(tail / 8);
    return (uint64_t)(units * 0x9e3779b1u ^ 0x7461696cu) << 32 | units;
}

static uint32_t head_crc(const struct head *h)
{
    return (uint32_t)crc32(0, (const Bytef *)h, offsetof(struct head, crc));
}

/* Of the number and the bytes behind it; it begins with the length. */
static uint32_t row_crc(uint32_t length, const void *number)
{
    return (uint32_t)crc32(length, number, sizeof(uint64_t) + length);
}

static size_t row_bytes(size_t length)
{
    return sizeof(struct row) + (length + 7) / 8 * 8;
}

/* ---- writing ---- */

static void file_close(struct file *f)
{
    if (f->memory)
        munmap(f->memory, f->room);
    fd_closep(&f->fd);
    *f = (struct file){.fd = -1};
}

/* To at least `room` bytes. 0 or -errno; then it is as it was. */
static int file_grow(struct file *f, size_t room)
{
    room = (room + JOURNAL_CHUNK_BYTES - 1) / JOURNAL_CHUNK_BYTES * JOURNAL_CHUNK_BYTES;
    int r = -posix_fallocate(f->fd, 0, (off_t)room);
    if (r < 0)
        return r;
    void *at = f->memory ? mremap(f->memory, f->room, room, MREMAP_MAYMOVE)
                         : mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd, 0);
    if (at == MAP_FAILED)
        return -errno;
    f->memory = at;
    f->room = room;
    return 0;
}

/* Where the bytes of the next record go, or NULL with -errno in *r. */
static char *file_next(struct file *f, size_t length, int *r)
{
    size_t need = f->tail + row_bytes(length) + sizeof(struct row); /* the last row's length is read as the end */
    *r = length > UINT32_MAX - sizeof(struct row) || need > UINT32_MAX * (size_t)8 ? -EFBIG : 0;
    if (!*r && need > f->room)
        *r = file_grow(f, MAX(need, f->room + f->room / 4));
    return *r ? NULL : f->memory + f->tail + sizeof(struct row);
}

/* The bytes are there: they count from now on. */
static void file_seal(struct file *f, size_t length)
{
    struct row *row = (void *)(f->memory + f->tail);
    row->number = f->number++;
    row->crc = row_crc((uint32_t)length, &row->number);
    atomic_store_explicit(&row->length, (uint32_t)length, memory_order_release);
    f->tail += row_bytes(length);
    atomic_store_explicit(&((struct head *)(void *)f->memory)->tail, tail_word(f->tail), memory_order_release);
}

static int snapshot_emit(void *context, const char *bytes, size_t length)
{
    struct file *f = context;
    int r;
    char *at = file_next(f, length, &r);
    if (!at)
        return r;
    memcpy(at, bytes, length);
    file_seal(f, length);
    return 0;
}

/* A whole file at `path`, number of its first record `first`. */
static int file_make(const struct store_journal *j, const char *path, uint64_t first, struct file *f)
{
    *f = (struct file){.fd = -1, .tail = sizeof(struct head), .number = first};
    unlink(path);
    f->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    int r = f->fd < 0 ? -errno : file_grow(f, sizeof(struct head) + j->snapshot + JOURNAL_CHUNK_BYTES);
    if (r == 0)
        r = store_record_snapshot(j->engine, snapshot_emit, f);
    if (r == 0) {
        struct head *h = (void *)f->memory;
        h->magic = JOURNAL_MAGIC;
        h->first = first;
        h->snapshot_bytes = f->tail;
        h->crc = head_crc(h);
    }
    return r;
}

/* The state as it is now, in a new file in the place of this one. At each moment there is a whole file at the path. */
static int journal_renew(struct store_journal *j)
{
    char fresh[JOURNAL_PATH_BYTES], kept[JOURNAL_PATH_BYTES];
    struct file f;
    path_beside(j, ".new", fresh);
    path_beside(j, j->damaged ? ".bad" : ".old", kept);
    int r = file_make(j, fresh, j->file.number, &f);
    if (r == 0) {
        unlink(kept);
        if (j->damaged || !j->behind)
            (void)link(j->path, kept);
        if (j->damaged || j->behind) { /* no way to what the new one begins with */
            path_beside(j, ".old", kept);
            unlink(kept);
        }
        r = rename(fresh, j->path) < 0 ? -errno : 0;
    }
    if (r < 0) {
        file_close(&f);
        unlink(fresh);
        j->renew_at = j->file.tail + JOURNAL_CHUNK_BYTES;
        return r;
    }
    file_close(&j->file);
    j->file = f;
    j->behind = j->damaged = false;
    j->snapshot = f.tail;
    j->renew_at = f.tail + MAX(2 * f.tail, (size_t)JOURNAL_RENEW_BYTES);
    return 0;
}

static int journal_write(struct store_journal *j, const struct store_change *change)
{
    size_t length = store_record_size(change);
    int r = 0;
    if (length == 0)
        return 0;
    if (j->behind || j->file.tail >= j->renew_at)
        r = journal_renew(j);
    if (j->behind)
        return r;
    char *at = file_next(&j->file, length, &r);
    if (!at)
        return r;
    store_record_write(change, at);
    file_seal(&j->file, length);
    return 0;
}

int store_journal_record(struct store_journal *j, const struct store_change *change)
{
    int r = journal_write(j, change);
    if (r == 0)
        return 0;
    j->behind |= change->kind == STORE_CHANGE_GONE;
    log_peer(&j->limiter, "store: a change is refused, as the journal %s cannot be written: %s", j->path, strerror(-r));
    return r == -ENOSPC || r == -EDQUOT || r == -EFBIG ? ENOSPC : EIO;
}

/* ---- reading what a predecessor left ---- */

/* A file that was found. */
struct past {
    const char *memory;
    size_t size;
    bool head_ok, tail_ok;
    struct head head;
    size_t tail;
    size_t good;     /* up to here records are whole, their numbers without a gap */
    uint64_t number; /* behind the last of them */
};

static void past_close(struct past *p)
{
    if (p->memory)
        munmap((void *)p->memory, p->size);
    *p = (struct past){0};
}

/* The record at `at`: its length, or 0 where there is no whole one. */
static uint32_t past_row(const struct past *p, size_t at, uint64_t *number)
{
    struct row row;
    if (!span_fits(at, sizeof(row), p->size))
        return 0;
    memcpy(&row, p->memory + at, sizeof(row));
    uint32_t length = row.length;
    if (length == 0 || !span_fits(at + sizeof(row), length, p->size) ||
        row_crc(length, p->memory + at + offsetof(struct row, number)) != row.crc)
        return 0;
    *number = row.number;
    return length;
}

static void past_scan(struct past *p)
{
    uint64_t number;
    uint32_t length;
    memcpy(&p->head, p->memory, sizeof(p->head));
    p->head_ok = p->head.magic == JOURNAL_MAGIC && p->head.crc == head_crc(&p->head);
    p->tail = (p->head.tail & UINT32_MAX) * 8;
    p->tail_ok = p->head.tail == tail_word(p->tail);
    p->good = sizeof(struct head);
    p->number = p->head_ok ? p->head.first : 0;
    while ((length = past_row(p, p->good, &number)) > 0) {
        bool first = p->good == sizeof(struct head) && !p->head_ok;
        if (!first && number != p->number)
            break;
        p->good += row_bytes(length);
        p->number = number + 1;
    }
}

/* 0, -ENOENT, or another -errno. An empty file is one that is damaged. */
static int past_open(struct past *p, const char *path)
{
    struct stat st;
    *p = (struct past){0};
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || fstat(fd, &st) < 0)
        return -errno;
    if (st.st_size < (off_t)sizeof(struct head))
        return 0;
    void *at = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (at == MAP_FAILED)
        return -errno;
    p->memory = at;
    p->size = (size_t)st.st_size;
    past_scan(p);
    return 0;
}

/* Applies the whole records from `at` on; *end: how far it came. */
static int past_apply(const struct past *p, size_t at, struct store_engine *g, size_t *end)
{
    uint64_t number, before = 0;
    uint32_t length;
    int r = 0;
    while ((length = past_row(p, at, &number)) > 0 && (!before || number == before + 1)) {
        r = store_record_apply(g, p->memory + at + sizeof(struct row), length);
        if (r < 0)
            break;
        before = number;
        at += row_bytes(length);
    }
    *end = at;
    return r == -EPROTO ? 0 : r; /* whole, and nonsense: where it is the damage begins */
}

/* The snapshot is damaged: the file before this one leads to the same state. */
static bool past_detour(const struct store_journal *j, const struct past *p, struct past *old)
{
    char path[JOURNAL_PATH_BYTES];
    if (!p->head_ok || p->good >= p->head.snapshot_bytes || p->head.snapshot_bytes % 8)
        return false;
    path_beside(j, ".old", path);
    if (past_open(old, path) == 0 && old->memory && old->head_ok && old->number == p->head.first)
        return true;
    past_close(old);
    return false;
}

static void damage_log(const struct store_journal *j, const struct past *p, size_t end, bool detour)
{
    if (!p->memory || end == sizeof(struct head))
        log_error("store: nothing of the journal %s can be read: the store begins anew; the file is kept as %s.bad",
                  j->path, j->path);
    else if (p->tail_ok && end >= p->tail)
        log_error("store: the journal %s was damaged, and nothing of it is lost%s; the file is kept as %s.bad", j->path,
                  detour ? " thanks to the one before it" : "", j->path);
    else
        log_error("store: the journal %s is damaged at byte %zu of %zu: the state up to there is kept, later changes "
                  "are lost; the file is kept as %s.bad",
                  j->path, end, p->tail_ok ? p->tail : p->size, j->path);
}

static int journal_load(struct store_journal *j, struct err *e)
{
    struct past p, old = {0};
    size_t end = sizeof(struct head);
    int r = past_open(&p, j->path);
    if (r == -ENOENT)
        return 0;
    if (r < 0)
        return err_set(e, r, "store: cannot read the journal %s: %s", j->path, strerror(-r));
    bool detour = p.memory && past_detour(j, &p, &old);
    if (detour)
        r = past_apply(&old, sizeof(struct head), j->engine, &end);
    if (r == 0 && p.memory)
        r = past_apply(&p, detour ? p.head.snapshot_bytes : sizeof(struct head), j->engine, &end);
    j->damaged = !p.memory || !p.head_ok || !p.tail_ok || end < p.tail || detour;
    j->file.number = MAX(p.number, 1u);
    if (r < 0)
        err_set(e, r, "store: cannot take over the journal %s: %s", j->path, strerror(-r));
    else if (j->damaged)
        damage_log(j, &p, end, detour);
    past_close(&old);
    past_close(&p);
    return r;
}

static int journal_start(const char *path, bool load, struct store_engine *g, struct store_journal **out, struct err *e)
{
    struct store_journal *j = calloc(1, sizeof(*j));
    if (!j)
        return err_set(e, -ENOMEM, "store: no memory for a journal");
    j->engine = g;
    j->behind = !load; /* what lies at the path is not what the changes from now on begin with */
    j->file = (struct file){.fd = -1, .number = 1};
    int r = (size_t)snprintf(j->path, PATH_MAX, "%s", path) >= PATH_MAX
                ? err_set(e, -ENAMETOOLONG, "store: the journal's path is too long")
                : (load ? journal_load(j, e) : 0);
    if (r < 0) {
        free(j);
        return r;
    }
    r = journal_renew(j);
    if (r < 0) {
        j->behind = true; /* the old file stays as it is, and so does the state */
        log_error("store: cannot write the journal %s: %s; nothing can be changed until that works", path,
                  strerror(-r));
    }
    *out = j;
    return 0;
}

int store_journal_open(const char *path, struct store_engine *g, struct store_journal **out, struct err *e)
{
    return journal_start(path, true, g, out, e);
}

int store_journal_continue(const char *path, struct store_engine *g, struct store_journal **out, struct err *e)
{
    return journal_start(path, false, g, out, e);
}

void store_journal_close(struct store_journal *j)
{
    if (!j)
        return;
    file_close(&j->file);
    free(j);
}

void store_journal_remove(const char *path)
{
    static const char *const suffixes[] = {"", ".new", ".old"};
    char name[JOURNAL_PATH_BYTES];
    for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++)
        if (snprintf(name, sizeof(name), "%s%s", path, suffixes[i]) < (int)sizeof(name))
            unlink(name);
}
