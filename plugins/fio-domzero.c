/* SPDX-License-Identifier: MIT */
/* fio-domzero.c: an I/O engine for fio that is a guest of domzero: any job file runs on a virtual disk.
 *
 *   domzero exec VM -- fio --ioengine=external:build/fio-domzero.so --domzero_vdev=xvda job.fio
 *
 * A program of the installed header alone, built with the headers of the very fio that loads it (fio-source.sh).
 *
 * A job's block is one transfer here. It becomes as many requests of the disk as it takes (44 KiB each), so blocks may
 * have any size, and iodepth counts blocks. Transfers wait in a queue for free requests and are submitted in order;
 * queue() therefore never says busy, commit() and getevents() move the queue on. fio's buffers come from the disk's
 * pool and go without a copy; pieces are cut so that they touch no more pages than a request takes. Where all buffers
 * together are more than POOL_BYTES_MAX they are ordinary memory, and the library copies.
 *
 * fio's sync operations (fsync=, fdatasync=) are flushes. As everywhere, a flush covers the writes that fio had back
 * before it. There is no trim: libdomzero has no request for it; op_of() and job_refused() are what to change then.
 *
 * One job, one disk: each job is an instance of the domain, with a connection of its own. setup() runs in fio's first
 * process, before it forks, and only looks at the disk's size: it closes everything again. init() opens the disk in the
 * job's process, or thread with thread=1: both work, as different connections may be used by different threads.
 * A disk is open once, so numjobs must be 1 for a disk (or several jobs have stonewall), and as
 * io_submit_mode=offload gives each of its threads an engine of its own, it cannot be used. */
#include <fio.h>
#include <optgroup.h>

#include <domzero/domzero.h>

#define POOL_BYTES_MAX (32u << 20)
#define PAGE_BYTES     4096u
#define REAP_MAX       64u

struct disk_options {
    void *unused; /* fio takes offset 0 for "no option" */
    char *vdev, *domain_dir;
    unsigned spin_us;
};

/* One block of fio's. */
struct transfer {
    struct io_u *io_u;
    struct transfer *next; /* in the queue that it is in */
    uint64_t submitted_bytes;
    unsigned in_flight;
    bool more;   /* not all of it was submitted */
    bool queued; /* in `waiting` */
};

struct queue {
    struct transfer *first, *last;
};

struct engine {
    struct dz_domain *dom;
    struct dz_vbd *disk;
    struct dz_vbd_info info;
    struct queue waiting, finished;
    unsigned in_flight, uncommitted;
    struct dz_io *io, **io_free; /* queue_depth of them; those not in flight: a stack */
    unsigned io_free_count;
    struct transfer *transfer; /* iodepth of them: by io_u->index at first */
    unsigned transfer_count;
    struct io_u **event; /* what getevents() found, for event() */
    size_t pool_bytes;   /* of fio's buffers; 0: ordinary memory */
};

static void queue_put(struct queue *q, struct transfer *t)
{
    t->next = NULL;
    if (q->first)
        q->last->next = t;
    else
        q->first = t;
    q->last = t;
}

static struct transfer *queue_take(struct queue *q)
{
    struct transfer *t = q->first;
    if (t)
        q->first = t->next;
    return t;
}

/* ---- transfers ---- */

static enum dz_op op_of(enum fio_ddir ddir)
{
    return ddir == DDIR_READ ? DZ_READ : ddir == DDIR_WRITE ? DZ_WRITE : DZ_FLUSH;
}

/* The next request of a transfer. From an address in the middle of a page it is shorter, so that it ends with a page
 * and does not touch one more than a request takes; the next one then begins a page. */
static void piece_fill(const struct engine *e, const struct transfer *t, struct dz_io *io)
{
    const struct io_u *u = t->io_u;
    uint64_t left = u->xfer_buflen - t->submitted_bytes;
    unsigned char *at = (unsigned char *)u->xfer_buf + t->submitted_bytes;
    uint32_t most = e->info.request_bytes_max, into_page = (uint32_t)((uintptr_t)at % PAGE_BYTES);
    if (into_page % e->info.sector_bytes == 0)
        most -= into_page;
    *io = (struct dz_io){.op = op_of(u->ddir), .user = (void *)t};
    if (io->op == DZ_FLUSH)
        return;
    io->buffer = at;
    io->length_bytes = left < most ? (uint32_t)left : most;
    io->offset_bytes = u->offset + t->submitted_bytes;
}

