/* SPDX-License-Identifier: MIT */
#include "backend/blk/journal.h"

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "base/log.h"

_Static_assert(sizeof(struct journal_row) == 32, "layout of the journal");
_Static_assert(sizeof(struct journal_area) == 64 + JOURNAL_ROWS * 32, "layout of the journal");
_Static_assert(sizeof(struct journal_area) <= JOURNAL_AREA_BYTES, "an area holds its rows");

/* In place of an area before the first. */
struct journal_head {
    uint32_t magic, area_bytes, areas, rows;
};

struct journal {
    int fd;      /* what the supervisor handed us, or our own */
    int lock_fd; /* the same memory by an open file description of our own */
    unsigned char *memory;
    bool ready;
    struct list past;
    uint32_t next; /* where the search for a free area begins */
};

static const struct journal_head head_now = {
    .magic = JOURNAL_MAGIC, .area_bytes = JOURNAL_AREA_BYTES, .areas = JOURNAL_AREAS, .rows = JOURNAL_ROWS};

int journal_create(struct err *e)
{
    _cleanup_close_ int fd = memfd_create("domzero-blk-journal", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, (off_t)JOURNAL_BYTES) ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
        return err_set(e, -errno, "cannot make the journal of requests: %s", strerror(errno));
    return take_fd(&fd);
}

static struct journal_area *area_at(const struct journal *j, uint32_t index)
{
    return (void *)(j->memory + (1 + (size_t)index) * JOURNAL_AREA_BYTES);
}

/* It is what the supervisor made: or a store beyond its end would be our end. */
static int journal_check(int fd, struct err *e)
{
    int seals = fcntl(fd, F_GET_SEALS);
    off_t bytes = lseek(fd, 0, SEEK_END);
    if (seals < 0 || !(seals & F_SEAL_SHRINK) || bytes < (off_t)JOURNAL_BYTES)
        return err_set(e, -EINVAL, "descriptor %d is no journal of requests of this version", fd);
    return 0;
}

static int journal_map(struct journal *j, struct err *e)
{
    char path[32];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", j->fd);
    j->lock_fd = open(path, O_RDWR | O_CLOEXEC);
    if (j->lock_fd < 0)
        return err_set(e, -errno, "cannot open %s, the journal of requests: %s", path, strerror(errno));
    void *at = mmap(NULL, JOURNAL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, j->fd, 0);
    if (at == MAP_FAILED)
        return err_set(e, -errno, "cannot map the journal of requests: %s", strerror(errno));
    j->memory = at;
    return 0;
}

int journal_open(int fd, struct journal **out, struct err *e)
{
    struct journal *j = calloc(1, sizeof(*j));
    if (!j)
        return err_set(e, -ENOMEM, "out of memory");
    j->lock_fd = -1;
    list_init(&j->past);
    j->fd = fd > 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 3) : journal_create(e);
    int rc = j->fd >= 0 ? journal_check(j->fd, e)
             : fd > 0   ? err_set(e, -errno, "descriptor %d cannot be the journal: %s", fd, strerror(errno))
                        : j->fd;
    if (!rc)
        rc = journal_map(j, e);
    if (rc) {
        journal_close(j);
        return rc;
    }
    *out = j;
    return 0;
}

static struct flock lock_range(short type)
{
    return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_len = 1};
}

void journal_close(struct journal *j)
{
    struct journal_past *p, *next;
    if (!j)
        return;
    list_foreach_safe (p, next, &j->past, link) {
        list_remove(&p->link);
        free(p);
    }
    if (j->memory)
        munmap(j->memory, JOURNAL_BYTES);
    struct flock lock = lock_range(F_UNLCK); /* an io_uring gives its reference back later */
    if (j->lock_fd >= 0)
        (void)fcntl(j->lock_fd, F_OFD_SETLK, &lock);
    fd_closep(&j->lock_fd);
    fd_closep(&j->fd);
    free(j);
}