static void transfer_fail(struct transfer *t, int error)
{
    if (!t->io_u->error)
        t->io_u->error = (unsigned)error;
    t->more = false;
}

/* Submits what there are free requests for. False: no more can be submitted now. */
static bool transfer_submit(struct engine *e, struct transfer *t)
{
    while (t->more) {
        if (!e->io_free_count)
            return false;
        struct dz_io *io = e->io_free[e->io_free_count - 1];
        piece_fill(e, t, io);
        int r = dz_vbd_submit(e->disk, io);
        if (r == -EAGAIN && e->in_flight)
            return false;
        if (r < 0) {
            log_err("fio: domzero: %s\n", dz_error());
            transfer_fail(t, -r);
            break;
        }
        e->io_free_count--;
        e->in_flight++;
        t->in_flight++;
        t->submitted_bytes += io->length_bytes;
        t->more = io->op != DZ_FLUSH && t->submitted_bytes < t->io_u->xfer_buflen;
    }
    return true;
}

static void queue_move_on(struct engine *e)
{
    while (e->waiting.first && transfer_submit(e, e->waiting.first)) {
        struct transfer *t = queue_take(&e->waiting);
        t->queued = false;
        if (!t->in_flight)
            queue_put(&e->finished, t);
    }
}

static void request_done(struct engine *e, struct dz_io *io)
{
    struct transfer *t = io->user;
    e->io_free[e->io_free_count++] = io;
    e->in_flight--;
    t->in_flight--;
    if (io->result < 0)
        transfer_fail(t, -io->result);
    if (!t->in_flight && !t->queued)
        queue_put(&e->finished, t);
}

/* ---- what fio calls for I/O ---- */

static enum fio_q_status engine_queue(struct thread_data *td, struct io_u *io_u)
{
    struct engine *e = td->io_ops_data;
    struct transfer *t = io_u->engine_data;
    fio_ro_check(td, io_u);
    if (!ddir_sync(io_u->ddir) && io_u->ddir != DDIR_READ && io_u->ddir != DDIR_WRITE) {
        io_u->error = EOPNOTSUPP;
        return FIO_Q_COMPLETED;
    }
    *t = (struct transfer){.io_u = io_u, .more = true, .queued = true};
    queue_put(&e->waiting, t);
    e->uncommitted++;
    return FIO_Q_QUEUED;
}

static int engine_commit(struct thread_data *td)
{
    struct engine *e = td->io_ops_data;
    queue_move_on(e);
    io_u_mark_submit(td, e->uncommitted);
    e->uncommitted = 0;
    dz_vbd_kick(e->disk); /* where it fails, the requests come back with the reason */
    return 0;
}

static int events_take(struct engine *e, int count, unsigned max)
{
    while ((unsigned)count < max && e->finished.first)
        e->event[count++] = queue_take(&e->finished)->io_u;
    return count;
}

static int engine_getevents(struct thread_data *td, unsigned int min, unsigned int max, const struct timespec *t)
{
    struct engine *e = td->io_ops_data;
    struct dz_io *done[REAP_MAX];
    int timeout_ms = t ? (int)(t->tv_sec * 1000 + t->tv_nsec / 1000000) : -1;
    int events = 0, n;
    if (max > e->transfer_count)
        max = e->transfer_count;
    do {
        queue_move_on(e);
        events = events_take(e, events, max);
        n = (unsigned)events < min ? dz_vbd_wait(e->disk, done, REAP_MAX, timeout_ms)
                                   : dz_vbd_reap(e->disk, done, REAP_MAX);
        for (int i = 0; i < n; i++)
            request_done(e, done[i]);
    } while (n > 0 && (unsigned)events < min);
    queue_move_on(e);
    dz_vbd_kick(e->disk);
    events = events_take(e, events, max);
    return n < 0 && events == 0 ? n : events;
}