int journal_lock_fd(const struct journal *j)
{
    return j->lock_fd;
}

/* ---- what a predecessor left ---- */

static int row_compare(const void *a, const void *b)
{
    const struct journal_past_row *x = a, *y = b;
    return (x->number > y->number) - (x->number < y->number);
}

static bool operation_known(uint8_t operation)
{
    return operation == BLKIF_OP_READ || operation == BLKIF_OP_WRITE || operation == BLKIF_OP_WRITE_BARRIER ||
           operation == BLKIF_OP_FLUSH_DISKCACHE || operation == BLKIF_OP_DISCARD ||
           operation == BLKREQ_OP_WRITE_ZEROES || operation == BLKREQ_OP_WRITE_FUA;
}

/* Copies the rows that are in flight; returns how many. */
static uint32_t area_copy(const struct journal_area *a, struct journal_past *to)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < JOURNAL_ROWS; i++) {
        const struct journal_row *r = &a->row[i];
        uint64_t mark = atomic_load_explicit(&r->mark, memory_order_acquire);
        if (!(mark >> 8) || !operation_known((uint8_t)mark))
            continue;
        to->row[n++] = (struct journal_past_row){
            .number = mark >> 8,
            .sector = atomic_load_explicit(&r->sector, memory_order_relaxed),
            .sector_count = atomic_load_explicit(&r->sector_count, memory_order_relaxed),
            .operation = (uint8_t)mark,
        };
    }
    return n;
}

static struct journal_past *area_read(const struct journal_area *a)
{
    size_t bytes = sizeof(struct journal_past) + JOURNAL_ROWS * sizeof(struct journal_past_row);
    struct journal_past *p = calloc(1, bytes);
    if (!p)
        return NULL;
    p->count = p->left = area_copy(a, p);
    if (!p->count) {
        free(p);
        return NULL;
    }
    list_init(&p->link);
    p->front_domid = atomic_load_explicit(&a->front_domid, memory_order_relaxed);
    p->devid = atomic_load_explicit(&a->devid, memory_order_relaxed);
    p->queue = atomic_load_explicit(&a->queue, memory_order_relaxed);
    p->instance = atomic_load_explicit(&a->instance, memory_order_relaxed);
    qsort(p->row, p->count, sizeof(p->row[0]), row_compare);
    return p;
}

/* Areas that nobody used are holes, which looking at would fill: only what is data is looked at. */
static void journal_read(struct journal *j)
{
    uint32_t requests = 0, queues = 0;
    for (off_t at = JOURNAL_AREA_BYTES; (at = lseek(j->fd, at, SEEK_DATA)) >= 0;) {
        uint32_t index = (uint32_t)(at / JOURNAL_AREA_BYTES) - 1;
        if (index >= JOURNAL_AREAS)
            break;
        const struct journal_area *a = area_at(j, index);
        struct journal_past *p = atomic_load_explicit(&a->used, memory_order_acquire) == 1 ? area_read(a) : NULL;
        if (p) {
            list_append(&j->past, &p->link);
            requests += p->count;
            queues++;
        }
        at = (off_t)(index + 2) * JOURNAL_AREA_BYTES;
    }
    if (requests)
        log_warning("the role before this one had %u requests of %u queues in flight when it ended", requests, queues);
}

/* Reads what was left where it is of this layout, and empties it. */
static void journal_adopt(struct journal *j)
{
    struct journal_head *head = (void *)j->memory;
    if (!memcmp(head, &head_now, sizeof(head_now)))
        journal_read(j);
    else if (head->magic)
        log_info("the journal is of another version: what was in flight is not known");
    if (fallocate(j->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)JOURNAL_BYTES))
        memset(j->memory, 0, JOURNAL_BYTES); /* the same, but that it takes the memory */
    *head = head_now;
}