static struct io_u *engine_event(struct thread_data *td, int event)
{
    const struct engine *e = td->io_ops_data;
    return e->event[event];
}

/* ---- memory ---- */

static int engine_iomem_alloc(struct thread_data *td, size_t bytes)
{
    struct engine *e = td->io_ops_data;
    td->orig_buffer = bytes <= POOL_BYTES_MAX ? dz_buffer_alloc(e->disk, bytes) : NULL;
    e->pool_bytes = td->orig_buffer ? bytes : 0;
    if (!td->orig_buffer)
        td->orig_buffer = malloc(bytes);
    return td->orig_buffer ? 0 : 1;
}

static void engine_iomem_free(struct thread_data *td)
{
    struct engine *e = td->io_ops_data;
    if (e && e->pool_bytes)
        dz_buffer_free(e->disk, td->orig_buffer, e->pool_bytes);
    else
        free(td->orig_buffer);
}

static int engine_io_u_init(struct thread_data *td, struct io_u *io_u)
{
    const struct engine *e = td->io_ops_data;
    io_u->engine_data = &e->transfer[io_u->index]; /* a union: the index is gone then */
    return 0;
}

/* ---- a job's beginning and end ---- */

static int disk_open(const struct disk_options *o, uint32_t pool_bytes, struct dz_domain **dom, struct dz_vbd **disk)
{
    struct dz_vbd_options options = {.pool_bytes = pool_bytes, .spin_us = o->spin_us};
    int r = dz_domain_open(o->domain_dir, dom);
    if (r < 0) {
        log_err("fio: domzero: %s\n", dz_error());
        return r;
    }
    r = dz_vbd_open(*dom, o->vdev, &options, disk);
    if (r < 0) {
        log_err("fio: domzero: %s\n", dz_error());
        dz_domain_close(*dom);
    }
    return r;
}

/* What a job asks for and cannot have, as a sentence; or NULL. */
static const char *job_refused(struct thread_data *td)
{
    if (td->files_index != 1)
        return "a job has one disk: nrfiles and filename with several are not possible";
    if (td->o.td_ddir & TD_DDIR_TRIM)
        return "there is no trim";
    if (td->o.io_submit_mode == IO_MODE_OFFLOAD)
        return "io_submit_mode=offload is not possible: a disk is open once";
    if (fio_option_is_set(&td->o, mem_type)) /* fio notices, and then goes on without buffers */
        return "mem= is not possible: buffers come from the disk's pool";
    return NULL;
}

static int engine_setup(struct thread_data *td)
{
    const struct disk_options *o = td->eo;
    struct dz_domain *dom;
    struct dz_vbd *disk;
    struct dz_vbd_info info;
    if (!o->vdev) {
        log_err("fio: domzero: which disk? Say domzero_vdev=xvda\n");
        return 1;
    }
    if (!td->files_index)
        add_file(td, o->vdev, 0, 0);
    const char *cannot = job_refused(td);
    if (cannot) {
        log_err("fio: domzero: %s\n", cannot);
        return 1;
    }
    if (disk_open(o, 0, &dom, &disk) < 0)
        return 1;
    dz_vbd_info(disk, &info);
    dz_vbd_close(disk);
    dz_domain_close(dom);
    if (info.readonly && td_write(td)) {
        log_err("fio: domzero: %s is read-only\n", o->vdev);
        return 1;
    }
    td->files[0]->filetype = FIO_TYPE_BLOCK;
    td->files[0]->real_file_size = info.size_bytes;
    return 0;
}

/* The disk is closed: nothing of the engine is in use by it. */
static void engine_free(struct engine *e)
{
    free(e->io);
    free(e->io_free);
    free(e->transfer);
    free(e->event);
    free(e);
}

static struct engine *engine_new(unsigned iodepth, unsigned queue_depth)
{
    struct engine *e = calloc(1, sizeof(*e));
    if (!e)
        return NULL;
    e->io = calloc(queue_depth, sizeof(*e->io));
    e->io_free = calloc(queue_depth, sizeof(struct dz_io *));
    e->transfer = calloc(iodepth, sizeof(*e->transfer));
    e->event = calloc(iodepth, sizeof(struct io_u *));
    if (!e->io || !e->io_free || !e->transfer || !e->event) {
        engine_free(e);
        return NULL;
    }
    e->transfer_count = iodepth;
    while (e->io_free_count < queue_depth) {
        e->io_free[e->io_free_count] = &e->io[e->io_free_count];
        e->io_free_count++;
    }
    return e;
}

static int engine_init(struct thread_data *td)
{
    /* As fio will ask for them: all blocks, and what it may add to align them. */
    uint64_t buffers = td_max_bs(td) * td->o.iodepth + 2 * PAGE_BYTES;
    struct dz_domain *dom;
    struct dz_vbd *disk;
    struct dz_vbd_info info;
    int r = disk_open(td->eo, buffers <= POOL_BYTES_MAX ? (uint32_t)buffers : 0, &dom, &disk);
    if (r < 0)
        return -r;
    dz_vbd_info(disk, &info);
    struct engine *e = engine_new(td->o.iodepth, info.queue_depth);
    if (!e) {
        dz_vbd_close(disk);
        dz_domain_close(dom);
        return ENOMEM;
    }
    e->dom = dom;
    e->disk = disk;
    e->info = info;
    td->io_ops_data = e;
    return 0;
}

static void engine_cleanup(struct thread_data *td)
{
    struct engine *e = td->io_ops_data;
    const struct disk_options *o = td->eo;
    struct dz_vbd_stats stats;
    if (!e)
        return;
    dz_vbd_stats(e->disk, &stats);
    if (stats.reconnects) /* not to fio's output, which may be JSON */
        fprintf(stderr, "fio: domzero: %s: the backend came back %llu times, %llu requests were done again\n", o->vdev,
                (unsigned long long)stats.reconnects, (unsigned long long)stats.replayed);
    dz_vbd_close(e->disk);
    dz_domain_close(e->dom);
    engine_free(e);
    td->io_ops_data = NULL;
}

/* fio keeps a file open; the disk is. */
static int engine_file_nothing(struct thread_data *td, struct fio_file *f)
{
    (void)td, (void)f;
    return 0;
}

static struct fio_option options[] = {
    {
        .name = "domzero_vdev",
        .lname = "domzero disk",
        .type = FIO_OPT_STR_STORE,
        .off1 = offsetof(struct disk_options, vdev),
        .help = "The virtual disk: xvda, or its number",
        .category = FIO_OPT_C_ENGINE,
        .group = FIO_OPT_G_INVALID,
    },
    {
        .name = "domzero_domain_dir",
        .lname = "domzero domain",
        .type = FIO_OPT_STR_STORE,
        .off1 = offsetof(struct disk_options, domain_dir),
        .help = "The domain's directory; else $DOMZERO_DOMAIN_DIR, which `domzero exec` sets",
        .category = FIO_OPT_C_ENGINE,
        .group = FIO_OPT_G_INVALID,
    },
    {
        .name = "domzero_spin_us",
        .lname = "domzero spinning",
        .type = FIO_OPT_INT,
        .off1 = offsetof(struct disk_options, spin_us),
        .help = "How long a wait polls before it sleeps, in microseconds",
        .def = "0",
        .category = FIO_OPT_C_ENGINE,
        .group = FIO_OPT_G_INVALID,
    },
    {0},
};

/* fio looks for this name. */
__attribute__((visibility("default"))) struct ioengine_ops ioengine = {
    .name = "domzero",
    .version = FIO_IOOPS_VERSION,
    .flags = FIO_DISKLESSIO | FIO_NOEXTEND | FIO_NODISKUTIL,
    .options = options,
    .option_struct_size = sizeof(struct disk_options),
    .setup = engine_setup,
    .init = engine_init,
    .cleanup = engine_cleanup,
    .open_file = engine_file_nothing,
    .close_file = engine_file_nothing,
    .invalidate = engine_file_nothing,
    .iomem_alloc = engine_iomem_alloc,
    .iomem_free = engine_iomem_free,
    .io_u_init = engine_io_u_init,
    .queue = engine_queue,
    .commit = engine_commit,
    .getevents = engine_getevents,
    .event = engine_event,
};