bool journal_ready(struct journal *j)
{
    struct flock lock = lock_range(F_WRLCK);
    if (!j || j->ready)
        return true;
    if (fcntl(j->lock_fd, F_OFD_SETLK, &lock))
        return false;
    j->ready = true;
    journal_adopt(j);
    return true;
}

/* ---- areas ---- */

static struct journal_area *area_find(struct journal *j)
{
    for (uint32_t i = 0; i < JOURNAL_AREAS; i++) {
        uint32_t index = (j->next + i) % JOURNAL_AREAS;
        struct journal_area *a = area_at(j, index);
        if (atomic_load_explicit(&a->used, memory_order_relaxed))
            continue;
        j->next = index + 1;
        return a;
    }
    return NULL;
}

static struct journal_past *past_take(struct journal *j, uint16_t front_domid, uint32_t devid, uint32_t queue)
{
    struct journal_past *p;
    list_foreach (p, &j->past, link) {
        if (p->front_domid != front_domid || p->devid != devid || p->queue != queue)
            continue;
        list_remove(&p->link);
        return p;
    }
    return NULL;
}

int journal_claim(struct journal *j, uint16_t front_domid, uint32_t devid, uint32_t queue, struct journal_queue *out)
{
    *out = (struct journal_queue){.area = j && j->ready ? area_find(j) : NULL};
    if (!j || !out->area) {
        out->private_area = true;
        out->area = calloc(1, sizeof(*out->area));
        return out->area ? 0 : -ENOMEM;
    }
    struct journal_area *a = out->area;
    out->past = past_take(j, front_domid, devid, queue);
    atomic_store_explicit(&a->front_domid, front_domid, memory_order_relaxed);
    atomic_store_explicit(&a->devid, devid, memory_order_relaxed);
    atomic_store_explicit(&a->queue, queue, memory_order_relaxed);
    atomic_store_explicit(&a->used, 1, memory_order_release);
    return 0;
}

static bool area_idle(const struct journal_area *a)
{
    for (uint32_t i = 0; i < JOURNAL_ROWS; i++)
        if (atomic_load_explicit(&a->row[i].mark, memory_order_relaxed))
            return false;
    return true;
}

void journal_release(struct journal *j, struct journal_queue *q)
{
    free(take_ptr(q->past));
    struct journal_area *a = take_ptr(q->area);
    if (!a)
        return;
    if (q->private_area) {
        free(a);
        return;
    }
    if (!area_idle(a))
        return;
    atomic_store_explicit(&a->used, 0, memory_order_release);
    off_t at = (off_t)((unsigned char *)a - j->memory);
    (void)fallocate(j->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, JOURNAL_AREA_BYTES);
}

/* ---- the reactor's ---- */

uint32_t journal_connect(struct journal_queue *q, uint32_t instance, uint32_t ring_entries)
{
    atomic_store_explicit(&q->area->instance, instance, memory_order_relaxed);
    q->comparing = q->past && q->past->instance == instance; /* another process does not know of them */
    if (!q->comparing)
        return 0;
    q->window = q->past->count + ring_entries;
    return q->past->count;
}

/* From where the last one was found: they come in the order of their taking, mostly. */
static bool past_find(struct journal_past *p, const struct blkreq *req)
{
    for (uint32_t i = 0; i < p->count; i++) {
        struct journal_past_row *r = &p->row[(p->cursor + i) % p->count];
        if (!r->number || r->operation != req->operation || r->sector != req->sector ||
            r->sector_count != req->sector_count)
            continue;
        r->number = 0;
        p->cursor = (p->cursor + i + 1) % p->count;
        p->left--;
        return true;
    }
    return false;
}

unsigned journal_compare(struct journal_queue *q, const struct blkreq *req, uint32_t *missing)
{
    bool found = past_find(q->past, req);
    *missing = 0;
    if (q->past->left && --q->window)
        return found;
    *missing = q->past->left;
    q->comparing = false;
    return found;
}
